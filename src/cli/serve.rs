//! `plinth serve`: from settings to a running node, and what it says to people on the way.
//!
//! The port is taken before the log is opened: a second start by accident fails on the port and does not end the session
//! of the first.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use plinth_storage::error::Chain;
use plinth_storage::log::{LogOptions, StopReason};
use plinth_storage::{Kind, store};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::healthcheck::reachable;
use super::{Fenced, Usage, limits, opened, output};
use crate::app::{App, AppError, AppOptions};
use crate::auth::{FirstStart, RootKeys};
use crate::config::{Given, LogFormat, RootKey, Settings};
use crate::http::StreamOptions;
use crate::server::{ServerLimits, Tls, TlsFiles, bind};
use crate::telemetry::logs::{self, LogError};
use crate::telemetry::traces::{Sampling, TraceOptions, Traces};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A settings file; flags and variables win over it
    ///
    /// plinth.toml in the sources lists every setting.
    #[arg(long, env = "PLINTH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let settings = Settings::load(args.given, args.config.as_deref())?;
    let traces = traces(&settings)?;
    log_lines(&settings, traces.as_ref())?;
    let ended = serve(&settings, traces.as_ref().map(Traces::sampling)).await;
    if let Some(traces) = traces {
        tokio::task::spawn_blocking(move || traces.close()).await?;
    }
    ended
}

async fn serve(settings: &Settings, sampling: Option<Arc<Sampling>>) -> anyhow::Result<()> {
    limits::raise_open_files();
    limits::without_huge_pages();
    let mut signals = Signals::open()?;
    let tls = tls(settings).await?;
    let listener = listen(settings, tls.is_some())?;
    let app = tokio::select! {
        app = App::start(AppOptions { sampling, ..options(settings, listener, tls)? }) => app.map_err(classify)?,
        () = signals.next() => {
            tracing::info!("asked to stop before the start was done");
            return Ok(());
        }
    };
    greet(settings, app.local_addr(), app.first_start());
    let shutdown = CancellationToken::new();
    let run = app.run(shutdown.clone());
    tokio::pin!(run);
    tokio::select! {
        result = &mut run => return result.map_err(classify),
        () = signals.next() => shutdown.cancel(),
    }
    tokio::select! {
        result = run => result.map_err(classify),
        // Whoever asks twice does not want to wait. What is acknowledged is stored already.
        () = signals.next() => anyhow::bail!("asked to stop a second time, so the rest of the drain was left out"),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn open() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next request to stop. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn options(settings: &Settings, listener: TcpListener, tls: Option<Tls>) -> anyhow::Result<AppOptions> {
    let stores = opened(store::open(&settings.store))?;
    let mut log = LogOptions::new(stores);
    log.cache_dir = Some(settings.cache_dir.clone());
    log.flush_interval = settings.flush_interval.or(log.flush_interval);
    log.page_disk_bytes = settings.cache_bytes;
    log.page_memory_bytes = settings.memory_bytes;
    log.tail_bytes_max = usize::try_from(settings.tail_bytes)?;
    log.pending_bytes_max = usize::try_from(settings.pending_bytes)?;
    log.segment_bytes = settings.segment_bytes;
    Ok(AppOptions {
        listener,
        log,
        private_hosts: settings.private_hosts.clone(),
        root_keys: RootKeys {
            newest: settings.root_key.as_ref().map(RootKey::reveal).map(str::to_owned),
            previous: settings.root_key_previous.as_ref().map(RootKey::reveal).map(str::to_owned),
        },
        limits: ServerLimits {
            connections_max: settings.max_connections,
            connections_per_address_max: settings.max_connections_per_address,
            drain: settings.drain_time,
            ..ServerLimits::default()
        },
        streams: StreamOptions {
            long_poll: settings.stream_long_poll,
            response_bytes: usize::try_from(settings.stream_response_bytes)?,
            public_url: settings.public_url.clone(),
        },
        tls,
        sampling: None,
    })
}

/// Certificate and key, if they are set.
async fn tls(settings: &Settings) -> anyhow::Result<Option<Tls>> {
    let (Some(certificate), Some(key)) = (settings.tls_cert.clone(), settings.tls_key.clone()) else { return Ok(None) };
    let loaded = Tls::load(TlsFiles { certificate, key }).await;
    loaded.map(Some).map_err(|error| Usage(Chain(&error).to_string()).into())
}

fn listen(settings: &Settings, tls: bool) -> anyhow::Result<TcpListener> {
    let text = &settings.listen;
    let mut addresses =
        text.to_socket_addrs().map_err(|error| Usage(format!("{text} is not an address to listen on: {error}")))?;
    let address = addresses.next().with_context(|| format!("{text} has no address"))?;
    if !tls && !settings.plain_http && !address.ip().to_canonical().is_loopback() {
        let why = "other machines reach it, and keys and records would cross the network as they are";
        let ways = "give --tls-cert and --tls-key, or --plain-http if a proxy in front ends TLS";
        return Err(Usage(format!("plain HTTP is not spoken on {address} unasked: {why}; {ways}")).into());
    }
    bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// Finds out whether another process took over, which has its own exit code.
fn classify(error: AppError) -> anyhow::Error {
    let kind = match &error {
        AppError::Log(cause) | AppError::Close(cause) => Some(cause.kind()),
        AppError::Stopped(StopReason::Fenced(_)) => Some(Kind::Fenced),
        AppError::Stopped(StopReason::Closed | StopReason::Broken(_)) => None,
        AppError::Listener(_) | AppError::Start(_) => None,
    };
    let error = anyhow::Error::from(error);
    if kind == Some(Kind::Fenced) { Fenced(format!("{error:#}")).into() } else { error }
}

/// The way of traces, if there is a collector.
fn traces(settings: &Settings) -> anyhow::Result<Option<Traces>> {
    let Some(endpoint) = settings.otlp_endpoint.clone() else { return Ok(None) };
    let per_million = settings.trace_ratio.unwrap_or_default().per_million;
    Ok(Some(Traces::open(&TraceOptions { endpoint, per_million })?))
}

/// Log lines go to stderr: stdout is for what the node says at its start.
fn log_lines(settings: &Settings, traces: Option<&Traces>) -> anyhow::Result<()> {
    let form = match settings.log_format {
        LogFormat::Text => logs::Form::Text,
        LogFormat::Json => logs::Form::Json,
    };
    logs::install(&settings.log, form, traces).map_err(|error| match error {
        LogError::Filter { .. } => Usage(error.to_string()).into(),
        LogError::Taken => error.into(),
    })
}

fn greet(settings: &Settings, address: SocketAddr, first: &FirstStart) {
    let scheme = if settings.tls_cert.is_some() { "https" } else { "http" };
    let url = match &settings.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("{scheme}://{}", reachable(address)),
    };
    let mut text = format!("plinth {} listens on {scheme}://{address}\n", env!("CARGO_PKG_VERSION"));
    text.push_str(&format!("  console   {url}/console\n  API       {url}/docs\n"));
    if let Some(key) = &first.root_key {
        text.push_str(&format!(
            "\nThe root key, shown this once: it manages tenants. Keep it in PLINTH_ROOT_KEY.\n  {key}\n"
        ));
    }
    if let Some(key) = &first.default_key {
        text.push_str(&format!("\nThe API key of the tenant `default`, shown this once:\n  {key}\n"));
    }
    let key = first.default_key.as_deref().unwrap_or("$PLINTH_KEY");
    text.push_str(&format!(
        "\nPublish a first record:\n  curl -H \"Authorization: Bearer {key}\" {url}/v1/topics/orders/records -d hello\n"
    ));
    output::tell(&text);
}
