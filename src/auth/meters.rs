//! Meters of keys: one for each key, for as long as somebody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::broker::KeyMeter;
use crate::broker::documents::ApiKeyDoc;

/// So many are kept before those that nobody holds any more are looked for.
const KEPT_MIN: usize = 1_024;

/// See the module. A key that is read again, after a change or because the cache had let go of it, gets the meter that its
/// open connections count on.
#[derive(Debug, Default)]
pub(super) struct KeyMeters(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    meters: HashMap<Box<str>, Weak<KeyMeter>>,
    /// The number at which the next ones are let go.
    look_at: usize,
}

impl KeyMeters {
    /// Reads the key, and gives the meter of it, with its quotas from here on for all who hold it. It is read under the lock:
    /// quotas that are stored later are also set later.
    ///
    /// # Errors
    /// Those of `load`.
    pub(super) fn read<E>(
        &self,
        id: &str,
        load: impl FnOnce() -> Result<ApiKeyDoc, E>,
    ) -> Result<(ApiKeyDoc, Arc<KeyMeter>), E> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let doc = load()?;
        let meter = kept.of(id);
        meter.set(&doc.quotas);
        Ok((doc, meter))
    }
}

impl Kept {
    fn of(&mut self, id: &str) -> Arc<KeyMeter> {
        if let Some(meter) = self.meters.get(id).and_then(Weak::upgrade) {
            return meter;
        }
        let meter = Arc::<KeyMeter>::default();
        self.meters.insert(id.into(), Arc::downgrade(&meter));
        if self.meters.len() >= self.look_at.max(KEPT_MIN) {
            self.meters.retain(|_, meter| meter.strong_count() > 0);
            self.look_at = 2 * self.meters.len();
        }
        meter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_read_again_keeps_its_meter() {
        let mut meters = Kept::default();
        let first = meters.of("a");
        assert!(Arc::ptr_eq(&first, &meters.of("a")));
        assert!(!Arc::ptr_eq(&first, &meters.of("b")));
    }

    #[test]
    fn meters_that_nobody_holds_are_let_go() {
        let mut meters = Kept::default();
        let held = meters.of("held");
        for number in 0..10 * KEPT_MIN {
            drop(meters.of(&number.to_string()));
        }
        let kept = meters.meters.len();
        assert!(kept <= KEPT_MIN, "{kept}");
        assert!(Arc::ptr_eq(&held, &meters.of("held")));
    }

    // Fails when the key is read before the lock is taken.
    #[test]
    fn quotas_that_are_stored_later_are_set_later() {
        let meters = KeyMeters::default();
        let read = meters.read("a", || -> Result<ApiKeyDoc, bool> { Err(meters.0.try_lock().is_err()) });
        assert!(matches!(read, Err(true)), "nobody else sets quotas meanwhile");
    }
}
