//! Tests of the stored form of segments, of links, and of what conservation refuses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::memory::InMemory;
use ulid::Ulid;

use super::build::SegmentBuilder;
use super::conserve::{check, expected};
use super::format::{FRAME_BYTES, FrameTable, TRAILER_BYTES, Trailer};
use super::gather::Piece;
use super::link::{Link, SegmentRun};
use super::{frames, merge};
use crate::error::Kind;
use crate::ids::{Offset, Partition, PartitionIndex, SegmentId, SessionId, Slot, Timestamp, TopicId};
use crate::layout;
use crate::metrics::{Health, StorageMetrics};
use crate::record::{Batch, NewRecord, StoredBatch};
use crate::shard::rows::{IndexRow, Place, Span};
use crate::slot::{Created, Object, create};
use crate::state::memory::MemoryState;
use crate::state::{StateOp, StateStore};
use crate::store::ObjectStores;
use crate::wal::format::{Header, ObjectKind};

const SHARDS: u16 = 4;

fn partition(index: u32) -> Partition {
    Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(index) }
}

fn segment() -> SegmentId {
    SegmentId(Ulid::from_parts(1, 2))
}

/// One record per batch, of these sizes; its bytes do not compress.
fn piece(index: u32, base: u64, sizes: &[usize]) -> Piece {
    let batches = sizes.iter().zip(base..).map(|(size, base)| {
        let mut random = base.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let payload = (0..*size).map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[3]
        });
        let record = NewRecord { payload: payload.collect(), ..NewRecord::default() };
        let batch = Batch::of(&[record]).expect("valid");
        Arc::new(StoredBatch { base: Offset(base), timestamp: Timestamp(1000 + base), batch })
    });
    Piece::new(SHARDS, partition(index), batches.collect())
}

fn object(pieces: &[Piece]) -> Object {
    let mut builder = SegmentBuilder::new().expect("a builder");
    for piece in pieces {
        piece.batches.iter().for_each(|batch| builder.push(piece.shard, piece.partition, batch).expect("pushed"));
    }
    let header = Header::new(ObjectKind::Segment, SessionId(Ulid(5)), 0);
    Object::new(layout::segment(segment()), header, builder.finish().expect("built").body)
}

fn bytes(object: &Object) -> Bytes {
    object.payload.clone().into()
}

async fn store(object: &Object) -> ObjectStores {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let created = create(&stores, object, &Health::new(StorageMetrics::default()), None).await;
    assert_eq!(created.expect("created"), Created::Ours);
    stores
}

fn table(object: &Bytes) -> crate::error::Result<FrameTable> {
    let slice = |range: Range<u64>| object.slice(range.start as usize..range.end as usize);
    let len = object.len() as u64;
    let trailer = Trailer::parse(slice(Trailer::range(len)), len)?;
    FrameTable::parse(slice(trailer.table.clone()), &trailer)
}

// A later build must read this: it is version 1 of the stored form.
#[tokio::test]
async fn the_segment_of_version_1_reads_as_what_went_into_it() {
    let golden = Bytes::from_static(include_bytes!("golden_v1.bin"));
    let pieces = [piece(0, 3, &[10, 700]), piece(1, 0, &[40])];
    let (header, _) = Header::parse_object(&golden).expect("an object");
    assert_eq!((header.kind, header.session), (ObjectKind::Segment, SessionId(Ulid(5))));
    let payload = golden.clone().into();
    let stores = store(&Object { path: layout::segment(segment()), header, payload }).await;
    let len = golden.len() as u64;
    check(&stores, &layout::segment(segment()), len, &expected(&pieces)).await.expect("what went into it");
    // What is written now is the same, but for how it is compressed.
    let now = table(&bytes(&object(&pieces))).expect("a table");
    let then = table(&golden).expect("a table");
    let places = |table: &FrameTable| {
        table.frames().iter().map(|f| (f.content(), f.partition, f.base, f.timestamp)).collect::<Vec<_>>()
    };
    assert_eq!(places(&now), places(&then));
}

