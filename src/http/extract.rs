//! What is read from a request, strictly: the credential, the path, the query and the body.
//!
//! Whatever is not known is refused and named, so that a misspelt parameter is an error and not a surprise. A body is
//! read into one allocation of its own size: hyper's read buffer is larger than a small record and would be kept with it.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use plinth_api::error::ErrorCode;
use plinth_api::limits::{BODY_RATE_MIN, SETTINGS_BYTES_MAX};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use super::front::Front;
use super::visit::Visit;
use crate::auth::{Caller, Credential, Denied};
use crate::broker::{self, Room};

/// The header by which the root key acts inside a tenant.
const PLINTH_TENANT: HeaderName = HeaderName::from_static("plinth-tenant");

/// The caller, by `Authorization: Bearer`.
pub(crate) struct Authed(pub(crate) Caller);

/// The one parameter of a path, percent-decoded once.
pub(crate) struct Name(pub(crate) String);

impl FromRequestParts<Front> for Authed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, front: &Front) -> Result<Self, ApiError> {
        // The layer of an audited route has looked already.
        match parts.extensions.get::<Caller>() {
            Some(caller) => Ok(Self(caller.clone())),
            None => caller(front, visit(parts)?, &parts.headers).await.map(Self),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|_| ApiError::invalid("the path is not UTF-8 when it is percent-decoded"))?;
        Ok(Self(name))
    }
}

/// What is known of a request that passed the router.
///
/// # Errors
/// A defect: the outermost layer puts it there.
pub fn visit(parts: &Parts) -> Result<&Arc<Visit>, ApiError> {
    parts.extensions.get::<Arc<Visit>>().ok_or_else(|| ApiError::internal("a request came without its visit"))
}

/// The caller, by `Authorization: Bearer`; the request is on its account from here on.
pub(super) async fn caller(front: &Front, visit: &Visit, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = bearer(headers)?.ok_or_else(no_credential)?;
    let caller = by_bearer(front, visit, headers, token).await?;
    visit.enter(&caller)?;
    Ok(caller)
}

/// The caller of a token, which asks for things of the tenant that the header or the address names.
pub(super) async fn by_bearer(
    front: &Front,
    visit: &Visit,
    headers: &HeaderMap,
    token: &str,
) -> Result<Caller, ApiError> {
    let named = tenant_header(headers)?;
    let caller = authenticate(front, Credential::Bearer(token), named).await?;
    let Some(root) = visit.root() else { return Ok(caller) };
    match named {
        _ if caller.operator().is_err() => Ok(caller.asking(root.tenant())),
        None => authenticate(front, Credential::Bearer(token), Some(root.tenant())).await,
        Some(named) if named == root.tenant() => Ok(caller),
        Some(_) => Err(ApiError::invalid("the address names one tenant and the header `plinth-tenant` another")),
    }
}

/// The caller of a credential, once the keys of its issuer are there. An error remembers whose credential it would have
/// been.
///
/// # Errors
/// Those of [`crate::auth::Auth::admit`].
pub async fn authenticate(front: &Front, credential: Credential<'_>, tenant: Option<&str>) -> Result<Caller, ApiError> {
    let refused = |denied: Denied| ApiError::of_credential(&denied, front.auth.claim(credential));
    front.auth.admit(credential, tenant).await.map_err(refused)
}

/// The token of `Authorization: Bearer`, if the header is there.
///
/// # Errors
/// `Unauthenticated` for another scheme or a header that is not text.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(ApiError::new(ErrorCode::Unauthenticated, "the `authorization` header is not `Bearer <key>`")),
    }
}

/// The tenant that the root key wants to act in, if the header is there.
///
/// # Errors
/// `InvalidRequest` when it is not text.
pub fn tenant_header(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(PLINTH_TENANT) else { return Ok(None) };
    let tenant = value.to_str().map_err(|_| ApiError::invalid("the header `plinth-tenant` is not a tenant name"))?;
    Ok(Some(tenant))
}

