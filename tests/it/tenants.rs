//! Tenants at run time, by the public surface: a suspended one is refused on every transport, at once and where something
//! is under way; a deleted one is gone. Every route for a suspended credential is in `auth_matrix.rs`; what is left in the
//! bucket is looked for in `src/auth/purge/tests.rs`.

use plinth_api::error::ErrorCode;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, Client, LineStream, NDJSON, SSE, SseStream, answer, texts, within};
use crate::cookie::{spend, with_ticket};
use crate::harness::{ROOT_KEY, Server};
use crate::ws::Socket;

const EARLIEST: &str = "/v1/topics/t/records?from=earliest";
const ALL: [&str; 4] = ["admin", "publish:**", "subscribe:**", "manage:**"];

async fn change(server: &Server, tenant: &str, patch: Value) -> Value {
    let changed = answer(server.root().patch(&format!("/v1/tenants/{tenant}")).json(&patch)).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    changed.json()
}

async fn suspend(server: &Server, tenant: &str) {
    change(server, tenant, json!({"suspended": true})).await;
}

fn check_suspended(at: &str, answer: &Answer) {
    assert_eq!((answer.status, answer.problem().code), (403, ErrorCode::TenantSuspended), "{at}: {}", answer.text());
}

/// A new tenant with a topic of one record, its client and its key.
async fn held(server: &Server) -> (Client, String) {
    let client = server.tenant("held").await;
    let key = client.make_key(&ALL).await;
    client.publish("t", "text/plain", "0").await;
    (client, key)
}

/// A publish of which the server has read the head, and waits for the body.
async fn half_a_publish(server: &Server, key: &str) -> TcpStream {
    let address = server.url().strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/topics/t/records HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Length: 4\r\n\
         Content-Type: text/plain\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    within("a sign to go on", socket.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&go_on), "HTTP/1.1 100 Continue\r\n\r\n");
    socket
}

// Fails when a stream asks for less than its tenant when it is told that a credential has ended, when a long-poll is not told,
// or when a publish is looked at only before its body.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_when_the_tenant_is_suspended_and_others_go_on() {
    let server = Server::start().await;
    let (client, key) = held(&server).await;
    let mut events = client.sse(EARLIEST, None).await;
    let mut lines = client.ndjson(EARLIEST).await;
    let mut several = client.sse("/v1/stream?topic=**&from=earliest", None).await;
    let by_ticket = server.stranger().get(&with_ticket(&client, EARLIEST).await).header("Accept", SSE);
    let mut by_ticket = SseStream::new(by_ticket.send().await.unwrap());
    let mut socket = Socket::with_key(&server, &key).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "latest"})).await;
    socket.frame("subscribed").await;
    for stream in [&mut events, &mut several, &mut by_ticket] {
        assert_eq!(texts(&stream.records(1).await), ["0"]);
    }
    lines.records(1).await;
    let other = server.tenant("other").await;
    other.publish("t", "text/plain", "0").await;
    let mut of_other = other.sse(EARLIEST, None).await;
    let waiting = client.get("/v1/topics/t/records?from=latest&wait=60s");
    let waiting = tokio::spawn(answer(waiting));
    let mut publish = half_a_publish(&server, &key).await;

    suspend(&server, "held").await;

    for stream in [&mut events, &mut several, &mut by_ticket] {
        let last: Value = serde_json::from_str(&stream.event("goaway").await.data).unwrap();
        assert_eq!(last["reason"], "tenant_suspended");
        assert!(stream.next().await.is_none());
    }
    let last = loop {
        let control = lines.control().await;
        if control["control"] == "goaway" {
            break control;
        }
    };
    assert_eq!(last["reason"], "tenant_suspended");
    assert!(lines.next().await.is_none());
    let problem = socket.past_caught_up("error").await.problem.unwrap();
    assert_eq!(problem.code, ErrorCode::TenantSuspended);
    assert_eq!(socket.closed().await, Some(4401));
    check_suspended("a long-poll", &waiting.await.unwrap());
    publish.write_all(b"late").await.unwrap();
    let mut answer = String::new();
    within("an answer", publish.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("tenant_suspended"), "{answer}");
    assert_eq!(server.root().acting_in("held").count("t").await, 1, "nothing more was stored");
    other.publish("t", "text/plain", "1").await;
    assert_eq!(texts(&of_other.records(2).await), ["0", "1"]);
}

