//! What every object store and every state store must do, as suites that panic where one does not.
//!
//! A suite runs against an empty store, or one prefix of it, that is its own. The object store suite leaves its objects
//! behind.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::task::JoinSet;

use crate::state::{StateOp, StateRow, StateStore};
use crate::store::{ObjectStores, probe};

/// How many creates of one name race.
const RACERS: usize = 64;

/// The longest that the whole suite may take; a store that answers at all needs a fraction.
const SUITE_TIMEOUT: Duration = Duration::from_secs(300);

/// Checks everything that the log needs of an object store.
///
/// # Panics
/// When the store breaks the contract.
pub async fn store_contract(stores: &ObjectStores) {
    let suite = async {
        creates_once(stores).await;
        one_of_many_racing_creates_wins(stores).await;
        reads_ranges(stores).await;
        lists_by_prefix_and_offset(stores).await;
        deletes(stores).await;
        a_missing_object_is_not_found(stores).await;
        a_large_object_of_many_slices_reads_back(stores).await;
        probe(stores, &Path::from("contract/probe/one")).await.expect("the start-up probe passes");
    };
    tokio::time::timeout(SUITE_TIMEOUT, suite).await.expect("the store answers in time");
}

async fn creates_once(stores: &ObjectStores) {
    let path = Path::from("contract/once");
    create(stores, &path, "first").await.expect("a new name can be created");
    assert_exists_already(create(stores, &path, "second").await, "a name cannot be created twice");
    assert_eq!(read(stores, &path).await, "first", "a refused create leaves the object alone");
}

async fn one_of_many_racing_creates_wins(stores: &ObjectStores) {
    let path = Path::from("contract/race");
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let (stores, path) = (stores.clone(), path.clone());
        racers.spawn(async move { (racer, create(&stores, &path, &racer.to_string()).await) });
    }
    let mut winners = Vec::new();
    while let Some(ended) = racers.join_next().await {
        match ended.expect("a racer does not panic") {
            (racer, Ok(())) => winners.push(racer.to_string()),
            (_, lost) => assert_exists_already(lost, "a create that lost the race is told so"),
        }
    }
    assert_eq!(winners.len(), 1, "exactly one of {RACERS} racing creates succeeds, not {winners:?}");
    assert_eq!(read(stores, &path).await, winners[0].as_str(), "the object is the winner's");
}

async fn reads_ranges(stores: &ObjectStores) {
    let path = Path::from("contract/range");
    create(stores, &path, "0123456789").await.expect("a new name can be created");
    for (range, expected) in [(0..1, "0"), (3..7, "3456"), (9..10, "9"), (0..10, "0123456789")] {
        let got = stores.read.get_range(&path, range.clone()).await.expect("a range within the object can be read");
        assert_eq!(got, expected, "range {range:?}");
    }
    let meta = stores.read.head(&path).await.expect("an object has a size");
    assert_eq!(meta.size, 10);
}

