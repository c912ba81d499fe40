//! What a stream is, that it goes, and what can be done with it.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{ALLOW, CACHE_CONTROL};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use plinth_api::topics::TopicName;

use super::{fail, headers};
use crate::auth::Action;
use crate::http::Front;
use crate::http::error::ApiError;
use crate::http::extract::{Authed, Name};

/// View a stream: its media type, its end, and when it ends by itself. That is no use of the stream: it does not live longer by it.
/// The same under `/v1/stream/{path}`.
#[utoipa::path(
    head,
    path = "/v1/streams/{path}",
    operation_id = "view_stream",
    tag = "streams",
    params(("path" = TopicName, Path, description = "The name; a `/` in it may be written as it is")),
    responses((status = 200, description = "What it is, in the headers"))
)]
pub(crate) async fn head(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
) -> Result<Response, ApiError> {
    let topic = caller.authorize(Action::View, &name)?;
    let view = match front.broker.stream(&topic) {
        Ok(view) => view,
        Err(error) => return Ok(fail::failed(error, None)),
    };
    // Of unknown length: a length in an answer to HEAD is that of what GET would bring (RFC 9110 §8.6).
    let mut response = Response::new(Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()));
    let told = response.headers_mut();
    headers::write_view(told, &view);
    if let Some(expiry) = &view.expiry {
        headers::write_expiry(told, expiry);
    }
    told.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Delete a stream with all that is in it. One of the same name that is made later is another one: no offset of this one is an
/// offset of that. The same under `/v1/stream/{path}`.
#[utoipa::path(
    delete,
    path = "/v1/streams/{path}",
    operation_id = "delete_stream",
    tag = "streams",
    params(("path" = TopicName, Path, description = "The name; a `/` in it may be written as it is")),
    responses((status = 204, description = "The stream is deleted"))
)]
pub(crate) async fn remove(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
) -> Result<Response, ApiError> {
    let topic = caller.authorize(Action::Manage, &name)?;
    match front.broker.delete_stream(&topic).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => Ok(fail::failed(error, None)),
    }
}

/// Which methods there are for a stream. Needs no credential, and tells nothing of the stream. The same under `/v1/stream/{path}`.
#[utoipa::path(
    options,
    path = "/v1/streams/{path}",
    operation_id = "stream_options",
    tag = "streams",
    params(("path" = String, Path, description = "Any path")),
    responses((status = 204, description = "The methods, in `Allow`"))
)]
pub(crate) async fn options() -> Response {
    (StatusCode::NO_CONTENT, [(ALLOW, "PUT, POST, GET, HEAD, DELETE, OPTIONS")]).into_response()
}
