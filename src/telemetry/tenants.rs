//! What tenants use, as metrics. A page of their own, because it names tenants: the operator's, and bounded in number.

use std::cmp::Reverse;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Name;
use crate::broker::UsageFigures;

/// Most tenants with series of their own.
const TENANTS_MAX: usize = 100;
/// The name that all others are added up by; no tenant can have it.
const OTHER: &str = "_other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTenant {
    tenant: String,
}

/// One metric: its name, and which of the figures it shows.
type Shown = (Name, fn(&UsageFigures) -> u64);

const COUNTERS: [Shown; 5] = [
    (Name::TenantRequests, |used| used.requests),
    (Name::TenantRecordsPublished, |used| used.records_published),
    (Name::TenantBytesPublished, |used| used.bytes_published),
    (Name::TenantRecordsDelivered, |used| used.records_delivered),
    (Name::TenantBytesDelivered, |used| used.bytes_delivered),
];
const GAUGES: [Shown; 2] =
    [(Name::TenantConnections, |used| used.connections), (Name::TenantFollowers, |used| used.followers)];

/// The metrics of tenants, as OpenMetrics text.
#[must_use]
pub fn text(mut used: Vec<(&str, UsageFigures)>) -> String {
    used.sort_by_key(|(name, used)| {
        (Reverse(used.bytes_published + used.bytes_delivered), Reverse(used.requests), *name)
    });
    let mut registry = Registry::default();
    for (name, figure) in COUNTERS {
        let family = Family::<ByTenant, Counter>::default();
        for (tenant, used) in labelled(&used) {
            family.get_or_create(&tenant).inc_by(figure(used));
        }
        registry.register(name.as_str(), name.help(), family);
    }
    for (name, figure) in GAUGES {
        let family = Family::<ByTenant, Gauge>::default();
        for (tenant, used) in labelled(&used) {
            family.get_or_create(&tenant).inc_by(i64::try_from(figure(used)).unwrap_or(i64::MAX));
        }
        registry.register(name.as_str(), name.help(), family);
    }
    let mut text = String::with_capacity(16 * 1024);
    text::encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

fn labelled<'a>(used: &'a [(&str, UsageFigures)]) -> impl Iterator<Item = (ByTenant, &'a UsageFigures)> {
    used.iter().enumerate().map(|(place, (name, used))| {
        let tenant = if place < TENANTS_MAX { name } else { OTHER };
        (ByTenant { tenant: tenant.to_owned() }, used)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_bound_are_added_up() {
        let names: Vec<String> = (0..TENANTS_MAX + 50).map(|number| format!("t{number:03}")).collect();
        let figures = |number: usize| UsageFigures {
            bytes_published: 1_000 - number as u64,
            requests: 1,
            ..UsageFigures::default()
        };
        let used = names.iter().enumerate().map(|(number, name)| (name.as_str(), figures(number))).collect();
        let text = text(used);
        assert!(text.contains("plinth_tenant_published_bytes_total{tenant=\"t000\"} 1000\n"), "{text}");
        assert!(text.contains("plinth_tenant_requests_total{tenant=\"_other\"} 50\n"), "{text}");
        assert!(!text.contains("t100"), "{text}");
        assert_eq!(text.matches("plinth_tenant_requests_total{").count(), TENANTS_MAX + 1);
    }
}
