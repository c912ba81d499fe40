//! Tests of appends with terms.

use std::sync::atomic::{AtomicU64, Ordering};

use ulid::Ulid;

use super::*;
use crate::durability::Durability;
use crate::ids::{Offset, PartitionIndex, TopicId};
use crate::layout;
use crate::record::NewRecord;
use crate::shard::machine::{self, Run, SlotSummary};
use crate::shard::rows::{Row, TopicRow};
use crate::state::memory::MemoryState;
use crate::state::{Snapshot, StateOp, StateRow};
use crate::terms::StreamTerms;
use crate::wal::buffer::stream::Step;

const T: u64 = 1_700_000_000_000;
const DAY: u64 = 24 * 60 * 60 * 1000;

fn partition(index: u32) -> Partition {
    Partition { topic: TopicId(Ulid(1)), index: PartitionIndex(index) }
}

fn batch(records: usize) -> Batch {
    Batch::of(&vec![NewRecord::default(); records]).expect("valid")
}

fn producer(id: &'static str, epoch: u64, seq: u64) -> Terms {
    let id = Bytes::from_static(id.as_bytes());
    let once = Once::Producer(Producer { id, epoch: ProducerEpoch(epoch), seq: ProducerSeq(seq) });
    Terms { once: Some(once), ..Terms::default() }
}

fn key(key: u128, content: u128) -> Terms {
    Terms { once: Some(Once::Key(IdempotencyKey { key, content, home: partition(0) })), ..Terms::default() }
}

/// A core and the state below it; slots are committed by hand.
struct Rig {
    state: MemoryState,
    core: Core,
    now: u64,
    slots: u64,
}

impl Rig {
    fn new() -> Self {
        let state = MemoryState::new();
        let topic = TopicRow { partitions: 4 }.encode();
        state.write(&[StateOp::Put(layout::topic_key(partition(0).topic), topic)]).expect("written");
        Self { state, core: Core::new(), now: T, slots: 0 }
    }

    fn offer_to(&mut self, index: u32, terms: &Terms) -> Result<Accepted> {
        let offer = Offer { partition: partition(index), terms, now: Timestamp(self.now), want: Want::default() };
        self.core.append_if(&self.state, offer, batch(1))
    }

    /// The offset of a new append.
    fn new_at(&mut self, terms: &Terms) -> u64 {
        match self.offer_to(0, terms).expect("accepted") {
            Accepted::New(submitted) => submitted.base.0,
            Accepted::Known(known) => panic!("{known:?} is not new"),
        }
    }

    /// The offset of an append that was accepted before, and whether it is committed.
    fn known_at(&mut self, terms: &Terms) -> (u64, bool) {
        match self.offer_to(0, terms).expect("accepted") {
            Accepted::New(submitted) => panic!("{submitted:?} is new"),
            Accepted::Known(Known::Stored(receipt)) => (receipt.base.0, true),
            Accepted::Known(Known::Pending(receipt, _)) => (receipt.base.0, false),
        }
    }

    fn refused(&mut self, terms: &Terms) -> Kind {
        self.offer_to(0, terms).expect_err("refused").kind()
    }

    /// Applies the open buffer as one slot, but does not tell the core.
    fn apply(&mut self) -> (u64, SlotSummary) {
        let buffer = self.core.take();
        let runs = buffer.groups.iter().map(|(partition, batches)| Run {
            partition: *partition,
            base: batches[0].base,
            count: batches.iter().map(|batch| batch.batch.count()).sum(),
            position: 0,
            len: 0,
            first_timestamp: batches[0].timestamp,
            last_timestamp: batches[batches.len() - 1].timestamp,
        });
        let session = crate::ids::SessionId(Ulid(2));
        let slot = crate::ids::Slot(self.slots);
        self.slots += 1;
        let entries = buffer.partition_entries.clone();
        let summary = SlotSummary { session, slot, object_len: 0, runs: runs.collect(), entries };
        let (cluster, hash) = (crate::ids::ClusterId(Ulid(3)), crate::ids::ObjectHash(0));
        machine::apply(&self.state, &summary, &[], (cluster, hash)).expect("applied");
        (buffer.sequence, summary)
    }

