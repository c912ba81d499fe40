//! Streams by the protocol of Durable Streams: appends, reads and tails, beside another server of the protocol, in turns.
//!
//! Both have their data on the same disk and answer when it is synced. What was acknowledged is read back and counted.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use url::Url;

use super::child::Server;
use super::fanout;
use super::load::{Load, Shot, Until, closed_loop};
use super::node::own;
use super::report::{Compared, Streams, TailTime, Tails, TurnRate, round};
use super::wire::{Target, Wire};
use super::{Size, disk, until};
use crate::cli::output;

/// Content of one append.
const APPEND_BYTES: usize = 100;
/// Content of the stream that is read.
const READ_BYTES: usize = 1024;
/// Connections of all but the tails.
pub(super) const CONNECTIONS: usize = 64;
/// Who follows a stream, and what comes in a second.
const FOLLOWERS: usize = 10;
const PER_SECOND: u32 = 100;
/// How often each side is measured, in turns; a round before that warms up.
const ROUNDS: usize = 5;
/// Media type of what is appended.
const CONTENT_TYPE: &str = "application/octet-stream";
/// Pages of a stream that is read back, at most.
const PAGES_MAX: usize = 100_000;

/// Servers of others, to compare streams with.
#[derive(Debug, clap::Args)]
pub(super) struct Peers {
    /// The server of the crate durable-streams, to compare streams with
    #[arg(long = "peer-durable-streams", value_name = "PROGRAM")]
    pub(super) durable_streams: Option<PathBuf>,
    /// The command line of S2, whose `lite` appends to streams are compared with; needs --far-store
    #[arg(long = "peer-s2", value_name = "PROGRAM", requires = "far_store")]
    pub(super) s2: Option<PathBuf>,
    /// s3://bucket on this machine, by AWS_ENDPOINT and its like, which is put 30 ms away
    #[arg(long, value_name = "URL")]
    pub(super) far_store: Option<Url>,
}

/// One of those that are compared.
pub(super) struct Side {
    pub(super) server: Server,
    pub(super) target: Target,
}

/// Our node and, if there is one, the server of the crate `durable-streams` at `peer`.
pub(super) async fn run(dir: &Path, peer: Option<&Path>, size: &Size) -> anyhow::Result<Streams> {
    let (server, node) = own(&dir.join("node"), &format!("file://{}", dir.join("objects").display())).await?;
    let mut sides = vec![Side { server, target: node.target.clone() }];
    if let Some(program) = peer {
        let server = Server::durable_streams(program, &dir.join("peer")).await?;
        let target = Target { address: server.address, key: None, header: None };
        sides.push(Side { server, target });
    }
    let streams = size.streams;
    output::say(&format!("append 100 B to one stream: {CONNECTIONS} connections"));
    let one = appends(&sides, 1, size).await?;
    output::say(&format!("append 100 B to {streams} streams: {CONNECTIONS} connections"));
    let many = appends(&sides, streams, size).await?;
    output::say(&format!("read a stream of 1 KiB: {CONNECTIONS} connections"));
    let reads = reads(&sides, size).await?;
    output::say(&format!("tail of a stream: {FOLLOWERS} followers, {PER_SECOND} appends per second"));
    let tail = tails(&sides, size).await?;
    for side in sides {
        side.server.stop().await?;
    }
    Ok(Streams { connections: CONNECTIONS, appends_to_one: one, streams, appends_to_many: many, reads, tail })
}

async fn appends(sides: &[Side], streams: usize, size: &Size) -> anyhow::Result<Compared> {
    let names = (0..streams).map(|number| format!("/v1/stream/append-{streams}-{number}"));
    let body = Bytes::from(disk::noise(APPEND_BYTES));
    let shot = Shot { method: "POST", paths: names.collect(), content_type: CONTENT_TYPE, body, records: 0 };
    for side in sides {
        create(&side.target, &shot).await?;
    }
    let shots = vec![shot; sides.len()];
    let (compared, acknowledged) = in_turns(sides, &shots, CONNECTIONS, size).await?;
    for ((side, shot), acknowledged) in sides.iter().zip(&shots).zip(acknowledged) {
        let (expected, mut stored) = (acknowledged * APPEND_BYTES as u64, 0);
        let mut wire = Wire::connect(&side.target).await?;
        for path in &*shot.paths {
            stored += content(&mut wire, path).await?;
        }
        anyhow::ensure!(stored == expected, "{expected} bytes were acknowledged, and {stored} are there");
    }
    Ok(compared)
}

async fn reads(sides: &[Side], size: &Size) -> anyhow::Result<Compared> {
    let path = "/v1/stream/read".to_owned();
    let body = Bytes::from(disk::noise(READ_BYTES));
    for side in sides {
        let mut wire = Wire::connect(&side.target).await?;
        let made = wire.send("PUT", &path, (CONTENT_TYPE, body.clone())).await?;
        anyhow::ensure!(made.status == 201, "a stream is answered {}", made.status);
        let read = wire.send("GET", &path, (CONTENT_TYPE, Bytes::new())).await?;
        anyhow::ensure!(read.status == 200 && read.body == body, "what was stored is not what is read");
    }
    let paths = [format!("{path}?offset=-1")].into();
    let shot = Shot { method: "GET", paths, content_type: CONTENT_TYPE, body: Bytes::new(), records: 0 };
    Ok(in_turns(sides, &vec![shot; sides.len()], CONNECTIONS, size).await?.0)
}

