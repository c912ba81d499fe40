//! Counts what a tenant keeps. All topics of the tenant are looked at: so apart from what must not wait, one at a time,
//! and only for tenants of which somebody has to know.

use std::sync::Arc;
use std::time::Duration;

use plinth_storage::Kind;
use plinth_storage::ids::TenantId;
use tokio::time::Instant;

use super::Catalog;
use crate::auth::{TenantRef, TopicRef};
use crate::broker::error::Error;
use crate::broker::quotas::TopicPlace;

/// How old the count of stored bytes may be where there is room: what was stored since is added to it.
const COUNT_AGE: Duration = Duration::from_secs(60);
/// How old it may be where there is none: retention may have made some.
const COUNT_AGE_FULL: Duration = Duration::from_secs(1);

/// What a tenant keeps.
struct Counted {
    topics: u64,
    bytes: u64,
}

impl Catalog {
    /// Counts the topics and the stored bytes of a tenant, once. Cancel safe.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) async fn count_once(self: &Arc<Self>, tenant: &TenantRef) -> Result<(), Error> {
        let meter = tenant.meter();
        if meter.kept().topics().is_some() {
            return Ok(());
        }
        let _one_at_a_time = meter.kept().counting.lock().await;
        if meter.kept().topics().is_none() {
            let (since, counted) = (Instant::now(), self.count(tenant.id()).await?);
            meter.count_bytes(counted.bytes, since);
            meter.count_topics(counted.topics);
        }
        Ok(())
    }

    /// The stored bytes of a tenant, as they were at most a second ago, or as long ago as ten counts take.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) async fn stored_bytes(self: &Arc<Self>, tenant: &TenantRef) -> Result<u64, Error> {
        self.count_once(tenant).await?;
        self.count_again(tenant, COUNT_AGE_FULL).await?;
        Ok(tenant.meter().kept().bytes().unwrap_or_default())
    }

    /// A place for a topic that is to be made; none for one of the system.
    ///
    /// # Errors
    /// `QuotaExceeded`; those of the log.
    pub(super) async fn place(self: &Arc<Self>, topic: &TopicRef) -> Result<Option<TopicPlace>, Error> {
        if is_reserved(topic.name()) {
            return Ok(None);
        }
        self.count_once(topic.tenant()).await?;
        Ok(Some(topic.tenant().meter().topic()?))
    }

    /// Notes what became of the deletion of a topic.
    pub(super) fn note_deletion(&self, tenant: &TenantRef, name: &str, error: Option<&plinth_storage::Error>) {
        self.moved.note(tenant.id(), &name.into());
        let meter = tenant.meter();
        match error.map(plinth_storage::Error::kind) {
            None if !is_reserved(name) => meter.deleted(1),
            Some(Kind::Unknown) => meter.lose_count(),
            None | Some(_) => {}
        }
    }

    /// Whether a tenant may store more, as it is known without counting: then there is no need to ask
    /// [`Self::check_storage`].
    pub(in crate::broker) fn has_room(tenant: &TenantRef) -> bool {
        tenant.meter().has_room(COUNT_AGE)
    }

    /// Refuses when the tenant stores as much as it may. Cancel safe.
    ///
    /// # Errors
    /// `QuotaExceeded`; those of the log.
    pub(in crate::broker) async fn check_storage(self: &Arc<Self>, tenant: &TenantRef) -> Result<(), Error> {
        let meter = tenant.meter();
        self.count_once(tenant).await?;
        if meter.check_bytes().is_ok() {
            if meter.is_older_than(COUNT_AGE) {
                let (catalog, tenant) = (Arc::clone(self), tenant.clone());
                self.changes.start(async move {
                    if let Err(error) = catalog.count_again(&tenant, COUNT_AGE).await {
                        tracing::warn!(%error, "what a tenant stores could not be counted");
                    }
                });
            }
            return Ok(());
        }
        self.count_again(tenant, COUNT_AGE_FULL).await?;
        Ok(meter.check_bytes()?)
    }

    /// Counts the stored bytes, unless that was done within `age`.
    async fn count_again(self: &Arc<Self>, tenant: &TenantRef, age: Duration) -> Result<(), Error> {
        let meter = tenant.meter();
        let _one_at_a_time = meter.kept().counting.lock().await;
        if meter.is_older_than(age) {
            let since = Instant::now();
            meter.count_bytes(self.count(tenant.id()).await?.bytes, since);
        }
        Ok(())
    }

    async fn count(self: &Arc<Self>, tenant: TenantId) -> Result<Counted, Error> {
        let catalog = Arc::clone(self);
        self.changes
            .apart(move || {
                let mut counted = Counted { topics: 0, bytes: 0 };
                catalog.each(tenant, "", None, |topic| {
                    if is_reserved(&topic.name) {
                        return Ok(true);
                    }
                    if topic.deleted {
                        // It counts until the last of its forks takes it along.
                        counted.bytes += catalog.log.kept_bytes(topic.id)?;
                        counted.topics += 1;
                        return Ok(true);
                    }
                    match catalog.log.stored_bytes(topic.id) {
                        Ok(bytes) => counted.bytes += bytes,
                        // Deleted since the list was read.
                        Err(error) if error.kind() == Kind::NotFound => return Ok(true),
                        Err(error) => return Err(error.into()),
                    }
                    counted.topics += 1;
                    Ok(true)
                })?;
                Ok(counted)
            })
            .await
    }
}

/// Whether a topic is the system's, which is not the tenant's to make and takes nothing of its quotas.
pub(in crate::broker) fn is_reserved(name: &str) -> bool {
    name.starts_with('_')
}
