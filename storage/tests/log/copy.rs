//! Restore: a copy of a bucket as of a time is the cluster that it was then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use plinth_storage::Durability;
use plinth_storage::env::Clock;
use plinth_storage::error::Kind;
use plinth_storage::ids::Timestamp;
use plinth_storage::inspect::{Copied, CopyEvent, CopyOptions, Scratch, restore};
use plinth_storage::log::{Bounds, Change, DocOp, Log, LogOptions, TopicOp};
use plinth_storage::store::ObjectStores;
use plinth_storage::terms::StreamTerms;
use plinth_storage::testing::fault::{FaultStore, PutFault};

use crate::common::{append, batch, make_topic, options, partition, read_all, topic};
use crate::damage::{Bucket, Hand, bucket, changes, checkpoint, objects, store_of, stores_of};
use crate::inspect::look;
use crate::once::{key, producer};

/// What a cluster shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    records: Vec<Vec<Bytes>>,
    bounds: Vec<Option<Bounds>>,
    documents: Vec<(Bytes, Bytes)>,
}

async fn shown(log: &Log) -> Shown {
    let mut records = Vec::new();
    let mut bounds = Vec::new();
    for index in 0..2 {
        let found = log.bounds(partition(index)).ok();
        records.push(if found.is_some() { read_all(log, partition(index)).await } else { Vec::new() });
        bounds.push(found);
    }
    Shown { records, bounds, documents: log.scan(b"doc/", None, 100).expect("readable") }
}

async fn copy(source: &FaultStore, target: &FaultStore, at: Option<u64>) -> plinth_storage::Result<Copied> {
    copy_by(source, target, at, 3).await
}

async fn copy_by(
    source: &FaultStore,
    target: &FaultStore,
    at: Option<u64>,
    in_flight: usize,
) -> plinth_storage::Result<Copied> {
    let options = CopyOptions { at: at.map(Timestamp), scratch: Scratch::memory(), in_flight };
    restore(&named(source, "source"), &named(target, "target"), &options, &mut |_| ()).await
}

/// Two stores in memory have the same name.
fn named(store: &FaultStore, url: &str) -> ObjectStores {
    ObjectStores { url: url.to_owned(), ..store.stores() }
}

async fn open(store: &FaultStore, clock: &Arc<Hand>) -> Log {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    Log::open(LogOptions { clock, ..options(&store.stores(), None) }).await.expect("the log opens")
}

/// Lives of three sessions, one thing at a time; what was shown after each, by its time.
async fn history(store: &FaultStore) -> BTreeMap<u64, Shown> {
    let clock = Hand::at(1000);
    let mut moments = BTreeMap::new();
    let mut time = 1000;
    for life in 0..3_u64 {
        time += 10;
        clock.set(time);
        let log = open(store, &clock).await;
        for step in 0..8_u64 {
            time += 10;
            clock.set(time);
            match step {
                0 if life == 0 => make_topic(&log, 2).await,
                1 | 5 => drop(append(&log, &format!("{life}-{step}")).await.expect("stored")),
                2 => {
                    let terms = producer(1, life, 0);
                    let one = batch(&[Bytes::from_static(b"producer")]);
                    log.append_if(partition(0), one, &terms, Durability::Object).await.expect("stored");
                }
                3 => {
                    let terms = key(u128::from(life));
                    let open = partition(u32::from(life < 2));
                    log.append_if(open, batch(&[Bytes::from_static(b"key")]), &terms, Durability::Object)
                        .await
                        .expect("stored");
                }
                4 => {
                    let docs = vec![DocOp::Put(Bytes::from_static(b"doc/x"), Bytes::from(life.to_string()))];
                    log.commit(Change { docs, ..Change::default() }).await.expect("stored");
                }
                6 if life == 1 => {
                    let closing = StreamTerms { close: true, ..StreamTerms::default() };
                    log.step(partition(1), None, &closing, Durability::Object).await.expect("closed");
                }
                6 => checkpoint(&log, store).await,
                7 if life == 2 => {
                    let topics = vec![TopicOp::Delete { topic: topic() }];
                    log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
                }
                _ => {}
            }
            moments.insert(time, shown(&log).await);
        }
    }
    moments
}

