//! From credentials to a [`Caller`], and from a caller to the proofs that the broker takes.
//!
//! Default deny. API keys live in the log as hashes; the ones in use are held in a bounded cache, from which a deletion
//! removes them before it is answered. Knows nothing of HTTP.

mod account;
mod caller;
mod ended;
mod explain;
mod glob;
mod jwt;
mod key;
mod known;
mod meters;
mod name;
mod origins;
mod pattern;
mod purge;
mod reconnect;
mod registry;
mod revoked;
mod scope;
mod secret;
mod settle;
mod start;
mod system;
mod tenant;
mod ticket;
mod uses;

use std::sync::Arc;

use plinth_storage::Log;
use plinth_storage::ids::TenantId;
use quick_cache::sync::Cache;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::account::Account;
pub use self::caller::{Admin, Caller, Denied, Operator, TopicPattern, TopicRef};
pub use self::explain::{CredentialKind, Identity, Verdict};
pub(crate) use self::glob::Glob;
pub use self::jwt::{Fault, IssuerRequest, IssuerView, MintedToken, RevocationView, Revoked, TokenFault, TokenRequest};
use self::jwt::{Halt, Jwt};
pub(crate) use self::jwt::{Jwk, claim_deletions};
pub use self::key::{KeyChange, KeyRequest, KeyView, NewKey};
use self::known::KnownKey;
use self::meters::KeyMeters;
pub use self::origins::Allowed;
pub use self::reconnect::Reconnect;
use self::reconnect::ReconnectKey;
use self::registry::Registry;
pub use self::registry::{TenantRef, TenantSettings};
pub use self::revoked::Revocations;
pub use self::scope::Action;
use self::secret::SecretHash;
pub(crate) use self::secret::{WAKE_PREFIX, random_bytes};
pub use self::start::{FirstStart, RootKeys};
pub use self::system::{Claim, SYSTEM_TENANT, SystemTopic, SystemWriter};
pub use self::tenant::{TenantChange, TenantView};
pub use self::ticket::Ticket;
use self::ticket::Tickets;
use self::uses::Uses;
use crate::broker::Error;
use crate::broker::changes::Changes;
use crate::broker::cursor::CursorKey;
use crate::broker::documents::{self, TenantDoc};

/// API keys held in memory.
const KEYS_MAX: usize = 10_000;

/// What a client presents.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// An API key, a token or the root key.
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
    /// Accepted as well, while the operator replaces it.
    previous_root: Option<SecretHash>,
    reconnect: ReconnectKey,
    /// What was given under the root key from before.
    previous_reconnect: Option<ReconnectKey>,
    keys: Cache<String, Arc<KnownKey>>,
    tickets: Tickets,
    tenants: Registry,
    jwt: Jwt,
    uses: Uses,
    key_meters: KeyMeters,
    /// A tenant was deleted.
    deleted: Notify,
    changes: Changes,
    /// Cancelled when the node ends.
    closing: CancellationToken,
}

enum Miss {
    Absent,
    Failed(Error),
}

impl Auth {
    /// Checks the credential, once the keys of its issuer are there; `tenant` is what the client wrote into `Plinth-Tenant`,
    /// which only the root key may. Cancel safe.
    ///
    /// # Errors
    /// `Unauthenticated`; `Suspended` for a credential of a suspended tenant; `Forbidden` for `tenant` with another
    /// credential than the root key; `NotFound` when there is no such tenant.
    pub async fn admit(&self, credential: Credential<'_>, tenant: Option<&str>) -> Result<Caller, Denied> {
        match self.check(credential, tenant) {
            Ok(caller) => Ok(caller),
            Err(Halt::Denied(denied)) => Err(denied),
            Err(Halt::Fetch(issuer)) => {
                let auth = self.clone();
                // On a task of its own, so that a client who hangs up does not stop it; and in a box, which is rarely there.
                let fetched = self.0.changes.run(async move {
                    auth.fetch_keys(issuer).await;
                    Ok(())
                });
                Box::pin(fetched).await.map_err(|error| Denied::Unavailable(error.to_string()))?;
                self.authenticate(credential, tenant)
            }
        }
    }

    /// The same without waiting: a token whose issuer's keys must be fetched first is refused.
    ///
    /// # Errors
    /// As [`Auth::admit`].
    pub fn authenticate(&self, credential: Credential<'_>, tenant: Option<&str>) -> Result<Caller, Denied> {
        self.check(credential, tenant).map_err(|halt| match halt {
            Halt::Denied(denied) => denied,
            Halt::Fetch(_) => TokenFault::unfetched().into(),
        })
    }

