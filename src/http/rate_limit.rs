//! The headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): what is limited and what is
//! left of it, on answers to callers whose tenant or key has quotas. Nothing is told where nothing is limited.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use plinth_api::quotas::{Quota, Quotas};

use crate::auth::Account;
use crate::broker::{Left, Look, Meters, Whose};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// Room for what is left of the quotas of a tenant or a key, of which each has about 50 bytes.
const LEFT_BYTES: usize = 512;

/// What stands between two of a list.
const SEPARATOR: &str = ", ";

/// Tells what is limited of an account and what is left; nothing without one.
pub(super) fn tell(account: Option<&Account>, headers: &mut HeaderMap) {
    if let Some(account) = account {
        write(account.meters(), headers);
    }
}

fn write(meters: Meters<'_>, headers: &mut HeaderMap) {
    let looks = meters.look();
    let Some(policy) = policy(&looks) else { return };
    let mut left = String::with_capacity(LEFT_BYTES);
    for one in looks.into_iter().flatten().flat_map(Look::left) {
        push_left(&mut left, &one);
    }
    headers.insert(POLICY, value(policy));
    if !left.is_empty() {
        headers.insert(LEFT, value(left.into()));
    }
}

fn value(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).expect("names and numbers are visible ASCII")
}

/// What is limited. Made anew only where both have quotas.
fn policy(looks: &[Option<Look<'_>>; 2]) -> Option<Bytes> {
    let [tenant, key] = looks.each_ref().map(|look| Some(look.as_ref()?.policy(policy_of)));
    let (Some(tenant), Some(key)) = (&tenant, &key) else { return tenant.or(key) };
    let mut both = BytesMut::with_capacity(tenant.len() + SEPARATOR.len() + key.len());
    for part in [tenant, SEPARATOR.as_bytes(), key] {
        both.extend_from_slice(part);
    }
    Some(both.freeze())
}

fn policy_of(whose: Whose, quotas: &Quotas) -> String {
    let mut policy = String::new();
    for (quota, limit) in Quota::ALL.into_iter().filter_map(|quota| Some((quota, quotas.get(quota)?))) {
        push_name(&mut policy, whose, quota);
        push_number(&mut policy, ";q=", limit);
        policy.push_str(unit(quota));
        policy.push_str(if quota.is_rate() { ";w=1" } else { "" });
    }
    policy
}

fn push_left(left: &mut String, one: &Left) {
    push_name(left, one.whose, one.quota);
    push_number(left, ";r=", one.remaining);
    if let Some(full_in) = one.full_in {
        push_number(left, ";t=", full_in.as_secs() + u64::from(full_in.subsec_nanos() > 0));
    }
}

fn push_name(list: &mut String, whose: Whose, quota: Quota) {
    list.push_str(if list.is_empty() { "" } else { SEPARATOR });
    for part in ["\"", whose.prefix(), quota.as_str(), "\""] {
        list.push_str(part);
    }
}

fn push_number(list: &mut String, parameter: &str, number: u64) {
    list.push_str(parameter);
    list.push_str(itoa::Buffer::new().format(number.min(INTEGER_MAX)));
}

/// The parameter that says what is counted; requests are what it is without one. The draft has a name for bytes of bodies
/// and none for the others.
fn unit(quota: Quota) -> &'static str {
    match quota {
        Quota::RequestsPerSecond => "",
        Quota::PublishBytesPerSecond | Quota::DeliveredBytesPerSecond | Quota::StorageBytes => ";qu=\"content-bytes\"",
        Quota::PublishRecordsPerSecond | Quota::DeliveredRecordsPerSecond => ";qu=\"records\"",
        Quota::Connections => ";qu=\"connections\"",
        Quota::Followers => ";qu=\"followers\"",
        Quota::Topics => ";qu=\"topics\"",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plinth_api::quotas::Quotas;

    use super::*;
    use crate::broker::{KeyMeter, Meter};

    fn told(meters: Meters<'_>) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        write(meters, &mut headers);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_limited_is_told_with_what_is_left_and_nothing_else() {
        let of_tenant = Quotas { requests_per_second: Some(10), connections: Some(3), ..Quotas::default() };
        let of_key = Quotas { publish_bytes_per_second: Some(u64::MAX), ..Quotas::default() };
        let (tenant, key) = (Arc::new(Meter::new(&of_tenant)), KeyMeter::new(&of_key));
        let meters = Meters { tenant: &tenant, key: Some(&key) };
        for _ in 0..4 {
            meters.request().unwrap();
        }
        let _open = meters.connection().unwrap();
        let policy = r#""requests_per_second";q=10;w=1, "connections";q=3;qu="connections", "key.publish_bytes_per_second";q=999999999999999;qu="content-bytes";w=1"#;
        let left =
            r#""requests_per_second";r=6;t=1, "connections";r=2, "key.publish_bytes_per_second";r=999999999999999;t=0"#;
        let expected = [("ratelimit-policy", policy), ("ratelimit", left)];
        assert_eq!(told(meters), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        let free = Arc::<Meter>::default();
        assert_eq!(told(Meters { tenant: &free, key: None }), []);
    }
}
