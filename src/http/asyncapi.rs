//! The AsyncAPI document: what goes over a WebSocket and over an event stream, from the schemas of the OpenAPI document.
//!
//! Frames and control events are taken from their enums, so that a new one is in here without being named; only which
//! frames answer which is said by hand.

use std::collections::{BTreeMap, BTreeSet};

use plinth_api::frames::SUBPROTOCOL;
use plinth_api::limits::STREAM_TOPICS_MAX;
use serde_json::{Map, Value, json};

use super::access::COOKIE_NAME;
use super::openapi::openapi;

const SCHEMAS: &str = "#/components/schemas/";

/// Which frames of the server answer a frame of the client.
const REPLIES: &[(&str, &[&str])] = &[
    ("auth", &["welcome", "error"]),
    ("subscribe", &["subscribed", "error"]),
    ("unsubscribe", &["unsubscribed", "error"]),
    ("credit", &["error"]),
    ("publish", &["published", "error"]),
    ("refresh", &["refreshed", "error"]),
    ("ping", &["pong"]),
];

/// The AsyncAPI document, version 3.0.
#[must_use]
pub fn asyncapi() -> Value {
    let document = serde_json::to_value(openapi()).expect("the document is plain JSON");
    let schemas = &document["components"]["schemas"];
    let client = variants(schemas, "ClientFrame", "type");
    let server = variants(schemas, "ServerFrame", "type");
    let control = variants(schemas, "Control", "control");
    let mut messages = Map::new();
    for (prefix, frames) in [("client", &client), ("server", &server)] {
        let described = frames.iter().map(|(name, frame)| (format!("{prefix}.{name}"), message(name, frame)));
        messages.extend(described);
    }
    let record = json!({"$ref": format!("{SCHEMAS}Record")});
    messages.insert("event.record".to_owned(), event("record", &record));
    messages.extend(control.iter().map(|(name, line)| (format!("event.{name}"), event(name, line))));
    let used = reachable(schemas, &Value::Object(messages.clone()));
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Plinth, live",
            "version": document["info"]["version"],
            "description": "What goes over a WebSocket and over an event stream. Everything else is in `/openapi.json`.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"websocket": server_of("ws"), "http": server_of("http")},
        "channels": channels(&client, &server, &control),
        "operations": operations(&client, &server, &control),
        "components": {"schemas": used, "messages": messages, "securitySchemes": security_schemes()},
    })
}

/// The variants of an enum by the value of their `tag`.
fn variants(schemas: &Value, name: &str, tag: &str) -> BTreeMap<String, Value> {
    let choice = schemas[name]["oneOf"].as_array().expect("an enum is a choice");
    let named = |variant: &Value| Some((tag_of(schemas, variant, tag)?, variant.clone()));
    choice.iter().map(|variant| named(variant).expect("a variant has a tag of one value")).collect()
}

/// The one value of the field `tag`, also where the schema is a reference or made of several.
fn tag_of(schemas: &Value, schema: &Value, tag: &str) -> Option<String> {
    let schema = resolved(schemas, schema);
    if let Some(field) = schema["properties"].get(tag) {
        return resolved(schemas, field)["enum"][0].as_str().map(str::to_owned);
    }
    schema["allOf"].as_array()?.iter().find_map(|part| tag_of(schemas, part, tag))
}

fn resolved<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|target| target.strip_prefix(SCHEMAS));
    name.map_or(schema, |name| &schemas[name])
}

/// The schemas that `value` refers to, and those that they refer to.
fn reachable(schemas: &Value, value: &Value) -> BTreeMap<String, Value> {
    let (mut found, mut open) = (BTreeMap::new(), references(value));
    while let Some(name) = open.pop_first() {
        let schema = schemas[&name].clone();
        open.extend(references(&schema).into_iter().filter(|name| !found.contains_key(name)));
        found.insert(name, schema);
    }
    found
}

fn references(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix(SCHEMAS));
            own.map(str::to_owned).into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeSet::new(),
    }
}

/// A frame: one JSON object in a text message.
fn message(name: &str, frame: &Value) -> Value {
    json!({
        "name": name,
        "summary": frame["description"],
        "contentType": "application/json",
        "payload": payload(frame),
    })
}

/// An event of SSE, of which NDJSON has the data as a line.
fn event(name: &str, data: &Value) -> Value {
    json!({
        "name": name,
        "summary": data.get("description").cloned().unwrap_or_else(|| "A record.".into()),
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "description": "Fields of the event; a line of NDJSON has none",
            "properties": {
                "id": {"type": "string", "description": "The cursor after it"},
                "event": {"const": name},
            },
        },
        "payload": payload(data),
    })
}

/// In AsyncAPI a reference stands alone.
fn payload(schema: &Value) -> Value {
    match schema.get("$ref") {
        Some(target) => json!({"$ref": target}),
        None => schema.clone(),
    }
}

fn server_of(protocol: &str) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/securitySchemes/{name}")});
    json!({
        "host": "{host}",
        "protocol": protocol,
        "description": "The node that serves this document; over TLS where it has a certificate",
        "variables": {"host": {"description": "Its host and port", "default": "localhost:8080"}},
        "security": [reference("bearer"), reference("ticket"), reference("cookie")],
    })
}

fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http", "scheme": "bearer",
            "description": format!("An API key. For a WebSocket also as the subprotocol `bearer.<key in base64url without \
                padding>` beside `{SUBPROTOCOL}`, or in a first frame `auth` within 10 s."),
        },
        "ticket": {"type": "httpApiKey", "in": "query", "name": "ticket", "description": "A one-time ticket."},
        "cookie": {
            "type": "httpApiKey", "in": "cookie", "name": COOKIE_NAME,
            "description": "What a ticket left in the browser; it counts beside the spent ticket.",
        },
    })
}

