//! Trusted issuers of tokens: the documents of a tenant, and the index by which a token finds its own.

use bytes::Bytes;
use plinth_storage::ids::TenantId;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::auth::Jwk;

/// What all issuers begin with.
pub(crate) const ISSUERS: &[u8] = b"issuer/";

/// What the issuers of a tenant begin with.
pub(crate) fn issuers(tenant: TenantId) -> Bytes {
    Bytes::from(format!("issuer/{}/", tenant.0))
}

/// An issuer, by tenant and name.
pub(crate) fn issuer(tenant: TenantId, name: &str) -> Bytes {
    Bytes::from(format!("issuer/{}/{name}", tenant.0))
}

/// Whose the tokens of `issuer` for `audience` are: there is one tenant for each pair in the cluster.
pub(crate) fn issuer_claim(issuer: &str, audience: &str) -> Bytes {
    let mut hasher = blake3::Hasher::new();
    for part in [issuer, audience] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    Bytes::from(format!("issuer-claim/{}", hasher.finalize().to_hex()))
}

/// An issuer that a tenant trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuerDoc {
    pub(crate) v: u32,
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) algorithms: Vec<String>,
    pub(crate) keys: IssuerKeysDoc,
    pub(crate) scope_claim: String,
    pub(crate) subject_claim: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) default_scopes: Vec<String>,
    pub(crate) lifetime_ms_max: u64,
    pub(crate) leeway_ms: u64,
    pub(crate) created_at: u64,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IssuerKeysDoc {
    /// Here.
    Given(Vec<Jwk>),
    /// A secret, sealed.
    Sealed(String),
    /// At this address.
    Published(String),
}

/// The issuer that a pair of `iss` and `aud` belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IssuerClaimDoc {
    pub(crate) v: u32,
    pub(crate) tenant: Ulid,
    pub(crate) name: String,
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    /// A document as the first version wrote it. Later builds read these bytes; never change them.
    #[test]
    fn an_issuer_of_version_1_is_read() {
        let text = r#"{"v":1,"issuer":"https://id.example","audiences":["plinth:a"],"algorithms":["ES256"],"keys":{"given":[{"kty":"EC","kid":"1","crv":"P-256","x":"AA","y":"AA"}]},"scope_claim":"scope","subject_claim":"sub","default_scopes":["subscribe:users/{sub}/**"],"lifetime_ms_max":86400000,"leeway_ms":30000,"created_at":7}"#;
        let doc: IssuerDoc = decode(b"i", text.as_bytes()).expect("an issuer");
        assert_eq!((doc.issuer.as_str(), encode(&doc)), ("https://id.example", Bytes::from(text)));
        let text = r#"{"v":1,"tenant":"01ARZ3NDEKTSV4RRFFQ69G5FAV","name":"id"}"#;
        let doc: IssuerClaimDoc = decode(b"c", text.as_bytes()).expect("a claim");
        assert_eq!((doc.name.as_str(), encode(&doc)), ("id", Bytes::from(text)));
    }

    #[test]
    fn a_pair_is_not_taken_for_another_one_with_the_same_letters() {
        assert_ne!(issuer_claim("ab", "c"), issuer_claim("a", "bc"));
    }
}
