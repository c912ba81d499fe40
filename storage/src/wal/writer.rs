//! The writer: seals the open buffer into slots, keeps up to a few of them in flight, commits their contiguous prefix.
//!
//! One task owns the pipeline. A slot is sealed at once when none is in flight, when it is full, or when its oldest
//! entry has waited the flush interval. It must not know what records mean or who waits for them.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Kind, Result};
use crate::feed::Feeds;
use crate::ids::{ClusterId, ObjectHash, Partition, SessionId, Slot, Timestamp};
use crate::layout;
use crate::metrics::{Health, StorageMetrics};
use crate::record::Batch;
use crate::shard::changes::{Change, Entry};
use crate::shard::machine::{self, Run, SlotSummary};
use crate::shard::rows::{PartitionRow, Position};
use crate::slot::{self, Created, Object};
use crate::state::StateStore;
use crate::store::ObjectStores;
use crate::tail::Tail;
use crate::wal::blocks::BodyBuilder;
use crate::wal::buffer::{Core, OpenBuffer, Outcome, Submitted, room_of};
use crate::wal::format::{Header, ObjectKind};

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
    options: WriterOptions,
    parts: WriterParts,
    core: Mutex<Core>,
    room: Semaphore,
    wake: Notify,
    closing: watch::Sender<bool>,
    stopped: watch::Sender<Option<StopReason>>,
    committed_bytes: watch::Sender<u64>,
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
            core.stopped = Some((kind, Arc::from(why)));
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

    fn fail_buffer(&self, open: OpenBuffer, kind: Kind, why: &str) {
        self.room.add_permits(open.room);
        open.outcome.send_replace(Outcome::Failed(kind, Arc::from(why)));
    }

    fn core(&self) -> MutexGuard<'_, Core> {
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

/// A slot whose bytes are frozen.
struct Sealed {
    summary: SlotSummary,
    buffer: OpenBuffer,
    hash: ObjectHash,
    sealed_at: Instant,
    done: bool,
}

/// The task that owns the pipeline.
pub(crate) struct Pipeline {
    writer: Arc<Writer>,
    next_slot: Slot,
    previous: ObjectHash,
    in_flight: VecDeque<Sealed>,
    puts: JoinSet<(Slot, Result<Created>)>,
    checks: JoinSet<Result<Option<Header>>>,
    check_at: Instant,
    checked_generation: u64,
}

impl Pipeline {
    pub(crate) fn new(writer: Arc<Writer>) -> Self {
        let check_at = Instant::now() + writer.options.fence_check_interval;
        Self {
            writer,
            next_slot: Slot(0),
            previous: ObjectHash::default(),
            in_flight: VecDeque::new(),
            puts: JoinSet::new(),
            checks: JoinSet::new(),
            check_at,
            checked_generation: 0,
        }
    }

    /// Runs until the log is closed or the session ends.
    pub(crate) async fn run(mut self) {
        let writer = Arc::clone(&self.writer);
        let mut closing = writer.closing.subscribe();
        loop {
            self.seal_what_is_due();
            if self.is_finished() {
                break;
            }
            let in_flight_bytes: usize = self.in_flight.iter().map(|sealed| sealed.buffer.bytes).sum();
            writer.parts.metrics.pending_bytes.set(i64::try_from(in_flight_bytes).unwrap_or(i64::MAX));
            let wake_at = self.wake_at();
            tokio::select! {
                () = writer.wake.notified() => {}
                _ = closing.changed() => {}
                () = writer.parts.health.changed() => self.store_changed(),
                Some(put) = self.puts.join_next() => self.put_done(put.expect("a put does not panic")),
                Some(check) = self.checks.join_next() => self.checked(check.expect("a check does not panic")),
                () = async { match wake_at { Some(at) => sleep_until(at).await, None => pending().await } } => {
                    self.on_time();
                }
            }
        }
        self.puts.abort_all();
        self.fail_in_flight(Kind::Unknown, "the log ended before the outcome was known");
        writer.stop(StopReason::Closed);
    }

