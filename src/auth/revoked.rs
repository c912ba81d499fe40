//! How live connections hear that a credential of their tenant has ended, maybe theirs. Those of other tenants do not.

use plinth_storage::ids::TenantId;
use tokio::sync::watch;

use super::caller::Caller;
use super::{Auth, TenantRef};

/// What a live connection listens to. Small: every one has it.
#[derive(Debug, Default)]
pub struct Revocations(Option<watch::Receiver<u64>>);

impl Revocations {
    /// Those of the caller's tenant from now on. What ended before is found by [`Auth::ended`], asked after this.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        Self(caller.tenant().map(TenantRef::revoked))
    }

    /// Waits until a credential of the tenant ends, or the tenant does or is suspended: then [`Auth::ended`] is to be asked.
    /// For ever where there is no tenant yet. Cancel safe.
    pub async fn changed(&mut self) {
        if let Some(revoked) = &mut self.0
            && revoked.changed().await.is_ok()
        {
            return;
        }
        // The tenant is gone from memory, and nobody is its caller any more.
        std::future::pending().await
    }
}

impl Auth {
    /// Makes the live connections of a tenant ask again whether their credentials hold. One that nobody asked for since the
    /// start has none.
    pub(super) fn announce_revocation(&self, tenant: TenantId) {
        if let Some(tenant) = self.0.tenants.known(tenant) {
            tenant.announce_revocation();
        }
    }
}
