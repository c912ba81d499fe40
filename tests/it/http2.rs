//! HTTP/2 on one connection: requests, server-sent events, and WebSockets by extended CONNECT (RFC 8441).

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::authority::AUTHORITY;
use crate::client::within;
use crate::harness::Server;

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    key: String,
    base: String,
    _driver: JoinSet<()>,
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Connection {
    /// By prior knowledge over plain TCP, by ALPN over TLS.
    async fn open(server: &Server) -> Self {
        let (_, address) = server.url().split_once("://").expect("a URL");
        let stream = TcpStream::connect(address).await.expect("it listens");
        if server.url().starts_with("http:") {
            return Self::over(server, stream).await;
        }
        let config = AUTHORITY.client(&[&version::TLS13], &["h2"]);
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(config).connect(name, stream).await.expect("the certificate is trusted");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(server, stream).await
    }

    async fn over(server: &Server, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, driver) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 is spoken");
        let mut running = JoinSet::new();
        running.spawn(async move { drop(driver.await) });
        Self { sender, key: server.key().to_owned(), base: server.url().to_owned(), _driver: running }
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base)).version(Version::HTTP_2);
        request.header("authorization", format!("Bearer {}", self.key))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Response<hyper::body::Incoming> {
        within("an answer", self.sender.send_request(request)).await.expect("the connection is open")
    }

    async fn publish(&mut self, text: &'static str) {
        let request = self.request(Method::POST, "/v1/topics/t/records").header("content-type", "text/plain");
        let answer = self.send(request.body(text.into()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), answer.version()), (201, Version::HTTP_2));
        answer.into_body().collect().await.expect("a receipt");
    }

    async fn socket(&mut self) -> Socket {
        let request = self.request(Method::CONNECT, "/v1/ws").extension(Protocol::from_static("websocket"));
        let request = request.header("sec-websocket-version", "13").header("sec-websocket-protocol", "plinth.v1.json");
        let mut answer = self.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "plinth.v1.json");
        let upgraded = within("the tunnel", hyper::upgrade::on(&mut answer)).await.expect("it is one");
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        frame(&mut socket, "welcome").await;
        socket
    }
}

/// The next frame of this kind, past markers.
async fn frame(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let message = within("a frame", socket.next()).await.expect("it goes on").expect("a frame");
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        match frame["type"].as_str() {
            Some(found) if found == kind => return frame,
            Some("caught_up") => {}
            _ => panic!("instead of {kind}: {frame}"),
        }
    }
}

async fn subscribe(socket: &mut Socket) {
    let subscribe = json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "latest"});
    socket.send(Message::text(subscribe.to_string())).await.expect("it is open");
    frame(socket, "subscribed").await;
}

// Fails without `enable_connect_protocol` or without the route of `CONNECT`.
#[tokio::test(flavor = "multi_thread")]
async fn websockets_events_and_requests_share_one_connection_of_http_2_over_tls_and_plain() {
    let dir = tempfile::tempdir().unwrap();
    for server in [Server::start().await, Server::start_with(AUTHORITY.issue(dir.path()).options()).await] {
        let mut connection = Connection::open(&server).await;
        connection.publish("first").await;
        let events = connection.request(Method::GET, "/v1/topics/t/records?from=latest");
        let events = events.header("accept", "text/event-stream").body(Full::default()).unwrap();
        let mut events = connection.send(events).await.into_body();
        let (mut one, mut two) = (connection.socket().await, connection.socket().await);
        subscribe(&mut one).await;
        subscribe(&mut two).await;
        connection.publish("second").await;
        for socket in [&mut one, &mut two] {
            assert_eq!(frame(socket, "records").await["records"][0]["text"], "second", "{}", server.url());
        }
        let mut text = String::new();
        while !text.contains("second") {
            let piece = within("an event", events.frame()).await.expect("it goes on").expect("an event");
            text.push_str(&String::from_utf8_lossy(piece.data_ref().expect("data")));
        }
        assert!(!text.contains("first"), "{text}");
        let publish = json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": "third"}]});
        one.send(Message::text(publish.to_string())).await.unwrap();
        assert_eq!(frame(&mut two, "records").await["records"][0]["text"], "third");
        drop(one);
        // The end of one is not the end of the others.
        connection.publish("fourth").await;
        assert_eq!(frame(&mut two, "records").await["records"][0]["text"], "fourth");
    }
}

// Fails when a long-poll or a stream of events keeps the connection to itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_readers_of_a_stream_share_one_connection_of_http_2_with_its_writer() {
    let server = Server::start().await;
    let mut connection = Connection::open(&server).await;
    let text = |request: hyper::http::request::Builder, body: &'static str| {
        request.header("content-type", "text/plain").body(Full::from(body)).unwrap()
    };
    let made = connection.send(text(connection.request(Method::PUT, "/v1/stream/s"), "")).await;
    assert_eq!((made.status().as_u16(), made.version()), (201, Version::HTTP_2));
    let end = made.headers()["stream-next-offset"].to_str().unwrap().to_owned();
    let read = |connection: &Connection, live: &str| {
        let path = format!("/v1/stream/s?offset={end}&live={live}");
        connection.request(Method::GET, &path).body(Full::default()).unwrap()
    };
    let mut events = connection.send(read(&connection, "sse")).await.into_body();
    let mut polls = JoinSet::new();
    for _ in 0..98 {
        polls.spawn(connection.sender.send_request(read(&connection, "long-poll")));
    }
    let appended = connection.send(text(connection.request(Method::POST, "/v1/stream/s"), "news")).await;
    assert_eq!(appended.status().as_u16(), 204);
    let next = appended.headers()["stream-next-offset"].clone();
    while let Some(answer) = within("a long-poll", polls.join_next()).await {
        let answer = answer.unwrap().expect("the connection is open");
        assert_eq!((answer.status().as_u16(), &answer.headers()["stream-next-offset"]), (200, &next));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "news");
    }
    let mut seen = String::new();
    while !seen.contains("news") {
        let piece = within("an event", events.frame()).await.expect("it goes on").expect("an event");
        seen.push_str(&String::from_utf8_lossy(piece.data_ref().expect("data")));
    }
}
