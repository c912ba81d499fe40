//! Appends to a stream: a batch, the closing, or both, with what the stream remembers of it in the same object.
//!
//! Decided under the lock, over what is committed and what is pending, in this order: what closed the stream or was stored
//! before is a duplicate; after the end nothing comes; then the producer's sequence, then the stream's.

use bytes::Bytes;

use super::early::{Ack, At, Want};
use super::terms::check_sequence;
use super::{Core, OpenBuffer, PartitionTail, Submitted, room_of};
use crate::durability::Durability;
use crate::error::{Error, Kind, Refusal, Result};
use crate::ids::{Offset, Partition, ProducerSeq, Timestamp};
use crate::record::Batch;
use crate::shard::changes::{Change, Entry, Receipt, TopicOp};
use crate::shard::fork::only_partition;
use crate::shard::once::ProducerRow;
use crate::shard::rows::PartitionRow;
use crate::shard::stream::{Closing, StreamRow, stream_row};
use crate::state::StateStore;
use crate::terms::{PRODUCER_ID_BYTES_MAX, STREAM_SEQ_BYTES_MAX, StreamTerms};

/// A step of a stream, before it has a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    pub(crate) at: At,
    pub(crate) terms: &'a StreamTerms,
}

impl<'a> Step<'a> {
    /// A step that wants a class. One that closes is stored before it is acknowledged: the end of what was lost would be no end.
    pub(crate) fn new(partition: Partition, now: Timestamp, terms: &'a StreamTerms, class: Durability) -> Self {
        let durability = if terms.close { Durability::Object } else { class };
        Self { at: At { partition, now, want: Want { durability, away: false } }, terms }
    }
}

/// A step that is accepted, or was before.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) tail: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) closed: bool,
    pub(crate) duplicate: bool,
    pub(crate) highest: Option<ProducerSeq>,
    /// What to wait for; none when all of it is committed.
    pub(crate) ack: Option<Ack>,
    /// The batch, when this step has one.
    pub(crate) submitted: Option<Submitted>,
}

/// What a new topic begins with.
#[derive(Debug)]
pub struct First {
    /// One of its partitions.
    pub partition: Partition,
    /// Its first records.
    pub batch: Option<Batch>,
    /// Whether nothing comes after them.
    pub close: bool,
}

/// What is known of a step.
enum Found {
    Done(Accepted),
    /// Not done; what is known of its producer.
    New(Option<ProducerRow>),
}

/// A step that is not committed yet, with the number of its buffer.
#[derive(Debug)]
pub(super) struct PendingStep {
    pub(super) buffer: u64,
    pub(super) step: StreamRow,
    ack: Ack,
}

impl Core {
    /// The same step, if it was done before. Answered also after a stop: what is known stays true.
    ///
    /// # Errors
    /// `Refused` after the end of the stream and by a producer's epoch, `NotFound` when there is no such partition.
    pub(crate) fn done(
        &mut self,
        state: &dyn StateStore,
        step: Step<'_>,
        with_batch: bool,
    ) -> Result<Option<Accepted>> {
        match self.find(state, step, with_batch)? {
            Found::Done(accepted) => Ok(Some(accepted)),
            Found::New(_) => Ok(None),
        }
    }

    fn find(&mut self, state: &dyn StateStore, step: Step<'_>, with_batch: bool) -> Result<Found> {
        let Step { at, terms } = step;
        let tail = *self.tail(state, at.partition)?;
        if tail.closing {
            return self.after_the_end(state, step, with_batch).map(Found::Done);
        }
        let Some(producer) = &terms.producer else { return Ok(Found::New(None)) };
        let row = self.producer(state, at.partition, &producer.id, at.now.max(tail.last_timestamp))?;
        let highest = match &row {
            Some(row) if row.epoch == producer.epoch && producer.seq <= row.last => Some(row.last),
            Some(_) | None => return Ok(Found::New(row)),
        };
        let ack = self.pending_batches(at.partition, &producer.id).last().map(|batch| batch.ack.clone());
        Ok(Found::Done(Accepted { highest, ack, ..duplicate(&tail) }))
    }

