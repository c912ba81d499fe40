//! `plinth bench`: measures a node against the limits of the machine that it runs on, in one run.
//!
//! Client and node share the machine, so absolute figures mean little elsewhere; the ratios do. While it measures it
//! checks: every acknowledged record is there once, offsets are dense, followers see every record in order. A violation
//! ends the run with an error; a figure below its aim does not.

mod auth;
pub(in crate::cli) mod baseline;
mod catch_up;
mod child;
mod disk;
mod drain;
mod fanout;
mod far;
mod idle;
mod load;
mod neighbour;
mod node;
mod overload;
mod remote;
mod report;
mod rush;
mod scratch;
mod soak;
mod streams;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use plinth_storage::env::{Clock, SystemClock};
use url::Url;

use self::child::Server;
use self::idle::Way;
use self::load::{Shot, Until, check_offsets, closed_loop, open_loop};
use self::node::Node;
use self::report::{Cost, Delivery, Disk, Latency, Machine, Rate, Report, Throughput, Topics, round};
use self::scratch::Scratch;
use self::streams::Peers;
use self::wire::Target;
use super::{Usage, output};

/// Payload of a single record.
const SINGLE_BYTES: usize = 1024;
/// Payload of a record of a batch.
const BATCHED_BYTES: usize = 1000;
/// Records of a batch.
const BATCH_RECORDS: u64 = 100;
/// Connections of the batch run.
const BATCH_CONNECTIONS: usize = 32;
/// How long it may take to make what is measured.
const CREATION_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A node of this machine to measure; without it bench starts one of its own, with a directory store
    #[arg(long, value_name = "URL", requires = "key")]
    url: Option<Url>,
    /// With --url: an API key that may publish, subscribe and manage
    #[arg(long, env = "PLINTH_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    /// Where bench keeps its data while it runs; on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    dir: PathBuf,
    /// Write the results to this file as well
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A few seconds instead of minutes: shows that it runs, its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Only these parts, with the yardsticks that they are compared with
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    #[command(flatten)]
    peers: Peers,
    /// With `--only soak`: how long
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    soak_minutes: u64,
    /// With `--only soak`: how large a log is written before
    #[arg(long, value_name = "GB", default_value_t = 20)]
    soak_log: u64,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Single records, as fast as possible and at half of that
    Publish,
    /// Batches in, and the same topic out
    Batches,
    /// Each record to many followers
    FanOut,
    /// Topics made one by one
    Topics,
    /// Followers that nothing happens to, and how they come back after a drain
    Idle,
    /// What it costs to check a credential that was seen before
    Auth,
    /// Batches on a store in memory, and single records on one that is slow
    Stores,
    /// A quiet tenant beside one that sends ten times what it may
    Neighbour,
    /// Single records of a tenant with quotas, and of one without
    Quotas,
    /// Five times what the node can do
    Overload,
    /// Streams, beside other servers of them where --peer-durable-streams and --peer-s2 name some
    Streams,
    /// A large log and minutes of full load: whether anything grows. Only when it is named; takes a large disk
    Soak,
}

/// How much is measured.
struct Size {
    connections: &'static [usize],
    warm_up: Duration,
    time: Duration,
    durable_files: usize,
    blocks: u32,
    batches: u64,
    followers: usize,
    fan_out_records: u64,
    fan_out_rate: u32,
    topics: usize,
    topics_at_once: usize,
    idle: usize,
    /// Rounds of the comparison with quotas, whose difference is small beside what a disk's speed changes by in seconds.
    rounds: usize,
    storm: Duration,
    /// Streams that are appended to at the same time.
    streams: usize,
    tail_records: u64,
    /// Connections to a node whose store is far away.
    far_connections: &'static [usize],
}

const FULL: Size = Size {
    connections: &[64, 256],
    warm_up: Duration::from_secs(2),
    time: Duration::from_secs(10),
    durable_files: 200,
    blocks: 64,
    batches: 5_400,
    followers: 1000,
    fan_out_records: 2000,
    fan_out_rate: 200,
    topics: 50_000,
    topics_at_once: 10_000,
    idle: 15_000,
    rounds: 25,
    storm: Duration::from_secs(60),
    streams: 1000,
    tail_records: 300,
    far_connections: &[100, 1000],
};

const QUICK: Size = Size {
    connections: &[8],
    warm_up: Duration::from_millis(100),
    time: Duration::from_millis(500),
    durable_files: 5,
    blocks: 2,
    batches: 40,
    followers: 20,
    fan_out_records: 5,
    fan_out_rate: 10,
    topics: 100,
    topics_at_once: 100,
    idle: 20,
    rounds: 1,
    storm: Duration::from_secs(1),
    streams: 20,
    tail_records: 5,
    far_connections: &[8],
};

