//! Early appends: those of the weaker durability classes, acknowledged before their slot is committed (ADR 18).
//!
//! Decides which of them may be early: what is shown of a partition stays a prefix, and every offset that is shown is
//! reserved in the bucket before. An append that may not be is late, as one of class `object`: stronger, not weaker.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use tokio::time::Instant;

use super::{Core, OpenBuffer, Outcome, PartitionTail, Room};
use crate::durability::{Durability, Gap};
use crate::error::Result;
use crate::ids::{Offset, Partition, Timestamp};
use crate::record::StoredBatch;
use crate::shard::changes::Entry;
use crate::state::StateStore;
use crate::wal::recover::Recovered;

/// What a reservation costs in the buffer.
const RESERVE_BYTES: usize = 64;
/// Offsets that are reserved at first, and at most.
const STRIDE_MIN: u32 = 1024;
const STRIDE_MAX: u32 = 1 << 22;
/// A reservation that needs to be renewed before this grows, one that lasts for longer than the next shrinks.
const RENEWAL_MIN: Duration = Duration::from_secs(10);
const RENEWAL_MAX: Duration = Duration::from_secs(60);

/// Most reservations that are given back at a time while the log goes on.
const RELEASED_MAX: usize = 1024;

/// Where an append goes and what it wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) partition: Partition,
    pub(crate) now: Timestamp,
    pub(crate) want: Want,
}

/// The durability class that an append asks for, and whether the object store is away: then only what is acknowledged
/// before it is stored is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Want {
    pub(crate) durability: Durability,
    pub(crate) away: bool,
}

/// When an append is acknowledged. The outcome is that of its slot.
#[derive(Clone, Debug)]
pub(crate) enum Ack {
    /// When its slot is committed.
    Late(watch::Receiver<Outcome>),
    /// At once.
    Now(watch::Receiver<Outcome>),
    /// When the journal has it, or its slot is committed before.
    Journal(u64, watch::Receiver<Outcome>),
}

/// The early appends of an open buffer.
#[derive(Debug)]
pub(crate) struct EarlyHalf {
    /// How many of the first batches of each partition are early.
    pub(super) batches: HashMap<Partition, usize>,
    /// What partitions are to remember of them.
    pub(crate) entries: Vec<Entry>,
    pub(super) bytes: usize,
    pub(crate) room: Room,
    /// The first of them came here.
    pub(super) since: Option<Instant>,
    pub(crate) outcome: watch::Sender<Outcome>,
}

/// The late appends of a buffer that was undone.
#[derive(Debug)]
pub(crate) struct LateHalf {
    pub(crate) room: Room,
    pub(crate) outcome: watch::Sender<Outcome>,
}

/// Offsets of a partition that this session may show before they are committed.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Those below are reserved in the bucket.
    usable: Offset,
    /// Whether also for records that are in no journal.
    memory: bool,
    /// What is on its way to be usable.
    asked: Option<Asked>,
    stride: u32,
    asked_at: Instant,
    /// Since the last look for idle ones.
    used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    buffer: u64,
    to: Offset,
    memory: bool,
}

impl Ack {
    pub(crate) fn is_early(&self) -> bool {
        match self {
            Self::Late(_) => false,
            Self::Now(_) | Self::Journal(..) => true,
        }
    }
}

impl EarlyHalf {
    pub(super) fn new() -> Self {
        Self {
            batches: HashMap::new(),
            entries: Vec::new(),
            bytes: 0,
            room: Room::default(),
            since: None,
            outcome: watch::channel(Outcome::Pending).0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.since.is_none()
    }
}

impl Core {
    /// When a batch of a weaker class that gets the offsets `base..next` is acknowledged.
    pub(super) fn early_ack(&mut self, partition: Partition, (base, next): (Offset, Offset), class: Durability) -> Ack {
        let late = Ack::Late(self.open.outcome.subscribe());
        let (Some(tail), Some(reserved)) = (self.partitions.get(&partition), self.reserved.get_mut(&partition)) else {
            return late;
        };
        reserved.used = true;
        if tail.held > tail.shown || next > reserved.usable {
            return late;
        }
        let outcome = self.open.early.outcome.subscribe();
        match class {
            Durability::Memory if reserved.memory && tail.shown == base => Ack::Now(outcome),
            // What stands behind a record that waits for the journal waits for it too.
            Durability::Memory | Durability::Local
                if self.journal.as_ref().is_some_and(|journal| journal.is_usable()) =>
            {
                self.journaled += 1;
                Ack::Journal(self.journaled, outcome)
            }
            Durability::Memory | Durability::Local | Durability::Object => late,
        }
    }

