//! Topics and their settings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::records::Durability;

/// The name of a topic: 1 to 255 bytes of `A-Z a-z 0-9 . _ ~ - /`, not starting with `_` or `.`, with no empty level and
/// no `..`. A `/` in it is written `%2F` in a path.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 255, pattern = r"^(?!.*(\.\.|//|/$))[A-Za-z0-9~-][A-Za-z0-9._~/-]*$")]
pub struct TopicName(pub String);

/// A topic's name, or a pattern: `*` is any run without `.` or `/`, `**` anything.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 255, pattern = r"^(?!.*(\.\.|//|/$|\*{3}))[A-Za-z0-9~*-][A-Za-z0-9._~*/-]*$")]
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
    /// When it was made, ms since the Unix epoch.
    pub created_at: u64,
    /// Stored bytes of all partitions.
    pub bytes: u64,
    /// Records of all partitions.
    pub records: u64,
    /// Per partition; only in the view of one topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_bounds: Vec<PartitionBounds>,
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
    /// Stored bytes.
    pub bytes: u64,
}
