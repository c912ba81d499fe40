//! The closed list of error codes and the problem document (RFC 9457) that carries one.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wakes::SubscriptionFailure;

/// What is known about the records of a failed publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublishOutcome {
    /// Nothing was stored by this request and nothing will be.
    NotStored,
    /// The records may have been stored or may be stored later.
    Unknown,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request fails again.
    Never,
    /// The same request may succeed after `Retry-After`.
    Later,
}

/// Why a request failed. The list is closed and its names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be read: syntax of the body, a header or a parameter.
    InvalidRequest,
    /// A query parameter, header or field is not known or not offered.
    UnknownField,
    /// The topic name breaks the naming rule.
    InvalidTopicName,
    /// The cursor is not one of ours, or belongs to another tenant or topic.
    InvalidCursor,
    /// No credential, or one that is not valid.
    Unauthenticated,
    /// The credential is valid but does not allow this.
    Forbidden,
    /// The credential is of a tenant that is suspended.
    TenantSuspended,
    /// There is no such thing, or the credential may not know of it.
    NotFound,
    /// The path is known, the method is not.
    MethodNotAllowed,
    /// None of the accepted media types can be produced.
    NotAcceptable,
    /// The thing exists with other settings, or the name is taken.
    Conflict,
    /// The tail of the partition is not the one that the publish expects; `tail` says what it is.
    TailMismatch,
    /// The producer's sequence is not the next one, which is `expected_seq`; one below it was stored before.
    SequenceMismatch,
    /// A later epoch of the producer, or a higher fencing token, has written: `epoch` or `fencing_token`.
    Fenced,
    /// A later epoch of the producer has written to the stream: `epoch`.
    ProducerFenced,
    /// The stream is closed: nothing is appended to it any more.
    Closed,
    /// The body has another media type than the stream.
    ContentTypeMismatch,
    /// The offset is below the first one that is kept.
    OffsetTrimmed,
    /// The offset is of a stream that was deleted, or what is there is no longer kept.
    Gone,
    /// The offset is above the tail.
    OffsetAboveTail,
    /// A body, record, batch, key or header is larger than its limit.
    TooLarge,
    /// The media type of the body is not one that is read here.
    UnsupportedMediaType,
    /// The request is readable but its content is refused.
    Unprocessable,
    /// The idempotency key was used for a request with other content.
    IdempotencyKeyReused,
    /// A client took too long to send its request.
    RequestTimeout,
    /// A quota of the tenant or of the key is used up; the detail names it.
    QuotaExceeded,
    /// The node has no capacity at the moment.
    Overloaded,
    /// The object store cannot be reached.
    StoreUnavailable,
    /// The node is stopping or has lost its session.
    ShuttingDown,
    /// The outcome was not known within the time allowed.
    OutcomeUnknown,
    /// A defect of the server.
    Internal,
}