// Fails when the cut is not where the time says, when a checkpoint that is newer than the cut is copied, when the fence or a
// claim is left out, or when changes without records have no time of their own.
#[tokio::test]
async fn a_copy_shows_what_was_shown_at_its_time() {
    let source = FaultStore::in_memory();
    let moments = history(&source).await;
    let before = objects(&*source.inner()).await;
    source.forget_calls();
    for (time, expected) in &moments {
        let target = FaultStore::in_memory();
        let copied = copy(&source, &target, Some(*time)).await.expect("copied");
        assert!(copied.at.0 <= *time, "{copied:?}");
        let (totals, findings) = look(&target.stores(), Scratch::memory()).await.expect("readable");
        assert_eq!(totals.faults, 0, "at {time}: {findings:#?}");
        let log = Log::open(options(&target.stores(), None)).await.expect("the copy opens");
        assert_eq!(&shown(&log).await, expected, "at {time}");
    }
    assert_eq!(changes(&source), 0, "the source is only read");
    assert_eq!(objects(&*source.inner()).await, before);
}

#[tokio::test]
async fn without_a_time_everything_is_copied_byte_for_byte() {
    let source = store_of(&bucket().await).await;
    let target = FaultStore::in_memory();
    copy(&source, &target, None).await.expect("copied");
    let (theirs, ours) = (objects(&*source.inner()).await, objects(&*target.inner()).await);
    for (name, bytes) in &theirs {
        assert_eq!(ours.get(name), Some(bytes), "{name}");
    }
    assert_eq!(ours.len(), theirs.len() + 2, "the two fences of the open session");
}

// Fails when what partitions remember of appends is not part of the copy.
#[tokio::test]
async fn a_copy_remembers_producers_and_keys_and_goes_on() {
    let source = store_of(&bucket().await).await;
    let target = FaultStore::in_memory();
    copy(&source, &target, None).await.expect("copied");
    let log = open(&target, &Hand::at(3000)).await;
    for terms in [producer(1, 2, 3), key(23)] {
        let one = batch(&[Bytes::from_static(b"once")]);
        let again = log.append_if(partition(0), one, &terms, Durability::Object).await.expect("known");
        assert!(again.duplicate, "{again:?}");
    }
    let tail = log.bounds(partition(0)).expect("there").tail.0;
    assert_eq!(append(&log, "new").await.expect("stored"), tail);
}

#[tokio::test]
async fn a_time_before_the_beginning_is_refused_with_the_earliest_one() {
    let source = FaultStore::in_memory();
    history(&source).await;
    let target = FaultStore::in_memory();
    let error = copy(&source, &target, Some(900)).await.expect_err("too early");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("1010"), "{error}");
    let (empty, target) = (FaultStore::in_memory(), FaultStore::in_memory());
    assert_eq!(copy(&empty, &target, None).await.expect_err("no cluster").kind(), Kind::NotFound);
}

// Fails when the target is not looked at before it is written to.
#[tokio::test]
async fn a_target_that_holds_anything_else_is_refused_and_stays_as_it_is() {
    let source = store_of(&bucket().await).await;
    let other = FaultStore::in_memory();
    history(&other).await;
    let mut foreign = Bucket::new();
    foreign.insert("notes.txt".to_owned(), Bytes::from_static(b"mine"));
    for target in [other, store_of(&foreign).await] {
        let before = objects(&*target.inner()).await;
        let error = copy(&source, &target, None).await.expect_err("not empty");
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert_eq!(objects(&*target.inner()).await, before);
    }
    let options = CopyOptions { at: None, scratch: Scratch::memory(), in_flight: 3 };
    let same = named(&source, "source");
    let error = restore(&same, &same, &options, &mut |_| ()).await.expect_err("the same");
    assert!(error.to_string().contains("into itself"), "{error}");
}

