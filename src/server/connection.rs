//! One connection: HTTP/1.1 or HTTP/2, by its first bytes, until it ends, is too slow or is told to end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::http::{Request, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::watch::{RequestBody, Watch, WatchedBody, WatchedSocket};
use super::{Answer, ConnectionId, ServerLimits, Service};

/// Largest head of a request, and how much of an answer waits in memory for the socket.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How much of the bodies of one HTTP/2 connection may be under way unread.
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The same for one request.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
/// Most requests under way on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;
/// Largest list of header fields over HTTP/2.
const HTTP2_HEADERS_BYTES_MAX: u32 = 32 * 1024;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it has to say so.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// Serves one connection. `held` is dropped with the socket, which an upgrade may take further than this task.
pub(super) async fn serve<G, A>(stream: TcpStream, held: G, id: ConnectionId, service: Service<A>)
where
    G: Send + Unpin + 'static,
    A: Answer,
{
    let watch = Watch::new();
    let socket = TokioIo::new(WatchedSocket { stream, watch: Arc::clone(&watch), _held: held });
    // While the node ends, a new connection gets one answer.
    let late = service.shutdown.is_cancelled();
    let builder = builder(&service, !late);
    let answered = Arc::clone(&watch);
    // Without a box: hyper keeps the future of a request in a place that the connection has anyway.
    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
        let under_way = answered.request(request.version() == Version::HTTP_2);
        let watch = Arc::clone(&answered);
        let answer = service.answer.answer(id, request.map(|body| RequestBody { body, watch }));
        async move { Ok::<_, Infallible>(answer.await.map(|body| WatchedBody { body, _under_way: under_way })) }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(socket, answer));
    // A token of its own: asking a shared one on every poll would make the connections wait for each other.
    let shutdown = service.shutdown.child_token();
    let (mut shutdown, mut told) = (pin!(shutdown.cancelled()), late);
    let mut ended = pin!(service.ended.cancelled());
    let mut patience = pin!(timer(watch.due(&service.limits)));
    poll_fn(|cx| {
        if !told && shutdown.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        if told && ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(connection = id.0, %error, "connection ended");
            }
            return Poll::Ready(());
        }
        poll_patience(patience.as_mut(), &watch, &service.limits, cx).map(|()| {
            tracing::debug!(connection = id.0, "connection was silent for too long");
        })
    })
    .await;
}

/// Ready when the connection is to be given up. The timer is only moved when it has rung or must ring earlier: most
/// requests touch no timer.
fn poll_patience(
    mut timer: Pin<&mut Sleep>,
    watch: &Watch,
    limits: &ServerLimits,
    cx: &mut std::task::Context<'_>,
) -> Poll<()> {
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

fn builder<A>(service: &Service<A>, keep_alive: bool) -> Builder<Tasks> {
    let tasks = Tasks { tracker: service.tasks.clone(), ended: service.ended.clone() };
    let mut builder = Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        // `Watch` has this limit, and another one for the time between requests.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEADERS_BYTES_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER_BYTES_MAX);
    builder
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
