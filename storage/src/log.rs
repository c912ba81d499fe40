//! The façade of the log core: the only type that the gateway calls.
//!
//! It opens a session on a bucket, appends batches and commits state changes through its write-ahead log, and reads what
//! is committed. It knows nothing of names, tokens or formats of clients.

mod append;
mod cleanup;
mod fork;
mod reading;
mod stream;
#[cfg(feature = "testing")]
mod testing;
mod trim;
mod upkeep;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use ulid::Ulid;

pub use self::append::Placed;
pub use self::fork::Sub;
pub use self::reading::TopicBounds;
pub use self::stream::Stepped;
use crate::ahead::ReadAhead;
use crate::cache::{PageCache, PageCacheOptions};
use crate::durability::Durability;
use crate::env::{Clock, Rng, SystemClock, SystemRng, apart, new_ulid};
use crate::error::{Error, Kind, Result};
use crate::feed::{Feeds, Follow};
use crate::ids::{ClusterId, Epoch, Offset, Partition, SessionId, Timestamp};
use crate::layout;
use crate::meter;
use crate::metrics::{Health, StorageMetrics};
use crate::open;
use crate::read::Reader;
use crate::retention::Keeper;
pub use crate::retention::Retention;
use crate::segment::compaction::{self, Compactor};
use crate::segment::read::SegmentCache;
pub use crate::shard::changes::{Change, DocOp, Guard, TopicOp};
use crate::shard::checkpoint::{Checkpointer, Checkpoints};
pub use crate::shard::fork::{FORK_DEPTH_MAX, ForkPoint};
use crate::shard::sweep::{self, Sweeper};
use crate::shard::takeover::{Plan, Starter};
use crate::state::StateStore;
use crate::store::{self, ObjectStores};
use crate::tail::Tail;
pub use crate::wal::buffer::stream::First;
use crate::wal::journal::Journal;
use crate::wal::journal::files::Owner;
use crate::wal::pipeline::{IN_FLIGHT_MAX, Pipeline};
use crate::wal::recover;
pub use crate::wal::writer::StopReason;
use crate::wal::writer::{Writer, WriterParts};

/// Shards of a new cluster when nothing else is asked for.
pub const SHARDS_DEFAULT: u16 = 16;
/// Most shards of a cluster.
pub const SHARDS_MAX: u16 = 1024;

const REMOTE_FLUSH_INTERVAL: Duration = Duration::from_millis(50);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);
/// A start that had to walk so many logs writes a checkpoint at once, so that the next one need not.
const LOGS_UNTIL_CHECKPOINT: usize = 4;
/// So much of the memory for pages is for what was decompressed of segments.
const SEGMENT_MEMORY_SHARE: u64 = 4;

/// How a log behaves. Bounds are in bytes.
#[derive(Clone)]
pub struct LogOptions {
    /// The bucket.
    pub stores: ObjectStores,
    /// Where the local caches live; `None` keeps the state in memory.
    pub cache_dir: Option<PathBuf>,
    /// The name of this node, for people.
    pub node: String,
    /// Shards of the cluster when it is created by this start; ignored later.
    pub shards: u16,
    /// A slot is sealed when its oldest entry has waited so long; `None`: only when the slot before is stored.
    pub flush_interval: Option<Duration>,
    /// A slot is sealed when it holds so much.
    pub slot_bytes: usize,
    /// Most slots in flight.
    pub in_flight_max: usize,
    /// Most bytes that wait to be stored; more are refused as `Busy`.
    pub pending_bytes_max: usize,
    /// Most bytes that are acknowledged before they are stored; more wait, and are refused as `Busy`.
    pub unstored_bytes_max: usize,
    /// When the oldest of them has waited so long, later ones wait, and are refused as `Busy`.
    pub unstored_age_max: Duration,
    /// After this an append whose slot has no answer fails as `Unknown`.
    pub append_timeout: Duration,
    /// How often an idle session looks whether it was ended.
    pub fence_check_interval: Duration,
    /// Most bytes of the committed tail in memory.
    pub tail_bytes_max: usize,
    /// Most bytes of pages in memory, a quarter of it for what was decompressed of segments; and as many again that are
    /// read ahead of readers in order.
    pub page_memory_bytes: u64,
    /// Most bytes of pages on the SSD.
    pub page_disk_bytes: u64,
    /// A checkpoint is written at least this often while there is something new.
    pub checkpoint_interval: Duration,
    /// A checkpoint is written after so many bytes of WAL.
    pub checkpoint_wal_bytes: u64,
    /// About how much of the WAL is compacted at a time; twice as much is in memory then.
    pub segment_bytes: u64,
    /// Segments are merged as long as no more than so many bytes are written for 100 bytes of records.
    pub write_percent_max: u64,
    /// The time from one turn of retention to the next.
    pub retention_interval: Duration,
    /// Partitions of topics with a retention that one turn looks at.
    pub retention_partitions_max: usize,
    /// How often topics that are cleaned by key are looked through, besides after a compaction.
    pub clean_interval: Duration,
    /// Most keys that are held in memory while partitions are cleaned, about 50 bytes each; a partition with more is cleaned in
    /// several passes.
    pub clean_keys_max: usize,
    /// How often the bucket is looked through for objects that nothing needs any more, while there are new checkpoints.
    pub sweep_interval: Duration,
    /// So long after the first checkpoint that does not need it an object is still there, for those who read it.
    pub delete_grace: Duration,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The random numbers.
    pub rng: Arc<dyn Rng>,
}

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub base: Offset,
    /// How many records have consecutive offsets from there.
    pub count: u32,
    /// The server's time of the batch.
    pub timestamp: Timestamp,
    /// Whether it was an append that had been accepted before: nothing was stored by this one.
    pub duplicate: bool,
    /// The durability class that was reached; not a weaker one than was asked for.
    pub durability: Durability,
}

