//! The part of the façade that reads: anywhere, and in order, for which the log reads ahead (ADR 10).

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Bounds, Log};
use crate::ahead::Scan;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, TopicId};
use crate::record::StoredBatch;
use crate::shard::fork::only_partition;
use crate::shard::machine::{partition_row, topic_row};
use crate::shard::{clean, gaps};

/// The bounds of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicBounds {
    /// By partition.
    pub partitions: Vec<Bounds>,
    /// Offsets of all partitions, from their starts on, that name no record.
    pub missing: u64,
}

impl TopicBounds {
    /// Stored bytes of all partitions that are kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.partitions.iter().map(|bounds| bounds.bytes).sum()
    }

    /// Records of all partitions that are kept.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.partitions.iter().map(|bounds| bounds.tail.0 - bounds.start.0).sum::<u64>().saturating_sub(self.missing)
    }
}

impl Log {
    /// Stored bytes of a topic that are kept. Looks its partitions up in the local state, beside those who write.
    ///
    /// # Errors
    /// As [`Log::topic_bounds`].
    pub fn stored_bytes(&self, topic: TopicId) -> Result<u64> {
        let state = &*self.inner.state;
        let row = topic_row(state, topic)?;
        let row = row.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no topic {}", topic.0)))?;
        let all = (0..row.partitions).map(|index| Partition { topic, index: PartitionIndex(index) });
        all.map(|partition| Ok(partition_row(state, partition)?.map_or(0, |row| row.bytes))).sum()
    }

    /// The bounds of all `partitions` of a topic. Looks each of them up in the local state: of many, apart from what must not
    /// wait.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic, `Corrupt` when the local state is broken.
    pub fn topic_bounds(&self, topic: TopicId, partitions: u32) -> Result<TopicBounds> {
        let all = (0..partitions).map(|index| self.bounds(Partition { topic, index: PartitionIndex(index) }));
        let partitions = all.collect::<Result<Vec<_>>>()?;
        let mut missing = clean::missing(&*self.inner.state, topic, &partitions)?;
        if let [bounds] = &partitions[..] {
            missing += gaps::missing_inherited(&*self.inner.state, only_partition(topic), bounds.start)?;
        }
        Ok(TopicBounds { partitions, missing })
    }

    /// Batches from the one that holds `from` on, up to about `bytes_max` bytes; at least one when `from` is
    /// below the tail, none at the tail. The first may begin before `from`. Where a cleaning by key has taken records away the next
    /// ones come: the first may begin after `from`, and between batches may be holes ([`Log::passed`]); where one reaches to
    /// the tail there is none. Cancel safe.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition, `OutOfRange` below its start, above its tail and in a gap, `Unavailable` when
    /// the bucket cannot be read, `Corrupt` when what is stored is broken.
    pub async fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Arc<StoredBatch>>> {
        let readable = self.inner.writer.readable(partition)?;
        if readable.inherits(from) {
            return Box::pin(self.read_inherited((partition, readable), from, bytes_max)).await;
        }
        self.inner.reader.read(partition, &readable.row, from, bytes_max).await
    }

    /// As [`Log::read`], for a reader that goes on in order: it is read ahead for, but not within what a fork inherits.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub async fn read_on(&self, scan: &mut Scan, from: Offset, bytes_max: usize) -> Result<Vec<Arc<StoredBatch>>> {
        let readable = self.inner.writer.readable(scan.partition())?;
        if readable.inherits(from) {
            return Box::pin(self.read_inherited((scan.partition(), readable), from, bytes_max)).await;
        }
        self.inner.ahead.read(scan, &readable.row, from, bytes_max).await
    }

    /// A reader of `partition` at `from`, which goes on with what was read ahead for the one that was parked there.
    #[must_use]
    pub fn reader_at(&self, partition: Partition, from: Offset) -> Scan {
        self.inner.ahead.scan(partition, from)
    }

    /// Keeps a reader for a client that has none of its own and will likely go on at `next`; `rest` is what was read for it
    /// and not used.
    pub fn park(&self, scan: Scan, next: Offset, rest: VecDeque<Arc<StoredBatch>>) {
        self.inner.ahead.park(scan, next, rest);
    }
}
