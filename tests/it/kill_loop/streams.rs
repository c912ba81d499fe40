//! The writers of streams in the kill loop: each makes one after the other, appends to it as a producer that counts, with
//! sequences of the stream, and closes it. Each sends the same again until it has an answer, and every answer must be the
//! one of an append that was stored whole: content, producer, sequence and closing, or nothing of it. Many streams are forks of
//! earlier ones, which are deleted at times ([`super::forks`]).

use std::sync::atomic::Ordering;
use std::time::Duration;

use plinth_audit::body::{Body, Writer, digest};
use plinth_audit::history::{Class, Event, Outcome, Place, Seen};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::{Method, RequestBuilder};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::forks::{Origin, START};
use super::{Page, Run};
use crate::client::{Answer, Client, answer, try_answer};
use crate::harness::DEADLINE;

/// The producers of topics have lower numbers.
const FIRST_WRITER: u64 = 1000;
const WRITERS: u64 = 2;
const JSON: &str = "application/json";

/// A stream, as its writer knows it.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) tail: u64,
    next_seq: u64,
    closed: bool,
    /// The stream that it is a fork of.
    pub(super) source: Option<String>,
    /// Where appends ended, and the tokens of these places as far as they are known.
    pub(super) ends: Vec<(u64, Option<String>)>,
    pub(super) deleted: bool,
}

/// One who writes streams.
pub(super) struct StreamWriter {
    pub(super) run: Run,
    pub(super) random: StdRng,
    next: Writer,
    made: u64,
    server: Option<(String, Client)>,
    pub(super) known: Vec<Stream>,
}

/// One append, which is sent until it is answered.
struct Append {
    bodies: Vec<String>,
    producer: String,
    producer_seq: u64,
    seq: Option<String>,
    close: bool,
}

/// The writers of streams begin.
pub(super) fn begin(run: &Run) -> JoinSet<Vec<Stream>> {
    (0..WRITERS).map(|number| StreamWriter::new(run.clone(), number).write()).collect()
}

impl StreamWriter {
    fn new(run: Run, number: u64) -> Self {
        let random = StdRng::seed_from_u64(run.seed ^ (FIRST_WRITER + number));
        let next = Writer { run: run.seed, producer: FIRST_WRITER + number, epoch: 0, sequence: 0 };
        Self { run, random, next, made: 0, server: None, known: Vec::new() }
    }

    /// Writes until the publishes end; answers its streams, of which all is known.
    async fn write(mut self) -> Vec<Stream> {
        while self.run.publishing() {
            let mut stream = self.make().await;
            while !stream.closed && self.run.publishing() {
                self.append(&mut stream).await;
            }
            if stream.closed {
                self.must_be_closed(&stream).await;
            }
            self.known.push(stream);
            self.tend().await;
        }
        self.known
    }

    /// Makes a stream with what it begins with. A creation that is repeated finds all of that, or nothing.
    async fn make(&mut self) -> Stream {
        self.made += 1;
        let name = format!("streams/{}/{}", self.next.producer, self.made);
        let origin = self.origin(&name);
        let close = self.random.random_bool(0.05);
        let bodies = self.bodies(0..4);
        let op = self.sent(&name, &bodies, close);
        let (path, array) = (path(&name), format!("[{}]", bodies.join(",")));
        let request = |client: &Client| {
            let request = client.put(&path).header("Content-Type", JSON).body(array.clone());
            let request = origin.iter().fold(request, |request, origin| origin.ask(request));
            if close { request.header("Stream-Closed", "true") } else { request }
        };
        let (made, _) = self.settle(request).await;
        assert!(matches!(made.status, 200 | 201), "{} {}", made.status, made.text());
        let base = origin.as_ref().map_or(0, Origin::at);
        let (source, ends) = origin.map_or((None, vec![(0, Some(START.to_owned()))]), Origin::inherited);
        let tail = base + bodies.len() as u64;
        let mut stream = Stream { name, tail, next_seq: 0, closed: close, source, ends, deleted: false };
        self.must_end(&made, &stream);
        self.stored(op, base);
        stream.ended(&made);
        if stream.source.is_some() {
            self.read_whole(&stream).await;
        }
        stream
    }

