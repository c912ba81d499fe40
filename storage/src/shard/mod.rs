//! The state of shards: what is in it, how committed slots change it, who owns it, and its snapshots in the bucket.

pub(crate) mod changes;
pub(crate) mod checkpoint;
pub(crate) mod claim;
pub(crate) mod clean;
pub(crate) mod fork;
pub(crate) mod gaps;
pub(crate) mod index;
pub(crate) mod machine;
pub(crate) mod once;
pub(crate) mod rows;
pub(crate) mod stream;
pub(crate) mod sweep;
pub(crate) mod takeover;
pub(crate) mod trim;
