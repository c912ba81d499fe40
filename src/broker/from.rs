//! Where reading begins, as clients say it, and what that means in one partition.

use std::str::FromStr;

use chrono::DateTime;
use plinth_storage::Log;
use plinth_storage::ids::{Offset, Partition, TenantId, Timestamp};
use plinth_storage::log::Bounds;

use super::cursor::{CursorKey, Positions};
use super::error::Error;

/// Where reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record that is kept.
    Earliest,
    /// After the last record.
    Latest,
    /// At an offset of one partition.
    Offset(u64),
    /// At the last so many records of each partition.
    Last(u64),
    /// At the first record of that time or later.
    Time(Timestamp),
    /// At a cursor.
    Cursor(String),
}

/// [`From`] with its cursor read.
#[derive(Debug)]
pub(crate) enum Origin {
    Earliest,
    Latest,
    Offset(Offset),
    Last(u64),
    Time(Timestamp),
    Cursor(Positions),
}

/// Where a partition begins to be read, and what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Here.
    At(Offset),
    /// The offset asked for is no longer kept; reading can go on at the start.
    Trimmed { requested: Offset, start: Offset },
    /// The offset asked for does not exist yet; reading can go on at the tail.
    AboveTail { requested: Offset, tail: Offset },
}

impl FromStr for From {
    type Err = Error;

    /// Reads `earliest`, `latest`, `offset:N`, `-N`, `time:<RFC 3339>` or `cursor:<token>`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || {
            Error::Invalid(format!(
                "from {text:?} is none of earliest, latest, offset:N, -N, time:<RFC 3339>, cursor:<token>"
            ))
        };
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Some(last) = text.strip_prefix('-') {
            return number(last).map(Self::Last).ok_or_else(refused);
        }
        match text.split_once(':') {
            Some(("offset", offset)) => number(offset).map(Self::Offset).ok_or_else(refused),
            Some(("cursor", cursor)) if !cursor.is_empty() => Ok(Self::Cursor(cursor.to_owned())),
            Some(("time", at)) => time(at).map(Self::Time).ok_or_else(refused),
            Some(_) | None => Err(refused()),
        }
    }
}

impl From {
    /// Reads the cursor, if it is one.
    ///
    /// # Errors
    /// `InvalidCursor`.
    pub(crate) fn resolve(&self, key: &CursorKey, tenant: TenantId) -> Result<Origin, Error> {
        Ok(match self {
            Self::Earliest => Origin::Earliest,
            Self::Latest => Origin::Latest,
            Self::Offset(offset) => Origin::Offset(Offset(*offset)),
            Self::Last(count) => Origin::Last(*count),
            Self::Time(at) => Origin::Time(*at),
            Self::Cursor(text) => Origin::Cursor(key.read(tenant, text)?),
        })
    }
}

impl Origin {
    /// Where `partition` begins. A partition that the cursor does not name begins at the earliest record: nothing is
    /// skipped without a word.
    ///
    /// # Errors
    /// Those of the log; `NotFound` when the topic was deleted.
    pub(crate) async fn begin(&self, log: &Log, partition: Partition) -> Result<Begin, Error> {
        let bounds = log.bounds(partition)?;
        Ok(match self {
            Self::Earliest => Begin::At(bounds.start),
            Self::Latest => Begin::At(bounds.tail),
            Self::Offset(offset) => Begin::within(&bounds, *offset),
            // In a box, as every read beyond the tail.
            Self::Last(count) => Begin::At(Box::pin(log.last_records(partition, *count)).await?),
            Self::Time(at) => Begin::At(Box::pin(log.offset_at(partition, *at)).await?),
            Self::Cursor(positions) => match positions.get(&partition) {
                Some(next) => Begin::within(&bounds, *next),
                None => Begin::At(bounds.start),
            },
        })
    }
}

impl Begin {
    fn within(bounds: &Bounds, requested: Offset) -> Self {
        if requested < bounds.start {
            Self::Trimmed { requested, start: bounds.start }
        } else if requested > bounds.tail {
            Self::AboveTail { requested, tail: bounds.tail }
        } else {
            Self::At(requested)
        }
    }

    /// The offset, where one that cannot be read is an error.
    ///
    /// # Errors
    /// `Trimmed`, `AboveTail`.
    pub(crate) fn exactly(self) -> Result<Offset, Error> {
        match self {
            Self::At(offset) => Ok(offset),
            Self::Trimmed { requested, start } => Err(Error::Trimmed { requested: requested.0, start: start.0 }),
            Self::AboveTail { requested, tail } => Err(Error::AboveTail { requested: requested.0, tail: tail.0 }),
        }
    }
}

/// Digits only: no sign, no space.
pub(super) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A time by RFC 3339; one before 1970 is as early as there are records.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    Some(Timestamp(u64::try_from(at.timestamp_millis()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_from_is_read() {
        for (text, expected) in [
            ("earliest", From::Earliest),
            ("latest", From::Latest),
            ("offset:0", From::Offset(0)),
            ("offset:18446744073709551615", From::Offset(u64::MAX)),
            ("-10", From::Last(10)),
            ("time:1970-01-01T00:00:01Z", From::Time(Timestamp(1_000))),
            ("time:1970-01-01T01:00:00.250+01:00", From::Time(Timestamp(250))),
            ("time:1960-01-01T00:00:00Z", From::Time(Timestamp(0))),
            ("cursor:AQ", From::Cursor("AQ".into())),
        ] {
            assert_eq!(text.parse::<From>().expect(text), expected);
        }
    }

    #[test]
    fn anything_else_is_refused_and_repeated() {
        for text in [
            "",
            "first",
            "offset:",
            "offset:-1",
            "offset:+1",
            "offset:1.5",
            "-",
            "--1",
            "time:yesterday",
            "time:",
            "cursor:",
            "Earliest",
            " latest",
            "10",
        ] {
            let Err(Error::Invalid(why)) = text.parse::<From>() else { panic!("{text:?} was read") };
            assert!(why.contains(&format!("{text:?}")), "{why}");
        }
    }
}
