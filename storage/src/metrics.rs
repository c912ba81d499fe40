//! What the core counts: requests and bytes of the object store by purpose, slots, and whether the store answers.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::path::Path;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cache::CacheCounters;
use crate::error::{Chain, Error};

/// How many tries in a row must fail before the store counts as away and publishes are refused at once.
const FAILURES_UNTIL_AWAY: u32 = 3;

/// What is written in amounts that count.
const PUT_PURPOSES: [&str; 3] = ["wal", "segment", "checkpoint"];

/// Labels of the object store's requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `put`, `get`, `list` or `delete`.
    pub operation: &'static str,
    /// `wal`, `segment`, `checkpoint`, `claim`, `session`, `probe` or `cluster`.
    pub purpose: &'static str,
}

/// How long something takes, in seconds; from half a millisecond to 16 seconds.
#[derive(Clone, Debug)]
pub struct Latency(Histogram);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.000_5, 2.0, 16)))
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl Latency {
    /// Notes one that began at `began` and ends now.
    pub(crate) fn since(&self, began: Instant) {
        self.0.observe(began.elapsed().as_secs_f64());
    }
}

/// Labels of the object store's latency.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperationLabels {
    /// `put`, `get`, `list` or `delete`.
    pub operation: &'static str,
}

/// Counters and gauges of the core.
#[derive(Clone, Debug, Default)]
pub struct StorageMetrics {
    /// Requests to the object store.
    pub requests: Family<RequestLabels, Counter>,
    /// Bytes to and from the object store.
    pub bytes: Family<RequestLabels, Counter>,
    /// How long requests to the object store take: until the answer, and for what comes as a stream until its end.
    pub store_latency: Family<OperationLabels, Latency>,
    /// From the sealing of a slot to its commit.
    pub flush_latency: Latency,
    /// Slots that were committed.
    pub slots: Counter,
    /// Records that were committed.
    pub records: Counter,
    /// Stored bytes of the records that were committed, without what the log adds.
    pub record_bytes: Counter,
    /// Windows of the WAL that were compacted.
    pub compactions: Counter,
    /// Segments that were written.
    pub segments: Counter,
    /// Bytes that went into segments, before compression.
    pub segment_content_bytes: Counter,
    /// Runs of batches that are read from a segment instead of where they were.
    pub linked_runs: Counter,
    /// Runs that were written to a segment in vain: they were deleted meanwhile.
    pub unlinked_runs: Counter,
    /// Partitions that were cleaned by key.
    pub cleanings: Counter,
    /// Bytes that were written to segments while partitions were cleaned.
    pub cleaning_bytes: Counter,
    /// Records that went because a later one has their key, or because they had deleted it.
    pub cleaned_records: Counter,
    /// Their stored bytes, before compression.
    pub cleaned_bytes: Counter,
    /// Small runs that were merged into larger ones.
    pub merged_runs: Counter,
    /// Segments that were not what went into them; they are not used.
    pub segment_mismatches: Counter,
    /// Moves of a partition's start that were committed.
    pub trims: Counter,
    /// Checkpoints that were written.
    pub checkpoints: Counter,
    /// Objects that were deleted because nothing needed them any more.
    pub deleted_objects: Counter,
    /// Their bytes.
    pub deleted_bytes: Counter,
    /// Objects that wait for their grace to pass, or to be deleted.
    pub pending_deletes: Gauge,
    /// WAL slots that were applied when the log was opened.
    pub replayed_slots: Gauge,
    /// Bytes that wait for their slot to be committed.
    pub pending_bytes: Gauge,
    /// Bytes of the committed tail in memory.
    pub tail_bytes: Gauge,
    /// 1 while the state is kept on the local disk, 0 while it is kept in memory.
    pub state_on_disk: Gauge,
    /// 1 when the object store answers, else 0.
    pub store_available: Gauge,
    /// Failed tries of object store writes.
    pub failed_puts: Counter,
    /// Gaps that starts have left.
    pub gaps: Counter,
    /// Offsets in them.
    pub gap_offsets: Counter,
    /// What is acknowledged and not stored.
    pub upload_lag: Arc<UploadLag>,
    /// Bytes that are read ahead of readers in order.
    pub read_ahead_bytes: Gauge,
    /// The page cache.
    pub page_cache: CacheCounters,
}

/// What is acknowledged and not stored yet, looked up when it is asked for: it grows while nothing happens.
#[derive(Default)]
pub struct UploadLag {
    look: OnceLock<Box<dyn Fn() -> Lag + Send + Sync>>,
}

/// How much is acknowledged and not stored yet, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// About how many bytes.
    pub bytes: u64,
    /// The age of the oldest.
    pub age: Duration,
}

impl UploadLag {
    /// What it is now.
    #[must_use]
    pub fn now(&self) -> Lag {
        self.look.get().map(|look| look()).unwrap_or_default()
    }

    pub(crate) fn look_by(&self, look: impl Fn() -> Lag + Send + Sync + 'static) {
        // A second log on the same metrics does not exist.
        let _first = self.look.set(Box::new(look));
    }
}

impl fmt::Debug for UploadLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

