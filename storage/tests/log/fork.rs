//! Forks: what they share stays for as long as they do, and what cannot be beside it is refused.
//!
//! Virtual time where a store has to answer late.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use plinth_storage::env::Clock;
use plinth_storage::error::Kind;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, Timestamp, TopicId};
use plinth_storage::log::{Change, First, ForkPoint, Guard, Log, LogOptions, Retention, Sub, TopicOp};
use plinth_storage::terms::StreamTerms;
use plinth_storage::testing::fault::{FaultStore, PutFault};
use plinth_storage::{Cleanup, Durability};
use ulid::Ulid;

use crate::common::{append, batch, make_topic, options, partition, pass, read_all, texts, topic};

async fn open(store: &FaultStore) -> Log {
    Log::open(options(&store.stores(), None)).await.expect("the log opens")
}

fn place(number: u64) -> Partition {
    Partition { topic: TopicId(Ulid::from_parts(number, 9)), index: PartitionIndex(0) }
}

fn point(at: u64, cut: u32) -> ForkPoint {
    ForkPoint { at: Offset(at), cut: NonZeroU32::new(cut) }
}

fn forking(number: u64, source: TopicId, point: ForkPoint) -> Change {
    Change { topics: vec![TopicOp::Fork { topic: place(number).topic, source, point }], ..Change::default() }
}

async fn fork(log: &Log, number: u64, point: ForkPoint) {
    log.commit(forking(number, topic(), point)).await.expect("made");
}

async fn delete(log: &Log, topic: TopicId) {
    log.commit(Change { topics: vec![TopicOp::Delete { topic }], ..Change::default() }).await.expect("deleted");
}

async fn shown(log: &Log, number: u64) -> Vec<String> {
    let all = read_all(log, place(number)).await;
    all.iter().map(|payload| String::from_utf8_lossy(payload).into_owned()).collect()
}

fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

async fn with_records(store: &FaultStore, records: &[&str]) -> Log {
    let log = open(store).await;
    make_topic(&log, 1).await;
    for record in records {
        append(&log, record).await.expect("stored");
    }
    log
}

#[tokio::test]
async fn a_fork_begins_with_what_its_source_had_and_each_goes_on_alone() {
    let store = FaultStore::in_memory();
    let log = with_records(&store, &["ab", "cd", "ef"]).await;
    let change = forking(1, topic(), point(2, 1));
    let first = First { partition: place(1), batch: Some(batch(&["own".into()])), close: false };
    assert_eq!(log.create(change, first).await.expect("made"), Offset(3));
    append(&log, "gh").await.expect("stored");
    log.append(place(1), batch(&["more".into()])).await.expect("stored");
    for round in 0..2 {
        assert_eq!(texts(&log).await, ["ab", "cd", "ef", "gh"], "{round}");
        assert_eq!(shown(&log, 1).await, ["ab", "c", "own", "more"], "{round}");
        log.compact().await.expect("compacted");
    }
    let bounds = log.bounds(place(1)).expect("it is there");
    assert_eq!((bounds.start, bounds.tail), (Offset(0), Offset(4)));
    assert_eq!(log.forks(topic()).expect("counted"), 1);
}

// Fails when a fork takes over what its source remembers, or its end.
#[tokio::test]
async fn a_fork_of_a_closed_stream_is_open_and_remembers_nothing_of_it() {
    let store = FaultStore::in_memory();
    let log = with_records(&store, &["a"]).await;
    let end = StreamTerms { seq: Some("9".into()), close: true, ..StreamTerms::default() };
    log.step(partition(0), None, &end, Durability::Object).await.expect("closed");
    fork(&log, 1, point(1, 0)).await;
    assert!(!log.bounds(place(1)).expect("it is there").closed);
    let low = StreamTerms { seq: Some("1".into()), ..StreamTerms::default() };
    let stepped = log.step(place(1), Some(batch(&["b".into()])), &low, Durability::Object).await.expect("stored");
    assert_eq!(stepped.tail, Offset(2));
    assert_eq!(shown(&log, 1).await, ["a", "b"]);
}

