//! Publish: one record as it comes, a JSON batch, lines of JSON, or a batch in its stored form.
//!
//! The hot path. The payload of a record is a slice of the body in all forms; it is not copied again before it is
//! in the bucket.

use std::fmt::Display;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody;
use axum::extract::{Extension, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use plinth_api::error::ErrorCode;
use plinth_api::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, STORED_BATCH_BYTES_MAX};
use plinth_api::records::{Durability, PublishBatch, PublishResults, Receipt, StoredBatches};
use plinth_api::topics::TopicName;
use plinth_storage::Durability as Class;
use plinth_storage::record::{Batch, NewRecord};
use serde::de::IgnoredAny;

use super::admit::{admit, turn_away};
use super::convert;
use super::error::ApiError;
use super::extract::{self, Bound, Name, Params};
use super::front::Front;
use super::routes::RECORDS;
use super::terms;
use super::traced;
use super::visit::{RequestId, Visit};
use crate::broker::{Publish, Published, Terms};
use crate::parse;
use crate::receipt::Answer;
use crate::telemetry::Transport;

const BATCH_JSON: &str = "application/vnd.plinth.batch+json";
const NDJSON: &str = "application/x-ndjson";
const STORED: &str = plinth_api::batch::MEDIA_TYPE;
const RECORD_KEY: &str = "record-key";
const RECORD_TTL: &str = "record-ttl";
const RECORD_HEADER: &str = "record-header-";
const DURABILITY: &str = "durability";

/// How the body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    One,
    Batch,
    Lines,
    Stored,
}

/// Publish records. The answer comes when they have reached the durability class of the topic, or the one asked for if it
/// is stronger; a weaker one is refused. The receipt names the class that was reached, which may be a stronger one.
///
/// The body is one payload of any type, which is kept as it is, unless its media type is one of the three batch types. For
/// one payload, `Record-Key: <key>` chooses the partition and `Record-Header-<Name>: <value>` sets a header. A record with
/// `Record-TTL: 1h`, or with `ttl` in a batch, is not delivered any more when that time has passed since its timestamp; readers
/// then get a gap with the reason `expired`.
///
/// `application/vnd.plinth.batch` is one batch in the form in which it is stored, as a read of that type gives it, with its
/// checksums (docs/format.md, section 8). It is checked and stored as it comes, whole in one partition: in a topic of
/// several its keys must all belong to one of them, unless `partition` names one. The partition, offset and time in it are
/// not looked at.
///
/// A publish with an `Idempotency-Key`, or with the three headers of a producer, is stored once: sent again, it gets the
/// first receipt with `duplicate: true`. After an outcome `unknown`, send it again until it gets a receipt or is refused
/// with a 4xx status.
///
/// A producer counts its publishes to each partition from 0 within an epoch. The last 64 receipts are kept; an older
/// sequence is refused although it is stored, which shows by an `expected_seq` above it. A producer is forgotten 7 days
/// after its last publish, an idempotency key after 24 hours.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/records",
    operation_id = "publish_records",
    tag = "records",
    params(
        ("topic" = TopicName, Path, description = "The name; a `/` in it is written `%2F`"),
        ("partition" = Option<u32>, Query, maximum = 1023, description = "The partition; default by the key, or the connection's own"),
        ("Record-Key" = Option<String>, Header, max_length = 1024, description = "The key of the one record"),
        ("Record-TTL" = Option<String>, Header,
            pattern = "^([1-9][0-9]{3,10}ms|[1-9][0-9]{0,7}s|[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}h|[1-9][0-9]{0,2}d|[1-9]y|10y)$",
            description = "How long the one record is delivered, such as `30s`, `1h` or `7d`: 1 s to \
            10 years"),
        ("Durability" = Option<Durability>, Header, description = "The least durability class to answer for; not a weaker one than \
            the topic's"),
        ("Traceparent" = Option<String>, Header, description = "The trace that the publish is part of (W3C Trace Context). A \
            record that is published alone keeps it, and `tracestate`, among its headers; one that breaks a rule is passed over"),
        ("Idempotency-Key" = Option<String>, Header, pattern = r#"^("[!-~]{1,255}"|[!-~]{1,255})$"#, description = "Recognizes the request when it is sent again within \
            24 hours, by 1 to 255 visible ASCII characters, quoted or bare; with other content it is refused"),
        ("Producer-Id" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "Names the producer, 1 to 255 visible ASCII characters. \
            Records without a key go to a partition by it"),
        ("Producer-Epoch" = Option<u64>, Header, maximum = 9_007_199_254_740_991_u64, description = "The producer's incarnation; a later one ends the others"),
        ("Producer-Seq" = Option<u64>, Header, maximum = 9_007_199_254_740_991_u64, description = "The number of the publish within the epoch, from 0"),
        ("Expected-Tail" = Option<u64>, Header, maximum = 9_007_199_254_740_991_u64, description = "Store only if the first record gets this offset; in a \
            topic of several partitions name one"),
        ("Fencing-Token" = Option<u64>, Header, maximum = 9_007_199_254_740_991_u64, description = "Store only if the partition has seen no higher token, \
            and remember it. A publish without one is not concerned; in a topic of several partitions name one"),
    ),
    request_body(
        description = "One payload, a batch, or lines of JSON",
        content(
            (serde_json::Value = "application/json"),
            (plinth_api::records::TextPayload = "text/plain"),
            (plinth_api::records::Payload = "application/octet-stream"),
            (serde_json::Value = "*/*"),
            (PublishBatch<'static> = "application/vnd.plinth.batch+json"),
            (String = "application/x-ndjson"),
            (StoredBatches = "application/vnd.plinth.batch"),
        )
    ),
    responses(
        (status = 201, description = "Stored in one partition", body = Receipt),
        (status = 200, description = "Stored in one partition by an earlier request", body = Receipt),
        (status = 207, description = "One result per record, for records of several partitions", body = PublishResults),
    )
)]
pub(super) async fn publish(
    State(front): State<Front>,
    Extension(visit): Extension<Arc<Visit>>,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    answer(&front, &visit, &name, (&parts, body)).await
}

