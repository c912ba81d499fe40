//! Tests of the frames of stored batches.

use proptest::prelude::*;

use super::*;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn records() -> Vec<BatchRecord> {
    vec![
        BatchRecord {
            key: Some(bytes("key")),
            content_type: bytes("text/plain"),
            headers: vec![(bytes("a"), bytes("1")), (bytes("b"), bytes(""))],
            ttl_ms: None,
            payload: bytes("first"),
        },
        BatchRecord { key: Some(Bytes::new()), payload: Bytes::from_static(b"\xff\x00"), ..BatchRecord::default() },
        BatchRecord::default(),
    ]
}

/// The frame of `body` with a head and checksums that fit.
fn sealed(count: u32, body: &[u8]) -> Bytes {
    let (body_bytes, body_crc) = (u32::try_from(body.len()).unwrap(), crc32c::crc32c(body));
    let head = FrameHead { partition: 3, offset: 1_000, count, timestamp: 1_700_000_000_123, body_bytes, body_crc };
    Bytes::from([&head.encode(), body].concat())
}

fn refusal(frame: &[u8]) -> String {
    decode_frames(&Bytes::copy_from_slice(frame)).expect_err("refused").to_string()
}

/// A frame as version 1 has it. Later builds read it; never change it.
#[test]
fn a_frame_of_version_1_is_what_it_was() {
    let golden = Bytes::from_static(include_bytes!("golden_v1.bin"));
    let [frame] = &decode_frames(&golden).expect("golden")[..] else { panic!("one frame") };
    assert_eq!(frame.records, records());
    assert_eq!((frame.head.partition, frame.head.offset, frame.head.count), (3, 1_000, 3));
    assert_eq!(frame.head.timestamp, 1_700_000_000_123);
    assert_eq!(sealed(3, &encode_batch(&records()).unwrap()[HEAD_BYTES..]), golden);
}

#[test]
fn frames_follow_one_another_and_payloads_are_slices_of_them() {
    let one = encode_batch(&records()).expect("it fits");
    let both = Bytes::from([&one[..], &one].concat());
    let frames = decode_frames(&both).expect("whole");
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(|frame| frame.records == records() && frame.body == one[HEAD_BYTES..]));
    assert!(both.as_ptr_range().contains(&frames[1].records[0].payload.as_ptr()));
    assert_eq!(decode_frames(&Bytes::new()), Ok(vec![]));
}

// Fails when headers are read before their number is looked at: one of four bytes would take sixty in memory.
#[test]
fn a_number_of_headers_over_the_limit_is_refused_before_any_is_read() {
    let headers = |count: u16| {
        let head = [&[0; 8][..], &count.to_le_bytes(), &(u32::from(count) * 5).to_le_bytes()].concat();
        sealed(1, &[head, [1, 0, 0, 0, b'n'].repeat(usize::from(count))].concat())
    };
    assert_eq!(decode_frames(&headers(64)).expect("as many as may be")[0].records[0].headers.len(), 64);
    for count in [65, u16::MAX] {
        // Nothing but the length of a name follows the head.
        let cut = headers(count).slice(HEAD_BYTES..HEAD_BYTES + RECORD_HEAD_BYTES + 1);
        let why = format!("record 1: {count} headers exceed the limit of 64");
        assert_eq!(decode_frames(&sealed(1, &cut)), Err(BatchError::TooLarge(why)));
    }
}

// The form of a time to live is that of storage/src/record/ttl.rs. Later builds read it; never change it.
#[test]
fn a_time_to_live_is_the_first_header_without_a_name() {
    let lives = BatchRecord { ttl_ms: Some(3_600_000), ..records().remove(0) };
    let frame = encode_batch(std::slice::from_ref(&lives)).expect("it fits");
    let golden: &[u8] = b"\x05\0\0\0\x04\0\x0a\0\x03\0\x17\0\0\0keytext/plain\
        \0\0\x08\0\x80\xee\x36\0\0\0\0\0\x01\0\x01\0a1\x01\0\0\0bfirst";
    assert_eq!(&frame[HEAD_BYTES..], golden);
    assert_eq!(decode_frames(&frame).expect("whole")[0].records, [lives]);
    let mut short = golden.to_vec();
    short[29] = 7;
    let why = refusal(&sealed(1, &short));
    assert!(
        why.contains("record 1: the time to live at byte 71, a header without a name, has 7 bytes and not 8"),
        "{why}"
    );
}

