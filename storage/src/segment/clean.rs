//! Which records of a partition later ones supersede: what is due, the keys of a pass, and what is left of a batch.
//!
//! A pass goes over a partition from its first run on: over what earlier passes left, and over what came since, as far as it is in
//! segments. It first notes the last offset of each key in the new part, as many as fit into its bound; behind the record
//! that does not fit nothing is touched, and the next pass goes on there. Then every record of which a later one has the key goes.
//! What deletes a key goes too, when the records before it have been gone for the grace. Knows nothing of the store.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::cleanup::TOMBSTONE_GRACE;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, Timestamp, TopicId};
use crate::layout;
use crate::record::{RecordRef, StoredBatch};
use crate::segment::cleaned::OldRows;
use crate::shard::clean::CleanRow;
use crate::shard::fork::has_forks;
use crate::shard::machine::{partition_row, topic_row};
use crate::shard::rows::{IndexRow, Place};
use crate::state::StateStore;

/// Most rows that one pass takes the place of: what applying it costs is paid between two slots.
const ROWS_MAX: usize = 16_384;
/// Partitions that one turn looks at.
pub(crate) const LOOKS_MAX: usize = 10_000;
const SCAN_STEP: usize = 1024;

/// Why a partition is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// When at least half of it is new: rewriting the rest costs no more than was published.
    Due,
    /// Someone asked for it: whatever is new.
    Asked,
    /// Its segments are to go: nothing is taken out.
    Move,
}

/// A pass over one partition.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(crate) partition: Partition,
    /// All runs from the first on; at least one.
    pub(crate) rows: OldRows,
    pub(crate) bytes: u64,
    /// Of the partition; the first run reaches beyond it.
    pub(crate) start: Offset,
    /// How far it is clean before.
    pub(crate) clean: CleanRow,
    /// What deletes its key below this may go.
    pub(crate) settled: Offset,
    pub(crate) why: Why,
}

/// What one look found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) passes: Vec<Pass>,
    /// Where the next look goes on; `None` when all were looked at.
    pub(crate) next: Option<Partition>,
    /// How many more partitions may be looked at.
    pub(crate) looks: usize,
}

/// The last offset of each key in what is new, as far as there is room.
#[derive(Debug)]
pub(crate) struct Keys {
    seed: u64,
    last: HashMap<u128, Offset>,
    keys_max: usize,
    /// From this record on nothing is known.
    pub(crate) to: Offset,
    full: bool,
}

/// What goes and what stays.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) keys: Keys,
    pub(crate) settled: Offset,
    /// The end of the runs. The last record stays whatever it is, so that there is always one.
    pub(crate) end: Offset,
    /// Records that were kept and delete their key.
    pub(crate) tombstones: u32,
}

impl Pass {
    /// The offset after its runs.
    pub(crate) fn end(&self) -> Offset {
        self.rows.last().map_or(Offset(0), |(base, row)| base.plus(row.count))
    }

    /// How far the partition is clean after it, when the keys were known up to `to`.
    pub(crate) fn after(&self, filter: &Filter, now: Timestamp) -> CleanRow {
        let settles = self.why != Why::Move && (self.clean.settled_to == Offset(0) || self.settled > Offset(0));
        let (settled_to, settled_at) =
            if settles { (filter.keys.to, now) } else { (self.clean.settled_to, self.clean.settled_at) };
        CleanRow { to: filter.keys.to, settled_to, settled_at, tombstones: filter.tombstones, published: 0 }
    }
}

/// Looks for partitions that are due, from `from` on, until their runs hold so many bytes or so many partitions were looked at.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn find(
    state: &dyn StateStore,
    from: Option<Partition>,
    (why, now): (Why, Timestamp),
    (bytes_max, looks): (u64, usize),
) -> Result<Found> {
    let (mut found, mut bytes) = (Found { looks, ..Found::default() }, 0);
    let mut key = layout::cleanup_key(from.map_or(TopicId(ulid::Ulid::nil()), |from| from.topic));
    loop {
        let rows = state.scan(&key, &layout::cleanup_end(), SCAN_STEP)?;
        let Some((last, _)) = rows.last() else { return Ok(found) };
        key = layout::after(last);
        for (row, _) in rows {
            let broken = || Error::new(Kind::Corrupt, "key of a cleanup in the state store is broken");
            let topic = layout::retention_topic(&row).ok_or_else(broken)?;
            let partitions = topic_row(state, topic)?.map_or(0, |topic| topic.partitions);
            let first = from.filter(|from| from.topic == topic).map_or(0, |from| from.index.0);
            for index in first..partitions {
                let partition = Partition { topic, index: PartitionIndex(index) };
                if found.looks == 0 || bytes >= bytes_max {
                    found.next = Some(partition);
                    return Ok(found);
                }
                found.looks -= 1;
                if let Some(pass) = plan(state, partition, (why, now), bytes_max)? {
                    bytes += pass.bytes;
                    found.passes.push(pass);
                }
            }
        }
    }
}

