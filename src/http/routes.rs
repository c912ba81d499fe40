//! The one list of routes: what is served, and what a caller needs for it.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Redirect;
use axum::routing::{MethodRouter, any, connect, delete, get, head, options, patch, post, put};

use super::audit::Audited;
use super::front::Front;
use super::{
    audit, docs, health, issuers, keys, layers, live, publish, quotas, read, reports, revocations, tenants, tokens,
    topics, usage,
};
use crate::streams::control::{
    self, ACK, CALLBACK, CLAIM, RELEASE, SUBSCRIPTION, SUBSCRIPTION_KEYS, SUBSCRIPTION_STREAM, SUBSCRIPTION_STREAMS,
};
use crate::streams::{self, STREAM};
use crate::{console, ws};

pub(super) const RECORDS: &str = "/v1/topics/{topic}/records";
pub(super) const JWKS: &str = "/.well-known/jwks.json";
pub(super) const SOCKET: &str = "/v1/ws";

/// What a caller needs for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: open to everyone.
    Nothing,
    /// A key of a tenant, whatever its scopes.
    Tenant,
    /// The scope `publish` for the topic.
    Publish,
    /// The scope `subscribe` for the topic, or a ticket of such a key.
    Subscribe,
    /// Any scope for the topic.
    View,
    /// The scope `manage` for the topic.
    Manage,
    /// Any scope for all streams of the subscription.
    ViewAll,
    /// The scope `subscribe` for all streams of the subscription.
    SubscribeAll,
    /// The scope `manage` for all streams of the subscription.
    ManageAll,
    /// The token of a wake, and no other credential.
    WakeToken,
    /// The scope `admin`.
    Admin,
    /// The root key.
    Operator,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path, with `{parameters}`.
    pub path: &'static str,
    /// What a caller needs.
    pub needs: Needs,
    handler: fn() -> MethodRouter<Front>,
}

impl Route {
    /// What the router knows it by.
    fn served_at(&self) -> Vec<&'static str> {
        let of_streams = streams::SERVED_AT.iter().find(|(path, _)| *path == self.path);
        of_streams.map_or_else(|| vec![self.path], |(_, served)| served.to_vec())
    }

    fn serve(&'static self, front: &Front) -> MethodRouter<Front> {
        let handler = (self.handler)();
        if !self.is_audited() {
            return handler;
        }
        handler.route_layer(from_fn_with_state(Audited { front: front.clone(), route: self }, audit::audited))
    }
}

macro_rules! routes {
    ($($method:ident $path:expr, $needs:ident => $handler:path;)*) => {
        &[$(Route {
            method: method_name(stringify!($method)),
            path: $path,
            needs: Needs::$needs,
            handler: || $method($handler),
        }),*]
    };
}