    /// Reserves more offsets when those that are left do not last. The entry is never among the early ones: those may be
    /// applied before it, and what is released and asked for again must stay in order.
    pub(super) fn reserve_ahead(&mut self, partition: Partition, next: Offset, class: Durability) {
        let wants_memory = class == Durability::Memory;
        let now = Instant::now();
        let reserved = match self.reserved.entry(partition) {
            MapEntry::Occupied(entry) => entry.into_mut(),
            MapEntry::Vacant(entry) => entry.insert(Reserved {
                usable: Offset(0),
                memory: false,
                asked: None,
                stride: STRIDE_MIN,
                asked_at: now,
                used: true,
            }),
        };
        let left = reserved.usable.0.saturating_sub(next.0);
        let lasts = left >= u64::from(reserved.stride / 2) && (reserved.memory || !wants_memory);
        if reserved.asked.is_some() || lasts {
            return;
        }
        let first = reserved.usable == Offset(0);
        let lasted = now - reserved.asked_at;
        if !first && lasted < RENEWAL_MIN {
            reserved.stride = reserved.stride.saturating_mul(2).min(STRIDE_MAX);
        } else if lasted > RENEWAL_MAX {
            reserved.stride = (reserved.stride / 2).max(STRIDE_MIN);
        }
        let asked = Asked {
            buffer: self.open.sequence,
            to: next.plus(reserved.stride),
            memory: reserved.memory || wants_memory,
        };
        (reserved.asked, reserved.asked_at) = (Some(asked), now);
        self.put_reserve(partition, asked.to, asked.memory);
    }

    /// A reservation was committed with the buffer `sequence`.
    pub(super) fn reserved_up_to(&mut self, sequence: u64, partition: Partition, to: Offset) {
        let Some(reserved) = self.reserved.get_mut(&partition) else { return };
        if let Some(asked) = reserved.asked.filter(|asked| asked.buffer == sequence && asked.to == to) {
            (reserved.usable, reserved.memory, reserved.asked) = (asked.to, asked.memory, None);
        }
    }

    /// A reservation will not be committed: its buffer was undone.
    pub(super) fn not_reserved(&mut self, sequence: u64, partition: Partition, to: Offset) {
        let Some(reserved) = self.reserved.get_mut(&partition) else { return };
        reserved.asked = reserved.asked.filter(|asked| asked.buffer != sequence || asked.to != to);
    }

    /// Gives reservations back, so that a crash leaves no gap where nothing was lost: all of them before the end, else
    /// those that were not used since the last call, up to a number. True when there were any.
    pub(crate) fn release(&mut self, all: bool) -> bool {
        let Self { reserved, partitions, deleting, .. } = self;
        let mut released = Vec::new();
        reserved.retain(|partition, reserved| {
            let Some(tail) = partitions.get(partition).filter(|_| !deleting.contains_key(&partition.topic)) else {
                return false;
            };
            let used = std::mem::replace(&mut reserved.used, false);
            let idle = !used && reserved.asked.is_none() && tail.next == tail.committed.tail;
            if !all && (!idle || released.len() == RELEASED_MAX) {
                return true;
            }
            released.push((*partition, tail.next));
            false
        });
        // The map has no order, and what is stored is the same whenever a history is.
        released.sort_unstable();
        for (partition, next) in &released {
            self.put_reserve(*partition, *next, false);
        }
        !released.is_empty()
    }

    fn put_reserve(&mut self, partition: Partition, to: Offset, memory: bool) {
        self.open.partition_entries.push(Entry::Reserve { partition, to, memory });
        self.open.bytes += RESERVE_BYTES;
        self.open.opened.get_or_insert_with(Instant::now);
    }

    /// Notes that the journal has a batch. True when it is shown from now on.
    pub(crate) fn journaled(&mut self, partition: Partition, batch: &StoredBatch) -> bool {
        let tail = self.partitions.get_mut(&partition).filter(|tail| tail.shown == batch.base);
        let Some(tail) = tail else { return false };
        tail.shown = batch.next();
        true
    }

    /// How long the oldest early append has waited to be stored.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.unstored.front().map(|(_, since)| since.elapsed())
    }

    /// Ends the open buffer when it is full and must not grow: what waits in an outage is stored in slots of the usual size.
    pub(crate) fn roll(&mut self) {
        if !self.open.early.is_empty() && self.open.bytes >= self.slot_bytes {
            let next = OpenBuffer::new(self.open.sequence + 1);
            self.full.push_back(std::mem::replace(&mut self.open, next));
        }
    }

