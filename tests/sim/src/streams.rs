//! Those who write streams, one after the other: each is made with what it begins with, appended to by steps of a producer
//! that counts, and closed, with data or without, while somebody else publishes to it. Many are forks of earlier ones, which are
//! trimmed, kept for a time, and deleted ([`crate::forks`]). And one who looks where streams end.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
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

use crate::forks::Origin;
use crate::world::{Handle, World, is_refusal};

/// Publishers have lower numbers.
pub(crate) const FIRST_WRITER: u64 = 100;
pub(crate) const FIRST_GUEST: u64 = 200;

/// The streams of a run.
#[derive(Debug, Default)]
pub struct Streams {
    inner: Mutex<Vec<(Partition, Place)>>,
    /// Forks that were made, and streams that were deleted while they had some.
    pub forks: AtomicUsize,
    /// See `forks`.
    pub kept: AtomicUsize,
}

impl Streams {
    /// All that were made, or may have been.
    #[must_use]
    pub fn all(&self) -> Vec<(Partition, Place)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add(&self, partition: Partition, place: &Place) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).push((partition, place.clone()));
    }
}

/// One who writes streams.
pub struct StreamWriter {
    pub(crate) world: Arc<World>,
    pub(crate) random: StdRng,
    number: u64,
    made: u64,
    writer: Writer,
    /// All that were made for sure, those that were deleted, too.
    pub(crate) known: Vec<Stream>,
}

/// A stream as its one writer knows it.
#[derive(Clone, Debug)]
pub struct Stream {
    pub(crate) partition: Partition,
    pub(crate) place: Place,
    pub(crate) tail: u64,
    next_seq: u64,
    closed: bool,
    /// The last step that was acknowledged.
    last: Option<StreamTerms>,
    /// Of a fork: which of the streams of its writer it is one of.
    pub(crate) source: Option<usize>,
    pub(crate) deleted: bool,
    /// The last record of each of its steps, and of those that it inherits.
    pub(crate) lasts: Vec<(u64, Bytes)>,
    pub(crate) start: crate::forks::Start,
}

/// What became of a creation.
pub(crate) enum Created {
    Yes,
    Open,
    /// It is not there, and will not be.
    Never,
}

