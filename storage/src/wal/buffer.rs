//! The open buffer: what has been accepted and not yet sealed into a slot, and what callers must already see of it.
//!
//! All of it stands under one short lock. It knows nothing of the store.

mod documents;
pub(crate) mod early;
pub(crate) mod fork;
mod settle;
pub(crate) mod stream;
pub(crate) mod terms;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use tokio::time::Instant;

use crate::durability::Durability;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, Timestamp, TopicId};
use crate::record::{Batch, StoredBatch};
use crate::shard::changes::{Change, Entry};
use crate::shard::fork::fork_row;
use crate::shard::machine;
use crate::shard::rows::PartitionRow;
use crate::shard::stream::stream_row;
use crate::spans::Traced;
use crate::state::StateStore;
use crate::terms::REMEMBERED_MAX;
use crate::wal::journal::Journal;
use crate::watch;

use self::early::{Ack, At, EarlyHalf, Reserved};

/// What is known of the slot that an append or a change went into.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Pending,
    Committed,
    Failed(Kind, Arc<str>),
}

/// Idle partitions are forgotten past this number, of about 160 bytes each; they are read from the state store again when they are
/// needed. It fits a table of 2^17 places.
const PARTITIONS_KEPT_MAX: usize = 100_000;
/// What a batch costs in the buffer besides its bytes.
const BATCH_OVERHEAD_BYTES: usize = 128;

/// What a move of a start costs in the buffer.
pub(crate) const TRIM_BYTES: usize = 64;

const PERMIT_BYTES: usize = 1024;

/// How many permits of the writer's room so many bytes take.
pub(crate) fn room_of(bytes: usize) -> usize {
    bytes.div_ceil(PERMIT_BYTES).max(1)
}

/// About how many bytes have so many permits.
pub(crate) fn bytes_of(room: usize) -> u64 {
    (room * PERMIT_BYTES) as u64
}

/// What is accepted and not sealed.
#[derive(Debug)]
pub(crate) struct OpenBuffer {
    pub(crate) sequence: u64,
    pub(crate) groups: IndexMap<Partition, Vec<Arc<StoredBatch>>>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) changes: BytesMut,
    /// What partitions are to remember of the appends; each is committed in the shard of its partition.
    pub(crate) partition_entries: Vec<Entry>,
    pub(crate) bytes: usize,
    /// Appends and changes that wait for this buffer.
    pub(crate) waiting: usize,
    /// Given back when the outcome is known.
    pub(crate) room: Room,
    pub(crate) opened: Option<Instant>,
    pub(crate) outcome: watch::Sender<Outcome>,
    /// The appends that are acknowledged before the outcome is known; all else is late.
    pub(crate) early: EarlyHalf,
    /// The appends that somebody follows.
    pub(crate) traced: Traced,
}

/// Permits of the writer's room: for what waits to be stored, and for appends of the weaker durability classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) pending: usize,
    pub(crate) unstored: usize,
}

/// A partition as its owner sees it: what is committed and what is given out.
#[derive(Clone, Copy, Debug)]
struct PartitionTail {
    committed: PartitionRow,
    /// Those below may be read: committed, or acknowledged before.
    shown: Offset,
    /// Where the last batch ends that is not acknowledged before it is committed.
    held: Offset,
    next: Offset,
    last_timestamp: Timestamp,
    /// Whether nothing is appended to it any more: as it is committed, and as it is decided.
    closed: bool,
    closing: bool,
    /// Where the part of it begins that is no other partition's.
    own: Offset,
}

/// Everything that is decided under the lock.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) open: OpenBuffer,
    /// Buffers that are full and not sealed, the oldest first.
    full: VecDeque<OpenBuffer>,
    pub(crate) slot_bytes: usize,
    /// How many must wait in the open buffer for the pipeline to look at it again; `None` while it looks anyway when what
    /// it does is done. See [`Core::is_news`].
    pub(crate) look_at: Option<usize>,
    pub(crate) stopped: Option<(Kind, Arc<str>)>,
    pub(crate) journal: Option<Arc<Journal>>,
    /// The number of the last batch that was given to the journal.
    journaled: u64,
    partitions: HashMap<Partition, PartitionTail>,
    /// With more of them, the idle ones are forgotten.
    partitions_max: usize,
    reserved: HashMap<Partition, Reserved>,
    /// Since when each buffer with early appends that is not committed has had them.
    unstored: VecDeque<(u64, Instant)>,
    pending_docs: HashMap<Bytes, Vec<(u64, Option<Bytes>)>>,
    /// Topics that a change deletes which is not committed, and how many partitions they have.
    deleting: HashMap<TopicId, u32>,
    /// Forks that a change makes which is not committed, by their sources, each with the number of its buffer.
    forking: HashMap<Partition, Vec<(u64, TopicId)>>,
    remembered: terms::Pending,
    remembered_max: u32,
}

/// A place that was given and the slot's outcome to wait for.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) base: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) ack: Ack,
    /// The batch, when it is acknowledged before it is committed.
    pub(crate) early: Option<Arc<StoredBatch>>,
}

