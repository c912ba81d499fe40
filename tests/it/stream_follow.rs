//! Streams followed by the transports of topics: server-sent events, lines and WebSocket are told when one is closed.

use std::collections::BTreeMap;

use plinth_api::records::Record;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::cli;
use crate::client::{Client, LineStream, SseStream, Ws, answer, payload};
use crate::harness::Server;

/// The stream `s`, followed by each transport.
struct Followers {
    sse: SseStream,
    lines: LineStream,
    ws: Ws,
}

fn text(record: &Record) -> String {
    String::from_utf8(payload(record)).expect("text")
}

impl Followers {
    async fn open(client: &Client, from: &str) -> Self {
        let path = format!("/v1/topics/s/records?from={from}");
        let (sse, lines, mut ws) = (client.sse(&path, None).await, client.ndjson(&path).await, client.ws().await);
        ws.subscribe("s", from).await;
        Self { sse, lines, ws }
    }

    /// What comes by each until it is told of `last`: the texts of records, and the kinds of all else.
    async fn until(&mut self, last: &str) -> [Vec<String>; 3] {
        let mut seen: [Vec<String>; 3] = Default::default();
        while seen[0].last().is_none_or(|seen| seen != last) {
            seen[0].push(self.event().await);
        }
        while seen[1].last().is_none_or(|seen| seen != last) {
            seen[1].push(self.line().await);
        }
        while seen[2].last().is_none_or(|seen| seen != last) {
            let mut frame = self.ws.next().await.expect("it goes on");
            seen[2].extend(frame.records.iter().map(text));
            if frame.kind != "records" {
                let named = frame.topic.take().is_none_or(|topic| topic == "s" && frame.sub.as_deref() == Some("s"));
                assert!(named, "{}", frame.text);
                seen[2].push(frame.kind);
            }
        }
        seen
    }

    async fn event(&mut self) -> String {
        let event = self.sse.next().await.expect("it goes on");
        assert!(!event.id.is_empty(), "the position goes with it: {event:?}");
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        if event.event == "record" {
            return text(&serde_json::from_value(data).expect("a record"));
        }
        assert_eq!(data["control"], event.event);
        assert!(data["topic"].is_null() || data["topic"] == "s", "{data}");
        event.event
    }

    async fn line(&mut self) -> String {
        let line: Value = serde_json::from_str(&self.lines.next().await.expect("it goes on")).expect("JSON");
        match line["control"].as_str() {
            Some(control) => control.to_owned(),
            None => text(&serde_json::from_value(line).expect("a record")),
        }
    }
}

async fn stored(request: RequestBuilder) {
    let stored = answer(request).await;
    assert!([201, 204].contains(&stored.status), "{}", stored.text());
}

fn append(client: &Client, name: &str, text: &str) -> RequestBuilder {
    client.post(&format!("/v1/streams/{name}")).header("Content-Type", "text/plain").body(text.to_owned())
}

fn close(client: &Client, name: &str) -> RequestBuilder {
    client.post(&format!("/v1/streams/{name}")).header("Stream-Closed", "true")
}

async fn make(client: &Client, name: &str) {
    stored(client.put(&format!("/v1/streams/{name}")).header("Content-Type", "text/plain")).await;
}

