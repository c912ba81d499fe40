//! What becomes of the calls of webhooks, and how many wakes are under way.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::{Name, Open, register};
use crate::egress::EgressError;

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// All that the call told of is done with.
    Done,
    /// It will call back.
    Accepted,
    /// The answer is not one of success.
    Refused,
    /// There was no answer in time.
    TimedOut,
    /// There was no connection, or no answer that could be read.
    Failed,
    /// The address is one that is not called.
    Address,
}

impl CallOutcome {
    const ALL: [Self; 6] = [Self::Done, Self::Accepted, Self::Refused, Self::TimedOut, Self::Failed, Self::Address];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Address => "address",
        }
    }
}

impl From<EgressError> for CallOutcome {
    fn from(error: EgressError) -> Self {
        match error {
            EgressError::Refused(_) => Self::Address,
            EgressError::Answered(_) => Self::Refused,
            EgressError::TimedOut(_) => Self::TimedOut,
            EgressError::Failed(_) => Self::Failed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// Counts of calls and wakes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    calls: Family<ByOutcome, Counter>,
    retries: Counter,
    duration: Histogram,
    wakes: Gauge,
}

impl Default for WebhookMetrics {
    fn default() -> Self {
        let calls = Family::<ByOutcome, Counter>::default();
        for outcome in CallOutcome::ALL {
            calls.get_or_create_owned(&ByOutcome { outcome: outcome.as_str() });
        }
        // From 5 ms on to beyond the longest that a webhook may take.
        let duration = Histogram::new(exponential_buckets(0.005, 2.0, 14));
        Self { calls, retries: Counter::default(), duration, wakes: Gauge::default() }
    }
}

impl WebhookMetrics {
    /// Shows them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        register(registry, Name::WebhookCalls, self.calls.clone());
        register(registry, Name::WebhookRetries, self.retries.clone());
        register(registry, Name::WebhookDuration, self.duration.clone());
        register(registry, Name::WakesOpen, self.wakes.clone());
    }

    /// Counts a call; `again` is one that was made before, in vain.
    pub fn called(&self, outcome: CallOutcome, again: bool, took: Duration) {
        self.calls.get_or_create(&ByOutcome { outcome: outcome.as_str() }).inc();
        self.retries.inc_by(u64::from(again));
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a wake for as long as the guard lives.
    #[must_use]
    pub fn wake(&self) -> Open {
        Open::count(self.wakes.clone())
    }
}
