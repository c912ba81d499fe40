//! The cleaning of partitions by key: a part of the compaction task, so that nothing else moves their runs meanwhile.
//!
//! A group of partitions is cleaned at a time: their keys are noted, all of their runs are read and what is left is written
//! to segments, both sides are compared as the store holds them, and each partition's new runs are committed as one entry. Memory:
//! the keys of the group, one run as it was, and one segment. A step that fails leaves the log as it was.

use std::sync::Arc;

use super::clean::{self, Filter, Found, Keys, LOOKS_MAX, Pass, Why};
use super::compaction::Compactor;
use super::conserve::cleaned::{self as conserve, Removed, Sides};
use crate::env::{apart, new_ulid};
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::{Offset, Partition, SegmentId, Timestamp};
use crate::layout;
use crate::record::StoredBatch;
use crate::segment::build::SegmentBuilder;
use crate::segment::cleaned::{Cleaned, CleanedRun};
use crate::segment::run;
use crate::shard::changes::Entry;
use crate::shard::clean::CleanRow;
use crate::shard::rows::IndexRow;
use crate::slot::{self, Created, Object};
use crate::wal::blocks::records_len;
use crate::wal::format::{Header, ObjectKind};
use crate::wal::writer::Writer;

/// What is left of neighbouring runs of a partition, to be written.
struct Piece {
    partition: Partition,
    /// The offsets that it stands for.
    base: Offset,
    next: Offset,
    first_timestamp: Timestamp,
    last_timestamp: Timestamp,
    batches: Vec<StoredBatch>,
    len: u64,
}

/// Pieces that go into one segment, and what became of those that did.
struct Output {
    pieces: Vec<Piece>,
    bytes: u64,
    written: Vec<(Partition, CleanedRun)>,
    segments: Vec<SegmentId>,
}

impl Compactor {
    /// Cleans what is due, or all that is new when it was asked for. A turn looks at so many partitions, from `from` on, and
    /// gives where the next one goes on.
    pub(super) async fn clean(
        &self,
        writer: &Writer,
        why: Why,
        mut from: Option<Partition>,
    ) -> Result<Option<Partition>> {
        let mut left = if why == Why::Asked { usize::MAX } else { LOOKS_MAX };
        loop {
            let (state, limits) = (Arc::clone(&self.source.state), (self.segment_bytes, left));
            let look = (why, self.clock.now());
            let Found { passes, next, looks } =
                apart("cleaning", move || clean::find(&*state, from, look, limits)).await?;
            // What did not fit into the keys goes on at once.
            if self.clean_group(writer, passes).await? {
                continue;
            }
            if next.is_none() || looks == 0 {
                return Ok(next);
            }
            (from, left) = (next, looks);
        }
    }

