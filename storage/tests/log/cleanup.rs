//! Cleaning by key through the façade: what goes and when, its bounds, and what faults and races change of it.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{make_topic, options, partition, pass, topic};
use crate::inspect::look;
use bytes::Bytes;
use object_store::path::Path;
use plinth_storage::ahead::Scan;
use plinth_storage::cleanup::{Cleanup, TOMBSTONE_GRACE};
use plinth_storage::durability::{Durability, GapReason};
use plinth_storage::env::Clock;
use plinth_storage::ids::{Offset, Timestamp};
use plinth_storage::inspect::Scratch;
use plinth_storage::log::{Change, Log, LogOptions, Retention, TopicOp};
use plinth_storage::record::{Batch, NewRecord};
use plinth_storage::testing::fault::{FaultStore, GetFault, PutFault};

/// A clock that is set by hand.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).expect("small"), Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

fn small(store: &FaultStore, clock: &Arc<Hand>) -> LogOptions {
    LogOptions {
        // Compaction by itself would come between the steps of the tests.
        segment_bytes: u64::MAX / 4,
        write_percent_max: u64::MAX,
        clean_interval: Duration::from_secs(1_000_000),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        ..options(&store.stores(), None)
    }
}

fn is_segment(path: &Path) -> bool {
    path.as_ref().starts_with("segment/")
}

async fn open(store: &FaultStore, clock: &Arc<Hand>) -> Log {
    Log::open(small(store, clock)).await.expect("the log opens")
}

async fn make(store: &FaultStore, clock: &Arc<Hand>) -> Log {
    let log = open(store, clock).await;
    make_topic(&log, 1).await;
    set(&log, Cleanup::Compact).await;
    log
}

async fn set(log: &Log, cleanup: Cleanup) {
    let topics = vec![TopicOp::SetCleanup { topic: topic(), cleanup }];
    log.commit(Change { topics, ..Change::default() }).await.expect("set");
}

/// Appends a batch of `key=value`, of `key=` that deletes it, and of values without a key.
async fn put(log: &Log, records: &[&str]) {
    let records: Vec<NewRecord> = records
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').map_or((None, *text), |(key, value)| (Some(key), value));
            let key = key.map(|key| Bytes::from(key.to_owned()));
            NewRecord { key, payload: Bytes::from(value.to_owned()), ..NewRecord::default() }
        })
        .collect();
    log.append(partition(0), Batch::of(&records).expect("valid")).await.expect("stored");
}

/// What is left, as `offset:key=value`.
async fn left(log: &Log) -> Vec<String> {
    let bounds = log.bounds(partition(0)).expect("there");
    let (mut next, mut out) = (bounds.start, Vec::new());
    while next < bounds.tail {
        let batches = log.read(partition(0), next, 100).await.expect("readable");
        for batch in &batches {
            for record in batch.records().filter(|record| record.offset >= next) {
                let key = record.key.map(|key| format!("{}=", String::from_utf8_lossy(&key))).unwrap_or_default();
                out.push(format!("{}:{key}{}", record.offset, String::from_utf8_lossy(&record.payload)));
            }
            next = batch.next();
        }
        if batches.is_empty() {
            break;
        }
    }
    out
}

// Fails when the filter takes the newest record of a key, one without a key, or splits a batch at the wrong record.
#[tokio::test]
async fn of_each_key_the_last_record_is_left_at_its_offset() {
    let (store, clock) = (FaultStore::in_memory(), Arc::default());
    let log = make(&store, &clock).await;
    put(&log, &["a=1", "b=1", "a=2", "loose", "c=1"]).await;
    put(&log, &["b=2"]).await;
    put(&log, &["a=3", "d=1", "a=4"]).await;
    let before = log.bounds(partition(0)).expect("there");
    log.compact().await.expect("compacted");
    let expected = ["3:loose", "4:c=1", "5:b=2", "7:d=1", "8:a=4"];
    assert_eq!(left(&log).await, expected);
    let after = log.bounds(partition(0)).expect("there");
    assert_eq!((after.start, after.tail), (before.start, before.tail), "offsets stay");
    assert_eq!(log.missing(partition(0)).expect("counted"), 4);
    assert_eq!(log.metrics().cleaned_records.get(), 4);
    assert!(log.metrics().cleaned_bytes.get() > 0);
    // With nothing new there is nothing to do.
    let segments = log.metrics().segments.get();
    log.compact().await.expect("compacted");
    assert_eq!(log.metrics().segments.get(), segments);
    drop(log);
    let log = open(&store, &clock).await;
    assert_eq!(left(&log).await, expected, "after a restart on an empty disk");
    put(&log, &["d="]).await;
    assert_eq!(log.bounds(partition(0)).expect("there").tail, Offset(10));
}

