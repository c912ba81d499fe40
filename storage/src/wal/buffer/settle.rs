//! The outcome of a buffer: what is committed is noted, and what will not be is taken back.

use super::{Core, OpenBuffer, PARTITIONS_KEPT_MAX};
use crate::ids::{Partition, PartitionIndex};
use crate::shard::changes::Entry;
use crate::shard::fork::only_partition;
use crate::shard::rows::PartitionRow;

impl Core {
    /// The committed rows of partitions, in order; `None` for those that nobody has looked at lately.
    pub(crate) fn committed_rows(&self, partitions: impl Iterator<Item = Partition>) -> Vec<Option<PartitionRow>> {
        partitions.map(|partition| self.partitions.get(&partition).map(|tail| tail.committed)).collect()
    }

    /// Notes that the buffer `sequence` is committed and applied.
    pub(crate) fn committed_up_to(&mut self, sequence: u64, rows: &[(Partition, PartitionRow)], entries: &[Entry]) {
        for (partition, row) in rows {
            if let Some(tail) = self.partitions.get_mut(partition) {
                tail.committed = *row;
                tail.shown = tail.shown.max(row.tail);
            }
        }
        while self.unstored.front().is_some_and(|(buffer, _)| *buffer <= sequence) {
            self.unstored.pop_front();
        }
        for entry in entries {
            match entry {
                Entry::PutDocument { key, .. } | Entry::DeleteDocument { key } => self.settle(key, |s| s > sequence),
                Entry::DeleteTopic { topic } => {
                    for index in 0..self.deleting.remove(topic).unwrap_or(0) {
                        let partition = Partition { topic: *topic, index: PartitionIndex(index) };
                        self.partitions.remove(&partition);
                        self.reserved.remove(&partition);
                    }
                }
                Entry::ForkTopic { begin, .. } => self.settle_forks(begin.source, |s| s > sequence),
                Entry::Produced { .. } | Entry::Keyed { .. } | Entry::Fenced { .. } => {
                    self.remembered.settle(entry, |s| s > sequence);
                }
                Entry::StreamStep { partition, step } => {
                    self.remembered.settle(entry, |s| s > sequence);
                    if let Some(tail) = self.partitions.get_mut(partition) {
                        tail.closed |= step.closed.is_some();
                    }
                }
                Entry::Reserve { partition, to, .. } => self.reserved_up_to(sequence, *partition, *to),
                Entry::CreateTopic { .. }
                | Entry::Acquire { .. }
                | Entry::SetRetention { .. }
                | Entry::SetCleanup { .. }
                | Entry::Trim { .. }
                | Entry::Gap { .. }
                | Entry::Link(_)
                | Entry::Cleaned(_) => {}
            }
        }
    }

    /// Forgets the idle partitions, with the memory that they took.
    pub(super) fn forget_idle(&mut self) {
        let reserved = &self.reserved;
        self.partitions.retain(|partition, tail| !tail.is_idle() || reserved.contains_key(partition));
        self.partitions.shrink_to(PARTITIONS_KEPT_MAX);
        // Those that are in use are not looked through again for each that comes.
        self.partitions_max = PARTITIONS_KEPT_MAX.max(2 * self.partitions.len());
    }

    /// Takes back what an entry of the buffer `sequence` did, which will not be committed.
    pub(super) fn undo_entry(&mut self, sequence: u64, entry: &Entry) {
        match entry {
            Entry::PutDocument { key, .. } | Entry::DeleteDocument { key } => self.settle(key, |s| s != sequence),
            Entry::DeleteTopic { topic } => {
                self.deleting.remove(topic);
            }
            Entry::Produced { .. } | Entry::Keyed { .. } | Entry::Fenced { .. } => {
                self.remembered.undo(sequence, entry);
            }
            Entry::StreamStep { partition, .. } => {
                self.remembered.undo(sequence, entry);
                self.recount_closing(*partition);
            }
            // Of one that is made with records its first partition is known already.
            Entry::CreateTopic { topic, partitions } => {
                for index in 0..*partitions {
                    self.partitions.remove(&Partition { topic: *topic, index: PartitionIndex(index) });
                }
            }
            Entry::ForkTopic { topic, begin } => {
                self.settle_forks(begin.source, |s| s != sequence);
                self.partitions.remove(&only_partition(*topic));
            }
            Entry::Reserve { partition, to, .. } => self.not_reserved(sequence, *partition, *to),
            Entry::Acquire { .. }
            | Entry::SetRetention { .. }
            | Entry::SetCleanup { .. }
            | Entry::Trim { .. }
            | Entry::Gap { .. }
            | Entry::Link(_)
            | Entry::Cleaned(_) => {}
        }
    }

    /// The offsets of a buffer that was never sent are free again.
    pub(crate) fn give_back(&mut self, buffer: &OpenBuffer) {
        for (partition, batches) in &buffer.groups {
            if let (Some(tail), Some(first)) = (self.partitions.get_mut(partition), batches.first()) {
                tail.next = first.base;
            }
        }
    }
}
