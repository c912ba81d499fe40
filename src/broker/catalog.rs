//! The topics of each tenant: make, change, delete, list, and the look-up that every publish and read begins with.
//!
//! A topic is a document in the log. Those in use are held, decoded, in a bounded cache; a change removes its entry
//! before it is answered. Changes of one topic run one after the other.

pub(super) mod kept;
mod list;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use self::kept::apart;
pub use self::list::{TopicsPage, TopicsRequest};
use plinth_api::system::Happening;
use plinth_storage::ids::{Partition, PartitionIndex, TenantId, Timestamp, TopicId};
use plinth_storage::log::{Change, DocOp, Guard, Retention, TopicBounds, TopicOp};
use plinth_storage::{Cleanup, Durability, Kind, Log};
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, MutexGuard, broadcast};

use super::changes::Changes;
use super::documents::{self, RetentionDoc, TopicDoc};
use super::error::Error;
use super::quotas::TopicPlace;
use super::retention;
use super::settings::{TopicChange, TopicSettings, record_bytes_max};
use super::system::{self, Events};
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
}

/// The topics of all tenants.
pub(crate) struct Catalog {
    log: Log,
    known: Cache<TopicKey, Arc<Topic>>,
    made: broadcast::Sender<Arc<Topic>>,
    locks: Vec<Mutex<()>>,
    changes: Changes,
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
        }
    }
}

impl Catalog {
    pub(crate) fn new(log: Log, topics_max: usize) -> Self {
        Self {
            log,
            known: Cache::new(topics_max),
            made: broadcast::Sender::new(ANNOUNCEMENTS_MAX),
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            changes: Changes::default(),
            events: Events::default(),
        }
    }

    /// The topic, if it exists.
    ///
    /// # Errors
    /// Those of the log.
    pub(crate) fn find(&self, topic: &TopicRef) -> Result<Option<Arc<Topic>>, Error> {
        self.find_named(topic.tenant().id(), topic.shared_name())
    }

