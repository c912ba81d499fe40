//! Durability classes: what is acknowledged before the bucket has it, and what a loss of it leaves behind.

use std::path::Path;
use std::time::Duration;

use crate::common::{batch, make_topic, partition, topic};
use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use plinth_storage::error::{Kind, Refusal};
use plinth_storage::ids::{Offset, Partition, PartitionIndex, ProducerEpoch, ProducerSeq, Timestamp, TopicId};
use plinth_storage::log::{Appended, Change, Log, LogOptions, Stepped, TopicOp};
use plinth_storage::terms::{Once, Producer, StreamTerms, Terms};
use plinth_storage::testing::fault::{FaultStore, Op, PutFault};
use plinth_storage::{Durability, Gap, GapReason};

use ulid::Ulid;

use Durability::{Local, Memory, Object};

/// What a first reservation reaches beyond the batch that asks for it.
const STRIDE: u64 = 1024;

fn is_wal(path: &ObjectPath) -> bool {
    path.as_ref().contains("/wal/")
}

/// One slot at a time, so that one put that hangs holds all that comes after it.
fn options(store: &FaultStore, dir: Option<&Path>) -> LogOptions {
    let mut options = crate::common::options(&store.stores(), dir);
    options.in_flight_max = 1;
    options.fence_check_interval = Duration::from_secs(3600);
    options
}

async fn open(store: &FaultStore, dir: Option<&Path>) -> Log {
    Log::open(options(store, dir)).await.expect("the log opens")
}

async fn put(log: &Log, text: &str, class: Durability) -> plinth_storage::Result<Appended> {
    log.append_as(partition(0), batch(&[Bytes::from(text.to_owned())]), class).await
}

/// Appends, and expects to be told of this class.
async fn put_as(log: &Log, text: &str, class: Durability) -> u64 {
    let appended = put(log, text, class).await.expect("acknowledged");
    assert_eq!(appended.durability, class, "{text}");
    appended.base.0
}

/// A log whose first record has reserved offsets for `class`.
async fn begun(store: &FaultStore, dir: Option<&Path>, class: Durability) -> Log {
    let log = open(store, dir).await;
    make_topic(&log, 1).await;
    let first = put(&log, "first", class).await.expect("stored");
    assert_eq!((first.base.0, first.durability), (0, Object), "no offset is reserved yet");
    log
}

/// Everything that can be read, by offset, and the gaps between.
async fn read(log: &Log) -> (Vec<(u64, String)>, Vec<Gap>) {
    let bounds = log.bounds(partition(0)).expect("the partition is there");
    let (mut records, mut gaps, mut next) = (Vec::new(), Vec::new(), bounds.start);
    while next < bounds.tail {
        match log.read(partition(0), next, 1).await {
            Ok(batches) => {
                for record in batches.iter().flat_map(|batch| batch.records()).filter(|record| record.offset >= next) {
                    assert!(record.offset.0 == records.last().map_or(0, |(last, _)| last + 1) || !gaps.is_empty());
                    records.push((record.offset.0, String::from_utf8_lossy(&record.payload).into_owned()));
                }
                next = batches.last().expect("something below the tail").next();
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::OutOfRange, "{error}");
                let gap = log.gap_at(partition(0), next).expect("readable").expect("a gap");
                gaps.push(gap);
                next = gap.to;
            }
        }
    }
    assert_eq!(log.gaps(partition(0), bounds.start).expect("readable"), gaps);
    (records, gaps)
}

fn at(offset: u64, text: &str) -> (u64, String) {
    (offset, text.to_owned())
}

fn lost(from: u64, to: u64) -> Gap {
    Gap { from: Offset(from), to: Offset(to), reason: GapReason::Lost }
}

async fn until_hanging(store: &FaultStore) {
    store.until(|store| store.hanging() == 1).await;
}

// Fails when a journal that is whole still leaves a gap, and when the replay of the journal is left out.
#[tokio::test]
async fn local_records_that_were_not_stored_are_there_after_a_crash_at_the_same_offsets() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    let log = begun(&store, Some(dir.path()), Local).await;
    store.on_put(is_wal, PutFault::Hang);
    for number in 1..50 {
        assert_eq!(put_as(&log, &number.to_string(), Local).await, number);
    }
    until_hanging(&store).await;
    drop(log);
    let log = open(&store, Some(dir.path())).await;
    let expected: Vec<_> =
        std::iter::once(at(0, "first")).chain((1..50).map(|number| at(number, &number.to_string()))).collect();
    assert_eq!(read(&log).await, (expected.clone(), vec![]));
    assert_eq!(put(&log, "next", Object).await.expect("stored").base.0, 50);
    drop(log);
    let log = open(&store, None).await;
    assert_eq!(read(&log).await.0[..50], expected, "they are in the bucket now");
}

