//! Wakes those who follow partitions. It carries no records: who is woken reads the log up to its tail.
//!
//! One follower may watch any number of partitions and costs one entry per partition and one list of those that moved.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ids::{Partition, TopicId};

/// Who follows what.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    /// In order, so that who is woken first does not depend on chance.
    partitions: BTreeMap<Partition, BTreeMap<u64, Watch>>,
}

#[derive(Debug)]
struct Watch {
    signal: Arc<Signal>,
    index: usize,
}

#[derive(Debug, Default)]
struct Signal {
    moved: Mutex<HashSet<usize>>,
    notify: Notify,
}

/// Tells which of a set of partitions have a newer committed tail, or are gone.
#[derive(Debug)]
pub struct Follow {
    id: u64,
    feeds: Arc<Feeds>,
    signal: Arc<Signal>,
    partitions: Vec<Option<Partition>>,
}

impl Feeds {
    pub(crate) fn follow(self: &Arc<Self>) -> Follow {
        let mut inner = self.lock();
        inner.next_id += 1;
        Follow { id: inner.next_id, feeds: Arc::clone(self), signal: Arc::default(), partitions: Vec::new() }
    }

    /// Wakes the followers of `partitions`.
    pub(crate) fn moved(&self, partitions: impl IntoIterator<Item = Partition>) {
        let inner = self.lock();
        for partition in partitions {
            for watch in inner.partitions.get(&partition).into_iter().flat_map(BTreeMap::values) {
                watch.signal.mark(watch.index);
            }
        }
    }

    /// Wakes the followers of all partitions of a topic.
    pub(crate) fn topic_moved(&self, topic: TopicId) {
        let inner = self.lock();
        for watches in inner.partitions.range(topic.partitions()).map(|(_, watches)| watches) {
            for watch in watches.values() {
                watch.signal.mark(watch.index);
            }
        }
    }

    /// Wakes all followers: nothing will move any more.
    pub(crate) fn all_moved(&self) {
        let inner = self.lock();
        for watch in inner.partitions.values().flat_map(BTreeMap::values) {
            watch.signal.mark(watch.index);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal {
    fn mark(&self, index: usize) {
        if self.lock().insert(index) {
            self.notify.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<usize>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follow {
    /// Watches a partition too and gives its index. It is reported by the next [`Follow::changed`] in any case, so that
    /// nothing that moved before the call is missed.
    pub fn add(&mut self, partition: Partition) -> usize {
        let index = self.partitions.len();
        self.partitions.push(Some(partition));
        let watch = Watch { signal: Arc::clone(&self.signal), index };
        self.feeds.lock().partitions.entry(partition).or_default().insert(self.id, watch);
        self.signal.mark(index);
        index
    }

    /// Watches the partition of this index no longer.
    pub fn remove(&mut self, index: usize) {
        let Some(partition) = self.partitions.get_mut(index).and_then(Option::take) else { return };
        let mut inner = self.feeds.lock();
        if let Some(watches) = inner.partitions.get_mut(&partition) {
            watches.remove(&self.id);
            if watches.is_empty() {
                inner.partitions.remove(&partition);
            }
        }
    }

    /// Waits until at least one partition has moved since it was last reported, and gives the indices of all that have,
    /// ascending. Cancel safe.
    pub async fn changed(&mut self) -> Vec<usize> {
        loop {
            let mut moved: Vec<usize> = self.signal.lock().drain().collect();
            moved.retain(|index| self.partitions.get(*index).is_some_and(Option::is_some));
            if !moved.is_empty() {
                moved.sort_unstable();
                return moved;
            }
            self.signal.notify.notified().await;
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        for index in 0..self.partitions.len() {
            self.remove(index);
        }
    }
}

#[cfg(test)]
mod tests;
