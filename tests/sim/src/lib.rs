//! Runs the log core in a virtual world and judges what came of it.
//!
//! One seed is one history: one thread, a paused clock that moves when nobody has anything to do, random numbers from
//! the seed, a store in memory that loses answers, applies late, says 409, is slow, is away ([`chaos`], and the fault
//! store of the core), nodes that are killed, paused and taken over from ([`fate`]), clients that publish, read, follow,
//! write, close and fork streams, change the catalog and let records go ([`publish`], [`observe`], [`streams`], [`forks`], [`weak`], [`catalog`], [`trim`]). Tenants come, go and are purged
//! ([`tenants`]). Nodes delete what nothing needs, and only that ([`deletions`]). Then the bucket is read by a node that was there and by a cold one, and the recorded history is judged by `plinth-audit`. The same seed gives the same trace, line by line.
//!
//! The disk is not part of it: the state is kept in memory, and so is every page that was read.

pub mod catalog;
pub mod chaos;
pub mod deletions;
pub mod fate;
pub mod flag;
pub mod forks;
pub mod observe;
pub mod publish;
pub mod streams;
pub mod tenants;
pub mod trace;
pub mod trim;
pub mod weak;
pub mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plinth_audit::Event;
use plinth_audit::history::Outcome;
use plinth_storage::ids::Partition;
use plinth_storage::testing::bug::{Bug, plant};
use tokio::task::JoinSet;

use crate::chaos::Weather;
use crate::publish::{Publisher, Stored};
use crate::streams::{Stream, StreamWriter};
use crate::weak::{WeakStream, WeakWriter};
use crate::world::{Handle, World};

/// How long clients and fate go on, by the virtual clock.
const RUN: Duration = Duration::from_secs(60);
/// By then all is over.
const LONGEST: Duration = Duration::from_secs(60 * 60);
const PUBLISHERS: u64 = 5;
const FOLLOWERS: u64 = 2;
const READERS: u64 = 2;
const WRITERS: u64 = 2;
const STREAM_WRITERS: u64 = 3;

/// What must be known for ever.
#[derive(Default)]
struct Left {
    batches: Vec<Stored>,
    streams: Vec<Stream>,
    weak: Vec<WeakStream>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash of the trace.
    pub trace: u64,
    /// Publishes that were acknowledged.
    pub acknowledged: usize,
    /// Objects that were deleted while clients and fate went on.
    pub deleted: usize,
    /// Tenants that were deleted and purged while clients and fate went on.
    pub purged: usize,
    /// Streams that were closed.
    pub closed: usize,
    /// Streams that were made as forks.
    pub forked: usize,
    /// Streams that were deleted while they had forks.
    pub kept: usize,
    /// Starts that came through.
    pub takeovers: usize,
    /// What must not be; empty when every promise held.
    pub wrong: Vec<String>,
    /// The lines of the trace, if they were asked for.
    pub lines: Option<String>,
}

/// Runs one seed, with a bug in the core if one is named.
///
/// # Panics
/// When the runtime cannot be made.
#[must_use]
pub fn run(seed: u64, bug: Option<Bug>, keep_trace: bool) -> Report {
    let _planted = plant(bug);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O can be made").block_on(live(seed, keep_trace))
}

async fn live(seed: u64, keep_trace: bool) -> Report {
    let world = World::new(seed, keep_trace);
    let deleted = match tokio::time::timeout(LONGEST, history(&world)).await {
        Ok(deleted) => deleted,
        Err(_) => {
            world.wrong(format!("after {LONGEST:?} something is still under way"));
            world.deletions.count()
        }
    };
    world.stop_watching();
    let mut wrong = world.all_wrong();
    let events = world.history.events();
    wrong.extend(plinth_audit::check(&events).iter().map(ToString::to_string));
    let is_acknowledged = |event: &&Event| matches!(event, Event::Complete { outcome: Outcome::Ok { .. }, .. });
    let acknowledged = events.iter().filter(is_acknowledged).count();
    let closed = events
        .iter()
        .filter_map(|event| if let Event::End { place, closed: true, .. } = event { Some(place) } else { None });
    let closed = closed.collect::<BTreeSet<_>>().len();
    Report {
        seed,
        trace: world.trace.hash(),
        acknowledged,
        deleted,
        purged: world.tenants.purged(),
        closed,
        forked: world.streams.forks.load(Ordering::Relaxed),
        kept: world.streams.kept.load(Ordering::Relaxed),
        takeovers: world.starts(),
        wrong,
        lines: world.trace.kept(),
    }
}

