//! How much of a topic is kept: limits and changes of its retention, and records that are deleted by hand.
//!
//! What a retention does is the log's; this file only says which one is allowed.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use plinth_api::limits::{RETENTION_AGE_MS_MAX, RETENTION_AGE_MS_MIN, RETENTION_BYTES_MAX};
use plinth_storage::ids::{Offset, Partition, Timestamp};
use plinth_storage::log::{Bounds, Retention};

use super::catalog::gone;
use super::error::Error;
use super::from::{number, time};
use super::{Broker, managed};
use crate::auth::TopicRef;
use crate::units::show_millis;

/// Partitions whose place by time is looked for at once.
const PLACES_AT_ONCE: usize = 16;

/// How a retention changes; `None` leaves a limit as it is, `Some(None)` takes it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionChange {
    /// The limit of age.
    pub age_ms: Option<Option<NonZeroU64>>,
    /// The limit of bytes.
    pub bytes: Option<Option<NonZeroU64>>,
}

/// The place before which records are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// An offset of one partition.
    Offset(u64),
    /// The first record of that time or later.
    Time(Timestamp),
    /// The tail: every record goes.
    Latest,
}

/// What is left of a topic of which records were deleted.
#[derive(Clone, Debug)]
pub struct Trimmed {
    /// Its name.
    pub topic: Arc<str>,
    /// By index of the partition.
    pub partitions: Vec<(u32, Bounds)>,
}

impl RetentionChange {
    /// Takes both limits away.
    pub const KEEP_EVERYTHING: Self = Self { age_ms: Some(None), bytes: Some(None) };

    /// The retention after the change.
    #[must_use]
    pub(crate) fn of(self, before: Retention) -> Retention {
        Retention { age_ms: self.age_ms.unwrap_or(before.age_ms), bytes: self.bytes.unwrap_or(before.bytes) }
    }
}

impl FromStr for Before {
    type Err = Error;

    /// Reads an offset, `latest` or `time:<RFC 3339>`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::Invalid(format!("before {text:?} is none of an offset, latest, time:<RFC 3339>"));
        if text == "latest" {
            return Ok(Self::Latest);
        }
        match text.strip_prefix("time:") {
            Some(at) => time(at).map(Self::Time).ok_or_else(refused),
            None => number(text).map(Self::Offset).ok_or_else(refused),
        }
    }
}

impl Broker {
    /// Deletes the records before a place, for ever, in one partition or in all, and gives what is left. Where there is
    /// nothing before it, nothing happens. Cancel safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a partition that does not exist and for an offset of several partitions; `AboveTail`;
    /// those of the log. All partitions are trimmed, or none.
    pub async fn trim(&self, topic: &TopicRef, before: Before, partition: Option<u32>) -> Result<Trimmed, Error> {
        managed(topic)?;
        let meter = Arc::clone(topic.tenant().meter());
        let topic = self.catalog().get(topic)?;
        let chosen = topic.chosen(partition)?;
        if matches!(before, Before::Offset(_)) && chosen.len() > 1 {
            let text = "before an offset needs one partition: the topic has several and none is named";
            return Err(Error::Invalid(text.into()));
        }
        let topic = &*topic;
        let partitions = chosen.clone().map(|index| topic.partition(index));
        let starts: Vec<(Partition, Offset)> = stream::iter(partitions)
            .map(|partition| async move { Ok::<_, Error>((partition, self.place(partition, before).await?)) })
            .buffered(PLACES_AT_ONCE)
            .try_collect()
            .await
            .map_err(|error| super::page::named(&topic.name, error))?;
        let bounds = self.log().trim(&starts).await.map_err(|error| gone(&topic.name, error))?;
        meter.deleted(0);
        Ok(Trimmed { topic: Arc::clone(&topic.name), partitions: chosen.zip(bounds).collect() })
    }

    async fn place(&self, partition: Partition, before: Before) -> Result<Offset, Error> {
        let tail = self.log().bounds(partition)?.tail;
        match before {
            Before::Offset(requested) if requested > tail.0 => Err(Error::AboveTail { requested, tail: tail.0 }),
            Before::Offset(offset) => Ok(Offset(offset)),
            Before::Time(at) => Ok(self.log().offset_at(partition, at).await?),
            Before::Latest => Ok(tail),
        }
    }
}

/// A limit of age in milliseconds.
///
/// # Errors
/// `Unprocessable`, naming the bounds.
pub fn retention_age_ms(age: u64) -> Result<NonZeroU64, Error> {
    let (least, most) = (RETENTION_AGE_MS_MIN, RETENTION_AGE_MS_MAX);
    NonZeroU64::new(age).filter(|_| (least..=most).contains(&age)).ok_or_else(|| {
        let (age, least, most) = (show_millis(age), show_millis(least), show_millis(most));
        Error::Unprocessable(format!("retention age {age} is not within {least} to {most}"))
    })
}

/// A limit of bytes.
///
/// # Errors
/// `Unprocessable`, naming the bounds.
pub fn retention_bytes(bytes: u64) -> Result<NonZeroU64, Error> {
    NonZeroU64::new(bytes).filter(|_| bytes <= RETENTION_BYTES_MAX).ok_or_else(|| {
        Error::Unprocessable(format!("retention bytes {bytes} is not within 1 to {RETENTION_BYTES_MAX}"))
    })
}

/// Checks the limits of a retention.
///
/// # Errors
/// `Unprocessable`, naming the field and its bounds.
pub(super) fn check(retention: &Retention) -> Result<(), Error> {
    retention.age_ms.map(|age| retention_age_ms(age.get())).transpose()?;
    retention.bytes.map(|most| retention_bytes(most.get())).transpose()?;
    Ok(())
}

/// A retention in words.
pub(super) fn words(retention: &Retention) -> String {
    let age = retention.age_ms.map(|age| format!("age {}", show_millis(age.get())));
    let bytes = retention.bytes.map(|bytes| format!("bytes {bytes}"));
    match (age, bytes) {
        (None, None) => "no retention".into(),
        (Some(limit), None) | (None, Some(limit)) => format!("retention {limit}"),
        (Some(age), Some(bytes)) => format!("retention {age} and {bytes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_before_is_read_and_others_are_refused_and_repeated() {
        for (text, expected) in [
            ("0", Before::Offset(0)),
            ("18446744073709551615", Before::Offset(u64::MAX)),
            ("latest", Before::Latest),
            ("time:1970-01-01T00:00:01Z", Before::Time(Timestamp(1000))),
        ] {
            assert_eq!(text.parse::<Before>().expect(text), expected);
        }
        for text in
            ["", "-1", "+1", "1.5", "earliest", "offset:1", "time:", "time:now", "Latest", " 1", "18446744073709551616"]
        {
            let Err(Error::Invalid(why)) = text.parse::<Before>() else { panic!("{text:?} was read") };
            assert!(why.contains(&format!("{text:?}")), "{why}");
        }
    }
}
