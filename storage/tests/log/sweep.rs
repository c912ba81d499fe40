//! Deletion: what nothing needs any more goes, after its grace; nothing else ever does, whoever crashes or pauses when.
//!
//! Virtual time: intervals and graces pass without waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use plinth_storage::error::Kind;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TopicId};
use plinth_storage::log::{Change, DocOp, Log, LogOptions, StopReason, TopicOp};
use plinth_storage::testing::fault::{FaultStore, GetFault, Op, PutFault};
use ulid::Ulid;

use crate::common::{append, batch, make_topic, options, partition, pass, read_all, texts};

const INTERVAL: Duration = Duration::from_secs(60 * 60);
const GRACE: Duration = Duration::from_secs(10 * 60);
/// A header alone: a fence, or a claim and its like with a little more.
const SMALL_BYTES: u64 = 512;

fn sweeping(store: &FaultStore) -> LogOptions {
    LogOptions { sweep_interval: INTERVAL, delete_grace: GRACE, ..options(&store.stores(), None) }
}

/// Deletes within the time that one try of a create may take: who pauses in one is still in it afterwards.
fn hasty(store: &FaultStore) -> LogOptions {
    LogOptions { sweep_interval: Duration::from_secs(2), delete_grace: Duration::from_secs(1), ..sweeping(store) }
}

async fn open(store: &FaultStore) -> Log {
    Log::open(sweeping(store)).await.expect("the log opens")
}

/// Everything in the bucket, with its size.
async fn objects(store: &FaultStore) -> BTreeMap<Path, u64> {
    let listed: Vec<_> = store.inner().list(None).try_collect().await.expect("listed");
    listed.into_iter().map(|object| (object.location, object.size)).collect()
}

async fn sizes_of(store: &FaultStore, part: &str) -> Vec<u64> {
    let objects = objects(store).await;
    objects.into_iter().filter(|(path, _)| path.as_ref().contains(part)).map(|(_, size)| size).collect()
}

fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

fn is_checkpoint(path: &Path) -> bool {
    path.as_ref().contains("/checkpoint/")
}

/// Another topic, of which everything can go.
fn other() -> TopicId {
    TopicId(Ulid::from_parts(9, 9))
}

async fn make_other(log: &Log) {
    let topics = vec![TopicOp::Create { topic: other(), partitions: 1 }];
    log.commit(Change { topics, ..Change::default() }).await.expect("made");
}

async fn delete_other(log: &Log) {
    let topics = vec![TopicOp::Delete { topic: other() }];
    log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
}

async fn append_other(log: &Log, bytes: usize) -> plinth_storage::Result<u64> {
    let partition = Partition { topic: other(), index: PartitionIndex(0) };
    log.append(partition, batch(&[Bytes::from(vec![7; bytes])])).await.map(|appended| appended.base.0)
}

/// Puts a document of bytes that do not compress.
async fn put_doc(log: &Log, key: u8, len: usize) {
    let mut word = u64::from(key) + 1;
    let noise = std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.to_be_bytes()[0]
    });
    let doc = DocOp::Put(Bytes::copy_from_slice(&[key]), Bytes::from(noise.take(len).collect::<Vec<u8>>()));
    log.commit(Change { docs: vec![doc], ..Change::default() }).await.expect("committed");
}

// Fails when a sweep needs something that never comes, or when it looks at the index before the delete is in it.
#[tokio::test(start_paused = true)]
async fn the_space_of_a_deleted_topic_returns_and_what_is_kept_stays() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    make_other(&log).await;
    append(&log, "kept").await.expect("stored");
    for _ in 0..50 {
        append_other(&log, 10_000).await.expect("stored");
    }
    log.checkpoint().await.expect("written");
    pass(INTERVAL + GRACE).await;
    let full: u64 = objects(&store).await.values().sum();
    assert!(full > 500_000);
    delete_other(&log).await;
    log.checkpoint().await.expect("written");
    let deleted = log.metrics().deleted_bytes.get();
    pass(2 * INTERVAL + GRACE).await;
    let left: u64 = objects(&store).await.values().sum();
    assert!(left < 20_000, "{left} bytes are left of {full}");
    assert!(log.metrics().deleted_bytes.get() - deleted > 500_000);
    assert_eq!(log.metrics().pending_deletes.get(), 0);
    assert_eq!(texts(&log).await, ["kept"]);
    drop(log);
    let log = open(&store).await;
    assert_eq!(texts(&log).await, ["kept"], "a cold node finds what is kept");
    assert_eq!(append(&log, "more").await.expect("stored"), 1);
}

