//! Which error code a refusal of the broker or of `auth` has, for every transport.
//!
//! The one place where a cause becomes public words. A new variant must be placed here by hand. Says nothing about HTTP
//! headers or frames, and never shows the source of an error: that is for the log.

use plinth_api::error::{ErrorCode, Problem};
use plinth_api::limits::NUMBER_MAX;
use plinth_storage::error::Refusal;

use crate::auth::Denied;
use crate::broker::Error;

/// The problem document of a broker error.
#[must_use]
pub fn problem_of(error: &Error) -> Problem {
    let mut problem = Problem::new(code_of(error), detail_of(error));
    match error {
        Error::Trimmed { start, .. } => problem.start = Some(*start),
        Error::AboveTail { tail, .. } => problem.tail = Some(*tail),
        Error::Refused { refusal, .. } => match *refusal {
            Refusal::Tail { tail } => problem.tail = Some(tail.0),
            Refusal::Sequence { expected, .. } => problem.expected_seq = Some(expected.0),
            Refusal::ProducerEpoch { epoch } => problem.epoch = Some(epoch.0),
            Refusal::FencingToken { token } => problem.fencing_token = Some(token.0),
            Refusal::Closed { tail } => problem.tail = Some(tail.0),
            Refusal::StreamSeq | Refusal::OtherContent => {}
        },
        Error::QuotaExceeded(exceeded) => {
            let wait = u64::try_from(exceeded.wait.as_millis()).unwrap_or(u64::MAX);
            problem.retry_after_ms = Some(wait.saturating_add(1).min(NUMBER_MAX));
            problem.violated_policies = Some(vec![format!("{}{}", exceeded.whose.prefix(), exceeded.quota.as_str())]);
        }
        Error::NotFound { .. }
        | Error::Conflict { .. }
        | Error::Invalid { .. }
        | Error::Unprocessable { .. }
        | Error::InvalidCursor { .. }
        | Error::TooLarge { .. }
        | Error::Gone(_)
        | Error::Closed { .. }
        | Error::ContentType { .. }
        | Error::Busy { .. }
        | Error::Unavailable { .. }
        | Error::ShuttingDown { .. }
        | Error::Unknown { .. }
        | Error::Internal { .. } => {}
    }
    problem
}

/// The problem document of a refused credential, scope or topic name.
#[must_use]
pub fn problem_of_denied(denied: &Denied) -> Problem {
    match denied {
        Denied::Unauthenticated(detail) => Problem::new(ErrorCode::Unauthenticated, detail),
        Denied::Token(fault) => {
            let mut problem = Problem::new(ErrorCode::Unauthenticated, fault.to_string());
            problem.reason = Some(fault.fault.as_str().to_owned());
            problem
        }
        Denied::Forbidden(detail) => Problem::new(ErrorCode::Forbidden, detail),
        Denied::Suspended(detail) => Problem::new(ErrorCode::TenantSuspended, detail),
        Denied::InvalidTopicName(detail) => Problem::new(ErrorCode::InvalidTopicName, detail),
        Denied::NotFound(detail) => Problem::new(ErrorCode::NotFound, detail),
        Denied::Unavailable(detail) => Problem::new(ErrorCode::StoreUnavailable, detail),
    }
}

/// The same problem as the answer to a publish: it says what is known about the records.
#[must_use]
pub fn of_publish(mut problem: Problem) -> Problem {
    problem.outcome = Some(problem.code.outcome());
    problem
}

fn code_of(error: &Error) -> ErrorCode {
    match error {
        Error::NotFound { .. } => ErrorCode::NotFound,
        Error::Conflict { .. } => ErrorCode::Conflict,
        Error::Refused { refusal, .. } => match refusal {
            Refusal::Tail { .. } => ErrorCode::TailMismatch,
            Refusal::Closed { .. } => ErrorCode::Closed,
            Refusal::Sequence { .. } | Refusal::StreamSeq => ErrorCode::SequenceMismatch,
            Refusal::ProducerEpoch { .. } | Refusal::FencingToken { .. } => ErrorCode::Fenced,
            Refusal::OtherContent => ErrorCode::IdempotencyKeyReused,
        },
        Error::Invalid { .. } => ErrorCode::InvalidRequest,
        Error::Unprocessable { .. } => ErrorCode::Unprocessable,
        Error::InvalidCursor { .. } => ErrorCode::InvalidCursor,
        Error::TooLarge { .. } => ErrorCode::TooLarge,
        Error::Trimmed { .. } => ErrorCode::OffsetTrimmed,
        Error::AboveTail { .. } => ErrorCode::OffsetAboveTail,
        Error::Gone(_) => ErrorCode::Gone,
        Error::Closed { .. } => ErrorCode::Closed,
        Error::ContentType { .. } => ErrorCode::ContentTypeMismatch,
        Error::QuotaExceeded(_) => ErrorCode::QuotaExceeded,
        Error::Busy { .. } => ErrorCode::Overloaded,
        Error::Unavailable { .. } => ErrorCode::StoreUnavailable,
        Error::ShuttingDown { .. } => ErrorCode::ShuttingDown,
        Error::Unknown { .. } => ErrorCode::OutcomeUnknown,
        Error::Internal { .. } => ErrorCode::Internal,
    }
}

fn detail_of(error: &Error) -> String {
    if matches!(error, Error::Internal { .. }) {
        return "the server failed; its log says why".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use plinth_api::error::PublishOutcome;

    use super::*;

    #[test]
    fn an_offset_above_the_tail_names_the_tail() {
        let problem = problem_of(&Error::AboveTail { requested: 9, tail: 4 });
        assert_eq!((problem.status, problem.tail, problem.start), (416, Some(4), None));
        let problem = problem_of(&Error::Trimmed { requested: 1, start: 3 });
        assert_eq!((problem.status, problem.tail, problem.start), (410, None, Some(3)));
    }

    #[test]
    fn a_failed_publish_says_what_is_known_about_its_records() {
        let unavailable = of_publish(problem_of(&Error::Unavailable("the store is away".to_owned())));
        assert_eq!((unavailable.status, unavailable.outcome), (503, Some(PublishOutcome::NotStored)));
        let unknown = of_publish(problem_of(&Error::Unknown("no answer in 30 s".to_owned())));
        assert_eq!((unknown.status, unknown.outcome), (504, Some(PublishOutcome::Unknown)));
    }
}
