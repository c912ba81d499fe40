//! The virtual world of one run: a bucket, the nodes that work on it, what observers saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use plinth_audit::{Event, History, Place, Seen};
use plinth_storage::env::{Clock, Rng as CoreRng};
use plinth_storage::ids::{Offset, Partition, PartitionIndex, SessionId, Timestamp, TopicId};
use plinth_storage::log::{Log, LogOptions, StopReason};
use plinth_storage::store::ObjectStores;
use plinth_storage::testing::fault::FaultStore;
use plinth_storage::{Error, Kind};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;
use ulid::Ulid;

use crate::chaos::{Chaos, HEADER_BYTES, Weather};
use crate::deletions::Deletions;
use crate::flag::Flag;
use crate::sleep;
use crate::streams::Streams;
use crate::tenants::Tenants;
use crate::trace::Trace;
use crate::trim::Retained;

/// The wall clock of the first moment of a run.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Topics that live for the whole run; each has two partitions.
pub const TOPICS: u64 = 3;
/// Partitions of each.
pub const PARTITIONS: u32 = 2;

/// A started process, also after its end.
pub struct Node {
    /// Its number, rising.
    pub number: u32,
    /// Its log while it lives.
    pub log: Option<Log>,
    /// Its way to the bucket.
    pub chaos: Chaos,
    /// The faults on that way; what was put off outlives the node.
    pub faults: FaultStore,
    handle: Option<Handle>,
    down: Arc<Flag>,
}

/// A node that an actor talks to.
#[derive(Clone)]
pub struct Handle {
    /// Its number.
    pub number: u32,
    /// Its log.
    pub log: Log,
    /// How often it looks for what nothing needs any more, while there are new checkpoints.
    pub sweep_interval: Duration,
    /// So long what nothing needs any more stays.
    pub grace: Duration,
    /// Whether what it reads comes as it was written.
    pub reads_whole: bool,
    down: Arc<Flag>,
}

/// One run.
pub struct World {
    /// What it was made from.
    pub seed: u64,
    /// What happened.
    pub trace: Arc<Trace>,
    /// What observers saw.
    pub history: History,
    /// The store below all faults.
    pub bucket: Arc<InMemory>,
    /// What was deleted from it.
    pub deletions: Arc<Deletions>,
    /// What is known of the topic with a retention.
    pub retained: Retained,
    /// The tenants that come and go.
    pub tenants: Tenants,
    /// The streams that are made.
    pub streams: Streams,
    /// Those of weaker durability classes.
    pub weak: Streams,
    over: Flag,
    inner: Mutex<Inner>,
    clock: Arc<VirtualClock>,
}

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    wrong: Vec<String>,
    documents: BTreeMap<String, Document>,
    watches: JoinSet<()>,
    /// The node whose start came through last.
    newest: u32,
    starts: usize,
}

/// What is known of a document: what its one writer was told.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The last version that was acknowledged.
    pub acknowledged: u64,
    /// The last version that was sent.
    pub sent: u64,
    /// Versions that were refused as not stored.
    pub refused: Vec<u64>,
}

struct VirtualClock {
    begun: Instant,
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGIN_MS + u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

struct SeededRng(Mutex<StdRng>);

impl CoreRng for SeededRng {
    fn bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        bytes
    }
}

impl World {
    /// An empty bucket and no node.
    #[must_use]
    pub fn new(seed: u64, keep_trace: bool) -> Arc<Self> {
        Arc::new(Self {
            seed,
            trace: Arc::new(Trace::new(keep_trace)),
            history: History::new(),
            bucket: Arc::new(InMemory::new()),
            deletions: Arc::default(),
            retained: Retained::default(),
            tenants: Tenants::default(),
            streams: Streams::default(),
            weak: Streams::default(),
            over: Flag::default(),
            inner: Mutex::default(),
            clock: Arc::new(VirtualClock { begun: Instant::now() }),
        })
    }

