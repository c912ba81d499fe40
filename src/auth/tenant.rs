//! Tenants: make, view, list, change, delete. Only the holder of the root key gets here.
//!
//! A deletion begins with one change that ends every credential of the tenant. Its keys and topics go after that, in
//! steps of bounded size; a start finds a deletion that was interrupted and finishes it. The name is free at the end, and
//! what is left in the bucket is freed after it (`purge.rs`).

use bytes::Bytes;
use plinth_api::limits::ALLOWED_ORIGINS_MAX;
use plinth_api::quotas::Quotas;
use plinth_storage::ids::{TenantId, Timestamp};
use plinth_storage::log::{Change, DocOp, Guard, TopicOp};
use plinth_storage::{Kind, Log};

use super::caller::Operator;
use super::name::check_tenant_name;
use super::origins::is_listable;
use super::registry::{Stored, TenantSettings, settings_of};
use super::settle::nothing;
use super::{Auth, TenantRef};
use crate::broker::Error;
use crate::broker::documents::{self, TenantDoc, TopicDoc};

/// Documents that go in one step of a deletion.
const DELETE_STEP: usize = 200;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// The name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What is set for it.
    pub settings: TenantSettings,
}

/// What is to change of a tenant; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// Whether it is suspended.
    pub suspended: Option<bool>,
    /// All its quotas.
    pub quotas: Option<Quotas>,
    /// All its origins.
    pub allowed_origins: Option<Vec<String>>,
}

impl Auth {
    /// Makes a tenant. Cancel safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for the name or a setting; `Conflict` when the name is taken.
    pub async fn create_tenant(
        &self,
        _operator: &Operator,
        name: &str,
        settings: TenantSettings,
    ) -> Result<TenantView, Error> {
        check_tenant_name(name).map_err(Error::Unprocessable)?;
        check_settings(&settings.quotas, &settings.allowed_origins)?;
        let (doc, docs) = compose(&self.0.log, name, settings);
        let change = Change { guards: vec![Guard::Absent(documents::tenant_name(name))], docs, topics: vec![] };
        let (auth, id, taken) = (self.clone(), doc.id(), format!("there is a tenant {name:?} already"));
        let commit = async move {
            let committed = auth.0.log.commit(change).await;
            committed
                .map_err(|error| if error.kind() == Kind::Conflict { Error::Conflict(taken) } else { error.into() })?;
            auth.0.tenants.refresh(id)
        };
        self.0.changes.run(commit).await?;
        Ok(view(doc))
    }

