//! How fast one follower may be given records: a quota of what is delivered makes it wait, and fails nothing.

use std::pin::pin;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Meters;

/// The pace of one follower.
#[derive(Debug, Default)]
pub(in crate::broker) struct Pace {
    /// Until then it waits. In a box: most followers never do.
    pause: Option<Box<Pause>>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// Of the tenant and of the key: a change of the quotas ends the pause.
    changes: [Option<watch::Receiver<u64>>; 2],
}

impl Pace {
    /// The pace of one that begins: what its tenant got before is paid for first.
    pub(in crate::broker) fn begin(meters: Meters<'_>) -> Self {
        Self::paused(meters, || meters.owe(0, 0))
    }

    /// Counts what is given to the follower.
    pub(in crate::broker) fn delivered(&mut self, meters: Meters<'_>, records: u64, bytes: u64) {
        *self = Self::paused(meters, || meters.delivered(records, bytes));
    }

    fn paused(meters: Meters<'_>, until: impl FnOnce() -> Option<Instant>) -> Self {
        // Before the moment is computed, so that no change falls between.
        let limited = meters.are_limited();
        let changes =
            limited.then(|| [Some(meters.tenant), meters.key_meter()].map(|meter| Some(meter?.changes.subscribe())));
        let pause = until().zip(changes).map(|(until, changes)| Box::new(Pause { until, changes }));
        Self { pause }
    }

    /// Waits until more may be given. Cancel safe.
    pub(in crate::broker) async fn wait(&mut self) {
        let Some(pause) = &mut self.pause else { return };
        let [tenant, key] = &mut pause.changes;
        let changed = async {
            let (tenant, key) = (pin!(changed(tenant)), pin!(changed(key)));
            futures::future::select(tenant, key).await;
        };
        // Either way it goes on: what is awaited is that time passes, or that the quotas change.
        let _ = timeout_at(pause.until, changed).await;
        self.pause = None;
    }

    /// Whether it has to wait.
    #[cfg(test)]
    pub(in crate::broker) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }
}

async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    // Nobody can change them any more.
    std::future::pending().await
}
