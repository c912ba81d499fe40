//! The documents about the API: OpenAPI, AsyncAPI, a viewer (Swagger UI, inside the binary), one page per error
//! code, one of all limits.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::response::{IntoResponse, Redirect, Response};
use plinth_api::error::{ErrorCode, PublishOutcome, Retry};
use plinth_api::limits::{Beyond, LIMITS, Limit};

use super::asyncapi::asyncapi;
use super::error::ApiError;
use super::front::Front;
use super::openapi::openapi;

/// The viewer writes `style` attributes; its scripts are all files.
const VIEWER_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    report-uri /csp-reports";
const PAGE_POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; report-uri /csp-reports";
const HTML: &str = "text/html; charset=utf-8";

static OPENAPI_JSON: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(openapi().to_json().expect("the document is plain strings and numbers")));

static ASYNCAPI_JSON: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(asyncapi().to_string()));

static VIEWER: LazyLock<Arc<utoipa_swagger_ui::Config<'static>>> = LazyLock::new(|| {
    let config = utoipa_swagger_ui::Config::from("/openapi.json");
    Arc::new(config.validator_url("none").deep_linking(true).try_it_out_enabled(true))
});

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
pub(super) async fn openapi_json() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI_JSON.clone()).into_response()
}

/// What goes over WebSockets and event streams.
#[utoipa::path(
    get,
    path = "/asyncapi.json",
    tag = "operation",
    responses((status = 200, description = "AsyncAPI 3.0", body = serde_json::Value))
)]
pub(super) async fn asyncapi_json() -> Response {
    ([(CONTENT_TYPE, "application/json")], ASYNCAPI_JSON.clone()).into_response()
}

pub(super) async fn root() -> Redirect {
    Redirect::permanent("/docs/")
}

pub(super) async fn viewer_start() -> Result<Response, ApiError> {
    viewer_file("index.html")
}

pub(super) async fn viewer(Path(file): Path<String>) -> Result<Response, ApiError> {
    viewer_file(&file)
}

fn viewer_file(name: &str) -> Result<Response, ApiError> {
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&VIEWER));
    let file = file.map_err(|error| ApiError::internal(error.to_string()))?;
    let file = file.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "the viewer has no such file"))?;
    let headers = [
        (CONTENT_TYPE, file.content_type.as_str()),
        (CACHE_CONTROL, "public, max-age=3600"),
        (CONTENT_SECURITY_POLICY, VIEWER_POLICY),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, file.bytes.into_owned()).into_response())
}

pub(super) async fn error_list() -> Response {
    let mut list = String::from("<h1>Error codes</h1><ul>");
    for code in ErrorCode::ALL {
        let name = code.as_str();
        write!(list, r#"<li><a href="/docs/errors/{name}">{name}</a>: {}</li>"#, code.title())
            .expect("a string takes all");
    }
    page("Error codes", &(list + "</ul>"))
}

pub(super) async fn error_page(Path(name): Path<String>) -> Result<Response, ApiError> {
    let code = ErrorCode::ALL.into_iter().find(|code| code.as_str() == name);
    let code = code.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "there is no such error code"))?;
    let retry = match code.retry() {
        Retry::Never => "The same request fails again.",
        Retry::Later => "The same request may succeed later; wait for the time in <code>Retry-After</code>.",
    };
    let outcome = match code.outcome() {
        PublishOutcome::NotStored => "A request that fails so has stored nothing and will store nothing.",
        PublishOutcome::Unknown => "A request that fails so may have stored its records, or may store them later.",
    };
    let (title, status) = (code.title(), code.status());
    let content = format!(
        "<h1><code>{name}</code></h1><p>{title}. HTTP status {status}.</p><p>{retry}</p><p>{outcome}</p>\
         <p>The field <code>detail</code> of the answer says what happened this time.</p>\
         <p><a href=\"/docs/errors\">All codes</a>, <a href=\"/docs/limits\">all limits</a></p>"
    );
    Ok(page(&name, &content))
}

/// Every limit, as this node has it.
pub(super) async fn limits(State(front): State<Front>) -> Response {
    let mut table = String::from(
        "<h1>Limits</h1><p>The quotas of a tenant are its own; these hold for everybody.</p>\
         <table><tr><th>limit<th>value<th>unit<th>what it bounds<th>beyond it",
    );
    for limit in LIMITS {
        let (name, value) = (limit.name(), front.limits.of(limit));
        let (unit, about, beyond) = (limit.unit.as_str(), limit.description(), beyond(limit));
        write!(table, "<tr><td><code>{name}</code><td>{value}<td>{unit}<td>{about}<td>{beyond}")
            .expect("a string takes all");
    }
    page("Limits", &(table + "</table><p><a href=\"/docs/errors\">Error codes</a></p>"))
}

fn beyond(limit: &Limit) -> String {
    let happens = match limit.beyond {
        Beyond::Refused(code) => {
            let name = code.as_str();
            format!("<a href=\"/docs/errors/{name}\">{name}</a>")
        }
        Beyond::Status(status) => format!("status {status}, and the connection ends"),
        Beyond::Reset => "the request is reset".to_owned(),
        Beyond::Close(code) => format!("the WebSocket is closed with {code}"),
        Beyond::Ended => "the connection ends without an answer".to_owned(),
        Beyond::Queued => "it waits for its turn".to_owned(),
        Beyond::Continued => "the list goes on in the next page".to_owned(),
    };
    match limit.setting {
        Some(setting) => format!("{happens}; the setting <code>{}</code>", setting.as_str()),
        None => happens,
    }
}

/// `title` and `content` are our own text.
fn page(title: &str, content: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · Plinth</title></head>\
         <body>{content}</body></html>"
    );
    let headers = [
        (CONTENT_TYPE, HTML),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, html).into_response()
}
