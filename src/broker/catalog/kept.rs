//! Counts what a tenant keeps. All topics of the tenant are looked at: so apart from what must not wait, one at a time,
//! and only for tenants of which somebody has to know.

use std::sync::Arc;
use std::time::Duration;

use plinth_api::quotas::Quota;
use plinth_storage::Kind;
use plinth_storage::ids::TenantId;

use super::{Catalog, apart};
use crate::auth::TenantRef;
use crate::broker::error::Error;

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
        let first = async {
            let counted = self.count(tenant.id()).await?;
            meter.count_topics(counted.topics);
            meter.count_bytes(counted.bytes);
            Ok(())
        };
        meter.kept().once.get_or_try_init(|| first).await.copied()
    }

    /// Refuses when the tenant stores as much as it may. Cancel safe.
    ///
    /// # Errors
    /// `QuotaExceeded`; those of the log.
    pub(in crate::broker) async fn check_storage(self: &Arc<Self>, tenant: &TenantRef) -> Result<(), Error> {
        let meter = tenant.meter();
        if meter.limit(Quota::StorageBytes).is_none() {
            return Ok(());
        }
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
            meter.count_bytes(self.count(tenant.id()).await?.bytes);
        }
        Ok(())
    }

    async fn count(self: &Arc<Self>, tenant: TenantId) -> Result<Counted, Error> {
        let catalog = Arc::clone(self);
        apart(move || {
            let mut counted = Counted { topics: 0, bytes: 0 };
            catalog.each(tenant, "", None, |topic| {
                match catalog.log.topic_bounds(topic.id, topic.partitions) {
                    Ok(bounds) => counted.bytes += bounds.bytes(),
                    // Deleted since the list was read.
                    Err(error) if error.kind() == Kind::NotFound => return Ok(true),
                    Err(error) => return Err(error.into()),
                }
                // Those of the system are not the tenant's to make.
                counted.topics += u64::from(!topic.name.starts_with('_'));
                Ok(true)
            })?;
            Ok(counted)
        })
        .await
    }
}
