//! Tokens: those of an issuer that a tenant trusts, and those that the cluster mints, on every transport.
//!
//! What makes a token good or bad is looked at in `src/auth/jwt/tests.rs`; here, that it counts.

mod published;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::error::ErrorCode;
use serde_json::{Value, json};

use crate::client::{Client, answer, texts};
use crate::harness::Server;
use crate::ws::Socket;

/// The secret of every issuer of these tests.
const SECRET: &str = "CANARY7f3a of an issuer, which has more than thirty-two bytes";
/// The `iss` of the tenant `default`.
const ISSUER: &str = "https://id.example";

/// What makes an issuer with `SECRET`.
pub(crate) fn issuer(issuer: &str, audiences: &[&str]) -> Value {
    json!({"issuer": issuer, "audiences": audiences, "algorithms": ["HS256"], "secret": SECRET})
}

/// Trusts an issuer in the tenant `default`, if it is not trusted there yet.
async fn trust(server: &Server) {
    let ensured = answer(server.client().put("/v1/issuers/id").json(&issuer(ISSUER, &[]))).await;
    assert!([200, 201].contains(&ensured.status), "{}", ensured.text());
}

/// The server's time, in seconds.
async fn now(server: &Server) -> u64 {
    let ticket = answer(server.client().post("/v1/tickets")).await.json();
    (ticket["expires_at"].as_u64().unwrap() - plinth_api::limits::TICKET_TTL_MS) / 1000
}

fn signed(secret: &str, claims: &Value) -> String {
    let encode = |part: String| URL_SAFE_NO_PAD.encode(part);
    let signed = format!("{}.{}", encode(json!({"alg": "HS256"}).to_string()), encode(claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claims(now: u64, scopes: &[&str]) -> Value {
    json!({
        "iss": ISSUER, "aud": "plinth:default", "sub": "u-7", "iat": now, "exp": now + 600, "scope": scopes.join(" "),
    })
}

/// A token of the tenant `default` with these scopes.
pub(crate) async fn with_scopes(server: &Server, scopes: &[&str]) -> String {
    trust(server).await;
    signed(SECRET, &claims(now(server).await, scopes))
}

/// A token that was good until its issuer was deleted.
pub(crate) async fn of_a_deleted_issuer(server: &Server, scopes: &[&str]) -> String {
    let name = "https://gone.example";
    let trusted = answer(server.client().put("/v1/issuers/zz-gone").json(&issuer(name, &[]))).await;
    assert_eq!(trusted.status, 201, "{}", trusted.text());
    let mut claims = claims(now(server).await, scopes);
    claims["iss"] = json!(name);
    let token = signed(SECRET, &claims);
    assert_eq!(answer(holder(server, &token).get("/v1/topics")).await.status, 200);
    assert_eq!(answer(server.client().delete("/v1/issuers/zz-gone")).await.status, 204);
    token
}

/// A token that the cluster minted for a subject, and that was good once.
pub(crate) async fn minted(server: &Server, subject: &str) -> String {
    let wanted = json!({"scopes": ["publish:**", "subscribe:**", "manage:**"], "subject": subject});
    let minted = answer(server.client().post("/v1/tokens").json(&wanted)).await;
    assert_eq!(minted.status, 201, "{}", minted.text());
    let token = minted.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(answer(holder(server, &token).get("/v1/topics")).await.status, 200);
    token
}

/// The `jti` of a token.
pub(crate) fn id_of(token: &str) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("three parts")).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("claims are JSON");
    claims["jti"].as_str().expect("a minted token has an id").to_owned()
}

/// Tokens that are not good, each for another reason.
pub(crate) async fn bad(server: &Server) -> Vec<String> {
    trust(server).await;
    let now = now(server).await;
    let good = claims(now, &["publish:**", "subscribe:**", "manage:**", "admin"]);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(SECRET, &claims)
    };
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(good.to_string()));
    let revoked = with("jti", json!("revoked-1"));
    let made = answer(server.client().post("/v1/revocations").json(&json!({"token_id": "revoked-1"}))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    vec![
        "eyJ.eyJ.eyJ".to_owned(),
        unsigned,
        signed("another secret, of which nobody has heard before", &good),
        with("exp", json!(now - 60)),
        with("nbf", json!(now + 3600)),
        with("aud", json!("plinth:other")),
        with("iss", json!("https://elsewhere.example")),
        revoked,
    ]
}

