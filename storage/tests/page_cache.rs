//! The page cache: what it answers is the object's bytes, however often the store, the SSD or the reader gives up.

use std::fs;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use plinth_storage::Kind;
use plinth_storage::cache::{PAGE_BYTES, PageCache, PageCacheOptions};
use plinth_storage::testing::fault::{FaultStore, GetFault, Op};

const MIB: u64 = 1 << 20;
/// Two whole pages and a short one.
const OBJECT_BYTES: u64 = 2 * PAGE_BYTES + 1000;

#[tokio::test]
async fn any_range_of_an_object_is_its_bytes() {
    let (store, object) = store_with_object().await;
    let cache = PageCache::open(memory_only(64 * MIB), Arc::new(store.clone()));
    let ranges: [Range<u64>; 8] = [
        0..1,
        0..OBJECT_BYTES,
        PAGE_BYTES - 1..PAGE_BYTES + 1,
        PAGE_BYTES..2 * PAGE_BYTES,
        PAGE_BYTES - 5..2 * PAGE_BYTES + 5,
        2 * PAGE_BYTES..OBJECT_BYTES,
        OBJECT_BYTES - 1..OBJECT_BYTES,
        7..7,
    ];
    for range in ranges {
        let got = cache.read(&path(), OBJECT_BYTES, range.clone()).await.unwrap();
        assert!(got == slice(&object, &range), "range {range:?}");
    }
    assert_eq!(store.count(Op::Get), 3, "each page is fetched once");
    assert_eq!(cache.metrics().misses, 3);
    assert_eq!(cache.metrics().bytes_fetched, OBJECT_BYTES);
}

#[tokio::test]
async fn a_range_within_one_page_is_not_copied() {
    let (store, _) = store_with_object().await;
    let cache = PageCache::open(memory_only(64 * MIB), Arc::new(store));
    let page = cache.read(&path(), OBJECT_BYTES, 0..PAGE_BYTES).await.unwrap();
    let part = cache.read(&path(), OBJECT_BYTES, 100..200).await.unwrap();
    assert_eq!(part.as_ptr(), page[100..].as_ptr());
}

#[tokio::test]
async fn readers_of_one_page_share_one_get() {
    // Fails when a page is loaded outside the single flight.
    let (store, object) = store_with_object().await;
    let cache = Arc::new(PageCache::open(memory_only(64 * MIB), Arc::new(store.clone())));
    store.on_get(|_| true, GetFault::Hang);
    let mut readers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let cache = Arc::clone(&cache);
        readers.spawn(async move { (n, cache.read(&path(), OBJECT_BYTES, n..n + 10).await) });
    }
    store.until(|store| store.hanging() == 1).await;
    store.release().await;
    while let Some(read) = readers.join_next().await {
        let (n, got) = read.unwrap();
        assert_eq!(got.unwrap(), slice(&object, &(n..n + 10)));
    }
    assert_eq!(store.count(Op::Get), 1);
    assert_eq!(cache.metrics().hits_memory, 49);
}

#[tokio::test]
async fn a_reader_that_gives_up_does_not_take_the_others_with_it() {
    let (store, object) = store_with_object().await;
    let cache = Arc::new(PageCache::open(memory_only(64 * MIB), Arc::new(store.clone())));
    store.on_get(|_| true, GetFault::Hang);
    let (first, second) = (Arc::clone(&cache), Arc::clone(&cache));
    let first = tokio::spawn(async move { first.read(&path(), OBJECT_BYTES, 0..10).await });
    store.until(|store| store.hanging() == 1).await;
    let second = tokio::spawn(async move { second.read(&path(), OBJECT_BYTES, 0..10).await });
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(store.hanging(), 1, "the fetch goes on for the second");
    store.release().await;
    assert_eq!(second.await.unwrap().unwrap(), slice(&object, &(0..10)));
    assert_eq!(store.count(Op::Get), 1);
}

#[tokio::test]
async fn a_get_that_fails_or_is_cut_short_is_an_error_and_is_not_kept() {
    let (store, object) = store_with_object().await;
    let dir = tempfile::tempdir().unwrap();
    let cache = PageCache::open(with_disk(dir.path(), 64 * MIB), Arc::new(store.clone()));
    for fault in [GetFault::Fail, GetFault::Truncate] {
        store.on_get(|_| true, fault);
        let error = cache.read(&path(), OBJECT_BYTES, 0..10).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{fault:?}: {error:?}");
    }
    assert_eq!(cache.read(&path(), OBJECT_BYTES, 0..10).await.unwrap(), slice(&object, &(0..10)));
    assert_eq!(store.count(Op::Get), 3);
}