// Fails when a follower at the tail is not woken by a close, or is told of it before the last record or twice.
#[tokio::test(flavor = "multi_thread")]
async fn each_live_transport_is_told_once_that_a_stream_is_closed() {
    let server = Server::start().await;
    let client = server.client();
    for with_last in [true, false] {
        make(&client, "s").await;
        let mut early = Followers::open(&client, "earliest").await;
        assert_eq!(early.until("caught_up").await, [["caught_up"]; 3]);
        stored(append(&client, "s", "a")).await;
        assert_eq!(early.until("a").await, [["a"]; 3]);
        let rest: &[&str] = if with_last { &["b", "closed"] } else { &["closed"] };
        if with_last {
            stored(append(&client, "s", "b").header("Stream-Closed", "true")).await;
        } else {
            stored(close(&client, "s")).await;
        }
        assert_eq!(early.until("closed").await, [rest; 3]);
        let mut late = Followers::open(&client, "earliest").await;
        let all: Vec<&str> = ["a"].iter().chain(rest).copied().collect();
        assert_eq!(late.until("closed").await, [&all[..]; 3]);
        let mut at_the_end = Followers::open(&client, "latest").await;
        assert_eq!(at_the_end.until("closed").await, [["closed"]; 3]);
        // Again, and what is refused: nobody hears of it.
        stored(close(&client, "s")).await;
        assert_eq!(answer(append(&client, "s", "c")).await.status, 409);
        assert_eq!(answer(client.delete("/v1/streams/s")).await.status, 204);
        assert_eq!(early.until("end").await, [["end"]; 3]);
        for mut late in [late, at_the_end] {
            assert_eq!(late.until("end").await, [["caught_up", "end"]; 3]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_with_its_cursor_is_told_again() {
    let mut server = Server::start().await;
    make(&server.client(), "s").await;
    stored(append(&server.client(), "s", "a").header("Stream-Closed", "true")).await;
    let mut sse = server.client().sse("/v1/topics/s/records?from=earliest", None).await;
    let cursor = sse.event("closed").await.id;
    server.kill9().await;
    server.restart(true).await;
    let mut sse = server.client().sse("/v1/topics/s/records", Some(&cursor)).await;
    assert_eq!(sse.next().await.map(|event| event.event).as_deref(), Some("closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_says_whether_it_is_closed() {
    let server = Server::start().await;
    let client = server.client();
    make(&client, "s").await;
    let is_closed = async || client.topic("s").await.partition_bounds[0].closed;
    assert!(!is_closed().await);
    let view = answer(client.get("/v1/topics/s")).await.json();
    assert!(view["partition_bounds"][0].get("closed").is_none(), "what is open says nothing: {view}");
    stored(close(&client, "s")).await;
    assert!(is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_ends_with_a_closed_stream() {
    let server = Server::start().await;
    make(&server.client(), "s").await;
    stored(append(&server.client(), "s", "all").header("Stream-Closed", "true")).await;
    for transport in ["sse", "ndjson", "ws"] {
        let args = ["subscribe", "s", "--from", "earliest", "--transport", transport, "--format", "value"];
        let ended = cli::client(&server, &args, b"").await;
        assert_eq!((ended.code, ended.lines().concat().as_str()), (0, "all"), "{transport}: {}", ended.stderr);
        assert!(ended.stderr.contains("topic s is closed"), "{transport}: {}", ended.stderr);
    }
}

/// What of each stream came over a connection, by its name.
async fn seen(ws: &mut Ws, closes: usize) -> BTreeMap<String, Vec<String>> {
    let (mut seen, mut closed) = (BTreeMap::<String, Vec<String>>::new(), 0);
    while closed < closes {
        let frame = ws.next().await.expect("it goes on");
        for record in &frame.records {
            seen.entry(record.topic.clone()).or_default().push(text(record));
        }
        if frame.kind == "closed" {
            closed += 1;
            seen.entry(frame.topic.expect("it names the topic")).or_default().push("closed".to_owned());
        }
    }
    seen
}

// Fails when one subscription holds up others, or a stream that a pattern shows later is not told of.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_streams_are_followed_on_one_connection_until_each_is_closed() {
    let server = Server::start().await;
    let client = server.client();
    let named: Vec<String> = (0..60).map(|number| format!("named/{number}")).collect();
    let shown: Vec<String> = (0..40).map(|number| format!("chats/{number}")).collect();
    for name in named.iter().chain(&shown[..20]) {
        make(&client, name).await;
    }
    let mut ws = client.ws().await;
    // Thirty have a subscription of their own, thirty are in one, and forty are found by a pattern.
    for name in &named[..30] {
        ws.send(&json!({"type": "subscribe", "id": name, "topics": [name], "from": "earliest"})).await;
    }
    ws.send(&json!({"type": "subscribe", "id": "list", "topics": named[30..], "from": "earliest"})).await;
    ws.send(&json!({"type": "subscribe", "id": "pattern", "topics": ["chats/*"], "from": "earliest"})).await;
    for _ in 0..32 {
        ws.frame("subscribed").await;
    }
    for name in &shown[20..] {
        make(&client, name).await;
    }
    let all: Vec<&String> = named.iter().chain(&shown).collect();
    for (number, name) in all.iter().enumerate() {
        stored(append(&client, name, "first")).await;
        if number % 2 == 0 {
            stored(append(&client, name, "last").header("Stream-Closed", "true")).await;
        } else {
            stored(append(&client, name, "last")).await;
            stored(close(&client, name)).await;
        }
    }
    let seen = seen(&mut ws, all.len()).await;
    assert_eq!(seen.len(), all.len());
    for name in all {
        assert_eq!(seen[name], ["first", "last", "closed"], "{name}");
    }
}