    fn commit(&mut self) {
        let (sequence, summary) = self.apply();
        self.core.committed_up_to(sequence, &[], &summary.entries);
    }
}

const fn sequence(expected: u64) -> Kind {
    Kind::Refused(Refusal::Sequence { expected: ProducerSeq(expected), new_epoch: false })
}

// Fails when only the committed state, or only what is pending, is looked at.
#[test]
fn a_producers_sequence_goes_on_over_what_is_committed_and_pending() {
    let mut rig = Rig::new();
    assert_eq!(rig.refused(&producer("p", 0, 1)), sequence(0), "a new producer begins at 0");
    assert_eq!(rig.new_at(&producer("p", 0, 0)), 0);
    assert_eq!(rig.known_at(&producer("p", 0, 0)), (0, false));
    assert_eq!(rig.refused(&producer("p", 0, 2)), sequence(1));
    assert_eq!(rig.new_at(&producer("p", 0, 1)), 1);
    rig.commit();
    assert_eq!(rig.new_at(&producer("p", 0, 2)), 2);
    assert_eq!([0, 1, 2].map(|seq| rig.known_at(&producer("p", 0, seq))), [(0, true), (1, true), (2, false)]);
    assert_eq!(rig.new_at(&producer("other", 9, 0)), 3, "another producer has a sequence of its own");
    assert_eq!(rig.refused(&producer("p", 0, 4)), sequence(3));
}

// Fails when what is in the state already and still pending is counted twice.
#[test]
fn between_the_commit_and_the_word_of_it_a_batch_counts_once_and_is_not_called_stored() {
    let mut rig = Rig::new();
    rig.new_at(&producer("p", 0, 0));
    rig.commit();
    rig.new_at(&producer("p", 0, 1));
    let (buffer, summary) = rig.apply();
    assert_eq!(rig.known_at(&producer("p", 0, 0)), (0, true));
    assert_eq!(rig.known_at(&producer("p", 0, 1)), (1, false));
    assert_eq!(rig.new_at(&producer("p", 0, 2)), 2);
    rig.core.committed_up_to(buffer, &[], &summary.entries);
    assert_eq!(rig.known_at(&producer("p", 0, 1)), (1, true));
    assert_eq!(rig.known_at(&producer("p", 0, 2)), (2, false));
}

// Fails when undoing a buffer keeps what it was to remember: its batch could never be stored.
#[test]
fn what_is_given_back_is_not_remembered() {
    let mut rig = Rig::new();
    rig.new_at(&producer("p", 0, 0));
    rig.core.take();
    let token = Terms { fencing_token: Some(FencingToken(7)), ..producer("p", 0, 1) };
    assert_eq!((rig.new_at(&token), rig.new_at(&key(1, 1))), (1, 2));
    rig.core.undo_late();
    assert_eq!(rig.new_at(&Terms { fencing_token: Some(FencingToken(3)), ..producer("p", 0, 1) }), 1);
    assert_eq!(rig.new_at(&key(1, 2)), 2);
    assert_eq!(rig.known_at(&producer("p", 0, 0)), (0, false), "what was sealed before is still there");
}

#[test]
fn a_later_epoch_ends_those_before_it_and_begins_at_0() {
    let mut rig = Rig::new();
    rig.new_at(&producer("p", 3, 0));
    rig.new_at(&producer("p", 3, 1));
    assert_eq!(
        rig.refused(&producer("p", 4, 1)),
        Kind::Refused(Refusal::Sequence { expected: ProducerSeq(0), new_epoch: true })
    );
    assert_eq!(rig.new_at(&producer("p", 4, 0)), 2);
    rig.commit();
    let stale = Kind::Refused(Refusal::ProducerEpoch { epoch: ProducerEpoch(4) });
    assert_eq!(rig.refused(&producer("p", 3, 2)), stale);
    assert_eq!(rig.refused(&producer("p", 3, 1)), stale, "also what it had stored");
    assert_eq!(rig.known_at(&producer("p", 4, 0)), (2, true));
}

