//! Quotas: what a tenant, or one of its keys, may use at most.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{LimitInfo, NUMBER_MAX};

/// What may be used at most. What is left out is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Requests per second, and frames of a WebSocket that ask for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub requests_per_second: Option<u64>,
    /// Bytes per second of records that are published: payloads, keys, headers and content types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub publish_bytes_per_second: Option<u64>,
    /// Records per second that are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub publish_records_per_second: Option<u64>,
    /// Bytes per second of records that are sent to readers, as the records are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub delivered_bytes_per_second: Option<u64>,
    /// Records per second that are sent to readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub delivered_records_per_second: Option<u64>,
    /// Connections at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub connections: Option<u64>,
    /// Live streams and WebSocket subscriptions at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub followers: Option<u64>,
    /// Topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub topics: Option<u64>,
    /// Bytes that are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub storage_bytes: Option<u64>,
}

/// Each quota, by its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// See [`Quotas::requests_per_second`].
    RequestsPerSecond,
    /// See [`Quotas::publish_bytes_per_second`].
    PublishBytesPerSecond,
    /// See [`Quotas::publish_records_per_second`].
    PublishRecordsPerSecond,
    /// See [`Quotas::delivered_bytes_per_second`].
    DeliveredBytesPerSecond,
    /// See [`Quotas::delivered_records_per_second`].
    DeliveredRecordsPerSecond,
    /// See [`Quotas::connections`].
    Connections,
    /// See [`Quotas::followers`].
    Followers,
    /// See [`Quotas::topics`].
    Topics,
    /// See [`Quotas::storage_bytes`].
    StorageBytes,
}

impl Quota {
    /// Every quota, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::RequestsPerSecond,
        Self::PublishBytesPerSecond,
        Self::PublishRecordsPerSecond,
        Self::DeliveredBytesPerSecond,
        Self::DeliveredRecordsPerSecond,
        Self::Connections,
        Self::Followers,
        Self::Topics,
        Self::StorageBytes,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests_per_second",
            Self::PublishBytesPerSecond => "publish_bytes_per_second",
            Self::PublishRecordsPerSecond => "publish_records_per_second",
            Self::DeliveredBytesPerSecond => "delivered_bytes_per_second",
            Self::DeliveredRecordsPerSecond => "delivered_records_per_second",
            Self::Connections => "connections",
            Self::Followers => "followers",
            Self::Topics => "topics",
            Self::StorageBytes => "storage_bytes",
        }
    }

    /// Whether it limits what is used in a second, and not what is held at one moment.
    #[must_use]
    pub fn is_rate(self) -> bool {
        match self {
            Self::RequestsPerSecond
            | Self::PublishBytesPerSecond
            | Self::PublishRecordsPerSecond
            | Self::DeliveredBytesPerSecond
            | Self::DeliveredRecordsPerSecond => true,
            Self::Connections | Self::Followers | Self::Topics | Self::StorageBytes => false,
        }
    }
}

/// One quota with its limit and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// Which one.
    pub quota: Quota,
    /// How much it is; absent where nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Of a quota per second: what is used of it at this moment, and not yet back, which may be more than the limit after
    /// a large batch; absent where nothing is limited. Of the others: what is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Of a quota per second: all that was used since the node started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// What `GET /v1/quotas` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaReport {
    /// The tenant.
    #[schema(value_type = crate::tenants::TenantName)]
    pub tenant: String,
    /// Every quota of the tenant, in use by all its credentials.
    pub quotas: Vec<QuotaUse>,
    /// Every quota of the key that asks, if it has some of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_quotas: Option<Vec<QuotaUse>>,
    /// What is limited for everyone.
    pub limits: Vec<LimitInfo>,
}

/// The number of a quota: 1 to 2^53 - 1.
#[derive(Debug, ToSchema)]
#[schema(value_type = u64, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
pub struct QuotaNumber(pub u64);

impl Quotas {
    /// The number of a quota.
    #[must_use]
    pub fn get(&self, quota: Quota) -> Option<u64> {
        match quota {
            Quota::RequestsPerSecond => self.requests_per_second,
            Quota::PublishBytesPerSecond => self.publish_bytes_per_second,
            Quota::PublishRecordsPerSecond => self.publish_records_per_second,
            Quota::DeliveredBytesPerSecond => self.delivered_bytes_per_second,
            Quota::DeliveredRecordsPerSecond => self.delivered_records_per_second,
            Quota::Connections => self.connections,
            Quota::Followers => self.followers,
            Quota::Topics => self.topics,
            Quota::StorageBytes => self.storage_bytes,
        }
    }

    /// Each quota by its name on the wire.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<u64>); 9] {
        Quota::ALL.map(|quota| (quota.as_str(), self.get(quota)))
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence that names the quota and its bounds.
    pub fn check(&self) -> Result<(), String> {
        let wrong =
            self.named().into_iter().find(|(_, number)| number.is_some_and(|it| !(1..=NUMBER_MAX).contains(&it)));
        match wrong {
            Some((name, _)) => Err(format!("quota {name} must be between 1 and {NUMBER_MAX}")),
            None => Ok(()),
        }
    }
}