    fn check(&self, credential: Credential<'_>, tenant: Option<&str>) -> Result<Caller, Halt> {
        let caller = match credential {
            Credential::Ticket(ticket) => self.redeem(ticket)?,
            Credential::Reconnect { ticket, token } => self.reconnect(ticket, token)?,
            Credential::Bearer(key) if secret::is_api_key(key) => self.api_key(key)?,
            Credential::Bearer(token) => {
                let hash = secret::hash(token);
                match (self.is_root(&hash), tenant) {
                    (true, Some(name)) => return Ok(self.root_inside(name)?),
                    (true, None) => return Ok(Caller::root(None)),
                    (false, _) => self.token(token, &hash)?,
                }
            }
        };
        caller.check_suspended()?;
        match tenant {
            Some(_) => Err(Denied::Forbidden("the header plinth-tenant is for the root key only".into()).into()),
            None => Ok(caller),
        }
    }

    /// Whether the credential still holds: neither deleted, nor expired, nor of a deleted or suspended tenant. The root key
    /// goes on inside a suspended tenant.
    #[must_use]
    pub fn is_live(&self, caller: &Caller) -> bool {
        let expired = caller.expires_at().is_some_and(|end| self.0.log.now() >= end);
        let live_tenant = |tenant: &TenantRef| self.0.tenants.get(tenant.id()).is_ok_and(|live| live.is_some());
        let known = match (caller.key_ref(), caller.bearer(), caller.tenant()) {
            (Some(key), _, Some(tenant)) => !tenant.is_suspended() && self.is_live_key(caller, key),
            (None, Some(token), Some(tenant)) => {
                !tenant.is_suspended() && live_tenant(tenant) && self.holds(tenant, token)
            }
            (Some(_), _, None) | (None, Some(_), None) => false,
            (None, None, Some(tenant)) => live_tenant(tenant),
            (None, None, None) => true,
        };
        known && !expired
    }

    /// The tenants of which a credential was used since the start of the node, with their meters; in no order.
    #[must_use]
    pub fn used_tenants(&self) -> Vec<TenantRef> {
        self.0.tenants.all()
    }

    /// A one-time ticket with the rights of `caller`.
    ///
    /// # Errors
    /// `Forbidden` for the root key outside a tenant.
    pub fn create_ticket(&self, caller: &Caller) -> Result<Ticket, Denied> {
        caller.inside()?;
        Ok(self.0.tickets.issue(caller, &self.0.reconnect.tag(caller), self.0.log.now()))
    }

    /// Whether some tenant allows pages of `origin`: what a browser asks before it is known whose credential it will send.
    #[must_use]
    pub fn some_tenant_allows(&self, origin: &str) -> Option<Allowed> {
        self.0.tenants.some_allows(origin)
    }

    /// Keys for `purpose`, made of the cluster's and the root key: that of the root key first, then that of the one from
    /// before while that is accepted.
    pub(crate) fn derived(&self, cursors: &CursorKey, purpose: &'static str) -> Vec<[u8; 32]> {
        let roots = [&self.0.root].into_iter().chain(&self.0.previous_root);
        roots.map(|root| cursors.derive(purpose, root)).collect()
    }

    /// Stores what waits to be, and waits for the changes under way; before the log is closed. Cancel safe.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.store_noted_uses().await;
        self.0.changes.finish().await;
    }

    fn redeem(&self, ticket: &str) -> Result<Caller, Denied> {
        let invalid = || Denied::Unauthenticated("the ticket is not valid: it is good once and for 30 seconds".into());
        let caller = self.0.tickets.redeem(ticket, self.0.log.now()).ok_or_else(invalid)?;
        caller.check_suspended()?;
        if self.is_live(&caller) { Ok(caller) } else { Err(invalid()) }
    }

    /// Whether it is the hash of the root key, or of the one before while that is accepted.
    fn is_root(&self, hash: &SecretHash) -> bool {
        let previous = self.0.previous_root.iter();
        previous.chain([&self.0.root]).any(|root| secret::is_same(hash, root))
    }

    fn root_inside(&self, name: &str) -> Result<Caller, Denied> {
        let tenant = if name == SYSTEM_TENANT { self.system_tenant().map(Some) } else { self.tenant_named(name) };
        match tenant {
            Ok(Some(tenant)) => Ok(Caller::root(Some(tenant))),
            Ok(None) => Err(Denied::NotFound(format!("there is no tenant {name:?}"))),
            Err(error) => Err(Denied::Unavailable(format!("the tenant cannot be looked up now: {error}"))),
        }
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
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
