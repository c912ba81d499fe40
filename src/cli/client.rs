//! The commands' HTTP client: address and credential, problem documents, and what a failed request may have done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use plinth_api::ListPage;
use plinth_api::error::{ErrorCode, Problem, PublishOutcome, Retry};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::Connector;
use url::Url;

use super::output;

/// What a path segment may hold as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence on a connection; the server comments a quiet stream every 15 s.
const READ_TIMEOUT: Duration = Duration::from_secs(75);
/// Most characters of a foreign error body that are shown.
const FOREIGN_CHARS_MAX: usize = 300;
/// Largest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where the node is and who we are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Connect {
    /// Where the node is
    #[arg(long, env = "PLINTH_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = node_url)]
    pub(super) url: Url,
    /// An API key, or the root key
    #[arg(long, env = "PLINTH_KEY", value_name = "KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    /// With the root key: the tenant to act in
    #[arg(long, env = "PLINTH_TENANT", value_name = "NAME")]
    pub(super) tenant: Option<String>,
    /// Trust the certificates in this file, in PEM, and no others: for a node whose certificate is not of a known authority
    #[arg(long, env = "PLINTH_CA_CERT", value_name = "FILE")]
    pub(super) ca_cert: Option<PathBuf>,
}

/// Sends requests to one node.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
    tenant: Option<String>,
    trusted: Option<Arc<ClientConfig>>,
}

impl Client {
    /// # Errors
    /// There is no key, or TLS cannot be set up.
    pub(super) fn new(connect: &Connect) -> anyhow::Result<Self> {
        let Some(key) = connect.key.clone().filter(|key| !key.trim().is_empty()) else {
            return Err(super::Usage("there is no key: set PLINTH_KEY, or give --key".to_owned()).into());
        };
        let loopback = match connect.url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let builder = reqwest::Client::builder()
            .user_agent(concat!("plinth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .retry(reqwest::retry::never());
        let builder = if loopback { builder.no_proxy() } else { builder };
        let authorities = connect.ca_cert.as_deref().map(authorities).transpose()?;
        let builder = match &authorities {
            Some(pem) => builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?),
            None => builder,
        };
        Ok(Self {
            http: builder.build()?,
            base: connect.url.as_str().trim_end_matches('/').to_owned(),
            key,
            tenant: connect.tenant.clone(),
            trusted: authorities.as_deref().map(trusting).transpose()?,
        })
    }

    /// A request for `path`, which begins with `/`, with the credential.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        self.headers().into_iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// The headers that carry the credential.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let tenant = self.tenant.as_ref().map(|tenant| ("plinth-tenant", tenant.clone()));
        [("authorization", format!("Bearer {}", self.key))].into_iter().chain(tenant).collect()
    }

    /// TLS for a WebSocket, where other authorities are trusted than the known ones.
    pub(super) fn trusted(&self) -> Option<Connector> {
        self.trusted.clone().map(Connector::Rustls)
    }

    /// The URL of `path` for a WebSocket.
    pub(super) fn socket_url(&self, path: &str) -> String {
        format!("ws{}{path}", self.base.trim_start_matches("http"))
    }

    /// Every item of a list, page by page.
    ///
    /// # Errors
    /// As for [`send`].
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request = self.request(Method::GET, path).query(query).query(&[("limit", "1000")]);
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: ListPage<T> = send(request).await?.json().await?;
            items.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }
}

/// The certificates in a file.
fn authorities(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = |error| super::Usage(format!("{} cannot be read: {error}", path.display()));
    let pem = std::fs::read(path).map_err(unreadable)?;
    if CertificateDer::pem_slice_iter(&pem).next().is_none_or(|first| first.is_err()) {
        return Err(super::Usage(format!("{} holds no certificate in PEM", path.display())).into());
    }
    Ok(pem)
}

fn trusting(pem: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem) {
        roots.add(authority?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    Ok(Arc::new(config.with_no_client_auth()))
}

/// `name` as one path segment.
pub(super) fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// Sends a request and returns its answer if that is a success.
///
/// # Errors
/// [`Fault`].
pub(super) async fn send(request: RequestBuilder) -> Result<Response, Fault> {
    let response = request.send().await.map_err(Fault::of)?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refusal(response).await)
}

async fn refusal(response: Response) -> Fault {
    let status = response.status();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Fault::Refused { problem: Box::new(problem), retry_after },
        Err(_) => {
            let text = String::from_utf8_lossy(&body).chars().take(FOREIGN_CHARS_MAX).collect();
            Fault::Foreign { status, text }
        }
    }
}

/// How a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The node refused it and said why.
    #[error("{}{}", .problem.detail, request_id(.problem))]
    Refused {
        /// The problem document.
        problem: Box<Problem>,
        /// The wait that the node asked for.
        retry_after: Option<Duration>,
    },
    /// Something on the way answered, such as a proxy.
    #[error("answer {status} is not from a plinth node: {text}")]
    Foreign {
        /// Its status.
        status: StatusCode,
        /// The beginning of its body.
        text: String,
    },
    /// No connection was made, so nothing was sent.
    #[error("cannot connect to {}: {}{}", origin(.0), innermost(.0), hint(.0))]
    NotSent(reqwest::Error),
    /// The connection ended before the whole answer came.
    #[error("connection lost: {0}")]
    Lost(String),
}

