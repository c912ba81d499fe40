//! Settings of a node: read from flags, environment variables and one TOML file, checked once, then plain data.
//!
//! A setting is listed in exactly one place, [`Given`], which is at the same time the flags of `plinth serve`, the
//! environment variables beside them and the keys of the file. Flags win over the environment, that over the file, that
//! over the defaults. What is not known is refused and named. This file knows nothing of the parts that it configures.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plinth_api::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};
use serde::Deserialize;

mod root_key;
mod values;

pub use self::root_key::{ROOT_KEY_CHARS_MIN, RootKey};
pub use self::values::{ByteSize, FlushInterval, Hosts, Ratio, Span};

/// What the settings of one start are, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to accept connections, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// The object store, a URL.
    pub store: String,
    /// The directory of the local state and the page cache.
    pub cache_dir: PathBuf,
    /// The root key; without one the first start makes it.
    pub root_key: Option<RootKey>,
    /// A root key that is accepted beside it.
    pub root_key_previous: Option<RootKey>,
    /// The certificate for TLS and those that lead to a root, a file in PEM; needs `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, a file in PEM.
    pub tls_key: Option<PathBuf>,
    /// Whether plain HTTP may be spoken on an address that other machines reach.
    pub plain_http: bool,
    /// How clients reach this node, when that is not the listening address.
    pub public_url: Option<String>,
    /// Hosts that issuers may name though their addresses are private, in lower case.
    pub private_hosts: Vec<String>,
    /// How long to collect records before an object is written; without it the store decides.
    pub flush_interval: Option<Duration>,
    /// Most bytes of the page cache on disk.
    pub cache_bytes: u64,
    /// Most bytes of the page cache in memory.
    pub memory_bytes: u64,
    /// Most bytes of the newest records in memory.
    pub tail_bytes: u64,
    /// Most bytes that wait for the object store; more are refused.
    pub pending_bytes: u64,
    /// About how much of the log is rewritten into a segment at a time.
    pub segment_bytes: u64,
    /// How long a long-poll of a stream waits.
    pub stream_long_poll: Duration,
    /// About how many bytes one answer of a stream has.
    pub stream_response_bytes: u64,
    /// Most open connections.
    pub max_connections: usize,
    /// Most open connections of one client address.
    pub max_connections_per_address: usize,
    /// How long open connections may go on after a stop was asked for.
    pub drain_time: Duration,
    /// Which log lines are written.
    pub log: String,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// The collector that traces go to; without it there are none.
    pub otlp_endpoint: Option<String>,
    /// How many requests are traced that their clients do not trace.
    pub trace_ratio: Option<Ratio>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            store: "./plinth-data/objects".to_owned(),
            cache_dir: PathBuf::from("./plinth-data/cache"),
            root_key: None,
            root_key_previous: None,
            tls_cert: None,
            tls_key: None,
            plain_http: false,
            public_url: None,
            private_hosts: Vec::new(),
            flush_interval: None,
            cache_bytes: 8 << 30,
            memory_bytes: 64 << 20,
            tail_bytes: 64 << 20,
            pending_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            stream_long_poll: Duration::from_secs(20),
            stream_response_bytes: 4 << 20,
            max_connections: CONNECTIONS_MAX,
            max_connections_per_address: CONNECTIONS_PER_ADDRESS_MAX,
            drain_time: Duration::from_secs(5),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            trace_ratio: None,
        }
    }
}

