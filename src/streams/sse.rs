//! A live stream as server-sent events: what is there, and what comes, until the client leaves, the stream is closed, the
//! credential or the node ends, or a minute is over: then clients come back, to whichever node is there.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use tokio::time::{Instant, timeout_at};

use super::cursor::next_cursor;
use super::frames::{CONTROL_BYTES, Control, data_of};
use super::get::{Failed, Wanted};
use super::headers::STREAM_SSE_DATA_ENCODING;
use crate::auth::{Caller, TopicRef};
use crate::broker::{Error, StreamFollower, StreamMoved};
use crate::http::access::Access;
use crate::http::awake::{Awake, Woken};
use crate::http::live::X_ACCEL_BUFFERING;
use crate::http::{Front, RequestId};
use crate::problem::problem_of;
use crate::render::EventData;
use crate::server::Lasting;
use crate::telemetry::{Open, Transport};

/// How long a connection lasts, at least; and how much longer it may, so that not all come back at once.
const LIFE_MS: u64 = 54_000;
const LIFE_SPREAD_MS: u64 = 12_000;
/// About how many bytes one chunk has.
const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Events from this size on are pieces of their own.
const OWN_PIECE_BYTES: usize = 4 * 1024;

/// A stream of events as it runs.
struct Events {
    front: Front,
    caller: Caller,
    request_id: RequestId,
    follower: StreamFollower,
    data: EventData,
    cursor: Option<String>,
    /// What is written and not sent.
    written: VecDeque<Bytes>,
    awake: Awake,
    ends: Instant,
    over: bool,
}

/// Begins the stream.
pub(super) async fn answer(
    front: &Front,
    mut access: Access,
    topic: &TopicRef,
    (wanted, request_id): (Wanted, RequestId),
) -> Result<Response, Failed> {
    let bytes_max = front.streams.response_bytes.min(CHUNK_BYTES_MAX);
    let follower = front.broker.follow_stream(topic, wanted.from, bytes_max).await?;
    let data = data_of(follower.view());
    let counted = front.metrics.follower(Transport::Sse);
    let events = Events::new(front.clone(), access.caller.clone(), (follower, data), (wanted.cursor, request_id));
    let mut response = Response::new(Body::from_stream(events.chunks(counted)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if data == EventData::Base64 {
        headers.insert(STREAM_SSE_DATA_ENCODING, HeaderValue::from_static("base64"));
    }
    response.extensions_mut().insert(Lasting);
    access.leave_cookie(&mut response);
    Ok(response)
}

impl Events {
    fn new(
        front: Front,
        caller: Caller,
        (follower, data): (StreamFollower, EventData),
        (cursor, request_id): (Option<String>, RequestId),
    ) -> Self {
        let awake = Awake::new(&front, &caller);
        let ends = Instant::now() + Duration::from_millis(LIFE_MS + front.random(LIFE_SPREAD_MS));
        let written = VecDeque::new();
        Self { front, caller, request_id, follower, data, cursor, written, awake, ends, over: false }
    }

    /// The chunks of the body. `counted` is dropped with the stream.
    fn chunks(self, counted: Open) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold((self, counted), async move |(mut events, counted)| {
            let chunk = events.next_chunk().await?;
            Some((Ok(chunk), (events, counted)))
        })
    }

    async fn next_chunk(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.written.pop_front() {
            return Some(piece);
        }
        // What ended between the check of the credential and here was not told to this stream.
        while !self.over && self.front.auth.ended(&self.caller).is_none() {
            match timeout_at(self.ends, self.woken()).await {
                Err(_) | Ok(Woken::ToldToGo) => return None,
                Ok(Woken::Revoked) => {}
                Ok(Woken::Heartbeat) => return Some(Bytes::from_static(b":\n\n")),
                Ok(Woken::Moved(moved)) => {
                    self.moved(moved);
                    return self.written.pop_front();
                }
            }
        }
        None
    }

    async fn woken(&mut self) -> Woken<Result<StreamMoved, Error>> {
        let next = pin!(self.follower.next());
        self.awake.woken(next).await
    }

    /// Writes what came. Nothing is written when the stream cannot go on.
    fn moved(&mut self, moved: Result<StreamMoved, Error>) {
        match moved {
            Ok(moved) => {
                self.over = moved.closed;
                self.front.metrics.delivered(Transport::Sse, moved.records());
                self.write(&moved);
            }
            Err(error) => {
                let problem = problem_of(&error);
                let (request_id, code, caller) = (self.request_id.as_str(), problem.code.as_str(), self.caller.id());
                if !matches!(error, Error::NotFound(_) | Error::Gone(_)) {
                    self.front.metrics.failed(Transport::Sse, &problem);
                    tracing::warn!(request_id, code, %error, caller, "a live stream ends");
                }
            }
        }
    }

    /// Large events are pieces of their own, shared with who else follows the stream.
    fn write(&mut self, moved: &StreamMoved) {
        let now = self.front.broker.log().now();
        let cursor = next_cursor(self.cursor.as_deref(), now, |below| self.front.random(below));
        let mut text = String::with_capacity(CONTROL_BYTES * (moved.batches.len() + 1));
        let last = moved.batches.len().saturating_sub(1);
        for index in 0..moved.batches.len() {
            let event = moved.event(index, self.data);
            if event.len() < OWN_PIECE_BYTES
                && let Ok(small) = std::str::from_utf8(&event)
            {
                text.push_str(small);
            } else {
                self.push(&mut text);
                self.written.push_back(event);
            }
            if index < last {
                let (next, cursor) = (moved.token_after(index), Some(cursor));
                Control { next, cursor, up_to_date: false, closed: false, gaps: &[] }.push(&mut text);
            }
        }
        let StreamMoved { next, up_to_date, closed, ref gaps, .. } = *moved;
        Control { next, cursor: Some(cursor), up_to_date, closed, gaps }.push(&mut text);
        self.push(&mut text);
    }

    fn push(&mut self, text: &mut String) {
        if !text.is_empty() {
            self.written.push_back(std::mem::take(text).into());
        }
    }
}
