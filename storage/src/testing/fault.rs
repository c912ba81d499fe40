//! An object store that fails on purpose.
//!
//! A [`FaultStore`] stands in front of a real store. Faults are either scripted one by one for the calls that match, or
//! drawn from a seed; both at once is possible, the script goes first. Without a fault it does what the store below does,
//! and counts. Clones share everything, so a test keeps one and gives the other away.
//!
//! ```
//! use plinth_storage::testing::fault::{FaultStore, PutFault};
//!
//! let store = FaultStore::in_memory();
//! store.on_put(|path| path.as_ref().contains("/wal/"), PutFault::ApplyThenError);
//! // … the code under test runs over `store.stores()` …
//! assert_eq!(store.unfired(), 1, "no put has come yet");
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{oneshot, watch};

use crate::store::ObjectStores;

/// What happens to one put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutFault {
    /// Not applied; an error like a 503.
    FailBefore,
    /// Applied; the answer is lost, an error like a 500 or a reset.
    ApplyThenError,
    /// An error now; applied at the next [`FaultStore::release`] if its condition still holds then.
    ApplyLater,
    /// Not applied; "already exists" although nothing was created, as S3 says with a 409.
    Conflict409,
    /// Applied; then "already exists" about the very object, as a client that retries by itself says.
    Own412,
    /// No answer until [`FaultStore::release`]; then applied if its condition still holds. Dropped before: not applied.
    Hang,
}

/// What happens to one get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetFault {
    /// An error like a 503.
    Fail,
    /// The second half of the body is missing.
    Truncate,
    /// One bit in the middle of the body is flipped.
    FlipBit,
    /// One bit of the first byte is flipped.
    FlipFirst,
    /// No answer until [`FaultStore::release`].
    Hang,
}

/// A kind of call that the store gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// A put of a whole object, conditional or not.
    Put,
    /// A get of an object, a range, or only its size.
    Get,
    /// A listing.
    List,
    /// The delete of one object.
    Delete,
    /// A copy or a rename.
    Copy,
    /// The begin of an upload in parts.
    Multipart,
}

/// One call, in the order in which the store got them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub op: Op,
    /// Of which object, or under which prefix.
    pub path: Path,
}

/// A store that fails on purpose; see the module.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
    /// Grows with every call and every answer that is held back; see [`FaultStore::until`].
    events: Arc<watch::Sender<u64>>,
}

