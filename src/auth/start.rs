//! The first start: the root key, the tenant `default` and its API key, made once and shown once.

use std::sync::Arc;

use bytes::Bytes;
use plinth_storage::Log;
use plinth_storage::log::{Change, DocOp, Guard};
use quick_cache::sync::Cache;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::jwt::{Jwt, reseal};
use super::key::{self, KeyRequest};
use super::meters::KeyMeters;
use super::reconnect::ReconnectKey;
use super::registry::{Registry, TenantSettings};
use super::secret::{self, ROOT_KEY_CHARS_MIN, SecretHash};
use super::system::SYSTEM_TENANT;
use super::tenant;
use super::ticket::Tickets;
use super::uses::Uses;
use super::{Auth, KEYS_MAX, Shared};
use crate::broker::changes::Changes;
use crate::broker::documents::{self, RootKeyDoc};
use crate::broker::{Error, cursor_key};
use crate::egress::{Egress, EgressOptions};

/// The tenant that the first start makes.
const DEFAULT_TENANT: &str = "default";

/// What this start has made. The keys are stored as hashes only: they are shown now or never.
#[derive(Debug, Default)]
pub struct FirstStart {
    /// The root key, when the operator gave none and none was made before.
    pub root_key: Option<String>,
    /// An API key of the tenant `default` with every scope, on an empty store.
    pub default_key: Option<String>,
}

/// The operator's keys, as they are given.
#[derive(Default)]
pub struct RootKeys {
    /// The root key. Without it, it is the one that an earlier start has made, or a new one.
    pub newest: Option<String>,
    /// One from before that is accepted as well.
    pub previous: Option<String>,
}

impl From<Option<String>> for RootKeys {
    fn from(newest: Option<String>) -> Self {
        Self { newest, previous: None }
    }
}

impl Auth {
    /// Opens the credentials of the cluster. Finishes deletions of tenants that a stop interrupted.
    ///
    /// # Errors
    /// `Invalid` for a root key that is too short or not plain text; those of the log.
    pub async fn open(log: Log, root_keys: impl Into<RootKeys>) -> Result<(Self, FirstStart), Error> {
        Self::open_with(log, root_keys, Egress::new(EgressOptions::default())).await
    }

    /// The same with a way of its own to the addresses at which issuers publish their keys.
    ///
    /// # Errors
    /// As [`Auth::open`].
    pub async fn open_with(
        log: Log,
        root_keys: impl Into<RootKeys>,
        egress: Egress,
    ) -> Result<(Self, FirstStart), Error> {
        let RootKeys { newest: root_key, previous } = root_keys.into();
        let previous_root = previous.as_deref().map(chosen_root_key).transpose()?;
        let mut change = Change::default();
        let mut made = FirstStart::default();
        let given = root_key.is_some();
        let root = match root_key {
            Some(given) => chosen_root_key(&given)?,
            None => match documents::load::<RootKeyDoc>(&log, documents::ROOT_KEY)? {
                Some(doc) => doc.sha256,
                None => make_root_key(&mut change, &mut made),
            },
        };
        if log.get(documents::FIRST_START)?.is_none() {
            make_default_tenant(&log, &mut change, &mut made)?;
        }
        if log.get(documents::SYSTEM_TENANT)?.is_none() {
            make_system_tenant(&log, &mut change);
        }
        if !change.docs.is_empty() {
            log.commit(change).await?;
        }
        tenant::finish_deletions(&log, |_| {}).await?;
        let cursors = cursor_key(&log).await?;
        if let Some(previous) = &previous_root {
            reseal(&log, &cursors, (&root, previous)).await?;
        }
        let reconnect = ReconnectKey::new(&cursors, &root);
        let tenants = Registry::new(log.clone());
        tenants.load_origins()?;
        let shared = Shared {
            tenants,
            jwt: Jwt::new(&cursors, &root, given, (log.cluster(), egress)).with_previous(
                &cursors,
                previous_root.as_ref(),
                log.cluster(),
            ),
            log,
            root,
            previous_root,
            reconnect,
            previous_reconnect: previous_root.map(|root| ReconnectKey::new(&cursors, &root)),
            keys: Cache::new(KEYS_MAX),
            tickets: Tickets::new(),
            uses: Uses::default(),
            key_meters: KeyMeters::default(),
            deleted: Notify::new(),
            changes: Changes::default(),
            closing: CancellationToken::new(),
        };
        Ok((Self(Arc::new(shared)), made))
    }
}

fn chosen_root_key(given: &str) -> Result<SecretHash, Error> {
    if given.len() < ROOT_KEY_CHARS_MIN {
        return Err(Error::Invalid(format!(
            "root key of {} characters is shorter than the minimum of {ROOT_KEY_CHARS_MIN}",
            given.len()
        )));
    }
    if !given.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Invalid("root key has a character that is not visible ASCII".into()));
    }
    if secret::is_api_key(given) {
        return Err(Error::Invalid("root key has the form of an API key".into()));
    }
    Ok(secret::hash(given))
}

fn make_root_key(change: &mut Change, made: &mut FirstStart) -> SecretHash {
    let key = secret::new_root_key();
    let sha256 = secret::hash(&key);
    change.guards.push(Guard::Absent(Bytes::from_static(documents::ROOT_KEY)));
    let doc = documents::encode(&RootKeyDoc { v: documents::VERSION, sha256 });
    change.docs.push(DocOp::Put(Bytes::from_static(documents::ROOT_KEY), doc));
    made.root_key = Some(key);
    sha256
}

/// The tenant of what belongs to no other. It has no name by which one could be asked for, listed or deleted.
fn make_system_tenant(log: &Log, change: &mut Change) {
    let (tenant, stored) = tenant::compose_document(log, SYSTEM_TENANT, TenantSettings::default());
    let key = Bytes::from_static(documents::SYSTEM_TENANT);
    change.guards.push(Guard::Absent(key.clone()));
    change.docs.push(DocOp::Put(key, stored.clone()));
    change.docs.push(DocOp::Put(documents::tenant(tenant.id()), stored));
}

fn make_default_tenant(log: &Log, change: &mut Change, made: &mut FirstStart) -> Result<(), Error> {
    let (tenant, tenant_docs) = tenant::compose(log, DEFAULT_TENANT, TenantSettings::default());
    let scopes = ["publish:**", "subscribe:**", "manage:**", "admin"].map(str::to_owned).to_vec();
    let request = KeyRequest { name: "made at first start".into(), scopes, ..KeyRequest::default() };
    let (key, key_docs) = key::compose(log, tenant.id(), request)?;
    change.guards.push(Guard::Absent(Bytes::from_static(documents::FIRST_START)));
    change.docs.push(DocOp::Put(Bytes::from_static(documents::FIRST_START), Bytes::new()));
    change.docs.extend(tenant_docs);
    change.docs.extend(key_docs);
    made.default_key = Some(key.key);
    Ok(())
}
