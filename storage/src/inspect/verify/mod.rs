//! Reads everything in a bucket and names what is wrong: a fault per line, with the object that it is in.
//!
//! The logs are replayed in the order of the claims by the code of a start, and every checkpoint is compared with the state
//! that they lead to. Memory: the listing, a few slots, one checkpoint; the state is in a scratch place. After a fault
//! whose slot is lost the state is not known until the next checkpoint; till then slots are checked by themselves only, and
//! counted. Segments are read first, one at a time.

mod checkpoints;
mod claims;
mod cleanings;
mod logs;
mod objects;
mod replay;
mod runs;
mod segments;

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::error::Result;
use crate::ids::{ClusterId, SegmentId, SessionId, Slot};
use crate::inspect::claims::{Claims, Owner};
use crate::inspect::listing::{Listing, SessionObjects, is_fence};
use crate::inspect::no_cluster;
use crate::inspect::overview::parse_meta;
use crate::inspect::read_only::read_only;
use crate::inspect::scratch::Scratch;
use crate::inspect::verify::objects::{Seen, see};
use crate::inspect::verify::replay::Replay;
use crate::layout::{self, ObjectName};
use crate::open::cluster_of;
use crate::store::ObjectStores;

/// How a bucket is verified.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Where states are rebuilt.
    pub scratch: Scratch,
    /// Most requests under way at a time.
    pub in_flight: usize,
}

/// What happens while a bucket is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// So much there is to be read.
    Listed {
        /// Objects.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// So many bytes more were read.
    Read(u64),
    /// Something is wrong, or worth knowing.
    Found(Finding),
}

/// Something that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which of both.
    pub severity: Severity,
    /// The object.
    pub object: String,
    /// What it is.
    pub what: String,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something that must hold does not.
    Fault,
    /// Nothing depends on it.
    Note,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sessions.
    pub sessions: u64,
    /// Claims.
    pub claims: u64,
    /// Slots with data.
    pub slots: u64,
    /// Batches in them.
    pub batches: u64,
    /// Records in these.
    pub records: u64,
    /// Segments.
    pub segments: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Checkpoints whose rows were compared with what the logs lead to.
    pub compared: u64,
    /// Slots that were checked by themselves only, because something before them is lost or deleted.
    pub unreplayed: u64,
    /// Slots and checkpoints that are not there any more, and that a later checkpoint makes up for.
    pub deleted: u64,
    /// Faults.
    pub faults: u64,
    /// Notes.
    pub notes: u64,
}

/// Is told what happens.
type Tell<'a> = dyn FnMut(Event) + Send + 'a;

/// Reads everything and tells what is wrong. Cancel safe: nothing is written.
///
/// # Errors
/// `NotFound` when there is no cluster, `Unavailable` when the store cannot be read, `Invalid` or `Corrupt` when the
/// scratch directory cannot be used. What is wrong with the bucket is no error.
pub async fn verify(stores: &ObjectStores, options: &VerifyOptions, tell: &mut Tell<'_>) -> Result<Totals> {
    let stores = read_only(stores);
    let listing = Listing::read(&stores).await?;
    if !listing.has_cluster && listing.sessions.is_empty() && listing.claims.is_empty() {
        return Err(no_cluster(&stores));
    }
    let total = listing.total();
    tell(Event::Listed { objects: total.objects, bytes: total.bytes });
    let mut verifier = Verifier {
        stores,
        options,
        listing,
        claims: Claims::default(),
        cluster: ClusterId(ulid::Ulid::nil()),
        shards: 0,
        totals: Totals::default(),
        gone: BTreeSet::new(),
        late: BTreeSet::new(),
        wrong: BTreeSet::new(),
        tell,
    };
    verifier.run().await?;
    Ok(verifier.totals)
}

struct Verifier<'a, 't> {
    stores: ObjectStores,
    options: &'a VerifyOptions,
    listing: Listing,
    claims: Claims,
    cluster: ClusterId,
    shards: u16,
    totals: Totals,
    /// Listed objects that were deleted before they were read.
    gone: BTreeSet<ObjectName>,
    /// Segments that were made after the listing and were looked at.
    late: BTreeSet<SegmentId>,
    /// Objects that are not what index rows say of them.
    wrong: BTreeSet<ObjectName>,
    tell: &'a mut Tell<'t>,
}

impl Verifier<'_, '_> {
    async fn run(&mut self) -> Result<()> {
        for name in std::mem::take(&mut self.listing.foreign) {
            self.note(name, "is not an object of the log");
        }
        self.read_cluster().await?;
        self.read_metas().await?;
        self.read_claims().await?;
        let owners = self.owners();
        let mut replay = Replay::new(&self.options.scratch, self.cluster)?;
        self.read_segments(&replay.runs).await?;
        for (at, owner) in owners.iter().enumerate() {
            let later = owners[at + 1..].iter().any(|owner| self.has_checkpoint(owner.session));
            self.log(owner, later, &mut replay).await?;
        }
        let owned = |session: &SessionId| owners.iter().any(|owner| owner.session == *session);
        let unused: Vec<_> = self.listing.sessions.keys().filter(|session| !owned(session)).copied().collect();
        for session in unused {
            self.unused(session).await?;
        }
        self.index_rows(&replay).await
    }

