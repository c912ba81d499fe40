//! Slots in files that several write to: two packs on one directory are what two processes have.
//!
//! Each of these changes to the code makes a test here fail: a create that does not look at what came in between; a loser that
//! is deleted by nobody; a record behind a broken one, or behind the mark of an end, that counts; a reader that stops at a number that is missing; a file that
//! is removed before there is a later one; a checksum that does not know its file.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Barrier;

use proptest::prelude::*;
use tempfile::TempDir;

use super::chain::number_of;
use super::file::Appender;
use super::*;

fn pack(root: &TempDir, file_bytes: u64) -> Pack {
    Pack { file_bytes, ..Pack::new(root.path().join("sid/wal"), true) }
}

fn create(pack: &Pack, slot: u64, text: &str) -> io::Result<Made> {
    pack.create(&pack.directory.join(slot.to_string()), slot, &[b"", text.as_bytes()])
}

fn created(pack: &Pack, slot: u64, text: &str) {
    assert_eq!(create(pack, slot, text).unwrap(), Made::Created, "slot {slot}");
}

fn read(pack: &Pack, slot: u64) -> Option<String> {
    let read = pack.read(slot, |len| io::Result::Ok(0..len)).unwrap();
    read.map(|read| String::from_utf8(read.bytes).unwrap())
}

fn slots(pack: &Pack) -> Vec<u64> {
    pack.list().unwrap().into_iter().map(|listed| listed.slot).collect()
}

fn files(pack: &Pack) -> Vec<String> {
    let mut names = names(&pack.directory).unwrap();
    names.sort();
    names
}

/// As a process that ended in the middle of a write leaves it.
fn tear(pack: &Pack, number: u64, bytes: &[u8]) {
    OpenOptions::new().append(true).open(pack.path(number)).unwrap().write_all(bytes).unwrap();
}

fn flip(pack: &Pack, number: u64, at: usize) {
    let mut bytes = bytes_of(pack, number);
    bytes[at] ^= 0x40;
    let file = OpenOptions::new().write(true).open(pack.path(number)).unwrap();
    FileExt::write_all_at(&file, &bytes[at..=at], at as u64).unwrap();
}

fn bytes_of(pack: &Pack, number: u64) -> Vec<u8> {
    fs::read(pack.path(number)).unwrap()
}

#[test]
fn one_of_many_that_create_a_slot_at_once_wins_and_all_find_its_object() {
    const RACERS: usize = 4;
    const SLOTS: u64 = 200;
    let root = tempfile::tempdir().unwrap();
    let barrier = Barrier::new(RACERS);
    let race = |racer: usize| {
        let (pack, barrier) = (pack(&root, 2000), &barrier);
        move || {
            barrier.wait();
            let won =
                (0..SLOTS).filter(|slot| create(&pack, *slot, &format!("{racer} {slot}")).unwrap() == Made::Created);
            won.collect::<Vec<_>>()
        }
    };
    let won: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(race(racer))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(won.iter().map(Vec::len).sum::<usize>(), 200);
    let after = pack(&root, 2000);
    for (racer, won) in won.iter().enumerate() {
        won.iter().for_each(|slot| assert_eq!(read(&after, *slot), Some(format!("{racer} {slot}"))));
    }
    assert_eq!(slots(&after), (0..SLOTS).collect::<Vec<_>>());
    // Losers are deleted: without the winners they are not found.
    (0..SLOTS).for_each(|slot| assert!(after.remove(slot).unwrap()));
    assert!(slots(&pack(&root, 2000)).is_empty());
}

#[test]
fn a_fence_in_the_first_free_slot_ends_one_who_knows_nothing_of_it() {
    let root = tempfile::tempdir().unwrap();
    let (owner, successor) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
    (0..3).for_each(|slot| created(&owner, slot, "data"));
    assert_eq!(create(&successor, 2, "fence").unwrap(), Made::Taken);
    created(&successor, 3, "fence");
    assert_eq!(create(&owner, 3, "late").unwrap(), Made::Taken);
    assert_eq!(read(&owner, 3).as_deref(), Some("fence"));
    assert_eq!(read(&pack(&root, 1 << 20), 3).as_deref(), Some("fence"));
}

