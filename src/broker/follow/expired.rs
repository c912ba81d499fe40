//! Records that expired before they were given: passed over while they are read, and while a batch waits for its reader.

use std::sync::Arc;

use plinth_storage::GapReason;

use super::{Event, Follower, Lane, gap};
use crate::broker::batch::FollowedBatch;

impl Follower {
    /// Takes back `batch`, the newest one that `next` has given, of which only the first `taken` records were used.
    pub(crate) fn take_back(&mut self, batch: &FollowedBatch, taken: u32) {
        let Some(lane) = self.lanes[self.reading].as_mut().filter(|lane| lane.place == batch.place) else { return };
        lane.next = batch.next_after(taken);
        if self.read.front().is_none_or(|front| front.base != batch.stored.base) {
            self.read.push_front(Arc::clone(&batch.stored));
        }
    }

    /// Tells of the expired records that were passed over last; false when there were none.
    pub(super) fn tell_expired(&mut self, index: usize) -> bool {
        let event = self.lanes[index].as_ref().and_then(expired);
        let told = event.is_some();
        self.events.extend(event.map(|event| (index, event)));
        told
    }
}

/// The gap of the expired records that were passed over last.
pub(super) fn expired(lane: &Lane) -> Option<Event> {
    lane.untold.map(|from| gap(lane, from, lane.next, GapReason::Expired.as_str()))
}
