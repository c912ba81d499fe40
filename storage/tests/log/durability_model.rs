//! Durability classes against a plain map of what was acknowledged, with crashes, lost disks and puts that never land.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::{batch, make_topic, partition};
use bytes::Bytes;
use object_store::path::Path;
use plinth_storage::Durability;
use plinth_storage::error::Kind;
use plinth_storage::ids::Offset;
use plinth_storage::log::Log;
use plinth_storage::testing::fault::{FaultStore, PutFault};
use proptest::prelude::*;

const PARTITIONS: u32 = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    Append {
        partition: u32,
        class: Durability,
        count: usize,
    },
    /// The next slot hangs, and all behind it wait: only what is early is acknowledged.
    Hold,
    Release,
    Checkpoint,
    Compact,
    Crash {
        same_disk: bool,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop_oneof![Just(Durability::Memory), Just(Durability::Local), Just(Durability::Object)];
    prop_oneof![
        16 => (0..PARTITIONS, class, 1_usize..4)
            .prop_map(|(partition, class, count)| Step::Append { partition, class, count }),
        4 => Just(Step::Hold),
        1 => Just(Step::Release),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Compact),
        2 => prop::bool::weighted(0.7).prop_map(|same_disk| Step::Crash { same_disk }),
        1 => Just(Step::Reopen),
    ]
}

struct Rig {
    store: FaultStore,
    dir: tempfile::TempDir,
    /// None only between a crash and the next start.
    log: Option<Log>,
    /// By partition: what was acknowledged and is not lost, by offset, with the class that was reached.
    model: Vec<BTreeMap<u64, (Bytes, Durability)>>,
    /// By partition: the end of all offsets that were ever shown.
    shown: Vec<u64>,
    held: bool,
    counter: u64,
}

fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

impl Rig {
    async fn new() -> Self {
        let mut rig = Self {
            store: FaultStore::in_memory(),
            dir: tempfile::tempdir().expect("a directory"),
            log: None,
            model: vec![BTreeMap::new(); PARTITIONS as usize],
            shown: vec![0; PARTITIONS as usize],
            held: false,
            counter: 0,
        };
        rig.start().await;
        make_topic(rig.log(), PARTITIONS).await;
        rig
    }

