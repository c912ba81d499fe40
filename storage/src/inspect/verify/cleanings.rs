//! Cleanings by key: that nothing went which may not.
//!
//! What a cleaning replaced and what it put in its place are read again and compared record by record, by the code that did it
//! before the swap. Memory: one run of each side, and the keys that went.

use super::Verifier;
use super::objects::{Seen, see};
use super::replay::Replay;
use crate::error::{Chain, Kind, Result};
use crate::ids::Offset;
use crate::layout::ObjectName;
use crate::segment::conserve::cleaned::{self as conserve, Sides};
use crate::shard::changes::Entry;
use crate::shard::clean::CleanRow;
use crate::shard::machine::SlotSummary;
use crate::shard::rows::{IndexRow, Place};

impl Verifier<'_, '_> {
    /// Compares both sides of the cleanings of a slot, over the state before it. One of which a side is deleted cannot be
    /// compared any more, nor one that changes nothing.
    pub(super) async fn check_cleanings(&mut self, slot: &SlotSummary, replay: &Replay) -> Result<()> {
        if !replay.is_known() {
            return Ok(());
        }
        for entry in &slot.entries {
            let Entry::Cleaned(cleaned) = entry else { continue };
            let Some(old) = cleaned.replaces(&*replay.state)? else { continue };
            let known = CleanRow::load(&*replay.state, cleaned.partition)?.unwrap_or_default();
            let new: Vec<(Offset, IndexRow)> = cleaned.runs.iter().map(|run| (run.base, run.row(0))).collect();
            let sides =
                Sides { partition: cleaned.partition, old: &old, new: &new, settled: known.settled_to, seed: 0 };
            match conserve::check(&self.stores, sides).await {
                Ok(_) => {}
                // An object that is gone: whether it may be, its rows say.
                Err(error) if error.kind() == Kind::Corrupt && self.is_gone(&sides).await? => {}
                Err(error) if error.kind() == Kind::Corrupt => {
                    let name = ObjectName::Slot(slot.session, slot.slot);
                    let text = format!("cleans {} wrongly: {}", cleaned.partition, Chain(&error));
                    self.fault(name.path(), text);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether one of the segments of a cleaning is not there any more.
    async fn is_gone(&self, sides: &Sides<'_>) -> Result<bool> {
        for (_, row) in sides.old.iter().chain(sides.new) {
            let Place::Segment { segment, .. } = row.place else { continue };
            if matches!(see(&self.stores, ObjectName::Segment(segment)).await?, Seen::Gone) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
