//! Every route × every kind of credential: only the right one passes, and another tenant's thing answers exactly as one
//! that does not exist. The routes come from the server's own list, so that a new one cannot be forgotten.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::LazyLock;

use plinth::http::{Needs, ROUTES, Route};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

mod cells;
mod frames;

use crate::client::{Client, SSE, answer, escape, within};
use crate::contract;
use crate::cookie::{Spent, spend};
use crate::harness::Server;
use crate::tokens;

const ALL: [&str; 4] = ["admin", "publish:**", "subscribe:**", "manage:**"];

/// What streams are described at; they are served at more.
const STREAMS: &str = "/v1/streams/";

/// Every route that needs something, by each of its addresses.
static GUARDED: LazyLock<Vec<Way>> = LazyLock::new(|| {
    // An answer to HEAD has no body to be compared; `streams::about` looks at those.
    // And what takes the token of a wake takes none of these credentials; `cells` shows it.
    let open = |route: &Route| matches!(route.needs, Needs::Nothing | Needs::WakeToken);
    ways(|route| !open(route) && route.method != "HEAD")
});

/// Routes by each of their addresses.
fn ways(wanted: impl Fn(&Route) -> bool) -> Vec<Way> {
    let roots = |route: &Route| match route.path.starts_with(STREAMS) {
        true => &[STREAMS, "/v1/stream/", "/t/{home}/v1/streams/", "/t/{home}/v1/stream/"][..],
        false => &[STREAMS][..],
    };
    let wanted = ROUTES.iter().filter(|route| wanted(route));
    wanted.flat_map(|route| roots(route).iter().map(move |root| Way { route, root })).collect()
}

/// A route, and by which address it is asked.
struct Way {
    route: &'static Route,
    /// What stands in the place of [`STREAMS`].
    root: &'static str,
}

impl Way {
    fn names_the_tenant(&self) -> bool {
        self.root.contains("{home}")
    }
}

impl Deref for Way {
    type Target = Route;

    fn deref(&self) -> &Route {
        self.route
    }
}

/// What the parameters of a path stand for.
struct Names {
    /// The tenant of who asks.
    home: String,
    topic: String,
    tenant: String,
    id: String,
    issuer: String,
}

impl Names {
    /// Names of things that nobody has.
    fn missing() -> Self {
        Self {
            home: "default".into(),
            topic: "zz-none".into(),
            tenant: "nobody".into(),
            id: "01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
            issuer: "nothing".into(),
        }
    }
}

/// What came back: the body only when it is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

fn guarded() -> impl Iterator<Item = &'static Way> {
    GUARDED.iter()
}

/// Whether a route is about a subscription of streams.
fn is_of_subscription(route: &Route) -> bool {
    route.path.contains("/__ds/subscriptions/")
}

/// What is answered to who may do it, where the thing is not there.
fn of_what_is_missing(route: &Route) -> u16 {
    if is_of_subscription(route) && route.method == "DELETE" && !route.path.ends_with("{path}") { 204 } else { 404 }
}

/// A subscription, as the matrix makes it.
fn subscription() -> Value {
    json!({"type": "pull-wake", "pattern": "zz-sub/*", "wake_stream": "zz-wake"})
}

/// A subscription of the client's tenant, with something new.
async fn subscribe(client: &Client, id: &str) {
    let path = format!("/v1/streams/__ds/subscriptions/{id}");
    answer(client.delete(&path)).await;
    let made = answer(client.put(&path).json(&subscription())).await;
    assert_eq!(made.status, 201, "{}", made.text());
    client.publish("zz-sub/a", "text/plain", "x").await;
}

