//! A model of the log core: sessions, slots, fences, claims, checkpoints, segments and deletion, small enough that a
//! checker (`stateright`) walks through it in every order of events.
//!
//! A state is a bucket, the sessions that work on it, and what clients were told ([`world`]). What may happen is in
//! [`writing`], [`takeover`] and [`deletion`]; what must hold is a list of [`Promise`]s, judged in every state against
//! what a cold restart would find in the bucket ([`bucket`]). Each [`Rule`] of the log core can be switched off, and then
//! a promise breaks: that is how we know that the model can find anything, and that the rule is needed.
//!
//! Where it differs from the world: a put is one step at the store, and reaches it at any time, twice, or after its author
//! has gone on; a session that crashes is one that pauses for ever. There is no time: anybody may suspect anybody at any
//! moment. One slot holds one entry, so that each has a fate of its own; a shard has one partition. Hashes along a log are
//! left out, because a session has one writer. ACQUIRE is left out: no promise needs it. That every shard becomes writable
//! again is not checked, only that no slot is left behind. Beyond the code of today it has moves by RELEASE.

pub mod bucket;
pub mod deletion;
pub mod model;
pub mod names;
pub mod rule;
pub mod scope;
pub mod takeover;
pub mod world;
pub mod writing;

pub use rule::{Promise, Rule};
pub use scope::{Deletes, Scope};
pub use world::Law;
