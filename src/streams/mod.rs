//! Durable Streams over HTTP: the protocol's methods, headers and live modes, over the broker's streams.
//!
//! A stream is at `/v1/streams/{path}` and, as the protocol's clients write it, at `/v1/stream/{path}`, both also under
//! `/t/{tenant}`; its path is the name of a topic. What is read from a request is in [`headers`], what the broker refuses
//! becomes an answer in [`fail`], the frames of a live stream are made in [`frames`]. Unlike the rest of the API, parameters and headers that are not known
//! are passed over here: the protocol wants it so.

mod about;
pub(crate) mod control;
mod cursor;
mod etag;
mod fail;
mod frames;
#[cfg(test)]
mod fuzz;
mod get;
mod headers;
mod list;
mod poll;
mod post;
mod put;
mod sse;

pub(crate) use about::{__path_head, __path_options, __path_remove, head, options, remove};
pub(crate) use get::{__path_get, answer as read, get};
pub(crate) use list::{__path_list, list};
pub(crate) use post::{__path_post, answer as append, post};
pub(crate) use put::{__path_put, put};

/// What stands before the name of a stream. A tenant may stand before that.
pub(crate) const ROOTS: [&str; 2] = ["/v1/streams/", "/v1/stream/"];
/// Where streams are, by the name that their documents and measurements use.
pub(crate) const STREAM: &str = "/v1/streams/{path}";
/// What is of streams, and what the router knows instead: there are two roots, and a name may have slashes.
pub(crate) const SERVED_AT: [(&str, [&str; 2]); 9] = [
    (STREAM, ["/v1/streams/{*path}", "/v1/stream/{*path}"]),
    (control::SUBSCRIPTION_KEYS, [control::SUBSCRIPTION_KEYS, "/v1/stream/__ds/jwks.json"]),
    (control::SUBSCRIPTION, [control::SUBSCRIPTION, "/v1/stream/__ds/subscriptions/{id}"]),
    (control::SUBSCRIPTION_STREAMS, [control::SUBSCRIPTION_STREAMS, "/v1/stream/__ds/subscriptions/{id}/streams"]),
    (
        control::SUBSCRIPTION_STREAM,
        ["/v1/streams/__ds/subscriptions/{id}/streams/{*path}", "/v1/stream/__ds/subscriptions/{id}/streams/{*path}"],
    ),
    (control::CALLBACK, [control::CALLBACK, "/v1/stream/__ds/subscriptions/{id}/callback"]),
    (control::CLAIM, [control::CLAIM, "/v1/stream/__ds/subscriptions/{id}/claim"]),
    (control::ACK, [control::ACK, "/v1/stream/__ds/subscriptions/{id}/ack"]),
    (control::RELEASE, [control::RELEASE, "/v1/stream/__ds/subscriptions/{id}/release"]),
];
/// What else is under the reserved name, at which there is no stream.
pub(crate) const RESERVED: [&str; 4] =
    ["/v1/streams/__ds", "/v1/streams/__ds/{*path}", "/v1/stream/__ds", "/v1/stream/__ds/{*path}"];
