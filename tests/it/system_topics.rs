//! The topics that the server writes about a tenant: who may read them, what they say, and that nobody else writes them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{
    Answer, Client, LineStream, NDJSON, SSE, answer, payload, records_path, topic_path, try_answer, within,
};
use crate::harness::{Options, ROOT_KEY, Server};

const TOPICS: [&str; 3] = ["_usage", "_audit", "_events"];
const STORED: &str = "application/vnd.plinth.batch";

/// All records of a system topic.
async fn records(client: &Client, topic: &str) -> Vec<Value> {
    let records = client.read_all(topic, 0).await;
    records.iter().map(|record| serde_json::from_slice(&payload(record)).expect("a record is JSON")).collect()
}

async fn follow(client: &Client, topic: &str) -> LineStream {
    client.ndjson(&format!("{}?from=earliest", records_path(topic))).await
}

/// The next record that is what is looked for, past others.
async fn next(stream: &mut LineStream, wanted: impl Fn(&Value) -> bool) -> Value {
    let look = async {
        loop {
            let record = stream.records(1).await.remove(0);
            let value = serde_json::from_slice(&payload(&record)).expect("a record is JSON");
            if wanted(&value) {
                return value;
            }
        }
    };
    // Signs of life are not what is waited for.
    within("the record", look).await
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.problem().code.as_str().to_owned())
}

