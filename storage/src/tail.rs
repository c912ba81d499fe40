//! The newest committed batches, in memory, bounded in bytes: what live readers are served from.
//!
//! Whole slots leave, the oldest first, so a partition's batches here are always its newest ones without a hole, but for
//! gaps. Beside them stand those that are shown before they are committed (ADR 18): nowhere else can they be read from, so
//! they do not leave before; the writer's room bounds them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ids::{Offset, Partition, Slot, TopicId};
use crate::record::StoredBatch;

/// What a batch costs in memory besides its bytes: the structures around it.
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 256;
/// What a slot costs in memory besides its runs. One without any counts, too: so the list of slots is bounded.
const SLOT_OVERHEAD_BYTES: usize = 64;

/// The committed tail of all partitions.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In order, so that those of a topic stand side by side.
    partitions: BTreeMap<Partition, Committed>,
    /// Shown and not committed.
    early: BTreeMap<Partition, VecDeque<Arc<StoredBatch>>>,
    slots: VecDeque<SlotEntry>,
    bytes: usize,
    /// Of all that was ever added.
    pushed: u64,
}

/// Of one partition.
#[derive(Debug, Default)]
struct Committed {
    batches: VecDeque<Arc<StoredBatch>>,
    /// How many have left before these.
    left: u64,
}

#[derive(Debug)]
struct SlotEntry {
    slot: Slot,
    /// Those of topics that were deleted since stay.
    runs: Vec<SlotRun>,
}

