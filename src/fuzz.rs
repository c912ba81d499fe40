//! What the fuzz targets share, and those of the crate's own parsers.
//!
//! A target is a test: `cargo test` runs each for `ITERATIONS` inputs made by chance, `make fuzz` for many more, and
//! `cargo bolero` can drive it by coverage. Each says what must hold of what is read, not only that nothing panics.

use std::num::NonZeroU64;

use bytes::Bytes;
use plinth_api::batch::{BatchRecord, FrameHead, HEAD_BYTES, decode_frames, encode_batch};
use plinth_api::frames::ClientFrame;
use plinth_api::limits::{RECORD_TTL_MS_MAX, RECORD_TTL_MS_MIN};
use plinth_api::records::PublishBatch;

use crate::telemetry::context::TraceContext;
use crate::{parse, units};

/// Inputs per target, where `BOLERO_RANDOM_ITERATIONS` does not say another number.
pub(crate) const ITERATIONS: usize = 2000;

/// Text of `pieces`, one for each byte of `picks`: what is likely to be nearly right.
pub(crate) fn text(pieces: &[&str], picks: &[u8]) -> String {
    picks.iter().map(|pick| pieces[usize::from(*pick) % pieces.len()]).collect()
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u00e9",
    "null",
    "1",
    "-0.5e3",
    "true",
    " ",
    "é",
    "\u{0}",
    "\"type\":",
    "\"id\":\"1\",",
    "\"subscribe\",",
    "\"publish\",",
    "\"ping\"",
    "\"auth\",",
    "\"credit\",",
    "\"topics\":[\"a\"]",
    "\"topic\":\"a\",",
    "\"records\":[",
    "{\"text\":\"x\"}",
    "{\"value\":{\"a\":[1]}}",
    "{\"base64\":\"AAEC\"}",
    "{\"type\":\"ping\"",
    "\"ttl\":\"1h\"",
    "\"headers\":{\"a\":\"b\"}",
    "\"odd\":1",
];

#[test]
fn a_frame_of_the_client_is_read_or_refused_by_name() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let given = text(JSON, picks);
        let object = serde_json::from_str::<serde_json::Value>(&given).ok().filter(serde_json::Value::is_object);
        match ClientFrame::parse(&given) {
            Ok(_) => {
                let kind = object.expect("what is read is a JSON object")["type"].clone();
                let known = ["auth", "subscribe", "unsubscribe", "credit", "publish", "ping", "refresh"];
                assert!(known.iter().any(|name| kind == *name), "{given}");
            }
            Err(error) => {
                assert!(!error.detail.is_empty());
                // A bad frame must not make a long answer: what is shown of it is a name, or a place in it.
                assert!(error.detail.len() <= 2 * given.len() + 500, "{given}: {}", error.detail);
                assert!(!error.garbage || object.is_none(), "an object is no garbage: {given}");
            }
        }
    });
}

#[test]
fn a_batch_of_json_keeps_each_payload_as_it_was_sent() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        const RECORDS: &[&str] = &[
            "{\"text\":\"x\"}",
            "{\"value\":{\"a\" : [1,  2]}}",
            "{\"base64\":\"AAEC\"}",
            "{\"value\":null}",
            "{}",
            "{\"key\":\"k\",\"headers\":{\"a\":\"b\"},\"ttl\":\"1h\",\"text\":\"\"}",
            "{\"base64\":\"A\"}",
            "{\"ttl\":\"0s\"}",
            "{\"text\":\"x\",\"value\":1}",
            "[]",
            "{\"odd\":1}",
        ];
        let records: Vec<&str> = picks.iter().map(|pick| RECORDS[usize::from(*pick) % RECORDS.len()]).collect();
        let body = Bytes::from(format!("{{\"records\":[{}]}}", records.join(",")));
        let Ok(batch) = serde_json::from_slice::<PublishBatch<'_>>(&body) else {
            assert!(records.iter().any(|record| ["[]", "{\"odd\":1}"].contains(record)), "{body:?}");
            return;
        };
        let sent: Vec<Option<Bytes>> = batch
            .records
            .iter()
            .map(|record| record.value.map(|value| body.slice_ref(value.get().as_bytes())))
            .collect();
        if let Ok(read) = parse::new_records(batch.records, &body) {
            assert_eq!(read.len(), records.len());
            for (record, value) in read.iter().zip(sent) {
                assert!(value.is_none_or(|value| value.as_ptr() == record.payload.as_ptr()), "a value is not copied");
                assert!(record.ttl_ms.is_none_or(|ms| (RECORD_TTL_MS_MIN..=RECORD_TTL_MS_MAX).contains(&ms.get())));
            }
        }
    });
}

type Fields = (Option<Vec<u8>>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

/// Records of any content that keeps the rules of the form: `None` when it cannot be written.
fn stored_form(records: &[Fields]) -> Option<Bytes> {
    let made = records.iter().take(20).map(|(key, content_type, headers, payload)| BatchRecord {
        key: key.clone().map(Bytes::from),
        content_type: Bytes::from(content_type.clone()),
        headers: headers
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| (Bytes::from(name.clone()), Bytes::from(value.clone())))
            .collect(),
        ttl_ms: None,
        payload: Bytes::from(payload.clone()),
    });
    encode_batch(&made.collect::<Vec<_>>()).ok()
}

