//! Transitions: what is stored is loaded, decided over, and stored again; one after the other for each subscription.

use std::mem;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use plinth_api::limits::SUBSCRIPTION_LINKS_MAX;
use plinth_storage::Kind;
use plinth_storage::ids::TenantId;
use plinth_storage::log::{Change, DocOp, Guard};

use super::fail::WakeError;
use super::links::{self, Link, Tail};
use super::moved::Names;
use super::schedule::Key;
use super::turn::{self, Due, Moment};
use super::{Sub, Wakes};
use crate::auth::Glob;
use crate::broker::documents::{self, WakeBy, WakeDoc};
use crate::broker::error::Error;

/// A subscription that is changed by something that had no clear outcome is decided over again so often.
const TRIES: usize = 3;
/// A look at more streams is made apart.
const LOOKED_AT_ONCE: usize = 32;
/// What fails is tried again after this.
const AGAIN_MS: u64 = 1_000;
/// A document that never is: to delete it changes nothing, but waits for what is on its way.
const NOTHING: &[u8] = b"settled";

/// Which links a decision needs.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// None of them.
    None,
    /// All of them, those with streams that came this moment among them.
    All,
    /// Those with these streams.
    Some(&'a Names),
}

/// What a decision is made over.
pub(super) struct Scene<'a> {
    pub(super) doc: &'a mut WakeDoc,
    pub(super) links: &'a mut Vec<Link>,
    pub(super) moment: Moment,
    /// Places of links that have changed.
    pub(super) changed: Vec<usize>,
}

impl Sub {
    pub(super) fn new(key: Key, doc: &WakeDoc) -> Result<Self, Error> {
        let glob = doc.pattern.as_deref().map(Glob::parse).transpose();
        let glob = glob.map_err(|why| Error::defect(format!("a subscription has no glob: {why}")))?;
        let told_in = match &doc.by {
            WakeBy::Webhook { .. } => None,
            WakeBy::Pull { stream } => Some(stream.as_str().into()),
        };
        Ok(Self { key, glob, told_in, told: AtomicU64::new(0), tries: AtomicU32::new(0), open: Mutex::default() })
    }

    /// Whether it is about a stream by its glob. It is never about the one that tells its own wakes.
    pub(super) fn matches(&self, stream: &str) -> bool {
        self.glob.as_ref().is_some_and(|glob| glob.matches(stream)) && self.told_in.as_deref() != Some(stream)
    }
}

impl Scene<'_> {
    /// A stream with something that is not done with.
    pub(super) fn pending(&self) -> Option<String> {
        links::pending(self.links).map(str::to_owned)
    }
}

