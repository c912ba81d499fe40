//! Subscriptions of streams over HTTP, by the real binary: what a crash leaves in every state, tokens, signatures, both roots.

#[path = "../../src/broker/tests/wakes/hook.rs"]
mod hook;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use self::hook::{Call, Hook};
use crate::client::{Answer, Client, answer, payload};
use crate::harness::{Options, Server};

const JSON: &str = "application/json";

/// A node that may call webhooks on this machine.
async fn node() -> Server {
    let env = vec![("PLINTH_PRIVATE_HOSTS".to_owned(), "127.0.0.1".to_owned())];
    Server::start_with(Options { env, ..Options::default() }).await
}

fn path(id: &str) -> String {
    format!("/v1/stream/__ds/subscriptions/{id}")
}

fn by_hook(hook: &Hook, lease_ttl_ms: u64) -> Value {
    json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": hook.url()}, "lease_ttl_ms": lease_ttl_ms})
}

fn by_pull(lease_ttl_ms: u64) -> Value {
    json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool", "lease_ttl_ms": lease_ttl_ms})
}

async fn made(client: &Client, id: &str, subscription: &Value) -> Value {
    let made = answer(client.put(&path(id)).json(subscription)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()
}

/// Appends to a stream, which is made if need be; gives its end.
async fn append(client: &Client, stream: &str) -> String {
    let url = format!("/v1/stream/{stream}");
    let made = answer(client.put(&url).header("Content-Type", JSON).body("[]")).await;
    assert!([200, 201].contains(&made.status), "{}", made.text());
    let appended = answer(client.post(&url).header("Content-Type", JSON).body(r#"{"a":1}"#)).await;
    assert_eq!(appended.status, 204, "{}", appended.text());
    appended.header("stream-next-offset").expect("an offset").to_owned()
}

async fn get(client: &Client, id: &str) -> Value {
    let seen = answer(client.get(&path(id))).await;
    assert_eq!(seen.status, 200, "{}", seen.text());
    seen.json()
}

async fn claim(client: &Client, id: &str, worker: &str) -> Answer {
    answer(client.post(&format!("{}/claim", path(id))).json(&json!({"worker": worker}))).await
}

fn with_token(server: &Server, call: &str, token: &Value, body: &Value) -> RequestBuilder {
    let client = Client::new(server.url(), token.as_str());
    client.post(&format!("{}/{call}", path("s"))).json(body)
}

/// What ends a wake, with all of a stream done with.
fn done(wake: &Value, acks: &[(&str, &str)]) -> Value {
    let acks: Vec<Value> = acks.iter().map(|(stream, offset)| json!({"stream": stream, "offset": offset})).collect();
    json!({"wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": true})
}

fn word(seen: &Answer) -> (u16, String) {
    (seen.status, seen.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// The events of wakes, once there are so many; the server says when.
async fn events(client: &Client, count: usize) -> Vec<Value> {
    let (mut events, mut next) = (Vec::new(), "-1".to_owned());
    while events.len() < count {
        let page = answer(client.get(&format!("/v1/stream/wake/pool?offset={next}&live=long-poll"))).await;
        assert!([200, 204].contains(&page.status), "{}", page.text());
        page.header("stream-next-offset").expect("an offset").clone_into(&mut next);
        if page.status == 200 {
            events.extend(page.json().as_array().expect("a list").iter().cloned());
        }
    }
    events
}

/// Checks a signature by another implementation than the server's.
fn verify(call: &Call, keys: &Value) -> Result<(), String> {
    let part = |name: &str| call.signature.split(',').find_map(|part| part.strip_prefix(&format!("{name}=")));
    let (at, kid) = (part("t").ok_or("no time")?, part("kid").ok_or("no key")?);
    let key =
        keys["keys"].as_array().and_then(|keys| keys.iter().find(|key| key["kid"] == kid)).ok_or("no such key")?;
    assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA")));
    let decode = |text: Option<&str>| URL_SAFE_NO_PAD.decode(text.unwrap_or_default()).map_err(|why| why.to_string());
    let public = decode(key["x"].as_str())?.try_into().map_err(|_| "not 32 bytes")?;
    let signature = Signature::from_slice(&decode(part("ed25519"))?).map_err(|why| why.to_string())?;
    let key = VerifyingKey::from_bytes(&public).map_err(|why| why.to_string())?;
    let signed = [at.as_bytes(), b".", &call.body].concat();
    key.verify_strict(&signed, &signature).map_err(|why| why.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_signed_with_a_key_that_anybody_can_ask_for_and_that_a_restart_keeps() {
    let (mut server, hook) = (node().await, Hook::open().await);
    let client = server.client();
    append(&client, "events/a").await;
    let signing = made(&client, "s", &by_hook(&hook, 600_000)).await["webhook"]["signing"].clone();
    assert_eq!(signing["jwks_url"], format!("{}/v1/stream/__ds/jwks.json", server.url()));
    hook.answers(&[(200, ""); 2]);
    append(&client, "events/a").await;
    hook.called(1).await;
    let keys = answer(server.stranger().get("/v1/streams/__ds/jwks.json")).await;
    assert_eq!((keys.status, keys.header("cache-control")), (200, Some("public, max-age=300")));
    assert_eq!(keys.header("content-type"), Some("application/jwk-set+json"));
    server.kill9().await;
    server.restart(true).await;
    let after = answer(server.stranger().get("/v1/stream/__ds/jwks.json")).await.json();
    assert_eq!(after, keys.json(), "the same keys");
    assert_eq!(after["keys"][0]["kid"], signing["kid"]);
    let call = hook.taken().remove(0);
    verify(&call, &after).expect("signed by the server");
    let mut bent = call.clone();
    *bent.body.last_mut().expect("a body") ^= 1;
    assert!(verify(&bent, &after).is_err());
    let token = call.json()["callback_token"].as_str().expect("a token").to_owned();
    assert!(!server.stderr().contains(&token) && !server.stderr().contains("plw_"), "no token is in the log");
}

// Fails when the start does not look for wakes that are to be delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_calls_or_before_it_calls_again_calls_again_for_the_same_wake() {
    let (mut server, hook) = (node().await, Hook::open().await);
    append(&server.client(), "events/a").await;
    made(&server.client(), "s", &by_hook(&hook, 600_000)).await;
    hook.answers(&[(200, r#"{"done":true}"#), (500, ""), (503, ""), (200, "")]);
    // Its answer comes to nobody.
    hook.hold();
    let end = append(&server.client(), "events/a").await;
    hook.called(1).await;
    server.kill9().await;
    hook.release();
    server.restart(false).await;
    hook.called(3).await;
    server.kill9().await;
    server.restart(true).await;
    hook.called(4).await;
    let calls = hook.calls();
    for call in &calls {
        assert_eq!((&call["wake_id"], &call["generation"]), (&calls[0]["wake_id"], &json!(1)));
        assert_eq!(call["streams"][0]["tail_offset"], end);
    }
    let seen =
        answer(with_token(&server, "callback", &calls[0]["callback_token"], &done(&calls[0], &[("events/a", &end)])))
            .await;
    assert_eq!((seen.status, seen.json()), (200, json!({"ok": true, "next_wake": false})));
    assert_eq!(get(&server.client(), "s").await["streams"][0]["acked_offset"], end);
}

// Fails when a transition is answered before it is stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_about_a_wake_holds_after_a_kill() {
    let (mut server, hook) = (node().await, Hook::open().await);
    append(&server.client(), "events/a").await;
    made(&server.client(), "s", &by_hook(&hook, 600_000)).await;
    hook.answers(&[(202, ""); 10]);
    let first = append(&server.client(), "events/a").await;
    hook.called(1).await;
    let call = hook.calls().remove(0);
    let keep = json!({"wake_id": call["wake_id"], "generation": 1, "acks": [{"stream": "events/a", "offset": first}]});
    let seen = answer(with_token(&server, "callback", &call["callback_token"], &keep)).await;
    assert_eq!(seen.json(), json!({"ok": true, "next_wake": false}), "{}", seen.text());
    server.kill9().await;
    server.restart(true).await;
    assert_eq!(get(&server.client(), "s").await["streams"][0]["acked_offset"], first);
    let second = append(&server.client(), "events/a").await;
    let seen = answer(with_token(&server, "callback", &call["callback_token"], &done(&call, &[]))).await;
    assert_eq!(seen.json(), json!({"ok": true, "next_wake": true}));
    server.kill9().await;
    server.restart(false).await;
    hook.called(2).await;
    let next = hook.calls().pop().expect("called");
    assert_eq!((&next["generation"], &next["streams"][0]["tail_offset"]), (&json!(2), &json!(second)));
    let stale = answer(with_token(&server, "callback", &call["callback_token"], &done(&call, &[]))).await;
    assert_eq!((word(&stale), stale.problem().code.as_str()), ((409, "FENCED".into()), "fenced"));
    let mixed = json!({"wake_id": next["wake_id"], "generation": 2, "done": true});
    assert_eq!(
        word(&answer(with_token(&server, "callback", &call["callback_token"], &mixed)).await),
        (409, "FENCED".into())
    );
    assert_eq!(answer(server.client().delete(&path("s"))).await.status, 204);
    server.kill9().await;
    server.restart(true).await;
    assert_eq!(word(&answer(server.client().get(&path("s"))).await), (404, "SUBSCRIPTION_NOT_FOUND".into()));
    let gone = answer(with_token(&server, "callback", &next["callback_token"], &done(&next, &[]))).await;
    assert_eq!(word(&gone), (404, "SUBSCRIPTION_NOT_FOUND".into()));
}

// Fails when who has claimed a wake is in memory alone, or the end of his lease is.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_survives_a_kill_and_ends_with_its_lease() {
    let mut server = node().await;
    let client = server.client();
    answer(client.put("/v1/stream/wake/pool").header("Content-Type", JSON).body("[]")).await;
    append(&client, "events/a").await;
    made(&client, "s", &by_pull(600_000)).await;
    made(&client, "short", &by_pull(1_000)).await;
    let end = append(&client, "events/a").await;
    events(&client, 2).await;
    server.kill9().await;
    server.restart(true).await;
    let claimed = claim(&server.client(), "s", "one").await;
    assert_eq!(claimed.status, 200, "{}", claimed.text());
    let claimed = claimed.json();
    assert_eq!((&claimed["generation"], &claimed["lease_ttl_ms"]), (&json!(1), &json!(600_000)));
    let short = claim(&server.client(), "short", "one").await.json();
    server.kill9().await;
    server.restart(false).await;
    let busy = claim(&server.client(), "s", "two").await;
    assert_eq!(word(&busy), (409, "ALREADY_CLAIMED".into()));
    let error = &busy.json()["error"];
    assert_eq!((&error["current_holder"], &error["generation"]), (&json!("one"), &json!(1)));
    // The other one's lease ends by itself, and that is told.
    let told = events(&server.client(), 3).await;
    let generations: Vec<&Value> =
        told.iter().filter(|event| event["subscription_id"] == "short").map(|event| &event["generation"]).collect();
    assert_eq!(generations, [1, 2], "each wake is told once: {told:?}");
    let client = Client::new(server.url(), short["token"].as_str());
    let late = answer(client.post(&format!("{}/ack", path("short"))).json(&done(&short, &[("events/a", &end)]))).await;
    assert_eq!(word(&late), (409, "FENCED".into()));
    let acked = answer(with_token(&server, "ack", &claimed["token"], &done(&claimed, &[("events/a", &end)]))).await;
    assert_eq!((acked.status, acked.json()), (200, json!({"ok": true, "next_wake": false})));
    let released = json!({"wake_id": claimed["wake_id"], "generation": 1});
    assert_eq!(
        word(&answer(with_token(&server, "release", &claimed["token"], &released)).await),
        (409, "FENCED".into())
    );
    assert_eq!(word(&claim(&server.client(), "s", "two").await), (409, "NO_PENDING_WORK".into()));
}

// Fails when the tenant is not in the token, or the token is not looked at.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_another_tenant_or_another_kind_moves_nothing() {
    let (server, hook) = (node().await, Hook::open().await);
    let (client, other) = (server.client(), server.tenant("other").await);
    let mut ends = Vec::new();
    for tenant in [&client, &other] {
        append(tenant, "events/a").await;
        made(tenant, "s", &by_pull(600_000)).await;
        ends.push(append(tenant, "events/a").await);
    }
    let (own, theirs) = (claim(&client, "s", "w").await.json(), claim(&other, "s", "w").await.json());
    let before = get(&client, "s").await;
    // Of one's own wake, with the token of theirs.
    let seen = answer(with_token(&server, "ack", &theirs["token"], &done(&own, &[("events/a", &ends[0])]))).await;
    assert_eq!(word(&seen), (409, "FENCED".into()));
    for (call, token) in [("callback", &own["token"]), ("ack", &json!(server.key())), ("release", &json!("plw_AAAA"))] {
        let seen = answer(with_token(&server, call, token, &done(&own, &[]))).await;
        assert_eq!(
            (word(&seen), seen.header("www-authenticate").is_some()),
            ((401, "TOKEN_INVALID".into()), true),
            "{call}"
        );
    }
    assert_eq!(get(&client, "s").await, before);
    // A token opens nothing else.
    let reader = Client::new(server.url(), own["token"].as_str());
    assert_eq!(answer(reader.get("/v1/topics/events%2Fa/records?from=earliest")).await.status, 401);
    assert_eq!(answer(reader.get(&path("s"))).await.status, 401);
    made(&client, "hook", &by_hook(&hook, 600_000)).await;
    assert_eq!(word(&claim(&client, "hook", "w").await), (400, "INVALID_REQUEST".into()));
    assert_eq!(answer(server.root().patch("/v1/tenants/other").json(&json!({"suspended": true}))).await.status, 200);
    let held = answer(with_token(&server, "ack", &theirs["token"], &done(&theirs, &[("events/a", &ends[1])]))).await;
    assert_eq!((held.status, held.problem().code.as_str()), (403, "tenant_suspended"));
    let acked = answer(with_token(&server, "ack", &own["token"], &done(&own, &[("events/a", &ends[0])]))).await;
    assert_eq!(acked.status, 200, "{}", acked.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_claims_at_once_have_one_winner() {
    let server = node().await;
    let client = server.client();
    append(&client, "events/a").await;
    made(&client, "s", &by_pull(600_000)).await;
    for round in 0..5 {
        let end = append(&client, "events/a").await;
        let (one, two) = tokio::join!(claim(&client, "s", "one"), claim(&client, "s", "two"));
        let (won, lost) = if one.status == 200 { (one, two) } else { (two, one) };
        assert_eq!((won.status, word(&lost)), (200, (409, "ALREADY_CLAIMED".into())), "{round}");
        let won = won.json();
        assert_eq!(
            answer(with_token(&server, "ack", &won["token"], &done(&won, &[("events/a", &end)]))).await.status,
            200
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_over_a_websocket_wakes_and_so_does_one_by_rest() {
    let (server, hook) = (node().await, Hook::open().await);
    let client = server.client();
    made(&client, "s", &by_hook(&hook, 600_000)).await;
    hook.answers(&[(200, r#"{"done":true}"#); 2]);
    let mut socket = client.ws().await;
    socket.send(&json!({"type": "publish", "id": "p", "topic": "events/ws", "records": [{"text": "x"}]})).await;
    hook.called(1).await;
    client.publish("events/rest", "text/plain", "x").await;
    hook.called(2).await;
    let streams = hook.calls().pop().expect("called")["streams"].clone();
    let pending: Vec<&Value> =
        streams.as_array().expect("streams").iter().filter(|stream| stream["has_pending"] == true).collect();
    assert_eq!((pending.len(), &pending[0]["path"]), (1, &json!("events/rest")), "the other one is done with");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_roots_have_the_same_subscriptions_and_nothing_else_under_the_reserved_name() {
    let (server, hook) = (node().await, Hook::open().await);
    let client = server.client();
    let roots = ["/v1/stream", "/v1/streams"];
    for root in roots {
        let subscription = format!("{root}/__ds/subscriptions/of-{}", &root[4..]);
        let seen = answer(client.put(&subscription).json(&by_hook(&hook, 1_000))).await;
        assert_eq!(seen.status, 201, "{}", seen.text());
        let jwks = format!("{}{root}/__ds/jwks.json", server.url());
        assert_eq!(seen.json()["webhook"]["signing"]["jwks_url"], jwks);
        let again = answer(client.put(&subscription).json(&by_hook(&hook, 1_000))).await;
        assert_eq!((again.status, again.json()), (200, seen.json()));
        let other = answer(client.put(&subscription).json(&by_hook(&hook, 1_001))).await;
        assert_eq!(word(&other), (409, "SUBSCRIPTION_ALREADY_EXISTS".into()));
        let links = json!({"streams": ["events/x/y"]});
        assert_eq!(answer(client.post(&format!("{subscription}/streams")).json(&links)).await.status, 204);
        for escaped in ["events%2Fx%2Fy", "events/x/y"] {
            assert_eq!(answer(client.delete(&format!("{subscription}/streams/{escaped}"))).await.status, 204);
        }
        assert_eq!(answer(client.get(&subscription)).await.json()["streams"], json!([]));
        for (method, path) in [
            (Method::GET, "__ds"),
            (Method::PUT, "__ds/x"),
            (Method::POST, "__ds/subscriptions"),
            (Method::DELETE, "__ds/subscriptions/a/b"),
            (Method::PUT, "__ds/subscriptions/a/b/c"),
            (Method::GET, "__ds/jwks"),
        ] {
            let seen = answer(client.request(method, &format!("{root}/{path}")).body("x")).await;
            assert_eq!((seen.status, seen.problem().code.as_str()), (404, "not_found"), "{root}/{path}");
        }
        assert_eq!(answer(client.patch(&subscription)).await.status, 405);
    }
    let topics = answer(client.get("/v1/topics")).await.json();
    let made: Vec<&Value> = topics["data"].as_array().expect("a list").iter().map(|topic| &topic["name"]).collect();
    assert!(
        made.iter().all(|name| name.as_str().is_some_and(|name| ["_audit", "_events", "_usage"].contains(&name))),
        "{made:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_in_both_words() {
    let server = Server::start().await;
    let client = server.client();
    let hook = |url: &str| json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": url}});
    for url in [
        "http://10.0.0.1/hook",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/",
        "http://127.0.0.1:1/",
        "https://localhost/",
        "https://app.LOCALHOST./",
    ] {
        let seen = answer(client.put(&path("s")).json(&hook(url))).await;
        assert_eq!(
            (word(&seen), seen.problem().code.as_str()),
            ((400, "WEBHOOK_URL_REJECTED".into()), "invalid_request"),
            "{url}"
        );
    }
    for body in [
        "",
        "{",
        "[]",
        r#"{"type":"webhook","pattern":"a/*"}"#,
        r#"{"type":"pull-wake","pattern":"a/*"}"#,
        r#"{"type":"other","pattern":"a/*","wake_stream":"w"}"#,
        r#"{"type":"pull-wake","wake_stream":"w"}"#,
        r#"{"type":"pull-wake","pattern":"_audit","wake_stream":"w"}"#,
        r#"{"type":"pull-wake","pattern":"a/*","wake_stream":"w","lease_ttl_ms":999}"#,
        r#"{"type":"pull-wake","pattern":"a/*","wake_stream":"w","lease":1}"#,
        r#"{"type":"pull-wake","streams":["../x"],"wake_stream":"w"}"#,
    ] {
        let seen = answer(client.put(&path("s")).header("Content-Type", JSON).body(body)).await;
        assert_eq!(word(&seen), (400, "INVALID_REQUEST".into()), "{body}");
    }
    let long = answer(client.put(&path("s")).header("Content-Type", JSON).body(" ".repeat((1 << 20) + 1))).await;
    assert_eq!((long.status, long.problem().code.as_str()), (413, "too_large"));
    let some = server.with_scopes(&["manage:events/*", "publish:w"]).await;
    let wide = json!({"type": "pull-wake", "pattern": "**", "wake_stream": "w"});
    assert_eq!(answer(some.put(&path("s")).json(&wide)).await.status, 403);
    // What a glob needs that its text does not say is named.
    let some = server.with_scopes(&["manage:events/**", "publish:w"]).await;
    let below = json!({"type": "pull-wake", "pattern": "events/**", "wake_stream": "w"});
    let refused = answer(some.put(&path("s")).json(&below)).await;
    assert_eq!(
        (refused.status, refused.problem().detail.ends_with("can match: events")),
        (403, true),
        "{}",
        refused.text()
    );
    assert_eq!(answer(client.get(&path("s"))).await.status, 404, "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_made_and_removed_a_subscription_is_in_the_audit() {
    let server = node().await;
    let client = server.client();
    made(&client, "s", &by_pull(1_000)).await;
    assert_eq!(
        answer(client.post(&format!("{}/streams", path("s"))).json(&json!({"streams": ["x"]}))).await.status,
        204
    );
    assert_eq!(answer(client.delete(&path("s"))).await.status, 204);
    let records = client.read_all("_audit", 0).await;
    let records: Vec<Value> = records.iter().map(|record| serde_json::from_slice(&payload(record)).unwrap()).collect();
    for operation in ["ensure_subscription", "link_streams", "delete_subscription"] {
        let kinds: Vec<&Value> = records
            .iter()
            .filter(|record| record["operation"] == operation && record["target"] == "s")
            .map(|record| &record["type"])
            .collect();
        assert_eq!(kinds, ["begun", "answered"], "{operation}");
    }
}
