//! The headers of answers: which ones come with which status, and what they say.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::{Components, Ref, RefOr};

use super::super::routes::{JWKS, Needs, Route, SOCKET};
use super::streams_headers;

/// Whether a header comes with a status of a route.
pub(super) type Comes = fn(&str, &Route) -> bool;

/// A header: name, type, what it says, and where it comes.
pub(super) type Header = (&'static str, Type, &'static str, Comes);

/// Every header that the edge or a common helper sets.
const HEADERS: &[Header] = &[
    (
        "X-Request-Id",
        Type::String,
        "The `X-Request-Id` of the request (1 to 128 visible ASCII characters), or one that was made for it",
        |_, _| true,
    ),
    (
        "Traceparent",
        Type::String,
        "Of a request that is traced (W3C Trace Context): its span in the traces of the node's operator",
        |_, _| true,
    ),
    ("X-Content-Type-Options", Type::String, "`nosniff`", |_, _| true),
    ("Cross-Origin-Resource-Policy", Type::String, "`same-origin`", |_, _| true),
    (
        "Access-Control-Allow-Origin",
        Type::String,
        "To a page of another origin that the tenant lists in `allowed_origins`: its origin, or `*` if every page is",
        |_, route| route.path.starts_with("/v1/"),
    ),
    ("Access-Control-Expose-Headers", Type::String, "Which of these headers such a page may read", |_, route| {
        route.path.starts_with("/v1/")
    }),
    (
        "Vary",
        Type::String,
        "`Origin`, when the request has that header; `Authorization, Plinth-Tenant, Origin` of a part of a stream that may be kept",
        |_, route| route.path.starts_with("/v1/"),
    ),
    ("Strict-Transport-Security", Type::String, "`max-age=31536000`, over TLS alone", |_, _| true),
    (
        "Cache-Control",
        Type::String,
        "`private, no-store`; of what goes on `no-cache`; of a stream by its part: what cannot change may be kept for a minute; of published \
         keys `public, max-age=300`",
        |_, route| route.path.starts_with("/v1/") || route.path == JWKS,
    ),
    ("Retry-After", Type::Integer, "Seconds after which to try again; each answer draws its own", |status, _| {
        matches!(status, "408" | "429" | "500" | "503" | "504")
    }),
    (
        "RateLimit-Policy",
        Type::String,
        "Where the tenant or the key has quotas: each of them, by draft-ietf-httpapi-ratelimit-headers-10; those of the key \
         begin with `key.`",
        |_, route| route.needs != Needs::Nothing,
    ),
    (
        "RateLimit",
        Type::String,
        "Where the tenant or the key has quotas: what is left of each, and in how many seconds all of it will be",
        |_, route| route.needs != Needs::Nothing,
    ),
    ("WWW-Authenticate", Type::String, "`Bearer`, by RFC 6750", |status, _| matches!(status, "401" | "403")),
    (
        "Set-Cookie",
        Type::String,
        "Of an event stream or a WebSocket that was opened with a ticket: `__Secure-plinth`, which opens it again",
        |status, route| {
            (status == "200" && route.needs == Needs::Subscribe) || (status == "101" && route.path == SOCKET)
        },
    ),
    ("X-Accel-Buffering", Type::String, "`no`, of a stream that goes on", |status, route| {
        status == "200" && route.needs == Needs::Subscribe
    }),
    ("Sec-WebSocket-Protocol", Type::String, "`plinth.v1.json`, if it was offered", |status, _| status == "101"),
    ("Sec-WebSocket-Accept", Type::String, "By RFC 6455", |status, _| status == "101"),
    ("Upgrade", Type::String, "`websocket`", |status, _| status == "101"),
];

fn all() -> impl Iterator<Item = &'static Header> {
    HEADERS.iter().chain(streams_headers::HEADERS)
}

pub(super) fn add(components: &mut Components) {
    for (name, kind, description, _) in all() {
        let header =
            HeaderBuilder::new().schema(Some(Object::with_type(kind.clone()))).description(Some(*description)).build();
        components.headers.insert((*name).to_owned(), header.into());
    }
}

/// Names the headers of each answer; those that a handler alone sets are said there.
pub(super) fn describe(operation: &mut Operation, route: &Route) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        for (name, _, _, _) in all().filter(|(_, _, _, comes)| comes(status, route)) {
            let header = RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
            response.headers.entry((*name).to_owned()).or_insert(header);
        }
    }
}