    /// The tenant `name`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get_tenant(&self, _operator: &Operator, name: &str) -> Result<TenantView, Error> {
        self.live_tenant(name)?.map(view).ok_or_else(|| absent(name))
    }

    /// Up to `limit` tenants, by name, after the name `after`.
    ///
    /// # Errors
    /// Those of the log.
    pub fn list_tenants(
        &self,
        _operator: &Operator,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TenantView>, Error> {
        let mut after = after.map(documents::tenant_name);
        let mut tenants = Vec::new();
        while tenants.len() < limit {
            let rows = self.0.log.scan(documents::TENANT_NAMES, after.as_deref(), limit)?;
            for (key, stored) in &rows {
                let doc: TenantDoc = documents::decode(key, stored)?;
                if self.is_live_tenant(doc.id())? {
                    tenants.push(view(doc));
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == limit => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        tenants.truncate(limit);
        Ok(tenants)
    }

    /// Changes a tenant; from the answer on the change acts on all its callers. Cancel safe: a caller that stops waiting
    /// does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for a setting; `NotFound`; `Conflict` when another change came in between.
    pub async fn change_tenant(
        &self,
        _operator: &Operator,
        name: &str,
        change: TenantChange,
    ) -> Result<TenantView, Error> {
        check_settings(
            &change.quotas.clone().unwrap_or_default(),
            change.allowed_origins.as_deref().unwrap_or_default(),
        )?;
        let (auth, name) = (self.clone(), name.to_owned());
        self.0.changes.run(async move { auth.change_stored_tenant(&name, change).await }).await
    }

    async fn change_stored_tenant(&self, name: &str, change: TenantChange) -> Result<TenantView, Error> {
        let mut doc = self.live_tenant(name)?.ok_or_else(|| absent(name))?;
        let before = documents::encode(&doc);
        doc.suspended_at = match change.suspended {
            None => doc.suspended_at,
            Some(false) => None,
            Some(true) => Some(doc.suspended_at.unwrap_or(self.0.log.now().0)),
        };
        doc.quotas = change.quotas.unwrap_or(doc.quotas);
        doc.allowed_origins = change.allowed_origins.unwrap_or(doc.allowed_origins);
        let (key, after) = (documents::tenant(doc.id()), documents::encode(&doc));
        if before != after {
            let change = Change {
                guards: vec![Guard::Equals(key.clone(), before)],
                docs: vec![DocOp::Put(key, after.clone()), DocOp::Put(documents::tenant_name(name), after)],
                topics: vec![],
            };
            let id = doc.id();
            let committed = self.commit_followed(change, move |auth| auth.follow_tenant(id)).await;
            committed.map_err(|error| changed_meanwhile(name, error))?;
        } else {
            // It may have been stored after an answer that did not know it.
            self.follow_tenant(doc.id());
        }
        Ok(view(doc))
    }

    /// Deletes a tenant with its keys and topics; its credentials end at once. Cancel safe: a caller that stops waiting
    /// does not stop it. One that failed on its way, or was interrupted by a stop of the node, is finished later, or by
    /// whoever asks for it again.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_tenant(&self, _operator: &Operator, name: &str) -> Result<(), Error> {
        let (auth, name) = (self.clone(), name.to_owned());
        let deletion = async move {
            let named = documents::load::<TenantDoc>(&auth.0.log, &documents::tenant_name(&name))?;
            let doc = named.ok_or_else(|| absent(&name))?;
            if auth.is_live_tenant(doc.id())? {
                auth.begin_deletion(&doc).await?;
            } else {
                // It may have begun after an answer that did not know it.
                auth.follow_tenant(doc.id());
            }
            let finished = finish_deletion(&auth.0.log, doc.id(), &doc.name).await;
            // One that failed is gone on with, too.
            auth.0.deleted.notify_one();
            finished
        };
        self.0.changes.run(deletion).await
    }

    /// Ends the tenant's credentials: from this change on no key of it can be read or made.
    pub(super) async fn begin_deletion(&self, doc: &TenantDoc) -> Result<(), Error> {
        let change = Change {
            guards: vec![Guard::Present(documents::tenant(doc.id()))],
            docs: vec![
                DocOp::Delete(documents::tenant(doc.id())),
                DocOp::Put(documents::tenant_ending(doc.id()), Bytes::from(doc.name.clone())),
            ],
            topics: vec![],
        };
        let (id, mut late) = (doc.id(), false);
        let follow = move |auth: &Self| {
            auth.follow_tenant(id);
            if late {
                auth.0.deleted.notify_one();
            }
            late = true;
        };
        let committed = self.commit_followed(change, follow).await;
        committed.map_err(|error| if error.kind() == Kind::Conflict { absent(&doc.name) } else { error.into() })
    }

    /// Takes over into memory how a tenant is stored; connections ask whether they still may if it has ended or is suspended.
    pub(super) fn follow_tenant(&self, id: TenantId) {
        let followed = self.0.tenants.follow(id).and_then(|stored| match stored {
            Stored::Live(tenant) => Ok(Some(tenant).filter(TenantRef::is_suspended)),
            Stored::Gone(gone) => self.forget_keys(id).map(|()| gone),
        });
        match followed {
            Ok(Some(ended)) => ended.announce_revocation(),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a change of a tenant cannot be read"),
        }
    }

    fn forget_keys(&self, tenant: TenantId) -> Result<(), Error> {
        let prefix = documents::tenant_api_keys(tenant);
        let mut after: Option<Bytes> = None;
        loop {
            let rows = self.0.log.scan(&prefix, after.as_deref(), DELETE_STEP)?;
            for (row, _) in &rows {
                self.0.keys.remove(String::from_utf8_lossy(&row[prefix.len()..]).as_ref());
            }
            match rows.last() {
                Some((last, _)) => after = Some(last.clone()),
                None => return Ok(()),
            }
        }
    }
}

/// A new tenant and the documents that make it one.
pub(super) fn compose(log: &Log, name: &str, settings: TenantSettings) -> (TenantDoc, Vec<DocOp>) {
    let (doc, stored) = compose_document(log, name, settings);
    let docs =
        vec![DocOp::Put(documents::tenant_name(name), stored.clone()), DocOp::Put(documents::tenant(doc.id()), stored)];
    (doc, docs)
}

/// A new tenant, and what is stored of it.
pub(super) fn compose_document(log: &Log, name: &str, settings: TenantSettings) -> (TenantDoc, Bytes) {
    let doc = TenantDoc {
        v: documents::VERSION,
        id: log.new_ulid(),
        name: name.to_owned(),
        created_at: log.now().0,
        suspended_at: settings.suspended_at.map(|at| at.0),
        quotas: settings.quotas,
        allowed_origins: settings.allowed_origins,
    };
    let stored = documents::encode(&doc);
    (doc, stored)
}

/// Finishes every deletion that has begun, each after `before`.
pub(super) async fn finish_deletions(log: &Log, before: impl Fn(TenantId) + Send) -> Result<(), Error> {
    loop {
        let rows = log.scan(documents::TENANTS_ENDING, None, DELETE_STEP)?;
        if rows.is_empty() {
            return Ok(());
        }
        for (key, name) in rows {
            let id = String::from_utf8_lossy(&key[documents::TENANTS_ENDING.len()..]).parse();
            let id = TenantId(id.map_err(|_| Error::defect("the key of a tenant that ends has no id"))?);
            before(id);
            finish_deletion(log, id, &String::from_utf8_lossy(&name)).await?;
        }
    }
}

/// Finishes a deletion that has begun, maybe while another one does the same: each step holds only where what it takes away
/// is still there, for a name or a claim that is free may be somebody else's by now.
pub(super) async fn finish_deletion(log: &Log, tenant: TenantId, name: &str) -> Result<(), Error> {
    let keys = documents::tenant_api_keys(tenant);
    delete_all(log, &keys, |row, _, change| {
        let id = String::from_utf8_lossy(&row[keys.len()..]);
        change.docs.extend([documents::api_key(&id), documents::key_use(tenant, &id)].map(DocOp::Delete));
        Ok(())
    })
    .await?;
    delete_all(log, &documents::issuers(tenant), |row, stored, change| {
        change.docs.extend(super::claim_deletions(&documents::decode(row, stored)?));
        Ok(())
    })
    .await?;
    delete_all(log, &documents::revocations(tenant), |_, _, _| Ok(())).await?;
    delete_all(log, &documents::stream_ttls(tenant), |_, _, _| Ok(())).await?;
    delete_all(log, &documents::wakes(tenant), |_, _, _| Ok(())).await?;
    delete_all(log, &documents::wake_links_of(tenant), |_, _, _| Ok(())).await?;
    delete_all(log, &documents::topics(tenant, ""), |row, stored, change| {
        let doc: TopicDoc = documents::decode(row, stored)?;
        change.topics.push(TopicOp::Delete { topic: doc.id() });
        Ok(())
    })
    .await?;
    let ending = documents::tenant_ending(tenant);
    let docs = vec![
        DocOp::Delete(documents::tenant_name(name)),
        DocOp::Delete(ending.clone()),
        DocOp::Put(documents::tenant_left(tenant), Bytes::new()),
    ];
    commit_step(log, Change { guards: vec![Guard::Present(ending)], docs, topics: vec![] }).await
}

/// Deletes all documents that begin with `prefix`, each with what `along` adds for it.
async fn delete_all(
    log: &Log,
    prefix: &[u8],
    along: impl Fn(&Bytes, &Bytes, &mut Change) -> Result<(), Error> + Send,
) -> Result<(), Error> {
    loop {
        let rows = log.scan(prefix, None, DELETE_STEP)?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut change = Change::default();
        for (row, stored) in rows {
            along(&row, &stored, &mut change)?;
            change.guards.push(Guard::Present(row.clone()));
            change.docs.push(DocOp::Delete(row));
        }
        commit_step(log, change).await?;
    }
}

/// Commits a step, unless another one has done it or is about to: then it waits until that is stored.
async fn commit_step(log: &Log, change: Change) -> Result<(), Error> {
    match log.commit(change).await {
        Err(error) if error.kind() == Kind::Conflict => Ok(log.commit(nothing()).await?),
        committed => Ok(committed?),
    }
}

fn absent(name: &str) -> Error {
    Error::NotFound(format!("there is no tenant {name:?}"))
}

fn changed_meanwhile(name: &str, error: plinth_storage::Error) -> Error {
    if error.kind() == Kind::Conflict {
        Error::Conflict(format!("the tenant {name:?} was changed by another request at the same moment"))
    } else {
        error.into()
    }
}

fn check_settings(quotas: &Quotas, allowed_origins: &[String]) -> Result<(), Error> {
    quotas.check().map_err(Error::Unprocessable)?;
    if allowed_origins.len() > ALLOWED_ORIGINS_MAX {
        let count = allowed_origins.len();
        return Err(Error::Unprocessable(format!("{count} allowed origins exceed the limit of {ALLOWED_ORIGINS_MAX}")));
    }
    match allowed_origins.iter().find(|origin| !is_listable(origin)) {
        Some(wrong) => Err(Error::Unprocessable(format!(
            "allowed origin {wrong:?} is not what browsers send: scheme and host in lower case, without a path, such as \
             https://app.example.com, or * for every page"
        ))),
        None => Ok(()),
    }
}

fn view(doc: TenantDoc) -> TenantView {
    TenantView { created_at: doc.created_at(), settings: settings_of(&doc), name: doc.name }
}
