//! Subscriptions of streams, by a clock that is set by hand.

mod hook;
mod metrics;

use std::collections::BTreeMap;

use plinth_api::limits::{SUBSCRIPTION_LINKS_MAX, WAKE_TOKEN_TTL_MS};
use plinth_storage::testing::fault::{FaultStore, PutFault};
use serde_json::Value;

use self::hook::Hook;
use super::streams::{JSON, TEXT, body, config};
use super::ttl::{Hand, world_and_clock};
use super::*;
use crate::egress::{Egress, EgressOptions};

const ROOT: &str = "http://here/v1/stream";

/// A node with a webhook that may be called.
struct Awake {
    world: World,
    clock: Arc<Hand>,
    wakes: Wakes,
    hook: Hook,
}

fn egress() -> Egress {
    Egress::new(EgressOptions { private_hosts: vec!["127.0.0.1".into()], ..EgressOptions::default() })
}

async fn awake() -> Awake {
    let (world, clock) = world_and_clock().await;
    let wakes = Wakes::new(world.auth.clone(), world.broker.clone(), egress());
    Awake { world, clock, wakes, hook: Hook::open().await }
}

impl Awake {
    fn by_hook(&self, pattern: &str) -> WakeRequest {
        WakeRequest {
            webhook: Some(self.hook.url()),
            pattern: Some(pattern.into()),
            lease_ttl_ms: 10_000,
            ..WakeRequest::default()
        }
    }

    async fn ensure(&self, id: &str, request: WakeRequest) -> Result<(WakeView, bool), WakeError> {
        self.wakes.ensure(&self.world.caller, id, request, ROOT.into()).await
    }

    async fn made(&self, id: &str, request: WakeRequest) {
        assert!(self.ensure(id, request).await.expect("made").1);
        self.wakes.work_all().await;
    }

    async fn get(&self, id: &str) -> WakeView {
        self.wakes.get(&self.world.caller, id).await.expect("a subscription")
    }

    /// What is done with, by stream.
    async fn acked(&self, id: &str) -> BTreeMap<String, String> {
        self.get(id).await.links.into_iter().map(|link| (link.stream.to_string(), link.acked)).collect()
    }

    async fn append(&self, name: &str, text: &str) -> String {
        let appended = self.world.append(name, body(TEXT, text)).await.expect("appended");
        self.wakes.work_all().await;
        appended.next.to_string()
    }

    async fn stream(&self, name: &str) -> String {
        self.world.stream(name, TEXT).await.next.to_string()
    }

    async fn pass(&self, ms: u64) {
        self.clock.pass(ms);
        self.wakes.work_all().await;
    }

    /// What a crash leaves: the log alone.
    async fn crash(&mut self) {
        self.wakes = Wakes::new(self.world.auth.clone(), self.world.broker.clone(), egress());
        self.wakes.load_all().await.expect("subscriptions");
        self.wakes.work_all().await;
    }

    async fn call_back(&self, call: &Value, acks: &[(&str, &str)], done: bool) -> Result<bool, WakeError> {
        self.use_token(TokenKind::Callback, (call_token(call), wake_of(call)), acks, done).await
    }

    async fn use_token(
        &self,
        kind: TokenKind,
        (token, wake): (&str, WakeRef),
        acks: &[(&str, &str)],
        done: bool,
    ) -> Result<bool, WakeError> {
        let bearer = self.wakes.bearer(kind, token, "s", None)?;
        let acks = acks.iter().map(|(stream, offset)| Ack { stream: (*stream).into(), offset: (*offset).into() });
        let acked = self.wakes.acknowledge(&bearer, wake, acks.collect(), done).await?;
        self.wakes.work_all().await;
        Ok(acked.next_wake)
    }

    async fn claim(&self, worker: &str) -> Result<Claimed, WakeError> {
        self.wakes.claim(&self.world.caller, "s", worker.into()).await
    }

    /// The events in a stream.
    async fn events(&self, name: &str) -> Vec<Value> {
        let page = self.world.read(name, StreamFrom::Start).await.expect("a page");
        serde_json::from_slice(&page.pieces.concat()).expect("JSON")
    }
}

