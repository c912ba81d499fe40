//! What a wake may do next: it begins, is delivered, claimed, kept, and ends. Decisions alone, over a document and a moment.
//!
//! Each says what the document becomes; nothing of it holds before that is stored. A generation is one wake. There is at most one
//! under way, and whoever acts on it names its generation and its id: what is stale finds another one, or none.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use plinth_storage::ids::Timestamp;

use crate::broker::documents::{WakeBy, WakeDoc, WakePhase, WakeUnderWay};

/// The first pause after a webhook was called in vain; each next one is twice as long.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Pauses are longer or shorter by up to so many percent.
const JITTER_PERCENT: u64 = 20;
/// A webhook that ends a wake and has acknowledged nothing is woken again after this.
const IDLE_PAUSE_MS: u64 = 1_000;

/// When a decision is made, and what it takes from chance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Timestamp,
    /// Never given before.
    pub(super) chance: u128,
}

/// Which wake somebody means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeRef {
    /// Its id.
    pub wake_id: String,
    /// Its generation.
    pub generation: u64,
}

/// What is to be done next about a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its webhook is to be called at a time.
    Deliver(u64),
    /// The event of the wake is to be in the stream.
    Tell,
    /// Its lease ends at a time.
    Lease(u64),
}

/// Why a claim is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotClaimed {
    /// A worker has it.
    Held { holder: String, generation: u64 },
    /// There is nothing to do.
    Nothing,
}

/// A wake that is not the one under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fenced;

/// What is to be done next.
pub(super) fn due(doc: &WakeDoc) -> Option<Due> {
    match doc.wake.as_ref()?.phase {
        WakePhase::Deliver { at, .. } => Some(Due::Deliver(at)),
        WakePhase::Offered => Some(Due::Tell),
        WakePhase::Accepted { ends_at } | WakePhase::Claimed { ends_at, .. } => Some(Due::Lease(ends_at)),
    }
}

/// Whether a webhook was called in vain and will be called again.
pub(super) fn has_failed(doc: &WakeDoc) -> bool {
    doc.wake.as_ref().is_some_and(|wake| matches!(wake.phase, WakePhase::Deliver { failures: 1.., .. }))
}

/// Begins a wake for what is in the stream `pending`, unless one is under way. True when it does.
pub(super) fn begin(doc: &mut WakeDoc, moment: Moment, pending: Option<&str>) -> bool {
    begin_at(doc, moment, pending, moment.now.0)
}

fn begin_at(doc: &mut WakeDoc, moment: Moment, pending: Option<&str>, at: u64) -> bool {
    let Some(stream) = pending.filter(|_| doc.wake.is_none()) else { return false };
    doc.generation += 1;
    let phase = match doc.by {
        WakeBy::Webhook { .. } => WakePhase::Deliver { at, failures: 0 },
        WakeBy::Pull { .. } => WakePhase::Offered,
    };
    let id = format!("w_{:032x}", moment.chance);
    doc.wake = Some(WakeUnderWay { id, began_at: moment.now.0, stream: stream.to_owned(), acked: false, phase });
    true
}

/// Gives the wake to a worker; begins one if there is none.
///
/// # Errors
/// See [`NotClaimed`].
pub(super) fn claim(
    doc: &mut WakeDoc,
    moment: Moment,
    worker: &str,
    pending: Option<&str>,
) -> Result<WakeRef, NotClaimed> {
    if is_over(doc, moment.now) {
        doc.wake = None;
    }
    if let Some(WakeUnderWay { phase: WakePhase::Claimed { holder, .. }, .. }) = &doc.wake {
        return Err(NotClaimed::Held { holder: holder.clone(), generation: doc.generation });
    }
    if pending.is_none() {
        return Err(NotClaimed::Nothing);
    }
    begin(doc, moment, pending);
    let (ends_at, generation) = (lease_end(doc, moment.now), doc.generation);
    let wake = doc.wake.as_mut().expect("one that was under way, or has begun");
    wake.phase = WakePhase::Claimed { holder: worker.to_owned(), ends_at };
    Ok(WakeRef { wake_id: wake.id.clone(), generation })
}

