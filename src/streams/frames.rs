//! The events of a live stream (WHATWG HTML §9.2), in the bytes that clients of the protocol look for: `data` with what was
//! appended, and after each a `control` that says where the stream is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::headers::gap_text;
use crate::broker::{PageGap, StreamView, Token};
use crate::http::encode::lines;

/// How the data of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Messages, as an array.
    Json,
    /// As it is, line by line. What is not UTF-8 in it is replaced: an event is text.
    Text,
    /// In base64.
    Base64,
}

/// What a control event says.
pub(super) struct Control<'a> {
    pub(super) next: Token,
    /// Where the client is in time; a closed stream has none.
    pub(super) cursor: Option<u64>,
    pub(super) up_to_date: bool,
    pub(super) closed: bool,
    /// Where records are missing before it.
    pub(super) gaps: &'a [PageGap],
}

impl Encoding {
    pub(super) fn of(view: &StreamView) -> Self {
        match (view.is_json, view.is_text) {
            (true, _) => Self::Json,
            (false, true) => Self::Text,
            (false, false) => Self::Base64,
        }
    }

    /// The event of what one append brought.
    pub(super) fn push(self, text: &mut String, payloads: impl Iterator<Item = Bytes>) {
        text.push_str("event: data\n");
        let mut joined = Vec::new();
        for payload in payloads {
            if self == Self::Json {
                joined.push(if joined.is_empty() { b'[' } else { b',' });
            }
            joined.extend_from_slice(&payload);
        }
        match self {
            Self::Json => {
                joined.push(b']');
                push_data(text, &String::from_utf8_lossy(&joined));
            }
            Self::Text => push_data(text, &String::from_utf8_lossy(&joined)),
            Self::Base64 => push_data(text, &STANDARD.encode(&joined)),
        }
        text.push('\n');
    }
}

/// One line per line of `data`. Clients of the protocol look for `data:` without a space behind it; a line that begins with one
/// has another before that, for the first is not data.
fn push_data(text: &mut String, data: &str) {
    for line in lines(data) {
        text.extend(["data:", if line.starts_with(' ') { " " } else { "" }, line, "\n"]);
    }
}

impl Control<'_> {
    /// Writes it on one line, without a brace inside, for clients look for it so.
    pub(super) fn push(&self, text: &mut String) {
        let next = self.next.encode();
        let next = std::str::from_utf8(&next).expect("digits and an underscore");
        text.extend(["event: control\ndata:{\"streamNextOffset\":\"", next, "\""]);
        if let Some(cursor) = self.cursor.filter(|_| !self.closed) {
            text.extend([",\"streamCursor\":\"", &cursor.to_string(), "\""]);
        }
        if self.up_to_date {
            text.push_str(",\"upToDate\":true");
        }
        if self.closed {
            text.push_str(",\"streamClosed\":true");
        }
        for (index, gap) in self.gaps.iter().enumerate() {
            text.extend([if index == 0 { ",\"plinthGaps\":[\"" } else { ",\"" }, &gap_text(gap), "\""]);
        }
        text.push_str(if self.gaps.is_empty() { "}\n\n" } else { "]}\n\n" });
    }
}

#[cfg(test)]
mod tests {
    use plinth_storage::ids::Offset;

    use super::*;

    fn data(encoding: Encoding, payloads: &[&'static [u8]]) -> String {
        let mut text = String::new();
        encoding.push(&mut text, payloads.iter().map(|payload| Bytes::from_static(payload)));
        text
    }

    #[test]
    fn what_was_appended_is_one_event_of_lines_that_can_stand_in_one() {
        assert_eq!(data(Encoding::Json, &[b"1", b"{\"a\":\n2}"]), "event: data\ndata:[1,{\"a\":\ndata:2}]\n\n");
        assert_eq!(data(Encoding::Text, &[b"a\r\nb", b"\rc"]), "event: data\ndata:a\ndata:b\ndata:c\n\n");
        assert_eq!(
            data(Encoding::Text, &[b"\xc3", b"\xa4"]),
            "event: data\ndata:\u{e4}\n\n",
            "a character in two pieces"
        );
        assert_eq!(
            data(Encoding::Text, &[b"x\n\nevent: control"]),
            "event: data\ndata:x\ndata:\ndata:event: control\n\n"
        );
        assert_eq!(
            data(Encoding::Text, &[b" the", b" cat\n sat"]),
            "event: data\ndata:  the cat\ndata:  sat\n\n",
            "no space is lost"
        );
        assert_eq!(data(Encoding::Base64, &[b"\xff", b"\x00"]), "event: data\ndata:/wA=\n\n");
    }

    #[test]
    fn a_control_event_says_where_the_stream_is_and_whether_it_ends_there() {
        let next = Token::new(7, Offset(3));
        let at = "0000000000007000_0000000000030000";
        let control = |cursor, up_to_date, closed, gaps: &[PageGap]| {
            let mut text = String::new();
            Control { next, cursor, up_to_date, closed, gaps }.push(&mut text);
            text
        };
        let says = |rest: &str| format!("event: control\ndata:{{\"streamNextOffset\":\"{at}\"{rest}}}\n\n");
        assert_eq!(control(Some(9), false, false, &[]), says(r#","streamCursor":"9""#));
        assert_eq!(control(Some(9), true, false, &[]), says(r#","streamCursor":"9","upToDate":true"#));
        assert_eq!(control(Some(9), true, true, &[]), says(r#","upToDate":true,"streamClosed":true"#));
        let gap = |requested| PageGap { topic: "t".into(), partition: 0, requested, resumed_at: 3, reason: "lost" };
        let gaps =
            r#","plinthGaps":["requested=1; resumed_at=3; reason=lost","requested=2; resumed_at=3; reason=lost"]"#;
        assert_eq!(control(None, false, false, &[gap(1), gap(2)]), says(gaps));
    }
}
