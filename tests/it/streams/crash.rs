//! What is left of a stream after `kill -9` and a wiped cache: all of each append, or nothing.

use reqwest::{Method, RequestBuilder};

use super::{JSON, Stream, TEXT, is_closed, next};
use crate::client::{Answer, answer};
use crate::harness::Server;

fn by_producer(request: RequestBuilder, epoch: u64, seq: u64) -> RequestBuilder {
    let request = request.header("Producer-Id", "p").header("Producer-Epoch", epoch.to_string());
    request.header("Producer-Seq", seq.to_string())
}

fn producer(answer: &Answer) -> (u16, Option<&str>, Option<&str>) {
    (answer.status, answer.header("producer-epoch"), answer.header("producer-seq"))
}

// Fails when data, producer, sequence and closing are not one entry: each is asked for after the crash.
#[tokio::test(flavor = "multi_thread")]
async fn data_producer_sequence_and_closing_survive_together() {
    let mut server = Server::start().await;
    let stream = Stream::made(&server.client(), "s", JSON).await;
    let append = |stream: &Stream, seq| by_producer(stream.post(JSON, format!("[{seq}]")), 3, seq);
    assert_eq!(producer(&answer(append(&stream, 0).header("Stream-Seq", "a")).await), (200, Some("3"), Some("0")));
    let last = append(&stream, 1).header("Stream-Seq", "b").header("Stream-Closed", "true");
    let closed = answer(last).await;
    assert_eq!((producer(&closed), is_closed(&closed)), ((200, Some("3"), Some("1")), true));
    let open = Stream::made(&server.client(), "t", TEXT).await;
    answer(by_producer(open.post(TEXT, "x"), 3, 0).header("Stream-Seq", "b")).await;

    server.kill9().await;
    server.restart(true).await;

    let stream = Stream::new(&server.client(), "s");
    let read = stream.read("").await;
    assert_eq!((read.text().as_str(), next(&read), is_closed(&read)), ("[0,1]", next(&closed), true));
    let again = answer(append(&stream, 1).header("Stream-Closed", "true")).await;
    assert_eq!(
        (producer(&again), is_closed(&again)),
        ((204, Some("3"), Some("1")), true),
        "what closed it is known again"
    );
    let other = answer(append(&stream, 2)).await;
    assert_eq!((other.status, is_closed(&other), next(&other)), (409, true, next(&closed)));
    let open = Stream::new(&server.client(), "t");
    assert_eq!(producer(&answer(by_producer(open.post(TEXT, "x"), 3, 0)).await), (204, Some("3"), Some("0")));
    let stale = answer(by_producer(open.post(TEXT, "x"), 2, 0)).await;
    assert_eq!((stale.status, stale.header("producer-epoch")), (403, Some("3")));
    assert_eq!(answer(by_producer(open.post(TEXT, "y"), 3, 1).header("Stream-Seq", "b")).await.status, 409);
    assert_eq!(answer(by_producer(open.post(TEXT, "y"), 3, 1).header("Stream-Seq", "c")).await.status, 200);
    assert_eq!(open.read("").await.text(), "xy");
}

// Fails when the topic and its first content are two commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_is_whole_with_its_body_its_end_and_its_closing() {
    let mut server = Server::start().await;
    let made =
        |stream: &Stream| stream.put(TEXT).header("Stream-TTL", "3600").header("Stream-Closed", "true").body("all");
    let first = answer(made(&Stream::new(&server.client(), "s"))).await;
    assert_eq!((first.status, is_closed(&first)), (201, true));
    server.kill9().await;
    server.restart(true).await;
    let stream = Stream::new(&server.client(), "s");
    let again = answer(made(&stream)).await;
    assert_eq!((again.status, next(&again)), (200, next(&first)), "the repetition finds all of it");
    let head = stream.head().await;
    assert_eq!((head.header("stream-ttl"), is_closed(&head)), (Some("3600"), true));
    assert_eq!(stream.read("").await.text(), "all");
    assert_eq!(answer(stream.put(TEXT)).await.status, 409, "it is not one without an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ended_by_itself_stays_away_after_a_restart_and_its_name_is_free() {
    let mut server = Server::start().await;
    let stream = Stream::new(&server.client(), "s");
    let made = answer(stream.put(TEXT).header("Stream-Expires-At", "2020-01-01T00:00:00Z").body("old")).await;
    assert_eq!(made.status, 201);
    assert_eq!(stream.head().await.status, 404);
    server.kill9().await;
    server.restart(true).await;
    let stream = Stream::new(&server.client(), "s");
    for method in [Method::GET, Method::HEAD, Method::DELETE] {
        assert_eq!(answer(stream.request(method.clone(), "")).await.status, 404, "{method}");
    }
    assert_eq!(answer(stream.post(TEXT, "x")).await.status, 404);
    assert_eq!(answer(stream.put(JSON)).await.status, 201);
    assert_eq!(stream.read("").await.text(), "[]");
    assert_eq!(server.client().count("s").await, 0);
}
