//! Tests of the log through its façade, on stores that fail and on disks that vanish.

mod ahead;
mod checkpoints;
mod cleanup;
mod cleanup_model;
mod commit_faults;
mod common;
mod copy;
mod damage;
mod durability;
mod durability_model;
mod fork;
mod fork_model;
mod inspect;
mod model;
mod once;
mod once_model;
mod purge;
mod retention;
mod segments;
mod stream;
mod sweep;
mod takeover;
mod trim;
