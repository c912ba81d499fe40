//! What one tenant notices of another one that sends ten times what it may, and what quotas cost who has some.

use std::path::Path;

use bytes::Bytes;
use plinth_api::quotas::Quotas;

use super::load::{Load, Shot, closed_loop, open_loop};
use super::node::{Node, own};
use super::report::{Neighbour, QuotaCost, round};
use super::{Size, until};
use crate::cli::output;

/// Connections of each tenant, and of the search for the knee.
const CONNECTIONS: usize = 64;
/// Connections of the comparison with and without quotas.
const CONNECTIONS_COMPARED: usize = 256;
/// What the quiet tenant sends, of what the node can do.
const QUIET: f64 = 0.1;
/// What the noisy one may send, of what the node can do.
const NOISY: f64 = 0.04;
/// How often each side is measured, in turns.
const ROUNDS: usize = 5;

/// The p99 of a quiet tenant, alone and beside a noisy one.
pub(super) async fn run(dir: &Path, size: &Size, body: Bytes) -> anyhow::Result<Neighbour> {
    output::say("a quiet tenant, alone and beside one that sends ten times what it may");
    let (server, node) = own(dir, &format!("file://{}", dir.join("objects").display())).await?;
    let quiet = shot(&node, &body).await?;
    closed_loop(&node.target, &quiet, CONNECTIONS, until(size.warm_up)).await?;
    let knee = closed_loop(&node.target, &quiet, CONNECTIONS, until(size.time / 2)).await?.per_second();
    let allowed = (knee * NOISY).max(1.0);
    let quotas = Quotas { publish_records_per_second: Some(allowed as u64), ..Quotas::default() };
    let other = node.tenant("noisy", quotas).await?;
    let noisy = shot(&other, &body).await?;
    let (mut alone, mut beside, mut stored, mut refused) = (Vec::new(), Vec::new(), 0.0, 0);
    for _ in 0..ROUNDS {
        let time = size.time / 2;
        let load = open_loop(&node.target, &quiet, CONNECTIONS, knee * QUIET, time).await?;
        alone.push(whole(&load)?);
        let (load, noise) = tokio::try_join!(
            open_loop(&node.target, &quiet, CONNECTIONS, knee * QUIET, time),
            open_loop(&other.target, &noisy, CONNECTIONS, allowed * 10.0, time),
        )?;
        beside.push(whole(&load)?);
        stored += noise.per_second() / ROUNDS as f64;
        refused += noise.refused;
    }
    server.stop().await?;
    Ok(Neighbour {
        knee_per_second: round(knee),
        quiet_per_second: round(knee * QUIET),
        noisy_quota_per_second: round(allowed),
        noisy_sent_per_second: round(allowed * 10.0),
        noisy_stored_per_second: round(stored),
        noisy_refused: refused,
        p99_alone_ms: round(median(&mut alone)),
        p99_beside_ms: round(median(&mut beside)),
    })
}

/// Publishes per second of a tenant without quotas, and of one with all of them.
pub(super) async fn cost(dir: &Path, size: &Size, body: Bytes) -> anyhow::Result<QuotaCost> {
    output::say(&format!("publish 1 KiB: {CONNECTIONS_COMPARED} connections, without quotas and with"));
    let (server, node) = own(dir, &format!("file://{}", dir.join("objects").display())).await?;
    let much = Some(1_000_000_000_000);
    let quotas = Quotas {
        requests_per_second: much,
        publish_bytes_per_second: much,
        publish_records_per_second: much,
        delivered_bytes_per_second: much,
        delivered_records_per_second: much,
        connections: much,
        followers: much,
        topics: much,
        storage_bytes: much,
    };
    let limited = node.tenant("limited", quotas).await?;
    let sides = [(&node, shot(&node, &body).await?), (&limited, shot(&limited, &body).await?)];
    let (mut rates, mut cpu) = ([Vec::new(), Vec::new()], [0.0; 2]);
    for turn in 0..=size.rounds {
        // Who is first takes turns as well.
        for place in [turn % 2, 1 - turn % 2] {
            let (side, shot) = &sides[place];
            let before = server.cpu_seconds();
            let load = closed_loop(&side.target, shot, CONNECTIONS_COMPARED, until(size.time / 10)).await?;
            // The first round warms both up.
            if turn > 0 {
                rates[place].push(load.per_second());
                let used = server.cpu_seconds().zip(before).map_or(0.0, |(after, before)| after - before);
                cpu[place] += used * 1e6 / load.acknowledged.max(1) as f64 / size.rounds as f64;
            }
        }
    }
    server.stop().await?;
    // Of a round with itself: what a disk's speed changes by from round to round is in neither.
    let mut ratios: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(with, without)| with / without).collect();
    let [without, with] = rates.map(|mut rates| median(&mut rates));
    Ok(QuotaCost {
        connections: CONNECTIONS_COMPARED,
        ratio: round(median(&mut ratios)),
        without_cpu_us: round(cpu[0]),
        with_cpu_us: round(cpu[1]),
        without_per_second: round(without),
        with_per_second: round(with),
    })
}

async fn shot(node: &Node, body: &Bytes) -> anyhow::Result<Shot> {
    Ok(Shot::publish(node.topic("one").await?, "application/octet-stream", body.clone(), 1))
}

/// The p99 of a load of which nothing was refused.
fn whole(load: &Load) -> anyhow::Result<f64> {
    anyhow::ensure!(load.refused == 0, "{} requests of the quiet tenant were refused", load.refused);
    Ok(load.ms(0.99))
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
