//! The part of the façade that appends: in a durability class, with terms.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::{Appended, Log, LogOptions};
use crate::durability::Durability;
use crate::error::Result;
use crate::ids::{ClusterId, Epoch, Partition, SessionId};
use crate::record::Batch;
use crate::shard::changes::Receipt;
use crate::spans;
use crate::terms::Terms;
use crate::wal::buffer::early::{Ack, At, Want};
use crate::wal::buffer::terms::Offer;
use crate::wal::journal::JournalTask;
use crate::wal::journal::files::{Files, Owner};
use crate::wal::writer::{Writer, WriterOptions};

/// A batch that has its place in the log and may not be stored yet.
#[must_use = "whether it is stored is only known after waiting for it"]
pub struct Placed {
    writer: Arc<Writer>,
    receipt: Receipt,
    ack: Ack,
}

impl Placed {
    /// Waits until it is committed. Cancel safe: who stops waiting does not undo it.
    ///
    /// # Errors
    /// `Unknown`: open. Else not stored.
    pub async fn stored(self) -> Result<Appended> {
        let reached = self.writer.acknowledged(self.ack).await?;
        Ok(appended(self.receipt, false, reached))
    }
}

impl Log {
    /// Appends a batch and returns when it is committed. Cancel safe: a dropped call may still store the batch.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition, `Busy`, `Unavailable`, `Fenced`, `Closed`: not stored; `Unknown`: open.
    pub async fn append(&self, partition: Partition, batch: Batch) -> Result<Appended> {
        self.append_as(partition, batch, Durability::Object).await
    }

    /// Appends a batch if its terms hold, once: the same append again waits for the first and has its place, whatever
    /// its batch holds. Cancel safe as [`Log::append`]. A loss of a weaker class takes what is remembered along.
    ///
    /// # Errors
    /// `Refused` when a term does not hold: nothing was stored by this call. `Busy` also when the partition can remember
    /// no more. Else as [`Log::append`]; the same append again settles one that is `Unknown`.
    pub async fn append_if(
        &self,
        partition: Partition,
        batch: Batch,
        terms: &Terms,
        class: Durability,
    ) -> Result<Appended> {
        let want = Want { durability: class, away: false };
        let offer = Offer { partition, terms, now: self.now(), want };
        let (receipt, duplicate, reached) = self.inner.writer.append_if(offer, batch).await?;
        Ok(appended(receipt, duplicate, reached))
    }

    /// Appends a batch and returns when it has reached a durability class, or a stronger one. Cancel safe as
    /// [`Log::append`].
    ///
    /// # Errors
    /// As [`Log::append`]. `Busy` also when too much is acknowledged and not stored.
    pub async fn append_as(&self, partition: Partition, batch: Batch, class: Durability) -> Result<Appended> {
        let at = At { partition, now: self.now(), want: Want { durability: class, away: false } };
        let (receipt, reached) = self.inner.writer.append(at, batch).await?;
        Ok(appended(receipt, false, reached))
    }

    /// Puts a batch into the order of the log and returns before it is stored. What the log is given after that, by whomever,
    /// is stored only if this batch is: a slot is committed only after all slots before it. Cancel safe as [`Log::append`].
    ///
    /// # Errors
    /// As [`Log::append`], but that none of them is `Unknown`: not stored.
    pub async fn place(&self, partition: Partition, batch: Batch) -> Result<Placed> {
        let at = At { partition, now: self.now(), want: Want { durability: Durability::Object, away: false } };
        let span = spans::append(partition, &batch);
        let (receipt, ack) = self.inner.writer.submit(at, batch, &span).await?;
        Ok(Placed { writer: Arc::clone(&self.inner.writer), receipt, ack })
    }

    /// Whether a topic may be given a durability class on this node now: `local` needs a cache directory that can be written.
    #[must_use]
    pub fn offers(&self, class: Durability) -> bool {
        match class {
            Durability::Memory | Durability::Object => true,
            Durability::Local => self.inner.writer.journal().is_some_and(|journal| journal.is_usable()),
        }
    }

    /// Begins the journal of this session. Without one, records of the class `local` wait until they are stored.
    pub(super) async fn begin_journal(&self, dir: PathBuf, owner: Owner, lock: Option<Arc<File>>) {
        let writer = &self.inner.writer;
        let Some(journal) = writer.journal() else { return };
        let shown = dir.display().to_string();
        match tokio::task::spawn_blocking(move || Files::create(&dir, owner, lock)).await {
            Ok(Ok(files)) => {
                let task = JournalTask { journal: Arc::clone(journal), files, shards: writer.shards() };
                let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(tasks) = tasks.as_mut() {
                    tasks.spawn(task.run(Arc::clone(writer)));
                    journal.begin();
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(dir = shown, %error, "there is no journal, the class local is not offered")
            }
            Err(error) => tracing::warn!(dir = shown, %error, "the journal was not begun"),
        }
    }
}

fn appended(receipt: Receipt, duplicate: bool, durability: Durability) -> Appended {
    let Receipt { base, count, timestamp } = receipt;
    Appended { base, count, timestamp, duplicate, durability }
}

/// What the writer needs of the options.
pub(super) fn writer_options(
    options: &LogOptions,
    cluster: ClusterId,
    (session, epoch): (SessionId, Epoch),
    shards: u16,
) -> WriterOptions {
    WriterOptions {
        cluster,
        session,
        epoch,
        shards,
        slot_bytes: options.slot_bytes,
        flush_interval: options.flush_interval,
        in_flight_max: options.in_flight_max,
        pending_bytes_max: options.pending_bytes_max,
        unstored_bytes_max: options.unstored_bytes_max,
        unstored_age_max: options.unstored_age_max,
        append_timeout: options.append_timeout,
        fence_check_interval: options.fence_check_interval,
    }
}
