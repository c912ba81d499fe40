//! Two tenants share every object of the bucket; one is deleted. Virtual time: the grace passes without waiting.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use plinth_storage::Log;
use plinth_storage::log::LogOptions;
use plinth_storage::record::NewRecord;
use plinth_storage::testing::fault::{FaultStore, PutFault};
use tokio::task::JoinSet;

use super::super::{Action, Auth, Caller, Credential, KeyRequest, Operator, TenantSettings, secret};
use crate::broker::{
    Broker, BrokerOptions, Error, ForkFrom, From, PageRequest, Publish, StreamConfig, StreamFrom, TopicSettings, Unit,
};

const GRACE: Duration = Duration::from_secs(10 * 60);
const ROOT: &str = "a-root-key-of-the-test";
const ALL: [&str; 4] = ["admin", "publish:**", "subscribe:**", "manage:**"];
const RECORDS: usize = 30;

struct World {
    log: Log,
    auth: Auth,
    broker: Broker,
}

/// A tenant with an administrator, and what must not be found any more when it is deleted.
struct Party {
    caller: Caller,
    traces: Vec<String>,
}

impl World {
    async fn open(store: &FaultStore) -> Self {
        // Nothing is swept by itself.
        let hours = Duration::from_secs(10 * 60 * 60);
        let options = LogOptions { sweep_interval: hours, delete_grace: GRACE, ..LogOptions::new(store.stores()) };
        let log = Log::open(options).await.expect("a log");
        let (auth, _) = Auth::open(log.clone(), Some(ROOT.into())).await.expect("credentials");
        let broker = Broker::open(log.clone(), BrokerOptions::default()).await.expect("a broker");
        Self { log, auth, broker }
    }

    fn operator(&self) -> Operator {
        self.auth.authenticate(Credential::Bearer(ROOT), None).expect("root").operator().expect("the root key")
    }

    fn inside(&self, name: &str) -> Caller {
        self.auth.authenticate(Credential::Bearer(ROOT), Some(name)).expect("the root key inside")
    }

    async fn tenant(&self, name: &str) -> Party {
        self.auth.create_tenant(&self.operator(), name, TenantSettings::default()).await.expect("a tenant");
        let scopes = ALL.map(str::to_owned).to_vec();
        let request = KeyRequest { name: format!("key-of-{name}"), scopes, ..KeyRequest::default() };
        let made = self.auth.create_key(&self.inside(name).admin().expect("root"), request).await.expect("a key");
        let caller = self.auth.authenticate(Credential::Bearer(&made.key), None).expect("a valid key");
        let topic = caller.authorize(Action::Manage, &format!("topic-of-{name}")).expect("allowed");
        self.broker.ensure_topic(&topic, TopicSettings::default()).await.expect("a topic");
        let hash = secret::hash(&made.key).map(|byte| byte.to_string()).join(",");
        let traces = vec![format!("payload-of-{name}"), topic.name().into(), made.about.name, made.about.id, hash];
        Party { caller, traces: [traces, vec![format!("\"{name}\"")]].concat() }
    }

    async fn publish(&self, party: &Party, name: &str, number: usize) {
        let topic = party.caller.authorize(Action::Publish, &format!("topic-of-{name}")).expect("allowed");
        let payload = format!("payload-of-{name} {number} {}", "x".repeat(200)).into();
        let records = vec![NewRecord { payload, ..NewRecord::default() }];
        let publish = Publish { partition: None, sticky: 0, records, stored: None, durability: None, terms: None };
        self.broker.publish(&topic, publish).await.expect("published");
    }

    async fn count(&self, caller: &Caller, name: &str) -> usize {
        let request = PageRequest {
            topic: caller.authorize(Action::Subscribe, &format!("topic-of-{name}")).expect("allowed"),
            partition: None,
            from: From::Earliest,
            limit: 1000,
            bytes_max: 8 << 20,
            unit: Unit::Record,
            wait: None,
        };
        let page = self.broker.page(request).await.expect("a page");
        page.slices.iter().map(|slice| slice.count() as usize).sum()
    }

