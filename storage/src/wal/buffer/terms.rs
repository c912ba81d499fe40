//! Appends with terms: what was accepted before is found again, what does not fit is refused, what is new is remembered
//! in the same object as its batch.
//!
//! Decided under the lock, over the committed state and what is pending, so two of the same at once are one append. The
//! state is read only for an append that has terms. A repeated append comes before every other term: it was stored,
//! whatever the tail or the token is by now.

use std::collections::HashMap;
use std::hash::Hash;

use bytes::Bytes;

use super::early::{Ack, At, Want};
use super::stream::PendingStep;
use super::{Core, Submitted};
use crate::error::{Error, Kind, Refusal, Result};
use crate::ids::{FencingToken, Partition, ProducerEpoch, ProducerSeq, Timestamp};
use crate::record::Batch;
use crate::shard::changes::{Entry, Receipt};
use crate::shard::once::{self, KeyRow, ProducerRow};
use crate::state::StateStore;
use crate::terms::{IDEMPOTENCY_WINDOW, IdempotencyKey, Once, PRODUCER_WINDOW, Producer, Terms};

/// What an entry costs in the buffer besides a producer's id.
const ENTRY_BYTES: usize = 128;

/// An append with terms, before it has a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) partition: Partition,
    pub(crate) terms: &'a Terms,
    pub(crate) now: Timestamp,
    pub(crate) want: Want,
}

impl Offer<'_> {
    /// Where the append goes.
    pub(crate) fn at(&self) -> At {
        At { partition: self.partition, now: self.now, want: self.want }
    }
}

/// An append that was accepted before.
#[derive(Debug)]
pub(crate) enum Known {
    Stored(Receipt),
    /// Not committed yet.
    Pending(Receipt, Ack),
}

/// What became of an append with terms.
#[derive(Debug)]
pub(crate) enum Accepted {
    New(Submitted),
    Known(Known),
}

/// What is to be remembered and is not committed yet, each with the number of its buffer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    producers: HashMap<(Partition, Bytes), Vec<PendingBatch>>,
    keys: HashMap<(Partition, u128), Vec<PendingKey>>,
    tokens: HashMap<Partition, Vec<(u64, FencingToken)>>,
    pub(super) steps: HashMap<Partition, Vec<PendingStep>>,
}

#[derive(Debug)]
pub(super) struct PendingBatch {
    buffer: u64,
    epoch: ProducerEpoch,
    seq: ProducerSeq,
    receipt: Receipt,
    pub(super) ack: Ack,
}

#[derive(Debug)]
struct PendingKey {
    buffer: u64,
    row: KeyRow,
    ack: Ack,
}

impl Core {
    /// The same append, if it was accepted before. Answered also after a stop: what is known stays true.
    ///
    /// # Errors
    /// `Refused` when it was, and cannot be repeated: the receipt is no longer kept, or the content is another;
    /// `NotFound` when there is no such partition.
    pub(crate) fn known(&mut self, state: &dyn StateStore, offer: Offer<'_>) -> Result<Option<Known>> {
        let now = self.stamp(state, offer.partition, offer.now)?;
        match &offer.terms.once {
            None => Ok(None),
            Some(Once::Producer(producer)) => self.known_batch(state, offer.partition, producer, now),
            Some(Once::Key(key)) => {
                let home = self.stamp(state, key.home, offer.now)?;
                if key.home != offer.partition {
                    self.known_request(state, key.home, key, home)?;
                }
                self.known_request(state, offer.partition, key, now)
            }
        }
    }

