mod allocations;
mod streams;
mod system;
mod ttl;
mod usage;
mod wakes;

use std::future::Future;
use std::time::Duration;

use plinth_storage::log::LogOptions;
use plinth_storage::record::NewRecord;
use plinth_storage::store;

use super::*;
use crate::auth::{Auth, Credential};

struct World {
    auth: Auth,
    broker: Broker,
    root: String,
    caller: Caller,
}

async fn world() -> World {
    world_of(LogOptions::new(store::open("memory://").expect("a store"))).await
}

async fn world_of(options: LogOptions) -> World {
    let log = Log::open(options).await.expect("a log");
    let (auth, made) = Auth::open(log.clone(), None).await.expect("credentials");
    let broker = Broker::open(log, BrokerOptions::default()).await.expect("a broker");
    let caller = auth.authenticate(Credential::Bearer(&made.default_key.expect("made")), None).expect("valid");
    World { auth, broker, root: made.root_key.expect("made"), caller }
}

impl World {
    fn to(&self, action: Action, name: &str) -> TopicRef {
        self.caller.authorize(action, name).expect("allowed")
    }

    /// A caller in a tenant of its own.
    async fn stranger(&self) -> Caller {
        let root = self.auth.authenticate(Credential::Bearer(&self.root), None).expect("root");
        self.auth
            .create_tenant(&root.operator().expect("root"), "stranger", crate::auth::TenantSettings::default())
            .await
            .expect("a tenant");
        self.auth.authenticate(Credential::Bearer(&self.root), Some("stranger")).expect("inside")
    }

    async fn topic(&self, name: &str, partitions: u32) {
        let settings = TopicSettings { partitions: Some(partitions), ..TopicSettings::default() };
        self.broker.ensure_topic(&self.to(Action::Manage, name), settings).await.expect("a topic");
    }

    async fn publish(&self, name: &str, payloads: &[&str]) -> PublishedPart {
        let publish = Publish {
            partition: None,
            sticky: 0,
            records: payloads.iter().map(|text| record(text)).collect(),
            stored: None,
            durability: None,
            terms: None,
        };
        let published = self.broker.publish(&self.to(Action::Publish, name), publish).await.expect("published");
        published.parts.into_iter().next().expect("one part")
    }

    async fn publish_at(&self, name: &str, partition: u32, payloads: &[&str]) -> PublishedPart {
        let records = payloads.iter().map(|text| record(text)).collect();
        let publish =
            Publish { partition: Some(partition), sticky: 0, records, stored: None, durability: None, terms: None };
        let published = self.broker.publish(&self.to(Action::Publish, name), publish).await.expect("published");
        published.parts.into_iter().next().expect("one part")
    }

    async fn refused(&self, records: Vec<NewRecord>) -> Error {
        let publish = Publish { partition: None, sticky: 0, records, stored: None, durability: None, terms: None };
        let refused = self.broker.publish(&self.to(Action::Publish, "orders"), publish).await;
        refused.map(drop).expect_err("a publish that is refused")
    }

    fn page_of(&self, name: &str, from: From) -> PageRequest {
        let topic = self.to(Action::Subscribe, name);
        PageRequest { topic, partition: None, from, limit: 1_000, bytes_max: 1 << 20, unit: Unit::Record, wait: None }
    }

    async fn page(&self, name: &str, from: From) -> Result<Page, Error> {
        self.broker.page(self.page_of(name, from)).await
    }

    fn following(&self, topics: &[&str], from: From) -> FollowRequest {
        let pattern = |text: &&str| self.caller.authorize_pattern(Action::Subscribe, text).expect("allowed");
        let topics = topics.iter().map(pattern).collect();
        FollowRequest { topics, partition: None, from, policy: SlowPolicy::CatchUp, batch_bytes_max: 1 << 20 }
    }

    async fn follow(&self, topics: &[&str], from: From) -> Follower {
        self.broker.follow(self.following(topics, from)).await.expect("a follower")
    }
}

fn record(text: &str) -> NewRecord {
    NewRecord { content_type: "text/plain".into(), payload: text.to_owned().into(), ..NewRecord::default() }
}

fn record_bytes(max: u32) -> TopicChange {
    TopicChange { max_record_bytes: Some(max), ..TopicChange::default() }
}

fn keyed(key: &str) -> NewRecord {
    NewRecord { key: Some(key.to_owned().into()), ..NewRecord::default() }
}