// Fails when what deletes a key goes with the record that it deletes, or never.
#[tokio::test]
async fn what_deletes_a_key_goes_when_its_records_have_been_gone_for_the_grace() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = make(&store, &clock).await;
    put(&log, &["a=1", "b=1", "a="]).await;
    put(&log, &["c=1"]).await;
    clock.pass(2 * TOMBSTONE_GRACE);
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["1:b=1", "2:a=", "3:c=1"], "the grace begins when the record is gone");
    clock.pass(TOMBSTONE_GRACE - Duration::from_millis(1));
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["1:b=1", "2:a=", "3:c=1"]);
    clock.pass(Duration::from_millis(1));
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["1:b=1", "3:c=1"]);
}

// Fails when the end of a partition may go: followers would wait at an offset that is not the tail.
#[tokio::test]
async fn the_newest_record_of_a_partition_stays_although_it_deletes_its_key() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = make(&store, &clock).await;
    put(&log, &["a=1", "a="]).await;
    for _ in 0..3 {
        log.compact().await.expect("compacted");
        assert_eq!(left(&log).await, ["1:a="]);
        clock.pass(2 * TOMBSTONE_GRACE);
    }
    put(&log, &["b=1"]).await;
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["2:b=1"], "until there is a newer one");
}

// Fails when a pass takes the last offset of a key from records that it did not get to.
#[tokio::test]
async fn a_partition_with_more_keys_than_fit_is_cleaned_in_several_passes() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = Log::open(LogOptions { clean_keys_max: 3, ..small(&store, &clock) }).await.expect("opens");
    make_topic(&log, 1).await;
    set(&log, Cleanup::Compact).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for key in 0..20 {
            put(&log, &[&format!("key-{key}={round}"), &format!("other-{key}={round}")]).await;
            if round == 2 {
                let offset = 2 * (round * 20 + key);
                expected.push(format!("{offset}:key-{key}=2"));
                expected.push(format!("{}:other-{key}=2", offset + 1));
            }
        }
    }
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, expected);
    assert!(log.metrics().cleanings.get() > 10, "in parts");
}

// Fails when less than half may be new: every record would be written again for each few.
#[tokio::test]
async fn a_partition_is_left_alone_until_half_of_it_is_new() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let options = LogOptions { segment_bytes: 64 * 1024, ..small(&store, &clock) };
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    set(&log, Cleanup::Compact).await;
    let value = "v".repeat(1000);
    let (mut written, mut key) = (0_u64, 0);
    while log.metrics().cleanings.get() < 6 {
        // Every key is new: nothing can go, and all of it is rewritten at every pass.
        put(&log, &[&format!("{key}={value}")]).await;
        (written, key) = (written + 1000, key + 1);
        assert!(key < 20_000, "cleaned in time");
    }
    let rewritten = log.metrics().segment_content_bytes.get() - written.min(log.metrics().segment_content_bytes.get());
    assert!(rewritten < 3 * written, "{rewritten} bytes were written again for {written}");
}

// Fails when a link is applied where a trim came between, or when the trim brings a record back.
#[tokio::test]
async fn trims_and_cleanings_go_together() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = make(&store, &clock).await;
    put(&log, &["a=1", "b=1", "c=1", "a=2"]).await;
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["1:b=1", "2:c=1", "3:a=2"]);
    log.trim(&[(partition(0), Offset(2))]).await.expect("trimmed");
    assert_eq!(left(&log).await, ["2:c=1", "3:a=2"]);
    put(&log, &["c=2", "d=1"]).await;
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["3:a=2", "4:c=2", "5:d=1"]);
    let bounds = log.trim(&[(partition(0), Offset(6))]).await.expect("trimmed")[0];
    assert_eq!((bounds.start, bounds.tail, bounds.bytes), (Offset(6), Offset(6), 0));
    put(&log, &["d=2"]).await;
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["6:d=2"]);
    drop(log);
    assert_eq!(left(&open(&store, &clock).await).await, ["6:d=2"]);
}

// Fails when a pass ends its first run at the start of the partition or before: it is not put in place then, now and ever after.
#[tokio::test]
async fn a_partition_whose_start_is_far_within_a_run_is_cleaned() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = make(&store, &clock).await;
    let value = "v".repeat(600);
    for key in ["a", "b"] {
        put(&log, &[&format!("{key}={value}")]).await;
    }
    put(&log, &["c=1", "d=1"]).await;
    log.compact().await.expect("compacted");
    log.trim(&[(partition(0), Offset(2))]).await.expect("trimmed");
    drop(log);
    // What is below the start fills a segment.
    let options = LogOptions { segment_bytes: 1000, ..small(&store, &clock) };
    let log = Log::open(options).await.expect("the log opens");
    put(&log, &["c=2"]).await;
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["3:d=1", "4:c=2"]);
    assert_eq!(log.metrics().unlinked_runs.get(), 0);
    let segments = log.metrics().segments.get();
    log.compact().await.expect("compacted");
    assert_eq!(log.metrics().segments.get(), segments, "it is not written again and again");
    drop(log);
    assert_eq!(left(&open(&store, &clock).await).await, ["3:d=1", "4:c=2"]);
}

