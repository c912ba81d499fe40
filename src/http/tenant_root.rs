//! Addresses that begin with a tenant: `/t/{tenant}/v1/streams/{path}`, for clients that can send an address and
//! `Authorization` and no other header.
//!
//! The beginning is taken off before anything else looks at the address, so that such a request goes the way of every
//! other one, and is kept with the [`Visit`](super::visit::Visit). The tenant still comes from the credential: the address only says
//! which one is meant, and who means another one than its own gets what it would get for a stream that is not there.

use axum::http::{Request, Uri};
use percent_encoding::percent_decode_str;

use crate::streams::ROOTS;

const PREFIX: &str = "/t/";

/// The tenant that an address begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRoot {
    written: String,
    tenant: String,
}

impl TenantRoot {
    /// The name, percent-decoded once. Nobody has looked whether there is such a tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The beginning of the address as it was sent, without a slash at its end.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.written
    }
}

/// Takes the tenant off the address of `request`, where it begins with one, and leaves it as an extension.
pub(super) fn take_off<B>(request: &mut Request<B>) {
    let Some((root, rest)) = split(request.uri()) else { return };
    *request.uri_mut() = rest;
    request.extensions_mut().insert(root);
}

fn split(uri: &Uri) -> Option<(TenantRoot, Uri)> {
    let whole = uri.path_and_query()?;
    let (tenant, _) = whole.path().strip_prefix(PREFIX)?.split_once('/')?;
    let (written, rest) = whole.as_str().split_at(PREFIX.len() + tenant.len());
    let behind = whole.path().get(written.len()..).unwrap_or_default();
    let is_stream = ROOTS.iter().any(|root| behind.strip_prefix(root).is_some_and(|name| !name.is_empty()));
    if tenant.is_empty() || !is_stream {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest.parse().ok()?);
    let tenant = percent_decode_str(tenant).decode_utf8_lossy().into_owned();
    Some((TenantRoot { written: written.to_owned(), tenant }, Uri::from_parts(parts).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(uri: &str) -> (Option<(String, String)>, String) {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        take_off(&mut request);
        let root = request.extensions().get::<TenantRoot>();
        (root.map(|root| (root.written.clone(), root.tenant.clone())), request.uri().to_string())
    }

    #[test]
    fn the_tenant_is_decoded_once_and_the_rest_stays_as_it_was_sent() {
        for (sent, written, tenant, rest) in [
            ("/t/acme/v1/stream/a/b%2Fc?offset=-1&x=/t/", "/t/acme", "acme", "/v1/stream/a/b%2Fc?offset=-1&x=/t/"),
            ("/t/acme/v1/streams/a", "/t/acme", "acme", "/v1/streams/a"),
            ("/t/%61cme/v1/streams/a", "/t/%61cme", "acme", "/v1/streams/a"),
            ("/t/%2561cme/v1/streams/a", "/t/%2561cme", "%61cme", "/v1/streams/a"),
            ("/t/a%2Fb/v1/streams/a", "/t/a%2Fb", "a/b", "/v1/streams/a"),
            ("/t/t/v1/streams/t/x/v1/streams/a", "/t/t", "t", "/v1/streams/t/x/v1/streams/a"),
            ("https://q.example/t/acme/v1/streams/a", "/t/acme", "acme", "https://q.example/v1/streams/a"),
        ] {
            assert_eq!(taken(sent), (Some((written.to_owned(), tenant.to_owned())), rest.to_owned()), "{sent}");
        }
    }

    #[test]
    fn only_streams_are_served_behind_a_tenant() {
        for sent in [
            "/t/acme/v1/topics/a",
            "/t/acme/v1/stream?topic=a",
            "/t/acme/v1/streams",
            "/t/acme/v1/streams/",
            "/t/acme/v1/streams?/v1/streams/a",
            "/t/acme/livez",
            "/t//v1/streams/a",
            "/t/acme/t/acme/v1/streams/a",
            "/T/acme/v1/streams/a",
            "/v1/streams/a",
            "/",
        ] {
            assert_eq!(taken(sent), (None, sent.to_owned()), "{sent}");
        }
    }
}
