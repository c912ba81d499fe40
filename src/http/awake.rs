//! What wakes a live answer, whatever it follows and however it is written.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::front::Front;
use crate::auth::{Caller, Revocations};

/// How often a silent stream says that it is there. The credential's end is looked at as often.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What wakes a live answer besides what it follows.
pub(crate) struct Awake {
    told_to_go: Pin<Box<dyn Future<Output = ()> + Send>>,
    revoked: Revocations,
    heartbeat: Interval,
}

/// What woke it.
pub(crate) enum Woken<T> {
    /// The node ends.
    ToldToGo,
    /// A credential of the tenant has ended, maybe this one.
    Revoked,
    /// It was silent, or is to look at its credential.
    Heartbeat,
    /// What it follows has something.
    Moved(T),
}

impl Awake {
    /// For an answer to `caller` that begins now.
    pub(crate) fn new(front: &Front, caller: &Caller) -> Self {
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let leaver = front.clone();
        let told_to_go = Box::pin(async move { leaver.told_to_go().await });
        Self { told_to_go, revoked: Revocations::of(caller), heartbeat }
    }

    /// Waits for the first of them and `next`, which must be cancel safe and is not held here: all who wait have room for it.
    /// Cancel safe, but not to be called again after `ToldToGo`.
    pub(crate) async fn woken<T>(&mut self, next: Pin<&mut impl Future<Output = T>>) -> Woken<T> {
        // In this order: a stream that always has something must not outlive its credential.
        tokio::select! {
            biased;
            () = &mut self.told_to_go => Woken::ToldToGo,
            () = self.revoked.changed() => Woken::Revoked,
            _ = self.heartbeat.tick() => Woken::Heartbeat,
            moved = next => Woken::Moved(moved),
        }
    }
}
