//! Looking at a bucket: what is in it, and every kind of damage, each named with its object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::memory::InMemory;
use plinth_storage::error::Kind;
use plinth_storage::ids::Offset;
use plinth_storage::inspect::{self, Event, Finding, Scratch, SessionStatus, Severity, Totals, VerifyOptions, verify};
use plinth_storage::log::{Log, LogOptions};
use plinth_storage::store::ObjectStores;
use plinth_storage::testing::fault::{FaultStore, GetFault};

use crate::common::{append, make_topic, options, partition, pass};
use crate::damage::{Bucket, bucket, changes, store_of, stores_of};

/// Verifies, and gives what was found.
pub(crate) async fn look(stores: &ObjectStores, scratch: Scratch) -> plinth_storage::Result<(Totals, Vec<Finding>)> {
    let mut findings = Vec::new();
    let mut tell = |event| {
        if let Event::Found(finding) = event {
            findings.push(finding);
        }
    };
    let totals = verify(stores, &VerifyOptions { scratch, in_flight: 4 }, &mut tell).await?;
    Ok((totals, findings))
}

async fn faults_of(bucket: &Bucket) -> Vec<Finding> {
    let (totals, findings) = look(&stores_of(bucket).await, Scratch::memory()).await.expect("readable");
    let faults: Vec<_> = findings.into_iter().filter(|finding| finding.severity == Severity::Fault).collect();
    assert_eq!(totals.faults, faults.len() as u64);
    faults
}

/// The damaged bucket has a fault in `object`.
async fn assert_named(bucket: &Bucket, object: &str, damage: &str) {
    let faults = faults_of(bucket).await;
    assert!(faults.iter().any(|fault| fault.object == object), "{damage} of {object} is not named: {faults:#?}");
}

// Fails when anything of inspect puts, deletes or copies, or runs the probe of a start.
#[tokio::test]
async fn a_whole_bucket_has_no_fault_and_is_not_written_to() {
    let bucket = bucket().await;
    let store = store_of(&bucket).await;
    let dir = tempfile::tempdir().expect("dir");
    for scratch in [Scratch::memory(), Scratch::directory(dir.path().to_owned())] {
        let (totals, findings) = look(&store.stores(), scratch.clone()).await.expect("readable");
        assert_eq!(findings, []);
        assert_eq!((totals.sessions, totals.claims, totals.checkpoints, totals.compared), (3, 48, 4, 4));
        assert_eq!((totals.objects, totals.unreplayed, totals.deleted), (bucket.len() as u64, 0, 0));
        assert_eq!(totals.bytes, bucket.values().map(|bytes| bytes.len() as u64).sum::<u64>());
        assert_eq!((totals.records, totals.batches), (3 * 4 * 5 + 2, 3 * 4 * 4 + 2));
        let looked = inspect::Bucket::open(&store.stores(), 4).await.expect("a cluster");
        looked.overview().await.expect("readable");
        looked.state(&scratch).await.expect("restored");
    }
    assert_eq!(changes(&store), 0, "{:?}", store.calls());
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0, "the scratch directory is empty again");
}

#[tokio::test]
async fn the_overview_and_the_state_are_those_of_the_log() {
    let bucket = bucket().await;
    let stores = stores_of(&bucket).await;
    let looked = inspect::Bucket::open(&stores, 4).await.expect("a cluster");
    let overview = looked.overview().await.expect("readable");
    assert_eq!((overview.shards, overview.sessions.len(), overview.claims.len()), (16, 3, 16));
    let statuses: Vec<_> = overview.sessions.iter().map(|session| session.status).collect();
    let second = overview.sessions[1].session;
    assert!(matches!(statuses[0], SessionStatus::Ended { by, .. } if by == second), "{statuses:?}");
    assert!(matches!(statuses[1], SessionStatus::Ended { .. }) && statuses[2] == SessionStatus::Open, "{statuses:?}");
    assert_eq!(overview.sessions[1].checkpoints.objects, 2);
    assert_eq!(overview.sessions[0].meta.as_ref().map(|meta| meta.node.as_str()), Some("node"));
    let owners: Vec<_> = overview.claims.values().map(|claims| claims.len()).collect();
    assert_eq!(owners, [3; 16]);
    let total: u64 = overview.usage.values().map(|usage| usage.objects).sum();
    assert_eq!(total, bucket.len() as u64);

    let state = looked.state(&Scratch::memory()).await.expect("restored");
    let log = Log::open(options(&stores, None)).await.expect("opens");
    assert_eq!(state.topics(None, 10).expect("readable").len(), 1, "one is deleted");
    for index in 0..4 {
        let bounds = state.bounds(partition(index)).expect("known");
        assert_eq!(bounds, log.bounds(partition(index)).expect("known"));
        assert_eq!(bounds.closed, index == 3);
    }
    assert_eq!(state.documents(b"doc/", None, 10).expect("readable"), log.scan(b"doc/", None, 10).expect("readable"));
    assert_eq!(state.bounds(partition(0)).expect("known").start, Offset(0));
}