impl Collector for UploadLag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let lag = self.now();
        let seconds = ConstGauge::new(lag.age.as_secs_f64());
        let help = "Age of the oldest record that is acknowledged and not stored";
        let metric = encoder.encode_descriptor("plinth_upload_lag_seconds", help, None, seconds.metric_type())?;
        seconds.encode(metric)?;
        let bytes = ConstGauge::new(i64::try_from(lag.bytes).unwrap_or(i64::MAX));
        let help = "Bytes that are acknowledged and not stored";
        let metric = encoder.encode_descriptor("plinth_upload_lag_bytes", help, None, bytes.metric_type())?;
        bytes.encode(metric)
    }
}

impl StorageMetrics {
    /// Bytes that were written to the object store so far.
    pub(crate) fn put_bytes(&self) -> u64 {
        let written = |purpose| self.bytes.get_or_create(&RequestLabels { operation: "put", purpose }).get();
        PUT_PURPOSES.map(written).iter().sum()
    }

    /// Adds all of them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("plinth_object_store_requests", "Requests to the object store", self.requests.clone());
        r.register("plinth_object_store_bytes", "Bytes to and from the object store", self.bytes.clone());
        let help = "How long requests to the object store take";
        r.register("plinth_object_store_duration_seconds", help, self.store_latency.clone());
        let help = "From the sealing of a slot to its commit";
        r.register("plinth_flush_duration_seconds", help, self.flush_latency.clone());
        r.register("plinth_wal_slots", "Committed WAL slots", self.slots.clone());
        r.register("plinth_wal_records", "Committed records", self.records.clone());
        r.register("plinth_wal_record_bytes", "Stored bytes of committed records", self.record_bytes.clone());
        r.register("plinth_compactions", "Windows of the WAL compacted", self.compactions.clone());
        r.register("plinth_segments", "Segments written", self.segments.clone());
        r.register("plinth_segment_content_bytes", "Bytes into segments", self.segment_content_bytes.clone());
        r.register("plinth_segment_linked_runs", "Runs that segments took over", self.linked_runs.clone());
        r.register("plinth_segment_unlinked_runs", "Runs deleted before their segment", self.unlinked_runs.clone());
        r.register("plinth_segment_merged_runs", "Small runs merged into larger ones", self.merged_runs.clone());
        r.register("plinth_cleanings", "Partitions cleaned by key", self.cleanings.clone());
        r.register("plinth_cleaning_bytes", "Bytes written by cleaning", self.cleaning_bytes.clone());
        r.register("plinth_cleaned_records", "Records gone by cleaning", self.cleaned_records.clone());
        r.register("plinth_cleaned_bytes", "Stored bytes of these records", self.cleaned_bytes.clone());
        r.register("plinth_segment_mismatches", "Segments not used: wrong content", self.segment_mismatches.clone());
        r.register("plinth_trims", "Committed moves of a partition's start", self.trims.clone());
        r.register("plinth_checkpoints", "Checkpoints written", self.checkpoints.clone());
        r.register("plinth_deleted_objects", "Objects deleted", self.deleted_objects.clone());
        r.register("plinth_deleted_bytes", "Bytes of objects deleted", self.deleted_bytes.clone());
        r.register("plinth_pending_deletes", "Objects that wait to be deleted", self.pending_deletes.clone());
        r.register("plinth_replayed_slots", "WAL slots applied at start", self.replayed_slots.clone());
        r.register("plinth_pending_bytes", "Bytes that wait for their slot", self.pending_bytes.clone());
        r.register("plinth_tail_bytes", "Bytes of the committed tail in memory", self.tail_bytes.clone());
        r.register("plinth_state_on_disk", "1 while the state is on the local disk", self.state_on_disk.clone());
        r.register("plinth_store_available", "1 when the object store answers", self.store_available.clone());
        r.register("plinth_object_store_failed_puts", "Failed tries of writes", self.failed_puts.clone());
        r.register("plinth_gaps", "Gaps that starts have left, of records that may be lost", self.gaps.clone());
        r.register("plinth_gap_offsets", "Offsets in these gaps", self.gap_offsets.clone());
        r.register_collector(Box::new(Arc::clone(&self.upload_lag)));
        r.register("plinth_read_ahead_bytes", "Bytes read ahead of readers", self.read_ahead_bytes.clone());
        self.page_cache.register(r);
    }
}

/// Whether the object store answers. Decides only whether a publish is refused at once, never whether one is safe.
#[derive(Debug)]
pub(crate) struct Health {
    away: AtomicBool,
    failures: AtomicU32,
    generation: AtomicU64,
    changed: Notify,
    metrics: StorageMetrics,
}

impl Health {
    pub(crate) fn new(metrics: StorageMetrics) -> Self {
        metrics.store_available.set(1);
        Self {
            away: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            changed: Notify::new(),
            metrics,
        }
    }

    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Counts definite answers; lets the idle check see whether the log moved.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits until the store went away or came back. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn put_succeeded(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.failures.store(0, Ordering::Release);
        if self.away.swap(false, Ordering::AcqRel) {
            self.metrics.store_available.set(1);
            tracing::info!("object store answers again");
            self.changed.notify_one();
        }
    }

    pub(crate) fn put_failed(&self, path: &Path, error: &Error) {
        self.metrics.failed_puts.inc();
        let failures = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        let error = Chain(error);
        if failures >= FAILURES_UNTIL_AWAY && !self.away.swap(true, Ordering::AcqRel) {
            self.metrics.store_available.set(0);
            tracing::warn!(%path, %error, "object store is away, publishes are refused until it answers");
            self.changed.notify_one();
        } else {
            tracing::debug!(%path, %error, "object store write failed, trying again");
        }
    }
}
