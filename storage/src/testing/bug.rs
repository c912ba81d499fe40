//! Bugs that a test plants in the core, to see whether the simulation finds them.
//!
//! A planted bug is a property of the thread, so that tests with different bugs run side by side: the simulation has
//! one thread. Without the feature `testing` the places that ask are `false`, and what they guard is not compiled.

use std::cell::Cell;

/// A mistake that the core could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bug {
    /// An append is acknowledged when its slot is sealed, before the put.
    AckBeforePut,
    /// One's own object under the name is taken for somebody else's.
    OwnWriteIsConflict,
    /// "Exists" with nothing there is taken for a fence.
    ConflictIsFence,
    /// A time-out of the store is answered as not stored.
    TimeOutIsRefusal,
    /// Offsets of a slot whose outcome is not known are given again.
    OffsetsGivenAgain,
    /// Records are shown when their slot is sealed.
    ServedBeforeCommit,
    /// Checksums of batches are not looked at.
    ChecksumSkipped,
    /// A restore leaves out the last slot.
    ReplayOneShort,
    /// A checkpoint has no producers in it.
    ProducersForgotten,
    /// A checkpoint does not say which streams are closed.
    CloseForgotten,
    /// What is remembered of a step of a stream is stored, and acknowledged, before its batch.
    StepWithoutBatch,
    /// The end of a stream is told before it is stored.
    EndToldBeforeCommit,
    /// A slot is acknowledged when it is stored, whether those below are or not.
    AckOutOfOrder,
    /// A fence in a slot is taken for one's own object.
    FenceIgnored,
    /// Data that was faster than a fence does not count.
    FenceBelowData,
    /// The loser of a claim serves the shard.
    LoserServes,
    /// Objects are deleted that the state does not need and the newest checkpoint does.
    DeletedBeforeCheckpoint,
    /// Objects are deleted as soon as nothing needs them.
    GraceIgnored,
    /// Fences are deleted with the logs that they end.
    FenceDeleted,
    /// What the state does not need is deleted, whoever wrote it.
    StrangersDeleted,
    /// A segment is deleted that is about to be linked.
    UnlinkedDeleted,
    /// A checkpoint is deleted that the newest one builds on.
    PartDeleted,
    /// A replay leaves out the moves of starts.
    StartForgotten,
    /// Records that forks share are trimmed, by hand and by what a topic keeps.
    ForkTrimmed,
    /// A checkpoint does not say what forks share with what.
    ForkForgotten,
    /// What is deleted goes at once, whether it has forks or not.
    SourceGone,
    /// What was kept for forks alone stays when the last of them goes.
    SourceLeft,
    /// A start does not tell what an earlier session may have shown beyond what is stored, and goes on there.
    GapForgotten,
    /// A purge leaves slots as they are.
    PurgeLeavesSlots,
    /// A purge leaves what stands beside deleted records in segments.
    PurgeLeavesSegments,
    /// After a purge the checkpoint builds on those before.
    PurgeLeavesParts,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::AckBeforePut,
        Self::OwnWriteIsConflict,
        Self::ConflictIsFence,
        Self::TimeOutIsRefusal,
        Self::OffsetsGivenAgain,
        Self::ServedBeforeCommit,
        Self::ChecksumSkipped,
        Self::ReplayOneShort,
        Self::ProducersForgotten,
        Self::CloseForgotten,
        Self::StepWithoutBatch,
        Self::EndToldBeforeCommit,
        Self::AckOutOfOrder,
        Self::FenceIgnored,
        Self::FenceBelowData,
        Self::LoserServes,
        Self::DeletedBeforeCheckpoint,
        Self::GraceIgnored,
        Self::FenceDeleted,
        Self::StrangersDeleted,
        Self::UnlinkedDeleted,
        Self::PartDeleted,
        Self::StartForgotten,
        Self::ForkTrimmed,
        Self::ForkForgotten,
        Self::SourceGone,
        Self::SourceLeft,
        Self::GapForgotten,
        Self::PurgeLeavesSlots,
        Self::PurgeLeavesSegments,
        Self::PurgeLeavesParts,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// A bug is planted in the core, on this thread, for as long as this lives.
#[derive(Debug)]
pub struct Planted(());

/// Plants a bug, or none.
///
/// # Panics
/// When one is planted on this thread already.
#[must_use]
pub fn plant(bug: Option<Bug>) -> Planted {
    let before = PLANTED.replace(bug);
    assert_eq!(before, None, "one bug at a time");
    Planted(())
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}

/// Whether a bug is planted on this thread.
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
