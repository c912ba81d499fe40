//! Records and batches, and the bytes that a batch is stored as.
//!
//! A batch is a list of chunks whose concatenation is its stored form. A payload that is worth it stays the `Bytes` in
//! which it arrived: one chunk that the WAL object, the tail in memory and every reader share. The form of one record:
//!
//! ```text
//! payload length u32 · key length + 1, 0 for none u16 · content type length u16 · headers u16 · bytes of headers u32
//! key · content type · headers (name length u16 · value length u16 · name · value)* · payload        (little endian)
//! ```
//!
//! A first header with an empty name is the record's time to live (`record/ttl.rs`).

mod cut;
mod retain;
mod ttl;

use std::num::NonZeroU64;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Timestamp};

pub use self::ttl::Run;
use self::ttl::{TTL_HEADER_BYTES, put_ttl, shorter, take_ttl};

/// Payloads up to this many bytes are copied next to their record's head: a chunk of their own would cost more.
pub const INLINE_PAYLOAD_BYTES_MAX: usize = 512;
/// Most records in one batch of the stored format.
pub const BATCH_RECORDS_MAX: usize = 65_536;
/// Largest stored form of one batch.
pub const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;

const HEAD_BYTES: usize = 14;

/// A record to be appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The key, at most 65,534 bytes.
    pub key: Option<Bytes>,
    /// The media type of the payload; empty for none.
    pub content_type: Bytes,
    /// Names and values, in order.
    pub headers: Vec<(Bytes, Bytes)>,
    /// How many ms after its time nobody is to see it any more.
    pub ttl_ms: Option<NonZeroU64>,
    /// The payload.
    pub payload: Bytes,
}

/// Records in their stored form, not yet placed in a partition.
#[derive(Clone, Debug)]
pub struct Batch {
    count: u32,
    len: usize,
    crc: u32,
    chunks: Vec<Bytes>,
    /// No record of it has a shorter time to live; none when none has any.
    shortest_ttl: Option<NonZeroU64>,
}

/// A batch with its place: what readers get. Cheap to clone by `Arc`.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// The offset of the first record.
    pub base: Offset,
    /// The server's time of all records of the batch.
    pub timestamp: Timestamp,
    /// The records.
    pub batch: Batch,
}

/// A record as it was stored, borrowed from its batch; the payload is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// The place in the partition.
    pub offset: Offset,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The media type; empty for none.
    pub content_type: Bytes,
    /// Names and values, in order.
    pub headers: Vec<(Bytes, Bytes)>,
    /// How many ms after its time nobody is to see it any more.
    pub ttl_ms: Option<NonZeroU64>,
    /// The payload.
    pub payload: Bytes,
}

/// A record as it was stored, all of it borrowed: for those who only look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The place in the partition.
    pub offset: Offset,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The media type; empty for none.
    pub content_type: &'a [u8],
    /// How many ms after its time nobody is to see it any more.
    pub ttl_ms: Option<NonZeroU64>,
    /// The payload.
    pub payload: &'a [u8],
    /// In their stored form, which was checked.
    headers: &'a [u8],
}

/// Puts records into their stored form one after the other.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    count: u32,
    len: usize,
    shortest_ttl: Option<NonZeroU64>,
    chunks: Vec<Bytes>,
    open: BytesMut,
}

impl BatchBuilder {
    /// A builder with no record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record.
    ///
    /// # Errors
    /// `Invalid` when a part is longer than the format can say, or the batch grows over its bounds.
    pub fn push(&mut self, record: &NewRecord) -> Result<()> {
        let headers_len = headers_len(&record.headers, record.ttl_ms);
        let headers = record.headers.len() + usize::from(record.ttl_ms.is_some());
        let key_len = record.key.as_ref().map_or(0, |key| key.len() + 1);
        let inline = record.payload.len() <= INLINE_PAYLOAD_BYTES_MAX;
        let payload_len = if inline { record.payload.len() } else { 0 };
        let key_bytes = record.key.as_ref().map_or(0, Bytes::len);
        self.open.reserve(HEAD_BYTES + key_bytes + record.content_type.len() + headers_len + payload_len);
        self.open.put_u32_le(length("payload", record.payload.len())?);
        self.open.put_u16_le(length("key", key_len)?);
        self.open.put_u16_le(length("content type", record.content_type.len())?);
        self.open.put_u16_le(length("header count", headers)?);
        self.open.put_u32_le(length("headers", headers_len)?);
        self.open.put_slice(record.key.as_deref().unwrap_or_default());
        self.open.put_slice(&record.content_type);
        if let Some(ttl) = record.ttl_ms {
            put_ttl(&mut self.open, ttl);
            self.shortest_ttl = shorter(self.shortest_ttl, Some(ttl));
        }
        for (name, value) in &record.headers {
            self.open.put_u16_le(length("header name", name.len())?);
            self.open.put_u16_le(length("header value", value.len())?);
            self.open.put_slice(name);
            self.open.put_slice(value);
        }
        if inline {
            self.open.put_slice(&record.payload);
        } else {
            self.close_chunk();
            self.len += record.payload.len();
            self.chunks.push(record.payload.clone());
        }
        self.count += 1;
        if self.count as usize > BATCH_RECORDS_MAX || self.len + self.open.len() > BATCH_BYTES_MAX {
            return Err(Error::new(
                Kind::Invalid,
                format!("batch exceeds the limit of {BATCH_RECORDS_MAX} records or {BATCH_BYTES_MAX} bytes"),
            ));
        }
        Ok(())
    }

