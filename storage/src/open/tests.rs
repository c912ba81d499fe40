//! A start whose disk has no room for the state.

use std::sync::atomic::Ordering;

use object_store::memory::InMemory;
use prometheus_client::metrics::gauge::Gauge;
use ulid::Ulid;

use super::*;
use crate::ids::{Partition, PartitionIndex, TopicId};
use crate::log::{Change, Log, TopicOp};
use crate::record::{Batch, NewRecord};
use crate::state::failover::tests::Disk;
use crate::store::ObjectStores;

const TOPIC: TopicId = TopicId(Ulid(9));

/// A bucket with a checkpoint and slots after it, and the rows that they lead to.
async fn bucket() -> (ObjectStores, ClusterId, Vec<(Bytes, Bytes)>) {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let log = Log::open(LogOptions::new(stores.clone())).await.expect("opens");
    let topics = vec![TopicOp::Create { topic: TOPIC, partitions: 1 }];
    log.commit(Change { topics, ..Change::default() }).await.expect("committed");
    for round in 0..4 {
        let batch = Batch::of(&[NewRecord { payload: Bytes::from_static(b"x"), ..NewRecord::default() }]);
        let partition = Partition { topic: TOPIC, index: PartitionIndex(0) };
        log.append(partition, batch.expect("a batch")).await.expect("stored");
        if round == 1 {
            log.checkpoint().await.expect("written");
        }
    }
    let rows = log.state_rows().expect("readable");
    log.close().await.expect("closed");
    (stores, log.cluster(), rows)
}

fn rows_of(state: &dyn StateStore) -> Vec<(Bytes, Bytes)> {
    let rows = state.snapshot().map(|row| row.expect("readable"));
    rows.filter(|(key, _)| layout::is_checkpointed(key)).collect()
}

// Fails when a disk that takes no checkpoint ends the start, or one that takes nothing after it; and when what was refused
// is left out.
#[tokio::test]
async fn a_start_whose_disk_is_full_goes_on_in_memory_with_all_that_the_bucket_has() {
    for full_before in [true, false] {
        let (stores, cluster, rows) = bucket().await;
        let (metrics, disk) = (StorageMetrics::default(), Arc::new(Disk::default()));
        disk.full.store(full_before, Ordering::SeqCst);
        disk.full_after_load.store(true, Ordering::SeqCst);
        let on_disk: Gauge = metrics.state_on_disk.clone();
        let state = Arc::new(FailoverState::new(Arc::clone(&disk) as Arc<dyn StateStore>, on_disk));
        let health = Health::new(metrics.clone());
        let session = SessionId(Ulid(u128::MAX));
        let starter = Starter { stores: &stores, health: &health, cluster, session, shards: 16 };
        let plan = starter.claim_all().await.expect("claimed");
        let (state, restored) = rebuild(&starter, &plan, state, &metrics).await.expect("restored");
        assert_eq!(rows_of(&*state), rows, "full before: {full_before}");
        assert!(restored.slots > 0);
        assert_eq!(metrics.state_on_disk.get(), 0);
        assert_eq!(rows_of(&*disk).is_empty(), full_before, "what was loaded is still there");
    }
}

// Fails when a bucket that is broken counts as a disk that is full, and is tried again without an end.
#[tokio::test]
async fn a_start_whose_disk_is_full_on_a_broken_bucket_says_that_it_is_broken() {
    use object_store::ObjectStoreExt;
    let (stores, cluster, _) = bucket().await;
    let health = Health::new(StorageMetrics::default());
    let session = SessionId(Ulid(u128::MAX));
    let starter = Starter { stores: &stores, health: &health, cluster, session, shards: 16 };
    let plan = starter.claim_all().await.expect("claimed");
    let (old, end) = plan.shards[0].logs.last().map(|(session, _, end)| (*session, *end)).expect("a log");
    let last = end.0.checked_sub(1).map(crate::ids::Slot).expect("a slot");
    stores.read.delete(&layout::wal(old, last)).await.expect("deleted");
    let (metrics, disk) = (StorageMetrics::default(), Arc::new(Disk::default()));
    disk.full.store(true, Ordering::SeqCst);
    let state = Arc::new(FailoverState::new(disk, metrics.state_on_disk.clone()));
    let error = rebuild(&starter, &plan, state, &metrics).await.map(|_| ()).expect_err("a slot is missing");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(metrics.state_on_disk.get(), 0);
}
