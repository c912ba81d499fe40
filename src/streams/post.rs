//! Append to a stream, close it, or both.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody;
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use plinth_api::limits::BATCH_BYTES_MAX;
use plinth_api::topics::TopicName;

use super::headers::{PRODUCER_EPOCH, PRODUCER_SEQ};
use super::{fail, headers};
use crate::broker::{StreamAppend, StreamAppended};
use crate::http::admit::{admit, turn_away};
use crate::http::error::ApiError;
use crate::http::extract::{self, Bound, Name};
use crate::http::{Front, Visit};
use crate::telemetry::Transport;

/// Append to a stream, close it, or both. The answer comes when it is stored: content, producer, sequence and closing are one
/// entry of the log, all of it or nothing.
///
/// In a stream of JSON a body is one message, or an array of them. With the three headers of a producer an append that is
/// repeated is stored once, however long ago the first was: the repetition answers 204 with the highest sequence that was
/// accepted. The same under `/v1/stream/{path}`.
#[utoipa::path(
    post,
    path = "/v1/streams/{path}",
    operation_id = "append_to_stream",
    tag = "streams",
    params(
        ("path" = TopicName, Path, description = "The name; a `/` in it may be written as it is"),
        ("Content-Type" = Option<String>, Header, description = "The media type of the stream; not looked at without a body"),
        ("Stream-Seq" = Option<String>, Header, max_length = 255, description = "Must be above the last one of the stream, compared byte \
            by byte; 1 to 255 bytes"),
        ("Stream-Closed" = Option<String>, Header, description = "`true`: nothing can be appended after this"),
        ("Producer-Id" = Option<String>, Header, max_length = 255, description = "Names the producer within the stream, 1 to 255 bytes"),
        ("Producer-Epoch" = Option<u64>, Header, maximum = 9_007_199_254_740_991_u64, description = "The producer's incarnation; a later one ends the others"),
        ("Producer-Seq" = Option<u64>, Header, maximum = 9_007_199_254_740_991_u64, description = "The number of the append within the epoch, from 0"),
    ),
    request_body(description = "What is appended; empty to close alone", content(
        (plinth_api::records::Payload = "application/octet-stream"),
        (plinth_api::records::TextPayload = "text/plain"),
        (serde_json::Value = "application/json"),
        (serde_json::Value = "*/*"),
    )),
    responses(
        (status = 204, description = "Stored; or closed; or stored by an earlier request of the producer"),
        (status = 200, description = "Stored, for a producer"),
    )
)]
pub(crate) async fn post(
    State(front): State<Front>,
    Extension(visit): Extension<Arc<Visit>>,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    answer(&front, &visit, &name, (&parts, body)).await
}

/// Appends the body of a request to the stream `name`.
pub(crate) async fn answer<B>(
    front: &Front,
    visit: &Visit,
    name: &str,
    (parts, body): (&Parts, B),
) -> Result<Response, ApiError>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    let began = Instant::now();
    let (caller, topic, mut room) = match admit(front, visit, name, (&parts.headers, body.size_hint().exact())).await {
        Ok(admitted) => admitted,
        Err(refused) => return Err(Box::pin(turn_away(front, refused, body)).await),
    };
    let producer = headers::producer(&parts.headers)?;
    let (content_type, seq) = (headers::content_type(&parts.headers)?, headers::seq(&parts.headers)?);
    let close = headers::is_closed(&parts.headers);
    let bound = Bound { max: BATCH_BYTES_MAX, what: "the body", room: Some(&mut room) };
    let body = extract::body(front, &parts.headers, body, bound).await?;
    room.shrink(body.len() as u64);
    // The body may have taken its time.
    caller.check_suspended()?;
    let bytes = body.len() as u64;
    let append = StreamAppend { content_type, body, producer, seq, close };
    match front.broker.append_to_stream(&topic, &append).await {
        Ok(appended) => {
            let stored = u64::from(appended.records);
            front.metrics.published(Transport::Http, stored, if stored == 0 { 0 } else { bytes });
            front.metrics.publish_took(began.elapsed().as_secs_f64());
            Ok(told(&appended))
        }
        Err(error) => Ok(fail::failed(error, append.producer.as_ref())),
    }
}

fn told(appended: &StreamAppended) -> Response {
    let mut response = Response::default();
    let stored_for_producer = appended.records > 0 && appended.producer.is_some();
    *response.status_mut() = if stored_for_producer { StatusCode::OK } else { StatusCode::NO_CONTENT };
    let headers = response.headers_mut();
    headers::write_end(headers, appended.next, appended.closed);
    if let Some((epoch, highest)) = appended.producer {
        headers.insert(PRODUCER_EPOCH, HeaderValue::from(epoch));
        headers.insert(PRODUCER_SEQ, HeaderValue::from(highest));
    }
    response
}