// Fails when a start does not write the gap, when the gap ends at the committed tail, or when the row of it is not in the
// checkpoint.
#[tokio::test]
async fn without_its_disk_local_records_are_lost_by_a_gap_and_their_offsets_are_not_given_again() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    let log = begun(&store, Some(dir.path()), Local).await;
    store.on_put(is_wal, PutFault::Hang);
    assert_eq!(put_as(&log, "a", Local).await, 1);
    assert_eq!(put_as(&log, "b", Local).await, 2);
    assert_eq!(read(&log).await.0.len(), 3, "what is acknowledged can be read");
    until_hanging(&store).await;
    drop(log);

    let log = open(&store, Some(tempfile::tempdir().expect("dir").path())).await;
    let resumed = 1 + STRIDE;
    assert_eq!(read(&log).await, (vec![at(0, "first")], vec![lost(1, resumed)]));
    assert_eq!((log.metrics().gaps.get(), log.metrics().gap_offsets.get()), (1, STRIDE));
    assert_eq!(put(&log, "c", Object).await.expect("stored").base.0, resumed);
    let expected = (vec![at(0, "first"), at(resumed, "c")], vec![lost(1, resumed)]);
    assert_eq!(read(&log).await, expected);
    drop(log);
    let log = open(&store, None).await;
    assert_eq!(read(&log).await, expected, "replayed");
    log.compact().await.expect("compacted");
    assert_eq!(read(&log).await, expected, "out of a segment");
    log.request_checkpoint();
    while log.metrics().checkpoints.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(put(&log, "d", Object).await.expect("stored").base.0, resumed + 1);
    drop(log);
    let log = open(&store, None).await;
    assert_eq!(read(&log).await.1, expected.1, "from a checkpoint");
    assert_eq!(log.metrics().gaps.get(), 0, "a gap is told once");
}

// Fails when an acknowledgement of class memory waits, when it comes before the record can be read, or when a journal is
// taken for proof that nothing of class memory was lost.
#[tokio::test]
async fn memory_records_are_shown_at_once_and_lost_with_the_process_by_a_gap() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    let log = begun(&store, Some(dir.path()), Memory).await;
    let mut follow = log.follow();
    follow.add(partition(0));
    assert_eq!(follow.changed().await, [0]);
    store.on_put(is_wal, PutFault::Hang);
    assert_eq!(put_as(&log, "a", Memory).await, 1);
    assert_eq!(follow.changed().await, [0], "followers are woken");
    assert_eq!(log.bounds(partition(0)).expect("bounds").tail, Offset(2));
    assert_eq!(read(&log).await.0, [at(0, "first"), at(1, "a")]);
    until_hanging(&store).await;
    drop(log);
    let log = open(&store, Some(dir.path())).await;
    assert_eq!(read(&log).await, (vec![at(0, "first")], vec![lost(1, 1 + STRIDE)]));
}

// Fails when what an earlier session had reserved of a closed stream becomes a gap: its end would move.
#[tokio::test]
async fn a_stream_that_is_closed_ends_where_it_was_closed_whatever_was_reserved() {
    for class in [Memory, Local] {
        let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
        let log = begun(&store, Some(dir.path()), class).await;
        assert_eq!(put(&log, "a", class).await.expect("acknowledged").base, Offset(1));
        let end = StreamTerms { close: true, ..StreamTerms::default() };
        let stepped = log.step(partition(0), None, &end, class).await.expect("closed");
        assert_eq!((stepped.tail, stepped.durability), (Offset(2), Object));
        drop(log);
        for _ in 0..2 {
            let log = open(&store, None).await;
            let bounds = log.bounds(partition(0)).expect("bounds");
            assert_eq!((bounds.tail, bounds.closed), (Offset(2), true), "{class}");
            assert_eq!(read(&log).await, (vec![at(0, "first"), at(1, "a")], vec![]));
            assert_eq!(log.metrics().gaps.get(), 0);
        }
    }
}

// Fails when the reservation is not given back at the end.
#[tokio::test]
async fn a_clean_end_stores_everything_and_leaves_no_gap() {
    for class in [Local, Memory] {
        let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
        let log = begun(&store, Some(dir.path()), class).await;
        put(&log, "a", class).await.expect("acknowledged");
        log.close().await.expect("closed");
        drop(log);
        let log = open(&store, None).await;
        assert_eq!(read(&log).await, (vec![at(0, "first"), at(1, "a")], vec![]));
        assert_eq!(put(&log, "b", class).await.expect("stored").base.0, 2);
    }
}

