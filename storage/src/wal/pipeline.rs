//! The pipeline: seals the open buffer into slots, keeps up to a few of them in flight, commits their contiguous prefix.
//!
//! One task owns it. A slot is sealed when none is in flight (a moment later where many publish, ADR 8), when it is full,
//! or when its oldest entry has waited the flush interval. It must not know what records mean or who waits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::env::until;
use crate::error::{Kind, Result};
use crate::ids::{ObjectHash, Slot};
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::claim::{self, CATALOG_SHARD};
use crate::shard::fork::has_forks;
use crate::shard::machine::{self, Run, SlotSummary};
use crate::shard::stream::StreamRow;
use crate::slot::{self, Created, Object};
use crate::wal::blocks::BodyBuilder;
use crate::wal::buffer::{OpenBuffer, Outcome};
use crate::wal::format::{Header, ObjectKind};
use crate::wal::writer::{StopReason, Writer};

/// Most slots in flight when nothing else is asked for: so many may stand above the first that is missing.
pub(crate) const IN_FLIGHT_MAX: usize = 4;
/// A finished flush starts the next one, and those whom it has just answered need a moment to come back. Without this
/// pause the first of them would start a flush of its own, and all others would wait for that one too.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// The same on a remote store, a small part of what a request to it takes.
const REMOTE_GATHER_MAX: Duration = Duration::from_millis(5);
/// Fewer than this many are not waited for on a directory: the pause would cost more than a flush of its own.
const GATHER_FROM: usize = 32;
/// After a round that did not come so many slots are sealed as they come.
const ROUNDS_PAUSE: u64 = 64;
/// So many are worth a second request to a remote store while one is under way.
const REMOTE_SECOND_FROM: usize = 128;

/// A slot whose bytes are frozen.
struct Sealed {
    summary: SlotSummary,
    buffer: OpenBuffer,
    hash: ObjectHash,
    /// Until it is committed, if somebody follows an append in it.
    span: Span,
    sealed_at: Instant,
    done: bool,
}

/// The task that owns the pipeline.
pub(crate) struct Pipeline {
    writer: Arc<Writer>,
    next_slot: Slot,
    previous: ObjectHash,
    in_flight: VecDeque<Sealed>,
    /// Slots at and above one in which a fence was found.
    dead: Vec<Sealed>,
    puts: JoinSet<(Slot, Result<Created>)>,
    checks: JoinSet<Result<Option<Header>>>,
    check_at: Instant,
    checked_generation: u64,
    release_at: Instant,
    /// How many waited when the last slot was committed, in it and in all behind it.
    waiting: usize,
    last_commit: Instant,
    /// Before this slot no round is waited for, since one was that did not come.
    rounds_from: Slot,
}

impl Pipeline {
    pub(crate) fn new(writer: Arc<Writer>) -> Self {
        let check_at = Instant::now() + writer.options.fence_check_interval;
        Self {
            writer,
            next_slot: Slot(0),
            previous: ObjectHash::default(),
            in_flight: VecDeque::new(),
            dead: Vec::new(),
            puts: JoinSet::new(),
            checks: JoinSet::new(),
            check_at,
            checked_generation: 0,
            release_at: check_at,
            waiting: 0,
            last_commit: Instant::now(),
            rounds_from: Slot(0),
        }
    }

    /// Runs until the log is closed or the session ends.
    pub(crate) async fn run(mut self) {
        let writer = Arc::clone(&self.writer);
        let mut closing = writer.closing.subscribe();
        loop {
            self.release_what_is_idle();
            self.seal_what_is_due();
            if self.is_finished() {
                break;
            }
            let in_flight_bytes: usize = self.in_flight.iter().map(|sealed| sealed.buffer.bytes).sum();
            writer.parts.metrics.pending_bytes.set(i64::try_from(in_flight_bytes).unwrap_or(i64::MAX));
            let wake_at = self.wake_at();
            // In a fixed order, so that a simulation can be repeated; what callers can cause without end comes last.
            tokio::select! {
                biased;
                Some(put) = self.puts.join_next() => self.put_done(put.expect("a put does not panic")),
                Some(check) = self.checks.join_next() => self.checked(check.expect("a check does not panic")),
                () = writer.parts.health.changed() => self.store_changed(),
                _ = closing.changed() => {}
                () = until(wake_at) => self.on_time(),
                () = writer.wake.notified() => {}
            }
        }
        self.puts.abort_all();
        self.fail_in_flight(Kind::Unknown, "the log ended before the outcome was known");
        writer.stop(StopReason::Closed);
        self.settle_dead().await;
    }