    /// Gives a step its place, or finds it done.
    ///
    /// # Errors
    /// `Refused` when a term does not hold or the stream is closed, `Busy` when the partition can remember no more, `Invalid`
    /// for neither batch nor closing and for a sequence or a producer's id over its bounds; else as [`Core::append`].
    pub(crate) fn step(&mut self, state: &dyn StateStore, step: Step<'_>, batch: Option<Batch>) -> Result<Accepted> {
        check(step.terms, batch.is_some())?;
        let known = match self.find(state, step, batch.is_some())? {
            Found::Done(accepted) => return Ok(accepted),
            Found::New(row) => row,
        };
        self.check_running()?;
        let Step { at, terms } = step;
        let partition = at.partition;
        let stamp = self.stamp(state, partition, at.now)?;
        if let Some(producer) = &terms.producer {
            check_sequence(producer, known.as_ref())?;
            if known.is_none() {
                self.check_room_for_producer(state, partition, stamp)?;
            }
        }
        self.check_seq(state, partition, terms.seq.as_ref())?;
        let count = batch.as_ref().map_or(0, Batch::count);
        let submitted = batch.map(|batch| self.append(state, at, batch)).transpose()?;
        let (ack, timestamp) = match &submitted {
            Some(submitted) => (submitted.ack.clone(), submitted.timestamp),
            None => (self.alone(at.want)?, stamp),
        };
        let tail = self.tail(state, partition)?.next;
        if let Some(producer) = &terms.producer {
            let base = Offset(tail.0 - u64::from(count));
            self.remember_batch(partition, producer, Receipt { base, count, timestamp }, &ack);
        }
        let producer = terms.producer.clone().map_or(Closing::Nobody, Closing::Producer);
        let row = StreamRow { seq: terms.seq.clone(), closed: terms.close.then_some(producer) };
        self.remember_step(state, partition, row, &ack)?;
        if planted!(StepWithoutBatch) && submitted.is_some() {
            self.put_off_last(partition);
        }
        let highest = terms.producer.as_ref().map(|producer| producer.seq);
        let ack = Some(ack);
        Ok(Accepted { tail, timestamp, closed: terms.close, duplicate: false, highest, ack, submitted })
    }

    /// A bug of a test: the last batch of a partition goes into the next buffer, and what is remembered of it does not.
    fn put_off_last(&mut self, partition: Partition) {
        let last = self.open.groups.get_mut(&partition).and_then(Vec::pop).into_iter().collect();
        self.open.groups.retain(|_, batches: &mut Vec<_>| !batches.is_empty());
        let next = OpenBuffer::new(self.open.sequence + 1);
        self.full.push_back(std::mem::replace(&mut self.open, next));
        self.open.groups.insert(partition, last);
        self.open.grew(0);
    }

    /// Accepts a change that makes a topic, and what it begins with, for the same object.
    ///
    /// # Errors
    /// `Invalid` when the change does not make the topic of the partition; else as [`Core::change`].
    pub(crate) fn create(
        &mut self,
        state: &dyn StateStore,
        change: &Change,
        (first, now): (First, Timestamp),
    ) -> Result<(Offset, Ack)> {
        let First { partition, batch, close } = first;
        let makes = |op: &TopicOp| {
            matches!(op, TopicOp::Create { topic, partitions }
                if *topic == partition.topic && partition.index.0 < *partitions)
                || matches!(op, TopicOp::Fork { topic, .. } if only_partition(*topic) == partition)
        };
        if !change.topics.iter().any(makes) {
            return Err(Error::new(Kind::Invalid, format!("the change does not make partition {partition}")));
        }
        let begun = self.begun(state, change, partition)?;
        let outcome = self.change(state, change)?;
        self.make_room(partition);
        self.partitions.insert(partition, begun);
        let at = At { partition, now, want: Want::default() };
        let ack = match batch {
            Some(batch) => self.append(state, at, batch)?.ack,
            None => Ack::Late(outcome),
        };
        if close {
            self.remember_step(state, partition, StreamRow { seq: None, closed: Some(Closing::Nobody) }, &ack)?;
        }
        Ok((self.tail(state, partition)?.next, ack))
    }

