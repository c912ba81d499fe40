//! Read a stream from an offset: one page, of one moment.
//!
//! The end and whether the stream is closed are taken at once, before anything is read, and nothing behind that end is
//! given: so a page that reaches it says truly whether more can come.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use plinth_storage::ahead::Scan;
use plinth_storage::ids::Offset;
use plinth_storage::log::Bounds;
use plinth_storage::record::StoredBatch;
use plinth_storage::{Gap, GapReason, Kind};

use super::{StreamFrom, StreamView, Token, check_is_stream, state};
use crate::auth::{Action, TopicRef};
use crate::broker::batch::FollowedBatch;
use crate::broker::catalog::{Topic, gone};
use crate::broker::error::Error;
use crate::broker::page::PageGap;
use crate::broker::{Broker, proved};
use crate::render::{StreamForm, joined};

/// Bytes that one look into the log takes.
const READ_BYTES: usize = 1024 * 1024;
/// Gaps that one answer tells of; one with more ends there.
const GAPS_MAX: usize = 100;
/// About how many bytes of expired records one answer passes over.
const EXPIRED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What stands between two messages in an array.
const SEPARATOR_BYTES: usize = 1;
/// Payloads from this size on are pieces of their own, shared with who else reads them.
const OWN_PIECE_BYTES: usize = 4 * 1024;

/// A page of a stream.
#[derive(Debug)]
pub struct StreamPage {
    /// The stream, as it was when the page was read.
    pub view: StreamView,
    /// The offset of its first record.
    pub from: Offset,
    /// What is in it, to be sent one after the other: of a JSON stream one array, else the bytes as they were appended.
    pub pieces: Vec<Bytes>,
    /// The offset after it.
    pub to: Offset,
    /// The same for clients.
    pub next: Token,
    /// Whether it reaches the end of the stream.
    pub up_to_date: bool,
    /// Whether it reaches the end and nothing can come.
    pub closed: bool,
    /// Where records are missing in it.
    pub gaps: Vec<PageGap>,
    /// How many records are in it.
    pub records: u64,
    /// How many bytes are held for it while it is sent.
    pub held_bytes: u64,
}

/// A place in a stream from which is read in order.
pub(super) struct Reading {
    pub(super) topic: Arc<Topic>,
    /// Where the next look begins.
    pub(super) next: Offset,
    /// How far the look under way has come: one that is dropped has given nothing.
    reached: Offset,
    scan: Scan,
    /// What was read and not given, from `reached` on.
    rest: VecDeque<Arc<StoredBatch>>,
    /// Whether others likely read the same just now.
    pub(super) live: bool,
}

/// What one look found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) batches: Vec<FollowedBatch>,
    pub(super) gaps: Vec<PageGap>,
    bytes: usize,
    records: usize,
    expired: usize,
}

impl Broker {
    /// The stream as it is now.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a topic that is no stream; those of the log.
    pub fn stream(&self, topic: &TopicRef) -> Result<StreamView, Error> {
        proved(topic.action(), Action::View)?;
        let topic = self.catalog().get(topic)?;
        check_is_stream(&topic)?;
        Ok(StreamView::of(&topic, &self.bounds_of(&topic)?))
    }

    /// Reads a page of at most about `bytes_max` bytes, a single record may have more. Cancel safe.
    ///
    /// # Errors
    /// `NotFound`; `Gone` for an offset of an earlier stream, and for one that is no longer kept; `Invalid` for one that the
    /// stream never gave; `Conflict` for a topic that is no stream; `QuotaExceeded` while what was read before is not paid
    /// for; those of the log.
    pub async fn read_stream(&self, topic: &TopicRef, from: StreamFrom, bytes_max: usize) -> Result<StreamPage, Error> {
        proved(topic.action(), Action::Subscribe)?;
        let found = self.catalog().get_to_read(topic).await?;
        check_is_stream(&found)?;
        let bounds = self.bounds_of(&found)?;
        let view = StreamView::of(&found, &bounds);
        let from = from.resolve(&found, &bounds)?;
        let charge = topic.account().meters().owe_page(1, bytes_max as u64)?;
        let mut reading = Reading::new(self, found, from);
        let found = reading.look(self, bounds.tail, bytes_max).await?;
        let (records, bytes) = found.sizes();
        charge.settle(records, bytes);
        let (next, up_to_date) = (reading.topic.token(reading.next), reading.next >= bounds.tail);
        let (to, closed) = (reading.next, up_to_date && bounds.closed);
        let pieces = pieces(&reading.topic, &found.batches);
        let held_bytes = found.batches.iter().map(FollowedBatch::pinned_bytes).sum();
        if !up_to_date {
            // The client will likely come back for the next page.
            self.log().park(reading.scan, reading.next, reading.rest);
        }
        Ok(StreamPage { view, from, pieces, to, next, up_to_date, closed, gaps: found.gaps, records, held_bytes })
    }

