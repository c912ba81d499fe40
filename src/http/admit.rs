//! Admission of a publish: what can refuse it before the work for it begins, and what becomes of its body then.
//!
//! A client that reads its answer while it still writes its body would find the connection broken at its next request. So
//! a small body is read and thrown away, and a large one ends the connection, which the answer says.

use std::fmt::Display;
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::http::HeaderMap;
use http_body_util::BodyExt;
use plinth_api::error::ErrorCode;
use plinth_api::limits::STORED_BATCH_BYTES_MAX;
use tokio::time::timeout;

use super::error::ApiError;
use super::extract;
use super::front::Front;
use super::visit::Visit;
use crate::auth::{Action, Caller, TopicRef};
use crate::broker::Room;

/// The largest body that is read for nothing.
const UNREAD_BYTES_MAX: u64 = 64 * 1024;

/// The caller, the topic to publish to, and room for a body of so many bytes, if that is known.
///
/// # Errors
/// Those of the credential; `QuotaExceeded`; `Overloaded` when the node is full.
pub(crate) async fn admit(
    front: &Front,
    visit: &Visit,
    name: &str,
    (headers, body): (&HeaderMap, Option<u64>),
) -> Result<(Caller, TopicRef, Room), ApiError> {
    let caller = extract::caller(front, visit, headers).await?;
    let topic = caller.authorize(Action::Publish, name)?;
    topic.account().meters().check_publish()?;
    // What is over the largest is refused without being read; a body of unknown length takes more as it comes.
    let expected = body.unwrap_or(0).min(STORED_BATCH_BYTES_MAX as u64);
    let room = front.broker.room(topic.account(), expected)?;
    Ok((caller, topic, room))
}

/// Does away with the body of a publish that is refused because of a quota or the node's capacity.
pub(crate) async fn turn_away<B>(front: &Front, refused: ApiError, body: B) -> ApiError
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    if !matches!(refused.code(), ErrorCode::QuotaExceeded | ErrorCode::Overloaded) {
        return refused;
    }
    let small = body.size_hint().exact().is_some_and(|bytes| bytes <= UNREAD_BYTES_MAX);
    if small && drain(body, front.limits.body_timeout).await { refused } else { refused.closing() }
}

/// Whether the body came to its end in time.
async fn drain<B>(mut body: B, patience: Duration) -> bool
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    let end = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    timeout(patience, end).await.unwrap_or(false)
}
