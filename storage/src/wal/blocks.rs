//! The body of a WAL object: blocks, then an index of them, then a trailer. Little endian.
//!
//! ```text
//! block    kind u8 · zero u8 · shard u16 · topic 16 · partition u32 · base offset u64 · count u32 · timestamp u64
//!          body length u32 · body crc32c u32 · crc32c of the head before u32 · body
//! index    per block: position in the object u32 · length u32 · the first 44 bytes of its head
//! trailer  blocks u32 · index position in the object u32 · crc32c of the index u32 · magic u32
//! ```
//! A records block is one batch; a changes block is a list of state changes, which commits with the data beside it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, ShardId, Timestamp, TopicId};
use crate::record::{Batch, StoredBatch};
use crate::wal::format::{HEADER_BYTES, get_ulid};

/// Length of a block's head.
pub(crate) const HEAD_BYTES: usize = 56;
const INDEXED_BYTES: usize = 44;
const INDEX_ENTRY_BYTES: usize = 8 + INDEXED_BYTES;
const TRAILER_BYTES: usize = 16;
const TRAILER_MAGIC: u32 = 0x4c41_5750;

const KIND_RECORDS: u8 = 1;
const KIND_CHANGES: u8 = 2;

/// A block as it is read.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    Records { partition: Partition, batch: StoredBatch },
    Changes(Bytes),
}

/// A block and where it stands in its object.
#[derive(Clone, Debug)]
pub(crate) struct PlacedBlock {
    pub(crate) block: Block,
    pub(crate) shard: ShardId,
    pub(crate) position: u32,
    pub(crate) len: u32,
    /// The time of the batch; for changes when they were sealed, zero in slots of builds that did not say.
    pub(crate) timestamp: Timestamp,
}

/// Puts blocks into a body one after the other.
#[derive(Debug, Default)]
pub(crate) struct BodyBuilder {
    pieces: Vec<Bytes>,
    open: BytesMut,
    index: BytesMut,
    closed_len: usize,
    blocks: u32,
}

/// Chunks of this size and more go into the object as they are; smaller ones are gathered, because on a directory store
/// each piece is a system call of its own.
const GATHER_BYTES_MAX: usize = 4096;

impl BodyBuilder {
    /// Adds a batch and gives its position in the object and its length.
    pub(crate) fn records(&mut self, shard: ShardId, partition: Partition, batch: &StoredBatch) -> (u32, u32) {
        let position = self.position();
        let head = Head::of_records(shard, partition, batch);
        self.head(&head, batch.batch.len(), batch.batch.crc());
        for chunk in batch.batch.chunks() {
            self.piece(chunk);
        }
        (position, self.position() - position)
    }

    /// Adds a block of state changes that is sealed at a time.
    pub(crate) fn changes(&mut self, shard: ShardId, changes: &Bytes, timestamp: Timestamp) {
        let partition = Partition { topic: TopicId(ulid::Ulid::nil()), index: PartitionIndex(0) };
        let head = Head { kind: KIND_CHANGES, shard, partition, base: Offset(0), count: 1, timestamp };
        self.head(&head, changes.len(), crc32c::crc32c(changes));
        self.piece(changes);
    }

    /// The body, in pieces.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        let index_position = self.position();
        let index = std::mem::take(&mut self.index);
        self.open.put_slice(&index);
        self.open.put_u32_le(self.blocks);
        self.open.put_u32_le(index_position);
        self.open.put_u32_le(crc32c::crc32c(&index));
        self.open.put_u32_le(TRAILER_MAGIC);
        self.close();
        self.pieces
    }

    fn head(&mut self, head: &Head, body_len: usize, body_crc: u32) {
        let position = self.position();
        let start = self.open.len();
        head.encode_checked(&mut self.open, body_len, body_crc);
        self.index.put_u32_le(position);
        self.index.put_u32_le(to_u32(HEAD_BYTES + body_len));
        self.index.put_slice(&self.open[start..start + INDEXED_BYTES]);
        self.blocks += 1;
    }

    fn piece(&mut self, bytes: &Bytes) {
        if bytes.len() < GATHER_BYTES_MAX {
            self.open.put_slice(bytes);
        } else {
            self.close();
            self.closed_len += bytes.len();
            self.pieces.push(bytes.clone());
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed_len += self.open.len();
            self.pieces.push(self.open.split().freeze());
        }
    }

    fn position(&self) -> u32 {
        to_u32(HEADER_BYTES + self.closed_len + self.open.len())
    }
}

/// Appends a records block to `out`: the same bytes wherever the batch is stored.
pub(crate) fn put_records(out: &mut BytesMut, shard: ShardId, partition: Partition, batch: &StoredBatch) {
    Head::of_records(shard, partition, batch).encode_checked(out, batch.batch.len(), batch.batch.crc());
    for chunk in batch.batch.chunks() {
        out.put_slice(chunk);
    }
}

/// Bytes of the block that a batch is stored as.
pub(crate) fn records_len(batch: &StoredBatch) -> usize {
    HEAD_BYTES + batch.batch.len()
}

struct Head {
    kind: u8,
    shard: ShardId,
    partition: Partition,
    base: Offset,
    count: u32,
    timestamp: Timestamp,
}

