//! Those who write streams, one after the other: each is made with what it begins with, appended to by steps of a producer
//! that counts, and closed, with data or without, while somebody else publishes to it. And one who looks where streams end.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use plinth_audit::history::Outcome;
use plinth_audit::{Body, Class, Event, Place, Writer};
use plinth_storage::durability::Durability;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, ProducerEpoch, ProducerSeq, TopicId};
use plinth_storage::log::{Change, DocOp, First, Guard, Stepped, TopicOp};
use plinth_storage::record::{Batch, NewRecord};
use plinth_storage::terms::{Once, Producer, StreamTerms, Terms};
use plinth_storage::{Error, Kind, Refusal};
use rand::Rng;
use rand::rngs::StdRng;
use ulid::Ulid;

use crate::world::{Handle, World, is_refusal};

/// Publishers have lower numbers.
const FIRST_WRITER: u64 = 100;
const FIRST_GUEST: u64 = 200;

/// The streams of a run.
#[derive(Debug, Default)]
pub struct Streams {
    inner: Mutex<Vec<(Partition, Place)>>,
}

impl Streams {
    /// All that were made, or may have been.
    #[must_use]
    pub fn all(&self) -> Vec<(Partition, Place)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, partition: Partition, place: &Place) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).push((partition, place.clone()));
    }
}

/// One who writes streams.
pub struct StreamWriter {
    world: Arc<World>,
    random: StdRng,
    number: u64,
    made: u64,
    writer: Writer,
    known: Vec<Stream>,
}

/// A stream as its one writer knows it.
#[derive(Clone, Debug)]
pub struct Stream {
    partition: Partition,
    place: Place,
    tail: u64,
    next_seq: u64,
    closed: bool,
    /// The last step that was acknowledged.
    last: Option<StreamTerms>,
}

/// What is sent until it is known what became of it.
struct Sending {
    batch: Option<Batch>,
    /// Of the history, when there are records.
    op: Option<u64>,
}

impl StreamWriter {
    /// The writer of a number.
    #[must_use]
    pub fn new(world: &Arc<World>, number: u64) -> Self {
        let random = world.random("streams", number);
        let writer = Writer { run: world.seed, producer: FIRST_WRITER + number, epoch: 0, sequence: 0 };
        Self { world: Arc::clone(world), random, number, made: 0, writer, known: Vec::new() }
    }

    /// Writes until the run is over; answers the streams of which all is known.
    pub async fn run(mut self) -> Vec<Stream> {
        while !self.world.is_over() {
            self.world.clone().rest(&mut self.random, 0..1500).await;
            let Some(mut stream) = self.make().await else { continue };
            let mut sure = true;
            while sure && !stream.closed && !self.world.is_over() {
                self.world.clone().rest(&mut self.random, 0..800).await;
                sure = self.step(&mut stream).await;
                if let Some(handle) = self.world.pick(&mut self.random).filter(|_| sure) {
                    stream.must_be_known(&self.world, &handle).await;
                }
            }
            if sure {
                self.known.push(stream);
            }
        }
        self.known
    }

    /// Makes a stream with what it begins with; none when it is not known whether it is there.
    async fn make(&mut self) -> Option<Stream> {
        self.made += 1;
        let topic = TopicId(Ulid::from_parts(2000 + self.number, u128::from(self.made)));
        let partition = Partition { topic, index: PartitionIndex(0) };
        let place = Place::new(format!("s{}-{}", self.number, self.made), 0);
        self.world.streams.add(partition, &place);
        let close = self.random.random_range(0..8) == 0;
        if close {
            self.world.history.log(Event::MayClose { place: place.clone() });
        }
        let count = self.random.random_range(0..3);
        let sending = self.sending(&place, count);
        let document = Bytes::from(format!("stream/{}", place.topic));
        let change = Change {
            guards: vec![Guard::Absent(document.clone())],
            docs: vec![DocOp::Put(document.clone(), Bytes::new())],
            topics: vec![TopicOp::Create { topic, partitions: 1 }],
        };
        loop {
            let over = self.world.is_over();
            let first = First { partition, batch: sending.batch.clone(), close };
            if self.create((change.clone(), first), &document, count).await {
                self.settled(&sending, Some(0));
                return Some(Stream { partition, place, tail: count, next_seq: 0, closed: close, last: None });
            }
            if over {
                self.settled(&sending, None);
                return None;
            }
            self.world.clone().rest(&mut self.random, 10..1500).await;
        }
    }