// Fails when what is remembered of an early append is not committed with it.
#[tokio::test]
async fn what_is_remembered_of_an_early_append_is_stored_with_it() {
    for class in [Memory, Local] {
        let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
        let log = open(&store, Some(dir.path())).await;
        make_topic(&log, 1).await;
        produce(&log, 0, class).await.expect("stored");
        store.on_put(is_wal, PutFault::Hang);
        for seq in 1..4 {
            assert_eq!(produce(&log, seq, class).await.expect("acknowledged").durability, class);
        }
        until_hanging(&store).await;
        store.release().await;
        log.close().await.expect("closed");
        drop(log);
        let log = open(&store, None).await;
        for seq in 1..4 {
            let again = produce(&log, seq, class).await.expect("known");
            assert_eq!((again.base.0, again.duplicate, again.durability), (seq, true, Object));
        }
    }
}

// Fails when the idle pipeline does not give unused reservations back.
#[tokio::test(start_paused = true)]
async fn a_crash_after_some_idle_time_leaves_no_gap() {
    let store = FaultStore::in_memory();
    let mut options = options(&store, None);
    options.fence_check_interval = Duration::from_secs(15);
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    put(&log, "first", Memory).await.expect("stored");
    put(&log, "a", Memory).await.expect("acknowledged");
    let stored =
        |store: &FaultStore| store.calls().iter().filter(|call| call.op == Op::Put && is_wal(&call.path)).count();
    let before = stored(&store);
    // The slot of `a`, and the one that gives the reservation back.
    store.until(|store| stored(store) >= before + 2).await;
    assert_eq!(put(&log, "b", Memory).await.expect("stored").durability, Object, "it must be reserved again");
    store.until(|store| stored(store) >= before + 4).await;
    drop(log);
    let log = open(&store, None).await;
    assert_eq!(read(&log).await, (vec![at(0, "first"), at(1, "a"), at(2, "b")], vec![]));
}

// Fails when only a pipeline with nothing in flight gives unused reservations back.
#[tokio::test(start_paused = true)]
async fn a_busy_node_leaves_no_gap_where_nothing_was_published_for_some_time() {
    let store = FaultStore::in_memory();
    let mut options = options(&store, None);
    options.fence_check_interval = Duration::from_secs(15);
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 2).await;
    put(&log, "first", Memory).await.expect("stored");
    put_as(&log, "a", Memory).await;
    put(&log, "b", Object).await.expect("stored");
    let busy = |log: &Log| {
        let log = log.clone();
        store.on_put(is_wal, PutFault::Hang);
        tokio::spawn(async move { log.append(partition(1), batch(&[Bytes::from_static(b"busy")])).await })
    };
    let mut stored = busy(&log);
    until_hanging(&store).await;
    for _ in 0..12 {
        let next = busy(&log);
        tokio::time::advance(Duration::from_secs(4)).await;
        store.release().await;
        stored.await.expect("joined").expect("stored");
        until_hanging(&store).await;
        stored = next;
    }
    drop(log);
    let log = open(&store, None).await;
    assert_eq!(read(&log).await, (vec![at(0, "first"), at(1, "a"), at(2, "b")], vec![]));
}

// Fails when the bound in bytes is not enforced, or when permits of early appends are not given back by the commit.
#[tokio::test(start_paused = true)]
async fn more_than_the_bound_in_bytes_waits_and_is_refused_as_busy() {
    let store = FaultStore::in_memory();
    let mut options = options(&store, None);
    options.unstored_bytes_max = 8 * 1024;
    options.unstored_age_max = Duration::from_secs(3600);
    let log = Log::open(options).await.expect("opens");
    make_topic(&log, 1).await;
    put(&log, "first", Memory).await.expect("stored");
    for round in 0..3 {
        store.on_put(is_wal, PutFault::Hang);
        for number in 0..8 {
            assert_eq!(put(&log, "x", Memory).await.expect("acknowledged").durability, Memory, "{round} {number}");
        }
        assert_eq!(log.metrics().upload_lag.now().bytes, 8 * 1024);
        let refused = put(&log, "y", Memory).await.expect_err("full");
        assert_eq!((refused.kind(), refused.to_string().contains("8192 acknowledged bytes")), (Kind::Busy, true));
        until_hanging(&store).await;
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { put(&log, "waits", Memory).await }
        });
        tokio::task::yield_now().await;
        store.release().await;
        waiting.await.expect("joined").expect("acknowledged when there is room");
        // One of class object is behind all of them.
        put(&log, "z", Object).await.expect("stored");
        assert_eq!(log.metrics().upload_lag.now().bytes, 0);
    }
    assert_eq!(read(&log).await.0.len(), 1 + 3 * 10);
}

