//! A state of the model: the bucket, the sessions, what is still on its way, what clients were told.

use crate::bucket::{Bucket, Claim, Entry, Place, Put, RECORDS, Rows, SHARDS, Segment, SlotObject, Snapshot};
use crate::names::{Created, Epoch, Nth, Offset, Record, SegmentId, Shard, Sid, Slot};
use crate::rule::{Broken, Promise, Rule};
use crate::scope::Scope;

/// What a session is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has not begun.
    #[default]
    Unborn,
    /// About to list the claims.
    ReadClaims,
    /// About to list the checkpoints of a session that it ends.
    ListCheckpoints(Sid),
    /// Creating a checkpoint fence at a number; the last checkpoint that it saw.
    FenceCheckpoints(Sid, Nth, Option<Nth>),
    /// About to list the slots of a session that it ends, from the trim point of that checkpoint.
    ListSlots(Sid, Option<Nth>),
    /// Creating a fence in a slot.
    FenceSlot(Sid, Slot, Option<Nth>),
    /// Creating the claim of a shard.
    Claim(Shard),
    /// Creating the claim of a shard that a living session released; the end of its log for that shard.
    Move(Shard, Sid, Slot),
    /// About to restore what it claimed.
    Restore,
    /// It serves.
    Serving,
    /// It has stopped.
    Ended,
}

/// What a session has of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Holding {
    /// Nothing.
    #[default]
    Nothing,
    /// The claim.
    Claimed(Epoch),
    /// The shard, with its committed state.
    Owner(Epoch, Rows),
    /// What it had when it let go of it.
    Released(Epoch, Rows),
}

/// A slot in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    /// Its number.
    pub slot: Slot,
    /// What it holds.
    pub entry: Entry,
    /// Whether its put was answered.
    pub done: bool,
}

/// A log that was ended: its last checkpoint and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndedLog {
    /// Whose.
    pub of: Sid,
    /// Its last checkpoint.
    pub checkpoint: Option<Nth>,
    /// The slot of its fence.
    pub end: Slot,
}

/// A session. A crash is a pause that never ends: what it has put may still land.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// What it is doing.
    pub phase: Phase,
    /// Its shards.
    pub shards: [Holding; SHARDS],
    /// Its slots in flight, in order.
    pub flight: Vec<Flight>,
    /// Its next slot.
    pub next: Slot,
    /// The slots below are committed.
    pub committed: Slot,
    /// The checkpoint that it is putting.
    pub snapshot: Option<Snapshot>,
    /// The number of its next checkpoint.
    pub next_checkpoint: Nth,
    /// Its last checkpoint that it knows to be there.
    pub durable: Option<Nth>,
    /// The segment that it is putting, and the offset up to which it will be linked.
    pub segment: Option<(SegmentId, Segment, Offset)>,
    /// The claims that it saw when it began.
    pub seen: [Option<(Epoch, Sid)>; SHARDS],
    /// The logs that it ended.
    pub ended: Vec<EndedLog>,
}

/// What a client knows of its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Told {
    /// Not sent, or no answer, or that nothing is known.
    #[default]
    Nothing,
    /// Acknowledged.
    Acknowledged(Shard, Offset, Sid, Slot),
    /// Refused: not stored, for ever.
    Refused,
}

/// Something of a session that waits for an answer of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// A slot.
    Slot(Slot),
    /// A checkpoint.
    Checkpoint,
    /// A segment.
    Segment,
    /// A fence or a claim of a takeover.
    Takeover,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The store.
    pub bucket: Bucket,
    /// Creates whose author has gone on, and which may still land.
    pub late: Vec<Put>,
    /// How many more puts may be repeated while the one before is under way.
    pub late_left: u8,
    /// The sessions.
    pub sessions: Vec<Session>,
    /// What clients were told, by record.
    pub told: [Told; RECORDS],
    /// The next record.
    pub next_record: Record,
    /// The next segment.
    pub next_segment: SegmentId,
    /// Where a reader was sent to.
    pub reader: Option<(Place, Shard, Offset, Record)>,
    /// What is broken.
    pub broken: Broken,
}

/// The rules and bounds under which a state moves on.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// The bounds.
    pub scope: Scope,
    /// The rule that is switched off.
    pub without: Option<Rule>,
}

impl Law {
    /// Whether a rule is kept.
    #[must_use]
    pub fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// The shards.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..self.scope.shards).map(Shard)
    }
}

impl Holding {
    /// The committed state, when there is one.
    #[must_use]
    pub fn rows(&self) -> Option<&Rows> {
        match self {
            Self::Owner(_, rows) | Self::Released(_, rows) => Some(rows),
            Self::Nothing | Self::Claimed(_) => None,
        }
    }
}