#[test]
fn a_part_of_a_record_ends_its_file_and_nothing_before_it_is_lost() {
    for torn in [1, 35, 36, 37, 39] {
        let root = tempfile::tempdir().unwrap();
        let (one, stale) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
        created(&one, 0, "zero");
        created(&stale, 1, "one");
        let whole = bytes_of(&one, 1);
        tear(&one, 1, &whole[..torn]);
        assert_eq!(slots(&pack(&root, 1 << 20)), [0, 1]);
        // Its record comes behind the torn one, and once more where it counts.
        created(&stale, 2, "two");
        created(&one, 3, "three");
        assert_eq!(files(&one), ["slots#1", "slots#2"], "{torn}");
        for pack in [&one, &stale, &pack(&root, 1 << 20)] {
            assert_eq!(slots(pack), [0, 1, 2, 3], "{torn}");
            assert_eq!(read(pack, 2).as_deref(), Some("two"));
        }
    }
}

#[test]
fn a_write_that_fails_half_way_is_not_found_and_the_next_create_goes_on_in_another_file() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
    created(&one, 0, "zero");
    let half = bytes_of(&one, 1)[..38].to_vec();
    {
        let mut chain = one.chain();
        one.writable(&mut chain).unwrap();
        let full = |_: &mut Appender, _| {
            tear(&one, 1, &half);
            Err(io::ErrorKind::StorageFull.into())
        };
        assert_eq!(one.append(&mut chain, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    created(&one, 1, "one");
    created(&other, 2, "two");
    assert_eq!(files(&one), ["slots#1", "slots#2"]);
    assert_eq!(slots(&other), [0, 1, 2]);
}

/// Fails when the file is not ended: whoever knows the old one alone would go on in it. And when the record is not marked at last, where that failed
/// at first as well.
#[test]
fn after_a_sync_that_failed_nobody_goes_on_in_that_file() {
    for marked in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
        created(&one, 0, "zero");
        assert_eq!(slots(&other), [0]);
        {
            let mut chain = one.chain();
            let file = Arc::clone(&one.writable(&mut chain).unwrap().file);
            let not_synced = |appender: &mut Appender, synced| appender.object(1, synced, &[b"not synced"]);
            let at = one.append(&mut chain, not_synced).unwrap().unwrap();
            if marked {
                one.sync_failed(&mut chain, Place { file, at });
            } else {
                chain.last.as_mut().unwrap().unsynced = Some(at);
            }
        }
        if marked {
            // Another one goes on, and this one sees it although it has created nothing since.
            created(&other, 1, "fence");
            assert_eq!(read(&one, 1).as_deref(), Some("fence"));
        }
        created(&one, 2, "two");
        assert_eq!(create(&other, 1, "fence").unwrap() == Made::Created, !marked);
        assert_eq!(files(&one), ["slots#1", "slots#2"]);
        for pack in [&one, &other, &pack(&root, 1 << 20)] {
            assert_eq!(read(pack, 1).as_deref(), Some("fence"));
            assert_eq!(slots(pack), [0, 1, 2]);
        }
    }
}

#[test]
fn files_whose_objects_are_deleted_go_and_everybody_still_finds_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let (one, stale) = (pack(&root, 100), pack(&root, 100));
    created(&one, 0, &"0".repeat(100));
    assert_eq!(slots(&stale), [0]);
    (1..6).for_each(|slot| created(&one, slot, &slot.to_string().repeat(100)));
    assert_eq!(files(&one).len(), 6);
    for slot in [0, 2, 1, 3] {
        assert!(one.remove(slot).unwrap());
    }
    one.erase_deleted().unwrap();
    assert_eq!(files(&one), ["slots#5", "slots#6"]);
    assert_eq!(read(&stale, 0), None);
    assert_eq!(slots(&stale), [4, 5]);
    assert_eq!(create(&stale, 5, "fence").unwrap(), Made::Taken);
    created(&stale, 6, "fence");
    assert_eq!(create(&one, 6, "late").unwrap(), Made::Taken);

    // The last one stays when all is deleted, so that the numbers go up.
    for slot in [4, 5, 6] {
        assert!(one.remove(slot).unwrap());
    }
    assert!(!one.remove(6).unwrap());
    one.end_empty().unwrap();
    let left = files(&one);
    assert_eq!(left.len(), 1, "{left:?}");
    created(&pack(&root, 100), 7, "on");
    assert_eq!(slots(&one), [7]);
    assert!(files(&one).iter().all(|name| number_of(name) >= number_of(&left[0])));
}

