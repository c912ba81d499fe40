use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::error::PublishOutcome;

fn refused(text: &str) -> FrameError {
    ClientFrame::parse(text).expect_err("the frame is refused")
}

#[test]
fn every_frame_of_the_client_is_read_by_its_type() {
    let ClientFrame::Auth(auth) = ClientFrame::parse(r#"{"type":"auth","token":"t"}"#).unwrap() else { panic!("auth") };
    assert_eq!(auth.token, "t");
    let text = r#"{"type":"subscribe","id":"s","topics":["a","b.*"],"from":"offset:3","credit":0,"policy":"latest"}"#;
    let ClientFrame::Subscribe(subscribe) = ClientFrame::parse(text).unwrap() else { panic!("subscribe") };
    assert_eq!((subscribe.topics.len(), subscribe.credit, subscribe.policy), (2, Some(0), SlowPolicy::Latest));
    let ClientFrame::Unsubscribe(end) = ClientFrame::parse(r#"{"sub":"s","type":"unsubscribe"}"#).unwrap() else {
        panic!("unsubscribe")
    };
    assert_eq!(end.sub, "s");
    let ClientFrame::Credit(credit) = ClientFrame::parse(r#"{"type":"credit","sub":"s","n":5}"#).unwrap() else {
        panic!("credit")
    };
    assert_eq!(credit.n, 5);
    let ClientFrame::Ping(ping) = ClientFrame::parse(r#" {"type":"ping"}"#).unwrap() else { panic!("ping") };
    assert_eq!(ping.id, None);
}

#[test]
fn a_json_payload_keeps_its_bytes_and_is_not_copied() {
    let text = r#"{"type":"publish","id":"1","topic":"t","records":[{"key":"k","value": {"b" : 1.10,"a":"\u00e9"} },{"value":null}]}"#;
    let ClientFrame::Publish(publish) = ClientFrame::parse(text).unwrap() else { panic!("publish") };
    let value = publish.records[0].value.unwrap().get();
    assert_eq!(value, r#"{"b" : 1.10,"a":"\u00e9"}"#);
    assert!(text.as_bytes().as_ptr_range().contains(&value.as_ptr()));
    assert_eq!(publish.records[1].value.unwrap().get(), "null");
}

#[test]
fn an_array_is_not_taken_for_a_record() {
    let error = refused(r#"{"type":"publish","id":"1","topic":"t","records":[{"text":"a"},["key"]]}"#);
    assert!(error.detail.contains("`records[1]`") && error.detail.contains("an object"), "{error}");
}

#[test]
fn a_publish_may_say_what_it_is_recognized_by_and_what_must_hold() {
    let text = r#"{"type":"publish","id":"1","topic":"t","records":[{}],"partition":2,"expected_tail":7,"fencing_token":5,
        "producer":{"id":"p","epoch":1,"seq":9}}"#;
    let ClientFrame::Publish(publish) = ClientFrame::parse(text).unwrap() else { panic!("publish") };
    assert_eq!((publish.partition, publish.expected_tail, publish.fencing_token), (Some(2), Some(7), Some(5)));
    assert_eq!(publish.producer, Some(Producer { id: "p".into(), epoch: 1, seq: 9 }));
    let part = refused(r#"{"type":"publish","id":"1","topic":"t","records":[{}],"producer":{"id":"p","seq":9}}"#);
    assert!(part.detail.contains("producer") && part.detail.contains("`epoch`"), "{part}");
    assert_eq!(part.problem().outcome, Some(PublishOutcome::NotStored));
}

#[test]
fn an_escaped_type_is_the_same_type() {
    assert!(matches!(ClientFrame::parse(r#"{"type":"p\u0069ng"}"#), Ok(ClientFrame::Ping(_))));
}

#[test]
fn what_is_not_a_json_object_is_garbage() {
    for text in
        ["", "hello", "[\"ping\"]", "\"ping\"", "{", r#"{"type":"ping"} x"#, r#"{"type":ping}"#, "{\"type\":\"ping\",}"]
    {
        let error = refused(text);
        assert!(error.garbage, "{text}");
        assert_eq!((error.code, error.id), (ErrorCode::InvalidRequest, None), "{text}");
    }
}

#[test]
fn an_unknown_type_is_named_and_keeps_its_id() {
    for name in ["ack", "nack", "extend", "Ping", ""] {
        let error = refused(&format!(r#"{{"type":"{name}","id":"7","leases":[]}}"#));
        assert!(error.detail.contains(&format!("`{name}`")) && error.detail.contains("`subscribe`"), "{error}");
        assert_eq!((error.garbage, error.id.as_deref()), (false, Some("7")));
    }
    assert_eq!(refused(r#"{"id":"7"}"#).detail, "frame has no `type`");
    assert!(!refused(r#"{"type":1}"#).garbage);
    assert!(refused(r#"{"type":"ping","type":"auth"}"#).detail.contains("duplicate field `type`"));
}

#[test]
fn an_unknown_field_is_named() {
    for field in ["filter", "format", "partition"] {
        let error = refused(&format!(r#"{{"type":"subscribe","id":"s","topics":["t"],"{field}":"x"}}"#));
        assert!(error.detail.contains(&format!("unknown field `{field}`")), "{error}");
        assert_eq!((error.code, error.id.as_deref()), (ErrorCode::UnknownField, Some("s")));
    }
    let error = refused(r#"{"type":"publish","id":"p","topic":"t","records":[{},{"delay":"1h"}]}"#);
    assert!(error.detail.contains("records[1]") && error.detail.contains("`delay`"), "{error}");
    assert_eq!((error.code, error.problem().outcome), (ErrorCode::UnknownField, Some(PublishOutcome::NotStored)));
}

#[test]
fn a_field_of_the_wrong_form_is_named() {
    let cases = [
        (r#"{"type":"subscribe","id":"s","topics":["t"],"credit":-1}"#, "`credit`"),
        (r#"{"type":"subscribe","id":"s","topics":["t"],"credit":"many"}"#, "`credit`"),
        (r#"{"type":"subscribe","id":"s","topics":["t"],"credit":1.5}"#, "`credit`"),
        (r#"{"type":"credit","sub":"s","n":-1}"#, "`n`"),
        (r#"{"type":"credit","sub":"s"}"#, "`n`"),
        (r#"{"type":"subscribe","id":"s","topics":"t"}"#, "`topics`"),
        (r#"{"type":"subscribe","id":"s","topics":["t"],"policy":"conflate"}"#, "`conflate`"),
        (r#"{"type":"publish","id":"p","topic":"t","records":[{"text":1}]}"#, "`records[0].text`"),
        (r#"{"type":"auth","token":7}"#, "`token`"),
    ];
    for (text, name) in cases {
        let error = refused(text);
        assert!(error.detail.contains(name), "{text}: {error}");
        assert_eq!((error.code, error.garbage), (ErrorCode::InvalidRequest, false), "{text}");
    }
}

#[test]
fn the_debug_form_of_auth_hides_the_credential() {
    let frame = ClientFrame::parse(r#"{"type":"auth","token":"plk_secret"}"#).unwrap();
    assert!(!format!("{frame:?}").contains("plk_secret"));
}

#[test]
fn a_frame_of_the_server_begins_with_its_type() {
    let frame = ServerFrame::Gap {
        sub: "s".to_owned(),
        gap: Gap { topic: "t".to_owned(), partition: 1, requested: 2, resumed_at: 3, reason: "trimmed".to_owned() },
        cursor: "c".to_owned(),
    };
    let text = serde_json::to_string(&frame).unwrap();
    assert!(text.starts_with(r#"{"type":"gap","sub":"s","topic":"t","#), "{text}");
    assert_eq!(serde_json::to_string(&ServerFrame::Pong { id: None }).unwrap(), r#"{"type":"pong"}"#);
}

#[test]
fn the_committed_schema_is_the_one_of_these_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/frames.schema.json");
    let text = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == text, "openapi/frames.schema.json has drifted; write it anew with UPDATE=1");
}

#[test]
fn the_schema_refers_only_to_what_it_defines_and_has_every_type() {
    let schema = schema();
    let defined: BTreeSet<&str> = schema["$defs"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut referred = BTreeSet::new();
    references(&schema, &mut referred);
    assert!(referred.iter().all(|target| defined.contains(target.trim_start_matches("#/$defs/"))), "{referred:?}");
    let client: Vec<&str> = schema["$defs"]["ClientFrame"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["$ref"].as_str().unwrap())
        .collect();
    assert_eq!(client.len(), 7);
    for target in client {
        let frame = &schema["$defs"][target.trim_start_matches("#/$defs/")];
        assert_eq!(frame["additionalProperties"], json!(false), "{target}");
        let kind =
            &schema["$defs"][frame["properties"]["type"]["$ref"].as_str().unwrap().trim_start_matches("#/$defs/")];
        assert!(target.to_lowercase().contains(kind["enum"][0].as_str().unwrap()), "{target}: {kind}");
        assert!(frame["required"].as_array().unwrap().contains(&json!("type")), "{target}");
    }
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(target) if name == "$ref" => drop(found.insert(target)),
                    Some(_) | None => references(field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
