//! How the entries of one slot change what partitions share: forks that begin, and topics that are deleted.
//!
//! A topic that has forks when it is deleted stays without a name: its records, until the last of its forks goes. That one takes it
//! along, and its source with it if that stays only for forks, and so on up.

use std::collections::BTreeMap;

use super::{Begin, ForkRow, fork_row, only_partition};
use crate::error::Result;
use crate::ids::{Offset, Partition, TopicId};
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::machine;
use crate::shard::rows::{PartitionRow, Row, TopicRow};
use crate::state::{StateOp, StateStore};

/// What one slot does to what partitions share.
pub(crate) struct Forks<'a> {
    state: &'a dyn StateStore,
    /// The forks that begin in the slot, before its records.
    begun: BTreeMap<Partition, PartitionRow>,
    rows: BTreeMap<Partition, ForkRow>,
    deleted: BTreeMap<TopicId, Deleted>,
}

/// What is left of a topic that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deleted {
    Whole,
    /// Its records are: it has forks.
    Kept,
}

impl<'a> Forks<'a> {
    /// What the entries of a slot do, whose trims move these starts.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn of(
        state: &'a dyn StateStore,
        entries: &[Entry],
        starts: &BTreeMap<Partition, Offset>,
    ) -> Result<Self> {
        let mut forks = Self { state, begun: BTreeMap::new(), rows: BTreeMap::new(), deleted: BTreeMap::new() };
        for entry in entries {
            if let Entry::ForkTopic { topic, begin } = entry {
                forks.begin(only_partition(*topic), begin, starts.get(&begin.source))?;
            } else if let Entry::DeleteTopic { topic } = entry {
                forks.take_away(*topic)?;
            }
        }
        Ok(forks)
    }

    /// The row that a partition has before the slot's records, if it is a fork that begins in it.
    pub(crate) fn begun(&self, partition: Partition) -> Option<PartitionRow> {
        self.begun.get(&partition).copied()
    }

    /// All of these.
    pub(crate) fn all_begun(&self) -> impl Iterator<Item = (Partition, PartitionRow)> {
        self.begun.iter().map(|(partition, row)| (*partition, *row))
    }

    /// The changes of the state; they come after all others of the slot.
    pub(crate) fn finish(self, ops: &mut Vec<StateOp>) {
        for partition in self.begun.keys() {
            ops.push(StateOp::Put(layout::topic_key(partition.topic), TopicRow { partitions: 1 }.encode()));
        }
        for (partition, row) in self.rows {
            let key = layout::fork_key(partition);
            let is_empty = row == ForkRow::default();
            ops.push(if is_empty { StateOp::Delete(key) } else { StateOp::Put(key, row.encode()) });
        }
        for (topic, deleted) in self.deleted {
            ops.push(StateOp::Delete(layout::topic_key(topic)));
            ops.push(StateOp::Delete(layout::retention_key(topic)));
            ops.push(StateOp::Delete(layout::cleanup_key(topic)));
            let range = |(from, to)| StateOp::DeleteRange(from, to);
            match deleted {
                Deleted::Whole => ops.extend(layout::topic_ranges(topic).map(range)),
                Deleted::Kept => {
                    ops.extend(layout::unshared_ranges(topic).map(range));
                    ops.push(StateOp::Delete(layout::reservation_key(only_partition(topic))));
                }
            }
        }
    }

    /// `trimmed` is where the slot moves the start of the source, which it only does while there are no forks.
    fn begin(&mut self, fork: Partition, begin: &Begin, trimmed: Option<&Offset>) -> Result<()> {
        let Begin { source, point, timestamp } = *begin;
        let had_forks = fork_row(self.state, source)?.forks > 0;
        let trimmed = trimmed.copied().filter(|_| !had_forks);
        let source_row = machine::partition_row(self.state, source)?.unwrap_or_default();
        let start = source_row.start.max(trimmed.unwrap_or_default()).min(point.at);
        let shared = self.row(source)?;
        shared.forks += 1;
        let lineage = shared.lineage.of_fork(source, point);
        self.rows.insert(fork, ForkRow { forks: 0, source: Some(source), lineage });
        let row = PartitionRow { start, tail: point.at, last_timestamp: timestamp, ..PartitionRow::default() };
        self.begun.insert(fork, row);
        Ok(())
    }

    fn take_away(&mut self, topic: TopicId) -> Result<()> {
        let mut next = Some(topic);
        while let Some(topic) = next.take() {
            if self.deleted.get(&topic) == Some(&Deleted::Whole) {
                return Ok(());
            }
            let partition = only_partition(topic);
            if self.row(partition)?.forks > 0 && !planted!(SourceGone) {
                self.deleted.insert(topic, Deleted::Kept);
                return Ok(());
            }
            let row = self.rows.remove(&partition).unwrap_or_default();
            self.deleted.insert(topic, Deleted::Whole);
            let Some(source) = row.source else { return Ok(()) };
            let shared = self.row(source)?;
            if shared.forks == 0 {
                return Ok(());
            }
            shared.forks -= 1;
            let is_last = shared.forks == 0 && !planted!(SourceLeft);
            next = (is_last && !self.is_named(source.topic)?).then_some(source.topic);
        }
        Ok(())
    }

    /// Whether a topic is there by itself, and not only for its forks.
    fn is_named(&self, topic: TopicId) -> Result<bool> {
        Ok(!self.deleted.contains_key(&topic) && machine::topic_row(self.state, topic)?.is_some())
    }

    fn row(&mut self, partition: Partition) -> Result<&mut ForkRow> {
        match self.rows.entry(partition) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => Ok(entry.insert(fork_row(self.state, partition)?)),
        }
    }
}