    fn is_finished(&self) -> bool {
        if self.writer.stopped.borrow().is_some() {
            return true;
        }
        *self.writer.closing.borrow() && self.in_flight.is_empty() && self.writer.core().is_empty()
    }

    fn seal_what_is_due(&mut self) {
        while let Some(buffer) = self.take_due() {
            self.seal(buffer);
        }
    }

    fn take_due(&self) -> Option<OpenBuffer> {
        let options = &self.writer.options;
        let mut core = self.writer.core();
        core.look_at = None;
        if self.in_flight.len() >= options.in_flight_max {
            return None;
        }
        if core.has_full() {
            return Some(core.take());
        }
        let wanted = self.wanted();
        let waited = |opened: Instant| options.flush_interval.is_some_and(|interval| opened.elapsed() >= interval);
        let open = &core.open;
        let due = open
            .opened
            .is_some_and(|opened| open.waiting >= wanted || open.bytes >= options.slot_bytes || waited(opened));
        if due {
            return Some(core.take());
        }
        // With a timer the first is news, too.
        core.look_at = Some(if core.open.opened.is_some() { wanted } else { 0 });
        None
    }

    /// How many must wait for a flush to begin.
    fn wanted(&self) -> usize {
        let on_directory = self.writer.options.flush_interval.is_none();
        match self.in_flight.len() {
            0 if !self.is_gathering() => 0,
            0 if on_directory && !self.is_in_rounds() => self.waiting * 3 / 8,
            // Who is late waits for a whole flush.
            0 => whole_round(self.waiting),
            1 if on_directory && self.is_in_rounds() => usize::MAX,
            // Two flushes at a time, so that the store works while those who were answered come back.
            1 => (self.waiting / 2).max(if on_directory { GATHER_FROM / 2 } else { REMOTE_SECOND_FROM }),
            _ => usize::MAX,
        }
    }

    /// Whether all who were answered are waited for on a directory, and flushes are one at a time.
    fn is_in_rounds(&self) -> bool {
        self.waiting >= GATHER_FROM && self.next_slot >= self.rounds_from
    }

    /// Who was waited for in vain does not come back for an answer, or takes long: a pause for him only makes the next round larger.
    fn note_round(&mut self, buffer: &OpenBuffer) {
        if self.in_flight.is_empty() && self.is_in_rounds() && buffer.waiting < whole_round(self.waiting) {
            self.rounds_from = Slot(self.next_slot.0 + ROUNDS_PAUSE);
        }
    }

    /// Whether it pays to wait a moment for those who were just answered.
    fn is_gathering(&self) -> bool {
        let is_worth_it = self.waiting >= GATHER_FROM || self.writer.options.flush_interval.is_some();
        is_worth_it && self.last_commit.elapsed() < self.gather_max()
    }

    fn gather_max(&self) -> Duration {
        self.writer.options.flush_interval.map_or(GATHER_MAX, |interval| interval.min(REMOTE_GATHER_MAX))
    }

    fn seal(&mut self, mut buffer: OpenBuffer) {
        self.note_round(&buffer);
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
        let now = self.writer.parts.clock.now();
        let partition_entries = buffer.early.entries.iter().chain(&buffer.partition_entries);
        for (shard, changes) in Entry::encode_by_shard(partition_entries.clone(), options.shards) {
            body.changes(shard, &changes, now);
        }
        if !buffer.changes.is_empty() {
            body.changes(CATALOG_SHARD, &buffer.changes.clone().freeze(), now);
        }
        let header = Header::new(ObjectKind::Data, options.session, slot.0).after(self.previous);
        let object = Object::new(layout::wal(options.session, slot), header, body.finish());
        let span = std::mem::take(&mut buffer.traced).flush(&buffer, &object);
        self.previous = object.header.hash();
        self.next_slot = slot.next();
        let summary = SlotSummary {
            session: options.session,
            slot,
            object_len: object.header.object_len(),
            runs,
            entries: partition_entries.chain(&buffer.entries).cloned().collect(),
        };
        self.in_flight.push_back(Sealed {
            summary,
            buffer,
            hash: self.previous,
            span: span.clone(),
            sealed_at: Instant::now(),
            done: false,
        });
        self.planted_at_seal();
        let parts = Arc::clone(&self.writer.parts);
        let create = async move { (slot, slot::create(&parts.stores, &object, &parts.health, None).await) };
        self.puts.spawn(create.instrument(span));
    }

