//! From credentials to a [`Caller`], and from a caller to the proofs that the broker takes.
//!
//! Default deny. API keys live in the log as hashes; the ones in use are held in a bounded cache, from which a deletion
//! removes them before it is answered. Knows nothing of HTTP.

mod account;
mod caller;
mod key;
mod name;
mod purge;
mod reconnect;
mod registry;
mod scope;
mod secret;
mod start;
mod tenant;
mod ticket;

use std::sync::Arc;

use plinth_storage::Log;
use plinth_storage::ids::TenantId;
use quick_cache::sync::Cache;
use tokio::sync::{Notify, watch};

pub use self::account::Account;
pub use self::caller::{Admin, Caller, Denied, Operator, TopicPattern, TopicRef};
pub use self::key::{KeyRequest, KeyView, NewKey};
pub use self::reconnect::Reconnect;
use self::reconnect::ReconnectKey;
use self::registry::Registry;
pub use self::registry::{TenantRef, TenantSettings};
pub use self::scope::Action;
use self::secret::SecretHash;
pub(crate) use self::secret::random_bytes;
pub use self::start::FirstStart;
pub use self::tenant::{TenantChange, TenantView};
pub use self::ticket::Ticket;
use self::ticket::Tickets;
use crate::broker::Error;
use crate::broker::changes::Changes;
use crate::broker::documents::{self, ApiKeyDoc, TenantDoc};

/// API keys held in memory.
const KEYS_MAX: usize = 10_000;

