//! Time, random numbers and threads, the things that the core takes from its surroundings besides the stores.
//!
//! The only file that may read the wall clock or the system's random numbers. No safety rests on either.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngCore;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;
use ulid::Ulid;

use crate::error::{Error, Kind, Result};
use crate::ids::Timestamp;

/// The wall clock.
pub trait Clock: Send + Sync + 'static {
    /// The time now; it may jump, and nothing breaks when it does.
    fn now(&self) -> Timestamp;
}

/// A source of random bytes.
pub trait Rng: Send + Sync + 'static {
    /// Ten random bytes, enough to make a ULID unique.
    fn bytes(&self) -> [u8; 10];
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The system's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Rng for SystemRng {
    fn bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        #[expect(clippy::disallowed_methods, reason = "this is the one place that takes random numbers")]
        rand::rng().fill_bytes(&mut bytes);
        bytes
    }
}

/// Whether the runtime has threads beside this one.
pub(crate) fn has_threads() -> bool {
    Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread
}

/// Does work that takes long where it does not hold up others: on a thread of its own, or at once where the runtime has
/// only one, because nothing then runs beside it and one seed of a simulation stays one history.
///
/// # Errors
/// `Closed` when the runtime ends before the work does.
pub(crate) async fn apart<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if !has_threads() {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(Kind::Closed, format!("{what} was cut off")).with_source(error))?
}

/// A deadline among other events: resolves at `at`, or never. Cancel safe.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        #[expect(clippy::disallowed_methods, reason = "a deadline beside the events that are waited for")]
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A new identifier: the time, then random bits.
pub(crate) fn new_ulid(clock: &dyn Clock, rng: &dyn Rng) -> Ulid {
    let mut random = [0; 16];
    random[6..].copy_from_slice(&rng.bytes());
    Ulid::from_parts(clock.now().0, u128::from_be_bytes(random))
}