/// The bounds of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub start: Offset,
    /// The end of what may be read: what is committed, and what is acknowledged before that.
    pub tail: Offset,
    /// Stored bytes that are kept; the run that `start` is in counts whole.
    pub bytes: u64,
    /// The time of the last stored record.
    pub last_timestamp: Timestamp,
    /// Whether nothing is appended to it any more.
    pub closed: bool,
}

/// How the log is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether the object store answers; while it does not, appends are refused.
    pub available: bool,
}

/// A log, opened. Clones share it.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: ClusterId,
    session: SessionId,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    writer: Arc<Writer>,
    reader: Arc<Reader>,
    ahead: ReadAhead,
    state: Arc<dyn StateStore>,
    feeds: Arc<Feeds>,
    health: Arc<Health>,
    metrics: StorageMetrics,
    tasks: Mutex<Option<JoinSet<()>>>,
    checkpoints: Checkpoints,
    compaction: mpsc::Sender<compaction::Request>,
    sweeps: mpsc::Sender<sweep::Request>,
    /// Held for as long as the caches of the directory are in use.
    _cache_lock: Option<Arc<std::fs::File>>,
}

impl LogOptions {
    /// Options with a default for everything but the bucket.
    #[must_use]
    pub fn new(stores: ObjectStores) -> Self {
        let local = stores.local;
        Self {
            stores,
            cache_dir: None,
            node: "node".to_owned(),
            shards: SHARDS_DEFAULT,
            flush_interval: (!local).then_some(REMOTE_FLUSH_INTERVAL),
            slot_bytes: 4 * 1024 * 1024,
            in_flight_max: IN_FLIGHT_MAX,
            pending_bytes_max: 64 * 1024 * 1024,
            unstored_bytes_max: 256 * 1024 * 1024,
            unstored_age_max: Duration::from_secs(5),
            append_timeout: Duration::from_secs(10),
            fence_check_interval: Duration::from_secs(if local { 2 } else { 15 }),
            tail_bytes_max: 64 * 1024 * 1024,
            page_memory_bytes: 64 * 1024 * 1024,
            page_disk_bytes: 8 * 1024 * 1024 * 1024,
            checkpoint_interval: Duration::from_secs(60),
            checkpoint_wal_bytes: 64 * 1024 * 1024,
            segment_bytes: 64 * 1024 * 1024,
            write_percent_max: 240,
            retention_interval: Duration::from_secs(10),
            retention_partitions_max: 10_000,
            clean_interval: Duration::from_secs(60),
            clean_keys_max: 1 << 20,
            sweep_interval: Duration::from_secs(60 * 60),
            delete_grace: Duration::from_secs(10 * 60),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
        }
    }
}

