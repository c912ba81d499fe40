//! Checkpoints that build on each other: what they cost, and that a start from them is a start from the whole log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use plinth_storage::error::Kind;
use plinth_storage::ids::{Partition, PartitionIndex, TopicId};
use plinth_storage::log::{Change, DocOp, Log, LogOptions, TopicOp};
use plinth_storage::metrics::RequestLabels;
use plinth_storage::state::rocks::RocksState;
use plinth_storage::store::ObjectStores;
use plinth_storage::testing::fault::{FaultStore, GetFault, Op, PutFault};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use ulid::Ulid;

use crate::common::{append, batch, copy_dir, make_topic, options, pass, texts};

/// Most parts that a checkpoint names, itself among them.
const PARTS_MAX: usize = 12;

async fn open(stores: &ObjectStores, cache: Option<&Path>) -> Log {
    Log::open(options(stores, cache)).await.expect("the log opens")
}

fn is_checkpoint(path: &object_store::path::Path) -> bool {
    path.as_ref().contains("/checkpoint/")
}

/// Bytes that do not compress.
fn noise(rng: &mut StdRng, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    Bytes::from(bytes)
}

async fn put_docs(log: &Log, docs: impl IntoIterator<Item = (u64, Bytes)>) {
    let docs = docs.into_iter().map(|(key, value)| DocOp::Put(Bytes::from(format!("doc {key:06}")), value));
    log.commit(Change { docs: docs.collect(), ..Change::default() }).await.expect("committed");
}

async fn delete_doc(log: &Log, key: u64) {
    let docs = vec![DocOp::Delete(Bytes::from(format!("doc {key:06}")))];
    log.commit(Change { docs, ..Change::default() }).await.expect("committed");
}

fn topic_of(number: u64) -> TopicId {
    TopicId(Ulid::from_parts(7, u128::from(number)))
}

async fn make_topic_of(log: &Log, number: u64) {
    let topics = vec![TopicOp::Create { topic: topic_of(number), partitions: 2 }];
    log.commit(Change { topics, ..Change::default() }).await.expect("made");
}

async fn delete_topic_of(log: &Log, number: u64) {
    let topics = vec![TopicOp::Delete { topic: topic_of(number) }];
    log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
}

async fn append_to(log: &Log, number: u64, payload: Bytes) {
    for index in 0..2 {
        let partition = Partition { topic: topic_of(number), index: PartitionIndex(index) };
        log.append(partition, batch(std::slice::from_ref(&payload))).await.expect("stored");
    }
}

fn requests(log: &Log, operation: &'static str) -> (u64, u64) {
    let labels = RequestLabels { operation, purpose: "checkpoint" };
    let metrics = log.metrics();
    (metrics.requests.get_or_create(&labels).get(), metrics.bytes.get_or_create(&labels).get())
}

/// What the next checkpoint costs: bytes put, requests to read back.
async fn cost_of_checkpoint(log: &Log) -> (u64, u64) {
    let (gets, puts) = (requests(log, "get").0, requests(log, "put"));
    log.checkpoint().await.expect("written");
    assert_eq!(requests(log, "put").0 - puts.0, 1, "a checkpoint is one object");
    (requests(log, "put").1 - puts.1, requests(log, "get").0 - gets)
}

/// Opens the log on another disk and compares every row; gives the log.
async fn assert_restores_from_the_bucket(log: Log, stores: &ObjectStores) -> Log {
    let rows = log.state_rows().expect("readable");
    drop(log);
    let log = open(stores, None).await;
    assert_same(&log.state_rows().expect("readable"), &rows);
    log
}

fn assert_same(found: &[(Bytes, Bytes)], expected: &[(Bytes, Bytes)]) {
    let keys = |rows: &[(Bytes, Bytes)]| rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected));
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

// Fails when a checkpoint writes what has not changed, or reads back a large part.
#[tokio::test]
async fn a_checkpoint_costs_what_has_changed_and_not_what_exists() {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let mut rng = StdRng::seed_from_u64(1);
    let log = open(&stores, None).await;
    put_docs(&log, (0..2000).map(|key| (key, noise(&mut rng, 200)))).await;
    let (full, _) = cost_of_checkpoint(&log).await;
    assert!(full > 400_000, "{full} bytes for 2000 documents of 200 bytes");
    put_docs(&log, [(5, noise(&mut rng, 200))]).await;
    let (bytes, gets) = cost_of_checkpoint(&log).await;
    assert!(bytes < 700, "{bytes} bytes for one document of 200 bytes");
    assert_eq!(gets, 0, "nothing is read back beside a part that is much larger");
    // A new session that has changed nothing builds on what there is, too.
    let log = assert_restores_from_the_bucket(log, &stores).await;
    let (bytes, gets) = cost_of_checkpoint(&log).await;
    assert!(bytes < 1000 && gets <= 1, "{bytes} bytes put, {gets} parts read");
    assert_restores_from_the_bucket(log, &stores).await;
}

