//! What a tenant uses, for its administrators; and what each tenant uses, for the operator.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use plinth_api::system::{Granularity, UsageReport};

use super::convert;
use super::error::ApiError;
use super::extract::{self, Authed, Params};
use super::front::Front;
use super::health::OPEN_METRICS;
use crate::auth::{Action, SystemTopic};
use crate::broker::UsageRange;
use crate::telemetry::tenants;

/// View what the tenant uses: now, and by minutes or hours of a span of time.
///
/// Spans without any use are left out. Within an hour what was used is added up, `connections` and `followers` are the most that were
/// open at the end of a minute, and `storage_bytes` is what was stored at the end. The topic `_usage` has the same minutes as records,
/// for 30 days.
#[utoipa::path(
    get,
    path = "/v1/usage",
    operation_id = "view_usage",
    tag = "usage",
    params(
        ("from" = Option<String>, Query, format = DateTime, description = "Where the span begins; default an hour before its end"),
        ("to" = Option<String>, Query, format = DateTime, description = "Where it ends; default now"),
        ("granularity" = Option<Granularity>, Query, description = "`minute` for at most a day, the default, or `hour` for at most 31 days"),
    ),
    responses((status = 200, description = "What was used", body = UsageReport))
)]
pub(super) async fn view(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = caller.admin()?;
    let topic = caller.authorize(Action::Subscribe, SystemTopic::Usage.name())?;
    let mut params = Params::parse(request.uri().query());
    let (from, to) = (params.take("from")?, params.take("to")?);
    let granularity = params.take_parsed::<Granularity>("granularity")?.unwrap_or_default();
    params.finish()?;
    let now = front.broker.log().now();
    let range = UsageRange::of(from.as_deref(), to.as_deref(), granularity, now)?;
    let data = front.system.usage(&topic, range).await?;
    let now = front.system.usage_now(admin.tenant()).await?;
    Ok(convert::json(StatusCode::OK, &UsageReport { now, granularity, data }))
}

/// The use of each tenant since the start of the node, as OpenMetrics text.
///
/// The 100 tenants with the most use have series of their own, named by the label `tenant`; all others are added up as `_other`.
#[utoipa::path(
    get,
    path = "/metrics/tenants",
    operation_id = "tenant_metrics",
    tag = "usage",
    responses((
        status = 200,
        description = "For Prometheus",
        body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    ))
)]
pub(super) async fn metrics(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    caller.operator()?;
    extract::no_params(&request.into_parts().0)?;
    let tenants = front.auth.used_tenants();
    let used = tenants.iter().map(|tenant| (tenant.name(), tenant.meter().usage()));
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], tenants::text(used.collect())).into_response())
}
