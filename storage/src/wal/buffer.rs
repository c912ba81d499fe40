//! The open buffer: what has been accepted and not yet sealed into a slot, and what callers must already see of it.
//!
//! All of it stands under one short lock. It knows nothing of the store.

pub(crate) mod terms;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, Timestamp, TopicId};
use crate::layout;
use crate::record::{Batch, StoredBatch};
use crate::segment::link::Link;
use crate::shard::changes::{Change, Entry, Guard};
use crate::shard::machine;
use crate::shard::rows::PartitionRow;
use crate::state::StateStore;
use crate::terms::REMEMBERED_MAX;

/// What is known of the slot that an append or a change went into.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Pending,
    Committed,
    Failed(Kind, Arc<str>),
}

/// Idle partitions are forgotten past this number; they are read from the state store again when they are needed.
const PARTITIONS_KEPT_MAX: usize = 200_000;
/// What a batch costs in the buffer besides its bytes.
const BATCH_OVERHEAD_BYTES: usize = 128;

const PERMIT_BYTES: usize = 1024;

/// How many permits of the writer's room so many bytes take.
pub(crate) fn room_of(bytes: usize) -> usize {
    bytes.div_ceil(PERMIT_BYTES).max(1)
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
    /// Permits of the writer's room that are given back when the outcome is known.
    pub(crate) room: usize,
    pub(crate) opened: Option<Instant>,
    pub(crate) outcome: watch::Sender<Outcome>,
}

/// A partition as its owner sees it: what is committed and what is given out.
#[derive(Clone, Copy, Debug)]
struct PartitionTail {
    committed: PartitionRow,
    next: Offset,
    last_timestamp: Timestamp,
}

/// Everything that is decided under the lock.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) open: OpenBuffer,
    pub(crate) stopped: Option<(Kind, Arc<str>)>,
    partitions: HashMap<Partition, PartitionTail>,
    pending_docs: HashMap<Bytes, Vec<(u64, Option<Bytes>)>>,
    deleting: HashMap<TopicId, u64>,
    remembered: terms::Pending,
    remembered_max: u32,
}

