//! Plinth: a message queue for people who speak only HTTP, on an object store.
//!
//! This package sees both the contract with clients (`plinth_api`) and the log (`plinth_storage`). A request goes from
//! [`server`] through [`http`], `streams` or [`ws`] to [`auth`], which makes a checked reference of a name, and to [`broker`],
//! which decides; the log below orders and stores. [`app`] builds all of it, top to bottom.

pub mod app;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod console;
mod egress;
#[cfg(test)]
mod fuzz;
pub mod http;
pub mod parse;
pub mod problem;
pub mod receipt;
pub mod render;
pub mod server;
mod streams;
pub mod telemetry;
mod units;
pub mod ws;
