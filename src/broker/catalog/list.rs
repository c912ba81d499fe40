//! One page of the topics of a tenant, with their bounds.

use std::sync::Arc;

use plinth_api::limits::LIST_PARTITIONS_MAX;

use super::{Catalog, TopicView};
use crate::auth::{Action, Caller};
use crate::broker::error::Error;

/// Which topics are wanted, by name.
#[derive(Clone, Debug)]
pub struct TopicsRequest {
    /// What their names begin with.
    pub prefix: String,
    /// The name that they come after.
    pub after: Option<String>,
    /// Most topics, at least 1.
    pub limit: usize,
}

/// A page of topics.
#[derive(Clone, Debug)]
pub struct TopicsPage {
    /// The topics.
    pub topics: Vec<TopicView>,
    /// Whether there are more after them.
    pub more: bool,
}

impl Catalog {
    /// A page of the topics that the caller may see, by name. It ends early when its topics have many partitions. Cancel
    /// safe.
    ///
    /// # Errors
    /// Those of the log.
    pub(crate) async fn list(self: &Arc<Self>, caller: &Caller, request: TopicsRequest) -> Result<TopicsPage, Error> {
        let (catalog, caller) = (Arc::clone(self), caller.clone());
        self.changes.apart(move || catalog.page(&caller, &request)).await
    }

    fn page(&self, caller: &Caller, request: &TopicsRequest) -> Result<TopicsPage, Error> {
        let tenant = caller.inside().map_err(|denied| Error::Invalid(denied.to_string()))?.id();
        let (mut topics, mut partitions, mut more) = (Vec::new(), 0, false);
        self.each(tenant, &request.prefix, request.after.as_deref(), |topic| {
            if !caller.may(Action::View, &topic.name) || self.is_hidden(&topic)? {
                return Ok(true);
            }
            partitions += topic.partitions as usize;
            more = topics.len() >= request.limit || (partitions > LIST_PARTITIONS_MAX && !topics.is_empty());
            if more {
                return Ok(false);
            }
            match self.look(&topic) {
                Ok(view) => topics.push(view),
                // Deleted since the list was read.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            Ok(true)
        })?;
        Ok(TopicsPage { topics, more })
    }
}
