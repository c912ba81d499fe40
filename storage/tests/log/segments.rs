//! Compaction and merging through the façade: what is read, from which objects, and what faults and races change of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{append, batch, make_topic, options, partition, pass, read_all, texts, topic};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use plinth_storage::error::Kind;
use plinth_storage::ids::{Offset, Partition, Timestamp, TopicId};
use plinth_storage::log::{Change, Log, LogOptions, TopicOp};
use plinth_storage::store::ObjectStores;
use plinth_storage::testing::fault::{FaultStore, GetFault, Op, PutFault};

const SEGMENT_BYTES: u64 = 64 * 1024;

fn small(store: &FaultStore) -> LogOptions {
    // Compaction by itself would come between the steps of the tests.
    let segment_bytes = u64::MAX / 4;
    LogOptions { segment_bytes, write_percent_max: u64::MAX, ..options(&store.stores(), None) }
}

async fn open(store: &FaultStore) -> Log {
    Log::open(small(store)).await.expect("the log opens")
}

fn is_segment(path: &Path) -> bool {
    path.as_ref().starts_with("segment/")
}

fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

async fn segments(store: &FaultStore) -> Vec<u64> {
    let listed = store.inner().list(Some(&Path::from("segment"))).try_collect::<Vec<_>>().await.expect("listed");
    listed.iter().map(|object| object.size).collect()
}

/// The objects that are read when a partition is read whole.
async fn read_from(store: &FaultStore, log: &Log, partition: Partition) -> Vec<Path> {
    store.forget_calls();
    read_all(log, partition).await;
    let mut paths: Vec<Path> = store.calls().into_iter().filter(|call| call.op == Op::Get).map(|c| c.path).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Records of about `size` bytes that do not compress, different in each round.
fn payloads(round: usize, count: usize, size: usize) -> Vec<Bytes> {
    let payload = |record: usize| {
        let mut random = (round * 1000 + record) as u64 + 1;
        let byte = |_| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            random.to_le_bytes()[7]
        };
        (0..size).map(byte).collect()
    };
    (0..count).map(payload).collect()
}

async fn fill(log: &Log, index: u32, rounds: usize, size: usize) -> Vec<Bytes> {
    let mut all = Vec::new();
    for round in 0..rounds {
        let records = payloads(round, 1 + round % 3, size);
        log.append(partition(index), batch(&records)).await.expect("stored");
        all.extend(records);
    }
    all
}

/// Place, time and checksum of every batch.
async fn edges(log: &Log, partition: Partition) -> Vec<(Offset, u32, Timestamp, u32)> {
    let (mut next, mut out) = (Offset(0), Vec::new());
    while next < log.bounds(partition).expect("there").tail {
        for batch in log.read(partition, next, 10_000).await.expect("readable") {
            out.push((batch.base, batch.batch.count(), batch.timestamp, batch.batch.crc()));
            next = batch.next();
        }
    }
    out
}

// Fails when the reader takes the old row after the swap, when a run ends one batch early, or when a batch is cut or stamped
// anew on its way.
#[tokio::test]
async fn what_is_compacted_is_read_from_segments_and_is_what_it_was() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 3).await;
    let all = [fill(&log, 0, 40, 700).await, fill(&log, 1, 9, 20).await, fill(&log, 2, 3, 400_000).await];
    let before = [edges(&log, partition(0)).await, edges(&log, partition(1)).await, edges(&log, partition(2)).await];
    log.compact().await.expect("compacted");
    for index in 0..3 {
        assert_eq!(read_all(&log, partition(index)).await, all[index as usize]);
        assert_eq!(edges(&log, partition(index)).await, before[index as usize]);
    }
    for index in 0..3 {
        let reopened = open(&store).await;
        let paths = read_from(&store, &reopened, partition(index)).await;
        assert!(!paths.is_empty() && paths.iter().all(is_segment), "{paths:?}");
        assert_eq!(read_all(&reopened, partition(index)).await, all[index as usize]);
    }
    let reopened = open(&store).await;
    for from in 0..all[0].len() as u64 {
        let read = reopened.read(partition(0), Offset(from), 1).await.expect("readable");
        assert!(read[0].base.0 <= from && read[0].next().0 > from, "a read may begin anywhere");
    }
}

