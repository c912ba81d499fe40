//! The metrics of one node.
//!
//! Every metric of the gateway is named here, once, and its labels come from closed lists: routes, statuses, error codes,
//! transports. No label ever holds the name of a tenant, topic or key, so the text is as long after a million of them; `tenants`
//! is a text of its own, with a bound. The
//! log core brings its own metrics, `process` those of the process; they are registered beside these.

pub mod context;
pub mod logs;
mod process;
pub mod tenants;
pub mod traces;
pub mod webhooks;

use std::collections::HashMap;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

pub(crate) use self::process::processor_seconds;
use plinth_api::error::{ErrorCode, Problem};

/// The metrics of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Requests answered.
    HttpRequests,
    /// How long a publish took, from its request to its answer.
    PublishDuration,
    /// Records stored.
    RecordsPublished,
    /// Payload bytes stored.
    BytesPublished,
    /// Records sent to readers.
    RecordsDelivered,
    /// Open connections.
    ConnectionsOpen,
    /// Connections closed unanswered.
    ConnectionsRefused,
    /// Connections that have ended.
    ConnectionsClosed,
    /// WebSocket sessions that have ended.
    WebsocketsClosed,
    /// Live streams and subscriptions.
    FollowersOpen,
    /// Requests and frames that were refused or failed.
    Errors,
    /// Requests and frames that were refused because of a quota.
    QuotasExceeded,
    /// Credentials that were missing or refused.
    AuthenticationFailures,
    /// Reports of browsers that a page has broken its content security policy.
    PolicyReports,
    /// Calls of webhooks.
    WebhookCalls,
    /// Calls of webhooks that had been made before, in vain.
    WebhookRetries,
    /// How long a call of a webhook took.
    WebhookDuration,
    /// Wakes of subscriptions that are under way.
    WakesOpen,
    /// Of a tenant: requests, and frames that ask for something.
    TenantRequests,
    /// Of a tenant: records stored.
    TenantRecordsPublished,
    /// Of a tenant: payload bytes stored.
    TenantBytesPublished,
    /// Of a tenant: records sent to readers.
    TenantRecordsDelivered,
    /// Of a tenant: their bytes, as they are stored.
    TenantBytesDelivered,
    /// Of a tenant: open connections.
    TenantConnections,
    /// Of a tenant: live streams and subscriptions.
    TenantFollowers,
}

impl Name {
    /// The name as it is shown; counters get `_total` on top.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpRequests => "plinth_http_requests",
            Self::PublishDuration => "plinth_publish_duration_seconds",
            Self::RecordsPublished => "plinth_records_published",
            Self::BytesPublished => "plinth_published_bytes",
            Self::RecordsDelivered => "plinth_records_delivered",
            Self::ConnectionsOpen => "plinth_connections_open",
            Self::ConnectionsRefused => "plinth_connections_refused",
            Self::ConnectionsClosed => "plinth_connections_closed",
            Self::WebsocketsClosed => "plinth_websockets_closed",
            Self::FollowersOpen => "plinth_followers_open",
            Self::Errors => "plinth_errors",
            Self::QuotasExceeded => "plinth_quotas_exceeded",
            Self::AuthenticationFailures => "plinth_authentication_failures",
            Self::PolicyReports => "plinth_policy_reports",
            Self::WebhookCalls => "plinth_webhook_calls",
            Self::WebhookRetries => "plinth_webhook_retries",
            Self::WebhookDuration => "plinth_webhook_duration_seconds",
            Self::WakesOpen => "plinth_wakes_open",
            Self::TenantRequests => "plinth_tenant_requests",
            Self::TenantRecordsPublished => "plinth_tenant_records_published",
            Self::TenantBytesPublished => "plinth_tenant_published_bytes",
            Self::TenantRecordsDelivered => "plinth_tenant_records_delivered",
            Self::TenantBytesDelivered => "plinth_tenant_delivered_bytes",
            Self::TenantConnections => "plinth_tenant_connections_open",
            Self::TenantFollowers => "plinth_tenant_followers_open",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::HttpRequests => "Requests answered, by route and class of status",
            Self::PublishDuration => "Time from a publish request to its answer over HTTP",
            Self::RecordsPublished => "Records stored, by transport",
            Self::BytesPublished => "Payload bytes stored, by transport",
            Self::RecordsDelivered => "Records sent to readers, by transport",
            Self::ConnectionsOpen => "Open connections",
            Self::ConnectionsRefused => "Connections closed unanswered because a limit was reached",
            Self::ConnectionsClosed => "Connections that have ended, by reason",
            Self::WebsocketsClosed => "WebSocket sessions that have ended, by the code that they were closed with",
            Self::FollowersOpen => "Live streams and subscriptions, by transport",
            Self::Errors => "Requests and frames refused or failed, by transport and error code",
            Self::QuotasExceeded => {
                "Requests and frames refused because of a quota, by quota, with key. before that of a key"
            }
            Self::AuthenticationFailures => "Credentials missing or refused, by what is wrong with a token",
            Self::PolicyReports => "Reports of browsers that a page has broken its policy, by directive",
            Self::WebhookCalls => "Calls of webhooks, by what came of them",
            Self::WebhookRetries => "Calls of webhooks that had been made before, in vain",
            Self::WebhookDuration => "Time that a call of a webhook took, whatever came of it",
            Self::WakesOpen => "Wakes of subscriptions that have begun and not ended",
            Self::TenantRequests => "Requests, and frames that ask for something, by tenant",
            Self::TenantRecordsPublished => "Records stored, by tenant",
            Self::TenantBytesPublished => "Payload bytes stored, by tenant",
            Self::TenantRecordsDelivered => "Records sent to readers, by tenant",
            Self::TenantBytesDelivered => "Bytes sent to readers, as they are stored, by tenant",
            Self::TenantConnections => "Open connections, by tenant",
            Self::TenantFollowers => "Live streams and subscriptions, by tenant",
        }
    }
}

