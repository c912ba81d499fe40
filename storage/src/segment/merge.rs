//! Merging: runs of a partition that are small and lie in many segments are put side by side in one.
//!
//! The index is walked a stretch at a time, from where the last walk ended. Runs are merged when [`FAN_IN`] or more of
//! about one size follow each other, so a record is rewritten a few times at most however long its partition grows. A run
//! of a page is let be: a read of it costs one request already.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, SegmentId};
use crate::layout;
use crate::record::StoredBatch;
use crate::segment::format::Frame;
use crate::segment::frames;
use crate::segment::gather::Piece;
use crate::shard::rows::{IndexRow, Place};
use crate::state::StateStore;
use crate::store::ObjectStores;
use crate::wal::blocks::{Block, parse_block};

/// So many runs of about one size are merged into one.
const FAN_IN: usize = 8;
/// Runs below each of these lengths are of about one size.
const SIZES: [u32; 5] = [512, 4 << 10, 32 << 10, 256 << 10, 2 << 20];
/// Most index rows of one walk.
const WALK_ROWS_MAX: usize = 16_384;
const SCAN_ROWS: usize = 1024;

/// A run in a segment, to be merged with its neighbours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small {
    partition: Partition,
    base: Offset,
    segment: SegmentId,
    row: IndexRow,
}

/// Where the next walk through the index begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    from: Option<Bytes>,
}

/// How much one walk may find.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of what will be written, compressed.
    pub(crate) stored_bytes: u64,
    /// Of what will be in memory.
    pub(crate) content_bytes: u64,
}

/// What one walk found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) runs: Vec<Small>,
    /// About how many bytes they will take when they are written again.
    pub(crate) stored_bytes: u64,
    content_bytes: u64,
    full: bool,
    /// The walk has come to the end of the index.
    pub(crate) wrapped: bool,
}

impl Small {
    fn next(&self) -> Offset {
        self.base.plus(self.row.count)
    }

    /// As its segment was compressed.
    fn stored_bytes(&self) -> u64 {
        let Place::Segment { content_len, .. } = self.row.place else { return u64::from(self.row.len) };
        u64::from(self.row.len) * self.row.object_len / u64::from(content_len.max(1))
    }
}

impl Walk {
    /// Walks on through the index and gives runs to merge.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn next(&mut self, state: &dyn StateStore, limits: Limits) -> Result<Found> {
        let (start, to) = layout::index_range();
        let mut from = self.from.take().unwrap_or(start);
        let (mut found, mut stretch, mut walked) = (Found::default(), Vec::<Small>::new(), 0);
        while walked < WALK_ROWS_MAX && !found.full {
            let rows = state.scan(&from, &to, SCAN_ROWS)?;
            let Some((last, _)) = rows.last() else {
                found.wrapped = true;
                break;
            };
            from = layout::after(last);
            walked += rows.len();
            for (key, value) in rows {
                let run = small(&key, value)?;
                let continued = run.is_some_and(|run| {
                    stretch.last().is_none_or(|last| last.partition == run.partition && last.next() == run.base)
                });
                if !continued {
                    found.take(&std::mem::take(&mut stretch), limits);
                }
                stretch.extend(run);
            }
        }
        found.take(&stretch, limits);
        self.from = (!found.wrapped).then_some(from);
        Ok(found)
    }
}

impl Found {
    /// Takes the groups of a stretch that are worth it.
    fn take(&mut self, stretch: &[Small], limits: Limits) {
        for group in groups(stretch) {
            let (mut stored, mut content) = (self.stored_bytes, self.content_bytes);
            let within = stretch[group].iter().take_while(|run| {
                stored += run.stored_bytes();
                content += u64::from(run.row.len);
                stored <= limits.stored_bytes && content <= limits.content_bytes
            });
            let taken: Vec<Small> = within.copied().collect();
            self.full |= stored > limits.stored_bytes || content > limits.content_bytes;
            if taken.len() >= FAN_IN {
                self.stored_bytes += taken.iter().map(Small::stored_bytes).sum::<u64>();
                self.content_bytes += taken.iter().map(|run| u64::from(run.row.len)).sum::<u64>();
                self.runs.extend(taken);
            }
        }
    }
}

