//! The result of a run: what was measured, on what, and how it compares with the aims.

mod streams;

use serde::Serialize;

pub(super) use self::streams::{Compared, Far, Streams, TailTime, Tails, TurnRate};
use super::load::Load;
use crate::cli::prices;

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) date: String,
    pub(super) version: &'static str,
    pub(super) commit: Option<String>,
    pub(super) machine: Machine,
    pub(super) store: String,
    pub(super) durability: &'static str,
    pub(super) quick: bool,
    pub(super) disk: Option<Disk>,
    pub(super) baseline: Option<Rate>,
    pub(super) publish: Vec<Rate>,
    pub(super) latency: Option<Latency>,
    pub(super) batches: Option<Throughput>,
    pub(super) catch_up: Option<Throughput>,
    pub(super) catch_up_batches: Option<Throughput>,
    pub(super) fan_out: Option<Delivery>,
    pub(super) topics: Option<Topics>,
    pub(super) idle: Vec<Idle>,
    pub(super) drain: Vec<Drain>,
    pub(super) authentication: Vec<Authentication>,
    pub(super) memory_batches: Option<Throughput>,
    pub(super) remote: Option<Remote>,
    pub(super) soak: Option<Soak>,
    pub(super) neighbour: Option<Neighbour>,
    pub(super) quota_cost: Option<QuotaCost>,
    pub(super) overload: Option<Overload>,
    pub(super) streams: Option<Streams>,
    pub(super) far: Vec<Far>,
    pub(super) memory_peak_bytes: Option<u64>,
    pub(super) targets: Vec<Aim>,
}

/// Where it ran. Client and server share it.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) cpu: Option<String>,
    pub(super) os: &'static str,
    pub(super) arch: &'static str,
}

/// The physical limits, taken in the same run on the same disk.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Disk {
    pub(super) durable_file_64_kib_ms: f64,
    pub(super) synced_4_mib_blocks_mb_per_second: f64,
}

/// Requests of one record as fast as the connections allow.
#[derive(Debug, Serialize)]
pub(super) struct Rate {
    pub(super) connections: usize,
    pub(super) payload_bytes: usize,
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) cost: Option<Cost>,
}

/// Requests at a given rate; times count from the intended moment of sending.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) connections: usize,
    pub(super) intended_per_second: f64,
    pub(super) reached_per_second: f64,
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// Payload over time.
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) records: u64,
    pub(super) payload_bytes: u64,
    pub(super) seconds: f64,
    pub(super) mb_per_second: f64,
    pub(super) cost: Option<Cost>,
}

/// One record to many followers.
#[derive(Debug, Serialize)]
pub(super) struct Delivery {
    pub(super) followers: usize,
    pub(super) records_per_second: u32,
    pub(super) records: u64,
    pub(super) deliveries: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// Topics made one by one.
#[derive(Debug, Serialize)]
pub(super) struct Topics {
    pub(super) topics: usize,
    pub(super) connections: usize,
    pub(super) topics_per_second: f64,
}

/// Followers to whom nothing happens.
#[derive(Debug, Serialize)]
pub(super) struct Idle {
    pub(super) transport: &'static str,
    pub(super) followers: usize,
    /// Until all of them were connected.
    pub(super) seconds: f64,
    pub(super) memory_bytes_each: u64,
}

/// A node that ends while many follow, and its next start.
#[derive(Debug, Serialize)]
pub(super) struct Drain {
    pub(super) transport: &'static str,
    pub(super) followers: usize,
    /// From the signal to the end of the process.
    pub(super) drain_seconds: f64,
    pub(super) back: usize,
    /// Tries while there was no node, or one that ends.
    pub(super) tries_that_failed: u64,
    /// From the next start to the last who came back.
    pub(super) back_seconds: f64,
    /// How many came back in each second of it.
    pub(super) back_by_second: Vec<u64>,
}

/// Who calls, and whether he may, from a credential that was seen before.
#[derive(Debug, Serialize)]
pub(super) struct Authentication {
    pub(super) credential: &'static str,
    pub(super) calls: u64,
    pub(super) mean_us: f64,
    /// Of rounds of 1,000 calls.
    pub(super) p99_of_rounds_us: f64,
}

/// A store whose PUTs take time.
#[derive(Debug, Serialize)]
pub(super) struct Remote {
    pub(super) put_latency_ms: u64,
    pub(super) requests_per_second: f64,
    pub(super) latency: Latency,
    pub(super) topics: usize,
    pub(super) puts_per_1000_records_of_one_topic: f64,
    pub(super) puts_per_1000_records_of_many_topics: f64,
}

/// Minutes of full load, with a large log behind.
#[derive(Debug, Serialize)]
pub(super) struct Soak {
    pub(super) log_bytes: u64,
    pub(super) filled: Sample,
    pub(super) records: u64,
    pub(super) records_per_second: f64,
    pub(super) memory_peak_bytes: u64,
    /// Bytes put into the store for each stored byte of a record, over log and load.
    pub(super) store_bytes_per_byte: f64,
    pub(super) samples: Vec<Sample>,
}

/// What a node holds at a moment.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    pub(super) seconds: u64,
    pub(super) memory_bytes: u64,
    pub(super) objects: u64,
    pub(super) object_bytes: u64,
    /// Objects created and not deleted, as the node counts them.
    pub(super) objects_by_the_meter: f64,
    pub(super) cache_files: u64,
    pub(super) cache_bytes: u64,
}