    /// What a bug of a test does to a slot that was just sealed.
    fn planted_at_seal(&self) {
        let Some(sealed) = self.in_flight.back() else { return };
        if planted!(AckBeforePut) {
            sealed.buffer.outcome.send_replace(Outcome::Committed);
        }
        if planted!(ServedBeforeCommit) {
            let groups = sealed.buffer.groups.clone();
            self.writer.parts.tail.push(sealed.summary.slot, groups.into_iter().collect());
            self.writer.parts.feeds.moved(sealed.buffer.groups.keys().copied());
        }
    }

    fn put_done(&mut self, (slot, created): (Slot, Result<Created>)) {
        let created = if planted!(FenceIgnored) { created.map(|_| Created::Ours) } else { created };
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
        let next = |in_flight: &VecDeque<Sealed>| {
            let done = in_flight.iter().position(|sealed| sealed.done);
            done.filter(|at| *at == 0 || planted!(AckOutOfOrder))
        };
        while let Some(at) = next(&self.in_flight) {
            let Some(sealed) = self.in_flight.remove(at) else { return };
            let behind: usize = self.in_flight.iter().map(|sealed| sealed.buffer.waiting).sum();
            self.waiting = sealed.buffer.waiting + behind + self.writer.core().open.waiting;
            self.last_commit = Instant::now();
            if let Err(error) = self.commit(sealed) {
                self.broken(format!("a committed slot cannot be applied to the local state: {error}"));
                return;
            }
        }
    }

    /// Applies a committed slot and only then tells those who wait for it and those who follow.
    fn commit(&self, sealed: Sealed) -> Result<()> {
        let writer = &self.writer;
        let Sealed { summary, buffer, hash, sealed_at, span: _span, .. } = sealed;
        let OpenBuffer { sequence, groups, room, outcome, early, .. } = buffer;
        let before = writer.core().committed_rows(summary.runs.iter().map(|run| run.partition));
        let rows = machine::apply(&*writer.parts.state, &summary, &before, (writer.options.cluster, hash))?;
        let record_bytes: u64 = groups.values().flatten().map(|batch| batch.batch.len() as u64).sum();
        let records: u64 = groups.values().flatten().map(|batch| u64::from(batch.batch.count())).sum();
        let groups = if planted!(ServedBeforeCommit) { Vec::new() } else { groups.into_iter().collect() };
        if early.is_empty() {
            writer.parts.tail.push(summary.slot, groups);
            writer.core().committed_up_to(sequence, &rows, &summary.entries);
        } else {
            // In one: what the journal shows meanwhile would stay as not committed.
            let mut core = writer.core();
            writer.parts.tail.push(summary.slot, groups);
            core.committed_up_to(sequence, &rows, &summary.entries);
        }
        writer.give_back(room);
        writer.give_back(early.room);
        outcome.send_replace(Outcome::Committed);
        early.outcome.send_replace(Outcome::Committed);
        if let Some(journal) = writer.parts.journal.as_ref().filter(|_| !early.is_empty()) {
            journal.committed(sequence);
        }
        writer.parts.feeds.moved(rows.iter().map(|(partition, _)| *partition));
        for entry in &summary.entries {
            if let Entry::DeleteTopic { topic } = entry {
                if !has_forks(&*writer.parts.state, *topic)? {
                    writer.parts.tail.remove_topic(*topic);
                }
                writer.parts.feeds.topic_moved(*topic);
            }
            if let Entry::StreamStep { partition, step: StreamRow { closed: Some(_), .. } } = entry {
                writer.parts.feeds.moved([*partition]);
            }
        }
        let metrics = &writer.parts.metrics;
        metrics.slots.inc();
        metrics.flush_latency.since(sealed_at);
        metrics.records.inc_by(records);
        metrics.record_bytes.inc_by(record_bytes);
        let is_trim = |entry: &&Entry| matches!(entry, Entry::Trim { .. });
        metrics.trims.inc_by(summary.entries.iter().filter(is_trim).count() as u64);
        metrics.tail_bytes.set(i64::try_from(writer.parts.tail.bytes()).unwrap_or(i64::MAX));
        writer.committed_bytes.send_modify(|total| *total += summary.object_len);
        Ok(())
    }

