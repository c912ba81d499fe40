//! Following live: SSE, NDJSON and WebSocket see the same records in the same order and take each other's cursors.

use plinth_api::records::Record;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{BATCH, Client, SSE, SseStream, answer, escape, from_cursor, offsets, texts};
use crate::harness::Server;

const RECORDS: &str = "/v1/topics/t/records";

/// Fails when a transport skips, repeats or reorders at the seam between the log and the live feed.
#[tokio::test(flavor = "multi_thread")]
async fn every_transport_shows_the_same_records_in_order_while_they_are_published() {
    const COUNT: usize = 300;
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let mut tasks: JoinSet<(&str, Vec<Record>)> = JoinSet::new();
    let path = format!("{RECORDS}?from=earliest");
    let mut sse = client.sse(&path, None).await;
    let mut lines = client.ndjson(&path).await;
    let mut ws = client.ws().await;
    ws.subscribe("t", "earliest").await;
    let polling = client.clone();
    tasks.spawn(async move { ("sse", sse.records(COUNT).await) });
    tasks.spawn(async move { ("ndjson", lines.records(COUNT).await) });
    tasks.spawn(async move { ("ws", ws.records(COUNT).await) });
    tasks.spawn(async move { ("poll", poll(&polling, COUNT).await) });
    for number in 0..COUNT / 3 {
        client.publish("t", "text/plain", format!("single {number}")).await;
        client.publish_texts("t", &[&format!("batch {number}a"), &format!("batch {number}b")]).await;
    }
    let expected = client.read_all("t", 0).await;
    assert_eq!(offsets(&expected), (0..COUNT as u64).collect::<Vec<_>>());
    let form = |records: &[Record]| records.iter().map(|r| serde_json::to_string(r).unwrap()).collect::<Vec<_>>();
    for (transport, records) in tasks.join_all().await {
        assert!(form(&records) == form(&expected), "{transport} shows the records as a page does");
    }
}