#[test]
fn a_file_that_two_have_emptied_together_goes_when_it_is_listed() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
    created(&one, 0, &"0".repeat(1000));
    created(&one, 1, "one");
    let ended = Pack { file_bytes: 10, ..pack(&root, 0) };
    created(&ended, 2, "two");
    assert_eq!(files(&one).len(), 2);
    assert!(one.remove(0).unwrap());
    assert_eq!(slots(&two), [1, 2]);
    assert!(two.remove(1).unwrap());
    assert_eq!(slots(&one), [2]);
    one.erase_deleted().unwrap();
    assert_eq!(files(&one), ["slots#2"]);
}

/// What was deleted for a tenant's sake must be gone, whoever still has a slot in the same file.
#[test]
fn nothing_of_a_deleted_object_is_left_in_its_file() {
    let root = tempfile::tempdir().unwrap();
    let one = pack(&root, 1 << 20);
    let secret = "secret ".repeat(10_000);
    created(&one, 0, &secret);
    created(&one, 1, "stays");
    assert!(one.remove(0).unwrap());
    one.erase_deleted().unwrap();
    assert!(!bytes_of(&one, 1).windows(6).any(|bytes| bytes == b"secret"));
    assert!(MetadataExt::blocks(&fs::metadata(one.path(1)).unwrap()) * 512 < 30_000, "its space is free");
    for pack in [&one, &pack(&root, 1 << 20)] {
        assert_eq!(slots(pack), [1]);
        created(pack, 2 + slots(pack).len() as u64, "more");
        assert!(pack.remove(3).unwrap());
    }
}

/// Where a file system cannot take away a part of a file.
#[test]
fn what_is_overwritten_is_the_range_and_nothing_beside_it() {
    let file = tempfile::tempfile().unwrap();
    let len = 1_000_000;
    FileExt::write_all_at(&file, &vec![7; len], 0).unwrap();
    file::overwrite(&file, 36..900_001).unwrap();
    let mut bytes = vec![1; len];
    FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
    let zeros = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
    assert!(zeros.eq(36..900_001));
}

#[test]
fn what_is_deleted_and_erased_while_it_is_read_is_not_found() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
    created(&one, 0, "zero");
    created(&one, 1, "one");
    let meanwhile = |len| {
        assert!(other.remove(0)?);
        other.erase_deleted()?;
        io::Result::Ok(0..len)
    };
    assert!(one.read(0, meanwhile).unwrap().is_none());
}

/// The power went before the mark of the end was on the disk, and after the next file was.
#[test]
fn a_file_with_a_later_one_is_over_also_without_the_mark_of_its_end() {
    let root = tempfile::tempdir().unwrap();
    let one = pack(&root, 30);
    (0..3).for_each(|slot| created(&one, slot, "some object"));
    assert_eq!(files(&one).len(), 3);
    for number in [1, 2] {
        let file = OpenOptions::new().write(true).open(one.path(number)).unwrap();
        file.set_len(file.metadata().unwrap().len() - file::HEAD_BYTES).unwrap();
    }
    let after = pack(&root, 1 << 20);
    assert_eq!(slots(&after), [0, 1, 2]);
    created(&after, 3, "more");
    assert_eq!(files(&after).len(), 3);
}