/// A quiet tenant beside one that sends ten times what it may; medians of several rounds.
#[derive(Debug, Serialize)]
pub(super) struct Neighbour {
    pub(super) knee_per_second: f64,
    pub(super) quiet_per_second: f64,
    pub(super) noisy_quota_per_second: f64,
    pub(super) noisy_sent_per_second: f64,
    pub(super) noisy_stored_per_second: f64,
    pub(super) noisy_refused: u64,
    pub(super) p99_alone_ms: f64,
    pub(super) p99_beside_ms: f64,
}

/// Publishes of a tenant without quotas and of one with all of them, in turns; medians. And the processor time of the node
/// for one publish.
#[derive(Debug, Serialize)]
pub(super) struct QuotaCost {
    pub(super) connections: usize,
    pub(super) without_per_second: f64,
    pub(super) with_per_second: f64,
    /// The median of what the rounds give, each by itself.
    pub(super) ratio: f64,
    pub(super) without_cpu_us: f64,
    pub(super) with_cpu_us: f64,
}

/// More than the node can do.
#[derive(Debug, Serialize)]
pub(super) struct Overload {
    pub(super) knee_per_second: f64,
    pub(super) sent_per_second: f64,
    pub(super) connections: usize,
    /// Acknowledged within a second of the intended time.
    pub(super) goodput_per_second: f64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    /// Acknowledged after that second.
    pub(super) late: u64,
    /// Never sent, because all connections waited for answers.
    pub(super) unsent: u64,
    pub(super) memory_first_half_bytes: u64,
    pub(super) memory_second_half_bytes: u64,
    pub(super) p99_before_ms: f64,
    pub(super) p99_after_ms: f64,
    pub(super) recovery_seconds: u32,
}

/// What the node asked of the object store for it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cost {
    pub(super) puts: f64,
    pub(super) gets: f64,
    pub(super) s3_dollars_per_million_records: f64,
}

/// A figure that we want, and whether it was reached.
#[derive(Debug, Serialize)]
pub(super) struct Aim {
    pub(super) name: String,
    pub(super) measured: f64,
    pub(super) bound: &'static str,
    pub(super) reached: bool,
}

impl Rate {
    pub(super) fn of(connections: usize, payload_bytes: usize, load: &Load, cost: Option<Cost>) -> Self {
        Self {
            connections,
            payload_bytes,
            requests: load.acknowledged,
            refused: load.refused,
            requests_per_second: round(load.per_second()),
            p50_ms: load.ms(0.5),
            p99_ms: load.ms(0.99),
            cost,
        }
    }
}

impl Latency {
    pub(super) fn of(connections: usize, rate: f64, load: &Load) -> Self {
        Self {
            connections,
            intended_per_second: round(rate),
            reached_per_second: round(load.per_second()),
            requests: load.acknowledged,
            refused: load.refused,
            p50_ms: load.ms(0.5),
            p99_ms: load.ms(0.99),
            max_ms: load.ms(1.0),
        }
    }
}

