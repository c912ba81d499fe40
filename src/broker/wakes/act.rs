//! What workers and webhooks do with a wake: claim it, acknowledge in it, give it back.

use std::sync::Arc;

use plinth_api::limits::SUBSCRIPTION_TEXT_BYTES_MAX;

use super::fail::{WakeCode, WakeError};
use super::links::{self, Ack};
use super::store::Which;
use super::token::{TokenKind, WakeToken};
use super::turn::{self, WakeRef};
use super::view::LinkView;
use super::{Sub, Wakes};
use crate::auth::{Account, Action, Caller, Denied, TenantRef};

/// A wake that a worker has claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Which one.
    pub wake: WakeRef,
    /// The credential for what the worker does with it.
    pub token: String,
    /// All streams of the subscription.
    pub links: Vec<LinkView>,
    /// How long it is the worker's.
    pub lease_ttl_ms: u64,
}

/// What came of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Whether the next wake has begun.
    pub next_wake: bool,
}

/// Who holds the token of a wake.
#[derive(Clone, Debug)]
pub struct WakeBearer {
    account: Account,
    sub: Arc<str>,
    generation: u64,
}

impl WakeBearer {
    /// On whose account it is.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }
}

impl Wakes {
    /// Gives the wake of a subscription to a worker; begins one if there is something new and none is under way. Cancel safe: who
    /// stops waiting does not undo it.
    ///
    /// # Errors
    /// `NotFound`, `InvalidRequest` for a subscription of another kind, `AlreadyClaimed`, `NoPendingWork`; `Forbidden`; those of
    /// the log.
    pub async fn claim(&self, caller: &Caller, id: &str, worker: String) -> Result<Claimed, WakeError> {
        caller.authorize_some(Action::Subscribe)?;
        let bytes = worker.len();
        if !(1..=SUBSCRIPTION_TEXT_BYTES_MAX).contains(&bytes) {
            let limit = SUBSCRIPTION_TEXT_BYTES_MAX;
            return Err(WakeError::invalid(format!("worker of {bytes} bytes is not within 1 to {limit}")));
        }
        let sub = self.visible(caller, Action::Subscribe, id).await?;
        if sub.told_in.is_none() {
            return Err(WakeError::invalid(format!("subscription {id} wakes by webhook: it is not claimed")));
        }
        let wakes = self.clone();
        self.run_change(async move { wakes.claim_stored(&sub, &worker).await }).await
    }

    async fn claim_stored(&self, sub: &Arc<Sub>, worker: &str) -> Result<Claimed, WakeError> {
        let (wake, links, lease_ttl_ms) = self
            .change(sub, Which::All, |scene| {
                let pending = scene.pending();
                let wake = turn::claim(scene.doc, scene.moment, worker, pending.as_deref())?;
                Ok((wake, links::views(scene.links), scene.doc.lease_ttl_ms))
            })
            .await?;
        let token = self.token(sub, TokenKind::Claim, wake.generation);
        Ok(Claimed { wake, token, links, lease_ttl_ms })
    }

    /// Writes a token for one wake.
    pub(super) fn token(&self, sub: &Sub, kind: TokenKind, generation: u64) -> String {
        let (tenant, id) = (sub.key.0, sub.key.1.to_string());
        self.0.tokens.write(&WakeToken { kind, tenant, generation, id }, self.0.broker.log().now())
    }

    /// Whose a token is, if it is for this kind of call on this subscription, and of the tenant `at` if the address names one.
    ///
    /// # Errors
    /// `TokenInvalid`, `TokenExpired`; `Suspended`.
    pub fn bearer(&self, kind: TokenKind, text: &str, id: &str, at: Option<&str>) -> Result<WakeBearer, WakeError> {
        let token = self.0.tokens.read(text, self.0.broker.log().now())?;
        let invalid = || WakeError::new(WakeCode::TokenInvalid, "the token is not one that was given for this");
        if token.kind != kind || token.id != id {
            return Err(invalid());
        }
        let tenant: TenantRef = self.0.auth.tenant_by_id(token.tenant).ok_or_else(invalid)?;
        if at.is_some_and(|at| at != tenant.name()) {
            return Err(invalid());
        }
        if tenant.is_suspended() {
            return Err(Denied::Suspended(format!("the tenant {} is suspended", tenant.name())).into());
        }
        Ok(WakeBearer { account: tenant.into(), sub: token.id.into(), generation: token.generation })
    }

    /// Takes acknowledgements over, all or none; ends the wake when it is `done`, else its lease begins anew. Cancel safe as
    /// [`Wakes::claim`].
    ///
    /// # Errors
    /// `NotFound` for a subscription that was deleted, `Fenced`, `InvalidOffset`; those of the log.
    pub async fn acknowledge(
        &self,
        bearer: &WakeBearer,
        wake: WakeRef,
        acks: Vec<Ack>,
        done: bool,
    ) -> Result<Acked, WakeError> {
        let (wakes, sub, generation) = (self.clone(), self.sub_of(bearer)?, bearer.generation);
        let acked = async move {
            // A sign of life alone needs no look at what there is.
            let which = if acks.is_empty() && !done { Which::None } else { Which::All };
            wakes
                .change(&sub, which, |scene| {
                    turn::check(scene.doc, scene.moment.now, generation, &wake)?;
                    let acked = links::apply(scene.links, &acks)?;
                    let has_acked = !acked.is_empty();
                    scene.changed.extend(acked);
                    if !done {
                        turn::extend(scene.doc, scene.moment.now, has_acked);
                        return Ok(Acked { next_wake: false });
                    }
                    let pending = scene.pending();
                    let next_wake = turn::finish(scene.doc, scene.moment, has_acked, pending.as_deref());
                    Ok(Acked { next_wake })
                })
                .await
        };
        self.run_change(acked).await
    }

    /// Ends a wake without an acknowledgement. Cancel safe as [`Wakes::claim`].
    ///
    /// # Errors
    /// As [`Wakes::acknowledge`].
    pub async fn release(&self, bearer: &WakeBearer, wake: WakeRef) -> Result<(), WakeError> {
        self.acknowledge(bearer, wake, Vec::new(), true).await.map(drop)
    }

    fn sub_of(&self, bearer: &WakeBearer) -> Result<Arc<Sub>, WakeError> {
        let sub = self.sub(bearer.account.tenant().id(), &bearer.sub)?;
        sub.ok_or_else(|| WakeError::absent(&bearer.sub))
    }
}
