//! API keys and one-time tickets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// The last four characters of the key.
    pub last_four: String,
}

/// A key that was just made; `key` is shown this once.
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