/// Publishes the body of a request to the topic `name`.
pub(super) async fn answer<B>(
    front: &Front,
    visit: &Visit,
    name: &str,
    (parts, body): (&Parts, B),
) -> Result<Response, ApiError>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    let began = Instant::now();
    let (caller, topic, mut room) = match admit(front, visit, name, (&parts.headers, body.size_hint().exact())).await {
        Ok(admitted) => admitted,
        Err(refused) => return Err(Box::pin(turn_away(front, refused, body)).await),
    };
    let partition = partition(parts)?;
    let form = form(&parts.headers)?;
    let (durability, terms) = check_headers(&parts.headers, form)?;
    let bound = Bound { max: form.bytes_max(), what: form.name(), room: Some(&mut room) };
    let body = extract::body(front, &parts.headers, body, bound).await?;
    room.shrink(body.len() as u64);
    // The body may have taken its time.
    caller.check_suspended()?;
    let (records, stored) = records(form, &parts.headers, body)?;
    let (count, bytes) = (records.len(), records.iter().map(|record| record.payload.len() as u64).sum());
    let publish = Publish { partition, sticky: visit.connection().id().0, records, stored, durability, terms };
    let published = front.broker.publish(&topic, publish).await?;
    note(front, visit.request_id(), &published, (bytes, began));
    receipt(Answer::new(name, count, published))
}

fn note(front: &Front, request_id: &RequestId, published: &Published, (bytes, began): (u64, Instant)) {
    let stored = published.parts.iter().filter(|part| !part.duplicate).map(|part| u64::from(part.count)).sum();
    front.metrics.published(Transport::Http, stored, if stored == 0 { 0 } else { bytes });
    front.metrics.publish_took(began.elapsed().as_secs_f64());
    for (places, error) in &published.failed {
        let (request_id, records) = (request_id.as_str(), places.len());
        tracing::warn!(request_id, route = RECORDS, records, %error, "a part of a batch was not stored");
    }
}

