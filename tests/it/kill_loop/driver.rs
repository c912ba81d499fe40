//! The producers of the kill loop.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plinth_api::error::{ErrorCode, Problem, PublishOutcome};
use plinth_api::records::{Durability, Receipt};
use plinth_audit::body::{Body, Writer, digest};
use plinth_audit::history::{Class, Event, Outcome};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::Run;
use crate::client::{BATCH, Client, try_answer};
use crate::harness::DEADLINE;

/// What a producer does about an outcome that is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It goes on as somebody else.
    GiveUp,
    /// It sends the same sequence again until there is a receipt.
    Sequence,
    /// The same by an idempotency key.
    Key,
}

/// What came of one request.
enum Answer {
    /// Its outcome, and whether an earlier one had stored it.
    Settled(Outcome, bool),
    /// The sequence is not the one that is due.
    OutOfSequence,
}

/// A topic, a partition, and the durability class that is asked for.
type To = (&'static str, u32, Class);

/// A producer.
pub(super) struct Driver {
    run: Run,
    way: Way,
    random: StdRng,
    next: Writer,
    /// The next sequence of its epoch in each partition.
    seqs: BTreeMap<(&'static str, u32), u64>,
    /// The server that it is connected to.
    server: Option<(String, Client)>,
}

impl Driver {
    /// The producer of a number. A third of them gives up what is not known.
    pub(super) fn new(run: Run, producer: u64) -> Self {
        let random = StdRng::seed_from_u64(run.seed ^ (producer + 1));
        let way = [Way::GiveUp, Way::Sequence, Way::Key][usize::try_from(producer).expect("few") % 3];
        let next = Writer { run: run.seed, producer, epoch: 0, sequence: 0 };
        Self { run, way, random, next, seqs: BTreeMap::new(), server: None }
    }

    /// Publishes singles and batches until the end.
    pub(super) async fn produce(mut self) {
        while self.run.publishing() {
            let count = if self.random.random_bool(0.5) { 1 } else { self.random.random_range(2..9) };
            let bodies: Vec<String> = (0..count)
                .map(|index| {
                    let length = if self.random.random_bool(0.05) { 20_000 } else { self.random.random_range(0..500) };
                    Body::new(Writer { sequence: self.next.sequence + index, ..self.next }, length).encode()
                })
                .collect();
            let topics = self.run.topics;
            let (topic, partitions, class) = topics[self.random.random_range(0..topics.len())];
            let partition = self.random.random_range(0..partitions);
            let outcome = self.publish((topic, partition, class), &bodies).await;
            self.next.sequence += count;
            *self.seqs.entry((topic, partition)).or_default() += 1;
            let is_refused = outcome == Outcome::NotStored && self.way != Way::GiveUp;
            if is_refused || outcome == Outcome::Unknown || self.random.random_bool(0.01) {
                self.next.epoch += 1;
                self.seqs.clear();
            }
        }
    }

    /// One publish, in one try or in many, and its lines in the history.
    async fn publish(&mut self, (topic, partition, class): To, bodies: &[String]) -> Outcome {
        let op = self.run.history.fresh_id();
        let digests = bodies.iter().map(|body| digest(body.as_bytes())).collect();
        let (name, first) = (topic.to_owned(), self.next);
        self.run.history.log(Event::Invoke { op, topic: name, first, digests, class });
        let mut tried = false;
        let outcome = loop {
            let (outcome, duplicate) = match self.attempt((topic, partition), bodies).await {
                Answer::Settled(outcome, duplicate) => (outcome, duplicate),
                // What came before was lost. It goes on as somebody else; a first try of its own may have been shown.
                Answer::OutOfSequence => {
                    assert_ne!(class, Class::Object, "nothing of class object is lost");
                    break if tried { Outcome::Unknown } else { Outcome::NotStored };
                }
            };
            assert!(tried || !duplicate, "what is sent for the first time is no duplicate");
            self.run.repeated.fetch_add(u64::from(duplicate), Ordering::Relaxed);
            if self.way == Way::GiveUp || matches!(outcome, Outcome::Ok { .. }) {
                break outcome;
            }
            tried = true;
        };
        self.run.history.log(Event::Complete { op, outcome });
        self.run.acknowledged.send_modify(|count| *count += u64::from(matches!(outcome, Outcome::Ok { .. })));
        outcome
    }

    /// One request. Without a receipt the connection is given up.
    async fn attempt(&mut self, to: (&'static str, u32), bodies: &[String]) -> Answer {
        let (url, client) = match self.server.take() {
            Some(server) => server,
            None => self.connect(None).await,
        };
        let answer = try_answer(self.request(&client, to, bodies));
        let hangs_up = self.way != Way::GiveUp && self.random.random_bool(0.1);
        let patience = if hangs_up { Duration::from_micros(self.random.random_range(100..8000)) } else { DEADLINE };
        let Ok(answer) = tokio::time::timeout(patience, answer).await else {
            self.server = hangs_up.then_some((url, client));
            return Answer::Settled(Outcome::Unknown, false);
        };
        let outcome = match answer {
            Ok(answer) if answer.status < 300 => {
                let receipt: Receipt = answer.parse();
                assert_eq!(answer.status, if receipt.duplicate { 200 } else { 201 });
                self.server = Some((url, client));
                let Receipt { partition, offset, duplicate, .. } = receipt;
                let class = reached(receipt.durability);
                return Answer::Settled(Outcome::Ok { partition, offset, class }, duplicate);
            }
            Ok(answer) => {
                let problem: Problem = answer.parse();
                if problem.code == ErrorCode::SequenceMismatch {
                    self.server = Some((url, client));
                    return Answer::OutOfSequence;
                }
                assert!(
                    problem.status >= 500,
                    "a valid publish is refused only for the server's own state: {problem:?}"
                );
                match problem.outcome.expect("a failed publish says what is known") {
                    PublishOutcome::NotStored => Outcome::NotStored,
                    PublishOutcome::Unknown => Outcome::Unknown,
                }
            }
            // Nobody listens: the request was not sent.
            Err(error) if error.is_connect() => Outcome::NotStored,
            Err(_) => Outcome::Unknown,
        };
        self.server = Some(self.connect(Some(&url)).await);
        Answer::Settled(outcome, false)
    }

    async fn connect(&mut self, last: Option<&str>) -> (String, Client) {
        let url = self.run.next_address(last).await;
        let client = Client::new(&url, Some(&self.run.key));
        (url, client)
    }

    fn request(&self, client: &Client, (topic, partition): (&'static str, u32), bodies: &[String]) -> RequestBuilder {
        let path = format!("/v1/topics/{topic}/records?partition={partition}");
        let request = match bodies {
            [single] => client.post(&path).header("Content-Type", "application/json").body(single.clone()),
            _ => client.post(&path).header("Content-Type", BATCH).body(batch(bodies)),
        };
        let Writer { producer, epoch, sequence, .. } = self.next;
        match self.way {
            Way::GiveUp => request,
            Way::Key => request.header("Idempotency-Key", format!("{producer}-{epoch}-{sequence}")),
            Way::Sequence => {
                let seq = self.seqs.get(&(topic, partition)).copied().unwrap_or(0);
                let request = request.header("Producer-Id", format!("p{producer}"));
                request.header("Producer-Epoch", epoch).header("Producer-Seq", seq)
            }
        }
    }
}

fn reached(durability: Durability) -> Class {
    match durability {
        Durability::Object => Class::Object,
        Durability::Local => Class::Local,
        Durability::Memory => Class::Memory,
    }
}

fn batch(bodies: &[String]) -> String {
    let records: Vec<Value> = bodies.iter().map(|body| json!({"text": body})).collect();
    json!({"records": records}).to_string()
}
