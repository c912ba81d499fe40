//! What is deleted, and what must not be: something without a body, something that the one who deletes has needed within
//! his grace, something to which a node refers that knows all of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use tokio::time::Instant;

use crate::chaos::HEADER_BYTES;

/// The deletions of one run.
#[derive(Debug, Default)]
pub struct Deletions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    graces: BTreeMap<u32, Duration>,
    /// When a node was last seen to refer to an object.
    needed: BTreeMap<(u32, Path), Instant>,
    /// Who deleted an object.
    gone: BTreeMap<Path, u32>,
    /// When a node has first put an object.
    offered: BTreeMap<(u32, Path), Instant>,
    deleted: usize,
    wrong: Vec<String>,
}

impl Deletions {
    /// A node deletes nothing that it has needed within this time.
    pub fn set_grace(&self, node: u32, grace: Duration) {
        self.lock().graces.insert(node, grace);
    }

    /// The state of a node refers to these objects now. `knows_all`: no other node has gone on from it.
    pub fn needed(&self, node: u32, objects: BTreeSet<Path>, knows_all: bool) {
        let mut inner = self.lock();
        for object in objects {
            if let Some(by) = inner.gone.get(&object).copied().filter(|_| knows_all) {
                inner.wrong.push(format!("node {node} refers to {object}, which node {by} deleted"));
            }
            inner.needed.insert((node, object), Instant::now());
        }
    }

    /// A node has deleted an object of this size.
    pub fn deleted(&self, node: u32, object: &Path, size: u64) {
        let name = object.as_ref();
        if name.ends_with("/probe") {
            return;
        }
        let mut inner = self.lock();
        inner.deleted += 1;
        let may_go = name.contains("/wal/") || name.contains("/checkpoint/") || name.starts_with("segment/");
        if !may_go || size <= HEADER_BYTES {
            inner.wrong.push(format!("node {node} deletes {object} of {size} bytes, which stays for ever"));
        }
        let grace = inner.graces.get(&node).copied().unwrap_or_default();
        let needed = inner.needed.get(&(node, object.clone())).map(Instant::elapsed);
        if let Some(ago) = needed.filter(|ago| *ago < grace) {
            inner.wrong.push(format!("node {node} deletes {object}, needed {ago:?} ago, its grace is {grace:?}"));
        }
        inner.gone.insert(object.clone(), node);
    }

    /// A node puts an object.
    pub fn offered(&self, node: u32, object: &Path) {
        self.lock().offered.entry((node, object.clone())).or_insert_with(Instant::now);
    }

    /// Whether it is since then that a node puts an object.
    #[must_use]
    pub fn is_offered_since(&self, node: u32, object: &Path, since: Instant) -> bool {
        self.lock().offered.get(&(node, object.clone())).is_some_and(|first| *first >= since)
    }

    /// Whether an object was deleted; a late put may have brought it back.
    #[must_use]
    pub fn is_gone(&self, object: &Path) -> bool {
        self.lock().gone.contains_key(object)
    }

    /// How many objects were deleted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().deleted
    }

    /// What must not be, so far.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
