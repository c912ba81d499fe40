//! What `_audit` says about calls: who wanted what, from where, and what came of it. Never a body, a token or a key.
//!
//! A call that may change something is run to its end even when its client goes away. Its first record is in the log before
//! the change can be, so that no crash leaves a change without it; its second one is stored before the answer is sent, if
//! the store takes it within [`ANSWER_WITHIN`]. Calls that are refused, and refused credentials, are noted in the background.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::RequestExt;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use plinth_api::error::{ErrorCode, Problem};
use plinth_api::system::{Audit, AuditKind, Happening};
use plinth_storage::log::Placed;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::error::ApiError;
use super::extract;
use super::front::Front;
use super::openapi::openapi;
use super::routes::{Needs, Route, SOCKET};
use super::visit::Visit;
use crate::auth::{Account, Action, Caller, Claim, TenantRef};
use crate::broker::{Error, Note};
use crate::server::ClientAddress;

/// How long an answer waits for its record; later it is stored in the background.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Longest name of a target that is written down.
const TARGET_BYTES_MAX: usize = 255;

/// Operations by method and path, as the OpenAPI document names them.
static OPERATIONS: LazyLock<HashMap<(String, String), String>> = LazyLock::new(|| {
    let document = serde_json::to_value(openapi()).expect("the document is plain strings and numbers");
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        let item = item.as_object().into_iter().flatten();
        item.filter_map(move |(method, operation)| {
            Some(((method.to_uppercase(), path.clone()), operation["operationId"].as_str()?.to_owned()))
        })
    });
    operations.collect()
});

/// What a handler says of its call besides its answer, as an extension of that.
#[derive(Clone, Debug)]
struct Told {
    /// What was made, when its name is not in the path.
    target: Option<String>,
    what: Option<Happening>,
}

/// What the layer of one route knows.
#[derive(Clone)]
pub(super) struct Audited {
    pub(super) front: Front,
    pub(super) route: &'static Route,
}

/// One call on its way.
struct Call {
    front: Front,
    route: &'static Route,
    caller: Caller,
    /// Its record, without kind, time and result.
    record: Audit,
}

impl Route {
    /// Whether calls are written down one by one: all that may change something, but publishes, which `_usage` counts, what is
    /// done with wakes, and tickets, which only repeat for half a minute what their maker may do.
    pub(super) fn is_audited(&self) -> bool {
        !matches!(self.method, "GET" | "HEAD" | "OPTIONS")
            && self.path != "/v1/tickets"
            && !matches!(self.needs, Needs::Publish | Needs::SubscribeAll | Needs::WakeToken)
    }
}

/// The answer of a handler that made `target`.
pub(super) fn made(mut response: Response, target: &str, what: Option<Happening>) -> Response {
    response.extensions_mut().insert(Told { target: Some(target.to_owned()), what });
    response
}

/// The answer of a handler, and what happened to the tenant by it.
pub(super) fn told(mut response: Response, what: Option<Happening>) -> Response {
    response.extensions_mut().insert(Told { target: None, what });
    response
}

/// Surrounds the handler of an audited route.
pub(super) async fn audited(State(audited): State<Audited>, mut request: Request, next: Next) -> Response {
    let Audited { front, route } = audited;
    let Some(visit) = request.extensions().get::<Arc<Visit>>().cloned() else {
        return ApiError::internal("a request came without its visit").into_response();
    };
    let caller = match extract::caller(&front, &visit, request.headers()).await {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let target = target(&mut request).await;
    let mut record = about(&visit, route, &caller);
    record.target = target.as_deref().and_then(|name| shown(&front, name));
    let call = Call { front, route, caller: caller.clone(), record };
    request.extensions_mut().insert(caller);
    // A task of its own: who hangs up does not keep the result of the call from being written down.
    let tasks = call.front.tasks.clone();
    let ran = tasks.spawn(call.run(target, request, next).in_current_span()).await;
    ran.unwrap_or_else(|lost| match lost.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(lost) => ApiError::internal(lost).into_response(),
    })
}

impl Call {
    async fn run(self, target: Option<String>, request: Request, next: Next) -> Response {
        if !self.may_change(target.as_deref()) {
            let response = next.run(request).await;
            self.note(&response);
            return response;
        }
        let trail = match self.trail() {
            Ok(trail) => trail,
            Err(error) => return ApiError::from(error).into_response(),
        };
        let begun = match self.front.system.place(&trail, &self.record(AuditKind::Begun)).await {
            Ok(begun) => begun,
            Err(error) => return ApiError::from(error).into_response(),
        };
        let mut response = next.run(request).await;
        self.answered(&trail, begun, &mut response).await;
        response
    }

    /// Whether the credential allows such a call: else nothing of it can be changed.
    fn may_change(&self, target: Option<&str>) -> bool {
        match self.route.needs {
            // What needs no scope changes nothing: a token that is minted is stored nowhere.
            Needs::Nothing
            | Needs::Tenant
            | Needs::View
            | Needs::Publish
            | Needs::Subscribe
            | Needs::ViewAll
            | Needs::SubscribeAll
            | Needs::WakeToken => false,
            Needs::ManageAll => self.caller.authorize_some(Action::Manage).is_ok(),
            Needs::Manage => self.caller.authorize(Action::Manage, target.unwrap_or_default()).is_ok(),
            Needs::Admin => self.caller.admin().is_ok(),
            Needs::Operator => self.caller.operator().is_ok(),
        }
    }

    /// Whose `_audit` it belongs to: that of the caller's tenant; of `_system` for what only the operator may do.
    fn trail(&self) -> Result<TenantRef, Error> {
        match self.caller.tenant() {
            Some(tenant) if self.route.needs != Needs::Operator => Ok(tenant.clone()),
            Some(_) | None => self.front.auth.system_tenant(),
        }
    }

