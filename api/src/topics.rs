//! Topics and their settings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{object, present_object};
use crate::records::{Durability, present};

/// The name of a topic: 1 to 255 bytes of `A-Z a-z 0-9 . _ ~ - /`, not starting with `_` or `.`, with no empty level and
/// no `..`. A `/` in it is written `%2F` in a path. `_usage`, `_audit` and `_events` are written by the server, and read with the
/// scope `admin`.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 255,
    pattern = r"^(?!.*(\.\.|//|/$))([A-Za-z0-9~-][A-Za-z0-9._~/-]*|_(usage|audit|events))$"
)]
pub struct TopicName(pub String);

/// A topic's name, or a pattern: `*` is any run without `.` or `/`, `**` anything. None shows a topic that begins with `_`.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 255,
    pattern = r"^(?!.*(\.\.|//|/$|\*{3}))([A-Za-z0-9~*-][A-Za-z0-9._~*/-]*|_(usage|audit|events))$"
)]
pub struct TopicPattern(pub String);

/// What `PUT /v1/topics/{topic}` asks for; what is left out gets its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicRequest {
    /// How many partitions, 1 to 1,024. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1024)]
    pub partitions: Option<u32>,
    /// The durability class. Default `object`. For `local` the node needs a cache directory that can be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// The largest payload of a record, 1 byte to 1 MiB. Default 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_048_576)]
    pub max_record_bytes: Option<u32>,
    /// How much is kept. Default everything.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub retention: Option<Retention>,
    /// What happens to records besides retention. Default `delete`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
}

/// What happens to the records of a topic besides retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    /// Nothing.
    #[default]
    Delete,
    /// Of each key in a partition at least the last record stays; earlier ones vanish in time. A record with an empty payload
    /// deletes its key, and vanishes itself at the earliest 24 hours after the records before it. A record without a key is
    /// refused. Offsets stay: readers get a gap with the reason `compacted`.
    Compact,
}

/// How much of a topic is kept; what is left out is not limited. Records that are no longer kept go within seconds to
/// minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Records that are older go: a time such as `"7d"`, 1 second to 36,500 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^(([1-9][0-9]{0,3}|[12][0-9]{4}|3[0-5][0-9]{3}|36[0-4][0-9]{2}|36500)d|[1-9][0-9]{0,4}h|[1-9][0-9]{0,6}m|[1-9][0-9]{0,8}s|[1-9][0-9]{3,11}ms)$"
    )]
    pub age: Option<String>,
    /// When a partition holds more stored bytes, its oldest records go. The newest publish always stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteCount>,
}

/// How much of a topic is kept, as it is shown.
#[derive(Debug, ToSchema)]
pub struct RetentionShown {
    /// Records that are older go: a time in its largest unit that fits.
    #[schema(pattern = "^[1-9][0-9]{0,12}(d|h|m|s|ms)$")]
    pub age: Option<String>,
    /// When a partition holds more stored bytes, its oldest records go.
    #[schema(value_type = Option<ByteNumber>)]
    pub bytes: Option<u64>,
}

/// A number of bytes, 1 to 2^53-1, or a size with a unit such as `"10GiB"`. Answers have the number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`bytes` must be a number of bytes or a size such as \"10GiB\"")]
pub enum ByteCount {
    /// Bytes.
    #[schema(value_type = ByteNumber)]
    Number(u64),
    /// A number with a unit: `B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB`, `GB` or `TB`.
    #[schema(value_type = ByteText)]
    Text(String),
}

/// A number of bytes.
#[derive(Debug, ToSchema)]
#[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
pub struct ByteNumber(pub u64);

/// A size with a unit.
#[derive(Debug, ToSchema)]
#[schema(
    pattern = "^([1-9][0-9]{0,14}B|[1-9][0-9]{0,11}Ki?B|[1-9][0-9]{0,8}Mi?B|[1-9][0-9]{0,5}Gi?B|([1-9][0-9]{0,2}|[1-7][0-9]{3})Ti?B)$"
)]
pub struct ByteText(pub String);

/// How `PATCH` changes a retention: what is left out stays, `null` takes the limit away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionPatch {
    /// Records that are older go: a time such as `"7d"`, 1 second to 36,500 days.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, pattern = r"^(([1-9][0-9]{0,3}|[12][0-9]{4}|3[0-5][0-9]{3}|36[0-4][0-9]{2}|36500)d|[1-9][0-9]{0,4}h|[1-9][0-9]{0,6}m|[1-9][0-9]{0,8}s|[1-9][0-9]{3,11}ms)$")]
    pub age: Option<Option<String>>,
    /// When a partition holds more stored bytes, its oldest records go. The newest publish always stays.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<ByteCount>)]
    pub bytes: Option<Option<ByteCount>>,
}

/// What `PATCH /v1/topics/{topic}` changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicPatch {
    /// The largest payload of a record from now on, 1 byte to 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_048_576)]
    pub max_record_bytes: Option<u32>,
    /// The durability class from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// How much is kept from now on; `null` keeps everything.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present_object")]
    #[schema(value_type = Option<RetentionPatch>)]
    pub retention: Option<Option<RetentionPatch>>,
    /// What happens to records from now on. Records that are gone do not come back; those without a key stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topic {
    /// The name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// The durability class.
    pub durability: Durability,
    /// The largest payload of a record, in bytes.
    pub max_record_bytes: u32,
    /// How much is kept; without it everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RetentionShown>)]
    pub retention: Option<Retention>,
    /// What happens to records besides retention.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
    /// Stored bytes of all partitions.
    pub bytes: u64,
    /// Records of all partitions. Of a topic that was compacted and trimmed it may be a few less than there are.
    pub records: u64,
    /// Streams that were forked from it and share its records: while there are any, none of these is deleted, whatever its retention.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forks: u32,
    /// What it is as a stream, if it was made as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<TopicStream>,
    /// Per partition; only in the view of one topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_bounds: Vec<PartitionBounds>,
}

/// A topic as the stream that it was made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicStream {
    /// The media type of all that is in it.
    pub content_type: String,
    /// Whether nothing is appended to it any more.
    pub closed: bool,
    /// How long after its last use it ends by itself: a time in its largest unit that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,13}(d|h|m|s|ms)$")]
    pub ttl: Option<String>,
    /// When it ends by itself, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The bounds of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionBounds {
    /// The partition.
    pub partition: u32,
    /// The first offset that is kept.
    pub start: u64,
    /// The next offset to be given.
    pub tail: u64,
    /// Stored bytes that are kept.
    pub bytes: u64,
    /// Whether nothing is appended to it any more: the topic is a closed stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// The place before which records are deleted: an offset, `time:<RFC 3339>` or `latest`.
#[derive(Debug, ToSchema)]
#[schema(
    pattern = r"^([0-9]{1,18}|latest|time:[0-9]{4}-(((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01]))|((0[469]|11)-(0[1-9]|[12][0-9]|30))|(02-(0[1-9]|[12][0-9])))T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$"
)]
pub struct TrimPlace(pub String);

/// The answer to `DELETE /v1/topics/{topic}/records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trimmed {
    /// The topic.
    pub topic: String,
    /// The bounds after it of each partition that was asked for.
    pub partition_bounds: Vec<PartitionBounds>,
}
