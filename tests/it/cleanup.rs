//! Topics that are cleaned up by key, as clients meet them: the setting, what is refused, and what readers see of it.

use plinth_api::batch::{BatchRecord, MEDIA_TYPE, decode_frames, encode_batch};
use plinth_api::records::{Gap, Record};
use plinth_api::topics::{Cleanup, Topic};
use serde_json::{Value, json};

use crate::cli;
use crate::client::{BATCH, Client, answer, escape, offsets};
use crate::harness::{Options, Server};

const RECORDS: &str = "/v1/topics/t/records";
const SEGMENT_BYTES: usize = 1 << 20;

async fn make(client: &Client) {
    let made = answer(client.put("/v1/topics/t").json(&json!({"cleanup": "compact"}))).await;
    assert_eq!((made.status, &made.json()["cleanup"]), (201, &Value::from("compact")), "{}", made.text());
}

/// Keys and texts; without a text the key is deleted.
async fn publish(client: &Client, records: &[(&str, Option<&str>)]) {
    let record = |(key, text): &(&str, Option<&str>)| match text {
        Some(text) => json!({"key": key, "text": text}),
        None => json!({"key": key}),
    };
    let records: Vec<Value> = records.iter().map(record).collect();
    client.publish("t", BATCH, json!({"records": records}).to_string()).await;
}

/// Publishes to another topic until the node has cleaned `t`, which it does after some compactions.
async fn cleaned(client: &Client) {
    let filler = "f".repeat(200_000);
    for _ in 0..1000 {
        client.publish("filler", "text/plain", filler.clone()).await;
        let metrics = answer(client.get("/metrics")).await.text();
        if !metrics.contains("plinth_cleaned_records_total 0\n") {
            return;
        }
    }
    panic!("200 times as much as a segment holds was published, and nothing was cleaned");
}

async fn small() -> Server {
    let env = vec![("PLINTH_SEGMENT_BYTES".to_owned(), SEGMENT_BYTES.to_string())];
    Server::start_with(Options { env, ..Options::default() }).await
}

fn keys(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.key.as_deref().expect("a key")).collect()
}

fn place(gap: &Gap) -> (u64, u64, &str) {
    (gap.requested, gap.resumed_at, gap.reason.as_str())
}