impl Throughput {
    pub(super) fn of(records: u64, record_bytes: usize, seconds: f64, cost: Option<Cost>) -> Self {
        let payload_bytes = records * record_bytes as u64;
        let mb_per_second = round(payload_bytes as f64 / 1e6 / seconds.max(1e-9));
        Self { records, payload_bytes, seconds: round(seconds), mb_per_second, cost }
    }
}

impl Cost {
    pub(super) fn between(before: super::node::StoreCalls, after: super::node::StoreCalls, records: u64) -> Self {
        let (puts, gets) = (after.puts - before.puts, after.gets - before.gets);
        let dollars = prices::requests(puts, gets);
        Self { puts, gets, s3_dollars_per_million_records: round(dollars / (records as f64).max(1.0) * 1e6) }
    }
}

impl Machine {
    pub(super) fn this() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cores, cpu, os: std::env::consts::OS, arch: std::env::consts::ARCH }
    }
}

impl Report {
    /// Compares with the aims of the project. Each needs its measurement and, if it is a ratio, its yardstick.
    pub(super) fn judge(&mut self) {
        self.judge_publish();
        self.judge_reading();
        self.judge_clients();
        self.judge_stores();
        self.judge_soak();
        self.judge_tenants();
        self.judge_streams();
        if let Some(rate) = self.topics.as_ref().map(|topics| topics.topics_per_second) {
            self.aim("topics made per second", rate, ">= 5000", rate >= 5000.0);
        }
        if let Some(bytes) = self.memory_peak_bytes {
            let mb = bytes as f64 / 1e6;
            self.aim("memory peak of the node, MB", mb, "<= 400", mb <= 400.0);
        }
    }

    fn judge_publish(&mut self) {
        let bare = self.baseline.as_ref().map(|baseline| baseline.requests_per_second.max(1.0));
        let rates: Vec<_> = self.publish.iter().map(|rate| (rate.connections, rate.requests_per_second)).collect();
        for ((connections, rate), bare) in rates.into_iter().filter_map(|rate| Some((rate, bare?))) {
            let name = format!("publishes of 1 KiB on {connections} connections per request of a bare handler");
            let (bound, least) = if connections < 256 { (">= 0.4", 0.4) } else { (">= 0.6", 0.6) };
            self.aim(name, rate / bare, bound, rate / bare >= least);
        }
        if let (Some(latency), Some(disk)) = (&self.latency, &self.disk) {
            let (p50, p99) =
                (latency.p50_ms / disk.durable_file_64_kib_ms, latency.p99_ms / disk.durable_file_64_kib_ms);
            self.aim("p50 at half the rate, in durable files of 64 KiB", p50, "<= 3", p50 <= 3.0);
            self.aim("p99 at half the rate, in durable files of 64 KiB", p99, "<= 12", p99 <= 12.0);
        }
        if let (Some(batches), Some(disk)) = (&self.batches, &self.disk) {
            let ratio = batches.mb_per_second / disk.synced_4_mib_blocks_mb_per_second;
            self.aim("batches of 100 x 1 KB per synced block write", ratio, ">= 0.8", ratio >= 0.8);
        }
    }

    fn judge_reading(&mut self) {
        if let Some(speed) = self.catch_up.as_ref().map(|catch_up| catch_up.mb_per_second) {
            self.aim("catch-up by NDJSON, MB/s of payload", speed, ">= 500", speed >= 500.0);
        }
        if let Some(speed) = self.catch_up_batches.as_ref().map(|catch_up| catch_up.mb_per_second) {
            self.aim("catch-up as stored batches, MB/s of payload", speed, ">= 1000", speed >= 1000.0);
        }
        if let Some(p99) = self.fan_out.as_ref().map(|fan_out| fan_out.p99_ms) {
            self.aim("a record to every follower, p99 in ms", p99, "< 50", p99 < 50.0);
        }
        for (transport, bytes, seconds) in self
            .idle
            .iter()
            .map(|idle| (idle.transport, idle.memory_bytes_each as f64, idle.seconds))
            .collect::<Vec<_>>()
        {
            self.aim(format!("memory of an idle follower by {transport}, bytes"), bytes, "<= 12000", bytes <= 12_000.0);
            self.aim(format!("seconds to connect all of them by {transport}"), seconds, "<= 10", seconds <= 10.0);
        }
    }

