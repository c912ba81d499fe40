//! Deletions of topics: of one that has forks the name alone, and with the last fork what was kept for it.
//!
//! The log keeps records for as long as a fork shares them (ADR 38). Here are the documents: that of a topic which was deleted and has
//! forks says so, and goes in the commit that deletes the last of them. How many forks there are is a guard of each deletion, so
//! that none is forgotten that is about to be.

use std::sync::Arc;

use bytes::Bytes;
use plinth_storage::Kind;
use plinth_storage::ids::{TenantId, TopicId};
use plinth_storage::log::{Change, DocOp, Guard, TopicOp};

use super::{Catalog, TopicKeyRef};
use crate::auth::TenantRef;
use crate::broker::documents::{self, TopicDoc};
use crate::broker::error::Error;

/// So often a deletion is tried that meets other changes of what it builds on.
const TRIES: usize = 8;

/// No document is under this.
const NOTHING: &[u8] = b"nothing";

/// What a deletion takes.
#[derive(Debug)]
pub(super) struct Deletion {
    /// Whether the records are kept for forks.
    kept: bool,
    /// The topics whose documents go, the one that is deleted first; of one that is kept itself alone.
    topics: Vec<(Arc<str>, TopicId)>,
}

impl Catalog {
    /// Deletes the topic that `look` finds; false when it finds none. What else it builds on may change meanwhile.
    ///
    /// # Errors
    /// `Conflict` when it changes all the time; those of `look` and of the log.
    pub(super) async fn delete_found(
        &self,
        tenant: &TenantRef,
        name: &Arc<str>,
        look: impl Fn() -> Result<Option<(TopicDoc, Bytes)>, Error> + Send,
    ) -> Result<bool, Error> {
        let mut deleted = self.lock(tenant.id(), name).await;
        let mut tries = 1..=TRIES;
        loop {
            let Some((doc, stored)) = look()? else { return Ok(false) };
            let mut change = Change { docs: vec![deleted.note(&doc)], ..Change::default() };
            let deletion = self.add_deletion(&mut change, (tenant.id(), name), (doc, stored))?;
            let committed = self.log.commit(change).await;
            self.note(tenant, &deletion, committed.as_ref().err());
            match committed {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == Kind::Conflict && tries.next().is_some() => {
                    // Comes after what is about to change, which is there then.
                    let docs = vec![DocOp::Delete(Bytes::from_static(NOTHING))];
                    self.log.commit(Change { docs, ..Change::default() }).await?;
                }
                Err(error) if error.kind() == Kind::Conflict => {
                    let text = format!("topic {name} was changed by another request at the same moment");
                    return Err(Error::Conflict(text));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds the deletion of a topic, which holds if it is still what `stored` says.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn add_deletion(
        &self,
        change: &mut Change,
        (tenant, name): (TenantId, &Arc<str>),
        (doc, stored): (TopicDoc, Bytes),
    ) -> Result<Deletion, Error> {
        let (key, id) = (documents::topic(tenant, name), doc.id());
        change.guards.push(Guard::Equals(key.clone(), stored));
        if doc.stream.as_ref().is_some_and(|stream| stream.expiry.is_some()) {
            change.docs.push(DocOp::Delete(documents::stream_ttl(tenant, id)));
        }
        change.topics.push(TopicOp::Delete { topic: id });
        let mut deletion = Deletion { kept: false, topics: vec![(Arc::clone(name), id)] };
        if doc.partitions == 1 && self.log.forks(id)? > 0 {
            change.guards.push(Guard::Forks { topic: id, least: 1, most: u32::MAX });
            let doc = TopicDoc { deleted_at: Some(self.log.now().0), ..doc };
            change.docs.push(DocOp::Put(key, documents::encode(&doc)));
            deletion.kept = true;
            return Ok(deletion);
        }
        if doc.partitions == 1 {
            change.guards.push(Guard::Forks { topic: id, least: 0, most: 0 });
        }
        change.docs.push(DocOp::Delete(key));
        self.add_sources(change, tenant, (doc, &mut deletion))?;
        Ok(deletion)
    }

    /// Adds the documents of what was kept for a fork that is deleted, and for nothing else, up to what was not deleted.
    fn add_sources(
        &self,
        change: &mut Change,
        tenant: TenantId,
        (mut fork, deletion): (TopicDoc, &mut Deletion),
    ) -> Result<(), Error> {
        while let Some(of) = fork.stream.and_then(|stream| stream.fork) {
            let key = documents::topic(tenant, &of.source);
            let source = documents::load_stored::<TopicDoc>(&self.log, &key)?;
            let Some((source, stored)) = source.filter(|(source, _)| source.id == of.source_id) else { return Ok(()) };
            change.guards.push(Guard::Equals(key.clone(), stored));
            if source.deleted_at.is_none() {
                return Ok(());
            }
            let topic = source.id();
            if self.log.forks(topic)? > 1 {
                change.guards.push(Guard::Forks { topic, least: 2, most: u32::MAX });
                return Ok(());
            }
            change.guards.push(Guard::Forks { topic, least: 1, most: 1 });
            change.docs.push(DocOp::Delete(key));
            deletion.topics.push((of.source.into(), topic));
            fork = source;
        }
        Ok(())
    }

    /// Notes in memory what a deletion took, or may have taken.
    pub(super) fn note(&self, tenant: &TenantRef, deletion: &Deletion, error: Option<&plinth_storage::Error>) {
        for (name, id) in &deletion.topics {
            self.known.remove(&TopicKeyRef { tenant: tenant.id(), name });
            self.touches.forget(*id);
            if deletion.kept && error.is_none() {
                // It counts until it is gone; who is subscribed to it learns that it is over.
                self.moved.note(tenant.id(), name);
            } else {
                self.note_deletion(tenant, name, error);
            }
        }
    }
}