impl Fault {
    /// Sorts an error of the HTTP client.
    pub(super) fn of(error: reqwest::Error) -> Self {
        if error.is_connect() || error.is_builder() { Self::NotSent(error) } else { Self::Lost(innermost(&error)) }
    }

    /// Whether the same request may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => match problem.code.retry() {
                Retry::Later => true,
                Retry::Never => false,
            },
            Self::Foreign { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::NotSent(error) => error.is_connect(),
            Self::Lost(_) => true,
        }
    }

    /// What a publish that failed like this left behind.
    pub(super) fn outcome(&self) -> PublishOutcome {
        match self {
            Self::Refused { problem, .. } => problem.outcome.unwrap_or_else(|| problem.code.outcome()),
            Self::NotSent(_) => PublishOutcome::NotStored,
            Self::Foreign { status, .. } if status.is_client_error() => PublishOutcome::NotStored,
            Self::Foreign { .. } | Self::Lost(_) => PublishOutcome::Unknown,
        }
    }

    /// The wait that the node asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Foreign { .. } | Self::NotSent(_) | Self::Lost(_) => None,
        }
    }

    /// The code, when the node refused.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { problem, .. } => Some(problem.code),
            Self::Foreign { .. } | Self::NotSent(_) | Self::Lost(_) => None,
        }
    }
}

/// The pauses between attempts: exponential with jitter, at least what the node asks for, until the time is used up.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    used: Duration,
    backoff: ExponentialBackoff,
}

impl Patience {
    /// Patience for pauses of `limit` in all.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, used: Duration::ZERO, backoff: backoff() }
    }

    /// Starts anew after a success.
    pub(super) fn renew(&mut self) {
        if !self.used.is_zero() {
            *self = Self::new(self.limit);
        }
    }

    /// Says, before the first pause, what is the matter and how long the command goes on.
    pub(super) fn announce(&self, fault: &Fault) {
        if self.used.is_zero() && !self.limit.is_zero() {
            output::say(&format!("{fault}; trying again for {}", humantime::format_duration(self.limit)));
        }
    }

    /// Waits before the next attempt; false when the time is used up. Cancel safe.
    pub(super) async fn pause(&mut self, asked: Option<Duration>) -> bool {
        let Some(step) = self.next(asked) else { return false };
        pause(step).await;
        true
    }

    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let left = self.limit.checked_sub(self.used).filter(|left| !left.is_zero())?;
        let step = self.backoff.next().unwrap_or(PAUSE_MAX).max(asked.unwrap_or_default()).min(left);
        self.used += step;
        Some(step)
    }
}

/// Waits. The one place where a command does: another process decides when it can go on, and sends us no event.
#[expect(clippy::disallowed_methods, reason = "a pause between attempts at another process, which sends no event")]
pub(super) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(PAUSE_MAX)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

fn request_id(problem: &Problem) -> String {
    problem.request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default()
}

fn node_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| "write it as http://host:port or https://host".to_owned())
}

fn origin(error: &reqwest::Error) -> String {
    error.url().map_or_else(|| "the node".to_owned(), |url| url.origin().ascii_serialization())
}

/// TLS says of an answer in clear only that it is corrupt.
fn hint(error: &reqwest::Error) -> &'static str {
    let https = error.url().is_some_and(|url| url.scheme() == "https");
    if https && innermost(error).contains("InvalidContentType") {
        " (does the node speak http, without TLS?)"
    } else {
        ""
    }
}

/// The last cause, which is the one that says what happened ("connection refused").
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> Fault {
        Fault::Refused { problem: Box::new(Problem::new(code, "x")), retry_after: Some(Duration::from_secs(3)) }
    }

    #[test]
    fn only_an_unknown_outcome_forbids_a_retry_that_may_pass() {
        assert!(refused(ErrorCode::Overloaded).may_pass());
        assert_eq!(refused(ErrorCode::Overloaded).outcome(), PublishOutcome::NotStored);
        assert_eq!(refused(ErrorCode::OutcomeUnknown).outcome(), PublishOutcome::Unknown);
        assert!(!refused(ErrorCode::TooLarge).may_pass());
        let proxy = Fault::Foreign { status: StatusCode::BAD_GATEWAY, text: String::new() };
        assert_eq!(proxy.outcome(), PublishOutcome::Unknown);
        assert_eq!(Fault::Lost("reset".to_owned()).outcome(), PublishOutcome::Unknown);
    }

    #[test]
    fn pauses_are_at_least_what_the_node_asks_for_and_end_with_the_limit() {
        let mut patience = Patience::new(Duration::from_secs(5));
        assert_eq!(patience.next(Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(patience.next(Some(Duration::from_secs(3))), Some(Duration::from_secs(2)));
        assert_eq!(patience.next(None), None);
        patience.renew();
        assert!(patience.next(None).is_some());
    }

    #[test]
    fn the_address_of_a_node_is_an_http_url_with_a_host() {
        for good in ["http://127.0.0.1:8080", "https://plinth.example.com", "http://[::1]:8080/"] {
            assert!(node_url(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:8080", "localhost:8080", "ftp://host", "http://"] {
            assert!(node_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_topic_name_is_one_path_segment() {
        assert_eq!(segment("a/b.c_d~e-f"), "a%2Fb.c_d~e-f");
    }
}
