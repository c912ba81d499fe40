//! The topics that the server writes about a tenant, who may read them, and the proof of who writes them.
//!
//! An administrator of the tenant reads them, by their names; no pattern shows them and nobody writes, changes or deletes
//! them. The tenant `_system` has what belongs to no other tenant; it has no keys, and only the root key reads there.

use plinth_storage::ids::TenantId;

use super::caller::{Operator, TopicRef};
use super::registry::TenantRef;
use super::scope::Action;
use super::{Auth, Credential, secret};
use crate::broker::Error;
use crate::broker::documents::{self, TenantDoc};

/// The tenant whose `_audit` has the operator's own calls. No tenant that is made can have this name.
pub const SYSTEM_TENANT: &str = "_system";

/// A topic that the server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SystemTopic {
    /// What the tenant used, by minutes.
    Usage,
    /// Who changed what.
    Audit,
    /// What happened.
    Events,
}

/// Whose a credential that was refused would have been.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The tenant.
    pub tenant: TenantRef,
    /// What it calls itself, as [`super::Caller::id`].
    pub credential: String,
}

impl Auth {
    /// The proof for the one writer of system topics.
    #[must_use]
    pub fn system_writer(&self) -> SystemWriter {
        SystemWriter(())
    }

    /// The tenant of what belongs to no other.
    ///
    /// # Errors
    /// Those of the log.
    pub fn system_tenant(&self) -> Result<TenantRef, Error> {
        let doc = documents::load::<TenantDoc>(&self.0.log, documents::SYSTEM_TENANT)?;
        let known = doc.map_or(Ok(None), |doc| self.0.tenants.get(doc.id()))?;
        known.ok_or_else(|| Error::defect("the system tenant is not there"))
    }

    /// The tenant that is named, if there is one.
    #[must_use]
    pub fn tenant_of(&self, _operator: &Operator, name: &str) -> Option<TenantRef> {
        self.tenant_named(name).ok().flatten()
    }

    /// The tenant of this id, if it is there and is not being deleted.
    pub(crate) fn tenant_by_id(&self, id: TenantId) -> Option<TenantRef> {
        self.0.tenants.get(id).ok().flatten()
    }

    /// Whose a credential would be that was refused, as far as that is known. Proves nothing.
    #[must_use]
    pub fn claim(&self, credential: Credential<'_>) -> Option<Claim> {
        let Credential::Bearer(key) = credential else { return None };
        let id = secret::api_key_id(key)?;
        let known = self.known_key(id).ok()?;
        let caller = known.caller();
        Some(Claim { tenant: caller.tenant()?.clone(), credential: caller.id().to_owned() })
    }

    /// Whether a text may be a secret that somebody put in the wrong place.
    #[must_use]
    pub fn looks_secret(&self, text: &str) -> bool {
        secret::has_prefix(text) || secret::verify(text, &self.0.root)
    }
}

impl SystemTopic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Usage, Self::Audit, Self::Events];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "_usage",
            Self::Audit => "_audit",
            Self::Events => "_events",
        }
    }

    /// Whether this is about one, and no more than reading it.
    pub(super) fn may_be_read(action: Action, name: &str) -> bool {
        matches!(action, Action::Subscribe | Action::View) && Self::named(name).is_some()
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if !name.starts_with('_') {
            return None;
        }
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

/// The proof of the server's own writer of system topics; a node has one.
#[derive(Debug)]
pub struct SystemWriter(());

impl SystemWriter {
    /// One of the tenant's system topics, to be written; made if it is not there.
    #[must_use]
    pub fn topic(&self, tenant: &TenantRef, topic: SystemTopic) -> TopicRef {
        TopicRef::written_by_server(tenant.clone(), topic)
    }
}