#[test]
fn a_link_and_the_rows_of_an_index_are_what_they_were_in_version_1() {
    let link = link(&[run(3, 5, 100)]);
    let golden = Bytes::from_static(include_bytes!("golden_link_v1.bin"));
    assert_eq!(link.value(), golden);
    assert_eq!(Link::parse(Bytes::copy_from_slice(&link.key()), golden.clone()), Some(link.clone()));
    for len in 0..golden.len() {
        assert_eq!(Link::parse(Bytes::copy_from_slice(&link.key()), golden.slice(..len)), None);
    }
    let row = link.row(&link.runs[0], None);
    assert_eq!(row.encode(), &include_bytes!("golden_row_v2.bin")[..]);
    assert_eq!(IndexRow::parse(row.encode()).expect("valid"), row);
    let wal = wal_row(7, 3, 50);
    assert_eq!(wal.encode(), &include_bytes!("golden_row_v1.bin")[..]);
    assert_eq!(IndexRow::parse(wal.encode()).expect("valid"), wal);
    assert_eq!(IndexRow::parse(wal.encode().slice(..49)).expect_err("cut").kind(), Kind::Corrupt);
}

#[test]
fn every_bit_of_table_and_trailer_is_covered() {
    let pieces = [piece(0, 0, &[FRAME_BYTES, 10]), piece(1, 0, &[10])];
    let whole = bytes(&object(&pieces));
    let table_bytes = table(&whole).expect("valid").frames().len() * 52 + TRAILER_BYTES;
    for at in whole.len() - table_bytes..whole.len() {
        let mut broken = BytesMut::from(&whole[..]);
        broken[at] ^= 1;
        assert_eq!(table(&broken.freeze()).expect_err("broken").kind(), Kind::Corrupt, "byte {at}");
    }
}

// Fails when a frame is cut within a block, or when the search begins in a frame after the one that is wanted.
#[test]
fn a_frame_begins_with_a_block_and_a_search_finds_the_last_one_before() {
    let pieces = [piece(0, 0, &[10]), piece(1, 100, &[200_000; 9])];
    let whole = bytes(&object(&pieces));
    let table = table(&whole).expect("valid");
    let frames = table.frames();
    let bases: Vec<(u32, u64)> = frames.iter().map(|frame| (frame.partition.index.0, frame.base.0)).collect();
    assert_eq!(bases, [(0, 0), (1, 103), (1, 106)], "of 512 KiB and what they were begun with");
    let runs: Vec<SegmentRun> = expected(&pieces).iter().map(|checked| checked.run).collect();
    let [small, large] = runs[..] else { panic!("two runs") };
    let content = |run: SegmentRun| run.position..run.position + run.len;
    assert_eq!(table.covering(&content(small)), 0..1);
    assert_eq!(table.covering(&content(large)), 0..3);
    let seek = |from: u64| table.seek(&content(large), |frame| frame.base.0 <= from);
    assert_eq!([100, 102, 103, 105, 106, 108].map(seek), [0, 0, 1, 1, 2, 2]);
    for frame in frames {
        let range = frame.range();
        let compressed = whole.slice(range.start as usize..range.end as usize);
        assert_eq!(frame.decompress(&compressed).expect("valid").len(), frame.content_len as usize);
        let mut broken = BytesMut::from(&compressed[..]);
        broken[7] ^= 1;
        assert_eq!(frame.decompress(&broken).expect_err("broken").kind(), Kind::Corrupt);
    }
}

// Fails when `check` compares only places, only counts, or nothing.
#[tokio::test]
async fn a_segment_that_lacks_has_or_changes_anything_is_refused() {
    let whole = [piece(0, 0, &[10, 20, 30]), piece(1, 5, &[40])];
    let path = layout::segment(segment());
    let cases: [(&str, Vec<Piece>); 5] = [
        ("the last batch of a run is missing", vec![piece(0, 0, &[10, 20]), piece(1, 5, &[40])]),
        ("a run is missing", vec![piece(0, 0, &[10, 20, 30])]),
        ("there is a run too many", vec![piece(0, 0, &[10, 20, 30]), piece(1, 5, &[40]), piece(2, 0, &[1])]),
        ("a run has other offsets", vec![piece(0, 0, &[10, 20, 30]), piece(1, 6, &[40])]),
        ("a record is another one", {
            let mut other = piece(1, 5, &[40]);
            let record = NewRecord { payload: Bytes::from(vec![9; 40]), ..NewRecord::default() };
            let batch = Batch::of(&[record]).expect("valid");
            other.batches = vec![Arc::new(StoredBatch { batch, ..(*other.batches[0]).clone() })];
            vec![piece(0, 0, &[10, 20, 30]), other]
        }),
    ];
    for (what, pieces) in cases {
        let object = object(&pieces);
        let len = object.header.object_len();
        let stores = store(&object).await;
        check(&stores, &path, len, &expected(&pieces)).await.expect("it is what it is");
        let error = check(&stores, &path, len, &expected(&whole)).await.expect_err(what);
        assert_eq!(error.kind(), Kind::Corrupt, "{what}");
    }
}

