//! A partition in stretches that are loaded at once, each by itself: for what is read ahead.
//!
//! Where a stretch ends is known before it is loaded, so that several can be under way. What is read so goes past the
//! caches of what is read again: the frames of a segment are not kept, nor are pages where the store is on this machine.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::{Offset, Partition};
use crate::read::{Reader, Taking};
use crate::record::StoredBatch;
use crate::shard::rows::{IndexRow, Place};

/// Frames of a segment are loaded together up to this size, decompressed.
const FRAMES_BYTES_MAX: usize = 2 << 20;

/// A run of a slot, or some frames of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    /// The first offset of the run.
    run: Offset,
    /// The first offset.
    base: Offset,
    /// The offset after the last record.
    pub(crate) next: Offset,
    /// About how much memory it takes when it is loaded, without what its batches take besides their bytes.
    pub(crate) bytes: usize,
    row: IndexRow,
    /// Of a segment.
    frames: Range<usize>,
}

impl Reader {
    /// The stretch that holds `offset`. Cancel safe.
    ///
    /// # Errors
    /// `Corrupt` when the index does not know it; those of opening a segment.
    pub(crate) async fn stretch_at(&self, partition: Partition, offset: Offset) -> Result<Stretch> {
        let (base, row) = self.locate(partition, offset)?;
        let end = base.plus(row.count);
        let Place::Segment { segment, .. } = row.place else {
            return Ok(Stretch { run: base, base, next: end, bytes: row.len as usize, row, frames: 0..0 });
        };
        let opened = self.segments.open(&self.cache, segment, &row).await?;
        let all = opened.frames_from(offset);
        let (frames, bytes) = opened.together(all.clone(), FRAMES_BYTES_MAX);
        let next = if frames.end < all.end { opened.begins(frames.end).unwrap_or(end) } else { end };
        Ok(Stretch { run: base, base: opened.begins(frames.start).unwrap_or(base), next, bytes, row, frames })
    }

    /// The batches of a stretch from the one that holds `from` on. Cancel safe.
    ///
    /// # Errors
    /// As [`Reader::read`], without its second look.
    pub(crate) async fn load(
        &self,
        partition: Partition,
        stretch: &Stretch,
        from: Offset,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        let Stretch { run, base, row, frames, .. } = stretch;
        let mut taking = Taking::all(partition, (*run, row), from).beginning(*base);
        match row.place {
            Place::Wal { .. } => {
                let range = u64::from(row.position)..u64::from(row.position) + u64::from(row.len);
                taking.take(self.cache.read_once(&row.object(), row.object_len, range).await?)?;
            }
            Place::Segment { segment, .. } => {
                let opened = self.segments.open(&self.cache, segment, row).await?;
                for content in opened.read_once(frames.clone()).await? {
                    taking.take(content)?;
                }
            }
        }
        taking.finish()
    }
}
