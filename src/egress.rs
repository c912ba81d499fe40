//! Requests to addresses that a tenant has written: over TLS, to public hosts alone, and within bounds.
//!
//! The name is resolved once, every address that it has must be public, and the connection goes to one of these: a name
//! that means another address a moment later does not help. Redirects are not followed, proxies of the environment are not
//! used, no connection is kept. Hosts that the operator names may be private, and may be without TLS. Knows nothing of what
//! is fetched, or why.

mod address;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client, StatusCode, redirect};
use tokio::time::timeout;
use url::{Host, Url};

use self::address::is_public;

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long a request may take from its name to the last byte.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest address.
const URL_BYTES_MAX: usize = 1024;

/// How requests leave the node.
pub struct EgressOptions {
    /// Hosts that may have private addresses, and be without TLS; in lower case.
    pub private_hosts: Vec<String>,
    /// What finds the addresses of a name.
    pub resolver: Arc<dyn Resolve>,
    /// The only root certificates; without them those of the system.
    pub roots: Option<Vec<Certificate>>,
}

impl Default for EgressOptions {
    fn default() -> Self {
        Self { private_hosts: Vec::new(), resolver: Arc::new(SystemResolver), roots: None }
    }
}

/// Why nothing was fetched. Says nothing about the network behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressError {
    /// The address is one that is not asked.
    Refused(&'static str),
    /// The status of the answer is not one of success.
    Answered(u16),
    /// There was no answer in time.
    TimedOut(String),
    /// The other side could not be reached, or what it answered could not be read.
    Failed(String),
}

impl fmt::Display for EgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Answered(status) => write!(f, "the answer is {status}"),
            Self::TimedOut(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for EgressError {}

/// What is sent to an address.
#[derive(Debug)]
pub struct Post<'a> {
    /// The address.
    pub url: &'a str,
    /// The media type of the body.
    pub media_type: &'static str,
    /// A header of its own.
    pub header: (&'static str, String),
    /// The body.
    pub body: Bytes,
    /// The most that is read of the answer.
    pub bytes_max: usize,
    /// How long all of it may take.
    pub within: Duration,
}

/// Makes requests. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    private_hosts: Arc<[String]>,
    resolver: Arc<dyn Resolve>,
    roots: Option<Vec<Certificate>>,
    /// Made for the first request: most nodes make none.
    client: OnceLock<Result<Client, String>>,
}

impl Egress {
    /// Makes requests as `options` say.
    #[must_use]
    pub fn new(options: EgressOptions) -> Self {
        let EgressOptions { private_hosts, resolver, roots } = options;
        Self(Arc::new(Inner { private_hosts: private_hosts.into(), resolver, roots, client: OnceLock::new() }))
    }

    /// Checks an address as far as that is possible without resolving its name.
    ///
    /// # Errors
    /// `Refused`.
    pub fn check(&self, text: &str) -> Result<Url, EgressError> {
        if text.len() > URL_BYTES_MAX {
            return Err(EgressError::Refused("the URL is longer than 1024 bytes"));
        }
        let url = Url::parse(text).map_err(|_| EgressError::Refused("it is not a URL"))?;
        let host = url.host().ok_or(EgressError::Refused("the URL has no host"))?;
        let private = self.is_private_host(&host.to_string());
        match url.scheme() {
            "https" => {}
            "http" if private => {}
            _ => return Err(EgressError::Refused("the URL does not begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::Refused("the URL has a credential in it"));
        }
        let is_local = match host {
            Host::Domain(name) => is_this_machine(name),
            Host::Ipv4(address) => !is_public(IpAddr::V4(address)),
            Host::Ipv6(address) => !is_public(IpAddr::V6(address)),
        };
        if is_local && !private {
            return Err(NOT_PUBLIC);
        }
        Ok(url)
    }

    /// The body of the answer to a GET, if it is a 200 of at most `bytes_max`. Cancel safe.
    ///
    /// # Errors
    /// `Refused` for an address; `Answered`, `TimedOut`, `Failed` for what came of the request.
    pub async fn fetch(&self, text: &str, bytes_max: usize) -> Result<Vec<u8>, EgressError> {
        let request = self.made()?.get(self.check(text)?);
        within(ANSWER_WITHIN, read(request, bytes_max, |status| status == StatusCode::OK)).await
    }

    /// The body of the answer to a POST, if it is of success and of at most `bytes_max`. Cancel safe.
    ///
    /// # Errors
    /// As [`Egress::fetch`].
    pub async fn post(&self, post: Post<'_>) -> Result<Vec<u8>, EgressError> {
        let (name, value) = post.header;
        let request = self.made()?.post(self.check(post.url)?).header(CONTENT_TYPE, post.media_type);
        let request = request.header(name, value).body(post.body);
        within(post.within, read(request, post.bytes_max, |status| status.is_success())).await
    }

    fn made(&self) -> Result<&Client, EgressError> {
        let client = self.0.client.get_or_init(|| self.client()).as_ref();
        client.map_err(|why| EgressError::Failed(why.clone()))
    }

    fn client(&self) -> Result<Client, String> {
        let guard = Guard { inner: Arc::clone(&self.0.resolver), private_hosts: Arc::clone(&self.0.private_hosts) };
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(guard))
            .connect_timeout(CONNECT_WITHIN)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("plinth/", env!("CARGO_PKG_VERSION")));
        if let Some(roots) = &self.0.roots {
            builder = builder.tls_certs_only(roots.iter().cloned());
        }
        builder.build().map_err(|error| format!("requests cannot be made here: {error}"))
    }

    fn is_private_host(&self, host: &str) -> bool {
        self.0.private_hosts.iter().any(|private| *private == host)
    }
}

const NOT_PUBLIC: EgressError = EgressError::Refused("the host does not have public addresses alone");

/// Names that mean the machine itself wherever they are looked up (RFC 6761 §6.3).
fn is_this_machine(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

async fn within(
    time: Duration,
    answer: impl Future<Output = Result<Vec<u8>, EgressError>>,
) -> Result<Vec<u8>, EgressError> {
    let answer = timeout(time, answer).await;
    answer.map_err(|_| EgressError::TimedOut(format!("no answer within {} ms", time.as_millis())))?
}

async fn read(
    request: reqwest::RequestBuilder,
    bytes_max: usize,
    is_good: impl Fn(StatusCode) -> bool,
) -> Result<Vec<u8>, EgressError> {
    let failed = |error: reqwest::Error| if refused(&error) { NOT_PUBLIC } else { kind(&error) };
    let mut response = request.send().await.map_err(failed)?;
    if !is_good(response.status()) {
        return Err(EgressError::Answered(response.status().as_u16()));
    }
    let too_large = || EgressError::Failed(format!("the answer has more than {bytes_max} bytes"));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What kind of failure it was; the whole would name addresses.
fn kind(error: &reqwest::Error) -> EgressError {
    if error.is_timeout() {
        EgressError::TimedOut("no answer in time".to_owned())
    } else if error.is_connect() {
        EgressError::Failed("no connection, or no trusted certificate".to_owned())
    } else {
        EgressError::Failed("the answer broke off".to_owned())
    }
}

fn refused(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<EgressError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Lets only public addresses through.
struct Guard {
    inner: Arc<dyn Resolve>,
    private_hosts: Arc<[String]>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private_hosts.iter().any(|private| private == name.as_str());
        let found = self.inner.resolve(name);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = found.await?.collect();
            // One that is not public makes all suspicious: the next answer may have it alone.
            if !private && addresses.iter().any(|address| !is_public(address.ip())) {
                return Err(NOT_PUBLIC.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// As the system resolves.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