    /// Puts the runs of partitions into other segments, so that those they stand in can go.
    pub(super) async fn move_cleaned(&self, writer: &Writer, partitions: Vec<Partition>) -> Result<()> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        for partition in partitions {
            let (state, bytes_max) = (Arc::clone(&self.source.state), self.segment_bytes);
            let look = (Why::Move, self.clock.now());
            let pass = apart("cleaning", move || clean::plan(&*state, partition, look, bytes_max)).await?;
            bytes += pass.as_ref().map_or(0, |pass| pass.bytes);
            group.extend(pass);
            if bytes >= self.segment_bytes {
                self.clean_group(writer, std::mem::take(&mut group)).await?;
                bytes = 0;
            }
        }
        self.clean_group(writer, group).await.map(|_| ())
    }

    /// True when one of the partitions has more keys than fitted.
    async fn clean_group(&self, writer: &Writer, mut passes: Vec<Pass>) -> Result<bool> {
        passes.sort_unstable_by_key(|pass| (pass.partition.shard(self.source.shards), pass.partition));
        let seed = self.seed();
        let mut room = self.clean_keys_max;
        let mut filters = Vec::with_capacity(passes.len());
        for pass in &passes {
            let filter = self.filter(pass, room, seed).await?;
            room = room.saturating_sub(filter.keys.len());
            filters.push(filter);
        }
        let mut output = Output { pieces: Vec::new(), bytes: 0, written: Vec::new(), segments: Vec::new() };
        for (pass, filter) in passes.iter().zip(&mut filters) {
            self.rewrite_pass(pass, filter, &mut output).await?;
        }
        self.write(&mut output).await?;
        let mut again = false;
        for (pass, filter) in passes.iter().zip(&filters) {
            let of = |(partition, _): &&(Partition, CleanedRun)| *partition == pass.partition;
            let runs = output.written.iter().filter(of).map(|(_, run)| *run).collect();
            let applied = self.link_pass(writer, (pass, filter), runs, seed).await;
            let applied = match applied {
                Err(error) if error.kind() == Kind::Corrupt => {
                    output.segments.iter().for_each(|segment| self.unsettled.settle(*segment));
                    return Err(error);
                }
                applied => applied?,
            };
            again |= applied && filter.keys.to < pass.end() && pass.why != Why::Move;
        }
        output.segments.iter().for_each(|segment| self.unsettled.settle(*segment));
        Ok(again)
    }

    fn seed(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, _, _] = self.rng.bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Notes the keys of what is new.
    async fn filter(&self, pass: &Pass, room: usize, seed: u64) -> Result<Filter> {
        let mut keys = Keys::new(pass.clean.to, room, seed);
        if pass.why != Why::Move {
            let mut fits = true;
            for (base, row) in pass.rows.iter().filter(|(base, row)| base.plus(row.count) > pass.clean.to) {
                let batches = run::read(&self.source.stores, pass.partition, (*base, row)).await?;
                (keys, fits) = apart("cleaning", move || {
                    let fits = keys.note(&batches);
                    Ok((keys, fits))
                })
                .await?;
                if !fits {
                    break;
                }
            }
            if fits {
                keys.noted_up_to(pass.end());
            }
        }
        Ok(Filter { keys, settled: pass.settled, end: pass.end(), tombstones: 0 })
    }

    /// Takes the runs of a pass into segments. A segment ends after any batch: runs need not end where they did. But the first
    /// one reaches beyond the start of the partition, as the index holds nothing that is wholly below it.
    async fn rewrite_pass(&self, pass: &Pass, filter: &mut Filter, output: &mut Output) -> Result<()> {
        let mut open: Option<Piece> = None;
        for (base, row) in &pass.rows {
            let (mut at, end) = (*base, base.plus(row.count));
            if let Some(piece) = open.take_if(|piece| end.0 - piece.base.0 > u64::from(u32::MAX)) {
                if piece.batches.is_empty() {
                    return Err(Error::new(Kind::Busy, format!("too much of {} goes at once", pass.partition)));
                }
                output.take(Some(piece));
                self.write(output).await?;
            }
            for batch in run::read(&self.source.stores, pass.partition, (*base, row)).await? {
                let time = if at == *base { row.first_timestamp } else { batch.timestamp };
                let piece = open.get_or_insert_with(|| Piece::begin(pass.partition, at, time));
                piece.add(filter.retain(&batch), (batch.next(), batch.timestamp));
                at = batch.next();
                let is_full = output.bytes + piece.len >= self.segment_bytes && !piece.batches.is_empty();
                if is_full && at > pass.start {
                    output.take(open.take());
                    self.write(output).await?;
                }
            }
            if at < end || open.is_some() {
                let last = row.span.map_or(row.first_timestamp, |span| span.last_timestamp);
                let piece = open.get_or_insert_with(|| Piece::begin(pass.partition, at, last));
                let last = last.max(piece.last_timestamp);
                piece.add(Vec::new(), (end, last));
            }
        }
        output.take(open);
        Ok(())
    }

    /// Writes the pieces that have come together into a segment.
    async fn write(&self, output: &mut Output) -> Result<()> {
        let pieces = std::mem::take(&mut output.pieces);
        output.bytes = 0;
        if pieces.is_empty() {
            return Ok(());
        }
        let segment = SegmentId(new_ulid(&*self.clock, &*self.rng));
        let (session, shards) = (self.source.session, self.source.shards);
        let (object, runs) = apart("cleaning", move || {
            let mut builder = SegmentBuilder::new()?;
            let (mut runs, mut position) = (Vec::with_capacity(pieces.len()), 0);
            for piece in &pieces {
                for batch in &piece.batches {
                    builder.push(piece.partition.shard(shards), piece.partition, batch)?;
                }
                runs.push((piece.partition, piece.run(segment, position)));
                position += runs[runs.len() - 1].1.len;
            }
            let built = builder.finish()?;
            let header = Header::new(ObjectKind::Segment, session, 0);
            let object = Object::new(layout::segment(segment), header, built.body);
            let (object_len, content_len) = (object.header.object_len(), built.content_len);
            runs.iter_mut().for_each(|(_, run)| (run.object_len, run.content_len) = (object_len, content_len));
            Ok((object, runs))
        })
        .await?;
        let object_len = object.header.object_len();
        self.unsettled.begin(segment);
        match slot::create(&self.source.stores, &object, &self.health, None).await? {
            Created::Ours => {}
            Created::Taken(_) => {
                return Err(Error::new(Kind::Corrupt, format!("object {} is already there", object.path)));
            }
        }
        self.metrics.segments.inc();
        self.metrics.cleaning_bytes.inc_by(object_len);
        self.metrics.segment_content_bytes.inc_by(runs.first().map_or(0, |(_, run)| u64::from(run.content_len)));
        output.written.extend(runs);
        output.segments.push(segment);
        Ok(())
    }

    /// Compares what was written with what was there, and commits it; true when it stands.
    async fn link_pass(
        &self,
        writer: &Writer,
        (pass, filter): (&Pass, &Filter),
        runs: Vec<CleanedRun>,
        seed: u64,
    ) -> Result<bool> {
        let partition = pass.partition;
        let new: Vec<(Offset, IndexRow)> = runs.iter().map(|run| (run.base, run.row(0))).collect();
        let sides = Sides { partition, old: &pass.rows, new: &new, settled: pass.settled, seed };
        let removed = match conserve::check(&self.source.stores, sides).await {
            Err(error) if error.kind() == Kind::Corrupt => {
                self.metrics.segment_mismatches.inc();
                tracing::error!(%partition, error = %Chain(&error), "what was cleaned is wrong, it is not used");
                return Err(error);
            }
            removed => removed?,
        };
        let cleaned = Cleaned {
            partition,
            clean: pass.after(filter, self.clock.now()),
            rows: u32::try_from(pass.rows.len()).expect("a pass has at most 16,384 rows"),
            bytes: pass.bytes,
            runs,
        };
        writer.commit_links(vec![Entry::Cleaned(cleaned.clone())]).await?;
        let applied = self.stands(&cleaned)?;
        if applied {
            self.source.tail.forget(partition, cleaned.next());
            self.count_cleaned(removed);
        } else {
            self.metrics.unlinked_runs.inc_by(cleaned.runs.len() as u64);
        }
        Ok(applied)
    }

    fn count_cleaned(&self, removed: Removed) {
        self.metrics.cleanings.inc();
        self.metrics.cleaned_records.inc_by(removed.records);
        self.metrics.cleaned_bytes.inc_by(removed.bytes);
    }

    /// Whether the index holds it.
    fn stands(&self, cleaned: &Cleaned) -> Result<bool> {
        let state = &*self.source.state;
        let Some(first) = cleaned.runs.first() else { return Ok(false) };
        let row = state.get(&layout::index_key(cleaned.partition, first.base))?.map(IndexRow::parse).transpose()?;
        let known = CleanRow::load(state, cleaned.partition)?;
        Ok(row.is_some_and(|row| row.place == first.row(0).place && row.kept == Some(first.kept))
            && known.is_some_and(|known| known.to == cleaned.clean.to))
    }
}

