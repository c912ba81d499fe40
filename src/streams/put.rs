//! Create a stream, or make sure that it is there.

use std::borrow::Cow;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use plinth_api::error::ErrorCode;
use plinth_api::limits::BATCH_BYTES_MAX;
use plinth_api::topics::TopicName;

use super::{ROOTS, fail, headers};
use crate::auth::{Action, Caller};
use crate::broker::{ForkFrom, StreamConfig};
use crate::http::Front;
use crate::http::access::base_url;
use crate::http::error::ApiError;
use crate::http::extract::{self, Authed, Bound, Name};

/// Create a stream, or make sure that it is there and is so.
///
/// The body is its first content, and is left out of account when the stream is there. A stream is a topic of one partition
/// whose name is the path; what the protocol of Durable Streams says of it holds here. The same under `/v1/stream/{path}`.
///
/// A stream that is deleted, or ends, while it has forks answers 410 and blocks its path until the last of them is deleted.
///
/// With a body, or closed from the beginning with one, the credential needs the scope `publish` as well.
#[utoipa::path(
    put,
    path = "/v1/streams/{path}",
    operation_id = "ensure_stream",
    tag = "streams",
    params(
        ("path" = TopicName, Path, description = "The name; a `/` in it may be written as it is"),
        ("Content-Type" = Option<String>, Header, max_length = 255, description = "The media type of all that is in the stream; default \
            `application/octet-stream`. A stream of `application/json` is a list of messages: one array per body is taken apart"),
        ("Stream-TTL" = Option<u64>, Header, maximum = 9_007_199_254_740_u64, description = "Seconds after the last append or \
            read at which the stream ends by itself"),
        ("Stream-Expires-At" = Option<String>, Header, format = DateTime, description = "The time at which it ends by itself, by RFC 3339; \
            not with `Stream-TTL`"),
        ("Stream-Closed" = Option<String>, Header, description = "`true`: nothing can be appended after the body"),
        ("Stream-Forked-From" = Option<String>, Header, description = "The path of another stream's address, such as `/v1/stream/a`: \
            the stream begins with what that one holds, which is shared and not copied. Its media type and its end by itself hold here if none \
            is said; the credential needs `subscribe` on it"),
        ("Stream-Fork-Offset" = Option<String>, Header, description = "The offset up to which; default is the end"),
        ("Stream-Fork-Sub-Offset" = Option<u64>, Header, maximum = 9_007_199_254_740_991_u64, description = "So many bytes, or \
            messages of JSON, behind the offset, of what was appended there at once"),
    ),
    request_body(description = "The first content; may be empty", content(
        (plinth_api::records::Payload = "application/octet-stream"),
        (plinth_api::records::TextPayload = "text/plain"),
        (serde_json::Value = "application/json"),
        (serde_json::Value = "*/*"),
    )),
    responses(
        (status = 201, description = "The stream was made"),
        (status = 200, description = "The stream was there and is so"),
    )
)]
pub(crate) async fn put(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let topic = caller.authorize(Action::Manage, &name)?;
    let config = config(&caller, &parts.headers)?;
    let mut room = front.broker.room(topic.account(), body.size_hint().lower().min(BATCH_BYTES_MAX as u64))?;
    let bound = Bound { max: BATCH_BYTES_MAX, what: "the body", room: Some(&mut room) };
    let body = extract::body(&front, &parts.headers, body, bound).await?;
    room.shrink(body.len() as u64);
    if !body.is_empty() {
        caller.authorize(Action::Publish, &name)?;
    }
    let (view, made) = match front.broker.ensure_stream(&topic, config, body).await {
        Ok(ensured) => ensured,
        Err(error) => return Ok(fail::failed(error, None)),
    };
    let mut response = Response::default();
    headers::write_view(response.headers_mut(), &view);
    if made {
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert(LOCATION, location(&front, &parts)?);
    }
    Ok(response)
}

/// What is asked for. Who forks a stream reads it.
fn config(caller: &Caller, headers: &HeaderMap) -> Result<StreamConfig, ApiError> {
    let config = headers::config(headers)?;
    let Some(headers::Fork { from, offset, sub }) = headers::fork(headers)? else { return Ok(config) };
    let source = caller.authorize(Action::Subscribe, &source(caller, &from)?)?;
    Ok(StreamConfig { fork: Some(ForkFrom { source, anchor: offset, sub }), ..config })
}

/// The name of the stream at an address of this node, which may begin with the caller's own tenant.
fn source<'a>(caller: &Caller, from: &'a str) -> Result<Cow<'a, str>, ApiError> {
    let of_tenant = from.strip_prefix("/t/").and_then(|rest| rest.split_once('/'));
    let tenant = of_tenant.map(|(tenant, _)| percent_decode_str(tenant).decode_utf8_lossy());
    let path = of_tenant.map_or(from, |(tenant, _)| &from["/t/".len() + tenant.len()..]);
    let is_own = tenant.is_none_or(|tenant| caller.inside().is_ok_and(|own| own.name() == &*tenant));
    let name = ROOTS.iter().find_map(|root| path.strip_prefix(root)).filter(|_| is_own);
    let name = name.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no stream at {from:?}")))?;
    percent_decode_str(name)
        .decode_utf8()
        .map_err(|_| ApiError::invalid("the path of the source is not UTF-8 when it is percent-decoded"))
}

/// The address of the stream as the client wrote it.
fn location(front: &Front, parts: &Parts) -> Result<HeaderValue, ApiError> {
    let url = format!("{}{}", base_url(front, parts)?, parts.uri.path());
    HeaderValue::try_from(url).map_err(ApiError::internal)
}