pub(super) fn no_credential() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "there is no credential; send `Authorization: Bearer <key>`")
}

/// The parameters of a query, taken one by one; [`Params::finish`] refuses what nobody took.
#[derive(Debug)]
pub struct Params<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    known: Vec<&'static str>,
}

impl<'a> Params<'a> {
    /// The parameters of `query`, percent-decoded once.
    #[must_use]
    pub fn parse(query: Option<&'a str>) -> Self {
        let pairs = query.map(|query| url::form_urlencoded::parse(query.as_bytes()).collect()).unwrap_or_default();
        Self { pairs, known: Vec::new() }
    }

    /// The value of `name`, if it is given.
    ///
    /// # Errors
    /// `InvalidRequest` when it is given twice.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let mut values = self.take_all(name);
        let value = values.pop();
        if values.is_empty() {
            return Ok(value);
        }
        Err(ApiError::invalid(format!("the query parameter `{name}` is given more than once")))
    }

    /// All values of `name`, in order.
    pub fn take_all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.pairs.extract_if(.., |(given, _)| given == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// The value of `name` as a number, a switch or whatever else can be read from text.
    ///
    /// # Errors
    /// `InvalidRequest` when it cannot be read, naming the parameter.
    pub fn take_parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let parsed = text.parse();
        parsed
            .map(Some)
            .map_err(|error: T::Err| ApiError::invalid(format!("the query parameter `{name}` cannot be read: {error}")))
    }

    /// The value of `name` as a number of 1 to `max`, or `default`.
    ///
    /// # Errors
    /// `InvalidRequest` when it cannot be read or is out of bounds, naming parameter and bounds.
    pub fn take_count(&mut self, name: &'static str, default: usize, max: usize) -> Result<usize, ApiError> {
        match self.take_parsed(name)? {
            None => Ok(default),
            Some(count) if (1..=max).contains(&count) => Ok(count),
            Some(count) => {
                let detail = format!("the query parameter `{name}` is {count} and must be between 1 and {max}");
                Err(ApiError::invalid(detail))
            }
        }
    }

    /// Refuses `name`, if it is given, because it means nothing for this answer.
    ///
    /// # Errors
    /// `UnknownField`, naming the parameter and the media type.
    pub fn refuse(&mut self, name: &'static str, media_type: &str) -> Result<(), ApiError> {
        if self.pairs.iter().all(|(given, _)| given != name) {
            return Ok(());
        }
        let detail = format!("the query parameter `{name}` does not apply to an answer of {media_type}");
        Err(ApiError::new(ErrorCode::UnknownField, detail))
    }

    /// Refuses every parameter that was not taken.
    ///
    /// # Errors
    /// `UnknownField`, naming the first one and those that are known.
    pub fn finish(self) -> Result<(), ApiError> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let known = self.known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none is".to_owned() } else { format!("known are {known}") };
        let shown: String = name.chars().take(100).collect();
        let detail = format!("the query parameter `{shown}` is not known here; {known}");
        Err(ApiError::new(ErrorCode::UnknownField, detail))
    }
}

/// Refuses every query parameter.
///
/// # Errors
/// `UnknownField`, naming the first one.
pub fn no_params(parts: &Parts) -> Result<(), ApiError> {
    Params::parse(parts.uri.query()).finish()
}

/// The media type of the body without its parameters, in lower case; empty when none is given.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Cow<'_, str>, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Cow::Borrowed("")) };
    let text = value.to_str().map_err(|_| ApiError::invalid("the header `content-type` is not text"))?;
    let essence = text.split_once(';').map_or(text, |(essence, _)| essence).trim();
    if essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(essence.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(essence))
}

/// How much of a body is read.
pub(crate) struct Bound<'a> {
    /// At most so many bytes.
    pub(crate) max: usize,
    /// Names it in errors.
    pub(crate) what: &'a str,
    /// Takes room for what was not announced.
    pub(crate) room: Option<&'a mut Room>,
}