impl World {
    /// The first session owns all shards; nothing is in its log.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        let mut bucket = Bucket::default();
        let mut sessions = vec![Session::default(); usize::from(scope.sessions)];
        sessions[0].phase = Phase::Serving;
        for shard in (0..scope.shards).map(Shard) {
            let _new = bucket.claims.create((shard, Epoch(0)), Claim { owner: Sid(0), previous: None });
            sessions[0].shards[shard.at()] = Holding::Owner(Epoch(0), Rows::default());
        }
        Self {
            bucket,
            late: Vec::new(),
            late_left: scope.late,
            sessions,
            told: [Told::Nothing; RECORDS],
            next_record: Record(0),
            next_segment: SegmentId(0),
            reader: None,
            broken: Broken::default(),
        }
    }

    /// A session.
    #[must_use]
    pub fn session(&self, sid: Sid) -> &Session {
        &self.sessions[sid.at()]
    }

    /// A session.
    pub fn session_mut(&mut self, sid: Sid) -> &mut Session {
        &mut self.sessions[sid.at()]
    }

    /// The create that a session waits for.
    #[must_use]
    pub fn put_of(&self, sid: Sid, waiting: Waiting) -> Option<Put> {
        let session = self.session(sid);
        match waiting {
            Waiting::Slot(slot) => {
                let flight = session.flight.iter().find(|flight| flight.slot == slot && !flight.done)?;
                Some(Put::Slot(sid, slot, SlotObject::Data(flight.entry)))
            }
            Waiting::Checkpoint => {
                let snapshot = crate::bucket::CheckpointObject::Snapshot(session.snapshot?);
                Some(Put::Checkpoint(sid, session.next_checkpoint, snapshot))
            }
            Waiting::Segment => session.segment.map(|(id, segment, _)| Put::Segment(id, segment)),
            Waiting::Takeover => self.takeover_put(sid),
        }
    }

    /// Everything that a session waits for.
    #[must_use]
    pub fn waiting(&self, sid: Sid) -> Vec<Waiting> {
        let slots = self.session(sid).flight.iter().filter(|flight| !flight.done);
        let mut all: Vec<Waiting> = slots.map(|flight| Waiting::Slot(flight.slot)).collect();
        for waiting in [Waiting::Checkpoint, Waiting::Segment, Waiting::Takeover] {
            if self.put_of(sid, waiting).is_some() {
                all.push(waiting);
            }
        }
        all
    }

    /// A create reaches the store.
    pub fn land(&mut self, law: &Law, put: Put) -> Created<Put> {
        let (created, changed) = self.bucket.create(put);
        if changed {
            self.broken.note(Promise::BytesStay);
        }
        match (created, put) {
            (Created::Other(_), Put::Slot(sid, slot, object)) if !law.keeps(Rule::StoreProbed) => {
                self.bucket.slots.replace((sid, slot), object);
                self.broken.note(Promise::BytesStay);
                Created::New
            }
            (created, _) => created,
        }
    }

    /// A put may land although its author has gone on.
    pub fn leave_late(&mut self, law: &Law, put: Put) {
        let again = law.scope.deletes.any() || !law.keeps(Rule::StoreProbed);
        if (again || !self.bucket.is_taken(put)) && !self.late.contains(&put) {
            self.late.push(put);
            self.late.sort_unstable();
        }
    }

    /// A session stops: what it has not heard of may still land.
    pub fn end(&mut self, law: &Law, sid: Sid) {
        let puts: Vec<Put> = self.waiting(sid).into_iter().filter_map(|waiting| self.put_of(sid, waiting)).collect();
        *self.session_mut(sid) = Session { phase: Phase::Ended, ..Session::default() };
        for put in puts {
            self.leave_late(law, put);
        }
    }

    /// Late puts that can change nothing any more are forgotten.
    pub fn tidy(&mut self, law: &Law) {
        if !law.scope.deletes.any() && law.keeps(Rule::StoreProbed) {
            let bucket = &self.bucket;
            self.late.retain(|put| !bucket.is_taken(*put));
        }
    }

    /// Looks whether all promises hold.
    pub fn judge(&mut self, law: &Law) {
        for shard in law.shards() {
            match self.bucket.committed(shard) {
                Ok(rows) => self.judge_shard(law, shard, &rows),
                Err(promise) => self.broken.note(promise),
            }
        }
        self.judge_claims(law);
        for (sid, session) in (0..).map(Sid).zip(&self.sessions) {
            let is_left = |slot: &Slot| {
                self.bucket.slots.held((sid, *slot)).is_none() && session.flight.iter().all(|f| f.slot != *slot)
            };
            if session.phase == Phase::Serving && (0..session.next.0).map(Slot).any(|slot| is_left(&slot)) {
                self.broken.note(Promise::NoSlotLeftBehind);
            }
        }
    }

    fn judge_shard(&mut self, law: &Law, shard: Shard, rows: &Rows) {
        for (record, told) in (0..).map(Record).zip(&self.told) {
            match told {
                Told::Nothing => {}
                Told::Refused => {
                    if rows.iter().any(|(_, other, _)| other == record) {
                        self.broken.note(Promise::RefusedIsNotStored);
                    }
                }
                Told::Acknowledged(of, offset, ..) if *of == shard && *offset >= rows.start => {
                    let found = rows.get(*offset).is_some_and(|(other, place)| {
                        other == record && (!law.scope.payload || self.bucket.holds(place, shard, *offset, record))
                    });
                    if !found {
                        self.broken.note(Promise::Found);
                    }
                }
                Told::Acknowledged(..) => {}
            }
        }
        let records = |rows: &Rows| rows.iter().map(|(_, record, _)| record).collect::<Vec<_>>();
        let all = records(rows);
        for session in self.sessions.iter().filter(|session| session.phase == Phase::Serving) {
            if session.shards[shard.at()].rows().is_some_and(|shown| !all.starts_with(&records(shown))) {
                self.broken.note(Promise::Prefix);
            }
        }
    }

    fn judge_claims(&mut self, law: &Law) {
        for shard in law.shards() {
            let claims = self.bucket.claims.iter().filter(|((of, _), _)| *of == shard);
            for ((_, epoch), claim) in claims {
                let Some((previous, end)) = claim.previous else { continue };
                let before = self.bucket.claims.held((shard, Epoch(epoch.0 - 1)));
                let chained = before.is_some_and(|before| before.object.owner == previous);
                let above = self.told.iter().any(|told| {
                    matches!(told, Told::Acknowledged(of, _, sid, slot)
                        if *of == shard && *sid == previous && *slot >= end)
                });
                if !chained || above {
                    self.broken.note(Promise::Chained);
                }
            }
        }
    }
}
