//! Publishing by REST: what is stored, where, and what the answer says.

use std::collections::HashSet;
use std::path::Path;

use plinth_api::records::{PublishResult, PublishResults};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{BATCH, NDJSON, answer, offsets, payload, texts};
use crate::harness::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_published_body_is_read_back_with_its_key_headers_and_media_type() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("orders", 1).await;
    let request = client.publishing("orders", "application/vnd.own+x", &b"\x00\xffraw\n"[..]);
    let answer = answer(request.header("Record-Key", "k1").header("Record-Header-Trace", "abc")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let receipt = answer.json();
    let names: HashSet<&str> = receipt.as_object().unwrap().keys().map(String::as_str).collect();
    let all = ["topic", "partition", "offset", "count", "cursor", "timestamp", "durability", "duplicate"];
    assert_eq!(names, HashSet::from(all));
    assert_eq!(
        (&receipt["topic"], &receipt["partition"], &receipt["offset"]),
        (&json!("orders"), &json!(0), &json!(0))
    );
    assert_eq!(
        (&receipt["count"], &receipt["durability"], &receipt["duplicate"]),
        (&json!(1), &json!("object"), &json!(false))
    );
    let page = client.page("orders", "").await;
    let [record] = &page.records[..] else { panic!("one record: {page:?}") };
    assert_eq!(payload(record), b"\x00\xffraw\n");
    assert_eq!(record.key.as_deref(), Some("k1"));
    assert_eq!(record.content_type.as_deref(), Some("application/vnd.own+x"));
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    assert_eq!(headers, [("trace".to_owned(), "abc")]);
    assert_eq!(json!(record.timestamp), receipt["timestamp"]);
}

