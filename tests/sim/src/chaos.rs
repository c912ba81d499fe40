//! The store as one node sees it: slow, cut off for a while, and sometimes with a broken answer to a read.
//!
//! It stands in front of a [`FaultStore`], which loses answers, applies late and reports conflicts that are none. Every
//! call is a line of the trace. It must not know what the objects mean, but for the header, of which a broken copy is
//! not given: the core takes a header as it is, guarded by its checksum, and ends the session.
//!
//! [`FaultStore`]: plinth_storage::testing::fault::FaultStore

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::deletions::Deletions;
use crate::flag::Flag;
use crate::sleep;
use crate::trace::Trace;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Length of a header of the log; a read of no more is of a header.
pub(crate) const HEADER_BYTES: u64 = 128;

/// How bad the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// One call in so many takes up to half a minute; 0: none.
    pub slow_one_in: u32,
    /// One delete in so many is lost, or its answer; 0: none.
    pub lost_delete_one_in: u32,
    /// One read in so many has a flipped bit, is cut short, or fails; 0: none.
    pub broken_read_one_in: u32,
    /// Every call fails.
    pub away: bool,
}

/// A node's store.
#[derive(Clone)]
pub struct Chaos {
    inner: Arc<dyn ObjectStore>,
    node: u32,
    trace: Arc<Trace>,
    deletions: Arc<Deletions>,
    state: Arc<Mutex<State>>,
    paused: Arc<Flag>,
}

struct State {
    random: StdRng,
    weather: Weather,
}

impl State {
    fn loses(&mut self) -> Option<Lost> {
        let State { random, weather } = self;
        let lost = weather.lost_delete_one_in > 0 && random.random_range(0..weather.lost_delete_one_in) == 0;
        lost.then(|| if random.random() { Lost::Request } else { Lost::Answer })
    }
}

/// What of a call is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Request,
    Answer,
}

enum ReadFault {
    Fail,
    Cut,
    Flip,
}

impl Chaos {
    /// A node's view of `inner`.
    #[must_use]
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        node: u32,
        seed: u64,
        (trace, deletions): (Arc<Trace>, Arc<Deletions>),
    ) -> Self {
        let state = State { random: StdRng::seed_from_u64(seed), weather: Weather::default() };
        Self { inner, node, trace, deletions, state: Arc::new(Mutex::new(state)), paused: Arc::default() }
    }

    /// Changes how bad it is.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// From now on every call fails, or none does for that.
    pub fn set_away(&self, away: bool) {
        self.state().weather.away = away;
    }

    /// From now on no call comes through, or calls do again: a process that is paused, or cut off.
    pub fn set_paused(&self, paused: bool) {
        self.paused.set(paused);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self, what: &str, path: &Path) -> Result<()> {
        let (delay, away) = {
            let mut state = self.state();
            let State { random, weather } = &mut *state;
            let slow = weather.slow_one_in > 0 && random.random_range(0..weather.slow_one_in) == 0;
            let delay = if slow { random.random_range(200..30_000) } else { random.random_range(1..20) };
            (Duration::from_millis(delay), weather.away)
        };
        self.trace.line(&format!("n{} {what} {path}", self.node));
        sleep(delay).await;
        self.paused.is(false).await;
        if away || self.state().weather.away { Err(failed("the store is away")) } else { Ok(()) }
    }

    /// What comes back: a paused process does not hear it before it goes on.
    async fn leave<T>(&self, what: &str, path: &Path, result: Result<T>) -> Result<T> {
        self.paused.is(false).await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(Error::AlreadyExists { .. }) => "exists",
            Err(Error::NotFound { .. }) => "none",
            Err(_) => "failed",
        };
        self.trace.line(&format!("n{} {what} {path}: {outcome}", self.node));
        result
    }

    fn read_fault(&self, options: &GetOptions) -> Option<ReadFault> {
        let mut state = self.state();
        let State { random, weather } = &mut *state;
        let broken = weather.broken_read_one_in > 0 && random.random_range(0..weather.broken_read_one_in) == 0;
        let of_header =
            matches!(&options.range, Some(object_store::GetRange::Bounded(range)) if range.end <= HEADER_BYTES);
        match random.random_range(0..3) {
            _ if !broken => None,
            _ if of_header || options.head => Some(ReadFault::Fail),
            0 => Some(ReadFault::Fail),
            1 => Some(ReadFault::Cut),
            _ => Some(ReadFault::Flip),
        }
    }

    async fn spoil(&self, got: GetResult, fault: ReadFault) -> Result<GetResult> {
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let extensions = got.extensions.clone();
        let mut body = Vec::from(got.bytes().await?);
        let at = self.state().random.random_range(0..body.len().max(1));
        match fault {
            ReadFault::Fail => return Err(failed("the read failed")),
            ReadFault::Cut => body.truncate(at),
            ReadFault::Flip => body.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
        }
        let payload = GetResultPayload::Stream(stream::once(async { Ok(Bytes::from(body)) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn delete_one(&self, path: Path) -> Result<Path> {
        self.enter("delete", &path).await?;
        let fails = self.state().loses();
        if fails == Some(Lost::Request) {
            return Err(failed("the delete failed"));
        }
        let object = self.inner.head(&path).await;
        let mut deleted = self.inner.delete(&path).await;
        if let (Ok(object), Ok(())) = (object, &deleted) {
            self.deletions.deleted(self.node, &path, object.size);
        }
        if fails == Some(Lost::Answer) {
            deleted = Err(failed("the answer to the delete was lost"));
        }
        self.leave("delete", &path, deleted).await.map(|()| path)
    }

    fn entered_list(
        &self,
        prefix: Option<&Path>,
        listed: impl FnOnce() -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let enter = async move { store.enter("list", &prefix).await };
        let entered = enter.map_ok_or_else(|error| stream::once(async { Err(error) }).boxed(), |()| listed());
        entered.into_stream().flatten().boxed()
    }
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chaos({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Chaos {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.enter("put", path).await?;
        self.deletions.offered(self.node, path);
        let put = self.inner.put_opts(path, payload, options).await;
        self.leave("put", path, put).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.enter("multipart", path).await?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.enter("get", path).await?;
        let fault = self.read_fault(&options);
        let got = match (self.inner.get_opts(path, options).await, fault) {
            (Ok(got), Some(fault)) => self.spoil(got, fault).await,
            (got, _) => got,
        };
        self.leave("get", path, got).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = paths.and_then(move |path| {
            let store = store.clone();
            async move { store.delete_one(path).await }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, under) = (Arc::clone(&self.inner), prefix.cloned());
        self.entered_list(prefix, move || inner.list(under.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, under, offset) = (Arc::clone(&self.inner), prefix.cloned(), offset.clone());
        self.entered_list(prefix, move || inner.list_with_offset(under.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.enter("list", &prefix.cloned().unwrap_or_default()).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.enter("copy", to).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

fn failed(what: &str) -> Error {
    Error::Generic { store: "Chaos", source: what.into() }
}