    fn fenced(&mut self, slot: Slot, fence: &Header) {
        let why = format!("session {} was ended by session {}", self.writer.options.session, fence.author);
        // Slots below the fence may still be settling; those at and above it are not part of the log.
        let keep = self.in_flight.iter().take_while(|sealed| sealed.summary.slot < slot).count();
        self.dead.extend(self.in_flight.split_off(keep));
        self.writer.stop(StopReason::Fenced(why));
    }

    /// Tells those who wait for a slot at or above a fence. The log ends where the next claim says; slots below that were
    /// part of it. A fence can stand there: late, in a slot that was stored, read and deleted since (ADR 19). Without a next
    /// claim nobody has deleted anything, and the fence is the end.
    async fn settle_dead(&mut self) {
        if self.dead.is_empty() {
            return;
        }
        let options = &self.writer.options;
        let end = claim::end_of(&self.writer.parts.stores, CATALOG_SHARD, options.epoch);
        let end = tokio::time::timeout(options.append_timeout, end).await;
        let is_outside = |slot: Slot| matches!(&end, Ok(Ok(end)) if end.is_none_or(|end| slot >= end));
        for sealed in std::mem::take(&mut self.dead) {
            let (kind, why) = if is_outside(sealed.summary.slot) {
                (Kind::Fenced, "the session was ended by another one")
            } else {
                (Kind::Unknown, "the session was ended by another one, which may have kept what was sent")
            };
            self.writer.fail_buffer(sealed.buffer, kind, why);
        }
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

    /// The store went away: what is not sealed was never sent, so what is not acknowledged of it is given back.
    fn store_changed(&self) {
        if !self.writer.parts.health.is_away() {
            return;
        }
        let late = self.writer.core().undo_late();
        self.writer.fail_late(late, Kind::Unavailable, "the object store cannot be reached");
    }

    fn wake_at(&self) -> Option<Instant> {
        let options = &self.writer.options;
        let opened = self.writer.core().open.opened;
        let interval = options.flush_interval.filter(|_| self.in_flight.len() < options.in_flight_max);
        let waited = opened.zip(interval).map(|(opened, interval)| opened + interval);
        let gathered = opened.filter(|_| self.in_flight.is_empty()).map(|_| self.last_commit + self.gather_max());
        let flush = [waited, gathered].into_iter().flatten().min();
        let unknown = self.in_flight.iter().find(|sealed| is_pending(sealed));
        let unknown = unknown.map(|sealed| sealed.sealed_at + options.append_timeout);
        let check = self.in_flight.is_empty().then_some(self.check_at.min(self.release_at));
        [flush, unknown, check].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let timeout = self.writer.options.append_timeout;
        let is_late = |sealed: &&Sealed| sealed.sealed_at.elapsed() >= timeout && is_pending(sealed);
        for sealed in self.in_flight.iter().filter(is_late) {
            let why = format!("the object store gave no answer within {timeout:?}");
            let kind = if planted!(TimeOutIsRefusal) { Kind::Unavailable } else { Kind::Unknown };
            sealed.buffer.outcome.send_replace(Outcome::Failed(kind, Arc::from(why)));
            if planted!(OffsetsGivenAgain) {
                self.writer.core().give_back(&sealed.buffer);
            }
        }
        if self.in_flight.is_empty() && self.check_at <= Instant::now() {
            self.check_fence();
        }
    }

    /// A crash is to leave no gap in partitions that nothing was published to for some time, on a busy node as well.
    fn release_what_is_idle(&mut self) {
        let now = Instant::now();
        if now >= self.release_at {
            self.release_at = now + self.writer.options.fence_check_interval;
            self.writer.core().release(false);
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

/// So many of those who were answered are all but a few of them.
fn whole_round(waiting: usize) -> usize {
    waiting - waiting / 32
}

fn is_pending(sealed: &Sealed) -> bool {
    matches!(*sealed.buffer.outcome.borrow(), Outcome::Pending)
}
