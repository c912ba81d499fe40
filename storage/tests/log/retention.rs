//! Retention through the façade, in virtual time: what is due goes, and nothing is written while nothing is due.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::common::{append, batch, make_topic, options, partition, pass, texts, topic};
use bytes::Bytes;
use plinth_storage::env::Clock;
use plinth_storage::ids::{Offset, Timestamp};
use plinth_storage::log::{Change, Log, LogOptions, Retention, TopicOp};
use plinth_storage::testing::fault::{FaultStore, Op};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR_MS: u64 = 60 * 60 * 1000;

/// A clock that goes with the time of the runtime.
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + u64::try_from(self.0.elapsed().as_millis()).expect("small"))
    }
}

fn small(store: &FaultStore) -> LogOptions {
    let mut options = options(&store.stores(), None);
    options.clock = std::sync::Arc::new(Virtual(Instant::now()));
    options
}

async fn open(store: &FaultStore, partitions: u32) -> Log {
    let log = Log::open(small(store)).await.expect("opens");
    make_topic(&log, partitions).await;
    log
}

async fn keep(log: &Log, age_ms: u64, bytes: u64) {
    let retention = Retention { age_ms: NonZeroU64::new(age_ms), bytes: NonZeroU64::new(bytes) };
    let topics = vec![TopicOp::SetRetention { topic: topic(), retention }];
    log.commit(Change { topics, ..Change::default() }).await.expect("set");
}

fn start(log: &Log, index: u32) -> u64 {
    log.bounds(partition(index)).expect("there").start.0
}

fn wal_puts(store: &FaultStore) -> usize {
    let calls = store.calls();
    calls.iter().filter(|call| call.op == Op::Put && call.path.as_ref().contains("/wal/")).count()
}

// Fails when the age is counted from anything but the time of the records, or when the last record never goes.
#[tokio::test(start_paused = true)]
async fn records_go_when_they_are_too_old() {
    let store = FaultStore::in_memory();
    let log = open(&store, 1).await;
    keep(&log, HOUR_MS, 0).await;
    append(&log, "a").await.expect("stored");
    pass(30 * MINUTE).await;
    append(&log, "b").await.expect("stored");
    pass(29 * MINUTE).await;
    assert_eq!(start(&log, 0), 0, "the oldest is 59 minutes old");
    pass(2 * MINUTE).await;
    assert_eq!(texts(&log).await, ["b"]);
    pass(30 * MINUTE).await;
    let bounds = log.bounds(partition(0)).expect("there");
    assert_eq!((bounds.start, bounds.tail, bounds.bytes), (Offset(2), Offset(2), 0));
    assert_eq!(append(&log, "c").await.expect("stored"), 2, "offsets go on");
    drop(log);
    let log = Log::open(small(&store)).await.expect("opens");
    assert_eq!(texts(&log).await, ["c"]);
}

// Fails when the newest run goes too, or when trimmed bytes still count.
#[tokio::test(start_paused = true)]
async fn the_oldest_records_go_when_there_are_too_many_bytes() {
    let store = FaultStore::in_memory();
    let log = open(&store, 1).await;
    for number in 0..10 {
        append(&log, &number.to_string()).await.expect("stored");
    }
    let of_one = log.bounds(partition(0)).expect("there").bytes / 10;
    pass(MINUTE).await;
    assert_eq!(start(&log, 0), 0, "a topic without a retention keeps everything");
    keep(&log, 0, 3 * of_one).await;
    pass(MINUTE).await;
    assert_eq!(texts(&log).await, ["7", "8", "9"]);
    assert_eq!(log.bounds(partition(0)).expect("there").bytes, 3 * of_one);
    append(&log, "x").await.expect("stored");
    pass(MINUTE).await;
    assert_eq!(texts(&log).await, ["8", "9", "x"]);
    keep(&log, 0, 1).await;
    pass(MINUTE).await;
    assert_eq!(texts(&log).await, ["x"], "the newest stays");
}

// Fails when a run in a segment does not know how much is before it.
#[tokio::test(start_paused = true)]
async fn what_is_in_segments_goes_by_the_same_limits() {
    let store = FaultStore::in_memory();
    let log = open(&store, 1).await;
    for _ in 0..2 {
        for number in 0..5 {
            append(&log, &number.to_string()).await.expect("stored");
        }
        log.compact().await.expect("compacted");
    }
    let all = log.bounds(partition(0)).expect("there").bytes;
    keep(&log, 0, all / 2).await;
    pass(MINUTE).await;
    let bounds = log.bounds(partition(0)).expect("there");
    assert_eq!((bounds.start, bounds.bytes), (Offset(5), all / 2), "the first segment is a run of five");
    keep(&log, HOUR_MS, 0).await;
    pass(90 * MINUTE).await;
    assert_eq!((start(&log, 0), log.bounds(partition(0)).expect("there").bytes), (10, 0));
}

