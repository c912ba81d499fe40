//! API keys of a tenant: make, view, list, change, rotate, delete. A change is answered after it is durable.
//!
//! A rotation gives a key a new secret under the same id; the one before may go on for a while. Nothing else of the key
//! changes, and who came by the old secret ends with it.

use std::time::Duration;

use bytes::Bytes;
use plinth_api::limits::{KEY_NAME_BYTES_MAX, KEY_OVERLAP_MS_MAX, KEY_SCOPES_MAX};
use plinth_api::quotas::Quotas;
use plinth_storage::ids::{TenantId, Timestamp};
use plinth_storage::log::{Change, DocOp, Guard};
use plinth_storage::{Kind, Log};

use super::caller::Admin;
use super::scope::Scope;
use super::{Auth, secret};
use crate::broker::Error;
use crate::broker::documents::{self, ApiKeyDoc, PreviousSecretDoc};

/// Most secrets of one key that are accepted beside the newest.
const PREVIOUS_MAX: usize = 4;

/// What a key is to be.
#[derive(Clone, Debug, Default)]
pub struct KeyRequest {
    /// A name for people, at most 255 bytes.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// How long it lives, such as `30d`; without it there is no end.
    pub expires_in: Option<String>,
    /// What it may use at most, within what its tenant may.
    pub quotas: Quotas,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// The id.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// What it may use at most.
    pub quotas: Quotas,
    /// The last four characters.
    pub last_four: String,
    /// When it got the secret that it has, if that is not its first.
    pub rotated_at: Option<Timestamp>,
    /// Until when secrets before that one are accepted, too, if they are.
    pub previous_until: Option<Timestamp>,
    /// When it was last used, to the minute, as far as it is known.
    pub last_used_at: Option<Timestamp>,
}

/// What is to change of a key; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    /// The name for people.
    pub name: Option<String>,
    /// All its quotas.
    pub quotas: Option<Quotas>,
}

/// A key that was just made, or has a new secret.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key itself; it is not stored and cannot be shown again.
    pub key: String,
    /// What is stored about it.
    pub about: KeyView,
}

/// What a change of a key ends.
#[derive(Clone, Copy)]
enum Ends {
    Nothing,
    /// A secret, at once or later.
    Secret,
}

impl Auth {
    /// Makes a key of the administrator's tenant. Cancel safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for a scope, name or duration that is refused; `NotFound` when the tenant was deleted meanwhile.
    pub async fn create_key(&self, admin: &Admin, request: KeyRequest) -> Result<NewKey, Error> {
        let (new, docs) = compose(&self.0.log, admin.tenant().id(), request)?;
        let (log, tenant) = (self.0.log.clone(), admin.tenant().clone());
        let change = Change { guards: vec![Guard::Present(documents::tenant(tenant.id()))], docs, topics: vec![] };
        let commit = async move {
            let gone = || Error::NotFound(format!("there is no tenant {:?}", tenant.name()));
            let committed = log.commit(change).await;
            committed.map_err(|error| if error.kind() == Kind::Conflict { gone() } else { error.into() })
        };
        self.0.changes.run(commit).await?;
        Ok(new)
    }