// Fails when a checksum, a hash or the comparison of a name with its header is left out.
#[tokio::test]
async fn a_flipped_bit_is_named_wherever_it_is() {
    let bucket = bucket().await;
    for (name, bytes) in &bucket {
        let last = bytes.len() - 1;
        for at in [0, 9, 20, 30, 44, 55, 70, 80, 120, 127, 128.min(last), 140.min(last), last / 2, last - 9, last] {
            let mut damaged = bucket.clone();
            let mut broken = BytesMut::from(&bytes[..]);
            broken[at] ^= 4;
            damaged.insert(name.clone(), broken.freeze());
            assert_named(&damaged, name, &format!("bit in byte {at}")).await;
        }
    }
}

#[tokio::test]
async fn an_object_that_is_cut_short_or_too_long_is_named() {
    let bucket = bucket().await;
    for (name, bytes) in &bucket {
        let longer = [&bytes[..], b"x"].concat();
        for len in [0, 1, 127, bytes.len() / 2, bytes.len() - 1, longer.len()] {
            let mut damaged = bucket.clone();
            damaged.insert(name.clone(), Bytes::copy_from_slice(&longer[..len]));
            assert_named(&damaged, name, &format!("length {len}")).await;
        }
    }
}

// Fails when gaps in logs, claims or checkpoints are not looked for.
#[tokio::test]
async fn an_object_that_is_gone_is_named() {
    let bucket = bucket().await;
    let open = last_session(&bucket);
    let newest = |part: &str, many: usize| {
        let prefix = format!("{open}/{part}/");
        bucket.keys().rev().filter(move |name| name.starts_with(&prefix)).take(many)
    };
    // Nothing can show that the newest slots of an open log were ever committed: as many as may be in flight. Nor that its
    // newest checkpoint was there.
    let unnoticed: Vec<_> = newest("wal", 4).chain(newest("checkpoint", 1)).collect();
    assert_eq!(unnoticed.len(), 5);
    let mut deleted = 0;
    for name in bucket.keys().filter(|name| !unnoticed.contains(name)) {
        let mut damaged = bucket.clone();
        damaged.remove(name);
        let (totals, findings) = look(&stores_of(&damaged).await, Scratch::memory()).await.expect("readable");
        if totals.deleted == 1 && (totals.faults, totals.notes) == (0, 0) {
            // What a later checkpoint makes up for, and no row names, may go.
            let named =
                name.starts_with(&open) && bucket[name].windows(4).any(|bytes| bytes == b"once" || bytes == b"xxxx");
            assert!((name.contains("/wal/") || name.contains("/checkpoint/")) && !named, "{name}");
            deleted += 1;
        } else {
            assert!(findings.iter().any(|fault| fault.object == *name), "loss of {name} is not named: {findings:#?}");
        }
    }
    assert!(deleted > 3, "some slots are in segments, or have no records");
}

fn last_session(bucket: &Bucket) -> String {
    let meta = bucket.keys().rfind(|name| name.ends_with("/meta")).expect("there are sessions");
    meta.trim_end_matches("/meta").to_owned()
}

