//! How long records live, where in their stored form it stands, and which of a batch are past it.
//!
//! A time to live is the first header of its record, with an empty name, which no client can give a header, and milliseconds as
//! u64 as its value (ADR 21). A batch knows the shortest one in it, so that nobody looks at a clock for one without.

use std::num::NonZeroU64;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Batch, Reader, StoredBatch, take_header};
use crate::ids::{Offset, Timestamp};

/// Bytes of the header that holds a time to live.
pub(super) const TTL_HEADER_BYTES: usize = 4 + VALUE_BYTES as usize;
const VALUE_BYTES: u16 = 8;

/// Records of a batch, side by side, that are all past their time to live, or of which none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whether they are past it: nobody is to see them any more.
    pub expired: bool,
    /// The offset after the last of them.
    pub end: Offset,
}

impl Batch {
    /// Whether any of its records has a time to live.
    #[must_use]
    pub fn has_ttl(&self) -> bool {
        self.shortest_ttl.is_some()
    }
}

impl StoredBatch {
    /// How far the records from `from` on, which is in the batch, are alike. Looks at the clock only if one of the batch has a
    /// time to live, and at the records only if one of the batch may be past it.
    #[must_use]
    pub fn run_at(&self, from: Offset, now: impl FnOnce() -> Timestamp) -> Run {
        let live = Run { expired: false, end: self.next() };
        let Some(shortest) = self.batch.shortest_ttl else { return live };
        let now = now();
        if !self.is_past(Some(shortest), now) {
            return live;
        }
        let mut reader = Reader::new(&self.batch);
        let mut run: Option<Run> = None;
        for offset in self.base.0..self.next().0 {
            let (_, ttl) = reader.skip().expect("the form was checked when the batch was made");
            if offset < from.0 {
                continue;
            }
            let expired = self.is_past(ttl, now);
            let run = run.get_or_insert(Run { expired, end: Offset(offset) });
            if run.expired != expired {
                return *run;
            }
            run.end = Offset(offset).plus(1);
        }
        run.expect("the offset is in the batch")
    }

    /// The batch of its records from `from` on and before `end`, of which it has some. What is kept is shared, not copied.
    #[must_use]
    pub fn part(&self, from: Offset, end: Offset) -> Self {
        let place = |offset: Offset| u32::try_from(offset.0.saturating_sub(self.base.0)).expect("less than a count");
        let (skip, until) = (place(from), place(end.min(self.next())));
        assert!(skip < until, "a batch has at least one record");
        let mut reader = Reader::new(&self.batch);
        let mut pass = |records: u32| -> usize {
            let lens = (0..records).map(|_| reader.skip().expect("the form was checked when the batch was made").0);
            lens.sum()
        };
        let begin = pass(skip);
        let len = pass(until - skip);
        let chunks = cut(&self.batch.chunks, begin..begin + len);
        let batch = Batch::of_chunks(until - skip, chunks, self.batch.shortest_ttl);
        Self { base: self.base.plus(skip), timestamp: self.timestamp, batch }
    }

    fn is_past(&self, ttl: Option<NonZeroU64>, now: Timestamp) -> bool {
        ttl.is_some_and(|ttl| self.timestamp.0.saturating_add(ttl.get()) <= now.0)
    }
}

/// What stands at the bytes `range` of `chunks`.
fn cut(chunks: &[Bytes], range: Range<usize>) -> Vec<Bytes> {
    let (mut at, mut kept) = (0, Vec::with_capacity(chunks.len()));
    for chunk in chunks {
        let (begin, end) = (range.start.max(at), range.end.min(at + chunk.len()));
        if begin < end {
            kept.push(chunk.slice(begin - at..end - at));
        }
        at += chunk.len();
    }
    kept
}

pub(super) fn put_ttl(out: &mut BytesMut, ttl: NonZeroU64) {
    out.put_u16_le(0);
    out.put_u16_le(VALUE_BYTES);
    out.put_u64_le(ttl.get());
}

/// Takes the time to live off the front of headers, if it is there.
pub(super) fn take_ttl(headers: &mut &[u8]) -> Option<NonZeroU64> {
    let mut rest = *headers;
    let (name, value) = take_header(&mut rest)?;
    let ttl = NonZeroU64::new(u64::from_le_bytes(value.try_into().ok()?))?;
    name.is_empty().then(|| {
        *headers = rest;
        ttl
    })
}

/// The shorter of two times to live, of which there may be none.
pub(super) fn shorter(one: Option<NonZeroU64>, other: Option<NonZeroU64>) -> Option<NonZeroU64> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