// Fails when the grace is not waited for, or counted from the survey.
#[tokio::test(start_paused = true)]
async fn nothing_goes_before_the_grace_after_the_checkpoint_that_no_longer_needs_it() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_other(&log).await;
    append_other(&log, 10_000).await.expect("stored");
    delete_other(&log).await;
    // The sweep begins at the first checkpoint, but the delete of the topic is in the second one.
    log.checkpoint().await.expect("written");
    let before = objects(&store).await;
    pass(GRACE - Duration::from_secs(1)).await;
    assert_eq!(objects(&store).await, before);
    assert!(log.metrics().pending_deletes.get() > 0);
    pass(Duration::from_secs(5)).await;
    assert!(log.metrics().deleted_bytes.get() > 10_000);
    assert_eq!(sizes_of(&store, "/wal/").await, [] as [u64; 0], "no slot holds a record that is kept");
}

// Fails when a sweep deletes what only the state in memory has let go of, and the newest checkpoint has not.
#[tokio::test(start_paused = true)]
async fn nothing_goes_while_the_newest_checkpoint_still_names_it() {
    let store = FaultStore::in_memory();
    let rare = LogOptions { checkpoint_interval: 1000 * INTERVAL, ..sweeping(&store) };
    let log = Log::open(rare).await.expect("opens");
    make_other(&log).await;
    append_other(&log, 10_000).await.expect("stored");
    log.checkpoint().await.expect("written");
    pass(2 * GRACE).await;
    // Reason enough for a sweep in an hour, which then finds the topic deleted.
    log.checkpoint().await.expect("written");
    delete_other(&log).await;
    let deleted = log.metrics().deleted_bytes.get();
    pass(3 * INTERVAL).await;
    assert_eq!(log.metrics().deleted_bytes.get(), deleted, "a start would find the topic in the checkpoint");
    log.checkpoint().await.expect("written");
    pass(GRACE + Duration::from_secs(5)).await;
    assert!(log.metrics().deleted_bytes.get() > deleted + 10_000);
}

// Fails when a sweep judges what it lists by a look at the rows from before.
#[tokio::test(start_paused = true)]
async fn a_segment_that_is_made_while_the_bucket_is_listed_has_its_own_grace() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    append(&log, "a").await.expect("stored");
    make_other(&log).await;
    append_other(&log, 10_000).await.expect("stored");
    delete_other(&log).await;
    let lists = store.count(Op::List);
    store.set_latency(Duration::from_secs(10));
    log.request_checkpoint();
    store.until(|store| store.count(Op::List) > lists).await;
    // The sweep has looked at the rows, and waits for the list of the logs; that of the segments comes after it.
    store.set_latency(Duration::ZERO);
    log.compact().await.expect("compacted");
    assert_eq!(sizes_of(&store, "segment/").await.len(), 1);
    pass(GRACE - Duration::from_secs(60)).await;
    append(&log, "b").await.expect("stored");
    log.trim(&[(partition(0), Offset(1))]).await.expect("trimmed");
    pass(Duration::from_secs(180)).await;
    assert!(log.metrics().deleted_bytes.get() > 10_000, "the sweep has come to its end");
    assert_eq!(sizes_of(&store, "segment/").await.len(), 1, "it was needed three minutes ago");
    log.checkpoint().await.expect("written");
    pass(INTERVAL + 2 * GRACE).await;
    assert_eq!(sizes_of(&store, "segment/").await, [] as [u64; 0]);
    assert_eq!(texts(&log).await, ["b"]);
}

