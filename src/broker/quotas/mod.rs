//! What tenants and keys use, and what they may use at most.
//!
//! Each tenant has a [`Meter`], and each key with quotas one more. It counts what is used and holds the quotas to it: so
//! much per second by buckets, so much at one moment by counters. Nothing here takes a lock, and a quota that changes acts
//! on the next call. What is taken and then refused by another quota is given back.

mod bucket;
mod charge;
mod kept;
mod key;
mod left;
mod limits;
mod pace;
mod share;
mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use plinth_api::quotas::{Quota, Quotas};
use tokio::sync::watch;
use tokio::time::Instant;

use self::bucket::Bucket;
use self::kept::Kept;
pub(super) use self::kept::TopicPlace;
pub use self::key::KeyMeter;
pub use self::left::{Left, Look};
pub use self::limits::{Exceeded, Whose};
use self::limits::{Limits, RATES};
pub(super) use self::pace::Pace;
pub use self::share::Room;
pub(super) use self::share::{Capacity, Held};
use self::usage::{OpenCount, OpenThing, Usage};
pub use self::usage::{Opened, UsageFigures};
use super::error::Error;

/// What one tenant, or one key with quotas, has used and may use.
#[derive(Debug)]
pub struct Meter {
    usage: Usage,
    open: Arc<OpenCount>,
    kept: Kept,
    /// What its requests under way hold, in bytes, by [`Held`].
    waiting: [AtomicU64; 2],
    /// None while nothing is limited.
    limits: ArcSwapOption<Limits>,
    buckets: [Bucket; RATES],
    /// The buckets count time from here.
    began: Instant,
    /// Grows when the limits change.
    changes: watch::Sender<u64>,
}

/// The meters that a call counts on: that of its tenant, and that of its key if the key has one.
#[derive(Clone, Copy, Debug)]
pub struct Meters<'a> {
    /// Of the tenant.
    pub tenant: &'a Arc<Meter>,
    /// Of the key, which may have no quotas yet.
    pub key: Option<&'a KeyMeter>,
}

impl Default for Meter {
    fn default() -> Self {
        Self::counting(Arc::default())
    }
}

impl Meter {
    /// One without quotas, of which `open` is open already.
    fn counting(open: Arc<OpenCount>) -> Self {
        Self {
            usage: Usage::default(),
            open,
            kept: Kept::default(),
            waiting: Default::default(),
            limits: ArcSwapOption::empty(),
            buckets: Default::default(),
            began: Instant::now(),
            changes: watch::Sender::new(0),
        }
    }

    /// A meter with quotas.
    #[must_use]
    pub fn new(quotas: &Quotas) -> Self {
        let meter = Self::default();
        meter.set(quotas);
        meter
    }

    /// Sets the quotas. What is owed for more than a second by the ones before is forgiven.
    pub fn set(&self, quotas: &Quotas) {
        let same = self.limits.load().as_ref().map_or(quotas.is_empty(), |limits| limits.are(quotas));
        if same {
            return;
        }
        self.limits.store(Limits::of(quotas).map(Arc::new));
        let now = self.at(Instant::now());
        self.buckets.iter().for_each(|bucket| bucket.settle(now));
        self.changes.send_modify(|version| *version += 1);
    }

    /// What was used since the start of the node, and what is open.
    #[must_use]
    pub fn usage(&self) -> UsageFigures {
        self.usage.figures(&self.open)
    }