/// What is sent until it is known what became of it.
pub(crate) struct Sending {
    pub(crate) batch: Option<Batch>,
    /// Of the history, when there are records.
    pub(crate) op: Option<u64>,
    last: Option<Bytes>,
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
            self.world.clone().rest(&mut self.random, 0..800).await;
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
            self.tend().await;
        }
        self.known.retain(|stream| !stream.deleted);
        self.known
    }

    /// Makes a stream with what it begins with; none when it is not known whether it is there.
    async fn make(&mut self) -> Option<Stream> {
        self.made += 1;
        let topic = TopicId(Ulid::from_parts(2000 + self.number, u128::from(self.made)));
        let partition = Partition { topic, index: PartitionIndex(0) };
        let place = Place::new(format!("s{}-{}", self.number, self.made), 0);
        self.world.streams.add(partition, &place);
        let origin = self.origin(&place);
        let close = self.random.random_range(0..8) == 0;
        if close {
            self.world.history.log(Event::MayClose { place: place.clone() });
        }
        let count = self.random.random_range(0..3);
        let sending = self.sending(&place, count);
        let document = document(&place);
        let change = Change {
            guards: vec![Guard::Absent(document.clone())],
            docs: vec![DocOp::Put(document.clone(), Bytes::new())],
            topics: vec![origin.as_ref().map_or(TopicOp::Create { topic, partitions: 1 }, |origin| origin.fork(topic))],
        };
        let base = origin.as_ref().map_or(0, Origin::at);
        loop {
            let over = self.world.is_over();
            let first = First { partition, batch: sending.batch.clone(), close };
            match create(&self.world, &mut self.random, (change.clone(), first), (&document, base + count)).await {
                Created::Yes => {
                    self.world.streams.forks.fetch_add(usize::from(origin.is_some()), Ordering::Relaxed);
                    self.settled(&sending, Some(base));
                    let (source, mut lasts) = origin.map(Origin::inherited).unzip();
                    let lasts = lasts.get_or_insert_default();
                    lasts.extend(sending.last.map(|last| (base + count - 1, last)));
                    return Some(Stream {
                        partition,
                        place,
                        tail: base + count,
                        next_seq: 0,
                        closed: close,
                        last: None,
                        source,
                        deleted: false,
                        lasts: std::mem::take(lasts),
                        start: crate::forks::Start::default(),
                    });
                }
                Created::Open if !over => {}
                Created::Open | Created::Never => {
                    self.settled(&sending, None);
                    return None;
                }
            }
            self.world.clone().rest(&mut self.random, 10..1500).await;
        }
    }

    /// Does one step; false when it is not known what became of it.
    async fn step(&mut self, stream: &mut Stream) -> bool {
        let close = self.random.random_range(0..5) == 0;
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
        stream.lasts.extend(sending.last.map(|last| (tail - 1, last)));
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
        send(&self.world, (place, Class::Object), first, count)
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

/// Whether the stream is there now.
pub(crate) async fn create(
    world: &World,
    random: &mut StdRng,
    (change, first): (Change, First),
    (document, end): (&[u8], u64),
) -> Created {
    let Some(handle) = world.pick(random) else { return Created::Open };
    let limit = Duration::from_millis(random.random_range(500..15_000));
    let creation = handle.log.create(change, first);
    match handle.call(tokio::time::timeout(limit, creation)).await {
        Some(Ok(Ok(tail))) => {
            if tail != Offset(end) {
                world.wrong(format!("a stream that begins with what is below {end} ends at {tail}"));
            }
            Created::Yes
        }
        Some(Ok(Err(error))) if world.newest() == handle.number => match error.kind() {
            // An earlier try is there, or on its way still.
            Kind::Conflict if handle.log.get(document).is_ok_and(|found| found.is_some()) => Created::Yes,
            // The start of the source has moved meanwhile, and no earlier try was stored.
            Kind::OutOfRange => Created::Never,
            Kind::NotFound => {
                world.wrong(format!("what a fork is made of is not there: {error}"));
                Created::Never
            }
            Kind::Conflict
            | Kind::Refused(_)
            | Kind::Invalid
            | Kind::Fenced
            | Kind::Busy
            | Kind::Unavailable
            | Kind::Unknown
            | Kind::Corrupt
            | Kind::Closed => Created::Open,
        },
        Some(Ok(Err(_)) | Err(_)) | None => Created::Open,
    }
}

/// Records of one who writes, and the line of the history that they are sent.
pub(crate) fn send(world: &World, (place, class): (&Place, Class), first: Writer, count: u64) -> Sending {
    if count == 0 {
        return Sending { batch: None, op: None, last: None };
    }
    let body = |index| Body::new(Writer { sequence: first.sequence + index, ..first }, 20).encode();
    let bodies: Vec<Bytes> = (0..count).map(|index| Bytes::from(body(index))).collect();
    let last = bodies.last().cloned();
    let digests = bodies.iter().map(|body| plinth_audit::body::digest(body)).collect();
    let op = world.history.fresh_id();
    world.history.log(Event::Invoke { op, topic: place.topic.clone(), first, digests, class });
    let records: Vec<NewRecord> =
        bodies.into_iter().map(|payload| NewRecord { payload, ..NewRecord::default() }).collect();
    Sending { batch: Some(Batch::of(&records).expect("the batch is within all limits")), op: Some(op), last }
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
        let Sending { batch, op, .. } = send(&self.world, (&self.place, Class::Object), self.writer, 1);
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
        let is_gone = handle.log.bounds(self.partition).is_err_and(|error| error.kind() == Kind::NotFound);
        if is_gone && world.newest() == handle.number {
            world.wrong(format!("{} is not at node {}, and nobody has deleted it", self.place, handle.number));
        }
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

/// The document that comes and goes with a stream.
pub(crate) fn document(place: &Place) -> Bytes {
    Bytes::from(format!("stream/{}", place.topic))
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
