//! Tests of trims against the state alone, and a partition made of runs for the tests beside them.

use ulid::Ulid;

use super::*;
use crate::ids::{ClusterId, ObjectHash, PartitionIndex, SegmentId, SessionId, Slot, Timestamp, TopicId};
use crate::segment::link::{Link, SegmentRun};
use crate::shard::machine::{self, SlotSummary};
use crate::shard::rows::{Row, TopicRow};
use crate::state::memory::MemoryState;

/// The partition of these tests.
pub(crate) fn partition() -> Partition {
    Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(0) }
}

/// A run of `count` records and `len` bytes, with the times of its first and last record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) count: u32,
    pub(crate) len: u32,
    pub(crate) times: (u64, u64),
}

/// Applies one slot.
pub(crate) fn apply_slot(state: &MemoryState, number: u64, made: Option<Made>, entries: Vec<Entry>) -> Result<()> {
    let base = row(state).map_or(Offset(0), |row| row.tail);
    let runs = made.map(|Made { count, len, times: (first, last) }| Run {
        partition: partition(),
        base,
        count,
        position: 128,
        len,
        first_timestamp: Timestamp(first),
        last_timestamp: Timestamp(last),
    });
    let (session, slot) = (SessionId(Ulid(1)), Slot(number));
    let summary = SlotSummary { session, slot, object_len: 4096, runs: runs.into_iter().collect(), entries };
    machine::apply(state, &summary, &[], (ClusterId(Ulid(2)), ObjectHash(0))).map(|_| ())
}

/// A topic of one partition with these runs, one per slot.
pub(crate) fn with_runs(runs: &[Made]) -> MemoryState {
    let state = MemoryState::new();
    let topic = TopicRow { partitions: 1 }.encode();
    state.write(&[StateOp::Put(layout::topic_key(partition().topic), topic)]).expect("written");
    for (number, made) in (0..).zip(runs) {
        apply_slot(&state, number, Some(*made), vec![]).expect("applied");
    }
    state
}

/// Makes the oldest `count` runs, and the partition, look as version 1 wrote them.
pub(crate) fn as_version_1(state: &MemoryState, count: usize) {
    let (from, to) = (layout::index_key(partition(), Offset(0)), layout::index_key(partition(), Offset(u64::MAX)));
    for (key, value) in state.scan(&from, &to, count).expect("readable") {
        let old = [&[1], &value[1..53]].concat();
        state.write(&[StateOp::Put(key, old.into())]).expect("written");
    }
    let key = layout::partition_key(partition());
    let value = state.get(&key).expect("readable").expect("there is a row");
    state.write(&[StateOp::Put(key, [&[1], &value[1..33]].concat().into())]).expect("written");
}

fn row(state: &MemoryState) -> Option<PartitionRow> {
    partition_row(state, partition()).expect("readable")
}

fn index(state: &MemoryState) -> Vec<u64> {
    let (from, to) = (layout::index_key(partition(), Offset(0)), layout::index_key(partition(), Offset(u64::MAX)));
    let rows = state.scan(&from, &to, usize::MAX).expect("readable");
    rows.iter().map(|(key, _)| layout::index_base(key).expect("a base").0).collect()
}

fn trim_to(start: u64) -> Entry {
    Entry::Trim { partition: partition(), start: Offset(start) }
}

/// Offsets 0..3, 3..5, 5..9 of 100, 50 and 80 bytes.
const RUNS: [Made; 3] = [
    Made { count: 3, len: 100, times: (1, 1) },
    Made { count: 2, len: 50, times: (2, 2) },
    Made { count: 4, len: 80, times: (3, 3) },
];

/// After trims to these offsets: the start, the bytes, and where the runs that are left begin.
type Case = (&'static [u64], u64, u64, &'static [u64]);
const CASES: [Case; 10] = [
    (&[0], 0, 230, &[0, 3, 5]),
    (&[1], 1, 230, &[0, 3, 5]),
    (&[2, 1], 2, 230, &[0, 3, 5]),
    (&[3], 3, 130, &[3, 5]),
    (&[4], 4, 130, &[3, 5]),
    (&[4, 4, 0, 3], 4, 130, &[3, 5]),
    (&[1, 5], 5, 80, &[5]),
    (&[8], 8, 80, &[5]),
    (&[9], 9, 0, &[]),
    (&[2, 9, 3], 9, 0, &[]),
];

