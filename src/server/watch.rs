//! When a connection has been silent for too long.
//!
//! hyper has one time limit for a request's head that also runs between two requests; here the two differ: a resting
//! connection may stay for minutes, a head that has begun must arrive within seconds. The socket and the service of one
//! connection report to its [`Watch`], and its task asks it for the moment at which to give up.

use std::any::Any;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::lasting::Rest;
use super::owed::Owed;
use super::pinned::Pinned;
use super::transport::Transport;
use super::{ClientAddress, ConnectionId, ServerLimits};

/// How long a client may go on sending a request that is answered already. To close at once would reset the connection,
/// and the reset may overtake the answer.
const LINGER: Duration = Duration::from_secs(2);

/// Later than any limit.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// "Not now" in a field of milliseconds.
const NEVER: u64 = u64::MAX;

/// What happened on one connection, in milliseconds since it began. Relaxed order is enough: a late look only makes a
/// time limit milliseconds longer.
#[derive(Debug)]
pub(super) struct Watch {
    began: Instant,
    address: ClientAddress,
    secure: bool,
    requests: AtomicUsize,
    /// Requests under way whose answer has begun.
    answers: AtomicUsize,
    /// What of the answers waits to be taken.
    owed: Owed,
    /// What of them is held in memory, if they share the connection.
    pub(super) pinned: Pinned,
    multiplexed: AtomicBool,
    /// When its client could begin to send requests.
    established: AtomicU64,
    first_byte: AtomicU64,
    head: AtomicU64,
    resting: AtomicU64,
    moved: AtomicU64,
    cut_short: AtomicBool,
    lingering: AtomicU64,
    /// See [`Connection::keep`].
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Where a lasting answer waits for its connection to leave hyper.
    pub(super) rest: Rest,
}

