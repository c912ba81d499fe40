//! The log of one session: every slot up to its end, chained by hash, and its checkpoints beside it.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::Verifier;
use super::objects::{Seen, see};
use super::replay::Replay;
use crate::error::{Chain, Error, Result};
use crate::ids::{ObjectHash, Partition, SessionId, ShardId, Slot};
use crate::inspect::claims::Owner;
use crate::inspect::listing::SessionObjects;
use crate::inspect::verify::checkpoints::Pending;
use crate::inspect::verify::runs::Gather;
use crate::layout::ObjectName;
use crate::record::StoredBatch;
use crate::shard::changes::Entry;
use crate::shard::machine::SlotSummary;
use crate::shard::rows::Place;
use crate::shard::takeover::summarize;
use crate::wal::blocks::{Block, PlacedBlock, parse_body};
use crate::wal::format::{Header, ObjectKind};
use crate::wal::pipeline::IN_FLIGHT_MAX;

/// What a log must consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// The first slot that is not in it.
    end: Slot,
    /// Whether a fence must stand there.
    fenced: bool,
}

/// How far a log was read.
struct Walk<'r> {
    session: SessionId,
    /// The shards that it claimed, and those that it says it has acquired.
    shards: BTreeSet<ShardId>,
    replay: &'r mut Replay,
    /// Slots below this may have been deleted: a checkpoint makes up for them.
    covered: Slot,
    /// Whether a later owner has a checkpoint.
    later: bool,
    /// The next slot.
    next: Slot,
    /// The hash of the slot before it, if that was whole.
    hash: Option<ObjectHash>,
    checkpoints: Pending,
}

impl Verifier<'_, '_> {
    /// Reads the log and the checkpoints of an owner; `later` when there is a checkpoint of one after it.
    pub(super) async fn log(&mut self, owner: &Owner, later: bool, replay: &mut Replay) -> Result<()> {
        let session = owner.session;
        let Some(objects) = self.listing.sessions.get(&session).cloned() else {
            self.fault(ObjectName::SessionMeta(session).path(), "is missing: the session has claimed shards");
            return Ok(());
        };
        let checkpoints = self.checkpoints(session, &objects, (owner.end.is_some(), later)).await?;
        let bounds = bounds(&objects, owner.end, checkpoints.furthest());
        let hash = Some(ObjectHash::default());
        let shards = owner.shards.iter().copied().collect();
        let covered = if later { bounds.end } else { checkpoints.furthest() };
        let mut walk = Walk { session, shards, covered, later, replay, next: Slot(0), hash, checkpoints };
        self.compare_due(&mut walk).await?;
        let last = Slot(bounds.end.0 + u64::from(bounds.fenced));
        let within = objects.slots.iter().map(|(slot, _)| Slot(*slot)).take_while(|slot| *slot < last);
        let stores = self.stores.clone();
        let mut slots = futures::stream::iter(within.collect::<Vec<_>>())
            .map(|slot| {
                let stores = stores.clone();
                async move { Ok((slot, see(&stores, ObjectName::Slot(session, slot)).await?)) }
            })
            .buffered(self.options.in_flight.max(1));
        while let Some((slot, seen)) = slots.try_next().await? {
            self.missing(&mut walk, slot).await?;
            self.slot(&mut walk, bounds, slot, seen).await?;
        }
        self.missing(&mut walk, last).await?;
        self.not_reached(&walk);
        let loose: Vec<_> = objects.slots.iter().map(|(slot, _)| Slot(*slot)).filter(|slot| *slot >= last).collect();
        self.loose(session, &loose).await
    }

    /// The slots from the next one up to `slot` are not there: deleted, if a checkpoint makes up for them, else missing.
    async fn missing(&mut self, walk: &mut Walk<'_>, slot: Slot) -> Result<()> {
        while walk.next < slot {
            let checkpoint = walk.checkpoints.next().filter(|trim| *trim < slot).unwrap_or(slot);
            if walk.covered < checkpoint {
                walk.covered = walk.covered.max(self.covered_by_now(walk.session).await?);
            }
            let deleted = checkpoint.min(walk.covered).max(walk.next);
            self.totals.deleted += deleted.0 - walk.next.0;
            if deleted < checkpoint {
                let more = checkpoint.0 - deleted.0 - 1;
                let what = if more == 0 { "is missing".to_owned() } else { format!("is missing, and {more} after it") };
                self.fault(ObjectName::Slot(walk.session, deleted).path(), what);
            }
            walk.replay.lose();
            walk.hash = None;
            walk.next = checkpoint;
            self.compare_due(walk).await?;
        }
        Ok(())
    }