// Fails when the age of the oldest early append is not looked at.
#[tokio::test(start_paused = true)]
async fn when_the_oldest_has_waited_for_the_bound_in_time_later_ones_are_refused_as_busy() {
    let store = FaultStore::in_memory();
    let log = begun(&store, None, Memory).await;
    store.on_put(is_wal, PutFault::Hang);
    put_as(&log, "a", Memory).await;
    until_hanging(&store).await;
    tokio::time::advance(Duration::from_secs(4)).await;
    put_as(&log, "b", Memory).await;
    assert!(log.metrics().upload_lag.now().age >= Duration::from_secs(4));
    tokio::time::advance(Duration::from_secs(1)).await;
    let refused = put(&log, "c", Memory).await.expect_err("too late");
    assert_eq!((refused.kind(), refused.to_string().contains("longer than 5s")), (Kind::Busy, true));
    store.release().await;
    put(&log, "d", Object).await.expect("stored");
    put_as(&log, "e", Memory).await;
    let texts: Vec<String> = read(&log).await.0.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["first", "a", "b", "d", "e"]);
}

// Fails when early batches are given back with the late ones, when a late one that is given back keeps its offset, or
// when an early one is accepted behind a late one that is not committed.
#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_early_appends_go_on_and_late_ones_are_refused() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    for (class, dir) in [(Memory, None), (Local, Some(dir.path()))] {
        let store = if class == Memory { store.clone() } else { FaultStore::in_memory() };
        let log = begun(&store, dir, class).await;
        store.set_unavailable(true);
        put_as(&log, "a", class).await;
        put_as(&log, "b", class).await;
        let late = |text: &'static str, class| {
            let log = log.clone();
            tokio::spawn(async move { put(&log, text, class).await })
        };
        let (object, behind) = (late("not stored", Object), late("behind it", class));
        for refused in [object, behind] {
            assert_eq!(refused.await.expect("joined").expect_err("away").kind(), Kind::Unavailable);
        }
        assert_eq!(put(&log, "refused at once", Object).await.expect_err("away").kind(), Kind::Unavailable);
        assert_eq!(put_as(&log, "c", class).await, 3, "its offset is the one that was given back");
        store.set_unavailable(false);
        assert_eq!(stored_again(&log).await, 4);
        drop(log);
        let log = open(&store, None).await;
        let texts: Vec<String> = read(&log).await.0.into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["first", "a", "b", "c", "back"], "{class}");
    }
}

/// Appends as `object` until the store is found to be back.
async fn stored_again(log: &Log) -> u64 {
    loop {
        match put(log, "back", Object).await {
            Ok(appended) => return appended.base.0,
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable),
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
}

// Fails when what waits in an outage is sealed into one slot.
#[tokio::test(start_paused = true)]
async fn what_waited_in_an_outage_is_stored_in_slots_of_the_usual_size() {
    let store = FaultStore::in_memory();
    let log = begun(&store, None, Memory).await;
    store.on_put(is_wal, PutFault::Hang);
    for _ in 0..200 {
        put_as(&log, &"x".repeat(1000), Memory).await;
    }
    until_hanging(&store).await;
    let before = log.metrics().slots.get();
    store.release().await;
    put(&log, "last", Object).await.expect("stored");
    let slots = log.metrics().slots.get() - before;
    assert!((200 / 17..=200 / 8).contains(&slots), "{slots} slots of 16 KiB for 200 KB");
    assert_eq!(read(&log).await.0.len(), 202);
}

// Fails when an early batch is shown before a late one in front of it.
#[tokio::test]
async fn classes_in_one_partition_keep_one_order_without_a_hole() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    store.set_latency(Duration::from_millis(2));
    let log = begun(&store, Some(dir.path()), Memory).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..300_usize {
        let log = log.clone();
        tasks.spawn(async move {
            let class = [Memory, Local, Object][number % 3];
            let appended = put(&log, &number.to_string(), class).await.expect("acknowledged");
            assert!(appended.durability >= class);
            // What is acknowledged can be read, and all before it.
            let read = log.read(partition(0), appended.base, 1).await.expect("readable");
            assert_eq!(read[0].records().next().expect("one").payload, number.to_string());
            (appended.base.0, number.to_string())
        });
    }
    let mut receipts = tasks.join_all().await;
    receipts.sort();
    let (records, gaps) = read(&log).await;
    assert_eq!((&records[1..], gaps), (&receipts[..], vec![]));
    log.close().await.expect("closed");
    drop(log);
    assert_eq!(read(&open(&store, None).await).await.0, records);
}

