//! Tests of layers against a plain map, of the sizes of parts, and of the stored forms.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ulid::Ulid;

use super::format::read_op;
use super::*;
use crate::ids::ObjectHash;

const KEYS: u8 = 12;

fn key(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[number])
}

fn op() -> impl Strategy<Value = StateOp> {
    prop_oneof![
        5 => (0..KEYS, any::<u8>()).prop_map(|(at, value)| StateOp::Put(key(at), key(value))),
        3 => (0..KEYS).prop_map(|at| StateOp::Delete(key(at))),
        2 => (0..=KEYS, 0..=KEYS).prop_map(|(from, to)| StateOp::DeleteRange(key(from), key(to))),
    ]
}

fn apply(map: &mut BTreeMap<Bytes, Bytes>, op: &StateOp) {
    match op {
        StateOp::Put(key, value) => {
            map.insert(key.clone(), value.clone());
        }
        StateOp::Delete(key) => {
            map.remove(key);
        }
        StateOp::DeleteRange(from, to) => map.retain(|key, _| key < from || key >= to),
    }
}

/// Through the stored form and back: what a later merge or a restore finds.
fn stored(layer: Layer) -> Vec<StateOp> {
    let pieces = compress(layer.into_ops()).expect("compressed").concat();
    let plain = zstd::decode_all(&pieces[..]).expect("decompressed");
    let mut input = &plain[..];
    std::iter::from_fn(|| read_op(&mut input).expect("readable")).collect()
}

fn layer(ops: &[StateOp]) -> Layer {
    let mut delta = Delta::default();
    ops.iter().cloned().for_each(|op| delta.add(op));
    delta.into_layer()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    // Fails when an earlier change of a key wins, when a range takes what was put after it, when a merge above the oldest
    // layer drops a tombstone or a range, or when a range of a newer layer spares a row of an older one.
    #[test]
    fn layers_merged_in_any_way_are_the_changes_one_after_the_other(
        slots in prop::collection::vec(prop::collection::vec(op(), 0..6), 1..8),
        merges in prop::collection::vec((0_usize..8, 1_usize..5), 0..6),
    ) {
        let mut expected = BTreeMap::new();
        slots.iter().flatten().for_each(|op| apply(&mut expected, op));
        let mut layers: Vec<Vec<StateOp>> = slots.iter().map(|ops| stored(layer(ops))).collect();
        for (from, count) in merges {
            let from = from % layers.len();
            let to = layers.len().min(from + count);
            let merged = Layer::merged(layers[from..to].iter().map(|ops| layer(ops)).collect()).expect("merged");
            layers.splice(from..to, [stored(merged)]);
        }
        let flat = Layer::flattened(layers.iter().map(|ops| layer(ops)).collect()).expect("flattened");
        let flat: BTreeMap<Bytes, Bytes> = flat.map(Result::unwrap).collect();
        prop_assert_eq!(&flat, &expected);
        // And as they are stored: each layer's ranges first, then its rows.
        let mut one_by_one = BTreeMap::new();
        layers.iter().flatten().for_each(|op| apply(&mut one_by_one, op));
        prop_assert_eq!(&one_by_one, &expected);
    }

    // Fails when the sizes of parts are compared the other way round, or the bound on their number is not kept.
    #[test]
    fn parts_stay_few_and_bytes_are_written_a_bounded_number_of_times(
        base in 1_000_u64..1_000_000_000,
        changes in prop::collection::vec(prop_oneof![100_u64..2000, 1_000_u64..100_000, 100_000_u64..10_000_000], 1..400),
    ) {
        let part = |len| Part { session: SessionId(Ulid(1)), number: Slot(0), len, hash: ObjectHash(0) };
        let mut parts = vec![part(base)];
        let (mut written, mut changed) = (0, 0);
        for len in changes {
            let kept = parts.len() - merged_into(&parts, len);
            let merged: u64 = parts.drain(kept..).map(|part| part.len).sum();
            parts.push(part(len + merged));
            changed += len.max(SIZE_MIN);
            written += len + merged;
            prop_assert!(parts.len() <= PARTS_MAX);
        }
        // (MERGE_FACTOR + 1) times for each level that a byte goes up; here sizes span no more than 2^20.
        prop_assert!(written <= 3 * 20 * changed + base, "{written} written for {changed}");
    }
}

