//! API keys of a tenant and one-time tickets.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use plinth_api::ListPage;
use plinth_api::keys::{Key, KeyPatch, KeyRequest, KeyRotation, NewKey, Ticket, TicketRequest};
use plinth_api::system::Happening;

use super::audit;
use super::convert::{self, ListRequest};
use super::error::ApiError;
use super::extract::{self, Authed, Name};
use super::front::Front;

/// Make an API key. The answer is the only place where it is shown.
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "create_key",
    tag = "keys",
    request_body(content = KeyRequest, content_type = "application/json"),
    responses((status = 201, description = "The key was made", body = NewKey))
)]
pub(super) async fn create(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let wanted: KeyRequest = extract::json(&front, &parts, body).await?;
    let made = front.auth.create_key(&admin, convert::key_request(wanted)).await?;
    let (id, answer) = (made.about.id.clone(), convert::json(StatusCode::CREATED, &convert::new_key(made)));
    Ok(audit::made(answer, &id, Some(Happening::KeyMade { key: id.clone() })))
}

/// List the API keys of the tenant, without their secrets.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "keys",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items of the page; default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "One page", body = ListPage<Key>))
)]
pub(super) async fn list(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let wanted = ListRequest::alone(request.uri().query())?;
    let views = front.auth.list_keys(&admin, wanted.after.as_deref(), wanted.fetch())?;
    let keys = views.into_iter().map(convert::key).collect();
    Ok(convert::json(StatusCode::OK, &wanted.page(keys, |key: &Key| &key.id)))
}

/// View an API key, without its secret.
#[utoipa::path(
    get,
    path = "/v1/keys/{id}",
    operation_id = "view_key",
    tag = "keys",
    params(("id" = String, Path, description = "The id")),
    responses((status = 200, description = "The key", body = Key))
)]
pub(super) async fn view(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    extract::no_params(&request.into_parts().0)?;
    Ok(convert::json(StatusCode::OK, &convert::key(front.auth.get_key(&admin, &id)?)))
}

/// Change the name or the quotas of an API key.
#[utoipa::path(
    patch,
    path = "/v1/keys/{id}",
    operation_id = "change_key",
    tag = "keys",
    params(("id" = String, Path, description = "The id")),
    request_body(content = KeyPatch, content_type = "application/json"),
    responses((status = 200, description = "The key as it is now", body = Key))
)]
pub(super) async fn change(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let patch: KeyPatch = extract::json(&front, &parts, body).await?;
    let changed = front.auth.change_key(&admin, &id, convert::key_change(patch)).await?;
    Ok(convert::json(StatusCode::OK, &convert::key(changed)))
}

/// Give an API key a new secret. The answer is the only place where it is shown; id, scopes and end stay.
///
/// For the `overlap` the secret before is accepted, too. Without one all secrets before are refused from the answer on, and
/// the connections that they have opened end. A key that rotates itself should ask for an overlap: if the answer is lost, it can ask again.
#[utoipa::path(
    post,
    path = "/v1/keys/{id}/rotate",
    operation_id = "rotate_key",
    tag = "keys",
    params(("id" = String, Path, description = "The id")),
    request_body(content = KeyRotation, content_type = "application/json"),
    responses((status = 200, description = "The key with its new secret", body = NewKey))
)]
pub(super) async fn rotate(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let wanted = extract::optional_json::<KeyRotation>(&front, &parts, body).await?.unwrap_or_default();
    let rotated = front.auth.rotate_key(&admin, &id, wanted.overlap).await?;
    let answer = convert::json(StatusCode::OK, &convert::new_key(rotated));
    Ok(audit::told(answer, Some(Happening::KeyRotated { key: id })))
}

/// End an API key. Its open connections end within a minute.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "delete_key",
    tag = "keys",
    params(("id" = String, Path, description = "The id")),
    responses((status = 204, description = "The key is no longer valid"))
)]
pub(super) async fn remove(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(id): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    extract::no_params(&request.into_parts().0)?;
    front.auth.delete_key(&admin, &id).await?;
    Ok(audit::told(convert::no_content(), Some(Happening::KeyRevoked { key: id })))
}

/// Make a one-time ticket for `?ticket=`, for clients that cannot set headers. It may do what the caller may do.
///
/// A browser that used one on a stream of events or a WebSocket may come back for 12 hours with the cookie that it got,
/// to read, while the caller's key lives.
///
/// At most 10,000 tickets of a tenant wait for their use. One more is made all the same, and the oldest of the tenant is
/// good no more.
#[utoipa::path(
    post,
    path = "/v1/tickets",
    tag = "keys",
    request_body(content = TicketRequest, content_type = "application/json"),
    responses((status = 201, description = "Good for one connection within 30 s", body = Ticket))
)]
pub(super) async fn create_ticket(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    extract::optional_json::<TicketRequest>(&front, &parts, body).await?;
    let made = front.auth.create_ticket(&caller)?;
    Ok(convert::json(StatusCode::CREATED, &convert::ticket(made)))
}
