//! Something that is or is not, and that many wait for; they are woken in the order in which they came.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// It is, or it is not.
#[derive(Debug, Default)]
pub struct Flag {
    set: AtomicBool,
    moved: Notify,
}

impl Flag {
    /// Whether it is.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// It is from now on, or it is not.
    pub fn set(&self, set: bool) {
        self.set.store(set, Ordering::Relaxed);
        self.moved.notify_waiters();
    }

    /// Returns when it is what is wanted. Cancel safe.
    pub async fn is(&self, wanted: bool) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.is_set() == wanted {
                return;
            }
            moved.await;
        }
    }
}
