//! A store that is far away: how long a publish takes, and what many topics cost more than one.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::load::{Shot, Until, closed_loop, open_loop};
use super::node::{Node, own};
use super::report::{Latency, Remote, round};
use super::{Size, until};
use crate::cli::output;

/// What each PUT waits, in milliseconds.
const PUT_LATENCY_MS: u64 = 30;
/// Connections of all runs here.
const CONNECTIONS: usize = 256;

pub(super) async fn run(dir: &Path, size: &Size, body: Bytes) -> anyhow::Result<Remote> {
    output::say(&format!("a store with {PUT_LATENCY_MS} ms per PUT: {CONNECTIONS} connections"));
    let (server, node) = own(dir, &format!("memory://?put_latency_ms={PUT_LATENCY_MS}")).await?;
    let one = Shot::publish(node.topic("one").await?, "application/octet-stream", body, 1);
    closed_loop(&node.target, &one, CONNECTIONS, until(size.warm_up)).await?;
    let most = closed_loop(&node.target, &one, CONNECTIONS, until(size.time)).await?;
    let rate = most.per_second() / 2.0;
    let half = open_loop(&node.target, &one, CONNECTIONS, rate, size.time).await?;

    output::say(&format!("the same over {} topics", size.topics_at_once));
    let many = Shot { paths: topics(&node, size).await?, ..one.clone() };
    let requests = Until { requests: 4 * size.topics_at_once as u64, ..until(size.time * 6) };
    let one_puts = puts(&node, &one, requests).await?;
    let many_puts = puts(&node, &many, requests).await?;
    server.stop().await?;
    Ok(Remote {
        put_latency_ms: PUT_LATENCY_MS,
        requests_per_second: round(most.per_second()),
        latency: Latency::of(CONNECTIONS, rate, &half),
        topics: size.topics_at_once,
        puts_per_1000_records_of_one_topic: round(one_puts),
        puts_per_1000_records_of_many_topics: round(many_puts),
    })
}

/// Makes the topics, by requests as concurrent as the load that follows.
async fn topics(node: &Node, size: &Size) -> anyhow::Result<Arc<[String]>> {
    let names = (0..size.topics_at_once).map(|number| format!("/v1/topics/many-{number}"));
    let paths: Arc<[String]> = names.collect();
    super::creation(&node.target, &paths, CONNECTIONS).await?;
    Ok(paths.iter().map(|path| format!("{path}/records")).collect())
}

async fn puts(node: &Node, shot: &Shot, until: Until) -> anyhow::Result<f64> {
    let before = node.store_calls().await.unwrap_or_default().puts;
    let load = closed_loop(&node.target, shot, CONNECTIONS, until).await?;
    let puts = node.store_calls().await.unwrap_or_default().puts - before;
    Ok(puts / load.acknowledged.max(1) as f64 * 1000.0)
}