// Fails when small parts are never merged (a restore of hundreds of objects), or when everything is merged each time.
#[tokio::test]
async fn a_thousand_small_checkpoints_are_few_parts_and_cost_little_more_than_their_changes() {
    let store = FaultStore::in_memory();
    let mut rng = StdRng::seed_from_u64(2);
    let log = open(&store.stores(), None).await;
    put_docs(&log, (0..2000).map(|key| (key, noise(&mut rng, 1000)))).await;
    let (full, _) = cost_of_checkpoint(&log).await;
    let mut written = 0;
    for _ in 0..1000 {
        put_docs(&log, [(rng.random_range(0..2000), noise(&mut rng, 1000))]).await;
        written += cost_of_checkpoint(&log).await.0;
    }
    let changed = 1000 * 1000;
    assert!(written < 15 * changed, "{written} bytes written for {changed} changed; in full {}", 1000 * full);
    let rows = log.state_rows().expect("readable");
    drop(log);
    store.forget_calls();
    let log = open(&store.stores(), None).await;
    assert_same(&log.state_rows().expect("readable"), &rows);
    let read = store.calls().into_iter().filter(|call| call.op == Op::Get && is_checkpoint(&call.path));
    let read: std::collections::BTreeSet<_> = read.map(|call| call.path).collect();
    assert!((2..=PARTS_MAX).contains(&read.len()), "{} objects read", read.len());
}

// Fails when tombstones or ranges are dropped in a merge above the oldest part, when parts are applied in another order,
// or when a later session forgets what it replayed before its first checkpoint.
#[tokio::test]
async fn chains_of_sessions_with_many_checkpoints_restore_what_the_log_says() {
    for seed in 0..4 {
        let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut dir = tempfile::tempdir().expect("dir");
        let mut log = open(&stores, Some(dir.path())).await;
        put_docs(&log, (0..60).map(|key| (key, noise(&mut rng, 1000)))).await;
        let mut topics = std::collections::BTreeSet::new();
        let mut next_topic = 0;
        for _ in 0..120 {
            match rng.random_range(0..12) {
                0..=2 => put_docs(&log, [(rng.random_range(0..80), noise(&mut rng, 500))]).await,
                3 => delete_doc(&log, rng.random_range(0..80)).await,
                4 => {
                    next_topic += 1;
                    make_topic_of(&log, next_topic).await;
                    topics.insert(next_topic);
                }
                5 => {
                    if let Some(number) = topics.pop_first() {
                        delete_topic_of(&log, number).await;
                    }
                }
                6 | 7 => {
                    if let Some(number) = topics.last() {
                        append_to(&log, *number, noise(&mut rng, 100)).await;
                    }
                }
                8..=10 => log.checkpoint().await.expect("written"),
                _ => {
                    let rows = log.state_rows().expect("readable");
                    if rng.random() {
                        log.close().await.expect("closed");
                    }
                    drop(log);
                    if rng.random() {
                        dir = tempfile::tempdir().expect("dir");
                    }
                    log = open(&stores, Some(dir.path())).await;
                    assert_same(&log.state_rows().expect("readable"), &rows);
                }
            }
        }
        assert_restores_from_the_bucket(log, &stores).await;
    }
}

// Fails when the range of a deleted topic is not in the checkpoint: its rows would come back from an older part.
#[tokio::test]
async fn a_topic_that_was_deleted_between_two_checkpoints_does_not_come_back() {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let mut rng = StdRng::seed_from_u64(3);
    let log = open(&stores, None).await;
    put_docs(&log, (0..200).map(|key| (key, noise(&mut rng, 1000)))).await;
    for number in 0..20 {
        make_topic_of(&log, number).await;
        append_to(&log, number, noise(&mut rng, 500)).await;
    }
    log.checkpoint().await.expect("written");
    delete_topic_of(&log, 3).await;
    delete_doc(&log, 100).await;
    let (bytes, _) = cost_of_checkpoint(&log).await;
    assert!(bytes < 2000, "{bytes} bytes: it builds on the one before");
    put_docs(&log, [(100, Bytes::from_static(b"again"))]).await;
    append_to(&log, 4, noise(&mut rng, 5)).await;
    let (bytes, _) = cost_of_checkpoint(&log).await;
    assert!(bytes < 3000, "{bytes} bytes: merged with the last one, not with the first");
    let log = assert_restores_from_the_bucket(log, &stores).await;
    let gone = topic_of(3).0.to_bytes();
    let rows = log.state_rows().expect("readable");
    assert!(!rows.iter().any(|(key, _)| key.windows(16).any(|part| part == gone)));
    assert_eq!(log.get(b"doc 000100").expect("readable").as_deref(), Some(&b"again"[..]));
}

