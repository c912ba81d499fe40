//! A purge: of what was deleted no object of the bucket holds anything, and of the rest nothing is missing.
//!
//! Virtual time: the grace passes without waiting.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TopicId};
use plinth_storage::log::{Change, DocOp, Log, LogOptions, TopicOp};
use plinth_storage::testing::fault::FaultStore;
use ulid::Ulid;

use crate::common::{append, batch, make_topic, options, partition, pass, texts};

const GRACE: Duration = Duration::from_secs(10 * 60);
/// In every payload, document and document key of what is deleted.
const MARKER: &str = "of-the-one-that-goes";

fn calm(store: &FaultStore) -> LogOptions {
    let hours = Duration::from_secs(10 * 60 * 60);
    // Nothing is looked for by itself.
    LogOptions { sweep_interval: hours, delete_grace: GRACE, ..options(&store.stores(), None) }
}

async fn open(store: &FaultStore) -> Log {
    Log::open(calm(store)).await.expect("the log opens")
}

fn gone(number: u64) -> Partition {
    Partition { topic: TopicId(Ulid::from_parts(9, number.into())), index: PartitionIndex(0) }
}

async fn make_gone(log: &Log, number: u64) {
    let topics = vec![TopicOp::Create { topic: gone(number).topic, partitions: 1 }];
    let docs = vec![DocOp::Put(format!("key/{number}-{MARKER}").into(), format!("hash {number} {MARKER}").into())];
    log.commit(Change { topics, docs, ..Change::default() }).await.expect("made");
}

async fn delete_gone(log: &Log, number: u64) {
    let topics = vec![TopicOp::Delete { topic: gone(number).topic }];
    let docs = vec![DocOp::Delete(format!("key/{number}-{MARKER}").into())];
    log.commit(Change { topics, docs, ..Change::default() }).await.expect("deleted");
}

/// A document that stays and does not compress: the checkpoint that it is in is large.
async fn put_noise(log: &Log, len: usize) {
    let mut word = 1_u64;
    let noise = std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.to_be_bytes()[0]
    });
    let doc = DocOp::Put(Bytes::from_static(b"noise"), noise.take(len).collect::<Vec<u8>>().into());
    log.commit(Change { docs: vec![doc], ..Change::default() }).await.expect("committed");
}

/// Records of both, in the same slot.
async fn publish_both(log: &Log, number: u64, text: &str) {
    let payload = Bytes::from(format!("{text} {MARKER} {}", "x".repeat(300)));
    let (kept, deleted) = tokio::join!(append(log, text), log.append(gone(number), batch(&[payload])));
    kept.expect("stored");
    deleted.expect("stored");
}

/// The names of the objects in which the text stands, compressed or not.
async fn objects_with(store: &FaultStore, text: &str) -> Vec<String> {
    let listed: Vec<_> = store.inner().list(None).try_collect().await.expect("listed");
    let mut found = Vec::new();
    for object in listed {
        let bytes = store.inner().get(&object.location).await.expect("there").bytes().await.expect("readable");
        if plain(&bytes).windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(object.location.to_string());
        }
    }
    found
}

/// The bytes, and what the compressed frames among them hold.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(4) {
        if bytes[at..at + 4] == [0x28, 0xb5, 0x2f, 0xfd] {
            let frame = zstd::Decoder::new(&bytes[at..]).expect("a decoder").single_frame();
            // Four bytes may be there by chance: such a frame ends with an error.
            let _may_be_none = { frame }.read_to_end(&mut out);
        }
    }
    out
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("record {number}")).collect()
}

/// Shares everything that can be shared: slots of two sessions, a segment, checkpoints; with a topic that was deleted long
/// before, and one that was trimmed.
async fn shared(store: &FaultStore) -> Log {
    let log = open(store).await;
    make_topic(&log, 1).await;
    make_gone(&log, 1).await;
    make_gone(&log, 2).await;
    put_noise(&log, 50_000).await;
    for text in numbered(0..10) {
        publish_both(&log, 1, &text).await;
    }
    for text in numbered(10..20) {
        publish_both(&log, 2, &text).await;
    }
    log.compact().await.expect("compacted");
    log.trim(&[(gone(1), Offset(10))]).await.expect("trimmed");
    delete_gone(&log, 2).await;
    for text in numbered(20..30) {
        publish_both(&log, 1, &text).await;
    }
    log.checkpoint().await.expect("written");
    drop(log);
    let log = open(store).await;
    for text in numbered(30..40) {
        publish_both(&log, 1, &text).await;
    }
    // Small, over a large one: it builds on it.
    log.checkpoint().await.expect("written");
    log
}