#[test]
fn a_sequence_whose_receipt_is_gone_is_refused_and_not_stored_again() {
    let mut rig = Rig::new();
    for seq in 0..80 {
        rig.new_at(&producer("p", 0, seq));
        rig.commit();
    }
    assert_eq!(rig.known_at(&producer("p", 0, 16)), (16, true));
    assert_eq!(rig.refused(&producer("p", 0, 15)), sequence(80));
}

#[test]
fn an_idle_producer_is_forgotten_and_never_taken_for_one_that_goes_on() {
    let mut rig = Rig::new();
    rig.new_at(&producer("p", 0, 0));
    rig.commit();
    rig.now = T + 7 * DAY - 1;
    assert_eq!(rig.known_at(&producer("p", 0, 0)), (0, true));
    rig.now += 1;
    assert_eq!(rig.refused(&producer("p", 0, 1)), sequence(0));
    assert_eq!(rig.new_at(&producer("p", 0, 0)), 1);
    rig.commit();
    assert_eq!(rig.known_at(&producer("p", 0, 0)), (1, true));
}

#[test]
fn a_key_gives_the_first_receipt_for_a_day_and_refuses_other_content() {
    let mut rig = Rig::new();
    assert_eq!(rig.new_at(&key(1, 10)), 0);
    assert_eq!(rig.known_at(&key(1, 10)), (0, false));
    assert_eq!(rig.refused(&key(1, 11)), Kind::Refused(Refusal::OtherContent));
    rig.commit();
    assert_eq!(rig.known_at(&key(1, 10)), (0, true));
    assert_eq!(rig.refused(&key(1, 11)), Kind::Refused(Refusal::OtherContent));
    assert_eq!(rig.new_at(&key(2, 11)), 1);
    rig.now = T + DAY;
    assert_eq!(rig.new_at(&key(1, 11)), 2, "after a day the key is free");
}

// Fails when a key is known only to the partitions that its records went to.
#[test]
fn other_content_is_refused_also_when_it_goes_to_another_partition() {
    let mut rig = Rig::new();
    assert!(matches!(rig.offer_to(1, &key(1, 10)), Ok(Accepted::New(_))));
    for committed in [false, true] {
        let other = rig.offer_to(2, &key(1, 11)).expect_err("refused").kind();
        assert_eq!(other, Kind::Refused(Refusal::OtherContent), "committed: {committed}");
        rig.commit();
    }
    assert!(matches!(rig.offer_to(2, &key(1, 10)), Ok(Accepted::New(_))), "another share of the same request");
    assert!(matches!(rig.offer_to(0, &key(1, 10)), Ok(Accepted::New(_))), "and the share of its home");
    rig.commit();
    for index in 0..3 {
        assert!(matches!(rig.offer_to(index, &key(1, 10)), Ok(Accepted::Known(Known::Stored(_)))), "{index}");
    }
}

#[test]
fn the_expected_tail_is_the_next_offset_with_what_is_pending() {
    let mut rig = Rig::new();
    let at = |tail| Terms { expected_tail: Some(Offset(tail)), ..Terms::default() };
    let mismatch = |tail| Kind::Refused(Refusal::Tail { tail: Offset(tail) });
    assert_eq!(rig.new_at(&at(0)), 0);
    assert_eq!(rig.refused(&at(0)), mismatch(1));
    assert_eq!(rig.new_at(&at(1)), 1);
    rig.commit();
    assert_eq!((rig.refused(&at(1)), rig.refused(&at(3))), (mismatch(2), mismatch(2)));
    let once = Terms { expected_tail: Some(Offset(2)), ..key(1, 1) };
    assert_eq!(rig.new_at(&once), 2);
    assert_eq!(rig.known_at(&once), (2, false), "a repeated append was stored, whatever the tail is by now");
}

