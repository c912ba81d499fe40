//! What the server writes about a tenant: the records of the topics `_usage`, `_audit` and `_events`.
//!
//! Each is one JSON object. No payload, token or key is ever in one.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ErrorCode;

/// A record of `_usage`: what a tenant used in about a minute. Minutes without any use have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Where the span begins, ms since the Unix epoch.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// Requests, and frames of WebSockets that ask for something.
    pub requests: u64,
    /// Records that were stored.
    pub published_records: u64,
    /// Their bytes: payloads, keys, headers and content types.
    pub published_bytes: u64,
    /// Records that were sent to readers.
    pub delivered_records: u64,
    /// Their bytes, as they are stored.
    pub delivered_bytes: u64,
    /// Connections that were open at the end of the span.
    pub connections: u64,
    /// Live streams and subscriptions that were open at the end of the span.
    pub followers: u64,
    /// Stored bytes that were kept at the end of the span, of all topics.
    pub storage_bytes: u64,
}

/// How finely use is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// By minutes.
    #[default]
    Minute,
    /// By hours.
    Hour,
}

impl Granularity {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }
}

impl FromStr for Granularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "minute" => Ok(Self::Minute),
            "hour" => Ok(Self::Hour),
            other => Err(format!("{other:?} is none of minute, hour")),
        }
    }
}

/// What a tenant uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// Since the last record in `_usage`.
    pub now: Usage,
    /// How finely `data` is told.
    pub granularity: Granularity,
    /// What was used in the span that was asked for, oldest first.
    pub data: Vec<Usage>,
}

/// What a record of `_audit` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// A call that may change something begins. It is stored before the change can be.
    Begun,
    /// A call was answered: `status`, and `code` when it failed.
    Answered,
    /// A credential of the tenant was refused.
    Unauthenticated,
    /// More was refused within a minute than is written down: `count` such records are missing.
    Dropped,
}

/// A record of `_audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: AuditKind,
    /// When, ms since the Unix epoch.
    pub at: u64,
    /// The id of the request, which both records of a call have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The operation, by its id in the OpenAPI document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// What it was about: the name of a topic or tenant, the id of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The tenant that an operator's call was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Which credential: `root`, `key:<id>`, or how else it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// For whom the credential was made, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The address that the connection came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of the problem, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// How many records are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Audit {
    /// A record that says nothing yet but what it is about and when.
    #[must_use]
    pub fn new(kind: AuditKind, at: u64) -> Self {
        Self {
            kind,
            at,
            request_id: None,
            operation: None,
            target: None,
            tenant: None,
            credential: None,
            subject: None,
            address: None,
            status: None,
            code: None,
            count: None,
        }
    }
}

/// What happened to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Happening {
    /// A topic was made.
    TopicMade {
        /// Its name.
        topic: String,
    },
    /// Settings of a topic were changed.
    TopicChanged {
        /// Its name.
        topic: String,
    },
    /// A topic was deleted with its records.
    TopicDeleted {
        /// Its name.
        topic: String,
    },
    /// An API key was made.
    KeyMade {
        /// Its id.
        key: String,
    },
    /// An API key got a new secret.
    KeyRotated {
        /// Its id.
        key: String,
    },
    /// An API key was ended.
    KeyRevoked {
        /// Its id.
        key: String,
    },
    /// The tenant was suspended.
    TenantSuspended,
    /// The tenant was resumed.
    TenantResumed,
    /// A quota was reached, and calls were refused for it; told once a minute at most.
    QuotaReached {
        /// Which one.
        quota: String,
    },
    /// More happened at once than is written down.
    Dropped {
        /// How many records are missing.
        count: u64,
    },
}

/// A record of `_events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantEvent {
    /// When, ms since the Unix epoch.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}
