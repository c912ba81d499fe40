//! Live readers: what wakes them, and what ends them.

use plinth_api::error::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::{JSON, Stream, TEXT, is_closed, next};
use crate::client::{Client, SSE, SseStream, answer, within};
use crate::harness::{Options, Server};

/// The next control event, past data.
async fn control(events: &mut SseStream) -> Value {
    serde_json::from_str(&events.event("control").await.data).expect("a control event is JSON")
}

// Fails when the long-poll is not woken by what it waits for: then it ends empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_woken_by_an_append_and_by_a_closing_without_one() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", TEXT).await;
    let wait = |offset: &str| {
        let request = stream.request(Method::GET, &format!("?offset={offset}&live=long-poll"));
        tokio::spawn(answer(request))
    };
    let waiting = wait(&next(&stream.head().await));
    client.publish("s", TEXT, "by rest").await;
    let woken = within("the long-poll", waiting).await.unwrap();
    assert_eq!((woken.status, woken.text().as_str()), (200, "by rest"));
    assert!(woken.header("stream-cursor").is_some());
    let waiting = wait(&next(&woken));
    assert_eq!(stream.close().await.status, 204);
    let closed = within("the long-poll", waiting).await.unwrap();
    assert_eq!((closed.status, is_closed(&closed), closed.header("stream-cursor")), (204, true, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_bring_appends_to_one_that_follows_and_end_with_the_stream() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", TEXT).await;
    let mut events = client.sse("/v1/stream/s?offset=-1&live=sse", None).await;
    let first = control(&mut events).await;
    assert_eq!((&first["upToDate"], first["streamCursor"].is_string()), (&json!(true), true));
    stream.append(TEXT, " two\nlines ").await;
    let data = events.event("data").await;
    assert_eq!(data.data, " two\nlines ");
    let end = next(&stream.head().await);
    assert_eq!(control(&mut events).await["streamNextOffset"], end.as_str());
    let last = answer(stream.post(TEXT, "last").header("Stream-Closed", "true")).await;
    assert_eq!(events.event("data").await.data, "last");
    let closed = control(&mut events).await;
    let expected = json!({"streamNextOffset": next(&last), "upToDate": true, "streamClosed": true});
    assert_eq!(closed, expected);
    assert!(events.next().await.is_none(), "and the connection ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_opens_events_by_a_ticket_and_comes_back_by_its_cookie() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", JSON).await;
    stream.append(JSON, "1").await;
    let ticket = answer(client.post("/v1/tickets")).await.json()["ticket"].as_str().unwrap().to_owned();
    let path = format!("/v1/stream/s?offset=-1&live=sse&ticket={ticket}");
    let open = || server.stranger().get(&path).header("Accept", SSE).header("Sec-Fetch-Site", "same-origin");
    let first = open().send().await.unwrap();
    assert_eq!(first.status(), 200);
    let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let mut events = SseStream::new(first);
    assert_eq!(events.event("data").await.data, "[1]");
    assert_eq!(open().send().await.unwrap().status(), 401, "a ticket is good once");
    let again = open().header("Cookie", cookie).send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(SseStream::new(again).event("data").await.data, "[1]");
}

// Fails when a live reader does not look at what ends its credential.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_deleted_takes_its_live_readers_along() {
    let server = Server::start().await;
    let client = server.client();
    Stream::made(&client, "s", TEXT).await;
    let made =
        answer(client.post("/v1/keys").json(&json!({"name": "reader", "scopes": ["subscribe:**"]}))).await.json();
    let reader = Client::new(server.url(), made["key"].as_str());
    let mut events = reader.sse("/v1/stream/s?offset=now&live=sse", None).await;
    control(&mut events).await;
    let waiting = tokio::spawn(answer(reader.get("/v1/stream/s?offset=now&live=long-poll")));
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(answer(client.delete(&path)).await.status, 204);
    assert!(events.next().await.is_none());
    let refused = within("the long-poll", waiting).await.unwrap();
    assert_eq!(refused.problem().code, ErrorCode::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_ends_its_live_readers() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", TEXT).await;
    let mut events = client.sse("/v1/stream/s?offset=now&live=sse", None).await;
    control(&mut events).await;
    assert_eq!(answer(stream.request(Method::DELETE, "")).await.status, 204);
    assert!(events.next().await.is_none());
}

/// Waits until the tenant has so many followers.
async fn until_followers(client: &Client, count: u64) {
    loop {
        let report = answer(client.get("/v1/quotas")).await.json();
        let followers = report["quotas"].as_array().unwrap().iter().find(|one| one["quota"] == "followers").unwrap();
        if followers["used"].as_u64() == Some(count) {
            return;
        }
    }
}

// Fails when a node that ends waits for its live readers.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_answers_long_polls_and_ends_events() {
    let env = vec![("PLINTH_STREAM_LONG_POLL".to_owned(), "60s".to_owned())];
    let mut server = Server::start_with(Options { env, ..Options::default() }).await;
    let client = server.client();
    Stream::made(&client, "s", TEXT).await;
    let mut events = client.sse("/v1/stream/s?offset=now&live=sse", None).await;
    let waiting = tokio::spawn(answer(client.get("/v1/stream/s?offset=now&live=long-poll")));
    until_followers(&client, 2).await;
    assert!(server.terminate().await.success());
    let answered = within("the long-poll", waiting).await.unwrap();
    assert_eq!((answered.status, answered.header("stream-up-to-date")), (204, Some("true")));
    while events.next().await.is_some() {}
}
