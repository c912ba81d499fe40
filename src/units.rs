//! Sizes and times as people write them: `64MiB`, `7d`. For settings, the API and messages alike.

/// Reads a number of bytes with an optional unit.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        other => return Err(format!("unknown unit {other:?}; use B, KiB, MiB, GiB, TiB, KB, MB, GB or TB")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a number of bytes, such as 64MiB"))
}

/// A time in its largest unit that fits: `7d`, `90m`, `1500ms`.
#[must_use]
pub(crate) fn show_millis(millis: u64) -> String {
    let fits = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in
            [("1", 1), ("64MiB", 64 << 20), ("10 GiB", 10 << 30), ("2kB", 2000), ("3TB", 3_000_000_000_000)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "1.5GiB", "GiB", "10 gib", "99999999TiB", "1e9"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_shown_in_one_unit_and_reads_back() {
        for (millis, text) in
            [(604_800_000, "7d"), (5_400_000, "90m"), (3_600_000, "1h"), (1000, "1s"), (1500, "1500ms"), (0, "0ms")]
        {
            assert_eq!(show_millis(millis), text);
            let read = humantime::parse_duration(text).expect("a time");
            assert_eq!(u64::try_from(read.as_millis()), Ok(millis));
        }
    }
}