#[test]
fn what_is_broken_is_named_with_its_place() {
    let frame = encode_batch(&records()).expect("it fits");
    let body = &frame[HEAD_BYTES..];
    let changed = |at: usize| {
        let mut changed = frame.to_vec();
        changed[at] ^= 1;
        changed
    };
    let resealed = |at: usize, to: u8| {
        let mut body = body.to_vec();
        body[at] = to;
        sealed(3, &body).to_vec()
    };
    let of_version = |version: u16, reserved: u16| {
        let mut head = frame.to_vec();
        head[4..6].copy_from_slice(&version.to_le_bytes());
        head[6..8].copy_from_slice(&reserved.to_le_bytes());
        let crc = crc32c::crc32c(&head[..CHECKED_BYTES]);
        head[CHECKED_BYTES..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        head
    };
    for (what, frame, words) in [
        ("a head cut short", frame[..43].to_vec(), "the head of the batch at byte 0 is cut short"),
        ("another magic", changed(0), "does not begin with PLNB"),
        ("a bit of the head", changed(9), "the head of the batch at byte 0 has the checksum"),
        ("a bit of the body", changed(HEAD_BYTES + 20), "the batch at byte 0 has the checksum"),
        ("another version", of_version(2, 0), "is of version 2.0; version 1.0"),
        ("reserved bits", of_version(1, 7), "is of version 1.7; version 1.0"),
        ("a body cut short", frame[..frame.len() - 1].to_vec(), "is cut short: its body has"),
        ("no record", sealed(0, &[]).to_vec(), "no record"),
        ("a record too many", sealed(4, body).to_vec(), "record 4: the head of 14 bytes at byte"),
        ("a record too few", sealed(2, body).to_vec(), "has 14 bytes after its 2 records"),
        ("a count that is a lie", sealed(u32::MAX, body).to_vec(), "record 4: the head"),
        ("a payload beyond the end", resealed(3, 0x7f), "record 1: the payload of"),
        ("a key beyond the end", resealed(5, 0xff), "record 1: the key of"),
        ("headers too many", resealed(8, 3), "record 1: the header"),
        ("headers too few", resealed(8, 1), "record 1: the headers at byte 71 have 6 bytes, its head says 11"),
        ("a second head", [&frame[..], b"PLNX"].concat(), "the head of the batch at byte"),
    ] {
        let refusal = refusal(&frame);
        assert!(refusal.contains(words), "{what}: {refusal}");
    }
}

#[test]
fn what_the_form_cannot_hold_is_refused_by_name() {
    let long = BatchRecord { key: Some(Bytes::from(vec![b'k'; 65_535])), ..BatchRecord::default() };
    let error = encode_batch(&[BatchRecord::default(), long]).expect_err("too long");
    assert_eq!(error.to_string(), "record 2: key of 65536 exceeds what the form can hold");
    assert_eq!(encode_batch(&[]).expect_err("empty").to_string(), "batch has no record");
}

fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn any_record() -> impl Strategy<Value = BatchRecord> {
    // A header without a name is the time to live.
    let name = prop::collection::vec(any::<u8>(), 1..9).prop_map(Bytes::from);
    let headers = prop::collection::vec((name, any_bytes(9)), 0..4);
    (prop::option::of(any_bytes(9)), any_bytes(9), headers, prop::option::of(any::<u64>()), any_bytes(600)).prop_map(
        |(key, content_type, headers, ttl_ms, payload)| BatchRecord { key, content_type, headers, ttl_ms, payload },
    )
}

proptest! {
    #[test]
    fn any_records_come_back(batches in prop::collection::vec(prop::collection::vec(any_record(), 1..6), 0..4)) {
        let frames: Vec<Bytes> = batches.iter().map(|records| encode_batch(records).expect("it fits")).collect();
        let read = decode_frames(&Bytes::from(frames.concat())).expect("whole");
        let read: Vec<Vec<BatchRecord>> = read.into_iter().map(|frame| frame.records).collect();
        prop_assert_eq!(read, batches);
    }

    // Fails when a length is trusted before it is compared with what is there. The checksums fit, so that what is behind
    // them is met; what is accepted has only one form.
    #[test]
    fn a_changed_body_with_checksums_that_fit_is_refused_or_means_what_it_says(
        records in prop::collection::vec(any_record(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        count in 1_u32..6,
    ) {
        let mut body = encode_batch(&records).expect("it fits")[HEAD_BYTES..].to_vec();
        for (at, to) in changes {
            let at = at.index(body.len());
            body[at] = to;
        }
        if count == 5 {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(frames) = decode_frames(&sealed(count, &body)) {
            prop_assert_eq!(&encode_batch(&frames[0].records).expect("it fits")[HEAD_BYTES..], &body[..]);
        }
    }

    #[test]
    fn noise_is_refused_and_never_panics(noise in prop::collection::vec(any::<u8>(), 1..300)) {
        prop_assert!(decode_frames(&Bytes::from(noise)).is_err());
    }
}
