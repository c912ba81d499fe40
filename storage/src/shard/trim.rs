//! How a committed move of a start changes the state: the partition's row, and the rows of the runs and gaps below it, which
//! go.
//!
//! However many runs go, it costs a few look-ups and one range of keys. Only runs whose rows do not say how many bytes are
//! before them, which were written before there were trims, are counted one by one.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition};
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::fork::is_shared;
use crate::shard::gaps;
use crate::shard::index::{last_run, run_at};
use crate::shard::machine::{Run, partition_row};
use crate::shard::rows::{IndexRow, PartitionRow, Row};
use crate::state::{StateOp, StateStore};

/// Rows that are counted at once.
const COUNT_STEP: usize = 1000;

/// The starts that the trims of one slot move to.
pub(crate) fn starts(entries: &[Entry]) -> BTreeMap<Partition, Offset> {
    let mut starts = BTreeMap::new();
    for entry in entries {
        if let Entry::Trim { partition, start } = entry {
            let highest = starts.entry(*partition).or_insert(*start);
            *highest = (*start).max(*highest);
        }
    }
    starts
}

/// Applies the trims of a slot. `rows` are those of the partitions of its runs, in order, then others, as the slot leaves
/// them; those that a trim changes besides are added.
///
/// # Errors
/// `Corrupt` when the state store is broken or a start would lie above its tail.
pub(crate) fn apply(
    state: &dyn StateStore,
    (runs, mut starts): (&[Run], BTreeMap<Partition, Offset>),
    rows: &mut Vec<(Partition, PartitionRow)>,
    ops: &mut Vec<StateOp>,
) -> Result<()> {
    if starts.is_empty() {
        return Ok(());
    }
    for (at, (partition, row)) in rows.iter_mut().enumerate() {
        if let Some(start) = starts.remove(partition) {
            trim(state, (*partition, row), runs.get(at), start, ops)?;
        }
    }
    for (partition, start) in starts {
        // A partition without a row was deleted since, or has no record: there is nothing below any start.
        if let Some(mut row) = partition_row(state, partition)? {
            trim(state, (partition, &mut row), None, start, ops)?;
            rows.push((partition, row));
        }
    }
    Ok(())
}

/// Moves the start of one partition, of which the same slot may bring a run that is not in the state yet. What forks share
/// stays.
fn trim(
    state: &dyn StateStore,
    (partition, row): (Partition, &mut PartitionRow),
    run: Option<&Run>,
    start: Offset,
    ops: &mut Vec<StateOp>,
) -> Result<()> {
    if start <= row.start || is_shared(state, partition)? {
        return Ok(());
    }
    if start > row.tail {
        let text = format!("start {start} of {partition} would lie above its tail {}", row.tail);
        return Err(Error::new(Kind::Corrupt, text));
    }
    let old = run_at(state, partition, row.start)?.map_or(row.start, |(base, _)| base);
    let (base, before) = match run.filter(|run| run.base <= start) {
        Some(run) if run.base.plus(run.count) > start => (run.base, row.published - u64::from(run.len)),
        Some(_) => (start, row.published),
        None => kept(state, (partition, row), old, start)?,
    };
    if old < base {
        ops.push(StateOp::DeleteRange(layout::index_key(partition, old), layout::index_key(partition, base)));
    }
    ops.extend(gaps::trimmed(state, partition, start)?);
    row.start = start;
    // What was cleaned may take more room than all that was published: records that stand alone.
    row.bytes = row.published.saturating_sub(before);
    ops.push(StateOp::Put(layout::partition_key(partition), row.encode()));
    Ok(())
}

/// Where what is kept from `start` on begins in the state, and how many bytes are before it.
fn kept(
    state: &dyn StateStore,
    (partition, row): (Partition, &PartitionRow),
    old: Offset,
    start: Offset,
) -> Result<(Offset, u64)> {
    let gone = row.published - row.bytes;
    let Some((base, last)) = last_run(state, partition, start)?.filter(|(base, _)| *base >= old) else {
        return Ok((start, gone));
    };
    let before = match last.span {
        Some(span) => span.bytes_before,
        None => count(state, partition, (old, base), gone)?,
    };
    // In a gap, or at the tail: that run goes, too.
    let is_over = base.plus(last.count) <= start;
    Ok(if is_over { (start, before + u64::from(last.len)) } else { (base, before) })
}

/// The bytes before the run at `to`, where `before` are those before the run at `from`.
fn count(state: &dyn StateStore, partition: Partition, (from, to): (Offset, Offset), mut before: u64) -> Result<u64> {
    let (mut from, to) = (layout::index_key(partition, from), layout::index_key(partition, to));
    loop {
        let rows = state.scan(&from, &to, COUNT_STEP)?;
        for (key, value) in &rows {
            before += u64::from(IndexRow::parse(value.clone())?.len);
            from = [&key[..], &[0]].concat().into();
        }
        if rows.len() < COUNT_STEP {
            return Ok(before);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
