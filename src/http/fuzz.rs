//! Fuzz targets of what is read from a request besides its body: query, list cursors, media types, terms of a publish.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::accept::{MediaType, negotiate};
use super::convert::{ListRequest, list_page};
use super::extract::{Params, media_type};
use super::reports;
use super::terms::terms;
use crate::fuzz::{ITERATIONS, text};

#[test]
fn a_query_is_decoded_once_and_nothing_of_it_is_passed_over() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<(u8, Vec<u8>)>>().for_each(|pairs| {
        const PIECES: &[&str] = &["a", "%2F", "%", "+", " ", "&", "=", "é", "\0", "%25", "#"];
        let pairs: Vec<(&str, String)> = pairs
            .iter()
            .map(|(name, picks)| (["from", "limit", "odd"][usize::from(*name) % 3], text(PIECES, picks)))
            .collect();
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let mut params = Params::parse(Some(&query));
        let given = |name: &str| -> Vec<String> {
            pairs.iter().filter(|(other, _)| *other == name).map(|(_, value)| value.clone()).collect()
        };
        assert_eq!(params.take_all("from"), given("from"));
        let limits = given("limit");
        match params.take("limit") {
            Ok(limit) => assert_eq!(limit.into_iter().collect::<Vec<_>>(), limits),
            Err(_) => assert!(limits.len() > 1),
        }
        assert_eq!(params.finish().is_ok(), given("odd").is_empty());
    });
}

#[test]
fn any_text_is_a_query_that_is_read_or_refused() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        const PIECES: &[&str] = &["limit", "cursor", "=", "&", "1", "1000", "%", "%zz", "%ff", "+", "YQ", ";", "é"];
        let given = text(PIECES, picks);
        let mut params = Params::parse(Some(&given));
        let Ok(list) = ListRequest::take(&mut params) else { return };
        assert!((1..=1000).contains(&list.limit), "{given}");
        if let Err(error) = params.finish() {
            assert!(error.problem().detail.len() < 1000, "an error shows the beginning of a name");
        }
    });
}

#[test]
fn a_cursor_of_a_list_leads_behind_the_item_that_it_was_made_of() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<String>().for_each(|name| {
        let page = list_page(vec![name.clone()], true, |name: &String| name);
        let query = format!("cursor={}", page.next_cursor.expect("there is more"));
        let list = ListRequest::take(&mut Params::parse(Some(&query))).expect("a cursor of ours");
        assert_eq!(list.after.as_deref(), Some(&name[..]));
    });
}

#[test]
fn what_is_answered_is_offered_and_what_excludes_it_is_heard() {
    const PIECES: &[&str] = &[
        "application/json",
        "text/event-stream",
        "*/*",
        "text/*",
        "image/png",
        ";q=0",
        ";q=0.5",
        ";q=x",
        ",",
        " ",
        ";",
        "/",
        "é",
    ];
    const OFFERED: [MediaType; 4] = [MediaType::Json, MediaType::Ndjson, MediaType::EventStream, MediaType::Batch];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let given = text(PIECES, picks);
        let Ok(value) = HeaderValue::from_str(&given) else { return };
        let headers: HeaderMap = [(ACCEPT, value.clone())].into_iter().collect();
        let chosen = negotiate(&headers, &OFFERED).ok();
        let named = |kind: &str| given.contains(kind);
        if let Some(chosen) = chosen {
            let group = chosen.as_str().split('/').next().unwrap_or_default();
            assert!(named(chosen.as_str()) || named("*/*") || named(&format!("{group}/*")), "{given}: {chosen:?}");
            // Of one type alone the answer stays the same.
            assert_eq!(negotiate(&headers, &[chosen]).ok(), Some(chosen), "{given}");
        }
        let headers: HeaderMap = [(CONTENT_TYPE, value)].into_iter().collect();
        let essence = media_type(&headers).map(|essence| essence.into_owned()).unwrap_or_default();
        assert!(!essence.contains(';') && essence == essence.trim() && essence == essence.to_ascii_lowercase());
    });
}

#[test]
fn terms_are_digits_and_an_idempotency_key_is_the_same_bare_and_quoted() {
    let header =
        |name: &'static str, value: &str| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?));
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, u64)>().for_each(|(picks, number)| {
        const PIECES: &[&str] = &["a", "\"", "\\", "0", "~", "!", "-"];
        let key = text(PIECES, picks);
        let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
        let Some(pair) = header("idempotency-key", &quoted) else { return };
        let read = terms(&[pair].into_iter().collect()).expect("a quoted string");
        assert_eq!(read.idempotency_key.as_deref(), Some(&key[..]));
        let Some(pair) = header("expected-tail", &number.to_string()) else { return };
        assert_eq!(terms(&[pair].into_iter().collect()).expect("a number").expected_tail, Some(*number));
        if let Some(pair) = header("expected-tail", &key) {
            let digits = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
            assert!(digits || terms(&[pair].into_iter().collect()).is_err(), "{key}");
        }
    });
}

// Fails when anything of a report but a name of the closed lists comes out of it.
#[test]
fn a_report_of_a_browser_gives_names_from_lists_or_nothing() {
    const PIECES: &[&str] = &[
        "{\"csp-report\":{",
        "\"document-uri\":\"https://a/console/\"",
        "\"document-uri\":\"https://a/docs?x\"",
        "\"document-uri\":\"\\u0000\"",
        "\"document-uri\":1",
        "\"effective-directive\":\"script-src-elem\"",
        "\"effective-directive\":\"<script>\"",
        "\"violated-directive\":\"img-src 'self'\"",
        "\"blocked-uri\":\"plk_a\"",
        ",",
        "}}",
        "[",
        "null",
        "é",
    ];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        // Half of them have the form, so that the fields are reached.
        let fields: Vec<&str> = picks.iter().take(4).map(|pick| PIECES[1 + usize::from(*pick) % 8]).collect();
        let tidy = format!("{{\"csp-report\":{{{}}}}}", fields.join(","));
        for given in [text(PIECES, picks), tidy] {
            let Some((page, directive)) = reports::read(given.as_bytes()) else { continue };
            assert!(["console", "docs", "other"].contains(&page), "{given}");
            assert!(["script-src-elem", "img-src", "other"].contains(&directive), "{given}");
            assert!(given.contains("\"document-uri\":\""), "{given}");
        }
    });
}
