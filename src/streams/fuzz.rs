//! Fuzz targets of the headers of the protocol.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use plinth_api::limits::NUMBER_MAX;

use super::headers::{config, fork, producer, seq};
use crate::broker::Expiry;
use crate::fuzz::{ITERATIONS, text};

const PIECES: &[&str] = &[
    "0",
    "1",
    "17",
    "9007199254740991",
    "99999999999",
    "-",
    "+",
    " ",
    "/v1/stream/a",
    "%2F",
    "p",
    "2026-01-02T03:04:05Z",
    "2026-01-02t03:04:05.5+01:00",
    "1969-12-31T23:59:59Z",
    "true",
    "text/plain",
    "é",
];

/// Headers of these names, each as often as it is picked.
fn headers(names: &[&'static str], given: &[(u8, Vec<u8>)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, picks) in given {
        let name = HeaderName::from_static(names[usize::from(*name) % names.len()]);
        headers.append(name, HeaderValue::from_bytes(text(PIECES, picks).as_bytes()).expect("no control characters"));
    }
    headers
}

/// The text of a header that is given once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

fn is_plain(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|number| number.to_string() == text && number <= NUMBER_MAX)
}

#[test]
fn what_a_creation_asks_for_is_what_its_headers_say_or_it_is_refused() {
    const NAMES: &[&str] = &[
        "stream-ttl",
        "stream-expires-at",
        "stream-forked-from",
        "stream-fork-offset",
        "stream-fork-sub-offset",
        "content-type",
        "stream-closed",
    ];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<(u8, Vec<u8>)>>().for_each(|given| {
        let headers = headers(NAMES, given);
        if let Ok(config) = config(&headers) {
            match config.expiry {
                None => assert!(!headers.contains_key("stream-ttl") && !headers.contains_key("stream-expires-at")),
                Some(Expiry::Ttl(seconds)) => {
                    assert_eq!(only(&headers, "stream-ttl"), Some(seconds.to_string().as_str()));
                    assert!(seconds <= NUMBER_MAX / 1000);
                }
                Some(Expiry::At { text, .. }) => assert_eq!(only(&headers, "stream-expires-at"), Some(&*text)),
            }
        }
        if let Ok(fork) = fork(&headers) {
            let of = |name: &str| only(&headers, name).map(str::to_owned);
            let said = fork.as_ref().map(|fork| fork.from.clone());
            assert_eq!(said, of("stream-forked-from"));
            assert_eq!(fork.as_ref().and_then(|fork| fork.offset.clone()), of("stream-fork-offset"));
            let sub = fork.and_then(|fork| fork.sub).map(|sub| sub.to_string());
            assert_eq!(sub, of("stream-fork-sub-offset"));
            assert!(sub.is_none_or(|sub| is_plain(&sub)));
        }
    });
}

#[test]
fn a_producer_is_three_headers_or_none() {
    const NAMES: &[&str] = &["producer-id", "producer-epoch", "producer-seq", "stream-seq"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<(u8, Vec<u8>)>>().for_each(|given| {
        let headers = headers(NAMES, given);
        let count = NAMES[..3].iter().filter(|name| headers.contains_key(**name)).count();
        match producer(&headers) {
            Ok(None) => assert_eq!(count, 0),
            Ok(Some(producer)) => {
                assert_eq!(&producer.id[..], headers["producer-id"].as_bytes());
                for (name, number) in [("producer-epoch", producer.epoch), ("producer-seq", producer.seq)] {
                    let text = only(&headers, name).expect("it is given once");
                    assert!(
                        number <= NUMBER_MAX && text.trim_start_matches('0').parse().unwrap_or(0) == number,
                        "{text}"
                    );
                }
            }
            Err(_) => assert!(count > 0),
        }
        if let Ok(seq) = seq(&headers) {
            assert_eq!(seq.as_deref(), headers.get("stream-seq").map(HeaderValue::as_bytes));
        }
    });
}
