//! A start: end the logs of those who owned the shards, claim every shard, restore the state up to where they ended.
//!
//! Starting again on the same machine is the same procedure against one's own session before. Safety rests on the fences
//! and on claims that are created once; a start that loses a claim to a start beside it backs off.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Kind, Result};
use crate::ids::{ClusterId, Epoch, ObjectHash, SessionId, ShardId, Slot};
use crate::layout;
use crate::metrics::Health;
use crate::shard::changes::Entry;
use crate::shard::checkpoint::{
    self,
    dirty::{self, Reference},
};
use crate::shard::claim::{self, CATALOG_SHARD, Claim};
use crate::shard::machine::{self, Run, SlotSummary};
use crate::shard::rows::{Position, Row};
use crate::slot::read_header;
use crate::state::{StateOp, StateStore};
use crate::store::ObjectStores;
use crate::wal::blocks::{Block, PlacedBlock, parse_body};
use crate::wal::fence::{self, CheckpointRef, FencedLog};
use crate::wal::format::Header;
use crate::wal::reader;

/// Claims are created so many at a time.
const CLAIMS_AT_ONCE: usize = 8;

/// Who starts, and on what.
pub(crate) struct Starter<'a> {
    pub(crate) stores: &'a ObjectStores,
    pub(crate) health: &'a Health,
    pub(crate) cluster: ClusterId,
    pub(crate) session: SessionId,
    pub(crate) shards: u16,
}

/// A shard that was claimed, and the logs that make up its state, the oldest first.
#[derive(Clone, Debug)]
pub(crate) struct ShardPlan {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    /// The checkpoint to begin with.
    pub(crate) base: Option<(SessionId, CheckpointRef)>,
    /// Logs to replay after it: session, first slot, end.
    pub(crate) logs: Vec<(SessionId, Slot, Slot)>,
}

/// All shards of the cluster, claimed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shards: Vec<ShardPlan>,
}

/// What a restore had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) slots: u64,
    pub(crate) bytes: u64,
    pub(crate) sessions: usize,
}

impl Plan {
    /// What the new owner writes first.
    pub(crate) fn acquire_entries(&self) -> Vec<Entry> {
        self.shards.iter().map(|plan| Entry::Acquire { shard: plan.shard, epoch: plan.epoch }).collect()
    }

    /// The epoch in which the session owns the catalog.
    pub(crate) fn catalog_epoch(&self) -> Epoch {
        self.shards.iter().find(|plan| plan.shard == CATALOG_SHARD).map_or(Epoch(1), |plan| plan.epoch)
    }

    /// The longest chain of logs that any shard is restored from.
    pub(crate) fn sessions(&self) -> usize {
        self.shards.iter().map(|plan| plan.logs.len()).max().unwrap_or(0)
    }

    /// The checkpoint that all shards begin with, when it is one.
    fn common_base(&self) -> Option<(SessionId, CheckpointRef)> {
        let first = self.shards.first()?.base;
        first.filter(|_| self.shards.iter().all(|plan| plan.base == first))
    }

    /// The one log that all shards end in, when there is one: session and end.
    fn common_last(&self) -> Option<(SessionId, Slot)> {
        let mut lasts = self.shards.iter().map(|plan| plan.logs.last().map(|(session, _, end)| (*session, *end)));
        let first = lasts.next()??;
        lasts.all(|last| last == Some(first)).then_some(first)
    }
}

