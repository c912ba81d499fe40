//! Decisions: which topic, which partition, where reading goes on. The log does the rest.
//!
//! Every method takes a proof that only `auth` can make. Knows nothing of HTTP, WebSockets or JSON requests.

mod batch;
mod catalog;
pub(crate) mod changes;
pub(crate) mod cursor;
pub(crate) mod documents;
mod error;
mod follow;
mod from;
mod offline;
mod page;
mod publish;
pub(crate) mod quotas;
mod retention;
mod settings;
mod streams;
mod system;
mod terms;
mod wakes;

use std::sync::Arc;

use bytes::Bytes;
use plinth_api::limits::{PAGES_HELD_BYTES_MAX, PUBLISHES_HELD_BYTES_MAX};
use plinth_storage::Log;
use plinth_storage::log::{Change, DocOp, Guard};
use tokio_util::sync::DropGuard;

pub use self::batch::FollowedBatch;
use self::catalog::Catalog;
pub use self::catalog::{TopicView, TopicsPage, TopicsRequest};
use self::cursor::CursorKey;
use self::documents::CursorKeyDoc;
pub use self::error::Error;
pub use self::follow::{Event, FollowRequest, Follower, SlowPolicy};
pub use self::from::From;
pub use self::offline::{NamedTopic, named_topics};
pub use self::page::{Page, PageGap, PageRequest, Unit};
pub use self::publish::{Publish, Published, PublishedPart};
use self::quotas::{Capacity, Held};
pub use self::quotas::{Exceeded, KeyMeter, Left, Look, Meter, Meters, Opened, Room, UsageFigures, Whose};
pub use self::retention::{Before, RetentionChange, Trimmed, retention_age_ms, retention_bytes};
pub use self::settings::{TopicChange, TopicSettings};
pub use self::streams::{
    Expiry, ForkFrom, GivenToken, StreamAppend, StreamAppended, StreamConfig, StreamFollower, StreamFrom, StreamItem,
    StreamMoved, StreamPage, StreamProducer, StreamView, StreamsPage, TOKEN_BYTES, Token,
};
use self::system::Events;
pub use self::system::{Note, SYSTEM_RETENTION_MS, System, UsageRange};
pub use self::terms::{ProducerTerm, Terms};
pub use self::wakes::{
    Ack, Acked, Claimed, LinkView, TokenKind, WakeBearer, WakeCode, WakeError, WakeRef, WakeRequest, WakeView, Wakes,
};
use crate::auth::{Account, Action, Caller, TenantRef, TopicRef};
use crate::render::RenderCache;

/// Bounds of what the broker holds in memory.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Rendered batches, in bytes.
    pub render_bytes_max: u64,
    /// Topics whose settings are held decoded.
    pub topics_max: usize,
}

/// Publishes, reads and manages topics. Cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

struct Shared {
    log: Log,
    catalog: Arc<Catalog>,
    cursors: CursorKey,
    rendered: RenderCache,
    publishes: Arc<Capacity>,
    pages: Arc<Capacity>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self { render_bytes_max: 64 * 1024 * 1024, topics_max: 100_000 }
    }
}

