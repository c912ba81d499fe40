//! Follows by server-sent events; the id of each event is the cursor, sent back as `Last-Event-ID`.

use std::time::Duration;

use async_stream::try_stream;
use eventsource_stream::{Event, EventStreamError, Eventsource};
use futures::stream::StreamExt;
use reqwest::Method;

use super::{Args, Incoming, Position, Stream, live_target};
use crate::cli::client::{Client, Fault, send};

pub(super) fn open(client: &Client, args: &Args, position: &Position) -> Stream {
    let (path, query) = live_target(args);
    let mut request = client.request(Method::GET, &path).query(&query).header("accept", "text/event-stream");
    request = match position.cursor() {
        Some(cursor) => request.header("last-event-id", cursor),
        None => request.query(&[("from", position.from())]),
    };
    try_stream! {
        let mut events = send(request).await?.bytes_stream().eventsource();
        while let Some(event) = events.next().await {
            let event = event.map_err(lost)?;
            let cursor = Some(event.id.clone()).filter(|id| !id.is_empty());
            if let Some(incoming) = parse(event)? {
                yield incoming;
            }
            if let Some(cursor) = cursor {
                yield Incoming::Cursor(cursor);
            }
        }
    }
    .boxed()
}

fn parse(event: Event) -> Result<Option<Incoming>, Fault> {
    match event.event.as_str() {
        "record" => Ok(Some(Incoming::Record(event.data))),
        "caught_up" => Ok(Some(Incoming::CaughtUp)),
        "gap" => read(&event.data).map(Incoming::Gap).map(Some),
        "goaway" => {
            let goaway: Goaway = read(&event.data)?;
            let wait = Duration::from_millis(goaway.reconnect_in_ms);
            Ok(Some(Incoming::Goaway { wait, reason: goaway.reason }))
        }
        "closed" => read::<End>(&event.data).map(|closed| Some(Incoming::Closed { topic: closed.topic })),
        "end" => read::<End>(&event.data).map(|end| Some(Incoming::End { topic: end.topic })),
        // A later version may send events that this one need not know.
        _ => Ok(None),
    }
}

/// The data of a `goaway` event.
#[derive(serde::Deserialize)]
struct Goaway {
    reconnect_in_ms: u64,
    #[serde(default)]
    reason: String,
}

/// The data of `closed` and `end`.
#[derive(serde::Deserialize)]
struct End {
    topic: String,
}

fn read<T: serde::de::DeserializeOwned>(data: &str) -> Result<T, Fault> {
    serde_json::from_str(data).map_err(|error| Fault::Lost(format!("unreadable event: {error}")))
}

fn lost(error: EventStreamError<reqwest::Error>) -> Fault {
    match error {
        EventStreamError::Transport(error) => Fault::of(error),
        EventStreamError::Utf8(error) => Fault::Lost(error.to_string()),
        EventStreamError::Parser(error) => Fault::Lost(error.to_string()),
    }
}
