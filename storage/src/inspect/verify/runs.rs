//! Where runs of batches really stand, in slots and in segments, and a digest of what is in them. On scratch, by place.
//!
//! The digest of a run is the sum of the digests of its batches: so the runs that a segment replaces can be compared with
//! the one that it puts in their place, without reading any of them again.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, Timestamp};
use crate::inspect::scratch::{Scratch, ScratchState};
use crate::layout;
use crate::record::StoredBatch;
use crate::segment::link::{Link, SegmentRun};
use crate::shard::rows::{IndexRow, Place};
use crate::state::{StateOp, StateStore};
use crate::wal::blocks::records_len;

/// A run that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) partition: Partition,
    pub(super) base: Offset,
    pub(super) count: u32,
    pub(super) position: u32,
    pub(super) len: u32,
    pub(super) first_timestamp: Timestamp,
    digest: u128,
}

/// Puts batches that stand side by side into runs.
#[derive(Debug, Default)]
pub(super) struct Gather {
    pub(super) runs: Vec<Run>,
}

/// All runs that were read.
#[derive(Debug)]
pub(super) struct Runs {
    state: ScratchState,
}

impl Run {
    fn next(&self) -> Offset {
        self.base.plus(self.count)
    }
}

impl Gather {
    /// Adds a batch that stands at `position`.
    pub(super) fn add(&mut self, partition: Partition, batch: &StoredBatch, position: u32) {
        let len = u32::try_from(records_len(batch)).expect("a batch is bounded far below 4 GiB");
        let digest = digest(batch);
        let last = self.runs.last_mut();
        match last.filter(|run| run.partition == partition && run.next() == batch.base) {
            Some(run) => {
                run.count += batch.batch.count();
                run.len += len;
                run.digest = run.digest.wrapping_add(digest);
            }
            None => self.runs.push(Run {
                partition,
                base: batch.base,
                count: batch.batch.count(),
                position,
                len,
                first_timestamp: batch.timestamp,
                digest,
            }),
        }
    }
}

impl Runs {
    /// None yet.
    ///
    /// # Errors
    /// `Invalid` when the scratch directory cannot be used.
    pub(super) fn new(scratch: &Scratch) -> Result<Self> {
        Ok(Self { state: scratch.state()? })
    }

    /// Notes the runs of an object.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory is broken.
    pub(super) fn note(&self, place: &Place, object_len: u64, runs: &[Run]) -> Result<()> {
        let ops = runs.iter().map(|run| {
            let mut value = BytesMut::with_capacity(VALUE_BYTES);
            value.put_u64(object_len);
            value.put_u32(run.position);
            value.put_u32(run.len);
            value.put_u32(run.count);
            value.put_u64(run.first_timestamp.0);
            value.put_u128(run.digest);
            StateOp::Put(key(run.partition, run.base, place), value.freeze())
        });
        self.state.write(&ops.collect::<Vec<_>>())
    }