impl Starter<'_> {
    /// Ends the logs of all owners and claims every shard.
    ///
    /// # Errors
    /// `Fenced` when another start is faster, `Unavailable` or `Unknown` when the store does not answer, `Corrupt` when
    /// the chain is broken.
    pub(crate) async fn claim_all(&self) -> Result<Plan> {
        let latest: Vec<(ShardId, Option<Claim>)> = futures::stream::iter((0..self.shards).map(ShardId))
            .map(|shard| async move { Ok((shard, claim::latest(self.stores, shard).await?)) })
            .buffered(CLAIMS_AT_ONCE)
            .try_collect()
            .await?;
        let mut ended = HashMap::new();
        for owner in latest.iter().filter_map(|(_, claim)| claim.map(|claim| claim.owner)) {
            self.end(&mut ended, owner).await?;
        }
        // The catalog first: of two starts at the same time one loses here and has claimed nothing.
        let mut shards = Vec::with_capacity(latest.len());
        for (shard, claim) in latest {
            let claim = self.claim(&mut ended, shard, claim).await?;
            shards.push(self.plan(&mut ended, claim).await?);
        }
        Ok(Plan { shards })
    }

    async fn end(&self, ended: &mut HashMap<SessionId, FencedLog>, session: SessionId) -> Result<FencedLog> {
        if let Some(log) = ended.get(&session) {
            return Ok(*log);
        }
        let log = fence::fence(self.stores, self.health, session, self.session).await?;
        tracing::info!(%session, end = %log.end, "ended the log of the session before");
        ended.insert(session, log);
        Ok(log)
    }

    async fn claim(
        &self,
        ended: &mut HashMap<SessionId, FencedLog>,
        shard: ShardId,
        mut latest: Option<Claim>,
    ) -> Result<Claim> {
        loop {
            let previous = match latest {
                None => None,
                Some(claim) => Some((claim.owner, self.end(ended, claim.owner).await?.end)),
            };
            let epoch = latest.map_or(Epoch(1), |claim| Epoch(claim.epoch.0 + 1));
            let mine = Claim { shard, epoch, owner: self.session, previous };
            match claim::create(self.stores, self.health, &mine).await? {
                None => return Ok(mine),
                // Its owner was ended by us before it could claim this shard too.
                Some(_) if planted!(LoserServes) => return Ok(mine),
                Some(other) if ended.contains_key(&other.owner) => latest = Some(other),
                Some(other) => {
                    let text = format!("session {} is starting on this store and was faster", other.owner);
                    return Err(Error::new(Kind::Fenced, text));
                }
            }
        }
    }

    /// Walks the claims of a shard back to a session with a checkpoint, or to the beginning.
    async fn plan(&self, ended: &mut HashMap<SessionId, FencedLog>, claim: Claim) -> Result<ShardPlan> {
        let mut plan = ShardPlan { shard: claim.shard, epoch: claim.epoch, base: None, logs: Vec::new() };
        let mut at = claim;
        while let Some((session, end)) = at.previous {
            let log = self.end(ended, session).await?;
            plan.logs.push((session, log.checkpoint.map_or(Slot(0), |checkpoint| checkpoint.trim), end));
            if let Some(checkpoint) = log.checkpoint {
                plan.base = Some((session, checkpoint));
                break;
            }
            let broken =
                || Error::new(Kind::Corrupt, format!("the first claim of shard {} has a predecessor", at.shard.0));
            let before = at.epoch.0.checked_sub(1).map(Epoch).ok_or_else(broken)?;
            at = claim::read(self.stores, at.shard, before).await?;
        }
        plan.logs.reverse();
        Ok(plan)
    }

    /// Whether the local state is a prefix of what the bucket proves, so that only the rest needs to be replayed.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read.
    pub(crate) async fn fits(&self, plan: &Plan, state: &dyn StateStore) -> Result<Option<Position>> {
        let Ok(Some(value)) = state.get(&layout::position_key()) else { return Ok(None) };
        let (Ok(position), Some((session, end))) = (Position::parse(value), plan.common_last()) else {
            return Ok(None);
        };
        if position.cluster != self.cluster || position.session != session || position.next > end {
            return Ok(None);
        }
        // What lies before a checkpoint need not be there any more.
        let base = plan.common_base().filter(|(base, _)| *base == session).map(|(_, checkpoint)| checkpoint);
        if base.is_some_and(|base| position.next < base.trim) {
            return Ok(None);
        }
        let hash = match (position.next.0.checked_sub(1), base) {
            (None, _) => ObjectHash::default(),
            (Some(_), Some(base)) if position.next == base.trim => base.hash,
            (Some(last), _) => {
                let header = read_header(self.stores, &layout::wal(session, Slot(last))).await?;
                header.map(|header| header.hash()).unwrap_or_default()
            }
        };
        Ok((hash == position.hash).then_some(position))
    }

    /// Replays what the local state lacks.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read, `Corrupt` when the chain is broken.
    pub(crate) async fn catch_up(
        &self,
        plan: &Plan,
        position: Position,
        state: &Arc<dyn StateStore>,
    ) -> Result<Restored> {
        let Some((session, end)) = plan.common_last() else { return Ok(Restored::default()) };
        let log = LogPart { session, from: position.next, end, hash: position.hash };
        let restored = self.replay(&log, state, &|_| true).await?;
        let reference = self.compare_reference(plan, (session, end), &**state).await?;
        self.arrive(state, reference)?;
        Ok(restored)
    }

    /// What the local state must note about the checkpoint that its dirty rows come after: nothing, if it is the newest.
    async fn compare_reference(
        &self,
        plan: &Plan,
        (last, end): (SessionId, Slot),
        state: &dyn StateStore,
    ) -> Result<Vec<StateOp>> {
        let (position, reference) = dirty::local(state)?;
        let forget = dirty::forget(position.applied).to_vec();
        let Some((session, base)) = plan.common_base() else { return Ok(forget) };
        if reference.is_some_and(|reference| reference.is(session, base.number)) {
            return Ok(Vec::new());
        }
        // The process died between a checkpoint and its note. The slots of its own log were applied one after the other.
        let after = end.0.checked_sub(base.trim.0).filter(|_| session == last);
        let Some(from) = after.and_then(|after| position.applied.checked_sub(after)) else { return Ok(forget) };
        let parts = checkpoint::parts_of(self.stores, session, base.number).await?;
        Ok(Reference { from, parts }.settle(0).to_vec())
    }

    /// Restores an empty state from the bucket alone.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read, `Corrupt` when a checkpoint or the chain is broken.
    pub(crate) async fn restore(&self, plan: &Plan, state: &Arc<dyn StateStore>) -> Result<Restored> {
        let reference = match plan.common_base() {
            Some((session, base)) => {
                let parts = checkpoint::load(self.stores, session, base.number, state, |_| true).await?;
                vec![StateOp::Put(layout::reference_key(), Reference { from: 0, parts }.encode())]
            }
            None => self.load_by_shard(plan, state).await.map(|()| Vec::new())?,
        };
        let mut restored = Restored::default();
        for (log, shards) in logs_in_order(plan)? {
            let part = self.replay(&log, state, &|shard| shards.contains(&shard)).await?;
            restored.slots += part.slots;
            restored.bytes += part.bytes;
            restored.sessions += 1;
        }
        self.arrive(state, reference)?;
        Ok(restored)
    }

    /// Loads the checkpoints of shards that begin with different ones.
    async fn load_by_shard(&self, plan: &Plan, state: &Arc<dyn StateStore>) -> Result<()> {
        let mut checkpoints: BTreeMap<(SessionId, Slot), Vec<ShardId>> = BTreeMap::new();
        for shard in &plan.shards {
            if let Some((session, checkpoint)) = shard.base {
                checkpoints.entry((session, checkpoint.number)).or_default().push(shard.shard);
            }
        }
        for ((session, number), wanted) in checkpoints {
            let shards = self.shards;
            let wanted = move |key: &[u8]| layout::shard_of(key, shards).is_some_and(|shard| wanted.contains(&shard));
            checkpoint::load(self.stores, session, number, state, wanted).await?;
        }
        Ok(())
    }

    async fn replay(
        &self,
        log: &LogPart,
        state: &Arc<dyn StateStore>,
        wanted: &(dyn Fn(ShardId) -> bool + Sync),
    ) -> Result<Restored> {
        let mut restored = Restored { sessions: 1, ..Restored::default() };
        let mut hash = log.hash;
        let end = if planted!(ReplayOneShort) { Slot(log.end.0.saturating_sub(1)) } else { log.end };
        let mut slots = std::pin::pin!(reader::slots(self.stores, log.session, log.from, end));
        while let Some(slot) = slots.next().await {
            let (header, body) = slot?;
            if header.previous != hash {
                let text = format!("slot {} of session {} does not continue its log", header.number, log.session);
                return Err(Error::new(Kind::Corrupt, text));
            }
            hash = header.hash();
            let mut summary = summarize(&header, parse_body(&body)?, wanted)?;
            if planted!(StartForgotten) {
                summary.entries.retain(|entry| !matches!(entry, Entry::Trim { .. }));
            }
            machine::apply(&**state, &summary, &[], (self.cluster, hash))?;
            restored.slots += 1;
            restored.bytes += header.object_len();
        }
        Ok(restored)
    }

    /// The state is complete: from here on the new session's log goes on.
    fn arrive(&self, state: &Arc<dyn StateStore>, mut ops: Vec<StateOp>) -> Result<()> {
        let applied = Position::load(&**state)?.map_or(0, |position| position.applied);
        let hash = ObjectHash::default();
        let position = Position { cluster: self.cluster, session: self.session, next: Slot(0), hash, applied };
        ops.push(StateOp::Put(layout::position_key(), position.encode()));
        state.write(&ops)
    }
}

