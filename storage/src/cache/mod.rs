//! The page cache in front of the object store: memory, then SSD, then a ranged GET.
//!
//! Objects are read in pages of 4 MiB, which never change because objects never do. Concurrent readers of one page
//! share one GET. The memory layer keeps what is asked for again and lets go of what passes once (CLOCK-Pro), and it never
//! holds more than its bound. The SSD may vanish, fill up or rot: a read then goes to the store and never fails for it.
//! Must not know what the objects hold.

mod counters;
mod disk;
mod flight;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetResultPayload, ObjectStore};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

pub use self::counters::CacheCounters;
use self::disk::DiskPages;
use self::flight::Flights;
use crate::error::{Error, Kind, Result};
use crate::store::kind_of;

/// The unit of fetching and caching, 4 MiB. The last page of an object is shorter.
pub const PAGE_BYTES: u64 = 4 << 20;

/// How many pages one read fetches at a time.
const READ_PAGES_AT_ONCE: usize = 4;

/// Roughly what the memory layer spends on an entry beside its bytes and its path.
const ENTRY_BYTES: usize = 128;

/// The part of the memory layer that only holds what was asked for again. The rest must be several pages even of a small
/// cache: what passes once is kept there, and would take the place of what is hot if it did not fit.
const HOT_PART: f64 = 0.75;

/// About the size of a page, for a first guess at the size of the tables: most objects are shorter than one.
const COMMON_PAGE_BYTES: u64 = 256 << 10;

/// Where the cache lives and how large it may grow.
#[derive(Clone, Debug)]
pub struct PageCacheOptions {
    /// The directory of the SSD layer, which nothing else may use; none: memory only.
    pub dir: Option<PathBuf>,
    /// The bound of the memory layer in bytes.
    pub memory_bytes: u64,
    /// The bound of the SSD layer in bytes; 0: memory only.
    pub disk_bytes: u64,
    /// The store is on this machine: what is read once is read as it is, and no page is made of it.
    pub local: bool,
}

/// What the cache has done since it was opened; pages unless named otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheMetrics {
    /// Found in memory, or got from another reader's fetch.
    pub hits_memory: u64,
    /// Found on the SSD.
    pub hits_disk: u64,
    /// Fetched from the object store, or tried to.
    pub misses: u64,
    /// Bytes fetched from the object store.
    pub bytes_fetched: u64,
    /// Bytes in memory now, an estimate.
    pub bytes_memory: u64,
    /// Bytes on the SSD now, an estimate.
    pub bytes_disk: u64,
    /// Pages that the SSD held damaged; they were fetched again.
    pub disk_damaged: u64,
    /// Pages that the SSD was too slow to take.
    pub disk_skipped: u64,
    /// Errors of the SSD; from the first one on it is not used.
    pub disk_errors: u64,
}

/// The page cache. Cheap to share behind an `Arc`.
pub struct PageCache {
    pages: Arc<Pages>,
    loading: Arc<Flights<PageKey, Loaded>>,
}

/// The layers.
struct Pages {
    memory: Cache<PageKey, Bytes, ByBytes>,
    disk: Option<Arc<DiskPages>>,
    store: Arc<dyn ObjectStore>,
    local: bool,
    counters: CacheCounters,
}

/// What all get who waited for a page.
type Loaded = std::result::Result<Bytes, Arc<Error>>;

#[derive(Clone)]
struct ByBytes;

impl Weighter<PageKey, Bytes> for ByBytes {
    fn weight(&self, key: &PageKey, page: &Bytes) -> u64 {
        (page.len() + key.path.as_ref().len() + ENTRY_BYTES) as u64
    }
}

impl PageCache {
    /// Opens the cache over `store`. A directory that cannot be used is logged and leaves a cache in memory only.
    ///
    /// Blocks for as long as the local disk takes.
    #[must_use]
    pub fn open(options: PageCacheOptions, store: Arc<dyn ObjectStore>) -> Self {
        let memory = OptionsBuilder::new()
            // One, so that the bound is that of the whole and a page may be as large as it.
            .shards(1)
            .hot_allocation(HOT_PART)
            .estimated_items_capacity(index(options.memory_bytes / COMMON_PAGE_BYTES))
            .weight_capacity(options.memory_bytes)
            .build()
            .expect("both capacities are set");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        let memory = Cache::with_options(memory, ByBytes, hasher, lifecycle);
        let dir = options.dir.filter(|_| options.disk_bytes > 0);
        let disk = dir.and_then(|dir| DiskPages::open(dir, options.disk_bytes)).map(Arc::new);
        let pages = Pages { memory, disk, store, local: options.local, counters: CacheCounters::default() };
        Self { pages: Arc::new(pages), loading: Arc::default() }
    }

