//! When API keys were last used, to the minute.
//!
//! A use is noted in memory, once a minute and key; once a minute what was noted is stored, of all keys together. An open
//! connection is a use for as long as it is open. A crash forgets the last minute.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_storage::Kind;
use plinth_storage::ids::{TenantId, Timestamp};
use plinth_storage::log::{Change, DocOp, Guard};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Auth;
use super::caller::Caller;
use crate::broker::Error;
use crate::broker::documents::{self, KeyUseDoc};

const MINUTE_MS: u64 = 60_000;
const MINUTE: Duration = Duration::from_millis(MINUTE_MS);
/// Most keys whose use waits to be stored; the use of more is noted a minute later.
const WAITING_MAX: usize = 100_000;
/// Most keys in one change.
const KEYS_AT_ONCE: usize = 200;
/// A key that is deleted at the same moment fails the change of all; it is made anew without it so often.
const TRIES: usize = 3;

/// The minute of the last use of one key that was noted.
#[derive(Debug, Default)]
pub(super) struct LastUse(AtomicU64);

/// Uses that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<Box<str>, Use>>);

#[derive(Clone, Copy, Debug)]
struct Use {
    tenant: TenantId,
    at: Timestamp,
}

impl LastUse {
    /// Whether the minute is a later one than the last; true once for each.
    fn begins(&self, minute: u64) -> bool {
        self.0.load(Ordering::Relaxed) < minute && self.0.fetch_max(minute, Ordering::Relaxed) < minute
    }
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: &str, tenant: TenantId, at: Timestamp) {
        let mut waiting = self.lock();
        if let Some(noted) = waiting.get_mut(id) {
            noted.at = noted.at.max(at);
        } else if waiting.len() < WAITING_MAX {
            waiting.insert(id.into(), Use { tenant, at });
        }
    }
}

impl Auth {
    /// Stores the uses of keys, once a minute, until it is dropped. Cancel safe.
    pub async fn store_uses(self) {
        let mut minutes = interval_at(Instant::now() + MINUTE, MINUTE);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            minutes.tick().await;
            self.store_noted_uses().await;
        }
    }

    /// Stores the uses that were noted, if there are any. What cannot be stored waits for the next time.
    pub(super) async fn store_noted_uses(&self) {
        let noted: Vec<(Box<str>, Use)> = self.0.uses.lock().drain().collect();
        for some in noted.chunks(KEYS_AT_ONCE) {
            if let Err(error) = self.store_some(some).await {
                tracing::warn!(%error, "when keys were last used is stored later");
                some.iter().for_each(|(id, noted)| self.0.uses.note(id, noted.tenant, noted.at));
            }
        }
    }

    async fn store_some(&self, some: &[(Box<str>, Use)]) -> Result<(), Error> {
        for _ in 0..TRIES {
            let mut change = Change::default();
            for (id, noted) in some {
                let key = documents::api_key(id);
                if self.0.log.get(&key)?.is_some() {
                    let doc = documents::encode(&KeyUseDoc { v: documents::VERSION, at: noted.at.0 });
                    change.guards.push(Guard::Present(key));
                    change.docs.push(DocOp::Put(documents::key_use(noted.tenant, id), doc));
                }
            }
            if change.docs.is_empty() {
                return Ok(());
            }
            match self.0.log.commit(change).await {
                Err(error) if error.kind() == Kind::Conflict => {}
                committed => return Ok(committed?),
            }
        }
        Ok(())
    }

    /// Notes that `caller`, who holds an API key, uses it.
    pub(super) fn note_use(&self, caller: &Caller, last: &LastUse, now: Timestamp) {
        let minute = now.0 / MINUTE_MS;
        if last.begins(minute)
            && let (Some(id), Some(tenant)) = (caller.key_id(), caller.tenant())
        {
            self.0.uses.note(id, tenant.id(), Timestamp(minute * MINUTE_MS));
        }
    }

    /// When the key was last used, to the minute, as far as it is known.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn last_use(&self, tenant: TenantId, id: &str) -> Result<Option<Timestamp>, Error> {
        let noted = self.0.uses.lock().get(id).map(|noted| noted.at);
        let stored: Option<KeyUseDoc> = documents::load(&self.0.log, &documents::key_use(tenant, id))?;
        Ok(noted.max(stored.map(|doc| Timestamp(doc.at))))
    }
}
