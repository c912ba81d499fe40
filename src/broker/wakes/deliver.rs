//! How a wake is told: by a signed request to the webhook, or by an event in a stream.
//!
//! A webhook is called at least once: after a crash again, as the same wake. What it answers counts only for the wake that it was
//! called for, if that is still to be delivered. The event is stored once, whatever happens in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plinth_api::wakes::{WakeEvent, WebhookAnswer, WebhookCall};
use plinth_storage::Kind;
use plinth_storage::ids::Timestamp;
use plinth_storage::record::{Batch, NewRecord};
use plinth_storage::terms::{IdempotencyKey, Once, Terms};
use tokio::time::Instant;

use super::fail::{WakeCode, WakeError};
use super::links::{self, Link};
use super::moved::Names;
use super::store::Which;
use super::token::TokenKind;
use super::turn::{self, Due, WakeRef};
use super::{Sub, Wakes};
use crate::auth::TenantRef;
use crate::broker::documents::{self, WakeBy, WakeDoc};
use crate::broker::error::Error;
use crate::broker::quotas::Meters;
use crate::broker::streams::Token;
use crate::egress::Post;
use crate::telemetry::webhooks::CallOutcome;

/// The header with the signature.
const SIGNATURE: &str = "webhook-signature";
/// Longest time that a webhook may take, if its lease is not shorter.
const ANSWER_MS_MAX: u64 = 30_000;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// While a tenant is suspended, its wakes wait so long before they are looked at again.
const SUSPENDED_MS: u64 = 10_000;

impl Wakes {
    /// Does what is due about a subscription now.
    ///
    /// # Errors
    /// Those of the log: what was to be done is still.
    pub(super) async fn advance(&self, sub: &Arc<Sub>) -> Result<(), Error> {
        let Some((doc, _)) = self.load(&sub.key)? else {
            self.forget(&sub.key);
            return Ok(());
        };
        let now = self.0.broker.log().now();
        match turn::due(&doc) {
            None => Ok(()),
            Some(Due::Tell) if self.is_told(sub, &doc) => Ok(()),
            Some(Due::Deliver(at) | Due::Lease(at)) if at > now.0 => {
                self.push(sub, at, Names::default());
                Ok(())
            }
            Some(Due::Lease(_)) => self.end_lease(sub).await,
            Some(due @ (Due::Tell | Due::Deliver(_))) => match self.0.auth.tenant_by_id(sub.key.0) {
                None => {
                    self.forget(&sub.key);
                    Ok(())
                }
                Some(tenant) if tenant.is_suspended() => {
                    self.push(sub, now.0 + SUSPENDED_MS, Names::default());
                    Ok(())
                }
                Some(tenant) if due == Due::Tell => self.tell(sub, &doc, &tenant).await,
                Some(_) => self.deliver(sub).await,
            },
        }
    }

    async fn end_lease(&self, sub: &Arc<Sub>) -> Result<(), Error> {
        let ended = self.change(sub, Which::All, |scene| {
            if turn::is_over(scene.doc, scene.moment.now) {
                let pending = scene.pending();
                turn::finish(scene.doc, scene.moment, false, pending.as_deref());
            }
            Ok(())
        });
        below(ended.await)
    }

    /// Calls the webhook for the wake that is to be delivered, if there is one still when there is a place for the call.
    async fn deliver(&self, sub: &Arc<Sub>) -> Result<(), Error> {
        let _slot = self.0.slots.enter(sub.key.0).await;
        let Some((doc, _)) = self.load(&sub.key)? else { return Ok(()) };
        let (Some(Due::Deliver(_)), Some(under_way), WakeBy::Webhook { url }) = (turn::due(&doc), &doc.wake, &doc.by)
        else {
            self.plan(sub, &doc);
            return Ok(());
        };
        let wake = WakeRef { wake_id: under_way.id.clone(), generation: doc.generation };
        let links = self.all_links(&sub.key).await?;
        let sent = self.0.broker.log().now();
        let began = Instant::now();
        let outcome = self.call(sub, url, &doc, (&wake, &links)).await;
        self.0.metrics.called(outcome, turn::has_failed(&doc), began.elapsed());
        let told = links.into_iter().filter_map(|link| Some((link.stream, link.tail?.token))).collect();
        below(self.delivered(sub, (&wake, sent), &told, outcome).await)
    }

    async fn call(&self, sub: &Sub, url: &str, doc: &WakeDoc, (wake, links): (&WakeRef, &[Link])) -> CallOutcome {
        let call = WebhookCall {
            subscription_id: sub.key.1.to_string(),
            wake_id: wake.wake_id.clone(),
            generation: wake.generation,
            streams: links::views(links).into_iter().map(Into::into).collect(),
            callback_url: format!("{}/__ds/subscriptions/{}/callback", doc.root, sub.key.1),
            callback_token: self.token(sub, TokenKind::Callback, wake.generation),
        };
        let body = documents::encode(&call);
        let signature = self.0.signers.sign(&body, self.0.broker.log().now());
        let post = Post {
            url,
            media_type: "application/json",
            header: (SIGNATURE, signature),
            body,
            bytes_max: ANSWER_BYTES_MAX,
            within: Duration::from_millis(doc.lease_ttl_ms.min(ANSWER_MS_MAX)),
        };
        let outcome = match self.0.egress.post(post).await {
            Ok(answer) => {
                let answer = serde_json::from_slice::<WebhookAnswer>(&answer).unwrap_or_default();
                if answer.done { CallOutcome::Done } else { CallOutcome::Accepted }
            }
            Err(error) => error.into(),
        };
        let (tenant, id) = (sub.key.0.0, &*sub.key.1);
        tracing::debug!(%tenant, id, generation = wake.generation, outcome = outcome.as_str(), "a webhook was called");
        outcome
    }

