//! Reads runs out of segments: frame table and decompressed frames are kept in memory, the objects come from the page cache.
//! Of a run that is smaller than a page exactly the frames are read from a directory, where a request costs nothing.
//!
//! Both caches are bounded in bytes and load each thing once for all who ask at the same time.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache;

use crate::cache::{PAGE_BYTES, PageCache};
use crate::env::apart;
use crate::error::{Error, Result};
use crate::ids::{Offset, SegmentId, Timestamp};
use crate::segment::format::{FrameTable, Trailer};
use crate::shard::rows::IndexRow;
use crate::slot::read_range;
use crate::store::ObjectStores;

/// So much of the memory for segments is for their frame tables.
const TABLES_SHARE: u64 = 8;
/// A larger frame, which a large batch has, is decompressed where it holds up nobody else.
const DECOMPRESS_INLINE_BYTES_MAX: usize = 1 << 20;

/// What is kept of segments in memory.
pub(crate) struct SegmentCache {
    /// The store, if small reads need no page cache.
    direct: Option<ObjectStores>,
    tables: Cache<SegmentId, Arc<FrameTable>>,
    frames: Cache<(SegmentId, usize), Bytes>,
}

/// A segment that a row names, ready to be read.
pub(crate) struct OpenSegment<'a> {
    cache: &'a SegmentCache,
    pages: &'a PageCache,
    segment: SegmentId,
    row: &'a IndexRow,
    table: Arc<FrameTable>,
}

impl SegmentCache {
    /// A cache of so many bytes over these stores.
    pub(crate) fn new(memory_bytes: u64, stores: &ObjectStores) -> Self {
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let tables = memory_bytes / TABLES_SHARE;
        Self {
            direct: stores.local.then(|| stores.clone()),
            tables: Cache::builder()
                .max_capacity(tables)
                .weigher(move |_: &SegmentId, table: &Arc<FrameTable>| weight(table.memory_bytes()))
                .build(),
            frames: Cache::builder()
                .max_capacity(memory_bytes - tables)
                .weigher(move |_: &(SegmentId, usize), content: &Bytes| weight(content.len()))
                .build(),
        }
    }

    /// The segment that `row` names. Cancel safe.
    ///
    /// # Errors
    /// Those of the page cache; `Corrupt` when the frame table is broken.
    pub(crate) async fn open<'a>(
        &'a self,
        pages: &'a PageCache,
        segment: SegmentId,
        row: &'a IndexRow,
    ) -> Result<OpenSegment<'a>> {
        let load = async {
            let len = row.object_len;
            let trailer = Trailer::parse(self.bytes(pages, row, Trailer::range(len)).await?, len)?;
            let table = self.bytes(pages, row, trailer.table.clone()).await?;
            FrameTable::parse(table, &trailer).map(Arc::new)
        };
        let table = self.tables.try_get_with(segment, load).await.map_err(|error| shared(&error))?;
        Ok(OpenSegment { cache: self, pages, segment, row, table })
    }

    async fn bytes(&self, pages: &PageCache, row: &IndexRow, range: Range<u64>) -> Result<Bytes> {
        match &self.direct {
            Some(stores) if u64::from(row.len) < PAGE_BYTES => read_range(stores, &row.object(), range).await,
            Some(_) | None => pages.read(&row.object(), row.object_len, range).await,
        }
    }

    /// Drops what is kept of a segment: what was read from it was broken.
    pub(crate) async fn forget(&self, segment: SegmentId) {
        let Some(table) = self.tables.remove(&segment).await else { return };
        for index in 0..table.frames().len() {
            self.frames.invalidate(&(segment, index)).await;
        }
    }
}

impl OpenSegment<'_> {
    /// The frames of the row's run from the one on in which `from` stands.
    pub(crate) fn frames_from(&self, from: Offset) -> Range<usize> {
        let run = self.run();
        self.table.seek(&run, |frame| frame.base <= from)..self.table.covering(&run).end
    }

    /// An offset of the row's run before which all records are older than `at`, found without reading any.
    pub(crate) fn not_after(&self, base: Offset, at: Timestamp) -> Offset {
        let index = self.table.seek(&self.run(), |frame| frame.timestamp < at);
        self.begins(index).unwrap_or(base)
    }

    /// The first offset of a frame, if it begins within the row's run.
    pub(crate) fn begins(&self, index: usize) -> Option<Offset> {
        let frame = self.table.frames().get(index)?;
        (frame.content_at > self.row.position).then_some(frame.base)
    }

    /// What a frame holds of the row's run. Cancel safe.
    ///
    /// # Errors
    /// Those of the page cache; `Corrupt` when the frame is broken.
    pub(crate) async fn read(&self, index: usize) -> Result<Bytes> {
        let frame = self.table.frames()[index];
        let load = async {
            let bytes = self.cache.bytes(self.pages, self.row, frame.range()).await?;
            if frame.content_len as usize <= DECOMPRESS_INLINE_BYTES_MAX {
                return frame.decompress(&bytes);
            }
            apart("a read", move || frame.decompress(&bytes)).await
        };
        let key = (self.segment, index);
        let content = self.cache.frames.try_get_with(key, load).await.map_err(|error| shared(&error))?;
        let (run, held) = (self.run(), frame.content());
        let within = |at: u32| (at - held.start) as usize;
        Ok(content.slice(within(run.start.max(held.start))..within(run.end.min(held.end))))
    }

    /// As many of the frames from the first on as hold about `bytes_max` bytes of the segment, at least one, and how many
    /// bytes they hold.
    pub(crate) fn together(&self, frames: Range<usize>, bytes_max: usize) -> (Range<usize>, usize) {
        let (mut end, mut bytes) = (frames.start, 0);
        for index in frames.clone() {
            let content = self.table.frames()[index].content_len as usize;
            if end > frames.start && bytes + content > bytes_max {
                break;
            }
            (end, bytes) = (index + 1, bytes + content);
        }
        (frames.start..end, bytes)
    }

    /// What each of the frames, which stand side by side, holds of the row's run; none of it is kept. Cancel safe.
    ///
    /// # Errors
    /// As [`OpenSegment::read`].
    pub(crate) async fn read_once(&self, frames: Range<usize>) -> Result<Vec<Bytes>> {
        let frames = self.table.frames()[frames].to_vec();
        let range = frames.first().map_or(0, |frame| frame.range().start)..frames.last().map_or(0, |f| f.range().end);
        let bytes = self.pages.read_once(&self.row.object(), self.row.object_len, range.clone()).await?;
        let run = self.run();
        let decompress = move || {
            let each = frames.iter().map(|frame| {
                let (Range { start, end }, held) = (frame.range(), frame.content());
                let within =
                    |at: u64| usize::try_from(at - range.start).expect("a fetch is far below the address space");
                let content = frame.decompress(&bytes[within(start)..within(end)])?;
                let within = |at: u32| (at - held.start) as usize;
                Ok(content.slice(within(run.start.max(held.start))..within(run.end.min(held.end))))
            });
            each.collect()
        };
        apart("a read", decompress).await
    }

    fn run(&self) -> Range<u32> {
        self.row.position..self.row.position.saturating_add(self.row.len)
    }
}

/// One failed load answers all who waited for it.
fn shared(error: &Arc<Error>) -> Error {
    error.repeat().with_source(Arc::clone(error))
}
