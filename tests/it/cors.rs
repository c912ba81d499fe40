//! What pages of other origins may do, and what every answer tells a browser.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::client::{Answer, Client, SSE, answer, within};
use crate::harness::Server;
use crate::ws::Socket;

const PAGE: &str = "https://app.example";
const OTHER: &str = "https://other.example";
const RECORDS: &str = "/v1/topics/t/records";

async fn allow(server: &Server, tenant: &str, origins: &[&str]) {
    let change = json!({"allowed_origins": origins});
    let changed = answer(server.root().request(Method::PATCH, &format!("/v1/tenants/{tenant}")).json(&change)).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
}

fn from(page: &str, request: RequestBuilder) -> RequestBuilder {
    request.header("Origin", page).header("Sec-Fetch-Site", "cross-site")
}

/// What a browser asks before it sends a key.
async fn preflight(server: &Server, page: &str, path: &str) -> Answer {
    let asked = server.stranger().request(Method::OPTIONS, path).header("Access-Control-Request-Method", "POST");
    answer(from(page, asked).header("Access-Control-Request-Headers", "authorization,record-header-x")).await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("text"))
}

/// Which origin may read this.
fn readable_by(answer: &Answer) -> Option<&str> {
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    header(&answer.headers, "access-control-allow-origin")
}

// Fails if the list in memory were not told of a change, or not loaded at a start.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_let_ask_for_as_long_as_some_tenant_lists_the_page() {
    let mut server = Server::start().await;
    let refused = preflight(&server, PAGE, RECORDS).await;
    assert_eq!((refused.status, readable_by(&refused)), (403, None));
    allow(&server, "default", &[PAGE]).await;
    for restart in [false, true] {
        if restart {
            server.terminate().await;
            server.restart(true).await;
        }
        let told = preflight(&server, PAGE, RECORDS).await;
        assert_eq!((told.status, readable_by(&told)), (204, Some(PAGE)));
        assert_eq!(header(&told.headers, "access-control-allow-headers"), Some("Authorization, *"));
        assert_eq!(header(&told.headers, "access-control-allow-methods"), Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
        assert_eq!(header(&told.headers, "access-control-max-age"), Some("600"));
        assert_eq!(header(&told.headers, "vary"), Some("Origin"));
        for near in
            [OTHER, "https://app.example.evil.example", "http://app.example", "https://app.example:8443", "null"]
        {
            assert_eq!(readable_by(&preflight(&server, near, RECORDS).await), None, "{near}");
        }
    }
    let made = json!({"name": "made", "allowed_origins": [OTHER]});
    assert_eq!(answer(server.root().post("/v1/tenants").json(&made)).await.status, 201);
    assert_eq!(readable_by(&preflight(&server, OTHER, "/v1/keys").await), Some(OTHER));
    assert_eq!(answer(server.root().delete("/v1/tenants/made")).await.status, 204);
    assert_eq!(preflight(&server, OTHER, "/v1/keys").await.status, 403);
    allow(&server, "default", &[]).await;
    assert_eq!(preflight(&server, PAGE, RECORDS).await.status, 403);
}

/// Requests of every kind of answer: plain and lasting, good and bad.
fn requests(client: &Client) -> Vec<(&'static str, RequestBuilder)> {
    vec![
        ("a publish", client.post(RECORDS).body("x")),
        ("a publish by the router", client.post("/v1/topics/a%2Fb/records").body("x")),
        ("a page", client.get(&format!("{RECORDS}?from=earliest"))),
        ("a refusal", client.get(&format!("{RECORDS}?from=nonsense"))),
        ("nothing there", client.get("/v1/topics/none")),
    ]
}