    /// A stream of the party, as a fork of another one if one is named.
    async fn stream(&self, party: &mut Party, name: &str, source: Option<&str>) {
        let payload = format!("{} of {name};", party.traces[0]);
        let to = |action, name: &str| party.caller.authorize(action, name).expect("allowed");
        let source = source.map(|source| to(Action::Subscribe, source));
        let fork = source.map(|source| ForkFrom { source, anchor: None, sub: None });
        let config = StreamConfig { content_type: Some("text/plain".into()), fork, ..StreamConfig::default() };
        self.broker.ensure_stream(&to(Action::Manage, name), config, payload.into()).await.expect("a stream");
        party.traces.push(name.to_owned());
    }

    async fn delete_stream(&self, party: &Party, name: &str) {
        let stream = party.caller.authorize(Action::Manage, name).expect("allowed");
        self.broker.delete_stream(&stream).await.expect("deleted");
    }

    /// All that a stream holds.
    async fn text(&self, caller: &Caller, name: &str) -> String {
        let stream = caller.authorize(Action::Subscribe, name).expect("allowed");
        let page = self.broker.read_stream(&stream, StreamFrom::Start, 1 << 20).await.expect("a page");
        String::from_utf8(page.pieces.concat()).expect("text")
    }

    /// Lets the grace pass, and more, while what is left is freed.
    async fn free(&self) {
        let mut freeing = JoinSet::new();
        freeing.spawn(self.auth.clone().free_what_is_left());
        pass(GRACE + Duration::from_secs(60)).await;
        freeing.shutdown().await;
    }
}

async fn pass(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "virtual time: nothing is waited for and nothing is guessed")]
    tokio::time::sleep(time).await;
}

/// Every object, and after it what is compressed in it.
async fn bucket(store: &FaultStore) -> Vec<(String, Vec<u8>)> {
    let listed: Vec<_> = store.inner().list(None).try_collect().await.expect("listed");
    let mut out = Vec::with_capacity(listed.len());
    for object in listed {
        let stored = store.inner().get(&object.location).await.expect("there").bytes().await.expect("readable");
        let mut bytes = stored.to_vec();
        for at in 0..stored.len().saturating_sub(4) {
            if stored[at..at + 4] == [0x28, 0xb5, 0x2f, 0xfd] {
                let mut frame = zstd::Decoder::new(&stored[at..]).expect("a decoder").single_frame();
                // Four bytes may be there by chance: such a frame ends with an error.
                let _may_be_none = frame.read_to_end(&mut bytes);
            }
        }
        out.push((object.location.to_string(), bytes));
    }
    out
}

/// In which objects each of the traces is.
async fn found(store: &FaultStore, party: &Party) -> Vec<(String, String)> {
    let bucket = bucket(store).await;
    let found = party.traces.iter().flat_map(|trace| {
        let holds = |bytes: &[u8]| memchr::memmem::find(bytes, trace.as_bytes()).is_some();
        bucket.iter().filter(move |(_, bytes)| holds(bytes)).map(move |(name, _)| (trace.clone(), name.clone()))
    });
    found.collect()
}

/// Two tenants in the same slots, segment and checkpoints, over a restart.
async fn shared(store: &FaultStore) -> (World, Party, Party) {
    let world = World::open(store).await;
    let (stays, goes) = (world.tenant("stays").await, world.tenant("goes").await);
    let both = async |world: &World, numbers: std::ops::Range<usize>| {
        for number in numbers {
            tokio::join!(world.publish(&stays, "stays", number), world.publish(&goes, "goes", number));
        }
    };
    both(&world, 0..10).await;
    world.log.compact().await.expect("compacted");
    both(&world, 10..20).await;
    world.log.checkpoint().await.expect("written");
    drop(world);
    let world = World::open(store).await;
    both(&world, 20..RECORDS).await;
    world.log.checkpoint().await.expect("written");
    (world, stays, goes)
}

// Fails when the deletion leaves no mark, and when the log is not purged.
#[tokio::test(start_paused = true)]
async fn everything_of_a_deleted_tenant_is_gone_from_the_bucket_and_the_other_has_all_its_records() {
    let store = FaultStore::in_memory();
    let (world, stays, goes) = shared(&store).await;
    for trace in &goes.traces {
        assert!(found(&store, &goes).await.iter().any(|(of, _)| of == trace), "{trace} was there");
    }
    world.auth.delete_tenant(&world.operator(), "goes").await.expect("deleted");
    world.free().await;
    assert_eq!(found(&store, &goes).await, []);
    assert_eq!(world.count(&stays.caller, "stays").await, RECORDS);
    assert!(found(&store, &stays).await.len() >= stays.traces.len());
    drop(world);
    let world = World::open(&store).await;
    assert_eq!(world.count(&world.inside("stays"), "stays").await, RECORDS, "on a cold node, too");
}