impl Log {
    /// Opens a session: tries the store, ends the sessions before, claims every shard, restores the state.
    ///
    /// # Errors
    /// `Invalid` when the store does not keep create-if-absent or is of another format, `Fenced` when another start was
    /// faster, `Unavailable` or `Unknown` when the store does not answer, `Corrupt` when the chain in it is broken,
    /// `Busy` when another process holds the cache directory.
    pub async fn open(options: LogOptions) -> Result<Self> {
        let metrics = StorageMetrics::default();
        let mut options = options;
        options.stores = meter::metered(&options.stores, &metrics);
        let session = SessionId(new_ulid(&*options.clock, &*options.rng));
        store::probe(&options.stores, &layout::probe(session)).await?;
        let health = Arc::new(Health::new(metrics.clone()));
        let (cluster, shards) = open::open_cluster(&options, &health, session).await?;
        open::write_session_meta(&options, &health, session).await?;
        let starter = Starter { stores: &options.stores, health: &health, cluster, session, shards };
        let plan = starter.claim_all().await?;
        let cache_lock = open::lock_cache(options.cache_dir.as_deref()).await?;
        let (state, restored) = open::restore_state(&starter, &plan, options.cache_dir.as_deref(), &metrics).await?;
        metrics.replayed_slots.set(i64::try_from(restored.slots).unwrap_or(i64::MAX));
        tracing::info!(%session, slots = restored.slots, bytes = restored.bytes, "state is restored");
        let epoch = plan.catalog_epoch();
        let cache_lock = cache_lock.map(Arc::new);
        let log =
            Self::start(&options, (cluster, session, shards, epoch), (state, cache_lock.clone()), (health, metrics));
        log.acquire(&plan).await?;
        let journal_dir = options.cache_dir.filter(|_| cache_lock.is_some()).map(|dir| dir.join("journal"));
        recover::recover(&log.inner.writer, cluster, journal_dir.as_deref()).await?;
        if let Some(dir) = journal_dir {
            log.begin_journal(dir, Owner { cluster, session }, cache_lock).await;
        }
        if plan.sessions() >= LOGS_UNTIL_CHECKPOINT || restored.bytes >= options.checkpoint_wal_bytes {
            log.request_checkpoint();
        }
        Ok(log)
    }

    fn start(
        options: &LogOptions,
        (cluster, session, shards, epoch): (ClusterId, SessionId, u16, Epoch),
        (state, cache_lock): (Arc<dyn StateStore>, Option<Arc<std::fs::File>>),
        (health, metrics): (Arc<Health>, StorageMetrics),
    ) -> Self {
        let tail = Arc::new(Tail::new(options.tail_bytes_max));
        let feeds = Arc::<Feeds>::default();
        let parts = WriterParts {
            stores: options.stores.clone(),
            state: Arc::clone(&state),
            tail: Arc::clone(&tail),
            feeds: Arc::clone(&feeds),
            health: Arc::clone(&health),
            metrics: metrics.clone(),
            journal: cache_lock.as_ref().map(|_| Arc::new(Journal::new())),
            clock: Arc::clone(&options.clock),
        };
        let (compactor, compaction) = Compactor::new(options, (session, shards), &parts);
        let (checkpointer, checkpoints) = Checkpointer::new(options, session, &parts);
        let (sweeper, sweeps) =
            Sweeper::new(options, (session, epoch), &parts, (checkpoints.clone(), compactor.unsettled()));
        let writer = Writer::new(append::writer_options(options, cluster, (session, epoch), shards), parts);
        let weak = Arc::downgrade(&writer);
        metrics.upload_lag.look_by(move || weak.upgrade().map(|writer| writer.upload_lag()).unwrap_or_default());
        let mut tasks = JoinSet::new();
        tasks.spawn(Pipeline::new(Arc::clone(&writer)).run());
        tasks.spawn(Keeper::new(options, &writer, &state).run());
        tasks.spawn(checkpointer.run(Arc::clone(&writer)));
        tasks.spawn(compactor.run(Arc::clone(&writer)));
        tasks.spawn(sweeper.run(Arc::clone(&writer)));
        let pages_dir = options.cache_dir.as_ref().filter(|_| !options.stores.local).map(|dir| dir.join("pages"));
        let segment_memory_bytes = options.page_memory_bytes / SEGMENT_MEMORY_SHARE;
        let pages = PageCacheOptions {
            dir: pages_dir,
            memory_bytes: options.page_memory_bytes - segment_memory_bytes,
            disk_bytes: options.page_disk_bytes,
            local: options.stores.local,
        };
        let cache = PageCache::open(pages, Arc::clone(&options.stores.read));
        let metrics = StorageMetrics { page_cache: cache.counters(), ..metrics };
        let segments = SegmentCache::new(segment_memory_bytes, &options.stores);
        let reader = Arc::new(Reader { state: Arc::clone(&state), tail, cache, segments });
        let ahead = ReadAhead::new(Arc::clone(&reader), options.page_memory_bytes, metrics.read_ahead_bytes.clone());
        let inner = Inner {
            cluster,
            session,
            clock: Arc::clone(&options.clock),
            rng: Arc::clone(&options.rng),
            writer,
            reader,
            ahead,
            state,
            feeds,
            health,
            metrics,
            tasks: Mutex::new(Some(tasks)),
            checkpoints,
            compaction,
            sweeps,
            _cache_lock: cache_lock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The first entry of the log: who owns which shard from here on. Learns at once when the session was ended already.
    async fn acquire(&self, plan: &Plan) -> Result<()> {
        self.inner.writer.commit_entries(plan.acquire_entries()).await
    }

    /// Commits a change of documents and topics, whole or not at all. Cancel safe as [`Log::append`].
    ///
    /// # Errors
    /// `Conflict` when a guard does not hold, else as [`Log::append`].
    pub async fn commit(&self, change: Change) -> Result<()> {
        self.inner.writer.change(&change).await
    }

    /// The committed document under `key`.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.state.get(&layout::document_key(key))
    }

    /// Committed documents whose key begins with `prefix` and comes after `after`, ascending, at most `limit`.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut from = BytesMut::from(&layout::document_key(after.unwrap_or(prefix))[..]);
        if after.is_some() {
            from.put_u8(0);
        }
        let rows = self.inner.state.scan(&from, &layout::document_prefix_end(prefix), limit)?;
        Ok(rows.into_iter().map(|(key, value)| (layout::document_of(&key), value)).collect())
    }

