//! One object by itself: is it there, is it whole, is it what its name says.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::Verifier;
use crate::error::{Chain, Result};
use crate::layout::ObjectName;
use crate::slot::read_object;
use crate::store::ObjectStores;
use crate::wal::format::{Header, ObjectKind};

/// Header and body.
pub(super) type Whole = (Header, Bytes);

/// What reading an object gave.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Gone,
    Broken {
        why: String,
        len: u64,
        /// Its header, if that is whole and the one that the name says.
        header: Option<Header>,
    },
    Whole(Header, Bytes),
}

/// Reads an object. What is missing or broken is read a second time before it counts.
///
/// # Errors
/// `Unavailable` when the store cannot be read.
pub(super) async fn see(stores: &ObjectStores, name: ObjectName) -> Result<Seen> {
    match see_once(stores, name).await? {
        Seen::Whole(header, body) => Ok(Seen::Whole(header, body)),
        Seen::Gone | Seen::Broken { .. } => see_once(stores, name).await,
    }
}

async fn see_once(stores: &ObjectStores, name: ObjectName) -> Result<Seen> {
    let Some(object) = read_object(stores, &name.path()).await? else { return Ok(Seen::Gone) };
    let len = object.len() as u64;
    let broken = |header, why| Ok(Seen::Broken { why, len, header });
    let header = match Header::parse(&object) {
        Ok(header) => header,
        Err(error) => return broken(None, format!("is broken: {}", Chain(&error))),
    };
    if let Err(why) = fits(name, &header) {
        return broken(None, why);
    }
    match Header::parse_object(&object) {
        Ok((header, body)) => Ok(Seen::Whole(header, body)),
        Err(error) => broken(Some(header), format!("is broken: {}", Chain(&error))),
    }
}

/// Whether a header is the one that the name of its object asks for.
fn fits(name: ObjectName, header: &Header) -> std::result::Result<(), String> {
    use ObjectKind as K;
    let (kinds, session, number): (&[K], _, _) = match name {
        ObjectName::Cluster => (&[K::Cluster], None, 0),
        ObjectName::SessionMeta(session) => (&[K::SessionMeta], Some(session), 0),
        ObjectName::Slot(session, slot) => (&[K::Data, K::Fence], Some(session), slot.0),
        ObjectName::Checkpoint(session, number) => {
            (&[K::FullCheckpoint, K::Checkpoint, K::CheckpointFence], Some(session), number.0)
        }
        ObjectName::Claim(_, epoch) => (&[K::Claim], None, epoch.0),
        ObjectName::Segment(_) => (&[K::Segment], None, 0),
        ObjectName::Probe(_) => return Ok(()),
    };
    let says = |what: String| Err(format!("says in its header that it is {what}"));
    if !kinds.contains(&header.kind) {
        return says(format!("a {:?}", header.kind));
    }
    if session.is_some_and(|session| session != header.session) {
        return says(format!("of session {}", header.session));
    }
    if header.number != number {
        return says(format!("number {}", header.number));
    }
    let is_fence = matches!(header.kind, K::Fence | K::CheckpointFence);
    if !is_fence && header.author != header.session {
        return says(format!("by session {}", header.author));
    }
    Ok(())
}

impl Verifier<'_, '_> {
    /// Reads small objects side by side.
    pub(super) async fn see_all(&self, names: Vec<ObjectName>) -> Result<Vec<(ObjectName, Seen)>> {
        let stores = &self.stores;
        futures::stream::iter(names)
            .map(|name| async move { Ok((name, see(stores, name).await?)) })
            .buffered(self.options.in_flight.max(1))
            .try_collect()
            .await
    }
}