/// All that happens; answers how many objects were deleted before the end.
async fn history(world: &Arc<World>) -> usize {
    begin(world).await;
    let mut publishers = JoinSet::new();
    for number in 0..PUBLISHERS {
        publishers.spawn(Publisher::new(world, number).run());
    }
    let mut others = JoinSet::new();
    (0..READERS).for_each(|number| drop(others.spawn(observe::read_pages(Arc::clone(world), number))));
    (0..FOLLOWERS).for_each(|number| drop(others.spawn(observe::follow(Arc::clone(world), number))));
    (0..WRITERS).for_each(|number| drop(others.spawn(catalog::write_documents(Arc::clone(world), number))));
    let mut stream_writers = JoinSet::new();
    for number in 0..STREAM_WRITERS {
        stream_writers.spawn(StreamWriter::new(world, number).run());
    }
    let mut weak_writers = JoinSet::new();
    weak_writers.spawn(WeakWriter::new(world).run());
    others.spawn(streams::watch(Arc::clone(world)));
    others.spawn(catalog::make_and_delete_topics(Arc::clone(world), 0));
    others.spawn(tenants::come_and_go(Arc::clone(world), 0));
    others.spawn(tenants::purge(Arc::clone(world)));
    others.spawn(trim::trim(Arc::clone(world), 0));
    others.spawn(trim::retain(Arc::clone(world)));
    others.spawn(trim::watch(Arc::clone(world)));
    others.spawn(fate::rule(Arc::clone(world)));
    sleep(RUN).await;
    world.end();
    let mut left = Left::default();
    while let Some(last) = publishers.join_next().await {
        left.batches.extend(last.expect("a publisher does not panic"));
    }
    while let Some(streams) = stream_writers.join_next().await {
        left.streams.extend(streams.expect("a writer of streams does not panic"));
    }
    while let Some(streams) = weak_writers.join_next().await {
        left.weak.extend(streams.expect("a writer of streams does not panic"));
    }
    while let Some(ended) = others.join_next().await {
        ended.expect("an actor does not panic");
    }
    let deleted = world.deletions.count();
    end(world, &left).await;
    deleted
}

/// The first node and the topics, before fate begins.
async fn begin(world: &Arc<World>) {
    let Some(first) = start(world, "the first").await else { return };
    if let Err(error) = catalog::make_topics(world, &first).await {
        world.wrong(format!("the topics are not made: {error}"));
    }
}

/// In good weather, with everything late landed: what a new node shows is right, it deletes all that nothing needs,
/// another one after it shows the same, deletes all streams, and purges all tenants without harm to others.
async fn end(world: &Arc<World>, left: &Left) {
    let (mut random, mut newest) = (world.random("end", 0), None);
    for node in ["the last", "a cold"] {
        for faults in world.all_faults() {
            faults.release().await;
        }
        let Some(handle) = start(world, node).await else { return };
        look_around(world, &handle, left).await;
        trim::must_free(world, &handle, &mut random).await;
        tenants::must_stay_gone(world, &handle).await;
        newest = Some(handle);
    }
    if let Some(cold) = newest {
        forks::must_leave_no_row(world, &cold).await;
        tenants::must_leave_nothing(world, &cold).await;
        forks::must_leave_no_record(world).await;
        look_around(world, &cold, &Left { batches: left.batches.clone(), ..Left::default() }).await;
    }
}

async fn start(world: &Arc<World>, which: &str) -> Option<Handle> {
    match world.start(Weather::default(), 0).await {
        Ok(handle) => Some(handle),
        Err(error) => {
            world.wrong(format!("{which} node does not start: {error}"));
            None
        }
    }
}

async fn look_around(world: &World, handle: &Handle, left: &Left) {
    world.view(handle).await;
    streams::view(world, handle).await;
    weak::view_all(world, handle, &left.weak).await;
    catalog::check_documents(world, handle);
    for stored in &left.batches {
        stored.must_be_known(world, handle).await;
    }
    for stream in &left.streams {
        stream.must_be_known(world, handle).await;
    }
    for (partition, place) in world.partitions().into_iter().chain(left.streams.iter().map(Stream::place)) {
        if let Err(why) = is_dense(handle, partition).await {
            world.wrong(format!("{place} at node {}: {why}", handle.number));
        }
    }
}

/// Batches stand side by side from the start to the tail, and their times do not go back.
async fn is_dense(handle: &Handle, partition: Partition) -> Result<(), String> {
    let bounds = handle.log.bounds(partition).map_err(|error| error.to_string())?;
    let (mut next, mut time, mut first) = (bounds.start, plinth_storage::ids::Timestamp(0), true);
    while next < bounds.tail {
        let batches = handle.log.read(partition, next, 1 << 20).await.map_err(|error| error.to_string())?;
        for batch in batches {
            // A start may lie within a batch.
            let continues = batch.base == next || (first && batch.base < next && next < batch.next());
            first = false;
            if !continues || batch.timestamp < time {
                return Err(format!("a batch at {:?}, {:?} after {next:?}, {time:?}", batch.base, batch.timestamp));
            }
            (next, time) = (batch.next(), batch.timestamp);
        }
    }
    (next == bounds.tail).then_some(()).ok_or_else(|| format!("it goes on to {next:?} above {:?}", bounds.tail))
}

/// Sleeps by the virtual clock.
pub(crate) async fn sleep(long: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the clock is virtual, and to pass the time is what the actors do")]
    tokio::time::sleep(long).await;
}
