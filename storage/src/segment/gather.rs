//! What a compaction takes from the WAL: the runs of its slots, of which it rewrites those that the index still finds there.
//!
//! From the tail in memory when the slot is in it, which it is when it is asked for in time, else by one GET of the object.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::env::apart;
use crate::error::{Error, Kind, Result};
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
/// So many rows of one partition are looked up by going along them: that costs about as much as looking up two.
const SCAN_FROM: usize = 4;

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
    /// The runs of a slot: of one in memory all, of an object those that the index finds there. Which of them are to be rewritten
    /// [`Source::still_indexed`] tells. None in a slot that is gone: what nothing names may be deleted.
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
            (Some(batches), _) => Ok(source.pieces(batches)),
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

    fn pieces(&self, batches: SlotBatches) -> Vec<Piece> {
        batches.into_iter().map(|(partition, batches)| Piece::new(self.shards, partition, batches)).collect()
    }

    fn indexed(&self, session: SessionId, slot: Slot, batches: SlotBatches) -> Result<Vec<Piece>> {
        let mut pieces = self.pieces(batches);
        let places = self.places(&pieces)?;
        let mut here = places.iter().map(|place| *place == Some(Place::Wal { session, slot }));
        pieces.retain(|_| here.next().unwrap_or_default());
        Ok(pieces)
    }

    /// Those of the pieces that are in the WAL by the index, in order of partition and offset: not those that were trimmed,
    /// deleted or rewritten since they were gathered. With one of these the run that it would be in could not be linked.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn still_indexed(&self, mut pieces: Vec<Piece>) -> Result<Vec<Piece>> {
        pieces.sort_unstable_by_key(|piece| (piece.partition, piece.base));
        let places = self.places(&pieces)?;
        let mut here = places.iter().map(|place| matches!(place, Some(Place::Wal { .. })));
        pieces.retain(|_| here.next().unwrap_or_default());
        Ok(pieces)
    }

    /// Where the index finds exactly each of these pieces, of which those of one partition stand side by side, ascending.
    fn places(&self, pieces: &[Piece]) -> Result<Vec<Option<Place>>> {
        let mut places = Vec::with_capacity(pieces.len());
        for pieces in pieces.chunk_by(|one, next| one.partition == next.partition) {
            match pieces.len() {
                0..SCAN_FROM => {
                    for piece in pieces {
                        let row = self.state.get(&layout::index_key(piece.partition, piece.base))?;
                        places.push(exactly(piece, row.map(IndexRow::parse).transpose()?));
                    }
                }
                _ => self.scan(pieces, &mut places)?,
            }
        }
        Ok(places)
    }

    /// The same for pieces of one partition.
    fn scan(&self, pieces: &[Piece], places: &mut Vec<Option<Place>>) -> Result<()> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Ok(()) };
        let partition = first.partition;
        let mut pieces = pieces.iter().peekable();
        let mut from = layout::index_key(partition, first.base);
        let to = layout::after(&layout::index_key(partition, last.base));
        loop {
            let rows = self.state.scan(&from, &to, SCAN_ROWS)?;
            let Some((end, _)) = rows.last() else { break };
            from = layout::after(end);
            for (key, value) in rows {
                let broken = || Error::new(Kind::Corrupt, format!("index of {partition} is broken"));
                let base = layout::index_base(&key).ok_or_else(broken)?;
                // No row is at the offsets of these.
                places.extend(std::iter::from_fn(|| pieces.next_if(|piece| piece.base < base)).map(|_| None));
                if let Some(piece) = pieces.next_if(|piece| piece.base == base) {
                    places.push(exactly(piece, Some(IndexRow::parse(value)?)));
                }
            }
        }
        places.extend(pieces.map(|_| None));
        Ok(())
    }
}

/// Where the index has this piece, if `row`, which is at its offset, is of just this.
fn exactly(piece: &Piece, row: Option<IndexRow>) -> Option<Place> {
    let row = row.filter(|row| row.count == piece.count() && u64::from(row.len) == piece.len);
    row.map(|row| row.place)
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
    use crate::ids::{PartitionIndex, SegmentId, Timestamp, TopicId};
    use crate::record::{Batch, NewRecord};
    use crate::state::StateOp;
    use crate::state::memory::MemoryState;
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

    /// A piece of one record, and the row that the index has of it.
    fn piece(index: u32, base: u64) -> (Piece, IndexRow) {
        let partition = Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(index) };
        let batch = Batch::of(&[NewRecord { payload: vec![1; 10].into(), ..NewRecord::default() }]).unwrap();
        let batch = Arc::new(StoredBatch { base: Offset(base), timestamp: Timestamp(1), batch });
        let piece = Piece::new(1, partition, vec![batch]);
        let row = IndexRow {
            place: Place::Wal { session: SessionId(Ulid(1)), slot: Slot(base) },
            object_len: 1000,
            position: 128,
            len: u32::try_from(piece.len).unwrap(),
            count: 1,
            first_timestamp: Timestamp(1),
            span: None,
            kept: None,
        };
        (piece, row)
    }

    // Fails when a row is taken for that of the piece beside it, when the last piece of a partition is not looked for, and when
    // one that stands in a segment, or is longer than the piece, counts.
    #[test]
    fn what_was_trimmed_or_rewritten_since_is_left_out_of_few_pieces_and_of_many() {
        let state = Arc::new(MemoryState::new());
        let source = Source {
            session: SessionId(Ulid(1)),
            shards: 1,
            stores: ObjectStores::of(Arc::new(object_store::memory::InMemory::new()), true),
            state: Arc::clone(&state) as Arc<dyn StateStore>,
            tail: Arc::new(Tail::new(0)),
        };
        let mut pieces = Vec::new();
        for (index, bases) in [(0, 0..2), (1, 0..10), (2, 5..10), (3, 0..1)] {
            for base in bases {
                let (piece, mut row) = piece(index, base);
                match (index, base) {
                    (1, 5) => row.place = Place::Segment { segment: SegmentId(Ulid(9)), content_len: 1 },
                    (1, 6) => row.len += 1,
                    (_, _) => {}
                }
                let trimmed = index == 1 && [0, 1, 4].contains(&base);
                if !trimmed {
                    let key = layout::index_key(piece.partition, piece.base);
                    state.write(&[StateOp::Put(key, row.encode())]).unwrap();
                }
                pieces.insert(pieces.len() / 2, piece);
            }
        }
        let left = source.still_indexed(pieces).unwrap();
        let left: Vec<_> = left.iter().map(|piece| (piece.partition.index.0, piece.base.0)).collect();
        let of = |index, bases: &[u64]| bases.iter().map(|base| (index, *base)).collect::<Vec<_>>();
        let expected = [of(0, &[0, 1]), of(1, &[2, 3, 7, 8, 9]), of(2, &[5, 6, 7, 8, 9]), of(3, &[0])];
        assert_eq!(left, expected.concat());
    }
}
