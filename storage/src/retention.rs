//! Retention: moves the start of partitions whose topic keeps only so much, by age and by bytes.
//!
//! One task of the log. Each turn it looks at a bounded number of partitions of the topics that have a retention, and
//! goes on there the next time; a turn in which nothing is due writes nothing. It trims whole runs (batches of one
//! partition that stand side by side) and reads only the index, never a record. By age it uses the clock of the node; by bytes the
//! newest run always stays.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::env::{Clock, apart, until};
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, PartitionIndex, Timestamp, TopicId};
use crate::layout;
use crate::log::LogOptions;
use crate::shard::fork::is_shared;
use crate::shard::index::{last_run, last_where, run_at};
use crate::shard::machine::{partition_row, topic_row};
use crate::shard::rows::{PartitionRow, RetentionRow, Row};
use crate::state::StateStore;
use crate::wal::writer::Writer;

/// Topics that are read from the state at once.
const TOPICS_STEP: usize = 256;
/// Most moves that one slot commits: what applying them costs is paid between two slots.
const TRIMS_AT_ONCE: usize = 256;

/// How much of a topic is kept; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Records that are older, in milliseconds by the time of their batch, may go.
    pub age_ms: Option<NonZeroU64>,
    /// When a partition holds more stored bytes, its oldest records may go. The newest stay, however many bytes they are.
    pub bytes: Option<NonZeroU64>,
}

/// The task that moves starts.
pub(crate) struct Keeper {
    writer: Arc<Writer>,
    state: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    /// The time from one turn to the next.
    interval: Duration,
    /// Partitions that one turn looks at.
    partitions_max: usize,
}

/// What one turn found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    trims: Vec<(Partition, Offset)>,
    /// Where the next turn begins; `None` at the first topic.
    next: Option<Partition>,
}

impl RetentionRow {
    /// The row of a retention, or `None` when it keeps everything.
    pub(crate) fn of(retention: &Retention) -> Option<Self> {
        let limit = |limit: Option<NonZeroU64>| limit.map_or(0, NonZeroU64::get);
        let row = Self { age_ms: limit(retention.age_ms), bytes: limit(retention.bytes) };
        (row != Self { age_ms: 0, bytes: 0 }).then_some(row)
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention { age_ms: NonZeroU64::new(self.age_ms), bytes: NonZeroU64::new(self.bytes) }
    }
}

impl Keeper {
    pub(crate) fn new(options: &LogOptions, writer: &Arc<Writer>, state: &Arc<dyn StateStore>) -> Self {
        Self {
            writer: Arc::clone(writer),
            state: Arc::clone(state),
            clock: Arc::clone(&options.clock),
            interval: options.retention_interval,
            partitions_max: options.retention_partitions_max,
        }
    }

    /// Takes turns until the log takes nothing more.
    pub(crate) async fn run(self) {
        let mut from = None;
        loop {
            let next = Instant::now() + self.interval;
            tokio::select! {
                _ = self.writer.stopped() => return,
                () = until(Some(next)) => {}
            }
            match self.turn(from).await {
                Ok(next) => from = next,
                // What is due stays due; the next turn looks at the same partitions again.
                Err(error)
                    if matches!(
                        error.kind(),
                        Kind::Unavailable | Kind::Busy | Kind::Conflict | Kind::Fenced | Kind::Closed
                    ) =>
                {
                    tracing::debug!(%error, "retention waits");
                }
                Err(error) => tracing::warn!(%error, "retention failed, it is tried again"),
            }
        }
    }

    /// Looks at the next partitions, commits what is due, and gives where to go on.
    async fn turn(&self, from: Option<Partition>) -> Result<Option<Partition>> {
        let (state, now, looks) = (Arc::clone(&self.state), self.clock.now(), self.partitions_max);
        let found = apart("retention", move || look(&*state, from, looks, now)).await?;
        for trims in found.trims.chunks(TRIMS_AT_ONCE) {
            tracing::debug!(partitions = trims.len(), "retention moves starts");
            self.writer.trim(trims).await?;
        }
        Ok(found.next)
    }
}

