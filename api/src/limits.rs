//! Every limit of the public surface, in one place: the API and `/docs/limits` show them, the errors name them, the code
//! enforces them. A limit is a constant and a row of [`LIMITS`] at once, so that none can be left out of the table.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ErrorCode;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name of its constant.
    constant: &'static str,
    /// How much it is.
    pub value: u64,
    /// What `value` counts.
    pub unit: Unit,
    /// What happens to what is over (or under) it.
    pub beyond: Beyond,
    description: &'static [&'static str],
    /// The setting of a node that changes it; `value` is its default then.
    pub setting: Option<Setting>,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Things.
    Count,
}

impl Unit {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes_per_second",
            Self::Milliseconds => "milliseconds",
            Self::Count => "count",
        }
    }
}

/// What happens beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// The request, or the frame, is refused with this code.
    Refused(ErrorCode),
    /// The request is answered with this status and without a body, and its connection ends.
    Status(u16),
    /// The request over HTTP/2 is reset; the client may try again later.
    Reset,
    /// The WebSocket is closed with this code.
    Close(u16),
    /// The connection ends without an answer.
    Ended,
    /// No failure: it waits for its turn.
    Queued,
    /// No failure: a list or page ends before, and goes on where it ended.
    Continued,
}

/// A setting of a node that is a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `max_connections`.
    MaxConnections,
    /// `max_connections_per_address`.
    MaxConnectionsPerAddress,
}

impl Setting {
    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxConnections => "max_connections",
            Self::MaxConnectionsPerAddress => "max_connections_per_address",
        }
    }
}

/// One limit as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitInfo {
    /// Its name, stable.
    pub name: String,
    /// How much it is on this node.
    pub value: u64,
    /// What `value` counts.
    pub unit: Unit,
    /// What it bounds.
    pub description: String,
    /// The error code of what is beyond it; absent where that is no problem document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
}

impl Limit {
    /// The name in the API, such as `record_bytes_max`.
    #[must_use]
    pub fn name(&self) -> String {
        self.constant.to_ascii_lowercase()
    }

    /// What it bounds, in one or two sentences.
    #[must_use]
    pub fn description(&self) -> String {
        self.description.concat().trim().to_owned()
    }

    /// The same as the API shows it.
    #[must_use]
    pub fn info(&self) -> LimitInfo {
        let error = match self.beyond {
            Beyond::Refused(code) => Some(code),
            Beyond::Status(_)
            | Beyond::Reset
            | Beyond::Close(_)
            | Beyond::Ended
            | Beyond::Queued
            | Beyond::Continued => None,
        };
        LimitInfo { name: self.name(), value: self.value, unit: self.unit, description: self.description(), error }
    }
}

/// Each `docs NAME: type = value; unit, beyond;` is a constant and a row.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $value:expr; $unit:ident, $beyond:expr $(, $setting:ident)?;)*) => {
        $($(#[doc = $doc])+ pub const $name: $kind = $value;)*

        /// Every limit, in the order of the documentation.
        pub const LIMITS: &[Limit] = &[$(Limit {
            constant: stringify!($name),
            value: $name as u64,
            unit: Unit::$unit,
            beyond: $beyond,
            description: &[$($doc),+],
            setting: setting!($($setting)?),
        }),*];
    };
}

macro_rules! setting {
    () => {
        None
    };
    ($name:ident) => {
        Some(Setting::$name)
    };
}

use Beyond::{Close, Continued, Ended, Queued, Refused, Reset, Status};
use ErrorCode::{
    Conflict, InvalidRequest, InvalidTopicName, Overloaded, QuotaExceeded, RequestTimeout, TooLarge, Unauthenticated,
    Unprocessable,
};