    pub(super) fn bounds_of(&self, topic: &Topic) -> Result<Bounds, Error> {
        self.log().bounds(topic.partition(0)).map_err(|error| gone(&topic.name, error))
    }
}

impl StreamFrom {
    /// The offset in a stream.
    pub(super) fn resolve(self, topic: &Topic, bounds: &Bounds) -> Result<Offset, Error> {
        match self {
            Self::Start => Ok(bounds.start),
            Self::Now => Ok(bounds.tail),
            Self::At(token) => token.resolve(topic.readable(bounds)),
        }
    }
}

impl Found {
    /// How many records, and about how many bytes.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let records = self.batches.iter().map(|batch| u64::from(batch.count())).sum();
        (records, self.bytes as u64)
    }

    /// As much of a run as fits, at least one record of the first.
    fn admit(&mut self, run: FollowedBatch, bytes_max: usize) -> FollowedBatch {
        let mut filled = self.filled();
        let fits = |payload: &Bytes| {
            filled += payload.len() + SEPARATOR_BYTES;
            filled <= bytes_max
        };
        let fitting = run.payloads().take_while(fits).count();
        let fitting = if self.records == 0 { fitting.max(1) } else { fitting };
        let taken = run.first(u32::try_from(fitting).expect("not more than the run has"));
        self.bytes += taken.payloads().map(|payload| payload.len()).sum::<usize>();
        self.records += taken.count() as usize;
        taken
    }

    fn pass(&mut self, topic: &Topic, gap: &Gap) {
        let (requested, resumed_at, reason) = (gap.from.0, gap.to.0, gap.reason.as_str());
        match self.gaps.last_mut().filter(|last| last.resumed_at == requested && last.reason == reason) {
            Some(last) => last.resumed_at = resumed_at,
            None => {
                let topic = Arc::clone(&topic.name);
                self.gaps.push(PageGap { topic, partition: 0, requested, resumed_at, reason });
            }
        }
    }

    /// About how many bytes an answer with it has.
    fn filled(&self) -> usize {
        self.bytes + self.records * SEPARATOR_BYTES
    }

    fn is_full(&self, bytes_max: usize) -> bool {
        self.filled() >= bytes_max.max(1) || self.gaps.len() >= GAPS_MAX || self.expired >= EXPIRED_BYTES_MAX
    }
}

impl Reading {
    pub(super) fn new(broker: &Broker, topic: Arc<Topic>, next: Offset) -> Self {
        let scan = broker.log().reader_at(topic.partition(0), next);
        Self { topic, next, reached: next, scan, rest: VecDeque::new(), live: false }
    }

    /// What comes next and is below `end`, up to about `bytes_max` bytes. Cancel safe: a dropped call may be made again.
    pub(super) async fn look(&mut self, broker: &Broker, end: Offset, bytes_max: usize) -> Result<Found, Error> {
        if self.reached != self.next {
            // The look before was dropped, or failed.
            self.reached = self.next;
            self.rest.clear();
        }
        let mut found = Found::default();
        self.fill(broker, end, bytes_max, &mut found).await?;
        self.next = self.reached;
        Ok(found)
    }

