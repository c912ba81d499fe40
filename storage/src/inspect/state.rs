//! The state of a bucket as a start would restore it now, without ending or claiming anything.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{ClusterId, Partition, PartitionIndex, SessionId, ShardId, Slot, Timestamp, TopicId};
use crate::inspect::claims::Claims;
use crate::inspect::listing::Listing;
use crate::inspect::scratch::{Scratch, ScratchState};
use crate::layout;
use crate::log::{Bounds, TopicBounds};
use crate::metrics::{Health, StorageMetrics};
use crate::shard::fork::only_partition;
use crate::shard::rows::{Row, TopicRow};
use crate::shard::stream::stream_row;
use crate::shard::takeover::{Plan, ShardPlan, Starter};
use crate::shard::{clean, gaps, machine};
use crate::store::ObjectStores;
use crate::wal::fence::{self, CheckpointRef};

/// Documents, topics and partitions, read from a bucket.
#[derive(Debug)]
pub struct State {
    pub(super) state: ScratchState,
}

/// Which cluster a state belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    pub(crate) shards: u16,
}

/// The last checkpoint and the end of a log.
type Log = (Option<CheckpointRef>, Slot);

/// Restores the state that the claims lead to, by the same steps as a start.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when what is needed is missing or broken, `Invalid` when the
/// scratch directory cannot be used.
pub(crate) async fn restore(
    stores: &ObjectStores,
    identity: Identity,
    (listing, claims): (&Listing, &Claims),
    scratch: &Scratch,
) -> Result<State> {
    let plan = plan(stores, identity, listing, claims).await?;
    let state = scratch.state()?;
    // Nothing is ended and no session begins: whose these are does not matter.
    let health = Health::new(StorageMetrics::default());
    let session = SessionId(ulid::Ulid::nil());
    let starter = Starter { stores, health: &health, cluster: identity.cluster, session, shards: identity.shards };
    starter.restore(&plan, state.share()).await?;
    Ok(State { state })
}

async fn plan(stores: &ObjectStores, identity: Identity, listing: &Listing, claims: &Claims) -> Result<Plan> {
    let ends = claims.ends();
    let mut logs: HashMap<SessionId, Log> = HashMap::new();
    let mut shards = Vec::with_capacity(usize::from(identity.shards));
    for shard in (0..identity.shards).map(ShardId) {
        let claims = claims.0.get(&shard);
        let owner = claims.and_then(|claims| claims.values().last()).map(|claim| claim.owner);
        let before = claims.into_iter().flat_map(|claims| claims.values().rev().filter_map(|claim| claim.previous));
        let chain = owner.into_iter().chain(before.map(|(session, _)| session));
        let mut plan = ShardPlan { shard, epoch: crate::ids::Epoch(0), base: None, logs: Vec::new() };
        for session in chain {
            let log = match logs.get(&session) {
                Some(log) => *log,
                None => look(stores, listing, session, ends.get(&session)).await?,
            };
            logs.insert(session, log);
            let (checkpoint, end) = log;
            plan.logs.push((session, checkpoint.map_or(Slot(0), |checkpoint| checkpoint.trim), end));
            if let Some(checkpoint) = checkpoint {
                plan.base = Some((session, checkpoint));
                break;
            }
        }
        plan.logs.reverse();
        shards.push(plan);
    }
    Ok(Plan { shards })
}

async fn look(stores: &ObjectStores, listing: &Listing, session: SessionId, end: Option<&Slot>) -> Result<Log> {
    let Some(objects) = listing.sessions.get(&session) else { return Ok((None, end.copied().unwrap_or_default())) };
    let newest = objects.newest_checkpoint().map(|(number, _)| number.0);
    let checkpoint = fence::checkpoint_ref(stores, session, newest).await?;
    let trim = checkpoint.map_or(Slot(0), |checkpoint| checkpoint.trim);
    Ok((checkpoint, end.copied().unwrap_or_else(|| objects.end(trim)).max(trim)))
}

impl State {
    /// Documents whose key begins with `prefix` and comes after `after`, ascending, at most `limit`.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory is broken.
    pub fn documents(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut from = BytesMut::from(&layout::document_key(after.unwrap_or(prefix))[..]);
        if after.is_some() {
            from.put_u8(0);
        }
        let rows = self.state.scan(&from, &layout::document_prefix_end(prefix), limit)?;
        Ok(rows.into_iter().map(|(key, value)| (layout::document_of(&key), value)).collect())
    }

    /// Topics after `after` with their numbers of partitions, ascending, at most `limit`.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory or a topic is broken.
    pub fn topics(&self, after: Option<TopicId>, limit: usize) -> Result<Vec<(TopicId, u32)>> {
        let (first, end) = layout::topics_range();
        let mut from = BytesMut::from(&after.map_or(first, layout::topic_key)[..]);
        if after.is_some() {
            from.put_u8(0);
        }
        let rows = self.state.scan(&from, &end, limit)?;
        let topic = |(key, value): (Bytes, Bytes)| {
            let id = layout::topic_of(&key).ok_or_else(|| Error::new(Kind::Corrupt, "key of a topic is broken"))?;
            Ok((id, TopicRow::parse(value)?.partitions))
        };
        rows.into_iter().map(topic).collect()
    }

    /// How many partitions a topic has, or `None` when there is no such topic.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory or the row is broken.
    pub fn topic(&self, topic: TopicId) -> Result<Option<u32>> {
        Ok(machine::topic_row(&*self.state, topic)?.map(|row| row.partitions))
    }

    /// The bounds of all `partitions` of a topic; all zero where there is no record yet.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory or a row is broken.
    pub fn topic_bounds(&self, topic: TopicId, partitions: u32) -> Result<TopicBounds> {
        let all = (0..partitions).map(|index| self.bounds(Partition { topic, index: PartitionIndex(index) }));
        let partitions = all.collect::<Result<Vec<_>>>()?;
        let mut missing = clean::missing(&*self.state, topic, &partitions)?;
        if let [bounds] = &partitions[..] {
            missing += gaps::missing_inherited(&*self.state, only_partition(topic), bounds.start)?;
        }
        Ok(TopicBounds { partitions, missing })
    }

    /// The bounds of a partition; all zero when it has no record yet.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory or the row is broken.
    pub fn bounds(&self, partition: Partition) -> Result<Bounds> {
        let row = machine::partition_row(&*self.state, partition)?.unwrap_or_default();
        let closed = stream_row(&*self.state, partition)?.closed.is_some();
        Ok(Bounds { start: row.start, tail: row.tail, bytes: row.bytes, last_timestamp: row.last_timestamp, closed })
    }

    /// The time of the newest record of all.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory or a row is broken.
    pub fn newest_record(&self) -> Result<Option<Timestamp>> {
        let (mut after, mut newest) = (None, None);
        loop {
            let page = self.topics(after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(newest) };
            after = Some(*last);
            for (topic, partitions) in page {
                for index in (0..partitions).map(PartitionIndex) {
                    let bounds = self.bounds(Partition { topic, index })?;
                    newest = newest.max((bounds.tail.0 > 0).then_some(bounds.last_timestamp));
                }
            }
        }
    }
}

/// Rows that one look takes.
const PAGE: usize = 500;
