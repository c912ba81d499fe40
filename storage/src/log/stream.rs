//! The part of the façade for streams: append, close, or both, and topics that are made with what they begin with.

use super::{First, Log};
use crate::durability::Durability;
use crate::error::Result;
use crate::ids::{Offset, Partition, ProducerSeq, Timestamp};
use crate::record::Batch;
use crate::shard::changes::Change;
use crate::terms::StreamTerms;
use crate::wal::buffer::stream::Step;

/// What became of a step of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// The end of the stream after it; of a duplicate, now.
    pub tail: Offset,
    /// Records that were stored by this call: none by a duplicate, and by a closing alone.
    pub count: u32,
    /// Whether the stream is closed.
    pub closed: bool,
    /// Whether it had been done before: nothing was stored by this call.
    pub duplicate: bool,
    /// The highest sequence of the producer's epoch.
    pub highest: Option<ProducerSeq>,
    /// The server's time of the step.
    pub timestamp: Timestamp,
    /// The durability class that was reached; not a weaker one than was asked for.
    pub durability: Durability,
}

impl Log {
    /// Appends a batch, closes the stream, or both, in one entry of the log, if the terms hold, once. A closing is always of
    /// the class `object`. Cancel safe as [`Log::append`].
    ///
    /// # Errors
    /// `Invalid` for neither batch nor closing; `Refused` when a term does not hold or the stream is closed: nothing was
    /// stored by this call. `Busy` also when the partition can remember no more. Else as [`Log::append`]; the same step again
    /// settles one that is `Unknown`, if it has a producer.
    pub async fn step(
        &self,
        partition: Partition,
        batch: Option<Batch>,
        terms: &StreamTerms,
        class: Durability,
    ) -> Result<Stepped> {
        let count = batch.as_ref().map_or(0, Batch::count);
        let (accepted, durability) =
            self.inner.writer.step(Step::new(partition, self.now(), terms, class), batch).await?;
        Ok(Stepped {
            tail: accepted.tail,
            count: if accepted.duplicate { 0 } else { count },
            closed: accepted.closed,
            duplicate: accepted.duplicate,
            highest: accepted.highest,
            timestamp: accepted.timestamp,
            durability,
        })
    }

    /// Commits a change that makes a topic, and what the topic begins with, in one object. Gives its end. Cancel safe as
    /// [`Log::append`].
    ///
    /// # Errors
    /// `Invalid` when the change does not make the topic of what it begins with; else as [`Log::commit`].
    pub async fn create(&self, change: Change, first: First) -> Result<Offset> {
        self.inner.writer.create(&change, first, self.now()).await
    }
}
