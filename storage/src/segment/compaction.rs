//! Compaction: a task that rewrites what was committed into segments, and small runs of segments into larger ones.
//!
//! It works on windows of committed slots, one at a time: gather, build, create the object, check it against what went in,
//! link. A window is gathered bit by bit, before the tail in memory lets go of it. A step that fails leaves the log as it was: the object is then an orphan, a segment that no index row names. It
//! is woken by commits and never polls. It must not know what records mean.

mod purge;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::clean::Why;
use crate::env::{Clock, Rng, apart, new_ulid, until};
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::{Partition, SegmentId, SessionId, ShardId, Slot};
use crate::layout;
use crate::log::LogOptions;
use crate::metrics::{Health, StorageMetrics};
use crate::segment::build::SegmentBuilder;
use crate::segment::conserve::{self, CheckedRun};
use crate::segment::gather::{Backlog, Piece, Source};
use crate::segment::link::{LINK_ROWS_MAX, LINK_RUNS_MAX, Link};
use crate::segment::merge::{self, Found, Limits, Small, Walk};
use crate::segment::unsettled::Unsettled;
use crate::shard::changes::Entry;
use crate::shard::rows::{IndexRow, Position, Row};
use crate::slot::{self, Created, Object};
use crate::wal::format::{Header, ObjectKind};
use crate::wal::writer::{Writer, WriterParts};

/// So many slots are compacted although they are small: what is spread over more objects is slow to read.
const WINDOW_SLOTS_MAX: usize = 4096;
/// A partition with this share of a full segment in one window gets a segment of its own.
const OWN_SEGMENT_SHARE: u64 = 4;
/// Most runs in one segment.
const SEGMENT_RUNS_MAX: usize = 16_384;
/// A merge is begun when it has this share of a full segment to rewrite.
const MERGE_SHARE: u64 = 16;
const READ_SLOTS_AT_ONCE: usize = 4;
/// What was committed is gathered when it has this share of the tail.
const GATHER_SHARE: u64 = 4;
/// After a failure nothing is tried for this long, then twice as long, and so on up to the other.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// What is asked of the task; answered when it is linked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) wanted: Wanted,
    pub(crate) done: oneshot::Sender<Result<()>>,
}

/// What a compaction that is asked for does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// Compacts all that is committed, and merges what there is to merge.
    Everything,
    /// Leaves nothing beside what was deleted.
    Purge,
}

/// The task and what it works on.
pub(crate) struct Compactor {
    /// About how much of the WAL goes into one window, and most of what a merge holds in memory.
    pub(super) segment_bytes: u64,
    /// Nothing is merged while more than this many bytes were written for 100 bytes of records.
    write_percent_max: u64,
    pub(super) source: Source,
    pub(super) unsettled: Unsettled,
    pub(super) health: Arc<Health>,
    pub(super) metrics: StorageMetrics,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rng: Arc<dyn Rng>,
    requests: mpsc::Receiver<Request>,
    /// Most keys that are held while partitions are cleaned.
    pub(super) clean_keys_max: usize,
    clean_interval: Duration,
}

/// How far the task has come. Bytes are by the measure of the tail.
#[derive(Default)]
struct Progress {
    backlog: Backlog,
    /// The first slot of this session that is not compacted.
    next: Slot,
    /// How many bytes were committed before it, about.
    at_bytes: u64,
    /// The first of what is not compacted, as far as it is gathered: of the backlog, then of this session.
    window: Window,
    /// How many bytes were committed when it was last gathered.
    gathered_bytes: u64,
    /// After a failure nothing is tried before.
    retry: Option<(Instant, Duration)>,
    walk: Walk,
    /// Where the next turn of cleaning goes on; `None` at the first partition.
    clean_from: Option<Partition>,
}

/// Slots and what they hold.
#[derive(Default)]
struct Window {
    slots: Vec<(SessionId, Slot)>,
    pieces: Vec<Piece>,
    bytes: u64,
}

/// A segment that is ready to be created, and what it must hold.
struct Ready {
    object: Object,
    content_len: u32,
    expected: Vec<CheckedRun>,
    /// How many index rows each of these takes the place of.
    rows: Vec<usize>,
}