// Fails when checkpoints that were merged stay, or when one goes that the newest one names.
#[tokio::test(start_paused = true)]
async fn of_many_checkpoints_only_the_parts_of_the_newest_stay() {
    let store = FaultStore::in_memory();
    let mut log = open(&store).await;
    for key in 0..40 {
        put_doc(&log, key, 500).await;
    }
    for round in 0..60 {
        put_doc(&log, round % 50, 300).await;
        log.checkpoint().await.expect("written");
        if round % 20 == 19 {
            drop(log);
            log = open(&store).await;
        }
    }
    put_doc(&log, 1, 300).await;
    log.checkpoint().await.expect("written");
    pass(2 * INTERVAL + GRACE).await;
    let kept = sizes_of(&store, "/checkpoint/").await.into_iter().filter(|size| *size > 128).count();
    assert!((1..=12).contains(&kept), "{kept} checkpoints are left of 61");
    let rows = log.state_rows().expect("readable");
    drop(log);
    let log = open(&store).await;
    assert_eq!(log.state_rows().expect("readable"), rows, "all parts are there");
}

// Fails when a sweep takes along what has no body, or what stands outside of logs.
#[tokio::test(start_paused = true)]
async fn fences_claims_and_metas_stay_for_ever() {
    let store = FaultStore::in_memory();
    for _ in 0..4 {
        let log = open(&store).await;
        log.checkpoint().await.expect("written");
        drop(log);
    }
    let before = objects(&store).await;
    let log = open(&store).await;
    log.checkpoint().await.expect("written");
    pass(2 * INTERVAL + GRACE).await;
    let after = objects(&store).await;
    let for_ever = |path: &Path, size: u64| size == 128 || !(is_wal(path) || is_checkpoint(path));
    for (path, size) in before.into_iter().filter(|(path, size)| for_ever(path, *size)) {
        assert_eq!(after.get(&path), Some(&size), "{path}");
    }
    // Of four earlier logs nothing else is left.
    let session = log.session().to_string();
    let others = after.iter().filter(|(path, size)| !path.as_ref().contains(&session) && !for_ever(path, **size));
    assert_eq!(others.collect::<Vec<_>>(), [] as [(&Path, &u64); 0]);
}

// Fails when a session judges logs of sessions that came after it: it was ended and does not know it.
#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_know_that_it_was_ended_deletes_nothing_of_its_successors() {
    let store = FaultStore::in_memory();
    let deaf = LogOptions { fence_check_interval: 1000 * INTERVAL, ..sweeping(&store) };
    let old = Log::open(deaf).await.expect("opens");
    make_topic(&old, 1).await;
    append(&old, "a").await.expect("stored");
    old.checkpoint().await.expect("written");
    pass(GRACE / 2).await;
    // A checkpoint during the first sweep is the reason for a second one.
    append(&old, "b").await.expect("stored");
    old.checkpoint().await.expect("written");
    pass(GRACE).await;
    for text in ["c", "d"] {
        let next = Log::open(LogOptions { sweep_interval: 1000 * INTERVAL, ..sweeping(&store) }).await.expect("opens");
        append(&next, text).await.expect("stored");
        next.compact().await.expect("compacted");
        next.checkpoint().await.expect("written");
        drop(next);
    }
    store.forget_calls();
    pass(2 * INTERVAL + GRACE).await;
    assert!(store.count(Op::List) > 0, "the old session has looked");
    let log = open(&store).await;
    assert_eq!(texts(&log).await, ["a", "b", "c", "d"]);
}

