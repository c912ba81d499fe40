//! When streams with a time to live were last used, besides by appends, which the log knows of.
//!
//! A use is noted in memory and stored some time later, of many streams in one commit: a quarter of a stored use per second and
//! stream is never needed. What is open is in use as long as it is open. A crash forgets what was not stored, so what was
//! last used before the start gets so much more time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plinth_storage::ids::{TenantId, Timestamp, TopicId};

/// Most streams whose use waits to be stored and that nobody has open; of more it is stored at once.
const WAITING_MAX: usize = 250_000;
/// A use is stored after this part of the time to live.
const STORED_PART: u64 = 8;
/// But not earlier than this.
const STORED_MS_MIN: u64 = 1_000;
/// How often the task looks that stores uses.
pub(super) const TICK_MS: u64 = 1_000;

/// Uses that are not stored yet.
#[derive(Debug)]
pub(in crate::broker) struct Touches {
    begun: Timestamp,
    used: Mutex<HashMap<TopicId, Use>>,
}

/// A use that is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Touch {
    pub(in crate::broker) tenant: TenantId,
    pub(in crate::broker) topic: TopicId,
    pub(in crate::broker) at: Timestamp,
}

#[derive(Debug)]
struct Use {
    tenant: TenantId,
    ttl_ms: u64,
    /// The last one.
    at: Timestamp,
    /// The first one that is not stored.
    since: Timestamp,
    /// How many have it open.
    open: u32,
}

impl Touches {
    pub(in crate::broker) fn new(now: Timestamp) -> Self {
        Self { begun: now, used: Mutex::default() }
    }

    /// Notes a use; false when there is no room for it.
    pub(in crate::broker) fn note(&self, touch: Touch, ttl_ms: u64) -> bool {
        let mut used = self.lock();
        let room = used.len() < WAITING_MAX;
        match used.get_mut(&touch.topic) {
            Some(known) => known.at = known.at.max(touch.at),
            None if room => drop(used.insert(touch.topic, Use::of(touch, ttl_ms))),
            None => return false,
        }
        true
    }

    /// Notes that somebody has it open from now on.
    pub(in crate::broker) fn open(&self, touch: Touch, ttl_ms: u64) {
        let mut used = self.lock();
        let known = used.entry(touch.topic).or_insert_with(|| Use::of(touch, ttl_ms));
        known.at = known.at.max(touch.at);
        known.open += 1;
    }

    /// Notes that one of those who had it open has gone.
    pub(in crate::broker) fn close(&self, topic: TopicId, now: Timestamp) {
        if let Some(known) = self.lock().get_mut(&topic) {
            known.at = known.at.max(now);
            known.open = known.open.saturating_sub(1);
        }
    }

    /// The last use that is noted, which is `now` while it is open.
    pub(in crate::broker) fn last(&self, topic: TopicId, now: Timestamp) -> Option<Timestamp> {
        self.lock().get(&topic).map(|known| if known.open > 0 { now } else { known.at })
    }

    /// What is to be stored now.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Touch> {
        let mut used = self.lock();
        let due =
            used.iter_mut().filter(|(_, known)| now.0.saturating_sub(known.since.0) >= kept_back_ms(known.ttl_ms));
        due.map(|(&topic, known)| {
            if known.open > 0 {
                known.at = known.at.max(now);
            }
            Touch { tenant: known.tenant, topic, at: known.at }
        })
        .collect()
    }

    /// Notes that a use is stored.
    pub(super) fn stored(&self, touch: Touch) {
        let mut used = self.lock();
        let Some(known) = used.get_mut(&touch.topic) else { return };
        if known.open == 0 && known.at <= touch.at {
            used.remove(&touch.topic);
        } else {
            known.since = touch.at;
        }
    }

    /// Forgets a stream that is deleted.
    pub(in crate::broker) fn forget(&self, topic: TopicId) {
        let mut used = self.lock();
        if used.get(&topic).is_some_and(|known| known.open == 0) {
            used.remove(&topic);
        }
    }

    /// How much more time a stream has whose last use that is known is `last`: what was used later may have been forgotten.
    pub(in crate::broker) fn grace_ms(&self, last: Timestamp, ttl_ms: u64) -> u64 {
        if last < self.begun { kept_back_ms(ttl_ms) + TICK_MS } else { 0 }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicId, Use>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Use {
    fn of(touch: Touch, ttl_ms: u64) -> Self {
        Self { tenant: touch.tenant, ttl_ms, at: touch.at, since: touch.at, open: 0 }
    }
}

/// How long a use may wait to be stored.
fn kept_back_ms(ttl_ms: u64) -> u64 {
    (ttl_ms / STORED_PART).max(STORED_MS_MIN)
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    const TTL: u64 = 80_000;

    fn touch(at: u64) -> Touch {
        Touch { tenant: TenantId(Ulid::from_parts(1, 1)), topic: TopicId(Ulid::from_parts(2, 2)), at: Timestamp(at) }
    }

    #[test]
    fn a_use_is_stored_after_an_eighth_of_the_time_to_live_and_then_forgotten() {
        let touches = Touches::new(Timestamp(0));
        assert!(touches.note(touch(5), TTL) && touches.note(touch(9_000), TTL));
        assert_eq!(touches.due(Timestamp(10_004)), []);
        let due = touches.due(Timestamp(10_005));
        assert_eq!(due, [touch(9_000)], "the last of them");
        touches.note(touch(10_006), TTL);
        touches.stored(due[0]);
        assert_eq!(touches.last(touch(0).topic, Timestamp(0)), Some(Timestamp(10_006)), "a later one is not lost");
        touches.stored(touch(10_006));
        assert_eq!(touches.last(touch(0).topic, Timestamp(0)), None);
    }

    #[test]
    fn what_is_open_is_in_use_until_the_last_has_gone() {
        let touches = Touches::new(Timestamp(0));
        touches.open(touch(5), TTL);
        touches.open(touch(6), TTL);
        touches.close(touch(0).topic, Timestamp(7));
        assert_eq!(touches.last(touch(0).topic, Timestamp(1_000_000)), Some(Timestamp(1_000_000)));
        let due = touches.due(Timestamp(20_000));
        assert_eq!(due, [touch(20_000)]);
        touches.stored(due[0]);
        touches.close(touch(0).topic, Timestamp(20_001));
        assert_eq!(touches.last(touch(0).topic, Timestamp(1_000_000)), Some(Timestamp(20_001)));
    }

    #[test]
    fn what_was_last_used_before_the_start_has_the_time_that_a_use_may_have_waited() {
        let touches = Touches::new(Timestamp(100));
        assert_eq!(touches.grace_ms(Timestamp(100), TTL), 0);
        assert_eq!(touches.grace_ms(Timestamp(99), TTL), 11_000);
        assert_eq!(touches.grace_ms(Timestamp(99), 1), 2_000);
    }
}
