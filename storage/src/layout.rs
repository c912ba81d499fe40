//! The names of objects in the bucket and of keys in the local state store. No other file spells either.
//!
//! Names hold internal ids and numbers only, never a string that a client chose.

use bytes::{BufMut, Bytes, BytesMut};
use object_store::path::Path;

use crate::ids::{Epoch, Offset, Partition, PartitionIndex, SegmentId, SessionId, ShardId, Slot, TopicId};
use crate::wal::format::get_ulid;

/// The object that makes a bucket a cluster.
pub(crate) fn cluster() -> Path {
    Path::from("cluster")
}

/// The object on which the store's conditional writes are tried at start.
pub(crate) fn probe(session: SessionId) -> Path {
    Path::from(format!("session/{session}/probe"))
}

/// Where the logs of all sessions stand.
pub(crate) fn logs_prefix() -> Path {
    Path::from("session")
}

pub(crate) fn session_meta(session: SessionId) -> Path {
    Path::from(format!("session/{session}/meta"))
}

pub(crate) fn wal_prefix(session: SessionId) -> Path {
    Path::from(format!("session/{session}/wal"))
}

pub(crate) fn wal(session: SessionId, slot: Slot) -> Path {
    Path::from(format!("session/{session}/wal/{:020}", slot.0))
}

pub(crate) fn checkpoint_prefix(session: SessionId) -> Path {
    Path::from(format!("session/{session}/checkpoint"))
}

pub(crate) fn checkpoint(session: SessionId, number: Slot) -> Path {
    Path::from(format!("session/{session}/checkpoint/{:020}", number.0))
}

pub(crate) fn claim_prefix(shard: ShardId) -> Path {
    Path::from(format!("shard/{:05}/claim", shard.0))
}

pub(crate) fn claim(shard: ShardId, epoch: Epoch) -> Path {
    Path::from(format!("shard/{:05}/claim/{:020}", shard.0, epoch.0))
}

pub(crate) fn segment(segment: SegmentId) -> Path {
    Path::from(format!("segment/{segment}"))
}

/// The object of this number under a prefix of numbered ones.
pub(crate) fn numbered(prefix: &Path, number: u64) -> Path {
    prefix.clone().join(format!("{number:020}"))
}

/// The number at the end of a slot's, checkpoint's or claim's name.
pub(crate) fn number(path: &Path) -> Option<u64> {
    path.filename()?.parse().ok()
}

/// An object's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectName {
    Cluster,
    SessionMeta(SessionId),
    Probe(SessionId),
    Slot(SessionId, Slot),
    Checkpoint(SessionId, Slot),
    Claim(ShardId, Epoch),
    Segment(SegmentId),
}

impl ObjectName {
    /// The name that `path` spells, or `None` when it is not one that the log gives.
    pub(crate) fn parse(path: &Path) -> Option<Self> {
        let parts: Vec<&str> = path.as_ref().split('/').collect();
        let session = |text: &str| Some(SessionId(text.parse().ok()?));
        let name = match parts[..] {
            ["cluster"] => Self::Cluster,
            ["session", sid, "meta"] => Self::SessionMeta(session(sid)?),
            ["session", sid, "probe"] => Self::Probe(session(sid)?),
            ["session", sid, "wal", number] => Self::Slot(session(sid)?, Slot(number.parse().ok()?)),
            ["session", sid, "checkpoint", number] => Self::Checkpoint(session(sid)?, Slot(number.parse().ok()?)),
            ["shard", shard, "claim", number] => Self::Claim(ShardId(shard.parse().ok()?), Epoch(number.parse().ok()?)),
            ["segment", segment] => Self::Segment(SegmentId(segment.parse().ok()?)),
            _ => return None,
        };
        // One thing, one name: `+1`, a missing zero and small letters are not ours.
        (name.path() == *path).then_some(name)
    }

    /// The name.
    pub(crate) fn path(self) -> Path {
        match self {
            Self::Cluster => cluster(),
            Self::SessionMeta(session) => session_meta(session),
            Self::Probe(session) => probe(session),
            Self::Slot(session, slot) => wal(session, slot),
            Self::Checkpoint(session, number) => checkpoint(session, number),
            Self::Claim(shard, epoch) => claim(shard, epoch),
            Self::Segment(id) => segment(id),
        }
    }
}

/// The sessions of which slots stand under a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotsUnder {
    All,
    One(SessionId),
    None,
}

