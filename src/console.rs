//! Serves the console: the files that `web/` was built into, embedded in the binary.
//!
//! Knows nothing of the API; the page in the browser calls it like any other client. The policy forbids whatever the
//! page does not need, so that a payload that becomes markup by a mistake still cannot run. Where the client is on the
//! page is in the part of the address after `#`, so every path here is a file.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

/// The directory that `npm run build` writes; empty when it has not run.
#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Dist;

const INDEX: &str = "index.html";
/// Files in this directory have a hash of their content in their name.
const HASHED: &str = "assets/";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; report-uri /csp-reports";
const FOREVER: &str = "public, max-age=31536000, immutable";
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Plinth</title>\n\
     <h1>The console is not built</h1>\n\
     <p>This server was built without it. Run <code>make web</code>, which needs Node 20.19 or newer, \
     then build the server again.</p>\n\
     <p>The API works without the console.</p>\n</html>\n";

/// The routes of the console, under `/console`.
pub fn router() -> Router {
    Router::new()
        .route("/console", get(|| async { with_policy(Redirect::permanent("/console/").into_response()) }))
        .route("/console/", get(|headers: HeaderMap| async move { index(&headers) }))
        .route(
            "/console/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { file(&path, &headers) }),
        )
}

fn index(headers: &HeaderMap) -> Response {
    match Dist::get(INDEX) {
        Some(found) => answer(INDEX, found, headers),
        None => with_policy(page(StatusCode::OK, NOT_BUILT)),
    }
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    match Dist::get(path) {
        Some(found) => answer(path, found, headers),
        None => with_policy(page(StatusCode::NOT_FOUND, "<!doctype html>\n<title>Plinth</title>\nNot found\n")),
    }
}

/// The file, or 304 when the browser has it already.
fn answer(path: &str, found: EmbeddedFile, request: &HeaderMap) -> Response {
    let tag = etag(&found);
    let kind = HeaderValue::from_str(&content_type(&found));
    let known = request.get_all(IF_NONE_MATCH).iter().any(|sent| holds_tag(sent, &tag));
    let mut response =
        if known { StatusCode::NOT_MODIFIED.into_response() } else { Response::new(Body::from(found.data)) };
    let headers = response.headers_mut();
    headers
        .insert(CACHE_CONTROL, HeaderValue::from_static(if path.starts_with(HASHED) { FOREVER } else { "no-cache" }));
    if let Ok(kind) = kind {
        headers.insert(CONTENT_TYPE, kind);
    }
    headers.insert(ETAG, tag);
    with_policy(response)
}

/// The type of a file; text is always UTF-8.
fn content_type(found: &EmbeddedFile) -> String {
    let kind = found.metadata.mimetype();
    if kind.starts_with("text/") { format!("{kind}; charset=utf-8") } else { kind.to_owned() }
}

/// The first 128 bits of the content's hash.
fn etag(found: &EmbeddedFile) -> HeaderValue {
    let hash = found.metadata.sha256_hash();
    let digits: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{digits}\"")).expect("hexadecimal digits and quotes are a header value")
}

fn holds_tag(sent: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(sent), Ok(tag)) = (sent.to_str(), tag.to_str()) else { return false };
    sent.split(',').map(|each| each.trim().trim_start_matches("W/")).any(|each| each == tag || each == "*")
}

fn page(status: StatusCode, html: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (status, headers, html).into_response()
}

fn with_policy(mut response: Response) -> Response {
    let set: [(HeaderName, &'static str); 5] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in set {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt;

    async fn ask(path: &str, known: Option<&HeaderValue>) -> Response {
        let mut request = axum::http::Request::get(path);
        if let Some(tag) = known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        router().oneshot(request.body(Body::empty()).expect("a request")).await.expect("routes do not fail")
    }

    #[tokio::test]
    async fn every_answer_carries_the_policy_that_forbids_inline_scripts() {
        for path in ["/console", "/console/", "/console/index.html", "/console/nothing", "/console/assets/nothing.js"] {
            let response = ask(path, None).await;
            let headers = response.headers();
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().expect("text");
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}: {policy}");
            assert!(!policy.contains("unsafe"), "{path}: {policy}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            assert_eq!(headers[REFERRER_POLICY], "no-referrer", "{path}");
        }
    }

    #[tokio::test]
    async fn the_page_is_there_with_and_without_a_built_console() {
        let response = ask("/console/", None).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        let html = std::str::from_utf8(&body).expect("UTF-8");
        let built = Dist::get(INDEX).is_some();
        assert_eq!(html.contains("make web"), !built);
        assert_eq!(html.contains("/console/assets/"), built);
    }

    #[tokio::test]
    async fn every_built_file_is_served_with_its_type_and_is_not_sent_twice() {
        for path in Dist::iter() {
            let response = ask(&format!("/console/{path}"), None).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_ne!(response.headers()[CONTENT_TYPE], "application/octet-stream", "{path}");
            let caching = response.headers()[CACHE_CONTROL].to_str().expect("text");
            assert_eq!(caching.contains("immutable"), path.starts_with(HASHED), "{path}: {caching}");
            let again = ask(&format!("/console/{path}"), response.headers().get(ETAG)).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        }
    }

    #[tokio::test]
    async fn a_path_out_of_the_directory_is_not_found() {
        for path in ["/console/../Cargo.toml", "/console/..%2FCargo.toml", "/console/assets/..%2F..%2Fpackage.json"] {
            assert_eq!(ask(path, None).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
