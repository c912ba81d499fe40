//! The swap: a committed link puts one index row of a segment in the place of the rows that its run was made of.
//!
//! ```text
//! key      segment 16
//! value    object length u64 · length of all content u32 · runs, each: topic 16 · partition u32 · base offset u64
//!          records u32 · position in the content u32 · length u32 · first timestamp u64             (little endian)
//! ```
//! Whatever happened between the build and the commit, a link never makes a hole: a run that is not exactly what the index
//! holds is left out, and its partition stays as it is. So a deleted topic stays deleted and a trimmed run is not revived.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, SegmentId, Timestamp, TopicId};
use crate::layout;
use crate::shard::rows::{IndexRow, Place, Span};
use crate::state::{StateOp, StateStore};
use crate::wal::format::get_ulid;

/// Most runs that the links of one slot name, and most index rows that they replace: what applying them costs is paid
/// between two slots.
pub(crate) const LINK_RUNS_MAX: usize = 256;
pub(crate) const LINK_ROWS_MAX: usize = 4096;

const HEAD_BYTES: usize = 12;
const RUN_BYTES: usize = 48;

/// A run of batches of one partition in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRun {
    pub(crate) partition: Partition,
    pub(crate) base: Offset,
    pub(crate) count: u32,
    /// In the content of the segment.
    pub(crate) position: u32,
    pub(crate) len: u32,
    pub(crate) first_timestamp: Timestamp,
}

/// Runs of one shard that stand in a segment from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) segment: SegmentId,
    pub(crate) object_len: u64,
    pub(crate) content_len: u32,
    /// At least one.
    pub(crate) runs: Vec<SegmentRun>,
}

impl SegmentRun {
    /// The offset after the last record.
    pub(crate) fn next(&self) -> Offset {
        self.base.plus(self.count)
    }
}

impl Link {
    /// A partition of the shard that the link belongs to.
    pub(crate) fn partition(&self) -> Partition {
        self.runs.first().expect("a link has at least one run").partition
    }

    pub(crate) fn key(&self) -> [u8; 16] {
        self.segment.0.to_bytes()
    }

    pub(crate) fn value(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + self.runs.len() * RUN_BYTES);
        out.put_u64_le(self.object_len);
        out.put_u32_le(self.content_len);
        for run in &self.runs {
            out.put_slice(&run.partition.topic.0.to_bytes());
            out.put_u32_le(run.partition.index.0);
            out.put_u64_le(run.base.0);
            out.put_u32_le(run.count);
            out.put_u32_le(run.position);
            out.put_u32_le(run.len);
            out.put_u64_le(run.first_timestamp.0);
        }
        out.freeze()
    }

    /// Reads the stored form; `None` when it is none.
    pub(crate) fn parse(mut key: Bytes, mut value: Bytes) -> Option<Self> {
        let runs = value.len().checked_sub(HEAD_BYTES)?;
        if key.len() != 16 || runs == 0 || runs % RUN_BYTES != 0 {
            return None;
        }
        let segment = SegmentId(get_ulid(&mut key));
        let (object_len, content_len) = (value.get_u64_le(), value.get_u32_le());
        let runs = (0..runs / RUN_BYTES).map(|_| SegmentRun {
            partition: Partition { topic: TopicId(get_ulid(&mut value)), index: PartitionIndex(value.get_u32_le()) },
            base: Offset(value.get_u64_le()),
            count: value.get_u32_le(),
            position: value.get_u32_le(),
            len: value.get_u32_le(),
            first_timestamp: Timestamp(value.get_u64_le()),
        });
        Some(Self { segment, object_len, content_len, runs: runs.collect() })
    }

    /// The index row of one of its runs, which stands where the rows that it replaces stood.
    pub(crate) fn row(&self, run: &SegmentRun, span: Option<Span>) -> IndexRow {
        IndexRow {
            place: Place::Segment { segment: self.segment, content_len: self.content_len },
            object_len: self.object_len,
            position: run.position,
            len: run.len,
            count: run.count,
            first_timestamp: run.first_timestamp,
            span,
            kept: None,
        }
    }

    /// How the link changes the index, over what the index holds now; `starts` are those that the same slot trims to.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn ops(&self, state: &dyn StateStore, starts: &BTreeMap<Partition, Offset>) -> Result<Vec<StateOp>> {
        let mut ops = Vec::with_capacity(2 * self.runs.len());
        let trimmed = |run: &&SegmentRun| starts.get(&run.partition).is_some_and(|start| *start > run.base);
        for run in self.runs.iter().filter(|run| !trimmed(run)) {
            let Some(old) = replaced(state, run)? else { continue };
            let inner = old.bases.iter().filter(|base| **base != run.base);
            ops.extend(inner.map(|base| StateOp::Delete(layout::index_key(run.partition, *base))));
            ops.push(StateOp::Put(layout::index_key(run.partition, run.base), self.row(run, old.span).encode()));
        }
        Ok(ops)
    }
}

/// The rows that a run takes the place of: their first offsets, and from where to when they reach together.
struct Replaced {
    bases: Vec<Offset>,
    span: Option<Span>,
}

/// The rows that `run` takes the place of, or `None` when the index does not hold exactly that run.
fn replaced(state: &dyn StateStore, run: &SegmentRun) -> Result<Option<Replaced>> {
    let (from, to) = (layout::index_key(run.partition, run.base), layout::index_key(run.partition, run.next()));
    let (mut next, mut len, mut bases, mut span) = (run.base, 0_u64, Vec::new(), None);
    for (key, value) in state.scan(&from, &to, run.count as usize)? {
        let broken = || Error::new(Kind::Corrupt, "index key in the state store is broken");
        let (base, row) = (layout::index_base(&key).ok_or_else(broken)?, IndexRow::parse(value)?);
        if base != next || (bases.is_empty() && row.first_timestamp != run.first_timestamp) {
            return Ok(None);
        }
        let first = if bases.is_empty() { row.span } else { span };
        span = first.zip(row.span).map(|(first, last)| Span { last_timestamp: last.last_timestamp, ..first });
        next = base.plus(row.count);
        len += u64::from(row.len);
        bases.push(base);
    }
    Ok((next == run.next() && len == u64::from(run.len)).then_some(Replaced { bases, span }))
}
