//! The topics of each tenant: make, change, delete, list, and the look-up that every publish and read begins with.
//!
//! A topic is a document in the log. Those in use are held, decoded, in a bounded cache; a change removes its entry
//! before it is answered. Changes of one topic run one after the other.

mod change;
mod deletion;
mod ending;
pub(super) mod kept;
mod list;
mod tails;

use std::hash::Hash;
use std::sync::Arc;

use self::change::Deleted;
pub(super) use self::change::StreamBegin;
pub(super) use self::ending::Open;
pub(super) use self::kept::is_reserved;
pub use self::list::{TopicsPage, TopicsRequest};
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TenantId, Timestamp, TopicId};
use plinth_storage::log::{Bounds, Retention, TopicBounds};
use plinth_storage::{Cleanup, Durability, Kind, Log};
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, broadcast};

use super::changes::Changes;
use super::documents::{self, TopicDoc};
use super::error::Error;
use super::retention;
use super::settings::TopicSettings;
use super::streams::{Expiry, Forked, Media, Readable, SharedTags, Stream, StreamView, Token, Touches};
use super::system::{self, Events};
use super::wakes::moved::Moved;
use crate::auth::{SystemTopic, TopicPattern, TopicRef};

/// Announcements of new topics that a follower may be behind before it looks through the list again.
const ANNOUNCEMENTS_MAX: usize = 256;
/// Locks over which the names of topics are spread.
const LOCKS: usize = 256;
/// Rows that one look at a list takes.
const LIST_STEP: usize = 500;

/// A topic with the bounds of its partitions.
#[derive(Clone, Debug)]
pub struct TopicView {
    /// The name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// The largest payload of a record, in bytes.
    pub max_record_bytes: u32,
    /// The durability class.
    pub durability: Durability,
    /// How much is kept.
    pub retention: Retention,
    /// What happens to records besides.
    pub cleanup: Cleanup,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many forks share its records.
    pub forks: u32,
    /// What it is as a stream, if it was made as one.
    pub stream: Option<StreamView>,
    /// Of its partitions.
    pub bounds: TopicBounds,
}

/// A topic as the log knows it.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) tenant: TenantId,
    pub(crate) name: Arc<str>,
    pub(crate) partitions: u32,
    pub(crate) max_record_bytes: u32,
    pub(crate) durability: Durability,
    pub(crate) retention: Retention,
    pub(crate) cleanup: Cleanup,
    pub(crate) created_at: Timestamp,
    /// What one is that was made as a stream.
    stream: Option<Stream>,
    /// Whether it was deleted and its records are kept for its forks.
    deleted: bool,
}

/// The topics of all tenants.
pub(crate) struct Catalog {
    log: Log,
    known: Cache<TopicKey, Arc<Topic>>,
    made: broadcast::Sender<Arc<Topic>>,
    /// Who holds one makes or deletes a topic.
    locks: Vec<Mutex<Deleted>>,
    changes: Changes,
    touches: Touches,
    moved: Moved,
    pub(super) events: Events,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TopicKey {
    tenant: TenantId,
    name: Arc<str>,
}

/// A key by reference: hashes as [`TopicKey`] does.
#[derive(Hash)]
struct TopicKeyRef<'a> {
    tenant: TenantId,
    name: &'a str,
}

impl Equivalent<TopicKey> for TopicKeyRef<'_> {
    fn equivalent(&self, key: &TopicKey) -> bool {
        self.tenant == key.tenant && *self.name == *key.name
    }
}

impl Topic {
    /// One partition of it.
    pub(crate) fn partition(&self, index: u32) -> Partition {
        Partition { topic: self.id, index: PartitionIndex(index) }
    }

    /// The partitions to read: all, or the one that was asked for.
    ///
    /// # Errors
    /// `Invalid` when there is no such partition.
    pub(crate) fn chosen(&self, partition: Option<u32>) -> Result<std::ops::Range<u32>, Error> {
        match partition {
            None => Ok(0..self.partitions),
            Some(index) if index < self.partitions => Ok(index..index + 1),
            Some(index) => Err(Error::Invalid(format!(
                "partition {index} does not exist: topic {} has {} partitions, counted from 0",
                self.name, self.partitions
            ))),
        }
    }

