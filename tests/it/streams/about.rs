//! Where a stream is, who may do what with it, and what is written about that.

use plinth_api::error::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::{JSON, Stream, TEXT, next};
use crate::client::{Answer, Client, answer, texts};
use crate::harness::Server;

#[tokio::test(flavor = "multi_thread")]
async fn both_roots_are_one_place_and_a_slash_may_be_escaped() {
    let server = Server::start().await;
    let client = server.client();
    let put = |path: &str| client.put(path).header("Content-Type", TEXT);
    let made = answer(put("/v1/streams/chat/room%2F1")).await;
    assert_eq!((made.status, made.header("content-type")), (201, Some(TEXT)));
    let location = format!("{}/v1/streams/chat/room%2F1", server.url());
    assert_eq!(made.header("location"), Some(location.as_str()), "as the client wrote it");
    for path in ["/v1/stream/chat/room/1", "/v1/stream/chat%2Froom%2F1", "/v1/streams/chat/room/1"] {
        assert_eq!(answer(put(path)).await.status, 200, "{path}");
    }
    assert_eq!(client.topic("chat/room/1").await.partitions, 1);
    for path in ["/v1/stream/", "/v1/stream/a//b", "/v1/stream/a/../b%2F..", "/v1/stream/_audit", "/v1/stream/a%00b"] {
        let refused = answer(put(path)).await;
        assert!([400, 403, 404].contains(&refused.status), "{path}: {} {}", refused.status, refused.text());
    }
    let options = answer(server.stranger().request(Method::OPTIONS, "/v1/stream/chat/room/1")).await;
    assert_eq!((options.status, options.header("allow")), (204, Some("PUT, POST, GET, HEAD, DELETE, OPTIONS")));
}

#[tokio::test(flavor = "multi_thread")]
async fn location_is_at_the_public_url_where_there_is_one() {
    let env = vec![("PLINTH_PUBLIC_URL".to_owned(), "https://q.example/".to_owned())];
    let server = Server::start_with(crate::harness::Options { env, ..Default::default() }).await;
    let made = answer(server.client().put("/v1/stream/s")).await;
    assert_eq!(made.header("location"), Some("https://q.example/v1/stream/s"));
}

/// What a client may do, and what it is answered otherwise.
async fn statuses(client: &Client, name: &str) -> Vec<(&'static str, u16)> {
    let stream = Stream::new(client, name);
    let mut seen = Vec::new();
    for (what, request) in [
        ("view", stream.request(Method::HEAD, "")),
        ("read", stream.request(Method::GET, "")),
        ("append", stream.post(TEXT, "x")),
        ("ensure", stream.put(TEXT)),
        ("ensure with a body", stream.put(TEXT).body("x")),
        ("delete", stream.request(Method::DELETE, "")),
    ] {
        seen.push((what, answer(request).await.status));
    }
    seen
}

// Fails when a handler asks for another scope than its route says, or PUT stores a body for who may not publish.
#[tokio::test(flavor = "multi_thread")]
async fn each_operation_needs_its_scope_and_a_body_of_put_needs_publish_too() {
    let server = Server::start().await;
    let expected = |view, read, append, ensure, body, delete| {
        vec![
            ("view", view),
            ("read", read),
            ("append", append),
            ("ensure", ensure),
            ("ensure with a body", body),
            ("delete", delete),
        ]
    };
    for (scope, seen) in [
        ("subscribe:s", expected(200, 200, 403, 403, 403, 403)),
        ("publish:s", expected(200, 403, 204, 403, 403, 403)),
        ("manage:s", expected(200, 403, 403, 200, 403, 204)),
        ("manage:other", expected(403, 403, 403, 403, 403, 403)),
    ] {
        Stream::made(&server.client(), "s", TEXT).await;
        assert_eq!(statuses(&server.with_scopes(&[scope]).await, "s").await, seen, "{scope}");
        answer(server.client().delete("/v1/stream/s")).await;
    }
}

/// Everything of an answer to HEAD that must not tell one stranger's stream from none.
fn told(seen: &Answer) -> (u16, Vec<(String, String)>) {
    let ignored = ["date", "x-request-id", "content-length"];
    let headers = seen.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (seen.status, headers)
}