/// What is measured.
struct Plan {
    size: Size,
    /// Empty for all but the soak.
    only: Vec<Part>,
    /// Its log in GB, and its minutes.
    soak: (u64, u64),
    peers: Peers,
}

impl Plan {
    fn has(&self, part: Part) -> bool {
        let all = self.only.is_empty() && part != Part::Soak;
        all || self.only.contains(&part)
    }

    async fn measure(&self, node: &Node, report: &mut Report) -> anyhow::Result<()> {
        let size = &self.size;
        // Names of this run, so that a node can be measured again.
        let run = format!("bench-{}", SystemClock.now().0);
        if self.has(Part::Publish) {
            publish(node, &run, size, report).await?;
            latency(node, &run, size, report).await?;
        }
        if self.has(Part::Batches) {
            batches(node, &run, size, report).await?;
        }
        if self.has(Part::FanOut) {
            fan_out(node, &run, size, report).await?;
        }
        if self.has(Part::Topics) {
            topics(node, &run, size, report).await?;
        }
        Ok(())
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    super::limits::raise_open_files();
    let (size, soak) = (if args.quick { QUICK } else { FULL }, (args.soak_log, args.soak_minutes));
    let plan = Plan { size, only: args.only, soak, peers: args.peers };
    let dir = Scratch::make(&args.dir)?;
    let mut report = Report {
        date: date()?,
        version: env!("CARGO_PKG_VERSION"),
        commit: commit(),
        machine: Machine::this(),
        store: args.url.as_ref().map_or_else(|| "file:// with fsync".to_owned(), |url| format!("that of {url}")),
        durability: "object",
        quick: args.quick,
        disk: None,
        baseline: None,
        publish: Vec::new(),
        latency: None,
        batches: None,
        catch_up: None,
        catch_up_batches: None,
        fan_out: None,
        topics: None,
        idle: Vec::new(),
        drain: Vec::new(),
        authentication: Vec::new(),
        memory_batches: None,
        remote: None,
        soak: None,
        neighbour: None,
        quota_cost: None,
        overload: None,
        streams: None,
        far: Vec::new(),
        memory_peak_bytes: None,
        targets: Vec::new(),
    };
    match (&args.url, &args.key) {
        (Some(url), Some(key)) => plan.measure(&Node::with_key(url, key).await?, &mut report).await?,
        (Some(_), None) => return Err(Usage("--url needs --key".to_owned()).into()),
        (None, _) => own_node(dir.path(), &plan, &mut report).await?,
    }
    report.judge();
    finish(&report, args.out.as_deref())
}

/// Everything, with a node of our own: also the yardsticks of disk and handler, and its memory.
async fn own_node(dir: &Path, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    report.disk = Some(disk(dir, &plan.size).await?);
    if plan.has(Part::Publish) {
        report.baseline = Some(baseline(&plan.size).await?);
    }
    let store = format!("file://{}", dir.join("objects").display());
    let (server, node) = node::own(&dir.join("main"), &store).await?;
    plan.measure(&node, report).await?;
    report.memory_peak_bytes = server.memory_peak_bytes();
    server.stop().await?;
    if plan.has(Part::Idle) {
        for (way, name) in [(Way::Events, "idle-events"), (Way::WebSocket, "idle-websocket")] {
            output::say(&format!("{} idle followers by {}", plan.size.idle, way.name()));
            report.idle.push(idle::run(&dir.join(name), way, plan.size.idle).await?);
            output::say(&format!("drain of {} followers by {}", plan.size.idle, way.name()));
            report.drain.push(drain::run(&dir.join(format!("{name}-drain")), way, plan.size.idle).await?);
        }
    }
    if plan.has(Part::Auth) {
        output::say("authentication by an API key and by a token");
        report.authentication = auth::run(plan.size.warm_up).await?;
    }
    if plan.has(Part::Stores) {
        report.memory_batches = Some(memory_batches(dir, &plan.size).await?);
        report.remote = Some(remote::run(&dir.join("remote"), &plan.size, single()).await?);
    }
    if plan.has(Part::Neighbour) {
        report.neighbour = Some(neighbour::run(&dir.join("neighbour"), &plan.size, single()).await?);
    }
    if plan.has(Part::Quotas) {
        report.quota_cost = Some(neighbour::cost(&dir.join("quotas"), &plan.size, single()).await?);
    }
    if plan.has(Part::Overload) {
        report.overload = Some(overload::run(&dir.join("overload"), &plan.size, single()).await?);
    }
    if plan.has(Part::Streams) {
        let (dir, peer) = (dir.join("streams"), plan.peers.durable_streams.as_deref());
        report.streams = Some(streams::run(&dir, peer, &plan.size).await?);
        report.far = far::run(&dir.join("far"), &plan.peers, &plan.size).await?;
    }
    if plan.has(Part::Soak) {
        report.soak = Some(soak::run(&dir.join("soak"), plan.soak.0, plan.soak.1).await?);
    }
    Ok(())
}

/// Batches where no disk is in the way.
async fn memory_batches(dir: &Path, size: &Size) -> anyhow::Result<Throughput> {
    output::say(&format!("publish batches on a store in memory: {} of 100 x 1 KB", size.batches));
    let (server, node) = node::own(&dir.join("memory"), "memory://").await?;
    let shot = Shot::publish(node.topic("batches").await?, "application/x-ndjson", batch(), BATCH_RECORDS);
    let until = Until { time: Duration::from_secs(120), requests: size.batches };
    let load = closed_loop(&node.target, &shot, BATCH_CONNECTIONS, until).await?;
    let records = load.acknowledged * BATCH_RECORDS;
    check_offsets(load.offsets, BATCH_RECORDS, node.tail("batches").await?)?;
    server.stop().await?;
    Ok(Throughput::of(records, BATCHED_BYTES, load.time.as_secs_f64(), None))
}

async fn topics(node: &Node, run: &str, size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let connections = size.connections.first().copied().unwrap_or(1);
    output::say(&format!("{} topics: {connections} connections", size.topics));
    let paths = (0..size.topics).map(|number| format!("/v1/topics/{run}-{number}")).collect();
    let load = creation(&node.target, &paths, connections).await?;
    report.topics = Some(Topics { topics: size.topics, connections, topics_per_second: round(load.per_second()) });
    Ok(())
}

/// Makes a topic at each of these paths.
async fn creation(target: &Target, paths: &Arc<[String]>, connections: usize) -> anyhow::Result<load::Load> {
    let body = Bytes::from_static(b"{}");
    let shot = Shot { method: "PUT", paths: paths.clone(), content_type: "application/json", body, records: 0 };
    let until = Until { time: CREATION_MAX, requests: paths.len() as u64 };
    let load = closed_loop(target, &shot, connections, until).await?;
    let made = usize::try_from(load.acknowledged)?;
    anyhow::ensure!(made == paths.len(), "{made} of {} topics were made", paths.len());
    Ok(load)
}

async fn disk(dir: &Path, size: &Size) -> anyhow::Result<Disk> {
    output::say("disk: durable files of 64 KiB, synced blocks of 4 MiB");
    let (dir, files, blocks) = (dir.to_owned(), size.durable_files, size.blocks);
    let measure = move || anyhow::Ok((disk::durable_file(&dir, files)?, disk::synced_blocks(&dir, blocks)?));
    let (file, bytes_per_second) = tokio::task::spawn_blocking(measure).await??;
    Ok(Disk {
        durable_file_64_kib_ms: round(file.as_secs_f64() * 1000.0),
        synced_4_mib_blocks_mb_per_second: round(bytes_per_second / 1e6),
    })
}

/// The bare handler at the largest number of connections.
async fn baseline(size: &Size) -> anyhow::Result<Rate> {
    let connections = size.connections.iter().copied().max().unwrap_or(1);
    output::say(&format!("bare handler: {connections} connections"));
    let server = Server::baseline().await?;
    let target = Target { address: server.address, key: None, header: None };
    let shot = Shot::publish("/".to_owned(), "application/octet-stream", single(), 0);
    closed_loop(&target, &shot, connections, until(size.warm_up)).await?;
    let load = closed_loop(&target, &shot, connections, until(size.time)).await?;
    server.stop().await?;
    Ok(Rate::of(connections, SINGLE_BYTES, &load, None))
}

async fn publish(node: &Node, run: &str, size: &Size, report: &mut Report) -> anyhow::Result<()> {
    for &connections in size.connections {
        output::say(&format!("publish 1 KiB: {connections} connections"));
        let name = format!("{run}-single-{connections}");
        let shot = shot(node, &format!("{name}-warm-up")).await?;
        closed_loop(&node.target, &shot, connections, until(size.warm_up)).await?;
        let shot = self::shot(node, &name).await?;
        let before = node.store_calls().await;
        let load = closed_loop(&node.target, &shot, connections, until(size.time)).await?;
        let cost = cost(node, before, load.acknowledged).await;
        report.publish.push(Rate::of(connections, SINGLE_BYTES, &load, cost));
        check_offsets(load.offsets, 1, node.tail(&name).await?)?;
        node.delete(&name).await?;
        node.delete(&format!("{name}-warm-up")).await?;
    }
    Ok(())
}

async fn latency(node: &Node, run: &str, size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let rate = report.publish.iter().map(|rate| rate.requests_per_second).fold(1.0, f64::max) / 2.0;
    let connections = size.connections.iter().copied().max().unwrap_or(1);
    output::say(&format!("publish 1 KiB: {rate:.0} per second, half of the maximum"));
    let name = format!("{run}-latency");
    let shot = shot(node, &name).await?;
    let load = open_loop(&node.target, &shot, connections, rate, size.time).await?;
    report.latency = Some(Latency::of(connections, rate, &load));
    check_offsets(load.offsets, 1, node.tail(&name).await?)?;
    node.delete(&name).await
}

/// Batches in, then the same topic out, as text and as it is stored.
async fn batches(node: &Node, run: &str, size: &Size, report: &mut Report) -> anyhow::Result<()> {
    output::say(&format!("publish batches: {} of 100 x 1 KB", size.batches));
    let name = format!("{run}-batch");
    let path = node.topic(&name).await?;
    let shot = Shot::publish(path.clone(), "application/x-ndjson", batch(), BATCH_RECORDS);
    let until = Until { time: Duration::from_secs(120), requests: size.batches };
    let before = node.store_calls().await;
    let load = closed_loop(&node.target, &shot, BATCH_CONNECTIONS, until).await?;
    let records = load.acknowledged * BATCH_RECORDS;
    let cost_in = cost(node, before, records).await;
    report.batches = Some(Throughput::of(records, BATCHED_BYTES, load.time.as_secs_f64(), cost_in));
    check_offsets(load.offsets, BATCH_RECORDS, node.tail(&name).await?)?;

    output::say(&format!("catch-up by NDJSON: {records} records"));
    let before = node.store_calls().await;
    let time = catch_up::run(node, &path, records).await?;
    let cost_out = cost(node, before, records).await;
    report.catch_up = Some(Throughput::of(records, BATCHED_BYTES, time.as_secs_f64(), cost_out));

    output::say(&format!("catch-up as stored batches: {records} records"));
    let before = node.store_calls().await;
    let time = catch_up::run_batches(node, &path, records).await?;
    let cost_out = cost(node, before, records).await;
    report.catch_up_batches = Some(Throughput::of(records, BATCHED_BYTES, time.as_secs_f64(), cost_out));
    node.delete(&name).await
}

async fn fan_out(node: &Node, run: &str, size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let (records, rate) = (size.fan_out_records, size.fan_out_rate);
    output::say(&format!("fan-out: {} followers, {records} records, {rate} per second", size.followers));
    let name = format!("{run}-fan-out");
    let path = node.topic(&name).await?;
    let ways = (format!("{path}?from=latest"), path);
    let seen = fanout::run(&node.target, &ways, size.followers, (records, rate)).await?;
    let ms = |quantile: f64| seen.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    report.fan_out = Some(Delivery {
        followers: size.followers,
        records_per_second: rate,
        records,
        deliveries: seen.deliveries,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        max_ms: ms(1.0),
    });
    node.delete(&name).await
}

async fn shot(node: &Node, topic: &str) -> anyhow::Result<Shot> {
    let path = node.topic(topic).await?;
    Ok(Shot::publish(path, "application/octet-stream", single(), 1))
}

async fn cost(node: &Node, before: Option<node::StoreCalls>, records: u64) -> Option<Cost> {
    Some(Cost::between(before?, node.store_calls().await?, records))
}

fn until(time: Duration) -> Until {
    Until { time, requests: u64::MAX }
}

fn single() -> Bytes {
    Bytes::from(disk::noise(SINGLE_BYTES))
}

/// Lines of JSON text of 1,000 bytes each, hexadecimal noise.
fn batch() -> Bytes {
    let mut body = String::new();
    let noise = disk::noise(BATCHED_BYTES * 100 / 2);
    for bytes in noise.chunks(BATCHED_BYTES / 2) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        body.push_str(&format!("\"{}\"\n", &hex[..BATCHED_BYTES - 2]));
    }
    Bytes::from(body)
}

fn date() -> anyhow::Result<String> {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(SystemClock.now().0);
    Ok(humantime::format_rfc3339_seconds(time).to_string())
}

/// The commit of the working directory, when it is a checkout.
fn commit() -> Option<String> {
    let output = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn finish(report: &Report, out: Option<&Path>) -> anyhow::Result<()> {
    if let Some(path) = out {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(report)?).with_context(|| path.display().to_string())?;
    }
    for aim in &report.targets {
        let verdict = if aim.reached { "reached" } else { "NOT reached" };
        output::say(&format!("{verdict:>11}  {}: {} (aim {})", aim.name, aim.measured, aim.bound));
    }
    output::object(report)
}
