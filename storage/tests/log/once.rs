//! Repeated appends: whatever happened to the first one, there is one record, and one place for it.
//!
//! Virtual time where a store has to answer late; the model runs in it too.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use plinth_storage::Durability;
use plinth_storage::Refusal;
use plinth_storage::env::Clock;
use plinth_storage::error::Kind;
use plinth_storage::ids::{FencingToken, Offset, ProducerEpoch, ProducerSeq, Timestamp};
use plinth_storage::log::{Appended, Log};
use plinth_storage::terms::{IdempotencyKey, Once, Producer, Terms};
use plinth_storage::testing::fault::{FaultStore, Op, PutFault};

use crate::common::{batch, make_topic, options, partition, texts};

const FAULTS: [PutFault; 5] =
    [PutFault::FailBefore, PutFault::ApplyThenError, PutFault::ApplyLater, PutFault::Conflict409, PutFault::Own412];

/// The terms of a producer's batch.
pub(crate) fn producer(id: u8, epoch: u64, seq: u64) -> Terms {
    let producer = Producer { id: Bytes::from(vec![id]), epoch: ProducerEpoch(epoch), seq: ProducerSeq(seq) };
    Terms { once: Some(Once::Producer(producer)), ..Terms::default() }
}

/// The terms of a request with an idempotency key.
pub(crate) fn key(key: u128) -> Terms {
    let key = IdempotencyKey { key, content: key + 1, home: partition(0) };
    Terms { once: Some(Once::Key(key)), ..Terms::default() }
}

/// One of each kind by which an append is recognized.
fn both() -> [Terms; 2] {
    [producer(1, 0, 0), key(1)]
}

async fn open(store: &FaultStore) -> Log {
    Log::open(options(&store.stores(), None)).await.expect("the log opens")
}

async fn append_if(log: &Log, text: &str, terms: &Terms) -> plinth_storage::Result<Appended> {
    log.append_if(partition(0), batch(&[Bytes::from(text.to_owned())]), terms, Durability::Object).await
}

fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

/// The place of a new append.
fn stored(appended: plinth_storage::Result<Appended>) -> u64 {
    let appended = appended.expect("stored");
    assert!(!appended.duplicate, "{appended:?} is new");
    appended.base.0
}

/// The place of a repeated append.
fn repeated(appended: plinth_storage::Result<Appended>) -> u64 {
    let appended = appended.expect("stored before");
    assert!(appended.duplicate, "{appended:?} was accepted before");
    appended.base.0
}

