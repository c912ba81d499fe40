//! The side of the writer that callers use: appends and changes go into the open buffer and wait for their slot.
//!
//! What happens to the buffer is the pipeline's. It must not know what records mean.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use crate::error::{Error, Kind, Result};
use crate::feed::Feeds;
use crate::ids::{ClusterId, Partition, SessionId, Timestamp};
use crate::metrics::{Health, StorageMetrics};
use crate::record::Batch;
use crate::segment::link::Link;
use crate::shard::changes::{Change, Entry, Receipt};
use crate::shard::rows::PartitionRow;
use crate::state::StateStore;
use crate::store::ObjectStores;
use crate::tail::Tail;
use crate::wal::buffer::terms::{Accepted, Known, Offer};
use crate::wal::buffer::{Core, OpenBuffer, Outcome, Submitted, room_of};

/// How long an append may wait for room in the buffer before it is refused.
const ROOM_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a session's log takes nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was closed.
    Closed,
    /// Another session ended it.
    Fenced(String),
    /// Something that must hold does not.
    Broken(String),
}

/// How the writer behaves.
#[derive(Clone, Debug)]
pub(crate) struct WriterOptions {
    pub(crate) cluster: ClusterId,
    pub(crate) session: SessionId,
    pub(crate) shards: u16,
    pub(crate) slot_bytes: usize,
    /// `None`: only a finished flush starts the next one.
    pub(crate) flush_interval: Option<Duration>,
    pub(crate) in_flight_max: usize,
    pub(crate) pending_bytes_max: usize,
    /// After this an open outcome is answered as unknown.
    pub(crate) append_timeout: Duration,
    /// An idle writer looks this often whether its session was ended.
    pub(crate) fence_check_interval: Duration,
}

/// What the writer works on.
#[derive(Clone)]
pub(crate) struct WriterParts {
    pub(crate) stores: ObjectStores,
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: StorageMetrics,
}

/// The side of the writer that callers use.
pub(crate) struct Writer {
    pub(super) options: WriterOptions,
    pub(super) parts: WriterParts,
    pub(super) room: Semaphore,
    pub(super) wake: Notify,
    pub(super) closing: watch::Sender<bool>,
    pub(super) stopped: watch::Sender<Option<StopReason>>,
    pub(super) committed_bytes: watch::Sender<u64>,
    core: Mutex<Core>,
}

impl Writer {
    pub(crate) fn new(options: WriterOptions, parts: WriterParts) -> Arc<Self> {
        let room = Semaphore::new(room_of(options.pending_bytes_max));
        Arc::new(Self {
            options,
            parts,
            core: Mutex::new(Core::new()),
            room,
            wake: Notify::new(),
            closing: watch::channel(false).0,
            stopped: watch::channel(None).0,
            committed_bytes: watch::channel(0).0,
        })
    }

    /// Appends a batch; returns when it is committed. Dropping the future does not undo it.
    pub(crate) async fn append(&self, partition: Partition, batch: Batch, now: Timestamp) -> Result<Submitted> {
        let room = room_of(batch.len());
        self.take_room(room).await?;
        let submitted = self.core().append(&*self.parts.state, partition, batch, now);
        let mut submitted = match submitted {
            Ok(submitted) => submitted,
            Err(error) => {
                self.room.add_permits(room);
                return Err(error);
            }
        };
        self.wake.notify_one();
        settled(&mut submitted.outcome).await?;
        Ok(submitted)
    }

    /// Appends a batch if its terms hold; true when it is an append that was accepted before. Dropping the future does not
    /// undo it.
    pub(crate) async fn append_if(&self, offer: Offer<'_>, batch: Batch) -> Result<(Receipt, bool)> {
        let count = batch.count();
        // What was accepted before needs no room and no store: it is answered while there is neither.
        let known = self.core().known(&*self.parts.state, offer)?;
        let accepted = match known {
            Some(known) => Accepted::Known(known),
            None => self.offer(offer, batch).await?,
        };
        match accepted {
            Accepted::New(Submitted { base, timestamp, mut outcome }) => {
                self.wake.notify_one();
                settled(&mut outcome).await?;
                Ok((Receipt { base, count, timestamp }, false))
            }
            Accepted::Known(Known::Stored(receipt)) => Ok((receipt, true)),
            Accepted::Known(Known::Pending(receipt, mut outcome)) => {
                let limit = self.options.append_timeout;
                let ended = tokio::time::timeout(limit, certain(&mut outcome)).await;
                ended.unwrap_or_else(|_| {
                    let text = format!("the object store gave no answer within {limit:?}");
                    Err(Error::new(Kind::Unknown, text))
                })?;
                Ok((receipt, true))
            }
        }
    }