#[test]
fn rows_out_of_order_are_corrupt_in_a_merge() {
    let rows = [2, 1].map(|number| Ok((key(number), None)));
    let unordered = Layer { ranges: merge::Ranges::default(), rows: Box::new(rows.into_iter()) };
    let error = Layer::merged(vec![unordered]).expect("begins").into_ops().find_map(Result::err);
    assert_eq!(error.expect("noticed").kind(), Kind::Corrupt);
}

#[test]
fn a_head_that_is_cut_short_is_corrupt() {
    let part = Part { session: SessionId(Ulid(7)), number: Slot(1), len: 2, hash: ObjectHash(3) };
    let head = Head { next: Slot(4), hash: ObjectHash(5), parts: vec![part, Part { number: Slot(2), ..part }] };
    let bytes = head.encode();
    assert_eq!(Head::parse(ObjectKind::Checkpoint, bytes.clone()).expect("valid"), (head, bytes.len()));
    for len in 0..bytes.len() {
        assert!(Head::parse(ObjectKind::Checkpoint, bytes.slice(..len)).is_err(), "cut to {len}");
    }
    assert!(Head::parse(ObjectKind::Data, bytes).is_err());
}

const GOLDEN_V1: &[u8] = include_bytes!("golden_v1.bin");
const GOLDEN_V2: &[u8] = include_bytes!("golden_v2.bin");

/// The rows that a restore from `golden` finds, and its head.
async fn restored(golden: &'static [u8]) -> (Vec<(Bytes, Bytes)>, Head) {
    use object_store::ObjectStoreExt;

    let store = Arc::new(object_store::memory::InMemory::new());
    for object in [GOLDEN_V1, GOLDEN_V2] {
        let header = Header::parse(object).expect("a header");
        let path = layout::checkpoint(header.session, Slot(header.number));
        store.put(&path, object.to_vec().into()).await.expect("put");
    }
    let header = Header::parse(golden).expect("a header");
    let stores = ObjectStores::of(store, true);
    let head = Stored::open(&stores, header.session, Slot(header.number)).await.expect("opened").head;
    let state: Arc<dyn StateStore> = Arc::new(crate::state::memory::MemoryState::new());
    load(&stores, header.session, Slot(header.number), &state, |_| true).await.expect("loaded");
    (state.snapshot().map(Result::unwrap).collect(), head)
}

fn golden_rows() -> Vec<(Bytes, Bytes)> {
    [("\x01a", "document"), ("\x01b", ""), ("\x02topic", "\x01\x03\0\0\0")]
        .map(|(key, value)| (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes())))
        .to_vec()
}

// A later build must read these: the first is the form with all rows in one object; the second builds on it, removes a
// range and a row, and sets another one.
#[tokio::test]
async fn checkpoints_of_both_forms_are_read_as_they_were() {
    let (rows, head) = restored(GOLDEN_V1).await;
    assert_eq!((rows, head), (golden_rows(), Head { next: Slot(42), hash: ObjectHash(7), parts: Vec::new() }));
    let (rows, head) = restored(GOLDEN_V2).await;
    let session = SessionId(Ulid::from_parts(1, 2));
    assert_eq!((head.next, head.hash), (Slot(43), ObjectHash(8)));
    assert_eq!(head.parts, [Part::of(&Header::parse(GOLDEN_V1).expect("a header"))]);
    assert_eq!((head.parts[0].session, head.parts[0].number), (session, Slot(3)));
    let row = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
    assert_eq!(rows, [row("\x01a", "document"), row("\x01c", "new")]);
}
