//! The log against a plain `Vec`, with crashes, restarts and lost disks between the operations.

use std::path::Path;
use std::sync::Arc;

use crate::common::{batch, make_topic, options, partition, read_all};
use bytes::Bytes;
use object_store::memory::InMemory;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TopicId};
use plinth_storage::log::{Change, DocOp, Log, LogOptions, TopicOp};
use plinth_storage::store::ObjectStores;
use proptest::prelude::*;

const PARTITIONS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Append {
        partition: u32,
        sizes: Vec<usize>,
    },
    AppendTogether {
        sizes: Vec<usize>,
    },
    Read {
        partition: u32,
        from: u64,
        bytes: usize,
    },
    Trim {
        partition: u32,
        before: u64,
    },
    /// Without a size it is removed.
    Document {
        key: u8,
        size: Option<usize>,
    },
    /// Another topic is made, written to, or goes with all its records.
    OtherTopic {
        number: u8,
        alive: bool,
    },
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
        6 => (0_u8..20, prop::option::weighted(0.7, 0_usize..3000))
            .prop_map(|(key, size)| Step::Document { key, size }),
        3 => (0_u8..3, any::<bool>()).prop_map(|(number, alive)| Step::OtherTopic { number, alive }),
        3 => (0..PARTITIONS, 0_u64..40).prop_map(|(partition, before)| Step::Trim { partition, before }),
        2 => Just(Step::Checkpoint),
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
    /// The starts of the partitions.
    starts: [u64; PARTITIONS as usize],
    others: [Option<TopicId>; 3],
    topics: u128,
    counter: u8,
}

impl Rig {
    async fn new() -> Self {
        let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
        let cache = tempfile::tempdir().expect("a directory");
        let log = Log::open(small(&stores, cache.path())).await.expect("opens");
        make_topic(&log, PARTITIONS).await;
        let model = vec![Vec::new(); PARTITIONS as usize];
        let starts = [0; PARTITIONS as usize];
        Self { stores, cache, log, model, starts, others: [None; 3], topics: 0, counter: 0 }
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
            Step::Trim { partition, before } => self.trim(partition, before).await,
            Step::Document { key, size } => {
                let (key, value) = (Bytes::copy_from_slice(&[key]), size.map(|size| self.noise(size)));
                let doc = value.map_or(DocOp::Delete(key.clone()), |value| DocOp::Put(key.clone(), value));
                self.log.commit(Change { docs: vec![doc], ..Change::default() }).await.expect("committed");
            }
            Step::OtherTopic { number, alive } => self.other_topic(number, alive).await,
            Step::Checkpoint => self.log.checkpoint().await.expect("written"),
            // It also runs by itself, and merges what it can.
            Step::Compact => self.log.compact().await.expect("compacted"),
            Step::Crash => self = self.restart(false, false).await,
            Step::Reopen => self = self.restart(true, false).await,
            Step::DropCache => self = self.restart(false, true).await,
        }
        self
    }

    /// Bytes that do not compress: the sizes of checkpoints are those of what is in them.
    fn noise(&mut self, size: usize) -> Bytes {
        self.counter = self.counter.wrapping_add(1);
        let mut word = u64::from(self.counter) + 1;
        let next = || {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.to_be_bytes()[0]
        };
        Bytes::from(std::iter::repeat_with(next).take(size).collect::<Vec<u8>>())
    }

    /// Makes the topic under `number`, or deletes it; what is there already is written to, what is not stays away.
    async fn other_topic(&mut self, number: u8, alive: bool) {
        let place = usize::from(number);
        let change = match (self.others[place], alive) {
            (Some(topic), true) => {
                let partition = Partition { topic, index: PartitionIndex(0) };
                let payload = self.noise(100);
                self.log.append(partition, batch(&[payload])).await.expect("stored");
                return;
            }
            (None, true) => {
                self.topics += 1;
                let topic = TopicId(ulid::Ulid::from_parts(9, self.topics));
                self.others[place] = Some(topic);
                TopicOp::Create { topic, partitions: 1 }
            }
            (Some(topic), false) => {
                self.others[place] = None;
                TopicOp::Delete { topic }
            }
            (None, false) => return,
        };
        self.log.commit(Change { topics: vec![change], ..Change::default() }).await.expect("committed");
    }

    async fn trim(&mut self, index: u32, before: u64) {
        let (start, tail) = (&mut self.starts[index as usize], self.model[index as usize].len() as u64);
        let trimmed = self.log.trim(&[(partition(index), Offset(before))]).await;
        if before > tail {
            assert!(trimmed.is_err());
            return;
        }
        *start = before.max(*start);
        let bounds = trimmed.expect("trimmed")[0];
        assert_eq!((bounds.start.0, bounds.tail.0), (*start, tail));
        assert_eq!(bounds.bytes == 0, *start == tail, "bytes are those that are kept");
    }

    async fn read(&self, index: u32, from: u64, bytes: usize) {
        let model = &self.model[index as usize];
        let read = self.log.read(partition(index), Offset(from), bytes).await;
        if from > model.len() as u64 || from < self.starts[index as usize] {
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

    /// The rows of the state but those that compaction changes, which runs by itself: reads look at them.
    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let rows = self.log.state_rows().expect("readable").into_iter();
        rows.filter(|(key, _)| ![4, 16].contains(&key[0])).collect()
    }

    /// Opens the log again; every row of the state must be what it was.
    async fn restart(mut self, close: bool, drop_cache: bool) -> Self {
        let rows = self.rows();
        if close {
            self.log.close().await.expect("closed");
        }
        let Self { stores, cache, log, .. } = self;
        drop(log);
        self.cache = if drop_cache { tempfile::tempdir().expect("a directory") } else { cache };
        self.log = Log::open(small(&stores, self.cache.path())).await.expect("opens");
        self.stores = stores;
        assert_eq!(self.rows(), rows, "the state after a restart");
        for index in 0..PARTITIONS {
            let start = self.starts[index as usize];
            assert_eq!(self.log.bounds(partition(index)).expect("there").start, Offset(start), "after a restart");
            let kept = &self.model[index as usize][usize::try_from(start).expect("small")..];
            assert_eq!(read_all(&self.log, partition(index)).await, kept, "after a restart");
        }
        self
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    // Fails when `machine::apply` forgets the index row, or to note what a slot changed, when a checkpoint loses a change
    // or a tombstone, or is built on another one than its changes come after, when the replay begins one slot late, when the read cuts a run
    // at the wrong batch, or when the tail in memory drops a partition's newest instead of its oldest batches,
    // when a link replaces rows that its run does not cover, or when a trim goes back or takes a run too many.
    #[test]
    fn the_log_is_a_vec_that_survives_everything(steps in prop::collection::vec(step(), 1..30)) {
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
