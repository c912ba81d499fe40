//! Reads frames of a segment straight from the store, in order, past the caches: for work that goes through much once.

use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path;

use crate::env::apart;
use crate::error::Result;
use crate::segment::format::{Frame, FrameTable, Trailer};
use crate::slot::read_range;
use crate::store::ObjectStores;

/// Frames side by side are fetched together up to this size.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// And up to this much when they are decompressed.
const CONTENT_BYTES_MAX: u64 = 8 << 20;

/// The frame table of a segment.
///
/// # Errors
/// `Unavailable` when it cannot be read, `Corrupt` when it is missing or broken.
pub(crate) async fn table(stores: &ObjectStores, path: &Path, object_len: u64) -> Result<FrameTable> {
    let trailer = Trailer::parse(read_range(stores, path, Trailer::range(object_len)).await?, object_len)?;
    FrameTable::parse(read_range(stores, path, trailer.table.clone()).await?, &trailer)
}

/// Gives what each of the `wanted` frames holds, in their order, which ascends.
///
/// # Errors
/// As [`table`], and those of `each`.
pub(crate) async fn each(
    stores: &ObjectStores,
    path: &Path,
    table: &FrameTable,
    wanted: &[usize],
    mut each: impl FnMut(&Frame, Bytes) -> Result<()>,
) -> Result<()> {
    let mut rest = wanted;
    while !rest.is_empty() {
        let (fetched, later) = rest.split_at(together(table, rest));
        rest = later;
        let frames: Vec<Frame> = fetched.iter().map(|index| table.frames()[*index]).collect();
        let range = frames.first().map_or(0, |frame| frame.range().start)..frames.last().map_or(0, |f| f.range().end);
        let bytes = read_range(stores, path, range.clone()).await?;
        let decompressed = apart("reading a segment", move || decompress(&frames, &range, &bytes)).await?;
        for (frame, content) in decompressed {
            each(&frame, content)?;
        }
    }
    Ok(())
}

/// How many of the wanted frames stand side by side and are fetched together: at least one.
fn together(table: &FrameTable, wanted: &[usize]) -> usize {
    let (mut fetch, mut content, mut last) = (0, 0, None);
    let together = wanted.iter().take_while(|index| {
        let frame = &table.frames()[**index];
        fetch += u64::from(frame.len);
        content += u64::from(frame.content_len);
        let beside =
            last.is_none_or(|last| last + 1 == **index && fetch <= FETCH_BYTES_MAX && content <= CONTENT_BYTES_MAX);
        last = Some(**index);
        beside
    });
    together.count()
}

fn decompress(frames: &[Frame], range: &Range<u64>, bytes: &Bytes) -> Result<Vec<(Frame, Bytes)>> {
    let within = |at: u64| usize::try_from(at - range.start).expect("a fetch is bounded far below the address space");
    let each = frames.iter().map(|frame| {
        let Range { start, end } = frame.range();
        Ok((*frame, frame.decompress(&bytes[within(start)..within(end)])?))
    });
    each.collect()
}
