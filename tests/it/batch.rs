//! Stored batches as they travel: out by a read, in by a publish, byte for byte.

use bytes::Bytes;
use plinth_api::batch::{BatchRecord, Frame, HEAD_BYTES, MEDIA_TYPE, decode_frames, encode_batch};
use plinth_api::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX, RECORD_KEY_BYTES_MAX,
    STORED_BATCH_BYTES_MAX,
};
use serde_json::{Value, json};

use crate::client::{Answer, BATCH, Client, answer, escape, from_cursor, offsets, payload, texts, within};
use crate::harness::Server;

/// A page of stored batches.
struct BatchPage {
    frames: Vec<Frame>,
    bytes: Bytes,
    next: String,
    caught_up: bool,
}

async fn batches(client: &Client, topic: &str, query: &str) -> BatchPage {
    let request = client.get(&format!("/v1/topics/{}/records?{query}", escape(topic)));
    let answer = answer(request.header("Accept", MEDIA_TYPE)).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(MEDIA_TYPE)), "{}", answer.text());
    BatchPage {
        frames: decode_frames(&answer.body).expect("whole frames"),
        next: answer.header("plinth-next").expect("the next cursor").to_owned(),
        caught_up: answer.header("plinth-caught-up").expect("whether it is at the tail") == "true",
        bytes: answer.body,
    }
}

async fn publish(client: &Client, path_query: &str, frame: impl Into<Bytes>) -> Answer {
    let (topic, query) = path_query.split_once('?').unwrap_or((path_query, ""));
    let path = format!("/v1/topics/{}/records?{query}", escape(topic));
    answer(client.post(&path).header("Content-Type", MEDIA_TYPE).body(frame.into())).await
}

fn text(text: &str) -> BatchRecord {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    BatchRecord { content_type: Bytes::from_static(b"text/plain"), payload, ..BatchRecord::default() }
}

fn keyed(key: &str) -> BatchRecord {
    BatchRecord { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..text(key) }
}

