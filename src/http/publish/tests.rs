//! What a publish is made of, by its headers and its body.

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    pairs.iter().map(pair).collect()
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn refusal(error: &ApiError) -> (ErrorCode, &str) {
    (error.code(), &error.problem().detail)
}

#[test]
fn each_line_is_a_record_whose_payload_is_a_slice_of_the_body() {
    let body = Bytes::from_static(b"{\"a\": 1.0}\r\n\n  \"two\" \nnull\n");
    let records = lines(&body).unwrap();
    let payloads: Vec<&[u8]> = records.iter().map(|record| &record.payload[..]).collect();
    assert_eq!(payloads, [&b"{\"a\": 1.0}"[..], b"\"two\"", b"null"]);
    assert!(records.iter().all(|record| record.content_type == "application/json"));
    assert!(records.iter().all(|record| body.as_ptr_range().contains(&record.payload.as_ptr())));
}

#[test]
fn a_broken_line_is_named_by_its_number() {
    let mut body = "{\"ok\":true}\n".repeat(36);
    body.push_str("{\"broken\":\n{\"ok\":true}\n");
    let error = lines(&Bytes::from(body)).unwrap_err();
    let detail = "line 37 is not JSON: EOF while parsing a value at column 10; nothing was stored";
    assert_eq!(refusal(&error), (ErrorCode::InvalidRequest, detail));
}

#[test]
fn an_empty_line_counts_as_a_line_when_a_later_one_is_broken() {
    let error = lines(&Bytes::from_static(b"\n1\n\nx\n")).unwrap_err();
    assert!(error.problem().detail.starts_with("line 4 is not JSON: expected value"), "{error:?}");
}

#[test]
fn a_line_that_is_not_utf_8_is_named_by_its_number() {
    let error = lines(&Bytes::from_static(b"1\n\"\xff\"\n")).unwrap_err();
    assert_eq!(refusal(&error), (ErrorCode::InvalidRequest, "line 2 is not UTF-8; nothing was stored"));
}

#[test]
fn too_many_lines_are_refused_with_their_number() {
    let error = lines(&Bytes::from("1\n".repeat(1200))).unwrap_err();
    assert_eq!(refusal(&error), (ErrorCode::TooLarge, "batch of 1200 records exceeds the limit of 1000"));
}

#[test]
fn one_record_has_the_key_and_headers_of_the_request() {
    let headers = headers(&[
        ("content-type", "text/plain"),
        ("record-key", "k"),
        ("record-header-colour", "red"),
        ("traceparent", TRACE),
        ("tracestate", "a=1"),
        ("user-agent", "curl"),
    ]);
    check_headers(&headers, Form::One).unwrap();
    let record = one_record(&headers, Bytes::from_static(b"x")).unwrap();
    assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(record.content_type, "text/plain");
    let mut pairs = record.headers;
    pairs.sort();
    let kept = [("colour", "red"), ("traceparent", TRACE), ("tracestate", "a=1")];
    assert_eq!(pairs, kept.map(|(name, value)| (name.into(), value.into())));
}

#[test]
fn a_trace_that_breaks_a_rule_is_not_kept() {
    for given in [headers(&[("traceparent", "00-1-2-01"), ("tracestate", "a=1")]), headers(&[("tracestate", "a=1")])] {
        assert_eq!(one_record(&given, Bytes::from_static(b"x")).unwrap().headers, []);
    }
    let mut twice = headers(&[("traceparent", TRACE)]);
    twice.append("traceparent", HeaderValue::from_static(TRACE));
    assert_eq!(one_record(&twice, Bytes::from_static(b"x")).unwrap().headers, []);
}

#[test]
fn a_time_to_live_is_read_and_a_bad_one_is_refused_with_its_bounds() {
    let ttl = |text: &'static str| record_ttl(&headers(&[("record-ttl", text)]));
    for (text, ms) in [("1s", 1_000), ("1h 30m", 5_400_000), ("10y", 315_576_000_000)] {
        assert_eq!(ttl(text).unwrap(), NonZeroU64::new(ms), "{text}");
    }
    for (text, code) in [
        ("soon", ErrorCode::InvalidRequest),
        ("3600", ErrorCode::InvalidRequest),
        ("", ErrorCode::InvalidRequest),
        ("999ms", ErrorCode::Unprocessable),
        ("0s", ErrorCode::Unprocessable),
        ("11y", ErrorCode::Unprocessable),
    ] {
        let error = ttl(text).unwrap_err();
        assert_eq!(error.code(), code, "{text}");
        assert!(error.problem().detail.contains("`record-ttl`"), "{error:?}");
    }
    assert!(ttl("999ms").unwrap_err().problem().detail.contains("1s to 10y"));
    let mut twice = headers(&[("record-ttl", "1h")]);
    twice.append("record-ttl", HeaderValue::from_static("2h"));
    assert!(record_ttl(&twice).unwrap_err().problem().detail.contains("more than once"));
    check_headers(&headers(&[("record-ttl", "1h")]), Form::One).unwrap();
    for form in [Form::Batch, Form::Lines, Form::Stored] {
        let error = check_headers(&headers(&[("record-ttl", "1h")]), form).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnknownField);
    }
}

#[test]
fn a_header_that_is_not_offered_is_refused_and_named() {
    for name in ["record-delay", "record-header-", "ce-id"] {
        let error = check_headers(&headers(&[(name, "1")]), Form::One).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnknownField, "{name}");
        assert!(error.problem().detail.contains(&format!("`{name}`")), "{error:?}");
    }
    for class in Class::ALL {
        let read = check_headers(&headers(&[("durability", class.as_str())]), Form::One).unwrap();
        assert_eq!(read, (Some(class), None));
    }
    let error = check_headers(&headers(&[("durability", "paper")]), Form::One).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
    let mut twice = headers(&[("durability", "memory")]);
    twice.append("durability", HeaderValue::from_static("object"));
    assert_eq!(check_headers(&twice, Form::One).unwrap_err().code(), ErrorCode::InvalidRequest);
    let error = check_headers(&headers(&[("record-key", "k")]), Form::Lines).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownField);
}

#[test]
fn the_media_type_says_how_the_body_is_read() {
    let form_of = |media_type| form(&headers(&[("content-type", media_type)]));
    assert_eq!(form_of("Application/X-NDJSON; charset=utf-8").unwrap(), Form::Lines);
    assert_eq!(form_of("application/vnd.plinth.batch+json").unwrap(), Form::Batch);
    assert_eq!(form_of("image/png").unwrap(), Form::One);
    assert_eq!(form(&HeaderMap::new()).unwrap(), Form::One);
    assert_eq!(form_of("application/vnd.plinth.batch").unwrap(), Form::Stored);
    for refused in ["application/vnd.plinth.batches", "application/cloudevents+json"] {
        assert_eq!(form_of(refused).unwrap_err().code(), ErrorCode::UnsupportedMediaType);
    }
}

#[test]
fn an_empty_body_is_refused() {
    for form in [Form::One, Form::Batch, Form::Lines, Form::Stored] {
        assert_eq!(records(form, &HeaderMap::new(), Bytes::new()).unwrap_err().code(), ErrorCode::InvalidRequest);
    }
    assert_eq!(lines(&Bytes::from_static(b"\n \r\n")).unwrap_err().code(), ErrorCode::InvalidRequest);
}
