//! A limit of so much per second, by the generic cell rate algorithm (ITU-T I.371): one number, the moment up to which
//! what was taken is paid, moves on by the cost of what is taken.
//!
//! A bucket holds one second's worth. What costs more than that is let through when the bucket is full, and paid for
//! after: a batch may be larger than what its tenant may publish in a second. Taking is one compare-and-swap, no lock. The
//! limit is given with each call and not kept, so that a change of it acts at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds of a second, which is the size of a bucket.
pub(super) const SECOND: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// In nanoseconds on the clock of [`super::now`]; behind it when the bucket is full.
    paid_until: AtomicU64,
}

/// How a bucket is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// How much may be taken at once.
    pub(super) remaining: u64,
    /// How much is taken and not yet back; more than the limit when more was owed.
    pub(super) used: u64,
    /// Nanoseconds until it is full again when nothing is taken.
    pub(super) full_in: u64,
}

impl Bucket {
    /// Takes `amount` at `now` of a bucket of `limit` per second.
    ///
    /// # Errors
    /// The nanoseconds after which it could have been taken; nothing is taken then.
    pub(super) fn take(&self, now: u64, limit: u64, amount: u64) -> Result<(), u64> {
        let cost = cost(limit, amount);
        let room = SECOND - cost.min(SECOND);
        let mut paid = self.paid_until.load(Ordering::Relaxed);
        loop {
            let from = paid.max(now);
            if from - now > room {
                return Err(from - now - room);
            }
            let next = from.saturating_add(cost);
            match self.paid_until.compare_exchange_weak(paid, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => paid = other,
            }
        }
    }

    /// Takes `amount` whatever is left; gives the moment from which more may be taken, so that those who take one after
    /// the other wait for different moments.
    pub(super) fn owe(&self, now: u64, limit: u64, amount: u64) -> u64 {
        let cost = cost(limit, amount);
        let owed = |paid: u64| Some(paid.max(now).saturating_add(cost));
        let before = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, owed);
        let (Ok(before) | Err(before)) = before;
        before.max(now).saturating_add(cost).saturating_sub(SECOND)
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&self, limit: u64, amount: u64) {
        let cost = cost(limit, amount);
        let less = |paid: u64| Some(paid.saturating_sub(cost));
        let (Ok(_) | Err(_)) = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Nanoseconds until no more is owed than a bucket holds; 0 when that is so now.
    pub(super) fn wait(&self, now: u64) -> u64 {
        self.paid_until.load(Ordering::Relaxed).saturating_sub(now.saturating_add(SECOND))
    }

    /// How it is at `now` with a limit.
    pub(super) fn level(&self, now: u64, limit: u64) -> Level {
        let full_in = self.paid_until.load(Ordering::Relaxed).saturating_sub(now);
        let free = SECOND - full_in.min(SECOND);
        let amount = |time: u64| match time.checked_mul(limit) {
            // To divide what is larger takes many times as long.
            Some(amount) => amount / SECOND,
            None => u64::try_from(u128::from(time) * u128::from(limit) / u128::from(SECOND)).unwrap_or(u64::MAX),
        };
        let remaining = if free == SECOND { limit } else { amount(free) };
        let used = if remaining > 0 { limit - remaining } else { amount(full_in) };
        Level { remaining, used, full_in }
    }

    /// Forgives what is owed beyond one second: after a change of the limit.
    pub(super) fn settle(&self, now: u64) {
        self.paid_until.fetch_min(now.saturating_add(SECOND), Ordering::Relaxed);
    }
}

/// How long it takes until `amount` is there again, in nanoseconds, at least one.
fn cost(limit: u64, amount: u64) -> u64 {
    let limit = limit.max(1);
    match amount.checked_mul(SECOND) {
        // To divide what is larger takes many times as long.
        Some(time) => time.div_ceil(limit),
        None => {
            let cost = (u128::from(amount) * u128::from(SECOND)).div_ceil(u128::from(limit));
            u64::try_from(cost).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests;
