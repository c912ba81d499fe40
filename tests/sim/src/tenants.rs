//! Tenants, as the core knows them: topics, forks of them, and documents that come and go together. A node purges what they have left, and
//! then no object holds anything of them (ADR 23).
//!
//! Everything of a tenant carries its mark: payloads, keys and headers of records, keys and values of documents. Who deletes
//! it leaves a document without the mark, as the gateway does; the purge goes by these, so one that a crash cuts off is
//! begun again. What a late put brings back of an ended log is for the next sweep, and not a fault of the purge before it.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use plinth_storage::ids::{Partition, PartitionIndex, TopicId};
use plinth_storage::log::{Change, DocOp, ForkPoint, Guard, TopicOp};
use plinth_storage::record::{Batch, NewRecord};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::{Instant, timeout};
use ulid::Ulid;

use crate::world::{Handle, World};

/// Topics of each, of one partition.
const TOPICS: u64 = 2;
/// Forks of each, of these and of one another.
const FORKS: u64 = 3;
/// A document for each tenant that is deleted and not purged.
const LEFT: &str = "left/";
const LEFT_MAX: usize = 1000;
/// Every frame of Zstandard begins with it.
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A purge that takes longer is left alone; the next one begins again.
const PURGE_LIMIT: Duration = Duration::from_secs(90);

/// The tenants of one run.
#[derive(Debug, Default)]
pub struct Tenants {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    made: u64,
    purged: BTreeSet<u64>,
}

impl Tenants {
    /// How many were purged while clients and fate went on.
    #[must_use]
    pub fn purged(&self) -> usize {
        self.lock().purged.len()
    }

    fn next(&self) -> Tenant {
        let mut inner = self.lock();
        inner.made += 1;
        Tenant(inner.made)
    }

