//! What is known of topics and partitions that are cleaned by key (ADR 20).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::cleanup::Cleanup;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, Timestamp, TopicId};
use crate::layout;
use crate::log::Bounds;
use crate::shard::rows::{IndexRow, PartitionRow, Row};
use crate::shard::{gaps, machine};
use crate::state::StateStore;

/// That the records of a topic are cleaned up by key; a topic without it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CleanupRow {
    code: u8,
}

/// How far a partition is clean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanRow {
    /// Of two records of one key below this only the later one is left.
    pub(crate) to: Offset,
    /// Below this it was clean at `settled_at`: what deletes a key there may go when the grace is over. 0 for none.
    pub(crate) settled_to: Offset,
    pub(crate) settled_at: Timestamp,
    /// Records that are left and delete their key.
    pub(crate) tombstones: u32,
    /// Bytes that were published before what is not clean.
    pub(crate) published: u64,
}

impl CleanupRow {
    /// The row of a cleanup, or `None` when it needs none.
    pub(crate) fn of(cleanup: Cleanup) -> Option<Self> {
        match cleanup {
            Cleanup::Delete => None,
            Cleanup::Compact => Some(Self { code: cleanup.code() }),
        }
    }
}

impl Row for CleanupRow {
    const NAME: &'static str = "cleanup row";
    const LEN: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.code);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self { code: bytes.get_u8() }
    }
}

impl CleanRow {
    /// The row of a partition; all of it is to be cleaned when there is none.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn load(state: &dyn StateStore, partition: Partition) -> Result<Option<Self>> {
        state.get(&layout::clean_key(partition))?.map(Self::parse).transpose()
    }
}

impl Row for CleanRow {
    const NAME: &'static str = "clean row";
    const LEN: usize = 36;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.to.0);
        out.put_u64_le(self.settled_to.0);
        out.put_u64_le(self.settled_at.0);
        out.put_u32_le(self.tombstones);
        out.put_u64_le(self.published);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self {
            to: Offset(bytes.get_u64_le()),
            settled_to: Offset(bytes.get_u64_le()),
            settled_at: Timestamp(bytes.get_u64_le()),
            tombstones: bytes.get_u32_le(),
            published: bytes.get_u64_le(),
        }
    }
}

/// The runs with holes of a partition, from the one that its start is in, ascending. They stand before all others.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn runs_with_holes(
    state: &dyn StateStore,
    partition: Partition,
    row: &PartitionRow,
) -> Result<Vec<(Offset, IndexRow)>> {
    if CleanRow::load(state, partition)?.is_none() {
        return Ok(Vec::new());
    }
    let mut runs = Vec::new();
    // What is below the run that the start is in is gone.
    let (mut from, to) = (layout::index_key(partition, Offset(0)), layout::index_key(partition, row.tail));
    loop {
        let rows = state.scan(&from, &to, SCAN_STEP)?;
        let Some((last, _)) = rows.last() else { return Ok(runs) };
        from = layout::after(last);
        for (key, value) in rows {
            let broken = || Error::new(Kind::Corrupt, format!("index of {partition} is broken"));
            let (base, row) = (layout::index_base(&key).ok_or_else(broken)?, IndexRow::parse(value)?);
            if row.kept.is_none() {
                return Ok(runs);
            }
            runs.push((base, row));
        }
    }
}

/// How many offsets of a topic name no record, from the starts of its partitions on. A run that a start is in counts whole
/// where it was cleaned.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn missing(state: &dyn StateStore, topic: TopicId, bounds: &[Bounds]) -> Result<u64> {
    let mut missing = gaps::missing(state, topic, bounds)?;
    let partition = |index| Partition { topic, index: PartitionIndex(index) };
    let (mut from, to) = (layout::clean_key(partition(0)), layout::clean_key(partition(u32::MAX)));
    loop {
        let rows = state.scan(&from, &to, SCAN_STEP)?;
        let Some((last, _)) = rows.last() else { return Ok(missing) };
        from = layout::after(last);
        for (key, _) in rows {
            let partition =
                layout::partition_of(&key).ok_or_else(|| Error::new(Kind::Corrupt, "key of a clean row"))?;
            missing += holes(state, partition)?;
        }
    }
}

/// How many offsets the runs of a partition lack, besides its gaps.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn holes(state: &dyn StateStore, partition: Partition) -> Result<u64> {
    let row = machine::partition_row(state, partition)?.unwrap_or_default();
    let cleaned = runs_with_holes(state, partition, &row)?;
    let (Some((first, _)), Some((last, end))) = (cleaned.first(), cleaned.last()) else { return Ok(0) };
    let (first, end) = (*first, last.plus(end.count));
    let lacking = cleaned.iter().map(|(_, run)| u64::from(run.count - run.kept.unwrap_or(run.count).min(run.count)));
    // Gaps between runs that were cleaned are within what one of them stands for.
    let gaps = gaps::after(state, partition, row.start)?.into_iter().filter(|gap| gap.from >= first && gap.from < end);
    let gaps = gaps.map(|gap| gap.to.0 - gap.from.max(row.start).0);
    Ok(lacking.sum::<u64>().saturating_sub(gaps.sum()))
}

/// Rows that are looked at at once.
const SCAN_STEP: usize = 64;

#[cfg(test)]
mod tests;