    /// The batch.
    ///
    /// # Errors
    /// `Invalid` when it has no record.
    pub fn finish(mut self) -> Result<Batch> {
        if self.count == 0 {
            return Err(Error::new(Kind::Invalid, "batch has no record"));
        }
        if !self.open.is_empty() {
            // Whole, not split off: what has one owner and no room to spare needs no count of owners.
            self.chunks.push(self.open.freeze());
        }
        Ok(Batch::of_chunks(self.count, self.chunks, self.shortest_ttl))
    }

    fn close_chunk(&mut self) {
        if !self.open.is_empty() {
            self.len += self.open.len();
            self.chunks.push(self.open.split().freeze());
        }
    }
}

impl Batch {
    /// A batch of `records`.
    ///
    /// # Errors
    /// `Invalid` when there is none, or a part is over the bounds of the format.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a NewRecord>) -> Result<Self> {
        let mut builder = BatchBuilder::new();
        for record in records {
            builder.push(record)?;
        }
        builder.finish()
    }

    /// A batch read back: `body` is the stored form.
    ///
    /// # Errors
    /// `Corrupt` when the checksum differs from `crc` or the form does not hold `count` records.
    pub fn parse(body: Bytes, count: u32, crc: u32) -> Result<Self> {
        if crc32c::crc32c(&body) != crc && !planted!(ChecksumSkipped) {
            return Err(Error::new(Kind::Corrupt, "batch does not have its checksum"));
        }
        let batch = Self { count, len: body.len(), crc, chunks: vec![body], shortest_ttl: None };
        let (mut reader, mut shortest_ttl) = (Reader::new(&batch), None);
        for _ in 0..count {
            let (_, ttl) = reader.skip().ok_or_else(|| Error::new(Kind::Corrupt, "batch is cut short"))?;
            shortest_ttl = shorter(shortest_ttl, ttl);
        }
        if !reader.is_at_end() {
            return Err(Error::new(Kind::Corrupt, "batch has bytes after its end"));
        }
        Ok(Self { shortest_ttl, ..batch })
    }

    /// A batch whose stored form is these chunks.
    fn of_chunks(count: u32, chunks: Vec<Bytes>, shortest_ttl: Option<NonZeroU64>) -> Self {
        let crc = chunks.iter().fold(0, |crc, chunk| crc32c::crc32c_append(crc, chunk));
        Self { count, len: chunks.iter().map(Bytes::len).sum(), crc, chunks, shortest_ttl }
    }

    /// How many records it has, at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the stored form.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch has at least one record")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// CRC32C of the stored form.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The stored form in pieces.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The same batch in memory of its own: it keeps nothing else of what it was read from.
    pub(crate) fn detached(&self) -> Self {
        Self { chunks: vec![Bytes::from(self.chunks.concat())], ..*self }
    }
}

impl StoredBatch {
    /// The offset after the last record.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.base.plus(self.batch.count)
    }

    /// The batch without its records below `start`, of which it has some from there on. What is kept is shared, not copied.
    #[must_use]
    pub fn from_offset(&self, start: Offset) -> Self {
        self.part(start.max(self.base), self.next())
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = RecordView> + '_ {
        let mut reader = Reader::new(&self.batch);
        (0..self.batch.count).map(move |index| {
            let record = reader.read().expect("the form was checked when the batch was made");
            RecordView { offset: self.base.plus(index), ..record }
        })
    }

    /// The records, in order, borrowed.
    pub fn record_refs(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let mut reader = Reader::new(&self.batch);
        (0..self.batch.count).map(move |index| {
            let record = reader.read_ref().expect("the form was checked when the batch was made");
            RecordRef { offset: self.base.plus(index), ..record }
        })
    }
}