// Fails when the header of an object is not compared with its name.
#[tokio::test]
async fn two_objects_in_each_others_places_are_both_named() {
    let bucket = bucket().await;
    let names: Vec<_> = bucket.keys().cloned().collect();
    let kind = |name: &str| name.split('/').nth(2).unwrap_or_default().to_owned();
    for (one, two) in names.iter().zip(names.iter().skip(1)).filter(|(one, two)| kind(one) == kind(two)) {
        let mut damaged = bucket.clone();
        damaged.insert(one.clone(), bucket[two].clone());
        damaged.insert(two.clone(), bucket[one].clone());
        assert_named(&damaged, one, "exchange").await;
        assert_named(&damaged, two, "exchange").await;
    }
}

#[tokio::test]
async fn what_is_not_of_the_log_is_a_note() {
    let mut bucket = bucket().await;
    let session = last_session(&bucket);
    for name in ["readme.txt", "session/x/meta", "shard/1/claim/2", &format!("{session}/wal/7"), "cluster/old"] {
        bucket.insert(name.to_owned(), Bytes::from_static(b"not ours"));
    }
    let (totals, findings) = look(&stores_of(&bucket).await, Scratch::memory()).await.expect("readable");
    assert_eq!((totals.faults, totals.notes), (0, 5), "{findings:#?}");
    assert!(findings.iter().any(|finding| finding.object == "readme.txt"), "{findings:#?}");
}

// Fails when the rest of a log is not looked at after a lost slot, or the state not taken up again at a checkpoint.
#[tokio::test]
async fn what_follows_a_lost_slot_is_still_checked() {
    let mut bucket = bucket().await;
    // One with records that no segment holds, below the checkpoint.
    let open = format!("{}/wal/", last_session(&bucket));
    let slots: Vec<_> = bucket.keys().filter(|name| name.starts_with(&open)).cloned().collect();
    bucket.remove(&slots[1]);
    let (totals, findings) = look(&stores_of(&bucket).await, Scratch::memory()).await.expect("readable");
    let objects: Vec<_> = findings.iter().map(|finding| &finding.object).collect();
    assert_eq!(objects, [&slots[1]], "the index row that points there: {findings:#?}");
    assert!(totals.unreplayed > 0 && totals.compared > 0, "{totals:?}");
}

