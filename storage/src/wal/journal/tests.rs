//! Tests of the task that writes the journal.

use std::time::Duration;

use object_store::memory::InMemory;
use ulid::Ulid;

use super::files::Owner;
use super::*;
use crate::env::SystemClock;
use crate::ids::{ClusterId, Epoch, Offset, PartitionIndex, SessionId, Timestamp, TopicId};
use crate::metrics::{Health, StorageMetrics};
use crate::record::{Batch, NewRecord};
use crate::state::memory::MemoryState;
use crate::store::ObjectStores;
use crate::tail::Tail;
use crate::wal::writer::{WriterOptions, WriterParts};

const OWNER: Owner = Owner { cluster: ClusterId(Ulid(1)), session: SessionId(Ulid(2)) };

fn writer(journal: &Arc<Journal>) -> Arc<Writer> {
    let metrics = StorageMetrics::default();
    let options = WriterOptions {
        cluster: OWNER.cluster,
        session: OWNER.session,
        epoch: Epoch(1),
        shards: 1,
        slot_bytes: 1 << 20,
        flush_interval: None,
        in_flight_max: 1,
        pending_bytes_max: 1 << 20,
        unstored_bytes_max: 1 << 20,
        unstored_age_max: Duration::from_secs(5),
        append_timeout: Duration::from_secs(5),
        fence_check_interval: Duration::from_secs(5),
    };
    let parts = WriterParts {
        stores: ObjectStores::of(Arc::new(InMemory::new()), true),
        state: Arc::new(MemoryState::new()),
        tail: Arc::new(Tail::new(0)),
        feeds: Arc::default(),
        health: Arc::new(Health::new(metrics.clone())),
        metrics,
        journal: Some(Arc::clone(journal)),
        clock: Arc::new(SystemClock),
    };
    Writer::new(options, parts)
}

fn journaled(number: u64) -> Journaled {
    let partition = Partition { topic: TopicId(Ulid(1)), index: PartitionIndex(0) };
    let batch = Batch::of(&[NewRecord::default()]).expect("valid");
    let batch = Arc::new(StoredBatch { base: Offset(number), timestamp: Timestamp(0), batch });
    Journaled { number, buffer: 0, partition, batch, entries: Vec::new() }
}

// Fails when a task that ends leaves the journal usable: what is given to it then is kept for ever and never written.
#[tokio::test]
async fn a_journal_whose_write_panics_takes_nothing_more() {
    let dir = tempfile::tempdir().expect("dir");
    let files = Files::create(dir.path(), OWNER, None).expect("created");
    let journal = Arc::new(Journal::new());
    journal.begin();
    // An entry that is not of a partition, which only a bug can put there.
    let entries = vec![Entry::DeleteDocument { key: bytes::Bytes::new() }];
    journal.push(Journaled { entries, ..journaled(1) });
    let task = JournalTask { journal: Arc::clone(&journal), files, shards: 1 };
    task.run(writer(&journal)).await;
    assert!(!journal.is_usable());
    journal.push(journaled(2));
    assert!(journal.take().is_empty());
}
