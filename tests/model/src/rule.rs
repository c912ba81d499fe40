//! The rules of the log core, each of which can be switched off, and the promises that they keep.

/// A rule of the log core. The number is that of the section of the design that states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// §2: only the contiguous prefix of slots is acknowledged. Off: each slot when it is stored.
    ContiguousPrefix,
    /// §3.1: the bytes of a slot are frozen. Off: a repeated put has other records in it.
    FrozenBytes,
    /// §3.2: one's own object under the name is success. Off: it is taken for a conflict, and refused.
    OwnWriteIsSuccess,
    /// §3.2: on "exists" the header decides. Off: it is taken for one's own object.
    LookWhoIsThere,
    /// §3.2: "exists" with nothing there is no answer. Off: it is a refusal.
    ConflictWithNothing,
    /// §3.3: a time-out tells nothing. Off: it is a refusal.
    TimeOutTellsNothing,
    /// §3.3: a read that finds nothing proves nothing. Off: it is a refusal.
    NothingFoundTellsNothing,
    /// §3.4: a put goes on when its caller is gone. Off: the slot is left as it is.
    PutOutlivesCaller,
    /// §3.5: an object is on the disk before the answer. Off: a power cut takes it back.
    Synced,
    /// §3.6: a store that replaces what it was asked to create is refused. Off: it is used.
    StoreProbed,
    /// §4.1: the checkpoint fence stands before the slots are looked at. Off: there is none.
    CheckpointFenceFirst,
    /// §4.1: the checkpoint fence is the last object of its list, seen in a listing after it. Off: it is wherever it was
    /// free when it was created.
    CheckpointFenceLast,
    /// §4, kept for ever: the checkpoint fence. Off: it is deleted.
    CheckpointFencesKept,
    /// §4.2: the search for the end begins at the trim point. Off: at slot 0.
    SearchFromTrim,
    /// §4.2: data that was faster than the fence counts. Off: the log ends below it.
    OneFurther,
    /// §4.2: what lies above the fence is dead. Off: it is replayed.
    LogEndsAtFence,
    /// §4, kept for ever: the fence in a log. Off: it goes with the log.
    FencesKept,
    /// §4.3: the loser of a claim backs off. Off: it serves.
    LoserBacksOff,
    /// §4, kept for ever: claims. Off: those that others follow are deleted.
    ClaimsKept,
    /// §4: a claim is made after the end of the predecessor. Off: before it.
    ClaimAfterFence,
    /// §4.4: the state is restored before it is served. Off: it begins empty.
    RestoreFirst,
    /// §4: a fenced writer stops at once. Off: it goes on with its next slot.
    FencedStops,
    /// §4: a fenced writer refuses only what is at or above the end that the next claim names. Off: what is at or above
    /// the fence that it met.
    RefuseFromEndOnly,
    /// §4: a session's id is never used again. Off: a process starts over under its old one.
    NewSessionId,
    /// §4: a RELEASE counts when every lower slot is there. Off: when it is there.
    ReleaseIsCommitted,
    /// §4: the owner stops a shard before it releases it. Off: it goes on.
    StopBeforeRelease,
    /// §5: a released shard stays in the releaser's checkpoints until its next owner's own holds it. Off: it leaves them.
    ReleasedStaysInCheckpoints,
    /// §6: an object of the log goes after a durable checkpoint that does not need it. Off: when it is applied.
    DeleteAfterCheckpoint,
    /// §6: a checkpoint goes after a later one is durable. Off: when a later one is begun.
    CheckpointAfterNext,
    /// §5: a checkpoint that others build on stays. Off: it goes.
    BasesStay,
    /// §6: the log of an ended session goes when the new owners of all its shards have checkpoints. Off: when one has.
    AllShardsCovered,
    /// §6: the old owner deletes nothing that holds records of a shard that it released. Off: what itself does not need.
    ReleaserKeepsRecords,
    /// §6: ten minutes for those who read. Off: none.
    Grace,
    /// §6: a segment is stored before it is linked. Off: while it is being stored.
    SegmentBeforeLink,
    /// §6: a segment is compared with what it replaces. Off: it is not.
    CompactionChecked,
    /// §6: the sweep takes only what ended sessions left. Off: what nothing names.
    SweepEndedOnly,
    /// §6: the sweep asks the chains of all shards. Off: its own local state.
    SweepByChain,
    /// §6: the start of a partition moves before its objects go. Off: they go at once.
    StartMovesFirst,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 38] = [
        Self::ContiguousPrefix,
        Self::FrozenBytes,
        Self::OwnWriteIsSuccess,
        Self::LookWhoIsThere,
        Self::ConflictWithNothing,
        Self::TimeOutTellsNothing,
        Self::NothingFoundTellsNothing,
        Self::PutOutlivesCaller,
        Self::Synced,
        Self::StoreProbed,
        Self::CheckpointFenceFirst,
        Self::CheckpointFenceLast,
        Self::CheckpointFencesKept,
        Self::SearchFromTrim,
        Self::OneFurther,
        Self::LogEndsAtFence,
        Self::FencesKept,
        Self::LoserBacksOff,
        Self::ClaimsKept,
        Self::ClaimAfterFence,
        Self::RestoreFirst,
        Self::FencedStops,
        Self::RefuseFromEndOnly,
        Self::NewSessionId,
        Self::ReleaseIsCommitted,
        Self::StopBeforeRelease,
        Self::ReleasedStaysInCheckpoints,
        Self::DeleteAfterCheckpoint,
        Self::CheckpointAfterNext,
        Self::BasesStay,
        Self::AllShardsCovered,
        Self::ReleaserKeepsRecords,
        Self::Grace,
        Self::SegmentBeforeLink,
        Self::CompactionChecked,
        Self::SweepEndedOnly,
        Self::SweepByChain,
        Self::StartMovesFirst,
    ];
}