impl ErrorCode {
    /// Every code, for documents and tests.
    pub const ALL: [Self; 31] = [
        Self::InvalidRequest,
        Self::UnknownField,
        Self::InvalidTopicName,
        Self::InvalidCursor,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::TenantSuspended,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::Conflict,
        Self::TailMismatch,
        Self::SequenceMismatch,
        Self::Fenced,
        Self::ProducerFenced,
        Self::Closed,
        Self::ContentTypeMismatch,
        Self::OffsetTrimmed,
        Self::Gone,
        Self::OffsetAboveTail,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::IdempotencyKeyReused,
        Self::RequestTimeout,
        Self::QuotaExceeded,
        Self::Overloaded,
        Self::StoreUnavailable,
        Self::ShuttingDown,
        Self::OutcomeUnknown,
        Self::Internal,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownField => "unknown_field",
            Self::InvalidTopicName => "invalid_topic_name",
            Self::InvalidCursor => "invalid_cursor",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::TenantSuspended => "tenant_suspended",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAcceptable => "not_acceptable",
            Self::Conflict => "conflict",
            Self::TailMismatch => "tail_mismatch",
            Self::SequenceMismatch => "sequence_mismatch",
            Self::Fenced => "fenced",
            Self::ProducerFenced => "producer_fenced",
            Self::Closed => "closed",
            Self::ContentTypeMismatch => "content_type_mismatch",
            Self::OffsetTrimmed => "offset_trimmed",
            Self::Gone => "gone",
            Self::OffsetAboveTail => "offset_above_tail",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::RequestTimeout => "request_timeout",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Overloaded => "overloaded",
            Self::StoreUnavailable => "store_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::UnknownField | Self::InvalidTopicName | Self::InvalidCursor => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::TenantSuspended | Self::ProducerFenced => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::RequestTimeout => 408,
            Self::Conflict
            | Self::TailMismatch
            | Self::SequenceMismatch
            | Self::Fenced
            | Self::Closed
            | Self::ContentTypeMismatch => 409,
            Self::OffsetTrimmed | Self::Gone => 410,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::OffsetAboveTail => 416,
            Self::Unprocessable | Self::IdempotencyKeyReused => 422,
            Self::QuotaExceeded => 429,
            Self::Internal => 500,
            Self::Overloaded | Self::StoreUnavailable | Self::ShuttingDown => 503,
            Self::OutcomeUnknown => 504,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::RequestTimeout
            | Self::QuotaExceeded
            | Self::Overloaded
            | Self::StoreUnavailable
            | Self::ShuttingDown
            | Self::OutcomeUnknown
            | Self::Internal => Retry::Later,
            Self::InvalidRequest
            | Self::UnknownField
            | Self::InvalidTopicName
            | Self::InvalidCursor
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::TenantSuspended
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::Conflict
            | Self::TailMismatch
            | Self::SequenceMismatch
            | Self::Fenced
            | Self::ProducerFenced
            | Self::Closed
            | Self::ContentTypeMismatch
            | Self::OffsetTrimmed
            | Self::Gone
            | Self::OffsetAboveTail
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::Unprocessable
            | Self::IdempotencyKeyReused => Retry::Never,
        }
    }

    /// What a publish that failed with this code left behind.
    #[must_use]
    pub fn outcome(self) -> PublishOutcome {
        match self {
            Self::OutcomeUnknown | Self::Internal => PublishOutcome::Unknown,
            Self::InvalidRequest
            | Self::UnknownField
            | Self::InvalidTopicName
            | Self::InvalidCursor
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::TenantSuspended
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::Conflict
            | Self::TailMismatch
            | Self::SequenceMismatch
            | Self::Fenced
            | Self::ProducerFenced
            | Self::Closed
            | Self::ContentTypeMismatch
            | Self::OffsetTrimmed
            | Self::Gone
            | Self::OffsetAboveTail
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::Unprocessable
            | Self::IdempotencyKeyReused
            | Self::RequestTimeout
            | Self::QuotaExceeded
            | Self::Overloaded
            | Self::StoreUnavailable
            | Self::ShuttingDown => PublishOutcome::NotStored,
        }
    }

    /// One short sentence for people, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request cannot be read",
            Self::UnknownField => "A parameter, header or field is not known",
            Self::InvalidTopicName => "The topic name is not valid",
            Self::InvalidCursor => "The cursor is not valid here",
            Self::Unauthenticated => "A valid credential is required",
            Self::Forbidden => "The credential does not allow this",
            Self::TenantSuspended => "The tenant is suspended",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::NotAcceptable => "No acceptable media type can be produced",
            Self::Conflict => "The request conflicts with what exists",
            Self::TailMismatch => "The tail is not the expected one",
            Self::SequenceMismatch => "The sequence is not the producer's next one",
            Self::Fenced => "A newer writer has taken over",
            Self::ProducerFenced => "A later epoch of the producer has written",
            Self::Closed => "The stream is closed",
            Self::ContentTypeMismatch => "The stream has another media type",
            Self::OffsetTrimmed => "The offset is no longer kept",
            Self::Gone => "The position is gone",
            Self::OffsetAboveTail => "The offset is above the tail",
            Self::TooLarge => "A size limit is exceeded",
            Self::UnsupportedMediaType => "The media type of the body is not supported",
            Self::Unprocessable => "The content is refused",
            Self::IdempotencyKeyReused => "The idempotency key was used for other content",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::QuotaExceeded => "A quota is used up",
            Self::Overloaded => "The node has no capacity at the moment",
            Self::StoreUnavailable => "The object store cannot be reached",
            Self::ShuttingDown => "The node is stopping",
            Self::OutcomeUnknown => "The outcome is not known",
            Self::Internal => "Internal error",
        }
    }
}

/// The body of every error, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URL that explains the code, relative to the server.
    #[serde(rename = "type")]
    pub kind: String,
    /// The title of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time; names the thing and the limit.
    pub detail: String,
    /// The code, stable.
    pub code: ErrorCode,
    /// The id of the request, also in `X-Request-Id` and in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// For a publish: what is known about the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<PublishOutcome>,
    /// For `unauthenticated` with a token: what is wrong with it, one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `offset_above_tail` and `tail_mismatch`: the tail of the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// For `offset_trimmed`: the first offset that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// For `sequence_mismatch`: the sequence that is due. When it is above the one that was sent, that one is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seq: Option<u64>,
    /// For `fenced`: the producer's epoch that has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// For `fenced`: the highest fencing token that the partition has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<u64>,
    /// After how many milliseconds it may succeed, where that is known; with a random part, so that not all come back at
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// For `quota_exceeded`: the quotas that are used up, by their names in `RateLimit-Policy`.
    #[serde(default, rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    pub violated_policies: Option<Vec<String>>,
    /// About a subscription of streams: the same failure in the words of their protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<SubscriptionFailure>>,
}

impl Problem {
    /// A problem of `code`; `detail` names the thing and the limit.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/docs/errors/{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: None,
            outcome: None,
            reason: None,
            tail: None,
            start: None,
            expected_seq: None,
            epoch: None,
            fencing_token: None,
            retry_after_ms: None,
            violated_policies: None,
            error: None,
        }
    }
}
