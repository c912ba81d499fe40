//! Fuzz targets of a publish: lines of JSON, and the headers of a record.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::{Form, check_headers, lines, one_record};
use crate::fuzz::{ITERATIONS, text};

#[test]
fn each_line_is_one_payload_and_a_slice_of_the_body() {
    const PIECES: &[&str] =
        &["{\"a\":1}", "[1, 2]", "null", "\"é\"", "1e3", "\n", "\r\n", " ", "\t", "{", "x", "\u{feff}"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let body = Bytes::from(text(PIECES, picks));
        let given = std::str::from_utf8(&body).expect("made of text");
        let full: Vec<&str> = given.split('\n').map(str::trim_ascii).filter(|line| !line.is_empty()).collect();
        let all_json = full.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        match lines(&body) {
            Ok(records) => {
                let payloads: Vec<&[u8]> = records.iter().map(|record| &record.payload[..]).collect();
                assert_eq!(payloads, full.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
                let inside = |payload: &[u8]| body.as_ptr_range().contains(&payload.as_ptr());
                assert!(all_json && payloads.into_iter().all(inside), "{given:?}");
            }
            Err(_) => assert!(!all_json || full.is_empty(), "{given:?}"),
        }
    });
}

#[test]
fn a_header_of_a_record_is_kept_as_it_came_or_the_publish_is_refused() {
    const NAMES: [&str; 8] = [
        "record-key",
        "record-header-a",
        "record-header-",
        "record-ttl",
        "record-odd",
        "ce-id",
        "durability",
        "traceparent",
    ];
    const PIECES: &[&str] = &["1h", "object", "a", "é", " ", "0", "\t", "00-"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<(u8, Vec<u8>)>>().for_each(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, picks) in pairs {
            let name = HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]);
            let Ok(value) = HeaderValue::from_bytes(text(PIECES, picks).as_bytes()) else { continue };
            headers.append(name, value);
        }
        let unknown = ["record-header-", "record-odd", "ce-id"].iter().any(|name| headers.contains_key(*name));
        let checked = check_headers(&headers, Form::One);
        assert!(!unknown || checked.is_err(), "{headers:?}");
        let of_records = headers.keys().any(|name| name.as_str().starts_with("record-"));
        assert!(!of_records || check_headers(&headers, Form::Lines).is_err(), "a batch has none: {headers:?}");
        if checked.is_ok()
            && let Ok(record) = one_record(&headers, Bytes::from_static(b"x"))
        {
            assert_eq!(record.key.as_deref(), headers.get("record-key").map(HeaderValue::as_bytes));
            let kept = record.headers.iter().filter(|(name, _)| name.as_ref() == b"a");
            assert_eq!(kept.count(), headers.get_all("record-header-a").iter().count());
        }
    });
}
