//! The callers' side of streams: steps, and topics that are made with what they begin with.

use super::Writer;
use crate::durability::Durability;
use crate::error::Result;
use crate::ids::{Offset, Partition, Timestamp};
use crate::record::Batch;
use crate::shard::changes::Change;
use crate::shard::rows::PartitionRow;
use crate::spans;
use crate::wal::buffer::early::Want;
use crate::wal::buffer::stream::{Accepted, First, Step};
use crate::wal::buffer::{Room, room_of};

impl Writer {
    /// Does a step of a stream; returns when it is acknowledged, with the class that was reached. Dropping the future does
    /// not undo it.
    pub(crate) async fn step(&self, step: Step<'_>, batch: Option<Batch>) -> Result<(Accepted, Durability)> {
        let mut accepted = match self.take_step(step, batch).await {
            Ok(accepted) => accepted,
            Err(error) => return Err(self.refused(step.at.partition, error).await),
        };
        let reached = match accepted.ack.take() {
            None => Durability::Object,
            Some(ack) if accepted.duplicate => self.certain(ack).await?,
            Some(ack) => self.acknowledged(ack).await?,
        };
        Ok((accepted, reached))
    }

    async fn take_step(&self, mut step: Step<'_>, batch: Option<Batch>) -> Result<Accepted> {
        let span = batch.as_ref().map(|batch| spans::append(step.at.partition, batch));
        let len = batch.as_ref().map_or(0, Batch::len);
        let room = match self.room_at_once(step.at.want, len) {
            Some(room) => room,
            None => {
                // What was done before needs no room and no store: it is answered while there is neither.
                let done = self.core().done(&*self.parts.state, step, batch.is_some())?;
                if let Some(done) = done {
                    return Ok(done);
                }
                self.take_room_of(step.at.want, len).await?
            }
        };
        let (accepted, shown, news) = {
            let mut core = self.core();
            step.at.want.away = self.parts.health.is_away();
            core.roll();
            let remembered = core.open.early.entries.len();
            let accepted = core.step(&*self.parts.state, step, batch);
            let Ok(accepted) = accepted else {
                self.give_back(room);
                return accepted;
            };
            if accepted.duplicate {
                self.give_back(room);
                return Ok(accepted);
            }
            let shown = match &accepted.submitted {
                Some(submitted) => {
                    span.iter().for_each(|span| core.open.traced.add(span));
                    self.show_or_journal(&core, step.at.partition, submitted, remembered)
                }
                None => false,
            };
            (accepted, shown, core.is_news())
        };
        self.submitted(step.at.partition, shown, news);
        Ok(accepted)
    }

    /// Room for a step, if there is some now and the class needs not wait.
    fn room_at_once(&self, want: Want, len: usize) -> Option<Room> {
        let room = room_of(len);
        let permits = u32::try_from(room).ok()?;
        if want.durability == Durability::Object {
            self.check_available().ok()?;
            self.room.try_acquire_many(permits).ok()?.forget();
            return Some(Room { pending: room, unstored: 0 });
        }
        if !self.in_time() {
            return None;
        }
        self.unstored_room.try_acquire_many(permits).ok()?.forget();
        Some(Room { pending: 0, unstored: room })
    }

    /// Commits a change that makes a topic, with what it begins with.
    pub(crate) async fn create(&self, change: &Change, first: First, now: Timestamp) -> Result<Offset> {
        let room = room_of(change.len()) + first.batch.as_ref().map_or(0, |batch| room_of(batch.len()));
        self.take_room(room).await?;
        let accepted = {
            let mut core = self.core();
            self.check_available().and_then(|()| core.create(&*self.parts.state, change, (first, now)))
        };
        let (tail, ack) = accepted.inspect_err(|_| self.room.add_permits(room))?;
        self.wake.notify_one();
        self.acknowledged(ack).await?;
        Ok(tail)
    }

    /// The committed bounds of a partition, the end of what may be read, and whether nothing comes after it.
    pub(crate) fn seen(&self, partition: Partition) -> Result<(PartitionRow, Offset, bool)> {
        self.core().seen(&*self.parts.state, partition)
    }
}
