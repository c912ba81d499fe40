//! What a start does for partitions whose last owner may have shown more than the bucket has: it appends again what the
//! journal of that owner holds, at the same offsets, and tells by a gap what may be lost (ADR 18). Nothing else is
//! accepted before it is done, and doing a part of it again changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use bytes::Bytes;

use crate::durability::{Gap, GapReason};
use crate::env::apart;
use crate::error::{Kind, Result};
use crate::ids::{ClusterId, Offset, Partition, SessionId};
use crate::record::StoredBatch;
use crate::shard::changes::Entry;
use crate::shard::gaps::{self, Reservation};
use crate::shard::stream::stream_row;
use crate::wal::blocks::{Block, parse_body};
use crate::wal::journal::files::{self, FoundSession, Owner};
use crate::wal::writer::Writer;

/// So many partitions are ended in one slot.
const TAILS_AT_ONCE: usize = 4096;

/// A batch of an earlier session, and the gap before it.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) partition: Partition,
    pub(crate) gap: Option<Gap>,
    pub(crate) batch: StoredBatch,
    pub(crate) entries: Vec<Entry>,
}

/// A partition on its way.
struct Open {
    reservation: Reservation,
    next: Offset,
}

/// What a frame of a journal holds: batches, and what is to be remembered of them.
type JournalFrame = (Vec<(Partition, StoredBatch)>, Vec<Entry>);

struct Recovery<'a> {
    writer: &'a Writer,
    open: BTreeMap<Partition, Open>,
    chunk: Vec<Recovered>,
    /// The partitions in it.
    begun: HashSet<Partition>,
    chunk_bytes: usize,
}

/// Closes the reservations of earlier sessions; then their journals in `dir` are removed, but for those of other clusters.
///
/// # Errors
/// Those of a commit.
pub(crate) async fn recover(writer: &Writer, cluster: ClusterId, dir: Option<&Path>) -> Result<()> {
    let found = dir.map(files::find).unwrap_or_default();
    let mut recovery =
        Recovery { writer, open: BTreeMap::new(), chunk: Vec::new(), begun: HashSet::new(), chunk_bytes: 0 };
    for (partition, reservation) in gaps::reservations(&*writer.parts.state)? {
        match writer.next_offset(partition) {
            Ok(next) if next < reservation.to => {
                recovery.open.insert(partition, Open { reservation, next });
            }
            Ok(_) => {}
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if !recovery.open.is_empty() {
        let wanted: HashSet<SessionId> = recovery.open.values().map(|open| open.reservation.session).collect();
        let mut whole = HashSet::new();
        for (session, files) in found.iter().filter(|(session, _)| wanted.contains(session)) {
            if recovery.replay(Owner { cluster, session: *session }, files).await? {
                whole.insert(*session);
            }
        }
        recovery.flush().await?;
        recovery.end(&whole).await?;
    }
    let remove = move || {
        found.iter().for_each(|(session, files)| files.remove(Owner { cluster, session: *session }));
        Ok(())
    };
    apart("removing old journals", remove).await
}

impl Recovery<'_> {
    async fn replay(&mut self, owner: Owner, files: &FoundSession) -> Result<bool> {
        let mut whole = files.len() > 0;
        for index in 0..files.len() {
            let (bodies, ends_well) = files.read(index, owner).await;
            let frames = bodies.iter().map_while(|body| parse_frame(body).ok());
            let mut taken = 0;
            for frame in frames {
                self.take(owner.session, frame).await?;
                taken += 1;
            }
            whole &= ends_well && taken == bodies.len();
        }
        if !whole {
            tracing::warn!(session = %owner.session, "the journal of an earlier session is damaged or not complete");
        }
        Ok(whole)
    }

    /// Appends what a frame holds, if the bucket lacks it.
    async fn take(&mut self, session: SessionId, (batches, mut entries): JournalFrame) -> Result<()> {
        for (partition, batch) in batches {
            let Some(open) = self.open.get_mut(&partition) else { continue };
            // The reservation is of that session, so nobody else has given these offsets to another batch.
            let reserved = open.reservation.session == session && batch.next() <= open.reservation.to;
            if !reserved || batch.base < open.next {
                continue;
            }
            let gap = (batch.base > open.next).then_some(lost(open.next, batch.base));
            open.next = batch.next();
            // Batches of a partition stand side by side in a slot, so a gap is at their beginning.
            let begun = self.begun.contains(&partition);
            if self.chunk_bytes >= self.writer.options.slot_bytes || (gap.is_some() && begun) {
                self.flush().await?;
            }
            self.begun.insert(partition);
            self.chunk_bytes += batch.batch.len();
            self.chunk.push(Recovered { partition, gap, batch, entries: std::mem::take(&mut entries) });
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.chunk_bytes = 0;
        self.begun.clear();
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            return Ok(());
        }
        let records: u64 = chunk.iter().map(|recovered| u64::from(recovered.batch.batch.count())).sum();
        chunk.iter().filter_map(|recovered| recovered.gap).for_each(|gap| self.count(&gap));
        self.writer.recover(chunk).await?;
        tracing::info!(records, "records of the journal of an earlier session are stored");
        Ok(())
    }

    /// Ends each partition: where the journal ends if nothing else can have been shown, else behind a gap.
    async fn end(self, whole: &HashSet<SessionId>) -> Result<()> {
        let mut tails = Vec::with_capacity(self.open.len());
        for (partition, Open { reservation, next }) in &self.open {
            // After the end of a stream nothing was shown, and what was shown before it is stored if the end is.
            let closed = stream_row(&*self.writer.parts.state, *partition)?.closed.is_some();
            let complete =
                planted!(GapForgotten) || closed || (!reservation.memory && whole.contains(&reservation.session));
            let gap = (!complete && *next < reservation.to).then_some(lost(*next, reservation.to));
            if let Some(gap) = &gap {
                self.count(gap);
                tracing::warn!(%partition, from = %gap.from, to = %gap.to, "records of a weaker class may be lost");
            }
            tails.push((*partition, gap));
        }
        for tails in tails.chunks(TAILS_AT_ONCE) {
            self.writer.recover_tails(tails).await?;
        }
        Ok(())
    }

    fn count(&self, gap: &Gap) {
        self.writer.parts.metrics.gaps.inc();
        self.writer.parts.metrics.gap_offsets.inc_by(gap.to.0 - gap.from.0);
    }
}

fn parse_frame(body: &Bytes) -> Result<JournalFrame> {
    let (mut batches, mut entries) = (Vec::new(), Vec::new());
    for placed in parse_body(body)? {
        match placed.block {
            Block::Records { partition, batch } => batches.push((partition, batch)),
            Block::Changes(changes) => entries.extend(Entry::parse_all(changes)?),
        }
    }
    Ok((batches, entries))
}

fn lost(from: Offset, to: Offset) -> Gap {
    Gap { from, to, reason: GapReason::Lost }
}