    fn all(&self) -> Vec<Tenant> {
        (1..=self.lock().made).map(Tenant).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, by its number.
#[derive(Clone, Copy, Debug)]
struct Tenant(u64);

impl Tenant {
    /// What is in all that it stores, and in nothing else.
    fn mark(self, world: &World) -> String {
        format!("mark-{:032x}", world.random("mark", self.0).random::<u128>())
    }

    fn topic(self, number: u64) -> TopicId {
        TopicId(Ulid::from_parts(1000 + self.0, u128::from(number) + 1))
    }

    fn partition(self, number: u64) -> Partition {
        Partition { topic: self.topic(number), index: PartitionIndex(0) }
    }

    fn left(self) -> Bytes {
        Bytes::from(format!("{LEFT}{}", self.0))
    }

    fn document(self, world: &World) -> Bytes {
        Bytes::from(format!("tenant/{}", self.mark(world)))
    }

    fn creation(self, world: &World) -> Change {
        let create = |number| TopicOp::Create { topic: self.topic(number), partitions: 1 };
        let topics = (0..TOPICS).map(create).collect();
        let docs = vec![DocOp::Put(self.document(world), self.mark(world).into())];
        Change { topics, docs, ..Change::default() }
    }

    /// A fork of a topic that came before, at its end by now.
    fn fork(self, handle: &Handle, number: u64, random: &mut StdRng) -> Option<Change> {
        let source = self.partition(random.random_range(0..number));
        let point = ForkPoint { at: handle.log.bounds(source).ok()?.tail, cut: None };
        let fork = TopicOp::Fork { topic: self.topic(number), source: source.topic, point };
        Some(Change { topics: vec![fork], ..Change::default() })
    }

    /// All its topics at once, in any order.
    fn deletion(self, world: &World) -> Change {
        let delete = |number| TopicOp::Delete { topic: self.topic(number) };
        let mut topics: Vec<TopicOp> = (0..TOPICS + FORKS).map(delete).collect();
        topics.shuffle(&mut world.random("order", self.0));
        let docs = vec![DocOp::Delete(self.document(world)), DocOp::Put(self.left(), Bytes::new())];
        // One that comes twice would bring back what the first purge has left nothing of.
        Change { guards: vec![Guard::Present(self.document(world))], topics, docs }
    }

    /// Whether a node that knows all of the log has nothing of it.
    fn is_gone(self, world: &World, handle: &Handle) -> bool {
        let is_newest = world.newest() == handle.number;
        is_newest && handle.log.get(&self.document(world)).is_ok_and(|document| document.is_none())
    }
}

/// Makes tenants, writes to their topics, deletes them, until the run is over.
pub async fn come_and_go(world: Arc<World>, number: u64) {
    let mut random = world.random("tenants", number);
    while !world.is_over() {
        world.rest(&mut random, 100..3000).await;
        let Some(handle) = world.pick(&mut random) else { continue };
        let tenant = world.tenants.next();
        if commit(&handle, tenant.creation(&world)).await {
            publish(&world, &mut random, tenant).await;
        }
        go(&world, &mut random, tenant).await;
    }
}

/// Publishes for a while, beside everybody else.
async fn publish(world: &World, random: &mut StdRng, tenant: Tenant) {
    let mark = tenant.mark(world);
    let (mut stored, mut made) = (false, TOPICS);
    for _ in 0..random.random_range(1..10) {
        let Some(handle) = world.pick(random) else { continue };
        if made < TOPICS + FORKS
            && random.random_range(0..3) == 0
            && let Some(fork) = tenant.fork(&handle, made, random)
        {
            let forked = commit(&handle, fork).await;
            world.trace.line(&format!("n{} {tenant:?} forks: {forked}", handle.number));
            made += 1;
        }
        let partition = tenant.partition(random.random_range(0..made));
        let filler: String = (0..random.random_range(0..300)).map(|_| random.random_range('a'..='z')).collect();
        let record = NewRecord {
            key: Some(Bytes::from(format!("key {mark}"))),
            headers: vec![(Bytes::from_static(b"of"), Bytes::from(mark.clone()))],
            payload: Bytes::from(format!("payload {mark} {filler}")),
            ..NewRecord::default()
        };
        let batch = Batch::of(&[record]).expect("one record is a batch");
        let append = handle.log.append(partition, batch);
        let appended = handle.call(timeout(Duration::from_secs(10), append)).await;
        stored |= matches!(appended, Some(Ok(Ok(_))));
        world.rest(random, 0..1000).await;
    }
    // Else nothing is proved when it is not found later.
    if stored && holders(&world.bucket, &[mark]).await.is_empty() {
        world.wrong(format!("{tenant:?} has records that were acknowledged, and no object holds them"));
    }
}

/// Deletes until it is known that the tenant is.
async fn go(world: &World, random: &mut StdRng, tenant: Tenant) {
    while !world.is_over() {
        if let Some(handle) = world.the_newest() {
            let gone = commit(&handle, tenant.deletion(world)).await || tenant.is_gone(world, &handle);
            world.trace.line(&format!("n{} {tenant:?} goes: {gone}", handle.number));
            if gone {
                return;
            }
        }
        world.rest(random, 100..2000).await;
    }
}

/// Purges what deleted tenants have left until the run is over.
pub async fn purge(world: Arc<World>) {
    let mut random = world.random("purges", 0);
    while !world.is_over() {
        world.rest(&mut random, 500..6000).await;
        let Some(handle) = world.the_newest() else { continue };
        let Ok(left) = handle.log.scan(LEFT.as_bytes(), None, LEFT_MAX) else { continue };
        let left: Vec<Bytes> = left.into_iter().map(|(key, _)| key).collect();
        if !left.is_empty() {
            purge_those(&world, &handle, left).await;
        }
    }
}

async fn purge_those(world: &World, handle: &Handle, left: Vec<Bytes>) {
    let number = |key: &Bytes| std::str::from_utf8(&key[LEFT.len()..]).expect("digits").parse().expect("a number");
    let tenants: Vec<Tenant> = left.iter().map(|key| Tenant(number(key))).collect();
    let (before, begun) = (names(&world.bucket).await, Instant::now());
    let purged = handle.call(timeout(PURGE_LIMIT, handle.log.purge())).await;
    let outcome = purged.map(|ended| ended.map(|done| done.map_err(|error| error.kind())));
    world.trace.line(&format!("n{} purges {tenants:?}: {outcome:?}", handle.number));
    if !matches!(outcome, Some(Ok(Ok(())))) {
        return;
    }
    for object in holders(&world.bucket, &marks(world, &tenants)).await {
        let its_own = world.deletions.is_offered_since(handle.number, &object, begun);
        if !world.deletions.is_gone(&object) && (before.contains(&object) || its_own) {
            world.wrong(format!("node {} has purged {tenants:?}, and {object} holds something of them", handle.number));
        }
    }
    let docs = left.into_iter().map(DocOp::Delete).collect();
    if commit(handle, Change { docs, ..Change::default() }).await {
        world.tenants.lock().purged.extend(tenants.iter().map(|tenant| tenant.0));
    }
}

/// With everything late landed and swept, nothing has come back of those that were purged.
pub async fn must_stay_gone(world: &World, handle: &Handle) {
    let purged: Vec<Tenant> = world.tenants.lock().purged.iter().copied().map(Tenant).collect();
    must_be_gone(world, handle, &purged).await;
}

/// In good weather all tenants can be deleted and purged, and then nothing is left of any of them.
pub async fn must_leave_nothing(world: &World, handle: &Handle) {
    let all = world.tenants.all();
    for tenant in &all {
        if !commit(handle, tenant.deletion(world)).await && !tenant.is_gone(world, handle) {
            return world.wrong(format!("node {} does not delete {tenant:?}", handle.number));
        }
    }
    if let Err(error) = handle.log.purge().await {
        return world.wrong(format!("node {} does not purge: {error}", handle.number));
    }
    must_be_gone(world, handle, &all).await;
}

async fn must_be_gone(world: &World, handle: &Handle, tenants: &[Tenant]) {
    if let Some(object) = holders(&world.bucket, &marks(world, tenants)).await.first() {
        let number = handle.number;
        world.wrong(format!("after node {number} {object} holds something of tenants that were purged: {tenants:?}"));
    }
}

fn marks(world: &World, tenants: &[Tenant]) -> Vec<String> {
    tenants.iter().map(|tenant| tenant.mark(world)).collect()
}

async fn commit(handle: &Handle, change: Change) -> bool {
    let committed = timeout(Duration::from_secs(15), handle.log.commit(change));
    matches!(handle.call(committed).await, Some(Ok(Ok(()))))
}

async fn names(bucket: &InMemory) -> BTreeSet<Path> {
    let listed: Vec<_> = bucket.list(None).try_collect().await.expect("a store in memory lists");
    listed.into_iter().map(|object| object.location).collect()
}

/// The objects that hold one of these, as it is or compressed.
pub(crate) async fn holders(bucket: &InMemory, marks: &[String]) -> Vec<Path> {
    let mut out = Vec::new();
    for path in names(bucket).await {
        let stored = bucket.get(&path).await.expect("it was listed").bytes().await.expect("it is in memory");
        let content = readable(&stored);
        if marks.iter().any(|mark| memchr::memmem::find(&content, mark.as_bytes()).is_some()) {
            out.push(path);
        }
    }
    out
}

/// The bytes of an object, and after them what is compressed in it.
fn readable(stored: &[u8]) -> Vec<u8> {
    let mut out = stored.to_vec();
    for at in memchr::memmem::find_iter(stored, &FRAME) {
        let mut frame = zstd::Decoder::new(&stored[at..]).expect("a decoder can be made").single_frame();
        // Four bytes may be there by chance: such a frame ends with an error.
        let _may_be_none = frame.read_to_end(&mut out);
    }
    out
}