#[test]
fn a_stored_batch_reads_back_and_a_changed_byte_of_its_records_is_found() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<Fields>, usize, u8)>().for_each(
        |(records, place, change)| {
            let Some(frame) = stored_form(records) else { return };
            let (read, batch) = parse::stored_batch(&frame).expect("what is encoded is read");
            assert_eq!(read.len(), records.len().min(20));
            assert_eq!(batch.chunks().concat(), frame[HEAD_BYTES..], "it stays as it came");
            for (record, (key, _, _, payload)) in read.iter().zip(records) {
                assert_eq!((record.key.as_deref(), &record.payload[..]), (key.as_deref(), &payload[..]));
            }
            let mut changed = frame.to_vec();
            let at = HEAD_BYTES + place % (frame.len() - HEAD_BYTES);
            changed[at] ^= change | 1;
            assert!(parse::stored_batch(&Bytes::from(changed)).is_err(), "byte {at} is under the checksum");
        },
    );
}

#[test]
fn bytes_that_are_no_stored_batch_are_refused_within_bounds() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<Fields>, Vec<(usize, u8)>)>().for_each(
        |(records, changes)| {
            let mut bytes = stored_form(records).map(|frame| frame.to_vec()).unwrap_or_default();
            for (place, value) in changes {
                if bytes.is_empty() {
                    bytes.push(*value);
                }
                let at = place % bytes.len();
                bytes[at] = *value;
            }
            let bytes = Bytes::from(bytes);
            if let Ok(frames) = decode_frames(&bytes) {
                let total: usize = frames.iter().map(|frame| HEAD_BYTES + frame.body.len()).sum();
                assert_eq!(total, bytes.len(), "nothing is left over");
                for frame in frames {
                    assert_eq!(frame.records.len(), frame.head.count as usize);
                    assert_eq!(FrameHead::decode(&frame.head.encode(), 0).expect("a head"), frame.head);
                }
            }
        },
    );
}

#[test]
fn a_time_to_live_is_within_its_bounds_and_reads_back_as_it_is_shown() {
    const TIMES: &[&str] = &["1", "0", "9", "59", "s", "ms", "m", "h", "d", "y", "us", " ", "-", ".", "month", "é"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, u64)>().for_each(|(picks, ms)| {
        if let Ok(ttl) = parse::ttl("it", &text(TIMES, picks)) {
            assert!((RECORD_TTL_MS_MIN..=RECORD_TTL_MS_MAX).contains(&ttl.get()));
        }
        let ms = RECORD_TTL_MS_MIN + ms % (RECORD_TTL_MS_MAX - RECORD_TTL_MS_MIN + 1);
        let read = parse::ttl("it", &units::show_millis(ms)).expect("what is shown is read");
        assert_eq!(Some(read), NonZeroU64::new(ms));
    });
}

#[test]
fn a_number_of_bytes_is_its_digits_times_its_unit() {
    const SIZES: &[&str] =
        &["1", "0", "7", "64", "KiB", "MiB", "GiB", "TiB", "kB", "MB", "B", " ", "-", "+", ".", "e", "٣"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let given = text(SIZES, picks);
        let digits: String = given.chars().take_while(char::is_ascii_digit).collect();
        let unit = given[digits.len()..].trim_start();
        let powers = [("", 1), ("B", 1), ("kB", 1000), ("MB", 1_000_000)].into_iter();
        let powers = powers.chain([("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1_u64 << 40)]);
        let factor = powers.into_iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
        let expected = digits.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        assert_eq!(units::parse_bytes(&given).ok(), expected, "{given}");
    });
}

#[test]
fn a_trace_is_read_as_it_is_written_or_not_at_all() {
    const PIECES: &[&str] = &[
        "00",
        "ff",
        "cc",
        "-",
        "-",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
        "0000000000000000",
        "00000000000000000000000000000000",
        "01",
        "+1",
        "A0",
        "é",
    ];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, (u64, u64, u64), bool)>().for_each(
        |(picks, (high, low, span_id), sampled)| {
            let trace_id = u128::from(*high) << 64 | u128::from(*low);
            let made = TraceContext { trace_id, span_id: *span_id, sampled: *sampled };
            let is_one = trace_id != 0 && *span_id != 0;
            assert_eq!(TraceContext::parse(&made.to_string()), is_one.then_some(made));
            // One piece in the place of another, in a header that is right but for that.
            let mut parts = ["00", "-", PIECES[5], "-", PIECES[6], "-", "01"];
            if let [at, pick, ..] = picks[..] {
                parts[usize::from(at) % 7] = PIECES[usize::from(pick) % PIECES.len()];
            }
            for given in [parts.concat(), text(PIECES, picks)] {
                let Some(read) = TraceContext::parse(&given) else { continue };
                assert!(read.trace_id != 0 && read.span_id != 0, "{given}");
                assert_eq!(read.to_string()[2..52], given[2..52]);
            }
        },
    );
}
