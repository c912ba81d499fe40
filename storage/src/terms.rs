//! What an append may depend on, and what it is remembered by so that a repeated one is stored once.
//!
//! The terms are decided where offsets are given, over what is committed and what is about to be, and what is to be
//! remembered is committed in the same object as the batch: both or neither (ADR 11). An append without terms costs
//! nothing of this.

use bytes::Bytes;

use crate::ids::{FencingToken, Offset, Partition, ProducerEpoch, ProducerSeq, Timestamp};

/// Longest id of a producer, in bytes.
pub const PRODUCER_ID_BYTES_MAX: usize = 255;
/// Longest sequence of a stream, in bytes.
pub const STREAM_SEQ_BYTES_MAX: usize = 255;
/// Receipts that are kept of each producer and partition: so many of its last batches can be repeated.
pub const PRODUCER_RECEIPTS_MAX: usize = 64;
/// Most producers, and most idempotency keys, that one partition remembers; more are refused as `Busy`.
pub const REMEMBERED_MAX: u32 = 1_000_000;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// How long an idempotency key is remembered, by the times that the log stamps.
pub const IDEMPOTENCY_WINDOW: Window = Window { half_ms: 12 * HOUR_MS };
/// How long a producer is remembered after its last batch.
pub const PRODUCER_WINDOW: Window = Window { half_ms: 84 * HOUR_MS };

/// The terms of one append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What a repeated append is recognized by.
    pub once: Option<Once>,
    /// The offset that the first record must get.
    pub expected_tail: Option<Offset>,
    /// Must not be below the highest one that the partition has seen.
    pub fencing_token: Option<FencingToken>,
}

/// What one step of a stream depends on and changes, besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTerms {
    /// One batch of a producer. A sequence at or below its last one is a duplicate, however long ago that was stored.
    pub producer: Option<Producer>,
    /// Must be above the last one of the stream, by its bytes, and is remembered; 1 to 255 bytes.
    pub seq: Option<Bytes>,
    /// Whether nothing is appended after this step.
    pub close: bool,
}

/// What a repeated append is recognized by: it is stored once and answered with the first receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    /// A producer that counts its batches in this partition.
    Producer(Producer),
    /// A key that the caller never uses for other content.
    Key(IdempotencyKey),
}

/// One batch of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Names it within the partition; 1 to 255 bytes.
    pub id: Bytes,
    /// Its incarnation: a later one ends those before it.
    pub epoch: ProducerEpoch,
    /// The number of the batch within the epoch, from 0.
    pub seq: ProducerSeq,
}

/// A key for a request, whose records may be in several partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// A hash of the key.
    pub key: u128,
    /// A hash of all that the request is to store.
    pub content: u128,
    /// The partition that knows the key whichever partitions the records go to, so that other content is noticed.
    pub home: Partition,
}

/// A span of log time. What is remembered for it stands in buckets of half of it, which are dropped as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    half_ms: u64,
}

impl Window {
    /// Whether what was written at `since` is no longer remembered at `now`.
    pub(crate) fn is_over(self, since: Timestamp, now: Timestamp) -> bool {
        now.0.saturating_sub(since.0) >= 2 * self.half_ms
    }

    /// The bucket of a time.
    pub(crate) fn bucket(self, at: Timestamp) -> u32 {
        u32::try_from(at.0 / self.half_ms).unwrap_or(u32::MAX)
    }

    /// The buckets in which something that is remembered at a time can be, the newest first.
    pub(crate) fn buckets(self, at: Timestamp) -> impl Iterator<Item = u32> {
        let newest = self.bucket(at);
        (first_kept(newest)..=newest).rev()
    }
}

/// The first bucket that is still needed when `newest` is written to.
pub(crate) fn first_kept(newest: u32) -> u32 {
    newest.saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails when one bucket fewer is looked at, or a bucket is dropped that holds something of the window.
    #[test]
    fn what_is_within_the_window_is_in_one_of_its_buckets() {
        for window in [IDEMPOTENCY_WINDOW, PRODUCER_WINDOW] {
            let now = Timestamp(1_700_000_000_123);
            for age in [0, 1, window.half_ms - 1, window.half_ms, 2 * window.half_ms - 1] {
                let since = Timestamp(now.0 - age);
                assert!(!window.is_over(since, now));
                assert!(window.buckets(now).any(|bucket| bucket == window.bucket(since)), "{age}");
            }
            assert!(window.is_over(Timestamp(now.0 - 2 * window.half_ms), now));
        }
        assert_eq!(IDEMPOTENCY_WINDOW.half_ms * 2, 24 * HOUR_MS);
        assert_eq!(PRODUCER_WINDOW.half_ms * 2, 7 * 24 * HOUR_MS);
    }
}
