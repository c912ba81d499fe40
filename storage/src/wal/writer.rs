//! The side of the writer that callers use: appends and changes go into the open buffer and wait for their slot.
//!
//! What happens to the buffer is the pipeline's. It must not know what records mean.

mod fork;
mod outcome;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tracing::Span;

use crate::durability::{Durability, Gap};
use crate::env::Clock;
use crate::error::{Error, Kind, Result};
use crate::feed::Feeds;
use crate::ids::{ClusterId, Epoch, Offset, Partition, SessionId};
use crate::metrics::{Health, Lag, StorageMetrics};
use crate::record::Batch;
use crate::shard::changes::{Change, Entry, Receipt};
use crate::shard::rows::PartitionRow;
use crate::spans;
use crate::state::StateStore;
use crate::store::ObjectStores;
use crate::tail::Tail;
use crate::wal::buffer::early::{Ack, At, LateHalf, Want};
use crate::wal::buffer::terms::{Accepted, Known, Offer};
use crate::wal::buffer::{Core, OpenBuffer, Outcome, Room, Submitted, TRIM_BYTES, bytes_of, room_of};
use crate::wal::journal::{Journal, Journaled};
use crate::wal::recover::Recovered;
use crate::watch;

use self::outcome::settled;

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
    /// Of the session's claim of the catalog.
    pub(crate) epoch: Epoch,
    pub(crate) shards: u16,
    pub(crate) slot_bytes: usize,
    /// `None`: only a finished flush starts the next one.
    pub(crate) flush_interval: Option<Duration>,
    pub(crate) in_flight_max: usize,
    pub(crate) pending_bytes_max: usize,
    /// Bounds of what is acknowledged before it is stored.
    pub(crate) unstored_bytes_max: usize,
    pub(crate) unstored_age_max: Duration,
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
    /// Where records of the class `local` go first; `None` without a local disk.
    pub(crate) journal: Option<Arc<Journal>>,
    /// Says when changes are sealed, for those who look for a moment in the log.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The side of the writer that callers use.
pub(crate) struct Writer {
    pub(super) options: WriterOptions,
    pub(super) parts: Arc<WriterParts>,
    pub(super) room: Semaphore,
    /// The room of what is acknowledged before it is stored.
    unstored_room: Semaphore,
    pub(super) wake: Notify,
    pub(super) closing: watch::Sender<bool>,
    pub(super) stopped: watch::Sender<Option<StopReason>>,
    pub(super) committed_bytes: watch::Sender<u64>,
    core: Mutex<Core>,
}

impl Writer {
    pub(crate) fn new(options: WriterOptions, parts: WriterParts) -> Arc<Self> {
        let room = Semaphore::new(room_of(options.pending_bytes_max));
        let unstored_room = Semaphore::new(room_of(options.unstored_bytes_max));
        let mut core = Core::new();
        core.slot_bytes = options.slot_bytes;
        core.journal.clone_from(&parts.journal);
        Arc::new(Self {
            options,
            parts: Arc::new(parts),
            core: Mutex::new(core),
            room,
            unstored_room,
            wake: Notify::new(),
            closing: watch::channel(false).0,
            stopped: watch::channel(None).0,
            committed_bytes: watch::channel(0).0,
        })
    }

    /// Appends a batch; returns when it is acknowledged, with the class that was reached. Dropping the future does not
    /// undo it.
    pub(crate) async fn append(&self, at: At, batch: Batch) -> Result<(Receipt, Durability)> {
        // Until it is acknowledged.
        let span = spans::append(at.partition, &batch);
        let (receipt, ack) = self.submit(at, batch, &span).await?;
        Ok((receipt, self.acknowledged(ack).await?))
    }

