//! Tests of what partitions remember.

use ulid::Ulid;

use super::*;
use crate::ids::{PartitionIndex, TopicId};
use crate::state::memory::MemoryState;

const HOUR: u64 = 60 * 60 * 1000;
const T: u64 = 1_700_000_000_000;

fn partition() -> Partition {
    Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(3) }
}

fn receipt(base: u64, count: u32, timestamp: u64) -> Receipt {
    Receipt { base: Offset(base), count, timestamp: Timestamp(timestamp) }
}

fn produced(id: &'static str, seq: u64, receipt: Receipt) -> Entry {
    let id = Bytes::from_static(id.as_bytes());
    Entry::Produced { partition: partition(), id, epoch: ProducerEpoch(0), seq: ProducerSeq(seq), receipt }
}

fn keyed(key: u128, receipt: Receipt) -> Entry {
    Entry::Keyed { partition: partition(), key, content: key, receipt }
}

/// Applies entries as those of one slot.
fn apply(state: &MemoryState, entries: &[Entry]) {
    let mut remember = Remember::new(state);
    entries.iter().for_each(|entry| remember.apply(entry).expect("applied"));
    state.write(&remember.finish()).expect("written");
}

fn producer(state: &MemoryState, id: &str, at: u64) -> Option<ProducerRow> {
    let row = producer_row(|key| state.get(key), partition(), id.as_bytes(), Timestamp(at)).expect("readable");
    row.map(|(_, row)| row)
}

fn rows(state: &MemoryState) -> usize {
    state.snapshot().count()
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn the_rows_are_what_they_were_in_version_1() {
    let mut golden = Bytes::from_static(include_bytes!("golden_v1.bin"));
    let mut next = || {
        let len = golden.get_u32_le() as usize;
        golden.split_to(len)
    };
    let producer = ProducerRow::first(ProducerEpoch(2), ProducerSeq(41), receipt(1000, 5, T))
        .after(ProducerEpoch(2), ProducerSeq(42), receipt(1005, 1, T + 1))
        .after(ProducerEpoch(2), ProducerSeq(43), receipt(1300, 2, T + 1));
    let stored = next();
    assert_eq!((producer.encode(), ProducerRow::parse(stored.clone()).expect("valid")), (stored, producer));
    let key = KeyRow { content: 0xdef, receipt: receipt(1005, 1, T + 1) };
    let stored = next();
    assert_eq!((key.encode(), KeyRow::parse(stored.clone()).expect("valid")), (stored, key));
    let terms = TermsRow {
        token: FencingToken(34),
        producers: Tally { newest: 5, counts: [7, 0, 1] },
        keys: Tally { newest: 39, counts: [2, 3, 4] },
    };
    let stored = next();
    assert_eq!((terms.encode(), TermsRow::parse(stored.clone()).expect("valid")), (stored, terms));
}

#[test]
fn a_broken_producer_row_is_noticed() {
    let whole = ProducerRow::first(ProducerEpoch(2), ProducerSeq(41), receipt(1000, 5, T)).encode();
    for len in 0..whole.len() {
        assert!(ProducerRow::parse(whole.slice(..len)).is_err(), "cut to {len}");
    }
    let mut huge = BytesMut::from(&whole[..]);
    huge.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 1]);
    assert!(ProducerRow::parse(huge.freeze()).is_err(), "an offset beyond all numbers");
}

#[test]
fn a_producer_keeps_its_last_receipts_and_a_new_epoch_keeps_only_its_own() {
    let mut row = ProducerRow::first(ProducerEpoch(0), ProducerSeq(0), receipt(0, 1, T));
    for seq in 1..=100 {
        row = row.after(ProducerEpoch(0), ProducerSeq(seq), receipt(seq, 1, T));
    }
    let oldest = 101 - PRODUCER_RECEIPTS_MAX as u64;
    assert_eq!(row.receipt(ProducerSeq(100)), Some(receipt(100, 1, T)));
    assert_eq!(row.receipt(ProducerSeq(oldest)), Some(receipt(oldest, 1, T)));
    assert_eq!((row.receipt(ProducerSeq(oldest - 1)), row.receipt(ProducerSeq(101))), (None, None));
    assert!(row.encode().len() < 400, "a row of 64 receipts is small");
    let row = row.after(ProducerEpoch(1), ProducerSeq(0), receipt(101, 1, T));
    assert_eq!((row.receipt(ProducerSeq(0)), row.receipt(ProducerSeq(100))), (Some(receipt(101, 1, T)), None));
}