    fn record(&self, kind: AuditKind) -> Audit {
        Audit { kind, at: self.front.broker.log().now().0, ..self.record.clone() }
    }

    fn result(&self, response: &Response) -> Audit {
        let code = response.extensions().get::<ApiError>().map(ApiError::code);
        let made = response.extensions().get::<Told>().and_then(|told| told.target.clone());
        let record = self.record(AuditKind::Answered);
        let target = made.and_then(|name| shown(&self.front, &name)).or(record.target);
        Audit { status: Some(response.status().as_u16()), code, target, ..record }
    }

    /// Notes what came of a call that could change nothing.
    fn note(&self, response: &Response) {
        let note = if response.status().is_success() { Note::Granted } else { Note::Refused };
        match self.trail() {
            Ok(trail) => self.front.system.note(&trail, note, &self.result(response)),
            Err(error) => tracing::error!(%error, "a call could not be noted"),
        }
    }

    /// Writes down what came of it.
    async fn answered(&self, trail: &TenantRef, begun: Placed, response: &mut Response) {
        let record = self.result(response);
        let told = response.extensions_mut().remove::<Told>().and_then(|told| told.what);
        let concerned = self.concerned(&record);
        let tenant = concerned.as_ref().or(self.caller.tenant());
        if let (Some(what), Some(tenant)) = (told, tenant) {
            self.front.system.tell(tenant, what);
        }
        let trails = [Some(trail), concerned.as_ref()].into_iter().flatten();
        let stored = join_all(trails.map(|trail| self.store(trail, &record)));
        let both = async { tokio::join!(begun.stored(), stored) };
        if timeout(ANSWER_WITHIN, both).await.is_err() {
            let (request_id, operation) = (record.request_id, record.operation);
            tracing::warn!(request_id, operation, "an answer did not wait any longer for its audit record");
        }
    }

    /// Stores the record; one that the log does not take waits in the background.
    async fn store(&self, trail: &TenantRef, record: &Audit) {
        match self.front.system.place(trail, record).await {
            // What has no clear outcome has its first record, at least.
            Ok(placed) => drop(placed.stored().await),
            // The tenant was deleted.
            Err(Error::NotFound(_)) => {}
            Err(_) => self.front.system.record(trail, record),
        }
    }

    /// The tenant that an operator's call was about, when it is there: it has the result in its own `_audit`, too.
    fn concerned(&self, record: &Audit) -> Option<TenantRef> {
        let name = record.target.as_deref().filter(|_| self.route.needs == Needs::Operator)?;
        self.front.auth.tenant_of(&self.caller.operator().ok()?, name)
    }
}

/// What is known of a call that was refused for its credential.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The id of the request.
    pub request_id: String,
    /// The operation.
    pub operation: Option<String>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
}

/// Notes the quotas for which a call was refused.
pub fn quota_reached(front: &Front, account: Option<&Account>, problem: &Problem) {
    let (Some(account), Some(quotas)) = (account, &problem.violated_policies) else { return };
    for quota in quotas {
        front.system.quota_reached(account.tenant(), quota);
    }
}

/// The same for an answer.
pub(super) fn look_for_quota(front: &Front, account: Option<&Account>, response: &Response) {
    if response.status() == StatusCode::TOO_MANY_REQUESTS
        && let Some(error) = response.extensions().get::<ApiError>()
    {
        quota_reached(front, account, error.problem());
    }
}

impl Attempt {
    /// An attempt to use the route.
    pub(super) fn new(request_id: &str, address: ClientAddress, method: &str, route: &str) -> Self {
        let operation = OPERATIONS.get(&(method.to_owned(), route.to_owned())).cloned();
        Self { request_id: request_id.to_owned(), operation, address: address.0 }
    }

    /// The attempt to open the WebSocket that began with `visit`.
    #[must_use]
    pub fn socket(visit: &Visit) -> Self {
        Self::new(visit.request_id().as_str(), visit.connection().address(), Method::GET.as_str(), SOCKET)
    }

    /// Notes that the credential, of which the tenant is known, was refused.
    pub fn refused(self, front: &Front, claim: &Claim, (status, code): (u16, ErrorCode)) {
        let record = Audit {
            request_id: Some(self.request_id),
            operation: self.operation,
            credential: Some(claim.credential.clone()),
            address: self.address.as_ref().map(IpAddr::to_string),
            status: Some(status),
            code: Some(code),
            ..Audit::new(AuditKind::Unauthenticated, front.broker.log().now().0)
        };
        front.system.note(&claim.tenant, Note::Unauthenticated, &record);
    }
}

fn about(visit: &Visit, route: &Route, caller: &Caller) -> Audit {
    let address = visit.connection().address();
    let id = visit.request_id().as_str();
    let Attempt { request_id, operation, address } = Attempt::new(id, address, route.method, route.path);
    Audit {
        request_id: Some(request_id),
        operation,
        credential: Some(caller.id().to_owned()),
        subject: caller.subject().map(str::to_owned),
        address: address.as_ref().map(IpAddr::to_string),
        ..Audit::new(AuditKind::Begun, 0)
    }
}

/// The one parameter of the path, percent-decoded.
async fn target(request: &mut Request) -> Option<String> {
    let params = request.extract_parts::<RawPathParams>().await.ok()?;
    params.iter().next().map(|(_, value)| value.to_owned())
}

/// A name as it is written down: none that may be a secret in the wrong place, or is too long to be a name.
fn shown(front: &Front, name: &str) -> Option<String> {
    (name.len() <= TARGET_BYTES_MAX && !front.auth.looks_secret(name)).then(|| name.to_owned())
}
