//! Streams that end by themselves: when one is over, and the end of those that are.
//!
//! There is no timer and no task per stream: whoever looks a stream up asks whether it is over, and then it is not there. What
//! is over is deleted later, when no append that began before can be under way any more.

use std::sync::Arc;

use bytes::Bytes;
use plinth_api::system::Happening;
use plinth_storage::Kind;
use plinth_storage::ids::{TenantId, Timestamp, TopicId};
use plinth_storage::log::{Change, DocOp, Guard};

use super::{Catalog, Topic};
use crate::auth::TenantRef;
use crate::broker::documents::{self, StreamTtlDoc, TopicDoc};
use crate::broker::error::Error;
use crate::broker::streams::{Expiry, Touch};

/// What is over is deleted so long after its end: longer than an append may take.
pub(super) const DELETED_AFTER_MS: u64 = 15_000;
/// Streams that one look of the reaper takes.
const LOOK_STEP: usize = 1_000;

/// Somebody has a stream open: it is in use as long as this lives.
pub(in crate::broker) struct Open {
    catalog: Arc<Catalog>,
    topic: TopicId,
}

/// A stream that is over and still there.
#[derive(Debug)]
pub(in crate::broker) struct Over {
    pub(in crate::broker) tenant: TenantId,
    name: Arc<str>,
    topic: TopicId,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.catalog.touches.close(self.topic, self.catalog.log.now());
    }
}

impl Catalog {
    /// Notes a use of a stream that ends when it is not used.
    ///
    /// # Errors
    /// Those of the log, where the use has to be stored at once.
    pub(in crate::broker) async fn touch(&self, topic: &Topic) -> Result<(), Error> {
        let Some(ttl_ms) = topic.ttl_ms() else { return Ok(()) };
        let touch = self.touch_of(topic);
        if self.touches.note(touch, ttl_ms) { Ok(()) } else { self.store_touches(&[touch]).await }
    }

    /// Notes that somebody has a stream open, if that matters to it.
    pub(in crate::broker) fn open(self: &Arc<Self>, topic: &Topic) -> Option<Open> {
        let ttl_ms = topic.ttl_ms()?;
        self.touches.open(self.touch_of(topic), ttl_ms);
        Some(Open { catalog: Arc::clone(self), topic: topic.id })
    }

    fn touch_of(&self, topic: &Topic) -> Touch {
        Touch { tenant: topic.tenant, topic: topic.id, at: self.log.now() }
    }

