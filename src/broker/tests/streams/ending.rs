//! Streams that end by themselves, by a clock that is set by hand.

use super::super::ttl::{Hand, world_and_clock};
use super::*;

pub(super) fn ttl(seconds: u64) -> StreamConfig {
    StreamConfig { expiry: Some(Expiry::Ttl(seconds)), ..config(TEXT) }
}

pub(super) fn until(ms: u64) -> StreamConfig {
    StreamConfig { expiry: Some(Expiry::At { text: format!("{ms}"), ms }), ..config(TEXT) }
}

impl World {
    fn is_there(&self, name: &str) -> bool {
        match self.head(name) {
            Ok(_) => true,
            Err(Error::NotFound(_)) => false,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// The document of a topic and that of its end are there.
    fn is_stored(&self, name: &str) -> (bool, bool) {
        let tenant = self.caller.tenant().expect("a tenant").id();
        let rows = |prefix: Bytes| self.broker.log().scan(&prefix, None, 100).expect("rows").len();
        (rows(documents::topics(tenant, name)) > 0, rows(documents::stream_ttls(tenant)) > 0)
    }

    pub(super) async fn reap(&self) {
        let after = self.broker.reap(&self.auth, None).await.expect("a turn");
        assert!(after.is_none() || self.broker.reap(&self.auth, after).await.expect("a turn").is_none());
    }
}

#[tokio::test]
async fn a_stream_that_was_not_used_for_its_time_is_absent_to_everybody() {
    let (world, clock) = world_and_clock().await;
    let (view, _) = world.put("s", ttl(10), "old").await.expect("made");
    assert_eq!(view.expiry.as_deref(), Some(&Expiry::Ttl(10)));
    clock.pass(9_999);
    assert!(world.is_there("s"), "never early");
    clock.pass(1);
    assert!(!world.is_there("s"));
    let refusals = [
        world.append("s", body(TEXT, "x")).await.map(drop),
        world.read("s", StreamFrom::Start).await.map(drop),
        world.page("s", From::Earliest).await.map(drop),
        world.broker.topic(&world.to(Action::View, "s")).await.map(drop),
        world.broker.delete_stream(&world.to(Action::Manage, "s")).await,
        world.broker.delete_topic(&world.to(Action::Manage, "s")).await,
    ];
    assert!(refusals.iter().all(|refused| matches!(refused, Err(Error::NotFound(_)))), "{refusals:?}");
    let request = TopicsRequest { prefix: String::new(), after: None, limit: 10 };
    assert!(world.broker.list_topics(&world.caller, request).await.expect("a list").topics.is_empty());
    let (again, made) = world.put("s", config(JSON), "[1]").await.expect("a new one");
    assert!(made && again.id != view.id && again.expiry.is_none());
    assert_eq!(text(&world.read("s", StreamFrom::Start).await.expect("read")), "[1]");
    let old = world.read("s", at(view.next)).await;
    assert!(matches!(old, Err(Error::Gone(_))), "{old:?}");
    assert_eq!(world.is_stored("s"), (true, false));
}

#[tokio::test]
async fn every_use_but_a_look_gives_a_stream_its_time_again() {
    let (world, clock) = world_and_clock().await;
    world.put("s", ttl(10), "").await.expect("made");
    for round in 0..8 {
        clock.pass(9_000);
        match round {
            0 => drop(world.append("s", body(TEXT, "x")).await.expect("appended")),
            1 => drop(world.read("s", StreamFrom::Start).await.expect("read")),
            2 => drop(world.read("s", StreamFrom::Now).await.expect("read")),
            3 => drop(world.page("s", From::Latest).await.expect("a page")),
            4 => drop(world.publish("s", &["y"]).await),
            5 => drop(world.follow_stream("s", StreamFrom::Now).await),
            6 => drop(world.append("s", of_producer(StreamAppend { close: true, ..body(TEXT, "z") }, 0, 0)).await),
            _ => drop(world.append("s", closing()).await.expect("closed already")),
        }
        world.broker.store_touches().await;
    }
    clock.pass(9_000);
    assert!(world.is_there("s"));
    clock.pass(1_000);
    assert!(!world.is_there("s"), "a look is no use");
}

// Fails when the end of what has it open is not counted, or is counted without end.
#[tokio::test]
async fn a_stream_that_somebody_follows_does_not_end_until_after() {
    let (world, clock) = world_and_clock().await;
    world.put("s", ttl(10), "").await.expect("made");
    world.put("t", ttl(10), "").await.expect("made");
    let follower = world.follow_stream("s", StreamFrom::Start).await;
    let other = world.follow(&["t"], From::Latest).await;
    for _ in 0..5 {
        clock.pass(60_000);
        world.broker.store_touches().await;
        world.reap().await;
        assert!(world.is_there("s") && world.is_there("t"));
    }
    clock.pass(60_000);
    drop((follower, other));
    clock.pass(9_999);
    assert!(world.is_there("s") && world.is_there("t"));
    clock.pass(1);
    assert!(!world.is_there("s") && !world.is_there("t"));
}

#[tokio::test]
async fn a_stream_with_a_last_moment_ends_then_whatever_uses_it() {
    let (world, clock) = world_and_clock().await;
    let end = world.broker.log().now().0 + 10_000;
    let (view, _) = world.put("s", until(end), "a").await.expect("made");
    assert_eq!(view.expiry.as_deref(), until(end).expiry.as_ref());
    let mut follower = world.follow_stream("s", StreamFrom::Start).await;
    assert_eq!(moved(&mut follower).await.0, "a");
    clock.pass(9_999);
    world.read("s", StreamFrom::Start).await.expect("it is there");
    clock.pass(1);
    assert!(!world.is_there("s"));
    clock.pass(15_000);
    world.reap().await;
    assert!(matches!(follower.next().await.map(drop), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_stream_is_the_same_only_with_the_same_end() {
    let (world, _clock) = world_and_clock().await;
    let end = world.broker.log().now().0 + 10_000;
    world.put("s", ttl(10), "").await.expect("made");
    world.put("t", until(end), "").await.expect("made");
    let otherwise_said = StreamConfig { expiry: Some(Expiry::At { text: "later".into(), ms: end }), ..config(TEXT) };
    for (name, same) in [("s", ttl(10)), ("t", until(end)), ("t", otherwise_said)] {
        assert!(!world.put(name, same, "").await.expect("the same").1);
    }
    for (name, other) in [("s", ttl(11)), ("s", config(TEXT)), ("s", until(end)), ("t", ttl(10)), ("t", until(end + 1))]
    {
        let refused = world.put(name, other, "").await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
}

// Fails when the reaper does not look at uses, deletes what is just over, or leaves a document behind.
#[tokio::test]
async fn what_is_over_is_deleted_some_time_later_with_all_that_is_known_of_it() {
    let (world, clock) = world_and_clock().await;
    let tenant = world.caller.tenant().expect("a tenant").clone();
    world.broker.count_kept(&tenant).await.expect("counted");
    let before = tenant.meter().kept().topics();
    world.put("s", ttl(10), "data").await.expect("made");
    assert_eq!(world.is_stored("s"), (true, true));
    clock.pass(10_000);
    world.reap().await;
    assert_eq!(world.is_stored("s"), (true, true), "an append may be under way");
    clock.pass(15_000);
    world.reap().await;
    assert_eq!(world.is_stored("s"), (false, false));
    assert_eq!(tenant.meter().kept().topics(), before);
    let (view, made) = world.put("s", ttl(10), "").await.expect("made");
    assert!(made);
    assert_eq!(view.next, world.read("s", StreamFrom::Start).await.expect("read").next);
    world.broker.delete_stream(&world.to(Action::Manage, "s")).await.expect("deleted");
    assert_eq!(world.is_stored("s"), (false, false));
}

#[tokio::test]
async fn a_publish_makes_a_topic_in_the_place_of_a_stream_that_is_over() {
    let (world, clock) = world_and_clock().await;
    world.put("s", ttl(1), "old").await.expect("made");
    clock.pass(1_000);
    world.publish("s", &["new"]).await;
    let page = world.page("s", From::Earliest).await.expect("a page");
    assert_eq!(texts(&page.slices), ["new"]);
    assert_eq!(world.is_stored("s"), (true, false));
}

pub(in crate::broker::tests) async fn again(options: &LogOptions, world: World) -> World {
    world.broker.close().await;
    world.broker.log().close().await.expect("closed");
    let log = Log::open(options.clone()).await.expect("a log");
    let (auth, _) = Auth::open(log.clone(), None).await.expect("credentials");
    let broker = Broker::open(log, BrokerOptions::default()).await.expect("a broker");
    let caller = auth.authenticate(Credential::Bearer(&world.root), Some("default")).expect("valid");
    World { auth, broker, root: world.root, caller }
}

// Fails when a stored use is not read, or nothing is added for what was not stored.
#[tokio::test]
async fn a_restart_forgets_no_use_that_was_stored_and_gives_time_for_those_that_were_not() {
    let clock = Arc::new(Hand::default());
    let mut options = LogOptions::new(store::open("memory://").expect("a store"));
    options.clock = Arc::<Hand>::clone(&clock);
    let world = world_of(options.clone()).await;
    world.put("stored", ttl(80), "").await.expect("made");
    world.put("noted", ttl(80), "").await.expect("made");
    clock.pass(69_990);
    world.read("stored", StreamFrom::Start).await.expect("read");
    clock.pass(10_000);
    world.broker.store_touches().await;
    world.read("noted", StreamFrom::Start).await.expect("read");
    let world = again(&options, world).await;
    clock.pass(10);
    assert!(world.is_there("noted"), "its use may have been forgotten");
    clock.pass(11_000);
    assert!(!world.is_there("noted"));
    assert!(world.is_there("stored"));
    clock.pass(59_000);
    assert!(world.is_there("stored"));
    clock.pass(11_000);
    assert!(!world.is_there("stored"));
}

// Fails when what is known of the streams that were deleted is only in memory.
#[tokio::test]
async fn a_stream_that_was_deleted_shares_no_token_with_the_next_after_a_start_with_a_clock_that_is_behind() {
    let clock = Arc::new(Hand::default());
    let mut options = LogOptions::new(store::open("memory://").expect("a store"));
    options.clock = Arc::<Hand>::clone(&clock);
    let mut world = world_of(options.clone()).await;
    for (name, ended) in [("deleted", false), ("over", true)] {
        let first = if ended { ttl(1) } else { config(TEXT) };
        let old = world.put(name, first, "old").await.expect("made").0.next;
        if ended {
            clock.pass(100_000);
            let (new, made) = world.put(name, config(TEXT), "new").await.expect("in its place");
            assert!(made && new.next > old);
        }
        world.delete_stream(name).await;
        world = again(&options, world).await;
        clock.go_back(60_000);
        let (new, made) = world.put(name, config(TEXT), "new").await.expect("made");
        assert!(made && new.next > old);
        let gone = world.read(name, at(old)).await;
        assert!(matches!(gone, Err(Error::Gone(_))), "{gone:?}");
    }
}
