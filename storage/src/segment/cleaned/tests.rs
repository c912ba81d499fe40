//! Cleanings against the state alone: when one is applied, and what it changes.

use ulid::Ulid;

use super::*;
use crate::segment::link::{Link, SegmentRun};
use crate::shard::index::last_run;
use crate::shard::trim::tests::{Made, apply_slot, partition, with_runs};
use crate::state::memory::MemoryState;

const RUNS: [Made; 3] = [
    Made { count: 3, len: 100, times: (1, 2) },
    Made { count: 2, len: 50, times: (3, 4) },
    Made { count: 4, len: 200, times: (5, 6) },
];

/// Three runs, of which the first two stand in segments, side by side or as one.
fn state(joined: bool) -> MemoryState {
    let state = with_runs(&RUNS);
    let run = |base, count, len, time| SegmentRun {
        partition: partition(),
        base: Offset(base),
        count,
        position: 0,
        len,
        first_timestamp: Timestamp(time),
    };
    let runs = if joined { vec![run(0, 5, 150, 1)] } else { vec![run(0, 3, 100, 1), run(3, 2, 50, 3)] };
    let link = Link { segment: SegmentId(Ulid(8)), object_len: 900, content_len: 150, runs };
    apply_slot(&state, 3, None, vec![Entry::Link(link)]).expect("applied");
    state
}

fn run(base: u64, count: u32, len: u32, kept: u32) -> CleanedRun {
    CleanedRun {
        segment: SegmentId(Ulid(9)),
        object_len: 500,
        content_len: 90,
        base: Offset(base),
        count,
        position: 0,
        len,
        kept,
        first_timestamp: Timestamp(1),
        last_timestamp: Timestamp(4),
    }
}

fn cleaned() -> Cleaned {
    let clean = CleanRow { to: Offset(5), tombstones: 1, ..CleanRow::default() };
    Cleaned { partition: partition(), clean, rows: 2, bytes: 150, runs: vec![run(0, 5, 60, 2)] }
}

fn bases(state: &MemoryState) -> Vec<u64> {
    let (from, to) = (layout::index_key(partition(), Offset(0)), layout::index_key(partition(), Offset(u64::MAX)));
    let rows = state.scan(&from, &to, 100).expect("readable");
    rows.iter().map(|(key, _)| layout::index_base(key).expect("an index key").0).collect()
}

fn bytes(state: &MemoryState) -> u64 {
    partition_row(state, partition()).expect("readable").map_or(0, |row| row.bytes)
}

// Fails when rows after it, a run of the same slot, or the bytes before the runs are not looked at.
#[test]
fn a_cleaning_replaces_the_rows_and_says_what_is_left() {
    for with_run in [false, true] {
        let state = state(false);
        let made = with_run.then_some(Made { count: 1, len: 30, times: (7, 7) });
        apply_slot(&state, 4, made, vec![Entry::Cleaned(cleaned())]).expect("applied");
        assert_eq!(bases(&state), if with_run { &[0, 5, 9][..] } else { &[0, 5] });
        assert_eq!(bytes(&state), 60 + 200 + if with_run { 30 } else { 0 });
        let (_, row) = last_run(&state, partition(), Offset(4)).expect("readable").expect("a run");
        assert_eq!(row, run(0, 5, 60, 2).row(150 - 60));
        let known = CleanRow::load(&state, partition()).expect("readable");
        assert_eq!(known, Some(CleanRow { published: 150, ..cleaned().clean }));
        // Applied again it changes nothing.
        apply_slot(&state, 5, None, vec![Entry::Cleaned(cleaned())]).expect("applied");
        assert_eq!((bases(&state)[0], bytes(&state)), (0, 260 + if with_run { 30 } else { 0 }));
    }
}

// Fails when one of the conditions is left out: a run would be lost, come back, or name what is elsewhere.
#[test]
fn a_cleaning_of_other_rows_than_there_are_changes_nothing() {
    let trim = |start| Entry::Trim { partition: partition(), start: Offset(start) };
    let first = |change: fn(&mut CleanedRun)| {
        let mut cleaned = cleaned();
        change(&mut cleaned.runs[0]);
        cleaned
    };
    let of_wal = Cleaned { rows: 3, bytes: 350, runs: vec![run(0, 9, 60, 2)], ..cleaned() };
    let two = Cleaned { rows: 1, runs: vec![run(0, 3, 30, 1), run(3, 2, 30, 1)], ..cleaned() };
    for (what, joined, before, entries) in [
        ("a row less", false, None, vec![Entry::Cleaned(Cleaned { rows: 1, ..cleaned() })]),
        ("a row more", false, None, vec![Entry::Cleaned(Cleaned { rows: 3, ..cleaned() })]),
        ("other bytes", false, None, vec![Entry::Cleaned(Cleaned { bytes: 151, ..cleaned() })]),
        ("another time", false, None, vec![Entry::Cleaned(first(|run| run.first_timestamp = Timestamp(2)))]),
        ("another end", false, None, vec![Entry::Cleaned(first(|run| run.count = 6))]),
        ("a run of a slot", false, None, vec![Entry::Cleaned(of_wal)]),
        ("a trim before", false, Some(3), vec![Entry::Cleaned(cleaned())]),
        ("a start in a later run", true, Some(4), vec![Entry::Cleaned(two)]),
        ("a trim beside it", false, None, vec![trim(1), Entry::Cleaned(cleaned())]),
        ("a trim after it", false, None, vec![Entry::Cleaned(cleaned()), trim(1)]),
    ] {
        let state = state(joined);
        if let Some(start) = before {
            apply_slot(&state, 4, None, vec![trim(start)]).expect("applied");
        }
        let (rows, kept) = (bases(&state), bytes(&state));
        apply_slot(&state, 5, None, entries).expect("applied");
        assert_eq!((bases(&state), bytes(&state)), (rows, kept), "{what}");
        assert_eq!(CleanRow::load(&state, partition()).expect("readable"), None, "{what}");
    }
}

#[test]
fn a_topic_that_is_deleted_in_the_same_slot_leaves_no_row() {
    let delete = || Entry::DeleteTopic { topic: partition().topic };
    for entries in [vec![delete(), Entry::Cleaned(cleaned())], vec![Entry::Cleaned(cleaned()), delete()]] {
        let state = state(false);
        apply_slot(&state, 4, None, entries).expect("applied");
        let left = state.snapshot().filter(|row| row.as_ref().is_ok_and(|(key, _)| layout::is_checkpointed(key)));
        assert_eq!(left.count(), 0);
    }
}
