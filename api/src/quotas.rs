//! Quotas: what a tenant, or one of its keys, may use at most.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::NUMBER_MAX;

/// What may be used at most. What is left out is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Requests per second, and frames of a WebSocket that ask for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub requests_per_second: Option<u64>,
    /// Payload bytes per second that are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub publish_bytes_per_second: Option<u64>,
    /// Records per second that are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuotaNumber>)]
    pub publish_records_per_second: Option<u64>,
    /// Payload bytes per second that are sent to readers.
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

/// The number of a quota: 1 to 2^53 - 1.
#[derive(Debug, ToSchema)]
#[schema(value_type = u64, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
pub struct QuotaNumber(pub u64);

impl Quotas {
    /// Each quota by its name on the wire.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<u64>); 9] {
        [
            ("requests_per_second", self.requests_per_second),
            ("publish_bytes_per_second", self.publish_bytes_per_second),
            ("publish_records_per_second", self.publish_records_per_second),
            ("delivered_bytes_per_second", self.delivered_bytes_per_second),
            ("delivered_records_per_second", self.delivered_records_per_second),
            ("connections", self.connections),
            ("followers", self.followers),
            ("topics", self.topics),
            ("storage_bytes", self.storage_bytes),
        ]
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
