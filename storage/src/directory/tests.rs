//! A create on a directory: all or nothing under the name, and nothing beside it.
//!
//! That it is on the disk when it is answered is shown by the power cuts of `tests/it/disks.rs`.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use super::*;
use crate::store::ObjectStores;
use crate::testing::contract::store_contract;

/// A writer that takes a few bytes at a time, and is interrupted before each.
struct Slow {
    taken: Vec<u8>,
    room: usize,
    interrupted: bool,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let taken = bytes.len().min(3).min(self.room);
        self.taken.extend_from_slice(&bytes[..taken]);
        self.room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pieces(texts: &[&'static str]) -> PutPayload {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

fn names(directory: &FilePath) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Fails when the file that is staged stays.
#[tokio::test]
async fn a_create_leaves_one_file_with_all_bytes_and_nothing_beside_it() {
    let root = tempfile::tempdir().unwrap();
    assert!(takes_renames(root.path()), "tests run where a rename can keep what is there");
    assert!(names(root.path()).is_empty(), "the trials are removed");
    let store = Directory::open(root.path(), true).unwrap();
    let path = Path::from("a/b/object");
    store.put_opts(&path, pieces(&["", "one", "", "two", ""]), PutMode::Create.into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "onetwo");
    assert_eq!(names(&root.path().join("a/b")), ["object"]);
    assert_eq!(fs::metadata(root.path().join("a/b/object")).unwrap().nlink(), 1);

    store.put_opts(&Path::from("empty"), pieces(&[""]), PutMode::Create.into()).await.unwrap();
    assert_eq!(store.head(&Path::from("empty")).await.unwrap().size, 0);
}

#[tokio::test]
async fn a_name_that_is_taken_keeps_its_object_and_the_refused_one_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::open(root.path(), true).unwrap();
    let path = Path::from("d/object");
    store.put_opts(&path, pieces(&["first"]), PutMode::Create.into()).await.unwrap();
    let refused = store.put_opts(&path, pieces(&["second"]), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(refused, Error::AlreadyExists { .. }), "{refused}");
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
    assert_eq!(names(&root.path().join("d")), ["object"]);
}

#[tokio::test]
async fn a_create_that_fails_names_the_file_and_is_no_conflict() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "in the way").unwrap();
    let store = Directory::open(root.path(), true).unwrap();
    let failed = store.put_opts(&Path::from("file/object"), pieces(&["x"]), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(failed, Error::Generic { .. }), "{failed}");
    assert!(failed.to_string().contains("file/object"), "{failed}");
    assert_eq!(names(root.path()), ["file"]);
}

#[tokio::test]
async fn a_directory_that_was_removed_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::open(root.path(), true).unwrap();
    let path = Path::from("a/b/object");
    store.put_opts(&path, pieces(&["first"]), PutMode::Create.into()).await.unwrap();
    fs::remove_dir_all(root.path().join("a")).unwrap();
    store.put_opts(&path, pieces(&["second"]), PutMode::Create.into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_such_a_rename_keeps_the_contract_and_gives_files_the_same_rights() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Directory::open(root.path(), false).unwrap());
    store_contract(&ObjectStores::of(Arc::clone(&store) as Arc<dyn ObjectStore>, true)).await;

    let renames = Directory::open(root.path(), true).unwrap();
    renames.put_opts(&Path::from("ours"), pieces(&["x"]), PutMode::Create.into()).await.unwrap();
    store.put_opts(&Path::from("theirs"), pieces(&["x"]), PutMode::Create.into()).await.unwrap();
    let mode = |name| fs::metadata(root.path().join(name)).unwrap().mode();
    assert_eq!(mode("ours"), mode("theirs"));
}

/// Fails when what an ended process left is taken for the file of this one, or ends the create.
#[tokio::test]
async fn what_an_ended_process_left_beside_a_name_is_in_nobodys_way() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("object#1"), "half of ano").unwrap();
    for trial in [".writable#0", ".writable#1", ".writable#20"] {
        fs::write(root.path().join(trial), "").unwrap();
    }
    assert!(takes_renames(root.path()));
    let store = Directory::open(root.path(), true).unwrap();
    store.put_opts(&Path::from("object"), pieces(&["whole"]), PutMode::Create.into()).await.unwrap();
    assert_eq!(fs::read(root.path().join("object#1")).unwrap(), b"half of ano");
    let listed: Vec<_> =
        store.list(None).map_ok(|object| (object.location.to_string(), object.size)).try_collect().await.unwrap();
    assert_eq!(listed, [("object".to_owned(), 5)]);
}

/// Fails when an interrupted write ends the create, or what a short write left is not written.
#[test]
fn pieces_are_written_whole_however_few_bytes_go_at_once_or_it_is_an_error() {
    let payload = pieces(&["", "abcd", "", "e", "fghij"]);
    let mut slow = Slow { taken: Vec::new(), room: 10, interrupted: false };
    write_all(&mut slow, &payload).unwrap();
    assert_eq!(slow.taken, b"abcdefghij");

    let mut full = Slow { taken: Vec::new(), room: 7, interrupted: false };
    assert_eq!(write_all(&mut full, &payload).unwrap_err().kind(), io::ErrorKind::WriteZero);
}
