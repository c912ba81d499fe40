//! The state store in memory: the twin of the one on the SSD, for simulation and for nodes without a disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use super::{Snapshot, StateOp, StateRow, StateStore, ascending, closed};
use crate::error::Result;

/// An ordered map in memory. A snapshot copies the map (16 bytes of pointers per key and value and the tree, not the
/// bytes).
#[derive(Debug)]
pub struct MemoryState {
    /// None when it is closed.
    rows: RwLock<Option<Rows>>,
}

type Rows = BTreeMap<Bytes, Bytes>;

impl Default for MemoryState {
    fn default() -> Self {
        Self { rows: RwLock::new(Some(Rows::new())) }
    }
}

impl MemoryState {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls with the rows as they are while nobody changes them.
    fn read<T>(&self, look: impl FnOnce(&Rows) -> T) -> Result<T> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.as_ref().map(look).ok_or_else(closed)
    }

    /// Calls with the rows while nobody else sees them.
    fn change<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> Result<T> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.as_mut().map(change).ok_or_else(closed)
    }
}

impl StateStore for MemoryState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.read(|rows| rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.read(|rows| {
            let range = rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
            range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
        })
    }

    fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>> {
        if from > upto {
            return Ok(None);
        }
        self.read(|rows| {
            let mut range = rows.range::<[u8], _>((Bound::Included(from), Bound::Included(upto)));
            range.next_back().map(|(key, value)| (key.clone(), value.clone()))
        })
    }

    fn write(&self, ops: &[StateOp]) -> Result<()> {
        self.change(|rows| {
            for op in ops {
                match op {
                    StateOp::Put(key, value) => {
                        rows.insert(key.clone(), value.clone());
                    }
                    StateOp::Delete(key) => {
                        rows.remove(key);
                    }
                    StateOp::DeleteRange(from, to) if from < to => {
                        let doomed: Vec<Bytes> = rows.range::<Bytes, _>(from..to).map(|(key, _)| key.clone()).collect();
                        for key in doomed {
                            rows.remove(&key);
                        }
                    }
                    StateOp::DeleteRange(..) => {}
                }
            }
        })
    }

    fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
        let mut loaded: Rows = ascending(rows).collect::<Result<_>>()?;
        self.change(|rows| rows.append(&mut loaded))
    }

    fn snapshot(&self) -> Snapshot {
        match self.read(Clone::clone) {
            Ok(rows) => Box::new(rows.into_iter().map(Ok)),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn close(&self) {
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