// Fails when the swap is not committed through the log, or when a replay does not apply it.
#[tokio::test]
async fn a_checkpoint_before_or_after_the_swap_restores_the_same() {
    for checkpoint_first in [true, false] {
        let store = FaultStore::in_memory();
        let log = open(&store).await;
        make_topic(&log, 1).await;
        let mut all = fill(&log, 0, 20, 300).await;
        let checkpointed = async || {
            log.request_checkpoint();
            let is_put = |call: &plinth_storage::testing::fault::Call| {
                call.op == Op::Put && call.path.as_ref().contains("/checkpoint/")
            };
            store.until(|store| store.calls().iter().any(is_put)).await;
        };
        if checkpoint_first {
            checkpointed().await;
        }
        log.compact().await.expect("compacted");
        if !checkpoint_first {
            checkpointed().await;
        }
        all.extend(fill(&log, 0, 5, 300).await);
        drop(log);
        let log = open(&store).await;
        assert_eq!(read_all(&log, partition(0)).await, all);
        log.compact().await.expect("compacted");
        assert!(read_from(&store, &log, partition(0)).await.iter().all(is_segment));
        assert_eq!(read_all(&log, partition(0)).await, all);
    }
}

// Fails when the links of a slot are bounded in runs and not in the rows that they replace.
#[tokio::test]
async fn linking_many_slots_of_many_partitions_is_divided_among_slots() {
    const PARTITIONS: u32 = 24;
    const ROUNDS: usize = 200;
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, PARTITIONS).await;
    for round in 0..ROUNDS {
        let appends = (0..PARTITIONS).map(|index| log.append(partition(index), batch(&payloads(round, 1, 10))));
        futures::future::try_join_all(appends).await.expect("stored");
    }
    let before = log.metrics().slots.get();
    log.compact().await.expect("compacted");
    assert_eq!(log.metrics().linked_runs.get(), u64::from(PARTITIONS));
    assert_eq!(log.metrics().slots.get() - before, 2, "4,800 rows, of which a slot replaces 4,096");
    let read = read_all(&log, partition(7)).await;
    assert_eq!(read.len(), ROUNDS);
}

// Fails when only the slots of the running session are compacted.
#[tokio::test]
async fn what_sessions_before_have_left_is_compacted_too() {
    let store = FaultStore::in_memory();
    let mut expected = Vec::new();
    for life in 0..4 {
        let log = open(&store).await;
        if life == 0 {
            make_topic(&log, 1).await;
        }
        for number in 0..5 {
            let text = format!("{life}/{number}");
            append(&log, &text).await.expect("stored");
            expected.push(text);
        }
    }
    let log = open(&store).await;
    log.compact().await.expect("compacted");
    assert_eq!(texts(&log).await, expected);
    let paths = read_from(&store, &open(&store).await, partition(0)).await;
    assert_eq!((paths.len(), paths.iter().all(is_segment)), (1, true), "one run in one segment");
}

// Fails when nothing wakes the task, or when it compacts before it is worth it.
#[tokio::test]
async fn compaction_begins_by_itself_when_enough_is_committed() {
    let store = FaultStore::in_memory();
    let log = Log::open(LogOptions { segment_bytes: SEGMENT_BYTES, ..small(&store) }).await.expect("opens");
    make_topic(&log, 1).await;
    let mut all = fill(&log, 0, 8, 3000).await;
    assert!(segments(&store).await.is_empty(), "45 KB are not worth it");
    all.extend(fill(&log, 0, 8, 3000).await);
    store.until(|store| store.calls().iter().any(|call| call.op == Op::Put && is_segment(&call.path))).await;
    assert_eq!(read_all(&log, partition(0)).await, all);
}

fn wal_reads(store: &FaultStore) -> usize {
    store.calls().iter().filter(|call| call.op == Op::Get && is_wal(&call.path)).count()
}

// Fails when a window is gathered only when it is full: small batches take more room in the tail than in the log, and
// the first of them have left it by then.
#[tokio::test]
async fn what_is_compacted_in_time_is_not_read_from_the_store() {
    let store = FaultStore::in_memory();
    let tail_bytes_max = 64 * 1024;
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, tail_bytes_max, ..small(&store) };
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    let all = fill(&log, 0, 1000, 30).await;
    log.compact().await.expect("compacted");
    assert!(segments(&store).await.len() > 3);
    assert_eq!(wal_reads(&store), 0);
    assert_eq!(read_all(&log, partition(0)).await, all);
}

