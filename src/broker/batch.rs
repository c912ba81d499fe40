//! The wanted records of one stored batch, in whatever form a transport sends.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use plinth_api::batch::FrameHead;
use plinth_storage::ids::{Offset, Partition, TenantId};
use plinth_storage::record::StoredBatch;

use super::Broker;
use super::catalog::Topic;
use crate::render::{Rendered, Scene, StreamForm, StreamKey};

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
    pub(crate) stored: Arc<StoredBatch>,
    pub(crate) place: Partition,
    broker: Broker,
    tenant: TenantId,
    /// Whether the text is kept for other readers.
    keep: bool,
    /// The whole batch as text, made when it is first asked for.
    text: OnceLock<Arc<Rendered>>,
}

impl FollowedBatch {
    /// All records of `stored`; their text is kept for other readers when `keep`.
    pub(super) fn whole(
        broker: &Broker,
        topic: &Arc<Topic>,
        place: Partition,
        stored: Arc<StoredBatch>,
        keep: bool,
    ) -> Self {
        Self {
            topic: Arc::clone(&topic.name),
            partition: place.index.0,
            skip: 0,
            take: stored.batch.count(),
            stored,
            place,
            broker: broker.clone(),
            tenant: topic.tenant,
            keep,
            text: OnceLock::new(),
        }
    }

    /// Only its records from `from` on and before `end`.
    pub(super) fn within(self, from: Offset, end: Offset) -> Self {
        let place = |offset: Offset| u32::try_from(offset.0 - self.stored.base.0).expect("the offset is in the batch");
        let (skip, take) = (place(from), place(end) - place(from));
        Self { skip, take, ..self }
    }

    /// Whether its records after the first `taken` may all be delivered still.
    #[must_use]
    pub(crate) fn is_live_after(&self, taken: u32) -> bool {
        let run = self.stored.run_at(self.next_after(taken), || self.broker.log().now());
        !run.expired && run.end >= self.next_after(self.take)
    }

    /// The offset of the first record.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.stored.base.0 + u64::from(self.skip)
    }

    /// How many records.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.take
    }

    /// About how many bytes the records have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.stored.batch.len() * self.take as usize / self.stored.batch.count() as usize
    }

    /// How many bytes are held for it, whatever part of its batch is wanted.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        self.stored.batch.len() as u64
    }

    /// Each record as JSON with a line end. Shared, not copied.
    #[must_use]
    pub fn ndjson(&self) -> Bytes {
        self.rendered().ndjson(self.skip, self.take)
    }

    /// The records as JSON with commas between them. Shared, not copied.
    #[must_use]
    pub fn json_items(&self) -> Bytes {
        self.rendered().json_items(self.skip, self.take)
    }

    /// The record `index`, counted from the first that is wanted, as JSON. Shared, not copied.
    #[must_use]
    pub fn record_json(&self, index: u32) -> Bytes {
        self.rendered().record_json(self.skip + index)
    }

    /// The payloads as they were published. Shared, not copied.
    pub fn payloads(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.stored.records().skip(self.skip as usize).take(self.take as usize).map(|record| record.payload)
    }

    /// What stands before the whole batch when it is sent in its stored form.
    #[must_use]
    pub fn frame_head(&self) -> FrameHead {
        let StoredBatch { base, timestamp, batch } = &*self.stored;
        FrameHead {
            partition: self.partition,
            offset: base.0,
            count: batch.count(),
            timestamp: timestamp.0,
            body_bytes: u32::try_from(batch.len()).expect("a stored batch is far below 4 GiB"),
            body_crc: batch.crc(),
        }
    }

    /// The whole batch in its stored form, in pieces. Shared, not copied.
    #[must_use]
    pub fn stored_form(&self) -> &[Bytes] {
        self.stored.batch.chunks()
    }

    /// The wanted records in a form of streams, which `make` makes; made once for all who follow.
    pub(super) fn of_stream(&self, form: StreamForm, make: impl FnOnce() -> Bytes) -> Bytes {
        let key = StreamKey { partition: self.place, base: Offset(self.base()), count: self.take, form };
        self.broker.0.rendered.of_stream(&key, self.keep, make)
    }

    /// Whether others likely want the same.
    pub(super) fn is_shared(&self) -> bool {
        self.keep
    }

    /// Only its first `count` records, at most all.
    pub(super) fn first(self, count: u32) -> Self {
        Self { take: count.min(self.take), ..self }
    }

    /// Takes the first `count` records out, at most all; `self` keeps the rest.
    #[must_use]
    pub fn split_to(&mut self, count: u32) -> Self {
        let count = count.min(self.take);
        if (1..self.take).contains(&count) {
            // Once for both.
            self.rendered();
        }
        let first = Self { take: count, ..self.clone() };
        self.skip += count;
        self.take -= count;
        first
    }

    /// The offset after the first `taken` records.
    pub(crate) fn next_after(&self, taken: u32) -> Offset {
        Offset(self.base()).plus(taken)
    }

    /// The whole batch as text.
    pub(crate) fn rendered(&self) -> &Rendered {
        self.text.get_or_init(|| {
            let scene = Scene { cursors: *self.broker.cursors(), tenant: self.tenant, partition: self.place };
            self.broker.0.rendered.render(&self.topic, &scene, &self.stored, self.keep)
        })
    }
}
