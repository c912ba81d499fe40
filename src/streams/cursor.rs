//! The cursor of live readers: it names an interval of time, so that caches between may answer many who wait with one
//! answer, and never moves back, so that no reader is given the same old answer for ever.

use plinth_storage::ids::Timestamp;

/// Interval 0 begins at 2024-10-09 00:00 UTC, in ms since the Unix epoch.
const EPOCH_MS: u64 = 1_728_432_000_000;
const INTERVAL_MS: u64 = 20_000;
/// By how much at most a reader is moved on that is ahead of time, in intervals: an hour.
const JITTER_INTERVALS: u64 = 180;

/// The cursor of an answer at `now`, to one whose request had `given`. `random` draws a number below the one it is given.
pub(super) fn next_cursor(given: Option<&str>, now: Timestamp, random: impl FnOnce(u64) -> u64) -> u64 {
    let current = now.0.saturating_sub(EPOCH_MS) / INTERVAL_MS;
    let given = given.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
    match given {
        // Of an earlier interval, or of nobody.
        None => current,
        Some(given) if given < current => current,
        Some(given) => u64::saturating_add(given, 1 + random(JITTER_INTERVALS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_interval_of_now_and_always_above_the_one_that_was_given() {
        let now = Timestamp(EPOCH_MS + 7 * INTERVAL_MS + 1);
        let cursor = |given| next_cursor(given, now, |below| below - 1);
        assert_eq!(cursor(None), 7);
        assert_eq!(cursor(Some("6")), 7);
        assert_eq!(cursor(Some("7")), 7 + JITTER_INTERVALS);
        assert_eq!(cursor(Some("1000")), 1000 + JITTER_INTERVALS);
        for none in ["", "-1", "+1", "x", "99999999999999999999999"] {
            assert_eq!(cursor(Some(none)), 7, "{none}");
        }
        assert_eq!(next_cursor(Some("7"), now, |_| 0), 8, "it moves on whatever is drawn");
        assert_eq!(next_cursor(None, Timestamp(0), |_| 0), 0, "a clock before the first interval");
    }
}
