//! Coming back: a browser opens the address of a broken stream again, where the ticket is spent, and the cookie
//! `__Secure-plinth` lets it in. Who else may not come in this way is in `auth_matrix.rs`, too.

use plinth_api::error::ErrorCode;
use reqwest::RequestBuilder;
use reqwest::header::SET_COOKIE;
use serde_json::json;

use crate::client::{Answer, Client, NDJSON, SSE, SseStream, answer, texts, within};
use crate::harness::{Options, Server};
use crate::ws::Socket;

const RECORDS: &str = "/v1/topics/t/records?from=earliest";
const SITE: &str = "Sec-Fetch-Site";

/// An address with its ticket, which is spent, and what it left: `name=value`.
pub(crate) struct Spent {
    pub(crate) path: String,
    pub(crate) cookie: String,
}

/// `path` with a new ticket.
pub(crate) async fn with_ticket(client: &Client, path: &str) -> String {
    let made = answer(client.post("/v1/tickets")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}ticket={}", made.json()["ticket"].as_str().unwrap())
}

/// Opens a stream as an `EventSource` does, with a ticket of `client`.
pub(crate) async fn spend(server: &Server, client: &Client, path: &str) -> Spent {
    let path = with_ticket(client, path).await;
    let opened = events(&server.stranger(), &path).header(SITE, "same-origin").send().await.unwrap();
    assert_eq!(opened.status(), 200);
    let cookie = set_cookie(opened.headers()).expect("a cookie").split_once(';').unwrap().0.to_owned();
    Spent { path, cookie }
}

fn set_cookie(headers: &reqwest::header::HeaderMap) -> Option<String> {
    assert!(headers.get_all(SET_COOKIE).iter().count() <= 1);
    headers.get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
}

fn events(client: &Client, path: &str) -> RequestBuilder {
    client.get(path).header("Accept", SSE)
}

/// What a browser sends that comes back to `spent`.
fn coming_back(client: &Client, spent: &Spent) -> RequestBuilder {
    events(client, &spent.path).header("Cookie", &spent.cookie).header(SITE, "same-origin")
}

async fn refused(request: RequestBuilder) -> Answer {
    // Twice: a stream that should not have begun would have no end to wait for.
    let first = within("an answer", request.try_clone().expect("it has no body").send()).await.unwrap();
    assert_eq!(first.status(), 401);
    let refused = answer(request).await;
    assert_eq!((refused.status, refused.problem().code), (401, ErrorCode::Unauthenticated), "{}", refused.text());
    assert!(refused.headers.contains_key("www-authenticate"));
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_leaves_its_cookie_on_what_a_browser_opens_by_itself() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    let open = async |path: &str, accept: &str, client: &Client, site: Option<(&str, &str)>| {
        let path = with_ticket(client, path).await;
        let mut request = server.stranger().get(&path).header("Accept", accept);
        if let Some((name, value)) = site {
            request = request.header(name, value);
        }
        let opened = within("an answer", request.send()).await.unwrap();
        assert_eq!(opened.status(), 200);
        set_cookie(opened.headers())
    };
    for path in [RECORDS, "/v1/stream?topic=t"] {
        let cookie = open(path, SSE, &client, None).await.expect("a cookie");
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert!(pair.starts_with("__Secure-plinth=") && pair.len() < 200, "{pair}");
        assert_eq!(attributes, "Path=/v1; HttpOnly; Secure; SameSite=Strict; Max-Age=43200");
        assert!(open(path, SSE, &client, Some((SITE, "same-origin"))).await.is_some());
        let own = server.url().to_owned();
        assert!(open(path, SSE, &client, Some(("Origin", &own))).await.is_some());
        for foreign in [(SITE, "cross-site"), (SITE, "same-site"), ("Origin", "https://evil.example")] {
            assert_eq!(open(path, SSE, &client, Some(foreign)).await, None, "{foreign:?}");
        }
        assert_eq!(open(path, NDJSON, &client, None).await, None, "no browser repeats it by itself");
        let operator = server.root().acting_in("default");
        assert_eq!(open(path, SSE, &operator, None).await, None, "the root key leaves nothing behind");
    }
    assert_eq!(open(RECORDS, "application/json", &client, None).await, None);
    let socket = Socket::open(&server, &with_ticket(&client, "/v1/ws").await, &[]).await;
    let socket = socket.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
    assert!(socket.headers["set-cookie"].to_str().unwrap().starts_with("__Secure-plinth="));
    let by_key = events(&client, RECORDS).send().await.unwrap();
    assert_eq!(set_cookie(by_key.headers()), None);
}

