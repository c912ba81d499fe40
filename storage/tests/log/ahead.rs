//! Reading in order: what comes next is loaded before it is asked for, within bounds, and what is read is the same.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use plinth_storage::ahead::Scan;
use plinth_storage::ids::{Offset, Partition};
use plinth_storage::log::{Log, LogOptions};
use plinth_storage::record::StoredBatch;
use plinth_storage::store::ObjectStores;
use plinth_storage::testing::fault::{FaultStore, GetFault, Op};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::common::{batch, make_topic, options, partition, read_all};

/// Bytes of the records of one slot.
const SLOT_BYTES: usize = 12_000;
const SLOTS: usize = 40;

/// A log whose records, four to a slot, have left memory but for the newest.
async fn full(stores: &ObjectStores, change: impl FnOnce(&mut LogOptions)) -> Log {
    let mut options = options(stores, None);
    options.tail_bytes_max = SLOT_BYTES + 2_000;
    change(&mut options);
    let log = Log::open(options).await.expect("the log opens");
    make_topic(&log, 1).await;
    for slot in 0..SLOTS {
        let records: Vec<Bytes> = (0..4).map(|n| Bytes::from(vec![(slot * 4 + n) as u8; SLOT_BYTES / 4])).collect();
        log.append(partition(0), batch(&records)).await.expect("stored");
    }
    log
}

fn local(store: &FaultStore) -> ObjectStores {
    ObjectStores::of(Arc::new(store.clone()), true)
}

async fn next(log: &Log, scan: &mut Scan, from: &mut Offset) -> Vec<Arc<StoredBatch>> {
    let batches = log.read_on(scan, *from, 1).await.expect("it is readable");
    *from = batches.last().expect("it is below the tail").next();
    batches
}

