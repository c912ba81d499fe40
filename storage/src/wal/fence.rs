//! Ends the log of another session: after this nothing can be added to it, whoever still runs it.
//!
//! First the checkpoint fence, so that the log cannot be trimmed any more, then the fence in the first free slot.

use std::time::Duration;

use object_store::ObjectStoreExt;

use crate::error::{Error, Kind, Result};
use crate::ids::{ObjectHash, SessionId, Slot};
use crate::layout;
use crate::metrics::Health;
use crate::shard::checkpoint::parse_position;
use crate::slot::{self, Created, Object, read_header, read_object, unreadable};
use crate::store::ObjectStores;
use crate::wal::format::{HEADER_BYTES, Header, ObjectKind};
use crate::wal::reader;

const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Length of the position at the start of a checkpoint's body.
pub(crate) const CHECKPOINT_HEAD_BYTES: usize = 24;

/// The last checkpoint of a session and where its replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointRef {
    pub(crate) number: Slot,
    pub(crate) trim: Slot,
    pub(crate) hash: ObjectHash,
}

/// A log that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FencedLog {
    pub(crate) checkpoint: Option<CheckpointRef>,
    /// The slot of the fence.
    pub(crate) end: Slot,
}

/// Ends the log of `session`; doing it again changes nothing.
///
/// # Errors
/// `Unavailable` or `Unknown` when the store does not answer, `Corrupt` when foreign objects stand in the log.
pub(crate) async fn fence(
    stores: &ObjectStores,
    health: &Health,
    session: SessionId,
    author: SessionId,
) -> Result<FencedLog> {
    let checkpoint = fence_checkpoints(stores, health, session, author).await?;
    let trim = checkpoint.map_or(Slot(0), |checkpoint| checkpoint.trim);
    let end = fence_slots(stores, health, (session, author), trim).await?;
    Ok(FencedLog { checkpoint, end })
}

async fn fence_checkpoints(
    stores: &ObjectStores,
    health: &Health,
    session: SessionId,
    author: SessionId,
) -> Result<Option<CheckpointRef>> {
    let is_fence = |size: u64| size == HEADER_BYTES as u64;
    loop {
        // Listed again after each try: a fence may have landed in the number of a checkpoint that was deleted since the
        // listing. Only when the last one is a fence, the session's next create finds it.
        let listed = reader::list(stores, &layout::checkpoint_prefix(session), 0).await?;
        let last = listed.last().copied();
        if last.is_some_and(|(_, size)| is_fence(size)) {
            let newest = listed.iter().rev().find(|(_, size)| !is_fence(*size));
            return checkpoint_ref(stores, session, newest.map(|(number, _)| *number)).await;
        }
        let next = last.map_or(0, |(number, _)| number + 1);
        let header = Header::new(ObjectKind::CheckpointFence, session, next).by(author);
        let fence = Object::new(layout::checkpoint(session, Slot(next)), header, Vec::new());
        match slot::create(stores, &fence, health, Some(GIVE_UP_AFTER)).await? {
            Created::Ours => {}
            Created::Taken(other) if other.kind == ObjectKind::CheckpointFence || other.kind.is_checkpoint() => {}
            Created::Taken(other) => return Err(foreign(&fence, &other)),
        }
    }
}

/// A checkpoint by its number: where its replay begins.
///
/// # Errors
/// `Unavailable` when it cannot be read, `Corrupt` when it is cut short.
pub(crate) async fn checkpoint_ref(
    stores: &ObjectStores,
    session: SessionId,
    number: Option<u64>,
) -> Result<Option<CheckpointRef>> {
    let Some(number) = number.map(Slot) else { return Ok(None) };
    let path = layout::checkpoint(session, number);
    let cut = || Error::new(Kind::Corrupt, format!("checkpoint {path} is cut short"));
    let from = HEADER_BYTES as u64;
    let head = stores.read.get_range(&path, from..from + CHECKPOINT_HEAD_BYTES as u64).await;
    let head = head.map_err(|error| unreadable(&path, error))?;
    let (mut trim, mut hash) = parse_position(&head).ok_or_else(cut)?;
    // These bytes have no checksum of their own, and a flipped bit would put the fence elsewhere. The slot before must be
    // the one that they name. If it is not, or is gone, the whole object is read, which has a checksum.
    let before = match trim.0.checked_sub(1) {
        Some(last) => read_header(stores, &layout::wal(session, Slot(last))).await?.map(|header| header.hash()),
        None => Some(ObjectHash::default()),
    };
    if before != Some(hash) {
        let object = read_object(stores, &path).await?;
        let (_, body) = Header::parse_object(&object.ok_or_else(cut)?)?;
        (trim, hash) = parse_position(&body).ok_or_else(cut)?;
    }
    Ok(Some(CheckpointRef { number, trim, hash }))
}

async fn fence_slots(
    stores: &ObjectStores,
    health: &Health,
    (session, author): (SessionId, SessionId),
    trim: Slot,
) -> Result<Slot> {
    let mut next = trim;
    for (number, size) in reader::list(stores, &layout::wal_prefix(session), trim.0).await? {
        if number != next.0 {
            break;
        }
        // Only a fence has no body.
        if size == HEADER_BYTES as u64 && is_fence(stores, session, next).await? {
            return Ok(next);
        }
        next = next.next();
    }
    loop {
        let header = Header::new(ObjectKind::Fence, session, next.0).by(author);
        let fence = Object::new(layout::wal(session, next), header, Vec::new());
        match slot::create(stores, &fence, health, Some(GIVE_UP_AFTER)).await? {
            Created::Ours => return Ok(next),
            Created::Taken(other) if other.kind == ObjectKind::Fence => return Ok(next),
            Created::Taken(_) if planted!(FenceBelowData) => return Ok(next),
            // The session was faster once more; its slot counts.
            Created::Taken(other) if other.kind == ObjectKind::Data => next = next.next(),
            Created::Taken(other) => return Err(foreign(&fence, &other)),
        }
    }
}

async fn is_fence(stores: &ObjectStores, session: SessionId, slot: Slot) -> Result<bool> {
    let header = read_header(stores, &layout::wal(session, slot)).await?;
    Ok(header.is_some_and(|header| header.kind == ObjectKind::Fence))
}

fn foreign(object: &Object, found: &Header) -> Error {
    Error::new(Kind::Corrupt, format!("object {} is a {:?}, which does not belong there", object.path, found.kind))
}
