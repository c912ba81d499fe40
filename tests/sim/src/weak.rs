//! One who writes streams of the weaker durability classes (ADR 18): each step asks for a class of its own, and the closing is of the
//! class `object` whatever was asked for. What was acknowledged and lost with a node is told as a gap, and no offset is given twice.
//! Streams are forks of the one before every other time, at its end, which may be a gap by then.
//!
//! There is no disk, so `local` waits for the slot: its receipts say `object`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plinth_audit::history::Outcome;
use plinth_audit::{Class, Event, Place, Seen, Writer};
use plinth_storage::durability::Durability;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, ProducerEpoch, ProducerSeq, TopicId};
use plinth_storage::log::{Change, DocOp, First, ForkPoint, Guard, Stepped, TopicOp};
use plinth_storage::terms::{Producer, StreamTerms};
use plinth_storage::{Error, Kind, Refusal};
use rand::Rng;
use rand::rngs::StdRng;
use ulid::Ulid;

use crate::streams::{Created, Sending, create, document, send};
use crate::world::{Handle, World, is_refusal};

/// Others who write have lower numbers.
pub const FIRST_WRITER: u64 = 300;

/// One who writes such streams.
pub struct WeakWriter {
    world: Arc<World>,
    random: StdRng,
    writer: Writer,
    made: u64,
    /// The epoch of the producer, which grows when a sequence is lost, and its next sequence.
    next: (u64, u64),
}

/// A stream of weaker classes.
#[derive(Clone, Debug)]
pub struct WeakStream {
    partition: Partition,
    place: Place,
    closed: bool,
}

impl WeakWriter {
    /// The only one.
    #[must_use]
    pub fn new(world: &Arc<World>) -> Self {
        let writer = Writer { run: world.seed, producer: FIRST_WRITER, epoch: 0, sequence: 0 };
        Self { world: Arc::clone(world), random: world.random("weak", 0), writer, made: 0, next: (0, 0) }
    }

    /// Writes until the run is over; answers all streams that were made.
    pub async fn run(mut self) -> Vec<WeakStream> {
        let mut all: Vec<WeakStream> = Vec::new();
        while !self.world.is_over() {
            self.world.clone().rest(&mut self.random, 0..800).await;
            let Some(mut stream) = self.make(all.last()).await else { continue };
            self.next = (self.next.0 + 1, 0);
            while !stream.closed && !self.world.is_over() {
                self.world.clone().rest(&mut self.random, 0..400).await;
                self.step(&mut stream).await;
                if let Some(handle) = self.world.the_newest().filter(|_| self.random.random_range(0..4) == 0) {
                    let _whether = handle.call(view(&self.world, &handle, &stream)).await;
                }
            }
            all.push(stream);
        }
        all
    }

    /// Makes a stream, often as a fork of the last one.
    async fn make(&mut self, last: Option<&WeakStream>) -> Option<WeakStream> {
        self.made += 1;
        let topic = TopicId(Ulid::from_parts(4000, u128::from(self.made)));
        let partition = Partition { topic, index: PartitionIndex(0) };
        let place = Place::new(format!("w-{}", self.made), 0);
        self.world.weak.add(partition, &place);
        let origin = last.filter(|_| self.random.random()).and_then(|last| {
            let at = self.world.the_newest()?.log.bounds(last.partition).ok()?.tail;
            self.world.history.log(Event::Fork {
                place: place.clone(),
                source: last.place.clone(),
                at: at.0,
                cut: None,
            });
            Some((last.partition.topic, at))
        });
        let document = document(&place);
        let op = match origin {
            Some((source, at)) => TopicOp::Fork { topic, source, point: ForkPoint { at, cut: None } },
            None => TopicOp::Create { topic, partitions: 1 },
        };
        let change = Change {
            guards: vec![Guard::Absent(document.clone())],
            docs: vec![DocOp::Put(document.clone(), Bytes::new())],
            topics: vec![op],
        };
        let end = origin.map_or(0, |(_, at)| at.0);
        loop {
            let over = self.world.is_over();
            let first = First { partition, batch: None, close: false };
            match create(&self.world, &mut self.random, (change.clone(), first), (&document, end)).await {
                Created::Yes => return Some(WeakStream { partition, place, closed: false }),
                Created::Open if !over => {}
                Created::Open | Created::Never => return None,
            }
            self.world.clone().rest(&mut self.random, 10..1500).await;
        }
    }

