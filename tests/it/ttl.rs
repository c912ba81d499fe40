//! Records with a time to live, as clients meet them: on every way in, and as a gap on every way out.

use bytes::Bytes;
use plinth_api::batch::{BatchRecord, MEDIA_TYPE, decode_frames, encode_batch};
use plinth_api::limits::RECORD_TTL_MS_MAX;
use plinth_api::records::{Gap, Record};
use serde_json::json;

use crate::cli;
use crate::client::{BATCH, Client, answer, offsets, within};
use crate::harness::Server;

const RECORDS: &str = "/v1/topics/t/records";

fn stored(text: &'static str, ttl_ms: Option<u64>) -> BatchRecord {
    BatchRecord { ttl_ms, payload: Bytes::from_static(text.as_bytes()), ..BatchRecord::default() }
}

fn told(text: &str) -> Gap {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn place(gap: &Gap) -> (u64, u64, &str) {
    (gap.requested, gap.resumed_at, gap.reason.as_str())
}

/// Publishes 12 records on every way in. Those at 1, 2, 4, 5, 6, 9 and 10 live for a second.
async fn publish(server: &Server, client: &Client) {
    for (ttl, text) in [("1h", "a"), ("1s", "b")] {
        let stored = answer(client.publishing("t", "text/plain", text).header("Record-TTL", ttl)).await;
        assert_eq!(stored.status, 201, "{}", stored.text());
    }
    let batch = json!({"records": [{"ttl": "1s", "text": "c"}, {"text": "d"}, {"ttl": "1000ms", "text": "e"}]});
    client.publish("t", BATCH, batch.to_string()).await;
    let mut ws = client.ws().await;
    ws.send(&json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": "f", "ttl": "1s"}]})).await;
    assert_eq!(ws.frame("published").await.receipts[0].offset, 5);
    let frame = encode_batch(&[stored("g", Some(1_000)), stored("h", None), stored("i", Some(3_600_000))]);
    client.publish("t", MEDIA_TYPE, frame.expect("it fits the form")).await;
    let published = cli::client(server, &["publish", "t", "--ttl", "1s"], b"j\nk\n").await;
    assert_eq!(published.json()["stored"], 2, "{}", published.stderr);
    client.publish("t", "text/plain", "l").await;
}

/// Waits until a record at `offset` has expired, with the help of a long-poll that ends by itself.
async fn expired(client: &Client, offset: u64) {
    client.make_topic("quiet", 1).await;
    within("a record expires", async {
        while client.page("t", &format!("from=offset:{offset}&limit=1")).await.records[0].offset == offset {
            client.page("quiet", "wait=50ms").await;
        }
    })
    .await;
}

const LIVE: [u64; 5] = [0, 3, 7, 8, 11];
const GAPS: [(u64, u64, &str); 3] = [(1, 3, "expired"), (4, 7, "expired"), (9, 11, "expired")];

/// What lies between the gaps.
const RUNS: [&[u64]; 4] = [&[0], &[3], &[7, 8], &[11]];

async fn check_streams(client: &Client) {
    let mut sse = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    let mut lines = client.ndjson(&format!("{RECORDS}?from=earliest")).await;
    let mut ws = client.ws().await;
    ws.subscribe("t", "earliest").await;
    for (run, gap) in RUNS.into_iter().zip(GAPS.map(Some).into_iter().chain([None])) {
        assert_eq!(offsets(&sse.records(run.len()).await), run);
        assert_eq!(offsets(&lines.records(run.len()).await), run);
        assert_eq!(offsets(&ws.records(run.len()).await), run);
        let Some(gap) = gap else { break };
        let event = sse.event("gap").await;
        assert_eq!(place(&told(&event.data)), gap);
        assert_eq!(place(&told(&lines.control().await.to_string())), gap);
        assert_eq!(place(&told(&ws.frame("gap").await.text)), gap);
        let mut again = client.sse(RECORDS, Some(&event.id)).await;
        assert_eq!(offsets(&again.records(1).await), [gap.1], "it is told once to who has seen it");
    }
}

// Fails when one of the ways in forgets the time to live, and when one of the transports shows what the others do not.
#[tokio::test(flavor = "multi_thread")]
async fn every_transport_shows_what_has_not_expired_and_a_gap_for_what_has() {
    let mut server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    publish(&server, &client).await;
    expired(&client, 10).await;
    for restarted in [false, true] {
        if restarted {
            server.kill9().await;
            server.restart(true).await;
        }
        let client = server.client();
        let page = client.page("t", "from=earliest").await;
        assert_eq!(offsets(&page.records), LIVE);
        assert_eq!(page.gaps.iter().map(place).collect::<Vec<_>>(), GAPS);
        assert!(page.caught_up && page.records.iter().all(|record: &Record| record.headers.is_empty()));
        let waited = client.page("t", "from=offset:9&wait=60s").await;
        assert_eq!((offsets(&waited.records), place(&waited.gaps[0])), (vec![11], GAPS[2]));
        check_streams(&client).await;
        let batches = answer(client.get(&format!("{RECORDS}?from=earliest")).header("Accept", MEDIA_TYPE)).await;
        let frames = decode_frames(&batches.body).expect("whole frames");
        let heads: Vec<_> = frames.iter().map(|frame| (frame.head.offset, frame.head.count)).collect();
        assert_eq!((heads, batches.header("plinth-gap")), (vec![(0, 1), (3, 1), (7, 2), (11, 1)], None));
        assert_eq!(frames[0].records[0].ttl_ms, Some(3_600_000), "a batch says how long its records live");
        assert_eq!(frames[2].records, [stored("h", None), stored("i", Some(3_600_000))]);
        for transport in cli::TRANSPORTS {
            let args = ["subscribe", "t", "--from", "earliest", "--until-caught-up", "--transport", transport];
            let ended = cli::client(&server, &args, b"").await;
            let told = "goes on at offset 3 instead of 1 (expired)";
            assert!(ended.stderr.contains(told), "{transport}: {}", ended.stderr);
            assert_eq!(ended.lines().len(), 5, "{transport}");
        }
    }
    assert_eq!(server.client().topic("t").await.records, 12, "they are there until the topic's retention takes them");
}

// Fails when a batch that waits for credit is sent on as it was, without a look at the clock.
#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_a_subscription_has_no_credit_is_a_gap_when_it_goes_on() {
    let server = Server::start().await;
    let client = server.client();
    let batch = json!({"records": [{"text": "a"}, {"text": "b", "ttl": "1s"}, {"text": "c"}]});
    client.publish("t", BATCH, batch.to_string()).await;
    let mut ws = client.ws().await;
    ws.send(&json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest", "credit": 1})).await;
    assert_eq!(offsets(&ws.records(1).await), [0]);
    expired(&client, 1).await;
    ws.send(&json!({"type": "credit", "sub": "s", "n": 9})).await;
    assert_eq!(place(&told(&ws.frame("gap").await.text)), (1, 2, "expired"));
    assert_eq!(offsets(&ws.records(1).await), [2]);
}

// Fails when a header without a name gets past one of the ways in, or a bound is not checked on one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_that_cannot_be_is_refused_on_every_way_to_publish() {
    let server = Server::start().await;
    let client = server.client();
    for (ttl, status) in [("999ms", 422), ("11y", 422), ("soon", 400), ("1", 400)] {
        let one = answer(client.publishing("t", "text/plain", "x").header("Record-TTL", ttl)).await;
        assert_eq!(one.status, status, "{ttl}");
        assert!(one.problem().detail.contains("the header `record-ttl`"), "{}", one.text());
        let batch = json!({"records": [{"text": "x"}, {"text": "y", "ttl": ttl}]}).to_string();
        let batch = answer(client.publishing("t", BATCH, batch)).await;
        assert_eq!(batch.status, status, "{ttl}");
        assert!(batch.problem().detail.contains("record 2: `ttl`"), "{}", batch.text());
        let refused = cli::client(&server, &["publish", "t", "--ttl", ttl], b"x\n").await;
        assert!(refused.stderr.contains(ttl), "{}", refused.stderr);
    }
    for ttl_ms in [0, 999, RECORD_TTL_MS_MAX + 1] {
        let frame = encode_batch(&[stored("x", Some(ttl_ms))]).expect("it fits the form");
        let refused = answer(client.publishing("t", MEDIA_TYPE, frame)).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(refused.problem().detail.contains("is not within 1s to 10y"), "{}", refused.text());
    }
    let unnamed = |value: &'static [u8]| (Bytes::new(), Bytes::from_static(value));
    for (headers, status) in [
        (vec![unnamed(b"1234567")], 400),
        (vec![unnamed(b"\xe8\x03\0\0\0\0\0\0"), unnamed(b"\xe8\x03\0\0\0\0\0\0")], 422),
        (vec![(Bytes::from_static(b"a"), Bytes::new()), unnamed(b"\xe8\x03\0\0\0\0\0\0")], 422),
    ] {
        let frame = encode_batch(&[BatchRecord { headers, ..stored("x", None) }]).expect("it fits the form");
        let refused = answer(client.publishing("t", MEDIA_TYPE, frame)).await;
        assert_eq!(refused.status, status, "{}", refused.text());
    }
    let unnamed = json!({"records": [{"text": "x", "headers": {"": "12345678"}}]}).to_string();
    assert_eq!(answer(client.publishing("t", BATCH, unnamed)).await.status, 422);
    let lines = answer(client.publishing("t", "application/x-ndjson", "1\n").header("Record-TTL", "1h")).await;
    assert_eq!((lines.status, lines.problem().code.as_str()), (400, "unknown_field"), "{}", lines.text());
    assert_eq!(answer(client.get("/v1/topics/t")).await.status, 404, "nothing was stored");
}
