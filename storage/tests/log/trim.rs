//! Trims through the façade: what is below a start is gone, what is above it stays, whatever happens to the disk.

use std::sync::Arc;

use crate::common::{append, batch, make_topic, options, partition, read_all, texts, topic};
use bytes::Bytes;
use object_store::memory::InMemory;
use plinth_storage::error::Kind;
use plinth_storage::ids::{Offset, PartitionIndex, Timestamp};
use plinth_storage::log::{Change, Log, TopicOp};
use plinth_storage::store::ObjectStores;
use plinth_storage::testing::fault::{FaultStore, Op, PutFault};

/// What happens after the trims.
#[derive(Clone, Copy, Debug)]
enum After {
    Nothing,
    EmptyDisk,
    LocalState,
    CheckpointThenEmptyDisk,
    /// The checkpoint lies between the appends and the trims.
    CheckpointBeforeThenEmptyDisk,
    /// Before the trims all runs of a partition are made one, in a segment.
    CompactBeforeThenEmptyDisk,
    CompactThenEmptyDisk,
}

struct Rig {
    store: FaultStore,
    cache: Option<tempfile::TempDir>,
    log: Log,
}

impl Rig {
    async fn new(partitions: usize, on_disk: bool) -> Self {
        let cache = on_disk.then(|| tempfile::tempdir().expect("a directory"));
        let rig = Self::open(FaultStore::in_memory(), cache).await;
        make_topic(&rig.log, u32::try_from(partitions).expect("few")).await;
        rig
    }

    async fn open(store: FaultStore, cache: Option<tempfile::TempDir>) -> Self {
        let options = options(&store.stores(), cache.as_ref().map(tempfile::TempDir::path));
        Self { log: Log::open(options).await.expect("opens"), store, cache }
    }

    async fn checkpoint(&self) {
        let before = checkpoints(&self.store);
        self.log.request_checkpoint();
        self.store.until(|store| checkpoints(store) > before).await;
    }

    /// Closes the log and opens it again; what is on disk stays.
    async fn reopen(self) -> Self {
        self.log.close().await.expect("closed");
        drop(self.log);
        Self::open(self.store, self.cache).await
    }

    async fn after(self, after: After) -> Self {
        match after {
            After::Nothing => self,
            After::EmptyDisk
            | After::LocalState
            | After::CheckpointBeforeThenEmptyDisk
            | After::CompactBeforeThenEmptyDisk => self.reopen().await,
            After::CompactThenEmptyDisk => {
                self.log.compact().await.expect("compacted");
                self.reopen().await
            }
            After::CheckpointThenEmptyDisk => {
                self.checkpoint().await;
                self.reopen().await
            }
        }
    }
}

fn checkpoints(store: &FaultStore) -> usize {
    let is_one = |call: &&plinth_storage::testing::fault::Call| {
        call.op == Op::Put && call.path.as_ref().contains("/checkpoint/")
    };
    store.calls().iter().filter(is_one).count()
}

/// Runs of 3, 1, 4 and 2 records: offsets 0..3, 3..4, 4..8, 8..10. Gives the bytes before each run and after the last.
async fn append_runs(log: &Log, index: u32) -> Vec<u64> {
    let mut before = vec![0];
    for run in [3_usize, 1, 4, 2] {
        let payloads: Vec<Bytes> = (0..run).map(|record| Bytes::from(vec![7; 100 * run + record])).collect();
        log.append(partition(index), batch(&payloads)).await.expect("stored");
        before.push(log.bounds(partition(index)).expect("there").bytes);
    }
    before
}

/// Trims, the start after them, and the run that it is in.
const CASES: [(&[u64], u64, usize); 8] = [
    (&[0], 0, 0),
    (&[2], 2, 0),
    (&[3], 3, 1),
    (&[4, 3, 1], 4, 2),
    (&[1, 6], 6, 2),
    (&[9], 9, 3),
    (&[10], 10, 4),
    (&[10, 5], 10, 4),
];

