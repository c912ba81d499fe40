//! The stored form of a segment: frames of compressed blocks, then a table of the frames, then a trailer. Little endian.
//!
//! ```text
//! frames   zstd, each of whole blocks as in a WAL object, sorted by shard, partition and offset
//! table    per frame: position in the object u32 · length u32 · length of the content u32 · crc32c of the frame u32
//!          and of its first block: topic 16 · partition u32 · base offset u64 · timestamp u64
//! trailer  frames u32 · position of the table in the object u32 · length of all content u32 · crc32c of the table u32
//!          magic u32
//! ```
//! The content is what the frames hold, one after the other; index rows count their positions in it. A frame is closed as
//! soon as it holds [`FRAME_BYTES`], so that a read decompresses little more than it wants. Knows nothing of the store.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, Timestamp, TopicId};
use crate::wal::format::{HEADER_BYTES, get_ulid};

/// A frame takes no further block when its content is this long.
pub(crate) const FRAME_BYTES: usize = 512 * 1024;
/// Length of the trailer.
pub(crate) const TRAILER_BYTES: usize = 20;

const ENTRY_BYTES: usize = 52;
const TRAILER_MAGIC: u32 = 0x4745_5350;

/// One frame: where it stands and what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// In the object.
    pub(crate) position: u32,
    pub(crate) len: u32,
    /// Where what it holds begins in the content of the segment.
    pub(crate) content_at: u32,
    pub(crate) content_len: u32,
    pub(crate) crc: u32,
    /// Of its first block.
    pub(crate) partition: Partition,
    pub(crate) base: Offset,
    pub(crate) timestamp: Timestamp,
}

/// The sparse index of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameTable {
    frames: Vec<Frame>,
    content_len: u32,
}

/// What the trailer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Where the table stands in the object.
    pub(crate) table: Range<u64>,
    frames: usize,
    content_len: u32,
    crc: u32,
}

impl Frame {
    /// Where the frame stands in the object.
    pub(crate) fn range(&self) -> Range<u64> {
        u64::from(self.position)..u64::from(self.position) + u64::from(self.len)
    }

    /// Where what it holds stands in the content of the segment.
    pub(crate) fn content(&self) -> Range<u32> {
        self.content_at..self.content_at + self.content_len
    }

    /// What the frame holds.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are not those that were written.
    pub(crate) fn decompress(&self, bytes: &[u8]) -> Result<Bytes> {
        let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("segment frame {what}"));
        if bytes.len() != self.len as usize || crc32c::crc32c(bytes) != self.crc {
            return Err(corrupt("does not have its checksum"));
        }
        let content = zstd::bulk::decompress(bytes, self.content_len as usize)
            .map_err(|error| corrupt("cannot be decompressed").with_source(error))?;
        if content.len() != self.content_len as usize {
            return Err(corrupt("does not hold what the table says"));
        }
        Ok(Bytes::from(content))
    }
}

impl Trailer {
    /// Where the trailer of an object stands.
    pub(crate) fn range(object_len: u64) -> Range<u64> {
        object_len.saturating_sub(TRAILER_BYTES as u64)..object_len
    }

    /// Reads a trailer.
    ///
    /// # Errors
    /// `Corrupt` when it is none, or does not fit an object of that length.
    pub(crate) fn parse(mut bytes: Bytes, object_len: u64) -> Result<Self> {
        let corrupt = || Error::new(Kind::Corrupt, "segment has a broken trailer");
        if bytes.len() != TRAILER_BYTES {
            return Err(corrupt());
        }
        let frames = bytes.get_u32_le() as usize;
        let table = u64::from(bytes.get_u32_le())..Self::range(object_len).start;
        let (content_len, crc, magic) = (bytes.get_u32_le(), bytes.get_u32_le(), bytes.get_u32_le());
        let fits = table.start >= HEADER_BYTES as u64
            && table.end.checked_sub(table.start) == Some((frames * ENTRY_BYTES) as u64);
        if magic != TRAILER_MAGIC || !fits {
            return Err(corrupt());
        }
        Ok(Self { table, frames, content_len, crc })
    }
}

