//! Every path on which an object is created, against every way in which a store can answer it.
//!
//! Virtual time: back-off and deadlines pass without waiting.

use std::time::Duration;

use crate::common::{append, make_topic, options, partition, pass, read_all, texts};
use bytes::Bytes;
use object_store::path::Path;
use plinth_storage::error::Kind;
use plinth_storage::log::{Log, LogOptions, StopReason};
use plinth_storage::testing::fault::{FaultStore, Op, PutFault};
use tokio::task::JoinSet;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const FAULTS: [PutFault; 5] =
    [PutFault::FailBefore, PutFault::ApplyThenError, PutFault::ApplyLater, PutFault::Conflict409, PutFault::Own412];

async fn open(store: &FaultStore) -> Log {
    Log::open(options(&store.stores(), None)).await.expect("the log opens")
}

fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

/// Runs a life of two sessions. Each hook may script a fault for what comes next.
async fn two_sessions(store: &FaultStore, first: impl FnOnce(), running: impl FnOnce(), second: impl FnOnce()) {
    first();
    let log = open(store).await;
    make_topic(&log, 1).await;
    assert_eq!(append(&log, "a").await.expect("stored"), 0);
    running();
    assert_eq!(append(&log, "b").await.expect("stored"), 1);
    log.request_checkpoint();
    store.until(|store| store.calls().iter().any(|call| call.op == Op::Put && is_checkpoint(&call.path))).await;
    assert_eq!(append(&log, "c").await.expect("stored"), 2);
    drop(log);

    second();
    let log = open(store).await;
    assert_eq!(texts(&log).await, ["a", "b", "c"]);
    assert_eq!(append(&log, "d").await.expect("stored"), 3);
    drop(log);
    store.release().await;

    let log = open(store).await;
    assert_eq!(texts(&log).await, ["a", "b", "c", "d"], "what was put off changes nothing later");
    assert_eq!(store.unfired(), 0, "every scripted fault happened");
}

fn is_checkpoint(path: &Path) -> bool {
    path.as_ref().contains("/checkpoint/")
}

