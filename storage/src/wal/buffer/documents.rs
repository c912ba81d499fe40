//! Documents as the next change would find them: what is pending over what is stored.

use bytes::Bytes;

use super::Core;
use crate::error::{Error, Kind, Result};
use crate::layout;
use crate::shard::changes::Guard;
use crate::state::StateStore;

impl Core {
    /// The value of a document as the next change would find it.
    fn document(&self, state: &dyn StateStore, key: &Bytes) -> Result<Option<Bytes>> {
        match self.pending_docs.get(key).and_then(|pending| pending.last()) {
            Some((_, value)) => Ok(value.clone()),
            None => state.get(&layout::document_key(key)),
        }
    }

    /// Whether a guard of a change holds.
    pub(super) fn check(&self, state: &dyn StateStore, guard: &Guard) -> Result<()> {
        let (holds, what) = match guard {
            Guard::Absent(key) => (self.document(state, key)?.is_none(), "is already there"),
            Guard::Present(key) => (self.document(state, key)?.is_some(), "is not there"),
            Guard::Equals(key, value) => (self.document(state, key)?.as_ref() == Some(value), "has changed"),
            Guard::Forks { topic, least, most } => {
                ((*least..=*most).contains(&self.forks(state, *topic)?), "has another number of forks")
            }
        };
        if holds { Ok(()) } else { Err(Error::new(Kind::Conflict, format!("what the change builds on {what}"))) }
    }

    /// Notes what a document will be when the buffer `sequence` is committed.
    pub(super) fn pend(&mut self, key: &Bytes, sequence: u64, value: Option<Bytes>) {
        self.pending_docs.entry(key.clone()).or_default().push((sequence, value));
    }

    /// Forgets what was noted of a document but for the buffers that `keep` names.
    pub(super) fn settle(&mut self, key: &Bytes, keep: impl Fn(u64) -> bool) {
        if let Some(pending) = self.pending_docs.get_mut(key) {
            pending.retain(|(sequence, _)| keep(*sequence));
            if pending.is_empty() {
                self.pending_docs.remove(key);
            }
        }
    }
}