    /// Stores uses of streams, of those that are there still.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) async fn store_touches(&self, touches: &[Touch]) -> Result<(), Error> {
        let mut change = Change::default();
        for touch in touches {
            let key = documents::stream_ttl(touch.tenant, touch.topic);
            let Some(stored) = self.log.get(&key)? else { continue };
            let mut doc: StreamTtlDoc = documents::decode(&key, &stored)?;
            doc.used_at = doc.used_at.max(touch.at.0);
            change.guards.push(Guard::Present(key.clone()));
            change.docs.push(DocOp::Put(key, documents::encode(&doc)));
        }
        if change.docs.is_empty() {
            return Ok(());
        }
        Ok(self.log.commit(change).await?)
    }

    /// Whether a stream is over by now.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) fn is_over(&self, topic: &Topic) -> Result<bool, Error> {
        match topic.expiry() {
            Some(expiry) => self.was_over(topic, expiry, 0),
            None => Ok(false),
        }
    }

    /// Whether a topic is in no list: a stream that is over, or kept for its forks alone.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) fn is_hidden(&self, topic: &Topic) -> Result<bool, Error> {
        Ok(topic.deleted || self.is_over(topic)?)
    }

    /// Whether a stream has been over for so long.
    fn was_over(&self, topic: &Topic, expiry: &Expiry, for_ms: u64) -> Result<bool, Error> {
        let now = self.log.now();
        let is_past = |end: u64| end.saturating_add(for_ms) <= now.0;
        let ttl_ms = match expiry {
            Expiry::At { ms, .. } => return Ok(is_past(*ms)),
            Expiry::Ttl(seconds) => seconds.saturating_mul(1_000),
        };
        let last = match self.log.bounds(topic.partition(0)) {
            Ok(bounds) => bounds.last_timestamp.max(topic.created_at),
            // Deleted: whoever reads or appends learns it from the log.
            Err(error) if error.kind() == Kind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let last = last.max(self.touches.last(topic.id, now).unwrap_or_default());
        if !is_past(last.0.saturating_add(ttl_ms)) {
            return Ok(false);
        }
        let stored: Option<StreamTtlDoc> = documents::load(&self.log, &documents::stream_ttl(topic.tenant, topic.id))?;
        let last = last.max(Timestamp(stored.map_or(0, |doc| doc.used_at)));
        let grace_ms = self.touches.grace_ms(last, ttl_ms);
        Ok(is_past(last.0.saturating_add(ttl_ms).saturating_add(grace_ms)))
    }

    /// Some streams that are over and to be deleted, of those behind `after`, and the last that was looked at; none when there
    /// are no more.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) async fn look_for_over(
        self: &Arc<Self>,
        after: Option<Bytes>,
    ) -> Result<(Vec<Over>, Option<Bytes>), Error> {
        let catalog = Arc::clone(self);
        self.changes
            .apart(move || {
                let rows = catalog.log.scan(documents::STREAM_TTLS, after.as_deref(), LOOK_STEP)?;
                let mut over = Vec::new();
                for (key, stored) in &rows {
                    let doc: StreamTtlDoc = documents::decode(key, stored)?;
                    let of = documents::of_stream_ttl(key);
                    let (tenant, id) = of.ok_or_else(|| Error::defect("the key of a stream's end has no id"))?;
                    let name: Arc<str> = doc.name.into();
                    if let Some(topic) = catalog.load(tenant, &name)?.filter(|topic| topic.id == id)
                        && let Some(expiry) = topic.expiry()
                        && catalog.was_over(&topic, expiry, DELETED_AFTER_MS)?
                    {
                        over.push(Over { tenant, name, topic: id });
                    }
                }
                Ok((over, rows.into_iter().next_back().map(|(key, _)| key)))
            })
            .await
    }

    /// Deletes a stream, if it is over still. Cancel safe: who stops waiting does not undo it.
    ///
    /// # Errors
    /// Those of the log.
    pub(in crate::broker) async fn end(self: &Arc<Self>, tenant: TenantRef, over: Over) -> Result<(), Error> {
        let catalog = Arc::clone(self);
        self.changes.run(async move { catalog.end_stored(&tenant, &over).await }).await
    }

    async fn end_stored(&self, tenant: &TenantRef, over: &Over) -> Result<(), Error> {
        match self.delete_found(tenant, &over.name, || self.look_for_end(over)).await {
            Ok(true) => {
                self.events.tell(tenant, self.log.now(), Happening::TopicDeleted { topic: over.name.to_string() });
                Ok(())
            }
            Ok(false) => Ok(()),
            // It changes: a later turn finds what has become of it.
            Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The document of a stream, if it is over still.
    fn look_for_end(&self, over: &Over) -> Result<Option<(TopicDoc, Bytes)>, Error> {
        let key = documents::topic(over.tenant, &over.name);
        let Some((doc, stored)) = documents::load_stored::<TopicDoc>(&self.log, &key)? else { return Ok(None) };
        let topic = Topic::read(over.tenant, &over.name, &doc);
        let is_over = match topic.expiry() {
            Some(expiry) if topic.id == over.topic && !topic.deleted => {
                self.was_over(&topic, expiry, DELETED_AFTER_MS)?
            }
            Some(_) | None => false,
        };
        Ok(is_over.then_some((doc, stored)))
    }
}
