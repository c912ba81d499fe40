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

fn slices(payload: &PutPayload) -> Vec<IoSlice<'_>> {
    payload.iter().map(|piece| IoSlice::new(piece)).collect()
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
    let store = Directory::open(root.path(), abilities(root.path())).unwrap();
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
    let store = Directory::open(root.path(), abilities(root.path())).unwrap();
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
    let store = Directory::open(root.path(), abilities(root.path())).unwrap();
    let failed = store.put_opts(&Path::from("file/object"), pieces(&["x"]), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(failed, Error::Generic { .. }), "{failed}");
    assert!(failed.to_string().contains("file/object"), "{failed}");
    assert_eq!(names(root.path()), ["file"]);
}

#[tokio::test]
async fn a_directory_that_was_removed_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::open(root.path(), abilities(root.path())).unwrap();
    let path = Path::from("a/b/object");
    store.put_opts(&path, pieces(&["first"]), PutMode::Create.into()).await.unwrap();
    fs::remove_dir_all(root.path().join("a")).unwrap();
    store.put_opts(&path, pieces(&["second"]), PutMode::Create.into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_such_a_rename_keeps_the_contract_and_gives_files_the_same_rights() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Directory::open(root.path(), Abilities::default()).unwrap());
    store_contract(&ObjectStores::of(Arc::clone(&store) as Arc<dyn ObjectStore>, true)).await;

    let renames = Directory::open(root.path(), abilities(root.path())).unwrap();
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
    let store = Directory::open(root.path(), abilities(root.path())).unwrap();
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
    write_all(&mut slow, &mut slices(&payload)).unwrap();
    assert_eq!(slow.taken, b"abcdefghij");

    let mut full = Slow { taken: Vec::new(), room: 7, interrupted: false };
    assert_eq!(write_all(&mut full, &mut slices(&payload)).unwrap_err().kind(), io::ErrorKind::WriteZero);
}

fn slot(session: SessionId, number: u64) -> Path {
    layout::wal(session, Slot(number))
}

async fn listed(store: &Directory, prefix: Option<&Path>) -> Vec<(String, u64)> {
    let listed = store.list(prefix).map_ok(|object| (object.location.to_string(), object.size));
    let mut listed: Vec<_> = listed.try_collect().await.unwrap();
    listed.sort();
    listed
}

/// Two stores on one directory are what two processes have.
#[tokio::test]
async fn slots_keep_the_contract_of_the_store_between_two_that_have_it_open() {
    let root = tempfile::tempdir().unwrap();
    let open = || Directory::open(root.path(), abilities(root.path())).unwrap();
    let (one, two) = (open(), open());
    let session = SessionId(ulid::Ulid(7));
    let create = async |store: &Directory, number, text: &'static str| {
        store.put_opts(&slot(session, number), pieces(&["", &text[..1], &text[1..]]), PutMode::Create.into()).await
    };
    create(&one, 3, "first").await.unwrap();
    assert!(matches!(create(&two, 3, "second").await, Err(Error::AlreadyExists { .. })));
    create(&two, 4, "fourth").await.unwrap();
    assert!(matches!(create(&one, 4, "late").await, Err(Error::AlreadyExists { .. })));
    let wal = root.path().join(layout::wal_prefix(session).as_ref());
    assert_eq!(names(&wal), ["slots#1"]);

    for store in [&one, &two, &open()] {
        assert_eq!(store.get(&slot(session, 3)).await.unwrap().bytes().await.unwrap(), "first");
        assert_eq!(store.get_range(&slot(session, 4), 1..3).await.unwrap(), "ou");
        assert_eq!(store.get_ranges(&slot(session, 4), &[0..1, 4..6]).await.unwrap(), ["f", "th"]);
        assert!(store.get_range(&slot(session, 4), 6..7).await.is_err(), "a range outside");
        assert_eq!(store.head(&slot(session, 4)).await.unwrap().size, 6);
        assert!(matches!(store.head(&slot(session, 5)).await, Err(Error::NotFound { .. })));
        let both = [(slot(session, 3).to_string(), 5), (slot(session, 4).to_string(), 6)];
        for prefix in [None, Some(layout::logs_prefix()), Some(layout::wal_prefix(session))] {
            assert_eq!(listed(store, prefix.as_ref()).await, both, "{prefix:?}");
        }
        assert_eq!(listed(store, Some(&layout::segments_prefix())).await, []);
        let prefix = layout::wal_prefix(session);
        let after: Vec<_> = store.list_with_offset(Some(&prefix), &slot(session, 3)).try_collect().await.unwrap();
        assert_eq!(after.len(), 1);
        assert_eq!(store.list_with_delimiter(Some(&prefix)).await.unwrap().objects.len(), 2);
    }

    two.delete(&slot(session, 3)).await.unwrap();
    for store in [&one, &two, &open()] {
        assert!(matches!(store.get(&slot(session, 3)).await, Err(Error::NotFound { .. })));
        assert_eq!(listed(store, None).await.len(), 1);
        assert!(matches!(store.delete(&slot(session, 3)).await, Err(Error::NotFound { .. })));
    }
    create(&one, 3, "again").await.unwrap();
    assert_eq!(two.get(&slot(session, 3)).await.unwrap().bytes().await.unwrap(), "again");
    assert_eq!(open().get(&slot(session, 3)).await.unwrap().bytes().await.unwrap(), "again");
}