#[tokio::test]
async fn a_fetch_that_fails_answers_all_who_waited_for_it() {
    // Fails when each of them tries by himself: with a store that hangs they would wait one after the other.
    let (store, _) = store_with_object().await;
    let cache = Arc::new(PageCache::open(memory_only(64 * MIB), Arc::new(store.clone())));
    store.on_get(|_| true, GetFault::Hang);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let cache = Arc::clone(&cache);
        readers.spawn(async move { cache.read(&path(), OBJECT_BYTES + 1, 0..10).await });
    }
    store.until(|store| store.hanging() == 1).await;
    tokio::task::yield_now().await;
    store.release().await;
    for read in readers.join_all().await {
        assert_eq!(read.unwrap_err().kind(), Kind::Corrupt);
    }
    assert_eq!(store.count(Op::Get), 1);
}

#[tokio::test]
async fn memory_never_holds_more_than_its_bound() {
    // Fails when pages are evicted later than they come: moka let them pile up.
    let (store, bound) = (store_of_pages(40).await, 16 * MIB + 4096);
    let cache = Arc::new(PageCache::open(memory_only(bound), Arc::new(store)));
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..4 {
        let cache = Arc::clone(&cache);
        readers.spawn(async move {
            for n in 0..40 {
                cache.read(&page_path((n + reader * 10) % 40), PAGE_BYTES, 0..10).await.unwrap();
                assert!(cache.metrics().bytes_memory <= bound, "{:?}", cache.metrics());
            }
        });
    }
    readers.join_all().await;
    assert!(cache.metrics().bytes_memory > bound / 2, "it is used: {:?}", cache.metrics());
}

#[tokio::test]
async fn a_reader_who_passes_once_does_not_evict_what_is_read_again_and_again() {
    // Fails when the pages that were read last are those that stay.
    let store = store_of_pages(100).await;
    let cache = PageCache::open(memory_only(40 * MIB), Arc::new(store.clone()));
    let hot = || async {
        for n in 0..4 {
            cache.read(&page_path(n), PAGE_BYTES, 0..10).await.unwrap();
        }
    };
    for _ in 0..3 {
        hot().await;
    }
    for n in 4..100 {
        cache.read(&page_path(n), PAGE_BYTES, 0..10).await.unwrap();
        if n % 20 == 0 {
            hot().await;
        }
    }
    let gets = store.count(Op::Get);
    hot().await;
    assert_eq!(store.count(Op::Get), gets, "all of them are still here");
}

#[tokio::test]
async fn what_is_read_once_from_a_store_of_this_machine_is_no_page() {
    let (store, object) = store_with_object().await;
    let options = PageCacheOptions { local: true, ..memory_only(64 * MIB) };
    let cache = PageCache::open(options, Arc::new(store.clone()));
    for range in [PAGE_BYTES - 5..2 * PAGE_BYTES + 5, 0..1, 7..7] {
        let got = cache.read_once(&path(), OBJECT_BYTES, range.clone()).await.unwrap();
        assert!(got == slice(&object, &range), "range {range:?}");
    }
    assert_eq!((store.count(Op::Get), cache.metrics().bytes_memory), (2, 0), "one get per range");
    let wrong = cache.read_once(&path(), OBJECT_BYTES + 1, 0..10).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::Corrupt, "{wrong:?}");
    let outside = cache.read_once(&path(), OBJECT_BYTES, 0..OBJECT_BYTES + 1).await.unwrap_err();
    assert_eq!(outside.kind(), Kind::Invalid, "{outside:?}");

    let remote = PageCache::open(memory_only(64 * MIB), Arc::new(store));
    remote.read_once(&path(), OBJECT_BYTES, 0..1).await.unwrap();
    assert!(remote.metrics().bytes_memory >= PAGE_BYTES, "what is far away is kept");
}

#[tokio::test]
async fn an_object_that_is_missing_or_of_another_length_is_told_apart() {
    let (store, _) = store_with_object().await;
    let cache = PageCache::open(memory_only(64 * MIB), Arc::new(store));
    let missing = cache.read(&Path::from("missing"), 10, 0..10).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound, "{missing:?}");
    for wrong_bytes in [OBJECT_BYTES - 1, OBJECT_BYTES + 1] {
        let wrong = cache.read(&path(), wrong_bytes, 0..10).await.unwrap_err();
        assert_eq!(wrong.kind(), Kind::Corrupt, "{wrong:?}");
    }
    for outside in [0..OBJECT_BYTES + 1, Range { start: 2, end: 1 }] {
        let outside = cache.read(&path(), OBJECT_BYTES, outside).await.unwrap_err();
        assert_eq!(outside.kind(), Kind::Invalid, "{outside:?}");
    }
}

