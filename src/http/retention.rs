//! Between the retention of the API, which people write, and that of the log.

use std::num::NonZeroU64;

use plinth_api::topics::{ByteCount, Retention, RetentionPatch};
use plinth_storage::log;

use super::error::ApiError;
use crate::broker::{RetentionChange, retention_age_ms, retention_bytes};
use crate::units::{parse_bytes, show_millis};

/// What a new topic keeps.
pub(super) fn parse(given: &Retention) -> Result<log::Retention, ApiError> {
    let age_ms = given.age.as_deref().map(age).transpose()?;
    let bytes = given.bytes.as_ref().map(bytes).transpose()?;
    Ok(log::Retention { age_ms, bytes })
}

/// How a patch changes what is kept; `None` is no change, `Some(None)` was `null`.
pub(super) fn parse_patch(given: Option<Option<RetentionPatch>>) -> Result<RetentionChange, ApiError> {
    match given {
        None => Ok(RetentionChange::default()),
        Some(None) => Ok(RetentionChange::KEEP_EVERYTHING),
        Some(Some(patch)) => Ok(RetentionChange {
            age_ms: patch.age.map(|given| given.as_deref().map(age).transpose()).transpose()?,
            bytes: patch.bytes.map(|given| given.as_ref().map(bytes).transpose()).transpose()?,
        }),
    }
}

/// How a retention is shown; none when everything is kept.
pub(super) fn show(retention: &log::Retention) -> Option<Retention> {
    let age = retention.age_ms.map(|age| show_millis(age.get()));
    let bytes = retention.bytes.map(|bytes| ByteCount::Number(bytes.get()));
    (age.is_some() || bytes.is_some()).then_some(Retention { age, bytes })
}

fn age(text: &str) -> Result<NonZeroU64, ApiError> {
    let read = humantime::parse_duration(text).map_err(|why| {
        ApiError::invalid(format!("retention age {text:?} is not a time such as \"7d\" or \"12h\": {why}"))
    })?;
    Ok(retention_age_ms(u64::try_from(read.as_millis()).unwrap_or(u64::MAX))?)
}

fn bytes(given: &ByteCount) -> Result<NonZeroU64, ApiError> {
    let count = match given {
        ByteCount::Number(count) => *count,
        ByteCount::Text(text) => parse_bytes(text).map_err(|why| {
            ApiError::invalid(format!("retention bytes {text:?} is not a size such as \"10GiB\": {why}"))
        })?,
    };
    Ok(retention_bytes(count)?)
}

#[cfg(test)]
mod tests {
    use plinth_api::error::ErrorCode;

    use super::*;

    fn given(age: Option<&str>, bytes: Option<ByteCount>) -> Retention {
        Retention { age: age.map(str::to_owned), bytes }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        let size = |text: &str| Some(ByteCount::Text(text.to_owned()));
        for (written, shown) in [
            (given(Some("7d"), None), given(Some("7d"), None)),
            (given(Some("1h 30m"), size("10GiB")), given(Some("90m"), Some(ByteCount::Number(10 << 30)))),
            (given(None, Some(ByteCount::Number(1))), given(None, Some(ByteCount::Number(1)))),
        ] {
            let kept = parse(&written).unwrap();
            assert_eq!(show(&kept), Some(shown.clone()), "{written:?}");
            assert_eq!(parse(&shown).unwrap(), kept);
        }
        assert_eq!(show(&log::Retention::default()), None);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_field() {
        for (written, code, said) in [
            (given(Some("soon"), None), ErrorCode::InvalidRequest, "retention age \"soon\" is not a time"),
            (given(Some("0s"), None), ErrorCode::Unprocessable, "retention age 0ms is not within 1s to 36500d"),
            (given(None, Some(ByteCount::Text("lots".into()))), ErrorCode::InvalidRequest, "retention bytes \"lots\""),
            (given(None, Some(ByteCount::Number(0))), ErrorCode::Unprocessable, "retention bytes 0 is not within 1 to"),
        ] {
            let error = parse(&written).unwrap_err();
            assert_eq!(error.code(), code, "{error:?}");
            assert!(error.problem().detail.contains(said), "{error:?}");
        }
    }

    #[test]
    fn a_patch_tells_what_is_left_out_from_what_is_taken_away() {
        let patch = |json: &str| serde_json::from_str::<plinth_api::topics::TopicPatch>(json).unwrap().retention;
        let hour = NonZeroU64::new(3_600_000);
        for (json, age_ms, bytes) in [
            ("{}", None, None),
            (r#"{"retention":null}"#, Some(None), Some(None)),
            (r#"{"retention":{}}"#, None, None),
            (r#"{"retention":{"age":"1h"}}"#, Some(hour), None),
            (r#"{"retention":{"age":null}}"#, Some(None), None),
            (r#"{"retention":{"age":"1h","bytes":null}}"#, Some(hour), Some(None)),
        ] {
            assert_eq!(parse_patch(patch(json)).unwrap(), RetentionChange { age_ms, bytes }, "{json}");
        }
    }
}
