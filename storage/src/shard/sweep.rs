//! Deletes what nothing needs any more: slots and segments without a record that is kept, and checkpoints that are no part
//! of the newest one (ADR 19). Fences, claims and metas stay for ever.
//!
//! A sweep looks at the state (what is referred to) and at the bucket (what is there), waits until a checkpoint holds
//! that state, then for the grace, looks again, and deletes. What it judges by never comes back: an object to which nothing
//! refers is never referred to again. So it does no harm that its session may have been ended meanwhile. When in doubt it
//! keeps.

mod survey;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::survey::Referenced;
use crate::env::{apart, until};
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::{Epoch, SegmentId, SessionId, Slot};
use crate::layout::{self, Deletable};
use crate::log::LogOptions;
use crate::metrics::StorageMetrics;
use crate::segment::unsettled::Unsettled;
use crate::shard::checkpoint::{Checkpoints, Durable};
use crate::shard::claim::{self, CATALOG_SHARD};
use crate::shard::rows::Position;
use crate::slot::{self, read_header, unreadable};
use crate::state::StateStore;
use crate::store::ObjectStores;
use crate::wal::format::HEADER_BYTES;
use crate::wal::writer::{Writer, WriterParts};

/// Most objects of one sweep; the next one finds the rest.
const OBJECTS_MAX: usize = 200_000;
/// Objects are deleted so many at a time.
const DELETE_AT_ONCE: usize = 100;
/// Headers of segments are read so many at a time.
const HEADERS_AT_ONCE: usize = 8;

/// Asks for a sweep now; answered when what was not needed then is deleted.
pub(crate) type Request = oneshot::Sender<Result<()>>;

/// When objects are deleted.
#[derive(Clone, Copy, Debug)]
struct SweepOptions {
    /// How often the bucket is listed while there are new checkpoints.
    interval: Duration,
    /// So long after the checkpoint that no longer needs an object it is still there, for those who read it.
    grace: Duration,
}

/// Deletes for one session, which holds all shards.
pub(crate) struct Sweeper {
    session: SessionId,
    /// Of the session's claim of the catalog.
    epoch: Epoch,
    stores: ObjectStores,
    state: Arc<dyn StateStore>,
    metrics: StorageMetrics,
    options: SweepOptions,
    checkpoints: Checkpoints,
    /// Segments of this session that may still be linked.
    unsettled: Unsettled,
    requests: mpsc::Receiver<Request>,
}

/// An object that may go.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    name: Deletable,
    len: u64,
}

/// What a session has learned of others.
struct Known {
    /// The owners of the catalog before it, as far back as they were asked for.
    predecessors: HashSet<SessionId>,
    /// The oldest claim that was read.
    down_to: Epoch,
    /// Who wrote segments that are not referred to.
    authors: HashMap<SegmentId, SessionId>,
}

impl Sweeper {
    /// The task of a session with its claim of the catalog, and where to ask it for a sweep.
    pub(crate) fn new(
        options: &LogOptions,
        (session, epoch): (SessionId, Epoch),
        parts: &WriterParts,
        (checkpoints, unsettled): (Checkpoints, Unsettled),
    ) -> (Self, mpsc::Sender<Request>) {
        let (sender, requests) = mpsc::channel(1);
        let WriterParts { stores, state, metrics, .. } = parts.clone();
        let options = SweepOptions { interval: options.sweep_interval, grace: options.delete_grace };
        (Self { session, epoch, stores, state, metrics, options, checkpoints, unsettled, requests }, sender)
    }

    /// Sweeps until the log takes nothing more.
    pub(crate) async fn run(self, writer: Arc<Writer>) {
        tokio::select! {
            _ = writer.stopped() => {}
            () = self.sweep_again_and_again() => {}
        }
    }

    async fn sweep_again_and_again(mut self) {
        let mut durable = self.checkpoints.durable();
        let mut known = Known { predecessors: HashSet::new(), down_to: self.epoch, authors: HashMap::new() };
        let mut next = Instant::now();
        loop {
            // Before its own first checkpoint a session deletes nothing; without a new one there is nothing new to delete.
            let due = async {
                until(Some(next)).await;
                durable.changed().await.is_ok()
            };
            let asked = tokio::select! {
                biased;
                Some(request) = self.requests.recv() => Some(request),
                due = due => if due { None } else { return },
            };
            next = Instant::now() + self.options.interval;
            let swept =
                if asked.is_some() { self.sweep_all(&mut known).await } else { self.sweep(&mut known).await.map(drop) };
            self.metrics.pending_deletes.set(0);
            match (asked, swept) {
                // Who asked may be gone.
                (Some(request), swept) => drop(request.send(swept)),
                (None, Ok(())) => {}
                (None, Err(error)) => {
                    tracing::warn!(error = %Chain(&error), "objects that are not needed stay until the next sweep");
                }
            }
        }
    }

