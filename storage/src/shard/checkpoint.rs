//! Checkpoints: durable states of all that a session owns, so that a start needs only the log after the last one.
//!
//! A checkpoint holds what has changed since the one before and names the checkpoints that it builds on, its parts. So
//! its cost grows with what has changed. Small parts at the end are merged into the new one, so that there are few: a part
//! stays while it is more than [`MERGE_FACTOR`] times as large as what comes after it (ADR 13). It must not know what the
//! rows mean.

pub(crate) mod dirty;
mod format;
mod load;
mod merge;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::dirty::{Delta, Reference};
use self::format::{ChangesWriter, Head};
pub(crate) use self::format::{Part, parse_position};
pub(crate) use self::load::load;
use self::load::{Stored, with_layers};
use self::merge::Layer;
use crate::env::{apart, until};
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::{SessionId, Slot};
use crate::layout;
use crate::log::LogOptions;
use crate::metrics::{Health, StorageMetrics};
use crate::shard::rows::{Position, Row};
use crate::slot::{self, Created, Object};
use crate::state::{StateOp, StateStore};
use crate::store::ObjectStores;
use crate::wal::format::{Header, ObjectKind};
use crate::wal::writer::{StopReason, Writer, WriterParts};
use crate::watch;

/// A part is merged into a new checkpoint when it is at most so many times as large as what comes after it.
const MERGE_FACTOR: u64 = 2;
/// Checkpoints below this size count as this large: they cost a request each, whatever they hold.
const SIZE_MIN: u64 = 1024;
/// So many times the size of the last checkpoint goes into the log before the next one is due by bytes.
const LOG_PER_CHECKPOINT: u64 = 4;
/// Most parts of a checkpoint, itself among them; the last ones are merged before there are more.
const PARTS_MAX: usize = 12;

/// When checkpoints are due.
#[derive(Clone, Copy, Debug)]
struct CheckpointOptions {
    interval: Duration,
    wal_bytes: u64,
}

/// Writes checkpoints of one session.
pub(crate) struct Checkpointer {
    session: SessionId,
    stores: ObjectStores,
    state: Arc<dyn StateStore>,
    health: Arc<Health>,
    metrics: StorageMetrics,
    options: CheckpointOptions,
    requested: Arc<Requested>,
    durable: watch::Sender<Option<Durable>>,
}

/// The side of those who ask for checkpoints and wait for them.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    requested: Arc<Requested>,
    durable: watch::Receiver<Option<Durable>>,
}

/// What is asked of the task.
#[derive(Debug, Default)]
struct Requested {
    any: Notify,
    /// The next one is to build on no other.
    in_full: AtomicBool,
}

/// A checkpoint that is in the bucket and noted in the local state.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    /// The first slot that is not in it.
    pub(crate) next: Slot,
    /// The oldest first; the last one is the checkpoint itself.
    pub(crate) parts: Vec<Part>,
    /// The first slot that is not in the newest one which this session has written in full. Nothing that the newest one
    /// builds on is older.
    pub(crate) in_full: Option<Slot>,
    /// At this time it was durable.
    pub(crate) since: Instant,
}

impl Durable {
    pub(crate) fn number(&self) -> Slot {
        self.parts.last().expect("a checkpoint is its own last part").number
    }
}

/// All that a checkpoint which builds on this one names: its parts and itself.
///
/// # Errors
/// `Unavailable` when it cannot be read, `Corrupt` when it is missing or broken.
pub(crate) async fn parts_of(stores: &ObjectStores, session: SessionId, number: Slot) -> Result<Vec<Part>> {
    Ok(Stored::open(stores, session, number).await?.parts())
}

impl Checkpoints {
    /// Asks for a checkpoint now.
    pub(crate) fn request(&self) {
        self.requested.any.notify_one();
    }

    /// Asks for a checkpoint in full and waits until one holds every slot below `at`. Cancel safe.
    ///
    /// # Errors
    /// `Closed` when the session ends before.
    pub(crate) async fn in_full(&self, at: Slot) -> Result<()> {
        let holds = |durable: &Option<Durable>| durable.as_ref().is_some_and(|newest| newest.in_full >= Some(at));
        self.requested.in_full.store(true, Ordering::Release);
        self.request();
        let found = self.durable().wait_for(holds).await.map(drop);
        found.map_err(|_| Error::new(Kind::Closed, "the session ended before its checkpoint"))
    }

    /// The newest one of this session, as it changes.
    pub(crate) fn durable(&self) -> watch::Receiver<Option<Durable>> {
        self.durable.clone()
    }

