//! What every request comes to: publishes, then the router for all else.
//!
//! A publish is most of what a node does, and the router's boxes, maps and clones are a tenth of its cost. So a `POST` to
//! the records of a topic is taken out before the router, to the same handler and through the same edge. Only where the
//! name needs no decoding; the router knows the route too.

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
use super::traced::Traced;
use super::visit::{RequestId, Visit};
use super::{publish, rate_limit};
use crate::server::{Answer, Connection, ConnectionId, RequestBody};

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
        request: Request<RequestBody>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static + use<> {
        match records_of(&request) {
            Some(_) => Either::Left(publish_directly(self.front.clone(), connection, request)),
            None => Either::Right(self.router.answer(connection, request)),
        }
    }
}

async fn publish_directly(front: Front, connection: ConnectionId, request: Request<RequestBody>) -> Response<Body> {
    let id = RequestId::of(&front, request.headers());
    let traced = Traced::begin(&front, &request, Some(RECORDS), &id);
    let visit = Visit::new(Connection::of(connection, request.body()), id);
    let edge = Edge::of(&request, visit.connection().address());
    let page = Page::of(request.headers());
    let answer = async {
        check_host(&request)?;
        let (parts, body) = request.into_parts();
        let name = name_in(parts.uri.path()).unwrap_or_default();
        publish::answer(&front, &visit, name, (&parts, body)).await
    };
    let mut response = around(answer).instrument(traced.span()).await;
    rate_limit::tell(visit.account(), response.headers_mut());
    look_for_quota(&front, visit.account(), &response);
    page.tell(&front, visit.account(), response.headers_mut());
    let mut response = edge.finish(&front, Some(RECORDS), visit.into_request_id(), response);
    traced.end(&mut response);
    response
}

/// The topic, if the request is a publish and its name is spelled without percent.
fn records_of<B>(request: &Request<B>) -> Option<&str> {
    name_in(request.uri().path()).filter(|_| *request.method() == Method::POST)
}

fn name_in(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/v1/topics/")?.strip_suffix("/records")?;
    (!name.is_empty() && !name.contains(['/', '%'])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_publish_to_a_plainly_spelled_topic_passes_the_router_by() {
        let way = |method, path: &'static str| {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            records_of(&request).map(str::to_owned)
        };
        assert_eq!(way(Method::POST, "/v1/topics/orders/records?partition=1").as_deref(), Some("orders"));
        assert_eq!(way(Method::POST, "/v1/topics/a.b~c/records").as_deref(), Some("a.b~c"));
        for path in
            ["/v1/topics/a%2Fb/records", "/v1/topics//records", "/v1/topics/a/b/records", "/v1/topics/a/records/"]
        {
            assert_eq!(way(Method::POST, path), None, "{path}");
        }
        assert_eq!(way(Method::GET, "/v1/topics/orders/records"), None);
    }
}
