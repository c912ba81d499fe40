//! Reading ahead for readers that go through a partition in order.
//!
//! A reader that goes on where its last read ended gets whole stretches, and while it works on one the next ones are
//! loaded, up to a bound per reader and one for all. Without room, and after a load that failed, it is read for like any other: what
//! is ahead only ever makes it faster. What was loaded ends with the reader. A client that pages has no reader of its
//! own between two calls: its reader is parked, the oldest give way to whoever needs the room.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::error::Result;
use crate::ids::{Offset, Partition};
use crate::read::Reader;
use crate::record::StoredBatch;
use crate::shard::rows::PartitionRow;
use crate::stretch::Stretch;

/// Most runs that are waiting or under way for one reader.
const RUNS_MAX: usize = 16;
/// One reader gets at most this part of the room of all.
const READERS_AT_LEAST: usize = 4;
/// Most readers that are parked.
const PARKED_MAX: usize = 8;
/// What the structures around batches cost besides their bytes: this part of them, for batches of a kilobyte or more.
const OVERHEAD_PART: usize = 8;
/// Room is counted in these.
const UNIT_BYTES: usize = 1024;

/// A reader of one partition. It costs a few words while it is at the tail or does not read in order.
#[derive(Debug)]
pub struct Scan {
    partition: Partition,
    /// Where it goes on if it reads in order.
    next: Option<Offset>,
    runs: Option<Box<Runs>>,
}

/// What is read ahead, for all readers.
pub(crate) struct ReadAhead {
    reader: Arc<Reader>,
    room: Arc<Semaphore>,
    units_max: usize,
    bytes: Gauge,
    parked: Mutex<VecDeque<Scan>>,
}

/// The runs of one reader.
#[derive(Debug, Default)]
struct Runs {
    /// In order, without a hole.
    queue: VecDeque<Ahead>,
    loading: JoinSet<(Offset, Option<Loaded>)>,
}

#[derive(Debug)]
struct Ahead {
    from: Offset,
    next: Offset,
    units: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Loading,
    Loaded(Loaded),
    Failed,
}

#[derive(Debug)]
struct Loaded {
    batches: VecDeque<Arc<StoredBatch>>,
    /// Given back with the batches.
    _room: Room,
}

#[derive(Debug)]
struct Room {
    _permit: OwnedSemaphorePermit,
    units: usize,
    bytes: Gauge,
}

impl ReadAhead {
    /// Up to `bytes_max` bytes ahead of all readers together, which `bytes` shows.
    pub(crate) fn new(reader: Arc<Reader>, bytes_max: u64, bytes: Gauge) -> Self {
        let units_max = usize::try_from(bytes_max).unwrap_or(usize::MAX) / UNIT_BYTES;
        let units_max = units_max.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { reader, room: Arc::new(Semaphore::new(units_max)), units_max, bytes, parked: Mutex::default() }
    }