    /// Does one step, until there is an answer.
    async fn step(&mut self, stream: &mut WeakStream) {
        let close = self.random.random_range(0..12) == 0;
        if close {
            self.world.history.log(Event::MayClose { place: stream.place.clone() });
        }
        let (class, durability) = match self.random.random_range(0..6) {
            _ if close => (Class::Object, Durability::Memory),
            0 => (Class::Object, Durability::Object),
            1 => (Class::Local, Durability::Local),
            _ => (Class::Memory, Durability::Memory),
        };
        let (first, count) = (self.writer, self.random.random_range(1..4));
        self.writer.sequence += count;
        let sending = send(&self.world, (&stream.place, class), first, count);
        let outcome = self.settle(stream, (close, durability), &sending).await;
        self.world.trace.line(&format!("{} {first:?} as {durability:?}, {close}: {outcome:?}", stream.place));
        if outcome == Outcome::Unknown {
            self.writer.epoch += 1;
        }
        let op = sending.op.expect("there are records");
        self.world.history.log(Event::Complete { op, outcome });
    }

    async fn settle(
        &mut self,
        stream: &mut WeakStream,
        (close, durability): (bool, Durability),
        sending: &Sending,
    ) -> Outcome {
        let mut open = false;
        loop {
            let over = self.world.is_over();
            let (epoch, seq) = self.next;
            let producer =
                Producer { id: Bytes::from_static(b"weak"), epoch: ProducerEpoch(epoch), seq: ProducerSeq(seq) };
            let terms = StreamTerms { producer: Some(producer), seq: None, close };
            match self.send(stream, &terms, durability, sending).await {
                Sent::Done(stepped) => {
                    self.next.1 += 1;
                    stream.closed = close;
                    self.check(stream, &stepped, durability);
                    let (count, class) = (u64::from(stepped.count), reached(stepped.durability));
                    // Where a duplicate is it does not say.
                    return match stepped.duplicate {
                        true => Outcome::Unknown,
                        false => Outcome::Ok { partition: 0, offset: stepped.tail.0 - count, class },
                    };
                }
                // What came before is lost: it goes on as somebody else.
                Sent::Lost => {
                    self.next = (epoch + 1, 0);
                    if open {
                        return Outcome::Unknown;
                    }
                }
                Sent::Open => open = true,
                Sent::Refused => {}
            }
            if over {
                return if open { Outcome::Unknown } else { Outcome::NotStored };
            }
            self.world.clone().rest(&mut self.random, 10..1500).await;
        }
    }

    async fn send(
        &mut self,
        stream: &WeakStream,
        terms: &StreamTerms,
        durability: Durability,
        sending: &Sending,
    ) -> Sent {
        let Some(handle) = self.world.pick(&mut self.random) else { return Sent::Refused };
        let limit = Duration::from_millis(self.random.random_range(500..15_000));
        let step = handle.log.step(stream.partition, sending.batch.clone(), terms, durability);
        match handle.call(tokio::time::timeout(limit, step)).await {
            Some(Ok(Ok(stepped))) => Sent::Done(stepped),
            Some(Ok(Err(error))) => self.refused(stream, &handle, &error),
            Some(Err(_)) | None => Sent::Open,
        }
    }

