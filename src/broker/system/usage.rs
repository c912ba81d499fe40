//! What tenants use, by minutes: the difference of two looks at their meters. Who used nothing has no record.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_api::system::Usage;
use plinth_storage::ids::TenantId;
use tokio::time::Instant;

use super::{System, encode};
use crate::auth::{SystemTopic, TenantRef};
use crate::broker::UsageFigures;
use crate::broker::error::Error;

/// How long a count of stored bytes is good for, at least.
const STORED_FOR: Duration = Duration::from_secs(1);

/// Where the minute of each tenant began.
#[derive(Debug)]
pub(super) struct Minutes {
    began: Mutex<Began>,
}

#[derive(Debug)]
struct Began {
    /// That of a tenant which is not in `looks`.
    at: u64,
    /// Of tenants that were used since the start of the node.
    looks: HashMap<TenantId, Look>,
}

/// One look at a meter.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    at: u64,
    figures: UsageFigures,
}

/// What a tenant has stored, and how long that is good for.
#[derive(Debug)]
pub(super) struct Stored {
    bytes: u64,
    until: Instant,
}

impl Minutes {
    pub(super) fn begin(at: u64) -> Self {
        Self { began: Mutex::new(Began { at, looks: HashMap::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Began> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Began {
    fn of(&self, tenant: TenantId) -> Look {
        self.looks.get(&tenant).copied().unwrap_or(Look { at: self.at, figures: UsageFigures::default() })
    }
}

impl System {
    /// What the tenant has used since its last record in `_usage`.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn usage_now(&self, tenant: &TenantRef) -> Result<Usage, Error> {
        let storage_bytes = self.stored_bytes(tenant).await?;
        // Before the meter: a minute that ends in between would begin after this look.
        let since = self.0.minutes.lock().of(tenant.id());
        let now = Look { at: self.0.broker.log().now().0, figures: tenant.meter().usage() };
        Ok(Usage { storage_bytes, ..used(since, now) })
    }

    /// Has a record for each tenant that used something stored soon after. One whose record before still waits gets a
    /// longer one later.
    pub(super) async fn end_usage(&self) {
        let tenants = self.0.auth.used_tenants();
        for tenant in &tenants {
            if self.backlog().has(tenant.id(), SystemTopic::Usage) {
                continue;
            }
            let since = self.0.minutes.lock().of(tenant.id());
            let now = Look { at: self.0.broker.log().now().0, figures: tenant.meter().usage() };
            let usage = used(since, now);
            if is_some(&usage) {
                let storage_bytes = match self.stored_or_told(tenant).await {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        tracing::error!(%error, "what a tenant has stored could not be counted");
                        continue;
                    }
                };
                self.backlog().push(tenant, SystemTopic::Usage, encode(&Usage { storage_bytes, ..usage }));
            }
            self.0.minutes.lock().looks.insert(tenant.id(), now);
        }
        self.0.stored.lock().await.clear();
        let mut began = self.0.minutes.lock();
        began.at = self.0.broker.log().now().0;
        if began.looks.len() > tenants.len() {
            began.looks.retain(|id, _| tenants.iter().any(|tenant| tenant.id() == *id));
        }
    }

    /// Stored bytes of the tenant's topics. All of its partitions are looked at: so one tenant at a time, and the sum is good for
    /// a second, or ten times as long as it took. Cancel safe.
    async fn stored_bytes(&self, tenant: &TenantRef) -> Result<u64, Error> {
        let mut stored = self.0.stored.lock().await;
        let began = Instant::now();
        if let Some(known) = stored.get(&tenant.id()).filter(|known| began < known.until) {
            return Ok(known.bytes);
        }
        let bytes = self.0.broker.stored_bytes(tenant).await?;
        let until = Instant::now() + (10 * began.elapsed()).max(STORED_FOR);
        stored.insert(tenant.id(), Stored { bytes, until });
        Ok(bytes)
    }

    /// Stored bytes of the tenant's topics; as they were known last where the end of the node has cut the count off.
    async fn stored_or_told(&self, tenant: &TenantRef) -> Result<u64, Error> {
        match self.stored_bytes(tenant).await {
            Err(Error::ShuttingDown(_)) => match tenant.meter().kept().bytes() {
                Some(bytes) => Ok(bytes),
                None => Ok(self.last_usage(tenant).await?.map_or(0, |usage| usage.storage_bytes)),
            },
            counted => counted,
        }
    }

    /// The newest record of the tenant's `_usage`.
    async fn last_usage(&self, tenant: &TenantRef) -> Result<Option<Usage>, Error> {
        let topic = self.0.writer.topic(tenant, SystemTopic::Usage);
        let Some(found) = self.catalog().find(&topic)? else { return Ok(None) };
        let (log, partition) = (self.0.broker.log(), found.partition(0));
        let last = log.last_records(partition, 1).await?;
        let batches = log.read(partition, last, 1).await?;
        let record = batches.last().and_then(|batch| batch.records().last());
        Ok(record.and_then(|record| serde_json::from_slice(&record.payload).ok()))
    }
}

fn used(since: Look, now: Look) -> Usage {
    let (before, after) = (since.figures, now.figures);
    Usage {
        from: since.at,
        to: now.at,
        requests: after.requests.saturating_sub(before.requests),
        published_records: after.records_published.saturating_sub(before.records_published),
        published_bytes: after.bytes_published.saturating_sub(before.bytes_published),
        delivered_records: after.records_delivered.saturating_sub(before.records_delivered),
        delivered_bytes: after.bytes_delivered.saturating_sub(before.bytes_delivered),
        connections: after.connections,
        followers: after.followers,
        storage_bytes: 0,
    }
}

fn is_some(usage: &Usage) -> bool {
    usage.requests + usage.published_records + usage.delivered_records + usage.connections + usage.followers > 0
}
