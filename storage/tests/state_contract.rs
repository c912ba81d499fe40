//! Both state stores keep the contract, agree with each other, and the one on disk is whole, or refused.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use plinth_storage::Kind;
use plinth_storage::state::failover::FailoverState;
use plinth_storage::state::memory::MemoryState;
use plinth_storage::state::rocks::RocksState;
use plinth_storage::state::{StateOp, StateStore};
use plinth_storage::testing::contract::state_contract;
use prometheus_client::metrics::gauge::Gauge;
use proptest::prelude::*;

#[test]
fn the_store_in_memory_keeps_the_contract() {
    state_contract(MemoryState::new);
}

#[test]
fn the_store_on_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let next = Cell::new(0);
    state_contract(|| {
        next.set(next.get() + 1);
        RocksState::open(&dir.path().join(next.get().to_string())).unwrap()
    });
}

#[test]
fn the_store_that_may_leave_its_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let next = Cell::new(0);
    state_contract(|| {
        next.set(next.get() + 1);
        let disk = RocksState::open(&dir.path().join(next.get().to_string())).unwrap();
        FailoverState::new(Arc::new(disk), Gauge::default())
    });
}

/// A disk of 8 MiB, for who may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir.path()).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if !mounted {
            println!("left out: only root may mount a disk");
        }
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

// Fails when the failover hands the error of the disk on: RocksDB takes nothing more once a file could not be written.
#[test]
fn a_disk_that_fills_up_loses_no_row_of_the_state() {
    let Some(small) = SmallDisk::mount() else { return };
    let on_disk = Gauge::default();
    let disk = RocksState::open(&small.0.path().join("state")).unwrap();
    let state = FailoverState::new(Arc::new(disk), on_disk.clone());
    // Values that do not compress, four times as much as fits.
    let value = |n: u32| {
        let mut value = vec![0; 1024];
        let mut word = u64::from(n) + 1;
        for chunk in value.chunks_mut(8) {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        value
    };
    let rows = 32 * 1024_u32;
    for n in 0..rows {
        state.write(&[StateOp::Put(Bytes::from(n.to_be_bytes().to_vec()), Bytes::from(value(n)))]).unwrap();
    }
    let _full = state.flush();
    for n in rows..rows + 100 {
        state.write(&[StateOp::Put(Bytes::from(n.to_be_bytes().to_vec()), Bytes::from(value(n)))]).unwrap();
    }
    assert_eq!(on_disk.get(), 0, "the disk was left");
    for n in 0..rows + 100 {
        assert_eq!(state.get(&n.to_be_bytes()).unwrap().as_deref(), Some(&value(n)[..]), "row {n}");
    }
}

#[test]
fn what_was_flushed_is_there_after_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = RocksState::open(dir.path()).unwrap();
    state.write(&[put("a", "1"), put("b", "2")]).unwrap();
    state.write(&[StateOp::Delete(Bytes::from("b"))]).unwrap();
    state.flush().unwrap();
    drop(state);
    let state = RocksState::open(dir.path()).unwrap();
    assert_eq!(state.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(state.get(b"b").unwrap(), None);
}

#[test]
fn what_was_loaded_is_there_after_the_store_is_opened_again_and_leaves_no_file_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = RocksState::open(dir.path()).unwrap();
    let rows = || (0..2000).map(|n| Ok((Bytes::from(format!("{n:04}")), Bytes::from("v".repeat(100)))));
    state.load(&mut rows()).unwrap();
    state.load(&mut rows().chain(rows())).expect_err("not in order");
    drop(state);
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("load")).collect::<Vec<_>>(), Vec::<String>::new());
    let state = RocksState::open(dir.path()).unwrap();
    assert_eq!(state.scan(b"", b"~", usize::MAX).unwrap().len(), 2000);
}

#[test]
fn a_store_that_is_open_is_refused_and_not_called_corrupt() {
    // Fails when the message of the lock is not told apart: the caller would wipe a store in use.
    let dir = tempfile::tempdir().unwrap();
    let state = RocksState::open(dir.path()).unwrap();
    // More than a snapshot reads ahead.
    let rows: Vec<StateOp> = (0..8000).map(|n| put(&format!("{n:04}"), &"v".repeat(1000))).collect();
    state.write(&rows).unwrap();
    let snapshot = state.snapshot();
    let refused = || RocksState::open(dir.path()).err().expect("the directory is in use");
    assert_eq!(refused().kind(), Kind::Invalid);
    assert!(refused().to_string().contains("in use"), "{}", refused());
    drop(state);
    assert_eq!(refused().kind(), Kind::Invalid, "a snapshot keeps it open");
    drop(snapshot);
    RocksState::open(dir.path()).expect("a dropped snapshot has let go of the directory");
}

