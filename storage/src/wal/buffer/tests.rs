//! Tests of the open buffer.

use ulid::Ulid;

use super::early::Want;
use super::*;
use crate::ids::PartitionIndex;
use crate::layout;
use crate::record::NewRecord;
use crate::shard::changes::Guard;
use crate::shard::changes::{DocOp, TopicOp};
use crate::state::StateOp;
use crate::state::memory::MemoryState;

fn partition() -> Partition {
    Partition { topic: TopicId(Ulid(1)), index: PartitionIndex(0) }
}

fn state() -> MemoryState {
    let state = MemoryState::new();
    let topic = crate::shard::rows::Row::encode(&crate::shard::rows::TopicRow { partitions: 1 });
    state.write(&[StateOp::Put(layout::topic_key(partition().topic), topic)]).expect("written");
    state
}

fn at(now: u64) -> At {
    At { partition: partition(), now: Timestamp(now), want: Want::default() }
}

fn batch(records: usize) -> Batch {
    Batch::of(&vec![NewRecord::default(); records]).expect("valid")
}

fn put(key: &'static [u8], value: &'static [u8], guards: Vec<Guard>) -> Change {
    let docs = vec![DocOp::Put(Bytes::from_static(key), Bytes::from_static(value))];
    Change { guards, docs, ..Change::default() }
}

// Fails when the offsets of a buffer that is given back stay used: the next append would leave a hole.
#[test]
fn what_is_undone_gives_its_offsets_and_documents_back() {
    let (state, mut core) = (state(), Core::new());
    core.append(&state, at(5), batch(2)).expect("accepted");
    core.change(&state, &put(b"k", b"1", vec![])).expect("accepted");
    core.take();
    core.append(&state, at(5), batch(3)).expect("accepted");
    core.change(&state, &put(b"k", b"2", vec![])).expect("accepted");
    core.undo_late();
    let again = core.append(&state, at(4), batch(1)).expect("accepted");
    assert_eq!((again.base, again.timestamp), (Offset(2), Timestamp(5)));
    let sealed = Guard::Equals(Bytes::from_static(b"k"), Bytes::from_static(b"1"));
    core.change(&state, &put(b"x", b"", vec![sealed])).expect("the sealed value is what counts");
}

#[test]
fn a_guard_sees_what_is_pending_and_a_failed_one_changes_nothing() {
    let (state, mut core) = (state(), Core::new());
    let absent = || vec![Guard::Absent(Bytes::from_static(b"k"))];
    core.change(&state, &put(b"k", b"1", absent())).expect("accepted");
    let entries = core.open.entries.len();
    assert_eq!(core.change(&state, &put(b"k", b"2", absent())).expect_err("there").kind(), Kind::Conflict);
    assert_eq!(core.open.entries.len(), entries);
}

#[test]
fn a_topic_that_is_being_deleted_takes_nothing() {
    let (state, mut core) = (state(), Core::new());
    core.append(&state, at(0), batch(1)).expect("accepted");
    let delete = Change { topics: vec![TopicOp::Delete { topic: partition().topic }], ..Change::default() };
    core.change(&state, &delete).expect("accepted");
    assert_eq!(core.append(&state, at(0), batch(1)).expect_err("gone").kind(), Kind::NotFound);
}

#[test]
fn nothing_is_accepted_after_a_stop_and_the_reason_is_given() {
    let (state, mut core) = (state(), Core::new());
    core.stopped = Some((Kind::Fenced, Arc::from("session 1 was ended by session 2")));
    let error = core.append(&state, at(0), batch(1)).expect_err("stopped");
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Fenced, "session 1 was ended by session 2"));
}

// Fails when what is known of the partitions of a topic stays when it is gone, or goes when its deletion is undone.
#[test]
fn partitions_are_forgotten_when_the_deletion_of_their_topic_is_committed() {
    let (state, mut core) = (state(), Core::new());
    core.append(&state, at(5), batch(2)).expect("accepted");
    let delete = Change { topics: vec![TopicOp::Delete { topic: partition().topic }], ..Change::default() };
    core.change(&state, &delete).expect("accepted");
    assert_eq!(core.append(&state, at(5), batch(1)).expect_err("going").kind(), Kind::NotFound);
    core.undo_late();
    core.append(&state, at(5), batch(1)).expect("it stays");
    core.change(&state, &delete).expect("accepted");
    let sealed = core.take();
    core.committed_up_to(sealed.sequence, &[], &sealed.entries);
    assert!(core.partitions.is_empty() && core.deleting.is_empty());
}

// Fails when every partition that is looked at is held, and when one is forgotten to which something was given that is not committed.
#[test]
fn a_look_at_many_partitions_holds_few_of_them_and_forgets_none_that_is_in_use() {
    let (state, mut core) = (state(), Core::new());
    let topic = crate::shard::rows::Row::encode(&crate::shard::rows::TopicRow { partitions: 50 });
    state.write(&[StateOp::Put(layout::topic_key(partition().topic), topic)]).expect("written");
    core.append(&state, at(5), batch(2)).expect("accepted");
    for index in 0..50 {
        core.partitions_max = 8;
        core.bounds(&state, Partition { index: PartitionIndex(index), ..partition() }).expect("there");
        assert!(core.partitions.len() <= 8, "{} are held", core.partitions.len());
    }
    assert_eq!(core.append(&state, at(5), batch(1)).expect("accepted").base, Offset(2));
}
