//! Tokens (JWT, RFC 7519) of issuers that a tenant trusts.
//!
//! A token leads to its issuer by its `iss` and `aud`, which together belong to one tenant; then its algorithm must be one
//! of the issuer's, its key one of the issuer's of that family, its signature good, and its claims within what is trusted.
//! Nothing is believed before that, and nothing in a token names a key or an address. Knows nothing of HTTP.

mod algorithm;
mod claims;
mod envelope;
mod fault;
mod issuer;
mod key;
mod known;
mod mint;
mod remote;
mod reseal;
mod revocation;
mod seal;
mod template;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use plinth_storage::ids::{TenantId, Timestamp};

use self::envelope::Envelope;
pub use self::fault::{Fault, TokenFault};
pub(crate) use self::issuer::claim_deletions;
pub use self::issuer::{IssuerRequest, IssuerView};
use self::key::VerifyingKey;
pub(crate) use self::key::{Fingerprint, Jwk};
pub(super) use self::known::Issuer;
pub(super) use self::known::Jwt;
use self::known::Keys;
pub(super) use self::mint::CALLERS;
pub use self::mint::{MintedToken, TokenRequest};
use self::remote::Look;
pub(super) use self::reseal::reseal;
pub use self::revocation::{RevocationView, Revoked};
use super::caller::{Caller, Denied, Source, Token};
use super::secret::SecretHash;
use super::{Auth, Miss, TenantRef};
use crate::broker::Error;
use crate::broker::documents::{self, IssuerClaimDoc};

impl Auth {
    /// The caller of a token; `hash` is the one of its text.
    pub(super) fn token(&self, token: &str, hash: &SecretHash) -> Result<Caller, Halt> {
        let checked = self.check_token(token, hash);
        if let Err(Halt::Denied(Denied::Token(fault))) = &checked {
            tracing::debug!(fault = ?fault.fault, why = fault.inner(), "a token is refused");
        }
        checked
    }

    fn check_token(&self, token: &str, hash: &SecretHash) -> Result<Caller, Halt> {
        let known = self.0.jwt.verified(hash, self.0.log.now());
        if let Some(caller) = known.filter(|caller| !self.keys_are_due(caller) && self.is_live(caller)) {
            return Ok(caller);
        }
        let (envelope, now) = (Envelope::open(token)?, self.0.log.now());
        let caller = if envelope.claims.text("iss")?.starts_with(mint::ISSUER_PREFIX) {
            self.minted(&envelope, now)?
        } else {
            self.issued(&envelope, now)?
        };
        self.check_revoked(&caller)?;
        self.0.jwt.remember(*hash, caller.clone(), now);
        Ok(caller)
    }

    /// The caller of a token of a trusted issuer.
    fn issued(&self, envelope: &Envelope<'_>, now: Timestamp) -> Result<Caller, Halt> {
        let (tenant, issuer) = self.issuer_of(envelope)?;
        if !issuer.terms.algorithms.contains(&envelope.algorithm) {
            let detail = format!("its issuer's tokens do not have the algorithm {}", envelope.algorithm);
            return Err(TokenFault::new(Fault::Algorithm, detail).into());
        }
        let (id, algorithm) = (envelope.key_id.as_deref(), envelope.algorithm);
        let key = match &issuer.keys {
            Keys::Fixed(keys) => Arc::clone(keys.find(id, algorithm)?),
            Keys::Remote(remote) => match remote.look(id, algorithm, now) {
                Look::Found(key) => key,
                Look::Fault(fault) => return Err(fault.into()),
                Look::Fetch => return Err(Halt::Fetch(issuer)),
            },
        };
        verify(envelope, &key)?;
        let bearer = issuer.terms.check(&envelope.claims, now)?;
        let token = Token {
            subject: bearer.subject,
            token_id: bearer.token_id,
            issued_at: bearer.issued_at,
            leeway_ms: issuer.terms.leeway_ms,
            checked: AtomicU64::new(0),
            source: Source::Issuer { name: issuer.name.clone(), terms: issuer.terms_id, key: key.fingerprint() },
        };
        Ok(Caller::token(token, tenant.into(), bearer.scopes, bearer.expires_at))
    }

    fn check_revoked(&self, caller: &Caller) -> Result<(), Denied> {
        let (Some(tenant), Some(token)) = (caller.tenant(), caller.bearer()) else { return Ok(()) };
        if self.is_revoked(tenant, token).map_err(|error| unavailable(&error))? {
            return Err(TokenFault::new(
                Fault::Revoked,
                "the token was revoked, or all tokens of its subject that were issued before a time",
            )
            .into());
        }
        Ok(())
    }

