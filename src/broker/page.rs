//! One page of records, at once or as soon as there is one (long-poll).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use plinth_storage::ahead::Scan;
use plinth_storage::ids::{Offset, Partition};
use plinth_storage::record::{Run, StoredBatch};
use plinth_storage::{Gap, GapReason, Kind};
use tokio::time::{Instant, timeout_at};

use super::batch::FollowedBatch;
use super::catalog::{Topic, gone};
use super::error::Error;
use super::from::{From, Origin};
use super::{Broker, proved};
use crate::auth::{Action, TopicRef};

/// Bytes that one look into the log takes.
const READ_BYTES: usize = 1024 * 1024;

/// About how many bytes of expired records one page passes over; it ends there.
const EXPIRED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Gaps that one page tells of; one with more ends there.
const GAPS_MAX: usize = 1000;

/// Which records are wanted.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// The topic.
    pub topic: TopicRef,
    /// One partition; without it all of them.
    pub partition: Option<u32>,
    /// Where to begin.
    pub from: From,
    /// Most records, at least 1; a single unit may have more.
    pub limit: usize,
    /// Most payload bytes of records, or bytes of batches; a single unit may have more.
    pub bytes_max: usize,
    /// What a page is made of.
    pub unit: Unit,
    /// How long to wait for the first record when there is none.
    pub wait: Option<Duration>,
}

/// What a page is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Records, from exactly the one that is asked for.
    Record,
    /// Batches as they are stored: the first one may begin before the record that is asked for, but never with one that was
    /// deleted.
    Batch,
}

/// A page of records.
pub struct Page {
    /// The records, in order within each partition.
    pub slices: Vec<FollowedBatch>,
    /// The cursor after them.
    pub next: String,
    /// Whether it reached the tail of every partition.
    pub caught_up: bool,
    /// Where records are missing, in order within each partition.
    pub gaps: Vec<PageGap>,
}

/// Records that are missing in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageGap {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The offset at which it would have gone on.
    pub requested: u64,
    /// The offset at which it went on.
    pub resumed_at: u64,
    /// Why.
    pub reason: &'static str,
}

/// What one look into the log found.
#[derive(Default)]
struct Found {
    slices: Vec<FollowedBatch>,
    gaps: Vec<PageGap>,
}

/// A partition of the page and its next offset.
struct Place {
    partition: Partition,
    /// Where the partition began when it was last looked at: what is below was deleted.
    start: Offset,
    next: Offset,
    scan: Scan,
    /// What was read and is not in the page.
    rest: VecDeque<Arc<StoredBatch>>,
}

/// What may still go into the page.
struct Room {
    unit: Unit,
    records: usize,
    bytes: usize,
    /// Bytes of expired records that may still be passed over: they cost a look, and fill no page.
    expired: usize,
    empty: bool,
}

impl Page {
    /// How many records and about how many bytes.
    fn sizes(slices: &[FollowedBatch]) -> (u64, u64) {
        slices
            .iter()
            .fold((0, 0), |(records, bytes), slice| (records + u64::from(slice.count()), bytes + slice.bytes() as u64))
    }
}

