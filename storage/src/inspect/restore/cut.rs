//! Where a copy ends: after the longest run of slots from the beginning of which none is newer than the time.
//!
//! A slot is as old as its newest record. One without records, which makes or deletes a topic for instance, has the time
//! at which it was sealed; in buckets of builds that did not write that, the time of the slot before. Slots that were deleted
//! have no time and count as old: a later checkpoint made up for them before they went.

use crate::ids::{SessionId, Slot, Timestamp};
use crate::wal::blocks::{Block, PlacedBlock};

/// The end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Which of the owners it is, in their order.
    pub(super) owner: usize,
    /// The session in whose log it is.
    pub(super) session: SessionId,
    /// The first slot that is not in the copy.
    pub(super) end: Slot,
    /// The time of the last one that is.
    pub(super) at: Timestamp,
}

/// How far the logs were followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) cut: Option<Cut>,
    /// The owner and the slot after the last hole before the cut: a state must come from a checkpoint that is not before.
    pub(super) hole: Option<(usize, Slot)>,
    /// When the first session began.
    pub(super) earliest: Option<Timestamp>,
}

impl Reached {
    /// The time so far.
    pub(super) fn time(&self) -> Timestamp {
        self.cut.map_or(Timestamp(0), |cut| cut.at)
    }
}

/// The time of a slot, or `None` when it does not say.
pub(super) fn time_of(blocks: &[PlacedBlock]) -> Option<Timestamp> {
    let newest = |records: bool| {
        let of_kind = blocks.iter().filter(|placed| matches!(placed.block, Block::Records { .. }) == records);
        of_kind.map(|placed| placed.timestamp).max().filter(|time| *time > Timestamp(0))
    };
    newest(true).or_else(|| newest(false))
}
