//! Live streams: NDJSON and server-sent events, over one topic or many.
//!
//! A stream ends when its client leaves, when its credential ends, and when the node does; the last two are said, with
//! the position to go on from. A browser's `EventSource` gives up for ever after an error status, so a stream that may
//! work later is answered 200, with the time to wait, and closed.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use plinth_api::error::{ErrorCode, Retry};
use plinth_api::limits::STREAM_TOPICS_MAX;
use plinth_api::records::{Control, EventFormat};
use plinth_api::topics;

use super::accept::{MediaType, negotiate};
use super::access::{self, Access};
use super::encode::Encoder;
use super::error::ApiError;
use super::extract::{Params, visit};
use super::follow::Stream;
use super::front::Front;
use super::read::start;
use super::visit::RequestId;
use crate::auth::{Action, Caller, TopicPattern};
use crate::broker::{FollowRequest, From as Start, SlowPolicy};
use crate::server::Lasting;
use crate::telemetry::Transport;

const OFFERED: [MediaType; 2] = [MediaType::EventStream, MediaType::Ndjson];
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(crate) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Longest time after which a browser that is sent away comes back.
const RECONNECT_MS_MAX: u64 = 60_000;

/// About how many payload bytes one chunk of a stream has.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Follow several topics in one stream.
///
/// `topic` is given once per topic or pattern, in which `*` is any run without `.` and `/`, and `**` anything. A pattern
/// only shows topics that the credential allows. A ticket leaves the cookie `__Secure-plinth`, as for one topic.
#[utoipa::path(
    get,
    path = "/v1/stream",
    operation_id = "follow_topics",
    tag = "records",
    params(
        ("topic" = Vec<topics::TopicPattern>, Query, style = Form, explode, description = "At most 100"),
        ("from" = Option<plinth_api::records::From>, Query, description = "Default `latest`"),
        ("format" = Option<EventFormat>, Query, description = "Events: what their data is; default the record"),
        ("unnamed" = Option<bool>, Query, description = "Events: records without an event name, for `onmessage`"),
        ("last_event_id" = Option<String>, Query, description = "As the header, for clients that cannot set it"),
        ("Last-Event-ID" = Option<String>, Header, description = "The cursor of the last event that was seen"),
        ("__Secure-plinth" = Option<String>, Cookie, description = "Events: what a ticket left; beside the spent ticket, \
            from a page of the server's own origin, it opens the same address again"),
    ),
    responses(
        (status = 200, description = "A stream that goes on", content(
            (String = "text/event-stream"),
            (String = "application/x-ndjson"),
        )),
    )
)]
pub(super) async fn stream(State(front): State<Front>, request: Request) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let mut params = Params::parse(parts.uri.query());
    let media_type = negotiate(&parts.headers, &OFFERED);
    let again = matches!(media_type, Ok(MediaType::EventStream));
    let access = match access::of_stream(&front, visit(&parts)?, &parts, &mut params, again).await {
        Err(refused) if again => return send_away(&front, refused),
        access => access?,
    };
    let topics = topics(&access.caller, &mut params)?;
    let request = LiveRequest::take(media_type?, &parts.headers, &mut params, topics)?;
    params.finish()?;
    answer(front, access, request, visit(&parts)?.request_id().clone()).await
}

fn topics(caller: &Caller, params: &mut Params<'_>) -> Result<Vec<TopicPattern>, ApiError> {
    let names = params.take_all("topic");
    match names.len() {
        0 => {
            return Err(ApiError::invalid("the query parameter `topic` is missing; give it once per topic or pattern"));
        }
        1..=STREAM_TOPICS_MAX => {}
        count => {
            let detail = format!("{count} topics and patterns exceed the limit of {STREAM_TOPICS_MAX}");
            return Err(ApiError::new(ErrorCode::Unprocessable, detail));
        }
    }
    let topics: Result<Vec<_>, _> =
        names.iter().map(|name| caller.authorize_pattern(Action::Subscribe, name)).collect();
    Ok(topics?)
}

/// A live stream that is asked for.
pub(super) struct LiveRequest {
    follow: FollowRequest,
    encoder: Encoder,
    media_type: MediaType,
    resumed_from: String,
}

impl LiveRequest {
    /// What `headers` and `params` say of a stream over `topics`.
    pub(super) fn take(
        media_type: MediaType,
        headers: &HeaderMap,
        params: &mut Params<'_>,
        topics: Vec<TopicPattern>,
    ) -> Result<Self, ApiError> {
        for name in ["limit", "max_bytes", "wait"] {
            params.refuse(name, media_type.as_str())?;
        }
        let encoder = encoder(media_type, params)?;
        let resumed_from = last_event_id(headers, params)?;
        let from = start(params)?.unwrap_or(Start::Latest);
        let from = resumed_from.clone().map_or(from, Start::Cursor);
        let follow = FollowRequest {
            topics,
            partition: params.take_parsed("partition")?,
            from,
            policy: SlowPolicy::CatchUp,
            batch_bytes_max: CHUNK_BYTES_MAX,
        };
        Ok(Self { follow, encoder, media_type, resumed_from: resumed_from.unwrap_or_default() })
    }
}

