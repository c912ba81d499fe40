//! Followers that nothing happens to: what each costs in memory, and how fast they connect.
//!
//! Each kind meets a node of its own: one that has worked before would find room for them in what it holds already.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use plinth_api::frames::SUBPROTOCOL;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::node::{self, Node};
use super::report::{Idle, round};
use super::wire::{Pieces, Target, Wire, number_after};

/// Followers that connect at the same time.
const CONNECTING: usize = 64;
/// Buffers of a WebSocket of ours; they would take gigabytes by themselves.
const BUFFER_BYTES: usize = 1024;

/// How a follower follows.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Events,
    WebSocket,
}

/// A follower that is open.
pub(super) enum Held {
    Events { pieces: Pieces },
    WebSocket { socket: Box<WebSocketStream<TcpStream>> },
}

impl Held {
    /// Waits until the node sends it away, or goes; gives how long it is to wait, if the node says so.
    pub(super) async fn told_to_go(mut self) -> Option<Duration> {
        loop {
            let told = match &mut self {
                Self::Events { pieces } => wait_in(&pieces.next().await.ok()??),
                Self::WebSocket { socket } => wait_in(&socket.next().await?.ok()?.into_data()),
            };
            if told.is_some() {
                return told;
            }
        }
    }
}

/// How long a client is to wait, if `text` says that it has to go.
fn wait_in(text: &[u8]) -> Option<Duration> {
    number_after(text, b"\"reconnect_in_ms\":").map(Duration::from_millis)
}

/// What the memory of a node in `dir` grows by for `followers` followers of one topic.
pub(super) async fn run(dir: &Path, way: Way, followers: usize) -> anyhow::Result<Idle> {
    let store = format!("file://{}", dir.join("objects").display());
    let (server, node) = node::own(dir, &store).await?;
    let memory = || server.memory_bytes().context("the system does not tell a process's memory");
    node.topic("idle").await?;
    // What the first connections cost once is not counted.
    let warm = connect(&node, way, CONNECTING).await?;
    let before = memory()?;
    let begin = Instant::now();
    let held = connect(&node, way, followers).await?;
    let seconds = round(begin.elapsed().as_secs_f64());
    let memory_bytes_each = memory()?.saturating_sub(before) / held.len().max(1) as u64;
    drop((warm, held));
    server.stop().await?;
    Ok(Idle { transport: way.name(), followers, seconds, memory_bytes_each })
}

pub(super) async fn connect(node: &Node, way: Way, followers: usize) -> anyhow::Result<Vec<Held>> {
    let mut tasks = JoinSet::new();
    for worker in 0..CONNECTING {
        let count = followers / CONNECTING + usize::from(worker < followers % CONNECTING);
        let target = node.target.clone();
        tasks.spawn(async move {
            let mut held = Vec::with_capacity(count);
            for _ in 0..count {
                held.push(way.follow(&target).await?);
            }
            anyhow::Ok(held)
        });
    }
    let mut held = Vec::with_capacity(followers);
    while let Some(some) = tasks.join_next().await {
        held.extend(some??);
    }
    Ok(held)
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "server-sent events",
            Self::WebSocket => "WebSocket",
        }
    }

    pub(super) async fn follow(self, target: &Target) -> anyhow::Result<Held> {
        match self {
            Self::Events => {
                let wire = Wire::connect(target).await?;
                let mut pieces = wire.stream("/v1/topics/idle/records?from=latest", "text/event-stream").await?;
                // The answer's first bytes come when the position is fixed.
                pieces.next().await?.context("the stream ended at once")?;
                Ok(Held::Events { pieces })
            }
            Self::WebSocket => Ok(Held::WebSocket { socket: Box::new(subscribe(target).await?) }),
        }
    }
}

/// A WebSocket with a subscription that has read everything there is.
async fn subscribe(target: &Target) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://{}/v1/ws", target.address).into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
    if let Some(key) = &target.key {
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse()?);
    }
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(0);
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    let subscribe = serde_json::json!({"type": "subscribe", "id": "idle", "topics": ["idle"]});
    socket.send(Message::text(subscribe.to_string())).await?;
    loop {
        let message = socket.next().await.context("the connection ended at once")??;
        if message.to_text()?.contains("\"caught_up\"") {
            return Ok(socket);
        }
    }
}
