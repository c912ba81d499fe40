//! The stored form of a checkpoint, and of the changes in it. It must not know where they come from or go to.
//!
//! ```text
//! body     next slot u64 · hash of the object before it 16 · parts u32 · part* · zstd of change*
//! part     session 16 · number u64 · length of the object u64 · hash of the object 16          the oldest first
//! change   1 put, 2 delete, 3 delete range u8 · length u32 · length u32 · key · value or end of the range
//! ```
//! First come the ranges, then the rows in the order of their keys. The form before this one had no parts, and rows
//! without the first byte.

use std::io::{self, BufRead, Read, Write};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{ObjectHash, SessionId, Slot};
use crate::state::StateOp;
use crate::wal::fence::CHECKPOINT_HEAD_BYTES;
use crate::wal::format::{Header, ObjectKind, get_ulid};

const COMPRESSION_LEVEL: i32 = 1;
/// A body is gathered in pieces of this size.
const PIECE_BYTES: usize = 1024 * 1024;
/// More parts than any build writes.
const PARTS_READ_MAX: usize = 256;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// A checkpoint on whose rows another one builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) session: SessionId,
    pub(crate) number: Slot,
    pub(crate) len: u64,
    pub(crate) hash: ObjectHash,
}

/// What stands before the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The first slot that is not in the checkpoint.
    pub(crate) next: Slot,
    /// The hash of the object before it.
    pub(crate) hash: ObjectHash,
    /// The oldest first. The checkpoint's own rows come after all of them.
    pub(crate) parts: Vec<Part>,
}

impl Part {
    pub(crate) const LEN: usize = 48;

    /// The checkpoint that `header` begins.
    pub(crate) fn of(header: &Header) -> Self {
        let number = Slot(header.number);
        Self { session: header.session, number, len: header.object_len(), hash: header.hash() }
    }

    pub(crate) fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.session.0.to_bytes());
        out.put_u64_le(self.number.0);
        out.put_u64_le(self.len);
        out.put_u128_le(self.hash.0);
    }

    pub(crate) fn read(bytes: &mut Bytes) -> Self {
        Self {
            session: SessionId(get_ulid(bytes)),
            number: Slot(bytes.get_u64_le()),
            len: bytes.get_u64_le(),
            hash: ObjectHash(bytes.get_u128_le()),
        }
    }
}

impl Head {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(CHECKPOINT_HEAD_BYTES + 4 + Part::LEN * self.parts.len());
        out.put_u64_le(self.next.0);
        out.put_u128_le(self.hash.0);
        out.put_u32_le(u32::try_from(self.parts.len()).expect("there are a few parts"));
        self.parts.iter().for_each(|part| part.write(&mut out));
        out.freeze()
    }

    /// The head of a body, and where in the body its rows begin.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub(crate) fn parse(kind: ObjectKind, mut body: Bytes) -> Result<(Self, usize)> {
        let broken = || Error::new(Kind::Corrupt, "head of a checkpoint is broken");
        let (next, hash) = parse_position(&body).ok_or_else(broken)?;
        if !kind.is_checkpoint() {
            return Err(broken());
        }
        if kind == ObjectKind::FullCheckpoint {
            return Ok((Self { next, hash, parts: Vec::new() }, CHECKPOINT_HEAD_BYTES));
        }
        body.advance(CHECKPOINT_HEAD_BYTES);
        let count = if body.len() < 4 { return Err(broken()) } else { body.get_u32_le() as usize };
        if count > PARTS_READ_MAX || body.len() < count * Part::LEN {
            return Err(broken());
        }
        let parts = (0..count).map(|_| Part::read(&mut body)).collect();
        Ok((Self { next, hash, parts }, CHECKPOINT_HEAD_BYTES + 4 + count * Part::LEN))
    }
}

/// The position at the start of a checkpoint's body, of whichever form.
pub(crate) fn parse_position(mut body: &[u8]) -> Option<(Slot, ObjectHash)> {
    (body.len() >= CHECKPOINT_HEAD_BYTES).then(|| (Slot(body.get_u64_le()), ObjectHash(body.get_u128_le())))
}

/// Compresses changes into the pieces of a body.
pub(crate) struct ChangesWriter {
    out: zstd::Encoder<'static, Pieces>,
}

impl ChangesWriter {
    pub(crate) fn new() -> Result<Self> {
        let out = zstd::Encoder::new(Pieces::default(), COMPRESSION_LEVEL).map_err(not_compressed)?;
        Ok(Self { out })
    }

    pub(crate) fn add(&mut self, op: &StateOp) -> Result<()> {
        write_op(&mut self.out, op).map_err(not_compressed)
    }

    pub(crate) fn finish(self) -> Result<Vec<Bytes>> {
        self.out.finish().map(Pieces::finish).map_err(not_compressed)
    }
}

fn not_compressed(error: io::Error) -> Error {
    Error::new(Kind::Corrupt, "checkpoint cannot be compressed").with_source(error)
}

/// Bytes in pieces that are never moved: a large body is not copied again and again while it grows.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    open: Vec<u8>,
}

impl Pieces {
    fn finish(mut self) -> Vec<Bytes> {
        self.full.push(Bytes::from(self.open));
        self.full
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.len() + bytes.len() > PIECE_BYTES && !self.open.is_empty() {
            self.full.push(Bytes::from(std::mem::take(&mut self.open)));
        }
        self.open.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the stored form of one change.
pub(crate) fn write_op(out: &mut impl Write, op: &StateOp) -> io::Result<()> {
    let (kind, key, value): (u8, &[u8], &[u8]) = match op {
        StateOp::Put(key, value) => (PUT, key, value),
        StateOp::Delete(key) => (DELETE, key, &[]),
        StateOp::DeleteRange(from, to) => (DELETE_RANGE, from, to),
    };
    let mut head = [kind; 9];
    for (at, part) in [(1, key), (5, value)] {
        let len = u32::try_from(part.len()).expect("a row is bounded far below 4 GiB");
        head[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
    out.write_all(&head)?;
    out.write_all(key)?;
    out.write_all(value)
}

/// Reads one change, or `None` at the end.
pub(crate) fn read_op(input: &mut impl BufRead) -> io::Result<Option<StateOp>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut kind = [0];
    input.read_exact(&mut kind)?;
    let (key, value) = read_pair(input)?;
    match kind[0] {
        PUT => Ok(Some(StateOp::Put(key, value))),
        DELETE if value.is_empty() => Ok(Some(StateOp::Delete(key))),
        DELETE_RANGE => Ok(Some(StateOp::DeleteRange(key, value))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a change is of no known kind")),
    }
}

/// Reads one row of the first form as a change, or `None` at the end.
pub(crate) fn read_row(input: &mut impl BufRead) -> io::Result<Option<StateOp>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    read_pair(input).map(|(key, value)| Some(StateOp::Put(key, value)))
}

fn read_pair(input: &mut impl BufRead) -> io::Result<(Bytes, Bytes)> {
    let mut lens = [0; 8];
    input.read_exact(&mut lens)?;
    let mut lens = &lens[..];
    let (key, value) = (lens.get_u32_le(), lens.get_u32_le());
    Ok((read_bytes(input, key)?, read_bytes(input, value)?))
}

/// A length is not believed before its bytes are there.
fn read_bytes(input: &mut impl BufRead, len: u32) -> io::Result<Bytes> {
    let mut out = Vec::with_capacity((len as usize).min(4096));
    input.take(u64::from(len)).read_to_end(&mut out)?;
    if out.len() != len as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from(out))
}