/// Whether a token of the generation `token` and a request mean the wake under way, and somebody may act on it.
///
/// # Errors
/// When not.
pub(super) fn check(doc: &WakeDoc, now: Timestamp, token: u64, wake: &WakeRef) -> Result<(), Fenced> {
    let under_way = doc.wake.as_ref().filter(|under_way| under_way.id == wake.wake_id).ok_or(Fenced)?;
    let is_held = match under_way.phase {
        WakePhase::Deliver { .. } => true,
        WakePhase::Offered => false,
        WakePhase::Accepted { ends_at } | WakePhase::Claimed { ends_at, .. } => now.0 < ends_at,
    };
    if is_held && token == doc.generation && wake.generation == doc.generation { Ok(()) } else { Err(Fenced) }
}

/// Begins the lease of the wake anew. One whose webhook calls back was delivered, whatever became of its answer.
pub(super) fn extend(doc: &mut WakeDoc, now: Timestamp, acked: bool) {
    let end = lease_end(doc, now);
    let Some(wake) = &mut doc.wake else { return };
    wake.acked |= acked;
    match &mut wake.phase {
        WakePhase::Accepted { ends_at } | WakePhase::Claimed { ends_at, .. } => *ends_at = end,
        WakePhase::Deliver { .. } => wake.phase = WakePhase::Accepted { ends_at: end },
        WakePhase::Offered => {}
    }
}

/// Ends the wake, and begins the next one for what is in the stream `pending`. True when it does.
pub(super) fn finish(doc: &mut WakeDoc, moment: Moment, acked: bool, pending: Option<&str>) -> bool {
    let has_acked = acked || doc.wake.take().is_some_and(|wake| wake.acked);
    doc.wake = None;
    let pause = if has_acked { 0 } else { IDLE_PAUSE_MS };
    begin_at(doc, moment, pending, moment.now.0 + pause)
}

/// Whether the lease of the wake is over.
pub(super) fn is_over(doc: &WakeDoc, now: Timestamp) -> bool {
    matches!(due(doc), Some(Due::Lease(ends_at)) if ends_at <= now.0)
}

/// Whether the wake is the one under way.
pub(super) fn is_current(doc: &WakeDoc, wake: &WakeRef) -> bool {
    let id = doc.wake.as_ref().map(|under_way| &under_way.id);
    doc.generation == wake.generation && id == Some(&wake.wake_id)
}

/// The webhook has taken the wake that was sent to it at `sent`. False when that is not to be delivered any more.
pub(super) fn accept(doc: &mut WakeDoc, sent: Timestamp, wake: &WakeRef) -> bool {
    let ends_at = lease_end(doc, sent);
    deliver_to(doc, wake).map(|phase| *phase = WakePhase::Accepted { ends_at }).is_some()
}

/// The webhook was called in vain. False when the wake is not to be delivered any more.
pub(super) fn fail(doc: &mut WakeDoc, moment: Moment, wake: &WakeRef) -> bool {
    let Some(phase) = deliver_to(doc, wake) else { return false };
    let failures = match phase {
        WakePhase::Deliver { failures, .. } => failures.saturating_add(1),
        WakePhase::Accepted { .. } | WakePhase::Offered | WakePhase::Claimed { .. } => 1,
    };
    *phase = WakePhase::Deliver { at: moment.now.0 + pause_ms(failures, moment.chance), failures };
    true
}

fn deliver_to<'a>(doc: &'a mut WakeDoc, wake: &WakeRef) -> Option<&'a mut WakePhase> {
    let is_current = doc.generation == wake.generation;
    let under_way = doc.wake.as_mut().filter(|under_way| is_current && under_way.id == wake.wake_id)?;
    Some(&mut under_way.phase).filter(|phase| matches!(phase, WakePhase::Deliver { .. }))
}

/// How long to wait after so many failures.
pub(super) fn pause_ms(failures: u32, chance: u128) -> u64 {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(RETRY_MIN)
        .with_max_delay(RETRY_MAX)
        .with_factor(2.0)
        .without_max_times()
        .build();
    // The longest is reached long before.
    let nth = usize::try_from(failures.saturating_sub(1).min(16)).expect("a small number");
    let pause = pauses.into_iter().nth(nth).unwrap_or(RETRY_MAX).min(RETRY_MAX);
    let ms = u64::try_from(pause.as_millis()).expect("a minute");
    let spread = ms * JITTER_PERCENT / 100;
    let random = u64::try_from(chance & u128::from(u64::MAX)).expect("the upper half is masked away");
    ms - spread + random % (2 * spread + 1)
}

fn lease_end(doc: &WakeDoc, from: Timestamp) -> u64 {
    from.0.saturating_add(doc.lease_ttl_ms)
}

#[cfg(test)]
mod tests;
