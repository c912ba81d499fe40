//! One connection: HTTP/1.1 or HTTP/2, by its handshake or its first bytes, until it ends, is too slow or is told to end. A live stream
//! goes on without hyper while it rests.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::STRICT_TRANSPORT_SECURITY;
use axum::http::{HeaderValue, Method, Request, Version};
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use plinth_api::limits::{HEAD_BYTES_MAX, HTTP2_HEADERS_BYTES_MAX, HTTP2_STREAMS_MAX};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lasting::{Live, WatchedBody};
use super::transport::Transport;
use super::watch::{RequestBody, Tunnel, Watch, WatchedSocket};
use super::{Answer, ClientAddress, ConnectionId, ServerLimits, Service};
use crate::telemetry::Closed;

/// How much of an answer waits in memory for the socket; a head that is read has as much room.
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX;
/// How much of the bodies of one HTTP/2 connection may be under way unread.
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The same for one request.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
/// A browser that has come over TLS comes over nothing else for a year.
const HSTS: &str = "max-age=31536000";
/// How often a silent HTTP/2 client is asked whether it is there, and how long it has to say so.
const HTTP2_PING: Duration = Duration::from_secs(20);

type Io<G> = TokioIo<WatchedSocket<G>>;

/// How far a connection is. The parts of hyper are in boxes, which a live stream gives back.
enum Stage<G, S: HttpService<Incoming>> {
    /// Nothing is read yet.
    Begins(Option<(WatchedSocket<G>, S)>),
    Http1(Box<http1::UpgradeableConnection<Io<G>, S>>),
    Http2(Pin<Box<http2::Connection<Io<G>, S, Tasks>>>),
    Live(Live<G>),
}

/// Serves one connection. `held` is dropped with the socket, which an upgrade may take further than this task.
pub(super) async fn serve<G, A>(stream: TcpStream, held: G, id: ConnectionId, service: Service<A>)
where
    G: Send + Unpin + 'static,
    A: Answer,
{
    let Service { answer, limits, shutdown, ended, tasks, tls, metrics } = service;
    let secure = tls.is_some();
    let client = ClientAddress::of(&stream);
    let watch = Watch::new(client, secure);
    let stream = Transport::new(stream, tls.as_ref(), client);
    let socket = WatchedSocket { stream, watch: Arc::clone(&watch), _held: held };
    // While the node ends, a new connection gets one answer.
    let late = shutdown.is_cancelled();
    let answered = Arc::clone(&watch);
    // Nothing async around the answer: each such wrapper would have room for it twice, and every connection has it.
    let answer = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let version = request.version();
        let under_way = answered.request(version == Version::HTTP_2);
        if request.method() == Method::CONNECT {
            request.extensions_mut().insert(Tunnel::new(answered.request(version == Version::HTTP_2)));
        }
        let watch = Arc::clone(&answered);
        let answer = answer.answer(id, request.map(|body| RequestBody { body, watch }));
        let alone = version == Version::HTTP_11;
        answer.map(move |mut answer| {
            if secure {
                answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
            }
            Ok::<_, Infallible>(WatchedBody::of(answer, under_way, alone))
        })
    });
    let mut stage = Stage::Begins(Some((socket, answer)));
    let tasks = Tasks { tracker: tasks, ended: ended.clone() };
    // A token of its own: asking a shared one on every poll would make the connections wait for each other.
    let shutdown = shutdown.child_token();
    let (mut shutdown, mut told) = (pin!(shutdown.cancelled()), late);
    let mut ended = pin!(ended.cancelled());
    let mut patience = pin!(timer(watch.due(&limits)));
    let how = poll_fn(|cx| {
        if !told && shutdown.as_mut().poll(cx).is_ready() {
            told = true;
            if stage.finish().is_ready() {
                return Poll::Ready(Closed::Shutdown);
            }
        }
        if told && ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Closed::Shutdown);
        }
        if let Poll::Ready(result) = stage.poll(cx, &watch, (&tasks, !late)) {
            if let Err(error) = &result {
                tracing::debug!(connection = id.0, %error, "connection ended");
            }
            let broken = result.is_err();
            return Poll::Ready(if told {
                Closed::Shutdown
            } else if broken {
                Closed::Broken
            } else {
                Closed::Ended
            });
        }
        poll_patience(patience.as_mut(), &watch, &limits, cx).map(|()| {
            tracing::debug!(connection = id.0, "connection was silent for too long");
            Closed::Silent
        })
    })
    .await;
    metrics.closed(how);
}

