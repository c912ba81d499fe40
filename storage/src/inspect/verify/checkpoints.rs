//! Checkpoints: each is whole, and its rows are those that the log leads to.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::Verifier;
use super::replay::Replay;
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::{SessionId, ShardId, Slot};
use crate::inspect::listing::{SessionObjects, is_fence};
use crate::inspect::scratch::ScratchState;
use crate::layout::{self, ObjectName};
use crate::shard::checkpoint::{self, Part};
use crate::shard::claim::{self, CATALOG_SHARD};
use crate::shard::rows::{IndexRow, PartitionRow, Place, Row};
use crate::slot::{read_header, read_object};
use crate::state::{Snapshot, StateRow};
use crate::wal::fence::CheckpointRef;
use crate::wal::format::{Header, ObjectKind};
use crate::wal::reader;

/// So many differing rows of one checkpoint are named; more are counted.
const NAMED_MAX: usize = 3;
/// The newest checkpoint of a session may be deleted before it is read, because there is a newer one, so many times.
const LOOKS_MAX: usize = 10;

/// Checkpoints of a log that were not compared yet, by the slot that they end before.
#[derive(Debug, Default)]
pub(super) struct Pending(VecDeque<CheckpointRef>);

impl Pending {
    /// The next one if it ends before `slot`.
    pub(super) fn take(&mut self, slot: Slot) -> Option<CheckpointRef> {
        self.0.pop_front_if(|first| first.trim <= slot)
    }

    /// Where the next one ends.
    pub(super) fn next(&self) -> Option<Slot> {
        self.0.front().map(|first| first.trim)
    }

    /// The first slot that is in none.
    pub(super) fn furthest(&self) -> Slot {
        self.0.iter().map(|checkpoint| checkpoint.trim).max().unwrap_or_default()
    }

    pub(super) fn rest(&self) -> impl Iterator<Item = &CheckpointRef> {
        self.0.iter()
    }
}

/// How two states differ.
#[derive(Debug, Default)]
struct Difference {
    rows: u64,
    named: Vec<String>,
}

impl Verifier<'_, '_> {
    /// Reads the checkpoints of a session; those of one that was ended have a fence. One that is not there may have been
    /// deleted, if there is a later one, of this session or, with `later`, of another.
    pub(super) async fn checkpoints(
        &mut self,
        session: SessionId,
        objects: &SessionObjects,
        (ended, later): (bool, bool),
    ) -> Result<Pending> {
        let mut pending = Pending::default();
        let newest = objects.newest_checkpoint().map(|(number, _)| number.0);
        let (mut next, mut fenced) = (Slot(0), false);
        for (number, size) in &objects.checkpoints {
            let name = ObjectName::Checkpoint(session, Slot(*number));
            if next.0 < *number && (later || newest.is_some_and(|newest| newest >= *number)) {
                self.totals.deleted += number - next.0;
            } else if next.0 < *number {
                self.fault(ObjectName::Checkpoint(session, Slot(number - 1)).path(), "is missing");
            }
            next = Slot(*number).next();
            // A fence that came late, into the place of a checkpoint that was deleted, is of no log: the last one counts.
            fenced = is_fence(*size);
            let Some((header, body)) = self.whole(name).await? else { continue };
            if header.kind == ObjectKind::CheckpointFence {
                continue;
            }
            self.totals.checkpoints += 1;
            match checkpoint::parse_position(&body) {
                Some((trim, hash)) => pending.0.push_back(CheckpointRef { number: Slot(*number), trim, hash }),
                None => self.fault(name.path(), "is cut short"),
            }
        }
        if ended && !fenced {
            self.fault(
                ObjectName::Checkpoint(session, next).path(),
                "is missing: the session was ended, so its checkpoints were",
            );
        }
        let goes_back = pending.0.iter().zip(pending.0.iter().skip(1)).find(|(one, two)| two.trim < one.trim);
        if let Some((_, checkpoint)) = goes_back {
            let name = ObjectName::Checkpoint(session, checkpoint.number);
            self.fault(name.path(), "covers less than the one before it");
        }
        pending.0.make_contiguous().sort_by_key(|checkpoint| (checkpoint.trim, checkpoint.number));
        Ok(pending)
    }