    /// Puts a batch into the open buffer; returns what to wait for. What comes after it is stored after it, or with it.
    pub(crate) async fn submit(&self, mut at: At, batch: Batch, span: &Span) -> Result<(Receipt, Ack)> {
        let count = batch.count();
        let room = self.take_room_of(at.want, batch.len()).await?;
        let submitted = {
            let mut core = self.core();
            at.want.away = self.parts.health.is_away();
            core.roll();
            let remembered = core.open.early.entries.len();
            core.append(&*self.parts.state, at, batch).map(|submitted| {
                core.open.traced.add(span);
                let shown = self.show_or_journal(&core, at.partition, &submitted, remembered);
                (submitted, shown, core.is_news())
            })
        };
        let (submitted, shown, news) = match submitted {
            Ok(submitted) => submitted,
            Err(error) => {
                self.give_back(room);
                return Err(self.refused(at.partition, error).await);
            }
        };
        self.submitted(at.partition, shown, news);
        let Submitted { base, timestamp, ack, .. } = submitted;
        Ok((Receipt { base, count, timestamp }, ack))
    }

    /// Appends a batch if its terms hold; true when it is an append that was accepted before. Dropping the future does not
    /// undo it.
    pub(crate) async fn append_if(&self, offer: Offer<'_>, batch: Batch) -> Result<(Receipt, bool, Durability)> {
        let count = batch.count();
        let span = spans::append(offer.partition, &batch);
        // What was accepted before needs no room and no store: it is answered while there is neither.
        let known = self.core().known(&*self.parts.state, offer)?;
        let accepted = match known {
            Some(known) => Accepted::Known(known),
            None => match self.offer(offer, batch, &span).await {
                Ok(accepted) => accepted,
                Err(error) => return Err(self.refused(offer.partition, error).await),
            },
        };
        match accepted {
            Accepted::New(Submitted { base, timestamp, ack, .. }) => {
                let reached = self.acknowledged(ack).await?;
                Ok((Receipt { base, count, timestamp }, false, reached))
            }
            Accepted::Known(Known::Stored(receipt)) => Ok((receipt, true, Durability::Object)),
            Accepted::Known(Known::Pending(receipt, ack)) => Ok((receipt, true, self.certain(ack).await?)),
        }
    }

    async fn offer(&self, mut offer: Offer<'_>, batch: Batch, span: &Span) -> Result<Accepted> {
        let room = self.take_room_of(offer.want, batch.len()).await?;
        let (accepted, shown, news) = {
            let mut core = self.core();
            offer.want.away = self.parts.health.is_away();
            core.roll();
            let remembered = core.open.early.entries.len();
            let accepted = core.append_if(&*self.parts.state, offer, batch);
            let shown = match &accepted {
                Ok(Accepted::New(submitted)) => {
                    core.open.traced.add(span);
                    self.show_or_journal(&core, offer.partition, submitted, remembered)
                }
                Ok(Accepted::Known(_)) | Err(_) => {
                    self.give_back(room);
                    return accepted;
                }
            };
            (accepted, shown, core.is_news())
        };
        self.submitted(offer.partition, shown, news);
        accepted
    }

    /// Shows a batch that is acknowledged at once, true, or gives it to the journal. Under the lock: in the order of offsets.
    fn show_or_journal(&self, core: &Core, partition: Partition, submitted: &Submitted, remembered: usize) -> bool {
        let Some(batch) = &submitted.early else { return false };
        match &submitted.ack {
            Ack::Late(_) => false,
            Ack::Now(_) => {
                self.parts.tail.show(partition, Arc::clone(batch));
                true
            }
            Ack::Journal(number, _) => {
                let journal = self.parts.journal.as_ref().expect("only a journal gives numbers");
                let entries = core.open.early.entries[remembered..].to_vec();
                journal.push(Journaled {
                    number: *number,
                    buffer: core.open.sequence,
                    partition,
                    batch: Arc::clone(batch),
                    entries,
                });
                false
            }
        }
    }

    fn submitted(&self, partition: Partition, shown: bool, news: bool) {
        if news {
            self.wake.notify_one();
        }
        if shown {
            self.parts.feeds.moved([partition]);
        }
    }

    /// The journal has these: shows them, in order, and wakes those who follow.
    pub(super) fn journaled(&self, batches: &[Journaled]) {
        let mut moved = Vec::new();
        {
            let mut core = self.core();
            for Journaled { partition, batch, .. } in batches {
                if core.journaled(*partition, batch) {
                    self.parts.tail.show(*partition, Arc::clone(batch));
                    moved.push(*partition);
                }
            }
        }
        self.parts.feeds.moved(moved);
    }

