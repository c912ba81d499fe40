//! Follow: the one loop below every live transport. Read the log up to its tail, wait for it to move, read again.
//!
//! The follower is registered for wake-ups before it looks at a tail, so that nothing is missed in between. It pulls: a
//! slow client costs one read of memory, and finds the rest in the log. Partitions take turns. `CaughtUp` comes once,
//! when every partition has been read to its tail for the first time. A place that cannot be continued is told by `Gap`,
//! never passed over.

mod check;
mod closed;
mod expired;
mod slow;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use plinth_api::limits::STREAM_PARTITIONS_MAX;
use plinth_storage::Kind;
use plinth_storage::ahead::Scan;
use plinth_storage::feed::Follow;
use plinth_storage::ids::{Offset, Partition, TenantId, TopicId};
use plinth_storage::record::StoredBatch;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use self::check::{check, check_origin};
use self::expired::expired;
use self::slow::is_far;
use super::Broker;
use super::batch::FollowedBatch;
use super::catalog::{Open, Topic};
use super::error::Error;
use super::from::{Begin, From, Origin};
use super::page::named;
use super::quotas::{Opened, Pace};
use crate::auth::{Account, TopicPattern};
use crate::render::push_event;

/// What to follow.
#[derive(Debug)]
pub struct FollowRequest {
    /// Names and patterns, 1 to 100.
    pub topics: Vec<TopicPattern>,
    /// One partition of the one topic; without it all.
    pub partition: Option<u32>,
    /// Where to begin. Topics that a pattern shows later begin with their first record.
    pub from: From,
    /// What to do when the reader is slower than the topic.
    pub policy: SlowPolicy,
    /// About how many bytes of records are read at once.
    pub batch_bytes_max: usize,
}

/// What to do when the reader is slower than the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// Read everything from the log.
    #[default]
    CatchUp,
    /// Skip to the tail, with a gap.
    Latest,
    /// End with `Busy`.
    Disconnect,
}

/// What a follower sees next.
pub enum Event {
    /// Records of one partition.
    Records(FollowedBatch),
    /// Every partition has been read to its tail; comes once.
    CaughtUp,
    /// Records are missing.
    Gap {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The offset at which it would have gone on.
        requested: u64,
        /// The offset at which it goes on.
        resumed_at: u64,
        /// `lost`, `compacted`, `expired`, `trimmed`, `above_tail` or `slow_consumer`.
        reason: &'static str,
    },
    /// The topic is closed and has been read to its end.
    Closed {
        /// The topic.
        topic: Arc<str>,
    },
    /// The topic was deleted.
    End {
        /// The topic.
        topic: Arc<str>,
    },
}

/// Follows partitions. Idle, it costs about 100 bytes per partition.
pub struct Follower {
    broker: Broker,
    account: Account,
    /// It counts as a follower as long as it lives.
    _open: Opened,
    pace: Pace,
    wake: Follow,
    /// By the index that `wake` gave.
    lanes: Vec<Option<Lane>>,
    topics: HashSet<TopicId>,
    /// Lanes that may have something to read, each once.
    ready: VecDeque<usize>,
    /// What was read of the lane `reading` and not yet given.
    read: VecDeque<Arc<StoredBatch>>,
    reading: usize,
    /// What comes before anything is read, each with its lane.
    events: VecDeque<(usize, Event)>,
    patterns: Option<Patterns>,
    policy: SlowPolicy,
    batch_bytes_max: usize,
    caught_up: bool,
}

/// The patterns with stars, and news of the topics that may match them.
struct Patterns {
    of: Vec<TopicPattern>,
    made: broadcast::Receiver<Arc<Topic>>,
}

struct Lane {
    topic: Arc<Topic>,
    /// While it lives a stream that ends by itself is in use.
    _used: Option<Open>,
    place: Partition,
    scan: Scan,
    next: Offset,
    /// Where it would have gone on, while its gap waits in `events`, or expired records are passed over: whoever leaves now is
    /// told of the gap next time.
    untold: Option<Offset>,
    /// Whether it is in `ready`.
    queued: bool,
    /// Whether it has been at the tail before.
    live: bool,
    /// Whether it was told that nothing comes any more.
    closed: bool,
    /// Reads since it was last at the tail.
    reads: u32,
}

enum News {
    Moved(Vec<usize>),
    Made(Arc<Topic>),
    Missed,
}

