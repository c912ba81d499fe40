//! Records on their way in and out.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Where the bytes are when a publish is acknowledged. A request may ask for more than its topic's class, not for less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// In the object store, confirmed by it.
    #[default]
    Object,
    /// On the node's local disk, synced; in the object store a moment later. A loss of the node with its disk in that
    /// moment loses the records, and leaves a gap.
    Local,
    /// In the node's memory; in the object store a moment later. A loss of the process in that moment loses the records,
    /// and leaves a gap.
    Memory,
}

/// Where reading begins: `earliest`, `latest`, `offset:N`, `-N` for the last N, `time:<RFC 3339>` or `cursor:<token>`.
#[derive(Debug, ToSchema)]
#[schema(
    pattern = r"^(earliest|latest|offset:[0-9]{1,19}|-[0-9]{1,19}|time:[0-9]{4}-(((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01]))|((0[469]|11)-(0[1-9]|[12][0-9]|30))|(02-(0[1-9]|[12][0-9])))T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])|cursor:[A-Za-z0-9_-]+)$"
)]
pub struct From(pub String);

/// A time such as `20s` or `500ms`, at most 60 s.
#[derive(Debug, ToSchema)]
#[schema(pattern = "^(0|([1-5]?[0-9]|60)s|([1-5]?[0-9]{1,4}|60000)ms|1m)$")]
pub struct Wait(pub String);

/// How the data of an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum EventFormat {
    /// The payload itself; one that is not UTF-8 comes in base64.
    Value,
}

/// A payload of any type: its bytes, as they are.
#[derive(Debug, ToSchema)]
#[schema(format = Binary, min_length = 1)]
pub struct Payload(pub String);

/// A payload that is text.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1)]
pub struct TextPayload(pub String);

/// Batches in the form in which they are stored, one behind the other: `application/vnd.plinth.batch`, docs/format.md,
/// section 8. A publish is one of them.
#[derive(Debug, ToSchema)]
#[schema(format = Binary)]
pub struct StoredBatches(pub String);

/// A batch to publish: `application/vnd.plinth.batch+json`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishBatch<'a> {
    /// At least one record and at most 1,000.
    #[serde(borrow)]
    #[schema(min_items = 1, max_items = 1000)]
    pub records: Vec<PublishRecord<'a>>,
}

/// One record of a batch. At most one of `value`, `text` and `base64` is given; none means an empty payload.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct PublishRecord<'a> {
    /// Chooses the partition: records with the same key are in the same one. At most 1 KiB.
    #[serde(default)]
    pub key: Option<String>,
    /// At most 64 headers and 16 KiB in all.
    #[serde(default)]
    #[schema(value_type = BTreeMap<RecordHeaderName, RecordHeaderValue>)]
    pub headers: BTreeMap<String, String>,
    /// The media type of the payload. Default: JSON for `value`, UTF-8 text for `text`, octets for `base64`.
    #[serde(default)]
    #[schema(pattern = r"^[^\u0000-\u0008\u000a-\u001f\u007f-\u009f]*$")]
    pub content_type: Option<String>,
    /// How long the record is delivered, such as `1h`: readers who come later see a gap. 1 s to 10 years.
    #[serde(default)]
    #[schema(
        pattern = "^([1-9][0-9]{3,10}ms|[1-9][0-9]{0,7}s|[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}h|[1-9][0-9]{0,2}d|[1-9]y|10y)$"
    )]
    pub ttl: Option<String>,
    /// The payload as JSON; stored with the bytes that were sent.
    #[serde(default, borrow, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub value: Option<&'a RawValue>,
    /// The payload as text.
    #[serde(default)]
    pub text: Option<String>,
    /// The payload in base64 (standard alphabet, with padding).
    #[serde(default)]
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$")]
    pub base64: Option<String>,
}

/// The name of a record's header: a token of RFC 9110.
#[derive(Debug, ToSchema)]
#[schema(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
pub struct RecordHeaderName(pub String);

/// The value of a record's header: no control character but a tab.
#[derive(Debug, ToSchema)]
#[schema(pattern = r"^[^\u0000-\u0008\u000a-\u001f\u007f-\u009f]*$")]
pub struct RecordHeaderValue(pub String);

/// The answer to a publish whose records are in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the first record.
    pub offset: u64,
    /// How many records have consecutive offsets from `offset`.
    pub count: u32,
    /// The position after the last of them.
    pub cursor: String,
    /// The server's time of the batch, ms since the Unix epoch.
    pub timestamp: u64,
    /// The durability class that was reached: the one that was asked for, or a stronger one.
    pub durability: Durability,
    /// True when the records were already stored by an earlier request.
    pub duplicate: bool,
}

/// What became of one record of a batch that spans partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PublishResult {
    /// Stored.
    Stored(Receipt),
    /// Refused or unknown.
    Failed {
        /// Why, and what is known.
        problem: crate::error::Problem,
    },
}

/// The answer (207) to a batch that spans partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResults {
    /// One result per record, in the order of the request; `count` is 1 in each.
    pub results: Vec<PublishResult>,
}

/// A record as it is read: `value` where the payload is JSON, `text` where it is textual UTF-8, else `base64`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The place in the partition.
    pub offset: u64,
    /// The server's time of the record, ms since the Unix epoch.
    pub timestamp: u64,
    /// The key, if it has one. Bytes that are not UTF-8 are shown with U+FFFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The headers, if there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The media type of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The payload, when it is JSON; the bytes are those that were published.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub value: Option<Box<RawValue>>,
    /// The payload, when it is textual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The payload in base64, when it is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// A page of records.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordPage {
    /// The records, in order within each partition.
    pub records: Vec<Record>,
    /// The position after them, valid on every transport.
    pub next: String,
    /// True when the page reached the tail of every partition.
    pub caught_up: bool,
    /// Places where records are missing, and where the page went on; left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// A place where reading could not continue and where it went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset that was asked for.
    pub requested: u64,
    /// The offset at which it goes on.
    pub resumed_at: u64,
    /// Why: `lost` (a crash took records of a weaker durability class, or may have), `compacted` (later records of the same
    /// keys have superseded those in a topic with `cleanup: compact`), `expired` (the records are older than their time to
    /// live), and on streams `trimmed`, `above_tail`
    /// or `slow_consumer`.
    pub reason: String,
}

/// A control line of an NDJSON stream; the data of an SSE event of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum Control {
    /// The stream reached the tail of every partition.
    CaughtUp {
        /// The position.
        cursor: String,
    },
    /// Records are missing.
    Gap(Gap),
    /// The server ends the stream; connect again after the given time.
    Goaway {
        /// How long to wait.
        reconnect_in_ms: u64,
        /// Why.
        reason: String,
        /// The position to go on from.
        cursor: String,
    },
    /// The topic is a closed stream, and everything in it was sent: there will be no more records. The connection goes on, until
    /// the topic is deleted.
    Closed {
        /// The topic.
        topic: String,
    },
    /// The topic was deleted; there will be no more records.
    End {
        /// The topic.
        topic: String,
    },
}

/// Only from an object: the derived code would also take an array, with the fields by their place.
impl<'de: 'a, 'a> Deserialize<'de> for PublishRecord<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = PublishRecord<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        PublishRecord::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads a field that is there as `Some`, also when it is `null`: that is a JSON payload like any other.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
