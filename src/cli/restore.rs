//! `plinth restore`: a copy of a bucket as it was at a time, in another, empty one.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use plinth_storage::env::{Clock, SystemClock};
use plinth_storage::ids::Timestamp;
use plinth_storage::inspect::{Copied, CopyEvent, CopyOptions, restore};
use plinth_storage::store;
use serde::Serialize;

use super::bucket::{Opened, Source, bar, interruptible, rfc3339};
use super::interrupt::Interrupted;
use super::{opened, output};

/// Copies a bucket as it was at a time into another, empty one, which then is the same cluster: topics, records, offsets,
/// cursors, settings, keys, and what is remembered of publishes.
///
/// The source is only read, also while a node runs on it. The copy is a cluster only when it is complete. A run that was
/// cut off is finished by the same command; if that asks for another time by then, by the same with the time that it names.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The time: nothing newer is copied [default: everything]
    ///
    /// UTC as 2026-01-31T13:00:00Z, milliseconds since the Unix epoch, or how long ago, such as 15m or "2h 30m".
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// The empty store to copy into, as for --store
    #[arg(long, value_name = "URL")]
    to: String,
}

/// The result.
#[derive(Serialize)]
struct Line {
    /// Where the copy ends.
    session: String,
    end: u64,
    at_ms: u64,
    at: String,
    objects: u64,
    bytes: u64,
    found: u64,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let source = args.source.open()?;
    let mut ended = None;
    match interruptible(copy(&source, &args, &mut ended)).await {
        Err(error) if error.is::<Interrupted>() => {
            let at = ended.map(|at: Timestamp| format!(" with --at {}", rfc3339(at.0))).unwrap_or_default();
            Err(error.context(format!("the copy in {} is not complete; the same command{at} goes on", args.to)))
        }
        Err(error) => Err(error),
        Ok(copied) => {
            let at = rfc3339(copied.at.0);
            output::say(&format!("{} is a copy as of {at}; start a node on it with --store {}", args.to, args.to));
            output::line(&Line {
                session: copied.session.to_string(),
                end: copied.end.0,
                at_ms: copied.at.0,
                at,
                objects: copied.objects,
                bytes: copied.bytes,
                found: copied.found,
            })
        }
    }
}

/// Copies; tells in `ended` where the copy ends as soon as that is settled.
async fn copy(source: &Opened, args: &Args, ended: &mut Option<Timestamp>) -> anyhow::Result<Copied> {
    let target = opened(store::open(&args.to))?;
    let options = CopyOptions { at: args.at, scratch: source.scratch.clone(), in_flight: source.in_flight };
    let bar = bar("restore");
    let mut tell = |event| match event {
        CopyEvent::Listed { bytes } => bar.set_length(bytes),
        CopyEvent::Copied(bytes) => bar.inc(bytes),
        CopyEvent::Ended { at } => *ended = Some(at),
        CopyEvent::Checking => bar.set_message("check"),
    };
    let copied = restore(&source.stores, &target, &options, &mut tell).await;
    bar.finish_and_clear();
    copied.with_context(|| format!("no copy was made in {}", args.to))
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ms) = text.parse() {
        return Ok(Timestamp(ms));
    }
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| "a time before 1970".to_owned())?;
        return Ok(Timestamp(ms(since)));
    }
    match humantime::parse_duration(text) {
        Ok(ago) => Ok(Timestamp(SystemClock.now().0.saturating_sub(ms(ago)))),
        Err(_) => Err("not a time such as 2026-01-31T13:00:00Z, 1769864400000 or 15m".to_owned()),
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_forms() {
        assert_eq!(time("1769864400000"), Ok(Timestamp(1_769_864_400_000)));
        assert_eq!(time("2026-01-31T13:00:00Z"), Ok(Timestamp(1_769_864_400_000)));
        let (ago, now) = (time("1h").unwrap().0, SystemClock.now().0);
        assert!((now - 3_600_000 - 60_000..=now - 3_600_000).contains(&ago), "{ago} is not an hour before {now}");
        for wrong in ["", "yesterday", "-5", "2026-13-01T00:00:00Z"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
