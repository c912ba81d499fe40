//! Long-poll: what comes behind an offset, or the word that nothing did.

use axum::http::header::ETAG;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use tokio::time::timeout;

use super::cursor::next_cursor;
use super::etag;
use super::get::{Failed, Wanted};
use super::headers::{self, STREAM_CURSOR};
use crate::auth::{Caller, TopicRef};
use crate::broker::{Error, FollowedBatch, StreamFollower, StreamFrom, StreamMoved};
use crate::http::Front;
use crate::http::pieces::Pieces;
use crate::http::read::refused;
use crate::telemetry::Transport;

/// What is behind the offset, or comes within the time that a long-poll waits.
pub(super) async fn answer(
    front: &Front,
    caller: &Caller,
    topic: &TopicRef,
    (wanted, asked): (&Wanted, &HeaderMap),
) -> Result<Response, Failed> {
    let mut follower = front.broker.follow_stream(topic, wanted.from, front.streams.response_bytes).await?;
    let moved = wait(front, caller, &mut follower).await?;
    let mut response = Response::default();
    let told = response.headers_mut();
    headers::write_end(told, moved.next, moved.closed);
    headers::write_up_to_date(told, moved.up_to_date);
    headers::write_gaps(told, &moved.gaps);
    if !moved.closed {
        let cursor = next_cursor(wanted.cursor.as_deref(), front.broker.log().now(), |below| front.random(below));
        told.insert(STREAM_CURSOR, HeaderValue::from(cursor));
    }
    if moved.batches.is_empty() {
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    if wanted.from != StreamFrom::Now {
        let etag = etag::of_part(follower.view().id, moved.from..moved.to, (moved.up_to_date, moved.closed));
        let known = etag::is_known(asked, &etag);
        told.insert(ETAG, etag);
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
    }
    headers::write_media_type(told, follower.view());
    let held = moved.batches.iter().map(FollowedBatch::pinned_bytes).sum();
    let room = front.broker.room_of_page(topic.account(), held)?;
    front.metrics.delivered(Transport::Page, moved.records());
    *response.body_mut() = Pieces::body(moved.pieces(), room);
    Ok(response)
}

async fn wait(front: &Front, caller: &Caller, follower: &mut StreamFollower) -> Result<StreamMoved, Failed> {
    let mut moved = follower.next().await?;
    tokio::select! {
        // When the time is over, what there was is the answer.
        waited = timeout(front.streams.long_poll, until_more(follower, &mut moved)) => waited.unwrap_or(Ok(()))?,
        denied = refused(front, caller) => return Err(Failed::Api(denied.into())),
        // A node that ends answers its long-polls with what there is.
        () = front.shutdown.cancelled() => {}
    }
    Ok(moved)
}

/// Goes on until there is something to answer with. Cancel safe: `moved` is what there was.
async fn until_more(follower: &mut StreamFollower, moved: &mut StreamMoved) -> Result<(), Error> {
    while moved.batches.is_empty() && !moved.closed {
        let next = follower.next().await?;
        let before = std::mem::replace(moved, next);
        moved.from = before.from;
        moved.gaps.splice(..0, before.gaps);
    }
    Ok(())
}