impl Broker {
    /// Begins to follow. Cancel safe.
    ///
    /// # Errors
    /// `NotFound` for a topic that does not exist; `Invalid` and `Unprocessable` for a request that cannot be followed;
    /// `InvalidCursor`; `QuotaExceeded` for one follower too many; those of the log.
    pub async fn follow(&self, request: FollowRequest) -> Result<Follower, Error> {
        let account = check(&request)?.clone();
        let (open, pace) = (account.meters().follower()?, Pace::begin(account.meters()));
        let tenant = account.tenant().id();
        let (literal, starred): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(TopicPattern::is_literal);
        // Listen for new topics before looking at those that are there.
        let patterns = (!starred.is_empty()).then(|| Patterns { of: starred, made: self.catalog().announcements() });
        let mut topics = Vec::new();
        for name in literal.iter().filter_map(TopicPattern::topic) {
            topics.push(self.catalog().get_to_read(&name).await?);
        }
        let origin = request.from.resolve(self.cursors(), tenant)?;
        if patterns.is_none() {
            check_origin(&origin, &topics, request.partition)?;
        }
        let mut follower = Follower {
            broker: self.clone(),
            account,
            _open: open,
            pace,
            wake: self.log().follow(),
            lanes: Vec::new(),
            topics: HashSet::new(),
            ready: VecDeque::new(),
            read: VecDeque::new(),
            reading: 0,
            events: VecDeque::new(),
            patterns,
            policy: request.policy,
            batch_bytes_max: request.batch_bytes_max.max(1),
            caught_up: false,
        };
        for topic in topics {
            follower.add(topic, request.partition, &origin).await?;
        }
        follower.add_matching(&origin).await?;
        Ok(follower)
    }
}

