//! WebSocket frames of the subprotocol `plinth.v1.json`: one JSON object per text frame, `type` first.
//!
//! A frame of the client is read in two steps: its `type`, then the struct of that type. An enum that serde tags itself
//! would copy the content on the way, and payloads would lose the bytes they were sent with.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::error::{ErrorCode, Problem};
use crate::records::{Durability, Gap, PublishRecord, PublishResult, Record};

mod connection;
mod schema;

pub use connection::ConnectionLimits;
pub use schema::schema;

/// The subprotocol's name.
pub const SUBPROTOCOL: &str = "plinth.v1.json";

/// A frame from the client.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum ClientFrame<'a> {
    /// The credential.
    Auth(AuthFrame),
    /// Follow topics.
    Subscribe(SubscribeFrame),
    /// Stop following.
    Unsubscribe(UnsubscribeFrame),
    /// Allow more records.
    Credit(CreditFrame),
    /// Publish records.
    Publish(PublishFrame<'a>),
    /// A newer credential of the same holder.
    Refresh(RefreshFrame),
    /// Ask for a `pong`.
    Ping(PingFrame),
}

/// Why a frame was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The `id` of the frame, when it could be read.
    pub id: Option<String>,
    /// The code.
    pub code: ErrorCode,
    /// What is wrong, by name.
    pub detail: String,
    /// True when the frame is not a JSON object: nothing that follows it can be trusted.
    pub garbage: bool,
    /// True when the frame is a `publish`: nothing of it is stored.
    pub publish: bool,
}

/// The values of `type` in frames from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClientType {
    Auth,
    Subscribe,
    Unsubscribe,
    Credit,
    Publish,
    Refresh,
    Ping,
}

/// What a client frame is recognized by.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
}

impl<'a> ClientFrame<'a> {
    /// Reads a frame. Payloads of `publish` that are JSON borrow from `text`.
    ///
    /// # Errors
    /// `InvalidRequest` for text that is not JSON, an unknown `type` or a field of the wrong form, `UnknownField` for a
    /// field that is not known; each names what it found.
    pub fn parse(text: &'a str) -> Result<Self, FrameError> {
        if !text.trim_start().starts_with('{') {
            return Err(FrameError::garbage("a frame is one JSON object"));
        }
        let head: Head<'a> = serde_json::from_str(text).map_err(|error| FrameError::of_head(&error))?;
        let Some(name) = head.kind.as_deref() else {
            return Err(FrameError::invalid(head.id, "frame has no `type`"));
        };
        let named = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
        let kind = match ClientType::deserialize(named) {
            Ok(kind) => kind,
            Err(error) => return Err(FrameError::invalid(head.id, &format!("frame type is not offered: {error}"))),
        };
        let frame = match kind {
            ClientType::Auth => read(text).map(Self::Auth),
            ClientType::Subscribe => read(text).map(Self::Subscribe),
            ClientType::Unsubscribe => read(text).map(Self::Unsubscribe),
            ClientType::Credit => read(text).map(Self::Credit),
            ClientType::Publish => read(text).map(Self::Publish),
            ClientType::Refresh => read(text).map(Self::Refresh),
            ClientType::Ping => read(text).map(Self::Ping),
        };
        frame.map_err(|error| FrameError::of_body(head.id, name, &error))
    }
}

impl FrameError {
    fn garbage(detail: &str) -> Self {
        Self { id: None, code: ErrorCode::InvalidRequest, detail: detail.to_owned(), garbage: true, publish: false }
    }

    fn invalid(id: Option<Cow<'_, str>>, detail: &str) -> Self {
        let id = id.map(Cow::into_owned);
        Self { id, code: ErrorCode::InvalidRequest, detail: detail.to_owned(), garbage: false, publish: false }
    }

