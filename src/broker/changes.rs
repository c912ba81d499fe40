//! Runs durable changes to their end, whoever stops waiting for them.
//!
//! A client that hangs up drops its request in mid-change. The change may still be stored, so what follows it in memory
//! (forgetting a cached key, telling followers of a new topic) must happen too.

use std::future::Future;

use tokio_util::task::TaskTracker;

use super::error::Error;

/// Owns the tasks of changes under way.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    tasks: TaskTracker,
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

    /// Waits for the changes under way. Cancel safe.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
