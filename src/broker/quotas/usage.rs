//! What a tenant, or a key with quotas, has used on this node since its start, and what it has open.
//!
//! Counting takes no lock, and nothing is ever counted down but what is open: whoever writes the usage of a minute takes
//! the difference of two looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plinth_api::quotas::Quota;

use super::{Exceeded, Meter, Meters, Whose};

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Usage {
    requests: AtomicU64,
    records_published: AtomicU64,
    bytes_published: AtomicU64,
    records_delivered: AtomicU64,
    bytes_delivered: AtomicU64,
}

/// What is open.
#[derive(Debug, Default)]
pub(super) struct OpenCount {
    connections: AtomicU64,
    followers: AtomicU64,
}

/// One look at the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageFigures {
    /// Requests, and frames of WebSockets that ask for something.
    pub requests: u64,
    /// Records that were stored.
    pub records_published: u64,
    /// Their bytes: payloads, keys, headers and content types.
    pub bytes_published: u64,
    /// Records that were sent to readers.
    pub records_delivered: u64,
    /// Their bytes, as they are stored.
    pub bytes_delivered: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Live streams and subscriptions that are open.
    pub followers: u64,
}

/// What can be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenThing {
    Connection,
    Follower,
}

/// A connection or follower that counts as open until this is dropped.
#[derive(Debug)]
pub struct Opened {
    tenant: Arc<OpenCount>,
    key: Option<Arc<OpenCount>>,
    thing: OpenThing,
}

impl Usage {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn published(&self, records: u64, bytes: u64) {
        self.records_published.fetch_add(records, Ordering::Relaxed);
        self.bytes_published.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self, records: u64, bytes: u64) {
        self.records_delivered.fetch_add(records, Ordering::Relaxed);
        self.bytes_delivered.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn figures(&self, open: &OpenCount) -> UsageFigures {
        let look = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UsageFigures {
            requests: look(&self.requests),
            records_published: look(&self.records_published),
            bytes_published: look(&self.bytes_published),
            records_delivered: look(&self.records_delivered),
            bytes_delivered: look(&self.bytes_delivered),
            connections: look(&open.connections),
            followers: look(&open.followers),
        }
    }
}

impl OpenCount {
    /// Counts one more, unless as many are open as `meter` allows.
    pub(super) fn open(&self, thing: OpenThing, meter: Option<&Meter>, whose: Whose) -> Result<(), Exceeded> {
        let quota = match thing {
            OpenThing::Connection => Quota::Connections,
            OpenThing::Follower => Quota::Followers,
        };
        let limit = meter.and_then(|meter| meter.limit(quota)).unwrap_or(u64::MAX);
        let one_more = |open: u64| (open < limit).then_some(open + 1);
        match self.of(thing).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Exceeded::held(quota, whose, limit)),
        }
    }

    fn close(&self, thing: OpenThing) {
        self.of(thing).fetch_sub(1, Ordering::Relaxed);
    }

    fn of(&self, thing: OpenThing) -> &AtomicU64 {
        match thing {
            OpenThing::Connection => &self.connections,
            OpenThing::Follower => &self.followers,
        }
    }
}

impl Opened {
    pub(super) fn count(meters: Meters<'_>, thing: OpenThing) -> Result<Self, Exceeded> {
        let tenant = &meters.tenant.open;
        tenant.open(thing, Some(meters.tenant), Whose::Tenant)?;
        let key = meters.key.map(|key| (key.open_count(), key.meter()));
        if let Some((key, meter)) = key {
            key.open(thing, meter.map(Arc::as_ref), Whose::Key).inspect_err(|_| tenant.close(thing))?;
        }
        Ok(Self { tenant: Arc::clone(tenant), key: key.map(|(key, _)| Arc::clone(key)), thing })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.tenant.close(self.thing);
        if let Some(key) = &self.key {
            key.close(self.thing);
        }
    }
}
