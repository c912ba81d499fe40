//! WebSocket: who gets in, what frames do, how credit holds records back, and how connections end.

use futures::{SinkExt, StreamExt};
use plinth_api::error::{ErrorCode, Problem, PublishOutcome};
use plinth_api::limits::{CONNECTION_SUBSCRIPTIONS_MAX, FRAME_BYTES_MAX, STREAM_TOPICS_MAX};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::client::{Frame, answer, from_cursor, payload, texts, within};
use crate::harness::Server;

/// A connection whose end is looked at, too.
pub(crate) struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) headers: HeaderMap,
}

/// What comes over a connection.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Box<Frame>),
    Closed(Option<u16>),
}

/// An upgrade that was answered with an error.
pub(crate) struct Refused {
    headers: HeaderMap,
    pub(crate) problem: Problem,
}

impl Socket {
    pub(crate) async fn open(server: &Server, path: &str, headers: &[(&'static str, String)]) -> Result<Self, Refused> {
        let url = format!("{}{path}", server.url().replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("the address is valid");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("the header is valid"));
        }
        match within("an upgrade", tokio_tungstenite::connect_async(request)).await {
            Ok((socket, response)) => Ok(Self { socket, headers: response.headers().clone() }),
            Err(Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                assert_eq!(parts.headers["content-type"], "application/problem+json");
                let problem: Problem = serde_json::from_slice(&body.unwrap_or_default()).expect("a problem is JSON");
                assert_eq!(problem.status, parts.status.as_u16());
                Err(Refused { headers: parts.headers, problem })
            }
            Err(other) => panic!("the upgrade failed: {other}"),
        }
    }

    /// A connection with the key in a header.
    pub(crate) async fn with_key(server: &Server, key: &str) -> Self {
        let opened = Self::open(server, "/v1/ws", &[("authorization", format!("Bearer {key}"))]).await;
        let mut socket = opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
        socket.frame("welcome").await;
        socket
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.expect("the connection is open");
    }

    pub(crate) async fn next(&mut self) -> Next {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let mut frame: Frame = serde_json::from_str(&text).expect("a frame is JSON with a type");
                    text.as_str().clone_into(&mut frame.text);
                    return Next::Frame(Box::new(frame));
                }
                Some(Ok(Message::Close(close))) => return Next::Closed(close.map(|close| close.code.into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => panic!("the server sends text"),
                Some(Err(_)) | None => return Next::Closed(None),
            }
        }
    }

    /// The next frame, which is of this kind.
    pub(crate) async fn frame(&mut self, kind: &str) -> Frame {
        match self.next().await {
            Next::Frame(frame) if frame.kind == kind => *frame,
            other @ (Next::Frame(_) | Next::Closed(_)) => panic!("instead of `{kind}`: {other:?}"),
        }
    }

    /// The next frame of this kind, past records and markers of the tail.
    pub(crate) async fn past_records(&mut self, kind: &str) -> Frame {
        loop {
            match self.next().await {
                Next::Frame(frame) if frame.kind == kind => return *frame,
                Next::Frame(frame) if ["records", "caught_up"].contains(&frame.kind.as_str()) => {}
                other @ (Next::Frame(_) | Next::Closed(_)) => panic!("instead of `{kind}`: {other:?}"),
            }
        }
    }

    /// The next frame that is not a marker of the tail.
    pub(crate) async fn past_caught_up(&mut self, kind: &str) -> Frame {
        loop {
            match self.next().await {
                Next::Frame(frame) if frame.kind == kind => return *frame,
                Next::Frame(frame) if frame.kind == "caught_up" => {}
                other @ (Next::Frame(_) | Next::Closed(_)) => panic!("instead of `{kind}`: {other:?}"),
            }
        }
    }

    /// The problem of the next frame, which is an `error` with this id.
    pub(crate) async fn error(&mut self, id: Option<&str>) -> Problem {
        let frame = self.frame("error").await;
        assert_eq!(frame.id.as_deref(), id, "{}", frame.text);
        frame.problem.expect("an error has a problem")
    }

    /// The code with which the server closes, after an `error` with this code.
    pub(crate) async fn closed_after(&mut self, code: ErrorCode) -> Option<u16> {
        let problem = self.error(None).await;
        assert_eq!(problem.code, code, "{problem:?}");
        self.closed().await
    }

    /// Whether the next frame welcomes the client.
    pub(crate) async fn is_welcome(&mut self) -> bool {
        matches!(self.next().await, Next::Frame(frame) if frame.kind == "welcome")
    }

