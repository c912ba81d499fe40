//! A session that begins: it ends the logs of the owners that it sees, claims their shards, restores them. And one that
//! takes a shard that a living session has released.

use crate::bucket::{CheckpointObject, Claim, Entry, Put, Rows, SlotObject, Stretch};
use crate::names::{Created, Epoch, Nth, Shard, Sid, Slot};
use crate::rule::Rule;
use crate::world::{EndedLog, Holding, Law, Phase, World};

impl World {
    /// The create that a takeover waits for.
    #[must_use]
    pub fn takeover_put(&self, sid: Sid) -> Option<Put> {
        let session = self.session(sid);
        match session.phase {
            Phase::FenceCheckpoints(of, nth, _) => Some(Put::Checkpoint(of, nth, CheckpointObject::Fence)),
            Phase::FenceSlot(of, slot, _) => Some(Put::Slot(of, slot, SlotObject::Fence)),
            Phase::Claim(shard) => {
                let (epoch, owner) = session.seen[shard.at()]?;
                let end = session.ended.iter().find(|log| log.of == owner)?.end;
                Some(Put::Claim(shard, epoch.next(), Claim { owner: sid, previous: Some((owner, end)) }))
            }
            Phase::Move(shard, from, end) => {
                let (epoch, _) = session.seen[shard.at()]?;
                Some(Put::Claim(shard, epoch.next(), Claim { owner: sid, previous: Some((from, end)) }))
            }
            Phase::Unborn
            | Phase::ReadClaims
            | Phase::ListCheckpoints(_)
            | Phase::ListSlots(..)
            | Phase::Restore
            | Phase::Serving
            | Phase::Ended => None,
        }
    }

    /// A step that reads; false when there is none to do.
    pub fn look(&mut self, law: &Law, sid: Sid) -> bool {
        match self.session(sid).phase {
            Phase::ReadClaims => {
                for shard in law.shards() {
                    let seen = self.bucket.newest_claim(shard).map(|(epoch, claim)| (epoch, claim.owner));
                    self.session_mut(sid).seen[shard.at()] = seen;
                }
                self.next_owner(law, sid);
            }
            Phase::ListCheckpoints(of) => self.list_checkpoints(law, sid, of),
            Phase::ListSlots(of, checkpoint) => self.list_slots(law, sid, of, checkpoint),
            Phase::Restore => self.restore(law, sid),
            Phase::Unborn
            | Phase::FenceCheckpoints(..)
            | Phase::FenceSlot(..)
            | Phase::Claim(_)
            | Phase::Move(..)
            | Phase::Serving
            | Phase::Ended => return false,
        }
        true
    }

    /// The next owner to end, or the claims when all are ended.
    fn next_owner(&mut self, law: &Law, sid: Sid) {
        let session = self.session(sid);
        let owners = session.seen.iter().flatten().map(|(_, owner)| *owner);
        let next = owners.into_iter().find(|owner| session.ended.iter().all(|log| log.of != *owner));
        let phase = match next {
            Some(owner) => Phase::ListCheckpoints(owner),
            None => self.claim_from(law, sid, Shard(0)),
        };
        self.session_mut(sid).phase = phase;
    }

    fn claim_from(&self, law: &Law, sid: Sid, from: Shard) -> Phase {
        let seen = &self.session(sid).seen;
        let next = law.shards().find(|shard| *shard >= from && seen[shard.at()].is_some());
        next.map_or(Phase::Restore, Phase::Claim)
    }

    fn list_checkpoints(&mut self, law: &Law, sid: Sid, of: Sid) {
        let last = self.bucket.last_in_checkpoints(of);
        let checkpoint = self.bucket.last_checkpoint(of).map(|(nth, _)| nth);
        let phase = match last {
            _ if !law.keeps(Rule::CheckpointFenceFirst) => Phase::ListSlots(of, checkpoint),
            Some((_, CheckpointObject::Fence)) => Phase::ListSlots(of, checkpoint),
            Some((nth, CheckpointObject::Snapshot(_))) => Phase::FenceCheckpoints(of, nth.next(), checkpoint),
            None => Phase::FenceCheckpoints(of, Nth(0), None),
        };
        self.session_mut(sid).phase = phase;
    }

    fn list_slots(&mut self, law: &Law, sid: Sid, of: Sid, checkpoint: Option<Nth>) {
        let held = checkpoint.and_then(|nth| self.bucket.checkpoints.get((of, nth)));
        let trim = match held {
            Some(CheckpointObject::Snapshot(snapshot)) if law.keeps(Rule::SearchFromTrim) => snapshot.trim,
            Some(_) => Slot(0),
            // It is gone, and with it the log: whoever did that has the shards.
            None if checkpoint.is_some() => return self.end(law, sid),
            None => Slot(0),
        };
        let is_data = |slot: &Slot| matches!(self.bucket.slots.get((of, *slot)), Some(SlotObject::Data(_)));
        let first = (trim.0..).map(Slot).find(|slot| !is_data(slot)).expect("a log is short");
        let is_fence = self.bucket.slots.get((of, first)) == Some(SlotObject::Fence);
        if is_fence || !law.keeps(Rule::ClaimAfterFence) {
            self.log_ended(law, sid, EndedLog { of, checkpoint, end: first });
        } else {
            self.session_mut(sid).phase = Phase::FenceSlot(of, first, checkpoint);
        }
    }

    fn log_ended(&mut self, law: &Law, sid: Sid, log: EndedLog) {
        self.session_mut(sid).ended.push(log);
        self.next_owner(law, sid);
    }

