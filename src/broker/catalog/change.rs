//! Changes of topics: make, change, delete. Each is one commit, and the changes of one topic run one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use plinth_api::system::Happening;
use plinth_storage::ids::{TenantId, TopicId};
use plinth_storage::log::{Change, DocOp, First, ForkPoint, Guard, Retention, TopicOp};
use plinth_storage::record::Batch;
use plinth_storage::{Cleanup, Durability, Kind};
use tokio::sync::MutexGuard;

use super::{Catalog, LOCKS, Topic, TopicView, absent, blocked, kept_for_forks};
use crate::auth::TopicRef;
use crate::broker::documents::{self, ExpiryDoc, ForkDoc, RetentionDoc, StreamDoc, StreamTtlDoc, TopicDoc};
use crate::broker::error::Error;
use crate::broker::quotas::TopicPlace;
use crate::broker::settings::{TopicChange, TopicSettings, record_bytes_max};

/// What the changes of some names, which run one after the other, know of the topics that they have deleted.
#[derive(Debug)]
pub(super) struct Deleted {
    pub(super) place: usize,
    /// The newest creation among them: later topics of their names are made later, so that their offsets are told apart.
    pub(super) newest: u64,
}

impl Deleted {
    /// Notes a topic that is to be deleted. What it gives is stored with the deletion: a start knows it, whatever its clock says.
    pub(super) fn note(&mut self, doc: &TopicDoc) -> DocOp {
        self.newest = self.newest.max(doc.created_at);
        documents::put_newest_deleted(self.place, self.newest)
    }
}

/// What a topic that is made as a stream begins with.
#[derive(Debug)]
pub(in crate::broker) struct StreamBegin {
    /// The media type.
    pub(in crate::broker) content_type: String,
    /// The first records.
    pub(in crate::broker) batch: Option<Batch>,
    /// Whether nothing comes after them.
    pub(in crate::broker) close: bool,
    /// When it ends by itself.
    pub(in crate::broker) expiry: Option<ExpiryDoc>,
    /// What it is a fork of, and where it leaves it.
    pub(in crate::broker) fork: Option<(ForkDoc, ForkPoint)>,
}

impl Catalog {
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

    /// A topic that is given a class must be able to have it; one that has it keeps it.
    fn check_offered(&self, class: Durability) -> Result<(), Error> {
        if self.log.offers(class) {
            return Ok(());
        }
        Err(Error::Unprocessable(format!(
            "durability {class} is not offered now: the node has no cache directory that can be written"
        )))
    }

    /// Makes the topic, or finds it; true when it was made.
    ///
    /// # Errors
    /// `QuotaExceeded`, `Unprocessable` for a class that is not offered; those of the log.
    pub(super) async fn make(
        self: &Arc<Self>,
        topic: &TopicRef,
        settings: TopicSettings,
    ) -> Result<(Arc<Topic>, bool), Error> {
        let (catalog, topic) = (Arc::clone(self), topic.clone());
        self.changes.run(async move { catalog.make_stored(&topic, settings, None).await }).await
    }

    /// Makes a stream with what it begins with, or finds a topic; true when it was made.
    ///
    /// # Errors
    /// As for a topic.
    pub(in crate::broker) async fn make_stream(
        self: &Arc<Self>,
        topic: &TopicRef,
        begin: StreamBegin,
    ) -> Result<(Arc<Topic>, bool), Error> {
        let (catalog, topic) = (Arc::clone(self), topic.clone());
        let settings = TopicSettings::default();
        self.changes.run(async move { catalog.make_stored(&topic, settings, Some(begin)).await }).await
    }

