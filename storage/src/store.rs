//! Opens the object store that a URL names, and proves at start that it keeps the one promise that the log needs.
//!
//! Three clients per store: `write` never retries by itself (a repeated PUT would read its own success as a conflict), nor
//! does `write_large`, which has more time; `read` retries for a bounded time. Credentials and endpoints come from the usual `AWS_*`, `GOOGLE_*` and `AZURE_*`
//! variables, never from the URL, so a URL can be printed. Knows nothing of what the objects mean.

use std::fmt;
use std::fs;
use std::path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use url::Url;

use crate::directory::{Abilities, Directory, abilities, check_writable, make_durable};
use crate::error::{Error, Kind, Result};

/// The longest that one PUT may take before its outcome is open and the caller tries the same bytes again.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for an object of more than [`LARGE_BYTES`]: at 5 Mbit/s a segment still gets through.
pub const LARGE_WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// What is larger is written with [`LARGE_WRITE_TIMEOUT`].
pub const LARGE_BYTES: usize = 8 << 20;

/// The longest that one GET or LIST request may take, and the time after which a failed one is not tried again.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a GET or LIST is repeated within [`READ_TIMEOUT`].
const READ_RETRIES: usize = 5;

/// What the client below reads as "no".
const REFUSALS: [&str; 5] = ["0", "false", "off", "no", "n"];

/// Where the clients of all three clouds ask for the credentials of the machine when none are set.
const METADATA_SERVICE: &str = "http://169.254.169.254/";

/// The clients of one object store.
#[derive(Clone)]
pub struct ObjectStores {
    /// Without retries of its own, for the one conditional write.
    pub write: Arc<dyn ObjectStore>,
    /// The same with more time, for large objects.
    pub write_large: Arc<dyn ObjectStore>,
    /// With bounded retries, for everything else.
    pub read: Arc<dyn ObjectStore>,
    /// A directory or the memory of this process: a write costs a sync, not a round trip, and reads need no SSD cache.
    pub local: bool,
    /// Where the store is, free of secrets.
    pub url: String,
}

impl ObjectStores {
    /// One store for reads and writes; for tests and for stores that have no retries of their own.
    #[must_use]
    pub fn of(store: Arc<dyn ObjectStore>, local: bool) -> Self {
        let url = store.to_string();
        Self { write: Arc::clone(&store), write_large: Arc::clone(&store), read: store, local, url }
    }
}

impl fmt::Debug for ObjectStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStores").field("url", &self.url).field("local", &self.local).finish_non_exhaustive()
    }
}

/// Opens the store that `url` names: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
/// `file:///directory`, `memory://`, or a plain path, which is a directory. No request is made; see [`probe`].
///
/// A directory is created when it is missing. Each `memory://` is a store of its own; `memory://?put_latency_ms=30` is one
/// that is as slow as a remote store and used like one, to measure with.
///
/// # Errors
/// `Invalid` when the URL has another form, holds user info or another query, or when the directory cannot be written.
pub fn open(url: &str) -> Result<ObjectStores> {
    open_for(url, Access::Write)
}

