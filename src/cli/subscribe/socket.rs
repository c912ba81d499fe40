//! Follows by WebSocket: one connection, one subscription over all topics. No credit is set: TCP slows the node down.

use std::collections::BTreeMap;
use std::time::Duration;

use async_stream::try_stream;
use futures::sink::SinkExt;
use futures::stream::StreamExt;
use plinth_api::error::Problem;
use plinth_api::frames::SUBPROTOCOL;
use plinth_api::records::Gap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_tungstenite::connect_async_tls_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Args, Incoming, Position, Stream};
use crate::cli::client::{Client, Fault};

/// Longest silence; the node pings every 20 s.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// The name of our subscription on its connection.
const SUBSCRIPTION: &str = "cli";

/// The fields of every frame that we read. Not an enum: serde buffers those, and payloads would lose their bytes.
#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    records: Vec<Box<RawValue>>,
    cursor: Option<String>,
    topic: Option<String>,
    problem: Option<Problem>,
    reconnect_in_ms: Option<u64>,
    reason: Option<String>,
    #[serde(default)]
    cursors: BTreeMap<String, String>,
}

pub(super) fn open(client: &Client, args: &Args, position: &Position) -> Stream {
    let (request, trusted) = (request(client), client.trusted());
    let subscribe = serde_json::json!({
        "type": "subscribe", "id": SUBSCRIPTION, "topics": args.topics, "from": position.from(),
    });
    try_stream! {
        let request = request?;
        let address = request.uri().to_string();
        let connected = connect_async_tls_with_config(request, None, false, trusted).await;
        let (mut socket, _) = connected.map_err(|error| not_connected(&address, error))?;
        socket.send(Message::text(subscribe.to_string())).await.map_err(fault)?;
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, socket.next()).await;
            let message = next.map_err(|_| Fault::Lost(format!("silence for {SILENCE_MAX:?}")))?;
            let text = match message.transpose().map_err(fault)? {
                Some(Message::Text(text)) => text,
                Some(Message::Close(frame)) => Err(closed(frame))?,
                None => break,
                // Pings are answered by the library.
                Some(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)) => continue,
            };
            for incoming in parse(&text)? {
                yield incoming;
            }
        }
    }
    .boxed()
}

fn request(client: &Client) -> Result<Request<()>, Fault> {
    let mut request = client.socket_url("/v1/ws").into_client_request().map_err(fault)?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    for (name, value) in client.headers() {
        let value =
            HeaderValue::from_str(&value).map_err(|_| Fault::Lost(format!("{name} cannot be sent in a header")))?;
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    Ok(request)
}

fn parse(text: &str) -> Result<Vec<Incoming>, Fault> {
    let mut frame: Frame = read(text)?;
    let cursor = frame.cursor.take().or_else(|| frame.cursors.remove(SUBSCRIPTION)).map(Incoming::Cursor);
    Ok(match frame.kind.as_str() {
        "subscribed" => cursor.into_iter().collect(),
        "records" => {
            let records = frame.records.into_iter().map(|record| Incoming::Record(record.get().to_owned()));
            records.chain(cursor).collect()
        }
        "caught_up" => cursor.into_iter().chain([Incoming::CaughtUp]).collect(),
        "gap" => vec![Incoming::Gap(read::<Gap>(text)?)],
        "closed" => vec![Incoming::Closed { topic: frame.topic.unwrap_or_default() }],
        "end" => vec![Incoming::End { topic: frame.topic.unwrap_or_default() }],
        "error" => return Err(refused(frame.problem)),
        "goaway" => {
            let wait = Duration::from_millis(frame.reconnect_in_ms.unwrap_or_default());
            let goaway = Incoming::Goaway { wait, reason: frame.reason.unwrap_or_default() };
            cursor.into_iter().chain([goaway]).collect()
        }
        // `welcome`, `pong`, and what a later version may send.
        _ => Vec::new(),
    })
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Lost(format!("unreadable frame: {error}")))
}

fn refused(problem: Option<Problem>) -> Fault {
    match problem {
        Some(problem) => Fault::Refused { problem: Box::new(problem), retry_after: None },
        None => Fault::Lost("an error without a problem".to_owned()),
    }
}

fn closed(frame: Option<tokio_tungstenite::tungstenite::protocol::CloseFrame>) -> Fault {
    match frame {
        Some(frame) => Fault::Lost(format!("closed by the node with {}: {}", u16::from(frame.code), frame.reason)),
        None => Fault::Lost("closed by the node".to_owned()),
    }
}

fn not_connected(address: &str, error: Error) -> Fault {
    let Error::Io(error) = error else { return fault(error) };
    Fault::Lost(format!("cannot connect to {address}: {error}"))
}

fn fault(error: Error) -> Fault {
    let Error::Http(response) = error else { return Fault::Lost(error.to_string()) };
    let body = response.body().as_deref().unwrap_or_default();
    match serde_json::from_slice(body) {
        Ok(problem) => Fault::Refused { problem: Box::new(problem), retry_after: None },
        Err(_) => Fault::Foreign {
            status: response.status(),
            text: String::from_utf8_lossy(body).chars().take(200).collect(),
        },
    }
}
