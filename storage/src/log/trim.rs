//! The part of the façade that deletes records: a start that moves (ADR 12).

use super::{Bounds, Log};
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition};

impl Log {
    /// Keeps of partitions only the records from an offset on, and gives their bounds after that, in the same order. All of
    /// it is committed in one object. A start never goes back: below it nothing happens. What is acknowledged and not
    /// committed yet stays. Cancel safe as [`Log::append`].
    ///
    /// # Errors
    /// `OutOfRange` above a tail, `NotFound` when there is no such partition: nothing is trimmed. Else as [`Log::append`].
    pub async fn trim(&self, starts: &[(Partition, Offset)]) -> Result<Vec<Bounds>> {
        for &(partition, start) in starts {
            let tail = self.bounds(partition)?.tail;
            if start > tail {
                return Err(Error::new(Kind::OutOfRange, format!("offset {start} is above the tail, which is {tail}")));
            }
        }
        self.inner.writer.trim(starts).await?;
        starts.iter().map(|&(partition, _)| self.bounds(partition)).collect()
    }
}
