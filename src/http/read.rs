//! Read the records of one topic: a page, a long-poll, or a live stream, by the `Accept` header.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use bytes::BytesMut;
use plinth_api::batch::HEAD_BYTES;
use plinth_api::limits::{PAGE_BYTES_MAX, PAGE_RECORDS_DEFAULT, PAGE_RECORDS_MAX, WAIT_MS_MAX};
use plinth_api::records::{EventFormat, Gap, RecordPage, StoredBatches, Wait};
use plinth_api::topics::TopicName;

use super::accept::{MediaType, negotiate};
use super::access;
use super::error::ApiError;
use super::extract::{Name, Params, visit};
use super::front::Front;
use super::live::{self, LiveRequest};
use super::pieces::Pieces;
use crate::auth::{Action, Caller, Denied, Revocations, TopicRef};
use crate::broker::{FollowedBatch, From as Start, Page, PageGap, PageRequest, Room, Unit};
use crate::telemetry::Transport;

const OFFERED: [MediaType; 4] = [MediaType::Json, MediaType::Ndjson, MediaType::EventStream, MediaType::Batch];
const NEXT: HeaderName = HeaderName::from_static("plinth-next");
const GAP: HeaderName = HeaderName::from_static("plinth-gap");
const CAUGHT_UP: HeaderName = HeaderName::from_static("plinth-caught-up");

/// Read the records of a topic, or follow it.
///
/// `application/json` answers a page (with `wait`, a long-poll), `application/x-ndjson` one record per line for ever with
/// control lines `{"control":…}` and empty lines in between, `text/event-stream` server-sent events. A header
/// `Last-Event-ID` wins over `from`.
///
/// `application/vnd.plinth.batch` answers a page of whole batches in the form in which they are stored, with their checksums
/// (docs/format.md, section 8); what comes next is in the headers `Plinth-Next` and `Plinth-Caught-Up`, and where records
/// are missing in `Plinth-Gap`. A batch is not
/// cut to the page: the first one of a partition may begin before `from`, and the first one of the page is sent whatever its
/// size. Only records that were deleted are taken out of it.
///
/// A browser's `EventSource` that is opened with a ticket comes back by itself after a broken connection: the answer sets
/// the cookie `__Secure-plinth`, which for 12 hours opens the same address again, for reading, while the ticket's key
/// lives. It is set over TLS, or by `localhost`, and not for tickets of the root key.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/records",
    operation_id = "read_records",
    tag = "records",
    params(
        ("topic" = TopicName, Path, description = "The name; a `/` in it is written `%2F`"),
        ("from" = Option<plinth_api::records::From>, Query,
            description = "Default `earliest` for a page and `latest` for a stream"),
        ("partition" = Option<u32>, Query, maximum = 1023, description = "Only this partition; default all"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "Page: most records; default 1000"),
        ("max_bytes" = Option<u32>, Query, minimum = 1, maximum = 8_388_608,
            description = "Page: about the most payload bytes, or bytes of batches; at least one comes"),
        ("wait" = Option<Wait>, Query, description = "Page: how long to wait for a record, at most 60 s"),
        ("format" = Option<EventFormat>, Query, description = "Events: what their data is; default the record"),
        ("unnamed" = Option<bool>, Query, description = "Events: records without an event name, for `onmessage`"),
        ("last_event_id" = Option<String>, Query, description = "Streams: as the header, for clients that cannot set it"),
        ("Last-Event-ID" = Option<String>, Header, description = "The cursor of the last event that was seen"),
        ("__Secure-plinth" = Option<String>, Cookie, description = "Events: what a ticket left; beside the spent ticket, \
            from a page of the server's own origin, it opens the same address again"),
    ),
    responses(
        (status = 200, description = "A page, or a stream that goes on", content(
            (RecordPage = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/event-stream"),
            (StoredBatches = "application/vnd.plinth.batch"),
        ), headers(
            ("Plinth-Next" = String, description = "Of a page of stored batches: the cursor after it. It grows with the \
                partitions that are read: up to 16 KiB of 1,024. Name a `partition` where something on the way allows less"),
            ("Plinth-Caught-Up" = bool, description = "Of a page of stored batches: whether it reached every tail"),
            ("Plinth-Gap" = String, description = "Of a page of stored batches, once for each place where records are \
                missing: `partition=0; requested=5; resumed_at=1029; reason=lost`"),
        )),
    )
)]
pub(super) async fn read(State(front): State<Front>, Name(name): Name, request: Request) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let mut params = Params::parse(parts.uri.query());
    let media_type = negotiate(&parts.headers, &OFFERED);
    let again = matches!(media_type, Ok(MediaType::EventStream));
    let access = match access::of_stream(&front, visit(&parts)?, &parts, &mut params, again).await {
        Err(refused) if again => return live::send_away(&front, refused),
        access => access?,
    };
    let topic = access.caller.authorize(Action::Subscribe, &name)?;
    match media_type? {
        MediaType::Json => {
            let (page, room) = page(&front, &access.caller, page_request(topic, params, Unit::Record)?).await?;
            Ok(page_answer(&page, room))
        }
        MediaType::Batch => {
            let (page, room) = page(&front, &access.caller, page_request(topic, params, Unit::Batch)?).await?;
            Ok(batches_answer(&page, room))
        }
        media_type @ (MediaType::Ndjson | MediaType::EventStream) => {
            let topics = vec![access.caller.authorize_pattern(Action::Subscribe, &name)?];
            let request = LiveRequest::take(media_type, &parts.headers, &mut params, topics)?;
            params.finish()?;
            live::answer(front, access, request, visit(&parts)?.request_id().clone()).await
        }
    }
}