impl Wakes {
    /// Decides over a subscription, and stores what it has become.
    ///
    /// # Errors
    /// `NotFound`; what `decide` refuses; those of the log.
    pub(super) async fn change<T>(
        &self,
        sub: &Arc<Sub>,
        which: Which<'_>,
        mut decide: impl FnMut(&mut Scene<'_>) -> Result<T, WakeError> + Send,
    ) -> Result<T, WakeError> {
        let _one_at_a_time = self.lock(&sub.key).await;
        for _ in 0..TRIES {
            let Some((mut doc, before)) = self.load(&sub.key)? else {
                self.forget(&sub.key);
                return Err(WakeError::absent(&sub.key.1));
            };
            let mut links = self.links(sub, which).await?;
            let changed = self.relink(sub, which, &mut doc, &mut links).await?;
            let moment = self.moment();
            let mut scene = Scene { doc: &mut doc, links: &mut links, moment, changed };
            let decided = decide(&mut scene)?;
            let changed = mem::take(&mut scene.changed);
            let links = changed.into_iter().map(|place| &links[place]);
            if self.save(sub, before, &doc, links).await? {
                return Ok(decided);
            }
            self.settle().await?;
        }
        Err(Error::Busy(format!("subscription {} changes too often at the moment", sub.key.1)).into())
    }

    /// Stores a subscription and links; false when it is no longer what it was.
    async fn save<'a>(
        &self,
        sub: &Sub,
        before: Bytes,
        doc: &WakeDoc,
        links: impl Iterator<Item = &'a Link>,
    ) -> Result<bool, Error> {
        let (tenant, id) = &sub.key;
        let (key, after) = (documents::wake(*tenant, id), documents::encode(doc));
        let mut change = Change::default();
        if after != before {
            change.docs.push(DocOp::Put(key.clone(), after));
        }
        links::put(&mut change, *tenant, id, links);
        if !change.docs.is_empty() {
            change.guards.push(Guard::Equals(key, before));
            match self.0.broker.log().commit(change).await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Conflict => return Ok(false),
                Err(error) => {
                    // It may be stored, or come.
                    self.again(sub, Names::default());
                    return Err(error.into());
                }
            }
        }
        self.plan(sub, doc);
        Ok(true)
    }

    /// Waits until what is on its way to the log is stored, or is not.
    pub(super) async fn settle(&self) -> Result<(), Error> {
        let nothing = Change { docs: vec![DocOp::Delete(Bytes::from_static(NOTHING))], ..Change::default() };
        Ok(self.0.broker.log().commit(nothing).await?)
    }

    /// Puts into the schedule what the document says is due, and counts the wake that is under way.
    pub(super) fn plan(&self, sub: &Sub, doc: &WakeDoc) {
        self.count(sub, doc);
        let at = match turn::due(doc) {
            None => return,
            Some(Due::Deliver(at) | Due::Lease(at)) => at,
            Some(Due::Tell) if self.is_told(sub, doc) => return,
            Some(Due::Tell) => self.0.broker.log().now().0,
        };
        self.push(sub, at, Names::default());
    }

    fn count(&self, sub: &Sub, doc: &WakeDoc) {
        let mut open = sub.open.lock().unwrap_or_else(PoisonError::into_inner);
        match (doc.wake.is_some(), open.is_some()) {
            (true, false) => *open = Some(self.0.metrics.wake()),
            (false, true) => *open = None,
            (true, true) | (false, false) => {}
        }
    }

    /// Looks at a subscription again, and at streams, a little later.
    pub(super) fn again(&self, sub: &Sub, names: Names) {
        self.push(sub, self.0.broker.log().now().0 + AGAIN_MS, names);
    }

    pub(super) fn push(&self, sub: &Sub, at: u64, names: Names) {
        self.schedule().push(&sub.key, at, names);
        self.0.news.notify_one();
    }

    pub(super) fn moment(&self) -> Moment {
        let log = self.0.broker.log();
        Moment { now: log.now(), chance: log.new_ulid().0 }
    }

    pub(super) fn load(&self, (tenant, id): &Key) -> Result<Option<(WakeDoc, Bytes)>, Error> {
        documents::load_stored(self.0.broker.log(), &documents::wake(*tenant, id))
    }

    /// What is held of a subscription that is there.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn sub(&self, tenant: TenantId, id: &str) -> Result<Option<Arc<Sub>>, Error> {
        if let Some(known) = self.known().get(&tenant).and_then(|subs| subs.get(id)) {
            return Ok(Some(Arc::clone(known)));
        }
        let key = (tenant, id.into());
        let loaded = self.load(&key)?;
        loaded.map(|(doc, _)| self.register(key, &doc)).transpose()
    }

    /// Holds a subscription, and has the streams of its tenant noted.
    ///
    /// # Errors
    /// `Internal` for a document that cannot be read.
    pub(super) fn register(&self, key: Key, doc: &WakeDoc) -> Result<Arc<Sub>, Error> {
        let sub = Arc::new(Sub::new(key.clone(), doc)?);
        self.count(&sub, doc);
        let mut known = self.known();
        let subs = known.entry(key.0).or_default();
        // Under the lock: who leaves a tenant holds it, too.
        self.catalog().moved().watch(key.0);
        subs.insert(key.1, Arc::clone(&sub));
        Ok(sub)
    }

    /// Holds a subscription no more.
    pub(super) fn forget(&self, key: &Key) {
        let mut known = self.known();
        if let Some(subs) = known.get_mut(&key.0) {
            subs.remove(&key.1);
            if subs.is_empty() {
                known.remove(&key.0);
                self.catalog().moved().leave(key.0);
            }
        }
        drop(known);
        self.schedule().forget(key);
    }

    /// The links that a decision needs, as they are stored.
    async fn links(&self, sub: &Arc<Sub>, which: Which<'_>) -> Result<Vec<Link>, Error> {
        let names = match which {
            Which::None => return Ok(Vec::new()),
            Which::Some(names) if !names.all => names.some.clone(),
            Which::All | Which::Some(_) => return self.all_links(&sub.key).await,
        };
        let (log, catalog, (tenant, id)) = (self.0.broker.log().clone(), Arc::clone(self.catalog()), sub.key.clone());
        self.look_at_some(names.len(), move || {
            let mut links = Vec::new();
            for name in names {
                let Some(doc) = documents::load(&log, &documents::wake_link(tenant, &id, &name))? else { continue };
                let tail = catalog.tail_of(tenant, &name)?;
                links.push(Link::read(name, &doc, tail)?);
            }
            Ok(links)
        })
        .await
    }

    /// Makes a look at so many streams: at few of them at once, at many apart.
    async fn look_at_some<T: Send + 'static>(
        &self,
        streams: usize,
        look: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if streams <= LOOKED_AT_ONCE { look() } else { self.catalog().changes().apart(look).await }
    }

    /// All links of a subscription.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) async fn all_links(&self, key: &Key) -> Result<Vec<Link>, Error> {
        let (log, catalog, (tenant, id)) = (self.0.broker.log().clone(), Arc::clone(self.catalog()), key.clone());
        self.catalog().changes().apart(move || links::load(&log, &catalog, tenant, &id)).await
    }

    /// Links streams that are there and match, and ends the links of those that are gone. Gives the places of the links that
    /// have changed.
    async fn relink(
        &self,
        sub: &Arc<Sub>,
        which: Which<'_>,
        doc: &mut WakeDoc,
        links: &mut Vec<Link>,
    ) -> Result<Vec<usize>, Error> {
        let mut names = match which {
            Which::None => return Ok(Vec::new()),
            Which::Some(names) => names.clone(),
            Which::All => {
                let mut names = self.catalog().moved().peek(sub.key.0);
                names.merge(self.schedule().names(&sub.key));
                names
            }
        };
        if names.all {
            names.some = links.iter().map(|link| Arc::clone(&link.stream)).collect();
            if let Some(glob) = sub.glob.clone() {
                // One more than there may be: those that are linked already may be among them.
                names.some.extend(self.catalog().streams_of(sub.key.0, glob, 2 * SUBSCRIPTION_LINKS_MAX).await?);
            }
        }
        let places = links::places(links);
        let mut changed = Vec::new();
        for (name, tail) in self.tails(sub.key.0, names.some).await? {
            let matches = tail.is_some() && sub.matches(&name);
            match places.get(&name).copied() {
                Some(place) if links[place].glob != matches => {
                    links[place].glob = matches;
                    changed.push(place);
                    doc.links = doc.links.saturating_sub(u32::from(!matches && !links[place].explicit));
                }
                None if matches && has_room(doc, &sub.key) => {
                    doc.links += 1;
                    changed.push(links.len());
                    links.push(Link { glob: true, ..Link::new(name, tail) });
                }
                Some(_) | None => {}
            }
        }
        Ok(changed)
    }

    /// The ends of streams of a tenant, in the order of the names.
    pub(super) async fn tails<N>(&self, tenant: TenantId, names: N) -> Result<Vec<(Arc<str>, Option<Tail>)>, Error>
    where
        N: IntoIterator<Item = Arc<str>, IntoIter: ExactSizeIterator + Send + 'static>,
    {
        let (names, catalog) = (names.into_iter(), Arc::clone(self.catalog()));
        self.look_at_some(names.len(), move || {
            names.map(|name| catalog.tail_of(tenant, &name).map(|tail| (name, tail))).collect()
        })
        .await
    }
}

fn has_room(doc: &WakeDoc, key: &Key) -> bool {
    let has_room = (doc.links as usize) < SUBSCRIPTION_LINKS_MAX;
    if !has_room {
        let (tenant, id) = (key.0.0, &key.1);
        tracing::warn!(%tenant, id = &**id, "a subscription has as many links as it may: a stream is not linked");
    }
    has_room
}