/// Fails when the token's secret is not in the store, or the token is kept in memory or on the disk of a node.
#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_and_a_wiped_cache_a_browser_comes_back_to_where_it_was() {
    let mut server = Server::start().await;
    server.client().publish_texts("t", &["0", "1"]).await;
    let spent = spend(&server, &server.client(), RECORDS).await;
    let mut last = String::new();
    for (expected, wipe) in [("0", true), ("1", false), ("2", true)] {
        let mut request = coming_back(&server.stranger(), &spent);
        if !last.is_empty() {
            request = request.header("Last-Event-ID", &last);
        }
        let opened = request.send().await.unwrap();
        assert_eq!(opened.status(), 200, "cache wiped: {wipe}");
        assert_eq!(set_cookie(opened.headers()), None, "its time is not made longer");
        let (record, id) = SseStream::new(opened).record().await.unwrap();
        assert_eq!(record.text.as_deref(), Some(expected));
        last = id;
        server.kill9().await;
        server.restart(wipe).await;
        server.client().publish("t", "text/plain", if wipe { "2" } else { "3" }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_counts_only_for_a_page_of_the_own_origin_and_beside_its_ticket() {
    let server = Server::start().await;
    server.client().publish("t", "text/plain", "x").await;
    let spent = spend(&server, &server.client(), RECORDS).await;
    let stranger = server.stranger();
    let own = server.url().to_owned();
    let with = |headers: &[(&str, &str)]| {
        let request = events(&stranger, &spent.path).header("Cookie", &spent.cookie);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    for headers in [&[(SITE, "same-origin")][..], &[("Origin", &own)]] {
        assert_eq!(with(headers).send().await.unwrap().status(), 200, "{headers:?}");
    }
    for headers in [
        &[][..],
        &[(SITE, "cross-site")],
        &[(SITE, "same-site")],
        &[(SITE, "none")],
        &[(SITE, "cross-site"), ("Origin", &own)],
        &[("Origin", "https://evil.example")],
        &[("Origin", "http://127.0.0.1")],
        &[("Origin", "null")],
    ] {
        let refused = refused(with(headers)).await;
        assert!(refused.problem().detail.contains("origin"), "{headers:?}: {}", refused.text());
    }
    let again = |path: &str, cookie: &str| events(&stranger, path).header("Cookie", cookie).header(SITE, "same-origin");
    let without_ticket = RECORDS;
    refused(again(without_ticket, &spent.cookie)).await;
    refused(again(&format!("{RECORDS}&ticket=plt_unknown"), &spent.cookie)).await;
    refused(again(&spent.path, "__Secure-plinth=garbage")).await;
    refused(again(&spent.path, &spent.cookie.replace("__Secure-plinth", "plinth"))).await;
    refused(again(&spent.path, &spent.cookie[..spent.cookie.len() - 1])).await;
    // One of the same name that a page of a sibling domain has set does not hide the right one.
    let among_others = format!("a=b; __Secure-plinth=garbage; {}", spent.cookie);
    assert_eq!(again(&spent.path, &among_others).send().await.unwrap().status(), 200);
    let both = answer(coming_back(&server.client(), &spent)).await;
    assert_eq!((both.status, both.problem().code), (400, ErrorCode::InvalidRequest));
    let head = stranger.request(reqwest::Method::HEAD, &spent.path).header("Accept", SSE);
    let head = head.header("Cookie", &spent.cookie).header(SITE, "same-origin");
    assert_eq!(head.send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_back_as_another_caller_or_after_the_end_of_the_key() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "ours").await;
    let other = server.tenant("other").await;
    other.publish("t", "text/plain", "theirs").await;
    let made = answer(client.post("/v1/keys").json(&json!({"name": "", "scopes": ["subscribe:t"]}))).await.json();
    let doomed = Client::new(server.url(), made["key"].as_str());
    let (ours, theirs, ends) = (
        spend(&server, &client, RECORDS).await,
        spend(&server, &other, RECORDS).await,
        spend(&server, &doomed, RECORDS).await,
    );
    let stranger = server.stranger();
    for (spent, text) in [(&ours, "ours"), (&theirs, "theirs"), (&ends, "ours")] {
        let opened = coming_back(&stranger, spent).send().await.unwrap();
        assert_eq!(texts(&SseStream::new(opened).records(1).await), [text]);
    }
    for (path, cookie) in [(&ours, &theirs), (&theirs, &ours), (&ends, &ours), (&ours, &ends)] {
        let mixed = Spent { path: path.path.clone(), cookie: cookie.cookie.clone() };
        refused(coming_back(&stranger, &mixed)).await;
    }
    // No wider than the key: the scope holds for what is opened again.
    let elsewhere = Spent { path: ends.path.replace("/t/", "/u/"), cookie: ends.cookie.clone() };
    assert_eq!(answer(coming_back(&stranger, &elsewhere)).await.status, 403);
    let mut open = SseStream::new(coming_back(&stranger, &ends).send().await.unwrap());
    assert_eq!(texts(&open.records(1).await), ["ours"]);
    assert_eq!(answer(client.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await.status, 204);
    assert!(open.event("goaway").await.data.contains("credential_ended"));
    refused(coming_back(&stranger, &ends)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_comes_back_by_the_cookie_may_subscribe_and_not_publish() {
    let server = Server::start().await;
    server.client().publish("t", "text/plain", "x").await;
    let spent = spend(&server, &server.client(), RECORDS).await;
    let path = format!("/v1/ws?{}", spent.path.split_once('&').unwrap().1);
    let headers = |origin: &str| [("cookie", spent.cookie.clone()), ("origin", origin.to_owned())];
    for foreign in ["https://evil.example", "null"] {
        let refused = Socket::open(&server, &path, &headers(foreign)).await.err().expect("it is refused");
        assert_eq!(refused.problem.code, ErrorCode::Unauthenticated);
    }
    let mut socket = Socket::open(&server, &path, &headers(server.url()))
        .await
        .unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem));
    assert!(!socket.headers.contains_key("set-cookie"));
    socket.frame("welcome").await;
    socket.send(json!({"type": "subscribe", "id": "s", "topics": ["t"], "from": "earliest"})).await;
    assert_eq!(socket.frame("subscribed").await.sub.as_deref(), Some("s"));
    assert_eq!(socket.records(1).await.0, ["x"]);
    socket.send(json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": "y"}]})).await;
    assert_eq!(socket.past_caught_up("error").await.problem.unwrap().code, ErrorCode::Forbidden);
    assert_eq!(server.client().count("t").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_ticket_nor_cookie_is_ever_logged() {
    let options = Options { env: vec![("PLINTH_LOG".into(), "trace".into())], ..Options::default() };
    let server = Server::start_with(options).await;
    server.client().publish("t", "text/plain", "x").await;
    let spent = spend(&server, &server.client(), RECORDS).await;
    let stranger = server.stranger();
    assert_eq!(coming_back(&stranger, &spent).send().await.unwrap().status(), 200);
    refused(events(&stranger, &spent.path).header("Cookie", &spent.cookie)).await;
    let (ticket, token) = (spent.path.split_once("ticket=").unwrap().1, spent.cookie.split_once('=').unwrap().1);
    let log = server.stderr();
    assert!(log.contains("DEBUG"), "there is something to look at");
    let secret = ticket.rsplit('_').next().unwrap();
    assert!(!log.contains(secret) && !log.contains(token), "{log}");
}