    /// Whether any quota is set.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limits.load().is_some()
    }

    /// How much of a quota there is; none when it is not limited.
    #[must_use]
    pub fn limit(&self, quota: Quota) -> Option<u64> {
        self.limits.load().as_ref()?.get(quota)
    }

    /// How much is held now of what is limited at one moment; none when that is not known.
    #[must_use]
    pub fn held(&self, quota: Quota) -> Option<u64> {
        let usage = self.usage();
        match quota {
            Quota::Connections => Some(usage.connections),
            Quota::Followers => Some(usage.followers),
            Quota::Topics => self.kept.topics(),
            Quota::StorageBytes => self.kept.bytes(),
            Quota::RequestsPerSecond
            | Quota::PublishBytesPerSecond
            | Quota::PublishRecordsPerSecond
            | Quota::DeliveredBytesPerSecond
            | Quota::DeliveredRecordsPerSecond => None,
        }
    }

    fn take(&self, whose: Whose, taken: &[(Quota, u64)]) -> Result<(), Exceeded> {
        let limits = self.limits.load();
        let Some(limits) = limits.as_ref() else { return Ok(()) };
        let now = self.at(Instant::now());
        for (place, &(quota, amount)) in taken.iter().enumerate() {
            let Some(limit) = limits.get(quota) else { continue };
            if let Err(wait) = self.bucket(quota).take(now, limit, amount) {
                self.give_back(&taken[..place]);
                return Err(Exceeded { quota, whose, limit, wait: Duration::from_nanos(wait) });
            }
        }
        Ok(())
    }

    fn give_back(&self, taken: &[(Quota, u64)]) {
        let limits = self.limits.load();
        let Some(limits) = limits.as_ref() else { return };
        for &(quota, amount) in taken {
            if let Some(limit) = limits.get(quota) {
                self.bucket(quota).give_back(limit, amount);
            }
        }
    }

    /// Refuses while what was taken of these before is not paid for.
    fn check(&self, whose: Whose, quotas: [Quota; 2]) -> Result<(), Exceeded> {
        let limits = self.limits.load();
        let Some(limits) = limits.as_ref() else { return Ok(()) };
        let now = self.at(Instant::now());
        for quota in quotas {
            let Some(limit) = limits.get(quota) else { continue };
            let wait = self.bucket(quota).wait(now);
            if wait > 0 {
                return Err(Exceeded { quota, whose, limit, wait: Duration::from_nanos(wait) });
            }
        }
        Ok(())
    }

    /// Owes what is delivered; gives the moment from which more may be, if that is limited.
    fn owe(&self, records: u64, bytes: u64) -> Option<Instant> {
        let limits = self.limits.load();
        let limits = limits.as_ref()?;
        let (moment, owed) =
            (Instant::now(), [(Quota::DeliveredBytesPerSecond, bytes), (Quota::DeliveredRecordsPerSecond, records)]);
        let now = self.at(moment);
        let due = owed.into_iter().filter_map(|(quota, amount)| {
            let limit = limits.get(quota)?;
            Some(self.bucket(quota).owe(now, limit, amount))
        });
        // A moment that the clock cannot name is too far away to be waited for; a change of the quotas ends the wait.
        due.max().filter(|due| *due > now).and_then(|due| moment.checked_add(Duration::from_nanos(due - now)))
    }

    fn bucket(&self, quota: Quota) -> &Bucket {
        &self.buckets[quota as usize]
    }

    /// Nanoseconds of the buckets' clock.
    fn at(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl<'a> Meters<'a> {
    /// Whether any quota is set.
    #[must_use]
    pub fn are_limited(&self) -> bool {
        self.each().any(|(meter, _)| meter.is_limited())
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The quota that is used up.
    pub fn request(&self) -> Result<(), Exceeded> {
        self.each().for_each(|(meter, _)| meter.usage.request());
        self.take(&[(Quota::RequestsPerSecond, 1)])
    }

    /// Refuses a publish of which nothing is known yet, while no record at all could be published.
    ///
    /// # Errors
    /// The quota that is used up.
    pub fn check_publish(&self) -> Result<(), Exceeded> {
        let quotas = [Quota::PublishBytesPerSecond, Quota::PublishRecordsPerSecond];
        self.each().try_for_each(|(meter, whose)| meter.check(whose, quotas))
    }

    /// Counts records that were stored, and their bytes.
    pub fn published(&self, records: u64, bytes: u64) {
        self.each().for_each(|(meter, _)| meter.usage.published(records, bytes));
    }

    /// Counts records that are sent to a reader, and about how many bytes they have as they are stored; gives the moment
    /// from which more may be sent, if that is limited.
    pub fn delivered(&self, records: u64, bytes: u64) -> Option<Instant> {
        self.each().for_each(|(meter, _)| meter.usage.delivered(records, bytes));
        self.owe(records, bytes)
    }

    /// Owes what is delivered; gives the moment from which more may be, if that is limited.
    fn owe(&self, records: u64, bytes: u64) -> Option<Instant> {
        self.each().filter_map(|(meter, _)| meter.owe(records, bytes)).max()
    }

    /// Counts a connection until the guard is dropped.
    ///
    /// # Errors
    /// The quota that is used up.
    pub fn connection(&self) -> Result<Opened, Exceeded> {
        Opened::count(*self, OpenThing::Connection)
    }

    /// Counts a live stream or subscription until the guard is dropped.
    ///
    /// # Errors
    /// The quota that is used up.
    pub fn follower(&self) -> Result<Opened, Exceeded> {
        Opened::count(*self, OpenThing::Follower)
    }

    fn take(&self, taken: &[(Quota, u64)]) -> Result<(), Exceeded> {
        self.tenant.take(Whose::Tenant, taken)?;
        let Some(key) = self.key_meter() else { return Ok(()) };
        key.take(Whose::Key, taken).inspect_err(|_| self.tenant.give_back(taken))
    }

    fn each(&self) -> impl Iterator<Item = (&'a Arc<Meter>, Whose)> + use<'a> {
        [Some((self.tenant, Whose::Tenant)), self.key_meter().map(|key| (key, Whose::Key))].into_iter().flatten()
    }

    /// The meter of the key, once it has had quotas.
    fn key_meter(&self) -> Option<&'a Arc<Meter>> {
        self.key.and_then(KeyMeter::meter)
    }
}

#[cfg(test)]
mod tests;
