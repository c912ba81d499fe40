//! What was appended to a stream at once, as readers of the stream get it: one event (WHATWG HTML §9.2), or the bytes alone.
//!
//! Who follows a stream gets what all others get; only where each is in it differs. So this is made once, and shared.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use plinth_storage::ids::{Offset, Partition};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::cache_of;

/// What an entry costs in memory besides its text.
const ENTRY_BYTES: usize = 160;
/// About how many bytes an event has besides the data.
const EVENT_BYTES: usize = 32;

/// How the data of a stream are written in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventData {
    /// Messages, as an array.
    Json,
    /// As it is, line by line. What is not UTF-8 in it is replaced: an event is text.
    Text,
    /// In base64.
    Base64,
}

/// A form of what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamForm {
    /// One after the other; messages with commas between them.
    Joined,
    /// An event of the name `data`.
    Event(EventData),
}

/// Which records, in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(crate) partition: Partition,
    pub(crate) base: Offset,
    pub(crate) count: u32,
    pub(crate) form: StreamForm,
}

/// What was made lately.
pub(super) type Texts = Cache<StreamKey, Bytes, ByText>;

#[derive(Clone)]
pub(super) struct ByText;

impl Weighter<StreamKey, Bytes> for ByText {
    fn weight(&self, _key: &StreamKey, text: &Bytes) -> u64 {
        (text.len() + ENTRY_BYTES) as u64
    }
}

pub(super) fn texts(bytes_max: u64) -> Texts {
    cache_of(bytes_max, ByText)
}

/// The text of `key` out of `texts`, or as it is made; then it is kept for others when `keep`.
pub(super) fn text_of(texts: &Texts, key: &StreamKey, keep: bool, make: impl FnOnce() -> Bytes) -> Bytes {
    if !keep {
        return texts.peek(key).unwrap_or_else(make);
    }
    match texts.get_or_insert_with(key, || Ok::<_, std::convert::Infallible>(make())) {
        Ok(text) => text,
        Err(never) => match never {},
    }
}

/// Payloads one after the other, with commas between messages.
pub(crate) fn joined(is_json: bool, payloads: impl Iterator<Item = Bytes>, bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(bytes);
    join(&mut out, is_json, payloads);
    out.into()
}

/// The event of payloads that have about so many bytes.
pub(crate) fn event(data: EventData, payloads: impl Iterator<Item = Bytes>, bytes: usize) -> Bytes {
    let joined = match data {
        EventData::Json => {
            let mut array = Vec::with_capacity(bytes + 2);
            array.push(b'[');
            join(&mut array, true, payloads);
            array.push(b']');
            array
        }
        EventData::Text | EventData::Base64 => {
            let mut whole = Vec::with_capacity(bytes);
            join(&mut whole, false, payloads);
            whole
        }
    };
    match data {
        EventData::Json | EventData::Text => event_of(&String::from_utf8_lossy(&joined)),
        EventData::Base64 => event_of(&STANDARD.encode(&joined)),
    }
}

fn join(out: &mut Vec<u8>, is_json: bool, payloads: impl Iterator<Item = Bytes>) {
    for (place, payload) in payloads.enumerate() {
        if is_json && place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&payload);
    }
}

/// One line per line of `data`. Clients of the protocol look for `data:` without a space behind it; a line that begins with one
/// has another before that, for the first is not data.
fn event_of(data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + EVENT_BYTES);
    text.push_str("event: data\n");
    for line in lines(data) {
        text.extend(["data:", if line.starts_with(' ') { " " } else { "" }, line, "\n"]);
    }
    text.push('\n');
    text.into()
}

/// The lines of `data`, which end in CR, LF or both, as an event has to show them; at least one.
pub(crate) fn lines(data: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let whole = rest?;
        let end = memchr::memchr2(b'\r', b'\n', whole.as_bytes());
        rest = end.map(|end| whole[end..].strip_prefix("\r\n").unwrap_or(&whole[end + 1..]));
        Some(&whole[..end.unwrap_or(whole.len())])
    })
}

#[cfg(test)]
mod tests {
    use plinth_storage::ids::{PartitionIndex, TopicId};
    use ulid::Ulid;

    use super::*;

    fn data(data: EventData, payloads: &[&'static [u8]]) -> String {
        let text = event(data, payloads.iter().map(|payload| Bytes::from_static(payload)), 0);
        String::from_utf8(text.to_vec()).expect("an event is text")
    }

    #[test]
    fn what_was_appended_is_one_event_of_lines_that_can_stand_in_one() {
        assert_eq!(data(EventData::Json, &[b"1", b"{\"a\":\n2}"]), "event: data\ndata:[1,{\"a\":\ndata:2}]\n\n");
        assert_eq!(data(EventData::Text, &[b"a\r\nb", b"\rc"]), "event: data\ndata:a\ndata:b\ndata:c\n\n");
        assert_eq!(
            data(EventData::Text, &[b"\xc3", b"\xa4"]),
            "event: data\ndata:\u{e4}\n\n",
            "a character in two pieces"
        );
        assert_eq!(
            data(EventData::Text, &[b"x\n\nevent: control"]),
            "event: data\ndata:x\ndata:\ndata:event: control\n\n"
        );
        assert_eq!(
            data(EventData::Text, &[b" the", b" cat\n sat"]),
            "event: data\ndata:  the cat\ndata:  sat\n\n",
            "no space is lost"
        );
        assert_eq!(data(EventData::Base64, &[b"\xff", b"\x00"]), "event: data\ndata:/wA=\n\n");
    }

    #[test]
    fn messages_are_joined_with_commas_and_bytes_are_not() {
        let payloads = || [Bytes::from_static(b"1"), Bytes::from_static(b"2")].into_iter();
        assert_eq!(joined(true, payloads(), 3), "1,2");
        assert_eq!(joined(false, payloads(), 2), "12");
    }

    fn key(base: u64, count: u32, form: StreamForm) -> StreamKey {
        let partition = Partition { topic: TopicId(Ulid::from_parts(3, 4)), index: PartitionIndex(0) };
        StreamKey { partition, base: Offset(base), count, form }
    }

    // Fails when a part of what is told apart is left out of the key.
    #[test]
    fn only_the_same_records_in_the_same_form_share_a_text() {
        let texts = texts(1 << 20);
        let event = StreamForm::Event(EventData::Text);
        let keys = [key(0, 1, event), key(0, 2, event), key(1, 1, event), key(0, 1, StreamForm::Joined)];
        for _ in 0..2 {
            for (place, key) in keys.iter().enumerate() {
                assert_eq!(text_of(&texts, key, true, || place.to_string().into()), place.to_string());
            }
        }
        let never = || panic!("it is there");
        assert_eq!(text_of(&texts, &keys[0], false, never), "0", "who reads once has what others made");
        let other = key(9, 1, event);
        assert_eq!(text_of(&texts, &other, false, || "a".into()), "a");
        assert_eq!(text_of(&texts, &other, true, || "b".into()), "b", "what was read once was not kept");
    }

    // Fails when the weight of a text is not its size.
    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let texts = texts(1 << 20);
        for base in 0..1_000 {
            text_of(&texts, &key(base, 1, StreamForm::Joined), true, || vec![b'x'; 4096].into());
        }
        assert!(texts.weight() <= 1 << 20 && texts.len() <= 256, "{} in {}", texts.weight(), texts.len());
    }
}