#[test]
fn what_another_file_held_is_no_record_of_this_one() {
    let root = tempfile::tempdir().unwrap();
    let one = pack(&root, 30);
    (0..2).for_each(|slot| created(&one, slot, "some object"));
    let (first, second) = (bytes_of(&one, 1), bytes_of(&one, 2));
    assert!(first.len() > second.len(), "the first has the mark of its end");
    let other = Pack::new(root.path().join("other/wal"), true);
    fs::create_dir_all(&other.directory).unwrap();
    fs::write(other.path(1), &first).unwrap();
    assert!(slots(&other).is_empty(), "of another session");
    tear(&one, 2, &first);
    assert_eq!(slots(&pack(&root, 1 << 20)), [0, 1], "nor its mark of the end");
    created(&pack(&root, 1 << 20), 2, "two");
    assert_eq!(files(&one).len(), 3);
}

/// Fails when damage is taken for a write that was not finished: what was acknowledged behind it would be gone. And when a slot whose number is not
/// known any more can be created: a fence there would cut the log off.
#[test]
fn damage_is_damage_and_what_stands_behind_it_is_found() {
    let head = file::HEAD_BYTES as usize;
    for (at, left) in [(head + 4, vec![0, 1, 2]), (4, vec![1, 2]), (20, vec![1, 2]), (0, vec![1, 2])] {
        let root = tempfile::tempdir().unwrap();
        let one = pack(&root, 1 << 20);
        (0..3).for_each(|slot| created(&one, slot, "some object"));
        flip(&one, 1, at);
        let after = pack(&root, 1 << 20);
        assert_eq!(slots(&after), left, "byte {at}");
        assert_eq!(create(&after, 2, "fence").unwrap(), Made::Taken, "byte {at}");
        if left[0] == 0 {
            assert_ne!(read(&after, 0).as_deref(), Some("some object"), "it is read as it is");
            assert_eq!(create(&after, 0, "fence").unwrap(), Made::Taken);
            created(&after, 3, "fence");
        } else {
            assert_eq!(create(&after, 0, "fence").unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
            // Nor when all else is deleted: the damage stays.
            assert!(after.remove(1).unwrap() && after.remove(2).unwrap());
            one.begin_next(&mut one.chain()).unwrap();
            after.end_empty().unwrap();
            let cold = pack(&root, 1 << 20);
            assert_eq!(create(&cold, 0, "fence").unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
            continue;
        }
        assert_eq!(files(&after), ["slots#1"]);
    }
}

/// Fails when a successor ends a file before it is synced: the mark would not tell that the last record was there.
#[test]
fn the_mark_of_the_end_tells_that_the_last_record_was_there() {
    let root = tempfile::tempdir().unwrap();
    let owner = pack(&root, 64 << 20);
    created(&owner, 0, &"0".repeat(2 << 20));
    created(&owner, 1, "last");
    let at = bytes_of(&owner, 1).len() - 1;
    created(&pack(&root, 64 << 20), 2, "fence");
    flip(&owner, 1, at);
    assert_eq!(slots(&pack(&root, 64 << 20)), [0, 1, 2]);
}

/// Of two that write by turns each knows of its own syncs alone. Fails when what lies between the damage and its proof goes with it.
#[test]
fn what_stands_between_damage_and_its_proof_is_found() {
    for at in [file::HEAD_BYTES as usize + 2, 9] {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
        created(&one, 0, "zero");
        {
            let mut chain = other.chain();
            other.writable(&mut chain).unwrap();
            other.append(&mut chain, |appender, _| appender.object(1, 0, &[b"knows of no sync"])).unwrap().unwrap();
        }
        created(&one, 2, "two");
        flip(&one, 1, at);
        let found = slots(&pack(&root, 1 << 20));
        assert!(found.ends_with(&[1, 2]), "byte {at}: {found:?}");
    }
}

/// A head in the bytes of an object is none, also while only a part of that object is there.
#[test]
fn a_part_of_a_record_is_not_looked_into() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
    created(&one, 0, "zero");
    created(&one, 1, "one");
    let at = bytes_of(&one, 1).len() as u64;
    let elsewhere = tempfile::tempdir().unwrap();
    let forger = pack(&elsewhere, 1 << 20);
    {
        let mut chain = forger.chain();
        forger.writable(&mut chain).unwrap();
        forger.append(&mut chain, |appender, _| appender.object(3, at + 1, &[b"forged"])).unwrap().unwrap();
    }
    let forged = bytes_of(&forger, 1);
    {
        let mut chain = other.chain();
        other.writable(&mut chain).unwrap();
        other.append(&mut chain, |appender, synced| appender.object(2, synced, &[&forged, &forged])).unwrap().unwrap();
    }
    let whole = bytes_of(&one, 1);
    let cut = whole.len() - forged.len() / 2;
    OpenOptions::new().write(true).open(one.path(1)).unwrap().set_len(cut as u64).unwrap();
    let after = pack(&root, 1 << 20);
    assert_eq!(slots(&after), [0, 1]);
    created(&after, 3, "three");
    assert_eq!(files(&after), ["slots#1", "slots#2"]);
}

/// Fails when the fence goes behind what its predecessor wrote: it is never deleted, and the file would stay with it.
#[test]
fn the_fence_of_a_successor_keeps_no_long_file() {
    let root = tempfile::tempdir().unwrap();
    let (owner, successor) = (pack(&root, 64 << 20), pack(&root, 64 << 20));
    created(&owner, 0, &"0".repeat(2 << 20));
    created(&owner, 1, "one");
    created(&successor, 2, "fence");
    assert_eq!(files(&owner), ["slots#1", "slots#2"]);
    assert_eq!(create(&owner, 2, "late").unwrap(), Made::Taken);
    for slot in [0, 1] {
        assert!(successor.remove(slot).unwrap());
    }
    successor.erase_deleted().unwrap();
    assert_eq!(files(&owner), ["slots#2"]);
}

/// One that lost and was stopped before it could say so: what won is deleted later.
#[test]
fn who_lost_does_not_come_back_when_the_winner_is_deleted() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
    created(&one, 0, "winner");
    {
        let mut chain = one.chain();
        one.writable(&mut chain).unwrap();
        one.append(&mut chain, |appender, synced| appender.object(0, synced, &[b"loser"])).unwrap().unwrap();
    }
    assert_eq!(read(&other, 0).as_deref(), Some("winner"));
    assert!(other.remove(0).unwrap());
    for pack in [&one, &other, &pack(&root, 1 << 20)] {
        assert_eq!(read(pack, 0), None);
    }
}