// Fails when a trim is not part of the log (it is lost with the disk), when it goes back, when bytes do not sink, or when a
// batch is cut at the wrong record.
#[tokio::test]
async fn a_start_stays_where_it_was_trimmed_to() {
    for after in [
        After::Nothing,
        After::EmptyDisk,
        After::LocalState,
        After::CheckpointThenEmptyDisk,
        After::CheckpointBeforeThenEmptyDisk,
        After::CompactBeforeThenEmptyDisk,
        After::CompactThenEmptyDisk,
    ] {
        let mut rig = Rig::new(CASES.len() + 1, matches!(after, After::LocalState)).await;
        let cases: Vec<_> = (0..).zip(CASES).collect();
        let mut before = Vec::new();
        for (index, _) in &cases {
            before = append_runs(&rig.log, *index).await;
        }
        let all = read_all(&rig.log, partition(0)).await;
        match after {
            After::CheckpointBeforeThenEmptyDisk => rig.checkpoint().await,
            After::CompactBeforeThenEmptyDisk => rig.log.compact().await.expect("compacted"),
            After::Nothing
            | After::EmptyDisk
            | After::LocalState
            | After::CheckpointThenEmptyDisk
            | After::CompactThenEmptyDisk => {}
        }
        for (index, (trims, ..)) in &cases {
            for (number, trim) in trims.iter().enumerate() {
                let bounds = rig.log.trim(&[(partition(*index), Offset(*trim))]).await.expect("trimmed")[0];
                let highest = trims[..=number].iter().max().expect("at least one");
                assert_eq!((bounds.start.0, bounds.tail.0), (*highest, 10), "{trims:?}");
            }
        }
        rig = rig.after(after).await;
        for (index, (trims, start, run)) in cases {
            let bounds = rig.log.bounds(partition(index)).expect("there");
            let one_run = matches!(after, After::CompactBeforeThenEmptyDisk);
            let kept = before[4] - before[if one_run && run < 4 { 0 } else { run }];
            assert_eq!((bounds.start.0, bounds.tail.0, bounds.bytes), (start, 10, kept), "{trims:?} {after:?}");
            assert_eq!(read_all(&rig.log, partition(index)).await, all[usize::try_from(start).expect("small")..]);
            for below in 0..start {
                let error = rig.log.read(partition(index), Offset(below), 1).await.expect_err("trimmed");
                assert_eq!(error.kind(), Kind::OutOfRange, "{below} {trims:?} {after:?}");
            }
            let next = rig.log.append(partition(index), batch(&[Bytes::new()])).await.expect("stored");
            assert_eq!(next.base, Offset(10), "offsets go on");
        }
    }
}

#[tokio::test]
async fn a_trim_above_the_tail_is_refused_and_names_it() {
    let rig = Rig::new(1, false).await;
    append_runs(&rig.log, 0).await;
    let error = rig.log.trim(&[(partition(0), Offset(11))]).await.expect_err("above");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::OutOfRange, "offset 11 is above the tail, which is 10")
    );
    let mut absent = partition(0);
    absent.index = PartitionIndex(2);
    assert_eq!(rig.log.trim(&[(absent, Offset(0))]).await.expect_err("absent").kind(), Kind::NotFound);
    assert_eq!(rig.log.bounds(partition(0)).expect("there").start, Offset(0));
}

// Fails when the tail in memory is asked before the bounds.
#[tokio::test]
async fn the_tail_in_memory_serves_nothing_below_the_start() {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let mut options = options(&stores, None);
    options.tail_bytes_max = 1 << 20;
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    for text in ["a", "b", "c"] {
        append(&log, text).await.expect("stored");
    }
    log.trim(&[(partition(0), Offset(2))]).await.expect("trimmed");
    assert_eq!(log.read(partition(0), Offset(1), 1024).await.expect_err("trimmed").kind(), Kind::OutOfRange);
    assert_eq!(texts(&log).await, ["c"]);
}