/// How records come in or go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Publish by a request.
    Http,
    /// Read by a page or a long-poll.
    Page,
    /// Follow by NDJSON.
    Ndjson,
    /// Follow by server-sent events.
    Sse,
    /// Publish and follow by WebSocket.
    Websocket,
}

impl Transport {
    const ALL: [Self; 5] = [Self::Http, Self::Page, Self::Ndjson, Self::Sse, Self::Websocket];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Page => "page",
            Self::Ndjson => "ndjson",
            Self::Sse => "sse",
            Self::Websocket => "websocket",
        }
    }
}

/// Why a connection was closed unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node has as many connections as it may.
    Node,
    /// The client's address has as many as it may.
    Address,
    /// The process has no file descriptor left.
    Descriptors,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Address => "address",
            Self::Descriptors => "descriptors",
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// By the client, or after the answer that was to be its last.
    Ended,
    /// It broke, or what came was not HTTP.
    Broken,
    /// A time limit passed.
    Silent,
    /// The node ends.
    Shutdown,
}

impl Closed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTransport {
    transport: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCloseCode {
    code: u16,
}

/// `policy` is a quota's name, with `key.` before it when it is the key's: eighteen at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPolicy {
    policy: String,
}

/// `reason` is the word for a refused token, from a closed list; `credential` for all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFault {
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByError {
    transport: &'static str,
    code: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirective {
    directive: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: &'static str,
    status: &'static str,
}

/// Counts of what the gateway does. Counting what succeeds takes no lock.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routes: HashMap<&'static str, [Counter; 5]>,
    other: [Counter; 5],
    publish_duration: Histogram,
    published: HashMap<Transport, (Counter, Counter)>,
    delivered: HashMap<Transport, Counter>,
    followers: HashMap<Transport, Gauge>,
    connections: Gauge,
    refused: Family<ByReason, Counter>,
    closed: Family<ByReason, Counter>,
    websockets_closed: Family<ByCloseCode, Counter>,
    errors: Family<ByError, Counter>,
    quotas_exceeded: Family<ByPolicy, Counter>,
    authentication_failures: Family<ByFault, Counter>,
    policy_reports: Family<ByDirective, Counter>,
}

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    /// Metrics for the given routes; `register_more` adds those of the parts below.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = &'static str>, register_more: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::default();
        let requests = Family::<ByRoute, Counter>::default();
        let by_route = |route| STATUS_CLASSES.map(|status| requests.get_or_create_owned(&ByRoute { route, status }));
        let records = Family::<ByTransport, Counter>::default();
        let bytes = Family::<ByTransport, Counter>::default();
        let sent = Family::<ByTransport, Counter>::default();
        let open = Family::<ByTransport, Gauge>::default();
        let label = |transport: Transport| ByTransport { transport: transport.as_str() };
        let counted =
            |transport| (records.get_or_create_owned(&label(transport)), bytes.get_or_create_owned(&label(transport)));
        let metrics = Self {
            routes: routes.into_iter().map(|route| (route, by_route(route))).collect(),
            other: by_route("other"),
            publish_duration: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            published: [Transport::Http, Transport::Websocket].map(|transport| (transport, counted(transport))).into(),
            delivered: Transport::ALL.map(|transport| (transport, sent.get_or_create_owned(&label(transport)))).into(),
            followers: Transport::ALL.map(|transport| (transport, open.get_or_create_owned(&label(transport)))).into(),
            connections: Gauge::default(),
            refused: Family::default(),
            closed: Family::default(),
            websockets_closed: Family::default(),
            errors: Family::default(),
            quotas_exceeded: Family::default(),
            authentication_failures: Family::default(),
            policy_reports: Family::default(),
            registry: Registry::default(),
        };
        register(&mut registry, Name::HttpRequests, requests);
        register(&mut registry, Name::PublishDuration, metrics.publish_duration.clone());
        register(&mut registry, Name::RecordsPublished, records);
        register(&mut registry, Name::BytesPublished, bytes);
        register(&mut registry, Name::RecordsDelivered, sent);
        register(&mut registry, Name::FollowersOpen, open);
        register(&mut registry, Name::ConnectionsOpen, metrics.connections.clone());
        register(&mut registry, Name::ConnectionsRefused, metrics.refused.clone());
        register(&mut registry, Name::ConnectionsClosed, metrics.closed.clone());
        register(&mut registry, Name::WebsocketsClosed, metrics.websockets_closed.clone());
        register(&mut registry, Name::Errors, metrics.errors.clone());
        register(&mut registry, Name::QuotasExceeded, metrics.quotas_exceeded.clone());
        register(&mut registry, Name::AuthenticationFailures, metrics.authentication_failures.clone());
        register(&mut registry, Name::PolicyReports, metrics.policy_reports.clone());
        process::register(&mut registry);
        register_more(&mut registry);
        Self { registry, ..metrics }
    }

    /// Counts an answered request; a route that is not known counts as `other`.
    pub fn answered(&self, route: Option<&str>, status: u16) {
        let counters = route.and_then(|route| self.routes.get(route)).unwrap_or(&self.other);
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        counters[class].inc();
    }

    /// Counts stored records and their payload bytes.
    pub fn published(&self, transport: Transport, records: u64, bytes: u64) {
        if let Some((record_count, byte_count)) = self.published.get(&transport) {
            record_count.inc_by(records);
            byte_count.inc_by(bytes);
        }
    }

    /// Notes how long a publish took over HTTP, in seconds.
    pub fn publish_took(&self, seconds: f64) {
        self.publish_duration.observe(seconds);
    }

    /// Counts records sent to a reader.
    pub fn delivered(&self, transport: Transport, records: u64) {
        if let Some(counter) = self.delivered.get(&transport) {
            counter.inc_by(records);
        }
    }

    /// Counts a live stream or subscription for as long as the guard lives.
    #[must_use]
    pub fn follower(&self, transport: Transport) -> Open {
        Open::count(self.followers.get(&transport).cloned().unwrap_or_default())
    }

    /// Counts a connection for as long as the guard lives.
    #[must_use]
    pub fn connection(&self) -> Open {
        Open::count(self.connections.clone())
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or_default()
    }

    /// Counts a connection that was closed unanswered.
    pub fn refused(&self, reason: Refusal) {
        self.refused.get_or_create(&ByReason { reason: reason.as_str() }).inc();
    }

    /// Counts a connection that has ended.
    pub fn closed(&self, how: Closed) {
        self.closed.get_or_create(&ByReason { reason: how.as_str() }).inc();
    }

    /// Counts a WebSocket session that has ended; `code` is one of ours, or one that RFC 6455 has for it.
    pub fn websocket_closed(&self, code: u16) {
        self.websockets_closed.get_or_create(&ByCloseCode { code }).inc();
    }

    /// Counts a request or frame that was refused or failed.
    pub fn failed(&self, transport: Transport, problem: &Problem) {
        let labels = ByError { transport: transport.as_str(), code: problem.code.as_str() };
        self.errors.get_or_create(&labels).inc();
        for policy in problem.violated_policies.iter().flatten() {
            self.quotas_exceeded.get_or_create(&ByPolicy { policy: policy.clone() }).inc();
        }
        if problem.code == ErrorCode::Unauthenticated {
            let reason = problem.reason.clone().unwrap_or_else(|| "credential".to_owned());
            self.authentication_failures.get_or_create(&ByFault { reason }).inc();
        }
    }

    /// Counts a report of a browser; `directive` is from a closed list.
    pub fn policy_broken(&self, directive: &'static str) {
        self.policy_reports.get_or_create(&ByDirective { directive }).inc();
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

/// Something open that a gauge counts until this is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn count(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn register(registry: &mut Registry, name: Name, metric: impl Metric) {
    registry.register(name.as_str(), name.help(), metric);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_class_of_status() {
        let metrics = Metrics::new(["/v1/topics"], |_| {});
        metrics.answered(Some("/v1/topics"), 201);
        metrics.answered(Some("/v1/topics"), 404);
        metrics.answered(None, 404);
        metrics.answered(Some("/not/declared"), 500);
        let text = metrics.text();
        assert!(text.contains(r#"plinth_http_requests_total{route="/v1/topics",status="2xx"} 1"#), "{text}");
        assert!(text.contains(r#"plinth_http_requests_total{route="/v1/topics",status="4xx"} 1"#), "{text}");
        assert!(text.contains(r#"plinth_http_requests_total{route="other",status="4xx"} 1"#), "{text}");
        assert!(text.contains(r#"plinth_http_requests_total{route="other",status="5xx"} 1"#), "{text}");
    }

    #[test]
    fn what_is_open_is_counted_until_it_is_dropped() {
        let metrics = Metrics::new([], |_| {});
        let follower = metrics.follower(Transport::Sse);
        assert!(metrics.text().contains(r#"plinth_followers_open{transport="sse"} 1"#), "{}", metrics.text());
        drop(follower);
        assert!(metrics.text().contains(r#"plinth_followers_open{transport="sse"} 0"#), "{}", metrics.text());
    }
}
