//! Streams by addresses that begin with a tenant. What every kind of credential gets there is in `auth_matrix`, too.

use plinth_api::error::ErrorCode;
use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::header::SET_COOKIE;
use serde_json::{Value, json};

use crate::client::{Answer, Client, answer, within};
use crate::cookie::with_ticket;
use crate::harness::{Options, Server};

const ROOTS: [&str; 2] = ["/v1/stream", "/v1/streams"];

fn put(client: &Client, path: &str) -> RequestBuilder {
    client.put(path).header("Content-Type", "text/plain")
}

fn post(client: &Client, path: &str, text: &str) -> RequestBuilder {
    client.post(path).header("Content-Type", "text/plain").body(text.to_owned())
}

/// Every call to a stream that must be there.
fn calls(client: &Client, path: &str) -> Vec<RequestBuilder> {
    vec![
        post(client, path, "x"),
        client.get(path),
        client.get(&format!("{path}?offset=-1&live=long-poll")),
        client.get(&format!("{path}?offset=-1&live=sse")),
        client.request(Method::HEAD, path),
        client.delete(path),
    ]
}

/// What can be told of an answer, without the id of its request and the name of what was asked for.
fn told(answer: &Answer, name: &str) -> (u16, Vec<(String, String)>, String) {
    let own = ["date", "x-request-id", "retry-after", "content-length"];
    let headers = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let id = answer.headers["x-request-id"].to_str().unwrap();
    (answer.status, headers, answer.text().replace(id, "ID").replace(name, "NAME"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_one_by_each_of_its_addresses() {
    let server = Server::start().await;
    let client = server.client();
    let made = answer(put(&client, "/t/default/v1/stream/chats/a%2Fb")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let location = made.headers["location"].to_str().unwrap();
    assert_eq!(location, format!("{}/t/default/v1/stream/chats/a%2Fb", server.url()), "as it was sent");
    for (round, tenant) in ["", "/t/default", "/t/d%65fault"].into_iter().enumerate() {
        for root in ROOTS {
            let path = format!("{tenant}{root}/chats/a/b");
            assert_eq!(answer(put(&client, &path)).await.status, 200, "{path}");
            assert_eq!(answer(post(&client, &path, "x")).await.status, 204, "{path}");
            let read = answer(client.get(&path)).await;
            assert_eq!(read.text().len(), 2 * round + if root == ROOTS[0] { 1 } else { 2 }, "{path}");
            let next = read.headers["stream-next-offset"].to_str().unwrap().to_owned();
            let head = answer(client.request(Method::HEAD, &path)).await;
            assert_eq!(head.headers["stream-next-offset"], next, "{path}");
        }
    }
    let options = answer(server.stranger().request(Method::OPTIONS, "/t/default/v1/streams/a")).await;
    assert_eq!((options.status, options.headers["allow"].to_str().unwrap().contains("PUT")), (204, true));
    let wrong = answer(client.patch("/t/default/v1/streams/a")).await;
    assert_eq!((wrong.status, wrong.problem().code), (405, ErrorCode::MethodNotAllowed));
    assert_eq!(answer(client.delete("/t/default/v1/streams/chats/a/b")).await.status, 204);
    assert_eq!(answer(client.get("/v1/streams/chats/a/b")).await.status, 404);
    let metrics = answer(client.get("/metrics")).await.text();
    assert!(metrics.contains("route=\"/v1/streams/{path}\"") && !metrics.contains("/t/"), "one name for all addresses");
}

// Fails when the tenant in the address is not compared with that of the credential, or a foreign one is looked up.
#[tokio::test(flavor = "multi_thread")]
async fn behind_another_tenant_there_is_nothing_whether_or_not_there_is_such_a_tenant() {
    let server = Server::start().await;
    let other = server.tenant("other").await;
    let client = server.client();
    for owner in [&other, &client] {
        assert_eq!(answer(put(owner, "/v1/streams/zz-here").body("theirs")).await.status, 201);
    }
    let ticket = async |path: &str| with_ticket(&client, path).await;
    for root in ROOTS {
        let absent = calls(&client, &format!("{root}/zz-none"));
        for tenant in ["other", "nobody", "_system", "%64efault%20", "%2564efault", "a%2Fb", "%FF"] {
            let foreign = calls(&client, &format!("/t/{tenant}{root}/zz-here"));
            for (call, (foreign, absent)) in foreign.into_iter().zip(absent.iter()).enumerate() {
                let foreign = answer(foreign).await;
                let absent = answer(absent.try_clone().unwrap()).await;
                assert_eq!(told(&foreign, "zz-here"), told(&absent, "zz-none"), "{tenant}{root}, call {call}");
                assert_eq!(absent.status, 404);
            }
            let made = answer(put(&client, &format!("/t/{tenant}{root}/fresh"))).await;
            assert_eq!((made.status, made.problem().code), (404, ErrorCode::NotFound), "{tenant}");
            for live in ["", "&live=long-poll", "&live=sse"] {
                let path = ticket(&format!("/t/{tenant}{root}/zz-here?offset=-1{live}")).await;
                let read = answer(server.stranger().get(&path)).await;
                assert_eq!(read.status, 404, "{path}: {}", read.text());
                assert!(!read.headers.contains_key(SET_COOKIE));
            }
        }
        // What the scopes refuse is refused before.
        let careful = server.with_scopes(&["publish:elsewhere"]).await;
        for tenant in ["", "/t/default", "/t/other"] {
            assert_eq!(answer(careful.get(&format!("{tenant}{root}/zz-here"))).await.status, 403);
        }
    }
    for (owner, path) in [(&other, "/t/other/v1/stream/zz-here"), (&client, "/t/default/v1/stream/zz-here")] {
        assert_eq!(answer(owner.get(path)).await.text(), "theirs", "nothing was changed");
    }
    assert_eq!(answer(client.get("/v1/streams/fresh")).await.status, 404, "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn for_the_root_key_the_tenant_of_the_address_is_what_the_header_says_elsewhere() {
    let server = Server::start().await;
    let other = server.tenant("other").await;
    assert_eq!(answer(put(&other, "/v1/streams/s").body("theirs")).await.status, 201);
    let root = server.root();
    for (client, text) in [(root.clone(), "theirs"), (root.clone().acting_in("other"), "theirs+")] {
        assert_eq!(answer(client.get("/t/other/v1/stream/s")).await.text(), text);
        assert_eq!(answer(post(&client, "/t/other/v1/streams/s", "+")).await.status, 204);
        assert_eq!(answer(put(&client, "/t/other/v1/streams/made")).await.status / 100, 2);
    }
    for call in calls(&root.clone().acting_in("default"), "/t/other/v1/stream/s") {
        let both = answer(call).await;
        assert_eq!(both.status, 400, "{}", both.text());
    }
    let nobody = answer(root.get("/t/nobody/v1/stream/s")).await;
    let by_header = answer(root.clone().acting_in("nobody").get("/v1/stream/s")).await;
    assert_eq!(told(&nobody, "-"), told(&by_header, "-"));
    assert_eq!(nobody.status, 404);
    assert_eq!(answer(root.get("/v1/stream/s")).await.status, 403, "it belongs to no tenant until it names one");
    // The header is for the root key alone, here too.
    assert_eq!(answer(other.clone().acting_in("other").get("/t/other/v1/stream/s")).await.status, 403);
    assert_eq!(answer(other.get("/v1/stream/s")).await.text(), "theirs++");
    let audit = answer(root.acting_in("other").get("/v1/topics/_audit/records?limit=100")).await.json();
    let targets: Vec<&Value> =
        audit["records"].as_array().unwrap().iter().map(|record| &record["value"]["target"]).collect();
    assert!(targets.contains(&&json!("made")), "the stream and not its tenant: {targets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_opens_a_stream_by_an_address_alone_and_comes_back() {
    let server = Server::start().await;
    let client = server.client();
    assert_eq!(answer(put(&client, "/v1/streams/s").header("Stream-Closed", "true").body("all")).await.status, 201);
    let path = with_ticket(&client, "/t/default/v1/stream/s?offset=-1&live=sse").await;
    let opened = answer(server.stranger().get(&path).header("Sec-Fetch-Site", "same-origin")).await;
    assert_eq!(opened.status, 200, "{}", opened.text());
    assert!(opened.text().contains("data:all") && opened.text().contains("\"streamClosed\":true"), "{}", opened.text());
    let left = opened.headers[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(left.contains("; Path=/t/default/v1; "), "a browser sends it back there: {left}");
    let cookie = left.split_once(';').unwrap().0;
    let again = |path: &str| {
        let request = server.stranger().get(path).header("Cookie", cookie);
        answer(request.header("Sec-Fetch-Site", "same-origin"))
    };
    assert_eq!(again(&path).await.status, 200);
    assert_eq!(again(&path.replace("/default/", "/other/")).await.status, 404);
    assert_eq!(again(&path.replace("&live=sse", "")).await.status, 401, "a page is not opened again by itself");
    let page = with_ticket(&client, "/t/default/v1/stream/s").await;
    assert_eq!(answer(server.stranger().get(&page)).await.text(), "all");
    assert_eq!(answer(server.stranger().get(&page)).await.status, 401, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_use_the_addresses_with_a_tenant() {
    let server = Server::start().await;
    let patch = json!({"allowed_origins": ["https://app.example"]});
    assert_eq!(answer(server.root().patch("/v1/tenants/default").json(&patch)).await.status, 200);
    let page = |request: RequestBuilder| answer(request.header("Origin", "https://app.example"));
    let asked = server.stranger().request(Method::OPTIONS, "/t/default/v1/stream/s");
    let asked = asked.header("Origin", "https://app.example").header("Access-Control-Request-Method", "PUT");
    let asked = within("an answer", asked.send()).await.expect("an answer");
    assert_eq!(asked.status(), 204);
    assert!(asked.headers()["access-control-allow-methods"].to_str().unwrap().contains("PUT"));
    let made = page(put(&server.client(), "/t/default/v1/stream/s")).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.headers["access-control-allow-origin"], "https://app.example");
    let read = page(server.client().get("/t/default/v1/stream/none")).await;
    assert_eq!(read.headers["cache-control"], "private, no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_streams_is_behind_a_tenant() {
    let server = Server::start().await;
    let client = server.client();
    let nowhere = answer(client.get("/nowhere")).await;
    for path in ["topics", "topics/a", "stream?topic=a", "streams/", "quotas", "keys", "ws"] {
        let seen = answer(client.get(&format!("/t/default/v1/{path}"))).await;
        assert_eq!((seen.status, told(&seen, "-").2), (404, told(&nowhere, "-").2), "{path}");
    }
    for path in
        ["/t/default", "/t/default/", "/t/default/livez", "/t//v1/streams/a", "/t/default/t/default/v1/streams/a"]
    {
        assert_eq!(answer(client.get(path)).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_url_stands_before_the_tenant() {
    let env = vec![("PLINTH_PUBLIC_URL".into(), "https://q.example/".into())];
    let server = Server::start_with(Options { env, ..Options::default() }).await;
    let made = within("an answer", answer(put(&server.client(), "/t/default/v1/stream/s"))).await;
    assert_eq!(
        (made.status, &made.headers["location"]),
        (201, &"https://q.example/t/default/v1/stream/s".parse().unwrap())
    );
}

// Fails when a subscription of the own tenant is seen by an address that names another one, or its token counts there.
#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_behind_the_own_tenant_alone() {
    let server = Server::start().await;
    let (client, other) = (server.client(), server.tenant("other").await);
    let asked = json!({"type": "pull-wake", "pattern": "s/*", "wake_stream": "wake"});
    let own = "/t/default/v1/stream/__ds/subscriptions";
    for owner in [&client, &other] {
        let made = answer(owner.put("/v1/streams/__ds/subscriptions/here").json(&asked)).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    assert_eq!(answer(client.put(&format!("{own}/here")).json(&asked)).await.status, 200);
    assert_eq!(answer(put(&client, "/t/default/v1/stream/s/a").body("new")).await.status, 201);
    for tenant in ["other", "nobody"] {
        let foreign = format!("/t/{tenant}/v1/streams/__ds/subscriptions");
        let calls = |path: &str| {
            [
                client.get(path),
                client.post(&format!("{path}/streams")).json(&json!({"streams": ["s/b"]})),
                client.delete(&format!("{path}/streams/s/a")),
                client.post(&format!("{path}/claim")).json(&json!({"worker": "w"})),
                client.delete(path),
            ]
        };
        let absent = calls("/v1/streams/__ds/subscriptions/none");
        for (foreign, absent) in calls(&format!("{foreign}/here")).into_iter().zip(absent) {
            let (foreign, absent) = (answer(foreign).await, answer(absent).await);
            assert_eq!(told(&foreign, "\"here\\\""), told(&absent, "\"none\\\""), "{tenant}");
        }
        assert_eq!(answer(client.put(&format!("{foreign}/fresh")).json(&asked)).await.status, 404);
    }
    let claimed = answer(client.post(&format!("{own}/here/claim")).json(&json!({"worker": "w"}))).await;
    assert_eq!(claimed.status, 200, "{}", claimed.text());
    let claimed = claimed.json();
    let token = Client::new(server.url(), claimed["token"].as_str());
    let ack = json!({"wake_id": claimed["wake_id"], "generation": claimed["generation"], "done": true});
    let by =
        |tenant: &str| answer(token.post(&format!("/t/{tenant}/v1/stream/__ds/subscriptions/here/ack")).json(&ack));
    let refused = by("other").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("TOKEN_INVALID")));
    assert_eq!(by("default").await.status, 200);
}
