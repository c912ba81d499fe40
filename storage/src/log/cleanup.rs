//! The part of the façade that knows of records that a cleaning by key took away (ADR 20).

use super::Log;
use crate::error::Result;
use crate::ids::{Offset, Partition};
use crate::shard::clean;

impl Log {
    /// How many offsets of a partition from its start on name no record. A run that the start is in counts whole where it was
    /// cleaned.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition, `Corrupt` when the local state is broken.
    pub fn missing(&self, partition: Partition) -> Result<u64> {
        let (row, _) = self.inner.writer.bounds(partition)?;
        let gaps = self.gaps(partition, row.start)?.into_iter();
        let gaps: u64 = gaps.map(|gap| gap.to.0 - gap.from.max(row.start).0).sum();
        Ok(gaps + clean::holes(&*self.inner.state, partition)?)
    }

    /// The offset of the last `count` records of a partition, or its start when it has fewer. Reads one run at most, if
    /// it was cleaned. Cancel safe.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub async fn last_records(&self, partition: Partition, count: u64) -> Result<Offset> {
        let (row, tail) = self.inner.writer.bounds(partition)?;
        let state = &*self.inner.state;
        let cleaned = clean::runs_with_holes(state, partition, &row)?;
        let end = cleaned.last().map_or(row.start, |(base, row)| base.plus(row.count)).max(row.start);
        let mut from = tail.0.saturating_sub(count);
        for gap in self.gaps(partition, end)?.iter().rev().filter(|gap| gap.from >= end) {
            if gap.to.0 <= from {
                break;
            }
            from = from.saturating_sub(gap.to.0 - gap.from.0);
        }
        let from = Offset(from);
        if from >= end {
            return Ok(from.max(row.start));
        }
        let mut left = end.0 - from.0;
        for (base, run) in cleaned.iter().rev() {
            let kept = u64::from(run.kept.unwrap_or(run.count));
            if left > kept && *base > row.start {
                left -= kept;
                continue;
            }
            return self.last_of_run(partition, (*base).max(row.start)..base.plus(run.count), left).await;
        }
        Ok(row.start)
    }

    /// The offset of the last `count` records among some offsets.
    async fn last_of_run(&self, partition: Partition, offsets: std::ops::Range<Offset>, count: u64) -> Result<Offset> {
        let (mut next, mut batches) = (offsets.start, Vec::new());
        while next < offsets.end {
            let read = self.read(partition, next, LAST_READ_BYTES).await?;
            let Some(last) = read.last() else { break };
            next = last.next();
            batches.extend(read.iter().map(|batch| (batch.base, batch.next())));
        }
        let mut left = count;
        for (base, next) in batches.into_iter().rev() {
            let (base, next) = (base.max(offsets.start), next.min(offsets.end));
            let records = next.0.saturating_sub(base.0);
            if records >= left {
                return Ok(Offset(next.0 - left));
            }
            left -= records;
        }
        Ok(offsets.start)
    }
}

/// Bytes that are read at once of a run whose records are counted.
const LAST_READ_BYTES: usize = 1 << 20;
