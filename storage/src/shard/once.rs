//! What a partition remembers of its producers, idempotency keys and fencing tokens: rows, and how entries change them.
//!
//! Rows stand in buckets of log time (`terms.rs`). A partition that comes to a new bucket drops those that nothing can
//! need any more, by one range each: what a batch stamped is all that decides, never a clock, so every replay comes to
//! the same rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{FencingToken, Offset, Partition, ProducerEpoch, ProducerSeq, Timestamp};
use crate::layout;
use crate::shard::changes::{Entry, Receipt};
use crate::shard::rows::Row;
use crate::shard::stream::{StreamRow, stream_row};
use crate::state::{StateOp, StateStore};
use crate::terms::{IDEMPOTENCY_WINDOW, PRODUCER_RECEIPTS_MAX, PRODUCER_WINDOW, first_kept};

const VERSION: u8 = 1;

/// The last batches of one producer in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    pub(crate) epoch: ProducerEpoch,
    pub(crate) last: ProducerSeq,
    /// Those of the sequences up to `last`, without a hole; at least one.
    receipts: Vec<Receipt>,
}

/// A request with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) content: u128,
    /// With a `count` of 0 its records are in other partitions.
    pub(crate) receipt: Receipt,
}

/// What a partition remembers besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TermsRow {
    pub(crate) token: FencingToken,
    pub(crate) producers: Tally,
    pub(crate) keys: Tally,
}

/// How many rows stand in each bucket, counted back from the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    newest: u32,
    counts: [u32; 3],
}

impl ProducerRow {
    /// A producer of which only one batch is known.
    pub(crate) fn first(epoch: ProducerEpoch, seq: ProducerSeq, receipt: Receipt) -> Self {
        Self { epoch, last: seq, receipts: vec![receipt] }
    }

    /// The row after one more batch. One that does not continue the sequence begins it anew: whether it may was decided
    /// before it was committed.
    pub(crate) fn after(mut self, epoch: ProducerEpoch, seq: ProducerSeq, receipt: Receipt) -> Self {
        if (epoch, seq) != (self.epoch, self.last.next()) {
            return Self::first(epoch, seq, receipt);
        }
        if self.receipts.len() >= PRODUCER_RECEIPTS_MAX {
            self.receipts.remove(0);
        }
        self.last = seq;
        self.receipts.push(receipt);
        self
    }

    /// The receipt of a batch of the current epoch, if it is still known.
    pub(crate) fn receipt(&self, seq: ProducerSeq) -> Option<Receipt> {
        let back = usize::try_from(self.last.0.checked_sub(seq.0)?).ok()?;
        self.receipts.iter().rev().nth(back).copied()
    }

    /// The newest receipt.
    pub(crate) fn newest(&self) -> Receipt {
        *self.receipts.last().expect("a producer is known by at least one batch")
    }

    /// The stored form: numbers that are mostly small, so that a producer costs a few bytes per receipt.
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + 6 * self.receipts.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.epoch.0);
        out.put_u64_le(self.last.0);
        let mut before = Receipt { base: Offset(0), count: 0, timestamp: Timestamp(0) };
        for receipt in &self.receipts {
            put_varint(&mut out, receipt.base.0 - before.base.0 - u64::from(before.count));
            put_varint(&mut out, u64::from(receipt.count));
            put_varint(&mut out, receipt.timestamp.0 - before.timestamp.0);
            before = *receipt;
        }
        out.freeze()
    }

    fn parse(mut bytes: Bytes) -> Result<Self> {
        let broken = || Error::new(Kind::Corrupt, "producer row in the state store is broken");
        if bytes.len() < 18 || bytes.get_u8() != VERSION {
            return Err(broken());
        }
        let (epoch, last) = (ProducerEpoch(bytes.get_u64_le()), ProducerSeq(bytes.get_u64_le()));
        let mut receipts = Vec::new();
        let mut before = Receipt { base: Offset(0), count: 0, timestamp: Timestamp(0) };
        while !bytes.is_empty() {
            let mut next = || get_varint(&mut bytes).ok_or_else(broken);
            let (gap, count, later) = (next()?, next()?, next()?);
            let base = before.base.plus(before.count).0.checked_add(gap);
            let timestamp = before.timestamp.0.checked_add(later);
            before = Receipt {
                base: Offset(base.ok_or_else(broken)?),
                count: u32::try_from(count).map_err(|_| broken())?,
                timestamp: Timestamp(timestamp.ok_or_else(broken)?),
            };
            receipts.push(before);
        }
        if receipts.is_empty() { Err(broken()) } else { Ok(Self { epoch, last, receipts }) }
    }
}

