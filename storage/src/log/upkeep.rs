//! The part of the façade that asks the tasks for their work: checkpoints, compaction, and both with a sweep as a purge.

use tokio::sync::oneshot;

use super::Log;
use crate::error::{Error, Kind, Result};
use crate::segment::compaction::{Request, Wanted};
use crate::shard::rows::Position;

impl Log {
    /// Asks for a checkpoint now; it is written in the background.
    pub fn request_checkpoint(&self) {
        self.inner.checkpoints.request();
    }

    /// Asks for a checkpoint and waits for the next one; with nothing else under way that is it. Cancel safe.
    ///
    /// # Errors
    /// `Closed` when the session ends before.
    pub async fn checkpoint(&self) -> Result<()> {
        self.inner.checkpoints.next().await
    }

    /// Compacts what is committed now, merges what there is to merge; returns when it is linked. Cancel safe: the work goes
    /// on.
    ///
    /// # Errors
    /// `Closed` when the log is; else what kept it from compacting: the log is then as it was.
    pub async fn compact(&self) -> Result<()> {
        self.rewrite(Wanted::Everything).await
    }

    /// Frees the bucket of all topics and documents that were deleted before: when it returns, no object holds anything of
    /// them. What shares an object with them is rewritten first, then a checkpoint is written that builds on no other, and
    /// what is not needed any more is deleted after the grace (ADR 23). So it takes the grace and longer, and twice that
    /// when a sweep is under way. Cancel safe: what was begun goes on.
    ///
    /// # Errors
    /// `Closed` when the log is; else what kept it: nothing is lost, and what was deleted may still be there in part.
    pub async fn purge(&self) -> Result<()> {
        self.rewrite(Wanted::Purge).await?;
        let position = Position::load(&*self.inner.state)?;
        if planted!(PurgeLeavesParts) {
            self.checkpoint().await?;
        } else {
            self.inner.checkpoints.in_full(position.map(|position| position.next).unwrap_or_default()).await?;
        }
        let (done, swept) = oneshot::channel();
        self.inner.sweeps.send(done).await.map_err(|_| closed())?;
        swept.await.map_err(|_| closed())?
    }

    async fn rewrite(&self, wanted: Wanted) -> Result<()> {
        let (done, compacted) = oneshot::channel();
        self.inner.compaction.send(Request { wanted, done }).await.map_err(|_| closed())?;
        compacted.await.map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the log is closed")
}
