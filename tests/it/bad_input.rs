//! Bad input gets its exact status and code and a sentence that names the thing and the limit, and nothing of it is
//! stored. WebSocket garbage is in `ws.rs`, bad credentials are in `auth_matrix.rs`, a bad store is in `store_faults.rs`.

use plinth_api::error::PublishOutcome;
use plinth_api::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX, RECORD_HEADERS_MAX,
    RECORD_KEY_BYTES_MAX,
};
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{BATCH, Client, NDJSON, SSE, answer, escape, from_cursor, within};
use crate::harness::Server;

/// What a refusal must be: status, code, and words of its detail.
struct Expected(u16, &'static str, Vec<String>);

fn expected(status: u16, code: &'static str, words: &[&dyn std::fmt::Display]) -> Expected {
    Expected(status, code, words.iter().map(ToString::to_string).collect())
}

async fn refused(
    what: &str,
    request: RequestBuilder,
    Expected(status, code, words): Expected,
) -> Option<PublishOutcome> {
    let answer = answer(request).await;
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let problem = answer.problem();
    assert_eq!(problem.code.as_str(), code, "{what}: {problem:?}");
    for word in words {
        assert!(problem.detail.contains(&word), "{what}: {word:?} is not in {:?}", problem.detail);
    }
    problem.outcome
}

/// A server with one record in topic `t`, which has one partition.
async fn one_record() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "only").await;
    (server, client)
}

async fn nothing_was_stored(client: &Client) {
    assert_eq!(client.count("t").await, 1, "nothing was stored");
    let topics = answer(client.get("/v1/topics")).await.json();
    let names = topics["data"].as_array().unwrap().iter().filter_map(|topic| topic["name"].as_str());
    assert_eq!(names.filter(|name| !name.starts_with('_')).count(), 1, "no topic was made: {topics}");
}

