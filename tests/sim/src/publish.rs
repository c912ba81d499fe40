//! Those who publish: plainly, with a key, as a producer that counts, on the condition of a tail. Each tries again what
//! it was not told, and reports to the history what it knows in the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plinth_audit::history::Outcome;
use plinth_audit::{Body, Class, Event, Place, Writer};
use plinth_storage::durability::Durability;
use plinth_storage::ids::{Offset, Partition, ProducerEpoch, ProducerSeq};
use plinth_storage::log::Appended;
use plinth_storage::record::{Batch, NewRecord};
use plinth_storage::terms::{IdempotencyKey, Once, Producer, Terms};
use plinth_storage::{Error, Kind, Refusal};
use rand::Rng;
use rand::rngs::StdRng;

use crate::world::{Handle, PARTITIONS, TOPICS, World, is_refusal};

/// One who publishes, one batch after the other.
pub struct Publisher {
    world: Arc<World>,
    random: StdRng,
    writer: Writer,
    /// As a producer it writes to one partition only, and counts its batches there.
    home: (Partition, Place),
    next_seq: u64,
    last: Option<Stored>,
    counts: bool,
}

/// A batch of a producer that was acknowledged.
#[derive(Clone)]
pub struct Stored {
    partition: Partition,
    batch: Batch,
    terms: Terms,
    base: Offset,
}

/// A batch and how it is to be stored.
struct Offer {
    partition: Partition,
    place: Place,
    batch: Batch,
    terms: Terms,
}

impl Publisher {
    /// The publisher of a number. Those of an odd number are producers.
    #[must_use]
    pub fn new(world: &Arc<World>, number: u64) -> Self {
        let mut random = world.random("publisher", number);
        let home = world.partition(random.random_range(0..TOPICS), random.random_range(0..PARTITIONS));
        let writer = Writer { run: world.seed, producer: number, epoch: 0, sequence: 0 };
        let counts = number % 2 == 1;
        Self { world: Arc::clone(world), random, writer, home, next_seq: 0, last: None, counts }
    }

    /// Publishes until the run is over; answers the last batch that must be known for ever.
    pub async fn run(mut self) -> Option<Stored> {
        while !self.world.is_over() {
            self.world.clone().rest(&mut self.random, 0..600).await;
            let (offer, count) = self.offer();
            self.publish(offer, count).await;
            if self.random.random_range(0..8) == 0 {
                self.repeat().await;
            }
        }
        self.last
    }

    fn offer(&mut self) -> (Offer, u64) {
        let count = self.random.random_range(1..4);
        let records: Vec<NewRecord> = (0..count)
            .map(|index| {
                let writer = Writer { sequence: self.writer.sequence + index, ..self.writer };
                let length = if self.random.random_range(0..6) == 0 { 900 } else { 20 };
                NewRecord { payload: Bytes::from(Body::new(writer, length).encode()), ..NewRecord::default() }
            })
            .collect();
        let batch = Batch::of(&records).expect("the batch is within all limits");
        let (partition, place) = if self.counts {
            self.home.clone()
        } else {
            self.world.partition(self.random.random_range(0..TOPICS), self.random.random_range(0..PARTITIONS))
        };
        let once = if self.counts {
            let id = Bytes::from(format!("p{}", self.writer.producer));
            Some(Once::Producer(Producer { id, epoch: ProducerEpoch(0), seq: ProducerSeq(self.next_seq) }))
        } else if self.random.random() {
            let key = IdempotencyKey { key: self.random.random(), content: self.random.random(), home: partition };
            Some(Once::Key(key))
        } else {
            None
        };
        (Offer { partition, place, batch, terms: Terms { once, ..Terms::default() } }, count)
    }

    async fn publish(&mut self, offer: Offer, count: u64) {
        let op = self.world.history.fresh_id();
        let first = self.writer;
        self.writer.sequence += count;
        let digests = offer.digests();
        let topic = offer.place.topic.clone();
        self.world.history.log(Event::Invoke { op, topic, first, digests, class: Class::Object });
        let outcome = self.settle(&offer).await;
        self.world.trace.line(&format!("{first:?} to {}: {outcome:?}", offer.place));
        if outcome == Outcome::Unknown {
            self.writer.epoch += 1;
        }
        if let (Outcome::Ok { offset, .. }, Some(_)) = (outcome, &offer.terms.once) {
            let Offer { partition, batch, terms, .. } = offer;
            self.last = Some(Stored { partition, batch, terms, base: Offset(offset) });
        }
        self.world.history.log(Event::Complete { op, outcome });
    }

