//! How a committed slot changes the state. The same function serves the writer and the replay after a start.

use std::collections::HashMap;

use crate::error::{Error, Kind, Result};
use crate::ids::{ClusterId, ObjectHash, Offset, Partition, SessionId, Slot, Timestamp};
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::checkpoint::dirty;
use crate::shard::clean::CleanupRow;
use crate::shard::fork::Forks;
use crate::shard::gaps::{self, Reservation};
use crate::shard::once::Remember;
use crate::shard::rows::{IndexRow, PartitionRow, Place, Position, RetentionRow, Row, Span, TopicRow};
use crate::shard::trim;
use crate::state::{StateOp, StateStore};

/// What one slot holds, as far as the state needs it.
#[derive(Clone, Debug)]
pub(crate) struct SlotSummary {
    pub(crate) session: SessionId,
    pub(crate) slot: Slot,
    pub(crate) object_len: u64,
    /// At most one run per partition.
    pub(crate) runs: Vec<Run>,
    pub(crate) entries: Vec<Entry>,
}

/// The batches of one partition in one slot; they stand side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) partition: Partition,
    pub(crate) base: Offset,
    pub(crate) count: u32,
    pub(crate) position: u32,
    pub(crate) len: u32,
    pub(crate) first_timestamp: Timestamp,
    pub(crate) last_timestamp: Timestamp,
}

/// The row of a partition, or `None` when it has no record yet.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn partition_row(state: &dyn StateStore, partition: Partition) -> Result<Option<PartitionRow>> {
    state.get(&layout::partition_key(partition))?.map(PartitionRow::parse).transpose()
}

/// How many partitions the topic has, or `None` when there is no such topic.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn topic_row(state: &dyn StateStore, topic: crate::ids::TopicId) -> Result<Option<TopicRow>> {
    state.get(&layout::topic_key(topic))?.map(TopicRow::parse).transpose()
}

/// Applies a slot, notes what it changed for the next checkpoint, and moves the position behind it, in one write batch.
/// `hash` is that of the slot's object. `before` are the rows of the partitions of its runs before the slot, in order, as far as
/// the caller knows them: those are not looked up. Gives the new rows of the slot's partitions.
///
/// # Errors
/// `Corrupt` when the state store is broken or the slot does not continue a partition where it ended.
pub(crate) fn apply(
    state: &dyn StateStore,
    slot: &SlotSummary,
    before: &[Option<PartitionRow>],
    (cluster, hash): (ClusterId, ObjectHash),
) -> Result<Vec<(Partition, PartitionRow)>> {
    let mut ops = Vec::with_capacity(2 * slot.runs.len() + slot.entries.len() + 2);
    let mut rows = Vec::with_capacity(slot.runs.len());
    let gaps = gaps::by_place(&slot.entries);
    let starts = trim::starts(&slot.entries);
    let forks = Forks::of(state, &slot.entries, &starts)?;
    for (at, run) in slot.runs.iter().enumerate() {
        let mut row = match forks.begun(run.partition) {
            Some(begun) => begun,
            None => row_before(state, run.partition, before.get(at).copied().flatten())?,
        };
        if let Some(gap) = gaps.get(&(run.partition, row.tail)) {
            row.tail = gap.to;
        }
        if row.tail != run.base {
            let text = format!("slot {} puts offset {} after {} of {}", slot.slot, run.base, row.tail, run.partition);
            return Err(Error::new(Kind::Corrupt, text));
        }
        let before = row.published;
        let row = PartitionRow {
            start: row.start,
            tail: run.base.plus(run.count),
            bytes: row.bytes + u64::from(run.len),
            last_timestamp: run.last_timestamp,
            published: before + u64::from(run.len),
        };
        ops.push(StateOp::Put(layout::partition_key(run.partition), row.encode()));
        ops.push(StateOp::Put(layout::index_key(run.partition, run.base), index_row(slot, run, before).encode()));
        rows.push((run.partition, row));
    }
    for (partition, row) in forks.all_begun().filter(|(begun, _)| slot.runs.iter().all(|run| run.partition != *begun)) {
        ops.push(StateOp::Put(layout::partition_key(partition), row.encode()));
        rows.push((partition, row));
    }
    apply_gaps(state, slot, &mut rows, &mut ops)?;
    trim::apply(state, (&slot.runs, starts.clone()), &mut rows, &mut ops)?;
    if slot.entries.iter().any(|entry| entry.partition().is_some()) {
        let mut remember = Remember::new(state);
        slot.entries.iter().try_for_each(|entry| remember.apply(entry))?;
        ops.extend(remember.finish());
    }
    for entry in &slot.entries {
        if let Entry::Link(link) = entry {
            ops.extend(link.ops(state, &starts)?);
        } else if let Entry::Cleaned(cleaned) = entry {
            cleaned.apply(state, slot, &mut rows, &mut ops)?;
        } else {
            apply_entry(entry, &mut ops);
        }
    }
    // Last: a topic that the slot deletes takes along what the slot says of it.
    forks.finish(&mut ops)?;
    let applied = Position::load(state)?.map_or(0, |position| position.applied);
    ops.extend(dirty::note(applied, &ops));
    let position = Position { cluster, session: slot.session, next: slot.slot.next(), hash, applied: applied + 1 };
    ops.push(StateOp::Put(layout::position_key(), position.encode()));
    state.write(&ops)?;
    Ok(rows)
}

