//! Follows by lines of JSON: a record each, or a control line.

use std::time::Duration;

use async_stream::try_stream;
use bytes::BytesMut;
use futures::stream::{StreamExt, TryStreamExt};
use plinth_api::records::Control;
use reqwest::Method;

use super::{Args, Incoming, Position, Stream, live_target};
use crate::cli::client::{Client, Fault, send};

/// Longest line; a record of 1 MiB of control characters is six times as long in JSON.
const LINE_BYTES_MAX: usize = 16 << 20;

pub(super) fn open(client: &Client, args: &Args, position: &Position) -> Stream {
    let (path, query) = live_target(args);
    let request = client
        .request(Method::GET, &path)
        .query(&query)
        .query(&[("from", position.from())])
        .header("accept", "application/x-ndjson");
    try_stream! {
        let mut chunks = send(request).await?.bytes_stream().map_err(Fault::of);
        let mut rest = BytesMut::new();
        while let Some(chunk) = chunks.try_next().await? {
            rest.extend_from_slice(&chunk);
            while let Some(line) = cut(&mut rest)? {
                for incoming in parse(line)? {
                    yield incoming;
                }
            }
        }
    }
    .boxed()
}

/// Takes the first complete line away.
fn cut(rest: &mut BytesMut) -> Result<Option<String>, Fault> {
    let Some(end) = memchr::memchr(b'\n', rest) else {
        if rest.len() > LINE_BYTES_MAX {
            return Err(Fault::Lost(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
        }
        return Ok(None);
    };
    let line = rest.split_to(end + 1);
    match std::str::from_utf8(&line[..end]) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(error) => Err(Fault::Lost(format!("a line is not UTF-8: {error}"))),
    }
}

fn parse(line: String) -> Result<Vec<Incoming>, Fault> {
    if line.trim().is_empty() {
        return Ok(Vec::new());
    }
    if !line.starts_with("{\"control\"") {
        return Ok(vec![Incoming::Record(line)]);
    }
    let parsed =
        serde_json::from_str(&line).map_err(|error| Fault::Lost(format!("unreadable control line: {error}")))?;
    Ok(control(parsed))
}

/// What a control line means.
fn control(control: Control) -> Vec<Incoming> {
    match control {
        Control::CaughtUp { cursor } => vec![Incoming::Cursor(cursor), Incoming::CaughtUp],
        Control::Gap(gap) => vec![Incoming::Gap(gap)],
        Control::Goaway { reconnect_in_ms, reason, cursor } => {
            let wait = Duration::from_millis(reconnect_in_ms);
            vec![Incoming::Cursor(cursor), Incoming::Goaway { wait, reason }]
        }
        Control::Closed { topic } => vec![Incoming::Closed { topic }],
        Control::End { topic } => vec![Incoming::End { topic }],
    }
}
