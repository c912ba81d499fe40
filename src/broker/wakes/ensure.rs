//! Subscriptions: make, view, remove, and which streams they name.

use std::collections::BTreeSet;
use std::sync::Arc;

use plinth_api::limits::{
    SUBSCRIPTION_ID_BYTES_MAX, SUBSCRIPTION_LEASE_MS_MAX, SUBSCRIPTION_LEASE_MS_MIN, SUBSCRIPTION_LINKS_MAX,
    SUBSCRIPTION_TEXT_BYTES_MAX, TENANT_SUBSCRIPTIONS_MAX,
};
use plinth_storage::Kind;
use plinth_storage::log::{Change, DocOp, Guard};
use serde::Serialize;

use super::fail::{WakeCode, WakeError};
use super::links::{self, Link, Tail};
use super::moved::Names;
use super::schedule::Key;
use super::store::Which;
use super::view::WakeView;
use super::{Sub, Wakes, place};
use crate::auth::{Action, Caller, Glob};
use crate::broker::documents::{self, WakeBy, WakeDoc};
use crate::broker::error::Error;
use crate::broker::streams::Token;

/// What a subscription is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WakeRequest {
    /// The address of its webhook; this, or `wake_stream`.
    pub webhook: Option<String>,
    /// The stream in which its wakes are told.
    pub wake_stream: Option<String>,
    /// The glob of its streams.
    pub pattern: Option<String>,
    /// Streams that it names.
    pub streams: Vec<String>,
    /// How long a wake may take without a sign of life.
    pub lease_ttl_ms: u64,
    /// For people.
    pub description: Option<String>,
}

/// A request that is checked.
struct Wanted {
    by: WakeBy,
    pattern: Option<(String, Glob)>,
    streams: BTreeSet<Arc<str>>,
    lease_ttl_ms: u64,
    description: Option<String>,
}

/// What tells one configuration from another. Its form is part of what is stored; never change it.
#[derive(Serialize)]
struct Config<'a> {
    by: &'a WakeBy,
    pattern: Option<&'a str>,
    streams: Vec<&'a str>,
    lease_ttl_ms: u64,
    description: Option<&'a str>,
}

impl Wanted {
    fn hash(&self) -> String {
        let Self { by, pattern, streams, lease_ttl_ms, description } = self;
        let pattern = pattern.as_ref().map(|(text, _)| text.as_str());
        let (streams, description) = (streams.iter().map(|name| &**name).collect(), description.as_deref());
        let config = Config { by, pattern, streams, lease_ttl_ms: *lease_ttl_ms, description };
        blake3::hash(&documents::encode(&config)).to_hex().to_string()
    }

    /// The document of one with so many links.
    fn doc(&self, root: String, created_at: u64, links: usize) -> WakeDoc {
        WakeDoc {
            v: documents::VERSION,
            hash: self.hash(),
            by: self.by.clone(),
            pattern: self.pattern.as_ref().map(|(text, _)| text.clone()),
            lease_ttl_ms: self.lease_ttl_ms,
            description: self.description.clone(),
            root,
            created_at,
            links: u32::try_from(links).expect("a bounded number"),
            generation: 0,
            wake: None,
        }
    }
}

impl Wakes {
    /// Makes a subscription, linked with the ends of what is there, or checks that it is what is asked for; true when it was
    /// made. `root` is where clients reach the streams. Cancel safe: who stops waiting does not undo it.
    ///
    /// # Errors
    /// `InvalidRequest`, `UrlRejected`, `AlreadyExists`, `LimitExceeded`; `Forbidden`; those of the log.
    pub async fn ensure(
        &self,
        caller: &Caller,
        id: &str,
        request: WakeRequest,
        root: String,
    ) -> Result<(WakeView, bool), WakeError> {
        caller.authorize_some(Action::Manage)?;
        check_id(id)?;
        let wanted = self.check(caller, request)?;
        let (wakes, key) = (self.clone(), (caller.inside()?.id(), Arc::<str>::from(id)));
        let ensured = self.run_change(async move { wakes.ensure_stored(&key, &wanted, root).await });
        let (sub, made) = ensured.await?;
        if !made && !self.allows(caller, Action::Manage, &sub).await? {
            let why = format!("subscription {id} is about streams that the credential does not allow");
            return Err(WakeError::new(WakeCode::AlreadyExists, why));
        }
        Ok((self.look_at(&sub).await?, made))
    }