    fn is_finished(&self) -> bool {
        if self.writer.stopped.borrow().is_some() {
            return true;
        }
        *self.writer.closing.borrow() && self.in_flight.is_empty() && self.writer.core().open.is_empty()
    }

    fn seal_what_is_due(&mut self) {
        while let Some(buffer) = self.take_due() {
            self.seal(buffer);
        }
    }

    fn take_due(&self) -> Option<OpenBuffer> {
        let options = &self.writer.options;
        if self.in_flight.len() >= options.in_flight_max {
            return None;
        }
        let mut core = self.writer.core();
        let opened = core.open.opened?;
        let waited = options.flush_interval.is_some_and(|interval| opened.elapsed() >= interval);
        let due = self.in_flight.is_empty() || core.open.bytes >= options.slot_bytes || waited;
        due.then(|| core.take())
    }

    fn seal(&mut self, buffer: OpenBuffer) {
        let options = &self.writer.options;
        let slot = self.next_slot;
        let mut body = BodyBuilder::default();
        let mut runs = Vec::with_capacity(buffer.groups.len());
        for (partition, batches) in &buffer.groups {
            let shard = partition.shard(options.shards);
            let mut run: Option<Run> = None;
            for batch in batches {
                let (position, len) = body.records(shard, *partition, batch);
                let run = run.get_or_insert(Run {
                    partition: *partition,
                    base: batch.base,
                    count: 0,
                    position,
                    len: 0,
                    first_timestamp: batch.timestamp,
                    last_timestamp: batch.timestamp,
                });
                run.count += batch.batch.count();
                run.len += len;
                run.last_timestamp = batch.timestamp;
            }
            runs.extend(run);
        }
        if !buffer.changes.is_empty() {
            body.changes(crate::shard::claim::CATALOG_SHARD, &buffer.changes.clone().freeze());
        }
        let header = Header::new(ObjectKind::Data, options.session, slot.0).after(self.previous);
        let object = Object::new(layout::wal(options.session, slot), header, body.finish());
        self.previous = object.header.hash();
        self.next_slot = slot.next();
        let summary = SlotSummary {
            session: options.session,
            slot,
            object_len: object.header.object_len(),
            runs,
            entries: buffer.entries.clone(),
        };
        self.in_flight.push_back(Sealed {
            summary,
            buffer,
            hash: self.previous,
            sealed_at: Instant::now(),
            done: false,
        });
        let parts = self.writer.parts.clone();
        self.puts.spawn(async move { (slot, slot::create(&parts.stores, &object, &parts.health, None).await) });
    }

    fn put_done(&mut self, (slot, created): (Slot, Result<Created>)) {
        match created {
            Ok(Created::Ours) => {
                for sealed in self.in_flight.iter_mut().filter(|sealed| sealed.summary.slot == slot) {
                    sealed.done = true;
                }
                self.commit_prefix();
            }
            Ok(Created::Taken(header)) if header.kind == ObjectKind::Fence => self.fenced(slot, &header),
            Ok(Created::Taken(_)) => self.broken(format!("slot {slot} of this session holds a foreign object")),
            Err(error) => self.broken(format!("slot {slot} of this session cannot be settled: {error}")),
        }
    }

    fn commit_prefix(&mut self) {
        while self.in_flight.front().is_some_and(|sealed| sealed.done) {
            let Some(sealed) = self.in_flight.pop_front() else { return };
            if let Err(error) = self.commit(sealed) {
                self.broken(format!("a committed slot cannot be applied to the local state: {error}"));
                return;
            }
        }
    }