    /// Whether the stream is there now.
    async fn create(&mut self, (change, first): (Change, First), document: &[u8], count: u64) -> bool {
        let Some(handle) = self.world.pick(&mut self.random) else { return false };
        let limit = Duration::from_millis(self.random.random_range(500..15_000));
        let creation = handle.log.create(change, first);
        match handle.call(tokio::time::timeout(limit, creation)).await {
            Some(Ok(Ok(tail))) => {
                if tail != Offset(count) {
                    self.world.wrong(format!("a stream that begins with {count} records ends at {tail}"));
                }
                true
            }
            // An earlier try is there, or on its way still.
            Some(Ok(Err(error))) if error.kind() == Kind::Conflict => {
                self.world.newest() == handle.number && handle.log.get(document).is_ok_and(|found| found.is_some())
            }
            Some(Ok(Err(_)) | Err(_)) | None => false,
        }
    }

    /// Does one step; false when it is not known what became of it.
    async fn step(&mut self, stream: &mut Stream) -> bool {
        let close = self.random.random_range(0..6) == 0;
        let count = self.random.random_range(u64::from(!close)..4);
        let producer = Producer {
            id: Bytes::from(format!("s{}", self.number)),
            epoch: ProducerEpoch(0),
            seq: ProducerSeq(stream.next_seq),
        };
        let seq = self.random.random::<bool>().then(|| Bytes::from(format!("{:08}", stream.next_seq)));
        let terms = StreamTerms { producer: Some(producer), seq, close };
        let guest = (close && self.random.random()).then(|| Guest::new(&self.world, self.number, self.made, stream));
        if close {
            self.world.history.log(Event::MayClose { place: stream.place.clone() });
        }
        let sending = self.sending(&stream.place, count);
        let beside = async {
            match guest {
                Some(guest) => guest.publish().await,
                None => 0..=0,
            }
        };
        let (stepped, others) = tokio::join!(self.settle(stream, &terms, &sending), beside);
        let place = &stream.place;
        self.world.trace.line(&format!("{place} {terms:?} with {count} beside {others:?}: {stepped:?}"));
        let Some(stepped) = stepped else {
            self.settled(&sending, None);
            return false;
        };
        let tail = stepped.tail.0;
        let stored = tail.checked_sub(stream.tail + count);
        let highest = terms.producer.as_ref().map(|producer| producer.seq);
        if stored.is_none_or(|stored| !others.contains(&stored))
            || (stepped.closed, stepped.highest) != (close, highest)
        {
            self.world.wrong(format!("{place} ended at {}, and a step of {count} comes to {stepped:?}", stream.tail));
        }
        self.settled(&sending, Some(tail.saturating_sub(count)));
        (stream.tail, stream.closed, stream.last) = (tail, close, Some(terms));
        stream.next_seq += 1;
        true
    }

    /// Sends a step until it is acknowledged, or the run is over.
    async fn settle(&mut self, stream: &Stream, terms: &StreamTerms, sending: &Sending) -> Option<Stepped> {
        loop {
            let over = self.world.is_over();
            if let Some(handle) = self.world.pick(&mut self.random) {
                let limit = Duration::from_millis(self.random.random_range(500..15_000));
                let step = handle.log.step(stream.partition, sending.batch.clone(), terms, Durability::Object);
                match handle.call(tokio::time::timeout(limit, step)).await {
                    Some(Ok(Ok(stepped))) => return Some(stepped),
                    Some(Ok(Err(error))) if self.world.newest() == handle.number => self.check(stream, &error),
                    Some(Ok(Err(_)) | Err(_)) | None => {}
                }
            }
            if over {
                return None;
            }
            self.world.clone().rest(&mut self.random, 10..1500).await;
        }
    }

