//! The messages of a JSON body: one level of an array at the top is a list of messages, anything else is one.
//!
//! A message is a slice of the body, byte for byte as it was sent: numbers, escapes and the order of names are not touched.
//! Only line breaks between its parts are left out, for each message is a line elsewhere.

use std::fmt;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::broker::error::Error;

/// Splits a body into at most `max` messages; none for an empty array.
///
/// # Errors
/// `Invalid` when the body is not JSON; `TooLarge` when it has more messages.
pub(super) fn split(body: &Bytes, max: usize) -> Result<Vec<Bytes>, Error> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_array {
        let message: &RawValue = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
        return Ok(vec![line(body, message)]);
    }
    let mut messages = Messages { body, max, over: false, found: Vec::new() };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = reader.deserialize_seq(&mut messages).and_then(|()| reader.end());
    if messages.over {
        return Err(Error::TooLarge(format!("body has more messages than the limit of {max}")));
    }
    read.map_err(|error| not_json(&error))?;
    Ok(messages.found)
}

/// Whether a payload is one JSON value.
pub(in crate::broker) fn is_json(payload: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(payload).is_ok()
}

struct Messages<'a> {
    body: &'a Bytes,
    max: usize,
    over: bool,
    found: Vec<Bytes>,
}

impl<'de> Visitor<'de> for &mut Messages<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(message) = items.next_element::<&'de RawValue>()? {
            if self.found.len() == self.max {
                self.over = true;
                return Err(A::Error::custom("too many messages"));
            }
            self.found.push(line(self.body, message));
        }
        Ok(())
    }
}

/// The text of a message without line breaks, which can only stand between its parts.
fn line(body: &Bytes, message: &RawValue) -> Bytes {
    let text = message.get().as_bytes();
    if memchr::memchr2(b'\r', b'\n', text).is_none() {
        return body.slice_ref(text);
    }
    text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::Invalid(format!("body is not JSON: line {}, column {}", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(body: &str) -> Vec<String> {
        let split = split(&Bytes::copy_from_slice(body.as_bytes()), 100).expect("JSON");
        split.into_iter().map(|message| String::from_utf8(message.to_vec()).expect("text")).collect()
    }

    #[test]
    fn an_array_is_one_message_per_element_and_only_its_first_level() {
        assert_eq!(texts("[1,2]"), ["1", "2"]);
        assert_eq!(texts(" [[1,2],[3]]\n"), ["[1,2]", "[3]"]);
        assert_eq!(texts("[]"), Vec::<String>::new());
        assert_eq!(texts("{\"a\":[1]}"), ["{\"a\":[1]}"]);
        assert_eq!(texts("  null "), ["null"]);
    }

    #[test]
    fn the_text_of_a_message_stays_as_it_was_sent_but_for_line_breaks() {
        let odd = r#"{"b":1.50e+00, "a":"\u0041\/", "a":100000000000000000000000001}"#;
        assert_eq!(texts(&format!("[{odd} , {odd}]")), [odd, odd]);
        assert_eq!(texts("{\r\n  \"a\": \"x\\n\"\n}"), ["{  \"a\": \"x\\n\"}"]);
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_place() {
        for bad in ["", " ", "{", "[1,]", "[1]x", "{} {}", "nul", "[1 2]", "\"\n\"", "\u{feff}1"] {
            let refused = split(&Bytes::copy_from_slice(bad.as_bytes()), 100);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{bad:?}: {refused:?}");
        }
        assert!(matches!(split(&Bytes::from_static(b"\"\xff\""), 100), Err(Error::Invalid(_))));
        let refused = split(&Bytes::from_static(b"[1,\n2,x]"), 100).expect_err("no JSON").to_string();
        assert_eq!(refused, "body is not JSON: line 2, column 3");
    }

    #[test]
    fn more_messages_than_the_limit_are_refused_before_they_are_held() {
        let refused = split(&Bytes::from_static(b"[1,2,3"), 2);
        assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
        assert_eq!(split(&Bytes::from_static(b"[1,2]"), 2).expect("as many as allowed").len(), 2);
    }

    proptest! {
        // Fails when line breaks within strings, or more than line breaks, are left out.
        #[test]
        fn a_message_without_its_line_breaks_has_the_same_value(texts in prop::collection::vec("\\PC{0,8}", 0..5)) {
            let value = serde_json::json!({ "a": texts, "b": [texts.len()] });
            let pretty = serde_json::to_string_pretty(&[&value, &value]).expect("JSON");
            let messages = split(&Bytes::from(pretty), 10).expect("JSON");
            prop_assert_eq!(messages.len(), 2);
            for message in messages {
                prop_assert!(!message.contains(&b'\n'));
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(&message).expect("JSON"), &value);
            }
        }
    }
}
