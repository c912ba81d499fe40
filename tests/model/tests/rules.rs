//! Walks through the model: with every rule no promise breaks, and without any one of them the named one does.
//!
//! `cargo test -p plinth-model -- --nocapture` prints how many states there were and how many steps a break takes.

use std::collections::{BTreeSet, HashMap};

use plinth_model::{Deletes, Law, Promise, Rule, Scope};
use stateright::{Checker, HasDiscoveries, Model};

const THREADS: usize = 2;

const NOTHING: Deletes = Deletes { slots: false, checkpoints: false, ended: false };
const SMALL: Scope = Scope {
    sessions: 3,
    shards: 1,
    records: 2,
    slots: 2,
    in_flight: 2,
    checkpoints: 0,
    late: 0,
    moves: false,
    deletes: NOTHING,
    incremental: false,
    payload: false,
    segments: 0,
    retention: false,
    reader: false,
};

/// Two shards in one log, a writer, and two that take over from it and from each other.
const WRITE: Scope = Scope { shards: 2, records: 3, slots: 3, ..SMALL };
/// Four sessions that race for one shard.
const CROWD: Scope = Scope { sessions: 4, records: 1, slots: 1, ..SMALL };
/// Checkpoints, some on top of others, that trim the log and replace each other.
const TRIM: Scope = Scope {
    checkpoints: 2,
    incremental: true,
    deletes: Deletes { slots: true, checkpoints: true, ended: false },
    ..SMALL
};
/// The logs of ended sessions go, while puts from long ago are still under way.
const ENDED: Scope = Scope {
    records: 1,
    slots: 1,
    checkpoints: 1,
    late: 1,
    deletes: Deletes { slots: true, checkpoints: true, ended: true },
    ..SMALL
};
/// Two shards, one of which goes to a session that owns nothing.
const MOVE: Scope = Scope { sessions: 2, shards: 2, checkpoints: 1, moves: true, ..SMALL };
/// One shard that moves, and what deletion does to it.
const MOVE_AND_DELETE: Scope = Scope {
    sessions: 2,
    checkpoints: 2,
    moves: true,
    payload: true,
    deletes: Deletes { slots: true, checkpoints: true, ended: true },
    ..SMALL
};
/// Records that leave the log for a segment, and are retired, while somebody reads.
const COMPACT: Scope = Scope {
    sessions: 2,
    records: 1,
    slots: 4,
    in_flight: 1,
    checkpoints: 2,
    payload: true,
    segments: 1,
    retention: true,
    reader: true,
    deletes: Deletes { slots: true, checkpoints: false, ended: true },
    ..SMALL
};
/// Two shards of two owners, and the sweep of one of them.
const SWEEP: Scope =
    Scope { sessions: 3, shards: 2, slots: 2, checkpoints: 1, retention: false, reader: false, ..COMPACT };

