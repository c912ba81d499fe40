//! The documents of tenants, keys and topics as they are stored: their keys, their JSON, and how they are read.
//!
//! The only place that spells these keys. A document carries the version of its form; every later build reads the older
//! ones. Of keys only a hash is stored, and a secret that is needed again is sealed.

use std::num::NonZeroU64;

use bytes::Bytes;
use plinth_api::quotas::Quotas;
use plinth_storage::ids::{TenantId, Timestamp, TopicId};
use plinth_storage::log::Retention;
use plinth_storage::{Cleanup, Durability, Log};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

mod issuer;
mod revocation;
mod stream;
mod wake;

pub(crate) use self::issuer::{ISSUERS, IssuerClaimDoc, IssuerDoc, IssuerKeysDoc, issuer, issuer_claim, issuers};
pub(crate) use self::revocation::{RevocationDoc, RevokedDoc, revocation, revocations};
pub(crate) use self::stream::{
    ExpiryDoc, ForkDoc, STREAM_TTLS, StreamDoc, StreamTtlDoc, newest_deleted, of_stream_ttl, put_newest_deleted,
    stream_ttl, stream_ttls,
};
pub(crate) use self::wake::{
    WAKES, WakeBy, WakeDoc, WakeLinkDoc, WakePhase, WakeUnderWay, of_wake, wake, wake_link, wake_links, wake_links_of,
    wakes,
};
use super::error::Error;

/// The version of every document's form that this build writes.
pub(crate) const VERSION: u32 = 1;

/// Set once, by the first start on an empty store.
pub(crate) const FIRST_START: &[u8] = b"cluster/first-start";
/// The hash of the root key, when the server made it.
pub(crate) const ROOT_KEY: &[u8] = b"cluster/root-key";
/// The key of the MAC in cursors.
pub(crate) const CURSOR_KEY: &[u8] = b"cluster/cursor-key";
/// The tenant of what belongs to no other.
pub(crate) const SYSTEM_TENANT: &[u8] = b"cluster/system-tenant";
/// Names of tenants begin with this.
pub(crate) const TENANT_NAMES: &[u8] = b"tenant-name/";
/// Tenants whose deletion has begun begin with this.
pub(crate) const TENANTS_ENDING: &[u8] = b"tenant-ending/";
/// Tenants that are deleted and may still be in the bucket begin with this.
pub(crate) const TENANTS_LEFT: &[u8] = b"tenant-left/";

/// A tenant, by its id. Absent once its deletion has begun.
pub(crate) fn tenant(id: TenantId) -> Bytes {
    Bytes::from(format!("tenant/{}", id.0))
}

/// A tenant's document, by name; it stays until everything of the tenant is deleted.
pub(crate) fn tenant_name(name: &str) -> Bytes {
    Bytes::from([TENANT_NAMES, name.as_bytes()].concat())
}

/// A tenant whose deletion has begun.
pub(crate) fn tenant_ending(id: TenantId) -> Bytes {
    Bytes::from([TENANTS_ENDING, id.0.to_string().as_bytes()].concat())
}

/// A tenant that is deleted and may still be in the bucket. It says nothing of the tenant but its id.
pub(crate) fn tenant_left(id: TenantId) -> Bytes {
    Bytes::from([TENANTS_LEFT, id.0.to_string().as_bytes()].concat())
}

/// An API key, by its id.
pub(crate) fn api_key(id: &str) -> Bytes {
    Bytes::from(format!("key/{id}"))
}

/// What the index entries of a tenant's keys begin with.
pub(crate) fn tenant_api_keys(tenant: TenantId) -> Bytes {
    Bytes::from(format!("tenant-key/{}/", tenant.0))
}

/// The index entry of one key of a tenant.
pub(crate) fn tenant_api_key(tenant: TenantId, id: &str) -> Bytes {
    Bytes::from(format!("tenant-key/{}/{id}", tenant.0))
}

/// When a key of a tenant was last used.
pub(crate) fn key_use(tenant: TenantId, id: &str) -> Bytes {
    Bytes::from(format!("key-use/{}/{id}", tenant.0))
}

/// What the topics of a tenant whose names begin with `prefix` begin with.
pub(crate) fn topics(tenant: TenantId, prefix: &str) -> Bytes {
    Bytes::from(format!("topic/{}/{prefix}", tenant.0))
}

/// A topic, by tenant and name.
pub(crate) fn topic(tenant: TenantId, name: &str) -> Bytes {
    topics(tenant, name)
}

/// The hash of the root key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootKeyDoc {
    pub(crate) v: u32,
    pub(crate) sha256: [u8; 32],
}

/// The key of the MAC in cursors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CursorKeyDoc {
    pub(crate) v: u32,
    pub(crate) key: [u8; 32],
}

/// A tenant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TenantDoc {
    pub(crate) v: u32,
    pub(crate) id: Ulid,
    pub(crate) name: String,
    pub(crate) created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) suspended_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Quotas::is_empty")]
    pub(crate) quotas: Quotas,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed_origins: Vec<String>,
}

