//! The ends of streams, for subscriptions: by name alone, for what the server does by itself.

use std::sync::Arc;

use plinth_storage::ids::TenantId;
use plinth_storage::{Cleanup, Kind};

use super::kept::is_reserved;
use super::{Catalog, Topic, TopicKeyRef};
use crate::auth::Glob;
use crate::broker::error::Error;
use crate::broker::wakes::links::Tail;
use crate::broker::wakes::moved::Moved;

impl Catalog {
    /// Which streams have moved.
    pub(in crate::broker) fn moved(&self) -> &Moved {
        &self.moved
    }

    /// The stream of a name, if there is one.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) fn stream_named(
        &self,
        tenant: TenantId,
        name: &Arc<str>,
    ) -> Result<Option<Arc<Topic>>, Error> {
        let found = self.find_named(tenant, name)?.filter(|topic| is_stream(topic));
        match found {
            Some(topic) if self.is_hidden(&topic)? => Ok(None),
            found => Ok(found),
        }
    }

    /// The end of a stream, if it is there.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) fn tail_of(&self, tenant: TenantId, name: &Arc<str>) -> Result<Option<Tail>, Error> {
        let Some(topic) = self.stream_named(tenant, name)? else { return Ok(None) };
        match self.log.bounds(topic.partition(0)) {
            Ok(bounds) => Ok(Some(Tail { token: topic.token(bounds.tail), start: bounds.start })),
            // Deleted since it was looked up.
            Err(error) if error.kind() == Kind::NotFound => {
                self.known.remove(&TopicKeyRef { tenant, name });
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The streams that a glob matches now, by name, at most `limit`.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) async fn streams_of(
        self: &Arc<Self>,
        tenant: TenantId,
        glob: Glob,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, Error> {
        let catalog = Arc::clone(self);
        self.changes
            .apart(move || {
                let mut names = Vec::new();
                catalog.each(tenant, &glob.prefix(), None, |topic| {
                    if is_stream(&topic) && glob.matches(&topic.name) && !catalog.is_hidden(&topic)? {
                        names.push(topic.name);
                    }
                    Ok(names.len() < limit)
                })?;
                Ok(names)
            })
            .await
    }
}

fn is_stream(topic: &Topic) -> bool {
    topic.partitions == 1 && topic.cleanup == Cleanup::Delete && !is_reserved(&topic.name)
}
