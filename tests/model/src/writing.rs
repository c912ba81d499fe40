//! A session that serves: it accepts records, commits slots, writes checkpoints, lets go of shards, compacts.

use crate::bucket::{CheckpointObject, Entry, Place, Put, Segment, SlotObject, Snapshot};
use crate::names::{Created, Offset, Record, Shard, Sid, Slot};
use crate::rule::{Promise, Rule};
use crate::world::{Flight, Holding, Law, Phase, Told, Waiting, World};

impl World {
    /// Whether a session may seal another slot.
    #[must_use]
    pub fn has_room(&self, law: &Law, sid: Sid) -> bool {
        let session = self.session(sid);
        session.phase == Phase::Serving
            && session.flight.len() < law.scope.in_flight
            && session.next.0 < law.scope.slots
    }

    /// Seals a slot of one entry and begins to put it.
    pub fn seal(&mut self, sid: Sid, entry: Entry) {
        let session = self.session_mut(sid);
        let slot = session.next;
        session.next = slot.next();
        session.flight.push(Flight { slot, entry, done: false });
    }

    /// Accepts a record for a shard; false when the session does not serve it.
    pub fn append(&mut self, law: &Law, sid: Sid, shard: Shard) -> bool {
        let session = self.session(sid);
        let rows = match &session.shards[shard.at()] {
            Holding::Owner(_, rows) => rows,
            Holding::Released(_, rows) if !law.keeps(Rule::StopBeforeRelease) => rows,
            Holding::Nothing | Holding::Claimed(_) | Holding::Released(..) => return false,
        };
        if !self.has_room(law, sid) || self.next_record.0 >= law.scope.records {
            return false;
        }
        let ahead = session.flight.iter().filter(|flight| is_record_of(flight.entry, shard)).count();
        let offset = Offset(rows.next().0 + u8::try_from(ahead).expect("few are in flight"));
        let record = self.next_record;
        self.next_record = record.next();
        self.seal(sid, Entry::Record(shard, offset, record));
        true
    }

    /// A try of a slot's put is answered.
    pub fn slot_answered(&mut self, law: &Law, sid: Sid, slot: Slot) {
        let Some(put) = self.put_of(sid, Waiting::Slot(slot)) else { return };
        match self.land(law, put) {
            Created::New => self.slot_done(law, sid, slot),
            Created::Same if law.keeps(Rule::OwnWriteIsSuccess) => self.slot_done(law, sid, slot),
            Created::Same => self.give_up(law, sid, slot),
            Created::Other(_) if !law.keeps(Rule::LookWhoIsThere) => self.slot_done(law, sid, slot),
            Created::Other(Put::Slot(_, _, SlotObject::Fence)) => self.fenced(law, sid, slot),
            Created::Other(_) => {
                self.broken.note(Promise::NothingForeign);
                self.end(law, sid);
            }
        }
    }

    fn slot_done(&mut self, law: &Law, sid: Sid, slot: Slot) {
        for flight in self.session_mut(sid).flight.iter_mut().filter(|flight| flight.slot == slot) {
            flight.done = true;
        }
        let in_order = law.keeps(Rule::ContiguousPrefix);
        loop {
            let flights = &self.session(sid).flight;
            let next = flights.iter().position(|flight| flight.done).filter(|at| !in_order || *at == 0);
            let Some(at) = next else { return };
            let flight = self.session_mut(sid).flight.remove(at);
            self.commit(sid, flight);
        }
    }

    /// Applies a slot and acknowledges what is in it.
    fn commit(&mut self, sid: Sid, Flight { slot, entry, .. }: Flight) {
        let shard = entry.shard();
        let session = &mut self.sessions[sid.at()];
        session.committed = session.committed.max(slot.next());
        if let Holding::Owner(_, rows) | Holding::Released(_, rows) = &mut session.shards[shard.at()] {
            rows.apply(entry, Place::Slot(sid, slot));
        }
        let Entry::Record(_, offset, record) = entry else { return };
        self.told[record.at()] = Told::Acknowledged(shard, offset, sid, slot);
        let fenced =
            self.bucket.slots.iter().any(|((of, at), object)| of == sid && at <= slot && object == SlotObject::Fence);
        let in_chain = self.end_of(sid, shard).is_some_and(|end| slot < end);
        if fenced && !in_chain {
            self.broken.note(Promise::NothingAboveFence);
        }
    }