// Fails when the reservation is not what bounds early acknowledgements, or when the gap is shorter than it.
#[tokio::test]
async fn what_a_session_shows_after_it_was_ended_is_below_the_end_of_the_gap() {
    let store = FaultStore::in_memory();
    let old = begun(&store, None, Memory).await;
    put_as(&old, "a", Memory).await;
    put(&old, "b", Object).await.expect("stored");
    store.on_put(is_wal, PutFault::Hang);
    put_as(&old, "c", Memory).await;
    until_hanging(&store).await;
    let new = open(&store, None).await;
    let (_, gaps) = read(&new).await;
    let resumed = gaps[0].to.0;
    assert_eq!(gaps, [lost(3, resumed)]);
    let mut shown = 0;
    // The old session does not know yet. It cannot reserve more, so it comes to an end by itself.
    for number in 0..2 * STRIDE {
        let appended = tokio::time::timeout(Duration::from_millis(50), put(&old, &number.to_string(), Memory)).await;
        let Ok(Ok(appended)) = appended else { break };
        shown = appended.base.0;
    }
    assert!(shown + 1 == resumed, "shown up to {shown}, resumed at {resumed}");
    store.release().await;
    old.stopped().await;
    assert_eq!(put(&old, "d", Memory).await.expect_err("ended").kind(), Kind::Fenced);
    assert_eq!(put(&new, "e", Object).await.expect("stored").base.0, resumed);
}

fn producer(seq: u64) -> Terms {
    let (id, epoch, seq) = (Bytes::from_static(b"p"), ProducerEpoch(0), ProducerSeq(seq));
    Terms { once: Some(Once::Producer(Producer { id, epoch, seq })), ..Terms::default() }
}

async fn produce(log: &Log, seq: u64, class: Durability) -> plinth_storage::Result<Appended> {
    log.append_if(partition(0), batch(&[Bytes::from(seq.to_string())]), &producer(seq), class).await
}

// Fails when what is remembered of an early batch is committed apart from it, or is not in the journal.
#[tokio::test]
async fn a_producers_sequence_is_kept_with_its_record_and_lost_with_it() {
    for (class, same_disk) in [(Memory, true), (Local, false), (Local, true)] {
        let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
        let log = open(&store, Some(dir.path())).await;
        make_topic(&log, 1).await;
        produce(&log, 0, class).await.expect("stored");
        store.on_put(is_wal, PutFault::Hang);
        for seq in 1..4 {
            let first = produce(&log, seq, class).await.expect("acknowledged");
            let again = produce(&log, seq, class).await.expect("acknowledged");
            assert_eq!((first.durability, first.duplicate), (class, false));
            assert_eq!(again, Appended { duplicate: true, ..first }, "a repeat is answered as early as the first");
        }
        until_hanging(&store).await;
        drop(log);
        let dir = if same_disk { dir } else { tempfile::tempdir().expect("dir") };
        let log = open(&store, Some(dir.path())).await;
        if class == Local && same_disk {
            let again = produce(&log, 3, class).await.expect("known");
            assert_eq!((again.base.0, again.duplicate), (3, true));
            assert_eq!(produce(&log, 4, class).await.expect("stored").base.0, 4);
        } else {
            let refused = produce(&log, 4, class).await.expect_err("lost").kind();
            assert_eq!(refused, Kind::Refused(Refusal::Sequence { expected: ProducerSeq(1), new_epoch: false }));
            let again = produce(&log, 1, class).await.expect("stored");
            assert_eq!((again.base.0, again.duplicate), (1 + STRIDE, false), "a retry has a new offset");
        }
    }
}

async fn step(log: &Log, number: u64, class: Durability) -> plinth_storage::Result<Stepped> {
    let producer = Producer { id: Bytes::from_static(b"p"), epoch: ProducerEpoch(0), seq: ProducerSeq(number) };
    let terms = StreamTerms { producer: Some(producer), seq: Some(number.to_string().into()), close: false };
    log.step(partition(0), Some(batch(&[Bytes::from(number.to_string())])), &terms, class).await
}

