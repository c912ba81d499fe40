//! The contract of Plinth with its clients: request and response bodies, error codes, WebSocket frames.
//!
//! Plain strings and numbers with their JSON names and schemas. This crate does no I/O and knows neither axum nor the
//! log: the server parses these types into its own words at its edge.

pub mod batch;
pub mod error;
pub mod frames;
pub mod issuers;
pub mod keys;
pub mod limits;
mod object;
pub mod quotas;
pub mod records;
pub mod revocations;
pub mod streams;
pub mod system;
pub mod tenants;
pub mod tokens;
pub mod topics;
pub mod wakes;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListPage<T> {
    /// The items, in the list's own order.
    pub data: Vec<T>,
    /// Pass as `cursor` to get the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}
