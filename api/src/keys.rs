//! API keys and one-time tickets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::object;
use crate::quotas::Quotas;

/// What a key may do: `admin`, or an action on the topics whose names fit a pattern.
#[derive(Debug, ToSchema)]
#[schema(pattern = r"^(admin|(publish|subscribe|manage):(?!.*(\.\.|//|/$|\*{3}))[A-Za-z0-9~*-][A-Za-z0-9._~*/-]*)$")]
pub struct Scope(pub String);

/// What `POST /v1/keys` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// A name for people, at most 255 bytes.
    #[serde(default)]
    #[schema(max_length = 255)]
    pub name: String,
    /// What the key may do: `publish:<pattern>`, `subscribe:<pattern>`, `manage:<pattern>`, `admin`.
    #[schema(value_type = Vec<Scope>, min_items = 1, max_items = 100)]
    pub scopes: Vec<String>,
    /// How long it lives, such as `"30d"`; without it the key has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[1-9][0-9]{0,5}(s|m|h|d)$")]
    pub expires_in: Option<String>,
    /// What it may use at most, within what its tenant may; not `topics` and `storage_bytes`. Default nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub quotas: Option<Quotas>,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// The id, also the part of the key after `plk_`.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
    /// When it ends, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// What it may use at most, within what its tenant may.
    #[serde(default)]
    pub quotas: Quotas,
    /// The last four characters of the key.
    pub last_four: String,
    /// When it got the secret that it has, if that is not its first, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<u64>,
    /// Until when secrets before that one are accepted, too, if they are, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<u64>,
    /// When it was last used, to the minute, ms since the Unix epoch. An open connection is a use. After a crash of the node
    /// the last minute is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<u64>,
}

/// What `PATCH /v1/keys/{id}` changes; what is left out stays. Scopes and the end of a key do not change: make another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPatch {
    /// A name for people, at most 255 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub name: Option<String>,
    /// Takes the place of all quotas before. A connection that was opened while the key had none takes them over when it is opened
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub quotas: Option<Quotas>,
}

/// What `POST /v1/keys/{id}/rotate` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// How long the secret before is accepted, too, such as `"1h"`, at most 30 days. Without it all secrets before end at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h|[12]?[0-9]d|30d)$")]
    pub overlap: Option<String>,
}

/// A key that was just made, or has a new secret; `key` is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewKey {
    /// The key as it goes into `Authorization: Bearer`.
    pub key: String,
    /// What is stored about it.
    #[serde(flatten)]
    pub about: Key,
}

/// What `POST /v1/tickets` asks for: there is nothing to choose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {}

/// A one-time ticket for `?ticket=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ticket {
    /// Good for one connection, and for the browser that opened it to come back.
    pub ticket: String,
    /// When it ends, ms since the Unix epoch.
    pub expires_at: u64,
}
