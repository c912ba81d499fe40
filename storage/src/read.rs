//! Reads committed batches: from the tail in memory, else by the index from the page cache and the bucket.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::PageCache;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, Timestamp};
use crate::layout;
use crate::record::StoredBatch;
use crate::shard::rows::{IndexRow, PartitionRow, Row};
use crate::state::StateStore;
use crate::tail::Tail;
use crate::wal::blocks::{Block, parse_block};

/// Reads partitions.
pub(crate) struct Reader {
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) cache: PageCache,
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
            let text = format!("offset {from} is not within {} and {} of the partition", bounds.start, bounds.tail);
            return Err(Error::new(Kind::OutOfRange, text));
        }
        if from == bounds.tail {
            return Ok(Vec::new());
        }
        if let Some(batches) = self.tail.read(partition, from, bytes_max) {
            return Ok(batches);
        }
        let (base, row) = self.locate(partition, from)?;
        match self.read_run(partition, (base, &row), from, bytes_max).await {
            Err(error) if error.kind() == Kind::Corrupt => {
                tracing::warn!(%partition, %from, %error, "what was read is broken, reading it again from the bucket");
                self.cache.forget(&layout::wal(row.session, row.slot), row.object_len).await;
                self.read_run(partition, (base, &row), from, bytes_max).await
            }
            other => other,
        }
    }

    /// The first offset whose record is not older than `at`, or the tail.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(crate) async fn offset_at(&self, partition: Partition, bounds: &PartitionRow, at: Timestamp) -> Result<Offset> {
        if bounds.start == bounds.tail || bounds.last_timestamp < at {
            return Ok(bounds.tail);
        }
        // Rows are ordered by offset and time alike: find the last one that begins before `at`.
        let (mut low, mut high) = (bounds.start.0, bounds.tail.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let (base, row) = self.locate(partition, Offset(middle))?;
            if row.first_timestamp < at {
                low = base.plus(row.count).0;
            } else {
                high = base.0;
            }
        }
        let mut from = match low.checked_sub(1) {
            Some(before) if before >= bounds.start.0 => self.locate(partition, Offset(before))?.0.max(bounds.start),
            Some(_) | None => bounds.start,
        };
        while from < bounds.tail {
            for batch in self.read(partition, bounds, from, 1).await? {
                if batch.timestamp >= at {
                    return Ok(batch.base.max(bounds.start));
                }
                from = batch.next();
            }
        }
        Ok(bounds.tail)
    }

    fn locate(&self, partition: Partition, offset: Offset) -> Result<(Offset, IndexRow)> {
        let from = layout::index_key(partition, Offset(0));
        let row = self.state.last_at_or_before(&from, &layout::index_key(partition, offset))?;
        let missing = || Error::new(Kind::Corrupt, format!("offset {offset} of {partition} is not in the index"));
        let (key, value) = row.ok_or_else(missing)?;
        let base = layout::index_base(&key).ok_or_else(missing)?;
        let row = IndexRow::parse(value)?;
        if base.plus(row.count) <= offset {
            return Err(missing());
        }
        Ok((base, row))
    }

    async fn read_run(
        &self,
        partition: Partition,
        (base, row): (Offset, &IndexRow),
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        let path = layout::wal(row.session, row.slot);
        let range = u64::from(row.position)..u64::from(row.position) + u64::from(row.len);
        let bytes = self.cache.read(&path, row.object_len, range).await?;
        parse_run(partition, base, bytes, from, bytes_max)
    }
}

fn parse_run(
    partition: Partition,
    base: Offset,
    mut bytes: Bytes,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<Arc<StoredBatch>>> {
    let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("stored run of {partition} {what}"));
    let (mut out, mut taken, mut next) = (Vec::new(), 0, base);
    while !bytes.is_empty() {
        let (block, _, rest) = parse_block(bytes)?;
        bytes = rest;
        let Block::Records { partition: found, batch } = block else {
            return Err(corrupt("holds a block that is not of records"));
        };
        if found != partition || batch.base != next {
            return Err(corrupt("is not where the index says"));
        }
        next = batch.next();
        if next <= from {
            continue;
        }
        if !out.is_empty() && taken + batch.batch.len() > bytes_max {
            break;
        }
        taken += batch.batch.len();
        out.push(Arc::new(batch));
    }
    if out.is_empty() { Err(corrupt("does not hold the offset that the index says")) } else { Ok(out) }
}
