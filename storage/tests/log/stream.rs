//! Streams: steps that are stored once or refused, and an end after which nothing comes, whatever happens meanwhile.
//!
//! Virtual time where a store has to answer late.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use plinth_storage::error::Kind;
use plinth_storage::ids::Partition;
use plinth_storage::ids::{FencingToken, Offset, PartitionIndex, ProducerEpoch, ProducerSeq, TopicId};
use plinth_storage::log::{Appended, Change, First, Guard, Log, Stepped, TopicOp};
use plinth_storage::record::Batch;
use plinth_storage::terms::{Once, Producer, StreamTerms, Terms};
use plinth_storage::testing::fault::{FaultStore, PutFault};
use plinth_storage::{Durability, Refusal};
use tokio::task::JoinSet;
use ulid::Ulid;

use crate::common::{append, batch, make_topic, options, partition, read_all, texts};

async fn open(store: &FaultStore) -> Log {
    Log::open(options(&store.stores(), None)).await.expect("the log opens")
}

/// What comes second waits until the first is stored, and is undone when the store goes away.
async fn open_narrow(store: &FaultStore) -> Log {
    let mut options = options(&store.stores(), None);
    options.in_flight_max = 1;
    Log::open(options).await.expect("the log opens")
}

fn one(text: &str) -> Option<Batch> {
    Some(batch(&[Bytes::from(text.to_owned())]))
}

fn producer(epoch: u64, seq: u64) -> StreamTerms {
    let producer = Producer { id: "p".into(), epoch: ProducerEpoch(epoch), seq: ProducerSeq(seq) };
    StreamTerms { producer: Some(producer), ..StreamTerms::default() }
}

fn seq(seq: &'static str) -> StreamTerms {
    StreamTerms { seq: Some(seq.into()), ..StreamTerms::default() }
}

fn closing(terms: StreamTerms) -> StreamTerms {
    StreamTerms { close: true, ..terms }
}

async fn step(log: &Log, batch: Option<Batch>, terms: &StreamTerms) -> plinth_storage::Result<Stepped> {
    log.step(partition(0), batch, terms, Durability::Object).await
}

fn refusal(stepped: plinth_storage::Result<Stepped>) -> Refusal {
    let error = stepped.expect_err("refused");
    let Kind::Refused(refusal) = error.kind() else { panic!("{error:?}") };
    refusal
}

fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

/// What is known of a closed stream with three records.
async fn assert_closed(log: &Log) {
    let bounds = log.bounds(partition(0)).expect("it is there");
    assert_eq!((bounds.tail, bounds.closed), (Offset(3), true));
    let end = Refusal::Closed { tail: Offset(3) };
    assert_eq!(refusal(step(log, one("x"), &StreamTerms::default()).await), end);
    assert_eq!(refusal(step(log, one("x"), &closing(StreamTerms::default())).await), end);
    assert_eq!(refusal(step(log, one("x"), &producer(0, 2)).await), end);
    assert_eq!(append(log, "x").await.expect_err("closed").kind(), Kind::Refused(end));
    let again = step(log, one("other"), &closing(producer(0, 1))).await.expect("what closed it");
    assert!(again.duplicate && again.closed);
    assert_eq!((again.tail, again.count), (Offset(3), 0));
    assert!(step(log, None, &closing(StreamTerms::default())).await.expect("closed already").duplicate);
}