fn receipt(answer: Answer) -> Result<Response, ApiError> {
    match answer {
        Answer::Stored(receipt) => {
            let status = if receipt.duplicate { StatusCode::OK } else { StatusCode::CREATED };
            Ok(convert::json(status, &receipt))
        }
        Answer::Each(results) => Ok(convert::json(StatusCode::MULTI_STATUS, &PublishResults { results })),
        Answer::Failed(error) => Err(error.into()),
    }
}

fn partition(parts: &Parts) -> Result<Option<u32>, ApiError> {
    let Some(query) = parts.uri.query() else { return Ok(None) };
    let mut params = Params::parse(Some(query));
    let partition = params.take_parsed("partition")?;
    params.finish()?;
    Ok(partition)
}

impl Form {
    fn bytes_max(self) -> usize {
        match self {
            Self::One => RECORD_BYTES_MAX,
            Self::Batch | Self::Lines => BATCH_BYTES_MAX,
            Self::Stored => STORED_BATCH_BYTES_MAX,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::One => "record",
            Self::Batch | Self::Lines | Self::Stored => "batch",
        }
    }
}

fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let media_type = extract::media_type(headers)?;
    match media_type.as_ref() {
        BATCH_JSON => Ok(Form::Batch),
        NDJSON => Ok(Form::Lines),
        STORED => Ok(Form::Stored),
        // To store these as they come would change their meaning on the day that they are offered.
        other if other.starts_with("application/vnd.plinth.") || other.starts_with("application/cloudevents") => {
            let detail = format!(
                "a body of {other} is not read here; there are {BATCH_JSON}, {NDJSON}, {STORED} and any payload"
            );
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail))
        }
        _ => Ok(Form::One),
    }
}

/// Refuses headers that are not known, and gives the durability class and the terms if there are any.
fn check_headers(headers: &HeaderMap, form: Form) -> Result<(Option<Class>, Option<Box<Terms>>), ApiError> {
    let (mut class, mut has_terms) = (None, false);
    for (name, value) in headers {
        let name = name.as_str();
        if name.starts_with("record-") {
            check_record_header(name, form)?;
        } else if terms::is_term(name) {
            has_terms = true;
        } else if name.starts_with("ce-") {
            // To ignore it would break what the client relies on.
            return Err(unknown(format!("the header `{name}` is not offered here")));
        } else if name == DURABILITY {
            if class.is_some() {
                return Err(ApiError::invalid(format!("the header `{DURABILITY}` is given more than once")));
            }
            class = Some(read_class(value)?);
        }
    }
    let terms = has_terms.then(|| terms::terms(headers)).transpose()?;
    Ok((class, terms.map(Box::new)))
}

fn read_class(value: &HeaderValue) -> Result<Class, ApiError> {
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        ApiError::invalid(format!("the header `{DURABILITY}` is {value:?} and none of `object`, `local` and `memory`"))
    })
}

fn check_record_header(name: &str, form: Form) -> Result<(), ApiError> {
    if name != RECORD_KEY && name != RECORD_TTL && record_header(name).is_none() {
        return Err(unknown(format!(
            "the header `{name}` is not known; there are `record-key`, `record-ttl` and `record-header-<name>`"
        )));
    }
    if form == Form::One {
        return Ok(());
    }
    Err(unknown(format!("the header `{name}` does not apply to a batch; say it in the batch's records")))
}

fn record_header(name: &str) -> Option<&str> {
    name.strip_prefix(RECORD_HEADER).filter(|name| !name.is_empty())
}

fn unknown(detail: String) -> ApiError {
    ApiError::new(ErrorCode::UnknownField, detail)
}