/// The same to read what is there already: a directory must exist, and nothing is written, not even to see whether it can
/// be.
///
/// # Errors
/// `Invalid` as for [`open`], when the directory is not there, and for `memory://`, which never holds anything.
pub fn open_to_read(url: &str) -> Result<ObjectStores> {
    open_for(url, Access::Read)
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

fn open_for(url: &str, access: Access) -> Result<ObjectStores> {
    if !url.contains("://") {
        return directory(path::Path::new(url), access);
    }
    let url = Url::parse(url).map_err(|error| invalid("the store URL cannot be parsed").with_source(error))?;
    let secret = !url.username().is_empty() || url.password().is_some();
    let query = url.query().is_some() && url.scheme() != "memory";
    if secret || query || url.fragment().is_some() || url.port().is_some() {
        return Err(invalid(
            "the store URL may hold only a scheme, a bucket and a prefix: credentials and endpoint come from the \
             environment",
        ));
    }
    match url.scheme() {
        "file" => {
            let directory_path = url
                .to_file_path()
                .map_err(|()| invalid(format!("store URL {url} is not of the form file:///directory")))?;
            directory(&directory_path, access)
        }
        "memory" if access == Access::Read => Err(invalid("memory:// is gone with the process that made it")),
        "memory" if bucket(&url).is_err() && url.path().is_empty() => memory(&url),
        "memory" => Err(invalid(format!("store URL {url} must be memory:// alone"))),
        "s3" => s3(AmazonS3Builder::from_env(), &url),
        "gs" => gs(&url),
        "az" => az(&url),
        scheme => Err(invalid(format!("store URL scheme {scheme} is not one of s3, gs, az, file and memory"))),
    }
}

/// Proves with one object called `name` that the store creates only what is absent, that it reads and lists what was
/// written at once, and that it deletes. `name` must never have been used; it should have a prefix that few objects share.
///
/// Not cancel safe: the object may stay behind.
///
/// # Errors
/// `Invalid` when the store breaks one of these promises or refuses our credentials: it must not be used.
/// `Unavailable` when it cannot be reached: try again with another name.
pub async fn probe(stores: &ObjectStores, name: &Path) -> Result<()> {
    let checked = probe_create(stores, name).await;
    let deleted = stores.read.delete(name).await;
    checked?;
    deleted.map_err(|error| refused_or_away(stores, "delete the probe object", error))?;
    match stores.read.head(name).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(refused_or_away(stores, "look for the deleted probe object", error)),
        Ok(_) => Err(invalid(format!("store {} still shows an object after its delete", stores.url))),
    }
}

/// The kind of an error of the object store, for calls whose outcome is not open: reads, lists and deletes.
pub(crate) fn kind_of(error: &object_store::Error) -> Kind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => Kind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => Kind::Conflict,
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => Kind::Invalid,
        // Credentials end and are renewed while a node runs: that is a store that is away, not a wrong call.
        E::Generic { .. } | E::JoinError { .. } | E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            Kind::Unavailable
        }
        // The enum of the crate may grow: what we do not know is not known to be definite.
        _ => Kind::Unavailable,
    }
}

/// The clients of the bucket that `url` names; everything else, such as keys and endpoint, is in `builder`.
pub(crate) fn s3(builder: AmazonS3Builder, url: &Url) -> Result<ObjectStores> {
    check_endpoint(&builder)?;
    let builder = builder.with_bucket_name(bucket(url)?).with_conditional_put(S3ConditionalPut::ETagMatch);
    let client = |timeout, retry| {
        builder
            .clone()
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), seconds(timeout))
            .with_retry(retry)
            .build()
    };
    remote(url, client)
}

/// Refuses an endpoint on which the client would panic at its first request, or fail without a hint. It is not repeated:
/// it may hold a password.
fn check_endpoint(builder: &AmazonS3Builder) -> Result<()> {
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let Some(endpoint) = endpoint.iter().find_map(|key| builder.get_config_value(key)) else { return Ok(()) };
    let allow_http = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    let refuses_http = allow_http.is_some_and(|allow| REFUSALS.contains(&allow.to_ascii_lowercase().as_str()));
    let url = Url::parse(&endpoint).ok().filter(Url::has_host);
    // Errors of the client name the address of a request.
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        return Err(invalid(
            "AWS_ENDPOINT may hold no user and no password: credentials come from AWS_ACCESS_KEY_ID and its like",
        ));
    }
    match url.as_ref().map(Url::scheme) {
        Some("http") if refuses_http => {
            Err(invalid("AWS_ENDPOINT is http, which is not encrypted: set AWS_ALLOW_HTTP=true to allow that"))
        }
        Some("http" | "https") => Ok(()),
        Some(_) | None => Err(invalid("AWS_ENDPOINT is not of the form https://host or http://host:port")),
    }
}

fn gs(url: &Url) -> Result<ObjectStores> {
    let bucket = bucket(url)?;
    let client = |timeout, retry| {
        GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), seconds(timeout))
            .with_retry(retry)
            .build()
    };
    remote(url, client)
}

fn az(url: &Url) -> Result<ObjectStores> {
    let container = bucket(url)?;
    let client = |timeout, retry| {
        MicrosoftAzureBuilder::from_env()
            .with_container_name(container)
            .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), seconds(timeout))
            .with_retry(retry)
            .build()
    };
    remote(url, client)
}

