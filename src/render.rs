//! Stored batches as the JSON text that clients read, made once and shared by all followers of all transports.
//!
//! The text of a batch is one `Bytes` of lines, `{..}\n{..}\n`, so that NDJSON, one record and (with commas for line
//! ends) the items of an array are slices of it. A payload of a JSON type that is JSON stands in it byte for byte; one
//! with a line break in it, which would end an NDJSON line or an SSE field, or nested so deep that clients refuse it,
//! comes as `text`. The cache is bounded in bytes. A record is written without a serializer: this is most of what a reader
//! who catches up costs.

mod json;
mod stream;

use std::borrow::Cow;
use std::hash::Hash;
use std::io::Write;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use plinth_storage::ids::{Offset, Partition, TenantId};
use plinth_storage::record::{RecordRef, StoredBatch};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use self::json::{is_json, plain};
pub use self::stream::EventData;
use self::stream::Texts;
pub(crate) use self::stream::{StreamForm, StreamKey, event, joined, lines};
use crate::broker::cursor::CursorKey;

/// Deepest nesting of a payload that is embedded as JSON; many parsers stop at 128.
const JSON_DEPTH_MAX: usize = 100;
/// About how many bytes the envelope of a record takes besides what all records of the batch begin with.
const ENVELOPE_BYTES: usize = 64;
/// About how many bytes an SSE event takes beyond the record.
const SSE_EVENT_BYTES: usize = 120;
/// This part of what is kept is for texts of streams.
const STREAM_SHARE: u64 = 4;

/// What the text says about each record beside the record itself, and how its cursors are made.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) cursors: CursorKey,
    pub(crate) tenant: TenantId,
    pub(crate) partition: Partition,
}

/// A batch as text.
pub struct Rendered {
    /// The offset of the first record.
    pub base: u64,
    /// How many records.
    pub count: u32,
    scene: Scene,
    lines: Text,
    /// The lines with a comma for each line end.
    items: OnceLock<Bytes>,
    named_events: OnceLock<Text>,
    unnamed_events: OnceLock<Text>,
}

/// Batches that were rendered lately.
pub(crate) struct RenderCache {
    rendered: Cache<(Partition, Offset), Arc<Rendered>, ByBytes>,
    of_streams: Texts,
}

/// Text of one piece per record.
struct Text {
    bytes: Bytes,
    /// Where each piece ends.
    ends: Vec<usize>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<(Partition, Offset), Arc<Rendered>> for ByBytes {
    /// The lines and the three forms that may be made from them later.
    fn weight(&self, _key: &(Partition, Offset), rendered: &Arc<Rendered>) -> u64 {
        let per_record = 4 * size_of::<usize>() + 2 * SSE_EVENT_BYTES;
        (4 * rendered.lines.bytes.len() + per_record * rendered.lines.ends.len() + size_of::<Rendered>()) as u64
    }
}

impl RenderCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let of_streams = bytes_max / STREAM_SHARE;
        Self { rendered: cache_of(bytes_max - of_streams, ByBytes), of_streams: stream::texts(of_streams) }
    }

    /// What was appended to a stream, in a form of it, as `make` makes it. It is kept for others when `keep`, which those who
    /// read old batches once do not ask for.
    pub(crate) fn of_stream(&self, key: &StreamKey, keep: bool, make: impl FnOnce() -> Bytes) -> Bytes {
        stream::text_of(&self.of_streams, key, keep, make)
    }

    /// The batch as text. It is kept for others when `keep`, which those who read old batches once do not ask for.
    pub(crate) fn render(&self, topic: &str, scene: &Scene, batch: &StoredBatch, keep: bool) -> Arc<Rendered> {
        let key = (scene.partition, batch.base);
        if !keep {
            return self.rendered.peek(&key).unwrap_or_else(|| Arc::new(Rendered::new(topic, scene, batch)));
        }
        let made = self.rendered.get_or_insert_with(&key, || {
            Ok::<_, std::convert::Infallible>(Arc::new(Rendered::new(topic, scene, batch)))
        });
        match made {
            Ok(rendered) => rendered,
            Err(never) => match never {},
        }
    }
}