/// A complete, valid request of the route.
fn request(client: &Client, route: &Way, names: &Names) -> RequestBuilder {
    let path = route.path.replacen(STREAMS, &route.root.replace("{home}", &names.home), 1);
    let path = path.replace("{topic}", &escape(&names.topic)).replace("{tenant}", &names.tenant);
    let path = path.replace("{path}", &escape(&names.topic));
    let path = path.replace("{id}", &names.id).replace("{name}", &names.issuer);
    let path = match (route.method, route.path) {
        (_, "/v1/stream") => format!("{path}?topic={}", escape(&names.topic)),
        ("DELETE", "/v1/topics/{topic}/records") => format!("{path}?before=latest"),
        _ => path,
    };
    let request = client.request(Method::from_bytes(route.method.as_bytes()).unwrap(), &path);
    match (route.method, route.path) {
        ("PUT", "/v1/issuers/{name}") => request.json(&tokens::issuer("https://matrix.example", &[])),
        ("POST", "/v1/revocations") => request.json(&json!({"subject": "nobody"})),
        ("POST", "/v1/tokens") => request.json(&json!({"scopes": ["subscribe:zz-here"]})),
        ("PUT", "/v1/streams/{path}") => request,
        ("PUT", path) if path.ends_with("/subscriptions/{id}") => request.json(&subscription()),
        ("POST", path) if path.ends_with("/{id}/streams") => request.json(&json!({"streams": ["zz-sub/b"]})),
        ("POST", path) if path.ends_with("/{id}/claim") => request.json(&json!({"worker": "w"})),
        ("POST", path) if path.ends_with("/{id}/release") => request.json(&json!({"wake_id": "w", "generation": 1})),
        ("POST", path) if is_of_subscription(route) && path.contains("{id}") => {
            request.json(&json!({"wake_id": "w", "generation": 1, "done": true}))
        }
        ("POST", "/v1/streams/{path}") => request.header("Content-Type", "application/octet-stream").body("x"),
        ("PUT", _) => request.json(&json!({})),
        ("PATCH", "/v1/tenants/{tenant}") => request.json(&json!({"quotas": {}})),
        ("PATCH", "/v1/keys/{id}") => request.json(&json!({"name": "another"})),
        ("PATCH", _) => request.json(&json!({"max_record_bytes": 1000})),
        ("POST", "/v1/topics/{topic}/records") => request.header("Content-Type", "text/plain").body("x"),
        ("POST", "/v1/tenants") => request.json(&json!({"name": names.tenant})),
        ("POST", "/v1/keys") => request.json(&json!({"name": "k", "scopes": ["subscribe:**"]})),
        ("GET", "/v1/stream") => request.header("Accept", SSE),
        ("GET", "/v1/ws") => request
            .header("Connection", "upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Protocol", "plinth.v1.json")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        _ => request,
    }
}