// Fails when the row of a stream is not read after a start, is not in checkpoints, or goes into another shard than its partition.
#[tokio::test]
async fn a_stream_is_closed_and_remembers_its_sequences_after_a_start_and_a_wiped_cache() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let stepped = step(&log, one("a"), &seq("5")).await.expect("stored");
    assert_eq!((stepped.tail, stepped.count, stepped.closed, stepped.duplicate), (Offset(1), 1, false, false));
    step(&log, one("b"), &producer(0, 0)).await.expect("stored");
    log.checkpoint().await.expect("a checkpoint");
    drop(log);
    let log = open(&store).await;
    for low in ["5", "10", "4~"] {
        assert_eq!(
            refusal(step(&log, one("x"), &StreamTerms { seq: Some(low.into()), ..producer(0, 1) }).await),
            Refusal::StreamSeq
        );
    }
    let again = step(&log, one("x"), &producer(0, 0)).await.expect("a duplicate");
    assert_eq!((again.duplicate, again.highest), (true, Some(ProducerSeq(0))));
    let end = closing(StreamTerms { seq: Some("50".into()), ..producer(0, 1) });
    let stepped = step(&log, one("c"), &end).await.expect("closed");
    assert_eq!((stepped.closed, stepped.highest), (true, Some(ProducerSeq(1))));
    assert_closed(&log).await;
    drop(log);
    let log = open(&store).await;
    assert_closed(&log).await;
    log.checkpoint().await.expect("a checkpoint");
    drop(log);
    let log = open(&store).await;
    assert_closed(&log).await;
    assert_eq!(texts(&log).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_producer_is_told_what_is_due_and_which_epoch_ended_it() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let due = |expected, new_epoch| Refusal::Sequence { expected: ProducerSeq(expected), new_epoch };
    assert_eq!(refusal(step(&log, one("x"), &producer(3, 1)).await), due(0, false));
    for number in 0..100 {
        step(&log, one("x"), &producer(3, number)).await.expect("stored");
    }
    let old = step(&log, one("x"), &producer(3, 0)).await.expect("a duplicate, however long ago");
    assert_eq!((old.duplicate, old.highest), (true, Some(ProducerSeq(99))));
    assert_eq!(refusal(step(&log, one("x"), &producer(3, 101)).await), due(100, false));
    assert_eq!(refusal(step(&log, one("x"), &producer(4, 1)).await), due(0, true));
    step(&log, one("x"), &producer(4, 0)).await.expect("a new epoch");
    let ended = Refusal::ProducerEpoch { epoch: ProducerEpoch(4) };
    assert_eq!(refusal(step(&log, one("x"), &producer(3, 100)).await), ended);
    let nothing = step(&log, None, &StreamTerms::default()).await.expect_err("nothing to do");
    assert_eq!(nothing.kind(), Kind::Invalid);
}

// Fails when a step is decided over the committed state alone: then two are stored, or records come after the end.
#[tokio::test]
async fn of_steps_at_once_each_sequence_is_stored_once_and_nothing_comes_after_the_end() {
    let store = FaultStore::in_memory();
    store.set_latency(Duration::from_millis(5));
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let mut steps = JoinSet::new();
    for number in 0..60usize {
        let log = log.clone();
        steps.spawn(async move {
            let terms = match number % 3 {
                0 => producer(0, 0),
                1 => seq("1"),
                _ => StreamTerms::default(),
            };
            let close = number == 41;
            let stepped = step(&log, one("x"), &StreamTerms { close, ..terms }).await;
            if matches!(&stepped, Err(error) if matches!(error.kind(), Kind::Refused(Refusal::Closed { .. }))) {
                assert!(
                    log.bounds(partition(0)).expect("it is there").closed,
                    "nobody is told of an end before it is stored"
                );
            }
            stepped.map(|stepped| (number % 3, close, stepped))
        });
    }
    let (mut stored, mut end) = ([0; 3], None);
    for outcome in steps.join_all().await {
        match outcome {
            Ok((kind, close, stepped)) => {
                stored[kind] += u64::from(stepped.count);
                end = end.or(close.then_some(stepped.tail).filter(|_| stepped.closed));
            }
            Err(error) => assert!(matches!(error.kind(), Kind::Refused(_)), "{error}"),
        }
    }
    let bounds = log.bounds(partition(0)).expect("it is there");
    assert_eq!(stored[..2], [1, 1], "once for the producer and for the stream's sequence");
    assert_eq!((bounds.tail.0, bounds.closed), (stored.iter().sum::<u64>(), true));
    assert_eq!(end, Some(bounds.tail));
}

// Fails when an outage does not take back that a stream is about to be closed, its sequence, or its producer.
#[tokio::test(start_paused = true)]
async fn a_step_that_is_not_stored_leaves_nothing_behind() {
    let store = FaultStore::in_memory();
    let log = open_narrow(&store).await;
    make_topic(&log, 1).await;
    step(&log, one("a"), &seq("1")).await.expect("stored");
    store.set_unavailable(true);
    let end = closing(StreamTerms { seq: Some("2".into()), ..producer(0, 0) });
    let (open, undone) = tokio::join!(append(&log, "b"), behind(step(&log, one("c"), &end)));
    assert_eq!(open.expect_err("its slot was tried").kind(), Kind::Unknown);
    assert_eq!(undone.expect_err("it waited behind it").kind(), Kind::Unavailable);
    assert!(!log.bounds(partition(0)).expect("it is there").closed);
    store.set_unavailable(false);
    let stepped = back(|| step(&log, one("c"), &end)).await;
    assert_eq!((stepped.tail, stepped.closed, stepped.duplicate), (Offset(3), true, false));
    assert_eq!(texts(&log).await, ["a", "b", "c"]);
}

