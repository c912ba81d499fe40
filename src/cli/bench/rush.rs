//! A load of more than the server can do, of clients that give up.
//!
//! The client shares the cores with the server that it measures, and has to send from thousands of connections: a connection
//! claims the next time of sending by one number, and counts; nothing else is shared, nothing is kept per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::load::{Answer, Shot};
use super::wire::{Target, Wire};

/// What came back, in requests.
#[derive(Debug, Default)]
pub(super) struct Rush {
    /// Acknowledged before the client had given up.
    pub(super) in_time: u64,
    /// Acknowledged after that.
    pub(super) late: u64,
    /// Refused as not stored.
    pub(super) refused: u64,
    /// Never sent: all connections waited for answers.
    pub(super) unsent: u64,
}

/// When requests are to be sent: one each `1 / rate` seconds.
#[derive(Debug)]
struct Schedule {
    start: Instant,
    rate: f64,
    total: u64,
    next: AtomicU64,
}

impl Schedule {
    /// The next time of sending that has not passed, or the last one that has; `None` when there is no more. Those that
    /// passed while no connection was free are not sent: were they sent later, all that is answered would be late, and
    /// the queue would be the client's.
    fn claim(&self) -> Option<Instant> {
        let passed = (self.start.elapsed().as_secs_f64() * self.rate) as u64;
        let next = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| Some(next.max(passed) + 1));
        let number = next.map_or(passed, |next| next.max(passed));
        (number < self.total).then(|| self.start + Duration::from_secs_f64(number as f64 / self.rate))
    }
}

/// `rate` requests per second for `time` on `connections` connections, of clients that give up after `patience`.
pub(super) async fn rush(
    target: &Target,
    shot: &Shot,
    connections: usize,
    rate: f64,
    (time, patience): (Duration, Duration),
) -> anyhow::Result<Rush> {
    let mut wires = Vec::with_capacity(connections);
    for _ in 0..connections {
        wires.push(Wire::connect(target).await?);
    }
    let total = (rate * time.as_secs_f64()) as u64;
    let schedule = Arc::new(Schedule { start: Instant::now(), rate, total, next: AtomicU64::new(0) });
    let mut workers = JoinSet::new();
    for mut wire in wires {
        let (shot, schedule) = (shot.clone(), schedule.clone());
        workers.spawn(async move {
            let mut seen = Rush::default();
            while let Some(intended) = schedule.claim() {
                wait_until(intended).await;
                match shot.fire(&mut wire, 0).await? {
                    Answer::Refused => seen.refused += 1,
                    Answer::Stored(_) if intended.elapsed() > patience => seen.late += 1,
                    Answer::Stored(_) => seen.in_time += 1,
                }
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Rush::default();
    while let Some(seen) = workers.join_next().await {
        let seen = seen??;
        all.in_time += seen.in_time;
        all.late += seen.late;
        all.refused += seen.refused;
    }
    all.unsent = total.saturating_sub(all.in_time + all.late + all.refused);
    Ok(all)
}

#[expect(clippy::disallowed_methods, reason = "the cadence of a load is a matter of time and nothing else")]
async fn wait_until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}
