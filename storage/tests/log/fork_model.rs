//! Forks of forks against plain lists of bytes, with crashes, lost disks, compactions and trims between the operations.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use plinth_storage::Kind;
use plinth_storage::ahead::Scan;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TopicId};
use plinth_storage::inspect::Scratch;
use plinth_storage::log::{Change, First, Log, LogOptions, Sub, TopicOp};
use plinth_storage::store::ObjectStores;
use proptest::prelude::*;
use proptest::sample::Index;
use ulid::Ulid;

use crate::common::{batch, options, read_all};
use crate::inspect::look;

#[derive(Clone, Debug)]
enum Step {
    Append {
        topic: Index,
        sizes: Vec<usize>,
    },
    /// Behind `anchor`, by bytes or by records, with first records of its own.
    Fork {
        topic: Index,
        anchor: u64,
        sub: Sub,
        sizes: Vec<usize>,
    },
    Read {
        topic: Index,
        from: u64,
        bytes: usize,
    },
    Trim {
        topic: Index,
        before: u64,
    },
    Delete {
        topic: Index,
    },
    Checkpoint,
    Compact,
    Crash,
    DropCache,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0_usize..40, 2 => 500_usize..1200, 1 => 5000_usize..20_000];
    let sizes = prop::collection::vec(size, 1..5);
    let sub = prop_oneof![
        3 => Just(Sub::None),
        5 => (0_u64..60).prop_map(Sub::Bytes),
        1 => (0_u64..2000).prop_map(Sub::Bytes),
        2 => (0_u64..5).prop_map(Sub::Records),
    ];
    let any = any::<Index>;
    let first = prop_oneof![Just(Vec::new()), sizes.clone()];
    prop_oneof![
        8 => (any(), sizes).prop_map(|(topic, sizes)| Step::Append { topic, sizes }),
        8 => (any(), 0_u64..30, sub, first)
            .prop_map(|(topic, anchor, sub, sizes)| Step::Fork { topic, anchor, sub, sizes }),
        8 => (any(), 0_u64..40, 1_usize..40_000).prop_map(|(topic, from, bytes)| Step::Read { topic, from, bytes }),
        3 => (any(), 0_u64..20).prop_map(|(topic, before)| Step::Trim { topic, before }),
        3 => any().prop_map(|topic| Step::Delete { topic }),
        1 => Just(Step::Checkpoint),
        3 => Just(Step::Compact),
        1 => Just(Step::Crash),
        1 => Just(Step::DropCache),
    ]
}

/// As much compaction and merging as there can be.
fn small(stores: &ObjectStores, cache: &Path) -> LogOptions {
    LogOptions { segment_bytes: 32 * 1024, write_percent_max: u64::MAX, ..options(stores, Some(cache)) }
}

struct Topic {
    id: TopicId,
    records: Vec<Bytes>,
    /// Where each batch ends.
    ends: Vec<u64>,
    start: u64,
    source: Option<usize>,
    deleted: bool,
}

struct Rig {
    stores: ObjectStores,
    cache: tempfile::TempDir,
    log: Log,
    topics: Vec<Topic>,
    counter: u8,
}

impl Topic {
    fn partition(&self) -> Partition {
        Partition { topic: self.id, index: PartitionIndex(0) }
    }

    fn tail(&self) -> u64 {
        self.records.len() as u64
    }

    fn append(&mut self, payloads: Vec<Bytes>) {
        if !payloads.is_empty() {
            self.records.extend(payloads);
            self.ends.push(self.tail());
        }
    }

    /// What a fork inherits: its records and where its batches end; none where it cannot be.
    fn up_to(&self, anchor: u64, sub: Sub) -> Option<(Vec<Bytes>, Vec<u64>)> {
        if anchor < self.start || anchor > self.tail() {
            return None;
        }
        let end = self.ends.iter().copied().find(|end| *end > anchor).unwrap_or(anchor);
        let mut records = self.records[..usize::try_from(anchor).expect("small")].to_vec();
        let rest = &self.records[records.len()..usize::try_from(end).expect("small")];
        match sub {
            Sub::None => {}
            Sub::Records(count) => records.extend_from_slice(rest.get(..usize::try_from(count).expect("small"))?),
            Sub::Bytes(count) => {
                let mut left = usize::try_from(count).expect("small");
                let mut rest = rest.iter();
                while left > 0 {
                    let record = rest.next()?;
                    records.push(record.slice(..left.min(record.len())));
                    left -= left.min(record.len());
                }
            }
        }
        let count = records.len() as u64;
        let mut ends: Vec<u64> = self.ends.iter().copied().filter(|end| *end < count).collect();
        ends.extend((count > 0).then_some(count));
        Some((records, ends))
    }
}

