//! The accept loop: connections in, within limits of number and time, and their graceful end.
//!
//! `axum::serve` sets no time limit at all, so this is our own loop over hyper. It knows nothing of routes. A connection
//! over a cap is closed unanswered, on purpose: a browser's `EventSource` comes back after a broken connection and gives
//! up for ever after an error status.

mod connection;
mod gate;
mod lasting;
mod owed;
mod pinned;
mod tls;
mod transport;
mod watch;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response};
use axum::{Router, body::Body};
use plinth_api::limits::{
    BODY_MS_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, FIRST_BYTE_MS_MAX, HANDSHAKE_MS_MAX, HEAD_MS_MAX,
    IDLE_MS_MAX, Limit, STALL_MS_MAX, Setting,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::telemetry::{Metrics, Refusal};

use gate::Gates;
pub use lasting::Lasting;
pub use tls::{Tls, TlsError, TlsFiles};
pub use watch::{Connection, RequestBody, Tunnel};

/// How long the loop waits when the process has no descriptor left: time for some connection to end.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Connections that may wait for the loop in the kernel.
const BACKLOG: i32 = 4096;

/// How long connections have after the drain time to write what they hold.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Bounds of number and time on connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Most connections of the node.
    pub connections_max: usize,
    /// Most connections of one client address.
    pub connections_per_address_max: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a new connection may send nothing; with TLS, after its handshake.
    pub first_byte_timeout: Duration,
    /// How long a request's head may take from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may rest between requests.
    pub idle_timeout: Duration,
    /// How long a connection may stand still within a request, or leave an answer untaken.
    pub stall_timeout: Duration,
    /// How long a request's body may take; a body that keeps a fair rate may take longer.
    pub body_timeout: Duration,
    /// Time over which live streams are sent away at a shutdown.
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            handshake_timeout: Duration::from_millis(HANDSHAKE_MS_MAX),
            first_byte_timeout: Duration::from_millis(FIRST_BYTE_MS_MAX),
            header_timeout: Duration::from_millis(HEAD_MS_MAX),
            idle_timeout: Duration::from_millis(IDLE_MS_MAX),
            stall_timeout: Duration::from_millis(STALL_MS_MAX),
            body_timeout: Duration::from_millis(BODY_MS_MAX),
            drain: Duration::from_secs(5),
        }
    }
}

impl ServerLimits {
    /// How much `limit` is on this node: what a setting has changed, or its value.
    #[must_use]
    pub fn of(&self, limit: &Limit) -> u64 {
        let set = match limit.setting {
            Some(Setting::MaxConnections) => self.connections_max,
            Some(Setting::MaxConnectionsPerAddress) => self.connections_per_address_max,
            None => return limit.value,
        };
        u64::try_from(set).unwrap_or(u64::MAX)
    }
}

/// Names a connection within its node; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// The address that a connection comes from, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

impl ClientAddress {
    fn of(stream: &TcpStream) -> Self {
        Self(stream.peer_addr().ok().map(|peer| peer.ip().to_canonical()))
    }
}

/// What answers the requests of all connections.
pub trait Answer: Clone + Send + Sync + 'static {
    /// The answer to one request.
    fn answer(
        &self,
        connection: ConnectionId,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static + use<Self>;
}

/// Every request carries its [`Connection`] as an extension.
impl Answer for Router {
    fn answer(
        &self,
        connection: ConnectionId,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static + use<> {
        let connection = Connection::of(connection, request.body());
        request.extensions_mut().insert(connection);
        let answer = self.clone().call(request);
        async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    }
}

/// What the loop serves and how it is told to end.
#[derive(Clone)]
pub struct Service<A> {
    /// Answers the requests.
    pub answer: A,
    /// The bounds.
    pub limits: ServerLimits,
    /// When cancelled, connections end after their request, and then the loop.
    pub shutdown: CancellationToken,
    /// When cancelled, everything ends at once.
    pub ended: CancellationToken,
    /// Owns every connection, and every session that outlives its connection's task.
    pub tasks: TaskTracker,
    /// With it every connection begins with a handshake; without it all is plain.
    pub tls: Option<Tls>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

/// A listener on `address`; an address that an ended process held a moment ago is free.
///
/// # Errors
/// When the address is taken, not ours or not allowed.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves `listener` until `service.shutdown`, then until all connections have ended, at most for the drain time. Who
/// comes in that time is answered once: that is how `/readyz` says that the node ends.
///
/// # Errors
/// When the listener cannot be handed to the runtime.
pub async fn serve<A: Answer>(listener: StdListener, service: Service<A>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut accepting = pin!(accept(&listener, &service));
    tokio::select! {
        () = service.shutdown.cancelled() => {}
        never = &mut accepting => match never {},
    }
    service.tasks.close();
    let drained = tokio::select! {
        drained = timeout(service.limits.drain + LAST_WRITES, service.tasks.wait()) => drained,
        never = &mut accepting => match never {},
    };
    if drained.is_err() {
        tracing::info!(tasks = service.tasks.len(), "the drain time is over, ending what is left");
    }
    service.ended.cancel();
    Ok(())
}

async fn accept<A: Answer>(listener: &TcpListener, service: &Service<A>) -> Infallible {
    let gates = Gates::new(&service.limits);
    let mut starved = false;
    let mut id = 0;
    loop {
        id += 1;
        match listener.accept().await {
            Ok((stream, peer)) => {
                starved = false;
                admit(stream, peer, ConnectionId(id), &gates, service);
            }
            Err(error) if ended_before_accept(&error) => tracing::debug!(%error, "a connection ended before it began"),
            Err(error) => {
                if !starved {
                    tracing::warn!(%error, "no connection can be accepted, trying again");
                }
                starved = true;
                service.metrics.refused(Refusal::Descriptors);
                // That the time passes is all that is waited for; the end of the node comes first if it comes.
                let _ = timeout(ACCEPT_BACK_OFF, service.ended.cancelled()).await;
            }
        }
    }
}

fn admit<A: Answer>(stream: TcpStream, peer: SocketAddr, id: ConnectionId, gates: &Gates, service: &Service<A>) {
    match gates.enter(peer.ip()) {
        Ok(pass) => {
            let counted = service.metrics.connection();
            let _ = stream.set_nodelay(true);
            service.tasks.spawn(connection::serve(stream, (pass, counted), id, service.clone()));
        }
        Err(reason) => {
            tracing::debug!(?reason, "a connection over a cap is closed");
            service.metrics.refused(reason);
        }
    }
}

/// Errors of `accept` that belong to the one connection that it would have given.
fn ended_before_accept(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

#[cfg(test)]
mod tests;
