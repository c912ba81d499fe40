//! Load: as fast as the connections allow, or at a given rate with the times of sending laid down beforehand.
//!
//! At a given rate the latency counts from the intended time, not from the moment a connection was free: a server that
//! stalls cannot hide it by making the client wait (coordinated omission).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::wire::{Target, Wire, number_after};

/// Most requests of one run, whatever its time.
const REQUESTS_MAX: u64 = 20_000_000;
/// Sends that may be due and not yet begun.
const DUE_MAX: usize = 1 << 20;

/// What is sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) method: &'static str,
    /// Each request takes the next of these.
    pub(super) paths: Arc<[String]>,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    /// Records of one request; 0: the answer is no receipt.
    pub(super) records: u64,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Load {
    /// Of the requests that were acknowledged, in microseconds.
    pub(super) latency_us: Histogram<u64>,
    /// The first offset of each acknowledged request.
    pub(super) offsets: Vec<u64>,
    /// Requests that were acknowledged.
    pub(super) acknowledged: u64,
    /// Requests that were refused as not stored.
    pub(super) refused: u64,
    /// From the first send to the last answer.
    pub(super) time: Duration,
}

impl Load {
    pub(super) fn per_second(&self) -> f64 {
        self.acknowledged as f64 / self.time.as_secs_f64().max(1e-9)
    }

    pub(super) fn ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn none() -> anyhow::Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, 120_000_000, 3)?;
        Ok(Self { latency_us, offsets: Vec::new(), acknowledged: 0, refused: 0, time: Duration::ZERO })
    }

    fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.latency_us.add(&other.latency_us)?;
        self.offsets.extend(other.offsets);
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        Ok(())
    }

    /// Sends the request `number`; `since` when it should have been.
    async fn fire(&mut self, wire: &mut Wire, shot: &Shot, (number, since): (u64, Instant)) -> anyhow::Result<()> {
        match shot.fire(wire, number).await? {
            Answer::Stored(offset) => {
                let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.latency_us.saturating_record(micros.max(1));
                self.acknowledged += 1;
                self.offsets.extend(offset);
            }
            Answer::Refused => self.refused += 1,
        }
        Ok(())
    }
}

/// What the server says of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// It is stored, its first record at this offset if the answer is a receipt.
    Stored(Option<u64>),
    /// It is not stored, because of a quota or of the load.
    Refused,
}

impl Shot {
    /// Publishes of `body`, with `records` records, to the topic at `path`.
    pub(super) fn publish(path: String, content_type: &'static str, body: Bytes, records: u64) -> Self {
        Self { method: "POST", paths: [path].into(), content_type, body, records }
    }

    /// Sends the request `number`.
    pub(super) async fn fire(&self, wire: &mut Wire, number: u64) -> anyhow::Result<Answer> {
        let path = &self.paths[usize::try_from(number).unwrap_or(0) % self.paths.len()];
        let answer = wire.send(self.method, path, (self.content_type, self.body.clone())).await?;
        match answer.status {
            200 | 201 | 204 if self.records == 0 => Ok(Answer::Stored(None)),
            200 | 201 => {
                let offset = number_after(&answer.body, b"\"offset\":").context("a receipt without an offset")?;
                Ok(Answer::Stored(Some(offset)))
            }
            429 | 503 => Ok(Answer::Refused),
            status => anyhow::bail!("answer {status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
}

/// When a run as fast as possible ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub(super) time: Duration,
    pub(super) requests: u64,
}

/// Every connection sends its next request when it has the answer to the last.
pub(super) async fn closed_loop(
    target: &Target,
    shot: &Shot,
    connections: usize,
    until: Until,
) -> anyhow::Result<Load> {
    let mut wires = Vec::with_capacity(connections);
    for _ in 0..connections {
        wires.push(Wire::connect(target).await?);
    }
    let start = Instant::now();
    let tickets = Arc::new(std::sync::atomic::AtomicU64::new(until.requests.min(REQUESTS_MAX)));
    let mut workers = JoinSet::new();
    for mut wire in wires {
        let (shot, tickets) = (shot.clone(), tickets.clone());
        workers.spawn(async move {
            let mut load = Load::none()?;
            while start.elapsed() < until.time
                && let Some(number) = take(&tickets)
            {
                load.fire(&mut wire, &shot, (number, Instant::now())).await?;
            }
            anyhow::Ok(load)
        });
    }
    sum(workers, start).await
}

/// `rate` requests per second for `time`, on `connections` connections.
pub(super) async fn open_loop(
    target: &Target,
    shot: &Shot,
    connections: usize,
    rate: f64,
    time: Duration,
) -> anyhow::Result<Load> {
    let total = ((rate * time.as_secs_f64()) as u64).min(REQUESTS_MAX);
    let (sender, due) = mpsc::channel(DUE_MAX);
    let due = Arc::new(Mutex::new(due));
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (mut wire, shot, due) = (Wire::connect(target).await?, shot.clone(), due.clone());
        workers.spawn(async move {
            let mut load = Load::none()?;
            loop {
                let next = due.lock().await.recv().await;
                let Some(next) = next else { return anyhow::Ok(load) };
                load.fire(&mut wire, &shot, next).await?;
            }
        });
    }
    let start = Instant::now();
    let pacer = std::thread::spawn(move || pace(start, rate, total, &sender));
    let load = sum(workers, start).await;
    pacer.join().map_err(|_| anyhow::anyhow!("the pacer failed"))?;
    load
}

/// Lays down the intended times. A thread of its own: the runtime's timer is too coarse, a millisecond.
#[expect(clippy::disallowed_methods, reason = "the cadence of a load is a matter of time and nothing else")]
fn pace(start: Instant, rate: f64, total: u64, sender: &mpsc::Sender<(u64, Instant)>) {
    for i in 0..total {
        let intended = start + Duration::from_secs_f64(i as f64 / rate);
        if let Some(left) = intended.checked_duration_since(Instant::now()) {
            std::thread::sleep(left);
        }
        if sender.blocking_send((i, intended)).is_err() {
            return;
        }
    }
}

async fn sum(mut workers: JoinSet<anyhow::Result<Load>>, start: Instant) -> anyhow::Result<Load> {
    let mut all = Load::none()?;
    while let Some(load) = workers.join_next().await {
        all.add(load??)?;
    }
    all.time = start.elapsed();
    Ok(all)
}

/// The next ticket, counted down.
fn take(tickets: &std::sync::atomic::AtomicU64) -> Option<u64> {
    use std::sync::atomic::Ordering::Relaxed;
    tickets.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()
}

/// Checks that the offsets are those of a topic of `tail` records that only these requests wrote: none lost, none
/// twice, none shared.
pub(super) fn check_offsets(mut offsets: Vec<u64>, records: u64, tail: u64) -> anyhow::Result<()> {
    offsets.sort_unstable();
    for (i, offset) in (0..).zip(&offsets) {
        anyhow::ensure!(*offset == i * records, "request {i} should have offset {}, has {offset}", i * records);
    }
    let acknowledged = offsets.len() as u64 * records;
    anyhow::ensure!(acknowledged == tail, "{acknowledged} records were acknowledged, but the tail is {tail}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_foreign_records_are_noticed() {
        assert!(check_offsets(vec![100, 0, 200], 100, 300).is_ok());
        assert!(check_offsets(vec![0, 100], 100, 300).is_err());
        assert!(check_offsets(vec![0, 0, 100], 100, 300).is_err());
        assert!(check_offsets(vec![0, 50], 100, 200).is_err());
    }
}