    /// What is wrong with an index row, or `None` when it points at a run that was read and is what the row says.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory is broken.
    pub(super) fn wrong(&self, (partition, base): (Partition, Offset), row: &IndexRow) -> Result<Option<&'static str>> {
        if row.kept.is_some() {
            return self.wrong_of_cleaned((partition, base), row);
        }
        let Some((object_len, run)) = self.get(partition, base, &row.place)? else {
            return Ok(Some("does not hold what"));
        };
        let says = (row.object_len, row.position, row.len, row.count, row.first_timestamp);
        let is = (object_len, run.position, run.len, run.count, run.first_timestamp);
        Ok((says != is).then_some("is not what"))
    }

    /// As [`Runs::wrong`], of a run with holes: what was read of it are the stretches between them, side by side.
    fn wrong_of_cleaned(&self, (partition, base): (Partition, Offset), row: &IndexRow) -> Result<Option<&'static str>> {
        let (mut from, to) = (key(partition, base, &row.place), key(partition, base.plus(row.count), &row.place));
        let (mut position, mut kept) = (row.position, 0);
        loop {
            let found = self.state.scan(&from, &to, SCAN_STEP)?;
            let Some((last, _)) = found.last() else { break };
            from = layout::after(last);
            for (found, value) in found {
                let base = layout::index_base(&found[found.len() - INDEX_KEY_BYTES..]);
                let broken = || Error::new(Kind::Corrupt, "a run on scratch is broken");
                let (object_len, run) = parse((partition, base.ok_or_else(broken)?), value)?;
                if object_len != row.object_len || run.position != position {
                    return Ok(Some("is not what"));
                }
                (position, kept) = (position + run.len, kept + run.count);
            }
        }
        let is = Some(kept) == row.kept && position.checked_sub(row.position) == Some(row.len);
        Ok(if kept == 0 { Some("does not hold what") } else { (!is).then_some("is not what") })
    }

    /// Whether a link of a run of a segment puts other batches in the place of those that the index of `state` names. False
    /// where one of them was not read, and where the link does not apply.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory is broken.
    pub(super) fn loses(&self, state: &dyn StateStore, link: &Link, run: &SegmentRun) -> Result<bool> {
        let row = link.row(run, None);
        let Some((_, new)) = self.get(run.partition, run.base, &row.place)? else { return Ok(false) };
        let (from, to) = (layout::index_key(run.partition, run.base), layout::index_key(run.partition, run.next()));
        let (mut next, mut sum) = (run.base, 0_u128);
        for (key, value) in state.scan(&from, &to, run.count as usize)? {
            let old = layout::index_base(&key).zip(IndexRow::parse(value).ok());
            let Some((base, old)) = old.filter(|(base, _)| *base == next) else { return Ok(false) };
            let Some((_, old)) = self.get(run.partition, base, &old.place)? else { return Ok(false) };
            next = old.next();
            sum = sum.wrapping_add(old.digest);
        }
        Ok(next == run.next() && sum != new.digest)
    }

    fn get(&self, partition: Partition, base: Offset, place: &Place) -> Result<Option<(u64, Run)>> {
        let value = self.state.get(&key(partition, base, place))?;
        value.map(|value| parse((partition, base), value)).transpose()
    }
}

const VALUE_BYTES: usize = 44;
const INDEX_KEY_BYTES: usize = 29;
const SCAN_STEP: usize = 1024;

fn parse((partition, base): (Partition, Offset), mut value: Bytes) -> Result<(u64, Run)> {
    if value.len() != VALUE_BYTES {
        return Err(Error::new(Kind::Corrupt, "a run on scratch is broken"));
    }
    let object_len = value.get_u64();
    let (position, len, count) = (value.get_u32(), value.get_u32(), value.get_u32());
    let first_timestamp = Timestamp(value.get_u64());
    let digest = value.get_u128();
    Ok((object_len, Run { partition, base, count, position, len, first_timestamp, digest }))
}

/// The key of a run: the object that it stands in, so that the runs of one are written side by side, and its first offset.
fn key(partition: Partition, base: Offset, place: &Place) -> Bytes {
    let mut out = BytesMut::with_capacity(54);
    match place {
        Place::Wal { session, slot } => {
            out.put_slice(&session.0.to_bytes());
            out.put_u64(slot.0);
        }
        Place::Segment { segment, content_len } => {
            out.put_slice(&segment.0.to_bytes());
            out.put_u32(*content_len);
        }
    }
    out.put_slice(&layout::index_key(partition, base));
    out.freeze()
}

fn digest(batch: &StoredBatch) -> u128 {
    let mut of = [0; 28];
    of[..8].copy_from_slice(&batch.base.0.to_le_bytes());
    of[8..12].copy_from_slice(&batch.batch.count().to_le_bytes());
    of[12..20].copy_from_slice(&batch.timestamp.0.to_le_bytes());
    of[20..24].copy_from_slice(&u32::try_from(batch.batch.len()).unwrap_or(u32::MAX).to_le_bytes());
    of[24..].copy_from_slice(&batch.batch.crc().to_le_bytes());
    xxh3_128(&of)
}