    fn of_head(error: &serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => Self::invalid(None, &format!("frame is refused: {error}")),
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => Self::garbage(&format!("frame is not JSON: {error}")),
        }
    }

    fn of_body(id: Option<Cow<'_, str>>, kind: &str, error: &PathError) -> Self {
        let place = error.path().to_string();
        let place = if place == "." { String::new() } else { format!(" at `{place}`") };
        let cause = error.inner().to_string();
        let refusal = Self::invalid(id, &format!("frame `{kind}` is refused{place}: {cause}"));
        let code = if cause.starts_with("unknown field") { ErrorCode::UnknownField } else { refusal.code };
        Self { code, publish: kind == "publish", ..refusal }
    }

    /// The error as the answer shows it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut problem = Problem::new(self.code, self.detail.clone());
        problem.outcome = self.publish.then(|| self.code.outcome());
        problem
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for FrameError {}

type PathError = serde_path_to_error::Error<serde_json::Error>;

/// Reads at full speed, and once more only to say where it failed.
fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, PathError> {
    match serde_json::from_str(text) {
        Ok(frame) => Ok(frame),
        Err(_) => serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)),
    }
}

/// Types with one value each: what `type` holds in the frame of that name.
macro_rules! frame_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
            pub enum $name {
                /// The only value.
                #[default]
                #[serde(rename = $value)]
                Type,
            }

            impl ToSchema for $name {}

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new().schema_type(Type::String).enum_values(Some([$value])).into()
                }
            }
        )*
    };
}

frame_types! {
    /// `auth`
    AuthType = "auth";
    /// `subscribe`
    SubscribeType = "subscribe";
    /// `unsubscribe`
    UnsubscribeType = "unsubscribe";
    /// `credit`
    CreditType = "credit";
    /// `publish`
    PublishType = "publish";
    /// `refresh`
    RefreshType = "refresh";
    /// `ping`
    PingType = "ping";
}

/// The credential, when none came with the upgrade; due within 10 s.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthFrame {
    /// `auth`
    #[serde(rename = "type")]
    pub kind: AuthType,
    /// Repeated in an `error` that answers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// An API key or a token (JWT).
    pub token: String,
}

/// Never shows the credential.
impl fmt::Debug for AuthFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthFrame").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a subscription wants when it reads slower than records arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlowPolicy {
    /// Fall back to the log and rejoin.
    #[default]
    CatchUp,
    /// Skip to the tail with a gap event.
    Latest,
    /// End the subscription with an error.
    Disconnect,
}

/// Follow topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeFrame {
    /// `subscribe`
    #[serde(rename = "type")]
    pub kind: SubscribeType,
    /// Repeated in the answer; names the subscription on this connection. At most 255 bytes.
    pub id: String,
    /// Names or patterns, at most 100.
    #[schema(min_items = 1, max_items = 100)]
    pub topics: Vec<String>,
    /// Where to begin, as in the query parameter of the same name. Default `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How many records may come before more credit is given. Without it there is no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u64>,
    /// What to do when the client is slow.
    #[serde(default)]
    pub policy: SlowPolicy,
}

/// Stop following.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeFrame {
    /// `unsubscribe`
    #[serde(rename = "type")]
    pub kind: UnsubscribeType,
    /// The subscription.
    pub sub: String,
}

/// Allow more records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreditFrame {
    /// `credit`
    #[serde(rename = "type")]
    pub kind: CreditType,
    /// The subscription; it must have been given a credit when it began.
    pub sub: String,
    /// How many more records.
    pub n: u64,
}

/// Publish records.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishFrame<'a> {
    /// `publish`
    #[serde(rename = "type")]
    pub kind: PublishType,
    /// Repeated in the answer. At most 255 bytes.
    pub id: String,
    /// The topic.
    pub topic: String,
    /// As in a batch.
    #[serde(borrow)]
    #[schema(min_items = 1, max_items = 1000)]
    pub records: Vec<PublishRecord<'a>>,
    /// The partition of all records; without it keys choose.
    #[serde(default)]
    pub partition: Option<u32>,
    /// As the header `Durability`.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// As the header `Idempotency-Key`.
    #[serde(default)]
    #[schema(pattern = "^[!-~]{1,255}$")]
    pub idempotency_key: Option<String>,
    /// As the headers `Producer-Id`, `Producer-Epoch` and `Producer-Seq`.
    #[serde(default)]
    pub producer: Option<Producer>,
    /// As the header `Expected-Tail`.
    #[serde(default)]
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub expected_tail: Option<u64>,
    /// As the header `Fencing-Token`.
    #[serde(default)]
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub fencing_token: Option<u64>,
}

