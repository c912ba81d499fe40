//! Forks of streams: what they share, the offsets that hold on both, and what is kept for them.

use super::super::ttl::world_and_clock;
use super::ending::{ttl, until};
use super::*;

/// The sum of all errors that a name gives which is kept for forks.
async fn assert_gone(world: &World, name: &str) {
    let gone = [
        world.head(name).map(drop),
        world.read(name, StreamFrom::Start).await.map(drop),
        world.append(name, body(TEXT, "x")).await.map(drop),
        world.append(name, closing()).await.map(drop),
        world.page(name, From::Earliest).await.map(drop),
        world.broker.topic(&world.to(Action::View, name)).await.map(drop),
        world.broker.delete_stream(&world.to(Action::Manage, name)).await,
        world.broker.delete_topic(&world.to(Action::Manage, name)).await,
        world.broker.change_topic(&world.to(Action::Manage, name), record_bytes(9)).await.map(drop),
    ];
    assert!(gone.iter().all(|gone| matches!(gone, Err(Error::Gone(_)))), "{gone:?}");
    let settings = TopicSettings::default();
    let blocked = [
        world.put(name, config(TEXT), "x").await.map(drop),
        world.fork("of-what-is-gone", name, None, None).await.map(drop),
        world.broker.ensure_topic(&world.to(Action::Manage, name), settings).await.map(drop),
    ];
    assert!(blocked.iter().all(|blocked| matches!(blocked, Err(Error::Conflict(_)))), "{blocked:?}");
}

impl World {
    fn forking(&self, source: &str, anchor: Option<Token>, sub: Option<u64>) -> StreamConfig {
        let (source, anchor) = (self.to(Action::Subscribe, source), anchor.map(|token| token.to_string()));
        StreamConfig { fork: Some(ForkFrom { source, anchor, sub }), ..StreamConfig::default() }
    }

    async fn fork(
        &self,
        name: &str,
        source: &str,
        anchor: Option<Token>,
        sub: Option<u64>,
    ) -> Result<(StreamView, bool), Error> {
        self.put(name, self.forking(source, anchor, sub), "").await
    }

    async fn all(&self, name: &str) -> String {
        text(&self.read(name, StreamFrom::Start).await.expect("read"))
    }

    /// A stream of these appends, and the offsets around them.
    async fn appended(&self, name: &str, appends: &[&str]) -> Vec<Token> {
        let mut tokens = vec![self.stream(name, TEXT).await.next];
        for append in appends {
            tokens.push(self.append(name, body(TEXT, append)).await.expect("appended").next);
        }
        tokens
    }

    /// How many documents of topics there are, and how many rows in the log that are of one.
    fn left(&self) -> (usize, usize) {
        let tenant = self.caller.tenant().expect("a tenant").id();
        let names = self.broker.log().scan(&documents::topics(tenant, ""), None, 1000).expect("rows");
        let rows = self.broker.log().state_rows().expect("rows").into_iter();
        (names.len(), rows.filter(|(key, _)| [2, 3, 4, 21].contains(&key[0])).count())
    }
}

// Fails when a fork shares one record too many, or has tokens of its own where those of its source must hold.
#[tokio::test]
async fn a_fork_at_any_offset_shares_what_is_before_it_and_its_offsets() {
    let world = world().await;
    let tokens = world.appended("s", &["a", "b", "c"]).await;
    for (left, token) in tokens.iter().enumerate() {
        let name = format!("f{left}");
        let (view, made) = world.fork(&name, "s", Some(*token), None).await.expect("made");
        assert!(made && !view.closed && view.next == *token);
        assert_eq!((&*view.content_type, view.expiry), (TEXT, None));
        let own = world.append(&name, body(TEXT, "+")).await.expect("appended").next;
        assert!(own > *token);
        assert_eq!(world.all(&name).await, format!("{}+", &"abc"[..left]));
        for (from, token) in tokens.iter().enumerate() {
            let read = world.read(&name, at(*token)).await;
            if from <= left {
                assert_eq!(text(&read.expect("shared")), format!("{}+", &"abc"[from..left]));
            } else {
                assert!(matches!(read, Err(Error::Invalid(_))), "{read:?}");
            }
        }
        assert!(matches!(world.read("s", at(own)).await, Err(Error::Invalid(_))));
    }
    let (head, _) = world.fork("head", "s", None, None).await.expect("made");
    assert_eq!(head.next, tokens[3]);
    world.append("s", body(TEXT, "d")).await.expect("appended");
    assert_eq!((world.all("s").await, world.all("head").await), ("abcd".into(), "abc".into()));
}