async fn lists_by_prefix_and_offset(stores: &ObjectStores) {
    let names =
        ["contract/list/a/1", "contract/list/a/2", "contract/list/a/3", "contract/list/ab/1", "contract/list/b"];
    for name in names {
        create(stores, &Path::from(name), name).await.expect("a new name can be created");
    }
    let under = |prefix: &str| stores.read.list(Some(&Path::from(prefix)));
    assert_eq!(paths(under("contract/list")).await, names.map(str::to_owned).into());
    assert_eq!(paths(under("contract/list/a")).await, names[..3].iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(paths(under("contract/list/nothing")).await, BTreeSet::new());

    let prefix = Path::from("contract/list/a");
    let after = stores.read.list_with_offset(Some(&prefix), &Path::from("contract/list/a/1"));
    assert_eq!(paths(after).await, names[1..3].iter().map(|name| (*name).to_owned()).collect());
}

async fn deletes(stores: &ObjectStores) {
    let path = Path::from("contract/delete/one");
    create(stores, &path, "gone soon").await.expect("a new name can be created");
    stores.read.delete(&path).await.expect("an object can be deleted");
    assert!(matches!(stores.read.get(&path).await, Err(Error::NotFound { .. })), "a deleted object is not found");
    assert_eq!(paths(stores.read.list(Some(&Path::from("contract/delete")))).await, BTreeSet::new());
    // This is why the log never deletes what must stay taken.
    create(stores, &path, "again").await.expect("a deleted name can be created again");
}

async fn a_missing_object_is_not_found(stores: &ObjectStores) {
    let path = Path::from("contract/missing");
    assert!(matches!(stores.read.get(&path).await, Err(Error::NotFound { .. })));
    assert!(matches!(stores.read.get_range(&path, 0..1).await, Err(Error::NotFound { .. })));
    assert!(matches!(stores.read.head(&path).await, Err(Error::NotFound { .. })));
}

async fn a_large_object_of_many_slices_reads_back(stores: &ObjectStores) {
    let path = Path::from("contract/large");
    // 9 MiB in slices of 1,000 bytes and a rest, with no two slices alike.
    let whole: Vec<u8> = (0_u32..9 << 18).flat_map(u32::to_le_bytes).collect();
    let whole = Bytes::from(whole);
    let slices = (0..whole.len()).step_by(1000).map(|from| whole.slice(from..whole.len().min(from + 1000)));
    let payload: PutPayload = slices.collect();
    stores.write.put_opts(&path, payload, PutMode::Create.into()).await.expect("a large object can be created");
    let got = stores.read.get(&path).await.expect("a large object can be read");
    assert!(got.bytes().await.expect("its body arrives") == whole, "the object has the bytes of its slices in order");
    let range = (4 << 20) - 7..(4 << 20) + 9;
    let got = stores.read.get_range(&path, range.clone()).await.expect("a range of it can be read");
    let range = usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small");
    assert_eq!(got, whole.slice(range));
}

async fn create(stores: &ObjectStores, path: &Path, text: &str) -> Result<(), Error> {
    let payload = PutPayload::from(text.as_bytes().to_vec());
    stores.write.put_opts(path, payload, PutMode::Create.into()).await.map(drop)
}

async fn read(stores: &ObjectStores, path: &Path) -> Bytes {
    let got = stores.read.get(path).await.expect("the object is there");
    got.bytes().await.expect("its body arrives")
}

async fn paths(listed: impl futures::Stream<Item = Result<object_store::ObjectMeta, Error>>) -> BTreeSet<String> {
    let paths = listed.map_ok(|object| object.location.to_string());
    paths.try_collect().await.expect("the store can be listed")
}

fn assert_exists_already(created: Result<(), Error>, what: &str) {
    let refused = matches!(created, Err(Error::AlreadyExists { .. } | Error::Precondition { .. }));
    assert!(refused, "{what}: {created:?}");
}

/// Checks everything that the log needs of a state store. `make` opens a new, empty one each time.
///
/// # Panics
/// When the store breaks the contract.
pub fn state_contract<S: StateStore>(make: impl Fn() -> S) {
    gets_what_was_put(&make());
    scans_in_key_order_within_the_range(&make());
    finds_the_last_at_or_before(&make());
    deletes_a_range_and_nothing_beside_it(&make());
    applies_a_batch_in_order(&make());
    a_batch_is_seen_whole_or_not_at_all(&make());
    a_snapshot_does_not_see_later_writes(&make());
    a_snapshot_may_be_dropped_early_and_outlives_its_store(make());
    loads_rows_in_order(&make());
    loads_all_rows_or_none(&make());
    lets_go_of_all_when_it_is_closed(&make());
}

fn gets_what_was_put(state: &dyn StateStore) {
    assert_eq!(got(state, "a"), None);
    write(state, &[put("a", "1"), put("", "the empty key"), put("empty", "")]);
    assert_eq!(got(state, "a").as_deref(), Some("1"));
    assert_eq!(got(state, "").as_deref(), Some("the empty key"));
    assert_eq!(got(state, "empty").as_deref(), Some(""), "an empty value is not an absent one");
    write(state, &[put("a", "2"), delete("empty"), delete("never there")]);
    assert_eq!(got(state, "a").as_deref(), Some("2"));
    assert_eq!(got(state, "empty"), None);
    state.flush().expect("a store can be flushed");
    assert_eq!(got(state, "a").as_deref(), Some("2"));
}

fn scans_in_key_order_within_the_range(state: &dyn StateStore) {
    write(state, &[put("b", "2"), put("a", "1"), put("a\0", "1.5"), put("c", "3"), put("\u{ff}", "last")]);
    state.flush().expect("a store can be flushed");
    write(state, &[put("aa", "1.7")]);
    let scan = |from: &str, to: &str, limit| keys(&state.scan(from.as_bytes(), to.as_bytes(), limit).expect("scan"));
    assert_eq!(scan("a", "c", 10), ["a", "a\0", "aa", "b"]);
    assert_eq!(scan("a", "c", 2), ["a", "a\0"]);
    assert_eq!(scan("a", "c\0", 10), ["a", "a\0", "aa", "b", "c"]);
    assert_eq!(scan("", "b", 10), ["a", "a\0", "aa"]);
    assert_eq!(scan("c", "\u{ffff}", 10), ["c", "\u{ff}"]);
    assert_eq!(scan("a", "c", 0), Vec::<String>::new());
    assert_eq!(scan("b", "b", 10), Vec::<String>::new());
    assert_eq!(scan("c", "a", 10), Vec::<String>::new(), "a range that ends before it starts is empty");
}

fn finds_the_last_at_or_before(state: &dyn StateStore) {
    write(state, &[put("p/10", "x"), put("p/20", "y"), put("q/05", "z")]);
    let last = |from: &str, upto: &str| {
        let row = state.last_at_or_before(from.as_bytes(), upto.as_bytes()).expect("last_at_or_before");
        row.map(|row| keys(&[row]).remove(0))
    };
    assert_eq!(last("p/", "p/20").as_deref(), Some("p/20"), "at");
    assert_eq!(last("p/", "p/19").as_deref(), Some("p/10"), "before");
    assert_eq!(last("p/", "p/99").as_deref(), Some("p/20"), "not what comes after");
    assert_eq!(last("p/", "p/09"), None, "nothing at or before");
    assert_eq!(last("q/", "q/04"), None, "not what is below the range");
    assert_eq!(last("q/05", "q/05").as_deref(), Some("q/05"), "both ends belong to the range");
    assert_eq!(last("", "\u{ff}").as_deref(), Some("q/05"));
    assert_eq!(last("q", "p"), None, "a range that ends before it starts is empty");
    write(state, &[delete("p/20")]);
    assert_eq!(last("p/", "p/99").as_deref(), Some("p/10"), "not what was deleted");
}

fn deletes_a_range_and_nothing_beside_it(state: &dyn StateStore) {
    write(state, &["a", "b", "b/1", "b/2", "c"].map(|key| put(key, "x")));
    state.flush().expect("a store can be flushed");
    write(state, &[delete_range("b", "c")]);
    assert_eq!(keys(&all(state)), ["a", "c"]);
    assert_eq!(got(state, "b/1"), None);
    write(state, &[delete_range("c", "a"), delete_range("a", "a")]);
    assert_eq!(keys(&all(state)), ["a", "c"], "an empty range deletes nothing");
    write(state, &[put("b/1", "again")]);
    assert_eq!(got(state, "b/1").as_deref(), Some("again"), "a deleted range can be written anew");
}

fn applies_a_batch_in_order(state: &dyn StateStore) {
    write(state, &[put("k", "1"), delete("k"), put("k", "2")]);
    assert_eq!(got(state, "k").as_deref(), Some("2"));
    write(state, &[put("k/1", "x"), delete_range("k", "l"), put("k/2", "y")]);
    assert_eq!(keys(&all(state)), ["k/2"], "a range deletes what was put before it and not what is put after it");
    write(state, &[put("k/3", "z"), delete("k/3")]);
    assert_eq!(got(state, "k/3"), None);
    write(state, &[]);
}

fn a_batch_is_seen_whole_or_not_at_all(state: &dyn StateStore) {
    // Fails when a store applies the changes of a batch one by one: a scan would see two values.
    const ROUNDS: u32 = 200;
    let both = |round: u32| [put("x", &round.to_string()), put("y", &round.to_string())];
    write(state, &both(0));
    std::thread::scope(|threads| {
        threads.spawn(|| (1..=ROUNDS).for_each(|round| write(state, &both(round))));
        loop {
            let rows = state.scan(b"x", b"z", 2).expect("scan");
            assert_eq!(rows[0].1, rows[1].1, "a scan sees a whole batch or none of it");
            if rows[0].1 == ROUNDS.to_string() {
                break;
            }
        }
    });
}

fn a_snapshot_does_not_see_later_writes(state: &dyn StateStore) {
    let rows: Vec<StateOp> = (0..20_000).map(|n| put(&format!("{n:05}"), &"v".repeat(100))).collect();
    write(state, &rows);
    let snapshot = state.snapshot();
    write(state, &[put("00000", "changed"), put("zzz", "new"), delete("19999"), delete_range("00005", "00009")]);
    state.flush().expect("a store can be flushed");
    let seen: Vec<StateRow> = snapshot.map(|row| row.expect("a row")).collect();
    assert_eq!(seen.len(), rows.len(), "a snapshot is whole");
    for (row, op) in seen.iter().zip(&rows) {
        assert_eq!(StateOp::Put(row.0.clone(), row.1.clone()), *op, "a snapshot is in order and of one moment");
    }
    assert_eq!(got(state, "00000").as_deref(), Some("changed"));
    assert_eq!(state.snapshot().count(), rows.len() - 4, "a later snapshot sees the changes");
}

fn a_snapshot_may_be_dropped_early_and_outlives_its_store(state: impl StateStore) {
    let rows: Vec<StateOp> = (0..20_000).map(|n| put(&format!("{n:05}"), &"v".repeat(100))).collect();
    write(&state, &rows);
    let mut dropped = state.snapshot();
    assert!(dropped.next().is_some_and(|row| row.is_ok()));
    drop(dropped);
    drop(state.snapshot());
    let mut kept = state.snapshot();
    drop(state);
    assert!(kept.all(|row| row.is_ok()), "a snapshot can be read when its store is gone");
}

fn loads_rows_in_order(state: &dyn StateStore) {
    let rows = |range: std::ops::Range<u32>, value: &'static str| {
        range.map(move |n| Ok((bytes(&format!("{n:06}")), bytes(&format!("{value} {n}")))))
    };
    state.load(&mut std::iter::empty()).expect("no row is no error");
    state.load(&mut rows(0..50_000, "loaded")).expect("an empty store takes rows");
    assert_eq!(all(state).len(), 50_000);
    assert_eq!(got(state, "049999").as_deref(), Some("loaded 49999"));
    write(state, &[put("000001", "written"), delete("000002"), delete_range("000010", "049990")]);
    let left = ["000000", "000001", "000003", "000004", "000005", "000006", "000007", "000008", "000009"];
    assert_eq!(keys(&all(state))[..9], left, "what was loaded is changed as any row");
    assert_eq!(got(state, "000001").as_deref(), Some("written"));
    state.load(&mut rows(1..12, "again")).expect("a store with rows takes more");
    assert_eq!(got(state, "000001").as_deref(), Some("again 1"), "what is loaded last wins");
    assert_eq!(got(state, "000011").as_deref(), Some("again 11"), "also over a deleted range");
    assert_eq!(got(state, "000012"), None);
    assert_eq!(all(state).len(), 12 + 10);
}