/// Looks at up to `looks` partitions of topics with a retention; a topic without a partition left counts as one.
fn look(state: &dyn StateStore, from: Option<Partition>, mut looks: usize, now: Timestamp) -> Result<Turn> {
    let mut trims = Vec::new();
    let mut key = layout::retention_key(from.map_or(TopicId(ulid::Ulid::nil()), |from| from.topic));
    loop {
        let rows = state.scan(&key, &layout::retention_end(), TOPICS_STEP)?;
        for (found, value) in &rows {
            let broken = || Error::new(Kind::Corrupt, "key of a retention in the state store is broken");
            let topic = layout::retention_topic(found).ok_or_else(broken)?;
            let retention = RetentionRow::parse(value.clone())?;
            let partitions = topic_row(state, topic)?.map_or(0, |topic| topic.partitions);
            let first = from.filter(|from| from.topic == topic).map_or(0, |from| from.index.0);
            for index in first..partitions.max(1) {
                let partition = Partition { topic, index: PartitionIndex(index) };
                if looks == 0 {
                    return Ok(Turn { trims, next: Some(partition) });
                }
                looks -= 1;
                trims.extend(due(state, partition, &retention, now)?.map(|start| (partition, start)));
            }
            key = Bytes::from([&found[..], &[0]].concat());
        }
        if rows.len() < TOPICS_STEP {
            return Ok(Turn { trims, next: None });
        }
    }
}

/// Where the start of a partition should be, if it should move.
fn due(
    state: &dyn StateStore,
    partition: Partition,
    retention: &RetentionRow,
    now: Timestamp,
) -> Result<Option<Offset>> {
    let Some(row) = partition_row(state, partition)? else { return Ok(None) };
    match start_of(state, partition, &row, retention, now) {
        // What forks share stays for as long as there are any.
        Ok(start) if start > row.start && is_shared(state, partition)? => Ok(None),
        Ok(start) => Ok((start > row.start).then_some(start)),
        // Trimmed or deleted meanwhile: the next turn finds it in order.
        Err(error) if error.kind() == Kind::Corrupt && partition_row(state, partition)? != Some(row) => Ok(None),
        Err(error) => {
            tracing::warn!(%partition, %error, "retention passes over a partition");
            Ok(None)
        }
    }
}

fn start_of(
    state: &dyn StateStore,
    partition: Partition,
    row: &PartitionRow,
    retention: &RetentionRow,
    now: Timestamp,
) -> Result<Offset> {
    let mut start = row.start;
    if retention.age_ms > 0 {
        let oldest = Timestamp(now.0.saturating_sub(retention.age_ms));
        start = start.max(first_not_older(state, partition, row, oldest)?);
    }
    if retention.bytes > 0 && row.bytes > retention.bytes {
        start = start.max(first_within(state, partition, row, retention.bytes)?);
    }
    Ok(start)
}

/// The first offset of the first run that has a record of `oldest` or later; the tail when none has.
fn first_not_older(
    state: &dyn StateStore,
    partition: Partition,
    row: &PartitionRow,
    oldest: Timestamp,
) -> Result<Offset> {
    if row.start == row.tail || row.last_timestamp < oldest {
        return Ok(row.tail);
    }
    // Most looks end here: the oldest run is not old enough.
    if run_at(state, partition, row.start)?.is_some_and(|(_, run)| run.first_timestamp >= oldest) {
        return Ok(row.start);
    }
    let last = last_where(state, partition, row.start..row.tail, |run| run.first_timestamp < oldest)?;
    let Some((base, run)) = last else { return Ok(row.start) };
    // Of a run without a span the time of the last record is not known: it goes with the run after it.
    let all_older = run.span.is_some_and(|span| span.last_timestamp < oldest);
    Ok(if all_older { base.plus(run.count) } else { base })
}

/// The first offset of the first run from which on there are at most `limit` bytes; of the newest run when there is none.
fn first_within(state: &dyn StateStore, partition: Partition, row: &PartitionRow, limit: u64) -> Result<Offset> {
    // How many bytes are before a run without a span is not known. Those runs come before all others, and stay until
    // the others alone are too many.
    let last = last_where(state, partition, row.start..row.tail, |run| {
        run.span.is_none_or(|span| row.published.saturating_sub(span.bytes_before) > limit)
    })?;
    let Some((base, run)) = last.filter(|(_, run)| run.span.is_some()) else { return Ok(row.start) };
    // After the newest run there may be a gap.
    let newest = last_run(state, partition, row.tail)?.map(|(base, _)| base);
    Ok(if newest == Some(base) { base } else { base.plus(run.count) })
}

#[cfg(test)]
mod tests;
