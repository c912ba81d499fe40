//! Trusted issuers of tokens (JWT).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The name of an issuer in its tenant: 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
pub struct IssuerName(pub String);

/// The algorithms of signatures that are offered. Those with a secret (HS) and those with a public key are not of one
/// issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    RS512,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// A JSON Web Key Set (RFC 7517). Further members of keys are allowed and not kept; those of private keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JsonWebKeySet {
    /// At most 100 keys; each of several needs its `kid`.
    #[schema(value_type = Vec<JsonWebKey>, max_items = 100)]
    pub keys: Vec<Value>,
}

/// A public key: RSA of 2,048 to 8,192 bits, EC on P-256 or P-384, or Ed25519.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JsonWebKey {
    /// `RSA`, `EC` or `OKP`.
    pub kty: String,
    /// Its id, at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub kid: Option<String>,
    /// What it is for: `sig`.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// The only algorithm that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TokenAlgorithm>)]
    pub alg: Option<String>,
    /// The curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The modulus of an RSA key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// The exponent of an RSA key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// A coordinate of an EC key, or an Ed25519 key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The other coordinate of an EC key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
}

/// What `PUT /v1/issuers/{name}` asks for.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerRequest {
    /// The `iss` of its tokens, 1 to 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024)]
    pub issuer: String,
    /// The audiences of which a token must have one; default `["plinth:<tenant>"]`. Others than that and those that begin
    /// with `plinth:<tenant>/` need the root key. A pair of issuer and audience belongs to one tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may have.
    #[schema(value_type = Vec<TokenAlgorithm>, min_items = 1)]
    pub algorithms: Vec<String>,
    /// Its public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JsonWebKeySet>,
    /// Where it publishes its keys, a URL with `https://` of a public host. They are fetched when they are needed, at most every
    /// 30 s, and count for 10 minutes; for an hour while newer ones cannot be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub jwks_url: Option<String>,
    /// Its secret, for HS256 (at least 32 bytes), HS384 (48) and HS512 (64). Kept sealed and never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 32, max_length = 1024)]
    pub secret: Option<String>,
    /// The claim with the scopes, a text with spaces or a list; default `scope`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_claim: Option<String>,
    /// The claim with the subject; default `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_claim: Option<String>,
    /// The scopes of a token without that claim. `{name}` stands for a claim: `subscribe:users/{sub}/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub default_scopes: Vec<String>,
    /// The longest life of its tokens, from `iat` to `exp`: `1m` to `7d`; default `1d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<String>,
    /// By how much its clock may be wrong, at most `30s`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leeway: Option<String>,
}

/// Never shows the secret.
impl std::fmt::Debug for IssuerRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerRequest").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// A trusted issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Issuer {
    /// Its name in the tenant.
    pub name: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The audiences of which a token must have one.
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may have.
    pub algorithms: Vec<String>,
    /// Its public keys, if they were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JsonWebKeySet>,
    /// Where it publishes its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Whether it has a secret, which is not shown.
    pub has_secret: bool,
    /// The claim with the scopes.
    pub scope_claim: String,
    /// The claim with the subject.
    pub subject_claim: String,
    /// The scopes of a token without that claim.
    pub default_scopes: Vec<String>,
    /// The longest life of its tokens, such as `1day`.
    pub max_lifetime: String,
    /// By how much its clock may be wrong.
    pub leeway: String,
    /// When it was first trusted, ms since the Unix epoch.
    pub created_at: u64,
}
