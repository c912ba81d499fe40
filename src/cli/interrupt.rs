//! Ctrl-C, for commands that have something to finish or to say before they end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The command was interrupted: exit code 130, as a shell gives it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Interrupts from now on are seen here and end nothing by themselves.
#[derive(Debug)]
pub(super) struct Interrupts {
    signal: Signal,
    seen: bool,
}

impl Interrupts {
    /// # Errors
    /// The signal cannot be watched.
    pub(super) fn open() -> std::io::Result<Self> {
        Ok(Self { signal: signal(SignalKind::interrupt())?, seen: false })
    }

    /// Whether there was one.
    pub(super) fn seen(&self) -> bool {
        self.seen
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            // The runtime ends, and with it every signal.
            std::future::pending::<()>().await;
        }
        self.seen = true;
    }
}
