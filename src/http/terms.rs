//! The headers that are the terms of a publish: what it is recognized by, and what must hold for it.
//!
//! Only their form is read here; the broker checks the limits, the log decides.

use std::str::FromStr;

use axum::http::HeaderMap;

use super::error::ApiError;
use crate::broker::{ProducerTerm, Terms};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const PRODUCER_ID: &str = "producer-id";
const PRODUCER_EPOCH: &str = "producer-epoch";
const PRODUCER_SEQ: &str = "producer-seq";
const EXPECTED_TAIL: &str = "expected-tail";
const FENCING_TOKEN: &str = "fencing-token";

/// Whether a header of this name, in lower case, is a term.
pub(super) fn is_term(name: &str) -> bool {
    matches!(name, IDEMPOTENCY_KEY | PRODUCER_ID | PRODUCER_EPOCH | PRODUCER_SEQ | EXPECTED_TAIL | FENCING_TOKEN)
}

/// The terms of a request.
///
/// # Errors
/// `InvalidRequest` for a header that cannot be read or is given twice, and for a part of a producer without the others.
pub(super) fn terms(headers: &HeaderMap) -> Result<Terms, ApiError> {
    let epoch = number(headers, PRODUCER_EPOCH)?;
    let seq = number(headers, PRODUCER_SEQ)?;
    let producer = match (text(headers, PRODUCER_ID)?, epoch, seq) {
        (None, None, None) => None,
        (Some(id), Some(epoch), Some(seq)) => Some(ProducerTerm { id: id.to_owned(), epoch, seq }),
        (_, _, _) => {
            let why = format!("`{PRODUCER_ID}`, `{PRODUCER_EPOCH}` and `{PRODUCER_SEQ}` come together or not at all");
            return Err(ApiError::invalid(why));
        }
    };
    Ok(Terms {
        idempotency_key: text(headers, IDEMPOTENCY_KEY)?.map(unquoted).transpose()?,
        producer,
        expected_tail: number(headers, EXPECTED_TAIL)?,
        fencing_token: number(headers, FENCING_TOKEN)?,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid(format!("the header `{name}` is given more than once")));
    }
    let text = value.to_str().map_err(|_| ApiError::invalid(format!("the header `{name}` is not visible ASCII")))?;
    Ok(Some(text))
}

fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = u64::from_str(text).ok().filter(|_| digits);
    number.map(Some).ok_or_else(|| ApiError::invalid(format!("the header `{name}` is not a number: {text:?}")))
}

/// A key may come as the string of RFC 9651 that draft-ietf-httpapi-idempotency-key-header wants, or bare.
fn unquoted(value: &str) -> Result<String, ApiError> {
    let Some(rest) = value.strip_prefix('"') else { return Ok(value.to_owned()) };
    let broken = || ApiError::invalid(format!("the header `{IDEMPOTENCY_KEY}` is not a quoted string: {value}"));
    let inside = rest.strip_suffix('"').ok_or_else(broken)?;
    let mut key = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => key.push(chars.next().filter(|next| matches!(next, '"' | '\\')).ok_or_else(broken)?),
            '"' => return Err(broken()),
            other => key.push(other),
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Terms, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        terms(&headers)
    }

    fn refusal(pairs: &[(&'static str, &'static str)]) -> String {
        read(pairs).expect_err("refused").problem().detail.clone()
    }

    #[test]
    fn a_key_comes_bare_or_as_a_quoted_string() {
        for (value, key) in
            [("abc", "abc"), ("\"abc\"", "abc"), (r#""a\"b\\c""#, r#"a"b\c"#), ("a\"b", "a\"b"), ("\"\"", "")]
        {
            assert_eq!(read(&[(IDEMPOTENCY_KEY, value)]).unwrap().idempotency_key.as_deref(), Some(key), "{value}");
        }
        for broken in ["\"abc", "\"", r#""a\""#, r#""a\bc""#, r#""a"b""#] {
            assert!(refusal(&[(IDEMPOTENCY_KEY, broken)]).contains("not a quoted string"), "{broken}");
        }
    }

    #[test]
    fn a_producer_is_whole_or_not_there() {
        let all = [(PRODUCER_ID, "p"), (PRODUCER_EPOCH, "3"), (PRODUCER_SEQ, "07")];
        assert_eq!(read(&all).unwrap().producer, Some(ProducerTerm { id: "p".into(), epoch: 3, seq: 7 }));
        assert_eq!(read(&[]).unwrap(), Terms::default());
        for missing in 0..3 {
            let some: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, pair)| *pair).collect();
            assert!(refusal(&some).contains("come together"), "{some:?}");
        }
    }

    #[test]
    fn numbers_are_digits_and_nothing_is_given_twice() {
        for value in ["", "-1", "+1", "1.0", "0x1", "99999999999999999999"] {
            assert!(refusal(&[(EXPECTED_TAIL, value)]).contains("`expected-tail` is not a number"), "{value}");
        }
        assert!(refusal(&[(FENCING_TOKEN, "1"), (FENCING_TOKEN, "2")]).contains("more than once"));
        assert_eq!(read(&[(FENCING_TOKEN, "12")]).unwrap().fencing_token, Some(12));
    }
}