// Fails when `slot::create` takes "already exists" for a conflict without reading what is there (Own412,
// ApplyThenError), or for success without reading (Conflict409), or gives up on an error (FailBefore).
#[tokio::test(start_paused = true)]
async fn every_answer_to_the_create_of_a_data_slot_is_settled() {
    for fault in FAULTS {
        let store = FaultStore::in_memory();
        two_sessions(&store, || {}, || store.on_put(is_wal, fault), || {}).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_the_create_of_the_cluster_object_is_settled() {
    for fault in FAULTS {
        let store = FaultStore::in_memory();
        two_sessions(&store, || store.on_put(|path| path.as_ref() == "cluster", fault), || {}, || {}).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_the_create_of_a_session_and_of_a_claim_is_settled() {
    for fault in FAULTS {
        for part in ["/meta", "shard/00000/claim/", "shard/00007/claim/"] {
            let store = FaultStore::in_memory();
            let script = || store.on_put(move |path| path.as_ref().contains(part), fault);
            two_sessions(&store, script, || {}, script).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_the_create_of_a_checkpoint_is_settled() {
    for fault in FAULTS {
        let store = FaultStore::in_memory();
        two_sessions(&store, || {}, || store.on_put(is_checkpoint, fault), || {}).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_the_create_of_the_two_fences_is_settled() {
    for fault in FAULTS {
        let store = FaultStore::in_memory();
        let script = || {
            store.on_put(is_wal, fault);
            store.on_put(is_checkpoint, fault);
        };
        two_sessions(&store, || {}, || {}, script).await;
    }
}

// Fails when the writer acknowledges before its create is answered, or when a fence in its slot is read as its own.
#[tokio::test(start_paused = true)]
async fn a_put_that_is_paused_over_a_takeover_is_not_stored_and_stops_the_session() {
    let store = FaultStore::in_memory();
    let old = open(&store).await;
    make_topic(&old, 1).await;
    append(&old, "a").await.expect("stored");
    store.on_put(is_wal, PutFault::Hang);
    let paused = tokio::spawn({
        let old = old.clone();
        async move { append(&old, "lost").await }
    });
    store.until(|store| store.hanging() == 1).await;
    let new = open(&store).await;
    store.release().await;
    let error = paused.await.expect("no panic").expect_err("the slot is fenced");
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(matches!(old.stopped().await, StopReason::Fenced(_)));
    assert_eq!(append(&old, "later").await.expect_err("stopped").kind(), Kind::Fenced);
    assert_eq!(texts(&new).await, ["a"]);
    assert_eq!(append(&new, "b").await.expect("stored"), 1, "the offset of what was not stored is given again");
}

// Fails when a session may end the log of another by anything but an object in the next slot.
#[tokio::test(start_paused = true)]
async fn a_put_that_lands_after_the_takeover_finds_the_fence() {
    let store = FaultStore::in_memory();
    let old = open(&store).await;
    make_topic(&old, 1).await;
    append(&old, "a").await.expect("stored");
    store.on_put(is_wal, PutFault::ApplyLater);
    let pending = tokio::spawn({
        let old = old.clone();
        async move { append(&old, "late").await }
    });
    store.until(|store| store.put_off() == 1).await;
    pending.abort();
    drop(old);
    drop(pending.await);
    let new = open(&store).await;
    assert_eq!(store.release().await, 0, "nothing that was put off takes effect");
    assert_eq!(texts(&new).await, ["a"]);
}

// Fails when an idle session never looks at its next slot.
#[tokio::test(start_paused = true)]
async fn an_idle_session_learns_that_it_was_ended() {
    let store = FaultStore::in_memory();
    let old = open(&store).await;
    let _new = open(&store).await;
    assert!(matches!(old.stopped().await, StopReason::Fenced(_)));
}

// Fails when an append waits for a store that is known to be away, or when the writer forgets a slot it has tried.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_refuses_appends_and_loses_none_when_it_is_back() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    append(&log, "a").await.expect("stored");
    store.set_unavailable(true);
    assert_eq!(append(&log, "b").await.expect_err("away").kind(), Kind::Unknown);
    assert!(!log.status().available);
    assert_eq!(append(&log, "c").await.expect_err("away").kind(), Kind::Unavailable);
    store.set_unavailable(false);
    // The slot whose outcome was open is settled first: its record keeps the offset it was given.
    let mut again = tokio::time::interval(Duration::from_millis(100));
    let stored = loop {
        match append(&log, "d").await {
            Ok(offset) => break offset,
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable),
        }
        again.tick().await;
    };
    assert_eq!(stored, 2);
    assert_eq!(texts(&log).await, ["a", "b", "d"]);
}

// Fails when only what has room already is refused when the store goes away: the last one waited for room until the others
// gave it back, and came behind them.
#[tokio::test(start_paused = true)]
async fn an_append_that_waits_for_room_when_the_store_goes_away_is_refused_as_well() {
    let store = FaultStore::in_memory();
    let mut options = options(&store.stores(), None);
    (options.pending_bytes_max, options.in_flight_max) = (4 * 1024, 1);
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    append(&log, "a").await.expect("stored");
    store.set_unavailable(true);
    let mut appends = JoinSet::new();
    for number in 0..6 {
        let log = log.clone();
        appends.spawn(async move { (number, append(&log, "b").await.expect_err("away").kind()) });
        tokio::task::yield_now().await;
    }
    let mut refused =
        tokio::time::timeout(Duration::from_secs(60), appends.join_all()).await.expect("all are answered");
    refused.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(refused.remove(0), (0, Kind::Unknown), "its slot was tried");
    assert!(refused.iter().all(|(_, kind)| *kind == Kind::Unavailable), "{refused:?}");
}

// Fails when more than the contiguous prefix is acknowledged: slot 2 is stored while slot 1 hangs.
#[tokio::test(start_paused = true)]
async fn a_slot_is_acknowledged_only_after_every_slot_before_it() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 2).await;
    store.on_put(is_wal, PutFault::Hang);
    let first = tokio::spawn({
        let log = log.clone();
        async move { append(&log, "a").await }
    });
    store.until(|store| store.hanging() == 1).await;
    let puts = store.count(Op::Put);
    let second = tokio::spawn({
        let log = log.clone();
        async move { log.append(partition(1), crate::common::batch(&[Bytes::from_static(b"b")])).await }
    });
    store.until(|store| store.count(Op::Put) > puts).await;
    assert!(!second.is_finished());
    assert_eq!(log.bounds(partition(1)).expect("there").tail.0, 0, "nothing is shown before it is committed");
    store.release().await;
    first.await.expect("no panic").expect("stored");
    second.await.expect("no panic").expect("stored");
    assert_eq!(read_all(&log, partition(1)).await, [Bytes::from_static(b"b")]);
}

// Fails when the pipeline keeps one slot in flight only, or a third one beside two.
#[tokio::test(start_paused = true)]
async fn a_second_flush_begins_when_as_many_wait_as_are_worth_one_and_no_third() {
    // As on a directory, where a flush is the clock; and as on a remote store, before its interval is over.
    for (flush_interval, worth) in [(None, 16), (Some(Duration::from_secs(5)), 128)] {
        let store = FaultStore::in_memory();
        let options = LogOptions { flush_interval, slot_bytes: 1024 * 1024, ..options(&store.stores(), None) };
        let log = Log::open(options).await.expect("the log opens");
        make_topic(&log, 1).await;
        // What was answered before is not waited for.
        pass(Duration::from_millis(10)).await;
        store.on_put(is_wal, PutFault::Hang);
        store.on_put(is_wal, PutFault::Hang);
        let before = store.count(Op::Put);
        let mut appends = tokio::task::JoinSet::new();
        let mut spawn = |count: usize| {
            for _ in 0..count {
                let log = log.clone();
                appends.spawn(async move { append(&log, "x").await });
            }
        };
        let more_than = |flushes: u64| {
            let store = store.clone();
            async move {
                let wait = store.until(|store| store.count(Op::Put) - before > flushes);
                tokio::time::timeout(Duration::from_millis(100), wait).await.is_ok()
            }
        };
        spawn(20);
        assert!(more_than(0).await);
        spawn(worth - 1);
        assert!(!more_than(1).await, "{} wait for the flush that is under way", worth - 1);
        spawn(1);
        assert!(more_than(1).await, "{worth} are worth a second one");
        spawn(worth + 40);
        assert!(!more_than(2).await, "two at a time");
        store.release().await;
        let mut offsets: Vec<u64> =
            appends.join_all().await.into_iter().map(|offset| offset.expect("stored")).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, (0..(60 + 2 * worth) as u64).collect::<Vec<_>>());
    }
}

// Fails when the first who is back on a remote store begins a flush alone: each round takes two requests then.
#[tokio::test(start_paused = true)]
async fn those_whom_a_flush_answered_share_the_next_one_on_a_remote_store() {
    let store = FaultStore::in_memory();
    let log = Log::open(options(&store.stores(), None)).await.expect("the log opens");
    make_topic(&log, 1).await;
    store.set_latency(Duration::from_millis(30));
    let before = store.count(Op::Put);
    let (publishers, rounds) = (10, 20);
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..publishers {
        let log = log.clone();
        tasks.spawn(async move {
            for _ in 0..rounds {
                // None of them is back at the same moment.
                pass(Duration::from_micros(300 * publisher)).await;
                append(&log, "x").await.expect("stored");
            }
        });
    }
    tasks.join_all().await;
    let flushes = store.count(Op::Put) - before;
    assert!(flushes <= rounds + 5, "{flushes} flushes for {rounds} rounds");
}

// Fails when the first who are back on a directory begin a flush without the others, or a second one beside it.
#[tokio::test(start_paused = true)]
async fn many_whom_a_flush_answered_share_the_next_one_on_a_directory() {
    let store = FaultStore::in_memory();
    let options = LogOptions { flush_interval: None, ..options(&store.stores(), None) };
    let log = Log::open(options).await.expect("the log opens");
    make_topic(&log, 1).await;
    store.set_latency(Duration::from_millis(5));
    let before = store.count(Op::Put);
    let (publishers, rounds) = (64, 20);
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..publishers {
        let log = log.clone();
        tasks.spawn(async move {
            for _ in 0..rounds {
                // None of them is back at the same moment.
                for _ in 0..publisher {
                    tokio::task::yield_now().await;
                }
                append(&log, "x").await.expect("stored");
            }
        });
    }
    tasks.join_all().await;
    let flushes = store.count(Op::Put) - before;
    // With those that begin and end out of step; more than three a round where nobody is waited for.
    assert!(flushes < 5 * rounds / 2, "{flushes} flushes for {rounds} rounds");
}

// Fails when a close that gives up, or is dropped, ends the tasks and tells those who wait for them nothing.
#[tokio::test(start_paused = true)]
async fn who_waits_behind_a_slot_without_an_answer_is_told_when_the_log_is_closed() {
    for patient in [true, false] {
        let store = FaultStore::in_memory();
        let options = LogOptions { in_flight_max: 1, append_timeout: 1000 * DAY, ..options(&store.stores(), None) };
        let log = Log::open(options).await.expect("the log opens");
        make_topic(&log, 1).await;
        store.on_put(is_wal, PutFault::Hang);
        let append_apart = |text: &'static str| {
            tokio::spawn({
                let log = log.clone();
                async move { append(&log, text).await }
            })
        };
        let under_way = append_apart("under way");
        store.until(|store| store.hanging() == 1).await;
        let behind = append_apart("behind");
        pass(Duration::from_millis(1)).await;
        // As long as a try of the create takes, or less.
        let limit = Duration::from_secs(if patient { 60 } else { 1 });
        let closed = tokio::time::timeout(limit, log.close()).await;
        assert_eq!(
            closed.map(|closed| closed.map_err(|error| error.kind())).ok(),
            patient.then_some(Err(Kind::Unknown))
        );
        let outcomes = tokio::time::timeout(DAY, async { (under_way.await, behind.await) }).await;
        let (under_way, behind) = outcomes.expect("both are told");
        assert_eq!(under_way.expect("no panic").expect_err("open").kind(), Kind::Unknown);
        assert_eq!(behind.expect("no panic").expect_err("never sent").kind(), Kind::Closed);
    }
}