#[tokio::test]
async fn frames_are_given_in_order_whether_they_stand_side_by_side_or_not() {
    let object = object(&[piece(0, 0, &[600_000; 12])]);
    let stores = store(&object).await;
    let table = frames::table(&stores, &object.path, object.header.object_len()).await.expect("a table");
    assert_eq!(table.frames().len(), 12);
    for wanted in [vec![], vec![3], vec![0, 1, 2, 7, 8, 11], (0..12).collect::<Vec<_>>()] {
        let mut found = Vec::new();
        let each = |frame: &super::format::Frame, content: Bytes| {
            assert_eq!(content.len(), frame.content_len as usize);
            found.push(frame.base.0 as usize);
            Ok(())
        };
        frames::each(&stores, &object.path, &table, &wanted, each).await.expect("read");
        assert_eq!(found, wanted);
    }
}

fn run(base: u64, count: u32, len: u32) -> SegmentRun {
    let first_timestamp = Timestamp(1000 + base);
    SegmentRun { partition: partition(0), base: Offset(base), count, position: 64, len, first_timestamp }
}

fn link(runs: &[SegmentRun]) -> Link {
    Link { segment: segment(), object_len: 999, content_len: 2000, runs: runs.to_vec() }
}

fn wal_row(base: u64, count: u32, len: u32) -> IndexRow {
    IndexRow {
        place: Place::Wal { session: SessionId(Ulid(5)), slot: Slot(base) },
        object_len: 300,
        position: 128,
        len,
        count,
        first_timestamp: Timestamp(1000 + base),
        span: None,
        kept: None,
    }
}

/// A state with WAL rows of `(base, count, length)`.
fn state(rows: &[(u64, u32, u32)]) -> MemoryState {
    let state = MemoryState::new();
    for (base, count, len) in rows {
        let row = wal_row(*base, *count, *len).encode();
        state.write(&[StateOp::Put(layout::index_key(partition(0), Offset(*base)), row)]).expect("written");
    }
    state
}

fn bases(state: &MemoryState) -> Vec<(u64, bool)> {
    let (from, to) = layout::index_range();
    let rows = state.scan(&from, &to, 100).expect("rows");
    let row = |(key, value): &(Bytes, Bytes)| {
        let row = IndexRow::parse(value.clone()).expect("valid");
        (layout::index_base(key).expect("a base").0, matches!(row.place, Place::Segment { .. }))
    };
    rows.iter().map(row).collect()
}

// Fails when `replaced` takes rows that do not cover the run exactly, which would make a hole or a second place.
#[test]
fn a_link_replaces_exactly_the_rows_of_its_run_or_none() {
    let rows = [(0, 2, 20), (2, 3, 30), (5, 1, 10), (6, 4, 40)];
    let all_wal = [(0, false), (2, false), (5, false), (6, false)];
    let applied = |state: &MemoryState, runs: &[SegmentRun]| {
        state.write(&link(runs).ops(state, &BTreeMap::new()).expect("ops")).expect("written");
        bases(state)
    };
    let exact = state(&rows);
    assert_eq!(applied(&exact, &[run(2, 4, 40)]), [(0, false), (2, true), (6, false)]);
    assert_eq!(applied(&exact, &[run(2, 4, 40)]), [(0, false), (2, true), (6, false)], "once more changes nothing");
    assert_eq!(applied(&exact, &[run(0, 6, 60)]), [(0, true), (6, false)], "a merge takes segments");
    for (what, run) in [
        ("it ends within a row", run(2, 5, 50)),
        ("it begins within a row", run(3, 3, 30)),
        ("its length is another", run(2, 4, 39)),
        ("its rows are not there", run(20, 2, 20)),
        ("it goes on above the tail", run(6, 5, 50)),
        ("its time is another", SegmentRun { first_timestamp: Timestamp(1), ..run(2, 4, 40) }),
    ] {
        assert_eq!(applied(&state(&rows), &[run]), all_wal, "{what}");
    }
    assert_eq!(applied(&state(&rows[1..]), &[run(0, 6, 60)]), all_wal[1..], "its first row was trimmed");
    assert_eq!(applied(&state(&[]), &[run(0, 6, 60)]), [], "its topic was deleted");
    let other = [run(0, 5, 50), run(6, 5, 50)];
    assert_eq!(applied(&state(&rows), &other), [(0, true), (5, false), (6, false)], "each run is judged alone");
}

