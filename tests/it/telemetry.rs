//! What an operator sees of a node: its log lines and its metrics. Neither may say what belongs to a tenant.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use futures::stream;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::client::{Answer, BATCH, Client, NDJSON, SSE, SseStream, answer, within};
use crate::cookie::{spend, with_ticket};
use crate::harness::{Options, ROOT_KEY, Server, refused};
use crate::ws::Socket;

/// Part of everything that a client of these tests sends and that is nobody's but its tenant's.
const CANARY: &str = "CANARY7f3a";

/// A server that writes every line that it has, as JSON.
async fn talkative() -> Server {
    let env = [("PLINTH_LOG", "trace"), ("PLINTH_LOG_FORMAT", "json")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Server::start_with(Options { env, ..Options::default() }).await
}

/// Ends the server and gives its log lines.
async fn lines(mut server: Server) -> (String, Vec<Value>) {
    server.signal("TERM").await;
    let (status, log) = server.exited().await;
    assert!(status.success(), "{status}");
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let lines = lines.collect();
    (log, lines)
}

/// Fails when the cap on the lines of libraries is gone (tungstenite writes each message), and when a refusal is logged
/// with its detail.
#[tokio::test(flavor = "multi_thread")]
async fn no_credential_and_nothing_of_a_record_is_in_any_log_line() {
    let server = talkative().await;
    let mut secrets = vec![ROOT_KEY.to_owned(), secret_of(server.key())];
    records_in_every_form(&server).await;
    bad_input(&server).await;
    secrets.extend(credentials(&server).await);
    secrets.extend(frames(&server).await);
    let (log, lines) = lines(server).await;
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "it was talkative");
    for secret in secrets.iter().map(String::as_str).chain([CANARY]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in {line:?}");
    }
}

/// The part of an API key that nobody may see.
fn secret_of(key: &str) -> String {
    key.rsplit('_').next().unwrap().to_owned()
}

async fn records_in_every_form(server: &Server) {
    let client = server.client();
    let publish = client.publishing("t", "text/plain", format!("payload-{CANARY}"));
    let publish = publish.header("Record-Key", format!("key-{CANARY}")).header("Record-Header-Colour", CANARY);
    assert_eq!(answer(publish.header("Idempotency-Key", format!("idem-{CANARY}"))).await.status, 201);
    client.publish("t", NDJSON, format!("\"{CANARY}\"\n{{\"a\":\"{CANARY}\"}}\n")).await;
    client.publish_texts("t", &[CANARY]).await;
    for accept in ["application/json", "application/vnd.plinth.batch"] {
        let page = answer(client.get("/v1/topics/t/records?from=earliest").header("Accept", accept)).await;
        assert_eq!(page.status, 200);
    }
    let mut lines = client.ndjson("/v1/topics/t/records?from=earliest").await;
    lines.next().await.expect("a line");
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = format!("{}/v1/topics/t/records", server.url());
    let published = answer(http2.post(url).bearer_auth(server.key()).body(format!("payload-{CANARY}"))).await;
    assert_eq!(published.status, 201);
}

/// Requests that are refused, each with the canary where the refusal may be tempted to repeat it.
async fn bad_input(server: &Server) {
    let client = server.client();
    let refusals = [
        client.publishing("t", NDJSON, format!("{{\"broken\": \"{CANARY}\n")),
        client.publishing("t", BATCH, format!("{{\"records\": \"{CANARY}\"}}")),
        client.publishing("t", BATCH, json!({"records": [{CANARY: 1}]}).to_string()),
        client.publishing("t", BATCH, json!({"records": [{"text": "x", "ttl": CANARY}]}).to_string()),
        client.publishing("t", BATCH, json!({"records": [{"base64": CANARY}]}).to_string()),
        client.publishing("t", "text/plain", "x").header("Durability", CANARY),
        client.publishing("t", "text/plain", "x").header("Record-TTL", CANARY),
        client.publishing("t", "text/plain", "x").header("Record-Delay", CANARY),
        client.get(&format!("/v1/topics/t/records?from={CANARY}")),
        client.get(&format!("/v1/topics/t/records?from=cursor:{CANARY}")),
        client.get(&format!("/v1/topics/t/records?{CANARY}=1")),
        client.put("/v1/topics/u").json(&json!({"partitions": CANARY})),
        client.get(&format!("/{CANARY}")),
        client.get(&format!("/v1/topics/{CANARY}")),
        server.root().acting_in(CANARY).get("/v1/topics"),
    ];
    for request in refusals {
        let refused = answer(request).await;
        assert!((400..500).contains(&refused.status), "{}", refused.text());
    }
}