/// The body of at most `max` bytes, in one piece of its own size.
///
/// # Errors
/// `TooLarge` before anything is read if the client says its length, `RequestTimeout` for a body that is too slow,
/// `UnsupportedMediaType` for one that is compressed.
pub(crate) async fn body<B>(
    front: &Front,
    headers: &HeaderMap,
    body: B,
    Bound { max, what, room }: Bound<'_>,
) -> Result<Bytes, ApiError>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    if let Some(coding) = headers.get(CONTENT_ENCODING).filter(|coding| coding.as_bytes() != b"identity") {
        let detail = format!("the content encoding {coding:?} is not read here; send the body as it is");
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        let detail = format!("{what} of {announced} bytes exceeds the limit of {max}");
        return Err(ApiError::new(ErrorCode::TooLarge, detail));
    }
    let collected = collect(body, (announced, max), front.limits.body_timeout, room).await;
    collected.map_err(|failure| failure.explain(what, max))
}

enum BodyFailure {
    TooLarge,
    TooSlow,
    Broken(String),
    NoRoom(broker::Error),
}

impl BodyFailure {
    fn explain(self, what: &str, max: usize) -> ApiError {
        match self {
            Self::TooLarge => ApiError::new(
                ErrorCode::TooLarge,
                format!("{what} of more than {max} bytes exceeds the limit of {max}"),
            ),
            Self::TooSlow => ApiError::new(ErrorCode::RequestTimeout, format!("{what} took too long to arrive")),
            Self::NoRoom(error) => ApiError::from(error).closing(),
            Self::Broken(error) => ApiError::invalid(format!("{what} broke off: {error}")),
        }
    }
}

async fn collect<B>(
    mut body: B,
    (announced, max): (usize, usize),
    patience: Duration,
    mut room: Option<&mut Room>,
) -> Result<Bytes, BodyFailure>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    let (began, mut read) = (Instant::now(), Vec::with_capacity(announced));
    loop {
        let grace = Duration::from_secs(read.len() as u64 / BODY_RATE_MIN);
        let frame = timeout_at(began + patience + grace, body.frame()).await.map_err(|_| BodyFailure::TooSlow)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| BodyFailure::Broken(error.to_string()))?;
        let Some(data) = frame.data_ref() else { continue };
        if read.len() + data.len() > max {
            return Err(BodyFailure::TooLarge);
        }
        if let Some(room) = room.as_deref_mut().filter(|_| read.len() + data.len() > announced) {
            room.grow(data.len() as u64).map_err(BodyFailure::NoRoom)?;
        }
        read.extend_from_slice(data);
        if read.len() == announced {
            break;
        }
    }
    Ok(Bytes::from(read))
}

/// Reads a JSON body into `T`.
///
/// # Errors
/// As [`body`]; `UnsupportedMediaType` for another media type, `UnknownField` and `InvalidRequest` for what it says.
pub(super) async fn json<T: DeserializeOwned>(front: &Front, parts: &Parts, content: Body) -> Result<T, ApiError> {
    let read = optional_json(front, parts, content).await?;
    read.ok_or_else(|| ApiError::invalid("the body is empty; send a JSON object"))
}

/// The same where a body may be left out.
///
/// # Errors
/// As [`json`].
pub(super) async fn optional_json<T>(front: &Front, parts: &Parts, content: Body) -> Result<Option<T>, ApiError>
where
    T: DeserializeOwned,
{
    let bound = Bound { max: SETTINGS_BYTES_MAX, what: "the body", room: None };
    optional_json_within(front, &parts.headers, content, bound).await
}

/// The same as [`json`] for a body of its own bound.
///
/// # Errors
/// As [`json`].
pub(crate) async fn json_within<T>(
    front: &Front,
    headers: &HeaderMap,
    content: Body,
    bound: Bound<'_>,
) -> Result<T, ApiError>
where
    T: DeserializeOwned,
{
    let read = optional_json_within(front, headers, content, bound).await?;
    read.ok_or_else(|| ApiError::invalid("the body is empty; send a JSON object"))
}