/// One publish of a producer, which counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    /// Names it in the partition. 1 to 255 visible ASCII characters.
    #[schema(pattern = "^[!-~]{1,255}$")]
    pub id: String,
    /// Its incarnation: a later one ends those before it.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub epoch: u64,
    /// The number of this publish within the epoch, from 0.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub seq: u64,
}

/// A newer credential of the same holder, before the one of the connection ends: same tenant, same subject of the same
/// issuer (or same API key), and no fewer rights. When it is refused, the connection goes on with the one that it has.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshFrame {
    /// `refresh`
    #[serde(rename = "type")]
    pub kind: RefreshType,
    /// Repeated in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A token (JWT) or an API key.
    pub token: String,
}

/// Never shows the credential.
impl fmt::Debug for RefreshFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshFrame").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Ask for a `pong`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PingFrame {
    /// `ping`
    #[serde(rename = "type")]
    pub kind: PingType,
    /// Repeated in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A frame from the server.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The credential was accepted.
    Welcome {
        /// Names this connection.
        session: String,
        /// The limits that hold on it.
        limits: ConnectionLimits,
    },
    /// The answer to `subscribe`.
    Subscribed {
        /// Of the request.
        id: String,
        /// The subscription; equal to `id`.
        sub: String,
        /// Where it begins.
        cursor: String,
    },
    /// The subscription is over: asked for, or after an `error` with its id.
    Unsubscribed {
        /// The subscription.
        sub: String,
        /// The position after everything that was sent.
        cursor: String,
    },
    /// Records.
    Records {
        /// The subscription.
        sub: String,
        /// In order within each partition.
        records: Vec<Record>,
        /// The position after them.
        cursor: String,
    },
    /// The answer to `publish`.
    Published {
        /// Of the request.
        id: String,
        /// One receipt when all records went to one partition; else one result per record, in the order of the frame.
        receipts: Vec<PublishResult>,
    },
    /// The subscription reached the tail of every partition.
    CaughtUp {
        /// The subscription.
        sub: String,
        /// The position.
        cursor: String,
    },
    /// Records are missing.
    Gap {
        /// The subscription.
        sub: String,
        /// Where and why.
        #[serde(flatten)]
        gap: Gap,
        /// The position at which it goes on.
        cursor: String,
    },
    /// A topic of the subscription is a closed stream, and everything in it was sent: there will be no more records of it, until it
    /// is deleted.
    Closed {
        /// The subscription.
        sub: String,
        /// The topic.
        topic: String,
    },
    /// A topic of the subscription was deleted; there will be no more records of it.
    End {
        /// The subscription.
        sub: String,
        /// The topic.
        topic: String,
    },
    /// A request failed, or the connection is about to be closed.
    Error {
        /// Of the request, if it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Why.
        problem: Problem,
    },
    /// The answer to `refresh`.
    Refreshed {
        /// Of the request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// When the credential of the connection ends now, ms since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
    },
    /// The credential ends soon; the connection is closed then, unless a `refresh` comes before.
    TokenExpiring {
        /// When.
        in_ms: u64,
    },
    /// The server is about to close; connect again after the given time.
    Goaway {
        /// How long to wait.
        reconnect_in_ms: u64,
        /// Why.
        reason: String,
        /// The position of each subscription.
        cursors: BTreeMap<String, String>,
    },
    /// The answer to `ping`.
    Pong {
        /// Of the request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
}

#[cfg(test)]
mod tests;
