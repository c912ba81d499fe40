//! Which streams have moved, of the tenants that have subscriptions: noted by whatever appends, makes and deletes; looked at
//! by the one task.
//!
//! For a tenant without subscriptions a note costs a look at a map that is never locked. What is noted is bounded: beyond that
//! all streams of the tenant count as moved. It may be forgotten with the node: the next start looks at all.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use plinth_storage::ids::TenantId;
use tokio::sync::Notify;

/// Names of one tenant that are held; of more, all its streams count as moved.
const NAMES_MAX: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::broker) struct Moved {
    watched: ArcSwap<HashMap<TenantId, Arc<Watched>>>,
    /// Tenants of which something was noted since it was taken.
    dirty: Mutex<Vec<TenantId>>,
    /// Streams that may have a new end later.
    late: Mutex<HashSet<(TenantId, Arc<str>)>>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Watched(Mutex<Names>);

/// Streams that have moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// All of the tenant have, or may have.
    pub(super) all: bool,
    /// These have.
    pub(super) some: HashSet<Arc<str>>,
}

impl Names {
    /// All of them.
    pub(super) fn all() -> Self {
        Self { all: true, some: HashSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.all && self.some.is_empty()
    }

    /// Adds one.
    pub(super) fn insert(&mut self, name: &Arc<str>) {
        if self.all || self.some.contains(name) {
            return;
        }
        self.some.insert(Arc::clone(name));
        if self.some.len() > NAMES_MAX {
            *self = Self::all();
        }
    }

    /// Adds those of another.
    pub(super) fn merge(&mut self, other: Self) {
        if other.all {
            *self = other;
            return;
        }
        other.some.iter().for_each(|name| self.insert(name));
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Moved {
    /// Notes that a stream has a new end, was made, or is gone.
    pub(in crate::broker) fn note(&self, tenant: TenantId, name: &Arc<str>) {
        let watched = self.watched.load();
        let Some(names) = watched.get(&tenant) else { return };
        let mut names = names.lock();
        let was_empty = names.is_empty();
        names.insert(name);
        drop(names);
        if was_empty {
            self.dirty().push(tenant);
            self.news.notify_one();
        }
    }

    /// Notes that a stream may have a new end by what has no clear outcome. Of too many only some are noted.
    pub(in crate::broker) fn note_late(&self, tenant: TenantId, name: &Arc<str>) {
        if !self.watched.load().contains_key(&tenant) {
            return;
        }
        let mut late = self.late();
        if late.len() < NAMES_MAX {
            late.insert((tenant, Arc::clone(name)));
            self.news.notify_one();
        }
    }

    /// What was noted so and not taken yet.
    pub(super) fn take_late(&self) -> HashSet<(TenantId, Arc<str>)> {
        mem::take(&mut *self.late())
    }

    fn late(&self) -> MutexGuard<'_, HashSet<(TenantId, Arc<str>)>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes streams of a tenant from here on.
    pub(super) fn watch(&self, tenant: TenantId) {
        if self.watched.load().contains_key(&tenant) {
            return;
        }
        self.watched.rcu(|watched| {
            let mut watched = HashMap::clone(watched);
            watched.entry(tenant).or_default();
            watched
        });
    }

    /// Notes nothing of a tenant any more.
    pub(super) fn leave(&self, tenant: TenantId) {
        self.watched.rcu(|watched| {
            let mut watched = HashMap::clone(watched);
            watched.remove(&tenant);
            watched
        });
    }

    /// What was noted and not taken yet, by tenant.
    pub(super) fn take(&self) -> Vec<(TenantId, Names)> {
        let dirty = mem::take(&mut *self.dirty());
        let watched = self.watched.load();
        let names = |tenant: TenantId| Some((tenant, mem::take(&mut *watched.get(&tenant)?.lock())));
        dirty.into_iter().filter_map(names).filter(|(_, names)| !names.is_empty()).collect()
    }

    /// What was noted of a tenant and not taken yet.
    pub(super) fn peek(&self, tenant: TenantId) -> Names {
        self.watched.load().get(&tenant).map(|names| names.lock().clone()).unwrap_or_default()
    }

    /// Waits until something is noted. Cancel safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn dirty(&self) -> MutexGuard<'_, Vec<TenantId>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn what_moves_is_noted_once_of_the_tenants_that_are_watched() {
        let (moved, one, other) =
            (Moved::default(), TenantId(Ulid::from_parts(1, 1)), TenantId(Ulid::from_parts(1, 2)));
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        moved.watch(one);
        for name in [&a, &b, &a] {
            moved.note(one, name);
            moved.note(other, name);
        }
        assert_eq!(moved.peek(one).some.len(), 2);
        assert_eq!(moved.take(), [(one, Names { all: false, some: HashSet::from([a.clone(), b]) })]);
        assert!(moved.take().is_empty());
        moved.note(one, &a);
        moved.leave(one);
        assert!(moved.take().is_empty());
    }

    #[test]
    fn of_too_many_all_have_moved() {
        let mut names = Names::default();
        for number in 0..=NAMES_MAX {
            names.insert(&number.to_string().into());
        }
        assert_eq!(names, Names::all());
        let mut some = Names::default();
        some.insert(&"a".into());
        some.merge(names);
        assert_eq!(some, Names::all());
    }
}