fn frame(records: &[BatchRecord]) -> Bytes {
    encode_batch(records).expect("it fits the form")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_read_is_published_elsewhere_byte_for_byte() {
    let server = Server::start().await;
    let client = server.client();
    let large = "x".repeat(100_000);
    let records = json!({"records": [
        {"key": "k", "headers": {"h": "v"}, "value": {"a": 1.1}},
        {"text": large, "content_type": "text/own"},
        {"base64": "AP8="},
    ]});
    client.publish("from", BATCH, records.to_string()).await;
    let read = batches(&client, "from", "").await;
    let [batch] = &read.frames[..] else { panic!("one batch: {:?}", read.frames) };
    assert_eq!((batch.head.offset, batch.head.count, batch.head.partition, read.caught_up), (0, 3, 0, true));
    assert_eq!(batch.records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(batch.records[1].payload, large);

    client.publish("to", "text/plain", "before").await;
    let stored = publish(&client, "to", read.bytes.clone()).await;
    assert_eq!(stored.status, 201, "{}", stored.text());
    let receipt = stored.json();
    assert_eq!((&receipt["offset"], &receipt["count"]), (&json!(1), &json!(3)));
    let again = batches(&client, "to", "from=offset:1").await;
    let [copy] = &again.frames[..] else { panic!("one batch: {:?}", again.frames) };
    assert_eq!(copy.body, batch.body, "the same bytes");
    assert_eq!((copy.head.offset, copy.head.body_crc), (1, batch.head.body_crc));
    assert_eq!(json!(copy.head.timestamp), receipt["timestamp"]);
    let page = client.page("to", "from=offset:1").await;
    assert_eq!(payload(&page.records[0]), br#"{"a":1.1}"#);
    assert_eq!(page.records[0].headers["h"], "v");
}

/// Fails when a stored batch comes out of the log in another form than out of the newest records in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_the_same_bytes_before_and_after_a_restart_with_an_empty_disk() {
    let mut server = Server::start().await;
    let records: Vec<_> = (0..20).map(|n| text(&"y".repeat(n * 100))).collect();
    for _ in 0..3 {
        assert_eq!(publish(&server.client(), "t", frame(&records)).await.status, 201);
    }
    let before = batches(&server.client(), "t", "").await;
    assert_eq!(before.frames.len(), 3);
    assert!(before.frames.iter().all(|read| read.body == frame(&records)[HEAD_BYTES..]));
    server.kill9().await;
    server.restart(true).await;
    let after = batches(&server.client(), "t", "").await;
    assert!(after.bytes == before.bytes, "the same bytes");
    assert_eq!((after.next, after.caught_up), (before.next, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_batches_follow_each_other_and_a_batch_is_never_cut() {
    let server = Server::start().await;
    let client = server.client();
    for number in 0..6 {
        let records: Vec<_> = (0..10).map(|n| text(&(number * 10 + n).to_string())).collect();
        assert_eq!(publish(&client, "t", frame(&records)).await.status, 201);
    }
    let begin = |page: &BatchPage| page.frames.iter().map(|frame| frame.head.offset).collect::<Vec<_>>();
    let straddling = batches(&client, "t", "from=offset:25&limit=20").await;
    assert_eq!(begin(&straddling), [20, 30], "5 records from 25 on, then 10; the next 10 would be too many");
    assert!(!straddling.caught_up);
    let rest = batches(&client, "t", &format!("from={}", from_cursor(&straddling.next))).await;
    assert_eq!((begin(&rest), rest.caught_up), (vec![40, 50], true));
    assert_eq!(begin(&batches(&client, "t", "limit=1").await), [0], "a first batch over the limit comes whole");
    assert_eq!(begin(&batches(&client, "t", "max_bytes=1").await), [0]);
    let two = 2 * (rest.frames[0].body.len());
    assert_eq!(begin(&batches(&client, "t", &format!("from=offset:20&max_bytes={two}")).await), [20, 30]);
    let at_tail = batches(&client, "t", "from=latest").await;
    assert_eq!((begin(&at_tail), at_tail.bytes.len(), at_tail.caught_up), (vec![], 0, true));
    let page = client.page("t", &format!("from={}", from_cursor(&straddling.next))).await;
    assert_eq!(offsets(&page.records)[0], 40, "the cursor is one for every transport");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_for_batches_answers_when_one_comes() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { batches(&client, "t", "from=offset:0&wait=60s").await })
    };
    client.publish("t", "text/plain", "new").await;
    let page = within("the long-poll", waiting).await.unwrap();
    assert_eq!(page.frames[0].records[0].payload, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_batch_is_whole_in_the_partition_of_its_keys() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("wide", 4).await;
    let home = async |key: &str| {
        let publish = client.publishing("wide", "text/plain", "x").header("Record-Key", key);
        answer(publish).await.json()["partition"].as_u64().expect("a number")
    };
    let (first, mut other) = (home("k0").await, None);
    for number in 1.. {
        let key = format!("k{number}");
        if home(&key).await != first {
            other = Some(key);
            break;
        }
    }
    let other = other.expect("the keys are spread");
    let stored = publish(&client, "wide", frame(&[text("no key"), keyed("k0"), keyed("k0")])).await;
    assert_eq!((stored.status, &stored.json()["partition"]), (201, &json!(first)), "{}", stored.text());
    let refused = publish(&client, "wide", frame(&[keyed("k0"), text("no key"), keyed(&other)])).await;
    let problem = refused.problem();
    assert_eq!((problem.status, problem.code.as_str()), (422, "unprocessable"));
    assert!(problem.detail.starts_with("the key of record 3 belongs to partition"), "{}", problem.detail);
    assert_eq!(problem.outcome, Some(plinth_api::error::PublishOutcome::NotStored));
    let named = (first + 1) % 4;
    let stored = publish(&client, &format!("wide?partition={named}"), frame(&[keyed("k0"), keyed(&other)])).await;
    assert_eq!((stored.status, &stored.json()["partition"]), (201, &json!(named)), "{}", stored.text());
    let stored = publish(&client, "wide", frame(&[text("a"), text("b")])).await;
    assert_eq!((stored.status, &stored.json()["count"]), (201, &json!(2)), "{}", stored.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_of_a_publish_hold_for_a_batch_too() {
    let server = Server::start().await;
    let client = server.client();
    let send = |records: Vec<BatchRecord>, headers: Vec<(&'static str, &'static str)>| {
        let request = client.post("/v1/topics/t/records").header("Content-Type", MEDIA_TYPE).body(frame(&records));
        answer(headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)))
    };
    let once = vec![("Idempotency-Key", "k1")];
    assert_eq!(send(vec![text("a"), text("b")], once.clone()).await.status, 201);
    let again = send(vec![text("a"), text("b")], once.clone()).await;
    assert_eq!((again.status, &again.json()["duplicate"], &again.json()["offset"]), (200, &json!(true), &json!(0)));
    assert_eq!(send(vec![text("other")], once).await.problem().code.as_str(), "idempotency_key_reused");
    let as_json = json!({"records": [
        {"text": "a", "content_type": "text/plain"}, {"text": "b", "content_type": "text/plain"},
    ]});
    let same = client.publishing("t", BATCH, as_json.to_string()).header("Idempotency-Key", "k1");
    assert_eq!(answer(same).await.status, 200, "the content is the same in whichever form it comes");

    let producer = |seq| vec![("Producer-Id", "p"), ("Producer-Epoch", "1"), ("Producer-Seq", seq)];
    assert_eq!(send(vec![text("c")], producer("0")).await.status, 201);
    assert_eq!(send(vec![text("c")], producer("0")).await.status, 200);
    assert_eq!(send(vec![text("d")], producer("5")).await.problem().code.as_str(), "sequence_mismatch");
    assert_eq!(send(vec![text("d")], vec![("Expected-Tail", "9")]).await.problem().code.as_str(), "tail_mismatch");
    assert_eq!(send(vec![text("d")], vec![("Expected-Tail", "3")]).await.status, 201);
    assert_eq!(texts(&client.read_all("t", 0).await), ["a", "b", "c", "d"]);
}

/// A refused body, its status and code, and words of its detail.
type Case = (&'static str, Bytes, u16, &'static str, Vec<String>);

fn changed(frame: &Bytes, at: usize) -> Bytes {
    let mut bytes = frame.to_vec();
    bytes[at] ^= 1;
    Bytes::from(bytes)
}

fn broken() -> Vec<Case> {
    let good = frame(&[text("one"), text("two")]);
    let invalid = |what, bytes, word: &str| (what, bytes, 400, "invalid_request", vec![word.to_owned()]);
    vec![
        invalid("nothing", Bytes::new(), "empty"),
        invalid("JSON", Bytes::from_static(br#"{"records":[]}"#), "cut short"),
        invalid("another magic", changed(&good, 0), "PLNB"),
        invalid("a bit of the head", changed(&good, 20), "the head of the batch at byte 0 has the checksum"),
        invalid("a bit of the body", changed(&good, good.len() - 1), "the batch at byte 0 has the checksum"),
        invalid("cut short", good.slice(..good.len() - 1), "is cut short"),
        invalid("two batches", Bytes::from(good.repeat(2)), "a publish is one batch"),
    ]
}

fn over_limits() -> Vec<Case> {
    let large = |what, records: &[BatchRecord], words: &[&dyn std::fmt::Display]| -> Case {
        (what, frame(records), 413, "too_large", words.iter().map(ToString::to_string).collect())
    };
    let header = |n: usize| (Bytes::from(format!("h{n}")), Bytes::from_static(b"v"));
    let many = BatchRecord { headers: (0..=RECORD_HEADERS_MAX).map(header).collect(), ..text("x") };
    let split = BatchRecord { headers: vec![("a".into(), "b\r\nc: d".into())], ..text("x") };
    let mib = text(&"x".repeat(RECORD_BYTES_MAX));
    let over = vec![b'x'; STORED_BATCH_BYTES_MAX + 1].into();
    vec![
        large("many records", &vec![BatchRecord::default(); BATCH_RECORDS_MAX + 1], &[&1001, &BATCH_RECORDS_MAX]),
        large(
            "a large record",
            &[text("a"), text(&"x".repeat(RECORD_BYTES_MAX + 1))],
            &[&"record 2", &RECORD_BYTES_MAX],
        ),
        large("a long key", &[keyed(&"k".repeat(RECORD_KEY_BYTES_MAX + 1))], &[&1025, &RECORD_KEY_BYTES_MAX]),
        large("many headers", &[many], &[&65, &RECORD_HEADERS_MAX]),
        large("many bytes", &vec![mib; 8], &[&BATCH_BYTES_MAX]),
        ("a body over the limit", over, 413, "too_large", vec![STORED_BATCH_BYTES_MAX.to_string()]),
        ("a header that splits", frame(&[split]), 422, "unprocessable", vec!["control character".to_owned()]),
    ]
}

/// Fails when one of the checks of the other forms is not made for this one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_or_over_a_limit_is_refused_by_name_and_nothing_is_stored() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    for (what, body, status, code, words) in broken().into_iter().chain(over_limits()) {
        let refused = publish(&client, "t", body).await;
        assert_eq!(refused.status, status, "{what}: {}", refused.text());
        let problem = refused.problem();
        assert_eq!(problem.code.as_str(), code, "{what}: {problem:?}");
        for word in words {
            assert!(problem.detail.contains(&word), "{what}: {word:?} is not in {:?}", problem.detail);
        }
        assert_eq!(problem.outcome, Some(plinth_api::error::PublishOutcome::NotStored), "{what}");
    }
    let with_key = client.post("/v1/topics/t/records").header("Content-Type", MEDIA_TYPE).header("Record-Key", "k");
    assert_eq!(answer(with_key.body(frame(&[text("x")]))).await.problem().code.as_str(), "unknown_field");
    let live = client.get("/v1/topics/t/records?unnamed=true").header("Accept", MEDIA_TYPE);
    assert_eq!(answer(live).await.problem().code.as_str(), "unknown_field");
    assert_eq!(client.count("t").await, 0, "nothing of it was stored");
}

/// Fails when the limit of the body is below what a batch within all other limits takes.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_batch_that_json_may_publish_is_published_in_its_stored_form_too() {
    let server = Server::start().await;
    let client = server.client();
    let header = |n: usize| (Bytes::from(format!("{n:02}")), Bytes::new());
    let headers: Vec<_> = (0..RECORD_HEADERS_MAX).map(header).collect();
    let payload = Bytes::from(vec![b'p'; BATCH_BYTES_MAX / BATCH_RECORDS_MAX - 2 * RECORD_HEADERS_MAX]);
    let record = BatchRecord { headers, payload, ..BatchRecord::default() };
    let frame = frame(&vec![record; BATCH_RECORDS_MAX]);
    assert!(frame.len() > BATCH_BYTES_MAX);
    let stored = publish(&client, "t", frame.clone()).await;
    assert_eq!(stored.status, 201, "{}", stored.text());
    let read = batches(&client, "t", "").await;
    assert!(read.bytes[HEAD_BYTES..] == frame[HEAD_BYTES..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_several_partitions_are_read_in_one_page() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("wide", 3).await;
    let records: Vec<Value> = (0..60).map(|n| json!({"key": format!("k{n}"), "text": n.to_string()})).collect();
    answer(client.publishing("wide", BATCH, json!({"records": records}).to_string())).await;
    let page = batches(&client, "wide", "").await;
    assert_eq!(page.frames.len(), 3);
    let mut read: Vec<String> = Vec::new();
    for frame in &page.frames {
        read.extend(frame.records.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()));
    }
    read.sort_by_key(|text| text.parse::<u32>().expect("a number"));
    assert_eq!(read, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(page.caught_up);
}
