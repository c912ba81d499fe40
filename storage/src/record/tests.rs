//! Tests of records and batches.

use proptest::prelude::*;

use super::*;

fn record(payload: usize, key: Option<&'static str>) -> NewRecord {
    NewRecord {
        key: key.map(Bytes::from_static_str),
        content_type: Bytes::from_static(b"text/plain"),
        headers: vec![(Bytes::from_static(b"a"), Bytes::from_static(b"1")), (Bytes::from_static(b"b"), Bytes::new())],
        ttl_ms: None,
        payload: Bytes::from(vec![b'x'; payload]),
    }
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

fn joined(batch: &Batch) -> Bytes {
    let mut out = BytesMut::new();
    for chunk in batch.chunks() {
        out.extend_from_slice(chunk);
    }
    out.freeze()
}

fn stored(batch: Batch) -> StoredBatch {
    StoredBatch { base: Offset(7), timestamp: Timestamp(9), batch }
}

#[test]
fn a_batch_reads_back_what_was_pushed_from_its_chunks_and_from_one_piece() {
    let records = [record(0, None), record(INLINE_PAYLOAD_BYTES_MAX, Some("")), record(5000, Some("k"))];
    let batch = Batch::of(&records).expect("valid");
    let whole = Batch::parse(joined(&batch), batch.count(), batch.crc()).expect("valid");
    for batch in [batch, whole] {
        let read: Vec<RecordView> = stored(batch.clone()).records().collect();
        for (index, (view, record)) in read.iter().zip(&records).enumerate() {
            assert_eq!(view.offset, Offset(7 + index as u64));
            assert_eq!((&view.key, &view.content_type), (&record.key, &record.content_type));
            assert_eq!((&view.headers, &view.payload), (&record.headers, &record.payload));
        }
        let stored = stored(batch);
        for (borrowed, view) in stored.record_refs().zip(&read) {
            assert_eq!((borrowed.offset, borrowed.content_type), (view.offset, &view.content_type[..]));
            let headers: Vec<_> = borrowed.headers().collect();
            assert!(headers.into_iter().eq(view.headers.iter().map(|(name, value)| (&name[..], &value[..]))));
        }
        assert_eq!(read.len(), records.len());
    }
}

#[test]
fn a_payload_worth_it_is_shared_and_not_copied() {
    let payload = Bytes::from(vec![1; 4096]);
    let batch = Batch::of(&[NewRecord { payload: payload.clone(), ..NewRecord::default() }]).expect("valid");
    let view = stored(batch).records().next().expect("one record");
    assert_eq!(view.payload.as_ptr(), payload.as_ptr());
}

#[test]
fn what_is_kept_of_a_batch_is_a_batch_of_its_own_with_the_rest_of_its_bytes() {
    let records = [record(3, Some("k")), record(5000, None), record(0, Some("")), record(700, None), record(2, None)];
    let batch = Batch::of(&records).expect("valid");
    let whole = Batch::parse(joined(&batch), batch.count(), batch.crc()).expect("valid");
    for (batch, below) in [batch, whole].iter().flat_map(|batch| (0..5).map(move |below| (batch, below))) {
        let kept = stored(batch.clone()).from_offset(Offset(7 + below as u64));
        assert_eq!((kept.base, kept.timestamp), (Offset(7 + below as u64), Timestamp(9)));
        let alone = Batch::of(&records[below..]).expect("valid");
        assert_eq!(joined(&kept.batch), joined(&alone), "without the first {below}");
        let form = (kept.batch.count(), kept.batch.len(), kept.batch.crc());
        assert_eq!(form, (alone.count(), alone.len(), alone.crc()), "without the first {below}");
    }
    let all = stored(Batch::of(&records).expect("valid"));
    assert_eq!(all.from_offset(Offset(0)).base, Offset(7), "nothing of it is below");
}

#[test]
fn parts_that_the_format_cannot_hold_are_refused_by_name() {
    let long = NewRecord { key: Some(Bytes::from(vec![0; 70_000])), ..NewRecord::default() };
    let error = Batch::of(&[long]).expect_err("too long");
    assert_eq!(error.to_string(), "key of 70001 exceeds what the format can hold");
    assert_eq!(Batch::of(&[]).expect_err("empty").kind(), Kind::Invalid);
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn the_stored_form_of_version_1_is_what_it_was() {
    let batch = Batch::of(&[record(3, Some("key"))]).expect("valid");
    let golden: &[u8] = b"\x03\0\0\0\x04\0\x0a\0\x02\0\x0b\0\0\0keytext/plain\x01\0\x01\0a1\x01\0\0\0bxxx";
    assert_eq!(joined(&batch), golden);
}

proptest! {
    // Fails when a length is trusted before it is compared with what is there.
    #[test]
    fn broken_bytes_are_refused_and_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_u32..5) {
        let crc = crc32c::crc32c(&bytes);
        drop(Batch::parse(Bytes::from(bytes.clone()), count, crc));
        bytes.push(1);
        prop_assert!(Batch::parse(Bytes::from(bytes), count, crc).is_err());
    }

    #[test]
    fn a_batch_of_any_records_reads_back(sizes in prop::collection::vec((0_usize..2000, 0_usize..20), 1..20)) {
        let records: Vec<NewRecord> = sizes.iter().map(|(payload, key)| NewRecord {
            key: (*key > 0).then(|| Bytes::from(vec![b'k'; *key])),
            payload: Bytes::from(vec![b'p'; *payload]),
            ..NewRecord::default()
        }).collect();
        let batch = Batch::of(&records).expect("valid");
        let batch = Batch::parse(joined(&batch), batch.count(), batch.crc()).expect("valid");
        let read = stored(batch);
        for ((view, borrowed), record) in read.records().zip(read.record_refs()).zip(&records) {
            prop_assert_eq!(borrowed.payload, &record.payload[..]);
            prop_assert_eq!((borrowed.offset, borrowed.key), (view.offset, record.key.as_deref()));
            prop_assert_eq!(view.payload, record.payload.clone());
            prop_assert_eq!(view.key, record.key.clone());
        }
    }
}