// Fails when a start takes the first fence among checkpoints for their end, or does not list again after its own.
#[tokio::test(start_paused = true)]
async fn a_fence_that_lands_in_the_number_of_a_deleted_checkpoint_is_not_the_end() {
    let store = FaultStore::in_memory();
    let old = open(&store).await;
    make_topic(&old, 1).await;
    put_doc(&old, 0, 5000).await;
    old.checkpoint().await.expect("written");
    // A start that dies while its fence is under way: in number 1.
    store.on_put(is_checkpoint, PutFault::ApplyLater);
    let late = tokio::spawn(Log::open(sweeping(&store)));
    store.until(|store| store.put_off() == 1).await;
    late.abort();
    drop(late.await);
    // Number 1 is merged into a later one, and deleted.
    for round in 0..6 {
        append(&old, &round.to_string()).await.expect("stored");
        old.checkpoint().await.expect("written");
    }
    pass(2 * INTERVAL + GRACE).await;
    let number_1 = Path::from(format!("session/{}/checkpoint/{:020}", old.session(), 1));
    assert!(!objects(&store).await.contains_key(&number_1), "it was deleted");
    assert_eq!(store.release().await, 1, "the fence lands");
    append(&old, "6").await.expect("the session goes on");
    old.checkpoint().await.expect("and writes checkpoints");
    append(&old, "7").await.expect("stored");
    let rows = old.state_rows().expect("readable");
    let new = open(&store).await;
    assert_eq!(new.state_rows().expect("readable"), rows);
    assert_eq!(texts(&new).await, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(append(&old, "8").await.expect_err("ended").kind(), Kind::Fenced);
}

// Fails when a start believes that its fence is the last one without another look: the number that it took was free
// because what had stood there was deleted while it was paused.
#[tokio::test(start_paused = true)]
async fn a_start_that_pauses_over_the_deletion_of_a_checkpoint_fences_again() {
    let store = FaultStore::in_memory();
    let old = Log::open(hasty(&store)).await.expect("opens");
    make_topic(&old, 1).await;
    put_doc(&old, 0, 5000).await;
    old.checkpoint().await.expect("written");
    store.on_put(is_checkpoint, PutFault::Hang);
    let paused = tokio::spawn(Log::open(sweeping(&store)));
    store.until(|store| store.hanging() == 1).await;
    for round in 0..6 {
        append(&old, &round.to_string()).await.expect("stored");
        put_doc(&old, 1, 100).await;
        old.checkpoint().await.expect("written");
    }
    // Less than a try of a create may take: the paused one is still the first.
    pass(Duration::from_secs(8)).await;
    let number_1 = Path::from(format!("session/{}/checkpoint/{:020}", old.session(), 1));
    assert!(!objects(&store).await.contains_key(&number_1), "it was deleted");
    append(&old, "6").await.expect("stored");
    let rows = old.state_rows().expect("readable");
    store.release().await;
    let new = paused.await.expect("no panic").expect("opens");
    assert!(objects(&store).await.contains_key(&number_1), "its fence is where the deleted one was");
    assert_eq!(new.state_rows().expect("readable"), rows, "not from the checkpoint before the deleted one");
    assert!(matches!(old.stopped().await, StopReason::Fenced(_)));
}

// Fails when a writer that finds a fence says `not stored` without a look at the next claim.
#[tokio::test(start_paused = true)]
async fn a_fence_that_lands_in_a_deleted_slot_does_not_make_a_stored_record_unstored() {
    let store = FaultStore::in_memory();
    let patient = LogOptions { append_timeout: 1000 * INTERVAL, ..sweeping(&store) };
    let old = Log::open(patient).await.expect("opens");
    make_other(&old).await;
    // A start that dies while its fence is under way: in the next slot.
    store.on_put(is_wal, PutFault::ApplyLater);
    let late = tokio::spawn(Log::open(sweeping(&store)));
    store.until(|store| store.put_off() == 1).await;
    late.abort();
    drop(late.await);
    // The record gets there first, but its writer hears nothing of it, and pauses at its second try.
    store.on_put(is_wal, PutFault::ApplyThenError);
    store.on_put(is_wal, PutFault::Hang);
    let pending = tokio::spawn({
        let old = old.clone();
        async move { append_other(&old, 1000).await }
    });
    store.until(|store| store.hanging() == 1).await;
    let slot = store.calls().into_iter().rev().find(|call| is_wal(&call.path) && call.op == Op::Put).expect("put").path;
    let new = Log::open(hasty(&store)).await.expect("opens");
    let other = Partition { topic: other(), index: PartitionIndex(0) };
    assert_eq!(read_all(&new, other).await.len(), 1, "it is stored, and was read");
    delete_other(&new).await;
    new.checkpoint().await.expect("written");
    pass(Duration::from_secs(5)).await;
    assert!(!objects(&store).await.contains_key(&slot), "the slot is deleted");
    store.release().await;
    let error = pending.await.expect("no panic").expect_err("not acknowledged");
    assert_eq!(error.kind(), Kind::Unknown, "{error:?}");
}

// Fails when a read of what was deleted under its hands is told as damage, or as a trim: its topic is not there.
#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_over_the_deletion_is_told_that_the_topic_is_gone() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_other(&log).await;
    for _ in 0..3 {
        append_other(&log, 3000).await.expect("stored");
    }
    let other = Partition { topic: other(), index: PartitionIndex(0) };
    store.on_get(is_wal, GetFault::Hang);
    let read = tokio::spawn({
        let log = log.clone();
        async move { log.read(other, Offset(0), 1).await }
    });
    store.until(|store| store.hanging() == 1).await;
    delete_other(&log).await;
    log.checkpoint().await.expect("written");
    pass(GRACE + INTERVAL).await;
    assert_eq!(sizes_of(&store, "/wal/").await, [] as [u64; 0]);
    store.release().await;
    assert_eq!(read.await.expect("no panic").expect_err("gone").kind(), Kind::NotFound);
}

