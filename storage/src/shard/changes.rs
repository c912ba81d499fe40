//! State changes as callers ask for them, and the bytes that they are committed as.
//!
//! ```text
//! entry    kind u8 · key or topic or shard length u32 · value length u32 · key · value        (little endian)
//! ```

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ulid::Ulid;

use crate::cleanup::Cleanup;
use crate::durability::{Gap, GapReason};
use crate::error::{Error, Kind, Result};
use crate::ids::{
    Epoch, FencingToken, Offset, Partition, PartitionIndex, ProducerEpoch, ProducerSeq, ShardId, Timestamp, TopicId,
};
use crate::retention::Retention;
use crate::segment::cleaned::Cleaned;
use crate::segment::link::Link;
use crate::shard::fork::{Begin, ForkPoint, only_partition};
use crate::shard::rows::{RetentionRow, Row};
use crate::shard::stream::StreamRow;
use crate::wal::format::get_ulid;

/// A set of changes that is committed whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// All of these must hold, over what is committed and what is about to be.
    pub guards: Vec<Guard>,
    /// Changes of documents.
    pub docs: Vec<DocOp>,
    /// Changes of topics.
    pub topics: Vec<TopicOp>,
}

/// A condition on a document.
#[derive(Clone, Debug)]
pub enum Guard {
    /// There is no document under the key.
    Absent(Bytes),
    /// There is a document under the key.
    Present(Bytes),
    /// The document under the key has exactly this value.
    Equals(Bytes, Bytes),
    /// The topic has so many forks.
    Forks {
        /// The topic, which may be there only for its forks.
        topic: TopicId,
        /// At least these.
        least: u32,
        /// At most these.
        most: u32,
    },
}

/// A change of a document. Keys and values are the caller's; the log does not look into them.
#[derive(Clone, Debug)]
pub enum DocOp {
    /// Sets the value.
    Put(Bytes, Bytes),
    /// Removes the document; absent is no error.
    Delete(Bytes),
}

/// A change of a topic.
#[derive(Clone, Copy, Debug)]
pub enum TopicOp {
    /// The topic exists from here on.
    Create {
        /// A new id, never used before.
        topic: TopicId,
        /// How many partitions, at least 1.
        partitions: u32,
    },
    /// The topic is gone from here on, and its records with it, or with the last of its forks.
    Delete {
        /// The topic.
        topic: TopicId,
    },
    /// The topic exists from here on and begins with the records of another one, which it shares.
    Fork {
        /// A new id, never used before.
        topic: TopicId,
        /// What it is a fork of: a topic of one partition.
        source: TopicId,
        /// Up to where.
        point: ForkPoint,
    },
    /// So much of the topic is kept from here on.
    SetRetention {
        /// The topic; that it exists is for a guard to say.
        topic: TopicId,
        /// How much.
        retention: Retention,
    },
    /// What happens to the topic's records from here on.
    SetCleanup {
        /// The topic; that it exists is for a guard to say.
        topic: TopicId,
        /// What.
        cleanup: Cleanup,
    },
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    PutDocument {
        key: Bytes,
        value: Bytes,
    },
    DeleteDocument {
        key: Bytes,
    },
    CreateTopic {
        topic: TopicId,
        partitions: u32,
    },
    DeleteTopic {
        topic: TopicId,
    },
    /// A topic of one partition begins with records of another one.
    ForkTopic {
        topic: TopicId,
        begin: Begin,
    },
    Acquire {
        shard: ShardId,
        epoch: Epoch,
    },
    SetRetention {
        topic: TopicId,
        retention: Retention,
    },
    SetCleanup {
        topic: TopicId,
        cleanup: Cleanup,
    },
    /// Offsets below `start` are no longer kept.
    Trim {
        partition: Partition,
        start: Offset,
    },
    /// A producer's batch was stored.
    Produced {
        partition: Partition,
        id: Bytes,
        epoch: ProducerEpoch,
        seq: ProducerSeq,
        receipt: Receipt,
    },
    /// A request with an idempotency key was stored; `count` 0: in other partitions than this one.
    Keyed {
        partition: Partition,
        key: u128,
        content: u128,
        receipt: Receipt,
    },
    /// The partition has seen a fencing token that is higher than those before.
    Fenced {
        partition: Partition,
        token: FencingToken,
    },
    /// A stream has a higher sequence, or is closed.
    StreamStep {
        partition: Partition,
        step: StreamRow,
    },
    /// Runs of batches stand in a segment from here on.
    Link(Link),
    /// Runs without what later records supersede stand in segments from here on.
    Cleaned(Cleaned),
    /// Offsets from the partition's tail on name no record; the tail goes on behind them.
    Gap {
        partition: Partition,
        gap: Gap,
    },
    /// What the session shows of the partition before it is committed is below `to`.
    Reserve {
        partition: Partition,
        to: Offset,
        memory: bool,
    },
}

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) base: Offset,
    pub(crate) count: u32,
    pub(crate) timestamp: Timestamp,
}

