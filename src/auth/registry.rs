//! The live tenants in memory: one shared entry each, so that a change of a tenant acts at once on all its callers.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use plinth_api::quotas::Quotas;
use plinth_storage::Log;
use plinth_storage::ids::{TenantId, Timestamp};

use super::system::SYSTEM_TENANT;
use crate::broker::documents::{self, TenantDoc};
use crate::broker::{Error, Meter};

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
}

/// The tenants that were asked for since the start and are not deleted.
pub(super) struct Registry {
    log: Log,
    live: RwLock<HashMap<TenantId, TenantRef>>,
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
        Self { log, live: RwLock::default() }
    }

    /// The tenant, unless it does not exist or its deletion has begun.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn get(&self, id: TenantId) -> Result<Option<TenantRef>, Error> {
        if let Some(known) = self.live.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Some(known.clone()));
        }
        self.refresh(id)
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> Vec<TenantRef> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Reads the tenant again, after a change of it. It is read under the lock: a change that is stored later is also
    /// taken over later.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn refresh(&self, id: TenantId) -> Result<Option<TenantRef>, Error> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let Some(doc) = documents::load::<TenantDoc>(&self.log, &documents::tenant(id))? else {
            live.remove(&id);
            return Ok(None);
        };
        let settings = Arc::new(settings_of(&doc));
        if let Some(known) = live.get(&id) {
            known.0.meter.set(&settings.quotas);
            known.0.settings.store(settings);
            return Ok(Some(known.clone()));
        }
        let meter = Arc::new(Meter::new(&settings.quotas));
        let tenant = Tenant { id, name: doc.name.into(), settings: ArcSwap::new(settings), meter };
        let made = TenantRef(Arc::new(tenant));
        live.insert(id, made.clone());
        Ok(Some(made))
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
