//! Forks of streams over HTTP: what their headers ask for, who may make them, and what the other transports see of them.

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::client::{Answer, Client, answer, texts};
use crate::harness::Server;

const START: &str = "0000000000000000_0000000000000000";

fn put(client: &Client, name: &str) -> RequestBuilder {
    client.put(&format!("/v1/stream/{name}"))
}

async fn made(client: &Client, name: &str, content_type: &str, body: &str) {
    let request = put(client, name).header("Content-Type", content_type).body(body.to_owned());
    let made = answer(request).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

async fn append(client: &Client, name: &str, body: &str) {
    let request = client.post(&format!("/v1/stream/{name}")).header("Content-Type", "text/plain").body(body.to_owned());
    let appended = answer(request).await;
    assert_eq!(appended.status, 204, "{}", appended.text());
}

async fn fork(client: &Client, name: &str, from: &str, more: &[(&str, &str)]) -> Answer {
    let request = put(client, name).header("Stream-Forked-From", from);
    answer(more.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn read(client: &Client, name: &str) -> String {
    let read = answer(client.get(&format!("/v1/streams/{name}"))).await;
    assert_eq!(read.status, 200, "{}", read.text());
    read.text()
}

#[tokio::test]
async fn a_fork_begins_with_what_its_source_holds_on_every_transport_and_after_a_crash() {
    let mut server = Server::start().await;
    let client = server.client();
    made(&client, "a/s", "text/plain", "hello ").await;
    append(&client, "a/s", "world").await;
    for (name, from, more, expected) in [
        ("whole", "/v1/stream/a/s", vec![], "hello world"),
        ("of-the-tenant", "/t/default/v1/stream/a/s", vec![], "hello world"),
        ("encoded", "/v1/streams/a%2Fs", vec![("Stream-Fork-Offset", START)], ""),
        ("part", "/v1/stream/a/s", vec![("Stream-Fork-Offset", START), ("Stream-Fork-Sub-Offset", "4")], "hell"),
    ] {
        for status in [201, 200] {
            let forked = fork(&client, name, from, &more).await;
            assert_eq!(
                (forked.status, forked.header("content-type")),
                (status, Some("text/plain")),
                "{}",
                forked.text()
            );
        }
        append(&client, name, "!").await;
        assert_eq!(read(&client, name).await, format!("{expected}!"));
    }
    let page = client.page("part", "from=earliest").await;
    assert_eq!(texts(&page.records), ["hell", "!"]);
    append(&client, "a/s", "?").await;
    server.kill9().await;
    server.restart(true).await;
    let client = server.client();
    assert_eq!(read(&client, "whole").await, "hello world!");
    assert_eq!(read(&client, "part").await, "hell!");
    assert_eq!(read(&client, "a/s").await, "hello world?");
}

#[tokio::test]
async fn what_cannot_be_forked_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let client = server.client();
    made(&client, "s", "text/plain", "abc").await;
    for (from, more, status) in [
        ("/v1/stream/nothing", vec![], 404),
        ("/elsewhere/s", vec![], 404),
        ("/t/other/v1/stream/s", vec![], 404),
        ("/v1/stream/_x", vec![], 400),
        ("/v1/stream/s", vec![("Stream-Fork-Offset", "9999999999999999_9999999999999999")], 400),
        ("/v1/stream/s", vec![("Stream-Fork-Offset", "x")], 400),
        ("/v1/stream/s", vec![("Stream-Fork-Sub-Offset", "1")], 400),
        ("/v1/stream/s", vec![("Stream-Fork-Offset", START), ("Stream-Fork-Sub-Offset", "4")], 400),
        ("/v1/stream/s", vec![("Stream-Fork-Offset", START), ("Stream-Fork-Sub-Offset", "01")], 400),
        ("/v1/stream/s", vec![("Content-Type", "application/json")], 409),
    ] {
        let refused = fork(&client, "f", from, &more).await;
        assert_eq!(refused.status, status, "{from} {more:?}: {}", refused.text());
    }
    let alone = answer(put(&client, "f").header("Stream-Fork-Offset", START)).await;
    assert_eq!(alone.status, 400, "{}", alone.text());
    assert_eq!(answer(client.delete("/v1/stream/s")).await.status, 204);
    assert_eq!(answer(client.request(Method::HEAD, "/v1/stream/s")).await.status, 404, "no fork keeps it");
}

#[tokio::test]
async fn what_is_deleted_answers_410_everywhere_until_its_last_fork_is_deleted() {
    let server = Server::start().await;
    let client = server.client();
    made(&client, "s", "text/plain", "abc").await;
    assert_eq!(fork(&client, "f", "/v1/stream/s", &[]).await.status, 201);
    assert_eq!((client.topic("s").await.forks, client.topic("f").await.forks), (1, 0));
    let trimmed = answer(client.delete("/v1/topics/s/records?before=latest")).await;
    assert_eq!(trimmed.status, 409, "{}", trimmed.text());
    assert_eq!(answer(client.delete("/v1/stream/s")).await.status, 204);
    let text = |request: RequestBuilder| request.header("Content-Type", "text/plain").body("x");
    for request in [
        client.request(Method::HEAD, "/v1/stream/s"),
        client.get("/v1/stream/s"),
        client.get("/v1/stream/s?offset=now&live=long-poll"),
        client.get("/v1/stream/s?offset=-1&live=sse"),
        text(client.post("/v1/stream/s")),
        client.delete("/v1/stream/s"),
        client.get("/v1/topics/s"),
        client.get("/v1/topics/s/records"),
        client.get("/v1/stream?topic=s"),
        text(client.post("/v1/topics/s/records")),
        client.patch("/v1/topics/s").json(&json!({"max_record_bytes": 9})),
        client.delete("/v1/topics/s"),
        client.delete("/v1/topics/s/records?before=latest"),
    ] {
        let gone = answer(request).await;
        assert_eq!(gone.status, 410, "{}", gone.text());
    }
    for request in
        [put(&client, "s"), put(&client, "g").header("Stream-Forked-From", "/v1/stream/s"), client.put("/v1/topics/s")]
    {
        let blocked = answer(request.header("Content-Type", "text/plain")).await;
        assert_eq!(blocked.status, 409, "{}", blocked.text());
    }
    assert_eq!(read(&client, "f").await, "abc");
    let listed = answer(client.get("/v1/topics")).await.json();
    let names = listed["data"].as_array().expect("a list").iter().map(|topic| topic["name"].as_str().expect("a name"));
    assert_eq!(names.filter(|name| !name.starts_with('_')).collect::<Vec<_>>(), ["f"]);
    assert_eq!(answer(client.delete("/v1/stream/f")).await.status, 204);
    assert_eq!(answer(client.request(Method::HEAD, "/v1/stream/s")).await.status, 404);
    made(&client, "s", "application/json", "[1]").await;
}

/// Fails when a fork is made by who may not read its source: it would be a way to read it.
#[tokio::test]
async fn who_forks_a_stream_must_be_allowed_to_read_it() {
    let server = Server::start().await;
    let client = server.client();
    made(&client, "secret", "text/plain", "abc").await;
    made(&client, "open", "text/plain", "abc").await;
    let scopes = ["manage:**", "publish:**", "subscribe:open"];
    let limited = server.with_scopes(&scopes).await;
    let refused = fork(&limited, "f", "/v1/stream/secret", &[]).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let unknown = fork(&limited, "f", "/v1/stream/nothing", &[]).await;
    assert_eq!(unknown.status, 403, "{}", unknown.text());
    assert_eq!(fork(&limited, "f", "/v1/stream/open", &[]).await.status, 201);
    let reader = server.with_scopes(&["subscribe:**"]).await;
    assert_eq!(fork(&reader, "g", "/v1/stream/open", &[]).await.status, 403, "and to make the fork");
}