    async fn ensure_stored(&self, key: &Key, wanted: &Wanted, root: String) -> Result<(Arc<Sub>, bool), WakeError> {
        let _one_of_the_tenant = self.0.makers[place(key.0)].lock().await;
        if let Some(sub) = self.sub(key.0, &key.1)? {
            let Some((doc, _)) = self.load(key)? else { return Err(WakeError::absent(&key.1)) };
            if doc.hash != wanted.hash() {
                let why = format!("there is a subscription {:?} with another configuration", key.1);
                return Err(WakeError::new(WakeCode::AlreadyExists, why));
            }
            return Ok((sub, false));
        }
        let log = self.0.broker.log();
        if log.scan(&documents::wakes(key.0), None, TENANT_SUBSCRIPTIONS_MAX)?.len() >= TENANT_SUBSCRIPTIONS_MAX {
            let why = format!("the tenant has {TENANT_SUBSCRIPTIONS_MAX} subscriptions, which is the limit");
            return Err(WakeError::new(WakeCode::LimitExceeded, why));
        }
        let _one_at_a_time = self.lock(key).await;
        // Held before the streams are listed: what moves from here on is noted.
        let sub = self.register(key.clone(), &wanted.doc(String::new(), 0, 0))?;
        let made = self.make(&sub, wanted, root).await;
        if made.is_err() && !matches!(made, Err(WakeError::Broker(Error::Unknown(_)))) {
            self.forget(key);
        }
        made?;
        self.push(&sub, log.now().0, Names::all());
        Ok((sub, true))
    }

    async fn make(&self, sub: &Arc<Sub>, wanted: &Wanted, root: String) -> Result<(), WakeError> {
        let (tenant, id) = &sub.key;
        let links = self.first_links(sub, wanted).await?;
        if links.len() > SUBSCRIPTION_LINKS_MAX {
            return Err(too_many_links(links.len()));
        }
        let (log, key) = (self.0.broker.log(), documents::wake(*tenant, id));
        let doc = wanted.doc(root, log.now().0, links.len());
        let mut change = Change {
            guards: vec![Guard::Present(documents::tenant(*tenant)), Guard::Absent(key.clone())],
            docs: vec![DocOp::Put(key, documents::encode(&doc))],
            topics: vec![],
        };
        links::put(&mut change, *tenant, id, &links);
        match log.commit(change).await {
            Err(error) if error.kind() == Kind::Conflict => {
                Err(Error::Conflict(format!("subscription {id} was made by another request at the same moment")).into())
            }
            committed => Ok(committed?),
        }
    }

    /// The links of a new one: what is there is done with.
    async fn first_links(&self, sub: &Sub, wanted: &Wanted) -> Result<Vec<Link>, Error> {
        let tenant = sub.key.0;
        let mut names = wanted.streams.clone();
        if let Some((_, glob)) = &wanted.pattern {
            names.extend(self.catalog().streams_of(tenant, glob.clone(), SUBSCRIPTION_LINKS_MAX + 1).await?);
        }
        let mut links = Vec::with_capacity(names.len());
        for (name, tail) in self.tails(tenant, names).await? {
            let (explicit, glob) = (wanted.streams.contains(&name), tail.is_some() && sub.matches(&name));
            if explicit || glob {
                links.push(Link { explicit, glob, ..from_its_end(name, tail) });
            }
        }
        Ok(links)
    }

