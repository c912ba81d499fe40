//! Between the words of the API and those of the broker and `auth`.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::limits::{LIST_ITEMS_DEFAULT, LIST_ITEMS_MAX};
use plinth_api::{ListPage, keys, tenants, topics};
use plinth_storage::Cleanup;
use plinth_storage::log::Bounds;
use serde::Serialize;

use super::error::ApiError;
use super::extract::Params;
use super::retention;
use crate::auth::{KeyChange, KeyRequest, KeyView, NewKey, TenantChange, TenantSettings, TenantView, Ticket};
use crate::broker::{Expiry, StreamView, TopicChange, TopicSettings, TopicView, TopicsRequest};
use crate::units::show_millis;
use crate::{parse, receipt};

/// An answer of `value` as JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let mut text = Vec::with_capacity(256);
    serde_json::to_writer(&mut text, value).expect("the types of the API are plain strings and numbers");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without content.
pub(crate) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Which part of a list is asked for.
#[derive(Debug)]
pub(crate) struct ListRequest {
    /// The last item of the page before.
    pub(crate) after: Option<String>,
    /// Most items of the page.
    pub(crate) limit: usize,
}

impl ListRequest {
    /// Of a list that takes no other parameters.
    pub(super) fn alone(query: Option<&str>) -> Result<Self, ApiError> {
        let mut params = Params::parse(query);
        let wanted = Self::take(&mut params)?;
        params.finish()?;
        Ok(wanted)
    }

    pub(crate) fn take(params: &mut Params<'_>) -> Result<Self, ApiError> {
        let limit = params.take_count("limit", LIST_ITEMS_DEFAULT, LIST_ITEMS_MAX)?;
        let after = params.take("cursor")?.map(|cursor| list_cursor(&cursor)).transpose()?;
        Ok(Self { after, limit })
    }

    /// How many items to look for: one more than the page holds tells whether there is a next page.
    pub(super) fn fetch(&self) -> usize {
        self.limit + 1
    }

    /// The page of `items`, of which up to `fetch` were found.
    pub(super) fn page<T>(&self, mut items: Vec<T>, name: impl Fn(&T) -> &str) -> ListPage<T> {
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        list_page(items, more, name)
    }
}

/// What a list of topics by name, or of streams, is asked for.
///
/// # Errors
/// `InvalidRequest` for what cannot be read; `UnknownField` for other parameters.
pub(crate) fn topics_request(query: Option<&str>) -> Result<TopicsRequest, ApiError> {
    let mut params = Params::parse(query);
    let prefix = params.take("prefix")?.unwrap_or_default();
    let ListRequest { after, limit } = ListRequest::take(&mut params)?;
    params.finish()?;
    Ok(TopicsRequest { prefix, after, limit })
}

/// A page of a list; `more` when it goes on after it.
pub(crate) fn list_page<T>(items: Vec<T>, more: bool, name: impl Fn(&T) -> &str) -> ListPage<T> {
    let last = items.last().filter(|_| more);
    let next_cursor = last.map(|last| URL_SAFE_NO_PAD.encode(name(last)));
    ListPage { data: items, next_cursor }
}

fn list_cursor(cursor: &str) -> Result<String, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes
        .ok_or_else(|| ApiError::new(plinth_api::error::ErrorCode::InvalidCursor, "the cursor is not one of this list"))
}

/// The view of one topic; `with_bounds` for the bounds of each partition.
pub(super) fn topic(view: &TopicView, with_bounds: bool) -> topics::Topic {
    let bounds = (0..).zip(&view.bounds.partitions).map(|(partition, bounds)| partition_bounds(partition, bounds));
    topics::Topic {
        name: view.name.to_string(),
        partitions: view.partitions,
        durability: receipt::class(view.durability),
        max_record_bytes: view.max_record_bytes,
        retention: retention::show(&view.retention),
        cleanup: shown_cleanup(view.cleanup),
        created_at: view.created_at.0,
        bytes: view.bounds.bytes(),
        records: view.bounds.records(),
        forks: view.forks,
        stream: view.stream.as_ref().map(topic_stream),
        partition_bounds: if with_bounds { bounds.collect() } else { Vec::new() },
    }
}

fn topic_stream(view: &StreamView) -> topics::TopicStream {
    let (ttl, expires_at) = ends_by_itself(view);
    topics::TopicStream { content_type: view.content_type.to_string(), closed: view.closed, ttl, expires_at }
}

/// When a stream ends by itself: so long after its last use, or at a time.
pub(crate) fn ends_by_itself(view: &StreamView) -> (Option<String>, Option<u64>) {
    match view.expiry.as_deref() {
        None => (None, None),
        Some(Expiry::Ttl(seconds)) => (Some(show_millis(seconds.saturating_mul(1_000))), None),
        Some(Expiry::At { ms, .. }) => (None, Some(*ms)),
    }
}

