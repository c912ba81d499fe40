//! What a topic keeps, and what readers on each transport are told of records that are gone.

use plinth_api::batch::{MEDIA_TYPE, decode_frames};
use plinth_api::records::{Gap, Record, RecordPage};
use plinth_api::topics::{PartitionBounds, Retention, Topic, Trimmed};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::client::{
    BATCH, Client, SSE, SseStream, answer, escape, from_cursor, offsets, records_path, texts, topic_path, within,
};
use crate::harness::Server;

/// Ten records, one per batch and run.
async fn ten(server: &Server, topic: &str) -> Client {
    let client = server.client();
    for number in 0..10 {
        client.publish(topic, "text/plain", number.to_string()).await;
    }
    client
}

fn trimming(client: &Client, topic: &str, query: &str) -> RequestBuilder {
    client.delete(&format!("{}?{query}", records_path(topic)))
}

async fn trim(client: &Client, topic: &str, query: &str) -> Vec<PartitionBounds> {
    let trimmed = answer(trimming(client, topic, query)).await;
    assert_eq!(trimmed.status, 200, "{query}: {}", trimmed.text());
    let trimmed: Trimmed = trimmed.parse();
    assert_eq!(trimmed.topic, topic);
    trimmed.partition_bounds
}

fn starts(bounds: &[PartitionBounds]) -> Vec<(u32, u64)> {
    bounds.iter().map(|bounds| (bounds.partition, bounds.start)).collect()
}

