//! The log core of Plinth: a partitioned log whose system of record is an object store.
//!
//! The log is made of objects that are only ever created, never replaced; whoever creates the next object owns the next
//! moment. Local disks are caches. This crate knows nothing of HTTP, tokens or JSON; [`log::Log`] is the only type that
//! the gateway calls.

pub mod ahead;
pub mod cache;
pub mod cleanup;

/// Whether a test has planted this bug of `testing::bug`; without the feature `testing` it is `false`.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(feature = "testing")]
        let planted = crate::testing::bug::is_planted(crate::testing::bug::Bug::$bug);
        #[cfg(not(feature = "testing"))]
        let planted = false;
        planted
    }};
}

mod directory;
pub mod durability;
pub mod env;
pub mod error;
pub mod feed;
pub mod ids;
pub mod inspect;
mod layout;
pub mod log;
mod meter;
pub mod metrics;
mod open;
mod read;
pub mod record;
mod retention;
mod segment;
mod shard;
mod slot;
pub mod spans;
pub mod state;
pub mod store;
mod stretch;
mod tail;
pub mod terms;
#[cfg(feature = "testing")]
pub mod testing;
mod wal;
mod watch;

pub use cleanup::Cleanup;
pub use durability::{Durability, Gap, GapReason};
pub use error::{Error, Kind, Refusal, Result};
pub use log::Log;
