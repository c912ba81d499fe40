//! Seeds of the simulation, and the bugs that it finds.
//!
//! `SEED=4711 cargo test -p plinth-sim one_seed -- --exact --nocapture` runs one again and prints its trace, with
//! `BUG=LoserServes` beside it with that bug.
//! `PLINTH_SIM_SEEDS=5000` runs so many instead of those of CI, from `SEED` on (`make sim SEEDS=5000`).

use std::time::Instant;

use plinth_sim::{Report, run};
use plinth_storage::testing::bug::Bug;

/// How many seeds CI runs.
const SEEDS: u64 = 50;
/// More than so many failing seeds are not told one by one.
const TOLD_MAX: usize = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn bug(name: &str) -> Option<Bug> {
    let wanted = std::env::var(name).ok()?;
    let found = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == wanted);
    Some(found.unwrap_or_else(|| panic!("{name} is not a bug: {wanted}")))
}

fn told(report: &Report) -> String {
    let Report { seed, wrong, .. } = report;
    let first: Vec<&str> = wrong.iter().take(TOLD_MAX).map(String::as_str).collect();
    let again = format!("run it again: SEED={seed} cargo test -p plinth-sim one_seed -- --exact --nocapture");
    format!("seed {seed}, {} things are wrong:\n  {}\n{again}", wrong.len(), first.join("\n  "))
}

// Fails with every bug planted that the tests below plant.
#[test]
fn every_promise_holds_in_every_seed() {
    let (first, count) = (number("SEED").unwrap_or(1), number("PLINTH_SIM_SEEDS").unwrap_or(SEEDS));
    let begun = Instant::now();
    let (mut acknowledged, mut takeovers, mut purged, mut closed) = (0, 0, 0, 0);
    let (mut forked, mut kept) = (0, 0);
    let (mut deleted, mut failed) = (Vec::new(), Vec::new());
    for seed in first..first + count {
        let report = run(seed, None, false);
        acknowledged += report.acknowledged;
        takeovers += report.takeovers;
        purged += report.purged;
        closed += report.closed;
        forked += report.forked;
        kept += report.kept;
        deleted.push(report.deleted);
        if !report.wrong.is_empty() {
            println!("{}", told(&report));
            failed.push(report);
        }
    }
    let per_second = count as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {per_second:.1} per second: {acknowledged} publishes acknowledged, {takeovers} takeovers, {} objects \
         deleted, {purged} tenants purged, {closed} streams closed, {forked} forked, {kept} deleted with forks, {} wrong",
        deleted.iter().sum::<usize>(),
        failed.len()
    );
    let without = deleted.iter().filter(|deleted| **deleted == 0).count() as u64;
    assert!(without <= count / 2, "nothing was deleted in {without} of {count} seeds, which proves little");
    assert!(purged as u64 >= count / 3, "{purged} tenants were purged in {count} seeds, which proves little");
    assert!(closed as u64 >= 2 * count, "{closed} streams were closed in {count} seeds, which proves little");
    assert!(forked as u64 >= 5 * count && kept as u64 >= count, "{forked} forks, {kept} kept for some: proves little");
    let all: Vec<String> = failed.iter().take(TOLD_MAX).map(told).collect();
    assert!(failed.is_empty(), "{} of {count} seeds fail\n{}", failed.len(), all.join("\n"));
}

#[test]
fn one_seed() {
    let Some(seed) = number("SEED") else { return };
    let report = run(seed, bug("BUG"), true);
    println!("{}", report.lines.as_deref().unwrap_or_default());
    assert!(report.wrong.is_empty(), "{}", told(&report));
}

// Fails when the core asks the system for random numbers or the time, walks through a `HashMap`, selects without
// `biased`, or leaves work to another thread.
#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..6 {
        let (first, second) = (run(seed, None, true), run(seed, None, true));
        if first.trace != second.trace {
            let (first, second) = (first.lines.unwrap_or_default(), second.lines.unwrap_or_default());
            let differs = first.lines().zip(second.lines()).enumerate().find(|(_, (a, b))| a != b);
            panic!("seed {seed} has two histories; they part at {differs:?}");
        }
        assert_ne!(first.trace, run(seed + 1, None, false).trace, "another seed is another history");
    }
}

