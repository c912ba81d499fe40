//! The page cache in front of the object store: memory, then SSD, then a ranged GET.
//!
//! Objects are read in pages of 4 MiB, which never change because objects never do. Concurrent readers of one page
//! share one GET. The SSD may vanish, fill up or rot: a read then goes to the store and never fails for it. Must not know
//! what the objects hold.

mod disk;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use moka::future::Cache;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};

use self::disk::DiskPages;
use crate::error::{Error, Kind, Result};
use crate::store::kind_of;

/// The unit of fetching and caching, 4 MiB. The last page of an object is shorter.
pub const PAGE_BYTES: u64 = 4 << 20;

/// How many pages one read fetches at a time.
const READ_PAGES_AT_ONCE: usize = 4;

/// Roughly what the memory layer spends on an entry beside its bytes and its path.
const ENTRY_BYTES: usize = 128;

/// Where the cache lives and how large it may grow.
#[derive(Clone, Debug)]
pub struct PageCacheOptions {
    /// The directory of the SSD layer, which nothing else may use; none: memory only.
    pub dir: Option<PathBuf>,
    /// The bound of the memory layer in bytes.
    pub memory_bytes: u64,
    /// The bound of the SSD layer in bytes; 0: memory only.
    pub disk_bytes: u64,
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
    memory: Cache<PageKey, Bytes>,
    disk: Option<Arc<DiskPages>>,
    store: Arc<dyn ObjectStore>,
    counters: Counters,
}

impl PageCache {
    /// Opens the cache over `store`. A directory that cannot be used is logged and leaves a cache in memory only.
    ///
    /// Blocks for as long as the local disk takes.
    #[must_use]
    pub fn open(options: PageCacheOptions, store: Arc<dyn ObjectStore>) -> Self {
        let memory = Cache::builder()
            .max_capacity(options.memory_bytes)
            .weigher(|key: &PageKey, page: &Bytes| {
                let bytes = page.len() + key.path.as_ref().len() + ENTRY_BYTES;
                u32::try_from(bytes).expect("a page of 4 MiB and its name are below 4 GiB")
            })
            .build();
        let dir = options.dir.filter(|_| options.disk_bytes > 0);
        let disk = dir.and_then(|dir| DiskPages::open(dir, options.disk_bytes)).map(Arc::new);
        Self { memory, disk, store, counters: Counters::default() }
    }

    /// The bytes `range` of the object at `path`, which is `object_len` bytes long. Within one page the answer is a slice
    /// of the cached page, without a copy; across pages they are joined.
    ///
    /// Cancel safe: a fetch that others wait for is then done by one of them.
    ///
    /// # Errors
    /// `Invalid` when the range is not within the object; `NotFound` when the object is not there; `Corrupt` when its
    /// length is another; `Unavailable` when the store cannot be read.
    pub async fn read(&self, path: &Path, object_len: u64, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > object_len {
            let Range { start, end } = range;
            let detail = format!("range {start}..{end} is not within object {path} of {object_len} bytes");
            return Err(Error::new(Kind::Invalid, detail));
        }
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

    /// Drops every page of the object at `path`, in memory and on the SSD: what was read from it was broken.
    ///
    /// Cancel safe: pages may then stay.
    pub async fn forget(&self, path: &Path, object_len: u64) {
        for number in 0..object_len.div_ceil(PAGE_BYTES) {
            let key = PageKey { path: path.clone(), number };
            self.memory.invalidate(&key).await;
            if let Some(disk) = &self.disk {
                disk.remove(&key).await;
            }
        }
    }

    /// What the cache has done so far.
    #[must_use]
    pub fn metrics(&self) -> CacheMetrics {
        let disk = self.disk.as_ref().map(|disk| disk.metrics()).unwrap_or_default();
        CacheMetrics {
            hits_memory: self.counters.hits_memory.load(Ordering::Relaxed),
            hits_disk: self.counters.hits_disk.load(Ordering::Relaxed),
            misses: self.counters.misses.load(Ordering::Relaxed),
            bytes_fetched: self.counters.bytes_fetched.load(Ordering::Relaxed),
            bytes_memory: self.memory.weighted_size(),
            bytes_disk: disk.bytes,
            disk_damaged: disk.damaged,
            disk_skipped: disk.skipped,
            disk_errors: disk.errors,
        }
    }

    async fn page(&self, path: &Path, object_len: u64, number: u64) -> Result<Bytes> {
        let key = PageKey { path: path.clone(), number };
        let load = self.load(&key, object_len);
        // Single flight: of all who ask for a page that is not here, one loads.
        let entry = self.memory.entry(key.clone()).or_try_insert_with(load).await.map_err(|error| shared(&error))?;
        if !entry.is_fresh() {
            self.counters.hits_memory.fetch_add(1, Ordering::Relaxed);
        }
        let page = entry.into_value();
        let expected = length(&page_range(number, object_len));
        if page.len() != expected {
            return Err(wrong_length(path, object_len));
        }
        Ok(page)
    }

    async fn load(&self, key: &PageKey, object_len: u64) -> Result<Bytes> {
        let range = page_range(key.number, object_len);
        if let Some(disk) = &self.disk
            && let Some(page) = disk.get(key, length(&range)).await
        {
            self.counters.hits_disk.fetch_add(1, Ordering::Relaxed);
            return Ok(page);
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let page = self.fetch(&key.path, object_len, range).await?;
        self.counters.bytes_fetched.fetch_add(page.len() as u64, Ordering::Relaxed);
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
        let bytes = got.bytes().await.map_err(failed)?;
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

#[derive(Debug, Default)]
struct Counters {
    hits_memory: AtomicU64,
    hits_disk: AtomicU64,
    misses: AtomicU64,
    bytes_fetched: AtomicU64,
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

/// One failed load answers all who waited for it.
fn shared(error: &Arc<Error>) -> Error {
    error.repeat().with_source(Arc::clone(error))
}

fn wrong_length(path: &Path, object_len: u64) -> Error {
    Error::new(Kind::Corrupt, format!("object {path} is not {object_len} bytes long"))
}