// Fails when what was read is called broken without a second look.
#[tokio::test]
async fn a_read_that_is_damaged_on_its_way_is_no_fault() {
    let bucket = bucket().await;
    // A checkpoint is read once to see whether it is whole, and once for its rows.
    for (part, times) in
        [("cluster", 0), ("/meta", 0), ("/wal/", 0), ("/claim/", 0), ("/checkpoint/", 0), ("/checkpoint/", 2)]
    {
        for fault in [GetFault::FlipBit, GetFault::Truncate] {
            let store = store_of(&bucket).await;
            let seen = AtomicU64::new(0);
            store.on_get(
                move |path| path.as_ref().contains(part) && seen.fetch_add(1, Ordering::SeqCst) == times,
                fault,
            );
            let (totals, findings) = look(&store.stores(), Scratch::memory()).await.expect("readable");
            assert_eq!((totals.faults, store.unfired()), (0, 0), "{fault:?} of {part}: {findings:#?}");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_away_or_empty_is_an_error_and_no_fault() {
    let empty = FaultStore::in_memory();
    let error = look(&empty.stores(), Scratch::memory()).await.expect_err("no cluster");
    assert_eq!(error.kind(), Kind::NotFound);
    let error = inspect::Bucket::open(&empty.stores(), 4).await.expect_err("no cluster");
    assert_eq!(error.kind(), Kind::NotFound);
    let store = store_of(&bucket().await).await;
    store.on_get(|path| path.as_ref().contains("/wal/"), GetFault::Fail);
    let error = look(&store.stores(), Scratch::memory()).await.expect_err("away");
    assert_eq!(error.kind(), Kind::Unavailable);
}

// Fails when a log is expected to be longer than it was listed, or a takeover under the eyes of verify is taken for a gap.
#[tokio::test]
async fn a_live_bucket_has_no_fault_while_it_is_written_and_taken_over() {
    let inner: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
    let live = FaultStore::over(Arc::clone(&inner));
    let looked_at = FaultStore::over(inner);
    // A request takes a while, so that the bucket moves under each look.
    live.set_latency(Duration::from_millis(1));
    looked_at.set_latency(Duration::from_millis(1));
    let first = Log::open(options(&live.stores(), None)).await.expect("opens");
    make_topic(&first, 1).await;
    let rounds = AtomicU64::new(0);
    let write = async {
        let mut log = first;
        let mut number = 0_u32;
        while rounds.load(Ordering::SeqCst) < 10 {
            number += 1;
            if number.is_multiple_of(40) {
                log = Log::open(options(&live.stores(), None)).await.expect("opens");
            }
            if number.is_multiple_of(15) {
                log.request_checkpoint();
            }
            if number.is_multiple_of(25) {
                log.compact().await.expect("compacted");
            }
            let many = (0..4).map(|part| append_text(&log, format!("{number}-{part}")));
            futures::future::join_all(many).await;
        }
        number
    };
    let check = async {
        loop {
            let (totals, findings) = look(&looked_at.stores(), Scratch::memory()).await.expect("readable");
            assert_eq!(totals.faults, 0, "{findings:#?}");
            rounds.fetch_add(1, Ordering::SeqCst);
        }
    };
    let written = tokio::select! {
        written = write => written,
        () = check => unreachable!("it goes on until the writer ends"),
    };
    assert!(written > 40, "{written} rounds were written meanwhile");
    assert_eq!(changes(&looked_at), 0);
}

// Fails when something that was listed and is deleted before it is read, or before what builds on it is, counts as missing.
#[tokio::test(start_paused = true)]
async fn a_live_bucket_has_no_fault_while_what_nothing_needs_is_deleted() {
    let inner: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
    let live = FaultStore::over(Arc::clone(&inner));
    let looked_at = FaultStore::over(inner);
    live.set_latency(Duration::from_millis(1));
    // Each look takes much longer than the grace.
    looked_at.set_latency(Duration::from_millis(20));
    let options = LogOptions {
        sweep_interval: Duration::from_millis(50),
        delete_grace: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(40),
        ..options(&live.stores(), None)
    };
    let looks = AtomicU64::new(0);
    let write = async {
        let mut log = Log::open(options.clone()).await.expect("opens");
        make_topic(&log, 1).await;
        let (mut number, mut deleted) = (0_u64, 0);
        while looks.load(Ordering::SeqCst) < 20 {
            number += 1;
            append_text(&log, number.to_string()).await;
            if number.is_multiple_of(7) {
                log.compact().await.expect("compacted");
            }
            if number.is_multiple_of(10) {
                log.trim(&[(partition(0), Offset(number - 3))]).await.expect("trimmed");
            }
            if number.is_multiple_of(150) {
                deleted += log.metrics().deleted_objects.get();
                log = Log::open(options.clone()).await.expect("opens");
            }
            pass(Duration::from_millis(5)).await;
        }
        deleted + log.metrics().deleted_objects.get()
    };
    let gone = AtomicU64::new(0);
    let check = async {
        // The cluster is there when the first look begins.
        pass(Duration::from_secs(1)).await;
        loop {
            let (totals, findings) = look(&looked_at.stores(), Scratch::memory()).await.expect("readable");
            assert_eq!(totals.faults, 0, "{findings:#?}");
            let gone_meanwhile = findings.iter().filter(|finding| finding.what.contains("was deleted while")).count();
            gone.fetch_add(gone_meanwhile as u64, Ordering::SeqCst);
            looks.fetch_add(1, Ordering::SeqCst);
        }
    };
    let deleted = tokio::select! {
        deleted = write => deleted,
        () = check => unreachable!("it goes on until the writer ends"),
    };
    assert!(deleted > 100, "{deleted} objects were deleted");
    assert!(gone.load(Ordering::SeqCst) > 10, "{gone:?} of them under the eyes of verify");
    assert_eq!(changes(&looked_at), 0);
}

async fn append_text(log: &Log, text: String) {
    append(log, &text).await.expect("stored");
}
