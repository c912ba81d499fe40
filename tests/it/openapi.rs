//! The committed documents are what the code says, and the server serves them. `UPDATE=1 cargo test --test it openapi`
//! writes them anew.

use std::path::PathBuf;

use plinth_api::error::ErrorCode;
use serde_json::Value;

use crate::client::answer;
use crate::harness::Server;

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
fn every_reference_of_both_documents_leads_somewhere() {
    for document in [serde_json::to_value(plinth::http::openapi()).unwrap(), plinth_api::frames::schema()] {
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

#[tokio::test(flavor = "multi_thread")]
async fn the_server_serves_the_document_and_a_page_for_every_error_code() {
    let server = Server::start().await;
    let client = server.stranger();
    let served = answer(client.get("/openapi.json")).await;
    assert_eq!(served.status, 200);
    assert_eq!(served.json(), serde_json::to_value(plinth::http::openapi()).unwrap());
    assert!(served.json()["openapi"].as_str().unwrap().starts_with("3.1"));
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
