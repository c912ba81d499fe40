//! The headers of the answers of streams, as the protocol of Durable Streams has them.

use utoipa::openapi::schema::Type;

use super::super::routes::Route;
use super::headers::Header;
use crate::streams::STREAM;

fn is(route: &Route, methods: &[&str]) -> bool {
    route.path == STREAM && methods.contains(&route.method)
}

/// Name, type, what it says, and where it comes.
pub(super) const HEADERS: &[Header] = &[
    ("Stream-Next-Offset", Type::String, "Where the stream ends; of what was read, where to go on", |status, route| {
        is(route, &["PUT", "POST", "GET", "HEAD"]) && matches!(status, "200" | "201" | "204" | "304" | "409")
    }),
    ("Stream-Closed", Type::String, "`true`: nothing can come after it", |status, route| {
        is(route, &["PUT", "POST", "GET", "HEAD"]) && matches!(status, "200" | "201" | "204" | "304" | "409")
    }),
    ("Stream-Up-To-Date", Type::String, "`true`: what was read reaches the end", |status, route| {
        is(route, &["GET"]) && matches!(status, "200" | "204" | "304")
    }),
    ("Stream-Cursor", Type::String, "Of a long-poll: the `cursor` of the next one", |status, route| {
        is(route, &["GET"]) && matches!(status, "200" | "204" | "304")
    }),
    (
        "Stream-SSE-Data-Encoding",
        Type::String,
        "`base64`, of events of a stream that is neither text nor JSON",
        |status, route| is(route, &["GET"]) && status == "200",
    ),
    ("Stream-TTL", Type::Integer, "Seconds after its last use at which the stream ends by itself", |status, route| {
        is(route, &["HEAD"]) && status == "200"
    }),
    ("Stream-Expires-At", Type::String, "When it ends by itself, as it was given", |status, route| {
        is(route, &["HEAD"]) && status == "200"
    }),
    ("Content-Type", Type::String, "The media type of the stream, as it was given", |status, route| {
        is(route, &["PUT", "HEAD"]) && matches!(status, "200" | "201")
    }),
    ("Location", Type::String, "The address of the stream", |status, route| is(route, &["PUT"]) && status == "201"),
    (
        "ETag",
        Type::String,
        "Names what was read, whether it reaches the end and whether the stream is closed",
        |status, route| is(route, &["GET"]) && matches!(status, "200" | "304"),
    ),
    ("Content-Disposition", Type::String, "`attachment`, but of events: no page is made of it", |status, route| {
        is(route, &["GET"]) && status == "200"
    }),
    (
        "Content-Security-Policy",
        Type::String,
        "`default-src 'none'; sandbox`, but of events: in a page that is made of it nothing runs",
        |status, route| is(route, &["GET"]) && status == "200",
    ),
    (
        "Plinth-Gap",
        Type::String,
        "Once for each place where records are missing: `requested=5; resumed_at=1029; reason=lost`",
        |status, route| is(route, &["GET"]) && matches!(status, "200" | "204" | "304"),
    ),
    (
        "Producer-Epoch",
        Type::Integer,
        "The epoch of the producer; where it is refused, the later one",
        |status, route| is(route, &["POST"]) && matches!(status, "200" | "204" | "403"),
    ),
    ("Producer-Seq", Type::Integer, "The highest sequence of the producer that was accepted", |status, route| {
        is(route, &["POST"]) && matches!(status, "200" | "204")
    }),
    ("Producer-Expected-Seq", Type::Integer, "The sequence that is the next", |status, route| {
        is(route, &["POST"]) && status == "409"
    }),
    ("Producer-Received-Seq", Type::Integer, "The one that came", |status, route| {
        is(route, &["POST"]) && status == "409"
    }),
    ("Allow", Type::String, "The methods that there are", |status, route| is(route, &["OPTIONS"]) && status == "204"),
];