fn told(text: &str) -> Gap {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

// Fails when one of the transports passes over what is gone, tells it as something else, or shows what the others do not.
#[tokio::test(flavor = "multi_thread")]
async fn every_transport_shows_the_last_record_of_each_key_and_a_gap_for_what_is_gone() {
    let mut server = small().await;
    let client = server.client();
    make(&client).await;
    publish(&client, &[("a", Some("1")), ("b", Some("1")), ("a", Some("2")), ("c", Some("1")), ("a", Some("3"))]).await;
    publish(&client, &[("b", Some("2"))]).await;
    publish(&client, &[("c", None), ("d", Some("1"))]).await;
    cleaned(&client).await;
    // Offsets 4, 5, 6 and 7 are left: a=3, b=2, what deletes c, d=1.
    for restarted in [false, true] {
        if restarted {
            server.kill9().await;
            server.restart(true).await;
        }
        let client = server.client();
        let view = client.topic("t").await;
        assert_eq!((view.records, view.partition_bounds[0].start, view.partition_bounds[0].tail), (4, 0, 8));
        let page = client.page("t", "from=earliest").await;
        assert_eq!((offsets(&page.records), keys(&page.records)), (vec![4, 5, 6, 7], vec!["a", "b", "c", "d"]));
        assert_eq!(page.gaps.iter().map(place).collect::<Vec<_>>(), [(0, 4, "compacted")]);
        assert!(page.caught_up);
        let inside = client.page("t", "from=offset:2&limit=1").await;
        assert_eq!((offsets(&inside.records), place(&inside.gaps[0])), (vec![4], (2, 4, "compacted")));
        assert_eq!(offsets(&client.page("t", "from=-3").await.records), [5, 6, 7]);
        assert_eq!(offsets(&client.page("t", "from=-9").await.records), [4, 5, 6, 7]);

        let mut sse = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
        let event = sse.event("gap").await;
        assert_eq!(place(&told(&event.data)), (0, 4, "compacted"));
        assert_eq!(offsets(&sse.records(4).await), [4, 5, 6, 7]);
        let mut again = client.sse(RECORDS, Some(&event.id)).await;
        assert_eq!(offsets(&again.records(4).await), [4, 5, 6, 7], "it is told once to who has seen it");
        let mut lines = client.ndjson(&format!("{RECORDS}?from=offset:1")).await;
        let control = lines.control().await;
        assert_eq!(
            (&control["control"], &control["requested"], &control["reason"]),
            (&json!("gap"), &json!(1), &json!("compacted"))
        );
        assert_eq!(offsets(&lines.records(4).await), [4, 5, 6, 7]);
        let mut ws = client.ws().await;
        ws.subscribe("t", "earliest").await;
        assert_eq!(place(&told(&ws.frame("gap").await.text)), (0, 4, "compacted"));
        assert_eq!(offsets(&ws.records(4).await), [4, 5, 6, 7]);
        let batches = answer(client.get(&format!("{RECORDS}?from=earliest")).header("Accept", MEDIA_TYPE)).await;
        let frames = decode_frames(&batches.body).expect("whole frames");
        let held: Vec<u64> = frames
            .iter()
            .flat_map(|frame| frame.head.offset..frame.head.offset + u64::from(frame.head.count))
            .collect();
        assert_eq!((held, batches.header("plinth-gap")), (vec![4, 5, 6, 7], None), "the heads say what is missing");
        for transport in cli::TRANSPORTS {
            let args = ["subscribe", "t", "--from", "earliest", "--until-caught-up", "--transport", transport];
            let ended = cli::client(&server, &args, b"").await;
            assert!(
                ended.stderr.contains("goes on at offset 4 instead of 0 (compacted)"),
                "{transport}: {}",
                ended.stderr
            );
            assert_eq!(ended.lines().len(), 4, "{transport}");
        }
    }
    publish(&server.client(), &[("e", Some("1"))]).await;
    assert_eq!(offsets(&server.client().page("t", "from=-1").await.records), [8], "offsets go on");
}

// Fails when one of the ways to publish goes past the check.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_key_is_refused_on_every_way_to_publish() {
    let server = Server::start().await;
    let client = server.client();
    make(&client).await;
    let stored = encode_batch(&[
        BatchRecord { key: Some("k".into()), ..BatchRecord::default() },
        BatchRecord { payload: "x".into(), ..BatchRecord::default() },
    ]);
    for (content_type, body) in [
        ("text/plain", b"one".to_vec()),
        (BATCH, br#"{"records":[{"key":"k","text":"a"},{"text":"b"}]}"#.to_vec()),
        ("application/x-ndjson", b"{\"a\":1}\n".to_vec()),
        (MEDIA_TYPE, stored.expect("it fits the form").to_vec()),
    ] {
        let refused = answer(client.publishing("t", content_type, body)).await;
        assert_eq!((refused.status, refused.problem().code.as_str()), (422, "unprocessable"), "{content_type}");
        let detail = refused.problem().detail;
        assert!(detail.contains("of topic t needs a key: its cleanup is compact"), "{content_type}: {detail}");
    }
    let mut ws = client.ws().await;
    ws.send(&json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": "x"}]})).await;
    let problem = ws.frame("error").await.problem.expect("a problem");
    assert!(problem.detail.contains("needs a key"), "{}", problem.detail);
    assert_eq!(client.count("t").await, 0);
    let keyed = answer(client.publishing("t", "text/plain", "one").header("Record-Key", "k")).await;
    assert_eq!(keyed.status, 201, "{}", keyed.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_shows_its_cleanup_a_put_compares_it_and_a_patch_changes_it() {
    let mut server = Server::start().await;
    let client = server.client();
    make(&client).await;
    let put = |body: Value| client.put("/v1/topics/t").json(&body);
    assert_eq!(answer(put(json!({}))).await.status, 200, "what is left out is not compared");
    let refused = answer(put(json!({"cleanup": "delete"}))).await;
    assert_eq!((refused.status, refused.problem().detail.as_str()), (409, "topic t has cleanup compact"));
    let unknown = answer(put(json!({"cleanup": "shred"}))).await;
    assert_eq!(unknown.status, 400, "{}", unknown.text());
    let plain: Topic = answer(client.put("/v1/topics/u").json(&json!({}))).await.parse();
    assert_eq!(plain.cleanup, Cleanup::Delete);
    let changed = answer(client.patch("/v1/topics/t").json(&json!({"cleanup": "delete"}))).await;
    assert_eq!(changed.json()["cleanup"], "delete");
    client.publish("t", "text/plain", "without a key").await;
    let listed = answer(client.get(&format!("/v1/topics?prefix={}", escape("t")))).await.json();
    assert_eq!(listed["data"][0]["cleanup"], "delete");
    answer(client.patch("/v1/topics/t").json(&json!({"cleanup": "compact"}))).await;
    answer(client.patch("/v1/topics/t").json(&json!({"max_record_bytes": 100}))).await;
    server.kill9().await;
    server.restart(true).await;
    assert_eq!(server.client().topic("t").await.cleanup, Cleanup::Compact, "a change of something else leaves it");
    let made = cli::client(&server, &["topics", "create", "v", "--cleanup", "compact"], b"").await;
    assert_eq!(made.json()["cleanup"], "compact");
    let changed = cli::client(&server, &["topics", "update", "v", "--cleanup", "delete"], b"").await;
    assert_eq!(changed.json()["cleanup"], "delete");
}
