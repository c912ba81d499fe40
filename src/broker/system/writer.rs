//! The one task that stores what waits for system topics, and that ends the minutes.

use std::future::pending;
use std::time::Duration;

use futures::future::join_all;
use plinth_api::system::{Audit, AuditKind, Happening, TenantEvent};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use super::backlog::Bundle;
use super::{System, encode};
use crate::auth::SystemTopic;
use crate::broker::error::Error;

/// Topics that are written at once; what they get likely goes into one object.
const AT_ONCE: usize = 64;
/// After so long it is tried again when the store is away or full.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What the use of tenants is told by.
const MINUTE: Duration = Duration::from_secs(60);

impl System {
    /// Stores what waits until [`System::close`] is called, and then once more what is left. Not cancel safe: what is being
    /// stored when it is dropped may be lost.
    pub async fn run(self) {
        let mut minutes = self.minutes();
        let mut left = false;
        loop {
            tokio::select! {
                () = self.0.closing.cancelled() => break,
                () = self.backlog().news(), if !left => {}
                _ = timeout(AGAIN_AFTER, pending::<()>()), if left => {}
                _ = minutes.tick() => self.end_minute().await,
            }
            left = !self.store_all().await;
        }
        self.end_minute().await;
        if !self.store_all().await {
            tracing::warn!("records of system topics are lost: the store did not take them before the end");
        }
    }

    /// Makes [`System::run`] end.
    pub fn close(&self) {
        self.0.closing.cancel();
    }

    /// Begins of minutes by the clock of the log.
    fn minutes(&self) -> Interval {
        let minute = u64::try_from(MINUTE.as_millis()).expect("a minute");
        let into = self.0.broker.log().now().0 % minute;
        let mut minutes = interval_at(Instant::now() + Duration::from_millis(minute - into), MINUTE);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Skip);
        minutes
    }

    async fn end_minute(&self) {
        let now = self.0.broker.log().now().0;
        for excess in self.0.budget.begin_minute() {
            let dropped = Audit { count: Some(excess.count), ..Audit::new(AuditKind::Dropped, now) };
            self.record(&excess.tenant, &dropped);
        }
        self.end_usage().await;
    }

    /// Stores what waits; false when some of it could not be and waits still.
    async fn store_all(&self) -> bool {
        loop {
            let bundles = self.backlog().take(AT_ONCE);
            if bundles.is_empty() {
                return true;
            }
            let stored = join_all(bundles.into_iter().map(|bundle| self.store(bundle))).await;
            let mut all = true;
            for bundle in stored.into_iter().flatten() {
                all = false;
                self.backlog().give_back(bundle);
            }
            if !all {
                return false;
            }
        }
    }

    /// Stores a bundle; gives it back when that is to be tried again. What had no clear outcome may then be there twice.
    async fn store(&self, bundle: Bundle) -> Option<Bundle> {
        match self.try_store(&bundle).await {
            Ok(()) => None,
            Err(Error::Busy(_) | Error::Unavailable(_) | Error::Unknown(_)) => Some(bundle),
            // The tenant was deleted, and what is told of it goes with it.
            Err(Error::NotFound(_)) => None,
            Err(error) => {
                let (topic, records) = (bundle.topic.name(), bundle.records.len());
                tracing::error!(topic, records, %error, "records of a system topic are lost");
                None
            }
        }
    }

    async fn try_store(&self, bundle: &Bundle) -> Result<(), Error> {
        let mut records = bundle.records.clone();
        if bundle.dropped > 0 {
            records.push(self.dropped(bundle));
        }
        let placed = match self.place_in(&bundle.tenant, bundle.topic, &records).await {
            Err(Error::NotFound(_)) => self.place_in(&bundle.tenant, bundle.topic, &records).await,
            placed => placed,
        };
        placed?.stored().await?;
        Ok(())
    }

    /// The record that says how many are missing.
    fn dropped(&self, bundle: &Bundle) -> Vec<u8> {
        let (at, count) = (self.0.broker.log().now().0, bundle.dropped);
        match bundle.topic {
            SystemTopic::Audit => encode(&Audit { count: Some(count), ..Audit::new(AuditKind::Dropped, at) }),
            SystemTopic::Events | SystemTopic::Usage => encode(&TenantEvent { at, what: Happening::Dropped { count } }),
        }
    }
}
