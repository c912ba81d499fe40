//! Tokens that the cluster mints, the key that they are signed with, and why a credential may or may not do a thing.

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use plinth_api::issuers::JsonWebKeySet;
use plinth_api::tokens::{CredentialKind, Decision, Explanation, Token, TokenRequest, TopicAction};

use super::audit;
use super::convert;
use super::error::ApiError;
use super::extract::{self, Authed, Params};
use super::front::Front;
use crate::auth::{self, Action, Caller, Credential, Denied, Identity};

/// Mint a token (JWT) with no more rights than the caller has, for a browser or a device.
///
/// It ends with the API key that mints it. It is signed with EdDSA by the cluster's key, which is published at
/// `/.well-known/jwks.json`.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    operation_id = "mint_token",
    tag = "keys",
    request_body(content = TokenRequest, content_type = "application/json"),
    responses((status = 201, description = "The token", body = Token))
)]
pub(super) async fn mint(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    caller.inside()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let wanted: TokenRequest = extract::json(&front, &parts, body).await?;
    let subject = wanted.subject.clone();
    let wanted = auth::TokenRequest::parse(&wanted.scopes, wanted.ttl.as_deref(), wanted.subject)?;
    let minted = front.auth.mint(&caller, &wanted)?;
    let token = Token { token: minted.token, expires_at: minted.expires_at.0 };
    let answer = convert::json(StatusCode::CREATED, &token);
    Ok(match subject {
        Some(subject) => audit::made(answer, &subject, None),
        None => answer,
    })
}

/// The public key of the tokens that this cluster mints, as a JSON Web Key Set.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "published_keys",
    tag = "keys",
    responses((status = 200, description = "The key set", body = JsonWebKeySet))
)]
pub(super) async fn published_keys(State(front): State<Front>) -> Response {
    let mut response = convert::json(StatusCode::OK, &front.auth.published_keys());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// Say who the caller is, and why something is allowed or not.
///
/// A token that is not valid is told in detail why.
#[utoipa::path(
    get,
    path = "/v1/auth/explain",
    operation_id = "explain",
    tag = "keys",
    params(
        ("action" = Option<TopicAction>, Query, description = "What is to be done; together with `topic`"),
        ("topic" = Option<String>, Query, description = "The topic or pattern; together with `action`"),
    ),
    responses((status = 200, description = "Who the caller is", body = Explanation))
)]
pub(super) async fn explain(State(front): State<Front>, request: Request) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = told_why(&front, &parts.headers).await?;
    extract::visit(&parts)?.enter(&caller)?;
    let identity = caller.identity()?;
    let mut params = Params::parse(parts.uri.query());
    let (action, topic) = (params.take("action")?, params.take("topic")?);
    params.finish()?;
    let decision = match (action, topic) {
        (None, None) => None,
        (Some(action), Some(topic)) => Some(decide(&caller, &action, topic)?),
        (Some(_), None) | (None, Some(_)) => {
            return Err(ApiError::invalid("the query parameters `action` and `topic` go together"));
        }
    };
    Ok(convert::json(StatusCode::OK, &show(identity, decision)))
}

/// The caller, by `Authorization: Bearer`; for a bad token, the whole of what is wrong.
async fn told_why(front: &Front, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = extract::bearer(headers)?.ok_or_else(extract::no_credential)?;
    let caller = front.auth.admit(Credential::Bearer(token), extract::tenant_header(headers)?).await;
    caller.map_err(|denied| match &denied {
        Denied::Token(fault) => ApiError::of_token(fault, fault.detail()),
        Denied::Unauthenticated(_)
        | Denied::Forbidden(_)
        | Denied::Suspended(_)
        | Denied::InvalidTopicName(_)
        | Denied::NotFound(_)
        | Denied::Unavailable(_) => denied.into(),
    })
}

fn decide(caller: &Caller, action: &str, topic: String) -> Result<Decision, ApiError> {
    let (shown, action) = match action {
        "publish" => (TopicAction::Publish, Action::Publish),
        "subscribe" => (TopicAction::Subscribe, Action::Subscribe),
        "manage" => (TopicAction::Manage, Action::Manage),
        "view" => (TopicAction::View, Action::View),
        _ => {
            let detail = "the query parameter `action` is none of publish, subscribe, manage, view";
            return Err(ApiError::invalid(detail));
        }
    };
    let verdict = caller.verdict(action, &topic);
    Ok(Decision { action: shown, topic, allowed: verdict.allowed, reason: verdict.reason })
}

fn show(identity: Identity, decision: Option<Decision>) -> Explanation {
    Explanation {
        kind: match identity.kind {
            auth::CredentialKind::Root => CredentialKind::Root,
            auth::CredentialKind::Key => CredentialKind::Key,
            auth::CredentialKind::Token => CredentialKind::Token,
        },
        tenant: identity.tenant,
        key_id: identity.key_id,
        issuer: identity.issuer,
        subject: identity.subject,
        token_id: identity.token_id,
        issued_at: identity.issued_at.map(|at| at.0),
        expires_at: identity.expires_at.map(|at| at.0),
        scopes: identity.scopes,
        decision,
    }
}
