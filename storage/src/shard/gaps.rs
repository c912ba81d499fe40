//! What a partition knows of offsets that name no record: how far its owner may have shown offsets that the bucket does not
//! have (the reservation), and the gaps that losses have left (ADR 18).

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::durability::{Gap, GapReason};
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, SessionId, TopicId};
use crate::layout;
use crate::log::Bounds;
use crate::shard::changes::Entry;
use crate::shard::fork::{Lineage, fork_row};
use crate::shard::rows::Row;
use crate::state::{StateOp, StateStore};
use crate::wal::format::get_ulid;

/// Rows that one look at a list takes.
const SCAN_STEP: usize = 1000;

/// A promise of the owner: what it shows of the partition beyond the committed tail is below `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) to: Offset,
    /// The owner.
    pub(crate) session: SessionId,
    /// Whether some of it may be shown that is in no journal.
    pub(crate) memory: bool,
}

/// The value of a gap's row; the key says where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GapRow {
    to: Offset,
    reason: u8,
}

impl Row for Reservation {
    const NAME: &'static str = "reservation row";
    const LEN: usize = 25;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.to.0);
        out.put_slice(&self.session.0.to_bytes());
        out.put_u8(u8::from(self.memory));
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self { to: Offset(bytes.get_u64_le()), session: SessionId(get_ulid(bytes)), memory: bytes.get_u8() != 0 }
    }
}

impl Row for GapRow {
    const NAME: &'static str = "gap row";
    const LEN: usize = 9;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.to.0);
        out.put_u8(self.reason);
    }

    fn get(bytes: &mut Bytes) -> Self {
        Self { to: Offset(bytes.get_u64_le()), reason: bytes.get_u8() }
    }
}

/// The gaps of a slot by where they begin.
pub(crate) fn by_place(entries: &[Entry]) -> HashMap<(Partition, Offset), Gap> {
    let gap = |entry: &Entry| {
        if let Entry::Gap { partition, gap } = entry { Some(((*partition, gap.from), *gap)) } else { None }
    };
    entries.iter().filter_map(gap).collect()
}

/// What a committed gap changes besides the tail.
pub(crate) fn gap_op(partition: Partition, gap: &Gap) -> StateOp {
    let row = GapRow { to: gap.to, reason: gap.reason.code() };
    StateOp::Put(layout::gap_key(partition, gap.from), row.encode())
}

/// What a start changes: the gaps that end below it go.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn trimmed(state: &dyn StateStore, partition: Partition, start: Offset) -> Result<Option<StateOp>> {
    let (first, upto) = (layout::gap_key(partition, Offset(0)), layout::gap_key(partition, start));
    let Some((key, value)) = state.last_at_or_before(&first, &upto)? else { return Ok(None) };
    // One that the start lies in stays: readers are told of it.
    let kept = parse_gap(&key, value)?.to > start;
    Ok(Some(StateOp::DeleteRange(first, if kept { key } else { upto })))
}

/// What a committed reservation changes; one that ends at the tail is none.
pub(crate) fn reservation_op(partition: Partition, reservation: Reservation, tail: Offset) -> StateOp {
    let key = layout::reservation_key(partition);
    if reservation.to > tail { StateOp::Put(key, reservation.encode()) } else { StateOp::Delete(key) }
}

/// The gap in which an offset lies.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn covering(state: &dyn StateStore, partition: Partition, offset: Offset) -> Result<Option<Gap>> {
    let (first, upto) = (layout::gap_key(partition, Offset(0)), layout::gap_key(partition, offset));
    let row = state.last_at_or_before(&first, &upto)?;
    let gap = row.map(|(key, value)| parse_gap(&key, value)).transpose()?;
    Ok(gap.filter(|gap| gap.to > offset))
}