    /// A producer that counts right is never told that it does not, nor that its stream is closed or not there.
    fn check(&self, stream: &Stream, error: &Error) {
        match error.kind() {
            Kind::Refused(_) | Kind::NotFound | Kind::Invalid | Kind::Conflict => {
                self.world.wrong(format!("a step of {} is refused: {error}", stream.place));
            }
            Kind::Fenced
            | Kind::OutOfRange
            | Kind::Busy
            | Kind::Unavailable
            | Kind::Unknown
            | Kind::Corrupt
            | Kind::Closed => {}
        }
    }

    fn sending(&mut self, place: &Place, count: u64) -> Sending {
        let first = self.writer;
        self.writer.sequence += count;
        send(&self.world, place, first, count)
    }

    /// What became of the records, by the offset of the first.
    fn settled(&mut self, sending: &Sending, offset: Option<u64>) {
        let Some(op) = sending.op else { return };
        let outcome = match offset {
            Some(offset) => Outcome::Ok { partition: 0, offset, class: Class::Object },
            None => {
                self.writer.epoch += 1;
                Outcome::Unknown
            }
        };
        self.world.history.log(Event::Complete { op, outcome });
    }
}

/// Records of one who writes, and the line of the history that they are sent.
fn send(world: &World, place: &Place, first: Writer, count: u64) -> Sending {
    if count == 0 {
        return Sending { batch: None, op: None };
    }
    let body = |index| Body::new(Writer { sequence: first.sequence + index, ..first }, 20).encode();
    let bodies: Vec<Bytes> = (0..count).map(|index| Bytes::from(body(index))).collect();
    let digests = bodies.iter().map(|body| plinth_audit::body::digest(body)).collect();
    let op = world.history.fresh_id();
    world.history.log(Event::Invoke { op, topic: place.topic.clone(), first, digests, class: Class::Object });
    let records: Vec<NewRecord> =
        bodies.into_iter().map(|payload| NewRecord { payload, ..NewRecord::default() }).collect();
    Sending { batch: Some(Batch::of(&records).expect("the batch is within all limits")), op: Some(op) }
}

/// One who publishes a record to a stream while it is closed.
struct Guest {
    world: Arc<World>,
    random: StdRng,
    writer: Writer,
    partition: Partition,
    place: Place,
}

impl Guest {
    fn new(world: &Arc<World>, number: u64, made: u64, stream: &Stream) -> Self {
        let writer = Writer { run: world.seed, producer: FIRST_GUEST + number, epoch: made, sequence: stream.next_seq };
        let random = world.random("guest", number << 32 | made);
        Self { world: Arc::clone(world), random, writer, partition: stream.partition, place: stream.place.clone() }
    }

    /// Publishes once; answers how many records of it may be in the stream.
    async fn publish(mut self) -> RangeInclusive<u64> {
        self.world.rest(&mut self.random, 0..200).await;
        let Some(handle) = self.world.pick(&mut self.random) else { return 0..=0 };
        let Sending { batch, op } = send(&self.world, &self.place, self.writer, 1);
        let (batch, op) = batch.zip(op).expect("it is one record");
        let answer =
            handle.call(tokio::time::timeout(Duration::from_secs(15), handle.log.append(self.partition, batch)));
        let (outcome, stored) = match answer.await {
            Some(Ok(Ok(appended))) => {
                let offset = appended.base.0;
                (Outcome::Ok { partition: 0, offset, class: Class::Object }, 1..=1)
            }
            Some(Ok(Err(error))) if is_refusal(&error) => {
                if let Kind::Refused(Refusal::Closed { tail }) = error.kind() {
                    // Whoever is told of an end was told the truth.
                    self.world.history.log(Event::End { place: self.place.clone(), tail: tail.0, closed: true });
                }
                (Outcome::NotStored, 0..=0)
            }
            Some(Ok(Err(_)) | Err(_)) | None => (Outcome::Unknown, 0..=1),
        };
        self.world.history.log(Event::Complete { op, outcome });
        stored
    }
}

impl Stream {
    /// Where it is, and its name in the history.
    #[must_use]
    pub fn place(&self) -> (Partition, Place) {
        (self.partition, self.place.clone())
    }

