//! What one answer and one request may hold, and what is no longer kept.

use plinth_api::error::ErrorCode;
use plinth_api::limits::{BATCH_BYTES_MAX, STREAM_MEDIA_TYPE_BYTES_MAX, STREAM_MESSAGES_MAX};
use reqwest::Method;
use serde_json::{Value, json};

use super::{JSON, Stream, TEXT, is_closed, next};
use crate::client::answer;
use crate::harness::{Options, Server};

const BOUND: usize = 4096;

async fn bounded() -> Server {
    let env = vec![("PLINTH_STREAM_RESPONSE_BYTES".to_owned(), BOUND.to_string())];
    Server::start_with(Options { env, ..Default::default() }).await
}

// Fails when a batch is not cut to the bound, or the cut loses or repeats a record.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_bounded_and_together_they_are_the_stream() {
    let server = bounded().await;
    let stream = Stream::made(&server.client(), "s", JSON).await;
    let messages: Vec<Value> = (0..3000).map(|number| json!({"number": number})).collect();
    stream.append(JSON, Value::from(&messages[..2500]).to_string()).await;
    stream.append(JSON, Value::from(&messages[2500..]).to_string()).await;
    stream.close().await;
    let (mut offset, mut read, mut pages) = ("-1".to_owned(), Vec::new(), 0);
    loop {
        let page = stream.read(&format!("?offset={offset}")).await;
        assert!(page.body.len() <= BOUND + 2, "{} bytes", page.body.len());
        read.append(&mut page.parse::<Vec<Value>>());
        pages += 1;
        let at_end = page.header("stream-up-to-date") == Some("true");
        assert_eq!(is_closed(&page), at_end, "the end is told with the last of it");
        assert!(offset == "-1" || next(&page) > offset, "offsets sort as they come");
        offset = next(&page);
        if at_end {
            break;
        }
    }
    assert_eq!((read, pages >= 10), (messages, true));
}

// Fails when the media type of a stream, which each record has, may be so long that a short append of many messages is a large one.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_append_stores_is_not_many_times_what_was_sent() {
    let server = Server::start().await;
    let client = server.client();
    let media_type = |bytes: usize| format!("{JSON};x={}", "a".repeat(bytes - JSON.len() - 3));
    let long = answer(Stream::new(&client, "s").put(&media_type(STREAM_MEDIA_TYPE_BYTES_MAX + 1))).await;
    assert_eq!(long.problem().code, ErrorCode::InvalidRequest);
    assert!(long.problem().detail.contains("media type of 256 bytes exceeds the limit of 255"), "{}", long.text());
    let stream = Stream::made(&client, "s", &media_type(STREAM_MEDIA_TYPE_BYTES_MAX)).await;
    let most = Value::from(vec![1; STREAM_MESSAGES_MAX]).to_string();
    stream.append(JSON, most).await;
    let over = answer(stream.post(JSON, Value::from(vec![1; STREAM_MESSAGES_MAX + 1]).to_string())).await;
    assert_eq!(over.problem().code, ErrorCode::TooLarge);
    assert_eq!(client.count("s").await, STREAM_MESSAGES_MAX as u64);
}

// Fails when a browser that has a page of one credential gives it to another one: each tenant has a stream at that address.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_may_keep_is_kept_for_the_credential_that_it_was_read_with() {
    let server = bounded().await;
    let stream = Stream::made(&server.client(), "s", TEXT).await;
    stream.append(TEXT, "x".repeat(BOUND)).await;
    let end = stream.append(TEXT, "y".repeat(BOUND)).await;
    let kept = stream.read("").await;
    assert_eq!(kept.header("cache-control"), Some("private, max-age=60, stale-while-revalidate=300"));
    assert_eq!(kept.header("vary"), Some("Authorization, Plinth-Tenant, Origin"));
    let etag = kept.header("etag").expect("a page has one");
    let known = answer(stream.request(Method::GET, "").header("If-None-Match", etag)).await;
    assert_eq!((known.status, known.header("vary")), (304, kept.header("vary")));
    let last = stream.read(&format!("?offset={end}")).await;
    assert_eq!((last.header("cache-control"), last.header("vary")), (Some("private, no-cache"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_a_record_comes_back_as_it_was() {
    let server = bounded().await;
    let client = server.client();
    let body: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).take(5 << 20).collect();
    let stream = Stream::made(&client, "s", "application/octet-stream").await;
    stream.append("application/octet-stream", body.clone()).await;
    let (whole, pages) = stream.read_all().await;
    assert!(whole == body && pages > 1, "{pages} pages");
    assert_eq!(client.count("s").await, 5, "in records of a mebibyte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_with_the_limit_and_nothing_of_it_is_stored() {
    let server = Server::start().await;
    let stream = Stream::made(&server.client(), "s", TEXT).await;
    for request in [
        stream.post(TEXT, vec![b'x'; BATCH_BYTES_MAX + 1]),
        Stream::new(&server.client(), "t").put(TEXT).body(vec![b'x'; BATCH_BYTES_MAX + 1]),
    ] {
        let problem = answer(request).await.problem();
        assert_eq!((problem.status, problem.code), (413, ErrorCode::TooLarge));
        assert!(problem.detail.contains(&BATCH_BYTES_MAX.to_string()), "{}", problem.detail);
    }
    assert_eq!(stream.read("").await.body.len(), 0);
    assert_eq!(Stream::new(&server.client(), "t").head().await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_answers_410_and_the_start_is_the_first_that_is_kept() {
    let server = Server::start().await;
    let client = server.client();
    let stream = Stream::made(&client, "s", TEXT).await;
    let first = next(&stream.head().await);
    let second = stream.append(TEXT, "a").await;
    stream.append(TEXT, "b").await;
    assert_eq!(answer(client.delete("/v1/topics/s/records?before=1&partition=0")).await.status, 200);
    for query in
        [format!("?offset={first}"), format!("?offset={first}&live=long-poll"), format!("?offset={first}&live=sse")]
    {
        let gone = stream.read(&query).await.problem();
        assert_eq!((gone.status, gone.code), (410, ErrorCode::Gone), "{query}");
        assert!(gone.detail.contains("-1"), "it says how to go on: {}", gone.detail);
    }
    for query in ["", "?offset=-1", &format!("?offset={second}")] {
        assert_eq!(stream.read(query).await.text(), "b", "{query}");
    }
}

// Fails when streams do not count for quotas, or a refusal costs what was not stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_answers_429_and_says_when_to_come_back() {
    let server = Server::start().await;
    let client = server.tenant("small").await;
    let stream = Stream::made(&client, "s", TEXT).await;
    let quotas = json!({"quotas": {"publish_records_per_second": 1}});
    assert_eq!(answer(server.root().patch("/v1/tenants/small").json(&quotas)).await.status, 200);
    let mut refused = None;
    for _ in 0..100 {
        let appended = answer(stream.post(TEXT, "x")).await;
        if appended.status == 429 {
            refused = Some(appended);
            break;
        }
    }
    let refused = refused.expect("a hundred are more than a second's");
    let problem = refused.problem();
    assert_eq!(problem.code, ErrorCode::QuotaExceeded);
    assert_eq!(problem.violated_policies.as_deref(), Some(&["publish_records_per_second".to_owned()][..]));
    assert!(refused.header("retry-after").is_some());
    let longer = answer(stream.request(Method::POST, "").header("Stream-Closed", "true")).await;
    assert_eq!(longer.status, 204, "to close it costs no record: {}", longer.text());
}
