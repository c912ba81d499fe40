//! Tests of the time to live of records.

use super::*;
use crate::record::{NewRecord, RecordView};

fn record(payload: &str, ttl_ms: u64) -> NewRecord {
    NewRecord {
        headers: vec![(Bytes::from_static(b"a"), Bytes::from_static(b"1"))],
        ttl_ms: NonZeroU64::new(ttl_ms),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..NewRecord::default()
    }
}

/// Records with these times to live, 0 for none, stored at the time 1,000 from offset 10 on; once as made and once as read.
fn stored(ttls: &[u64]) -> [StoredBatch; 2] {
    let records: Vec<NewRecord> = ttls.iter().map(|&ttl| record("x", ttl)).collect();
    let made = Batch::of(&records).expect("valid");
    let read = Batch::parse(made.chunks().concat().into(), made.count(), made.crc()).expect("valid");
    [made, read].map(|batch| StoredBatch { base: Offset(10), timestamp: Timestamp(1_000), batch })
}

fn runs(batch: &StoredBatch, from: u64, now: u64) -> Vec<(bool, u64)> {
    let (mut from, mut runs) = (Offset(from), Vec::new());
    while from < batch.next() {
        let run = batch.run_at(from, || Timestamp(now));
        runs.push((run.expired, run.end.0));
        from = run.end;
    }
    runs
}

// A later build must read this, and one before it reads it as a header without a name: it is version 1 of the stored form.
#[test]
fn a_time_to_live_is_the_first_header_and_has_no_name() {
    let batch = Batch::of(&[record("xx", 3_600_000)]).expect("valid");
    let golden: &[u8] = b"\x02\0\0\0\0\0\0\0\x02\0\x12\0\0\0\0\0\x08\0\x80\xee\x36\0\0\0\0\0\x01\0\x01\0a1xx";
    assert_eq!(batch.chunks().concat(), golden);
}

#[test]
fn a_time_to_live_reads_back_and_is_no_header_to_who_reads() {
    for batch in stored(&[0, 5_000]) {
        let views: Vec<RecordView> = batch.records().collect();
        assert_eq!(views.iter().map(|view| view.ttl_ms).collect::<Vec<_>>(), [None, NonZeroU64::new(5_000)]);
        assert!(views.iter().all(|view| view.headers == record("", 0).headers));
        let refs: Vec<_> = batch.record_refs().map(|record| (record.ttl_ms, record.headers().count())).collect();
        assert_eq!(refs, [(None, 1), (NonZeroU64::new(5_000), 1)]);
        assert_eq!(views.iter().map(RecordView::stored_len).sum::<usize>(), batch.batch.len());
    }
}

// Fails when a record lives on in the very moment in which its time is over, and when the last run of a batch is forgotten.
#[test]
fn records_are_live_up_to_their_time_and_expired_from_then_on() {
    for batch in stored(&[500, 500, 0, 900, 500]) {
        assert_eq!(runs(&batch, 10, 1_499), [(false, 15)]);
        assert_eq!(runs(&batch, 10, 1_500), [(true, 12), (false, 14), (true, 15)]);
        assert_eq!(runs(&batch, 11, 1_500), [(true, 12), (false, 14), (true, 15)]);
        assert_eq!(runs(&batch, 13, u64::MAX), [(true, 15)]);
    }
    for batch in stored(&[u64::MAX, 0]) {
        assert_eq!(runs(&batch, 10, u64::MAX - 1), [(false, 12)], "no sum runs over");
    }
}

// Fails when the clock is read for every batch.
#[test]
fn nobody_looks_at_the_clock_for_a_batch_without_a_time_to_live() {
    for batch in stored(&[0, 0]) {
        let run = batch.run_at(Offset(10), || panic!("the clock is looked at"));
        assert_eq!(run, Run { expired: false, end: Offset(12) });
        assert!(!batch.batch.has_ttl());
    }
}

#[test]
fn a_part_of_a_batch_is_a_batch_of_its_own_and_keeps_the_times() {
    let payloads = ["a".repeat(2_000), "b".to_owned(), "c".repeat(900), "d".to_owned()];
    let records: Vec<_> = payloads.iter().zip([0, 500, 700, 0]).map(|(text, ttl)| record(text, ttl)).collect();
    let batch =
        StoredBatch { base: Offset(10), timestamp: Timestamp(1_000), batch: Batch::of(&records).expect("valid") };
    for (from, end) in (0..4).flat_map(|from| (from + 1..=4).map(move |end| (from, end))) {
        let part = batch.part(Offset(10 + from as u64), Offset(10 + end as u64));
        let alone = Batch::of(&records[from..end]).expect("valid");
        assert_eq!(part.batch.chunks().concat(), alone.chunks().concat(), "{from}..{end}");
        let form = (part.base.0, part.batch.count(), part.batch.len(), part.batch.crc());
        assert_eq!(form, (10 + from as u64, alone.count(), alone.len(), alone.crc()), "{from}..{end}");
        let whole = runs(&batch, part.base.0, 1_600).first().map(|(expired, _)| *expired);
        assert_eq!(runs(&part, part.base.0, 1_600).first().map(|(expired, _)| *expired), whole, "{from}..{end}");
    }
}

#[test]
fn what_is_not_a_time_to_live_is_a_header_like_any_other() {
    let odd = |value: &'static [u8]| NewRecord {
        headers: vec![(Bytes::new(), Bytes::from_static(value))],
        ..NewRecord::default()
    };
    let batch = Batch::of(&[odd(b"1234567"), odd(b"\0\0\0\0\0\0\0\0")]).expect("valid");
    let batch = StoredBatch { base: Offset(0), timestamp: Timestamp(0), batch };
    assert!(batch.records().all(|view| view.ttl_ms.is_none() && view.headers.len() == 1));
}