fn is_data(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

/// Fails when a reader in order is not read ahead for, or one that reads a single time is.
#[tokio::test]
async fn what_comes_next_is_loaded_before_a_reader_in_order_asks_for_it() {
    let store = FaultStore::in_memory();
    let log = full(&local(&store), |_| ()).await;
    let before = store.count(Op::Get);
    let (mut scan, mut from) = (Scan::new(partition(0)), Offset(0));
    next(&log, &mut scan, &mut from).await;
    assert_eq!(store.count(Op::Get), before + 1, "only what was asked for");
    next(&log, &mut scan, &mut from).await;
    store.until(|store| store.count(Op::Get) >= before + 10).await;
    assert_eq!(from, Offset(8), "nobody has asked for the slots after the second");
    let ahead = store.count(Op::Get);
    next(&log, &mut scan, &mut from).await;
    next(&log, &mut scan, &mut from).await;
    assert!(store.count(Op::Get) <= ahead + 2, "what is loaded is not loaded again");
}

#[tokio::test]
async fn a_reader_that_jumps_is_not_read_ahead_for() {
    let store = FaultStore::in_memory();
    let log = full(&local(&store), |_| ()).await;
    let mut scan = Scan::new(partition(0));
    for slot in [30, 7, 21, 8, 3] {
        let read = log.read_on(&mut scan, Offset(slot * 4), 1).await.expect("it is readable");
        assert_eq!(read[0].base, Offset(slot * 4));
        tokio::task::yield_now().await;
    }
    assert_eq!(log.metrics().read_ahead_bytes.get(), 0);
}

/// Fails when the loads of a reader go on after it.
#[tokio::test]
async fn what_is_read_ahead_ends_with_its_reader() {
    let store = FaultStore::in_memory();
    let log = full(&local(&store), |_| ()).await;
    let (mut scan, mut from) = (Scan::new(partition(0)), Offset(0));
    next(&log, &mut scan, &mut from).await;
    let own = store.calls().iter().rfind(|call| call.op == Op::Get).expect("one").path.clone();
    for _ in 0..SLOTS {
        let own = own.clone();
        store.on_get(move |path| is_data(path) && *path > own, GetFault::Hang);
    }
    let reading = tokio::spawn(async move {
        let read = next(&log, &mut scan, &mut from).await;
        (log, read)
    });
    store.until(|store| store.hanging() >= 8).await;
    reading.abort();
    assert!(reading.await.is_err());
    let ended = async {
        while store.hanging() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.expect("they end");
}

/// Fails when a load takes no room, or keeps it.
#[tokio::test]
async fn all_readers_together_stay_within_the_room_and_each_reads_everything() {
    let store = FaultStore::in_memory();
    let room = 64 * 1024;
    let log = full(&local(&store), |options| options.page_memory_bytes = room).await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let log = log.clone();
        readers.spawn(async move {
            let (mut scan, mut from) = (log.reader_at(partition(0), Offset(0)), Offset(0));
            while from < Offset(SLOTS as u64 * 4) {
                let expected = from;
                let read = next(&log, &mut scan, &mut from).await;
                assert_eq!(read[0].base, expected);
                assert!(log.metrics().read_ahead_bytes.get() <= room as i64);
            }
        });
    }
    readers.join_all().await;
    assert_eq!(log.metrics().read_ahead_bytes.get(), 0, "all of it is given back");
}

/// Fails when an error of a load is not followed by a read of the reader's own.
#[tokio::test]
async fn a_load_that_fails_or_is_broken_is_made_good_by_the_read() {
    for fault in [GetFault::Fail, GetFault::Truncate, GetFault::FlipBit] {
        let store = FaultStore::in_memory();
        let log = full(&local(&store), |_| ()).await;
        let (mut scan, mut from) = (Scan::new(partition(0)), Offset(0));
        for round in 0..SLOTS {
            if round % 4 == 1 {
                store.on_get(is_data, fault);
            }
            let expected = from;
            let read = match log.read_on(&mut scan, from, 1).await {
                Ok(read) => read,
                // The fault has met the read itself.
                Err(_) => log.read_on(&mut scan, from, 1).await.expect("the fault is over"),
            };
            assert_eq!(read[0].base, expected, "{fault:?}");
            from = read.last().expect("at least one").next();
        }
    }
}

/// Fails when a parked reader is given to another place, or holds room that a reader wants.
#[tokio::test]
async fn a_client_that_comes_back_goes_on_with_what_was_loaded_and_one_that_does_not_gives_way() {
    let store = FaultStore::in_memory();
    let log = full(&local(&store), |_| ()).await;
    let (mut scan, mut from) = (log.reader_at(partition(0), Offset(0)), Offset(0));
    next(&log, &mut scan, &mut from).await;
    let mut rest = VecDeque::from(log.read_on(&mut scan, from, 1).await.expect("it is readable"));
    store.until(|store| store.hanging() == 0 && store.count(Op::Get) > 10).await;
    log.park(scan, from, std::mem::take(&mut rest));
    assert!(log.metrics().read_ahead_bytes.get() > 0, "it waits");

    let mut elsewhere = log.reader_at(partition(0), Offset(12));
    assert_eq!(log.read_on(&mut elsewhere, Offset(12), 1).await.expect("it is readable")[0].base, Offset(12));
    let mut back = log.reader_at(partition(0), from);
    assert_eq!(log.read_on(&mut back, from, 1).await.expect("it is readable")[0].base, from);
    drop(back);
    let ended = async {
        while log.metrics().read_ahead_bytes.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.expect("the room is given back");
}

/// What is left of a partition, read in pieces of any size, with jumps, pauses at the tail and readers that are parked.
async fn read_as_the_seed_says(log: &Log, partition: Partition, expected: &[Bytes], seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let tail = Offset(expected.len() as u64);
    let mut from = Offset(0);
    let mut scan = log.reader_at(partition, from);
    for _ in 0..60 {
        let max = [1, 5_000, 30_000, 200_000][random.random_range(0..4)];
        let read = log.read_on(&mut scan, from, max).await.expect("it is readable");
        assert_eq!(read.is_empty(), from == tail);
        let mut next = from;
        for batch in &read {
            for record in batch.records().filter(|record| record.offset >= from) {
                assert_eq!(record.payload, expected[usize::try_from(record.offset.0).expect("a few")]);
                assert_eq!(record.offset, next);
                next = record.offset.plus(1);
            }
        }
        from = next;
        match random.random_range(0..8) {
            0 => from = Offset(random.random_range(0..=tail.0)),
            1 if !read.is_empty() => {
                // A page ends within what was read, and the next one begins there.
                let used = random.random_range(0..read.len());
                let mut rest = VecDeque::from(read);
                rest.drain(..used);
                from = rest[0].base.max(Offset(from.0.min(rest[0].base.0)));
                log.park(std::mem::replace(&mut scan, Scan::new(partition)), from, rest);
                scan = log.reader_at(partition, from);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Fails when a run is left out, given twice, or cut in a wrong place.
    #[test]
    fn a_reader_sees_what_is_there_however_it_reads(seed in any::<u64>(), room in prop::sample::select(vec![0_u64, 30_000, 1 << 20])) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = FaultStore::in_memory();
            let log = full(&local(&store), |options| options.page_memory_bytes = room).await;
            let expected = read_all(&log, partition(0)).await;
            read_as_the_seed_says(&log, partition(0), &expected, seed).await;
        });
    }
}

/// Fails when a read gives what was committed since the reader was told of the tail: its next offset is then beyond the
/// tail, and a follower would be sent back and see records twice. By chance, most of the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_gives_nothing_beyond_the_tail() {
    const RECORDS: u64 = 5_000;
    let log = Log::open(options(&FaultStore::in_memory().stores(), None)).await.expect("the log opens");
    make_topic(&log, 1).await;
    let writer = tokio::spawn({
        let log = log.clone();
        async move {
            for _ in 0..RECORDS {
                log.append(partition(0), batch(&[Bytes::from_static(b"x")])).await.expect("stored");
            }
        }
    });
    let (mut scan, mut next) = (Scan::new(partition(0)), Offset(0));
    while next < Offset(RECORDS) {
        let batches = log.read_on(&mut scan, next, 4096).await.expect("it is readable");
        next = batches.last().map_or(next, |last| last.next());
        assert!(next <= log.bounds(partition(0)).expect("it is there").tail);
        tokio::task::yield_now().await;
    }
    writer.await.expect("it ends");
}