/// A first look that is overtaken: between what it read of a file and the next one it found more was appended.
#[test]
fn who_goes_on_to_a_later_file_has_read_the_one_before_to_its_end() {
    let root = tempfile::tempdir().unwrap();
    let (one, slow) = (pack(&root, 1 << 20), pack(&root, 1 << 20));
    created(&one, 0, "zero");
    let mut chain = slow.chain();
    slow.read_on(&mut chain).unwrap();
    created(&one, 1, "one");
    created(&Pack { file_bytes: 10, ..pack(&root, 0) }, 2, "two");
    let next = slow.next_file(Some(1)).unwrap().unwrap();
    slow.go_on(&mut chain, next).unwrap();
    drop(chain);
    assert_eq!(create(&slow, 1, "fence").unwrap(), Made::Taken);
    assert_eq!(slots(&slow), [0, 1, 2]);
}

/// A file that somebody made again who had been overtaken, and was stopped before he saw it.
#[test]
fn a_number_that_was_made_again_keeps_nobody_from_the_last_file() {
    let root = tempfile::tempdir().unwrap();
    let (one, behind) = (pack(&root, 30), pack(&root, 30));
    created(&one, 0, "some object");
    assert_eq!(slots(&behind), [0]);
    (1..3).for_each(|slot| created(&one, slot, "some object"));
    assert!(one.remove(1).unwrap());
    one.erase_deleted().unwrap();
    assert_eq!(files(&one), ["slots#1", "slots#3"]);
    // One that sees it takes it away.
    assert_eq!(behind.make_file(2).unwrap().number, 3);
    assert_eq!(files(&one), ["slots#1", "slots#3"]);
    fs::write(one.path(2), "").unwrap();
    assert_eq!(create(&behind, 2, "fence").unwrap(), Made::Taken);
    created(&behind, 3, "fence");
    assert_eq!(create(&one, 3, "late").unwrap(), Made::Taken);
}