    /// Random numbers of an actor: its own, so that one more draw of one does not change the others.
    #[must_use]
    pub fn random(&self, actor: &str, number: u64) -> StdRng {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (self.seed, actor, number).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    /// Notes something that must not be.
    pub fn wrong(&self, what: String) {
        self.trace.line(&format!("WRONG {what}"));
        self.lock().wrong.push(what);
    }

    /// All that must not be, so far.
    #[must_use]
    pub fn all_wrong(&self) -> Vec<String> {
        let wrong = self.lock().wrong.clone();
        wrong.into_iter().chain(self.deletions.wrong()).collect()
    }

    /// Ends the run: actors come to their ends.
    pub fn end(&self) {
        self.over.set(true);
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_set()
    }

    /// Returns when the run is over.
    pub async fn ended(&self) {
        self.over.is(true).await;
    }

    /// Sleeps, at most until the run is over.
    pub async fn rest(&self, random: &mut StdRng, ms: std::ops::Range<u64>) {
        let limit = Duration::from_millis(random.random_range(ms));
        let _over = tokio::time::timeout(limit, self.ended()).await;
    }

    /// A topic that lives for the whole run.
    #[must_use]
    pub fn topic(&self, number: u64) -> TopicId {
        TopicId(Ulid::from_parts(1, u128::from(number) + 1))
    }

    /// A partition, and its name in the history.
    #[must_use]
    pub fn partition(&self, number: u64, index: u32) -> (Partition, Place) {
        let partition = Partition { topic: self.topic(number), index: PartitionIndex(index) };
        (partition, Place::new(format!("t{number}"), index))
    }

    /// All partitions that live for the whole run.
    #[must_use]
    pub fn partitions(&self) -> Vec<(Partition, Place)> {
        (0..TOPICS).flat_map(|number| self.partitions_of(number)).collect()
    }

    /// The partitions of one of these topics.
    #[must_use]
    pub fn partitions_of(&self, number: u64) -> Vec<(Partition, Place)> {
        (0..PARTITIONS).map(move |index| self.partition(number, index)).collect()
    }

    /// A node that lives: most often the newest, sometimes one that may have been ended without knowing it.
    #[must_use]
    pub fn pick(&self, random: &mut StdRng) -> Option<Handle> {
        let inner = self.lock();
        let live: Vec<Handle> = inner.nodes.iter().filter_map(Node::handle).collect();
        let any = random.random_range(0..8) == 0;
        let newest = live.iter().position(|handle| handle.number == inner.newest);
        let at = if any { None } else { newest };
        live.get(at.unwrap_or_else(|| random.random_range(0..live.len().max(1)))).cloned()
    }

    /// That node, while it lives.
    #[must_use]
    pub fn the_newest(&self) -> Option<Handle> {
        let inner = self.lock();
        inner.nodes.get((inner.newest as usize).checked_sub(1)?)?.handle()
    }

    /// The node whose start came through last: the owner, but for starts that are under way.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.lock().newest
    }

    /// Whether somebody has ended a node's session, whether it knows of it or not.
    pub async fn is_ended(&self, handle: &Handle) -> bool {
        has_fence(&self.bucket, handle.log.session()).await
    }

