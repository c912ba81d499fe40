//! The one conditional write: every object of the log is created here, and nothing else calls the store's put.
//!
//! A create that fails tells nothing by itself: a time-out may have landed, an "already exists" may be one's own earlier
//! try, or an S3 409 behind which there is no object at all. So the same bytes are put again until the answer is
//! definite, and on "already exists" the header that stands there decides. It must not know what the objects mean.

use std::ops::Range;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tracing::Instrument;

use crate::error::{Error, Kind, Result};
use crate::layout;
use crate::metrics::Health;
use crate::spans;
use crate::store::{LARGE_BYTES, LARGE_WRITE_TIMEOUT, ObjectStores};
use crate::wal::format::{HEADER_BYTES, Header, ObjectKind};

/// How long one try may take before it is tried again, and one of a large object.
const TRY_TIMEOUT: Duration = Duration::from_secs(20);
const LARGE_TRY_TIMEOUT: Duration = LARGE_WRITE_TIMEOUT.saturating_add(TRY_TIMEOUT);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// An object that is ready to be created. Its bytes never change.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) path: Path,
    pub(crate) header: Header,
    pub(crate) payload: PutPayload,
}

/// The definite answer to a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is there and it is ours.
    Ours,
    /// Another object has the name.
    Taken(Header),
}

impl Object {
    /// An object of a header and a body; the header's length and hash are set here.
    pub(crate) fn new(path: Path, header: Header, body: Vec<Bytes>) -> Self {
        let header = header.sealed(&body);
        let payload = std::iter::once(header.encode()).chain(body).collect::<PutPayload>();
        Self { path, header, payload }
    }

    /// An object of another store of the same cluster, byte for byte.
    ///
    /// # Errors
    /// `Corrupt` when it is not a whole object of the log.
    pub(crate) fn copied(path: Path, bytes: &Bytes) -> Result<Self> {
        let (header, _) = Header::parse_object(bytes)?;
        Ok(Self { path, header, payload: PutPayload::from_bytes(bytes.clone()) })
    }
}

/// Creates `object`, trying until the answer is definite or, with `give_up_after`, that time has passed.
///
/// Run it on a task of its own: dropping the future leaves the outcome open.
///
/// # Errors
/// `Unknown` when the time is over, `Corrupt` when what stands under the name is not an object of the log.
pub(crate) async fn create(
    stores: &ObjectStores,
    object: &Object,
    health: &Health,
    give_up_after: Option<Duration>,
) -> Result<Created> {
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(BACKOFF_MIN)
        .with_max_delay(BACKOFF_MAX)
        .with_jitter()
        .with_jitter_seed(jitter_seed(object))
        .without_max_times()
        .build();
    let attempts = async {
        loop {
            let span = spans::put(object, layout::purpose(object.path.as_ref()));
            let answer = try_create(stores, object).instrument(span.clone()).await;
            spans::answered(&span, &answer);
            match answer {
                Ok(created) => {
                    health.put_succeeded();
                    return Ok(created);
                }
                Err(error) if error.kind() == Kind::Corrupt => return Err(error),
                Err(error) => health.put_failed(&object.path, &error),
            }
            let delay = delays.next().unwrap_or(BACKOFF_MAX);
            #[expect(clippy::disallowed_methods, reason = "back-off between two tries of a request")]
            tokio::time::sleep(delay).await;
        }
    };
    match give_up_after {
        None => attempts.await,
        Some(limit) => tokio::time::timeout(limit, attempts).await.unwrap_or_else(|_| {
            let text = format!("object store gave no definite answer for {} within {limit:?}", object.path);
            Err(Error::new(Kind::Unknown, text))
        }),
    }
}

/// Two that create different objects wait differently, and one object is always created the same way.
fn jitter_seed(object: &Object) -> u64 {
    let low = object.header.hash().0 & u128::from(u64::MAX);
    u64::try_from(low).expect("it was cut to 64 bits")
}

async fn try_create(stores: &ObjectStores, object: &Object) -> Result<Created> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let large = object.payload.content_length() > LARGE_BYTES;
    let (store, limit) = if large { (&stores.write_large, LARGE_TRY_TIMEOUT) } else { (&stores.write, TRY_TIMEOUT) };
    let put = store.put_opts(&object.path, object.payload.clone(), options);
    match tokio::time::timeout(limit, put).await {
        Ok(Ok(_)) => Ok(Created::Ours),
        Ok(Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })) => {
            who_is_there(stores, object).await
        }
        Ok(Err(error)) => Err(Error::new(Kind::Unavailable, "object store refused a write").with_source(error)),
        Err(_) => Err(Error::new(Kind::Unavailable, format!("object store took longer than {limit:?} for a write"))),
    }
}

async fn who_is_there(stores: &ObjectStores, object: &Object) -> Result<Created> {
    match read_header(stores, &object.path).await? {
        Some(header) if header == object.header && !planted!(OwnWriteIsConflict) => Ok(Created::Ours),
        Some(header) => Ok(Created::Taken(header)),
        None if planted!(ConflictIsFence) => {
            Ok(Created::Taken(Header::new(ObjectKind::Fence, object.header.session, object.header.number)))
        }
        None => Err(Error::new(Kind::Unavailable, "object store reported a conflict with an object that is not there")),
    }
}

/// Deletes objects, some at a time, and gives the name of each that is gone; one that was not there is. Nothing else in
/// the log calls the store's delete. Who calls it has made sure that nothing needs them (`shard/sweep.rs`).
///
/// # Errors
/// `Unavailable` when the store refuses.
pub(crate) fn delete(stores: &ObjectStores, paths: Vec<Path>) -> impl Stream<Item = Result<Path>> + Send + Unpin {
    let deleted = stores.read.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
    deleted.filter_map(|deleted| {
        std::future::ready(match deleted {
            Ok(path) => Some(Ok(path)),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => Some(Err(Error::new(Kind::Unavailable, "object store refused a delete").with_source(error))),
        })
    })
}

/// The header of the object under `path`, or `None` when there is no object.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when it is no object of the log.
pub(crate) async fn read_header(stores: &ObjectStores, path: &Path) -> Result<Option<Header>> {
    match stores.read.get_range(path, 0..HEADER_BYTES as u64).await {
        Ok(bytes) => Header::parse(&bytes).map(Some),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// The whole object under `path`, or `None` when there is none.
///
/// # Errors
/// `Unavailable` when the store cannot be read.
pub(crate) async fn read_object(stores: &ObjectStores, path: &Path) -> Result<Option<Bytes>> {
    let answer = match stores.read.get(path).await {
        Ok(answer) => answer.bytes().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// The bytes `range` of the object under `path`.
///
/// # Errors
/// `Unavailable` when the store cannot be read, `Corrupt` when the object is not there.
pub(crate) async fn read_range(stores: &ObjectStores, path: &Path, range: Range<u64>) -> Result<Bytes> {
    match stores.read.get_range(path, range.clone()).await {
        Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
        Ok(_) => Err(Error::new(Kind::Unavailable, format!("a read of object {path} was cut short"))),
        Err(StoreError::NotFound { .. }) => Err(Error::new(Kind::Corrupt, format!("object {path} is missing"))),
        Err(error) => Err(unreadable(path, error)),
    }
}

pub(crate) fn unreadable(path: &Path, error: StoreError) -> Error {
    Error::new(Kind::Unavailable, format!("object {path} cannot be read from the object store")).with_source(error)
}