    /// As [`Reader::read`], for a reader that may go on in order. Cancel safe.
    pub(crate) async fn read(
        &self,
        scan: &mut Scan,
        bounds: &PartitionRow,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Arc<StoredBatch>>> {
        let within = bounds.start <= from && from < bounds.tail;
        let ahead =
            if within && scan.next == Some(from) { self.go_on(scan, bounds, from, bytes_max).await } else { None };
        let batches = match ahead {
            Some(batches) => batches,
            None => {
                scan.runs = None;
                self.reader.read(scan.partition, bounds, from, bytes_max).await?
            }
        };
        scan.next = Some(batches.last().map_or(from, |last| last.next()));
        Ok(batches)
    }

    /// A reader of `partition` at `from`: the one that was parked there, if there is one.
    pub(crate) fn scan(&self, partition: Partition, from: Offset) -> Scan {
        let mut parked = self.parked();
        let place = parked.iter().position(|scan| scan.partition == partition && scan.next == Some(from));
        place.and_then(|place| parked.remove(place)).unwrap_or_else(|| Scan::new(partition))
    }

    /// Keeps a reader that will likely go on at `next`; `rest` is what was read and not used.
    pub(crate) fn park(&self, mut scan: Scan, next: Offset, rest: VecDeque<Arc<StoredBatch>>) {
        if !self.give_back(&mut scan, next, rest) || scan.runs.is_none() {
            return;
        }
        let mut parked = self.parked();
        let oldest = if parked.len() < PARKED_MAX { None } else { parked.pop_front() };
        parked.push_back(scan);
        drop(parked);
        drop(oldest);
    }

    /// Ends everything that is loaded for readers that are parked.
    pub(crate) fn clear(&self) {
        let parked = std::mem::take(&mut *self.parked());
        drop(parked);
    }

    /// Whether the reader can go on at `next` with `rest` before what it has ahead.
    fn give_back(&self, scan: &mut Scan, next: Offset, rest: VecDeque<Arc<StoredBatch>>) -> bool {
        let Some(last) = rest.back() else { return scan.next == Some(next) };
        let end = last.next();
        let bytes = rest.iter().map(|batch| batch.batch.len()).sum::<usize>();
        let units = units_of(bytes + bytes / OVERHEAD_PART);
        let Some(room) = self.room(units) else { return false };
        let state = State::Loaded(Loaded { batches: rest, _room: room });
        let runs = scan.runs.get_or_insert_default();
        if runs.queue.front().is_some_and(|front| front.from != end) {
            runs.queue.clear();
        }
        runs.queue.push_front(Ahead { from: next, next: end, units, state });
        scan.next = Some(next);
        true
    }

    /// The next batches of what is ahead; none when that is nothing, or could not be loaded.
    async fn go_on(
        &self,
        scan: &mut Scan,
        bounds: &PartitionRow,
        from: Offset,
        bytes_max: usize,
    ) -> Option<Vec<Arc<StoredBatch>>> {
        if scan.runs.is_none()
            && let Some(batches) = self.reader.tail.read(scan.partition, from..bounds.tail, bytes_max)
        {
            return Some(batches);
        }
        // In a box, as every read beyond the tail.
        Box::pin(self.take_ahead(scan, bounds, from, bytes_max)).await
    }

    async fn take_ahead(
        &self,
        scan: &mut Scan,
        bounds: &PartitionRow,
        from: Offset,
        bytes_max: usize,
    ) -> Option<Vec<Arc<StoredBatch>>> {
        let runs = scan.runs.get_or_insert_default();
        self.plan(scan.partition, runs, bounds, from).await;
        let batches = runs.front().await?.take(from..bounds.tail, bytes_max);
        if runs.is_front_used() {
            runs.queue.pop_front();
        }
        if runs.queue.is_empty() {
            scan.runs = None;
        }
        (!batches.is_empty()).then_some(batches)
    }

    /// Begins to load what comes after the runs that are there, or at `from`, as far as there is room. What is in memory
    /// anyway is not loaded, and what cannot be found is left for the read to complain about. Cancel safe.
    async fn plan(&self, partition: Partition, runs: &mut Runs, bounds: &PartitionRow, from: Offset) {
        let mut next = runs.queue.back().map_or(from, |last| last.next);
        while runs.queue.len() < RUNS_MAX && next < bounds.tail && !self.reader.tail.holds(partition, next) {
            let Ok(stretch) = self.reader.stretch_at(partition, next).await else { return };
            let units = units_of(stretch.bytes + stretch.bytes / OVERHEAD_PART);
            let used: usize = runs.queue.iter().map(|ahead| ahead.units).sum();
            if !runs.queue.is_empty() && used + units > self.units_max / READERS_AT_LEAST {
                return;
            }
            let Some(room) = self.room(units) else { return };
            let (from, reader) = (next, Arc::clone(&self.reader));
            next = stretch.next;
            runs.queue.push_back(Ahead { from, next, units, state: State::Loading });
            runs.loading.spawn(async move { (from, load(&reader, partition, &stretch, from, room).await) });
        }
    }

    /// Room for what is to be loaded; parked readers give theirs.
    fn room(&self, units: usize) -> Option<Room> {
        let wanted = u32::try_from(units).ok().filter(|_| units <= self.units_max)?;
        loop {
            if let Ok(permit) = Arc::clone(&self.room).try_acquire_many_owned(wanted) {
                return Some(Room::new(permit, units, self.bytes.clone()));
            }
            let oldest = self.parked().pop_front();
            drop(oldest?);
        }
    }

    fn parked(&self) -> MutexGuard<'_, VecDeque<Scan>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scan {
    /// A reader of a partition that has read nothing yet.
    #[must_use]
    pub fn new(partition: Partition) -> Self {
        Self { partition, next: None, runs: None }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.partition
    }
}

impl Runs {
    /// The first run, as soon as it is loaded; none when that failed. Cancel safe.
    async fn front(&mut self) -> Option<&mut Loaded> {
        while matches!(self.queue.front()?.state, State::Loading) {
            let (from, loaded) = self.loading.join_next().await?.ok()?;
            // One that is not waited for any more is dropped.
            if let Some(ahead) = self.queue.iter_mut().find(|ahead| ahead.from == from) {
                ahead.state = loaded.map_or(State::Failed, State::Loaded);
            }
        }
        match &mut self.queue.front_mut()?.state {
            State::Loaded(loaded) => Some(loaded),
            State::Loading | State::Failed => None,
        }
    }

    fn is_front_used(&self) -> bool {
        let front = self.queue.front();
        front.is_some_and(|ahead| matches!(&ahead.state, State::Loaded(loaded) if loaded.batches.is_empty()))
    }
}

impl Loaded {
    /// Batches from the one that holds the first offset of `range` on, up to its end and to about `bytes_max` bytes, at least
    /// one. What is beyond the end was committed since the reader was told of the tail.
    fn take(&mut self, range: Range<Offset>, bytes_max: usize) -> Vec<Arc<StoredBatch>> {
        let (mut out, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.next() <= range.start) {
            drop(batch);
        }
        while let Some(batch) = self
            .batches
            .pop_front_if(|batch| batch.base < range.end && (out.is_empty() || bytes + batch.batch.len() <= bytes_max))
        {
            bytes += batch.batch.len();
            out.push(batch);
        }
        out
    }
}

impl Room {
    fn new(permit: OwnedSemaphorePermit, units: usize, bytes: Gauge) -> Self {
        bytes.inc_by(gauged(units));
        Self { _permit: permit, units, bytes }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bytes.dec_by(gauged(self.units));
    }
}

async fn load(reader: &Reader, partition: Partition, stretch: &Stretch, from: Offset, room: Room) -> Option<Loaded> {
    match reader.load(partition, stretch, from).await {
        Ok(batches) => Some(Loaded { batches: batches.into(), _room: room }),
        Err(error) => {
            tracing::debug!(%partition, %from, %error, "reading ahead failed, the reader will try itself");
            None
        }
    }
}

fn units_of(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

fn gauged(units: usize) -> i64 {
    i64::try_from(units * UNIT_BYTES).expect("the room is counted in a u32")
}
