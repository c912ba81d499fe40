//! When a stream ends by itself, as clients say it and as it is stored.

use std::sync::Arc;

use super::{Forked, Media};
use crate::broker::documents::{ExpiryDoc, StreamDoc};

/// When a stream ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many seconds after its last use: an append, a read, or the end of a connection that followed it.
    Ttl(u64),
    /// At a time.
    At {
        /// As it was given.
        text: String,
        /// In ms since the Unix epoch.
        ms: u64,
    },
}

/// What a topic is as a stream.
#[derive(Debug)]
pub(in crate::broker) struct Stream {
    pub(in crate::broker) media: Media,
    pub(in crate::broker) expiry: Option<Arc<Expiry>>,
    /// Of a fork.
    pub(in crate::broker) fork: Option<Box<Forked>>,
}

impl Expiry {
    /// The time to live, in ms.
    pub(in crate::broker) fn ttl_ms(&self) -> Option<u64> {
        match self {
            Self::Ttl(seconds) => Some(seconds.saturating_mul(1_000)),
            Self::At { .. } => None,
        }
    }

    /// Whether both are the same time, however it was written.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ttl(one), Self::Ttl(two)) => one == two,
            (Self::At { ms: one, .. }, Self::At { ms: two, .. }) => one == two,
            (Self::Ttl(_), Self::At { .. }) | (Self::At { .. }, Self::Ttl(_)) => false,
        }
    }

    pub(super) fn doc(&self) -> ExpiryDoc {
        match self {
            Self::Ttl(seconds) => ExpiryDoc::TtlS(*seconds),
            Self::At { text, ms } => ExpiryDoc::At { text: text.clone(), ms: *ms },
        }
    }
}

impl Stream {
    pub(in crate::broker) fn read(doc: &StreamDoc) -> Self {
        let expiry = doc.expiry.as_ref().map(|expiry| match expiry {
            ExpiryDoc::TtlS(seconds) => Arc::new(Expiry::Ttl(*seconds)),
            ExpiryDoc::At { text, ms } => Arc::new(Expiry::At { text: text.clone(), ms: *ms }),
        });
        let fork = doc.fork.as_ref().map(|fork| Box::new(Forked::read(fork)));
        Self { media: Media::new(&doc.content_type), expiry, fork }
    }
}
