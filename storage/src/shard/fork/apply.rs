//! How the entries of one slot change what partitions share: forks that begin, and topics that are deleted.
//!
//! A topic that has forks when it is deleted stays without a name: its records, until the last of its forks goes. That one takes it
//! along, and its source with it if that stays only for forks, and so on up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Begin, ForkRow, fork_row, only_partition};
use crate::error::Result;
use crate::ids::{Offset, Partition, TopicId};
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::machine;
use crate::shard::rows::{PartitionRow, Row, TopicRow};
use crate::state::{StateOp, StateStore};

/// More rows of a kind than this go as a range when their topic is deleted.
const ROWS_ONE_BY_ONE: usize = 64;

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

/// What goes with topics that are deleted. Most have few rows, which go one by one: reads of the local state look through all
/// ranges that were deleted lately, and a million streams that end would be nine million of them.
struct Taken<'a> {
    state: &'a dyn StateStore,
    /// Keys that the slot itself has set before.
    put: BTreeSet<Bytes>,
    ops: Vec<StateOp>,
}

impl<'a> Taken<'a> {
    fn of(state: &'a dyn StateStore, before: &[StateOp]) -> Self {
        let put = before.iter().filter_map(|op| match op {
            StateOp::Put(key, _) => Some(key.clone()),
            StateOp::Delete(_) | StateOp::DeleteRange(..) => None,
        });
        Self { state, put: put.collect(), ops: Vec::new() }
    }

    fn keys(&mut self, keys: impl IntoIterator<Item = Bytes>) {
        self.ops.extend(keys.into_iter().map(StateOp::Delete));
    }

    fn range(&mut self, (from, to): (Bytes, Bytes)) -> Result<()> {
        let rows = self.state.scan(&from, &to, ROWS_ONE_BY_ONE + 1)?;
        if rows.len() > ROWS_ONE_BY_ONE {
            self.ops.push(StateOp::DeleteRange(from, to));
            return Ok(());
        }
        let put = self.put.range(from..to).cloned();
        let keys: Vec<Bytes> = rows.into_iter().map(|(key, _)| key).chain(put).collect();
        self.keys(keys);
        Ok(())
    }
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
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn finish(self, ops: &mut Vec<StateOp>) -> Result<()> {
        for partition in self.begun.keys() {
            ops.push(StateOp::Put(layout::topic_key(partition.topic), TopicRow { partitions: 1 }.encode()));
        }
        for (partition, row) in self.rows {
            let key = layout::fork_key(partition);
            let is_empty = row == ForkRow::default();
            ops.push(if is_empty { StateOp::Delete(key) } else { StateOp::Put(key, row.encode()) });
        }
        if self.deleted.is_empty() {
            return Ok(());
        }
        let mut taken = Taken::of(self.state, ops);
        for (topic, deleted) in self.deleted {
            taken.keys([layout::topic_key(topic), layout::retention_key(topic), layout::cleanup_key(topic)]);
            match deleted {
                Deleted::Whole => layout::topic_ranges(topic).into_iter().try_for_each(|range| taken.range(range))?,
                Deleted::Kept => {
                    layout::unshared_ranges(topic).into_iter().try_for_each(|range| taken.range(range))?;
                    taken.keys([layout::reservation_key(only_partition(topic))]);
                }
            }
        }
        ops.extend(taken.ops);
        Ok(())
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
