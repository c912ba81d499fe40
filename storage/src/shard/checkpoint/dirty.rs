//! What has changed since the last checkpoint: one local row per slot, written in the same batch as the changes
//! themselves, and one row that names the checkpoint that they come after. Neither is in a checkpoint.
//!
//! ```text
//! dirty row    change*                                                    (as in format.rs)
//! reference    version u8 · number of the first dirty row u64 · part*     the last part is the checkpoint itself
//! ```
//! A state store without a reference does not know what its checkpoint lacks: the next one is written in full.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::format::{Part, read_op, write_op};
use super::merge::{Layer, Ranges};
use crate::error::{Error, Kind, Result};
use crate::ids::{SessionId, Slot};
use crate::layout;
use crate::shard::rows::{Position, Row};
use crate::state::{StateOp, StateStore};

const VERSION: u8 = 1;
/// More changes than this are not gathered in memory: the checkpoint is then written in full, as a stream.
const DELTA_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Dirty rows are read so many at a time.
const SCAN_ROWS: usize = 256;
/// What a row costs in memory besides its bytes.
const ROW_OVERHEAD_BYTES: usize = 96;

/// The checkpoint that the dirty rows come after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The first dirty row after it.
    pub(crate) from: u64,
    /// The oldest first; the last one is the checkpoint itself.
    pub(crate) parts: Vec<Part>,
}

/// The changes since a checkpoint, one per key.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    ranges: Vec<(Bytes, Bytes)>,
    rows: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

/// The change of the state store that keeps what the slot `number` changed, if it changed anything.
pub(crate) fn note(number: u64, ops: &[StateOp]) -> Option<StateOp> {
    if ops.is_empty() {
        return None;
    }
    let mut row = Vec::new();
    for op in ops {
        write_op(&mut row, op).expect("a vector takes all");
    }
    Some(StateOp::Put(layout::dirty_key(number), Bytes::from(row)))
}

/// Where the state store stands and what its dirty rows come after, both of the same moment.
///
/// # Errors
/// `Corrupt` when the state store is broken or has applied nothing yet.
pub(crate) fn local(state: &dyn StateStore) -> Result<(Position, Option<Reference>)> {
    let (from, to) = layout::meta_range();
    let (mut position, mut reference) = (None, None);
    for (key, value) in state.scan(&from, &to, usize::MAX)? {
        if key == layout::position_key() {
            position = Some(Position::parse(value)?);
        } else if key == layout::reference_key() {
            reference = Some(Reference::parse(value)?);
        }
    }
    let position = position.ok_or_else(|| Error::new(Kind::Corrupt, "state store has no position"))?;
    Ok((position, reference))
}

impl Reference {
    /// Whether it is this checkpoint.
    pub(crate) fn is(&self, session: SessionId, number: Slot) -> bool {
        self.parts.last().is_some_and(|part| (part.session, part.number) == (session, number))
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + Part::LEN * self.parts.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.from);
        self.parts.iter().for_each(|part| part.write(&mut out));
        out.freeze()
    }

    fn parse(mut bytes: Bytes) -> Result<Self> {
        let broken = || Error::new(Kind::Corrupt, "checkpoint reference in the state store is broken");
        if bytes.len() < 9 + Part::LEN || bytes.get_u8() != VERSION {
            return Err(broken());
        }
        let from = bytes.get_u64_le();
        if !bytes.len().is_multiple_of(Part::LEN) {
            return Err(broken());
        }
        let parts = (0..bytes.len() / Part::LEN).map(|_| Part::read(&mut bytes)).collect();
        Ok(Self { from, parts })
    }

    /// The changes of the state store when this checkpoint is durable: rows below it go, it is what the others come after.
    pub(crate) fn settle(&self, from: u64) -> [StateOp; 2] {
        let dropped = StateOp::DeleteRange(layout::dirty_key(from), layout::dirty_key(self.from));
        [dropped, StateOp::Put(layout::reference_key(), self.encode())]
    }
}

/// The changes of the state store when it is not known what its dirty rows come after.
pub(crate) fn forget(applied: u64) -> [StateOp; 2] {
    let dropped = StateOp::DeleteRange(layout::dirty_key(0), layout::dirty_key(applied));
    [dropped, StateOp::Delete(layout::reference_key())]
}

impl Delta {
    /// The changes of the slots `from..until`; `None` when they are too many for the memory.
    ///
    /// # Errors
    /// `Corrupt` when the state store is broken.
    pub(crate) fn collect(state: &dyn StateStore, from: u64, until: u64) -> Result<Option<Self>> {
        let broken = |error| Error::new(Kind::Corrupt, "dirty row in the state store is broken").with_source(error);
        let mut delta = Self::default();
        let (mut at, end) = (layout::dirty_key(from), layout::dirty_key(until));
        loop {
            let rows = state.scan(&at, &end, SCAN_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(Some(delta)) };
            at = layout::after(last);
            for (_, value) in rows {
                let mut ops = &value[..];
                while let Some(op) = read_op(&mut ops).map_err(broken)? {
                    delta.add(op);
                }
                if delta.bytes > DELTA_BYTES_MAX {
                    return Ok(None);
                }
            }
        }
    }

    /// Adds a later change: it wins over the earlier ones of its keys.
    pub(crate) fn add(&mut self, op: StateOp) {
        match op {
            StateOp::Put(key, value) => self.set(key, Some(value)),
            StateOp::Delete(key) => self.set(key, None),
            StateOp::DeleteRange(from, to) if from < to => {
                let doomed: Vec<Bytes> = self.rows.range::<Bytes, _>(&from..&to).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    if let Some((key, value)) = self.rows.remove_entry(&key) {
                        self.bytes -= cost(&key, value.as_ref());
                    }
                }
                self.bytes += cost(&from, Some(&to));
                self.ranges.push((from, to));
            }
            StateOp::DeleteRange(..) => {}
        }
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += cost(&key, value.as_ref());
        let key_len = key.len();
        if let Some(before) = self.rows.insert(key, value) {
            self.bytes -= key_len + before.map_or(0, |value| value.len()) + ROW_OVERHEAD_BYTES;
        }
    }

    /// The changes in the order of their stored form.
    pub(crate) fn ops(&self) -> impl Iterator<Item = StateOp> {
        let rows = self.rows.iter().map(|(key, value)| match value {
            Some(value) => StateOp::Put(key.clone(), value.clone()),
            None => StateOp::Delete(key.clone()),
        });
        Ranges::of(self.ranges.clone()).into_ops().chain(rows)
    }

    /// The changes as the newest layer of a state.
    pub(crate) fn into_layer(self) -> Layer {
        Layer { ranges: Ranges::of(self.ranges), rows: Box::new(self.rows.into_iter().map(Ok)) }
    }
}

fn cost(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES
}