/// A log on `dir` with a first checkpoint and, after it, changes that a checkpoint of its own never gets to keep: the
/// process ends while the second one is in the state that `fault` and the reads after it leave it in.
async fn killed_within_a_checkpoint(store: &FaultStore, dir: &Path, fault: PutFault) -> Vec<(Bytes, Bytes)> {
    let mut rng = StdRng::seed_from_u64(4);
    let log = open(&store.stores(), Some(dir)).await;
    put_docs(&log, (0..100).map(|key| (key, noise(&mut rng, 1000)))).await;
    log.checkpoint().await.expect("written");
    put_docs(&log, [(7, Bytes::from_static(b"changed"))]).await;
    delete_doc(&log, 8).await;
    store.on_put(is_checkpoint, fault);
    if fault != PutFault::Hang {
        // It tries again, is told that the object is there, and does not get to see that it is its own.
        store.on_get(is_checkpoint, GetFault::Hang);
    }
    log.request_checkpoint();
    store.until(|store| store.hanging() == 1).await;
    put_docs(&log, [(9, Bytes::from_static(b"later"))]).await;
    let rows = log.state_rows().expect("readable");
    drop(log);
    let_go_of(&dir.join("state")).await;
    rows
}

/// Waits until the tasks of a log that was dropped have closed its state.
async fn let_go_of(dir: &Path) {
    while let Err(error) = RocksState::open(dir) {
        assert_eq!(error.kind(), Kind::Invalid, "it is in use");
        tokio::task::yield_now().await;
    }
}

// Fails when dirty rows are dropped before the checkpoint is durable, or when the reference of the local state is believed
// without a look at what there is: it would build on parts that a checkpoint has replaced.
#[tokio::test]
async fn a_kill_between_a_checkpoint_and_its_note_in_the_local_state_loses_nothing() {
    for fault in [PutFault::Hang, PutFault::ApplyThenError] {
        let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
        let rows = killed_within_a_checkpoint(&store, dir.path(), fault).await;
        let log = open(&store.stores(), Some(dir.path())).await;
        assert_eq!(log.metrics().replayed_slots.get(), 0, "{fault:?}: the local state is continued");
        assert_same(&log.state_rows().expect("readable"), &rows);
        // The newest of the session before is small: it is read back and merged.
        let (bytes, gets) = cost_of_checkpoint(&log).await;
        assert!(bytes < 2500, "{fault:?}: {bytes} bytes, it builds on the first one");
        assert_eq!(gets, u64::from(fault != PutFault::Hang), "{fault:?}: it builds on the newest there is");
        store.release().await;
        assert_restores_from_the_bucket(log, &store.stores()).await;
    }
}

async fn checkpoints(store: &FaultStore, session: &str) -> Vec<object_store::path::Path> {
    let listed: Vec<_> = store.inner().list(None).try_collect().await.expect("listed");
    let paths = listed.into_iter().map(|object| object.location);
    paths.filter(|path| is_checkpoint(path) && path.as_ref().contains(session)).collect()
}

// Fails when a state from before the newest checkpoint is continued as if its dirty rows came after that one.
#[tokio::test]
async fn a_local_state_from_before_the_newest_checkpoint_is_rebuilt() {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let (dir, copy) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let mut rng = StdRng::seed_from_u64(5);
    let log = open(&stores, Some(dir.path())).await;
    put_docs(&log, (0..100).map(|key| (key, noise(&mut rng, 1000)))).await;
    log.checkpoint().await.expect("written");
    delete_doc(&log, 50).await;
    // A checkpoint is on the SSD when it is noted: the copy is of a state that is whole.
    log.checkpoint().await.expect("written");
    copy_dir(&dir.path().join("state"), &copy.path().join("state"));
    delete_doc(&log, 51).await;
    log.checkpoint().await.expect("written");
    delete_doc(&log, 52).await;
    let rows = log.state_rows().expect("readable");
    drop(log);
    let log = open(&stores, Some(copy.path())).await;
    assert_same(&log.state_rows().expect("readable"), &rows);
    delete_doc(&log, 53).await;
    log.checkpoint().await.expect("written");
    assert_restores_from_the_bucket(log, &stores).await;
}