/// A page, and the room that it takes until it is sent: a reader may take long.
async fn page(front: &Front, caller: &Caller, request: PageRequest) -> Result<(Page, Room), ApiError> {
    let topic = request.topic.clone();
    let (at_once, waits) = (PageRequest { wait: None, ..request.clone() }, request.wait.is_some());
    let page = tokio::select! {
        page = front.broker.page(request) => page?,
        // A node that ends answers its long-polls with what there is.
        () = front.shutdown.cancelled() => front.broker.page(at_once).await?,
        denied = refused(front, caller), if waits => return Err(denied.into()),
    };
    let room = front.broker.room_of_page(topic.account(), page.slices.iter().map(FollowedBatch::pinned_bytes).sum())?;
    let records = page.slices.iter().map(|slice| u64::from(slice.count())).sum();
    front.metrics.delivered(Transport::Page, records);
    Ok((page, room))
}

/// Resolves when the caller may not go on: a long-poll must not outlive its credential.
pub(crate) async fn refused(front: &Front, caller: &Caller) -> Denied {
    let mut revoked = Revocations::of(caller);
    loop {
        if let Some(denied) = front.auth.ended(caller) {
            return denied;
        }
        revoked.changed().await;
    }
}

fn page_request(topic: TopicRef, mut params: Params<'_>, unit: Unit) -> Result<PageRequest, ApiError> {
    let media_type = match unit {
        Unit::Record => MediaType::Json,
        Unit::Batch => MediaType::Batch,
    };
    for name in ["format", "unnamed", "last_event_id"] {
        params.refuse(name, media_type.as_str())?;
    }
    let request = PageRequest {
        topic,
        partition: params.take_parsed("partition")?,
        from: start(&mut params)?.unwrap_or(Start::Earliest),
        limit: params.take_count("limit", PAGE_RECORDS_DEFAULT, PAGE_RECORDS_MAX)?,
        bytes_max: params.take_count("max_bytes", PAGE_BYTES_MAX, PAGE_BYTES_MAX)?,
        unit,
        wait: params.take("wait")?.map(|text| wait(&text)).transpose()?,
    };
    params.finish()?;
    Ok(request)
}

/// Where to begin, if the query says so.
pub(super) fn start(params: &mut Params<'_>) -> Result<Option<Start>, ApiError> {
    Ok(params.take("from")?.map(|text| text.parse::<Start>()).transpose()?)
}

fn wait(text: &str) -> Result<Duration, ApiError> {
    let wait = humantime::parse_duration(text).map_err(|_| {
        ApiError::invalid(format!("the query parameter `wait` is `{text}` and must be a time such as `20s` or `500ms`"))
    })?;
    if wait > Duration::from_millis(WAIT_MS_MAX) {
        let limit = WAIT_MS_MAX / 1000;
        return Err(ApiError::invalid(format!("the query parameter `wait` is `{text}`, the limit is {limit} s")));
    }
    Ok(wait)
}

/// `{"records":[…],"next":"…","caught_up":…,"gaps":[…]}` in pieces: the records are slices of what all readers share.
fn page_answer(page: &Page, room: Room) -> Response {
    let mut pieces = VecDeque::with_capacity(2 * page.slices.len() + 2);
    pieces.push_back(Bytes::from_static(br#"{"records":["#));
    for (index, slice) in page.slices.iter().enumerate() {
        if index > 0 {
            pieces.push_back(Bytes::from_static(b","));
        }
        pieces.push_back(slice.json_items());
    }
    let next = serde_json::to_string(&page.next).expect("a string is valid JSON");
    pieces.push_back(Bytes::from(format!(r#"],"next":{next},"caught_up":{}"#, page.caught_up)));
    if !page.gaps.is_empty() {
        let gaps: Vec<Gap> = page.gaps.iter().map(shown).collect();
        let gaps = serde_json::to_string(&gaps).expect("strings and numbers are valid JSON");
        pieces.push_back(Bytes::from(format!(r#","gaps":{gaps}"#)));
    }
    pieces.push_back(Bytes::from_static(b"}"));
    let mut response = Response::new(Pieces::body(pieces, room));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The batches of a page in pieces: heads of their own, and the stored bytes that all readers share.
fn batches_answer(page: &Page, room: Room) -> Response {
    let mut heads = BytesMut::with_capacity(HEAD_BYTES * page.slices.len());
    let mut pieces = VecDeque::with_capacity(2 * page.slices.len());
    for batch in &page.slices {
        heads.extend_from_slice(&batch.frame_head().encode());
        pieces.push_back(heads.split().freeze());
        pieces.extend(batch.stored_form().iter().cloned());
    }
    let mut response = Response::new(Pieces::body(pieces, room));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MediaType::Batch.as_str()));
    headers.insert(NEXT, HeaderValue::from_str(&page.next).expect("a cursor is base64url"));
    headers.insert(CAUGHT_UP, HeaderValue::from_static(if page.caught_up { "true" } else { "false" }));
    for gap in &page.gaps {
        let PageGap { partition, requested, resumed_at, reason, .. } = gap;
        let text = format!("partition={partition}; requested={requested}; resumed_at={resumed_at}; reason={reason}");
        headers.append(GAP, HeaderValue::from_str(&text).expect("numbers and a word are visible ASCII"));
    }
    response
}

fn shown(gap: &PageGap) -> Gap {
    let PageGap { ref topic, partition, requested, resumed_at, reason } = *gap;
    Gap { topic: topic.to_string(), partition, requested, resumed_at, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_time_of_at_most_a_minute() {
        assert_eq!(wait("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(wait("60s").unwrap(), Duration::from_secs(60));
        assert!(wait("61s").unwrap_err().problem().detail.contains("the limit is 60 s"));
        assert!(wait("soon").unwrap_err().problem().detail.contains("`soon`"));
    }
}
