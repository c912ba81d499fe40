//! Garbage over raw sockets, by hand and by seed: what no client library sends. The server answers by the rules, never
//! fails, keeps no connection, and serves as before.
//!
//! `PLINTH_FUZZ_SEEDS` sets the number of seeds (64 when it is not set), `PLINTH_TEST_SEED` the first one.

mod frames;
mod http;
mod http2;
mod slow;
mod smuggled;

use std::ops::Range;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{answer, texts, within};
use crate::harness::{DEADLINE, Server};

/// Seeds at `make test`: a few seconds.
const SEEDS: u64 = 64;
/// What every stream of events begins with.
const LIVE: &[u8] = b"\n: open\n\n";
/// Connections of seeds that are open at once.
const AT_ONCE: u64 = 8;

/// A server that is abused.
struct Witness(Server);

impl Witness {
    async fn start() -> Self {
        let server = Server::start().await;
        server.client().make_topic("t", 1).await;
        Self(server)
    }

    async fn connect(&self) -> TcpStream {
        let address = self.0.url().trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.expect("the server accepts connections");
        stream.set_nodelay(true).expect("an open socket");
        stream
    }

    /// A publish and a read go as ever, nothing has panicked, and no connection is left.
    async fn is_unharmed(&self, what: &str) {
        let client = self.0.client();
        let offset = client.publish("t", "text/plain", what.to_owned()).await.offset;
        let page = client.page("t", &format!("from=offset:{offset}")).await;
        assert_eq!(texts(&page.records), [what]);
        drop(client);
        let log = self.0.stderr();
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{what}: {log}");
        // The one that asks is the last.
        let alone = async { while self.connections().await > 1 {} };
        assert!(timeout(DEADLINE, alone).await.is_ok(), "{what}: connections are left open");
    }

    async fn connections(&self) -> u64 {
        self.metric("plinth_connections_open").await
    }

    /// A metric by its name and labels.
    async fn metric(&self, name: &str) -> u64 {
        let metrics = answer(self.0.stranger().get("/metrics").header("Connection", "close")).await.text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("there is such a metric").parse().expect("it is a number")
    }
}

/// What this run goes through.
fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("it is a number"));
    let first = number("PLINTH_TEST_SEED").unwrap_or(1);
    first..first.saturating_add(number("PLINTH_FUZZ_SEEDS").unwrap_or(SEEDS))
}

/// Writes `bytes` in pieces of random size, as far as the server takes them.
async fn write_in_pieces(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8], random: &mut StdRng) {
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(random.random_range(1..=bytes.len()));
        if stream.write_all(piece).await.is_err() {
            return;
        }
        bytes = rest;
    }
}

/// Everything up to the end of the connection, which may be a reset, or up to the begin of a live stream, which has none.
async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
            if all.windows(LIVE.len()).any(|window| window == LIVE) {
                break;
            }
        }
    };
    within("the end of the connection", reading).await;
    all
}

/// `bytes` with a few of them changed, lost, doubled or moved.
fn mutated(bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..=16)).min(bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.extend_from_within(at..end),
            4 => drop(bytes.splice(at..at, (0..random.random_range(1..64)).map(|_| random.random::<u8>()))),
            _ => bytes.truncate(at),
        }
    }
    bytes
}
