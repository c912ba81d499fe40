//! Which parts of answers wait for their client to take them, and since when.
//!
//! A socket that moves proves nothing: over HTTP/2 a client that takes no part of any answer still answers pings. So each
//! body says when it has given a piece and is not asked for the next one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// "None".
const NEVER: u64 = u64::MAX;

/// The bodies of one connection that wait, in milliseconds since it began.
#[derive(Debug)]
pub(super) struct Owed {
    /// Not later than the oldest of `bodies`.
    oldest: AtomicU64,
    bodies: Mutex<Bodies>,
}

#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    since: HashMap<u64, u64>,
}

impl Default for Owed {
    fn default() -> Self {
        Self { oldest: AtomicU64::new(NEVER), bodies: Mutex::default() }
    }
}

impl Owed {
    /// A name for a new body.
    pub(super) fn name(&self) -> u64 {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.next += 1;
        bodies.next
    }

    /// The body waits for its client from `now` on.
    pub(super) fn wait(&self, body: u64, now: u64) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.since.insert(body, now);
        self.oldest.fetch_min(now, Ordering::Relaxed);
    }

    /// It does not wait for its client any more.
    pub(super) fn settle(&self, body: u64) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.since.remove(&body);
        if bodies.since.is_empty() {
            self.oldest.store(NEVER, Ordering::Relaxed);
        }
    }

    /// Since when the one waits that waits longest: exact if that is before `due`, or earlier than it is.
    pub(super) fn since(&self, due: impl FnOnce() -> u64) -> Option<u64> {
        let oldest = self.oldest.load(Ordering::Relaxed);
        if oldest == NEVER {
            return None;
        }
        if oldest > due() {
            return Some(oldest);
        }
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let exact = bodies.since.values().copied().min();
        self.oldest.store(exact.unwrap_or(NEVER), Ordering::Relaxed);
        exact
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a body that goes on hid one that does not.
    #[test]
    fn the_body_that_waits_longest_counts_until_it_is_taken() {
        let owed = Owed::default();
        assert_eq!(owed.since(|| 100), None);
        let (stuck, quick) = (owed.name(), owed.name());
        owed.wait(stuck, 10);
        owed.wait(quick, 5);
        owed.wait(quick, 90);
        assert_eq!(owed.since(|| 100), Some(10));
        owed.settle(stuck);
        assert_eq!(owed.since(|| 100), Some(90));
        owed.settle(quick);
        assert_eq!(owed.since(|| 100), None);
    }
}