/// Every way to show a credential, with a right one and a wrong one; gives the secrets.
async fn credentials(server: &Server) -> Vec<String> {
    let (client, stranger) = (server.client(), server.stranger());
    let key = client.make_key(&["subscribe:**"]).await;
    let mistyped = format!("{}x", key);
    let token = format!("{}.{}.{CANARY}", encoded(r#"{"alg":"HS256"}"#), encoded(&format!(r#"{{"sub":"{CANARY}"}}"#)));
    for wrong in [mistyped.as_str(), &token, &format!("plk_{CANARY}"), CANARY] {
        assert_eq!(answer(Client::new(server.url(), Some(wrong)).get("/v1/topics")).await.status, 401);
    }
    let basic = stranger.get("/v1/topics").header("Authorization", format!("Basic {CANARY}"));
    assert_eq!(answer(basic).await.status, 401);
    let ticketed = with_ticket(&client, "/v1/topics/t/records?from=earliest").await;
    let opened = within("an answer", stranger.get(&ticketed).header("Accept", SSE).send()).await.unwrap();
    SseStream::new(opened).record().await.expect("a record");
    assert_eq!(answer(stranger.get(&ticketed).header("Accept", SSE)).await.status, 401);
    let spent = spend(server, &client, "/v1/topics/t/records?from=earliest").await;
    let back = stranger.get(&spent.path).header("Accept", SSE).header("Sec-Fetch-Site", "same-origin");
    let back = within("an answer", back.header("Cookie", &spent.cookie).send()).await.unwrap();
    assert_eq!(back.status(), 200);
    let ticket = |path: &str| path.split_once("ticket=").unwrap().1.to_owned();
    let cookie = spent.cookie.split_once('=').unwrap().1.to_owned();
    vec![secret_of(&key), token, ticket(&ticketed), ticket(&spent.path), cookie]
}

/// WebSockets with the credential in each place, records in both directions, and frames that are refused.
async fn frames(server: &Server) -> Vec<String> {
    let key = server.client().make_key(&["publish:**", "subscribe:**"]).await;
    let offered = format!("plinth.v1.json, bearer.{}", encoded(&key));
    let by_protocol = Socket::open(server, "/v1/ws", &[("sec-websocket-protocol", offered)]).await;
    by_protocol.unwrap_or_else(|refused| panic!("{:?}", refused.problem)).frame("welcome").await;
    let wrong = format!("plinth.v1.json, bearer.{}", encoded(CANARY));
    assert!(Socket::open(server, "/v1/ws", &[("sec-websocket-protocol", wrong)]).await.is_err());
    let open = async || {
        let opened = Socket::open(server, "/v1/ws", &[]).await;
        opened.unwrap_or_else(|refused| panic!("{:?}", refused.problem))
    };
    let mut refused = open().await;
    refused.send(json!({"type": "auth", "token": CANARY})).await;
    refused.frame("error").await;
    let mut socket = open().await;
    socket.send(json!({"type": "auth", "token": key})).await;
    socket.frame("welcome").await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest"})).await;
    socket.past_caught_up("subscribed").await;
    let record = json!({"text": CANARY, "key": CANARY, "headers": {"a": CANARY}});
    socket.send(json!({"type": "publish", "id": "p", "topic": "t", "records": [record]})).await;
    socket.past_records("published").await;
    for bad in [json!({"type": CANARY}), json!({"type": "publish", "id": "q", "topic": "t", "records": CANARY})] {
        socket.send(bad).await;
        socket.past_records("error").await;
    }
    vec![secret_of(&key), encoded(&key)]
}

fn encoded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_request_names_the_request_its_route_and_its_status() {
    let server = talkative().await;
    let client = server.client();
    let named = |request: RequestBuilder, id: &'static str| answer(request.header("X-Request-Id", id));
    let sent: [(&str, &str, Answer); 4] = [
        ("id-1", "/v1/topics/{topic}/records", named(client.publishing("t", "text/plain", "x"), "id-1").await),
        ("id-2", "/v1/topics/{topic}/records", named(client.publishing("a%2Fb", "text/plain", "x"), "id-2").await),
        ("id-3", "/v1/topics/{topic}", named(client.get("/v1/topics/none"), "id-3").await),
        ("id-4", "other", named(client.get("/nothing"), "id-4").await),
    ];
    let unnamed = answer(client.get("/v1/topics")).await;
    let (_, lines) = lines(server).await;
    for (id, route, answer) in &sent {
        let of_request = lines.iter().filter(|line| request_id(line) == Some(id)).collect::<Vec<_>>();
        let access = of_request.iter().find(|line| line["target"] == "plinth::access").expect("a line of access");
        assert_eq!(access["fields"]["route"], *route);
        assert_eq!(access["fields"]["status"], answer.status);
    }
    assert!(lines.iter().any(|line| request_id(line) == unnamed.header("x-request-id")));
    let of_requests = ["plinth::http", "plinth::ws", "plinth::access"];
    let is_of_request = |line: &&Value| of_requests.iter().any(|of| line["target"].as_str().unwrap().starts_with(of));
    for line in lines.iter().filter(is_of_request) {
        assert!(request_id(line).is_some(), "{line}");
    }
}

fn request_id(line: &Value) -> Option<&str> {
    line["fields"]["request_id"].as_str().or_else(|| line["span"]["request_id"].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_no_line_of_its_own_unless_that_is_asked_for() {
    for (filter, expected) in [("info", 0), ("info,plinth::access=debug", 3)] {
        let env = vec![("PLINTH_LOG".to_owned(), filter.to_owned())];
        let mut server = Server::start_with(Options { env, ..Options::default() }).await;
        for _ in 0..2 {
            server.client().publish("t", "text/plain", "x").await;
        }
        server.signal("TERM").await;
        let (_, log) = server.exited().await;
        // The third is the key of this test.
        assert_eq!(log.matches("plinth::access").count(), expected, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_write_a_secret_to_the_log_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (name, value, store) in [
        ("PLINTH_LOG", "info,tungstenite=trace", None),
        ("PLINTH_LOG", "hyper", None),
        ("AWS_ENDPOINT", "http://user:CANARY7f3a@127.0.0.1:1", Some("s3://bucket/prefix")),
    ] {
        let env = vec![(name.to_owned(), value.to_owned()), ("AWS_ALLOW_HTTP".to_owned(), "true".to_owned())];
        let refusal =
            refused(dir.path(), &Options { env, store: store.map(str::to_owned), ..Options::default() }).await;
        assert_eq!(refusal.code, Some(2), "{value}: {}", refusal.stderr);
        assert!(!refusal.stderr.contains(CANARY), "{}", refusal.stderr);
    }
}

/// The series of the metrics: names and labels, without their values.
async fn series(client: &Client) -> BTreeSet<String> {
    let text = answer(client.get("/metrics")).await.text();
    assert!(text.ends_with("# EOF\n"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// One of everything that may be tempted to have a series of its own.
async fn all_of_one(server: &Server, number: usize) {
    let name = format!("n{number}");
    let tenant = server.tenant(&name).await;
    tenant.publish(&name, "text/plain", "x").await;
    assert_eq!(tenant.page(&name, "from=earliest").await.records.len(), 1);
    for (status, request) in [
        (404, tenant.get(&format!("/v1/topics/none-{name}"))),
        (404, tenant.get(&format!("/none-{name}"))),
        (401, Client::new(server.url(), Some(&name)).get("/v1/topics")),
        (400, tenant.get(&format!("/v1/topics?{name}=1"))),
    ] {
        assert_eq!(answer(request).await.status, status);
    }
}

/// Fails when any metric has the name of a tenant, topic, path or credential as a label.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tenants_and_topics_leave_the_metrics_as_long_as_one_did() {
    let server = Server::start().await;
    all_of_one(&server, 0).await;
    let before = series(&server.root()).await;
    stream::iter(1..=1_000).for_each_concurrent(64, |number| all_of_one(&server, number)).await;
    let after = series(&server.root()).await;
    let added = after.difference(&before).filter(|series| !is_of_the_core(series)).collect::<Vec<_>>();
    assert!(added.is_empty(), "{added:?}");
}

/// What the log does meanwhile by itself: segments, checkpoints, sweeps.
fn is_of_the_core(series: &str) -> bool {
    series.starts_with("plinth_object_store_")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_what_an_operator_asks_first() {
    let server = Server::start().await;
    server.client().publish("t", "text/plain", "x").await;
    assert_eq!(answer(server.stranger().get("/v1/topics")).await.status, 401);
    let mut socket =
        Socket::open(&server, "/v1/ws", &[]).await.unwrap_or_else(|refused| panic!("{:?}", refused.problem));
    socket.send(json!({"type": "auth", "token": "none"})).await;
    socket.frame("error").await;
    let hog = server.tenant("hog").await;
    let quotas = json!({"quotas": {"publish_records_per_second": 1}});
    assert_eq!(answer(server.root().patch("/v1/tenants/hog").json(&quotas)).await.status, 200);
    assert_eq!(answer(hog.publishing("t", NDJSON, "1\n".repeat(1_000))).await.status, 201);
    assert_eq!(answer(hog.publishing("t", NDJSON, "1\n")).await.status, 429);
    let text = answer(server.root().get("/metrics")).await.text();
    for expected in [
        concat!("plinth_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"),
        "plinth_errors_total{transport=\"http\",code=\"unauthenticated\"} 1\n",
        "plinth_errors_total{transport=\"websocket\",code=\"unauthenticated\"} 1\n",
        "plinth_authentication_failures_total{reason=\"credential\"} 1\n",
        "plinth_authentication_failures_total{reason=\"malformed\"} 1\n",
        "plinth_quotas_exceeded_total{policy=\"publish_records_per_second\"} 1\n",
        "plinth_websockets_closed_total{code=\"4401\"} 1\n",
        "plinth_webhook_calls_total{outcome=\"timed_out\"} 0\n",
        "plinth_webhook_retries_total 0\n",
        "plinth_webhook_duration_seconds_count 0\n",
        "plinth_wakes_open 0\n",
        "plinth_flush_duration_seconds_count ",
        "plinth_object_store_duration_seconds_count{operation=\"put\"} ",
        "process_open_fds ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}