/// A cache of so many bytes, as `weighter` counts them.
fn cache_of<K: Eq + Hash, V: Clone, W: Weighter<K, V> + Clone>(bytes_max: u64, weighter: W) -> Cache<K, V, W> {
    // Weights are far apart; the number of items is only a first guess for the size of the tables. One shard: what is
    // larger than a shard is not kept, and every follower would make a copy of its own.
    let options = OptionsBuilder::new()
        .estimated_items_capacity(1_000)
        .weight_capacity(bytes_max)
        .shards(1)
        .build()
        .expect("a number of items and a weight are all that it needs");
    let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Cache::with_options(options, weighter, hasher, lifecycle)
}

impl Rendered {
    pub(crate) fn new(topic: &str, scene: &Scene, batch: &StoredBatch) -> Self {
        let count = batch.batch.count();
        let mut head = Vec::with_capacity(64);
        head.extend_from_slice(b"{\"topic\":");
        push_string(&mut head, topic);
        push(&mut head, format_args!(",\"partition\":{},\"offset\":", scene.partition.index.0));
        let timestamp = format!(",\"timestamp\":{}", batch.timestamp.0);
        // What is to be escaped or encoded is rare enough for an eighth.
        let envelope = head.len() + timestamp.len() + ENVELOPE_BYTES;
        let mut out = Vec::with_capacity(batch.batch.len() + batch.batch.len() / 8 + envelope * count as usize);
        let mut ends = Vec::with_capacity(count as usize);
        let mut number = itoa::Buffer::new();
        for record in batch.record_refs() {
            out.extend_from_slice(&head);
            out.extend_from_slice(number.format(record.offset.0).as_bytes());
            out.extend_from_slice(timestamp.as_bytes());
            push_fields(&mut out, &record);
            push_payload(&mut out, &record);
            out.extend_from_slice(b"}\n");
            ends.push(out.len());
        }
        Self {
            base: batch.base.0,
            count,
            scene: scene.clone(),
            lines: Text { bytes: out.into(), ends },
            items: OnceLock::new(),
            named_events: OnceLock::new(),
            unnamed_events: OnceLock::new(),
        }
    }

    /// Record `index` of the batch.
    #[must_use]
    pub fn record_json(&self, index: u32) -> Bytes {
        let line = self.lines.pieces(index, 1);
        line.slice(..line.len() - 1)
    }

    /// `take` records from `skip` on, each with a line end.
    #[must_use]
    pub fn ndjson(&self, skip: u32, take: u32) -> Bytes {
        self.lines.pieces(skip, take)
    }

    /// `take` records from `skip` on with commas between them, without brackets.
    #[must_use]
    pub fn json_items(&self, skip: u32, take: u32) -> Bytes {
        match take {
            0 => Bytes::new(),
            1 => self.record_json(skip),
            _ => {
                let range = self.lines.range(skip, take);
                self.items.get_or_init(|| self.with_commas()).slice(range.start..range.end - 1)
            }
        }
    }

    /// `take` records from `skip` on as SSE events, each with the cursor after it in this one partition as its id;
    /// `named` ones have `event: record`.
    #[must_use]
    pub fn sse(&self, skip: u32, take: u32, named: bool) -> Bytes {
        let text = if named { &self.named_events } else { &self.unnamed_events };
        text.get_or_init(|| self.events(named)).pieces(skip, take)
    }

    fn with_commas(&self) -> Bytes {
        let mut items = self.lines.bytes.to_vec();
        for &end in &self.lines.ends {
            items[end - 1] = b',';
        }
        items.into()
    }

    fn events(&self, named: bool) -> Text {
        let count = self.lines.ends.len();
        let mut out = Vec::with_capacity(self.lines.bytes.len() + SSE_EVENT_BYTES * count);
        let mut ends = Vec::with_capacity(count);
        for index in 0..self.count {
            let next = Offset(self.base).plus(index + 1);
            let cursor = self.scene.cursors.write(self.scene.tenant, [(self.scene.partition, next)]);
            push_event(&mut out, &cursor, named, &self.lines.pieces(index, 1));
            ends.push(out.len());
        }
        Text { bytes: out.into(), ends }
    }
}

