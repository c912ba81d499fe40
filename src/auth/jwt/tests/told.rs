//! Which live connections are told that a credential has ended.

use super::*;

/// Connections of the tenant `a`, and others.
struct Listening {
    of_a: [Revocations; 2],
    others: [Revocations; 4],
}

impl Listening {
    /// Checks who was told since the last look: those of the tenant, if `told`, and nobody else.
    fn check(&mut self, what: &str, told: bool) {
        assert_eq!(self.of_a.each_mut().map(is_told), [told; 2], "{what}");
        assert_eq!(self.others.each_mut().map(is_told), [false; 4], "{what}: others");
    }
}

impl World {
    async fn key_of(&self, tenant: &str) -> (String, Caller) {
        let request = KeyRequest { scopes: vec!["publish:**".into()], ..KeyRequest::default() };
        let new = self.auth.create_key(&self.admin(tenant), request).await.expect("a key");
        (new.about.id, self.enter(&new.key).expect("a key"))
    }

    async fn change_a(&self, change: TenantChange) {
        self.auth.change_tenant(&self.operator(), "a", change).await.expect("changed");
    }
}

// Fails when one announcement is for all tenants, and, for each line, when that one is left out.
#[tokio::test]
async fn what_ends_in_a_tenant_wakes_its_connections_and_none_of_another_tenant() {
    let world = world().await;
    for tenant in ["a", "b"] {
        world.tenant(tenant).await;
    }
    let ((first, caller), (second, _), (_, elsewhere)) =
        (world.key_of("a").await, world.key_of("a").await, world.key_of("b").await);
    let mut listening = Listening {
        of_a: [Revocations::of(&caller), Revocations::of(&world.root("a"))],
        others: [
            Revocations::of(&elsewhere),
            Revocations::of(&world.root("b")),
            Revocations::of(&world.root("default")),
            // One that has not shown its credential yet.
            Revocations::default(),
        ],
    };
    let (auth, admin, issuer) = (&world.auth, world.admin("a"), || asymmetric(&["ES256"], &[Signer::p256().jwk(None)]));
    listening.check("nothing", false);
    auth.rotate_key(&admin, &first, None).await.expect("rotated");
    listening.check("a rotation", true);
    auth.delete_key(&admin, &second).await.expect("deleted");
    listening.check("a deleted key", true);
    world.trust("a", "id", issuer()).await;
    listening.check("a new issuer", false);
    world.trust("a", "id", IssuerRequest { scope_claim: Some("scopes".into()), ..issuer() }).await;
    listening.check("other terms", true);
    auth.delete_issuer(&admin, "id").await.expect("deleted");
    listening.check("a deleted issuer", true);
    auth.revoke(&admin, Revoked::Subject("u-7".into(), None)).await.expect("revoked");
    listening.check("a revocation", true);
    world.change_a(TenantChange { suspended: Some(true), ..TenantChange::default() }).await;
    listening.check("a suspension", true);
    world.change_a(TenantChange { suspended: Some(false), ..TenantChange::default() }).await;
    listening.check("its end", false);
    auth.delete_tenant(&world.operator(), "a").await.expect("deleted");
    listening.check("a deleted tenant", true);
    assert!(!auth.is_live(&caller) && auth.is_live(&elsewhere));
}
