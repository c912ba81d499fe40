//! Black-box tests: a real server process on port 0, spoken to as a client speaks to it.

#![expect(clippy::unwrap_used, reason = "in a test a panic is how a step that did not work is told")]

mod abuse;
mod auth_matrix;
mod authority;
mod bad_input;
mod batch;
mod bucket;
mod cleanup;
mod cli;
mod client;
mod contract;
mod cookie;
mod cors;
mod debian;
mod disks;
mod durability;
mod harness;
mod http2;
mod keys;
mod kill_loop;
mod live;
mod once;
mod openapi;
mod policy_reports;
mod proxy;
mod publish;
mod quotas;
mod read;
mod restart;
mod retention;
mod store_faults;
mod stream_follow;
mod stream_list;
mod stream_roots;
mod streams;
mod system_topics;
mod telemetry;
mod tenants;
mod tidy;
mod tls;
mod tokens;
mod traces;
mod ttl;
mod wakes;
mod ws;
