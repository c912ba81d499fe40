//! A cleaning that is committed: runs with holes take the place of all runs of a partition from its first one on.
//!
//! ```text
//! key      topic 16 · partition u32
//! value    clean to u64 · settled to u64 · settled at u64 · tombstones u32 · rows replaced u32 · their bytes u64 · runs, each:
//!          segment 16 · object length u64 · length of all content u32 · base offset u64 · offsets u32
//!          position in the content u32 · length u32 · records u32 · first timestamp u64 · last timestamp u64  (little endian)
//! ```
//! It is applied whole or not at all: where the index does not hold exactly the rows that were cleaned, because a trim or
//! the end of the topic came between, the partition stays as it is.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, SegmentId, Timestamp};
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::clean::CleanRow;
use crate::shard::fork::has_forks;
use crate::shard::machine::{SlotSummary, partition_row};
use crate::shard::rows::{IndexRow, PartitionRow, Place, Row, Span};
use crate::state::{StateOp, StateStore};
use crate::wal::format::get_ulid;

const HEAD_BYTES: usize = 40;
const RUN_BYTES: usize = 68;

/// A run of a partition in a segment, of whose offsets not all name a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CleanedRun {
    pub(crate) segment: SegmentId,
    pub(crate) object_len: u64,
    pub(crate) content_len: u32,
    pub(crate) base: Offset,
    /// How many offsets it stands for.
    pub(crate) count: u32,
    /// In the content of the segment.
    pub(crate) position: u32,
    pub(crate) len: u32,
    /// How many records are in it, at least one.
    pub(crate) kept: u32,
    pub(crate) first_timestamp: Timestamp,
    pub(crate) last_timestamp: Timestamp,
}

/// What the index holds of a partition from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cleaned {
    pub(crate) partition: Partition,
    /// How far it is clean; its `published` is not stored, the state says it.
    pub(crate) clean: CleanRow,
    /// How many rows the runs take the place of, and the bytes of these.
    pub(crate) rows: u32,
    pub(crate) bytes: u64,
    /// Side by side; at least one.
    pub(crate) runs: Vec<CleanedRun>,
}

/// The rows that a cleaning takes the place of.
pub(crate) type OldRows = Vec<(Offset, IndexRow)>;

impl CleanedRun {
    /// The offset after it.
    pub(crate) fn next(&self) -> Offset {
        self.base.plus(self.count)
    }

    /// Its index row, with so many bytes before it.
    pub(crate) fn row(&self, bytes_before: u64) -> IndexRow {
        IndexRow {
            place: Place::Segment { segment: self.segment, content_len: self.content_len },
            object_len: self.object_len,
            position: self.position,
            len: self.len,
            count: self.count,
            first_timestamp: self.first_timestamp,
            span: Some(Span { bytes_before, last_timestamp: self.last_timestamp }),
            kept: Some(self.kept),
        }
    }
}

impl Cleaned {
    /// The offset after its runs.
    pub(crate) fn next(&self) -> Offset {
        self.runs.last().map_or(Offset(0), CleanedRun::next)
    }

