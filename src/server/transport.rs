//! What carries the bytes of a connection: the socket itself, or TLS over it. Which version of HTTP they are is told here.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::ClientAddress;
use super::gate::client_of;
use super::tls::{ALPN_HTTP2, Handshake, Tls};

/// What HTTP/2 begins with. No request of HTTP/1.1 does.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What carries the bytes of a connection.
pub(super) enum Transport {
    Plain(TcpStream),
    /// Nothing can be read or written before the handshake is done.
    Shaking(Handshake),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    pub(super) fn new(stream: TcpStream, tls: Option<&Tls>, client: ClientAddress) -> Self {
        match tls {
            Some(tls) => {
                Self::Shaking(tls.handshake(stream, client_of(client.0.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))))
            }
            None => Self::Plain(stream),
        }
    }

    /// Whether the client speaks HTTP/2. Ready as soon as that is known: by the handshake, or by the first bytes, which are
    /// left to be read, so that hyper gets them in one piece.
    pub(super) fn poll_is_http2(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self {
            Self::Plain(stream) => poll_is_http2(stream, cx),
            Self::Shaking(handshake) => {
                let stream = ready!(handshake.as_mut().poll(cx))?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
                *self = Self::Tls(Box::new(stream));
                Poll::Ready(Ok(http2))
            }
            Self::Tls(stream) => Poll::Ready(Ok(stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2))),
        }
    }

    /// The socket, once there is no handshake under way.
    pub(super) fn socket(&mut self) -> io::Result<&mut TcpStream> {
        match self {
            Self::Plain(stream) => Ok(stream),
            Self::Shaking(_) => Err(io::ErrorKind::NotConnected.into()),
            Self::Tls(stream) => Ok(stream.get_mut().0),
        }
    }
}

/// Does the same to whichever carries the bytes.
macro_rules! carried {
    ($transport:expr, $stream:ident => $does:expr) => {
        match $transport.get_mut() {
            Transport::Plain($stream) => $does,
            Transport::Shaking(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Transport::Tls($stream) => $does,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        carried!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        carried!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One piece, the head of an answer without a body, is written by the shorter way through the kernel.
        match bufs {
            [piece] => self.poll_write(cx, piece),
            pieces => carried!(self, stream => Pin::new(stream).poll_write_vectored(cx, pieces)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // Both are.
        true
    }
}

/// Whether the client begins as HTTP/2 does.
fn poll_is_http2(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
    let look = || {
        let mut begin = [0; HTTP2_PREFACE.len()];
        let (_, count) = rustix::net::recv(stream, &mut begin[..], RecvFlags::PEEK)?;
        let seen = &begin[..count];
        match seen == HTTP2_PREFACE {
            false if count > 0 && HTTP2_PREFACE.starts_with(seen) && !is_ended(stream)? => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            http2 => Ok(http2),
        }
    };
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match stream.try_io(Interest::READABLE, look) {
            // Until more comes: what is there does not tell.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            looked => return Poll::Ready(looked),
        }
    }
}

/// Whether no more will come than is there.
fn is_ended(stream: &TcpStream) -> io::Result<bool> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut [PollFd::new(stream, PollFlags::RDHUP)], Some(&at_once))? > 0)
}