impl Head {
    fn of_records(shard: ShardId, partition: Partition, batch: &StoredBatch) -> Self {
        let (count, timestamp) = (batch.batch.count(), batch.timestamp);
        Self { kind: KIND_RECORDS, shard, partition, base: batch.base, count, timestamp }
    }

    /// The whole head, with what it says of the body and its own checksum.
    fn encode_checked(&self, out: &mut BytesMut, body_len: usize, body_crc: u32) {
        let start = out.len();
        out.reserve(HEAD_BYTES);
        self.encode(out);
        out.put_u32_le(to_u32(body_len));
        out.put_u32_le(body_crc);
        let crc = crc32c::crc32c(&out[start..]);
        out.put_u32_le(crc);
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.kind);
        out.put_u8(0);
        out.put_u16_le(self.shard.0);
        out.put_slice(&self.partition.topic.0.to_bytes());
        out.put_u32_le(self.partition.index.0);
        out.put_u64_le(self.base.0);
        out.put_u32_le(self.count);
        out.put_u64_le(self.timestamp.0);
    }

    fn parse(bytes: &mut impl Buf) -> Self {
        let kind = bytes.get_u8();
        bytes.advance(1);
        Self {
            kind,
            shard: ShardId(bytes.get_u16_le()),
            partition: Partition { topic: TopicId(get_ulid(bytes)), index: PartitionIndex(bytes.get_u32_le()) },
            base: Offset(bytes.get_u64_le()),
            count: bytes.get_u32_le(),
            timestamp: Timestamp(bytes.get_u64_le()),
        }
    }
}

/// All blocks of a body, in order, by its index.
///
/// # Errors
/// `Corrupt` when a checksum or a length does not fit.
pub(crate) fn parse_body(body: &Bytes) -> Result<Vec<PlacedBlock>> {
    let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("WAL object {what}"));
    let trailer_at = body.len().checked_sub(TRAILER_BYTES).ok_or_else(|| corrupt("has no trailer"))?;
    let mut trailer = body.slice(trailer_at..);
    let (blocks, index_at) = (trailer.get_u32_le() as usize, trailer.get_u32_le() as usize);
    let (index_crc, magic) = (trailer.get_u32_le(), trailer.get_u32_le());
    let index_from = index_at.checked_sub(HEADER_BYTES).filter(|from| *from <= trailer_at);
    let index_from = index_from.filter(|_| magic == TRAILER_MAGIC).ok_or_else(|| corrupt("has a broken trailer"))?;
    let mut index = body.slice(index_from..trailer_at);
    if index.len() != blocks * INDEX_ENTRY_BYTES || crc32c::crc32c(&index) != index_crc {
        return Err(corrupt("has a broken index"));
    }
    let mut out = Vec::with_capacity(blocks);
    let mut from = 0;
    for _ in 0..blocks {
        let (position, len) = (index.get_u32_le(), index.get_u32_le());
        let indexed = index.split_to(INDEXED_BYTES);
        let to = from + len as usize;
        if position as usize != HEADER_BYTES + from || to > index_from || !body[from..to].starts_with(&indexed) {
            return Err(corrupt("has an index that does not fit its blocks"));
        }
        let (block, shard, rest) = parse_block(body.slice(from..to))?;
        if !rest.is_empty() {
            return Err(corrupt("has a block that is longer than its body"));
        }
        let timestamp = Head::parse(&mut &indexed[..]).timestamp;
        out.push(PlacedBlock { block, shard, position, len, timestamp });
        from = to;
    }
    if from == index_from { Ok(out) } else { Err(corrupt("has bytes between its blocks and its index")) }
}

/// The block at the start of `bytes`, and what comes after it.
///
/// # Errors
/// `Corrupt` when a checksum or a length does not fit.
pub(crate) fn parse_block(bytes: Bytes) -> Result<(Block, ShardId, Bytes)> {
    let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("block {what}"));
    if bytes.len() < HEAD_BYTES {
        return Err(corrupt("is cut short"));
    }
    let mut head_bytes = bytes.slice(..HEAD_BYTES);
    if crc32c::crc32c(&head_bytes[..HEAD_BYTES - 4]) != (&head_bytes[HEAD_BYTES - 4..]).get_u32_le() {
        return Err(corrupt("head does not have its checksum"));
    }
    let head = Head::parse(&mut head_bytes);
    let (body_len, body_crc) = (head_bytes.get_u32_le() as usize, head_bytes.get_u32_le());
    let end = HEAD_BYTES + body_len;
    if bytes.len() < end {
        return Err(corrupt("is cut short"));
    }
    let (body, rest) = (bytes.slice(HEAD_BYTES..end), bytes.slice(end..));
    let block = match head.kind {
        KIND_RECORDS => {
            let batch = Batch::parse(body, head.count, body_crc)?;
            let batch = StoredBatch { base: head.base, timestamp: head.timestamp, batch };
            Block::Records { partition: head.partition, batch }
        }
        KIND_CHANGES if crc32c::crc32c(&body) == body_crc => Block::Changes(body),
        KIND_CHANGES => return Err(corrupt("of changes does not have its checksum")),
        other => return Err(corrupt(&format!("has the unknown kind {other}"))),
    };
    Ok((block, head.shard, rest))
}

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a WAL object is bounded far below 4 GiB by the slot size and the batch limit")
}