// Fails when the entries of a slot do not see those before them: the second batch would begin the row anew.
#[test]
fn batches_of_one_slot_continue_each_other() {
    let state = MemoryState::new();
    apply(&state, &[produced("p", 0, receipt(0, 1, T)), produced("p", 1, receipt(1, 2, T))]);
    let row = producer(&state, "p", T).expect("remembered");
    assert_eq!(
        (row.receipt(ProducerSeq(0)), row.receipt(ProducerSeq(1))),
        (Some(receipt(0, 1, T)), Some(receipt(1, 2, T)))
    );
}

// Fails when a row is left behind in its old bucket, when the tally counts it twice, or when old buckets are not dropped.
#[test]
fn rows_move_to_the_newest_bucket_and_old_buckets_are_dropped() {
    let state = MemoryState::new();
    apply(&state, &[produced("quiet", 0, receipt(0, 1, T)), produced("busy", 0, receipt(1, 1, T))]);
    for (seq, days) in [(1, 3), (2, 6), (3, 9), (4, 12), (5, 15)] {
        apply(&state, &[produced("busy", seq, receipt(seq + 1, 1, T + days * 24 * HOUR))]);
        let needed = terms_row(&state, partition()).expect("readable").producers;
        let at = PRODUCER_WINDOW.bucket(Timestamp(T + days * 24 * HOUR));
        let kept = state.scan(&[11], &[12], 10).expect("readable").len();
        assert_eq!(needed.needed(at) as usize, kept, "after {days} days");
    }
    let now = T + 15 * 24 * HOUR;
    assert_eq!(producer(&state, "busy", now).expect("remembered").last, ProducerSeq(5));
    assert_eq!(producer(&state, "quiet", now), None);
    assert_eq!(rows(&state), 2, "the busy producer and the tally");
}

#[test]
fn idempotency_keys_are_forgotten_after_a_day_and_dropped_later() {
    let state = MemoryState::new();
    let row = |key, at| key_row(&state, partition(), key, Timestamp(at)).expect("readable");
    apply(&state, &(0..10).map(|key| keyed(key, receipt(0, 1, T))).collect::<Vec<_>>());
    assert!(row(3, T + 24 * HOUR - 1).is_some());
    assert!(row(3, T + 24 * HOUR).is_none());
    apply(&state, &[keyed(100, receipt(1, 1, T + 20 * HOUR)), keyed(3, receipt(2, 1, T + 25 * HOUR))]);
    assert_eq!(row(3, T + 25 * HOUR).map(|row| row.receipt.base), Some(Offset(2)), "the newer one counts");
    apply(&state, &[keyed(101, receipt(3, 1, T + 40 * HOUR))]);
    assert!(row(3, T + 40 * HOUR).is_some());
    assert_eq!(state.scan(&[12], &[13], 100).expect("readable").len(), 3);
}

#[test]
fn a_tally_forgets_what_is_too_old_to_be_needed() {
    let mut tally = Tally::default();
    for (bucket, moved) in [(40, true), (40, false), (41, true), (42, true), (40, false), (39, false)] {
        assert_eq!(tally.add(bucket), moved, "{bucket}");
    }
    assert_eq!((tally.needed(42), tally.needed(43), tally.needed(44), tally.needed(45)), (5, 2, 1, 0));
    tally.remove(40);
    tally.remove(10);
    tally.remove(99);
    assert_eq!(tally.needed(42), 4);
    assert!(tally.add(1000));
    assert_eq!(tally.needed(1000), 1);
}

#[test]
fn a_fencing_token_never_goes_back() {
    let state = MemoryState::new();
    for (token, highest) in [(5, 5), (3, 5), (9, 9)] {
        apply(&state, &[Entry::Fenced { partition: partition(), token: FencingToken(token) }]);
        assert_eq!(terms_row(&state, partition()).expect("readable").token, FencingToken(highest));
    }
}

// Fails when what partitions remember is applied after the topic is gone, or the topic's ranges leave a kind out.
#[test]
fn a_topic_that_is_deleted_takes_along_what_its_partitions_remember_also_of_the_same_slot() {
    use crate::ids::{ClusterId, ObjectHash, SessionId, Slot};
    use crate::shard::machine::{self, SlotSummary};

    let state = MemoryState::new();
    let entries = || vec![produced("p", 0, receipt(0, 1, T)), keyed(1, receipt(1, 1, T))];
    apply(&state, &entries());
    let (session, hash) = (SessionId(Ulid(1)), ObjectHash(0));
    let entries = [entries(), vec![Entry::DeleteTopic { topic: partition().topic }]].concat();
    let slot = SlotSummary { session, slot: Slot(0), object_len: 0, runs: vec![], entries };
    machine::apply(&state, &slot, &[], (ClusterId(Ulid(2)), hash)).expect("applied");
    let left = state.snapshot().filter(|row| row.as_ref().is_ok_and(|(key, _)| layout::is_checkpointed(key)));
    assert_eq!(left.count(), 0);
}
