//! A value that others wait for. They are woken in the order in which they began to wait.
//!
//! Tokio's channel of the same name wakes in an order drawn by chance. Those who wait for one slot would then come back in
//! another order each time, and one seed of a simulation would be many histories.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Holds the value and changes it.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Sees the value, and waits until it is another one.
#[derive(Clone, Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, looked at. Short: nobody changes it meanwhile.
pub(crate) struct Ref<'a, T>(MutexGuard<'a, State<T>>);

/// The sender is gone, and the value is not what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    moved: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    version: u64,
    gone: bool,
}

/// A sender and its first receiver.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let state = State { value, version: 0, gone: false };
    let sender = Sender { shared: Arc::new(Shared { state: Mutex::new(state), moved: Notify::new() }) };
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// One more receiver, which has seen the value.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: Arc::clone(&self.shared), seen: self.shared.lock().version }
    }

    /// The value.
    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.lock())
    }

    /// Sets the value and gives the one before.
    pub(crate) fn send_replace(&self, value: T) -> T {
        let mut value = value;
        self.send_modify(|held| std::mem::swap(held, &mut value));
        value
    }

    /// Changes the value.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value, and wakes those who wait if the change says that it is one.
    pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = {
            let mut state = self.shared.lock();
            let changed = change(&mut state.value);
            state.version += u64::from(changed);
            changed
        };
        if changed {
            self.shared.moved.notify_waiters();
        }
        changed
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.lock().gone = true;
        self.shared.moved.notify_waiters();
    }
}

impl<T> Receiver<T> {
    /// The value.
    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.lock())
    }

    /// The value, which counts as seen.
    pub(crate) fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.lock();
        self.seen = state.version;
        Ref(state)
    }

    /// The value counts as seen.
    pub(crate) fn mark_unchanged(&mut self) {
        self.seen = self.shared.lock().version;
    }

    /// Waits until the value is changed. Cancel safe.
    ///
    /// # Errors
    /// `Gone` when the sender is.
    pub(crate) async fn changed(&mut self) -> Result<(), Gone> {
        let seen = self.seen;
        self.until(|state| (state.version != seen).then_some(())).await
    }

    /// Waits until the value is what is wanted. Cancel safe.
    ///
    /// # Errors
    /// `Gone` when the sender is, and its last value was another.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) -> Result<T, Gone>
    where
        T: Clone,
    {
        self.until(|state| wanted(&state.value).then(|| state.value.clone())).await
    }

    async fn until<R>(&mut self, find: impl Fn(&State<T>) -> Option<R>) -> Result<R, Gone> {
        loop {
            // From here on nothing that moves is missed; it joins those who wait only when it is awaited.
            let moved = self.shared.moved.notified();
            {
                let state = self.shared.lock();
                let found = find(&state);
                if found.is_some() || state.gone {
                    self.seen = state.version;
                    return found.ok_or(Gone);
                }
            }
            moved.await;
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn those_who_wait_are_woken_by_what_they_wait_for_and_by_the_end() {
        let (sender, mut receiver) = channel(1);
        let mut other = receiver.clone();
        assert!(receiver.wait_for(|value| *value == 2).now_or_never().is_none());
        assert_eq!(sender.send_replace(2), 1);
        assert!(receiver.wait_for(|value| *value == 2).now_or_never().is_some());
        assert!(receiver.changed().now_or_never().is_none(), "it has seen that");
        assert_eq!(other.changed().now_or_never(), Some(Ok(())), "the other has not");
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none());
        assert_eq!(*receiver.borrow(), 2);
        drop(sender);
        assert_eq!(receiver.changed().now_or_never(), Some(Err(Gone)));
        assert!(receiver.wait_for(|value| *value == 2).now_or_never().is_some_and(|found| found.is_ok()));
    }

    // Fails with `tokio::sync::watch`, most of the time.
    #[tokio::test]
    async fn those_who_wait_are_woken_in_their_order() {
        let (sender, receiver) = channel(false);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..32 {
            let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
            tasks.spawn(async move {
                receiver.wait_for(|set| *set).await.unwrap();
                woken.lock().unwrap().push(number);
            });
        }
        tokio::task::yield_now().await;
        sender.send_replace(true);
        while tasks.join_next().await.is_some() {}
        assert!(woken.lock().unwrap().is_sorted());
    }
}