    async fn make_stored(
        self: &Arc<Self>,
        topic: &TopicRef,
        settings: TopicSettings,
        begin: Option<StreamBegin>,
    ) -> Result<(Arc<Topic>, bool), Error> {
        let mut deleted = self.lock(topic.tenant().id(), topic.name()).await;
        if let Some(found) = self.find(topic).map_err(blocked)? {
            return Ok((found, false));
        }
        self.check_offered(settings.durability.unwrap_or_default())?;
        let place = self.place(topic).await?;
        let tenant = topic.tenant().id();
        let over = documents::load_stored::<TopicDoc>(&self.log, &documents::topic(tenant, topic.name()))?;
        if let Some((doc, _)) = &over {
            let found = Topic::read(tenant, topic.shared_name(), doc);
            // What is there and was not found is a stream that is over, or came this moment.
            if !self.is_over(&found)? {
                return Ok((Arc::new(found), false));
            }
        }
        let mut change = Change::default();
        change.docs.extend(over.as_ref().map(|(doc, _)| deleted.note(doc)));
        let doc = self.compose(settings, begin.as_ref(), deleted.newest + 1);
        let replaced = match over {
            Some(over) => Some(self.add_deletion(&mut change, (tenant, topic.shared_name()), over)?),
            None => {
                change.guards.push(Guard::Absent(documents::topic(tenant, topic.name())));
                None
            }
        };
        let fork = begin.as_ref().and_then(|begin| begin.fork.as_ref()).map(|(_, point)| *point);
        add_making(&mut change, topic, settings, &doc, fork);
        let made = Arc::new(Topic::read(tenant, topic.shared_name(), &doc));
        let committed = self.commit(change, &made, begin).await;
        if let Some(over) = &replaced {
            self.note(topic.tenant(), over, committed.as_ref().err());
        }
        match committed {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Conflict => return self.met(topic, error),
            Err(error) => {
                // It may be there, or come.
                if error.kind() == Kind::Unknown {
                    topic.tenant().meter().lose_count();
                }
                return Err(error.into());
            }
        }
        place.into_iter().for_each(TopicPlace::keep);
        if replaced.is_some() {
            self.events.tell_of(topic, self.log.now(), |topic| Happening::TopicDeleted { topic });
        }
        self.moved.note(tenant, &made.name);
        // Without a follower of patterns nobody listens.
        let _ = self.made.send(Arc::clone(&made));
        self.events.tell_of(topic, self.log.now(), |topic| Happening::TopicMade { topic });
        Ok((made, true))
    }

    /// What is there instead of a topic that was to be made: made by another, or the tenant was deleted, or what the topic was to
    /// be a fork of cannot be forked.
    fn met(&self, topic: &TopicRef, error: plinth_storage::Error) -> Result<(Arc<Topic>, bool), Error> {
        if let Some(found) = self.find(topic).map_err(blocked)? {
            return Ok((found, false));
        }
        let is_there = self.log.get(&documents::tenant(topic.tenant().id()))?.is_some();
        Err(if is_there { error.into() } else { absent(topic) })
    }

    /// The document of a new topic, which is made at `not_before` ms or later.
    fn compose(&self, settings: TopicSettings, begin: Option<&StreamBegin>, not_before: u64) -> TopicDoc {
        let fork = begin.and_then(|begin| begin.fork.as_ref()).map(|(doc, _)| doc);
        // A fork is younger than its source: its tokens sort behind those that both share.
        let source = fork.and_then(|fork| fork.tags.last()).map_or(0, |(tag, _)| tag + 1);
        TopicDoc {
            v: documents::VERSION,
            id: self.log.new_ulid(),
            partitions: settings.partitions.unwrap_or(1),
            max_record_bytes: settings.max_record_bytes.unwrap_or(record_bytes_max()),
            retention: RetentionDoc::of(settings.retention.unwrap_or_default()),
            created_at: self.log.now().0.max(not_before).max(source),
            durability: settings.durability.unwrap_or_default(),
            cleanup: settings.cleanup.unwrap_or_default().into(),
            stream: begin.map(|begin| StreamDoc {
                content_type: begin.content_type.clone(),
                expiry: begin.expiry.clone(),
                fork: fork.cloned(),
            }),
            deleted_at: None,
        }
    }

    /// Commits the change that makes a topic, with what it begins with.
    async fn commit(
        &self,
        change: Change,
        made: &Topic,
        begin: Option<StreamBegin>,
    ) -> Result<(), plinth_storage::Error> {
        let Some(StreamBegin { batch, close, .. }) = begin else { return self.log.commit(change).await };
        self.log.create(change, First { partition: made.partition(0), batch, close }).await.map(drop)
    }