impl Broker {
    /// Reads a page. Cancel safe.
    ///
    /// # Errors
    /// `NotFound`; `InvalidCursor`; `Invalid` for a partition that does not exist and for an offset of several
    /// partitions; `Trimmed` and `AboveTail` for an offset that is not there; `QuotaExceeded` while what was read before
    /// is not paid for; those of the log.
    pub async fn page(&self, request: PageRequest) -> Result<Page, Error> {
        proved(request.topic.action(), Action::Subscribe)?;
        let topic = self.catalog().get_to_read(&request.topic).await?;
        let deadline = request.wait.map(|wait| Instant::now() + wait);
        let mut places = self.begin_page(&topic, &request).await?;
        let mut follow = self.log().follow();
        if deadline.is_some() {
            for place in &places {
                follow.add(place.partition);
            }
        }
        loop {
            let charge = request.topic.account().meters().owe_page(request.limit as u64, request.bytes_max as u64)?;
            let mut found = Found::default();
            let caught_up = self.fill(&topic, &mut places, &request, &mut found).await?;
            let Found { slices, gaps } = found;
            let (records, bytes) = Page::sizes(&slices);
            charge.settle(records, bytes);
            let more = match deadline {
                Some(deadline) if slices.is_empty() && gaps.is_empty() => {
                    timeout_at(deadline, follow.changed()).await.is_ok()
                }
                Some(_) | None => false,
            };
            if !more {
                let positions = places.iter().map(|place| (place.partition, place.next));
                let next = self.cursors().write(topic.tenant, positions);
                // The client will likely come back for the next page.
                for Place { next, scan, rest, .. } in places.into_iter().filter(|_| !caught_up) {
                    self.log().park(scan, next, rest);
                }
                return Ok(Page { slices, next, caught_up, gaps });
            }
        }
    }

