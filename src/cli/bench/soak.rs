//! A node under full load for minutes, with a large log behind it: whether anything grows that the log does not explain.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;

use super::child::Server;
use super::load::{Shot, Until, closed_loop};
use super::node::{Node, StoreCalls, own};
use super::report::{Sample, Soak, round};
use super::{BATCH_CONNECTIONS, BATCH_RECORDS, BATCHED_BYTES, batch, disk};
use crate::cli::output;

/// Connections of the load.
const CONNECTIONS: usize = 256;
/// Payload of its records: small, so that minutes of it fit on a disk.
const PAYLOAD_BYTES: usize = 100;
/// What the loaded topic keeps.
const KEPT: &str = "64MiB";
/// How often the node is looked at.
const SLICE: Duration = Duration::from_secs(30);

/// A log of `gigabytes` is written, then records are published as fast as they go for `minutes`.
pub(super) async fn run(dir: &Path, gigabytes: u64, minutes: u64) -> anyhow::Result<Soak> {
    let objects = dir.join("objects");
    let (server, node) = own(&dir.join("node"), &format!("file://{}", objects.display())).await?;
    let looker = Looker { server: &server, node: &node, objects, cache: dir.join("node"), began: Instant::now() };
    let written = fill(&node, gigabytes).await?;
    let filled = looker.look().await?;
    output::say(&format!("publish {PAYLOAD_BYTES} bytes: {CONNECTIONS} connections for {minutes} minutes"));
    let path = node.topic_with("soak", serde_json::json!({ "retention": { "bytes": KEPT } })).await?;
    let shot = Shot::publish(path, "application/octet-stream", Bytes::from(disk::noise(PAYLOAD_BYTES)), 1);
    let (start, mut acknowledged, mut samples) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < Duration::from_secs(60 * minutes) {
        let until = Until { time: SLICE, requests: u64::MAX };
        let load = closed_loop(&node.target, &shot, CONNECTIONS, until).await?;
        acknowledged += load.acknowledged;
        samples.push(looker.look().await?);
    }
    let per_second = acknowledged as f64 / start.elapsed().as_secs_f64();
    let tail = node.tail("soak").await?;
    anyhow::ensure!(tail == acknowledged, "{acknowledged} records were acknowledged, the topic has {tail}");
    let calls = node.store_calls().await.context("the node does not show its metrics")?;
    let memory_peak_bytes = server.memory_peak_bytes().context("the system does not tell a process's memory")?;
    server.stop().await?;
    Ok(Soak {
        log_bytes: written,
        filled,
        records: acknowledged,
        records_per_second: round(per_second),
        memory_peak_bytes,
        store_bytes_per_byte: round(calls.put_bytes / calls.record_bytes.max(1.0)),
        samples,
    })
}

/// Writes a log of so many gigabytes of payload; gives its bytes.
async fn fill(node: &Node, gigabytes: u64) -> anyhow::Result<u64> {
    output::say(&format!("a log of {gigabytes} GB: batches of {BATCH_RECORDS} x {BATCHED_BYTES} bytes"));
    let shot = Shot::publish(node.topic("log").await?, "application/x-ndjson", batch(), BATCH_RECORDS);
    let requests = gigabytes * 1_000_000_000 / (BATCH_RECORDS * BATCHED_BYTES as u64);
    let until = Until { time: Duration::from_secs(3600), requests };
    let load = closed_loop(&node.target, &shot, BATCH_CONNECTIONS, until).await?;
    let records = load.acknowledged * BATCH_RECORDS;
    anyhow::ensure!(node.tail("log").await? == records, "the log has not the records that were acknowledged");
    Ok(records * BATCHED_BYTES as u64)
}

/// Looks at the node from outside.
struct Looker<'a> {
    server: &'a Server,
    node: &'a Node,
    objects: PathBuf,
    cache: PathBuf,
    began: Instant,
}

impl Looker<'_> {
    async fn look(&self) -> anyhow::Result<Sample> {
        let memory = self.server.memory_bytes().context("the system does not tell a process's memory")?;
        let calls: StoreCalls = self.node.store_calls().await.context("the node does not show its metrics")?;
        let dirs = Arc::new((self.objects.clone(), self.cache.clone()));
        let count = move || anyhow::Ok((files(&dirs.0)?, files(&dirs.1)?));
        let ((objects, object_bytes), (cache_files, cache_bytes)) = tokio::task::spawn_blocking(count).await??;
        Ok(Sample {
            seconds: self.began.elapsed().as_secs(),
            memory_bytes: memory,
            objects,
            object_bytes,
            objects_by_the_meter: calls.puts - calls.deleted,
            cache_files,
            cache_bytes,
        })
    }
}

/// The files below a directory, and their bytes. What goes away meanwhile is passed over.
fn files(dir: &Path) -> anyhow::Result<(u64, u64)> {
    let (mut count, mut bytes, mut left) = (0, 0, vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else if let Ok(about) = entry.metadata() {
                count += 1;
                bytes += about.len();
            }
        }
    }
    Ok((count, bytes))
}
