//! Revocations of tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What `POST /v1/revocations` asks for: one of `key_id`, `token_id` and `subject`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationRequest {
    /// An API key: it is deleted, and the tokens that it minted end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub key_id: Option<String>,
    /// A token, by its `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub token_id: Option<String>,
    /// The tokens of a subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub subject: Option<String>,
    /// With `subject`: those that were issued before this time (RFC 3339), not after now; default now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub issued_before: Option<String>,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    /// Its id, the same for the same thing.
    pub id: String,
    /// The API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of a subject: its tokens that were issued before this time, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<u64>,
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
    /// When it is forgotten, because no such token can be good any more, ms since the Unix epoch.
    pub expires_at: u64,
}