// Fails when what was gathered is built as it was found: what was trimmed meanwhile would keep the rest of its run from being
// linked.
#[tokio::test]
async fn what_is_trimmed_after_it_was_gathered_does_not_keep_the_rest_in_the_log() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let all = fill(&log, 0, 6, 3000).await;
    log.trim(&[(partition(0), Offset(3))]).await.expect("trimmed");
    let more = fill(&log, 0, 2, 300).await;
    log.compact().await.expect("compacted");
    assert_eq!((log.metrics().linked_runs.get(), log.metrics().unlinked_runs.get()), (1, 0));
    let kept = log.read(partition(0), Offset(3), usize::MAX).await.expect("readable");
    assert_eq!(kept.last().map(|batch| batch.next()), Some(Offset((all.len() + more.len()) as u64)));
}

// Fails when slots are taken for compacted though a trim that came between the build and the swap has kept a run of theirs from
// being linked: what is left of it stays in the log until the next start, and is not cleaned by key until then.
#[tokio::test]
async fn what_is_trimmed_between_the_build_and_the_swap_does_not_keep_the_rest_in_the_log() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let all = fill(&log, 0, 6, 3000).await;
    store.on_put(is_segment, PutFault::Hang);
    let compaction = tokio::spawn({
        let log = log.clone();
        async move { log.compact().await }
    });
    store.until(|store| store.hanging() == 1).await;
    log.trim(&[(partition(0), Offset(3))]).await.expect("trimmed");
    store.release().await;
    compaction.await.expect("no panic").expect("compacted");
    let read = read_from(&store, &log, partition(0)).await;
    assert!(!read.is_empty() && read.iter().all(is_segment), "{read:?}");
    assert_eq!(read_all(&log, partition(0)).await, all[3..]);
    assert_eq!((log.metrics().linked_runs.get(), log.metrics().unlinked_runs.get()), (1, 1));
}

// Fails when a compaction that failed waits for as much to be published again: on a quiet node, for ever.
#[tokio::test(start_paused = true)]
async fn a_compaction_that_failed_is_tried_again_after_some_time() {
    let store = FaultStore::in_memory();
    let log = Log::open(LogOptions { segment_bytes: SEGMENT_BYTES, ..small(&store) }).await.expect("opens");
    make_topic(&log, 1).await;
    for _ in 0..3 {
        store.on_get(is_segment, GetFault::Fail);
    }
    fill(&log, 0, 20, 3000).await;
    pass(Duration::from_secs(100)).await;
    assert_eq!(store.unfired(), 0);
    assert!(log.metrics().linked_runs.get() > 0);
}

// Fails when `Link::ops` puts rows without looking at those it replaces: the deleted topic would come back.
#[tokio::test]
async fn a_topic_that_is_deleted_between_the_build_and_the_swap_stays_deleted() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 2).await;
    fill(&log, 0, 10, 300).await;
    let kept = TopicId(log.new_ulid());
    let kept = Partition { topic: kept, ..partition(0) };
    let made = vec![TopicOp::Create { topic: kept.topic, partitions: 1 }];
    log.commit(Change { topics: made, ..Change::default() }).await.expect("made");
    log.append(kept, batch(&payloads(1, 3, 300))).await.expect("stored");
    store.on_put(is_segment, PutFault::Hang);
    let compaction = tokio::spawn({
        let log = log.clone();
        async move { log.compact().await }
    });
    store.until(|store| store.hanging() == 1).await;
    let gone = Change { topics: vec![TopicOp::Delete { topic: topic() }], ..Change::default() };
    log.commit(gone).await.expect("deleted");
    store.release().await;
    compaction.await.expect("no panic").expect("compacted");
    assert_eq!((log.metrics().linked_runs.get(), log.metrics().unlinked_runs.get()), (1, 1));
    let check = async |log: &Log| {
        assert_eq!(log.bounds(partition(0)).expect_err("gone").kind(), Kind::NotFound);
        assert_eq!(read_all(log, kept).await, payloads(1, 3, 300));
        // The same id again, as no client can: nothing of the old one is there.
        make_topic(log, 1).await;
        assert_eq!(append(log, "new").await.expect("stored"), 0);
        assert_eq!(texts(log).await, ["new"]);
        let gone = Change { topics: vec![TopicOp::Delete { topic: topic() }], ..Change::default() };
        log.commit(gone).await.expect("deleted");
    };
    check(&log).await;
    drop(log);
    check(&open(&store).await).await;
}

