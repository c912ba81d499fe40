//! Subscriptions of streams: cursors over many streams that wake a webhook, or a worker, when there is something new (ADR 39).
//!
//! What a subscription is and what its wake is at are documents. A transition is a decision over them ([`turn`]) and one commit,
//! and holds when that is stored, so a crash loses none; the start looks at all. In memory is only when something is due
//! ([`schedule`]) and which streams have moved ([`moved`]). One task works on what is due; requests decide for themselves and
//! never wait for it.

mod act;
mod deliver;
mod ensure;
mod fail;
pub(super) mod links;
pub(super) mod moved;
mod run;
mod schedule;
mod signing;
mod slots;
mod store;
mod token;
mod turn;
mod view;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plinth_storage::ids::TenantId;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

pub use self::act::{Acked, Claimed, WakeBearer};
pub use self::ensure::WakeRequest;
pub use self::fail::{WakeCode, WakeError};
pub use self::links::Ack;
use self::schedule::{Key, Schedule};
use self::signing::Signers;
use self::slots::Slots;
use self::token::TokenKeys;
pub use self::token::TokenKind;
pub use self::turn::WakeRef;
pub use self::view::{LinkView, WakeView};
use super::Broker;
use super::catalog::Catalog;
use super::changes::Changes;
use crate::auth::{Auth, Glob};
use crate::egress::Egress;
use crate::telemetry::Open;
use crate::telemetry::webhooks::WebhookMetrics;

/// What the seed of the signing key is derived for; never change it.
const SIGNING: &str = "plinth 2026-11-27 signing key of webhooks";
/// What the key of tokens is derived for; never change it.
const TOKENS: &str = "plinth 2026-11-27 mac of wake tokens";
/// Subscriptions that the task looks at at once.
const LOOKS_MAX: usize = 64;
/// Locks over which subscriptions are spread.
const LOCKS: usize = 256;

/// Keeps subscriptions. Cheap to clone.
#[derive(Clone)]
pub struct Wakes(Arc<Inner>);

struct Inner {
    auth: Auth,
    broker: Broker,
    egress: Egress,
    metrics: WebhookMetrics,
    signers: Signers,
    tokens: TokenKeys,
    known: Mutex<Known>,
    schedule: Mutex<Schedule>,
    /// Something was put into the schedule.
    news: Notify,
    /// Who holds one changes a subscription.
    locks: Vec<tokio::sync::Mutex<()>>,
    /// Who holds one makes a subscription of a tenant.
    makers: Vec<tokio::sync::Mutex<()>>,
    changes: Changes,
    slots: Slots,
    /// Subscriptions that are looked at by the task at once.
    looks: Semaphore,
}

/// The subscriptions of each tenant, by id.
type Known = HashMap<TenantId, HashMap<Arc<str>, Arc<Sub>>>;

/// What is held of a subscription.
struct Sub {
    key: Key,
    glob: Option<Glob>,
    /// The stream in which its wakes are told.
    told_in: Option<Arc<str>>,
    /// The last wake that was told there.
    told: AtomicU64,
    /// How often it was tried to tell the next one.
    tries: AtomicU32,
    /// Counts its wake while one is under way.
    open: Mutex<Option<Open>>,
}

impl Wakes {
    /// The subscriptions of all tenants.
    #[must_use]
    pub fn new(auth: Auth, broker: Broker, egress: Egress) -> Self {
        let cursors = broker.cursors();
        let locks = || (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect();
        let inner = Inner {
            signers: Signers::new(&auth.derived(cursors, SIGNING)),
            tokens: TokenKeys(auth.derived(cursors, TOKENS)),
            auth,
            broker,
            egress,
            metrics: WebhookMetrics::default(),
            known: Mutex::default(),
            schedule: Mutex::default(),
            news: Notify::new(),
            locks: locks(),
            makers: locks(),
            changes: Changes::default(),
            slots: Slots::default(),
            looks: Semaphore::new(LOOKS_MAX),
        };
        Self(Arc::new(inner))
    }

    /// The public halves of the keys that webhooks are signed with, as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn published_keys(&self) -> Value {
        self.0.signers.published()
    }

    /// What becomes of wakes.
    #[must_use]
    pub fn metrics(&self) -> &WebhookMetrics {
        &self.0.metrics
    }

    /// Waits for the changes under way; before the log is closed. Cancel safe.
    pub async fn close(&self) {
        self.0.changes.finish().await;
    }

    fn catalog(&self) -> &Arc<Catalog> {
        self.0.broker.catalog()
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.0.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lock(&self, key: &Key) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.locks[place(key)].lock().await
    }
}

fn place(what: impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    usize::try_from(hasher.finish() % LOCKS as u64).expect("a remainder of a small number")
}
