//! The system topics of each tenant, `_usage`, `_audit` and `_events`: what goes into them, and how it gets there (ADR 29).
//!
//! They are topics like others, of one partition and class `object`, kept for 30 days and made when there is something to
//! write. What must not be lost goes into the log before what it tells of ([`System::place`]). All else waits in a bounded
//! backlog for one task, [`System::run`]; a publish never waits for it.

mod backlog;
mod budget;
mod report;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use plinth_api::system::{Audit, Happening, TenantEvent};
use plinth_storage::Durability;
use plinth_storage::ids::{TenantId, Timestamp};
use plinth_storage::log::{Placed, Retention};
use plinth_storage::record::{Batch, NewRecord};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use self::backlog::Backlog;
use self::budget::Budget;
pub use self::budget::Note;
pub use self::report::UsageRange;
use self::usage::{Minutes, Stored};
use super::catalog::{Catalog, gone};
use super::error::Error;
use super::settings::TopicSettings;
use super::{Broker, proved};
use crate::auth::{Action, Auth, SystemTopic, SystemWriter, TenantRef, TopicRef};

/// How long records of system topics are kept.
pub const SYSTEM_RETENTION_MS: NonZeroU64 = NonZeroU64::new(30 * 24 * 60 * 60 * 1000).expect("not zero");

/// Writes the system topics. Cheap to clone.
#[derive(Clone)]
pub struct System(Arc<Inner>);

struct Inner {
    auth: Auth,
    broker: Broker,
    writer: SystemWriter,
    budget: Budget,
    minutes: Minutes,
    stored: Mutex<HashMap<TenantId, Stored>>,
    closing: CancellationToken,
}

/// What happened to tenants, for the system topics. Cheap to clone; telling never waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Backlog>);

impl Events {
    /// Notes what happened at `at`.
    pub(crate) fn tell(&self, tenant: &TenantRef, at: Timestamp, what: Happening) {
        self.0.push(tenant, SystemTopic::Events, encode(&TenantEvent { at: at.0, what }));
    }

    /// Notes what happened to a topic, by its name. What happens to a system topic is no news.
    pub(crate) fn tell_of(&self, topic: &TopicRef, at: Timestamp, what: impl FnOnce(String) -> Happening) {
        if SystemTopic::named(topic.name()).is_none() {
            self.tell(topic.tenant(), at, what(topic.name().to_owned()));
        }
    }
}

impl System {
    /// The writer of the system topics of all tenants.
    #[must_use]
    pub fn new(auth: Auth, broker: Broker) -> Self {
        let (writer, minutes) = (auth.system_writer(), Minutes::begin(broker.log().now().0));
        let (budget, stored, closing) = (Budget::default(), Mutex::default(), CancellationToken::new());
        Self(Arc::new(Inner { auth, broker, writer, budget, minutes, stored, closing }))
    }

    /// Notes what happened to a tenant. It is stored soon after.
    pub fn tell(&self, tenant: &TenantRef, what: Happening) {
        self.0.broker.events().tell(tenant, self.0.broker.log().now(), what);
    }

    /// Notes that a quota of the tenant was reached; the first time in a minute is told.
    pub fn quota_reached(&self, tenant: &TenantRef, quota: &str) {
        if self.0.budget.is_first(tenant, quota) {
            self.tell(tenant, Happening::QuotaReached { quota: quota.to_owned() });
        }
    }

    /// Notes something that was refused. It is stored soon after, if the minute has not had too much of it.
    pub fn note(&self, tenant: &TenantRef, note: Note, record: &Audit) {
        if self.0.budget.allows(tenant, note) {
            self.record(tenant, record);
        }
    }

    /// Has a record of the tenant's `_audit` stored soon after.
    pub fn record(&self, tenant: &TenantRef, record: &Audit) {
        self.backlog().push(tenant, SystemTopic::Audit, encode(record));
    }

    /// Puts a record of the tenant's `_audit` into the order of the log: what is changed after this returns is stored only
    /// if the record is. Cancel safe: who stops waiting does not undo it.
    ///
    /// # Errors
    /// `NotFound` for a tenant that was deleted; those of the log. It is not stored then.
    pub async fn place(&self, tenant: &TenantRef, record: &Audit) -> Result<Placed, Error> {
        let records = [encode(record)];
        match self.place_in(tenant, SystemTopic::Audit, &records).await {
            // The topic was of another incarnation of the tenant's name.
            Err(Error::NotFound(_)) => self.place_in(tenant, SystemTopic::Audit, &records).await,
            placed => placed,
        }
    }

    async fn place_in(&self, tenant: &TenantRef, topic: SystemTopic, records: &[Vec<u8>]) -> Result<Placed, Error> {
        let (broker, name) = (&self.0.broker, self.0.writer.topic(tenant, topic));
        proved(name.action(), Action::Publish)?;
        let found = self.catalog().get_or_make_system(&name).await?;
        let records: Vec<NewRecord> = records.iter().map(|record| json(record)).collect();
        let placed = broker.log().place(found.partition(0), Batch::of(&records)?).await;
        placed.map_err(|error| gone(name.name(), error)).inspect_err(|error| {
            if matches!(error, Error::NotFound(_)) {
                self.catalog().forget(&name);
            }
        })
    }

    fn catalog(&self) -> &Arc<Catalog> {
        self.0.broker.catalog()
    }

    fn backlog(&self) -> &Backlog {
        &self.0.broker.events().0
    }
}

/// What a system topic is like.
pub(super) fn settings() -> TopicSettings {
    TopicSettings {
        partitions: Some(1),
        durability: Some(Durability::Object),
        retention: Some(Retention { age_ms: Some(SYSTEM_RETENTION_MS), bytes: None }),
        ..TopicSettings::default()
    }
}

fn json(record: &[u8]) -> NewRecord {
    NewRecord { content_type: b"application/json"[..].into(), payload: record.to_vec().into(), ..NewRecord::default() }
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("the types of the API are plain strings and numbers")
}
