//! One request from its arrival to its answer: its id, the connection that it came on, and on whose account it is.

use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderValue};

use super::error::ApiError;
use super::front::Front;
use super::layers::X_REQUEST_ID;
use super::tenant_root::TenantRoot;
use crate::auth::{Account, Caller};
use crate::server::Connection;

/// Longest id of a request that is taken over from the client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Names a request, here and at the client: its answer and every log line that belongs to it have it.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id that the client gave, or a new one.
    pub(super) fn of(front: &Front, headers: &HeaderMap) -> Self {
        let given = headers.get(X_REQUEST_ID).filter(|id| {
            !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        Self(given.cloned().unwrap_or_else(|| {
            HeaderValue::try_from(front.next_request_id()).expect("made of letters, digits and a hyphen")
        }))
    }

    /// As it is shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(super) fn into_value(self) -> HeaderValue {
        self.0
    }
}

/// See the module. Requests that pass the router carry theirs as an extension, in an `Arc`.
#[derive(Debug)]
pub struct Visit {
    request_id: RequestId,
    connection: Connection,
    root: Option<TenantRoot>,
    account: OnceLock<Account>,
}

impl Visit {
    /// A request on `connection` of which nothing else is known yet.
    #[must_use]
    pub fn new(connection: Connection, request_id: RequestId) -> Self {
        Self { request_id, connection, root: None, account: OnceLock::new() }
    }

    /// The same for an address that begins with a tenant.
    pub(super) fn under(self, root: Option<TenantRoot>) -> Self {
        Self { root, ..self }
    }

    /// The id.
    #[must_use]
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// The id, when nothing else is needed any more.
    pub(super) fn into_request_id(self) -> RequestId {
        self.request_id
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The tenant that the address begins with, if it does.
    #[must_use]
    pub fn root(&self) -> Option<&TenantRoot> {
        self.root.as_ref()
    }

    /// On whose account the request is, once that is known; never for the root key alone, which is no tenant's.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.account.get()
    }

    /// Puts the request on the account of `caller`, and its connection unless that is on one already.
    ///
    /// # Errors
    /// `QuotaExceeded` for the request or the connection.
    pub fn enter(&self, caller: &Caller) -> Result<(), ApiError> {
        caller.account().map_or(Ok(()), |account| self.enter_account(account))
    }

    /// The same for who has no credential of a caller, but acts on an account.
    ///
    /// # Errors
    /// As [`Visit::enter`].
    pub fn enter_account(&self, account: &Account) -> Result<(), ApiError> {
        // A request has one caller; a second look at the credential finds the same.
        let (Ok(()) | Err(_)) = self.account.set(account.clone());
        let meters = account.meters();
        self.connection.keep(|| match meters.connection() {
            Ok(open) => Ok(Box::new(open)),
            Err(exceeded) => Err(ApiError::from(exceeded).closing()),
        })?;
        Ok(meters.request()?)
    }
}