fn holder(server: &Server, token: &str) -> Client {
    Client::new(server.url(), Some(token))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_trusted_issuer_publishes_and_follows_within_its_scopes() {
    let server = Server::start().await;
    let client = holder(&server, &with_scopes(&server, &["publish:in.*", "subscribe:in.*", "manage:in.*"]).await);
    client.publish("in.a", "text/plain", "one").await;
    assert_eq!(texts(&client.read_all("in.a", 0).await), ["one"]);
    assert_eq!(answer(client.publishing("out", "text/plain", "x")).await.problem().code, ErrorCode::Forbidden);
    let mut socket = client.ws().await;
    socket.subscribe("in.a", "earliest").await;
    assert_eq!(texts(&socket.records(1).await), ["one"]);
    let ticket = answer(client.post("/v1/tickets")).await.json()["ticket"].as_str().unwrap().to_owned();
    let page = answer(server.stranger().get(&format!("/v1/topics/in.a/records?from=earliest&ticket={ticket}"))).await;
    assert_eq!((page.status, page.json()["records"][0]["text"].as_str()), (200, Some("one")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_told_why_in_short_and_by_explain_at_length() {
    let server = Server::start().await;
    let reasons =
        ["malformed", "untrusted", "untrusted", "expired", "not_yet_valid", "untrusted", "untrusted", "revoked"];
    let mut untrusted = std::collections::BTreeSet::new();
    for (token, reason) in bad(&server).await.iter().zip(reasons) {
        let refused = answer(holder(&server, token).get("/v1/topics")).await;
        let problem = refused.problem();
        assert_eq!((problem.code, problem.reason.as_deref()), (ErrorCode::Unauthenticated, Some(reason)));
        let challenge = refused.header("www-authenticate").unwrap();
        let said = format!(r#"Bearer realm="plinth", error="invalid_token", error_description="{}""#, problem.detail);
        assert_eq!(challenge, said);
        let explained = answer(holder(&server, token).get("/v1/auth/explain")).await.problem();
        assert_eq!((explained.status, explained.reason.as_deref()), (401, Some(reason)));
        assert!(!explained.detail.contains("default"), "it names no tenant: {}", explained.detail);
        if reason == "untrusted" {
            // Which tenants there are and whom they trust is not told to who makes up tokens.
            untrusted.insert((problem.detail, challenge.to_owned(), explained.detail));
        }
    }
    assert_eq!(untrusted.len(), 1, "{untrusted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_who_one_is_and_why_something_is_allowed() {
    let server = Server::start().await;
    let client = holder(&server, &with_scopes(&server, &["publish:in.*"]).await);
    let said = answer(client.get("/v1/auth/explain?action=publish&topic=in.a")).await.json();
    assert_eq!((&said["kind"], &said["tenant"], &said["issuer"]), (&json!("token"), &json!("default"), &json!("id")));
    assert_eq!((&said["subject"], &said["scopes"]), (&json!("u-7"), &json!(["publish:in.*"])));
    assert_eq!(said["decision"]["allowed"], true);
    assert_eq!(said["decision"]["reason"], "the scope publish:in.* allows it");
    for (action, topic) in [("subscribe", "in.a"), ("publish", "out"), ("manage", "**"), ("publish", "a//b")] {
        let said = answer(client.get(&format!("/v1/auth/explain?action={action}&topic={topic}"))).await.json();
        assert_eq!(said["decision"]["allowed"], false, "{said}");
    }
    let key = answer(server.client().get("/v1/auth/explain")).await.json();
    assert_eq!((&key["kind"], &key["decision"]), (&json!("key"), &Value::Null));
    assert!(server.key().contains(key["key_id"].as_str().unwrap()));
    for query in ["action=publish", "topic=a", "action=eat&topic=a", "who=me"] {
        let refused = answer(client.get(&format!("/v1/auth/explain?{query}"))).await;
        assert_eq!(refused.status, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minted_token_opens_what_its_maker_gave_it_and_ends_with_its_key() {
    let server = Server::start().await;
    let made = json!({"name": "shop", "scopes": ["subscribe:users/**", "publish:users/**", "manage:users/**"]});
    let made = answer(server.client().post("/v1/keys").json(&made)).await.json();
    let shop = holder(&server, made["key"].as_str().unwrap());
    shop.publish("users/u-7/inbox", "text/plain", "hello").await;
    let wanted = json!({"scopes": ["subscribe:users/{sub}/**"], "ttl": "15m", "subject": "u-7"});
    let minted = answer(shop.post("/v1/tokens").json(&wanted)).await;
    assert_eq!(minted.status, 201, "{}", minted.text());
    let browser = holder(&server, minted.json()["token"].as_str().unwrap());
    let mut socket = Socket::with_key(&server, minted.json()["token"].as_str().unwrap()).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["users/u-7/inbox"], "from": "earliest"})).await;
    socket.frame("subscribed").await;
    assert_eq!(socket.records(1).await.0, ["hello"]);
    socket.frame("caught_up").await;
    assert_eq!(answer(browser.publishing("users/u-7/inbox", "text/plain", "x")).await.status, 403);
    assert_eq!(answer(browser.get("/v1/topics/users%2Fu-8%2Finbox/records")).await.status, 403);
    assert_eq!(answer(browser.post("/v1/tokens").json(&wanted)).await.status, 403);
    let wider = json!({"scopes": ["subscribe:**"], "ttl": "15m"});
    assert_eq!(answer(shop.post("/v1/tokens").json(&wider)).await.problem().code, ErrorCode::Forbidden);

    let keys = answer(server.stranger().get("/.well-known/jwks.json")).await;
    assert_eq!((keys.status, keys.header("cache-control")), (200, Some("public, max-age=300")));
    let header = minted.json()["token"].as_str().unwrap().split('.').next().unwrap().to_owned();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(keys.json()["keys"][0]["kid"], header["kid"]);

    let deleted = answer(server.client().delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await;
    assert_eq!(deleted.status, 204);
    assert_eq!(socket.closed().await, Some(4401), "what it opened ends");
    assert_eq!(answer(browser.get("/v1/auth/explain")).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_trusted_no_more_ends_what_its_tokens_opened() {
    let server = Server::start().await;
    let token = with_scopes(&server, &["publish:t", "subscribe:t", "manage:t"]).await;
    let client = holder(&server, &token);
    client.publish("t", "text/plain", "x").await;
    let mut socket = Socket::with_key(&server, &token).await;
    let mut stream = client.sse("/v1/topics/t/records?from=earliest", None).await;
    assert!(stream.record().await.is_some());
    assert_eq!(answer(server.client().delete("/v1/issuers/id")).await.status, 204);
    assert_eq!(socket.closed().await, Some(4401));
    assert!(stream.event("goaway").await.data.contains("credential_ended"));
    assert_eq!(answer(client.get("/v1/topics")).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_are_put_viewed_listed_and_deleted_and_a_secret_is_never_shown() {
    let mut server = Server::start().await;
    let client = server.client();
    let put = async |client: &Client, name: &str, body: &Value| {
        answer(client.put(&format!("/v1/issuers/{name}")).json(body)).await
    };
    let made = put(&client, "id", &issuer(ISSUER, &[])).await;
    assert_eq!((made.status, made.json()["audiences"].clone()), (201, json!(["plinth:default"])));
    assert_eq!(put(&client, "id", &issuer(ISSUER, &[])).await.status, 200);
    let foreign = put(&client, "id", &issuer(ISSUER, &["shop"])).await;
    assert_eq!(foreign.problem().code, ErrorCode::Forbidden);
    assert_eq!(put(&server.root().acting_in("default"), "id", &issuer(ISSUER, &["shop"])).await.status, 200);
    let other = server.tenant("other").await;
    let taken = put(&server.root().acting_in("other"), "id", &issuer(ISSUER, &["shop"])).await.problem();
    assert_eq!(taken.code, ErrorCode::Conflict);
    assert_eq!(put(&other, "id", &issuer(ISSUER, &[])).await.status, 201, "one issuer, two tenants, two audiences");
    let weak = json!({"issuer": ISSUER, "algorithms": ["HS256"], "secret": "short"});
    assert_eq!(put(&client, "x", &weak).await.problem().code, ErrorCode::Unprocessable);
    let unknown = json!({"issuer": ISSUER, "algorithms": ["HS256"], "jwks_uri": "https://id.example"});
    assert_eq!(put(&client, "x", &unknown).await.problem().code, ErrorCode::UnknownField);
    let list = answer(client.get("/v1/issuers")).await;
    assert_eq!(list.json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(answer(client.get("/v1/issuers/id")).await.json()["has_secret"], true);
    assert_eq!(answer(client.delete("/v1/issuers/id")).await.status, 204);
    assert_eq!(answer(client.get("/v1/issuers/id")).await.status, 404);
    assert_eq!(server.terminate().await.code(), Some(0));
    server.restart(false).await;
    assert!(!list.text().contains("CANARY7f3a of") && !server.stderr().contains("CANARY7f3a of"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_what_tokens_of_the_subject_opened_and_outlives_a_crash() {
    let mut server = Server::start().await;
    let token = with_scopes(&server, &["publish:t", "subscribe:t", "manage:t"]).await;
    let client = holder(&server, &token);
    client.publish("t", "text/plain", "x").await;
    let mut socket = Socket::with_key(&server, &token).await;
    let mut stream = client.sse("/v1/topics/t/records?from=earliest", None).await;
    assert!(stream.record().await.is_some());
    let revoke = async |body: Value| answer(server.client().post("/v1/revocations").json(&body)).await;
    let made = revoke(json!({"subject": "u-7"})).await;
    assert_eq!((made.status, made.json()["subject"].as_str()), (201, Some("u-7")));
    assert_eq!(socket.closed().await, Some(4401));
    assert!(stream.event("goaway").await.data.contains("credential_ended"));
    for bad in [
        json!({}),
        json!({"subject": "a", "token_id": "b"}),
        json!({"token_id": "b", "issued_before": "2026-01-01T00:00:00Z"}),
        json!({"subject": "a", "issued_before": "yesterday"}),
        json!({"subject": "a", "issued_before": "2999-01-01T00:00:00Z"}),
    ] {
        assert_eq!(revoke(bad.clone()).await.problem().code, ErrorCode::Unprocessable, "{bad}");
    }
    assert_eq!(revoke(json!({"key_id": "01jzzzzzzzzzzzzzzzzzzzzzzz"})).await.status, 404);
    let listed = answer(server.client().get("/v1/revocations")).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    server.kill9().await;
    server.restart(true).await;
    let refused = answer(holder(&server, &token).get("/v1/topics")).await.problem();
    assert_eq!(refused.reason.as_deref(), Some("revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_with_a_newer_token_of_the_same_subject() {
    let server = Server::start().await;
    let mint = async |scopes: &[&str], ttl: &str, subject: &str| {
        let wanted = json!({"scopes": scopes, "ttl": ttl, "subject": subject});
        answer(server.client().post("/v1/tokens").json(&wanted)).await.json()
    };
    server.client().publish("t", "text/plain", "x").await;
    let first = mint(&["subscribe:t"], "30s", "u-7").await;
    let mut socket = Socket::with_key(&server, first["token"].as_str().unwrap()).await;
    assert!(socket.frame("token_expiring").await.text.contains("in_ms"));
    for (scopes, subject) in [(&["subscribe:t"][..], "u-8"), (&["subscribe:other"], "u-7")] {
        let other = mint(scopes, "1h", subject).await;
        socket.send(json!({"type": "refresh", "id": "r", "token": other["token"]})).await;
        let refused = socket.frame("error").await;
        assert_eq!((refused.id.as_deref(), refused.problem.unwrap().code), (Some("r"), ErrorCode::Forbidden));
    }
    socket.send(json!({"type": "refresh", "id": "r", "token": "eyJ.eyJ.eyJ"})).await;
    assert_eq!(socket.frame("error").await.problem.unwrap().reason.as_deref(), Some("malformed"));
    let newer = mint(&["subscribe:t", "publish:t"], "1h", "u-7").await;
    socket.send(json!({"type": "refresh", "id": "r", "token": newer["token"]})).await;
    let refreshed: Value = serde_json::from_str(&socket.frame("refreshed").await.text).unwrap();
    assert_eq!((&refreshed["id"], &refreshed["expires_at"]), (&json!("r"), &newer["expires_at"]));
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest"})).await;
    socket.frame("subscribed").await;
    assert_eq!(socket.records(1).await.0, ["x"]);
}