/// The clients behind the prefix that the URL's path names.
fn remote<S: ObjectStore>(
    url: &Url,
    client: impl Fn(Duration, RetryConfig) -> object_store::Result<S>,
) -> Result<ObjectStores> {
    let prefix = Path::from_url_path(url.path())
        .map_err(|error| invalid(format!("store URL {url} has a prefix that is no object name")).with_source(error))?;
    let prefixed = |client: object_store::Result<S>| -> Result<Arc<dyn ObjectStore>> {
        let client =
            client.map_err(|error| invalid(format!("store {url} is not fully configured")).with_source(error))?;
        if prefix.as_ref().is_empty() {
            return Ok(Arc::new(client));
        }
        Ok(Arc::new(PrefixStore::new(client, prefix.clone())))
    };
    Ok(ObjectStores {
        write: prefixed(client(WRITE_TIMEOUT, no_retries()))?,
        write_large: prefixed(client(LARGE_WRITE_TIMEOUT, no_retries()))?,
        read: prefixed(client(READ_TIMEOUT, read_retries()))?,
        local: false,
        url: url.to_string(),
    })
}

/// A store in memory; with `?put_latency_ms=` it takes its time for each PUT, and counts as remote.
fn memory(url: &Url) -> Result<ObjectStores> {
    let latency = match url.query().map(|query| query.strip_prefix("put_latency_ms=").map(str::parse::<u16>)) {
        None => None,
        Some(Some(Ok(ms))) => Some(Duration::from_millis(u64::from(ms))),
        Some(_) => {
            let text = format!("store URL {url} may have ?put_latency_ms= with a number of 0 to 65535, nothing else");
            return Err(invalid(text));
        }
    };
    let store: Arc<dyn ObjectStore> = match latency {
        None => Arc::new(InMemory::new()),
        Some(wait) => {
            let waits = ThrottleConfig { wait_put_per_call: wait, ..ThrottleConfig::default() };
            Arc::new(ThrottledStore::new(InMemory::new(), waits))
        }
    };
    Ok(ObjectStores { url: url.to_string(), ..ObjectStores::of(store, latency.is_none()) })
}

fn directory(directory: &path::Path, access: Access) -> Result<ObjectStores> {
    let unusable =
        |error| invalid(format!("store directory {} cannot be written", directory.display())).with_source(error);
    if directory.as_os_str().is_empty() {
        return Err(invalid("the store URL is empty"));
    }
    let can = match access {
        Access::Write => make_durable(directory)
            .and_then(|()| check_writable(directory))
            .map(|()| abilities(directory))
            .map_err(unusable)?,
        Access::Read if directory.is_dir() => Abilities::default(),
        Access::Read => return Err(invalid(format!("store directory {} is not there", directory.display()))),
    };
    let store = Directory::open(directory, can).map_err(|error| {
        invalid(format!("store directory {} cannot be opened", directory.display())).with_source(error)
    })?;
    let url = fs::canonicalize(directory).ok().and_then(|absolute| Url::from_directory_path(absolute).ok());
    let url = url.map_or_else(|| directory.display().to_string(), |url| url.to_string());
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    Ok(ObjectStores { url, ..ObjectStores::of(store, true) })
}

async fn probe_create(stores: &ObjectStores, name: &Path) -> Result<()> {
    use object_store::Error as E;
    let (first, second) = (Bytes::from_static(b"plinth probe: first"), Bytes::from_static(b"plinth probe: second"));
    probe_put(stores, name, first.clone())
        .await
        .map_err(|error| refused_or_away(stores, "create the probe object", error))?;
    match probe_put(stores, name, second).await {
        Err(E::AlreadyExists { .. } | E::Precondition { .. }) => {}
        Err(error) => return Err(refused_or_away(stores, "create the probe object twice", error)),
        Ok(()) => {
            return Err(invalid(format!(
                "store {} ignores create-if-absent: it replaced an object that a second create should have left alone; \
                 the log would lose acknowledged records on it",
                stores.url
            )));
        }
    }
    let read = async { stores.read.get(name).await?.bytes().await };
    let read = read.await.map_err(|error| refused_or_away(stores, "read the probe object back", error))?;
    if read != first {
        return Err(invalid(format!("store {} does not read back what was written", stores.url)));
    }
    let mut listed = stores.read.list(parent_of(name).as_ref());
    let away = |error| refused_or_away(stores, "list the probe object", error);
    while let Some(object) = listed.try_next().await.map_err(away)? {
        if object.location == *name {
            return Ok(());
        }
    }
    Err(invalid(format!("store {} does not list an object that was written before", stores.url)))
}

