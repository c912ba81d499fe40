//! The model as the checker sees it: what may happen in a state, what comes of it, what must hold.

use stateright::{Model, Property};

use crate::bucket::{Put, SlotObject};
use crate::deletion::Target;
use crate::names::{Shard, Sid, Slot};
use crate::rule::{Promise, Rule};
use crate::world::{Holding, Law, Phase, Waiting, World};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A session begins, to take all shards.
    Start(Sid),
    /// A session begins without a shard.
    Join(Sid),
    /// A takeover reads.
    Look(Sid),
    /// A create of a session reaches the store; nobody hears of it.
    Lands(Sid, Waiting),
    /// A try of a create is answered.
    Answer(Sid, Waiting),
    /// The same, and an earlier try is still under way.
    AnswerOfSecondTry(Sid, Waiting),
    /// A create lands whose author has gone on.
    LandsLate(Put),
    /// A record is accepted.
    Append(Sid, Shard),
    /// A full checkpoint begins.
    Checkpoint(Sid),
    /// A checkpoint begins that builds on the last one.
    CheckpointOnTop(Sid),
    /// A shard is let go of.
    Release(Sid, Shard),
    /// A released shard is taken.
    Take(Sid, Shard),
    /// A shard's records are compacted.
    Compact(Sid, Shard),
    /// The same, and one is forgotten.
    CompactTorn(Sid, Shard),
    /// A segment is linked before it is there.
    LinkEarly(Sid),
    /// The oldest record of a shard is retired.
    Retire(Sid, Shard),
    /// An object is deleted.
    Delete(Sid, Target),
    /// A reader is sent by a session to where the first record of a shard is.
    SendReader(Sid, Shard),
    /// It comes there.
    Read,
    /// A try is answered with "exists" although nothing is there, a time-out, or a time-out and a look that finds nothing.
    NoAnswer(Sid, Slot),
    /// The caller of a slot hangs up.
    HangUp(Sid, Slot),
    /// A put is repeated with other bytes.
    Reseal(Sid, Slot),
    /// A process starts over under its old session.
    Restart(Sid),
    /// The power fails: what was not synced is lost.
    PowerCut(Sid, Slot),
}

impl Law {
    fn sessions(&self) -> impl Iterator<Item = Sid> + use<> {
        (0..self.scope.sessions).map(Sid)
    }

    fn session_actions(&self, world: &World, sid: Sid, actions: &mut Vec<Action>) {
        let session = world.session(sid);
        match session.phase {
            Phase::Unborn => {
                // Sessions begin in order: which of the unborn it is makes no difference.
                if sid.0 == 0 || world.session(Sid(sid.0 - 1)).phase != Phase::Unborn {
                    actions.push(Action::Start(sid));
                    if self.scope.moves {
                        actions.push(Action::Join(sid));
                    }
                }
                return;
            }
            Phase::Ended => return,
            Phase::Serving => self.serving_actions(world, sid, actions),
            Phase::ReadClaims | Phase::ListCheckpoints(_) | Phase::ListSlots(..) | Phase::Restore => {
                actions.push(Action::Look(sid));
            }
            Phase::FenceCheckpoints(..) | Phase::FenceSlot(..) | Phase::Claim(_) | Phase::Move(..) => {}
        }
        for waiting in world.waiting(sid) {
            let taken = world.put_of(sid, waiting).is_some_and(|put| world.bucket.is_taken(put));
            actions.push(Action::Answer(sid, waiting));
            if !taken {
                actions.push(Action::Lands(sid, waiting));
            }
            if world.late_left > 0 {
                actions.push(Action::AnswerOfSecondTry(sid, waiting));
            }
            if let Waiting::Slot(slot) = waiting {
                self.broken_put_actions(world, sid, slot, actions);
            }
        }
    }

    fn serving_actions(&self, world: &World, sid: Sid, actions: &mut Vec<Action>) {
        for shard in self.shards() {
            actions.push(Action::Append(sid, shard));
            actions.push(Action::Release(sid, shard));
            actions.push(Action::Take(sid, shard));
            if self.scope.segments > 0 {
                actions.push(Action::Compact(sid, shard));
                if !self.keeps(Rule::CompactionChecked) {
                    actions.push(Action::CompactTorn(sid, shard));
                }
            }
            actions.push(Action::Retire(sid, shard));
            if self.scope.reader && world.reader.is_none() {
                actions.push(Action::SendReader(sid, shard));
            }
        }
        actions.push(Action::Checkpoint(sid));
        actions.push(Action::CheckpointOnTop(sid));
        if !self.keeps(Rule::SegmentBeforeLink) && world.session(sid).segment.is_some() {
            actions.push(Action::LinkEarly(sid));
        }
        if !self.keeps(Rule::NewSessionId) {
            actions.push(Action::Restart(sid));
        }
        actions.extend(world.deletable(self, sid).into_iter().map(|target| Action::Delete(sid, target)));
    }

    /// What happens to a put only when a rule of the conditional write is off: with it on, each of these changes nothing.
    fn broken_put_actions(&self, world: &World, sid: Sid, slot: Slot, actions: &mut Vec<Action>) {
        let nothing_there = world.bucket.slots.get((sid, slot)).is_none();
        let no_answer = !self.keeps(Rule::TimeOutTellsNothing)
            || (nothing_there
                && (!self.keeps(Rule::ConflictWithNothing) || !self.keeps(Rule::NothingFoundTellsNothing)));
        if no_answer {
            actions.push(Action::NoAnswer(sid, slot));
        }
        if !self.keeps(Rule::PutOutlivesCaller) {
            actions.push(Action::HangUp(sid, slot));
        }
        if !self.keeps(Rule::FrozenBytes) {
            actions.push(Action::Reseal(sid, slot));
        }
    }

