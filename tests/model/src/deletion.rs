//! What may be deleted, and when.

use crate::bucket::{CheckpointObject, Entry, Place, SlotObject, Snapshot};
use crate::names::{Epoch, Nth, SegmentId, Shard, Sid, Slot};
use crate::rule::Rule;
use crate::world::{Holding, Law, Phase, World};

/// An object to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A slot.
    Slot(Sid, Slot),
    /// An object in a list of checkpoints.
    Checkpoint(Sid, Nth),
    /// A claim.
    Claim(Shard, Epoch),
    /// A segment.
    Segment(SegmentId),
}

impl World {
    /// What a session may delete now.
    #[must_use]
    pub fn deletable(&self, law: &Law, sid: Sid) -> Vec<Target> {
        if self.session(sid).phase != Phase::Serving || !(law.scope.deletes.any() || law.scope.segments > 0) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for ((of, slot), object) in self.bucket.slots.iter() {
            if self.may_delete_slot(law, sid, (of, slot), object) {
                all.push(Target::Slot(of, slot));
            }
        }
        for ((of, nth), object) in self.bucket.checkpoints.iter() {
            if self.may_delete_checkpoint(law, sid, (of, nth), object) {
                all.push(Target::Checkpoint(of, nth));
            }
        }
        if !law.keeps(Rule::ClaimsKept) {
            let claims = self.bucket.claims.iter().map(|((shard, epoch), _)| (shard, epoch));
            let old = claims.filter(|(shard, epoch)| self.bucket.claims.get((*shard, epoch.next())).is_some());
            all.extend(old.map(|(shard, epoch)| Target::Claim(shard, epoch)));
        }
        let segments = self.bucket.segments.iter().filter(|(id, _)| self.may_sweep(law, sid, *id));
        all.extend(segments.map(|(id, _)| Target::Segment(id)));
        if law.keeps(Rule::Grace) {
            all.retain(|target| !self.is_read(*target));
        }
        all
    }

    /// Deletes an object.
    pub fn delete(&mut self, target: Target) {
        match target {
            Target::Slot(sid, slot) => self.bucket.slots.delete((sid, slot)),
            Target::Checkpoint(sid, nth) => self.bucket.checkpoints.delete((sid, nth)),
            Target::Claim(shard, epoch) => self.bucket.claims.delete((shard, epoch)),
            Target::Segment(id) => self.bucket.segments.delete(id),
        }
    }

    /// Whether a session's owner after it has a checkpoint that holds the shard.
    #[must_use]
    pub fn is_covered(&self, sid: Sid, shard: Shard) -> bool {
        let owned = self.bucket.claims.iter().rfind(|((of, _), claim)| *of == shard && claim.owner == sid);
        let Some(((_, epoch), _)) = owned else { return true };
        let later = self.bucket.claims.iter().filter(|((of, at), _)| *of == shard && *at > epoch);
        later.into_iter().any(|(_, claim)| {
            self.bucket.checkpoints.iter().any(|((of, _), object)| {
                of == claim.owner
                    && matches!(object, CheckpointObject::Snapshot(snapshot) if snapshot.shards[shard.at()].is_some())
            })
        })
    }

    fn is_read(&self, target: Target) -> bool {
        let place = match target {
            Target::Slot(sid, slot) => Place::Slot(sid, slot),
            Target::Segment(id) => Place::Segment(id),
            Target::Checkpoint(..) | Target::Claim(..) => return false,
        };
        self.reader.is_some_and(|(read, ..)| read == place)
    }

    fn durable(&self, sid: Sid) -> Option<(Nth, Snapshot)> {
        let nth = self.session(sid).durable?;
        match self.bucket.checkpoints.held((sid, nth))?.object {
            CheckpointObject::Snapshot(snapshot) => Some((nth, snapshot)),
            CheckpointObject::Fence => None,
        }
    }

    fn may_delete_slot(&self, law: &Law, sid: Sid, (of, slot): (Sid, Slot), object: SlotObject) -> bool {
        match object {
            SlotObject::Fence => law.scope.deletes.ended && !law.keeps(Rule::FencesKept) && self.is_over(law, sid, of),
            SlotObject::Data(entry) if of == sid => law.scope.deletes.slots && self.may_trim(law, sid, slot, entry),
            SlotObject::Data(_) => {
                law.scope.deletes.ended && self.is_over(law, sid, of) && !self.is_needed(law, Place::Slot(of, slot))
            }
        }
    }

