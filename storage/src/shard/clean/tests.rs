//! Stored forms of what is cleaned by key.

use ulid::Ulid;

use super::*;
use crate::ids::{PartitionIndex, SegmentId, TopicId};
use crate::segment::cleaned::{Cleaned, CleanedRun};
use crate::shard::changes::Entry;

const TOPIC: &str = "00000000000000000000000000000007";
/// Clean to 9, settled to 5 at a time, 2 that delete their key.
const CLEAN: &str = "0900000000000000\
                     0500000000000000\
                     0068e5cf8b010000\
                     02000000";
/// What a run of an entry and a row of the index say alike.
const RUN: &str = "28000000\
                   64000000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn clean(published: u64) -> CleanRow {
    let settled_at = Timestamp(1_700_000_000_000);
    CleanRow { to: Offset(9), settled_to: Offset(5), settled_at, tombstones: 2, published }
}

fn run() -> CleanedRun {
    CleanedRun {
        segment: SegmentId(Ulid(6)),
        object_len: 1024,
        content_len: 2048,
        base: Offset(3),
        count: 6,
        position: 40,
        len: 100,
        kept: 4,
        first_timestamp: Timestamp(1),
        last_timestamp: Timestamp(2),
    }
}

// A later build must read these: they are version 1 of the stored form, and version 5 of the index row.
#[test]
fn rows_and_entries_of_cleaning_are_what_they_were_in_version_1() {
    let row = clean(700);
    assert_eq!(hex(&row.encode()), ["01", CLEAN, "bc02000000000000"].concat());
    assert_eq!(CleanRow::parse(row.encode()).expect("valid"), row);
    let compact = CleanupRow::of(Cleanup::Compact).expect("a row");
    assert_eq!((hex(&compact.encode()).as_str(), CleanupRow::of(Cleanup::Delete)), ("0101", None));

    let index = run().row(300);
    let segment = "00000000000000000000000000000006";
    let golden = [
        "05",
        segment,
        "00080000",
        "0004000000000000",
        RUN,
        "06000000",
        "0100000000000000",
        "2c01000000000000",
        "0200000000000000",
        "04000000",
    ];
    assert_eq!(hex(&index.encode()), golden.concat());
    assert_eq!(IndexRow::parse(index.encode()).expect("valid"), index);
    for len in 0..index.encode().len() {
        assert!(IndexRow::parse(index.encode().slice(..len)).is_err(), "cut to {len}");
    }

    let topic = TopicId(Ulid(7));
    let partition = Partition { topic, index: PartitionIndex(3) };
    let cleaned = Cleaned { partition, clean: clean(0), rows: 2, bytes: 500, runs: vec![run()] };
    let ran = [
        segment,
        "0004000000000000",
        "00080000",
        "0300000000000000",
        "06000000",
        RUN,
        "04000000",
        "0100000000000000",
        "0200000000000000",
    ];
    let head = ["1a", "14000000", "6c000000", TOPIC, "03000000", CLEAN, "02000000", "f401000000000000"];
    for (entry, golden) in [
        (Entry::SetCleanup { topic, cleanup: Cleanup::Compact }, ["19", "10000000", "01000000", TOPIC, "01"].concat()),
        (Entry::SetCleanup { topic, cleanup: Cleanup::Delete }, ["19", "10000000", "01000000", TOPIC, "00"].concat()),
        (Entry::Cleaned(cleaned), [head.concat(), ran.concat()].concat()),
    ] {
        let mut out = BytesMut::new();
        entry.encode(&mut out);
        assert_eq!(hex(&out), golden, "{entry:?}");
        let whole = out.freeze();
        assert_eq!(Entry::parse_all(whole.clone()).expect("valid"), [entry]);
        for len in 1..whole.len() {
            assert!(Entry::parse_all(whole.slice(..len)).is_err(), "cut to {len}");
        }
    }
}

#[test]
fn a_cleaning_whose_runs_are_not_side_by_side_is_broken() {
    let partition = Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(3) };
    let later = |base| CleanedRun { base: Offset(base), ..run() };
    for (base, valid) in [(9, true), (8, false), (10, false)] {
        let cleaned = Cleaned { partition, clean: clean(0), rows: 2, bytes: 500, runs: vec![run(), later(base)] };
        assert_eq!(Cleaned::parse(partition, cleaned.value()).is_some(), valid, "at {base}");
    }
}
