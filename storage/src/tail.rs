//! The newest committed batches, in memory, bounded in bytes: what live readers are served from.
//!
//! Whole slots leave, the oldest first, so a partition's batches here are always its newest ones without a hole.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ids::{Offset, Partition, TopicId};
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
    runs: Vec<(Partition, usize)>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    /// Adds the batches of a committed slot.
    pub(crate) fn push(&self, groups: Vec<(Partition, Vec<Arc<StoredBatch>>)>) {
        let mut inner = self.lock();
        let mut slot = SlotEntry { runs: Vec::with_capacity(groups.len()), bytes: 0 };
        for (partition, batches) in groups {
            slot.bytes += batches.iter().map(|batch| batch.batch.len() + BATCH_OVERHEAD_BYTES).sum::<usize>();
            slot.runs.push((partition, batches.len()));
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

    /// Forgets the partitions of a topic.
    pub(crate) fn remove_topic(&self, topic: TopicId) {
        let mut inner = self.lock();
        let Inner { partitions, slots, bytes } = &mut *inner;
        let mut freed: HashMap<Partition, VecDeque<Arc<StoredBatch>>> =
            partitions.extract_if(|partition, _| partition.topic == topic).collect();
        for slot in slots {
            slot.runs.retain(|(partition, count)| {
                let Some(batches) = freed.get_mut(partition) else { return true };
                let gone = batches.drain(..*count).map(|batch| batch.batch.len() + BATCH_OVERHEAD_BYTES).sum::<usize>();
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
        for (partition, count) in slot.runs {
            let Some(batches) = self.partitions.get_mut(&partition) else { continue };
            batches.drain(..count);
            if batches.is_empty() {
                self.partitions.remove(&partition);
            }
        }
    }
}

#[cfg(test)]
mod tests;