    /// The topic, to be read. A system topic is there for its readers before there is something in it.
    ///
    /// # Errors
    /// `NotFound`; those of the log.
    pub(crate) async fn get_to_read(self: &Arc<Self>, topic: &TopicRef) -> Result<Arc<Topic>, Error> {
        if SystemTopic::named(topic.name()).is_none() { self.get(topic) } else { self.get_or_make_system(topic).await }
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
        let (found, made) = match self.find(topic)? {
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
        apart(move || catalog.look(&topic)).await
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
            bounds,
        })
    }

    /// Changes the settings that are given.
    ///
    /// # Errors
    /// `Unprocessable`, `NotFound`; those of the log.
    pub(crate) async fn change(self: &Arc<Self>, topic: &TopicRef, change: TopicChange) -> Result<TopicView, Error> {
        let TopicChange { max_record_bytes, durability, retention, cleanup } = change;
        let retention = Some(retention.of(Retention::default()));
        TopicSettings { partitions: None, max_record_bytes, durability, retention, cleanup }.check()?;
        if change != TopicChange::default() {
            let (catalog, topic) = (Arc::clone(self), topic.clone());
            self.changes.run(async move { catalog.change_stored(&topic, change).await }).await?;
        }
        self.view(self.get(topic)?).await
    }

    /// Deletes the topic with its records.
    ///
    /// # Errors
    /// `NotFound`; those of the log.
    pub(crate) async fn delete(self: &Arc<Self>, topic: &TopicRef) -> Result<(), Error> {
        let (catalog, topic) = (Arc::clone(self), topic.clone());
        self.changes.run(async move { catalog.delete_stored(&topic).await }).await
    }

    /// The topics that a pattern shows now.
    ///
    /// # Errors
    /// Those of the log.
    pub(crate) fn matching(&self, pattern: &TopicPattern) -> Result<Vec<Arc<Topic>>, Error> {
        let mut topics = Vec::new();
        self.each(pattern.tenant().id(), pattern.prefix(), None, |topic| {
            if pattern.shows(&topic.name) {
                topics.push(Arc::new(topic));
            }
            Ok(true)
        })?;
        Ok(topics)
    }

    /// Announces the topics that are made from now on.
    pub(crate) fn announcements(&self) -> broadcast::Receiver<Arc<Topic>> {
        self.made.subscribe()
    }

    /// Reads the topic again at its next use.
    pub(crate) fn forget(&self, topic: &TopicRef) {
        self.known.remove(&TopicKeyRef { tenant: topic.tenant().id(), name: topic.name() });
    }

    /// Waits for the changes under way. Cancel safe.
    pub(crate) async fn close(&self) {
        self.changes.finish().await;
    }

    /// Calls `take` with each topic in order of name until it answers false.
    fn each(
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
        }
    }

    fn load(&self, tenant: TenantId, name: &Arc<str>) -> Result<Option<Topic>, Error> {
        let doc = documents::load::<TopicDoc>(&self.log, &documents::topic(tenant, name))?;
        Ok(doc.map(|doc| Topic::read(tenant, name, &doc)))
    }

    /// A topic that is given a class must be able to have it; one that has it keeps it.
    fn check_offered(&self, class: Durability) -> Result<(), Error> {
        if self.log.offers(class) {
            return Ok(());
        }
        Err(Error::Unprocessable(format!(
            "durability {class} is not offered now: the node has no cache directory that can be written"
        )))
    }

    async fn make(self: &Arc<Self>, topic: &TopicRef, settings: TopicSettings) -> Result<(Arc<Topic>, bool), Error> {
        let (catalog, topic) = (Arc::clone(self), topic.clone());
        self.changes.run(async move { catalog.make_stored(&topic, settings).await }).await
    }

    async fn make_stored(
        self: &Arc<Self>,
        topic: &TopicRef,
        settings: TopicSettings,
    ) -> Result<(Arc<Topic>, bool), Error> {
        let _one_at_a_time = self.lock(topic).await;
        if let Some(found) = self.find(topic)? {
            return Ok((found, false));
        }
        let durability = settings.durability.unwrap_or_default();
        self.check_offered(durability)?;
        let place = self.place(topic).await?;
        let (tenant, key) = (topic.tenant().id(), documents::topic(topic.tenant().id(), topic.name()));
        let doc = TopicDoc {
            v: documents::VERSION,
            id: self.log.new_ulid(),
            partitions: settings.partitions.unwrap_or(1),
            max_record_bytes: settings.max_record_bytes.unwrap_or(record_bytes_max()),
            retention: RetentionDoc::of(settings.retention.unwrap_or_default()),
            created_at: self.log.now().0,
            durability,
            cleanup: settings.cleanup.unwrap_or_default().into(),
        };
        let create = TopicOp::Create { topic: doc.id(), partitions: doc.partitions };
        let set = settings.retention.map(|retention| TopicOp::SetRetention { topic: doc.id(), retention });
        let clean = settings.cleanup.map(|cleanup| TopicOp::SetCleanup { topic: doc.id(), cleanup });
        let change = Change {
            guards: vec![Guard::Absent(key.clone()), Guard::Present(documents::tenant(tenant))],
            docs: vec![DocOp::Put(key, documents::encode(&doc))],
            topics: [Some(create), set, clean].into_iter().flatten().collect(),
        };
        match self.log.commit(change).await {
            Ok(()) => {}
            // Made by another, or the tenant was deleted.
            Err(error) if error.kind() == Kind::Conflict => return Ok((self.get(topic)?, false)),
            Err(error) => {
                // It may be there, or come.
                if error.kind() == Kind::Unknown {
                    topic.tenant().meter().lose_count();
                }
                return Err(error.into());
            }
        }
        place.into_iter().for_each(TopicPlace::keep);
        let made = Arc::new(Topic::read(tenant, topic.shared_name(), &doc));
        // Without a follower of patterns nobody listens.
        let _ = self.made.send(Arc::clone(&made));
        self.events.tell_of(topic, self.log.now(), |topic| Happening::TopicMade { topic });
        Ok((made, true))
    }

    async fn change_stored(&self, topic: &TopicRef, change: TopicChange) -> Result<(), Error> {
        let _one_at_a_time = self.lock(topic).await;
        let key = documents::topic(topic.tenant().id(), topic.name());
        let stored = self.log.get(&key)?.ok_or_else(|| absent(topic))?;
        let mut doc: TopicDoc = documents::decode(&key, &stored)?;
        let (before, retention) = (doc.retention.retention(), change.retention.of(doc.retention.retention()));
        if let Some(class) = change.durability.filter(|class| *class != doc.durability) {
            self.check_offered(class)?;
        }
        doc.max_record_bytes = change.max_record_bytes.unwrap_or(doc.max_record_bytes);
        doc.durability = change.durability.unwrap_or(doc.durability);
        doc.retention = RetentionDoc::of(retention);
        doc.cleanup = change.cleanup.map_or(doc.cleanup, Into::into);
        let set = (retention != before).then_some(TopicOp::SetRetention { topic: doc.id(), retention });
        let clean = change.cleanup.map(|cleanup| TopicOp::SetCleanup { topic: doc.id(), cleanup });
        let change = Change {
            guards: vec![Guard::Equals(key.clone(), stored)],
            docs: vec![DocOp::Put(key, documents::encode(&doc))],
            topics: set.into_iter().chain(clean).collect(),
        };
        let committed = self.log.commit(change).await;
        self.forget(topic);
        committed.map_err(|error| changed_meanwhile(topic, error))?;
        self.events.tell_of(topic, self.log.now(), |topic| Happening::TopicChanged { topic });
        Ok(())
    }

    async fn delete_stored(self: &Arc<Self>, topic: &TopicRef) -> Result<(), Error> {
        let _one_at_a_time = self.lock(topic).await;
        let key = documents::topic(topic.tenant().id(), topic.name());
        let stored = self.log.get(&key)?.ok_or_else(|| absent(topic))?;
        let doc: TopicDoc = documents::decode(&key, &stored)?;
        let change = Change {
            guards: vec![Guard::Equals(key.clone(), stored)],
            docs: vec![DocOp::Delete(key)],
            topics: vec![TopicOp::Delete { topic: doc.id() }],
        };
        let committed = self.log.commit(change).await;
        self.forget(topic);
        self.note_deletion(topic, committed.as_ref().err());
        committed.map_err(|error| changed_meanwhile(topic, error))?;
        self.events.tell_of(topic, self.log.now(), |topic| Happening::TopicDeleted { topic });
        Ok(())
    }

    async fn lock(&self, topic: &TopicRef) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        (topic.tenant().id(), topic.name()).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % LOCKS as u64).expect("a remainder of a small number");
        self.locks[place].lock().await
    }
}

/// The error for a topic that does not exist, or is another tenant's.
pub(crate) fn absent(topic: &TopicRef) -> Error {
    Error::NotFound(format!("there is no topic {}", topic.name()))
}

/// What an error of the log means for the topic `name`: one that it does not know was deleted.
pub(crate) fn gone(name: &str, error: plinth_storage::Error) -> Error {
    if error.kind() == Kind::NotFound { Error::NotFound(format!("there is no topic {name}")) } else { error.into() }
}

fn changed_meanwhile(topic: &TopicRef, error: plinth_storage::Error) -> Error {
    if error.kind() == Kind::Conflict {
        Error::Conflict(format!("topic {} was changed by another request at the same moment", topic.name()))
    } else {
        error.into()
    }
}