// The auth matrix compares bodies, which an answer to HEAD does not have.
#[tokio::test(flavor = "multi_thread")]
async fn head_tells_a_stranger_nothing_of_a_stream() {
    let server = Server::start().await;
    Stream::made(&server.client(), "s", TEXT).await;
    let own = Stream::new(&server.client(), "s").head().await;
    assert_eq!((own.status, own.header("content-type"), own.body.len()), (200, Some(TEXT), 0));
    assert_eq!(own.header("content-length"), None, "it would be that of a page");
    for (client, status) in [(server.tenant("other").await, 404), (server.stranger(), 401)] {
        let seen = Stream::new(&client, "s").head().await;
        assert_eq!((seen.status, seen.body.len()), (status, 0));
        assert_eq!(told(&seen), told(&Stream::new(&client, "none").head().await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_a_stream_says_why() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("wide", 4).await;
    let compact = client.put("/v1/topics/compact").json(&json!({"partitions": 1, "cleanup": "compact"}));
    assert_eq!(answer(compact).await.status, 201);
    for (name, why) in [("wide", "4 partitions"), ("compact", "cleanup")] {
        let stream = Stream::new(&client, name);
        for request in [
            stream.put(TEXT),
            stream.post(TEXT, "x"),
            stream.request(Method::GET, ""),
            stream.request(Method::DELETE, ""),
        ] {
            let problem = answer(request).await.problem();
            assert_eq!(problem.code, ErrorCode::Conflict);
            assert!(problem.detail.contains(why), "{}", problem.detail);
        }
        assert_eq!(stream.head().await.status, 409);
    }
}

// Fails when the routes of streams are not audited, or the path of one is not taken for its target.
#[tokio::test(flavor = "multi_thread")]
async fn who_makes_and_deletes_a_stream_is_in_the_audit_and_who_appends_is_not() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "a/b", JSON).await;
    stream.append(JSON, "1").await;
    assert_eq!(answer(stream.request(Method::DELETE, "")).await.status, 204);
    stream.head().await;
    let mut seen = Vec::new();
    for text in texts(&client.read_all("_audit", 0).await) {
        let record: Value = serde_json::from_str(&text).unwrap();
        if record["type"] == "answered" && record["target"] == "a/b" {
            seen.push((record["operation"].as_str().unwrap().to_owned(), record["status"].as_u64().unwrap()));
        }
    }
    assert_eq!(seen, [("ensure_stream".to_owned(), 201), ("delete_stream".to_owned(), 204)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_named_and_says_that_nothing_was_stored() {
    let server = Server::start().await;
    let stream = Stream::made(&server.client(), "s", JSON).await;
    let post = |headers: &[(&str, &str)], body: &'static str| {
        let request = stream.request(Method::POST, "").body(body);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    let as_json = ("Content-Type", JSON);
    let producer = |seq| [as_json, ("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", seq)];
    for (request, status, code, words) in [
        (post(&[as_json], "{"), 400, ErrorCode::InvalidRequest, "JSON"),
        (post(&[as_json], "[]"), 400, ErrorCode::InvalidRequest, "without a message"),
        (post(&[], "1"), 400, ErrorCode::InvalidRequest, "no media type"),
        (post(&[], ""), 400, ErrorCode::InvalidRequest, "does not close"),
        (post(&[("Content-Type", TEXT)], "1"), 409, ErrorCode::ContentTypeMismatch, JSON),
        (post(&[as_json, ("Producer-Id", "p")], "1"), 400, ErrorCode::InvalidRequest, "come together"),
        (post(&producer("x"), "1"), 400, ErrorCode::InvalidRequest, "`producer-seq`"),
        (post(&producer("4"), "1"), 409, ErrorCode::SequenceMismatch, "0"),
        (post(&[as_json, ("Content-Encoding", "gzip")], "1"), 415, ErrorCode::UnsupportedMediaType, "gzip"),
    ] {
        let refused = answer(request).await;
        let problem = refused.problem();
        assert_eq!((problem.status, problem.code), (status, code), "{}", problem.detail);
        assert!(problem.detail.contains(words), "{words}: {}", problem.detail);
        assert_eq!(problem.outcome, Some(plinth_api::error::PublishOutcome::NotStored));
    }
    for (name, value) in [("Stream-TTL", "1.5"), ("Stream-Expires-At", "tomorrow"), ("Stream-TTL", "9007199254741")] {
        let refused = answer(Stream::new(&server.client(), "t").request(Method::PUT, "").header(name, value)).await;
        assert_eq!(refused.status, 400, "{name}: {value}");
        assert!(refused.problem().detail.contains(&name.to_lowercase()), "{}", refused.text());
    }
    for query in ["?offset=x", "?offset=", "?live=often", "?live=sse", "?offset=-1&offset=-1", "?offset=-1&live=poll"] {
        assert_eq!(stream.read(query).await.problem().code, ErrorCode::InvalidRequest, "{query}");
    }
    assert_eq!(stream.read("").await.text(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_has_not_changed_is_not_sent_again_and_the_closing_changes_it() {
    let server = Server::start().await;
    let stream = Stream::made(&server.client(), "s", TEXT).await;
    stream.append(TEXT, "a").await;
    let first = stream.read("").await;
    let etag = first.header("etag").expect("a page has one").to_owned();
    let again = async || answer(stream.request(Method::GET, "").header("If-None-Match", &etag)).await;
    let known = again().await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(etag.as_str())));
    assert_eq!((next(&known), known.header("stream-up-to-date")), (next(&first), Some("true")));
    let polled = stream.read("?offset=-1&live=long-poll").await;
    assert_eq!(polled.header("etag"), Some(etag.as_str()), "the same part, however it was asked for");
    let known = stream.request(Method::GET, "?offset=-1&live=long-poll").header("If-None-Match", &etag);
    assert_eq!(answer(known).await.status, 304);
    assert_eq!(stream.close().await.status, 204);
    let closed = again().await;
    assert_eq!((closed.status, closed.text().as_str(), closed.header("stream-closed")), (200, "a", Some("true")));
}

// Fails when a browser that is led to an address with a ticket runs what somebody has written, in the origin of the console.
#[tokio::test(flavor = "multi_thread")]
async fn no_browser_takes_what_a_stream_holds_for_a_page_of_the_node() {
    let server = Server::start().await;
    let stream = Stream::made(&server.client(), "s", "text/html").await;
    stream.append("text/html", "<script>alert(1)</script>").await;
    for query in ["", "?offset=now", "?offset=-1&live=long-poll"] {
        let seen = stream.read(query).await;
        assert_eq!((seen.status, seen.header("content-type")), (200, Some("text/html")), "{query}");
        assert_eq!(seen.header("content-disposition"), Some("attachment"), "{query}");
        assert_eq!(seen.header("content-security-policy"), Some("default-src 'none'; sandbox"), "{query}");
    }
}
