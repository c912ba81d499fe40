//! Subscriptions of streams over HTTP: under `__ds` of both roots, where no stream can be.
//!
//! Errors carry the protocol's own word for them in `error`, beside the problem document. Calls that act on a wake come with its
//! token alone; all others with a credential as everywhere.

mod answer;
mod wake;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use plinth_api::limits::SUBSCRIPTION_LEASE_MS_DEFAULT;
use plinth_api::wakes::{Subscription, SubscriptionRequest, SubscriptionStreams, SubscriptionType};

use self::answer::{done, refused, subscription};
pub(crate) use self::wake::{__path_ack, __path_callback, __path_claim, __path_release, ack, callback, claim, release};
use crate::broker::WakeRequest;
use crate::http::Front;
use crate::http::access::base_url;
use crate::http::convert::json;
use crate::http::error::ApiError;
use crate::http::extract::{Authed, Name};

/// Where the keys are that webhooks are signed with.
pub(crate) const SUBSCRIPTION_KEYS: &str = "/v1/streams/__ds/jwks.json";
/// A subscription.
pub(crate) const SUBSCRIPTION: &str = "/v1/streams/__ds/subscriptions/{id}";
/// The streams that it names.
pub(crate) const SUBSCRIPTION_STREAMS: &str = "/v1/streams/__ds/subscriptions/{id}/streams";
/// One of them.
pub(crate) const SUBSCRIPTION_STREAM: &str = "/v1/streams/__ds/subscriptions/{id}/streams/{path}";
/// Where a webhook tells what came of a wake.
pub(crate) const CALLBACK: &str = "/v1/streams/__ds/subscriptions/{id}/callback";
/// Where a worker claims a wake.
pub(crate) const CLAIM: &str = "/v1/streams/__ds/subscriptions/{id}/claim";
/// Where it tells what came of it.
pub(crate) const ACK: &str = "/v1/streams/__ds/subscriptions/{id}/ack";
/// Where it gives it back.
pub(crate) const RELEASE: &str = "/v1/streams/__ds/subscriptions/{id}/release";

/// Make a subscription, or make sure that it is there and is so: a cursor over many streams that wakes a webhook or a worker
/// when there is something new.
///
/// Streams that are there are linked at their ends: what is in them already wakes nobody. Those that come later and match the
/// pattern are linked at their begin. The same under `/v1/stream/`.
#[utoipa::path(
    put,
    path = "/v1/streams/__ds/subscriptions/{id}",
    operation_id = "ensure_subscription",
    tag = "subscriptions",
    params(("id" = String, Path, max_length = 128, description = "The id: `A-Z a-z 0-9 . _ ~ - : @`")),
    request_body(content = SubscriptionRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "The subscription was made", body = Subscription),
        (status = 200, description = "The subscription was there and is so", body = Subscription),
    )
)]
pub(crate) async fn ensure(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, asked) = answer::read(&front, caller.account(), request).await?;
    let ensured = front.wakes.ensure(&caller, &id, wanted(asked)?, root(&front, &parts)?).await;
    let (view, made) = ensured.map_err(refused)?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &subscription(view)))
}

/// View a subscription with its streams, and what of each is done with.
#[utoipa::path(
    get,
    path = "/v1/streams/__ds/subscriptions/{id}",
    operation_id = "view_subscription",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The id")),
    responses((status = 200, description = "The subscription", body = Subscription))
)]
pub(crate) async fn view(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
) -> Result<Response, ApiError> {
    let view = front.wakes.get(&caller, &id).await.map_err(refused)?;
    Ok(json(StatusCode::OK, &subscription(view)))
}

/// Remove a subscription with all that is acknowledged. A wake under way is over. None to be removed is no failure for who may
/// manage all streams.
#[utoipa::path(
    delete,
    path = "/v1/streams/__ds/subscriptions/{id}",
    operation_id = "delete_subscription",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The id")),
    responses((status = 204, description = "There is no such subscription any more"))
)]
pub(crate) async fn remove(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
) -> Result<Response, ApiError> {
    done(front.wakes.remove(&caller, &id).await)
}

/// Name further streams of a subscription, from their ends on. They need not be there yet.
#[utoipa::path(
    post,
    path = "/v1/streams/__ds/subscriptions/{id}/streams",
    operation_id = "link_streams",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The id")),
    request_body(content = SubscriptionStreams, content_type = "application/json"),
    responses((status = 204, description = "They are linked"))
)]
pub(crate) async fn link(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (_, SubscriptionStreams { streams }) = answer::read(&front, caller.account(), request).await?;
    done(front.wakes.link(&caller, &id, streams).await)
}

/// Name a stream of a subscription no more. One that its pattern matches stays linked.
#[utoipa::path(
    delete,
    path = "/v1/streams/__ds/subscriptions/{id}/streams/{path}",
    operation_id = "unlink_stream",
    tag = "subscriptions",
    params(
        ("id" = String, Path, description = "The id"),
        ("path" = String, Path, description = "The stream; a `/` in it may be written as it is. What is no stream is not named"),
    ),
    responses((status = 204, description = "It is not named"))
)]
pub(crate) async fn unlink(
    State(front): State<Front>,
    Authed(caller): Authed,
    path: Path<(String, String)>,
) -> Result<Response, ApiError> {
    let Path((id, stream)) = path;
    done(front.wakes.unlink(&caller, &id, &stream).await)
}

/// The public keys that the calls of webhooks are signed with, as a JSON Web Key Set (RFC 7517). Needs no credential: those who
/// are called have none.
#[utoipa::path(
    get,
    path = "/v1/streams/__ds/jwks.json",
    operation_id = "view_webhook_keys",
    tag = "subscriptions",
    responses((status = 200, description = "The keys", body = plinth_api::issuers::JsonWebKeySet, content_type = "application/jwk-set+json"))
)]
pub(crate) async fn keys(State(front): State<Front>) -> Response {
    let headers = [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "public, max-age=300")];
    (headers, front.wakes.published_keys().to_string()).into_response()
}

/// Where the client reaches streams: the root by which it came.
fn root(front: &Front, parts: &Parts) -> Result<String, ApiError> {
    let path = parts.uri.path();
    let root = path.split_once("/__ds/").map_or("/v1/streams", |(root, _)| root);
    Ok(format!("{}{root}", base_url(front, parts)?))
}

fn wanted(asked: SubscriptionRequest) -> Result<WakeRequest, ApiError> {
    let SubscriptionRequest { kind, pattern, streams, webhook, wake_stream, lease_ttl_ms, description } = asked;
    let webhook = webhook.map(|webhook| webhook.url);
    let fits = match kind {
        SubscriptionType::Webhook => webhook.is_some() && wake_stream.is_none(),
        SubscriptionType::PullWake => webhook.is_none() && wake_stream.is_some(),
    };
    if !fits {
        return Err(answer::invalid(
            "a webhook has `webhook.url` and no `wake_stream`, a pull-wake the other way round",
        ));
    }
    let lease_ttl_ms = lease_ttl_ms.unwrap_or(SUBSCRIPTION_LEASE_MS_DEFAULT);
    Ok(WakeRequest { webhook, wake_stream, pattern, streams, lease_ttl_ms, description })
}