impl Text {
    fn range(&self, skip: u32, take: u32) -> std::ops::Range<usize> {
        let end_of = |pieces: usize| if pieces == 0 { 0 } else { self.ends[pieces - 1] };
        end_of(skip as usize)..end_of(skip as usize + take as usize)
    }

    fn pieces(&self, skip: u32, take: u32) -> Bytes {
        self.bytes.slice(self.range(skip, take))
    }
}

/// Writes one SSE event; `line` is a record with its line end.
pub(crate) fn push_event(out: &mut Vec<u8>, cursor: &str, named: bool, line: &[u8]) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(cursor.as_bytes());
    out.extend_from_slice(if named { b"\nevent: record\ndata: " } else { b"\ndata: " });
    out.extend_from_slice(line);
    out.push(b'\n');
}

fn push_fields(out: &mut Vec<u8>, record: &RecordRef<'_>) {
    if let Some(key) = record.key {
        out.extend_from_slice(b",\"key\":");
        push_string(out, &lossy(key));
    }
    let mut headers = record.headers().peekable();
    if headers.peek().is_some() {
        out.extend_from_slice(b",\"headers\":");
        for (place, (name, value)) in headers.enumerate() {
            out.push(if place == 0 { b'{' } else { b',' });
            push_string(out, &lossy(name));
            out.push(b':');
            push_string(out, &lossy(value));
        }
        out.push(b'}');
    }
    if !record.content_type.is_empty() {
        out.extend_from_slice(b",\"content_type\":");
        push_string(out, &lossy(record.content_type));
    }
}

fn push_payload(out: &mut Vec<u8>, record: &RecordRef<'_>) {
    let payload = record.payload;
    let form = Form::of(record.content_type);
    let text = match form {
        Form::Json | Form::Text => std::str::from_utf8(payload).ok(),
        Form::Octets => None,
    };
    match text {
        Some(text) if form == Form::Json && can_embed(text) => {
            out.extend_from_slice(b",\"value\":");
            out.extend_from_slice(payload);
        }
        Some(text) => {
            out.extend_from_slice(b",\"text\":");
            push_string(out, text);
        }
        None => {
            out.extend_from_slice(b",\"base64\":\"");
            let begin = out.len();
            out.resize(begin + base64::encoded_len(payload.len(), true).expect("a payload is far below the bound"), 0);
            let written = STANDARD.encode_slice(payload, &mut out[begin..]).expect("room was made for all of it");
            out.truncate(begin + written);
            out.push(b'"');
        }
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Text,
    Octets,
}

impl Form {
    fn of(content_type: &[u8]) -> Self {
        let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        if essence == b"application/json" {
            return Self::Json;
        }
        let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
        let begins = |with: &str| essence.get(..with.len()).is_some_and(|b| b.eq_ignore_ascii_case(with.as_bytes()));
        let suffix = essence.iter().rposition(|&byte| byte == b'+').map_or(&[][..], |place| &essence[place..]);
        let ends = |with: &str| suffix.eq_ignore_ascii_case(with.as_bytes());
        if is("application/json") || ends("+json") {
            return Self::Json;
        }
        let textual = begins("text/") || ends("+xml") || ends("+yaml") || TEXTUAL.iter().any(|name| is(name));
        if textual { Self::Text } else { Self::Octets }
    }
}

const TEXTUAL: [&str; 7] = [
    "application/xml",
    "application/x-www-form-urlencoded",
    "application/javascript",
    "application/x-ndjson",
    "application/yaml",
    "application/toml",
    "application/graphql",
];

/// Whether `text` is one JSON value that may stand in a line of JSON.
fn can_embed(text: &str) -> bool {
    memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() && is_json(text, JSON_DEPTH_MAX)
}

/// A JSON string, escaped where it must be and as `serde_json` does it.
fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (as_it_is, special) = rest.split_at(plain(rest));
        out.extend_from_slice(as_it_is);
        let Some((&byte, after)) = special.split_first() else { break };
        push_escape(out, byte);
        rest = after;
    }
    out.push(b'"');
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        other => return push(out, format_args!("\\u{other:04x}")),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests;