    async fn begin_page(&self, topic: &Topic, request: &PageRequest) -> Result<Vec<Place>, Error> {
        let chosen = topic.chosen(request.partition)?;
        if matches!(request.from, From::Offset(_)) && chosen.len() > 1 {
            return Err(one_partition_only());
        }
        let origin = request.from.resolve(self.cursors(), topic.tenant)?;
        let partitions = chosen.map(|index| topic.partition(index)).collect::<Vec<_>>();
        check_cursor(&origin, topic, &partitions)?;
        let mut places = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let begin = origin.begin(self.log(), partition).await.map_err(|error| named(&topic.name, error))?;
            let next = begin.exactly()?;
            let scan = self.log().reader_at(partition, next);
            places.push(Place { partition, start: Offset(0), next, scan, rest: VecDeque::new() });
        }
        Ok(places)
    }

    /// Fills a page, the partitions that are furthest behind first; tells whether all tails were reached.
    async fn fill(
        &self,
        topic: &Arc<Topic>,
        places: &mut [Place],
        request: &PageRequest,
        found: &mut Found,
    ) -> Result<bool, Error> {
        let mut behind = Vec::new();
        for (index, place) in places.iter_mut().enumerate() {
            let bounds = self.log().bounds(place.partition).map_err(|error| gone(&topic.name, error))?;
            place.start = bounds.start;
            if place.next < bounds.tail {
                behind.push((bounds.tail.0 - place.next.0, index));
            }
        }
        behind.sort_unstable_by_key(|&(records, index)| (std::cmp::Reverse(records), index));
        let mut unread: Vec<usize> = behind.into_iter().map(|(_, index)| index).collect();
        let PageRequest { limit, bytes_max, unit, .. } = *request;
        let mut room = Room { unit, records: limit.max(1), bytes: bytes_max, expired: EXPIRED_BYTES_MAX, empty: true };
        while !unread.is_empty() {
            let share = (room.bytes / unread.len()).clamp(1, READ_BYTES);
            let mut unread_next = Vec::with_capacity(unread.len());
            for index in unread {
                let place = &mut places[index];
                let batches = match self.log().read_on(&mut place.scan, place.next, share).await {
                    Err(error) if error.kind() == Kind::OutOfRange => {
                        let Some(gap) = self.log().gap_at(place.partition, place.next)? else {
                            // What was read before it is a page; the next one tells of it.
                            let some = !found.slices.is_empty();
                            return if some { Ok(false) } else { Err(self.lost(topic, place, &request.from)) };
                        };
                        found.gaps.push(place.skip(&topic.name, &gap));
                        if found.gaps.len() >= GAPS_MAX {
                            return Ok(false);
                        }
                        unread_next.push(index);
                        continue;
                    }
                    read => read.map_err(|error| gone(&topic.name, error))?,
                };
                place.rest = batches.into_iter().map(|stored| place.kept(stored)).collect();
                if !place.rest.is_empty() {
                    unread_next.push(index);
                }
                if !self.take(topic, place, &mut room, found)? {
                    return Ok(false);
                }
            }
            unread = unread_next;
        }
        Ok(true)
    }

    /// Puts what was read of a place into the page; tells whether there may be more.
    fn take(&self, topic: &Arc<Topic>, place: &mut Place, room: &mut Room, found: &mut Found) -> Result<bool, Error> {
        while let Some(stored) = place.rest.front().cloned() {
            self.pass_over(topic, place, (stored.base, room.unit), found)?;
            let run = stored.run_at(place.next, || self.log().now());
            if run.expired {
                let gap = Gap { from: place.next, to: run.end, reason: GapReason::Expired };
                found.pass(place.skip(&topic.name, &gap));
            }
            if found.gaps.len() >= GAPS_MAX {
                return Ok(false);
            }
            if !run.expired {
                let live = self.live(topic, place, (&stored, run), room.unit);
                let Some(slice) = room.admit(live, place.next) else { return Ok(false) };
                if room.unit == Unit::Batch {
                    found.forget(slice.partition, slice.base());
                }
                place.next = slice.next_after(slice.take);
                found.slices.push(slice);
                if place.next < run.end {
                    return Ok(false);
                }
            }
            if place.next == stored.next() {
                place.rest.pop_front();
                if run.expired && !room.pass(stored.batch.len()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The records of a run that is not expired. A batch with expired records does not travel whole.
    fn live(
        &self,
        topic: &Arc<Topic>,
        place: &Place,
        (stored, run): (&Arc<StoredBatch>, Run),
        unit: Unit,
    ) -> FollowedBatch {
        let whole = |stored| FollowedBatch::whole(self, topic, place.partition, stored, false);
        match unit {
            Unit::Record => whole(Arc::clone(stored)).within(place.next, run.end),
            Unit::Batch => {
                let first = stored.run_at(stored.base, || self.log().now());
                let intact = !first.expired && first.end == stored.next();
                whole(if intact { Arc::clone(stored) } else { Arc::new(stored.part(place.next, run.end)) })
            }
        }
    }

    /// Tells what is missing before the next batch, which begins at `base`.
    fn pass_over(
        &self,
        topic: &Topic,
        place: &mut Place,
        (base, unit): (Offset, Unit),
        found: &mut Found,
    ) -> Result<(), Error> {
        while place.next < base {
            let gap = self.log().passed(place.partition, place.next, base)?;
            let told = place.skip(&topic.name, &gap);
            // Between stored batches everyone sees what a cleaning took away.
            if unit == Unit::Record || gap.reason != GapReason::Compacted {
                found.gaps.push(told);
            }
        }
        Ok(())
    }

    /// What it means that a place was trimmed since the page was begun: `Trimmed` if the client named it, and `Busy` if he
    /// did not, because the same request then begins elsewhere.
    fn lost(&self, topic: &Topic, place: &Place, from: &From) -> Error {
        let (requested, named) = (place.next, matches!(from, From::Offset(_) | From::Cursor(_)));
        match self.log().bounds(place.partition).map(|bounds| bounds.start) {
            Ok(start) if named && start > requested => Error::Trimmed { requested: requested.0, start: start.0 },
            Ok(_) => Error::Busy(format!("offset {requested} of topic {} was trimmed while it was read", topic.name)),
            Err(error) => gone(&topic.name, error),
        }
    }
}

impl Found {
    /// Tells of records that have expired: side by side they are one gap.
    fn pass(&mut self, gap: PageGap) {
        let last = self.gaps.iter_mut().rfind(|last| last.partition == gap.partition);
        match last.filter(|last| last.reason == gap.reason && last.resumed_at == gap.requested) {
            Some(last) => last.resumed_at = gap.resumed_at,
            None => self.gaps.push(gap),
        }
    }

    /// Takes back the gap of expired records before a batch in its stored form, whose head says where it begins.
    fn forget(&mut self, partition: u32, base: u64) {
        let expired = GapReason::Expired.as_str();
        self.gaps.retain(|gap| (gap.partition, gap.resumed_at, gap.reason) != (partition, base, expired));
    }
}

impl Place {
    /// What is left of a batch.
    fn kept(&self, stored: Arc<StoredBatch>) -> Arc<StoredBatch> {
        if stored.base < self.start { Arc::new(stored.from_offset(self.start)) } else { stored }
    }

    /// Goes on behind a gap.
    fn skip(&mut self, topic: &Arc<str>, gap: &Gap) -> PageGap {
        let requested = std::mem::replace(&mut self.next, gap.to);
        PageGap {
            topic: Arc::clone(topic),
            partition: self.partition.index.0,
            requested: requested.0,
            resumed_at: gap.to.0,
            reason: gap.reason.as_str(),
        }
    }
}

impl Room {
    /// Notes that a batch which ends with expired records was passed over; false when that is enough for a page.
    fn pass(&mut self, bytes: usize) -> bool {
        self.expired = self.expired.saturating_sub(bytes);
        self.expired > 0
    }

    /// As much of a batch as fits, of its records from `next` on; none when nothing does.
    fn admit(&mut self, batch: FollowedBatch, next: Offset) -> Option<FollowedBatch> {
        match self.unit {
            Unit::Record => self.admit_records(batch, next),
            Unit::Batch => self.admit_whole(batch, next),
        }
    }

    fn admit_whole(&mut self, batch: FollowedBatch, next: Offset) -> Option<FollowedBatch> {
        let (records, bytes) = ((batch.take - skipped(&batch, next)) as usize, batch.bytes());
        if !self.empty && (records > self.records || bytes > self.bytes) {
            return None;
        }
        self.records = self.records.saturating_sub(records);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        Some(batch)
    }

    fn admit_records(&mut self, mut batch: FollowedBatch, next: Offset) -> Option<FollowedBatch> {
        drop(batch.split_to(skipped(&batch, next)));
        let count = u32::try_from(self.records).unwrap_or(u32::MAX).min(batch.take);
        let mut bytes = 0;
        let fits = |payload: &bytes::Bytes| {
            bytes += payload.len();
            bytes <= self.bytes
        };
        let fitting = batch.payloads().take(count as usize).take_while(fits).count();
        let fitting = if self.empty { fitting.max(1) } else { fitting };
        let slice = batch.split_to(u32::try_from(fitting).expect("not more than the batch has"));
        self.records -= fitting;
        self.bytes = self.bytes.saturating_sub(slice.payloads().map(|payload| payload.len()).sum());
        self.empty = false;
        (slice.take > 0).then_some(slice)
    }
}

/// Records of the batch before the offset `next`, which is in it.
pub(crate) fn skipped(batch: &FollowedBatch, next: Offset) -> u32 {
    u32::try_from(next.0.saturating_sub(batch.base())).expect("the offset is in the batch")
}

/// Checks that a cursor for one topic names it: one of an earlier topic of that name does not.
///
/// # Errors
/// `InvalidCursor`.
pub(crate) fn check_cursor(origin: &Origin, topic: &Topic, partitions: &[Partition]) -> Result<(), Error> {
    if let Origin::Cursor(positions) = origin
        && !partitions.iter().any(|partition| positions.contains_key(partition))
    {
        return Err(Error::InvalidCursor(format!("the cursor is not one of topic {} as it is now", topic.name)));
    }
    Ok(())
}

/// The error for an offset where several partitions are read.
pub(crate) fn one_partition_only() -> Error {
    Error::Invalid("from offset:N needs one partition: the topic has several and none is named".into())
}

/// Names the topic that the log does not know any more.
pub(crate) fn named(topic: &str, error: Error) -> Error {
    if matches!(error, Error::NotFound(_)) { Error::NotFound(format!("there is no topic {topic}")) } else { error }
}
