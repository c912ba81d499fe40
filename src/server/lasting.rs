//! Answers that last: a live stream over HTTP/1.1 leaves hyper as soon as it rests.
//!
//! hyper keeps two buffers of 8 KiB and the place for the next request for as long as a connection is open, which is most
//! of what a follower to whom nothing happens would cost. So hyper reads the request and writes the head and all that is
//! there at once, and when it has flushed that and the body waits, the connection is taken from it and this writes the
//! chunks that come later. Such an answer is the last one of its connection.

use std::io::{self, Cursor, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response};
use bytes::Buf;
use bytes::buf::Chain;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_write_buf;

use super::pinned::counted;
use super::watch::{UnderWay, Watch, WatchedSocket};

/// Marks an answer, as an extension, that goes on for long and rests most of the time.
#[derive(Clone, Copy, Debug)]
pub struct Lasting;

/// The body is with hyper.
const AWAKE: u8 = 0;
/// The body waits, hyper may still have something of it to write.
const RESTS: u8 = 1;
/// The body waits, and all of it that there was is written: the connection may leave.
const LEAVES: u8 = 2;

/// Bodies up to this length are not watched one by one: all of a connection together are less than one large one.
const SMALL_BYTES_MAX: u64 = 1024;

/// Size in hexadecimal and the end of its line.
const SIZE_BYTES: usize = 2 * size_of::<usize>() + 2;

/// Where the body of a lasting answer is while it waits. All that touches it runs in the task of the connection.
#[derive(Debug, Default)]
pub(super) struct Rest {
    state: AtomicU8,
    body: Mutex<Option<Body>>,
}

impl Rest {
    fn lie_down(&self, body: Option<Body>) {
        *self.body() = body;
        self.state.store(RESTS, Ordering::Relaxed);
    }

    /// The body, unless it is about to leave.
    fn get_up(&self) -> Option<Body> {
        if self.state.load(Ordering::Relaxed) != RESTS {
            return None;
        }
        self.state.store(AWAKE, Ordering::Relaxed);
        self.body().take()
    }

    /// hyper flushes its socket only when it has written everything.
    pub(super) fn flushed(&self) {
        if self.state.load(Ordering::Relaxed) == RESTS {
            self.state.store(LEAVES, Ordering::Relaxed);
        }
    }

    /// The body that has to go on without hyper.
    pub(super) fn leave(&self) -> Option<Body> {
        if self.state.load(Ordering::Relaxed) != LEAVES {
            return None;
        }
        self.body().take()
    }

    fn body(&self) -> MutexGuard<'_, Option<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer; the request is under way until the last of it is written.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: Option<Body>,
    lasting: bool,
    /// Its name among those that a client must take, unless it is too small to matter.
    owed: Option<u64>,
    /// Whether other answers are on the same connection at the same time.
    shares: bool,
    under_way: UnderWay,
}

impl WatchedBody {
    /// `answer` with a body that is watched. It may leave its connection if it is marked and `alone` there.
    pub(super) fn of(mut answer: Response<Body>, mut under_way: UnderWay, alone: bool) -> Response<Self> {
        let lasting = alone && answer.extensions_mut().remove::<Lasting>().is_some();
        if lasting {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        under_way.answer();
        let small = answer.body().size_hint().upper().is_some_and(|most| most <= SMALL_BYTES_MAX);
        let owed = (!small).then(|| under_way.watch().owe());
        answer.map(|body| Self { body: Some(body), lasting, owed, shares: !alone, under_way })
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, lasting, owed, shares, under_way } = &mut *self;
        if let Some(name) = owed.filter(|_| *shares)
            && under_way.watch().pinned.poll_room(name, cx).is_pending()
        {
            // What it gave before may wait for the client still: it goes on to be owed.
            return Poll::Pending;
        }
        if body.is_none() {
            *body = under_way.watch().rest.get_up();
        }
        let Some(awake) = body else { return Poll::Pending };
        let polled = Pin::new(awake).poll_frame(cx);
        if let Some(name) = *owed {
            under_way.watch().owes(name, matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        if polled.is_pending() && *lasting {
            under_way.watch().rest.lie_down(body.take());
        }
        if !*shares {
            return polled;
        }
        polled.map_ok(|frame| frame.map_data(|data| counted(under_way.watch(), data)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(name) = self.owed {
            self.under_way.watch().owes(name, false);
            self.under_way.watch().pinned.forget(name);
        }
    }
}

/// A lasting answer that has left hyper. Its body is sent in chunks (RFC 9112 §7.1), each written before the next is
/// asked for.
pub(super) struct Live<G> {
    socket: WatchedSocket<G>,
    body: Body,
    chunk: Chunk,
    over: bool,
    _under_way: UnderWay,
}

impl<G: Unpin> Live<G> {
    pub(super) fn new(socket: WatchedSocket<G>, body: Body, watch: &Arc<Watch>) -> Self {
        let mut under_way = watch.request(false);
        under_way.answer();
        Self { socket, body, chunk: Chunk::default(), over: false, _under_way: under_way }
    }

    /// Ready when the answer is written, or the client is gone.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if poll_gone(&mut self.socket, cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.chunk.0.has_remaining() {
                if ready!(poll_write_buf(Pin::new(&mut self.socket), cx, &mut self.chunk.0))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
            }
            // TLS may hold the end of it back.
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            if self.over {
                return Pin::new(&mut self.socket).poll_shutdown(cx);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // An empty chunk would be the end.
                Some(Ok(frame)) => {
                    if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                        self.chunk = Chunk::of(data);
                    }
                }
                // Without an end: the client must see that it is cut.
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    self.chunk = Chunk::of(Bytes::new());
                    self.over = true;
                }
            }
        }
    }
}

/// Ready when the client has ended the connection. What it sends after its request is passed over: it was told that
/// there is no other answer.
fn poll_gone<G: Unpin>(socket: &mut WatchedSocket<G>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut scratch = [0; 512];
    loop {
        let mut unread = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut *socket).poll_read(cx, &mut unread))?;
        if unread.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
}

/// What is left of a chunk: its size, its bytes, the end of its line.
struct Chunk(Chain<Chain<Cursor<[u8; SIZE_BYTES]>, Bytes>, &'static [u8]>);

impl Chunk {
    /// A chunk of `data`; without data the last one.
    fn of(data: Bytes) -> Self {
        let mut size = Cursor::new([0; SIZE_BYTES]);
        write!(size, "{:>1$x}\r\n", data.len(), SIZE_BYTES - 2).expect("it is as long as the longest size");
        let digits = (usize::BITS - data.len().leading_zeros()).div_ceil(4).max(1);
        size.set_position(SIZE_BYTES as u64 - 2 - u64::from(digits));
        Self(size.chain(data).chain(b"\r\n"))
    }
}

impl Default for Chunk {
    fn default() -> Self {
        let mut size = Cursor::new([0; SIZE_BYTES]);
        size.set_position(SIZE_BYTES as u64);
        Self(size.chain(Bytes::new()).chain(b""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_its_size_in_hexadecimal_and_its_bytes() {
        for (data, expected) in
            [("", "0\r\n\r\n"), ("a", "1\r\na\r\n"), ("0123456789abcdef", "10\r\n0123456789abcdef\r\n")]
        {
            let mut chunk = Chunk::of(Bytes::from_static(data.as_bytes())).0;
            assert_eq!(chunk.copy_to_bytes(chunk.remaining()), expected.as_bytes());
        }
        assert!(!Chunk::default().0.has_remaining());
    }
}