// Fails when what comes after a closing is refused, or the closing is shown, before it is stored.
#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_an_end_that_an_outage_undoes() {
    let store = FaultStore::in_memory();
    let log = open_narrow(&store).await;
    make_topic(&log, 1).await;
    store.set_unavailable(true);
    let (end, plain) = (closing(StreamTerms::default()), StreamTerms::default());
    let outcomes = tokio::join!(
        append(&log, "a"),
        behind(step(&log, one("b"), &end)),
        behind(behind(step(&log, one("c"), &plain))),
        behind(behind(step(&log, None, &end))),
        behind(behind(append(&log, "d"))),
        behind(behind(publish(&log, "p", 0))),
        behind(behind(async { log.bounds(partition(0)).expect("it is there").closed })),
    );
    assert_eq!(outcomes.0.expect_err("its slot was tried").kind(), Kind::Unknown);
    for stepped in [outcomes.1, outcomes.2, outcomes.3] {
        assert_eq!(stepped.expect_err("undone").kind(), Kind::Unavailable);
    }
    for appended in [outcomes.4, outcomes.5.map(|appended| appended.base.0)] {
        assert_eq!(appended.expect_err("not told of an end").kind(), Kind::Unavailable);
    }
    assert!(!outcomes.6, "a closing is shown when it is stored");
    store.set_unavailable(false);
    back(|| append(&log, "e")).await;
    assert_eq!(texts(&log).await, ["a", "e"]);
}

/// A publish of a producer as other protocols send it.
async fn publish(log: &Log, id: &'static str, seq: u64) -> plinth_storage::Result<Appended> {
    let producer = Producer { id: id.into(), epoch: ProducerEpoch(0), seq: ProducerSeq(seq) };
    let terms = Terms { once: Some(Once::Producer(producer)), ..Terms::default() };
    log.append_if(partition(0), batch(&[Bytes::from_static(b"x")]), &terms, Durability::Object).await
}

// Fails when a closing without records is taken for a batch that was stored, or the terms are looked at before the end.
#[tokio::test]
async fn a_publish_with_terms_to_a_closed_stream_is_the_one_that_was_stored_or_is_refused_by_the_end() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    publish(&log, "p", 0).await.expect("stored");
    let end = closing(producer(0, 1));
    let (stepped, at_once) = tokio::join!(step(&log, None, &end), publish(&log, "p", 1));
    assert!(!stepped.expect("closed").duplicate);
    let closed = Kind::Refused(Refusal::Closed { tail: Offset(1) });
    assert_eq!(at_once.expect_err("the closing has no records").kind(), closed);
    for (id, seq) in [("p", 1), ("p", 7), ("q", 0), ("q", 7)] {
        assert_eq!(publish(&log, id, seq).await.expect_err("closed").kind(), closed, "{id} {seq}");
    }
    for terms in [
        Terms { expected_tail: Some(Offset(9)), ..Terms::default() },
        Terms { fencing_token: Some(FencingToken(1)), ..Terms::default() },
    ] {
        let refused = log.append_if(partition(0), batch(&["x".into()]), &terms, Durability::Object).await;
        assert_eq!(refused.expect_err("closed").kind(), closed, "{terms:?}");
    }
    let again = publish(&log, "p", 0).await.expect("stored before");
    assert_eq!((again.base, again.count, again.duplicate), (Offset(0), 1, true));
}

#[tokio::test]
async fn what_a_topic_begins_with_is_of_the_topic_that_is_made() {
    let log = open(&FaultStore::in_memory()).await;
    make_topic(&log, 1).await;
    let (made, other) = (TopicId(Ulid::from_parts(1, 9)), TopicId(Ulid::from_parts(2, 9)));
    let there = partition(0).topic;
    for (topic, index) in [(other, 0), (there, 0), (made, 1)] {
        let first =
            First { partition: Partition { topic, index: PartitionIndex(index) }, batch: one("x"), close: true };
        let refused = log.create(making(made, b"made"), first).await.expect_err("of another");
        assert_eq!(refused.kind(), Kind::Invalid);
    }
    assert_eq!(log.get(b"made").expect("read"), None);
    append(&log, "open still").await.expect("stored");
}

// Fails when only rows that move wake those who follow.
#[tokio::test]
async fn those_who_follow_a_stream_are_woken_by_its_closing_alone() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    append(&log, "a").await.expect("stored");
    let mut follow = log.follow();
    follow.add(partition(0));
    assert_eq!(follow.changed().await, [0]);
    let end = closing(StreamTerms::default());
    let (woken, stepped) = tokio::join!(
        async {
            let woken = tokio::time::timeout(Duration::from_secs(10), follow.changed()).await.expect("woken").to_vec();
            (woken, log.bounds(partition(0)).expect("it is there").closed)
        },
        step(&log, None, &end)
    );
    assert!(stepped.expect("closed").closed);
    assert_eq!(woken, (vec![0], true));
}

