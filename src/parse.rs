//! Records of a request become records of the log, for every transport.
//!
//! A payload given as JSON, or in a stored batch, stays a slice of the request's body: the bytes that were sent are the bytes that are stored,
//! and they are not copied. Only forms are read here; the broker checks the limits. Knows neither HTTP nor frames.

use std::num::NonZeroU64;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use plinth_api::batch::{BatchError, BatchRecord, Frame, FrameHead, HEAD_BYTES};
use plinth_api::limits::{BATCH_RECORDS_MAX, RECORD_TTL_MS_MAX, RECORD_TTL_MS_MIN};
use plinth_api::records::{Durability, PublishRecord};
use plinth_storage::record::{Batch, NewRecord};

use crate::broker::Error;

/// The records of a batch; `records` must have been read from `body`.
///
/// # Errors
/// `Unprocessable`, naming the record by its place in the batch; nothing of the batch counts then.
pub fn new_records(records: Vec<PublishRecord<'_>>, body: &Bytes) -> Result<Vec<NewRecord>, Error> {
    records.into_iter().enumerate().map(|(index, record)| new_record(record, body, index)).collect()
}

/// A durability class in the words of the log.
#[must_use]
pub fn class(class: Durability) -> plinth_storage::Durability {
    match class {
        Durability::Object => plinth_storage::Durability::Object,
        Durability::Local => plinth_storage::Durability::Local,
        Durability::Memory => plinth_storage::Durability::Memory,
    }
}

/// A time to live as people write it; `what` names its place.
///
/// # Errors
/// `Invalid` for what is no time, `Unprocessable` for one that is out of its bounds.
pub fn ttl(what: &str, text: &str) -> Result<NonZeroU64, Error> {
    let read = humantime::parse_duration(text)
        .map_err(|why| Error::Invalid(format!("{what} {text:?} is not a time such as \"30s\" or \"1h\": {why}")))?;
    ttl_ms(u64::try_from(read.as_millis()).unwrap_or(u64::MAX))
        .ok_or_else(|| Error::Unprocessable(format!("{what} {text:?} is not within {TTL_BOUNDS}")))
}

/// A time to live that is within its bounds.
fn ttl_ms(ms: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(ms).filter(|_| (RECORD_TTL_MS_MIN..=RECORD_TTL_MS_MAX).contains(&ms))
}

/// The bounds in words.
const TTL_BOUNDS: &str = "1s to 10y";

/// Whether one batch may have `count` records; for a form of batch of which not all records are parsed before.
///
/// # Errors
/// `TooLarge`.
pub fn check_count(count: usize) -> Result<(), Error> {
    if count <= BATCH_RECORDS_MAX {
        return Ok(());
    }
    Err(Error::TooLarge(format!("batch of {count} records exceeds the limit of {BATCH_RECORDS_MAX}")))
}

/// A batch in its stored form, which is to be stored as it is; `frame` is the whole request. Its records are given as well,
/// for the broker to check.
///
/// # Errors
/// `Invalid`, naming the byte, when it does not have its form or checksum, and for a second batch; `TooLarge` for too
/// many records or headers.
pub fn stored_batch(frame: &Bytes) -> Result<(Vec<NewRecord>, Batch), Error> {
    let unread = |error| match error {
        BatchError::Broken(why) => Error::Invalid(format!("{why}; nothing was stored")),
        BatchError::TooLarge(why) => Error::TooLarge(why),
    };
    check_count(FrameHead::decode(frame, 0).map_err(unread)?.count as usize)?;
    let Frame { head, body, records } = Frame::decode(frame, 0).map_err(unread)?;
    let end = HEAD_BYTES + body.len();
    if end < frame.len() {
        let extra = frame.len() - end;
        let why = format!("a publish is one batch, which ends at byte {end}: {extra} bytes come after it");
        return Err(Error::Invalid(why));
    }
    let batch = Batch::parse(body, head.count, head.body_crc)?;
    let records = records.into_iter().enumerate().map(|(index, record)| {
        let BatchRecord { key, content_type, headers, ttl_ms: ttl, payload } = record;
        let bad = |ms| refused(index, &format!("its time to live of {ms} ms is not within {TTL_BOUNDS}"));
        let ttl_ms = ttl.map(|ms| ttl_ms(ms).ok_or_else(|| bad(ms))).transpose()?;
        Ok(NewRecord { key, content_type, headers, ttl_ms, payload })
    });
    Ok((records.collect::<Result<_, Error>>()?, batch))
}

/// One record of a batch, at the place `index` from 0; it must have been read from `body`.
///
/// # Errors
/// `Unprocessable` for more than one payload, base64 that cannot be read and a time to live out of its bounds; `Invalid` for
/// one that is no time.
pub fn new_record(record: PublishRecord<'_>, body: &Bytes, index: usize) -> Result<NewRecord, Error> {
    let PublishRecord { key, headers, content_type, ttl: lives, value, text, base64 } = record;
    let (payload, default_type) = match (value, text, base64) {
        (None, None, None) => (Bytes::new(), ""),
        (Some(value), None, None) => (body.slice_ref(value.get().as_bytes()), "application/json"),
        (None, Some(text), None) => (Bytes::from(text), "text/plain; charset=utf-8"),
        (None, None, Some(base64)) => (decode(&base64, index)?, "application/octet-stream"),
        (_, _, _) => return Err(refused(index, "more than one of `value`, `text` and `base64`")),
    };
    let what = || format!("record {}: `ttl`", index + 1);
    Ok(NewRecord {
        key: key.map(Bytes::from),
        content_type: content_type.map_or(Bytes::from_static(default_type.as_bytes()), Bytes::from),
        headers: headers.into_iter().map(|(name, value)| (Bytes::from(name), Bytes::from(value))).collect(),
        ttl_ms: lives.map(|text| ttl(&what(), &text)).transpose()?,
        payload,
    })
}