impl Broker {
    /// Opens the broker over a log; makes the cluster's cursor key if there is none.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn open(log: Log, options: BrokerOptions) -> Result<Self, Error> {
        let cursors = cursor_key(&log).await?;
        let catalog = Arc::new(Catalog::of(log.clone(), options.topics_max)?);
        let rendered = RenderCache::new(options.render_bytes_max);
        let publishes = Capacity::new(Held::Publishes, PUBLISHES_HELD_BYTES_MAX);
        let pages = Capacity::new(Held::Pages, PAGES_HELD_BYTES_MAX);
        Ok(Self(Arc::new(Shared { log, catalog, cursors, rendered, publishes, pages })))
    }

    /// The log below.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// Makes the topic, or checks that it has these settings; true when it was made. Cancel safe: a caller that stops
    /// waiting does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for settings over their limits; `Conflict` when it has others; those of the log.
    pub async fn ensure_topic(&self, topic: &TopicRef, settings: TopicSettings) -> Result<(TopicView, bool), Error> {
        managed(topic)?;
        self.catalog().ensure(topic, settings).await
    }

    /// The topic with the bounds of its partitions. Cancel safe.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn topic(&self, topic: &TopicRef) -> Result<TopicView, Error> {
        self.catalog().view(self.catalog().get(topic)?).await
    }

    /// Changes the settings that are given, for later records. Cancel safe as [`Broker::ensure_topic`].
    ///
    /// # Errors
    /// `Unprocessable` over their limits; `NotFound`.
    pub async fn change_topic(&self, topic: &TopicRef, change: TopicChange) -> Result<TopicView, Error> {
        managed(topic)?;
        self.catalog().change(topic, change).await
    }

    /// Deletes the topic with its records. Cancel safe as [`Broker::ensure_topic`].
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_topic(&self, topic: &TopicRef) -> Result<(), Error> {
        managed(topic)?;
        self.catalog().delete(topic).await
    }

    /// A page of the topics that the caller may see, by name. Cancel safe.
    ///
    /// # Errors
    /// `Invalid` for the root key outside a tenant; those of the log.
    pub async fn list_topics(&self, caller: &Caller, request: TopicsRequest) -> Result<TopicsPage, Error> {
        self.catalog().list(caller, request).await
    }

    /// Stored bytes of all topics of a tenant that are kept, but for those of the system. Cancel safe.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn stored_bytes(&self, tenant: &TenantRef) -> Result<u64, Error> {
        self.catalog().stored_bytes(tenant).await
    }

    /// Room for a publish with a body of so many bytes, on an account; before the work for it begins.
    ///
    /// # Errors
    /// `Busy` when the node is full, or when publishes of the tenant hold more than is free.
    pub fn room(&self, account: &Account, body: u64) -> Result<Room, Error> {
        self.0.publishes.enter(account.tenant().meter(), body)
    }

    /// Room for a page that holds batches of so many bytes, until it is sent.
    ///
    /// # Errors
    /// `Busy` when the node is full, or when pages of the tenant hold more than is free.
    pub fn room_of_page(&self, account: &Account, batches: u64) -> Result<Room, Error> {
        self.0.pages.enter(account.tenant().meter(), batches)
    }

    /// Counts what a tenant keeps, for [`Meter::held`], unless that was done. Cancel safe.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn count_kept(&self, tenant: &TenantRef) -> Result<(), Error> {
        self.catalog().count_once(tenant).await
    }

    /// Ends long looks when it is dropped.
    #[must_use = "it ends them when it is dropped"]
    pub fn looks_end(&self) -> DropGuard {
        self.catalog().changes().until_dropped()
    }

    /// Cuts long looks off and waits for the changes of topics under way; before the log is closed. Cancel safe.
    pub async fn close(&self) {
        self.catalog().changes().finish().await;
    }

    fn catalog(&self) -> &Arc<Catalog> {
        &self.0.catalog
    }

    /// Where it is told what happens to tenants.
    fn events(&self) -> &Events {
        &self.catalog().events
    }

    fn cursors(&self) -> &CursorKey {
        &self.0.cursors
    }
}

fn managed(topic: &TopicRef) -> Result<(), Error> {
    proved(topic.action(), Action::Manage)
}

/// A proof of another action is a defect of the caller, and is refused.
fn proved(proof: Action, wanted: Action) -> Result<(), Error> {
    if proof == wanted {
        return Ok(());
    }
    Err(Error::defect(format!("the broker was asked to {wanted} with the proof for {proof}")))
}

/// The cluster's cursor key; made if there is none.
///
/// # Errors
/// Those of the log.
pub(crate) async fn cursor_key(log: &Log) -> Result<CursorKey, Error> {
    if let Some(doc) = documents::load::<CursorKeyDoc>(log, documents::CURSOR_KEY)? {
        return Ok(CursorKey(doc.key));
    }
    let key = crate::auth::random_bytes::<32>();
    let name = Bytes::from_static(documents::CURSOR_KEY);
    let doc = documents::encode(&CursorKeyDoc { v: documents::VERSION, key });
    let guards = vec![Guard::Absent(name.clone())];
    log.commit(Change { guards, docs: vec![DocOp::Put(name, doc)], topics: vec![] }).await?;
    Ok(CursorKey(key))
}

#[cfg(test)]
mod tests;