    /// One append, a closing, or both.
    async fn append(&mut self, stream: &mut Stream) {
        let close = self.random.random_bool(0.1);
        let bodies = self.bodies(usize::from(!close)..9);
        let op = self.sent(&stream.name, &bodies, close);
        let producer_seq = stream.next_seq;
        let seq = self.random.random_bool(0.5).then(|| format!("{producer_seq:08}"));
        let producer = format!("p{}", self.next.producer);
        let append = Append { bodies, producer, producer_seq, seq, close };
        let path = path(&stream.name);
        let (answered, tried) = self.settle(|client| append.request(client, &path)).await;
        let has_content = !append.bodies.is_empty();
        // A repetition answers 204; what is sent for the first time is none.
        let is_right = match answered.status {
            200 => has_content,
            204 => tried || !has_content,
            _ => false,
        };
        assert!(is_right, "try after {tried}: {} {}", answered.status, answered.text());
        self.run.repeated.fetch_add(u64::from(answered.status == 204 && has_content), Ordering::Relaxed);
        assert_eq!(answered.header("Producer-Seq"), Some(append.producer_seq.to_string().as_str()));
        let before = stream.tail;
        stream.tail += append.bodies.len() as u64;
        stream.next_seq += 1;
        stream.closed = close;
        self.must_end(&answered, stream);
        self.stored(op, before);
        stream.ended(&answered);
    }

    /// A closed stream says so to whoever looks, and takes nothing.
    async fn must_be_closed(&mut self, stream: &Stream) {
        let path = path(&stream.name);
        let (looked, _) = self.settle(|client| client.request(Method::HEAD, &path)).await;
        assert_eq!(looked.status, 200);
        self.must_end(&looked, stream);
        let late = Append {
            bodies: vec!["{}".to_owned()],
            producer: "late".to_owned(),
            producer_seq: 0,
            seq: None,
            close: self.random.random(),
        };
        let (refused, _) = self.settle(|client| late.request(client, &path)).await;
        assert_eq!(refused.status, 409, "{}", refused.text());
        self.must_end(&refused, stream);
    }

    /// An answer tells the end that the writer knows.
    fn must_end(&self, answered: &Answer, stream: &Stream) {
        let closed = answered.header("Stream-Closed") == Some("true");
        let tail = offset_of(answered.header("Stream-Next-Offset").expect("an answer tells the end"));
        assert_eq!((tail, closed), (stream.tail, stream.closed), "{stream:?}: {} {}", answered.status, answered.text());
        self.run.history.log(Event::End { place: Place::new(stream.name.clone(), 0), tail, closed });
    }

    /// Sends until there is an answer that is not the server's own state; and whether an earlier try got none.
    pub(super) async fn settle(&mut self, request: impl Fn(&Client) -> RequestBuilder) -> (Answer, bool) {
        let mut tried = false;
        loop {
            let (url, client) = match self.server.take() {
                Some(server) => server,
                None => self.connect(None).await,
            };
            let hangs_up = self.random.random_bool(0.1);
            let patience = if hangs_up { Duration::from_micros(self.random.random_range(100..8000)) } else { DEADLINE };
            match tokio::time::timeout(patience, try_answer(request(&client))).await {
                Ok(Ok(answer)) if answer.status < 500 => {
                    self.server = Some((url, client));
                    return (answer, tried);
                }
                Err(_) if hangs_up => self.server = Some((url, client)),
                Ok(Ok(_) | Err(_)) | Err(_) => self.server = Some(self.connect(Some(&url)).await),
            }
            tried = true;
        }
    }

    async fn connect(&mut self, last: Option<&str>) -> (String, Client) {
        let url = self.run.next_address(last).await;
        let client = Client::new(&url, Some(&self.run.key));
        (url, client)
    }

    fn bodies(&mut self, count: std::ops::Range<usize>) -> Vec<String> {
        let count = self.random.random_range(count);
        let bodies = (0..count as u64).map(|index| {
            let length = if self.random.random_bool(0.02) { 20_000 } else { self.random.random_range(0..500) };
            Body::new(Writer { sequence: self.next.sequence + index, ..self.next }, length).encode()
        });
        bodies.collect()
    }