    /// Where a claim says that the log of a session ends for a shard.
    fn end_of(&self, sid: Sid, shard: Shard) -> Option<Slot> {
        self.bucket.claims.iter().find_map(|((of, _), claim)| {
            claim.previous.filter(|(previous, _)| of == shard && *previous == sid).map(|(_, end)| end)
        })
    }

    /// A session met a fence in its log.
    fn fenced(&mut self, law: &Law, sid: Sid, fence: Slot) {
        let dead: Vec<Flight> =
            self.session(sid).flight.iter().filter(|flight| flight.slot >= fence).copied().collect();
        let stops = law.keeps(Rule::FencedStops);
        for flight in dead.into_iter().filter(|flight| stops || flight.slot == fence) {
            let Entry::Record(shard, _, record) = flight.entry else { continue };
            let certain = self.end_of(sid, shard).is_some_and(|end| flight.slot >= end);
            if certain || !law.keeps(Rule::RefuseFromEndOnly) {
                self.refuse(record);
            }
        }
        if stops {
            self.end(law, sid);
        } else {
            self.session_mut(sid).flight.retain(|flight| flight.slot != fence);
        }
    }

    fn refuse(&mut self, record: Record) {
        self.told[record.at()] = Told::Refused;
    }

    /// A session takes a slot for refused and stops, although a try may still land.
    pub fn give_up(&mut self, law: &Law, sid: Sid, slot: Slot) {
        let flight = self.session(sid).flight.iter().find(|flight| flight.slot == slot).copied();
        if let Some(Flight { entry: Entry::Record(_, _, record), .. }) = flight {
            self.refuse(record);
        }
        self.end(law, sid);
    }

    /// The caller of a slot is gone, and with it the tries of its put.
    pub fn hang_up(&mut self, law: &Law, sid: Sid, slot: Slot) {
        if let Some(put) = self.put_of(sid, Waiting::Slot(slot)) {
            self.session_mut(sid).flight.retain(|flight| flight.slot != slot);
            self.leave_late(law, put);
        }
    }

    /// A put is repeated with another record in it.
    pub fn reseal(&mut self, law: &Law, sid: Sid, slot: Slot) -> bool {
        let Some(put) = self.put_of(sid, Waiting::Slot(slot)) else { return false };
        if self.next_record.0 >= law.scope.records {
            return false;
        }
        self.leave_late(law, put);
        let next = self.next_record;
        for flight in &mut self.session_mut(sid).flight {
            if let (true, Entry::Record(shard, offset, _)) = (flight.slot == slot, flight.entry) {
                flight.entry = Entry::Record(shard, offset, next);
            }
        }
        self.next_record = next.next();
        true
    }

    /// A process starts over under its old session: it continues where the log seems to end.
    pub fn restart(&mut self, law: &Law, sid: Sid) {
        let old = self.session(sid).clone();
        self.end(law, sid);
        let next = (0..).map(Slot).find(|slot| self.bucket.slots.get((sid, *slot)).is_none());
        let next = next.expect("a log is short");
        let shards = old.shards.map(|holding| match holding {
            Holding::Owner(epoch, _) => Holding::Claimed(epoch),
            Holding::Nothing | Holding::Claimed(_) | Holding::Released(..) => holding,
        });
        let session = self.session_mut(sid);
        session.phase = Phase::Restore;
        session.next = next;
        session.committed = next;
        session.shards = shards;
    }

