//! A live stream as server-sent events: what is there, and what comes, until the client leaves, the stream is closed, the
//! credential or the node ends, or a minute is over: then clients come back, to whichever node is there.

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
use super::frames::{Control, Encoding};
use super::get::{Failed, Wanted};
use super::headers::STREAM_SSE_DATA_ENCODING;
use crate::auth::{Caller, TopicRef};
use crate::broker::{Error, StreamFollower, StreamMoved};
use crate::http::access::Access;
use crate::http::awake::{Awake, Woken};
use crate::http::live::X_ACCEL_BUFFERING;
use crate::http::{Front, RequestId};
use crate::problem::problem_of;
use crate::server::Lasting;
use crate::telemetry::{Open, Transport};

/// How long a connection lasts, at least; and how much longer it may, so that not all come back at once.
const LIFE_MS: u64 = 54_000;
const LIFE_SPREAD_MS: u64 = 12_000;
/// About how many bytes one chunk has.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// A stream of events as it runs.
struct Events {
    front: Front,
    caller: Caller,
    request_id: RequestId,
    follower: StreamFollower,
    encoding: Encoding,
    cursor: Option<String>,
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
    let encoding = Encoding::of(follower.view());
    let counted = front.metrics.follower(Transport::Sse);
    let events = Events::new(front.clone(), access.caller.clone(), (follower, encoding), (wanted.cursor, request_id));
    let mut response = Response::new(Body::from_stream(events.chunks(counted)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if encoding == Encoding::Base64 {
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
        (follower, encoding): (StreamFollower, Encoding),
        (cursor, request_id): (Option<String>, RequestId),
    ) -> Self {
        let awake = Awake::new(&front, &caller);
        let ends = Instant::now() + Duration::from_millis(LIFE_MS + front.random(LIFE_SPREAD_MS));
        Self { front, caller, request_id, follower, encoding, cursor, awake, ends, over: false }
    }

    /// The chunks of the body. `counted` is dropped with the stream.
    fn chunks(self, counted: Open) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold((self, counted), async move |(mut events, counted)| {
            let chunk = events.next_chunk().await?;
            Some((Ok(chunk), (events, counted)))
        })
    }

    async fn next_chunk(&mut self) -> Option<Bytes> {
        // What ended between the check of the credential and here was not told to this stream.
        while !self.over && self.front.auth.ended(&self.caller).is_none() {
            match timeout_at(self.ends, self.woken()).await {
                Err(_) | Ok(Woken::ToldToGo) => return None,
                Ok(Woken::Revoked) => {}
                Ok(Woken::Heartbeat) => return Some(Bytes::from_static(b":\n\n")),
                Ok(Woken::Moved(moved)) => return self.moved(moved),
            }
        }
        None
    }

    async fn woken(&mut self) -> Woken<Result<StreamMoved, Error>> {
        let next = pin!(self.follower.next());
        self.awake.woken(next).await
    }

    fn moved(&mut self, moved: Result<StreamMoved, Error>) -> Option<Bytes> {
        match moved {
            Ok(moved) => {
                self.over = moved.closed;
                self.front.metrics.delivered(Transport::Sse, moved.records());
                Some(self.written(&moved))
            }
            Err(error) => {
                let problem = problem_of(&error);
                let (request_id, code, caller) = (self.request_id.as_str(), problem.code.as_str(), self.caller.id());
                if !matches!(error, Error::NotFound(_) | Error::Gone(_)) {
                    self.front.metrics.failed(Transport::Sse, &problem);
                    tracing::warn!(request_id, code, %error, caller, "a live stream ends");
                }
                None
            }
        }
    }

    fn written(&self, moved: &StreamMoved) -> Bytes {
        let now = self.front.broker.log().now();
        let cursor = next_cursor(self.cursor.as_deref(), now, |below| self.front.random(below));
        let mut text = String::new();
        let last = moved.batches.len().saturating_sub(1);
        for index in 0..moved.batches.len() {
            self.encoding.push(&mut text, moved.payloads(index));
            if index < last {
                let (next, cursor) = (moved.token_after(index), Some(cursor));
                Control { next, cursor, up_to_date: false, closed: false, gaps: &[] }.push(&mut text);
            }
        }
        let StreamMoved { next, up_to_date, closed, ref gaps, .. } = *moved;
        Control { next, cursor: Some(cursor), up_to_date, closed, gaps }.push(&mut text);
        Bytes::from(text)
    }
}
