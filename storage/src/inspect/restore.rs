//! A copy of a bucket as it was at a time, in another, empty bucket.
//!
//! Objects are copied byte for byte, up to a cut in the log that is open at that time; a fence ends the copy there. The
//! object `cluster` comes last: until then the copy is no cluster, a node refuses to start on it, and the same call goes
//! on where an earlier one was cut off; once the fence is there, a call for the time at which the copy ends. Nothing is replaced and nothing deleted on either side. See ADR 17.

mod cut;
mod target;
mod whole;

use std::collections::BTreeSet;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};

use self::cut::{Cut, Reached, time_of};
use self::target::Target;
use crate::env::{SystemClock, SystemRng, new_ulid};
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::{SegmentId, SessionId, Slot, Timestamp};
use crate::inspect::claims::{Claims, Owner};
use crate::inspect::listing::{Listing, SessionObjects, is_fence};
use crate::inspect::scratch::Scratch;
use crate::inspect::state;
use crate::inspect::{Bucket, overview};
use crate::layout::{self, ObjectName};
use crate::shard::checkpoint;
use crate::slot::{read_object, read_range};
use crate::store::{self, ObjectStores};
use crate::wal::blocks::parse_body;
use crate::wal::fence::CHECKPOINT_HEAD_BYTES;
use crate::wal::format::{HEADER_BYTES, Header, ObjectKind};

/// How a bucket is copied.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// The time: nothing newer is copied. `None`: everything.
    pub at: Option<Timestamp>,
    /// Where the state of the copy is rebuilt, to see that it is whole.
    pub scratch: Scratch,
    /// Most requests under way at a time, on each side.
    pub in_flight: usize,
}

/// What happens while a bucket is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEvent {
    /// At most so many bytes there are to be copied.
    Listed {
        /// Bytes.
        bytes: u64,
    },
    /// So many bytes more are in the copy.
    Copied(u64),
    /// All logs are in the copy, which ends here: from now on only a call for this very time goes on with it.
    Ended {
        /// The time of the last slot.
        at: Timestamp,
    },
    /// Everything is there, and the copy is being checked.
    Checking,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The session in whose log the copy ends.
    pub session: SessionId,
    /// The slot before which it ends.
    pub end: Slot,
    /// The time of the last slot that is in it.
    pub at: Timestamp,
    /// Objects of the copy.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them an earlier, unfinished call had left there.
    pub found: u64,
}

/// Is told what happens.
type Tell<'a> = dyn FnMut(CopyEvent) + Send + 'a;

/// Copies a bucket. Cancel safe: the same call again goes on; after [`CopyEvent::Ended`] one for the time that it names.
///
/// # Errors
/// `NotFound` when the source holds no cluster or nothing as old as the time. `Invalid` when the target is the source, holds
/// anything else, or does not keep create-if-absent. `Corrupt` when what is needed for that time is missing or broken.
/// `Unavailable` or `Unknown` when a store does not answer.
pub async fn restore(
    source: &ObjectStores,
    target: &ObjectStores,
    options: &CopyOptions,
    tell: &mut Tell<'_>,
) -> Result<Copied> {
    if source.url == target.url {
        return Err(Error::new(Kind::Invalid, format!("store {} cannot be restored into itself", source.url)));
    }
    let bucket = Bucket::open(source, options.in_flight).await?;
    let (listing, claims) = bucket.look().await?;
    let author = SessionId(new_ulid(&SystemClock, &SystemRng));
    store::probe(target, &layout::probe(author)).await?;
    let owners = claims.owners()?;
    let target = Target::open(target, (&bucket.stores, &listing), &owners).await?;
    tell(CopyEvent::Listed { bytes: listing.total().bytes });
    let mut copy = Copy { bucket: &bucket, listing: &listing, target, options, tell, planned: BTreeSet::new() };
    let reached = copy.logs(&owners).await?;
    let cut = reached.cut.ok_or_else(|| nothing_so_old(&reached))?;
    copy.beside(&owners, &claims, &cut).await?;
    if let Some(why) = copy.without_base(&owners, &reached, &cut).await? {
        return Err(copy.gone(&owners, &cut, &why).await);
    }
    // Which segments are needed is known last.
    copy.target.refuse_unplanned(&copy.planned, &cut, |name| !matches!(name, ObjectName::Segment(_)))?;
    (copy.tell)(CopyEvent::Ended { at: cut.at });
    copy.target.fence(cut.session, cut.end, author).await?;
    copy.segments(&owners, &cut).await?;
    copy.all(vec![ObjectName::Cluster]).await?;
    let target = &copy.target;
    let Cut { session, end, at, .. } = cut;
    Ok(Copied { session, end, at, objects: target.objects, bytes: target.bytes, found: target.found })
}

