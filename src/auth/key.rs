//! API keys of a tenant: make, list, delete. A change is answered after it is durable.

use std::time::Duration;

use plinth_api::limits::{KEY_NAME_BYTES_MAX, KEY_SCOPES_MAX};
use plinth_storage::ids::{TenantId, Timestamp};
use plinth_storage::log::{Change, DocOp, Guard};
use plinth_storage::{Kind, Log};

use super::caller::Admin;
use super::scope::Scope;
use super::{Auth, secret};
use crate::broker::Error;
use crate::broker::documents::{self, ApiKeyDoc};

/// What a key is to be.
#[derive(Clone, Debug, Default)]
pub struct KeyRequest {
    /// A name for people, at most 255 bytes.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// How long it lives, such as `30d`; without it there is no end.
    pub expires_in: Option<String>,
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
    /// The last four characters.
    pub last_four: String,
}

/// A key that was just made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key itself; it is not stored and cannot be shown again.
    pub key: String,
    /// What is stored about it.
    pub about: KeyView,
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
                let doc = documents::load::<ApiKeyDoc>(&self.0.log, &documents::api_key(&id))?;
                keys.extend(doc.map(|doc| view(id, doc)));
            }
            match rows.last() {
                Some((last, _)) if rows.len() == limit => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        Ok(keys)
    }

    /// Deletes a key of the administrator's tenant; from the answer on it is good for nothing. Cancel safe: a caller
    /// that stops waiting does not undo it.
    ///
    /// # Errors
    /// `NotFound`, also for a key of another tenant.
    pub async fn delete_key(&self, admin: &Admin, id: &str) -> Result<(), Error> {
        let (auth, id, tenant) = (self.clone(), id.to_owned(), admin.tenant().id());
        self.0.changes.run(async move { auth.delete_stored_key(tenant, &id).await }).await
    }

    async fn delete_stored_key(&self, tenant: TenantId, id: &str) -> Result<(), Error> {
        let absent = || Error::NotFound(format!("there is no key {id:?}"));
        let key = documents::api_key(id);
        let stored = self.0.log.get(&key)?.ok_or_else(absent)?;
        let doc: ApiKeyDoc = documents::decode(&key, &stored)?;
        if TenantId(doc.tenant) != tenant {
            return Err(absent());
        }
        let change = Change {
            guards: vec![Guard::Equals(key.clone(), stored)],
            docs: vec![DocOp::Delete(key), DocOp::Delete(documents::tenant_api_key(tenant, id))],
            topics: vec![],
        };
        let committed = self.0.log.commit(change).await;
        self.0.keys.remove(id);
        self.announce_revocation();
        committed.map_err(|error| if error.kind() == Kind::Conflict { absent() } else { error.into() })
    }
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
        sha256: secret::hash(&key),
        last_four: secret::last_four(&key),
    };
    let docs = vec![
        DocOp::Put(documents::api_key(&id), documents::encode(&doc)),
        DocOp::Put(documents::tenant_api_key(tenant, &id), bytes::Bytes::new()),
    ];
    Ok((NewKey { key, about: view(id, doc) }, docs))
}

fn check(request: &KeyRequest) -> Result<(), String> {
    if request.name.len() > KEY_NAME_BYTES_MAX {
        return Err(format!("name of {} bytes exceeds the limit of {KEY_NAME_BYTES_MAX}", request.name.len()));
    }
    if request.scopes.is_empty() {
        return Err("a key needs at least one scope".into());
    }
    if request.scopes.len() > KEY_SCOPES_MAX {
        return Err(format!("{} scopes exceed the limit of {KEY_SCOPES_MAX}", request.scopes.len()));
    }
    request.scopes.iter().try_for_each(|scope| Scope::parse(scope).map(drop))
}

fn end_of_life(now: Timestamp, text: &str) -> Result<Timestamp, String> {
    let life = humantime::parse_duration(text)
        .map_err(|why| format!("expires_in {text:?} is not a duration such as 30d or 12h: {why}"))?;
    if life < Duration::from_millis(1) {
        return Err(format!("expires_in {text:?} is shorter than a millisecond"));
    }
    let end = u64::try_from(life.as_millis()).ok().and_then(|life| now.0.checked_add(life));
    end.map(Timestamp).ok_or_else(|| format!("expires_in {text:?} is too long"))
}

fn view(id: String, doc: ApiKeyDoc) -> KeyView {
    KeyView {
        id,
        name: doc.name,
        scopes: doc.scopes,
        created_at: Timestamp(doc.created_at),
        expires_at: doc.expires_at.map(Timestamp),
        last_four: doc.last_four,
    }
}
