//! Reading pages and waiting for them.

use plinth_api::records::RecordPage;
use serde_json::json;

use crate::client::{BATCH, Client, answer, escape, from_cursor, offsets, payload, texts, within};
use crate::harness::Server;

async fn ten() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    for number in 0..10 {
        client.publish("t", "text/plain", number.to_string()).await;
    }
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_say_where_to_begin_finds_its_record() {
    let (_server, client) = ten().await;
    let whole = client.page("t", "").await;
    assert_eq!(texts(&whole.records), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "a page begins at the start");
    assert!(whole.caught_up);
    let at = |from: &'static str| {
        let client = client.clone();
        async move { offsets(&client.page("t", &format!("from={from}")).await.records) }
    };
    assert_eq!(at("earliest").await, (0..10).collect::<Vec<_>>());
    assert_eq!(at("latest").await, [0; 0]);
    assert_eq!(at("offset:7").await, [7, 8, 9]);
    assert_eq!(at("offset:10").await, [0; 0], "the tail is a place to wait at");
    assert_eq!(at("-3").await, [7, 8, 9]);
    assert_eq!(at("-100").await, (0..10).collect::<Vec<_>>());
    assert_eq!(at("time:2001-01-01T00:00:00Z").await, (0..10).collect::<Vec<_>>());
    assert_eq!(at("time:2999-01-01T00:00:00Z").await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_finds_the_first_record_that_is_not_older() {
    let (_server, client) = ten().await;
    let records = client.read_all("t", 0).await;
    let wanted = records[5].timestamp;
    let expected: Vec<u64> = records.iter().filter(|r| r.timestamp >= wanted).map(|r| r.offset).collect();
    let time = humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + std::time::Duration::from_millis(wanted));
    let page = client.page("t", &format!("from=time:{}", escape(&time.to_string()))).await;
    assert_eq!(offsets(&page.records), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_by_cursor_without_a_hole_or_an_overlap() {
    let (_server, client) = ten().await;
    let mut page = client.page("t", "limit=3").await;
    let mut seen = offsets(&page.records);
    assert_eq!(seen, [0, 1, 2]);
    while !page.caught_up {
        page = client.page("t", &format!("limit=3&from={}", from_cursor(&page.next))).await;
        assert!(page.records.len() <= 3);
        seen.extend(offsets(&page.records));
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    client.publish("t", "text/plain", "10").await;
    let page = client.page("t", &format!("from={}", from_cursor(&page.next))).await;
    assert_eq!(texts(&page.records), ["10"], "the cursor at the tail goes on when there is more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipts_cursor_is_the_place_after_its_records() {
    let (_server, client) = ten().await;
    let receipt = client.publish_texts("t", &["a", "b"]).await;
    client.publish("t", "text/plain", "after").await;
    let page = client.page("t", &format!("from={}", from_cursor(&receipt.cursor))).await;
    assert_eq!(texts(&page.records), ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_bounded_in_bytes_but_shows_at_least_one_record() {
    let server = Server::start().await;
    let client = server.client();
    for _ in 0..4 {
        client.publish("t", "text/plain", "x".repeat(1000)).await;
    }
    let page = client.page("t", "max_bytes=2500").await;
    assert_eq!(offsets(&page.records), [0, 1]);
    assert!(!page.caught_up);
    assert_eq!(offsets(&client.page("t", "max_bytes=1").await.records), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_all_partitions_shows_each_of_them_in_order() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("wide", 3).await;
    let records: Vec<_> = (0..60).map(|n| json!({"key": format!("k{}", n % 12), "text": n.to_string()})).collect();
    answer(client.publishing("wide", BATCH, json!({"records": records}).to_string())).await;
    let mut next = [0; 3];
    let mut page: RecordPage = client.page("wide", "limit=7").await;
    let mut count = 0;
    loop {
        for record in &page.records {
            let expected = &mut next[record.partition as usize];
            assert_eq!(record.offset, *expected);
            *expected += 1;
            count += 1;
        }
        if page.caught_up {
            break;
        }
        page = client.page("wide", &format!("limit=7&from={}", from_cursor(&page.next))).await;
    }
    assert_eq!(count, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_above_the_tail_answers_416_with_the_tail() {
    let (_server, client) = ten().await;
    let above = answer(client.get("/v1/topics/t/records?from=offset:11")).await;
    assert_eq!(above.status, 416);
    let problem = above.problem();
    assert_eq!((problem.code.as_str(), problem.tail), ("offset_above_tail", Some(10)));
    assert!(problem.detail.contains("11") && problem.detail.contains("10"), "{}", problem.detail);
}

/// Fails when a long-poll does not wake at a commit, or wakes with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_answers_when_a_record_comes() {
    let (_server, client) = ten().await;
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.page("t", "from=offset:10&wait=60s").await })
    };
    client.publish("t", "text/plain", "10").await;
    let page = within("the long-poll", waiting).await.unwrap();
    assert_eq!(texts(&page.records), ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_that_gets_nothing_answers_an_empty_page_that_can_be_continued() {
    let (_server, client) = ten().await;
    let page = client.page("t", "from=latest&wait=1s").await;
    assert!(page.records.is_empty() && page.caught_up);
    client.publish("t", "text/plain", "10").await;
    let page = client.page("t", &format!("from={}&wait=20s", from_cursor(&page.next))).await;
    assert_eq!(texts(&page.records), ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_larger_than_a_page_of_the_cache_is_read_back_whole() {
    let server = Server::start().await;
    let client = server.client();
    let mut expected = Vec::new();
    for number in 0..12_u8 {
        let body = vec![b'a' + number; 1024 * 1024 - usize::from(number)];
        client.publish("big", "application/octet-stream", body.clone()).await;
        expected.push(body);
    }
    let read: Vec<Vec<u8>> = client.read_all("big", 0).await.iter().map(payload).collect();
    assert!(read == expected, "twelve records of 1 MiB over several pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_begins_after_an_acknowledgement_includes_the_record() {
    let server = Server::start().await;
    let client = server.client();
    for number in 0..50 {
        let receipt = client.publish("t", "text/plain", number.to_string()).await;
        let page = client.page("t", &format!("from=offset:{}", receipt.offset)).await;
        assert_eq!(texts(&page.records), [number.to_string()]);
    }
}
