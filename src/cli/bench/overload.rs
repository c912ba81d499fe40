//! Five times what the node can do: how much of it is done, what it costs in memory, and how long it takes to be over.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use super::child::Server;
use super::load::{Shot, closed_loop, open_loop};
use super::node::own;
use super::report::{Overload, round};
use super::rush::rush;
use super::{Size, until};
use crate::cli::output;

/// Connections of the normal load, and of the search for the knee.
const CONNECTIONS: usize = 256;
/// Connections of the overload.
const CONNECTIONS_MANY: usize = 4096;
/// How much more than the node can do.
const TIMES: f64 = 5.0;
/// After this clients give up.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The node is back to normal when its p99 at half the knee is at most this times what it was.
const NORMAL: f64 = 1.5;
/// Seconds after which it is no use to wait for that.
const RECOVERY_MAX: u32 = 30;

pub(super) async fn run(dir: &Path, size: &Size, body: Bytes) -> anyhow::Result<Overload> {
    output::say(&format!("overload: {CONNECTIONS_MANY} connections, {TIMES} times the knee"));
    let (server, node) = own(dir, &format!("file://{}", dir.join("objects").display())).await?;
    let shot = Shot::publish(node.topic("one").await?, "application/octet-stream", body, 1);
    closed_loop(&node.target, &shot, CONNECTIONS, until(size.warm_up)).await?;
    let knee = closed_loop(&node.target, &shot, CONNECTIONS, until(size.time)).await?.per_second();
    let before = open_loop(&node.target, &shot, CONNECTIONS, knee / 2.0, size.time / 2).await?.ms(0.99);
    let times = (size.storm, PATIENCE);
    let storm = rush(&node.target, &shot, CONNECTIONS_MANY.min(40 * size.followers), knee * TIMES, times);
    let (storm, memory) = with_memory(&server, storm).await;
    let storm = storm?;
    let mut seconds = 0;
    let after = loop {
        seconds += 1;
        let second = open_loop(&node.target, &shot, CONNECTIONS, knee / 2.0, Duration::from_secs(1)).await?;
        if second.ms(0.99) <= before * NORMAL || seconds >= RECOVERY_MAX {
            break second.ms(0.99);
        }
    };
    // A disk's speed changes in minutes: the knee is that of before and of after.
    let knee_after = closed_loop(&node.target, &shot, CONNECTIONS, until(size.time)).await?.per_second();
    server.stop().await?;
    let (first, second) = memory.split_at(memory.len() / 2);
    let most = |samples: &[u64]| samples.iter().copied().max().unwrap_or(0);
    Ok(Overload {
        knee_per_second: round(f64::midpoint(knee, knee_after)),
        sent_per_second: round(knee * TIMES),
        connections: CONNECTIONS_MANY.min(40 * size.followers),
        goodput_per_second: round(storm.in_time as f64 / size.storm.as_secs_f64()),
        acknowledged: storm.in_time + storm.late,
        refused: storm.refused,
        late: storm.late,
        unsent: storm.unsent,
        memory_first_half_bytes: most(first),
        memory_second_half_bytes: most(second),
        p99_before_ms: round(before),
        p99_after_ms: round(after),
        recovery_seconds: seconds,
    })
}

/// Awaits a load and looks at the memory of the server meanwhile.
async fn with_memory<T>(server: &Server, load: impl Future<Output = T>) -> (T, Vec<u64>) {
    let mut samples = Vec::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut load = std::pin::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => return (done, samples),
            _ = looks.tick() => samples.extend(server.memory_bytes()),
        }
    }
}