/// Whose slots stand under `prefix`; that of a single slot is none.
pub(crate) fn slots_under(prefix: Option<&Path>) -> SlotsUnder {
    let parts: Vec<&str> = prefix.map_or("", AsRef::as_ref).split('/').collect();
    match parts[..] {
        [""] | ["session"] => SlotsUnder::All,
        ["session", sid] | ["session", sid, "wal"] => {
            sid.parse().map_or(SlotsUnder::None, |sid| SlotsUnder::One(SessionId(sid)))
        }
        _ => SlotsUnder::None,
    }
}

/// Everything of sessions is under this.
pub(crate) fn sessions_prefix() -> Path {
    Path::from("session")
}

/// Everything of shards is under this.
pub(crate) fn shards_prefix() -> Path {
    Path::from("shard")
}

/// What an object is for, as a label of the request metrics.
pub(crate) fn purpose(path: &str) -> &'static str {
    if path.contains("/wal") {
        "wal"
    } else if path.contains("/checkpoint") {
        "checkpoint"
    } else if path.contains("/claim") {
        "claim"
    } else if path.starts_with("segment") {
        "segment"
    } else if path.ends_with("/meta") {
        "session"
    } else if path.ends_with("/probe") {
        "probe"
    } else {
        "cluster"
    }
}

/// Where all segments stand.
pub(crate) fn segments_prefix() -> Path {
    Path::from("segment")
}

/// The name of an object that may be deleted when nothing needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deletable {
    Slot(SessionId, Slot),
    Checkpoint(SessionId, Slot),
    Segment(SegmentId),
}

impl Deletable {
    /// `None` for any other object.
    pub(crate) fn parse(path: &Path) -> Option<Self> {
        let id = path.parts().nth(1)?.as_ref().parse().ok()?;
        let number = Slot(number(path).unwrap_or_default());
        let session = SessionId(id);
        let names = [Self::Slot(session, number), Self::Checkpoint(session, number), Self::Segment(SegmentId(id))];
        names.into_iter().find(|name| name.path() == *path)
    }

    pub(crate) fn path(self) -> Path {
        match self {
            Self::Slot(session, slot) => wal(session, slot),
            Self::Checkpoint(session, number) => checkpoint(session, number),
            Self::Segment(id) => segment(id),
        }
    }
}

const META: u8 = 0;
const DOCUMENT: u8 = 1;
const TOPIC: u8 = 2;
const PARTITION: u8 = 3;
const INDEX: u8 = 4;
const TERMS: u8 = 10;
const PRODUCER: u8 = 11;
const IDEMPOTENCY: u8 = 12;
const DIRTY: u8 = 13;
const RETENTION: u8 = 15;
const GAPS: u8 = 17;
const CLEANUP: u8 = 18;
const CLEAN: u8 = 19;
const STREAM: u8 = 20;
const FORK: u8 = 21;

/// The local key under which the state store keeps how far it has applied the log.
pub(crate) fn position_key() -> Bytes {
    Bytes::from_static(&[META])
}

/// The local key under which the state store keeps the checkpoint that its dirty rows come after.
pub(crate) fn reference_key() -> Bytes {
    Bytes::from_static(&[META, 1])
}

/// The key range of the local rows about the state store itself.
pub(crate) fn meta_range() -> (Bytes, Bytes) {
    (position_key(), Bytes::from_static(&[META + 1]))
}

/// The local key of what one slot changed: the `number`-th that the state store has applied.
pub(crate) fn dirty_key(number: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(DIRTY);
    out.put_u64(number);
    out.freeze()
}

/// The keys that belong into a checkpoint: all but those that are about the local state store.
pub(crate) fn is_checkpointed(key: &[u8]) -> bool {
    !matches!(key.first(), Some(&(META | DIRTY)))
}

/// Whether a key is that of a producer.
pub(crate) fn is_producer(key: &[u8]) -> bool {
    key.first() == Some(&PRODUCER)
}

/// Whether a key is that of a stream.
pub(crate) fn is_stream(key: &[u8]) -> bool {
    key.first() == Some(&STREAM)
}

/// Whether a key is that of what a partition shares.
pub(crate) fn is_fork(key: &[u8]) -> bool {
    key.first() == Some(&FORK)
}

pub(crate) fn document_key(key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + key.len());
    out.put_u8(DOCUMENT);
    out.put_slice(key);
    out.freeze()
}

/// The end of the range of documents whose key begins with `prefix`.
pub(crate) fn document_prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = BytesMut::from(&document_key(prefix)[..]);
    while let Some(last) = end.last_mut() {
        if let Some(next) = last.checked_add(1) {
            *last = next;
            break;
        }
        end.truncate(end.len() - 1);
    }
    end.freeze()
}

