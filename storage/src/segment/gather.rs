//! What a compaction takes from the WAL: the runs of its slots that the index still finds there.
//!
//! From the tail in memory when the slot is in it, which it is when it is asked for in time, else by one GET of the object.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::env::apart;
use crate::error::{Kind, Result};
use crate::ids::{Offset, Partition, SessionId, ShardId, Slot};
use crate::layout;
use crate::record::StoredBatch;
use crate::shard::rows::{IndexRow, Place};
use crate::state::StateStore;
use crate::store::ObjectStores;
use crate::tail::{BATCH_OVERHEAD_BYTES, SlotBatches, Tail};
use crate::wal::blocks::{Block, parse_body, records_len};
use crate::wal::reader::read_slot;

/// Most slots of earlier sessions that are remembered at a time; more are looked for when these are done.
const BACKLOG_SLOTS_MAX: usize = 65_536;
const SCAN_ROWS: usize = 4096;

/// Of an object of which less than one in so many bytes is wanted, what is wanted is copied: it would hold all of it.
const HELD_SHARE: u64 = 2;

/// A run of batches of one partition, to be rewritten.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) shard: ShardId,
    pub(crate) partition: Partition,
    pub(crate) base: Offset,
    /// Of its blocks.
    pub(crate) len: u64,
    pub(crate) batches: Vec<Arc<StoredBatch>>,
}

/// Where a compaction finds what was written.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) session: SessionId,
    pub(crate) shards: u16,
    pub(crate) stores: ObjectStores,
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) tail: Arc<Tail>,
}

/// Slots that index rows name and that are not in the log to come: of earlier sessions, mostly.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) slots: BTreeSet<(SessionId, Slot)>,
    /// About how many bytes of records they hold.
    pub(crate) bytes: u64,
    /// There are more than are remembered.
    pub(crate) more: bool,
}

impl Piece {
    /// A piece of batches that stand side by side; at least one.
    pub(crate) fn new(shards: u16, partition: Partition, batches: Vec<Arc<StoredBatch>>) -> Self {
        let base = batches.first().expect("a run has at least one batch").base;
        let len = batches.iter().map(|batch| records_len(batch) as u64).sum();
        Self { shard: partition.shard(shards), partition, base, len, batches }
    }

    /// About how much memory it takes: by the measure of the tail.
    pub(crate) fn cost(&self) -> u64 {
        self.len + (self.batches.len() * BATCH_OVERHEAD_BYTES) as u64
    }

    /// How many records it has.
    pub(crate) fn count(&self) -> u32 {
        self.batches.iter().map(|batch| batch.batch.count()).sum()
    }
}

impl Source {
    /// The runs of a slot that the index finds there. None in a slot that is gone: what nothing names may be deleted.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read. A slot that is broken is logged and gives nothing: it stays as it is.
    pub(crate) async fn slot(&self, session: SessionId, slot: Slot) -> Result<Vec<Piece>> {
        let in_memory = if session == self.session { self.tail.slot(slot) } else { None };
        let object = match in_memory {
            Some(_) => None,
            None => match read_slot(&self.stores, session, slot).await {
                Ok(Some((_, body))) => Some(body),
                Ok(None) => return Ok(Vec::new()),
                Err(error) if error.kind() == Kind::Corrupt => {
                    tracing::warn!(%session, %slot, %error, "a slot cannot be compacted, it is left as it is");
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            },
        };
        let source = self.clone();
        let pieces = move || match (in_memory, object) {
            (Some(batches), _) => source.indexed(session, slot, batches),
            (None, Some(body)) => {
                let pieces = source.indexed(session, slot, by_partition(&body)?)?;
                Ok(detached(pieces, body.len() as u64))
            }
            (None, None) => Ok(Vec::new()),
        };
        apart("compaction", pieces).await
    }

    /// Slots that the index names: of earlier sessions, and of this one those below `own`.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn backlog(&self, own: Slot) -> Result<Backlog> {
        let (mut from, to) = layout::index_range();
        let mut backlog = Backlog::default();
        loop {
            let rows = self.state.scan(&from, &to, SCAN_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(backlog) };
            from = layout::after(last);
            for (_, value) in rows {
                let row = IndexRow::parse(value)?;
                let Place::Wal { session, slot } = row.place else { continue };
                if session != self.session || slot < own {
                    backlog.slots.insert((session, slot));
                    backlog.bytes += u64::from(row.len);
                }
                if backlog.slots.len() > BACKLOG_SLOTS_MAX {
                    backlog.slots.pop_last();
                    backlog.more = true;
                }
            }
        }
    }