    /// Whether a session's own slot is needed by nothing.
    fn may_trim(&self, law: &Law, sid: Sid, slot: Slot, entry: Entry) -> bool {
        let session = self.session(sid);
        let durable = self.durable(sid);
        let below = match durable {
            Some((_, snapshot)) if law.keeps(Rule::DeleteAfterCheckpoint) => snapshot.trim,
            None if law.keeps(Rule::DeleteAfterCheckpoint) => Slot(0),
            Some(_) | None => session.committed,
        };
        if slot >= below {
            return false;
        }
        if !law.scope.payload {
            return true;
        }
        let shard = entry.shard();
        let released = matches!(session.shards[shard.at()], Holding::Released(..));
        if released && law.keeps(Rule::ReleaserKeepsRecords) && matches!(entry, Entry::Record(..)) {
            return false;
        }
        let Some((_, snapshot)) = durable else { return true };
        let place = Place::Slot(sid, slot);
        let retiring = session.flight.iter().find_map(|flight| match flight.entry {
            Entry::Retire(of, start) if of == shard && !law.keeps(Rule::StartMovesFirst) => Some(start),
            Entry::Record(..) | Entry::Release(_) | Entry::Link(..) | Entry::Retire(..) => None,
        });
        let mut rows = snapshot.shards;
        for rows in rows.iter_mut().flatten() {
            rows.start = rows.start.max(retiring.unwrap_or_default());
        }
        !rows.iter().flatten().any(|rows| rows.needs(place))
    }

    fn may_delete_checkpoint(&self, law: &Law, sid: Sid, (of, nth): (Sid, Nth), object: CheckpointObject) -> bool {
        if object == CheckpointObject::Fence {
            return law.scope.deletes.ended && !law.keeps(Rule::CheckpointFencesKept) && of != sid;
        }
        if of != sid {
            return law.scope.deletes.ended && self.is_over(law, sid, of);
        }
        if !law.scope.deletes.checkpoints {
            return false;
        }
        let durable = self.durable(sid);
        let begun = self.session(sid).snapshot.is_some() && !law.keeps(Rule::CheckpointAfterNext);
        let is_old = durable.is_some_and(|(last, _)| nth < last || begun);
        let mut base = durable.and_then(|(_, snapshot)| snapshot.base);
        while let Some(at) = base.filter(|at| *at != nth && law.keeps(Rule::BasesStay)) {
            let below = self.bucket.checkpoints.held((sid, at)).map(|held| held.object);
            base = match below {
                Some(CheckpointObject::Snapshot(snapshot)) => snapshot.base,
                Some(CheckpointObject::Fence) | None => None,
            };
        }
        is_old && (base != Some(nth) || !law.keeps(Rule::BasesStay))
    }

    /// Whether the log of another session is needed for nothing, as far as a session knows.
    fn is_over(&self, law: &Law, sid: Sid, of: Sid) -> bool {
        if of == sid || !self.bucket.is_fenced(of) {
            return false;
        }
        let claims = || self.bucket.claims.iter().map(|((shard, _), claim)| (shard, claim));
        let owned = law.shards().filter(|shard| claims().any(|(at, claim)| at == *shard && claim.owner == of));
        let followed = |shard: Shard| {
            claims().any(|(at, claim)| at == shard && claim.previous.is_some_and(|(previous, _)| previous == of))
        };
        let is_mine = |shard: &Shard| matches!(self.session(sid).shards[shard.at()], Holding::Owner(..));
        let asked: Vec<Shard> = owned.filter(|shard| law.keeps(Rule::AllShardsCovered) || is_mine(shard)).collect();
        if law.keeps(Rule::DeleteAfterCheckpoint) {
            !asked.is_empty() && asked.into_iter().all(|shard| followed(shard) && self.is_covered(of, shard))
        } else {
            !asked.is_empty() && asked.into_iter().all(followed)
        }
    }

    /// Whether a chain names a place.
    fn is_needed(&self, law: &Law, place: Place) -> bool {
        law.scope.payload
            && law.shards().any(|shard| self.bucket.committed(shard).map_or(true, |rows| rows.needs(place)))
    }

    /// Whether the sweep of a session may take a segment.
    fn may_sweep(&self, law: &Law, sid: Sid, id: SegmentId) -> bool {
        let Some(segment) = self.bucket.segments.get(id) else { return false };
        let ended = !law.keeps(Rule::SweepEndedOnly) || self.is_over(law, sid, segment.maker);
        let named = if law.keeps(Rule::SweepByChain) {
            self.is_needed(law, Place::Segment(id))
        } else {
            let rows = self.session(sid).shards.iter().filter_map(Holding::rows);
            rows.into_iter().any(|rows| rows.needs(Place::Segment(id)))
        };
        segment.maker != sid && ended && !named
    }
}