// Fails when the first checkpoint of a session after one without any builds on the wrong one, or forgets a session.
#[tokio::test]
async fn sessions_without_a_checkpoint_of_their_own_hand_on_what_their_changes_come_after() {
    for keep in [true, false] {
        let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
        let mut dir = tempfile::tempdir().expect("dir");
        let mut rng = StdRng::seed_from_u64(6);
        let mut log = open(&stores, Some(dir.path())).await;
        put_docs(&log, (0..100).map(|key| (key, noise(&mut rng, 1000)))).await;
        log.checkpoint().await.expect("written");
        for key in 0..3 {
            delete_doc(&log, key).await;
            drop(log);
            if !keep {
                dir = tempfile::tempdir().expect("dir");
            }
            log = open(&stores, Some(dir.path())).await;
        }
        let (bytes, _) = cost_of_checkpoint(&log).await;
        assert!(bytes < 1000, "{bytes} bytes: it builds on the first one");
        assert_restores_from_the_bucket(log, &stores).await;
    }
}

// Fails when the create of a checkpoint is given up, or when a failed one leaves its number or its changes behind.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_whose_create_fails_for_a_while_holds_all_that_came_before_it() {
    let store = FaultStore::in_memory();
    let mut rng = StdRng::seed_from_u64(7);
    let log = open(&store.stores(), None).await;
    put_docs(&log, (0..100).map(|key| (key, noise(&mut rng, 1000)))).await;
    log.checkpoint().await.expect("written");
    for fault in [PutFault::FailBefore, PutFault::Conflict409, PutFault::ApplyThenError, PutFault::Own412] {
        delete_doc(&log, u64::from(fault as u8)).await;
        store.on_put(is_checkpoint, fault);
        log.checkpoint().await.expect("written");
    }
    // Parts that cannot be read back: nothing is written, and the next one holds it all.
    put_docs(&log, [(9, noise(&mut rng, 3000))]).await;
    store.on_get(is_checkpoint, GetFault::Fail);
    let written = log.metrics().checkpoints.get();
    log.request_checkpoint();
    store.until(|store| store.unfired() == 0).await;
    delete_doc(&log, 10).await;
    log.checkpoint().await.expect("written");
    assert_eq!(log.metrics().checkpoints.get(), written + 1);
    assert_restores_from_the_bucket(log, &store.stores()).await;
}

/// Lets the tasks of a log do what they want to do, in a test whose clock stands still.
async fn settle() {
    pass(Duration::from_millis(1)).await;
}

/// A log with a full checkpoint of 100 KB and a small one after it.
async fn with_two_checkpoints(store: &FaultStore, rng: &mut StdRng, checkpoint_wal_bytes: u64) -> Log {
    let options = LogOptions { checkpoint_wal_bytes, ..options(&store.stores(), None) };
    let log = Log::open(options).await.expect("the log opens");
    put_docs(&log, (0..100).map(|key| (key, noise(rng, 1000)))).await;
    log.checkpoint().await.expect("written");
    put_docs(&log, [(5, noise(rng, 1000))]).await;
    log.checkpoint().await.expect("written");
    log
}

// Fails when an error of a merge is the error of the checkpoint whatever it is: there would be no other until 128 MiB have
// changed.
#[tokio::test(start_paused = true)]
async fn a_part_that_is_broken_is_made_up_for_by_the_next_checkpoint() {
    let store = FaultStore::in_memory();
    let mut rng = StdRng::seed_from_u64(10);
    let log = with_two_checkpoints(&store, &mut rng, u64::MAX).await;
    let second = checkpoints(&store, &log.session().to_string()).await.remove(1);
    let mut object = store.inner().get(&second).await.expect("there").bytes().await.expect("read").to_vec();
    *object.last_mut().expect("not empty") ^= 1;
    store.inner().put(&second, object.into()).await.expect("put");
    put_docs(&log, [(6, noise(&mut rng, 1000))]).await;
    tokio::time::timeout(Duration::from_secs(300), log.checkpoint()).await.expect("in time").expect("written");
    assert_restores_from_the_bucket(log, &store.stores()).await;
}