    pub(crate) fn value(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + self.runs.len() * RUN_BYTES);
        out.put_u64_le(self.clean.to.0);
        out.put_u64_le(self.clean.settled_to.0);
        out.put_u64_le(self.clean.settled_at.0);
        out.put_u32_le(self.clean.tombstones);
        out.put_u32_le(self.rows);
        out.put_u64_le(self.bytes);
        for run in &self.runs {
            out.put_slice(&run.segment.0.to_bytes());
            out.put_u64_le(run.object_len);
            out.put_u32_le(run.content_len);
            out.put_u64_le(run.base.0);
            out.put_u32_le(run.count);
            out.put_u32_le(run.position);
            out.put_u32_le(run.len);
            out.put_u32_le(run.kept);
            out.put_u64_le(run.first_timestamp.0);
            out.put_u64_le(run.last_timestamp.0);
        }
        out.freeze()
    }

    /// Reads the stored form; `None` when it is none.
    pub(crate) fn parse(partition: Partition, mut value: Bytes) -> Option<Self> {
        let runs = value.len().checked_sub(HEAD_BYTES)?;
        if runs == 0 || runs % RUN_BYTES != 0 {
            return None;
        }
        let clean = CleanRow {
            to: Offset(value.get_u64_le()),
            settled_to: Offset(value.get_u64_le()),
            settled_at: Timestamp(value.get_u64_le()),
            tombstones: value.get_u32_le(),
            published: 0,
        };
        let (rows, bytes) = (value.get_u32_le(), value.get_u64_le());
        let runs = (0..runs / RUN_BYTES).map(|_| CleanedRun {
            segment: SegmentId(get_ulid(&mut value)),
            object_len: value.get_u64_le(),
            content_len: value.get_u32_le(),
            base: Offset(value.get_u64_le()),
            count: value.get_u32_le(),
            position: value.get_u32_le(),
            len: value.get_u32_le(),
            kept: value.get_u32_le(),
            first_timestamp: Timestamp(value.get_u64_le()),
            last_timestamp: Timestamp(value.get_u64_le()),
        });
        let runs: Vec<CleanedRun> = runs.collect();
        runs.windows(2).all(|pair| pair[0].next() == pair[1].base).then_some(Self {
            partition,
            clean,
            rows,
            bytes,
            runs,
        })
    }

    /// Changes the index over what it holds now, and the row of the partition as the slot leaves it. `rows` are those that
    /// the slot has changed so far.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn apply(
        &self,
        state: &dyn StateStore,
        slot: &SlotSummary,
        rows: &mut Vec<(Partition, PartitionRow)>,
        ops: &mut Vec<StateOp>,
    ) -> Result<()> {
        if slot.entries.iter().any(|entry| self.gives_way_to(entry)) || has_forks(state, self.partition.topic)? {
            return Ok(());
        }
        let Some(old) = self.replaces(state)? else { return Ok(()) };
        let Some(stored) = partition_row(state, self.partition)? else { return Ok(()) };
        let after = bytes_before(state, self.partition, (self.next(), &stored))?;
        let Some(after) = after.filter(|_| self.runs.first().is_some_and(|first| stored.start < first.next())) else {
            return Ok(());
        };
        ops.extend(old.iter().map(|(base, _)| StateOp::Delete(layout::index_key(self.partition, *base))));
        let mut before = after;
        for run in self.runs.iter().rev() {
            // A record that stands alone takes more room than it did in its batch.
            before = before.saturating_sub(u64::from(run.len));
            ops.push(StateOp::Put(layout::index_key(self.partition, run.base), run.row(before).encode()));
        }
        let at = rows.iter().position(|(partition, _)| *partition == self.partition);
        let mut row = at.map_or(stored, |at| rows[at].1);
        row.bytes = row.published.saturating_sub(before);
        ops.push(StateOp::Put(layout::partition_key(self.partition), row.encode()));
        match at {
            Some(at) => rows[at].1 = row,
            None => rows.push((self.partition, row)),
        }
        let all = self.clean.to >= self.next();
        let clean = CleanRow { published: if all { after } else { before }, ..self.clean };
        ops.push(StateOp::Put(layout::clean_key(self.partition), clean.encode()));
        Ok(())
    }

    /// Whether another entry of the same slot takes records of the partition away.
    fn gives_way_to(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Trim { partition, .. } if *partition == self.partition)
            || matches!(entry, Entry::DeleteTopic { topic } if *topic == self.partition.topic)
    }

    /// The rows that it takes the place of, or `None` when the index does not hold exactly those.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn replaces(&self, state: &dyn StateStore) -> Result<Option<OldRows>> {
        let Some(first) = self.runs.first() else { return Ok(None) };
        let (from, to) =
            (layout::index_key(self.partition, first.base), layout::index_key(self.partition, self.next()));
        let (mut bytes, mut old) = (0, OldRows::new());
        for (key, value) in state.scan(&from, &to, (self.rows as usize).saturating_add(1))? {
            let broken = || Error::new(Kind::Corrupt, "index key in the state store is broken");
            let (base, row) = (layout::index_base(&key).ok_or_else(broken)?, IndexRow::parse(value)?);
            bytes += u64::from(row.len);
            old.push((base, row));
        }
        let begins =
            old.first().is_some_and(|(base, row)| *base == first.base && row.first_timestamp == first.first_timestamp);
        let ends = old.last().is_some_and(|(base, row)| base.plus(row.count) == self.next());
        let is_all = old.len() == self.rows as usize && bytes == self.bytes;
        let in_segments = old.iter().all(|(_, row)| matches!(row.place, Place::Segment { .. }));
        Ok((begins && ends && is_all && in_segments).then_some(old))
    }
}

/// How many bytes are before the first run from `next` on; `None` when its row does not say it.
fn bytes_before(
    state: &dyn StateStore,
    partition: Partition,
    (next, row): (Offset, &PartitionRow),
) -> Result<Option<u64>> {
    let (from, to) = (layout::index_key(partition, next), layout::index_key(partition, Offset(u64::MAX)));
    let Some((_, value)) = state.scan(&from, &to, 1)?.pop() else { return Ok(Some(row.published)) };
    Ok(IndexRow::parse(value)?.span.map(|span| span.bytes_before))
}

#[cfg(test)]
mod tests;
