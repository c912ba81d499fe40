//! Streams, as they are listed. What the protocol of Durable Streams says of one is in headers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stream: a topic of one partition, as the protocol of Durable Streams sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stream {
    /// The name, which is its path.
    pub name: String,
    /// The media type of all that is in it.
    pub content_type: String,
    /// The offset behind its last record: `Stream-Next-Offset`.
    #[schema(pattern = "^[0-9]{16}_[0-9]{16}$")]
    pub next_offset: String,
    /// Whether nothing is appended to it any more.
    pub closed: bool,
    /// How long after its last use it ends by itself: a time in its largest unit that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,13}(d|h|m|s|ms)$")]
    pub ttl: Option<String>,
    /// When it ends by itself, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
}
