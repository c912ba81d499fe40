//! What stands in the bucket: the objects of the log, and how a chain of them is replayed.

use crate::names::{Created, Epoch, Names, Nth, Offset, Record, SegmentId, Shard, Sid, Slot};
use crate::rule::Promise;

/// Shards of the largest run.
pub const SHARDS: usize = 2;
/// Records of the largest run.
pub const RECORDS: usize = 3;

/// Where the bytes of a record are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: filling.
    #[default]
    Nowhere,
    /// In a slot.
    Slot(Sid, Slot),
    /// In a segment.
    Segment(SegmentId),
}

/// The state of a shard: its partition's records, in order, and where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rows {
    len: u8,
    /// The first offset that is kept.
    pub start: Offset,
    rows: [(Record, Place); RECORDS],
}

/// What a slot holds: one entry, so that each may have a fate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// A record.
    Record(Shard, Offset, Record),
    /// The shard is let go of.
    Release(Shard),
    /// The records of the shard below the offset are read from the segment.
    Link(Shard, SegmentId, Offset),
    /// The partition begins here.
    Retire(Shard, Offset),
}

/// An object in a session's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotObject {
    /// Data.
    Data(Entry),
    /// The end of the log.
    Fence,
}

/// A checkpoint: what it holds of each shard, and the slot from which the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Snapshot {
    /// The first slot that is not in it.
    pub trim: Slot,
    /// The checkpoint that it builds on.
    pub base: Option<Nth>,
    /// The shards.
    pub shards: [Option<Rows>; SHARDS],
}

/// An object in a session's list of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckpointObject {
    /// A checkpoint.
    Snapshot(Snapshot),
    /// The end of the list.
    Fence,
}

/// Who owns a shard, and where the log of the owner before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The owner.
    pub owner: Sid,
    /// The owner before.
    pub previous: Option<(Sid, Slot)>,
}

/// Records of a shard, compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    /// Who made it.
    pub maker: Sid,
    /// The shard.
    pub shard: Shard,
    /// The offset after its last record; it holds all below.
    pub upto: Offset,
}

/// A create on its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Put {
    /// Of a slot.
    Slot(Sid, Slot, SlotObject),
    /// Of a checkpoint.
    Checkpoint(Sid, Nth, CheckpointObject),
    /// Of a claim.
    Claim(Shard, Epoch, Claim),
    /// Of a segment.
    Segment(SegmentId, Segment),
}

/// All objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// The logs.
    pub slots: Names<(Sid, Slot), SlotObject>,
    /// The checkpoints.
    pub checkpoints: Names<(Sid, Nth), CheckpointObject>,
    /// The claims.
    pub claims: Names<(Shard, Epoch), Claim>,
    /// The segments.
    pub segments: Names<SegmentId, Segment>,
}

/// A stretch of a shard's history: the log of one owner, as far as it counts.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// The shard.
    pub shard: Shard,
    /// Whose log.
    pub owner: Sid,
    /// The epoch in which it owned the shard.
    pub epoch: Epoch,
    /// Where the log ends; `None`: where it ends by now.
    pub end: Option<Slot>,
    /// The checkpoint to begin with, when it was fixed; else the last one there.
    pub checkpoint: Option<Nth>,
    /// False: what lies above a fence is read, too.
    pub ends_at_fence: bool,
}

impl Rows {
    /// How many records there are, and so the next offset.
    #[must_use]
    pub fn next(&self) -> Offset {
        Offset(self.len)
    }

    /// The records with their places.
    pub fn iter(&self) -> impl Iterator<Item = (Offset, Record, Place)> + '_ {
        (0..self.len).zip(&self.rows).map(|(offset, (record, place))| (Offset(offset), *record, *place))
    }

    /// The record at an offset.
    #[must_use]
    pub fn get(&self, offset: Offset) -> Option<(Record, Place)> {
        (offset < self.next()).then(|| self.rows[offset.at()])
    }

    /// Whether a record that is kept has its bytes there.
    #[must_use]
    pub fn needs(&self, place: Place) -> bool {
        self.iter().any(|(offset, _, at)| offset >= self.start && at == place)
    }

    /// Applies an entry that stands at a place; false when it does not continue what is here.
    pub fn apply(&mut self, entry: Entry, place: Place) -> bool {
        match entry {
            Entry::Record(_, offset, record) => {
                if offset != self.next() {
                    return false;
                }
                self.rows[offset.at()] = (record, place);
                self.len += 1;
            }
            Entry::Release(_) => {}
            Entry::Link(_, id, upto) => {
                for row in self.rows.iter_mut().take(upto.at()) {
                    row.1 = Place::Segment(id);
                }
            }
            Entry::Retire(_, start) => self.start = self.start.max(start),
        }
        true
    }
}

