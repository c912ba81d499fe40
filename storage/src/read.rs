//! Reads committed batches: from the tail in memory, else by the index from the page cache and the bucket.

use std::ops::Range;
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
    /// Batches from the one that holds `from` on, up to about `bytes_max`, at least one below the tail. Where a cleaning has
    /// taken records away the next ones come: the first batch may begin after `from`, and between batches may be holes; in
    /// one that reaches to the tail there is none. Cancel safe.
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
        match self.read_on(partition, bounds, from, bytes_max).await {
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
                Err(self.gone_meanwhile(partition, from)?.unwrap_or(error))
            }
            other => other,
        }
    }

    /// Goes on at the next run where one has nothing left from `from` on.
    async fn read_on(
        &self,
        partition: Partition,
        bounds: &PartitionRow,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        let mut at = from;
        loop {
            let batches = match self.read_kept(partition, at..bounds.tail, bytes_max).await {
                // Behind what was cleaned there may be a gap, which is as good as a hole.
                Err(error) if error.kind() == Kind::OutOfRange && at > from => {
                    at = gaps::covering(&*self.state, partition, at)?.ok_or(error)?.to;
                    Vec::new()
                }
                batches => batches?,
            };
            if !batches.is_empty() {
                return Ok(batches);
            }
            if let Some((base, row)) = index::run_at(&*self.state, partition, at)? {
                at = base.plus(row.count);
            }
            if at >= bounds.tail {
                return Ok(Vec::new());
            }
        }
    }

    /// None where a cleaning has left nothing of the run that the range begins in, from there on. What was committed since
    /// the reader was told of the tail is left for the next read: told of an offset beyond the tail, it would go back.
    async fn read_kept(
        &self,
        partition: Partition,
        range: Range<Offset>,
        bytes_max: usize,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        if let Some(batches) = self.tail.read(partition, range.clone(), bytes_max) {
            return Ok(batches);
        }
        // In a box: it takes kilobytes, and a follower has room for a read for as long as it waits.
        let mut batches = Box::pin(self.read_stored(partition, range.start, bytes_max)).await?;
        batches.truncate(batches.partition_point(|batch| batch.base < range.end));
        Ok(batches)
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
            if batches.is_empty() {
                return Ok(shown);
            }
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
        let mut taking = Taking { bytes_max, ..Taking::all(partition, (base, row), from) };
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
    /// Of a run that was cleaned: its end. Between its blocks may be holes.
    end: Option<Offset>,
    bytes_max: usize,
    taken: usize,
    out: Vec<Arc<StoredBatch>>,
}

impl Taking {
    /// All batches of a run that hold `from` or come after it, out of blocks of which the first begins at its base or, where
    /// records are missing, after it.
    pub(crate) fn all(partition: Partition, (base, row): (Offset, &IndexRow), from: Offset) -> Self {
        let end = row.kept.map(|_| base.plus(row.count));
        Self { partition, next: base, from, end, bytes_max: usize::MAX, taken: 0, out: Vec::new() }
    }

    /// Begins at a block within the run.
    pub(crate) fn beginning(self, next: Offset) -> Self {
        Self { next, ..self }
    }

    /// Goes through blocks of the run; true when the reader has enough.
    pub(crate) fn take(&mut self, mut bytes: Bytes) -> Result<bool> {
        while !bytes.is_empty() {
            let (block, _, rest) = parse_block(bytes)?;
            bytes = rest;
            let Block::Records { partition: found, batch } = block else {
                return Err(self.corrupt("holds a block that is not of records"));
            };
            let in_place = match self.end {
                Some(end) => batch.base >= self.next && batch.next() <= end,
                None => batch.base == self.next,
            };
            if found != self.partition || !in_place {
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
        if self.out.is_empty() && self.end.is_none() {
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