// Fails when a pass goes on over what it could not read, or is not compared with what was there before it is committed.
#[tokio::test]
async fn a_pass_that_fails_changes_nothing_and_the_next_one_does_it() {
    let all = ["0:a=1", "1:b=1", "2:a=2"];
    let (mut which, mut failed) = (0, 0);
    loop {
        let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
        let log = make(&store, &clock).await;
        put(&log, &["a=1", "b=1", "a=2"]).await;
        set(&log, Cleanup::Delete).await;
        log.compact().await.expect("compacted");
        assert_eq!(left(&log).await, all, "a topic that is not cleaned by key keeps everything");
        set(&log, Cleanup::Compact).await;
        let seen = AtomicUsize::new(0);
        store.on_get(move |path| is_segment(path) && seen.fetch_add(1, Ordering::SeqCst) == which, GetFault::FlipBit);
        let compacted = log.compact().await;
        if store.unfired() > 0 {
            // The cleaning reads fewer times: the fault was not met.
            compacted.expect("compacted");
            break;
        }
        compacted.expect_err("what is stored is not what was written");
        failed += 1;
        assert_eq!(left(&log).await, all);
        log.compact().await.expect("compacted");
        assert_eq!(left(&log).await, ["1:b=1", "2:a=2"]);
        which += 1;
    }
    assert!(failed >= 12, "trailer, table and frame of the keys, of what is rewritten, and of both sides: {failed}");
}

// Fails when a swap is applied where the index holds other rows than those that were cleaned.
#[tokio::test]
async fn what_is_trimmed_or_deleted_while_it_is_cleaned_stays_so() {
    for delete in [false, true] {
        let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
        let log = make(&store, &clock).await;
        put(&log, &["a=1", "b=1"]).await;
        put(&log, &["a=2", "c=1"]).await;
        set(&log, Cleanup::Delete).await;
        log.compact().await.expect("compacted");
        put(&log, &["c=2"]).await;
        log.compact().await.expect("compacted");
        set(&log, Cleanup::Compact).await;
        store.on_put(is_segment, PutFault::Hang);
        let compaction = tokio::spawn({
            let log = log.clone();
            async move { log.compact().await }
        });
        store.until(|store| store.hanging() == 1).await;
        if delete {
            let topics = vec![TopicOp::Delete { topic: topic() }];
            log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
        } else {
            log.trim(&[(partition(0), Offset(4))]).await.expect("trimmed");
        }
        store.release().await;
        compaction.await.expect("ends").expect("what cannot be put in place is left");
        assert!(log.metrics().unlinked_runs.get() >= 1, "what was cleaned is not what is there");
        let log = if delete {
            log
        } else {
            assert_eq!(left(&log).await, ["4:c=2"]);
            drop(log);
            open(&store, &clock).await
        };
        if delete {
            assert!(log.bounds(partition(0)).is_err());
            let left = log.state_rows().expect("readable");
            assert!(left.iter().all(|(key, _)| ![3, 4, 19].contains(&key[0])), "no row of it is left");
        } else {
            assert_eq!(left(&log).await, ["4:c=2"]);
        }
    }
}

// Fails when a hole over lost records is told as one that a cleaning left, or when runs may not be joined over a gap.
#[tokio::test]
async fn a_loss_within_what_is_cleaned_is_still_told_as_one() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = make(&store, &clock).await;
    put(&log, &["a=1", "b=1"]).await;
    for value in ["2", "3"] {
        let key = Some(Bytes::from_static(b"a"));
        let record = NewRecord { key, payload: Bytes::from(value), ..NewRecord::default() };
        let batch = Batch::of(&[record]).expect("valid");
        log.append_as(partition(0), batch, Durability::Memory).await.expect("taken");
    }
    drop(log);
    let log = open(&store, &clock).await;
    let [lost] = log.gaps(partition(0), Offset(0)).expect("readable")[..] else { panic!("one gap") };
    put(&log, &["a=4", "b=2", "c=1"]).await;
    log.compact().await.expect("compacted");
    let first = lost.to.0;
    assert_eq!(left(&log).await, [format!("{first}:a=4"), format!("{}:b=2", first + 1), format!("{}:c=1", first + 2)]);
    let (mut next, mut told) = (Offset(0), Vec::new());
    while next < lost.to {
        let gap = log.passed(partition(0), next, lost.to).expect("told");
        told.push((gap.from, gap.to, gap.reason));
        next = gap.to;
    }
    let expected = [(Offset(0), lost.from, GapReason::Compacted), (lost.from, lost.to, GapReason::Lost)];
    assert_eq!(told, expected);
    assert_eq!(log.missing(partition(0)).expect("counted"), lost.to.0);
    assert_eq!(log.last_records(partition(0), 3).await.expect("found"), lost.to);
    let (totals, findings) = look(&store.stores(), Scratch::memory()).await.expect("readable");
    assert_eq!(totals.faults, 0, "{findings:?}");
}

