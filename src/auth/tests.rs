mod late;
mod rotation;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use plinth_api::quotas::Quotas;
use plinth_storage::env::Clock;
use plinth_storage::ids::Timestamp;
use plinth_storage::log::LogOptions;
use plinth_storage::store;

use super::*;
use crate::broker::{Broker, BrokerOptions, Publish, TopicSettings};

/// A clock that the test moves.
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

struct World {
    clock: Arc<Hands>,
    log: Log,
    auth: Auth,
    root: String,
    key: String,
}

async fn world() -> World {
    world_on(LogOptions::new(store::open("memory://").expect("a store"))).await
}

async fn world_on(options: LogOptions) -> World {
    let clock = Arc::new(Hands(AtomicU64::new(1_700_000_000_000)));
    let log = Log::open(LogOptions { clock: Arc::clone(&clock) as _, ..options }).await.expect("a log");
    let (auth, made) = Auth::open(log.clone(), None).await.expect("credentials");
    World { clock, log, auth, root: made.root_key.expect("made"), key: made.default_key.expect("made") }
}

impl World {
    fn caller(&self, key: &str) -> Caller {
        self.auth.authenticate(Credential::Bearer(key), None).expect("a valid key")
    }

    fn refused(&self, key: &str) -> Denied {
        self.auth.authenticate(Credential::Bearer(key), None).expect_err("a key that is refused")
    }

    fn admin(&self) -> Admin {
        self.caller(&self.key).admin().expect("the first key is an administrator's")
    }

    fn operator(&self) -> Operator {
        self.caller(&self.root).operator().expect("the root key")
    }

    async fn key(&self, scopes: &[&str]) -> NewKey {
        self.auth.create_key(&self.admin(), request(scopes)).await.expect("a key")
    }

    /// A key with every scope of a new tenant.
    async fn tenant(&self, name: &str) -> NewKey {
        self.auth.create_tenant(&self.operator(), name, TenantSettings::default()).await.expect("a tenant");
        let root = self.auth.authenticate(Credential::Bearer(&self.root), Some(name)).expect("the root key inside");
        let all = ["publish:**", "subscribe:**", "manage:**", "admin"];
        self.auth.create_key(&root.admin().expect("root"), request(&all)).await.expect("a key")
    }
}

fn request(scopes: &[&str]) -> KeyRequest {
    let scopes = scopes.iter().map(ToString::to_string).collect();
    KeyRequest { name: "test".into(), scopes, ..KeyRequest::default() }
}

/// Whether a live connection that listens is told to ask again.
fn is_told(revoked: &mut Revocations) -> bool {
    revoked.changed().now_or_never().is_some()
}

fn is_unauthenticated(denied: &Denied) -> bool {
    matches!(denied, Denied::Unauthenticated(_) | Denied::Token(_))
}

#[tokio::test]
async fn the_first_start_makes_a_root_key_and_a_key_and_no_other_start_does() {
    let world = world().await;
    let caller = world.caller(&world.key);
    assert_eq!(caller.tenant().map(TenantRef::name), Some("default"));
    for action in [Action::Publish, Action::Subscribe, Action::Manage, Action::View] {
        assert!(caller.authorize(action, "orders").is_ok());
    }
    let (again, made) = Auth::open(world.log.clone(), None).await.expect("credentials");
    assert!(made.root_key.is_none() && made.default_key.is_none());
    assert!(again.authenticate(Credential::Bearer(&world.root), None).is_ok());
    assert!(again.authenticate(Credential::Bearer(&world.key), None).is_ok());
}

#[tokio::test]
async fn a_given_root_key_is_the_only_one() {
    let world = world().await;
    let chosen = "a root key that".replace(' ', "-") + "-is-long";
    let (auth, made) = Auth::open(world.log.clone(), Some(chosen.clone())).await.expect("credentials");
    assert!(made.root_key.is_none());
    assert!(auth.authenticate(Credential::Bearer(&chosen), None).is_ok());
    assert!(auth.authenticate(Credential::Bearer(&world.root), None).is_err());
    for weak in ["fifteen-letters", "has a space in it somewhere", "plk_looks_like_an_api_key"] {
        assert!(matches!(Auth::open(world.log.clone(), Some(weak.into())).await, Err(Error::Invalid(_))), "{weak}");
    }
}