    /// Asks for a checkpoint and waits for the next one. Cancel safe.
    ///
    /// # Errors
    /// `Closed` when the session ends before.
    pub(crate) async fn next(&self) -> Result<()> {
        let mut durable = self.durable();
        durable.mark_unchanged();
        self.request();
        durable.changed().await.map_err(|_| Error::new(Kind::Closed, "the session ended before its checkpoint"))
    }
}

impl Checkpointer {
    /// The task of a session, and where to ask it for checkpoints.
    pub(crate) fn new(options: &LogOptions, session: SessionId, parts: &WriterParts) -> (Self, Checkpoints) {
        let requested = Arc::<Requested>::default();
        let (sender, durable) = watch::channel(None);
        let WriterParts { stores, state, health, metrics, .. } = parts.clone();
        let options =
            CheckpointOptions { interval: options.checkpoint_interval, wal_bytes: options.checkpoint_wal_bytes };
        let checkpoints = Checkpoints { requested: Arc::clone(&requested), durable };
        (Self { session, stores, state, health, metrics, options, requested, durable: sender }, checkpoints)
    }

    /// Writes checkpoints when they are due, until the log takes nothing more.
    pub(crate) async fn run(self, writer: Arc<Writer>) {
        let mut committed = writer.committed_bytes();
        // What is in the last checkpoint, and what was committed when one was last tried.
        let (mut number, mut at_bytes, mut tried_bytes) = (Slot(0), 0, 0);
        let (mut last_time, mut last_size) = (Instant::now(), 0);
        loop {
            let new_bytes = *committed.borrow_and_update() - at_bytes;
            let wait_until = last_time + self.options.interval;
            let asked = tokio::select! {
                biased;
                _ = writer.stopped() => return,
                () = self.requested.any.notified() => true,
                changed = committed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
                () = until(Some(wait_until)), if new_bytes > 0 || self.is_asked_in_full() => false,
            };
            let bytes = *committed.borrow();
            let by_bytes = bytes - tried_bytes >= self.options.wal_bytes.max(LOG_PER_CHECKPOINT * last_size);
            let by_time = last_time.elapsed() >= self.options.interval && (bytes > at_bytes || self.is_asked_in_full());
            if !(asked || by_bytes || by_time) {
                continue;
            }
            let in_full = self.requested.in_full.swap(false, Ordering::AcqRel);
            // One under way may take long, and the next start does not need it.
            let written = tokio::select! {
                biased;
                _ = writer.stopped() => return,
                written = self.write(number, in_full) => written,
            };
            if written.is_err() && in_full {
                self.requested.in_full.store(true, Ordering::Release);
            }
            match written {
                Ok(Written::Done { size }) => {
                    (at_bytes, last_size) = (bytes, size);
                    number = number.next();
                }
                Ok(Written::Stop(reason)) => {
                    writer.stop(reason);
                    return;
                }
                Err(error) => tracing::warn!(%error, "checkpoint failed, it is tried again when the next one is due"),
            }
            tried_bytes = bytes;
            last_time = Instant::now();
        }
    }

    /// Writes one checkpoint. An error says that it is not there; the same number is tried again.
    async fn write(&self, number: Slot, in_full: bool) -> Result<Written> {
        let draft = if in_full { self.blocking(draft_of_everything).await? } else { self.draft().await? };
        let header = Header::new(ObjectKind::Checkpoint, self.session, number.0);
        let body = std::iter::once(draft.head.encode()).chain(draft.changes).collect();
        let object = Object::new(layout::checkpoint(self.session, number), header, body);
        let parts: Vec<Part> = draft.head.parts.iter().copied().chain([Part::of(&object.header)]).collect();
        match slot::create(&self.stores, &object, &self.health, None).await? {
            Created::Ours => {}
            Created::Taken(header) => {
                let why = format!("session {} was ended by session {}", self.session, header.author);
                return Ok(Written::Stop(StopReason::Fenced(why)));
            }
        }
        self.metrics.checkpoints.inc();
        let before = self.durable.borrow().as_ref().and_then(|durable| durable.in_full);
        let in_full = if draft.head.parts.is_empty() { Some(draft.head.next) } else { before };
        let durable = Durable { next: draft.head.next, parts: parts.clone(), in_full, since: Instant::now() };
        let (from, reference) = (draft.from, Reference { from: draft.applied, parts });
        let noted = self.blocking(move |state| {
            state.write(&reference.settle(from))?;
            // What is in the checkpoint is on the SSD, too: a start after a crash can go on from there.
            state.flush()
        });
        Ok(match noted.await {
            Ok(()) => {
                self.durable.send_replace(Some(durable));
                Written::Done { size: object.header.object_len() }
            }
            Err(error) => {
                Written::Stop(StopReason::Broken(format!("a checkpoint cannot be noted in the local state: {error}")))
            }
        })
    }

