//! How many webhooks are called at once: of the node, and of each tenant, so that one whose webhooks are slow holds up none but
//! itself. Who waits is served in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use plinth_api::limits::{TENANT_WEBHOOKS_MAX, WEBHOOKS_MAX};
use plinth_storage::ids::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many tenants are kept before those that call nothing are looked for.
const KEPT_MIN: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    node: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

/// A place for one call.
#[derive(Debug)]
pub(super) struct Slot {
    _node: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl Default for Slots {
    fn default() -> Self {
        Self { node: Arc::new(Semaphore::new(WEBHOOKS_MAX)), tenants: Mutex::default() }
    }
}

impl Slots {
    /// Waits for a place for a call of the tenant. Cancel safe.
    pub(super) async fn enter(&self, tenant: TenantId) -> Slot {
        let of_tenant = self.of(tenant);
        // The tenant's first: who waits for that holds none of the node's.
        let _tenant = of_tenant.acquire_owned().await.expect("it is never closed");
        let _node = Arc::clone(&self.node).acquire_owned().await.expect("it is never closed");
        Slot { _node, _tenant }
    }

    fn of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tenants.get(&tenant).and_then(Weak::upgrade) {
            return known;
        }
        if tenants.len() >= KEPT_MIN {
            tenants.retain(|_, known| known.strong_count() > 0);
        }
        let made = Arc::new(Semaphore::new(TENANT_WEBHOOKS_MAX));
        tenants.insert(tenant, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use ulid::Ulid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId(Ulid::from_parts(1, number))
    }

    fn try_enter(slots: &Slots, number: u128) -> Option<Slot> {
        match std::pin::pin!(slots.enter(tenant(number))).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    // Fails when a tenant may have the places of all, or a place is not given back.
    #[test]
    fn a_tenant_has_its_part_of_the_places_and_the_node_all_of_them() {
        let slots = Slots::default();
        let mut held: Vec<Slot> = (0..100).map_while(|_| try_enter(&slots, 1)).collect();
        assert_eq!(held.len(), TENANT_WEBHOOKS_MAX);
        for other in 2..100 {
            held.extend((0..100).map_while(|_| try_enter(&slots, other)));
        }
        assert_eq!(held.len(), WEBHOOKS_MAX);
        held.truncate(1);
        assert!(try_enter(&slots, 1).is_some() && try_enter(&slots, 99).is_some());
    }
}
