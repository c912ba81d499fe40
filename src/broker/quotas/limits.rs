//! The quotas of one tenant or key as they are looked up, and what it means that one is used up.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use plinth_api::quotas::{Quota, Quotas};

/// How many of the quotas limit what is used in a second; they are the first ones of `Quota::ALL`.
pub(super) const RATES: usize = 5;

/// How long to wait where nothing but an end of something makes room.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(1);

/// The quotas of one tenant or key, of which there is at least one.
#[derive(Debug)]
pub(super) struct Limits {
    quotas: Quotas,
    /// What is told of them, made when it is first asked for.
    policy: OnceLock<Bytes>,
}

/// Whose quota it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The tenant's.
    Tenant,
    /// The key's.
    Key,
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which one.
    pub quota: Quota,
    /// Whose.
    pub whose: Whose,
    /// How much it is.
    pub limit: u64,
    /// After this there may be room.
    pub wait: Duration,
}

impl Limits {
    /// None when nothing is limited.
    pub(super) fn of(quotas: &Quotas) -> Option<Self> {
        (!quotas.is_empty()).then(|| Self { quotas: quotas.clone(), policy: OnceLock::new() })
    }

    /// How much of a quota there is; none when it is not limited.
    pub(super) fn get(&self, quota: Quota) -> Option<u64> {
        self.quotas.get(quota)
    }

    /// Whether they are these.
    pub(super) fn are(&self, quotas: &Quotas) -> bool {
        self.quotas == *quotas
    }

    /// What is told of them: what `make` makes of them, which is asked once.
    pub(super) fn policy(&self, make: impl FnOnce(&Quotas) -> String) -> &Bytes {
        self.policy.get_or_init(|| make(&self.quotas).into())
    }
}

impl Whose {
    /// What comes before the name of a quota where tenant's and key's stand side by side.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Tenant => "",
            Self::Key => "key.",
        }
    }
}

impl Exceeded {
    /// A quota of what is held at one moment.
    pub(super) fn held(quota: Quota, whose: Whose, limit: u64) -> Self {
        Self { quota, whose, limit, wait: WAIT_FOR_ROOM }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (quota, limit) = (self.quota.as_str(), self.limit);
        let whose = match self.whose {
            Whose::Tenant => "tenant",
            Whose::Key => "key",
        };
        write!(f, "the quota {quota} of the {whose} is used up: the limit is {limit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quotas_of_a_second_come_first() {
        for (place, quota) in Quota::ALL.into_iter().enumerate() {
            assert_eq!(quota as usize, place);
            assert_eq!(quota.is_rate(), place < RATES, "{quota:?}");
        }
    }
}