fn loads_all_rows_or_none(state: &dyn StateStore) {
    write(state, &[put("a", "1")]);
    let row = |key: &str| Ok((bytes(key), bytes("x")));
    let failed = || Err(crate::error::Error::new(crate::error::Kind::Unavailable, "cut off"));
    for (what, last) in [("a row that comes too early", row("b")), ("the same row twice", row("c"))] {
        let error = state.load(&mut [row("a"), row("c"), last].into_iter()).expect_err(what);
        assert_eq!(error.kind(), crate::error::Kind::Corrupt, "{what}");
    }
    let error = state.load(&mut [row("a"), row("c"), failed()].into_iter()).expect_err("the rows fail");
    assert_eq!(error.kind(), crate::error::Kind::Unavailable, "the error of the rows is told");
    assert_eq!(got(state, "a").as_deref(), Some("1"), "nothing was loaded");
    assert_eq!(all(state).len(), 1);
}

fn lets_go_of_all_when_it_is_closed(state: &dyn StateStore) {
    write(state, &[put("a", "1"), put("b", "2")]);
    state.close();
    state.close();
    let kinds = [
        state.get(b"a").map(drop),
        state.scan(b"a", b"z", 10).map(drop),
        state.last_at_or_before(b"a", b"z").map(drop),
        state.write(&[put("c", "3")]),
        state.load(&mut [Ok((bytes("d"), bytes("4")))].into_iter()),
        state.snapshot().try_for_each(|row| row.map(drop)),
    ];
    for (place, kind) in kinds.map(|answer| answer.map_err(|error| error.kind())).into_iter().enumerate() {
        assert_eq!(kind, Err(crate::error::Kind::Closed), "call {place}");
    }
}

fn put(key: &str, value: &str) -> StateOp {
    StateOp::Put(bytes(key), bytes(value))
}

fn delete(key: &str) -> StateOp {
    StateOp::Delete(bytes(key))
}

fn delete_range(from: &str, to: &str) -> StateOp {
    StateOp::DeleteRange(bytes(from), bytes(to))
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn write(state: &dyn StateStore, ops: &[StateOp]) {
    state.write(ops).expect("a store can be written");
}

fn got(state: &dyn StateStore, key: &str) -> Option<String> {
    let value = state.get(key.as_bytes()).expect("a store can be read");
    value.map(|value| String::from_utf8(value.to_vec()).expect("the value is text"))
}

fn all(state: &dyn StateStore) -> Vec<StateRow> {
    state.snapshot().map(|row| row.expect("a row")).collect()
}

fn keys(rows: &[StateRow]) -> Vec<String> {
    rows.iter().map(|(key, _)| String::from_utf8(key.to_vec()).expect("the key is text")).collect()
}