    /// Applies a committed slot and only then tells those who wait for it and those who follow.
    fn commit(&self, sealed: Sealed) -> Result<()> {
        let writer = &self.writer;
        let Sealed { summary, buffer, hash, .. } = sealed;
        let OpenBuffer { sequence, groups, room, outcome, .. } = buffer;
        let position = Position {
            cluster: writer.options.cluster,
            session: writer.options.session,
            next: summary.slot.next(),
            hash,
        };
        let rows = machine::apply(&*writer.parts.state, &summary, &position)?;
        let records: u64 = groups.values().flatten().map(|batch| u64::from(batch.batch.count())).sum();
        writer.parts.tail.push(groups.into_iter().collect());
        writer.core().committed_up_to(sequence, &rows, &summary.entries);
        writer.room.add_permits(room);
        outcome.send_replace(Outcome::Committed);
        writer.parts.feeds.moved(rows.iter().map(|(partition, _)| *partition));
        for entry in &summary.entries {
            if let Entry::DeleteTopic { topic } = entry {
                writer.parts.tail.remove_topic(*topic);
                writer.parts.feeds.topic_moved(*topic);
            }
        }
        let metrics = &writer.parts.metrics;
        metrics.slots.inc();
        metrics.records.inc_by(records);
        metrics.tail_bytes.set(i64::try_from(writer.parts.tail.bytes()).unwrap_or(i64::MAX));
        writer.committed_bytes.send_modify(|total| *total += summary.object_len);
        Ok(())
    }

    fn fenced(&mut self, slot: Slot, fence: &Header) {
        let why = format!("session {} was ended by session {}", self.writer.options.session, fence.author);
        // Slots below the fence may still be settling; those at and above it are not part of the log.
        let keep = self.in_flight.iter().take_while(|sealed| sealed.summary.slot < slot).count();
        let dead = self.in_flight.split_off(keep);
        for sealed in dead {
            self.writer.fail_buffer(sealed.buffer, Kind::Fenced, &why);
        }
        self.writer.stop(StopReason::Fenced(why));
    }

    fn broken(&mut self, why: String) {
        tracing::error!(why, "the session stops");
        self.fail_in_flight(Kind::Unknown, &why);
        self.writer.stop(StopReason::Broken(why));
    }

    fn fail_in_flight(&mut self, kind: Kind, why: &str) {
        for sealed in std::mem::take(&mut self.in_flight) {
            self.writer.fail_buffer(sealed.buffer, kind, why);
        }
    }

    /// The store went away: what is not sealed was never sent, so it is given back.
    fn store_changed(&self) {
        if !self.writer.parts.health.is_away() {
            return;
        }
        let open = self.writer.core().undo_open();
        if !open.is_empty() {
            self.writer.fail_buffer(open, Kind::Unavailable, "the object store cannot be reached");
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let options = &self.writer.options;
        let flush = match options.flush_interval {
            Some(interval) if self.in_flight.len() < options.in_flight_max => {
                self.writer.core().open.opened.map(|opened| opened + interval)
            }
            Some(_) | None => None,
        };
        let unknown = self.in_flight.iter().find(|sealed| is_pending(sealed));
        let unknown = unknown.map(|sealed| sealed.sealed_at + options.append_timeout);
        let check = self.in_flight.is_empty().then_some(self.check_at);
        [flush, unknown, check].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let timeout = self.writer.options.append_timeout;
        for sealed in self.in_flight.iter().filter(|sealed| sealed.sealed_at.elapsed() >= timeout) {
            let why = format!("the object store gave no answer within {timeout:?}");
            sealed.buffer.outcome.send_replace(Outcome::Failed(Kind::Unknown, Arc::from(why)));
        }
        if self.in_flight.is_empty() && self.check_at <= Instant::now() {
            self.check_fence();
        }
    }

    /// An idle session asks whether its next slot is taken; a busy one learns it from its next create.
    fn check_fence(&mut self) {
        self.check_at = Instant::now() + self.writer.options.fence_check_interval;
        let generation = self.writer.parts.health.generation();
        let moved = std::mem::replace(&mut self.checked_generation, generation) != generation;
        if moved || !self.checks.is_empty() {
            return;
        }
        let stores = self.writer.parts.stores.clone();
        let path = layout::wal(self.writer.options.session, self.next_slot);
        self.checks.spawn(async move { slot::read_header(&stores, &path).await });
    }

    fn checked(&mut self, found: Result<Option<Header>>) {
        match found {
            Ok(Some(header)) if header.kind == ObjectKind::Fence => {
                self.fenced(Slot(header.number), &header);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the next slot cannot be looked at"),
        }
    }
}

fn is_pending(sealed: &Sealed) -> bool {
    matches!(*sealed.buffer.outcome.borrow(), Outcome::Pending)
}