#[tokio::test]
async fn a_place_by_time_is_never_below_the_start() {
    let rig = Rig::new(1, false).await;
    append_runs(&rig.log, 0).await;
    for start in [1, 3, 5, 10] {
        rig.log.trim(&[(partition(0), Offset(start))]).await.expect("trimmed");
        assert_eq!(rig.log.offset_at(partition(0), Timestamp(0)).await.expect("found"), Offset(start));
    }
}

// Fails when each partition is trimmed by itself, or some are where one cannot be.
#[tokio::test]
async fn trims_of_several_partitions_are_in_one_slot_or_in_none() {
    let rig = Rig::new(3, false).await;
    for index in 0..3 {
        append_runs(&rig.log, index).await;
    }
    let puts = rig.store.count(Op::Put);
    let beyond = [(partition(0), Offset(2)), (partition(1), Offset(11))];
    assert_eq!(rig.log.trim(&beyond).await.expect_err("above").kind(), Kind::OutOfRange);
    assert_eq!(rig.store.count(Op::Put), puts);
    let starts = [(partition(2), Offset(7)), (partition(0), Offset(2)), (partition(1), Offset(0))];
    let bounds = rig.log.trim(&starts).await.expect("trimmed");
    assert_eq!(bounds.iter().map(|bounds| bounds.start.0).collect::<Vec<_>>(), [7, 2, 0]);
    assert_eq!(rig.store.count(Op::Put), puts + 1);
}

#[tokio::test]
async fn a_trim_to_where_the_start_is_writes_nothing() {
    let rig = Rig::new(1, false).await;
    append_runs(&rig.log, 0).await;
    rig.log.trim(&[(partition(0), Offset(4))]).await.expect("trimmed");
    let puts = rig.store.count(Op::Put);
    for before in [4, 3, 0] {
        assert_eq!(rig.log.trim(&[(partition(0), Offset(before))]).await.expect("nothing to do")[0].start, Offset(4));
    }
    assert_eq!(rig.store.count(Op::Put), puts);
}

// Fails when a trim is answered before its slot is committed: the start would go back.
#[tokio::test(start_paused = true)]
async fn a_trim_whose_slot_is_not_stored_moves_nothing() {
    let rig = Rig::new(1, false).await;
    append_runs(&rig.log, 0).await;
    rig.store.on_put(|path| path.as_ref().contains("/wal/"), PutFault::Hang);
    assert_eq!(rig.log.trim(&[(partition(0), Offset(4))]).await.expect_err("open").kind(), Kind::Unknown);
    assert_eq!(rig.log.bounds(partition(0)).expect("there").start, Offset(0));
    assert_eq!(read_all(&rig.log, partition(0)).await.len(), 10);
}

// Fails when a trim that was committed in the shard of its partition is looked for in the catalog's.
#[tokio::test]
async fn trims_of_many_partitions_survive_in_their_shards() {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let log = Log::open(options(&stores, None)).await.expect("opens");
    make_topic(&log, 40).await;
    for index in 0..40 {
        log.append(partition(index), batch(&[Bytes::from_static(b"x"), Bytes::from_static(b"y")]))
            .await
            .expect("stored");
        log.trim(&[(partition(index), Offset(1))]).await.expect("trimmed");
    }
    drop(log);
    let log = Log::open(options(&stores, None)).await.expect("opens");
    for index in 0..40 {
        assert_eq!(log.bounds(partition(index)).expect("there").start, Offset(1));
    }
}

#[tokio::test]
async fn a_topic_that_was_trimmed_can_be_deleted() {
    let mut rig = Rig::new(1, false).await;
    append_runs(&rig.log, 0).await;
    rig.log.trim(&[(partition(0), Offset(5))]).await.expect("trimmed");
    let topics = vec![TopicOp::Delete { topic: topic() }];
    rig.log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
    assert_eq!(rig.log.trim(&[(partition(0), Offset(6))]).await.expect_err("gone").kind(), Kind::NotFound);
    rig = rig.reopen().await;
    assert_eq!(rig.log.bounds(partition(0)).expect_err("gone").kind(), Kind::NotFound);
}
