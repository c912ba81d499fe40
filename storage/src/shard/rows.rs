//! The values of the local state store, little endian. They go into checkpoints as they are, so each has a version.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use object_store::path::Path;

use crate::error::{Error, Kind, Result};
use crate::ids::{ClusterId, ObjectHash, Offset, SegmentId, SessionId, Slot, Timestamp};
use crate::layout;
use crate::state::StateStore;
use crate::wal::format::get_ulid;

/// The bounds of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionRow {
    pub(crate) start: Offset,
    pub(crate) tail: Offset,
    /// Of the runs that are kept; the one that `start` is in counts whole.
    pub(crate) bytes: u64,
    pub(crate) last_timestamp: Timestamp,
    /// Of all runs that there ever were.
    pub(crate) published: u64,
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
    /// Not known of a run that was written before there were trims.
    pub(crate) span: Option<Span>,
    /// Of a run that was cleaned: how many records are left in it. Its `count` is then that of the offsets it stands for.
    pub(crate) kept: Option<u32>,
}

/// Where a run stands among all of its partition, by bytes and by time: what retention looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Bytes of all runs before it, kept or not.
    pub(crate) bytes_before: u64,
    pub(crate) last_timestamp: Timestamp,
}

/// What is kept of a topic's records; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetentionRow {
    pub(crate) age_ms: u64,
    pub(crate) bytes: u64,
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
    /// The version that is written.
    const VERSION: u8 = 1;
    const LEN: usize;
    fn put(&self, out: &mut BytesMut);
    fn get(bytes: &mut Bytes) -> Self;

    /// Reads what an earlier build wrote.
    fn get_older(_version: u8, _bytes: &mut Bytes) -> Option<Self> {
        None
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + Self::LEN);
        out.put_u8(Self::VERSION);
        self.put(&mut out);
        debug_assert_eq!(out.len(), 1 + Self::LEN);
        out.freeze()
    }

    fn parse(mut bytes: Bytes) -> Result<Self> {
        let broken = || Error::new(Kind::Corrupt, format!("{} in the state store is broken", Self::NAME));
        if bytes.is_empty() {
            return Err(broken());
        }
        match bytes.get_u8() {
            version if version == Self::VERSION && bytes.len() == Self::LEN => Ok(Self::get(&mut bytes)),
            version => Self::get_older(version, &mut bytes).ok_or_else(broken),
        }
    }
}

impl Row for PartitionRow {
    const NAME: &'static str = "partition row";
    const VERSION: u8 = 2;
    const LEN: usize = 40;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.start.0);
        out.put_u64_le(self.tail.0);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.last_timestamp.0);
        out.put_u64_le(self.published);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self {
            start: Offset(bytes.get_u64_le()),
            tail: Offset(bytes.get_u64_le()),
            bytes: bytes.get_u64_le(),
            last_timestamp: Timestamp(bytes.get_u64_le()),
            published: bytes.get_u64_le(),
        }
    }

    /// In version 1 nothing was ever trimmed: what is kept is all that there was.
    fn get_older(version: u8, bytes: &mut Bytes) -> Option<Self> {
        (version == 1 && bytes.len() == 32).then(|| {
            let (start, tail) = (Offset(bytes.get_u64_le()), Offset(bytes.get_u64_le()));
            let kept = bytes.get_u64_le();
            let last_timestamp = Timestamp(bytes.get_u64_le());
            Self { start, tail, bytes: kept, last_timestamp, published: kept }
        })
    }
}

impl IndexRow {
    /// After the version: of a slot, of a segment, and what a span adds.
    const WAL_BYTES: usize = 52;
    const SEGMENT_BYTES: usize = 48;
    const SPAN_BYTES: usize = 16;
    /// The version of a row of a segment that has a span and may have holes.
    const WITH_HOLES: u8 = 5;

    /// The object that the row names: what must not be deleted for as long as the row is there.
    pub(crate) fn object(&self) -> Path {
        match self.place {
            Place::Wal { session, slot } => layout::wal(session, slot),
            Place::Segment { segment, .. } => layout::segment(segment),
        }
    }

    /// Versions 1 and 3 name a slot, 2, 4 and 5 a segment; those from 3 on have a span, 5 says how many records are left.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + Self::WAL_BYTES + Self::SPAN_BYTES);
        let with_span = if self.span.is_some() { 2 } else { 0 };
        match self.place {
            Place::Wal { session, slot } => {
                out.put_u8(1 + with_span);
                out.put_slice(&session.0.to_bytes());
                out.put_u64_le(slot.0);
            }
            Place::Segment { segment, content_len } => {
                out.put_u8(if self.kept.is_some() { Self::WITH_HOLES } else { 2 + with_span });
                out.put_slice(&segment.0.to_bytes());
                out.put_u32_le(content_len);
            }
        }
        out.put_u64_le(self.object_len);
        out.put_u32_le(self.position);
        out.put_u32_le(self.len);
        out.put_u32_le(self.count);
        out.put_u64_le(self.first_timestamp.0);
        if let Some(span) = self.span {
            out.put_u64_le(span.bytes_before);
            out.put_u64_le(span.last_timestamp.0);
        }
        if let Some(kept) = self.kept {
            debug_assert!(self.span.is_some() && matches!(self.place, Place::Segment { .. }), "only those are cleaned");
            out.put_u32_le(kept);
        }
        out.freeze()
    }

    /// Reads any version.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub(crate) fn parse(mut bytes: Bytes) -> Result<Self> {
        let broken = || Error::new(Kind::Corrupt, "index row in the state store is broken");
        if bytes.is_empty() {
            return Err(broken());
        }
        let version = bytes.get_u8();
        let with_span = if version > 2 { Self::SPAN_BYTES } else { 0 };
        let with_kept = if version == Self::WITH_HOLES { 4 } else { 0 };
        let place = match version {
            1 | 3 if bytes.len() == Self::WAL_BYTES + with_span => {
                Place::Wal { session: SessionId(get_ulid(&mut bytes)), slot: Slot(bytes.get_u64_le()) }
            }
            2 | 4 | Self::WITH_HOLES if bytes.len() == Self::SEGMENT_BYTES + with_span + with_kept => {
                Place::Segment { segment: SegmentId(get_ulid(&mut bytes)), content_len: bytes.get_u32_le() }
            }
            _ => return Err(broken()),
        };
        Ok(Self {
            place,
            object_len: bytes.get_u64_le(),
            position: bytes.get_u32_le(),
            len: bytes.get_u32_le(),
            count: bytes.get_u32_le(),
            first_timestamp: Timestamp(bytes.get_u64_le()),
            span: (with_span > 0)
                .then(|| Span { bytes_before: bytes.get_u64_le(), last_timestamp: Timestamp(bytes.get_u64_le()) }),
            kept: (with_kept > 0).then(|| bytes.get_u32_le()),
        })
    }
}

impl Row for RetentionRow {
    const NAME: &'static str = "retention row";
    const LEN: usize = 16;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.age_ms);
        out.put_u64_le(self.bytes);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self { age_ms: bytes.get_u64_le(), bytes: bytes.get_u64_le() }
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

#[cfg(test)]
mod tests;