#[test]
fn a_damaged_store_is_corrupt_and_can_be_wiped_and_begun_anew() {
    for damaged in ["CURRENT", "MANIFEST-", ".sst"] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        fs::write(dir.path().join("keep"), "not ours").unwrap();
        overwrite_files(dir.path(), damaged);
        let error = open_and_read(dir.path()).expect_err(damaged);
        assert_eq!(error.kind(), Kind::Corrupt, "{damaged}: {error:?}");

        RocksState::wipe(dir.path()).unwrap();
        assert_eq!(open_and_read(dir.path()).unwrap(), 0, "{damaged}: a wiped store is empty");
        assert!(dir.path().join("keep").exists(), "what is not ours stays");
    }
}

#[test]
fn a_store_with_a_file_missing_is_corrupt() {
    for missing in ["MANIFEST-", ".sst"] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        for path in files(dir.path(), missing) {
            fs::remove_file(path).unwrap();
        }
        let error = open_and_read(dir.path()).expect_err(missing);
        assert_eq!(error.kind(), Kind::Corrupt, "{missing}: {error:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = RocksState::open(&file.join("state")).err().expect("a file is in the way");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Fails when one of the two treats a range, an order within a batch or an edge in another way.
    #[test]
    fn both_stores_hold_the_same_rows_after_any_batches(batches in prop::collection::vec(any_batch(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let (rocks, memory) = (RocksState::open(dir.path()).unwrap(), MemoryState::new());
        for (batch, flush) in &batches {
            rocks.write(batch).unwrap();
            memory.write(batch).unwrap();
            if *flush {
                rocks.flush().unwrap();
            }
            for key in 0..=KEYS {
                let (key, above) = ([key], [key.saturating_add(3)]);
                prop_assert_eq!(rocks.get(&key).unwrap(), memory.get(&key).unwrap());
                prop_assert_eq!(rocks.scan(&key, &above, 2).unwrap(), memory.scan(&key, &above, 2).unwrap());
                let (in_rocks, in_memory) =
                    (rocks.last_at_or_before(&key, &above).unwrap(), memory.last_at_or_before(&key, &above).unwrap());
                prop_assert_eq!(in_rocks, in_memory);
            }
        }
        let rows = |state: &dyn StateStore| state.snapshot().map(Result::unwrap).collect::<Vec<_>>();
        prop_assert_eq!(rows(&rocks), rows(&memory));
    }
}

const KEYS: u8 = 8;

fn any_batch() -> impl Strategy<Value = (Vec<StateOp>, bool)> {
    let key = || (0..KEYS).prop_map(|key| Bytes::copy_from_slice(&[key]));
    let op = prop_oneof![
        4 => (key(), any::<u8>()).prop_map(|(key, value)| StateOp::Put(key, Bytes::copy_from_slice(&[value]))),
        1 => key().prop_map(StateOp::Delete),
        1 => (key(), key()).prop_map(|(from, to)| StateOp::DeleteRange(from, to)),
    ];
    (prop::collection::vec(op, 0..6), any::<bool>())
}

fn put(key: &str, value: &str) -> StateOp {
    StateOp::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
}

fn fill(dir: &Path) {
    let state = RocksState::open(dir).expect("the directory can be used");
    let rows: Vec<StateOp> = (0..1000).map(|n| put(&format!("{n:04}"), &format!("value {n}"))).collect();
    state.write(&rows).expect("it can be written");
    state.flush().expect("it can be flushed");
}

fn open_and_read(dir: &Path) -> plinth_storage::Result<usize> {
    let state = RocksState::open(dir)?;
    state.scan(b"", b"~", usize::MAX).map(|rows| rows.len())
}

/// Turns every byte of the files whose name contains `part` into another one.
fn overwrite_files(dir: &Path, part: &str) {
    for path in files(dir, part) {
        let damaged: Vec<u8> = fs::read(&path).expect("it can be read").iter().map(|byte| !byte).collect();
        fs::write(path, damaged).expect("it can be written");
    }
}

fn files(dir: &Path, part: &str) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(dir).expect("the directory is there").map(|entry| entry.expect("an entry").path());
    let named = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part));
    let found: Vec<_> = paths.filter(named).collect();
    assert!(!found.is_empty(), "there is a file with {part} in its name");
    found
}

// Fails when a snapshot goes on until its rows end, and when a closed store keeps its database.
#[test]
fn a_snapshot_of_the_disk_ends_when_its_store_is_closed_and_the_directory_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let state = RocksState::open(dir.path()).unwrap();
    let rows = (0u32..60_000).map(|n| Ok((Bytes::copy_from_slice(&n.to_be_bytes()), Bytes::from(vec![7; 100]))));
    state.load(&mut rows.into_iter()).unwrap();
    let mut snapshot = state.snapshot();
    assert!(snapshot.next().is_some_and(|row| row.is_ok()));
    state.close();
    let rest: Vec<_> = snapshot.by_ref().collect();
    let failed = rest.iter().find_map(|row| row.as_ref().err()).expect("the snapshot says how it ended");
    assert_eq!(failed.kind(), Kind::Closed);
    assert!(rest.len() < 50_000, "{} rows came after the close", rest.len());
    drop(snapshot);
    // The store itself is still there, as one that somebody was about to look at.
    RocksState::open(dir.path()).expect("nobody is in the directory");
    assert_eq!(state.get(b"a").unwrap_err().kind(), Kind::Closed);
}
