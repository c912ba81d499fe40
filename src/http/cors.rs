//! What pages of other origins are told (the CORS protocol of the Fetch standard), by the lists of the tenants.
//!
//! A page's credential is a token that it holds itself; the one cookie counts for the own origin alone. So credentials of
//! the browser are never allowed here. An answer can be read by a page that the tenant of its credential lists. Where no
//! credential was accepted, there is nothing in it that a stranger could not have: a page may read it that any tenant lists.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use plinth_api::error::ErrorCode;

use super::error::ApiError;
use super::front::Front;
use crate::auth::{Account, Allowed, Caller, Denied};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
/// The star stands for every header but this one: `Record-Header-<Name>` can be any.
const HEADERS: &str = "Authorization, *";
/// What a page may read besides what every page may.
const EXPOSED: &str = "X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate, Location, Plinth-Next, \
     Plinth-Caught-Up, Plinth-Gap, traceparent, ETag, Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, \
     Stream-TTL, Stream-Expires-At, Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, \
     Producer-Received-Seq";
/// How long a browser may remember the answer, in seconds: so long a page is still let through that is not listed any
/// more, but it cannot read what it gets.
const MAX_AGE: &str = "600";

/// The origin that a request names, if it does.
pub(super) struct Page(Option<HeaderValue>);

impl Page {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get(ORIGIN).cloned())
    }

    /// Tells the page whether it may read the answer, which is on this account.
    pub(super) fn tell(self, front: &Front, account: Option<&Account>, headers: &mut HeaderMap) {
        let Some(origin) = self.0 else { return };
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let named = origin.to_str().unwrap_or_default();
        let allowed = match account {
            Some(account) => account.tenant().allows(named),
            None => front.auth.some_tenant_allows(named),
        };
        if let Some(allowed) = allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value_for(allowed, origin));
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

/// The answer to a browser that asks what a page may send; none if this is no such question.
pub(super) fn preflight<B>(front: &Front, request: &Request<B>) -> Option<Result<Response, ApiError>> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let origin = headers.get(ORIGIN)?.clone();
    let named = origin.to_str().unwrap_or_default();
    if front.auth.some_tenant_allows(named).is_none() {
        let detail = "pages of this origin may not use the API: no tenant has it in its `allowed_origins`";
        return Some(Err(ApiError::new(ErrorCode::Forbidden, detail)));
    }
    let told = [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ];
    // Which origin is allowed is told to every answer.
    Some(Ok((StatusCode::NO_CONTENT, told).into_response()))
}

/// Whether a page of another origin may open a WebSocket as `caller`: browsers leave that question to the server.
///
/// # Errors
/// `Forbidden` when the tenant does not list the origin.
pub fn check_page(foreign: Option<&str>, caller: &Caller) -> Result<(), Denied> {
    let (Some(origin), Some(tenant)) = (foreign, caller.tenant()) else { return Ok(()) };
    if tenant.allows(origin).is_some() {
        return Ok(());
    }
    let shown: String = origin.chars().take(255).collect();
    Err(Denied::Forbidden(format!(
        "a page of the origin {shown:?} may not open a WebSocket here: it is not in the `allowed_origins` of the tenant"
    )))
}

fn value_for(allowed: Allowed, origin: HeaderValue) -> HeaderValue {
    match allowed {
        Allowed::Named => origin,
        Allowed::Any => HeaderValue::from_static("*"),
    }
}
