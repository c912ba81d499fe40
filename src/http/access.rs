//! Who opens a live transport: by `Authorization`, by a one-time ticket, or by the cookie that a ticket has left.
//!
//! Browsers cannot set headers on `EventSource` and `WebSocket`, so the address carries a ticket; and `EventSource`
//! repeats its address after a broken connection, where the ticket is spent. So who redeems one gets the cookie
//! `__Secure-plinth` along with the stream. It counts here and nowhere else, beside a ticket of the same caller, and
//! only for pages of the server's own origin: a browser sends cookies whoever made the page. Values of cookies and
//! tickets are never logged and never repeated in an answer.

use std::time::Duration;

use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::Response;

use super::error::ApiError;
use super::extract::{Params, authenticate, bearer, by_bearer, no_credential, visit};
use super::front::Front;
use super::tenant_root::TenantRoot;
use super::visit::Visit;
use crate::auth::{Caller, Credential, Denied, Reconnect};

/// The name of the cookie; the prefix makes browsers take it over TLS or from their own machine alone.
pub const COOKIE_NAME: &str = "__Secure-plinth";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who opens a live transport, and what is left in the browser for the next time.
#[derive(Debug)]
pub struct Access {
    /// The caller.
    pub caller: Caller,
    cookie: Option<HeaderValue>,
}

impl From<Caller> for Access {
    fn from(caller: Caller) -> Self {
        Self { caller, cookie: None }
    }
}

impl Access {
    /// Puts the cookie, if there is one, into the answer.
    pub fn leave_cookie(&mut self, response: &mut Response) {
        if let Some(cookie) = self.cookie.take() {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
}

/// The caller of a stream or page, by `Authorization: Bearer` or by `?ticket=`. A browser opens `again` by itself what
/// it opened before: only then is there a cookie.
///
/// # Errors
/// `Unauthenticated` for neither and for a bad one, `InvalidRequest` for both.
pub(crate) async fn of_stream(
    front: &Front,
    visit: &Visit,
    parts: &Parts,
    params: &mut Params<'_>,
    again: bool,
) -> Result<Access, ApiError> {
    let access = by_one(front, visit, parts, params, again).await?;
    visit.enter(&access.caller)?;
    Ok(access)
}

async fn by_one(
    front: &Front,
    visit: &Visit,
    parts: &Parts,
    params: &mut Params<'_>,
    again: bool,
) -> Result<Access, ApiError> {
    let ticket = params.take("ticket")?;
    let caller = match (bearer(&parts.headers)?, &ticket) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("there are two credentials, a header and `ticket`")),
        (Some(token), None) => by_bearer(front, visit, &parts.headers, token).await?,
        (None, Some(ticket)) if again => return by_ticket_or_cookie(front, visit, parts, ticket),
        (None, Some(ticket)) => of_address(visit, authenticate(front, Credential::Ticket(ticket), None).await?),
        (None, None) => return Err(no_credential()),
    };
    Ok(caller.into())
}

/// The caller of a ticket; or of the cookie, when the ticket is spent or unknown.
///
/// # Errors
/// `Unauthenticated`.
pub fn by_ticket_or_cookie(front: &Front, visit: &Visit, parts: &Parts, ticket: &str) -> Result<Access, ApiError> {
    match front.auth.authenticate(Credential::Ticket(ticket), None) {
        Ok(caller) => {
            let caller = of_address(visit, caller);
            let left = front.auth.reconnect_token(&caller).filter(|_| origin(parts) != Origin::Foreign);
            let cookie = left.map(|left| set_cookie(&left, &cookie_path(visit, &caller)));
            Ok(Access { caller, cookie })
        }
        Err(Denied::Unauthenticated(why)) => Ok(of_address(visit, by_cookie(front, parts, ticket, why)?).into()),
        Err(denied) => Err(denied.into()),
    }
}

/// The caller of a ticket, which asks for things of the tenant that the address names.
fn of_address(visit: &Visit, caller: Caller) -> Caller {
    match visit.root() {
        Some(root) => caller.asking(root.tenant()),
        None => caller,
    }
}

/// Below which address the cookie counts. A browser sends it for the tenant as it is spelled; another spelling comes back
/// without it.
fn cookie_path(visit: &Visit, caller: &Caller) -> String {
    match (visit.root(), caller.tenant()) {
        (Some(_), Some(tenant)) => format!("/t/{}/v1", tenant.name()),
        (None, _) | (Some(_), None) => "/v1".to_owned(),
    }
}

/// The caller of the first cookie that is good; a page of a sibling domain may have set one of the same name.
fn by_cookie(front: &Front, parts: &Parts, ticket: &str, no_ticket: String) -> Result<Caller, Denied> {
    let mut refusal = Denied::Unauthenticated(no_ticket);
    // The second one opens a WebSocket over HTTP/2.
    if ![Method::GET, Method::CONNECT].contains(&parts.method) {
        return Err(refusal);
    }
    for token in cookies(&parts.headers) {
        if origin(parts) != Origin::Own {
            let why =
                "the ticket is spent or unknown, and the cookie counts only for a page of the server's own origin";
            return Err(Denied::Unauthenticated(why.into()));
        }
        match front.auth.authenticate(Credential::Reconnect { ticket, token }, None) {
            Ok(caller) => return Ok(caller),
            Err(denied) => refusal = denied,
        }
    }
    Err(refusal)
}