#[tokio::test]
async fn what_memory_cannot_hold_is_read_from_the_ssd() {
    let (store, object) = store_with_object().await;
    let dir = tempfile::tempdir().unwrap();
    let options = PageCacheOptions { memory_bytes: 0, ..with_disk(dir.path(), 64 * MIB) };
    let cache = PageCache::open(options, Arc::new(store.clone()));
    for round in 0..3 {
        let got = cache.read(&path(), OBJECT_BYTES, 10..20).await.unwrap();
        assert_eq!(got, slice(&object, &(10..20)), "round {round}");
    }
    assert_eq!(store.count(Op::Get), 1);
    assert_eq!(cache.metrics().hits_disk, 2);
    assert!(cache.metrics().bytes_disk >= PAGE_BYTES);
}

#[tokio::test]
async fn the_ssd_is_warm_after_a_restart() {
    let (store, object) = store_with_object().await;
    let dir = tempfile::tempdir().unwrap();
    warm(&store, dir.path()).await;
    let cache = PageCache::open(with_disk(dir.path(), 64 * MIB), Arc::new(store.clone()));
    assert!(cache.read(&path(), OBJECT_BYTES, 0..OBJECT_BYTES).await.unwrap() == object);
    assert_eq!(cache.metrics().hits_disk, 3);
    assert_eq!(store.count(Op::Get), 3, "only the first run fetched");
}

#[tokio::test]
async fn damage_on_the_ssd_is_never_served() {
    // Fails when a checksum is not looked at, or when damage is an error of the read.
    let (store, object) = store_with_object().await;
    let dir = tempfile::tempdir().unwrap();
    warm(&store, dir.path()).await;
    for file in files(dir.path(), ".sst") {
        let mut bytes = fs::read(&file).unwrap();
        // Only in the first part, which holds the pages; the end of the file tells what it is.
        let pages = bytes.len() / 2;
        bytes[..pages].iter_mut().step_by(1 << 16).for_each(|byte| *byte = !*byte);
        fs::write(&file, bytes).unwrap();
    }
    let cache = PageCache::open(with_disk(dir.path(), 64 * MIB), Arc::new(store.clone()));
    assert!(cache.read(&path(), OBJECT_BYTES, 0..OBJECT_BYTES).await.unwrap() == object);
    assert!(cache.metrics().disk_damaged > 0, "{:?}", cache.metrics());
    assert_eq!(cache.metrics().disk_errors, 0);
}