impl Change {
    /// About how many bytes the change takes in the log.
    pub(crate) fn len(&self) -> usize {
        let docs = self.docs.iter().map(|op| match op {
            DocOp::Put(key, value) => key.len() + value.len(),
            DocOp::Delete(key) => key.len(),
        });
        docs.sum::<usize>() + 32 * (self.docs.len() + self.topics.len())
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let docs = self.docs.iter().map(|op| match op {
            DocOp::Put(key, value) => Entry::PutDocument { key: key.clone(), value: value.clone() },
            DocOp::Delete(key) => Entry::DeleteDocument { key: key.clone() },
        });
        let topics = self.topics.iter().map(|op| match *op {
            TopicOp::Create { topic, partitions } => Entry::CreateTopic { topic, partitions },
            TopicOp::Delete { topic } => Entry::DeleteTopic { topic },
            TopicOp::Fork { topic, source, point } => {
                // The time is known when the change is accepted.
                let begin = Begin { source: only_partition(source), point, timestamp: Timestamp(0) };
                Entry::ForkTopic { topic, begin }
            }
            TopicOp::SetRetention { topic, retention } => Entry::SetRetention { topic, retention },
            TopicOp::SetCleanup { topic, cleanup } => Entry::SetCleanup { topic, cleanup },
        });
        docs.chain(topics).collect()
    }
}

