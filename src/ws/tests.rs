//! Sessions over a pipe in memory while time stands still: it moves only when everybody waits for it.

use std::sync::Arc;

use axum::{Extension, Router};
use futures::{SinkExt, StreamExt};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use plinth_storage::Log;
use plinth_storage::log::LogOptions;
use plinth_storage::store;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::*;
use crate::auth::Auth;
use crate::broker::{Broker, BrokerOptions, Wakes};
use crate::egress::{Egress, EgressOptions};
use crate::http::{Front, StreamOptions, router};
use crate::server::{Connection, ServerLimits};
use crate::telemetry::Metrics;

struct World {
    router: Router,
    key: String,
    connections: JoinSet<()>,
}

type Socket = WebSocketStream<DuplexStream>;

async fn world() -> World {
    let log = Log::open(LogOptions::new(store::open("memory://").expect("a store"))).await.expect("a log");
    let (auth, made) = Auth::open(log.clone(), None).await.expect("credentials");
    let broker = Broker::open(log, BrokerOptions::default()).await.expect("a broker");
    let wakes = Wakes::new(auth.clone(), broker.clone(), Egress::new(EgressOptions::default()));
    let front = Front::new(
        (auth, broker, wakes),
        (Arc::new(Metrics::new([], |_| {})), None),
        ServerLimits::default(),
        StreamOptions::default(),
    );
    let router = router(front).layer(Extension(Connection::without_socket()));
    World { router, key: made.default_key.expect("made"), connections: JoinSet::new() }
}

impl World {
    /// A connection without a credential.
    async fn connect(&mut self) -> Socket {
        self.open(None).await
    }

    /// A connection that has its credential and was welcomed.
    async fn connect_with_key(&mut self) -> Socket {
        let mut socket = self.open(Some(format!("Bearer {}", self.key))).await;
        assert_eq!(next_type(&mut socket).await, "welcome");
        socket
    }

    async fn open(&mut self, authorization: Option<String>) -> Socket {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = TowerToHyperService::new(self.router.clone());
        self.connections.spawn(async move {
            let connection = Builder::new().serve_connection(TokioIo::new(theirs), service);
            connection.with_upgrades().await.expect("it is served");
        });
        let mut request = "ws://plinth/v1/ws".into_client_request().expect("an address");
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().expect("a header"));
        }
        tokio_tungstenite::client_async(request, ours).await.expect("the upgrade is accepted").0
    }
}

async fn send(socket: &mut Socket, frame: serde_json::Value) {
    socket.send(Message::text(frame.to_string())).await.expect("the connection is open");
}

/// The `type` of the next text frame.
async fn next_type(socket: &mut Socket) -> String {
    loop {
        match socket.next().await.expect("the connection is open").expect("a frame") {
            Message::Text(text) => {
                let frame: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                return frame["type"].as_str().expect("a type").to_owned();
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => panic!("{other:?}"),
        }
    }
}

/// The code with which the connection is closed within an hour.
async fn close_code(socket: &mut Socket) -> u16 {
    let closed = async {
        loop {
            if let Message::Close(close) = socket.next().await.expect("it ends with a close frame").expect("a frame") {
                return close.expect("with a code").code.into();
            }
        }
    };
    timeout(Duration::from_secs(3600), closed).await.expect("it is closed")
}

// Fails without the branch `no_credential` in `Session::serve`, or if its time began anew with every frame.
#[tokio::test(start_paused = true)]
async fn who_shows_no_credential_within_ten_seconds_is_closed_whatever_else_he_says() {
    let mut world = world().await;
    for talks in [false, true] {
        let mut socket = world.connect().await;
        let began = Instant::now();
        for number in 0..if talks { 3 } else { 0 } {
            send(&mut socket, serde_json::json!({"type": "ping", "id": number.to_string()})).await;
            assert_eq!(next_type(&mut socket).await, "pong");
            assert!(timeout(Duration::from_secs(3), socket.next()).await.is_err(), "nothing comes for 3 s");
        }
        assert_eq!(close_code(&mut socket).await, close::NO_CREDENTIAL);
        assert_eq!(began.elapsed().as_secs(), 10, "talks: {talks}");
    }
}

// Fails if the time for the credential ran on after it has come.
#[tokio::test(start_paused = true)]
async fn who_shows_the_credential_in_the_tenth_second_stays() {
    let mut world = world().await;
    let mut socket = world.connect().await;
    assert!(timeout(Duration::from_millis(9_900), socket.next()).await.is_err(), "nothing comes before");
    send(&mut socket, serde_json::json!({"type": "auth", "token": world.key})).await;
    assert_eq!(next_type(&mut socket).await, "welcome");
    assert!(timeout(Duration::from_secs(10), socket.next()).await.is_err(), "and nothing after it");
}

// Fails without the count of `silent_pings` in `Session::tick`: the reads below would get pings for ever.
#[tokio::test(start_paused = true)]
async fn a_client_that_misses_two_pings_is_closed_when_the_third_is_due() {
    const PING: u16 = 0x8900;
    let mut world = world().await;
    let mut socket = world.connect_with_key().await;
    let began = Instant::now();
    // Below the library, which would answer.
    let pipe = socket.get_mut();
    for expected in [20, 40] {
        assert_eq!(pipe.read_u16().await.expect("a ping"), PING);
        assert_eq!(began.elapsed().as_secs(), expected);
    }
    assert_eq!(pipe.read(&mut [0; 16]).await.expect("the end"), 0);
    assert_eq!(began.elapsed().as_secs(), 60);
}

// Fails if an answer did not set back the count of `silent_pings`.
#[tokio::test(start_paused = true)]
async fn a_client_that_answers_its_pings_stays() {
    let mut world = world().await;
    let mut socket = world.connect_with_key().await;
    let began = Instant::now();
    for _ in 0..30 {
        let ping = socket.next().await.expect("the connection is open").expect("a frame");
        assert!(matches!(ping, Message::Ping(_)), "{ping:?}");
    }
    assert_eq!(began.elapsed().as_secs(), 600);
    send(&mut socket, serde_json::json!({"type": "ping", "id": "there"})).await;
    assert_eq!(next_type(&mut socket).await, "pong");
}