limits! {
    /// Longest topic name, in bytes.
    TOPIC_NAME_BYTES_MAX: usize = 255; Bytes, Refused(InvalidTopicName);
    /// Largest payload of one record, in bytes, unless the topic sets less.
    RECORD_BYTES_MAX: usize = 1024 * 1024; Bytes, Refused(TooLarge);
    /// Largest body of a batch publish, in bytes.
    BATCH_BYTES_MAX: usize = 8 * 1024 * 1024; Bytes, Refused(TooLarge);
    /// Largest body of a publish in the form in which batches are stored, in bytes: any batch that is within the limits by
    /// its content fits.
    STORED_BATCH_BYTES_MAX: usize = BATCH_BYTES_MAX + 512 * 1024; Bytes, Refused(TooLarge);
    /// Most records in one batch.
    BATCH_RECORDS_MAX: usize = 1000; Count, Refused(TooLarge);
    /// Most headers of one record.
    RECORD_HEADERS_MAX: usize = 64; Count, Refused(TooLarge);
    /// Largest sum of header names and values of one record, in bytes.
    RECORD_HEADERS_BYTES_MAX: usize = 16 * 1024; Bytes, Refused(TooLarge);
    /// Longest record key, in bytes.
    RECORD_KEY_BYTES_MAX: usize = 1024; Bytes, Refused(TooLarge);
    /// Shortest time to live of a record, in milliseconds.
    RECORD_TTL_MS_MIN: u64 = 1000; Milliseconds, Refused(Unprocessable);
    /// Longest time to live of a record, in milliseconds: `10y`, years of 365.25 days.
    RECORD_TTL_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000 + 60 * 60 * 60 * 1000; Milliseconds, Refused(Unprocessable);
    /// Longest `Idempotency-Key`, in bytes.
    IDEMPOTENCY_KEY_BYTES_MAX: usize = 255; Bytes, Refused(TooLarge);
    /// Longest id of a producer, in bytes.
    PRODUCER_ID_BYTES_MAX: usize = 255; Bytes, Refused(TooLarge);
    /// Longest `Stream-Seq` of an append to a stream, in bytes.
    STREAM_SEQ_BYTES_MAX: usize = 255; Bytes, Refused(InvalidRequest);
    /// Longest media type that a stream is made with, in bytes: each of its records has it.
    STREAM_MEDIA_TYPE_BYTES_MAX: usize = 255; Bytes, Refused(InvalidRequest);
    /// Most messages of JSON in one append to a stream.
    STREAM_MESSAGES_MAX: usize = 65_536; Count, Refused(TooLarge);
    /// Most forks from a stream to one that is no fork, itself with them.
    FORK_DEPTH_MAX: u32 = 64; Count, Refused(InvalidRequest);
    /// Largest epoch, sequence, fencing token and expected tail: what every JSON reader can hold.
    NUMBER_MAX: u64 = (1 << 53) - 1; Count, Refused(InvalidRequest);
    /// Most partitions of one topic.
    PARTITIONS_MAX: u32 = 1024; Count, Refused(Unprocessable);
    /// Shortest age that a topic may keep its records for, in milliseconds.
    RETENTION_AGE_MS_MIN: u64 = 1000; Milliseconds, Refused(Unprocessable);
    /// Longest age that a topic may keep its records for, in milliseconds: 36,500 days.
    RETENTION_AGE_MS_MAX: u64 = 36_500 * 24 * 60 * 60 * 1000; Milliseconds, Refused(Unprocessable);
    /// Largest number of bytes that a topic may keep of each partition.
    RETENTION_BYTES_MAX: u64 = NUMBER_MAX; Bytes, Refused(Unprocessable);
    /// Most records in one page.
    PAGE_RECORDS_MAX: usize = 10_000; Count, Refused(InvalidRequest);
    /// Largest sum of payload bytes in one page.
    PAGE_BYTES_MAX: usize = 8 * 1024 * 1024; Bytes, Refused(InvalidRequest);
    /// Longest wait of a long-poll, in milliseconds.
    WAIT_MS_MAX: u64 = 60_000; Milliseconds, Refused(InvalidRequest);
    /// Most topics and patterns of one `/v1/stream` or WebSocket subscription.
    STREAM_TOPICS_MAX: usize = 100; Count, Refused(Unprocessable);
    /// Most partitions that one live stream or WebSocket subscription follows.
    STREAM_PARTITIONS_MAX: usize = 10_000; Count, Refused(Unprocessable);
    /// Most items in one page of a list.
    LIST_ITEMS_MAX: usize = 1000; Count, Refused(InvalidRequest);
    /// Most partitions of the topics in one page of a list, unless a single topic has more: the page ends before.
    LIST_PARTITIONS_MAX: usize = 10_000; Count, Continued;
    /// Longest span of time whose use is told by minutes, in milliseconds.
    USAGE_MINUTES_RANGE_MS_MAX: u64 = 24 * 60 * 60 * 1000; Milliseconds, Refused(Unprocessable);
    /// Longest span of time whose use is told by hours, in milliseconds.
    USAGE_HOURS_RANGE_MS_MAX: u64 = 31 * 24 * 60 * 60 * 1000; Milliseconds, Refused(Unprocessable);
    /// Largest WebSocket message from a client, in bytes: a batch and what is around it.
    FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + 64 * 1024; Bytes, Close(1009);
    /// Longest `id` of a WebSocket request, in bytes.
    FRAME_ID_BYTES_MAX: usize = 255; Bytes, Refused(Unprocessable);
    /// Most subscriptions on one WebSocket connection.
    CONNECTION_SUBSCRIPTIONS_MAX: usize = 100; Count, Refused(Unprocessable);
    /// How long a WebSocket may be without a credential, in milliseconds.
    CREDENTIAL_MS_MAX: u64 = 10_000; Milliseconds, Close(4408);
    /// Longest tenant name, in bytes.
    TENANT_NAME_BYTES_MAX: usize = 63; Bytes, Refused(Unprocessable);
    /// Longest name of an API key, in bytes.
    KEY_NAME_BYTES_MAX: usize = 255; Bytes, Refused(Unprocessable);
    /// Most scopes of one API key.
    KEY_SCOPES_MAX: usize = 100; Count, Refused(Unprocessable);
    /// Longest time for which the secret before a rotation is accepted beside the new one, in milliseconds.
    KEY_OVERLAP_MS_MAX: u64 = 30 * 86_400_000; Milliseconds, Refused(Unprocessable);
    /// Most origins that a tenant allows.
    ALLOWED_ORIGINS_MAX: usize = 100; Count, Refused(Unprocessable);
    /// Life of a one-time ticket, in milliseconds.
    TICKET_TTL_MS: u64 = 30_000; Milliseconds, Refused(Unauthenticated);
    /// Most one-time tickets of a tenant that count; one more takes the place of the oldest.
    TENANT_TICKETS_MAX: usize = 10_000; Count, Refused(Unauthenticated);
    /// How long a browser that has redeemed a ticket may come back after a broken connection, in milliseconds.
    RECONNECT_TTL_MS: u64 = 12 * 60 * 60 * 1000; Milliseconds, Refused(Unauthenticated);
    /// Longest token (JWT), in bytes.
    TOKEN_BYTES_MAX: usize = 8 * 1024; Bytes, Refused(Unauthenticated);
    /// Longest `kid` of a token or key, in bytes.
    TOKEN_KEY_ID_BYTES_MAX: usize = 128; Bytes, Refused(Unauthenticated);
    /// Longest subject and token id (`jti`) of a token, in bytes.
    TOKEN_SUBJECT_BYTES_MAX: usize = 255; Bytes, Refused(Unauthenticated);
    /// Most audiences of one token.
    TOKEN_AUDIENCES_MAX: usize = 16; Count, Refused(Unauthenticated);
    /// Shortest life that an issuer may allow its tokens, in milliseconds.
    TOKEN_LIFETIME_MS_MIN: u64 = 60 * 1000; Milliseconds, Refused(Unprocessable);
    /// Longest life that an issuer may allow its tokens, in milliseconds.
    TOKEN_LIFETIME_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000; Milliseconds, Refused(Unprocessable);
    /// By how much an issuer's tokens may be off by its clock, in milliseconds.
    TOKEN_LEEWAY_MS_MAX: u64 = 30 * 1000; Milliseconds, Refused(Unprocessable);
    /// Longest life of a minted token, in milliseconds.
    TOKEN_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1000; Milliseconds, Refused(Unprocessable);
    /// Largest sum of the scopes of a minted token, in bytes.
    TOKEN_SCOPES_BYTES_MAX: usize = 4 * 1024; Bytes, Refused(Unprocessable);
    /// Most revocations of a tenant that still count.
    REVOCATIONS_MAX: usize = 10_000; Count, Refused(Unprocessable);
    /// Most issuers that a tenant trusts.
    ISSUERS_MAX: usize = 20; Count, Refused(Unprocessable);
    /// Longest name of an issuer, in bytes.
    ISSUER_NAME_BYTES_MAX: usize = 63; Bytes, Refused(Unprocessable);
    /// Longest `iss`, audience, address and name of a claim of an issuer, in bytes.
    ISSUER_TEXT_BYTES_MAX: usize = 1024; Bytes, Refused(Unprocessable);
    /// Most audiences of one issuer.
    ISSUER_AUDIENCES_MAX: usize = 16; Count, Refused(Unprocessable);
    /// Most keys of one issuer.
    ISSUER_KEYS_MAX: usize = 100; Count, Refused(Unprocessable);
    /// Longest secret of an issuer, in bytes.
    ISSUER_SECRET_BYTES_MAX: usize = 1024; Bytes, Refused(Unprocessable);
    /// Longest id of a subscription of streams, in bytes.
    SUBSCRIPTION_ID_BYTES_MAX: usize = 128; Bytes, Refused(InvalidRequest);
    /// Most subscriptions of streams of one tenant.
    TENANT_SUBSCRIPTIONS_MAX: usize = 1000; Count, Refused(Conflict);
    /// Most streams that one subscription is linked with. Of those that come later by its glob, more are not linked.
    SUBSCRIPTION_LINKS_MAX: usize = 10_000; Count, Refused(Conflict);
    /// Most levels `**` of the glob of a subscription.
    GLOBSTARS_MAX: usize = 4; Count, Refused(InvalidRequest);
    /// Shortest lease of a subscription, in milliseconds.
    SUBSCRIPTION_LEASE_MS_MIN: u64 = 1000; Milliseconds, Refused(InvalidRequest);
    /// Longest lease of a subscription, in milliseconds.
    SUBSCRIPTION_LEASE_MS_MAX: u64 = 10 * 60 * 1000; Milliseconds, Refused(InvalidRequest);
    /// Longest description of a subscription and longest name of a worker, in bytes.
    SUBSCRIPTION_TEXT_BYTES_MAX: usize = 1024; Bytes, Refused(InvalidRequest);
    /// Largest body of a request about a subscription, in bytes. What is more goes in several requests.
    SUBSCRIPTION_BODY_BYTES_MAX: usize = 1024 * 1024; Bytes, Refused(TooLarge);
    /// Life of the token of a wake, in milliseconds, if the wake does not end before.
    WAKE_TOKEN_TTL_MS: u64 = 24 * 60 * 60 * 1000; Milliseconds, Refused(Unauthenticated);
    /// Most webhooks of a node that are called at once.
    WEBHOOKS_MAX: usize = 64; Count, Queued;
    /// Most webhooks of one tenant that are called at once.
    TENANT_WEBHOOKS_MAX: usize = 8; Count, Queued;
    /// Largest body of a request that is no publish, in bytes.
    SETTINGS_BYTES_MAX: usize = 64 * 1024; Bytes, Refused(TooLarge);
    /// Most reports of broken content security policies that are taken from one client address in a minute.
    POLICY_REPORTS_PER_MINUTE_MAX: u32 = 20; Count, Refused(QuotaExceeded);
    /// Largest head of a request over HTTP/1.1, in bytes.
    HEAD_BYTES_MAX: usize = 64 * 1024; Bytes, Status(431);
    // hyper's own limit, left alone: to set it would cost an allocation per request.
    /// Most header fields of a request over HTTP/1.1.
    HEAD_FIELDS_MAX: usize = 100; Count, Status(431);
    /// Largest list of header fields over HTTP/2, in bytes as HTTP/2 counts them.
    HTTP2_HEADERS_BYTES_MAX: u32 = 32 * 1024; Bytes, Status(431);
    /// Most requests under way on one HTTP/2 connection.
    HTTP2_STREAMS_MAX: u32 = 128; Count, Reset;
    /// From how many bytes of answers that an HTTP/2 connection has not taken on its streams are given no more: two of the
    /// largest batches, so that one that is not taken does not hold up the others.
    HTTP2_HELD_BYTES_MAX: usize = 2 * STORED_BATCH_BYTES_MAX; Bytes, Queued;
    /// Most that a node holds of publishes under way, in bytes; tenants share it by what is free.
    PUBLISHES_HELD_BYTES_MAX: u64 = 128 * 1024 * 1024; Bytes, Refused(Overloaded);
    /// Most that a node holds of pages that are not sent yet, in bytes; tenants share it by what is free.
    PAGES_HELD_BYTES_MAX: u64 = 128 * 1024 * 1024; Bytes, Refused(Overloaded);
    /// Most open connections of a node.
    CONNECTIONS_MAX: usize = 20_000; Count, Ended, MaxConnections;
    /// Most open connections of one client address.
    CONNECTIONS_PER_ADDRESS_MAX: usize = 10_000; Count, Ended, MaxConnectionsPerAddress;
    /// Most TLS handshakes of a node under way; more wait.
    HANDSHAKES_MAX: usize = 2048; Count, Queued;
    /// Most TLS handshakes of one client address under way; more wait.
    HANDSHAKES_PER_ADDRESS_MAX: usize = 128; Count, Queued;
    /// How long a TLS handshake may take, in milliseconds, the wait for its turn included.
    HANDSHAKE_MS_MAX: u64 = 10_000; Milliseconds, Ended;
    /// How long a new connection may send nothing, in milliseconds; with TLS, after its handshake.
    FIRST_BYTE_MS_MAX: u64 = 10_000; Milliseconds, Ended;
    /// How long the head of a request may take from its first byte, in milliseconds.
    HEAD_MS_MAX: u64 = 10_000; Milliseconds, Ended;
    /// How long the body of a request may take, in milliseconds, unless it keeps the least rate.
    BODY_MS_MAX: u64 = 30_000; Milliseconds, Refused(RequestTimeout);
    /// The rate at which a body may take longer, in bytes per second.
    BODY_RATE_MIN: u64 = 32 * 1024; BytesPerSecond, Refused(RequestTimeout);
    /// How long a connection may rest between two requests, in milliseconds.
    IDLE_MS_MAX: u64 = 120_000; Milliseconds, Ended;
    /// How long a connection may stand still within a request, in milliseconds: nothing sent by the client, and nothing of
    /// an answer taken.
    STALL_MS_MAX: u64 = 120_000; Milliseconds, Ended;
}