    /// The committed bounds of a partition, the end of what may be read, and whether nothing comes after it: of one moment.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub(crate) fn seen(
        &mut self,
        state: &dyn StateStore,
        partition: Partition,
    ) -> Result<(PartitionRow, Offset, bool)> {
        let (row, shown) = self.bounds(state, partition)?;
        Ok((row, shown, self.tail(state, partition)?.closed))
    }

    /// A step that is not committed was settled or undone: whether the stream is about to be closed.
    pub(super) fn recount_closing(&mut self, partition: Partition) {
        let pending = self.pending_steps(partition).iter().any(|pending| pending.step.closed.is_some());
        if let Some(tail) = self.partitions.get_mut(&partition) {
            tail.closing = tail.closed || pending;
        }
    }

    /// What a step is that comes after the end of the stream.
    fn after_the_end(&mut self, state: &dyn StateStore, step: Step<'_>, with_batch: bool) -> Result<Accepted> {
        let Step { at, terms } = step;
        let tail = *self.tail(state, at.partition)?;
        let closed_by = |row: &StreamRow| row.closed.clone();
        let pending = self.pending_steps(at.partition).iter().find(|pending| pending.step.closed.is_some());
        let (closing, ack) = match pending {
            Some(pending) => (closed_by(&pending.step), Some(pending.ack.clone())),
            None => (closed_by(&stream_row(state, at.partition)?), None),
        };
        let same = match (&terms.producer, closing) {
            (None, _) => terms.close && !with_batch,
            (Some(producer), Some(Closing::Producer(closing))) => *producer == closing,
            (Some(_), Some(Closing::Nobody) | None) => false,
        };
        if same {
            let highest = terms.producer.as_ref().map(|producer| producer.seq);
            return Ok(Accepted { highest, ack, closed: true, ..duplicate(&tail) });
        }
        Err(tail.ended())
    }

    /// What is to be waited for before it is known that a stream is closed: a closing that is not committed.
    pub(crate) fn closing(&self, partition: Partition) -> Option<Ack> {
        let pending = self.pending_steps(partition).iter().find(|pending| pending.step.closed.is_some());
        pending.map(|pending| pending.ack.clone())
    }

    fn check_seq(&self, state: &dyn StateStore, partition: Partition, seq: Option<&Bytes>) -> Result<()> {
        let Some(seq) = seq else { return Ok(()) };
        let pending = self.pending_steps(partition).iter().rev().find_map(|pending| pending.step.seq.clone());
        let last = match pending {
            Some(last) => Some(last),
            None => stream_row(state, partition)?.seq,
        };
        if last.is_none_or(|last| *seq > last) {
            return Ok(());
        }
        let text = "the stream's sequence is not above the last one of the stream";
        Err(Error::new(Kind::Refused(Refusal::StreamSeq), text))
    }

    /// What a step without a batch waits for.
    fn alone(&mut self, want: Want) -> Result<Ack> {
        if want.away {
            return Err(Error::new(Kind::Unavailable, "the object store cannot be reached"));
        }
        self.open.grew(0);
        self.open.room.pending += room_of(0);
        Ok(Ack::Late(self.open.outcome.subscribe()))
    }

    fn remember_step(
        &mut self,
        state: &dyn StateStore,
        partition: Partition,
        step: StreamRow,
        ack: &Ack,
    ) -> Result<()> {
        if step == StreamRow::default() {
            return Ok(());
        }
        if step.closed.is_some() {
            self.tail(state, partition)?.closing = true;
        }
        let pending = PendingStep { buffer: self.open.sequence, step: step.clone(), ack: ack.clone() };
        self.remembered.steps.entry(partition).or_default().push(pending);
        self.remember(Entry::StreamStep { partition, step }, ack);
        Ok(())
    }

    fn pending_steps(&self, partition: Partition) -> &[PendingStep] {
        self.remembered.steps.get(&partition).map_or(&[], Vec::as_slice)
    }
}

impl PartitionTail {
    /// Nothing comes after the end of a stream, nor after one that is about to be: whether it comes, [`Core::closing`] tells.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closing { Err(self.ended()) } else { Ok(()) }
    }

    fn ended(&self) -> Error {
        let text = format!("the stream is closed: nothing comes after offset {}", self.next);
        Error::new(Kind::Refused(Refusal::Closed { tail: self.next }), text)
    }
}

fn duplicate(tail: &PartitionTail) -> Accepted {
    Accepted {
        tail: tail.next,
        timestamp: tail.last_timestamp,
        closed: tail.closing,
        duplicate: true,
        highest: None,
        ack: None,
        submitted: None,
    }
}

fn check(terms: &StreamTerms, with_batch: bool) -> Result<()> {
    if !with_batch && !terms.close {
        return Err(Error::new(Kind::Invalid, "a step of a stream has neither records nor closes it"));
    }
    let seq = terms.seq.as_ref().map_or(1, Bytes::len);
    if !(1..=STREAM_SEQ_BYTES_MAX).contains(&seq) {
        let text = format!("stream sequence of {seq} bytes is not within 1 to {STREAM_SEQ_BYTES_MAX}");
        return Err(Error::new(Kind::Invalid, text));
    }
    let id = terms.producer.as_ref().map_or(1, |producer| producer.id.len());
    if !(1..=PRODUCER_ID_BYTES_MAX).contains(&id) {
        let text = format!("producer id of {id} bytes is not within 1 to {PRODUCER_ID_BYTES_MAX}");
        return Err(Error::new(Kind::Invalid, text));
    }
    Ok(())
}
