//! A bucket with a history, as bytes by name, and what can happen to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use plinth_storage::Durability;
use plinth_storage::env::Clock;
use plinth_storage::ids::{Timestamp, TopicId};
use plinth_storage::log::{Change, DocOp, Log, LogOptions, TopicOp};
use plinth_storage::store::ObjectStores;
use plinth_storage::terms::StreamTerms;
use plinth_storage::testing::fault::{FaultStore, Op};
use ulid::Ulid;

use crate::common::{append, batch, make_topic, options, partition};
use crate::once::{key, producer};

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub(crate) struct Hand(AtomicU64);

impl Hand {
    /// A clock at a time.
    pub(crate) fn at(time: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(time)))
    }

    /// Moves it.
    pub(crate) fn set(&self, time: u64) {
        self.0.store(time, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// The objects of a bucket.
pub(crate) type Bucket = BTreeMap<String, Bytes>;

/// A bucket of three sessions: the first two ended, with checkpoints, the last one open, with slots after its checkpoint.
/// Two topics, one of them deleted; a partition that is closed as a stream; a segment; batches of producers and idempotency keys, documents.
pub(crate) async fn bucket() -> Bucket {
    let store = FaultStore::in_memory();
    let clock = Hand::at(1000);
    let mut time = 1000;
    for life in 0..3_u64 {
        let log = open(&store, &clock).await;
        if life == 0 {
            make_topic(&log, 4).await;
            let topics = vec![TopicOp::Create { topic: other(), partitions: 1 }];
            log.commit(Change { topics, ..Change::default() }).await.expect("made");
        }
        for round in 0..4_u64 {
            time += 100;
            clock.set(time);
            append(&log, &format!("{life}-{round}")).await.expect("stored");
            let two = [Bytes::from(vec![b'x'; 700]), Bytes::from_static(b"y")];
            log.append(partition(u32::try_from(round % 3).expect("small")), batch(&two)).await.expect("stored");
            let once = [producer(1, life, round), key(u128::from(life * 10 + round))];
            for terms in once {
                log.append_if(partition(0), batch(&[Bytes::from_static(b"once")]), &terms, Durability::Object)
                    .await
                    .expect("stored");
            }
            let docs = vec![DocOp::Put(Bytes::from(format!("doc/{round}")), Bytes::from(life.to_string()))];
            log.commit(Change { docs, ..Change::default() }).await.expect("stored");
            if (life, round) == (0, 1) {
                let closing = StreamTerms { seq: Some("7".into()), close: true, ..StreamTerms::default() };
                let last = Some(batch(&[Bytes::from_static(b"last")]));
                log.step(partition(3), last, &closing, Durability::Object).await.expect("closed");
            }
            if round == 2 {
                checkpoint(&log, &store).await;
            }
        }
        if life == 1 {
            let topics = vec![TopicOp::Delete { topic: other() }];
            log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
            checkpoint(&log, &store).await;
            log.compact().await.expect("compacted");
            append(&log, "after compaction").await.expect("stored");
        }
        drop(log);
    }
    objects(&*store.inner()).await
}

fn other() -> TopicId {
    TopicId(Ulid::from_parts(2, 2))
}

async fn open(store: &FaultStore, clock: &Arc<Hand>) -> Log {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    Log::open(LogOptions { clock, ..options(&store.stores(), None) }).await.expect("the log opens")
}

/// Has a checkpoint written and waits for it.
pub(crate) async fn checkpoint(log: &Log, store: &FaultStore) {
    let count = |store: &FaultStore| {
        let calls = store.calls();
        calls.iter().filter(|call| call.op == Op::Put && call.path.as_ref().contains("/checkpoint/")).count()
    };
    let before = count(store);
    let written = log.metrics().checkpoints.get();
    log.request_checkpoint();
    store.until(|store| count(store) > before).await;
    // The put was called; it is done when the log has counted it.
    while log.metrics().checkpoints.get() == written {
        tokio::task::yield_now().await;
    }
}

/// Everything in a store.
pub(crate) async fn objects(store: &dyn ObjectStore) -> Bucket {
    let mut bucket = Bucket::new();
    let listed: Vec<_> = store.list(None).try_collect().await.expect("listed");
    for object in listed {
        let bytes = store.get(&object.location).await.expect("there").bytes().await.expect("readable");
        bucket.insert(object.location.to_string(), bytes);
    }
    bucket
}

/// A store that holds a bucket.
pub(crate) async fn store_of(bucket: &Bucket) -> FaultStore {
    let store = InMemory::new();
    for (name, bytes) in bucket {
        store.put(&Path::from(name.as_str()), PutPayload::from_bytes(bytes.clone())).await.expect("put");
    }
    FaultStore::over(Arc::new(store))
}

/// The same, for the log.
pub(crate) async fn stores_of(bucket: &Bucket) -> ObjectStores {
    store_of(bucket).await.stores()
}

/// Requests that change a store.
pub(crate) fn changes(store: &FaultStore) -> u64 {
    [Op::Put, Op::Delete, Op::Copy, Op::Multipart].into_iter().map(|op| store.count(op)).sum()
}
