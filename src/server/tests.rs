//! The loop over real sockets, with limits that are short or far away: what is closed, and what is not.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use plinth_api::limits::{HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, HTTP2_HELD_BYTES_MAX};
use rcgen::generate_simple_self_signed;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

const SHORT: Duration = Duration::from_millis(50);
const FAR: Duration = Duration::from_secs(3600);

const UNBOUND: ServerLimits = ServerLimits {
    connections_max: 100,
    connections_per_address_max: 100,
    handshake_timeout: FAR,
    first_byte_timeout: FAR,
    header_timeout: FAR,
    idle_timeout: FAR,
    stall_timeout: FAR,
    body_timeout: FAR,
    drain: FAR,
};

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    /// When cancelled, the endless answer ends.
    end_stream: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

fn start(limits: ServerLimits) -> Server {
    start_with(limits, |router| router)
}

fn start_with<A: Answer>(limits: ServerLimits, answer: impl FnOnce(Router) -> A) -> Server {
    start_over(None, limits, answer)
}

fn start_over<A: Answer>(tls: Option<Tls>, limits: ServerLimits, answer: impl FnOnce(Router) -> A) -> Server {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let end_stream = CancellationToken::new();
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/refuse", post(|_: Request| async { StatusCode::PAYLOAD_TOO_LARGE }))
        .route("/stream", get(endless))
        // More than the buffers of both sockets hold.
        .route("/large", get(large))
        .with_state(end_stream.clone());
    let service = Service {
        answer: answer(router),
        limits,
        shutdown: CancellationToken::new(),
        ended: CancellationToken::new(),
        tasks: TaskTracker::new(),
        tls,
        metrics: Arc::new(Metrics::new([], |_| {})),
    };
    let shutdown = service.shutdown.clone();
    Server { address, shutdown, end_stream, serving: tokio::spawn(serve(listener, service)) }
}

async fn large() -> Body {
    let pieces = (0..256).map(|_| Ok::<_, Infallible>(Bytes::from(vec![0; 64 * 1024])));
    Body::from_stream(futures::stream::iter(pieces))
}

async fn endless(State(end): State<CancellationToken>) -> (Extension<Lasting>, Body) {
    let first = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"first"))]);
    let rest = futures::stream::once(async move {
        end.cancelled().await;
        Ok(Bytes::from_static(b"last"))
    });
    (Extension(Lasting), Body::from_stream(futures::StreamExt::chain(first, rest)))
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn send(socket: &mut (impl AsyncWrite + Unpin), text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
}

/// What comes up to and including `end`.
async fn receive(socket: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(socket.read_u8().await.unwrap()));
    }
    text
}

/// What comes until the server closes.
async fn receive_all(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

const HELLO: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

// Fails without the first case of `Watch::due`.
#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed() {
    let server = start(ServerLimits { first_byte_timeout: SHORT, ..UNBOUND });
    assert_eq!(receive_all(&mut server.connect().await).await, "");
}

// Fails if a resting connection had the time limit of a head, as with hyper's own `header_read_timeout`.
#[tokio::test]
async fn a_head_that_does_not_end_is_closed_and_a_resting_connection_is_not() {
    let server = start(ServerLimits { header_timeout: SHORT, ..UNBOUND });
    let mut resting = server.connect().await;
    send(&mut resting, HELLO).await;
    receive(&mut resting, "hello").await;
    let mut slow = server.connect().await;
    send(&mut slow, "GET / HTTP/1.1\r\nhost:").await;
    assert_eq!(receive_all(&mut slow).await, "");
    send(&mut resting, HELLO).await;
    assert!(receive(&mut resting, "hello").await.starts_with("HTTP/1.1 200"));
}

