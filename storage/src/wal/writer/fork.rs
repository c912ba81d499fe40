//! The side of the writer that callers use, for forks and what is read of them.

use super::Writer;
use crate::error::Result;
use crate::ids::{Partition, TopicId};
use crate::wal::buffer::fork::Readable;

impl Writer {
    /// What may be read of a partition.
    pub(crate) fn readable(&self, partition: Partition) -> Result<Readable> {
        self.core().readable(&*self.parts.state, partition)
    }

    /// How many forks a topic has.
    pub(crate) fn forks(&self, topic: TopicId) -> Result<u32> {
        self.core().forks(&*self.parts.state, topic)
    }
}