impl FrameTable {
    pub(super) fn new(frames: Vec<Frame>) -> Self {
        let content_len = frames.last().map_or(0, |frame| frame.content().end);
        Self { frames, content_len }
    }

    /// Reads the table that `trailer` names.
    ///
    /// # Errors
    /// `Corrupt` when it does not have its checksum or its frames are not side by side.
    pub(crate) fn parse(mut bytes: Bytes, trailer: &Trailer) -> Result<Self> {
        let corrupt = || Error::new(Kind::Corrupt, "segment has a broken frame table");
        if bytes.len() != trailer.frames * ENTRY_BYTES || crc32c::crc32c(&bytes) != trailer.crc {
            return Err(corrupt());
        }
        let (mut frames, mut position, mut content_at) =
            (Vec::with_capacity(trailer.frames), HEADER_BYTES as u64, 0_u32);
        for _ in 0..trailer.frames {
            let frame = Frame {
                position: bytes.get_u32_le(),
                len: bytes.get_u32_le(),
                content_at,
                content_len: bytes.get_u32_le(),
                crc: bytes.get_u32_le(),
                partition: Partition {
                    topic: TopicId(get_ulid(&mut bytes)),
                    index: PartitionIndex(bytes.get_u32_le()),
                },
                base: Offset(bytes.get_u64_le()),
                timestamp: Timestamp(bytes.get_u64_le()),
            };
            content_at = content_at.checked_add(frame.content_len).ok_or_else(corrupt)?;
            if u64::from(frame.position) != position || frame.content_len == 0 {
                return Err(corrupt());
            }
            position = frame.range().end;
            frames.push(frame);
        }
        if position != trailer.table.start || content_at != trailer.content_len {
            return Err(corrupt());
        }
        Ok(Self { frames, content_len: content_at })
    }

    /// The table and the trailer after it; `position` is where they begin in the object.
    pub(super) fn encode(&self, position: u32) -> Bytes {
        let mut out = BytesMut::with_capacity(self.frames.len() * ENTRY_BYTES + TRAILER_BYTES);
        for frame in &self.frames {
            out.put_u32_le(frame.position);
            out.put_u32_le(frame.len);
            out.put_u32_le(frame.content_len);
            out.put_u32_le(frame.crc);
            out.put_slice(&frame.partition.topic.0.to_bytes());
            out.put_u32_le(frame.partition.index.0);
            out.put_u64_le(frame.base.0);
            out.put_u64_le(frame.timestamp.0);
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(u32::try_from(self.frames.len()).expect("a segment has far fewer frames than bytes"));
        out.put_u32_le(position);
        out.put_u32_le(self.content_len);
        out.put_u32_le(crc);
        out.put_u32_le(TRAILER_MAGIC);
        out.freeze()
    }

    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The indices of the frames that hold a part of `content`.
    pub(crate) fn covering(&self, content: &Range<u32>) -> Range<usize> {
        let first = self.frames.partition_point(|frame| frame.content().end <= content.start);
        let end = self.frames.partition_point(|frame| frame.content_at < content.end);
        first..end.max(first)
    }

    /// The index of the frame in which to begin to read a run at `content`: the last one that begins within the run and
    /// for which `before` holds, else the first one of the run. `before` holds for a prefix of a run's blocks.
    pub(crate) fn seek(&self, content: &Range<u32>, before: impl Fn(&Frame) -> bool) -> usize {
        let covering = self.covering(content);
        let inside = self.frames[covering.clone()].iter().skip_while(|frame| frame.content_at <= content.start);
        covering.start + inside.take_while(|frame| before(frame)).count()
    }

    /// Bytes that the table takes in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.frames.len() * size_of::<Frame>()
    }
}
