//! What holds on one WebSocket connection, as its `welcome` says.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits;

/// The limits of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionLimits {
    /// Largest message from the client, in bytes.
    pub message_bytes_max: usize,
    /// Most subscriptions.
    pub subscriptions_max: usize,
    /// Most topics and patterns of one subscription.
    pub topics_max: usize,
    /// Most records in one publish.
    pub batch_records_max: usize,
    /// Largest payload of one record, in bytes.
    pub record_bytes_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: limits::FRAME_BYTES_MAX,
            subscriptions_max: limits::CONNECTION_SUBSCRIPTIONS_MAX,
            topics_max: limits::STREAM_TOPICS_MAX,
            batch_records_max: limits::BATCH_RECORDS_MAX,
            record_bytes_max: limits::RECORD_BYTES_MAX,
        }
    }
}