impl Rig {
    async fn new() -> Self {
        let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
        let cache = tempfile::tempdir().expect("a directory");
        let log = Log::open(small(&stores, cache.path())).await.expect("opens");
        let mut rig = Self { stores, cache, log, topics: Vec::new(), counter: 0 };
        rig.make_root().await;
        rig
    }

    fn new_id(&self) -> TopicId {
        TopicId(Ulid::from_parts(1 + self.topics.len() as u64, 1))
    }

    async fn make_root(&mut self) {
        let id = self.new_id();
        let topics = vec![TopicOp::Create { topic: id, partitions: 1 }];
        self.log.commit(Change { topics, ..Change::default() }).await.expect("made");
        let records = Vec::new();
        self.topics.push(Topic { id, records, ends: Vec::new(), start: 0, source: None, deleted: false });
    }

    fn payloads(&mut self, sizes: &[usize]) -> Vec<Bytes> {
        let payload = |size: &usize| {
            self.counter = self.counter.wrapping_add(1);
            Bytes::from(vec![self.counter; *size])
        };
        sizes.iter().map(payload).collect()
    }

    fn pick(&self, topic: Index) -> usize {
        let alive: Vec<usize> = (0..self.topics.len()).filter(|at| !self.topics[*at].deleted).collect();
        *topic.get(&alive)
    }

    /// Whether its records are there, by itself or for its forks.
    fn is_kept(&self, at: usize) -> bool {
        !self.topics[at].deleted || self.forks(at) > 0
    }

    fn forks(&self, at: usize) -> u32 {
        let forks = (0..self.topics.len()).filter(|fork| self.topics[*fork].source == Some(at) && self.is_kept(*fork));
        u32::try_from(forks.count()).expect("few")
    }

    async fn run(mut self, step: Step) -> Self {
        match step {
            Step::Append { topic, sizes } => {
                let (at, payloads) = (self.pick(topic), self.payloads(&sizes));
                let topic = &mut self.topics[at];
                let appended = self.log.append(topic.partition(), batch(&payloads)).await.expect("stored");
                assert_eq!(appended.base.0, topic.tail());
                topic.append(payloads);
            }
            Step::Fork { topic, anchor, sub, sizes } => self.fork(self.pick(topic), (anchor, sub), &sizes).await,
            Step::Read { topic, from, bytes } => self.read(self.pick(topic), from, bytes).await,
            Step::Trim { topic, before } => self.trim(self.pick(topic), before).await,
            Step::Delete { topic } => self.delete(self.pick(topic)).await,
            Step::Checkpoint => self.log.checkpoint().await.expect("written"),
            Step::Compact => self.log.compact().await.expect("compacted"),
            Step::Crash => self = self.restart(false).await,
            Step::DropCache => self = self.restart(true).await,
        }
        self
    }

    async fn fork(&mut self, at: usize, (anchor, sub): (u64, Sub), sizes: &[usize]) {
        let source = &self.topics[at];
        let point = self.log.fork_point(source.partition(), Offset(anchor), sub).await;
        let Some((records, ends)) = source.up_to(anchor, sub) else {
            assert_eq!(point.expect_err("there is no such place").kind(), Kind::OutOfRange);
            return;
        };
        let point = point.expect("a place");
        assert_eq!(point.at.0, records.len() as u64);
        let (id, start, of) = (self.new_id(), source.start, source.id);
        let payloads = self.payloads(sizes);
        let change = Change { topics: vec![TopicOp::Fork { topic: id, source: of, point }], ..Change::default() };
        let mut fork = Topic { id, records, ends, start, source: Some(at), deleted: false };
        let first = (!payloads.is_empty()).then(|| batch(&payloads));
        fork.append(payloads);
        let first = First { partition: fork.partition(), batch: first, close: false };
        let tail = self.log.create(change, first).await.expect("made");
        assert_eq!(tail.0, fork.tail());
        self.topics.push(fork);
    }

    async fn trim(&mut self, at: usize, before: u64) {
        let forks = self.forks(at);
        let topic = &mut self.topics[at];
        let trimmed = self.log.trim(&[(topic.partition(), Offset(before))]).await;
        if before > topic.tail() {
            assert_eq!(trimmed.expect_err("above the tail").kind(), Kind::OutOfRange);
        } else if before > topic.start && forks > 0 {
            assert_eq!(trimmed.expect_err("it has forks").kind(), Kind::Conflict);
        } else {
            topic.start = topic.start.max(before);
            assert_eq!(trimmed.expect("trimmed")[0].start.0, topic.start);
        }
    }