/// A refused publish: what it is, its media type and body, a header of the request, and the refusal.
type Case = (&'static str, &'static str, Vec<u8>, Option<(&'static str, String)>, Expected);

/// A batch of a good record and another one, record 2.
fn one(record: &serde_json::Value) -> Vec<u8> {
    json!({"records": [{"text": "good"}, record]}).to_string().into_bytes()
}

fn bodies() -> Vec<Case> {
    let texts = |count: usize| json!({"records": vec![json!({"text": "x"}); count]}).to_string().into_bytes();
    let broken = "{\"fine\":true}\n".repeat(36) + "{\"broken\n" + &"{\"fine\":true}\n".repeat(5);
    let (max, over, batch) = (RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, BATCH_BYTES_MAX);
    let large = |bytes: usize| vec![b'x'; bytes];
    let invalid = |word: &str| expected(400, "invalid_request", &[&word]);
    vec![
        ("an empty body", "text/plain", vec![], None, invalid("empty")),
        ("an empty batch", BATCH, vec![], None, invalid("empty")),
        ("no lines", NDJSON, vec![], None, invalid("empty")),
        ("only empty lines", NDJSON, b"\n\n".to_vec(), None, invalid("empty")),
        ("a batch of none", BATCH, texts(0), None, invalid("no record")),
        ("a large record", "text/plain", large(over), None, expected(413, "too_large", &[&max, &over])),
        ("a large batch", BATCH, large(batch + 1), None, expected(413, "too_large", &[&batch])),
        ("many lines' bytes", NDJSON, large(batch + 1), None, expected(413, "too_large", &[&batch])),
        ("too many records", BATCH, texts(1001), None, expected(413, "too_large", &[&1001, &BATCH_RECORDS_MAX])),
        ("too many lines", NDJSON, b"1\n".repeat(1001), None, expected(413, "too_large", &[&1001, &BATCH_RECORDS_MAX])),
        ("broken JSON", BATCH, br#"{"records":[{"text":"a"},"#.to_vec(), None, invalid("line 1")),
        ("an array for a batch", BATCH, br#"[[{"text":"a"}]]"#.to_vec(), None, invalid("not a JSON object")),
        ("an array for a record", BATCH, br#"{"records":[["k"]]}"#.to_vec(), None, invalid("which is an object")),
        ("line 37", NDJSON, broken.into_bytes(), None, invalid("line 37")),
        ("no UTF-8", NDJSON, b"1\n2\n\"\xff\"\n".to_vec(), None, invalid("line 3")),
        ("an unknown field", BATCH, one(&json!({"valeu": 1})), None, expected(400, "unknown_field", &[&"`valeu`"])),
        (
            "an unknown field above",
            BATCH,
            br#"{"record":[]}"#.to_vec(),
            None,
            expected(400, "unknown_field", &[&"`record`"]),
        ),
    ]
}

fn records() -> Vec<Case> {
    let over = RECORD_BYTES_MAX + 1;
    let many: serde_json::Map<_, _> = (0..=RECORD_HEADERS_MAX).map(|n| (format!("h{n}"), json!("v"))).collect();
    let refused = |words: &[&dyn std::fmt::Display]| expected(422, "unprocessable", words);
    let large = |words: &[&dyn std::fmt::Display]| expected(413, "too_large", words);
    [
        ("a large record", json!({"text": "x".repeat(over)}), large(&[&"record 2", &over, &RECORD_BYTES_MAX])),
        (
            "a long key",
            json!({"key": "k".repeat(RECORD_KEY_BYTES_MAX + 1)}),
            large(&[&"record 2", &"key", &1025, &RECORD_KEY_BYTES_MAX]),
        ),
        ("many headers", json!({"headers": many}), large(&[&"headers", &65, &RECORD_HEADERS_MAX])),
        (
            "large headers",
            json!({"headers": {"h": "v".repeat(RECORD_HEADERS_BYTES_MAX)}}),
            large(&[&"headers", &RECORD_HEADERS_BYTES_MAX]),
        ),
        (
            "a header that splits a response",
            json!({"headers": {"h": "a\r\nset-cookie: b"}}),
            refused(&[&"record 2", &"header h", &"control character"]),
        ),
        ("a header name that is none", json!({"headers": {"a b": "c"}}), refused(&[&"record 2", &"a b"])),
        ("two payloads", json!({"text": "a", "base64": "AA=="}), refused(&[&"record 2", &"`text`", &"`base64`"])),
        ("bad base64", json!({"base64": "A"}), refused(&[&"record 2", &"base64"])),
    ]
    .into_iter()
    .map(|(what, record, expected)| (what, BATCH, one(&record), None, expected))
    .collect()
}

fn headers() -> Vec<Case> {
    let media =
        |kind: &'static str| (kind, kind, b"{}".to_vec(), None, expected(415, "unsupported_media_type", &[&kind]));
    let header = |name: &'static str, value: &str, expected: Expected| {
        (name, "text/plain", b"x".to_vec(), Some((name, value.to_owned())), expected)
    };
    let long = "k".repeat(RECORD_KEY_BYTES_MAX + 1);
    vec![
        media("application/vnd.plinth.batches"),
        media("application/cloudevents+json"),
        header("Content-Encoding", "gzip", expected(415, "unsupported_media_type", &[&"gzip"])),
        header("Idempotency-Key", "a b", expected(400, "invalid_request", &[&"idempotency key", &"255"])),
        header("Producer-Seq", "1", expected(400, "invalid_request", &[&"`producer-id`", &"together"])),
        header("Expected-Tail", "x", expected(400, "invalid_request", &[&"`expected-tail`", &"\"x\""])),
        header("Record-Delay", "30s", expected(400, "unknown_field", &[&"`record-delay`"])),
        header("Durability", "paper", expected(400, "invalid_request", &[&"paper", &"`object`"])),
        header("Durability", "Memory", expected(400, "invalid_request", &[&"Memory", &"`memory`"])),
        header("Durability", "memory", expected(422, "unprocessable", &[&"memory", &"topic t", &"object"])),
        header("Record-Key", &long, expected(413, "too_large", &[&"key", &1025, &RECORD_KEY_BYTES_MAX])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_are_refused_say_why_and_store_nothing() {
    let (server, client) = one_record().await;
    for (what, kind, body, header, expected) in [bodies(), records(), headers()].into_iter().flatten() {
        // A connection of its own: that of a body which was refused unread is closed.
        let mut request = server.client().publishing("t", kind, body);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let outcome = refused(what, request, expected).await;
        assert_eq!(outcome, Some(PublishOutcome::NotStored), "{what}");
    }
    nothing_was_stored(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_whose_length_is_not_announced_is_refused() {
    let (server, client) = one_record().await;
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100_000]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    let request = client.publishing("t", "text/plain", body);
    // The server may answer and hang up before all of the body is sent; then there is no answer to look at.
    if let Ok(answer) = crate::client::try_answer(request).await {
        assert_eq!((answer.status, answer.problem().code.as_str()), (413, "too_large"));
    }
    // A connection with an unread body cannot be used again.
    nothing_was_stored(&server.client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_break_the_rule_are_refused_everywhere_and_the_rule_is_named() {
    let (_server, client) = one_record().await;
    let long = "a".repeat(256);
    let names = [
        (long.as_str(), "255"),
        ("_use", "reserved"),
        (".hidden", "dot"),
        ("a..b", "two dots"),
        ("a//b", "empty level"),
        ("a/", "empty level"),
        ("a b", "' '"),
        ("caf\u{e9}", "'é'"),
        ("a%2Fb", "'%'"),
        ("a\u{0}", "'\\0'"),
        ("a*", "'*'"),
        ("a\nb", "'\\n'"),
    ];
    for (name, word) in names {
        let path = format!("/v1/topics/{}", escape(name));
        let records = format!("{path}/records");
        for (what, request) in [
            ("PUT", client.put(&path).json(&json!({}))),
            ("GET", client.get(&path)),
            ("PATCH", client.patch(&path).json(&json!({}))),
            ("DELETE", client.delete(&path)),
            ("publish", client.post(&records).header("Content-Type", "text/plain").body("x")),
            ("read", client.get(&records)),
            ("follow", client.get(&records).header("Accept", SSE)),
        ] {
            refused(&format!("{what} {name:?}"), request, expected(400, "invalid_topic_name", &[&word])).await;
        }
        if !name.contains('*') {
            let stream = client.get(&format!("/v1/stream?topic={}", escape(name))).header("Accept", SSE);
            refused(&format!("stream {name:?}"), stream, expected(400, "invalid_topic_name", &[&word])).await;
        }
    }
    let bad_utf8 = answer(client.get("/v1/topics/%ff")).await;
    assert_eq!(bad_utf8.status, 400, "{}", bad_utf8.text());
    nothing_was_stored(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_refused_say_why() {
    let (_server, client) = one_record().await;
    let get = |query: &str| client.get(&format!("/v1/topics/t/records?{query}"));
    let cases = [
        ("above the tail", get("from=offset:2"), expected(416, "offset_above_tail", &[&2, &1])),
        ("an unknown parameter", get("form=earliest"), expected(400, "unknown_field", &[&"`form`", &"`from`"])),
        ("twice", get("limit=1&limit=2"), expected(400, "invalid_request", &[&"`limit`"])),
        ("limit 0", get("limit=0"), expected(400, "invalid_request", &[&"`limit`", &0, &10_000])),
        ("a large limit", get("limit=10001"), expected(400, "invalid_request", &[&"`limit`", &10_001, &10_000])),
        ("no number", get("limit=ten"), expected(400, "invalid_request", &[&"`limit`"])),
        ("a long wait", get("wait=61s"), expected(400, "invalid_request", &[&"`wait`", &"60"])),
        ("no duration", get("wait=soon"), expected(400, "invalid_request", &[&"`wait`"])),
        ("nowhere", get("from=nowhere"), expected(400, "invalid_request", &[&"nowhere"])),
        ("no offset", get("from=offset:x"), expected(400, "invalid_request", &[&"offset:x"])),
        ("no time", get("from=time:yesterday"), expected(400, "invalid_request", &[&"yesterday"])),
        ("a filter", get("filter=x"), expected(400, "unknown_field", &[&"`filter`"])),
        ("garbage", get("from=cursor:garbage"), expected(400, "invalid_cursor", &[&"cursor"])),
        ("an empty cursor", get("from=cursor:"), expected(400, "invalid_request", &[&"cursor"])),
        (
            "no picture",
            get("").header("Accept", "image/png"),
            expected(406, "not_acceptable", &[&"application/json", &SSE]),
        ),
        (
            "garbage as last event id",
            get("").header("Accept", SSE).header("Last-Event-ID", "garbage"),
            expected(400, "invalid_cursor", &[&"cursor"]),
        ),
        (
            "a parameter of another form",
            get("unnamed=true").header("Accept", "application/json"),
            expected(400, "unknown_field", &[&"`unnamed`"]),
        ),
        ("no such topic", client.get("/v1/topics/none/records"), expected(404, "not_found", &[&"none"])),
        (
            "no topic at all",
            client.get("/v1/stream").header("Accept", SSE),
            expected(400, "invalid_request", &[&"topic"]),
        ),
    ];
    for (what, request, expected) in cases {
        refused(what, request, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_there_is_refused_for_reads_and_publishes() {
    let (_server, client) = one_record().await;
    let path = "/v1/topics/t/records?partition=1";
    for (what, request) in [
        ("read", client.get(path)),
        ("follow", client.get(path).header("Accept", SSE)),
        ("publish", client.post(path).header("Content-Type", "text/plain").body("x")),
    ] {
        let answer = answer(request).await;
        assert!([400, 404, 422].contains(&answer.status), "{what}: {}", answer.text());
        assert!(answer.problem().detail.contains("partition"), "{what}: {}", answer.text());
    }
    for bad in ["x", "-1", "4294967296"] {
        let request = client.post(&format!("/v1/topics/t/records?partition={bad}")).body("x");
        refused(bad, request, expected(400, "invalid_request", &[&"`partition`"])).await;
    }
    nothing_was_stored(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_topic_tenant_or_cluster_and_a_changed_one_are_refused_alike() {
    let (server, client) = one_record().await;
    let own = client.page("t", "").await.next;
    let foreign_server = Server::start().await;
    let other = server.tenant("other").await;
    let mut cursors = vec![
        ("of a topic", client.publish("u", "text/plain", "x").await.cursor),
        ("of a tenant", other.publish("t", "text/plain", "x").await.cursor),
        ("of a cluster", foreign_server.client().publish("t", "text/plain", "x").await.cursor),
        ("too long", own.repeat(50)),
    ];
    for place in [0, own.len() / 2, own.len() - 1] {
        let mut changed = own.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        cursors.push(("changed", String::from_utf8(changed).unwrap()));
    }
    for (what, cursor) in cursors {
        let page = client.get(&format!("/v1/topics/t/records?from={}", from_cursor(&cursor)));
        refused(what, page, expected(400, "invalid_cursor", &[&"cursor"])).await;
        let live = client.get("/v1/topics/t/records").header("Accept", SSE).header("Last-Event-ID", cursor);
        refused(what, live, expected(400, "invalid_cursor", &[&"cursor"])).await;
    }
}

/// A refused setting: what it is, the request, the statuses with codes that are right, and a word of the detail.
type Setting = (&'static str, RequestBuilder, &'static [(u16, &'static str)], &'static str);

const UNREADABLE: &[(u16, &str)] = &[(400, "invalid_request")];
/// Whether a value that can be read and makes no sense is 400 or 422 is the server's choice.
const SENSELESS: &[(u16, &str)] = &[(400, "invalid_request"), (422, "unprocessable"), (413, "too_large")];

fn settings(server: &Server) -> Vec<Setting> {
    let client = server.client();
    let put = |body: serde_json::Value| client.put("/v1/topics/new").json(&body);
    let key = |body: serde_json::Value| client.post("/v1/keys").json(&body);
    let tenant = |name: &str| server.root().post("/v1/tenants").json(&json!({"name": name}));
    let raw = |kind: &str, body: &'static str| client.put("/v1/topics/new").header("Content-Type", kind).body(body);
    let long = "n".repeat(256);
    vec![
        ("no partition", put(json!({"partitions": 0})), SENSELESS, "partitions"),
        ("many partitions", put(json!({"partitions": 1025})), SENSELESS, "1024"),
        ("no number", put(json!({"partitions": "two"})), UNREADABLE, "line 1"),
        ("a huge limit", put(json!({"max_record_bytes": 1_048_577})), SENSELESS, "1048576"),
        ("no room", put(json!({"max_record_bytes": 0})), SENSELESS, "max_record_bytes"),
        ("an unknown field", put(json!({"partition": 1})), &[(400, "unknown_field")], "`partition`"),
        ("an unknown durability", put(json!({"durability": "paper"})), SENSELESS, "paper"),
        ("a durability of another case", put(json!({"durability": "Local"})), SENSELESS, "Local"),
        (
            "a change to an unknown durability",
            client.patch("/v1/topics/t").json(&json!({"durability": "paper"})),
            SENSELESS,
            "paper",
        ),
        ("another media type", raw("text/plain", "{}"), &[(415, "unsupported_media_type")], "text/plain"),
        ("broken JSON", raw("application/json", "{\"partitions\":"), UNREADABLE, "line 1"),
        ("an array for settings", raw("application/json", "[3]"), UNREADABLE, "not a JSON object"),
        ("a change of nothing", client.patch("/v1/topics/t"), UNREADABLE, "empty"),
        (
            "a ticket with a life of its own",
            client.post("/v1/tickets").json(&json!({"ttl": "1h"})),
            &[(400, "unknown_field")],
            "`ttl`",
        ),
        ("an unknown scope", key(json!({"scopes": ["read:**"]})), SENSELESS, "read:**"),
        ("an operator's scope", key(json!({"scopes": ["operator"]})), SENSELESS, "operator"),
        ("no scope", key(json!({"scopes": []})), SENSELESS, "scope"),
        ("many scopes", key(json!({"scopes": vec!["admin"; 101]})), SENSELESS, "100"),
        ("a long name", key(json!({"name": long, "scopes": ["admin"]})), SENSELESS, "255"),
        ("no duration", key(json!({"scopes": ["admin"], "expires_in": "soon"})), SENSELESS, "soon"),
        ("a key that is not there", client.delete("/v1/keys/nothing"), &[(404, "not_found")], "nothing"),
        ("a tenant in capitals", tenant("Team"), SENSELESS, "Team"),
        ("a tenant that is there", tenant("default"), &[(409, "conflict")], "default"),
        ("a tenant that is not", server.root().delete("/v1/tenants/nobody"), &[(404, "not_found")], "nobody"),
        ("an unknown parameter", client.get("/v1/topics?prefx=a"), &[(400, "unknown_field")], "`prefx`"),
        (
            "a bad list cursor",
            client.get("/v1/topics?cursor=!"),
            &[(400, "invalid_cursor"), (400, "invalid_request")],
            "cursor",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_refused_say_why() {
    let (server, client) = one_record().await;
    for (what, request, allowed, word) in settings(&server) {
        let answer = answer(request).await;
        let problem = answer.problem();
        assert!(allowed.contains(&(answer.status, problem.code.as_str())), "{what}: {}", answer.text());
        assert!(problem.detail.contains(word), "{what}: {word:?} is not in {:?}", problem.detail);
    }
    nothing_was_stored(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_problems_too() {
    let (_server, client) = one_record().await;
    refused("a path", client.get("/v1/nothing"), expected(404, "not_found", &[])).await;
    let method = answer(client.post("/v1/topics/t")).await;
    assert_eq!((method.status, method.problem().code.as_str()), (405, "method_not_allowed"));
    let allowed = method.header("allow").expect("405 names the methods").to_owned();
    assert!(["GET", "PUT", "PATCH", "DELETE"].iter().all(|name| allowed.contains(name)), "{allowed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_request_is_echoed_when_it_is_harmless_and_replaced_when_it_is_not() {
    let (_server, client) = one_record().await;
    let echoed = answer(client.get("/v1/topics/none").header("X-Request-Id", "my-id-7")).await;
    assert_eq!(echoed.header("x-request-id"), Some("my-id-7"));
    assert_eq!(echoed.problem().request_id.as_deref(), Some("my-id-7"));
    let long = answer(client.get("/v1/topics/none").header("X-Request-Id", "x".repeat(4000))).await;
    assert!(long.header("x-request-id").is_some_and(|id| id.len() <= 128));
}

/// Bytes that are no HTTP, an endless head, a body that breaks off: answered or hung up on, and the server goes on.
#[tokio::test(flavor = "multi_thread")]
async fn abuse_of_the_socket_harms_nobody_else() {
    let (server, client) = one_record().await;
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    let head = |extra: &str| {
        format!(
            "POST /v1/topics/t/records HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: text/plain\r\n{extra}",
            server.key()
        )
    };
    let abuses: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", b"\x00\x01\x02\xff\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("an endless head", head(&format!("X: {}\r\n", "y".repeat(1 << 20))).into_bytes()),
        ("many headers", head(&"X: y\r\n".repeat(5000)).into_bytes()),
        ("two lengths", head("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd").into_bytes()),
        ("a bad length", head("Content-Length: -1\r\n\r\nabcd").into_bytes()),
        ("a bad chunk", head("Transfer-Encoding: chunked\r\n\r\nzz\r\nabc").into_bytes()),
        ("a body that breaks off", head("Content-Length: 1000\r\n\r\nabc").into_bytes()),
        ("a chunk that breaks off", head("Transfer-Encoding: chunked\r\n\r\nff\r\nabc").into_bytes()),
        ("HTTP/2 garbage", [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 500]].concat()),
    ];
    for (what, bytes) in abuses {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        // The server may hang up before all is sent.
        let _sent = socket.write_all(&bytes).await;
        let _shut = socket.shutdown().await;
        let mut reply = Vec::new();
        let _read = within(what, socket.read_to_end(&mut reply)).await;
        let reply = String::from_utf8_lossy(&reply);
        assert!(!reply.starts_with("HTTP/1.1 2"), "{what}: {reply}");
    }
    nothing_was_stored(&client).await;
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}