impl RecordView {
    /// Bytes of its stored form.
    pub(crate) fn stored_len(&self) -> usize {
        let headers = headers_len(&self.headers, self.ttl_ms);
        let key = self.key.as_ref().map_or(0, |key| key.len());
        HEAD_BYTES + key + self.content_type.len() + headers + self.payload.len()
    }
}

impl<'a> RecordRef<'a> {
    /// Names and values, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.headers;
        std::iter::from_fn(move || take_header(&mut rest))
    }
}

struct Reader<'a> {
    chunks: &'a [Bytes],
    /// Where it is in the first of them.
    at: usize,
}

struct Head {
    payload: usize,
    key: Option<usize>,
    content_type: usize,
    headers: usize,
    header_bytes: usize,
}

impl<'a> Reader<'a> {
    fn new(batch: &'a Batch) -> Self {
        Self { chunks: &batch.chunks, at: 0 }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        if len == 0 {
            return Some(&[]);
        }
        while self.chunks.first()?.len() == self.at {
            (self.chunks, self.at) = (&self.chunks[1..], 0);
        }
        let taken = self.chunks[0].get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn take_shared(&mut self, len: usize) -> Option<Bytes> {
        let taken = self.take(len)?;
        Some(if taken.is_empty() { Bytes::new() } else { self.chunks[0].slice_ref(taken) })
    }

    fn head(&mut self) -> Option<Head> {
        let mut head = self.take(HEAD_BYTES)?;
        let payload = head.get_u32_le() as usize;
        let key = usize::from(head.get_u16_le()).checked_sub(1);
        let content_type = usize::from(head.get_u16_le());
        let headers = usize::from(head.get_u16_le());
        Some(Head { payload, key, content_type, headers, header_bytes: head.get_u32_le() as usize })
    }

    /// Passes over a record; gives its length and its time to live.
    fn skip(&mut self) -> Option<(usize, Option<NonZeroU64>)> {
        let head = self.head()?;
        let fields = head.key.unwrap_or(0) + head.content_type;
        self.take(fields)?;
        let mut headers = self.take(head.header_bytes)?;
        let ttl = take_ttl(&mut { headers });
        for _ in 0..head.headers {
            take_header(&mut headers)?;
        }
        self.take(head.payload)?;
        headers.is_empty().then_some((HEAD_BYTES + fields + head.header_bytes + head.payload, ttl))
    }

    fn read_ref(&mut self) -> Option<RecordRef<'a>> {
        let head = self.head()?;
        let key = match head.key {
            Some(len) => Some(self.take(len)?),
            None => None,
        };
        let content_type = self.take(head.content_type)?;
        let mut headers = self.take(head.header_bytes)?;
        let ttl_ms = take_ttl(&mut headers);
        let payload = self.take(head.payload)?;
        Some(RecordRef { offset: Offset(0), key, content_type, ttl_ms, payload, headers })
    }

    fn read(&mut self) -> Option<RecordView> {
        let head = self.head()?;
        let key = match head.key {
            Some(len) => Some(self.take_shared(len)?),
            None => None,
        };
        let content_type = self.take_shared(head.content_type)?;
        let all = self.take_shared(head.header_bytes)?;
        let (mut rest, mut headers) = (&all[..], Vec::with_capacity(head.headers));
        let ttl_ms = take_ttl(&mut rest);
        while let Some((name, value)) = take_header(&mut rest) {
            headers.push((all.slice_ref(name), all.slice_ref(value)));
        }
        let payload = self.take_shared(head.payload)?;
        Some(RecordView { offset: Offset(0), key, content_type, headers, ttl_ms, payload })
    }
}

/// The header at the start of `rest`, none at its end or where it is broken off.
fn take_header<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (lengths, after) = rest.split_first_chunk::<4>()?;
    let mut lengths = &lengths[..];
    let (name, value) = (usize::from(lengths.get_u16_le()), usize::from(lengths.get_u16_le()));
    let (name, after) = after.split_at_checked(name)?;
    let (value, after) = after.split_at_checked(value)?;
    *rest = after;
    Some((name, value))
}

/// Bytes of the stored form of headers and a time to live.
fn headers_len(headers: &[(Bytes, Bytes)], ttl_ms: Option<NonZeroU64>) -> usize {
    let ttl = if ttl_ms.is_some() { TTL_HEADER_BYTES } else { 0 };
    ttl + headers.iter().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>()
}

fn length<T: TryFrom<usize>>(what: &str, len: usize) -> Result<T> {
    T::try_from(len).map_err(|_| Error::new(Kind::Invalid, format!("{what} of {len} exceeds what the format can hold")))
}

#[cfg(test)]
mod tests;