/// Records in a page when the request names no limit.
pub const PAGE_RECORDS_DEFAULT: usize = 1000;
/// Longest life of an issuer's tokens when it does not say it, in milliseconds.
pub const TOKEN_LIFETIME_MS_DEFAULT: u64 = 24 * 60 * 60 * 1000;
/// Lease of a subscription when it names none, in milliseconds.
pub const SUBSCRIPTION_LEASE_MS_DEFAULT: u64 = 30_000;
/// Life of a minted token when the request names none, in milliseconds.
pub const TOKEN_TTL_MS_DEFAULT: u64 = 60 * 60 * 1000;
/// Items in a page of a list when the request names no limit.
pub const LIST_ITEMS_DEFAULT: usize = 100;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_limit_says_what_it_bounds_and_has_a_name_of_its_own() {
        let names: HashSet<String> = LIMITS.iter().map(Limit::name).collect();
        assert_eq!(names.len(), LIMITS.len());
        for limit in LIMITS {
            let said = limit.description();
            assert!(said.ends_with('.') && !said.contains("  "), "{}: {said}", limit.name());
            assert!(limit.value > 0, "{}", limit.name());
        }
    }

    #[test]
    fn a_limit_is_shown_with_its_name_value_unit_and_error() {
        let record = LIMITS.iter().find(|limit| limit.name() == "record_bytes_max").map(Limit::info);
        let shown = serde_json::to_value(record).expect("it is plain strings and numbers");
        let expected = serde_json::json!({
            "name": "record_bytes_max",
            "value": 1_048_576,
            "unit": "bytes",
            "description": "Largest payload of one record, in bytes, unless the topic sets less.",
            "error": "too_large",
        });
        assert_eq!(shown, expected);
    }
}
