//! The newest committed batches, in memory, bounded in bytes: what live readers are served from.
//!
//! Whole slots leave, the oldest first, so a partition's batches here are always its newest ones without a hole.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ids::{Offset, Partition, Slot, TopicId};
use crate::record::StoredBatch;

/// What a batch costs in memory besides its bytes: the structures around it.
const BATCH_OVERHEAD_BYTES: usize = 256;

/// The committed tail of all partitions.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    partitions: HashMap<Partition, VecDeque<Arc<StoredBatch>>>,
    slots: VecDeque<SlotEntry>,
    bytes: usize,
}

#[derive(Debug)]
struct SlotEntry {
    slot: Slot,
    runs: Vec<SlotRun>,
    bytes: usize,
}

#[derive(Debug)]
struct SlotRun {
    partition: Partition,
    base: Offset,
    count: usize,
}

/// The batches of one slot by partition.
pub(crate) type SlotBatches = Vec<(Partition, Vec<Arc<StoredBatch>>)>;

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    /// Adds the batches of a committed slot.
    pub(crate) fn push(&self, slot: Slot, groups: SlotBatches) {
        let mut inner = self.lock();
        let mut slot = SlotEntry { slot, runs: Vec::with_capacity(groups.len()), bytes: 0 };
        for (partition, batches) in groups {
            let Some(base) = batches.first().map(|batch| batch.base) else { continue };
            slot.bytes += batches.iter().map(|batch| batch.batch.len() + BATCH_OVERHEAD_BYTES).sum::<usize>();
            slot.runs.push(SlotRun { partition, base, count: batches.len() });
            inner.partitions.entry(partition).or_default().extend(batches);
        }
        inner.bytes += slot.bytes;
        inner.slots.push_back(slot);
        while inner.bytes > self.bytes_max {
            let Some(oldest) = inner.slots.pop_front() else { break };
            inner.drop_slot(oldest);
        }
    }

    /// Batches from the one that holds `from` on, up to about `bytes_max`, or `None` when that one is not here.
    pub(crate) fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Option<Vec<Arc<StoredBatch>>> {
        let inner = self.lock();
        let batches = inner.partitions.get(&partition)?;
        let first = batches.partition_point(|batch| batch.next() <= from);
        if batches.get(first)?.base > from {
            return None;
        }
        let mut out = Vec::new();
        let mut bytes = 0;
        for batch in batches.range(first..) {
            if !out.is_empty() && bytes + batch.batch.len() > bytes_max {
                break;
            }
            bytes += batch.batch.len();
            out.push(Arc::clone(batch));
        }
        Some(out)
    }

    /// The batches of a slot of this session, without those of topics that are gone; `None` when it is not here.
    pub(crate) fn slot(&self, slot: Slot) -> Option<SlotBatches> {
        let inner = self.lock();
        let at = inner.slots.partition_point(|entry| entry.slot < slot);
        let entry = inner.slots.get(at).filter(|entry| entry.slot == slot)?;
        entry.runs.iter().map(|run| Some((run.partition, inner.run(run)?))).collect()
    }

    /// Forgets the partitions of a topic.
    pub(crate) fn remove_topic(&self, topic: TopicId) {
        let mut inner = self.lock();
        let Inner { partitions, slots, bytes } = &mut *inner;
        let mut freed: HashMap<Partition, VecDeque<Arc<StoredBatch>>> =
            partitions.extract_if(|partition, _| partition.topic == topic).collect();
        for slot in slots {
            slot.runs.retain(|run| {
                let Some(batches) = freed.get_mut(&run.partition) else { return true };
                let gone =
                    batches.drain(..run.count).map(|batch| batch.batch.len() + BATCH_OVERHEAD_BYTES).sum::<usize>();
                slot.bytes -= gone;
                *bytes -= gone;
                false
            });
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn drop_slot(&mut self, slot: SlotEntry) {
        self.bytes -= slot.bytes;
        for run in slot.runs {
            let Some(batches) = self.partitions.get_mut(&run.partition) else { continue };
            batches.drain(..run.count);
            if batches.is_empty() {
                self.partitions.remove(&run.partition);
            }
        }
    }

    fn run(&self, run: &SlotRun) -> Option<Vec<Arc<StoredBatch>>> {
        let batches = self.partitions.get(&run.partition)?;
        let first = batches.partition_point(|batch| batch.base < run.base);
        (batches.len() - first >= run.count).then(|| batches.range(first..first + run.count).cloned().collect())
    }
}

#[cfg(test)]
mod tests;