/// A rule, where it is switched off, and the promise that breaks.
const NEEDED: [(Rule, Scope, Promise); 38] = [
    (Rule::ContiguousPrefix, WRITE, Promise::Found),
    (Rule::FrozenBytes, WRITE, Promise::NothingForeign),
    (Rule::OwnWriteIsSuccess, WRITE, Promise::RefusedIsNotStored),
    (Rule::LookWhoIsThere, WRITE, Promise::Found),
    (Rule::ConflictWithNothing, WRITE, Promise::RefusedIsNotStored),
    (Rule::TimeOutTellsNothing, WRITE, Promise::RefusedIsNotStored),
    (Rule::NothingFoundTellsNothing, WRITE, Promise::RefusedIsNotStored),
    (Rule::PutOutlivesCaller, WRITE, Promise::NoSlotLeftBehind),
    (Rule::Synced, WRITE, Promise::Found),
    (Rule::StoreProbed, WRITE, Promise::BytesStay),
    (Rule::CheckpointFenceFirst, TRIM, Promise::Found),
    (Rule::CheckpointFenceLast, TRIM, Promise::Found),
    (Rule::CheckpointFencesKept, Scope { checkpoints: 1, deletes: ENDED.deletes, ..TRIM }, Promise::Found),
    (Rule::SearchFromTrim, TRIM, Promise::Found),
    (Rule::OneFurther, WRITE, Promise::Found),
    (Rule::LogEndsAtFence, WRITE, Promise::Prefix),
    (Rule::FencesKept, ENDED, Promise::Found),
    (Rule::LoserBacksOff, WRITE, Promise::Found),
    (Rule::ClaimsKept, Scope { deletes: ENDED.deletes, ..CROWD }, Promise::Chained),
    (Rule::ClaimAfterFence, WRITE, Promise::Found),
    (Rule::RestoreFirst, WRITE, Promise::Dense),
    (Rule::FencedStops, WRITE, Promise::NothingAboveFence),
    (Rule::RefuseFromEndOnly, ENDED, Promise::RefusedIsNotStored),
    (Rule::NewSessionId, WRITE, Promise::NothingForeign),
    (Rule::ReleaseIsCommitted, MOVE, Promise::ChainWhole),
    (Rule::StopBeforeRelease, MOVE, Promise::Found),
    (Rule::ReleasedStaysInCheckpoints, MOVE, Promise::Found),
    (Rule::DeleteAfterCheckpoint, TRIM, Promise::Found),
    (Rule::CheckpointAfterNext, TRIM, Promise::Found),
    (Rule::BasesStay, TRIM, Promise::ChainWhole),
    (Rule::AllShardsCovered, Scope { shards: 2, late: 0, ..ENDED }, Promise::ChainWhole),
    (Rule::ReleaserKeepsRecords, MOVE_AND_DELETE, Promise::Found),
    (Rule::Grace, COMPACT, Promise::ReaderServed),
    (Rule::SegmentBeforeLink, COMPACT, Promise::Found),
    (Rule::CompactionChecked, COMPACT, Promise::Found),
    (Rule::SweepEndedOnly, COMPACT, Promise::Found),
    (Rule::SweepByChain, SWEEP, Promise::Found),
    (Rule::StartMovesFirst, COMPACT, Promise::Found),
];

/// What breaks in a scope, with the number of steps to it; `until` says when it has seen enough.
fn broken(name: &str, law: Law, until: HasDiscoveries) -> HashMap<&'static str, usize> {
    let checker = law.checker().threads(THREADS).finish_when(until).spawn_bfs().join();
    println!("{name}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker
        .discoveries()
        .into_iter()
        .map(|(promise, path)| {
            let steps = path.into_actions();
            println!("  {promise}: {} steps {steps:?}", steps.len());
            (promise, steps.len())
        })
        .collect()
}

fn holds_in(name: &str, scope: Scope) {
    let broken = broken(name, Law { scope, without: None }, HasDiscoveries::AnyFailures);
    assert!(broken.is_empty(), "{name}: {broken:?}");
}

#[test]
fn every_promise_holds_while_two_shards_are_written_and_taken_over() {
    holds_in("write", WRITE);
}

#[test]
fn every_promise_holds_while_sessions_race_for_a_shard() {
    holds_in("crowd", CROWD);
}

#[test]
fn every_promise_holds_while_checkpoints_trim_the_log() {
    holds_in("trim", TRIM);
}

#[test]
fn every_promise_holds_while_logs_of_ended_sessions_are_deleted() {
    holds_in("ended", ENDED);
}

#[test]
fn every_promise_holds_while_shards_move() {
    holds_in("move", MOVE);
}

#[test]
fn every_promise_holds_while_a_shard_moves_and_logs_are_deleted() {
    holds_in("move and delete", MOVE_AND_DELETE);
}

#[test]
fn every_promise_holds_while_records_are_compacted_retired_and_read() {
    holds_in("compact", COMPACT);
}

#[test]
fn every_promise_holds_while_one_owner_sweeps_what_another_compacts() {
    holds_in("sweep", SWEEP);
}

#[test]
fn without_any_one_rule_a_promise_breaks() {
    for (rule, scope, promise) in NEEDED {
        let wanted = BTreeSet::from([promise.name()]);
        let law = Law { scope, without: Some(rule) };
        let broken = broken(&format!("without {rule:?}"), law, HasDiscoveries::AllOf(wanted));
        assert!(broken.contains_key(promise.name()), "without {rule:?} {promise:?} holds: {broken:?}");
    }
}

#[test]
fn every_rule_is_tried() {
    let tried: BTreeSet<Rule> = NEEDED.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(tried, BTreeSet::from(Rule::ALL));
}
