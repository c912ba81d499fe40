//! A state store that outlives its disk: when the disk refuses a write, or to flush what was written, all that it holds is
//! brought into memory and the node goes on from there until its next start.
//!
//! A disk that is full or has become read-only still reads, so nothing has to come from the bucket. One that cannot be
//! read either is an error, as without this layer: what it held is only in the bucket then.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;

use super::memory::MemoryState;
use super::{Snapshot, StateOp, StateRow, StateStore};
use crate::error::{Chain, Error, Kind, Result};

/// Rows are brought into memory so many at a time.
const ROWS_AT_ONCE: usize = 4096;

/// A store on a disk, or what it held, in memory.
pub struct FailoverState {
    place: RwLock<Place>,
    on_disk: Gauge,
}

struct Place {
    store: Arc<dyn StateStore>,
    is_disk: bool,
}

impl Place {
    /// Whether an error is the disk's, which is left then.
    fn is_refused(&self, error: &Error) -> bool {
        self.is_disk && error.kind() != Kind::Closed
    }
}

impl FailoverState {
    /// Begins on `disk`; `on_disk` is 1 while it is used, and 0 from the moment at which it refused a write.
    #[must_use]
    pub fn new(disk: Arc<dyn StateStore>, on_disk: Gauge) -> Self {
        on_disk.set(1);
        Self { place: RwLock::new(Place { store: disk, is_disk: true }), on_disk }
    }

    /// Where it is kept now, for one call.
    fn place(&self) -> RwLockReadGuard<'_, Place> {
        self.place.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the disk and applies what it refused. All other writes wait meanwhile, so that none goes to the disk behind
    /// the copy.
    fn leave_disk(&self, refused: &[StateOp], why: &Error) -> Result<()> {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        if place.is_disk {
            let memory = copy(&*place.store)?;
            *place = Place { store: Arc::new(memory), is_disk: false };
            self.on_disk.set(0);
            tracing::warn!(error = %Chain(why), "local disk refuses writes, state is kept in memory from now on");
        }
        place.store.write(refused)
    }
}

fn copy(disk: &dyn StateStore) -> Result<MemoryState> {
    let memory = MemoryState::new();
    let mut rows = disk.snapshot();
    loop {
        let ops = rows.by_ref().take(ROWS_AT_ONCE).map(|row| row.map(|(key, value)| StateOp::Put(key, value)));
        let ops: Vec<StateOp> = ops.collect::<Result<_>>()?;
        if ops.is_empty() {
            return Ok(memory);
        }
        memory.write(&ops)?;
    }
}

