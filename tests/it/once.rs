//! A publish that is sent again, by a producer's sequence or an idempotency key, and publishes that depend on the tail or a
//! fencing token.

use plinth_api::records::{PublishResult, PublishResults, Receipt};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Answer, BATCH, Client, answer, offsets, texts};
use crate::harness::Server;

fn publishing(client: &Client, text: &str) -> RequestBuilder {
    client.publishing("t", "text/plain", text.to_owned())
}

fn produced(client: &Client, text: &str, epoch: u64, seq: u64) -> RequestBuilder {
    let request = publishing(client, text).header("Producer-Id", "sensor-1");
    request.header("Producer-Epoch", epoch).header("Producer-Seq", seq)
}

fn keyed(client: &Client, text: &str, key: &str) -> RequestBuilder {
    publishing(client, text).header("Idempotency-Key", key)
}

/// The receipt of a publish that was stored by this request.
fn new(answer: &Answer) -> Receipt {
    assert_eq!(answer.status, 201, "{}", answer.text());
    let receipt: Receipt = answer.parse();
    assert!(!receipt.duplicate);
    receipt
}

/// The receipt of a publish that an earlier request had stored, as that one got it.
fn repeated(answer: &Answer) -> Receipt {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let receipt: Receipt = answer.parse();
    assert!(receipt.duplicate);
    Receipt { duplicate: false, ..receipt }
}

fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!((answer.status, answer.problem().code.as_str()), (status, code), "{}", answer.text());
    assert_eq!(answer.json()["outcome"], "not_stored");
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producers_sequence_is_stored_once_and_in_order() {
    let mut server = Server::start().await;
    let client = server.client();
    let first = new(&answer(produced(&client, "a", 3, 0)).await);
    assert_eq!(repeated(&answer(produced(&client, "a", 3, 0)).await), first);
    assert_eq!(new(&answer(produced(&client, "b", 3, 1)).await).offset, 1);
    let gap = refused(&answer(produced(&client, "d", 3, 3)).await, 409, "sequence_mismatch");
    assert_eq!(gap["expected_seq"], 2);
    server.kill9().await;
    server.restart(true).await;
    let client = server.client();
    assert_eq!(repeated(&answer(produced(&client, "a", 3, 0)).await), first, "also after all disks are lost");
    assert_eq!(new(&answer(produced(&client, "c", 3, 2)).await).offset, 2);
    assert_eq!(refused(&answer(produced(&client, "x", 4, 3)).await, 409, "sequence_mismatch")["expected_seq"], 0);
    assert_eq!(new(&answer(produced(&client, "d", 4, 0)).await).offset, 3);
    assert_eq!(refused(&answer(produced(&client, "x", 3, 3)).await, 409, "fenced")["epoch"], 4);
    assert_eq!(texts(&client.read_all("t", 0).await), ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_gives_the_first_receipt_and_refuses_other_content() {
    let mut server = Server::start().await;
    let client = server.client();
    let first = new(&answer(keyed(&client, "a", "k-1").header("Record-Header-X", "1")).await);
    // Quoted, on another connection, and with a trace of its own it is the same request.
    let again = || keyed(&server.client(), "a", "\"k-1\"").header("Record-Header-X", "1");
    assert_eq!(repeated(&answer(again().header("Traceparent", "00-1-2-01")).await), first);
    for other in [
        keyed(&client, "b", "k-1").header("Record-Header-X", "1"),
        keyed(&client, "a", "k-1").header("Record-Header-X", "2"),
        keyed(&client, "a", "k-1").header("Record-Header-X", "1").header("Record-Key", "k"),
        keyed(&client, "a", "k-1"),
    ] {
        refused(&answer(other).await, 422, "idempotency_key_reused");
    }
    // The same key is free in another topic and in another tenant.
    let elsewhere = client.publishing("u", "text/plain", "b").header("Idempotency-Key", "k-1");
    assert_eq!(new(&answer(elsewhere).await).offset, 0);
    assert_eq!(new(&answer(keyed(&server.tenant("other").await, "b", "k-1")).await).offset, 0);
    server.kill9().await;
    server.restart(true).await;
    let client = server.client();
    assert_eq!(repeated(&answer(keyed(&client, "a", "k-1").header("Record-Header-X", "1")).await), first);
    assert_eq!(texts(&client.read_all("t", 0).await), ["a"]);
}

// Fails when two requests that come at once are both new.
#[tokio::test(flavor = "multi_thread")]
async fn of_requests_at_once_with_one_key_one_is_stored_and_all_have_its_receipt() {
    let server = Server::start().await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let client = server.client();
        tasks.spawn(async move { answer(keyed(&client, "a", "k")).await });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| answer.parse::<Receipt>().offset == 0));
    assert_eq!(server.client().count("t").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_share_of_a_spanning_batch_is_stored_once() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 4).await;
    let batch = |texts: &str| {
        let records: Vec<Value> =
            (0..20).map(|number| json!({"key": format!("key-{number}"), "text": format!("{texts}{number}")})).collect();
        client.publishing("t", BATCH, json!({"records": records}).to_string()).header("Idempotency-Key", "k")
    };
    let places = |answer: &Answer, duplicate: bool| -> Vec<(u32, u64)> {
        assert_eq!(answer.status, 207, "{}", answer.text());
        let place = |result: &PublishResult| {
            let PublishResult::Stored(receipt) = result else { panic!("{result:?}") };
            assert_eq!(receipt.duplicate, duplicate);
            (receipt.partition, receipt.offset)
        };
        answer.parse::<PublishResults>().results.iter().map(place).collect()
    };
    let first = places(&answer(batch("a")).await, false);
    assert_eq!(places(&answer(batch("a")).await, true), first);
    refused(&answer(batch("b")).await, 422, "idempotency_key_reused");
    assert_eq!(client.count("t").await, 20);
}

