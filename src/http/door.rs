//! What every request comes to: publishes, appends to streams and reads of them, then the router for all else.
//!
//! These are most of what a node does, and the router's boxes, maps and clones are a tenth of their cost. So they are taken
//! out before the router, to the same handlers and through the same edge. Only where the name needs no decoding; the router
//! knows the routes too.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use futures::future::Either;
use tracing::Instrument;

use super::audit::look_for_quota;
use super::cors::Page;
use super::front::Front;
use super::layers::{Edge, around, check_host};
use super::routes::{RECORDS, router};
use super::tenant_root::{self, TenantRoot};
use super::traced::Traced;
use super::visit::{RequestId, Visit};
use super::{publish, rate_limit};
use crate::server::{Answer, Connection, ConnectionId, RequestBody};
use crate::streams::{self, STREAM};

/// Beneath it are no streams.
const RESERVED: &str = "__ds";

/// Answers all requests of a node.
#[derive(Clone)]
pub struct Door {
    front: Front,
    router: Router,
}

impl Door {
    /// A door to everything that is served.
    #[must_use]
    pub fn new(front: Front) -> Self {
        Self { router: router(front.clone()), front }
    }
}

impl Answer for Door {
    fn answer(
        &self,
        connection: ConnectionId,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static + use<> {
        tenant_root::take_off(&mut request);
        match Direct::of(&request) {
            // In a box: it is moved several times before it is polled, and each connection has room for it.
            Some(direct) => Either::Left(Box::pin(direct.answer(self.front.clone(), connection, request))),
            None => Either::Right(self.router.answer(connection, request)),
        }
    }
}

/// What passes the router by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direct {
    Publish,
    Append,
    Read,
}

impl Direct {
    /// What `request` is, if its name is spelled without percent.
    fn of<B>(request: &Request<B>) -> Option<Self> {
        let path = request.uri().path();
        let direct = match *request.method() {
            Method::POST if path.starts_with("/v1/topics/") => Self::Publish,
            Method::POST => Self::Append,
            Method::GET => Self::Read,
            _ => return None,
        };
        direct.name_in(path).map(|_| direct)
    }

    fn name_in(self, path: &str) -> Option<&str> {
        let name = match self {
            Self::Publish => {
                let name = path.strip_prefix("/v1/topics/")?.strip_suffix("/records")?;
                Some(name).filter(|name| !name.contains('/'))
            }
            Self::Append | Self::Read => {
                let root = path.strip_prefix("/v1/stream")?;
                let name = root.strip_prefix('s').unwrap_or(root).strip_prefix('/')?;
                Some(name).filter(|name| !name.starts_with(RESERVED))
            }
        };
        name.filter(|name| !name.is_empty() && !name.contains('%'))
    }

    fn route(self) -> &'static str {
        match self {
            Self::Publish => RECORDS,
            Self::Append | Self::Read => STREAM,
        }
    }

    async fn answer(self, front: Front, connection: ConnectionId, mut request: Request<RequestBody>) -> Response<Body> {
        let id = RequestId::of(&front, request.headers());
        let traced = Traced::begin(&front, &request, Some(self.route()), &id);
        let root = request.extensions_mut().remove::<TenantRoot>();
        let visit = Visit::new(Connection::of(connection, request.body()), id).under(root);
        let edge = Edge::of(&request, visit.connection().address());
        let page = Page::of(request.headers());
        let answer = async {
            check_host(&request)?;
            let (parts, body) = request.into_parts();
            let name = self.name_in(parts.uri.path()).unwrap_or_default();
            match self {
                Self::Publish => publish::answer(&front, &visit, name, (&parts, body)).await,
                Self::Append => streams::append(&front, &visit, name, (&parts, body)).await,
                Self::Read => streams::read(&front, &visit, name, &parts).await,
            }
        };
        let mut response = around(answer).instrument(traced.span()).await;
        rate_limit::tell(visit.account(), response.headers_mut());
        look_for_quota(&front, visit.account(), &response);
        page.tell(&front, visit.account(), response.headers_mut());
        let mut response = edge.finish(&front, Some(self.route()), visit.into_request_id(), response);
        traced.end(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(method: Method, path: &'static str) -> Option<(Direct, String)> {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let direct = Direct::of(&request)?;
        Some((direct, direct.name_in(request.uri().path()).unwrap().to_owned()))
    }

    #[test]
    fn only_a_publish_to_a_plainly_spelled_topic_passes_the_router_by() {
        for (path, name) in [("/v1/topics/orders/records?partition=1", "orders"), ("/v1/topics/a.b~c/records", "a.b~c")]
        {
            assert_eq!(way(Method::POST, path), Some((Direct::Publish, name.to_owned())));
        }
        for path in
            ["/v1/topics/a%2Fb/records", "/v1/topics//records", "/v1/topics/a/b/records", "/v1/topics/a/records/"]
        {
            assert_eq!(way(Method::POST, path), None, "{path}");
        }
        assert_eq!(way(Method::GET, "/v1/topics/orders/records"), None);
    }

    #[test]
    fn appends_to_plainly_spelled_streams_and_reads_of_them_pass_the_router_by_and_what_is_reserved_does_not() {
        for (path, name) in
            [("/v1/streams/a/b?x=%2F", "a/b"), ("/v1/stream/a", "a"), ("/v1/stream/s", "s"), ("/v1/streams/a//", "a//")]
        {
            assert_eq!(way(Method::POST, path), Some((Direct::Append, name.to_owned())));
            assert_eq!(way(Method::GET, path), Some((Direct::Read, name.to_owned())));
            assert_eq!(way(Method::PUT, path), None);
            assert_eq!(way(Method::HEAD, path), None);
        }
        for path in ["/v1/stream", "/v1/stream/", "/v1/streams/", "/v1/streamss/a", "/v1/streamsa", "/v1/stream/a%2Fb"]
        {
            assert_eq!(way(Method::GET, path), None, "{path}");
        }
        for path in ["/v1/stream/__ds", "/v1/streams/__ds/jwks.json"] {
            assert_eq!(way(Method::POST, path), None, "{path}");
        }
    }
}