// Fails when what was committed before a try that failed still counts as due.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_failed_is_not_tried_again_at_each_commit() {
    let store = FaultStore::in_memory();
    let mut rng = StdRng::seed_from_u64(11);
    let log = with_two_checkpoints(&store, &mut rng, 10_000).await;
    settle().await;
    store.forget_calls();
    for key in 0..40 {
        store.on_get(is_checkpoint, GetFault::Fail);
        put_docs(&log, [(key, noise(&mut rng, 1000))]).await;
        settle().await;
    }
    let tries = store.calls().into_iter().filter(|call| call.op == Op::Get && is_checkpoint(&call.path)).count();
    assert!((2..=6).contains(&tries), "{tries} tries for 50 KB");
}

// Fails when the size of the last checkpoint does not count: under load a large one would follow the other.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_due_by_bytes_only_after_several_times_the_size_of_the_last_one() {
    let store = FaultStore::in_memory();
    let mut rng = StdRng::seed_from_u64(12);
    let options = LogOptions { checkpoint_wal_bytes: 1000, ..options(&store.stores(), None) };
    let log = Log::open(options).await.expect("the log opens");
    put_docs(&log, (0..100).map(|key| (key, noise(&mut rng, 1000)))).await;
    settle().await;
    for (commits, written) in [(39, 1), (3, 2)] {
        for _ in 0..commits {
            put_docs(&log, [(5, noise(&mut rng, 10_000))]).await;
            settle().await;
        }
        assert_eq!(log.metrics().checkpoints.get(), written);
    }
}

// Fails when the bytes of a part are believed without their hash: rows of a damaged download would be served.
#[tokio::test]
async fn a_damaged_or_missing_part_ends_a_start_from_the_bucket() {
    let store = FaultStore::in_memory();
    let mut rng = StdRng::seed_from_u64(8);
    let log = open(&store.stores(), None).await;
    put_docs(&log, (0..100).map(|key| (key, noise(&mut rng, 1000)))).await;
    log.checkpoint().await.expect("written");
    delete_doc(&log, 1).await;
    log.checkpoint().await.expect("written");
    let first = checkpoints(&store, &log.session().to_string()).await.remove(0);
    let rows = log.state_rows().expect("readable");
    drop(log);
    let path = first.clone();
    store.on_get(move |asked| *asked == path, GetFault::FlipBit);
    let error = Log::open(options(&store.stores(), None)).await.expect_err("the part is damaged");
    assert_eq!(error.kind(), Kind::Corrupt, "{error:?}");
    let log = open(&store.stores(), None).await;
    assert_same(&log.state_rows().expect("readable"), &rows);
    drop(log);
    store.inner().delete(&first).await.expect("deleted");
    let error = Log::open(options(&store.stores(), None)).await.expect_err("the part is missing");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("is missing"), "{error}");
}

// Fails when a download by ranges drops, doubles or reorders one.
#[tokio::test]
async fn a_checkpoint_of_many_megabytes_is_restored_by_ranges() {
    let store = FaultStore::in_memory();
    let mut rng = StdRng::seed_from_u64(9);
    let log = open(&store.stores(), None).await;
    for first in (0..20_000).step_by(2000) {
        put_docs(&log, (first..first + 2000).map(|key| (key, noise(&mut rng, 1000)))).await;
    }
    let (bytes, _) = cost_of_checkpoint(&log).await;
    assert!(bytes > 20_000_000);
    put_docs(&log, (0..3000).map(|key| (7 * key, noise(&mut rng, 500)))).await;
    log.checkpoint().await.expect("written");
    let rows = log.state_rows().expect("readable");
    drop(log);
    store.forget_calls();
    let dir = tempfile::tempdir().expect("dir");
    let log = open(&store.stores(), Some(dir.path())).await;
    let gets = store.calls().into_iter().filter(|call| call.op == Op::Get && is_checkpoint(&call.path)).count();
    assert!((7..16).contains(&gets), "{gets} requests");
    assert_same(&log.state_rows().expect("readable"), &rows);
}

// Fails when an idle session goes on writing checkpoints.
#[tokio::test(start_paused = true)]
async fn an_idle_session_writes_one_checkpoint_and_then_asks_the_store_nothing_for_it() {
    let store = FaultStore::in_memory();
    let log = open(&store.stores(), None).await;
    make_topic(&log, 1).await;
    append(&log, "a").await.expect("stored");
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    store.until(|store| store.calls().iter().any(|call| call.op == Op::Put && is_checkpoint(&call.path))).await;
    store.forget_calls();
    for _ in 0..10 {
        pass(Duration::from_secs(60)).await;
    }
    assert_eq!(store.calls().iter().filter(|call| is_checkpoint(&call.path)).count(), 0);
    assert_eq!(texts(&log).await, ["a"]);
}
