//! The use of a tenant over a span of time, read back from its `_usage`.

use plinth_api::limits::{USAGE_HOURS_RANGE_MS_MAX, USAGE_MINUTES_RANGE_MS_MAX};
use plinth_api::system::{Granularity, Usage};
use plinth_storage::Kind;
use plinth_storage::ids::{Offset, Partition, Timestamp};
use plinth_storage::record::StoredBatch;

use super::System;
use crate::auth::{Action, SystemTopic, TopicRef};
use crate::broker::catalog::gone;
use crate::broker::error::Error;
use crate::broker::from::time;
use crate::broker::proved;
use crate::units::show_millis;

/// Bytes that one look into the log takes.
const READ_BYTES: usize = 1024 * 1024;
/// The span when none is asked for.
const SPAN_DEFAULT: u64 = 60 * 60 * 1000;

/// Which use is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRange {
    from: u64,
    to: u64,
    granularity: Granularity,
}

impl UsageRange {
    /// The use from one time on and before another one, by RFC 3339; without them the hour before `now`.
    ///
    /// # Errors
    /// `Invalid` for what is no time, and for an end before the beginning; `Unprocessable` for more than can be asked for.
    pub fn of(from: Option<&str>, to: Option<&str>, granularity: Granularity, now: Timestamp) -> Result<Self, Error> {
        let read = |name: &str, text: &str| {
            let text = time(text).ok_or_else(|| Error::Invalid(format!("{name} {text:?} is not a time of RFC 3339")));
            text.map(|at| at.0)
        };
        let to = to.map_or(Ok(now.0), |text| read("to", text))?;
        let from = from.map_or(Ok(to.saturating_sub(SPAN_DEFAULT)), |text| read("from", text))?;
        let span = to.checked_sub(from).ok_or_else(|| Error::Invalid("to is before from".into()))?;
        let most = match granularity {
            Granularity::Minute => USAGE_MINUTES_RANGE_MS_MAX,
            Granularity::Hour => USAGE_HOURS_RANGE_MS_MAX,
        };
        if span > most {
            let (span, most) = (show_millis(span), show_millis(most));
            let by = granularity.as_str();
            return Err(Error::Unprocessable(format!("usage by {by} of {span} exceeds the limit of {most}")));
        }
        Ok(Self { from, to, granularity })
    }

    /// Which minute or hour a record belongs to, if it is asked for.
    fn place(&self, usage: &Usage) -> Option<u64> {
        let middle = usage.from + usage.to.saturating_sub(usage.from) / 2;
        let span = match self.granularity {
            Granularity::Minute => 60 * 1000,
            Granularity::Hour => 60 * 60 * 1000,
        };
        (self.from..self.to).contains(&middle).then(|| middle - middle % span)
    }
}

impl System {
    /// The use in a span of time, in order; minutes and hours without any are left out. `topic` is the tenant's `_usage`.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn usage(&self, topic: &TopicRef, range: UsageRange) -> Result<Vec<Usage>, Error> {
        proved(topic.action(), Action::Subscribe)?;
        if topic.name() != SystemTopic::Usage.name() {
            return Err(Error::defect("the use of a tenant was asked for in another topic"));
        }
        let Some(found) = self.catalog().find(topic)? else { return Ok(Vec::new()) };
        let (log, partition) = (self.0.broker.log(), found.partition(0));
        let from = log.offset_at(partition, Timestamp(range.from)).await;
        let mut next = from.map_err(|error| gone(topic.name(), error))?;
        let mut data: Vec<Usage> = Vec::new();
        loop {
            let batches = match log.read(partition, next, READ_BYTES).await {
                Err(error) if error.kind() == Kind::OutOfRange => {
                    next = self.kept(partition, next)?;
                    continue;
                }
                read => read.map_err(|error| gone(topic.name(), error))?,
            };
            let Some(last) = batches.last() else { return Ok(data) };
            next = last.next();
            for batch in &batches {
                if !gather(batch, range, &mut data)? {
                    return Ok(data);
                }
            }
        }
    }

    /// Where what is kept goes on: retention has passed the place.
    fn kept(&self, partition: Partition, next: Offset) -> Result<Offset, Error> {
        let start = self.0.broker.log().bounds(partition)?.start;
        if start > next { Ok(start) } else { Err(Error::Busy(format!("offset {next} of _usage cannot be read now"))) }
    }
}