    /// The bytes `range` of the object at `path`, which is `object_len` bytes long. Within one page the answer is a slice
    /// of the cached page, without a copy; across pages they are joined.
    ///
    /// Cancel safe: a fetch goes on for those who still wait for it.
    ///
    /// # Errors
    /// `Invalid` when the range is not within the object; `NotFound` when the object is not there; `Corrupt` when its
    /// length is another; `Unavailable` when the store cannot be read.
    pub async fn read(&self, path: &Path, object_len: u64, range: Range<u64>) -> Result<Bytes> {
        check_range(path, object_len, &range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (first, last) = (range.start / PAGE_BYTES, (range.end - 1) / PAGE_BYTES);
        if first == last {
            let page = self.page(path, object_len, first).await?;
            return Ok(page.slice(within_page(&range, first)));
        }
        let mut joined = BytesMut::with_capacity(length(&range));
        let mut pages = stream::iter(first..=last)
            .map(|number| async move { Ok::<_, Error>((number, self.page(path, object_len, number).await?)) })
            .buffered(READ_PAGES_AT_ONCE);
        while let Some((number, page)) = pages.try_next().await? {
            joined.extend_from_slice(&page[within_page(&range, number)]);
        }
        Ok(joined.freeze())
    }

    /// The same for a reader that will not come back to it. From a store on this machine exactly the range is read, once
    /// and past the pages: they stay with those who come back, and the operating system has a cache of its own.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`PageCache::read`].
    pub async fn read_once(&self, path: &Path, object_len: u64, range: Range<u64>) -> Result<Bytes> {
        if !self.pages.local {
            return self.read(path, object_len, range).await;
        }
        check_range(path, object_len, &range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.pages.fetch(path, object_len, range).await
    }

    /// Drops every page of the object at `path`, in memory and on the SSD: what was read from it was broken.
    ///
    /// Cancel safe: pages may then stay.
    pub async fn forget(&self, path: &Path, object_len: u64) {
        for number in 0..object_len.div_ceil(PAGE_BYTES) {
            let key = PageKey { path: path.clone(), number };
            self.pages.memory.remove(&key);
            if let Some(disk) = &self.pages.disk {
                disk.remove(&key).await;
            }
        }
    }

    /// What the cache has done so far.
    #[must_use]
    pub fn metrics(&self) -> CacheMetrics {
        let disk = self.pages.disk.as_ref().map(|disk| disk.metrics()).unwrap_or_default();
        let counters = &self.pages.counters;
        CacheMetrics {
            hits_memory: counters.hits_memory.get(),
            hits_disk: counters.hits_disk.get(),
            misses: counters.misses.get(),
            bytes_fetched: counters.bytes_fetched.get(),
            bytes_memory: self.pages.memory.weight(),
            bytes_disk: disk.bytes,
            disk_damaged: disk.damaged,
            disk_skipped: disk.skipped,
            disk_errors: disk.errors,
        }
    }

    /// The same, to be registered as metrics.
    #[must_use]
    pub fn counters(&self) -> CacheCounters {
        self.pages.counters.clone()
    }

    async fn page(&self, path: &Path, object_len: u64, number: u64) -> Result<Bytes> {
        let key = PageKey { path: path.clone(), number };
        let page = match self.pages.memory.get(&key) {
            Some(page) => {
                self.pages.counters.hits_memory.inc();
                page
            }
            None => self.load(&key, object_len).await?,
        };
        let expected = length(&page_range(number, object_len));
        if page.len() != expected {
            return Err(wrong_length(path, object_len));
        }
        Ok(page)
    }

    /// Single flight: of all who ask for a page that is not here, one loads.
    async fn load(&self, key: &PageKey, object_len: u64) -> Result<Bytes> {
        let (flight, begun) = self.loading.join(key, || {
            let (pages, key) = (Arc::clone(&self.pages), key.clone());
            async move { pages.load(key, object_len).await.map_err(Arc::new) }
        });
        if !begun {
            self.pages.counters.hits_memory.inc();
        }
        flight.await.map_err(|error| shared(&error))
    }
}

impl Pages {
    async fn load(&self, key: PageKey, object_len: u64) -> Result<Bytes> {
        // Another flight may have landed between the look that found nothing and this one.
        if let Some(page) = self.memory.get(&key) {
            self.counters.hits_memory.inc();
            return Ok(page);
        }
        let page = self.load_from_below(&key, object_len).await?;
        self.memory.insert(key, page.clone());
        let disk = self.disk.as_ref().map(|disk| disk.metrics().bytes).unwrap_or_default();
        self.counters.holds(self.memory.weight(), disk);
        Ok(page)
    }

    async fn load_from_below(&self, key: &PageKey, object_len: u64) -> Result<Bytes> {
        let range = page_range(key.number, object_len);
        if let Some(disk) = &self.disk
            && let Some(page) = disk.get(key, length(&range)).await
        {
            self.counters.hits_disk.inc();
            return Ok(page);
        }
        self.counters.misses.inc();
        let page = self.fetch(&key.path, object_len, range).await?;
        self.counters.bytes_fetched.inc_by(page.len() as u64);
        if let Some(disk) = &self.disk {
            disk.put(key, &page).await;
        }
        Ok(page)
    }

    async fn fetch(&self, path: &Path, object_len: u64, range: Range<u64>) -> Result<Bytes> {
        let failed = |error| Error::new(kind_of(&error), format!("object {path} cannot be read")).with_source(error);
        let options = GetOptions::new().with_range(Some(range.clone()));
        let got = self.store.get_opts(path, options).await.map_err(failed)?;
        if got.meta.size != object_len {
            return Err(wrong_length(path, object_len));
        }
        let bytes = match got.payload {
            GetResultPayload::File(file, _) => read_file(file, range.clone()).await.map_err(|error| {
                Error::new(Kind::Unavailable, format!("object {path} cannot be read")).with_source(error)
            })?,
            GetResultPayload::Stream(_) => got.bytes().await.map_err(failed)?,
        };
        if bytes.len() != length(&range) {
            let detail = format!("a read of {} bytes of object {path} was cut to {}", length(&range), bytes.len());
            return Err(Error::new(Kind::Unavailable, detail));
        }
        Ok(bytes)
    }
}

/// Names a page. Part of what the SSD layer stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PageKey {
    path: Path,
    number: u64,
}

/// The bytes of the object that the page holds.
fn page_range(number: u64, object_len: u64) -> Range<u64> {
    let start = number * PAGE_BYTES;
    start..object_len.min(start + PAGE_BYTES)
}

/// The part of the wanted range that the page holds, counted from the page's start.
fn within_page(range: &Range<u64>, number: u64) -> Range<usize> {
    let start = number * PAGE_BYTES;
    let (from, to) = (range.start.saturating_sub(start), (range.end - start).min(PAGE_BYTES));
    index(from)..index(to)
}

fn length(range: &Range<u64>) -> usize {
    index(range.end - range.start)
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("an object that is read into memory fits the address space")
}

/// A range of a file. The memory is taken here and not where the file is read: the allocator keeps some for each thread, and
/// there may be hundreds of those.
async fn read_file(file: File, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; length(&range)];
    let read = tokio::task::spawn_blocking(move || file.read_exact_at(&mut bytes, range.start).map(|()| bytes)).await;
    Ok(Bytes::from(read.map_err(io::Error::other)??))
}

fn check_range(path: &Path, object_len: u64, range: &Range<u64>) -> Result<()> {
    let Range { start, end } = *range;
    if start <= end && end <= object_len {
        return Ok(());
    }
    let detail = format!("range {start}..{end} is not within object {path} of {object_len} bytes");
    Err(Error::new(Kind::Invalid, detail))
}

/// One failed load answers all who waited for it.
fn shared(error: &Arc<Error>) -> Error {
    error.repeat().with_source(Arc::clone(error))
}

fn wrong_length(path: &Path, object_len: u64) -> Error {
    Error::new(Kind::Corrupt, format!("object {path} is not {object_len} bytes long"))
}
