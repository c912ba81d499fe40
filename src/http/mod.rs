//! The REST surface: routes, what they read from a request, what they answer.
//!
//! Handlers parse, ask `auth` for a checked reference, call the broker once and convert. They decide nothing and know
//! nothing of the log. [`routes::ROUTES`] is the one list of what is served; [`error::ApiError`] the one way to fail.

mod accept;
pub mod access;
pub(crate) mod admit;
mod asyncapi;
pub mod audit;
pub(crate) mod awake;
pub mod convert;
pub mod cors;
mod docs;
mod door;
mod encode;
pub mod error;
pub mod extract;
mod follow;
mod front;
#[cfg(test)]
mod fuzz;
mod health;
mod issuers;
mod keys;
mod layers;
pub(crate) mod live;
mod openapi;
pub(crate) mod pieces;
mod publish;
mod quotas;
mod rate_limit;
pub(crate) mod read;
mod reports;
mod retention;
mod revocations;
mod routes;
mod tenant_root;
mod tenants;
mod terms;
mod tokens;
mod topics;
pub mod traced;
mod usage;
mod visit;

pub use asyncapi::asyncapi;
pub use door::Door;
pub use front::{Front, Inner, StreamOptions};
pub use openapi::openapi;
pub use routes::{Needs, ROUTES, Route, router};
pub use tenant_root::TenantRoot;
pub use visit::{RequestId, Visit};