/// Fails when the answer is sent before the PUT of the slot was confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn when_a_publish_is_answered_its_bytes_are_in_the_store() {
    let server = Server::start().await;
    let client = server.client();
    for number in 0..20 {
        let text = format!("find-me-{number}-0123456789abcdef");
        client.publish("orders", "text/plain", text.clone()).await;
        assert!(holds(&server.store_dir(), text.as_bytes()), "{text} is acknowledged but in no object");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_publish_makes_the_topic_only_for_a_key_that_may_manage_it() {
    let server = Server::start().await;
    let only_publish = server.with_scopes(&["publish:**"]).await;
    let refused = answer(only_publish.publishing("new", "text/plain", "x")).await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (404, "not_found"));
    assert_eq!(server.client().count("new").await, 0);
    let both = server.with_scopes(&["publish:n*", "manage:n*"]).await;
    assert_eq!(both.publish("new", "text/plain", "x").await.offset, 0);
    assert_eq!(only_publish.publish("new", "text/plain", "y").await.offset, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_form_of_a_batch_record_is_read_back_in_its_own_form() {
    let server = Server::start().await;
    let client = server.client();
    let body = r#"{"records":[
        {"value":{"b" : 1.10, "a":"é"},"key":"k","headers":{"h":"v"}},
        {"text":"naïve\nline"},{"base64":"AAEC"},{"key":"only"},{"value":null},{"text":"<b>","content_type":"text/html"}]}"#;
    let receipt = client.publish("forms", BATCH, body).await;
    assert_eq!((receipt.offset, receipt.count), (0, 6));
    let records = client.read_all("forms", 0).await;
    assert_eq!(offsets(&records), [0, 1, 2, 3, 4, 5]);
    assert_eq!(payload(&records[0]), r#"{"b" : 1.10, "a":"é"}"#.as_bytes(), "the bytes that were sent");
    assert_eq!(records[0].key.as_deref(), Some("k"));
    assert_eq!(records[0].headers.get("h").map(String::as_str), Some("v"));
    assert_eq!(records[1].text.as_deref(), Some("naïve\nline"));
    assert_eq!(records[2].base64.as_deref(), Some("AAEC"));
    assert!(payload(&records[3]).is_empty());
    assert_eq!(payload(&records[4]), b"null");
    assert_eq!(records[5].content_type.as_deref(), Some("text/html"));
    assert!(records.iter().all(|record| record.timestamp == records[0].timestamp), "one batch, one time");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_ndjson_is_one_record_with_the_bytes_of_the_line() {
    let server = Server::start().await;
    let client = server.client();
    let lines = [r#"{"a" : 1}"#, r#""text""#, "17", "[1, 2]", r#"{"deep":{"é":[null]}}"#];
    let receipt = client.publish("lines", NDJSON, lines.join("\n") + "\n").await;
    assert_eq!((receipt.offset, receipt.count), (0, 5));
    let records = client.read_all("lines", 0).await;
    assert_eq!(texts(&records), lines);
    assert!(records.iter().all(|record| record.content_type.as_deref() == Some("application/json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_one_key_are_in_one_partition_and_a_spanning_batch_answers_per_record() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("keyed", 4).await;
    let records: Vec<Value> =
        (0..40).map(|number| json!({"key": format!("key-{}", number % 8), "text": format!("r{number}")})).collect();
    let answer = answer(client.publishing("keyed", BATCH, json!({"records": records}).to_string())).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let results: PublishResults = answer.parse();
    assert_eq!(results.results.len(), 40);
    let mut partitions = [const { None }; 8];
    for (number, result) in results.results.iter().enumerate() {
        let PublishResult::Stored(receipt) = result else { panic!("stored: {result:?}") };
        assert_eq!(receipt.count, 1);
        assert_eq!(
            *partitions[number % 8].get_or_insert(receipt.partition),
            receipt.partition,
            "one key, one partition"
        );
        let query = format!("from=offset:{}&partition={}&limit=1", receipt.offset, receipt.partition);
        assert_eq!(texts(&client.page("keyed", &query).await.records), [format!("r{number}")]);
    }
    let used: HashSet<_> = partitions.into_iter().collect();
    assert!(used.len() > 1, "eight keys are not all in one of four partitions");
    assert_eq!(client.count("keyed").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_a_named_partition_goes_there() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("wide", 3).await;
    let request = client.post("/v1/topics/wide/records?partition=2").header("Content-Type", "text/plain").body("x");
    let receipt = answer(request).await.json();
    assert_eq!((&receipt["partition"], &receipt["offset"]), (&json!(2), &json!(0)));
    let tails: Vec<u64> = client.topic("wide").await.partition_bounds.iter().map(|bounds| bounds.tail).collect();
    assert_eq!(tails, [0, 0, 1]);
}

/// Fails when two requests can get one offset, or an offset is given to a request that then fails.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_publishers_get_dense_offsets_and_each_keeps_its_own_order() {
    const PRODUCERS: usize = 16;
    const EACH: usize = 25;
    let server = Server::start().await;
    server.client().make_topic("busy", 1).await;
    let mut tasks = JoinSet::new();
    for producer in 0..PRODUCERS {
        let client = server.client();
        tasks.spawn(async move {
            let mut mine = Vec::new();
            for number in 0..EACH {
                mine.push(client.publish("busy", "text/plain", format!("{producer}:{number}")).await.offset);
            }
            assert!(mine.is_sorted(), "a later publish of one client has a higher offset");
            mine
        });
    }
    let mut given: Vec<u64> = tasks.join_all().await.concat();
    given.sort_unstable();
    assert_eq!(given, (0..(PRODUCERS * EACH) as u64).collect::<Vec<_>>());
    assert_eq!(server.client().read_all("busy", 0).await.len(), PRODUCERS * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_the_largest_size_and_a_batch_of_the_largest_size_are_stored() {
    let server = Server::start().await;
    let client = server.client();
    let largest = "x".repeat(plinth_api::limits::RECORD_BYTES_MAX);
    assert_eq!(client.publish("big", "text/plain", largest.clone()).await.offset, 0);
    let many: Vec<Value> = (0..plinth_api::limits::BATCH_RECORDS_MAX).map(|n| json!({"text": n.to_string()})).collect();
    assert_eq!(client.publish("big", BATCH, json!({"records": many}).to_string()).await.count, 1000);
    let records = client.read_all("big", 0).await;
    assert_eq!(records.len(), 1001);
    assert_eq!(payload(&records[0]), largest.as_bytes());
    assert_eq!(payload(&records[1000]), b"999");
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_a_topic_again_answers_200_with_the_same_settings_and_409_with_others() {
    let server = Server::start().await;
    let client = server.client();
    let put = |body: Value| answer(client.put("/v1/topics/t%2Fsub").json(&body));
    assert_eq!(put(json!({"partitions": 2})).await.status, 201);
    assert_eq!(put(json!({"partitions": 2})).await.status, 200);
    let other = put(json!({"partitions": 3})).await;
    assert_eq!((other.status, other.problem().code.as_str()), (409, "conflict"));
    let view = client.topic("t/sub").await;
    assert_eq!((view.name.as_str(), view.partitions), ("t/sub", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_and_a_new_one_of_its_name_begins_at_0() {
    let server = Server::start().await;
    let client = server.client();
    let old = client.publish_texts("t", &["a", "b"]).await;
    assert_eq!(answer(client.delete("/v1/topics/t")).await.status, 204);
    assert_eq!(answer(client.get("/v1/topics/t")).await.status, 404);
    assert_eq!(answer(client.get("/v1/topics/t/records")).await.status, 404);
    assert_eq!(client.publish_texts("t", &["new"]).await.offset, 0);
    let path = format!("/v1/topics/t/records?from={}", crate::client::from_cursor(&old.cursor));
    let stale = answer(client.get(&path)).await;
    assert_eq!(stale.problem().code.as_str(), "invalid_cursor", "a cursor of the old topic does not fit the new one");
    assert_eq!(texts(&client.read_all("t", 0).await), ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_record_limit_of_a_topic_holds_from_its_change_on() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("small", "text/plain", "x".repeat(100)).await;
    let patched = answer(client.patch("/v1/topics/small").json(&json!({"max_record_bytes": 10}))).await;
    assert_eq!(patched.status, 200, "{}", patched.text());
    let refused = answer(client.publishing("small", "text/plain", "x".repeat(11))).await.problem();
    assert_eq!(refused.code.as_str(), "too_large");
    assert!(refused.detail.contains("11") && refused.detail.contains("10"), "{}", refused.detail);
    assert_eq!(client.publish("small", "text/plain", "x".repeat(10)).await.offset, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_listed_by_prefix_page_by_page() {
    let server = Server::start().await;
    let client = server.client();
    for name in ["a.1", "a.2", "a.3", "b.1"] {
        client.make_topic(name, 1).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/topics?prefix=a.&limit=2".to_owned();
    loop {
        let page = answer(client.get(&path)).await.json();
        names.extend(page["data"].as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/topics?prefix=a.&limit=2&cursor={}", crate::client::escape(next));
    }
    assert_eq!(names, ["a.1", "a.2", "a.3"]);
    let limited = server.with_scopes(&["subscribe:b.*"]).await;
    let page = answer(limited.get("/v1/topics")).await.json();
    let seen: Vec<&str> = page["data"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(seen, ["b.1"], "a list shows what the scopes allow");
}

fn holds(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).expect("the store is a directory").any(|entry| {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        std::fs::read(path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    })
}
