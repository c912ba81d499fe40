//! What the caller's tenant, and its key, may use and uses; and every limit that holds for all.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use plinth_api::limits::{LIMITS, LimitInfo};
use plinth_api::quotas::{Quota, QuotaReport, QuotaUse};

use super::convert;
use super::error::ApiError;
use super::extract::{self, Authed};
use super::front::Front;
use crate::broker::{KeyMeter, Meter, Whose};

/// View the quotas of the own tenant with their use, and every limit.
///
/// A quota per second is a bucket that holds one second's worth and fills as fast as it is: `used` is what is missing in
/// it. A batch that is larger than that is stored when the bucket is full, and paid for after.
#[utoipa::path(
    get,
    path = "/v1/quotas",
    operation_id = "view_quotas",
    tag = "tenants",
    responses((status = 200, description = "The quotas and limits", body = QuotaReport))
)]
pub(super) async fn view(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    extract::no_params(&request.into_parts().0)?;
    caller.inside()?;
    let Some(account) = caller.account() else {
        return Err(ApiError::internal("a caller inside a tenant has no account"));
    };
    front.broker.count_kept(account.tenant()).await?;
    let meters = account.meters();
    let of_key = meters.key.and_then(KeyMeter::meter);
    let report = QuotaReport {
        tenant: account.tenant().name().to_owned(),
        quotas: uses(meters.tenant, Whose::Tenant),
        key_quotas: of_key.filter(|meter| meter.is_limited()).map(|meter| uses(meter, Whose::Key)),
        limits: LIMITS.iter().map(|limit| LimitInfo { value: front.limits.of(limit), ..limit.info() }).collect(),
    };
    Ok(convert::json(StatusCode::OK, &report))
}

fn uses(meter: &Meter, whose: Whose) -> Vec<QuotaUse> {
    let mut uses: Vec<QuotaUse> = Quota::ALL.into_iter().map(|quota| without_limit(meter, quota)).collect();
    for left in meter.left(whose) {
        let used = &mut uses[left.quota as usize];
        used.limit = Some(left.limit);
        if left.quota.is_rate() {
            used.used = Some(left.used);
        }
    }
    uses
}

fn without_limit(meter: &Meter, quota: Quota) -> QuotaUse {
    let usage = meter.usage();
    let (used, total) = match quota {
        Quota::RequestsPerSecond => (None, Some(usage.requests)),
        Quota::PublishBytesPerSecond => (None, Some(usage.bytes_published)),
        Quota::PublishRecordsPerSecond => (None, Some(usage.records_published)),
        Quota::DeliveredBytesPerSecond => (None, Some(usage.bytes_delivered)),
        Quota::DeliveredRecordsPerSecond => (None, Some(usage.records_delivered)),
        Quota::Connections | Quota::Followers | Quota::Topics | Quota::StorageBytes => (meter.held(quota), None),
    };
    QuotaUse { quota, limit: None, used, total }
}
