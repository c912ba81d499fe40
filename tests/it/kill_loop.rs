//! The server is killed at random moments, sometimes while it starts, its cache directory is removed at random, and the
//! history of all publishes and of everything that anybody was shown is judged at the end.
//!
//! A third of the producers give up an outcome that is not known and go on as somebody else; the others send the same
//! again until they have a receipt, by a producer's sequence or by an idempotency key, and sometimes hang up before the
//! answer only to do so.
//!
//! The topics have all three durability classes: what was acknowledged in a weaker one may be lost, and is told as a gap then.
//!
//! Beside them streams are written by the protocol of Durable Streams (`kill_loop/streams.rs`): nothing of an append is there without the
//! rest of it, what is closed stays so, and forks begin with what their sources had, also when those are deleted (`kill_loop/forks.rs`).
//!
//! `PLINTH_KILLS` sets the number of kills (20 when it is not set), `PLINTH_TEST_SEED` repeats the choices of a run.
//!
//! Each of these changes to the code makes it fail: an answer before the PUT of the slot is confirmed (lost);
//! acknowledging a slot while a lower one is in flight (lost, went back); showing records to readers before the commit
//! (vanished); a replay that begins one slot too high (lost) or applies a slot twice (changed, duplicate); a tail that is
//! taken from the cache directory (went back, changed); a follower that goes on at the tail after a reconnect (skipped);
//! `not_stored` for a publish whose slot is under way (phantom); a sequence or a key that is committed without its records, is
//! not replayed, or is not in a checkpoint (duplicate, lost); a deletion that takes the records along of a stream that has forks, or
//! that leaves a source when the last fork is gone (a fork cannot be read, a path says 410).

mod driver;
mod forks;
mod shown;
mod streams;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::BufWriter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plinth_api::records::{Gap, Record, RecordPage};
use plinth_audit::history::{Class, Event, History, Place, Seen, write_events};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::driver::Driver;
use self::shown::{Live, Page, Shown, Transport};
use crate::client::{Client, answer, payload, try_answer, within};
use crate::disks::Disk;
use crate::harness::Server;

const KILLS: u64 = 20;
const PRODUCERS: u64 = 6;
/// Topics that the kill loop writes to: name, partitions, durability class.
const TOPICS: [(&str, u32, Class); 4] =
    [("one", 1, Class::Object), ("wide", 3, Class::Object), ("near", 1, Class::Local), ("fast", 2, Class::Memory)];

/// What all tasks of a run share.
#[derive(Clone)]
struct Run {
    seed: u64,
    topics: &'static [(&'static str, u32, Class)],
    key: Arc<str>,
    history: Arc<History>,
    /// Where the server is; `None` between a kill and the next start.
    address: watch::Receiver<Option<String>>,
    /// How many publishes were answered with a receipt.
    acknowledged: watch::Sender<u64>,
    /// How many of those had been stored by a request that got no answer.
    repeated: Arc<AtomicU64>,
    stage: watch::Receiver<Stage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Publish,
    /// Producers are done: followers end when they have seen all up to these tails.
    Settle(BTreeMap<(String, u32), u64>),
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_shown_is_taken_back_over_many_kills() {
    run(KILLS, Disk::Plain).await;
}

