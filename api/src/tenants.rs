//! Tenants: who is isolated, limited and billed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::object;
use crate::quotas::Quotas;

/// The name of a tenant: 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
pub struct TenantName(pub String);

/// What `POST /v1/tenants` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit.
    #[schema(value_type = TenantName)]
    pub name: String,
    /// What it may use at most. Default nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub quotas: Option<Quotas>,
    /// The pages whose scripts may use the API with a credential of the tenant. Default none but the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<AllowedOrigin>>, max_items = 100)]
    pub allowed_origins: Option<Vec<String>>,
}

/// What `PATCH /v1/tenants/{tenant}` changes; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantPatch {
    /// Whether its credentials are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
    /// Takes the place of all quotas before.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub quotas: Option<Quotas>,
    /// Takes the place of all origins before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<AllowedOrigin>>, max_items = 100)]
    pub allowed_origins: Option<Vec<String>>,
}

/// An origin as browsers send it, `https://app.example.com`, with the port where it is not the scheme's own; or `*` for every
/// page.
#[derive(Debug, ToSchema)]
#[schema(max_length = 255, pattern = r"^(\*|https?://[a-z0-9.\[\]:-]+)$")]
pub struct AllowedOrigin(pub String);

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// The name.
    pub name: String,
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
    /// When it was suspended, ms since the Unix epoch; its credentials are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<u64>,
    /// What it may use at most.
    #[serde(default)]
    pub quotas: Quotas,
    /// The pages whose scripts may use the API with a credential of the tenant.
    #[serde(default)]
    pub allowed_origins: Vec<String>,
}