impl Row for KeyRow {
    const NAME: &'static str = "idempotency key row";
    const LEN: usize = 16 + Receipt::LEN;

    fn put(&self, out: &mut BytesMut) {
        out.put_u128_le(self.content);
        self.receipt.write(out);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self { content: bytes.get_u128_le(), receipt: Receipt::read(bytes) }
    }
}

impl Row for TermsRow {
    const NAME: &'static str = "terms row";
    const LEN: usize = 8 + 2 * Tally::LEN;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.token.0);
        self.producers.write(out);
        self.keys.write(out);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self { token: FencingToken(bytes.get_u64_le()), producers: Tally::read(bytes), keys: Tally::read(bytes) }
    }
}

impl Tally {
    const LEN: usize = 16;

    /// How many rows there are that may still be needed when `bucket` is written to.
    pub(crate) fn needed(&self, bucket: u32) -> u32 {
        let back = |index: usize| self.newest.saturating_sub(u32::try_from(index).expect("there are three"));
        let needed = (0..self.counts.len()).filter(|index| back(*index) >= first_kept(bucket));
        needed.map(|index| self.counts[index]).sum()
    }

    /// Counts a row in. True when the bucket is a new one.
    fn add(&mut self, bucket: u32) -> bool {
        let moved = bucket.saturating_sub(self.newest) as usize;
        if moved > 0 {
            self.counts.rotate_right(moved.min(3));
            self.counts[..moved.min(3)].fill(0);
            self.newest = bucket;
        }
        if let Some(count) = self.counts.get_mut((self.newest - bucket) as usize) {
            *count += 1;
        }
        moved > 0
    }

    /// Counts a row out.
    fn remove(&mut self, bucket: u32) {
        let index = self.newest.checked_sub(bucket).map(|back| back as usize);
        if let Some(count) = index.and_then(|index| self.counts.get_mut(index)) {
            *count = count.saturating_sub(1);
        }
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.newest);
        self.counts.iter().for_each(|count| out.put_u32_le(*count));
    }

    fn read(bytes: &mut Bytes) -> Self {
        Self { newest: bytes.get_u32_le(), counts: std::array::from_fn(|_| bytes.get_u32_le()) }
    }
}

/// What a partition remembers besides its producers and keys.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn terms_row(state: &dyn StateStore, partition: Partition) -> Result<TermsRow> {
    Ok(state.get(&layout::terms_key(partition))?.map(TermsRow::parse).transpose()?.unwrap_or_default())
}

/// A producer as it is remembered at a time, with its bucket.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn producer_row(
    get: impl Fn(&[u8]) -> Result<Option<Bytes>>,
    partition: Partition,
    id: &[u8],
    at: Timestamp,
) -> Result<Option<(u32, ProducerRow)>> {
    for bucket in PRODUCER_WINDOW.buckets(at) {
        if let Some(value) = get(&layout::producer_key(partition, bucket, id))? {
            return Ok(Some((bucket, ProducerRow::parse(value)?)));
        }
    }
    Ok(None)
}

/// An idempotency key as it is remembered at a time.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn key_row(
    state: &dyn StateStore,
    partition: Partition,
    key: u128,
    at: Timestamp,
) -> Result<Option<KeyRow>> {
    for bucket in IDEMPOTENCY_WINDOW.buckets(at) {
        if let Some(value) = state.get(&layout::idempotency_key(partition, bucket, key))? {
            let row = KeyRow::parse(value)?;
            return Ok((!IDEMPOTENCY_WINDOW.is_over(row.receipt.timestamp, at)).then_some(row));
        }
    }
    Ok(None)
}

/// Applies the entries of one slot that partitions remember.
pub(crate) struct Remember<'a> {
    state: &'a dyn StateStore,
    /// What the slot has written so far.
    written: HashMap<Bytes, Bytes>,
    terms: HashMap<Partition, TermsRow>,
    streams: HashMap<Partition, StreamRow>,
    ops: Vec<StateOp>,
}

impl<'a> Remember<'a> {
    pub(crate) fn new(state: &'a dyn StateStore) -> Self {
        Self { state, written: HashMap::new(), terms: HashMap::new(), streams: HashMap::new(), ops: Vec::new() }
    }