/// The loop, with a server on `disk` and `kills` kills when nothing else is set.
pub(crate) async fn run(kills: u64, mut disk: Disk) {
    let kills = number("PLINTH_KILLS").unwrap_or(kills);
    let seed = number("PLINTH_TEST_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("kill loop: {kills} kills, seed {seed} (PLINTH_TEST_SEED={seed} repeats it)");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start_with(disk.options()).await;
    // On a disk that fails `local` promises nothing.
    let topics = if disk.keeps_files() { &TOPICS[..] } else { &TOPICS[..2] };
    make_topics(&server.client(), topics).await;
    let (address, address_of) = watch::channel(Some(server.url().to_owned()));
    let (stage, stage_of) = watch::channel(Stage::Publish);
    let (acknowledged, _) = watch::channel(0);
    let history = Arc::new(History::new());
    let key = server.key().into();
    let run = Run {
        seed,
        topics,
        key,
        history,
        address: address_of,
        acknowledged,
        repeated: Arc::default(),
        stage: stage_of,
    };
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(Driver::new(run.clone(), producer).produce());
    }
    let writers = streams::begin(&run);
    let mut followers = JoinSet::new();
    for (topic, partitions, _) in topics {
        followers.spawn(run.clone().follow(topic, *partitions, Transport::Sse));
        followers.spawn(run.clone().follow(topic, *partitions, Transport::Ws));
        followers.spawn(run.clone().poll(topic, *partitions));
    }
    for kill in 0..kills {
        run.some_progress(random.random_range(1..150)).await;
        if disk.trouble() {
            run.some_progress(random.random_range(1..150)).await;
        }
        disk.kill(&mut server).await;
        address.send_replace(None);
        let wipe = random.random_bool(0.3) && disk.takes_writes();
        if random.random_bool(0.3) {
            server.abortive_start(Duration::from_millis(random.random_range(1..300))).await;
        }
        run.history.log(Event::Died { wiped: wipe });
        server.restart(wipe).await;
        println!("kill {kill}: cache wiped: {wipe}, {} acknowledged", *run.acknowledged.borrow());
        address.send_replace(Some(server.url().to_owned()));
    }
    run.some_progress(50).await;
    stage.send_replace(Stage::Settle(BTreeMap::new()));
    within("the end of the producers", producers.join_all()).await;
    let streams = within("the end of the writers of streams", writers.join_all()).await.concat();
    server.kill9().await;
    disk.mend().await;
    address.send_replace(None);
    run.history.log(Event::Died { wiped: true });
    server.restart(true).await;
    let tails = run.view(&server.client()).await;
    streams::view(&run, &server.client(), &streams).await;
    stage.send_replace(Stage::Settle(tails));
    address.send_replace(Some(server.url().to_owned()));
    within("the followers' last records", followers.join_all()).await;
    run.view(&server.client()).await;
    forks::end(&server.client(), &streams).await;
    judge(&run);
}

