//! The text of a live stream: lines of JSON, or server-sent events (WHATWG HTML §9.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use plinth_api::records::Control;

use crate::broker::{FollowedBatch, Follower};
use crate::render::lines;

/// How long a browser waits before it comes back after a broken connection.
const RETRY_MS: u64 = 2_000;

/// How the stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoder {
    /// One JSON object per line.
    Ndjson,
    /// Server-sent events.
    Events {
        /// Records are events of the name `record`; else they have none.
        named: bool,
        /// The data of a record is its payload; else its JSON form.
        value: bool,
    },
}

impl Encoder {
    /// What is sent at once: it shows the client, and every proxy between, that the stream is open; and `cursor`, where
    /// it begins. A client that is cut off before the first event comes back there: `latest` would be another place then.
    pub(super) fn preamble(self, cursor: &str) -> Bytes {
        match self {
            Self::Ndjson => Bytes::from_static(b"\n"),
            Self::Events { .. } => Bytes::from(format!("retry: {RETRY_MS}\nid: {cursor}\n: open\n\n")),
        }
    }

    /// What is sent so that a silent stream is not taken for a broken one.
    pub(super) fn heartbeat(self) -> Bytes {
        match self {
            Self::Ndjson => Bytes::from_static(b"\n"),
            Self::Events { .. } => Bytes::from_static(b":\n\n"),
        }
    }

    /// Records. Followers of the same partition share the bytes, except for bare values.
    pub(super) fn records(self, follower: &Follower, batch: &FollowedBatch) -> Bytes {
        match self {
            Self::Ndjson => detached(batch, batch.ndjson()),
            Self::Events { named, value: false } => detached(batch, follower.sse(batch, named)),
            Self::Events { named, value: true } => {
                let mut text = String::with_capacity(batch.bytes() + 128 * batch.count() as usize);
                for (payload, taken) in batch.payloads().zip(1..) {
                    push_event(&mut text, named.then_some("record"), &follower.cursor_after(batch, taken), &payload);
                }
                Bytes::from(text)
            }
        }
    }

    /// A control event; `cursor` is where the stream is, empty if that is not known.
    pub(super) fn control(self, control: &Control, cursor: &str) -> Bytes {
        let json = serde_json::to_string(control).expect("plain strings and numbers");
        match self {
            Self::Ndjson => Bytes::from(json + "\n"),
            Self::Events { .. } => {
                let mut text = String::new();
                if let Control::Goaway { reconnect_in_ms, .. } = control {
                    text.push_str(&format!("retry: {reconnect_in_ms}\n"));
                }
                push_event(&mut text, Some(event_name(control)), cursor, json.as_bytes());
                Bytes::from(text)
            }
        }
    }
}

/// Text of a batch that holds little more than itself in memory while it is sent: a small part of a large batch is copied.
fn detached(batch: &FollowedBatch, text: Bytes) -> Bytes {
    if 2 * text.len() as u64 >= batch.pinned_bytes() { text } else { Bytes::copy_from_slice(&text) }
}

fn event_name(control: &Control) -> &'static str {
    match control {
        Control::CaughtUp { .. } => "caught_up",
        Control::Gap(_) => "gap",
        Control::Goaway { .. } => "goaway",
        Control::Closed { .. } => "closed",
        Control::End { .. } => "end",
    }
}

/// One event. An empty `id` is left out: it would make the client forget where it was.
fn push_event(text: &mut String, name: Option<&str>, id: &str, data: &[u8]) {
    if !id.is_empty() {
        text.extend(["id: ", id, "\n"]);
    }
    if let Some(name) = name {
        text.extend(["event: ", name, "\n"]);
    }
    match std::str::from_utf8(data) {
        Ok(data) => push_data(text, data),
        Err(_) => push_data(text, &STANDARD.encode(data)),
    }
    text.push('\n');
}

/// One `data:` line per line of `data`; the client puts them together again with LF.
fn push_data(text: &mut String, data: &str) {
    for line in lines(data) {
        text.extend(["data: ", line, "\n"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: Encoder = Encoder::Events { named: true, value: true };

    fn data(text: &str) -> String {
        let mut lines = String::new();
        push_data(&mut lines, text);
        lines
    }

    #[test]
    fn a_value_of_several_lines_has_one_data_line_for_each() {
        assert_eq!(data("one"), "data: one\n");
        assert_eq!(data(""), "data: \n");
        assert_eq!(data("a\nb"), "data: a\ndata: b\n");
        assert_eq!(data("a\r\nb\rc\n\nd\n"), "data: a\ndata: b\ndata: c\ndata: \ndata: d\ndata: \n");
        assert_eq!(data("\r\n"), "data: \ndata: \n");
        assert_eq!(data("ä\nö"), "data: ä\ndata: ö\n");
    }

    #[test]
    fn a_value_cannot_forge_another_field_of_the_event() {
        let mut text = String::new();
        push_event(&mut text, None, "c1", b"x\n\nid: forged\revent: end");
        assert_eq!(text, "id: c1\ndata: x\ndata: \ndata: id: forged\ndata: event: end\n\n");
    }

    #[test]
    fn a_value_that_is_not_utf_8_comes_in_base64() {
        let mut text = String::new();
        push_event(&mut text, Some("record"), "c1", b"\xff\x00");
        assert_eq!(text, "id: c1\nevent: record\ndata: /wA=\n\n");
    }

    #[test]
    fn a_goaway_says_when_to_come_back_and_from_where() {
        let goaway =
            Control::Goaway { reconnect_in_ms: 700, reason: "shutting_down".to_owned(), cursor: "c1".to_owned() };
        let json = r#"{"control":"goaway","reconnect_in_ms":700,"reason":"shutting_down","cursor":"c1"}"#;
        assert_eq!(EVENTS.control(&goaway, "c1"), format!("retry: 700\nid: c1\nevent: goaway\ndata: {json}\n\n"));
        assert_eq!(Encoder::Ndjson.control(&goaway, "c1"), format!("{json}\n"));
    }

    #[test]
    fn an_unknown_position_does_not_make_the_client_forget_its_own() {
        let end = Control::End { topic: "t".to_owned() };
        assert_eq!(EVENTS.control(&end, ""), "event: end\ndata: {\"control\":\"end\",\"topic\":\"t\"}\n\n");
    }
}
