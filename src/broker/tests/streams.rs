//! Streams: what is appended is read, by offsets that hold, until the end; beside all that topics can.

pub(super) mod ending;
mod fork;
mod state;

use plinth_storage::error::Refusal;
use plinth_storage::testing::fault::FaultStore;

use super::*;

pub(super) const TEXT: &str = "text/plain";
pub(super) const JSON: &str = "application/json";

pub(super) fn config(content_type: &str) -> StreamConfig {
    StreamConfig { content_type: Some(content_type.to_owned()), ..StreamConfig::default() }
}

pub(super) fn body(content_type: &str, text: &str) -> StreamAppend {
    let body = Bytes::copy_from_slice(text.as_bytes());
    StreamAppend { content_type: Some(content_type.to_owned()), body, ..StreamAppend::default() }
}

fn closing() -> StreamAppend {
    StreamAppend { close: true, ..StreamAppend::default() }
}

fn of_producer(append: StreamAppend, epoch: u64, seq: u64) -> StreamAppend {
    StreamAppend { producer: Some(StreamProducer { id: "p".into(), epoch, seq }), ..append }
}

fn at(token: Token) -> StreamFrom {
    StreamFrom::At(GivenToken::parse(&token.to_string()).expect("a token of ours"))
}

fn text(page: &StreamPage) -> String {
    String::from_utf8(page.pieces.concat()).expect("text")
}

impl World {
    pub(super) async fn put(&self, name: &str, config: StreamConfig, body: &str) -> Result<(StreamView, bool), Error> {
        let topic = self.to(Action::Manage, name);
        self.broker.ensure_stream(&topic, config, Bytes::copy_from_slice(body.as_bytes())).await
    }

    pub(super) async fn stream(&self, name: &str, content_type: &str) -> StreamView {
        self.put(name, config(content_type), "").await.expect("a stream").0
    }

    pub(super) async fn append(&self, name: &str, append: StreamAppend) -> Result<StreamAppended, Error> {
        self.broker.append_to_stream(&self.to(Action::Publish, name), &append).await
    }

    pub(super) async fn read(&self, name: &str, from: StreamFrom) -> Result<StreamPage, Error> {
        self.broker.read_stream(&self.to(Action::Subscribe, name), from, 1 << 20).await
    }

    async fn follow_stream(&self, name: &str, from: StreamFrom) -> StreamFollower {
        let topic = self.to(Action::Subscribe, name);
        self.broker.follow_stream(&topic, from, 1 << 20).await.expect("a follower")
    }

    pub(super) fn head(&self, name: &str) -> Result<StreamView, Error> {
        self.broker.stream(&self.to(Action::View, name))
    }

    pub(super) async fn delete_stream(&self, name: &str) {
        self.broker.delete_stream(&self.to(Action::Manage, name)).await.expect("deleted");
    }
}

async fn moved(follower: &mut StreamFollower) -> (String, bool, bool) {
    let moved = tokio::time::timeout(Duration::from_secs(10), follower.next()).await;
    let moved = moved.expect("something comes").expect("no error");
    (texts(&moved.batches).concat(), moved.up_to_date, moved.closed)
}

