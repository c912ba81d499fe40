//! One record to many: followers by server-sent events, records published one by one, the time until each has each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::wire::{Pieces, Target, Wire, number_after};

/// Followers that connect at the same time.
const CONNECTING_MAX: usize = 64;
/// How long the last record may take to reach the last follower.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of an event that has not ended.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// What is before the number of a record.
const SEQ: &[u8] = b"\"seq\":";

/// What the followers saw; each saw every record once and in order.
pub(super) struct FanOut {
    pub(super) latency_us: Histogram<u64>,
    pub(super) deliveries: u64,
}

/// `records` records, `rate` of them per second, published at one path to `followers` followers of another one.
pub(super) async fn run(
    target: &Target,
    (follow_at, publish_at): &(String, String),
    followers: usize,
    (records, rate): (u64, u32),
) -> anyhow::Result<FanOut> {
    let epoch = Instant::now();
    let gate = Arc::new(Semaphore::new(CONNECTING_MAX));
    let ready = Arc::new(Semaphore::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..followers {
        let (target, path, gate, ready) = (target.clone(), follow_at.clone(), gate.clone(), ready.clone());
        tasks.spawn(async move {
            let permit = gate.acquire().await?;
            let mut pieces = Wire::connect(&target).await?.stream(&path, "text/event-stream").await?;
            // The answer's first bytes come when the position is fixed.
            let first = pieces.next().await?.context("the stream ended at once")?;
            drop(permit);
            ready.add_permits(1);
            follow(pieces, first, records, epoch).await
        });
    }
    all_ready(&ready, followers, &mut tasks).await?;
    publish(target, publish_at, (records, rate), epoch).await?;
    let mut sum = FanOut { latency_us: Histogram::new_with_bounds(1, 120_000_000, 3)?, deliveries: 0 };
    while let Some(seen) = timeout(PATIENCE, tasks.join_next()).await.context("followers wait in vain for a record")? {
        sum.latency_us.add(seen??)?;
        sum.deliveries += records;
    }
    Ok(sum)
}

/// Waits for every follower's beginning; one that ends before is the failure to report.
async fn all_ready(
    ready: &Semaphore,
    followers: usize,
    tasks: &mut JoinSet<anyhow::Result<Histogram<u64>>>,
) -> anyhow::Result<()> {
    let count = u32::try_from(followers)?;
    tokio::select! {
        permits = ready.acquire_many(count) => permits?.forget(),
        ended = tasks.join_next(), if followers > 0 => {
            ended.context("there are followers")???;
            anyhow::bail!("a follower ended before the first record");
        }
    }
    Ok(())
}

async fn publish(target: &Target, path: &str, (records, rate): (u64, u32), epoch: Instant) -> anyhow::Result<()> {
    let mut wire = Wire::connect(target).await?;
    let mut ticks = interval(Duration::from_secs(1) / rate);
    for seq in 0..records {
        ticks.tick().await;
        let body = format!("{{\"seq\":{seq},\"sent_us\":{},\"pad\":\"{}\"}}", micros(epoch), "x".repeat(200));
        let answer = wire.post(path, "application/json", Bytes::from(body)).await?;
        anyhow::ensure!(matches!(answer.status, 201 | 204), "record {seq} is answered {}", answer.status);
    }
    Ok(())
}

async fn follow(mut pieces: Pieces, first: Bytes, records: u64, epoch: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_bounds(1, 120_000_000, 3)?;
    let mut rest = first.to_vec();
    let mut expected = 0;
    loop {
        while let Some(end) = memchr::memmem::find(&rest, b"\n\n") {
            // Of a stream an event may hold several.
            for at in memchr::memmem::find_iter(&rest[..end], SEQ) {
                let record = &rest[at..end];
                let (seq, sent) = (number_after(record, SEQ), number_after(record, b"\"sent_us\":"));
                let (seq, sent) = seq.zip(sent).context("a record without a number or a time")?;
                anyhow::ensure!(seq == expected, "a follower saw record {seq} when {expected} was next");
                latency.saturating_record(micros(epoch).saturating_sub(sent).max(1));
                expected += 1;
            }
            rest.drain(..end + 2);
        }
        if expected == records {
            return Ok(latency);
        }
        anyhow::ensure!(rest.len() <= EVENT_BYTES_MAX, "an event is longer than {EVENT_BYTES_MAX} bytes");
        rest.extend_from_slice(&pieces.next().await?.context("the stream ended early")?);
    }
}

fn micros(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
}