    /// A try of a fence's or claim's put is answered.
    pub fn takeover_answered(&mut self, law: &Law, sid: Sid) {
        let Some(put) = self.takeover_put(sid) else { return };
        let created = self.land(law, put);
        match self.session(sid).phase {
            Phase::FenceCheckpoints(of, nth, last) => {
                self.checkpoint_fence_answered(law, (sid, of, nth, last), created)
            }
            Phase::FenceSlot(of, slot, checkpoint) => match created {
                Created::Other(_) if law.keeps(Rule::OneFurther) => {
                    self.session_mut(sid).phase = Phase::FenceSlot(of, slot.next(), checkpoint);
                }
                Created::New | Created::Same | Created::Other(_) => {
                    self.log_ended(law, sid, EndedLog { of, checkpoint, end: slot });
                }
            },
            Phase::Claim(shard) => {
                if let (Some((epoch, _)), true) = (self.session(sid).seen[shard.at()], is_won(law, created)) {
                    self.session_mut(sid).shards[shard.at()] = Holding::Claimed(epoch.next());
                }
                let phase = self.claim_from(law, sid, shard.next());
                self.session_mut(sid).phase = phase;
            }
            Phase::Move(shard, ..) => {
                let won = is_won(law, created);
                let epoch = self.session(sid).seen[shard.at()].map(|(epoch, _)| epoch.next());
                let session = self.session_mut(sid);
                session.seen = Default::default();
                session.phase = if won { Phase::Restore } else { Phase::Serving };
                if let (true, Some(epoch)) = (won, epoch) {
                    session.shards[shard.at()] = Holding::Claimed(epoch);
                }
            }
            Phase::Unborn
            | Phase::ReadClaims
            | Phase::ListCheckpoints(_)
            | Phase::ListSlots(..)
            | Phase::Restore
            | Phase::Serving
            | Phase::Ended => {}
        }
    }

    fn checkpoint_fence_answered(
        &mut self,
        law: &Law,
        (sid, of, nth, last): (Sid, Sid, Nth, Option<Nth>),
        created: Created<Put>,
    ) {
        let phase = match created {
            _ if law.keeps(Rule::CheckpointFenceLast) => Phase::ListCheckpoints(of),
            Created::New | Created::Same => Phase::ListSlots(of, last),
            Created::Other(_) => Phase::FenceCheckpoints(of, nth.next(), Some(nth)),
        };
        self.session_mut(sid).phase = phase;
    }

    /// Restores what was claimed, and serves it. What is not there any more ends the session: others have the shards.
    fn restore(&mut self, law: &Law, sid: Sid) {
        for shard in law.shards() {
            let Holding::Claimed(epoch) = self.session(sid).shards[shard.at()] else { continue };
            match self.restored(law, sid, shard, epoch) {
                Some(rows) => self.session_mut(sid).shards[shard.at()] = Holding::Owner(epoch, rows),
                None => return self.end(law, sid),
            }
        }
        let session = self.session_mut(sid);
        session.phase = Phase::Serving;
        session.seen = Default::default();
        session.ended.clear();
    }

    fn restored(&self, law: &Law, sid: Sid, shard: Shard, epoch: Epoch) -> Option<Rows> {
        if !law.keeps(Rule::RestoreFirst) {
            return Some(Rows::default());
        }
        let claim = self.bucket.claims.held((shard, epoch))?.object;
        if !law.keeps(Rule::NewSessionId) && claim.owner == sid {
            return self.bucket.committed(shard).ok();
        }
        let (owner, end) = claim.previous?;
        let checkpoint = self.session(sid).ended.iter().find(|log| log.of == owner).and_then(|log| log.checkpoint);
        let ends_at_fence = law.keeps(Rule::LogEndsAtFence);
        let end = if ends_at_fence { end } else { self.after_last_slot(owner).max(end) };
        let stretch = Stretch { shard, owner, epoch: Epoch(epoch.0 - 1), end: Some(end), checkpoint, ends_at_fence };
        self.bucket.replay(stretch).ok()
    }

    fn after_last_slot(&self, sid: Sid) -> Slot {
        let last = self.bucket.slots.iter().filter(|((of, _), _)| *of == sid).map(|((_, slot), _)| slot).next_back();
        last.map_or(Slot(0), Slot::next)
    }

    /// Begins to take a shard that a living session has released; false when there is none.
    pub fn take_released(&mut self, law: &Law, sid: Sid, shard: Shard) -> bool {
        let session = self.session(sid);
        if session.phase != Phase::Serving || session.shards[shard.at()] != Holding::Nothing || !law.scope.moves {
            return false;
        }
        let Some((epoch, claim)) = self.bucket.newest_claim(shard) else { return false };
        let owner = claim.owner;
        let release = SlotObject::Data(Entry::Release(shard));
        let released = self.bucket.slots.iter().find(|((of, _), object)| *of == owner && *object == release);
        let Some(((_, slot), _)) = released.filter(|_| owner != sid) else { return false };
        let from = self.bucket.last_checkpoint(owner).map_or(Slot(0), |(_, snapshot)| snapshot.trim);
        let is_data = |slot: Slot| matches!(self.bucket.slots.get((owner, slot)), Some(SlotObject::Data(_)));
        if law.keeps(Rule::ReleaseIsCommitted) && !(from.0..slot.0).map(Slot).all(is_data) {
            return false;
        }
        let session = self.session_mut(sid);
        session.seen[shard.at()] = Some((epoch, owner));
        session.phase = Phase::Move(shard, owner, slot.next());
        true
    }
}

fn is_won(law: &Law, created: Created<Put>) -> bool {
    match created {
        Created::New | Created::Same => true,
        Created::Other(_) => !law.keeps(Rule::LoserBacksOff),
    }
}
