//! The documents of subscriptions of streams: what one is and what its wake is at, and each stream that it is linked with.

use bytes::Bytes;
use plinth_storage::ids::TenantId;
use serde::{Deserialize, Serialize};

/// Subscriptions begin with this.
pub(crate) const WAKES: &[u8] = b"wake/";

/// What those of a tenant begin with.
pub(crate) fn wakes(tenant: TenantId) -> Bytes {
    Bytes::from(format!("wake/{}/", tenant.0))
}

/// A subscription.
pub(crate) fn wake(tenant: TenantId, id: &str) -> Bytes {
    Bytes::from(format!("wake/{}/{id}", tenant.0))
}

/// The tenant and the id of such a key.
pub(crate) fn of_wake(key: &[u8]) -> Option<(TenantId, &str)> {
    let (tenant, id) = std::str::from_utf8(key.strip_prefix(WAKES)?).ok()?.split_once('/')?;
    Some((TenantId(tenant.parse().ok()?), id))
}

/// What the links of all subscriptions of a tenant begin with.
pub(crate) fn wake_links_of(tenant: TenantId) -> Bytes {
    Bytes::from(format!("wake-link/{}/", tenant.0))
}

/// What the links of a subscription begin with; its id has no slash.
pub(crate) fn wake_links(tenant: TenantId, id: &str) -> Bytes {
    Bytes::from(format!("wake-link/{}/{id}/", tenant.0))
}

/// The link of a subscription with a stream.
pub(crate) fn wake_link(tenant: TenantId, id: &str, stream: &str) -> Bytes {
    Bytes::from(format!("wake-link/{}/{id}/{stream}", tenant.0))
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WakeDoc {
    pub(crate) v: u32,
    /// Of the configuration that it was made with, the streams that it named among it.
    pub(crate) hash: String,
    pub(crate) by: WakeBy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pattern: Option<String>,
    pub(crate) lease_ttl_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Where clients reach the streams of the node.
    pub(crate) root: String,
    pub(crate) created_at: u64,
    /// How many streams it is linked with.
    pub(crate) links: u32,
    /// How many wakes there were.
    pub(crate) generation: u64,
    /// The one under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wake: Option<WakeUnderWay>,
}

/// How a subscription wakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WakeBy {
    /// By a request to an address.
    Webhook { url: String },
    /// By an event in a stream, after which workers claim it.
    Pull { stream: String },
}

/// A wake that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WakeUnderWay {
    pub(crate) id: String,
    pub(crate) began_at: u64,
    /// A stream in which there is something.
    pub(crate) stream: String,
    /// Whether something was acknowledged in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) acked: bool,
    pub(crate) phase: WakePhase,
}

/// What a wake is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WakePhase {
    /// The webhook is to be called, and was in vain so often.
    Deliver { at: u64, failures: u32 },
    /// The webhook has taken it and calls back before the end of the lease.
    Accepted { ends_at: u64 },
    /// A worker may claim it.
    Offered,
    /// A worker has claimed it.
    Claimed { holder: String, ends_at: u64 },
}

/// The link of a subscription with a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WakeLinkDoc {
    pub(crate) v: u32,
    /// It was named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) explicit: bool,
    /// The glob matches it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) glob: bool,
    /// The last offset that is done with: a token, or `-1` when nothing is.
    pub(crate) acked: String,
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn the_key_of_a_subscription_names_its_tenant_and_id_and_no_key_begins_another() {
        let tenant = TenantId(Ulid::from_parts(1, 2));
        let key = wake(tenant, "a");
        assert!(key.starts_with(&wakes(tenant)) && key.starts_with(WAKES));
        assert_eq!(of_wake(&key), Some((tenant, "a")));
        assert_eq!(of_wake(b"wake/x/y"), None);
        let link = wake_link(tenant, "a", "b/c");
        assert!(link.starts_with(&wake_links(tenant, "a")) && link.starts_with(&wake_links_of(tenant)));
        assert!(!link.starts_with(WAKES) && !wake_link(tenant, "ab", "c").starts_with(&wake_links(tenant, "a")));
    }

    /// As the first version wrote them. Later builds read these bytes; never change them.
    #[test]
    fn documents_of_version_1_are_read() {
        let phases = [
            (r#"{"deliver":{"at":7,"failures":2}}"#, WakePhase::Deliver { at: 7, failures: 2 }),
            (r#"{"accepted":{"ends_at":8}}"#, WakePhase::Accepted { ends_at: 8 }),
            (r#""offered""#, WakePhase::Offered),
            (r#"{"claimed":{"holder":"w","ends_at":9}}"#, WakePhase::Claimed { holder: "w".into(), ends_at: 9 }),
        ];
        for (phase, expected) in phases {
            let text = format!(
                r#"{{"v":1,"hash":"00","by":{{"webhook":{{"url":"https://a.example"}}}},"pattern":"a/*","lease_ttl_ms":1000,"description":"d","root":"http://h/v1/stream","created_at":5,"links":3,"generation":2,"wake":{{"id":"w_1","began_at":6,"stream":"a/b","acked":true,"phase":{phase}}}}}"#
            );
            let read: WakeDoc = serde_json::from_str(&text).expect("a subscription");
            assert_eq!(read.wake.as_ref().map(|wake| &wake.phase), Some(&expected));
            assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        }
        let text = r#"{"v":1,"hash":"00","by":{"pull":{"stream":"w"}},"lease_ttl_ms":1000,"root":"r","created_at":5,"links":0,"generation":0}"#;
        let read: WakeDoc = serde_json::from_str(text).expect("a subscription");
        assert_eq!((read.wake.is_none(), serde_json::to_string(&read).expect("JSON").as_str()), (true, text));
        for text in [
            r#"{"v":1,"explicit":true,"acked":"-1"}"#,
            r#"{"v":1,"glob":true,"acked":"1764248000123001_2345678901230000"}"#,
        ] {
            let read: WakeLinkDoc = serde_json::from_str(text).expect("a link");
            assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        }
    }
}