// Fails when what is remembered is not in the object of the batch, not in a checkpoint, or in the catalog's shard only.
#[tokio::test(start_paused = true)]
async fn a_repeated_append_has_its_place_after_a_crash_a_checkpoint_and_a_lost_disk() {
    for terms in both() {
        let store = FaultStore::in_memory();
        let log = open(&store).await;
        make_topic(&log, 1).await;
        assert_eq!(stored(append_if(&log, "a", &terms).await), 0);
        assert_eq!(repeated(append_if(&log, "a", &terms).await), 0);
        log.request_checkpoint();
        let is_checkpoint = |path: &Path| path.as_ref().contains("/checkpoint/");
        store.until(|store| store.calls().iter().any(|call| call.op == Op::Put && is_checkpoint(&call.path))).await;
        for life in 0..3 {
            let log = open(&store).await;
            assert_eq!(repeated(append_if(&log, "a", &terms).await), 0, "life {life}");
            assert_eq!(append_if(&log, "b", &Terms::default()).await.expect("stored").base.0, 1 + life);
        }
        let log = open(&store).await;
        assert_eq!(texts(&log).await, ["a", "b", "b", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_the_create_of_its_slot_leaves_one_record() {
    for fault in FAULTS {
        for terms in both() {
            let store = FaultStore::in_memory();
            let log = open(&store).await;
            make_topic(&log, 1).await;
            store.on_put(is_wal, fault);
            let (first, second) = tokio::join!(append_if(&log, "a", &terms), append_if(&log, "a", &terms));
            assert_eq!((stored(first), repeated(second)), (0, 0), "{fault:?}");
            drop(log);
            store.release().await;
            let log = open(&store).await;
            assert_eq!(repeated(append_if(&log, "a", &terms).await), 0);
            assert_eq!((texts(&log).await, store.unfired()), (vec!["a".to_owned()], 0), "{fault:?}");
        }
    }
}

// Fails when a repeated append whose slot is under way is answered by anything else than that slot: by a refusal for the
// store that is away, which would say that the record is not stored, or by a second record.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_unknown_until_the_store_is_back_and_is_then_settled() {
    for terms in both() {
        let store = FaultStore::in_memory();
        let log = open(&store).await;
        make_topic(&log, 1).await;
        store.set_unavailable(true);
        for _ in 0..2 {
            assert_eq!(append_if(&log, "a", &terms).await.expect_err("away").kind(), Kind::Unknown);
        }
        let fresh = append_if(&log, "x", &key(99)).await.expect_err("away");
        assert_eq!(fresh.kind(), Kind::Unavailable, "a new one is not taken");
        let waiting = tokio::spawn({
            let (log, terms) = (log.clone(), terms.clone());
            async move { append_if(&log, "a", &terms).await }
        });
        tokio::task::yield_now().await;
        store.set_unavailable(false);
        assert_eq!(repeated(waiting.await.expect("no panic")), 0);
        assert_eq!(repeated(append_if(&log, "a", &terms).await), 0);
        assert_eq!(texts(&log).await, ["a"]);
    }
}

// Fails when the place of an append that crashed in flight is taken from anything but the log that was replayed.
#[tokio::test(start_paused = true)]
async fn after_a_crash_in_flight_a_repeated_append_finds_what_is_there_and_stores_what_is_not() {
    for terms in both() {
        for lands_before_the_takeover in [true, false] {
            let store = FaultStore::in_memory();
            let log = open(&store).await;
            make_topic(&log, 1).await;
            store.on_put(is_wal, PutFault::ApplyLater);
            let pending = tokio::spawn({
                let (log, terms) = (log.clone(), terms.clone());
                async move { append_if(&log, "a", &terms).await }
            });
            store.until(|store| store.put_off() == 1).await;
            pending.abort();
            drop((log, pending.await));
            if lands_before_the_takeover {
                assert_eq!(store.release().await, 1);
            }
            let log = open(&store).await;
            let again = append_if(&log, "a", &terms).await;
            let place = if lands_before_the_takeover { repeated(again) } else { stored(again) };
            store.release().await;
            assert_eq!((place, texts(&log).await), (0, vec!["a".to_owned()]));
        }
    }
}

// Fails when a repeated append that waits for the first is told another outcome than it.
#[tokio::test(start_paused = true)]
async fn when_the_first_is_not_stored_those_that_wait_for_it_are_told_the_same() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    store.on_put(is_wal, PutFault::Hang);
    let append = |text: &'static str| {
        let log = log.clone();
        tokio::spawn(async move { append_if(&log, text, &key(1)).await })
    };
    let first = append("a");
    store.until(|store| store.hanging() == 1).await;
    let second = append("a");
    tokio::task::yield_now().await;
    let new = open(&store).await;
    store.release().await;
    for waiting in [first, second] {
        assert_eq!(waiting.await.expect("no panic").expect_err("fenced").kind(), Kind::Fenced);
    }
    assert_eq!(stored(append_if(&new, "a", &key(1)).await), 0);
}

// Fails when the lookup and the append are not under one lock, or do not see what is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_with_the_same_terms_one_is_stored() {
    for terms in both() {
        let store = FaultStore::in_memory();
        let log = open(&store).await;
        make_topic(&log, 1).await;
        store.on_put(is_wal, PutFault::Hang);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (log, terms) = (log.clone(), terms.clone());
            tasks.spawn(async move { append_if(&log, "a", &terms).await.expect("stored") });
        }
        store.until(|store| store.hanging() == 1).await;
        store.release().await;
        let all = tasks.join_all().await;
        assert!(all.iter().all(|appended| (appended.base, appended.count) == (Offset(0), 1)));
        assert_eq!(all.iter().filter(|appended| !appended.duplicate).count(), 1);
        assert_eq!(texts(&log).await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_and_an_epoch_hold_after_a_restart() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 1).await;
    let with = |token, seq| Terms { fencing_token: Some(FencingToken(token)), ..producer(1, 5, seq) };
    stored(append_if(&log, "a", &with(7, 0)).await);
    let log = open(&store).await;
    let low = append_if(&log, "b", &with(6, 1)).await.expect_err("fenced").kind();
    assert_eq!(low, Kind::Refused(Refusal::FencingToken { token: FencingToken(7) }));
    let stale = append_if(&log, "b", &producer(1, 4, 0)).await.expect_err("fenced").kind();
    assert_eq!(stale, Kind::Refused(Refusal::ProducerEpoch { epoch: ProducerEpoch(5) }));
    assert_eq!(stored(append_if(&log, "b", &with(7, 1)).await), 1);
}

// Fails when the clock of a start, and not the times of batches, decides what is forgotten.
#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_decided_by_the_times_in_the_log() {
    #[derive(Default)]
    struct Hand(std::sync::atomic::AtomicU64);
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
        }
    }
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let (store, clock) = (FaultStore::in_memory(), Arc::new(Hand::default()));
    let open_at = async |at: u64| {
        clock.0.store(at, std::sync::atomic::Ordering::SeqCst);
        let mut options = options(&store.stores(), None);
        options.clock = clock.clone();
        Log::open(options).await.expect("opens")
    };
    let log = open_at(100 * DAY).await;
    make_topic(&log, 1).await;
    stored(append_if(&log, "a", &key(1)).await);
    drop(log);
    // A clock that is ahead for one start, and behind for the next.
    drop(open_at(200 * DAY).await);
    let log = open_at(90 * DAY).await;
    assert_eq!(repeated(append_if(&log, "a", &key(1)).await), 0);
    drop(log);
    let log = open_at(101 * DAY - 1).await;
    assert_eq!(repeated(append_if(&log, "a", &key(1)).await), 0);
    drop(log);
    let log = open_at(101 * DAY).await;
    assert_eq!(stored(append_if(&log, "b", &key(1)).await), 1);
}