impl Compactor {
    /// The task of a session, and where to ask it for a compaction.
    pub(crate) fn new(
        options: &LogOptions,
        (session, shards): (SessionId, u16),
        parts: &WriterParts,
    ) -> (Self, mpsc::Sender<Request>) {
        let (sender, requests) = mpsc::channel(1);
        let WriterParts { stores, state, tail, health, metrics, .. } = parts.clone();
        let compactor = Self {
            segment_bytes: options.segment_bytes,
            write_percent_max: options.write_percent_max,
            source: Source { session, shards, stores, state, tail },
            unsettled: Unsettled::default(),
            health,
            metrics,
            clock: Arc::clone(&options.clock),
            rng: Arc::clone(&options.rng),
            requests,
            clean_keys_max: options.clean_keys_max,
            clean_interval: options.clean_interval,
        };
        (compactor, sender)
    }

    /// Which segments may still be linked.
    pub(crate) fn unsettled(&self) -> Unsettled {
        self.unsettled.clone()
    }

    /// Compacts what is committed, until the log takes nothing more.
    pub(crate) async fn run(mut self, writer: Arc<Writer>) {
        tokio::select! {
            biased;
            _ = writer.stopped() => {}
            ended = self.work(&writer) => if let Err(error) = ended {
                tracing::error!(error = %Chain(&error), "compaction ends, the log goes on without it");
            },
        }
    }

    async fn work(&mut self, writer: &Writer) -> Result<()> {
        let mut committed = writer.committed_bytes();
        let backlog = self.backlog(Slot(0)).await?;
        let mut progress = Progress { backlog, ..Progress::default() };
        let mut clean_at = Instant::now() + self.clean_interval;
        loop {
            committed.borrow_and_update();
            let retry_at = progress.retry.map(|(at, _)| at).filter(|at| *at > Instant::now());
            if retry_at.is_none() && self.step(writer, &mut progress).await? {
                continue;
            }
            tokio::select! {
                biased;
                changed = committed.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = until(retry_at), if retry_at.is_some() => {}
                Some(Request { wanted, done }) = self.requests.recv() => {
                    let worked = match wanted {
                        Wanted::Everything => self.everything(writer, &mut progress).await,
                        Wanted::Purge => self.purge(writer, &mut progress).await,
                    };
                    // Who asked may be gone.
                    let _gone = done.send(worked);
                }
                // What was committed does not say when what deletes a key may go.
                () = until(Some(clean_at)) => {
                    clean_at = Instant::now() + self.clean_interval;
                    // It is tried again the next time.
                    if let Err(error) = self.clean_turn(writer, &mut progress).await {
                        tracing::warn!(error = %Chain(&error), "cleaning by key failed, it is tried again later");
                    }
                }
            }
        }
    }

