//! Tenants, for the holder of the root key.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use plinth_api::ListPage;
use plinth_api::system::Happening;
use plinth_api::tenants::{Tenant, TenantName, TenantPatch, TenantRequest};

use super::audit;
use super::convert::{self, ListRequest};
use super::error::ApiError;
use super::extract::{self, Authed, Name};
use super::front::Front;

/// Make a tenant.
#[utoipa::path(
    post,
    path = "/v1/tenants",
    operation_id = "create_tenant",
    tag = "tenants",
    request_body(content = TenantRequest, content_type = "application/json"),
    responses((status = 201, description = "The tenant was made", body = Tenant))
)]
pub(super) async fn create(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let operator = caller.operator()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let wanted: TenantRequest = extract::json(&front, &parts, body).await?;
    let name = wanted.name.clone();
    let made = front.auth.create_tenant(&operator, &name, convert::tenant_settings(wanted)).await?;
    Ok(audit::made(convert::json(StatusCode::CREATED, &convert::tenant(made)), &name, None))
}

/// List the tenants by name.
#[utoipa::path(
    get,
    path = "/v1/tenants",
    operation_id = "list_tenants",
    tag = "tenants",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items of the page; default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "One page", body = ListPage<Tenant>))
)]
pub(super) async fn list(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let operator = caller.operator()?;
    let wanted = ListRequest::alone(request.uri().query())?;
    let views = front.auth.list_tenants(&operator, wanted.after.as_deref(), wanted.fetch())?;
    let tenants = views.into_iter().map(convert::tenant).collect();
    Ok(convert::json(StatusCode::OK, &wanted.page(tenants, |tenant: &Tenant| &tenant.name)))
}

/// View a tenant.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}",
    operation_id = "view_tenant",
    tag = "tenants",
    params(("tenant" = TenantName, Path, description = "The name")),
    responses((status = 200, description = "The tenant", body = Tenant))
)]
pub(super) async fn view(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let operator = caller.operator()?;
    extract::no_params(&request.into_parts().0)?;
    Ok(convert::json(StatusCode::OK, &convert::tenant(front.auth.get_tenant(&operator, &name)?)))
}

/// Change a tenant. It acts at once on all its credentials, open connections and requests.
#[utoipa::path(
    patch,
    path = "/v1/tenants/{tenant}",
    operation_id = "change_tenant",
    tag = "tenants",
    params(("tenant" = TenantName, Path, description = "The name")),
    request_body(content = TenantPatch, content_type = "application/json"),
    responses((status = 200, description = "The tenant as it is now", body = Tenant))
)]
pub(super) async fn change(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let operator = caller.operator()?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let patch: TenantPatch = extract::json(&front, &parts, body).await?;
    let held = |held| if held { Happening::TenantSuspended } else { Happening::TenantResumed };
    let what = patch.suspended.map(held);
    let changed = front.auth.change_tenant(&operator, &name, convert::tenant_change(patch)).await?;
    Ok(audit::told(convert::json(StatusCode::OK, &convert::tenant(changed)), what))
}

/// Delete a tenant with its keys, topics and records.
///
/// Its credentials end at once. Asked for again while the rest of it is still being deleted, it goes on with that and is
/// answered 204, too; 404 once its name is free.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{tenant}",
    operation_id = "delete_tenant",
    tag = "tenants",
    params(("tenant" = TenantName, Path, description = "The name")),
    responses((status = 204, description = "The tenant is deleted"))
)]
pub(super) async fn remove(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let operator = caller.operator()?;
    extract::no_params(&request.into_parts().0)?;
    front.auth.delete_tenant(&operator, &name).await?;
    Ok(convert::no_content())
}