// Fails when `cluster` is copied before the rest, when a start makes a cluster of a half copy, or when a second run takes what
// the first one has left for something else.
#[tokio::test]
async fn a_copy_that_was_cut_off_is_no_cluster_and_the_same_call_finishes_it() {
    let bucket = bucket().await;
    let whole = FaultStore::in_memory();
    copy(&store_of(&bucket).await, &whole, Some(1900)).await.expect("copied");
    let names: Vec<_> = objects(&*whole.inner()).await.into_keys().collect();
    // The probe is two of the puts.
    for puts in [5, 15, names.len() / 2, names.len()].map(|puts| u64::try_from(puts).expect("few")) {
        let (source, target) = (store_of(&bucket).await, FaultStore::in_memory());
        let so_far = AtomicU64::new(0);
        target.on_put(move |_| so_far.fetch_add(1, Ordering::SeqCst) == puts, PutFault::Hang);
        tokio::select! {
            _ = copy_by(&source, &target, Some(1900), 1) => panic!("it has more than {puts} objects"),
            () = target.until(|store| store.hanging() == 1) => {}
        }
        let error = Log::open(options(&target.stores(), None)).await.expect_err("no cluster yet");
        assert!(error.to_string().contains("restore into it did not finish"), "after {puts}: {error}");
        if puts > 50 {
            let error = copy(&source, &target, Some(1200)).await.expect_err("of another time");
            assert_eq!(error.kind(), Kind::Invalid, "after {puts}: {error}");
        }
        let copied = copy(&source, &target, Some(1900)).await.expect("finished");
        assert!(copied.found > 0, "after {puts}: {copied:?}");
        assert_eq!(objects(&*target.inner()).await.into_keys().collect::<Vec<_>>(), names, "after {puts}");
        Log::open(options(&target.stores(), None)).await.expect("the copy opens");
    }
}

/// A copy of `source` that was cut off when its first segment was to be put.
async fn cut_off_at_a_segment(source: &FaultStore) -> FaultStore {
    let target = FaultStore::in_memory();
    target.on_put(|name| name.as_ref().starts_with("segment/"), PutFault::Hang);
    tokio::select! {
        copied = copy(source, &target, None) => panic!("no segment was copied: {copied:?}"),
        () = target.until(|store| store.hanging() == 1) => {}
    }
    target
}

// Fails when a later run takes the slots that were put since for part of the unfinished copy, also those of the same
// millisecond, or does not say for which time the copy can be finished.
#[tokio::test]
async fn a_copy_that_was_cut_off_after_its_end_was_settled_is_finished_as_of_that_time() {
    let (source, clock) = (FaultStore::in_memory(), Hand::at(1000));
    let mut log = open(&source, &clock).await;
    make_topic(&log, 2).await;
    for text in ["a", "b"] {
        append(&log, text).await.expect("stored");
    }
    log.compact().await.expect("compacted");
    let expected = shown(&log).await;
    for restarted in [false, true] {
        let target = cut_off_at_a_segment(&source).await;
        let at = clock.now().0;
        if restarted {
            drop(log);
            log = open(&source, &clock).await;
        }
        for (time, text) in [(at, "the same time"), (at + 500, "later")] {
            clock.set(time);
            append(&log, text).await.expect("stored");
        }
        for other in [None, Some(at + 500)] {
            let error = copy(&source, &target, other).await.expect_err("of another time");
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(error.to_string().contains(&format!("the time of that run, {at} ms since")), "{error}");
        }
        let copied = copy(&source, &target, Some(at)).await.expect("finished");
        assert!(copied.found > 0 && copied.at.0 == at, "{copied:?}");
        let copied = open(&target, &clock).await;
        if !restarted {
            assert_eq!(shown(&copied).await, expected);
        }
        let last = read_all(&copied, partition(0)).await.pop().expect("there are records");
        assert_eq!(last, if restarted { "later" } else { "b" });
    }
}

// Fails when a fence that was copied is taken for the one that ends the copy.
#[tokio::test]
async fn a_copy_that_was_cut_off_between_two_sessions_goes_on() {
    let (source, clock) = (FaultStore::in_memory(), Hand::at(1000));
    let log = open(&source, &clock).await;
    make_topic(&log, 2).await;
    append(&log, "a").await.expect("stored");
    drop(log);
    clock.set(2000);
    let log = open(&source, &clock).await;
    append(&log, "b").await.expect("stored");
    log.compact().await.expect("compacted");
    checkpoint(&log, &source).await;
    // Of the second session no slot is needed any more.
    let mut left = objects(&*source.inner()).await;
    let last = left.keys().rfind(|name| name.ends_with("/meta")).expect("a session").replace("/meta", "");
    left.retain(|name, _| !name.starts_with(&format!("{last}/wal/")));
    let (source, target) = (store_of(&left).await, FaultStore::in_memory());
    let meta = format!("{last}/meta");
    target.on_put(move |name| name.as_ref() == meta, PutFault::Hang);
    tokio::select! {
        copied = copy_by(&source, &target, None, 1) => panic!("the last session was not copied: {copied:?}"),
        () = target.until(|store| store.hanging() == 1) => {}
    }
    assert!(objects(&*target.inner()).await.iter().any(|(name, bytes)| name.contains("/wal/") && bytes.len() == 128));
    copy(&source, &target, None).await.expect("finished");
    assert_eq!(read_all(&open(&target, &clock).await, partition(0)).await, ["a", "b"]);
}

