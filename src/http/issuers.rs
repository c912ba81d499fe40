//! Trusted issuers of tokens.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use plinth_api::ListPage;
use plinth_api::issuers::{Issuer, IssuerName, IssuerRequest, JsonWebKeySet};

use super::convert::{self, ListRequest};
use super::error::ApiError;
use super::extract::{self, Authed, Name};
use super::front::Front;
use crate::auth;

/// Trust an issuer of tokens, or change what is trusted of it.
///
/// A token (JWT) is then a credential of the tenant if its `iss` and one `aud` are these, its algorithm is one of these,
/// one of these keys has signed it, and it has `iat`, `exp` and the claim with the subject. A change that is about more
/// than keys, and the withdrawal of a key, end what tokens have opened.
#[utoipa::path(
    put,
    path = "/v1/issuers/{name}",
    operation_id = "ensure_issuer",
    tag = "keys",
    params(("name" = IssuerName, Path, description = "The name")),
    request_body(content = IssuerRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "It is trusted as asked for", body = Issuer),
        (status = 201, description = "It was not trusted before", body = Issuer),
    )
)]
pub(super) async fn ensure(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    caller.admin()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let wanted: IssuerRequest = extract::json(&front, &parts, body).await?;
    let admin = front.auth.may_trust(&caller, &wanted.audiences)?;
    let (view, made) = front.auth.ensure_issuer(&admin, &name, parse(wanted)).await?;
    Ok(convert::json(if made { StatusCode::CREATED } else { StatusCode::OK }, &show(view)))
}

/// View a trusted issuer.
#[utoipa::path(
    get,
    path = "/v1/issuers/{name}",
    operation_id = "view_issuer",
    tag = "keys",
    params(("name" = IssuerName, Path, description = "The name")),
    responses((status = 200, description = "The issuer", body = Issuer))
)]
pub(super) async fn view(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    extract::no_params(&request.into_parts().0)?;
    Ok(convert::json(StatusCode::OK, &show(front.auth.get_issuer(&admin, &name)?)))
}

/// List the trusted issuers of the tenant by name.
#[utoipa::path(
    get,
    path = "/v1/issuers",
    operation_id = "list_issuers",
    tag = "keys",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items of the page; default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "One page", body = ListPage<Issuer>))
)]
pub(super) async fn list(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let wanted = ListRequest::alone(request.uri().query())?;
    let views = front.auth.list_issuers(&admin, wanted.after.as_deref(), wanted.fetch())?;
    let issuers = views.into_iter().map(show).collect();
    Ok(convert::json(StatusCode::OK, &wanted.page(issuers, |issuer: &Issuer| &issuer.name)))
}

/// Trust an issuer no more. What its tokens have opened ends within a minute.
#[utoipa::path(
    delete,
    path = "/v1/issuers/{name}",
    operation_id = "delete_issuer",
    tag = "keys",
    params(("name" = IssuerName, Path, description = "The name")),
    responses((status = 204, description = "The issuer is not trusted any more"))
)]
pub(super) async fn remove(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    extract::no_params(&request.into_parts().0)?;
    front.auth.delete_issuer(&admin, &name).await?;
    Ok(convert::no_content())
}

fn parse(request: IssuerRequest) -> auth::IssuerRequest {
    auth::IssuerRequest {
        issuer: request.issuer,
        audiences: request.audiences,
        algorithms: request.algorithms,
        jwks: request.jwks.map(|set| serde_json::json!({ "keys": set.keys })),
        jwks_url: request.jwks_url,
        secret: request.secret,
        scope_claim: request.scope_claim,
        subject_claim: request.subject_claim,
        default_scopes: request.default_scopes,
        max_lifetime: request.max_lifetime,
        leeway: request.leeway,
    }
}

fn show(view: auth::IssuerView) -> Issuer {
    let span = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
    Issuer {
        name: view.name,
        issuer: view.issuer,
        audiences: view.audiences,
        algorithms: view.algorithms,
        jwks: view.jwks.map(|keys| JsonWebKeySet { keys }),
        jwks_url: view.jwks_url,
        has_secret: view.has_secret,
        scope_claim: view.scope_claim,
        subject_claim: view.subject_claim,
        default_scopes: view.default_scopes,
        max_lifetime: span(view.lifetime_ms_max),
        leeway: span(view.leeway_ms),
        created_at: view.created_at.0,
    }
}