    /// The bounds of a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub fn bounds(&self, partition: Partition) -> Result<Bounds> {
        let (row, tail, closed) = self.inner.writer.seen(partition)?;
        Ok(Bounds { start: row.start, tail, bytes: row.bytes, last_timestamp: row.last_timestamp, closed })
    }

    /// Something that tells when partitions move.
    #[must_use]
    pub fn follow(&self) -> Follow {
        self.inner.feeds.follow()
    }

    /// The time, by this log's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// A new identifier, never given before.
    #[must_use]
    pub fn new_ulid(&self) -> Ulid {
        new_ulid(&*self.inner.clock, &*self.inner.rng)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.inner.cluster
    }

    /// This session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.inner.session
    }

    /// How the log is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { available: !self.inner.health.is_away() }
    }

    /// Counters and gauges.
    #[must_use]
    pub fn metrics(&self) -> &StorageMetrics {
        &self.inner.metrics
    }

    /// Resolves when the log takes nothing more, with the reason. Cancel safe.
    pub async fn stopped(&self) -> StopReason {
        self.inner.writer.stopped().await
    }

    /// Takes nothing new, stores what was taken, ends the tasks, and lets go of the local state: whoever still looks at the log is
    /// answered `Closed`. Dropped before its end, it ends them at once.
    ///
    /// # Errors
    /// `Unknown` when the store did not answer in time for what was in flight.
    pub async fn close(&self) -> Result<()> {
        self.inner.writer.close();
        self.inner.ahead.clear();
        let tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut tasks) = tasks else { return Ok(()) };
        // Without the tasks nobody else tells those who wait behind what is under way.
        let answered = Answered(&self.inner.writer);
        let ended = tokio::time::timeout(CLOSE_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.shutdown().await;
        drop(answered);
        let state = Arc::clone(&self.inner.state);
        let flush = move || {
            let flushed = state.flush();
            state.close();
            flushed
        };
        if let Err(error) = apart("flushing the local state", flush).await {
            tracing::warn!(%error, "local state was not flushed, the next start replays more");
        }
        ended.map_err(|_| Error::new(Kind::Unknown, format!("store gave no answer within {CLOSE_TIMEOUT:?}")))
    }
}

/// Tells all who wait for the writer, when it goes, that the log is closed.
struct Answered<'a>(&'a Writer);

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.0.stop(StopReason::Closed);
    }
}

/// A log that is not closed, as that of a node that is asked a second time to stop, leaves nobody in its local state either.
impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        self.state.close();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("session", &self.inner.session).finish_non_exhaustive()
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the log is closed"),
            Self::Fenced(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}
