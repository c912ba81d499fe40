//! Tests of reservations and gaps as rows.

use ulid::Ulid;

use super::*;
use crate::ids::{ClusterId, ObjectHash, PartitionIndex, Slot, Timestamp, TopicId};
use crate::shard::machine::{self, Run, SlotSummary};
use crate::state::memory::MemoryState;

const SESSION: SessionId = SessionId(Ulid(2));

fn partition(index: u32) -> Partition {
    Partition { topic: TopicId(Ulid(1)), index: PartitionIndex(index) }
}

fn gap(from: u64, to: u64) -> Gap {
    Gap { from: Offset(from), to: Offset(to), reason: GapReason::Lost }
}

fn run(base: u64, count: u32) -> Run {
    let timestamp = Timestamp(7);
    let (first_timestamp, last_timestamp) = (timestamp, timestamp);
    Run { partition: partition(0), base: Offset(base), count, position: 0, len: 10, first_timestamp, last_timestamp }
}

fn told(from: u64, to: u64) -> Entry {
    Entry::Gap { partition: partition(0), gap: gap(from, to) }
}

fn apply(state: &MemoryState, runs: Vec<Run>, entries: Vec<Entry>) -> Result<u64> {
    let summary = SlotSummary { session: SESSION, slot: Slot(0), object_len: 0, runs, entries };
    let rows = machine::apply(state, &summary, &[], (ClusterId(Ulid(3)), ObjectHash(0)))?;
    Ok(rows.last().map_or(0, |(_, row)| row.tail.0))
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn the_rows_are_what_they_were_in_version_1() {
    let reservation = Reservation { to: Offset(0x1122), session: SessionId(Ulid(0x0102)), memory: true };
    let golden = [1, 0x22, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1];
    assert_eq!(reservation.encode()[..], golden);
    assert_eq!(Reservation::parse(Bytes::copy_from_slice(&golden)).expect("valid"), reservation);
    let row = GapRow { to: Offset(0x1122), reason: 1 };
    assert_eq!(row.encode()[..], [1, 0x22, 0x11, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(GapRow::parse(row.encode()).expect("valid"), row);
}

// Fails when a gap moves the tail of its partition before the run in front of it, or does not move it.
#[test]
fn a_gap_stands_before_or_after_the_run_of_its_slot() {
    let state = MemoryState::new();
    assert_eq!(apply(&state, vec![run(0, 3)], vec![told(3, 10)]).expect("after"), 10);
    assert_eq!(apply(&state, vec![run(20, 2)], vec![told(10, 20)]).expect("before"), 22);
    assert_eq!(apply(&state, vec![run(30, 2)], vec![told(22, 30), told(32, 40)]).expect("both"), 40);
    assert_eq!(apply(&state, vec![], vec![told(40, 41)]).expect("alone"), 41);
    for broken in [told(40, 50), told(42, 50)] {
        assert_eq!(apply(&state, vec![], vec![broken.clone()]).expect_err("not at the tail").kind(), Kind::Corrupt);
        assert_eq!(apply(&state, vec![run(50, 1)], vec![broken]).expect_err("not at the tail").kind(), Kind::Corrupt);
    }
    let all = [gap(3, 10), gap(10, 20), gap(22, 30), gap(32, 40), gap(40, 41)];
    assert_eq!(after(&state, partition(0), Offset(0)).expect("read"), all);
    assert_eq!(after(&state, partition(0), Offset(29)).expect("read"), all[2..]);
    assert_eq!(after(&state, partition(0), Offset(30)).expect("read"), all[3..]);
    for (offset, expected) in [(2, None), (3, Some(all[0])), (9, Some(all[0])), (10, Some(all[1])), (20, None)] {
        assert_eq!(covering(&state, partition(0), Offset(offset)).expect("read"), expected, "{offset}");
    }
    assert_eq!(covering(&state, partition(1), Offset(5)).expect("read"), None);
}

// Fails when a gap is applied to the row of another partition, or to what was before the gap in front of it.
#[test]
fn gaps_of_many_partitions_in_one_slot_move_each_its_own_tail() {
    let state = MemoryState::new();
    let told = |index, from, to| Entry::Gap { partition: partition(index), gap: gap(from, to) };
    let run = |index, base| Run { partition: partition(index), ..run(base, 2) };
    let entries = vec![told(2, 0, 7), told(1, 0, 5), told(0, 2, 9), told(3, 0, 1), told(1, 5, 6), told(2, 9, 20)];
    apply(&state, vec![run(0, 0), run(2, 7)], entries).expect("applied");
    let tails =
        (0..4).map(|index| machine::partition_row(&state, partition(index)).expect("read").expect("there").tail);
    assert_eq!(tails.collect::<Vec<_>>(), [Offset(9), Offset(6), Offset(20), Offset(1)]);
}

// Fails when gaps below a start stay, or the one that it lies in goes.
#[test]
fn gaps_below_a_start_go_and_the_one_that_it_lies_in_stays() {
    let state = MemoryState::new();
    let told = vec![told(2, 5), told(5, 7), told(7, 20), told(20, 30)];
    apply(&state, vec![run(0, 2)], told).expect("applied");
    for (start, kept) in [(4, 0), (5, 1), (8, 2), (19, 2), (20, 3), (30, 4)] {
        let trim = Entry::Trim { partition: partition(0), start: Offset(start) };
        apply(&state, vec![], vec![trim]).expect("applied");
        let all = [gap(2, 5), gap(5, 7), gap(7, 20), gap(20, 30)];
        assert_eq!(after(&state, partition(0), Offset(0)).expect("read"), all[kept..], "{start}");
    }
}

// Fails when a reservation is kept that was given back, or when one that is renewed keeps what it was.
#[test]
fn a_reservation_is_replaced_by_the_next_and_given_back_by_one_that_ends_at_the_tail() {
    let state = MemoryState::new();
    let reserve = |to: u64, memory| Entry::Reserve { partition: partition(0), to: Offset(to), memory };
    apply(&state, vec![run(0, 3)], vec![reserve(100, true)]).expect("applied");
    let of = |to, memory| vec![(partition(0), Reservation { to: Offset(to), session: SESSION, memory })];
    assert_eq!(reservations(&state).expect("read"), of(100, true));
    apply(&state, vec![run(3, 1)], vec![reserve(4, false), reserve(50, false)]).expect("applied");
    assert_eq!(reservations(&state).expect("read"), of(50, false));
    apply(&state, vec![run(4, 1)], vec![told(5, 50), reserve(50, false)]).expect("applied");
    assert_eq!(reservations(&state).expect("read"), []);
    assert_eq!(after(&state, partition(0), Offset(0)).expect("read"), [gap(5, 50)]);
}

// Fails when rows of gaps are left out where a checkpoint is loaded shard by shard, or stay when their topic is deleted.
#[test]
fn gaps_and_reservations_belong_to_the_shard_and_the_topic_of_their_partition() {
    for partition in (0..20).map(partition) {
        for key in [layout::reservation_key(partition), layout::gap_key(partition, Offset(7))] {
            assert_eq!(layout::shard_of(&key, 16), Some(partition.shard(16)));
            let ranges = layout::topic_ranges(partition.topic);
            assert!(ranges.iter().any(|(from, to)| *from <= key && key < *to));
        }
    }
}

// Fails when a gap counts that is below a start, when only part of one does, or when a reservation is taken for one.
#[test]
fn what_is_missing_of_a_topic_is_counted_from_the_starts_of_its_partitions_on() {
    let state = MemoryState::new();
    let mut ops =
        vec![gap_op(partition(0), &gap(3, 10)), gap_op(partition(2), &gap(0, 5)), gap_op(partition(2), &gap(7, 8))];
    let reservation = Reservation { to: Offset(100), session: SESSION, memory: true };
    ops.push(reservation_op(partition(0), reservation, Offset(20)));
    let other = Partition { topic: TopicId(Ulid(2)), ..partition(0) };
    ops.push(gap_op(other, &gap(0, 1000)));
    state.write(&ops).expect("written");
    let missing = |starts: [u64; 3]| {
        let bounds = starts.map(|start| Bounds {
            closed: false,
            start: Offset(start),
            tail: Offset(20),
            bytes: 0,
            last_timestamp: Timestamp(0),
        });
        super::missing(&state, partition(0).topic, &bounds).expect("read")
    };
    assert_eq!(missing([0, 0, 0]), 7 + 5 + 1);
    assert_eq!(missing([4, 0, 5]), 6 + 1);
    assert_eq!(missing([10, 0, 20]), 0);
}
