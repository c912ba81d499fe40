//! Revocations of tokens: what a tenant says is good no more before its time.

use bytes::Bytes;
use plinth_storage::ids::TenantId;
use serde::{Deserialize, Serialize};

/// What the revocations of a tenant begin with.
pub(crate) fn revocations(tenant: TenantId) -> Bytes {
    Bytes::from(format!("revocation/{}/", tenant.0))
}

/// A revocation, by tenant and id.
pub(crate) fn revocation(tenant: TenantId, id: &str) -> Bytes {
    Bytes::from(format!("revocation/{}/{id}", tenant.0))
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevocationDoc {
    pub(crate) v: u32,
    pub(crate) of: RevokedDoc,
    /// Tokens that were issued before it.
    pub(crate) issued_before: u64,
    pub(crate) created_at: u64,
    /// From then on no such token can be good.
    pub(crate) ends_at: u64,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RevokedDoc {
    /// An API key, which is deleted, with the tokens that it minted.
    Key(String),
    /// The token with this id.
    Token(String),
    /// All tokens of this subject.
    Subject(String),
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    /// A document as the first version wrote it. Later builds read these bytes; never change them.
    #[test]
    fn a_revocation_of_version_1_is_read() {
        let text = r#"{"v":1,"of":{"subject":"u-7"},"issued_before":5,"created_at":6,"ends_at":7}"#;
        let doc: RevocationDoc = decode(b"r", text.as_bytes()).expect("a revocation");
        assert_eq!((&doc.of, encode(&doc)), (&RevokedDoc::Subject("u-7".into()), Bytes::from(text)));
    }
}
