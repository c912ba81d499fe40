//! Repeated appends against a plain `Vec`: producers and keyed requests on a store that fails at random, with crashes,
//! restarts, checkpoints, lost disks and outcomes that stay open between the tries.

use std::collections::BTreeMap;

use bytes::Bytes;
use plinth_storage::Durability;
use plinth_storage::error::Kind;
use plinth_storage::log::{Appended, Log};
use plinth_storage::terms::{PRODUCER_RECEIPTS_MAX, Terms};
use plinth_storage::testing::fault::FaultStore;
use proptest::prelude::*;

use crate::common::{batch, make_topic, options, partition, read_all};
use crate::once::{key, producer};

const PARTITIONS: u32 = 2;
const PRODUCERS: u8 = 3;

/// Who appends: a producer, or a request with a key of its own.
#[derive(Clone, Copy, Debug)]
enum Who {
    Producer(u8),
    Request,
}

/// What happens between the first try of an append and the one that settles it.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// Two tries at once.
    Twice,
    /// The store goes away, the outcome stays open; it comes back, or the process ends before.
    Away {
        crash: bool,
    },
    /// The process ends with the slot under way; it lands before the next start, after it, or never.
    Killed {
        lands: Lands,
    },
}

#[derive(Clone, Copy, Debug)]
enum Lands {
    Before,
    After,
    Never,
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        who: Who,
        partition: u32,
        count: usize,
        trouble: Trouble,
    },
    /// One of the last appends once more.
    Repeat {
        back: usize,
    },
    /// The next incarnation of a producer.
    Epoch {
        producer: u8,
        partition: u32,
    },
    Checkpoint,
    Crash,
    Reopen,
    DropCache,
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![3 => (0..PRODUCERS).prop_map(Who::Producer), 2 => Just(Who::Request)];
    let lands = prop_oneof![Just(Lands::Before), Just(Lands::After), Just(Lands::Never)];
    let trouble = prop_oneof![
        4 => Just(Trouble::None),
        2 => Just(Trouble::Twice),
        1 => any::<bool>().prop_map(|crash| Trouble::Away { crash }),
        2 => lands.prop_map(|lands| Trouble::Killed { lands }),
    ];
    prop_oneof![
        10 => (who, 0..PARTITIONS, 1_usize..4, trouble)
            .prop_map(|(who, partition, count, trouble)| Step::Append { who, partition, count, trouble }),
        6 => (0_usize..12).prop_map(|back| Step::Repeat { back }),
        1 => (0..PRODUCERS, 0..PARTITIONS).prop_map(|(producer, partition)| Step::Epoch { producer, partition }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
        1 => Just(Step::DropCache),
    ]
}

/// An append that is settled.
#[derive(Clone, Debug)]
struct Done {
    partition: u32,
    terms: Terms,
    base: u64,
    count: u32,
}

struct Rig {
    store: FaultStore,
    /// None: the state is in memory, which is much faster to open.
    cache: Option<tempfile::TempDir>,
    /// None only between a crash and the next start.
    log: Option<Log>,
    model: Vec<Vec<Bytes>>,
    /// Epoch and next sequence.
    producers: BTreeMap<(u8, u32), (u64, u64)>,
    requests: u128,
    seed: u64,
    starts: u64,
    done: Vec<Done>,
}