    /// Compacts or gathers what is due; false when nothing is.
    async fn step(&self, writer: &Writer, progress: &mut Progress) -> Result<bool> {
        let total = self.source.tail.pushed();
        let done = if self.is_due(progress, total)? {
            self.pass(writer, progress, total).await
        } else if total - progress.gathered_bytes >= self.source.tail.bytes_max() / GATHER_SHARE {
            self.gather(progress, self.end()?, total).await
        } else {
            return Ok(false);
        };
        match done {
            Ok(()) => progress.retry = None,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "compaction failed, it is tried again later");
                progress.failed();
            }
        }
        Ok(true)
    }

    /// Compacts all that is committed, then merges what there is to merge.
    async fn everything(&self, writer: &Writer, progress: &mut Progress) -> Result<()> {
        self.pass_all(writer, progress, self.end()?).await?;
        progress.walk.restart();
        while !self.merge(writer, progress, 1).await? {}
        self.clean(writer, Why::Asked, None).await.map(|_| ())
    }

    /// Compacts what is committed up to `end`.
    async fn pass_all(&self, writer: &Writer, progress: &mut Progress, end: Slot) -> Result<()> {
        let total = self.source.tail.pushed();
        while progress.next < end || !progress.backlog.slots.is_empty() {
            self.pass(writer, progress, total).await.inspect_err(|_| progress.regather())?;
        }
        Ok(())
    }

    fn is_due(&self, progress: &Progress, total: u64) -> Result<bool> {
        let bytes = progress.backlog.bytes + total.saturating_sub(progress.at_bytes);
        let pending = self.pending(progress)?;
        Ok(pending >= WINDOW_SLOTS_MAX as u64 || (pending > 0 && bytes >= self.segment_bytes))
    }

    /// Slots that are committed and not compacted.
    fn pending(&self, progress: &Progress) -> Result<u64> {
        let own = self.end()?.0.saturating_sub(progress.next.0);
        Ok(own + progress.backlog.slots.len() as u64)
    }

    /// The end of what this session has committed.
    fn end(&self) -> Result<Slot> {
        let missing = || Error::new(Kind::Corrupt, "state store has no position");
        let position = self.source.state.get(&layout::position_key())?.ok_or_else(missing)?;
        Position::parse(position).map(|position| position.next)
    }

    async fn backlog(&self, own: Slot) -> Result<Backlog> {
        let source = self.source.clone();
        apart("compaction", move || source.backlog(own)).await
    }

    /// Compacts one window, and merges when enough has come together.
    async fn pass(&self, writer: &Writer, progress: &mut Progress, total: u64) -> Result<()> {
        let end = self.end()?;
        self.gather(progress, end, total).await?;
        let Window { slots, pieces, bytes } = std::mem::take(&mut progress.window);
        let source = self.source.clone();
        let pieces = apart("compaction", move || source.still_indexed(pieces)).await?;
        let mut are_linked = true;
        for pieces in plan(pieces, self.segment_bytes / OWN_SEGMENT_SHARE) {
            let (segment, is_linked) = self.rewrite(writer, pieces).await?;
            progress.walk.made(segment);
            are_linked &= is_linked;
        }
        self.metrics.compactions.inc();
        progress.advance(&slots, bytes, (self.source.session, end, total));
        // A run that was trimmed while it was rewritten stands where it was: what is left of it is to be gathered again.
        if !are_linked || (progress.backlog.slots.is_empty() && progress.backlog.more) {
            progress.backlog = self.backlog(progress.next).await?;
        }
        self.merge(writer, progress, self.segment_bytes / MERGE_SHARE).await?;
        self.clean_turn(writer, progress).await
    }

    /// Cleans what is due of the partitions whose turn it is.
    async fn clean_turn(&self, writer: &Writer, progress: &mut Progress) -> Result<()> {
        progress.clean_from = self.clean(writer, Why::Due, progress.clean_from).await?;
        Ok(())
    }

    /// Goes on with the window, up to `end` or until it is full.
    async fn gather(&self, progress: &mut Progress, end: Slot, total: u64) -> Result<()> {
        let session = self.source.session;
        let own = (progress.next.0..end.0).map(|slot| (session, Slot(slot)));
        let slots = progress.backlog.slots.iter().copied().chain(own).take(WINDOW_SLOTS_MAX);
        let window = &mut progress.window;
        let slots = slots.skip(window.slots.len());
        let read = |(session, slot)| async move {
            self.source.slot(session, slot).await.map(|pieces| ((session, slot), pieces))
        };
        let mut gathered = std::pin::pin!(futures::stream::iter(slots).map(read).buffered(READ_SLOTS_AT_ONCE));
        while window.bytes < self.segment_bytes
            && let Some((slot, pieces)) = gathered.try_next().await?
        {
            window.slots.push(slot);
            window.bytes += pieces.iter().map(Piece::cost).sum::<u64>();
            window.pieces.extend(pieces);
        }
        progress.gathered_bytes = total;
        Ok(())
    }

    /// Merges what the next stretch of the index has to merge, if it is at least `bytes_min` and may be written by now;
    /// true when the end of the index was reached.
    async fn merge(&self, writer: &Writer, progress: &mut Progress, bytes_min: u64) -> Result<bool> {
        let pending = self.source.tail.pushed().saturating_sub(progress.at_bytes);
        let walk = &mut progress.walk;
        let limits = Limits { stored_bytes: self.spare_bytes(pending), content_bytes: self.segment_bytes };
        if limits.stored_bytes < bytes_min {
            return Ok(true);
        }
        let (mut walked, state) = (std::mem::take(walk), Arc::clone(&self.source.state));
        let (walked, found) =
            apart("compaction", move || walked.next(&*state, limits).map(|found| (walked, found))).await?;
        *walk = walked;
        let Found { runs, stored_bytes, frees, cleaned, wrapped, .. } = found;
        self.move_cleaned(writer, cleaned.into_iter().collect()).await?;
        if (stored_bytes >= bytes_min || frees) && !runs.is_empty() {
            self.put_together(writer, walk, &runs).await?;
        }
        Ok(wrapped)
    }

    /// Puts runs, which stand in segments, into others.
    async fn put_together(&self, writer: &Writer, walk: &mut Walk, runs: &[Small]) -> Result<()> {
        let pieces = merge::read(&self.source.stores, self.source.shards, runs).await?;
        for pieces in plan(pieces, self.segment_bytes / OWN_SEGMENT_SHARE) {
            let (segment, _) = self.rewrite(writer, pieces).await?;
            walk.made(segment);
        }
        self.metrics.merged_runs.inc_by(runs.len() as u64);
        Ok(())
    }

    /// How much may still be written for what was published so far, when what is `pending` is compacted.
    fn spare_bytes(&self, pending: u64) -> u64 {
        let allowed = self.metrics.record_bytes.get().saturating_mul(self.write_percent_max) / 100;
        // Cleaning by key has a bound of its own.
        let written = self.metrics.put_bytes().saturating_sub(self.metrics.cleaning_bytes.get());
        allowed.saturating_sub(written.saturating_add(pending))
    }

    /// Puts pieces, which are sorted, into a segment and links it; false when something else happened to a run meanwhile.
    async fn rewrite(&self, writer: &Writer, pieces: Vec<Piece>) -> Result<(SegmentId, bool)> {
        let segment = SegmentId(new_ulid(&*self.clock, &*self.rng));
        let session = self.source.session;
        let Ready { object, content_len, expected, rows } =
            apart("compaction", move || build(session, segment, pieces)).await?;
        let (path, object_len) = (object.path.clone(), object.header.object_len());
        self.unsettled.begin(segment);
        match slot::create(&self.source.stores, &object, &self.health, None).await? {
            Created::Ours => {}
            Created::Taken(_) => return Err(Error::new(Kind::Corrupt, format!("object {path} is already there"))),
        }
        drop(object);
        self.metrics.segments.inc();
        self.metrics.segment_content_bytes.inc_by(u64::from(content_len));
        if let Err(error) = conserve::check(&self.source.stores, &path, object_len, &expected).await {
            if error.kind() == Kind::Corrupt {
                self.metrics.segment_mismatches.inc();
                tracing::error!(%path, error = %Chain(&error), "a segment is not what went into it, it is not used");
            }
            self.unsettled.settle(segment);
            return Err(error);
        }
        let mut is_linked = true;
        for runs in slots_of_links(&rows).map(|within| &expected[within]) {
            let by_shard = runs.chunk_by(|a, b| self.shard(a) == self.shard(b));
            let links = by_shard.map(|checked| {
                let runs = checked.iter().map(|checked| checked.run).collect();
                Link { segment, object_len, content_len, runs }
            });
            let links: Vec<Link> = links.collect();
            writer.commit_links(links.iter().cloned().map(Entry::Link).collect()).await?;
            is_linked &= self.count_linked(&links)?;
        }
        self.unsettled.settle(segment);
        Ok((segment, is_linked))
    }

    fn shard(&self, checked: &CheckedRun) -> ShardId {
        checked.run.partition.shard(self.source.shards)
    }

    /// Counts the runs that stand in the segment now, and those that do not; false when there are some of these.
    fn count_linked(&self, links: &[Link]) -> Result<bool> {
        let mut are_linked = true;
        for (link, run) in links.iter().flat_map(|link| link.runs.iter().map(move |run| (link, run))) {
            let row = self.source.state.get(&layout::index_key(run.partition, run.base))?;
            let row = row.map(IndexRow::parse).transpose()?;
            if row.is_some_and(|row| row == link.row(run, row.span)) {
                self.metrics.linked_runs.inc();
            } else {
                self.metrics.unlinked_runs.inc();
                are_linked = false;
            }
        }
        Ok(are_linked)
    }
}