/// A stretch of one session's log; `hash` is that of the object before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogPart {
    pub(crate) session: SessionId,
    pub(crate) from: Slot,
    pub(crate) end: Slot,
    pub(crate) hash: ObjectHash,
}

/// The logs of all shards, each once, so that each shard sees its own in order.
///
/// # Errors
/// `Corrupt` when no order serves all shards.
pub(crate) fn logs_in_order(plan: &Plan) -> Result<Vec<(LogPart, Vec<ShardId>)>> {
    let mut waiting: Vec<(ShardId, Vec<LogPart>)> = plan.shards.iter().map(shard_logs).collect();
    let mut out: Vec<(LogPart, Vec<ShardId>)> = Vec::new();
    while waiting.iter().any(|(_, logs)| !logs.is_empty()) {
        let is_first_everywhere = |log: &LogPart| {
            waiting.iter().all(|(_, logs)| logs.iter().position(|other| other.session == log.session).unwrap_or(0) == 0)
        };
        let next = waiting.iter().filter_map(|(_, logs)| logs.first()).find(|log| is_first_everywhere(log)).copied();
        let next = next.ok_or_else(|| Error::new(Kind::Corrupt, "the claims of the shards contradict each other"))?;
        let mut shards = Vec::new();
        for (shard, logs) in &mut waiting {
            if logs.first().is_some_and(|log| log.session == next.session) {
                logs.remove(0);
                shards.push(*shard);
            }
        }
        out.push((next, shards));
    }
    Ok(out)
}