/// Runs seeds until one finds the bug; it must be one of the first `within`.
fn finds(bug: Bug, within: u64) {
    for seed in 1..=within {
        let report = run(seed, Some(bug), false);
        if let Some(first) = report.wrong.first() {
            println!("{bug:?} is found by seed {seed}: {first}");
            return;
        }
    }
    panic!("{bug:?} is not found by {within} seeds");
}

macro_rules! found {
    ($($name:ident: $bug:ident within $within:literal,)*) => {
        $(
            #[test]
            fn $name() {
                finds(Bug::$bug, $within);
            }
        )*

        #[test]
        fn every_bug_is_tried() {
            assert_eq!([$(Bug::$bug),*], Bug::ALL);
        }
    };
}

found! {
    an_acknowledgement_before_the_put_is_found: AckBeforePut within 10,
    an_own_write_taken_for_a_conflict_is_found: OwnWriteIsConflict within 20,
    a_conflict_with_nothing_taken_for_a_fence_is_found: ConflictIsFence within 20,
    a_time_out_told_as_not_stored_is_found: TimeOutIsRefusal within 100,
    offsets_given_again_are_found: OffsetsGivenAgain within 150,
    records_served_before_their_commit_are_found: ServedBeforeCommit within 10,
    a_checksum_that_is_not_looked_at_is_found: ChecksumSkipped within 300,
    a_replay_that_leaves_out_a_slot_is_found: ReplayOneShort within 10,
    a_checkpoint_without_producers_is_found: ProducersForgotten within 10,
    a_checkpoint_without_closings_is_found: CloseForgotten within 10,
    a_step_stored_before_its_batch_is_found: StepWithoutBatch within 10,
    an_end_that_is_told_too_soon_is_found: EndToldBeforeCommit within 100,
    acknowledgements_out_of_order_are_found: AckOutOfOrder within 50,
    a_fence_that_is_ignored_is_found: FenceIgnored within 20,
    a_fence_below_data_is_found: FenceBelowData within 200,
    a_loser_that_serves_is_found: LoserServes within 200,
    a_delete_before_the_checkpoint_is_found: DeletedBeforeCheckpoint within 50,
    a_delete_within_the_grace_is_found: GraceIgnored within 10,
    a_deleted_fence_is_found: FenceDeleted within 10,
    a_delete_of_what_successors_wrote_is_found: StrangersDeleted within 500,
    a_delete_of_a_segment_before_its_link_is_found: UnlinkedDeleted within 200,
    a_deleted_part_of_a_checkpoint_is_found: PartDeleted within 50,
    a_start_that_goes_back_is_found: StartForgotten within 50,
    a_trim_of_what_forks_share_is_found: ForkTrimmed within 10,
    a_checkpoint_without_forks_is_found: ForkForgotten within 10,
    a_source_that_goes_before_its_forks_is_found: SourceGone within 10,
    a_source_that_stays_without_forks_is_found: SourceLeft within 10,
    a_gap_that_is_not_told_is_found: GapForgotten within 50,
    a_purge_that_leaves_slots_is_found: PurgeLeavesSlots within 10,
    a_purge_that_leaves_segments_is_found: PurgeLeavesSegments within 10,
    a_purge_that_leaves_parts_of_checkpoints_is_found: PurgeLeavesParts within 10,
}

// How often a seed finds each bug, or the one of `BUG`; for the figures above.
#[test]
fn how_often_bugs_are_found() {
    let Some(seeds) = number("PLINTH_SIM_BUG_SEEDS") else { return };
    for bug in bug("BUG").map_or(Bug::ALL.to_vec(), |bug| vec![bug]) {
        let begun = Instant::now();
        let found = (1..=seeds).filter(|seed| !run(*seed, Some(bug), false).wrong.is_empty()).count();
        println!("{bug:?}: {found} of {seeds} seeds, {:.1?}", begun.elapsed());
    }
}
