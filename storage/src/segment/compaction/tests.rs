//! Tests of how a window is divided into segments and links.

use ulid::Ulid;

use super::*;
use crate::ids::{Offset, Partition, PartitionIndex, Timestamp, TopicId};
use crate::record::{Batch, NewRecord, StoredBatch};

fn piece(index: u32, base: u64) -> Piece {
    let partition = Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(index) };
    let batch = Batch::of(&[NewRecord::default()]).unwrap();
    Piece::new(4, partition, vec![Arc::new(StoredBatch { base: Offset(base), timestamp: Timestamp(1), batch })])
}

// Fails when links are cut by runs alone, and when a run that is larger than a slot may be is left out.
#[test]
fn the_links_of_a_slot_are_bounded_in_runs_and_in_the_rows_that_they_replace() {
    let slots = |rows: &[usize]| slots_of_links(rows).collect::<Vec<_>>();
    assert!(slots(&[]).is_empty());
    assert_eq!(slots(&[LINK_ROWS_MAX, 1]), [0..1, 1..2]);
    assert_eq!(slots(&[1, LINK_ROWS_MAX - 1, LINK_ROWS_MAX + 1, 1]), [0..2, 2..3, 3..4]);
    assert_eq!(slots(&[1; LINK_RUNS_MAX + 1]), [0..LINK_RUNS_MAX, LINK_RUNS_MAX..LINK_RUNS_MAX + 1]);
}

// Fails when all pieces of a partition go into one segment, where they become one run.
#[test]
fn a_run_is_made_of_a_bounded_number_of_pieces() {
    let pieces = (0..=LINK_ROWS_MAX as u64).map(|base| piece(0, base)).chain([piece(1, 0), piece(2, 0)]).collect();
    let segments = plan(pieces, u64::MAX);
    let mut rows: Vec<Vec<usize>> =
        segments.iter().map(|pieces| conserve::rows_replaced(&conserve::expected(pieces), pieces)).collect();
    rows.sort();
    assert_eq!(rows, [vec![1], vec![1, 1], vec![LINK_ROWS_MAX]]);
}
