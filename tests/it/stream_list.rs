//! The list of streams.

use plinth_api::ListPage;
use plinth_api::error::ErrorCode;
use plinth_api::streams::Stream;
use plinth_api::topics::{Topic, TopicStream};
use reqwest::RequestBuilder;
use serde_json::json;

use crate::client::{Client, answer};
use crate::harness::Server;

async fn list(client: &Client, query: &str) -> ListPage<Stream> {
    let list = answer(client.get(&format!("/v1/streams{query}"))).await;
    assert_eq!(list.status, 200, "{}", list.text());
    serde_json::from_slice(&list.body).expect("a page of streams")
}

fn names(page: &ListPage<Stream>) -> Vec<&str> {
    page.data.iter().map(|stream| stream.name.as_str()).filter(|name| !name.starts_with('_')).collect()
}

async fn make(request: RequestBuilder) -> String {
    let made = answer(request).await;
    assert_eq!(made.status, 201, "{}", made.text());
    made.headers["stream-next-offset"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_what_each_stream_is() {
    let mut server = Server::start().await;
    let client = server.client();
    let json = || client.put("/v1/streams/a/json").header("Content-Type", "Application/JSON; charset=utf-8");
    let ends = "2999-01-01T01:00:00.5+01:00";
    let next = [
        make(json().header("Stream-TTL", "5400").body("[1,2]")).await,
        make(client.put("/v1/stream/a/closed").header("Stream-Closed", "true").header("Stream-Expires-At", ends)).await,
        make(client.put("/v1/stream/b")).await,
    ];
    client.publish("c", "text/plain", "by REST").await;
    client.make_topic("d", 2).await;
    let compacted = client.put("/v1/topics/e").json(&json!({"cleanup": "compact"}));
    assert_eq!(answer(compacted).await.status, 201);
    for _ in 0..2 {
        let client = server.client();
        let page = list(&client, "").await;
        assert_eq!(names(&page), ["a/closed", "a/json", "b", "c"], "neither of two partitions nor compacted");
        assert_eq!(page.next_cursor, None);
        let shown: Vec<_> = page.data.iter().filter(|stream| !stream.name.starts_with('_')).collect();
        let [closed, json, plain, topic] = shown[..] else { panic!("four streams") };
        assert_eq!((closed.closed, &closed.ttl, closed.expires_at), (true, &None, Some(32_472_144_000_500)));
        assert_eq!((json.closed, json.ttl.as_deref(), json.expires_at), (false, Some("90m"), None));
        assert_eq!(
            (json.content_type.as_str(), plain.content_type.as_str()),
            ("Application/JSON; charset=utf-8", "application/octet-stream")
        );
        assert_eq!([&json.next_offset, &closed.next_offset, &plain.next_offset], [&next[0], &next[1], &next[2]]);
        let head = answer(client.request(reqwest::Method::HEAD, "/v1/streams/c")).await;
        assert_eq!(head.headers["stream-next-offset"], topic.next_offset);
        let made = client.topic("c").await;
        assert_eq!((topic.created_at, made.stream), (made.created_at, None), "not made as a stream");
        // Whoever looks at topics sees the same of each, in the view of one and in the list.
        let topics: ListPage<Topic> = answer(client.get("/v1/topics?prefix=a/")).await.parse();
        for (stream, listed) in [closed, json].into_iter().zip(topics.data) {
            let Stream { name, content_type, closed, ttl, expires_at, .. } = stream.clone();
            let expected = Some(TopicStream { content_type, closed, ttl, expires_at });
            let viewed = client.topic(&name).await;
            assert_eq!((&listed.name, &listed.stream, &viewed.stream), (&name, &expected, &expected));
        }
        server.kill9().await;
        server.restart(true).await;
    }
    assert_eq!(answer(server.client().delete("/v1/streams/b")).await.status, 204);
    assert_eq!(names(&list(&server.client(), "").await), ["a/closed", "a/json", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_page_by_page_and_by_prefix() {
    let server = Server::start().await;
    let client = server.client();
    for name in ["chats/1", "chats/2", "chats/3", "chat", "docs/1"] {
        make(client.put(&format!("/v1/streams/{name}"))).await;
    }
    client.make_topic("chats/20", 2).await;
    let (mut found, mut query) = (Vec::new(), "?prefix=chats/&limit=1".to_owned());
    loop {
        let page = list(&client, &query).await;
        found.extend(names(&page).into_iter().map(str::to_owned));
        let Some(cursor) = page.next_cursor else { break };
        assert_eq!(page.data.len(), 1);
        query = format!("?prefix=chats/&limit=1&cursor={cursor}");
    }
    assert_eq!(found, ["chats/1", "chats/2", "chats/3"]);
    assert_eq!(names(&list(&client, "?prefix=chat&limit=1000").await), ["chat", "chats/1", "chats/2", "chats/3"]);
    assert_eq!(names(&list(&client, "?prefix=nothing").await), [""; 0]);
    for (query, code) in [
        ("?limit=0", ErrorCode::InvalidRequest),
        ("?limit=1001", ErrorCode::InvalidRequest),
        ("?cursor=!", ErrorCode::InvalidCursor),
        ("?offset=-1", ErrorCode::UnknownField),
    ] {
        let refused = answer(client.get(&format!("/v1/streams{query}"))).await;
        assert_eq!((refused.status, refused.problem().code), (400, code), "{query}");
    }
    assert_eq!(answer(client.post("/v1/streams")).await.status, 405);
}

// Fails when the list is not that of the caller's own tenant, or is not cut to its scopes.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_only_what_the_credential_may_know_of() {
    let server = Server::start().await;
    let (client, other) = (server.client(), server.tenant("other").await);
    for name in ["ours/1", "ours/2", "mine"] {
        make(client.put(&format!("/v1/streams/{name}"))).await;
    }
    make(other.put("/v1/streams/theirs")).await;
    assert_eq!(names(&list(&client, "").await), ["mine", "ours/1", "ours/2"]);
    assert_eq!(names(&list(&other, "").await), ["theirs"]);
    assert_eq!(names(&list(&server.root().acting_in("other"), "").await), ["theirs"]);
    for scope in ["subscribe:ours/*", "publish:ours/*", "manage:ours/*"] {
        let narrow = server.with_scopes(&[scope]).await;
        let page = list(&narrow, "?limit=1").await;
        assert_eq!(names(&page), ["ours/1"], "{scope}");
        let rest = list(&narrow, &format!("?limit=1&cursor={}", page.next_cursor.expect("there is more"))).await;
        assert_eq!((names(&rest), &rest.next_cursor), (vec!["ours/2"], &None), "{scope}");
    }
    assert!(list(&server.with_scopes(&["subscribe:none"]).await, "").await.data.is_empty());
}

// Fails when a list counts as a use of the streams in it, or shows one that is over: what has a fork is not deleted by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_over_is_not_listed_and_a_list_keeps_none_alive() {
    let server = Server::start().await;
    let client = server.client();
    make(client.put("/v1/streams/short").header("Stream-TTL", "1")).await;
    make(client.put("/v1/streams/stays")).await;
    let fork = client.put("/v1/streams/fork").header("Stream-TTL", "5400");
    make(fork.header("Stream-Forked-From", "/v1/streams/short")).await;
    let begun = std::time::Instant::now();
    while names(&list(&client, "").await).contains(&"short") {
        assert!(begun.elapsed() < crate::harness::DEADLINE, "it does not end while it is listed");
    }
    assert_eq!(names(&list(&client, "").await), ["fork", "stays"]);
    let listed = answer(client.get("/v1/topics")).await.json();
    let listed = listed["data"].as_array().expect("a list").iter().map(|topic| topic["name"].as_str().expect("a name"));
    assert_eq!(listed.filter(|name| !name.starts_with('_')).collect::<Vec<_>>(), ["fork", "stays"]);
    assert_eq!(answer(client.get("/v1/streams/short")).await.status, 410, "it is kept for its fork");
}

// Fails when the list forgets which names are kept for forks alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_and_is_kept_for_its_forks_is_not_listed() {
    let server = Server::start().await;
    let client = server.client();
    make(client.put("/v1/streams/a/source")).await;
    make(client.put("/v1/streams/a/fork").header("Stream-Forked-From", "/v1/streams/a/source")).await;
    assert_eq!(answer(client.delete("/v1/streams/a/source")).await.status, 204);
    let page = list(&client, "?prefix=a/&limit=1").await;
    assert_eq!((names(&page), &page.next_cursor), (vec!["a/fork"], &None));
    assert_eq!(answer(client.get("/v1/streams/a%2Fsource")).await.status, 410);
}