    /// How many starts have come through.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.lock().starts
    }

    /// How many nodes live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.lock().nodes.iter().filter(|node| node.log.is_some()).count()
    }

    /// Does something with a node that lives, chosen by chance.
    pub fn with_live(&self, random: &mut StdRng, act: impl FnOnce(&mut Node)) {
        let mut inner = self.lock();
        let mut live: Vec<&mut Node> = inner.nodes.iter_mut().filter(|node| node.log.is_some()).collect();
        let at = random.random_range(0..live.len().max(1));
        if let Some(node) = live.get_mut(at) {
            act(node);
        }
    }

    /// All that live go on, and have a store: none that is paused stays so for ever.
    pub fn go_on(&self) {
        for node in self.lock().nodes.iter().filter(|node| node.log.is_some()) {
            node.chaos.set_paused(false);
            node.chaos.set_away(false);
        }
    }

    /// The faults of all nodes, the ended ones too.
    #[must_use]
    pub fn all_faults(&self) -> Vec<FaultStore> {
        self.lock().nodes.iter().map(|node| node.faults.clone()).collect()
    }

    /// Starts a process. `weather` and `faults` say how bad its way to the bucket is.
    ///
    /// # Errors
    /// Those of [`Log::open`].
    pub async fn start(self: &Arc<Self>, weather: Weather, faults_one_in: u32) -> Result<Handle, Error> {
        let number = u32::try_from(self.lock().nodes.len()).expect("a run has few nodes") + 1;
        let mut random = self.random("node", u64::from(number));
        let faults = FaultStore::over(Arc::clone(&self.bucket) as Arc<dyn ObjectStore>);
        if faults_one_in > 0 {
            faults.seeded(random.next_u64(), faults_one_in);
        }
        let watched = (Arc::clone(&self.trace), Arc::clone(&self.deletions));
        let seen = Chaos::new(Arc::new(faults.clone()), number, random.next_u64(), watched);
        seen.set_weather(weather);
        let options = self.options(&seen, &mut random);
        let (sweep_interval, grace) = (options.sweep_interval, options.delete_grace);
        self.deletions.set_grace(number, grace);
        let down = Arc::<Flag>::default();
        self.lock().nodes.push(Node { number, log: None, chaos: seen, faults, handle: None, down: Arc::clone(&down) });
        self.trace.line(&format!("n{number} starts"));
        let opened = Log::open(options).await;
        self.trace.line(&format!("n{number} start: {:?}", opened.as_ref().map(|_| ()).map_err(Error::kind)));
        let log = opened?;
        let reads_whole = weather.broken_read_one_in == 0;
        let handle = Handle { number, log: log.clone(), sweep_interval, grace, reads_whole, down };
        // What earlier nodes had in memory is gone.
        self.history.log(Event::Died { wiped: true });
        let mut inner = self.lock();
        // Of two starts at the same time, the one that comes through last has ended the other.
        inner.newest = number;
        inner.starts += 1;
        let node = &mut inner.nodes[number as usize - 1];
        (node.log, node.handle) = (Some(log), Some(handle.clone()));
        inner.watches.spawn(watch_end(Arc::clone(self), handle.clone()));
        Ok(handle)
    }

    fn options(&self, store: &Chaos, random: &mut StdRng) -> LogOptions {
        // What a cluster is made with comes from the seed, not from the node.
        let shards = self.random("shards", 0).random_range(1..=4);
        let mut options = LogOptions::new(ObjectStores::of(Arc::new(store.clone()), false));
        options.shards = shards;
        options.slot_bytes = random.random_range(512..8192);
        options.in_flight_max = random.random_range(1..=4);
        options.tail_bytes_max = if random.random() { 512 } else { 1 << 20 };
        options.append_timeout = Duration::from_secs(random.random_range(2..10));
        options.fence_check_interval = Duration::from_secs(random.random_range(1..15));
        let checkpoint_ms = if random.random_range(0..3) > 0 { 300..3000 } else { 3000..40_000 };
        options.checkpoint_interval = Duration::from_millis(random.random_range(checkpoint_ms));
        options.checkpoint_wal_bytes = random.random_range(4096..1 << 20);
        options.segment_bytes = random.random_range(4096..64 << 10);
        options.retention_interval = Duration::from_millis(random.random_range(500..5000));
        options.retention_partitions_max = random.random_range(1..6);
        options.sweep_interval = Duration::from_millis(random.random_range(200..4000));
        options.delete_grace = Duration::from_millis(random.random_range(100..3000));
        options.clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        options.rng = Arc::new(SeededRng(Mutex::new(StdRng::seed_from_u64(random.next_u64()))));
        options
    }

    /// A process is killed: nothing of it comes through any more, and whoever talks to it is cut off.
    pub fn kill(&self, number: u32) {
        let mut inner = self.lock();
        let Some(node) = inner.nodes.get_mut(number as usize - 1) else { return };
        if node.log.take().is_some() {
            self.trace.line(&format!("n{number} ends"));
            self.history.log(Event::Died { wiped: true });
        }
        node.chaos.set_paused(true);
        node.down.set(true);
    }

    /// Changes what is known of a document.
    pub fn document<T>(&self, key: &str, change: impl FnOnce(&mut Document) -> T) -> T {
        change(self.lock().documents.entry(key.to_owned()).or_default())
    }

    /// All documents, as their writers know them.
    #[must_use]
    pub fn documents(&self) -> BTreeMap<String, Document> {
        self.lock().documents.clone()
    }

    /// Stops watching the ends of nodes.
    pub fn stop_watching(&self) {
        self.lock().watches.abort_all();
    }

    /// Reads a partition at a node from an offset to the tail.
    ///
    /// # Errors
    /// Those of [`Log::read`].
    pub async fn read(handle: &Handle, partition: Partition, from: Offset) -> Result<Vec<Seen>, Error> {
        let tail = handle.log.bounds(partition)?.tail;
        let (mut seen, mut next) = (Vec::new(), from);
        while next < tail {
            let batches = handle.log.read(partition, next, 2048).await?;
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                let wanted = batch.records().filter(|record| record.offset >= next && record.offset < tail);
                seen.extend(wanted.map(|record| Seen::new(record.offset.0, &record.payload)));
                next = batch.next();
            }
        }
        Ok(seen)
    }

    /// All records of all partitions, as a node shows them, into the history.
    pub async fn view(&self, handle: &Handle) {
        for (partition, place) in self.partitions() {
            self.view_of(handle, partition, place).await;
        }
    }

    /// All records of one partition.
    pub async fn view_of(&self, handle: &Handle, partition: Partition, place: Place) {
        match Self::read_kept(handle, partition).await {
            Ok((start, records)) => {
                let count = records.len();
                self.trace.line(&format!("n{} view of {place}: {count} records from {start}", handle.number));
                self.history.log(Event::View { place, start: start.0, records, lost: Vec::new() });
            }
            Err(error) => self.wrong(format!("node {} cannot read {place}: {error}", handle.number)),
        }
    }

    /// All that is kept of a partition, and where it begins.
    async fn read_kept(handle: &Handle, partition: Partition) -> Result<(Offset, Vec<Seen>), Error> {
        loop {
            let start = handle.log.bounds(partition)?.start;
            match Self::read(handle, partition, start).await {
                // Retention does not wait for who looks around.
                Err(error) if error.kind() == Kind::OutOfRange && handle.log.bounds(partition)?.start > start => {}
                read => return Ok((start, read?)),
            }
        }
    }

    /// Objects that may go and that the node, which knows all of the log, does not need. What is of its own session is left
    /// out: it cannot be told from here what of it a start would replay.
    pub async fn not_needed(&self, handle: &Handle) -> Vec<Path> {
        let needed: BTreeSet<Path> = handle.log.needed_objects().unwrap_or_default().into_iter().collect();
        let own = format!("session/{}/", handle.log.session());
        let objects = self.bucket.list(None).try_collect::<Vec<_>>().await.unwrap_or_default();
        let may_go = |object: &object_store::ObjectMeta| {
            let name = object.location.as_ref();
            let is_segment = name.starts_with("segment/");
            let of_others = !name.starts_with(&own) && (name.contains("/wal/") || name.contains("/checkpoint/"));
            object.size > HEADER_BYTES && (is_segment || of_others)
        };
        let locations = objects.into_iter().filter(may_go).map(|object| object.location);
        locations.filter(|location| !needed.contains(location)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// The node for an actor, while it lives.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle.clone().filter(|_| self.log.is_some())
    }
}

