//! What is left of deleted tenants in the bucket is freed: payloads, names and hashes of keys stand in objects that others
//! share, until the log has rewritten these (ADR 23).
//!
//! A deletion leaves a mark, which holds nothing but an internal id and goes when the bucket holds nothing more of the
//! tenant. So a start goes on where a stop of the node has cut this off.

use std::time::Duration;

use bytes::Bytes;
use plinth_storage::log::{Change, DocOp};
use tokio::time::timeout;

use super::{Auth, tenant};
use crate::broker::Error;
use crate::broker::documents;

/// Tenants that are freed together.
const TENANTS_AT_ONCE: usize = 1_000;
/// What failed is tried again after this long, or with the next tenant that is deleted.
const RETRY_AFTER: Duration = Duration::from_secs(600);

impl Auth {
    /// Frees the bucket of tenants that were deleted, now and later, until it is dropped. Cancel safe: what is not done is
    /// done by the next one.
    pub async fn free_what_is_left(self) {
        loop {
            let deleted = self.0.deleted.notified();
            match self.free_some().await {
                Ok(0) => deleted.await,
                Ok(tenants) => tracing::info!(tenants, "the bucket holds nothing more of deleted tenants"),
                Err(error) => {
                    tracing::warn!(%error, "deleted tenants are still in the bucket, it is tried again later");
                    // Either way it is tried again.
                    let _whether = timeout(RETRY_AFTER, deleted).await;
                }
            }
        }
    }

    /// Finishes deletions that have begun and failed, and frees the bucket of all that are finished; how many there were.
    async fn free_some(&self) -> Result<usize, Error> {
        tenant::finish_deletions(&self.0.log, |id| self.follow_tenant(id)).await?;
        let left: Vec<Bytes> =
            self.0.log.scan(documents::TENANTS_LEFT, None, TENANTS_AT_ONCE)?.into_iter().map(|row| row.0).collect();
        if left.is_empty() {
            return Ok(0);
        }
        self.0.log.purge().await?;
        let count = left.len();
        let docs = left.into_iter().map(DocOp::Delete).collect();
        self.0.log.commit(Change { docs, ..Change::default() }).await?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