// Fails when the swap happens before its slot is committed.
#[tokio::test]
async fn a_crash_between_the_segment_and_its_swap_changes_nothing() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let all = fill(&log, 0, 20, 300).await;
    store.on_put(is_wal, PutFault::Hang);
    let compaction = tokio::spawn({
        let log = log.clone();
        async move { log.compact().await }
    });
    store.until(|store| store.hanging() == 1).await;
    assert_eq!(segments(&store).await.len(), 1, "the segment is there, its swap is not");
    assert!(read_from(&store, &log, partition(0)).await.iter().all(|path| !is_segment(path)));
    compaction.abort();
    drop(compaction.await);
    drop(log);
    let log = open(&store).await;
    store.release().await;
    assert_eq!(read_all(&log, partition(0)).await, all);
    assert!(read_from(&store, &log, partition(0)).await.iter().all(|path| !is_segment(path)));
    log.compact().await.expect("compacted");
    assert_eq!(segments(&store).await.len(), 2, "the first one is an orphan");
    assert_eq!(read_all(&open(&store).await, partition(0)).await, all);
}

// Fails when the check before the swap is left out: the first read would then find what is broken, too late.
#[tokio::test]
async fn a_segment_that_does_not_read_back_is_never_linked() {
    // Trailer, table, frames.
    for which in 0..3 {
        for fault in [GetFault::FlipBit, GetFault::Truncate] {
            let store = FaultStore::in_memory();
            let log = open(&store).await;
            make_topic(&log, 1).await;
            let all = fill(&log, 0, 20, 300).await;
            let seen = AtomicUsize::new(0);
            store.on_get(move |path| is_segment(path) && seen.fetch_add(1, Ordering::SeqCst) == which, fault);
            log.compact().await.expect_err("what is stored is not what was written");
            assert_eq!(store.unfired(), 0);
            assert_eq!(log.metrics().segment_mismatches.get(), u64::from(fault == GetFault::FlipBit));
            assert!(read_from(&store, &log, partition(0)).await.iter().all(|path| !is_segment(path)));
            log.compact().await.expect("the next one is sound");
            assert_eq!(read_all(&open(&store).await, partition(0)).await, all);
        }
    }
}

// Fails when damage in a segment is served, or when it is kept in a cache after it was found.
#[tokio::test]
async fn damage_on_the_way_from_a_segment_is_read_again_and_in_the_store_is_told() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let all = fill(&log, 0, 20, 300).await;
    log.compact().await.expect("compacted");
    // Through the page cache, and past it as from a directory, where trailer and table are a request each.
    for (local, damages) in [(false, 2), (true, 4)] {
        let open = async || {
            let stores = ObjectStores::of(Arc::new(store.clone()), local);
            Log::open(LogOptions { stores, ..small(&store) }).await.expect("the log opens")
        };
        let log = open().await;
        store.on_get(is_segment, GetFault::FlipBit);
        assert_eq!(read_all(&log, partition(0)).await, all);
        assert_eq!(store.unfired(), 0);
        let log = open().await;
        for _ in 0..damages {
            store.on_get(is_segment, GetFault::FlipBit);
        }
        assert_eq!(log.read(partition(0), Offset(0), 1).await.expect_err("broken twice").kind(), Kind::Corrupt);
        assert_eq!(read_all(&log, partition(0)).await, all, "and whole when the store is");
    }
}

// Fails when a missing object is told as a missing partition.
#[tokio::test]
async fn a_segment_that_is_gone_is_told_as_damage() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    fill(&log, 0, 20, 300).await;
    log.compact().await.expect("compacted");
    let inner = store.inner();
    let listed = inner.list(Some(&Path::from("segment"))).try_collect::<Vec<_>>().await.expect("listed");
    object_store::ObjectStoreExt::delete(&*inner, &listed[0].location).await.expect("deleted");
    let log = open(&store).await;
    assert_eq!(log.read(partition(0), Offset(0), 1).await.expect_err("missing").kind(), Kind::Corrupt);
}

