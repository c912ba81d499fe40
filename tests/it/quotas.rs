//! Quotas, over every transport: what is over one is refused and told which, or waits, and no other tenant notices.
//!
//! No test measures time. What is owed is owed for longer than a test may last, and the quota is raised to go on.

use plinth_api::error::{ErrorCode, PublishOutcome};
use serde_json::{Value, json};

use crate::client::{Answer, Client, NDJSON, SSE, SseStream, answer};
use crate::harness::{Options, Server};
use crate::ws::Socket;

const RECORDS: &str = "/v1/topics/t/records";
/// Records that are owed for a quarter of an hour where one per second is allowed.
const MANY: usize = 1000;

/// Sets the quotas of a tenant.
async fn set(server: &Server, tenant: &str, quotas: Value) {
    let changed = answer(server.root().patch(&format!("/v1/tenants/{tenant}")).json(&json!({"quotas": quotas}))).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
}

async fn publish(client: &Client, count: usize) -> Answer {
    answer(client.publishing("t", NDJSON, "1\n".repeat(count))).await
}

/// Checks that an answer is the refusal by this quota.
fn check_refused(refused: &Answer, quota: &str) {
    let problem = refused.problem();
    assert_eq!((refused.status, problem.code), (429, ErrorCode::QuotaExceeded), "{problem:?}");
    assert_eq!(problem.violated_policies.as_deref(), Some(&[quota.to_owned()][..]));
    let named = quota.strip_prefix("key.").unwrap_or(quota);
    assert!(problem.detail.contains(named) && problem.detail.contains("the limit is"), "{problem:?}");
    let seconds: u64 = refused.header("retry-after").expect("it says when to come back").parse().unwrap();
    assert_eq!(seconds, problem.retry_after_ms.expect("here too").div_ceil(1000));
    assert!(refused.header("ratelimit-policy").expect("what is limited").contains(&format!("\"{quota}\";q=")));
}