fn openings(server: &Server, client: &Client, ticket: &str) -> Vec<(&'static str, RequestBuilder)> {
    vec![
        ("a page", client.get(EARLIEST)),
        ("a long-poll", client.get("/v1/topics/t/records?from=latest&wait=60s")),
        ("events", client.get(EARLIEST).header("Accept", SSE)),
        ("lines", client.get(EARLIEST).header("Accept", NDJSON)),
        ("stored batches", client.get(EARLIEST).header("Accept", "application/vnd.plinth.batch")),
        ("several topics", client.get("/v1/stream?topic=t").header("Accept", SSE)),
        ("a publish", client.publishing("t", "text/plain", "x")),
        ("a ticket for later", client.post("/v1/tickets")),
        ("a ticket of before", server.stranger().get(ticket).header("Accept", SSE)),
    ]
}

// Fails when tickets, cookies or first frames are looked at in another way than keys.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_opened_by_any_credential_of_a_suspended_tenant_until_it_is_resumed() {
    let server = Server::start().await;
    let (client, key) = held(&server).await;
    let ticket = with_ticket(&client, EARLIEST).await;
    let socket_ticket = with_ticket(&client, "/v1/ws").await;
    let spent = spend(&server, &client, EARLIEST).await;
    let cookie = || {
        let request = server.stranger().get(&spent.path).header("Accept", SSE).header("Cookie", &spent.cookie);
        request.header("Sec-Fetch-Site", "same-origin")
    };
    suspend(&server, "held").await;
    for (what, request) in openings(&server, &client, &ticket) {
        check_suspended(what, &answer(request).await);
    }
    check_suspended("a cookie", &answer(cookie()).await);
    let by_header = [("authorization", format!("Bearer {key}"))];
    for (path, headers) in [("/v1/ws", &by_header[..]), (socket_ticket.as_str(), &[])] {
        let refused = Socket::open(&server, path, headers).await.err().expect("refused");
        assert_eq!(refused.problem.code, ErrorCode::TenantSuspended, "{path}");
    }
    let protocol = [("sec-websocket-protocol", "plinth.v1.json".to_owned())];
    let mut first_frame = Socket::open(&server, "/v1/ws", &protocol).await.unwrap_or_else(|_| panic!("refused"));
    first_frame.send(json!({"type": "auth", "token": key})).await;
    assert_eq!(first_frame.closed_after(ErrorCode::TenantSuspended).await, Some(4401));

    let resumed = change(&server, "held", json!({"suspended": false})).await;
    assert_eq!(resumed.get("suspended_at"), None);
    assert_eq!(texts(&client.read_all("t", 0).await), ["0"]);
    client.publish("t", "text/plain", "1").await;
    let back = cookie().send().await.unwrap();
    assert_eq!(texts(&SseStream::new(back).records(2).await), ["0", "1"]);
    Socket::with_key(&server, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_reads_and_manages_inside_a_suspended_tenant() {
    let server = Server::start().await;
    let (_, _) = held(&server).await;
    let root = server.root().acting_in("held");
    let mut open = root.sse(EARLIEST, None).await;
    suspend(&server, "held").await;
    assert_eq!(texts(&root.read_all("t", 0).await), ["0"]);
    assert_eq!(answer(root.delete("/v1/topics/t/records?before=latest")).await.status, 200);
    let key = root.make_key(&ALL).await;
    check_suspended("a new key", &answer(Client::new(server.url(), Some(&key)).get("/v1/topics")).await);
    root.publish("t", "text/plain", "by the operator").await;
    assert_eq!(texts(&open.records(2).await), ["0", "by the operator"], "its stream goes on");
}

// Fails when a suspension is known to the memory of a node alone.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_tenant_outlive_a_crash_and_a_wiped_cache() {
    let mut server = Server::start().await;
    held(&server).await;
    let set = json!({"suspended": true, "quotas": {"topics": 7}, "allowed_origins": ["https://app.example.com"]});
    let before = change(&server, "held", set).await;
    assert!(before["suspended_at"].is_u64(), "{before}");
    let key = server.root().acting_in("held").make_key(&ALL).await;
    server.kill9().await;
    server.restart(true).await;
    let client = Client::new(server.url(), Some(&key));
    check_suspended("after a restart", &answer(client.get("/v1/topics")).await);
    assert_eq!(answer(server.root().get("/v1/tenants/held")).await.json(), before);
    let again = change(&server, "held", json!({"suspended": true})).await;
    assert_eq!(again, before, "it is suspended since the first time");
    let resumed = change(&server, "held", json!({"suspended": false})).await;
    assert_eq!((&resumed["quotas"], &resumed["allowed_origins"]), (&before["quotas"], &before["allowed_origins"]));
    assert_eq!(answer(client.get("/v1/topics")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_is_gone_for_all_that_it_had_and_its_name_begins_anew() {
    let server = Server::start().await;
    let (client, key) = held(&server).await;
    let ticket = with_ticket(&client, EARLIEST).await;
    let mut events = client.sse(EARLIEST, None).await;
    let mut lines = LineStream::new(client.get(EARLIEST).header("Accept", NDJSON).send().await.unwrap());
    let mut socket = Socket::with_key(&server, &key).await;
    let waiting = tokio::spawn(answer(client.get("/v1/topics/t/records?from=latest&wait=60s")));
    let deleted = answer(server.root().delete("/v1/tenants/held")).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    while let Some(event) = events.next().await {
        assert!(["record", "caught_up", "goaway", "end"].contains(&event.event.as_str()), "{event:?}");
    }
    while lines.next().await.is_some() {}
    assert_eq!(socket.closed().await, Some(4401));
    let waited = waiting.await.unwrap();
    assert!([401, 404].contains(&waited.status), "{}", waited.text());
    for request in [client.get("/v1/topics"), server.stranger().get(&ticket).header("Accept", SSE)] {
        assert_eq!(answer(request).await.status, 401);
    }
    for request in [server.root().get("/v1/tenants/held"), server.root().acting_in("held").get("/v1/topics")] {
        assert_eq!(answer(request).await.status, 404);
    }
    let again = server.tenant("held").await;
    let listed = answer(again.get("/v1/topics")).await.json();
    let names: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with('_')), "only what the server keeps of it: {names:?}");
    assert_eq!(answer(client.get("/v1/topics")).await.status, 401, "an old key is not good for the new tenant");
}

// Fails when no task of the node frees the bucket: nothing else compacts so little.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_makes_the_node_rewrite_what_the_tenant_shared() {
    let server = Server::start().await;
    held(&server).await;
    let client = server.client();
    client.publish("kept", "text/plain", "x").await;
    let segments = server.store_dir().join("segment");
    let count = || std::fs::read_dir(&segments).map_or(0, Iterator::count);
    assert_eq!(count(), 0);
    assert_eq!(answer(server.root().delete("/v1/tenants/held")).await.status, 204);
    for _ in 0..300 {
        if count() > 0 {
            assert_eq!(texts(&client.read_all("kept", 0).await), ["x"]);
            return;
        }
        // A long-poll that gets nothing passes the time.
        client.page("kept", "from=latest&wait=100ms").await;
    }
    panic!("nothing was rewritten: {}", server.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_root_key_changes_tenants() {
    let server = Server::start().await;
    let (client, _) = held(&server).await;
    let patch = json!({"suspended": true});
    let own = answer(client.patch("/v1/tenants/held").json(&patch)).await;
    let foreign = answer(server.client().patch("/v1/tenants/held").json(&patch)).await;
    assert_eq!((own.status, foreign.status), (403, 403));
    let inside = Client::new(server.url(), Some(ROOT_KEY)).acting_in("held");
    assert_eq!(answer(inside.patch("/v1/tenants/held").json(&patch)).await.status, 200);
    let missing = answer(server.root().patch("/v1/tenants/nobody").json(&patch)).await;
    assert_eq!(missing.status, 404, "{}", missing.text());
}