impl Watch {
    /// A watch of a connection from `address` that begins now; a secure one with a handshake.
    pub(super) fn new(address: ClientAddress, secure: bool) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            address,
            secure,
            requests: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            owed: Owed::default(),
            pinned: Pinned::default(),
            multiplexed: AtomicBool::new(false),
            established: AtomicU64::new(if secure { NEVER } else { 0 }),
            first_byte: AtomicU64::new(NEVER),
            head: AtomicU64::new(NEVER),
            resting: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            cut_short: AtomicBool::new(false),
            lingering: AtomicU64::new(NEVER),
            kept: OnceLock::new(),
            rest: Rest::default(),
        })
    }

    /// The moment at which the connection is given up unless something happens before.
    pub(super) fn due(&self, limits: &ServerLimits) -> Instant {
        let after = |since: &AtomicU64, limit: Duration| {
            self.began + Duration::from_millis(since.load(Ordering::Relaxed)) + limit
        };
        if self.lingering.load(Ordering::Relaxed) != NEVER {
            return after(&self.lingering, LINGER);
        }
        if self.established.load(Ordering::Relaxed) == NEVER {
            return self.began + limits.handshake_timeout;
        }
        if self.first_byte.load(Ordering::Relaxed) == NEVER {
            return after(&self.established, limits.first_byte_timeout);
        }
        if self.requests.load(Ordering::Relaxed) > 0 {
            return after(&self.moved, limits.stall_timeout).min(self.owed_until(limits.stall_timeout));
        }
        if self.head.load(Ordering::Relaxed) != NEVER {
            return after(&self.head, limits.header_timeout);
        }
        after(&self.resting, limits.idle_timeout)
    }

    /// When what an answer owes must have been taken.
    fn owed_until(&self, patience: Duration) -> Instant {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(NEVER);
        let since = self.owed.since(|| self.now().saturating_sub(millis));
        self.began + since.map_or(FOREVER, |since| Duration::from_millis(since) + patience)
    }

    /// A large body is there for the client to take; its name.
    pub(super) fn owe(&self) -> u64 {
        let body = self.owed.name();
        self.owed.wait(body, self.now());
        body
    }

    /// The body goes on: it `waits` for its client, or has nothing to give.
    pub(super) fn owes(&self, body: u64, waits: bool) {
        if waits { self.owed.wait(body, self.now()) } else { self.owed.settle(body) }
    }

    /// The handshake is done, if there was one.
    pub(super) fn established(&self) {
        if self.established.load(Ordering::Relaxed) == NEVER {
            self.established.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A request has arrived; it is under way until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>, multiplexed: bool) -> UnderWay {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head.store(NEVER, Ordering::Relaxed);
        self.multiplexed.store(multiplexed, Ordering::Relaxed);
        UnderWay { watch: Arc::clone(self), answered: false }
    }

    fn read(&self) {
        let now = self.now();
        // Who sends on while he is answered has not taken anything.
        if self.answers.load(Ordering::Relaxed) == 0 {
            self.moved.store(now, Ordering::Relaxed);
        }
        if self.first_byte.load(Ordering::Relaxed) == NEVER {
            self.first_byte.store(now, Ordering::Relaxed);
        }
        let between_requests = self.requests.load(Ordering::Relaxed) == 0;
        // With HTTP/2 any byte between requests may be a ping.
        let may_be_head = between_requests && !self.multiplexed.load(Ordering::Relaxed);
        if may_be_head && self.head.load(Ordering::Relaxed) == NEVER {
            self.head.store(now, Ordering::Relaxed);
        }
    }

    fn wrote(&self) {
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    watch: Arc<Watch>,
    answered: bool,
}

/// Keeps a connection of HTTP/2 under way for as long as it is held: what a tunnel over it (CONNECT) does.
#[derive(Clone, Debug)]
pub struct Tunnel {
    _under_way: Arc<UnderWay>,
}

impl Tunnel {
    pub(super) fn new(under_way: UnderWay) -> Self {
        Self { _under_way: Arc::new(under_way) }
    }
}

impl UnderWay {
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Its answer has begun.
    pub(super) fn answer(&mut self) {
        self.answered = true;
        self.watch.answers.fetch_add(1, Ordering::Relaxed);
        // The time that the answer took to make is not the client's.
        self.watch.wrote();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.answered {
            self.watch.answers.fetch_sub(1, Ordering::Relaxed);
        }
        self.watch.resting.store(self.watch.now(), Ordering::Relaxed);
        self.watch.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection as its requests see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    id: ConnectionId,
    watch: Arc<Watch>,
}

impl Connection {
    /// The connection `id` that `body` comes from.
    #[must_use]
    pub fn of(id: ConnectionId, body: &RequestBody) -> Self {
        Self { id, watch: Arc::clone(&body.watch) }
    }

    /// A connection that no socket belongs to.
    #[cfg(test)]
    pub(crate) fn without_socket() -> Self {
        Self { id: ConnectionId(1), watch: Watch::new(ClientAddress::default(), false) }
    }

    /// Its name within the node.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.watch.secure
    }

    /// Where it comes from.
    #[must_use]
    pub fn address(&self) -> ClientAddress {
        self.watch.address
    }

    /// Keeps what `make` gives until the connection ends, also after an upgrade; of all calls for one connection, what
    /// the first one gives that does not fail.
    ///
    /// # Errors
    /// That of `make`.
    pub fn keep<E>(&self, make: impl FnOnce() -> Result<Box<dyn Any + Send + Sync>, E>) -> Result<(), E> {
        if self.watch.kept.get().is_none() {
            // Another request of the connection may have been faster: then what it made stays.
            let (Ok(()) | Err(_)) = self.watch.kept.set(make()?);
        }
        Ok(())
    }
}

/// The body of a request; notes when it is given up before its end.
#[derive(Debug)]
pub struct RequestBody {
    pub(super) body: Incoming,
    pub(super) watch: Arc<Watch>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.watch.cut_short.store(true, Ordering::Relaxed);
        }
    }
}

/// A socket that reports to a watch. `G` is held for as long as the socket is open, also after an upgrade.
pub(super) struct WatchedSocket<G> {
    pub(super) stream: Transport,
    pub(super) watch: Arc<Watch>,
    pub(super) _held: G,
}

impl<G: Unpin> AsyncRead for WatchedSocket<G> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.watch.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<G: Unpin> AsyncWrite for WatchedSocket<G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.watch.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.watch.rest.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.lingering.load(Ordering::Relaxed) == NEVER {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.watch.cut_short.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.watch.lingering.store(self.watch.now(), Ordering::Relaxed);
        }
        // As it comes, not deciphered: nobody will look at it.
        poll_to_end(self.stream.socket()?, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.watch.wrote();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Reads and discards until the other side ends; the watch bounds the time.
fn poll_to_end(stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut scratch = [MaybeUninit::uninit(); 16 * 1024];
    loop {
        let mut unread = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread))?;
        if unread.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
}