impl Piece {
    fn begin(partition: Partition, base: Offset, time: Timestamp) -> Self {
        Self { partition, base, next: base, first_timestamp: time, last_timestamp: time, batches: Vec::new(), len: 0 }
    }

    fn add(&mut self, batches: Vec<StoredBatch>, (next, last): (Offset, Timestamp)) {
        self.len += batches.iter().map(|batch| records_len(batch) as u64).sum::<u64>();
        self.batches.extend(batches);
        (self.next, self.last_timestamp) = (next, last);
    }

    /// The run that it is in a segment; of what object comes later.
    fn run(&self, segment: SegmentId, position: u32) -> CleanedRun {
        CleanedRun {
            segment,
            object_len: 0,
            content_len: 0,
            base: self.base,
            count: u32::try_from(self.next.0 - self.base.0).expect("a piece ends before its offsets are too many"),
            position,
            len: u32::try_from(self.len).expect("a segment is bounded far below 4 GiB"),
            kept: self.batches.iter().map(|batch| batch.batch.count()).sum(),
            first_timestamp: self.first_timestamp,
            last_timestamp: self.last_timestamp,
        }
    }
}

impl Output {
    fn take(&mut self, piece: Option<Piece>) {
        if let Some(piece) = piece {
            self.bytes += piece.len;
            self.pieces.push(piece);
        }
    }
}
