//! Every object store keeps the contract, and the start-up probe refuses those that do not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use plinth_storage::Kind;
use plinth_storage::store::{self, ObjectStores};
use plinth_storage::testing::contract::store_contract;
use plinth_storage::testing::fault::{Call, FaultStore, GetFault, IgnoresCreate, Op, PutFault};
use plinth_storage::testing::s3::S3Server;

#[tokio::test]
async fn a_store_in_memory_keeps_the_contract() {
    let stores = store::open("memory://").unwrap();
    assert!(stores.local);
    assert_eq!(stores.url, "memory://");
    store_contract(&stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_contract_and_is_made_when_missing() {
    let parent = tempfile::tempdir().unwrap();
    let stores = store::open(parent.path().join("a/b c").to_str().unwrap()).unwrap();
    assert!(stores.local);
    assert!(stores.url.starts_with("file:///") && stores.url.ends_with("a/b%20c/"), "{}", stores.url);
    store_contract(&stores).await;

    let again = store::open(&stores.url).unwrap();
    assert_eq!(read(&again, "contract/once").await, "first", "the printed URL opens the same store");
}

/// On the server that `PLINTH_TEST_S3_ENDPOINT` names, if it is set; `make s3-contract` sets it.
#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract() {
    let server = S3Server::start().await.unwrap();
    let stores = server.stores("one/two").unwrap();
    assert!(!stores.local);
    assert_eq!(stores.url, server.url("one/two"));
    store_contract(&stores).await;

    let whole = server.stores("").unwrap();
    assert_eq!(read(&whole, "one/two/contract/once").await, "first", "a prefix is a part of the bucket");
    store_contract(&server.stores("another").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_store_without_faults_keeps_the_contract() {
    store_contract(&FaultStore::in_memory().stores()).await;
}

#[test]
fn a_url_that_is_not_of_a_known_form_is_refused_without_repeating_its_secrets() {
    for (url, names) in [
        ("", "empty"),
        ("ftp://host/x", "scheme ftp"),
        ("s3://", "bucket"),
        ("s3:///prefix", "bucket"),
        ("s3://user:hunter2@bucket/x", "environment"),
        ("s3://bucket/x?secret=hunter2", "environment"),
        ("s3://bucket/x#hunter2", "environment"),
        ("s3://bucket:99/x", "environment"),
        ("file://elsewhere/x", "file:///directory"),
        ("memory://x", "memory://"),
        ("http://[", "parsed"),
    ] {
        let error = store::open(url).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{url}");
        assert!(error.to_string().contains(names), "{url}: {error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{url}: {error:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let error = store::open(file.join("store").to_str().unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn the_probe_refuses_a_store_that_ignores_create_if_absent() {
    let stores = ObjectStores::of(Arc::new(IgnoresCreate(Arc::new(InMemory::new()))), false);
    let error = store::probe(&stores, &Path::from("probe/1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("ignores create-if-absent"), "{error}");
}

#[tokio::test]
async fn the_probe_leaves_nothing_behind() {
    let store = FaultStore::in_memory();
    store::probe(&store.stores(), &Path::from("probe/1")).await.unwrap();
    assert!(matches!(store.inner().head(&Path::from("probe/1")).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn the_probe_refuses_a_store_that_reads_back_something_else() {
    let store = FaultStore::in_memory();
    store.on_get(|_| true, GetFault::FlipBit);
    let error = store::probe(&store.stores(), &Path::from("probe/1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("does not read back"), "{error}");
}

#[tokio::test]
async fn the_probe_of_a_store_that_is_away_says_so() {
    let store = FaultStore::in_memory();
    store.set_unavailable(true);
    let error = store::probe(&store.stores(), &Path::from("probe/1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("cannot be reached"), "{error}");

    store.set_unavailable(false);
    store.on_put(|_| true, PutFault::ApplyThenError);
    let error = store::probe(&store.stores(), &Path::from("probe/2")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "a lost answer is no verdict on the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_of_an_s3_server_that_refuses_our_key_says_so() {
    let server = S3Server::start().await.unwrap();
    let error = store::probe(&server.stores_with_wrong_key("x").unwrap(), &Path::from("probe/1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
    assert!(error.to_string().contains("refuses our credentials"), "{error:?}");
}

#[tokio::test]
async fn each_put_fault_does_to_the_store_what_its_name_says() {
    // (fault, the answer is "already exists", the object is there before the release, and after it)
    let table = [
        (PutFault::FailBefore, false, false, false),
        (PutFault::ApplyThenError, false, true, true),
        (PutFault::ApplyLater, false, false, true),
        (PutFault::Conflict409, true, false, false),
        (PutFault::Own412, true, true, true),
    ];
    for (fault, conflict, before, after) in table {
        let store = FaultStore::in_memory();
        store.on_put(|path| path.as_ref().contains("/wal/"), fault);
        create(&store, "session/1/meta").await.expect("another path has no fault");
        let error = create(&store, "session/1/wal/0").await.unwrap_err();
        assert_eq!(matches!(error, StoreError::AlreadyExists { .. }), conflict, "{fault:?}: {error}");
        assert_eq!(exists(&store, "session/1/wal/0").await, before, "{fault:?}");
        store.release().await;
        assert_eq!(exists(&store, "session/1/wal/0").await, after, "{fault:?}");
        assert_eq!(store.unfired(), 0, "{fault:?}");
        create(&store, "session/1/wal/1").await.expect("one entry of the script is one fault");
    }
}

#[tokio::test]
async fn a_put_that_is_applied_later_still_keeps_its_condition() {
    let store = FaultStore::in_memory();
    store.on_put(|_| true, PutFault::ApplyLater);
    create(&store, "a").await.unwrap_err();
    create(&store, "a").await.expect("nothing is there yet");
    assert_eq!(store.put_off(), 1);
    assert_eq!(store.release().await, 0, "the late one finds the name taken");
}

#[tokio::test]
async fn a_put_that_hangs_is_applied_at_the_release_and_not_when_it_was_dropped() {
    let store = FaultStore::in_memory();
    store.on_put(|_| true, PutFault::Hang);
    store.on_put(|_| true, PutFault::Hang);
    let (dropped, kept) = (store.clone(), store.clone());
    let dropped = tokio::spawn(async move { create(&dropped, "dropped").await });
    store.until(|store| store.hanging() == 1).await;
    let kept = tokio::spawn(async move { create(&kept, "kept").await });
    store.until(|store| store.hanging() == 2).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    assert_eq!(store.hanging(), 1);
    store.release().await;
    kept.await.unwrap().unwrap();
    assert!(exists(&store, "kept").await && !exists(&store, "dropped").await);
}

#[tokio::test]
async fn each_get_fault_does_to_the_body_what_its_name_says() {
    let store = FaultStore::in_memory();
    create(&store, "a").await.unwrap();
    for (fault, expected) in [(GetFault::Truncate, "bo"), (GetFault::FlipBit, "boey")] {
        store.on_get(|_| true, fault);
        let got = store.get(&Path::from("a")).await.unwrap().bytes().await.unwrap();
        assert_eq!(got, expected, "{fault:?}");
    }
    store.on_get(|_| true, GetFault::Fail);
    assert!(matches!(store.get(&Path::from("a")).await, Err(StoreError::Generic { .. })));
    assert_eq!(store.get(&Path::from("a")).await.unwrap().bytes().await.unwrap(), "body");
}

#[tokio::test]
async fn a_store_that_is_switched_off_refuses_every_kind_of_call_and_logs_it() {
    let store = FaultStore::in_memory();
    create(&store, "a").await.unwrap();
    store.forget_calls();
    store.set_unavailable(true);
    let path = Path::from("a");
    assert!(create(&store, "b").await.is_err());
    assert!(store.get(&path).await.is_err());
    assert!(store.delete(&path).await.is_err());
    assert!(store.list_with_delimiter(None).await.is_err());
    let calls: Vec<Op> = store.calls().into_iter().map(|call| call.op).collect();
    assert_eq!(calls, [Op::Put, Op::Get, Op::Delete, Op::List]);
    assert_eq!(store.calls()[0], Call { op: Op::Put, path: Path::from("b") });
    assert_eq!(store.count(Op::Put), 1);
    store.set_unavailable(false);
    assert!(exists(&store, "a").await && !exists(&store, "b").await);
}

#[tokio::test]
async fn one_seed_is_one_history() {
    let outcomes = async |seed| {
        let store = FaultStore::in_memory();
        store.seeded(seed, 3);
        let mut outcomes = Vec::new();
        for n in 0..100 {
            outcomes.push(create(&store, &n.to_string()).await.map_err(|error| error.to_string()));
        }
        outcomes
    };
    let first = outcomes(7).await;
    assert_eq!(first, outcomes(7).await);
    assert_ne!(first, outcomes(8).await);
    assert!(first.iter().any(Result::is_ok) && first.iter().any(Result::is_err));
}

#[tokio::test(start_paused = true)]
async fn latency_is_added_to_each_call_by_the_clock_of_the_runtime() {
    let store = FaultStore::in_memory();
    store.set_latency(Duration::from_secs(60));
    let start = tokio::time::Instant::now();
    create(&store, "a").await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 60);
}

async fn create(store: &FaultStore, path: &str) -> Result<(), StoreError> {
    let payload = PutPayload::from_static(b"body");
    store.put_opts(&Path::from(path), payload, PutMode::Create.into()).await.map(drop)
}

async fn exists(store: &FaultStore, path: &str) -> bool {
    store.inner().head(&Path::from(path)).await.is_ok()
}

async fn read(stores: &ObjectStores, path: &str) -> Bytes {
    let got = stores.read.get(&Path::from(path)).await.expect("the object is there");
    got.bytes().await.expect("its body arrives")
}