// Fails when a pass is not committed as one entry, or a crash before that leaves a part of it.
#[tokio::test]
async fn a_crash_between_the_segment_and_its_swap_changes_nothing() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = make(&store, &clock).await;
    put(&log, &["a=1", "b=1", "a=2"]).await;
    set(&log, Cleanup::Delete).await;
    log.compact().await.expect("compacted");
    set(&log, Cleanup::Compact).await;
    store.on_put(|path| path.as_ref().contains("/wal/"), PutFault::Hang);
    let compaction = tokio::spawn({
        let log = log.clone();
        async move { log.compact().await }
    });
    store.until(|store| store.hanging() == 1).await;
    assert_eq!(left(&log).await, ["0:a=1", "1:b=1", "2:a=2"], "nothing is cleaned before the entry is committed");
    compaction.abort();
    drop(log);
    let log = open(&store, &clock).await;
    assert_eq!(left(&log).await, ["0:a=1", "1:b=1", "2:a=2"]);
    log.compact().await.expect("compacted");
    assert_eq!(left(&log).await, ["1:b=1", "2:a=2"]);
}

// Fails when the bytes of what is gone count, or when the age of a run is not that of its newest record.
#[tokio::test(start_paused = true)]
async fn retention_goes_by_what_is_left() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = make(&store, &clock).await;
    let value = "v".repeat(1000);
    for round in 0..50 {
        put(&log, &[&format!("a={round}{value}"), &format!("key-{round}={value}")]).await;
    }
    let published = log.bounds(partition(0)).expect("there").bytes;
    log.compact().await.expect("compacted");
    let kept = log.bounds(partition(0)).expect("there").bytes;
    assert!(kept > published / 3 && kept < published * 2 / 3, "{kept} of {published} are left");
    let keep = async |age, bytes| {
        let retention = Retention { age_ms: NonZeroU64::new(age), bytes: NonZeroU64::new(bytes) };
        let topics = vec![TopicOp::SetRetention { topic: topic(), retention }];
        log.commit(Change { topics, ..Change::default() }).await.expect("set");
        turn().await;
        log.bounds(partition(0)).expect("there")
    };
    assert_eq!(keep(0, kept + 1).await.start, Offset(0), "what is left fits");
    put(&log, &[&format!("b={value}")]).await;
    let bounds = keep(0, kept + 1).await;
    assert_eq!(bounds.start, Offset(100), "a run goes whole");
    assert!(bounds.bytes > 1000 && bounds.bytes < 1200, "{} of the newest run", bounds.bytes);
    clock.pass(Duration::from_secs(3600));
    assert_eq!(keep(3_599_000, 0).await.start, Offset(101));
    assert_eq!(left(&log).await, [""; 0]);
}

// Fails when a reader takes the end of a run that lacks its last records for the tail, read ahead for or not.
#[tokio::test]
async fn a_reader_goes_on_behind_a_run_that_ends_in_a_hole() {
    let (store, clock) = (FaultStore::in_memory(), Arc::<Hand>::default());
    let log = Log::open(LogOptions { segment_bytes: 32 * 1024, ..small(&store, &clock) }).await.expect("opens");
    make_topic(&log, 1).await;
    set(&log, Cleanup::Compact).await;
    let large = "v".repeat(40_000);
    put(&log, &[&format!("large={large}"), "a=1", "b=1"]).await;
    put(&log, &["a=2", "b=2"]).await;
    log.compact().await.expect("compacted");
    for from in 1..=3 {
        let read = log.read(partition(0), Offset(from), 100).await.expect("readable");
        assert_eq!(read.first().map(|batch| batch.base), Some(Offset(3)), "from {from}");
    }
    let mut scan = Scan::new(partition(0));
    let (mut next, mut bases) = (Offset(0), Vec::new());
    while next < Offset(5) {
        let read = log.read_on(&mut scan, next, 1).await.expect("readable");
        bases.extend(read.iter().map(|batch| batch.base.0));
        next = read.last().expect("there is more").next();
    }
    assert_eq!(bases, [0, 3]);
}

/// A turn of retention passes.
async fn turn() {
    pass(Duration::from_secs(60)).await;
}