// Fails when what a step remembers is committed apart from its batch, or is not in the journal; or when a closing is
// acknowledged before it is stored.
#[tokio::test]
async fn steps_of_a_stream_are_kept_or_lost_whole_and_a_closing_is_not_lost_once_it_is_told() {
    for (class, same_disk) in [(Memory, true), (Local, false), (Local, true)] {
        let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
        let log = open(&store, Some(dir.path())).await;
        make_topic(&log, 1).await;
        step(&log, 0, class).await.expect("stored");
        store.on_put(is_wal, PutFault::Hang);
        for number in 1..4 {
            let first = step(&log, number, class).await.expect("acknowledged");
            let again = step(&log, number, class).await.expect("acknowledged");
            assert_eq!((first.durability, first.duplicate, first.tail), (class, false, Offset(number + 1)));
            assert_eq!((again.durability, again.duplicate, again.tail), (class, true, first.tail));
        }
        until_hanging(&store).await;
        let end = StreamTerms { close: true, ..StreamTerms::default() };
        let last = Some(batch(&["last".into()]));
        let closing = tokio::time::timeout(Duration::from_millis(50), log.step(partition(0), last, &end, class));
        assert!(closing.await.is_err(), "nothing is stored");
        assert!(!log.bounds(partition(0)).expect("bounds").closed);
        drop(log);
        let dir = if same_disk { dir } else { tempfile::tempdir().expect("dir") };
        let log = open(&store, Some(dir.path())).await;
        assert!(!log.bounds(partition(0)).expect("bounds").closed, "it was not stored, nor told");
        if class == Local && same_disk {
            assert!(step(&log, 3, class).await.expect("known").duplicate);
            let low = StreamTerms { seq: Some("3".into()), ..StreamTerms::default() };
            let refused = log.step(partition(0), Some(batch(&["x".into()])), &low, class).await.expect_err("not above");
            assert_eq!(refused.kind(), Kind::Refused(Refusal::StreamSeq));
            assert_eq!(step(&log, 4, class).await.expect("stored").tail, Offset(5));
        } else {
            let refused = step(&log, 4, class).await.expect_err("lost").kind();
            assert_eq!(refused, Kind::Refused(Refusal::Sequence { expected: ProducerSeq(1), new_epoch: false }));
            let again = step(&log, 1, class).await.expect("stored, with the sequence of what was lost");
            assert_eq!((again.tail.0, again.duplicate), (2 + STRIDE, false));
        }
    }
}

fn journal_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(dir.join("journal")).expect("listed");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files
}

/// A crash with five local records that are only in the journal; `damage` is done to its one file.
async fn after_damage(damage: impl FnOnce(&Path, Vec<u8>)) -> (Vec<(u64, String)>, Vec<Gap>) {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    let log = begun(&store, Some(dir.path()), Local).await;
    store.on_put(is_wal, PutFault::Hang);
    for number in 1..6 {
        put_as(&log, &number.to_string(), Local).await;
    }
    until_hanging(&store).await;
    drop(log);
    let files = journal_files(dir.path());
    assert_eq!(files.len(), 1);
    damage(&files[0], std::fs::read(&files[0]).expect("read"));
    let log = open(&store, Some(dir.path())).await;
    let seen = read(&log).await;
    assert_eq!(
        put(&log, "next", Object).await.expect("stored").base,
        log.bounds(partition(0)).expect("bounds").tail.before()
    );
    seen
}

trait Before {
    fn before(self) -> Offset;
}

impl Before for Offset {
    fn before(self) -> Offset {
        Offset(self.0 - 1)
    }
}

// Fails when the checksums of frames are not checked: what is damaged would be stored again as it is.
#[tokio::test]
async fn a_damaged_journal_is_used_up_to_the_damage_and_the_rest_is_a_gap() {
    let flip = |at: fn(usize) -> usize| {
        move |path: &Path, mut bytes: Vec<u8>| {
            let at = at(bytes.len());
            bytes[at] ^= 1;
            std::fs::write(path, bytes).expect("written");
        }
    };
    let all: Vec<_> = std::iter::once(at(0, "first")).chain((1..6).map(|n| at(n, &n.to_string()))).collect();
    let frame = 12 + 56 + 14 + 1 + 52 + 16;
    let (records, gaps) = after_damage(flip(|len| len - 20)).await;
    assert_eq!((&records[..], gaps), (&all[..5], vec![lost(5, 1 + STRIDE)]), "in the last frame");
    let (records, gaps) = after_damage(flip(|_| 54 + 2 * (12 + 56 + 14 + 1 + 52 + 16) + 1)).await;
    assert_eq!((&records[..], gaps), (&all[..3], vec![lost(3, 1 + STRIDE)]), "in the length of the third");
    let (records, gaps) = after_damage(flip(|_| 3)).await;
    assert_eq!((&records[..], gaps), (&all[..1], vec![lost(1, 1 + STRIDE)]), "in the head of the file");
    let cut = move |path: &Path, bytes: Vec<u8>| std::fs::write(path, &bytes[..54 + 5 * frame - 3]).expect("written");
    let (records, gaps) = after_damage(cut).await;
    assert_eq!((&records[..], gaps), (&all[..5], vec![]), "a last frame that is cut short was not acknowledged");
    let (records, gaps) = after_damage(|path, _| std::fs::remove_file(path).expect("removed")).await;
    assert_eq!((&records[..], gaps), (&all[..1], vec![lost(1, 1 + STRIDE)]), "the file is gone");
}