    fn read(tenant: TenantId, name: &Arc<str>, doc: &TopicDoc) -> Self {
        Self {
            id: doc.id(),
            tenant,
            name: Arc::clone(name),
            partitions: doc.partitions,
            max_record_bytes: doc.max_record_bytes,
            durability: doc.durability,
            retention: doc.retention.retention(),
            cleanup: doc.cleanup.into(),
            created_at: Timestamp(doc.created_at),
            stream: doc.stream.as_ref().map(Stream::read),
            deleted: doc.deleted_at.is_some(),
        }
    }

    /// The media type of it as a stream.
    pub(super) fn media(&self) -> &Media {
        self.stream_media().unwrap_or(Media::default_one())
    }

    /// The media type of one that was made as a stream.
    pub(super) fn stream_media(&self) -> Option<&Media> {
        self.stream.as_ref().map(|stream| &stream.media)
    }

    /// When it ends by itself.
    pub(super) fn expiry(&self) -> Option<&Arc<Expiry>> {
        self.stream.as_ref()?.expiry.as_ref()
    }

    /// After how long without use it ends, in ms.
    pub(super) fn ttl_ms(&self) -> Option<u64> {
        self.expiry()?.ttl_ms()
    }

    /// What tells its offsets from those of earlier topics of the name: its creation, later than theirs by 1 ms at least.
    pub(super) fn tag(&self) -> u64 {
        self.created_at.0
    }

    /// What it is a fork of.
    pub(super) fn forked(&self) -> Option<&Forked> {
        self.stream.as_ref()?.fork.as_deref()
    }

    /// The tags of what it is a fork of.
    fn shared_tags(&self) -> &SharedTags {
        self.forked().map_or(&[], |fork| &fork.tags)
    }

    /// A position in it, as a stream.
    pub(super) fn token(&self, offset: Offset) -> Token {
        Token::shared(self.shared_tags(), self.tag(), offset)
    }

    /// What is readable of it, as a stream.
    pub(super) fn readable(&self, bounds: &Bounds) -> Readable<'_> {
        Readable { tag: self.tag(), shared: self.shared_tags(), start: bounds.start, tail: bounds.tail }
    }
}

impl Catalog {
    /// # Errors
    /// Those of the log.
    pub(crate) fn of(log: Log, topics_max: usize) -> Result<Self, Error> {
        let newest = documents::newest_deleted(&log)?;
        Ok(Self {
            touches: Touches::new(log.now()),
            log,
            known: Cache::new(topics_max),
            made: broadcast::Sender::new(ANNOUNCEMENTS_MAX),
            locks: (0..LOCKS).map(|place| Mutex::new(Deleted { place, newest })).collect(),
            changes: Changes::default(),
            moved: Moved::default(),
            events: Events::default(),
        })
    }

    /// The topic, if it exists and is not a stream that is over.
    ///
    /// # Errors
    /// `Gone` for one that was deleted, or is over, and has forks; those of the log.
    pub(crate) fn find(&self, topic: &TopicRef) -> Result<Option<Arc<Topic>>, Error> {
        match self.find_named(topic.tenant().id(), topic.shared_name())? {
            Some(found) if found.deleted => Err(kept_for_forks(&found.name)),
            Some(found) if self.is_over(&found)? => match self.log.forks(found.id)? {
                0 => Ok(None),
                _ => Err(kept_for_forks(&found.name)),
            },
            found => Ok(found),
        }
    }

    /// The topic, to be read, which is a use of it. A system topic is there for its readers before there is something in it.
    ///
    /// # Errors
    /// `NotFound`; those of the log.
    pub(crate) async fn get_to_read(self: &Arc<Self>, topic: &TopicRef) -> Result<Arc<Topic>, Error> {
        if SystemTopic::named(topic.name()).is_some() {
            return self.get_or_make_system(topic).await;
        }
        let found = self.get(topic)?;
        self.touch(&found).await?;
        Ok(found)
    }