async fn optional_json_within<T>(
    front: &Front,
    headers: &HeaderMap,
    content: Body,
    bound: Bound<'_>,
) -> Result<Option<T>, ApiError>
where
    T: DeserializeOwned,
{
    let bytes = body(front, headers, content, bound).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    match media_type(headers)?.as_ref() {
        "" | "application/json" => from_json(&bytes).map(Some),
        other => {
            let detail = format!("a body of {other} is not read here; send `Content-Type: application/json`");
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail))
        }
    }
}

/// Reads a JSON object that may borrow from `bytes`. The derived code would also take an array, with the fields by their
/// place.
pub(super) fn from_json<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::invalid("the body cannot be read: it is not a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = error.to_string();
        let code =
            if detail.starts_with("unknown field") { ErrorCode::UnknownField } else { ErrorCode::InvalidRequest };
        ApiError::new(code, format!("the body cannot be read: {detail}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(error: &ApiError) -> (ErrorCode, &str) {
        (error.code(), &error.problem().detail)
    }

    #[test]
    fn a_query_parameter_that_nobody_knows_is_refused_and_named() {
        let mut params = Params::parse(Some("limit=5&colour=red"));
        assert_eq!(params.take_count("limit", 1, 10).unwrap(), 5);
        assert_eq!(params.take("from").unwrap(), None);
        let error = params.finish().unwrap_err();
        let detail = "the query parameter `colour` is not known here; known are `limit`, `from`";
        assert_eq!(refusal(&error), (ErrorCode::UnknownField, detail));
    }

    #[test]
    fn a_query_parameter_that_is_given_twice_is_refused() {
        let mut params = Params::parse(Some("from=-1&from=-2"));
        let error = params.take("from").unwrap_err();
        assert_eq!(refusal(&error), (ErrorCode::InvalidRequest, "the query parameter `from` is given more than once"));
    }

    #[test]
    fn a_number_out_of_bounds_is_refused_with_its_bounds() {
        for (query, detail) in [
            ("limit=0", "the query parameter `limit` is 0 and must be between 1 and 10"),
            ("limit=11", "the query parameter `limit` is 11 and must be between 1 and 10"),
            ("limit=x", "the query parameter `limit` cannot be read: invalid digit found in string"),
        ] {
            let error = Params::parse(Some(query)).take_count("limit", 1, 10).unwrap_err();
            assert_eq!(refusal(&error), (ErrorCode::InvalidRequest, detail));
        }
    }

    #[test]
    fn values_are_percent_decoded_once() {
        let mut params = Params::parse(Some("topic=a%2Fb&topic=a%252Fb"));
        assert_eq!(params.take_all("topic"), ["a/b", "a%2Fb"]);
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_and_named() {
        let error = from_json::<plinth_api::topics::TopicRequest>(br#"{"partition":1}"#).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnknownField);
        assert!(error.problem().detail.contains("`partition`"), "{error:?}");
        let error = from_json::<plinth_api::topics::TopicRequest>(b"{").unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_also_when_its_length_is_not_announced() {
        let chunks =
            ["abc", "def"].map(|chunk| Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk.as_bytes())));
        let body = Body::from_stream(futures::stream::iter(chunks.clone()));
        let patience = Duration::from_secs(30);
        assert!(matches!(collect(body, (0, 5), patience, None).await, Err(BodyFailure::TooLarge)));
        let body = Body::from_stream(futures::stream::iter(chunks));
        assert_eq!(collect(body, (0, 6), patience, None).await.ok().as_deref(), Some(&b"abcdef"[..]));
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_in_time_is_given_up() {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        assert!(matches!(collect(body, (0, 5), Duration::ZERO, None).await, Err(BodyFailure::TooSlow)));
    }
}