/// What one source says; what it leaves out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Given {
    /// Where to accept connections [default: 127.0.0.1:8080]
    ///
    /// Port 0 takes a free one.
    #[arg(long, env = "PLINTH_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// The object store [default: ./plinth-data/objects]
    ///
    /// A directory, or a URL: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///directory, memory://.
    #[arg(long, env = "PLINTH_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// The directory of local state and cache [default: ./plinth-data/cache]
    ///
    /// It is rebuilt from the object store when it is deleted.
    #[arg(long, env = "PLINTH_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// The root key, at least 32 characters
    ///
    /// Better by the variable than by the flag, which other users of the machine can see. Without it the first start
    /// makes one and prints it once.
    #[arg(long, env = "PLINTH_ROOT_KEY", value_name = "KEY", hide_env_values = true)]
    pub root_key: Option<RootKey>,
    /// A file with the root key, in place of the key itself
    ///
    /// Line breaks at its end do not count.
    #[arg(long, env = "PLINTH_ROOT_KEY_FILE", value_name = "FILE")]
    pub root_key_file: Option<PathBuf>,
    /// The root key from before, accepted beside the new one
    ///
    /// While you replace it: give the new key and this one, bring the new key to all who use it, then take this one away.
    #[arg(long, env = "PLINTH_ROOT_KEY_PREVIOUS", value_name = "KEY", hide_env_values = true)]
    pub root_key_previous: Option<RootKey>,
    /// The certificate for TLS, a file in PEM
    ///
    /// First the node's own, then those that lead to a root. Read again when it changes, and on SIGHUP. Without it the node
    /// speaks plain HTTP, and only on loopback.
    #[arg(long, env = "PLINTH_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, a file in PEM
    #[arg(long, env = "PLINTH_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Speak plain HTTP on any address [default: false]
    ///
    /// For a node behind a proxy that ends TLS: keys and records cross the network as they are.
    #[arg(long, env = "PLINTH_PLAIN_HTTP", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub plain_http: Option<bool>,
    /// How clients reach this node, if not by its address
    ///
    /// Shown in the start-up lines, and in addresses that the node tells.
    #[arg(long, env = "PLINTH_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Private hosts at which trusted issuers may publish keys and webhooks may be, with commas between them [default: none]
    ///
    /// They may be without TLS, too; any other host must have public addresses alone. For development.
    #[arg(long, env = "PLINTH_PRIVATE_HOSTS", value_name = "HOSTS")]
    pub private_hosts: Option<Hosts>,
    /// How long to collect records for one object [default: auto]
    ///
    /// `auto` writes at once to a directory and collects longer where every request costs.
    #[arg(long, env = "PLINTH_FLUSH_INTERVAL", value_name = "TIME")]
    pub flush_interval: Option<FlushInterval>,
    /// Most bytes of the page cache on disk [default: 8GiB]
    #[arg(long, env = "PLINTH_CACHE_BYTES", value_name = "BYTES")]
    pub cache_bytes: Option<ByteSize>,
    /// Most bytes of the page cache in memory, and of what is read ahead [default: 64MiB]
    #[arg(long, env = "PLINTH_MEMORY_BYTES", value_name = "BYTES")]
    pub memory_bytes: Option<ByteSize>,
    /// Most bytes of the newest records in memory [default: 64MiB]
    ///
    /// Live readers are served from them.
    #[arg(long, env = "PLINTH_TAIL_BYTES", value_name = "BYTES")]
    pub tail_bytes: Option<ByteSize>,
    /// Most bytes that wait for the object store [default: 64MiB]
    ///
    /// More are refused with 503.
    #[arg(long, env = "PLINTH_PENDING_BYTES", value_name = "BYTES")]
    pub pending_bytes: Option<ByteSize>,
    /// How much of the log is compacted at a time [default: 64MiB]
    ///
    /// Twice as much memory is used for it. More makes fewer and larger objects.
    #[arg(long, env = "PLINTH_SEGMENT_BYTES", value_name = "BYTES")]
    pub segment_bytes: Option<ByteSize>,
    /// How long a long-poll of a stream waits [default: 20s]
    ///
    /// Of the protocol of Durable Streams. Less than what a proxy on the way allows.
    #[arg(long, env = "PLINTH_STREAM_LONG_POLL", value_name = "TIME")]
    pub stream_long_poll: Option<Span>,
    /// About how many bytes one answer of a stream has [default: 4MiB]
    ///
    /// Clients read on by themselves. A single record may have more.
    #[arg(long, env = "PLINTH_STREAM_RESPONSE_BYTES", value_name = "BYTES")]
    pub stream_response_bytes: Option<ByteSize>,
    /// Most open connections [default: 20000]
    ///
    /// More are closed unanswered.
    #[arg(long, env = "PLINTH_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Most open connections of one client address [default: 10000]
    #[arg(long, env = "PLINTH_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    pub max_connections_per_address: Option<usize>,
    /// How long open connections may go on after SIGTERM [default: 5s]
    #[arg(long, env = "PLINTH_DRAIN_TIME", value_name = "TIME")]
    pub drain_time: Option<Span>,
    /// Which log lines are written [default: info]
    ///
    /// As for RUST_LOG: `info`, or `warn,plinth=debug`; lines of libraries from `info` up only. A line per request comes
    /// with `info,plinth::access=debug`.
    #[arg(long, env = "PLINTH_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// The form of log lines on stderr [default: text]
    #[arg(long, env = "PLINTH_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The collector that traces go to, by OTLP over HTTP, such as http://localhost:4318
    ///
    /// Without it nothing is traced. Of the standard variables OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES are
    /// read then, too.
    #[arg(long, env = "PLINTH_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Which part of the requests is traced that their clients do not trace [default: 0.01]
    ///
    /// From 0 to 1. One whose header `traceparent` says that its trace is recorded is always traced, up to 100 per second.
    #[arg(long, env = "PLINTH_TRACE_RATIO", value_name = "RATIO")]
    pub trace_ratio: Option<Ratio>,
}