    async fn offer(&self, offer: Offer<'_>, batch: Batch) -> Result<Accepted> {
        let room = room_of(batch.len());
        self.take_room(room).await?;
        let accepted = self.core().append_if(&*self.parts.state, offer, batch);
        if !matches!(accepted, Ok(Accepted::New(_))) {
            self.room.add_permits(room);
        }
        accepted
    }

    /// Commits a change.
    pub(crate) async fn change(&self, change: &Change) -> Result<()> {
        let room = room_of(change.len());
        self.take_room(room).await?;
        let accepted = self.core().change(&*self.parts.state, change);
        let mut outcome = accepted.inspect_err(|_| self.room.add_permits(room))?;
        self.wake.notify_one();
        settled(&mut outcome).await
    }

    /// Commits entries of the log itself.
    pub(crate) async fn commit_entries(&self, entries: Vec<Entry>) -> Result<()> {
        let mut outcome = {
            let mut core = self.core();
            core.put_entries(entries);
            core.open.outcome.subscribe()
        };
        self.wake.notify_one();
        settled(&mut outcome).await
    }

    /// Commits links of a segment.
    pub(crate) async fn commit_links(&self, links: Vec<Link>) -> Result<()> {
        let mut outcome = self.core().put_links(links)?;
        self.wake.notify_one();
        settled(&mut outcome).await
    }

    /// The committed bounds of a partition.
    pub(crate) fn committed(&self, partition: Partition) -> Result<PartitionRow> {
        self.core().committed(&*self.parts.state, partition)
    }

    /// Resolves when the log takes nothing more.
    pub(crate) async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or(StopReason::Closed)
    }

    /// Committed bytes so far; changes with each commit.
    pub(crate) fn committed_bytes(&self) -> watch::Receiver<u64> {
        self.committed_bytes.subscribe()
    }

    /// Takes nothing new, commits what was taken.
    pub(crate) fn close(&self) {
        self.core().stopped.get_or_insert_with(|| (Kind::Closed, Arc::from("the log is closed")));
        self.closing.send_replace(true);
    }

    /// Ends the session for a reason that was found elsewhere.
    pub(crate) fn stop(&self, reason: StopReason) {
        let (kind, why) = match &reason {
            StopReason::Closed => (Kind::Closed, "the log is closed"),
            StopReason::Fenced(why) => (Kind::Fenced, why.as_str()),
            StopReason::Broken(why) => (Kind::Closed, why.as_str()),
        };
        let open = {
            let mut core = self.core();
            core.stopped.get_or_insert_with(|| (kind, Arc::from(why)));
            core.undo_open()
        };
        self.fail_buffer(open, kind, why);
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert(reason);
            first
        });
        self.parts.feeds.all_moved();
    }

    async fn take_room(&self, room: usize) -> Result<()> {
        self.check_available()?;
        let count = u32::try_from(room).expect("a batch is bounded far below 4 TiB");
        if let Ok(permit) = self.room.try_acquire_many(count) {
            permit.forget();
            return Ok(());
        }
        match tokio::time::timeout(ROOM_TIMEOUT, self.room.acquire_many(count)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => {
                let limit = self.options.pending_bytes_max;
                Err(Error::new(Kind::Busy, format!("more than {limit} bytes wait to be stored")))
            }
        }
    }

    fn check_available(&self) -> Result<()> {
        if self.parts.health.is_away() {
            return Err(Error::new(Kind::Unavailable, "the object store cannot be reached"));
        }
        Ok(())
    }

    pub(super) fn fail_buffer(&self, open: OpenBuffer, kind: Kind, why: &str) {
        self.room.add_permits(open.room);
        open.outcome.send_replace(Outcome::Failed(kind, Arc::from(why)));
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn settled(outcome: &mut watch::Receiver<Outcome>) -> Result<()> {
    let settled = outcome.wait_for(|outcome| !matches!(outcome, Outcome::Pending)).await;
    match settled.as_deref() {
        Ok(Outcome::Committed) => Ok(()),
        Ok(Outcome::Failed(kind, why)) => Err(Error::new(*kind, why.to_string())),
        Ok(Outcome::Pending) | Err(_) => Err(Error::new(Kind::Unknown, "the log ended before the outcome was known")),
    }
}

/// The outcome of an append of someone else: one that he was told is not known may still be known in time.
async fn certain(outcome: &mut watch::Receiver<Outcome>) -> Result<()> {
    let open = |outcome: &Outcome| matches!(outcome, Outcome::Pending | Outcome::Failed(Kind::Unknown, _));
    // An error says that there will be no other outcome: the last one is it.
    drop(outcome.wait_for(|outcome| !open(outcome)).await);
    settled(outcome).await
}