/// One quota in the report: limit, used, total.
async fn shown(client: &Client, quota: &str) -> (Option<u64>, Option<u64>, Option<u64>) {
    let report = answer(client.get("/v1/quotas")).await;
    assert_eq!(report.status, 200, "{}", report.text());
    let report = report.json();
    let one = report["quotas"].as_array().unwrap().iter().find(|one| one["quota"] == quota).unwrap();
    (one["limit"].as_u64(), one["used"].as_u64(), one["total"].as_u64())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_over_its_quota_is_refused_until_the_quota_is_raised_and_others_are_not() {
    let server = Server::start().await;
    let (hog, other) = (server.tenant("hog").await, server.client());
    for client in [&hog, &other] {
        client.make_topic("t", 1).await;
    }
    for (quota, taken) in [("publish_records_per_second", MANY), ("publish_bytes_per_second", MANY)] {
        set(&server, "hog", json!({quota: 1})).await;
        assert_eq!(publish(&hog, taken).await.status, 201, "what is larger than a second's worth goes through once");
        let refused = publish(&hog, 1).await;
        check_refused(&refused, quota);
        assert_eq!(refused.problem().outcome, Some(PublishOutcome::NotStored));
        assert!(refused.header("ratelimit").unwrap().starts_with(&format!("\"{quota}\";r=0;t=")));
        assert_eq!(publish(&other, 1).await.status, 201);
        set(&server, "hog", json!({})).await;
        let free = publish(&hog, 1).await;
        assert_eq!((free.status, free.header("ratelimit"), free.header("ratelimit-policy")), (201, None, None));
    }
    assert_eq!(hog.count("t").await, 2 * (MANY as u64 + 1));
    assert_eq!(shown(&hog, "publish_records_per_second").await, (None, None, Some(2 * (MANY as u64 + 1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_what_is_left_and_requests_over_their_quota_are_refused_on_every_route() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    set(&server, "hog", json!({"requests_per_second": 9_000_000_000_000_u64, "connections": 500})).await;
    let answered = answer(client.get("/v1/topics")).await;
    let policy = r#""requests_per_second";q=9000000000000;w=1, "connections";q=500;qu="connections""#;
    assert_eq!(answered.header("ratelimit-policy"), Some(policy));
    assert!(answered.header("ratelimit").unwrap().ends_with(r#""connections";r=499"#), "{:?}", answered.headers);
    // Two within a second are one too many; of many, some are.
    set(&server, "hog", json!({"requests_per_second": 1})).await;
    for path in ["/v1/topics", "/v1/quotas", RECORDS, "/v1/keys", "/v1/topics/t"] {
        let mut refused = answer(client.get(path)).await;
        while refused.status != 429 {
            refused = answer(client.get(path)).await;
        }
        check_refused(&refused, "requests_per_second");
    }
    assert_eq!(answer(server.client().get("/v1/topics")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_publish_over_its_quota_gets_an_error_frame_and_the_connection_stays() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    let key = client.make_key(&["publish:**"]).await;
    let mut socket = Socket::with_key(&server, &key).await;
    set(&server, "hog", json!({"publish_records_per_second": 1})).await;
    let publish = |id: &str, count: usize| json!({"type": "publish", "id": id, "topic": "t", "records": vec![json!({"text": "x"}); count]});
    socket.send(publish("a", MANY)).await;
    socket.frame("published").await;
    socket.send(publish("b", 1)).await;
    let problem = socket.error(Some("b")).await;
    assert_eq!((problem.code, problem.outcome), (ErrorCode::QuotaExceeded, Some(PublishOutcome::NotStored)));
    assert_eq!(problem.violated_policies.as_deref(), Some(&["publish_records_per_second".to_owned()][..]));
    assert!(problem.retry_after_ms.is_some());
    set(&server, "hog", json!({})).await;
    socket.send(publish("c", 1)).await;
    socket.frame("published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_the_number_of_connections_is_told_and_closed_4429() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    let key = client.make_key(&["subscribe:**"]).await;
    set(&server, "hog", json!({"connections": 1})).await;
    // The client above keeps one open.
    assert_eq!(answer(client.get("/v1/topics")).await.status, 200);
    for headers in [vec![("authorization", format!("Bearer {key}"))], vec![]] {
        let in_band = headers.is_empty();
        let opened = Socket::open(&server, "/v1/ws", &headers).await;
        let mut socket = opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
        if in_band {
            socket.send(json!({"type": "auth", "token": key})).await;
        }
        assert_eq!(socket.closed_after(ErrorCode::QuotaExceeded).await, Some(4429));
    }
    let second = Client::new(server.url(), Some(&key));
    let refused = answer(second.get("/v1/quotas")).await;
    check_refused(&refused, "connections");
    assert_eq!(refused.header("connection"), Some("close"));
    set(&server, "hog", json!({"connections": 2})).await;
    assert_eq!(shown(&second, "connections").await, (Some(2), Some(2), None));
}

// Fails when the count hangs on a request and not on the socket: the upgrade takes the socket out of its request.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_counts_for_its_first_tenant_as_long_as_its_socket_is_open() {
    let server = Server::start().await;
    let client = server.client();
    let socket = Socket::with_key(&server, server.key()).await;
    assert_eq!(shown(&client, "connections").await.1, Some(2));
    drop((socket, client));
    // The server hears of the end by itself, while it answers others. Each with a connection of its own: a client that keeps its connections
    // may at any time have made a second one.
    for _ in 0..1000 {
        if shown(&server.client(), "connections").await.1 == Some(1) {
            return;
        }
    }
    panic!("a connection that has ended is still counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_too_many_is_sent_away_so_that_a_browser_comes_back() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    set(&server, "hog", json!({"followers": 1})).await;
    let first = client.ndjson(RECORDS).await;
    assert_eq!(shown(&client, "followers").await, (Some(1), Some(1), None));
    for path in [RECORDS, "/v1/stream?topic=t"] {
        let refused = answer(client.get(path).header("Accept", NDJSON)).await;
        check_refused(&refused, "followers");
        sent_away(&client, path).await;
    }
    let mut socket = Socket::with_key(&server, &client.make_key(&["subscribe:**"]).await).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"]})).await;
    assert_eq!(socket.error(Some("s")).await.code, ErrorCode::QuotaExceeded);
    set(&server, "hog", json!({"followers": 2})).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"]})).await;
    socket.frame("subscribed").await;
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_over_the_number_of_requests_is_sent_away_before_anything_is_known_of_it() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    let other = Client::new(server.url(), Some(&client.make_key(&["subscribe:**"]).await));
    // The client above keeps one open.
    set(&server, "hog", json!({"connections": 1})).await;
    sent_away(&other, RECORDS).await;
}

/// Checks that an event stream is answered 200, told when to come back, and over; with its connection.
async fn sent_away(client: &Client, path: &str) {
    let response = client.get(path).header("Accept", SSE).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["connection"], "close");
    let mut stream = SseStream::new(response);
    let goaway: Value = serde_json::from_str(&stream.event("goaway").await.data).unwrap();
    assert_eq!(goaway["reason"], "quota_exceeded");
    assert!(goaway["reconnect_in_ms"].as_u64().is_some_and(|ms| ms > 0));
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_refused_until_the_one_before_is_paid_for() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    publish(&client, MANY).await;
    for quota in ["delivered_records_per_second", "delivered_bytes_per_second"] {
        set(&server, "hog", json!({quota: 1})).await;
        assert_eq!(client.page("t", "from=earliest").await.records.len(), MANY);
        check_refused(&answer(client.get(RECORDS)).await, quota);
        set(&server, "hog", json!({})).await;
    }
    assert_eq!(client.page("t", "from=earliest").await.records.len(), MANY);
}

// Fails when `Pace::wait` is left out of `Follower::next`: the last record comes at once, and is counted before it is due.
#[tokio::test(flavor = "multi_thread")]
async fn followers_of_every_transport_wait_for_their_quota_and_go_on_when_it_is_raised() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    let key = client.make_key(&["subscribe:**"]).await;
    for transport in ["sse", "ndjson", "websocket"] {
        let (_, _, before) = shown(&client, "delivered_records_per_second").await;
        set(&server, "hog", json!({"delivered_records_per_second": 1})).await;
        let (mut events, mut lines, mut socket) = (None, None, None);
        match transport {
            "sse" => events = Some(client.sse(RECORDS, None).await),
            "ndjson" => lines = Some(client.ndjson(RECORDS).await),
            _ => {
                let mut opened = Socket::with_key(&server, &key).await;
                opened.send(json!({"type": "subscribe", "id": "s", "topics": ["t"]})).await;
                opened.frame("subscribed").await;
                socket = Some(opened);
            }
        }
        assert_eq!(publish(&client, MANY).await.status, 201);
        // The batch goes out, and its last record with it.
        let mut seen = 0;
        let count = |more: usize| MANY + more;
        seen += take(&mut events, &mut lines, &mut socket, MANY).await;
        assert_eq!(publish(&client, 1).await.status, 201);
        for _ in 0..20 {
            let (_, _, total) = shown(&client, "delivered_records_per_second").await;
            assert_eq!(total.unwrap() - before.unwrap(), MANY as u64, "{transport}: nothing more until it is paid for");
        }
        set(&server, "hog", json!({})).await;
        seen += take(&mut events, &mut lines, &mut socket, 1).await;
        assert_eq!(seen, count(1), "{transport}");
    }
}

/// Sets the quotas of a key of the tenant `hog`.
async fn set_of_key(client: &Client, id: &str, quotas: Value) {
    let changed = answer(client.patch(&format!("/v1/keys/{id}")).json(&json!({"quotas": quotas}))).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
}

/// What was delivered to the key `of` since it has had quotas, as it is told to who comes by it.
async fn delivered_to_key(of: &Client) -> u64 {
    let report = answer(of.get("/v1/quotas")).await.json();
    let rows = report["key_quotas"].as_array().expect("it has quotas").clone();
    let row = rows.into_iter().find(|row| row["quota"] == "delivered_records_per_second").unwrap();
    row["total"].as_u64().unwrap()
}

// Fails when a caller keeps the meter that its key had when it came, which is none here.
#[tokio::test(flavor = "multi_thread")]
async fn quotas_that_come_to_a_key_act_on_what_it_has_open() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    let wanted = json!({"name": "", "scopes": ["publish:**", "subscribe:**"]});
    let made = answer(client.post("/v1/keys").json(&wanted)).await.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let limited = Client::new(server.url(), Some(key));
    assert_eq!(answer(limited.get("/v1/quotas")).await.json()["key_quotas"], Value::Null);
    let mut socket = Socket::with_key(&server, key).await;
    let mut events = Client::new(server.url(), Some(key)).sse(RECORDS, None).await;
    let publish_frame = |id: &str, count: usize| json!({"type": "publish", "id": id, "topic": "t", "records": vec![json!({"text": "x"}); count]});

    set_of_key(&client, id, json!({"publish_records_per_second": 1, "connections": 3})).await;
    socket.send(publish_frame("a", MANY)).await;
    socket.frame("published").await;
    socket.send(publish_frame("b", 1)).await;
    let refused = socket.error(Some("b")).await;
    assert_eq!(refused.violated_policies.as_deref(), Some(&["key.publish_records_per_second".to_owned()][..]));
    // What was open before counts.
    check_refused(&answer(Client::new(server.url(), Some(key)).get("/v1/quotas")).await, "key.connections");
    assert_eq!(events.records(MANY).await.len(), MANY);

    set_of_key(&client, id, json!({"delivered_records_per_second": 1})).await;
    let before = delivered_to_key(&limited).await;
    publish(&client, MANY).await;
    assert_eq!(events.records(MANY).await.len(), MANY);
    publish(&client, 1).await;
    for _ in 0..20 {
        assert_eq!(delivered_to_key(&limited).await - before, MANY as u64, "nothing more until it is paid for");
    }
    set_of_key(&client, id, json!({})).await;
    assert_eq!(events.records(1).await.len(), 1);
    socket.send(publish_frame("c", 1)).await;
    socket.frame("published").await;
}

// Fails when a stream or connection keeps the quotas that its tenant had when it was opened.
#[tokio::test(flavor = "multi_thread")]
async fn quotas_that_come_to_a_tenant_act_on_what_it_has_open() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    let mut socket = Socket::with_key(&server, &client.make_key(&["subscribe:**"]).await).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"]})).await;
    socket.frame("subscribed").await;
    let mut events = client.sse(RECORDS, None).await;
    set(&server, "hog", json!({"delivered_records_per_second": 1, "followers": 2})).await;
    check_refused(&answer(client.get(RECORDS).header("Accept", NDJSON)).await, "followers");
    publish(&client, MANY).await;
    assert_eq!((events.records(MANY).await.len(), socket.records(MANY).await.0.len()), (MANY, MANY));
    publish(&client, 1).await;
    for _ in 0..20 {
        assert_eq!(shown(&client, "delivered_records_per_second").await.2, Some(2 * MANY as u64));
    }
    set(&server, "hog", json!({})).await;
    assert_eq!((events.records(1).await.len(), socket.records(1).await.0.len()), (1, 1));
}

// Fails when the text of what is limited outlives the quotas that it tells of.
#[tokio::test(flavor = "multi_thread")]
async fn what_answers_tell_of_quotas_follows_their_changes() {
    let server = Server::start().await;
    let admin = server.tenant("hog").await;
    let made = answer(admin.post("/v1/keys").json(&json!({"name": "", "scopes": ["subscribe:**"]}))).await.json();
    let id = made["id"].as_str().unwrap();
    let client = Client::new(server.url(), made["key"].as_str());
    let told = async || answer(client.get("/v1/topics")).await.header("ratelimit-policy").map(str::to_owned);
    assert_eq!(told().await, None);
    set_of_key(&admin, id, json!({"connections": 7})).await;
    assert_eq!(told().await.as_deref(), Some(r#""key.connections";q=7;qu="connections""#));
    set(&server, "hog", json!({"requests_per_second": 1_000_000})).await;
    let both = r#""requests_per_second";q=1000000;w=1, "key.connections";q=7;qu="connections""#;
    assert_eq!(told().await.as_deref(), Some(both));
    set(&server, "hog", json!({"requests_per_second": 2_000_000})).await;
    set_of_key(&admin, id, json!({"connections": 8})).await;
    let both = r#""requests_per_second";q=2000000;w=1, "key.connections";q=8;qu="connections""#;
    assert_eq!(told().await.as_deref(), Some(both));
    set_of_key(&admin, id, json!({})).await;
    assert_eq!(told().await.as_deref(), Some(r#""requests_per_second";q=2000000;w=1"#));
    set(&server, "hog", json!({})).await;
    assert_eq!(told().await, None);
}

// Fails when a follower begins with nothing to wait for: each one that comes again gets its first batch for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_and_comes_again_still_owes() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    publish(&client, MANY).await;
    set(&server, "hog", json!({"delivered_records_per_second": 1})).await;
    let path = format!("{RECORDS}?from=earliest");
    assert_eq!(client.sse(&path, None).await.records(MANY).await.len(), MANY);
    let mut again = client.sse(&path, None).await;
    let mut lines = client.ndjson(&path).await;
    for _ in 0..20 {
        assert_eq!(shown(&client, "delivered_records_per_second").await.2, Some(MANY as u64));
    }
    set(&server, "hog", json!({})).await;
    assert_eq!(again.records(MANY).await.len() + lines.records(MANY).await.len(), 2 * MANY);
}

// Fails when a body of unknown length takes room for the largest there may be: seven of them fill what one tenant may have.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_unknown_length_take_room_only_for_what_has_come() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    let mut open = Vec::new();
    for _ in 0..30 {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
        let body = reqwest::Body::wrap_stream(tokio_stream(receiver));
        let client = client.clone();
        let answered = tokio::task::JoinSet::from_iter([async move {
            answer(client.publishing("t", "text/plain", body)).await.status
        }]);
        sender.send(Ok(b"x".to_vec())).await.unwrap();
        open.push((sender, answered));
    }
    for (sender, mut answered) in open {
        drop(sender);
        assert_eq!(answered.join_next().await.unwrap().unwrap(), 201);
    }
}

// Fails when pages take room from publishes (`Broker::room_of_page` of the same capacity).
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_take_nothing_are_refused_in_the_end_and_publishes_of_their_tenant_are_not() {
    const READERS_MAX: usize = 64;
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    for _ in 0..8 {
        assert_eq!(answer(client.publishing("t", "text/plain", "x".repeat(1_000_000))).await.status, 201);
    }
    let mut readers = Vec::new();
    let mut refused = false;
    while !refused {
        assert!(readers.len() < READERS_MAX, "so many pages of 8 MB are held for those who do not take them");
        let reader = client.get(&format!("{RECORDS}?from=earliest")).send().await.expect("an answer");
        refused = reader.status() == 503;
        assert!(refused || reader.status() == 200, "{}", reader.status());
        readers.push(reader);
    }
    // As much as they are refused from is free for publishes.
    for _ in 0..8 {
        assert_eq!(answer(client.publishing("t", "text/plain", "y".repeat(1_000_000))).await.status, 201);
    }
    drop(readers);
}

fn tokio_stream<T: Send + 'static>(
    receiver: tokio::sync::mpsc::Receiver<T>,
) -> impl futures::Stream<Item = T> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

type Lines = crate::client::LineStream;

async fn take(
    events: &mut Option<SseStream>,
    lines: &mut Option<Lines>,
    socket: &mut Option<Socket>,
    count: usize,
) -> usize {
    match (events, lines, socket) {
        (Some(events), _, _) => events.records(count).await.len(),
        (_, Some(lines), _) => lines.records(count).await.len(),
        (_, _, Some(socket)) => socket.records(count).await.0.len(),
        (None, None, None) => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_too_many_is_refused_however_it_would_be_made_until_another_one_is_deleted() {
    let mut server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("a", 1).await;
    client.make_topic("b", 3).await;
    server.terminate().await;
    server.restart(true).await;
    let client = client.at(server.url());
    // What there was before is counted; by the next start, too.
    set(&server, "hog", json!({"topics": 3})).await;
    client.make_topic("c", 1).await;
    check_refused(&answer(client.put("/v1/topics/d").json(&json!({}))).await, "topics");
    let refused = answer(client.publishing("d", "text/plain", "x")).await;
    check_refused(&refused, "topics");
    assert_eq!(refused.problem().outcome, Some(PublishOutcome::NotStored));
    assert_eq!(
        answer(client.put("/v1/topics/c").json(&json!({}))).await.status,
        200,
        "one that there is is none too many"
    );
    assert_eq!(shown(&client, "topics").await, (Some(3), Some(3), None));
    assert_eq!(answer(client.delete("/v1/topics/b")).await.status, 204);
    client.make_topic("d", 1).await;
    check_refused(&answer(client.put("/v1/topics/e").json(&json!({}))).await, "topics");
    assert_eq!(answer(server.client().put("/v1/topics/e").json(&json!({}))).await.status, 201);
}

// Fails when `_audit` takes a place: then no call that is audited is possible any more, not even to delete a topic.
#[tokio::test(flavor = "multi_thread")]
async fn topics_of_the_system_take_no_place_of_the_quota() {
    let server = Server::start().await;
    let quotas = json!({"name": "small", "quotas": {"topics": 1, "storage_bytes": 1}});
    assert_eq!(answer(server.root().post("/v1/tenants").json(&quotas)).await.status, 201);
    let client = server.root().acting_in("small");
    for _ in 0..2 {
        client.make_topic("t", 1).await;
        check_refused(&answer(client.put("/v1/topics/u").json(&json!({}))).await, "topics");
        assert_eq!(answer(client.delete("/v1/topics/t")).await.status, 204);
    }
    assert_eq!(shown(&client, "topics").await, (Some(1), Some(0), None));
}

// Fails when a topic that another request makes at the same moment is counted before it is there, and not after.
#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_made_at_once_are_no_more_than_the_quota() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    set(&server, "hog", json!({"topics": 5})).await;
    let mut makers = tokio::task::JoinSet::new();
    for number in 0..20 {
        let client = client.clone();
        makers.spawn(async move { answer(client.put(&format!("/v1/topics/t{number}")).json(&json!({}))).await.status });
    }
    let statuses = makers.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 15, "{statuses:?}");
}

// Fails when what is stored is not added to the count, or a deletion does not have it counted anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_over_the_stored_bytes_is_refused_until_something_is_deleted() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    client.make_topic("t", 1).await;
    client.make_topic("u", 1).await;
    set(&server, "hog", json!({"storage_bytes": 200_000})).await;
    for _ in 0..2 {
        client.publish("t", "text/plain", "x".repeat(100_000)).await;
    }
    for topic in ["t", "u"] {
        let refused = answer(client.publishing(topic, "text/plain", "x")).await;
        check_refused(&refused, "storage_bytes");
    }
    let (limit, used, _) = shown(&client, "storage_bytes").await;
    assert!(limit == Some(200_000) && used.is_some_and(|used| (200_000..210_000).contains(&used)), "{used:?}");
    let trimmed = answer(client.delete(&format!("{RECORDS}?before=latest"))).await;
    assert_eq!(trimmed.status, 200, "{}", trimmed.text());
    client.publish("u", "text/plain", "x").await;
    client.publish("u", "text/plain", "x".repeat(200_000)).await;
    check_refused(&answer(client.publishing("u", "text/plain", "x")).await, "storage_bytes");
    assert_eq!(answer(client.delete("/v1/topics/u")).await.status, 204);
    client.publish("t", "text/plain", "x").await;
}

// Fails when `Capacity::enter` does not look at what the tenant holds: the second one is then refused with the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_fills_the_node_is_refused_and_another_one_gets_in() {
    let store = Some("memory://?put_latency_ms=500".to_owned());
    let server = Server::start_with(Options { store, ..Options::default() }).await;
    let (hog, other) = (server.tenant("hog").await, server.client());
    for client in [&hog, &other] {
        client.make_topic("t", 1).await;
    }
    let mut publishes = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let hog = hog.clone();
        publishes.spawn(async move { answer(hog.publishing("t", "text/plain", vec![b'x'; 1 << 20])).await });
    }
    let mut stored = 0;
    loop {
        let first = publishes.join_next().await.expect("the node holds less than all of them").unwrap();
        if first.status == 503 {
            assert_eq!(
                (first.problem().code, first.problem().outcome),
                (ErrorCode::Overloaded, Some(PublishOutcome::NotStored))
            );
            assert!(first.header("retry-after").is_some());
            break;
        }
        stored += u64::from(first.status == 201);
    }
    for _ in 0..3 {
        other.publish("t", "text/plain", "x").await;
    }
    while let Some(ended) = publishes.join_next().await {
        stored += u64::from(ended.unwrap().status == 201);
    }
    assert_eq!(hog.count("t").await, stored);
    hog.publish("t", "text/plain", "x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_shows_every_quota_and_every_limit() {
    let server = Server::start().await;
    let client = server.tenant("hog").await;
    set(&server, "hog", json!({"requests_per_second": 1_000_000, "followers": 3})).await;
    let report = answer(client.get("/v1/quotas")).await.json();
    assert_eq!(report["tenant"], "hog");
    let names: Vec<&str> =
        report["quotas"].as_array().unwrap().iter().map(|one| one["quota"].as_str().unwrap()).collect();
    let all = plinth_api::quotas::Quota::ALL.map(plinth_api::quotas::Quota::as_str);
    assert_eq!(names, all);
    assert_eq!(shown(&client, "followers").await, (Some(3), Some(0), None));
    assert_eq!(shown(&client, "requests_per_second").await.0, Some(1_000_000));
    let limits = report["limits"].as_array().unwrap();
    assert_eq!(limits.len(), plinth_api::limits::LIMITS.len());
    assert!(limits.iter().any(|limit| limit["name"] == "record_bytes_max" && limit["value"] == 1_048_576));
    assert_eq!(answer(server.root().get("/v1/quotas")).await.status, 403, "the root key alone is of no tenant");
}
