//! About what a bucket costs at published prices.

use plinth_storage::ids::Timestamp;
use plinth_storage::inspect::Overview;
use serde::Serialize;

use crate::cli::prices;

const MONTH_MS: f64 = 30.0 * 24.0 * 60.0 * 60.0 * 1000.0;
/// A bucket that was written to for less than this says nothing about a month.
const SPAN_MS_MIN: u64 = 60 * 60 * 1000;

/// Dollars. Each object was one request; those of reading are not in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    /// What is there, kept for a month.
    storage_dollars_per_month: f64,
    /// Requests that wrote what is there.
    writes: u64,
    write_dollars: f64,
    /// At the mean rate from the first start to the newest record; absent when that is less than an hour.
    write_dollars_per_month: Option<f64>,
    prices: &'static str,
}

impl Cost {
    pub(super) fn of(overview: &Overview, newest: Option<Timestamp>) -> Self {
        let (objects, bytes) = overview
            .usage
            .iter()
            .filter(|(purpose, _)| **purpose != FOREIGN)
            .fold((0, 0), |(objects, bytes), (_, usage)| (objects + usage.objects, bytes + usage.bytes));
        let starts = || overview.sessions.iter().filter_map(|session| Some(session.meta.as_ref()?.started_at.0));
        let first = starts().min().unwrap_or(0);
        let last = newest.map(|time| time.0).max(starts().max()).unwrap_or(0);
        let write_dollars = prices::requests(objects as f64, 0.0);
        let span = last.saturating_sub(first);
        let per_month = (span >= SPAN_MS_MIN).then(|| write_dollars / (span as f64 / MONTH_MS));
        Self {
            storage_dollars_per_month: round(prices::month(bytes as f64)),
            writes: objects,
            write_dollars: round(write_dollars),
            write_dollars_per_month: per_month.map(round),
            prices: "Amazon S3 Standard, us-east-1",
        }
    }

    pub(super) fn text(&self) -> String {
        let rate = match self.write_dollars_per_month {
            Some(dollars) => format!(", {dollars} $ a month at the mean rate"),
            None => String::new(),
        };
        format!(
            "{} $ a month to keep; {} $ for the {} requests that wrote it{rate} ({})",
            self.storage_dollars_per_month, self.write_dollars, self.writes, self.prices
        )
    }
}

/// What objects that are not of the log are called.
const FOREIGN: &str = "foreign";

/// Four decimals.
fn round(dollars: f64) -> f64 {
    (dollars * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plinth_storage::ids::{ClusterId, SessionId, Slot};
    use plinth_storage::inspect::{SessionMeta, SessionStatus, SessionView, Usage};
    use ulid::Ulid;

    use super::*;

    fn overview(started_at: u64) -> Overview {
        let session = SessionView {
            session: SessionId(Ulid::nil()),
            meta: Some(SessionMeta { node: "n".to_owned(), started_at: Timestamp(started_at) }),
            status: SessionStatus::Ended { at: Slot(1), by: SessionId(Ulid::nil()) },
            slots: Usage::default(),
            loose: Usage::default(),
            checkpoints: Usage::default(),
            newest_checkpoint: None,
        };
        let usage = |objects, bytes| Usage { objects, bytes };
        Overview {
            cluster: ClusterId(Ulid::nil()),
            shards: 1,
            usage: BTreeMap::from([("wal", usage(1_000_000, 1 << 40)), ("foreign", usage(5, 1 << 50))]),
            sessions: vec![session],
            claims: BTreeMap::new(),
        }
    }

    #[test]
    fn the_cost_is_that_of_the_bytes_and_of_the_requests_that_wrote_them() {
        let cost = Cost::of(&overview(0), Some(Timestamp(15 * 24 * 60 * 60 * 1000)));
        assert_eq!(cost.storage_dollars_per_month, 23.552);
        assert_eq!((cost.writes, cost.write_dollars, cost.write_dollars_per_month), (1_000_000, 5.0, Some(10.0)));
        assert!(cost.text().starts_with("23.552 $ a month to keep; 5 $ for the 1000000 requests"), "{}", cost.text());
    }

    #[test]
    fn a_few_minutes_say_nothing_about_a_month() {
        assert_eq!(Cost::of(&overview(1000), Some(Timestamp(61_000))).write_dollars_per_month, None);
        assert_eq!(Cost::of(&overview(1000), None).write_dollars_per_month, None);
    }
}