/// The records, and their stored form when it came so.
fn records(form: Form, headers: &HeaderMap, body: Bytes) -> Result<(Vec<NewRecord>, Option<Batch>), ApiError> {
    if body.is_empty() {
        return Err(ApiError::invalid("the body is empty; a record has at least 1 byte and a batch at least 1 record"));
    }
    match form {
        Form::One => Ok((vec![one_record(headers, body)?], None)),
        Form::Batch => {
            let batch: PublishBatch<'_> = extract::from_json(&body)?;
            Ok((parse::new_records(batch.records, &body)?, None))
        }
        Form::Lines => Ok((lines(&body)?, None)),
        Form::Stored => {
            let (records, stored) = parse::stored_batch(&body)?;
            Ok((records, Some(stored)))
        }
    }
}

fn one_record(headers: &HeaderMap, payload: Bytes) -> Result<NewRecord, ApiError> {
    let owned = |value: &axum::http::HeaderValue| Bytes::copy_from_slice(value.as_bytes());
    let is_traced = traced::context(headers).is_some();
    let is_kept = |name: &HeaderName| match name.as_str() {
        "traceparent" => is_traced.then_some(Bytes::from_static(b"traceparent")),
        "tracestate" => (is_traced && traced::state(headers).is_some()).then_some(Bytes::from_static(b"tracestate")),
        name => record_header(name).map(|name| Bytes::copy_from_slice(name.as_bytes())),
    };
    let record = NewRecord {
        key: headers.get(RECORD_KEY).map(owned),
        content_type: headers.get(CONTENT_TYPE).map(owned).unwrap_or_default(),
        headers: headers.iter().filter_map(|(name, value)| Some((is_kept(name)?, owned(value)))).collect(),
        ttl_ms: record_ttl(headers)?,
        payload,
    };
    Ok(record)
}

fn record_ttl(headers: &HeaderMap) -> Result<Option<NonZeroU64>, ApiError> {
    let mut given = headers.get_all(RECORD_TTL).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(ApiError::invalid(format!("the header `{RECORD_TTL}` is given more than once")));
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    Ok(Some(parse::ttl(&format!("the header `{RECORD_TTL}`"), &text)?))
}

/// One record per line, its payload a slice of the body. Lines without content are skipped.
fn lines(body: &Bytes) -> Result<Vec<NewRecord>, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let line = 1 + body[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        ApiError::invalid(format!("line {line} is not UTF-8; nothing was stored"))
    })?;
    let content = text.split('\n').enumerate().map(|(index, line)| (index + 1, line.trim_ascii()));
    let content = content.filter(|(_, line)| !line.is_empty());
    let mut records = Vec::new();
    for (number, line) in content.clone().take(BATCH_RECORDS_MAX) {
        records.push(line_record(body, number, line)?);
    }
    if records.is_empty() {
        return Err(ApiError::invalid("the body has only empty lines; a batch has at least 1 record"));
    }
    let count = records.len() + content.skip(BATCH_RECORDS_MAX).count();
    parse::check_count(count)?;
    Ok(records)
}

fn line_record(body: &Bytes, number: usize, line: &str) -> Result<NewRecord, ApiError> {
    serde_json::from_str::<IgnoredAny>(line).map_err(|error| {
        let (column, why) = (error.column(), error.to_string());
        let why = why.split(" at line ").next().unwrap_or_default();
        ApiError::invalid(format!("line {number} is not JSON: {why} at column {column}; nothing was stored"))
    })?;
    if line.len() > RECORD_BYTES_MAX {
        let detail = format!("line {number} of {} bytes exceeds the limit of {RECORD_BYTES_MAX}", line.len());
        return Err(ApiError::new(ErrorCode::TooLarge, detail));
    }
    Ok(NewRecord {
        content_type: Bytes::from_static(b"application/json"),
        payload: body.slice_ref(line.as_bytes()),
        ..NewRecord::default()
    })
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests;