    fn is_asked_in_full(&self) -> bool {
        self.requested.in_full.load(Ordering::Acquire)
    }

    /// What the next checkpoint holds.
    async fn draft(&self) -> Result<Draft> {
        let Some((mut own, delta)) = self.blocking(draft_of_changes).await? else {
            return self.blocking(draft_of_everything).await;
        };
        let kept = own.head.parts.len() - merged_into(&own.head.parts, own.len());
        if kept == own.head.parts.len() {
            return Ok(own);
        }
        if kept > 0 {
            match self.merge(&own.head.parts[kept..], delta).await {
                Err(error) if error.kind() == Kind::Corrupt => {
                    tracing::warn!(error = %Chain(&error), "a part of a checkpoint is broken, the next one is written in full");
                }
                merged => {
                    own.changes = merged?;
                    own.head.parts.truncate(kept);
                    return Ok(own);
                }
            }
        }
        self.blocking(draft_of_everything).await
    }

    /// Parts, and what has changed since, as one.
    async fn merge(&self, parts: &[Part], delta: Delta) -> Result<Vec<Bytes>> {
        let parts = Stored::open_all(&self.stores, parts).await?;
        let merge = move |mut layers: Vec<Layer>| {
            layers.push(delta.into_layer());
            compress(Layer::merged(layers)?.into_ops())
        };
        with_layers(&self.stores, parts, merge).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn StateStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let state = Arc::clone(&self.state);
        apart("checkpoint", move || work(&*state)).await
    }
}

enum Written {
    Done {
        size: u64,
    },
    /// The session has ended, or must.
    Stop(StopReason),
}

/// A checkpoint that is not written yet.
struct Draft {
    head: Head,
    changes: Vec<Bytes>,
    /// The dirty rows that are in it.
    from: u64,
    applied: u64,
}

impl Draft {
    fn len(&self) -> u64 {
        self.changes.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// How many of the last parts go into a new checkpoint whose own changes have `len` bytes.
fn merged_into(parts: &[Part], len: u64) -> usize {
    let (mut len, mut merged) = (len.max(SIZE_MIN), 0);
    for part in parts.iter().rev() {
        let few = parts.len() - merged < PARTS_MAX;
        if few && part.len > MERGE_FACTOR * len {
            break;
        }
        len += part.len;
        merged += 1;
    }
    merged
}

/// The changes since the last checkpoint; `None` when it is not known what they come after, or when they are too many.
fn draft_of_changes(state: &dyn StateStore) -> Result<Option<(Draft, Delta)>> {
    let (position, reference) = dirty::local(state)?;
    let Some(Reference { from, parts }) = reference else { return Ok(None) };
    let Some(delta) = Delta::collect(state, from, position.applied)? else { return Ok(None) };
    let changes = compress(delta.ops().map(Ok))?;
    let head = Head { next: position.next, hash: position.hash, parts };
    Ok(Some((Draft { head, changes, from, applied: position.applied }, delta)))
}

/// All rows, as a stream from a snapshot.
fn draft_of_everything(state: &dyn StateStore) -> Result<Draft> {
    let mut position = None;
    let mut out = ChangesWriter::new()?;
    for row in state.snapshot() {
        let (key, value) = row?;
        let forgotten = (planted!(ProducersForgotten) && layout::is_producer(&key))
            || (planted!(CloseForgotten) && layout::is_stream(&key))
            || (planted!(ForkForgotten) && layout::is_fork(&key));
        if forgotten {
            continue;
        }
        if layout::is_checkpointed(&key) {
            out.add(&StateOp::Put(key, value))?;
        } else if key == layout::position_key() {
            position = Some(Position::parse(value)?);
        }
    }
    let position = position.ok_or_else(|| Error::new(Kind::Corrupt, "state store has no position"))?;
    let head = Head { next: position.next, hash: position.hash, parts: Vec::new() };
    Ok(Draft { head, changes: out.finish()?, from: 0, applied: position.applied })
}

fn compress(ops: impl Iterator<Item = Result<StateOp>>) -> Result<Vec<Bytes>> {
    let mut out = ChangesWriter::new()?;
    for op in ops {
        out.add(&op?)?;
    }
    out.finish()
}

#[cfg(test)]
mod tests;
