//! Runs durable changes to their end, whoever stops waiting for them, and long looks until the node ends.
//!
//! A client that hangs up drops its request in mid-change. The change may still be stored, so what follows it in memory
//! (forgetting a cached key, telling followers of a new topic) must happen too. A look at all topics of a tenant may take long: it is
//! made on a thread of its own, and asks between two steps whether it shall go on.

use std::future::Future;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::error::Error;

/// Owns the tasks of changes and looks under way.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Changes {
    /// Runs `change` to its end. Cancel safe: a caller that stops waiting does not stop the change.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks.spawn(change).await.unwrap_or_else(|lost| {
            Err(Error::Internal { detail: "a change ended before its time".into(), source: Some(Box::new(lost)) })
        })
    }

    /// Starts `task`, for which nobody waits but [`Changes::finish`].
    pub(crate) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Looks at what may be much of the local state, on a thread that holds up nothing else. Cancel safe: who stops waiting does
    /// not end the look.
    ///
    /// # Errors
    /// Those of `look`.
    pub(crate) async fn apart<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let looked = self.tasks.spawn_blocking(look).await;
        looked.map_err(|lost| Error::Internal { detail: "a look was cut off".into(), source: Some(Box::new(lost)) })?
    }

    /// Whether a look may take another step.
    ///
    /// # Errors
    /// `ShuttingDown` when the node ends.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.ending.is_cancelled() {
            return Err(Error::ShuttingDown("the node ends, which cuts long looks off".to_owned()));
        }
        Ok(())
    }

    /// Ends long looks when it is dropped.
    pub(crate) fn until_dropped(&self) -> DropGuard {
        self.ending.clone().drop_guard()
    }

    /// Ends long looks and waits for what is under way. Cancel safe.
    pub(crate) async fn finish(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