    /// Gives a batch its place if its terms hold, or finds the place that it has.
    ///
    /// # Errors
    /// `Refused` when a term does not hold, `Busy` when the partition can remember no more, else as [`Core::append`].
    pub(crate) fn append_if(&mut self, state: &dyn StateStore, offer: Offer<'_>, batch: Batch) -> Result<Accepted> {
        if let Some(known) = self.known(state, offer)? {
            return Ok(Accepted::Known(known));
        }
        self.check_running()?;
        let now = self.stamp(state, offer.partition, offer.now)?;
        self.tail(state, offer.partition)?.check_open()?;
        let mut is_known = false;
        if let Some(Once::Producer(producer)) = &offer.terms.once {
            let row = self.producer(state, offer.partition, &producer.id, now)?;
            check_sequence(producer, row.as_ref())?;
            is_known = row.is_some();
        }
        let raises = self.check_token(state, offer)?;
        self.check_tail(state, offer)?;
        match &offer.terms.once {
            Some(Once::Producer(_)) if !is_known => self.check_room_for_producer(state, offer.partition, now)?,
            Some(Once::Key(_)) => self.check_room_for_key(state, offer.partition, now)?,
            Some(Once::Producer(_)) | None => {}
        }
        let count = batch.count();
        let submitted = self.append(state, offer.at(), batch)?;
        let ack = &submitted.ack;
        let receipt = Receipt { base: submitted.base, count, timestamp: submitted.timestamp };
        match &offer.terms.once {
            None => {}
            Some(Once::Producer(producer)) => self.remember_batch(offer.partition, producer, receipt, ack),
            Some(Once::Key(key)) => self.remember_request(state, offer, key, (receipt, ack))?,
        }
        if let Some(token) = raises {
            let buffer = self.open.sequence;
            self.remembered.tokens.entry(offer.partition).or_default().push((buffer, token));
            self.remember(Entry::Fenced { partition: offer.partition, token }, ack);
        }
        Ok(Accepted::New(submitted))
    }

    fn known_batch(
        &self,
        state: &dyn StateStore,
        partition: Partition,
        producer: &Producer,
        now: Timestamp,
    ) -> Result<Option<Known>> {
        let pending = self.pending_batches(partition, &producer.id);
        if let Some(same) = pending.iter().find(|batch| (batch.epoch, batch.seq) == (producer.epoch, producer.seq)) {
            let has_records = same.receipt.count > 0;
            return Ok(has_records.then(|| Known::Pending(same.receipt, same.ack.clone())));
        }
        let Some(row) = self.producer(state, partition, &producer.id, now)? else { return Ok(None) };
        if row.epoch != producer.epoch || producer.seq > row.last {
            return Ok(None);
        }
        let receipt = row.receipt(producer.seq).ok_or_else(|| {
            let text = format!("sequence {} was stored before, and its receipt is no longer kept", producer.seq);
            Error::new(Kind::Refused(Refusal::Sequence { expected: row.last.next(), new_epoch: false }), text)
        })?;
        // What a producer closed a stream with may have no record: then no batch is the same, and it is refused by the end.
        Ok((receipt.count > 0).then_some(Known::Stored(receipt)))
    }

