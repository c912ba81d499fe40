//! What is set of quotas and what is left of them, at one moment.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use bytes::Bytes;
use plinth_api::quotas::{Quota, Quotas};
use tokio::time::Instant;

use super::bucket::Level;
use super::{Limits, Meter, Meters, Whose};

/// The quotas of one tenant or key, of which at least one is set, at one moment.
#[derive(Debug)]
pub struct Look<'a> {
    meter: &'a Meter,
    whose: Whose,
    limits: Guard<Option<Arc<Limits>>>,
    /// On the clock of the buckets.
    now: u64,
}

/// How much of a quota is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which one.
    pub quota: Quota,
    /// Whose.
    pub whose: Whose,
    /// How much it is.
    pub limit: u64,
    /// How much is used now.
    pub used: u64,
    /// How much may be used now.
    pub remaining: u64,
    /// Until all of it may be used, if nothing is; only of a quota per second.
    pub full_in: Option<Duration>,
}

impl Meter {
    /// What is left of each quota that is set.
    pub fn left(&self, whose: Whose) -> impl Iterator<Item = Left> + '_ {
        self.look(whose, Instant::now).into_iter().flat_map(Look::left)
    }

    fn look(&self, whose: Whose, moment: impl FnOnce() -> Instant) -> Option<Look<'_>> {
        let limits = self.limits.load();
        limits.is_some().then(|| Look { meter: self, whose, limits, now: self.at(moment()) })
    }
}

impl<'a> Meters<'a> {
    /// The quotas of the tenant and those of the key, each if any are set.
    #[must_use]
    pub fn look(&self) -> [Option<Look<'a>>; 2] {
        let mut moment = None;
        let mut now = || *moment.get_or_insert_with(Instant::now);
        let tenant = self.tenant.look(Whose::Tenant, &mut now);
        [tenant, self.key_meter().and_then(|key| key.look(Whose::Key, now))]
    }
}

impl<'a> Look<'a> {
    /// What is told of the quotas to those who have them. It is made by `make`, once for as long as they stay as they are.
    pub fn policy(&self, make: impl FnOnce(Whose, &Quotas) -> String) -> Bytes {
        let limits = self.limits.as_ref().expect("there is no look at a meter without limits");
        limits.policy(|quotas| make(self.whose, quotas)).clone()
    }

    /// What is left of each, as far as that is known.
    pub fn left(self) -> impl Iterator<Item = Left> + use<'a> {
        Quota::ALL.into_iter().filter_map(move |quota| self.left_of(quota))
    }

    fn left_of(&self, quota: Quota) -> Option<Left> {
        let (whose, limit) = (self.whose, self.limits.as_ref()?.get(quota)?);
        if quota.is_rate() {
            let Level { remaining, used, full_in } = self.meter.bucket(quota).level(self.now, limit);
            return Some(Left { quota, whose, limit, used, remaining, full_in: Some(Duration::from_nanos(full_in)) });
        }
        let used = self.meter.held(quota)?;
        Some(Left { quota, whose, limit, used, remaining: limit.saturating_sub(used), full_in: None })
    }
}