    /// Fetches the keys of an issuer, unless somebody has just tried.
    pub(super) async fn fetch_keys(self, issuer: Arc<Issuer>) {
        if let Keys::Remote(remote) = &issuer.keys {
            remote.refresh(&self.0.jwt.egress, &self.0.log).await;
        }
    }

    /// Whether the keys of the caller's issuer are to be fetched before a remembered token of it counts.
    fn keys_are_due(&self, caller: &Caller) -> bool {
        match (caller.tenant(), caller.bearer().map(|token| &token.source)) {
            (Some(tenant), Some(Source::Issuer { name, .. })) => {
                self.issuer(tenant.id(), name).is_ok_and(|issuer| issuer.keys.are_due(self.0.log.now()))
            }
            (Some(_) | None, Some(Source::Issuer { .. } | Source::Minted { .. }) | None) => false,
        }
    }

    /// Whether what a token was verified against still holds.
    pub(super) fn holds(&self, tenant: &TenantRef, token: &Token) -> bool {
        let trusted = match &token.source {
            Source::Issuer { name, terms, key } => {
                let (issuer, now) = (self.issuer(tenant.id(), name), self.0.log.now());
                issuer.is_ok_and(|issuer| {
                    if issuer.keys.are_due(now) {
                        // For what is open already: it goes on with the old keys meanwhile.
                        self.0.changes.start(self.clone().fetch_keys(Arc::clone(&issuer)));
                    }
                    issuer.terms_id == *terms && issuer.keys.has(key, now)
                })
            }
            Source::Minted { key } => key.as_ref().is_none_or(|key| self.account_of(key).is_ok()),
        };
        trusted && self.is_revoked(tenant, token).is_ok_and(|revoked| !revoked)
    }

    /// The issuer that a token is of, if it says the truth; and its tenant.
    fn issuer_of(&self, envelope: &Envelope<'_>) -> Result<(TenantRef, Arc<Issuer>), Denied> {
        let iss = envelope.claims.text("iss")?;
        let mut found: Option<IssuerClaimDoc> = None;
        for audience in claims::audiences(&envelope.claims)? {
            let claim = documents::issuer_claim(iss, audience);
            let Some(doc) =
                documents::load::<IssuerClaimDoc>(&self.0.log, &claim).map_err(|error| unavailable(&error))?
            else {
                continue;
            };
            if found.as_ref().is_some_and(|other| (other.tenant, &other.name) != (doc.tenant, &doc.name)) {
                let detail = "its audiences are of more than one trusted issuer, and none of them is the one meant";
                return Err(TokenFault::new(Fault::Audience, detail).into());
            }
            found = Some(doc);
        }
        let nobody = || TokenFault::new(Fault::Audience, "no issuer is trusted with this `iss` and `aud`");
        let claim = found.ok_or_else(nobody)?;
        let id = TenantId(claim.tenant);
        let tenant = self.0.tenants.get(id).map_err(|error| unavailable(&error))?.ok_or_else(nobody)?;
        match self.issuer(id, &claim.name) {
            Ok(issuer) => Ok((tenant, issuer)),
            Err(Miss::Absent) => Err(nobody().into()),
            Err(Miss::Failed(error)) => Err(unavailable(&error)),
        }
    }

    fn issuer(&self, tenant: TenantId, name: &str) -> Result<Arc<Issuer>, Miss> {
        let load = || documents::load(&self.0.log, &documents::issuer(tenant, name));
        self.0.jwt.issuer(tenant, name, load)
    }
}

/// Why a check does not end with a caller.
pub(super) enum Halt {
    /// The credential is refused.
    Denied(Denied),
    /// The keys of the issuer must be fetched first.
    Fetch(Arc<Issuer>),
}

impl From<Denied> for Halt {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<TokenFault> for Halt {
    fn from(fault: TokenFault) -> Self {
        Self::Denied(fault.into())
    }
}

fn verify(envelope: &Envelope<'_>, key: &VerifyingKey) -> Result<(), TokenFault> {
    if key.verifies(envelope.algorithm, envelope.signed, &envelope.signature) {
        return Ok(());
    }
    Err(TokenFault::new(Fault::Signature, "the signature is not one of the issuer's key"))
}

fn unavailable(error: &Error) -> Denied {
    Denied::Unavailable(format!("the credential cannot be checked now: {error}"))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
