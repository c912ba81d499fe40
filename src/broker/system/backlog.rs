//! Records of system topics that wait to be stored: bounded in number per topic and in bytes for all, never in the way of
//! who brings them. What does not fit is counted and told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plinth_storage::ids::TenantId;
use tokio::sync::Notify;

use crate::auth::{SystemTopic, TenantRef};

/// Most records that wait for one topic: one batch.
pub(super) const RECORDS_MAX: usize = 256;
/// Most bytes of records that wait for all topics.
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: Mutex<Waiting>,
    news: Notify,
}

/// What waits for one topic.
#[derive(Debug)]
pub(in crate::broker) struct Bundle {
    pub(in crate::broker) tenant: TenantRef,
    pub(in crate::broker) topic: SystemTopic,
    /// Encoded, oldest first.
    pub(in crate::broker) records: Vec<Vec<u8>>,
    /// How many did not fit.
    pub(in crate::broker) dropped: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// One for each topic that something waits for: as many as live tenants have, at most.
    bundles: HashMap<(TenantId, SystemTopic), Bundle>,
    order: VecDeque<(TenantId, SystemTopic)>,
    bytes: usize,
}

impl Backlog {
    /// Takes a record in; counts it when there is no room.
    pub(in crate::broker) fn push(&self, tenant: &TenantRef, topic: SystemTopic, record: Vec<u8>) {
        {
            let mut waiting = self.lock();
            let room = waiting.bytes + record.len() <= BYTES_MAX;
            let bundle = waiting.bundle(tenant, topic);
            if room && bundle.records.len() < RECORDS_MAX {
                let bytes = record.len();
                bundle.records.push(record);
                waiting.bytes += bytes;
            } else {
                bundle.dropped += 1;
            }
        }
        self.news.notify_one();
    }

    /// Whether something waits for the topic.
    pub(super) fn has(&self, tenant: TenantId, topic: SystemTopic) -> bool {
        self.lock().bundles.contains_key(&(tenant, topic))
    }

    /// Takes out what waits for up to `count` topics, the longest waiting first.
    pub(in crate::broker) fn take(&self, count: usize) -> Vec<Bundle> {
        let mut waiting = self.lock();
        let count = count.min(waiting.order.len());
        let names: Vec<_> = waiting.order.drain(..count).collect();
        let bundles: Vec<_> = names.iter().filter_map(|name| waiting.bundles.remove(name)).collect();
        waiting.bytes -= bundles.iter().map(Bundle::bytes).sum::<usize>();
        bundles
    }

    /// Takes back what could not be stored, before what came in since.
    pub(in crate::broker) fn give_back(&self, mut bundle: Bundle) {
        let mut waiting = self.lock();
        waiting.bytes += bundle.bytes();
        if let Some(since) = waiting.bundles.remove(&(bundle.tenant.id(), bundle.topic)) {
            bundle.dropped += since.dropped;
            let (records, room) = (since.records, RECORDS_MAX.saturating_sub(bundle.records.len()));
            let lost: usize = records.iter().skip(room).map(Vec::len).sum();
            waiting.bytes -= lost;
            bundle.dropped += records.len().saturating_sub(room) as u64;
            bundle.records.extend(records.into_iter().take(room));
        } else {
            waiting.order.push_back((bundle.tenant.id(), bundle.topic));
        }
        waiting.bundles.insert((bundle.tenant.id(), bundle.topic), bundle);
    }

    /// Resolves when something came in since it resolved last. Cancel safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bundle {
    fn bytes(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}

impl Waiting {
    fn bundle(&mut self, tenant: &TenantRef, topic: SystemTopic) -> &mut Bundle {
        let name = (tenant.id(), topic);
        let order = &mut self.order;
        self.bundles.entry(name).or_insert_with(|| {
            order.push_back(name);
            Bundle { tenant: tenant.clone(), topic, records: Vec::new(), dropped: 0 }
        })
    }
}
