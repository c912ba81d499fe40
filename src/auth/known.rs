//! API keys in use, in memory: what a client presents is checked against them.

use std::sync::Arc;

use plinth_storage::ids::{TenantId, Timestamp};

use super::account::Account;
use super::caller::{Caller, Denied, KeyRef};
use super::scope::Scope;
use super::secret::{self, SecretHash};
use super::uses::LastUse;
use super::{Auth, Miss};
use crate::broker::documents;

/// A key as it is stored.
pub(super) struct KnownKey {
    caller: Caller,
    sha256: SecretHash,
    /// By the secrets before, each until its time is over.
    previous: Vec<(SecretHash, Caller)>,
    last_use: LastUse,
}

impl KnownKey {
    /// Who came by this secret, if it is still known.
    pub(super) fn holder(&self, secret: u32) -> Option<&Caller> {
        let previous = self.previous.iter().map(|(_, caller)| caller);
        std::iter::once(&self.caller)
            .chain(previous)
            .find(|caller| caller.key_ref().is_some_and(|key| key.secret == secret))
    }

    /// Who comes by the newest secret.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    fn presented(&self, key: &str) -> Option<&Caller> {
        if secret::verify(key, &self.sha256) {
            return Some(&self.caller);
        }
        let previous = self.previous.iter().find(|(sha256, _)| secret::verify(key, sha256));
        previous.map(|(_, caller)| caller)
    }
}

impl Auth {
    /// The holder of an API key.
    ///
    /// # Errors
    /// `Unauthenticated`; `Unavailable` when the key cannot be looked up.
    pub(super) fn api_key(&self, key: &str) -> Result<Caller, Denied> {
        let invalid = || Denied::Unauthenticated("the API key is not valid".into());
        let id = secret::api_key_id(key)
            .ok_or_else(|| Denied::Unauthenticated("the API key is mistyped: it does not have its checksum".into()))?;
        let known = self.known_key(id).map_err(|miss| match miss {
            Miss::Absent => invalid(),
            Miss::Failed(error) => Denied::Unavailable(format!("the credential cannot be checked now: {error}")),
        })?;
        let caller = known.presented(key).ok_or_else(invalid)?;
        let now = self.0.log.now();
        if caller.expires_at().is_some_and(|end| now >= end) {
            return Err(Denied::Unauthenticated("the API key has expired, or was replaced by a rotation".into()));
        }
        self.note_use(caller, &known.last_use, now);
        Ok(caller.clone())
    }

    /// Whether the secret by which `caller` came still opens its key.
    pub(super) fn is_live_key(&self, caller: &Caller, key: &KeyRef) -> bool {
        let Ok(known) = self.known_key(&key.id) else { return false };
        let now = self.0.log.now();
        let holder = known.holder(key.secret);
        let live = holder.is_some_and(|holder| holder.expires_at().is_none_or(|end| now < end));
        if live {
            // An open connection is a use.
            self.note_use(caller, &known.last_use, now);
        }
        live
    }

    /// The key as it is stored. A key that is removed while it is being read is not kept: the cache refuses the entry.
    pub(super) fn known_key(&self, id: &str) -> Result<Arc<KnownKey>, Miss> {
        self.0.keys.get_or_insert_with(id, || self.load_key(id).map(Arc::new))
    }

    fn load_key(&self, id: &str) -> Result<KnownKey, Miss> {
        let (doc, meter) = self.0.key_meters.read(id, || self.load(&documents::api_key(id)))?;
        let tenant = self.0.tenants.get(TenantId(doc.tenant)).map_err(Miss::Failed)?.ok_or(Miss::Absent)?;
        // A scope that this build cannot read allows nothing.
        let scopes: Vec<Scope> = doc.scopes.iter().filter_map(|text| Scope::parse(text).ok()).collect();
        let expires_at = doc.expires_at.map(Timestamp);
        let account = Account::of_key(tenant, meter);
        let caller = |secret, expires_at| {
            Caller::key(KeyRef { id: id.into(), secret }, account.clone(), scopes.clone(), expires_at)
        };
        let previous = doc.previous.iter().map(|previous| {
            let end = Timestamp(previous.ends_at);
            let end = expires_at.map_or(end, |key| key.min(end));
            (previous.sha256, caller(previous.rotations, Some(end)))
        });
        let previous = previous.collect();
        let caller = caller(doc.rotations, expires_at);
        Ok(KnownKey { caller, sha256: doc.sha256, previous, last_use: LastUse::default() })
    }
}
