use plinth_storage::ids::{PartitionIndex, Timestamp, TopicId};
use plinth_storage::record::{Batch, NewRecord};
use proptest::prelude::*;
use serde_json::{Value, json};
use ulid::Ulid;

use super::*;

fn scene() -> Scene {
    let partition = Partition { topic: TopicId(Ulid::from_parts(3, 4)), index: PartitionIndex(2) };
    Scene { cursors: CursorKey([1; 32]), tenant: TenantId(Ulid::from_parts(1, 2)), partition }
}

fn record(content_type: &str, payload: &[u8]) -> NewRecord {
    NewRecord {
        key: None,
        content_type: Bytes::copy_from_slice(content_type.as_bytes()),
        headers: vec![],
        ttl_ms: None,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn render(records: &[NewRecord]) -> Rendered {
    let batch = Batch::of(records).expect("a batch");
    Rendered::new("orders", &scene(), &StoredBatch { base: Offset(7), timestamp: Timestamp(99), batch })
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).expect("JSON is UTF-8")
}

fn parsed(rendered: &Rendered, index: u32) -> Value {
    serde_json::from_slice(&rendered.record_json(index)).expect("one JSON value")
}

#[test]
fn a_record_has_its_place_its_fields_and_its_payload() {
    let mut full = record("text/plain", b"hi \"you\"\n");
    full.key = Some(Bytes::from_static("k\u{fc}".as_bytes()));
    full.headers = vec![("a".into(), "1".into()), ("b".into(), "\"2\"".into())];
    let rendered = render(&[record("", b""), full]);
    assert_eq!(
        text(&rendered.record_json(0)),
        r#"{"topic":"orders","partition":2,"offset":7,"timestamp":99,"base64":""}"#
    );
    assert_eq!(
        parsed(&rendered, 1),
        json!({"topic": "orders", "partition": 2, "offset": 8, "timestamp": 99, "key": "kü",
            "headers": {"a": "1", "b": "\"2\""}, "content_type": "text/plain", "text": "hi \"you\"\n"})
    );
}

#[test]
fn json_stands_in_the_text_byte_for_byte() {
    for payload in ["{\"b\": 1.50,  \"a\":[ ]}", "1e400", "\"\\u00e9é\"", "null", " true "] {
        let rendered = render(&[record("application/json; charset=utf-8", payload.as_bytes())]);
        let line = rendered.record_json(0);
        assert!(text(&line).ends_with(&format!("\"value\":{payload}}}")), "{}", text(&line));
        assert!(render(&[record("application/vnd.x+json", payload.as_bytes())]).record_json(0).ends_with(b"}"));
    }
}

#[test]
fn json_that_cannot_stand_in_a_line_comes_as_text() {
    let deep = "[".repeat(101) + &"]".repeat(101);
    for payload in ["{\n}", "[1,\r2]", "{\"a\":", "", "{} {}", "nul", "\u{feff}{}", &deep] {
        let read = parsed(&render(&[record("application/json", payload.as_bytes())]), 0);
        assert_eq!(read["text"], json!(payload));
        assert_eq!(read.get("value"), None, "{payload:?}");
    }
}

#[test]
fn many_brackets_that_are_not_deep_are_embedded() {
    let wide = format!("[{}\"{}\"]", "[],".repeat(200), "[".repeat(300));
    let read = parsed(&render(&[record("application/json", wide.as_bytes())]), 0);
    assert!(read["value"].is_array());
}

#[test]
fn what_is_not_textual_or_not_utf8_comes_as_base64() {
    for (content_type, payload, expected) in [
        ("", &b"hi"[..], "aGk="),
        ("application/octet-stream", b"hi", "aGk="),
        ("image/png", b"\x89PNG", "iVBORw=="),
        ("text/plain", b"\xff\xfe", "//4="),
        ("application/json", b"\"\xff\"", "Iv8i"),
        ("textual", b"hi", "aGk="),
    ] {
        let read = parsed(&render(&[record(content_type, payload)]), 0);
        assert_eq!(read["base64"], json!(expected), "{content_type}");
    }
}

#[test]
fn textual_types_come_as_text() {
    for content_type in [
        "text/plain",
        "TEXT/CSV; header=present",
        "application/xml",
        "image/svg+xml",
        "application/x-www-form-urlencoded",
        "application/javascript",
        "application/yaml",
    ] {
        assert_eq!(parsed(&render(&[record(content_type, "grüße".as_bytes())]), 0)["text"], json!("grüße"));
    }
}

#[test]
fn every_form_is_cut_at_records() {
    let rendered =
        render(&[record("application/json", b"0"), record("application/json", b"1"), record("text/plain", b"2")]);
    let lines: Vec<Bytes> = (0..3).map(|index| rendered.record_json(index)).collect();
    assert_eq!(text(&rendered.ndjson(1, 2)), format!("{}\n{}\n", text(&lines[1]), text(&lines[2])));
    assert_eq!(text(&rendered.json_items(0, 3)), lines.iter().map(text).collect::<Vec<_>>().join(","));
    assert_eq!(rendered.json_items(1, 1), lines[1]);
    assert_eq!(rendered.json_items(1, 0), Bytes::new());
    let array: Value = serde_json::from_str(&format!("[{}]", text(&rendered.json_items(1, 2)))).expect("an array");
    assert_eq!(array[1]["offset"], json!(9));
}

#[test]
fn sse_events_carry_the_cursor_after_each_record() {
    let rendered = render(&[record("application/json", b"0"), record("application/json", b"1")]);
    let cursor = |next| {
        let scene = scene();
        scene.cursors.write(scene.tenant, [(scene.partition, Offset(next))])
    };
    let line = |index| rendered.record_json(index);
    assert_eq!(
        text(&rendered.sse(0, 2, true)),
        format!(
            "id: {}\nevent: record\ndata: {}\n\nid: {}\nevent: record\ndata: {}\n\n",
            cursor(8),
            text(&line(0)),
            cursor(9),
            text(&line(1))
        )
    );
    assert_eq!(text(&rendered.sse(1, 1, false)), format!("id: {}\ndata: {}\n\n", cursor(9), text(&line(1))));
}

/// Fails when `RenderCache::render` makes a new text each time.
#[test]
fn followers_share_one_text() {
    let cache = RenderCache::new(1 << 20);
    let batch = Batch::of(&[record("text/plain", b"x")]).expect("a batch");
    let stored = StoredBatch { base: Offset(0), timestamp: Timestamp(1), batch };
    let first = cache.render("orders", &scene(), &stored, true);
    let second = cache.render("orders", &scene(), &stored, true);
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.sse(0, 1, true).as_ptr(), second.sse(0, 1, true).as_ptr());
    assert!(Arc::ptr_eq(&first, &cache.render("orders", &scene(), &stored, false)));
}