    /// Begins a checkpoint of all that a session has; false when there is nothing new.
    pub fn checkpoint(&mut self, law: &Law, sid: Sid, full: bool) -> bool {
        let session = self.session(sid);
        let before = session.durable.and_then(|nth| self.bucket.checkpoints.held((sid, nth)));
        let trimmed = before.map_or(Slot(0), |held| match held.object {
            CheckpointObject::Snapshot(snapshot) => snapshot.trim,
            CheckpointObject::Fence => Slot(0),
        });
        let is_first = session.durable.is_none() && session.shards.iter().any(|holding| holding.rows().is_some());
        let wanted = session.phase == Phase::Serving
            && session.snapshot.is_none()
            && session.next_checkpoint.0 < law.scope.checkpoints
            && (session.committed > trimmed || is_first)
            && (full || (law.scope.incremental && session.durable.is_some()));
        if !wanted {
            return false;
        }
        let shards = [Shard(0), Shard(1)].map(|shard| match &session.shards[shard.at()] {
            Holding::Owner(_, rows) => Some(*rows),
            Holding::Released(_, rows) => {
                let stays = law.keeps(Rule::ReleasedStaysInCheckpoints) && !self.is_covered(sid, shard);
                stays.then_some(*rows)
            }
            Holding::Nothing | Holding::Claimed(_) => None,
        });
        let base = if full { None } else { session.durable };
        let snapshot = Snapshot { trim: session.committed, base, shards };
        self.session_mut(sid).snapshot = Some(snapshot);
        true
    }

    /// A try of a checkpoint's put is answered.
    pub fn checkpoint_answered(&mut self, law: &Law, sid: Sid) {
        let Some(put) = self.put_of(sid, Waiting::Checkpoint) else { return };
        match self.land(law, put) {
            Created::New | Created::Same => {
                let session = self.session_mut(sid);
                session.snapshot = None;
                session.durable = Some(session.next_checkpoint);
                session.next_checkpoint = session.next_checkpoint.next();
            }
            Created::Other(Put::Checkpoint(_, _, CheckpointObject::Fence)) => self.end(law, sid),
            Created::Other(_) => {
                self.broken.note(Promise::NothingForeign);
                self.end(law, sid);
            }
        }
    }

    /// Lets go of a shard; false when it does not serve it.
    pub fn release(&mut self, law: &Law, sid: Sid, shard: Shard) -> bool {
        let Holding::Owner(epoch, rows) = self.session(sid).shards[shard.at()] else { return false };
        if !law.scope.moves || !self.has_room(law, sid) {
            return false;
        }
        self.session_mut(sid).shards[shard.at()] = Holding::Released(epoch, rows);
        self.seal(sid, Entry::Release(shard));
        true
    }

    /// Begins to rewrite what a session has of a shard into a segment. `torn`: with one record less than it will say.
    pub fn compact(&mut self, law: &Law, sid: Sid, shard: Shard, torn: bool) -> bool {
        let session = self.session(sid);
        let Holding::Owner(_, rows) = session.shards[shard.at()] else { return false };
        let in_slots = rows.iter().any(|(_, _, place)| matches!(place, Place::Slot(..)));
        if session.phase != Phase::Serving
            || session.segment.is_some()
            || !in_slots
            || self.next_segment.0 >= law.scope.segments
        {
            return false;
        }
        let id = self.next_segment;
        self.next_segment = id.next();
        let upto = Offset(rows.next().0 - u8::from(torn));
        self.session_mut(sid).segment = Some((id, Segment { maker: sid, shard, upto }, rows.next()));
        true
    }

    /// Seals the entry that links the segment under way.
    pub fn link(&mut self, sid: Sid) {
        let Some((id, segment, upto)) = self.session_mut(sid).segment.take() else { return };
        self.seal(sid, Entry::Link(segment.shard, id, upto));
    }

    /// Moves the start of a shard's partition past its first record.
    pub fn retire(&mut self, law: &Law, sid: Sid, shard: Shard) -> bool {
        let Holding::Owner(_, rows) = self.session(sid).shards[shard.at()] else { return false };
        let retiring = |flight: &Flight| matches!(flight.entry, Entry::Retire(..));
        let due = law.scope.retention
            && self.has_room(law, sid)
            && rows.start < rows.next()
            && !self.session(sid).flight.iter().any(retiring);
        if due {
            self.seal(sid, Entry::Retire(shard, rows.start.next()));
        }
        due
    }
}

fn is_record_of(entry: Entry, shard: Shard) -> bool {
    matches!(entry, Entry::Record(of, ..) if of == shard)
}
