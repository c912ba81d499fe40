//! A TCP proxy between a server and its object store, so that the store can go away, hang or lie.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes them.
    Pass,
    /// Closes every connection, old and new.
    Cut,
    /// Takes requests and never answers: they do not reach the store.
    Hang,
    /// Passes requests and keeps the answers: what was asked is done, and nobody learns it.
    Swallow,
    /// Says 200 where the store said 412: it seems to ignore `If-None-Match`.
    Lie,
}

/// A running proxy; dropped, it stops.
pub(crate) struct Proxy {
    address: String,
    mode: watch::Sender<Mode>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// A proxy to `endpoint`, `http://host:port`, that passes everything.
    pub(crate) async fn start(endpoint: &str) -> Self {
        let to: Arc<str> = endpoint.strip_prefix("http://").expect("plain HTTP").into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (mode, mode_of) = watch::channel(Mode::Pass);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, to.clone(), mode_of.clone()));
            }
        });
        Self { address, mode, _serving: serving }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> &str {
        &self.address
    }

    /// Changes what it does, also for connections that are open.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(mut client: TcpStream, to: Arc<str>, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow_and_update() == Mode::Cut {
        return;
    }
    let Ok(mut store) = TcpStream::connect(&*to).await else { return };
    let (mut up, mut down) = ([0; 16 * 1024], [0; 16 * 1024]);
    let end = loop {
        let now = *mode.borrow();
        tokio::select! {
            changed = mode.changed() => if changed.is_err() || *mode.borrow_and_update() == Mode::Cut { break None },
            read = client.read(&mut up) => match read {
                Ok(0) | Err(_) => break None,
                Ok(_) if now == Mode::Hang => {}
                Ok(len) => if store.write_all(&up[..len]).await.is_err() { break None },
            },
            read = store.read(&mut down) => match read {
                Ok(0) | Err(_) => break None,
                Ok(_) if now == Mode::Swallow => {}
                Ok(len) if now == Mode::Lie && down[..len].starts_with(b"HTTP/1.1 412") => break Some(()),
                Ok(len) => if client.write_all(&down[..len]).await.is_err() { break None },
            },
        }
    };
    if end.is_some() {
        let lie = b"HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        // The client may be gone; then nobody is deceived.
        let _gone = client.write_all(lie).await;
    }
}
