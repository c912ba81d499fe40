//! The part of the façade for forks: where one leaves its source, and the reading of what it inherits (ADR 38).
//!
//! What a fork inherits is read from the partitions that hold it, each up to where its part ends. Nobody above the log can tell
//! whose records they are.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Log;
use crate::durability::{Gap, GapReason};
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, Timestamp, TopicId};
use crate::record::StoredBatch;
use crate::shard::fork::{Ancestor, ForkPoint, fork_row, only_partition};
use crate::shard::gaps;
use crate::shard::machine::partition_row;
use crate::shard::rows::PartitionRow;
use crate::wal::buffer::fork::Readable;

/// How far behind an offset a fork leaves its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    /// At the offset.
    None,
    /// So many records behind it.
    Records(u64),
    /// So many bytes of payloads behind it.
    Bytes(u64),
}

impl Log {
    /// How many forks a topic has, those with it that are about to be. A topic that was deleted has some for as long as they
    /// share its records.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn forks(&self, topic: TopicId) -> Result<u32> {
        self.inner.writer.forks(topic)
    }

    /// Stored bytes of a topic that is kept for its forks alone.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn kept_bytes(&self, topic: TopicId) -> Result<u64> {
        Ok(partition_row(&*self.inner.state, only_partition(topic))?.map_or(0, |row| row.bytes))
    }

    /// Where a fork of a partition ends that leaves it behind `anchor`, within the batch that has the record there. Cancel safe.
    ///
    /// # Errors
    /// `OutOfRange` for an offset below the start or above the tail, and behind the end of the batch. Else as [`Log::read`].
    pub async fn fork_point(&self, partition: Partition, anchor: Offset, sub: Sub) -> Result<ForkPoint> {
        let Readable { row, .. } = self.inner.writer.readable(partition)?;
        if anchor < row.start || anchor > row.tail {
            let text = format!("offset {anchor} is not within {} and {} of the partition", row.start, row.tail);
            return Err(Error::new(Kind::OutOfRange, text));
        }
        let (records, bytes) = match sub {
            Sub::None | Sub::Records(0) | Sub::Bytes(0) => return Ok(ForkPoint { at: anchor, cut: None }),
            Sub::Records(records) => (Some(records), 0),
            Sub::Bytes(bytes) => (None, bytes),
        };
        let read = self.read(partition, anchor, 1).await?;
        let batch = read.first().filter(|batch| batch.base <= anchor);
        let batch = batch.ok_or_else(|| Error::new(Kind::OutOfRange, format!("there is no record at {anchor}")))?;
        match records {
            Some(records) if records <= batch.next().0 - anchor.0 => {
                Ok(ForkPoint { at: Offset(anchor.0 + records), cut: None })
            }
            Some(records) => Err(beyond(records, "records", anchor)),
            None => point_in(batch, anchor, bytes),
        }
    }

    /// Reads what a fork inherits, from `from` on, which is below its own part; what is behind it where nothing is left of it.
    pub(super) async fn read_inherited(
        &self,
        (partition, readable): (Partition, Readable),
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        let Readable { row, own } = readable;
        let lineage = fork_row(&*self.inner.state, partition)?.lineage;
        let mut from = from;
        for ancestor in lineage.from(from) {
            let bounds = PartitionRow { start: row.start.min(from), tail: ancestor.end, ..row };
            let batches = self.inner.reader.read(ancestor.partition, &bounds, from, bytes_max).await?;
            if !batches.is_empty() {
                return shown(batches, ancestor);
            }
            from = ancestor.end;
        }
        self.inner.reader.read(partition, &row, from.max(own), bytes_max).await
    }

    /// The first offset whose record is not older than `at`, or the tail. Cancel safe.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub async fn offset_at(&self, partition: Partition, at: Timestamp) -> Result<Offset> {
        let (committed, tail) = self.inner.writer.bounds(partition)?;
        let lineage = fork_row(&*self.inner.state, partition)?.lineage;
        let (mut start, reader) = (committed.start, &self.inner.reader);
        for ancestor in lineage.from(start) {
            let bounds = PartitionRow { start, tail: ancestor.end, ..committed };
            let found = reader.offset_at(ancestor.partition, (&bounds, ancestor.end), at).await?;
            if found < ancestor.end {
                return Ok(found);
            }
            start = ancestor.end;
        }
        reader.offset_at(partition, (&PartitionRow { start, ..committed }, tail), at).await
    }

    /// The gap in which an offset lies.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn gap_at(&self, partition: Partition, offset: Offset) -> Result<Option<Gap>> {
        let (holder, end) = self.holder(partition, offset)?;
        let gap = gaps::covering(&*self.inner.state, holder, offset)?;
        Ok(gap.map(|gap| Gap { to: gap.to.min(end), ..gap }))
    }

    /// The gaps of a partition that end above `from`, ascending.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn gaps(&self, partition: Partition, from: Offset) -> Result<Vec<Gap>> {
        let state = &*self.inner.state;
        let lineage = fork_row(state, partition)?.lineage;
        let mut all = gaps::inherited(state, &lineage, from)?;
        all.extend(gaps::after(state, partition, from.max(lineage.own()))?);
        Ok(all)
    }

    /// Why offsets that a read passed over, from `from` on and all below `to`, name no record: the first of the gaps that they
    /// make up.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn passed(&self, partition: Partition, from: Offset, to: Offset) -> Result<Gap> {
        let state = &*self.inner.state;
        let (holder, end) = self.holder(partition, from)?;
        let to = to.min(end);
        if let Some(gap) = gaps::covering(state, holder, from)? {
            return Ok(Gap { from, to: gap.to.min(to), ..gap });
        }
        let lost = gaps::first_within(state, holder, from, to)?;
        Ok(Gap { from, to: lost.map_or(to, |gap| gap.from), reason: GapReason::Compacted })
    }

    /// The partition that holds an offset of a partition, and where its part ends.
    fn holder(&self, partition: Partition, offset: Offset) -> Result<(Partition, Offset)> {
        let lineage = fork_row(&*self.inner.state, partition)?.lineage;
        let holder = lineage.from(offset).first();
        Ok(holder.map_or((partition, Offset(u64::MAX)), |ancestor| (ancestor.partition, ancestor.end)))
    }
}

