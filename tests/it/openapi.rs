//! The committed documents are what the code says, and the server serves them. `UPDATE=1 cargo test --test it openapi`
//! writes them anew.

use std::path::PathBuf;

use plinth_api::error::ErrorCode;
use plinth_api::limits::{LIMITS, Setting};
use serde_json::{Value, json};

use crate::client::answer;
use crate::contract::validator;
use crate::harness::{Options, Server};

fn committed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("openapi").join(name)
}

fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap() + "\n"
}

fn check_drift(name: &str, document: &Value) {
    let path = committed(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, pretty(document)).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == pretty(document), "openapi/{name} is not what the code says; UPDATE=1 writes it anew");
}

#[test]
fn the_openapi_document_is_up_to_date() {
    check_drift("openapi.json", &serde_json::to_value(plinth::http::openapi()).unwrap());
}

#[test]
fn the_schema_of_the_frames_is_up_to_date() {
    check_drift("frames.schema.json", &plinth_api::frames::schema());
}

#[test]
fn the_asyncapi_document_is_up_to_date() {
    check_drift("asyncapi.json", &plinth::http::asyncapi());
}

/// Every operation as its place, its path and method, and itself.
fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

/// Every body of the document: what it is, its media type, and its content.
fn bodies(document: &Value) -> Vec<(String, &str, &Value)> {
    let mut bodies = Vec::new();
    for (at, operation) in operations(document) {
        let asked = operation["requestBody"]["content"].as_object().into_iter().flatten();
        bodies.extend(asked.map(|(kind, content)| (format!("the request of {at}"), kind.as_str(), content)));
        for (status, response) in operation["responses"].as_object().unwrap() {
            let answered = response["content"].as_object().into_iter().flatten();
            bodies.extend(answered.map(|(kind, content)| (format!("{status} of {at}"), kind.as_str(), content)));
        }
    }
    bodies
}

#[test]
fn every_operation_has_a_summary_a_group_and_a_described_answer_for_each_status() {
    let document = serde_json::to_value(plinth::http::openapi()).unwrap();
    let groups: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for (at, operation) in operations(&document) {
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{at} has no summary");
        assert!(groups.contains(&&operation["tags"][0]), "{at} is in no group of src/http/openapi.rs");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let described = parameter["description"].is_string() && parameter["schema"].is_object();
            assert!(described, "{at}: the parameter {} is not described", parameter["name"]);
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status < &"300".to_owned()), "{at} never succeeds");
        for (status, response) in responses {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{at}: {status}");
            assert!(response["headers"]["X-Request-Id"].is_object(), "{at}: {status}");
        }
    }
}

