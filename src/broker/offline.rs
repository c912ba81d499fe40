//! Topics by name in a state that was read from a bucket, where no log runs.

use plinth_storage::ids::{Timestamp, TopicId};
use plinth_storage::inspect::State;

use super::documents::{self, TenantDoc, TopicDoc};
use super::error::Error;

/// Rows that one look takes.
const STEP: usize = 500;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTopic {
    /// The name of its tenant.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// Its id in the log.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Gives every topic to `take`, by tenant and name.
///
/// # Errors
/// `Internal` when a document does not have its form; those of the state and of `take`.
pub fn named_topics<E: From<Error>>(state: &State, mut take: impl FnMut(NamedTopic) -> Result<(), E>) -> Result<(), E> {
    each(state, documents::TENANT_NAMES, |key, stored| {
        let tenant: TenantDoc = documents::decode(key, stored)?;
        let prefix = documents::topics(tenant.id(), "");
        each(state, &prefix, |key, stored| {
            let doc: TopicDoc = documents::decode(key, stored)?;
            take(NamedTopic {
                tenant: tenant.name.clone(),
                name: String::from_utf8_lossy(&key[prefix.len()..]).into_owned(),
                id: doc.id(),
                partitions: doc.partitions,
                created_at: Timestamp(doc.created_at),
            })
        })
    })
}

fn each<E: From<Error>>(
    state: &State,
    prefix: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut after = None;
    loop {
        let rows = state.documents(prefix, after.as_deref(), STEP).map_err(Error::from)?;
        rows.iter().try_for_each(|(key, stored)| take(key, stored))?;
        match rows.last() {
            Some((last, _)) if rows.len() == STEP => after = Some(last.clone()),
            Some(_) | None => return Ok(()),
        }
    }
}
