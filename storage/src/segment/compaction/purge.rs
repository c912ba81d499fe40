//! Purging: whatever shares an object with something that was deleted is put elsewhere, so that the object can go (ADR 23).
//!
//! The bytes of a deleted topic stay in slots and segments while other records in these are kept, and what a document said
//! stays in the slot that has set it. After a purge no index row names a slot of that time, nor a segment in which there
//! is a block of a topic that does not exist. A segment is read only where it may hold such a block, and only when a part of
//! it is not referred to.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{Compactor, Progress, SEGMENT_RUNS_MAX};
use crate::env::apart;
use crate::error::{Error, Kind, Result};
use crate::ids::{Partition, SegmentId, Slot, TopicId};
use crate::layout;
use crate::segment::frames;
use crate::segment::merge::{Small, in_segment};
use crate::shard::fork::has_forks;
use crate::state::StateStore;
use crate::wal::blocks::{Block, parse_block};
use crate::wal::writer::Writer;

/// A run that was trimmed while it was rewritten is left where it was. So often what is left is looked for again.
const ROUNDS_MAX: usize = 8;
const SCAN_ROWS: usize = 1024;

/// What is to be put elsewhere of some segments, and where in the index to go on.
#[derive(Debug, Default)]
struct Rest {
    runs: Vec<Small>,
    /// Partitions that were cleaned by key: they are moved as a whole.
    cleaned: BTreeSet<Partition>,
    next: Option<Bytes>,
}

impl Compactor {
    /// Leaves no row in a slot that is committed now, and none beside a block of a topic that is deleted now.
    pub(super) async fn purge(&self, writer: &Writer, progress: &mut Progress) -> Result<()> {
        let end = self.end()?;
        let mut clean = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let emptied = self.empty_slots(writer, progress, end).await?;
            let stained = self.stained(writer, progress, &mut clean).await?;
            if emptied && stained.is_empty() {
                return Ok(());
            }
            self.move_out(writer, progress, stained).await?;
        }
        Err(Error::new(Kind::Busy, format!("records stand beside deleted ones after {ROUNDS_MAX} rounds of rewriting")))
    }

    /// Compacts the slots below `end`; true when no row names one of them.
    async fn empty_slots(&self, writer: &Writer, progress: &mut Progress, end: Slot) -> Result<bool> {
        if planted!(PurgeLeavesSlots) {
            return Ok(true);
        }
        self.pass_all(writer, progress, end).await?;
        progress.regather();
        progress.backlog = self.backlog(end).await?;
        Ok(progress.backlog.slots.is_empty())
    }

    /// Segments with rows that also hold a block of a topic which is gone. `clean` are those of which it is known that they
    /// do not.
    async fn stained(
        &self,
        writer: &Writer,
        progress: &mut Progress,
        clean: &mut HashSet<SegmentId>,
    ) -> Result<HashSet<SegmentId>> {
        let state = Arc::clone(&self.source.state);
        let holed = apart("a purge", move || holed(&*state)).await?;
        let mut stained = HashSet::new();
        for (segment, object_len) in holed {
            if clean.contains(&segment) {
                continue;
            }
            if self.holds_deleted(segment, object_len).await? && !planted!(PurgeLeavesSegments) {
                stained.insert(segment);
            } else {
                clean.insert(segment);
            }
            // With many segments it takes long, and what is published must not wait for it.
            self.step(writer, progress).await?;
        }
        Ok(stained)
    }

    /// Whether a block of the segment is of a topic that is gone.
    async fn holds_deleted(&self, segment: SegmentId, object_len: u64) -> Result<bool> {
        let (stores, path) = (&self.source.stores, layout::segment(segment));
        let table = frames::table(stores, &path, object_len).await?;
        let (mut shared, mut topics) = (Vec::new(), BTreeSet::new());
        for (at, frame) in table.frames().iter().enumerate() {
            topics.insert(frame.partition.topic);
            // Blocks are sorted: one that begins as the next one does holds nothing else.
            if table.frames().get(at + 1).is_none_or(|next| next.partition != frame.partition) {
                shared.push(at);
            }
        }
        if self.is_one_gone(&topics)? {
            return Ok(true);
        }
        let collect = |_: &_, mut content: Bytes| {
            while !content.is_empty() {
                let (block, _, rest) = parse_block(content)?;
                content = rest;
                if let Block::Records { partition, .. } = block {
                    topics.insert(partition.topic);
                }
            }
            Ok(())
        };
        frames::each(stores, &path, &table, &shared, collect).await?;
        self.is_one_gone(&topics)
    }

    fn is_one_gone(&self, topics: &BTreeSet<TopicId>) -> Result<bool> {
        for topic in topics {
            let is_named = self.source.state.get(&layout::topic_key(*topic))?.is_some();
            if !is_named && !has_forks(&*self.source.state, *topic)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts all that is kept in these segments into others.
    async fn move_out(&self, writer: &Writer, progress: &mut Progress, stained: HashSet<SegmentId>) -> Result<()> {
        let stained = Arc::new(stained);
        let mut next = (!stained.is_empty()).then(|| layout::index_range().0);
        while let Some(from) = next {
            let (state, segments, bytes_max) =
                (Arc::clone(&self.source.state), Arc::clone(&stained), self.segment_bytes);
            let rest = apart("a purge", move || rest_of(&*state, &segments, from, bytes_max)).await?;
            self.move_cleaned(writer, rest.cleaned.into_iter().collect()).await?;
            if !rest.runs.is_empty() {
                self.put_together(writer, &mut progress.walk, &rest.runs).await?;
            }
            next = rest.next;
            self.step(writer, progress).await?;
        }
        Ok(())
    }
}

/// Segments of which rows name a part and not all, with the lengths of their objects.
fn holed(state: &dyn StateStore) -> Result<Vec<(SegmentId, u64)>> {
    let (mut from, to) = layout::index_range();
    let mut named = BTreeMap::<SegmentId, (u64, u64, u64)>::new();
    loop {
        let rows = state.scan(&from, &to, SCAN_ROWS)?;
        let Some((last, _)) = rows.last() else { break };
        from = layout::after(last);
        for (key, value) in rows {
            let Some(run) = in_segment(&key, value)? else { continue };
            let (live, ..) = named.entry(run.segment).or_insert((0, run.content_len(), run.row.object_len));
            *live += u64::from(run.row.len);
        }
    }
    let holed = named.into_iter().filter(|(_, (live, all, _))| live < all);
    Ok(holed.map(|(segment, (_, _, object_len))| (segment, object_len)).collect())
}

/// The runs of these segments, from a place in the index on, about `bytes_max` of them.
fn rest_of(state: &dyn StateStore, segments: &HashSet<SegmentId>, mut from: Bytes, bytes_max: u64) -> Result<Rest> {
    let (_, to) = layout::index_range();
    let (mut rest, mut bytes) = (Rest::default(), 0);
    loop {
        let rows = state.scan(&from, &to, SCAN_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(rest) };
        from = layout::after(last);
        for (key, value) in rows {
            let Some(run) = in_segment(&key, value)?.filter(|run| segments.contains(&run.segment)) else { continue };
            if run.row.kept.is_some() {
                rest.cleaned.insert(run.partition);
            } else {
                bytes += u64::from(run.row.len);
                rest.runs.push(run);
            }
            if bytes >= bytes_max || rest.runs.len() + rest.cleaned.len() >= SEGMENT_RUNS_MAX {
                rest.next = Some(layout::after(&key));
                return Ok(rest);
            }
        }
    }
}
