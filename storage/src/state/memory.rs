//! The state store in memory: the twin of the one on the SSD, for simulation and for nodes without a disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::{Snapshot, StateOp, StateRow, StateStore, ascending};
use crate::error::Result;

/// An ordered map in memory. A snapshot copies the map (16 bytes of pointers per key and value and the tree, not the
/// bytes).
#[derive(Debug, Default)]
pub struct MemoryState {
    rows: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl MemoryState {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> RwLockReadGuard<'_, BTreeMap<Bytes, Bytes>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Bytes, Bytes>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.rows().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let rows = self.rows();
        let range = rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>> {
        if from > upto {
            return Ok(None);
        }
        let rows = self.rows();
        let mut range = rows.range::<[u8], _>((Bound::Included(from), Bound::Included(upto)));
        Ok(range.next_back().map(|(key, value)| (key.clone(), value.clone())))
    }

    fn write(&self, ops: &[StateOp]) -> Result<()> {
        let mut rows = self.rows_mut();
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
        Ok(())
    }

    fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
        let mut loaded: BTreeMap<Bytes, Bytes> = ascending(rows).collect::<Result<_>>()?;
        self.rows_mut().append(&mut loaded);
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        Box::new(self.rows().clone().into_iter().map(Ok))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