/// Waits until what was begun before is under way.
async fn behind<T>(call: impl Future<Output = T>) -> T {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    call.await
}

/// Calls again until the log has noticed that the store is back.
async fn back<T, F: Future<Output = plinth_storage::Result<T>>>(call: impl Fn() -> F) -> T {
    let mut again = tokio::time::interval(Duration::from_millis(100));
    loop {
        again.tick().await;
        match call().await {
            Ok(done) => return done,
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable),
        }
    }
}

// Fails when a lost answer makes a second batch, or the same closing is refused.
#[tokio::test(start_paused = true)]
async fn a_step_whose_answer_is_lost_is_stored_once() {
    for fault in [PutFault::FailBefore, PutFault::ApplyThenError, PutFault::ApplyLater] {
        let store = FaultStore::in_memory();
        let log = open(&store).await;
        make_topic(&log, 1).await;
        store.on_put(is_wal, fault);
        let end = closing(producer(0, 0));
        let (one_of, other) = tokio::join!(step(&log, one("a"), &end), step(&log, one("a"), &end));
        let both = [one_of, other].map(|stepped| stepped.expect("stored"));
        assert_eq!(both.iter().filter(|stepped| stepped.duplicate).count(), 1, "{fault:?}");
        assert_eq!(texts(&log).await, ["a"]);
        drop(log);
        store.release().await;
        let log = open(&store).await;
        assert!(step(&log, one("a"), &end).await.expect("known").duplicate);
        assert_eq!(texts(&log).await, ["a"]);
    }
}

fn making(topic: TopicId, key: &'static [u8]) -> Change {
    Change {
        guards: vec![Guard::Absent(key.into())],
        docs: vec![plinth_storage::log::DocOp::Put(key.into(), "doc".into())],
        topics: vec![TopicOp::Create { topic, partitions: 1 }],
    }
}

// Fails when the document and the first records go into two objects, or what is undone leaves the partition known.
#[tokio::test(start_paused = true)]
async fn a_topic_and_what_it_begins_with_are_there_together_or_not_at_all() {
    let store = FaultStore::in_memory();
    let log = open_narrow(&store).await;
    let place = |number: u64| Partition { topic: TopicId(Ulid::from_parts(number, 9)), index: PartitionIndex(0) };
    let first = |number, close| First { partition: place(number), batch: one("first"), close };
    let tail = log.create(making(place(1).topic, b"one"), first(1, true)).await.expect("made");
    assert_eq!(tail, Offset(1));
    assert!(log.bounds(place(1)).expect("it is there").closed);
    let taken = log.create(making(place(2).topic, b"one"), first(2, false)).await.expect_err("the guard does not hold");
    assert_eq!(taken.kind(), Kind::Conflict);
    assert_eq!(log.bounds(place(2)).expect_err("not made").kind(), Kind::NotFound);
    let empty = First { partition: place(3), batch: None, close: true };
    assert_eq!(log.create(making(place(3).topic, b"three"), empty).await.expect("made"), Offset(0));
    make_topic(&log, 1).await;
    store.set_unavailable(true);
    let (_, undone) =
        tokio::join!(append(&log, "x"), behind(log.create(making(place(4).topic, b"four"), first(4, true))));
    assert_eq!(undone.expect_err("it waited behind").kind(), Kind::Unavailable);
    assert_eq!(log.bounds(place(4)).expect_err("not made").kind(), Kind::NotFound);
    store.set_unavailable(false);
    let tail = back(|| log.create(making(place(4).topic, b"four"), first(4, false))).await;
    assert_eq!((tail, log.bounds(place(4)).expect("it is there").closed), (Offset(1), false));
    assert!(log.get(b"four").expect("read").is_some());
    drop(log);
    let log = open(&store).await;
    for (number, records) in [(1, 1), (3, 0)] {
        assert!(log.bounds(place(number)).expect("it is there").closed);
        assert_eq!(read_all(&log, place(number)).await.len(), records);
    }
    log.commit(Change { topics: vec![TopicOp::Delete { topic: place(1).topic }], ..Change::default() })
        .await
        .expect("deleted");
    assert_eq!(log.bounds(place(1)).expect_err("deleted").kind(), Kind::NotFound);
}
