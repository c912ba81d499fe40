//! Reads committed batches: from the tail in memory, else by the index from the page cache and the bucket.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::PageCache;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, Timestamp};
use crate::record::StoredBatch;
use crate::segment::read::SegmentCache;
use crate::shard::gaps;
use crate::shard::rows::{IndexRow, PartitionRow, Place};
use crate::shard::{index, machine};
use crate::state::StateStore;
use crate::tail::Tail;
use crate::wal::blocks::{Block, parse_block};

/// A position is looked for by time in pieces of this size.
const OFFSET_AT_BYTES: usize = 256 * 1024;

/// Reads partitions.
pub(crate) struct Reader {
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) cache: PageCache,
    pub(crate) segments: SegmentCache,
}

impl Reader {
    /// Batches from the one that holds `from` on, up to about `bytes_max`, at least one below the tail. Cancel safe.
    ///
    /// # Errors
    /// `OutOfRange` below the start and above the tail, `Unavailable` when the bucket cannot be read, `Corrupt` when
    /// what is there is broken even after a second look.
    pub(crate) async fn read(
        &self,
        partition: Partition,
        bounds: &PartitionRow,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        if from < bounds.start || from > bounds.tail {
            return Err(out_of_range(bounds, from));
        }
        if from == bounds.tail {
            return Ok(Vec::new());
        }
        match self.read_kept(partition, from, bytes_max).await {
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
                Err(self.gone_meanwhile(partition, from)?.unwrap_or(error))
            }
            other => other,
        }
    }

    async fn read_kept(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Arc<StoredBatch>>> {
        match self.tail.read(partition, from, bytes_max) {
            Some(batches) => Ok(batches),
            // In a box: it takes kilobytes, and a follower has room for a read for as long as it waits.
            None => Box::pin(self.read_stored(partition, from, bytes_max)).await,
        }
    }

    async fn read_stored(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Arc<StoredBatch>>> {
        let (base, row) = match self.locate(partition, from) {
            Err(error) if error.kind() == Kind::Corrupt => return Err(self.gap_or(partition, from, error)),
            located => located?,
        };
        match self.read_run(partition, (base, &row), from, bytes_max).await {
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
                tracing::warn!(%partition, %from, %error, "what was read is broken, reading it again from the bucket");
                self.forget(&row).await;
                // A compaction may have put the run elsewhere since. What a trim or a deletion took is found out above.
                let (base, row) = self.locate(partition, from)?;
                self.read_run(partition, (base, &row), from, bytes_max).await.map_err(missing_is_corrupt)
            }
            other => other,
        }
    }

    async fn forget(&self, row: &IndexRow) {
        self.cache.forget(&row.object(), row.object_len).await;
        if let Place::Segment { segment, .. } = row.place {
            self.segments.forget(segment).await;
        }
    }

    /// What it means that an offset is not in the index: it lies in a gap, or the state is broken.
    fn gap_or(&self, partition: Partition, offset: Offset, missing: Error) -> Error {
        match gaps::covering(&*self.state, partition, offset) {
            Ok(Some(gap)) => {
                let text = format!("offset {offset} is in a gap of the partition, from {} to {}", gap.from, gap.to);
                Error::new(Kind::OutOfRange, text)
            }
            Ok(None) => missing,
            Err(error) => error,
        }
    }

    /// The first offset whose record is not older than `at`, or `shown`, the end of what may be read.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(crate) async fn offset_at(
        &self,
        partition: Partition,
        (bounds, shown): (&PartitionRow, Offset),
        at: Timestamp,
    ) -> Result<Offset> {
        let mut bounds = *bounds;
        loop {
            match self.offset_within(partition, (&bounds, shown.max(bounds.tail)), at).await {
                // What was looked at may have been trimmed meanwhile: look at what is left.
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::OutOfRange | Kind::NotFound) => {
                    let now =
                        machine::partition_row(&*self.state, partition)?.ok_or_else(|| no_partition(partition))?;
                    if now.start <= bounds.start {
                        return Err(error);
                    }
                    bounds = now;
                }
                other => return other,
            }
        }
    }

    async fn offset_within(
        &self,
        partition: Partition,
        (bounds, shown): (&PartitionRow, Offset),
        at: Timestamp,
    ) -> Result<Offset> {
        let readable = PartitionRow { tail: shown, ..*bounds };
        let is_older = bounds.start == bounds.tail || bounds.last_timestamp < at;
        let mut from = if is_older { bounds.tail } else { self.last_run_before(partition, bounds, at).await? };
        while from < shown {
            let batches = match self.read(partition, &readable, from, OFFSET_AT_BYTES).await {
                Err(error) if error.kind() == Kind::OutOfRange => {
                    from = gaps::covering(&*self.state, partition, from)?.ok_or(error)?.to;
                    continue;
                }
                read => read?,
            };
            for batch in batches {
                if batch.timestamp >= at {
                    return Ok(batch.base.max(bounds.start));
                }
                from = batch.next();
            }
        }
        Ok(shown)
    }

    /// Before which all committed records are older than `at`, or the start.
    async fn last_run_before(&self, partition: Partition, bounds: &PartitionRow, at: Timestamp) -> Result<Offset> {
        // Rows are ordered by offset and time alike; between them may be gaps. Find the last one that begins before `at`.
        let range = bounds.start..bounds.tail;
        let last = index::last_where(&*self.state, partition, range, |row| row.first_timestamp < at)?;
        let Some((base, row)) = last else { return Ok(bounds.start) };
        Ok(self.not_after(base, &row, at).await.max(bounds.start))
    }

    /// An offset in a run before which all records are older than `at`.
    async fn not_after(&self, base: Offset, row: &IndexRow, at: Timestamp) -> Offset {
        let Place::Segment { segment, .. } = row.place else { return base };
        // The read that follows tells what is wrong with a segment that cannot be opened.
        let opened = self.segments.open(&self.cache, segment, row).await;
        opened.map_or(base, |opened| opened.not_after(base, at))
    }

    /// The row of the run that holds `offset`, and its first offset.
    pub(crate) fn locate(&self, partition: Partition, offset: Offset) -> Result<(Offset, IndexRow)> {
        let found = index::run_at(&*self.state, partition, offset)?;
        found.ok_or_else(|| Error::new(Kind::Corrupt, format!("offset {offset} of {partition} is not in the index")))
    }

    /// What happened to an offset that was kept when the read began. Asks the state, where rows and start change at once.
    fn gone_meanwhile(&self, partition: Partition, from: Offset) -> Result<Option<Error>> {
        Ok(match machine::partition_row(&*self.state, partition)? {
            None => Some(no_partition(partition)),
            Some(row) if from < row.start => Some(out_of_range(&row, from)),
            Some(_) => None,
        })
    }

    async fn read_run(
        &self,
        partition: Partition,
        (base, row): (Offset, &IndexRow),
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        let mut taking = Taking { partition, next: base, from, bytes_max, taken: 0, out: Vec::new() };
        match row.place {
            Place::Wal { .. } => {
                let range = u64::from(row.position)..u64::from(row.position) + u64::from(row.len);
                taking.take(self.cache.read(&row.object(), row.object_len, range).await?)?;
            }
            Place::Segment { segment, .. } => {
                let opened = self.segments.open(&self.cache, segment, row).await?;
                let frames = opened.frames_from(from);
                taking.next = opened.begins(frames.start).unwrap_or(base);
                for frame in frames {
                    if taking.take(opened.read(frame).await?)? {
                        break;
                    }
                }
            }
        }
        taking.finish()
    }
}

