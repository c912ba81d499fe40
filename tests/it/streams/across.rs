//! A stream is a topic: what is written by one protocol is read by all the others.

use plinth_api::error::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::{JSON, Stream, TEXT, is_closed, next};
use crate::client::{BATCH, answer, texts};
use crate::harness::Server;

const RECORDS: &str = "/v1/topics/s/records?from=earliest";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_gets_is_seen_by_every_transport_of_topics() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", TEXT).await;
    let mut events = client.sse(RECORDS, None).await;
    let mut lines = client.ndjson(RECORDS).await;
    let mut socket = client.ws().await;
    socket.send(&json!({"type": "subscribe", "id": "s", "topics": ["s"], "from": "earliest"})).await;
    for text in ["a", "b", " c"] {
        stream.append(TEXT, text).await;
    }
    assert_eq!(texts(&events.records(3).await), ["a", "b", " c"]);
    assert_eq!(texts(&lines.records(3).await), ["a", "b", " c"]);
    assert_eq!(texts(&client.page("s", "").await.records), ["a", "b", " c"]);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(texts(&socket.next().await.expect("the connection is open").records));
    }
    assert_eq!(seen, ["a", "b", " c"]);
    assert_eq!(client.page("s", "").await.records[0].content_type.as_deref(), Some(TEXT));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_topics_get_is_seen_in_the_stream_and_of_json_each_record_is_a_message() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", JSON).await;
    let mut live = client.sse("/v1/stream/s?offset=-1&live=sse", None).await;
    client.publish("s", JSON, "{\"n\": 1}").await;
    client.publish("s", JSON, "[2, 3]").await;
    let batch = json!({"records": [{"value": 4, "content_type": JSON}, {"value": [5], "content_type": JSON}]});
    client.publish("s", BATCH, batch.to_string()).await;
    let mut socket = client.ws().await;
    let records = json!([{"value": {"n": 6}, "content_type": JSON}]);
    socket.send(&json!({"type": "publish", "id": "p", "topic": "s", "records": records})).await;
    let stored = socket.next().await.expect("the connection is open");
    assert_eq!(stored.kind, "published", "{}", stored.text);
    stream.append(JSON, "[7, 8]").await;
    let whole = json!([{"n": 1}, [2, 3], 4, [5], {"n": 6}, 7, 8]);
    assert_eq!(stream.read("").await.json(), whole);
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let event = live.event("data").await;
        seen.append(&mut serde_json::from_str::<Vec<Value>>(&event.data).expect("an event of JSON is an array"));
    }
    assert_eq!(Value::from(seen), whole);
    for (content_type, body, status) in [(TEXT, "x", 422), (JSON, "{", 422)] {
        let refused = answer(client.publishing("s", content_type, body)).await;
        assert_eq!(refused.status, status, "what a reader of the stream could not read: {}", refused.text());
    }
    assert_eq!(stream.read("").await.json(), whole);
}

// Fails when the core refuses an append after the end for streams alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stream_takes_nothing_from_anyone_and_says_where_it_ends() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", TEXT).await;
    let end = stream.append(TEXT, "last").await;
    assert_eq!(stream.close().await.status, 204);
    let by_stream = answer(stream.post(TEXT, "x")).await;
    assert_eq!((by_stream.problem().code, next(&by_stream), is_closed(&by_stream)), (ErrorCode::Closed, end, true));
    let by_rest = answer(client.publishing("s", TEXT, "x")).await.problem();
    assert_eq!((by_rest.status, by_rest.code, by_rest.tail), (409, ErrorCode::Closed, Some(1)));
    let mut socket = client.ws().await;
    let records = json!([{"text": "x", "content_type": TEXT}]);
    socket.send(&json!({"type": "publish", "id": "p", "topic": "s", "records": records})).await;
    let refused = socket.next().await.expect("the connection is open");
    assert_eq!(refused.problem.expect("it is refused").code, ErrorCode::Closed);
    assert_eq!(texts(&client.page("s", "").await.records), ["last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_one_partition_is_a_stream_of_bytes() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("s", 1).await;
    client.publish("s", TEXT, "a").await;
    let stream = Stream::new(&client, "s");
    assert_eq!(stream.head().await.header("content-type"), Some("application/octet-stream"));
    let ensured = answer(stream.request(Method::PUT, "")).await;
    assert_eq!(ensured.status, 200, "{}", ensured.text());
    stream.append("application/octet-stream", "b").await;
    assert_eq!(stream.read("").await.text(), "ab");
    assert_eq!(answer(client.delete("/v1/topics/s")).await.status, 204);
    assert_eq!(stream.head().await.status, 404);
}