impl Progress {
    /// Notes that a window is compacted, which saw what was committed up to `end` and `total`.
    fn advance(&mut self, slots: &[(SessionId, Slot)], bytes: u64, (session, end, total): (SessionId, Slot, u64)) {
        let before = self.backlog.slots.len();
        for (of, slot) in slots {
            if !self.backlog.slots.remove(&(*of, *slot)) && *of == session {
                self.next = self.next.max(slot.next());
            }
        }
        if self.backlog.slots.is_empty() {
            self.backlog.bytes = 0;
        } else if self.backlog.slots.len() < before {
            self.backlog.bytes = self.backlog.bytes.saturating_sub(bytes);
        }
        self.at_bytes = if self.next >= end { total } else { total.min(self.at_bytes + bytes) };
        self.gathered_bytes = self.at_bytes;
    }

    /// What failed is tried again some time later.
    fn failed(&mut self) {
        let after = self.retry.map_or(RETRY_AFTER, |(_, after)| RETRY_AFTER_MAX.min(2 * after));
        self.retry = Some((Instant::now() + after, after));
        self.regather();
    }

    /// Begins the window again.
    fn regather(&mut self) {
        (self.window, self.gathered_bytes) = (Window::default(), self.at_bytes);
    }
}

/// Divides runs, each of which takes the place of so many index rows, into those that one slot links.
fn slots_of_links(rows: &[usize]) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let mut replaced = 0;
        let within = rows[from..].iter().take(LINK_RUNS_MAX).take_while(|rows| {
            replaced += **rows;
            replaced <= LINK_ROWS_MAX
        });
        let runs = from..from + within.count().max(1).min(rows.len() - from);
        from = runs.end;
        (!runs.is_empty()).then_some(runs)
    })
}