fn call_token(call: &Value) -> &str {
    call["callback_token"].as_str().expect("a token")
}

fn wake_of(call: &Value) -> WakeRef {
    let generation = call["generation"].as_u64().expect("a number");
    WakeRef { wake_id: call["wake_id"].as_str().expect("an id").into(), generation }
}

fn by_pull() -> WakeRequest {
    WakeRequest {
        wake_stream: Some("wake/pool".into()),
        pattern: Some("events/*".into()),
        lease_ttl_ms: 10_000,
        ..WakeRequest::default()
    }
}

#[track_caller]
fn is(outcome: &Result<impl std::fmt::Debug, WakeError>, expected: WakeCode) {
    match outcome {
        Err(WakeError::Refused { code, .. }) if *code == expected => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_there_is_done_with_and_what_comes_wakes_by_every_transport() {
    let awake = awake().await;
    let before = awake.stream("events/a").await;
    let before = (before, awake.append("events/a", "old").await).1;
    awake.hook.answers(&[(200, r#"{"done":true}"#); 3]);
    awake.made("s", awake.by_hook("events/*")).await;
    assert!(awake.hook.calls().is_empty(), "nothing is new");
    assert_eq!(awake.acked("s").await, BTreeMap::from([("events/a".into(), before)]));
    let first = awake.append("events/a", "by the protocol of streams").await;
    let calls = awake.hook.taken();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert!(call.signature.starts_with("t=1700000000,kid=ds_"), "{}", call.signature);
    let call = call.json();
    assert_eq!((&call["subscription_id"], &call["generation"]), (&"s".into(), &1.into()));
    assert_eq!(call["callback_url"], format!("{ROOT}/__ds/subscriptions/s/callback"));
    assert_eq!(call["streams"][0]["tail_offset"], first);
    assert_eq!(call["streams"][0]["has_pending"], true);
    awake.world.publish("events/b", &["by a publish that makes the topic"]).await;
    awake.wakes.work_all().await;
    assert_eq!(awake.hook.calls().len(), 1);
    let (made, _) = awake.world.put("events/c", config(TEXT), "by a creation").await.expect("made");
    awake.wakes.work_all().await;
    let calls = awake.hook.calls();
    assert_eq!(calls[0]["generation"], 3);
    let told = calls[0]["streams"].as_array().expect("streams");
    assert_eq!(told.iter().filter(|stream| stream["has_pending"] == true).count(), 1);
    assert_eq!(awake.acked("s").await["events/c"], made.next.to_string());
    awake.stream("events/empty").await;
    awake.stream("other/a").await;
    awake.append("other/a", "of no interest").await;
    assert!(awake.hook.calls().is_empty());
    assert_eq!(awake.get("s").await.links.len(), 4, "one without anything in it is linked, too");
}

// Fails when what comes between the call and its answer counts as told, or is forgotten.
#[tokio::test]
async fn a_webhook_that_is_done_has_done_what_it_was_told_and_no_more() {
    let awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    awake.hook.answers(&[(200, r#"{"done":true}"#); 2]);
    awake.hook.hold();
    awake.world.append("events/a", body(TEXT, "one")).await.expect("appended");
    let (during, ()) = tokio::join!(
        async {
            awake.hook.called(1).await;
            let during = awake.world.append("events/a", body(TEXT, "two")).await.expect("appended");
            awake.hook.release();
            during.next.to_string()
        },
        awake.wakes.work_all()
    );
    awake.wakes.work_all().await;
    let calls = awake.hook.calls();
    assert_eq!(calls.iter().map(|call| call["generation"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!(calls[1]["streams"][0]["tail_offset"], during);
    assert_eq!(awake.acked("s").await["events/a"], during);
}

// Fails when the retry is not stored, or is a wake of its own.
#[tokio::test]
async fn a_webhook_that_fails_is_called_again_as_the_same_wake_after_pauses_that_grow_across_restarts() {
    let mut awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    awake.hook.answers(&[(500, ""), (302, ""), (404, "{\"done\":true}"), (200, "")]);
    awake.append("events/a", "x").await;
    for pause in [1_000, 2_000, 4_000] {
        let calls = awake.hook.calls();
        assert_eq!(calls.len(), 1);
        assert_eq!((&calls[0]["generation"], awake.get("s").await.has_failed), (&1.into(), true));
        awake.crash().await;
        awake.pass(pause * 8 / 10 - 1).await;
        assert!(awake.hook.calls().is_empty(), "not before its time");
        awake.pass(pause * 4 / 10 + 1).await;
    }
    let calls = awake.hook.calls();
    assert_eq!((calls.len(), awake.get("s").await.has_failed), (1, false));
    assert!(awake.call_back(&calls[0], &[], true).await.expect("it is the one under way"));
}

#[tokio::test]
async fn a_callback_acknowledges_all_or_nothing_keeps_the_lease_and_ends_the_wake() {
    let awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    awake.hook.answers(&[(200, ""); 3]);
    let (one, two) = (awake.append("events/a", "1").await, awake.append("events/a", "2").await);
    let calls = awake.hook.calls();
    assert_eq!(calls.len(), 1, "one wake at a time");
    for bad in
        [&[("events/a", two.as_str()), ("events/b", one.as_str())][..], &[("events/a", "-1")], &[("events/a", "x")]]
    {
        is(&awake.call_back(&calls[0], bad, true).await, WakeCode::InvalidOffset);
    }
    awake.pass(9_999).await;
    assert!(!awake.call_back(&calls[0], &[("events/a", &one)], false).await.expect("kept"));
    is(
        &awake.call_back(&calls[0], &[("events/a", "0000000000000000_0000000000000000")], false).await,
        WakeCode::InvalidOffset,
    );
    awake.pass(9_999).await;
    assert!(awake.call_back(&calls[0], &[("events/a", &one)], true).await.expect("done"), "the second one is new");
    is(&awake.call_back(&calls[0], &[], true).await, WakeCode::Fenced);
    let next = awake.hook.calls();
    assert_eq!((next.len(), &next[0]["generation"]), (1, &2.into()));
    assert!(!awake.call_back(&next[0], &[("events/a", &two)], true).await.expect("done"));
    assert_eq!(awake.acked("s").await["events/a"], two);
    awake.pass(60_000).await;
    assert!(awake.hook.calls().is_empty(), "all is done with");
}

// Fails when the end of a lease is only in memory, or ends nothing.
#[tokio::test]
async fn a_webhook_that_does_not_call_back_is_woken_anew_when_its_lease_ends() {
    let mut awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    awake.hook.answers(&[(204, ""); 3]);
    let end = awake.append("events/a", "1").await;
    let first = awake.hook.calls();
    awake.pass(9_999).await;
    awake.crash().await;
    assert!(awake.hook.calls().is_empty());
    awake.pass(1).await;
    awake.pass(1_000).await;
    let second = awake.hook.calls();
    assert_eq!((second.len(), &second[0]["generation"]), (1, &2.into()));
    is(&awake.call_back(&first[0], &[("events/a", &end)], true).await, WakeCode::Fenced);
    let mixed = (call_token(&first[0]), wake_of(&second[0]));
    is(&awake.use_token(TokenKind::Callback, mixed, &[], true).await, WakeCode::Fenced);
    assert!(!awake.call_back(&second[0], &[("events/a", &end)], true).await.expect("done"));
}

#[tokio::test]
async fn a_worker_claims_what_an_event_tells_of_and_gives_it_back() {
    let awake = awake().await;
    awake.world.stream("wake/pool", JSON).await;
    awake.stream("events/a").await;
    awake.made("s", by_pull()).await;
    is(&awake.claim("one").await, WakeCode::NoPendingWork);
    let end = awake.append("events/a", "x").await;
    let events = awake.events("wake/pool").await;
    assert_eq!(events.len(), 1);
    let expected = ["wake", "s", "events/a"].map(Value::from);
    assert_eq!([&events[0]["type"], &events[0]["subscription_id"], &events[0]["stream"]].map(Clone::clone), expected);
    let claimed = awake.claim("one").await.expect("claimed");
    assert_eq!((claimed.wake.generation, claimed.links[0].pending, &claimed.links[0].tail), (1, true, &end));
    let busy = awake.claim("two").await;
    let Err(WakeError::Refused { code: WakeCode::AlreadyClaimed, held, .. }) = busy else { panic!("{busy:?}") };
    assert_eq!(held, Some(("one".into(), 1)));
    let bearer = awake.wakes.bearer(TokenKind::Claim, &claimed.token, "s", None).expect("its token");
    awake.wakes.release(&bearer, claimed.wake.clone()).await.expect("given back");
    awake.wakes.work_all().await;
    is(&awake.wakes.release(&bearer, claimed.wake).await, WakeCode::Fenced);
    assert_eq!(awake.events("wake/pool").await.len(), 2, "there is still something");
    let again = awake.claim("two").await.expect("claimed");
    assert_eq!(again.wake.generation, 2);
    let acked =
        awake.use_token(TokenKind::Claim, (&again.token, again.wake.clone()), &[("events/a", &end)], true).await;
    assert!(!acked.expect("done"));
    is(&awake.claim("one").await, WakeCode::NoPendingWork);
    // What is new can be claimed before anybody has told of it.
    awake.world.append("events/a", body(TEXT, "y")).await.expect("appended");
    awake.world.put("events/b", config(TEXT), "z").await.expect("made");
    let claimed = awake.claim("one").await.expect("claimed");
    assert_eq!(claimed.links.iter().filter(|link| link.pending).count(), 2);
    awake.pass(10_000).await;
    assert_eq!(awake.claim("two").await.expect("the lease is over").wake.generation, 4);
}

// Fails without both the lock by subscription and the guard of its document; either alone holds it.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_claims_at_once_one_wins() {
    let awake = awake().await;
    awake.world.stream("wake/pool", JSON).await;
    awake.stream("events/a").await;
    awake.made("s", by_pull()).await;
    for round in 1..5 {
        let end = awake.append("events/a", "x").await;
        let claims = (0..20).map(|worker| {
            let (wakes, caller) = (awake.wakes.clone(), awake.world.caller.clone());
            tokio::spawn(async move { wakes.claim(&caller, "s", format!("{worker}")).await })
        });
        let claims = futures::future::join_all(claims).await.into_iter().map(|claim| claim.expect("no panic"));
        let (won, lost): (Vec<_>, Vec<_>) = claims.partition(Result::is_ok);
        lost.iter().for_each(|lost| is(lost, WakeCode::AlreadyClaimed));
        let [Ok(won)] = &won[..] else { panic!("{won:?}") };
        assert_eq!(won.wake.generation, round);
        let acked =
            awake.use_token(TokenKind::Claim, (&won.token, won.wake.clone()), &[("events/a", &end)], true).await;
        assert!(!acked.expect("done"));
    }
    assert_eq!(awake.events("wake/pool").await.len(), 4);
}

// Fails when the event is appended without a key, or is told only where the wake begins.
#[tokio::test]
async fn the_event_of_a_wake_is_there_once_though_a_crash_comes_before_or_after_it() {
    let mut awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", by_pull()).await;
    awake.append("events/a", "x").await;
    let claimed = awake.claim("one").await.expect("it needs no event");
    let bearer = awake.wakes.bearer(TokenKind::Claim, &claimed.token, "s", None).expect("its token");
    awake.wakes.release(&bearer, claimed.wake).await.expect("given back");
    awake.crash().await;
    awake.world.stream("wake/pool", JSON).await;
    awake.crash().await;
    assert_eq!(awake.events("wake/pool").await.len(), 1, "the stream came later");
    for _ in 0..3 {
        awake.crash().await;
    }
    let events = awake.events("wake/pool").await;
    assert_eq!((events.len(), &events[0]["generation"]), (1, &2.into()));
    let claimed = awake.claim("one").await.expect("claimed");
    awake.crash().await;
    is(&awake.claim("two").await, WakeCode::AlreadyClaimed);
    assert!(
        awake.use_token(TokenKind::Claim, (&claimed.token, claimed.wake), &[], true).await.expect("after the crash")
    );
    assert_eq!(awake.events("wake/pool").await.len(), 2);
}

// Fails when an append after which the node crashed is not looked for at the start.
#[tokio::test]
async fn what_was_appended_before_a_crash_wakes_after_it() {
    let mut awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    awake.hook.answers(&[(200, "")]);
    awake.world.append("events/a", body(TEXT, "x")).await.expect("appended");
    awake.world.put("events/b", config(TEXT), "y").await.expect("made");
    awake.crash().await;
    let calls = awake.hook.calls();
    assert_eq!(calls.len(), 1);
    let told = calls[0]["streams"].as_array().expect("streams");
    assert_eq!(told.iter().filter(|stream| stream["has_pending"] == true).count(), 2);
    // Called, and not known to be: it is called again, as the same wake.
    awake.world.append("events/a", body(TEXT, "z")).await.expect("appended");
    let done = [("events/a", told[0]["tail_offset"].as_str().expect("a token"))];
    awake.hook.answers(&[(200, ""); 2]);
    assert!(awake.call_back(&calls[0], &done, true).await.expect("done"));
    assert_eq!(awake.hook.calls().len(), 1);
}

#[tokio::test]
async fn streams_that_are_named_need_not_be_there_and_stay_when_the_glob_matches_them_too() {
    let awake = awake().await;
    let end = awake.stream("events/a").await;
    let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let request = WakeRequest { streams: named(&["other/x", "events/a", "other/x"]), ..awake.by_hook("events/*") };
    awake.made("s", request.clone()).await;
    let same = WakeRequest { streams: named(&["events/a", "other/x"]), ..request.clone() };
    assert!(!awake.ensure("s", same).await.expect("the same").1);
    for other in [
        WakeRequest { streams: named(&["events/a"]), ..request.clone() },
        WakeRequest { lease_ttl_ms: 10_001, ..request.clone() },
        WakeRequest { pattern: None, ..request.clone() },
        WakeRequest { description: Some("d".into()), ..request.clone() },
        WakeRequest { webhook: None, wake_stream: Some("w".into()), ..request.clone() },
    ] {
        is(&awake.ensure("s", other).await, WakeCode::AlreadyExists);
    }
    let zero = "0000000000000000_0000000000000000".to_owned();
    assert_eq!(awake.acked("s").await, BTreeMap::from([("events/a".into(), end), ("other/x".into(), zero)]));
    let caller = &awake.world.caller;
    awake.wakes.link(caller, "s", named(&["other/y", "other/x"])).await.expect("linked");
    awake.wakes.unlink(caller, "s", "other/x").await.expect("unlinked");
    awake.wakes.unlink(caller, "s", "other/x").await.expect("it is not linked");
    awake.wakes.unlink(caller, "s", "events/a").await.expect("unlinked");
    let links: Vec<_> =
        awake.get("s").await.links.into_iter().map(|link| (link.stream.to_string(), link.explicit)).collect();
    assert_eq!(links, [("events/a".into(), false), ("other/y".into(), true)]);
    awake.hook.answers(&[(200, r#"{"done":true}"#)]);
    awake.world.put("other/y", config(TEXT), "x").await.expect("made");
    awake.world.put("other/x", config(TEXT), "x").await.expect("made");
    awake.wakes.work_all().await;
    let calls = awake.hook.calls();
    assert_eq!((calls.len(), calls[0]["streams"].as_array().map(Vec::len)), (1, Some(2)));
}

// Fails when a deletion is not noted, or the offsets of a stream that was deleted count for the one that follows.
#[tokio::test]
async fn the_link_with_a_stream_that_is_gone_ends_and_one_that_follows_is_new() {
    let (awake, named) = (awake().await, "named".to_owned());
    for name in ["events/a", "events/b", "named"] {
        awake.stream(name).await;
        awake.append(name, "x").await;
    }
    awake.made("s", WakeRequest { streams: vec![named], ..awake.by_hook("events/*") }).await;
    awake.world.delete_stream("events/a").await;
    awake.world.delete_stream("named").await;
    awake.wakes.work_all().await;
    let linked: Vec<_> = awake.acked("s").await.into_keys().collect();
    assert_eq!(linked, ["events/b", "named"], "what is named stays");
    awake.world.delete_stream("events/b").await;
    awake.hook.answers(&[(200, "")]);
    awake.world.put("events/b", config(TEXT), "y").await.expect("made");
    awake.world.put("named", config(TEXT), "y").await.expect("made");
    awake.wakes.work_all().await;
    let calls = awake.hook.calls();
    let told = calls[0]["streams"].as_array().expect("streams");
    assert_eq!(told.iter().filter(|stream| stream["has_pending"] == true).count(), 2);
}

// Fails when the address is looked at only where the subscription is made.
#[tokio::test]
async fn a_webhook_must_be_public_when_it_is_made_and_whenever_it_is_called() {
    let mut awake = awake().await;
    let private =
        Wakes::new(awake.world.auth.clone(), awake.world.broker.clone(), Egress::new(EgressOptions::default()));
    for url in [
        "http://10.0.0.1/hook",
        "https://10.0.0.1/hook",
        "https://127.0.0.1/hook",
        "https://[::1]/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "http://example.com/hook",
        "https://user:secret@example.com/",
        "file:///etc/passwd",
        "hook",
        "",
    ] {
        let request = WakeRequest { webhook: Some(url.into()), ..awake.by_hook("events/*") };
        let refused = private.ensure(&awake.world.caller, "s", request, ROOT.into()).await;
        is(&refused, WakeCode::UrlRejected);
    }
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    awake.hook.answers(&[(200, "")]);
    awake.wakes = private;
    awake.wakes.load_all().await.expect("subscriptions");
    awake.append("events/a", "x").await;
    assert!(awake.hook.calls().is_empty() && awake.get("s").await.has_failed);
}

#[tokio::test]
async fn a_token_is_for_one_kind_of_call_one_subscription_one_tenant_and_a_day() {
    let awake = awake().await;
    awake.stream("events/a").await;
    let lease_ttl_ms = 600_000;
    for id in ["s", "t"] {
        awake.made(id, WakeRequest { lease_ttl_ms, ..by_pull() }).await;
    }
    awake.append("events/a", "x").await;
    let claimed = awake.claim("one").await.expect("claimed");
    let of = |kind, id| awake.wakes.bearer(kind, &claimed.token, id, None);
    assert!(of(TokenKind::Claim, "s").is_ok());
    is(&of(TokenKind::Callback, "s"), WakeCode::TokenInvalid);
    is(&of(TokenKind::Claim, "t"), WakeCode::TokenInvalid);
    is(&awake.wakes.bearer(TokenKind::Claim, "plw_AAAA", "s", None), WakeCode::TokenInvalid);
    let root = awake.world.auth.authenticate(Credential::Bearer(&awake.world.root), None).expect("root");
    let root = root.operator().expect("root");
    let suspend = |suspended| crate::auth::TenantChange { suspended: Some(suspended), ..Default::default() };
    awake.world.auth.change_tenant(&root, "default", suspend(true)).await.expect("suspended");
    let refused = of(TokenKind::Claim, "s");
    assert!(matches!(refused, Err(WakeError::Denied(crate::auth::Denied::Suspended(_)))), "{refused:?}");
    awake.world.auth.change_tenant(&root, "default", suspend(false)).await.expect("not any more");
    awake.clock.pass(WAKE_TOKEN_TTL_MS - 1);
    assert!(of(TokenKind::Claim, "s").is_ok());
    awake.clock.pass(1);
    is(&of(TokenKind::Claim, "s"), WakeCode::TokenExpired);
}

#[tokio::test]
async fn a_tenant_that_is_suspended_calls_nobody_until_it_is_not_and_a_deleted_one_leaves_nothing() {
    let awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    let root = awake.world.auth.authenticate(Credential::Bearer(&awake.world.root), None).expect("root");
    let root = root.operator().expect("root");
    let suspend = |suspended| crate::auth::TenantChange { suspended: Some(suspended), ..Default::default() };
    awake.hook.answers(&[(200, "")]);
    awake.world.append("events/a", body(TEXT, "x")).await.expect("appended");
    awake.world.auth.change_tenant(&root, "default", suspend(true)).await.expect("suspended");
    awake.wakes.work_all().await;
    awake.pass(60_000).await;
    assert!(awake.hook.calls().is_empty());
    awake.world.auth.change_tenant(&root, "default", suspend(false)).await.expect("not any more");
    awake.pass(10_000).await;
    assert_eq!(awake.hook.calls().len(), 1);
    let rows = |prefix: &[u8]| awake.world.broker.log().scan(prefix, None, 10).expect("rows").len();
    assert_eq!((rows(b"wake/"), rows(b"wake-link/")), (1, 1));
    awake.world.auth.delete_tenant(&root, "default").await.expect("deleted");
    assert_eq!((rows(b"wake/"), rows(b"wake-link/")), (0, 0));
    awake.pass(60_000).await;
    assert!(awake.hook.calls().is_empty());
}

#[tokio::test]
async fn a_subscription_that_was_removed_acts_no_more() {
    let mut awake = awake().await;
    awake.stream("events/a").await;
    awake.made("s", awake.by_hook("events/*")).await;
    awake.hook.answers(&[(500, "")]);
    awake.append("events/a", "x").await;
    let calls = awake.hook.calls();
    awake.wakes.remove(&awake.world.caller, "s").await.expect("removed");
    awake.wakes.remove(&awake.world.caller, "s").await.expect("there is none");
    is(&awake.call_back(&calls[0], &[], true).await, WakeCode::NotFound);
    is(&awake.wakes.get(&awake.world.caller, "s").await, WakeCode::NotFound);
    awake.pass(60_000).await;
    awake.crash().await;
    assert!(awake.hook.calls().is_empty());
    // The generations begin anew, and a token of before is of another wake.
    awake.hook.answers(&[(200, "")]);
    awake.made("s", awake.by_hook("events/*")).await;
    awake.append("events/a", "y").await;
    assert_eq!(awake.hook.calls()[0]["generation"], 1);
    is(&awake.call_back(&calls[0], &[], true).await, WakeCode::Fenced);
}

#[tokio::test]
async fn whoever_may_not_do_it_on_all_streams_is_told_as_if_there_were_none() {
    let awake = awake().await;
    let request = crate::auth::KeyRequest {
        name: "some".into(),
        scopes: ["manage:events/**", "subscribe:other/*", "publish:wake/*"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let admin = awake.world.caller.admin().expect("an administrator");
    let key = awake.world.auth.create_key(&admin, request).await.expect("a key").key;
    let some = awake.world.auth.authenticate(Credential::Bearer(&key), None).expect("valid");
    let ensure = |id: &'static str, request: WakeRequest| awake.wakes.ensure(&some, id, request, ROOT.into());
    let denied = |outcome: Result<(WakeView, bool), WakeError>| {
        assert!(matches!(outcome, Err(WakeError::Denied(crate::auth::Denied::Forbidden(_)))), "{outcome:?}");
    };
    denied(ensure("s", awake.by_hook("**")).await);
    denied(ensure("s", awake.by_hook("*")).await);
    // Its levels may be none.
    denied(ensure("s", awake.by_hook("events/**")).await);
    denied(ensure("s", WakeRequest { streams: vec!["other/a".into()], ..awake.by_hook("events/*") }).await);
    denied(ensure("s", WakeRequest { wake_stream: Some("events/w".into()), ..by_pull() }).await);
    assert!(ensure("s", by_pull()).await.expect("within its scopes").1);
    awake.wakes.get(&some, "s").await.expect("its own");
    awake.made("t", awake.by_hook("**")).await;
    is(&awake.wakes.get(&some, "t").await, WakeCode::NotFound);
    is(&awake.wakes.remove(&some, "t").await, WakeCode::NotFound);
    is(&awake.wakes.remove(&some, "none").await, WakeCode::NotFound);
    is(&awake.wakes.link(&some, "t", vec!["events/a".into()]).await, WakeCode::NotFound);
    is(&awake.wakes.claim(&some, "s", "w".into()).await, WakeCode::NotFound);
    is(&ensure("t", awake.by_hook("events/*")).await, WakeCode::AlreadyExists);
    let stranger = awake.world.stranger().await;
    is(&awake.wakes.get(&stranger, "s").await, WakeCode::NotFound);
}

#[tokio::test]
async fn what_is_asked_for_is_checked_and_the_limits_are_named() {
    let awake = awake().await;
    let names = |count: usize| (0..count).map(|number| format!("n/{number}")).collect::<Vec<_>>();
    let hook = || awake.by_hook("events/*");
    for (id, request) in [
        ("", hook()),
        ("a/b", hook()),
        ("a b", hook()),
        ("s", WakeRequest { pattern: None, ..hook() }),
        ("s", WakeRequest { pattern: Some("events/a*".into()), ..hook() }),
        ("s", WakeRequest { pattern: Some("_audit".into()), ..hook() }),
        ("s", WakeRequest { lease_ttl_ms: 999, ..hook() }),
        ("s", WakeRequest { lease_ttl_ms: 600_001, ..hook() }),
        ("s", WakeRequest { wake_stream: Some("w".into()), ..hook() }),
        ("s", WakeRequest { webhook: None, ..hook() }),
        ("s", WakeRequest { description: Some("x".repeat(1_025)), ..hook() }),
        ("s", WakeRequest { streams: vec!["wake/pool".into()], ..by_pull() }),
    ] {
        is(&awake.ensure(id, request).await, WakeCode::InvalidRequest);
    }
    let many = WakeRequest { streams: names(SUBSCRIPTION_LINKS_MAX + 1), ..hook() };
    is(&awake.ensure("s", many).await, WakeCode::LimitExceeded);
    awake.made("s", WakeRequest { streams: names(SUBSCRIPTION_LINKS_MAX), ..hook() }).await;
    let one = vec!["one".to_owned()];
    is(&awake.wakes.link(&awake.world.caller, "s", one.clone()).await, WakeCode::LimitExceeded);
    awake.stream("events/a").await;
    awake.append("events/a", "x").await;
    assert_eq!(awake.get("s").await.links.len(), SUBSCRIPTION_LINKS_MAX, "no more are linked");
    awake.wakes.unlink(&awake.world.caller, "s", "n/7").await.expect("unlinked");
    awake.wakes.link(&awake.world.caller, "s", one).await.expect("linked");
    assert_eq!(awake.get("s").await.links.len(), SUBSCRIPTION_LINKS_MAX);
}

// Fails when an append without a clear outcome is not looked at once it has one.
#[tokio::test]
async fn an_append_whose_outcome_was_not_known_wakes_when_it_is_stored() {
    let store = FaultStore::in_memory();
    let options = LogOptions { append_timeout: Duration::from_millis(200), ..LogOptions::new(store.stores()) };
    let world = world_of(options).await;
    let wakes = Wakes::new(world.auth.clone(), world.broker.clone(), egress());
    let hook = Hook::open().await;
    hook.answers(&[(200, "")]);
    let request = WakeRequest {
        webhook: Some(hook.url()),
        pattern: Some("events/*".into()),
        lease_ttl_ms: 600_000,
        ..WakeRequest::default()
    };
    world.stream("events/a", TEXT).await;
    wakes.ensure(&world.caller, "s", request, ROOT.into()).await.expect("made");
    let task = tokio::spawn(wakes.clone().run());
    store.on_put(|path| path.as_ref().contains("/wal/"), PutFault::Hang);
    let unknown = world.append("events/a", body(TEXT, "x")).await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    store.release().await;
    hook.called(1).await;
    task.abort();
}