// Fails when a body is added whose schema is not in src/http/openapi/examples.rs.
#[test]
fn every_body_has_examples_that_have_its_form() {
    let document = serde_json::to_value(plinth::http::openapi()).unwrap();
    for (at, kind, content) in bodies(&document) {
        let own = content.get("example").into_iter();
        let named = content["examples"].as_object().into_iter().flatten().map(|(_, example)| {
            let target = example["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
            &target.map_or(example, |target| document.pointer(target).unwrap())["value"]
        });
        let examples: Vec<&Value> = own.chain(named).collect();
        // Bytes cannot be shown in JSON.
        let is_bytes = [plinth_api::batch::MEDIA_TYPE, "application/octet-stream"].contains(&kind);
        assert!(!examples.is_empty() || is_bytes, "{at} as {kind} has no example");
        for example in examples {
            check(&validator(&document, &content["schema"]), example);
        }
    }
}

#[test]
fn what_an_operation_makes_is_linked_to_the_operations_on_it() {
    let document = serde_json::to_value(plinth::http::openapi()).unwrap();
    let ids: Vec<&str> =
        operations(&document).map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
    let mut links = Vec::new();
    for (at, operation) in operations(&document) {
        for (_, response) in operation["responses"].as_object().unwrap() {
            for (_, link) in response["links"].as_object().into_iter().flatten() {
                let target = link["operationId"].as_str().unwrap();
                assert!(ids.contains(&target), "{at} leads to {target}");
                links.push((operation["operationId"].as_str().unwrap(), target));
            }
        }
    }
    for expected in [
        ("create_key", "delete_key"),
        ("create_tenant", "view_tenant"),
        ("ensure_topic", "publish_records"),
        ("ensure_topic", "delete_topic"),
        ("publish_records", "read_records"),
    ] {
        assert!(links.contains(&expected), "{expected:?} in {links:?}");
    }
}

#[test]
fn every_reference_of_the_documents_leads_somewhere() {
    let openapi = serde_json::to_value(plinth::http::openapi()).unwrap();
    for document in [openapi, plinth_api::frames::schema(), plinth::http::asyncapi()] {
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("references are within the document");
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What tells whether a value has the form of a schema of the document.
fn schema(name: &str) -> jsonschema::Validator {
    let document = serde_json::to_value(plinth::http::openapi()).unwrap();
    validator(&document, &json!({"$ref": format!("#/components/schemas/{name}")}))
}

fn check(schema: &jsonschema::Validator, value: &Value) {
    let faults: Vec<String> = schema.iter_errors(value).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{value}: {faults:?}");
}

// Fails when a pattern of the document leaves out what the server shows, or what people write and it accepts.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_topic_keeps_has_its_form_in_requests_and_in_answers() {
    let server = Server::start().await;
    let client = server.client();
    let (asked, changed, topic) = (schema("TopicRequest"), schema("TopicPatch"), schema("Topic"));
    assert_eq!(answer(client.put("/v1/topics/t")).await.status, 201);
    for (retention, has_form) in [
        (json!({"age": "1s"}), true),
        (json!({"age": "1500ms"}), true),
        (json!({"age": "90m", "bytes": 1}), true),
        (json!({"age": "36500d", "bytes": (1_u64 << 53) - 1}), true),
        (json!({"bytes": "1024MiB"}), true),
        (json!({"bytes": "999999999999999B"}), true),
        (json!({"bytes": "7999TiB"}), true),
        (json!({}), true),
        // Read as well, and shown in a form that the document has.
        (json!({"age": "52559999m"}), false),
        (json!({"age": "3153599999s"}), false),
        (json!({"age": "1h 30m", "bytes": "10 GiB"}), false),
        (json!({"age": "1.5h"}), false),
    ] {
        let request = json!({"retention": retention});
        assert_eq!(has_form, asked.is_valid(&request) && changed.is_valid(&request), "{request}");
        let answered = answer(client.patch("/v1/topics/t").json(&request)).await;
        assert_eq!(answered.status, 200, "{request}: {}", answered.text());
        check(&topic, &answered.json());
    }
    for refused in ["0s", "36501d", "1", "d", "99999d", "999ms"] {
        let request = json!({"retention": {"age": refused}});
        assert!(!asked.is_valid(&request) && !changed.is_valid(&request), "{refused}");
        assert_ne!(answer(client.patch("/v1/topics/t").json(&request)).await.status, 200, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_form_that_the_document_gives_them() {
    let server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 2).await;
    let receipt = answer(client.publishing("t", "text/plain", "x")).await.json();
    check(&schema("Receipt"), &receipt);
    check(
        &schema("RecordPage"),
        &answer(client.get("/v1/topics/t/records?from=earliest").header("Accept", "application/json")).await.json(),
    );
    check(&schema("ListPage_Topic"), &answer(client.get("/v1/topics?limit=1")).await.json());
    check(&schema("Trimmed"), &answer(client.delete("/v1/topics/t/records?before=latest")).await.json());
    check(&schema("ListPage_Key"), &answer(client.get("/v1/keys")).await.json());
    check(&schema("Ticket"), &answer(client.post("/v1/tickets")).await.json());
    check(&schema("Problem"), &answer(client.get("/v1/topics/absent")).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_serves_the_document_and_a_page_for_every_error_code() {
    let server = Server::start().await;
    let client = server.stranger();
    let served = answer(client.get("/openapi.json")).await;
    assert_eq!(served.status, 200);
    assert_eq!(served.json(), serde_json::to_value(plinth::http::openapi()).unwrap());
    assert!(served.json()["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(answer(client.get("/asyncapi.json")).await.json(), plinth::http::asyncapi());
    for code in ErrorCode::ALL {
        let page = answer(client.get(&format!("/docs/errors/{}", code.as_str()))).await;
        assert_eq!(page.status, 200, "{}", code.as_str());
        let text = page.text();
        assert!(text.contains(code.as_str()) && text.contains(&code.status().to_string()), "{text}");
        assert!(text.contains(code.title()), "{text}");
    }
    assert_eq!(answer(client.get("/docs/errors/no_such_code")).await.status, 404);
    let docs = answer(client.get("/docs")).await;
    assert!(docs.status == 200 || docs.status == 308, "{}", docs.status);
    assert!(
        !docs.text().contains("//cdn") && !docs.text().contains("https://unpkg"),
        "nothing is loaded from elsewhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_limits_shows_each_with_the_value_that_holds_on_this_node() {
    let env = vec![("PLINTH_MAX_CONNECTIONS".to_owned(), "123".to_owned())];
    let server = Server::start_with(Options { env, ..Options::default() }).await;
    let page = answer(server.stranger().get("/docs/limits")).await;
    assert_eq!(page.status, 200);
    let text = page.text();
    for limit in LIMITS {
        let value = if limit.setting == Some(Setting::MaxConnections) { 123 } else { limit.value };
        let (name, unit) = (limit.name(), limit.unit.as_str());
        let row = format!("<code>{name}</code><td>{value}<td>{unit}<td>");
        assert!(text.contains(&row), "{row} is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operation_endpoints_answer_without_a_credential() {
    let server = Server::start().await;
    let client = server.stranger();
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(answer(client.get(path)).await.status, 200, "{path}");
    }
    assert!(answer(client.get("/version")).await.json()["version"].is_string());
    server.client().publish("t", "text/plain", "x").await;
    let metrics = answer(client.get("/metrics")).await.text();
    for name in
        ["plinth_object_store_requests_total{", "plinth_object_store_bytes_total{", "plinth_http_requests_total{"]
    {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(metrics.contains(r#"operation="put""#) && metrics.contains(r#"purpose="wal""#), "{metrics}");
}
