//! The media type of a stream: kept as it was given, compared by its type and subtype.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

/// The media type of what does not say it.
pub(in crate::broker) const DEFAULT_MEDIA_TYPE: &str = "application/octet-stream";

/// Of topics that were not made as streams.
static DEFAULT: LazyLock<Media> = LazyLock::new(|| Media::new(DEFAULT_MEDIA_TYPE));

/// A media type.
#[derive(Debug)]
pub(in crate::broker) struct Media {
    text: Arc<str>,
    /// The same, as records hold it.
    bytes: Bytes,
    is_json: bool,
    is_text: bool,
}

impl Media {
    pub(in crate::broker) fn new(text: &str) -> Self {
        let essence = essence(text);
        let is_text = essence.get(..5).is_some_and(|kind| kind.eq_ignore_ascii_case("text/"));
        Self {
            text: text.into(),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            is_json: essence.eq_ignore_ascii_case("application/json"),
            is_text,
        }
    }

    /// The one of topics that do not have one.
    pub(in crate::broker) fn default_one() -> &'static Self {
        &DEFAULT
    }

    /// As it was given.
    pub(in crate::broker) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// As it was given.
    pub(in crate::broker) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the stream is a list of JSON messages.
    pub(in crate::broker) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether it is text, so that no character is to be cut in two.
    pub(in crate::broker) fn is_text(&self) -> bool {
        self.is_text
    }

    /// Whether the other is the same type and subtype: parameters do not count, nor does the case of letters.
    pub(in crate::broker) fn matches(&self, other: &[u8]) -> bool {
        *other == *self.bytes
            || std::str::from_utf8(other).is_ok_and(|other| essence(&self.text).eq_ignore_ascii_case(essence(other)))
    }
}

fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_without_parameters_and_case() {
        let json = Media::new("Application/JSON; charset=utf-8");
        assert!(json.is_json() && !json.is_text());
        for same in ["application/json", "application/json;charset=x", " APPLICATION/json ;a=b"] {
            assert!(json.matches(same.as_bytes()), "{same}");
        }
        for other in ["", "application/jsonl", "application/ld+json", "text/json"] {
            assert!(!json.matches(other.as_bytes()), "{other}");
        }
        assert!(Media::new("TEXT/plain").is_text() && !Media::new("text").is_text());
    }
}
