//! The part of the façade that deletes records: a start that moves (ADR 12).

use super::{Bounds, Log};
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition};

impl Log {
    /// Keeps of a partition only the records from `before` on, and gives its bounds after that. A start never goes back:
    /// below it nothing happens. What is acknowledged and not committed yet stays. Cancel safe as [`Log::append`].
    ///
    /// # Errors
    /// `OutOfRange` above the tail, `NotFound` when there is no such partition, else as [`Log::append`].
    pub async fn trim(&self, partition: Partition, before: Offset) -> Result<Bounds> {
        let tail = self.bounds(partition)?.tail;
        if before > tail {
            return Err(Error::new(Kind::OutOfRange, format!("offset {before} is above the tail, which is {tail}")));
        }
        self.inner.writer.trim(&[(partition, before)]).await?;
        self.bounds(partition)
    }
}