    fn answered(&self, world: &mut World, sid: Sid, waiting: Waiting) {
        match waiting {
            Waiting::Slot(slot) => world.slot_answered(self, sid, slot),
            Waiting::Checkpoint => world.checkpoint_answered(self, sid),
            Waiting::Takeover => world.takeover_answered(self, sid),
            Waiting::Segment => {
                if let Some(put) = world.put_of(sid, waiting) {
                    let _there_now = world.land(self, put);
                    world.link(sid);
                }
            }
        }
    }

    fn apply(&self, world: &mut World, action: Action) -> bool {
        match action {
            Action::Start(sid) => world.session_mut(sid).phase = Phase::ReadClaims,
            Action::Join(sid) => world.session_mut(sid).phase = Phase::Serving,
            Action::Look(sid) => return world.look(self, sid),
            Action::Lands(sid, waiting) => {
                let Some(put) = world.put_of(sid, waiting) else { return false };
                let _nobody_hears = world.land(self, put);
            }
            Action::Answer(sid, waiting) => self.answered(world, sid, waiting),
            Action::AnswerOfSecondTry(sid, waiting) => {
                let Some(put) = world.put_of(sid, waiting) else { return false };
                world.late_left -= 1;
                self.answered(world, sid, waiting);
                world.leave_late(self, put);
            }
            Action::LandsLate(put) => {
                world.late.retain(|other| *other != put);
                let _nobody_hears = world.land(self, put);
            }
            Action::Append(sid, shard) => return world.append(self, sid, shard),
            Action::Checkpoint(sid) => return world.checkpoint(self, sid, true),
            Action::CheckpointOnTop(sid) => return world.checkpoint(self, sid, false),
            Action::Release(sid, shard) => return world.release(self, sid, shard),
            Action::Take(sid, shard) => return world.take_released(self, sid, shard),
            Action::Compact(sid, shard) => return world.compact(self, sid, shard, false),
            Action::CompactTorn(sid, shard) => return world.compact(self, sid, shard, true),
            Action::LinkEarly(sid) => {
                let put = world.put_of(sid, Waiting::Segment);
                world.link(sid);
                put.into_iter().for_each(|put| world.leave_late(self, put));
            }
            Action::Retire(sid, shard) => return world.retire(self, sid, shard),
            Action::Delete(_, target) => world.delete(target),
            Action::SendReader(sid, shard) => {
                let first = match &world.session(sid).shards[shard.at()] {
                    Holding::Owner(_, rows) => rows.get(rows.start).map(|(record, place)| (rows.start, record, place)),
                    Holding::Nothing | Holding::Claimed(_) | Holding::Released(..) => None,
                };
                // One that is sent by a session that was ended long ago to what is gone asks again, elsewhere.
                let there = first.filter(|(offset, record, place)| world.bucket.holds(*place, shard, *offset, *record));
                let Some((offset, record, place)) = there else { return false };
                world.reader = Some((place, shard, offset, record));
            }
            Action::Read => {
                let Some((place, shard, offset, record)) = world.reader.take() else { return false };
                if !world.bucket.holds(place, shard, offset, record) {
                    world.broken.note(Promise::ReaderServed);
                }
            }
            Action::NoAnswer(sid, slot) => world.give_up(self, sid, slot),
            Action::HangUp(sid, slot) => world.hang_up(self, sid, slot),
            Action::Reseal(sid, slot) => return world.reseal(self, sid, slot),
            Action::Restart(sid) => world.restart(self, sid),
            Action::PowerCut(sid, slot) => world.bucket.slots.forget((sid, slot)),
        }
        true
    }
}

impl Model for Law {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.scope)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // What is broken stays broken: there is nothing to see behind it.
        if world.broken.any() {
            return;
        }
        for sid in self.sessions() {
            self.session_actions(world, sid, actions);
        }
        actions.extend(world.late.iter().map(|put| Action::LandsLate(*put)));
        if world.reader.is_some() {
            actions.push(Action::Read);
        }
        if !self.keeps(Rule::Synced) {
            let data = world.bucket.slots.iter().filter(|(_, object)| matches!(object, SlotObject::Data(_)));
            actions.extend(data.map(|((sid, slot), _)| Action::PowerCut(sid, slot)));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        if !self.apply(&mut next, action) {
            return None;
        }
        next.tidy(self);
        next.judge(self);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn always(promise: Promise, holds: fn(&Law, &World) -> bool) -> Property<Law> {
            Property::<Law>::always(promise.name(), holds)
        }
        vec![
            always(Promise::Found, |_, world| !world.broken.has(Promise::Found)),
            always(Promise::RefusedIsNotStored, |_, world| !world.broken.has(Promise::RefusedIsNotStored)),
            always(Promise::Chained, |_, world| !world.broken.has(Promise::Chained)),
            always(Promise::NothingAboveFence, |_, world| !world.broken.has(Promise::NothingAboveFence)),
            always(Promise::BytesStay, |_, world| !world.broken.has(Promise::BytesStay)),
            always(Promise::NothingForeign, |_, world| !world.broken.has(Promise::NothingForeign)),
            always(Promise::Dense, |_, world| !world.broken.has(Promise::Dense)),
            always(Promise::Prefix, |_, world| !world.broken.has(Promise::Prefix)),
            always(Promise::ChainWhole, |_, world| !world.broken.has(Promise::ChainWhole)),
            always(Promise::ReaderServed, |_, world| !world.broken.has(Promise::ReaderServed)),
            always(Promise::NoSlotLeftBehind, |_, world| !world.broken.has(Promise::NoSlotLeftBehind)),
        ]
    }
}
