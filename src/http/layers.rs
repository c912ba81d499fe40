//! What surrounds every handler: the id of the request, the rule of one host, the security headers, the problem
//! document, the counting.
//!
//! One edge, not five layers: it is on the path of every publish.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use plinth_api::error::ErrorCode;

use super::error::ApiError;
use super::front::Front;
use super::routes::RECORDS;
use super::visit::Visit;
use crate::server::Connection;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a request that is taken over from the client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Longest wait that `Retry-After` names, in seconds; each answer draws its own.
const RETRY_AFTER_SECONDS_MAX: u64 = 3;

/// The outermost layer of the router.
pub(super) async fn edge(State(front): State<Front>, mut request: Request, next: Next) -> Response {
    let edge = Edge::of(&front, &request);
    let route = request.extensions().get::<MatchedPath>().cloned();
    if let Some(connection) = request.extensions_mut().remove::<Connection>() {
        request.extensions_mut().insert(Arc::new(Visit::new(connection)));
    }
    let response = around(async move {
        check_host(&request)?;
        Ok(next.run(request).await)
    })
    .await;
    edge.finish(&front, route.as_ref().map(MatchedPath::as_str), response)
}

/// What is known of a request before it is answered and needed after.
pub(super) struct Edge {
    id: HeaderValue,
    private: bool,
    post: bool,
}

impl Edge {
    pub(super) fn of<B>(front: &Front, request: &axum::http::Request<B>) -> Self {
        Self {
            id: request_id(front, request.headers()),
            private: request.uri().path().starts_with("/v1/"),
            post: request.method() == Method::POST,
        }
    }

    /// Counts the answer and completes it.
    pub(super) fn finish(self, front: &Front, route: Option<&str>, mut response: Response) -> Response {
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            let shown = self.id.to_str().unwrap_or_default();
            error.log(shown, route.unwrap_or("other"));
            let publish = self.post && route == Some(RECORDS);
            error.write(&mut response, shown, publish, 1 + front.random(RETRY_AFTER_SECONDS_MAX));
        }
        front.metrics.answered(route, response.status().as_u16());
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, self.id);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.private && !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        }
        response
    }
}

/// The answer, also where its handler fails or panics.
pub(super) fn around<F>(answer: F) -> impl Future<Output = Response>
where
    F: Future<Output = Result<Response, ApiError>>,
{
    // Not async: that would have room for the answer twice.
    AssertUnwindSafe(answer).catch_unwind().map(|answer| match answer {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(panic) => panicked(panic.as_ref()),
    })
}

/// What is answered where no route matches.
pub(super) async fn no_route() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is nothing at this path; /docs lists what there is")
}

/// What is answered where a route matches with other methods; the framework adds `Allow`.
pub(super) async fn no_method(request: Request) -> ApiError {
    let method = request.method();
    ApiError::new(ErrorCode::MethodNotAllowed, format!("the method {method} is not offered at this path"))
}

/// RFC 9112 §3.2: two servers that read the same request must not take it for requests to different hosts.
pub(super) fn check_host<B>(request: &axum::http::Request<B>) -> Result<(), ApiError> {
    let hosts = request.headers().get_all(HOST).iter().count();
    if request.version() == Version::HTTP_11 && hosts != 1 {
        return Err(ApiError::invalid(format!("the request has {hosts} `host` headers; in HTTP/1.1 there is one")));
    }
    Ok(())
}

fn request_id(front: &Front, headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(X_REQUEST_ID).filter(|id| {
        !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(front.next_request_id()).expect("made of letters, digits and a hyphen")
    })
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "no message".to_owned());
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}