    fn indexed(&self, session: SessionId, slot: Slot, batches: SlotBatches) -> Result<Vec<Piece>> {
        let mut pieces = Vec::with_capacity(batches.len());
        for (partition, batches) in batches {
            let piece = Piece::new(self.shards, partition, batches);
            if self.place(&piece)? == Some(Place::Wal { session, slot }) {
                pieces.push(piece);
            }
        }
        Ok(pieces)
    }

    /// Those of the pieces that were not trimmed or deleted since they were gathered: with one that was, the run that it
    /// would be in could not be linked.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn still_indexed(&self, mut pieces: Vec<Piece>) -> Result<Vec<Piece>> {
        let mut gone = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            if !matches!(self.place(piece)?, Some(Place::Wal { .. })) {
                gone.push(at);
            }
        }
        gone.into_iter().rev().for_each(|at| drop(pieces.swap_remove(at)));
        Ok(pieces)
    }

    /// Where the index finds exactly this piece.
    fn place(&self, piece: &Piece) -> Result<Option<Place>> {
        let row = self.state.get(&layout::index_key(piece.partition, piece.base))?.map(IndexRow::parse).transpose()?;
        let row = row.filter(|row| row.count == piece.count() && u64::from(row.len) == piece.len);
        Ok(row.map(|row| row.place))
    }
}

/// Pieces that do not hold the memory of an object of so many bytes of which they are a small part.
fn detached(mut pieces: Vec<Piece>, held: u64) -> Vec<Piece> {
    if HELD_SHARE * pieces.iter().map(|piece| piece.len).sum::<u64>() < held {
        for batch in pieces.iter_mut().flat_map(|piece| &mut piece.batches) {
            let StoredBatch { base, timestamp, batch: read } = &**batch;
            *batch = Arc::new(StoredBatch { base: *base, timestamp: *timestamp, batch: read.detached() });
        }
    }
    pieces
}

fn by_partition(body: &bytes::Bytes) -> Result<SlotBatches> {
    let mut out = SlotBatches::new();
    for placed in parse_body(body)? {
        let Block::Records { partition, batch } = placed.block else { continue };
        match out.last_mut().filter(|(last, _)| *last == partition) {
            Some((_, batches)) => batches.push(Arc::new(batch)),
            None => out.push((partition, vec![Arc::new(batch)])),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;
    use crate::ids::{PartitionIndex, Timestamp, TopicId};
    use crate::record::{Batch, NewRecord};
    use crate::wal::blocks::BodyBuilder;

    // Fails when a piece holds the memory of all that was read with it: a window of a few live bytes in each of thousands of
    // slots would hold gigabytes.
    #[test]
    fn a_small_part_of_an_object_does_not_hold_the_rest_of_it() {
        let mut body = BodyBuilder::default();
        let partition = |index| Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(index) };
        for (index, len) in [(0, 10), (1, 1000)] {
            let record = NewRecord { payload: vec![1; len].into(), ..NewRecord::default() };
            let batch = Batch::of(&[record]).unwrap();
            body.records(
                ShardId(0),
                partition(index),
                &StoredBatch { base: Offset(0), timestamp: Timestamp(1), batch },
            );
        }
        let body = bytes::Bytes::from(body.finish().concat());
        let len = body.len() as u64;
        let pieces = |index| {
            let found = by_partition(&body).unwrap().into_iter().filter(|(of, _)| *of == partition(index));
            found.map(|(of, batches)| Piece::new(1, of, batches)).collect::<Vec<_>>()
        };
        let large = detached(pieces(1), len);
        assert!(!body.is_unique(), "most of it is not copied");
        drop(large);
        let small = detached(pieces(0), len);
        assert!(body.is_unique());
        assert_eq!(small[0].batches[0].batch.crc(), pieces(0)[0].batches[0].batch.crc());
        assert_eq!(small[0].len, pieces(0)[0].len);
    }
}
