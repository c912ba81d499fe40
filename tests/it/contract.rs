//! Every answer that the tests see is held against the OpenAPI document: its status, media type, body, error code and
//! headers must be ones that the document has for the operation. So a status that is not told of fails the test that
//! provokes it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Headers of the protocol that carries the answer, which OpenAPI does not describe.
const OF_HTTP: [&str; 6] = ["connection", "content-length", "content-type", "date", "keep-alive", "transfer-encoding"];

/// A longer body costs more time than it tells.
const BODY_BYTES_MAX: usize = 128 * 1024;

static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::new);

/// An answer, as far as it is checked.
pub(crate) struct Seen<'a> {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: &'a HeaderMap,
    /// The body; `None` when it goes on.
    pub(crate) body: Option<&'a [u8]>,
}

/// Fails when the document does not have `seen` as an answer to `method` at `path`. What the document does not describe
/// (pages for people, paths and methods that there are not) is let through.
pub(crate) fn check(method: &Method, path: &str, seen: &Seen<'_>) {
    let Some((route, operation)) = CONTRACT.operation(method, path) else { return };
    let at = format!("{method} {route} answers {}", seen.status);
    let response = &operation["responses"][seen.status.to_string()];
    assert!(response.is_object(), "{at}, which the OpenAPI document does not list; see src/http/openapi/failures.rs");
    check_headers(&at, response, seen.headers);
    let Some(body) = seen.body.filter(|_| *method != Method::HEAD) else { return };
    let Some(content) = response["content"].as_object() else {
        assert!(body.is_empty() || seen.status == 101, "{at} with a body, which the OpenAPI document does not list");
        return;
    };
    let given = seen.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default();
    let named = content.keys().find(|key| *key == given || *key == essence);
    let listed = named.or_else(|| content.keys().find(|key| *key == "*/*"));
    let listed = listed.unwrap_or_else(|| panic!("{at} as {given:?}, which the OpenAPI document does not list"));
    if !listed.ends_with("json") || listed.contains("ndjson") || body.len() > BODY_BYTES_MAX {
        return;
    }
    let value: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{at}: {error}"));
    let schema = CONTRACT.schema(&format!("{at} {listed}"), &content[listed]["schema"]);
    let faults: Vec<String> = schema.iter_errors(&value).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{at} in another form than the OpenAPI document has: {faults:?} in {value}");
    if let Some(codes) = response["x-plinth-codes"].as_array() {
        let code = &value["code"];
        assert!(codes.contains(code), "{at} with {code}, which the OpenAPI document does not list for it: {codes:?}");
    }
}

fn check_headers(at: &str, response: &Value, headers: &HeaderMap) {
    assert!(headers.contains_key("x-request-id"), "{at} without `X-Request-Id`");
    let listed: Vec<String> = response["headers"]
        .as_object()
        .into_iter()
        .flat_map(|all| all.keys())
        .map(|name| name.to_lowercase())
        .collect();
    for name in headers.keys().map(reqwest::header::HeaderName::as_str).filter(|name| !OF_HTTP.contains(name)) {
        assert!(
            listed.iter().any(|known| known == name),
            "{at} with the header `{name}`, which the OpenAPI document does not list; see src/http/openapi/headers.rs"
        );
    }
}

struct Contract {
    document: Value,
    schemas: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    fn new() -> Self {
        let document = serde_json::to_value(plinth::http::openapi()).expect("the document is plain JSON");
        Self { document, schemas: Mutex::default() }
    }

    fn operation(&self, method: &Method, path: &str) -> Option<(&str, &Value)> {
        let method = method.as_str().to_lowercase();
        let path = without_tenant(path);
        let paths = self.document["paths"].as_object().expect("the document has paths");
        let (route, item) = paths.iter().find(|(route, _)| fits(route, path))?;
        Some((route, item.get(method)?))
    }