impl FaultStore {
    /// A store that fails on purpose in front of `inner`.
    #[must_use]
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Arc::default(), events: Arc::new(watch::Sender::new(0)) }
    }

    /// The same in front of an empty store in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// The store below, which never fails on purpose: what is really there.
    #[must_use]
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    /// Clients for the log, both through this store; remote, so that what differs for a directory is not in the way.
    #[must_use]
    pub fn stores(&self) -> ObjectStores {
        ObjectStores::of(Arc::new(self.clone()), false)
    }

    /// The next put that matches, and that no earlier entry of the script takes, has this fault.
    pub fn on_put(&self, matches: impl Fn(&Path) -> bool + Send + 'static, fault: PutFault) {
        self.script().puts.push_back((Box::new(matches), fault));
    }

    /// The next get that matches, and that no earlier entry of the script takes, has this fault.
    pub fn on_get(&self, matches: impl Fn(&Path) -> bool + Send + 'static, fault: GetFault) {
        self.script().gets.push_back((Box::new(matches), fault));
    }

    /// From now on one put in `one_in` has a fault, chosen by `seed`: any but [`PutFault::Hang`].
    ///
    /// # Panics
    /// When `one_in` is 0.
    pub fn seeded(&self, seed: u64, one_in: u32) {
        assert!(one_in > 0, "one put in 0 cannot fail");
        self.script().seeded = Some((StdRng::seed_from_u64(seed), one_in));
    }

    /// Ends the faults from a seed.
    pub fn seeded_off(&self) {
        self.script().seeded = None;
    }

    /// While true, every call fails and nothing is applied.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.script().unavailable = unavailable;
    }

    /// Every call takes this much longer, by Tokio's clock. Zero: no longer.
    pub fn set_latency(&self, latency: Duration) {
        self.script().latency = latency;
    }

    /// Applies the puts that were put off, in their order, then lets go of the calls that hang. Answers how many of those
    /// put off took effect; those that hang do so on their own tasks.
    pub async fn release(&self) -> usize {
        let (later, hanging) = {
            let mut script = self.script();
            (std::mem::take(&mut script.later), std::mem::take(&mut script.hanging))
        };
        let mut applied = 0;
        for put in later {
            applied += usize::from(self.inner.put_opts(&put.path, put.payload, put.options).await.is_ok());
        }
        for waiting in hanging {
            // One that is gone was dropped by its caller.
            let _dropped = waiting.send(());
        }
        applied
    }

    /// How many calls hang now. One that its caller has dropped does not count.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.script().hanging.iter().filter(|waiting| !waiting.is_closed()).count()
    }

    /// How many puts wait for [`FaultStore::release`] to be applied.
    #[must_use]
    pub fn put_off(&self) -> usize {
        self.script().later.len()
    }

    /// How many scripted faults have not happened yet: 0 at the end of a test that meant them all.
    #[must_use]
    pub fn unfired(&self) -> usize {
        let script = self.script();
        script.puts.len() + script.gets.len()
    }

    /// How many calls of a kind there were so far.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        self.script().counts.get(&op).copied().unwrap_or_default()
    }

    /// The calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.script().calls.clone()
    }

    /// Forgets the calls and counts so far.
    pub fn forget_calls(&self) {
        let mut script = self.script();
        script.calls.clear();
        script.counts.clear();
    }

    /// Waits until `holds` is true; asked again after each call of the store and each fault.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut events = self.events.subscribe();
        while !holds(self) {
            events.changed().await.expect("self holds the sender");
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&self) {
        self.events.send_modify(|events| *events += 1);
    }

    /// What every call does first: it is counted, delayed, and refused while the store is away.
    async fn enter(&self, op: Op, path: &Path) -> Result<()> {
        let latency = self.record(op, path);
        if !latency.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "the delay is what the test asked for")]
            tokio::time::sleep(latency).await;
        }
        self.refuse_when_unavailable()
    }

    fn record(&self, op: Op, path: &Path) -> Duration {
        let latency = {
            let mut script = self.script();
            *script.counts.entry(op).or_default() += 1;
            script.calls.push(Call { op, path: path.clone() });
            script.latency
        };
        self.happened();
        latency
    }

    fn refuse_when_unavailable(&self) -> Result<()> {
        if self.script().unavailable { Err(generic("the store is unavailable")) } else { Ok(()) }
    }

    /// Returns at the next release.
    async fn hang(&self) {
        let (waiting, released) = oneshot::channel();
        self.script().hanging.push(waiting);
        self.happened();
        // The sender is never dropped before it has sent, except with the whole store.
        let _gone = released.await;
    }

    fn put_later(&self, path: &Path, payload: PutPayload, options: PutOptions) {
        self.script().later.push(LatePut { path: path.clone(), payload, options });
        self.happened();
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.enter(Op::Put, path).await?;
        let fault = self.script().put_fault(path);
        match fault {
            None => self.inner.put_opts(path, payload, options).await,
            Some(PutFault::FailBefore) => Err(generic("the put failed")),
            Some(PutFault::ApplyThenError) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(generic("the answer to the put was lost"))
            }
            Some(PutFault::ApplyLater) => {
                self.put_later(path, payload, options);
                Err(generic("the put timed out"))
            }
            Some(PutFault::Conflict409) => Err(already_exists(path)),
            Some(PutFault::Own412) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(already_exists(path))
            }
            Some(PutFault::Hang) => {
                self.hang().await;
                self.inner.put_opts(path, payload, options).await
            }
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.enter(Op::Multipart, path).await?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.enter(Op::Get, path).await?;
        let fault = self.script().get_fault(path);
        match fault {
            None => self.inner.get_opts(path, options).await,
            Some(GetFault::Fail) => Err(generic("the get failed")),
            Some(GetFault::Truncate) => {
                tear(self.inner.get_opts(path, options).await?, |body| body.truncate(body.len() / 2)).await
            }
            Some(GetFault::FlipBit) => {
                tear(self.inner.get_opts(path, options).await?, |body| flip_middle_bit(body)).await
            }
            Some(GetFault::FlipFirst) => tear(self.inner.get_opts(path, options).await?, |body| body[0] ^= 1).await,
            Some(GetFault::Hang) => {
                self.hang().await;
                self.inner.get_opts(path, options).await
            }
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let entered = paths.and_then(move |path| {
            let store = store.clone();
            async move { store.enter(Op::Delete, &path).await.map(|()| path) }
        });
        self.inner.delete_stream(entered.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.entered_list(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.entered_list(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.enter(Op::List, &prefix.cloned().unwrap_or_default()).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.enter(Op::Copy, to).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

impl FaultStore {
    fn entered_list(
        &self,
        prefix: Option<&Path>,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let enter = async move { store.enter(Op::List, &prefix).await };
        enter
            .map_ok_or_else(|error| stream::once(async { Err(error) }).boxed(), |()| listed)
            .into_stream()
            .flatten()
            .boxed()
    }
}

/// A store below which replaces objects although it was asked to create them: one that the start-up probe must refuse.
#[derive(Debug)]
pub struct IgnoresCreate(pub Arc<dyn ObjectStore>);

impl fmt::Display for IgnoresCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IgnoresCreate({})", self.0)
    }
}

#[async_trait]
impl ObjectStore for IgnoresCreate {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(path, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

type Matches = Box<dyn Fn(&Path) -> bool + Send>;

struct LatePut {
    path: Path,
    payload: PutPayload,
    options: PutOptions,
}

#[derive(Default)]
struct Script {
    puts: VecDeque<(Matches, PutFault)>,
    gets: VecDeque<(Matches, GetFault)>,
    seeded: Option<(StdRng, u32)>,
    unavailable: bool,
    latency: Duration,
    later: Vec<LatePut>,
    hanging: Vec<oneshot::Sender<()>>,
    counts: BTreeMap<Op, u64>,
    calls: Vec<Call>,
}

impl Script {
    fn put_fault(&mut self, path: &Path) -> Option<PutFault> {
        take_first(&mut self.puts, path).or_else(|| self.seeded_fault())
    }

    fn get_fault(&mut self, path: &Path) -> Option<GetFault> {
        take_first(&mut self.gets, path)
    }

    fn seeded_fault(&mut self) -> Option<PutFault> {
        const DRAWN: [PutFault; 5] = [
            PutFault::FailBefore,
            PutFault::ApplyThenError,
            PutFault::ApplyLater,
            PutFault::Conflict409,
            PutFault::Own412,
        ];
        let (random, one_in) = self.seeded.as_mut()?;
        let fails = random.random_range(0..*one_in) == 0;
        fails.then(|| DRAWN[random.random_range(0..DRAWN.len())])
    }
}

fn take_first<F>(faults: &mut VecDeque<(Matches, F)>, path: &Path) -> Option<F> {
    let first = faults.iter().position(|(matches, _)| matches(path))?;
    faults.remove(first).map(|(_, fault)| fault)
}

async fn tear(got: GetResult, change: impl FnOnce(&mut Vec<u8>) + Send) -> Result<GetResult> {
    let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
    let extensions = got.extensions.clone();
    let mut body = Vec::from(got.bytes().await?);
    change(&mut body);
    let payload = GetResultPayload::Stream(stream::once(async { Ok(Bytes::from(body)) }).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

fn flip_middle_bit(body: &mut [u8]) {
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
}

fn generic(what: &str) -> Error {
    Error::Generic { store: "FaultStore", source: what.into() }
}

fn already_exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "a fault of the test".into() }
}