// Fails when the deletion of a tenant leaves out streams that have forks, or names that are kept for forks; when a source does not go
// with the last of its forks; and when a purge takes along what the forks of others share.
#[tokio::test(start_paused = true)]
async fn a_tenant_whose_streams_are_forks_of_each_other_is_freed_and_forks_of_others_keep_what_they_share() {
    let store = FaultStore::in_memory();
    let (world, mut stays, mut goes) = shared(&store).await;
    for (party, of) in [(&mut stays, "stays"), (&mut goes, "goes")] {
        let [root, one, two, three] = ["root", "one", "two", "three"].map(|name| format!("{name}-of-{of}"));
        world.stream(party, &root, None).await;
        world.stream(party, &one, Some(&root)).await;
        world.stream(party, &two, Some(&one)).await;
        world.stream(party, &three, Some(&two)).await;
        // Two names are kept for forks alone.
        world.delete_stream(party, &root).await;
        world.delete_stream(party, &two).await;
        world.log.compact().await.expect("compacted");
    }
    world.auth.delete_tenant(&world.operator(), "goes").await.expect("deleted");
    world.free().await;
    assert_eq!(found(&store, &goes).await, []);
    let expected = ["root", "one", "two", "three"].map(|name| format!("payload-of-stays of {name}-of-stays;")).concat();
    assert_eq!(world.text(&stays.caller, "three-of-stays").await, expected);
    drop(world);
    let world = World::open(&store).await;
    assert_eq!(world.text(&world.inside("stays"), "three-of-stays").await, expected, "on a cold node, too");
    assert_eq!(world.count(&world.inside("stays"), "stays").await, RECORDS);
}

// Fails when what is left of a tenant is known to the memory of a node alone.
#[tokio::test(start_paused = true)]
async fn a_start_frees_what_a_stop_of_the_node_has_left() {
    let store = FaultStore::in_memory();
    let (world, stays, goes) = shared(&store).await;
    world.auth.delete_tenant(&world.operator(), "goes").await.expect("deleted");
    drop(world);
    let world = World::open(&store).await;
    assert!(!found(&store, &goes).await.is_empty());
    world.free().await;
    assert_eq!(found(&store, &goes).await, []);
    assert_eq!(world.count(&stays.caller, "stays").await, RECORDS);
}

/// Lets the second change of a deletion hang beyond its answer.
async fn fails_half_way(store: &FaultStore, world: &World) {
    let (fault, seen) = (PutFault::Hang, AtomicUsize::new(0));
    store.on_put(move |path| path.as_ref().contains("/wal/") && seen.fetch_add(1, Ordering::SeqCst) == 1, fault);
    let deleted = world.auth.delete_tenant(&world.operator(), "goes").await;
    assert!(matches!(deleted, Err(Error::Unknown(_))), "{deleted:?}");
    let taken = world.auth.create_tenant(&world.operator(), "goes", TenantSettings::default()).await;
    assert!(matches!(taken, Err(Error::Conflict(_))), "{taken:?}");
    store.release().await;
}

// Fails when what is left is freed without a look at what is not finished, and when nobody is told of what failed.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_failed_half_way_is_finished_without_a_start() {
    let store = FaultStore::in_memory();
    let (world, stays, goes) = shared(&store).await;
    let mut freeing = JoinSet::new();
    freeing.spawn(world.auth.clone().free_what_is_left());
    pass(Duration::from_secs(1)).await;
    fails_half_way(&store, &world).await;
    pass(super::RETRY_AFTER + GRACE + Duration::from_secs(60)).await;
    freeing.shutdown().await;
    assert_eq!(found(&store, &goes).await, []);
    assert_eq!(world.count(&stays.caller, "stays").await, RECORDS);
    world.tenant("goes").await;
}

// Fails when a tenant that has begun to end is taken for one that never was.
#[tokio::test(start_paused = true)]
async fn who_asks_again_for_a_deletion_that_failed_half_way_finishes_it() {
    let store = FaultStore::in_memory();
    let (world, ..) = shared(&store).await;
    fails_half_way(&store, &world).await;
    world.auth.delete_tenant(&world.operator(), "goes").await.expect("finished");
    world.tenant("goes").await;
}