    fn refused(&self, stream: &WeakStream, handle: &Handle, error: &Error) -> Sent {
        let is_newest = self.world.newest() == handle.number;
        let kind = error.kind();
        if is_newest && matches!(kind, Kind::Refused(Refusal::Sequence { .. } | Refusal::ProducerEpoch { .. })) {
            return Sent::Lost;
        }
        if is_newest && matches!(kind, Kind::Refused(_) | Kind::NotFound | Kind::Invalid | Kind::Conflict) {
            self.world.wrong(format!("a step of {} is refused: {error}", stream.place));
        }
        if is_refusal(error) { Sent::Refused } else { Sent::Open }
    }

    /// A class may be exceeded and never missed, and a closing is stored.
    fn check(&self, stream: &WeakStream, stepped: &Stepped, wanted: Durability) {
        let is_stored = !stepped.closed || stepped.durability == Durability::Object;
        if stepped.durability < wanted || stepped.closed != stream.closed || !is_stored {
            self.world.wrong(format!("{} is told {stepped:?} of a step that wants {wanted:?}", stream.place));
        }
        if stepped.closed {
            let place = stream.place.clone();
            self.world.history.log(Event::End { place, tail: stepped.tail.0, closed: true });
        }
    }
}

/// What came of one try.
enum Sent {
    Done(Stepped),
    /// The producer's sequence is not the one that is due.
    Lost,
    Refused,
    Open,
}

fn reached(durability: Durability) -> Class {
    match durability {
        Durability::Object => Class::Object,
        Durability::Local => Class::Local,
        Durability::Memory => Class::Memory,
    }
}

/// All that a node which knows all of the log shows of a stream, with its gaps, as a read.
async fn view(world: &World, handle: &Handle, stream: &WeakStream) {
    let read = world.history.fresh_id();
    let place = stream.place.clone();
    world.history.log(Event::ReadInvoke { read, place: place.clone() });
    let shown = tokio::time::timeout(Duration::from_secs(30), shown(handle, stream.partition)).await;
    if let (Ok(Ok((records, lost))), true) = (shown, world.newest() == handle.number) {
        world.trace.line(&format!("n{} read of {place}: {} records, {lost:?}", handle.number, records.len()));
        world.history.log(Event::Read { read, place, from: 0, records, lost, caught_up: true });
    }
}

/// What a stream holds at a node after all: a view for the audit.
pub async fn view_all(world: &World, handle: &Handle, streams: &[WeakStream]) {
    for WeakStream { partition, place, .. } in streams {
        crate::streams::look(world, handle, (*partition, place));
        match shown(handle, *partition).await {
            Ok((records, lost)) => {
                world.trace.line(&format!("n{} view of {place}: {} records, {lost:?}", handle.number, records.len()));
                world.history.log(Event::View { place: place.clone(), start: 0, records, lost });
            }
            Err(error) => world.wrong(format!("node {} cannot read {place}: {error}", handle.number)),
        }
    }
}

/// The records and the gaps of a stream that is not trimmed.
async fn shown(handle: &Handle, partition: Partition) -> Result<(Vec<Seen>, Vec<(u64, u64)>), Error> {
    let tail = handle.log.bounds(partition)?.tail;
    let (mut records, mut next) = (Vec::new(), Offset(0));
    while next < tail {
        if let Some(gap) = handle.log.gap_at(partition, next)? {
            next = gap.to;
            continue;
        }
        let batches = handle.log.read(partition, next, 2048).await?;
        if batches.is_empty() {
            break;
        }
        for batch in batches {
            let wanted = batch.records().filter(|record| record.offset >= next && record.offset < tail);
            records.extend(wanted.map(|record| Seen::new(record.offset.0, &record.payload)));
            next = batch.next();
        }
    }
    let gaps = handle.log.gaps(partition, Offset(0))?;
    let lost = gaps.into_iter().filter(|gap| gap.from < tail).map(|gap| (gap.from.0, gap.to.min(tail).0)).collect();
    Ok((records, lost))
}