impl Entry {
    /// Bytes of the stored form.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::PutDocument { key, value } => put_entry(out, 1, key, value),
            Self::DeleteDocument { key } => put_entry(out, 2, key, &[]),
            Self::CreateTopic { topic, partitions } => {
                put_entry(out, 3, &topic.0.to_bytes(), &partitions.to_le_bytes());
            }
            Self::DeleteTopic { topic } => put_entry(out, 4, &topic.0.to_bytes(), &[]),
            Self::ForkTopic { topic, begin } => put_entry(out, 28, &topic.0.to_bytes(), &begin.value()),
            Self::Acquire { shard, epoch } => put_entry(out, 5, &shard.0.to_le_bytes(), &epoch.0.to_le_bytes()),
            Self::Produced { partition, id, epoch, seq, receipt } => {
                let mut value = BytesMut::with_capacity(16 + Receipt::LEN);
                value.put_u64_le(epoch.0);
                value.put_u64_le(seq.0);
                receipt.write(&mut value);
                put_entry(out, 10, &partition_key(*partition, id), &value);
            }
            Self::Keyed { partition, key, content, receipt } => {
                let mut value = BytesMut::with_capacity(16 + Receipt::LEN);
                value.put_u128_le(*content);
                receipt.write(&mut value);
                put_entry(out, 11, &partition_key(*partition, &key.to_le_bytes()), &value);
            }
            Self::Fenced { partition, token } => {
                put_entry(out, 12, &partition_key(*partition, &[]), &token.0.to_le_bytes());
            }
            Self::StreamStep { partition, step } => {
                let mut value = BytesMut::new();
                step.write(&mut value);
                put_entry(out, 27, &partition_key(*partition, &[]), &value);
            }
            Self::SetRetention { topic, retention } => {
                let row = RetentionRow::of(retention).unwrap_or(RetentionRow { age_ms: 0, bytes: 0 });
                let mut value = BytesMut::with_capacity(RetentionRow::LEN);
                value.put_u64_le(row.age_ms);
                value.put_u64_le(row.bytes);
                put_entry(out, 20, &topic.0.to_bytes(), &value);
            }
            Self::Trim { partition, start } => {
                put_entry(out, 21, &partition_key(*partition, &[]), &start.0.to_le_bytes());
            }
            Self::Link(link) => put_entry(out, 22, &link.key(), &link.value()),
            Self::Gap { partition, gap } => {
                let mut value = BytesMut::with_capacity(17);
                value.put_u64_le(gap.from.0);
                value.put_u64_le(gap.to.0);
                value.put_u8(gap.reason.code());
                put_entry(out, 23, &partition_key(*partition, &[]), &value);
            }
            Self::Reserve { partition, to, memory } => {
                let mut value = BytesMut::with_capacity(9);
                value.put_u64_le(to.0);
                value.put_u8(u8::from(*memory));
                put_entry(out, 24, &partition_key(*partition, &[]), &value);
            }
            Self::SetCleanup { topic, cleanup } => put_entry(out, 25, &topic.0.to_bytes(), &[cleanup.code()]),
            Self::Cleaned(cleaned) => {
                put_entry(out, 26, &partition_key(cleaned.partition, &[]), &cleaned.value());
            }
        }
    }

    /// The partition in whose shard the entry is committed, or `None` for the catalog.
    pub(crate) fn partition(&self) -> Option<Partition> {
        match self {
            Self::Produced { partition, .. }
            | Self::Keyed { partition, .. }
            | Self::Fenced { partition, .. }
            | Self::StreamStep { partition, .. }
            | Self::Trim { partition, .. }
            | Self::Gap { partition, .. }
            | Self::Reserve { partition, .. } => Some(*partition),
            Self::Link(link) => Some(link.partition()),
            Self::Cleaned(cleaned) => Some(cleaned.partition),
            Self::PutDocument { .. }
            | Self::DeleteDocument { .. }
            | Self::CreateTopic { .. }
            | Self::DeleteTopic { .. }
            | Self::ForkTopic { .. }
            | Self::Acquire { .. }
            | Self::SetRetention { .. }
            | Self::SetCleanup { .. } => None,
        }
    }

    /// The changes blocks of entries of partitions, one per shard.
    pub(crate) fn encode_by_shard<'a>(
        entries: impl IntoIterator<Item = &'a Self>,
        shards: u16,
    ) -> BTreeMap<ShardId, Bytes> {
        let mut blocks = BTreeMap::<ShardId, BytesMut>::new();
        for entry in entries {
            let partition = entry.partition().expect("only entries of partitions are gathered here");
            entry.encode(blocks.entry(partition.shard(shards)).or_default());
        }
        blocks.into_iter().map(|(shard, block)| (shard, block.freeze())).collect()
    }

    /// The entries of a changes block.
    ///
    /// # Errors
    /// `Corrupt` when a length or a kind is not one that is written.
    pub(crate) fn parse_all(mut bytes: Bytes) -> Result<Vec<Self>> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            out.push(Self::parse(&mut bytes).ok_or_else(|| Error::new(Kind::Corrupt, "state change is broken"))?);
        }
        Ok(out)
    }

    fn parse(bytes: &mut Bytes) -> Option<Self> {
        if bytes.len() < 9 {
            return None;
        }
        let kind = bytes.get_u8();
        let (key_len, value_len) = (bytes.get_u32_le() as usize, bytes.get_u32_le() as usize);
        if bytes.len() < key_len.checked_add(value_len)? {
            return None;
        }
        let (key, mut value) = (bytes.split_to(key_len), bytes.split_to(value_len));
        let topic = || Some(TopicId(Ulid::from_bytes(key[..].try_into().ok()?)));
        match kind {
            1 => Some(Self::PutDocument { key, value }),
            2 => Some(Self::DeleteDocument { key }),
            3 => {
                Some(Self::CreateTopic { topic: topic()?, partitions: u32::from_le_bytes(value[..].try_into().ok()?) })
            }
            4 => Some(Self::DeleteTopic { topic: topic()? }),
            5 => Some(Self::Acquire {
                shard: ShardId(u16::from_le_bytes(key[..].try_into().ok()?)),
                epoch: Epoch(u64::from_le_bytes(value[..].try_into().ok()?)),
            }),
            20 if value.len() == RetentionRow::LEN => {
                Some(Self::SetRetention { topic: topic()?, retention: RetentionRow::get(&mut value).retention() })
            }
            25 if value.len() == 1 => {
                Some(Self::SetCleanup { topic: topic()?, cleanup: Cleanup::of_code(value.get_u8())? })
            }
            10..=12 | 21 | 23 | 24 | 26 | 27 => Self::parse_of_partition(kind, key, value),
            22 => Link::parse(key, value).map(Self::Link),
            28 => Some(Self::ForkTopic { topic: topic()?, begin: Begin::parse(value)? }),
            _ => None,
        }
    }

    fn parse_of_partition(kind: u8, mut key: Bytes, mut value: Bytes) -> Option<Self> {
        if key.len() < PARTITION_BYTES {
            return None;
        }
        let partition = Partition { topic: TopicId(get_ulid(&mut key)), index: PartitionIndex(key.get_u32_le()) };
        match kind {
            10 if value.len() == 16 + Receipt::LEN => Some(Self::Produced {
                partition,
                id: key,
                epoch: ProducerEpoch(value.get_u64_le()),
                seq: ProducerSeq(value.get_u64_le()),
                receipt: Receipt::read(&mut value),
            }),
            11 if value.len() == 16 + Receipt::LEN => Some(Self::Keyed {
                partition,
                key: u128::from_le_bytes(key[..].try_into().ok()?),
                content: value.get_u128_le(),
                receipt: Receipt::read(&mut value),
            }),
            12 if key.is_empty() => {
                Some(Self::Fenced { partition, token: FencingToken(u64::from_le_bytes(value[..].try_into().ok()?)) })
            }
            21 if key.is_empty() => {
                Some(Self::Trim { partition, start: Offset(u64::from_le_bytes(value[..].try_into().ok()?)) })
            }
            23 if key.is_empty() && value.len() == 17 => {
                let (from, to) = (Offset(value.get_u64_le()), Offset(value.get_u64_le()));
                let reason = GapReason::of_code(value.get_u8())?;
                Some(Self::Gap { partition, gap: Gap { from, to, reason } })
            }
            24 if key.is_empty() && value.len() == 9 => {
                let to = Offset(value.get_u64_le());
                let memory = value.get_u8() != 0;
                Some(Self::Reserve { partition, to, memory })
            }
            26 if key.is_empty() => Cleaned::parse(partition, value).map(Self::Cleaned),
            27 if key.is_empty() => StreamRow::read(value).map(|step| Self::StreamStep { partition, step }),
            _ => None,
        }
    }
}

impl Receipt {
    /// Bytes of the stored form.
    pub(crate) const LEN: usize = 20;

    pub(crate) fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.base.0);
        out.put_u32_le(self.count);
        out.put_u64_le(self.timestamp.0);
    }

    pub(crate) fn read(bytes: &mut Bytes) -> Self {
        Self { base: Offset(bytes.get_u64_le()), count: bytes.get_u32_le(), timestamp: Timestamp(bytes.get_u64_le()) }
    }
}

const PARTITION_BYTES: usize = 20;

fn partition_key(partition: Partition, rest: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(PARTITION_BYTES + rest.len());
    out.put_slice(&partition.topic.0.to_bytes());
    out.put_u32_le(partition.index.0);
    out.put_slice(rest);
    out
}

fn put_entry(out: &mut BytesMut, kind: u8, key: &[u8], value: &[u8]) {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a change is bounded far below 4 GiB");
    out.put_u8(kind);
    out.put_u32_le(len(key));
    out.put_u32_le(len(value));
    out.put_slice(key);
    out.put_slice(value);
}

#[cfg(test)]
mod tests;