impl Follower {
    /// What comes next; waits while there is nothing. Cancel safe.
    ///
    /// # Errors
    /// `NotFound` after the last topic has ended; `Busy` by the policy `Disconnect`; those of the log, after which it may
    /// be called again.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some((index, event)) = self.events.pop_front() {
                if let Some(lane) = self.lanes[index].as_mut() {
                    lane.untold = None;
                }
                return Ok(event);
            }
            self.pace.wait().await;
            if let Some(event) = self.take_read()? {
                return Ok(event);
            }
            if let Some(&index) = self.ready.front() {
                // Who passes over much that has expired gives nothing for long, and is to leave others their turn.
                tokio::task::coop::consume_budget().await;
                self.read_lane(index).await?;
                continue;
            }
            if self.topics.is_empty() && self.patterns.is_none() {
                return Err(Error::NotFound("every topic of the stream was deleted".into()));
            }
            if !self.caught_up {
                self.caught_up = true;
                return Ok(Event::CaughtUp);
            }
            match self.news().await {
                News::Moved(indices) => self.mark(indices),
                News::Made(topic) => self.add_made(topic).await?,
                News::Missed => self.add_matching(&Origin::Earliest).await?,
            }
        }
    }

    /// The cursor after everything that `next` has given.
    #[must_use]
    pub fn cursor(&self) -> String {
        self.broker.cursors().write(self.tenant(), self.positions())
    }

    /// The cursor when of `batch`, the newest one that `next` has given, only the first `taken` records are used.
    #[must_use]
    pub fn cursor_after(&self, batch: &FollowedBatch, taken: u32) -> String {
        let next = batch.next_after(taken);
        let positions = self.positions().map(|(place, at)| (place, if place == batch.place { next } else { at }));
        self.broker.cursors().write(self.tenant(), positions)
    }

    /// The records of `batch`, the newest one that `next` has given, as SSE events, each with the cursor after it as its
    /// id; `named` ones have `event: record`. Shared with other followers where this is [`Follower::single`].
    #[must_use]
    pub fn sse(&self, batch: &FollowedBatch, named: bool) -> Bytes {
        if self.single() {
            return batch.rendered().sse(batch.skip, batch.take, named);
        }
        let mut out = Vec::new();
        for index in 0..batch.take {
            let line = batch.rendered().ndjson(batch.skip + index, 1);
            push_event(&mut out, &self.cursor_after(batch, index + 1), named, &line);
        }
        out.into()
    }

    /// Whether it follows exactly one partition, for ever.
    #[must_use]
    pub fn single(&self) -> bool {
        self.lanes.len() == 1 && self.patterns.is_none()
    }

    fn tenant(&self) -> TenantId {
        self.account.tenant().id()
    }

    fn positions(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.lanes.iter().flatten().map(|lane| (lane.place, lane.untold.unwrap_or(lane.next)))
    }

    /// The next batch of those that were read, or what is missing before it. Expired records that stand side by side are one
    /// gap, wherever they were read: it is told when something else comes.
    fn take_read(&mut self) -> Result<Option<Event>, Error> {
        while let Some(stored) = self.read.front() {
            let lane = self.lanes[self.reading].as_mut().expect("a lane ends only when nothing of it is left");
            let run = (lane.next >= stored.base).then(|| stored.run_at(lane.next, || self.broker.log().now()));
            if run.is_none_or(|run| !run.expired)
                && let Some(expired) = expired(lane)
            {
                lane.untold = None;
                return Ok(Some(expired));
            }
            let Some(run) = run else {
                let passed = self.broker.log().passed(lane.place, lane.next, stored.base)?;
                let event = gap(lane, lane.next, passed.to, passed.reason.as_str());
                lane.next = passed.to;
                return Ok(Some(event));
            };
            let from = std::mem::replace(&mut lane.next, run.end);
            let stored = Arc::clone(stored);
            if run.end == stored.next() {
                self.read.pop_front();
            }
            if run.expired {
                lane.untold.get_or_insert(from);
                continue;
            }
            let whole = FollowedBatch::whole(&self.broker, &lane.topic, lane.place, stored, lane.live);
            let batch = whole.within(from, run.end);
            self.pace.delivered(self.account.meters(), u64::from(batch.count()), batch.bytes() as u64);
            return Ok(Some(Event::Records(batch)));
        }
        Ok(None)
    }

    /// Reads the first lane of `ready`. All that changes comes after the read: a dropped call has done nothing.
    async fn read_lane(&mut self, index: usize) -> Result<(), Error> {
        let Some(lane) = self.lanes[index].as_mut() else {
            self.ready.pop_front();
            return Ok(());
        };
        let log = self.broker.log();
        if self.policy != SlowPolicy::CatchUp && lane.live && lane.reads > 0 {
            // A topic that is gone is met by the read below.
            if let Some(bounds) = log.bounds(lane.place).ok().filter(|bounds| is_far(bounds, lane.next)) {
                if self.tell_expired(index) {
                    return Ok(());
                }
                return self.give_up(index, bounds);
            }
        }
        let read = log.read_on(&mut lane.scan, lane.next, self.batch_bytes_max).await;
        match read {
            Ok(batches) if batches.is_empty() => {
                (lane.queued, lane.live, lane.reads) = (false, true, 0);
                self.ready.pop_front();
                self.tell_expired(index);
                self.tell_closed(index);
            }
            Ok(batches) => {
                lane.reads = lane.reads.saturating_add(1);
                (self.read, self.reading) = (batches.into(), index);
                self.ready.rotate_left(1);
            }
            Err(error) if error.kind() == Kind::NotFound => self.end(index),
            Err(error) if error.kind() == Kind::OutOfRange => {
                // What has expired is told first, then it is read again.
                if !self.tell_expired(index) {
                    self.resume(index)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The offset is not in the partition any more: goes on at the nearest that is.
    fn resume(&mut self, index: usize) -> Result<(), Error> {
        let Some(lane) = self.lanes[index].as_ref() else { return Ok(()) };
        match self.broker.log().bounds(lane.place) {
            Ok(bounds) if lane.next < bounds.start => self.jump(index, bounds.start, "trimmed"),
            Ok(bounds) if lane.next > bounds.tail => self.jump(index, bounds.tail, "above_tail"),
            Ok(_) => {
                if let Some(gap) = self.broker.log().gap_at(lane.place, lane.next)? {
                    self.jump(index, gap.to, gap.reason.as_str());
                }
            }
            Err(error) if error.kind() == Kind::NotFound => self.end(index),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn jump(&mut self, index: usize, to: Offset, reason: &'static str) {
        if let Some(lane) = self.lanes[index].as_mut() {
            self.events.push_back((index, gap(lane, lane.next, to, reason)));
            (lane.untold, lane.next, lane.reads) = (Some(lane.next), to, 0);
        }
    }

    /// The topic of the lane is gone: so are all its lanes.
    fn end(&mut self, index: usize) {
        let Some(ended) = self.lanes[index].as_ref().map(|lane| Arc::clone(&lane.topic)) else { return };
        for index in 0..self.lanes.len() {
            if self.lanes[index].as_ref().is_some_and(|lane| lane.topic.id == ended.id) {
                self.lanes[index] = None;
                self.wake.remove(index);
            }
        }
        let lanes = &self.lanes;
        self.ready.retain(|&index| lanes[index].is_some());
        self.topics.remove(&ended.id);
        self.events.push_back((index, Event::End { topic: Arc::clone(&ended.name) }));
    }

    /// Waits for something to happen. Cancel safe: so are both that it waits for.
    async fn news(&mut self) -> News {
        let Some(patterns) = &mut self.patterns else { return News::Moved(self.wake.changed().await) };
        tokio::select! {
            moved = self.wake.changed() => News::Moved(moved),
            made = patterns.made.recv() => match made {
                Ok(topic) => News::Made(topic),
                Err(RecvError::Lagged(_) | RecvError::Closed) => News::Missed,
            },
        }
    }

    fn mark(&mut self, indices: Vec<usize>) {
        for index in indices {
            if let Some(lane) = self.lanes[index].as_mut().filter(|lane| !lane.queued) {
                lane.queued = true;
                self.ready.push_back(index);
            }
        }
    }

    async fn add_made(&mut self, topic: Arc<Topic>) -> Result<(), Error> {
        let shown = |patterns: &Patterns| patterns.of.iter().any(|pattern| pattern.shows(&topic.name));
        if topic.tenant != self.tenant() || !self.patterns.as_ref().is_some_and(shown) {
            return Ok(());
        }
        match self.add(topic, None, &Origin::Earliest).await {
            // Deleted since it was made.
            Ok(()) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Adds what the patterns show and is not followed yet.
    async fn add_matching(&mut self, origin: &Origin) -> Result<(), Error> {
        let mut found = Vec::new();
        for pattern in self.patterns.iter().flat_map(|patterns| &patterns.of) {
            found.extend(self.broker.catalog().matching(pattern.clone()).await?);
        }
        for topic in found {
            match self.add(topic, None, origin).await {
                // Deleted since the list was read.
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds the partitions of a topic, unless it is followed already. What is awaited comes before what changes.
    async fn add(&mut self, topic: Arc<Topic>, partition: Option<u32>, origin: &Origin) -> Result<(), Error> {
        if self.topics.contains(&topic.id) {
            return Ok(());
        }
        let chosen = topic.chosen(partition)?;
        if self.lanes.len() + chosen.len() > STREAM_PARTITIONS_MAX {
            let limit = STREAM_PARTITIONS_MAX;
            return Err(Error::Unprocessable(format!("the stream follows more partitions than the limit of {limit}")));
        }
        let mut begins = Vec::with_capacity(chosen.len());
        for place in chosen.map(|index| topic.partition(index)) {
            let begin = origin.begin(self.broker.log(), place).await.map_err(|error| named(&topic.name, error))?;
            begins.push((place, begin));
        }
        self.topics.insert(topic.id);
        for (place, begin) in begins {
            let (requested, next, reason) = match begin {
                Begin::At(offset) => (offset, offset, ""),
                Begin::Trimmed { requested, start } => (requested, start, "trimmed"),
                Begin::AboveTail { requested, tail } => (requested, tail, "above_tail"),
            };
            let untold = (requested != next).then_some(requested);
            let (topic, scan) = (Arc::clone(&topic), Scan::new(place));
            let used = self.broker.catalog().open(&topic);
            let (queued, live, closed, reads) = (true, false, false, 0);
            let lane = Lane { topic, _used: used, place, scan, next, untold, queued, live, closed, reads };
            let index = self.wake.add(place);
            if untold.is_some() {
                self.events.push_back((index, gap(&lane, requested, next, reason)));
            }
            debug_assert_eq!(index, self.lanes.len(), "lanes and watched partitions have the same indices");
            self.lanes.push(Some(lane));
            self.ready.push_back(index);
        }
        Ok(())
    }
}

fn gap(lane: &Lane, requested: Offset, resumed_at: Offset, reason: &'static str) -> Event {
    let (topic, partition) = (Arc::clone(&lane.topic.name), lane.place.index.0);
    Event::Gap { topic, partition, requested: requested.0, resumed_at: resumed_at.0, reason }
}
