//! Tests of where retention wants a start, against the state alone.

use super::*;
use crate::shard::changes::Entry;
use crate::shard::trim::tests::{Made, apply_slot, as_version_1, partition, with_runs};
use crate::state::StateOp;
use crate::state::memory::MemoryState;

fn wanted(state: &MemoryState, age_ms: u64, bytes: u64, now: u64) -> u64 {
    let row = partition_row(state, partition()).expect("readable").expect("a row");
    let retention = RetentionRow { age_ms, bytes };
    start_of(state, partition(), &row, &retention, Timestamp(now)).expect("found").0
}

fn run(len: u32, first: u64, last: u64) -> Made {
    Made { count: 2, len, times: (first, last) }
}

// Fails when a run goes while its newest record is young enough, or when the whole of the last run never goes.
#[test]
fn by_age_a_run_goes_when_its_newest_record_is_too_old() {
    let state = with_runs(&[run(1, 10, 20), run(1, 30, 30), run(1, 40, 90)]);
    for (oldest, start) in [(0, 0), (10, 0), (20, 0), (21, 2), (30, 2), (31, 4), (40, 4), (89, 4), (90, 4), (91, 6)] {
        assert_eq!(wanted(&state, 1000, 0, 1000 + oldest), start, "{oldest}");
    }
    // Nothing is older than the epoch.
    assert_eq!(wanted(&state, 1000, 0, 5), 0);
}

// Fails when the newest run goes too (`next < row.tail`), or when a run too many stays or goes.
#[test]
fn by_bytes_the_oldest_runs_go_until_the_rest_fits_and_the_newest_stays() {
    let state = with_runs(&[run(100, 1, 1), run(200, 2, 2), run(300, 3, 3)]);
    for (limit, start) in [(601, 0), (600, 0), (599, 2), (500, 2), (499, 4), (300, 4), (299, 4), (1, 4)] {
        assert_eq!(wanted(&state, 0, limit, 9), start, "{limit}");
    }
    // What is gone does not count: one more run of 100 bytes fits again.
    apply_slot(&state, 3, None, vec![Entry::Trim { partition: partition(), start: Offset(4) }]).expect("applied");
    apply_slot(&state, 4, Some(run(100, 4, 4)), vec![]).expect("applied");
    for (limit, start) in [(400, 4), (399, 6)] {
        assert_eq!(wanted(&state, 0, limit, 9), start, "{limit} after a trim");
    }
}

#[test]
fn both_limits_hold_and_the_narrower_one_decides() {
    let state = with_runs(&[run(100, 10, 10), run(100, 20, 20), run(100, 30, 30)]);
    assert_eq!(wanted(&state, 1000, 200, 1000), 2);
    assert_eq!(wanted(&state, 1000, 200, 1021), 4);
    assert_eq!(wanted(&state, 1000, 200, 1031), 6);
}

// Of runs of version 1 neither the bytes before them nor the time of their last record are known.
#[test]
fn runs_of_version_1_stay_until_what_is_known_says_that_they_go() {
    let runs = [run(100, 10, 20), run(200, 30, 60), run(300, 70, 80), run(400, 90, 90)];
    let state = with_runs(&runs);
    as_version_1(&state, 2);
    for (limit, start) in [(1000, 0), (999, 0), (700, 0), (699, 6), (400, 6), (1, 6)] {
        assert_eq!(wanted(&state, 0, limit, 9), start, "{limit}");
    }
    for (oldest, start) in [(10, 0), (21, 0), (30, 0), (31, 2), (61, 2), (70, 2), (71, 4), (81, 6), (91, 8)] {
        assert_eq!(wanted(&state, 1000, 0, 1000 + oldest), start, "{oldest}");
    }
}

/// `topics` topics of three partitions each; none has a record.
fn topics(topics: u128) -> MemoryState {
    let state = MemoryState::new();
    for topic in 1..=topics {
        let topic = TopicId(ulid::Ulid(topic));
        let row = crate::shard::rows::TopicRow { partitions: 3 }.encode();
        let retention = RetentionRow { age_ms: 1, bytes: 0 }.encode();
        let ops = [StateOp::Put(layout::topic_key(topic), row), StateOp::Put(layout::retention_key(topic), retention)];
        state.write(&ops).expect("written");
    }
    state
}

// Fails when a turn begins at the first topic each time: the others would never be looked at.
#[test]
fn turns_go_on_where_the_last_one_stopped_and_begin_anew_at_the_end() {
    let state = topics(600);
    let mut from = None;
    let mut turns = Vec::new();
    for _ in 0..4 {
        let turn = look(&state, from, 700, Timestamp(5)).expect("looked");
        from = turn.next;
        turns.push(from.map(|next| (next.topic.0.0, next.index.0)));
    }
    // 700 looks are 233 topics and one partition.
    assert_eq!(turns, [Some((234, 1)), Some((467, 2)), None, Some((234, 1))]);
}

#[test]
fn a_topic_that_was_deleted_does_not_stop_a_turn() {
    let state = topics(3);
    state.write(&[StateOp::Delete(layout::topic_key(TopicId(ulid::Ulid(2))))]).expect("written");
    let turn = look(&state, None, 6, Timestamp(5)).expect("looked");
    assert_eq!(turn.next, Some(Partition { topic: TopicId(ulid::Ulid(3)), index: PartitionIndex(2) }));
    // The next one goes on there, although that topic is gone by then too.
    state.write(&[StateOp::Delete(layout::retention_key(TopicId(ulid::Ulid(3))))]).expect("written");
    assert_eq!(look(&state, turn.next, 6, Timestamp(5)).expect("looked"), Turn::default());
}
