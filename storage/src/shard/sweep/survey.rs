//! To which objects the rows of a state refer.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::error::Result;
use crate::ids::{SegmentId, SessionId, Slot};
use crate::layout::{self, Deletable};
use crate::shard::rows::{IndexRow, Place};
use crate::state::StateStore;

/// Rows are looked through so many at a time.
const SCAN_ROWS: usize = 4096;

/// The objects to which the rows of a state refer. Another kind of row that refers to objects belongs into `survey`.
#[derive(Debug)]
pub(super) struct Referenced {
    slots: HashMap<SessionId, Slots>,
    segments: HashSet<SegmentId>,
}

impl Referenced {
    /// Looks through the rows. Those that are written meanwhile may be missed. `segments` count as if one referred to them.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(super) fn survey(state: &dyn StateStore, segments: HashSet<SegmentId>) -> Result<Self> {
        let mut referenced = Self { slots: HashMap::new(), segments };
        for_each_row(state, layout::index_range(), |value| {
            match IndexRow::parse(value)?.place {
                Place::Wal { session, slot } => referenced.slots.entry(session).or_default().insert(slot),
                Place::Segment { segment, .. } => {
                    referenced.segments.insert(segment);
                }
            }
            Ok(())
        })?;
        Ok(referenced)
    }

    /// Whether a row refers to the object; no row refers to a checkpoint.
    pub(super) fn has(&self, name: Deletable) -> bool {
        match name {
            Deletable::Slot(session, slot) => self.slots.get(&session).is_some_and(|slots| slots.contains(slot)),
            Deletable::Segment(segment) => self.segments.contains(&segment),
            Deletable::Checkpoint(..) => false,
        }
    }
}

fn for_each_row(
    state: &dyn StateStore,
    (mut from, to): (Bytes, Bytes),
    mut each: impl FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    loop {
        let rows = state.scan(&from, &to, SCAN_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = layout::after(last);
        rows.into_iter().try_for_each(|(_, value)| each(value))?;
    }
}

/// A set of slots of one log, a bit each.
#[derive(Debug, Default)]
struct Slots {
    words: HashMap<u64, u64>,
}

impl Slots {
    fn insert(&mut self, slot: Slot) {
        *self.words.entry(slot.0 / 64).or_default() |= 1 << (slot.0 % 64);
    }

    fn contains(&self, slot: Slot) -> bool {
        self.words.get(&(slot.0 / 64)).is_some_and(|word| word & (1 << (slot.0 % 64)) != 0)
    }
}
