//! Tenants: who is isolated, limited and billed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// The name.
    pub name: String,
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
}