    fn schema(&self, name: &str, schema: &Value) -> Arc<Validator> {
        let mut schemas = self.schemas.lock().expect("no holder panics");
        let made = schemas.entry(name.to_owned()).or_insert_with(|| Arc::new(validator(&self.document, schema)));
        Arc::clone(made)
    }
}

/// What tells whether a value has the form of `schema`, which stands in `document`.
pub(crate) fn validator(document: &Value, schema: &Value) -> Validator {
    let whole = json!({"allOf": [schema], "components": document["components"]});
    jsonschema::validator_for(&whole).expect("a schema")
}

/// The path without the tenant that it begins with; what is there is described without.
fn without_tenant(path: &str) -> &str {
    let rest = path.strip_prefix("/t/").and_then(|path| path.split_once('/'));
    rest.filter(|(_, rest)| rest.starts_with("v1/stream"))
        .map_or(path, |(tenant, _)| &path["/t/".len() + tenant.len()..])
}

/// Whether a path is one of a route; a parameter is one segment, but the last one of a stream's path is all that is left.
fn fits(route: &str, path: &str) -> bool {
    // The second root of streams is described by the first.
    let path = path.strip_prefix("/v1/stream/").map_or(Cow::from(path), |rest| format!("/v1/streams/{rest}").into());
    let (mut parts, mut segments) = (route.split('/'), path.split('/'));
    loop {
        match (parts.next(), segments.next()) {
            (None, None) => return true,
            (Some("{path}"), Some(segment)) => return !segment.is_empty(),
            (Some(part), Some(segment)) if part == segment || (part.starts_with('{') && !segment.is_empty()) => {}
            (_, _) => return false,
        }
    }
}

#[test]
fn a_path_is_found_by_its_route() {
    assert!(fits("/v1/topics/{topic}/records", "/v1/topics/a%2Fb/records"));
    assert!(!fits("/v1/topics/{topic}/records", "/v1/topics/a/b/records"));
    assert!(!fits("/v1/topics/{topic}", "/v1/topics/"));
    assert!(fits("/v1/streams/{path}", "/v1/streams/a/b") && fits("/v1/streams/{path}", "/v1/stream/a"));
    assert_eq!(without_tenant("/t/a/v1/stream/b"), "/v1/stream/b");
    assert_eq!(without_tenant("/t/a/v1/topics/b"), "/t/a/v1/topics/b");
    assert!(!fits("/v1/streams/{path}", "/v1/streams/") && !fits("/v1/streams/{path}", "/v1/stream"));
    assert!(!fits("/v1/streams/__ds/subscriptions/{id}/streams/{path}", "/v1/streams/wide"));
}

// Fails when `check` leaves out one of what it names.
#[test]
fn an_answer_that_the_document_does_not_have_is_found() {
    let problem = |code: &str| {
        let code: plinth_api::error::ErrorCode = serde_json::from_value(code.into()).expect("a code");
        serde_json::to_vec(&plinth_api::error::Problem::new(code, "d")).expect("a problem is plain JSON")
    };
    let accepted = |status: u16, headers: &[(&'static str, &'static str)], body: &[u8]| {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = pairs.collect();
        let seen = Seen { status, headers: &headers, body: Some(body) };
        std::panic::catch_unwind(|| check(&Method::GET, "/v1/topics/t", &seen)).is_ok()
    };
    let json = [("content-type", "application/problem+json"), ("x-request-id", "1")];
    assert!(accepted(404, &json, &problem("not_found")));
    assert!(!accepted(418, &json, &problem("not_found")), "a status");
    assert!(!accepted(404, &json, &problem("conflict")), "a code");
    assert!(!accepted(404, &json, b"{}"), "a form");
    assert!(!accepted(404, &json[..1], &problem("not_found")), "a request without an id");
    assert!(!accepted(404, &[json[1], ("content-type", "text/plain")], b"x"), "a media type");
    assert!(!accepted(404, &[json[0], json[1], ("x-odd", "1")], &problem("not_found")), "a header");
}