/// The run of an index row, if it is a small one in a segment.
fn small(key: &[u8], value: Bytes) -> Result<Option<Small>> {
    let broken = || Error::new(Kind::Corrupt, "index key in the state store is broken");
    let (partition, base) = layout::partition_of(key).zip(layout::index_base(key)).ok_or_else(broken)?;
    let row = IndexRow::parse(value)?;
    let Place::Segment { segment, .. } = row.place else { return Ok(None) };
    let largest = SIZES[SIZES.len() - 1];
    Ok((row.len < largest).then_some(Small { partition, base, segment, row }))
}

/// Neighbours of about one size: of the smallest size of which there are enough beside each other.
fn groups(stretch: &[Small]) -> Vec<Range<usize>> {
    for size in SIZES {
        let (mut out, mut from) = (Vec::new(), 0);
        for beside in stretch.chunk_by(|a, b| (a.row.len < size) == (b.row.len < size)) {
            if beside.len() >= FAN_IN && beside[0].row.len < size {
                out.push(from..from + beside.len());
            }
            from += beside.len();
        }
        if !out.is_empty() {
            return out;
        }
    }
    Vec::new()
}

/// Reads runs out of their segments, each segment once.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when a segment is missing or broken.
pub(crate) async fn read(stores: &ObjectStores, shards: u16, runs: &[Small]) -> Result<Vec<Piece>> {
    let mut by_segment = BTreeMap::<SegmentId, Vec<Small>>::new();
    runs.iter().for_each(|run| by_segment.entry(run.segment).or_default().push(*run));
    let mut pieces = Vec::with_capacity(runs.len());
    for mut runs in by_segment.into_values() {
        runs.sort_unstable_by_key(|run| run.row.position);
        let (path, len) = (runs[0].row.object(), runs[0].row.object_len);
        let table = frames::table(stores, &path, len).await?;
        let mut wanted: Vec<usize> = runs.iter().flat_map(|run| table.covering(&content(run))).collect();
        wanted.dedup();
        let mut contents = vec![BytesMut::new(); runs.len()];
        let mut first = 0;
        let copy = |frame: &Frame, bytes: Bytes| {
            let held = frame.content();
            while runs.get(first).is_some_and(|run| content(run).end <= held.start) {
                first += 1;
            }
            for (run, out) in runs.iter().zip(&mut contents).skip(first) {
                let Range { start, end } = content(run);
                if start >= held.end {
                    break;
                }
                // Copied, so that a small run does not hold the memory of its whole frame.
                let within = |at: u32| (at - held.start) as usize;
                out.extend_from_slice(&bytes[within(start.max(held.start))..within(end.min(held.end))]);
            }
            Ok(())
        };
        frames::each(stores, &path, &table, &wanted, copy).await?;
        for (run, content) in runs.iter().zip(contents) {
            pieces.push(piece(shards, run, content.freeze())?);
        }
    }
    Ok(pieces)
}

fn content(run: &Small) -> Range<u32> {
    run.row.position..run.row.position.saturating_add(run.row.len)
}

/// The batches of a run, which must be those that its row says.
fn piece(shards: u16, run: &Small, mut content: Bytes) -> Result<Piece> {
    let corrupt =
        || Error::new(Kind::Corrupt, format!("run of {} in a segment is not what its row says", run.partition));
    let (mut batches, mut next) = (Vec::<Arc<StoredBatch>>::new(), run.base);
    while !content.is_empty() {
        let (block, _, rest) = parse_block(content)?;
        content = rest;
        let Block::Records { partition, batch } = block else { return Err(corrupt()) };
        if partition != run.partition || batch.base != next {
            return Err(corrupt());
        }
        next = batch.next();
        batches.push(Arc::new(batch));
    }
    if batches.is_empty() || next != run.next() {
        return Err(corrupt());
    }
    Ok(Piece::new(shards, run.partition, batches))
}