// Fails when a delete that fails is forgotten, or ends the sweeps.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_while_objects_are_deleted_puts_that_off() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_other(&log).await;
    append_other(&log, 5000).await.expect("stored");
    delete_other(&log).await;
    log.checkpoint().await.expect("written");
    pass(GRACE / 2).await;
    store.set_unavailable(true);
    pass(GRACE).await;
    assert_eq!(log.metrics().deleted_objects.get(), 0);
    store.set_unavailable(false);
    put_doc_when_back(&log).await;
    log.checkpoint().await.expect("written");
    pass(2 * INTERVAL + GRACE).await;
    assert!(log.metrics().deleted_bytes.get() > 5000);
}

async fn put_doc_when_back(log: &Log) {
    let doc = || DocOp::Put(Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    while log.commit(Change { docs: vec![doc()], ..Change::default() }).await.is_err() {
        pass(Duration::from_secs(1)).await;
    }
}

// Fails when what the session before marked and did not delete is forgotten, or when a local state is thrown away because
// the slot before its position is deleted.
#[tokio::test(start_paused = true)]
async fn a_crash_between_mark_and_delete_costs_a_grace_and_a_restart_after_it_nothing() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    let on_disk = || LogOptions { cache_dir: Some(dir.path().to_owned()), ..sweeping(&store) };
    let log = Log::open(on_disk()).await.expect("opens");
    make_other(&log).await;
    append_other(&log, 5000).await.expect("stored");
    delete_other(&log).await;
    log.checkpoint().await.expect("written");
    pass(GRACE / 2).await;
    assert!(log.metrics().pending_deletes.get() > 0);
    log.close().await.expect("closed");
    drop(log);
    let log = Log::open(on_disk()).await.expect("opens");
    log.checkpoint().await.expect("written");
    pass(GRACE + Duration::from_secs(10)).await;
    assert!(log.metrics().deleted_bytes.get() > 5000);
    let session = log.session().to_string();
    assert!(sizes_of(&store, &format!("{session}/wal/")).await.is_empty(), "its own slots, too");
    log.close().await.expect("closed");
    drop(log);
    let loaded = |store: &FaultStore| {
        let gets = store.calls().into_iter().filter(|call| call.op == Op::Get && is_checkpoint(&call.path)).count();
        store.forget_calls();
        gets
    };
    store.forget_calls();
    let log = Log::open(on_disk()).await.expect("opens");
    assert_eq!(log.metrics().replayed_slots.get(), 0);
    let continued = loaded(&store);
    drop(log);
    drop(open(&store).await);
    assert!(continued < loaded(&store), "the local state is continued, nothing is loaded");
}

// Fails when segments that compaction has replaced stay, or one goes that is not linked yet.
#[tokio::test(start_paused = true)]
async fn slots_that_were_compacted_and_segments_that_were_merged_go() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let text = |number: u32| format!("{number} {}", "x".repeat(500));
    for number in 0..40 {
        append(&log, &text(number)).await.expect("stored");
        if number % 10 == 9 {
            log.compact().await.expect("compacted");
        }
    }
    log.checkpoint().await.expect("written");
    pass(2 * INTERVAL + GRACE).await;
    let slots = sizes_of(&store, &format!("{}/wal/", log.session())).await;
    assert!(slots.iter().all(|size| *size < SMALL_BYTES), "{slots:?}");
    let expected: Vec<String> = (0..40).map(text).collect();
    assert_eq!(texts(&log).await, expected);
    drop(log);
    let log = open(&store).await;
    assert_eq!(texts(&log).await, expected);
    assert_eq!(partition(0).index, PartitionIndex(0));
}
