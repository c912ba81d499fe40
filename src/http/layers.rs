//! What surrounds every handler: the id of the request, the rule of one host, the security headers, the problem
//! document, the counting.
//!
//! One edge, not five layers: it is on the path of every publish.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use plinth_api::error::ErrorCode;
use tracing::{Instrument, Level};

use super::audit::{Attempt, look_for_quota};
use super::cors::{self, Page};
use super::error::ApiError;
use super::front::Front;
use super::rate_limit;
use super::routes::{self, RECORDS};
use super::tenant_root::TenantRoot;
use super::traced::Traced;
use super::visit::{RequestId, Visit};
use crate::server::{ClientAddress, Connection};
use crate::streams::STREAM;
use crate::telemetry::Transport;
use crate::telemetry::logs::ACCESS;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// No page of another origin gets an answer as an image, a script or a frame of its own.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What is shown for the route of a request that matches none.
const OTHER: &str = "other";

/// Longest wait that `Retry-After` names where nothing else is known, in ms; each answer draws its own.
const RETRY_AFTER_MS_MAX: u64 = 3_000;

/// The outermost layer of the router.
pub(super) async fn edge(State(front): State<Front>, mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<Connection>().map(Connection::address).unwrap_or_default();
    let edge = Edge::of(&request, address);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str).map(routes::shown);
    let id = RequestId::of(&front, request.headers());
    let connection = request.extensions_mut().remove::<Connection>();
    let root = request.extensions_mut().remove::<TenantRoot>();
    let visit = connection.map(|connection| Arc::new(Visit::new(connection, id.clone()).under(root)));
    if let Some(visit) = &visit {
        request.extensions_mut().insert(Arc::clone(visit));
    }
    let traced = Traced::begin(&front, &request, route, &id);
    let line = tracing::info_span!("request", request_id = id.as_str(), route = route.unwrap_or(OTHER));
    let page = Page::of(request.headers());
    let asked = if edge.private { cors::preflight(&front, &request) } else { None };
    let mut response = around(async move {
        check_host(&request)?;
        match asked {
            Some(told) => told,
            None => Ok(next.run(request).await),
        }
    })
    // The inner one is what runs, for whoever follows it.
    .instrument(traced.span())
    .instrument(line)
    .await;
    let account = visit.as_ref().and_then(|visit| visit.account());
    rate_limit::tell(account, response.headers_mut());
    look_for_quota(&front, account, &response);
    if edge.private {
        page.tell(&front, account, response.headers_mut());
    }
    let mut response = edge.finish(&front, route, id, response);
    traced.end(&mut response);
    response
}

/// What is known of a request before it is answered and needed after.
pub(super) struct Edge {
    /// When it came, if that is asked for.
    began: Option<Instant>,
    private: bool,
    method: Method,
    address: ClientAddress,
}

impl Edge {
    pub(super) fn of<B>(request: &axum::http::Request<B>, address: ClientAddress) -> Self {
        Self {
            began: tracing::enabled!(target: ACCESS, Level::DEBUG).then(Instant::now),
            private: request.uri().path().starts_with("/v1/"),
            method: request.method().clone(),
            address,
        }
    }

    /// Counts the answer and completes it.
    pub(super) fn finish(self, front: &Front, route: Option<&str>, id: RequestId, mut response: Response) -> Response {
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            let shown = id.as_str();
            error.log(shown, route.unwrap_or(OTHER));
            front.metrics.failed(Transport::Http, error.problem());
            let publish = self.method == Method::POST && matches!(route, Some(RECORDS | STREAM));
            if let Some(claim) = error.claim() {
                let attempt = Attempt::new(shown, self.address, self.method.as_str(), route.unwrap_or_default());
                attempt.refused(front, claim, (response.status().as_u16(), error.code()));
            }
            error.write(&mut response, shown, publish, 1 + front.random(RETRY_AFTER_MS_MAX));
        }
        let status = response.status().as_u16();
        front.metrics.answered(route, status);
        if let Some(began) = self.began {
            let (request_id, route, ms) = (id.as_str(), route.unwrap_or(OTHER), began.elapsed().as_secs_f64() * 1e3);
            tracing::debug!(target: ACCESS, request_id, route, status, ms, "answered");
        }
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, id.into_value());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
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
        // Its line says where; its message may hold what a client sent.
        Err(_) => ApiError::internal("a handler panicked").into_response(),
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