/// Sorts pieces and divides them into segments: a partition with much gets its own, the others share. What stands side by
/// side in one becomes one run, so of a partition with more pieces than a run may replace each part has its own.
fn plan(mut pieces: Vec<Piece>, own_bytes: u64) -> Vec<Vec<Piece>> {
    pieces.sort_unstable_by_key(|piece| (piece.shard, piece.partition, piece.base));
    let (mut out, mut shared) = (Vec::new(), Vec::new());
    let mut partitions: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces {
        match partitions.last_mut().filter(|last| last[0].partition == piece.partition) {
            Some(last) => last.push(piece),
            None => partitions.push(vec![piece]),
        }
    }
    for partition in partitions {
        if partition.len() > LINK_ROWS_MAX || partition.iter().map(|piece| piece.len).sum::<u64>() >= own_bytes {
            out.extend(partition.chunks(LINK_ROWS_MAX).map(<[Piece]>::to_vec));
            continue;
        }
        if shared.len() + partition.len() > SEGMENT_RUNS_MAX && !shared.is_empty() {
            out.push(std::mem::take(&mut shared));
        }
        shared.extend(partition);
    }
    if !shared.is_empty() {
        out.push(shared);
    }
    out
}

fn build(session: SessionId, segment: SegmentId, pieces: Vec<Piece>) -> Result<Ready> {
    let expected = conserve::expected(&pieces);
    let rows = conserve::rows_replaced(&expected, &pieces);
    let mut builder = SegmentBuilder::new()?;
    for piece in pieces {
        for batch in piece.batches {
            builder.push(piece.shard, piece.partition, &batch)?;
        }
    }
    let built = builder.finish()?;
    let header = Header::new(ObjectKind::Segment, session, 0);
    let object = Object::new(layout::segment(segment), header, built.body);
    Ok(Ready { object, content_len: built.content_len, expected, rows })
}

#[cfg(test)]
mod tests;