fn no_partition(partition: Partition) -> Error {
    Error::new(Kind::NotFound, format!("there is no partition {partition}"))
}

fn out_of_range(bounds: &PartitionRow, from: Offset) -> Error {
    let text = format!("offset {from} is not within {} and {} of the partition", bounds.start, bounds.tail);
    Error::new(Kind::OutOfRange, text)
}

/// That an object is not there must not be read as that the partition is not.
fn missing_is_corrupt(error: Error) -> Error {
    if error.kind() == Kind::NotFound {
        return Error::new(Kind::Corrupt, "an object that the index names is missing").with_source(error);
    }
    error
}

/// Takes the batches of a run that a reader wants.
pub(crate) struct Taking {
    partition: Partition,
    /// The offset that the next block of the run must begin with.
    next: Offset,
    from: Offset,
    bytes_max: usize,
    taken: usize,
    out: Vec<Arc<StoredBatch>>,
}

impl Taking {
    /// All batches of `partition` that hold `from` or come after it, out of blocks of which the first begins at `next`.
    pub(crate) fn all(partition: Partition, next: Offset, from: Offset) -> Self {
        Self { partition, next, from, bytes_max: usize::MAX, taken: 0, out: Vec::new() }
    }

    /// Goes through blocks of the run; true when the reader has enough.
    pub(crate) fn take(&mut self, mut bytes: Bytes) -> Result<bool> {
        while !bytes.is_empty() {
            let (block, _, rest) = parse_block(bytes)?;
            bytes = rest;
            let Block::Records { partition: found, batch } = block else {
                return Err(self.corrupt("holds a block that is not of records"));
            };
            if found != self.partition || batch.base != self.next {
                return Err(self.corrupt("is not where the index says"));
            }
            self.next = batch.next();
            if self.next <= self.from {
                continue;
            }
            if !self.out.is_empty() && self.taken + batch.batch.len() > self.bytes_max {
                return Ok(true);
            }
            self.taken += batch.batch.len();
            self.out.push(Arc::new(batch));
        }
        Ok(self.taken >= self.bytes_max)
    }

    pub(crate) fn finish(self) -> Result<Vec<Arc<StoredBatch>>> {
        if self.out.is_empty() {
            return Err(self.corrupt("does not hold the offset that the index says"));
        }
        Ok(self.out)
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::new(Kind::Corrupt, format!("stored run of {} {what}", self.partition))
    }
}

#[cfg(test)]
mod tests;