// Fails when an error of parsing is the error of the start: it would fail each time.
#[tokio::test]
async fn a_frame_of_a_journal_that_means_nothing_is_damage_and_stops_no_start() {
    let frame = 12 + 56 + 14 + 1 + 52 + 16;
    let third = move |path: &Path, mut bytes: Vec<u8>| {
        let (head, body) = bytes[54 + 2 * frame..54 + 3 * frame].split_at_mut(12);
        body.fill(0xff);
        head[4..8].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        let crc = crc32c::crc32c(&head[..8]);
        head[8..].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path, bytes).expect("written");
    };
    let (records, gaps) = after_damage(third).await;
    assert_eq!((records.last(), gaps), (Some(&at(2, "2")), vec![lost(3, 1 + STRIDE)]));
}

// Fails when a start removes all journals that it finds: those of the first bucket were acknowledged and are nowhere else.
#[tokio::test]
async fn a_start_on_another_bucket_leaves_the_journal_of_the_first_alone() {
    let (one, two) = (FaultStore::in_memory(), FaultStore::in_memory());
    let dir = tempfile::tempdir().expect("dir");
    let log = begun(&one, Some(dir.path()), Local).await;
    one.on_put(is_wal, PutFault::Hang);
    put_as(&log, "one", Local).await;
    until_hanging(&one).await;
    drop(log);
    drop(begun(&two, Some(dir.path()), Local).await);
    let log = open(&one, Some(dir.path())).await;
    assert_eq!(read(&log).await, (vec![at(0, "first"), at(1, "one")], vec![]));
    assert_eq!(journal_files(dir.path()).len(), 2, "its own, and that of the other bucket");
}

// Fails when a journal is used without looking whose it is.
#[tokio::test]
async fn the_journal_of_another_cluster_is_not_used() {
    let (one, two) = (FaultStore::in_memory(), FaultStore::in_memory());
    let dirs = [tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir")];
    for (store, dir, text) in [(&one, &dirs[0], "one"), (&two, &dirs[1], "two")] {
        let log = begun(store, Some(dir.path()), Local).await;
        store.on_put(is_wal, PutFault::Hang);
        put_as(&log, text, Local).await;
        until_hanging(store).await;
    }
    let name = journal_files(dirs[0].path())[0].file_name().expect("a name").to_owned();
    std::fs::copy(&journal_files(dirs[1].path())[0], dirs[0].path().join("journal").join(name)).expect("copied");
    let log = open(&one, Some(dirs[0].path())).await;
    assert_eq!(read(&log).await, (vec![at(0, "first")], vec![lost(1, 1 + STRIDE)]));
}

// Fails when a journal that cannot be written refuses, or acknowledges, what it did not take.
#[tokio::test]
async fn without_a_journal_the_class_local_waits_for_the_slot() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    std::fs::write(dir.path().join("journal"), "not a directory").expect("written");
    for dir in [None, Some(dir.path())] {
        let log = open(&store, dir).await;
        if dir.is_none() {
            make_topic(&log, 1).await;
        }
        assert!(!log.offers(Local) && log.offers(Memory) && log.offers(Object));
        put(&log, "a", Local).await.expect("stored");
        assert_eq!(put(&log, "b", Local).await.expect("stored").durability, Object);
    }
}

// Fails when a part of a recovery that was cut off is done twice, or when the journal is removed before it is stored.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_recovery_changes_nothing() {
    for held in 0..5 {
        let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
        let log = begun(&store, Some(dir.path()), Local).await;
        store.on_put(is_wal, PutFault::Hang);
        for number in 1..40 {
            put_as(&log, &format!("{number:01000}"), Local).await;
        }
        until_hanging(&store).await;
        let old = log.session().to_string();
        drop(log);
        while store.hanging() > 0 {
            tokio::task::yield_now().await;
        }
        // ACQUIRE, three slots of recovered records, and the end.
        let end = format!("/wal/{held:020}");
        store.on_put(move |path| path.as_ref().ends_with(&end) && !path.as_ref().contains(&old), PutFault::Hang);
        let starting = tokio::spawn({
            let options = options(&store, Some(dir.path()));
            async move { Log::open(options).await }
        });
        until_hanging(&store).await;
        starting.abort();
        drop(starting.await);
        let log = open(&store, Some(dir.path())).await;
        let (records, gaps) = read(&log).await;
        assert_eq!((records.len(), gaps.len()), (40, 0), "held after {held}");
        assert!(records.iter().zip(0..).all(|((offset, text), number)| {
            *offset == number && (number == 0 || *text == format!("{number:01000}"))
        }));
        assert_eq!(journal_files(dir.path()).len(), 1, "only the journal of this session is left");
    }
}