impl Handle {
    /// What a call to the node comes to, or `None` when the node is killed before.
    pub async fn call<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.down.is(true) => None,
            answer = call => Some(answer),
        }
    }
}

/// A session may end by a fence that is there, by being closed, and by nothing else. Its process ends with it.
async fn watch_end(world: Arc<World>, handle: Handle) {
    let (session, number) = (handle.log.session(), handle.number);
    let Some(reason) = handle.call(handle.log.stopped()).await else { return };
    world.trace.line(&format!("n{number} stopped"));
    match reason {
        StopReason::Closed => {}
        StopReason::Broken(why) => world.wrong(format!("node {number} broke: {why}")),
        StopReason::Fenced(_) if has_fence(&world.bucket, session).await => {}
        StopReason::Fenced(why) => world.wrong(format!("node {number} says without a fence: {why}")),
    }
    // Who waits for it is answered first.
    sleep(Duration::from_millis(100)).await;
    world.kill(number);
}

/// Whether a session's log, or its list of checkpoints, has a fence: an object that is only a header.
async fn has_fence(bucket: &InMemory, session: SessionId) -> bool {
    let prefix = Path::from(format!("session/{session}"));
    let objects = bucket.list(Some(&prefix)).try_collect::<Vec<_>>().await.unwrap_or_default();
    let is_of_log = |path: &Path| path.as_ref().contains("/wal/") || path.as_ref().contains("/checkpoint/");
    objects.iter().any(|object| object.size == HEADER_BYTES && is_of_log(&object.location))
}

/// Whether an error says that nothing was stored.
#[must_use]
pub fn is_refusal(error: &Error) -> bool {
    !matches!(error.kind(), Kind::Unknown | Kind::Corrupt)
}
