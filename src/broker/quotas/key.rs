//! The quotas of one key, which may come while it is in use: all who hold the key share this, so that they act at once.

use std::sync::{Arc, OnceLock};

use plinth_api::quotas::Quotas;

use super::Meter;
use super::usage::OpenCount;

/// What one key uses. Without quotas nothing is counted but what it has open; a look at it is one load.
#[derive(Debug, Default)]
pub struct KeyMeter {
    open: Arc<OpenCount>,
    /// From the first quotas on.
    meter: OnceLock<Arc<Meter>>,
}

impl KeyMeter {
    /// That of a key with quotas, or with none if these are empty.
    #[must_use]
    pub fn new(quotas: &Quotas) -> Self {
        let key = Self::default();
        key.set(quotas);
        key
    }

    /// Sets the quotas.
    pub fn set(&self, quotas: &Quotas) {
        if quotas.is_empty() && self.meter.get().is_none() {
            return;
        }
        self.meter.get_or_init(|| Arc::new(Meter::counting(Arc::clone(&self.open)))).set(quotas);
    }

    /// What counts the rest of what it uses, once it has had quotas.
    #[must_use]
    pub fn meter(&self) -> Option<&Arc<Meter>> {
        self.meter.get()
    }

    pub(super) fn open_count(&self) -> &Arc<OpenCount> {
        &self.open
    }
}
