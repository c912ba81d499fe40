//! The rows of forks as they are stored, and what a lineage holds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::shard::changes::Entry;
use crate::state::memory::MemoryState;
use crate::state::{StateOp, StateStore};

fn partition(number: u64) -> Partition {
    only_partition(TopicId(Ulid::from_parts(number, 1)))
}

fn point(at: u64, cut: u32) -> ForkPoint {
    ForkPoint { at: Offset(at), cut: NonZeroU32::new(cut) }
}

fn ancestor(number: u64, end: u64, cut: u32) -> Ancestor {
    Ancestor { partition: partition(number), end: Offset(end), cut: NonZeroU32::new(cut) }
}

/// As the first version wrote them. Later builds read these bytes; never change them.
#[test]
fn rows_of_version_1_are_read() {
    let lineage = Lineage(vec![ancestor(7, 9, 4)]);
    let rows = [
        (ForkRow { forks: 3, ..ForkRow::default() }, "01030000000000"),
        (
            ForkRow { forks: 0, source: Some(partition(7)), lineage },
            concat!(
                "010000000001",
                "0000000000070000000000000000000100000000",
                "01",
                "0000000000070000000000000000000100000000",
                "090000000000000004000000"
            ),
        ),
    ];
    for (row, hex) in rows {
        let encoded = row.encode();
        let shown: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, hex);
        assert_eq!(ForkRow::parse(encoded.clone()).expect("a row"), row);
        for cut in 0..encoded.len() {
            assert!(ForkRow::parse(encoded.slice(..cut)).is_err(), "{cut}");
        }
    }
}

#[test]
fn a_fork_of_a_fork_names_those_that_hold_its_records_and_no_others() {
    let none = Lineage::default();
    let first = none.of_fork(partition(1), point(5, 0));
    assert_eq!(first, Lineage(vec![ancestor(1, 5, 0)]));
    let second = first.of_fork(partition(2), point(8, 3));
    assert_eq!(second, Lineage(vec![ancestor(1, 5, 0), ancestor(2, 8, 3)]));
    assert_eq!(second.of_fork(partition(3), point(4, 2)), Lineage(vec![ancestor(1, 4, 2)]));
    assert_eq!(second.of_fork(partition(3), point(5, 0)), first);
    assert_eq!(second.of_fork(partition(3), point(8, 2)), Lineage(vec![ancestor(1, 5, 0), ancestor(2, 8, 2)]));
    assert_eq!(second.of_fork(partition(3), point(8, 0)), second);
    assert_eq!(second.of_fork(partition(3), point(7, 0)), Lineage(vec![ancestor(1, 5, 0), ancestor(2, 7, 0)]));
    assert_eq!(none.of_fork(partition(1), point(0, 0)), none);
}

proptest! {
    // Fails when the smaller of two cuts of one record does not count, or an ancestor is left out.
    #[test]
    fn what_a_fork_inherits_is_what_its_source_shows(points in prop::collection::vec((0..20u64, 0..5u32, 0..5u64), 1..8)) {
        // Each record as the partition that holds it, and its bytes: of the root ten of ten bytes.
        let whole = 10;
        let mut source: Vec<(Partition, u32)> = (0..10).map(|_| (partition(0), whole)).collect();
        let mut lineage = Lineage::default();
        for (step, (at, cut, more)) in (1..).zip(points) {
            let at = at.min(source.len() as u64);
            let cut = if at == 0 || cut >= source[at as usize - 1].1 { 0 } else { cut };
            lineage = lineage.of_fork(partition(step - 1), point(at, cut));
            source.truncate(at as usize);
            if cut > 0 {
                source[at as usize - 1].1 = cut;
            }
            let mut shown = Vec::new();
            for (begin, ancestor) in lineage.parts() {
                let bytes = |offset: u64| if offset + 1 == ancestor.end.0 { ancestor.cut.map_or(whole, NonZeroU32::get) } else { whole };
                shown.extend((begin.0..ancestor.end.0).map(|offset| (ancestor.partition, bytes(offset))));
            }
            prop_assert_eq!(&shown, &source);
            prop_assert_eq!(lineage.own(), Offset(at));
            source.extend((0..more).map(|_| (partition(step), whole)));
        }
    }
}

// Fails when all that goes with a topic goes as ranges, when many rows go one by one, and when what the slot itself has set stays.
#[test]
fn few_rows_of_a_deleted_topic_go_one_by_one_and_many_as_a_range() {
    let state = MemoryState::new();
    let row = |key: Bytes| StateOp::Put(key, Bytes::from_static(b"row"));
    for (number, runs) in [(1, 3), (2, 100), (3, 1)] {
        let indices = (0..runs).map(|base| row(layout::index_key(partition(number), Offset(base))));
        let ops: Vec<StateOp> = indices.chain([row(layout::partition_key(partition(number)))]).collect();
        state.write(&ops).expect("written");
    }
    let ranges = |number: u64| {
        let topic = partition(number).topic;
        let forks = Forks::of(&state, &[Entry::DeleteTopic { topic }], &BTreeMap::new()).expect("the state is whole");
        let mut ops = vec![row(layout::stream_key(partition(number)))];
        forks.finish(&mut ops).expect("the state is whole");
        state.write(&ops).expect("written");
        ops.iter().filter(|op| matches!(op, StateOp::DeleteRange(..))).count()
    };
    assert_eq!((ranges(1), ranges(2)), (0, 1));
    let left: Vec<_> = state.snapshot().map(|row| row.expect("a row").0).collect();
    assert_eq!(left, [layout::partition_key(partition(3)), layout::index_key(partition(3), Offset(0))]);
}