    /// Up to `limit` keys of the administrator's tenant, by id, after the id `after`.
    ///
    /// # Errors
    /// Those of the log.
    pub fn list_keys(&self, admin: &Admin, after: Option<&str>, limit: usize) -> Result<Vec<KeyView>, Error> {
        let (prefix, tenant) = (documents::tenant_api_keys(admin.tenant().id()), admin.tenant().id());
        let mut after = after.map(|id| documents::tenant_api_key(tenant, id));
        let mut keys = Vec::new();
        while keys.len() < limit {
            let rows = self.0.log.scan(&prefix, after.as_deref(), limit)?;
            for (row, _) in rows.iter().take(limit - keys.len()) {
                let id = String::from_utf8_lossy(&row[prefix.len()..]).into_owned();
                if let Some(doc) = documents::load::<ApiKeyDoc>(&self.0.log, &documents::api_key(&id))? {
                    keys.push(self.view(id, doc)?);
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == limit => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        Ok(keys)
    }

    /// A key of the administrator's tenant.
    ///
    /// # Errors
    /// `NotFound`, also for a key of another tenant.
    pub fn get_key(&self, admin: &Admin, id: &str) -> Result<KeyView, Error> {
        let (doc, _) = self.stored_key(admin.tenant().id(), id)?;
        self.view(id.to_owned(), doc)
    }

    /// Changes a key of the administrator's tenant. Cancel safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for the name or a quota; `NotFound`; `Conflict` when another change came in between.
    pub async fn change_key(&self, admin: &Admin, id: &str, change: KeyChange) -> Result<KeyView, Error> {
        check_name(change.name.as_deref().unwrap_or_default()).map_err(Error::Unprocessable)?;
        change.quotas.as_ref().map_or(Ok(()), check_quotas).map_err(Error::Unprocessable)?;
        let (auth, id, tenant) = (self.clone(), id.to_owned(), admin.tenant().id());
        let changed = async move {
            let (mut doc, stored) = auth.stored_key(tenant, &id)?;
            doc.name = change.name.unwrap_or(doc.name);
            doc.quotas = change.quotas.unwrap_or(doc.quotas);
            auth.replace_key(&id, &doc, stored, Ends::Nothing).await?;
            auth.view(id, doc)
        };
        self.0.changes.run(changed).await
    }

    /// Gives a key of the administrator's tenant a new secret. For `overlap`, such as `1h`, the one before is accepted, too;
    /// without it all secrets before end at once, with the connections that they have opened. Cancel safe: a caller
    /// that stops waiting does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for the overlap; `NotFound`; `Conflict` when the key has expired, has too many secrets that are still
    /// accepted, or was changed in between.
    pub async fn rotate_key(&self, admin: &Admin, id: &str, overlap: Option<String>) -> Result<NewKey, Error> {
        let overlap_ms = overlap.as_deref().map_or(Ok(0), overlap_ms).map_err(Error::Unprocessable)?;
        let (auth, id, tenant) = (self.clone(), id.to_owned(), admin.tenant().id());
        let rotated = async move {
            let (mut doc, stored) = auth.stored_key(tenant, &id)?;
            let key = secret::new_api_key(&id);
            rotate(&id, &mut doc, (&key, overlap_ms), auth.0.log.now()).map_err(Error::Conflict)?;
            auth.replace_key(&id, &doc, stored, Ends::Secret).await?;
            Ok(NewKey { key, about: auth.view(id, doc)? })
        };
        self.0.changes.run(rotated).await
    }

    /// Deletes a key of the administrator's tenant; from the answer on it is good for nothing. Cancel safe: a caller
    /// that stops waiting does not undo it.
    ///
    /// # Errors
    /// `NotFound`, also for a key of another tenant.
    pub async fn delete_key(&self, admin: &Admin, id: &str) -> Result<(), Error> {
        let (auth, id, tenant) = (self.clone(), id.to_owned(), admin.tenant().id());
        let deletion = async move {
            auth.stored_key(tenant, &id)?;
            let key = documents::api_key(&id);
            let gone = [key.clone(), documents::tenant_api_key(tenant, &id), documents::key_use(tenant, &id)];
            let docs = gone.into_iter().map(DocOp::Delete).collect();
            let change = Change { guards: vec![Guard::Present(key)], docs, topics: vec![] };
            let committed = auth.commit_key((tenant, &id), change, Ends::Secret).await;
            committed.map_err(|error| if error.kind() == Kind::Conflict { absent(&id) } else { error.into() })
        };
        self.0.changes.run(deletion).await
    }

    /// The document of a key of the tenant, and its bytes.
    fn stored_key(&self, tenant: TenantId, id: &str) -> Result<(ApiKeyDoc, Bytes), Error> {
        let key = documents::api_key(id);
        let Some(stored) = self.0.log.get(&key)? else {
            // Its deletion may have been stored after an answer that did not know it.
            let forgotten = self.0.keys.remove(id);
            if let Some(tenant) = forgotten.as_ref().and_then(|(_, known)| known.caller().tenant()) {
                tenant.announce_revocation();
            }
            return Err(absent(id));
        };
        let doc: ApiKeyDoc = documents::decode(&key, &stored)?;
        if TenantId(doc.tenant) == tenant { Ok((doc, stored)) } else { Err(absent(id)) }
    }

    async fn replace_key(&self, id: &str, doc: &ApiKeyDoc, stored: Bytes, ends: Ends) -> Result<(), Error> {
        let key = documents::api_key(id);
        let docs = vec![DocOp::Put(key.clone(), documents::encode(doc))];
        let change = Change { guards: vec![Guard::Equals(key, stored)], docs, topics: vec![] };
        let meanwhile = || Error::Conflict(format!("the key {id:?} was changed by another request at the same moment"));
        let committed = self.commit_key((TenantId(doc.tenant), id), change, ends).await;
        committed.map_err(|error| if error.kind() == Kind::Conflict { meanwhile() } else { error.into() })
    }

    /// Commits a change of a key. Whatever comes of it, the key is read again; connections ask whether they still may if it
    /// ends something.
    async fn commit_key(
        &self,
        (tenant, id): (TenantId, &str),
        change: Change,
        ends: Ends,
    ) -> plinth_storage::Result<()> {
        let id = id.to_owned();
        let follow = move |auth: &Self| {
            auth.0.keys.remove(&id);
            // Open connections count on its meter, which takes the quotas over when the key is read.
            drop(auth.known_key(&id));
            match ends {
                Ends::Nothing => {}
                Ends::Secret => auth.announce_revocation(tenant),
            }
        };
        self.commit_followed(change, follow).await
    }

    fn view(&self, id: String, doc: ApiKeyDoc) -> Result<KeyView, Error> {
        let last_used_at = self.last_use(TenantId(doc.tenant), &id)?;
        Ok(KeyView { last_used_at, ..view(id, doc, self.0.log.now()) })
    }
}

fn absent(id: &str) -> Error {
    Error::NotFound(format!("there is no key {id:?}"))
}

/// A new key of `tenant` and the documents that make it one.
pub(super) fn compose(log: &Log, tenant: TenantId, request: KeyRequest) -> Result<(NewKey, Vec<DocOp>), Error> {
    check(&request).map_err(Error::Unprocessable)?;
    let created_at = log.now();
    let expires_at = match &request.expires_in {
        Some(text) => Some(end_of_life(created_at, text).map_err(Error::Unprocessable)?),
        None => None,
    };
    let id = log.new_ulid().to_string().to_ascii_lowercase();
    let key = secret::new_api_key(&id);
    let doc = ApiKeyDoc {
        v: documents::VERSION,
        tenant: tenant.0,
        name: request.name,
        scopes: request.scopes,
        created_at: created_at.0,
        expires_at: expires_at.map(|end| end.0),
        quotas: request.quotas,
        sha256: secret::hash(&key),
        last_four: secret::last_four(&key),
        rotations: 0,
        rotated_at: None,
        previous: Vec::new(),
    };
    let docs = vec![
        DocOp::Put(documents::api_key(&id), documents::encode(&doc)),
        DocOp::Put(documents::tenant_api_key(tenant, &id), Bytes::new()),
    ];
    Ok((NewKey { key, about: view(id, doc, created_at) }, docs))
}

fn check(request: &KeyRequest) -> Result<(), String> {
    check_name(&request.name)?;
    check_quotas(&request.quotas)?;
    if request.scopes.is_empty() {
        return Err("a key needs at least one scope".into());
    }
    if request.scopes.len() > KEY_SCOPES_MAX {
        return Err(format!("{} scopes exceed the limit of {KEY_SCOPES_MAX}", request.scopes.len()));
    }
    request.scopes.iter().try_for_each(|scope| Scope::parse(scope).map(drop))
}

fn check_name(name: &str) -> Result<(), String> {
    if name.len() > KEY_NAME_BYTES_MAX {
        return Err(format!("name of {} bytes exceeds the limit of {KEY_NAME_BYTES_MAX}", name.len()));
    }
    Ok(())
}

fn check_quotas(quotas: &Quotas) -> Result<(), String> {
    quotas.check()?;
    let of_tenant = [("topics", quotas.topics), ("storage_bytes", quotas.storage_bytes)];
    match of_tenant.into_iter().find(|(_, number)| number.is_some()) {
        Some((name, _)) => Err(format!("quota {name} is a tenant's: what is kept belongs to no key")),
        None => Ok(()),
    }
}

fn end_of_life(now: Timestamp, text: &str) -> Result<Timestamp, String> {
    let life = duration_ms("expires_in", text)?;
    now.0.checked_add(life).map(Timestamp).ok_or_else(|| format!("expires_in {text:?} is too long"))
}

fn overlap_ms(text: &str) -> Result<u64, String> {
    let overlap = duration_ms("overlap", text)?;
    if overlap > KEY_OVERLAP_MS_MAX {
        let days = KEY_OVERLAP_MS_MAX / 86_400_000;
        return Err(format!("overlap {text:?} exceeds the limit of {days} days"));
    }
    Ok(overlap)
}

fn duration_ms(name: &str, text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|why| format!("{name} {text:?} is not a duration such as 30d or 12h: {why}"))?;
    if duration < Duration::from_millis(1) {
        return Err(format!("{name} {text:?} is shorter than a millisecond"));
    }
    u64::try_from(duration.as_millis()).map_err(|_| format!("{name} {text:?} is too long"))
}

/// Puts a new secret into the place of the newest, which is accepted for the overlap. Others before it keep their time, so that
/// who has had no answer may rotate once more; but none outlives a rotation without an overlap.
fn rotate(id: &str, doc: &mut ApiKeyDoc, (key, overlap_ms): (&str, u64), now: Timestamp) -> Result<(), String> {
    if doc.expires_at.is_some_and(|end| now.0 >= end) {
        return Err(format!("the key {id:?} has expired; make another one"));
    }
    doc.previous.retain(|previous| overlap_ms > 0 && previous.ends_at > now.0);
    if doc.previous.len() >= PREVIOUS_MAX {
        return Err(format!(
            "of the key {id:?} {PREVIOUS_MAX} secrets are still accepted beside the newest, which is the limit; a rotation \
             without an overlap ends them"
        ));
    }
    if overlap_ms > 0 {
        let ends_at = now.0.saturating_add(overlap_ms);
        doc.previous.push(PreviousSecretDoc { sha256: doc.sha256, rotations: doc.rotations, ends_at });
    }
    doc.rotations = doc.rotations.saturating_add(1);
    doc.rotated_at = Some(now.0);
    (doc.sha256, doc.last_four) = (secret::hash(key), secret::last_four(key));
    Ok(())
}

fn view(id: String, doc: ApiKeyDoc, now: Timestamp) -> KeyView {
    let previous = doc.previous.iter().map(|previous| previous.ends_at).filter(|end| *end > now.0).max();
    let until = previous.map(|end| doc.expires_at.map_or(end, |key| key.min(end)));
    KeyView {
        id,
        name: doc.name,
        scopes: doc.scopes,
        created_at: Timestamp(doc.created_at),
        expires_at: doc.expires_at.map(Timestamp),
        quotas: doc.quotas,
        last_four: doc.last_four,
        rotated_at: doc.rotated_at.map(Timestamp),
        previous_until: until.map(Timestamp),
        last_used_at: None,
    }
}
