//! The bucket that a copy goes to: empty, or left by the same copy before it was cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cut::{Cut, Reached, time_of};
use super::{CopyEvent, Tell};
use crate::error::{Error, Kind, Result};
use crate::ids::{SessionId, Slot, Timestamp};
use crate::inspect::claims::Owner;
use crate::inspect::listing::{Listing, is_fence};
use crate::layout::ObjectName;
use crate::metrics::{Health, StorageMetrics};
use crate::slot::{self, Created, Object, read_header, read_object};
use crate::store::ObjectStores;
use crate::wal::blocks::parse_body;
use crate::wal::fence;
use crate::wal::format::Header;

const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// Where an earlier run has ended the copy, which it left unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    session: SessionId,
    end: Slot,
    /// The time of the slot before, which a run that is to go on must be for.
    at: Option<Timestamp>,
}

/// Where the copy goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) stores: ObjectStores,
    health: Arc<Health>,
    /// What was there at the beginning, with its size.
    there: BTreeMap<ObjectName, u64>,
    ended: Option<Ended>,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) found: u64,
}

/// An object that is in the copy now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Put {
    bytes: u64,
    found: bool,
}

impl Target {
    /// Looks what is there.
    ///
    /// # Errors
    /// `Invalid` when anything is there that a copy of `source` would not have put there.
    pub(super) async fn open(
        stores: &ObjectStores,
        (source_stores, source): (&ObjectStores, &Listing),
        owners: &[Owner],
    ) -> Result<Self> {
        let listing = Listing::read(stores).await?;
        if listing.has_cluster {
            let text =
                format!("store {} holds a cluster already; if an earlier run put it there, it is complete", stores.url);
            return Err(Error::new(Kind::Invalid, text));
        }
        if let Some(name) = listing.foreign.first() {
            return Err(not_empty(stores, name));
        }
        let there: BTreeMap<_, _> = objects(&listing).collect();
        let known: BTreeMap<_, _> = objects(source).collect();
        let other = there.iter().find(|(name, size)| known.get(name) != Some(size) && !is_fence(**size));
        if let Some((name, _)) = other {
            return Err(not_empty(stores, name.path().as_ref()));
        }
        let ended = ended((source_stores, stores), &listing, owners).await?;
        let health = Arc::new(Health::new(StorageMetrics::default()));
        Ok(Self { stores: stores.clone(), health, there, ended, objects: 0, bytes: 0, found: 0 })
    }

    /// Whether an earlier run has ended the copy after what is `reached` now. A run for that very time goes on with it, and so
    /// adds nothing of the same millisecond that was put since.
    ///
    /// # Errors
    /// `Invalid` when it has, and this run is for another time.
    pub(super) fn is_ended(&self, reached: &Reached, at: Option<Timestamp>) -> Result<bool> {
        let Some(cut) = reached.cut else { return Ok(false) };
        match self.ended {
            Some(Ended { session, end, .. }) if (session, end) == (cut.session, cut.end) => {
                if at == Some(cut.at) {
                    Ok(true)
                } else {
                    Err(self.other_time("a fence"))
                }
            }
            Some(_) | None => Ok(false),
        }
    }

    fn other_time(&self, what: &str) -> Error {
        let at = self.ended.and_then(|ended| ended.at);
        let at = at.map(|at| format!(", {at} ms since the Unix epoch")).unwrap_or_default();
        let text = format!(
            "store {} holds {what}, which an unfinished run for another time has left: give the time of that run{at}, or \
             empty the store and begin again",
            self.stores.url
        );
        Error::new(Kind::Invalid, text)
    }

    /// Creates an object in the copy, unless it is there already. Cancel safe: it may be there or not.
    ///
    /// # Errors
    /// `Invalid` when another object has the name, `Corrupt` when it is broken, `Unavailable` or `Unknown` when the store
    /// does not answer.
    pub(super) fn create(&self, name: ObjectName, bytes: Bytes) -> impl Future<Output = Result<Put>> + use<> {
        let (stores, health) = (self.stores.clone(), Arc::clone(&self.health));
        let there = self.there.get(&name).copied();
        async move {
            let len = bytes.len() as u64;
            let object = Object::copied(name.path(), &bytes)?;
            if there == Some(len) && read_header(&stores, &object.path).await?.as_ref() == Some(&object.header) {
                return Ok(Put { bytes: len, found: true });
            }
            match slot::create(&stores, &object, &health, Some(GIVE_UP_AFTER)).await? {
                Created::Ours => Ok(Put { bytes: len, found: false }),
                Created::Taken(_) => Err(not_empty(&stores, name.path().as_ref())),
            }
        }
    }