/// The row of a partition: as it is known, or else as it is stored.
fn row_before(state: &dyn StateStore, partition: Partition, known: Option<PartitionRow>) -> Result<PartitionRow> {
    let stored = || partition_row(state, partition).map(Option::unwrap_or_default);
    let Some(known) = known else { return stored() };
    debug_assert!(stored().is_ok_and(|stored| stored == known), "what is known of {partition} is what is stored");
    Ok(known)
}

/// Moves tails behind gaps, and notes what is reserved. A gap stands before or after the run of its partition.
fn apply_gaps(
    state: &dyn StateStore,
    slot: &SlotSummary,
    rows: &mut Vec<(Partition, PartitionRow)>,
    ops: &mut Vec<StateOp>,
) -> Result<()> {
    let mut places: Option<HashMap<Partition, usize>> = None;
    for entry in &slot.entries {
        let (Entry::Gap { partition, .. } | Entry::Reserve { partition, .. }) = entry else { continue };
        let places = places.get_or_insert_with(|| rows.iter().enumerate().map(|(at, (of, _))| (*of, at)).collect());
        let at = places.get(partition).copied();
        let mut row = match at {
            Some(at) => rows[at].1,
            None => partition_row(state, *partition)?.unwrap_or_default(),
        };
        if let Entry::Reserve { to, memory, .. } = entry {
            let reservation = Reservation { to: *to, session: slot.session, memory: *memory };
            ops.push(gaps::reservation_op(*partition, reservation, row.tail));
        }
        let Entry::Gap { gap, .. } = entry else { continue };
        ops.push(gaps::gap_op(*partition, gap));
        // The rows of runs come first, in their order.
        if at.and_then(|at| slot.runs.get(at)).is_some_and(|run| run.base == gap.to) {
            continue;
        }
        if row.tail != gap.from {
            let text = format!("slot {} puts a gap at {} after {} of {partition}", slot.slot, gap.from, row.tail);
            return Err(Error::new(Kind::Corrupt, text));
        }
        row.tail = gap.to;
        ops.push(StateOp::Put(layout::partition_key(*partition), row.encode()));
        match at {
            Some(at) => rows[at].1 = row,
            None => {
                places.insert(*partition, rows.len());
                rows.push((*partition, row));
            }
        }
    }
    Ok(())
}

fn index_row(slot: &SlotSummary, run: &Run, bytes_before: u64) -> IndexRow {
    IndexRow {
        place: Place::Wal { session: slot.session, slot: slot.slot },
        object_len: slot.object_len,
        position: run.position,
        len: run.len,
        count: run.count,
        first_timestamp: run.first_timestamp,
        span: Some(Span { bytes_before, last_timestamp: run.last_timestamp }),
        kept: None,
    }
}

fn apply_entry(entry: &Entry, ops: &mut Vec<StateOp>) {
    match entry {
        Entry::PutDocument { key, value } => ops.push(StateOp::Put(layout::document_key(key), value.clone())),
        Entry::DeleteDocument { key } => ops.push(StateOp::Delete(layout::document_key(key))),
        Entry::CreateTopic { topic, partitions } => {
            ops.push(StateOp::Put(layout::topic_key(*topic), TopicRow { partitions: *partitions }.encode()));
        }
        // `Forks` applies these.
        Entry::DeleteTopic { .. } | Entry::ForkTopic { .. } => {}
        // Who owns a shard is read from the claims; the entry marks where in the log its owner begins.
        Entry::Acquire { .. } => {}
        // Applied over what the state holds, above.
        Entry::Link(_) | Entry::Cleaned(_) | Entry::Trim { .. } => {}
        Entry::SetRetention { topic, retention } => ops.push(match RetentionRow::of(retention) {
            Some(row) => StateOp::Put(layout::retention_key(*topic), row.encode()),
            None => StateOp::Delete(layout::retention_key(*topic)),
        }),
        Entry::SetCleanup { topic, cleanup } => ops.push(match CleanupRow::of(*cleanup) {
            Some(row) => StateOp::Put(layout::cleanup_key(*topic), row.encode()),
            None => StateOp::Delete(layout::cleanup_key(*topic)),
        }),
        // `Remember` and `apply_gaps` have applied these.
        Entry::Produced { .. }
        | Entry::Keyed { .. }
        | Entry::Fenced { .. }
        | Entry::StreamStep { .. }
        | Entry::Gap { .. }
        | Entry::Reserve { .. } => {}
    }
}