    async fn delete(&mut self, at: usize) {
        let topics = vec![TopicOp::Delete { topic: self.topics[at].id }];
        self.log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
        self.topics[at].deleted = true;
        if self.topics.iter().all(|topic| topic.deleted) {
            self.make_root().await;
        }
    }

    async fn read(&self, at: usize, from: u64, bytes: usize) {
        let topic = &self.topics[at];
        let read = self.log.read(topic.partition(), Offset(from), bytes).await;
        if from > topic.tail() || from < topic.start {
            assert_eq!(read.expect_err("not there").kind(), Kind::OutOfRange);
            return;
        }
        let mut next = from;
        for batch in read.expect("readable") {
            for record in batch.records().filter(|record| record.offset.0 >= from) {
                assert_eq!(record.offset.0, next);
                assert_eq!(record.payload, topic.records[usize::try_from(next).expect("small")]);
                next += 1;
            }
        }
        assert!(next > from || from == topic.tail(), "a read below the tail gives something");
    }

    /// Every topic holds what it should, by both ways to read it, and nothing else is left.
    async fn check(&self) {
        for (at, topic) in self.topics.iter().enumerate() {
            assert_eq!(self.log.forks(topic.id).expect("counted"), self.forks(at));
            if topic.deleted {
                assert_eq!(self.log.bounds(topic.partition()).expect_err("deleted").kind(), Kind::NotFound);
                continue;
            }
            let bounds = self.log.bounds(topic.partition()).expect("it is there");
            assert_eq!((bounds.start.0, bounds.tail.0), (topic.start, topic.tail()));
            let kept = &topic.records[usize::try_from(topic.start).expect("small")..];
            assert_eq!(read_all(&self.log, topic.partition()).await, kept);
            let (mut scan, mut next, mut read) = (Scan::new(topic.partition()), bounds.start, Vec::new());
            while next < bounds.tail {
                for batch in self.log.read_on(&mut scan, next, 4096).await.expect("readable") {
                    read.extend(batch.records().filter(|record| record.offset >= next).map(|record| record.payload));
                    next = batch.next();
                }
            }
            assert_eq!(read, kept);
        }
    }

    /// Opens the log again; every row of the state must be what it was.
    async fn restart(mut self, drop_cache: bool) -> Self {
        let rows = |log: &Log| {
            let rows = log.state_rows().expect("readable").into_iter();
            rows.filter(|(key, _)| ![4, 16].contains(&key[0])).collect::<Vec<_>>()
        };
        let before = rows(&self.log);
        let Self { stores, cache, log, .. } = self;
        drop(log);
        self.cache = if drop_cache { tempfile::tempdir().expect("a directory") } else { cache };
        self.log = Log::open(small(&stores, self.cache.path())).await.expect("opens");
        self.stores = stores;
        assert_eq!(rows(&self.log), before, "the state after a restart");
        self.check().await;
        self
    }

    /// Deletes everything; then nothing is left of it.
    async fn end(mut self) {
        for at in 0..self.topics.len() {
            if !self.topics[at].deleted {
                let topics = vec![TopicOp::Delete { topic: self.topics[at].id }];
                self.log.commit(Change { topics, ..Change::default() }).await.expect("deleted");
                self.topics[at].deleted = true;
                self.check().await;
            }
        }
        let rows = self.log.state_rows().expect("readable");
        let left: Vec<_> = rows.into_iter().filter(|(key, _)| [2, 3, 4, 20, 21].contains(&key[0])).collect();
        assert_eq!(left, []);
        self.log.close().await.expect("closed");
        let (_, findings) = look(&self.stores, Scratch::memory()).await.expect("readable");
        assert_eq!(findings, [], "the bucket verifies");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    // Fails when a read goes beyond the part of an ancestor, when a cut is forgotten or is that of another record, when a trim or a
    // deletion takes what a fork shares, when the last fork does not take its source along, or when a fork's row is not in checkpoints.
    #[test]
    fn forks_are_lists_that_share_their_beginnings(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut rig = Rig::new().await;
            for step in steps {
                rig = rig.run(step).await;
            }
            rig.check().await;
            rig.restart(true).await.end().await;
        });
    }
}
