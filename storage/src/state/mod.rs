//! The local state store: an ordered map of bytes on which the shard state lives.
//!
//! A cache of what the bucket proves: it may vanish between any two calls of the process, never between two reads of
//! one run. It knows nothing of what its keys mean. Two implementations: [`rocks`] on the SSD, [`memory`] its twin;
//! [`failover`] goes from the one to the other.

pub mod failover;
pub mod memory;
pub mod rocks;

use bytes::Bytes;

use crate::error::{Error, Kind, Result};

/// One change of a write batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateOp {
    /// Sets the value of a key.
    Put(Bytes, Bytes),
    /// Removes a key; absent is no error.
    Delete(Bytes),
    /// Removes every key from the first (inclusive) to the second (exclusive).
    DeleteRange(Bytes, Bytes),
}

/// A key and its value.
pub type StateRow = (Bytes, Bytes);

/// A consistent view of the whole store at one moment, in key order.
pub type Snapshot = Box<dyn Iterator<Item = Result<StateRow>> + Send>;

/// An ordered map of bytes. Calls block for as long as a local disk takes; all are safe from any thread.
pub trait StateStore: Send + Sync + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// `Corrupt` when the local data cannot be read: the caller discards the store.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// Up to `limit` rows with `from <= key < to`, ascending.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>>;

    /// The last row with `from <= key <= upto`.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>>;

    /// Applies all changes, in order, atomically.
    ///
    /// # Errors
    /// `Corrupt` when the local disk refuses: the caller discards the store.
    fn write(&self, ops: &[StateOp]) -> Result<()>;

    /// Adds rows that come in ascending order of their keys, all or none; a key that is there already gets the new value.
    /// Meant for many rows and an empty store: faster than [`StateStore::write`].
    ///
    /// # Errors
    /// The first error of `rows`; `Corrupt` when they are not in order; else as [`StateStore::write`].
    fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()>;

    /// A consistent view of everything.
    fn snapshot(&self) -> Snapshot;

    /// Makes what was written durable as far as the disk can; only saves replay at the next start.
    ///
    /// # Errors
    /// As [`StateStore::write`].
    fn flush(&self) -> Result<()>;

    /// Lets go of everything that is held, for good. Waits for the calls under way; later ones are answered `Closed`, and who reads
    /// a snapshot of a disk on may be. So long scans end, and nobody is in the store when its process is taken down.
    fn close(&self);
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the local state is closed")
}

/// The same rows; one whose key does not come after the one before it is an error.
fn ascending(rows: &mut dyn Iterator<Item = Result<StateRow>>) -> impl Iterator<Item = Result<StateRow>> {
    let mut last: Option<Bytes> = None;
    rows.map(move |row| {
        let (key, value) = row?;
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(Error::new(Kind::Corrupt, "rows to be loaded are not in the order of their keys"));
        }
        last = Some(key.clone());
        Ok((key, value))
    })
}