/// The pass over a partition, if one is due. Without much to do a pass that only lets go of what deletes keys is for a partition
/// of `bytes_max` at most, once in a grace.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn plan(
    state: &dyn StateStore,
    partition: Partition,
    (why, now): (Why, Timestamp),
    bytes_max: u64,
) -> Result<Option<Pass>> {
    let Some(row) = partition_row(state, partition)? else { return Ok(None) };
    if has_forks(state, partition.topic)? {
        return Ok(None);
    }
    let clean = CleanRow::load(state, partition)?.unwrap_or_default();
    let grace = u64::try_from(TOMBSTONE_GRACE.as_millis()).expect("a day");
    let is_over = clean.settled_to > Offset(0) && clean.settled_at.0.saturating_add(grace) <= now.0;
    let settled = if is_over && why != Why::Move { clean.settled_to } else { Offset(0) };
    let may_settle = is_over && clean.tombstones > 0;
    // Most looks end here, without a look at the index.
    let new = row.published.saturating_sub(clean.published);
    if why == Why::Due && !may_settle && (new == 0 || new < row.bytes.saturating_sub(new)) {
        return Ok(None);
    }
    let (rows, ends) = runs(state, partition, row.tail)?;
    let (mut old, mut new) = (0_u64, 0_u64);
    for (base, run) in &rows {
        *(if base.plus(run.count) <= clean.to { &mut old } else { &mut new }) += u64::from(run.len);
    }
    let due = match why {
        Why::Due => (new > 0 && new >= old) || (may_settle && old + new <= bytes_max),
        Why::Asked => new > 0 || may_settle,
        Why::Move => true,
    };
    let is_known = ends.is_none_or(|after| after.span.is_some());
    let pass = Pass { partition, rows, bytes: old + new, start: row.start, clean, settled, why };
    Ok((due && is_known && !pass.rows.is_empty()).then_some(pass))
}

/// The runs of a partition that a pass takes, and the row after them.
fn runs(state: &dyn StateStore, partition: Partition, tail: Offset) -> Result<(OldRows, Option<IndexRow>)> {
    let (mut from, to) = (layout::index_key(partition, Offset(0)), layout::index_key(partition, tail));
    let mut out = OldRows::new();
    loop {
        let rows = state.scan(&from, &to, SCAN_STEP)?;
        let Some((last, _)) = rows.last() else { return Ok((out, None)) };
        from = layout::after(last);
        for (key, value) in rows {
            let broken = || Error::new(Kind::Corrupt, format!("index of {partition} is broken"));
            let (base, row) = (layout::index_base(&key).ok_or_else(broken)?, IndexRow::parse(value)?);
            if matches!(row.place, Place::Wal { .. }) || out.len() == ROWS_MAX {
                return Ok((out, Some(row)));
            }
            out.push((base, row));
        }
    }
}

impl Keys {
    /// No key yet; what is before `from` is clean. `seed` makes it unlikely that someone finds two keys of one hash.
    pub(crate) fn new(from: Offset, keys_max: usize, seed: u64) -> Self {
        Self { seed, last: HashMap::new(), keys_max: keys_max.max(1), to: from, full: false }
    }

    /// Notes the records of a run that are new. False when there is no room for more.
    pub(crate) fn note(&mut self, batches: &[StoredBatch]) -> bool {
        let from = self.to;
        for record in batches.iter().flat_map(StoredBatch::record_refs).filter(|record| record.offset >= from) {
            if let Some(key) = record.key {
                let (room, hash) = (self.last.len() < self.keys_max, self.hash(key));
                match self.last.entry(hash) {
                    Entry::Occupied(mut last) => *last.get_mut() = record.offset,
                    Entry::Vacant(place) if room => drop(place.insert(record.offset)),
                    Entry::Vacant(_) => {
                        (self.to, self.full) = (record.offset, true);
                        return false;
                    }
                }
            }
            self.to = record.offset.plus(1);
        }
        true
    }

    /// All records below `end` were noted, unless one did not fit.
    pub(crate) fn noted_up_to(&mut self, end: Offset) {
        if !self.full {
            self.to = end;
        }
    }

    /// How many keys are known.
    pub(crate) fn len(&self) -> usize {
        self.last.len()
    }

    fn hash(&self, key: &[u8]) -> u128 {
        xxh3_128_with_seed(key, self.seed)
    }

    fn supersedes(&self, record: &RecordRef<'_>) -> bool {
        let last = record.key.and_then(|key| self.last.get(&self.hash(key)));
        last.is_some_and(|last| *last > record.offset)
    }
}

impl Filter {
    /// What stays of a batch.
    pub(crate) fn retain(&mut self, batch: &StoredBatch) -> Vec<StoredBatch> {
        batch.retain(|record| {
            let is_last = record.offset.plus(1) == self.end;
            let deletes = is_tombstone(record);
            let stays = is_last
                || record.offset >= self.keys.to
                || !(self.keys.supersedes(record) || (deletes && record.offset < self.settled));
            self.tombstones += u32::from(stays && deletes && !is_last);
            stays
        })
    }
}

/// Whether a record deletes its key.
pub(crate) fn is_tombstone(record: &RecordRef<'_>) -> bool {
    record.key.is_some() && record.payload.is_empty()
}
