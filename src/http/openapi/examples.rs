//! An example of each body, by the name of its schema; a test tells which one has none, and checks them all.

mod subscriptions;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::content::Content;
use utoipa::openapi::path::Operation;

const LIST: &str = "ListPage_";

/// The example of a schema of the document.
fn of_schema(name: &str) -> Option<Value> {
    if let Some(item) = name.strip_prefix(LIST) {
        return Some(json!({"data": [of_schema(item)?], "next_cursor": null}));
    }
    let example = match name {
        "TopicRequest" => json!({"partitions": 4, "retention": {"age": "7d", "bytes": "10GiB"}}),
        "TopicPatch" => json!({"max_record_bytes": 65536, "retention": {"age": "1d"}}),
        "Topic" => json!({
            "name": "orders", "partitions": 1, "durability": "object", "max_record_bytes": 1_048_576,
            "retention": {"age": "7d"}, "cleanup": "delete", "created_at": 1_780_000_000_000_u64, "bytes": 4096,
            "records": 17, "partition_bounds": [{"partition": 0, "start": 0, "tail": 17, "bytes": 4096}],
        }),
        "Stream" => stream(),
        "Trimmed" => json!({
            "topic": "orders", "partition_bounds": [{"partition": 0, "start": 17, "tail": 17, "bytes": 0}],
        }),
        "PublishBatch" => json!({"records": [
            {"key": "customer-7", "value": {"order": 17}, "headers": {"source": "shop"}},
            {"text": "a line of text", "ttl": "1h"},
            {"base64": "AAEC", "content_type": "image/x-icon"},
        ]}),
        "TextPayload" => json!("a line of text"),
        "Receipt" => json!({
            "topic": "orders", "partition": 0, "offset": 17, "count": 1, "cursor": CURSOR,
            "timestamp": 1_780_000_000_000_u64, "durability": "object", "duplicate": false,
        }),
        "PublishResults" => json!({"results": [of_schema("Receipt")?]}),
        "Record" => json!({
            "topic": "orders", "partition": 0, "offset": 17, "timestamp": 1_780_000_000_000_u64, "key": "customer-7",
            "content_type": "application/json", "value": {"order": 17},
        }),
        "RecordPage" => json!({"records": [of_schema("Record")?], "next": CURSOR, "caught_up": true}),
        "TenantRequest" => json!({"name": "acme", "quotas": {"requests_per_second": 500, "topics": 1000}}),
        "TenantPatch" => json!({"suspended": false, "allowed_origins": ["https://app.example.com"]}),
        "Tenant" => json!({
            "name": "acme", "created_at": 1_780_000_000_000_u64,
            "quotas": {"requests_per_second": 500, "topics": 1000}, "allowed_origins": ["https://app.example.com"],
        }),
        "QuotaReport" => json!({
            "tenant": "acme",
            "quotas": [
                {"quota": "requests_per_second", "limit": 500, "used": 12, "total": 81_000},
                {"quota": "connections", "used": 3},
            ],
            "limits": [{
                "name": "record_bytes_max", "value": 1_048_576, "unit": "bytes", "error": "too_large",
                "description": "Largest payload of one record, in bytes, unless the topic sets less.",
            }],
        }),
        "KeyRequest" => json!({"name": "shop", "scopes": ["publish:orders.*", "subscribe:**"], "expires_in": "90d"}),
        "Key" => json!({
            "id": KEY_ID, "name": "shop", "scopes": ["publish:orders.*", "subscribe:**"],
            "created_at": 1_780_000_000_000_u64, "expires_at": 1_787_776_000_000_u64, "last_four": "x7Qa",
            "quotas": {"requests_per_second": 50}, "last_used_at": 1_780_000_020_000_u64,
        }),
        "KeyPatch" => json!({"name": "shop, web", "quotas": {"requests_per_second": 50}}),
        "KeyRotation" => json!({"overlap": "1h"}),
        "NewKey" => {
            let mut key = of_schema("Key")?;
            key["key"] = Value::from("plk_…");
            key
        }
        "TicketRequest" => json!({}),
        "Ticket" => json!({"ticket": "one-time-ticket", "expires_at": 1_780_000_030_000_u64}),
        "UsageReport" => json!({"now": of_schema("Usage")?, "granularity": "minute", "data": [of_schema("Usage")?]}),
        "Usage" => usage(),
        "Version" => json!({"name": "plinth", "version": "0.1.0", "api": "v1"}),
        _ => return of_token_schema(name),
    };
    Some(example)
}

