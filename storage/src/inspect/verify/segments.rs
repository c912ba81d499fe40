//! Segments: every frame and every block in them, and that they hold what they replaced.

use bytes::Bytes;

use super::Verifier;
use super::objects::{Seen, see};
use super::runs::{Gather, Runs};
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::SegmentId;
use crate::layout::ObjectName;
use crate::segment::format::{FrameTable, Trailer};
use crate::shard::rows::Place;
use crate::wal::blocks::{Block, parse_block, records_len};
use crate::wal::format::HEADER_BYTES;

impl Verifier<'_, '_> {
    /// Reads all segments, one at a time: they are large.
    pub(super) async fn read_segments(&mut self, runs: &Runs) -> Result<()> {
        let segments: Vec<_> = self.listing.segments.keys().copied().collect();
        for segment in segments {
            self.segment(segment, runs).await?;
        }
        Ok(())
    }

    /// Reads a segment and notes its runs.
    async fn segment(&mut self, segment: SegmentId, runs: &Runs) -> Result<()> {
        let name = ObjectName::Segment(segment);
        let Some((header, body)) = self.whole(name).await? else { return Ok(()) };
        self.totals.segments += 1;
        let (object_len, shards) = (header.object_len(), self.shards);
        let read = tokio::task::spawn_blocking(move || parse(&body, object_len, shards)).await;
        let read =
            read.map_err(|error| Error::new(Kind::Closed, "reading a segment was cut off").with_source(error))?;
        match read {
            Ok((content_len, found)) => runs.note(&Place::Segment { segment, content_len }, object_len, &found.runs),
            Err(error) => {
                self.fault(name.path(), format!("is broken: {}", Chain(&error)));
                Ok(())
            }
        }
    }

    /// Reads a segment that a link or a row names, if it was made after the listing. Whether it must be there its rows say.
    pub(super) async fn late_segment(&mut self, segment: SegmentId, runs: &Runs) -> Result<()> {
        let name = ObjectName::Segment(segment);
        if self.listing.segments.contains_key(&segment) || !self.late.insert(segment) {
            return Ok(());
        }
        match see(&self.stores, name).await? {
            Seen::Gone => Ok(()),
            Seen::Whole(..) | Seen::Broken { .. } => self.segment(segment, runs).await,
        }
    }
}

/// The length of the content of a segment and the runs in it, everything checked.
fn parse(body: &Bytes, object_len: u64, shards: u16) -> Result<(u32, Gather)> {
    let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("segment {what}"));
    let within = |at: u64| usize::try_from(at).ok()?.checked_sub(HEADER_BYTES).filter(|at| *at <= body.len());
    let cut = |from: u64, to: u64| {
        let (from, to) =
            within(from).zip(within(to)).filter(|(from, to)| from <= to).ok_or_else(|| corrupt("is cut short"))?;
        Ok::<_, Error>(body.slice(from..to))
    };
    let range = Trailer::range(object_len);
    let trailer = Trailer::parse(cut(range.start, range.end)?, object_len)?;
    let table = FrameTable::parse(cut(trailer.table.start, trailer.table.end)?, &trailer)?;
    let mut found = Gather::default();
    let (mut position, mut before) = (0_u32, None);
    for frame in table.frames() {
        let mut content = frame.decompress(&cut(frame.range().start, frame.range().end)?)?;
        let mut first = true;
        while !content.is_empty() {
            let (block, shard, rest) = parse_block(content)?;
            content = rest;
            let Block::Records { partition, batch } = block else {
                return Err(corrupt("holds a block that is not of records"));
            };
            if first && (partition, batch.base, batch.timestamp) != (frame.partition, frame.base, frame.timestamp) {
                return Err(corrupt("has a frame that does not begin with what its table says"));
            }
            first = false;
            let order = (shard, partition, batch.base, batch.timestamp);
            if shard != partition.shard(shards) || before.is_some_and(|before| before >= order) {
                return Err(corrupt("is not sorted by shard, partition and offset"));
            }
            before = Some(order);
            found.add(partition, &batch, position);
            position += u32::try_from(records_len(&batch)).expect("a batch is bounded far below 4 GiB");
        }
    }
    Ok((position, found))
}
