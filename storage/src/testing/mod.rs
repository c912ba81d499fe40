//! What tests of this crate and of those above it share: a store that fails on purpose, the contract suites that every
//! store must pass, and an S3 server inside the process. Only with the feature `testing`; never in a product build.

pub mod bug;
pub mod contract;
pub mod fault;
pub mod s3;