// Fails when a link loses where its run stands: retention would not find it, and bytes would not sink.
#[test]
fn a_link_stands_where_the_rows_that_it_replaces_stood() {
    let span = |bytes_before, last| Some(Span { bytes_before, last_timestamp: Timestamp(last) });
    for (first, last, merged) in
        [(span(700, 5), span(720, 9), span(700, 9)), (None, span(720, 9), None), (span(700, 5), None, None)]
    {
        let state = MemoryState::new();
        for (row, base, span) in [(wal_row(2, 3, 30), 2, first), (wal_row(5, 1, 10), 5, last)] {
            let row = IndexRow { span, ..row }.encode();
            state.write(&[StateOp::Put(layout::index_key(partition(0), Offset(base)), row)]).expect("written");
        }
        state.write(&link(&[run(2, 4, 40)]).ops(&state, &BTreeMap::new()).expect("ops")).expect("written");
        let row = state.get(&layout::index_key(partition(0), Offset(2))).expect("readable").expect("a row");
        assert_eq!(IndexRow::parse(row).expect("valid").span, merged);
    }
}

fn segment_rows(rows: &[(u64, u32)]) -> MemoryState {
    let state = MemoryState::new();
    for (base, len) in rows {
        let row = link(&[]).row(&run(*base, 1, *len), None).encode();
        state.write(&[StateOp::Put(layout::index_key(partition(0), Offset(*base)), row)]).expect("written");
    }
    state
}

fn walked(state: &MemoryState, content_bytes: u64) -> Vec<usize> {
    walk_on(&mut merge::Walk::default(), state, content_bytes)
}

/// How many runs each stretch of a walk takes.
fn walk_on(walk: &mut merge::Walk, state: &MemoryState, content_bytes: u64) -> Vec<usize> {
    let limits = merge::Limits { stored_bytes: u64::MAX, content_bytes };
    let mut out = Vec::new();
    loop {
        let found = walk.next(state, limits).expect("walked");
        out.push(found.runs.len());
        if found.wrapped {
            return out;
        }
    }
}

#[test]
fn only_enough_neighbours_of_about_one_size_are_merged() {
    let rows = |lens: &[u32]| segment_rows(&lens.iter().zip(0..).map(|(len, base)| (base, *len)).collect::<Vec<_>>());
    assert_eq!(walked(&rows(&[100; 7]), u64::MAX), [0], "too few");
    assert_eq!(walked(&rows(&[100; 20]), u64::MAX), [20]);
    let with_large = [&[100; 8][..], &[3 << 20], &[100; 7], &[3 << 20], &[100; 9]].concat();
    assert_eq!(walked(&rows(&with_large), u64::MAX), [17], "what is large is let be, and parts what is beside it");
    let merged_before = [&[30_000][..], &[100; 7]].concat();
    assert_eq!(walked(&rows(&merged_before), u64::MAX), [8], "of one size at last, and enough");
    let twice = [&[30_000][..], &[100; 8]].concat();
    assert_eq!(walked(&rows(&twice), u64::MAX), [8], "the smallest first: what was merged before is not taken again");
    assert_eq!(walked(&rows(&[100; 20]), 1050), [10], "within the limit");
    assert_eq!(walked(&rows(&[100; 20]), 700), [0], "too few within the limit");
}

// Fails when dead bytes are never looked for, or when a walk begins to count where the one before has ended.
#[test]
fn what_is_left_of_a_segment_is_moved_when_most_of_it_is_dead() {
    // Of 2000 bytes.
    let (dead, alive) = (segment_rows(&[(0, 300), (9, 600)]), segment_rows(&[(0, 300), (9, 800)]));
    for (state, second) in [(&dead, [2]), (&alive, [0])] {
        let mut walk = merge::Walk::default();
        assert_eq!(walk_on(&mut walk, state, u64::MAX), [0], "the first walk counts");
        assert_eq!(walk_on(&mut walk, state, u64::MAX), second);
    }
}
