//! Tests of reads that a trim overtakes: the bounds were looked at before it, the rows after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use object_store::memory::InMemory;

use super::*;
use crate::cache::PageCacheOptions;
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::rows::Row;
use crate::shard::trim::tests::{Made, apply_slot, partition, with_runs};
use crate::state::memory::MemoryState;
use crate::state::{Snapshot, StateOp, StateRow};
use crate::store::ObjectStores;

const RUNS: [Made; 3] = [
    Made { count: 2, len: 100, times: (10, 10) },
    Made { count: 2, len: 100, times: (20, 20) },
    Made { count: 2, len: 100, times: (30, 30) },
];

/// A reader of three runs, what it knew of their partition, and the state to change behind its back. The store is empty.
fn overtaken(entry: Entry) -> (Reader, PartitionRow) {
    let state = Arc::new(with_runs(&RUNS));
    let before = machine::partition_row(&*state, partition()).expect("readable").expect("a row");
    apply_slot(&state, 3, None, vec![entry]).expect("applied");
    let options = PageCacheOptions { dir: None, memory_bytes: 1024, disk_bytes: 0, local: false };
    let stores = ObjectStores::of(Arc::new(InMemory::new()), false);
    let cache = PageCache::open(options, Arc::clone(&stores.read));
    let segments = SegmentCache::new(1024, &stores);
    (Reader { state, tail: Arc::new(Tail::new(1024)), cache, segments }, before)
}

fn trim(start: u64) -> Entry {
    Entry::Trim { partition: partition(), start: Offset(start) }
}

// Fails when the missing row is given on as `Corrupt`: the client would see 500 instead of 410.
#[tokio::test]
async fn a_read_that_a_trim_overtakes_is_out_of_range() {
    for start in [3, 5, 6] {
        let (reader, before) = overtaken(trim(start));
        for from in 0..start {
            let error = reader.read(partition(), &before, Offset(from), 1).await.expect_err("trimmed");
            assert_eq!(error.kind(), Kind::OutOfRange, "{from} below {start}: {error}");
        }
    }
}

#[tokio::test]
async fn a_read_of_a_topic_that_is_deleted_meanwhile_does_not_find_it() {
    let (reader, before) = overtaken(Entry::DeleteTopic { topic: partition().topic });
    let error = reader.read(partition(), &before, Offset(1), 1).await.expect_err("deleted");
    assert_eq!(error.kind(), Kind::NotFound);
}

/// A state that changes between the first and the second time that a run is looked for.
struct Changing {
    state: MemoryState,
    change: Mutex<Option<Vec<StateOp>>>,
    looked: AtomicBool,
}

impl StateStore for Changing {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.state.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>> {
        self.state.scan(from, to, limit)
    }

    fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>> {
        if self.looked.swap(true, Ordering::SeqCst)
            && let Some(change) = self.change.lock().expect("no panic").take()
        {
            self.state.write(&change)?;
        }
        self.state.last_at_or_before(from, upto)
    }

    fn write(&self, ops: &[StateOp]) -> Result<()> {
        self.state.write(ops)
    }

    fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
        self.state.load(rows)
    }

    fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    fn flush(&self) -> Result<()> {
        self.state.flush()
    }

    fn close(&self) {
        self.state.close();
    }
}

// Fails when whatever the second look at a run meets is taken for a trim.
#[tokio::test]
async fn a_run_that_goes_between_two_looks_is_deleted_broken_or_trimmed() {
    let (start, topic) = (layout::partition_key(partition()), layout::topic_ranges(partition().topic));
    let rows =
        StateOp::DeleteRange(layout::index_key(partition(), Offset(0)), layout::index_key(partition(), Offset(4)));
    let trimmed = |row: &PartitionRow| StateOp::Put(start.clone(), PartitionRow { start: Offset(4), ..*row }.encode());
    let (reader, before) = overtaken(trim(0));
    let cases = [
        (Kind::OutOfRange, vec![rows.clone(), trimmed(&before)]),
        (Kind::NotFound, topic.map(|(from, to)| StateOp::DeleteRange(from, to)).to_vec()),
        (Kind::Corrupt, vec![rows]),
    ];
    for (kind, change) in cases {
        let (state, looked) = (with_runs(&RUNS), AtomicBool::new(false));
        let state = Arc::new(Changing { state, change: Mutex::new(Some(change)), looked });
        let reader = Reader { state, tail: Arc::clone(&reader.tail), ..overtaken(trim(0)).0 };
        let error = reader.read(partition(), &before, Offset(1), 1).await.expect_err("it is gone");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

// What is kept and not to be found is still a fault.
#[tokio::test]
async fn a_run_that_is_kept_and_missing_is_not_taken_for_trimmed() {
    let (reader, before) = overtaken(trim(3));
    let gap = [layout::index_key(partition(), Offset(2)), layout::index_key(partition(), Offset(4))];
    let [from, to] = gap;
    reader.state.write(&[StateOp::DeleteRange(from, to)]).expect("written");
    let error = reader.read(partition(), &before, Offset(3), 1).await.expect_err("missing");
    assert_eq!(error.kind(), Kind::Corrupt);
}

// Fails when the search goes on with the old bounds: it would meet rows that are gone.
#[tokio::test]
async fn a_search_by_time_that_a_trim_overtakes_finds_the_first_kept_record() {
    for (at, start, found) in [(5, 6, 6), (15, 6, 6), (31, 3, 6)] {
        let (reader, before) = overtaken(trim(start));
        assert_eq!(
            reader.offset_at(partition(), (&before, before.tail), Timestamp(at)).await.expect("found"),
            Offset(found),
            "{at}"
        );
    }
}
