//! The log against a plain `Vec`, with crashes, restarts and lost disks between the operations.

use std::path::Path;
use std::sync::Arc;

use crate::common::{batch, make_topic, options, partition, read_all};
use bytes::Bytes;
use object_store::memory::InMemory;
use plinth_storage::ids::Offset;
use plinth_storage::log::{Log, LogOptions};
use plinth_storage::store::ObjectStores;
use proptest::prelude::*;

const PARTITIONS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Append { partition: u32, sizes: Vec<usize> },
    AppendTogether { sizes: Vec<usize> },
    Read { partition: u32, from: u64, bytes: usize },
    Checkpoint,
    Compact,
    Crash,
    Reopen,
    DropCache,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![0_usize..40, 500_usize..1200, 5000_usize..20_000];
    let sizes = prop::collection::vec(size, 1..6);
    prop_oneof![
        8 => (0..PARTITIONS, sizes.clone()).prop_map(|(partition, sizes)| Step::Append { partition, sizes }),
        4 => sizes.prop_map(|sizes| Step::AppendTogether { sizes }),
        6 => (0..PARTITIONS, 0_u64..60, 1_usize..40_000)
            .prop_map(|(partition, from, bytes)| Step::Read { partition, from, bytes }),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Compact),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
        1 => Just(Step::DropCache),
    ]
}

/// As much compaction and merging as there can be.
fn small(stores: &ObjectStores, cache: &Path) -> LogOptions {
    LogOptions { segment_bytes: 32 * 1024, write_percent_max: u64::MAX, ..options(stores, Some(cache)) }
}

struct Rig {
    stores: ObjectStores,
    cache: tempfile::TempDir,
    log: Log,
    model: Vec<Vec<Bytes>>,
    counter: u8,
}

impl Rig {
    async fn new() -> Self {
        let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
        let cache = tempfile::tempdir().expect("a directory");
        let log = Log::open(small(&stores, cache.path())).await.expect("opens");
        make_topic(&log, PARTITIONS).await;
        Self { stores, cache, log, model: vec![Vec::new(); PARTITIONS as usize], counter: 0 }
    }

    fn payload(&mut self, size: usize) -> Bytes {
        self.counter = self.counter.wrapping_add(1);
        Bytes::from(vec![self.counter; size])
    }

    async fn run(mut self, step: Step) -> Self {
        match step {
            Step::Append { partition: index, sizes } => {
                let payloads: Vec<Bytes> = sizes.iter().map(|size| self.payload(*size)).collect();
                let appended = self.log.append(partition(index), batch(&payloads)).await.expect("stored");
                let model = &mut self.model[index as usize];
                assert_eq!(appended.base.0, model.len() as u64);
                model.extend(payloads);
            }
            Step::AppendTogether { sizes } => {
                let payloads: Vec<Bytes> = sizes.iter().map(|size| self.payload(*size)).collect();
                let appends = payloads.iter().enumerate().map(|(number, payload)| {
                    let index = u32::try_from(number).expect("small") % PARTITIONS;
                    self.log.append(partition(index), batch(std::slice::from_ref(payload)))
                });
                let stored = futures::future::join_all(appends).await;
                for (number, appended) in stored.into_iter().enumerate() {
                    let model = &mut self.model[number % PARTITIONS as usize];
                    assert_eq!(appended.expect("stored").base.0, model.len() as u64);
                    model.push(payloads[number].clone());
                }
            }
            Step::Read { partition: index, from, bytes } => self.read(index, from, bytes).await,
            Step::Checkpoint => self.log.request_checkpoint(),
            // It also runs by itself, and merges what it can.
            Step::Compact => self.log.compact().await.expect("compacted"),
            Step::Crash => self = self.restart(false, false).await,
            Step::Reopen => self = self.restart(true, false).await,
            Step::DropCache => self = self.restart(false, true).await,
        }
        self
    }

    async fn read(&self, index: u32, from: u64, bytes: usize) {
        let model = &self.model[index as usize];
        let read = self.log.read(partition(index), Offset(from), bytes).await;
        if from > model.len() as u64 {
            assert!(read.is_err());
            return;
        }
        let mut next = from;
        for batch in read.expect("readable") {
            for record in batch.records().filter(|record| record.offset.0 >= from) {
                assert_eq!(record.offset.0, next);
                assert_eq!(record.payload, model[usize::try_from(next).expect("small")]);
                next += 1;
            }
        }
        assert!(next > from || from == model.len() as u64, "a read below the tail gives something");
    }

    async fn restart(self, close: bool, drop_cache: bool) -> Self {
        let Self { stores, cache, log, model, counter } = self;
        if close {
            log.close().await.expect("closed");
        }
        drop(log);
        let cache = if drop_cache { tempfile::tempdir().expect("a directory") } else { cache };
        let log = Log::open(small(&stores, cache.path())).await.expect("opens");
        for index in 0..PARTITIONS {
            assert_eq!(read_all(&log, partition(index)).await, model[index as usize], "after a restart");
        }
        Self { stores, cache, log, model, counter }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    // Fails when `machine::apply` forgets the index row, when the replay begins one slot late, when the read cuts a run
    // at the wrong batch, when the tail in memory drops a partition's newest instead of its oldest batches,
    // or when a link replaces rows that its run does not cover.
    #[test]
    fn the_log_is_a_vec_that_survives_everything(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut rig = Rig::new().await;
            for step in steps {
                rig = rig.run(step).await;
            }
            rig.restart(false, true).await;
        });
    }
}