#[tokio::test]
async fn a_place_within_what_was_appended_at_once_is_found_by_records_and_by_bytes() {
    let store = FaultStore::in_memory();
    let log = with_records(&store, &["first"]).await;
    let payloads: Vec<Bytes> = ["abc", "", "de"].into_iter().map(Bytes::from).collect();
    log.append(partition(0), batch(&payloads)).await.expect("stored");
    append(&log, "last").await.expect("stored");
    let found =
        async |anchor, sub| log.fork_point(partition(0), Offset(anchor), sub).await.map_err(|error| error.kind());
    for (anchor, sub, expected) in [
        (1, Sub::None, point(1, 0)),
        (1, Sub::Bytes(0), point(1, 0)),
        (1, Sub::Records(3), point(4, 0)),
        (1, Sub::Bytes(2), point(2, 2)),
        (1, Sub::Bytes(3), point(2, 0)),
        (1, Sub::Bytes(4), point(4, 1)),
        (1, Sub::Bytes(5), point(4, 0)),
        (3, Sub::Bytes(1), point(4, 1)),
        (5, Sub::None, point(5, 0)),
    ] {
        assert_eq!(found(anchor, sub).await, Ok(expected), "{anchor} {sub:?}");
    }
    for (anchor, sub) in
        [(1, Sub::Records(4)), (1, Sub::Bytes(6)), (5, Sub::Bytes(1)), (5, Sub::Records(1)), (6, Sub::None)]
    {
        assert_eq!(found(anchor, sub).await, Err(Kind::OutOfRange), "{anchor} {sub:?}");
    }
}

// Fails when a deletion takes the rows of what a fork shares, or leaves them when the last fork is gone; in whichever order.
#[tokio::test]
async fn what_is_deleted_stays_for_its_forks_and_goes_with_the_last_of_them() {
    let store = FaultStore::in_memory();
    let log = with_records(&store, &["a", "b"]).await;
    fork(&log, 1, point(2, 0)).await;
    log.append(place(1), batch(&["c".into()])).await.expect("stored");
    log.commit(forking(2, place(1).topic, point(3, 0))).await.expect("made");
    delete(&log, topic()).await;
    delete(&log, place(1).topic).await;
    for gone in [partition(0), place(1)] {
        assert_eq!(log.bounds(gone).expect_err("deleted").kind(), Kind::NotFound);
        assert_eq!(log.append(gone, batch(&["x".into()])).await.expect_err("deleted").kind(), Kind::NotFound);
        assert_eq!(log.read(gone, Offset(0), 100).await.expect_err("deleted").kind(), Kind::NotFound);
        assert_eq!(log.commit(forking(7, gone.topic, point(1, 0))).await.expect_err("deleted").kind(), Kind::NotFound);
        assert_eq!(log.forks(gone.topic).expect("counted"), 1);
    }
    log.compact().await.expect("compacted");
    drop(log);
    let log = open(&store).await;
    assert_eq!(shown(&log, 2).await, ["a", "b", "c"]);
    assert!(!log.needed_objects().expect("listed").is_empty());
    delete(&log, place(2).topic).await;
    let kinds = [2, 3, 4, 21];
    let rows = log.state_rows().expect("read").into_iter().filter(|(key, _)| kinds.contains(&key[0]));
    assert_eq!(rows.count(), 0);
}

/// The segments that the state refers to.
fn segments(log: &Log) -> BTreeSet<Path> {
    let objects = log.needed_objects().expect("listed").into_iter();
    objects.filter(|object| object.as_ref().starts_with("segment/")).collect()
}

