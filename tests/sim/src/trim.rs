//! Those who let records go: by hand, and by what a topic keeps; and the one who watches that nothing else goes.
//!
//! Of the topics that live for the whole run the first one is trimmed by hand, the last one has a retention, the others
//! keep everything.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plinth_audit::{Event, Place};
use plinth_storage::ids::{Offset, Partition, Timestamp};
use plinth_storage::log::{Change, Retention, TopicOp};
use rand::Rng;
use rand::rngs::StdRng;

use crate::sleep;
use crate::world::{Handle, PARTITIONS, TOPICS, World};

const TRIMMED: u64 = 0;
const RETAINED: u64 = TOPICS - 1;
/// A turn of retention comes at least so often, and what is due goes with the next one.
const RETENTION_LATE: Duration = Duration::from_secs(60);

/// What is known of the topic with a retention.
#[derive(Debug, Default)]
pub struct Retained {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The time of a batch, by the offset after it.
    times: BTreeMap<Place, BTreeMap<u64, Timestamp>>,
    /// The shortest age that was ever asked for, and whether a limit of bytes was.
    age_ms: Option<u64>,
    bytes: bool,
}

impl Retained {
    /// A batch was acknowledged with this time; `next` is the offset after it.
    pub fn stored(&self, place: &Place, next: Offset, time: Timestamp) {
        self.lock().times.entry(place.clone()).or_default().insert(next.0, time);
    }

    fn asks(&self, retention: Retention) {
        let mut inner = self.lock();
        inner.age_ms = inner.age_ms.into_iter().chain(retention.age_ms.map(NonZeroU64::get)).min();
        inner.bytes |= retention.bytes.is_some();
    }

    /// The time of the youngest batch below `start`, if it went before it was old enough.
    fn too_young(&self, place: &Place, start: Offset, now: Timestamp) -> Option<Timestamp> {
        let inner = self.lock();
        let (_, time) = inner.times.get(place)?.range(..=start.0).next_back()?;
        let is_old = |age: u64| time.0 + age < now.0;
        (!inner.bytes && !inner.age_ms.is_some_and(is_old)).then_some(*time)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Trims the first topic by hand until the run is over.
pub async fn trim(world: Arc<World>, number: u64) {
    let mut random = world.random("trims", number);
    while !world.is_over() {
        world.rest(&mut random, 100..4000).await;
        let Some(handle) = world.pick(&mut random) else { continue };
        let (partition, place) = world.partition(TRIMMED, random.random_range(0..PARTITIONS));
        let Ok(bounds) = handle.log.bounds(partition) else { continue };
        // Now and then all of it, most often a part.
        let all = random.random_range(0..6) == 0;
        let before = if all { bounds.tail.0 } else { random.random_range(bounds.start.0..=bounds.tail.0) };
        world.history.log(Event::MayTrim { place: place.clone(), before: Some(before) });
        let limit = Duration::from_millis(random.random_range(500..15_000));
        let starts = [(partition, Offset(before))];
        let trim = tokio::time::timeout(limit, handle.log.trim(&starts));
        let trimmed = handle.call(trim).await;
        world.trace.line(&format!(
            "n{} trims {place} to {before}: {}",
            handle.number,
            matches!(trimmed, Some(Ok(Ok(_))))
        ));
        if let Some(Ok(Ok(_))) = trimmed {
            world.history.log(Event::Trimmed { place, start: before });
        }
    }
}

/// Sets what the last topic keeps, and sets it again now and then, until the run is over.
pub async fn retain(world: Arc<World>) {
    let mut random = world.random("retention", 0);
    for (_, place) in world.partitions_of(RETAINED) {
        world.history.log(Event::MayTrim { place, before: None });
    }
    let by = random.random_range(0..3);
    while !world.is_over() {
        let limits = (random.random_range(1000..20_000), random.random_range(1000..30_000));
        let retention = Retention {
            age_ms: NonZeroU64::new(limits.0).filter(|_| by != 1),
            bytes: NonZeroU64::new(limits.1).filter(|_| by != 0),
        };
        if let Some(handle) = world.pick(&mut random) {
            let _whether = set(&world, &handle, retention).await;
        }
        world.rest(&mut random, 1000..20_000).await;
    }
}

async fn set(world: &World, handle: &Handle, retention: Retention) -> bool {
    world.retained.asks(retention);
    let op = TopicOp::SetRetention { topic: world.topic(RETAINED), retention };
    let change = Change { topics: vec![op], ..Change::default() };
    let set = handle.call(tokio::time::timeout(Duration::from_secs(10), handle.log.commit(change))).await;
    world.trace.line(&format!("n{} keeps {retention:?}: {}", handle.number, matches!(set, Some(Ok(Ok(()))))));
    matches!(set, Some(Ok(Ok(()))))
}

/// Looks at what the newest node has and needs until the run is over.
pub async fn watch(world: Arc<World>) {
    let mut random = world.random("watch", 0);
    while !world.is_over() {
        world.rest(&mut random, 100..800).await;
        // A start that has not come through may have ended it, and owns what there is.
        let newest = world.the_newest();
        if let Some(handle) = newest
            && !world.is_ended(&handle).await
        {
            look(&world, &handle);
        }
    }
}

/// What a node that knows all of the log has and needs now.
pub fn look(world: &World, handle: &Handle) {
    match handle.log.needed_objects() {
        Ok(objects) => world.deletions.needed(handle.number, objects.into_iter().collect(), true),
        Err(error) => world.wrong(format!("node {} has a broken state: {error}", handle.number)),
    }
    for (partition, place) in world.partitions() {
        let Ok(bounds) = handle.log.bounds(partition) else { continue };
        world.history.log(Event::Start { place: place.clone(), start: bounds.start.0 });
        if partition.topic != world.topic(RETAINED) {
            continue;
        }
        let now = handle.log.now();
        if let Some(time) = world.retained.too_young(&place, bounds.start, now) {
            world.wrong(format!("{place} begins at {} at {now:?}, and lets go of a batch of {time:?}", bounds.start));
        }
    }
}

/// With nobody who publishes, what is too old goes, and then everything that nothing needs.
pub async fn must_free(world: &World, handle: &Handle, random: &mut StdRng) {
    let age_ms = NonZeroU64::new(random.random_range(1..5000));
    if set(world, handle, Retention { age_ms, bytes: None }).await {
        sleep(RETENTION_LATE).await;
        for (partition, place) in world.partitions_of(RETAINED) {
            must_be_empty(world, handle, (partition, &place));
        }
    }
    // A sweep that is under way may have begun before something was let go of; the next one finds the rest.
    for _ in 0..3 {
        if let Err(error) = handle.log.checkpoint().await {
            return world.wrong(format!("node {} writes no checkpoint: {error}", handle.number));
        }
        sleep(handle.sweep_interval + 2 * handle.grace).await;
    }
    look(world, handle);
    let left = world.not_needed(handle).await;
    if let Some(first) = left.first() {
        world.wrong(format!("{} objects that nothing needs are left, {first} is one", left.len()));
    }
}

fn must_be_empty(world: &World, handle: &Handle, (partition, place): (Partition, &Place)) {
    let bounds = handle.log.bounds(partition);
    if !bounds.as_ref().is_ok_and(|bounds| bounds.start == bounds.tail && bounds.bytes == 0) {
        world.wrong(format!("node {} keeps of {place} what is too old: {bounds:?}", handle.number));
    }
}