    fn known_request(
        &self,
        state: &dyn StateStore,
        partition: Partition,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<Known>> {
        let pending = self.remembered.keys.get(&(partition, key.key)).and_then(|pending| pending.last());
        let (row, ack) = match pending {
            Some(pending) => (pending.row, Some(pending.ack.clone())),
            None => match once::key_row(state, partition, key.key, now)? {
                Some(row) => (row, None),
                None => return Ok(None),
            },
        };
        if row.content != key.content {
            let text = "the idempotency key was used for a request with other content";
            return Err(Error::new(Kind::Refused(Refusal::OtherContent), text));
        }
        let known = match ack {
            _ if row.receipt.count == 0 => None,
            Some(ack) => Some(Known::Pending(row.receipt, ack)),
            None => Some(Known::Stored(row.receipt)),
        };
        Ok(known)
    }

    /// A producer with all of its batches, also those that are not committed yet.
    pub(super) fn producer(
        &self,
        state: &dyn StateStore,
        partition: Partition,
        id: &Bytes,
        now: Timestamp,
    ) -> Result<Option<ProducerRow>> {
        let row = once::producer_row(|key| state.get(key), partition, id, now)?.map(|(_, row)| row);
        let mut row = row.filter(|row| !PRODUCER_WINDOW.is_over(row.newest().timestamp, now));
        for batch in self.pending_batches(partition, id) {
            row = match row {
                // Between a commit and the word of it a batch is in both.
                Some(row) if row.newest().base >= batch.receipt.base => Some(row),
                Some(row) => Some(row.after(batch.epoch, batch.seq, batch.receipt)),
                None => Some(ProducerRow::first(batch.epoch, batch.seq, batch.receipt)),
            };
        }
        Ok(row)
    }

    pub(super) fn pending_batches(&self, partition: Partition, id: &Bytes) -> &[PendingBatch] {
        self.remembered.producers.get(&(partition, id.clone())).map_or(&[], Vec::as_slice)
    }

    /// The token, when it is to be remembered as the highest one.
    fn check_token(&self, state: &dyn StateStore, offer: Offer<'_>) -> Result<Option<FencingToken>> {
        let Some(token) = offer.terms.fencing_token else { return Ok(None) };
        let pending = self.remembered.tokens.get(&offer.partition).and_then(|tokens| tokens.last());
        let highest = match pending {
            Some((_, highest)) => *highest,
            None => once::terms_row(state, offer.partition)?.token,
        };
        if token < highest {
            let text = format!("fencing token {token} is below {highest}, which the partition has seen");
            return Err(Error::new(Kind::Refused(Refusal::FencingToken { token: highest }), text));
        }
        Ok((token > highest).then_some(token))
    }

    fn check_tail(&mut self, state: &dyn StateStore, offer: Offer<'_>) -> Result<()> {
        let Some(expected) = offer.terms.expected_tail else { return Ok(()) };
        let tail = self.tail(state, offer.partition)?.next;
        if tail == expected {
            return Ok(());
        }
        let text = format!("the tail of the partition is {tail}, and {expected} was expected");
        Err(Error::new(Kind::Refused(Refusal::Tail { tail }), text))
    }

    /// Whether the partition can remember one more producer.
    pub(super) fn check_room_for_producer(
        &self,
        state: &dyn StateStore,
        partition: Partition,
        now: Timestamp,
    ) -> Result<()> {
        let row = once::terms_row(state, partition)?;
        self.check_remembered("producers", row.producers.needed(PRODUCER_WINDOW.bucket(now)))
    }

    fn check_room_for_key(&self, state: &dyn StateStore, partition: Partition, now: Timestamp) -> Result<()> {
        let row = once::terms_row(state, partition)?;
        self.check_remembered("idempotency keys", row.keys.needed(IDEMPOTENCY_WINDOW.bucket(now)))
    }

    fn check_remembered(&self, what: &str, remembered: u32) -> Result<()> {
        if remembered < self.remembered_max {
            return Ok(());
        }
        let limit = self.remembered_max;
        Err(Error::new(Kind::Busy, format!("the partition remembers {remembered} {what}, the limit is {limit}")))
    }

    pub(super) fn remember_batch(&mut self, partition: Partition, producer: &Producer, receipt: Receipt, ack: &Ack) {
        let Producer { id, epoch, seq } = producer.clone();
        let pending = PendingBatch { buffer: self.open.sequence, epoch, seq, receipt, ack: ack.clone() };
        self.remembered.producers.entry((partition, id.clone())).or_default().push(pending);
        self.remember(Entry::Produced { partition, id, epoch, seq, receipt }, ack);
    }

    fn remember_request(
        &mut self,
        state: &dyn StateStore,
        offer: Offer<'_>,
        key: &IdempotencyKey,
        (receipt, ack): (Receipt, &Ack),
    ) -> Result<()> {
        if key.home != offer.partition {
            let at = self.stamp(state, key.home, offer.now)?;
            let known = self.remembered.keys.contains_key(&(key.home, key.key))
                || once::key_row(state, key.home, key.key, at)?.is_some();
            if !known {
                self.remember_key(key.home, key, Receipt { count: 0, timestamp: at, ..receipt }, ack);
            }
        }
        self.remember_key(offer.partition, key, receipt, ack);
        Ok(())
    }

    fn remember_key(&mut self, partition: Partition, key: &IdempotencyKey, receipt: Receipt, ack: &Ack) {
        let IdempotencyKey { key, content, .. } = *key;
        let pending = PendingKey { buffer: self.open.sequence, row: KeyRow { content, receipt }, ack: ack.clone() };
        self.remembered.keys.entry((partition, key)).or_default().push(pending);
        self.remember(Entry::Keyed { partition, key, content, receipt }, ack);
    }

    /// What is remembered of an append is undone with it, or not at all.
    pub(super) fn remember(&mut self, entry: Entry, ack: &Ack) {
        self.open.bytes += ENTRY_BYTES;
        if ack.is_early() {
            self.open.early.bytes += ENTRY_BYTES;
            self.open.early.entries.push(entry);
        } else {
            self.open.partition_entries.push(entry);
        }
    }

    /// The time that a batch would get.
    pub(super) fn stamp(&mut self, state: &dyn StateStore, partition: Partition, now: Timestamp) -> Result<Timestamp> {
        Ok(now.max(self.tail(state, partition)?.last_timestamp))
    }
}

impl Pending {
    /// Forgets what an entry stands for, but for the buffers that `keep` names.
    pub(super) fn settle(&mut self, entry: &Entry, keep: impl Fn(u64) -> bool) {
        match entry {
            Entry::Produced { partition, id, .. } => {
                settle(&mut self.producers, &(*partition, id.clone()), |batch| keep(batch.buffer));
            }
            Entry::Keyed { partition, key, .. } => settle(&mut self.keys, &(*partition, *key), |key| keep(key.buffer)),
            Entry::Fenced { partition, .. } => settle(&mut self.tokens, partition, |(buffer, _)| keep(*buffer)),
            Entry::StreamStep { partition, .. } => settle(&mut self.steps, partition, |step| keep(step.buffer)),
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
            | Entry::Reserve { .. } => {}
        }
    }

