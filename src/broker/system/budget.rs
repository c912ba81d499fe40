//! How much of what others bring about is written down per tenant and minute: who is refused all the time, or tries keys, does
//! not fill the tenant's topics. What goes beyond is counted, and told when the minute is over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plinth_storage::ids::TenantId;

use crate::auth::TenantRef;

/// Most records of each kind in a minute.
pub(super) const PER_MINUTE_MAX: u64 = 100;

/// What is limited, each for itself: who has no key cannot hide what somebody with a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A credential was refused.
    Unauthenticated,
    /// A call was refused, with a credential that is valid.
    Refused,
    /// A credential was made that is stored nowhere.
    Granted,
}

/// What of one tenant went beyond the budget.
#[derive(Debug)]
pub(super) struct Excess {
    pub(super) tenant: TenantRef,
    pub(super) count: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Tenants of which something was noted in this minute.
    spent: Mutex<HashMap<TenantId, Spent>>,
}

#[derive(Debug)]
struct Spent {
    tenant: TenantRef,
    notes: [u64; 3],
    quotas: Vec<String>,
}

impl Budget {
    /// Whether one more may be written down in this minute.
    pub(super) fn allows(&self, tenant: &TenantRef, note: Note) -> bool {
        let mut spent = self.lock();
        let count = &mut Spent::of(&mut spent, tenant).notes[note as usize];
        *count += 1;
        *count <= PER_MINUTE_MAX
    }

    /// Whether it is the first time in this minute that the quota is reached.
    pub(super) fn is_first(&self, tenant: &TenantRef, quota: &str) -> bool {
        let mut spent = self.lock();
        let told = &mut Spent::of(&mut spent, tenant).quotas;
        let first = !told.iter().any(|told| told == quota);
        if first {
            told.push(quota.to_owned());
        }
        first
    }

    /// Begins a new minute; gives what the last one had too much of.
    pub(super) fn begin_minute(&self) -> Vec<Excess> {
        let spent = std::mem::take(&mut *self.lock());
        let over = |spent: Spent| {
            let count = spent.notes.iter().map(|count| count.saturating_sub(PER_MINUTE_MAX)).sum();
            (count > 0).then_some(Excess { tenant: spent.tenant, count })
        };
        spent.into_values().filter_map(over).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Spent>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spent {
    fn of<'a>(spent: &'a mut HashMap<TenantId, Self>, tenant: &TenantRef) -> &'a mut Self {
        spent.entry(tenant.id()).or_insert_with(|| Self { tenant: tenant.clone(), notes: [0; 3], quotas: Vec::new() })
    }
}
