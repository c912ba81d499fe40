//! Those who change documents and topics. A document has one writer, whose versions rise; each change sets a pair.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plinth_audit::Place;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TopicId};
use plinth_storage::log::{Change, DocOp, TopicOp};
use plinth_storage::record::{Batch, NewRecord};
use plinth_storage::{Error, Kind};
use rand::Rng;
use rand::rngs::StdRng;

use crate::world::{Document, Handle, PARTITIONS, TOPICS, World, is_refusal};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    Yes,
    No,
    Open,
}

/// Makes the topics that live for the whole run.
///
/// # Errors
/// Those of the commit.
pub async fn make_topics(world: &World, handle: &Handle) -> Result<(), Error> {
    let create = |number| TopicOp::Create { topic: world.topic(number), partitions: PARTITIONS };
    handle.log.commit(Change { topics: (0..TOPICS).map(create).collect(), ..Change::default() }).await
}

/// Writes the documents of one writer until the run is over.
pub async fn write_documents(world: Arc<World>, number: u64) {
    let mut random = world.random("documents", number);
    let key = format!("d{number}");
    while !world.is_over() {
        world.rest(&mut random, 50..1500).await;
        let Some(handle) = world.pick(&mut random) else { continue };
        let version = world.document(&key, |document| {
            document.sent += 1;
            document.sent
        });
        let put = |half: &str| DocOp::Put(Bytes::from(format!("{key}{half}")), Bytes::from(version.to_string()));
        let change = Change { docs: vec![put("a"), put("b")], ..Change::default() };
        let changed = commit(&handle, change, &mut random).await;
        world.trace.line(&format!("n{} {key} to {version}: {changed:?}", handle.number));
        world.document(&key, |document| match changed {
            Changed::Yes => document.acknowledged = version,
            Changed::No => document.refused.push(version),
            Changed::Open => {}
        });
        check_documents(&world, &handle);
    }
}

/// What a node shows of the documents is what their writers know; one that may have been ended is not asked, and one that has ended says so.
pub fn check_documents(world: &World, handle: &Handle) {
    if world.newest() != handle.number {
        return;
    }
    for (key, document) in world.documents() {
        let halves = ["a", "b"].map(|half| handle.log.get(format!("{key}{half}").as_bytes()));
        if halves.iter().any(|half| half.as_ref().is_err_and(|error| error.kind() == Kind::Closed)) {
            return;
        }
        let versions = halves.map(|half| half.ok().flatten().map_or(0, |value| version_of(&value)));
        let Document { acknowledged, sent, refused } = &document;
        if versions[0] != versions[1] {
            world.wrong(format!("node {} has a torn pair of {key}: {versions:?}", handle.number));
        }
        if versions[0] < *acknowledged || versions[0] > *sent || refused.contains(&versions[0]) {
            world.wrong(format!("node {} has {key} in version {}, known is {document:?}", handle.number, versions[0]));
        }
    }
}

fn version_of(value: &Bytes) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// Makes topics, writes to them, deletes them, until the run is over.
pub async fn make_and_delete_topics(world: Arc<World>, number: u64) {
    let mut random = world.random("topics", number);
    let mut made = 0;
    while !world.is_over() {
        world.rest(&mut random, 500..4000).await;
        let Some(handle) = world.pick(&mut random) else { continue };
        made += 1;
        let topic = TopicId(ulid::Ulid::from_parts(2 + number, made));
        let create = TopicOp::Create { topic, partitions: 1 };
        if commit(&handle, Change { topics: vec![create], ..Change::default() }, &mut random).await != Changed::Yes {
            continue;
        }
        let partition = Partition { topic, index: PartitionIndex(0) };
        let stored = write_some(&world, &mut random, partition).await;
        check_there(&world, partition, &stored).await;
        let delete = TopicOp::Delete { topic };
        let deleted = commit(&handle, Change { topics: vec![delete], ..Change::default() }, &mut random).await;
        world.trace.line(&format!("n{} topic {made}: {deleted:?}", handle.number));
        if deleted == Changed::Yes {
            check_gone(&world, &handle, partition);
            if let Some(other) = world.pick(&mut random).filter(|other| other.number == world.newest()) {
                check_gone(&world, &other, partition);
            }
        }
    }
}

/// Writes to a new topic for a while; answers the offsets that were acknowledged.
async fn write_some(world: &World, random: &mut StdRng, partition: Partition) -> Vec<Offset> {
    let mut stored = Vec::new();
    for _ in 0..random.random_range(1..8) {
        let Some(handle) = world.pick(random) else { continue };
        let record = NewRecord { payload: Bytes::from_static(b"short-lived"), ..NewRecord::default() };
        let batch = Batch::of(&[record]).expect("one record is a batch");
        match handle.call(handle.log.append(partition, batch)).await {
            Some(Ok(appended)) => stored.push(appended.base),
            // It may be the first one all the same.
            Some(Err(_)) | None if stored.is_empty() => return stored,
            Some(Err(_)) | None => {}
        }
        world.rest(random, 0..1500).await;
    }
    if stored.first().is_some_and(|first| *first != Offset(0)) {
        world.wrong(format!("the first record of a new topic is at {:?}", stored[0]));
    }
    stored
}

/// What was stored in a topic that was not deleted is there.
async fn check_there(world: &World, partition: Partition, stored: &[Offset]) {
    let Some(handle) = world.the_newest() else { return };
    let read = handle.call(tokio::time::timeout(Duration::from_secs(20), World::read(&handle, partition, Offset(0))));
    let (Some(Ok(Ok(read))), true) = (read.await, world.newest() == handle.number) else { return };
    if let Some(lost) = stored.iter().find(|offset| !read.iter().any(|seen| seen.offset == offset.0)) {
        world.wrong(format!("node {} lacks offset {lost} of {partition}", handle.number));
    }
}

fn check_gone(world: &World, handle: &Handle, partition: Partition) {
    match handle.log.bounds(partition) {
        Err(error) if error.kind() == Kind::NotFound => {}
        other => {
            let place = Place::new(partition.topic.0.to_string(), 0);
            world.wrong(format!("node {} still has {place}, which was deleted: {other:?}", handle.number));
        }
    }
}

async fn commit(handle: &Handle, change: Change, random: &mut StdRng) -> Changed {
    let limit = Duration::from_millis(random.random_range(500..15_000));
    match handle.call(tokio::time::timeout(limit, handle.log.commit(change))).await {
        Some(Ok(Ok(()))) => Changed::Yes,
        Some(Ok(Err(error))) if is_refusal(&error) => Changed::No,
        Some(Ok(Err(_)) | Err(_)) | None => Changed::Open,
    }
}