#[tokio::test]
async fn what_is_no_create_is_refused_for_a_slot() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::open(root.path(), abilities(root.path())).unwrap();
    let path = slot(SessionId(ulid::Ulid(7)), 0);
    store.put_opts(&path, pieces(&["x"]), PutMode::Create.into()).await.unwrap();
    let replaced = store.put_opts(&path, pieces(&["y"]), PutMode::Overwrite.into()).await;
    assert!(matches!(replaced, Err(Error::NotSupported { .. })));
    assert!(matches!(store.put_multipart(&path).await, Err(Error::NotSupported { .. })));
    let other = Path::from("other");
    store.put_opts(&other, pieces(&["z"]), PutMode::Create.into()).await.unwrap();
    assert!(matches!(store.copy(&other, &path).await, Err(Error::NotSupported { .. })));
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "x");
}

/// Fails when a session whose slots are files is gone on with in another form, of which a node that reads files knows nothing, or when
/// packed slots are not read where nothing may be appended.
#[tokio::test]
async fn slots_in_files_of_their_own_stay_so_and_packed_ones_are_read_by_every_store() {
    let root = tempfile::tempdir().unwrap();
    let (plain, can) = (Abilities { appends: false, ..abilities(root.path()) }, abilities(root.path()));
    let (of_files, packing) =
        (Directory::open(root.path(), plain).unwrap(), Directory::open(root.path(), can).unwrap());
    let (old, new) = (SessionId(ulid::Ulid(1)), SessionId(ulid::Ulid(2)));
    let create = async |store: &Directory, path: &Path, text| {
        store.put_opts(path, pieces(&[text]), PutMode::Create.into()).await
    };
    create(&of_files, &slot(old, 0), "a file").await.unwrap();
    assert!(matches!(create(&packing, &slot(old, 0), "fence").await, Err(Error::AlreadyExists { .. })));
    create(&packing, &slot(old, 1), "fence").await.unwrap();
    assert!(matches!(create(&of_files, &slot(old, 1), "late").await, Err(Error::AlreadyExists { .. })));
    let files = names(&root.path().join(layout::wal_prefix(old).as_ref()));
    assert_eq!(files, [0, 1].map(|number| format!("{number:020}")));

    create(&packing, &slot(new, 0), "packed").await.unwrap();
    assert!(matches!(create(&of_files, &slot(new, 0), "fence").await, Err(Error::AlreadyExists { .. })));
    let refused = create(&of_files, &slot(new, 1), "fence").await.unwrap_err();
    assert!(refused.to_string().contains("takes a local file system"), "{refused}");
    for store in [&of_files, &packing] {
        assert_eq!(listed(store, None).await.len(), 3);
        assert_eq!(store.get(&slot(new, 0)).await.unwrap().bytes().await.unwrap(), "packed");
        assert_eq!(store.get(&slot(old, 1)).await.unwrap().bytes().await.unwrap(), "fence");
    }
    packing.delete(&slot(old, 1)).await.unwrap();
    assert_eq!(listed(&of_files, None).await.len(), 2);
}