    /// Sends a batch until there is an answer that ends it.
    async fn settle(&mut self, offer: &Offer) -> Outcome {
        let (mut open, mut tries) = (false, 0);
        loop {
            let over = self.world.is_over();
            tries += 1;
            match self.send(offer, tries).await {
                Sent::Stored(appended) => {
                    self.next_seq += u64::from(self.counts);
                    let next = appended.base.plus(appended.count);
                    self.world.retained.stored(&offer.place, next, appended.timestamp);
                    let (partition, offset) = (offer.place.partition, appended.base.0);
                    return Outcome::Ok { partition, offset, class: Class::Object };
                }
                Sent::Open => open = true,
                Sent::Refused | Sent::Nobody => {}
            }
            // Without a name of its own a second try may be a second record.
            let again = offer.terms.once.is_some() && (open || self.counts || self.random.random());
            if !again || over {
                return if open { Outcome::Unknown } else { Outcome::NotStored };
            }
            self.world.clone().rest(&mut self.random, 10..1500).await;
        }
    }

    async fn send(&mut self, offer: &Offer, tries: u32) -> Sent {
        let Some(handle) = self.world.pick(&mut self.random) else { return Sent::Nobody };
        let mut terms = offer.terms.clone();
        let bounds = handle.log.bounds(offer.partition);
        if let (Ok(bounds), None, 0) = (bounds, &terms.once, self.random.random_range(0..3)) {
            terms.expected_tail = Some(bounds.tail);
        }
        let limit = Duration::from_millis(self.random.random_range(500..15_000));
        let append = append(&handle, offer.partition, offer.batch.clone(), terms);
        let answer = match handle.call(tokio::time::timeout(limit, append)).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) | None => return Sent::Open,
        };
        match answer {
            Ok(appended) => Sent::Stored(appended),
            Err(error) => {
                if self.world.newest() == handle.number {
                    self.check_refusal(offer, &error, tries);
                }
                if is_refusal(&error) { Sent::Refused } else { Sent::Open }
            }
        }
    }

    /// A producer that counts right is never told that it does not, and its records are never others. A session that was
    /// ended without knowing it does not know what came after.
    fn check_refusal(&self, offer: &Offer, error: &Error, tries: u32) {
        match error.kind() {
            Kind::Refused(Refusal::Tail { .. }) if offer.terms.once.is_none() => {}
            Kind::Refused(refusal) => {
                let who = self.writer.producer;
                self.world.wrong(format!("publisher {who} is refused at its try {tries}: {refusal:?}"));
            }
            Kind::Fenced
            | Kind::OutOfRange
            | Kind::Busy
            | Kind::Unavailable
            | Kind::Unknown
            | Kind::Corrupt
            | Kind::Closed
            | Kind::Conflict
            | Kind::NotFound
            | Kind::Invalid => {}
        }
    }

    /// Sends again what was acknowledged last.
    async fn repeat(&mut self) {
        let Some((stored, handle)) = self.last.clone().zip(self.world.pick(&mut self.random)) else { return };
        stored.must_be_known(&self.world, &handle).await;
    }
}

impl Stored {
    /// Sent again to a node, the batch is known there, and has the place that it had; a node that is away says nothing.
    pub async fn must_be_known(&self, world: &World, handle: &Handle) {
        let append = append(handle, self.partition, self.batch.clone(), self.terms.clone());
        let Some(Ok(answer)) = handle.call(tokio::time::timeout(Duration::from_secs(20), append)).await else { return };
        match answer {
            _ if world.newest() != handle.number => {}
            Ok(Appended { base, duplicate: true, .. }) if base == self.base => {}
            Ok(other) => world.wrong(format!("a repeat of {:?} at {:?} is stored as {other:?}", self.terms, self.base)),
            Err(error) if matches!(error.kind(), Kind::Refused(_)) => {
                world.wrong(format!("a repeat of {:?} at {:?} is refused: {error}", self.terms, self.base));
            }
            Err(_) => {}
        }
    }
}

enum Sent {
    /// Acknowledged.
    Stored(Appended),
    /// Nothing was stored by this try.
    Refused,
    /// There was nobody to send it to.
    Nobody,
    /// Nothing is known of this try.
    Open,
}

impl Offer {
    fn digests(&self) -> Vec<u64> {
        let stored = plinth_storage::record::StoredBatch {
            base: Offset(0),
            timestamp: plinth_storage::ids::Timestamp(0),
            batch: self.batch.clone(),
        };
        stored.records().map(|record| plinth_audit::body::digest(&record.payload)).collect()
    }
}

async fn append(handle: &Handle, partition: Partition, batch: Batch, terms: Terms) -> Result<Appended, Error> {
    if terms == Terms::default() {
        handle.log.append(partition, batch).await
    } else {
        handle.log.append_if(partition, batch, &terms, Durability::Object).await
    }
}