// Fails when a trim goes back (`start <= row.start`), when bytes do not sink, or when the run that start is in goes too.
#[test]
fn a_trim_keeps_the_run_of_the_new_start_and_drops_those_before_it() {
    for (trims, start, bytes, left) in CASES {
        // One after the other, all in one slot, and over rows of version 1.
        for (together, old) in [(false, 0), (true, 0), (false, 3), (true, 2)] {
            let state = with_runs(&RUNS);
            if old > 0 {
                as_version_1(&state, old);
            }
            let entries: Vec<Entry> = trims.iter().map(|start| trim_to(*start)).collect();
            for entries in if together { vec![entries] } else { entries.into_iter().map(|entry| vec![entry]).collect() }
            {
                apply_slot(&state, 3, None, entries).expect("applied");
            }
            let row = row(&state).expect("a row");
            assert_eq!((row.start.0, row.bytes, row.tail.0, row.published), (start, bytes, 9, 230), "{trims:?}, {old}");
            assert_eq!(index(&state), left, "{trims:?}, {old}");
        }
    }
}

// Fails when the run of the same slot is looked for in the state, or when its row is put back after the range is gone.
#[test]
fn a_slot_may_bring_a_run_and_trim_the_partition() {
    let run = Made { count: 2, len: 40, times: (4, 4) };
    for (start, bytes, left) in [(4, 170, &[3, 5, 9][..]), (9, 40, &[9]), (10, 40, &[9]), (11, 0, &[])] {
        let state = with_runs(&RUNS);
        apply_slot(&state, 3, Some(run), vec![trim_to(start)]).expect("applied");
        let row = row(&state).expect("a row");
        assert_eq!((row.start.0, row.bytes, row.tail.0), (start, bytes, 11));
        assert_eq!(index(&state), left);
        // And the offsets go on.
        apply_slot(&state, 4, Some(run), vec![]).expect("applied");
        assert_eq!(index(&state).last(), Some(&11));
        apply_slot(&state, 5, None, vec![trim_to(13)]).expect("applied");
        assert_eq!(index(&state), &[] as &[u64]);
    }
}

#[test]
fn a_trim_of_a_partition_that_is_gone_leaves_nothing_behind() {
    let state = with_runs(&RUNS);
    apply_slot(&state, 3, None, vec![Entry::DeleteTopic { topic: partition().topic }]).expect("applied");
    apply_slot(&state, 4, None, vec![trim_to(5)]).expect("applied");
    // In one slot too, where the entries of partitions come first.
    let again = with_runs(&RUNS);
    apply_slot(&again, 3, None, vec![trim_to(5), Entry::DeleteTopic { topic: partition().topic }]).expect("applied");
    for state in [state, again] {
        let left = state.snapshot().filter(|row| row.as_ref().is_ok_and(|(key, _)| layout::is_checkpointed(key)));
        assert_eq!(left.count(), 0);
    }
}

// Fails when a link looks only at the rows that were there before the slot: a trimmed run would be back.
#[test]
fn a_link_in_the_slot_of_a_trim_brings_nothing_back_and_makes_no_hole() {
    let run = SegmentRun {
        partition: partition(),
        base: Offset(0),
        count: 5,
        position: 0,
        len: 150,
        first_timestamp: Timestamp(1),
    };
    let link = || Entry::Link(Link { segment: SegmentId(Ulid(9)), object_len: 1, content_len: 1, runs: vec![run] });
    for (start, left) in [(0, &[0, 5][..]), (1, &[0, 3, 5]), (4, &[3, 5]), (5, &[5]), (7, &[5]), (9, &[])] {
        for entries in [vec![trim_to(start), link()], vec![link(), trim_to(start)]] {
            let state = with_runs(&RUNS);
            apply_slot(&state, 3, None, entries).expect("applied");
            assert_eq!(index(&state), left, "{start}");
        }
    }
}

#[test]
fn a_start_above_the_tail_is_a_broken_log() {
    let state = with_runs(&RUNS);
    assert_eq!(apply_slot(&state, 3, None, vec![trim_to(10)]).expect_err("above").kind(), Kind::Corrupt);
}

// Fails when the rows are deleted one by one: a trim of a long partition would stop all writers.
#[test]
fn a_trim_costs_the_same_however_many_runs_go() {
    let state = with_runs(&vec![RUNS[0]; 5000]);
    let mut ops = Vec::new();
    let mut rows = Vec::new();
    apply(&state, (&[], starts(&[trim_to(14_000)])), &mut rows, &mut ops).expect("applied");
    assert_eq!((ops.len(), rows.len()), (2, 1));
}