    /// Counts an object in.
    pub(super) fn note(&mut self, put: Put, tell: &mut Tell<'_>) {
        self.objects += 1;
        self.bytes += put.bytes;
        self.found += u64::from(put.found);
        tell(CopyEvent::Copied(put.bytes));
    }

    /// What an earlier run has left must be part of this one too, as far as `looked_at` holds.
    ///
    /// # Errors
    /// `Invalid` when it is not: that run was for another time.
    pub(super) fn refuse_unplanned(
        &self,
        planned: &BTreeSet<ObjectName>,
        cut: &Cut,
        looked_at: impl Fn(&ObjectName) -> bool,
    ) -> Result<()> {
        let is_own_fence = |name: &ObjectName, size: u64| {
            let of_cut = match name {
                ObjectName::Slot(session, slot) => *session == cut.session && *slot == cut.end,
                ObjectName::Checkpoint(session, _) => *session == cut.session,
                ObjectName::Cluster
                | ObjectName::SessionMeta(_)
                | ObjectName::Probe(_)
                | ObjectName::Segment(_)
                | ObjectName::Claim(..) => false,
            };
            of_cut && is_fence(size)
        };
        let other = self
            .there
            .iter()
            .find(|(name, size)| looked_at(name) && !planned.contains(name) && !is_own_fence(name, **size));
        match other {
            None => Ok(()),
            Some((name, _)) => Err(self.other_time(name.path().as_ref())),
        }
    }

    /// Ends the last log of the copy where it is cut.
    ///
    /// # Errors
    /// `Corrupt` when it ends somewhere else, `Unavailable` or `Unknown` when the store does not answer.
    pub(super) async fn fence(&self, session: SessionId, end: Slot, author: SessionId) -> Result<()> {
        let log = fence::fence(&self.stores, &self.health, session, author).await?;
        if log.end == end {
            return Ok(());
        }
        let text = format!("the copy of the log of session {session} ends at slot {} instead of {end}", log.end);
        Err(Error::new(Kind::Corrupt, text))
    }
}

/// Where the last log of an unfinished copy ends, if it has a fence of its own already.
async fn ended(
    (source, stores): (&ObjectStores, &ObjectStores),
    listing: &Listing,
    owners: &[Owner],
) -> Result<Option<Ended>> {
    let last = owners.iter().rev().find_map(|owner| Some((owner.session, listing.sessions.get(&owner.session)?)));
    let Some((session, objects)) = last else { return Ok(None) };
    let last_slot = objects.slots.iter().rev().find(|(_, size)| !is_fence(*size)).map(|(slot, _)| Slot(*slot));
    let mut has_own_fence = false;
    let slots = objects.slots.iter().map(|(slot, size)| (ObjectName::Slot(session, Slot(*slot)), size));
    let checkpoints = objects.checkpoints.iter().map(|(at, size)| (ObjectName::Checkpoint(session, Slot(*at)), size));
    for (name, _) in slots.chain(checkpoints).filter(|(_, size)| is_fence(**size)) {
        has_own_fence |= read_header(stores, &name.path()).await? != read_header(source, &name.path()).await?;
    }
    let Some(last_slot) = last_slot.filter(|_| has_own_fence) else { return Ok(None) };
    let at = match read_object(stores, &ObjectName::Slot(session, last_slot).path()).await? {
        Some(object) => time_of(&parse_body(&Header::parse_object(&object)?.1)?),
        None => None,
    };
    Ok(Some(Ended { session, end: last_slot.next(), at }))
}

fn objects(listing: &Listing) -> impl Iterator<Item = (ObjectName, u64)> {
    let of_sessions = listing.sessions.iter().flat_map(|(session, objects)| {
        let slots = objects.slots.iter().map(|(slot, size)| (ObjectName::Slot(*session, Slot(*slot)), *size));
        let checkpoints = objects.checkpoints.iter();
        let checkpoints = checkpoints.map(|(number, size)| (ObjectName::Checkpoint(*session, Slot(*number)), *size));
        slots.chain(checkpoints)
    });
    let segments = listing.segments.iter().map(|(segment, size)| (ObjectName::Segment(*segment), *size));
    of_sessions.chain(segments)
}

fn not_empty(stores: &ObjectStores, name: &str) -> Error {
    let text = format!("store {} is not empty: it holds {name}; restore into an empty one", stores.url);
    Error::new(Kind::Invalid, text)
}