/// The values of our cookie (RFC 6265 §4.2.1).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(COOKIE).iter().filter_map(|list| list.to_str().ok());
    let pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

fn set_cookie(left: &Reconnect, path: &str) -> HeaderValue {
    let seconds = Duration::from_millis(left.ttl_ms).as_secs();
    let text =
        format!("{COOKIE_NAME}={}; Path={path}; HttpOnly; Secure; SameSite=Strict; Max-Age={seconds}", left.token);
    let mut value = HeaderValue::try_from(text).expect("base64url, digits and a name can stand in a header");
    value.set_sensitive(true);
    value
}

/// Whose page a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Own,
    Foreign,
    /// It does not say: no browser, or one that does not trust the connection.
    Unknown,
}

/// Browsers say it in `Sec-Fetch-Site`, or in `Origin`: Chromium sends only the second one with a WebSocket, and only the
/// first one with an `EventSource` of the own origin.
fn origin(parts: &Parts) -> Origin {
    let own = if let Some(site) = parts.headers.get(SEC_FETCH_SITE) {
        site == "same-origin"
    } else if let Some(origin) = parts.headers.get(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, named)| authority(parts).is_some_and(|own| own.eq_ignore_ascii_case(named)))
    } else {
        return Origin::Unknown;
    };
    if own { Origin::Own } else { Origin::Foreign }
}

/// The origin of the page that a request comes from, unless it is the server's own; empty where it is not said.
#[must_use]
pub fn foreign_page(parts: &Parts) -> Option<String> {
    let named = parts.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    (origin(parts) == Origin::Foreign).then(|| named.to_owned())
}

/// How the client reaches this node, without a slash at its end: the public URL, or by what it has sent; and the tenant, if
/// its address begins with one.
///
/// # Errors
/// `InvalidRequest` when it has sent no host.
pub(crate) fn base_url(front: &Front, parts: &Parts) -> Result<String, ApiError> {
    let visit = visit(parts)?;
    let root = visit.root().map(TenantRoot::written).unwrap_or_default();
    if let Some(url) = &front.streams.public_url {
        return Ok(format!("{}{root}", url.trim_end_matches('/')));
    }
    let scheme = if visit.connection().is_secure() { "https" } else { "http" };
    let host = authority(parts).ok_or_else(|| ApiError::invalid("the request names no host"))?;
    Ok(format!("{scheme}://{host}{root}"))
}

/// The host and port that the client means; HTTP/2 has it in the target.
fn authority(parts: &Parts) -> Option<&str> {
    let target = parts.uri.authority().map(|authority| authority.as_str());
    target.or_else(|| parts.headers.get(HOST)?.to_str().ok())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::get("/v1/stream").header("host", "q.example:8443");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_origin_is_what_the_browser_says_of_the_page() {
        for (headers, expected) in [
            (&[][..], Origin::Unknown),
            (&[("sec-fetch-site", "same-origin")], Origin::Own),
            (&[("sec-fetch-site", "same-site")], Origin::Foreign),
            (&[("sec-fetch-site", "cross-site")], Origin::Foreign),
            (&[("sec-fetch-site", "none")], Origin::Foreign),
            (&[("origin", "https://q.example:8443")], Origin::Own),
            (&[("origin", "https://Q.example:8443")], Origin::Own),
            (&[("origin", "https://q.example")], Origin::Foreign),
            (&[("origin", "https://q.example:8443.evil.example")], Origin::Foreign),
            (&[("origin", "https://evil.example/q.example:8443")], Origin::Foreign),
            (&[("origin", "null")], Origin::Foreign),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://q.example:8443")], Origin::Foreign),
        ] {
            assert_eq!(origin(&parts(headers)), expected, "{headers:?}");
        }
    }

    #[test]
    fn over_http_2_the_own_origin_is_in_the_target() {
        let request = Request::get("https://q.example/v1/stream").header("origin", "https://q.example");
        assert_eq!(origin(&request.body(()).unwrap().into_parts().0), Origin::Own);
    }

    #[test]
    fn the_cookie_is_found_among_others_by_its_whole_name() {
        let found = |headers: &[(&'static str, &'static str)]| {
            cookies(&parts(headers).headers).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(found(&[("cookie", "a=b; __Secure-plinth=x; c=d")]), ["x"]);
        assert_eq!(found(&[("cookie", "__Secure-plinth=x"), ("cookie", "__Secure-plinth=y;z")]), ["x", "y"]);
        assert_eq!(found(&[("cookie", "plinth=x; __secure-plinth=y; __Secure-plinth2=z; __Secure-plinth")]), [""; 0]);
    }

    #[test]
    fn the_cookie_is_for_our_server_alone_and_out_of_reach_of_scripts() {
        let value = set_cookie(&Reconnect { token: "x".to_owned(), ttl_ms: 43_200_999 }, "/v1");
        assert_eq!(value, "__Secure-plinth=x; Path=/v1; HttpOnly; Secure; SameSite=Strict; Max-Age=43200");
        assert!(!format!("{value:?}").contains("plinth"), "it is not shown where headers are");
    }
}