#[test]
fn the_cache_is_bounded_in_bytes() {
    let cache = RenderCache::new(1 << 20);
    for base in 0..1_000 {
        let batch = Batch::of(&[record("text/plain", &[b'x'; 4096])]).expect("a batch");
        let stored = StoredBatch { base: Offset(base), timestamp: Timestamp(1), batch };
        cache.render("orders", &scene(), &stored, true);
    }
    assert!(cache.rendered.weight() <= 1 << 20, "{}", cache.rendered.weight());
}

/// The same record, written by `serde_json`.
fn as_serde_writes_it(record: &NewRecord, offset: u64) -> String {
    let string = |bytes: &[u8]| serde_json::to_string(&String::from_utf8_lossy(bytes)).expect("a string is JSON");
    let mut line = format!("{{\"topic\":\"orders\",\"partition\":2,\"offset\":{offset},\"timestamp\":99");
    if let Some(key) = &record.key {
        line += &format!(",\"key\":{}", string(key));
    }
    let headers = record.headers.iter().map(|(name, value)| format!("{}:{}", string(name), string(value)));
    if !record.headers.is_empty() {
        line += &format!(",\"headers\":{{{}}}", headers.collect::<Vec<_>>().join(","));
    }
    if !record.content_type.is_empty() {
        line += &format!(",\"content_type\":{}", string(&record.content_type));
    }
    let (payload, text) = (&record.payload[..], std::str::from_utf8(&record.payload));
    let form = Form::of(&record.content_type);
    let value =
        |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() && !text.contains(['\n', '\r']);
    match text {
        Ok(text) if form == Form::Json && value(text) => line += &format!(",\"value\":{text}}}\n"),
        Ok(_) if form != Form::Octets => line += &format!(",\"text\":{}}}\n", string(payload)),
        Ok(_) | Err(_) => line += &format!(",\"base64\":\"{}\"}}\n", STANDARD.encode(payload)),
    }
    line
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        ".{0,80}".prop_map(String::into_bytes),
        "[a-z\"\\\\\u{0}-\u{1f}\u{7f}]{0,80}".prop_map(String::into_bytes),
        "(\\[|\\]|\\{|\\}|,|:|1|\"a\"| |\n){0,9}".prop_map(String::into_bytes),
        "\\{\"a\":(1|\"[a-z]{0,70}\"|\\[ \\])(,\"b\":-1\\.5e9)?\\}".prop_map(String::into_bytes),
    ]
}

fn any_record() -> impl Strategy<Value = NewRecord> {
    let kinds =
        vec!["", "application/json", "Application/JSON; x=y", "text/plain", "application/octet-stream", "a/b+json"];
    let any_bytes = || any_payload().prop_map(Bytes::from);
    let name = any_payload().prop_map(|name| Bytes::from([&name[..], b"n"].concat()));
    let headers = prop::collection::vec((name, any_bytes()), 0..3);
    (prop::option::of(any_bytes()), prop::sample::select(kinds), headers, any_bytes()).prop_map(
        |(key, content_type, headers, payload)| NewRecord {
            key,
            content_type: Bytes::from_static(content_type.as_bytes()),
            headers,
            ttl_ms: None,
            payload,
        },
    )
}

proptest! {
    #[test]
    fn every_record_is_written_as_serde_json_writes_it(records in prop::collection::vec(any_record(), 1..5)) {
        let expected: String = records.iter().zip(7..).map(|(record, offset)| as_serde_writes_it(record, offset)).collect();
        let written = render(&records).ndjson(0, u32::try_from(records.len()).unwrap());
        prop_assert_eq!(text(&written), &expected);
    }
}
