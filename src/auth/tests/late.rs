//! Changes that are answered as unknown and stored afterwards.

use std::time::Duration;

use plinth_storage::testing::fault::{FaultStore, PutFault};

use super::*;

/// A world whose store hangs when it is told to.
struct Late {
    store: FaultStore,
    world: World,
    key: NewKey,
    caller: Caller,
    revoked: Revocations,
}

/// With a tenant `late` and a key of it.
async fn late() -> Late {
    let store = FaultStore::in_memory();
    let patience = Duration::from_millis(200);
    let world = world_on(LogOptions { append_timeout: patience, ..LogOptions::new(store.stores()) }).await;
    let key = world.tenant("late").await;
    let caller = world.caller(&key.key);
    let revoked = Revocations::of(&caller);
    Late { store, world, key, caller, revoked }
}

impl Late {
    fn root(&self) -> Admin {
        let root = self.world.auth.authenticate(Credential::Bearer(&self.world.root), Some("late"));
        root.expect("inside").admin().expect("root")
    }

    /// Runs a change while the store hangs: it is answered as unknown, is not there, and is stored after that.
    async fn stored_late<T: std::fmt::Debug>(&mut self, change: impl Future<Output = Result<T, Error>>) {
        self.store.on_put(|path| path.as_ref().contains("/wal/"), PutFault::Hang);
        let changed = change.await;
        assert!(matches!(changed, Err(Error::Unknown(_))), "{changed:?}");
        assert_eq!(self.world.caller(&self.key.key).id(), self.caller.id(), "not yet, and it is read again");
        assert!(self.world.auth.is_live(&self.caller));
        is_told(&mut self.revoked);
        assert_eq!(self.store.release().await, 0);
    }

    /// Once it is told.
    async fn is_good(&mut self) -> (bool, bool) {
        let told = tokio::time::timeout(Duration::from_secs(30), self.revoked.changed()).await;
        told.expect("it is told");
        let enters = self.world.auth.authenticate(Credential::Bearer(&self.key.key), None).is_ok();
        (enters, self.world.auth.is_live(&self.caller))
    }
}

// Each fails when its change is committed and not followed a second time.
#[tokio::test]
async fn a_key_whose_deletion_is_stored_after_its_answer_ends_then() {
    let mut late = late().await;
    let (auth, root, id) = (late.world.auth.clone(), late.root(), late.key.about.id.clone());
    late.stored_late(auth.delete_key(&root, &id)).await;
    assert_eq!(late.is_good().await, (false, false));
    let again = auth.delete_key(&root, &id).await;
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
}

#[tokio::test]
async fn a_secret_whose_rotation_is_stored_after_its_answer_ends_then() {
    let mut late = late().await;
    let (auth, root, id) = (late.world.auth.clone(), late.root(), late.key.about.id.clone());
    late.stored_late(auth.rotate_key(&root, &id, None)).await;
    assert_eq!(late.is_good().await, (false, false));
}

#[tokio::test]
async fn a_tenant_whose_suspension_is_stored_after_its_answer_is_suspended_then() {
    let mut late = late().await;
    let (auth, operator) = (late.world.auth.clone(), late.world.operator());
    let suspend = TenantChange { suspended: Some(true), ..TenantChange::default() };
    late.stored_late(auth.change_tenant(&operator, "late", suspend)).await;
    assert_eq!(late.is_good().await, (false, false));
    assert!(late.caller.tenant().is_some_and(TenantRef::is_suspended));
}

#[tokio::test]
async fn a_tenant_whose_deletion_is_stored_after_its_answer_ends_then() {
    let mut late = late().await;
    let (auth, operator) = (late.world.auth.clone(), late.world.operator());
    late.stored_late(auth.delete_tenant(&operator, "late")).await;
    assert_eq!(late.is_good().await, (false, false));
}

// Fails when a change that finds nothing to do leaves memory as it is.
#[tokio::test]
async fn who_asks_again_for_what_is_stored_already_makes_it_act() {
    let world = world().await;
    let key = world.tenant("late").await;
    let (caller, suspend) = (world.caller(&key.key), TenantChange { suspended: Some(true), ..TenantChange::default() });
    let other = world.elsewhere(&world.root).await;
    let root = other.authenticate(Credential::Bearer(&world.root), Some("late")).expect("inside");
    // Stored past the memory of the first, as what is stored late is.
    other.change_tenant(&root.operator().expect("root"), "late", suspend.clone()).await.expect("suspended");
    assert!(world.auth.is_live(&caller));
    world.auth.change_tenant(&world.operator(), "late", suspend).await.expect("is suspended");
    assert!(!world.auth.is_live(&caller));

    let (first, admin) = (world.key(&["publish:**"]).await, world.admin());
    let caller = world.caller(&first.key);
    let root = other.authenticate(Credential::Bearer(&world.root), Some("default")).expect("inside");
    other.delete_key(&root.admin().expect("root"), &first.about.id).await.expect("deleted");
    assert!(world.auth.is_live(&caller));
    let again = world.auth.delete_key(&admin, &first.about.id).await;
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
    assert!(!world.auth.is_live(&caller));
}