#[test]
fn a_lower_fencing_token_is_refused_and_an_append_without_one_is_not_concerned() {
    let mut rig = Rig::new();
    let with = |token| Terms { fencing_token: Some(FencingToken(token)), ..Terms::default() };
    let highest = |token| Kind::Refused(Refusal::FencingToken { token: FencingToken(token) });
    rig.new_at(&with(5));
    assert_eq!(rig.refused(&with(4)), highest(5));
    rig.new_at(&with(5));
    rig.commit();
    assert_eq!(rig.refused(&with(4)), highest(5));
    rig.new_at(&with(6));
    assert_eq!(rig.refused(&with(5)), highest(6));
    rig.new_at(&Terms::default());
}

#[test]
fn a_refused_append_leaves_nothing_behind() {
    let mut rig = Rig::new();
    rig.new_at(&producer("p", 0, 0));
    let terms = Terms { expected_tail: Some(Offset(9)), fencing_token: Some(FencingToken(9)), ..producer("p", 0, 1) };
    rig.offer_to(0, &terms).expect_err("refused");
    let low = Terms { fencing_token: Some(FencingToken(1)), ..producer("p", 0, 1) };
    assert_eq!(rig.new_at(&low), 1, "neither the sequence nor the token of what was refused counts");
    assert_eq!(rig.core.open.partition_entries.len(), 3);
}

#[test]
fn a_partition_remembers_only_so_much_and_says_so() {
    let mut rig = Rig::new();
    rig.core.remembered_max = 3;
    for number in 0..3 {
        rig.new_at(&key(number, 0));
        rig.commit();
    }
    for id in ["a", "b", "c"] {
        rig.new_at(&producer(id, 0, 0));
        rig.commit();
    }
    assert_eq!(rig.refused(&key(3, 0)), Kind::Busy);
    assert_eq!(rig.refused(&producer("d", 0, 0)), Kind::Busy);
    assert_eq!(rig.known_at(&key(2, 0)), (2, true), "what is remembered is answered");
    rig.new_at(&producer("a", 0, 1));
    rig.now = T + 2 * DAY;
    rig.new_at(&key(3, 0));
    assert_eq!(rig.refused(&producer("d", 0, 0)), Kind::Busy, "producers are remembered longer");
    rig.now = T + 15 * DAY;
    rig.new_at(&producer("d", 0, 0));
}

#[test]
fn after_a_stop_what_is_known_is_answered_and_nothing_new_is_accepted() {
    let mut rig = Rig::new();
    rig.new_at(&producer("p", 0, 0));
    rig.core.stopped = Some((Kind::Closed, std::sync::Arc::from("closed")));
    assert_eq!(rig.known_at(&producer("p", 0, 0)), (0, false));
    assert_eq!(rig.refused(&producer("p", 0, 1)), Kind::Closed);
}

/// Counts how often rows of producers are looked up.
struct Counting(MemoryState, AtomicU64);

impl StateStore for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let is_producer = key[0] == layout::producer_key(partition(0), 0, b"p")[0];
        self.1.fetch_add(u64::from(is_producer), Ordering::Relaxed);
        self.0.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>> {
        self.0.scan(from, to, limit)
    }

    fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>> {
        self.0.last_at_or_before(from, upto)
    }

    fn write(&self, ops: &[StateOp]) -> Result<()> {
        self.0.write(ops)
    }

    fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
        self.0.load(rows)
    }

    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn close(&self) {
        self.0.close();
    }
}

#[test]
fn a_step_of_a_stream_looks_its_producer_up_once() {
    let mut rig = Rig::new();
    rig.new_at(&producer("p", 0, 0));
    rig.commit();
    let Rig { state, mut core, .. } = rig;
    let state = Counting(state, AtomicU64::new(0));
    for (seq, duplicate) in [(0, true), (1, false)] {
        let producer = Producer { id: "p".into(), epoch: ProducerEpoch(0), seq: ProducerSeq(seq) };
        let terms = StreamTerms { producer: Some(producer), ..StreamTerms::default() };
        let step = Step::new(partition(0), Timestamp(T), &terms, Durability::Object);
        let accepted = core.step(&state, step, Some(batch(1))).expect("accepted");
        assert_eq!((accepted.duplicate, state.1.swap(0, Ordering::Relaxed)), (duplicate, 1));
    }
}