    /// Takes over what came of a call.
    async fn delivered(
        &self,
        sub: &Arc<Sub>,
        (wake, sent): (&WakeRef, Timestamp),
        told: &HashMap<Arc<str>, Token>,
        outcome: CallOutcome,
    ) -> Result<(), WakeError> {
        let which = if outcome == CallOutcome::Done { Which::All } else { Which::None };
        self.change(sub, which, |scene| {
            match outcome {
                CallOutcome::Accepted => drop(turn::accept(scene.doc, sent, wake)),
                CallOutcome::Refused | CallOutcome::TimedOut | CallOutcome::Failed | CallOutcome::Address => {
                    turn::fail(scene.doc, scene.moment, wake);
                }
                CallOutcome::Done if !turn::is_current(scene.doc, wake) => {}
                CallOutcome::Done => {
                    let mut has_acked = false;
                    for (place, link) in scene.links.iter_mut().enumerate() {
                        if link.ack_all(told.get(&link.stream).copied()) {
                            scene.changed.push(place);
                            has_acked = true;
                        }
                    }
                    let pending = scene.pending();
                    turn::finish(scene.doc, scene.moment, has_acked, pending.as_deref());
                }
            }
            Ok(())
        })
        .await
    }

    /// Whether the event of the wake is in its stream.
    pub(super) fn is_told(&self, sub: &Sub, doc: &WakeDoc) -> bool {
        sub.told.load(Ordering::Relaxed) == doc.generation
    }

    /// Appends the event of a wake to its stream, if that is there and takes it; else it is tried again, for it may come.
    async fn tell(&self, sub: &Arc<Sub>, doc: &WakeDoc, tenant: &TenantRef) -> Result<(), Error> {
        let (Some(under_way), Some(stream)) = (&doc.wake, &sub.told_in) else { return Ok(()) };
        let event = WakeEvent {
            kind: "wake".to_owned(),
            subscription_id: sub.key.1.to_string(),
            stream: under_way.stream.clone(),
            generation: doc.generation,
            ts: under_way.began_at,
        };
        let tried = sub.tries.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        match self.append_event(tenant, stream, &event, &under_way.id).await {
            Ok(()) => {
                sub.tries.store(0, Ordering::Relaxed);
                sub.told.store(doc.generation, Ordering::Relaxed);
            }
            Err(error) => {
                let (tenant, id) = (sub.key.0.0, &*sub.key.1);
                tracing::debug!(%tenant, id, %error, "a wake is told later");
                let pause = turn::pause_ms(tried, self.moment().chance);
                self.push(sub, self.0.broker.log().now().0 + pause, Names::default());
            }
        }
        Ok(())
    }

    async fn append_event(
        &self,
        tenant: &TenantRef,
        stream: &Arc<str>,
        event: &WakeEvent,
        wake: &str,
    ) -> Result<(), Error> {
        let topic = self.catalog().stream_named(tenant.id(), stream)?;
        let topic = topic.ok_or_else(|| Error::NotFound(format!("there is no stream {stream}")))?;
        if !topic.media().is_json() {
            return Err(Error::Conflict(format!("stream {stream} is not of JSON")));
        }
        let payload = documents::encode(event);
        let bytes = payload.len() as u64;
        let record = NewRecord { content_type: topic.media().bytes().clone(), payload, ..NewRecord::default() };
        let hash = |text: &[&[u8]]| -> u128 {
            let hash = blake3::hash(&text.concat());
            u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
        };
        let key = IdempotencyKey {
            key: hash(&[b"wake ", wake.as_bytes()]),
            content: hash(&[wake.as_bytes()]),
            home: topic.partition(0),
        };
        let terms = Terms { once: Some(Once::Key(key)), ..Terms::default() };
        let meters = Meters { tenant: tenant.meter(), key: None };
        let charge = meters.take_publish(1, bytes)?;
        let batch = Batch::of([&record])?;
        let stored_bytes = batch.len() as u64;
        let stored = self.0.broker.log().append_if(topic.partition(0), batch, &terms, topic.durability).await;
        match &stored {
            Ok(stored) if stored.duplicate => charge.give_back(),
            Ok(_) => {
                meters.tenant.stored(stored_bytes);
                charge.settle(1, bytes);
                self.catalog().moved().note(tenant.id(), stream);
            }
            Err(error) if error.kind() == Kind::Unknown => drop(charge),
            Err(_) => charge.give_back(),
        }
        Ok(stored.map(drop)?)
    }
}

/// What a decision of the task fails by. A subscription that was removed needs no more.
pub(super) fn below(decided: Result<(), WakeError>) -> Result<(), Error> {
    match decided {
        Ok(()) | Err(WakeError::Refused { code: WakeCode::NotFound, .. }) => Ok(()),
        Err(WakeError::Broker(error)) => Err(error),
        Err(error @ (WakeError::Refused { .. } | WakeError::Denied(_))) => Err(Error::defect(error.to_string())),
    }
}
