//! Read a stream: what is there, or what comes, by long-poll or server-sent events.

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, ETAG, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use plinth_api::topics::TopicName;

use super::{etag, fail, headers, poll, sse};
use crate::auth::{Action, TopicRef};
use crate::broker::{Error, GivenToken, StreamFrom, StreamPage};
use crate::http::access::of_stream;
use crate::http::error::ApiError;
use crate::http::extract::{Name, Params, visit};
use crate::http::pieces::Pieces;
use crate::http::{Front, Visit};
use crate::telemetry::Transport;

/// What is there stays so: a part of a stream that does not reach its end.
const KEPT: HeaderValue = HeaderValue::from_static("private, max-age=60, stale-while-revalidate=300");
/// What reaches the end is asked for again each time, by its `ETag`.
const ASKED_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What else than the address an answer depends on that is kept: a browser may hold several credentials, and each tenant has
/// a stream of that name.
const BY_CREDENTIAL: HeaderValue = HeaderValue::from_static("Authorization, Plinth-Tenant, Origin");

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Page,
    LongPoll,
    Events,
}

/// What a request asks for.
pub(super) struct Wanted {
    pub(super) from: StreamFrom,
    /// The cursor of the answer before.
    pub(super) cursor: Option<String>,
    mode: Mode,
}

/// Read a stream from an offset.
///
/// Without `live` the answer is what there is, up to about `PLINTH_STREAM_RESPONSE_BYTES`; `Stream-Up-To-Date` says that it reaches the end, and
/// `Stream-Closed` that it reaches the end and nothing can come. A stream of JSON is answered as one array. `live=long-poll`
/// waits at the end for what comes, `live=sse` goes on with events: `data`, and after each `control` with the next offset.
///
/// The offset of a stream that was deleted, or of what is no longer kept, answers 410; -1 is the first that is kept. Where records are
/// missing, `Plinth-Gap` says it. The same under `/v1/stream/{path}`.
#[utoipa::path(
    get,
    path = "/v1/streams/{path}",
    operation_id = "read_stream",
    tag = "streams",
    params(
        ("path" = TopicName, Path, description = "The name; a `/` in it may be written as it is"),
        ("offset" = Option<String>, Query, pattern = "^(-1|now|[0-9]{16}_[0-9]{16})$", description = "`-1` (default) for the start, `now` for \
            what comes, or a `Stream-Next-Offset` that was given before; with `live` it must be there"),
        ("live" = Option<String>, Query, pattern = "^(long-poll|sse)$", description = "Whether to wait for what comes, and how"),
        ("cursor" = Option<String>, Query, description = "The `Stream-Cursor` of the answer before"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an answer that is there still"),
        ("__Secure-plinth" = Option<String>, Cookie, description = "Events: what a ticket left; beside the spent ticket, \
            from a page of the server's own origin, it opens the same address again"),
    ),
    responses(
        (status = 200, description = "What is there from the offset on, or events", content(
            (plinth_api::records::Payload = "application/octet-stream"),
            (plinth_api::records::TextPayload = "text/plain"),
            (serde_json::Value = "application/json"),
            (String = "text/event-stream"),
            (serde_json::Value = "*/*"),
        )),
        (status = 204, description = "Long-poll: nothing came, or the stream is closed"),
        (status = 304, description = "What is there from the offset on is what the client has"),
    )
)]
pub(crate) async fn get(State(front): State<Front>, Name(name): Name, request: Request) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    answer(&front, visit(&parts)?, &name, &parts).await
}

