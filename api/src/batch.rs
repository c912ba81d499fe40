//! Batches in the form in which they are stored, `application/vnd.plinth.batch`, version 1 (docs/format.md, section 8).
//!
//! A frame is a head of 44 bytes and the body of one batch. Reads answer frames one after the other, a publish is one
//! frame. Everything is checked on the way in, and a payload is a slice of what was read, never a copy. Pure code: no I/O.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::RECORD_HEADERS_MAX;

/// The media type of frames.
pub const MEDIA_TYPE: &str = "application/vnd.plinth.batch";
/// Length of a frame's head.
pub const HEAD_BYTES: usize = 44;

const MAGIC: &[u8; 4] = b"PLNB";
const VERSION: u16 = 1;
const CHECKED_BYTES: usize = HEAD_BYTES - 4;
const RECORD_HEAD_BYTES: usize = 14;
/// Length of the value of the header that is the time to live.
const TTL_BYTES: usize = 8;

/// What stands before a batch. In a publish the partition, the offset and the time are not looked at: the receipt says
/// which ones it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHead {
    /// The partition.
    pub partition: u32,
    /// The offset of the first record.
    pub offset: u64,
    /// How many records, at least 1.
    pub count: u32,
    /// The server's time of all records, ms since the Unix epoch.
    pub timestamp: u64,
    /// Length of the body in bytes.
    pub body_bytes: u32,
    /// CRC32C of the body.
    pub body_crc: u32,
}

/// A record of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRecord {
    /// The key, if it has one; at most 1 KiB.
    pub key: Option<Bytes>,
    /// The media type of the payload; empty for none.
    pub content_type: Bytes,
    /// Names and values, in order; at most 64 and, with the media type, 16 KiB.
    pub headers: Vec<(Bytes, Bytes)>,
    /// How many ms after the batch's time the record is not delivered any more. In the form the first header, without a name.
    pub ttl_ms: Option<u64>,
    /// The payload, at most 1 MiB.
    pub payload: Bytes,
}

/// Names and values, in order.
type Headers = Vec<(Bytes, Bytes)>;

/// A batch that was read: record `i` has the offset `head.offset + i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What stood before it.
    pub head: FrameHead,
    /// The records in their stored form, as they came.
    pub body: Bytes,
    /// The same, read.
    pub records: Vec<BatchRecord>,
}

/// Why a batch cannot be read or written. The sentence names the place or the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// It does not have its form or checksum, or the form cannot hold it.
    Broken(String),
    /// A record has more headers than a record may have.
    TooLarge(String),
}

/// One frame of `records`, as a publish wants it. The limits of the server are not checked here, only what the form can
/// hold.
///
/// # Errors
/// When there is no record, or a part is longer than the form can say.
pub fn encode_batch(records: &[BatchRecord]) -> Result<Bytes, BatchError> {
    if records.is_empty() {
        return Err(BatchError::Broken("batch has no record".to_owned()));
    }
    let mut out = BytesMut::with_capacity(HEAD_BYTES + records.iter().map(encoded_bytes).sum::<usize>());
    out.put_bytes(0, HEAD_BYTES);
    for (record, number) in records.iter().zip(1..) {
        encode_record(&mut out, record, number)?;
    }
    let body = &out[HEAD_BYTES..];
    let head = FrameHead {
        count: length("batch", "number of records", records.len())?,
        body_bytes: length("batch", "body", body.len())?,
        body_crc: crc32c::crc32c(body),
        ..FrameHead::default()
    };
    out[..HEAD_BYTES].copy_from_slice(&head.encode());
    Ok(out.freeze())
}

/// All frames in `bytes`, which end where the last one does.
///
/// # Errors
/// `Broken` when anything does not have its form or checksum, naming the byte; `TooLarge`.
pub fn decode_frames(bytes: &Bytes) -> Result<Vec<Frame>, BatchError> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let frame = Frame::decode(bytes, at)?;
        at += HEAD_BYTES + frame.body.len();
        frames.push(frame);
    }
    Ok(frames)
}