    /// Forgets what one entry of the buffer `number` stands for. Others of the same producer in that buffer stay.
    pub(super) fn undo(&mut self, number: u64, entry: &Entry) {
        match entry {
            Entry::Produced { partition, id, receipt, .. } => {
                settle(&mut self.producers, &(*partition, id.clone()), |batch| {
                    batch.buffer != number || batch.receipt != *receipt
                });
            }
            Entry::Keyed { partition, key, receipt, .. } => {
                settle(&mut self.keys, &(*partition, *key), |key| key.buffer != number || key.row.receipt != *receipt);
            }
            Entry::Fenced { partition, token } => {
                settle(&mut self.tokens, partition, |(buffer, seen)| *buffer != number || seen != token);
            }
            Entry::StreamStep { partition, step } => {
                settle(&mut self.steps, partition, |pending| pending.buffer != number || pending.step != *step);
            }
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
            | Entry::Reserve { .. } => {}
        }
    }
}

/// Whether a batch is the next one of its producer, of whom `row` is known.
pub(super) fn check_sequence(producer: &Producer, row: Option<&ProducerRow>) -> Result<()> {
    let (epoch, seq) = (producer.epoch, producer.seq);
    let mut new_epoch = false;
    let (expected, why) = match row {
        None => (ProducerSeq(0), "a producer that is not known here begins with sequence 0".to_owned()),
        Some(row) if epoch < row.epoch => {
            let text = format!("epoch {epoch} of the producer was ended by epoch {}", row.epoch);
            return Err(Error::new(Kind::Refused(Refusal::ProducerEpoch { epoch: row.epoch }), text));
        }
        Some(row) if epoch > row.epoch => {
            new_epoch = true;
            (ProducerSeq(0), format!("epoch {epoch} of the producer is new and begins with sequence 0"))
        }
        Some(row) => (row.last.next(), format!("the last sequence of the producer is {}", row.last)),
    };
    if seq == expected {
        return Ok(());
    }
    let text = format!("sequence {seq} is not the next one, which is {expected}: {why}");
    Err(Error::new(Kind::Refused(Refusal::Sequence { expected, new_epoch }), text))
}

fn settle<K: Eq + Hash, V>(pending: &mut HashMap<K, Vec<V>>, key: &K, keep: impl Fn(&V) -> bool) {
    if let Some(values) = pending.get_mut(key) {
        values.retain(|value| keep(value));
        if values.is_empty() {
            pending.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