/// Reads the stream `name` as a request asks for it.
pub(crate) async fn answer(front: &Front, visit: &Visit, name: &str, parts: &Parts) -> Result<Response, ApiError> {
    let mut params = Params::parse(parts.uri.query());
    let wanted = Wanted::take(&mut params);
    let events = wanted.as_ref().is_ok_and(|wanted| wanted.mode == Mode::Events);
    let access = of_stream(front, visit, parts, &mut params, events).await?;
    let topic = access.caller.authorize(Action::Subscribe, name)?;
    let wanted = wanted?;
    // Those that wait are in boxes: every connection has room for what is answered directly.
    let answer = match wanted.mode {
        Mode::Page => page(front, &topic, wanted.from, parts).await,
        Mode::LongPoll => Box::pin(poll::answer(front, &access.caller, &topic, (&wanted, &parts.headers))).await,
        Mode::Events => {
            let id = visit.request_id().clone();
            Box::pin(sse::answer(front, access, &topic, (wanted, id))).await
        }
    };
    answer.or_else(|failed| failed.answer())
}

/// Why there is no answer.
pub(super) enum Failed {
    Broker(Error),
    Api(ApiError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl Failed {
    fn answer(self) -> Result<Response, ApiError> {
        match self {
            Self::Broker(error) => Ok(fail::failed(error, None)),
            Self::Api(error) => Err(error),
        }
    }
}

impl Wanted {
    fn take(params: &mut Params<'_>) -> Result<Self, ApiError> {
        let mode = match params.take("live")?.as_deref() {
            None => Mode::Page,
            Some("long-poll") => Mode::LongPoll,
            Some("sse") => Mode::Events,
            Some(other) => {
                let detail = format!("the query parameter `live` is {other:?}; there are `long-poll` and `sse`");
                return Err(ApiError::invalid(detail));
            }
        };
        let from = match params.take("offset")?.as_deref() {
            None if mode == Mode::Page => StreamFrom::Start,
            None => return Err(ApiError::invalid("the query parameter `offset` is missing; a live reader needs it")),
            Some("-1") => StreamFrom::Start,
            Some("now") => StreamFrom::Now,
            Some(text) => GivenToken::parse(text).map(StreamFrom::At).ok_or_else(|| not_an_offset(text))?,
        };
        Ok(Self { from, cursor: params.take("cursor")?, mode })
    }
}

fn not_an_offset(text: &str) -> ApiError {
    let shown: String = text.chars().take(64).collect();
    ApiError::invalid(format!("the query parameter `offset` is {shown:?} and none of `-1`, `now` and a given offset"))
}

/// What is there.
async fn page(front: &Front, topic: &TopicRef, from: StreamFrom, parts: &Parts) -> Result<Response, Failed> {
    let page = front.broker.read_stream(topic, from, front.streams.response_bytes).await?;
    let room = front.broker.room_of_page(topic.account(), page.held_bytes)?;
    front.metrics.delivered(Transport::Page, page.records);
    let mut response = Response::default();
    let told = response.headers_mut();
    write_cached(told, from, &page);
    if from != StreamFrom::Now {
        let etag = etag::of_part(page.view.id, page.from..page.to, (page.up_to_date, page.closed));
        let known = etag::is_known(&parts.headers, &etag);
        told.insert(ETAG, etag);
        if known {
            headers::write_end(told, page.next, page.closed);
            headers::write_up_to_date(told, page.up_to_date);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
    }
    headers::write_media_type(told, &page.view);
    headers::write_end(told, page.next, page.closed);
    headers::write_up_to_date(told, page.up_to_date);
    headers::write_gaps(told, &page.gaps);
    *response.body_mut() = Pieces::body(page.pieces, room);
    Ok(response)
}

fn write_cached(headers: &mut HeaderMap, from: StreamFrom, page: &StreamPage) {
    let cached = match (from, page.up_to_date) {
        (StreamFrom::Now, _) => NO_STORE,
        (StreamFrom::Start | StreamFrom::At(_), true) => ASKED_AGAIN,
        (StreamFrom::Start | StreamFrom::At(_), false) => {
            headers.insert(VARY, BY_CREDENTIAL);
            KEPT
        }
    };
    headers.insert(CACHE_CONTROL, cached);
}
