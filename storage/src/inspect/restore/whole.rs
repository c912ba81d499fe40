//! Whether everything that a state names is there; and, when it is not, from which time on it is.

use std::collections::BTreeSet;

use super::Copy;
use super::cut::{Cut, time_of};
use crate::error::{Error, Kind, Result};
use crate::ids::{SegmentId, SessionId, Slot, Timestamp};
use crate::inspect::claims::Owner;
use crate::inspect::listing::{Listing, is_fence};
use crate::inspect::state::State;
use crate::layout::{self, ObjectName};
use crate::shard::checkpoint;
use crate::shard::rows::{IndexRow, Place};
use crate::slot::read_object;
use crate::state::StateStore;
use crate::wal::blocks::parse_body;
use crate::wal::format::Header;

/// What a state names.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) segments: BTreeSet<SegmentId>,
    /// The first object that is not there, and what is in it.
    pub(super) lost: Option<String>,
}

/// Looks up every index row of a state in a listing.
///
/// # Errors
/// `Corrupt` when the state is broken.
pub(super) fn named(state: &dyn StateStore, listing: &Listing) -> Result<Named> {
    let (from, to) = layout::index_range();
    let mut named = Named::default();
    for row in state.snapshot() {
        let (key, value) = row?;
        if key < from || key >= to {
            continue;
        }
        let row = IndexRow::parse(value)?;
        let there = match row.place {
            Place::Wal { session, slot } => {
                let slots = listing.sessions.get(&session).map(|objects| &objects.slots);
                slots.is_some_and(|slots| slots.binary_search(&(slot.0, row.object_len)).is_ok())
            }
            Place::Segment { segment, .. } => {
                named.segments.insert(segment);
                listing.segments.get(&segment) == Some(&row.object_len)
            }
        };
        if !there && named.lost.is_none() {
            named.lost =
                Some(format!("object {}, which the {} names, is not there", row.object(), layout::row_name(&key)));
        }
    }
    Ok(named)
}

impl Copy<'_, '_> {
    /// What the state of the copy names.
    pub(super) fn named(&self, state: &State, listing: &Listing) -> Result<Named> {
        named(&*state.state, listing)
    }

    /// The error when what is needed for the time of the cut is gone: says from when on everything is there.
    pub(super) async fn gone(&self, owners: &[Owner], cut: &Cut, why: &str) -> Error {
        let text = match self.whole_from(owners, cut).await {
            Ok(Some(time)) => format!("a time from {time} ms since the Unix epoch on can be restored"),
            Ok(None) => "only everything can be restored, without a time".to_owned(),
            Err(error) => return error,
        };
        Error::new(Kind::NotFound, format!("what the bucket held at that time is gone in part: {why}; {text}"))
    }

    /// The time of the first checkpoint after the cut for which everything is there.
    async fn whole_from(&self, owners: &[Owner], cut: &Cut) -> Result<Option<Timestamp>> {
        for (at, owner) in owners.iter().enumerate().skip(cut.owner) {
            let Some(objects) = self.listing.sessions.get(&owner.session) else { continue };
            for (number, _) in objects.checkpoints.iter().filter(|(_, size)| !is_fence(*size)) {
                let Some(next) = self.ends_at(owner.session, Slot(*number)).await? else { continue };
                if at == cut.owner && next <= cut.end {
                    continue;
                }
                let loaded = self.options.scratch.state()?;
                let stores = &self.bucket.stores;
                match checkpoint::load(stores, owner.session, Slot(*number), loaded.share(), |_| true).await {
                    Err(error) if error.kind() == Kind::Corrupt => continue,
                    rows => drop(rows?),
                }
                if named(&*loaded, self.listing)?.lost.is_none()
                    && let Some(time) = self.time_from(owner.session, next).await?
                {
                    return Ok(Some(time));
                }
            }
        }
        Ok(None)
    }

    /// The time of the slot before `next`, or of the first one after it that is there.
    async fn time_from(&self, session: SessionId, next: Slot) -> Result<Option<Timestamp>> {
        let Some(objects) = self.listing.sessions.get(&session) else { return Ok(None) };
        let from = objects.slots.iter().filter(|(slot, size)| slot + 1 >= next.0 && !is_fence(*size));
        for (slot, _) in from {
            let name = ObjectName::Slot(session, Slot(*slot));
            let Some(object) = read_object(&self.bucket.stores, &name.path()).await? else { continue };
            let (_, body) = Header::parse_object(&object)?;
            if let Some(time) = time_of(&parse_body(&body)?) {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }
}