#[test]
fn where_appends_are_not_kept_in_order_packed_slots_are_read_and_no_other_is_made() {
    let root = tempfile::tempdir().unwrap();
    let (one, over_network) = (pack(&root, 1 << 20), Pack::new(root.path().join("sid/wal"), false));
    assert_eq!(create(&over_network, 0, "a file").unwrap(), Made::Elsewhere);
    created(&one, 0, "zero");
    assert_eq!(read(&over_network, 0).as_deref(), Some("zero"));
    assert_eq!(create(&over_network, 0, "fence").unwrap(), Made::Taken);
    assert_eq!(create(&over_network, 1, "fence").unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_directory_that_is_removed_under_a_pack_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let one = pack(&root, 1 << 20);
    created(&one, 0, "zero");
    let knows = pack(&root, 1 << 20);
    assert_eq!(slots(&knows), [0]);
    for (pack, slot) in [(&one, 1), (&knows, 2)] {
        fs::remove_dir_all(&one.directory).unwrap();
        created(pack, slot, "again");
        assert_eq!(slots(pack), [slot]);
    }
    assert_eq!(slots(&pack(&root, 1 << 20)), [2]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Create(u64, usize),
    Delete(u64),
    Read(u64),
    List,
    Erase,
    Reopen,
    Tear(usize),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let slot = 0_u64..12;
    let step = prop_oneof![
        6 => (slot.clone(), 0_usize..120).prop_map(|(slot, len)| Step::Create(slot, len)),
        3 => slot.clone().prop_map(Step::Delete),
        3 => slot.prop_map(Step::Read),
        1 => Just(Step::List),
        1 => Just(Step::Erase),
        1 => Just(Step::Reopen),
        1 => (1_usize..40).prop_map(Step::Tear),
    ];
    (0_usize..3, step)
}

proptest! {
    /// Three that take turns see one map of slots, whatever is torn and whoever starts anew.
    #[test]
    fn packs_on_one_directory_are_one_map(steps in prop::collection::vec(step(), 1..80), file_bytes in 50_u64..600) {
        let root = tempfile::tempdir().unwrap();
        let mut packs = [pack(&root, file_bytes), pack(&root, file_bytes), pack(&root, file_bytes)];
        let mut model: BTreeMap<u64, String> = BTreeMap::new();
        for (number, (who, step)) in steps.into_iter().enumerate() {
            let one = &packs[who];
            match step {
                Step::Create(slot, len) => {
                    let text = format!("{number}{}", "x".repeat(len));
                    let made = create(one, slot, &text).unwrap();
                    prop_assert_eq!(made == Made::Taken, model.contains_key(&slot));
                    model.entry(slot).or_insert(text);
                }
                Step::Delete(slot) => {
                    prop_assert_eq!(one.remove(slot).unwrap(), model.remove(&slot).is_some());
                }
                Step::Read(slot) => prop_assert_eq!(read(one, slot), model.get(&slot).cloned()),
                Step::Erase => one.end_empty().unwrap(),
                Step::List => prop_assert_eq!(slots(one), model.keys().copied().collect::<Vec<_>>()),
                Step::Reopen => packs[who] = pack(&root, file_bytes),
                Step::Tear(len) => {
                    let last = files(one).iter().filter_map(|name| number_of(name)).max();
                    if let Some(last) = last {
                        let bytes: Vec<u8> = bytes_of(one, last).into_iter().chain(*b"torn").cycle().take(len).collect();
                        // A whole record would be one that its writer was not told of.
                        tear(one, last, &bytes[..len.min(35)]);
                    }
                }
            }
        }
        for one in &packs {
            prop_assert_eq!(slots(one), model.keys().copied().collect::<Vec<_>>());
        }
        packs[0].end_empty().unwrap();
        let held: u64 = files(&packs[0]).len() as u64;
        prop_assert!(held <= model.len() as u64 + 1, "{} files for {} slots", held, model.len());
    }
}