    fn judge_clients(&mut self) {
        let drains = self.drain.iter().map(|drain| {
            let followers = (drain.followers as f64).max(1.0);
            let busiest = drain.back_by_second.iter().max().copied().unwrap_or(0) as f64;
            (drain.transport, drain.back as f64 / followers, busiest / followers)
        });
        for (transport, all, share) in drains.collect::<Vec<_>>() {
            self.aim(format!("followers by {transport} that come back after a drain"), all, ">= 1", all >= 1.0);
            self.aim(format!("share of them in the busiest second, by {transport}"), share, "<= 0.4", share <= 0.4);
        }
        for (credential, mean) in self.authentication.iter().map(|a| (a.credential, a.mean_us)).collect::<Vec<_>>() {
            let (bound, most) = if credential == "token" { ("<= 15", 15.0) } else { ("<= 5", 5.0) };
            self.aim(format!("who calls by a known {credential}, µs"), mean, bound, mean <= most);
        }
    }

    fn judge_stores(&mut self) {
        if let Some(speed) = self.memory_batches.as_ref().map(|batches| batches.mb_per_second) {
            self.aim("batches on a store in memory, MB/s of payload", speed, ">= 400", speed >= 400.0);
        }
        let Some(remote) = &self.remote else { return };
        let (p50, p99) = (remote.latency.p50_ms, remote.latency.p99_ms);
        let (one, many) = (remote.puts_per_1000_records_of_one_topic, remote.puts_per_1000_records_of_many_topics);
        self.aim("p50 at half the rate with 30 ms per PUT, ms", p50, "<= 60", p50 <= 60.0);
        self.aim("p99 at half the rate with 30 ms per PUT, ms", p99, "<= 120", p99 <= 120.0);
        self.aim("PUTs of many topics per PUT of one", many / one.max(1e-9), "<= 1.1", many <= 1.1 * one);
    }

    fn judge_soak(&mut self) {
        let Some(soak) = &self.soak else { return };
        let most = |samples: &[Sample]| samples.iter().map(|sample| sample.memory_bytes).max().unwrap_or(0) as f64;
        let (first, last) = soak.samples.split_at(soak.samples.len() / 2);
        let (growth, peak) = (most(last) / most(first).max(1.0), soak.memory_peak_bytes as f64 / 1e6);
        let written = soak.store_bytes_per_byte;
        self.aim("memory of the second half of the soak per that of the first", growth, "<= 1.1", growth <= 1.1);
        self.aim("memory peak with a large log, MB", peak, "<= 512", peak <= 512.0);
        self.aim("bytes written per byte published", written, "<= 2.5", written <= 2.5);
    }

    fn judge_tenants(&mut self) {
        if let Some(ratio) = self.neighbour.as_ref().map(|it| it.p99_beside_ms / it.p99_alone_ms.max(1e-9)) {
            self.aim("p99 beside a tenant at ten times its quota, per p99 alone", ratio, "<= 1.2", ratio <= 1.2);
        }
        if let Some(ratio) = self.quota_cost.as_ref().map(|it| it.ratio) {
            self.aim("publishes with quotas per publish without", ratio, ">= 0.97", ratio >= 0.97);
        }
        let Some(overload) = &self.overload else { return };
        let goodput = overload.goodput_per_second / overload.knee_per_second.max(1e-9);
        let memory = overload.memory_second_half_bytes as f64 / (overload.memory_first_half_bytes as f64).max(1.0);
        let recovery = f64::from(overload.recovery_seconds);
        self.aim("goodput at five times the knee, per knee", goodput, ">= 0.9", goodput >= 0.9);
        self.aim("memory of the second half of the overload per that of the first", memory, "<= 1.1", memory <= 1.1);
        self.aim("seconds until the node is back to normal", recovery, "<= 10", recovery <= 10.0);
    }

    fn aim(&mut self, name: impl Into<String>, measured: f64, bound: &'static str, reached: bool) {
        self.targets.push(Aim { name: name.into(), measured: round(measured), bound, reached });
    }
}

/// Three decimals.
pub(super) fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