    /// Applies one entry; entries of the catalog are not its own.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Produced { partition, id, epoch, seq, receipt } => {
                self.produced(*partition, id, (*epoch, *seq), *receipt)
            }
            Entry::Keyed { partition, key, content, receipt } => self.keyed(*partition, *key, *content, *receipt),
            Entry::Fenced { partition, token } => {
                let terms = self.terms(*partition)?;
                terms.token = terms.token.max(*token);
                Ok(())
            }
            Entry::StreamStep { partition, step } => self.stepped(*partition, step),
            Entry::PutDocument { .. }
            | Entry::DeleteDocument { .. }
            | Entry::CreateTopic { .. }
            | Entry::DeleteTopic { .. }
            | Entry::ForkTopic { .. }
            | Entry::Acquire { .. }
            | Entry::SetRetention { .. }
            | Entry::SetCleanup { .. }
            | Entry::Trim { .. }
            | Entry::Link(_)
            | Entry::Cleaned(_)
            | Entry::Gap { .. }
            | Entry::Reserve { .. } => Ok(()),
        }
    }

    /// The changes of the state.
    pub(crate) fn finish(mut self) -> Vec<StateOp> {
        self.ops.extend(self.written.into_iter().map(|(key, value)| StateOp::Put(key, value)));
        let terms = self.terms.into_iter();
        self.ops.extend(terms.map(|(partition, row)| StateOp::Put(layout::terms_key(partition), row.encode())));
        let streams = self.streams.into_iter();
        self.ops.extend(streams.map(|(partition, row)| StateOp::Put(layout::stream_key(partition), row.encode())));
        self.ops
    }

    fn produced(
        &mut self,
        partition: Partition,
        id: &Bytes,
        (epoch, seq): (ProducerEpoch, ProducerSeq),
        receipt: Receipt,
    ) -> Result<()> {
        let before = producer_row(|key| self.get(key), partition, id, receipt.timestamp)?;
        let bucket = PRODUCER_WINDOW.bucket(receipt.timestamp);
        let stays = before.as_ref().is_some_and(|(at, _)| *at == bucket);
        if let Some((at, _)) = before.as_ref().filter(|_| !stays) {
            let old = layout::producer_key(partition, *at, id);
            self.written.remove(&old);
            self.ops.push(StateOp::Delete(old));
            self.terms(partition)?.producers.remove(*at);
        }
        if !stays && self.terms(partition)?.producers.add(bucket) {
            let (from, to) = layout::producers_before(partition, first_kept(bucket));
            self.ops.push(StateOp::DeleteRange(from, to));
        }
        let row = match before {
            Some((_, row)) => row.after(epoch, seq, receipt),
            None => ProducerRow::first(epoch, seq, receipt),
        };
        self.written.insert(layout::producer_key(partition, bucket, id), row.encode());
        Ok(())
    }

    fn keyed(&mut self, partition: Partition, key: u128, content: u128, receipt: Receipt) -> Result<()> {
        let bucket = IDEMPOTENCY_WINDOW.bucket(receipt.timestamp);
        let place = layout::idempotency_key(partition, bucket, key);
        if self.get(&place)?.is_none() && self.terms(partition)?.keys.add(bucket) {
            let (from, to) = layout::idempotency_keys_before(partition, first_kept(bucket));
            self.ops.push(StateOp::DeleteRange(from, to));
        }
        self.written.insert(place, KeyRow { content, receipt }.encode());
        Ok(())
    }

    fn stepped(&mut self, partition: Partition, step: &StreamRow) -> Result<()> {
        let row = match self.streams.remove(&partition) {
            Some(row) => row,
            None => stream_row(self.state, partition)?,
        };
        self.streams.insert(partition, row.after(step));
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.written.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None => self.state.get(key),
        }
    }

    fn terms(&mut self, partition: Partition) -> Result<&mut TermsRow> {
        match self.terms.entry(partition) {
            MapEntry::Occupied(entry) => Ok(entry.into_mut()),
            MapEntry::Vacant(entry) => Ok(entry.insert(terms_row(self.state, partition)?)),
        }
    }
}

/// LEB128.
fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.put_u8(number.to_le_bytes()[0]);
}

fn get_varint(bytes: &mut Bytes) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        if bytes.is_empty() {
            return None;
        }
        let byte = bytes.get_u8();
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests;