/// The caller's key of a document.
pub(crate) fn document_of(key: &Bytes) -> Bytes {
    key.slice(1..)
}

pub(crate) fn topic_key(topic: TopicId) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    out.put_u8(TOPIC);
    out.put_slice(&topic.0.to_bytes());
    out.freeze()
}

/// What is kept of a topic.
pub(crate) fn retention_key(topic: TopicId) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    out.put_u8(RETENTION);
    out.put_slice(&topic.0.to_bytes());
    out.freeze()
}

/// The topic of a retention key.
pub(crate) fn retention_topic(key: &[u8]) -> Option<TopicId> {
    Some(TopicId(ulid::Ulid::from_bytes(key.get(1..)?.try_into().ok()?)))
}

/// That the records of a topic are cleaned up by key.
pub(crate) fn cleanup_key(topic: TopicId) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    out.put_u8(CLEANUP);
    out.put_slice(&topic.0.to_bytes());
    out.freeze()
}

/// The end of the keys of all topics that are cleaned up by key.
pub(crate) fn cleanup_end() -> Bytes {
    Bytes::from_static(&[CLEANUP + 1])
}

/// How far a partition is clean.
pub(crate) fn clean_key(partition: Partition) -> Bytes {
    partition_bytes(CLEAN, partition, 0).freeze()
}

/// The end of the keys of all topics' retention.
pub(crate) fn retention_end() -> Bytes {
    Bytes::from_static(&[RETENTION + 1])
}

fn partition_bytes(kind: u8, partition: Partition, room: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(21 + room);
    out.put_u8(kind);
    out.put_slice(&partition.topic.0.to_bytes());
    out.put_u32(partition.index.0);
    out
}

pub(crate) fn partition_key(partition: Partition) -> Bytes {
    partition_bytes(PARTITION, partition, 0).freeze()
}

/// The key range of the whole index.
pub(crate) fn index_range() -> (Bytes, Bytes) {
    (Bytes::from_static(&[INDEX]), Bytes::from_static(&[INDEX + 1]))
}

pub(crate) fn index_key(partition: Partition, base: Offset) -> Bytes {
    let mut out = partition_bytes(INDEX, partition, 8);
    out.put_u64(base.0);
    out.freeze()
}

/// The first key that can follow `key`.
pub(crate) fn after(key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(key.len() + 1);
    out.put_slice(key);
    out.put_u8(0);
    out.freeze()
}

/// The partition of a key that belongs to one.
pub(crate) fn partition_of(key: &[u8]) -> Option<Partition> {
    let mut bytes = key.get(1..21)?;
    let topic = TopicId(get_ulid(&mut bytes));
    Some(Partition { topic, index: PartitionIndex(bytes::Buf::get_u32(&mut bytes)) })
}

/// The first offset of an index key.
pub(crate) fn index_base(key: &[u8]) -> Option<Offset> {
    let bytes: [u8; 8] = key.get(21..29)?.try_into().ok()?;
    Some(Offset(u64::from_be_bytes(bytes)))
}

/// The fencing token of a partition, and how many producers and idempotency keys it remembers.
pub(crate) fn terms_key(partition: Partition) -> Bytes {
    partition_bytes(TERMS, partition, 0).freeze()
}

/// What a partition remembers as a stream.
pub(crate) fn stream_key(partition: Partition) -> Bytes {
    partition_bytes(STREAM, partition, 0).freeze()
}

/// What a partition shares with forks, and with what it is a fork of.
pub(crate) fn fork_key(partition: Partition) -> Bytes {
    partition_bytes(FORK, partition, 0).freeze()
}

/// A producer, in the bucket of its last batch.
pub(crate) fn producer_key(partition: Partition, bucket: u32, id: &[u8]) -> Bytes {
    let mut out = partition_bytes(PRODUCER, partition, 4 + id.len());
    out.put_u32(bucket);
    out.put_slice(id);
    out.freeze()
}

/// An idempotency key, in the bucket of its request.
pub(crate) fn idempotency_key(partition: Partition, bucket: u32, key: u128) -> Bytes {
    let mut out = partition_bytes(IDEMPOTENCY, partition, 20);
    out.put_u32(bucket);
    out.put_u128(key);
    out.freeze()
}

/// The key range of the producers of a partition in the buckets below one.
pub(crate) fn producers_before(partition: Partition, bucket: u32) -> (Bytes, Bytes) {
    (producer_key(partition, 0, &[]), producer_key(partition, bucket, &[]))
}

/// The key range of the idempotency keys of a partition in the buckets below one.
pub(crate) fn idempotency_keys_before(partition: Partition, bucket: u32) -> (Bytes, Bytes) {
    (idempotency_key(partition, 0, 0), idempotency_key(partition, bucket, 0))
}