    /// The subscription as it is now.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden`; those of the log.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<WakeView, WakeError> {
        caller.authorize_some(Action::View)?;
        let sub = self.visible(caller, Action::View, id).await?;
        self.look_at(&sub).await
    }

    async fn look_at(&self, sub: &Arc<Sub>) -> Result<WakeView, WakeError> {
        let (doc, _) = self.load(&sub.key)?.ok_or_else(|| WakeError::absent(&sub.key.1))?;
        Ok(self.view(&sub.key.1, doc, &self.all_links(&sub.key).await?))
    }

    /// Removes a subscription with all that is acknowledged; to remove none is no failure for who may manage all streams. Cancel safe
    /// as [`Wakes::ensure`].
    ///
    /// # Errors
    /// `InvalidRequest`, `NotFound`; `Forbidden`; those of the log.
    pub async fn remove(&self, caller: &Caller, id: &str) -> Result<(), WakeError> {
        caller.authorize_some(Action::Manage)?;
        check_id(id)?;
        let sub = match self.visible(caller, Action::Manage, id).await {
            Err(WakeError::Refused { code: WakeCode::NotFound, .. }) if may_all(caller, Action::Manage) => {
                return Ok(());
            }
            found => found?,
        };
        let wakes = self.clone();
        self.run_change(async move { wakes.remove_stored(&sub.key).await }).await
    }

    async fn remove_stored(&self, key: &Key) -> Result<(), WakeError> {
        let _one_at_a_time = self.lock(key).await;
        let (tenant, id) = key;
        let doc = documents::wake(*tenant, id);
        let mut change = Change { docs: vec![DocOp::Delete(doc)], ..Change::default() };
        for link in self.all_links(key).await? {
            change.docs.push(DocOp::Delete(documents::wake_link(*tenant, id, &link.stream)));
        }
        self.0.broker.log().commit(change).await?;
        self.forget(key);
        Ok(())
    }

    /// Names further streams, from their ends on. Cancel safe as [`Wakes::ensure`].
    ///
    /// # Errors
    /// `InvalidRequest`, `NotFound`, `LimitExceeded`; `Forbidden`; those of the log.
    pub async fn link(&self, caller: &Caller, id: &str, streams: Vec<String>) -> Result<(), WakeError> {
        caller.authorize_some(Action::Manage)?;
        let sub = self.visible(caller, Action::Manage, id).await?;
        let names = names(caller, streams, sub.told_in.as_deref())?;
        if names.is_empty() {
            return Err(WakeError::invalid("there are no streams to be linked"));
        }
        let wakes = self.clone();
        self.run_change(async move { wakes.link_stored(&sub, &names).await }).await
    }

    async fn link_stored(&self, sub: &Arc<Sub>, names: &BTreeSet<Arc<str>>) -> Result<(), WakeError> {
        let ends = self.tails(sub.key.0, names.clone()).await?;
        self.change(sub, Which::All, |scene| {
            let places = links::places(scene.links);
            for (name, tail) in &ends {
                match places.get(name).copied() {
                    Some(at) if scene.links[at].explicit => {}
                    Some(at) => {
                        scene.links[at].explicit = true;
                        scene.changed.push(at);
                    }
                    None => {
                        scene.changed.push(scene.links.len());
                        let glob = tail.is_some() && sub.matches(name);
                        scene.links.push(Link { explicit: true, glob, ..from_its_end(Arc::clone(name), *tail) });
                    }
                }
            }
            let links = scene.links.iter().filter(|link| link.is_one()).count();
            if links > SUBSCRIPTION_LINKS_MAX {
                return Err(too_many_links(links));
            }
            scene.doc.links = u32::try_from(links).expect("a bounded number");
            Ok(())
        })
        .await
    }

    /// Names a stream no more; one that the glob matches stays linked. Cancel safe as [`Wakes::ensure`].
    ///
    /// # Errors
    /// `NotFound`; `Forbidden`; those of the log.
    pub async fn unlink(&self, caller: &Caller, id: &str, stream: &str) -> Result<(), WakeError> {
        caller.authorize_some(Action::Manage)?;
        let sub = self.visible(caller, Action::Manage, id).await?;
        let (wakes, name) = (self.clone(), Arc::<str>::from(stream));
        let unlinked = async move {
            wakes
                .change(&sub, Which::All, |scene| {
                    let place = scene.links.iter().position(|link| link.explicit && link.stream == name);
                    if let Some(place) = place {
                        scene.links[place].explicit = false;
                        scene.changed.push(place);
                        let gone = u32::from(!scene.links[place].glob);
                        scene.doc.links = scene.doc.links.saturating_sub(gone);
                    }
                    Ok(())
                })
                .await
        };
        self.run_change(unlinked).await
    }

    /// A subscription that the caller may do `action` on: on all of its streams, those that may come among them.
    ///
    /// # Errors
    /// `NotFound` for one that is not there, and one that the caller may not know of.
    pub(super) async fn visible(&self, caller: &Caller, action: Action, id: &str) -> Result<Arc<Sub>, WakeError> {
        if caller.is_elsewhere() {
            return Err(WakeError::absent(id));
        }
        let sub = self.sub(caller.inside()?.id(), id)?.ok_or_else(|| WakeError::absent(id))?;
        if self.allows(caller, action, &sub).await? { Ok(sub) } else { Err(WakeError::absent(id)) }
    }

    async fn allows(&self, caller: &Caller, action: Action, sub: &Sub) -> Result<bool, WakeError> {
        if may_all(caller, action) {
            return Ok(true);
        }
        if sub.glob.as_ref().is_some_and(|glob| !caller.may_all(action, glob)) {
            return Ok(false);
        }
        let links = self.all_links(&sub.key).await?;
        Ok(links.iter().filter(|link| link.explicit).all(|link| caller.may(action, &link.stream)))
    }

    /// Checks a request by itself, and what the caller may.
    fn check(&self, caller: &Caller, request: WakeRequest) -> Result<Wanted, WakeError> {
        let WakeRequest { webhook, wake_stream, pattern, streams, lease_ttl_ms, description } = request;
        if pattern.is_none() && streams.is_empty() {
            return Err(WakeError::invalid("there is neither a pattern nor a stream"));
        }
        let (least, most) = (SUBSCRIPTION_LEASE_MS_MIN, SUBSCRIPTION_LEASE_MS_MAX);
        if !(least..=most).contains(&lease_ttl_ms) {
            return Err(WakeError::invalid(format!("lease of {lease_ttl_ms} ms is not within {least} to {most}")));
        }
        let bytes = description.as_ref().map_or(0, String::len);
        if bytes > SUBSCRIPTION_TEXT_BYTES_MAX {
            let limit = SUBSCRIPTION_TEXT_BYTES_MAX;
            return Err(WakeError::invalid(format!("description of {bytes} bytes exceeds the limit of {limit}")));
        }
        let by = match (webhook, wake_stream) {
            (Some(url), None) => {
                let checked = self.0.egress.check(&url);
                checked
                    .map_err(|why| WakeError::new(WakeCode::UrlRejected, format!("the webhook is refused: {why}")))?;
                WakeBy::Webhook { url }
            }
            (None, Some(stream)) => {
                caller.authorize(Action::Publish, &stream)?;
                WakeBy::Pull { stream }
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(WakeError::invalid("there is not one of a webhook and a wake stream"));
            }
        };
        let told_in = match &by {
            WakeBy::Webhook { .. } => None,
            WakeBy::Pull { stream } => Some(stream.as_str()),
        };
        let pattern = pattern.map(|text| glob(caller, text)).transpose()?;
        let streams = names(caller, streams, told_in)?;
        Ok(Wanted { by, pattern, streams, lease_ttl_ms, description })
    }

    /// Runs a change to its end, whoever stops waiting for it.
    pub(super) async fn run_change<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, WakeError>> + Send + 'static,
    ) -> Result<T, WakeError> {
        self.0.changes.run(async move { Ok(change.await) }).await?
    }
}

