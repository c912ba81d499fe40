//! Single flight: of all who want the same page at once, one loads it for all.
//!
//! A flight goes on while at least one of those who joined it waits: whoever gives up does not take the others with him,
//! and when all have given up it ends. One failure answers all who waited for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

/// What is being loaded at the moment, by its key.
pub(super) struct Flights<K, V>(Mutex<InFlight<K, V>>);

/// A load that several wait for.
pub(super) type Flight<V> = Shared<BoxFuture<'static, V>>;

struct InFlight<K, V> {
    by_key: HashMap<K, (u64, WeakShared<BoxFuture<'static, V>>)>,
    begun: u64,
}

/// Takes a flight out of the list when it has ended, or when nobody waits for it any more.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
    number: u64,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::new(InFlight { by_key: HashMap::new(), begun: 0 }))
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The flight of `key`, and whether it begins here, with `load`.
    pub(super) fn join<F>(self: &Arc<Self>, key: &K, load: impl FnOnce() -> F) -> (Flight<V>, bool)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(flight) = flights.by_key.get(key).and_then(|(_, flight)| flight.upgrade()) {
            return (flight, false);
        }
        flights.begun += 1;
        let number = flights.begun;
        let landing = Landing { flights: Arc::clone(self), key: key.clone(), number };
        let load = load();
        let flight = async move {
            let _landing = landing;
            load.await
        };
        let flight = flight.boxed().shared();
        let weak = flight.downgrade().expect("it was not polled yet");
        flights.by_key.insert(key.clone(), (number, weak));
        (flight, true)
    }
}

impl<K, V> Flights<K, V> {
    fn lock(&self) -> MutexGuard<'_, InFlight<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // Another one may have begun since this one was given up.
        if flights.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            flights.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn those_who_come_while_it_is_under_way_join_and_those_who_come_later_begin_anew() {
        let (flights, loads) = (Arc::<Flights<u8, u32>>::default(), Arc::<AtomicU32>::default());
        let load = || {
            let loads = Arc::clone(&loads);
            async move { loads.fetch_add(1, Ordering::Relaxed) }
        };
        let ((first, begun), (second, joined)) = (flights.join(&1, load), flights.join(&1, load));
        assert_eq!((begun, joined, first.await, second.await), (true, false, 0, 0));
        let (third, begun) = flights.join(&1, load);
        assert_eq!((begun, third.await), (true, 1));
        assert!(flights.lock().by_key.is_empty());
    }

    /// Fails when a flight that nobody waits for stays in the list, or takes a later one out of it.
    #[tokio::test]
    async fn a_flight_that_all_have_left_ends_and_the_next_one_is_its_own() {
        let flights = Arc::<Flights<u8, u32>>::default();
        let (left, _) = flights.join(&1, pending);
        let (also_left, begun) = flights.join(&1, pending);
        assert!(!begun);
        drop(left);
        assert_eq!(flights.lock().by_key.len(), 1);
        drop(also_left);
        assert!(flights.lock().by_key.is_empty());
        let (next, begun) = flights.join(&1, || async { 7 });
        assert_eq!((begun, next.await), (true, 7));
    }
}
