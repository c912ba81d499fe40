//! Tests of early appends in the open buffer.

use ulid::Ulid;

use super::*;
use crate::error::Kind;
use crate::ids::{PartitionIndex, TopicId};
use crate::layout;
use crate::record::{Batch, NewRecord};
use crate::shard::rows::{PartitionRow, Row, TopicRow};
use crate::state::StateOp;
use crate::state::memory::MemoryState;

use Durability::{Memory, Object};

struct Rig {
    state: MemoryState,
    core: Core,
}

fn partition(index: u32) -> Partition {
    Partition { topic: TopicId(Ulid(1)), index: PartitionIndex(index) }
}

impl Rig {
    fn new() -> Self {
        let state = MemoryState::new();
        let topic = TopicRow { partitions: 2 }.encode();
        state.write(&[StateOp::Put(layout::topic_key(partition(0).topic), topic)]).expect("written");
        Self { state, core: Core::new() }
    }

    /// The offset of an append, and whether it is early.
    fn append(&mut self, durability: Durability) -> (u64, bool) {
        self.append_while(durability, false).expect("accepted")
    }

    fn append_while(&mut self, durability: Durability, away: bool) -> Result<(u64, bool)> {
        let at = At { partition: partition(0), now: Timestamp(1), want: Want { durability, away } };
        let batch = Batch::of(&[NewRecord::default()]).expect("valid");
        let submitted = self.core.append(&self.state, at, batch)?;
        Ok((submitted.base.0, submitted.ack.is_early()))
    }

    /// Commits the oldest buffer.
    fn commit(&mut self) {
        let buffer = self.core.take();
        let rows = buffer.groups.iter().map(|(partition, batches)| {
            let last = batches.last().expect("a batch");
            (*partition, PartitionRow { tail: last.next(), last_timestamp: last.timestamp, ..PartitionRow::default() })
        });
        let rows: Vec<_> = rows.collect();
        let entries: Vec<_> = buffer.early.entries.iter().chain(&buffer.partition_entries).cloned().collect();
        self.core.committed_up_to(buffer.sequence, &rows, &entries);
    }

    fn shown(&mut self) -> u64 {
        self.core.bounds(&self.state, partition(0)).expect("bounds").1.0
    }
}

// Fails when an append is early before its reservation is committed.
#[tokio::test(start_paused = true)]
async fn an_append_is_early_only_below_what_is_reserved_and_committed() {
    let mut rig = Rig::new();
    assert_eq!(rig.append(Memory), (0, false));
    assert_eq!(rig.append(Memory), (1, false), "asked for, not committed");
    rig.core.take();
    assert_eq!(rig.append(Memory), (2, false), "sealed, not committed");
    let mut rig = Rig::new();
    rig.append(Memory);
    rig.commit();
    for offset in 1..=u64::from(STRIDE_MIN) {
        assert_eq!(rig.append(Memory), (offset, true));
    }
    assert_eq!(rig.append(Memory), (1025, false), "beyond what is reserved, though more is asked for");
    assert_eq!(rig.shown(), 1025);
    assert_eq!(rig.append_while(Memory, true).expect_err("away").kind(), Kind::Unavailable);
    rig.commit();
    assert_eq!(rig.append(Memory), (1026, true));
}

// Fails when what is shown is not a prefix.
#[tokio::test(start_paused = true)]
async fn behind_a_late_append_every_append_is_late_until_it_is_committed() {
    let mut rig = Rig::new();
    rig.append(Memory);
    rig.commit();
    assert_eq!((rig.append(Memory), rig.append(Object), rig.append(Memory)), ((1, true), (2, false), (3, false)));
    assert_eq!(rig.shown(), 2);
    rig.commit();
    assert_eq!((rig.shown(), rig.append(Memory)), (4, (4, true)));
}

// Fails when an early append is undone, or a late one in a full buffer is not.
#[tokio::test(start_paused = true)]
async fn what_is_late_is_undone_in_all_buffers_and_what_is_early_stays() {
    let mut rig = Rig::new();
    rig.append(Memory);
    rig.commit();
    rig.core.slot_bytes = 2 * (14 + 128);
    let mut early = Vec::new();
    for _ in 0..4 {
        rig.core.roll();
        early.push(rig.append(Memory));
    }
    assert_eq!(early, [(1, true), (2, true), (3, true), (4, true)]);
    rig.core.roll();
    assert_eq!((rig.append(Object), rig.append(Memory)), ((5, false), (6, false)));
    let outcomes: Vec<_> = rig.core.full.iter().map(|buffer| buffer.early.outcome.subscribe()).collect();
    assert_eq!(rig.core.undo_late().len(), 3);
    assert!(outcomes.iter().all(|outcome| matches!(*outcome.borrow(), Outcome::Pending)));
    assert_eq!(rig.append_while(Memory, true).expect("accepted"), (5, true), "the offset is free again");
    let mut bases = Vec::new();
    while !rig.core.is_empty() {
        let buffer = rig.core.take();
        bases.extend(buffer.groups.values().flatten().map(|batch| batch.base.0));
        assert_eq!(buffer.room, Room::default());
    }
    assert_eq!(bases, [1, 2, 3, 4, 5]);
}

// Fails when a reservation that was not committed, or was given back, is used.
#[tokio::test(start_paused = true)]
async fn a_reservation_that_is_undone_or_given_back_must_be_made_again() {
    let mut rig = Rig::new();
    rig.append(Memory);
    rig.core.undo_late();
    assert_eq!(rig.append(Memory), (0, false));
    rig.commit();
    assert!(!rig.core.release(false), "it is in use");
    assert!(rig.core.release(false));
    let released = Entry::Reserve { partition: partition(0), to: Offset(1), memory: false };
    assert_eq!(rig.core.open.partition_entries, [released]);
    assert_eq!(rig.append(Memory), (1, false));
    rig.commit();
    assert_eq!(rig.append(Memory), (2, true), "that it was given back in the same slot does not count");
    assert!(rig.core.release(true));
}

// Fails when the reservation does not follow the load: an outage would meet its end before the cap.
#[tokio::test(start_paused = true)]
async fn what_is_reserved_grows_with_the_load_and_shrinks_after_it() {
    let mut rig = Rig::new();
    let ahead = |rig: &Rig| rig.core.reserved[&partition(0)].stride;
    for _ in 0..20_000 {
        rig.append(Memory);
        rig.commit();
    }
    let busy = ahead(&rig);
    assert!((8192..=65536).contains(&busy), "{busy}");
    for _ in 0..40_000 {
        tokio::time::advance(Duration::from_millis(20)).await;
        rig.append(Memory);
        rig.commit();
    }
    assert!(ahead(&rig) < busy, "{} after {busy}", ahead(&rig));
}