    async fn read_cluster(&mut self) -> Result<()> {
        let claimed = self.listing.claims.keys().map(|shard| shard.0 + 1).max().unwrap_or(1);
        self.shards = claimed;
        let name = ObjectName::Cluster;
        if let Some((_, body)) = self.whole(name).await? {
            match cluster_of(body) {
                Some((cluster, shards)) => {
                    self.cluster = cluster;
                    self.shards = shards;
                }
                None => self.fault(name.path(), "does not say its id and its number of shards"),
            }
        }
        Ok(())
    }

    async fn read_metas(&mut self) -> Result<()> {
        self.totals.sessions = self.listing.sessions.len() as u64;
        let names = self.listing.sessions.keys().map(|session| ObjectName::SessionMeta(*session));
        for (name, seen) in self.see_all(names.collect()).await? {
            if let Some((_, body)) = self.judge(name, seen)
                && parse_meta(&body).is_none()
            {
                self.fault(name.path(), "does not say when the session began and on which node");
            }
        }
        Ok(())
    }

    /// Owners in order; when the claims contradict each other, by the time of their start.
    fn owners(&mut self) -> Vec<Owner> {
        match self.claims.owners() {
            Ok(owners) => owners,
            Err(error) => {
                self.fault(layout::shards_prefix(), error.to_string());
                let ends = self.claims.ends();
                let claims = self.claims.0.values().flat_map(|claims| claims.values());
                let mut sessions: Vec<_> = claims.map(|claim| claim.owner).collect();
                sessions.sort_unstable();
                sessions.dedup();
                let shards: Vec<_> = self.claims.0.keys().copied().collect();
                let owner =
                    |session: SessionId| Owner { session, end: ends.get(&session).copied(), shards: shards.clone() };
                sessions.into_iter().map(owner).collect()
            }
        }
    }

    fn has_checkpoint(&self, session: SessionId) -> bool {
        self.listing.sessions.get(&session).is_some_and(|objects| objects.newest_checkpoint().is_some())
    }

    /// Reads an object that must be there and whole; tells when it is not.
    async fn whole(&mut self, name: ObjectName) -> Result<Option<objects::Whole>> {
        let seen = see(&self.stores, name).await?;
        Ok(self.judge(name, seen))
    }

    fn judge(&mut self, name: ObjectName, seen: Seen) -> Option<objects::Whole> {
        match seen {
            Seen::Whole(header, body) => {
                self.read(header.object_len());
                Some((header, body))
            }
            Seen::Broken { why, len, .. } => {
                self.read(len);
                self.fault(name.path(), why);
                None
            }
            Seen::Gone if self.may_go(name) => {
                self.gone.insert(name);
                self.note(name.path(), "was deleted while the bucket was read");
                None
            }
            Seen::Gone => {
                self.fault(name.path(), "is missing");
                None
            }
        }
    }

    /// Whether an object that was listed may be deleted by its owner: fences, claims and what makes a session stay.
    fn may_go(&self, name: ObjectName) -> bool {
        let is_listed = |session: SessionId, number: Slot, of: fn(&SessionObjects) -> &[(u64, u64)]| {
            let objects = self.listing.sessions.get(&session).map(of).unwrap_or_default();
            let at = objects.binary_search_by_key(&number.0, |(number, _)| *number);
            at.is_ok_and(|at| !is_fence(objects[at].1))
        };
        match name {
            ObjectName::Slot(session, slot) => is_listed(session, slot, |objects| &objects.slots),
            ObjectName::Checkpoint(session, number) => is_listed(session, number, |objects| &objects.checkpoints),
            ObjectName::Segment(segment) => self.listing.segments.contains_key(&segment),
            ObjectName::Cluster | ObjectName::SessionMeta(_) | ObjectName::Probe(_) | ObjectName::Claim(..) => false,
        }
    }

    fn read(&mut self, bytes: u64) {
        self.totals.objects += 1;
        self.totals.bytes += bytes;
        (self.tell)(Event::Read(bytes));
    }

    fn fault(&mut self, object: impl Display, what: impl Into<String>) {
        self.totals.faults += 1;
        self.found(Severity::Fault, object, what);
    }

    fn note(&mut self, object: impl Display, what: impl Into<String>) {
        self.totals.notes += 1;
        self.found(Severity::Note, object, what);
    }

    fn found(&mut self, severity: Severity, object: impl Display, what: impl Into<String>) {
        (self.tell)(Event::Found(Finding { severity, object: object.to_string(), what: what.into() }));
    }
}

#[cfg(test)]
mod tests;