    /// Undoes what is late in all that is not sealed: its offsets are free again. What is early stays.
    pub(crate) fn undo_late(&mut self) -> Vec<LateHalf> {
        let mut buffers: Vec<OpenBuffer> = self.full.drain(..).collect();
        let next = OpenBuffer::new(self.open.sequence + 1);
        buffers.push(std::mem::replace(&mut self.open, next));
        let last = buffers.len() - 1;
        let mut undone = Vec::with_capacity(buffers.len());
        for (index, mut buffer) in buffers.into_iter().enumerate() {
            undone.push(self.undo_late_of(&mut buffer));
            if buffer.early.is_empty() {
                continue;
            }
            if index == last {
                self.open = buffer;
            } else {
                self.full.push_back(buffer);
            }
        }
        undone
    }

    fn undo_late_of(&mut self, buffer: &mut OpenBuffer) -> LateHalf {
        for (partition, batches) in &mut buffer.groups {
            let early = buffer.early.batches.get(partition).copied().unwrap_or(0);
            if let (Some(tail), Some(first)) = (self.partitions.get_mut(partition), batches.get(early)) {
                tail.next = tail.next.min(first.base);
                tail.held = tail.held.min(tail.next);
            }
            batches.truncate(early);
        }
        buffer.groups.retain(|_, batches| !batches.is_empty());
        let entries = std::mem::take(&mut buffer.entries);
        for entry in entries.iter().chain(&std::mem::take(&mut buffer.partition_entries)) {
            self.undo_entry(buffer.sequence, entry);
        }
        buffer.changes.clear();
        buffer.bytes = buffer.early.bytes;
        buffer.waiting = 0;
        let outcome = std::mem::replace(&mut buffer.outcome, watch::channel(Outcome::Pending).0);
        LateHalf { room: std::mem::take(&mut buffer.room), outcome }
    }

    /// Takes away all that is not sealed; nothing is accepted after it.
    pub(crate) fn take_all(&mut self) -> Vec<OpenBuffer> {
        let mut buffers: Vec<OpenBuffer> = self.full.drain(..).collect();
        let next = OpenBuffer::new(self.open.sequence + 1);
        buffers.push(std::mem::replace(&mut self.open, next));
        self.unstored.clear();
        buffers
    }

    /// Appends a batch of an earlier session again, at its own offsets.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub(crate) fn recover(&mut self, state: &dyn StateStore, recovered: Recovered) -> Result<()> {
        let Recovered { partition, gap, batch, entries } = recovered;
        let tail = self.tail(state, partition)?;
        let end = gap.map_or(tail.next, |gap| gap.to);
        assert_eq!(end, batch.base, "a batch is recovered where its partition ends");
        (tail.next, tail.held) = (batch.next(), batch.next());
        tail.last_timestamp = tail.last_timestamp.max(batch.timestamp);
        self.open.grew(batch.batch.len() + super::BATCH_OVERHEAD_BYTES);
        self.open.groups.entry(partition).or_default().push(Arc::new(batch));
        self.open.partition_entries.extend(gap.map(|gap| Entry::Gap { partition, gap }));
        self.open.partition_entries.extend(entries);
        Ok(())
    }

    /// Ends a partition that an earlier session owned: at its tail, or behind a gap.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub(crate) fn recover_tail(
        &mut self,
        state: &dyn StateStore,
        partition: Partition,
        gap: Option<Gap>,
    ) -> Result<()> {
        let tail = self.tail(state, partition)?;
        if let Some(gap) = gap {
            assert_eq!(tail.next, gap.from, "a gap begins where its partition ends");
            (tail.next, tail.held) = (gap.to, gap.to);
            self.open.partition_entries.push(Entry::Gap { partition, gap });
        }
        let next = self.tail(state, partition)?.next;
        self.put_reserve(partition, next, false);
        Ok(())
    }

    /// The next offset of a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub(crate) fn next_offset(&mut self, state: &dyn StateStore, partition: Partition) -> Result<Offset> {
        self.tail(state, partition).map(|tail| tail.next)
    }
}

impl PartitionTail {
    /// Whether it can be read from the state store again without a loss.
    pub(super) fn is_idle(&self) -> bool {
        self.next == self.committed.tail && self.closed == self.closing
    }
}

#[cfg(test)]
mod tests;
