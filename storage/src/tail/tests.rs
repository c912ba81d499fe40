//! Tests of the tail in memory.

use bytes::Bytes;
use ulid::Ulid;

use super::*;
use crate::ids::{PartitionIndex, Timestamp};
use crate::record::{Batch, NewRecord};

fn partition(topic: u128) -> Partition {
    Partition { topic: TopicId(Ulid(topic)), index: PartitionIndex(0) }
}

fn group(topic: u128, base: u64, sizes: &[usize]) -> (Partition, Vec<Arc<StoredBatch>>) {
    let batches = sizes.iter().enumerate().map(|(index, size)| {
        let record = NewRecord { payload: Bytes::from(vec![0; *size]), ..NewRecord::default() };
        let batch = Batch::of(&[record]).expect("valid");
        Arc::new(StoredBatch { base: Offset(base + index as u64), timestamp: Timestamp(0), batch })
    });
    (partition(topic), batches.collect())
}

fn bases(tail: &Tail, topic: u128, from: u64, bytes: usize) -> Option<Vec<u64>> {
    let read = tail.read(partition(topic), Offset(from)..Offset(u64::MAX), bytes)?;
    Some(read.iter().map(|batch| batch.base.0).collect())
}

/// Room for so many batches of 1000 bytes in so many slots.
fn room(batches: usize, slots: usize) -> usize {
    let overhead = SLOT_OVERHEAD_BYTES + 2 * size_of::<SlotRun>();
    batches * (1000 + 14 + BATCH_OVERHEAD_BYTES) + slots * overhead
}

// Fails when the newest slot leaves instead of the oldest, or when a slot's bytes are not given back.
#[test]
fn the_oldest_slots_leave_first_and_what_stays_has_no_hole() {
    let tail = Tail::new(room(4, 2));
    for slot in 0..10 {
        tail.push(Slot(slot), vec![group(1, slot * 2, &[1000, 1000])]);
        assert!(tail.bytes() <= tail.bytes_max);
    }
    assert_eq!(bases(&tail, 1, 15, usize::MAX), None);
    assert_eq!(bases(&tail, 1, 16, usize::MAX), Some(vec![16, 17, 18, 19]));
    assert_eq!(bases(&tail, 1, 19, usize::MAX), Some(vec![19]));
    assert_eq!(bases(&tail, 1, 20, usize::MAX), None);
}

#[test]
fn a_read_gives_at_least_one_batch_and_stops_at_its_bound() {
    let tail = Tail::new(usize::MAX);
    tail.push(Slot(0), vec![group(1, 0, &[100, 100, 100])]);
    assert_eq!(bases(&tail, 1, 0, 0), Some(vec![0]));
    assert_eq!(bases(&tail, 1, 0, 2 * 114), Some(vec![0, 1]));
}

#[test]
fn a_removed_topic_gives_its_bytes_back_and_leaves_the_others() {
    let tail = Tail::new(usize::MAX);
    tail.push(Slot(0), vec![group(1, 0, &[100]), group(2, 0, &[100])]);
    tail.push(Slot(1), vec![group(2, 1, &[100])]);
    let before = tail.bytes();
    tail.remove_topic(TopicId(Ulid(2)));
    assert_eq!(before - tail.bytes(), 2 * (100 + 14 + BATCH_OVERHEAD_BYTES));
    assert_eq!(bases(&tail, 2, 0, usize::MAX), None);
    assert_eq!(bases(&tail, 1, 0, usize::MAX), Some(vec![0]));
}

// Fails when slots without records, or runs of topics that are gone, cost nothing: the list of slots would only grow.
#[test]
fn slots_of_which_nothing_is_left_leave_too() {
    let tail = Tail::new(room(1, 10));
    for slot in 0..1000 {
        let groups = if slot % 2 == 0 { Vec::new() } else { vec![group(1, slot, &[0]), group(2, slot, &[0])] };
        tail.push(Slot(slot), groups);
        tail.remove_topic(TopicId(Ulid(1)));
        tail.remove_topic(TopicId(Ulid(2)));
    }
    assert!(tail.lock().slots.len() < 30);
    assert_eq!(tail.slot(Slot(999)).expect("the newest").len(), 0);
}

// Fails when a slot's batches are looked for from the front of what its partitions still hold.
#[test]
fn a_slot_is_found_as_it_was_committed_until_it_leaves() {
    let tail = Tail::new(room(4, 4));
    tail.push(Slot(0), vec![group(1, 0, &[1000])]);
    tail.push(Slot(1), Vec::new());
    tail.push(Slot(2), vec![group(1, 1, &[1000]), group(2, 0, &[1000])]);
    tail.push(Slot(3), vec![group(1, 2, &[1000])]);
    let found = |slot| {
        let batches = tail.slot(Slot(slot))?;
        Some(batches.iter().map(|(partition, run)| (*partition, run[0].base.0, run.len())).collect::<Vec<_>>())
    };
    assert_eq!(found(0), Some(vec![(partition(1), 0, 1)]));
    assert_eq!(found(1), Some(vec![]), "a slot without records is known to have none");
    assert_eq!(found(2), Some(vec![(partition(1), 1, 1), (partition(2), 0, 1)]));
    assert_eq!(found(4), None);
    tail.push(Slot(4), vec![group(2, 1, &[1000])]);
    assert_eq!(found(0), None, "it has left");
    assert_eq!(found(4), Some(vec![(partition(2), 1, 1)]));
    tail.remove_topic(TopicId(Ulid(2)));
    assert_eq!(found(2), Some(vec![(partition(1), 1, 1)]));
}

// Fails when a read goes on behind a gap as if nothing were missing.
#[test]
fn a_read_ends_at_a_gap() {
    let tail = Tail::new(usize::MAX);
    tail.push(Slot(0), vec![group(1, 0, &[1, 1])]);
    tail.push(Slot(1), vec![group(1, 10, &[1, 1])]);
    assert_eq!(bases(&tail, 1, 0, usize::MAX), Some(vec![0, 1]));
    assert_eq!(bases(&tail, 1, 5, usize::MAX), None);
    assert_eq!(bases(&tail, 1, 10, usize::MAX), Some(vec![10, 11]));
}

// Fails when what is shown early is not read, is read twice once it is committed, or leaves before it is.
#[test]
fn what_is_shown_early_is_read_until_it_is_committed_and_from_there_on() {
    let tail = Tail::new(room(2, 1));
    let show = |(partition, batches): (Partition, Vec<Arc<StoredBatch>>)| {
        batches.into_iter().for_each(|batch| tail.show(partition, batch));
    };
    tail.push(Slot(0), vec![group(1, 0, &[1000])]);
    show(group(1, 1, &[1000, 1000, 1000]));
    assert_eq!(bases(&tail, 1, 0, usize::MAX), Some(vec![0, 1, 2, 3]));
    tail.push(Slot(1), vec![group(1, 1, &[1000, 1000])]);
    assert_eq!(bases(&tail, 1, 1, usize::MAX), Some(vec![1, 2, 3]));
    tail.push(Slot(2), vec![group(2, 0, &[1000, 1000])]);
    assert_eq!(bases(&tail, 1, 1, usize::MAX), None, "committed, and the oldest");
    assert_eq!(bases(&tail, 1, 3, usize::MAX), Some(vec![3]), "nowhere else yet");
    tail.remove_topic(TopicId(Ulid(1)));
    assert_eq!(bases(&tail, 1, 3, usize::MAX), None);
}