    /// Sweeps until all is deleted that was not needed at the begin.
    async fn sweep_all(&self, known: &mut Known) -> Result<()> {
        let mut open = self.unsettled.all();
        while self.sweep(known).await? {}
        open.retain(|segment| self.unsettled.all().contains(segment));
        let kept = || format!("{} segments stay that may still be linked", open.len());
        if open.is_empty() { Ok(()) } else { Err(Error::new(Kind::Busy, kept())) }
    }

    /// True when there are more objects to delete than one sweep takes.
    async fn sweep(&self, known: &mut Known) -> Result<bool> {
        // In this order: what was committed after the survey is not below this checkpoint.
        let newest = self.newest()?;
        let (referenced, _) = self.survey().await?;
        let unneeded = self.unneeded(&referenced, &newest).await?;
        let is_full = unneeded.len() >= OBJECTS_MAX;
        let mut candidates = self.of_ended_logs(unneeded, known).await?;
        if candidates.is_empty() {
            return Ok(false);
        }
        // The first survey spared the memory for what is needed. A segment that was made since was listed all the same.
        let (referenced, at) = self.survey().await?;
        candidates.retain(|candidate| !is_needed(candidate.name, &referenced, &newest));
        self.metrics.pending_deletes.set(i64::try_from(candidates.len()).unwrap_or(i64::MAX));
        let since = if planted!(DeletedBeforeCheckpoint) { newest.since } else { self.checkpoint_at(at).await? };
        if !planted!(GraceIgnored) {
            until(Some(since + self.options.grace)).await;
        }
        let (referenced, _) = self.survey().await?;
        let newest = self.newest()?;
        let doomed = candidates.into_iter().filter(|candidate| !is_needed(candidate.name, &referenced, &newest));
        let doomed: Vec<Candidate> = doomed.collect();
        let more = is_full && !doomed.is_empty();
        self.let_go(doomed).await?;
        Ok(more)
    }

    /// What the state refers to, or may come to refer to, and a slot up to which this is so: the next one after it was
    /// looked through.
    async fn survey(&self) -> Result<(Referenced, Slot)> {
        let state = Arc::clone(&self.state);
        // Before the rows are looked through: one that is settled in between is among them.
        let unsettled = if planted!(UnlinkedDeleted) { HashSet::new() } else { self.unsettled.all() };
        apart("a sweep", move || {
            let referenced = Referenced::survey(&*state, unsettled)?;
            let position = Position::load(&*state)?;
            Ok((referenced, position.map(|position| position.next).unwrap_or_default()))
        })
        .await
    }

    /// All objects that are not needed, of whichever session.
    async fn unneeded(&self, referenced: &Referenced, newest: &Durable) -> Result<Vec<Candidate>> {
        let mut out = Vec::new();
        for prefix in [layout::logs_prefix(), layout::segments_prefix()] {
            let failed = |error| unreadable(&prefix, error);
            let mut listed = self.stores.read.list(Some(&prefix));
            while let Some(object) = listed.try_next().await.map_err(failed)? {
                let Some(name) = Deletable::parse(&object.location) else { continue };
                // Only fences have no body.
                let is_fence = object.size <= HEADER_BYTES as u64 && !planted!(FenceDeleted);
                if !is_fence && !self.is_open(name, newest) && !is_needed(name, referenced, newest) {
                    out.push(Candidate { name, len: object.size });
                }
                if out.len() >= OBJECTS_MAX {
                    return Ok(out);
                }
            }
        }
        Ok(out)
    }

    /// Whether it is of this session and not below its newest checkpoint.
    fn is_open(&self, name: Deletable, newest: &Durable) -> bool {
        match name {
            Deletable::Slot(..) if planted!(DeletedBeforeCheckpoint) => false,
            Deletable::Slot(session, slot) => session == self.session && slot >= newest.next,
            Deletable::Checkpoint(session, number) => session == self.session && number >= newest.number(),
            Deletable::Segment(_) => false,
        }
    }

