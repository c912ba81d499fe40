//! How a request fails: a problem document for the client, a cause for the log.
//!
//! A handler returns an [`ApiError`]; the edge layer writes the document, with what only it knows (the id of the request,
//! whether it was a publish), and the one log line. The cause never reaches the client.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use plinth_api::error::{ErrorCode, Problem, Retry};
use plinth_storage::error::Chain;

use crate::auth::{Claim, Denied, Fault, TokenFault};
use crate::broker::{self, Exceeded};
use crate::problem::{problem_of, problem_of_denied};

/// The media type of a problem document (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request failed.
#[derive(Clone)]
pub struct ApiError(Arc<Failure>);

struct Failure {
    problem: Problem,
    /// Whether the connection ends with the answer.
    closes: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// What is wrong with the token, when that is why.
    fault: Option<Fault>,
    /// Whose credential was refused, when that is why and as far as it is known.
    claim: Option<Claim>,
}

impl ApiError {
    /// A failure with `code`; `detail` is a lower-case sentence for the client that names the thing and the limit.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::from_parts(Problem::new(code, detail), None)
    }

    /// A request that cannot be read.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, detail)
    }

    /// A failure that is described already.
    #[must_use]
    pub(crate) fn of_problem(problem: Problem) -> Self {
        Self::from_parts(problem, None)
    }

    /// A defect of the server; `source` is for the log.
    #[must_use]
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let problem = Problem::new(ErrorCode::Internal, "the server failed; its log says why");
        Self::from_parts(problem, Some(source.into()))
    }

    /// The same, and the connection ends with the answer.
    #[must_use]
    pub(super) fn closing(self) -> Self {
        let Failure { ref problem, fault, .. } = *self.0;
        Self(Arc::new(Failure { problem: problem.clone(), closes: true, source: None, fault, claim: None }))
    }

    /// A token that is not valid; `detail` is for its bearer.
    #[must_use]
    pub fn of_token(fault: &TokenFault, detail: &str) -> Self {
        let mut problem = problem_of_denied(&Denied::Token(fault.clone()));
        detail.clone_into(&mut problem.detail);
        Self(Arc::new(Failure { problem, closes: false, source: None, fault: Some(fault.fault), claim: None }))
    }

    /// A credential that was refused; `claim` is whose it would have been, for that tenant's `_audit`.
    #[must_use]
    pub(super) fn of_credential(denied: &Denied, claim: Option<Claim>) -> Self {
        let fault = if let Denied::Token(fault) = denied { Some(fault.fault) } else { None };
        Self(Arc::new(Failure { problem: problem_of_denied(denied), closes: false, source: None, fault, claim }))
    }

    /// Whose credential was refused.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.0.claim.as_ref()
    }

    /// The document for the client.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.0.problem.code
    }

    /// Writes the one log line of this failure. A client's mistake is not worth more than `debug`, and its code is enough:
    /// the detail, which the client gets, may repeat what it sent. Neither is a 503 worth more: while the store is away or
    /// the node full they come by the thousand. They are counted, and the log says once that the store went and once that
    /// it came back.
    pub(super) fn log(&self, request_id: &str, route: &str) {
        let Problem { status, detail, .. } = &self.0.problem;
        let (code, cause) = (self.code().as_str(), self.cause());
        if *status < 500 {
            tracing::debug!(request_id, route, status, code, "refused");
        } else if self.code() == ErrorCode::Internal {
            tracing::error!(request_id, route, status, code, %cause, "{detail}");
        } else if self.code() == ErrorCode::OutcomeUnknown {
            tracing::warn!(request_id, route, status, code, %cause, "{detail}");
        } else {
            tracing::debug!(request_id, route, status, code, %cause, "{detail}");
        }
    }

    /// Turns `response`, which carries this failure, into the document.
    /// Everyone is to come back after a time of his own, `later` in ms if nothing else is known.
    pub(super) fn write(&self, response: &mut Response, request_id: &str, publish: bool, later: u64) {
        let mut problem = self.0.problem.clone();
        problem.request_id = Some(request_id.to_owned());
        problem.outcome = publish.then(|| problem.code.outcome());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.code().retry() == Retry::Later {
            let wait = problem.retry_after_ms.as_mut().map(|wait| {
                *wait = wait.saturating_add(later);
                *wait
            });
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.unwrap_or(later).div_ceil(1000)));
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if self.0.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *response.body_mut() =
            Body::from(serde_json::to_vec(&problem).expect("a problem is plain strings and numbers"));
    }

    fn cause(&self) -> String {
        let Some(source) = self.0.source.as_deref() else { return String::new() };
        Chain(source).to_string()
    }

    fn from_parts(problem: Problem, source: Option<Box<dyn StdError + Send + Sync>>) -> Self {
        // Where the body may not have been read to its end, what follows on the connection would be taken for a request.
        let closes = matches!(problem.code, ErrorCode::RequestTimeout | ErrorCode::TooLarge);
        Self(Arc::new(Failure { problem, closes, source, fault: None, claim: None }))
    }

    /// RFC 6750 §3.
    fn challenge(&self) -> Option<HeaderValue> {
        match (self.0.fault, self.code().status()) {
            (Some(fault), 401) => {
                let sentence = fault.sentence();
                let text = format!(r#"Bearer realm="plinth", error="invalid_token", error_description="{sentence}""#);
                Some(HeaderValue::try_from(text).expect("a sentence of ours is plain text"))
            }
            (None, 401) => Some(HeaderValue::from_static(r#"Bearer realm="plinth""#)),
            (_, 403) if self.code() != ErrorCode::ProducerFenced => {
                Some(HeaderValue::from_static(r#"Bearer realm="plinth", error="insufficient_scope""#))
            }
            (_, _) => None,
        }
    }
}

impl From<broker::Error> for ApiError {
    fn from(error: broker::Error) -> Self {
        Self::from_parts(problem_of(&error), Some(Box::new(error)))
    }
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        broker::Error::from(exceeded).into()
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::of_credential(&denied, None)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.problem.status).expect("every code has a valid status");
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code().as_str(), self.0.problem.detail)
    }
}
