//! What stands in a bucket, for people: sessions, claims, objects by purpose.

use std::collections::{BTreeMap, HashMap};

use bytes::Buf;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Kind, Result};
use crate::ids::{ClusterId, Epoch, SessionId, ShardId, Slot, Timestamp};
use crate::inspect::claims::Claims;
use crate::inspect::listing::{Listing, Usage};
use crate::layout;
use crate::slot::{read_header, read_object};
use crate::store::ObjectStores;
use crate::wal::fence::checkpoint_ref;
use crate::wal::format::{Header, ObjectKind};

/// A bucket at one moment.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The cluster.
    pub cluster: ClusterId,
    /// How many shards it has.
    pub shards: u16,
    /// Objects by purpose: those of the request metrics, and `foreign` for what is not of the log.
    pub usage: BTreeMap<&'static str, Usage>,
    /// Sessions, the oldest first.
    pub sessions: Vec<SessionView>,
    /// Owners of each shard, the first one first.
    pub claims: BTreeMap<ShardId, Vec<ClaimView>>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// Node and start, if its `meta` is there.
    pub meta: Option<SessionMeta>,
    /// Whether its log goes on.
    pub status: SessionStatus,
    /// Slots of its log, without the fence and without what stands above it.
    pub slots: Usage,
    /// Slots above the end of its log: never acknowledged, or in flight.
    pub loose: Usage,
    /// Its checkpoints.
    pub checkpoints: Usage,
    /// The newest of them.
    pub newest_checkpoint: Option<CheckpointView>,
}

/// What a session says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionMeta {
    /// The name of its node.
    pub node: String,
    /// When it began, by the node's clock.
    pub started_at: Timestamp,
}

/// Whether a session's log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStatus {
    /// It owns shards and nobody has ended it. Whether it runs the bucket does not say.
    Open,
    /// It was ended.
    Ended {
        /// The slot of the fence.
        at: Slot,
        /// Who ended it.
        by: SessionId,
    },
    /// It never claimed a shard.
    Unused,
}

/// A checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointView {
    /// Its number.
    pub number: Slot,
    /// The first slot that is not in it.
    pub next: Slot,
    /// Its size.
    pub bytes: u64,
}

/// Who owned a shard from an epoch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimView {
    /// The epoch.
    pub epoch: Epoch,
    /// The owner.
    pub owner: SessionId,
}

/// Reads what is needed for an overview.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when what is needed is broken.
pub(super) async fn read(
    stores: &ObjectStores,
    (cluster, shards): (ClusterId, u16),
    (listing, claims): (&Listing, &Claims),
    in_flight: usize,
) -> Result<Overview> {
    let ends = claims.ends();
    let owners: Vec<SessionId> = claims.newest().map(|claim| claim.owner).collect();
    let sessions: Vec<SessionView> = futures::stream::iter(listing.sessions.keys().copied())
        .map(|session| session_view(stores, listing, session, (&ends, &owners)))
        .buffered(in_flight.max(1))
        .try_collect()
        .await?;
    let claims = claims.0.iter().map(|(shard, claims)| {
        let views = claims.values().map(|claim| ClaimView { epoch: claim.epoch, owner: claim.owner });
        (*shard, views.collect())
    });
    Ok(Overview { cluster, shards, usage: listing.usage.clone(), sessions, claims: claims.collect() })
}

async fn session_view(
    stores: &ObjectStores,
    listing: &Listing,
    session: SessionId,
    (ends, owners): (&HashMap<SessionId, Slot>, &[SessionId]),
) -> Result<SessionView> {
    let objects = &listing.sessions[&session];
    let meta = if objects.has_meta { read_meta(stores, session).await? } else { None };
    let newest = objects.newest_checkpoint();
    let newest_checkpoint = match (newest, checkpoint_ref(stores, session, newest.map(|(number, _)| number.0)).await?) {
        (Some((number, bytes)), Some(checkpoint)) => Some(CheckpointView { number, next: checkpoint.trim, bytes }),
        (Some(_) | None, _) => None,
    };
    // Below its newest checkpoint a log may have holes.
    let covered = newest_checkpoint.map_or(Slot(0), |newest| newest.next);
    let end = ends.get(&session).copied().or_else(|| objects.fence(covered));
    let author = match end {
        Some(end) => read_header(stores, &layout::wal(session, end)).await?.map(|header| header.author),
        None => None,
    };
    let status = match (end, author) {
        (Some(at), Some(by)) => SessionStatus::Ended { at, by },
        (None, _) if !owners.contains(&session) => SessionStatus::Unused,
        (None, _) | (Some(_), None) => SessionStatus::Open,
    };
    let log_end = end.unwrap_or_else(|| objects.end(covered));
    let sum = |numbered: &[(u64, u64)], counts: &dyn Fn(u64, u64) -> bool| {
        let counted = numbered.iter().filter(|(number, size)| counts(*number, *size));
        counted.fold(Usage::default(), |sum, (_, size)| Usage { objects: sum.objects + 1, bytes: sum.bytes + size })
    };
    Ok(SessionView {
        session,
        meta,
        status,
        slots: sum(&objects.slots, &|slot, _| slot < log_end.0),
        loose: sum(&objects.slots, &|slot, _| slot > log_end.0),
        checkpoints: sum(&objects.checkpoints, &|_, size| !super::listing::is_fence(size)),
        newest_checkpoint,
    })
}

/// The `meta` of a session, or `None` when there is none.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when it is broken.
pub(crate) async fn read_meta(stores: &ObjectStores, session: SessionId) -> Result<Option<SessionMeta>> {
    let path = layout::session_meta(session);
    let Some(object) = read_object(stores, &path).await? else { return Ok(None) };
    let broken = || Error::new(Kind::Corrupt, format!("object {path} is broken"));
    let (header, body) = Header::parse_object(&object).map_err(|error| broken().with_source(error))?;
    let meta = parse_meta(&body).filter(|_| header.kind == ObjectKind::SessionMeta);
    meta.map(Some).ok_or_else(broken)
}

/// The body of a session's `meta`.
pub(crate) fn parse_meta(mut body: &[u8]) -> Option<SessionMeta> {
    if body.len() < 8 {
        return None;
    }
    let started_at = Timestamp(body.get_u64_le());
    Some(SessionMeta { node: std::str::from_utf8(body).ok()?.to_owned(), started_at })
}
