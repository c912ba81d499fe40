//! Appends to a hundred streams on a store that is far away, beside `s2 lite`, in turns.
//!
//! Both have the same bucket of an S3 server on this machine, and both reach it through a relay that is 30 ms long: what a
//! client sends arrives that much later, whatever it is, and answers come back at once. Without a bucket we are measured
//! alone, on a store in memory whose PUTs take as long.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

use super::child::Server;
use super::load::Shot;
use super::node::{own, own_with};
use super::report::Far;
use super::streams::{Peers, Side, create, in_turns};
use super::wire::Target;
use super::{Size, disk};
use crate::cli::output;

/// How far the store is away.
const AWAY: Duration = Duration::from_millis(30);
/// Streams that are appended to.
const STREAMS: usize = 100;
/// Content of one append.
const APPEND_BYTES: usize = 100;
/// What is read from a connection at once, and how many of those may be on the way.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_MAX: usize = 4096;
/// Where S3 is, for us and for others.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"];
/// The basin of the streams of `s2 lite`.
const BASIN: &str = "bench-streams";

/// Our node and, if there is one, `s2 lite`.
pub(super) async fn run(dir: &Path, peers: &Peers, size: &Size) -> anyhow::Result<Vec<Far>> {
    let body = disk::noise(APPEND_BYTES / 2).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let names = |before: &str, after: &str| (0..STREAMS).map(|number| format!("{before}{number}{after}")).collect();
    let ours = Shot {
        method: "POST",
        paths: names("/v1/stream/far-", ""),
        content_type: "text/plain",
        body: Bytes::from(body.clone()),
        records: 0,
    };
    let mut shots = vec![ours];
    std::fs::create_dir_all(dir)?;
    let relay = match &peers.far_store {
        Some(_) => Some(Relay::start().await?),
        None => None,
    };
    let mut sides = vec![our_side(dir, (peers, relay.as_ref())).await?];
    create(&sides[0].target, &shots[0]).await?;
    if let (Some(program), Some(relay)) = (&peers.s2, &relay) {
        let (bucket, path) = place(peers, "s2-lite")?;
        std::fs::write(dir.join("s2.json"), s2_streams()?)?;
        let server = Server::s2_lite(program, (&bucket, &path), &dir.join("s2.json"), relay.env()).await?;
        let target = Target { address: server.address, key: None, header: Some(("s2-basin", BASIN)) };
        sides.push(Side { server, target });
        let record = serde_json::json!({ "records": [{ "body": body }] }).to_string();
        let (paths, body) = (names("/v1/streams/far-", "/records"), Bytes::from(record));
        shots.push(Shot { method: "POST", paths, content_type: "application/json", body, records: 0 });
    }
    let mut far = Vec::new();
    for &connections in size.far_connections {
        output::say(&format!("append 100 B to {STREAMS} streams with 30 ms to the store: {connections} connections"));
        let (compared, _) = in_turns(&sides, &shots, connections, size).await?;
        far.push(Far { streams: STREAMS, connections, compared });
    }
    for side in sides {
        side.server.stop().await?;
    }
    Ok(far)
}

async fn our_side(dir: &Path, (peers, relay): (&Peers, Option<&Relay>)) -> anyhow::Result<Side> {
    let (server, node) = match relay {
        Some(relay) => {
            let (bucket, path) = place(peers, "plinth")?;
            own_with(&dir.join("node"), &format!("s3://{bucket}/{path}"), relay.env()).await?
        }
        None => own(&dir.join("node"), &format!("memory://?put_latency_ms={}", AWAY.as_millis())).await?,
    };
    Ok(Side { server, target: node.target })
}

/// The bucket, and a place in it for one side of this run.
fn place(peers: &Peers, side: &str) -> anyhow::Result<(String, String)> {
    let store = peers.far_store.as_ref().context("there is a store")?;
    anyhow::ensure!(store.scheme() == "s3", "--far-store is an s3://bucket, not {store}");
    let bucket = store.host_str().context("--far-store names no bucket")?;
    Ok((bucket.to_owned(), format!("bench-{}-{side}", std::process::id())))
}

fn s2_streams() -> anyhow::Result<String> {
    let streams = (0..STREAMS).map(|number| serde_json::json!({ "name": format!("far-{number}") }));
    let basin = serde_json::json!({ "name": BASIN, "streams": streams.collect::<Vec<_>>() });
    Ok(serde_json::to_string(&serde_json::json!({ "basins": [basin] }))?)
}

/// A way to the S3 server that is long in one direction.
struct Relay {
    address: SocketAddr,
    /// Owns the accept loop, which owns the connections.
    _serving: JoinSet<()>,
}

impl Relay {
    async fn start() -> anyhow::Result<Self> {
        let endpoint = std::env::var(ENDPOINTS[0]).context("--far-store needs AWS_ENDPOINT")?;
        let endpoint = Url::parse(&endpoint)?;
        anyhow::ensure!(endpoint.scheme() == "http", "bench speaks plain http, not {endpoint}");
        let (host, port) = (endpoint.host_str().unwrap_or_default(), endpoint.port_or_known_default().unwrap_or(80));
        let behind = tokio::net::lookup_host((host, port)).await?.next().context("AWS_ENDPOINT has no address")?;
        anyhow::ensure!(behind.ip().is_loopback(), "bench loads only servers of this machine, {behind} is not");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, behind));
        Ok(Self { address, _serving: serving })
    }

    /// What those have in their environment who go this way.
    fn env(&self) -> [(&'static str, String); 2] {
        ENDPOINTS.map(|name| (name, format!("http://{}", self.address)))
    }
}

async fn accept(listener: TcpListener, behind: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // A connection that fails is seen by both ends.
            if let Err(error) = carry(client, behind).await {
                tracing::debug!(%error, "a connection to the store ends");
            }
        });
    }
}

async fn carry(client: TcpStream, behind: SocketAddr) -> std::io::Result<()> {
    let server = TcpStream::connect(behind).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, mut to_client), (mut from_server, to_server)) = (client.into_split(), server.into_split());
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let back = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(drop) };
    tokio::try_join!(receive(from_client, sender), deliver(pieces, to_server), back)?;
    Ok(())
}

async fn receive(mut client: OwnedReadHalf, sender: mpsc::Sender<(Instant, Bytes)>) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = client.read(&mut buffer).await?;
        let piece = Bytes::copy_from_slice(&buffer[..read]);
        if read == 0 || sender.send((Instant::now() + AWAY, piece)).await.is_err() {
            return Ok(());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a long way is a matter of time and nothing else")]
async fn deliver(mut pieces: mpsc::Receiver<(Instant, Bytes)>, mut server: OwnedWriteHalf) -> std::io::Result<()> {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        server.write_all(&piece).await?;
    }
    server.shutdown().await
}