/// Batches of an ancestor as the fork shows them: none of what is behind its part.
fn shown(mut batches: Vec<Arc<StoredBatch>>, ancestor: &Ancestor) -> Result<Vec<Arc<StoredBatch>>> {
    let end = ancestor.end;
    if let Some(last) = batches.last_mut() {
        if last.next() > end {
            *last = Arc::new(last.part(last.base, end));
        }
        if let Some(cut) = ancestor.cut.filter(|_| last.next() == end) {
            *last = Arc::new(last.with_last_cut(cut)?);
        }
    }
    Ok(batches)
}

/// The place so many bytes behind an offset of a batch.
fn point_in(batch: &StoredBatch, anchor: Offset, bytes: u64) -> Result<ForkPoint> {
    let mut left = bytes;
    for record in batch.record_refs().filter(|record| record.offset >= anchor) {
        let len = record.payload.len() as u64;
        let at = record.offset.plus(1);
        if left < len {
            let cut = u32::try_from(left).ok().and_then(NonZeroU32::new);
            return Ok(ForkPoint { at, cut });
        }
        left -= len;
        if left == 0 {
            return Ok(ForkPoint { at, cut: None });
        }
    }
    Err(beyond(bytes, "bytes", anchor))
}

fn beyond(count: u64, what: &str, anchor: Offset) -> Error {
    let text = format!("{count} {what} behind offset {anchor} are more than were appended there at once");
    Error::new(Kind::OutOfRange, text)
}
