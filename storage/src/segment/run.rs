//! Reads a whole run out of its segment, past the caches: for work that goes through much once.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::env::apart;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition};
use crate::record::StoredBatch;
use crate::segment::format::Frame;
use crate::segment::frames;
use crate::shard::rows::IndexRow;
use crate::store::ObjectStores;
use crate::wal::blocks::{Block, parse_block};

/// The batches of a run in a segment, which must be those that its row says.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` or `NotFound` when the segment is broken or missing.
pub(crate) async fn read(
    stores: &ObjectStores,
    partition: Partition,
    (base, row): (Offset, &IndexRow),
) -> Result<Vec<StoredBatch>> {
    let table = frames::table(stores, &row.object(), row.object_len).await?;
    let content = row.position..row.position.saturating_add(row.len);
    let wanted: Vec<usize> = table.covering(&content).collect();
    let mut bytes = BytesMut::with_capacity(row.len as usize);
    let copy = |frame: &Frame, held: Bytes| {
        let Range { start, end } = frame.content();
        let within = |at: u32| (at.clamp(start, end) - start) as usize;
        bytes.extend_from_slice(&held[within(content.start)..within(content.end)]);
        Ok(())
    };
    frames::each(stores, &row.object(), &table, &wanted, copy).await?;
    let (bytes, row) = (bytes.freeze(), *row);
    apart("reading a run", move || batches(partition, (base, &row), bytes)).await
}

/// The batches in the content of a run.
fn batches(partition: Partition, (base, row): (Offset, &IndexRow), mut content: Bytes) -> Result<Vec<StoredBatch>> {
    let corrupt = || Error::new(Kind::Corrupt, format!("run of {partition} in a segment is not what its row says"));
    let (mut out, mut next, mut records) = (Vec::<StoredBatch>::new(), base, 0);
    while !content.is_empty() {
        let (block, _, rest) = parse_block(content)?;
        content = rest;
        let Block::Records { partition: found, batch } = block else { return Err(corrupt()) };
        let in_place = if row.kept.is_some() { batch.base >= next } else { batch.base == next };
        if found != partition || !in_place {
            return Err(corrupt());
        }
        next = batch.next();
        records += batch.batch.count();
        out.push(batch);
    }
    let ends = if row.kept.is_some() { next <= base.plus(row.count) } else { next == base.plus(row.count) };
    if !ends || records != row.kept.unwrap_or(row.count) || records == 0 {
        return Err(corrupt());
    }
    Ok(out)
}