fn texts(batches: &[FollowedBatch]) -> Vec<String> {
    let payloads = batches.iter().flat_map(FollowedBatch::payloads);
    payloads.map(|payload| String::from_utf8(payload.to_vec()).expect("text")).collect()
}

/// The next event in words.
async fn next(follower: &mut Follower) -> String {
    let event = tokio::time::timeout(Duration::from_secs(10), follower.next()).await;
    match event.expect("something comes").expect("an event") {
        Event::Records(batch) => {
            format!(
                "{}/{}@{} {}",
                batch.topic,
                batch.partition,
                batch.base(),
                texts(std::slice::from_ref(&batch)).join(" ")
            )
        }
        Event::CaughtUp => "caught up".into(),
        Event::Gap { topic, partition, requested, resumed_at, reason } => {
            format!("gap {topic}/{partition} {requested}..{resumed_at} {reason}")
        }
        Event::Closed { topic } => format!("closed {topic}"),
        Event::End { topic } => format!("end {topic}"),
    }
}

/// Whether the follower has nothing to give now.
fn is_waiting(follower: &mut Follower) -> bool {
    let mut next = std::pin::pin!(follower.next());
    next.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
}

#[tokio::test]
async fn a_first_publish_makes_the_topic_and_later_ones_continue() {
    let world = world().await;
    let first = world.publish("orders", &["a", "b"]).await;
    let second = world.publish("orders", &["c"]).await;
    assert_eq!((first.partition, first.base, first.count, first.indices), (0, 0, 2, vec![0, 1]));
    assert_eq!((second.base, second.count), (2, 1));
    let view = world.broker.topic(&world.to(Action::View, "orders")).await.expect("a topic");
    assert_eq!((view.partitions, view.max_record_bytes, view.bounds.records()), (1, 1 << 20, 3));
    assert_eq!(texts(&world.page("orders", From::Earliest).await.expect("a page").slices), ["a", "b", "c"]);
}