/// Sends it; a live answer is not read to its end, which it does not have.
async fn send(request: RequestBuilder) -> Seen {
    let (client, request) = request.build_split();
    let request = request.expect("a valid request");
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = within("an answer", client.execute(request)).await.expect("the server answers");
    let (status, all) = (response.status().as_u16(), response.headers().clone());
    let ignored = ["date", "x-request-id", "content-length", "retry-after"];
    let mut headers: Vec<(String, String)> = all
        .iter()
        .filter(|(name, _)| !ignored.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let body = if status >= 400 { within("a body", response.text()).await.expect("a body") } else { String::new() };
    let whole = (status >= 400).then_some(body.as_bytes());
    contract::check(&method, &path, &contract::Seen { status, headers: &all, body: whole });
    Seen { status, headers, body }
}

/// The same without what names the request or the thing.
fn anonymous(mut seen: Seen, thing: &str) -> Seen {
    if let Ok(mut body) = serde_json::from_str::<Value>(&seen.body) {
        let id = body.as_object_mut().and_then(|body| body.remove("request_id"));
        assert!(id.is_some(), "an error has the id of its request: {}", seen.body);
        let id = id.unwrap().to_string();
        seen.body = seen.body.replace(&id, "\"\"");
    }
    seen.body = seen.body.replace(thing, "THING");
    seen
}

/// A server with a topic `zz-here`, and what the routes of this tenant can be asked about.
async fn prepared(server: &Server) -> Names {
    let client = server.client();
    // Calls that were right before may have removed or made any of these.
    answer(client.put("/v1/topics/zz-here").json(&json!({}))).await;
    let made =
        answer(client.post("/v1/keys").json(&json!({"name": "victim", "scopes": ["subscribe:**"]}))).await.json();
    answer(server.root().post("/v1/tenants").json(&json!({"name": "victim"}))).await;
    answer(client.put("/v1/issuers/zz-issuer").json(&tokens::issuer("https://matrix.example", &[]))).await;
    let id: String = made["id"].as_str().unwrap().into();
    subscribe(&client, &id).await;
    let home = "default".into();
    Names { home, topic: "zz-here".into(), tenant: "victim".into(), id, issuer: "zz-issuer".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_credential_passes_on_every_route() {
    let server = Server::start().await;
    for route in guarded() {
        let mut names = prepared(&server).await;
        let client = if route.needs == Needs::Operator { server.root() } else { server.client() };
        if (route.method, route.path) == ("POST", "/v1/tenants") {
            names.tenant = "fresh".into();
        }
        let seen = send(request(&client, route, &names)).await;
        assert!(seen.status < 300, "{} {}: {seen:?}", route.method, route.path);
        if route.needs != Needs::Operator && route.path != "/v1/tokens" {
            let names = prepared(&server).await;
            let token = Client::new(server.url(), Some(&tokens::with_scopes(&server, &ALL).await));
            let seen = send(request(&token, route, &names)).await;
            assert!(seen.status < 300, "a token: {} {}: {seen:?}", route.method, route.path);
        }
        if route.needs != Needs::Operator {
            let names = prepared(&server).await;
            let seen = send(request(&server.root().acting_in("default"), route, &names)).await;
            assert!(seen.status < 300, "root in a tenant: {} {}: {seen:?}", route.method, route.path);
        }
    }
}

fn check_401(route: &Route, token: &str, seen: &Seen) {
    let at = format!("{} {} with {token}: {seen:?}", route.method, route.path);
    assert_eq!(seen.status, 401, "{at}");
    assert!(seen.headers.iter().any(|(name, value)| name == "www-authenticate" && value.starts_with("Bearer")), "{at}");
    let problem: Value = serde_json::from_str(&seen.body).expect("a problem document");
    assert_eq!(problem["code"], "unauthenticated", "{at}");
    let repeats = ["CANARY", "plk_", "eyJ"].iter().any(|secret| seen.body.contains(secret));
    assert!(!repeats, "an error repeats no credential: {at}");
}

/// Fails when a route lets a suspended tenant in, or tells its credential from one that was never good.
#[tokio::test(flavor = "multi_thread")]
async fn the_credential_of_a_suspended_tenant_is_refused_on_every_route_as_such() {
    let server = Server::start().await;
    let held = server.tenant("held").await;
    held.make_topic("zz-here", 1).await;
    let names = Names {
        home: "held".into(),
        topic: "zz-here".into(),
        tenant: "held".into(),
        id: "01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
        issuer: "nothing".into(),
    };
    let suspended = answer(server.root().patch("/v1/tenants/held").json(&json!({"suspended": true}))).await;
    assert_eq!(suspended.status, 200, "{}", suspended.text());
    for route in guarded() {
        let seen = send(request(&held, route, &names)).await;
        let at = format!("{} {}: {seen:?}", route.method, route.path);
        assert_eq!(seen.status, 403, "{at}");
        let problem: Value = serde_json::from_str(&seen.body).expect("a problem document");
        assert_eq!(problem["code"], "tenant_suspended", "{at}");
        let by_nobody = send(request(&Client::new(server.url(), Some("plk_")), route, &names)).await;
        assert_eq!(by_nobody.status, 401, "{} {}: {by_nobody:?}", route.method, route.path);
    }
    let topic = answer(server.root().acting_in("held").get("/v1/topics/zz-here")).await;
    assert_eq!(topic.json()["records"], 0, "nothing was stored");
}

/// Fails when another handler than those of live streams looks at tickets and cookies.
#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_of_a_ticket_opens_again_what_a_browser_opens_and_nothing_else() {
    let server = Server::start().await;
    let names = prepared(&server).await;
    let Spent { path, cookie } = spend(&server, &server.client(), "/v1/topics/zz-here/records?from=earliest").await;
    let ticket = path.split_once("ticket=").unwrap().1;
    let of_browser = |route: &Way| {
        let request = request(&server.stranger(), route, &names).header("Cookie", &cookie);
        request.header("Sec-Fetch-Site", "same-origin").header("Origin", server.url())
    };
    let mut opened = BTreeSet::new();
    for route in guarded() {
        if route.path != "/v1/ws" {
            check_401(route, "the cookie alone", &send(of_browser(route)).await);
        }
        let seen = send(of_browser(route).query(&[("ticket", ticket)])).await;
        if seen.status < 300 {
            opened.insert(route.path);
            continue;
        }
        check_401(route, "the cookie and its ticket", &seen);
    }
    assert_eq!(opened, BTreeSet::from(["/v1/stream", "/v1/ws"]));
    // `request` asks for a page here, which no browser asks for again by itself.
    let records = guarded().find(|route| route.path.ends_with("/records") && route.method == "GET").unwrap();
    let events = of_browser(records).query(&[("ticket", ticket)]).header("Accept", SSE);
    assert_eq!(send(events).await.status, 200);
    assert_eq!(server.client().count("zz-here").await, 0, "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_without_the_scope_gets_403_whether_or_not_the_thing_exists() {
    let server = Server::start().await;
    let names = prepared(&server).await;
    let absent = Names::missing();
    for route in guarded() {
        for wrong in wrong_credentials(&server, route).await {
            let there = send(request(&wrong, route, &names)).await;
            let at = format!("{} {}: {there:?}", route.method, route.path);
            if ["/v1/topics", "/v1/streams"].contains(&route.path) && route.method == "GET" {
                // A list shows what the scopes allow, which is nothing here.
                assert!(list_is_empty(&wrong, route.path).await, "{at}");
                continue;
            }
            assert_eq!(there.status, 403, "{at}");
            assert!(there.headers.iter().any(|(name, _)| name == "www-authenticate"), "{at}");
            let not_there = send(request(&wrong, route, &absent)).await;
            let (there, not_there) = (there.anonymous(&names), not_there.anonymous(&absent));
            assert_eq!(there, not_there, "{} {}", route.method, route.path);
        }
    }
    assert_eq!(server.client().count("zz-here").await, 0, "nothing was stored");
}

impl Seen {
    fn anonymous(self, names: &Names) -> Self {
        let seen = anonymous(self, &names.topic);
        let body = seen.body.replace(&names.tenant, "TENANT").replace(&names.id, "ID").replace(&names.issuer, "ISSUER");
        Self { body, ..seen }
    }
}

/// Whether no topic or stream is shown but those that the server writes, which an administrator may see.
async fn list_is_empty(client: &Client, path: &str) -> bool {
    let list = answer(client.get(path)).await.json();
    list["data"].as_array().unwrap().iter().all(|topic| topic["name"].as_str().unwrap().starts_with('_'))
}

/// Credentials that are valid but not right for the route.
async fn wrong_credentials(server: &Server, route: &Route) -> Vec<Client> {
    let elsewhere = ["publish:elsewhere.*", "subscribe:elsewhere.*", "manage:elsewhere.*", "admin"];
    let scopes: &[&[&str]] = match route.needs {
        Needs::Nothing | Needs::Tenant | Needs::WakeToken => &[],
        // One that may do it elsewhere is told that there is no such subscription, as if there were none.
        Needs::ViewAll => &[&["admin"]],
        Needs::SubscribeAll => &[&["publish:**", "manage:**", "admin"]],
        Needs::ManageAll => &[&["publish:**", "subscribe:**", "admin"]],
        Needs::Publish => &[&["subscribe:**", "manage:**", "admin"], &elsewhere],
        Needs::Subscribe => &[&["publish:**", "manage:**", "admin"], &elsewhere],
        Needs::Manage => &[&["publish:**", "subscribe:**", "admin"], &elsewhere],
        Needs::View => &[&["admin"], &elsewhere],
        Needs::Admin => &[&["publish:**", "subscribe:**", "manage:**"]],
        Needs::Operator => &[&ALL],
    };
    let mut clients = Vec::new();
    for scopes in scopes {
        clients.push(server.with_scopes(scopes).await);
        clients.push(Client::new(server.url(), Some(&tokens::with_scopes(server, scopes).await)));
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_key_belongs_to_no_tenant_until_it_names_one() {
    let server = Server::start().await;
    let names = prepared(&server).await;
    for route in guarded().filter(|route| route.needs != Needs::Operator && !route.names_the_tenant()) {
        let seen = send(request(&server.root(), route, &names)).await;
        assert_eq!(seen.status, 403, "{} {}: {seen:?}", route.method, route.path);
        assert!(seen.body.contains("plinth-tenant"), "{} {}: {seen:?}", route.method, route.path);
    }
    assert_eq!(server.client().count("zz-here").await, 0, "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_thing_answers_byte_for_byte_as_one_that_does_not_exist() {
    let server = Server::start().await;
    let full = server.tenant("other").await;
    // Without `manage`, a publish to a topic that is not there makes none.
    let key = full.make_key(&["admin", "publish:**", "subscribe:**"]).await;
    let careful = Client::new(server.url(), Some(&key));
    server.client().publish("zz-here", "text/plain", "secret").await;
    let names = Names { home: "other".into(), ..prepared(&server).await };
    let absent = Names { home: "other".into(), ..Names::missing() };
    let named = |route: &&Way| route.path.contains('{') || route.path == "/v1/stream";
    for route in guarded().filter(named).filter(|route| route.method != "PUT") {
        let client = if matches!(route.needs, Needs::Manage | Needs::ManageAll) { &full } else { &careful };
        let theirs = send(request(client, route, &names)).await;
        let nobodys = send(request(client, route, &absent)).await;
        let expected = if route.needs == Needs::Operator { 403 } else { of_what_is_missing(route) };
        assert_eq!(theirs.status, expected, "{} {}: {theirs:?}", route.method, route.path);
        assert_eq!(theirs.anonymous(&names), nobodys.anonymous(&absent), "{} {}", route.method, route.path);
    }
    let view = server.client().topic("zz-here").await;
    assert_eq!((view.records, view.max_record_bytes), (1, 1024 * 1024), "nothing of it was changed");
    for list in ["/v1/topics", "/v1/streams"] {
        assert!(list_is_empty(&full, list).await);
    }
    full.publish("zz-here", "text/plain", "own").await;
    assert_eq!(crate::client::texts(&full.read_all("zz-here", 0).await), ["own"], "one name, two tenants, two topics");
    assert_eq!(crate::client::texts(&server.client().read_all("zz-here", 0).await), ["secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_comes_from_the_credential_and_the_header_is_for_the_operator_alone() {
    let server = Server::start().await;
    let other = server.tenant("other").await;
    other.publish("theirs", "text/plain", "x").await;
    let refused = answer(server.client().acting_in("other").get("/v1/topics")).await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (403, "forbidden"));
    let unknown = answer(server.root().acting_in("nobody").get("/v1/topics")).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    let seen = answer(server.root().acting_in("other").get("/v1/topics")).await.json();
    let names: Vec<&str> = seen["data"].as_array().unwrap().iter().filter_map(|topic| topic["name"].as_str()).collect();
    assert_eq!(names.iter().filter(|name| !name.starts_with('_')).collect::<Vec<_>>(), [&"theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_url_is_never_a_credential() {
    let server = Server::start().await;
    server.client().publish("t", "text/plain", "x").await;
    for name in ["ticket", "key", "token", "access_token", "api_key"] {
        let path = format!("/v1/topics/t/records?{name}={}", server.key());
        let seen = answer(server.stranger().get(&path)).await;
        assert!([400, 401].contains(&seen.status), "{name}: {}", seen.status);
        assert!(!seen.text().contains(server.key()), "{name}: the answer repeats the key");
    }
    assert!(!server.stderr().contains(server.key()), "the log has no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_the_metrics_or_the_store() {
    let mut server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    answer(Client::new(server.url(), Some("garbage-CANARY7f3a")).get("/v1/topics")).await;
    let metrics = answer(client.get("/metrics")).await.text();
    let secret = server.key().rsplit('_').next().unwrap().to_owned();
    assert_eq!(server.terminate().await.code(), Some(0));
    server.restart(false).await;
    for needle in ["CANARY7f3a", &secret] {
        assert!(!metrics.contains(needle) && !server.stderr().contains(needle));
        for dir in [server.store_dir(), server.cache_dir()] {
            assert!(!contains(&dir, needle.as_bytes()), "{needle} is in {}", dir.display());
        }
    }
}

fn contains(dir: &std::path::Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contains(&path, needle)
        } else {
            std::fs::read(path).unwrap().windows(needle.len()).any(|w| w == needle)
        }
    })
}

#[test]
fn the_routes_and_the_document_name_the_same_operations() {
    let document = serde_json::to_value(plinth::http::openapi()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "put", "post", "patch", "delete", "head", "options"].contains(&key.as_str()))
        {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let served: BTreeSet<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(served, documented);
}
