//! Merging: runs of a partition that are small and lie in many segments are put side by side in one.
//!
//! The index is walked a stretch at a time, from where the last walk ended. Runs are merged when [`FAN_IN`] or more of
//! about one size follow each other, so a record is rewritten a few times at most however long its partition grows. A run
//! of a page is let be: a read of it costs one request already.
//!
//! A walk also counts what of each segment is still named. Of a segment that is mostly dead, by deleted topics, retention or
//! merges, the next walk moves the rest elsewhere, so that the object can go.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
/// Runs of this length and more are let be.
const LARGEST: u32 = SIZES[SIZES.len() - 1];
/// A segment of which less than one in so many bytes is named is mostly dead.
const DYING_SHARE: u64 = 2;
/// Most index rows of one walk.
const WALK_ROWS_MAX: usize = 16_384;
const SCAN_ROWS: usize = 1024;

/// A run in a segment, to be rewritten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small {
    pub(super) partition: Partition,
    base: Offset,
    pub(super) segment: SegmentId,
    pub(super) row: IndexRow,
}

/// Walks through the index from its begin to its end, and again.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Where the next stretch begins; `None` at the begin.
    from: Option<Bytes>,
    /// What this walk has met of each segment: live bytes, all bytes.
    met: HashMap<SegmentId, (u64, u64)>,
    /// Segments that were made since it began: it meets only a part of them.
    made: HashSet<SegmentId>,
    /// Segments that the last walk found mostly dead.
    dying: HashSet<SegmentId>,
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
    /// Partitions with runs that were cleaned in segments that are mostly dead.
    pub(crate) cleaned: BTreeSet<Partition>,
    /// An object can go when these runs stand elsewhere.
    pub(crate) frees: bool,
    full: bool,
    /// The walk has come to the end of the index.
    pub(crate) wrapped: bool,
}

impl Small {
    fn next(&self) -> Offset {
        self.base.plus(self.row.count)
    }

    /// Of the whole segment.
    pub(super) fn content_len(&self) -> u64 {
        match self.row.place {
            Place::Segment { content_len, .. } => u64::from(content_len),
            Place::Wal { .. } => u64::from(self.row.len),
        }
    }

    /// As its segment was compressed.
    fn stored_bytes(&self) -> u64 {
        u64::from(self.row.len) * self.row.object_len / self.content_len().max(1)
    }
}

impl Walk {
    /// Walks from the begin again.
    pub(crate) fn restart(&mut self) {
        self.from = None;
    }

    /// Notes a segment that was made while the walk is under way.
    pub(crate) fn made(&mut self, segment: SegmentId) {
        self.made.insert(segment);
    }

    /// Walks on through the index and gives runs to rewrite.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn next(&mut self, state: &dyn StateStore, limits: Limits) -> Result<Found> {
        let (start, to) = layout::index_range();
        if self.from.is_none() {
            self.met.clear();
            self.made.clear();
        }
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
                let run = in_segment(&key, value)?;
                let mut dying = run.filter(|run| self.meet(run));
                // What was cleaned by key is moved by whole partitions.
                let cleaned = run.filter(|run| run.row.kept.is_some());
                if let Some(moved) = dying.take_if(|run| run.row.kept.is_some()) {
                    found.cleaned.insert(moved.partition);
                }
                found.save(dying, limits);
                let run = run.filter(|run| dying.is_none() && cleaned.is_none() && run.row.len < LARGEST);
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
        if found.wrapped {
            let dying = self.met.iter().filter(|(_, (live, all))| live * DYING_SHARE < *all);
            self.dying = dying.map(|(segment, _)| *segment).filter(|segment| !self.made.contains(segment)).collect();
        }
        Ok(found)
    }
}

impl Walk {
    /// Counts a run; true when its segment is mostly dead.
    fn meet(&mut self, run: &Small) -> bool {
        let (live, _) = self.met.entry(run.segment).or_insert((0, run.content_len()));
        *live += u64::from(run.row.len);
        self.dying.contains(&run.segment)
    }
}

impl Found {
    /// Takes what is left of a segment that is mostly dead.
    fn save(&mut self, run: Option<Small>, limits: Limits) {
        let Some(run) = run else { return };
        let (stored, content) = (run.stored_bytes(), u64::from(run.row.len));
        if self.stored_bytes + stored > limits.stored_bytes || self.content_bytes + content > limits.content_bytes {
            self.full |= !self.runs.is_empty();
            return;
        }
        self.stored_bytes += stored;
        self.content_bytes += content;
        self.frees = true;
        self.runs.push(run);
    }

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

/// The run of an index row, if it is in a segment.
pub(super) fn in_segment(key: &[u8], value: Bytes) -> Result<Option<Small>> {
    let broken = || Error::new(Kind::Corrupt, "index key in the state store is broken");
    let (partition, base) = layout::partition_of(key).zip(layout::index_base(key)).ok_or_else(broken)?;
    let row = IndexRow::parse(value)?;
    let Place::Segment { segment, .. } = row.place else { return Ok(None) };
    Ok(Some(Small { partition, base, segment, row }))
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