// Fails when a purge takes what stays for forks for something that must go: it would write anew what it stands beside.
#[tokio::test(start_paused = true)]
async fn a_purge_writes_nothing_anew_for_what_forks_share() {
    let store = FaultStore::in_memory();
    let log = with_records(&store, &["a", "b"]).await;
    fork(&log, 1, point(2, 0)).await;
    let create = vec![TopicOp::Create { topic: place(5).topic, partitions: 1 }];
    log.commit(Change { topics: create, ..Change::default() }).await.expect("made");
    log.append(place(5), batch(&["beside".into()])).await.expect("stored");
    log.append(place(1), batch(&["own".into()])).await.expect("stored");
    log.compact().await.expect("compacted");
    let before = segments(&log);
    assert_eq!(before.len(), 1, "{before:?}");
    // Of a segment without a hole the purge does not ask what is in it.
    log.trim(&[(place(5), Offset(1))]).await.expect("trimmed");
    delete(&log, topic()).await;
    log.purge().await.expect("purged");
    assert_eq!((segments(&log), shown(&log, 1).await), (before.clone(), vec!["a".into(), "b".into(), "own".into()]));
    // The last fork takes it along, and then it must go.
    delete(&log, place(1).topic).await;
    log.purge().await.expect("purged");
    assert_eq!(segments(&log), BTreeSet::new());
}

// Fails when a purge takes the records of a topic that stays for its forks.
#[tokio::test(start_paused = true)]
async fn a_purge_leaves_what_forks_share() {
    let store = FaultStore::in_memory();
    let log = with_records(&store, &["a", "b"]).await;
    fork(&log, 1, point(1, 0)).await;
    log.append(place(1), batch(&["own".into()])).await.expect("stored");
    delete(&log, topic()).await;
    for _ in 0..2 {
        log.purge().await.expect("purged");
        assert_eq!(shown(&log, 1).await, ["a", "own"]);
    }
    drop(log);
    let log = open(&store).await;
    assert_eq!(shown(&log, 1).await, ["a", "own"]);
}

#[tokio::test]
async fn what_takes_records_away_that_forks_share_is_refused_until_they_are_gone() {
    let store = FaultStore::in_memory();
    let log = with_records(&store, &["a", "b"]).await;
    fork(&log, 1, point(1, 0)).await;
    let trimmed = log.trim(&[(partition(0), Offset(1))]).await.expect_err("it has a fork");
    assert_eq!(trimmed.kind(), Kind::Conflict);
    let clean =
        |topic| Change { topics: vec![TopicOp::SetCleanup { topic, cleanup: Cleanup::Compact }], ..Change::default() };
    for topic in [topic(), place(1).topic] {
        assert_eq!(log.commit(clean(topic)).await.expect_err("it is shared").kind(), Kind::Conflict);
    }
    log.trim(&[(place(1), Offset(1))]).await.expect("a fork may begin later");
    assert_eq!(shown(&log, 1).await, Vec::<String>::new());
    delete(&log, place(1).topic).await;
    log.trim(&[(partition(0), Offset(1))]).await.expect("nobody shares it");
    log.commit(clean(topic())).await.expect("nobody shares it");
    let refused = log.commit(forking(2, topic(), point(2, 0))).await.expect_err("it is cleaned by key");
    assert_eq!(refused.kind(), Kind::Conflict);
    assert_eq!(texts(&log).await, ["b"]);
}

/// A clock that is set by hand.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