impl Entry {
    /// The shard that it is about.
    #[must_use]
    pub fn shard(self) -> Shard {
        match self {
            Self::Record(shard, ..) | Self::Release(shard) | Self::Link(shard, ..) | Self::Retire(shard, _) => shard,
        }
    }
}

impl Bucket {
    /// Creates an object if its name is free. Notes when a name that had one kind of bytes gets others.
    pub fn create(&mut self, put: Put) -> (Created<Put>, bool) {
        match put {
            Put::Slot(sid, slot, object) => {
                // A fence in the name of a slot that was deleted with its whole log is allowed: nobody reads it again. And what
                // comes of a fence that is deleted is to be seen in the other promises.
                let changes = |old| old != object && old != SlotObject::Fence && object != SlotObject::Fence;
                let changed = self.slots.held((sid, slot)).is_some_and(|held| !held.there && changes(held.object));
                (map(self.slots.create((sid, slot), object), |object| Put::Slot(sid, slot, object)), changed)
            }
            Put::Checkpoint(sid, nth, object) => {
                let fence = CheckpointObject::Fence;
                let changes = |old| old != object && old != fence && object != fence;
                let changed = self.checkpoints.held((sid, nth)).is_some_and(|held| !held.there && changes(held.object));
                (map(self.checkpoints.create((sid, nth), object), |object| Put::Checkpoint(sid, nth, object)), changed)
            }
            Put::Claim(shard, epoch, claim) => {
                let held = self.claims.held((shard, epoch));
                let changed = held.is_some_and(|held| !held.there && held.object != claim);
                (map(self.claims.create((shard, epoch), claim), |claim| Put::Claim(shard, epoch, claim)), changed)
            }
            Put::Segment(id, segment) => {
                (map(self.segments.create(id, segment), |segment| Put::Segment(id, segment)), false)
            }
        }
    }

    /// Whether the name of a put is taken.
    #[must_use]
    pub fn is_taken(&self, put: Put) -> bool {
        match put {
            Put::Slot(sid, slot, _) => self.slots.get((sid, slot)).is_some(),
            Put::Checkpoint(sid, nth, _) => self.checkpoints.get((sid, nth)).is_some(),
            Put::Claim(shard, epoch, _) => self.claims.get((shard, epoch)).is_some(),
            Put::Segment(id, _) => self.segments.get(id).is_some(),
        }
    }

    /// The newest claim of a shard.
    #[must_use]
    pub fn newest_claim(&self, shard: Shard) -> Option<(Epoch, Claim)> {
        let of_shard = self.claims.iter().rev().find(|((of, _), _)| *of == shard);
        of_shard.map(|((_, epoch), claim)| (epoch, claim))
    }

    /// The last object in a session's list of checkpoints.
    #[must_use]
    pub fn last_in_checkpoints(&self, sid: Sid) -> Option<(Nth, CheckpointObject)> {
        self.checkpoints.iter().rev().find(|((of, _), _)| *of == sid).map(|((_, nth), object)| (nth, object))
    }

    /// The last checkpoint of a session.
    #[must_use]
    pub fn last_checkpoint(&self, sid: Sid) -> Option<(Nth, Snapshot)> {
        self.checkpoints.iter().rev().find_map(|((of, nth), object)| match object {
            CheckpointObject::Snapshot(snapshot) if of == sid => Some((nth, snapshot)),
            CheckpointObject::Snapshot(_) | CheckpointObject::Fence => None,
        })
    }

