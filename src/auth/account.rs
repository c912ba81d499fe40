//! On whose account a call is: that of its tenant, and that of its key, which may have quotas of its own.

use std::sync::Arc;

use super::registry::TenantRef;
use crate::broker::{KeyMeter, Meters};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Account {
    tenant: TenantRef,
    key: Option<Arc<KeyMeter>>,
}

impl From<TenantRef> for Account {
    fn from(tenant: TenantRef) -> Self {
        Self { tenant, key: None }
    }
}

impl Account {
    /// That of a key of the tenant.
    pub(super) fn of_key(tenant: TenantRef, key: Arc<KeyMeter>) -> Self {
        Self { tenant, key: Some(key) }
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &TenantRef {
        &self.tenant
    }

    /// What counts what is used, and holds it to the quotas.
    #[must_use]
    pub fn meters(&self) -> Meters<'_> {
        Meters { tenant: self.tenant.meter(), key: self.key.as_deref() }
    }
}