/// What a client presents.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// An API key or the root key.
    Bearer(&'a str),
    /// A one-time ticket.
    Ticket(&'a str),
    /// A ticket that may be spent, and the token that was given when one of the same caller was redeemed.
    Reconnect {
        /// The ticket.
        ticket: &'a str,
        /// See [`Auth::reconnect_token`].
        token: &'a str,
    },
}

/// Checks credentials and manages keys and tenants. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Shared>);

struct Shared {
    log: Log,
    root: SecretHash,
    reconnect: ReconnectKey,
    keys: Cache<String, Arc<KnownKey>>,
    tickets: Tickets,
    tenants: Registry,
    revoked: watch::Sender<u64>,
    /// A tenant was deleted.
    deleted: Notify,
    changes: Changes,
}

struct KnownKey {
    caller: Caller,
    sha256: SecretHash,
}

enum Miss {
    Absent,
    Failed(Error),
}

impl Auth {
    /// Checks the credential; `tenant` is what the client wrote into `Plinth-Tenant`, which only the root key may.
    ///
    /// # Errors
    /// `Unauthenticated`; `Suspended` for a credential of a suspended tenant; `Forbidden` for `tenant` with another
    /// credential than the root key; `NotFound` when there is no such tenant.
    pub fn authenticate(&self, credential: Credential<'_>, tenant: Option<&str>) -> Result<Caller, Denied> {
        let caller = match credential {
            Credential::Ticket(ticket) => self.redeem(ticket)?,
            Credential::Reconnect { ticket, token } => self.reconnect(ticket, token)?,
            Credential::Bearer(key) if secret::is_api_key(key) => self.api_key(key)?,
            Credential::Bearer(key) if secret::verify(key, &self.0.root) => match tenant {
                Some(name) => return self.root_inside(name),
                None => return Ok(Caller::root(None)),
            },
            Credential::Bearer(_) => return Err(Denied::Unauthenticated("the credential is not valid".into())),
        };
        if let Some(suspended) = caller.tenant().filter(|tenant| tenant.is_suspended()) {
            return Err(Denied::Suspended(format!("the tenant {} is suspended", suspended.name())));
        }
        match tenant {
            Some(_) => Err(Denied::Forbidden("the header plinth-tenant is for the root key only".into())),
            None => Ok(caller),
        }
    }

    /// Whether the credential still holds: neither deleted, nor expired, nor of a deleted or suspended tenant. The root key
    /// goes on inside a suspended tenant.
    #[must_use]
    pub fn is_live(&self, caller: &Caller) -> bool {
        let expired = caller.expires_at().is_some_and(|end| self.0.log.now() >= end);
        let known = match (caller.key_id(), caller.tenant()) {
            (Some(id), Some(tenant)) => self.known_key(id).is_ok() && !tenant.is_suspended(),
            (Some(_), None) => false,
            (None, Some(tenant)) => self.is_live_tenant(tenant.id()).unwrap_or(false),
            (None, None) => true,
        };
        known && !expired
    }

    /// The tenants of which a credential was used since the start of the node, with their meters; in no order.
    #[must_use]
    pub fn used_tenants(&self) -> Vec<TenantRef> {
        self.0.tenants.all()
    }

    /// A number that grows whenever a key or a tenant ends or is suspended: live connections then ask [`Auth::is_live`].
    #[must_use]
    pub fn revoked(&self) -> watch::Receiver<u64> {
        self.0.revoked.subscribe()
    }

    /// A one-time ticket with the rights of `caller`.
    ///
    /// # Errors
    /// `Forbidden` for the root key outside a tenant.
    pub fn create_ticket(&self, caller: &Caller) -> Result<Ticket, Denied> {
        caller.inside()?;
        Ok(self.0.tickets.issue(caller, &self.0.reconnect.tag(caller), self.0.log.now()))
    }

    /// Waits for the changes under way; before the log is closed. Cancel safe.
    pub async fn close(&self) {
        self.0.changes.finish().await;
    }

    fn redeem(&self, ticket: &str) -> Result<Caller, Denied> {
        let caller = self.0.tickets.redeem(ticket, self.0.log.now());
        caller.filter(|caller| self.is_live(caller)).ok_or_else(|| {
            Denied::Unauthenticated("the ticket is not valid: it is good once and for 30 seconds".into())
        })
    }

    fn api_key(&self, key: &str) -> Result<Caller, Denied> {
        let invalid = || Denied::Unauthenticated("the API key is not valid".into());
        let id = secret::api_key_id(key)
            .ok_or_else(|| Denied::Unauthenticated("the API key is mistyped: it does not have its checksum".into()))?;
        let known = self.known_key(id).map_err(|miss| match miss {
            Miss::Absent => invalid(),
            Miss::Failed(error) => Denied::Unavailable(format!("the credential cannot be checked now: {error}")),
        })?;
        if !secret::verify(key, &known.sha256) {
            return Err(invalid());
        }
        if known.caller.expires_at().is_some_and(|end| self.0.log.now() >= end) {
            return Err(Denied::Unauthenticated("the API key has expired".into()));
        }
        Ok(known.caller.clone())
    }

    fn root_inside(&self, name: &str) -> Result<Caller, Denied> {
        match self.tenant_named(name) {
            Ok(Some(tenant)) => Ok(Caller::root(Some(tenant))),
            Ok(None) => Err(Denied::NotFound(format!("there is no tenant {name:?}"))),
            Err(error) => Err(Denied::Unavailable(format!("the tenant cannot be looked up now: {error}"))),
        }
    }

    /// The key as it is stored. A key that is removed while it is being read is not kept: the cache refuses the entry.
    fn known_key(&self, id: &str) -> Result<Arc<KnownKey>, Miss> {
        self.0.keys.get_or_insert_with(id, || self.load_key(id).map(Arc::new))
    }

    fn load_key(&self, id: &str) -> Result<KnownKey, Miss> {
        let doc: ApiKeyDoc = self.load(&documents::api_key(id))?;
        let tenant = self.0.tenants.get(TenantId(doc.tenant)).map_err(Miss::Failed)?.ok_or(Miss::Absent)?;
        // A scope that this build cannot read allows nothing.
        let scopes = doc.scopes.iter().filter_map(|text| scope::Scope::parse(text).ok()).collect();
        let caller = Caller::key(id, tenant, scopes, doc.expires_at.map(plinth_storage::ids::Timestamp));
        Ok(KnownKey { caller, sha256: doc.sha256 })
    }

    fn load<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<T, Miss> {
        documents::load(&self.0.log, key).map_err(Miss::Failed)?.ok_or(Miss::Absent)
    }

    fn is_live_tenant(&self, id: TenantId) -> Result<bool, Error> {
        Ok(self.0.log.get(&documents::tenant(id))?.is_some())
    }

    /// The tenant's document, unless its deletion has begun.
    fn live_tenant(&self, name: &str) -> Result<Option<TenantDoc>, Error> {
        let Some(doc) = documents::load::<TenantDoc>(&self.0.log, &documents::tenant_name(name))? else {
            return Ok(None);
        };
        Ok(self.is_live_tenant(doc.id())?.then_some(doc))
    }

    fn tenant_named(&self, name: &str) -> Result<Option<TenantRef>, Error> {
        match self.live_tenant(name)? {
            Some(doc) => self.0.tenants.get(doc.id()),
            None => Ok(None),
        }
    }

    /// Makes every live connection ask again whether its credential holds.
    fn announce_revocation(&self) {
        self.0.revoked.send_modify(|version| *version += 1);
    }
}

#[cfg(test)]
mod tests;