    async fn start(&mut self) {
        let mut options = crate::common::options(&self.store.stores(), Some(self.dir.path()));
        options.in_flight_max = 1;
        options.unstored_age_max = Duration::from_secs(3600);
        self.log = Some(Log::open(options).await.expect("opens"));
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open between steps")
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Append { partition, class, count } => self.append(partition, class, count).await,
            Step::Hold if !self.held => {
                self.store.on_put(is_wal, PutFault::Hang);
                self.held = true;
            }
            Step::Hold => {}
            Step::Release => self.release().await,
            Step::Checkpoint => self.log().request_checkpoint(),
            Step::Compact => {
                self.release().await;
                self.log().compact().await.expect("compacted");
            }
            Step::Crash { same_disk } => self.crash(same_disk).await,
            Step::Reopen => {
                self.release().await;
                self.log().close().await.expect("closed");
                self.log = None;
                self.start().await;
                self.check(|_| false).await;
            }
        }
    }

    /// Lets go of a slot that hangs. The script may still wait for one to come.
    async fn release(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        if self.store.unfired() > 0 {
            let log = self.log().clone();
            let append =
                tokio::spawn(async move { log.append(partition(0), batch(&[Bytes::from_static(b"r")])).await });
            self.store.until(|store| store.unfired() == 0 && store.hanging() > 0).await;
            self.store.release().await;
            let appended = append.await.expect("joined").expect("stored");
            self.note(0, appended.base.0, &[Bytes::from_static(b"r")], Durability::Object);
        } else {
            self.store.release().await;
        }
    }

    async fn append(&mut self, index: u32, class: Durability, count: usize) {
        self.counter += 1;
        let payloads: Vec<Bytes> = (0..count).map(|at| Bytes::from(format!("{}.{at}", self.counter))).collect();
        let (log, batch) = (self.log().clone(), batch(&payloads));
        let mut append = tokio::spawn(async move { log.append_as(partition(index), batch, class).await });
        // One that is late waits for the slot that hangs, so let go of it. An early one may meet that too; then its class is
        // a stronger one, which is nothing wrong.
        let late = async {
            self.store.until(|store| store.hanging() > 0).await;
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            ticks.tick().await;
            ticks.tick().await;
        };
        let appended = tokio::select! {
            biased;
            appended = &mut append => appended,
            () = late => {
                self.held = false;
                self.store.release().await;
                append.await
            }
        };
        let appended = appended.expect("joined").expect("acknowledged");
        assert!(appended.durability >= class);
        self.note(index, appended.base.0, &payloads, appended.durability);
        let read = self.log().read(partition(index), appended.base, 1).await.expect("readable at once");
        assert_eq!(read[0].records().next().expect("a record").payload, payloads[0]);
    }

    fn note(&mut self, index: u32, base: u64, payloads: &[Bytes], class: Durability) {
        let shown = &mut self.shown[index as usize];
        assert!(base >= *shown, "offset {base} was shown before: {shown}");
        *shown = base + payloads.len() as u64;
        let at = (base..).zip(payloads);
        self.model[index as usize].extend(at.map(|(offset, payload)| (offset, (payload.clone(), class))));
    }

    async fn crash(&mut self, same_disk: bool) {
        self.log = None;
        while self.store.hanging() > 0 {
            tokio::task::yield_now().await;
        }
        // A hang that has not come would hold the start.
        let unfired = self.store.unfired() > 0;
        if unfired {
            self.store = FaultStore::over(self.store.inner());
        }
        self.held = false;
        if !same_disk {
            self.dir = tempfile::tempdir().expect("a directory");
        }
        self.start().await;
        self.check(|class| class == Durability::Memory || (class == Durability::Local && !same_disk)).await;
    }

    /// Everything acknowledged is there, but for what may be lost, which lies in gaps; and nothing else is.
    async fn check(&mut self, may_be_lost: impl Fn(Durability) -> bool) {
        for index in 0..PARTITIONS {
            let log = self.log.as_ref().expect("open");
            let bounds = log.bounds(partition(index)).expect("bounds");
            assert!(bounds.tail.0 >= self.shown[index as usize], "no offset that was shown is given again");
            let (mut next, mut found) = (bounds.start, BTreeMap::new());
            while next < bounds.tail {
                match log.read(partition(index), next, 4096).await {
                    Ok(batches) => {
                        for record in batches.iter().flat_map(|batch| batch.records()) {
                            found.insert(record.offset.0, record.payload);
                        }
                        next = batches.last().expect("below the tail").next();
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::OutOfRange);
                        next = log.gap_at(partition(index), Offset(next.0)).expect("readable").expect("a gap").to;
                    }
                }
            }
            let model = &mut self.model[index as usize];
            model.retain(|offset, (_, class)| found.contains_key(offset) || !may_be_lost(*class));
            let expected: BTreeMap<u64, Bytes> =
                model.iter().map(|(at, (payload, _))| (*at, payload.clone())).collect();
            assert_eq!(found, expected, "partition {index}");
        }
        // What is read after a start is in the bucket.
        self.model.iter_mut().flatten().for_each(|(_, (_, class))| *class = Durability::Object);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 100, ..ProptestConfig::default() })]

    // Fails when an acknowledgement comes before the sync or the reservation, when a gap or the journal is left out, and
    // when an offset that was shown is given again.
    #[test]
    fn what_is_acknowledged_is_kept_as_its_class_says_whatever_happens(steps in prop::collection::vec(step(), 1..40)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut rig = Rig::new().await;
            for step in steps {
                rig.run(step).await;
            }
            rig.crash(true).await;
        });
    }
}
