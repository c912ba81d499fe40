//! Streams by the protocol of Durable Streams: a topic of one partition that is created with a media type, appended to by
//! bodies, closed, and read by opaque offsets.
//!
//! A stream is a topic, under the same name, quotas and rights: what is appended here is read by pages and followers of
//! topics, and the other way round. Knows nothing of HTTP.

mod append;
mod ensure;
mod expiry;
mod fork;
#[cfg(test)]
mod fuzz;
mod json;
mod keep;
mod list;
mod live;
mod media;
mod read;
mod state;
mod token;
mod touches;

use std::sync::Arc;

use bytes::Bytes;
use plinth_storage::Cleanup;
use plinth_storage::ids::TopicId;
use plinth_storage::log::Bounds;

pub use self::expiry::Expiry;
pub(super) use self::expiry::Stream;
pub use self::fork::ForkFrom;
pub(super) use self::fork::Forked;
pub(super) use self::json::is_json;
pub use self::list::{StreamItem, StreamsPage};
pub use self::live::{StreamFollower, StreamMoved};
pub(super) use self::media::{DEFAULT_MEDIA_TYPE, Media};
pub use self::read::StreamPage;
pub(crate) use self::token::Readable;
pub(super) use self::token::SharedTags;
pub use self::token::{GivenToken, TOKEN_BYTES, Token};
pub(super) use self::touches::{Touch, Touches};
use super::catalog::Topic;
use super::error::Error;

/// What a stream is to be.
#[derive(Clone, Debug, Default)]
pub struct StreamConfig {
    /// The media type of all of it; when it is not said that of what it is a fork of, else `application/octet-stream`.
    pub content_type: Option<String>,
    /// Whether nothing is to be appended to it any more.
    pub closed: bool,
    /// When it ends by itself; a fork as what it is a fork of when it is not said.
    pub expiry: Option<Expiry>,
    /// What it is a fork of.
    pub fork: Option<ForkFrom>,
}

/// A stream as it is now.
#[derive(Clone, Debug)]
pub struct StreamView {
    /// Its topic.
    pub id: TopicId,
    /// The media type, as it was given.
    pub content_type: Arc<str>,
    /// Whether it is a list of JSON messages.
    pub is_json: bool,
    /// Whether it is text otherwise.
    pub is_text: bool,
    /// Its end.
    pub next: Token,
    /// Whether nothing is appended to it any more.
    pub closed: bool,
    /// When it ends by itself.
    pub expiry: Option<Arc<Expiry>>,
}

/// What is to be appended: a body, the closing of the stream, or both.
#[derive(Clone, Debug, Default)]
pub struct StreamAppend {
    /// The media type of the body.
    pub content_type: Option<String>,
    /// What is appended; empty for a closing alone.
    pub body: Bytes,
    /// What it is recognized by when it is repeated.
    pub producer: Option<StreamProducer>,
    /// Must be above the last one of the stream, by its bytes.
    pub seq: Option<Bytes>,
    /// Whether nothing is to be appended after it.
    pub close: bool,
}

/// One append of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamProducer {
    /// Names it within the stream; 1 to 255 bytes.
    pub id: Bytes,
    /// Its incarnation.
    pub epoch: u64,
    /// The number of the append within the epoch, from 0.
    pub seq: u64,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAppended {
    /// The end of the stream after it; of a duplicate, now.
    pub next: Token,
    /// Whether the stream is closed.
    pub closed: bool,
    /// Whether it had been done before: nothing was changed by this one.
    pub duplicate: bool,
    /// How many records were stored.
    pub records: u32,
    /// The producer's epoch, and its highest sequence that was accepted in it.
    pub producer: Option<(u64, u64)>,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFrom {
    /// With the first that is kept.
    Start,
    /// With what comes.
    Now,
    /// At an offset that was given before.
    At(GivenToken),
}

impl StreamView {
    pub(super) fn of(topic: &Topic, bounds: &Bounds) -> Self {
        let media = topic.media();
        Self {
            id: topic.id,
            content_type: Arc::clone(media.text()),
            is_json: media.is_json(),
            is_text: media.is_text(),
            next: topic.token(bounds.tail),
            closed: bounds.closed,
            expiry: topic.expiry().cloned(),
        }
    }
}

/// Refuses a topic that cannot be a stream.
fn check_is_stream(topic: &Topic) -> Result<(), Error> {
    if topic.partitions != 1 {
        let Topic { name, partitions, .. } = topic;
        return Err(Error::Conflict(format!("topic {name} has {partitions} partitions: a stream is a topic of one")));
    }
    if topic.cleanup == Cleanup::Compact {
        let name = &topic.name;
        return Err(Error::Conflict(format!("cleanup of topic {name} is compact: what a stream holds has no keys")));
    }
    Ok(())
}
