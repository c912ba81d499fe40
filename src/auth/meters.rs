//! Meters of the keys that have quotas: one each, for as long as somebody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use plinth_api::quotas::Quotas;

use crate::broker::Meter;

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
    /// The meter of the key, with these quotas from here on; none without quotas.
    pub(super) fn of(&self, id: &str, quotas: &Quotas) -> Option<Arc<Meter>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = kept.meters.get(id).and_then(Weak::upgrade) {
            meter.set(quotas);
            return (!quotas.is_empty()).then_some(meter);
        }
        if quotas.is_empty() {
            return None;
        }
        let meter = Arc::new(Meter::new(quotas));
        kept.meters.insert(id.into(), Arc::downgrade(&meter));
        if kept.meters.len() >= kept.look_at.max(KEPT_MIN) {
            kept.meters.retain(|_, meter| meter.strong_count() > 0);
            kept.look_at = 2 * kept.meters.len();
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
        let meters = KeyMeters::default();
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
        let meters = KeyMeters::default();
        let held = meters.of("held", &quotas(5));
        for number in 0..10 * KEPT_MIN {
            drop(meters.of(&number.to_string(), &quotas(5)));
        }
        let kept = meters.0.lock().expect("no panic").meters.len();
        assert!(kept <= KEPT_MIN, "{kept}");
        assert!(held.is_some_and(|held| meters.of("held", &quotas(5)).is_some_and(|again| Arc::ptr_eq(&held, &again))));
    }
}