impl<G, S> Stage<G, S>
where
    G: Send + Unpin + 'static,
    S: HttpService<Incoming, ResBody = WatchedBody, Error = Infallible, Future: Send + 'static>,
{
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        watch: &Arc<Watch>,
        (tasks, keep_alive): (&Tasks, bool),
    ) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        loop {
            let next = match self {
                Self::Begins(begins) => {
                    let Some((socket, _)) = begins else { return Poll::Ready(Ok(())) };
                    let http2 = ready!(socket.stream.poll_is_http2(cx))?;
                    watch.established();
                    let Some((socket, answer)) = begins.take() else { return Poll::Ready(Ok(())) };
                    if http2 { Self::http2(socket, answer, tasks) } else { Self::http1(socket, answer, keep_alive) }
                }
                Self::Http1(connection) => {
                    if let Poll::Ready(result) = Pin::new(&mut **connection).poll(cx) {
                        return Poll::Ready(result.map_err(Into::into));
                    }
                    let Some(body) = watch.rest.leave() else { return Poll::Pending };
                    let Self::Http1(connection) = std::mem::replace(self, Self::Begins(None)) else {
                        return Poll::Ready(Ok(()));
                    };
                    let Some(parts) = connection.into_parts() else { return Poll::Ready(Ok(())) };
                    Self::Live(Live::new(parts.io.into_inner(), body, watch))
                }
                Self::Http2(connection) => return connection.as_mut().poll(cx).map_err(Into::into),
                Self::Live(live) => return live.poll(cx).map_err(Into::into),
            };
            *self = next;
        }
    }

    /// Makes it end after what is under way; ready when that is nothing.
    fn finish(&mut self) -> Poll<()> {
        match self {
            Self::Begins(_) => return Poll::Ready(()),
            Self::Http1(connection) => Pin::new(&mut **connection).graceful_shutdown(),
            Self::Http2(connection) => connection.as_mut().graceful_shutdown(),
            // It is told to go by itself.
            Self::Live(_) => {}
        }
        Poll::Pending
    }

    fn http1(socket: WatchedSocket<G>, answer: S, keep_alive: bool) -> Self {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(keep_alive)
            // `Watch` has this limit, and another one for the time between requests.
            .header_read_timeout(None)
            .max_buf_size(BUFFER_BYTES_MAX)
            // The buffer may be larger than asked for.
            .max_header_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(socket), answer);
        Self::Http1(Box::new(connection.with_upgrades()))
    }

    fn http2(socket: WatchedSocket<G>, answer: S, tasks: &Tasks) -> Self {
        let connection = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING)
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_header_list_size(HTTP2_HEADERS_BYTES_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(BUFFER_BYTES_MAX)
            // WebSocket over HTTP/2 (RFC 8441).
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(socket), answer);
        Self::Http2(Box::pin(connection))
    }
}

/// Ready when the connection is to be given up. The timer is only moved when it has rung or must ring earlier: most
/// requests touch no timer.
fn poll_patience(mut timer: Pin<&mut Sleep>, watch: &Watch, limits: &ServerLimits, cx: &mut Context<'_>) -> Poll<()> {
    let due = watch.due(limits);
    if due < timer.deadline() {
        timer.as_mut().reset(due);
    }
    loop {
        ready!(timer.as_mut().poll(cx));
        let due = watch.due(limits);
        if due <= Instant::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(due);
    }
}

#[expect(clippy::disallowed_methods, reason = "a time limit that moves needs a timer that can be reset")]
fn timer(due: Instant) -> Sleep {
    tokio::time::sleep_until(due)
}

/// Where the requests of an HTTP/2 connection run: owned like their connection, ended with it.
#[derive(Clone)]
struct Tasks {
    tracker: TaskTracker,
    ended: CancellationToken,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let ended = self.ended.clone();
        self.tracker.spawn(async move { ended.run_until_cancelled(future).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Door;
    use crate::server::gate::Pass;
    use crate::telemetry::Open;

    fn size_of_result<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    // The sizing in docs/benchmarks.md counts on it. An `await` of something large in the task itself would show here.
    #[test]
    fn the_task_of_a_connection_is_small() {
        let bytes =
            size_of_result(|(stream, held, id, service)| serve::<(Pass, Open), Door>(stream, held, id, service));
        assert!(bytes <= 1280, "{bytes}");
    }
}
