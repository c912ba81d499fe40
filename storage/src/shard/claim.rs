//! Claims: the objects that say who owns a shard from here on, and where the log of the owner before ended.
//!
//! ```text
//! body     shard u16 · has a predecessor u8 · predecessor session 16 · end of its log u64        (little endian)
//! ```

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Epoch, SessionId, ShardId, Slot};
use crate::layout;
use crate::metrics::Health;
use crate::slot::{self, Created, Object, read_header, read_object};
use crate::store::ObjectStores;
use crate::wal::format::{Header, ObjectKind, get_ulid};
use crate::wal::reader;

/// The shard that holds documents and topics.
pub(crate) const CATALOG_SHARD: ShardId = ShardId(0);

const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const BODY_BYTES: usize = 27;

/// Who owns a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) owner: SessionId,
    /// The owner before, and the slot at which its log ended.
    pub(crate) previous: Option<(SessionId, Slot)>,
}

/// The newest claim of a shard, or `None` when it was never claimed.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when the claim is broken.
pub(crate) async fn latest(stores: &ObjectStores, shard: ShardId) -> Result<Option<Claim>> {
    let listed = reader::list(stores, &layout::claim_prefix(shard), 0).await?;
    match listed.last() {
        None => Ok(None),
        Some((epoch, _)) => read(stores, shard, Epoch(*epoch)).await.map(Some),
    }
}

/// The claim of one epoch.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when the claim is missing or broken.
pub(crate) async fn read(stores: &ObjectStores, shard: ShardId, epoch: Epoch) -> Result<Claim> {
    let path = layout::claim(shard, epoch);
    let broken = || Error::new(Kind::Corrupt, format!("claim {path} is missing or broken"));
    let object = read_object(stores, &path).await?.ok_or_else(broken)?;
    let (header, body) = Header::parse_object(&object)?;
    parse(&header, body, shard).filter(|claim| claim.epoch == epoch).ok_or_else(broken)
}

/// The claim of a shard that an object holds, or `None` when it holds none.
pub(crate) fn parse(header: &Header, mut body: Bytes, shard: ShardId) -> Option<Claim> {
    if header.kind != ObjectKind::Claim || body.len() != BODY_BYTES || body.get_u16_le() != shard.0 {
        return None;
    }
    let has_previous = body.get_u8() != 0;
    let previous = (SessionId(get_ulid(&mut body)), Slot(body.get_u64_le()));
    let epoch = Epoch(header.number);
    Some(Claim { shard, epoch, owner: header.session, previous: has_previous.then_some(previous) })
}

/// Where the log of the owner of `epoch` ended, as the claim after it says; `None` while there is none.
///
/// # Errors
/// As [`read`].
pub(crate) async fn end_of(stores: &ObjectStores, shard: ShardId, epoch: Epoch) -> Result<Option<Slot>> {
    let next = Epoch(epoch.0 + 1);
    if read_header(stores, &layout::claim(shard, next)).await?.is_none() {
        return Ok(None);
    }
    Ok(read(stores, shard, next).await?.previous.map(|(_, end)| end))
}

/// Creates a claim; gives the one that stands there instead when another was faster.
///
/// # Errors
/// `Unknown` when the store does not answer, `Corrupt` when something else has the name.
pub(crate) async fn create(stores: &ObjectStores, health: &Health, claim: &Claim) -> Result<Option<Claim>> {
    let header = Header::new(ObjectKind::Claim, claim.owner, claim.epoch.0);
    let object = Object::new(layout::claim(claim.shard, claim.epoch), header, vec![encode(claim)]);
    match slot::create(stores, &object, health, Some(GIVE_UP_AFTER)).await? {
        Created::Ours => Ok(None),
        Created::Taken(_) => read(stores, claim.shard, claim.epoch).await.map(Some),
    }
}

fn encode(claim: &Claim) -> Bytes {
    let (session, end) = claim.previous.unwrap_or((claim.owner, Slot(0)));
    let mut out = BytesMut::with_capacity(BODY_BYTES);
    out.put_u16_le(claim.shard.0);
    out.put_u8(u8::from(claim.previous.is_some()));
    out.put_slice(&session.0.to_bytes());
    out.put_u64_le(end.0);
    out.freeze()
}