/// Every route of the API and of operation. Pages for people (`/`, `/docs`, `/console`) are not in it, nor is the place where
/// browsers report what breaks the policies of these: they need nothing and show nothing of a tenant.
pub const ROUTES: &[Route] = routes! {
    get    "/v1/topics",            View      => topics::list;
    put    "/v1/topics/{topic}",    Manage    => topics::ensure;
    get    "/v1/topics/{topic}",    View      => topics::view;
    patch  "/v1/topics/{topic}",    Manage    => topics::change;
    delete "/v1/topics/{topic}",    Manage    => topics::remove;
    post   RECORDS,                 Publish   => publish::publish;
    get    RECORDS,                 Subscribe => read::read;
    delete RECORDS,                 Manage    => topics::trim;
    get    "/v1/stream",            Subscribe => live::stream;
    get    "/v1/streams",           View      => streams::list;
    put    STREAM,                  Manage    => streams::put;
    post   STREAM,                  Publish   => streams::post;
    get    STREAM,                  Subscribe => streams::get;
    head   STREAM,                  View      => streams::head;
    delete STREAM,                  Manage    => streams::remove;
    options STREAM,                 Nothing   => streams::options;
    get    SUBSCRIPTION_KEYS,       Nothing   => control::keys;
    put    SUBSCRIPTION,            ManageAll => control::ensure;
    get    SUBSCRIPTION,            ViewAll   => control::view;
    delete SUBSCRIPTION,            ManageAll => control::remove;
    post   SUBSCRIPTION_STREAMS,    ManageAll => control::link;
    delete SUBSCRIPTION_STREAM,     ManageAll => control::unlink;
    post   CLAIM,                   SubscribeAll => control::claim;
    post   CALLBACK,                WakeToken => control::callback;
    post   ACK,                     WakeToken => control::ack;
    post   RELEASE,                 WakeToken => control::release;
    get    SOCKET,                  Tenant    => ws::upgrade;
    get    "/v1/quotas",            Tenant    => quotas::view;
    post   "/v1/tenants",           Operator  => tenants::create;
    get    "/v1/tenants",           Operator  => tenants::list;
    get    "/v1/tenants/{tenant}",  Operator  => tenants::view;
    patch  "/v1/tenants/{tenant}",  Operator  => tenants::change;
    delete "/v1/tenants/{tenant}",  Operator  => tenants::remove;
    post   "/v1/keys",              Admin     => keys::create;
    get    "/v1/keys",              Admin     => keys::list;
    get    "/v1/keys/{id}",         Admin     => keys::view;
    patch  "/v1/keys/{id}",         Admin     => keys::change;
    delete "/v1/keys/{id}",         Admin     => keys::remove;
    post   "/v1/keys/{id}/rotate",  Admin     => keys::rotate;
    post   "/v1/tickets",           Tenant    => keys::create_ticket;
    post   "/v1/tokens",            Tenant    => tokens::mint;
    get    "/v1/issuers",           Admin     => issuers::list;
    put    "/v1/issuers/{name}",    Admin     => issuers::ensure;
    get    "/v1/issuers/{name}",    Admin     => issuers::view;
    delete "/v1/issuers/{name}",    Admin     => issuers::remove;
    post   "/v1/revocations",       Admin     => revocations::create;
    get    "/v1/revocations",       Admin     => revocations::list;
    get    "/v1/auth/explain",      Tenant    => tokens::explain;
    get    JWKS,                    Nothing   => tokens::published_keys;
    get    "/v1/usage",             Admin     => usage::view;
    get    "/metrics/tenants",      Operator  => usage::metrics;
    get    "/livez",                Nothing   => health::livez;
    get    "/readyz",               Nothing   => health::readyz;
    get    "/startupz",             Nothing   => health::startupz;
    get    "/version",              Nothing   => health::version;
    get    "/metrics",              Nothing   => health::metrics;
    get    "/openapi.json",         Nothing   => docs::openapi_json;
    get    "/asyncapi.json",        Nothing   => docs::asyncapi_json;
};

/// Everything that is served, with its layers.
pub fn router(front: Front) -> Router {
    let reserved =
        streams::RESERVED.iter().fold(Router::new(), |router, path| router.route(path, any(layers::no_route)));
    ROUTES
        .iter()
        .flat_map(|route| route.served_at().into_iter().map(move |path| (path, route)))
        .fold(reserved, |router, (path, route)| router.route(path, route.serve(&front)))
        .route("/", get(|| async { Redirect::temporary("/console") }))
        .route(reports::PATH, post(reports::take))
        .route("/docs", get(docs::root))
        .route("/docs/", get(docs::viewer_start))
        .route("/docs/{*file}", get(docs::viewer))
        .route("/docs/limits", get(docs::limits))
        .route("/docs/errors", get(docs::error_list))
        .route("/docs/errors/{code}", get(docs::error_page))
        // A WebSocket over HTTP/2 is opened like this (RFC 8441).
        .route(SOCKET, connect(ws::upgrade))
        .with_state(front.clone())
        .merge(console::router())
        .fallback(layers::no_route)
        .method_not_allowed_fallback(layers::no_method)
        .layer(from_fn_with_state(front, layers::edge))
}

/// A route as it is shown: the router knows some by another path.
pub(super) fn shown(matched: &str) -> &str {
    let of_streams = streams::SERVED_AT.iter().find(|(_, served)| served.contains(&matched));
    of_streams.map_or(matched, |(path, _)| path)
}

const fn method_name(constructor: &'static str) -> &'static str {
    match constructor.as_bytes() {
        b"get" => "GET",
        b"put" => "PUT",
        b"patch" => "PATCH",
        b"delete" => "DELETE",
        b"head" => "HEAD",
        b"options" => "OPTIONS",
        _ => "POST",
    }
}