/// The error when even the first slot is newer.
fn nothing_so_old(reached: &Reached) -> Error {
    let text = match reached.earliest {
        Some(earliest) => format!("nothing in the bucket is so old: it begins at {earliest} ms since the Unix epoch"),
        None => "nothing was ever written to the bucket".to_owned(),
    };
    Error::new(Kind::NotFound, text)
}

struct Copy<'a, 't> {
    bucket: &'a Bucket,
    listing: &'a Listing,
    target: Target,
    options: &'a CopyOptions,
    tell: &'a mut Tell<'t>,
    planned: BTreeSet<ObjectName>,
}

impl Copy<'_, '_> {
    /// Copies the slots of all logs in order, up to the first that is newer than the time.
    async fn logs(&mut self, owners: &[Owner]) -> Result<Reached> {
        let mut reached = Reached::default();
        for (at, owner) in owners.iter().enumerate() {
            let meta = overview::read_meta(&self.bucket.stores, owner.session).await?;
            let began = meta.map_or(Timestamp(0), |meta| meta.started_at);
            reached.earliest.get_or_insert(began);
            let Some(objects) = self.listing.sessions.get(&owner.session) else { continue };
            let covered = self.newest_end(owner.session).await?;
            let end = owner.end.unwrap_or_else(|| objects.end(covered));
            if end == Slot(0) {
                continue;
            }
            if self.is_newer(began) || self.target.is_ended(&reached, self.options.at)? {
                break;
            }
            if !self.log(at, owner.session, (end, began), &mut reached).await? {
                break;
            }
        }
        Ok(reached)
    }

    /// Copies slots of one log; false when one was newer than the time.
    async fn log(
        &mut self,
        owner: usize,
        session: SessionId,
        (end, began): (Slot, Timestamp),
        reached: &mut Reached,
    ) -> Result<bool> {
        let stores = self.bucket.stores.clone();
        let listed = self.listing.sessions.get(&session).map(|objects| objects.slots.as_slice()).unwrap_or_default();
        let mut slots =
            futures::stream::iter(listed.iter().map(|(slot, _)| Slot(*slot)).take_while(|slot| *slot < end))
                .map(|slot| {
                    let (stores, name) = (stores.clone(), ObjectName::Slot(session, slot));
                    async move { Ok::<_, Error>((name, slot, read_object(&stores, &name.path()).await?)) }
                })
                .buffered(self.options.in_flight.max(1));
        let mut puts = FuturesUnordered::new();
        let (mut time, mut next, mut whole) = (reached.time().max(began), Slot(0), true);
        while let Some((name, slot, bytes)) = slots.try_next().await? {
            // What was listed may be deleted meanwhile.
            let Some(bytes) = bytes else { continue };
            let (header, body) = Header::parse_object(&bytes).map_err(|error| broken(name).with_source(error))?;
            // A fence that came late, into the place of a slot that was deleted: a hole.
            if header.kind != ObjectKind::Data {
                continue;
            }
            time = time_of(&parse_body(&body).map_err(|error| broken(name).with_source(error))?).unwrap_or(time);
            if self.is_newer(time) {
                whole = false;
                break;
            }
            if self.target.is_ended(reached, self.options.at)? {
                whole = false;
                break;
            }
            if slot > next {
                reached.hole = Some((owner, slot));
            }
            next = slot.next();
            reached.cut = Some(Cut { owner, session, end: next, at: time });
            self.planned.insert(name);
            if puts.len() >= self.options.in_flight.max(1) {
                puts.try_next().await?.into_iter().for_each(|put| self.target.note(put, self.tell));
            }
            puts.push(self.target.create(name, bytes));
        }
        while let Some(put) = puts.try_next().await? {
            self.target.note(put, self.tell);
        }
        if whole && next < end {
            reached.hole = Some((owner, end));
            reached.cut = Some(Cut { owner, session, end, at: time });
        }
        Ok(whole)
    }

    /// Copies what stands beside the slots: `meta`s, checkpoints, the fences of logs before the last, claims.
    async fn beside(&mut self, owners: &[Owner], claims: &Claims, cut: &Cut) -> Result<()> {
        let mut names = Vec::new();
        let kept = &owners[..=cut.owner];
        for owner in kept {
            let session = owner.session;
            let Some(objects) = self.listing.sessions.get(&session) else { continue };
            names.extend(objects.has_meta.then_some(ObjectName::SessionMeta(session)));
            for (number, size) in objects.checkpoints.iter().map(|(number, size)| (Slot(*number), *size)) {
                let is_before = session != cut.session || self.ends_before(session, number, size, cut.end).await?;
                names.extend(is_before.then_some(ObjectName::Checkpoint(session, number)));
            }
            let end = owner.end.filter(|_| session != cut.session);
            names.extend(end.map(|end| ObjectName::Slot(session, end)));
        }
        let of_kept = |owner: SessionId| kept.iter().any(|kept| kept.session == owner);
        for (shard, claims) in &claims.0 {
            let kept = claims.values().take_while(|claim| of_kept(claim.owner));
            names.extend(kept.map(|claim| ObjectName::Claim(*shard, claim.epoch)));
        }
        self.all(names).await
    }