    /// The line of the history that content is sent, and that a closing is.
    fn sent(&mut self, name: &str, bodies: &[String], close: bool) -> Option<u64> {
        if close {
            self.run.history.log(Event::MayClose { place: Place::new(name, 0) });
        }
        if bodies.is_empty() {
            return None;
        }
        let op = self.run.history.fresh_id();
        let digests = bodies.iter().map(|body| digest(body.as_bytes())).collect();
        let (topic, first) = (name.to_owned(), self.next);
        self.next.sequence += bodies.len() as u64;
        self.run.history.log(Event::Invoke { op, topic, first, digests, class: Class::Object });
        Some(op)
    }

    fn stored(&self, op: Option<u64>, offset: u64) {
        let Some(op) = op else { return };
        let outcome = Outcome::Ok { partition: 0, offset, class: Class::Object };
        self.run.history.log(Event::Complete { op, outcome });
        self.run.acknowledged.send_modify(|count| *count += 1);
    }
}

impl Append {
    fn request(&self, client: &Client, path: &str) -> RequestBuilder {
        let mut request = client.post(path).header("Producer-Id", &self.producer);
        request = request.header("Producer-Epoch", 0).header("Producer-Seq", self.producer_seq);
        if let Some(seq) = &self.seq {
            request = request.header("Stream-Seq", seq);
        }
        if self.close {
            request = request.header("Stream-Closed", "true");
        }
        if self.bodies.is_empty() {
            return request;
        }
        request.header("Content-Type", JSON).body(format!("[{}]", self.bodies.join(",")))
    }
}

impl Stream {
    /// An answer that tells the end says how it is called.
    fn ended(&mut self, answered: &Answer) {
        let token = answered.header("Stream-Next-Offset").map(str::to_owned);
        if let Some((_, known)) = self.ends.last_mut().filter(|(end, _)| *end == self.tail) {
            *known = token;
        } else {
            self.ends.push((self.tail, token));
        }
    }
}

/// All that the streams hold as the server shows it now, the same by pages of topics and by the protocol of streams.
pub(super) async fn view(run: &Run, client: &Client, streams: &[Stream]) {
    let closed = streams.iter().filter(|stream| stream.closed).count();
    let count = |is: fn(&Stream) -> bool| streams.iter().filter(|stream| is(stream)).count();
    let (forks, deleted) = (count(|stream| stream.source.is_some()), count(|stream| stream.deleted));
    println!("{} streams, {closed} of them closed, {forks} forks, {deleted} deleted", streams.len());
    for stream in streams.iter().filter(|stream| !stream.deleted) {
        let Stream { name, tail, closed, .. } = stream;
        let (mut records, mut next) = (Vec::new(), 0);
        while next < *tail {
            let page = client.page(name, &format!("partition=0&from=offset:{next}&limit=1000")).await;
            let page = Page::of(&page, next);
            assert!(page.next > next && page.lost.is_empty(), "{name} has nothing at {next}");
            records.extend(page.records);
            next = page.next;
        }
        assert_eq!(digests_of(client, name).await, records.iter().map(|seen: &Seen| seen.digest).collect::<Vec<_>>());
        let looked = answer(client.request(Method::HEAD, &path(name))).await;
        let end = offset_of(looked.header("Stream-Next-Offset").expect("the end"));
        assert_eq!((end, looked.header("Stream-Closed") == Some("true")), (*tail, *closed), "{name}");
        let place = Place::new(name.clone(), 0);
        run.history.log(Event::End { place: place.clone(), tail: end, closed: *closed });
        run.history.log(Event::View { place, start: 0, records, lost: Vec::new() });
    }
}

/// The messages of a stream by the protocol of streams.
async fn digests_of(client: &Client, name: &str) -> Vec<u64> {
    let (mut digests, mut offset) = (Vec::new(), "-1".to_owned());
    loop {
        let page = answer(client.get(&format!("{}?offset={offset}", path(name)))).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let messages: Vec<&RawValue> = serde_json::from_slice(&page.body).expect("an array");
        digests.extend(messages.iter().map(|message| digest(message.get().as_bytes())));
        if page.header("Stream-Up-To-Date") == Some("true") {
            return digests;
        }
        page.header("Stream-Next-Offset").expect("where to go on").clone_into(&mut offset);
    }
}

pub(super) fn path(name: &str) -> String {
    format!("/v1/stream/{name}")
}

/// What a token says of the offset: fifteen digits between the tag and those that are not read.
fn offset_of(token: &str) -> u64 {
    let digits: String = token.split('_').collect();
    digits[13..28].parse().expect("digits")
}