impl OpenBuffer {
    fn new(sequence: u64) -> Self {
        Self {
            sequence,
            groups: IndexMap::new(),
            entries: Vec::new(),
            changes: BytesMut::new(),
            partition_entries: Vec::new(),
            bytes: 0,
            waiting: 0,
            room: Room::default(),
            opened: None,
            outcome: watch::channel(Outcome::Pending).0,
            early: EarlyHalf::new(),
            traced: Traced::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.opened.is_none()
    }

    fn grew(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.waiting += 1;
        self.opened.get_or_insert_with(Instant::now);
    }
}

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            open: OpenBuffer::new(0),
            full: VecDeque::new(),
            slot_bytes: usize::MAX,
            look_at: Some(0),
            stopped: None,
            journal: None,
            journaled: 0,
            partitions: HashMap::new(),
            partitions_max: PARTITIONS_KEPT_MAX,
            reserved: HashMap::new(),
            unstored: VecDeque::new(),
            pending_docs: HashMap::new(),
            deleting: HashMap::new(),
            forking: HashMap::new(),
            remembered: terms::Pending::default(),
            remembered_max: REMEMBERED_MAX,
        }
    }

    /// Gives a batch its place.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition; `Unavailable` when it must be committed first and the store is away;
    /// the reason of the stop after one.
    pub(crate) fn append(&mut self, state: &dyn StateStore, at: At, batch: Batch) -> Result<Submitted> {
        self.check_running()?;
        let At { partition, want, .. } = at;
        let tail = self.tail(state, partition)?;
        tail.check_open()?;
        let (base, timestamp) = (tail.next, at.now.max(tail.last_timestamp));
        let next = base.plus(batch.count());
        let weaker = want.durability < Durability::Object;
        let ack = match weaker {
            true => self.early_ack(partition, (base, next), want.durability),
            false => Ack::Late(self.open.outcome.subscribe()),
        };
        if want.away && !ack.is_early() {
            return Err(Error::new(Kind::Unavailable, "the object store cannot be reached"));
        }
        let tail = self.tail(state, partition)?;
        (tail.next, tail.last_timestamp) = (next, timestamp);
        match ack {
            Ack::Late(_) => tail.held = next,
            Ack::Now(_) => tail.shown = next,
            Ack::Journal(..) => {}
        }
        let (len, room) = (batch.len() + BATCH_OVERHEAD_BYTES, room_of(batch.len()));
        let stored = Arc::new(StoredBatch { base, timestamp, batch });
        let early = ack.is_early().then(|| Arc::clone(&stored));
        self.open.groups.entry(partition).or_default().push(stored);
        self.open.grew(len);
        if early.is_some() {
            self.grew_early(partition, len);
        }
        let half = if early.is_some() { &mut self.open.early.room } else { &mut self.open.room };
        *if weaker { &mut half.unstored } else { &mut half.pending } += room;
        if weaker {
            self.reserve_ahead(partition, next, want.durability);
        }
        Ok(Submitted { base, timestamp, ack, early })
    }

    /// Accepts a change when its guards hold.
    ///
    /// # Errors
    /// `Conflict` when a guard does not hold; the reason of the stop after one.
    pub(crate) fn change(&mut self, state: &dyn StateStore, change: &Change) -> Result<watch::Receiver<Outcome>> {
        self.check_running()?;
        for guard in &change.guards {
            self.check(state, guard)?;
        }
        let mut entries = change.entries();
        self.check_forks(state, &mut entries)?;
        for topic in entries.iter().filter_map(deleted_topic) {
            let partitions = machine::topic_row(state, topic)?.map_or(0, |row| row.partitions);
            self.deleting.insert(topic, partitions);
        }
        self.put_entries(entries);
        self.open.room.pending += room_of(change.len());
        Ok(self.open.outcome.subscribe())
    }

    /// Accepts entries without a condition.
    pub(crate) fn put_entries(&mut self, entries: Vec<Entry>) {
        let sequence = self.open.sequence;
        let before = self.open.changes.len();
        for entry in &entries {
            entry.encode(&mut self.open.changes);
            match entry {
                Entry::PutDocument { key, value } => self.pend(key, sequence, Some(value.clone())),
                Entry::DeleteDocument { key } => self.pend(key, sequence, None),
                Entry::ForkTopic { topic, begin } => self.note_fork(begin.source, *topic, sequence),
                Entry::CreateTopic { .. }
                | Entry::DeleteTopic { .. }
                | Entry::Acquire { .. }
                | Entry::SetRetention { .. }
                | Entry::SetCleanup { .. }
                | Entry::Trim { .. }
                | Entry::Produced { .. }
                | Entry::Keyed { .. }
                | Entry::Fenced { .. }
                | Entry::StreamStep { .. }
                | Entry::Link(_)
                | Entry::Cleaned(_)
                | Entry::Gap { .. }
                | Entry::Reserve { .. } => {}
            }
        }
        self.open.entries.extend(entries);
        self.open.grew(self.open.changes.len() - before);
    }

    /// Accepts links and cleanings without a condition; each is committed in the shard of its partitions.
    ///
    /// # Errors
    /// The reason of the stop after one.
    pub(crate) fn put_links(&mut self, links: Vec<Entry>) -> Result<watch::Receiver<Outcome>> {
        self.check_running()?;
        let mut encoded = BytesMut::new();
        links.iter().for_each(|link| link.encode(&mut encoded));
        self.open.partition_entries.extend(links);
        self.open.grew(encoded.len());
        Ok(self.open.outcome.subscribe())
    }

    /// Accepts moves of starts; one that is there already, or of a partition that is gone, is passed over. None when all
    /// are. What is not committed yet stays. The committed tail only grows, so a start is below it when it is applied.
    ///
    /// # Errors
    /// The reason of the stop after one.
    pub(crate) fn trim(
        &mut self,
        state: &dyn StateStore,
        trims: &[(Partition, Offset)],
    ) -> Result<Option<watch::Receiver<Outcome>>> {
        self.check_running()?;
        let mut entries = Vec::with_capacity(trims.len());
        for &(partition, start) in trims {
            match self.bounds(state, partition) {
                Ok((row, _)) if start.min(row.tail) > row.start => {
                    self.check_unshared(state, partition)?;
                    entries.push(Entry::Trim { partition, start: start.min(row.tail) });
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if entries.is_empty() {
            return Ok(None);
        }
        self.open.grew(entries.len() * TRIM_BYTES);
        self.open.room.pending += room_of(trims.len() * TRIM_BYTES);
        self.open.partition_entries.extend(entries);
        Ok(Some(self.open.outcome.subscribe()))
    }

    /// The committed bounds of a partition, and the end of what may be read.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub(crate) fn bounds(&mut self, state: &dyn StateStore, partition: Partition) -> Result<(PartitionRow, Offset)> {
        let tail = self.tail(state, partition)?;
        let shown = if planted!(ServedBeforeCommit) { tail.next } else { tail.shown };
        Ok((tail.committed, shown))
    }

    /// Whether all that was accepted is sealed.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.full.is_empty()
    }

    /// Whether a buffer is full.
    pub(crate) fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Whether the pipeline must look at what was just put in: as many wait as it asked for, or a buffer is full. It is
    /// told once; most appends need not wake it.
    pub(crate) fn is_news(&mut self) -> bool {
        let Some(look_at) = self.look_at else { return false };
        let news = self.open.waiting >= look_at || self.open.bytes >= self.slot_bytes || self.has_full();
        if news {
            self.look_at = None;
        }
        news
    }

    /// Takes the oldest buffer away to be sealed.
    pub(crate) fn take(&mut self) -> OpenBuffer {
        let next = self.open.sequence + 1;
        self.full.pop_front().unwrap_or_else(|| std::mem::replace(&mut self.open, OpenBuffer::new(next)))
    }

    fn grew_early(&mut self, partition: Partition, bytes: usize) {
        let OpenBuffer { sequence, early, .. } = &mut self.open;
        if early.since.is_none() {
            let now = Instant::now();
            early.since = Some(now);
            self.unstored.push_back((*sequence, now));
        }
        early.bytes += bytes;
        *early.batches.entry(partition).or_default() += 1;
    }

    fn check_running(&self) -> Result<()> {
        match &self.stopped {
            None => Ok(()),
            Some((kind, why)) => Err(Error::new(*kind, why.to_string())),
        }
    }

    /// Makes room for a partition that is not held, where there is none: a look at all of a million would hold them all.
    fn make_room(&mut self, partition: Partition) {
        if self.partitions.len() >= self.partitions_max && !self.partitions.contains_key(&partition) {
            self.forget_idle();
        }
    }

    fn tail(&mut self, state: &dyn StateStore, partition: Partition) -> Result<&mut PartitionTail> {
        if self.deleting.contains_key(&partition.topic) {
            return Err(no_partition(partition));
        }
        self.make_room(partition);
        match self.partitions.entry(partition) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let topic = machine::topic_row(state, partition.topic)?;
                topic.filter(|topic| partition.index.0 < topic.partitions).ok_or_else(|| no_partition(partition))?;
                let committed = machine::partition_row(state, partition)?.unwrap_or_default();
                let closed = stream_row(state, partition)?.closed.is_some();
                let own = fork_row(state, partition)?.lineage.own();
                Ok(entry.insert(PartitionTail { own, ..PartitionTail::of(committed, closed) }))
            }
        }
    }
}

impl PartitionTail {
    /// A partition of which nothing is given out that is not committed.
    fn of(committed: PartitionRow, closed: bool) -> Self {
        let PartitionRow { tail, last_timestamp, .. } = committed;
        Self { committed, shown: tail, held: tail, next: tail, last_timestamp, closed, closing: closed, own: Offset(0) }
    }
}

fn deleted_topic(entry: &Entry) -> Option<TopicId> {
    if let Entry::DeleteTopic { topic } = entry { Some(*topic) } else { None }
}

fn no_partition(partition: Partition) -> Error {
    Error::new(Kind::NotFound, format!("there is no partition {partition}"))
}

#[cfg(test)]
mod tests;
