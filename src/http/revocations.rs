//! Revocations of tokens.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::DateTime;
use plinth_api::ListPage;
use plinth_api::error::ErrorCode;
use plinth_api::revocations::{Revocation, RevocationRequest};
use plinth_storage::ids::Timestamp;

use super::convert::{self, ListRequest};
use super::error::ApiError;
use super::extract::{self, Authed};
use super::front::Front;
use crate::auth::{RevocationView, Revoked};

/// Revoke tokens before their time: one, those of a subject, or an API key with those that it minted.
///
/// It acts at once, also on what they have opened.
#[utoipa::path(
    post,
    path = "/v1/revocations",
    operation_id = "revoke",
    tag = "keys",
    request_body(content = RevocationRequest, content_type = "application/json"),
    responses((status = 201, description = "They are good no more", body = Revocation))
)]
pub(super) async fn create(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let wanted: RevocationRequest = extract::json(&front, &parts, body).await?;
    let made = front.auth.revoke(&admin, parse(wanted)?).await?;
    Ok(convert::json(StatusCode::CREATED, &show(made)))
}

/// List the revocations of the tenant that still count.
#[utoipa::path(
    get,
    path = "/v1/revocations",
    operation_id = "list_revocations",
    tag = "keys",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items of the page; default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "One page", body = ListPage<Revocation>))
)]
pub(super) async fn list(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let wanted = ListRequest::alone(request.uri().query())?;
    let views = front.auth.list_revocations(&admin, wanted.after.as_deref(), wanted.fetch())?;
    let revocations = views.into_iter().map(show).collect();
    Ok(convert::json(StatusCode::OK, &wanted.page(revocations, |revocation: &Revocation| &revocation.id)))
}

fn parse(request: RevocationRequest) -> Result<Revoked, ApiError> {
    let refused = |why: &str| Err(ApiError::new(ErrorCode::Unprocessable, why));
    let before = match request.issued_before.as_deref().map(time).transpose() {
        Ok(before) => before,
        Err(()) => return refused("`issued_before` is not a time such as 2026-11-27T08:00:00Z"),
    };
    match (request.key_id, request.token_id, request.subject, before) {
        (Some(id), None, None, None) => Ok(Revoked::Key(id)),
        (None, Some(id), None, None) => Ok(Revoked::Token(id)),
        (None, None, Some(subject), before) => Ok(Revoked::Subject(subject, before)),
        (_, _, None, Some(_)) => refused("`issued_before` goes with `subject`"),
        (_, _, _, _) => refused("one of `key_id`, `token_id` and `subject` is given"),
    }
}

fn time(text: &str) -> Result<Timestamp, ()> {
    let at = DateTime::parse_from_rfc3339(text).map_err(drop)?;
    u64::try_from(at.timestamp_millis()).map(Timestamp).map_err(drop)
}

fn show(view: RevocationView) -> Revocation {
    let mut shown = Revocation {
        id: view.id,
        key_id: None,
        token_id: None,
        subject: None,
        issued_before: None,
        created_at: view.created_at.0,
        expires_at: view.expires_at.0,
    };
    match view.of {
        Revoked::Key(id) => shown.key_id = Some(id),
        Revoked::Token(id) => shown.token_id = Some(id),
        Revoked::Subject(subject, before) => {
            shown.subject = Some(subject);
            shown.issued_before = before.map(|before| before.0);
        }
    }
    shown
}