    /// Commits again what an earlier session had journaled; returns when it is.
    pub(crate) async fn recover(&self, batches: Vec<Recovered>) -> Result<()> {
        let outcome = {
            let mut core = self.core();
            for batch in batches {
                core.recover(&*self.parts.state, batch)?;
            }
            core.open.outcome.subscribe()
        };
        self.committed(outcome).await
    }

    /// Commits where partitions end that an earlier session owned; returns when it is.
    pub(crate) async fn recover_tails(&self, tails: &[(Partition, Option<Gap>)]) -> Result<()> {
        let outcome = {
            let mut core = self.core();
            for &(partition, gap) in tails {
                core.recover_tail(&*self.parts.state, partition, gap)?;
            }
            core.open.outcome.subscribe()
        };
        self.committed(outcome).await
    }

    /// Has the pipeline look at what was put in, and waits for its slot.
    async fn committed(&self, mut outcome: watch::Receiver<Outcome>) -> Result<()> {
        self.wake.notify_one();
        settled(&mut outcome).await
    }

    /// The next offset of a partition.
    pub(crate) fn next_offset(&self, partition: Partition) -> Result<Offset> {
        self.core().next_offset(&*self.parts.state, partition)
    }

    /// Commits a change.
    pub(crate) async fn change(&self, change: &Change) -> Result<()> {
        let room = room_of(change.len());
        self.take_room(room).await?;
        let accepted = {
            let mut core = self.core();
            self.check_available().and_then(|()| core.change(&*self.parts.state, change))
        };
        let outcome = accepted.inspect_err(|_| self.room.add_permits(room))?;
        self.committed(outcome).await
    }

    /// Moves starts; returns when they are committed. Those of partitions that are gone are passed over.
    pub(crate) async fn trim(&self, trims: &[(Partition, Offset)]) -> Result<()> {
        let room = room_of(trims.len() * TRIM_BYTES);
        self.take_room(room).await?;
        let accepted = {
            let mut core = self.core();
            self.check_available().and_then(|()| core.trim(&*self.parts.state, trims))
        };
        if !matches!(accepted, Ok(Some(_))) {
            self.room.add_permits(room);
        }
        match accepted? {
            Some(outcome) => self.committed(outcome).await,
            None => Ok(()),
        }
    }

    /// Commits entries of the log itself.
    pub(crate) async fn commit_entries(&self, entries: Vec<Entry>) -> Result<()> {
        let outcome = {
            let mut core = self.core();
            core.put_entries(entries);
            core.open.outcome.subscribe()
        };
        self.committed(outcome).await
    }

    /// Commits links and cleanings.
    pub(crate) async fn commit_links(&self, links: Vec<Entry>) -> Result<()> {
        let outcome = self.core().put_links(links)?;
        self.committed(outcome).await
    }

    /// The committed bounds of a partition, and the end of what may be read.
    pub(crate) fn bounds(&self, partition: Partition) -> Result<(PartitionRow, Offset)> {
        self.core().bounds(&*self.parts.state, partition)
    }

    /// Where records of the class `local` go first.
    pub(crate) fn journal(&self) -> Option<&Arc<Journal>> {
        self.parts.journal.as_ref()
    }

    /// How many shards the cluster has.
    pub(crate) fn shards(&self) -> u16 {
        self.options.shards
    }

    /// What is acknowledged and not stored.
    pub(crate) fn upload_lag(&self) -> Lag {
        let taken = room_of(self.options.unstored_bytes_max) - self.unstored_room.available_permits();
        Lag { bytes: bytes_of(taken), age: self.core().lag().unwrap_or_default() }
    }