    pub(crate) async fn closed(&mut self) -> Option<u16> {
        match self.next().await {
            Next::Closed(code) => code,
            Next::Frame(frame) => panic!("instead of the end: {}", frame.text),
        }
    }

    /// Exactly `count` records, however they are cut into frames; also the cursor after them.
    pub(crate) async fn records(&mut self, count: usize) -> (Vec<String>, String) {
        let mut all = Vec::new();
        loop {
            let frame = self.past_caught_up("records").await;
            all.extend(texts(&frame.records));
            assert!(all.len() <= count, "more than {count} records: {all:?}");
            if all.len() == count {
                return (all, frame.cursor.expect("records carry a cursor"));
            }
        }
    }

    /// Fails when anything but markers of the tail has come before the answer to a ping.
    pub(crate) async fn hears_nothing(&mut self) {
        self.send(json!({"type": "ping", "id": "quiet"})).await;
        assert_eq!(self.past_caught_up("pong").await.id.as_deref(), Some("quiet"));
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_its_key_as_a_subprotocol_and_only_ours_is_echoed() {
    let server = Server::start().await;
    let offered = format!("plinth.v1.json, bearer.{}", URL_SAFE_NO_PAD.encode(server.key()));
    let opened = Socket::open(&server, "/v1/ws", &[("sec-websocket-protocol", offered)]).await;
    let mut socket = opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
    assert_eq!(socket.headers["sec-websocket-protocol"], "plinth.v1.json");
    let welcome: Value = serde_json::from_str(&socket.frame("welcome").await.text).unwrap();
    assert_eq!(welcome["limits"]["subscriptions_max"], json!(CONNECTION_SUBSCRIPTIONS_MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_connection_and_no_second_one() {
    let server = Server::start().await;
    let made = answer(server.client().post("/v1/tickets")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = format!("/v1/ws?ticket={}", made.json()["ticket"].as_str().unwrap());
    let opened = Socket::open(&server, &path, &[]).await;
    opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem)).frame("welcome").await;
    let again = Socket::open(&server, &path, &[]).await.err().expect("a ticket is good once");
    assert_eq!(again.problem.code, ErrorCode::Unauthenticated);
    assert!(again.headers.contains_key("www-authenticate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_frame_may_bring_the_key_and_nothing_but_a_ping_goes_before_it() {
    let server = Server::start().await;
    let opened = Socket::open(&server, "/v1/ws", &[]).await;
    let mut socket = opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
    assert!(!socket.headers.contains_key("sec-websocket-protocol"));
    socket.hears_nothing().await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"]})).await;
    assert_eq!(socket.error(Some("s")).await.code, ErrorCode::Unauthenticated);
    socket.send(json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": "x"}]})).await;
    let problem = socket.error(Some("p")).await;
    assert_eq!((problem.code, problem.outcome), (ErrorCode::Unauthenticated, Some(PublishOutcome::NotStored)));
    socket.send(json!({"type": "auth", "token": server.key()})).await;
    socket.frame("welcome").await;
    socket.send(json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": "x"}]})).await;
    assert_eq!(socket.frame("published").await.receipts[0].offset, 0);
    socket.send(json!({"type": "auth", "id": "again", "token": server.key()})).await;
    assert_eq!(socket.error(Some("again")).await.code, ErrorCode::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_in_the_first_frame_ends_the_connection() {
    let server = Server::start().await;
    let opened = Socket::open(&server, "/v1/ws", &[("sec-websocket-protocol", "plinth.v1.json".to_owned())]).await;
    let mut socket = opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
    socket.send(json!({"type": "auth", "token": "plk_wrong"})).await;
    assert_eq!(socket.closed_after(ErrorCode::Unauthenticated).await, Some(4401));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_refused_says_why() {
    let server = Server::start().await;
    let key = || ("authorization", format!("Bearer {}", server.key()));
    let protocol = |value: &str| ("sec-websocket-protocol", value.to_owned());
    let cases = [
        ("/v1/ws", vec![("authorization", "Bearer plk_wrong".to_owned())], ErrorCode::Unauthenticated),
        ("/v1/ws", vec![("authorization", "Basic YTpi".to_owned())], ErrorCode::Unauthenticated),
        ("/v1/ws", vec![protocol("plinth.v1.json, bearer.cGxrX3dyb25n")], ErrorCode::Unauthenticated),
        ("/v1/ws?ticket=wrong", vec![], ErrorCode::Unauthenticated),
        ("/v1/ws", vec![key(), protocol("mqtt")], ErrorCode::InvalidRequest),
        ("/v1/ws?ticket=a", vec![key()], ErrorCode::InvalidRequest),
        ("/v1/ws?access_token=a", vec![key()], ErrorCode::UnknownField),
    ];
    for (path, headers, code) in cases {
        let refused = Socket::open(&server, path, &headers).await.err().expect("the upgrade is refused");
        assert_eq!(refused.problem.code, code, "{path} {headers:?}: {:?}", refused.problem);
    }
    let plain = answer(server.client().get("/v1/ws")).await.problem();
    assert_eq!(plain.code, ErrorCode::InvalidRequest);
}

/// Fails when publishes of one connection overtake each other, or a payload is not kept byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn publishes_of_one_connection_are_stored_and_followed_in_the_order_they_were_sent() {
    const COUNT: usize = 300;
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let mut reader = Socket::with_key(&server, server.key()).await;
    reader.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest"})).await;
    reader.frame("subscribed").await;
    let mut writer = Socket::with_key(&server, server.key()).await;
    let value = |number: usize| format!("{{\"n\" : {number}, \"x\":1.10}}");
    for number in 0..COUNT {
        let records = format!(r#"[{{"key":"k","headers":{{"h":"v"}},"value":{} }}]"#, value(number));
        let frame = format!(r#"{{"type":"publish","id":"{number}","topic":"t","records":{records}}}"#);
        writer.socket.feed(Message::text(frame)).await.unwrap();
    }
    writer.socket.flush().await.unwrap();
    for _ in 0..COUNT {
        let published = writer.frame("published").await;
        let (id, receipt) = (published.id.unwrap(), &published.receipts[0]);
        assert_eq!((receipt.offset.to_string(), receipt.count), (id, 1));
    }
    let mut records = Vec::new();
    while records.len() < COUNT {
        records.append(&mut reader.past_caught_up("records").await.records);
    }
    for (number, record) in records.iter().enumerate() {
        assert_eq!(String::from_utf8(payload(record)).unwrap(), value(number));
        assert_eq!((record.key.as_deref(), record.headers["h"].as_str()), (Some("k"), "v"));
    }
}

/// Fails when credit is not counted by records, or the cursor in the middle of a batch is the one of its end.
#[tokio::test(flavor = "multi_thread")]
async fn credit_holds_records_back_and_the_cursor_is_exact_within_a_batch() {
    let server = Server::start().await;
    let client = server.client();
    let all = numbers(0..10);
    client.publish_texts("t", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest", "credit": 0})).await;
    socket.frame("subscribed").await;
    socket.hears_nothing().await;
    socket.send(json!({"type": "credit", "sub": "s", "n": 3})).await;
    let (records, cursor) = socket.records(3).await;
    assert_eq!(records, numbers(0..3));
    socket.hears_nothing().await;
    let page = client.page("t", &format!("from={}", from_cursor(&cursor))).await;
    assert_eq!(texts(&page.records), numbers(3..10));
    socket.send(json!({"type": "credit", "sub": "s", "n": 4})).await;
    assert_eq!(socket.records(4).await.0, numbers(3..7));
    client.publish("t", "text/plain", "10").await;
    socket.hears_nothing().await;
    socket.send(json!({"type": "unsubscribe", "sub": "s"})).await;
    let end = socket.past_caught_up("unsubscribed").await;
    let mut other = client.ws().await;
    other.subscribe("t", &format!("cursor:{}", end.cursor.unwrap())).await;
    assert_eq!(texts(&other.records(4).await), numbers(7..11));
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "-1"})).await;
    socket.frame("subscribed").await;
    assert_eq!(socket.records(1).await.0, numbers(10..11));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_transport_goes_on_here_and_a_foreign_one_is_refused() {
    let server = Server::start().await;
    let client = server.client();
    client.publish_texts("t", &["0", "1", "2", "3"]).await;
    let cursor = client.page("t", "limit=2").await.next;
    let mut socket = Socket::with_key(&server, server.key()).await;
    let from = format!("cursor:{cursor}");
    socket.send(json!({"type": "subscribe", "id": "a", "topics": ["t"], "from": from})).await;
    assert_eq!(socket.frame("subscribed").await.sub.as_deref(), Some("a"));
    assert_eq!(socket.records(2).await.0, numbers(2..4));
    let foreign = server.tenant("b").await;
    foreign.publish("t", "text/plain", "x").await;
    let mut other = foreign.ws().await;
    other.send(&json!({"type": "subscribe", "id": "b", "topics": ["t"], "from": from})).await;
    assert_eq!(other.frame("error").await.problem.unwrap().code, ErrorCode::InvalidCursor);
    socket.send(json!({"type": "subscribe", "id": "c", "topics": ["t"], "from": "yesterday"})).await;
    let problem = loop {
        let frame = socket.past_caught_up("error").await;
        if frame.id.as_deref() == Some("c") {
            break frame.problem.unwrap();
        }
    };
    assert!(problem.detail.contains("yesterday"), "{problem:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_and_ends_the_connection() {
    let server = Server::start().await;
    for garbage in ["hello", "[1]", "{\"type\":", ""] {
        let mut socket = Socket::with_key(&server, server.key()).await;
        socket.socket.send(Message::text(garbage)).await.unwrap();
        assert_eq!(socket.closed_after(ErrorCode::InvalidRequest).await, Some(1008), "{garbage}");
    }
    let mut socket = Socket::with_key(&server, server.key()).await;
    socket.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(socket.closed_after(ErrorCode::InvalidRequest).await, Some(1003));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_ends_the_connection_and_stores_nothing() {
    let server = Server::start().await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    let text = "x".repeat(FRAME_BYTES_MAX);
    // The server may close before it has read all of it.
    let frame = json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": text}]});
    drop(socket.socket.feed(Message::text(frame.to_string())).await);
    drop(socket.socket.flush().await);
    let end = loop {
        match socket.next().await {
            Next::Closed(code) => break code,
            Next::Frame(frame) => assert_eq!(frame.problem.map(|problem| problem.code), Some(ErrorCode::TooLarge)),
        }
    };
    assert!(matches!(end, Some(1009) | None), "{end:?}");
    assert_eq!(server.client().count("t").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readable_frame_that_is_refused_leaves_the_connection_open() {
    let server = Server::start().await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    let cases = [
        (json!({"type": "ack", "id": "1", "leases": []}), ErrorCode::InvalidRequest, "`ack`"),
        (json!({"id": "1"}), ErrorCode::InvalidRequest, "`type`"),
        (json!({"type": "subscribe", "id": "1", "topics": ["t"], "filter": "a"}), ErrorCode::UnknownField, "`filter`"),
        (json!({"type": "subscribe", "id": "1", "topics": ["t"], "credit": -1}), ErrorCode::InvalidRequest, "`credit`"),
        (json!({"type": "subscribe", "id": "1", "topics": []}), ErrorCode::Unprocessable, "0 topics"),
        (json!({"type": "subscribe", "id": "1", "topics": ["a//b"]}), ErrorCode::InvalidTopicName, "a//b"),
        (json!({"type": "subscribe", "id": "1", "topics": ["none"]}), ErrorCode::NotFound, "none"),
        (json!({"type": "publish", "id": "1", "topic": "t", "records": []}), ErrorCode::InvalidRequest, "batch"),
    ];
    for (frame, code, name) in cases {
        socket.send(frame.clone()).await;
        let problem = socket.error(Some("1")).await;
        assert_eq!(problem.code, code, "{frame}: {problem:?}");
        assert!(problem.detail.contains(name), "{frame}: {problem:?}");
    }
    let long = "i".repeat(256);
    socket.send(json!({"type": "subscribe", "id": long, "topics": ["t"]})).await;
    assert_eq!(socket.error(None).await.code, ErrorCode::Unprocessable);
    for kind in ["unsubscribe", "credit"] {
        let mut frame = json!({"type": kind, "sub": "nobody"});
        if kind == "credit" {
            frame["n"] = json!(1);
        }
        socket.send(frame).await;
        assert_eq!(socket.error(Some("nobody")).await.code, ErrorCode::NotFound);
    }
    socket.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_fails_says_that_nothing_is_stored() {
    let server = Server::start().await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    let cases = [
        (json!([{"text": "a"}, {"text": "a", "base64": "AA=="}]), ErrorCode::Unprocessable),
        (json!([{"text": "a"}, {"delay": "1h"}]), ErrorCode::UnknownField),
        (json!([{"text": "a"}, {"key": "k".repeat(1025)}]), ErrorCode::TooLarge),
        (json!([{"text": "a"}, {"headers": {"h": "a\r\nb"}}]), ErrorCode::Unprocessable),
        (json!(vec![json!({"text": "a"}); 1001]), ErrorCode::TooLarge),
    ];
    for (records, code) in cases {
        socket.send(json!({"type": "publish", "id": "p", "topic": "t", "records": records})).await;
        let problem = socket.error(Some("p")).await;
        assert_eq!((problem.code, problem.outcome), (code, Some(PublishOutcome::NotStored)), "{problem:?}");
    }
    assert_eq!(server.client().count("t").await, 0);
}

// Fails when a credential that came in a frame is never looked at again. A connection that does not listen to its tenant would
// end with its next ping, which is not told apart here.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_came_in_the_first_frame_ends_its_connection_when_it_ends() {
    let server = Server::start().await;
    let tenant = server.tenant("in-band").await;
    let made = answer(tenant.post("/v1/keys").json(&json!({"name": "", "scopes": ["subscribe:**"]}))).await.json();
    let opened = Socket::open(&server, "/v1/ws", &[("sec-websocket-protocol", "plinth.v1.json".to_owned())]).await;
    let mut socket = opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
    // What ends before it has a credential is nothing to it.
    assert_eq!(answer(server.root().post("/v1/tenants").json(&json!({"name": "gone"}))).await.status, 201);
    assert_eq!(answer(server.root().delete("/v1/tenants/gone")).await.status, 204);
    socket.send(json!({"type": "auth", "token": made["key"]})).await;
    socket.frame("welcome").await;
    let deleted = answer(tenant.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await;
    assert_eq!(deleted.status, 204);
    assert_eq!(socket.closed().await, Some(4401));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_several_partitions_get_one_receipt_each_in_the_order_of_the_frame() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 8).await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    let records: Vec<Value> = (0..40).map(|n| json!({"key": format!("k{n}"), "text": n.to_string()})).collect();
    socket.send(json!({"type": "publish", "id": "p", "topic": "t", "records": records})).await;
    let receipts = socket.frame("published").await.receipts;
    assert_eq!(receipts.len(), 40);
    for (number, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.count, 1);
        let stored = client.read_all("t", receipt.partition).await;
        let record = stored.iter().find(|record| record.offset == receipt.offset).expect("it is stored there");
        assert_eq!(record.text.as_deref(), Some(number.to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_another_tenant_is_as_one_that_does_not_exist() {
    let server = Server::start().await;
    server.client().publish("secret", "text/plain", "x").await;
    let mut other = server.tenant("b").await.ws().await;
    let mut problems = Vec::new();
    for topic in ["secret", "nothing"] {
        other.send(&json!({"type": "subscribe", "id": "s", "topics": [topic], "from": "earliest"})).await;
        problems.push(other.frame("error").await.text.replace(topic, "TOPIC"));
    }
    assert_eq!(problems[0], problems[1]);
    other.send(&json!({"type": "subscribe", "id": "all", "topics": ["**"], "from": "earliest"})).await;
    assert_eq!(other.frame("subscribed").await.sub.as_deref(), Some("all"));
    other.send(&json!({"type": "publish", "id": "p", "topic": "own", "records": [{"text": "mine"}]})).await;
    assert_eq!(texts(&other.records(1).await), ["mine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_hold_for_every_frame() {
    let server = Server::start().await;
    server.client().publish("a", "text/plain", "x").await;
    server.client().publish("b", "text/plain", "x").await;
    let mut socket = server.with_scopes(&["subscribe:a"]).await.ws().await;
    socket.send(&json!({"type": "publish", "id": "p", "topic": "a", "records": [{"text": "x"}]})).await;
    let problem = socket.frame("error").await.problem.unwrap();
    assert_eq!((problem.code, problem.outcome), (ErrorCode::Forbidden, Some(PublishOutcome::NotStored)));
    socket.send(&json!({"type": "subscribe", "id": "s", "topics": ["a", "b"]})).await;
    assert_eq!(socket.frame("error").await.problem.unwrap().code, ErrorCode::Forbidden);
    socket.subscribe("a", "earliest").await;
    assert_eq!(socket.records(1).await[0].topic, "a");
}

/// Fails when a session does not watch for the end of its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_ends_its_connections_and_no_others() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let made = answer(client.post("/v1/keys").json(&json!({"name": "", "scopes": ["subscribe:**"]}))).await.json();
    let mut doomed = Socket::with_key(&server, made["key"].as_str().unwrap()).await;
    doomed.send(json!({"type": "subscribe", "id": "s", "topics": ["t"]})).await;
    doomed.frame("subscribed").await;
    let mut other = Socket::with_key(&server, server.key()).await;
    let deleted = answer(client.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let end = loop {
        match doomed.next().await {
            Next::Closed(code) => break code,
            Next::Frame(frame) => assert_eq!(frame.kind, "caught_up", "{}", frame.text),
        }
    };
    assert_eq!(end, Some(4401));
    other.hears_nothing().await;
}

/// Fails when a session is cut without a goaway, or its cursors are not those of what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_sends_its_clients_away_with_their_cursors() {
    let mut server = Server::start().await;
    server.client().publish_texts("t", &["0", "1", "2"]).await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest", "credit": 2})).await;
    socket.frame("subscribed").await;
    assert_eq!(socket.records(2).await.0, numbers(0..2));
    server.signal("TERM").await;
    let goaway: Value = serde_json::from_str(&socket.past_caught_up("goaway").await.text).unwrap();
    assert!(goaway["reconnect_in_ms"].is_u64() && goaway["reason"].is_string(), "{goaway}");
    assert_eq!(socket.closed().await, Some(1012));
    let (status, stderr) = server.exited().await;
    assert!(status.success(), "{status:?}: {stderr}");
    server.restart(false).await;
    let from = from_cursor(goaway["cursors"]["s"].as_str().unwrap());
    assert_eq!(texts(&server.client().page("t", &format!("from={from}")).await.records), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_ends_its_subscription() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "latest"})).await;
    socket.frame("subscribed").await;
    assert_eq!(answer(client.delete("/v1/topics/t")).await.status, 204);
    assert_eq!(socket.past_caught_up("end").await.topic.as_deref(), Some("t"));
    assert_eq!(socket.frame("unsubscribed").await.sub.as_deref(), Some("s"));
    socket.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_bounded_number_of_subscriptions_and_a_subscription_of_topics() {
    let server = Server::start().await;
    server.client().make_topic("t", 1).await;
    let mut socket = Socket::with_key(&server, server.key()).await;
    for number in 0..CONNECTION_SUBSCRIPTIONS_MAX {
        socket.send(json!({"type": "subscribe", "id": number.to_string(), "topics": ["t"], "credit": 0})).await;
        socket.frame("subscribed").await;
    }
    socket.send(json!({"type": "subscribe", "id": "more", "topics": ["t"]})).await;
    let problem = socket.error(Some("more")).await;
    assert_eq!(problem.code, ErrorCode::Unprocessable);
    assert!(problem.detail.contains(&CONNECTION_SUBSCRIPTIONS_MAX.to_string()), "{problem:?}");
    socket.send(json!({"type": "subscribe", "id": "0", "topics": ["t"]})).await;
    assert_eq!(socket.error(Some("0")).await.code, ErrorCode::Conflict);
    let topics = vec!["t"; STREAM_TOPICS_MAX + 1];
    socket.send(json!({"type": "subscribe", "id": "wide", "topics": topics})).await;
    assert_eq!(socket.error(Some("wide")).await.code, ErrorCode::Unprocessable);
    socket.send(json!({"type": "unsubscribe", "sub": "0"})).await;
    socket.frame("unsubscribed").await;
    socket.send(json!({"type": "subscribe", "id": "more", "topics": ["t"], "credit": 0})).await;
    socket.frame("subscribed").await;
}

/// Fails when frames for a client that does not read are dropped or reordered, or hold up another client.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_slows_nobody_and_misses_nothing() {
    const BATCHES: usize = 64;
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let mut slow = Socket::with_key(&server, server.key()).await;
    slow.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest"})).await;
    slow.frame("subscribed").await;
    let mut quick = Socket::with_key(&server, server.key()).await;
    quick.send(json!({"type": "subscribe", "id": "q", "topics": ["t"], "from": "earliest"})).await;
    quick.frame("subscribed").await;
    for number in 0..BATCHES {
        client.publish("t", "text/plain", format!("{number} {}", "x".repeat(256 * 1024))).await;
    }
    for reader in [&mut quick, &mut slow] {
        let (records, _) = reader.records(BATCHES).await;
        let seen: Vec<&str> = records.iter().map(|text| text.split_once(' ').unwrap().0).collect();
        assert_eq!(seen, numbers(0..u32::try_from(BATCHES).unwrap()));
    }
}
