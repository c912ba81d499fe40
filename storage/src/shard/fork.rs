//! What a partition shares: the forks of it, and the partitions whose records it begins with.
//!
//! A fork holds no copy of what it inherits. Its row names each partition that holds a part of that, and up to where: a fork of a
//! fork names those of its source, so that a reader looks at one row however long the chain is (ADR 38).
//!
//! ```text
//! fork     source topic 16 · partition u32 · at u64 · cut u32 · timestamp u64        (little endian)
//! row      version u8 = 1 · forks u32 · is a fork u8 · [source topic 16 · partition u32]
//!          ancestors u8 · (topic 16 · partition u32 · end u64 · cut u32)*
//! ```

mod apply;

use std::num::NonZeroU32;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) use self::apply::Forks;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, Timestamp, TopicId};
use crate::layout;
use crate::state::StateStore;
use crate::wal::format::get_ulid;

/// Most partitions that hold a part of what a fork inherits.
pub const FORK_DEPTH_MAX: usize = 64;

const VERSION: u8 = 1;
const PARTITION_BYTES: usize = 20;
const ANCESTOR_BYTES: usize = PARTITION_BYTES + 12;

/// Where a fork leaves its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkPoint {
    /// The offset after the last record that is inherited.
    pub at: Offset,
    /// So many bytes of the payload of that record are; none for all.
    pub cut: Option<NonZeroU32>,
}

/// What a fork begins with, as it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) source: Partition,
    pub(crate) point: ForkPoint,
    /// That of the last record of the source at that moment.
    pub(crate) timestamp: Timestamp,
}

/// A partition that holds a part of what a fork inherits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ancestor {
    pub(crate) partition: Partition,
    /// Where its part ends; it begins where the one before ends.
    pub(crate) end: Offset,
    /// So many bytes of the payload of the last record are inherited; none for all.
    pub(crate) cut: Option<NonZeroU32>,
}

/// All partitions that hold a part of what a fork inherits, by their ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lineage(Vec<Ancestor>);

/// What a partition shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForkRow {
    /// How many forks it is the source of.
    pub(crate) forks: u32,
    /// Of a fork.
    pub(crate) source: Option<Partition>,
    pub(crate) lineage: Lineage,
}

impl Begin {
    pub(crate) fn value(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(PARTITION_BYTES + 20);
        put_partition(&mut out, self.source);
        out.put_u64_le(self.point.at.0);
        out.put_u32_le(self.point.cut.map_or(0, NonZeroU32::get));
        out.put_u64_le(self.timestamp.0);
        out.freeze()
    }

    /// Reads the stored form; `None` when it is none.
    pub(crate) fn parse(mut value: Bytes) -> Option<Self> {
        if value.len() != PARTITION_BYTES + 20 {
            return None;
        }
        let source = get_partition(&mut value);
        let point = ForkPoint { at: Offset(value.get_u64_le()), cut: NonZeroU32::new(value.get_u32_le()) };
        Some(Self { source, point, timestamp: Timestamp(value.get_u64_le()) })
    }
}

impl Lineage {
    /// Where the part of the fork's own begins; zero of what is no fork.
    pub(crate) fn own(&self) -> Offset {
        self.0.last().map_or(Offset(0), |last| last.end)
    }

    /// Those that hold something from an offset on.
    pub(crate) fn from(&self, offset: Offset) -> &[Ancestor] {
        &self.0[self.0.partition_point(|ancestor| ancestor.end <= offset)..]
    }

    /// All of them, each with where its part begins.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Offset, &Ancestor)> {
        let begins = std::iter::once(Offset(0)).chain(self.0.iter().map(|ancestor| ancestor.end));
        begins.zip(&self.0)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// That of a fork of `source`, whose own is this one.
    pub(crate) fn of_fork(&self, source: Partition, point: ForkPoint) -> Self {
        let ForkPoint { at, cut } = point;
        if at == Offset(0) {
            return Self::default();
        }
        let whole = self.0.partition_point(|ancestor| ancestor.end < at);
        let mut ancestors = self.0[..whole].to_vec();
        match self.0.get(whole) {
            Some(holder) => {
                let cut = if holder.end == at { holder.cut.into_iter().chain(cut).min() } else { cut };
                ancestors.push(Ancestor { end: at, cut, ..*holder });
            }
            None => ancestors.push(Ancestor { partition: source, end: at, cut }),
        }
        Self(ancestors)
    }
}

impl ForkRow {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(7 + PARTITION_BYTES + self.lineage.len() * ANCESTOR_BYTES);
        out.put_u8(VERSION);
        out.put_u32_le(self.forks);
        out.put_u8(u8::from(self.source.is_some()));
        if let Some(source) = self.source {
            put_partition(&mut out, source);
        }
        out.put_u8(u8::try_from(self.lineage.len()).expect("a lineage is checked to be short"));
        for Ancestor { partition, end, cut } in &self.lineage.0 {
            put_partition(&mut out, *partition);
            out.put_u64_le(end.0);
            out.put_u32_le(cut.map_or(0, NonZeroU32::get));
        }
        out.freeze()
    }

    fn parse(bytes: Bytes) -> Result<Self> {
        let broken = || Error::new(Kind::Corrupt, "fork row in the state store is broken");
        Self::read(bytes).ok_or_else(broken)
    }

    fn read(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let forks = bytes.try_get_u32_le().ok()?;
        let source = match bytes.try_get_u8().ok()? {
            0 => None,
            1 if bytes.len() >= PARTITION_BYTES => Some(get_partition(&mut bytes)),
            _ => return None,
        };
        let ancestors = usize::from(bytes.try_get_u8().ok()?);
        if bytes.len() != ancestors * ANCESTOR_BYTES {
            return None;
        }
        let ancestor = |_| Ancestor {
            partition: get_partition(&mut bytes),
            end: Offset(bytes.get_u64_le()),
            cut: NonZeroU32::new(bytes.get_u32_le()),
        };
        let lineage = Lineage((0..ancestors).map(ancestor).collect());
        lineage.0.is_sorted_by(|one, next| one.end < next.end).then_some(Self { forks, source, lineage })
    }
}

/// What a partition shares.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn fork_row(state: &dyn StateStore, partition: Partition) -> Result<ForkRow> {
    Ok(state.get(&layout::fork_key(partition))?.map(ForkRow::parse).transpose()?.unwrap_or_default())
}

/// The one partition of a topic that may have forks, or be one.
pub(crate) fn only_partition(topic: TopicId) -> Partition {
    Partition { topic, index: PartitionIndex(0) }
}

/// Whether a topic has forks, which need its records also when it is deleted.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn has_forks(state: &dyn StateStore, topic: TopicId) -> Result<bool> {
    Ok(fork_row(state, only_partition(topic))?.forks > 0)
}

/// Whether what a partition keeps is shared with forks.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn is_shared(state: &dyn StateStore, partition: Partition) -> Result<bool> {
    Ok(fork_row(state, partition)?.forks > 0 && !planted!(ForkTrimmed))
}

fn put_partition(out: &mut BytesMut, partition: Partition) {
    out.put_slice(&partition.topic.0.to_bytes());
    out.put_u32_le(partition.index.0);
}

fn get_partition(bytes: &mut Bytes) -> Partition {
    Partition { topic: TopicId(get_ulid(bytes)), index: PartitionIndex(bytes.get_u32_le()) }
}

#[cfg(test)]
mod tests;