fn encoder(media_type: MediaType, params: &mut Params<'_>) -> Result<Encoder, ApiError> {
    if media_type != MediaType::EventStream {
        params.refuse("format", media_type.as_str())?;
        params.refuse("unnamed", media_type.as_str())?;
        return Ok(Encoder::Ndjson);
    }
    let value = match params.take("format")?.as_deref() {
        None => false,
        Some("value") => true,
        Some(other) => {
            let detail = format!("the query parameter `format` is `{other}`; there is `value`");
            return Err(ApiError::invalid(detail));
        }
    };
    let named = !params.take_parsed::<bool>("unnamed")?.unwrap_or(false);
    Ok(Encoder::Events { named, value })
}

/// The position after what the client has seen: the header, or the parameter for clients that cannot set it. A header
/// without content is what a client sends that has seen nothing.
fn last_event_id(headers: &HeaderMap, params: &mut Params<'_>) -> Result<Option<String>, ApiError> {
    let parameter = params.take("last_event_id")?;
    let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str().map(str::to_owned)).transpose();
    let header =
        header.map_err(|_| ApiError::new(ErrorCode::InvalidCursor, "the header `last-event-id` is not text"))?;
    Ok(header.or(parameter).filter(|id| !id.is_empty()))
}

/// Begins the stream.
pub(super) async fn answer(
    front: Front,
    mut access: Access,
    request: LiveRequest,
    request_id: RequestId,
) -> Result<Response, ApiError> {
    let LiveRequest { follow, encoder, media_type, resumed_from } = request;
    let mut response = match front.broker.follow(follow).await {
        Ok(follower) => {
            let transport = if media_type == MediaType::Ndjson { Transport::Ndjson } else { Transport::Sse };
            let counted = front.metrics.follower(transport);
            let stream = Stream::new(front, access.caller.clone(), (follower, encoder), request_id);
            let mut response = streaming(media_type, Body::from_stream(stream.chunks(transport, counted)));
            response.extensions_mut().insert(Lasting);
            response
        }
        Err(error) if media_type == MediaType::EventStream => goaway(&front, error.into(), encoder, &resumed_from)?,
        Err(error) => return Err(error.into()),
    };
    access.leave_cookie(&mut response);
    Ok(response)
}

/// The answer to an `EventSource` that is refused before anything is known of its stream.
///
/// # Errors
/// `refused`, if it is of no use to come back.
pub(super) fn send_away(front: &Front, refused: ApiError) -> Result<Response, ApiError> {
    goaway(front, refused, Encoder::Events { named: true, value: false }, "")
}

/// Sends a stream away that may work later, and ends its connection: what refuses it may be the number of them.
fn goaway(front: &Front, refused: ApiError, encoder: Encoder, cursor: &str) -> Result<Response, ApiError> {
    let code = refused.code();
    if code.retry() == Retry::Never {
        return Err(refused);
    }
    front.metrics.failed(Transport::Sse, refused.problem());
    tracing::debug!(code = code.as_str(), detail = refused.problem().detail, "a stream is sent away");
    let known = refused.problem().retry_after_ms.unwrap_or(0);
    let reconnect_in_ms = known.saturating_add(front.reconnect_in_ms()).min(RECONNECT_MS_MAX);
    let goaway = Control::Goaway { reconnect_in_ms, reason: code.as_str().to_owned(), cursor: cursor.to_owned() };
    let mut response = streaming(MediaType::EventStream, Body::from(encoder.control(&goaway, cursor)));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn streaming(media_type: MediaType, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type.as_str()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_last_event_id_wins_over_the_parameter() {
        let seen = |header: Option<&'static str>, query| {
            let headers = header.map(|value| (LAST_EVENT_ID, HeaderValue::from_static(value))).into_iter().collect();
            last_event_id(&headers, &mut Params::parse(query)).unwrap()
        };
        assert_eq!(seen(Some("a"), Some("last_event_id=b")).as_deref(), Some("a"));
        assert_eq!(seen(None, Some("last_event_id=b")).as_deref(), Some("b"));
        assert_eq!(seen(Some(""), None), None);
        assert_eq!(seen(None, None), None);
    }

    #[test]
    fn parameters_of_events_are_refused_for_lines() {
        for query in ["format=value", "unnamed=true"] {
            let error = encoder(MediaType::Ndjson, &mut Params::parse(Some(query))).err().unwrap();
            assert_eq!(error.code(), ErrorCode::UnknownField);
        }
        let error = encoder(MediaType::EventStream, &mut Params::parse(Some("format=xml"))).err().unwrap();
        assert_eq!(error.problem().detail, "the query parameter `format` is `xml`; there is `value`");
    }
}