/// What must hold in every state. The number is that of the invariant in the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Promise {
    /// 1: an acknowledged record is found by replaying claims, checkpoints and logs.
    Found,
    /// 1, 7: a record that was refused as not stored is never found.
    RefusedIsNotStored,
    /// 2: one claim follows the other, and what was acknowledged lies below the end that the next one names.
    Chained,
    /// 3: no acknowledgement at or above a fence.
    NothingAboveFence,
    /// 4: the bytes of a name never change.
    BytesStay,
    /// 3: no session finds a foreign object in its own log.
    NothingForeign,
    /// 6: offsets are dense, in every replay.
    Dense,
    /// 8: what an owner shows is a prefix of the log.
    Prefix,
    /// 9: what a chain names is there.
    ChainWhole,
    /// 9: what a reader was sent to is there.
    ReaderServed,
    /// 14, as far as it is finite: a slot that has a number is stored or being tried, or its session is over.
    NoSlotLeftBehind,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Found,
        Self::RefusedIsNotStored,
        Self::Chained,
        Self::NothingAboveFence,
        Self::BytesStay,
        Self::NothingForeign,
        Self::Dense,
        Self::Prefix,
        Self::ChainWhole,
        Self::ReaderServed,
        Self::NoSlotLeftBehind,
    ];

    /// As a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "an acknowledged record is found",
            Self::RefusedIsNotStored => "a refused record is not stored",
            Self::Chained => "claims are chained, and acknowledged slots lie below their ends",
            Self::NothingAboveFence => "nothing is acknowledged at or above a fence",
            Self::BytesStay => "the bytes of a name never change",
            Self::NothingForeign => "no session finds a foreign object in its log",
            Self::Dense => "offsets are dense",
            Self::Prefix => "an owner shows a prefix of the log",
            Self::ChainWhole => "what a chain names is there",
            Self::ReaderServed => "what a reader was sent to is there",
            Self::NoSlotLeftBehind => "no slot is left behind",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The promises that were broken on the way to a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken(u16);

impl Broken {
    /// Notes that a promise is broken.
    pub fn note(&mut self, promise: Promise) {
        self.0 |= promise.bit();
    }

    /// Whether it is.
    #[must_use]
    pub fn has(self, promise: Promise) -> bool {
        self.0 & promise.bit() != 0
    }

    /// Whether any is.
    #[must_use]
    pub fn any(self) -> bool {
        self.0 != 0
    }
}