    async fn slot(&mut self, walk: &mut Walk<'_>, bounds: Bounds, slot: Slot, seen: Seen) -> Result<()> {
        let name = ObjectName::Slot(walk.session, slot);
        let broken_hash =
            if let Seen::Broken { header, .. } = &seen { header.map(|header| header.hash()) } else { None };
        walk.next = slot.next();
        let Some((header, body)) = self.judge(name, seen) else {
            walk.replay.lose();
            walk.hash = broken_hash;
            return self.compare_due(walk).await;
        };
        if header.kind == ObjectKind::Fence && slot < bounds.end {
            // A fence that came late, into the place of a slot that was deleted, is of no log.
            if slot < walk.covered {
                self.totals.deleted += 1;
                self.note(name.path(), "is a fence in the place of a slot that was deleted");
            } else {
                self.fault(name.path(), format!("is a fence, but its log ended at slot {}", bounds.end));
            }
            walk.replay.lose();
            walk.hash = None;
            return self.compare_due(walk).await;
        }
        let before = walk.hash.replace(header.hash());
        if slot == bounds.end {
            if header.kind != ObjectKind::Fence {
                self.fault(name.path(), "is not the fence that ends its log");
            }
            return Ok(());
        }
        if before.is_some_and(|before| before != header.previous) {
            self.fault(name.path(), "does not continue the slot before it: it names another hash");
        }
        self.totals.slots += 1;
        match self.summary(walk, &header, &body).await? {
            Ok(summary) => {
                self.check_cleanings(&summary, walk.replay).await?;
                self.apply(walk, &summary, header.hash())?;
            }
            Err(what) => {
                self.fault(name.path(), what);
                walk.replay.lose();
            }
        }
        self.compare_due(walk).await
    }

    /// What a slot holds, if every block in it is whole and in its place.
    async fn summary(
        &mut self,
        walk: &mut Walk<'_>,
        header: &Header,
        body: &Bytes,
    ) -> Result<std::result::Result<SlotSummary, String>> {
        let is_broken = |error: Error| Ok(Err(format!("is broken: {}", Chain(&error))));
        let blocks = match parse_body(body) {
            Ok(blocks) => blocks,
            Err(error) => return is_broken(error),
        };
        let summary = match summarize(header, blocks.clone(), &|_| true) {
            Ok(summary) => summary,
            Err(error) => return is_broken(error),
        };
        walk.shards.extend(self.check_acquired(walk.session, &summary.entries).await?);
        let mut found = Gather::default();
        for placed in &blocks {
            if let Block::Records { partition, batch } = &placed.block {
                found.add(*partition, batch, placed.position);
            }
        }
        let place = Place::Wal { session: header.session, slot: Slot(header.number) };
        walk.replay.runs.note(&place, header.object_len(), &found.runs)?;
        for entry in &summary.entries {
            if let Entry::Link(link) = entry {
                self.late_segment(link.segment, &walk.replay.runs).await?;
            }
            if let Entry::Cleaned(cleaned) = entry {
                for run in &cleaned.runs {
                    self.late_segment(run.segment, &walk.replay.runs).await?;
                }
            }
        }
        Ok(self.check_blocks(&blocks, &walk.shards).map(|()| summary))
    }

    fn check_blocks(&mut self, blocks: &[PlacedBlock], owned: &BTreeSet<ShardId>) -> std::result::Result<(), String> {
        let mut before: Option<(Partition, &StoredBatch)> = None;
        for placed in blocks {
            if !owned.contains(&placed.shard) {
                return Err(format!("has a block of shard {}, which its session did not own", placed.shard));
            }
            let Block::Records { partition, batch } = &placed.block else { continue };
            self.totals.batches += 1;
            self.totals.records += u64::from(batch.batch.count());
            if partition.shard(self.shards) != placed.shard {
                return Err(format!("has records of partition {partition} in shard {}", placed.shard));
            }
            if let Some((_, last)) = before.filter(|(of, _)| of == partition) {
                if batch.base != last.next() {
                    return Err(format!("puts offset {} after {} of partition {partition}", batch.base, last.next()));
                }
                if batch.timestamp < last.timestamp {
                    return Err(format!("goes back in time in partition {partition}"));
                }
            }
            before = Some((*partition, batch));
        }
        Ok(())
    }