    async fn fill(&mut self, broker: &Broker, end: Offset, bytes_max: usize, found: &mut Found) -> Result<(), Error> {
        while self.reached < end && !found.is_full(bytes_max) {
            if self.rest.is_empty() && !self.load(broker, bytes_max.clamp(1, READ_BYTES), found).await? {
                // What was there was cleaned away up to the end.
                let passed = broker.log().passed(self.topic.partition(0), self.reached, end)?;
                self.skip(&passed, found);
                continue;
            }
            let Some(stored) = self.rest.front().cloned() else { continue };
            if self.reached < stored.base {
                let passed = broker.log().passed(self.topic.partition(0), self.reached, stored.base)?;
                self.skip(&passed, found);
                continue;
            }
            let run = stored.run_at(self.reached, || broker.log().now());
            let until = run.end.min(end);
            if run.expired {
                found.expired += stored.batch.len();
                self.skip(&Gap { from: self.reached, to: until, reason: GapReason::Expired }, found);
            } else {
                let place = self.topic.partition(0);
                let whole = FollowedBatch::whole(broker, &self.topic, place, Arc::clone(&stored), self.live);
                let taken = found.admit(whole.within(self.reached, until), bytes_max);
                if taken.count() == 0 {
                    return Ok(());
                }
                self.reached = taken.next_after(taken.count());
                found.batches.push(taken);
            }
            if self.reached >= stored.next() {
                self.rest.pop_front();
            }
        }
        Ok(())
    }

    /// Reads on; false when there is nothing.
    async fn load(&mut self, broker: &Broker, bytes: usize, found: &mut Found) -> Result<bool, Error> {
        let place = self.topic.partition(0);
        match broker.log().read_on(&mut self.scan, self.reached, bytes).await {
            Ok(batches) => {
                self.rest = batches.into();
                Ok(!self.rest.is_empty())
            }
            Err(error) if error.kind() == Kind::OutOfRange => match broker.log().gap_at(place, self.reached)? {
                Some(gap) => {
                    self.skip(&Gap { from: self.reached, ..gap }, found);
                    Ok(true)
                }
                None => Err(Error::Gone("what is at the offset is no longer kept; -1 is the first that is".into())),
            },
            Err(error) => Err(gone(&self.topic.name, error)),
        }
    }

    fn skip(&mut self, gap: &Gap, found: &mut Found) {
        found.pass(&self.topic, gap);
        self.reached = gap.to;
    }
}

/// The payloads, to be sent one after the other.
pub(super) fn pieces(topic: &Topic, batches: &[FollowedBatch]) -> Vec<Bytes> {
    let (mut pieces, mut open) = (Vec::new(), BytesMut::new());
    let is_json = topic.media().is_json();
    let mut before: &[u8] = if is_json { b"[" } else { b"" };
    for part in batches.iter().flat_map(|batch| parts(topic, batch)) {
        open.extend_from_slice(before);
        if part.len() < OWN_PIECE_BYTES {
            open.extend_from_slice(&part);
        } else {
            if !open.is_empty() {
                pieces.push(open.split().freeze());
            }
            pieces.push(part);
        }
        before = if is_json { b"," } else { b"" };
    }
    if is_json {
        open.extend_from_slice(if before == b"[" { b"[]" } else { b"]" });
    }
    if !open.is_empty() {
        pieces.push(open.freeze());
    }
    pieces
}

/// The payloads of a batch; many small ones as one that is shared, where others likely read the same.
fn parts(topic: &Topic, batch: &FollowedBatch) -> impl Iterator<Item = Bytes> {
    let are_small = batch.count() > 1 && batch.bytes() < batch.count() as usize * OWN_PIECE_BYTES;
    let joined = (are_small && batch.is_shared()).then(|| {
        let bytes = batch.bytes() + batch.count() as usize;
        batch.of_stream(StreamForm::Joined, || joined(topic.media().is_json(), payloads(topic, batch), bytes))
    });
    let apart = joined.is_none().then(|| payloads(topic, batch));
    joined.into_iter().chain(apart.into_iter().flatten())
}

/// The payloads of a batch, as readers of the stream get them.
pub(super) fn payloads(topic: &Topic, batch: &FollowedBatch) -> impl Iterator<Item = Bytes> {
    let is_json = topic.media().is_json();
    (1..).zip(batch.payloads()).map(move |(taken, payload)| {
        if is_json { state::with_offset(payload, || topic.token(batch.next_after(taken))) } else { payload }
    })
}
