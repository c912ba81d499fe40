//! Tokens that the cluster mints, and why a credential may or may not do a thing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A scope in which `{claim}` stands for the value of a claim: `subscribe:users/{sub}/**`.
#[derive(Debug, ToSchema)]
#[schema(
    max_length = 255,
    pattern = r"^(publish|subscribe|manage):(?!.*(\.\.|//|/$|\*{3}))([A-Za-z0-9~*-]|\{[A-Za-z0-9_:-]{1,64}\})([A-Za-z0-9._~*/-]|\{[A-Za-z0-9_:-]{1,64}\})*$"
)]
pub struct ScopeTemplate(pub String);

/// What `POST /v1/tokens` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What the token may do: each within one scope of the caller, and not `admin`. `{sub}` stands for the subject.
    #[schema(value_type = Vec<ScopeTemplate>, min_items = 1, max_items = 100)]
    pub scopes: Vec<String>,
    /// How long it lives, `1s` to `1d`; default `1h`. It does not outlive the caller's credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[1-9][0-9]{0,4}(s|m|h|d)$")]
    pub ttl: Option<String>,
    /// Who is to hold it, 1 to 255 bytes; default the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub subject: Option<String>,
}

/// A token that was just minted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// A JWT for `Authorization: Bearer`.
    pub token: String,
    /// When it ends, ms since the Unix epoch.
    pub expires_at: u64,
}

/// Never shows the token.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What a credential can be asked to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopicAction {
    /// Store records.
    Publish,
    /// Read and follow records.
    Subscribe,
    /// Create, change, delete.
    Manage,
    /// See that it exists and its settings.
    View,
}

/// What kind of credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// The root key, inside a tenant.
    Root,
    /// An API key.
    Key,
    /// A token.
    Token,
}

/// Who the caller is, and whether something is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What kind of credential it is.
    pub kind: CredentialKind,
    /// The tenant.
    pub tenant: String,
    /// The API key, or the one that minted the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The name of the trusted issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The subject of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The id (`jti`) of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// When the token was issued, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    /// When the credential ends, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// What it may do; empty for the root key, which may do everything.
    pub scopes: Vec<String>,
    /// The answer to what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// Whether something is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// What was asked for.
    pub action: TopicAction,
    /// The topic or pattern.
    pub topic: String,
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, in a sentence.
    pub reason: String,
}