#[tokio::test]
async fn many_first_publishes_at_once_make_one_topic() {
    let world = world().await;
    let outcomes = futures::future::join_all((0..50).map(|_| world.publish("orders", &["x"]))).await;
    let mut offsets: Vec<u64> = outcomes.into_iter().map(|part| part.base).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_caller_that_may_not_manage_does_not_make_a_topic() {
    let world = world().await;
    let request = crate::auth::KeyRequest { scopes: vec!["publish:**".into()], ..Default::default() };
    let key = world.auth.create_key(&world.caller.admin().expect("admin"), request).await.expect("a key");
    let caller = world.auth.authenticate(Credential::Bearer(&key.key), None).expect("valid");
    let topic = caller.authorize(Action::Publish, "orders").expect("allowed");
    let publish = || Publish {
        partition: None,
        sticky: 0,
        records: vec![record("x")],
        stored: None,
        durability: None,
        terms: None,
    };
    assert!(matches!(world.broker.publish(&topic, publish()).await, Err(Error::NotFound(_))));
    world.topic("orders", 1).await;
    assert!(world.broker.publish(&topic, publish()).await.is_ok());
}

#[tokio::test]
async fn keys_choose_the_partition_by_a_hash_that_never_changes() {
    let world = world().await;
    world.topic("orders", 4).await;
    let records = vec![keyed("d"), keyed("e"), keyed("d"), keyed("a"), record("none")];
    let publish = Publish { partition: None, sticky: 5, records, stored: None, durability: None, terms: None };
    let published = world.broker.publish(&world.to(Action::Publish, "orders"), publish).await.expect("published");
    assert!(published.failed.is_empty());
    let mut placed: Vec<(usize, u32)> =
        published.parts.iter().flat_map(|part| part.indices.iter().map(|&index| (index, part.partition))).collect();
    placed.sort_unstable();
    // XXH3-64 of "d", "e" and "a" mod 4, and the connection 5 mod 4.
    assert_eq!(placed, [(0, 2), (1, 0), (2, 2), (3, 3), (4, 1)]);
    let offsets: u32 = published.parts.iter().map(|part| part.count).sum();
    assert_eq!(offsets, 5);
}

#[tokio::test]
async fn each_limit_is_enforced_and_named() {
    let world = world().await;
    let header = |name: &str, value: &str| NewRecord {
        headers: vec![(name.to_owned().into(), value.to_owned().into())],
        ..NewRecord::default()
    };
    let headers = |count| NewRecord {
        headers: (0..count).map(|index| (format!("h{index}").into(), "v".into())).collect(),
        ..NewRecord::default()
    };
    let twice = NewRecord { headers: vec![("a".into(), "1".into()), ("A".into(), "2".into())], ..NewRecord::default() };
    for (records, kind, sentence) in [
        (vec![], "Invalid", "batch has no record"),
        (vec![record("x"); 1001], "TooLarge", "batch of 1001 records exceeds the limit of 1000"),
        (vec![record(&"x".repeat((1 << 20) + 1))], "TooLarge", "record of 1048577 bytes exceeds the limit of 1048576"),
        (vec![record(&"x".repeat(1 << 20)); 9], "TooLarge", "exceeds the limit of 8388608"),
        (vec![keyed(&"k".repeat(1025))], "TooLarge", "key of 1025 bytes exceeds the limit of 1024"),
        (vec![record("x"), headers(65)], "TooLarge", "record 2: 65 headers exceed the limit of 64"),
        (vec![header("a", &"v".repeat(16 * 1024))], "TooLarge", "exceed the limit of 16384"),
        (vec![header("a b", "v")], "Unprocessable", "header name \"a b\" is not a token"),
        (vec![header("", "v")], "Unprocessable", "is not a token"),
        (vec![header("a", "v\r\nb: c")], "Unprocessable", "control character"),
        (vec![twice], "Unprocessable", "header A is given twice"),
    ] {
        let refused = world.refused(records).await;
        assert!(format!("{refused:?}").starts_with(kind), "{refused:?}");
        assert!(refused.to_string().contains(sentence), "{refused}");
    }
    let made = world.page("orders", From::Earliest).await;
    assert!(matches!(made, Err(Error::NotFound(_))), "a publish that is refused does not make the topic");
}

#[tokio::test]
async fn a_topic_may_allow_less_and_the_change_holds_at_once() {
    let world = world().await;
    world.publish("orders", &["12345678"]).await;
    let topic = world.to(Action::Manage, "orders");
    let view = world.broker.change_topic(&topic, record_bytes(4)).await.expect("changed");
    assert_eq!(view.max_record_bytes, 4);
    assert!(world.refused(vec![record("12345")]).await.to_string().contains("limit of 4 of topic orders"));
    world.publish("orders", &["1234"]).await;
    for wrong in [0, (1 << 20) + 1] {
        assert!(matches!(world.broker.change_topic(&topic, record_bytes(wrong)).await, Err(Error::Unprocessable(_))));
    }
}

#[tokio::test]
async fn ensure_makes_once_and_refuses_other_settings() {
    let world = world().await;
    let topic = world.to(Action::Manage, "orders");
    let of = |partitions| TopicSettings { partitions, ..TopicSettings::default() };
    assert!(world.broker.ensure_topic(&topic, of(Some(4))).await.expect("made").1);
    for same in [Some(4), None] {
        assert!(!world.broker.ensure_topic(&topic, of(same)).await.expect("the same").1);
    }
    assert!(matches!(world.broker.ensure_topic(&topic, of(Some(5))).await, Err(Error::Conflict(_))));
    for wrong in [0, 1025] {
        assert!(matches!(world.broker.ensure_topic(&topic, of(Some(wrong))).await, Err(Error::Unprocessable(_))));
    }
}

#[tokio::test]
async fn the_proof_of_one_action_is_not_good_for_another() {
    let world = world().await;
    world.topic("orders", 1).await;
    let subscribe = world.to(Action::Subscribe, "orders");
    assert!(matches!(world.broker.delete_topic(&subscribe).await, Err(Error::Internal { .. })));
    let publish =
        Publish { partition: None, sticky: 0, records: vec![record("x")], stored: None, durability: None, terms: None };
    assert!(matches!(world.broker.publish(&subscribe, publish).await, Err(Error::Internal { .. })));
    let page = PageRequest { topic: world.to(Action::Publish, "orders"), ..world.page_of("orders", From::Earliest) };
    assert!(matches!(world.broker.page(page).await, Err(Error::Internal { .. })));
}

#[tokio::test]
async fn lists_show_what_the_caller_may_see_in_pages() {
    let world = world().await;
    for name in ["b", "a.1", "a.2", "a.3", "c"] {
        world.topic(name, 1).await;
    }
    let (all, none) = (&world.caller, Vec::<String>::new());
    assert_eq!(names(&world, all, ("", None), 10).await, (strings(&["a.1", "a.2", "a.3", "b", "c"]), false));
    assert_eq!(names(&world, all, ("a.", None), 2).await, (strings(&["a.1", "a.2"]), true));
    assert_eq!(names(&world, all, ("a.", Some("a.2")), 2).await, (strings(&["a.3"]), false));
    assert_eq!(names(&world, all, ("b", Some("a.2")), 1).await, (strings(&["b"]), false));
    assert_eq!(names(&world, all, ("a", Some("b")), 9).await, (none.clone(), false));
    let request = crate::auth::KeyRequest { scopes: vec!["subscribe:a.*".into()], ..Default::default() };
    let key = world.auth.create_key(&world.caller.admin().expect("admin"), request).await.expect("a key");
    let narrow = world.auth.authenticate(Credential::Bearer(&key.key), None).expect("valid");
    assert_eq!(names(&world, &narrow, ("", None), 2).await, (strings(&["a.1", "a.2"]), true));
    assert_eq!(names(&world, &narrow, ("", Some("a.2")), 2).await, (strings(&["a.3"]), false));
    assert_eq!(names(&world, &world.stranger().await, ("", None), 10).await, (none, false));
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The names of a page of topics, and whether there are more.
async fn names(
    world: &World,
    caller: &Caller,
    (prefix, after): (&str, Option<&str>),
    limit: usize,
) -> (Vec<String>, bool) {
    let request = TopicsRequest { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit };
    let page = world.broker.list_topics(caller, request).await.expect("topics");
    (page.topics.iter().map(|view| view.name.to_string()).collect(), page.more)
}

// Fails when one request for a list looks up as many partitions as it names topics times 1,024.
#[tokio::test]
async fn a_page_of_a_list_ends_before_its_topics_have_too_many_partitions() {
    let world = world().await;
    for number in 10..25 {
        world.topic(&format!("t{number}"), 1024).await;
    }
    let (first, more) = names(&world, &world.caller, ("", None), 1000).await;
    assert_eq!((first.len(), more), (9, true), "9 * 1,024 partitions are less than 10,000");
    let (rest, more) = names(&world, &world.caller, ("", first.last().map(String::as_str)), 1000).await;
    assert_eq!((rest.len(), more), (6, false));
}

#[tokio::test]
async fn a_topic_of_another_tenant_is_as_one_that_does_not_exist() {
    let world = world().await;
    let receipt = world.publish("orders", &["x"]).await;
    let stranger = world.stranger().await;
    let theirs = stranger.authorize(Action::Subscribe, "orders").expect("their own name");
    let missing = stranger.authorize(Action::Subscribe, "nothing").expect("their own name");
    let (foreign, absent) = (world.broker.topic(&theirs).await, world.broker.topic(&missing).await);
    let (foreign, absent) = (foreign.expect_err("foreign").to_string(), absent.expect_err("absent").to_string());
    assert_eq!(foreign.replace("orders", "nothing"), absent);
    let request = PageRequest { topic: theirs, ..world.page_of("orders", From::Cursor(receipt.cursor.clone())) };
    assert!(matches!(world.broker.page(request.clone()).await, Err(Error::NotFound(_))));
    // Even with a topic of the same name the cursor is not theirs.
    let publish =
        Publish { partition: None, sticky: 0, records: vec![record("y")], stored: None, durability: None, terms: None };
    world.broker.publish(&stranger.authorize(Action::Publish, "orders").expect("root"), publish).await.expect("theirs");
    assert!(matches!(world.broker.page(request).await, Err(Error::InvalidCursor(_))));
}

#[tokio::test]
async fn a_page_begins_where_it_is_asked_to() {
    let world = world().await;
    for text in ["a", "b", "c"] {
        world.publish("orders", &[text, text]).await;
    }
    for (from, expected) in [
        (From::Earliest, "aabbcc"),
        (From::Latest, ""),
        (From::Offset(3), "bcc"),
        (From::Offset(6), ""),
        (From::Last(3), "bcc"),
        (From::Last(100), "aabbcc"),
        (From::Time(plinth_storage::ids::Timestamp(0)), "aabbcc"),
        (From::Time(plinth_storage::ids::Timestamp(u64::MAX)), ""),
    ] {
        let page = world.page("orders", from.clone()).await.expect("a page");
        assert_eq!((texts(&page.slices).concat().as_str(), page.caught_up), (expected, true), "{from:?}");
    }
    assert!(matches!(world.page("orders", From::Offset(7)).await, Err(Error::AboveTail { requested: 7, tail: 6 })));
}

#[tokio::test]
async fn pages_continue_by_cursor_without_gap_or_repeat() {
    let world = world().await;
    for batch in 0..5 {
        world.publish("orders", &[&format!("{batch}a"), &format!("{batch}b"), &format!("{batch}c")]).await;
    }
    let (mut read, mut from) = (Vec::new(), From::Earliest);
    loop {
        let page = world.broker.page(PageRequest { limit: 2, ..world.page_of("orders", from) }).await.expect("a page");
        assert!(page.slices.iter().map(|slice| slice.take).sum::<u32>() <= 2);
        read.extend(texts(&page.slices));
        if page.caught_up {
            break;
        }
        from = From::Cursor(page.next);
    }
    let all: Vec<String> = (0..5).flat_map(|batch| ["a", "b", "c"].map(|part| format!("{batch}{part}"))).collect();
    assert_eq!(read, all);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_but_gives_at_least_one_record() {
    let world = world().await;
    world.publish("orders", &[&"a".repeat(100), &"b".repeat(100), &"c".repeat(100)]).await;
    for (bytes_max, count) in [(1, 1), (100, 1), (199, 1), (200, 2), (1000, 3)] {
        let page = world.broker.page(PageRequest { bytes_max, ..world.page_of("orders", From::Earliest) }).await;
        let page = page.expect("a page");
        assert_eq!((texts(&page.slices).len(), page.caught_up), (count, count == 3), "{bytes_max}");
    }
}

#[tokio::test]
async fn a_page_of_several_partitions_gives_each_its_turn() {
    let world = world().await;
    world.topic("orders", 3).await;
    for partition in 0..3 {
        for _ in 0..=partition {
            world.publish_at("orders", partition, &["x"]).await;
        }
    }
    let page = world.page("orders", From::Earliest).await.expect("a page");
    assert_eq!((texts(&page.slices).len(), page.caught_up), (6, true));
    let page = PageRequest { limit: 1, ..world.page_of("orders", From::Earliest) };
    let first = world.broker.page(page).await.expect("a page");
    assert_eq!(first.slices[0].partition, 2, "the one that is furthest behind");
    let rest = world.page("orders", From::Cursor(first.next)).await.expect("a page");
    assert_eq!(texts(&rest.slices).len(), 5);
    let one = PageRequest { partition: Some(1), ..world.page_of("orders", From::Offset(1)) };
    assert_eq!(texts(&world.broker.page(one).await.expect("a page").slices).len(), 1);
    assert!(matches!(world.page("orders", From::Offset(1)).await, Err(Error::Invalid(_))));
    let none = PageRequest { partition: Some(3), ..world.page_of("orders", From::Earliest) };
    assert!(matches!(world.broker.page(none).await, Err(Error::Invalid(_))));
}

/// Fails when `page` looks at the tail before it registers with `follow`, or does not wait at all.
#[tokio::test]
async fn a_long_poll_answers_with_the_first_record() {
    let world = world().await;
    world.publish("orders", &["old"]).await;
    let request = PageRequest { wait: Some(Duration::from_secs(60)), ..world.page_of("orders", From::Latest) };
    let waiting = world.broker.page(request);
    let (page, _) = tokio::join!(waiting, async {
        tokio::task::yield_now().await;
        world.publish("orders", &["new"]).await
    });
    assert_eq!(texts(&page.expect("a page").slices), ["new"]);
}

#[tokio::test]
async fn a_long_poll_without_a_record_ends_empty_at_its_deadline() {
    let world = world().await;
    let receipt = world.publish("orders", &["old"]).await;
    let request = PageRequest { wait: Some(Duration::from_millis(5)), ..world.page_of("orders", From::Latest) };
    let page = world.broker.page(request).await.expect("a page");
    assert_eq!((page.slices.len(), page.caught_up, page.next), (0, true, receipt.cursor));
}

#[tokio::test]
async fn a_cursor_of_a_deleted_topic_does_not_fit_the_next_one_of_its_name() {
    let world = world().await;
    let receipt = world.publish("orders", &["old"]).await;
    world.broker.delete_topic(&world.to(Action::Manage, "orders")).await.expect("deleted");
    assert!(matches!(world.page("orders", From::Earliest).await, Err(Error::NotFound(_))));
    let again = world.publish("orders", &["new"]).await;
    assert_eq!(again.base, 0);
    let refused = world.page("orders", From::Cursor(receipt.cursor.clone())).await;
    assert!(matches!(refused, Err(Error::InvalidCursor(_))));
    let refused = world.broker.follow(world.following(&["orders"], From::Cursor(receipt.cursor))).await;
    assert!(matches!(refused, Err(Error::InvalidCursor(_))));
}

#[tokio::test]
async fn a_follower_reads_the_log_is_caught_up_once_and_then_sees_what_comes() {
    let world = world().await;
    world.publish("orders", &["a", "b"]).await;
    let mut follower = world.follow(&["orders"], From::Offset(1)).await;
    assert!(follower.single());
    assert_eq!(next(&mut follower).await, "orders/0@1 b");
    assert_eq!(next(&mut follower).await, "caught up");
    assert!(is_waiting(&mut follower));
    let receipt = world.publish("orders", &["c"]).await;
    assert_eq!(next(&mut follower).await, "orders/0@2 c");
    assert!(is_waiting(&mut follower));
    assert_eq!(follower.cursor(), receipt.cursor);
    let mut resumed = world.follow(&["orders"], From::Cursor(receipt.cursor)).await;
    assert_eq!(next(&mut resumed).await, "caught up");
}

#[tokio::test]
async fn the_cursor_within_a_batch_resumes_within_it() {
    let world = world().await;
    world.topic("orders", 2).await;
    world.publish_at("orders", 1, &["a", "b", "c"]).await;
    let mut follower = world.follow(&["orders"], From::Earliest).await;
    let Event::Records(mut batch) = follower.next().await.expect("an event") else { panic!("no records") };
    let cursor = follower.cursor_after(&batch, 1);
    let first = batch.split_to(1);
    assert_eq!((first.base(), first.count(), batch.base(), batch.count()), (0, 1, 1, 2));
    assert_eq!(follower.cursor_after(&batch, 0), cursor);
    let events = String::from_utf8(follower.sse(&first, true).to_vec()).expect("text");
    assert!(events.starts_with(&format!("id: {cursor}\nevent: record\ndata: {{\"topic\":\"orders\"")), "{events}");
    let mut resumed = world.follow(&["orders"], From::Cursor(cursor)).await;
    assert_eq!(next(&mut resumed).await, "orders/1@1 b c");
}

#[tokio::test]
async fn partitions_take_turns() {
    let world = world().await;
    world.topic("orders", 2).await;
    for text in ["a", "b", "c"] {
        world.publish_at("orders", 0, &[text]).await;
    }
    world.publish_at("orders", 1, &["z"]).await;
    let request = FollowRequest { batch_bytes_max: 1, ..world.following(&["orders"], From::Earliest) };
    let mut follower = world.broker.follow(request).await.expect("a follower");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next(&mut follower).await);
    }
    assert_eq!(seen, ["orders/0@0 a", "orders/1@0 z", "orders/0@1 b", "orders/0@2 c"]);
}

/// Fails when `Follower::next` takes a lane out of `ready` before its read has ended.
#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let world = world().await;
    world.publish("orders", &["a"]).await;
    let mut follower = world.follow(&["orders"], From::Earliest).await;
    let mut seen = Vec::new();
    for round in 0..200 {
        if round % 10 == 0 {
            world.publish("orders", &["x"]).await;
        }
        let mut call = std::pin::pin!(follower.next());
        let polled = call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        if let std::task::Poll::Ready(Ok(Event::Records(batch))) = polled {
            seen.extend(batch.base()..batch.base() + u64::from(batch.count()));
        }
    }
    assert_eq!(seen, (0..21).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_offset_above_the_tail_is_a_gap() {
    let world = world().await;
    world.publish("orders", &["a"]).await;
    let mut follower = world.follow(&["orders"], From::Offset(9)).await;
    assert_eq!(next(&mut follower).await, "gap orders/0 9..1 above_tail");
    assert_eq!(next(&mut follower).await, "caught up");
    world.publish("orders", &["b"]).await;
    assert_eq!(next(&mut follower).await, "orders/0@1 b");
}

/// Fails when `Follower::positions` goes by `next` alone: who is cut off before the gap is told would never hear of it.
#[tokio::test]
async fn a_gap_that_was_not_told_yet_is_told_to_whoever_resumes() {
    let world = world().await;
    world.publish("orders", &["0"]).await;
    let mut cut_off = world.follow(&["orders"], From::Offset(7)).await;
    let mut again = world.follow(&["orders"], From::Cursor(cut_off.cursor())).await;
    for follower in [&mut cut_off, &mut again] {
        assert_eq!(next(follower).await, "gap orders/0 7..1 above_tail");
    }
    let mut told = world.follow(&["orders"], From::Cursor(again.cursor())).await;
    assert_eq!(next(&mut told).await, "caught up");
}

/// Fails when a follower from the latest record has no cursor, or another one, before its first event.
#[tokio::test]
async fn the_cursor_of_a_follower_is_where_it_begins_until_something_comes() {
    let world = world().await;
    world.topic("orders", 2).await;
    world.publish_at("orders", 1, &["old"]).await;
    let beginning = world.follow(&["orders"], From::Latest).await.cursor();
    world.publish_at("orders", 1, &["new"]).await;
    let mut again = world.follow(&["orders"], From::Cursor(beginning)).await;
    assert_eq!(next(&mut again).await, "orders/1@1 new");
}

#[tokio::test]
async fn a_deleted_topic_ends_its_followers() {
    let world = world().await;
    world.topic("orders", 3).await;
    world.topic("bills", 1).await;
    let mut one = world.follow(&["orders"], From::Earliest).await;
    let mut two = world.follow(&["orders", "bills"], From::Earliest).await;
    assert_eq!(next(&mut one).await, "caught up");
    assert_eq!(next(&mut two).await, "caught up");
    world.broker.delete_topic(&world.to(Action::Manage, "orders")).await.expect("deleted");
    assert_eq!(next(&mut one).await, "end orders");
    assert!(matches!(one.next().await, Err(Error::NotFound(_))));
    assert_eq!(next(&mut two).await, "end orders");
    world.publish("bills", &["b"]).await;
    assert_eq!(next(&mut two).await, "bills/0@0 b");
}

/// Fails when `make_stored` does not announce the topic.
#[tokio::test]
async fn a_pattern_shows_topics_that_are_made_later_from_their_first_record() {
    let world = world().await;
    world.publish("a.1", &["old"]).await;
    let mut follower = world.follow(&["a.*"], From::Latest).await;
    assert!(!follower.single());
    assert_eq!(next(&mut follower).await, "caught up");
    let cursor = follower.cursor();
    world.publish("b.1", &["elsewhere"]).await;
    world.publish("a.2", &["new"]).await;
    assert_eq!(next(&mut follower).await, "a.2/0@0 new");
    assert!(is_waiting(&mut follower));
    // A cursor from before the topic was made does not miss it.
    let mut resumed = world.follow(&["a.*"], From::Cursor(cursor)).await;
    assert_eq!(next(&mut resumed).await, "a.2/0@0 new");
    assert_eq!(next(&mut resumed).await, "caught up");
}

/// Fails when a follower that missed announcements does not look through the list again.
#[tokio::test]
async fn a_pattern_that_missed_announcements_looks_again() {
    let world = world().await;
    let mut follower = world.follow(&["**"], From::Latest).await;
    assert_eq!(next(&mut follower).await, "caught up");
    for index in 0..300 {
        world.topic(&format!("t{index:03}"), 1).await;
    }
    world.publish("t000", &["x"]).await;
    world.publish("t299", &["y"]).await;
    let mut seen = [next(&mut follower).await, next(&mut follower).await];
    seen.sort();
    assert_eq!(seen, ["t000/0@0 x", "t299/0@0 y"]);
    assert!(is_waiting(&mut follower));
}

#[tokio::test]
async fn a_pattern_shows_only_what_the_scopes_allow() {
    let world = world().await;
    for name in ["a.1", "a.2", "b.1"] {
        world.publish(name, &[name]).await;
    }
    let request = crate::auth::KeyRequest { scopes: vec!["subscribe:*.1".into()], ..Default::default() };
    let key = world.auth.create_key(&world.caller.admin().expect("admin"), request).await.expect("a key");
    let narrow = world.auth.authenticate(Credential::Bearer(&key.key), None).expect("valid");
    let topics = vec![narrow.authorize_pattern(Action::Subscribe, "a.*").expect("allowed")];
    let request = FollowRequest { topics, ..world.following(&["a.*"], From::Earliest) };
    let mut follower = world.broker.follow(request).await.expect("a follower");
    assert_eq!(next(&mut follower).await, "a.1/0@0 a.1");
    assert_eq!(next(&mut follower).await, "caught up");
    world.publish("a.3", &["hidden"]).await;
    assert!(is_waiting(&mut follower));
}

/// Publishes more than a slow reader may have before it, while the reader has read only the first batch of it.
async fn overtake(world: &World, policy: SlowPolicy) -> Follower {
    let request = FollowRequest { policy, batch_bytes_max: 1, ..world.following(&["orders"], From::Latest) };
    let mut follower = world.broker.follow(request).await.expect("a follower");
    assert_eq!(next(&mut follower).await, "caught up");
    for _ in 0..11 {
        world.publish("orders", &["x"; 1000]).await;
    }
    let Event::Records(first) = follower.next().await.expect("an event") else { panic!("no records") };
    assert_eq!((first.base(), first.count()), (0, 1000));
    world.publish("orders", &["x"]).await;
    follower
}

#[tokio::test]
async fn a_slow_reader_gets_what_its_policy_says() {
    for (policy, expected) in [
        (SlowPolicy::CatchUp, "orders/0@1000 "),
        (SlowPolicy::Latest, "gap orders/0 1000..11001 slow_consumer"),
        (SlowPolicy::Disconnect, "the reader is 10001 records behind"),
    ] {
        let world = world().await;
        world.topic("orders", 1).await;
        let mut follower = overtake(&world, policy).await;
        let seen = match policy {
            SlowPolicy::Disconnect => follower.next().await.map(drop).expect_err("the end").to_string(),
            SlowPolicy::CatchUp | SlowPolicy::Latest => next(&mut follower).await,
        };
        assert!(seen.starts_with(expected), "{policy:?}: {}", &seen[..seen.len().min(80)]);
    }
}

#[tokio::test]
async fn requests_that_cannot_be_followed_are_refused() {
    let world = world().await;
    world.topic("orders", 2).await;
    world.topic("bills", 1).await;
    let receipt = world.publish("bills", &["x"]).await;
    let cursor = From::Cursor(receipt.cursor);
    let refused = async |topics: &[&str], partition, from| {
        let request = FollowRequest { partition, ..world.following(topics, from) };
        world.broker.follow(request).await.map(drop).expect_err("a request that is refused")
    };
    assert!(matches!(refused(&[], None, From::Latest).await, Error::Invalid(_)));
    assert!(matches!(refused(&["nothing"], None, From::Latest).await, Error::NotFound(_)));
    assert!(matches!(refused(&["orders"], None, From::Offset(0)).await, Error::Invalid(_)));
    assert!(matches!(refused(&["orders"], Some(2), From::Latest).await, Error::Invalid(_)));
    assert!(matches!(refused(&["orders", "bills"], Some(0), From::Latest).await, Error::Invalid(_)));
    assert!(matches!(refused(&["*"], Some(0), From::Latest).await, Error::Invalid(_)));
    assert!(matches!(refused(&["*"], None, From::Offset(0)).await, Error::Invalid(_)));
    assert!(matches!(refused(&["orders"], None, cursor.clone()).await, Error::InvalidCursor(_)));
    assert!(matches!(refused(&["bills"], None, From::Cursor("x".into())).await, Error::InvalidCursor(_)));
    let many = vec!["bills"; 101];
    assert!(matches!(refused(&many, None, From::Latest).await, Error::Unprocessable(_)));
    assert!(world.broker.follow(world.following(&["orders", "bills"], cursor)).await.is_ok());
}

#[tokio::test]
async fn cursors_are_good_after_a_start_over_the_same_log() {
    let world = world().await;
    let receipt = world.publish("orders", &["a"]).await;
    world.publish("orders", &["b"]).await;
    let again = Broker::open(world.broker.log().clone(), BrokerOptions::default()).await.expect("a broker");
    let page = again.page(world.page_of("orders", From::Cursor(receipt.cursor))).await.expect("a page");
    assert_eq!(texts(&page.slices), ["b"]);
}
