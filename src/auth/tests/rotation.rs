//! Rotation of keys, and when they were last used.

use std::time::Duration;

use super::*;

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

impl World {
    async fn rotate(&self, id: &str, overlap: Option<&str>) -> Result<NewKey, Error> {
        self.auth.rotate_key(&self.admin(), id, overlap.map(str::to_owned)).await
    }

    fn view(&self, id: &str) -> KeyView {
        self.auth.get_key(&self.admin(), id).expect("a key")
    }

    fn pass(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Whether the key opens what it should, and a caller that came by it before goes on.
    fn is_good(&self, key: &str, before: &Caller) -> (bool, bool) {
        (self.auth.authenticate(Credential::Bearer(key), None).is_ok(), self.auth.is_live(before))
    }
}

// Fails when the cached key is not forgotten, and when a caller is taken for the key and not for its secret.
#[tokio::test]
async fn a_rotation_without_overlap_ends_the_old_secret_and_all_that_it_has_opened() {
    let world = world().await;
    let old = world.key(&["subscribe:**"]).await;
    let before = world.caller(&old.key);
    let (ticket, token) = world.spent(&before);
    let unspent = world.auth.create_ticket(&before).expect("a ticket").ticket;
    let mut revoked = Revocations::of(&before);
    let new = world.rotate(&old.about.id, None).await.expect("rotated");
    assert_eq!(world.is_good(&old.key, &before), (false, false));
    assert!(is_told(&mut revoked), "open connections ask again");
    assert!(turned_away(&world.auth, &ticket, &token).contains("was replaced"));
    assert!(world.auth.authenticate(Credential::Ticket(&unspent), None).is_err());
    let after = world.caller(&new.key);
    assert_eq!(world.is_good(&new.key, &after), (true, true));
    assert_eq!((after.id(), after.may(Action::Subscribe, "t")), (before.id(), true), "all else stays");
    let about = KeyView {
        rotated_at: Some(world.log.now()),
        last_four: secret::last_four(&new.key),
        last_used_at: world.view(&old.about.id).last_used_at,
        ..old.about
    };
    assert_eq!(world.view(&about.id), about);
    // What the new secret left behind comes back, on a node that knows only the log, too.
    let (ticket, token) = world.spent(&after);
    assert!(comes_back(&world.elsewhere(&world.root).await, &ticket, &token).is_ok());
}

// Fails when the end of an old secret is looked at only where it is presented.
#[tokio::test]
async fn with_an_overlap_the_old_secret_is_good_until_its_time_is_over() {
    let world = world().await;
    let old = world.key(&["publish:**"]).await;
    let before = world.caller(&old.key);
    let new = world.rotate(&old.about.id, Some("1h")).await.expect("rotated");
    let until = world.log.now().0 + HOUR_MS;
    assert_eq!(new.about.previous_until.map(|at| at.0), Some(until));
    for auth in [&world.auth, &world.elsewhere(&world.root).await] {
        assert!(auth.is_live(&before));
        let by_old = auth.authenticate(Credential::Bearer(&old.key), None).expect("in its overlap");
        assert_eq!(by_old.expires_at().map(|at| at.0), Some(until));
    }
    world.pass(HOUR_MS - 1);
    assert_eq!(world.is_good(&old.key, &before), (true, true));
    world.pass(1);
    assert_eq!(world.is_good(&old.key, &before), (false, false));
    assert_eq!(world.view(&old.about.id).previous_until, None);
    assert_eq!(world.is_good(&new.key, &world.caller(&new.key)), (true, true));
}

#[tokio::test]
async fn who_gets_no_answer_rotates_again_and_the_first_secret_keeps_its_time() {
    let world = world().await;
    let first = world.key(&["publish:**"]).await;
    let id = &first.about.id;
    let before = world.caller(&first.key);
    let mut newest = world.rotate(id, Some("1h")).await.expect("rotated, and the answer is lost");
    for _ in 0..3 {
        newest = world.rotate(id, Some("2h")).await.expect("rotated");
        assert_eq!(world.is_good(&first.key, &before), (true, true));
    }
    let fifth = world.rotate(id, Some("2h")).await;
    assert!(matches!(fifth, Err(Error::Conflict(why)) if why.contains("4 secrets")));
    world.pass(HOUR_MS);
    assert_eq!(world.is_good(&first.key, &before), (false, false));
    assert!(world.rotate(id, Some("1s")).await.is_ok(), "one has made room");
    assert_eq!(world.is_good(&newest.key, &before), (true, false));
    world.rotate(id, None).await.expect("rotated");
    assert_eq!(world.is_good(&newest.key, &before), (false, false), "none outlives a rotation without an overlap");
}

#[tokio::test]
async fn an_overlap_never_outlives_the_key_and_a_key_that_has_expired_is_not_rotated() {
    let world = world().await;
    let short = KeyRequest { expires_in: Some("30m".into()), ..request(&["publish:**"]) };
    let old = world.auth.create_key(&world.admin(), short).await.expect("a key");
    let new = world.rotate(&old.about.id, Some("1h")).await.expect("rotated");
    assert_eq!((new.about.expires_at, new.about.previous_until), (old.about.expires_at, old.about.expires_at));
    world.pass(HOUR_MS / 2);
    assert!(is_unauthenticated(&world.refused(&old.key)) && is_unauthenticated(&world.refused(&new.key)));
    assert!(matches!(world.rotate(&old.about.id, None).await, Err(Error::Conflict(_))));
    let living = world.key(&["publish:**"]).await.about.id;
    for wrong in ["", "0s", "soon", "31d", "900000000000y"] {
        assert!(matches!(world.rotate(&living, Some(wrong)).await, Err(Error::Unprocessable(_))), "{wrong}");
    }
    assert!(world.rotate(&living, Some("30d")).await.is_ok());
    let foreign = world.tenant("other").await.about.id;
    assert!(matches!(world.rotate(&foreign, None).await, Err(Error::NotFound(_))));
    assert!(matches!(world.auth.get_key(&world.admin(), &foreign), Err(Error::NotFound(_))));
}

// Fails when every change of a key or of a tenant makes connections ask whether they still may.
#[tokio::test]
async fn a_change_that_ends_nothing_wakes_nobody() {
    let world = world().await;
    let made = world.key(&["publish:**"]).await;
    let other = world.tenant("other").await;
    let mut revoked = [&made.key, &other.key].map(|key| Revocations::of(&world.caller(key)));
    let quotas = Some(Quotas { requests_per_second: Some(5), ..Quotas::default() });
    let change = KeyChange { name: Some("another".into()), quotas: quotas.clone() };
    world.auth.change_key(&world.admin(), &made.about.id, change).await.expect("changed");
    let change = TenantChange { quotas, allowed_origins: Some(vec!["*".into()]), suspended: Some(false) };
    world.auth.change_tenant(&world.operator(), "other", change).await.expect("changed");
    let missing = world.auth.delete_key(&world.admin(), &"0".repeat(26)).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    assert!(!revoked.iter_mut().any(is_told));
}

#[tokio::test]
async fn a_key_gets_another_name_and_nothing_else() {
    let world = world().await;
    let made = world.key(&["publish:**"]).await;
    let rename = |name: &str| KeyChange { name: Some(name.into()), quotas: None };
    let id = &made.about.id;
    let changed = world.auth.change_key(&world.admin(), id, rename("another")).await.expect("changed");
    assert_eq!(changed, KeyView { name: "another".into(), ..made.about.clone() });
    let same = world.auth.change_key(&world.admin(), id, KeyChange::default()).await.expect("no change");
    assert_eq!(same.name, "another");
    assert!(world.auth.authenticate(Credential::Bearer(&made.key), None).is_ok());
    let long = world.auth.change_key(&world.admin(), id, rename(&"x".repeat(256))).await;
    assert!(matches!(long, Err(Error::Unprocessable(_))));
    let foreign = world.tenant("other").await.about.id;
    let missing = world.auth.change_key(&world.admin(), &foreign, rename("mine")).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
}

// Fails when a use is stored where it happens: with a request each.
#[tokio::test]
async fn uses_of_all_keys_are_stored_together_and_at_most_once_a_minute() {
    let world = world().await;
    let start = world.log.now().0 / MINUTE_MS * MINUTE_MS;
    world.clock.0.store(start, Ordering::SeqCst);
    let (a, b, idle) = (world.key(&["publish:**"]).await, world.key(&["admin"]).await, world.key(&["admin"]).await);
    drop(world.admin());
    world.auth.store_noted_uses().await;
    let slots = || world.log.metrics().slots.get();
    let before = slots();
    for _ in 0..100 {
        world.caller(&a.key);
        world.caller(&b.key);
    }
    assert_eq!(slots(), before, "a request writes nothing");
    assert_eq!(world.view(&a.about.id).last_used_at, Some(Timestamp(start)), "it shows all the same");
    world.auth.store_noted_uses().await;
    assert_eq!(slots(), before + 1);
    world.pass(MINUTE_MS - 1);
    world.caller(&a.key);
    world.auth.store_noted_uses().await;
    assert_eq!(slots(), before + 1, "the minute is stored already");
    world.pass(1);
    assert!(world.auth.is_live(&world.caller(&b.key)));
    world.auth.store_noted_uses().await;
    assert_eq!(slots(), before + 2);
    let elsewhere = world.elsewhere(&world.root).await;
    let root = elsewhere.authenticate(Credential::Bearer(&world.root), Some("default")).expect("inside");
    let listed = elsewhere.list_keys(&root.admin().expect("root"), None, 100).expect("keys");
    let used = |key: &NewKey| listed.iter().find(|found| found.id == key.about.id).and_then(|found| found.last_used_at);
    assert_eq!(used(&a), Some(Timestamp(start)));
    assert_eq!(used(&b), Some(Timestamp(start + MINUTE_MS)));
    assert_eq!(used(&idle), None);
}

#[tokio::test(start_paused = true)]
async fn uses_are_stored_by_a_task_that_writes_nothing_when_there_were_none() {
    let world = world().await;
    world.auth.store_noted_uses().await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(world.auth.clone().store_uses());
    let before = world.log.metrics().slots.get();
    let pass = async |minutes: u64| {
        let time = Duration::from_millis(minutes * MINUTE_MS);
        #[expect(clippy::disallowed_methods, reason = "virtual time: nothing is waited for and nothing is guessed")]
        tokio::time::sleep(time).await;
    };
    pass(10).await;
    assert_eq!(world.log.metrics().slots.get(), before);
    world.caller(&world.key);
    pass(10).await;
    assert_eq!(world.log.metrics().slots.get(), before + 1);
    tasks.shutdown().await;
}

// Fails when a key that is deleted between its use and the storing of it comes back as a use, or keeps others from it.
#[tokio::test]
async fn a_deleted_key_leaves_no_use_behind_and_holds_up_no_other() {
    let world = world().await;
    let (gone, stays) = (world.key(&["publish:**"]).await, world.key(&["publish:**"]).await);
    world.caller(&gone.key);
    world.auth.store_noted_uses().await;
    world.pass(MINUTE_MS);
    for key in [&gone.key, &stays.key] {
        world.caller(key);
    }
    world.auth.delete_key(&world.admin(), &gone.about.id).await.expect("deleted");
    world.auth.store_noted_uses().await;
    let uses = world.log.scan(b"key-use/", None, 100).expect("rows");
    let of = |id: &str| uses.iter().any(|(key, _)| String::from_utf8_lossy(key).ends_with(id));
    assert!(!of(&gone.about.id) && of(&stays.about.id));
    let other = world.tenant("other").await;
    world.caller(&other.key);
    world.auth.store_noted_uses().await;
    world.auth.delete_tenant(&world.operator(), "other").await.expect("deleted");
    let uses = world.log.scan(b"key-use/", None, 100).expect("rows");
    assert!(!uses.iter().any(|(key, _)| String::from_utf8_lossy(key).ends_with(&other.about.id)));
}