// Fails if the origin of the request were repeated without a look at the list, or if another tenant's list counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_can_be_read_by_pages_that_the_tenant_of_the_credential_lists() {
    let server = Server::start().await;
    let (client, foreign) = (server.client(), server.tenant("other").await);
    allow(&server, "default", &[PAGE]).await;
    for client in [&client, &foreign] {
        client.make_topic("t", 1).await;
    }
    for (what, request) in requests(&client) {
        let read = answer(from(PAGE, request.try_clone().unwrap())).await;
        assert_eq!((readable_by(&read), header(&read.headers, "vary")), (Some(PAGE), Some("Origin")), "{what}");
        let exposed = header(&read.headers, "access-control-expose-headers").expect("some are");
        for name in ["RateLimit", "Retry-After", "X-Request-Id", "Plinth-Next"] {
            assert!(exposed.split(", ").any(|each| each == name), "{what}: {exposed}");
        }
        assert_eq!(readable_by(&answer(from(OTHER, request.try_clone().unwrap())).await), None, "{what}");
        let own = answer(request).await;
        assert_eq!((readable_by(&own), header(&own.headers, "vary")), (None, None), "{what}");
    }
    for (what, request) in requests(&foreign) {
        assert_eq!(readable_by(&answer(from(PAGE, request)).await), None, "{what} of another tenant");
    }
    let events = client.get(&format!("{RECORDS}?from=earliest")).header("Accept", SSE);
    let events = within("a stream", from(PAGE, events).send()).await.unwrap();
    assert_eq!(header(events.headers(), "access-control-allow-origin"), Some(PAGE));
    // That there is no credential can be told to a page that might have one.
    let nobody = answer(from(PAGE, server.stranger().get("/v1/topics"))).await;
    assert_eq!((nobody.status, readable_by(&nobody)), (401, Some(PAGE)));
    assert_eq!(readable_by(&answer(from(OTHER, server.stranger().get("/v1/topics"))).await), None);
    allow(&server, "default", &["*"]).await;
    assert_eq!(readable_by(&preflight(&server, OTHER, RECORDS).await), Some("*"));
    let any = answer(from(OTHER, client.post(RECORDS).body("x"))).await;
    assert_eq!(readable_by(&any), Some("*"));
    assert_eq!(readable_by(&answer(from(OTHER, foreign.post(RECORDS).body("x"))).await), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_origins_as_browsers_send_them_can_be_listed() {
    let server = Server::start().await;
    for wrong in ["app.example", "https://app.example/", "https://App.example", "https://*.example", "null", ""] {
        let change = json!({"allowed_origins": [wrong]});
        let refused = answer(server.root().request(Method::PATCH, "/v1/tenants/default").json(&change)).await;
        assert_eq!(refused.status, 422, "{wrong}");
    }
}

/// How a page opens a WebSocket: in every way in which a credential comes.
async fn by_every_way(server: &Server, client: &Client, origin: Option<&str>) -> Vec<(&'static str, bool)> {
    let page: Vec<_> = origin.map(|origin| ("origin", origin.to_owned())).into_iter().collect();
    let key = client.token();
    let protocols = format!("plinth.v1.json, bearer.{}", URL_SAFE_NO_PAD.encode(key));
    let ticket = answer(client.post("/v1/tickets")).await.json()["ticket"].as_str().expect("a ticket").to_owned();
    let mut ways = Vec::new();
    for (way, path, header) in [
        ("header", "/v1/ws".to_owned(), Some(("authorization", format!("Bearer {key}")))),
        ("subprotocol", "/v1/ws".to_owned(), Some(("sec-websocket-protocol", protocols))),
        ("ticket", format!("/v1/ws?ticket={ticket}"), None),
    ] {
        let headers: Vec<_> = page.iter().cloned().chain(header).collect();
        let opened = Socket::open(server, &path, &headers).await;
        if let Err(refused) = &opened {
            assert_eq!(refused.problem.status, 403, "{way}: {:?}", refused.problem);
            assert!(refused.problem.detail.contains("allowed_origins"), "{:?}", refused.problem);
        }
        ways.push((way, opened.is_ok()));
    }
    let mut silent = Socket::open(server, "/v1/ws", &page).await.ok().expect("no credential, nothing to refuse");
    silent.send(json!({"type": "auth", "token": key})).await;
    ways.push(("first frame", silent.is_welcome().await));
    ways
}

// Fails without `check_page` at any of its places: browsers ask no leave before they open a WebSocket.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_opened_by_pages_of_the_own_origin_and_of_those_that_the_tenant_lists() {
    let server = Server::start().await;
    let client = server.client();
    let all = |opened: &[(&str, bool)], expected: bool| opened.iter().all(|(_, open)| *open == expected);
    for origin in [None, Some(server.url())] {
        let ways = by_every_way(&server, &client, origin).await;
        assert!(all(&ways, true), "{origin:?}: {ways:?}");
    }
    for origin in [PAGE, "null", "http://127.0.0.1"] {
        let ways = by_every_way(&server, &client, Some(origin)).await;
        assert!(all(&ways, false), "{origin}: {ways:?}");
    }
    allow(&server, "default", &[PAGE]).await;
    assert!(all(&by_every_way(&server, &client, Some(PAGE)).await, true));
    assert!(all(&by_every_way(&server, &client, Some(OTHER)).await, false));
    let foreign = server.tenant("other").await;
    assert!(all(&by_every_way(&server, &foreign, Some(PAGE)).await, false), "another tenant's list does not count");
    allow(&server, "default", &["*"]).await;
    assert!(all(&by_every_way(&server, &client, Some("null")).await, true));
}

// Fails if a kind of page or answer had been forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_guessing_and_embedding_and_every_page_all_that_it_does_not_need() {
    let server = Server::start().await;
    let client = server.client();
    let pages = ["/console/", "/console/none", "/docs/", "/docs/limits", "/docs/errors", "/docs/errors/not_found"];
    let others = ["/v1/topics", "/v1/none", "/livez", "/metrics", "/openapi.json", "/version", "/none"];
    for path in pages.iter().chain(&others) {
        let told = answer(client.get(path)).await.headers;
        assert_eq!(header(&told, "x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header(&told, "cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(header(&told, "access-control-allow-origin"), None, "{path}");
        if !pages.contains(path) {
            assert!(!header(&told, "content-type").unwrap_or_default().contains("html"), "{path}");
            continue;
        }
        let policy = header(&told, "content-security-policy").expect("every page has one");
        assert!(
            policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe-eval") && !policy.contains("script-src 'self' 'unsafe-inline'"), "{path}");
        // The viewer of the API writes `style` attributes.
        assert_eq!(policy.contains("unsafe-inline"), *path == "/docs/", "{path}: {policy}");
        assert_eq!(header(&told, "referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(header(&told, "x-frame-options"), Some("DENY"), "{path}");
    }
}