/// How far the owner of a partition may have shown offsets that the bucket does not have.
pub(crate) fn reservation_key(partition: Partition) -> Bytes {
    partition_bytes(GAPS, partition, 0).freeze()
}

/// A gap of a partition, by its first offset.
pub(crate) fn gap_key(partition: Partition, from: Offset) -> Bytes {
    let mut out = partition_bytes(GAPS, partition, 8);
    out.put_u64(from.0);
    out.freeze()
}

/// The key range in which the reservations stand, between the gaps of their partitions.
pub(crate) fn reservations() -> (Bytes, Bytes) {
    (Bytes::from_static(&[GAPS]), Bytes::from_static(&[GAPS + 1]))
}

/// The partition of a reservation's key, or `None` for one of a gap.
pub(crate) fn reserved_partition(mut key: &[u8]) -> Option<Partition> {
    if key.len() != 21 {
        return None;
    }
    bytes::Buf::advance(&mut key, 1);
    let topic = TopicId(get_ulid(&mut key));
    Some(Partition { topic, index: PartitionIndex(bytes::Buf::get_u32(&mut key)) })
}

/// The key ranges of all that is kept per partition of `topic`.
pub(crate) fn topic_ranges(topic: TopicId) -> [(Bytes, Bytes); 9] {
    [PARTITION, INDEX, TERMS, PRODUCER, IDEMPOTENCY, GAPS, CLEAN, STREAM, FORK].map(|kind| topic_range(kind, topic))
}

/// The key ranges of what is kept per partition of `topic` and no fork needs.
pub(crate) fn unshared_ranges(topic: TopicId) -> [(Bytes, Bytes); 5] {
    [TERMS, PRODUCER, IDEMPOTENCY, CLEAN, STREAM].map(|kind| topic_range(kind, topic))
}

fn topic_range(kind: u8, topic: TopicId) -> (Bytes, Bytes) {
    let mut from = BytesMut::with_capacity(17);
    from.put_u8(kind);
    from.put_slice(&topic.0.to_bytes());
    let mut to = from.clone();
    to.put_slice(&[0xff; 13]);
    (from.freeze(), to.freeze())
}

/// What a row is, for people.
pub(crate) fn row_name(key: &[u8]) -> String {
    let of_partition = |what: &str| partition_of(key).map(|partition| format!("{what} of partition {partition}"));
    let named = match key.first() {
        Some(&DOCUMENT) => Some(format!("document {:?}", String::from_utf8_lossy(&key[1..]))),
        Some(&TOPIC) if key.len() == 17 => Some(format!("topic {}", TopicId(get_ulid(&mut &key[1..])))),
        Some(&PARTITION) => of_partition("row"),
        Some(&INDEX) => of_partition("index row").zip(index_base(key)).map(|(row, base)| format!("{row} at {base}")),
        Some(&TERMS) => of_partition("terms"),
        Some(&PRODUCER) => of_partition("producer"),
        Some(&IDEMPOTENCY) => of_partition("idempotency key"),
        Some(&CLEANUP) => retention_topic(key).map(|topic| format!("cleanup of topic {topic}")),
        Some(&CLEAN) => of_partition("cleaning"),
        Some(&STREAM) => of_partition("stream"),
        Some(&FORK) => of_partition("forks"),
        Some(_) | None => None,
    };
    named.unwrap_or_else(|| format!("row of the unknown kind {:?}", key.first()))
}

/// The range of all topics.
pub(crate) fn topics_range() -> (Bytes, Bytes) {
    (Bytes::from_static(&[TOPIC]), Bytes::from_static(&[TOPIC + 1]))
}

/// The topic of a topic's key.
pub(crate) fn topic_of(key: &[u8]) -> Option<TopicId> {
    let bytes: [u8; 16] = key.get(1..)?.try_into().ok()?;
    Some(TopicId(ulid::Ulid::from_bytes(bytes)))
}

/// The shard that a key of a checkpoint belongs to, or `None` for a key that belongs to none.
pub(crate) fn shard_of(key: &[u8], shards: u16) -> Option<ShardId> {
    match *key.first()? {
        DOCUMENT | TOPIC | RETENTION | CLEANUP => Some(crate::shard::claim::CATALOG_SHARD),
        PARTITION | INDEX | TERMS | PRODUCER | IDEMPOTENCY | GAPS | CLEAN | STREAM | FORK => {
            Some(partition_of(key)?.shard(shards))
        }
        _ => None,
    }
}
