//! What an operator's machinery asks: alive, ready, which version, how it goes. Open to everyone, names no tenant.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use plinth_api::error::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::convert;
use super::error::ApiError;
use super::front::Front;

pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What runs here.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Version {
    /// Always `plinth`.
    name: &'static str,
    /// The version of the server.
    version: &'static str,
    /// The version of the API, the first part of its paths.
    api: &'static str,
}

/// Whether the process answers at all. A failure means that it should be started again.
#[utoipa::path(get, path = "/livez", tag = "operation", responses((status = 200, description = "It does", body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether requests should be sent here: not while the store is away, and not while the node ends.
#[utoipa::path(get, path = "/readyz", tag = "operation", responses((status = 200, description = "Yes", body = String)))]
pub(super) async fn readyz(State(front): State<Front>) -> Result<&'static str, ApiError> {
    if front.shutdown.is_cancelled() {
        return Err(ApiError::new(ErrorCode::ShuttingDown, "the node is stopping"));
    }
    if !front.broker.log().status().available {
        return Err(ApiError::new(ErrorCode::StoreUnavailable, "the object store cannot be reached"));
    }
    Ok("ok\n")
}

/// Whether the node has started. Nothing is answered before it has.
#[utoipa::path(get, path = "/startupz", tag = "operation", responses((status = 200, description = "Yes", body = String)))]
pub(super) async fn startupz() -> &'static str {
    "ok\n"
}

/// The version.
#[utoipa::path(get, path = "/version", tag = "operation", responses((status = 200, description = "It", body = Version)))]
pub(super) async fn version() -> Response {
    let version = Version { name: "plinth", version: env!("CARGO_PKG_VERSION"), api: "v1" };
    convert::json(StatusCode::OK, &version)
}

/// The metrics, as OpenMetrics text.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((
        status = 200,
        description = "For Prometheus",
        body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    ))
)]
pub(super) async fn metrics(State(front): State<Front>) -> Response {
    ([(CONTENT_TYPE, OPEN_METRICS)], front.metrics.text()).into_response()
}