/// The bounds of one partition.
pub(super) fn partition_bounds(partition: u32, bounds: &Bounds) -> topics::PartitionBounds {
    let Bounds { start, tail, bytes, closed, .. } = *bounds;
    topics::PartitionBounds { partition, start: start.0, tail: tail.0, bytes, closed }
}

pub(super) fn topic_settings(request: &topics::TopicRequest) -> Result<TopicSettings, ApiError> {
    Ok(TopicSettings {
        partitions: request.partitions,
        max_record_bytes: request.max_record_bytes,
        durability: request.durability.map(parse::class),
        retention: request.retention.as_ref().map(retention::parse).transpose()?,
        cleanup: request.cleanup.map(cleanup),
    })
}

pub(super) fn topic_patch(patch: topics::TopicPatch) -> Result<TopicChange, ApiError> {
    Ok(TopicChange {
        max_record_bytes: patch.max_record_bytes,
        durability: patch.durability.map(parse::class),
        retention: retention::parse_patch(patch.retention)?,
        cleanup: patch.cleanup.map(cleanup),
    })
}

fn cleanup(given: topics::Cleanup) -> Cleanup {
    match given {
        topics::Cleanup::Delete => Cleanup::Delete,
        topics::Cleanup::Compact => Cleanup::Compact,
    }
}

fn shown_cleanup(cleanup: Cleanup) -> topics::Cleanup {
    match cleanup {
        Cleanup::Delete => topics::Cleanup::Delete,
        Cleanup::Compact => topics::Cleanup::Compact,
    }
}

pub(super) fn tenant(view: TenantView) -> tenants::Tenant {
    tenants::Tenant {
        name: view.name,
        created_at: view.created_at.0,
        suspended_at: view.settings.suspended_at.map(|at| at.0),
        quotas: view.settings.quotas,
        allowed_origins: view.settings.allowed_origins,
    }
}

pub(super) fn tenant_settings(request: tenants::TenantRequest) -> TenantSettings {
    TenantSettings {
        suspended_at: None,
        quotas: request.quotas.unwrap_or_default(),
        allowed_origins: request.allowed_origins.unwrap_or_default(),
    }
}

pub(super) fn tenant_change(patch: tenants::TenantPatch) -> TenantChange {
    TenantChange { suspended: patch.suspended, quotas: patch.quotas, allowed_origins: patch.allowed_origins }
}

pub(super) fn key_request(request: keys::KeyRequest) -> KeyRequest {
    KeyRequest {
        name: request.name,
        scopes: request.scopes,
        expires_in: request.expires_in,
        quotas: request.quotas.unwrap_or_default(),
    }
}

pub(super) fn key(view: KeyView) -> keys::Key {
    keys::Key {
        id: view.id,
        name: view.name,
        scopes: view.scopes,
        created_at: view.created_at.0,
        expires_at: view.expires_at.map(|at| at.0),
        quotas: view.quotas,
        last_four: view.last_four,
        rotated_at: view.rotated_at.map(|at| at.0),
        previous_until: view.previous_until.map(|at| at.0),
        last_used_at: view.last_used_at.map(|at| at.0),
    }
}

pub(super) fn key_change(patch: keys::KeyPatch) -> KeyChange {
    KeyChange { name: patch.name, quotas: patch.quotas }
}

pub(super) fn new_key(made: NewKey) -> keys::NewKey {
    keys::NewKey { key: made.key, about: key(made.about) }
}

pub(super) fn ticket(made: Ticket) -> keys::Ticket {
    keys::Ticket { ticket: made.ticket, expires_at: made.expires_at.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_its_next_page_only_if_there_is_one() {
        let list = |query, found: &[&'static str]| {
            let request = ListRequest::take(&mut Params::parse(query)).unwrap();
            (request.after.clone(), request.page(found.to_vec(), |name| name))
        };
        let (after, page) = list(Some("limit=2"), &["a", "b", "c"]);
        assert_eq!((after, &page.data[..]), (None, &["a", "b"][..]));
        let query = format!("limit=2&cursor={}", page.next_cursor.unwrap());
        let (after, page) = list(Some(&query), &["c", "d"]);
        assert_eq!((after.as_deref(), &page.data[..], page.next_cursor), (Some("b"), &["c", "d"][..], None));
    }

    #[test]
    fn a_foreign_list_cursor_is_refused() {
        let error = ListRequest::take(&mut Params::parse(Some("cursor=!!"))).unwrap_err();
        assert_eq!(error.code(), plinth_api::error::ErrorCode::InvalidCursor);
    }
}
