//! The part of the façade that tests look through: what the state holds, and to which objects it refers.

use bytes::Bytes;
use object_store::path::Path;

use super::Log;
use crate::error::Result;
use crate::layout;
use crate::shard::checkpoint::dirty;
use crate::shard::rows::IndexRow;

impl Log {
    /// Every row of the state that belongs into a checkpoint, and its value.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn state_rows(&self) -> Result<Vec<(Bytes, Bytes)>> {
        let rows = self.inner.state.snapshot();
        rows.filter(|row| row.as_ref().map_or(true, |(key, _)| layout::is_checkpointed(key))).collect()
    }

    /// The objects that the state refers to now: those of the records that are kept, and the newest checkpoint that it
    /// knows, with its parts.
    ///
    /// # Errors
    /// `Corrupt` when the local state is broken.
    pub fn needed_objects(&self) -> Result<Vec<Path>> {
        let (from, to) = layout::index_range();
        let rows = self.inner.state.scan(&from, &to, usize::MAX)?;
        let mut objects = Vec::with_capacity(rows.len());
        for (_, row) in rows {
            objects.push(IndexRow::parse(row)?.object());
        }
        let (_, reference) = dirty::local(&*self.inner.state)?;
        let parts = reference.into_iter().flat_map(|reference| reference.parts);
        objects.extend(parts.map(|part| layout::checkpoint(part.session, part.number)));
        Ok(objects)
    }
}
