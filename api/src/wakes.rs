//! Subscriptions of streams: cursors over many streams that wake a webhook or a worker when there is something new.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::topics::TopicName;

/// How a subscription wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriptionType {
    /// By a request to an address.
    Webhook,
    /// By an event in a stream, after which a worker claims the wake.
    PullWake,
}

/// How a stream came to be linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkType {
    /// It matches the pattern.
    Glob,
    /// It was named.
    Explicit,
}

/// Whether wakes are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// They are.
    Active,
    /// The webhook was called in vain and will be called again.
    Failed,
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// The address, `https://` and public unless the operator allows its host to be private.
    #[schema(max_length = 1024)]
    pub url: String,
}

/// What `PUT …/__ds/subscriptions/{id}` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionRequest {
    /// How it wakes.
    #[serde(rename = "type")]
    pub kind: SubscriptionType,
    /// The streams that it is about, those that come later among them: `*` is one level of a path, `**` any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub pattern: Option<String>,
    /// Further streams, which need not be there yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<TopicName>, max_items = 10_000)]
    pub streams: Vec<String>,
    /// For `webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookRequest>,
    /// For `pull-wake`: the stream of JSON in which wakes are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TopicName>)]
    pub wake_stream: Option<String>,
    /// How long a wake may take without a sign of life, in milliseconds; default 30,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1000, maximum = 600_000)]
    pub lease_ttl_ms: Option<u64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub description: Option<String>,
}

/// How the calls of a webhook are signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookSigning {
    /// `ed25519`.
    pub alg: String,
    /// The id of the key that signs now.
    pub kid: String,
    /// Where its public half is.
    pub jwks_url: String,
}

/// The webhook of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// The address.
    pub url: String,
    /// How its calls are signed.
    pub signing: WebhookSigning,
}

/// A stream of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionStream {
    /// Its path.
    pub path: String,
    /// How it came to be linked; `explicit` if it was named, though the pattern matches it, too.
    pub link_type: LinkType,
    /// The last offset that is done with; `-1` when nothing is.
    pub acked_offset: String,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    /// The id.
    pub id: String,
    /// The same.
    pub subscription_id: String,
    /// How it wakes.
    #[serde(rename = "type")]
    pub kind: SubscriptionType,
    /// The streams that it is about, those that come later among them.
    pub pattern: Option<String>,
    /// The streams that it is linked with.
    pub streams: Vec<SubscriptionStream>,
    /// For `webhook`.
    pub webhook: Option<Webhook>,
    /// For `pull-wake`.
    pub wake_stream: Option<String>,
    /// How long a wake may take without a sign of life, in milliseconds.
    pub lease_ttl_ms: u64,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Whether wakes are delivered.
    pub status: SubscriptionStatus,
    /// For people.
    pub description: Option<String>,
}

/// What `POST …/streams` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionStreams {
    /// The streams to be linked, from their ends on.
    #[schema(value_type = Vec<TopicName>, min_items = 1, max_items = 10_000)]
    pub streams: Vec<String>,
}

/// What `POST …/claim` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// A name of the worker, for others that ask.
    #[schema(min_length = 1, max_length = 1024)]
    pub worker: String,
}

/// A stream of a wake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeStream {
    /// Its path.
    pub path: String,
    /// How it came to be linked.
    pub link_type: LinkType,
    /// The last offset that is done with; `-1` when nothing is.
    pub acked_offset: String,
    /// The end of the stream.
    pub tail_offset: String,
    /// Whether there is something between both.
    pub has_pending: bool,
}

/// A wake that a worker has claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claimed {
    /// The id of the wake.
    pub wake_id: String,
    /// Its number.
    pub generation: u64,
    /// The credential for `ack` and `release`.
    pub token: String,
    /// All streams of the subscription.
    pub streams: Vec<WakeStream>,
    /// How long it is the worker's, unless `ack` is called before, in milliseconds.
    pub lease_ttl_ms: u64,
}

/// What is done with in one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamAck {
    /// The path of the stream.
    #[serde(alias = "path")]
    #[schema(value_type = TopicName)]
    pub stream: String,
    /// The last offset that is done with.
    #[schema(max_length = 64)]
    pub offset: String,
}

/// What `POST …/callback` and `POST …/ack` ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AckRequest {
    /// The id of the wake.
    #[schema(max_length = 64)]
    pub wake_id: String,
    /// Its number.
    pub generation: u64,
    /// What is done with; all of it is taken over, or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10_000)]
    pub acks: Vec<StreamAck>,
    /// Whether the wake ends. Without it, its lease begins anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// The answer to `POST …/callback` and `POST …/ack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledged {
    /// True.
    pub ok: bool,
    /// Whether the next wake has begun.
    pub next_wake: bool,
}

/// What `POST …/release` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The id of the wake.
    #[schema(max_length = 64)]
    pub wake_id: String,
    /// Its number.
    pub generation: u64,
}

/// The body of a webhook's call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookCall {
    /// The id of the subscription.
    pub subscription_id: String,
    /// The id of the wake.
    pub wake_id: String,
    /// Its number.
    pub generation: u64,
    /// All streams of the subscription.
    pub streams: Vec<WakeStream>,
    /// Where what takes longer is told.
    pub callback_url: String,
    /// The credential for that.
    pub callback_token: String,
}

/// What a webhook may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookAnswer {
    /// Whether all that the call told of is done with, and the wake ends.
    #[serde(default)]
    pub done: bool,
}

/// An event in the stream of a subscription that wakes by `pull-wake`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeEvent {
    /// `wake`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of the subscription.
    pub subscription_id: String,
    /// A stream in which there is something.
    pub stream: String,
    /// The number of the wake.
    pub generation: u64,
    /// When it began, ms since the Unix epoch.
    pub ts: u64,
}

/// Why a request about a subscription failed, in the words of the protocol of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SubscriptionErrorCode {
    /// The request cannot be read, or asks for what there is not.
    InvalidRequest,
    /// There is no such subscription, or the credential may not know of it.
    SubscriptionNotFound,
    /// There is one with another configuration.
    SubscriptionAlreadyExists,
    /// The tenant has too many subscriptions, or the subscription too many streams.
    LimitExceeded,
    /// The address of the webhook is one that is not asked.
    WebhookUrlRejected,
    /// The token was not given here, or is for something else.
    TokenInvalid,
    /// The token is too old.
    TokenExpired,
    /// Another wake has begun since, or this one is over.
    Fenced,
    /// A worker has claimed the wake: `current_holder`.
    AlreadyClaimed,
    /// All is done with.
    NoPendingWork,
    /// An offset is of no stream that is linked, below what is acknowledged, or above the end.
    InvalidOffset,
}

/// The same with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionFailure {
    /// The code, stable.
    pub code: SubscriptionErrorCode,
    /// What happened this time.
    pub message: String,
    /// For `ALREADY_CLAIMED`: the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_holder: Option<String>,
    /// For `ALREADY_CLAIMED`: the number of the wake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}
