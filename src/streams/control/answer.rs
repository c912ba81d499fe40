//! Bodies of requests about subscriptions, and what is answered: the same in the words of the API.

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat};
use plinth_api::error::{ErrorCode, Problem};
use plinth_api::limits::SUBSCRIPTION_BODY_BYTES_MAX;
use plinth_api::wakes::{
    self, Subscription, SubscriptionErrorCode, SubscriptionFailure, SubscriptionStatus, SubscriptionStream,
    SubscriptionType, Webhook, WebhookSigning,
};
use serde::de::DeserializeOwned;

use crate::auth::Account;
use crate::broker::{Claimed, WakeCode, WakeError, WakeView};
use crate::http::Front;
use crate::http::convert::no_content;
use crate::http::error::ApiError;
use crate::http::extract::{self, Bound};

/// Reads the body of a request.
///
/// # Errors
/// As any body; in the words of the protocol.
pub(super) async fn read<T: DeserializeOwned>(
    front: &Front,
    account: Option<&Account>,
    request: Request,
) -> Result<(Parts, T), ApiError> {
    let (parts, body) = request.into_parts();
    let expected = body.size_hint().lower().min(SUBSCRIPTION_BODY_BYTES_MAX as u64);
    let mut room = account.map(|account| front.broker.room(account, expected)).transpose()?;
    let bound = Bound { max: SUBSCRIPTION_BODY_BYTES_MAX, what: "the body", room: room.as_mut() };
    let read = extract::json_within(front, &parts.headers, body, bound).await;
    let asked = read.map_err(|error| in_words(&error, SubscriptionErrorCode::InvalidRequest))?;
    Ok((parts, asked))
}

/// A request that is refused for what it says.
pub(super) fn invalid(detail: &str) -> ApiError {
    in_words(&ApiError::invalid(detail), SubscriptionErrorCode::InvalidRequest)
}

/// The failure with the protocol's word for it, where it is the client's.
fn in_words(error: &ApiError, code: SubscriptionErrorCode) -> ApiError {
    let mut problem = error.problem().clone();
    if matches!(problem.status, 400 | 413 | 415) {
        let message = problem.detail.clone();
        problem.error = Some(Box::new(SubscriptionFailure { code, message, current_holder: None, generation: None }));
    }
    ApiError::of_problem(problem)
}

/// What the broker refuses.
pub(super) fn refused(error: WakeError) -> ApiError {
    match error {
        WakeError::Refused { code, message, held } => {
            let (code, word) = words(code);
            let mut problem = Problem::new(code, message.clone());
            let (current_holder, generation) = held.unzip();
            problem.error = Some(Box::new(SubscriptionFailure { code: word, message, current_holder, generation }));
            ApiError::of_problem(problem)
        }
        WakeError::Denied(denied) => denied.into(),
        WakeError::Broker(error) => error.into(),
    }
}

fn words(code: WakeCode) -> (ErrorCode, SubscriptionErrorCode) {
    use SubscriptionErrorCode as Word;
    match code {
        WakeCode::InvalidRequest => (ErrorCode::InvalidRequest, Word::InvalidRequest),
        WakeCode::NotFound => (ErrorCode::NotFound, Word::SubscriptionNotFound),
        WakeCode::AlreadyExists => (ErrorCode::Conflict, Word::SubscriptionAlreadyExists),
        WakeCode::LimitExceeded => (ErrorCode::Conflict, Word::LimitExceeded),
        WakeCode::UrlRejected => (ErrorCode::InvalidRequest, Word::WebhookUrlRejected),
        WakeCode::TokenInvalid => (ErrorCode::Unauthenticated, Word::TokenInvalid),
        WakeCode::TokenExpired => (ErrorCode::Unauthenticated, Word::TokenExpired),
        WakeCode::Fenced => (ErrorCode::Fenced, Word::Fenced),
        WakeCode::AlreadyClaimed => (ErrorCode::Conflict, Word::AlreadyClaimed),
        WakeCode::NoPendingWork => (ErrorCode::Conflict, Word::NoPendingWork),
        WakeCode::InvalidOffset => (ErrorCode::Conflict, Word::InvalidOffset),
    }
}

pub(super) fn subscription(view: WakeView) -> Subscription {
    let jwks_url = format!("{}/__ds/jwks.json", view.root);
    let signing = WebhookSigning { alg: "ed25519".to_owned(), kid: view.key_id, jwks_url };
    let links = view.links.into_iter().map(|link| SubscriptionStream {
        link_type: link.kind(),
        path: link.stream.to_string(),
        acked_offset: link.acked,
    });
    let created_at = i64::try_from(view.created_at).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    Subscription {
        id: view.id.to_string(),
        subscription_id: view.id.to_string(),
        kind: if view.webhook.is_some() { SubscriptionType::Webhook } else { SubscriptionType::PullWake },
        pattern: view.pattern,
        streams: links.collect(),
        webhook: view.webhook.map(|url| Webhook { url, signing }),
        wake_stream: view.wake_stream,
        lease_ttl_ms: view.lease_ttl_ms,
        created_at: created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        status: if view.has_failed { SubscriptionStatus::Failed } else { SubscriptionStatus::Active },
        description: view.description,
    }
}

pub(super) fn claimed(claimed: Claimed) -> wakes::Claimed {
    wakes::Claimed {
        wake_id: claimed.wake.wake_id,
        generation: claimed.wake.generation,
        token: claimed.token,
        streams: claimed.links.into_iter().map(Into::into).collect(),
        lease_ttl_ms: claimed.lease_ttl_ms,
    }
}

/// The answer to what has no other answer than that it is done.
pub(super) fn done(done: Result<(), WakeError>) -> Result<Response, ApiError> {
    done.map(|()| no_content()).map_err(refused)
}