// Fails when a turn writes without need, or when it polls more often than its interval.
#[tokio::test(start_paused = true)]
async fn while_nothing_is_due_nothing_is_written() {
    let store = FaultStore::in_memory();
    let log = open(&store, 8).await;
    keep(&log, 24 * HOUR_MS, 1 << 30).await;
    for index in 0..8 {
        log.append(partition(index), batch(&[Bytes::from_static(b"x")])).await.expect("stored");
    }
    let before = wal_puts(&store);
    pass(600 * MINUTE).await;
    assert_eq!(wal_puts(&store), before);
    pass(900 * MINUTE).await;
    assert_eq!(wal_puts(&store), before + 1, "all that is due at once goes into one object");
    assert_eq!((0..8).map(|index| start(&log, index)).sum::<u64>(), 8);
    pass(600 * MINUTE).await;
    assert_eq!(wal_puts(&store), before + 1);
}

// Fails when all that a turn finds is committed at once, however much that is.
#[tokio::test(start_paused = true)]
async fn what_is_due_of_many_partitions_is_divided_among_slots() {
    let store = FaultStore::in_memory();
    let log = open(&store, 600).await;
    let record = [Bytes::from_static(b"x")];
    let appends = (0..600).map(|index| log.append(partition(index), batch(&record)));
    futures::future::try_join_all(appends).await.expect("stored");
    keep(&log, HOUR_MS, 0).await;
    let before = wal_puts(&store);
    pass(61 * MINUTE).await;
    assert_eq!(wal_puts(&store) - before, 3, "256 at a time");
    assert!((0..600).all(|index| start(&log, index) == 1));
}

// Fails when each turn begins at the first partition.
#[tokio::test(start_paused = true)]
async fn a_turn_looks_at_a_bounded_number_of_partitions_and_the_next_goes_on() {
    let store = FaultStore::in_memory();
    let mut options = small(&store);
    options.retention_partitions_max = 3;
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 8).await;
    for index in 0..8 {
        let two = [Bytes::from_static(b"x"), Bytes::from_static(b"y")];
        log.append(partition(index), batch(&two)).await.expect("stored");
        log.append(partition(index), batch(&two)).await.expect("stored");
    }
    keep(&log, 0, 1).await;
    // Between two turns.
    pass(Duration::from_secs(5)).await;
    let mut moved = Vec::new();
    for _ in 0..3 {
        pass(Duration::from_secs(10)).await;
        moved.push((0..8).filter(|index| start(&log, *index) == 2).count());
    }
    assert_eq!(moved, [3, 6, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_retention_that_was_taken_away_or_whose_topic_is_gone_moves_nothing() {
    let store = FaultStore::in_memory();
    let log = open(&store, 1).await;
    keep(&log, HOUR_MS, 0).await;
    append(&log, "a").await.expect("stored");
    keep(&log, 0, 0).await;
    pass(120 * MINUTE).await;
    assert_eq!(texts(&log).await, ["a"]);
    keep(&log, HOUR_MS, 0).await;
    let topics = vec![TopicOp::Delete { topic: topic() }];
    log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
    let before = wal_puts(&store);
    pass(120 * MINUTE).await;
    assert_eq!(wal_puts(&store), before);
}

// Fails when the retention is not in the checkpoint, or not in the log.
#[tokio::test(start_paused = true)]
async fn a_retention_survives_a_lost_disk_with_and_without_a_checkpoint() {
    for checkpoint in [false, true] {
        let store = FaultStore::in_memory();
        let log = open(&store, 1).await;
        keep(&log, HOUR_MS, 0).await;
        append(&log, "a").await.expect("stored");
        if checkpoint {
            log.request_checkpoint();
            let is_one = |store: &FaultStore| {
                let calls = store.calls();
                calls.iter().any(|call| call.op == Op::Put && call.path.as_ref().contains("/checkpoint/"))
            };
            store.until(is_one).await;
        }
        drop(log);
        let log = Log::open(small(&store)).await.expect("opens");
        pass(90 * MINUTE).await;
        assert_eq!(start(&log, 0), 1);
    }
}

// Fails when a turn that cannot commit is counted as done, or ends the task.
#[tokio::test(start_paused = true)]
async fn what_is_due_while_the_store_is_away_goes_when_it_is_back() {
    let store = FaultStore::in_memory();
    let log = open(&store, 1).await;
    keep(&log, HOUR_MS, 0).await;
    append(&log, "a").await.expect("stored");
    store.set_unavailable(true);
    pass(90 * MINUTE).await;
    assert_eq!(start(&log, 0), 0);
    store.set_unavailable(false);
    pass(5 * MINUTE).await;
    assert_eq!(start(&log, 0), 1);
}
