//! The one task of streams that end by themselves: it stores when they were used, and deletes those that are over.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use super::touches::TICK_MS;
use crate::auth::Auth;
use crate::broker::Broker;
use crate::broker::error::Error;

/// Uses that are stored in one commit.
const TOUCHES_AT_ONCE: usize = 200;
/// Ticks from one round of the reaper through all streams to the next, at least. Each tick of a round has one look, so that many
/// streams that end go a thousand in a second and no more at once.
const ROUND_TICKS: u64 = 10;
/// Streams that are deleted at the same time: their commits share objects.
const ENDS_AT_ONCE: usize = 64;

impl Broker {
    /// Keeps the streams that end by themselves, until it is dropped. Cancel safe.
    pub async fn keep_streams(self, auth: Auth) {
        let mut ticks = interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut after, mut round_at) = (None, ROUND_TICKS);
        for tick in 1u64.. {
            ticks.tick().await;
            self.store_touches().await;
            if after.is_none() && tick < round_at {
                continue;
            }
            if after.is_none() {
                round_at = tick + ROUND_TICKS;
            }
            match self.reap(&auth, after.take()).await {
                Ok(last) => after = last,
                Err(error) => tracing::warn!(%error, "streams that are over are deleted later"),
            }
        }
    }

    /// Stores the uses that have waited long enough. What cannot be stored waits for the next time.
    pub(in crate::broker) async fn store_touches(&self) {
        let due = self.catalog().touches().due(self.log().now());
        for some in due.chunks(TOUCHES_AT_ONCE) {
            match self.catalog().store_touches(some).await {
                Ok(()) => some.iter().for_each(|&touch| self.catalog().touches().stored(touch)),
                Err(error) => tracing::warn!(%error, "when streams were last used is stored later"),
            }
        }
    }

    /// Deletes what is over, of some streams behind `after`; tells where to go on.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) async fn reap(&self, auth: &Auth, after: Option<Bytes>) -> Result<Option<Bytes>, Error> {
        let (over, last) = self.catalog().look_for_over(after).await?;
        // A tenant that is being deleted takes its streams along.
        let known = over.into_iter().filter_map(|over| Some((auth.tenant_by_id(over.tenant)?, over)));
        let known: Vec<_> = known.collect();
        let mut ends = known.into_iter().map(|(tenant, over)| self.catalog().end(tenant, over));
        loop {
            let some: Vec<_> = ends.by_ref().take(ENDS_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(last);
            }
            join_all(some).await.into_iter().collect::<Result<Vec<()>, Error>>()?;
        }
    }
}
