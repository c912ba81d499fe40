//! Builds a segment: sorted batches go in, the body of the object comes out.
//!
//! Batches are stored as in the WAL, byte for byte, so that one is checked by the same checksum from its first write on.
//! Knows nothing of the store.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, ShardId, Timestamp};
use crate::record::StoredBatch;
use crate::segment::format::{FRAME_BYTES, Frame, FrameTable};
use crate::wal::blocks::{put_records, records_len};
use crate::wal::format::HEADER_BYTES;

/// Fast: what does not compress passes at about the speed of a copy, text becomes a quarter.
const COMPRESSION_LEVEL: i32 = 1;

/// A segment whose bytes are ready.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) body: Vec<Bytes>,
    pub(crate) content_len: u32,
}

/// Puts batches into frames one after the other.
pub(crate) struct SegmentBuilder {
    compressor: zstd::bulk::Compressor<'static>,
    open: BytesMut,
    open_begins: Option<(Partition, Offset, Timestamp)>,
    body: Vec<Bytes>,
    body_len: u32,
    frames: Vec<Frame>,
    content_len: u32,
}

impl SegmentBuilder {
    /// A builder of an empty segment.
    ///
    /// # Errors
    /// `Busy` when there is no memory for the compression.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(COMPRESSION_LEVEL).map_err(failed)?,
            open: BytesMut::new(),
            open_begins: None,
            body: Vec::new(),
            body_len: 0,
            frames: Vec::new(),
            content_len: 0,
        })
    }

    /// Adds a batch. Batches come sorted by shard, partition and offset.
    ///
    /// # Errors
    /// As [`SegmentBuilder::new`].
    pub(crate) fn push(&mut self, shard: ShardId, partition: Partition, batch: &StoredBatch) -> Result<()> {
        self.open_begins.get_or_insert((partition, batch.base, batch.timestamp));
        put_records(&mut self.open, shard, partition, batch);
        self.content_len += to_u32(records_len(batch));
        if self.open.len() >= FRAME_BYTES { self.close_frame() } else { Ok(()) }
    }

    /// The segment.
    ///
    /// # Errors
    /// As [`SegmentBuilder::new`].
    pub(crate) fn finish(mut self) -> Result<Built> {
        self.close_frame()?;
        let table = FrameTable::new(self.frames).encode(position_of(self.body_len));
        self.body.push(table);
        Ok(Built { body: self.body, content_len: self.content_len })
    }

    fn close_frame(&mut self) -> Result<()> {
        let Some((partition, base, timestamp)) = self.open_begins.take() else { return Ok(()) };
        // Boxed: a vector would keep the room for what did not compress.
        let compressed = Bytes::from(self.compressor.compress(&self.open).map_err(failed)?.into_boxed_slice());
        let content_len = to_u32(self.open.len());
        self.open.clear();
        self.frames.push(Frame {
            position: position_of(self.body_len),
            len: to_u32(compressed.len()),
            content_at: self.content_len - content_len,
            content_len,
            crc: crc32c::crc32c(&compressed),
            partition,
            base,
            timestamp,
        });
        self.body_len += to_u32(compressed.len());
        self.body.push(compressed);
        Ok(())
    }
}

fn position_of(body_len: u32) -> u32 {
    to_u32(HEADER_BYTES) + body_len
}

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a segment is bounded far below 4 GiB by what one compaction takes")
}

fn failed(error: std::io::Error) -> Error {
    Error::new(Kind::Busy, "segment cannot be compressed").with_source(error)
}