    /// Those of this session and of sessions that owned the catalog before it. Of others it cannot know anything: they may
    /// have ended this one.
    async fn of_ended_logs(&self, unneeded: Vec<Candidate>, known: &mut Known) -> Result<Vec<Candidate>> {
        if planted!(StrangersDeleted) {
            return Ok(unneeded);
        }
        self.learn_authors(&unneeded, known).await?;
        let session_of = |known: &Known, name: Deletable| match name {
            Deletable::Slot(session, _) | Deletable::Checkpoint(session, _) => Some(session),
            Deletable::Segment(segment) => known.authors.get(&segment).copied(),
        };
        let mut unknown: HashSet<SessionId> =
            unneeded.iter().filter_map(|candidate| session_of(known, candidate.name)).collect();
        unknown.retain(|session| *session != self.session && !known.predecessors.contains(session));
        while !unknown.is_empty() && known.down_to > Epoch(1) {
            let before = Epoch(known.down_to.0 - 1);
            let owner = claim::read(&self.stores, CATALOG_SHARD, before).await?.owner;
            known.predecessors.insert(owner);
            known.down_to = before;
            unknown.remove(&owner);
        }
        let may_go = |candidate: &Candidate| {
            let session = session_of(known, candidate.name);
            session.is_some_and(|session| session == self.session || known.predecessors.contains(&session))
        };
        Ok(unneeded.into_iter().filter(may_go).collect())
    }

    /// The name of a segment does not say who wrote it; its header does.
    async fn learn_authors(&self, unneeded: &[Candidate], known: &mut Known) -> Result<()> {
        let segments = unneeded.iter().filter_map(|candidate| match candidate.name {
            Deletable::Segment(segment) => Some(segment),
            Deletable::Slot(..) | Deletable::Checkpoint(..) => None,
        });
        let segments: BTreeSet<SegmentId> = segments.collect();
        known.authors.retain(|segment, _| segments.contains(segment));
        let unread: Vec<SegmentId> = segments.into_iter().filter(|one| !known.authors.contains_key(one)).collect();
        let mut headers = stream::iter(unread)
            .map(|segment| async move {
                Ok::<_, Error>((segment, read_header(&self.stores, &layout::segment(segment)).await?))
            })
            .buffer_unordered(HEADERS_AT_ONCE);
        while let Some((segment, header)) = headers.try_next().await? {
            known.authors.extend(header.map(|header| (segment, header.session)));
        }
        Ok(())
    }

    /// Waits for a checkpoint of the state up to `at`: one is due, if there is none. Gives a time at which it was durable.
    async fn checkpoint_at(&self, at: Slot) -> Result<Instant> {
        let mut durable = self.checkpoints.durable();
        let holds = |durable: &Option<Durable>| durable.as_ref().is_some_and(|durable| durable.next >= at);
        let found = durable.wait_for(holds).await.map_err(|_| ended())?;
        found.as_ref().map(|durable| durable.since).ok_or_else(ended)
    }

    fn newest(&self) -> Result<Durable> {
        self.checkpoints.durable().borrow().clone().ok_or_else(ended)
    }

    async fn let_go(&self, doomed: Vec<Candidate>) -> Result<()> {
        let mut pending = doomed.len();
        for some in doomed.chunks(DELETE_AT_ONCE) {
            let lens: BTreeMap<Path, u64> = some.iter().map(|one| (one.name.path(), one.len)).collect();
            let mut deleted = slot::delete(&self.stores, lens.keys().cloned().collect());
            while let Some(path) = deleted.try_next().await? {
                self.metrics.deleted_objects.inc();
                self.metrics.deleted_bytes.inc_by(lens.get(&path).copied().unwrap_or_default());
            }
            pending -= some.len();
            self.metrics.pending_deletes.set(i64::try_from(pending).unwrap_or(i64::MAX));
        }
        if !doomed.is_empty() {
            tracing::info!(objects = doomed.len(), "deleted objects that nothing needs any more");
        }
        Ok(())
    }
}

fn ended() -> Error {
    Error::new(Kind::Closed, "the session ended")
}

/// Whether an object is needed, by a record that is kept or for a restore, when its log goes no further.
fn is_needed(name: Deletable, referenced: &Referenced, newest: &Durable) -> bool {
    match name {
        Deletable::Checkpoint(session, number) if planted!(PartDeleted) => {
            newest.parts.last().is_some_and(|part| (part.session, part.number) == (session, number))
        }
        Deletable::Checkpoint(session, number) => {
            newest.parts.iter().any(|part| (part.session, part.number) == (session, number))
        }
        Deletable::Slot(..) | Deletable::Segment(_) => referenced.has(name),
    }
}
