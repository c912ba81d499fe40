//! What a tenant keeps: its topics, which are counted once and then followed exactly, and its stored bytes, which are
//! counted anew from time to time: retention and deletion take them away by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plinth_api::quotas::Quota;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Exceeded, Meter, Whose};

/// So many times as long as a count took the next one waits at least.
const COUNT_REST: u64 = 10;

/// The counters; nothing is known before they are counted once.
#[derive(Debug, Default)]
pub(in crate::broker) struct Kept {
    topics: AtomicU64,
    bytes: AtomicU64,
    /// When the bytes were counted, on the clock of the buckets.
    counted_at: AtomicU64,
    /// Whether something was deleted since.
    stale: AtomicBool,
    /// How long that took, in nanoseconds.
    count_took: AtomicU64,
    /// Whether the topics are counted.
    counted: AtomicBool,
    /// Held by who counts: one at a time.
    pub(in crate::broker) counting: Mutex<()>,
}

/// A topic that is being made counts until this is dropped, or for good.
#[derive(Debug)]
pub(in crate::broker) struct TopicPlace {
    meter: Arc<Meter>,
    kept: bool,
}

impl Kept {
    pub(in crate::broker) fn topics(&self) -> Option<u64> {
        self.counted.load(Ordering::Acquire).then(|| self.topics.load(Ordering::Relaxed))
    }

    fn less_topics(&self, less: u64) {
        // A topic that was made by a request of unknown outcome may be in no count.
        let rest = |topics: u64| Some(topics.saturating_sub(less));
        let (Ok(_) | Err(_)) = self.topics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
    }

    pub(in crate::broker) fn bytes(&self) -> Option<u64> {
        self.counted.load(Ordering::Acquire).then(|| self.bytes.load(Ordering::Relaxed))
    }
}

impl Meter {
    pub(in crate::broker) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Notes how many topics there are: before any of them is made or deleted.
    pub(in crate::broker) fn count_topics(&self, topics: u64) {
        self.kept.topics.store(topics, Ordering::Relaxed);
        self.kept.counted.store(true, Ordering::Release);
    }

    /// Notes that it is not known any more how many topics there are.
    pub(in crate::broker) fn lose_count(&self) {
        self.kept.counted.store(false, Ordering::Release);
        self.kept.stale.store(true, Ordering::Relaxed);
    }

    /// Notes how many bytes are stored, and since when that was looked for.
    pub(in crate::broker) fn count_bytes(&self, bytes: u64, since: Instant) {
        let took = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.kept.count_took.store(took, Ordering::Relaxed);
        self.kept.stale.store(false, Ordering::Relaxed);
        self.kept.bytes.store(bytes, Ordering::Relaxed);
        self.kept.counted_at.store(self.at(Instant::now()), Ordering::Relaxed);
    }

    /// Notes that bytes were stored.
    pub(in crate::broker) fn stored(&self, bytes: u64) {
        self.kept.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that something was deleted.
    pub(in crate::broker) fn deleted(&self, topics: u64) {
        self.kept.less_topics(topics);
        self.kept.stale.store(true, Ordering::Relaxed);
    }

    /// Whether the bytes should be counted again by who does not want them to be older than `age`.
    pub(in crate::broker) fn is_older_than(&self, age: Duration) -> bool {
        let since = self.at(Instant::now()).saturating_sub(self.kept.counted_at.load(Ordering::Relaxed));
        // Whatever is asked, no more than a tenth of the time goes into counting.
        let took = self.kept.count_took.load(Ordering::Relaxed);
        let is_stale = self.kept.stale.load(Ordering::Relaxed) || Duration::from_nanos(since) > age;
        is_stale && since >= took.saturating_mul(COUNT_REST)
    }

    /// Counts a topic that is to be made.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(in crate::broker) fn topic(self: &Arc<Self>) -> Result<TopicPlace, Exceeded> {
        let limit = self.limit(Quota::Topics).unwrap_or(u64::MAX);
        let one_more = |topics: u64| (topics < limit).then_some(topics + 1);
        match self.kept.topics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(TopicPlace { meter: Arc::clone(self), kept: false }),
            Err(_) => Err(Exceeded::held(Quota::Topics, Whose::Tenant, limit)),
        }
    }

    /// Whether more may be stored without a count: nothing is limited, or there is room by one that is not older than
    /// `age`.
    pub(in crate::broker) fn has_room(&self, age: Duration) -> bool {
        let Some(limit) = self.limit(Quota::StorageBytes) else { return true };
        self.kept.bytes().is_some_and(|bytes| bytes < limit) && !self.is_older_than(age)
    }

    /// Whether more may be stored, as far as it is counted.
    ///
    /// # Errors
    /// When as much is stored as may be.
    pub(in crate::broker) fn check_bytes(&self) -> Result<(), Exceeded> {
        match self.limit(Quota::StorageBytes).zip(self.kept.bytes()) {
            Some((limit, bytes)) if bytes >= limit => Err(Exceeded::held(Quota::StorageBytes, Whose::Tenant, limit)),
            Some(_) | None => Ok(()),
        }
    }
}

impl TopicPlace {
    /// The topic is made.
    pub(in crate::broker) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for TopicPlace {
    fn drop(&mut self) {
        if !self.kept {
            self.meter.kept.less_topics(1);
        }
    }
}