impl StateStore for FailoverState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.place().store.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>> {
        self.place().store.scan(from, to, limit)
    }

    fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>> {
        self.place().store.last_at_or_before(from, upto)
    }

    fn write(&self, ops: &[StateOp]) -> Result<()> {
        let refused = {
            let place = self.place();
            match place.store.write(ops) {
                Err(error) if place.is_refused(&error) => error,
                settled => return settled,
            }
        };
        self.leave_disk(ops, &refused)
    }

    /// A disk that refuses them is not left: they come only once, so the caller begins anew.
    fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
        self.place().store.load(rows)
    }

    fn snapshot(&self) -> Snapshot {
        self.place().store.snapshot()
    }

    /// A store that keeps no log of its own meets a full disk here first.
    fn flush(&self) -> Result<()> {
        let refused = {
            let place = self.place();
            match place.store.flush() {
                Err(error) if place.is_refused(&error) => error,
                settled => return settled,
            }
        };
        self.leave_disk(&[], &refused)
    }

    fn close(&self) {
        self.place().store.close();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::error::Kind;

    /// A disk that can be told to refuse writes, and to be unreadable.
    #[derive(Default)]
    pub(crate) struct Disk {
        rows: MemoryState,
        pub(crate) full: AtomicBool,
        /// What is loaded takes all the room.
        pub(crate) full_after_load: AtomicBool,
        broken: AtomicBool,
    }

    impl Disk {
        fn refuse(refuses: &AtomicBool) -> Result<()> {
            if refuses.load(Ordering::SeqCst) { Err(Error::new(Kind::Corrupt, "disk")) } else { Ok(()) }
        }
    }

    impl StateStore for Disk {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
            self.rows.get(key)
        }

        fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>> {
            self.rows.scan(from, to, limit)
        }

        fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>> {
            self.rows.last_at_or_before(from, upto)
        }

        fn write(&self, ops: &[StateOp]) -> Result<()> {
            Self::refuse(&self.full)?;
            self.rows.write(ops)
        }

        fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
            Self::refuse(&self.full)?;
            self.full.store(self.full_after_load.load(Ordering::SeqCst), Ordering::SeqCst);
            self.rows.load(rows)
        }

        fn snapshot(&self) -> Snapshot {
            let broken = Self::refuse(&self.broken).err().map(Err);
            Box::new(self.rows.snapshot().chain(broken))
        }

        fn flush(&self) -> Result<()> {
            Self::refuse(&self.full)
        }

        fn close(&self) {
            self.rows.close();
        }
    }

    fn put(key: u32) -> StateOp {
        StateOp::Put(Bytes::copy_from_slice(&key.to_be_bytes()), Bytes::from_static(b"value"))
    }

    fn keys(state: &dyn StateStore) -> Vec<u32> {
        let key = |row: Result<StateRow>| u32::from_be_bytes(row.unwrap().0[..].try_into().unwrap());
        state.snapshot().map(key).collect()
    }

    // Fails without the copy, when the refused write is dropped, and when the copy ends after its first chunk.
    #[test]
    fn a_disk_that_refuses_a_write_is_left_with_all_that_it_held_and_the_write() {
        let rows = u32::try_from(3 * ROWS_AT_ONCE / 2).unwrap();
        let (disk, on_disk) = (Arc::new(Disk::default()), Gauge::default());
        let state = FailoverState::new(Arc::clone(&disk) as Arc<dyn StateStore>, on_disk.clone());
        state.write(&(0..rows).map(put).collect::<Vec<_>>()).unwrap();
        disk.full.store(true, Ordering::SeqCst);
        assert_eq!(on_disk.get(), 1);
        state.write(&[put(rows)]).unwrap();
        assert_eq!(on_disk.get(), 0);
        assert_eq!(keys(&state), (0..=rows).collect::<Vec<_>>());
        // The disk is not gone back to: what it holds is old.
        disk.full.store(false, Ordering::SeqCst);
        state.write(&[put(rows + 1)]).unwrap();
        assert_eq!(keys(&*disk).len(), rows as usize);
        assert_eq!(keys(&state).len(), rows as usize + 2);
        state.flush().unwrap();
    }

    // Fails when the error of a flush is passed on: a checkpoint would end the session.
    #[test]
    fn a_disk_that_refuses_to_flush_is_left_with_all_that_it_held() {
        let (disk, on_disk) = (Arc::new(Disk::default()), Gauge::default());
        let state = FailoverState::new(Arc::clone(&disk) as Arc<dyn StateStore>, on_disk.clone());
        state.write(&[put(1), put(2)]).unwrap();
        disk.full.store(true, Ordering::SeqCst);
        state.flush().unwrap();
        assert_eq!(on_disk.get(), 0);
        assert_eq!(keys(&state), [1, 2]);
        state.flush().unwrap();
    }

    #[test]
    fn a_disk_that_cannot_be_read_either_is_an_error_and_not_a_smaller_state() {
        let disk = Arc::new(Disk::default());
        let state = FailoverState::new(Arc::clone(&disk) as Arc<dyn StateStore>, Gauge::default());
        state.write(&[put(1)]).unwrap();
        disk.full.store(true, Ordering::SeqCst);
        disk.broken.store(true, Ordering::SeqCst);
        assert_eq!(state.write(&[put(2)]).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(keys(&disk.rows), [1]);
    }
}