/// Adds the records of a batch; false when they are behind the span.
fn gather(batch: &StoredBatch, range: UsageRange, data: &mut Vec<Usage>) -> Result<bool, Error> {
    for record in batch.records() {
        let usage: Usage = serde_json::from_slice(&record.payload).map_err(|source| Error::Internal {
            detail: "a record of _usage is broken".into(),
            source: Some(Box::new(source)),
        })?;
        if usage.from >= range.to {
            return Ok(false);
        }
        let Some(place) = range.place(&usage) else { continue };
        match data.last_mut().filter(|last| range.place(last) == Some(place)) {
            Some(last) => add(last, &usage),
            None => data.push(usage),
        }
    }
    Ok(true)
}

/// Adds what came later: sums of what was used, the most of what was open, the last of what was stored.
fn add(sum: &mut Usage, later: &Usage) {
    sum.to = later.to;
    sum.requests += later.requests;
    sum.published_records += later.published_records;
    sum.published_bytes += later.published_bytes;
    sum.delivered_records += later.delivered_records;
    sum.delivered_bytes += later.delivered_bytes;
    sum.connections = sum.connections.max(later.connections);
    sum.followers = sum.followers.max(later.followers);
    sum.storage_bytes = later.storage_bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;

    fn range(from: &str, to: &str, granularity: Granularity) -> Result<UsageRange, Error> {
        UsageRange::of(Some(from), Some(to), granularity, Timestamp(HOUR))
    }

    #[test]
    fn without_times_it_is_the_last_hour() {
        let range = UsageRange::of(None, None, Granularity::Minute, Timestamp(5 * HOUR)).expect("a range");
        assert_eq!((range.from, range.to), (4 * HOUR, 5 * HOUR));
        let begun = UsageRange::of(Some("1970-01-01T02:00:00Z"), None, Granularity::Minute, Timestamp(5 * HOUR));
        assert_eq!(begun.expect("a range").from, 2 * HOUR);
    }

    #[test]
    fn what_is_no_span_or_too_long_a_one_is_refused_with_its_limit() {
        for (from, to, granularity, said) in [
            ("soon", "1970-01-02T00:00:00Z", Granularity::Minute, "from \"soon\" is not a time"),
            ("1970-01-02T00:00:00Z", "1970-01-01T00:00:00Z", Granularity::Minute, "to is before from"),
            ("1970-01-01T00:00:00Z", "1970-01-02T00:00:01Z", Granularity::Minute, "exceeds the limit of 1d"),
            ("1970-01-01T00:00:00Z", "1970-02-01T00:00:01Z", Granularity::Hour, "exceeds the limit of 31d"),
        ] {
            let refused = range(from, to, granularity).expect_err(from).to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn records_of_an_hour_are_added_up() {
        let range = range("1970-01-01T00:00:00Z", "1970-01-01T02:00:00Z", Granularity::Hour).expect("a range");
        let usage =
            |from, requests, connections| Usage { from, to: from + 60_000, requests, connections, ..Usage::default() };
        let (mut sum, later) = (usage(0, 2, 7), usage(59 * 60_000, 3, 1));
        assert_eq!(range.place(&sum), range.place(&later));
        assert_ne!(range.place(&usage(HOUR, 1, 1)), range.place(&later), "the next hour");
        assert_eq!(range.place(&usage(2 * HOUR, 1, 1)), None, "not asked for");
        add(&mut sum, &later);
        assert_eq!((sum.to, sum.requests, sum.connections), (HOUR, 5, 7));
    }
}
