//! One page of the streams of a tenant.

use std::sync::Arc;

use plinth_storage::ids::Timestamp;

use super::{StreamView, check_is_stream};
use crate::auth::{Action, Caller};
use crate::broker::error::Error;
use crate::broker::{Broker, TopicsRequest};

/// A stream in a list.
#[derive(Clone, Debug)]
pub struct StreamItem {
    /// The name.
    pub name: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it is.
    pub view: StreamView,
}

/// A page of streams.
#[derive(Clone, Debug)]
pub struct StreamsPage {
    /// The streams.
    pub streams: Vec<StreamItem>,
    /// Whether there are more after them.
    pub more: bool,
}

impl Broker {
    /// A page of the streams that the caller may see, by name: the topics that the protocol can read. To be listed is no use
    /// of a stream. Cancel safe.
    ///
    /// # Errors
    /// `Invalid` for the root key outside a tenant; those of the log.
    pub async fn list_streams(&self, caller: &Caller, request: TopicsRequest) -> Result<StreamsPage, Error> {
        let (broker, caller) = (self.clone(), caller.clone());
        self.catalog().changes().apart(move || broker.page_of_streams(&caller, &request)).await
    }

    fn page_of_streams(&self, caller: &Caller, request: &TopicsRequest) -> Result<StreamsPage, Error> {
        let tenant = caller.inside().map_err(|denied| Error::Invalid(denied.to_string()))?.id();
        let (mut streams, mut more) = (Vec::new(), false);
        self.catalog().each(tenant, &request.prefix, request.after.as_deref(), |topic| {
            let is_shown = caller.may(Action::View, &topic.name) && check_is_stream(&topic).is_ok();
            if !is_shown || self.catalog().is_hidden(&topic)? {
                return Ok(true);
            }
            more = streams.len() >= request.limit;
            if more {
                return Ok(false);
            }
            match self.bounds_of(&topic) {
                Ok(bounds) => {
                    let view = StreamView::of(&topic, &bounds);
                    streams.push(StreamItem { name: topic.name, created_at: topic.created_at, view });
                }
                // Deleted since the list was read.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            Ok(true)
        })?;
        Ok(StreamsPage { streams, more })
    }
}