// Fails when what was made under the root key from before is not looked at with it.
#[tokio::test]
async fn a_root_key_is_replaced_without_a_moment_at_which_something_breaks() {
    let world = world().await;
    let caller = world.caller(&world.key(&["subscribe:**"]).await.key);
    let (old, new) = ("the-root-key-of-before", "the-root-key-from-now-on");
    let open = async |newest: &str, previous: Option<&str>| {
        let root_keys = RootKeys { newest: Some(newest.into()), previous: previous.map(str::to_owned) };
        Auth::open(world.log.clone(), root_keys).await.expect("credentials").0
    };
    let is_root = |auth: &Auth, key: &str| auth.authenticate(Credential::Bearer(key), Some("default")).is_ok();
    let spent = |auth: &Auth| {
        let ticket = auth.create_ticket(&caller).expect("a ticket").ticket;
        auth.authenticate(Credential::Ticket(&ticket), None).expect("good once");
        (ticket, auth.reconnect_token(&caller).expect("a token").token)
    };
    let before = open(old, None).await;
    let (ticket, token) = spent(&before);
    let both = open(new, Some(old)).await;
    assert!(is_root(&both, old) && is_root(&both, new) && !is_root(&both, &world.root));
    assert!(comes_back(&both, &ticket, &token).is_ok(), "a browser of before comes back");
    let (later_ticket, later_token) = spent(&both);
    let after = open(new, None).await;
    assert!(!is_root(&after, old) && is_root(&after, new));
    assert!(comes_back(&after, &later_ticket, &later_token).is_ok());
    assert!(turned_away(&after, &ticket, &token).contains("has not given it"));
    let weak = RootKeys { newest: Some(new.into()), previous: Some("short".into()) };
    assert!(matches!(Auth::open(world.log.clone(), weak).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn malformed_unknown_and_changed_credentials_are_unauthenticated() {
    let world = world().await;
    let unknown = secret::new_api_key("01abc");
    let own = secret::api_key_id(&world.key).expect("an id");
    let other_secret = secret::new_api_key(own);
    for key in ["", "x", "plk_", "plr_x", &unknown, &other_secret, &world.key[..world.key.len() - 1], &world.key[1..]] {
        assert!(is_unauthenticated(&world.refused(key)), "{key}");
    }
}

#[tokio::test]
async fn a_deleted_key_is_refused_at_once_and_live_connections_are_told() {
    let world = world().await;
    let new = world.key(&["publish:orders"]).await;
    let caller = world.caller(&new.key);
    let mut revoked = Revocations::of(&caller);
    assert!(world.auth.is_live(&caller));
    world.auth.delete_key(&world.admin(), &new.about.id).await.expect("deleted");
    assert!(is_unauthenticated(&world.refused(&new.key)));
    assert!(!world.auth.is_live(&caller));
    assert!(is_told(&mut revoked));
    let again = world.auth.delete_key(&world.admin(), &new.about.id).await;
    assert!(matches!(again, Err(Error::NotFound(_))));
}

/// A client that hangs up in the middle of a deletion: fails when `delete_key` does not run on a task of its own, for
/// then the key is gone from the log and still good in the cache.
#[tokio::test]
async fn a_deletion_that_nobody_waits_for_still_ends_the_key() {
    let world = world().await;
    let new = world.key(&["publish:orders"]).await;
    assert!(world.auth.is_live(&world.caller(&new.key)));
    let admin = world.admin();
    {
        let mut deletion = std::pin::pin!(world.auth.delete_key(&admin, &new.about.id));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(deletion.as_mut().poll(&mut context).is_pending());
    }
    world.auth.close().await;
    assert!(is_unauthenticated(&world.refused(&new.key)));
}

#[tokio::test]
async fn a_key_ends_with_its_time() {
    let world = world().await;
    let mut short = request(&["publish:**"]);
    short.expires_in = Some("30d".into());
    let new = world.auth.create_key(&world.admin(), short.clone()).await.expect("a key");
    let end = new.about.expires_at.expect("an end");
    assert_eq!(end.0 - new.about.created_at.0, 30 * 24 * 3_600_000);
    let caller = world.caller(&new.key);
    world.clock.0.store(end.0 - 1, Ordering::SeqCst);
    assert!(world.auth.is_live(&caller));
    world.clock.0.store(end.0, Ordering::SeqCst);
    assert!(!world.auth.is_live(&caller));
    assert!(is_unauthenticated(&world.refused(&new.key)));
    for refused in ["", "0s", "soon", "-1d", "900000000000y"] {
        short.expires_in = Some(refused.into());
        let refusal = world.auth.create_key(&world.admin(), short.clone()).await;
        assert!(matches!(refusal, Err(Error::Unprocessable(_))), "{refused}");
    }
}

#[tokio::test]
async fn keys_with_unknown_no_or_too_many_scopes_are_refused() {
    let world = world().await;
    let many = vec!["admin"; 101];
    for scopes in [&["read:**"][..], &["operator"], &[], &["publish:a//b"], &many] {
        let refusal = world.auth.create_key(&world.admin(), request(scopes)).await;
        assert!(matches!(refusal, Err(Error::Unprocessable(_))), "{scopes:?}");
    }
}

#[tokio::test]
async fn keys_are_listed_in_pages_without_their_secrets() {
    let world = world().await;
    let mut ids = vec![secret::api_key_id(&world.key).expect("an id").to_owned()];
    for _ in 0..4 {
        ids.push(world.key(&["publish:**"]).await.about.id);
    }
    ids.sort();
    let first = world.auth.list_keys(&world.admin(), None, 3).expect("keys");
    let rest = world.auth.list_keys(&world.admin(), Some(&first[2].id), 3).expect("keys");
    let listed: Vec<_> = first.iter().chain(&rest).map(|key| key.id.clone()).collect();
    assert_eq!(listed, ids);
    assert!(first.iter().all(|key| key.last_four.len() == 4));
}

#[tokio::test]
async fn scopes_allow_what_they_say_and_nothing_else() {
    let world = world().await;
    let caller = world.caller(&world.key(&["publish:in.*", "subscribe:out/**"]).await.key);
    assert!(caller.authorize(Action::Publish, "in.a").is_ok());
    assert!(caller.authorize(Action::View, "in.a").is_ok());
    assert!(caller.authorize_pattern(Action::Subscribe, "**").is_ok());
    assert!(caller.authorize_pattern(Action::Subscribe, "out/a").is_ok());
    for denied in [
        caller.authorize(Action::Subscribe, "in.a").map(drop),
        caller.authorize(Action::Manage, "in.a").map(drop),
        caller.authorize(Action::Publish, "in.a.b").map(drop),
        caller.authorize_pattern(Action::Subscribe, "in.a").map(drop),
        caller.authorize_pattern(Action::Manage, "**").map(drop),
        caller.admin().map(drop),
        caller.operator().map(drop),
    ] {
        assert!(matches!(denied, Err(Denied::Forbidden(_))), "{denied:?}");
    }
    let broken = caller.authorize(Action::Publish, "_in").map(drop);
    assert!(matches!(broken, Err(Denied::InvalidTopicName(_))), "{broken:?}");
}

#[tokio::test]
async fn the_root_key_acts_inside_a_tenant_only_by_its_header() {
    let world = world().await;
    let root = world.caller(&world.root);
    assert_eq!((root.id(), root.tenant()), ("root", None));
    assert!(matches!(root.authorize(Action::Publish, "orders"), Err(Denied::Forbidden(_))));
    assert!(matches!(world.auth.create_ticket(&root), Err(Denied::Forbidden(_))));
    let inside = world.auth.authenticate(Credential::Bearer(&world.root), Some("default")).expect("inside");
    assert!(inside.authorize(Action::Publish, "orders").is_ok());
    assert!(inside.operator().is_ok());
    let missing = world.auth.authenticate(Credential::Bearer(&world.root), Some("nobody"));
    assert!(matches!(missing, Err(Denied::NotFound(_))));
    let foreign = world.auth.authenticate(Credential::Bearer(&world.key), Some("default"));
    assert!(matches!(foreign, Err(Denied::Forbidden(_))));
}

#[tokio::test]
async fn a_ticket_carries_its_caller_once_and_ends_with_the_key() {
    let world = world().await;
    let new = world.key(&["publish:orders"]).await;
    let caller = world.caller(&new.key);
    let ticket = world.auth.create_ticket(&caller).expect("a ticket");
    let redeemed = world.auth.authenticate(Credential::Ticket(&ticket.ticket), None).expect("good once");
    assert_eq!(redeemed.id(), caller.id());
    let again = world.auth.authenticate(Credential::Ticket(&ticket.ticket), None);
    assert!(is_unauthenticated(&again.expect_err("good once only")));
    let ticket = world.auth.create_ticket(&caller).expect("a ticket");
    world.auth.delete_key(&world.admin(), &new.about.id).await.expect("deleted");
    let orphan = world.auth.authenticate(Credential::Ticket(&ticket.ticket), None);
    assert!(is_unauthenticated(&orphan.expect_err("the key is gone")));
}

impl World {
    /// A ticket of `caller` that is spent, and the token that it left.
    fn spent(&self, caller: &Caller) -> (String, String) {
        let ticket = self.auth.create_ticket(caller).expect("a ticket").ticket;
        let redeemed = self.auth.authenticate(Credential::Ticket(&ticket), None).expect("good once");
        (ticket, self.auth.reconnect_token(&redeemed).expect("not the root key").token)
    }

    /// What holds on another node, or after a start on an empty disk: nothing but the log.
    async fn elsewhere(&self, root: &str) -> Auth {
        Auth::open(self.log.clone(), Some(root.into())).await.expect("credentials").0
    }
}

fn comes_back(auth: &Auth, ticket: &str, token: &str) -> Result<Caller, Denied> {
    auth.authenticate(Credential::Reconnect { ticket, token }, None)
}

/// The sentence with which a return is refused.
fn turned_away(auth: &Auth, ticket: &str, token: &str) -> String {
    let denied = comes_back(auth, ticket, token).expect_err("refused");
    assert!(is_unauthenticated(&denied), "{denied:?}");
    denied.to_string()
}

#[tokio::test]
async fn who_redeemed_a_ticket_may_come_back_on_any_node_and_only_read() {
    let world = world().await;
    let caller = world.caller(&world.key(&["subscribe:orders", "publish:orders", "manage:**", "admin"]).await.key);
    let (ticket, token) = world.spent(&caller);
    for auth in [&world.auth, &world.elsewhere(&world.root).await] {
        let back = comes_back(auth, &ticket, &token).expect("let in");
        assert_eq!((back.id(), back.tenant()), (caller.id(), caller.tenant()));
        assert!(back.authorize(Action::Subscribe, "orders").is_ok() && auth.is_live(&back));
        for denied in [
            back.authorize(Action::Subscribe, "other").map(drop),
            back.authorize(Action::Publish, "orders").map(drop),
            back.authorize(Action::Manage, "orders").map(drop),
            back.admin().map(drop),
            back.operator().map(drop),
        ] {
            assert!(matches!(denied, Err(Denied::Forbidden(_))), "{denied:?}");
        }
    }
    // The bucket does not hold all of the secret: with another root key it is over.
    let other = world.elsewhere("another-root-key-of-the-test").await;
    assert!(turned_away(&other, &ticket, &token).contains("has not given it"));
}

#[tokio::test]
async fn nobody_comes_back_with_the_ticket_of_another_caller_or_with_none() {
    let world = world().await;
    let (first, second) = (world.key(&["subscribe:**"]).await.key, world.key(&["subscribe:**"]).await.key);
    let foreign = world.tenant("other").await.key;
    let spent = [&first, &second, &foreign].map(|key| world.spent(&world.caller(key)));
    for (at, (ticket, _)) in spent.iter().enumerate() {
        for (of, (_, token)) in spent.iter().enumerate().filter(|(of, _)| *of != at) {
            assert!(
                turned_away(&world.auth, ticket, token).contains("of another caller"),
                "{of} with the ticket of {at}"
            );
        }
    }
    let (ticket, token) = &spent[0];
    for unknown in ["", "x", "plt_", "plt_x", "plt__", ticket.trim_start_matches("plt_")] {
        assert!(turned_away(&world.auth, unknown, token).contains("of another caller"), "{unknown}");
    }
    // Neither is good for what the other one is.
    assert!(is_unauthenticated(&world.refused(token)));
    let as_ticket = world.auth.authenticate(Credential::Ticket(token), None);
    assert!(is_unauthenticated(&as_ticket.expect_err("no ticket")));
}

#[tokio::test]
async fn coming_back_ends_after_twelve_hours_and_with_the_key() {
    let world = world().await;
    let begin = world.log.now().0;
    let new = world.key(&["subscribe:**"]).await;
    let (ticket, token) = world.spent(&world.caller(&new.key));
    world.clock.0.store(begin + 12 * 3_600_000 - 1, Ordering::SeqCst);
    assert!(comes_back(&world.auth, &ticket, &token).is_ok());
    world.clock.0.store(begin + 12 * 3_600_000, Ordering::SeqCst);
    assert!(turned_away(&world.auth, &ticket, &token).contains("its time is over"));

    let (ticket, token) = world.spent(&world.caller(&new.key));
    world.auth.delete_key(&world.admin(), &new.about.id).await.expect("deleted");
    assert!(turned_away(&world.auth, &ticket, &token).contains("its API key has ended"));

    let mut short = request(&["subscribe:**"]);
    short.expires_in = Some("1h".into());
    let caller = world.caller(&world.auth.create_key(&world.admin(), short).await.expect("a key").key);
    assert_eq!(world.auth.reconnect_token(&caller).expect("a token").ttl_ms, 3_600_000);
}

#[tokio::test]
async fn the_root_key_leaves_nothing_to_come_back_with() {
    let world = world().await;
    let inside = world.auth.authenticate(Credential::Bearer(&world.root), Some("default")).expect("inside");
    let ticket = world.auth.create_ticket(&inside).expect("a ticket").ticket;
    let redeemed = world.auth.authenticate(Credential::Ticket(&ticket), None).expect("good once");
    assert_eq!(world.auth.reconnect_token(&redeemed), None);
}

#[tokio::test]
async fn a_key_of_another_tenant_is_as_one_that_does_not_exist() {
    let world = world().await;
    let other = world.tenant("other").await;
    let foreign = world.auth.delete_key(&world.admin(), &other.about.id).await.expect_err("foreign");
    let missing = world.auth.delete_key(&world.admin(), &"0".repeat(26)).await.expect_err("missing");
    assert_eq!(foreign.to_string().replace(&other.about.id, "X"), missing.to_string().replace(&"0".repeat(26), "X"));
    assert!(world.auth.list_keys(&world.admin(), None, 100).expect("keys").iter().all(|key| key.id != other.about.id));
    assert!(world.auth.is_live(&world.caller(&other.key)));
}

#[tokio::test]
async fn tenants_are_made_once_listed_and_found() {
    let world = world().await;
    for name in ["b", "a"] {
        world.tenant(name).await;
    }
    let twice = world.auth.create_tenant(&world.operator(), "a", TenantSettings::default()).await;
    assert!(matches!(twice, Err(Error::Conflict(_))));
    let refused = world.auth.create_tenant(&world.operator(), "A b", TenantSettings::default()).await;
    assert!(matches!(refused, Err(Error::Unprocessable(_))));
    let names = |after: Option<&str>, limit| -> Vec<String> {
        let tenants = world.auth.list_tenants(&world.operator(), after, limit).expect("tenants");
        tenants.into_iter().map(|tenant| tenant.name).collect()
    };
    assert_eq!(names(None, 10), ["a", "b", "default"]);
    assert_eq!((names(None, 2), names(Some("b"), 2)), (vec!["a".into(), "b".into()], vec!["default".into()]));
    assert_eq!(world.auth.get_tenant(&world.operator(), "a").expect("found").name, "a");
    assert!(matches!(world.auth.get_tenant(&world.operator(), "c"), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_deleted_tenant_takes_its_keys_and_topics_along_and_its_name_is_free() {
    let world = world().await;
    let key = world.tenant("gone").await.key;
    let caller = world.caller(&key);
    let broker = Broker::open(world.log.clone(), BrokerOptions::default()).await.expect("a broker");
    let topic = caller.authorize(Action::Manage, "orders").expect("allowed");
    broker.ensure_topic(&topic, TopicSettings::default()).await.expect("a topic");
    let publish = caller.authorize(Action::Publish, "orders").expect("allowed");

    world.auth.delete_tenant(&world.operator(), "gone").await.expect("deleted");
    assert!(is_unauthenticated(&world.refused(&key)));
    assert!(!world.auth.is_live(&caller));
    assert!(matches!(world.auth.get_tenant(&world.operator(), "gone"), Err(Error::NotFound(_))));
    // A request that was allowed just before neither publishes nor makes the topic again.
    let records = vec![plinth_storage::record::NewRecord::default()];
    let late = broker
        .publish(&publish, Publish { partition: None, sticky: 0, records, stored: None, durability: None, terms: None })
        .await;
    assert!(matches!(late, Err(Error::NotFound(_))));
    for prefix in [&b"topic/"[..], b"tenant-ending/"] {
        assert_eq!(world.log.scan(prefix, None, 10).expect("rows"), vec![]);
    }
    let again = world.tenant("gone").await;
    assert!(world.caller(&again.key).authorize(Action::Publish, "orders").is_ok());
    assert!(is_unauthenticated(&world.refused(&key)));
}

// Fails when the last step of a deletion does not look whether it is the first to take it.
#[tokio::test]
async fn a_deletion_that_is_finished_twice_does_not_free_the_name_of_the_next_tenant() {
    let world = world().await;
    world.tenant("gone").await;
    let before = world.auth.live_tenant("gone").expect("the log").expect("a tenant");
    world.auth.delete_tenant(&world.operator(), "gone").await.expect("deleted");
    let next = world.tenant("gone").await;
    tenant::finish_deletion(&world.log, before.id(), "gone").await.expect("is finished");
    assert!(world.auth.get_tenant(&world.operator(), "gone").is_ok());
    assert!(world.auth.is_live(&world.caller(&next.key)));
}

/// Fails when `Auth::open` does not call `finish_deletions`.
#[tokio::test]
async fn a_start_finishes_a_deletion_that_was_interrupted() {
    let world = world().await;
    world.tenant("gone").await;
    let doc = world.auth.live_tenant("gone").expect("the log").expect("a tenant");
    world.auth.begin_deletion(&doc).await.expect("begun");
    let taken = world.auth.create_tenant(&world.operator(), "gone", TenantSettings::default()).await;
    assert!(matches!(taken, Err(Error::Conflict(_))));
    let (auth, _) = Auth::open(world.log.clone(), Some("a-root-key-of-the-test".into())).await.expect("credentials");
    let root = auth.authenticate(Credential::Bearer("a-root-key-of-the-test"), None).expect("root");
    auth.create_tenant(&root.operator().expect("root"), "gone", TenantSettings::default())
        .await
        .expect("the name is free");
}

#[tokio::test]
async fn no_secret_is_stored() {
    let world = world().await;
    for (_, value) in world.log.scan(b"", None, 1_000).expect("rows") {
        let text = String::from_utf8_lossy(&value);
        assert!(!text.contains(&world.key[35..60]) && !text.contains(&world.root[10..40]), "{text}");
    }
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_until_it_is_resumed_and_its_callers_share_the_change() {
    let world = world().await;
    let key = world.tenant("held").await;
    let caller = world.caller(&key.key);
    let suspend = |suspended| TenantChange { suspended: Some(suspended), ..TenantChange::default() };
    let held = world.auth.change_tenant(&world.operator(), "held", suspend(true)).await.expect("suspended");
    assert_eq!(held.settings.suspended_at, Some(world.log.now()));
    assert_eq!(world.refused(&key.key), Denied::Suspended("the tenant held is suspended".into()));
    assert!(!world.auth.is_live(&caller));
    assert!(caller.tenant().is_some_and(TenantRef::is_suspended), "a caller of before sees it, too");
    let again = world.auth.change_tenant(&world.operator(), "held", suspend(false)).await.expect("resumed");
    assert_eq!(again.settings, TenantSettings::default());
    assert!(world.auth.is_live(&world.caller(&key.key)));
}

#[tokio::test]
async fn settings_of_a_tenant_are_checked_and_stay_when_they_are_left_out() {
    let world = world().await;
    world.tenant("a").await;
    let change = |quotas, origins: &[&str]| TenantChange {
        suspended: None,
        quotas,
        allowed_origins: Some(origins.iter().map(|origin| (*origin).to_owned()).collect()),
    };
    let quotas = Quotas { topics: Some(3), ..Quotas::default() };
    let origins = ["https://a.example", "http://localhost:3000", "https://[::1]:8443"];
    world.auth.change_tenant(&world.operator(), "a", change(Some(quotas.clone()), &origins)).await.expect("changed");
    let kept = world.auth.change_tenant(&world.operator(), "a", TenantChange::default()).await.expect("no change");
    assert_eq!((kept.settings.quotas, kept.settings.allowed_origins.len()), (quotas, 3));
    for wrong in ["https://a.example/", "https://A.example", "https://a.example:443", "a.example", "ftp://a", "null"] {
        let refused = world.auth.change_tenant(&world.operator(), "a", change(None, &[wrong])).await;
        assert!(matches!(refused, Err(Error::Unprocessable(why)) if why.contains(wrong)), "{wrong}");
    }
    let zero = Quotas { connections: Some(0), ..Quotas::default() };
    let refused = world.auth.change_tenant(&world.operator(), "a", change(Some(zero), &[])).await;
    assert!(matches!(refused, Err(Error::Unprocessable(why)) if why.contains("connections")));
}