/// An API key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ApiKeyDoc {
    pub(crate) v: u32,
    pub(crate) tenant: Ulid,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<u64>,
    pub(crate) sha256: [u8; 32],
    pub(crate) last_four: String,
    #[serde(default, skip_serializing_if = "Quotas::is_empty")]
    pub(crate) quotas: Quotas,
    /// How often it got a new secret.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(crate) rotations: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotated_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) previous: Vec<PreviousSecretDoc>,
}

/// A secret that a key has had and that is accepted for some time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PreviousSecretDoc {
    pub(crate) sha256: [u8; 32],
    /// How many the key had had before it.
    pub(crate) rotations: u32,
    pub(crate) ends_at: u64,
}

/// When an API key was last used.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyUseDoc {
    pub(crate) v: u32,
    pub(crate) at: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

/// A topic.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TopicDoc {
    pub(crate) v: u32,
    pub(crate) id: Ulid,
    pub(crate) partitions: u32,
    pub(crate) max_record_bytes: u32,
    #[serde(default, skip_serializing_if = "RetentionDoc::is_everything")]
    pub(crate) retention: RetentionDoc,
    pub(crate) created_at: u64,
    #[serde(default, skip_serializing_if = "class::is_object", with = "class")]
    pub(crate) durability: Durability,
    #[serde(default, skip_serializing_if = "CleanupDoc::is_delete")]
    pub(crate) cleanup: CleanupDoc,
    /// Of a topic that was made as a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<StreamDoc>,
    /// Of one that was deleted and whose records are kept for its forks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<u64>,
}

/// What happens to records besides retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CleanupDoc {
    #[default]
    Delete,
    Compact,
}

impl CleanupDoc {
    fn is_delete(&self) -> bool {
        *self == Self::Delete
    }
}

impl From<Cleanup> for CleanupDoc {
    fn from(cleanup: Cleanup) -> Self {
        match cleanup {
            Cleanup::Delete => Self::Delete,
            Cleanup::Compact => Self::Compact,
        }
    }
}

impl From<CleanupDoc> for Cleanup {
    fn from(cleanup: CleanupDoc) -> Self {
        match cleanup {
            CleanupDoc::Delete => Self::Delete,
            CleanupDoc::Compact => Self::Compact,
        }
    }
}

/// A durability class is stored by its name.
mod class {
    use plinth_storage::Durability;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn is_object(class: &Durability) -> bool {
        *class == Durability::Object
    }

    pub(super) fn serialize<S: Serializer>(class: &Durability, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(class.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Durability, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(|()| D::Error::custom(format!("{name:?} is no durability class")))
    }
}

/// How much of a topic is kept.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RetentionDoc {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) age_ms: Option<NonZeroU64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<NonZeroU64>,
}

impl TenantDoc {
    pub(crate) fn id(&self) -> TenantId {
        TenantId(self.id)
    }

    pub(crate) fn created_at(&self) -> Timestamp {
        Timestamp(self.created_at)
    }
}

impl TopicDoc {
    pub(crate) fn id(&self) -> TopicId {
        TopicId(self.id)
    }
}

impl RetentionDoc {
    pub(crate) fn of(retention: Retention) -> Self {
        Self { age_ms: retention.age_ms, bytes: retention.bytes }
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention { age_ms: self.age_ms, bytes: self.bytes }
    }

    fn is_everything(&self) -> bool {
        self.retention() == Retention::default()
    }
}

/// The bytes that a document is stored as.
pub(crate) fn encode(document: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(document).expect("documents have only strings, numbers and lists"))
}

/// Reads the document stored under `key`, if there is one.
///
/// # Errors
/// `Internal` when it does not have its form; those of the log.
pub(crate) fn load<T: DeserializeOwned>(log: &Log, key: &[u8]) -> Result<Option<T>, Error> {
    match log.get(key)? {
        Some(stored) => decode(key, &stored).map(Some),
        None => Ok(None),
    }
}

/// Reads the document stored under `key`, if there is one, and gives its bytes too.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_stored<T: DeserializeOwned>(log: &Log, key: &[u8]) -> Result<Option<(T, Bytes)>, Error> {
    match log.get(key)? {
        Some(stored) => Ok(Some((decode(key, &stored)?, stored))),
        None => Ok(None),
    }
}