/// The only raw put outside the conditional write of the log: the probe asks what that one relies on.
async fn probe_put(stores: &ObjectStores, name: &Path, bytes: Bytes) -> object_store::Result<()> {
    stores.write.put_opts(name, PutPayload::from_bytes(bytes), PutMode::Create.into()).await.map(drop)
}

fn parent_of(name: &Path) -> Option<Path> {
    name.as_ref().rsplit_once('/').map(|(parent, _)| Path::from(parent))
}

/// What a failed step of the probe means: a store that answers and refuses is no store to run on.
fn refused_or_away(stores: &ObjectStores, step: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let (kind, why) = if matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. }) {
        (Kind::Invalid, "refuses our credentials")
    } else if matches!(error, E::NotSupported { .. } | E::NotImplemented { .. }) {
        (Kind::Invalid, "does not support what the log needs")
    } else if matches!(error, E::NotFound { .. }) {
        (Kind::Invalid, "says that the bucket or the object is not there")
    } else if kind_of(&error) == Kind::Unavailable && error.to_string().contains(METADATA_SERVICE) {
        (Kind::Unavailable, "has no credentials: none are set, and this machine's metadata service gave none")
    } else if kind_of(&error) == Kind::Unavailable {
        (Kind::Unavailable, "cannot be reached")
    } else {
        (Kind::Invalid, "answers in a way that the log cannot use")
    };
    Error::new(kind, format!("store {} {why}: could not {step}", stores.url)).with_source(error)
}

fn bucket(url: &Url) -> Result<&str> {
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    bucket.ok_or_else(|| invalid(format!("store URL {url} names no bucket")))
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: WRITE_TIMEOUT, ..RetryConfig::default() }
}

fn read_retries() -> RetryConfig {
    RetryConfig { max_retries: READ_RETRIES, retry_timeout: READ_TIMEOUT, ..RetryConfig::default() }
}

fn seconds(duration: Duration) -> String {
    format!("{} seconds", duration.as_secs())
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_the_client_cannot_use_is_refused_without_repeating_it() {
        let url = Url::parse("s3://bucket/prefix").unwrap();
        let open =
            |endpoint: &str, http| s3(AmazonS3Builder::new().with_endpoint(endpoint).with_allow_http(http), &url);
        let (form, secret) = ("https://host", "no user and no password");
        for (endpoint, why) in [
            ("127.0.0.1:9000", form),
            ("localhost:9000", form),
            ("ftp://host", form),
            ("", form),
            ("user:hunter2@host", form),
            ("ftp://user:hunter2@host", secret),
            ("https://user:hunter2@host", secret),
        ] {
            let error = open(endpoint, true).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{endpoint}");
            assert!(error.to_string().contains(why), "{endpoint}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let error = open("http://127.0.0.1:9000", false).unwrap_err();
        assert!(error.to_string().contains("AWS_ALLOW_HTTP=true"), "{error}");
        assert!(open("http://127.0.0.1:9000", true).is_ok());
        assert!(open("https://127.0.0.1:9000", false).is_ok());
    }

    #[test]
    fn a_store_in_memory_is_remote_when_it_is_slow() {
        assert!(open("memory://").unwrap().local);
        assert!(!open("memory://?put_latency_ms=30").unwrap().local);
        for url in ["memory://?put_latency_ms=", "memory://?put_latency_ms=1&x=2", "memory://?latency=1", "memory://a"]
        {
            assert_eq!(open(url).unwrap_err().kind(), Kind::Invalid, "{url}");
        }
        assert!(open("s3://bucket?put_latency_ms=30").is_err());
    }

    #[test]
    fn a_store_without_credentials_is_not_called_one_that_is_away() {
        let text = format!("Error performing PUT {METADATA_SERVICE}latest/api/token");
        let error = object_store::Error::Generic { store: "S3", source: text.into() };
        let error = refused_or_away(&open("memory://").unwrap(), "create the probe object", error);
        assert_eq!(error.kind(), Kind::Unavailable, "a metadata service may be slow to come up");
        assert!(error.to_string().contains("has no credentials"), "{error}");
    }
}