impl Rig {
    async fn new(seed: u64, on_disk: bool) -> Self {
        let mut rig = Self {
            store: FaultStore::in_memory(),
            cache: on_disk.then(|| tempfile::tempdir().expect("a directory")),
            log: None,
            model: vec![Vec::new(); PARTITIONS as usize],
            producers: BTreeMap::new(),
            requests: 0,
            seed,
            starts: 0,
            done: Vec::new(),
        };
        rig.start().await;
        make_topic(rig.log(), PARTITIONS).await;
        rig
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Append { who, partition, count, trouble } => self.append(who, partition, count, trouble).await,
            Step::Repeat { back } => self.repeat(back).await,
            Step::Epoch { producer, partition } => {
                let (epoch, seq) = self.producers.entry((producer, partition)).or_default();
                (*epoch, *seq) = (*epoch + 1, 0);
                self.done.retain(|done| done.partition != partition || !is_of(&done.terms, producer));
            }
            Step::Checkpoint => self.log().request_checkpoint(),
            Step::Crash => self.restart(false, false).await,
            Step::Reopen => self.restart(true, false).await,
            Step::DropCache => self.restart(false, true).await,
        }
    }

    async fn append(&mut self, who: Who, index: u32, count: usize, trouble: Trouble) {
        let terms = match who {
            Who::Producer(id) => {
                let (epoch, seq) = self.producers.entry((id, index)).or_default();
                *seq += 1;
                producer(id, *epoch, *seq - 1)
            }
            Who::Request => {
                self.requests += 1;
                key(self.requests << 8)
            }
        };
        let number = self.model[index as usize].len();
        let payloads: Vec<Bytes> = (0..count).map(|at| Bytes::from(format!("{index}:{}", number + at))).collect();
        let was_tried = self.trouble(index, &payloads, &terms, trouble).await;
        let (settled, again) = self.settle(index, &payloads, &terms).await;
        assert_eq!(settled.base.0, number as u64, "the first try and the others have one place");
        assert!(was_tried || again || !settled.duplicate, "what was never tried is not a duplicate");
        self.model[index as usize].extend(payloads);
        self.done.push(Done { partition: index, terms, base: number as u64, count: settled.count });
    }

    /// A first try that goes wrong. Answers whether there was one.
    async fn trouble(&mut self, index: u32, payloads: &[Bytes], terms: &Terms, trouble: Trouble) -> bool {
        match trouble {
            Trouble::None => return false,
            Trouble::Twice => {
                let (one, two) =
                    tokio::join!(self.try_append(index, payloads, terms), self.try_append(index, payloads, terms));
                assert_eq!((one.expect("stored").duplicate, two.expect("stored").duplicate), (false, true));
            }
            Trouble::Away { crash } => {
                self.store.set_unavailable(true);
                let away = self.try_append(index, payloads, terms).await.expect_err("the store is away").kind();
                assert!(matches!(away, Kind::Unknown | Kind::Unavailable), "{away:?}");
                if !crash {
                    let again = self.try_append(index, payloads, terms).await.expect_err("the store is away").kind();
                    assert_eq!(again, away, "what is open stays open, and what is not stored stays so");
                }
                self.store.set_unavailable(false);
                if crash {
                    self.restart(false, false).await;
                } else {
                    self.until_available().await;
                }
            }
            Trouble::Killed { lands } => self.kill(index, payloads, terms, lands).await,
        }
        true
    }

    async fn kill(&mut self, index: u32, payloads: &[Bytes], terms: &Terms, lands: Lands) {
        use plinth_storage::testing::fault::PutFault;
        self.store.seeded_off();
        self.store.release().await;
        self.store.on_put(|path| path.as_ref().contains("/wal/"), PutFault::ApplyLater);
        let pending = tokio::spawn({
            let (log, terms, batch) = (self.log().clone(), terms.clone(), batch(payloads));
            async move { log.append_if(partition(index), batch, &terms, Durability::Object).await }
        });
        self.store.until(|store| store.put_off() == 1).await;
        pending.abort();
        drop((self.log.take(), pending.await));
        if matches!(lands, Lands::Before) {
            self.store.release().await;
        }
        self.start().await;
        if matches!(lands, Lands::After) {
            self.store.release().await;
        }
    }

    async fn until_available(&self) {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
        while !self.log().status().available {
            ticks.tick().await;
        }
    }

    async fn try_append(&self, index: u32, payloads: &[Bytes], terms: &Terms) -> plinth_storage::Result<Appended> {
        self.log().append_if(partition(index), batch(payloads), terms, Durability::Object).await
    }

    /// Tries until the outcome is known, as a client does; also whether it took more than one try. A store that answers again
    /// may still fail the slot of the first try for longer than one try waits.
    async fn settle(&self, index: u32, payloads: &[Bytes], terms: &Terms) -> (Appended, bool) {
        let mut again = false;
        loop {
            match self.try_append(index, payloads, terms).await {
                Err(error) if matches!(error.kind(), Kind::Unknown | Kind::Unavailable) => self.until_available().await,
                settled => return (settled.expect("settled"), again),
            }
            again = true;
        }
    }

    async fn repeat(&self, back: usize) {
        let Some(done) = self.done.iter().rev().nth(back) else { return };
        // The batch of a repeated append does not count.
        let again = self.try_append(done.partition, &[Bytes::from_static(b"again")], &done.terms).await;
        let again = again.expect("stored before");
        assert_eq!((again.base.0, again.count, again.duplicate), (done.base, done.count, true), "{done:?}");
    }

    async fn restart(&mut self, close: bool, drop_cache: bool) {
        if close {
            self.log().close().await.expect("closed");
        }
        self.log = None;
        if drop_cache && self.cache.is_some() {
            self.cache = Some(tempfile::tempdir().expect("a directory"));
        }
        self.start().await;
    }

    /// The probe of a start tries nothing twice, so the store is well for as long as it takes.
    async fn start(&mut self) {
        self.store.seeded_off();
        let cache = self.cache.as_ref().map(tempfile::TempDir::path);
        let log = Log::open(options(&self.store.stores(), cache)).await;
        self.log = Some(log.expect("opens"));
        self.starts += 1;
        self.store.seeded(self.seed.wrapping_add(self.starts), 4);
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open between steps")
    }

    async fn check(&self) {
        for index in 0..PARTITIONS {
            assert_eq!(read_all(self.log(), partition(index)).await, self.model[index as usize]);
        }
        for back in 0..self.done.len().min(PRODUCER_RECEIPTS_MAX) {
            self.repeat(back).await;
        }
    }
}

fn is_of(terms: &Terms, id: u8) -> bool {
    use plinth_storage::terms::Once;
    matches!(&terms.once, Some(Once::Producer(producer)) if producer.id[..] == [id])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    // Fails when an entry is applied twice or not at all, when a checkpoint leaves rows out, when a replay begins one slot
    // late, when a pending append is not looked for, and when what was undone is still remembered.
    #[test]
    fn every_append_has_one_place_whatever_happens(
        seed in any::<u64>(),
        on_disk in prop::bool::weighted(0.1),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut rig = Rig::new(seed, on_disk).await;
            for step in steps {
                rig.run(step).await;
            }
            rig.check().await;
            rig.restart(false, true).await;
            rig.check().await;
        });
    }
}