impl FrameHead {
    /// The head as it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let mut out = &mut head[..];
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(self.partition);
        out.put_u32_le(self.count);
        out.put_u64_le(self.offset);
        out.put_u64_le(self.timestamp);
        out.put_u32_le(self.body_bytes);
        out.put_u32_le(self.body_crc);
        let crc = crc32c::crc32c(&head[..CHECKED_BYTES]);
        head[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// The head at the byte `at` of `bytes`.
    ///
    /// # Errors
    /// When it does not have its form, version or checksum.
    pub fn decode(bytes: &[u8], at: usize) -> Result<Self, BatchError> {
        let broken = |why: String| Err(BatchError::Broken(format!("the head of the batch at byte {at} {why}")));
        let Some(mut head) = bytes.get(at..).and_then(|rest| rest.get(..HEAD_BYTES)) else {
            return broken(format!("is cut short: it has {HEAD_BYTES} bytes"));
        };
        if &head[..4] != MAGIC {
            return broken("does not begin with PLNB".to_owned());
        }
        let (found, expected) = (crc32c::crc32c(&head[..CHECKED_BYTES]), (&head[CHECKED_BYTES..]).get_u32_le());
        if found != expected {
            return broken(format!("has the checksum {found:08x} and says {expected:08x}"));
        }
        head.advance(4);
        let (version, reserved) = (head.get_u16_le(), head.get_u16_le());
        if version != VERSION || reserved != 0 {
            return broken(format!("is of version {version}.{reserved}; version {VERSION}.0 is read here"));
        }
        let (partition, count) = (head.get_u32_le(), head.get_u32_le());
        let (offset, timestamp) = (head.get_u64_le(), head.get_u64_le());
        let decoded =
            Self { partition, offset, count, timestamp, body_bytes: head.get_u32_le(), body_crc: head.get_u32_le() };
        if count == 0 {
            return broken("says that there is no record".to_owned());
        }
        Ok(decoded)
    }
}

impl Frame {
    /// The frame at the byte `at` of `bytes`; the next one begins behind its body.
    ///
    /// # Errors
    /// `Broken` when anything does not have its form or checksum, naming the byte; `TooLarge`.
    pub fn decode(bytes: &Bytes, at: usize) -> Result<Self, BatchError> {
        let head = FrameHead::decode(bytes, at)?;
        let start = at + HEAD_BYTES;
        let body_bytes = head.body_bytes as usize;
        if bytes.len() - start < body_bytes {
            let there = bytes.len() - start;
            let why =
                format!("the batch at byte {at} is cut short: its body has {body_bytes} bytes, {there} are there");
            return Err(BatchError::Broken(why));
        }
        let body = bytes.slice(start..start + body_bytes);
        let found = crc32c::crc32c(&body);
        if found != head.body_crc {
            let said = head.body_crc;
            let why = format!("the batch at byte {at} has the checksum {found:08x} and its head says {said:08x}");
            return Err(BatchError::Broken(why));
        }
        let mut reader = Reader { body: &body, start, at: 0, record: 0 };
        // A count is not believed before so many records can be there.
        let mut records = Vec::with_capacity((head.count as usize).min(body_bytes / RECORD_HEAD_BYTES));
        for number in 1..=head.count {
            reader.record = number;
            records.push(reader.read()?);
        }
        if reader.at < body.len() {
            let (extra, count) = (body.len() - reader.at, head.count);
            let why = format!("the batch at byte {at} has {extra} bytes after its {count} records");
            return Err(BatchError::Broken(why));
        }
        Ok(Self { head, body, records })
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) | Self::TooLarge(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for BatchError {}

/// Reads the records of a body.
struct Reader<'a> {
    body: &'a Bytes,
    /// Where the body begins in what was received.
    start: usize,
    at: usize,
    /// The number of the record that is read, from 1.
    record: u32,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<BatchRecord, BatchError> {
        let mut head = self.take("head", RECORD_HEAD_BYTES)?;
        let payload = head.get_u32_le() as usize;
        let key = usize::from(head.get_u16_le()).checked_sub(1);
        let content_type = usize::from(head.get_u16_le());
        let headers = usize::from(head.get_u16_le());
        let headers_end = head.get_u32_le() as usize;
        let key = key.map(|len| self.take("key", len)).transpose()?;
        let content_type = self.take("content type", content_type)?;
        let (ttl_ms, headers) = self.headers(headers, headers_end)?;
        Ok(BatchRecord { key, content_type, headers, ttl_ms, payload: self.take("payload", payload)? })
    }

    fn headers(&mut self, count: usize, bytes: usize) -> Result<(Option<u64>, Headers), BatchError> {
        let at = self.at;
        let end = at.saturating_add(bytes);
        let has_ttl = count > 0 && self.body[at..].starts_with(&[0, 0]);
        let ttl_ms = if has_ttl { Some(self.ttl()?) } else { None };
        let count = count - usize::from(has_ttl);
        // Each takes far more memory than its four bytes here.
        if count > RECORD_HEADERS_MAX {
            let record = self.record;
            let why = format!("record {record}: {count} headers exceed the limit of {RECORD_HEADERS_MAX}");
            return Err(BatchError::TooLarge(why));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let mut lengths = self.take("header", 4)?;
            let (name, value) = (usize::from(lengths.get_u16_le()), usize::from(lengths.get_u16_le()));
            headers.push((self.take("header name", name)?, self.take("header value", value)?));
        }
        if self.at != end {
            let (record, at, taken) = (self.record, self.start + at, self.at - at);
            let why = format!("record {record}: the headers at byte {at} have {taken} bytes, its head says {bytes}");
            return Err(BatchError::Broken(why));
        }
        Ok((ttl_ms, headers))
    }

    /// The first header, whose name is empty.
    fn ttl(&mut self) -> Result<u64, BatchError> {
        let at = self.at;
        let mut lengths = self.take("header", 4)?;
        let (_, value) = (lengths.get_u16_le(), usize::from(lengths.get_u16_le()));
        if value != TTL_BYTES {
            let (record, at) = (self.record, self.start + at);
            let why = format!(
                "record {record}: the time to live at byte {at}, a header without a name, has {value} bytes and not {TTL_BYTES}"
            );
            return Err(BatchError::Broken(why));
        }
        Ok(self.take("time to live", value)?.get_u64_le())
    }

    fn take(&mut self, what: &str, len: usize) -> Result<Bytes, BatchError> {
        if self.body.len() - self.at < len {
            let (record, at) = (self.record, self.start + self.at);
            let why =
                format!("record {record}: the {what} of {len} bytes at byte {at} goes beyond the end of the batch");
            return Err(BatchError::Broken(why));
        }
        let taken = self.body.slice(self.at..self.at + len);
        self.at += len;
        Ok(taken)
    }
}

fn encoded_bytes(record: &BatchRecord) -> usize {
    let key = record.key.as_ref().map_or(0, Bytes::len);
    RECORD_HEAD_BYTES + key + record.content_type.len() + headers_bytes(record) + record.payload.len()
}

fn headers_bytes(record: &BatchRecord) -> usize {
    let ttl = if record.ttl_ms.is_some() { 4 + TTL_BYTES } else { 0 };
    ttl + record.headers.iter().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>()
}

fn encode_record(out: &mut BytesMut, record: &BatchRecord, number: usize) -> Result<(), BatchError> {
    let of = format!("record {number}");
    let headers = record.headers.len() + usize::from(record.ttl_ms.is_some());
    out.put_u32_le(length(&of, "payload", record.payload.len())?);
    out.put_u16_le(length(&of, "key", record.key.as_ref().map_or(0, |key| key.len() + 1))?);
    out.put_u16_le(length(&of, "content type", record.content_type.len())?);
    out.put_u16_le(length(&of, "number of headers", headers)?);
    out.put_u32_le(length(&of, "headers", headers_bytes(record))?);
    out.put_slice(record.key.as_deref().unwrap_or_default());
    out.put_slice(&record.content_type);
    if let Some(ttl) = record.ttl_ms {
        out.put_u16_le(0);
        out.put_u16_le(length(&of, "time to live", TTL_BYTES)?);
        out.put_u64_le(ttl);
    }
    for (name, value) in &record.headers {
        out.put_u16_le(length(&of, "header name", name.len())?);
        out.put_u16_le(length(&of, "header value", value.len())?);
        out.put_slice(name);
        out.put_slice(value);
    }
    out.put_slice(&record.payload);
    Ok(())
}

fn length<T: TryFrom<usize>>(of: &str, what: &str, len: usize) -> Result<T, BatchError> {
    T::try_from(len).map_err(|_| BatchError::Broken(format!("{of}: {what} of {len} exceeds what the form can hold")))
}

#[cfg(test)]
mod tests;