fn shard_logs(plan: &ShardPlan) -> (ShardId, Vec<LogPart>) {
    let base_hash = plan.base.map(|(session, checkpoint)| (session, checkpoint.hash));
    let logs = plan.logs.iter().map(|(session, from, end)| {
        let hash = base_hash.filter(|(base, _)| base == session).map(|(_, hash)| hash).unwrap_or_default();
        LogPart { session: *session, from: *from, end: *end, hash }
    });
    (plan.shard, logs.collect())
}

/// What the blocks of a slot mean for the state, as far as their shards are wanted.
///
/// # Errors
/// `Corrupt` when an entry is broken.
pub(crate) fn summarize(
    header: &Header,
    blocks: Vec<PlacedBlock>,
    wanted: &(dyn Fn(ShardId) -> bool + Sync),
) -> Result<SlotSummary> {
    let mut runs: Vec<Run> = Vec::new();
    let mut entries = Vec::new();
    for placed in blocks {
        if !wanted(placed.shard) {
            continue;
        }
        match placed.block {
            Block::Changes(changes) => entries.extend(Entry::parse_all(changes)?),
            Block::Records { partition, batch } => match runs.last_mut().filter(|run| run.partition == partition) {
                Some(run) => {
                    run.count += batch.batch.count();
                    run.len += placed.len;
                    run.last_timestamp = batch.timestamp;
                }
                None => runs.push(Run {
                    partition,
                    base: batch.base,
                    count: batch.batch.count(),
                    position: placed.position,
                    len: placed.len,
                    first_timestamp: batch.timestamp,
                    last_timestamp: batch.timestamp,
                }),
            },
        }
    }
    let slot = Slot(header.number);
    Ok(SlotSummary { session: header.session, slot, object_len: header.object_len(), runs, entries })
}

#[cfg(test)]
mod tests;
