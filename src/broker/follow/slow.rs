//! A reader that is slower than its topic: when it is that, and what its policy does about it.

use plinth_storage::ids::Offset;
use plinth_storage::log::Bounds;

use super::{Error, Follower, SlowPolicy};

/// A follower that keeps falling behind is slow when it has more records than this before it, or more bytes than the next.
const SLOW_RECORDS: u64 = 10_000;
/// See [`SLOW_RECORDS`].
const SLOW_BYTES: u64 = 4 * 1024 * 1024;

impl Follower {
    /// The reader is too slow, and not willing to catch up.
    pub(super) fn give_up(&mut self, index: usize, bounds: Bounds) -> Result<(), Error> {
        match self.policy {
            SlowPolicy::CatchUp => Ok(()),
            SlowPolicy::Latest => {
                self.jump(index, bounds.tail, "slow_consumer");
                Ok(())
            }
            SlowPolicy::Disconnect => {
                let behind = self.lanes[index].as_ref().map_or(0, |lane| bounds.tail.0 - lane.next.0);
                Err(Error::Busy(format!("the reader is {behind} records behind and its policy is to disconnect")))
            }
        }
    }
}

/// Whether a reader at `next` has more before it than a slow one may. Bytes by the average of the partition's records.
pub(super) fn is_far(bounds: &Bounds, next: Offset) -> bool {
    let (behind, kept) = (bounds.tail.0.saturating_sub(next.0), bounds.tail.0 - bounds.start.0);
    let average = bounds.bytes / kept.max(1);
    behind > SLOW_RECORDS || behind.saturating_mul(average) > SLOW_BYTES
}