#[tokio::test]
async fn a_forgotten_object_is_fetched_anew_and_its_neighbours_are_not() {
    // Fails when one of the two layers keeps its pages.
    let (store, object) = store_with_object().await;
    let neighbour = Path::from("session/1/wal/00");
    store.inner().put(&neighbour, object.clone().into()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = PageCache::open(with_disk(dir.path(), 64 * MIB), Arc::new(store.clone()));
    store.on_get(|_| true, GetFault::FlipBit);
    let flipped = cache.read(&path(), OBJECT_BYTES, 0..PAGE_BYTES).await.unwrap();
    assert!(flipped != slice(&object, &(0..PAGE_BYTES)), "a flipped bit on the way is for the caller to find");
    cache.read(&neighbour, OBJECT_BYTES, 0..10).await.unwrap();

    cache.forget(&path(), OBJECT_BYTES).await;
    assert!(cache.read(&path(), OBJECT_BYTES, 0..OBJECT_BYTES).await.unwrap() == object);
    let gets = store.count(Op::Get);
    cache.read(&neighbour, OBJECT_BYTES, 0..10).await.unwrap();
    assert_eq!(store.count(Op::Get), gets);
}

#[tokio::test]
async fn a_cache_directory_that_is_damaged_as_a_whole_is_begun_anew() {
    let (store, object) = store_with_object().await;
    for damaged in ["CURRENT", "MANIFEST-", ".sst"] {
        let dir = tempfile::tempdir().unwrap();
        warm(&store, dir.path()).await;
        for file in files(dir.path(), damaged) {
            fs::write(file, "damaged").unwrap();
        }
        warm(&store, dir.path()).await;
        let cache = PageCache::open(with_disk(dir.path(), 64 * MIB), Arc::new(store.clone()));
        assert!(cache.read(&path(), OBJECT_BYTES, 0..OBJECT_BYTES).await.unwrap() == object);
        assert_eq!(cache.metrics().hits_disk, 3, "{damaged}: the second run could fill it again");
    }
}

#[tokio::test]
async fn a_directory_that_is_not_a_cache_is_left_alone() {
    let (store, object) = store_with_object().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("000001.sst"), "someone's file").unwrap();
    let in_the_way = dir.path().join("000001.sst");
    for unusable in [dir.path(), &in_the_way, &in_the_way.join("below")] {
        let cache = PageCache::open(with_disk(unusable, 64 * MIB), Arc::new(store.clone()));
        assert_eq!(cache.read(&path(), OBJECT_BYTES, 0..10).await.unwrap(), slice(&object, &(0..10)));
        assert_eq!(cache.metrics().bytes_disk, 0);
    }
    assert_eq!(fs::read(&in_the_way).unwrap(), b"someone's file");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn two_caches_on_one_directory_do_not_disturb_each_other() {
    let (store, object) = store_with_object().await;
    let dir = tempfile::tempdir().unwrap();
    let first = PageCache::open(with_disk(dir.path(), 64 * MIB), Arc::new(store.clone()));
    let second = PageCache::open(with_disk(dir.path(), 64 * MIB), Arc::new(store.clone()));
    for cache in [&first, &second] {
        assert!(cache.read(&path(), OBJECT_BYTES, 0..OBJECT_BYTES).await.unwrap() == object);
    }
    assert!(first.metrics().bytes_disk > 0);
    assert_eq!(second.metrics().bytes_disk, 0, "the second one is in memory only");
}

#[tokio::test]
async fn the_ssd_keeps_to_its_bound() {
    // Fails when the oldest files are not dropped: 40 pages of 4 MiB are 160 MiB.
    let store = FaultStore::in_memory();
    let dir = tempfile::tempdir().unwrap();
    let bound = 48 * MIB;
    let object = Bytes::from(vec![7; usize::try_from(PAGE_BYTES).unwrap()]);
    let options = PageCacheOptions { memory_bytes: 0, ..with_disk(dir.path(), bound) };
    let cache = PageCache::open(options, Arc::new(store.clone()));
    for n in 0..40 {
        let path = Path::from(format!("object/{n}"));
        store.inner().put(&path, object.clone().into()).await.unwrap();
        // A disk that is behind skips a page; each read of it is another try.
        let mut skipped_before = u64::MAX;
        while cache.metrics().disk_skipped != skipped_before {
            skipped_before = cache.metrics().disk_skipped;
            cache.read(&path, PAGE_BYTES, 0..10).await.unwrap();
        }
    }
    // The files are counted, and the oldest dropped, in the background; two write buffers come on top of the bound.
    let settled = async {
        while cache.metrics().bytes_disk > bound + 48 * MIB {
            cache.read(&Path::from("object/39"), PAGE_BYTES, 0..10).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settled).await.expect("the oldest pages are dropped");
    let metrics = cache.metrics();
    assert_eq!(metrics.disk_errors, 0, "{metrics:?}");
    assert!(metrics.bytes_disk >= PAGE_BYTES, "the newest pages are kept: {metrics:?}");
}

fn path() -> Path {
    Path::from("session/1/wal/0")
}

async fn store_with_object() -> (FaultStore, Bytes) {
    let words = (0..u32::try_from(OBJECT_BYTES / 4).expect("9 MiB")).flat_map(u32::to_le_bytes);
    let object = Bytes::from_iter(words);
    let store = FaultStore::in_memory();
    store.inner().put(&path(), object.clone().into()).await.expect("memory takes an object");
    (store, object)
}

fn page_path(n: usize) -> Path {
    Path::from(format!("object/{n}"))
}

/// Objects of one page each.
async fn store_of_pages(count: usize) -> FaultStore {
    let store = FaultStore::in_memory();
    let object = Bytes::from(vec![7; usize::try_from(PAGE_BYTES).expect("4 MiB")]);
    for n in 0..count {
        store.inner().put(&page_path(n), object.clone().into()).await.expect("memory takes an object");
    }
    store
}

/// Fills the cache in `dir` with the whole object and closes it.
async fn warm(store: &FaultStore, dir: &FsPath) {
    let cache = PageCache::open(with_disk(dir, 64 * MIB), Arc::new(store.clone()));
    cache.read(&path(), OBJECT_BYTES, 0..OBJECT_BYTES).await.expect("the object can be read");
}

fn memory_only(memory_bytes: u64) -> PageCacheOptions {
    PageCacheOptions { dir: None, memory_bytes, disk_bytes: 0, local: false }
}

fn with_disk(dir: &FsPath, disk_bytes: u64) -> PageCacheOptions {
    PageCacheOptions { dir: Some(dir.to_path_buf()), memory_bytes: 64 * MIB, disk_bytes, local: false }
}

fn slice(object: &Bytes, range: &Range<u64>) -> Bytes {
    let index = |at| usize::try_from(at).expect("9 MiB");
    object.slice(index(range.start)..index(range.end))
}

fn files(dir: &FsPath, part: &str) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(dir).expect("the directory is there").map(|entry| entry.expect("an entry").path());
    let named = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part));
    let found: Vec<_> = paths.filter(named).collect();
    assert!(!found.is_empty(), "there is a file with {part} in its name");
    found
}
