//! The header that every object of the log begins with, 128 bytes, little endian.
//!
//! ```text
//! magic 8 · version u16 · kind u16 · session 16 · number u64 · previous hash 16 · body length u64 · body hash 16
//! author session 16 · zeros 32 · crc32c of all before u32
//! ```
//! The hash of an object is the hash of its header, which holds the hash of its body. It lives in the body of the object
//! because a local directory keeps no attributes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ulid::Ulid;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::error::{Error, Kind, Result};
use crate::ids::{ObjectHash, SessionId};

/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 128;

const MAGIC: &[u8; 8] = b"PLINTHOB";
const VERSION: u16 = 1;
const ZEROS: usize = 32;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Data,
    Fence,
    /// The first form of a checkpoint: all rows in one object. Still read.
    FullCheckpoint,
    CheckpointFence,
    Claim,
    Cluster,
    SessionMeta,
    Segment,
    Checkpoint,
}

/// The header of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: ObjectKind,
    /// Whose log the object is in; for a claim, who claims.
    pub(crate) session: SessionId,
    /// Slot, checkpoint number or epoch.
    pub(crate) number: u64,
    /// Hash of the object before it in the same log.
    pub(crate) previous: ObjectHash,
    /// Who wrote it: for a fence not the session whose log it ends.
    pub(crate) author: SessionId,
    body_len: u64,
    body_hash: u128,
}

impl ObjectKind {
    /// Whether it is a checkpoint, of whichever form.
    pub(crate) fn is_checkpoint(self) -> bool {
        matches!(self, Self::FullCheckpoint | Self::Checkpoint)
    }

    fn code(self) -> u16 {
        match self {
            Self::Data => 1,
            Self::Fence => 2,
            Self::FullCheckpoint => 3,
            Self::CheckpointFence => 4,
            Self::Claim => 5,
            Self::Cluster => 6,
            Self::SessionMeta => 7,
            Self::Segment => 8,
            Self::Checkpoint => 9,
        }
    }

    fn parse(code: u16) -> Option<Self> {
        [
            Self::Data,
            Self::Fence,
            Self::FullCheckpoint,
            Self::CheckpointFence,
            Self::Claim,
            Self::Cluster,
            Self::SessionMeta,
            Self::Segment,
            Self::Checkpoint,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }
}

impl Header {
    /// A header whose body is not known yet.
    pub(crate) fn new(kind: ObjectKind, session: SessionId, number: u64) -> Self {
        let previous = ObjectHash::default();
        Self { kind, session, number, previous, author: session, body_len: 0, body_hash: 0 }
    }

    pub(crate) fn after(mut self, previous: ObjectHash) -> Self {
        self.previous = previous;
        self
    }

    pub(crate) fn by(mut self, author: SessionId) -> Self {
        self.author = author;
        self
    }

    /// The header for `body`.
    pub(crate) fn sealed(mut self, body: &[Bytes]) -> Self {
        let mut hash = Xxh3::new();
        for piece in body {
            hash.update(piece);
        }
        self.body_len = body.iter().map(|piece| piece.len() as u64).sum();
        self.body_hash = hash.digest128();
        self
    }

    /// The hash of the whole object.
    pub(crate) fn hash(&self) -> ObjectHash {
        ObjectHash(xxh3_128(&self.encode()))
    }

    /// The hash of the body.
    pub(crate) fn body_hash(&self) -> u128 {
        self.body_hash
    }

    /// Length of the whole object.
    pub(crate) fn object_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.body_len
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(self.kind.code());
        out.put_slice(&self.session.0.to_bytes());
        out.put_u64_le(self.number);
        out.put_u128_le(self.previous.0);
        out.put_u64_le(self.body_len);
        out.put_u128_le(self.body_hash);
        out.put_slice(&self.author.0.to_bytes());
        out.put_bytes(0, ZEROS);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        debug_assert_eq!(out.len(), HEADER_BYTES);
        out.freeze()
    }

    /// Reads a header.
    ///
    /// # Errors
    /// `Corrupt` when it is none, or of a version that this build cannot read.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("object header {what}"));
        let (mut body, mut crc) = bytes
            .get(..HEADER_BYTES)
            .and_then(|header| header.split_at_checked(HEADER_BYTES - 4))
            .ok_or_else(|| corrupt("is cut short"))?;
        if !body.starts_with(MAGIC) {
            return Err(corrupt("does not begin with its magic number"));
        }
        if crc32c::crc32c(body) != crc.get_u32_le() {
            return Err(corrupt("does not have its checksum"));
        }
        body.advance(MAGIC.len());
        let version = body.get_u16_le();
        if version != VERSION {
            return Err(corrupt(&format!("has version {version}, this build reads {VERSION}")));
        }
        let kind = body.get_u16_le();
        Ok(Self {
            kind: ObjectKind::parse(kind).ok_or_else(|| corrupt(&format!("has the unknown kind {kind}")))?,
            session: SessionId(get_ulid(&mut body)),
            number: body.get_u64_le(),
            previous: ObjectHash(body.get_u128_le()),
            body_len: body.get_u64_le(),
            body_hash: body.get_u128_le(),
            author: SessionId(get_ulid(&mut body)),
        })
    }

    /// Reads a whole object: the header and the body that fits it.
    ///
    /// # Errors
    /// `Corrupt` as in [`Header::parse`], and when the body is not the one that the header names.
    pub(crate) fn parse_object(object: &Bytes) -> Result<(Self, Bytes)> {
        let header = Self::parse(object)?;
        let body = object.slice(HEADER_BYTES..);
        if body.len() as u64 != header.body_len || xxh3_128(&body) != header.body_hash {
            return Err(Error::new(Kind::Corrupt, "object body is not the one that its header names"));
        }
        Ok((header, body))
    }
}

pub(crate) fn get_ulid(bytes: &mut impl Buf) -> Ulid {
    let mut ulid = [0; 16];
    bytes.copy_to_slice(&mut ulid);
    Ulid::from_bytes(ulid)
}

#[cfg(test)]
mod tests;
