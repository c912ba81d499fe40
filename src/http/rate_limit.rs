//! The headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): what is limited and what is
//! left of it, on answers to callers whose tenant or key has quotas. Nothing is told where nothing is limited.

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use plinth_api::quotas::Quota;

use crate::auth::Account;
use crate::broker::{Left, Meters};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// Tells what is limited of an account and what is left; nothing without one.
pub(super) fn tell(account: Option<&Account>, headers: &mut HeaderMap) {
    if let Some(meters) = account.map(Account::meters).filter(Meters::are_limited) {
        write(meters, headers);
    }
}

fn write(meters: Meters<'_>, headers: &mut HeaderMap) {
    let (mut policy, mut left) = (String::with_capacity(256), String::with_capacity(256));
    for one in meters.left() {
        push(&mut policy, &mut left, &one);
    }
    for (name, text) in [(POLICY, policy), (LEFT, left)] {
        if !text.is_empty() {
            headers.insert(name, HeaderValue::try_from(text).expect("names and numbers are visible ASCII"));
        }
    }
}

fn push(policy: &mut String, left: &mut String, one: &Left) {
    let separator = if policy.is_empty() { "" } else { ", " };
    let (whose, quota) = (one.whose.prefix(), one.quota.as_str());
    let (limit, remaining) = (one.limit.min(INTEGER_MAX), one.remaining.min(INTEGER_MAX));
    let unit = unit(one.quota);
    let window = if one.quota.is_rate() { ";w=1" } else { "" };
    write!(policy, "{separator}\"{whose}{quota}\";q={limit}{unit}{window}").expect("a string takes all");
    write!(left, "{separator}\"{whose}{quota}\";r={remaining}").expect("a string takes all");
    if let Some(full_in) = one.full_in {
        let seconds = full_in.as_secs() + u64::from(full_in.subsec_nanos() > 0);
        write!(left, ";t={}", seconds.min(INTEGER_MAX)).expect("a string takes all");
    }
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
    use crate::broker::Meter;

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
        let (tenant, key) = (Arc::new(Meter::new(&of_tenant)), Arc::new(Meter::new(&of_key)));
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