    /// Compares a checkpoint with the state of the log, or goes on from it where that is not known.
    pub(super) async fn compare(
        &mut self,
        (session, shards): (SessionId, &BTreeSet<ShardId>),
        (checkpoint, superseded): (&CheckpointRef, bool),
        replay: &mut Replay,
    ) -> Result<()> {
        let name = ObjectName::Checkpoint(session, checkpoint.number);
        let loaded = match self.rows(session, checkpoint.number).await {
            Ok(loaded) => loaded,
            // What it builds on may be deleted when nothing builds on it any more.
            Err(error)
                if self.lacks_parts(&error, session, checkpoint.number).await?
                    && (superseded || self.has_gone_on(session, checkpoint.number).await?) =>
            {
                return Ok(());
            }
            Err(error) if error.kind() == Kind::Corrupt => {
                self.fault(name.path(), format!("is broken: {}", Chain(&error)));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (ours, theirs) = (replay.state.share().snapshot(), loaded.share().snapshot());
        let (shards, known) = (shards.clone(), replay.is_known());
        let of = self.shards;
        let compared = tokio::task::spawn_blocking(move || {
            let owned = move |key: &[u8]| layout::shard_of(key, of).is_none_or(|shard| shards.contains(&shard));
            if known { difference(ours, theirs, &owned) } else { difference_of_nothing(theirs) }
        });
        let compared = compared.await;
        let difference = compared
            .map_err(|error| Error::new(Kind::Closed, "comparing a checkpoint was cut off").with_source(error))??;
        if difference.rows > 0 {
            let named = difference.named.join("; ");
            let text = format!("differs from its log in {} rows: {named}", difference.rows);
            self.fault(name.path(), text);
        }
        if known {
            self.totals.compared += 1;
        } else if difference.rows == 0 {
            replay.adopt(loaded);
        }
        Ok(())
    }

    /// Whether a checkpoint cannot be loaded because one that it builds on is deleted.
    async fn lacks_parts(&self, error: &Error, session: SessionId, number: Slot) -> Result<bool> {
        if error.kind() != Kind::Corrupt {
            return Ok(false);
        }
        let parts = match checkpoint::parts_of(&self.stores, session, number).await {
            Err(error) if error.kind() == Kind::Corrupt => return Ok(false),
            parts => parts?,
        };
        for part in parts {
            let header = read_header(&self.stores, &layout::checkpoint(part.session, part.number)).await?;
            if header.is_none_or(|header| Part::of(&header) != part) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Slots of a session below this may have been deleted since the listing: it, or a later owner, has a checkpoint now that
    /// makes up for them.
    pub(super) async fn covered_by_now(&self, session: SessionId) -> Result<Slot> {
        for _ in 0..LOOKS_MAX {
            let owner = match claim::latest(&self.stores, CATALOG_SHARD).await {
                Ok(claim) => claim.map_or(session, |claim| claim.owner),
                // That it is broken is told elsewhere.
                Err(error) if error.kind() == Kind::Corrupt => session,
                Err(error) => return Err(error),
            };
            let now = reader::list(&self.stores, &layout::checkpoint_prefix(owner), 0).await?;
            let Some((newest, _)) = now.iter().rev().find(|(_, size)| !is_fence(*size)) else { return Ok(Slot(0)) };
            if owner != session {
                return Ok(Slot(u64::MAX));
            }
            // One that is gone again has a successor.
            let Some(object) = read_object(&self.stores, &layout::checkpoint(session, Slot(*newest))).await? else {
                continue;
            };
            let position = Header::parse_object(&object).ok().and_then(|(_, body)| checkpoint::parse_position(&body));
            return Ok(position.map_or(Slot(0), |(trim, _)| trim));
        }
        Ok(Slot(0))
    }

    /// Whether a session has come to a later checkpoint, or to its end, since the listing.
    async fn has_gone_on(&self, session: SessionId, number: Slot) -> Result<bool> {
        let now = reader::list(&self.stores, &layout::checkpoint_prefix(session), number.0 + 1).await?;
        Ok(!now.is_empty())
    }

    /// The rows of a checkpoint. One that is broken is read a second time before it counts.
    async fn rows(&self, session: SessionId, number: Slot) -> Result<ScratchState> {
        let load = async || {
            let loaded = self.options.scratch.state()?;
            checkpoint::load(&self.stores, session, number, loaded.share(), |_| true).await.map(|_| loaded)
        };
        match load().await {
            Err(error) if error.kind() == Kind::Corrupt => load().await,
            loaded => loaded,
        }
    }

    /// Every index row of the state points at a run that is there and is what the row says.
    pub(super) async fn index_rows(&mut self, replay: &Replay) -> Result<()> {
        if !replay.is_known() {
            let text =
                "is the cluster whose state at the end is not known: no checkpoint follows what is lost or deleted";
            self.note(ObjectName::Cluster.path(), text);
            return Ok(());
        }
        let (from, to) = layout::index_range();
        for row in replay.state.share().snapshot() {
            let (key, value) = row?;
            let named = layout::partition_of(&key).zip(layout::index_base(&key));
            let Some(named) = named.filter(|_| key >= from && key < to) else { continue };
            let row = IndexRow::parse(value)?;
            if let Place::Segment { segment, .. } = row.place {
                self.late_segment(segment, &replay.runs).await?;
            }
            let name = match row.place {
                Place::Wal { session, slot } => ObjectName::Slot(session, slot),
                Place::Segment { segment, .. } => ObjectName::Segment(segment),
            };
            if let Some(what) = replay.runs.wrong(named, &row)? {
                let row = layout::row_name(&key);
                let what = if self.is_there(name) {
                    format!("{what} the {row} says of it")
                } else {
                    format!("is missing, and the {row} names it")
                };
                self.wrong_row(name, what);
            }
        }
        Ok(())
    }

    fn is_there(&self, name: ObjectName) -> bool {
        match name {
            ObjectName::Slot(session, slot) => {
                let slots = self.listing.sessions.get(&session).map(|objects| &objects.slots);
                slots.is_some_and(|slots| slots.binary_search_by_key(&slot.0, |(slot, _)| *slot).is_ok())
            }
            ObjectName::Segment(segment) => self.listing.segments.contains_key(&segment),
            ObjectName::Cluster
            | ObjectName::SessionMeta(_)
            | ObjectName::Probe(_)
            | ObjectName::Checkpoint(..)
            | ObjectName::Claim(..) => true,
        }
    }

    /// Tells of an object that is not what an index row says of it, once.
    fn wrong_row(&mut self, name: ObjectName, what: String) {
        if !self.gone.contains(&name) && self.wrong.len() < WRONG_MAX && self.wrong.insert(name) {
            self.fault(name.path(), what);
        }
    }
}

/// So many objects are named because of index rows.
const WRONG_MAX: usize = 1000;

/// Compares two states row by row, as far as `owned` holds.
fn difference(ours: Snapshot, theirs: Snapshot, owned: &dyn Fn(&[u8]) -> bool) -> Result<Difference> {
    let wanted =
        |row: &Result<StateRow>| row.as_ref().map_or(true, |(key, _)| layout::is_checkpointed(key) && owned(key));
    let (mut ours, mut theirs) = (ours.filter(wanted), theirs.filter(wanted));
    let (mut our, mut their) = (ours.next().transpose()?, theirs.next().transpose()?);
    let mut found = Difference::default();
    loop {
        let order = match (&our, &their) {
            (None, None) => return Ok(found),
            (Some((key, _)), None) => found.add(key, "is not in it", Ordering::Less),
            (None, Some((key, _))) => found.add(key, "is only in it", Ordering::Greater),
            (Some((our, _)), Some((their, _))) if our < their => found.add(our, "is not in it", Ordering::Less),
            (Some((our, _)), Some((their, _))) if our > their => found.add(their, "is only in it", Ordering::Greater),
            (Some((key, our)), Some((_, their))) if !mean_the_same(key, our, their) => {
                found.add(key, "has another value", Ordering::Equal)
            }
            (Some(_), Some(_)) => Ordering::Equal,
        };
        if order != Ordering::Greater {
            our = ours.next().transpose()?;
        }
        if order != Ordering::Less {
            their = theirs.next().transpose()?;
        }
    }
}

/// Whether the value of a row in a checkpoint means what the log leads to. A build from before retention did not say where a
/// run stands among all of its partition, and counted only what is kept.
fn mean_the_same(key: &Bytes, our: &Bytes, their: &Bytes) -> bool {
    if our == their {
        return true;
    }
    let (from, to) = layout::index_range();
    if *key >= from && *key < to {
        let (our, their) = (IndexRow::parse(our.clone()), IndexRow::parse(their.clone()));
        return our.is_ok_and(|our| their.is_ok_and(|their| their == IndexRow { span: None, ..our }));
    }
    if layout::partition_of(key).is_some_and(|partition| layout::partition_key(partition) == *key) {
        let (our, their) = (PartitionRow::parse(our.clone()), PartitionRow::parse(their.clone()));
        return our.is_ok_and(|our| their.is_ok_and(|their| our == their));
    }
    false
}

/// Rows of a checkpoint that nothing is known to compare with: only their kinds are checked.
fn difference_of_nothing(rows: Snapshot) -> Result<Difference> {
    let mut found = Difference::default();
    for row in rows {
        let (key, _) = row?;
        if layout::shard_of(&key, 1) != Some(ShardId(0)) {
            found.add(&key, "is not known", Ordering::Greater);
        }
    }
    Ok(found)
}

impl Difference {
    fn add(&mut self, key: &Bytes, what: &str, order: Ordering) -> Ordering {
        self.rows += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("{} {what}", layout::row_name(key)));
        }
        order
    }
}
