//! Tests of the files of the journal.

use super::*;

fn owner() -> Owner {
    Owner { cluster: ClusterId(Ulid(1)), session: SessionId(Ulid(2)) }
}

fn frame(buffer: u64, body: &'static [u8]) -> Frame {
    Frame { buffer, body: vec![Bytes::from_static(&body[..1]), Bytes::from_static(&body[1..])] }
}

fn only_file(dir: &Path) -> PathBuf {
    let found = find(dir);
    let files: Vec<_> = found.values().flat_map(|session| &session.files).collect();
    assert_eq!(files.len(), 1);
    files[0].1.clone()
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn a_file_is_what_it_was_in_version_1() {
    let dir = tempfile::tempdir().expect("dir");
    let mut files = Files::create(dir.path(), owner(), None).expect("created");
    files.append([frame(0, b"first"), frame(0, b"second")].into_iter()).expect("written");
    files.next_file().expect("ended");
    let first = find(dir.path())[&owner().session].files[0].1.clone();
    assert_eq!(first.file_name().expect("named"), "00000000000000000000000002.00000000000000000000.journal");
    assert_eq!(fs::read(&first).expect("read"), include_bytes!("golden_v1.bin"));
    let contents = read(&first).expect("valid");
    assert_eq!((contents.owner, contents.ending), (owner(), Ending::Next));
    assert_eq!(contents.bodies, [&b"first"[..], b"second"]);
}

// Fails when a checksum is not looked at. Cut short, the file is as a crash leaves it; damaged, it is not to be trusted.
#[test]
fn a_file_that_is_cut_short_gives_its_whole_frames_and_a_damaged_one_says_so() {
    let dir = tempfile::tempdir().expect("dir");
    let mut files = Files::create(dir.path(), owner(), None).expect("created");
    files.append([frame(0, b"first"), frame(0, b"second")].into_iter()).expect("written");
    let path = only_file(dir.path());
    let bytes = fs::read(&path).expect("read");
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).expect("written");
        let Some(contents) = read(&path) else {
            assert!(len < HEAD_BYTES, "cut to {len}");
            continue;
        };
        let whole = usize::from(len >= HEAD_BYTES + 17);
        assert_eq!((contents.bodies.len(), contents.ending), (whole, Ending::Open), "cut to {len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &damaged).expect("written");
        match read(&path) {
            None => assert!(bit / 8 < HEAD_BYTES, "bit {bit}"),
            Some(contents) => {
                assert_eq!(contents.ending, Ending::Broken, "bit {bit}");
                assert_eq!(contents.bodies.len(), usize::from(bit / 8 >= HEAD_BYTES + 17), "bit {bit}");
            }
        }
    }
    // A disk that lost power may show zeros where nothing was synced.
    fs::write(&path, [&bytes[..], &[0; 100]].concat()).expect("written");
    let contents = read(&path).expect("ours");
    assert_eq!((contents.bodies.len(), contents.ending), (2, Ending::Broken));
}

// Fails when a file is removed that holds a batch of a buffer that is not committed, or when none is removed.
#[test]
fn files_are_ended_when_they_are_large_and_removed_when_all_in_them_is_committed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut files = Files::create(dir.path(), owner(), None).expect("created");
    let large = |buffer| Frame { buffer, body: vec![Bytes::from(vec![7; 6 * 1024 * 1024])] };
    for buffer in 0..12 {
        files.append(std::iter::once(large(buffer))).expect("written");
    }
    let numbers = || find(dir.path())[&owner().session].files.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_eq!(numbers(), [0, 1, 2, 3]);
    files.remove_committed(3);
    assert_eq!(numbers(), [1, 2, 3]);
    files.remove_committed(5);
    assert_eq!(numbers(), [1, 2, 3], "buffer 5 is in it");
    files.remove_committed(100);
    assert_eq!(numbers(), [3], "the last one is open");
}

// Fails when a hole between files, or an end that says that more comes, is not noticed.
#[tokio::test]
async fn a_session_is_whole_only_with_all_of_its_files() {
    let dir = tempfile::tempdir().expect("dir");
    let mut files = Files::create(dir.path(), owner(), None).expect("created");
    for buffer in 0..3 {
        files.append(std::iter::once(frame(buffer, b"body"))).expect("written");
        files.next_file().expect("ended");
    }
    let whole = async || {
        let found = find(dir.path());
        let session = &found[&owner().session];
        let mut whole = true;
        for index in 0..session.len() {
            whole &= session.read(index, owner()).await.1;
        }
        whole
    };
    let path = |number| dir.path().join(name(owner().session, number));
    assert!(whole().await);
    fs::remove_file(path(0)).expect("removed");
    assert!(whole().await, "the oldest are removed when they are committed");
    let third = fs::read(path(2)).expect("read");
    fs::remove_file(path(2)).expect("removed");
    assert!(!whole().await, "one is missing between others");
    fs::write(path(2), third).expect("written");
    fs::remove_file(path(3)).expect("removed");
    assert!(!whole().await, "the newest is missing");
}

#[test]
fn other_files_in_the_directory_are_left_alone() {
    let dir = tempfile::tempdir().expect("dir");
    for name in ["x", "x.journal", "00000000000000000000000002.x.journal", "00000000000000000000000002.0.log"] {
        fs::write(dir.path().join(name), "").expect("written");
    }
    assert!(find(dir.path()).is_empty());
    assert!(find(&dir.path().join("not there")).is_empty());
}