#[tokio::test]
async fn a_fork_may_leave_its_source_within_an_append_by_bytes_or_messages() {
    let world = world().await;
    let tokens = world.appended("s", &["abcdef", "ghi"]).await;
    world.fork("f", "s", Some(tokens[0]), Some(4)).await.expect("made");
    world.fork("ff", "f", Some(tokens[0]), Some(2)).await.expect("made");
    let first = StreamConfig { closed: true, ..world.forking("s", Some(tokens[1]), Some(1)) };
    let (mid, _) = world.put("mid", first, "+more").await.expect("made");
    assert!(mid.closed);
    for (name, expected) in [("f", "abcd"), ("ff", "ab"), ("mid", "abcdefg+more"), ("s", "abcdefghi")] {
        assert_eq!(world.all(name).await, expected);
    }
    let of_f = world.head("f").expect("there").next;
    assert!(of_f != tokens[1], "behind another record it is another offset");
    let (again, _) = world.fork("at-end", "f", None, None).await.expect("made");
    assert_eq!((again.next, world.all("at-end").await.as_str()), (of_f, "abcd"));
    for (anchor, sub) in [(tokens[0], 7), (tokens[1], 4), (tokens[2], 1)] {
        let refused = world.fork("x", "s", Some(anchor), Some(sub)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let refused = world.fork("x", "s", None, Some(1)).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let begin = world.stream("json", JSON).await.next;
    world.append("json", body(JSON, "[1,[2],3]")).await.expect("appended");
    world.fork("j", "json", Some(begin), Some(2)).await.expect("made");
    assert_eq!(world.all("j").await, "[1,[2]]");
    let refused = world.fork("x", "json", Some(begin), Some(4)).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert!(matches!(world.head("x"), Err(Error::NotFound(_))));
}

// Fails when what a fork took over is compared as if it had been said.
#[tokio::test]
async fn a_fork_that_is_made_again_is_the_same_only_as_it_was_said() {
    let (world, _clock) = world_and_clock().await;
    world.put("s", ttl(100), "ab").await.expect("made");
    world.put("t", config(TEXT), "ab").await.expect("made");
    let begin = world.read("s", StreamFrom::Start).await.expect("read");
    let zero = begin.view.next;
    for _ in 0..2 {
        world.fork("f", "s", Some(zero), None).await.expect("the same");
        world.fork("f", "s", None, Some(0)).await.expect("as much");
        world
            .put("f", StreamConfig { content_type: Some(TEXT.into()), ..world.forking("s", None, None) }, "x")
            .await
            .expect("the same");
    }
    assert_eq!(world.head("f").expect("there").expiry.as_deref(), Some(&Expiry::Ttl(100)));
    assert_eq!(world.all("f").await, "ab");
    let others = [
        world.forking("t", None, None),
        world.forking("s", Some(world.append("s", body(TEXT, "c")).await.expect("appended").next), None),
        StreamConfig { closed: true, ..world.forking("s", None, None) },
        StreamConfig { expiry: Some(Expiry::Ttl(7)), ..world.forking("s", None, None) },
        StreamConfig { content_type: Some(JSON.into()), ..world.forking("s", None, None) },
        config(TEXT),
    ];
    for other in others {
        let refused = world.put("f", other, "").await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
    let refused = world.put("s", world.forking("t", None, None), "").await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
}

#[tokio::test]
async fn a_fork_that_cannot_be_leaves_nothing_behind() {
    let world = world().await;
    let tokens = world.appended("s", &["a"]).await;
    let other = StreamConfig { content_type: Some(JSON.into()), ..world.forking("s", None, None) };
    let refused = world.put("f", other, "").await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let absent = world.fork("f", "nothing", None, None).await;
    assert!(matches!(absent, Err(Error::NotFound(_))), "{absent:?}");
    for anchor in ["", "x", "9999999999999999_9999999999999999"] {
        let fork = world.forking("s", None, None).fork.expect("a fork");
        let fork = Some(ForkFrom { anchor: Some(anchor.into()), ..fork });
        let refused = world.put("f", StreamConfig { fork, ..StreamConfig::default() }, "").await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{anchor}: {refused:?}");
    }
    world.topic("many", 2).await;
    let refused = world.fork("f", "many", None, None).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let other_proof = ForkFrom { source: world.to(Action::View, "s"), anchor: None, sub: None };
    let unproved = world.put("f", StreamConfig { fork: Some(other_proof), ..StreamConfig::default() }, "").await;
    assert!(matches!(unproved, Err(Error::Internal { .. })), "{unproved:?}");
    world.delete_stream("s").await;
    assert!(matches!(world.head("s"), Err(Error::NotFound(_))), "no fork keeps it");
    assert!(world.stream("s", TEXT).await.next > tokens[1]);
}

#[tokio::test]
async fn what_is_deleted_is_gone_until_the_last_fork_takes_it_along() {
    let world = world().await;
    let tokens = world.appended("s", &["a", "b"]).await;
    world.fork("f", "s", None, None).await.expect("made");
    world.append("f", body(TEXT, "c")).await.expect("appended");
    world.fork("ff", "f", None, None).await.expect("made");
    let mut follower = world.follow_stream("s", StreamFrom::Now).await;
    assert_eq!(moved(&mut follower).await, (String::new(), true, false));
    world.delete_stream("s").await;
    assert!(matches!(follower.next().await.map(drop), Err(Error::NotFound(_))), "it does not wait on");
    world.delete_stream("f").await;
    for name in ["s", "f"] {
        assert_gone(&world, name).await;
    }
    let request = TopicsRequest { prefix: String::new(), after: None, limit: 10 };
    let listed = world.broker.list_topics(&world.caller, request).await.expect("a list").topics;
    assert_eq!(listed.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), ["ff"]);
    assert_eq!(world.all("ff").await, "abc");
    assert_eq!(text(&world.read("ff", at(tokens[1])).await.expect("read")), "bc");
    world.delete_stream("ff").await;
    for name in ["s", "f", "ff"] {
        assert!(matches!(world.head(name), Err(Error::NotFound(_))), "{name}");
    }
    assert_eq!(world.left(), (0, 0));
    world.appended("s", &["new"]).await;
    let old = world.read("s", at(tokens[1])).await;
    assert!(matches!(old, Err(Error::Gone(_))), "{old:?}");
}

/// What a new count finds: topics and stored bytes.
async fn world_again(world: &World, tenant: &crate::auth::TenantRef) -> (u64, u64) {
    tenant.meter().lose_count();
    let bytes = world.broker.stored_bytes(tenant).await.expect("counted");
    (tenant.meter().kept().topics().expect("counted"), bytes)
}

// Fails when a name that is kept counts as free, or is counted twice.
#[tokio::test]
async fn names_that_are_kept_count_until_they_are_gone() {
    let world = world().await;
    let tenant = world.caller.tenant().expect("a tenant").clone();
    world.broker.count_kept(&tenant).await.expect("counted");
    let counted = || tenant.meter().kept().topics().expect("counted");
    let before = counted();
    world.appended("s", &["a"]).await;
    world.fork("f", "s", None, None).await.expect("made");
    assert_eq!(counted(), before + 2);
    let (_, stored) = world_again(&world, &tenant).await;
    assert!(stored > 0);
    world.delete_stream("s").await;
    assert_eq!(counted(), before + 2);
    let other = world_again(&world, &tenant).await;
    assert_eq!(other, (before + 2, stored), "by a new count, too");
    world.delete_stream("f").await;
    assert_eq!(counted(), before);
}

// Fails when the number of forks is no guard of a deletion: a document is left that blocks its name for ever.
#[tokio::test]
async fn forks_and_deletions_at_once_leave_nothing_in_the_end() {
    let world = world().await;
    let before = world.left();
    for round in 0..5 {
        world.appended("s", &["a"]).await;
        let forks: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
        let made = forks.iter().map(|name| world.fork(name, "s", None, None));
        let deleted = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            world.broker.delete_stream(&world.to(Action::Manage, "s")).await
        };
        let (made, deleted) = tokio::join!(futures::future::join_all(made), deleted);
        deleted.expect("deleted");
        let mut alive = Vec::new();
        for (name, made) in forks.iter().zip(made) {
            match made {
                Ok(_) => alive.push(name),
                Err(Error::NotFound(_) | Error::Conflict(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        for name in &alive {
            assert_eq!(world.all(name).await, "a");
        }
        let head = world.head("s").map(drop);
        match alive.is_empty() {
            true => assert!(matches!(head, Err(Error::NotFound(_))), "{head:?}"),
            false => assert!(matches!(head, Err(Error::Gone(_))), "{head:?}"),
        }
        let manage: Vec<TopicRef> = alive.iter().map(|name| world.to(Action::Manage, name)).collect();
        let ended = futures::future::join_all(manage.iter().map(|name| world.broker.delete_stream(name))).await;
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
        assert_eq!(world.left(), before, "round {round}");
    }
}

#[tokio::test]
async fn a_source_that_ends_by_itself_is_kept_for_its_forks() {
    let (world, clock) = world_and_clock().await;
    let end = world.broker.log().now().0 + 10_000;
    world.put("s", ttl(10), "a").await.expect("made");
    world.put("u", until(end), "u").await.expect("made");
    let before = world.left().0;
    world.fork("own", "s", None, None).await.expect("made");
    let longer = StreamConfig { expiry: Some(Expiry::Ttl(100)), ..world.forking("s", None, None) };
    world.put("longer", longer, "b").await.expect("made");
    world.fork("with-u", "u", None, None).await.expect("made");
    clock.pass(9_000);
    world.append("own", body(TEXT, "+")).await.expect("appended");
    clock.pass(1_000);
    assert_gone(&world, "s").await;
    assert!(matches!(world.head("with-u"), Err(Error::NotFound(_))), "the last moment is that of its source");
    assert_eq!(world.all("own").await, "a+");
    clock.pass(25_000);
    world.reap().await;
    world.reap().await;
    assert_gone(&world, "s").await;
    assert!(matches!(world.head("u"), Err(Error::NotFound(_))), "its only fork is over, too");
    assert_eq!(world.all("longer").await, "ab");
    assert_eq!(world.left().0, before, "u, its fork and own are gone; s and longer are not");
    clock.pass(200_000);
    world.reap().await;
    assert_eq!(world.left().0, before - 2);
    let (_, made) = world.put("s", config(TEXT), "new").await.expect("made");
    assert!(made);
}

#[tokio::test]
async fn a_fork_in_the_place_of_one_that_is_over_takes_what_was_kept_for_that_along() {
    let (world, clock) = world_and_clock().await;
    world.appended("old", &["a"]).await;
    world.appended("new", &["b"]).await;
    let before = world.left().0;
    world
        .put("f", StreamConfig { expiry: Some(Expiry::Ttl(1)), ..world.forking("old", None, None) }, "")
        .await
        .expect("made");
    world.delete_stream("old").await;
    clock.pass(2_000);
    let (_, made) = world.fork("f", "new", None, None).await.expect("made");
    assert!(made);
    assert_eq!(world.all("f").await, "b");
    assert!(matches!(world.head("old"), Err(Error::NotFound(_))));
    assert_eq!(world.left().0, before);
}

#[tokio::test]
async fn producers_and_sequences_of_a_source_are_not_those_of_its_forks() {
    let world = world().await;
    world.stream("s", TEXT).await;
    let append = || StreamAppend { seq: Some("5".into()), ..of_producer(body(TEXT, "a"), 3, 0) };
    world.append("s", append()).await.expect("appended");
    assert!(world.append("s", append()).await.expect("known").duplicate);
    world.fork("f", "s", None, None).await.expect("made");
    let fresh = world.append("f", append()).await.expect("appended");
    assert!(!fresh.duplicate && fresh.records == 1);
    assert_eq!((world.all("s").await, world.all("f").await), ("a".into(), "aa".into()));
}

#[tokio::test]
async fn topics_read_forks_as_streams_do_and_leave_what_is_shared() {
    let world = world().await;
    let tokens = world.appended("s", &["abc", "def"]).await;
    world.fork("f", "s", Some(tokens[1]), Some(2)).await.expect("made");
    world.publish("f", &["own"]).await;
    let page = world.page("f", From::Earliest).await.expect("a page");
    assert_eq!(texts(&page.slices), ["abc", "de", "own"]);
    let mut follower = world.follow(&["f"], From::Offset(1)).await;
    assert_eq!(next(&mut follower).await, "f/0@1 de");
    assert_eq!(next(&mut follower).await, "f/0@2 own");
    let last = world.page("f", From::Last(2)).await.expect("a page");
    assert_eq!(texts(&last.slices), ["de", "own"]);
    let trimmed = world.broker.trim(&world.to(Action::Manage, "s"), Before::Offset(1), None).await;
    assert!(matches!(trimmed, Err(Error::Conflict(_))), "{trimmed:?}");
    world.publish("plain", &["x"]).await;
    world.fork("g", "plain", None, None).await.expect("a topic of one partition is a stream");
    let change = TopicChange { cleanup: Some(plinth_storage::Cleanup::Compact), ..TopicChange::default() };
    let refused = world.broker.change_topic(&world.to(Action::Manage, "plain"), change).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    world.broker.delete_topic(&world.to(Action::Manage, "plain")).await.expect("deleted");
    assert_gone(&world, "plain").await;
    assert_eq!(texts(&world.page("g", From::Earliest).await.expect("a page").slices), ["x"]);
}

// Fails when what waits for a fork is woken by its source, or does not get what it inherits.
#[tokio::test]
async fn who_follows_a_fork_hears_nothing_of_its_source() {
    let world = world().await;
    world.appended("s", &["a"]).await;
    world.fork("f", "s", None, None).await.expect("made");
    let mut follower = world.follow_stream("f", StreamFrom::Start).await;
    assert_eq!(moved(&mut follower).await, ("a".into(), true, false));
    world.append("s", body(TEXT, "b")).await.expect("appended");
    world.append("f", body(TEXT, "own")).await.expect("appended");
    assert_eq!(moved(&mut follower).await, ("own".into(), true, false));
}

// Fails when the document of a fork does not say what its tokens share, or a restart forgets who is kept.
#[tokio::test]
async fn a_start_knows_forks_and_what_is_kept_for_them() {
    let options = LogOptions::new(store::open("memory://").expect("a store"));
    let world = world_of(options.clone()).await;
    let tokens = world.appended("s", &["ab", "c"]).await;
    world.fork("f", "s", Some(tokens[0]), Some(1)).await.expect("made");
    world.fork("ff", "f", None, None).await.expect("made");
    let end = world.append("ff", body(TEXT, "+")).await.expect("appended").next;
    world.delete_stream("s").await;
    world.delete_stream("f").await;
    let world = super::ending::again(&options, world).await;
    for name in ["s", "f"] {
        assert_gone(&world, name).await;
    }
    assert_eq!((world.all("ff").await, world.head("ff").expect("there").next), ("a+".into(), end));
    world.delete_stream("ff").await;
    assert!(matches!(world.head("s"), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn forks_of_forks_are_as_deep_as_the_limit() {
    let world = world().await;
    world.appended("f0", &["."]).await;
    for depth in 1..=plinth_api::limits::FORK_DEPTH_MAX {
        let name = format!("f{depth}");
        world.fork(&name, &format!("f{}", depth - 1), None, None).await.expect("made");
        world.append(&name, body(TEXT, ".")).await.expect("appended");
    }
    assert_eq!(world.all("f64").await, ".".repeat(65));
    let refused = world.fork("f65", "f64", None, None).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    for depth in 0..=64 {
        world.delete_stream(&format!("f{depth}")).await;
    }
    assert_eq!(world.left().0, 0);
}
