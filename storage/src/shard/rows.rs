//! The values of the local state store, little endian. They go into checkpoints as they are, so each has a version.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use object_store::path::Path;

use crate::error::{Error, Kind, Result};
use crate::ids::{ClusterId, ObjectHash, Offset, SegmentId, SessionId, Slot, Timestamp};
use crate::layout;
use crate::state::StateStore;
use crate::wal::format::get_ulid;

const VERSION: u8 = 1;
const VERSION_OF_SEGMENT: u8 = 2;

/// The bounds of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionRow {
    pub(crate) start: Offset,
    pub(crate) tail: Offset,
    pub(crate) bytes: u64,
    pub(crate) last_timestamp: Timestamp,
}

/// Where a run of batches of one partition stands: one row per partition and slot, or segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexRow {
    pub(crate) place: Place,
    pub(crate) object_len: u64,
    /// In the object; of a segment in its content, which is compressed in the object.
    pub(crate) position: u32,
    pub(crate) len: u32,
    pub(crate) count: u32,
    pub(crate) first_timestamp: Timestamp,
}

/// The object that a run stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Wal {
        session: SessionId,
        slot: Slot,
    },
    /// `content_len` is the length of all that is in the segment, before compression.
    Segment {
        segment: SegmentId,
        content_len: u32,
    },
}

/// How many partitions a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicRow {
    pub(crate) partitions: u32,
}

/// How far the log of which session is applied: `next` is the first slot that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) cluster: ClusterId,
    pub(crate) session: SessionId,
    pub(crate) next: Slot,
    /// Hash of the object before `next`; zero at the start of a log.
    pub(crate) hash: ObjectHash,
    /// How many slots this state store has applied, of whatever log.
    pub(crate) applied: u64,
}

/// A value of the state store.
pub(crate) trait Row: Sized {
    const NAME: &'static str;
    const LEN: usize;
    fn put(&self, out: &mut BytesMut);
    fn get(bytes: &mut Bytes) -> Self;

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + Self::LEN);
        out.put_u8(VERSION);
        self.put(&mut out);
        debug_assert_eq!(out.len(), 1 + Self::LEN);
        out.freeze()
    }

    fn parse(mut bytes: Bytes) -> Result<Self> {
        if bytes.len() != 1 + Self::LEN || bytes.get_u8() != VERSION {
            return Err(Error::new(Kind::Corrupt, format!("{} in the state store is broken", Self::NAME)));
        }
        Ok(Self::get(&mut bytes))
    }
}

impl Row for PartitionRow {
    const NAME: &'static str = "partition row";
    const LEN: usize = 32;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.start.0);
        out.put_u64_le(self.tail.0);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.last_timestamp.0);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self {
            start: Offset(bytes.get_u64_le()),
            tail: Offset(bytes.get_u64_le()),
            bytes: bytes.get_u64_le(),
            last_timestamp: Timestamp(bytes.get_u64_le()),
        }
    }
}

impl IndexRow {
    const WAL_BYTES: usize = 53;
    const SEGMENT_BYTES: usize = 49;

    /// The object that the row names: what must not be deleted for as long as the row is there.
    pub(crate) fn object(&self) -> Path {
        match self.place {
            Place::Wal { session, slot } => layout::wal(session, slot),
            Place::Segment { segment, .. } => layout::segment(segment),
        }
    }

    /// Version 1 names a slot, version 2 a segment.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::WAL_BYTES);
        match self.place {
            Place::Wal { session, slot } => {
                out.put_u8(VERSION);
                out.put_slice(&session.0.to_bytes());
                out.put_u64_le(slot.0);
            }
            Place::Segment { segment, content_len } => {
                out.put_u8(VERSION_OF_SEGMENT);
                out.put_slice(&segment.0.to_bytes());
                out.put_u32_le(content_len);
            }
        }
        out.put_u64_le(self.object_len);
        out.put_u32_le(self.position);
        out.put_u32_le(self.len);
        out.put_u32_le(self.count);
        out.put_u64_le(self.first_timestamp.0);
        out.freeze()
    }

    /// Reads either version.
    ///
    /// # Errors
    /// `Corrupt` when it is neither.
    pub(crate) fn parse(mut bytes: Bytes) -> Result<Self> {
        let place = match (bytes.first(), bytes.len()) {
            (Some(&VERSION), Self::WAL_BYTES) => {
                bytes.advance(1);
                Place::Wal { session: SessionId(get_ulid(&mut bytes)), slot: Slot(bytes.get_u64_le()) }
            }
            (Some(&VERSION_OF_SEGMENT), Self::SEGMENT_BYTES) => {
                bytes.advance(1);
                Place::Segment { segment: SegmentId(get_ulid(&mut bytes)), content_len: bytes.get_u32_le() }
            }
            _ => return Err(Error::new(Kind::Corrupt, "index row in the state store is broken")),
        };
        Ok(Self {
            place,
            object_len: bytes.get_u64_le(),
            position: bytes.get_u32_le(),
            len: bytes.get_u32_le(),
            count: bytes.get_u32_le(),
            first_timestamp: Timestamp(bytes.get_u64_le()),
        })
    }
}

impl Row for TopicRow {
    const NAME: &'static str = "topic row";
    const LEN: usize = 4;

    fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.partitions);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self { partitions: bytes.get_u32_le() }
    }
}

impl Position {
    /// The position of a state store, or `None` when it has applied nothing yet.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn load(state: &dyn StateStore) -> Result<Option<Self>> {
        state.get(&layout::position_key())?.map(Self::parse).transpose()
    }
}

impl Row for Position {
    const NAME: &'static str = "position row";
    const LEN: usize = 64;

    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.cluster.0.to_bytes());
        out.put_slice(&self.session.0.to_bytes());
        out.put_u64_le(self.next.0);
        out.put_u128_le(self.hash.0);
        out.put_u64_le(self.applied);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self {
            cluster: ClusterId(get_ulid(bytes)),
            session: SessionId(get_ulid(bytes)),
            next: Slot(bytes.get_u64_le()),
            hash: ObjectHash(bytes.get_u128_le()),
            applied: bytes.get_u64_le(),
        }
    }
}
