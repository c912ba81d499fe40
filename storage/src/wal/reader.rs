//! Reads a session's log from the bucket: which slots there are, and what they hold, checked along the chain.

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::{Error, Kind, Result};
use crate::ids::{SessionId, Slot};
use crate::layout;
use crate::slot::{read_object, unreadable};
use crate::store::ObjectStores;
use crate::wal::format::{Header, ObjectKind};

/// How many slots are fetched ahead of the one that is looked at.
const FETCH_AHEAD: usize = 8;

/// The numbered objects under `prefix`, ascending, with their sizes, from `from` on.
///
/// # Errors
/// `Unavailable` when the store cannot be listed.
pub(crate) async fn list(stores: &ObjectStores, prefix: &Path, from: u64) -> Result<Vec<(u64, u64)>> {
    // A store that can begins there; what it gives from before is left out below.
    let listed = match from.checked_sub(1) {
        Some(before) => stores.read.list_with_offset(Some(prefix), &layout::numbered(prefix, before)),
        None => stores.read.list(Some(prefix)),
    };
    let listed = listed.try_collect::<Vec<_>>().await;
    let listed = listed.map_err(|error| unreadable(prefix, error))?;
    let numbered = listed.iter().filter_map(|object| Some((layout::number(&object.location)?, object.size)));
    let mut out: Vec<_> = numbered.filter(|(number, _)| *number >= from).collect();
    out.sort_unstable();
    Ok(out)
}

/// One slot of a log: its header and body, both checked against each other.
pub(crate) type SlotObject = (Header, Bytes);

/// The data slots `from..end` of a session, in order. The caller checks the chain of hashes.
pub(crate) fn slots(
    stores: &ObjectStores,
    session: SessionId,
    from: Slot,
    end: Slot,
) -> impl Stream<Item = Result<SlotObject>> {
    let stores = stores.clone();
    futures::stream::iter(from.0..end.0)
        .map(move |slot| {
            let stores = stores.clone();
            async move {
                let missing = || {
                    let path = layout::wal(session, Slot(slot));
                    Error::new(Kind::Corrupt, format!("object {path} is missing from the log"))
                };
                read_slot(&stores, session, Slot(slot)).await?.ok_or_else(missing)
            }
        })
        .buffered(FETCH_AHEAD)
}

/// One data slot of a session, or `None` when there is no such object.
///
/// # Errors
/// `Corrupt` when it is not that, `Unavailable` when the store cannot be read.
pub(crate) async fn read_slot(stores: &ObjectStores, session: SessionId, slot: Slot) -> Result<Option<SlotObject>> {
    let path = layout::wal(session, slot);
    let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("object {path} {what}"));
    let Some(object) = read_object(stores, &path).await? else { return Ok(None) };
    let (header, body) = Header::parse_object(&object).map_err(|error| corrupt("is broken").with_source(error))?;
    if header.kind != ObjectKind::Data || header.session != session || header.number != slot.0 {
        return Err(corrupt("is not the slot that its name says"));
    }
    Ok(Some((header, body)))
}