// Fails when all partitions of a window share a segment, or when each has its own.
#[tokio::test]
async fn a_partition_with_much_has_a_segment_of_its_own_and_small_ones_share() {
    let store = FaultStore::in_memory();
    let log = Log::open(LogOptions { segment_bytes: SEGMENT_BYTES * 8, ..small(&store) }).await.expect("opens");
    make_topic(&log, 20).await;
    fill(&log, 0, 60, 1400).await;
    for index in 1..20 {
        fill(&log, index, 3, 100).await;
    }
    log.compact().await.expect("compacted");
    assert_eq!(segments(&store).await.len(), 2);
    let log = open(&store).await;
    let large = read_from(&store, &log, partition(0)).await;
    assert_eq!(large.len(), 1);
    for index in 1..20 {
        let small = read_from(&store, &log, partition(index)).await;
        assert!(small.len() == usize::from(index == 1), "one page for all: {small:?}");
        assert_ne!(small, large);
    }
}

// Fails when runs are never merged, or when a merge loses or doubles one.
#[tokio::test]
async fn a_partition_that_grows_slowly_is_read_from_few_segments() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 4).await;
    let mut all = vec![Vec::new(); 4];
    for round in 0..40 {
        for (index, all) in (0..).zip(&mut all) {
            let records = payloads(round, 2, 50 + 20 * index as usize);
            log.append(partition(index), batch(&records)).await.expect("stored");
            all.extend(records);
        }
        log.compact().await.expect("compacted");
    }
    assert!(log.metrics().merged_runs.get() > 0);
    drop(log);
    let log = open(&store).await;
    for index in 0..4 {
        let paths = read_from(&store, &log, partition(index)).await;
        assert!(paths.len() <= 16, "{} objects for 40 windows", paths.len());
        assert_eq!(read_all(&log, partition(index)).await, all[index as usize]);
    }
}

// Fails when merges do not look at what was written: with this bound there is nothing to spare.
#[tokio::test]
async fn nothing_is_merged_when_too_much_was_written() {
    let store = FaultStore::in_memory();
    let log = Log::open(LogOptions { write_percent_max: 200, ..small(&store) }).await.expect("opens");
    make_topic(&log, 1).await;
    for _ in 0..20 {
        fill(&log, 0, 2, 400).await;
        log.compact().await.expect("compacted");
    }
    assert_eq!(log.metrics().merged_runs.get(), 0);
}

// Fails when the search by time does not look into a segment, or looks at the wrong side of a frame.
#[tokio::test]
async fn a_position_in_a_segment_is_found_by_time() {
    #[derive(Default)]
    struct Hand(AtomicU64);
    impl plinth_storage::env::Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }
    }
    let store = FaultStore::in_memory();
    let clock = Arc::new(Hand::default());
    let log = Log::open(LogOptions { clock: clock.clone(), ..small(&store) }).await.expect("opens");
    make_topic(&log, 1).await;
    // Several frames.
    for number in 0..40_u64 {
        clock.0.store(1000 + number / 2 * 10, Ordering::SeqCst);
        log.append(partition(0), batch(&payloads(0, 1, 50_000))).await.expect("stored");
        if number == 30 {
            log.compact().await.expect("compacted");
        }
    }
    for at in [0, 1000, 1001, 1005, 1050, 1051, 1099, 1145, 1150, 1151, 1160, 1190, 1191, 9999].map(Timestamp) {
        let expected = (0..40).filter(|number| 1000 + number / 2 * 10 < at.0).count() as u64;
        assert_eq!(log.offset_at(partition(0), at).await.expect("found").0, expected, "at {at}");
    }
}

// Fails when a segment stays for ever because a little of it is still read.
#[tokio::test]
async fn what_little_lives_in_a_segment_is_moved_so_that_the_rest_can_go() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let kept = Partition { topic: TopicId(log.new_ulid()), ..partition(0) };
    let made = vec![TopicOp::Create { topic: kept.topic, partitions: 1 }];
    log.commit(Change { topics: made, ..Change::default() }).await.expect("made");
    log.append(kept, batch(&payloads(1, 3, 300))).await.expect("stored");
    fill(&log, 0, 20, 300).await;
    log.compact().await.expect("compacted");
    let before = read_from(&store, &log, kept).await;
    let gone = Change { topics: vec![TopicOp::Delete { topic: topic() }], ..Change::default() };
    log.commit(gone).await.expect("deleted");
    for _ in 0..2 {
        log.compact().await.expect("compacted");
    }
    let after = read_from(&store, &log, kept).await;
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after, "nothing names the segment any more");
    assert_eq!(read_all(&log, kept).await, payloads(1, 3, 300));
}