/// A place that was given and the slot's outcome to wait for.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) base: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) outcome: watch::Receiver<Outcome>,
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
            room: 0,
            opened: None,
            outcome: watch::channel(Outcome::Pending).0,
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
            stopped: None,
            partitions: HashMap::new(),
            pending_docs: HashMap::new(),
            deleting: HashMap::new(),
            remembered: terms::Pending::default(),
            remembered_max: REMEMBERED_MAX,
        }
    }

    /// Gives a batch its place.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition; the reason of the stop after one.
    pub(crate) fn append(
        &mut self,
        state: &dyn StateStore,
        partition: Partition,
        batch: Batch,
        now: Timestamp,
    ) -> Result<Submitted> {
        self.check_running()?;
        let tail = self.tail(state, partition)?;
        let base = tail.next;
        let timestamp = now.max(tail.last_timestamp);
        tail.next = base.plus(batch.count());
        tail.last_timestamp = timestamp;
        self.open.grew(batch.len() + BATCH_OVERHEAD_BYTES);
        self.open.room += room_of(batch.len());
        let stored = Arc::new(StoredBatch { base, timestamp, batch });
        self.open.groups.entry(partition).or_default().push(stored);
        Ok(Submitted { base, timestamp, outcome: self.open.outcome.subscribe() })
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
        self.put_entries(change.entries());
        self.open.room += room_of(change.len());
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
                Entry::DeleteTopic { topic } => {
                    self.deleting.insert(*topic, sequence);
                }
                Entry::CreateTopic { .. }
                | Entry::Acquire { .. }
                | Entry::Produced { .. }
                | Entry::Keyed { .. }
                | Entry::Fenced { .. }
                | Entry::Link(_) => {}
            }
        }
        self.open.entries.extend(entries);
        self.open.grew(self.open.changes.len() - before);
    }

    /// Accepts links without a condition; each is committed in the shard of its partitions.
    ///
    /// # Errors
    /// The reason of the stop after one.
    pub(crate) fn put_links(&mut self, links: Vec<Link>) -> Result<watch::Receiver<Outcome>> {
        self.check_running()?;
        let bytes = links.iter().map(|link| link.value().len()).sum();
        self.open.partition_entries.extend(links.into_iter().map(Entry::Link));
        self.open.grew(bytes);
        Ok(self.open.outcome.subscribe())
    }

    /// The committed bounds of a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub(crate) fn committed(&mut self, state: &dyn StateStore, partition: Partition) -> Result<PartitionRow> {
        self.tail(state, partition).map(|tail| tail.committed)
    }

    /// Takes the open buffer away to be sealed.
    pub(crate) fn take(&mut self) -> OpenBuffer {
        let next = OpenBuffer::new(self.open.sequence + 1);
        std::mem::replace(&mut self.open, next)
    }

    /// Notes that the buffer `sequence` is committed and applied.
    pub(crate) fn committed_up_to(&mut self, sequence: u64, rows: &[(Partition, PartitionRow)], entries: &[Entry]) {
        for (partition, row) in rows {
            if let Some(tail) = self.partitions.get_mut(partition) {
                tail.committed = *row;
            }
        }
        for entry in entries {
            match entry {
                Entry::PutDocument { key, .. } | Entry::DeleteDocument { key } => self.settle(key, |s| s > sequence),
                Entry::DeleteTopic { topic } => {
                    self.deleting.remove(topic);
                    self.partitions.retain(|partition, _| partition.topic != *topic);
                }
                Entry::Produced { .. } | Entry::Keyed { .. } | Entry::Fenced { .. } => {
                    self.remembered.settle(entry, |s| s > sequence);
                }
                Entry::CreateTopic { .. } | Entry::Acquire { .. } | Entry::Link(_) => {}
            }
        }
        if self.partitions.len() > PARTITIONS_KEPT_MAX {
            self.partitions.retain(|_, tail| tail.next != tail.committed.tail);
        }
    }

    /// Undoes what the open buffer did: its offsets are free again. Gives the buffer so that its waiters can be told.
    pub(crate) fn undo_open(&mut self) -> OpenBuffer {
        let open = self.take();
        for (partition, batches) in &open.groups {
            if let (Some(tail), Some(first)) = (self.partitions.get_mut(partition), batches.first()) {
                tail.next = first.base;
            }
        }
        for entry in open.entries.iter().chain(&open.partition_entries) {
            match entry {
                Entry::PutDocument { key, .. } | Entry::DeleteDocument { key } => {
                    self.settle(key, |s| s != open.sequence);
                }
                Entry::DeleteTopic { topic } => {
                    self.deleting.remove(topic);
                }
                Entry::Produced { .. } | Entry::Keyed { .. } | Entry::Fenced { .. } => {
                    self.remembered.settle(entry, |s| s != open.sequence);
                }
                Entry::CreateTopic { .. } | Entry::Acquire { .. } | Entry::Link(_) => {}
            }
        }
        open
    }

    /// The value of a document as the next change would find it.
    fn document(&self, state: &dyn StateStore, key: &Bytes) -> Result<Option<Bytes>> {
        match self.pending_docs.get(key).and_then(|pending| pending.last()) {
            Some((_, value)) => Ok(value.clone()),
            None => state.get(&layout::document_key(key)),
        }
    }

    fn check(&self, state: &dyn StateStore, guard: &Guard) -> Result<()> {
        let (holds, what) = match guard {
            Guard::Absent(key) => (self.document(state, key)?.is_none(), "is already there"),
            Guard::Present(key) => (self.document(state, key)?.is_some(), "is not there"),
            Guard::Equals(key, value) => (self.document(state, key)?.as_ref() == Some(value), "has changed"),
        };
        if holds {
            Ok(())
        } else {
            Err(Error::new(Kind::Conflict, format!("a document that the change builds on {what}")))
        }
    }

    fn check_running(&self) -> Result<()> {
        match &self.stopped {
            None => Ok(()),
            Some((kind, why)) => Err(Error::new(*kind, why.to_string())),
        }
    }

    fn tail(&mut self, state: &dyn StateStore, partition: Partition) -> Result<&mut PartitionTail> {
        if self.deleting.contains_key(&partition.topic) {
            return Err(no_partition(partition));
        }
        match self.partitions.entry(partition) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let topic = machine::topic_row(state, partition.topic)?;
                topic.filter(|topic| partition.index.0 < topic.partitions).ok_or_else(|| no_partition(partition))?;
                let committed = machine::partition_row(state, partition)?.unwrap_or_default();
                let last_timestamp = committed.last_timestamp;
                Ok(entry.insert(PartitionTail { committed, next: committed.tail, last_timestamp }))
            }
        }
    }

    fn pend(&mut self, key: &Bytes, sequence: u64, value: Option<Bytes>) {
        self.pending_docs.entry(key.clone()).or_default().push((sequence, value));
    }

    fn settle(&mut self, key: &Bytes, keep: impl Fn(u64) -> bool) {
        if let Some(pending) = self.pending_docs.get_mut(key) {
            pending.retain(|(sequence, _)| keep(*sequence));
            if pending.is_empty() {
                self.pending_docs.remove(key);
            }
        }
    }
}

fn no_partition(partition: Partition) -> Error {
    Error::new(Kind::NotFound, format!("there is no partition {partition}"))
}

#[cfg(test)]
mod tests;