// Fails when retention looks at a partition with forks as at any other (the writer refuses the trim then, and that of the other
// topic with it), or never again; and when both take it for any other.
#[tokio::test(start_paused = true)]
async fn retention_stands_still_while_there_are_forks() {
    let store = FaultStore::in_memory();
    let clock = Arc::new(Hand::default());
    let options = LogOptions { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..options(&store.stores(), None) };
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    append(&log, "a").await.expect("stored");
    fork(&log, 1, point(1, 0)).await;
    let retention = Retention { age_ms: NonZeroU64::new(1000), bytes: None };
    let other = place(2).topic;
    let set = vec![
        TopicOp::Create { topic: other, partitions: 1 },
        TopicOp::SetRetention { topic: topic(), retention },
        TopicOp::SetRetention { topic: other, retention },
    ];
    log.commit(Change { topics: set, ..Change::default() }).await.expect("set");
    log.append(place(2), batch(&["of another".into()])).await.expect("stored");
    clock.0.store(10_000, Ordering::Relaxed);
    pass(Duration::from_secs(60)).await;
    assert_eq!(texts(&log).await, ["a"]);
    assert_eq!(shown(&log, 2).await, Vec::<String>::new(), "that of others goes on");
    delete(&log, place(1).topic).await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(texts(&log).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_time_is_looked_for_in_what_is_inherited_and_behind_it() {
    let store = FaultStore::in_memory();
    let clock = Arc::new(Hand::default());
    let options = LogOptions { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..options(&store.stores(), None) };
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    let base = clock.now().0;
    for record in ["0", "1", "2"] {
        append(&log, record).await.expect("stored");
        clock.0.fetch_add(10, Ordering::Relaxed);
    }
    fork(&log, 1, point(2, 0)).await;
    assert_eq!(log.offset_at(place(1), Timestamp(base + 10)).await.expect("found"), Offset(1));
    assert_eq!(log.offset_at(place(1), Timestamp(base + 11)).await.expect("found"), Offset(2), "there is no later one");
    log.append(place(1), batch(&["own".into()])).await.expect("stored");
    for (at, expected) in [(0, 0), (1, 1), (10, 1), (11, 2), (30, 2), (31, 3)] {
        let found = log.offset_at(place(1), Timestamp(base + at)).await.expect("found");
        assert_eq!(found, Offset(expected), "{at}");
    }
    assert_eq!(log.last_records(place(1), 2).await.expect("found"), Offset(1));
}

// Fails when what is pending is not counted, or what is undone is.
#[tokio::test(start_paused = true)]
async fn a_number_of_forks_that_a_change_builds_on_is_that_of_what_is_about_to_be() {
    let store = FaultStore::in_memory();
    let mut options = options(&store.stores(), None);
    options.in_flight_max = 1;
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    append(&log, "a").await.expect("stored");
    let with = |least, most, topics| Change {
        guards: vec![Guard::Forks { topic: topic(), least, most }],
        topics,
        ..Change::default()
    };
    let one_more = |number| vec![TopicOp::Fork { topic: place(number).topic, source: topic(), point: point(1, 0) }];
    let none_of_two = tokio::join!(log.commit(with(0, 0, one_more(1))), log.commit(with(0, 0, one_more(2))));
    none_of_two.0.expect("there was none");
    assert_eq!(none_of_two.1.expect_err("there is one").kind(), Kind::Conflict);
    let leaving = vec![TopicOp::Delete { topic: place(1).topic }];
    let last_of_two = tokio::join!(log.commit(with(1, 1, leaving)), log.commit(with(0, 0, Vec::new())));
    last_of_two.0.expect("there was one");
    last_of_two.1.expect("it is leaving");
    // Then no flush waits any more for those who were answered.
    pass(Duration::from_millis(10)).await;
    store.set_unavailable(true);
    let behind = async {
        // What was begun before is under way by then.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        log.commit(with(0, 0, one_more(3))).await
    };
    let (_, undone) = tokio::join!(append(&log, "x"), behind);
    assert_eq!(undone.expect_err("it waited behind").kind(), Kind::Unavailable);
    assert_eq!(log.forks(topic()).expect("counted"), 0);
    store.set_unavailable(false);
}

// Fails when the fork and its first records go into two objects.
#[tokio::test(start_paused = true)]
async fn a_fork_and_its_first_records_are_there_together_also_when_the_answer_is_lost() {
    for fault in [PutFault::FailBefore, PutFault::ApplyThenError, PutFault::ApplyLater] {
        let store = FaultStore::in_memory();
        let log = with_records(&store, &["a"]).await;
        store.on_put(is_wal, fault);
        let first = First { partition: place(1), batch: Some(batch(&["own".into()])), close: true };
        log.create(forking(1, topic(), point(1, 0)), first).await.expect("made");
        drop(log);
        let log = open(&store).await;
        assert_eq!(shown(&log, 1).await, ["a", "own"]);
        assert!(log.bounds(place(1)).expect("it is there").closed);
    }
}
