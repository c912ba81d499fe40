//! The events of a live stream (WHATWG HTML §9.2), in the bytes that clients of the protocol look for: `data` with what was
//! appended, which followers share, and after each a `control` that says where the stream is.

use super::headers::gap_text;
use crate::broker::{PageGap, StreamView, Token};
use crate::render::EventData;

/// About how many bytes a control event without gaps has.
pub(super) const CONTROL_BYTES: usize = 160;

/// How the data of a stream are written.
pub(super) fn data_of(view: &StreamView) -> EventData {
    match (view.is_json, view.is_text) {
        (true, _) => EventData::Json,
        (false, true) => EventData::Text,
        (false, false) => EventData::Base64,
    }
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