    /// Whether a checkpoint of the last log is one of the slots that are copied. Fences are not: the copy gets its own.
    async fn ends_before(&self, session: SessionId, number: Slot, size: u64, end: Slot) -> Result<bool> {
        Ok(!is_fence(size) && self.ends_at(session, number).await?.is_some_and(|next| next <= end))
    }

    /// The first slot that is not in a checkpoint, or `None` when it is deleted.
    async fn ends_at(&self, session: SessionId, number: Slot) -> Result<Option<Slot>> {
        let path = layout::checkpoint(session, number);
        let head = HEADER_BYTES as u64..HEADER_BYTES as u64 + CHECKPOINT_HEAD_BYTES as u64;
        match read_range(&self.bucket.stores, &path, head).await {
            Ok(head) => Ok(checkpoint::parse_position(&head).map(|(next, _)| next)),
            Err(error) if error.kind() == Kind::Corrupt => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the newest checkpoint of a session ends.
    async fn newest_end(&self, session: SessionId) -> Result<Slot> {
        let newest = self.listing.sessions.get(&session).and_then(SessionObjects::newest_checkpoint);
        match newest {
            Some((number, _)) => Ok(self.ends_at(session, number).await?.unwrap_or_default()),
            None => Ok(Slot(0)),
        }
    }

    /// Why the copied slots lead to no state: there is a hole in them, and no checkpoint after it.
    async fn without_base(&self, owners: &[Owner], reached: &Reached, cut: &Cut) -> Result<Option<String>> {
        let Some((hole_owner, hole)) = reached.hole else { return Ok(None) };
        for (at, owner) in owners.iter().enumerate().take(cut.owner + 1).skip(hole_owner) {
            let Some(objects) = self.listing.sessions.get(&owner.session) else { continue };
            for (number, _) in objects.checkpoints.iter().filter(|(_, size)| !is_fence(*size)) {
                let name = ObjectName::Checkpoint(owner.session, Slot(*number));
                let is_copied = self.planned.contains(&name);
                let next = self.ends_at(owner.session, Slot(*number)).await?.filter(|_| is_copied);
                if next.is_some_and(|next| at > hole_owner || next >= hole) {
                    return Ok(None);
                }
            }
        }
        let name = ObjectName::Slot(owners[hole_owner].session, Slot(hole.0 - 1)).path();
        Ok(Some(format!("object {name} is deleted, and every checkpoint that makes up for it is newer")))
    }

    /// Copies objects.
    async fn all(&mut self, names: Vec<ObjectName>) -> Result<()> {
        self.planned.extend(&names);
        let (stores, target) = (&self.bucket.stores, &self.target);
        let puts = futures::stream::iter(names)
            .map(|name| async move {
                match read_object(stores, &name.path()).await? {
                    Some(bytes) => target.create(name, bytes).await.map(Some),
                    // Deleted meanwhile: the check at the end tells whether it is needed.
                    None => Ok(None),
                }
            })
            .buffer_unordered(self.options.in_flight.max(1));
        let puts: Vec<_> = puts.try_filter_map(|put| std::future::ready(Ok(put))).try_collect().await?;
        puts.into_iter().for_each(|put| self.target.note(put, self.tell));
        Ok(())
    }

    /// The copy leads to a state; copies the segments that it names, and sees that every record is there.
    async fn segments(&mut self, owners: &[Owner], cut: &Cut) -> Result<()> {
        (self.tell)(CopyEvent::Checking);
        let stores = self.target.stores.clone();
        let listing = Listing::read(&stores).await?;
        let claims = Claims::read(&stores, &listing, self.options.in_flight).await?;
        let identity = self.bucket.identity;
        let state = match state::restore(&stores, identity, (&listing, &claims), &self.options.scratch).await {
            Err(error) if error.kind() == Kind::Corrupt => {
                return Err(self.gone(owners, cut, &Chain(&error).to_string()).await);
            }
            restored => restored?,
        };
        let named = self.named(&state, &listing)?.segments;
        let there = |segment: &SegmentId| self.listing.segments.contains_key(segment);
        self.all(named.iter().copied().filter(there).map(ObjectName::Segment).collect()).await?;
        self.target.refuse_unplanned(&self.planned, cut, |_| true)?;
        match self.named(&state, &Listing::read(&stores).await?)?.lost {
            None => Ok(()),
            Some(why) => Err(self.gone(owners, cut, &why).await),
        }
    }

    fn is_newer(&self, time: Timestamp) -> bool {
        self.options.at.is_some_and(|at| time > at)
    }
}

fn broken(name: ObjectName) -> Error {
    Error::new(Kind::Corrupt, format!("object {} is broken, `plinth verify` tells more", name.path()))
}