fn may_all(caller: &Caller, action: Action) -> bool {
    Glob::parse("**").is_ok_and(|all| caller.may_all(action, &all))
}

fn glob(caller: &Caller, text: String) -> Result<(String, Glob), WakeError> {
    let glob = Glob::parse(&text).map_err(WakeError::invalid)?;
    let lacking = caller.lacking(Action::Manage, &glob);
    if !lacking.is_empty() {
        let lacking = lacking.join(", ");
        let why = format!("the credential does not allow manage on all that the glob {text} can match: {lacking}");
        return Err(crate::auth::Denied::Forbidden(why).into());
    }
    Ok((text, glob))
}

/// The names of streams that the caller may manage.
fn names(caller: &Caller, streams: Vec<String>, told_in: Option<&str>) -> Result<BTreeSet<Arc<str>>, WakeError> {
    let count = streams.len();
    if count > SUBSCRIPTION_LINKS_MAX {
        return Err(too_many_links(count));
    }
    if let Some(stream) = streams.iter().find(|stream| told_in == Some(stream)) {
        return Err(WakeError::invalid(format!("stream {stream} tells the wakes: it does not cause them")));
    }
    let named = |stream: String| Ok(Arc::clone(caller.authorize(Action::Manage, &stream)?.shared_name()));
    streams.into_iter().map(named).collect()
}

fn from_its_end(stream: Arc<str>, tail: Option<Tail>) -> Link {
    let acked = Some(tail.map_or(Token::ZERO, |tail| tail.token));
    Link { acked, ..Link::new(stream, tail) }
}

fn too_many_links(count: usize) -> WakeError {
    let why = format!("{count} streams exceed the limit of {SUBSCRIPTION_LINKS_MAX} of a subscription");
    WakeError::new(WakeCode::LimitExceeded, why)
}

/// Checks an id: what can stand in an address and a key.
fn check_id(id: &str) -> Result<(), WakeError> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-' | ':' | '@');
    if !(1..=SUBSCRIPTION_ID_BYTES_MAX).contains(&id.len()) {
        let (bytes, limit) = (id.len(), SUBSCRIPTION_ID_BYTES_MAX);
        return Err(WakeError::invalid(format!("id of {bytes} bytes is not within 1 to {limit}")));
    }
    if matches!(id, "." | "..") {
        return Err(WakeError::invalid(format!("id {id:?} is a step within an address, which clients take out of it")));
    }
    match id.chars().find(|&c| !is_fine(c)) {
        Some(other) => Err(WakeError::invalid(format!(
            "id {id:?} has the character {other:?}; allowed are A-Z a-z 0-9 . _ ~ - : @"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_that_clients_send_as_it_is_written() {
        for id in ["a", "a.b", "..a", "...", "A-_~:@9", &"x".repeat(SUBSCRIPTION_ID_BYTES_MAX)] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "a%2Eb", "\u{e9}", &"x".repeat(SUBSCRIPTION_ID_BYTES_MAX + 1)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
