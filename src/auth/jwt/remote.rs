//! The keys that an issuer publishes at an address: fetched when they are needed, and never trusted for long.
//!
//! A set counts for 10 minutes. Then it is fetched again; while that fails, the old set counts on, up to an hour after it was
//! fetched, and then nothing does. A key that the set does not have makes it be fetched at once. In every case one request at
//! a time, and one within 30 seconds, whatever tokens come.

use std::sync::{Arc, Mutex, PoisonError};

use plinth_storage::Log;
use plinth_storage::ids::Timestamp;

use super::algorithm::Algorithm;
use super::fault::TokenFault;
use super::key::{Fingerprint, KeySet, VerifyingKey};
use crate::egress::Egress;

/// A set counts so long.
const FRESH_MS: u64 = 10 * 60 * 1000;
/// And so long, while no newer one can be fetched.
const STALE_MS: u64 = 60 * 60 * 1000;
/// One request within this time.
const AGAIN_MS: u64 = 30 * 1000;
/// Largest set.
const BYTES_MAX: usize = 128 * 1024;

/// The keys at an address.
pub(super) struct Remote {
    url: String,
    state: Mutex<State>,
    /// Held by who fetches.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Timestamp)>,
    tried_at: Option<Timestamp>,
}

/// What is known of a key.
pub(super) enum Look {
    /// The key.
    Found(Arc<VerifyingKey>),
    /// Nothing, or not the newest: the set is to be fetched.
    Fetch,
    /// There is no such key, and it is not time to look for it again.
    Fault(TokenFault),
}

impl State {
    fn may_try(&self, now: Timestamp) -> bool {
        self.tried_at.is_none_or(|tried| now.0 >= tried.0.saturating_add(AGAIN_MS))
    }

    /// The set, if it is not older than `age_ms`.
    fn within(&self, age_ms: u64, now: Timestamp) -> Option<&Arc<KeySet>> {
        let (keys, fetched_at) = self.keys.as_ref()?;
        (now.0 < fetched_at.0.saturating_add(age_ms)).then_some(keys)
    }
}

impl Remote {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), state: Mutex::default(), flight: tokio::sync::Mutex::default() }
    }

    /// The key for a token that names `id` and `algorithm`.
    pub(super) fn look(&self, id: Option<&str>, algorithm: Algorithm, now: Timestamp) -> Look {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let age_ms = if state.may_try(now) { FRESH_MS } else { STALE_MS };
        match state.within(age_ms, now).map(|keys| keys.find(id, algorithm)) {
            Some(Ok(key)) => Look::Found(Arc::clone(key)),
            None | Some(Err(_)) if state.may_try(now) => Look::Fetch,
            Some(Err(fault)) => Look::Fault(fault),
            None => Look::Fault(TokenFault::unfetched()),
        }
    }

    /// Whether the set has this key, as far as it is known; a set of which nothing newer can be had counts for an hour.
    pub(super) fn has(&self, key: &Fingerprint, now: Timestamp) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.within(STALE_MS, now).is_some_and(|keys| keys.has(key))
    }

    /// Whether the set is to be fetched again before it is relied on.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.within(FRESH_MS, now).is_none() && state.may_try(now)
    }

    /// Fetches the set, unless somebody has just tried.
    pub(super) async fn refresh(&self, egress: &Egress, log: &Log) {
        let _flight = self.flight.lock().await;
        let now = log.now();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.may_try(now) {
                return;
            }
            state.tried_at = Some(now);
        }
        let fetched = egress.fetch(&self.url, BYTES_MAX).await.map_err(|error| error.to_string());
        match fetched.and_then(|document| KeySet::of_published(&document)) {
            Ok(keys) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.keys = Some((Arc::new(keys), now));
            }
            Err(why) => tracing::warn!(url = self.url, why, "the keys of an issuer cannot be fetched"),
        }
    }
}