/// Reads a stored document.
///
/// # Errors
/// `Internal` when it does not have its form.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], stored: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(stored).map_err(|source| Error::Internal {
        detail: format!("document {} does not have its form", String::from_utf8_lossy(key)),
        source: Some(Box::new(source)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents as the first version wrote them. Later builds read these bytes; never change them.
    #[test]
    fn documents_of_version_1_are_read() {
        let ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let tenant = format!(r#"{{"v":1,"id":"{ulid}","name":"default","created_at":7}}"#);
        let read: TenantDoc = decode(b"t", tenant.as_bytes()).expect("a tenant");
        assert_eq!((read.name.as_str(), read.created_at, encode(&read)), ("default", 7, Bytes::from(tenant)));
        assert_eq!((read.suspended_at, read.quotas, read.allowed_origins), (None, Quotas::default(), vec![]));
        let tenant = format!(
            r#"{{"v":1,"id":"{ulid}","name":"default","created_at":7,"suspended_at":8,"quotas":{{"topics":5}},"allowed_origins":["https://a.example"]}}"#
        );
        let read: TenantDoc = decode(b"t", tenant.as_bytes()).expect("a tenant with settings");
        assert_eq!((read.suspended_at, read.quotas.topics, encode(&read)), (Some(8), Some(5), Bytes::from(tenant)));
        let sha256 = format!("[{}]", ["7"; 32].join(","));
        let key = format!(
            r#"{{"v":1,"tenant":"{ulid}","name":"n","scopes":["admin"],"created_at":7,"expires_at":9,"sha256":{sha256},"last_four":"abcd"}}"#
        );
        let read: ApiKeyDoc = decode(b"k", key.as_bytes()).expect("a key");
        assert_eq!((read.expires_at, read.rotations, encode(&read)), (Some(9), 0, Bytes::from(key.clone())));
        let rotated = format!(
            r#"{},"quotas":{{"connections":3}},"rotations":2,"rotated_at":8,"previous":[{{"sha256":{sha256},"rotations":1,"ends_at":10}}]}}"#,
            key.trim_end_matches('}')
        );
        let read: ApiKeyDoc = decode(b"k", rotated.as_bytes()).expect("a key that was rotated");
        assert_eq!((read.rotations, read.previous[0].ends_at, read.quotas.connections), (2, 10, Some(3)));
        assert_eq!(encode(&read), Bytes::from(rotated));
        let used = r#"{"v":1,"at":60000}"#;
        let read: KeyUseDoc = decode(b"k", used.as_bytes()).expect("a use");
        assert_eq!((read.at, encode(&read)), (60_000, Bytes::from(used)));
        let topic = format!(r#"{{"v":1,"id":"{ulid}","partitions":4,"max_record_bytes":1024,"created_at":9}}"#);
        let read: TopicDoc = decode(b"t", topic.as_bytes()).expect("a topic");
        assert_eq!((read.partitions, read.max_record_bytes, encode(&read)), (4, 1024, Bytes::from(topic)));
        assert_eq!(read.durability, Durability::Object, "a topic that does not say it");
        let topic = format!(
            r#"{{"v":1,"id":"{ulid}","partitions":4,"max_record_bytes":1024,"created_at":9,"durability":"local"}}"#
        );
        let read: TopicDoc = decode(b"t", topic.as_bytes()).expect("a topic");
        assert_eq!((read.durability, encode(&read)), (Durability::Local, Bytes::from(topic)));
        let topic = format!(
            r#"{{"v":1,"id":"{ulid}","partitions":4,"max_record_bytes":1024,"retention":{{"age_ms":1000}},"created_at":9}}"#
        );
        let read: TopicDoc = decode(b"t", topic.as_bytes()).expect("a topic with a retention");
        assert_eq!(read.retention.retention(), Retention { age_ms: NonZeroU64::new(1000), bytes: None });
        assert_eq!(encode(&read), Bytes::from(topic));
        assert_eq!(read.cleanup, CleanupDoc::Delete, "a topic that does not say it");
        let topic = format!(
            r#"{{"v":1,"id":"{ulid}","partitions":4,"max_record_bytes":1024,"created_at":9,"cleanup":"compact"}}"#
        );
        let read: TopicDoc = decode(b"t", topic.as_bytes()).expect("a topic that is cleaned by key");
        assert_eq!((read.cleanup, encode(&read)), (CleanupDoc::Compact, Bytes::from(topic)));
        assert_eq!(read.stream, None, "a topic that was not made as a stream");
        let topic = format!(
            r#"{{"v":1,"id":"{ulid}","partitions":1,"max_record_bytes":1024,"created_at":9,"stream":{{"content_type":"text/plain"}}}}"#
        );
        let read: TopicDoc = decode(b"t", topic.as_bytes()).expect("a stream");
        assert_eq!((read.stream.is_some(), encode(&read)), (true, Bytes::from(topic)));
        assert_eq!(read.deleted_at, None, "a topic that is there");
        let topic =
            format!(r#"{{"v":1,"id":"{ulid}","partitions":1,"max_record_bytes":1024,"created_at":9,"deleted_at":10}}"#);
        let read: TopicDoc = decode(b"t", topic.as_bytes()).expect("a topic that was deleted");
        assert_eq!((read.deleted_at, encode(&read)), (Some(10), Bytes::from(topic)));
    }

    #[test]
    fn a_document_of_another_form_is_named_in_the_error() {
        let refused = decode::<TopicDoc>(b"topic/x", b"{}").expect_err("no field");
        assert_eq!(refused.to_string(), "document topic/x does not have its form");
    }

    #[test]
    fn no_key_of_one_tenant_begins_a_key_of_another() {
        let (a, b) = (TenantId(Ulid::from_parts(1, 1)), TenantId(Ulid::from_parts(1, 2)));
        assert!(!topic(b, "x").starts_with(&topics(a, "")));
        assert!(!tenant_api_key(b, "x").starts_with(&tenant_api_keys(a)));
    }
}
