//! Forks: what a change that makes one depends on, and what a topic with forks does not allow.

use super::{Core, PartitionTail, no_partition};
use crate::cleanup::Cleanup;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, TopicId};
use crate::layout;
use crate::shard::changes::{Change, Entry, TopicOp};
use crate::shard::clean::CleanRow;
use crate::shard::fork::{Begin, FORK_DEPTH_MAX, fork_row, has_forks, only_partition};
use crate::shard::machine;
use crate::shard::rows::PartitionRow;
use crate::state::StateStore;

/// What may be read of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readable {
    /// Its bounds, of which the end is that of what may be read.
    pub(crate) row: PartitionRow,
    /// What is below this stands in other partitions.
    pub(crate) own: Offset,
}

impl Readable {
    /// Whether the record at an offset stands in another partition.
    pub(crate) fn inherits(&self, offset: Offset) -> bool {
        self.row.start <= offset && offset < self.own
    }
}

impl Core {
    /// What may be read of a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub(crate) fn readable(&mut self, state: &dyn StateStore, partition: Partition) -> Result<Readable> {
        let (row, shown) = self.bounds(state, partition)?;
        Ok(Readable { row: PartitionRow { tail: shown, ..row }, own: self.tail(state, partition)?.own })
    }

    /// How many forks a topic has, as the next change would find it. Between a commit and the word of it this may be one too
    /// many, and never one too few: what is pending is looked at before what is stored, what leaves after it.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn forks(&self, state: &dyn StateStore, topic: TopicId) -> Result<u32> {
        let source = only_partition(topic);
        let mut forks = 0;
        for (_, fork) in self.forking.get(&source).into_iter().flatten() {
            forks += u32::from(machine::topic_row(state, *fork)?.is_none());
        }
        let stored = fork_row(state, source)?.forks;
        if stored == 0 {
            return Ok(forks);
        }
        forks += stored;
        for leaving in self.deleting.keys() {
            let is_one = fork_row(state, only_partition(*leaving))?.source == Some(source);
            forks = forks.saturating_sub(u32::from(is_one && !has_forks(state, *leaving)?));
        }
        Ok(forks)
    }

    /// Checks what forks depend on and what depends on there being none, and notes the times of the forks.
    pub(super) fn check_forks(&mut self, state: &dyn StateStore, entries: &mut [Entry]) -> Result<()> {
        for entry in entries {
            if let Entry::ForkTopic { begin, .. } = entry {
                self.check_fork(state, begin)?;
            } else if let Entry::SetCleanup { topic, cleanup: Cleanup::Compact } = entry {
                let is_fork = fork_row(state, only_partition(*topic))?.source.is_some();
                if is_fork || self.forks(state, *topic)? > 0 {
                    let text = "records that forks share cannot be cleaned up by key";
                    return Err(Error::new(Kind::Conflict, text));
                }
            }
        }
        Ok(())
    }

    /// Refuses to take records away that forks share.
    pub(super) fn check_unshared(&self, state: &dyn StateStore, partition: Partition) -> Result<()> {
        let forks = if partition == only_partition(partition.topic) { self.forks(state, partition.topic)? } else { 0 };
        if forks == 0 || planted!(ForkTrimmed) {
            return Ok(());
        }
        Err(Error::new(Kind::Conflict, format!("records are shared with forks, of which there are {forks}")))
    }

    fn check_fork(&mut self, state: &dyn StateStore, begin: &mut Begin) -> Result<()> {
        let source = begin.source;
        let tail = *self.tail(state, source)?;
        // One that is not committed yet has no row that says what it begins with.
        let topic = machine::topic_row(state, source.topic)?.ok_or_else(|| no_partition(source))?;
        if topic.partitions != 1 {
            return Err(Error::new(Kind::Invalid, "only a topic of one partition has forks"));
        }
        if CleanRow::load(state, source)?.is_some() || state.get(&layout::cleanup_key(source.topic))?.is_some() {
            return Err(Error::new(Kind::Conflict, "a topic whose records are cleaned up by key has no forks"));
        }
        let at = begin.point.at;
        if at < tail.committed.start || at > tail.shown {
            let (start, end) = (tail.committed.start, tail.shown);
            return Err(Error::new(Kind::OutOfRange, format!("offset {at} is not within {start} and {end}")));
        }
        if fork_row(state, source)?.lineage.of_fork(source, begin.point).len() > FORK_DEPTH_MAX {
            let text = format!("a fork would share records of more than {FORK_DEPTH_MAX} topics");
            return Err(Error::new(Kind::Invalid, text));
        }
        begin.timestamp = tail.last_timestamp;
        Ok(())
    }

    /// What a partition is that a change makes.
    pub(super) fn begun(
        &mut self,
        state: &dyn StateStore,
        change: &Change,
        partition: Partition,
    ) -> Result<PartitionTail> {
        let fork = change.topics.iter().find_map(|op| match op {
            TopicOp::Fork { topic, source, point } if *topic == partition.topic => Some((*source, *point)),
            TopicOp::Create { .. }
            | TopicOp::Delete { .. }
            | TopicOp::Fork { .. }
            | TopicOp::SetRetention { .. }
            | TopicOp::SetCleanup { .. } => None,
        });
        let Some((source, point)) = fork else { return Ok(PartitionTail::of(PartitionRow::default(), false)) };
        let source = *self.tail(state, only_partition(source))?;
        let row = PartitionRow {
            start: source.committed.start.min(point.at),
            tail: point.at,
            last_timestamp: source.last_timestamp,
            ..PartitionRow::default()
        };
        Ok(PartitionTail { own: point.at, ..PartitionTail::of(row, false) })
    }

    /// Notes a fork that will be there when the buffer `sequence` is committed.
    pub(super) fn note_fork(&mut self, source: Partition, fork: TopicId, sequence: u64) {
        self.forking.entry(source).or_default().push((sequence, fork));
    }

    /// Forgets what was noted of the forks of a partition but for the buffers that `keep` names.
    pub(super) fn settle_forks(&mut self, source: Partition, keep: impl Fn(u64) -> bool) {
        if let Some(forking) = self.forking.get_mut(&source) {
            forking.retain(|(sequence, _)| keep(*sequence));
            if forking.is_empty() {
                self.forking.remove(&source);
            }
        }
    }
}