// Fails when a broken object is copied as it is.
#[tokio::test]
async fn a_broken_source_is_not_copied() {
    let mut bucket = bucket().await;
    let slot = bucket.keys().find(|name| name.contains("/wal/")).cloned().expect("there are slots");
    let mut broken = bucket[&slot].to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    bucket.insert(slot.clone(), Bytes::from(broken));
    let error = copy(&store_of(&bucket).await, &FaultStore::in_memory(), None).await.expect_err("broken");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains(&slot), "{error}");
}

#[tokio::test]
async fn the_progress_adds_up_to_what_was_copied() {
    let source = store_of(&bucket().await).await;
    let (mut sum, mut most) = (0, 0);
    let mut tell = |event| match event {
        CopyEvent::Listed { bytes } => most = bytes,
        CopyEvent::Copied(bytes) => sum += bytes,
        CopyEvent::Ended { .. } | CopyEvent::Checking => {}
    };
    let options = CopyOptions { at: None, scratch: Scratch::memory(), in_flight: 3 };
    let target = named(&FaultStore::in_memory(), "target");
    let copied = restore(&named(&source, "source"), &target, &options, &mut tell).await.expect("copied");
    assert_eq!((sum, most), (copied.bytes, copied.bytes));
}

/// A bucket without what its owner may delete: slots and checkpoints whose loss nothing notices.
async fn swept(bucket: &Bucket) -> Bucket {
    let mut left = bucket.clone();
    for (name, bytes) in bucket {
        if !(name.contains("/wal/") || name.contains("/checkpoint/")) || bytes.len() == 128 {
            continue;
        }
        let mut without = bucket.clone();
        without.remove(name);
        let (totals, findings) = look(&stores_of(&without).await, Scratch::memory()).await.expect("readable");
        if totals.deleted == 1 && findings.is_empty() {
            left.remove(name);
        }
    }
    left
}

// Fails when a hole that a checkpoint makes up for is a fault or stops a copy; when a copy is made although records of that
// time are gone; or when the time that the error gives cannot be restored.
#[tokio::test]
async fn what_was_deleted_cannot_be_restored_and_the_error_says_from_when_on() {
    let whole = bucket().await;
    let swept = swept(&whole).await;
    assert!(swept.len() + 10 < whole.len(), "{} of {} objects are left", swept.len(), whole.len());
    let (totals, findings) = look(&stores_of(&swept).await, Scratch::memory()).await.expect("readable");
    assert_eq!((totals.faults, totals.deleted as usize), (0, whole.len() - swept.len()), "{findings:#?}");

    let (before, after) = (FaultStore::in_memory(), FaultStore::in_memory());
    copy(&store_of(&whole).await, &before, None).await.expect("copied");
    copy(&store_of(&swept).await, &after, None).await.expect("copied");
    let clock = Hand::at(5000);
    let expected = shown(&open(&before, &clock).await).await;
    assert_eq!(shown(&open(&after, &clock).await).await, expected);

    let error = copy(&store_of(&swept).await, &FaultStore::in_memory(), Some(1200)).await.expect_err("gone");
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let text = error.to_string();
    let from = text.split("a time from ").nth(1).and_then(|rest| rest.split(' ').next());
    let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or_else(|| panic!("no time is in {text:?}"));
    let target = FaultStore::in_memory();
    copy(&store_of(&swept).await, &target, Some(from)).await.expect("what the error says");
    let original = FaultStore::in_memory();
    copy(&store_of(&whole).await, &original, Some(from)).await.expect("copied");
    assert_eq!(shown(&open(&target, &clock).await).await, shown(&open(&original, &clock).await).await);
}