/// The same for what is about tokens.
fn of_token_schema(name: &str) -> Option<Value> {
    // RFC 7517, appendix A.1.
    let key = json!({
        "kty": "EC", "crv": "P-256", "kid": "1", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    let example = match name {
        "IssuerRequest" => json!({
            "issuer": "https://id.example.com/", "algorithms": ["ES256"], "jwks": {"keys": [key]},
            "default_scopes": ["subscribe:users/{sub}/**"], "max_lifetime": "1h",
        }),
        "Issuer" => json!({
            "name": "id", "issuer": "https://id.example.com/", "audiences": ["plinth:acme"], "algorithms": ["ES256"],
            "jwks": {"keys": [key]}, "has_secret": false, "scope_claim": "scope", "subject_claim": "sub",
            "default_scopes": ["subscribe:users/{sub}/**"], "max_lifetime": "1h", "leeway": "30s",
            "created_at": 1_780_000_000_000_u64,
        }),
        "RevocationRequest" => json!({"subject": "u-7"}),
        "Revocation" => json!({
            "id": "subject-0f4c1a2b3d4e5f600f4c1a2b3d4e5f60", "subject": "u-7", "issued_before": 1_780_000_000_000_u64,
            "created_at": 1_780_000_000_000_u64, "expires_at": 1_780_604_830_000_u64,
        }),
        "TokenRequest" => json!({"scopes": ["subscribe:users/{sub}/**"], "ttl": "15m", "subject": "u-7"}),
        "Token" => json!({"token": "eyJ…", "expires_at": 1_780_000_900_000_u64}),
        "JsonWebKeySet" => json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "0f4c1a2b3d4e5f60",
             "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
        ]}),
        "Explanation" => json!({
            "kind": "token", "tenant": "acme", "issuer": "id", "subject": "u-7", "issued_at": 1_780_000_000_000_u64,
            "expires_at": 1_780_000_900_000_u64, "scopes": ["subscribe:users/u-7/**"],
            "decision": {"action": "subscribe", "topic": "users/u-8/inbox", "allowed": false,
                "reason": "the credential does not allow subscribe on topic users/u-8/inbox"},
        }),
        _ => return subscriptions::of_schema(name),
    };
    Some(example)
}

/// A stream in a list.
fn stream() -> Value {
    json!({
        "name": "chats/7", "content_type": "application/json", "next_offset": "1780000000000000_0000000000170000",
        "closed": false, "ttl": "1h", "created_at": 1_780_000_000_000_u64,
    })
}

/// What a tenant used in a minute.
fn usage() -> Value {
    json!({
        "from": 1_780_000_000_000_u64, "to": 1_780_000_060_000_u64, "requests": 12, "published_records": 100,
        "published_bytes": 4096, "delivered_records": 300, "delivered_bytes": 12288, "connections": 4, "followers": 3,
        "storage_bytes": 1_048_576,
    })
}

const CURSOR: &str = "AQAAAAEAAAAAAAAAEQ";
const KEY_ID: &str = "01k5x2m8t1vq3y7a9b0c4d5e6f";

/// The example of a body that has no schema of its own, by its media type.
fn of_media_type(media_type: &str, is_request: bool) -> Option<Value> {
    let record = of_schema("Record").expect("it is above");
    let example = match media_type {
        "*/*" => json!({"order": 17}),
        "application/x-ndjson" if is_request => json!("{\"order\":17}\n{\"order\":18}\n"),
        "application/x-ndjson" => {
            Value::from(format!("{record}\n{}\n", json!({"control": "caught_up", "cursor": CURSOR})))
        }
        "text/event-stream" => {
            Value::from(format!("retry: 2000\n:\n\nid: {CURSOR}\nevent: record\ndata: {record}\n\n"))
        }
        "text/plain" => json!("ok\n"),
        "application/json" if is_request => json!({"order": 17}),
        "application/json" => json!({}),
        _ if media_type.starts_with("application/openmetrics-text") => json!("# EOF\n"),
        _ => return None,
    };
    Some(example)
}

/// Gives every body of an operation its example, but those of failures, which have theirs from the list of codes.
pub(super) fn describe(operation: &mut Operation) {
    if let Some(RefOr::T(body)) = operation.request_body.as_mut() {
        for (media_type, content) in &mut body.content {
            add(media_type, content, true);
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        for (media_type, content) in &mut response.content {
            add(media_type, content, false);
        }
    }
}

fn add(media_type: &str, content: &mut RefOr<Content>, is_request: bool) {
    let RefOr::T(content) = content else { return };
    if content.example.is_some() || !content.examples.is_empty() {
        return;
    }
    content.example = match &content.schema {
        Some(RefOr::Ref(schema)) => of_schema(schema.ref_location.rsplit('/').next().unwrap_or_default()),
        Some(RefOr::T(_)) | None => of_media_type(media_type, is_request),
    };
}
