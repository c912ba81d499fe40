//! What is shown of a subscription.

use std::sync::Arc;

use plinth_api::wakes::{LinkType, WakeStream};

use super::Wakes;
use super::links::Link;
use super::turn;
use crate::broker::documents::{WakeBy, WakeDoc};

/// A subscription as it is now.
#[derive(Clone, Debug)]
pub struct WakeView {
    /// The id.
    pub id: Arc<str>,
    /// The address of its webhook.
    pub webhook: Option<String>,
    /// The stream in which its wakes are told.
    pub wake_stream: Option<String>,
    /// The glob.
    pub pattern: Option<String>,
    /// The streams that it is linked with, by name.
    pub links: Vec<LinkView>,
    /// How long a wake may take without a sign of life.
    pub lease_ttl_ms: u64,
    /// For people.
    pub description: Option<String>,
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
    /// Whether its webhook was called in vain and will be called again.
    pub has_failed: bool,
    /// Where clients reach the streams of the node.
    pub root: String,
    /// The id of the key that its webhook's calls are signed with.
    pub key_id: String,
}

/// A stream of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Its name.
    pub stream: Arc<str>,
    /// Whether it was named.
    pub explicit: bool,
    /// What is done with.
    pub acked: String,
    /// Its end.
    pub tail: String,
    /// Whether there is something between both.
    pub pending: bool,
}

impl From<&Link> for LinkView {
    fn from(link: &Link) -> Self {
        Self {
            stream: Arc::clone(&link.stream),
            explicit: link.explicit,
            acked: link.acked_text(),
            tail: link.tail_text(),
            pending: link.is_pending(),
        }
    }
}

impl LinkView {
    /// How it came to be linked.
    #[must_use]
    pub fn kind(&self) -> LinkType {
        if self.explicit { LinkType::Explicit } else { LinkType::Glob }
    }
}

impl From<LinkView> for WakeStream {
    fn from(link: LinkView) -> Self {
        Self {
            link_type: link.kind(),
            path: link.stream.to_string(),
            acked_offset: link.acked,
            tail_offset: link.tail,
            has_pending: link.pending,
        }
    }
}

impl Wakes {
    pub(super) fn view(&self, id: &Arc<str>, doc: WakeDoc, links: &[Link]) -> WakeView {
        let has_failed = turn::has_failed(&doc);
        let (webhook, wake_stream) = match doc.by {
            WakeBy::Webhook { url } => (Some(url), None),
            WakeBy::Pull { stream } => (None, Some(stream)),
        };
        WakeView {
            id: Arc::clone(id),
            webhook,
            wake_stream,
            pattern: doc.pattern,
            links: links.iter().map(LinkView::from).collect(),
            lease_ttl_ms: doc.lease_ttl_ms,
            description: doc.description,
            created_at: doc.created_at,
            has_failed,
            root: doc.root,
            key_id: self.0.signers.key_id().to_owned(),
        }
    }
}