// Fails without any of: the rewriting of slots, that of segments, the checkpoint in full, the sweep that is asked for.
#[tokio::test(start_paused = true)]
async fn of_what_was_deleted_no_object_holds_anything_and_the_rest_is_all_there() {
    let store = FaultStore::in_memory();
    let log = shared(&store).await;
    assert!(objects_with(&store, MARKER).await.len() > 20, "it is everywhere");
    delete_gone(&log, 1).await;
    let begun = tokio::time::Instant::now();
    log.purge().await.expect("purged");
    let took = begun.elapsed();
    assert!(took >= GRACE && took < GRACE + Duration::from_secs(60), "{took:?}");
    assert_eq!(objects_with(&store, MARKER).await, [] as [&str; 0]);
    assert_eq!(texts(&log).await, numbered(0..40));
    let rows = log.state_rows().expect("readable");
    drop(log);
    let log = open(&store).await;
    assert_eq!(log.state_rows().expect("readable"), rows);
    assert_eq!(texts(&log).await, numbered(0..40), "a cold node finds what is kept");
    append(&log, "record 40").await.expect("stored");
    assert_eq!(texts(&log).await, numbered(0..41));
}

// Fails when what the session before has rewritten or begun to delete counts as done.
#[tokio::test(start_paused = true)]
async fn a_purge_that_a_crash_cut_off_is_made_good_by_the_next_one() {
    let store = FaultStore::in_memory();
    let log = shared(&store).await;
    delete_gone(&log, 1).await;
    let cut = tokio::spawn({
        let log = log.clone();
        async move { log.purge().await }
    });
    pass(GRACE / 2).await;
    drop(log);
    cut.abort();
    drop(cut.await);
    let log = open(&store).await;
    assert!(!objects_with(&store, MARKER).await.is_empty(), "the grace was not over");
    log.purge().await.expect("purged");
    assert_eq!(objects_with(&store, MARKER).await, [] as [&str; 0]);
    assert_eq!(texts(&log).await, numbered(0..40));
}

// Fails when a purge takes what is dead of a living topic for a reason: each would write most of the bucket again.
#[tokio::test(start_paused = true)]
async fn a_segment_that_holds_nothing_of_the_deleted_stays_as_it_is() {
    let store = FaultStore::in_memory();
    let log = open(&store).await;
    make_topic(&log, 2).await;
    for text in numbered(0..20) {
        append(&log, &text).await.expect("stored");
        log.append(partition(1), batch(&[Bytes::from(text)])).await.expect("stored");
    }
    log.compact().await.expect("compacted");
    log.trim(&[(partition(1), Offset(20))]).await.expect("trimmed");
    let segments = log.metrics().segments.get();
    log.purge().await.expect("purged");
    assert_eq!(log.metrics().segments.get(), segments);
    assert_eq!(texts(&log).await, numbered(0..20));
}

// Fails when a purge that the store has kept from something counts as done.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_puts_a_purge_off() {
    let store = FaultStore::in_memory();
    let log = shared(&store).await;
    delete_gone(&log, 1).await;
    // All is rewritten already: what is left to do is the checkpoint.
    log.compact().await.expect("compacted");
    store.set_unavailable(true);
    let purge = tokio::spawn({
        let log = log.clone();
        async move { log.purge().await }
    });
    pass(GRACE).await;
    store.set_unavailable(false);
    if purge.await.expect("no panic").is_err() {
        log.purge().await.expect("purged");
    }
    assert_eq!(objects_with(&store, MARKER).await, [] as [&str; 0]);
    assert_eq!(texts(&log).await, numbered(0..40));
}