// Fails when a record without a key goes to the partition of its connection also when it is sent again on another one, or
// when other content is noticed only in the partition that the first went to.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_topic_of_many_partitions_a_repeated_publish_finds_the_first() {
    let server = Server::start().await;
    server.client().make_topic("t", 16).await;
    let first = new(&answer(keyed(&server.client(), "a", "k")).await);
    let producer = new(&answer(produced(&server.client(), "p", 0, 0)).await);
    for number in 0..5 {
        let client = server.client();
        assert_eq!(repeated(&answer(keyed(&client, "a", "k")).await), first);
        assert_eq!(repeated(&answer(produced(&client, "p", 0, 0)).await), producer);
        let elsewhere = keyed(&client, "a", "k").header("Record-Key", number.to_string());
        refused(&answer(elsewhere).await, 422, "idempotency_key_reused");
    }
    assert_eq!(server.client().count("t").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expected_tail_lets_one_of_many_through() {
    let server = Server::start().await;
    let mut tasks = JoinSet::new();
    server.client().make_topic("t", 1).await;
    for number in 0..10 {
        let client = server.client();
        tasks.spawn(async move { answer(publishing(&client, &number.to_string()).header("Expected-Tail", 0)).await });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for other in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused(other, 409, "tail_mismatch")["tail"], 1);
    }
    let client = server.client();
    let once = || keyed(&client, "next", "k").header("Expected-Tail", 1);
    let first = new(&answer(once()).await);
    assert_eq!(repeated(&answer(once()).await), first, "a repeated publish was stored, whatever the tail is by now");
    assert_eq!(offsets(&client.read_all("t", 0).await), [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_fencing_token_is_refused_also_after_a_restart() {
    let mut server = Server::start().await;
    let with = |client: &Client, token: u64| publishing(client, "x").header("Fencing-Token", token);
    new(&answer(with(&server.client(), 5)).await);
    new(&answer(with(&server.client(), 5)).await);
    assert_eq!(refused(&answer(with(&server.client(), 4)).await, 409, "fenced")["fencing_token"], 5);
    server.kill9().await;
    server.restart(true).await;
    assert_eq!(refused(&answer(with(&server.client(), 4)).await, 409, "fenced")["fencing_token"], 5);
    new(&answer(publishing(&server.client(), "without one")).await);
    new(&answer(with(&server.client(), 6)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_of_one_partition_want_it_named_in_a_topic_of_several() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 2).await;
    for (name, value) in [("Expected-Tail", "0"), ("Fencing-Token", "1")] {
        refused(&answer(publishing(&client, "x").header(name, value)).await, 422, "unprocessable");
        let named = client.post("/v1/topics/t/records?partition=1").header("Content-Type", "text/plain");
        assert_eq!(answer(named.header(name, value).body("x")).await.status, 201, "{name}");
    }
    let records: Vec<Value> = (0..20).map(|number| json!({"key": number.to_string()})).collect();
    let spanning = client.publishing("t", BATCH, json!({"records": records}).to_string());
    let spanning = spanning.header("Producer-Id", "p").header("Producer-Epoch", 0).header("Producer-Seq", 0);
    refused(&answer(spanning).await, 422, "unprocessable");
    assert_eq!(client.count("t").await, 2);
}

// Fails when frames of one connection overtake each other, or lose what they are recognized by.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_websocket_the_same_holds() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let frame = |id: &str, terms: Value| {
        let mut frame = json!({"type": "publish", "id": id, "topic": "t", "records": [{"text": "a"}]});
        frame.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        frame
    };
    let seq = |seq: u64| frame(&seq.to_string(), json!({"producer": {"id": "p", "epoch": 0, "seq": seq}}));
    let mut socket = client.ws().await;
    for number in 0..50 {
        socket.send(&seq(number)).await;
    }
    drop(socket);
    // Nothing is known of those: send all of them again.
    let mut socket = client.ws().await;
    for number in 0..60 {
        socket.send(&seq(number)).await;
    }
    // Those of one slot are answered in any order.
    for _ in 0..60 {
        let published = socket.frame("published").await;
        assert_eq!(published.id, Some(published.receipts[0].offset.to_string()));
    }
    let mut refusal = async |frame: Value| {
        socket.send(&frame).await;
        socket.frame("error").await.problem.expect("an error has a problem")
    };
    assert_eq!(refusal(seq(99)).await.expected_seq, Some(60));
    assert_eq!(refusal(frame("e", json!({"expected_tail": 3}))).await.tail, Some(60));
    // A key is the same key on both transports, and so is the content.
    let text = client.publishing("t", "text/plain; charset=utf-8", "a").header("Idempotency-Key", "k");
    let first = new(&answer(text).await);
    socket.send(&frame("k", json!({"idempotency_key": "k"}))).await;
    let published = socket.frame("published").await;
    assert_eq!((published.receipts[0].offset, published.receipts[0].duplicate), (first.offset, true));
    assert_eq!(client.count("t").await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_that_cannot_be_read_are_refused_and_named() {
    let server = Server::start().await;
    let client = server.client();
    let long = "k".repeat(256);
    for (headers, status, word) in [
        (vec![("Idempotency-Key", "")], 400, "visible ASCII"),
        (vec![("Idempotency-Key", "a b")], 400, "visible ASCII"),
        (vec![("Idempotency-Key", "\"a")], 400, "quoted"),
        (vec![("Idempotency-Key", "a"), ("Idempotency-Key", "b")], 400, "more than once"),
        (vec![("Idempotency-Key", long.as_str())], 413, "255"),
        (vec![("Producer-Id", "p"), ("Producer-Seq", "0")], 400, "together"),
        (vec![("Producer-Id", "p"), ("Producer-Epoch", "-1"), ("Producer-Seq", "0")], 400, "`producer-epoch`"),
        (vec![("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", "9007199254740992")], 400, "limit"),
        (vec![("Expected-Tail", "one")], 400, "`expected-tail`"),
        (vec![("Fencing-Token", "1"), ("Fencing-Token", "2")], 400, "more than once"),
        (
            vec![("Idempotency-Key", "k"), ("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", "0")],
            400,
            "not by both",
        ),
    ] {
        let request =
            headers.iter().fold(publishing(&client, "x"), |request, (name, value)| request.header(*name, *value));
        let answer = answer(request).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
        assert!(answer.problem().detail.contains(word), "{headers:?}: {}", answer.problem().detail);
    }
    assert_eq!(client.count("t").await, 0, "no topic was made");
}