/// Reads of a system topic by every transport: the status of each, and for a WebSocket the code of its error.
async fn reads(client: &Client, topic: &str) -> Vec<String> {
    let path = records_path(topic);
    let mut seen = Vec::new();
    for accept in ["application/json", NDJSON, SSE, STORED] {
        let response = client.get(&path).header("Accept", accept).send().await.expect("an answer");
        seen.push(response.status().as_u16().to_string());
    }
    let stream = client.get(&format!("/v1/stream?topic={topic}")).header("Accept", SSE).send().await;
    seen.push(stream.expect("an answer").status().as_u16().to_string());
    let mut ws = client.ws().await;
    ws.send(&json!({"type": "subscribe", "id": "s", "topics": [topic], "from": "earliest"})).await;
    let frame = ws.next().await.expect("the connection is open");
    seen.push(frame.problem.map_or(frame.kind, |problem| problem.code.as_str().to_owned()));
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_read_system_topics_on_every_transport_and_nobody_else_does() {
    let server = Server::start().await;
    let admin = server.with_scopes(&["admin"]).await;
    let other = server.with_scopes(&["publish:**", "subscribe:**", "manage:**"]).await;
    for topic in TOPICS {
        assert_eq!(reads(&admin, topic).await, ["200", "200", "200", "200", "200", "subscribed"], "{topic}");
        let view = answer(admin.get(&topic_path(topic))).await;
        assert_eq!((view.status, view.json()["partitions"].clone()), (200, json!(1)));
        assert_eq!(view.json()["retention"]["age"], "30d");
        assert_eq!(reads(&other, topic).await, ["403", "403", "403", "403", "403", "forbidden"], "{topic}");
        let refused = answer(other.get(&topic_path(topic))).await;
        assert_eq!(code(&refused), (403, "forbidden".into()));
        let root = server.root().acting_in("default");
        assert_eq!(answer(root.get(&records_path(topic))).await.status, 200);
    }
    let names = |list: Value| list["data"].as_array().unwrap().iter().map(|topic| topic["name"].clone()).collect();
    let listed: Vec<Value> = names(answer(admin.get("/v1/topics")).await.json());
    assert_eq!(listed, ["_audit", "_events", "_usage"]);
    let listed: Vec<Value> = names(answer(other.get("/v1/topics")).await.json());
    assert_eq!(listed, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_an_administrator_reads_them_too() {
    let server = Server::start().await;
    let admin = server.with_scopes(&["admin"]).await;
    let ticket = answer(admin.post("/v1/tickets")).await.json();
    let path = format!("/v1/topics/_audit/records?from=earliest&ticket={}", ticket["ticket"].as_str().unwrap());
    assert_eq!(answer(server.stranger().get(&path)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_changes_trims_or_deletes_a_system_topic() {
    let server = Server::start().await;
    for client in [server.client(), server.root().acting_in("default")] {
        for topic in TOPICS {
            answer(client.get(&records_path(topic))).await;
            let before = client.topic(topic).await;
            let (path, records) = (topic_path(topic), records_path(topic));
            let calls = [
                client.put(&path).json(&json!({})),
                client.patch(&path).json(&json!({"retention": null})),
                client.delete(&path),
                client.delete(&format!("{records}?before=latest")),
                client.post(&records).header("Content-Type", "text/plain").body("x"),
                client.post(&records).header("Content-Type", NDJSON).body("{}\n"),
            ];
            for (place, call) in calls.into_iter().enumerate() {
                let refused = answer(call).await;
                assert_eq!(code(&refused), (403, "forbidden".into()), "call {place} on {topic}");
                assert!(refused.problem().detail.contains("by the server"), "{}", refused.text());
            }
            let after = client.topic(topic).await;
            assert_eq!((after.retention, after.created_at), (before.retention, before.created_at));
        }
    }
    let mut ws = server.client().ws().await;
    ws.send(&json!({"type": "publish", "id": "p", "topic": "_audit", "records": [{"text": "x"}]})).await;
    let problem = ws.frame("error").await.problem.expect("a problem");
    assert_eq!(problem.code.as_str(), "forbidden");
    let texts = records(&server.client(), "_audit").await;
    assert!(texts.iter().all(|record| record["type"].is_string()), "only the server's records: {texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_that_begin_so_stay_reserved_and_scopes_cannot_name_any() {
    let server = Server::start().await;
    for name in ["_other", "_audit2", "_", "_Audit", "_audit/x"] {
        for method in [Method::GET, Method::PUT] {
            let refused = answer(server.client().request(method, &topic_path(name))).await;
            assert_eq!(code(&refused), (400, "invalid_topic_name".into()), "{name}");
        }
    }
    for scope in ["subscribe:_audit", "subscribe:_*", "publish:_**", "manage:_usage"] {
        let refused = answer(server.client().post("/v1/keys").json(&json!({"name": "k", "scopes": [scope]}))).await;
        assert_eq!(refused.status, 422, "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pattern_shows_a_system_topic() {
    let server = Server::start().await;
    let client = server.client();
    client.publish("orders", "text/plain", "x").await;
    for topic in TOPICS {
        answer(client.get(&records_path(topic))).await;
    }
    for pattern in ["**", "*", "**audit", "*usage*"] {
        let mut stream = client.ndjson(&format!("/v1/stream?topic={pattern}&from=earliest")).await;
        loop {
            let line = stream.next().await.expect("the stream goes on");
            if line.contains("caught_up") {
                break;
            }
            assert!(line.contains(r#""topic":"orders""#), "{pattern}: {line}");
        }
    }
    let mut both = client.ndjson("/v1/stream?topic=**&topic=_audit&from=earliest").await;
    let seen: Vec<String> = both.records(3).await.into_iter().map(|record| record.topic).collect();
    assert!(seen.contains(&"_audit".to_owned()), "a system topic is followed by its name: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_written_down_with_who_what_where_and_what_came_of_it() {
    let server = Server::start().await;
    let client = server.client();
    let id = server.key().split('_').nth(1).unwrap();
    let call = client.put("/v1/topics/a%2Fb").header("X-Request-Id", "call-1").json(&json!({"partitions": 2}));
    assert_eq!(answer(call).await.status, 201);
    let call = client.put("/v1/topics/a%2Fb").header("X-Request-Id", "call-2").json(&json!({"partitions": 3}));
    assert_eq!(answer(call).await.status, 409);
    let about = |id: &str, all: &[Value]| -> Vec<Value> {
        let mut found: Vec<Value> = all.iter().filter(|record| record["request_id"] == id).cloned().collect();
        for record in &mut found {
            let at = record.as_object_mut().unwrap().remove("at").expect("a time");
            assert!(at.as_u64().unwrap() > 1_700_000_000_000);
        }
        found
    };
    let all = records(&client, "_audit").await;
    let known = json!({"type": "begun", "request_id": "call-1", "operation": "ensure_topic", "target": "a/b",
        "credential": format!("key:{id}"), "address": "127.0.0.1"});
    let with = |more: Value| {
        let mut record = known.clone();
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record
    };
    assert_eq!(about("call-1", &all), [known.clone(), with(json!({"type": "answered", "status": 201}))]);
    let refused = json!({"type": "answered", "request_id": "call-2", "status": 409, "code": "conflict"});
    assert_eq!(about("call-2", &all), [with(json!({"request_id": "call-2"})), with(refused)]);
    let made = answer(
        client.post("/v1/keys").header("X-Request-Id", "call-3").json(&json!({"name": "k", "scopes": ["admin"]})),
    );
    let made = made.await.json();
    let gone = client.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap())).header("X-Request-Id", "call-4");
    assert_eq!(answer(gone).await.status, 204);
    let all = records(&client, "_audit").await;
    assert_eq!(about("call-3", &all)[1]["target"], made["id"], "the key that was made is named");
    assert_eq!(about("call-4", &all)[1]["operation"], "delete_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_written_down_also_a_credential_of_which_the_tenant_is_known() {
    let server = Server::start().await;
    let client = server.client();
    let weak = server.with_scopes(&["subscribe:**"]).await;
    let mut audit = follow(&client, "_audit").await;
    let call = weak.post("/v1/keys").header("X-Request-Id", "no-1").json(&json!({"name": "k", "scopes": ["admin"]}));
    assert_eq!(answer(call).await.status, 403);
    let refused = next(&mut audit, |record| record["request_id"] == "no-1").await;
    assert_eq!((&refused["type"], &refused["status"]), (&json!("answered"), &json!(403)), "{refused}");
    assert_eq!((&refused["operation"], &refused["code"]), (&json!("create_key"), &json!("forbidden")));

    let made =
        answer(client.post("/v1/keys").json(&json!({"name": "short", "scopes": ["publish:**"], "expires_in": "1ms"})));
    let made = made.await.json();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let expired = Client::new(server.url(), Some(key));
    let call = expired.publishing("orders", "text/plain", "x").header("X-Request-Id", "no-2");
    assert_eq!(answer(call).await.status, 401);
    let refused = next(&mut audit, |record| record["request_id"] == "no-2").await;
    assert_eq!((&refused["type"], &refused["operation"]), (&json!("unauthenticated"), &json!("publish_records")));
    assert_eq!((&refused["credential"], &refused["address"]), (&json!(format!("key:{id}")), &json!("127.0.0.1")));
    let page = answer(expired.get(&records_path("orders")).header("X-Request-Id", "no-3")).await;
    assert_eq!(page.status, 401);
    assert_eq!(next(&mut audit, |record| record["request_id"] == "no-3").await["operation"], "read_records");
    assert!(expired.try_ws().await.is_none());
    let socket = next(&mut audit, |record| record["operation"] == "upgrade").await;
    assert_eq!(socket["type"], "unauthenticated");
    let mut open = weak.ws().await;
    open.send(&json!({"type": "refresh", "id": "r", "token": key})).await;
    open.frame("error").await;
    let refresh = next(&mut audit, |record| record["operation"] == "upgrade").await;
    assert_eq!((&refresh["type"], &refresh["credential"]), (&json!("unauthenticated"), &json!(format!("key:{id}"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_tenant_is_told_by_its_events() {
    let server = Server::start().await;
    let (client, root) = (server.tenant("team").await, server.root());
    let mut events = follow(&client, "_events").await;
    let first = next(&mut events, |_| true).await;
    assert_eq!(first["type"], "key_made", "the key of the test: {first}");
    client.publish("by-publish", "text/plain", "x").await;
    client.make_topic("by-hand", 1).await;
    answer(client.patch("/v1/topics/by-hand").json(&json!({"max_record_bytes": 10}))).await;
    answer(client.delete("/v1/topics/by-hand")).await;
    let made = answer(client.post("/v1/keys").json(&json!({"name": "k", "scopes": ["admin"]}))).await.json();
    let key = made["id"].clone();
    let path = format!("/v1/keys/{}", key.as_str().unwrap());
    assert_eq!(answer(client.post(&format!("{path}/rotate"))).await.status, 200);
    answer(client.delete(&path)).await;
    for expected in [
        json!({"type": "topic_made", "topic": "by-publish"}),
        json!({"type": "topic_made", "topic": "by-hand"}),
        json!({"type": "topic_changed", "topic": "by-hand"}),
        json!({"type": "topic_deleted", "topic": "by-hand"}),
        json!({"type": "key_made", "key": key}),
        json!({"type": "key_rotated", "key": key}),
        json!({"type": "key_revoked", "key": key}),
    ] {
        let mut event = next(&mut events, |_| true).await;
        assert!(event.as_object_mut().unwrap().remove("at").is_some_and(|at| at.is_u64()));
        assert_eq!(event, expected);
    }
    drop(events);
    for (suspended, expected) in [(true, "tenant_suspended"), (false, "tenant_resumed")] {
        answer(root.patch("/v1/tenants/team").json(&json!({"suspended": suspended}))).await;
        let mut events = follow(&root.clone().acting_in("team"), "_events").await;
        next(&mut events, |event| event["type"] == expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_calls_are_in_a_tenant_of_their_own_and_in_the_one_that_they_are_about() {
    let server = Server::start().await;
    let client = server.tenant("team").await;
    let (root, inside) = (server.root(), server.root().acting_in("_system"));
    let suspend = root.patch("/v1/tenants/team").header("X-Request-Id", "held").json(&json!({"suspended": true}));
    assert_eq!(answer(suspend).await.status, 200);
    let resume = root.patch("/v1/tenants/team").json(&json!({"suspended": false}));
    assert_eq!(answer(resume).await.status, 200);
    let theirs = records(&client, "_audit").await;
    let seen: Vec<&Value> = theirs.iter().filter(|record| record["request_id"] == "held").collect();
    assert_eq!((seen.len(), &seen[0]["credential"], &seen[0]["status"]), (1, &json!("root"), &json!(200)), "{seen:?}");
    assert!(theirs.iter().any(|record| record["operation"] == "create_tenant"), "{theirs:?}");
    assert_eq!(answer(root.delete("/v1/tenants/team")).await.status, 204);
    assert_eq!(answer(root.delete("/v1/tenants/team")).await.status, 404);
    let calls = records(&inside, "_audit").await;
    let of = |operation: &str| -> Vec<(String, Value)> {
        let calls = calls.iter().filter(|record| record["operation"] == operation && record["target"] == "team");
        calls.map(|record| (record["type"].as_str().unwrap().to_owned(), record["status"].clone())).collect()
    };
    let (begun, answered) =
        (|| ("begun".to_owned(), Value::Null), |status: u16| ("answered".to_owned(), json!(status)));
    assert_eq!(of("create_tenant"), [answered(201)], "before it there is no name in the path");
    assert_eq!(of("change_tenant"), [begun(), answered(200), begun(), answered(200)]);
    assert_eq!(of("delete_tenant"), [begun(), answered(204), begun(), answered(404)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_own_tenant_is_only_read_and_only_by_the_operator() {
    let server = Server::start().await;
    let inside = server.root().acting_in("_system");
    assert_eq!(answer(inside.get("/v1/topics/_audit/records")).await.status, 200);
    for call in [
        inside.put("/v1/topics/own").json(&json!({})),
        inside.publishing("own", "text/plain", "x"),
        inside.get("/v1/topics/own/records"),
        inside.post("/v1/keys").json(&json!({"name": "k", "scopes": ["admin"]})),
        inside.post("/v1/tokens").json(&json!({"scopes": ["publish:**"], "ttl": "1h"})),
        inside.get("/v1/keys"),
        server.client().acting_in("_system").get("/v1/topics/_audit/records"),
    ] {
        assert_eq!(code(&answer(call).await), (403, "forbidden".into()));
    }
    let root = server.root();
    for call in [
        root.get("/v1/tenants/_system"),
        root.patch("/v1/tenants/_system").json(&json!({"suspended": true})),
        root.delete("/v1/tenants/_system"),
    ] {
        assert_eq!(answer(call).await.status, 404);
    }
    assert_eq!(answer(root.post("/v1/tenants").json(&json!({"name": "_system"}))).await.status, 422);
    let listed = answer(root.get("/v1/tenants")).await.text();
    assert!(!listed.contains("_system"), "{listed}");
}

/// Fails when the first record of a call is not put into the log before the handler runs.
#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_seen_before_its_audit_record() {
    let options = Options { store: Some("memory://?put_latency_ms=300".into()), ..Options::default() };
    let server = Server::start_with(options).await;
    let client = server.client();
    let maker = client.clone();
    let call = tokio::spawn(async move { answer(maker.put(&topic_path("new")).json(&json!({}))).await.status });
    while answer(client.get(&topic_path("new"))).await.status == 404 {}
    let audit = records(&client, "_audit").await;
    assert!(audit.iter().any(|record| record["type"] == "begun" && record["target"] == "new"), "{audit:?}");
    assert_eq!(call.await.expect("a call"), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_every_change_that_is_there_has_its_audit_record() {
    let mut server = Server::start_with(Options::default()).await;
    let answered = answer(server.client().post("/v1/keys").json(&json!({"name": "last", "scopes": ["admin"]}))).await;
    server.kill9().await;
    server.restart(false).await;
    let id = answered.json()["id"].clone();
    let audit = records(&server.client(), "_audit").await;
    assert!(audit.iter().any(|record| record["target"] == id && record["status"] == 201), "answered is recorded");
    for (round, span) in [23, 61, 137].into_iter().enumerate() {
        let client = server.client();
        let (made, first) = tokio::sync::oneshot::channel();
        let calls = tokio::spawn(async move {
            let mut made = Some(made);
            for number in 0.. {
                let call = client.put(&topic_path(&format!("t{round}-{number}"))).json(&json!({}));
                if try_answer(call).await.is_err() {
                    break;
                }
                made.take().map(|made| made.send(()));
            }
        });
        first.await.expect("a call is answered");
        // How many calls fit into the time does not matter, only that the last one is cut off somewhere.
        let running = tokio::time::timeout(Duration::from_millis(span), std::future::pending::<()>()).await;
        assert!(running.is_err());
        server.kill9().await;
        calls.await.expect("the calls end with the server");
        server.restart(round == 1).await;
        let audit = records(&server.client(), "_audit").await;
        let mut there = 0;
        let topics = answer(server.client().get("/v1/topics?limit=1000&prefix=t")).await.json();
        for topic in topics["data"].as_array().unwrap() {
            let begun = audit.iter().any(|record| record["type"] == "begun" && record["target"] == topic["name"]);
            assert!(begun, "{} is there and nobody has made it", topic["name"]);
            there += 1;
        }
        assert!(there > 0, "the test has made something");
    }
}

/// Who hangs up gets no answer, and what came of the call is known all the same. Fails when the call runs on its
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_call_is_written_down_when_its_client_has_gone() {
    let options = Options { store: Some("memory://?put_latency_ms=300".into()), ..Options::default() };
    let server = Server::start_with(options).await;
    let client = server.client();
    let mut audit = follow(&client, "_audit").await;
    let call = client.put("/v1/topics/left").header("X-Request-Id", "left").json(&json!({}));
    let gone = tokio::time::timeout(Duration::from_millis(100), answer(call)).await;
    assert!(gone.is_err(), "the store is slower than the client");
    assert_eq!(next(&mut audit, |record| record["request_id"] == "left").await["type"], "begun");
    assert_eq!(next(&mut audit, |record| record["request_id"] == "left").await["status"], 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_record_about_a_tenant() {
    let mut server = Server::start().await;
    let (client, root) = (server.client(), server.root());
    let made = answer(client.post("/v1/keys").json(&json!({"name": "k", "scopes": ["admin"]}))).await.json();
    let key = made["key"].as_str().unwrap().to_owned();
    let ticket = answer(client.post("/v1/tickets")).await.json()["ticket"].as_str().unwrap().to_owned();
    // Secrets in wrong places.
    for wrong in [key.as_str(), ROOT_KEY, &ticket, server.key()] {
        answer(client.delete(&format!("/v1/keys/{wrong}"))).await;
        answer(root.delete(&format!("/v1/tenants/{wrong}"))).await;
        answer(client.put(&format!("/v1/topics/{wrong}")).json(&json!({"partitions": 0}))).await;
        answer(Client::new(server.url(), Some(wrong)).get(&format!("/v1/topics?ticket={wrong}"))).await;
    }
    let (most, last) = key.split_at(key.len() - 1);
    answer(Client::new(server.url(), Some(&format!("{most}{}", if last == "x" { "y" } else { "x" }))).get("/v1/keys"))
        .await;
    client.publish("orders", "text/plain", "CANARY-payload").await;
    // What waits is stored at the end.
    server.terminate().await;
    server.restart(false).await;
    let mut all = String::new();
    for reader in [server.client(), server.root().acting_in("_system")] {
        for topic in TOPICS {
            all.push_str(&format!("{:?}", records(&reader, topic).await));
        }
    }
    assert!(all.contains("delete_key") && all.contains("delete_tenant"), "{all}");
    let parts =
        [&key[key.len() - 49..], &ticket[ticket.len() - 30..], &server.key()[35..60], ROOT_KEY, "CANARY", "plk_"];
    for part in parts {
        assert!(!all.contains(part), "{part} in {all}");
    }
}

/// Fails when refused calls are written down without a bound, or dropped without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refused_calls_is_bounded_and_what_is_missing_is_told() {
    let mut server = Server::start().await;
    let weak = server.with_scopes(&["subscribe:**"]).await;
    const CALLS: u64 = 250;
    for _ in 0..CALLS {
        assert_eq!(answer(weak.get("/v1/keys")).await.status, 403);
        assert_eq!(answer(weak.delete("/v1/topics/x")).await.status, 403);
    }
    server.terminate().await;
    server.restart(false).await;
    let audit = records(&server.client(), "_audit").await;
    let written = audit.iter().filter(|record| record["status"] == 403).count() as u64;
    let dropped: u64 = audit.iter().filter_map(|record| record["count"].as_u64()).sum();
    // The calls may lie in two minutes.
    assert!((100..=200).contains(&written), "{written} are written down");
    assert_eq!(written + dropped, CALLS, "reads are not written down, and each refused change is there or counted");
}

/// Fails when what the server writes itself takes a place of the tenant's quotas.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_at_its_quotas_can_still_be_managed_and_is_told() {
    let server = Server::start().await;
    let client = server.tenant("small").await;
    client.make_topic("only", 1).await;
    let quotas = json!({"quotas": {"topics": 1, "storage_bytes": 1, "requests_per_second": 1000}});
    assert_eq!(answer(server.root().patch("/v1/tenants/small").json(&quotas)).await.status, 200);
    client.publish("only", "text/plain", "more than one byte").await;
    let patch = json!({"max_record_bytes": 10});
    assert_eq!(answer(client.patch("/v1/topics/only").json(&patch)).await.status, 200);
    for topic in TOPICS {
        assert_eq!(answer(client.get(&records_path(topic))).await.status, 200, "{topic}");
    }
    assert_eq!(answer(client.delete("/v1/topics/only")).await.status, 204);
    let slow = json!({"quotas": {"requests_per_second": 1}});
    assert_eq!(answer(server.root().patch("/v1/tenants/small").json(&slow)).await.status, 200);
    let mut refused = 0;
    while refused < 3 {
        refused += u32::from(answer(client.get("/v1/topics")).await.status == 429);
    }
    let root = server.root().acting_in("small");
    let open = || root.get("/v1/topics/_events/records?from=earliest").header("Accept", NDJSON).send();
    // The operator inside the tenant is on its account, and waits for its turn.
    let mut response = open().await.expect("an answer");
    while response.status() != 200 {
        response = open().await.expect("an answer");
    }
    let told = next(&mut LineStream::new(response), |event| event["type"] == "quota_reached").await;
    assert_eq!(told["quota"], "requests_per_second");
}

fn sum(records: &[Value], field: &str) -> u64 {
    records.iter().filter_map(|record| record[field].as_u64()).sum()
}

/// What was used until the node ends is a record, too: nothing of it waits for a minute that does not come.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_uses_is_a_record_and_an_idle_tenant_has_none() {
    let mut server = Server::start().await;
    server.tenant("idle").await;
    server.terminate().await;
    server.restart(false).await;
    let client = server.client();
    client.publish_texts("orders", &["one", "two", "three"]).await;
    client.page("orders", "").await;
    let mut ws = client.ws().await;
    ws.subscribe("orders", "earliest").await;
    assert_eq!(ws.records(3).await.len(), 3);
    let now = answer(client.get("/v1/usage")).await.json();
    assert_eq!((&now["now"]["published_records"], &now["now"]["published_bytes"]), (&json!(3), &json!(86)), "{now}");
    assert_eq!((&now["now"]["delivered_records"], &now["now"]["followers"]), (&json!(6), &json!(1)), "{now}");
    assert!(
        now["now"]["storage_bytes"].as_u64().unwrap() > 86 && now["now"]["connections"].as_u64() > Some(0),
        "{now}"
    );
    server.terminate().await;
    server.restart(false).await;
    let used = records(&server.client(), "_usage").await;
    assert_eq!((sum(&used, "published_records"), sum(&used, "published_bytes")), (3, 86), "{used:?}");
    assert_eq!(sum(&used, "delivered_records"), 6, "{used:?}");
    assert!(used.iter().all(|record| record["from"].as_u64() < record["to"].as_u64()), "{used:?}");
    let report = answer(server.client().get("/v1/usage?granularity=hour")).await.json();
    let data = report["data"].as_array().unwrap();
    assert_eq!((sum(data, "published_records"), sum(data, "requests")), (3, sum(&used, "requests")), "{report}");
    assert_eq!(report["now"]["published_records"], 0);
    let past = "/v1/usage?from=2020-01-01T00:00:00Z&to=2020-01-01T01:00:00Z";
    assert_eq!(answer(server.client().get(past)).await.json()["data"], json!([]));
    let idle = records(&server.root().acting_in("idle"), "_usage").await;
    assert_eq!(idle.len(), 1, "only of the first run, when its key was made: {idle:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_use_has_bounds_and_says_them() {
    let server = Server::start().await;
    for (query, expected, said) in [
        ("from=yesterday", (400, "invalid_request"), "from"),
        ("granularity=day", (400, "invalid_request"), "minute, hour"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", (400, "invalid_request"), "before"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-03T00:00:00Z", (422, "unprocessable"), "limit of 1d"),
        ("from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z&granularity=hour", (422, "unprocessable"), "limit of 31d"),
        ("colour=red", (400, "unknown_field"), "colour"),
    ] {
        let refused = answer(server.client().get(&format!("/v1/usage?{query}"))).await;
        assert_eq!(code(&refused), (expected.0, expected.1.to_owned()), "{query}");
        assert!(refused.problem().detail.contains(said), "{query}: {}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_tenants_are_the_operators_and_the_open_ones_name_no_tenant() {
    let server = Server::start().await;
    let client = server.tenant("acme-corp").await;
    client.publish("orders", "text/plain", "12345").await;
    let text = answer(server.root().get("/metrics/tenants")).await.text();
    assert!(text.contains("plinth_tenant_published_bytes_total{tenant=\"acme-corp\"} 15\n"), "{text}");
    assert!(text.contains("plinth_tenant_records_published_total{tenant=\"acme-corp\"} 1\n"), "{text}");
    assert!(!answer(server.stranger().get("/metrics")).await.text().contains("acme-corp"));
    assert_eq!(answer(client.get("/metrics/tenants")).await.status, 403);
}
