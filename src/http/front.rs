//! What every handler has at hand.

use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reports::Reports;
use crate::auth::Auth;
use crate::broker::{Broker, System, Wakes};
use crate::server::ServerLimits;
use crate::telemetry::Metrics;
use crate::telemetry::traces::Sampling;

/// Shortest time after which a client that was sent away comes back.
const RECONNECT_MS_MIN: u64 = 200;
/// How much longer it may be at least: so many clients do not come back at the same moment.
const RECONNECT_MS_SPREAD: u64 = 2_000;
/// About how many of those that a node had when it began to end come back to the next start in each second.
const RECONNECTS_PER_SECOND: u64 = 2_000;

/// How streams are answered.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// How long a long-poll waits for something to come.
    pub long_poll: Duration,
    /// About how many bytes one answer has; a single record may have more.
    pub response_bytes: usize,
    /// How clients reach the node, when that is not as their requests say.
    pub public_url: Option<String>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { long_poll: Duration::from_secs(20), response_bytes: 4 << 20, public_url: None }
    }
}

/// The parts that answer requests. Cheap to clone.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

/// The parts behind a [`Front`].
pub struct Inner {
    /// Who may do what.
    pub auth: Auth,
    /// What is done.
    pub broker: Broker,
    /// What is written about tenants.
    pub system: System,
    /// Who is woken by streams.
    pub wakes: Wakes,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the node begins to end: live streams are sent away over the drain time.
    pub shutdown: CancellationToken,
    /// Cancelled when the drain time is over: everything ends at once.
    pub ended: CancellationToken,
    /// Owns connections and sessions.
    pub tasks: TaskTracker,
    /// The bounds of connections and requests.
    pub limits: ServerLimits,
    /// How streams are answered.
    pub streams: StreamOptions,
    /// Which requests are traced; without it none is.
    pub sampling: Option<Arc<Sampling>>,
    /// How many reports of broken policies came lately.
    pub(super) reports: Reports,
    /// How many connections there were when the first client was sent away because the node ends.
    clients: OnceLock<u64>,
    request_prefix: String,
    requests: AtomicU64,
}

impl Deref for Front {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Front {
    /// A front over parts of the same log.
    #[must_use]
    pub fn new(
        (auth, broker, wakes): (Auth, Broker, Wakes),
        (metrics, sampling): (Arc<Metrics>, Option<Arc<Sampling>>),
        limits: ServerLimits,
        streams: StreamOptions,
    ) -> Self {
        let session = broker.log().session().to_string();
        let request_prefix = session[session.len().saturating_sub(10)..].to_ascii_lowercase();
        let system = System::new(auth.clone(), broker.clone());
        Self(Arc::new(Inner {
            auth,
            system,
            wakes,
            broker,
            metrics,
            shutdown: CancellationToken::new(),
            ended: CancellationToken::new(),
            tasks: TaskTracker::new(),
            limits,
            streams,
            sampling,
            reports: Reports::default(),
            clients: OnceLock::new(),
            request_prefix,
            requests: AtomicU64::new(0),
        }))
    }

    /// A random number below `below`, at least 1.
    #[must_use]
    pub fn random(&self, below: u64) -> u64 {
        let random = self.broker.log().new_ulid().0 & u128::from(u64::MAX);
        u64::try_from(random).expect("the upper half is masked away") % below.max(1)
    }

    /// How long a client that is sent away shall wait, a random time; the more clients the node has, the longer it may be.
    #[must_use]
    pub fn reconnect_in_ms(&self) -> u64 {
        // While it ends they become fewer, and some come and are sent away again: the first look counts.
        let clients = || self.metrics.connections_open();
        let clients = if self.shutdown.is_cancelled() { *self.clients.get_or_init(clients) } else { 0 };
        RECONNECT_MS_MIN + self.random(RECONNECT_MS_SPREAD.max(clients * 1_000 / RECONNECTS_PER_SECOND))
    }

    /// Resolves at a random moment of the drain time, once the node begins to end; at once if it has begun to before.
    /// Not cancel safe: each call draws its own moment, so make it once and poll it.
    pub async fn told_to_go(&self) {
        if self.shutdown.is_cancelled() {
            return;
        }
        self.shutdown.cancelled().await;
        let spread = u64::try_from(self.limits.drain.as_millis()).unwrap_or(u64::MAX);
        let wait = Duration::from_millis(self.random(spread));
        // Passing the time is the point; an end before that is one, too.
        let _ = timeout(wait, self.ended.cancelled()).await;
    }

    /// The id of a request whose client gave none.
    pub(super) fn next_request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        // In one allocation of its own length.
        let digits = (u64::BITS - (number | 1).leading_zeros()).div_ceil(4) as usize;
        let mut id = String::with_capacity(self.request_prefix.len() + 1 + digits);
        id.push_str(&self.request_prefix);
        write!(id, "-{number:x}").expect("a string takes all");
        id
    }
}