fn channels(
    client: &BTreeMap<String, Value>,
    server: &BTreeMap<String, Value>,
    control: &BTreeMap<String, Value>,
) -> Value {
    let named = |prefix: &'static str, names: &BTreeMap<String, Value>| {
        let name = move |name: &String| format!("{prefix}.{name}");
        let referred = |key: String| (key.clone(), json!({"$ref": format!("#/components/messages/{key}")}));
        names.keys().map(name).map(referred).collect::<Map<String, Value>>()
    };
    let mut frames = named("client", client);
    frames.extend(named("server", server));
    let mut events = named("event", control);
    events.insert("event.record".to_owned(), json!({"$ref": "#/components/messages/event.record"}));
    let http = json!([{"$ref": "#/servers/http"}]);
    json!({
        "socket": {
            "address": "/v1/ws",
            "title": format!("WebSocket, subprotocol {SUBPROTOCOL}"),
            "description": "One JSON object per text message. Requests carry `id`, answers repeat it. Close codes: 1001 and \
                1012 the node ends, 1008 against a rule, 1009 too big, 1013 try later, 4401 the credential has ended, 4408 no \
                credential in time.",
            "servers": [{"$ref": "#/servers/websocket"}],
            "messages": frames,
            "bindings": {"ws": {
                "method": "GET",
                "query": {"type": "object", "properties": {"ticket": {"type": "string"}}},
                "bindingVersion": "0.1.0",
            }},
        },
        "topic": {
            "address": "/v1/topics/{topic}/records",
            "title": "Records of one topic, as they come",
            "description": "With `Accept: text/event-stream` or `application/x-ndjson`.",
            "parameters": {"topic": {"description": "The name; a `/` in it is written `%2F`"}},
            "servers": http,
            "messages": events,
        },
        "stream": {
            "address": "/v1/stream",
            "title": "Records of several topics in one stream",
            "servers": http,
            "messages": events,
        },
    })
}

fn operations(
    client: &BTreeMap<String, Value>,
    server: &BTreeMap<String, Value>,
    control: &BTreeMap<String, Value>,
) -> Value {
    let on = |channel: &str, message: &str| json!({"$ref": format!("#/channels/{channel}/messages/{message}")});
    let mut operations = Map::new();
    for (name, frame) in client {
        let mut operation = json!({
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "summary": frame["description"],
            "messages": [on("socket", &format!("client.{name}"))],
        });
        if let Some((_, replies)) = REPLIES.iter().find(|(request, _)| request == name) {
            let messages: Vec<Value> = replies.iter().map(|reply| on("socket", &format!("server.{reply}"))).collect();
            operation["reply"] = json!({"channel": {"$ref": "#/channels/socket"}, "messages": messages});
        }
        operations.insert(format!("receive.{name}"), operation);
    }
    for (name, frame) in server {
        let operation = json!({
            "action": "send",
            "channel": {"$ref": "#/channels/socket"},
            "summary": frame["description"],
            "messages": [on("socket", &format!("server.{name}"))],
        });
        operations.insert(format!("send.{name}"), operation);
    }
    for channel in ["topic", "stream"] {
        let names = control.keys().map(String::as_str).chain(["record"]);
        let messages: Vec<Value> = names.map(|name| on(channel, &format!("event.{name}"))).collect();
        let operation = json!({
            "action": "send",
            "channel": {"$ref": format!("#/channels/{channel}")},
            "summary": "Records and what is to be known of them, until the client leaves.",
            "messages": messages,
            "bindings": {"http": {"method": "GET", "query": query(channel), "bindingVersion": "0.3.0"}},
        });
        operations.insert(format!("send.events.{channel}"), operation);
    }
    Value::Object(operations)
}

/// What an address of a stream may ask for; OpenAPI says it in full.
fn query(channel: &str) -> Value {
    let mut properties = json!({
        "from": {"type": "string", "description": "Where to begin; default `latest`"},
        "format": {"const": "value", "description": "The data of an event is the payload"},
        "unnamed": {"type": "boolean", "description": "Records without an event name"},
        "last_event_id": {"type": "string", "description": "As the header `Last-Event-ID`"},
        "ticket": {"type": "string", "description": "A one-time ticket"},
    });
    if channel == "stream" {
        let topics =
            json!({"type": "string", "description": format!("A name or pattern; up to {STREAM_TOPICS_MAX} of them")});
        properties["topic"] = topics;
    }
    json!({"type": "object", "properties": properties})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_of_the_client_has_its_answers_and_each_of_them_is_a_frame() {
        let document = asyncapi();
        for (name, operation) in document["operations"].as_object().unwrap() {
            if let Some(frame) = name.strip_prefix("receive.") {
                assert!(operation["reply"].is_object(), "REPLIES does not say what answers `{frame}`");
            }
        }
        for (_, replies) in REPLIES {
            for reply in *replies {
                assert!(document["components"]["messages"][format!("server.{reply}")].is_object(), "{reply}");
            }
        }
    }

    #[test]
    fn a_message_has_the_schema_of_the_openapi_document() {
        let document = asyncapi();
        let described = serde_json::to_value(openapi()).unwrap();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert_eq!(schema, &described["components"]["schemas"][name], "{name}");
        }
        let subscribe = &document["components"]["messages"]["client.subscribe"];
        assert_eq!(subscribe["payload"]["$ref"], "#/components/schemas/SubscribeFrame");
        assert_eq!(document["components"]["messages"]["event.gap"]["name"], "gap");
    }
}
