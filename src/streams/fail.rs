//! What the broker refuses, as the protocol says it: its statuses, and headers beside the problem document.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use plinth_api::error::{ErrorCode, Problem};
use plinth_storage::error::Refusal;

use super::headers::{
    PRODUCER_EPOCH, PRODUCER_EXPECTED_SEQ, PRODUCER_RECEIVED_SEQ, STREAM_CLOSED, STREAM_NEXT_OFFSET, TRUE, token,
};
use crate::broker::{Error, StreamProducer};
use crate::http::error::ApiError;

/// The answer to an append, or to a creation, that failed. `producer` is what it was to be recognized by.
pub(super) fn failed(error: Error, producer: Option<&StreamProducer>) -> Response {
    match error {
        Error::Closed { next } => {
            let closed = [(STREAM_CLOSED, TRUE), (STREAM_NEXT_OFFSET, token(next))];
            with(ApiError::from(error), closed)
        }
        Error::Refused { refusal: Refusal::ProducerEpoch { epoch }, detail } => {
            let mut problem = Problem::new(ErrorCode::ProducerFenced, detail);
            problem.epoch = Some(epoch.0);
            with(ApiError::of_problem(problem), [(PRODUCER_EPOCH, HeaderValue::from(epoch.0))])
        }
        Error::Refused { refusal: Refusal::Sequence { new_epoch: true, .. }, .. } => {
            ApiError::invalid("a new epoch of a producer begins with the sequence 0").into_response()
        }
        Error::Refused { refusal: Refusal::Sequence { expected, .. }, .. } => {
            let received = producer.map(|producer| (PRODUCER_RECEIVED_SEQ, HeaderValue::from(producer.seq)));
            let expected = (PRODUCER_EXPECTED_SEQ, HeaderValue::from(expected.0));
            with(ApiError::from(error), [expected].into_iter().chain(received))
        }
        error @ (Error::NotFound(_)
        | Error::Conflict(_)
        | Error::Refused { .. }
        | Error::Invalid(_)
        | Error::Unprocessable(_)
        | Error::InvalidCursor(_)
        | Error::TooLarge(_)
        | Error::Trimmed { .. }
        | Error::AboveTail { .. }
        | Error::Gone(_)
        | Error::ContentType { .. }
        | Error::QuotaExceeded(_)
        | Error::Busy(_)
        | Error::Unavailable(_)
        | Error::ShuttingDown(_)
        | Error::Unknown(_)
        | Error::Internal { .. }) => ApiError::from(error).into_response(),
    }
}

fn with(error: ApiError, headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Response {
    let mut response = error.into_response();
    response.headers_mut().extend(headers.into_iter().collect::<HeaderMap>());
    response
}