    /// A system topic.
    ///
    /// # Errors
    /// `NotFound` when its tenant was deleted; those of the log.
    pub(crate) async fn get_or_make_system(self: &Arc<Self>, topic: &TopicRef) -> Result<Arc<Topic>, Error> {
        self.get_or_make_as(topic, system::settings()).await
    }

    fn find_named(&self, tenant: TenantId, name: &Arc<str>) -> Result<Option<Arc<Topic>>, Error> {
        if let Some(known) = self.known.get(&TopicKeyRef { tenant, name }) {
            return Ok(Some(known));
        }
        // An entry that is forgotten while it is being read is not kept: the cache refuses it.
        let key = TopicKey { tenant, name: Arc::clone(name) };
        let loaded = self.known.get_or_insert_with(&key, || match self.load(tenant, name) {
            Ok(Some(topic)) => Ok(Arc::new(topic)),
            Ok(None) => Err(None),
            Err(error) => Err(Some(error)),
        });
        match loaded {
            Ok(topic) => Ok(Some(topic)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// The topic.
    ///
    /// # Errors
    /// `NotFound`; those of the log.
    pub(crate) fn get(&self, topic: &TopicRef) -> Result<Arc<Topic>, Error> {
        self.find(topic)?.ok_or_else(|| absent(topic))
    }

    /// The topic, made with defaults if it does not exist and the caller may make it.
    ///
    /// # Errors
    /// `NotFound`; those of the log.
    pub(crate) async fn get_or_make(self: &Arc<Self>, topic: &TopicRef) -> Result<Arc<Topic>, Error> {
        self.get_or_make_as(topic, TopicSettings::default()).await
    }

    async fn get_or_make_as(self: &Arc<Self>, topic: &TopicRef, settings: TopicSettings) -> Result<Arc<Topic>, Error> {
        match self.find(topic)? {
            Some(found) => Ok(found),
            None if topic.may_create() => Ok(self.make(topic, settings).await?.0),
            None => Err(absent(topic)),
        }
    }

    /// Makes the topic, or checks that it has the settings; true when it was made.
    ///
    /// # Errors
    /// `Unprocessable` for settings over their limits; `Conflict` when it has others; `QuotaExceeded`; those of the log.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        topic: &TopicRef,
        settings: TopicSettings,
    ) -> Result<(TopicView, bool), Error> {
        settings.check()?;
        let (found, made) = match self.find(topic).map_err(blocked)? {
            Some(found) => (found, false),
            None => self.make(topic, settings).await?,
        };
        if settings.partitions.is_some_and(|wanted| wanted != found.partitions) {
            return Err(Error::Conflict(format!("topic {} has {} partitions", found.name, found.partitions)));
        }
        if settings.max_record_bytes.is_some_and(|wanted| wanted != found.max_record_bytes) {
            let limit = found.max_record_bytes;
            return Err(Error::Conflict(format!("topic {} has max_record_bytes {limit}", found.name)));
        }
        if settings.durability.is_some_and(|wanted| wanted != found.durability) {
            return Err(Error::Conflict(format!("topic {} has durability {}", found.name, found.durability)));
        }
        if settings.retention.is_some_and(|wanted| wanted != found.retention) {
            let has = retention::words(&found.retention);
            return Err(Error::Conflict(format!("topic {} has {has}", found.name)));
        }
        if settings.cleanup.is_some_and(|wanted| wanted != found.cleanup) {
            return Err(Error::Conflict(format!("topic {} has cleanup {}", found.name, found.cleanup)));
        }
        Ok((self.view(found).await?, made))
    }

    /// The topic with its bounds. Cancel safe.
    ///
    /// # Errors
    /// `NotFound` when it was deleted; those of the log.
    pub(crate) async fn view(self: &Arc<Self>, topic: Arc<Topic>) -> Result<TopicView, Error> {
        let catalog = Arc::clone(self);
        self.changes.apart(move || catalog.look(&topic)).await
    }

    fn look(&self, topic: &Topic) -> Result<TopicView, Error> {
        let bounds = self.log.topic_bounds(topic.id, topic.partitions).map_err(|error| gone(&topic.name, error))?;
        Ok(TopicView {
            name: Arc::clone(&topic.name),
            partitions: topic.partitions,
            max_record_bytes: topic.max_record_bytes,
            durability: topic.durability,
            retention: topic.retention,
            cleanup: topic.cleanup,
            created_at: topic.created_at,
            forks: if topic.partitions == 1 { self.log.forks(topic.id)? } else { 0 },
            stream: topic.stream.as_ref().zip(bounds.partitions.first()).map(|(_, end)| StreamView::of(topic, end)),
            bounds,
        })
    }

    /// The topics that a pattern shows now. Cancel safe.
    ///
    /// # Errors
    /// Those of the log.
    pub(crate) async fn matching(self: &Arc<Self>, pattern: TopicPattern) -> Result<Vec<Arc<Topic>>, Error> {
        let catalog = Arc::clone(self);
        let matching = move || {
            let mut topics = Vec::new();
            catalog.each(pattern.tenant().id(), pattern.prefix(), None, |topic| {
                if pattern.shows(&topic.name) && !catalog.is_hidden(&topic)? {
                    topics.push(Arc::new(topic));
                }
                Ok(true)
            })?;
            Ok(topics)
        };
        self.changes.apart(matching).await
    }

    /// Announces the topics that are made from now on.
    pub(crate) fn announcements(&self) -> broadcast::Receiver<Arc<Topic>> {
        self.made.subscribe()
    }

    /// Reads the topic again at its next use.
    pub(crate) fn forget(&self, topic: &TopicRef) {
        self.known.remove(&TopicKeyRef { tenant: topic.tenant().id(), name: topic.name() });
    }

    /// When streams were last used.
    pub(super) fn touches(&self) -> &Touches {
        &self.touches
    }

    /// Changes, and looks that are made apart.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Calls `take` with each topic in order of name until it answers false, or the node ends.
    pub(super) fn each(
        &self,
        tenant: TenantId,
        prefix: &str,
        after: Option<&str>,
        mut take: impl FnMut(Topic) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let (all, prefix) = (documents::topics(tenant, ""), documents::topics(tenant, prefix));
        let mut after = after.map(|name| documents::topic(tenant, name));
        if after.as_ref().is_some_and(|after| *after > prefix && !after.starts_with(&prefix)) {
            return Ok(());
        }
        loop {
            let begun = after.as_deref().filter(|after| after.starts_with(&prefix));
            let rows = self.log.scan(&prefix, begun, LIST_STEP)?;
            for (key, stored) in &rows {
                let name: Arc<str> = String::from_utf8_lossy(&key[all.len()..]).into();
                if !take(Topic::read(tenant, &name, &documents::decode(key, stored)?))? {
                    return Ok(());
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == LIST_STEP => after = Some(last.clone()),
                Some(_) | None => return Ok(()),
            }
            self.changes.go_on()?;
        }
    }

    fn load(&self, tenant: TenantId, name: &Arc<str>) -> Result<Option<Topic>, Error> {
        let doc = documents::load::<TopicDoc>(&self.log, &documents::topic(tenant, name))?;
        Ok(doc.map(|doc| Topic::read(tenant, name, &doc)))
    }
}

/// The error for a topic that does not exist, or is another tenant's.
pub(crate) fn absent(topic: &TopicRef) -> Error {
    Error::NotFound(format!("there is no topic {}", topic.name()))
}

/// The error for a topic that was deleted and has forks.
fn kept_for_forks(name: &str) -> Error {
    Error::Gone(format!("topic {name} was deleted; what it shares with forks is kept until they are deleted too"))
}

/// The error for making one in its place.
pub(super) fn blocked(error: Error) -> Error {
    if let Error::Gone(why) = error { Error::Conflict(why) } else { error }
}

/// What an error of the log means for the topic `name`: one that it does not know was deleted.
pub(crate) fn gone(name: &str, error: plinth_storage::Error) -> Error {
    if error.kind() == Kind::NotFound { Error::NotFound(format!("there is no topic {name}")) } else { error.into() }
}
