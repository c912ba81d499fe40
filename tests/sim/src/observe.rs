//! Those who read: pages up to the tail, and followers that are woken.

use std::sync::Arc;
use std::time::Duration;

use plinth_audit::{Event, Place};
use plinth_storage::ids::{Offset, Partition};
use plinth_storage::{Error, Kind};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::world::{Handle, PARTITIONS, TOPICS, World};

/// Reads partitions from anywhere to the tail until the run is over.
pub async fn read_pages(world: Arc<World>, number: u64) {
    let mut random = world.random("reader", number);
    while !world.is_over() {
        world.rest(&mut random, 50..2000).await;
        let Some(handle) = world.pick(&mut random) else { continue };
        let stream = any_stream(&world, &mut random);
        let may_go = stream.is_some();
        let (partition, place) = stream.unwrap_or_else(|| any_partition(&world, &mut random));
        let Ok(bounds) = handle.log.bounds(partition) else { continue };
        let from = random.random_range(0..=bounds.tail.0);
        let read = world.history.fresh_id();
        world.history.log(Event::ReadInvoke { read, place: place.clone() });
        let newest = world.newest() == handle.number;
        let (reading, begun) = (World::read(&handle, partition, Offset(from)), Instant::now());
        let Some(answer) = handle.call(tokio::time::timeout(Duration::from_secs(30), reading)).await else { continue };
        let Ok(answer) = answer else { continue };
        let is_newest = newest && world.newest() == handle.number;
        let records = match answer {
            Ok(records) => records,
            // Somebody has deleted the stream.
            Err(_) if may_go && handle.log.bounds(partition).is_err() => continue,
            Err(error) if is_newest && !world.is_ended(&handle).await => {
                check_error(&world, &handle, (partition, &place), (from, begun), &error);
                continue;
            }
            Err(_) => continue,
        };
        world.trace.line(&format!("n{} read of {place} from {from}: {} records", handle.number, records.len()));
        // A session that was ended without knowing it does not know the tail.
        world.history.log(Event::Read { read, place, from, records, lost: Vec::new(), caught_up: is_newest });
    }
}

/// Why a node that knows all of the log may fail a read: by its store, and below the start. What was there when the read
/// began is there for the grace.
fn check_error(
    world: &World,
    handle: &Handle,
    (partition, place): (Partition, &Place),
    (from, begun): (u64, Instant),
    error: &Error,
) {
    let below_start = || handle.log.bounds(partition).is_ok_and(|bounds| from < bounds.start.0);
    let is_wrong = match error.kind() {
        Kind::OutOfRange => !below_start(),
        Kind::Corrupt => handle.reads_whole && begun.elapsed() < handle.grace,
        Kind::NotFound => true,
        Kind::Fenced
        | Kind::Busy
        | Kind::Unavailable
        | Kind::Unknown
        | Kind::Closed
        | Kind::Conflict
        | Kind::Invalid
        | Kind::Refused(_) => false,
    };
    if is_wrong {
        world.wrong(format!("node {} cannot read {place} from {from}: {error}", handle.number));
    }
}

/// Follows one partition, from node to node, until the run is over.
pub async fn follow(world: Arc<World>, number: u64) {
    let mut random = world.random("follower", number);
    let (partition, place) = any_partition(&world, &mut random);
    let mut next = Offset(0);
    while !world.is_over() {
        world.rest(&mut random, 10..500).await;
        let Some(handle) = world.pick(&mut random) else { continue };
        let connection = world.history.fresh_id();
        world.history.log(Event::Attach { connection, place: place.clone(), from: Some(next.0) });
        let limit = Duration::from_millis(random.random_range(1000..20_000));
        let following = follow_on(&world, &handle, (connection, partition, &place), &mut next);
        let _cut = handle.call(tokio::time::timeout(limit, following)).await;
    }
}

/// Follows at one node until something is in the way.
async fn follow_on(
    world: &World,
    handle: &Handle,
    (connection, partition, place): (u64, Partition, &Place),
    next: &mut Offset,
) {
    let mut follow = handle.log.follow();
    follow.add(partition);
    loop {
        let over = tokio::time::timeout(Duration::from_secs(5), follow.changed()).await.is_err() && world.is_over();
        let Ok(bounds) = handle.log.bounds(partition) else { return };
        // A session that was ended without knowing it may not have what another node has shown.
        if over || bounds.tail < *next {
            return;
        }
        if bounds.start > *next {
            *next = bounds.start;
            world.trace.line(&format!("n{} c{connection} goes on in {place} at {next}", handle.number));
            world.history.log(Event::Gap { connection, place: place.clone(), resumed_at: next.0, lost: false });
        }
        let Ok(records) = World::read(handle, partition, *next).await else { return };
        let Some(last) = records.last() else { continue };
        *next = Offset(last.offset + 1);
        world.trace.line(&format!("n{} c{connection} shows {place} up to {next}", handle.number));
        world.history.log(Event::Delivered { connection, place: place.clone(), records });
    }
}

/// One of the later streams, every other time.
fn any_stream(world: &World, random: &mut StdRng) -> Option<(Partition, Place)> {
    let streams = world.streams.all();
    let later = streams.get(streams.len().saturating_sub(12)..)?;
    later.get(random.random_range(0..2 * later.len().max(1))).cloned()
}

fn any_partition(world: &World, random: &mut StdRng) -> (Partition, Place) {
    world.partition(random.random_range(0..TOPICS), random.random_range(0..PARTITIONS))
}