    /// A checkpoint, with all that it builds on.
    ///
    /// # Errors
    /// `ChainWhole` when one of them is not there.
    pub fn load(&self, sid: Sid, nth: Nth) -> Result<Snapshot, Promise> {
        let Some(CheckpointObject::Snapshot(top)) = self.checkpoints.get((sid, nth)) else {
            return Err(Promise::ChainWhole);
        };
        let mut base = top.base;
        while let Some(nth) = base {
            let Some(CheckpointObject::Snapshot(below)) = self.checkpoints.get((sid, nth)) else {
                return Err(Promise::ChainWhole);
            };
            base = below.base;
        }
        Ok(top)
    }

    /// Whether a session's log has a fence.
    #[must_use]
    pub fn is_fenced(&self, sid: Sid) -> bool {
        self.slots.iter().any(|((of, _), object)| of == sid && object == SlotObject::Fence)
    }

    /// The state of a shard that whoever took it now would restore.
    ///
    /// # Errors
    /// What the bucket breaks when it cannot be restored.
    pub fn committed(&self, shard: Shard) -> Result<Rows, Promise> {
        let Some((epoch, claim)) = self.newest_claim(shard) else { return Ok(Rows::default()) };
        let stretch = Stretch { shard, owner: claim.owner, epoch, end: None, checkpoint: None, ends_at_fence: true };
        self.replay(stretch)
    }

    /// The state of a shard at the end of a stretch, back to the checkpoint or the beginning that it rests on.
    ///
    /// # Errors
    /// What the bucket breaks when it cannot be restored.
    pub fn replay(&self, stretch: Stretch) -> Result<Rows, Promise> {
        let Stretch { shard, owner, epoch, .. } = stretch;
        let last = match stretch.checkpoint {
            Some(nth) => Some(nth),
            None => self.last_checkpoint(owner).map(|(nth, _)| nth),
        };
        let snapshot = last.map(|nth| self.load(owner, nth)).transpose()?;
        let from = snapshot.map_or(Slot(0), |snapshot| snapshot.trim);
        let mut rows = match snapshot.and_then(|snapshot| snapshot.shards[shard.at()]) {
            Some(rows) => rows,
            None => self.before(shard, epoch)?,
        };
        let mut slot = from;
        while stretch.end.is_none_or(|end| slot < end) {
            match self.slots.get((owner, slot)) {
                Some(SlotObject::Data(entry)) => {
                    if entry.shard() == shard && !rows.apply(entry, Place::Slot(owner, slot)) {
                        return Err(Promise::Dense);
                    }
                }
                Some(SlotObject::Fence) if !stretch.ends_at_fence => {}
                Some(SlotObject::Fence) | None if stretch.end.is_none() => break,
                Some(SlotObject::Fence) | None => return Err(Promise::ChainWhole),
            }
            slot = slot.next();
        }
        Ok(rows)
    }

    /// The state of a shard when an epoch begins.
    ///
    /// # Errors
    /// What the bucket breaks when it cannot be restored.
    pub fn before(&self, shard: Shard, epoch: Epoch) -> Result<Rows, Promise> {
        let claim = self.claims.held((shard, epoch)).ok_or(Promise::ChainWhole)?.object;
        let Some((owner, end)) = claim.previous else { return Ok(Rows::default()) };
        let epoch = Epoch(epoch.0 - 1);
        self.replay(Stretch { shard, owner, epoch, end: Some(end), checkpoint: None, ends_at_fence: true })
    }

    /// Whether the bytes of a record are where they should be.
    #[must_use]
    pub fn holds(&self, place: Place, shard: Shard, offset: Offset, record: Record) -> bool {
        match place {
            Place::Nowhere => false,
            Place::Slot(sid, slot) => {
                self.slots.get((sid, slot)) == Some(SlotObject::Data(Entry::Record(shard, offset, record)))
            }
            Place::Segment(id) => {
                self.segments.get(id).is_some_and(|segment| segment.shard == shard && offset < segment.upto)
            }
        }
    }
}

fn map<T, U>(created: Created<T>, f: impl FnOnce(T) -> U) -> Created<U> {
    match created {
        Created::New => Created::New,
        Created::Same => Created::Same,
        Created::Other(object) => Created::Other(f(object)),
    }
}