impl Settings {
    /// The settings of a start: `first` (flags and environment), then the file, then the defaults.
    ///
    /// # Errors
    /// The file cannot be read or has an unknown key or an unreadable value; a value is out of its bounds.
    pub fn load(first: Given, file: Option<&Path>) -> Result<Self, ConfigError> {
        let second = file.map_or_else(|| Ok(Given::default()), Given::read)?;
        let settings = Self::complete(first.or(second).with_root_key_of_file()?);
        settings.check()?;
        Ok(settings)
    }

    fn complete(given: Given) -> Self {
        let default = Self::default();
        Self {
            listen: given.listen.unwrap_or(default.listen),
            store: given.store.unwrap_or(default.store),
            cache_dir: given.cache_dir.unwrap_or(default.cache_dir),
            root_key: given.root_key.or(default.root_key),
            root_key_previous: given.root_key_previous.or(default.root_key_previous),
            tls_cert: given.tls_cert.or(default.tls_cert),
            tls_key: given.tls_key.or(default.tls_key),
            plain_http: given.plain_http.unwrap_or(default.plain_http),
            public_url: given.public_url.or(default.public_url),
            private_hosts: given.private_hosts.map_or(default.private_hosts, |hosts| hosts.0),
            flush_interval: given.flush_interval.map_or(default.flush_interval, |interval| interval.0),
            cache_bytes: given.cache_bytes.map_or(default.cache_bytes, |bytes| bytes.0),
            memory_bytes: given.memory_bytes.map_or(default.memory_bytes, |bytes| bytes.0),
            tail_bytes: given.tail_bytes.map_or(default.tail_bytes, |bytes| bytes.0),
            pending_bytes: given.pending_bytes.map_or(default.pending_bytes, |bytes| bytes.0),
            segment_bytes: given.segment_bytes.map_or(default.segment_bytes, |bytes| bytes.0),
            stream_long_poll: given.stream_long_poll.map_or(default.stream_long_poll, |span| span.0),
            stream_response_bytes: given.stream_response_bytes.map_or(default.stream_response_bytes, |bytes| bytes.0),
            max_connections: given.max_connections.unwrap_or(default.max_connections),
            max_connections_per_address: given
                .max_connections_per_address
                .unwrap_or(default.max_connections_per_address),
            drain_time: given.drain_time.map_or(default.drain_time, |span| span.0),
            log: given.log.unwrap_or(default.log),
            log_format: given.log_format.unwrap_or(default.log_format),
            otlp_endpoint: given.otlp_endpoint,
            trace_ratio: given.trace_ratio,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        root_key::check(self.root_key.as_ref(), self.root_key_previous.as_ref())?;
        let bounds = [
            ("max_connections", self.max_connections >= 1, "at least 1"),
            ("max_connections_per_address", self.max_connections_per_address >= 1, "at least 1"),
            ("memory_bytes", self.memory_bytes >= 8 << 20, "at least 8MiB, two pages"),
            ("tail_bytes", (1 << 20..=1 << 40).contains(&self.tail_bytes), "from 1MiB to 1TiB"),
            ("pending_bytes", (16 << 20..=1 << 40).contains(&self.pending_bytes), "from 16MiB, two batches, to 1TiB"),
            ("segment_bytes", (1 << 20..=1 << 30).contains(&self.segment_bytes), "from 1MiB to 1GiB"),
            (
                "stream_long_poll",
                (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.stream_long_poll),
                "from 100ms to 60s",
            ),
            ("stream_response_bytes", (4096..=8 << 20).contains(&self.stream_response_bytes), "from 4KiB to 8MiB"),
            ("public_url", self.public_url.as_deref().is_none_or(is_http), "a URL such as https://plinth.example.com"),
            ("tls_key", self.tls_cert.is_none() || self.tls_key.is_some(), "given with tls_cert"),
            ("tls_cert", self.tls_key.is_none() || self.tls_cert.is_some(), "given with tls_key"),
            ("plain_http", !self.plain_http || self.tls_cert.is_none(), "false with tls_cert"),
            (
                "otlp_endpoint",
                self.otlp_endpoint.as_deref().is_none_or(is_bare_http),
                "a URL such as http://localhost:4318, without user, password and query",
            ),
            (
                "trace_ratio",
                self.trace_ratio.is_none() || self.otlp_endpoint.is_some(),
                "given only beside otlp_endpoint: without that nothing is traced",
            ),
            ("drain_time", self.drain_time <= Duration::from_secs(3600), "at most 1h"),
            (
                "flush_interval",
                self.flush_interval.is_none_or(|interval| interval <= Duration::from_secs(10)),
                "at most 10s",
            ),
        ];
        match bounds.iter().find(|(_, holds, _)| !holds) {
            Some((name, _, bound)) => Err(ConfigError::OutOfBounds { name, bound }),
            None => Ok(()),
        }
    }
}

fn is_http(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// It goes into log lines.
fn is_bare_http(text: &str) -> bool {
    let has_more = |url: url::Url| {
        !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some()
    };
    is_http(text) && !url::Url::parse(text).is_ok_and(has_more)
}

impl Given {
    /// Every setting of `self`, and of `lower` where `self` says nothing.
    fn or(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            store: self.store.or(lower.store),
            cache_dir: self.cache_dir.or(lower.cache_dir),
            root_key: self.root_key.or(lower.root_key),
            root_key_file: self.root_key_file.or(lower.root_key_file),
            root_key_previous: self.root_key_previous.or(lower.root_key_previous),
            tls_cert: self.tls_cert.or(lower.tls_cert),
            tls_key: self.tls_key.or(lower.tls_key),
            plain_http: self.plain_http.or(lower.plain_http),
            public_url: self.public_url.or(lower.public_url),
            private_hosts: self.private_hosts.or(lower.private_hosts),
            flush_interval: self.flush_interval.or(lower.flush_interval),
            cache_bytes: self.cache_bytes.or(lower.cache_bytes),
            memory_bytes: self.memory_bytes.or(lower.memory_bytes),
            tail_bytes: self.tail_bytes.or(lower.tail_bytes),
            pending_bytes: self.pending_bytes.or(lower.pending_bytes),
            segment_bytes: self.segment_bytes.or(lower.segment_bytes),
            stream_long_poll: self.stream_long_poll.or(lower.stream_long_poll),
            stream_response_bytes: self.stream_response_bytes.or(lower.stream_response_bytes),
            max_connections: self.max_connections.or(lower.max_connections),
            max_connections_per_address: self.max_connections_per_address.or(lower.max_connections_per_address),
            drain_time: self.drain_time.or(lower.drain_time),
            log: self.log.or(lower.log),
            log_format: self.log_format.or(lower.log_format),
            otlp_endpoint: self.otlp_endpoint.or(lower.otlp_endpoint),
            trace_ratio: self.trace_ratio.or(lower.trace_ratio),
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, message)| ConfigError::BadFile { path: path.to_owned(), line, message })
    }

