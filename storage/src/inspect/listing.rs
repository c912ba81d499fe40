//! What stands in a bucket by name, at one moment. Costs 16 bytes of memory per slot and checkpoint, and some more per segment.
//!
//! The claims are listed first: whatever a claim names was there before it, so the second listing has it too.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::ObjectStore;

use crate::error::Result;
use crate::ids::{Epoch, SegmentId, SessionId, ShardId, Slot};
use crate::layout::{self, ObjectName};
use crate::slot::unreadable;
use crate::store::ObjectStores;
use crate::wal::format::HEADER_BYTES;

/// Names that are not of the log are kept up to this number; more are only counted.
const FOREIGN_NAMES_MAX: usize = 1000;

/// Number and size of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The objects of one session, by number, with their sizes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionObjects {
    pub(crate) has_meta: bool,
    pub(crate) slots: Vec<(u64, u64)>,
    pub(crate) checkpoints: Vec<(u64, u64)>,
}

/// Everything in a bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    pub(crate) has_cluster: bool,
    pub(crate) sessions: BTreeMap<SessionId, SessionObjects>,
    pub(crate) claims: BTreeMap<ShardId, Vec<Epoch>>,
    /// Segments with their sizes.
    pub(crate) segments: BTreeMap<SegmentId, u64>,
    /// Names that are not of the log.
    pub(crate) foreign: Vec<String>,
    pub(crate) usage: BTreeMap<&'static str, Usage>,
}

/// What objects that are not of the log are called.
pub(crate) const FOREIGN: &str = "foreign";

impl Listing {
    /// Lists everything.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be listed.
    pub(crate) async fn read(stores: &ObjectStores) -> Result<Self> {
        let mut listing = Self::default();
        let prefix = layout::shards_prefix();
        let mut shards = stores.read.list(Some(&prefix));
        while let Some(object) = shards.try_next().await.map_err(|error| unreadable(&prefix, error))? {
            if let Some(ObjectName::Claim(shard, epoch)) = ObjectName::parse(&object.location) {
                listing.claims.entry(shard).or_default().push(epoch);
            }
        }
        let mut all = stores.read.list(None);
        while let Some(object) = all.try_next().await.map_err(|error| unreadable(&layout::cluster(), error))? {
            let name = ObjectName::parse(&object.location);
            let purpose = name.map_or(FOREIGN, |_| layout::purpose(object.location.as_ref()));
            let usage = listing.usage.entry(purpose).or_default();
            usage.objects += 1;
            usage.bytes += object.size;
            match name {
                None if listing.foreign.len() < FOREIGN_NAMES_MAX => listing.foreign.push(object.location.to_string()),
                None | Some(ObjectName::Probe(_) | ObjectName::Claim(..)) => {}
                Some(ObjectName::Segment(segment)) => drop(listing.segments.insert(segment, object.size)),
                Some(ObjectName::Cluster) => listing.has_cluster = true,
                Some(ObjectName::SessionMeta(session)) => listing.session(session).has_meta = true,
                Some(ObjectName::Slot(session, slot)) => listing.session(session).slots.push((slot.0, object.size)),
                Some(ObjectName::Checkpoint(session, number)) => {
                    listing.session(session).checkpoints.push((number.0, object.size));
                }
            }
        }
        listing.claims.values_mut().for_each(|epochs| epochs.sort_unstable());
        for session in listing.sessions.values_mut() {
            session.slots.sort_unstable();
            session.checkpoints.sort_unstable();
        }
        Ok(listing)
    }

    /// Everything together.
    pub(crate) fn total(&self) -> Usage {
        self.usage.values().fold(Usage::default(), |total, usage| Usage {
            objects: total.objects + usage.objects,
            bytes: total.bytes + usage.bytes,
        })
    }

    fn session(&mut self, session: SessionId) -> &mut SessionObjects {
        self.sessions.entry(session).or_default()
    }
}

impl SessionObjects {
    /// The slot of the first fence from `from` on, if there is one. Only a fence has no body. Below a checkpoint a late fence
    /// may stand in the place of a slot that was deleted.
    pub(crate) fn fence(&self, from: Slot) -> Option<Slot> {
        let fence = self.slots.iter().find(|(slot, size)| *slot >= from.0 && is_fence(*size));
        fence.map(|(slot, _)| Slot(*slot))
    }

    /// The newest checkpoint.
    pub(crate) fn newest_checkpoint(&self) -> Option<(Slot, u64)> {
        let last = self.checkpoints.iter().rev().find(|(_, size)| !is_fence(*size));
        last.map(|(number, size)| (Slot(*number), *size))
    }

    /// The first slot from `from` on that is a fence or not there.
    pub(crate) fn end(&self, from: Slot) -> Slot {
        let mut next = from.0;
        for (slot, size) in self.slots.iter().filter(|(slot, _)| *slot >= from.0) {
            if *slot != next || is_fence(*size) {
                break;
            }
            next += 1;
        }
        Slot(next)
    }
}

/// Whether an object of a log or among checkpoints is a fence, by its size.
pub(crate) fn is_fence(size: u64) -> bool {
    size == HEADER_BYTES as u64
}
