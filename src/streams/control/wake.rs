//! What is done with a wake: a worker claims it, and who has its token acknowledges in it, keeps it, and ends it.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use plinth_api::wakes::{AckRequest, Acknowledged, ClaimRequest, Claimed, ReleaseRequest};
use serde::de::DeserializeOwned;

use super::answer::{self, done, refused};
use crate::broker::{Ack, TokenKind, WakeBearer, WakeRef};
use crate::http::convert::json;
use crate::http::error::ApiError;
use crate::http::extract::{Authed, Name, bearer};
use crate::http::{Front, TenantRoot, Visit};

/// Claim the wake of a subscription: of many workers one gets it, and the token with which it acknowledges. Where nobody has been
/// woken and something is new, a wake begins.
#[utoipa::path(
    post,
    path = "/v1/streams/__ds/subscriptions/{id}/claim",
    operation_id = "claim_wake",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The id")),
    request_body(content = ClaimRequest, content_type = "application/json"),
    responses((status = 200, description = "It is the worker's", body = Claimed))
)]
pub(crate) async fn claim(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (_, ClaimRequest { worker }) = answer::read(&front, caller.account(), request).await?;
    let claimed = front.wakes.claim(&caller, &id, worker).await.map_err(refused)?;
    Ok(json(StatusCode::OK, &answer::claimed(claimed)))
}

/// Tell what came of a wake that a webhook has taken: what is done with, and whether it ends. Without `done` its lease begins
/// anew. Takes the token of the call and nothing else.
#[utoipa::path(
    post,
    path = "/v1/streams/__ds/subscriptions/{id}/callback",
    operation_id = "call_back",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The id")),
    request_body(content = AckRequest, content_type = "application/json"),
    responses((status = 200, description = "It is taken over", body = Acknowledged))
)]
pub(crate) async fn callback(
    State(front): State<Front>,
    Extension(visit): Extension<Arc<Visit>>,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    acknowledge(&front, &visit, (TokenKind::Callback, &id), request).await
}

/// Tell what came of a wake that a worker has claimed: what is done with, and whether it ends. Without `done` it is a sign of life:
/// the lease begins anew. Takes the token of the claim and nothing else.
#[utoipa::path(
    post,
    path = "/v1/streams/__ds/subscriptions/{id}/ack",
    operation_id = "acknowledge_wake",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The id")),
    request_body(content = AckRequest, content_type = "application/json"),
    responses((status = 200, description = "It is taken over", body = Acknowledged))
)]
pub(crate) async fn ack(
    State(front): State<Front>,
    Extension(visit): Extension<Arc<Visit>>,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    acknowledge(&front, &visit, (TokenKind::Claim, &id), request).await
}

/// Give a wake back that a worker has claimed. What is not acknowledged is told again. Takes the token of the claim and nothing
/// else.
#[utoipa::path(
    post,
    path = "/v1/streams/__ds/subscriptions/{id}/release",
    operation_id = "release_wake",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The id")),
    request_body(content = ReleaseRequest, content_type = "application/json"),
    responses((status = 204, description = "It is nobody's"))
)]
pub(crate) async fn release(
    State(front): State<Front>,
    Extension(visit): Extension<Arc<Visit>>,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (holder, asked) = of_wake::<ReleaseRequest>(&front, &visit, (TokenKind::Claim, &id), request).await?;
    let wake = WakeRef { wake_id: asked.wake_id, generation: asked.generation };
    done(front.wakes.release(&holder, wake).await)
}

async fn acknowledge(
    front: &Front,
    visit: &Visit,
    of: (TokenKind, &str),
    request: Request,
) -> Result<Response, ApiError> {
    let (holder, asked) = of_wake::<AckRequest>(front, visit, of, request).await?;
    let wake = WakeRef { wake_id: asked.wake_id, generation: asked.generation };
    let acks = asked.acks.into_iter().map(|ack| Ack { stream: ack.stream, offset: ack.offset }).collect();
    let acked = front.wakes.acknowledge(&holder, wake, acks, asked.done).await.map_err(refused)?;
    Ok(json(StatusCode::OK, &Acknowledged { ok: true, next_wake: acked.next_wake }))
}

/// Who has the token, on whose tenant's account the request is from here on, and the body.
async fn of_wake<T: DeserializeOwned>(
    front: &Front,
    visit: &Visit,
    (kind, id): (TokenKind, &str),
    request: Request,
) -> Result<(WakeBearer, T), ApiError> {
    let token = bearer(request.headers()).ok().flatten().unwrap_or_default();
    let at = visit.root().map(TenantRoot::tenant);
    let holder = front.wakes.bearer(kind, token, id, at).map_err(refused)?;
    visit.enter_account(holder.account())?;
    let (_, asked) = answer::read(front, Some(holder.account()), request).await?;
    Ok((holder, asked))
}
