//! Conservation: a segment is decoded again from what the store holds, and must be what went into it.
//!
//! Both sides are reduced to the same list: where each run stands, and a digest of the place, time, length and checksum of
//! every batch in it. The bodies are checked by those checksums while they are decoded.

pub(crate) mod cleaned;

use bytes::Bytes;
use object_store::path::Path;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Kind, Result};
use crate::ids::Partition;
use crate::record::StoredBatch;
use crate::segment::frames;
use crate::segment::gather::Piece;
use crate::segment::link::SegmentRun;
use crate::store::ObjectStores;
use crate::wal::blocks::{Block, parse_block, records_len};

/// A run and the digest of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckedRun {
    pub(crate) run: SegmentRun,
    digest: u128,
}

/// Turns batches, in the order of a segment, into runs.
#[derive(Default)]
struct Checker {
    done: Vec<CheckedRun>,
    open: Option<(SegmentRun, Xxh3)>,
    position: u32,
}

/// What a segment of `pieces` must hold.
pub(crate) fn expected(pieces: &[Piece]) -> Vec<CheckedRun> {
    let mut checker = Checker::default();
    for piece in pieces {
        piece.batches.iter().for_each(|batch| checker.add(piece.partition, batch));
    }
    checker.finish()
}

/// How many index rows each run of a segment of `pieces` takes the place of: each piece has one.
pub(crate) fn rows_replaced(expected: &[CheckedRun], pieces: &[Piece]) -> Vec<usize> {
    let mut pieces = pieces.iter().peekable();
    let mut count = |run: &SegmentRun| {
        let within = |piece: &&Piece| piece.partition == run.partition && piece.base < run.next();
        std::iter::from_fn(|| pieces.next_if(within)).count()
    };
    expected.iter().map(|checked| count(&checked.run)).collect()
}

/// Reads the segment under `path` from the store and compares it with what it must hold.
///
/// # Errors
/// `Corrupt` when it is not that, `Unavailable` when the store cannot be read.
pub(crate) async fn check(stores: &ObjectStores, path: &Path, len: u64, expected: &[CheckedRun]) -> Result<()> {
    let table = frames::table(stores, path, len).await?;
    let all: Vec<usize> = (0..table.frames().len()).collect();
    let mut checker = Checker::default();
    frames::each(stores, path, &table, &all, |_, content| checker.add_all(content)).await?;
    if checker.finish() == expected {
        return Ok(());
    }
    Err(Error::new(Kind::Corrupt, format!("segment {path} does not hold what went into it")))
}

impl Checker {
    fn add(&mut self, partition: Partition, batch: &StoredBatch) {
        let len = u32::try_from(records_len(batch)).expect("a batch is bounded far below 4 GiB");
        let continued = |open: &&mut (SegmentRun, Xxh3)| open.0.partition == partition && open.0.next() == batch.base;
        if self.open.as_mut().filter(continued).is_none() {
            self.close();
        }
        let (run, digest) = self.open.get_or_insert_with(|| {
            let run = SegmentRun {
                partition,
                base: batch.base,
                count: 0,
                position: self.position,
                len: 0,
                first_timestamp: batch.timestamp,
            };
            (run, Xxh3::new())
        });
        run.count += batch.batch.count();
        run.len += len;
        self.position += len;
        digest.update(&batch.base.0.to_le_bytes());
        digest.update(&batch.batch.count().to_le_bytes());
        digest.update(&batch.timestamp.0.to_le_bytes());
        digest.update(&len.to_le_bytes());
        digest.update(&batch.batch.crc().to_le_bytes());
    }

    fn add_all(&mut self, mut content: Bytes) -> Result<()> {
        while !content.is_empty() {
            let (block, _, rest) = parse_block(content)?;
            content = rest;
            let Block::Records { partition, batch } = block else {
                return Err(Error::new(Kind::Corrupt, "segment holds a block that is not of records"));
            };
            self.add(partition, &batch);
        }
        Ok(())
    }

    fn close(&mut self) {
        let closed = self.open.take().map(|(run, digest)| CheckedRun { run, digest: digest.digest128() });
        self.done.extend(closed);
    }

    fn finish(mut self) -> Vec<CheckedRun> {
        self.close();
        self.done
    }
}
