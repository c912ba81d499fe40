//! The span of a request that is traced, from its head to the head of its answer.
//!
//! Its attributes are those of OpenTelemetry's conventions for HTTP and messaging, without anything that a client or tenant
//! has named but the id of the request: traces go where the operator's collector is (ADR 32).

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use axum::response::Response;
use plinth_storage::record::NewRecord;
use plinth_storage::spans::TARGET;
use tracing::Span;
use tracing::field::Empty;

use super::front::Front;
use super::routes::RECORDS;
use super::visit::RequestId;
use crate::streams::STREAM;
use crate::telemetry::context::TraceContext;
use crate::telemetry::traces::{self, REQUEST};

/// The header that names the trace of a request.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header that goes with it.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that goes on: what W3C asks for at least.
const TRACESTATE_BYTES_MAX: usize = 512;

/// The span of a request, if it is traced.
pub(super) struct Traced(Span);

impl Traced {
    /// Decides whether `request` is traced, and begins its span.
    pub(super) fn begin<B>(front: &Front, request: &Request<B>, route: Option<&str>, id: &RequestId) -> Self {
        let Some(sampling) = &front.sampling else { return Self(Span::none()) };
        let parent = context(request.headers());
        if !sampling.chooses(parent.as_ref(), front.broker.log().now()) {
            return Self(Span::none());
        }
        let span = span(request.method(), route, id);
        if let Some(parent) = &parent {
            traces::continues(&span, parent, state(request.headers()).unwrap_or_default());
        }
        Self(span)
    }

    /// What runs within it.
    pub(super) fn span(&self) -> Span {
        self.0.clone()
    }

    /// Notes the answer, which says where to find the trace.
    pub(super) fn end(self, response: &mut Response) {
        let Self(span) = self;
        if span.is_disabled() {
            return;
        }
        let status = response.status().as_u16();
        span.record("http.response.status_code", i64::from(status));
        if status >= 500 {
            span.record("error.type", response.status().as_str());
            span.record("otel.status_code", "ERROR");
        }
        if let Some(here) = traces::context_of(&span) {
            let value = HeaderValue::try_from(here.to_string()).expect("digits and hyphens");
            response.headers_mut().insert(TRACEPARENT, value);
        }
    }
}

fn span(method: &Method, route: Option<&str>, id: &RequestId) -> Span {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    let method = if known.contains(method) { method.as_str() } else { "_OTHER" };
    let publishes = method == Method::POST.as_str() && matches!(route, Some(RECORDS | STREAM));
    tracing::info_span!(
        target: TARGET,
        parent: None,
        REQUEST,
        otel.name = route.map(|route| format!("{method} {route}")).as_deref().unwrap_or(method),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        error.type = Empty,
        messaging.system = publishes.then_some("plinth"),
        messaging.operation.type = publishes.then_some("send"),
        plinth.request_id = id.as_str(),
    )
}

/// The span of a publish over WebSocket, if it is traced. Its parent is that of its first record: a frame has no headers.
#[must_use]
pub fn of_frame(front: &Front, records: &[NewRecord], id: &RequestId) -> Span {
    let Some(sampling) = &front.sampling else { return Span::none() };
    let header = |wanted: HeaderName| {
        let headers = records.first().map(|record| &record.headers[..]).unwrap_or_default();
        let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_str().as_bytes()));
        header.and_then(|(_, value)| std::str::from_utf8(value).ok())
    };
    let parent = header(TRACEPARENT).and_then(TraceContext::parse);
    if !sampling.chooses(parent.as_ref(), front.broker.log().now()) {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        REQUEST,
        otel.name = "publish over WebSocket",
        otel.kind = "server",
        error.type = Empty,
        messaging.system = "plinth",
        messaging.operation.type = "send",
        messaging.batch.message_count = i64::try_from(records.len()).unwrap_or(i64::MAX),
        plinth.request_id = id.as_str(),
    );
    if let Some(parent) = &parent {
        traces::continues(&span, parent, header(TRACESTATE).unwrap_or_default());
    }
    span
}

/// What `traceparent` says; one that breaks a rule says nothing.
pub(super) fn context(headers: &HeaderMap) -> Option<TraceContext> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let value = given.next().filter(|_| given.next().is_none())?;
    TraceContext::parse(value.to_str().ok()?)
}

/// `tracestate`, if it may go on.
pub(super) fn state(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(TRACESTATE).iter();
    let value = given.next().filter(|_| given.next().is_none())?;
    value.to_str().ok().filter(|state| !state.is_empty() && state.len() <= TRACESTATE_BYTES_MAX)
}
