//! The end of a closed stream: nothing comes after it, and whoever has read so far is told so once.

use std::sync::Arc;

use super::{Event, Follower};

impl Follower {
    /// Tells that the topic of the lane is closed, when the lane is at its end. Closing wakes who waits, so that it comes here.
    pub(super) fn tell_closed(&mut self, index: usize) {
        // Only a topic of one partition can be closed.
        let open = |lane: &&mut super::Lane| lane.topic.partitions == 1 && !lane.closed;
        let Some(lane) = self.lanes[index].as_mut().filter(open) else { return };
        // Both are of one moment. A topic that is gone is met by the next read.
        let is_end = |bounds: &plinth_storage::log::Bounds| bounds.closed && bounds.tail == lane.next;
        if self.broker.log().bounds(lane.place).is_ok_and(|bounds| is_end(&bounds)) {
            lane.closed = true;
            self.events.push_back((index, Event::Closed { topic: Arc::clone(&lane.topic.name) }));
        }
    }
}
