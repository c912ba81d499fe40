//! The documents of streams: what a topic is as one, and when one that ends by itself was last used.

use bytes::Bytes;
use plinth_storage::Log;
use plinth_storage::ids::{TenantId, TopicId};
use plinth_storage::log::DocOp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{VERSION, decode, encode};
use crate::broker::error::Error;

/// Streams that end by themselves begin with this.
pub(crate) const STREAM_TTLS: &[u8] = b"stream-ttl/";

/// What is known of topics that were deleted begins with this.
const TOPICS_DELETED: &[u8] = b"topic-deleted/";
/// At most so many documents are kept of them.
const TOPICS_DELETED_MAX: usize = 1024;

/// What those of a tenant begin with.
pub(crate) fn stream_ttls(tenant: TenantId) -> Bytes {
    Bytes::from(format!("stream-ttl/{}/", tenant.0))
}

/// A stream that ends by itself.
pub(crate) fn stream_ttl(tenant: TenantId, topic: TopicId) -> Bytes {
    Bytes::from(format!("stream-ttl/{}/{}", tenant.0, topic.0))
}

/// The tenant and the topic of such a key.
pub(crate) fn of_stream_ttl(key: &[u8]) -> Option<(TenantId, TopicId)> {
    let (tenant, topic) = std::str::from_utf8(key.strip_prefix(STREAM_TTLS)?).ok()?.split_once('/')?;
    Some((TenantId(tenant.parse().ok()?), TopicId(topic.parse().ok()?)))
}

/// The newest creation among the topics that were deleted.
///
/// # Errors
/// Those of the log.
pub(crate) fn newest_deleted(log: &Log) -> Result<u64, Error> {
    let mut newest = 0;
    for (key, stored) in log.scan(TOPICS_DELETED, None, TOPICS_DELETED_MAX)? {
        newest = newest.max(decode::<TopicsDeletedDoc>(&key, &stored)?.created_at);
    }
    Ok(newest)
}

/// Stores it for the topics whose changes run in one of several places.
pub(crate) fn put_newest_deleted(place: usize, created_at: u64) -> DocOp {
    let key = Bytes::from([TOPICS_DELETED, place.to_string().as_bytes()].concat());
    DocOp::Put(key, encode(&TopicsDeletedDoc { v: VERSION, created_at }))
}

/// What a topic is as a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamDoc {
    /// The media type of all of it, as it was given.
    pub(crate) content_type: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expiry: Option<ExpiryDoc>,
    /// Of a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fork: Option<ForkDoc>,
}

/// What a stream is a fork of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForkDoc {
    /// The name of the source.
    pub(crate) source: String,
    /// Its topic.
    pub(crate) source_id: Ulid,
    /// Where it was left: an offset of its own, as it was given, or the one that it had.
    pub(crate) anchor: String,
    /// So many bytes or messages behind that.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(crate) sub: u64,
    /// Whether it ends by itself as it does because the source did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ends_as_source: bool,
    /// How many forks there are from it to a stream that is none, itself with them.
    pub(crate) depth: u32,
    /// The tags of those that gave offsets first which it shares, each with the last of them.
    pub(crate) tags: Vec<(u64, u64)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

/// When a stream ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpiryDoc {
    /// So many seconds after its last use.
    TtlS(u64),
    /// At a time.
    At {
        /// As it was given.
        text: String,
        /// In ms since the Unix epoch.
        ms: u64,
    },
}

/// When a stream that ends by itself was last used, as far as that is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StreamTtlDoc {
    pub(crate) v: u32,
    /// The name of its topic.
    pub(crate) name: String,
    /// The last use besides appends.
    pub(crate) used_at: u64,
}

/// The newest creation among some of the topics that were deleted: which, is all that tells the offsets of two topics of one
/// name apart.
#[derive(Debug, Serialize, Deserialize)]
struct TopicsDeletedDoc {
    v: u32,
    created_at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_stream_that_ends_names_its_tenant_and_topic() {
        let (tenant, topic) = (TenantId(Ulid::from_parts(1, 2)), TopicId(Ulid::from_parts(3, 4)));
        let key = stream_ttl(tenant, topic);
        assert!(key.starts_with(&stream_ttls(tenant)));
        assert_eq!(of_stream_ttl(&key), Some((tenant, topic)));
        assert_eq!(of_stream_ttl(b"stream-ttl/x/y"), None);
    }

    /// As the first version wrote them. Later builds read these bytes; never change them.
    #[test]
    fn documents_of_version_1_are_read() {
        let forms = [
            (r#"{"content_type":"a/b","expiry":{"ttl_s":9}}"#, ExpiryDoc::TtlS(9)),
            (
                r#"{"content_type":"a/b","expiry":{"at":{"text":"2026-01-01T00:00:00Z","ms":1767225600000}}}"#,
                ExpiryDoc::At { text: "2026-01-01T00:00:00Z".into(), ms: 1_767_225_600_000 },
            ),
        ];
        for (text, expiry) in forms {
            let read: StreamDoc = serde_json::from_str(text).expect("a stream");
            assert_eq!(read, StreamDoc { content_type: "a/b".into(), expiry: Some(expiry), fork: None });
            assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        }
        let ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        for (more, sub) in [("", 0), (r#""sub":4,"ends_as_source":true,"#, 4)] {
            let text = format!(
                r#"{{"content_type":"a/b","fork":{{"source":"s","source_id":"{ulid}","anchor":"x",{more}"depth":1,"tags":[[7,9]]}}}}"#
            );
            let read: StreamDoc = serde_json::from_str(&text).expect("a fork");
            assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
            let fork = read.fork.expect("a fork");
            assert_eq!((fork.sub, fork.ends_as_source, fork.tags), (sub, sub > 0, vec![(7, 9)]));
        }
        let text = r#"{"v":1,"name":"s","used_at":7}"#;
        let read: StreamTtlDoc = serde_json::from_str(text).expect("a use");
        assert_eq!((read.used_at, serde_json::to_string(&read).expect("JSON").as_str()), (7, text));
        let DocOp::Put(key, deleted) = put_newest_deleted(255, 7) else { panic!("it is put") };
        assert_eq!((&key[..], &deleted[..]), (&b"topic-deleted/255"[..], &br#"{"v":1,"created_at":7}"#[..]));
    }
}