#[derive(Debug)]
struct SlotRun {
    partition: Partition,
    base: Offset,
    /// How many batches of the partition were here before it, those that have left among them.
    at: u64,
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
        let mut slot = SlotEntry { slot, runs: Vec::with_capacity(groups.len()) };
        let before = inner.bytes;
        for (partition, batches) in groups {
            let Some(base) = batches.first().map(|batch| batch.base) else { continue };
            inner.bytes += cost(&batches);
            inner.committed(partition, &batches);
            let committed = inner.partitions.entry(partition).or_default();
            let at = committed.left + committed.batches.len() as u64;
            slot.runs.push(SlotRun { partition, base, at, count: batches.len() });
            committed.batches.extend(batches);
        }
        inner.bytes += slot.overhead();
        inner.pushed += (inner.bytes - before) as u64;
        inner.slots.push_back(slot);
        while inner.bytes > self.bytes_max {
            let Some(oldest) = inner.slots.pop_front() else { break };
            inner.drop_slot(oldest);
        }
    }

    /// Adds a batch that is shown before it is committed; those before it were.
    pub(crate) fn show(&self, partition: Partition, batch: Arc<StoredBatch>) {
        self.lock().early.entry(partition).or_default().push_back(batch);
    }

    /// Batches from the one that holds the first offset of `range` on, up to its end and to about `bytes_max`, or `None`
    /// when that one is not here. They stand side by side: at a gap the read ends.
    pub(crate) fn read(
        &self,
        partition: Partition,
        range: Range<Offset>,
        bytes_max: usize,
    ) -> Option<Vec<Arc<StoredBatch>>> {
        let from = range.start;
        let inner = self.lock();
        let committed = inner.partitions.get(&partition).map(|committed| &committed.batches);
        let early = inner.early.get(&partition);
        let (mut out, mut bytes, mut next) = (Vec::new(), 0, None);
        for batch in [committed, early].into_iter().flatten().flat_map(|batches| from_on(batches, from)) {
            let full = !out.is_empty() && bytes + batch.batch.len() > bytes_max;
            let apart = next.map_or(batch.base > from, |next| next != batch.base);
            // More may be here by now than the reader was told of.
            if full || apart || batch.base >= range.end {
                break;
            }
            bytes += batch.batch.len();
            next = Some(batch.next());
            out.push(Arc::clone(batch));
        }
        (!out.is_empty()).then_some(out)
    }

    /// Whether the record at `offset` is here.
    pub(crate) fn holds(&self, partition: Partition, offset: Offset) -> bool {
        let inner = self.lock();
        let batches = inner.partitions.get(&partition).map(|committed| &committed.batches);
        let ends = batches.and_then(|batches| Some((batches.front()?.base, batches.back()?.next())));
        ends.is_some_and(|(base, next)| base <= offset && offset < next)
    }

    /// The batches of a slot of this session, without those of topics that are gone; `None` when it is not here.
    pub(crate) fn slot(&self, slot: Slot) -> Option<SlotBatches> {
        let inner = self.lock();
        let at = inner.slots.partition_point(|entry| entry.slot < slot);
        let entry = inner.slots.get(at).filter(|entry| entry.slot == slot)?;
        Some(entry.runs.iter().filter_map(|run| Some((run.partition, inner.run(run)?))).collect())
    }

    /// Forgets the partitions of a topic.
    pub(crate) fn remove_topic(&self, topic: TopicId) {
        let mut inner = self.lock();
        inner.early.extract_if(topic.partitions(), |_, _| true).for_each(drop);
        let gone: Vec<_> = inner.partitions.extract_if(topic.partitions(), |_, _| true).collect();
        inner.bytes -= gone.iter().map(|(_, committed)| cost(&committed.batches)).sum::<usize>();
    }

    /// Forgets what of a partition is committed below the end of one of its slots' runs: what is left of it is read from
    /// segments.
    pub(crate) fn forget(&self, partition: Partition, below: Offset) {
        let mut inner = self.lock();
        let Inner { partitions, slots, bytes, .. } = &mut *inner;
        let Some(committed) = partitions.get_mut(&partition) else { return };
        for slot in slots {
            slot.runs.retain(|run| {
                if run.partition != partition || run.base >= below {
                    return true;
                }
                *bytes -= committed.drop_first(run.count) + size_of::<SlotRun>();
                false
            });
        }
        if committed.batches.is_empty() {
            partitions.remove(&partition);
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Bytes of all that was ever added, as they count here.
    pub(crate) fn pushed(&self) -> u64 {
        self.lock().pushed
    }

    /// Most bytes that are held.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max as u64
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotEntry {
    fn overhead(&self) -> usize {
        SLOT_OVERHEAD_BYTES + self.runs.len() * size_of::<SlotRun>()
    }
}

impl Inner {
    /// These are committed, and no longer among those that are not.
    fn committed(&mut self, partition: Partition, batches: &[Arc<StoredBatch>]) {
        let (Some(early), Some(last)) = (self.early.get_mut(&partition), batches.last()) else { return };
        while early.front().is_some_and(|batch| batch.base <= last.base) {
            early.pop_front();
        }
        if early.is_empty() {
            self.early.remove(&partition);
        }
    }

    fn drop_slot(&mut self, slot: SlotEntry) {
        self.bytes -= slot.overhead();
        for run in slot.runs {
            let Some(committed) = self.partitions.get_mut(&run.partition) else { continue };
            self.bytes -= committed.drop_first(run.count);
            if committed.batches.is_empty() {
                self.partitions.remove(&run.partition);
            }
        }
    }

    fn run(&self, run: &SlotRun) -> Option<Vec<Arc<StoredBatch>>> {
        let Committed { batches, left } = self.partitions.get(&run.partition)?;
        let first = usize::try_from(run.at.checked_sub(*left)?).ok()?;
        batches.get(first).filter(|batch| batch.base == run.base)?;
        (batches.len() - first >= run.count).then(|| batches.range(first..first + run.count).cloned().collect())
    }
}

impl Committed {
    /// Lets the first batches go; gives what they cost.
    fn drop_first(&mut self, count: usize) -> usize {
        self.left += count as u64;
        self.batches.drain(..count).map(|batch| batch.batch.len() + BATCH_OVERHEAD_BYTES).sum()
    }
}

fn cost<'a>(batches: impl IntoIterator<Item = &'a Arc<StoredBatch>>) -> usize {
    batches.into_iter().map(|batch| batch.batch.len() + BATCH_OVERHEAD_BYTES).sum()
}

/// The batches from the one that holds `from` on.
fn from_on(batches: &VecDeque<Arc<StoredBatch>>, from: Offset) -> impl Iterator<Item = &Arc<StoredBatch>> {
    batches.range(batches.partition_point(|batch| batch.next() <= from)..)
}

#[cfg(test)]
mod tests;