    fn apply(&mut self, walk: &mut Walk<'_>, summary: &SlotSummary, hash: ObjectHash) -> Result<()> {
        let faults = walk.replay.apply(summary, hash)?;
        if !walk.replay.is_known() && faults.is_empty() {
            self.totals.unreplayed += 1;
        }
        let name = ObjectName::Slot(summary.session, summary.slot);
        for what in faults {
            self.fault(name.path(), what);
        }
        Ok(())
    }

    /// Compares the checkpoints that end before the next slot.
    async fn compare_due(&mut self, walk: &mut Walk<'_>) -> Result<()> {
        while let Some(checkpoint) = walk.checkpoints.take(walk.next) {
            let name = ObjectName::Checkpoint(walk.session, checkpoint.number);
            if walk.hash.is_some_and(|hash| hash != checkpoint.hash) {
                let text = format!("names another hash than that of the object before slot {}", checkpoint.trim);
                self.fault(name.path(), text);
            }
            let superseded = walk.later || walk.checkpoints.next().is_some();
            self.compare((walk.session, &walk.shards), (&checkpoint, superseded), walk.replay).await?;
            walk.hash.get_or_insert(checkpoint.hash);
        }
        Ok(())
    }

    /// Checkpoints of slots that the log does not have.
    fn not_reached(&mut self, walk: &Walk<'_>) {
        for checkpoint in walk.checkpoints.rest() {
            let name = ObjectName::Checkpoint(walk.session, checkpoint.number);
            let text = format!("covers the log up to slot {}, which ends at slot {}", checkpoint.trim, walk.next);
            self.fault(name.path(), text);
        }
    }

    /// What stands above the end of a log: it was never acknowledged, but it must be whole.
    async fn loose(&mut self, session: SessionId, slots: &[Slot]) -> Result<()> {
        for (name, seen) in self.see_all(slots.iter().map(|slot| ObjectName::Slot(session, *slot)).collect()).await? {
            // One that is put only now, by a session that goes on.
            if let Some((header, body)) = self.judge(name, seen)
                && header.kind == ObjectKind::Data
                && let Err(error) = parse_body(&body)
            {
                self.fault(name.path(), format!("is broken: {}", Chain(&error)));
            }
        }
        if let Some(first) = slots.first() {
            let text = format!(
                "stands above the end of its log, with {} after it: in flight, or never acknowledged",
                slots.len() - 1
            );
            self.note(ObjectName::Slot(session, *first).path(), text);
        }
        Ok(())
    }

    /// A session that no claim names.
    pub(super) async fn unused(&mut self, session: SessionId) -> Result<()> {
        let Some(objects) = self.listing.sessions.get(&session).cloned() else { return Ok(()) };
        let faults = self.totals.faults;
        let data: Vec<_> = objects.slots.iter().map(|(slot, _)| Slot(*slot)).collect();
        for (name, seen) in self.see_all(data.iter().map(|slot| ObjectName::Slot(session, *slot)).collect()).await? {
            let Some((header, body)) = self.judge(name, seen) else { continue };
            let blocks = if header.kind == ObjectKind::Data { parse_body(&body) } else { Ok(Vec::new()) };
            match blocks.and_then(|blocks| summarize(&header, blocks, &|_| true)) {
                Ok(summary) => drop(self.check_acquired(session, &summary.entries).await?),
                Err(error) => self.fault(name.path(), format!("is broken: {}", Chain(&error))),
            }
        }
        self.checkpoints(session, &objects, (false, true)).await?;
        let path = ObjectName::SessionMeta(session).path();
        if data.is_empty() {
            self.note(path, "belongs to a session that never claimed a shard");
        } else if self.totals.faults > faults {
            self.note(path, format!("belongs to a session that no claim names, with {} slots", data.len()));
        }
        Ok(())
    }
}

/// What a log must consist of, by its objects, by the claim after it and by the checkpoint that reaches furthest.
///
/// Without a fence the log may go on: objects that stand above the first gap are slots in flight, or were when the session
/// ended, if they are so few. More of them show that a slot is missing.
fn bounds(objects: &SessionObjects, named: Option<Slot>, covered: Slot) -> Bounds {
    if let Some(end) = named.or_else(|| objects.fence(covered)) {
        return Bounds { end, fenced: true };
    }
    let end = objects.end(covered);
    let above = objects.slots.iter().filter(|(slot, _)| *slot > end.0).count();
    let last = objects.slots.last().map_or(0, |(slot, _)| slot + 1);
    Bounds { end: if above >= IN_FLIGHT_MAX { Slot(last) } else { end }, fenced: false }
}