#[tokio::test]
async fn a_stream_is_created_once_with_its_body_and_again_only_as_the_same() {
    let world = world().await;
    let (view, made) = world.put("s", config("Text/Plain; charset=utf-8"), "first").await.expect("made");
    assert!(made && !view.closed && !view.is_json);
    assert_eq!(&*view.content_type, "Text/Plain; charset=utf-8");
    let (again, made) = world.put("s", config(TEXT), "other").await.expect("the same");
    assert!(!made);
    assert_eq!((again.id, again.next), (view.id, view.next));
    assert_eq!(text(&world.read("s", StreamFrom::Start).await.expect("read")), "first");
    for other in [config("text/html"), StreamConfig::default(), StreamConfig { closed: true, ..config(TEXT) }] {
        let refused = world.put("s", other, "").await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
    let (closed, made) = world.put("c", StreamConfig { closed: true, ..config(TEXT) }, "all").await.expect("made");
    assert!(made && closed.closed);
    let page = world.read("c", StreamFrom::Start).await.expect("read");
    assert_eq!((text(&page), page.closed), ("all".into(), true));
    let (closed, made) = world.put("c", StreamConfig { closed: true, ..config(TEXT) }, "").await.expect("the same");
    assert!(!made && closed.closed);
}

// Fails when the document and the first records are two commits, or without the lock by name.
#[tokio::test]
async fn of_many_creations_at_once_one_makes_the_stream_and_only_its_body_is_there() {
    let world = world().await;
    let puts = (0..20).map(|index| {
        let world = &world;
        async move { (index, world.put("s", config(TEXT), &format!("<{index}>")).await.expect("a stream").1) }
    });
    let made: Vec<usize> =
        futures::future::join_all(puts).await.into_iter().filter(|(_, made)| *made).map(|(index, _)| index).collect();
    assert_eq!(made.len(), 1);
    assert_eq!(text(&world.read("s", StreamFrom::Start).await.expect("read")), format!("<{}>", made[0]));
}

#[tokio::test]
async fn what_is_appended_is_read_from_any_offset_that_was_given() {
    let world = world().await;
    let begin = world.stream("s", TEXT).await.next;
    let mut ends = vec![begin];
    for piece in ["a", "bc", "def"] {
        let appended = world.append("s", body("TEXT/plain;x=y", piece)).await.expect("appended");
        assert!(appended.records == 1 && !appended.duplicate && !appended.closed);
        ends.push(appended.next);
    }
    assert!(ends.is_sorted_by(|a, b| a.encode() < b.encode()));
    for (from, expected) in ends.iter().zip(["abcdef", "bcdef", "def", ""]) {
        let page = world.read("s", at(*from)).await.expect("read");
        assert_eq!((text(&page).as_str(), page.next, page.up_to_date), (expected, ends[3], true));
    }
    let now = world.read("s", StreamFrom::Now).await.expect("read");
    assert_eq!((text(&now).as_str(), now.next, now.up_to_date, now.closed), ("", ends[3], true, false));
    assert_eq!(world.head("s").expect("it is there").next, ends[3]);
}

#[tokio::test]
async fn a_json_stream_is_a_list_of_messages_and_each_is_a_record_for_others() {
    let world = world().await;
    world.put("s", config(JSON), " [ ] ").await.expect("an empty stream");
    assert_eq!(text(&world.read("s", StreamFrom::Start).await.expect("read")), "[]");
    let first = world.append("s", body(JSON, r#"[{"a": 1.0},[2,3]]"#)).await.expect("appended").next;
    world.append("s", body("application/json; charset=utf-8", "{\n\"b\":\"\\n\"}")).await.expect("appended");
    let page = world.read("s", StreamFrom::Start).await.expect("read");
    assert_eq!(text(&page), r#"[{"a": 1.0},[2,3],{"b":"\n"}]"#);
    assert_eq!(text(&world.read("s", at(first)).await.expect("read")), r#"[{"b":"\n"}]"#);
    let records = world.page("s", From::Earliest).await.expect("a page");
    assert_eq!(texts(&records.slices), [r#"{"a": 1.0}"#, "[2,3]", r#"{"b":"\n"}"#]);
    for (bad, kind) in [("[]", JSON), ("{", JSON), ("[1,]", JSON)] {
        let refused = world.append("s", body(kind, bad)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{bad}: {refused:?}");
    }
    let refused = world.append("s", body(TEXT, "{}")).await;
    assert!(matches!(refused, Err(Error::ContentType { .. })), "{refused:?}");
    assert_eq!(world.head("s").expect("it is there").next, page.next, "nothing was stored");
}

#[tokio::test]
async fn an_append_that_is_none_is_refused() {
    let world = world().await;
    world.stream("s", TEXT).await;
    let untyped = StreamAppend { content_type: None, ..body(TEXT, "x") };
    let long = StreamAppend { seq: Some(vec![b'a'; 256].into()), ..body(TEXT, "x") };
    let nameless =
        StreamAppend { producer: Some(StreamProducer { id: Bytes::new(), epoch: 0, seq: 0 }), ..body(TEXT, "x") };
    for bad in [body(TEXT, ""), untyped, long, nameless, of_producer(body(TEXT, "x"), 1 << 53, 0)] {
        let refused = world.append("s", bad).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let large = StreamAppend { body: vec![0; (8 << 20) + 1].into(), ..body(TEXT, "") };
    assert!(matches!(world.append("s", large).await, Err(Error::TooLarge(_))));
    let absent = world.append("t", body(TEXT, "x")).await;
    assert!(matches!(absent, Err(Error::NotFound(_))), "an append makes no stream: {absent:?}");
    assert!(matches!(world.head("t"), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_closed_stream_takes_nothing_by_any_way_and_says_where_it_ends() {
    let world = world().await;
    world.stream("s", JSON).await;
    world.append("s", body(JSON, "1")).await.expect("appended");
    let end = world.append("s", StreamAppend { close: true, ..body(JSON, "2") }).await.expect("closed");
    assert!(end.closed && end.records == 1 && !end.duplicate);
    let again = world.append("s", closing()).await.expect("closed already");
    assert_eq!((again.next, again.closed, again.duplicate, again.records), (end.next, true, true, 0));
    let late = [body(JSON, "3"), body(JSON, "{"), body(TEXT, "x"), StreamAppend { close: true, ..body(JSON, "3") }];
    for append in late {
        match world.append("s", append).await {
            Err(Error::Closed { next }) => assert_eq!(next, end.next),
            other => panic!("{other:?}"),
        }
    }
    let number = NewRecord { content_type: JSON.into(), payload: "3".into(), ..NewRecord::default() };
    let publish =
        Publish { partition: None, sticky: 0, records: vec![number], stored: None, durability: None, terms: None };
    let refused = world.broker.publish(&world.to(Action::Publish, "s"), publish).await.map(drop);
    assert!(matches!(refused, Err(Error::Refused { refusal: Refusal::Closed { .. }, .. })), "{refused:?}");
    let page = world.read("s", StreamFrom::Start).await.expect("read");
    assert_eq!((text(&page).as_str(), page.up_to_date, page.closed), ("[1,2]", true, true));
    let page = world.broker.read_stream(&world.to(Action::Subscribe, "s"), StreamFrom::Start, 1).await.expect("read");
    assert_eq!((text(&page).as_str(), page.up_to_date, page.closed), ("[1]", false, false), "more is to be read");
}

#[tokio::test]
async fn an_append_of_a_producer_counts_once_and_what_closed_the_stream_may_be_repeated_with_any_body() {
    let world = world().await;
    world.stream("s", TEXT).await;
    let first = world.append("s", of_producer(body(TEXT, "a"), 0, 0)).await.expect("appended");
    assert_eq!((first.duplicate, first.producer), (false, Some((0, 0))));
    world.append("s", of_producer(body(TEXT, "b"), 0, 1)).await.expect("appended");
    let again = world.append("s", of_producer(body(TEXT, "a"), 0, 0)).await.expect("a duplicate");
    assert_eq!((again.duplicate, again.producer), (true, Some((0, 1))), "the highest one that was accepted");
    let gap = world.append("s", of_producer(body(TEXT, "d"), 0, 3)).await;
    assert!(matches!(gap, Err(Error::Refused { refusal: Refusal::Sequence { .. }, .. })), "{gap:?}");
    let end = StreamAppend { close: true, ..of_producer(body(TEXT, "c"), 0, 2) };
    world.append("s", end.clone()).await.expect("closed");
    for same in [end, of_producer(closing(), 0, 2), of_producer(body("image/png", "?"), 0, 2)] {
        let again = world.append("s", same).await.expect("a duplicate");
        assert!(again.duplicate && again.closed);
    }
    let other = world.append("s", of_producer(body("image/png", "?"), 0, 3)).await;
    assert!(matches!(other, Err(Error::Closed { .. })), "{other:?}");
    assert_eq!(text(&world.read("s", StreamFrom::Start).await.expect("read")), "abc");
}

#[tokio::test]
async fn a_stream_sequence_only_grows() {
    let world = world().await;
    world.stream("s", TEXT).await;
    let with = |seq: &'static str| StreamAppend { seq: Some(seq.into()), ..body(TEXT, seq) };
    for (seq, grows) in
        [("09", true), ("09", false), ("1", true), ("10", true), ("1", false), ("a", true), ("B", false)]
    {
        let appended = world.append("s", with(seq)).await;
        match appended {
            Ok(_) => assert!(grows, "{seq}"),
            Err(Error::Refused { refusal: Refusal::StreamSeq, .. }) => assert!(!grows, "{seq}"),
            Err(error) => panic!("{seq}: {error:?}"),
        }
    }
    assert_eq!(text(&world.read("s", StreamFrom::Start).await.expect("read")), "09110a");
}

// Fails when a topic takes the time of its creation without regard to the one before it of its name.
#[tokio::test]
async fn no_offset_of_a_deleted_stream_is_taken_for_one_of_the_next_of_its_name() {
    let world = world().await;
    let mut last = None;
    for round in 0..300 {
        world.put("s", config(TEXT), &round.to_string()).await.expect("made");
        let view = world.head("s").expect("it is there");
        if let Some(old) = last.replace(view.next) {
            assert!(old < view.next, "later ones sort above");
            let refused = world.read("s", at(old)).await;
            assert!(matches!(refused, Err(Error::Gone(_))), "round {round}: {refused:?}");
        }
        if round % 3 == 0 {
            world.broker.delete_topic(&world.to(Action::Manage, "s")).await.expect("deleted");
            world.topic("s", 1).await;
            let view = world.head("s").expect("it is there");
            assert!(matches!(world.read("s", at(last.expect("a token"))).await, Err(Error::Gone(_))));
            last = Some(view.next);
        }
        world.delete_stream("s").await;
        assert!(matches!(world.read("s", StreamFrom::Start).await, Err(Error::NotFound(_))));
    }
}

#[tokio::test]
async fn what_is_trimmed_is_gone_and_the_start_is_what_is_kept() {
    let world = world().await;
    let begin = world.stream("s", TEXT).await.next;
    world.append("s", body(TEXT, "a")).await.expect("appended");
    let kept = world.append("s", body(TEXT, "b")).await.expect("appended").next;
    world.append("s", body(TEXT, "c")).await.expect("appended");
    let topic = world.to(Action::Manage, "s");
    world.broker.trim(&topic, Before::Offset(2), Some(0)).await.expect("trimmed");
    let refused = world.read("s", at(begin)).await;
    assert!(matches!(refused, Err(Error::Gone(_))), "{refused:?}");
    assert_eq!(text(&world.read("s", at(kept)).await.expect("read")), "c");
    assert_eq!(text(&world.read("s", StreamFrom::Start).await.expect("read")), "c");
}

#[tokio::test]
async fn what_others_publish_to_a_stream_can_be_read_by_its_readers_or_is_refused() {
    let world = world().await;
    world.stream("orders", JSON).await;
    let of = |content_type: &'static str, payload: &'static str| NewRecord {
        content_type: content_type.into(),
        payload: payload.into(),
        key: Some("k".into()),
        ..NewRecord::default()
    };
    for bad in [of(TEXT, "1"), of(JSON, "{"), of("", "1")] {
        let refused = world.refused(vec![of(JSON, "1"), bad]).await;
        assert!(matches!(&refused, Error::Unprocessable(why) if why.starts_with("record 2: ")), "{refused:?}");
    }
    let publish = Publish {
        partition: None,
        sticky: 0,
        records: vec![of("application/JSON; a=b", "[1,2]"), of(JSON, "3")],
        stored: None,
        durability: None,
        terms: None,
    };
    world.broker.publish(&world.to(Action::Publish, "orders"), publish).await.expect("published");
    let page = world.read("orders", StreamFrom::Start).await.expect("read");
    assert_eq!(text(&page), "[[1,2],3]", "an array is one message");
}

#[tokio::test]
async fn a_topic_of_one_partition_is_a_stream_of_bytes_and_no_other_topic_is_one() {
    let world = world().await;
    world.topic("one", 1).await;
    world.publish("one", &["a", "b"]).await;
    let (view, made) = world.put("one", StreamConfig::default(), "c").await.expect("it is there");
    assert!(!made);
    assert_eq!(&*view.content_type, "application/octet-stream");
    world.append("one", body("application/octet-stream", "d")).await.expect("appended");
    assert_eq!(text(&world.read("one", StreamFrom::Start).await.expect("read")), "abd");
    world.topic("two", 2).await;
    let keyed = TopicSettings { cleanup: Some(plinth_storage::Cleanup::Compact), ..TopicSettings::default() };
    world.broker.ensure_topic(&world.to(Action::Manage, "keyed"), keyed).await.expect("a topic");
    for name in ["two", "keyed"] {
        let refusals = [
            world.put(name, StreamConfig::default(), "").await.map(drop),
            world.append(name, body("application/octet-stream", "x")).await.map(drop),
            world.read(name, StreamFrom::Start).await.map(drop),
            world.head(name).map(drop),
            world.broker.delete_stream(&world.to(Action::Manage, name)).await,
        ];
        assert!(refusals.iter().all(|refused| matches!(refused, Err(Error::Conflict(_)))), "{name}: {refusals:?}");
    }
    world.stream("s", TEXT).await;
    let compact = TopicChange { cleanup: Some(plinth_storage::Cleanup::Compact), ..TopicChange::default() };
    let refused = world.broker.change_topic(&world.to(Action::Manage, "s"), compact).await.map(drop);
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
}

#[tokio::test]
async fn a_stream_of_a_weaker_class_is_closed_for_good() {
    let world = world().await;
    let settings = TopicSettings { durability: Some(plinth_storage::Durability::Memory), ..TopicSettings::default() };
    world.broker.ensure_topic(&world.to(Action::Manage, "s"), settings).await.expect("a topic");
    let bytes = |text| body("application/octet-stream", text);
    for number in 0..3u64 {
        let append = StreamAppend { seq: Some(number.to_string().into()), ..bytes("x") };
        let appended = world.append("s", of_producer(append, 0, number)).await.expect("appended");
        assert_eq!(appended.producer, Some((0, number)));
    }
    let again = world.append("s", of_producer(bytes("x"), 0, 1)).await.expect("a duplicate");
    assert_eq!((again.duplicate, again.producer), (true, Some((0, 2))));
    let stale = world.append("s", StreamAppend { seq: Some("2".into()), ..bytes("x") }).await;
    assert!(matches!(stale, Err(Error::Refused { refusal: Refusal::StreamSeq, .. })), "{stale:?}");
    let end = world.append("s", StreamAppend { close: true, ..bytes("!") }).await.expect("closed");
    let page = world.read("s", StreamFrom::Start).await.expect("read");
    assert_eq!((text(&page).as_str(), page.next, page.closed), ("xxx!", end.next, true));
    assert!(matches!(world.append("s", bytes("x")).await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn a_body_larger_than_a_record_is_one_append_of_several() {
    let world = world().await;
    world.stream("s", TEXT).await;
    let long = "aé".repeat(700_000);
    let next = world.append("s", body(TEXT, &long)).await.expect("appended").next;
    let records = world.page("s", From::Earliest).await.expect("a page");
    assert!(texts(&records.slices).iter().all(|part| part.len() <= 1 << 20), "each is text by itself");
    let (mut from, mut read) = (StreamFrom::Start, String::new());
    loop {
        let page = world.read("s", from).await.expect("read");
        read.push_str(&text(&page));
        if page.up_to_date {
            assert_eq!(page.next, next);
            break;
        }
        from = at(page.next);
    }
    assert!(read == long);
}

// Fails when what was read and did not fit is lost between two pages, or a page is cut within a record.
#[tokio::test]
async fn pages_of_any_size_together_are_the_stream() {
    let world = world().await;
    world.stream("s", JSON).await;
    let numbers = |range: std::ops::Range<u32>| serde_json::to_string(&range.collect::<Vec<_>>()).expect("JSON");
    for begin in [0, 300, 301] {
        let end = if begin == 301 { 900 } else { begin + if begin == 0 { 300 } else { 1 } };
        world.append("s", body(JSON, &numbers(begin..end))).await.expect("appended");
    }
    for bytes_max in [1, 7, 100, 1 << 20] {
        let (mut from, mut read) = (StreamFrom::Start, Vec::<u32>::new());
        loop {
            let topic = world.to(Action::Subscribe, "s");
            let page = world.broker.read_stream(&topic, from, bytes_max).await.expect("read");
            let some: Vec<u32> = serde_json::from_str(&text(&page)).expect("one array");
            let digits: usize = some.iter().map(|number| number.to_string().len()).sum();
            assert!(digits <= bytes_max.max(3), "{digits} bytes in a page of {bytes_max}");
            assert!(page.up_to_date || !some.is_empty());
            read.extend(some);
            from = at(page.next);
            if page.up_to_date {
                break;
            }
        }
        assert!(read.into_iter().eq(0..900), "{bytes_max}");
    }
}

#[tokio::test]
async fn a_follower_is_told_at_once_where_it_is_then_of_what_comes_and_of_the_end() {
    let world = world().await;
    world.stream("s", TEXT).await;
    let mut follower = world.follow_stream("s", StreamFrom::Now).await;
    assert_eq!(moved(&mut follower).await, (String::new(), true, false));
    world.append("s", body(TEXT, "a")).await.expect("appended");
    assert_eq!(moved(&mut follower).await, ("a".into(), true, false));
    // Without data: nothing but the closing moves it.
    let (seen, ()) = tokio::join!(moved(&mut follower), async {
        world.append("s", closing()).await.expect("closed");
    });
    assert_eq!(seen, (String::new(), true, true));
    let mut late = world.follow_stream("s", StreamFrom::Start).await;
    assert_eq!(moved(&mut late).await, ("a".into(), true, true));
    world.stream("t", TEXT).await;
    let mut ended = world.follow_stream("t", StreamFrom::Start).await;
    assert_eq!(moved(&mut ended).await, (String::new(), true, false));
    let (gone, ()) = tokio::join!(ended.next(), world.delete_stream("t"));
    assert!(matches!(gone.map(drop), Err(Error::NotFound(_))));
}

// Fails when the end is taken before what is told of the closing, or the closing before the end.
#[tokio::test]
async fn no_follower_is_told_of_the_end_before_it_has_everything() {
    let world = world().await;
    for round in 0..30 {
        let name = format!("s{round}");
        world.stream(&name, TEXT).await;
        let mut follower = world.follow_stream(&name, StreamFrom::Start).await;
        let reading = async {
            let mut read = String::new();
            loop {
                let (some, _, closed) = moved(&mut follower).await;
                read.push_str(&some);
                if closed {
                    return read;
                }
            }
        };
        let writing = async {
            for _ in 0..5 {
                world.append(&name, body(TEXT, "x")).await.expect("appended");
            }
            world.append(&name, StreamAppend { close: true, ..body(TEXT, "!") }).await.expect("closed");
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert_eq!(read, "xxxxx!");
    }
}

// Fails when a look that is dropped after it has read something goes on behind that.
#[tokio::test(start_paused = true)]
async fn a_follower_that_is_interrupted_again_and_again_misses_nothing() {
    let store = FaultStore::in_memory();
    let mut options = LogOptions::new(store.stores());
    (options.tail_bytes_max, options.slot_bytes) = (1024, 64 * 1024);
    let world = world_of(options).await;
    world.stream("s", TEXT).await;
    let part = |index: u32| format!("<{index}>").repeat(60_000);
    for index in 0..12 {
        world.append("s", body(TEXT, &part(index))).await.expect("appended");
    }
    world.append("s", closing()).await.expect("closed");
    store.set_latency(Duration::from_millis(5));
    let topic = world.to(Action::Subscribe, "s");
    let mut follower = world.broker.follow_stream(&topic, StreamFrom::Start, 16 << 20).await.expect("a follower");
    let (mut read, mut interrupted) = (String::new(), 0);
    for patience in 1.. {
        match tokio::time::timeout(Duration::from_millis(patience), follower.next()).await {
            Err(_) => interrupted += 1,
            Ok(moved) => {
                let moved = moved.expect("no error");
                read.push_str(&texts(&moved.batches).concat());
                if moved.closed {
                    break;
                }
            }
        }
    }
    assert!(interrupted > 2, "{interrupted} times");
    assert!(read == (0..12).map(part).collect::<String>());
}

#[tokio::test]
async fn a_proof_for_another_action_and_another_tenant_gets_nothing() {
    let world = world().await;
    world.put("s", config(TEXT), "a").await.expect("made");
    let stranger = world.stranger().await;
    let of = |action| stranger.authorize(action, "s").expect("allowed");
    let refusals = [
        world.broker.stream(&of(Action::View)).map(drop),
        world.broker.read_stream(&of(Action::Subscribe), StreamFrom::Start, 9).await.map(drop),
        world.broker.append_to_stream(&of(Action::Publish), &body(TEXT, "x")).await.map(drop),
        world.broker.delete_stream(&of(Action::Manage)).await,
    ];
    assert!(refusals.iter().all(|refused| matches!(refused, Err(Error::NotFound(_)))), "{refusals:?}");
    let wrong = world.broker.append_to_stream(&world.to(Action::View, "s"), &body(TEXT, "x")).await;
    assert!(matches!(wrong, Err(Error::Internal { .. })), "{wrong:?}");
}
