//! When something is to be done about each subscription: one entry each, in order of time.
//!
//! One that is being worked on is not given out again before it is done; what comes meanwhile waits for that.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use plinth_storage::ids::TenantId;

use super::moved::Names;

/// A subscription: its tenant, and its id.
pub(super) type Key = (TenantId, Arc<str>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    todo: HashMap<Key, Todo>,
    /// Those that are not being worked on.
    order: BTreeSet<(u64, Key)>,
    /// Those that are.
    busy: HashMap<Key, Option<Todo>>,
}

/// What is to be done about a subscription, and from when on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Todo {
    pub(super) at: u64,
    /// Streams that are to be looked at.
    pub(super) names: Names,
}

impl Todo {
    fn merge(&mut self, other: Self) {
        self.at = self.at.min(other.at);
        self.names.merge(other.names);
    }
}

impl Schedule {
    /// Something is to be done at a time, and about streams.
    pub(super) fn push(&mut self, key: &Key, at: u64, names: Names) {
        let more = Todo { at, names };
        if let Some(waiting) = self.busy.get_mut(key) {
            match waiting {
                Some(todo) => todo.merge(more),
                None => *waiting = Some(more),
            }
            return;
        }
        let todo = self.todo.entry(key.clone()).or_insert_with(|| Todo { at: u64::MAX, names: Names::default() });
        self.order.remove(&(todo.at, key.clone()));
        todo.merge(more);
        self.order.insert((todo.at, key.clone()));
    }

    /// The first one that is due, to be worked on until [`Schedule::done`].
    pub(super) fn next(&mut self, now: u64) -> Option<(Key, Names)> {
        let (at, key) = self.order.first().filter(|(at, _)| *at <= now)?.clone();
        self.order.remove(&(at, key.clone()));
        let todo = self.todo.remove(&key)?;
        self.busy.insert(key.clone(), None);
        Some((key, todo.names))
    }

    /// It is worked on no more.
    pub(super) fn done(&mut self, key: &Key) {
        if let Some(Some(todo)) = self.busy.remove(key) {
            self.push(key, todo.at, todo.names);
        }
    }

    /// Nothing is to be done about it any more.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(todo) = self.todo.remove(key) {
            self.order.remove(&(todo.at, key.clone()));
        }
        if let Some(waiting) = self.busy.get_mut(key) {
            *waiting = None;
        }
    }

    /// When the next one is due that is not being worked on.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The streams that wait to be looked at.
    pub(super) fn names(&self, key: &Key) -> Names {
        let waiting = self.busy.get(key).and_then(Option::as_ref);
        self.todo.get(key).or(waiting).map(|todo| todo.names.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn key(name: &str) -> Key {
        (TenantId(Ulid::from_parts(1, 1)), name.into())
    }

    fn names(name: &str) -> Names {
        let mut names = Names::default();
        names.insert(&name.into());
        names
    }

    #[test]
    fn each_is_given_out_once_at_its_earliest_time_with_all_that_was_to_be_done() {
        let (mut schedule, a, b) = (Schedule::default(), key("a"), key("b"));
        schedule.push(&a, 9, names("x"));
        schedule.push(&b, 5, Names::default());
        schedule.push(&a, 4, Names::default());
        schedule.push(&a, 7, names("y"));
        assert_eq!((schedule.next_at(), schedule.next(3)), (Some(4), None));
        let mut both = names("x");
        both.merge(names("y"));
        assert_eq!(schedule.names(&a), both);
        assert_eq!(schedule.next(4), Some((a.clone(), both)));
        assert_eq!((schedule.next_at(), schedule.next(9)), (Some(5), Some((b, Names::default()))));
        assert_eq!(schedule.next_at(), None);
    }

    // Fails when one that is being worked on is given out again, or what came meanwhile is lost.
    #[test]
    fn what_comes_while_it_is_worked_on_waits_for_that() {
        let (mut schedule, a) = (Schedule::default(), key("a"));
        schedule.push(&a, 1, Names::default());
        assert!(schedule.next(1).is_some());
        schedule.push(&a, 2, names("x"));
        schedule.push(&a, 3, Names::default());
        assert_eq!((schedule.next(9), schedule.names(&a)), (None, names("x")));
        schedule.done(&a);
        assert_eq!((schedule.next_at(), schedule.next(9)), (Some(2), Some((a.clone(), names("x")))));
        schedule.push(&a, 2, names("x"));
        schedule.forget(&a);
        schedule.done(&a);
        assert_eq!((schedule.next_at(), schedule.next(9)), (None, None));
    }
}
