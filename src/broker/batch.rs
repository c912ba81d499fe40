//! The wanted records of one stored batch, in whatever form a transport sends.

use std::sync::Arc;

use bytes::Bytes;
use plinth_storage::ids::{Offset, Partition};
use plinth_storage::record::StoredBatch;

use crate::render::Rendered;

/// Consecutive records of one partition: `take` records of a batch after its first `skip`.
#[derive(Clone)]
pub struct FollowedBatch {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Records of the batch before the first that is wanted.
    pub skip: u32,
    /// How many are wanted.
    pub take: u32,
    /// The whole batch as text.
    pub rendered: Arc<Rendered>,
    pub(crate) stored: Arc<StoredBatch>,
    pub(crate) place: Partition,
}

impl FollowedBatch {
    /// The offset of the first record.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.rendered.base + u64::from(self.skip)
    }

    /// How many records.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.take
    }

    /// About how many bytes the records have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.stored.batch.len() * self.take as usize / self.rendered.count as usize
    }

    /// Each record as JSON with a line end. Shared, not copied.
    #[must_use]
    pub fn ndjson(&self) -> Bytes {
        self.rendered.ndjson(self.skip, self.take)
    }

    /// The records as JSON with commas between them. Shared, not copied.
    #[must_use]
    pub fn json_items(&self) -> Bytes {
        self.rendered.json_items(self.skip, self.take)
    }

    /// The record `index`, counted from the first that is wanted, as JSON. Shared, not copied.
    #[must_use]
    pub fn record_json(&self, index: u32) -> Bytes {
        self.rendered.record_json(self.skip + index)
    }

    /// The payloads as they were published. Shared, not copied.
    pub fn payloads(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.stored.records().skip(self.skip as usize).take(self.take as usize).map(|record| record.payload)
    }

    /// Takes the first `count` records out, at most all; `self` keeps the rest.
    #[must_use]
    pub fn split_to(&mut self, count: u32) -> Self {
        let count = count.min(self.take);
        let first = Self { take: count, ..self.clone() };
        self.skip += count;
        self.take -= count;
        first
    }

    /// The offset after the first `taken` records.
    pub(crate) fn next_after(&self, taken: u32) -> Offset {
        Offset(self.base()).plus(taken)
    }
}