async fn tails(sides: &[Side], size: &Size) -> anyhow::Result<Tails> {
    let mut times = vec![(Vec::new(), Vec::new()); sides.len()];
    let rounds = rounds(size);
    for turn in 0..=rounds {
        for place in places(sides.len(), turn) {
            let target = &sides[place].target;
            let path = format!("/v1/stream/tail-{turn}");
            let made = Wire::connect(target).await?.send("PUT", &path, ("application/json", Bytes::new())).await?;
            anyhow::ensure!(made.status == 201, "a stream is answered {}", made.status);
            let ways = (format!("{path}?offset=now&live=sse"), path);
            let seen = fanout::run(target, &ways, FOLLOWERS, (size.tail_records, PER_SECOND)).await?;
            if turn > 0 {
                times[place].0.push(seen.latency_us.value_at_quantile(0.5) as f64 / 1e3);
                times[place].1.push(seen.latency_us.value_at_quantile(0.99) as f64 / 1e3);
            }
        }
    }
    let times = times
        .into_iter()
        .map(|(mut p50, mut p99)| TailTime { p50_ms: round(median(&mut p50)), p99_ms: round(median(&mut p99)) });
    let mut times = times.collect::<Vec<_>>().into_iter();
    let ours = times.next().context("we are measured")?;
    Ok(Tails { followers: FOLLOWERS, appends_per_second: PER_SECOND, ours, peer: times.next() })
}

/// Sends each side its shot, in turns. Also how much of it each acknowledged in all.
pub(super) async fn in_turns(
    sides: &[Side],
    shots: &[Shot],
    connections: usize,
    size: &Size,
) -> anyhow::Result<(Compared, Vec<u64>)> {
    let mut loads: Vec<Vec<Load>> = sides.iter().map(|_| Vec::new()).collect();
    let mut cpu = vec![0.0; sides.len()];
    let mut acknowledged = vec![0; sides.len()];
    let rounds = rounds(size);
    for turn in 0..=rounds {
        for place in places(sides.len(), turn) {
            let side = &sides[place];
            let before = side.server.cpu_seconds();
            let load = closed_loop(&side.target, &shots[place], connections, until(size.time / 4)).await?;
            anyhow::ensure!(load.refused == 0, "{} requests were refused", load.refused);
            acknowledged[place] += load.acknowledged;
            // The first round warms all up.
            if turn > 0 {
                let used = side.server.cpu_seconds().zip(before).map_or(0.0, |(after, before)| after - before);
                cpu[place] += used * 1e6 / load.acknowledged.max(1) as f64 / rounds as f64;
                loads[place].push(load);
            }
        }
    }
    let ratio = loads.get(1).map(|peer| {
        // Of a round with itself: what a disk's speed changes by from round to round is in neither.
        let ratios = loads[0].iter().zip(peer).map(|(ours, theirs)| ours.per_second() / theirs.per_second());
        round(median(&mut ratios.collect::<Vec<_>>()))
    });
    let mut rates = loads.iter().zip(cpu).map(|(loads, cpu)| rate(loads, cpu));
    let ours = rates.next().context("we are measured")?;
    Ok((Compared { ours, peer: rates.next(), ratio }, acknowledged))
}

fn rate(loads: &[Load], cpu_us: f64) -> TurnRate {
    let of = |what: fn(&Load) -> f64| round(median(&mut loads.iter().map(what).collect::<Vec<_>>()));
    TurnRate {
        requests_per_second: of(Load::per_second),
        p50_ms: of(|load| load.ms(0.5)),
        p99_ms: of(|load| load.ms(0.99)),
        cpu_us: round(cpu_us),
    }
}

/// Makes the streams that `shot` appends to.
pub(super) async fn create(target: &Target, shot: &Shot) -> anyhow::Result<()> {
    let streams = Shot { method: "PUT", body: Bytes::new(), ..shot.clone() };
    let requests = streams.paths.len() as u64;
    let load = closed_loop(target, &streams, CONNECTIONS, Until { requests, ..until(super::CREATION_MAX) }).await?;
    let made = load.acknowledged;
    anyhow::ensure!(made == requests, "{made} of {requests} streams were made");
    Ok(())
}

/// How many bytes are in a stream.
async fn content(wire: &mut Wire, path: &str) -> anyhow::Result<u64> {
    let (mut bytes, mut offset) = (0, "-1".to_owned());
    for _ in 0..PAGES_MAX {
        let page = wire.send("GET", &format!("{path}?offset={offset}"), (CONTENT_TYPE, Bytes::new())).await?;
        anyhow::ensure!(page.status == 200, "a read is answered {}", page.status);
        bytes += page.body.len() as u64;
        if page.header("stream-up-to-date").is_some() {
            return Ok(bytes);
        }
        offset = page.header("stream-next-offset").context("a page without the next offset")?.to_owned();
    }
    anyhow::bail!("{path} does not end within {PAGES_MAX} pages")
}

fn rounds(size: &Size) -> usize {
    ROUNDS.min(size.rounds)
}

/// Who is measured when; who is first takes turns as well.
fn places(sides: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |place| (place + turn) % sides)
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