/// The retention as it is shown.
async fn shown(client: &Client, topic: &str) -> Value {
    let view = answer(client.get(&topic_path(topic))).await.json();
    let listed = answer(client.get(&format!("/v1/topics?prefix={topic}"))).await.json();
    assert_eq!(view["retention"], listed["data"][0]["retention"], "the list shows it as the view does");
    view["retention"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_shows_what_it_keeps_and_a_put_compares_it() {
    let server = Server::start().await;
    let client = server.client();
    let put = |body: Value| client.put("/v1/topics/t").json(&body);
    let made = answer(put(json!({"retention": {"age": "7d", "bytes": "10GiB"}}))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let kept = json!({"age": "7d", "bytes": 10_u64 << 30});
    assert_eq!(shown(&client, "t").await, kept);
    // The same in other words, and what is left out is not compared.
    for same in [json!({}), json!({"retention": {"age": "168h", "bytes": 10_u64 << 30}}), json!({"partitions": 1})] {
        assert_eq!(answer(put(same.clone())).await.status, 200, "{same}");
    }
    for other in [json!({}), json!({"age": "7d"}), json!({"age": "8d", "bytes": "10GiB"}), json!({"bytes": "10GiB"})] {
        let refused = answer(put(json!({"retention": other}))).await;
        assert_eq!(refused.status, 409, "{other}: {}", refused.text());
        assert!(refused.problem().detail.contains("retention age 7d and bytes 10737418240"), "{}", refused.text());
    }
    assert_eq!(answer(client.put("/v1/topics/u").json(&json!({}))).await.status, 201);
    assert_eq!(shown(&client, "u").await, Value::Null);
    let refused = answer(client.put("/v1/topics/u").json(&json!({"retention": {"age": "7d"}}))).await;
    assert_eq!((refused.status, refused.problem().detail.as_str()), (409, "topic u has no retention"));
}

// Fails when a field that is left out is taken for one that is null.
#[tokio::test(flavor = "multi_thread")]
async fn a_patch_changes_what_it_names_and_null_takes_a_limit_away_also_after_a_restart() {
    let mut server = Server::start().await;
    answer(server.client().put("/v1/topics/t").json(&json!({}))).await;
    for (patch, kept) in [
        (json!({"age": "12h"}), json!({"age": "12h"})),
        (json!({"bytes": 5000}), json!({"age": "12h", "bytes": 5000})),
        (json!({"age": "90m", "bytes": "1MiB"}), json!({"age": "90m", "bytes": 1 << 20})),
        (json!({}), json!({"age": "90m", "bytes": 1 << 20})),
        (json!({"age": null}), json!({"bytes": 1 << 20})),
        (json!({"age": "1s", "bytes": null}), json!({"age": "1s"})),
        (Value::Null, Value::Null),
        (json!({"age": "36500d"}), json!({"age": "36500d"})),
    ] {
        let changed = answer(server.client().patch("/v1/topics/t").json(&json!({"retention": patch}))).await;
        assert_eq!(changed.status, 200, "{patch}: {}", changed.text());
        assert_eq!(changed.json()["retention"], kept, "{patch}");
        assert_eq!(shown(&server.client(), "t").await, kept, "{patch}");
    }
    // A change of something else leaves it.
    answer(server.client().patch("/v1/topics/t").json(&json!({"max_record_bytes": 10}))).await;
    server.kill9().await;
    server.restart(true).await;
    let view: Topic = server.client().topic("t").await;
    let kept = Retention { age: Some("36500d".into()), bytes: None };
    assert_eq!((view.retention, view.max_record_bytes), (Some(kept), 10));
}

/// A refused request: what it is, the status and code, and words of the detail.
type Refused = (&'static str, RequestBuilder, (u16, &'static str), &'static str);

fn refused_settings(client: &Client) -> Vec<Refused> {
    const UNREADABLE: (u16, &str) = (400, "invalid_request");
    const SENSELESS: (u16, &str) = (422, "unprocessable");
    let mut all = Vec::new();
    for (what, retention, status, words) in [
        ("no time", json!({"age": "soon"}), UNREADABLE, "retention age \"soon\" is not a time"),
        ("a number for a time", json!({"age": 7}), UNREADABLE, "expected a string"),
        ("no time at all", json!({"age": "0s"}), SENSELESS, "retention age 0ms is not within 1s to 36500d"),
        ("a short time", json!({"age": "999ms"}), SENSELESS, "retention age 999ms is not within 1s to 36500d"),
        ("a long time", json!({"age": "36501d"}), SENSELESS, "retention age 36501d is not within 1s to 36500d"),
        ("an endless time", json!({"age": "500000000000y"}), SENSELESS, "is not within 1s to 36500d"),
        ("no bytes", json!({"bytes": 0}), SENSELESS, "retention bytes 0 is not within 1 to 9007199254740991"),
        ("no bytes in words", json!({"bytes": "0B"}), SENSELESS, "retention bytes 0 is not within 1"),
        ("many bytes", json!({"bytes": "9000TiB"}), SENSELESS, "is not within 1 to 9007199254740991"),
        ("more than there is", json!({"bytes": "99999999999TiB"}), UNREADABLE, "retention bytes"),
        ("a unit that is none", json!({"bytes": "10 gigs"}), UNREADABLE, "unknown unit \"gigs\""),
        ("less than nothing", json!({"bytes": -1}), UNREADABLE, "`bytes` must be a number of bytes or a size"),
        ("half a byte", json!({"bytes": 0.5}), UNREADABLE, "`bytes` must be"),
        ("another field", json!({"ages": "7d"}), (400, "unknown_field"), "`ages`"),
        ("a list", json!(["7d"]), UNREADABLE, "expected an object or null"),
    ] {
        let body = json!({"retention": retention});
        all.push((what, client.put("/v1/topics/new").json(&body), status, words));
        all.push((what, client.patch("/v1/topics/t").json(&body), status, words));
    }
    all
}

fn refused_trims(client: &Client) -> Vec<Refused> {
    const UNREADABLE: (u16, &str) = (400, "invalid_request");
    let trim = |topic: &str, query: &str| trimming(client, topic, query);
    vec![
        ("no place", trim("t", ""), UNREADABLE, "the query parameter `before` is missing"),
        ("an empty place", trim("t", "before="), UNREADABLE, "before \"\" is none of an offset"),
        ("no offset", trim("t", "before=-1"), UNREADABLE, "before \"-1\" is none of"),
        ("a word", trim("t", "before=earliest"), UNREADABLE, "before \"earliest\" is none of"),
        ("a time that is none", trim("t", "before=time:yesterday"), UNREADABLE, "time:<RFC 3339>"),
        ("two places", trim("t", "before=1&before=2"), UNREADABLE, "`before` is given more than once"),
        ("another parameter", trim("t", "before=1&from=2"), (400, "unknown_field"), "`from`"),
        ("a partition that is none", trim("t", "before=1&partition=x"), UNREADABLE, "`partition`"),
        ("a partition too far", trim("t", "before=1&partition=1"), UNREADABLE, "has 1 partitions"),
        ("above the tail", trim("t", "before=11"), (416, "offset_above_tail"), "the tail, which is 10"),
        ("far above", trim("t", "before=18446744073709551615"), (416, "offset_above_tail"), "which is 10"),
        ("one offset of many", trim("many", "before=0"), UNREADABLE, "needs one partition"),
        ("no such topic", trim("none", "before=0"), (404, "not_found"), "none"),
        ("no topic", trim("_use", "before=0"), (400, "invalid_topic_name"), "_use"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_or_a_trim_that_makes_no_sense_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let client = ten(&server, "t").await;
    client.make_topic("many", 3).await;
    for (what, request, expected, words) in refused_settings(&client).into_iter().chain(refused_trims(&client)) {
        let answer = answer(request).await;
        let problem = answer.problem();
        assert_eq!((answer.status, problem.code.as_str()), expected, "{what}: {}", answer.text());
        assert!(problem.detail.contains(words), "{what}: {words:?} is not in {:?}", problem.detail);
        assert_eq!(problem.tail, (answer.status == 416).then_some(10), "{what}");
    }
    assert_eq!(answer(client.get("/v1/topics/new")).await.status, 404, "no topic was made");
    assert_eq!(shown(&client, "t").await, Value::Null);
    assert_eq!(client.page("t", "").await.records.len(), 10);
}

// Fails when a trim is not durable, when it goes back, or when its bytes still count.
#[tokio::test(flavor = "multi_thread")]
async fn records_before_an_offset_are_gone_for_ever_and_the_others_stay() {
    let mut server = Server::start().await;
    let client = ten(&server, "t").await;
    let whole = client.topic("t").await.bytes;
    let [bounds] = trim(&client, "t", "before=4").await[..] else { panic!("one partition") };
    assert_eq!((bounds.partition, bounds.start, bounds.tail), (0, 4, 10));
    assert_eq!(bounds.bytes, whole / 10 * 6);
    // Lower, and the same again: nothing happens.
    for query in ["before=0", "before=3&partition=0", "before=4"] {
        assert_eq!(starts(&trim(&client, "t", query).await), [(0, 4)], "{query}");
    }
    server.kill9().await;
    server.restart(true).await;
    let client = server.client();
    let view = client.topic("t").await;
    assert_eq!((view.records, view.bytes, starts(&view.partition_bounds)), (6, bounds.bytes, vec![(0, 4)]));
    assert_eq!(texts(&client.page("t", "from=earliest").await.records), ["4", "5", "6", "7", "8", "9"]);
    assert_eq!(texts(&client.page("t", "from=-100").await.records).len(), 6);
    assert_eq!(texts(&client.page("t", "from=time:2001-01-01T00:00:00Z").await.records).len(), 6);
    // To the tail: nothing is left, and offsets go on.
    assert_eq!(starts(&trim(&client, "t", "before=10").await), [(0, 10)]);
    let view = client.topic("t").await;
    assert_eq!((view.records, view.bytes), (0, 0));
    assert_eq!(client.page("t", "from=earliest").await.records.len(), 0);
    assert_eq!(client.publish("t", "text/plain", "10").await.offset, 10);
    assert_eq!(texts(&client.page("t", "from=earliest").await.records), ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_by_time_or_latest_holds_for_every_partition() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 3).await;
    for (partition, text) in [(0, "a"), (0, "b"), (2, "c")] {
        let path = format!("{}?partition={partition}", records_path("t"));
        let stored = answer(client.post(&path).header("Content-Type", "text/plain").body(text)).await;
        assert_eq!(stored.status, 201, "{}", stored.text());
    }
    assert_eq!(starts(&trim(&client, "t", "before=time:2001-01-01T00:00:00Z").await), [(0, 0), (1, 0), (2, 0)]);
    let last = client.page("t", "from=-1&partition=0").await.records.remove(0);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(last.timestamp + 1);
    let after = escape(&humantime::format_rfc3339_millis(time).to_string());
    assert_eq!(starts(&trim(&client, "t", &format!("before=time:{after}&partition=0")).await), [(0, 2)]);
    assert_eq!(starts(&trim(&client, "t", "before=latest").await), [(0, 2), (1, 0), (2, 1)]);
    assert_eq!(client.page("t", "from=earliest").await.records.len(), 0);
}

/// The texts of all records from the start, on each transport, and of stored batches also the first offset.
async fn read_on_every_transport(client: &Client, count: usize) -> Vec<(&'static str, Vec<String>)> {
    let path = format!("{}?from=earliest", records_path("t"));
    let mut read = vec![("a page", texts(&client.page("t", "from=earliest").await.records))];
    read.push(("NDJSON", texts(&client.ndjson(&path).await.records(count).await)));
    let (mut sse, mut records) = (client.sse(&path, None).await, Vec::new());
    while records.len() < count {
        records.push(sse.record().await.expect("the stream goes on").0);
    }
    read.push(("SSE", texts(&records)));
    let mut ws = client.ws().await;
    ws.subscribe("t", "earliest").await;
    read.push(("WebSocket", texts(&ws.records(count).await)));
    for query in ["from=earliest", "from=offset:27", "from=earliest&max_bytes=1"] {
        let request = client.get(&format!("{}?{query}", records_path("t"))).header("Accept", MEDIA_TYPE);
        let frames = decode_frames(&answer(request).await.body).expect("whole frames");
        assert_eq!((frames[0].head.offset, frames[0].head.count), (25, 5), "{query}");
        let payloads = frames.iter().flat_map(|frame| &frame.records).map(|record| record.payload.to_vec());
        let texts: Vec<_> = payloads.map(|payload| String::from_utf8(payload).expect("text")).collect();
        assert_eq!(texts[..5], ["25", "26", "27", "28", "29"], "{query}");
        if query == "from=earliest" {
            read.push(("stored batches", texts));
        }
    }
    read
}

// Fails when a batch in which a start lies is given out whole, as it is stored.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_trim_took_out_of_a_batch_come_on_no_transport() {
    let mut server = Server::start().await;
    for batch in 0..4 {
        let records: Vec<Value> = (0..10).map(|number| json!({"text": (10 * batch + number).to_string()})).collect();
        server.client().publish("t", BATCH, json!({"records": records}).to_string()).await;
    }
    trim(&server.client(), "t", "before=25").await;
    let kept: Vec<String> = (25..40).map(|number| number.to_string()).collect();
    for after in ["the trim", "a restart"] {
        for (transport, read) in read_on_every_transport(&server.client(), kept.len()).await {
            assert_eq!(read, kept, "{transport}, after {after}");
        }
        if after == "the trim" {
            server.kill9().await;
            server.restart(true).await;
        }
    }
}

/// What a stream says of a hole.
fn hole(requested: u64, resumed_at: u64) -> Gap {
    Gap { topic: "t".into(), partition: 0, requested, resumed_at, reason: "trimmed".into() }
}

async fn sse_gap(mut stream: SseStream) -> (Gap, Record) {
    let gap = stream.next().await.expect("the stream is open");
    assert_eq!(gap.event, "gap", "{}", gap.data);
    assert!(!gap.id.is_empty(), "who is cut off here goes on after the gap");
    let gap = serde_json::from_str(&gap.data).expect("a gap is JSON");
    (gap, stream.record().await.expect("the stream goes on").0)
}

// Fails when a transport passes over a hole in silence, or does not say where it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn every_transport_tells_of_records_that_are_gone() {
    let server = Server::start().await;
    let client = ten(&server, "t").await;
    let cursor = client.page("t", "limit=3").await.next;
    trim(&client, "t", "before=6").await;
    let at_cursor = from_cursor(&cursor);

    for query in [at_cursor.as_str(), "offset:3"] {
        for wait in ["", "&wait=20s"] {
            let refused = answer(client.get(&format!("{}?from={query}{wait}", records_path("t")))).await;
            let problem = refused.problem();
            assert_eq!((refused.status, problem.code.as_str()), (410, "offset_trimmed"), "{query}{wait}");
            assert_eq!(problem.start, Some(6), "{query}{wait}");
        }
        let path = format!("{}?from={query}", records_path("t"));
        let (gap, record) = sse_gap(client.sse(&path, None).await).await;
        assert_eq!((gap, record.offset), (hole(3, 6), 6), "SSE from {query}");

        let mut lines = client.ndjson(&path).await;
        let mut control = lines.control().await;
        assert_eq!(control.as_object_mut().and_then(|control| control.remove("control")), Some(json!("gap")));
        assert_eq!(serde_json::from_value::<Gap>(control).expect("a gap"), hole(3, 6), "NDJSON from {query}");
        assert_eq!(offsets(&lines.records(2).await), [6, 7]);
    }
    let (gap, record) = sse_gap(client.sse(&records_path("t"), Some(&cursor)).await).await;
    assert_eq!((gap, record.offset), (hole(3, 6), 6), "a browser that comes back");

    for from in [format!("cursor:{cursor}"), "offset:3".to_owned()] {
        let mut ws = client.ws().await;
        ws.subscribe("t", &from).await;
        let frame = ws.frame("gap").await;
        assert_eq!(serde_json::from_str::<Gap>(&frame.text).expect("a gap"), hole(3, 6), "WebSocket from {from}");
        assert_eq!(offsets(&ws.records(1).await)[0], 6);
    }
    // At the start there is no hole.
    let mut sse = client.sse(&format!("{}?from=offset:6", records_path("t")), None).await;
    assert_eq!(sse.next().await.expect("a record").event, "record");
}

/// A stream that is read slowly is overtaken by a trim.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_a_trim_overtakes_hears_of_it_and_goes_on_at_the_start() {
    const COUNT: u64 = 40;
    let server = Server::start().await;
    let client = server.client();
    let big = "x".repeat(200_000);
    for _ in 0..COUNT {
        client.publish("t", "text/plain", big.clone()).await;
    }
    let mut ws = client.ws().await;
    ws.send(&json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest", "credit": 1})).await;
    let sub = ws.frame("subscribed").await.sub.expect("a subscription has a name");
    assert_eq!(offsets(&ws.records(1).await), [0]);
    trim(&client, "t", "before=latest").await;
    client.publish("t", "text/plain", "after").await;
    ws.send(&json!({"type": "credit", "sub": sub, "n": 1000})).await;
    let mut next = 1;
    let gap: Gap = loop {
        let frame = ws.next().await.expect("the connection is open");
        match frame.kind.as_str() {
            "records" => {
                for record in frame.records {
                    assert_eq!(record.offset, next, "what was read before the trim comes in order");
                    next += 1;
                }
            }
            "gap" => break serde_json::from_str(&frame.text).expect("a gap"),
            other => panic!("{other}: {}", frame.text),
        }
    };
    assert!(next < COUNT, "the reader was slow");
    assert_eq!(gap, hole(next, COUNT));
    assert_eq!(texts(&ws.records(1).await), ["after"]);
}

// Fails when a row that a trim took is answered as a defect.
#[tokio::test(flavor = "multi_thread")]
async fn pages_beside_trims_are_whole_or_say_that_they_are_gone() {
    let server = Server::start().await;
    let client = ten(&server, "t").await;
    let (done, ended) = tokio::sync::watch::channel(false);
    let reading = |from: fn(u64) -> String| {
        let (client, ended) = (client.clone(), ended.clone());
        async move {
            let mut seen = 0;
            while !*ended.borrow() {
                let got = answer(client.get(&format!("{}?from={}", records_path("t"), from(seen)))).await;
                match got.status {
                    200 => {
                        let records = offsets(&got.parse::<RecordPage>().records);
                        assert!(records.windows(2).all(|pair| pair[1] == pair[0] + 1), "{records:?}");
                        seen = records.last().copied().unwrap_or(seen).max(seen);
                    }
                    410 => seen = got.problem().start.expect("410 names the start"),
                    503 => assert!(got.problem().detail.contains("was trimmed while it was read"), "{}", got.text()),
                    _ => panic!("{}", got.text()),
                }
            }
        }
    };
    let changing = async {
        for number in 0..150 {
            client.publish("t", "text/plain", number.to_string()).await;
            trim(&client, "t", if number % 3 == 0 { "before=latest" } else { "before=time:2001-01-01T00:00:00Z" })
                .await;
        }
        done.send_replace(true);
    };
    tokio::join!(
        changing,
        reading(|seen| format!("offset:{seen}")),
        reading(|_| "earliest".into()),
        reading(|_| "-5".into()),
        reading(|_| "time:2001-01-01T00:00:00Z".into()),
    );
}

// Fails when the task is not started with the log, or not told of the settings.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_or_too_much_goes_by_itself() {
    let server = Server::start().await;
    let client = server.client();
    for (topic, retention) in [("old", json!({"age": "1s"})), ("much", json!({"bytes": 1}))] {
        answer(client.put(&topic_path(topic)).json(&json!({"retention": retention}))).await;
        for text in ["a", "b", "c"] {
            client.publish(topic, "text/plain", text).await;
        }
    }
    client.publish("all", "text/plain", "kept").await;
    let start = async |topic: &str| client.topic(topic).await.partition_bounds[0].start;
    within("retention", async {
        // A long-poll that gets nothing passes the time from one turn to the next.
        while start("old").await < 3 || start("much").await < 2 {
            client.page("all", "from=latest&wait=1s").await;
        }
    })
    .await;
    assert_eq!(start("old").await, 3);
    assert_eq!(texts(&client.page("much", "from=earliest").await.records), ["c"], "the newest stays");
    let gone = answer(client.get("/v1/topics/old/records?from=offset:0").header("Accept", "application/json")).await;
    assert_eq!(gone.status, 410);
    let stream = client.get("/v1/topics/much/records?from=offset:0").header("Accept", SSE).send().await.unwrap();
    let gap = SseStream::new(stream).event("gap").await;
    assert_eq!(serde_json::from_str::<Gap>(&gap.data).unwrap(), Gap { topic: "much".into(), ..hole(0, 2) });
    assert_eq!(texts(&client.page("all", "from=earliest").await.records), ["kept"]);
}