// Fails when a journaled record behind a lost one is not recovered, or takes its offset.
#[tokio::test]
async fn a_local_record_behind_a_lost_one_keeps_its_offset() {
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    let log = begun(&store, Some(dir.path()), Memory).await;
    store.on_put(is_wal, PutFault::Hang);
    put_as(&log, "lost", Memory).await;
    put_as(&log, "kept", Local).await;
    put_as(&log, "lost too", Memory).await;
    put_as(&log, "kept too", Local).await;
    until_hanging(&store).await;
    drop(log);
    let log = open(&store, Some(dir.path())).await;
    let expected =
        (vec![at(0, "first"), at(2, "kept"), at(4, "kept too")], vec![lost(1, 2), lost(3, 4), lost(5, 1 + STRIDE)]);
    assert_eq!(read(&log).await, expected);
    drop(log);
    assert_eq!(read(&open(&store, None).await).await, expected, "replayed");
}

// Fails when a position by time is looked for in the index alone, or does not get past a gap.
#[tokio::test]
async fn a_position_by_time_is_found_across_gaps_and_among_what_is_not_stored() {
    #[derive(Default)]
    struct Hand(std::sync::atomic::AtomicU64);
    impl plinth_storage::env::Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.fetch_add(10, std::sync::atomic::Ordering::SeqCst) / 10 * 10)
        }
    }
    let store = FaultStore::in_memory();
    let mut times = Vec::new();
    let clock = std::sync::Arc::new(Hand::default());
    let mut log = None;
    for life in 0..3 {
        drop(log.take());
        let mut options = options(&store, None);
        options.clock = clock.clone();
        let opened = Log::open(options).await.expect("opens");
        if life == 0 {
            make_topic(&opened, 1).await;
        }
        for _ in 0..3 {
            let appended = put(&opened, "x", Object).await.expect("stored");
            times.push((appended.timestamp, appended.base));
        }
        let reserves = put(&opened, "r", Memory).await.expect("stored");
        times.push((reserves.timestamp, reserves.base));
        store.on_put(is_wal, PutFault::Hang);
        for _ in 0..2 {
            let appended = put(&opened, "m", Memory).await.expect("acknowledged");
            if life == 2 {
                times.push((appended.timestamp, appended.base));
            }
        }
        until_hanging(&store).await;
        log = Some(opened);
    }
    let log = log.expect("open");
    assert_eq!(log.gaps(partition(0), Offset(0)).expect("readable").len(), 2);
    for (time, offset) in &times {
        assert_eq!(log.offset_at(partition(0), *time).await.expect("found"), *offset, "at {time}");
    }
    let tail = log.bounds(partition(0)).expect("bounds").tail;
    assert_eq!(log.offset_at(partition(0), Timestamp(u64::MAX)).await.expect("found"), tail);
}

// Fails when rows of a deleted topic are left, or a reservation of it stops a start.
#[tokio::test]
async fn a_topic_that_is_deleted_takes_its_reservation_along() {
    use plinth_storage::log::{Change, TopicOp};
    let (store, dir) = (FaultStore::in_memory(), tempfile::tempdir().expect("dir"));
    let log = begun(&store, Some(dir.path()), Local).await;
    put(&log, "a", Local).await.expect("acknowledged");
    let gone = Change { topics: vec![TopicOp::Delete { topic: topic() }], ..Change::default() };
    log.commit(gone).await.expect("deleted");
    assert_eq!(put(&log, "b", Local).await.expect_err("gone").kind(), Kind::NotFound);
    drop(log);
    let log = open(&store, Some(dir.path())).await;
    assert_eq!(log.metrics().gaps.get(), 0);
}

// Fails when the tails of all partitions are committed in one slot, however many they are.
#[tokio::test]
async fn a_start_ends_many_partitions_in_slots_of_a_bounded_size() {
    const TOPICS: u64 = 5;
    const PARTITIONS: u32 = 1024;
    let store = FaultStore::in_memory();
    let log = open(&store, None).await;
    let mut all = Vec::new();
    for number in 0..TOPICS {
        let topic = TopicId(Ulid::from_parts(number, 1));
        let topics = vec![TopicOp::Create { topic, partitions: PARTITIONS }];
        log.commit(Change { topics, ..Change::default() }).await.expect("made");
        all.extend((0..PARTITIONS).map(|index| Partition { topic, index: PartitionIndex(index) }));
    }
    let record = [Bytes::from_static(b"a")];
    let appends = all.iter().map(|partition| log.append_as(*partition, batch(&record), Durability::Memory));
    futures::future::try_join_all(appends).await.expect("stored");
    drop(log);
    let log = open(&store, None).await;
    assert_eq!(log.metrics().gaps.get(), TOPICS * u64::from(PARTITIONS));
    assert_eq!(log.metrics().slots.get(), 3, "of its start, and of 4,096 partitions and the rest");
    for partition in all {
        assert!(log.bounds(partition).expect("there").tail > Offset(1));
    }
}
