//! A node that is told to end while many follow: they are sent away over its drain time, and come back to its next start.
//!
//! There is one node, so who is sent away early finds nobody until the next start. Such a client waits as it was told, then
//! after each failure twice as long, at least half of that and by chance, as clients of browsers and SDKs do.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use plinth_storage::env::{Rng, SystemRng};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::child::Server;
use super::idle::{Held, Way, connect};
use super::node;
use super::report::{Drain, round};
use super::wire::Target;

/// Over which time the node sends its clients away.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a client waits that was told nothing: what the streams say at their beginning.
const WAIT: Duration = Duration::from_secs(2);
/// The longest that a client waits between two tries.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(20);
/// How long it may take until all are back.
const BACK: Duration = Duration::from_secs(120);

/// What the clients have in common.
struct Common {
    way: Way,
    target: Target,
    /// When the next start began.
    again: OnceLock<Instant>,
    failed: AtomicU64,
}

/// Ends a node in `dir` that `followers` follow, starts it again, and waits for all of them.
pub(super) async fn run(dir: &Path, way: Way, followers: usize) -> anyhow::Result<Drain> {
    let store = format!("file://{}", dir.join("objects").display());
    let (server, node, root_key) = node::own_draining(dir, &store, DRAIN).await?;
    node.topic("idle").await?;
    let held = connect(&node, way, followers).await?;
    let target = node.target.clone();
    let common = Arc::new(Common { way, target, again: OnceLock::new(), failed: AtomicU64::new(0) });
    let mut clients = JoinSet::new();
    for held in held {
        clients.spawn(come_back(held, Arc::clone(&common)));
    }
    let begin = Instant::now();
    let address = server.address;
    server.stop().await?;
    let drained = begin.elapsed();
    // Before it listens: whoever follows from here on follows the next start, and will be told nothing.
    let again = *common.again.get_or_init(Instant::now);
    let server = Server::node_at(dir, (&store, &root_key), (&address.to_string(), DRAIN), []).await?;
    let mut back = Vec::with_capacity(followers);
    let all = async {
        while let Some(client) = clients.join_next().await {
            back.push(client?);
        }
        anyhow::Ok(())
    };
    timeout(BACK, all).await.context("not all came back in time")??;
    let open = node.followers().await?;
    anyhow::ensure!(open == back.len() as u64, "{} came back and {open} are there", back.len());
    let times: Vec<Duration> = back.iter().map(|(_, at)| at.saturating_duration_since(again)).collect();
    let last = times.iter().max().copied().unwrap_or_default();
    let report = Drain {
        transport: way.name(),
        followers,
        drain_seconds: round(drained.as_secs_f64()),
        back: back.len(),
        tries_that_failed: common.failed.load(Ordering::Relaxed),
        back_seconds: round(last.as_secs_f64()),
        back_by_second: by_second(&times),
    };
    drop(back);
    server.stop().await?;
    Ok(report)
}

fn by_second(times: &[Duration]) -> Vec<u64> {
    let mut seconds = Vec::new();
    for time in times {
        let second = usize::try_from(time.as_secs()).unwrap_or(usize::MAX).min(600);
        if seconds.len() <= second {
            seconds.resize(second + 1, 0);
        }
        seconds[second] += 1;
    }
    seconds
}

/// Follows until it is sent away, and again, until it follows the next start; gives when that was.
async fn come_back(mut held: Held, common: Arc<Common>) -> (Held, Instant) {
    loop {
        let mut wait = held.told_to_go().await.unwrap_or(WAIT);
        held = loop {
            pause(wait).await;
            if let Ok(Ok(held)) = timeout(TRY, common.way.follow(&common.target)).await {
                break held;
            }
            common.failed.fetch_add(1, Ordering::Relaxed);
            let most = (wait * 2).clamp(WAIT, WAIT_MAX);
            wait = most / 2 + by_chance(most / 2);
        };
        if common.again.get().is_some() {
            return (held, Instant::now());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a client that was told to wait waits for time and nothing else")]
async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}

fn by_chance(below: Duration) -> Duration {
    let [a, b, ..] = SystemRng.bytes();
    below * u32::from(u16::from_le_bytes([a, b])) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_by_their_second() {
        let times = [0, 999, 1_000, 3_500].map(Duration::from_millis);
        assert_eq!(by_second(&times), [2, 1, 0, 1]);
        assert!(by_second(&[]).is_empty());
    }
}