async fn poll(client: &Client, count: usize) -> Vec<Record> {
    let mut page = client.page("t", "from=earliest&wait=30s").await;
    let mut records = Vec::new();
    loop {
        records.append(&mut page.records);
        if records.len() >= count {
            return records;
        }
        page = client.page("t", &format!("from={}&wait=30s", from_cursor(&page.next))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sse_stream_begins_as_browsers_and_proxies_need_it() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let response = client.get(RECORDS).header("Accept", SSE).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert!(header("content-type").unwrap().starts_with(SSE));
    assert_eq!(header("cache-control").as_deref(), Some("no-cache, no-transform"));
    assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
    assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"));
    let text = preamble(response).await;
    assert!(text.contains("retry: 2000\n"), "{text:?}");
    assert!(text.starts_with(':') || text.contains("\n:"), "a comment at once: {text:?}");
}

/// What an SSE stream says before its first event.
async fn preamble(mut response: reqwest::Response) -> String {
    let mut text = String::new();
    while !text.contains("\n\n") {
        let chunk =
            crate::client::within("the first bytes", response.chunk()).await.unwrap().expect("the stream is open");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text.split_inclusive("\n\n").next().unwrap().to_owned()
}

/// Fails when the preamble has no `id`: `latest` is another place for who comes back than it was for who was cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_off_before_the_first_event_comes_back_where_it_began() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "before").await;
    for path in [format!("{RECORDS}?from=latest"), "/v1/stream?topic=*&from=latest".to_owned()] {
        let cut_off = client.get(&path).header("Accept", SSE).send().await.unwrap();
        let text = preamble(cut_off).await;
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).expect("the preamble has an id");
        assert!(!text.contains("data:"), "it is no event: {text:?}");
        client.publish("t", "text/plain", "missed").await;
        let mut again = client.sse(&path, Some(id)).await;
        assert_eq!(texts(&again.records(1).await), ["missed"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sse_goes_on_after_the_last_event_id_and_that_wins_over_from() {
    let server = Server::start().await;
    let client = server.client();
    client.publish_texts("t", &["0", "1", "2", "3", "4"]).await;
    let mut first = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    let (mut id, mut seen) = (String::new(), Vec::new());
    for _ in 0..3 {
        let (record, cursor) = first.record().await.unwrap();
        seen.push(record.offset);
        id = cursor;
    }
    drop(first);
    let mut second = client.sse(&format!("{RECORDS}?from=earliest"), Some(&id)).await;
    seen.extend(offsets(&second.records(2).await));
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    assert!(!second.event("caught_up").await.id.is_empty(), "every event carries the cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_single_record_of_a_batch_can_be_resumed_from() {
    let server = Server::start().await;
    let client = server.client();
    client.publish_texts("t", &["0", "1", "2"]).await;
    client.publish_texts("t", &["3", "4"]).await;
    let mut stream = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    for expected in 0..4_u64 {
        let (record, id) = stream.record().await.unwrap();
        assert_eq!(record.offset, expected);
        let (next, _) = client.sse(RECORDS, Some(&id)).await.record().await.unwrap();
        assert_eq!(next.offset, expected + 1);
        let page = client.page("t", &format!("from={}&limit=1", from_cursor(&id))).await;
        assert_eq!(offsets(&page.records), [expected + 1], "an event's id is a cursor for a page, too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_any_transport_is_good_on_every_other() {
    let server = Server::start().await;
    let client = server.client();
    client.publish_texts("t", &["0", "1", "2", "3"]).await;
    let page = client.page("t", "limit=2").await.next;
    let (_, sse) = {
        let mut stream = client.sse(&format!("{RECORDS}?from=offset:1"), None).await;
        stream.record().await.unwrap()
    };
    let mut socket = client.ws().await;
    socket.send(&json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "offset:0", "credit": 2})).await;
    let ws = socket.frame("records").await;
    let ws = if ws.records.len() == 2 { ws } else { socket.frame("records").await };
    for cursor in [page, sse, ws.cursor.unwrap()] {
        let from = from_cursor(&cursor);
        assert_eq!(texts(&client.page("t", &format!("from={from}")).await.records), ["2", "3"]);
        assert_eq!(texts(&client.sse(RECORDS, Some(&cursor)).await.records(2).await), ["2", "3"]);
        assert_eq!(texts(&client.ndjson(&format!("{RECORDS}?from={from}")).await.records(2).await), ["2", "3"]);
        let mut other = client.ws().await;
        other.subscribe("t", &format!("cursor:{cursor}")).await;
        assert_eq!(texts(&other.records(2).await), ["2", "3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_begins_at_the_tail_when_nothing_else_is_said() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "before").await;
    let mut sse = client.sse(RECORDS, None).await;
    let mut lines = client.ndjson(RECORDS).await;
    assert!(!sse.event("caught_up").await.id.is_empty());
    assert_eq!(lines.control().await["control"], "caught_up");
    client.publish("t", "text/plain", "after").await;
    assert_eq!(texts(&sse.records(1).await), ["after"]);
    assert_eq!(texts(&lines.records(1).await), ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sse_can_leave_events_unnamed_and_show_the_payload_alone() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "two\nlines").await;
    let mut unnamed = client.sse(&format!("{RECORDS}?from=earliest&unnamed=true"), None).await;
    assert_eq!(unnamed.next().await.unwrap().event, "message");
    let mut named = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    assert_eq!(named.next().await.unwrap().event, "record");
    let mut value = client.sse(&format!("{RECORDS}?from=earliest&format=value"), None).await;
    assert_eq!(value.next().await.unwrap().data, "two\nlines");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_with_line_ends_and_look_alikes_of_the_protocol_stays_one_record() {
    let server = Server::start().await;
    let client = server.client();
    let nasty =
        ["a\n\nid: 5\ndata: x", "a\r\nb\rc", "\u{2028}\u{2029}\u{85}", "event: end\n\n", "", " lead", "\u{feff}bom"];
    client.publish_texts("t", &nasty).await;
    // JSON over several lines cannot stand in one line as it is; it is shown as text, with its bytes.
    let pretty = "{\n  \"pretty\": [\n 1,\r\n2 ]\n}";
    client.publish("t", "application/json", pretty).await;
    let expected = [&nasty[..], &[pretty]].concat();
    let path = format!("{RECORDS}?from=earliest");
    let sse = client.sse(&path, None).await.records(8).await;
    let lines = client.ndjson(&path).await.records(8).await;
    let mut ws = client.ws().await;
    ws.subscribe("t", "earliest").await;
    for records in [sse, lines, ws.records(8).await, client.read_all("t", 0).await] {
        assert_eq!(texts(&records), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_follows_several_topics_and_those_that_a_pattern_names() {
    let server = Server::start().await;
    let client = server.client();
    for topic in ["a.1", "a.2", "b", "c"] {
        client.publish(topic, "text/plain", format!("{topic} old")).await;
    }
    let mut stream = client.sse(&format!("/v1/stream?topic={}&topic=b&from=earliest", escape("a.*")), None).await;
    let mut seen: Vec<String> = texts(&stream.records(3).await);
    seen.sort();
    assert_eq!(seen, ["a.1 old", "a.2 old", "b old"]);
    let cursor = stream.event("caught_up").await.id;
    client.publish("c", "text/plain", "not wanted").await;
    client.publish("a.3", "text/plain", "a.3 new").await;
    client.publish("b", "text/plain", "b new").await;
    let mut seen: Vec<String> = texts(&stream.records(2).await);
    seen.sort();
    assert_eq!(seen, ["a.3 new", "b new"], "a topic that is made later belongs to the pattern");
    let mut again = client.sse(&format!("/v1/stream?topic={}&topic=b", escape("a.*")), Some(&cursor)).await;
    let mut seen: Vec<String> = texts(&again.records(2).await);
    seen.sort();
    assert_eq!(seen, ["a.3 new", "b new"], "one cursor resumes all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_shows_only_what_the_scopes_allow() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("a.open", "text/plain", "open").await;
    client.publish("a.secret", "text/plain", "secret").await;
    let limited = server.with_scopes(&["subscribe:a.open"]).await;
    let mut stream = limited.sse(&format!("/v1/stream?topic={}&from=earliest", escape("a.*")), None).await;
    client.publish("a.secret", "text/plain", "secret").await;
    client.publish("a.open", "text/plain", "open 2").await;
    assert_eq!(texts(&stream.records(2).await), ["open", "open 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_can_be_followed_alone() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("wide", 2).await;
    let publish = |partition: u32, text: &'static str| {
        answer(
            client
                .post(&format!("/v1/topics/wide/records?partition={partition}"))
                .header("Content-Type", "text/plain")
                .body(text),
        )
    };
    let mut one = client.sse("/v1/topics/wide/records?partition=1&from=earliest", None).await;
    let mut both = client.sse("/v1/topics/wide/records?from=earliest", None).await;
    for text in ["a", "b"] {
        assert_eq!(publish(0, text).await.status, 201);
    }
    assert_eq!(publish(1, "c").await.status, 201);
    assert_eq!(texts(&one.records(1).await), ["c"]);
    let mut all = texts(&both.records(3).await);
    all.sort();
    assert_eq!(all, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_topic_ends_its_streams_and_says_so() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    let mut sse = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    let mut lines = client.ndjson(&format!("{RECORDS}?from=earliest")).await;
    let mut ws = client.ws().await;
    ws.subscribe("t", "earliest").await;
    sse.records(1).await;
    lines.records(1).await;
    ws.records(1).await;
    assert_eq!(answer(client.delete("/v1/topics/t")).await.status, 204);
    assert!(sse.event("end").await.data.contains("\"t\""));
    assert_eq!(sse.next().await.map(|event| event.event), None, "nothing comes after the end");
    while lines.control().await["control"] != "end" {}
    assert_eq!(ws.frame("end").await.topic.as_deref(), Some("t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_stream_as_an_event_source_needs_it() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    let ticket = answer(client.post("/v1/tickets")).await;
    assert_eq!(ticket.status, 201, "{}", ticket.text());
    let ticket = ticket.json()["ticket"].as_str().unwrap().to_owned();
    let path = format!("{RECORDS}?from=earliest&ticket={}", escape(&ticket));
    let stranger = server.stranger();
    let mut stream = stranger.sse(&path, None).await;
    assert_eq!(texts(&stream.records(1).await), ["x"]);
    let again = answer(stranger.get(&path).header("Accept", SSE)).await;
    assert_eq!((again.status, again.problem().code.as_str()), (401, "unauthenticated"), "a ticket is good once");
}

/// Fails when a live connection does not look again at its credential after a revocation.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_its_live_streams() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    let made = answer(client.post("/v1/keys").json(&json!({"name": "k", "scopes": ["subscribe:**"]}))).await.json();
    let other = Client::new(server.url(), made["key"].as_str());
    let mut sse = other.sse(&format!("{RECORDS}?from=earliest"), None).await;
    let mut lines = other.ndjson(&format!("{RECORDS}?from=earliest")).await;
    let mut ws = other.ws().await;
    ws.subscribe("t", "earliest").await;
    sse.records(1).await;
    lines.records(1).await;
    ws.records(1).await;
    let deleted = answer(client.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    client.publish("t", "text/plain", "after").await;
    assert!(!shows(&mut sse, "after").await, "the stream is over before it shows what came after");
    while let Some(line) = lines.next().await {
        assert!(!line.contains("after"), "{line}");
    }
    while let Some(frame) = ws.next().await {
        assert_ne!(frame.kind, "records", "{}", frame.text);
    }
    assert_eq!(answer(other.get(RECORDS)).await.status, 401);
}

async fn shows(stream: &mut SseStream, text: &str) -> bool {
    while let Some(event) = stream.next().await {
        if event.data.contains(&format!("\"{text}\"")) {
            return true;
        }
    }
    false
}

/// Fails when a follower that reads nothing holds up another, or is dropped, or loses its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_does_not_read_misses_nothing_and_holds_up_nobody() {
    const COUNT: usize = 40;
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let mut slow = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    let mut quick = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    let body = "x".repeat(200_000);
    let records: Vec<Value> = (0..COUNT).map(|_| json!({"text": body})).collect();
    client.publish("t", BATCH, json!({"records": &records[..COUNT / 2]}).to_string()).await;
    client.publish("t", BATCH, json!({"records": &records[COUNT / 2..]}).to_string()).await;
    assert_eq!(offsets(&quick.records(COUNT).await), (0..COUNT as u64).collect::<Vec<_>>());
    assert_eq!(offsets(&slow.records(COUNT).await), (0..COUNT as u64).collect::<Vec<_>>());
}
