//! Finds the runs of a partition: by offset, and by anything that grows with the offset. Between runs may be gaps.
//!
//! Reads rows of the state store and nothing else; every search is bounded by the logarithm of the number of offsets.

use std::ops::Range;

use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition};
use crate::layout;
use crate::shard::rows::IndexRow;
use crate::state::StateStore;

/// The last run that begins at an offset or before it, with its first offset.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn last_run(
    state: &dyn StateStore,
    partition: Partition,
    offset: Offset,
) -> Result<Option<(Offset, IndexRow)>> {
    let from = layout::index_key(partition, Offset(0));
    let Some((key, value)) = state.last_at_or_before(&from, &layout::index_key(partition, offset))? else {
        return Ok(None);
    };
    let broken = || Error::new(Kind::Corrupt, format!("index of {partition} is broken"));
    Ok(Some((layout::index_base(&key).ok_or_else(broken)?, IndexRow::parse(value)?)))
}

/// The run that holds an offset, with its first offset.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn run_at(
    state: &dyn StateStore,
    partition: Partition,
    offset: Offset,
) -> Result<Option<(Offset, IndexRow)>> {
    Ok(last_run(state, partition, offset)?.filter(|(base, row)| base.plus(row.count) > offset))
}

/// The last run of `range` for which `holds`, with its first offset. It must hold for the runs up to one and for none after.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn last_where(
    state: &dyn StateStore,
    partition: Partition,
    range: Range<Offset>,
    holds: impl Fn(&IndexRow) -> bool,
) -> Result<Option<(Offset, IndexRow)>> {
    let (mut low, mut high) = (range.start.0, range.end.0);
    let mut last = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match last_run(state, partition, Offset(middle))? {
            Some((base, row)) if holds(&row) => {
                low = base.plus(row.count).0.max(middle + 1);
                last = Some((base, row));
            }
            Some((base, _)) => high = base.0,
            None => low = middle + 1,
        }
    }
    Ok(last)
}