/// The gaps of a partition that end above `from`, ascending.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn after(state: &dyn StateStore, partition: Partition, from: Offset) -> Result<Vec<Gap>> {
    let mut gaps: Vec<Gap> = covering(state, partition, from)?.into_iter().collect();
    let mut next = layout::gap_key(partition, Offset(from.0.saturating_add(1)));
    let end = layout::gap_key(partition, Offset(u64::MAX));
    loop {
        let rows = state.scan(&next, &end, SCAN_STEP)?;
        for (key, value) in &rows {
            gaps.push(parse_gap(key, value.clone())?);
        }
        match gaps.last() {
            Some(last) if rows.len() == SCAN_STEP => next = layout::gap_key(partition, last.to),
            Some(_) | None => return Ok(gaps),
        }
    }
}

/// The gaps of what a fork inherits that end above `from`, ascending.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn inherited(state: &dyn StateStore, lineage: &Lineage, from: Offset) -> Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    for (begin, ancestor) in lineage.parts().filter(|(_, ancestor)| ancestor.end > from) {
        let of_part = after(state, ancestor.partition, from.max(begin))?;
        let of_part = of_part.into_iter().take_while(|gap| gap.from < ancestor.end);
        gaps.extend(of_part.map(|gap| Gap { from: gap.from.max(begin), to: gap.to.min(ancestor.end), ..gap }));
    }
    Ok(gaps)
}

/// How many offsets that a partition inherits name no record, from an offset on.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn missing_inherited(state: &dyn StateStore, partition: Partition, from: Offset) -> Result<u64> {
    let gaps = inherited(state, &fork_row(state, partition)?.lineage, from)?;
    Ok(gaps.iter().map(|gap| gap.to.0 - gap.from.max(from).0).sum())
}

/// The first gap of a partition that begins at an offset or after it, below another.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn first_within(
    state: &dyn StateStore,
    partition: Partition,
    from: Offset,
    to: Offset,
) -> Result<Option<Gap>> {
    let rows = state.scan(&layout::gap_key(partition, from), &layout::gap_key(partition, to), 1)?;
    rows.into_iter().next().map(|(key, value)| parse_gap(&key, value)).transpose()
}

/// All reservations, with those that tails have long passed.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn reservations(state: &dyn StateStore) -> Result<Vec<(Partition, Reservation)>> {
    let (mut next, end) = layout::reservations();
    let mut found = Vec::new();
    loop {
        let rows = state.scan(&next, &end, SCAN_STEP)?;
        for (key, value) in &rows {
            if let Some(partition) = layout::reserved_partition(key) {
                found.push((partition, Reservation::parse(value.clone())?));
            }
        }
        match rows.last() {
            Some((last, _)) if rows.len() == SCAN_STEP => next = layout::after(last),
            Some(_) | None => return Ok(found),
        }
    }
}

/// How many offsets of a topic name no record, from the starts of its partitions on. One scan, however many they are.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn missing(state: &dyn StateStore, topic: TopicId, bounds: &[Bounds]) -> Result<u64> {
    let partition = |index| Partition { topic, index: PartitionIndex(index) };
    let end = layout::gap_key(partition(u32::MAX), Offset(u64::MAX));
    let mut next = layout::gap_key(partition(0), Offset(0));
    let mut missing = 0;
    loop {
        let rows = state.scan(&next, &end, SCAN_STEP)?;
        for (key, value) in &rows {
            let Some(partition) = layout::partition_of(key).filter(|_| layout::reserved_partition(key).is_none())
            else {
                continue;
            };
            let gap = parse_gap(key, value.clone())?;
            let start = bounds.get(partition.index.0 as usize).map_or(Offset(0), |bounds| bounds.start);
            missing += gap.to.0.saturating_sub(gap.from.max(start).0);
        }
        match rows.last() {
            Some((last, _)) if rows.len() == SCAN_STEP => next = layout::after(last),
            Some(_) | None => return Ok(missing),
        }
    }
}

fn parse_gap(key: &[u8], value: Bytes) -> Result<Gap> {
    let broken = || Error::new(Kind::Corrupt, "gap row in the state store is broken");
    let row = GapRow::parse(value)?;
    let from = layout::index_base(key).ok_or_else(broken)?;
    let reason = GapReason::of_code(row.reason).ok_or_else(broken)?;
    if row.to > from { Ok(Gap { from, to: row.to, reason }) } else { Err(broken()) }
}

#[cfg(test)]
mod tests;
