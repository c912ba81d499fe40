//! Identifiers and positions of the domain. Each number with a meaning has its own type.

use std::fmt;
use std::ops::RangeInclusive;

use ulid::Ulid;

/// Identifies a cluster; made when its first node starts on an empty store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClusterId(pub Ulid);

/// One start of a node; never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionId(pub Ulid);

/// Identifies a tenant in the store; its name never gets there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TenantId(pub Ulid);

/// Identifies one incarnation of a topic: a topic that is deleted and made again has a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicId(pub Ulid);

/// Identifies a segment; made for each one, never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SegmentId(pub Ulid);

/// The unit of ownership; every partition belongs to one by hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u16);

impl TopicId {
    /// All partitions that it may have, in their order.
    pub(crate) fn partitions(self) -> RangeInclusive<Partition> {
        let at = |index| Partition { topic: self, index: PartitionIndex(index) };
        at(0)..=at(u32::MAX)
    }
}

/// A partition's index within its topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartitionIndex(pub u32);

/// A partition of a topic, the unit of order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Partition {
    /// The topic.
    pub topic: TopicId,
    /// The index within it.
    pub index: PartitionIndex,
}

/// A record's place in its partition: 0-based, dense, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Offset(pub u64);

/// Grows by one with each owner of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Epoch(pub u64);

/// Grows by one with each incarnation of a producer; chosen by the producer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ProducerEpoch(pub u64);

/// Counts the batches of one epoch of a producer in one partition, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ProducerSeq(pub u64);

/// Grows with each holder of the right to write; a partition refuses a lower one than it has seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct FencingToken(pub u64);

/// One place in a session's write-ahead log, one object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Slot(pub u64);

/// Milliseconds since the Unix epoch, by a server's clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp(pub u64);

/// A 128-bit hash (XXH3) of an object's header, and by it of the whole object: the header holds the body's hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ObjectHash(pub u128);

impl Offset {
    /// The offset `count` places further.
    #[must_use]
    pub fn plus(self, count: u32) -> Self {
        Self(self.0 + u64::from(count))
    }
}

impl ProducerSeq {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Slot {
    /// The slot after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Partition {
    /// The shard of this partition in a cluster of `shards` shards.
    ///
    /// Part of the stored format: the number of shards is fixed when the cluster is created.
    #[must_use]
    pub fn shard(self, shards: u16) -> ShardId {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.topic.0.to_bytes());
        bytes[16..].copy_from_slice(&self.index.0.to_be_bytes());
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
        ShardId(u16::try_from(hash % u64::from(shards.max(1))).expect("a remainder of a u16 fits a u16"))
    }
}

macro_rules! display_inner {
    ($($name:ident),*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        })*
    };
}

display_inner!(
    ClusterId,
    SessionId,
    TenantId,
    TopicId,
    SegmentId,
    ShardId,
    PartitionIndex,
    Offset,
    Epoch,
    Slot,
    Timestamp
);
display_inner!(ProducerEpoch, ProducerSeq, FencingToken);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}