fn decode(text: &str, index: usize) -> Result<Bytes, Error> {
    let bytes = STANDARD.decode(text).map_err(|error| refused(index, &format!("unreadable `base64`: {error}")))?;
    Ok(Bytes::from(bytes))
}

fn refused(index: usize, why: &str) -> Error {
    Error::Unprocessable(format!("record {}: {why}", index + 1))
}

#[cfg(test)]
mod tests {
    use plinth_api::records::PublishBatch;

    use super::*;

    fn parse(text: &str) -> Result<Vec<NewRecord>, Error> {
        let body = Bytes::from(text.to_owned());
        let batch: PublishBatch<'_> = serde_json::from_slice(&body).expect("the batch is valid JSON");
        new_records(batch.records, &body)
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err("the batch is refused").to_string()
    }

    #[test]
    fn a_json_payload_keeps_the_bytes_that_were_sent_and_is_not_copied() {
        let text = r#"{"records":[{"value": {"b" : 1.10, "a":"\u00e9"} },{"value":null}]}"#;
        let body = Bytes::from(text.to_owned());
        let batch: PublishBatch<'_> = serde_json::from_slice(&body).unwrap();
        let records = new_records(batch.records, &body).unwrap();
        assert_eq!(records[0].payload, r#"{"b" : 1.10, "a":"\u00e9"}"#);
        assert!(body.as_ptr_range().contains(&records[0].payload.as_ptr()));
        assert_eq!(records[1].payload, "null");
        assert_eq!(records[1].content_type, "application/json");
    }

    #[test]
    fn text_base64_and_nothing_are_payloads_with_their_own_media_types() {
        let records =
            parse(r#"{"records":[{"text":"a\nb"},{"base64":"AAE="},{"key":"k"},{"text":"x","content_type":"a/b"}]}"#);
        let records = records.unwrap();
        assert_eq!(
            (&records[0].payload[..], &records[0].content_type[..]),
            (&b"a\nb"[..], &b"text/plain; charset=utf-8"[..])
        );
        assert_eq!(
            (&records[1].payload[..], &records[1].content_type[..]),
            (&b"\0\x01"[..], &b"application/octet-stream"[..])
        );
        assert_eq!((&records[2].payload[..], &records[2].content_type[..]), (&b""[..], &b""[..]));
        assert_eq!(records[2].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(records[3].content_type, "a/b");
    }

    #[test]
    fn a_stored_batch_is_kept_byte_for_byte_and_not_copied() {
        let record = |text: &str| BatchRecord { payload: Bytes::from(text.to_owned()), ..BatchRecord::default() };
        let frame = plinth_api::batch::encode_batch(&[record("a"), record("b")]).unwrap();
        let (records, batch) = stored_batch(&frame).unwrap();
        assert_eq!((&records[0].payload[..], &records[1].payload[..]), (&b"a"[..], &b"b"[..]));
        let [chunk] = batch.chunks() else { panic!("one piece") };
        assert_eq!(chunk.as_ptr(), frame[HEAD_BYTES..].as_ptr());
        assert_eq!((batch.count(), &chunk[..]), (2, &frame[HEAD_BYTES..]));
        let two = Bytes::from(frame.repeat(2));
        assert!(stored_batch(&two).unwrap_err().to_string().contains("a publish is one batch, which ends at byte"));
    }

    #[test]
    fn a_time_to_live_is_the_same_in_a_json_batch_and_in_a_stored_one() {
        let records = parse(r#"{"records":[{"ttl":"1h"},{}]}"#).unwrap();
        assert_eq!((records[0].ttl_ms, records[1].ttl_ms), (NonZeroU64::new(3_600_000), None));
        let stored = |ttl_ms| {
            let record = BatchRecord { ttl_ms: Some(ttl_ms), ..BatchRecord::default() };
            stored_batch(&plinth_api::batch::encode_batch(&[record]).unwrap())
        };
        let (records, batch) = stored(3_600_000).unwrap();
        assert_eq!((records[0].ttl_ms, batch.has_ttl()), (NonZeroU64::new(3_600_000), true));
        for ms in [0, 999, RECORD_TTL_MS_MAX + 1, u64::MAX] {
            let why = format!("record 1: its time to live of {ms} ms is not within 1s to 10y");
            assert_eq!(stored(ms).unwrap_err().to_string(), why);
        }
        assert_eq!(refusal(r#"{"records":[{"ttl":"11y"}]}"#), "record 1: `ttl` \"11y\" is not within 1s to 10y");
        assert!(refusal(r#"{"records":[{},{"ttl":"1"}]}"#).starts_with("record 2: `ttl` \"1\" is not a time such as"));
    }

    #[test]
    fn a_refused_record_is_named_by_its_place() {
        let twice = refusal(r#"{"records":[{},{"text":"a","base64":"AA=="}]}"#);
        assert_eq!(twice, "record 2: more than one of `value`, `text` and `base64`");
        assert!(refusal(r#"{"records":[{"base64":"A"}]}"#).starts_with("record 1: unreadable `base64`"));
    }
}
