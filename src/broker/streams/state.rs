//! Messages of the state protocol, which sync engines speak over streams: a change or a control of a collection, told by
//! `headers.operation` or `headers.control`. A reader gets with each, as `headers.offset`, where it goes on after it.
//!
//! It is put into the text as it is sent: what is stored stays as it was appended, and all else in a message, too. Names
//! that are written with escapes do not count.

use bytes::Bytes;
use memchr::memmem;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::token::Token;

/// What in a message says that it is one of the state protocol.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    headers: &'a RawValue,
}

#[derive(Deserialize)]
struct Headers<'a> {
    #[serde(borrow)]
    operation: Option<&'a RawValue>,
    #[serde(borrow)]
    control: Option<&'a RawValue>,
    /// What the writer gave, which is not a position in this stream; also `null`.
    #[serde(borrow, default, deserialize_with = "as_it_is")]
    offset: Option<&'a RawValue>,
}

fn as_it_is<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// The message with the position after it, if it is one of the state protocol; else as it is.
pub(super) fn with_offset(message: Bytes, after: impl FnOnce() -> Token) -> Bytes {
    let Some((start, end, is_there)) = place_of_offset(&message) else { return message };
    let token = after().encode();
    let (before, behind): (&[u8], &[u8]) = if is_there { (b"\"", b"\"") } else { (b"\"offset\":\"", b"\",") };
    [&message[..start], before, &token, behind, &message[end..]].concat().into()
}

/// From where to where the offset is written, and whether one stands there.
fn place_of_offset(message: &[u8]) -> Option<(usize, usize, bool)> {
    memmem::find(message, b"\"headers\"")?;
    let headers = serde_json::from_slice::<Message<'_>>(message).ok().filter(|_| is_object(message))?.headers;
    let Headers { operation, control, offset } =
        serde_json::from_str(headers.get()).ok().filter(|_| is_object(headers.get().as_bytes()))?;
    let is_text = |value: Option<&RawValue>| value.is_some_and(|value| value.get().starts_with('"'));
    if !is_text(operation) && !is_text(control) {
        return None;
    }
    let place = |part: &RawValue| part.get().as_ptr().addr() - message.as_ptr().addr();
    Some(match offset {
        Some(given) => (place(given), place(given) + given.get().len(), true),
        None => (place(headers) + 1, place(headers) + 1, false),
    })
}

/// An array would be read as an object's members in their order.
fn is_object(json: &[u8]) -> bool {
    json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use plinth_storage::ids::Offset;

    use super::*;

    const TOKEN: &str = "0000000000007000_0000000000030000";

    fn read(message: &str) -> String {
        let message = with_offset(Bytes::copy_from_slice(message.as_bytes()), || Token::new(7, Offset(3)));
        String::from_utf8(message.to_vec()).expect("text")
    }

    // Fails when all else in the message is not left as it was.
    #[test]
    fn a_change_and_a_control_are_read_with_the_position_after_them() {
        assert_eq!(
            read(r#" {"value":{"n":1.50e+00},"headers": { "operation":"insert"},"key":"\u0041"}"#),
            format!(
                r#" {{"value":{{"n":1.50e+00}},"headers": {{"offset":"{TOKEN}", "operation":"insert"}},"key":"\u0041"}}"#
            )
        );
        assert_eq!(
            read(r#"{"headers":{"control":"reset"}}"#),
            format!(r#"{{"headers":{{"offset":"{TOKEN}","control":"reset"}}}}"#)
        );
    }

    #[test]
    fn an_offset_that_the_writer_gave_is_replaced() {
        for given in ["\"x\"", "12", "null", "{\"a\":[1]}"] {
            let message = format!(r#"{{"headers":{{"operation":"upsert","offset":{given},"txid":"1"}}}}"#);
            assert_eq!(
                read(&message),
                format!(r#"{{"headers":{{"operation":"upsert","offset":"{TOKEN}","txid":"1"}}}}"#)
            );
        }
    }

    #[test]
    fn any_other_message_is_read_as_it_was_appended() {
        for other in [
            "1",
            "\"headers\"",
            r#"["headers"]"#,
            r#"[{"operation":"insert"}]"#,
            r#"{"headers":[{"a":1},"operation"]}"#,
            r#"{"headers":["insert"]}"#,
            r#"{"headers":"operation"}"#,
            r#"{"headers":null}"#,
            r#"{"headers":{}}"#,
            r#"{"headers":{"operation":1,"control":{"operation":"x"}}}"#,
            r#"{"value":{"headers":{"operation":"insert"}}}"#,
        ] {
            assert_eq!(read(other), other);
        }
    }
}