    async fn change_stored(&self, topic: &TopicRef, change: TopicChange) -> Result<(), Error> {
        let _one_at_a_time = self.lock(topic.tenant().id(), topic.name()).await;
        let (key, mut doc, stored) = self.stored(topic)?;
        if doc.stream.is_some() && change.cleanup == Some(Cleanup::Compact) {
            let name = topic.name();
            return Err(Error::Conflict(format!(
                "topic {name} is a stream: its records have no keys to be cleaned by"
            )));
        }
        if change.cleanup == Some(Cleanup::Compact) && self.log.forks(doc.id())? > 0 {
            let name = topic.name();
            return Err(Error::Conflict(format!(
                "topic {name} has forks: what they share cannot be cleaned up by key"
            )));
        }
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

    /// The document of a topic that is there: its key, what it says and its bytes.
    fn stored(&self, topic: &TopicRef) -> Result<(Bytes, TopicDoc, Bytes), Error> {
        let key = documents::topic(topic.tenant().id(), topic.name());
        let (doc, stored) = documents::load_stored::<TopicDoc>(&self.log, &key)?.ok_or_else(|| absent(topic))?;
        if doc.deleted_at.is_some() {
            return Err(kept_for_forks(topic.name()));
        }
        if self.is_over(&Topic::read(topic.tenant().id(), topic.shared_name(), &doc))? {
            let has_forks = self.log.forks(doc.id())? > 0;
            return Err(if has_forks { kept_for_forks(topic.name()) } else { absent(topic) });
        }
        Ok((key, doc, stored))
    }

    async fn delete_stored(self: &Arc<Self>, topic: &TopicRef) -> Result<(), Error> {
        let name = topic.shared_name();
        let look = || self.stored(topic).map(|(_, doc, stored)| Some((doc, stored)));
        self.delete_found(topic.tenant(), name, look).await?;
        self.events.tell_of(topic, self.log.now(), |topic| Happening::TopicDeleted { topic });
        Ok(())
    }

    pub(super) async fn lock(&self, tenant: TenantId, name: &str) -> MutexGuard<'_, Deleted> {
        let mut hasher = DefaultHasher::new();
        (tenant, name).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % LOCKS as u64).expect("a remainder of a small number");
        self.locks[place].lock().await
    }
}

/// Adds what makes a topic.
fn add_making(change: &mut Change, topic: &TopicRef, settings: TopicSettings, doc: &TopicDoc, fork: Option<ForkPoint>) {
    let (tenant, key) = (topic.tenant().id(), documents::topic(topic.tenant().id(), topic.name()));
    change.guards.push(Guard::Present(documents::tenant(tenant)));
    change.docs.push(DocOp::Put(key, documents::encode(doc)));
    let stream = doc.stream.as_ref();
    if stream.is_some_and(|stream| stream.expiry.is_some()) {
        let name = topic.name().to_owned();
        let ttl = StreamTtlDoc { v: documents::VERSION, name, used_at: doc.created_at };
        change.docs.push(DocOp::Put(documents::stream_ttl(tenant, doc.id()), documents::encode(&ttl)));
    }
    let create = match stream.and_then(|stream| stream.fork.as_ref()).zip(fork) {
        Some((fork, point)) => TopicOp::Fork { topic: doc.id(), source: TopicId(fork.source_id), point },
        None => TopicOp::Create { topic: doc.id(), partitions: doc.partitions },
    };
    let set = settings.retention.map(|retention| TopicOp::SetRetention { topic: doc.id(), retention });
    let clean = settings.cleanup.map(|cleanup| TopicOp::SetCleanup { topic: doc.id(), cleanup });
    change.topics.extend([Some(create), set, clean].into_iter().flatten());
}

fn changed_meanwhile(topic: &TopicRef, error: plinth_storage::Error) -> Error {
    if error.kind() == Kind::Conflict {
        Error::Conflict(format!("topic {} was changed by another request at the same moment", topic.name()))
    } else {
        error.into()
    }
}