    /// Resolves when the log takes nothing more.
    pub(crate) async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        reason.ok().flatten().unwrap_or(StopReason::Closed)
    }

    /// Committed bytes so far; changes with each commit.
    pub(crate) fn committed_bytes(&self) -> watch::Receiver<u64> {
        self.committed_bytes.subscribe()
    }

    /// Takes nothing new, commits what was taken, and that no offset is reserved any more.
    pub(crate) fn close(&self) {
        {
            let mut core = self.core();
            if core.stopped.is_none() {
                core.stopped = Some((Kind::Closed, Arc::from("the log is closed")));
                core.release(true);
            }
        }
        self.closing.send_replace(true);
    }

    /// Ends the session for a reason that was found elsewhere.
    pub(crate) fn stop(&self, reason: StopReason) {
        let (kind, why) = match &reason {
            StopReason::Closed => (Kind::Closed, "the log is closed"),
            StopReason::Fenced(why) => (Kind::Fenced, why.as_str()),
            StopReason::Broken(why) => (Kind::Closed, why.as_str()),
        };
        let (late, rest) = {
            let mut core = self.core();
            core.stopped.get_or_insert_with(|| (kind, Arc::from(why)));
            (core.undo_late(), core.take_all())
        };
        self.fail_late(late, kind, why);
        for buffer in rest {
            self.fail_buffer(buffer, kind, why);
        }
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert(reason);
            first
        });
        self.parts.feeds.all_moved();
    }

    async fn take_room(&self, room: usize) -> Result<()> {
        self.check_available()?;
        let limit = self.options.pending_bytes_max;
        acquire(&self.room, room)
            .await
            .map_err(|()| Error::new(Kind::Busy, format!("more than {limit} bytes wait to be stored")))
    }

    /// Room for an append of a class. One of a weaker class needs no store, but waits when what is acknowledged before it
    /// is stored has reached its bound.
    async fn take_room_of(&self, want: Want, len: usize) -> Result<Room> {
        let room = room_of(len);
        if want.durability == Durability::Object {
            self.take_room(room).await?;
            return Ok(Room { pending: room, unstored: 0 });
        }
        let (limit, age) = (self.options.unstored_bytes_max, self.options.unstored_age_max);
        if !self.in_time() {
            let mut committed = self.committed_bytes.subscribe();
            let waited = tokio::time::timeout(ROOM_TIMEOUT, committed.wait_for(|_| self.in_time())).await;
            if !matches!(waited, Ok(Ok(_))) {
                return Err(Error::new(Kind::Busy, format!("records have waited longer than {age:?} to be stored")));
            }
        }
        acquire(&self.unstored_room, room)
            .await
            .map_err(|()| Error::new(Kind::Busy, format!("more than {limit} acknowledged bytes wait to be stored")))?;
        Ok(Room { pending: 0, unstored: room })
    }

    /// Whether what is acknowledged before it is stored has not waited too long.
    fn in_time(&self) -> bool {
        self.core().lag().is_none_or(|lag| lag < self.options.unstored_age_max)
    }

    pub(super) fn give_back(&self, room: Room) {
        self.room.add_permits(room.pending);
        self.unstored_room.add_permits(room.unstored);
    }

    /// Looked at again under the lock: an outage that began since undid what was waiting, and nothing must come behind that.
    fn check_available(&self) -> Result<()> {
        if self.parts.health.is_away() {
            return Err(Error::new(Kind::Unavailable, "the object store cannot be reached"));
        }
        Ok(())
    }

    /// The slot of a buffer will not be committed. What is early was acknowledged, or may be in the journal: it is lost, or
    /// comes back.
    pub(super) fn fail_buffer(&self, buffer: OpenBuffer, kind: Kind, why: &str) {
        self.give_back(buffer.room);
        self.give_back(buffer.early.room);
        buffer.outcome.send_replace(Outcome::Failed(kind, Arc::from(why)));
        buffer.early.outcome.send_replace(Outcome::Failed(Kind::Unknown, Arc::from(why)));
    }

    pub(super) fn fail_late(&self, late: Vec<LateHalf>, kind: Kind, why: &str) {
        for half in late {
            self.give_back(half.room);
            half.outcome.send_replace(Outcome::Failed(kind, Arc::from(why)));
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes permits, if there are some in time.
async fn acquire(room: &Semaphore, count: usize) -> std::result::Result<(), ()> {
    let count = u32::try_from(count).expect("a batch is bounded far below 4 TiB");
    let taken = match room.try_acquire_many(count) {
        Ok(permit) => Some(permit),
        Err(_) => {
            tokio::time::timeout(ROOM_TIMEOUT, room.acquire_many(count)).await.ok().and_then(std::result::Result::ok)
        }
    };
    taken.map(tokio::sync::SemaphorePermit::forget).ok_or(())
}
