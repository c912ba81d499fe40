//! The journal: records of the class `local` are here, on the owner's disk, before they are in the bucket (ADR 18).
//!
//! A cache directory that fails makes the class slower, never weaker: what the journal does not take waits for its slot.
//! One task writes; one sync serves all who wait. What it may hold is bounded by the writer's room.

pub(crate) mod files;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ids::Partition;
use crate::record::StoredBatch;
use crate::shard::changes::Entry;
use crate::wal::blocks::BodyBuilder;
use crate::wal::journal::files::{Files, Frame};
use crate::wal::writer::Writer;
use crate::watch;

/// A batch on its way to the journal.
#[derive(Clone, Debug)]
pub(crate) struct Journaled {
    /// Counts up.
    pub(crate) number: u64,
    /// The buffer that it is stored with.
    pub(crate) buffer: u64,
    pub(crate) partition: Partition,
    pub(crate) batch: Arc<StoredBatch>,
    /// What partitions are to remember of it.
    pub(crate) entries: Vec<Entry>,
}

/// The side of the journal that the writer uses.
#[derive(Debug)]
pub(crate) struct Journal {
    waiting: Mutex<Vec<Journaled>>,
    wake: Notify,
    usable: AtomicBool,
    /// The number of the last batch that is on the disk.
    synced: watch::Sender<u64>,
    /// Buffers below this one are committed.
    committed: AtomicU64,
}

/// The task that writes the journal.
pub(crate) struct JournalTask {
    pub(crate) journal: Arc<Journal>,
    pub(crate) files: Files,
    pub(crate) shards: u16,
}

impl Journal {
    /// A journal that takes nothing until [`Journal::begin`].
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            usable: AtomicBool::new(false),
            synced: watch::channel(0).0,
            committed: AtomicU64::new(0),
        }
    }

    /// Takes batches from now on.
    pub(crate) fn begin(&self) {
        self.usable.store(true, Ordering::Release);
    }

    /// Whether it takes batches.
    pub(crate) fn is_usable(&self) -> bool {
        self.usable.load(Ordering::Acquire)
    }

    /// Takes a batch; those of one partition come in the order of their offsets. One that comes after the end is dropped:
    /// it waits for its slot.
    pub(crate) fn push(&self, batch: Journaled) {
        if self.is_usable() {
            self.waiting().push(batch);
            self.wake.notify_one();
        }
    }

    /// Resolves when the batch of this number is on the disk; never when it does not get there. Cancel safe.
    pub(crate) async fn has(&self, number: u64) {
        let mut synced = self.synced.subscribe();
        let there = synced.wait_for(|synced| *synced >= number).await;
        there.expect("self holds the sender");
    }

    /// The buffer `sequence` is committed: the journal need not keep what is in it.
    pub(crate) fn committed(&self, sequence: u64) {
        self.committed.store(sequence + 1, Ordering::Release);
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<Journaled> {
        std::mem::take(&mut *self.waiting())
    }

    /// Takes nothing any more; what waits for it waits for its slot.
    fn end(&self) {
        self.usable.store(false, Ordering::Release);
        self.take();
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Journaled>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalTask {
    /// Writes what comes until the log takes nothing more or the disk fails. Then the journal takes nothing more.
    pub(crate) async fn run(self, writer: Arc<Writer>) {
        let journal = Arc::clone(&self.journal);
        self.write(&writer).await;
        journal.end();
    }

    async fn write(self, writer: &Writer) {
        let Self { journal, mut files, shards } = self;
        loop {
            tokio::select! {
                biased;
                _ = writer.stopped() => return,
                () = journal.wake.notified() => {}
            }
            let batches = journal.take();
            let committed = journal.committed.load(Ordering::Acquire);
            if batches.is_empty() && !files.has_ended() {
                continue;
            }
            let to_write = batches.clone();
            let written = tokio::task::spawn_blocking(move || {
                let frames = to_write.iter().map(|batch| frame(batch, shards));
                let written = files.append(frames);
                files.remove_committed(committed);
                (files, written)
            });
            let Ok((returned, written)) = written.await else { return };
            files = returned;
            match (written, batches.last()) {
                (Ok(()), Some(last)) => {
                    // First readable, then acknowledged.
                    writer.journaled(&batches);
                    journal.synced.send_replace(last.number);
                }
                (Ok(()), None) => {}
                (Err(error), _) => {
                    tracing::warn!(%error, "the journal cannot be written, records of class local wait for the object store");
                    return;
                }
            }
        }
    }
}

/// The stored form of a batch and what is to be remembered of it: that of a slot's body.
fn frame(journaled: &Journaled, shards: u16) -> Frame {
    let mut body = BodyBuilder::default();
    body.records(journaled.partition.shard(shards), journaled.partition, &journaled.batch);
    for (shard, changes) in Entry::encode_by_shard(&journaled.entries, shards) {
        body.changes(shard, &changes, journaled.batch.timestamp);
    }
    Frame { buffer: journaled.buffer, body: body.finish() }
}

#[cfg(test)]
mod tests;
