//! The live tenants in memory: one shared entry each, so that a change of a tenant acts at once on all its callers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use plinth_api::quotas::Quotas;
use plinth_storage::Log;
use plinth_storage::ids::{TenantId, Timestamp};
use tokio::sync::watch;

use super::origins::{Allowed, Origins, allowed_by};
use super::system::SYSTEM_TENANT;
use crate::broker::documents::{self, TenantDoc};
use crate::broker::{Error, Meter};

/// Tenants that are read in one step.
const LOAD_STEP: usize = 200;

/// What an operator sets for a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantSettings {
    /// When it was suspended; then its credentials are refused.
    pub suspended_at: Option<Timestamp>,
    /// What it may use at most.
    pub quotas: Quotas,
    /// The pages whose scripts may use the API with a credential of the tenant.
    pub allowed_origins: Vec<String>,
}

/// A tenant as its credential names it. Cheap to clone; all of one tenant share its settings.
#[derive(Clone)]
pub struct TenantRef(Arc<Tenant>);

struct Tenant {
    id: TenantId,
    name: Box<str>,
    settings: ArcSwap<TenantSettings>,
    meter: Arc<Meter>,
    revocations: AtomicU64,
    /// Grows when one of its credentials ends, or it does or is suspended.
    revoked: watch::Sender<u64>,
}

/// A tenant as it is stored.
pub(super) enum Stored {
    Live(TenantRef),
    /// It is not, or its deletion has begun; with the entry that it had in memory until now.
    Gone(Option<TenantRef>),
}

/// The tenants that were asked for since the start and are not deleted, and the origins that all of them list.
pub(super) struct Registry {
    log: Log,
    live: RwLock<HashMap<TenantId, TenantRef>>,
    /// Written under the lock of `live`.
    origins: RwLock<Origins>,
}

impl TenantRef {
    /// The id in the store.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.0.id
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What is set for it now.
    #[must_use]
    pub fn settings(&self) -> Arc<TenantSettings> {
        self.0.settings.load_full()
    }

    /// What it uses, and may use.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.0.meter
    }

    /// Whether it is the one tenant that nobody made, in which the root key reads what the server has written.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        &*self.0.name == SYSTEM_TENANT
    }

    /// Whether it allows pages of `origin` to use its credentials.
    #[must_use]
    pub fn allows(&self, origin: &str) -> Option<Allowed> {
        allowed_by(&self.0.settings.load().allowed_origins, origin)
    }

    /// How often tokens of it were revoked since it was first asked for.
    pub(super) fn revocations(&self) -> &AtomicU64 {
        &self.0.revocations
    }

    /// See [`super::Revocations`].
    pub(super) fn revoked(&self) -> watch::Receiver<u64> {
        self.0.revoked.subscribe()
    }

    /// Makes its live connections ask again whether their credentials hold.
    pub(super) fn announce_revocation(&self) {
        self.0.revoked.send_modify(|version| *version += 1);
    }

    /// Whether its credentials are refused now.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.0.settings.load().suspended_at.is_some()
    }
}

impl PartialEq for TenantRef {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for TenantRef {}

impl fmt::Debug for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TenantRef").field(&self.0.id).field(&self.0.name).finish()
    }
}

impl Registry {
    pub(super) fn new(log: Log) -> Self {
        Self { log, live: RwLock::default(), origins: RwLock::default() }
    }

    /// Learns which origins are listed; once, at the start.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn load_origins(&self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let rows = self.log.scan(documents::TENANT_NAMES, after.as_deref(), LOAD_STEP)?;
            for (key, stored) in &rows {
                let doc: TenantDoc = documents::decode(key, stored)?;
                if !doc.allowed_origins.is_empty() {
                    self.refresh(doc.id())?;
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == LOAD_STEP => after = Some(last.clone()),
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// Whether some tenant allows pages of `origin`.
    pub(super) fn some_allows(&self, origin: &str) -> Option<Allowed> {
        self.origins.read().unwrap_or_else(PoisonError::into_inner).allowed(origin)
    }

    /// The tenant, unless it does not exist or its deletion has begun.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn get(&self, id: TenantId) -> Result<Option<TenantRef>, Error> {
        match self.known(id) {
            Some(known) => Ok(Some(known)),
            None => self.refresh(id),
        }
    }

    /// The tenant, if somebody has asked for it and it is not deleted.
    pub(super) fn known(&self, id: TenantId) -> Option<TenantRef> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> Vec<TenantRef> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The tenant as it is stored, unless it does not exist or its deletion has begun.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn refresh(&self, id: TenantId) -> Result<Option<TenantRef>, Error> {
        Ok(match self.follow(id)? {
            Stored::Live(tenant) => Some(tenant),
            Stored::Gone(_) => None,
        })
    }

    /// Reads the tenant again, after a change of it. It is read under the lock: a change that is stored later is also
    /// taken over later.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn follow(&self, id: TenantId) -> Result<Stored, Error> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let Some(doc) = documents::load::<TenantDoc>(&self.log, &documents::tenant(id))? else {
            let gone = live.remove(&id);
            self.list(id, &[]);
            return Ok(Stored::Gone(gone));
        };
        let settings = Arc::new(settings_of(&doc));
        self.list(id, &settings.allowed_origins);
        if let Some(known) = live.get(&id) {
            known.0.meter.set(&settings.quotas);
            known.0.settings.store(settings);
            return Ok(Stored::Live(known.clone()));
        }
        let meter = Arc::new(Meter::new(&settings.quotas));
        let tenant = Tenant {
            id,
            name: doc.name.into(),
            settings: ArcSwap::new(settings),
            meter,
            revocations: AtomicU64::new(0),
            revoked: watch::Sender::new(0),
        };
        let made = TenantRef(Arc::new(tenant));
        live.insert(id, made.clone());
        Ok(Stored::Live(made))
    }

    fn list(&self, id: TenantId, origins: &[String]) {
        self.origins.write().unwrap_or_else(PoisonError::into_inner).set(id, origins);
    }
}

/// The settings in a tenant's document.
pub(super) fn settings_of(doc: &TenantDoc) -> TenantSettings {
    TenantSettings {
        suspended_at: doc.suspended_at.map(Timestamp),
        quotas: doc.quotas.clone(),
        allowed_origins: doc.allowed_origins.clone(),
    }
}
