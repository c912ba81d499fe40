//! The composition root: a node is built here, from the log upwards, served, and taken down again.

use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use plinth_storage::Log;
use plinth_storage::log::{LogOptions, StopReason};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, FirstStart, RootKeys};
use crate::broker::{Broker, BrokerOptions, Wakes};
use crate::egress::{Egress, EgressOptions};
use crate::http::{self, Front, ROUTES, StreamOptions};
use crate::server::{self, ServerLimits, Service, Tls};
use crate::telemetry::Metrics;
use crate::telemetry::traces::Sampling;

/// How long the last records about tenants may take.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// What a node is made of.
pub struct AppOptions {
    /// Bound before the log is opened: a second node with the same address fails before it ends the session of the first.
    pub listener: TcpListener,
    /// The log.
    pub log: LogOptions,
    /// Hosts that issuers may name though their addresses are private.
    pub private_hosts: Vec<String>,
    /// The operator's keys; one is made at the first start when none is given.
    pub root_keys: RootKeys,
    /// The bounds of connections and requests.
    pub limits: ServerLimits,
    /// How streams are answered.
    pub streams: StreamOptions,
    /// Certificate and key; without them the node speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Which requests are traced; without it none is.
    pub sampling: Option<Arc<Sampling>>,
}

/// Why a node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The listener does not work.
    #[error("the listener does not work")]
    Listener(#[source] io::Error),
    /// The log could not be opened.
    #[error("the log could not be opened")]
    Log(#[source] plinth_storage::error::Error),
    /// What the log holds about tenants, keys or cursors could not be loaded.
    #[error("the node could not be started")]
    Start(#[source] crate::broker::Error),
    /// The session ended by itself: another node took the bucket over, or stored data is broken.
    #[error("the node stopped itself: {0}")]
    Stopped(StopReason),
    /// What was under way could not be finished.
    #[error("the log could not be closed")]
    Close(#[source] plinth_storage::error::Error),
}

/// A node that has started.
pub struct App {
    listener: TcpListener,
    local_addr: SocketAddr,
    log: Log,
    front: Front,
    tls: Option<Tls>,
    first_start: FirstStart,
}

impl App {
    /// Opens the log and everything above it. Connections wait in the kernel until [`App::run`].
    ///
    /// # Errors
    /// When the store, its content or the listener do not allow it.
    pub async fn start(options: AppOptions) -> Result<Self, AppError> {
        let AppOptions { listener, log, private_hosts, root_keys, limits, streams, tls, sampling } = options;
        let local_addr = listener.local_addr().map_err(AppError::Listener)?;
        let log = Log::open(log).await.map_err(AppError::Log)?;
        let egress = Egress::new(EgressOptions { private_hosts, ..EgressOptions::default() });
        let (auth, first_start) =
            Auth::open_with(log.clone(), root_keys, egress.clone()).await.map_err(AppError::Start)?;
        let broker = Broker::open(log.clone(), BrokerOptions::default()).await.map_err(AppError::Start)?;
        let wakes = Wakes::new(auth.clone(), broker.clone(), egress);
        let metrics = Metrics::new(ROUTES.iter().map(|route| route.path), |registry| {
            log.metrics().register(registry);
            wakes.metrics().register(registry);
        });
        let front = Front::new((auth, broker, wakes), (Arc::new(metrics), sampling), limits, streams);
        Ok(Self { listener, local_addr, log, front, tls, first_start })
    }

    /// The keys that were made at the first start; they are shown this once.
    #[must_use]
    pub fn first_start(&self) -> &FirstStart {
        &self.first_start
    }

    /// Where the node listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is cancelled or the log stops by itself, then ends connections, then the log.
    ///
    /// # Errors
    /// `Stopped` when the log ended its session by itself, `Listener` and `Close` for what failed at either end.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AppError> {
        let Self { listener, log, front, tls, .. } = self;
        if let Some(tls) = tls.clone() {
            front.tasks.spawn(tls.keep_current(front.shutdown.clone()));
        }
        let service = Service {
            answer: http::Door::new(front.clone()),
            limits: front.limits,
            shutdown: front.shutdown.clone(),
            ended: front.ended.clone(),
            tasks: front.tasks.clone(),
            tls,
            metrics: Arc::clone(&front.metrics),
        };
        // However it ends, nobody is left in the local state.
        let _looks = front.broker.looks_end();
        let mut upkeep = JoinSet::new();
        upkeep.spawn(front.auth.clone().free_what_is_left());
        upkeep.spawn(front.auth.clone().store_uses());
        upkeep.spawn(front.broker.clone().keep_streams(front.auth.clone()));
        upkeep.spawn(front.wakes.clone().run());
        let mut writing = JoinSet::new();
        writing.spawn(front.system.clone().run());
        let mut serving = pin!(server::serve(listener, service));
        let stopped = tokio::select! {
            served = &mut serving => return served.map_err(AppError::Listener),
            () = shutdown.cancelled() => None,
            reason = log.stopped() => Some(reason),
        };
        announce(stopped.as_ref());
        front.shutdown.cancel();
        let served = serving.await.map_err(AppError::Listener);
        upkeep.shutdown().await;
        front.auth.close().await;
        front.wakes.close().await;
        front.broker.close().await;
        front.system.close();
        if timeout(LAST_RECORDS, writing.join_all()).await.is_err() {
            tracing::warn!("records of system topics are lost: they were not stored in time");
        }
        let closed = log.close().await.map_err(AppError::Close);
        stopped.map_or(Ok(()), |reason| Err(AppError::Stopped(reason))).and(served).and(closed)
    }
}

fn announce(stopped: Option<&impl Display>) {
    match stopped {
        Some(reason) => tracing::error!(%reason, "the log stopped by itself, the node ends"),
        None => tracing::info!("the node ends"),
    }
}
