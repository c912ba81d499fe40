//! Meters of the keys that have quotas: one each, for as long as somebody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use plinth_api::quotas::Quotas;

use crate::broker::Meter;
use crate::broker::documents::ApiKeyDoc;

/// So many are kept before those that nobody holds any more are looked for.
const KEPT_MIN: usize = 1_024;

/// See the module. A key that is read again, after a change or because the cache had let go of it, gets the meter that its
/// open connections count on.
#[derive(Debug, Default)]
pub(super) struct KeyMeters(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    meters: HashMap<Box<str>, Weak<Meter>>,
    /// The number at which the next ones are let go.
    look_at: usize,
}

impl KeyMeters {
    /// Reads the key, and gives the meter of it, with its quotas from here on; none without quotas. It is read under the lock:
    /// quotas that are stored later are also set later.
    ///
    /// # Errors
    /// Those of `load`.
    pub(super) fn read<E>(
        &self,
        id: &str,
        load: impl FnOnce() -> Result<ApiKeyDoc, E>,
    ) -> Result<(ApiKeyDoc, Option<Arc<Meter>>), E> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let doc = load()?;
        let meter = kept.of(id, &doc.quotas);
        Ok((doc, meter))
    }
}

impl Kept {
    fn of(&mut self, id: &str, quotas: &Quotas) -> Option<Arc<Meter>> {
        if let Some(meter) = self.meters.get(id).and_then(Weak::upgrade) {
            meter.set(quotas);
            return (!quotas.is_empty()).then_some(meter);
        }
        if quotas.is_empty() {
            return None;
        }
        let meter = Arc::new(Meter::new(quotas));
        self.meters.insert(id.into(), Arc::downgrade(&meter));
        if self.meters.len() >= self.look_at.max(KEPT_MIN) {
            self.meters.retain(|_, meter| meter.strong_count() > 0);
            self.look_at = 2 * self.meters.len();
        }
        Some(meter)
    }
}

#[cfg(test)]
mod tests {
    use plinth_api::quotas::Quota;

    use super::*;

    fn quotas(requests: u64) -> Quotas {
        Quotas { requests_per_second: Some(requests), ..Quotas::default() }
    }

    #[test]
    fn a_key_that_is_read_again_keeps_its_meter_and_takes_over_its_quotas() {
        let mut meters = Kept::default();
        assert!(meters.of("a", &Quotas::default()).is_none());
        let first = meters.of("a", &quotas(5)).expect("a meter");
        let again = meters.of("a", &quotas(6)).expect("a meter");
        assert!(Arc::ptr_eq(&first, &again));
        assert!(meters.of("a", &Quotas::default()).is_none());
        assert!(first.limit(Quota::RequestsPerSecond).is_none(), "who holds it is limited no more");
        assert!(!Arc::ptr_eq(&first, &meters.of("b", &quotas(5)).expect("a meter")));
    }

    #[test]
    fn meters_that_nobody_holds_are_let_go() {
        let mut meters = Kept::default();
        let held = meters.of("held", &quotas(5));
        for number in 0..10 * KEPT_MIN {
            drop(meters.of(&number.to_string(), &quotas(5)));
        }
        let kept = meters.meters.len();
        assert!(kept <= KEPT_MIN, "{kept}");
        assert!(held.is_some_and(|held| meters.of("held", &quotas(5)).is_some_and(|again| Arc::ptr_eq(&held, &again))));
    }

    // Fails when the key is read before the lock is taken.
    #[test]
    fn quotas_that_are_stored_later_are_set_later() {
        let meters = KeyMeters::default();
        let read = meters.read("a", || -> Result<ApiKeyDoc, bool> { Err(meters.0.try_lock().is_err()) });
        assert!(matches!(read, Err(true)), "nobody else sets quotas meanwhile");
    }
}
