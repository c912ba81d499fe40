//! WebSocket, subprotocol `plinth.v1.json`: publish and many subscriptions on one connection.
//!
//! [`upgrade`] answers the handshake, `session` is the one task of a connection: it reads frames, asks `auth` and
//! `broker`, and writes what comes of it. A client that reads slowly makes its own session wait: what is queued for a
//! connection is bounded, and no subscription is asked for more while the socket takes nothing. Knows nothing of topics'
//! partitions or of the log.

mod outbox;
mod requests;
mod session;
mod subscriptions;
pub(crate) mod upgrade;

use std::time::Duration;

use plinth_api::limits::{CREDENTIAL_MS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX, RECORD_KEY_BYTES_MAX};

pub use upgrade::upgrade;

/// A client must show its credential within this time.
const CREDENTIAL_WITHIN: Duration = Duration::from_millis(CREDENTIAL_MS_MAX);
/// Time between two pings; a client that was silent for two of them is closed at the third.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client is told that its credential ends this long before.
const EXPIRY_WARNING: Duration = Duration::from_secs(60);
/// How long publishes that are under way may take when the server sends the client away.
const LAST_PUBLISHES: Duration = Duration::from_secs(5);
/// How long the last frames and the closing handshake may take.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// Over how many milliseconds those are spread who are told to try again.
const SPREAD_MS: u64 = 1_000;
/// Publishes and subscribes of one connection that are under way at once; above it the socket is not read.
const REQUESTS_MAX: usize = 64;
/// Answers that wait for the socket; above it the socket is not read.
const ANSWERS_MAX: usize = 64;
/// A `records` frame is closed when it is at least this large.
const RECORDS_FRAME_BYTES: usize = 64 * 1024;
/// Read buffer of a connection: there may be thousands, and most are idle. A frame that is larger gets its own.
const READ_BUFFER_BYTES: usize = 3 * 1024;
/// Bytes that are gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// Most that is ever buffered for writing: what is gathered, and one frame with the largest record in JSON, where a
/// byte may take six.
const WRITE_BUFFER_BYTES_MAX: usize =
    256 * 1024 + 6 * (RECORD_BYTES_MAX + RECORD_HEADERS_BYTES_MAX + RECORD_KEY_BYTES_MAX) + 1024 * 1024;

/// Close codes (RFC 6455 §7.4 and the range for applications).
mod close {
    /// The client has closed. Never sent, only counted.
    pub(super) const NORMAL: u16 = 1000;
    /// The connection broke. Never sent, only counted.
    pub(super) const BROKEN: u16 = 1006;
    /// The bytes are not WebSocket frames.
    pub(super) const PROTOCOL: u16 = 1002;
    /// The client sent what is not read here.
    pub(super) const UNSUPPORTED: u16 = 1003;
    /// The text was not UTF-8.
    pub(super) const NOT_UTF8: u16 = 1007;
    /// The client broke the rules of the subprotocol.
    pub(super) const POLICY: u16 = 1008;
    /// The message was larger than the limit.
    pub(super) const TOO_BIG: u16 = 1009;
    /// The server restarts; come back.
    pub(super) const RESTART: u16 = 1012;
    /// The credential is not valid, or not any more.
    pub(super) const CREDENTIAL_ENDED: u16 = 4401;
    /// No credential came in time.
    pub(super) const NO_CREDENTIAL: u16 = 4408;
    /// A quota of the tenant or of the key is used up.
    pub(super) const QUOTA: u16 = 4429;
}

#[cfg(test)]
mod tests;