// Fails if the time within a request counted as rest: the endless answer would be cut.
#[tokio::test]
async fn a_connection_that_rests_for_too_long_is_closed_and_one_within_a_request_is_not() {
    let server = start(ServerLimits { idle_timeout: SHORT, ..UNBOUND });
    let mut busy = server.connect().await;
    send(&mut busy, "GET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    receive(&mut busy, "first\r\n").await;
    let mut resting = server.connect().await;
    send(&mut resting, HELLO).await;
    assert!(receive_all(&mut resting).await.ends_with("hello"));
    server.end_stream.cancel();
    assert!(receive_all(&mut busy).await.contains("last"));
}

// Fails without the pass in `admit`.
#[tokio::test]
async fn a_connection_over_the_cap_is_closed_and_the_others_go_on() {
    let server = start(ServerLimits { connections_per_address_max: 1, ..UNBOUND });
    let mut first = server.connect().await;
    send(&mut first, HELLO).await;
    receive(&mut first, "hello").await;
    assert_eq!(receive_all(&mut server.connect().await).await, "");
    send(&mut first, HELLO).await;
    receive(&mut first, "hello").await;
}

// Fails without the lingering close in `WatchedSocket::poll_shutdown`: the connection is reset while the client writes.
#[tokio::test]
async fn a_client_that_is_refused_while_it_still_sends_gets_the_answer() {
    let server = start(UNBOUND);
    let mut socket = server.connect().await;
    // More than the buffers of both sockets hold.
    let body = vec![b'x'; 16 * 1024 * 1024];
    send(&mut socket, &format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    socket.write_all(&body).await.unwrap();
    socket.shutdown().await.unwrap();
    assert!(receive_all(&mut socket).await.starts_with("HTTP/1.1 413"));
}

// Fails if the loop stopped accepting at the shutdown, or did not wait for open answers.
#[tokio::test]
async fn while_the_node_ends_open_answers_go_on_and_new_connections_get_one_answer() {
    let server = start(UNBOUND);
    let mut open = server.connect().await;
    send(&mut open, "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    receive(&mut open, "first\r\n").await;
    let mut resting = server.connect().await;
    send(&mut resting, HELLO).await;
    receive(&mut resting, "hello").await;
    server.shutdown.cancel();
    assert_eq!(receive_all(&mut resting).await, "");
    let mut late = server.connect().await;
    send(&mut late, HELLO).await;
    let answer = receive_all(&mut late).await;
    assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
    server.end_stream.cancel();
    assert!(receive_all(&mut open).await.contains("last"));
    server.serving.await.unwrap().unwrap();
}

// Fails if `ended` did not reach the connections: the test would not end.
#[tokio::test]
async fn what_does_not_end_in_the_drain_time_is_ended() {
    let server = start(ServerLimits { drain: Duration::ZERO, ..UNBOUND });
    let mut open = server.connect().await;
    send(&mut open, "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    receive(&mut open, "first\r\n").await;
    server.shutdown.cancel();
    server.serving.await.unwrap().unwrap();
    assert!(!receive_all(&mut open).await.contains("last"));
}

/// Answers as the router; each copy, which is what a connection has in hyper, says when it is dropped.
struct Heard {
    router: Router,
    dropped: Sender<()>,
}

impl Clone for Heard {
    fn clone(&self) -> Self {
        Self { router: self.router.clone(), dropped: self.dropped.clone() }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        // After the test nobody hears it.
        let _ = self.dropped.try_send(());
    }
}

impl Answer for Heard {
    fn answer(
        &self,
        connection: ConnectionId,
        request: axum::http::Request<RequestBody>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static + use<> {
        self.router.answer(connection, request)
    }
}

// Fails if `Rest` did not let it go, or if what hyper still had to write were lost on the way.
#[tokio::test]
async fn a_lasting_answer_leaves_hyper_while_it_rests_and_comes_to_its_end() {
    let (dropped, mut hears) = channel(8);
    let server = start_with(UNBOUND, |router| Heard { router, dropped });
    let mut socket = server.connect().await;
    send(&mut socket, &format!("{HELLO}GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(receive(&mut socket, "hello").await.starts_with("HTTP/1.1 200"));
    let answer = receive(&mut socket, "first\r\n").await;
    assert!(answer.contains("connection: close\r\n") && answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
    hears.recv().await.unwrap();
    server.end_stream.cancel();
    assert_eq!(receive_all(&mut socket).await, "4\r\nlast\r\n0\r\n\r\n");
}

// Fails without `poll_gone`: nothing would be written that could fail.
#[tokio::test]
async fn a_client_that_leaves_a_lasting_answer_is_let_go() {
    let server = start(ServerLimits { connections_max: 1, ..UNBOUND });
    let mut socket = server.connect().await;
    send(&mut socket, "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    receive(&mut socket, "first\r\n").await;
    socket.shutdown().await.unwrap();
    assert_eq!(receive_all(&mut socket).await, "");
    let mut next = server.connect().await;
    send(&mut next, HELLO).await;
    assert!(receive(&mut next, "hello").await.starts_with("HTTP/1.1 200"));
}

// Fails if the first bytes that come decided, or were taken away from hyper.
#[tokio::test]
async fn the_version_is_known_however_its_first_bytes_come() {
    let server = start(UNBOUND);
    let mut socket = server.connect().await;
    socket.set_nodelay(true).unwrap();
    for piece in ["P", "RI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n"] {
        send(&mut socket, piece).await;
        tokio::task::yield_now().await;
    }
    // A frame without flags of the stream 0, and of the type SETTINGS.
    let mut frame = [0; 9];
    socket.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3..], [4, 0, 0, 0, 0, 0]);
    let mut socket = server.connect().await;
    for piece in ["P", "OST /refuse HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"] {
        send(&mut socket, piece).await;
        tokio::task::yield_now().await;
    }
    assert!(receive_all(&mut socket).await.starts_with("HTTP/1.1 413"));
    // Fails without `is_ended`: what is there would be looked at for ever.
    let mut socket = server.connect().await;
    send(&mut socket, "PRI").await;
    socket.shutdown().await.unwrap();
    receive_all(&mut socket).await;
}

/// TLS with a certificate of its own, and a client's side of it.
async fn tls() -> (Tls, TlsConnector) {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificate: dir.path().join("cert"), key: dir.path().join("key") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    (Tls::load(files).await.unwrap(), TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

impl Server {
    async fn shake(&self, connector: &TlsConnector) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, self.connect().await).await.unwrap()
    }
}

// Fails if the time of the handshake were not bounded: the reads would not end.
#[tokio::test]
async fn a_handshake_that_does_not_begin_or_go_on_is_given_up() {
    let (tls, _) = tls().await;
    let server = start_over(Some(tls), ServerLimits { handshake_timeout: SHORT, ..UNBOUND }, |router| router);
    assert_eq!(receive_all(&mut server.connect().await).await, "");
    let mut half = server.connect().await;
    // A record that says to be longer than it is.
    half.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
    assert_eq!(receive_all(&mut half).await, "");
}

// Fails if the first byte of the handshake counted as that of a request.
#[tokio::test]
async fn after_its_handshake_a_connection_that_sends_nothing_is_closed() {
    let (tls, connector) = tls().await;
    let server = start_over(Some(tls), ServerLimits { first_byte_timeout: SHORT, ..UNBOUND }, |router| router);
    let mut silent = server.shake(&connector).await;
    // The end comes without a farewell of TLS.
    assert!(silent.read(&mut [0]).await.is_err());
}

// Fails without either turn in `handshake`: the client would be let through.
#[tokio::test]
async fn a_handshake_over_a_bound_waits_until_another_one_ends() {
    let (tls, connector) = tls().await;
    let turns = Arc::clone(&tls.turns);
    let server = start_over(Some(tls), UNBOUND, |router| router);
    let own = turns.of_client(server.address.ip());
    for (turns, count) in [(turns.of_node(), HANDSHAKES_MAX), (own, HANDSHAKES_PER_ADDRESS_MAX)] {
        let taken = turns.acquire_many(u32::try_from(count).unwrap()).await.unwrap();
        let mut shaking = pin!(server.shake(&connector));
        assert!(timeout(SHORT, &mut shaking).await.is_err());
        drop(taken);
        let mut socket = shaking.await;
        send(&mut socket, HELLO).await;
        receive(&mut socket, "hello").await;
    }
}

// Fails if a turn of the node were taken before the client's first message is there: the second client would wait.
#[tokio::test]
async fn who_is_slow_with_his_first_message_holds_up_nobody() {
    let (tls, connector) = tls().await;
    let node = tls.turns.of_node();
    let server = start_over(Some(tls), UNBOUND, |router| router);
    let _all_but_one = node.acquire_many(u32::try_from(HANDSHAKES_MAX).unwrap() - 1).await.unwrap();
    let mut slow = server.connect().await;
    slow.write_all(&[22, 3, 1]).await.unwrap();
    for _ in 0..3 {
        let mut quick = server.shake(&connector).await;
        send(&mut quick, HELLO).await;
        receive(&mut quick, "hello").await;
    }
}

/// Sends `noise` again and again until the connection is over.
async fn until_given_up(socket: &mut TcpStream, noise: &[u8]) {
    let mut ticks = tokio::time::interval(SHORT / 10);
    while socket.write_all(noise).await.is_ok() {
        ticks.tick().await;
    }
}

// Fails if what a client sends counted as progress of its answer: the writes would go on for ever.
#[tokio::test]
async fn an_answer_that_is_not_taken_is_given_up_whatever_its_client_sends() {
    let server = start(ServerLimits { stall_timeout: SHORT, ..UNBOUND });
    let mut deaf = server.connect().await;
    send(&mut deaf, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until_given_up(&mut deaf, b"x").await;
    // Over HTTP/2 with a window of nothing: the settings, the request, and then pings, which are answered.
    let mut deaf = server.connect().await;
    let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0][..], &[0, 4, 0, 0, 0, 0]].concat();
    let request = [&[0, 0, 13, 1, 5, 0, 0, 0, 1][..], b"\x82\x86\x41\x01x\x04\x06/large"].concat();
    deaf.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &request].concat()).await.unwrap();
    until_given_up(&mut deaf, &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
}

// Fails without the flush in `Live::poll`, or if the TLS state were lost on the way out of hyper.
#[tokio::test]
async fn over_tls_a_lasting_answer_leaves_hyper_too_and_comes_to_its_end() {
    let (tls, connector) = tls().await;
    let (dropped, mut hears) = channel(8);
    let server = start_over(Some(tls), UNBOUND, |router| Heard { router, dropped });
    let mut socket = server.shake(&connector).await;
    send(&mut socket, "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(receive(&mut socket, "first\r\n").await.contains("strict-transport-security: max-age=31536000\r\n"));
    hears.recv().await.unwrap();
    server.end_stream.cancel();
    assert_eq!(receive_all(&mut socket).await, "4\r\nlast\r\n0\r\n\r\n");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Counts frames of one kind up to `count` that `wanted` wants, by flags and length.
async fn frames(socket: &mut (impl AsyncRead + Unpin), mut count: usize, wanted: impl Fn(u8, u8, usize) -> bool) {
    while count > 0 {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        socket.read_exact(&mut vec![0; length]).await.unwrap();
        count -= usize::from(wanted(head[3], head[4], length));
    }
}

const PIECE: usize = 1024 * 1024;
/// Streams that would hold twice as much as they may.
const STREAMS: usize = 2 * HTTP2_HELD_BYTES_MAX / PIECE;

fn streams() -> impl Iterator<Item = u32> {
    (0..STREAMS).map(|n| u32::try_from(2 * n + 1).unwrap())
}

/// `/batch` answers one large piece, and counts it when it is asked for it.
fn start_with_batches(limits: ServerLimits, given: &Arc<AtomicUsize>) -> Server {
    let given = Arc::clone(given);
    let batch = move || {
        let given = Arc::clone(&given);
        let piece = async move {
            given.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from(vec![0; PIECE]))
        };
        async { Body::from_stream(futures::stream::once(piece)) }
    };
    start_with(limits, |router| router.route("/batch", get(batch)))
}

/// Opens windows of so many bytes on all streams.
fn open_windows(bytes: u32) -> Vec<u8> {
    streams().flat_map(|stream| frame(8, 0, stream, &bytes.to_be_bytes())).collect()
}

/// Asks for a batch on every stream, with a window of one byte: then h2 has all of what a body gives.
async fn ask_for_batches(socket: &mut TcpStream) {
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let request = |stream| frame(1, 5, stream, b"\x82\x86\x41\x01x\x04\x06/batch");
    let requests: Vec<u8> = streams().flat_map(request).collect();
    let all = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &requests, &open_windows(1)].concat();
    socket.write_all(&all).await.unwrap();
}

// Fails without `Pinned::poll_room`, and if a piece counted only until h2 has taken it; hangs if nobody were woken.
#[tokio::test]
async fn streams_that_are_not_taken_hold_a_bounded_part_of_the_memory_together() {
    let given = Arc::default();
    let server = start_with_batches(UNBOUND, &given);
    let mut socket = server.connect().await;
    ask_for_batches(&mut socket).await;
    frames(&mut socket, HTTP2_HELD_BYTES_MAX / PIECE, |kind, _, length| kind == 0 && length == 1).await;
    let mut other = server.connect().await;
    send(&mut other, HELLO).await;
    receive(&mut other, "hello").await;
    let held = given.load(Ordering::Relaxed) * PIECE;
    assert_eq!(held, HTTP2_HELD_BYTES_MAX);
    // Who takes everything gets everything.
    let all = u32::try_from(STREAMS * PIECE).unwrap();
    socket.write_all(&[frame(8, 0, 0, &all.to_be_bytes()), open_windows(all)].concat()).await.unwrap();
    frames(&mut socket, STREAMS, |kind, flags, _| kind == 0 && flags & 1 == 1).await;
    assert_eq!(given.load(Ordering::Relaxed), STREAMS);
}

// Hangs if an answer that waits for room were not owed: all that are left could wait, and the connection with them.
#[tokio::test]
async fn a_connection_that_holds_as_much_as_it_may_and_takes_nothing_is_given_up() {
    let server = start_with_batches(ServerLimits { stall_timeout: SHORT, ..UNBOUND }, &Arc::default());
    let mut deaf = server.connect().await;
    ask_for_batches(&mut deaf).await;
    // It is alive: it asks, and answers what it is asked.
    let (mut reading, mut writing) = deaf.into_split();
    let (asked, mut answers) = channel(8);
    let listening = async move {
        let mut head = [0; 9];
        while reading.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if reading.read_exact(&mut payload).await.is_ok() && head[3..5] == [6, 0] {
                asked.send(payload).await.unwrap();
            }
        }
    };
    let asking = async move {
        let mut ticks = tokio::time::interval(SHORT / 10);
        loop {
            let ping = tokio::select! {
                _ = ticks.tick() => frame(6, 0, 0, &[7; 8]),
                Some(payload) = answers.recv() => frame(6, 1, 0, &payload),
            };
            if writing.write_all(&ping).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = listening => {}
        () = asking => {}
    }
}
