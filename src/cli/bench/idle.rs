//! Followers that nothing happens to: what each costs in memory.

use anyhow::Context;
use tokio::task::JoinSet;

use super::child::Server;
use super::node::Node;
use super::wire::{Pieces, Wire};

/// Followers that connect at the same time.
const CONNECTING: usize = 64;

/// What the node's memory grew by for `followers` followers of one topic by server-sent events, in bytes for each.
pub(super) async fn run(server: &Server, node: &Node, topic: &str, followers: usize) -> anyhow::Result<u64> {
    let path = node.topic(topic).await?;
    // What the first connections cost once is not counted.
    let _warm = connect(node, &path, CONNECTING).await?;
    let before = server.memory_bytes().context("the system does not tell a process's memory")?;
    let held = connect(node, &path, followers).await?;
    let after = server.memory_bytes().context("the system does not tell a process's memory")?;
    Ok(after.saturating_sub(before) / held.len().max(1) as u64)
}

async fn connect(node: &Node, path: &str, followers: usize) -> anyhow::Result<Vec<Pieces>> {
    let mut tasks = JoinSet::new();
    for worker in 0..CONNECTING {
        let count = followers / CONNECTING + usize::from(worker < followers % CONNECTING);
        let (target, path) = (node.target.clone(), format!("{path}?from=latest"));
        tasks.spawn(async move {
            let mut held = Vec::with_capacity(count);
            for _ in 0..count {
                let mut pieces = Wire::connect(&target).await?.stream(&path, "text/event-stream").await?;
                // The answer's first bytes come when the position is fixed.
                pieces.next().await?.context("the stream ended at once")?;
                held.push(pieces);
            }
            anyhow::Ok(held)
        });
    }
    let mut held = Vec::with_capacity(followers);
    while let Some(some) = tasks.join_next().await {
        held.extend(some??);
    }
    Ok(held)
}