    /// Parses a settings file; the error is a line and a message without the line's text, which may be a secret.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let end = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count() + 1;
            (line, error.message().to_owned())
        })
    }
}

/// Refuses environment variables that begin with `PLINTH_` and that no setting reads: a misspelt one would be silently
/// without effect.
///
/// Three families are let through: `PLINTH_TEST_*` steers tests; and `PLINTH_PORT…` and `PLINTH_SERVICE_…` are put
/// into every container beside a Kubernetes service that is named `plinth`, without anybody's asking.
///
/// # Errors
/// [`ConfigError::UnknownVariables`], with every such name.
pub fn check_environment(known: &BTreeSet<String>, names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let foreign = |name: &str| {
        ["PLINTH_TEST_", "PLINTH_PORT_", "PLINTH_SERVICE_"].iter().any(|prefix| name.starts_with(prefix))
            || name == "PLINTH_PORT"
    };
    let unknown: Vec<String> = names
        .filter(|name| name.starts_with("PLINTH_") && !known.contains(name) && !foreign(name))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if unknown.is_empty() { Ok(()) } else { Err(ConfigError::UnknownVariables(unknown)) }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error("settings file {path} cannot be read", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings file has an unknown key or a bad value.
    #[error("settings file {path}, line {line}: {message}", path = path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// There are variables that no setting reads.
    #[error("unknown environment variables: {}; `plinth --help` lists the known ones", .0.join(", "))]
    UnknownVariables(Vec<String>),
    /// The file with the root key cannot be read.
    #[error("root key file {path} cannot be read", path = path.display())]
    RootKeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The root key is too weak, cannot be sent in a header, or is given in two ways.
    #[error("root key {0}")]
    RootKey(String),
    /// A value is out of its bounds.
    #[error("setting {name} must be {bound}")]
    OutOfBounds {
        /// The setting.
        name: &'static str,
        /// What it must be.
        bound: &'static str,
    },
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests;