    /// A node shows the stream as its writer knows it, takes its last step for done, and nothing behind the end. A session that
    /// was ended without knowing it does not know what came after.
    pub async fn must_be_known(&self, world: &World, handle: &Handle) {
        look(world, handle, (self.partition, &self.place));
        if let Some(terms) = &self.last {
            let again = self.call(handle, handle.log.step(self.partition, one(), terms, Durability::Object)).await;
            self.check_again(world, handle, again);
        }
        if !self.closed {
            return;
        }
        let seq = ProducerSeq(self.next_seq);
        let producer = Producer { id: Bytes::from_static(b"other"), epoch: ProducerEpoch(0), seq };
        let terms = Terms { once: Some(Once::Producer(producer.clone())), ..Terms::default() };
        let step = StreamTerms { producer: Some(producer), ..StreamTerms::default() };
        let batch = one().expect("a record");
        let log = &handle.log;
        let stored = [
            self.call(handle, log.append(self.partition, batch.clone())).await.map(|done| done.map(drop)),
            self.call(handle, log.append_if(self.partition, batch, &terms, Durability::Object))
                .await
                .map(|done| done.map(drop)),
            self.call(handle, log.step(self.partition, one(), &step, Durability::Object))
                .await
                .map(|done| done.map(drop)),
        ];
        for done in stored.into_iter().flatten() {
            let tail = Offset(self.tail);
            match done {
                Ok(()) => world.wrong(format!("{} was closed at {tail} and takes records", self.place)),
                Err(error) if error.kind() == Kind::Refused(Refusal::Closed { tail }) => {}
                Err(error) if matches!(error.kind(), Kind::Refused(_)) && world.newest() == handle.number => {
                    world.wrong(format!("{} was closed at {tail}, and says {error}", self.place));
                }
                Err(_) => {}
            }
        }
    }

    fn check_again(&self, world: &World, handle: &Handle, again: Option<Result<Stepped, Error>>) {
        let is_same = |again: &Stepped| {
            again.duplicate && (again.tail, again.count, again.closed) == (Offset(self.tail), 0, self.closed)
        };
        match again {
            Some(Ok(again)) if is_same(&again) => {}
            Some(Ok(again)) => world.wrong(format!("{self:?} is told of its last step {again:?}")),
            Some(Err(error)) if matches!(error.kind(), Kind::Refused(_)) && world.newest() == handle.number => {
                world.wrong(format!("{self:?} is refused its last step: {error}"));
            }
            Some(Err(_)) | None => {}
        }
    }

    async fn call<T>(&self, handle: &Handle, call: impl Future<Output = Result<T, Error>>) -> Option<Result<T, Error>> {
        handle.call(tokio::time::timeout(Duration::from_secs(20), call)).await?.ok()
    }
}

fn one() -> Option<Batch> {
    let record = NewRecord { payload: Bytes::from_static(b"nobody's"), ..NewRecord::default() };
    Some(Batch::of(&[record]).expect("one record is a batch"))
}

/// Looks where streams end until the run is over.
pub async fn watch(world: Arc<World>) {
    let mut random = world.random("ends", 0);
    while !world.is_over() {
        world.rest(&mut random, 20..400).await;
        let (streams, handle) = (world.streams.all(), world.the_newest());
        // The later ones are those that change.
        let newest = streams.len().saturating_sub(random.random_range(1..8));
        if let Some(((partition, place), handle)) = streams.get(newest).zip(handle) {
            look(&world, &handle, (*partition, place));
        }
    }
}

/// Where a stream ends, as a node shows it that knows all of the log.
pub fn look(world: &World, handle: &Handle, (partition, place): (Partition, &Place)) {
    if world.newest() != handle.number {
        return;
    }
    if let Ok(bounds) = handle.log.bounds(partition) {
        world.history.log(Event::End { place: place.clone(), tail: bounds.tail.0, closed: bounds.closed });
    }
}

/// All streams, as a node shows them, into the history.
pub async fn view(world: &World, handle: &Handle) {
    for (partition, place) in world.streams.all() {
        // What was never made is not there.
        if handle.log.bounds(partition).is_ok_and(|bounds| bounds.tail > Offset(0) || bounds.closed) {
            look(world, handle, (partition, &place));
            world.view_of(handle, partition, place).await;
        }
    }
}