async fn make_topics(client: &Client, topics: &[(&str, u32, Class)]) {
    for (topic, partitions, class) in topics {
        let made = json!({"partitions": partitions, "durability": class});
        let made = answer(client.put(&format!("/v1/topics/{topic}")).json(&made)).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
}

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn judge(run: &Run) {
    let events = run.history.events();
    let violations = plinth_audit::check(&events);
    if violations.is_empty() {
        let (acknowledged, repeated) = (*run.acknowledged.borrow(), run.repeated.load(Ordering::Relaxed));
        let is_loss = |event: &&Event| matches!(event, Event::View { lost, .. } if !lost.is_empty());
        let losses = events.iter().filter(is_loss).count();
        return println!(
            "{} events, {acknowledged} acknowledged, {repeated} when repeated, {losses} views with gaps, no violation",
            events.len()
        );
    }
    let path = std::env::temp_dir().join(format!("plinth-history-{}.jsonl", run.seed));
    let file = std::fs::File::create(&path).expect("the history can be kept");
    write_events(&events, BufWriter::new(file)).expect("the history can be kept");
    let first: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
    panic!("seed {}: {} violations, history in {}:\n{}", run.seed, violations.len(), path.display(), first.join("\n"));
}

impl Run {
    /// Waits until `count` more publishes are acknowledged: after each kill the server must work again.
    async fn some_progress(&self, count: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        let goal = *acknowledged.borrow() + count;
        let _reached = within("progress", acknowledged.wait_for(|now| *now >= goal)).await.expect("the sender is here");
    }

    /// The next address of the server that is not `last`.
    async fn next_address(&mut self, last: Option<&str>) -> String {
        let fresh = self.address.wait_for(|address| address.is_some() && address.as_deref() != last);
        within("a restart", fresh).await.expect("the test holds the sender").clone().expect("it was checked")
    }

    fn publishing(&self) -> bool {
        *self.stage.borrow() == Stage::Publish
    }

    /// Follows a topic over one connection after the other, each going on where the last one ended.
    async fn follow(mut self, topic: &'static str, partitions: u32, transport: Transport) {
        let mut place = Position { topic, partitions, next: BTreeMap::new(), cursor: None };
        let mut url = None;
        while !self.settled(&place) {
            let at = self.next_address(url.as_deref()).await;
            let client = Client::new(&at, Some(&self.key));
            let Some(mut live) = Live::open(&client, &place, transport).await else {
                url = Some(at);
                continue;
            };
            let connection = self.history.fresh_id();
            for partition in 0..partitions {
                let from = Some(place.next.get(&partition).copied().unwrap_or(0));
                self.history.log(Event::Attach { connection, place: Place::new(topic, partition), from });
            }
            while !self.settled(&place) {
                let shown = tokio::select! {
                    shown = live.next() => shown,
                    changed = self.stage.changed() => {
                        changed.expect("the test holds the sender");
                        continue;
                    }
                };
                match shown {
                    Shown::Records(records, cursor) => {
                        self.deliver(connection, &mut place, &records);
                        place.cursor = cursor.or(place.cursor);
                    }
                    Shown::Gap(gap, cursor) => {
                        self.go_on(connection, &mut place, &gap);
                        place.cursor = cursor.or(place.cursor);
                    }
                    Shown::End => break,
                }
            }
            url = Some(at);
        }
    }

    fn deliver(&self, connection: u64, place: &mut Position, records: &[Record]) {
        for record in records {
            let seen = vec![Seen::new(record.offset, &payload(record))];
            let at = Place::new(place.topic, record.partition);
            self.history.log(Event::Delivered { connection, place: at, records: seen });
            place.next.insert(record.partition, record.offset + 1);
        }
    }

    /// Nothing is trimmed here, so a gap means that records are lost, or gone; the audit says whether they may be.
    fn go_on(&self, connection: u64, place: &mut Position, gap: &Gap) {
        let at = Place::new(place.topic, gap.partition);
        self.history.log(Event::Gap { connection, place: at, resumed_at: gap.resumed_at, lost: gap.reason == "lost" });
        place.next.insert(gap.partition, gap.resumed_at);
    }

    /// Reads page after page by offset, each partition in turn, waiting at the tail.
    async fn poll(mut self, topic: &'static str, partitions: u32) {
        let mut place = Position { topic, partitions, next: BTreeMap::new(), cursor: None };
        let mut url = self.next_address(None).await;
        let mut partition = 0;
        while !self.settled(&place) {
            partition = (partition + 1) % partitions;
            let from = place.next.get(&partition).copied().unwrap_or(0);
            let read = self.history.fresh_id();
            let at = Place::new(topic, partition);
            self.history.log(Event::ReadInvoke { read, place: at.clone() });
            let path = format!("/v1/topics/{topic}/records?partition={partition}&from=offset:{from}&wait=1s&limit=100");
            let client = Client::new(&url, Some(&self.key));
            let Some(answer) = try_answer(client.get(&path)).await.ok().filter(|answer| answer.status < 500) else {
                url = self.next_address(Some(&url)).await;
                continue;
            };
            if answer.status == 416 {
                // What was read is gone; the audit says what.
                place.next.insert(partition, answer.problem().tail.expect("416 names the tail"));
                continue;
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
            let page: RecordPage = answer.parse();
            let Page { records, lost, next } = Page::of(&page, from);
            place.next.insert(partition, next);
            self.history.log(Event::Read { read, place: at, from, records, lost, caught_up: page.caught_up });
        }
    }

    fn settled(&self, place: &Position) -> bool {
        let Stage::Settle(tails) = &*self.stage.borrow() else { return false };
        let reached = |partition: u32| {
            let tail = tails.get(&(place.topic.to_owned(), partition));
            tail.is_some_and(|tail| place.next.get(&partition).copied().unwrap_or(0) >= *tail)
        };
        (0..place.partitions).all(reached)
    }

    /// Everything as the server shows it now, and the tails.
    async fn view(&self, client: &Client) -> BTreeMap<(String, u32), u64> {
        let mut tails = BTreeMap::new();
        for (topic, partitions, _) in self.topics {
            for partition in 0..*partitions {
                let (mut records, mut lost, mut next, mut caught_up) = (Vec::new(), Vec::new(), 0, false);
                while !caught_up {
                    let page =
                        client.page(topic, &format!("partition={partition}&from=offset:{next}&limit=1000")).await;
                    caught_up = page.caught_up;
                    let page = Page::of(&page, next);
                    records.extend(page.records);
                    lost.extend(page.lost);
                    next = page.next;
                }
                tails.insert(((*topic).to_owned(), partition), next);
                self.history.log(Event::View { place: Place::new(*topic, partition), start: 0, records, lost });
            }
        }
        tails
    }
}

/// Where a follower is in its topic.
struct Position {
    topic: &'static str,
    partitions: u32,
    next: BTreeMap<u32, u64>,
    cursor: Option<String>,
}
