//! What those who write streams do with them besides: many a stream is a fork of an earlier one, at its end, within it, or behind a part
//! of a record; earlier ones are trimmed by hand and by what they keep, and deleted, with forks and without.
//!
//! The audit judges what forks show by what their sources had (`Event::Fork`). Here it is looked at that no start moves but where somebody
//! asked for it, none at all while there are forks, and that nothing is left when all are deleted.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use plinth_audit::{Event, Place};
use plinth_storage::Kind;
use plinth_storage::ids::{Offset, Partition, TopicId};
use plinth_storage::log::{Change, DocOp, ForkPoint, Guard, Retention, TopicOp};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::streams::{FIRST_GUEST, FIRST_WRITER, StreamWriter, document};
use crate::world::{Handle, World};

/// Forks are made of the later streams, so that chains become long.
const SOURCES: usize = 6;

/// Of which stream a fork is, and where it leaves it.
pub(crate) struct Origin {
    source: usize,
    topic: TopicId,
    point: ForkPoint,
    /// The last records of steps that it inherits.
    lasts: Vec<(u64, Bytes)>,
}

/// What is known of the start of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// Where it was last seen.
    seen: Option<u64>,
    /// How far it may have been moved since it was made.
    asked: u64,
    /// The forks that needed the stream then.
    held_by: Vec<usize>,
}

impl Origin {
    pub(crate) fn fork(&self, topic: TopicId) -> TopicOp {
        TopicOp::Fork { topic, source: self.topic, point: self.point }
    }

    pub(crate) fn at(&self) -> u64 {
        self.point.at.0
    }

    /// Of which stream the fork is, and the last records of steps that it begins with.
    pub(crate) fn inherited(self) -> (usize, Vec<(u64, Bytes)>) {
        (self.source, self.lasts)
    }
}

impl StreamWriter {
    /// What the next stream is a fork of, which is about to be made; none: it is no fork.
    pub(crate) fn origin(&mut self, place: &Place) -> Option<Origin> {
        let alive = self.alive();
        let alive = &alive[alive.len().saturating_sub(SOURCES)..];
        if alive.is_empty() || self.random.random_range(0..3) == 0 {
            return None;
        }
        let source = alive[self.random.random_range(0..alive.len())];
        let stream = &self.known[source];
        let start = stream.start.seen.unwrap_or(0);
        let at = match self.random.random_range(0..3) {
            0 => stream.tail,
            _ => self.random.random_range(start.min(stream.tail)..=stream.tail),
        };
        let mut lasts: Vec<(u64, Bytes)> = stream.lasts.iter().filter(|(offset, _)| *offset < at).cloned().collect();
        let mut cut = None;
        if self.random.random()
            && let Some((_, last)) = lasts.last_mut().filter(|(offset, last)| offset + 1 == at && last.len() > 1)
        {
            let len = self.random.random_range(1..last.len());
            *last = last.slice(..len);
            cut = NonZeroU32::new(u32::try_from(len).expect("records are small"));
        }
        let digest = lasts.last().filter(|_| cut.is_some()).map(|(_, last)| plinth_audit::body::digest(last));
        let (place, of) = (place.clone(), stream.place.clone());
        self.world.trace.line(&format!("{place} is a fork of {of} at {at}, {cut:?}"));
        self.world.history.log(Event::Fork { place, source: of, at, cut: digest });
        Some(Origin { source, topic: stream.partition.topic, point: ForkPoint { at: Offset(at), cut }, lasts })
    }

    /// Looks after the streams that were made: one is trimmed perhaps, one keeps only so much, one is deleted.
    pub(crate) async fn tend(&mut self) {
        // What is not known in the end stays so.
        if self.world.is_over() {
            return;
        }
        self.look_at_starts();
        let mut chosen = self.alive();
        if self.random.random() {
            chosen.retain(|at| !self.needed_by(*at).is_empty());
        }
        if let Some(chosen) = chosen.choose(&mut self.random).copied() {
            match self.random.random_range(0..8) {
                0..3 => self.delete(chosen).await,
                3 | 4 => self.trim(chosen).await,
                5 => self.retain(chosen).await,
                _ => {}
            }
        }
        self.look_at_starts();
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.known.len()).filter(|at| !self.known[*at].deleted).collect()
    }

    /// The forks of a stream that need it: those that are there, and those that are kept for forks of theirs.
    fn needed_by(&self, at: usize) -> Vec<usize> {
        let needs = |fork: &usize| {
            self.known[*fork].source == Some(at) && (!self.known[*fork].deleted || !self.needed_by(*fork).is_empty())
        };
        (at + 1..self.known.len()).filter(needs).collect()
    }

    /// The starts of all streams as the newest node shows them.
    fn look_at_starts(&mut self) {
        let Some(handle) = self.world.the_newest() else { return };
        for at in self.alive() {
            let held_by = self.needed_by(at);
            let stream = &mut self.known[at];
            let Ok(bounds) = handle.log.bounds(stream.partition) else { continue };
            let (now, Start { seen, asked, held_by: before }) = (bounds.start.0, stream.start.clone());
            let is_held = held_by.iter().any(|fork| before.contains(fork));
            if let Some(seen) = seen.filter(|seen| now < *seen || now > asked.max(*seen) || (is_held && now != *seen)) {
                let place = &stream.place;
                self.world.wrong(format!("the start of {place} is {now}, was {seen}, asked {asked}, held: {is_held}"));
            }
            stream.start = Start { seen: Some(now), asked, held_by };
        }
    }

    /// Deletes a stream; tries until it is known that it is gone.
    async fn delete(&mut self, at: usize) {
        let held = !self.needed_by(at).is_empty();
        let (partition, key) = (self.known[at].partition, document(&self.known[at].place));
        self.known[at].deleted = true;
        let change = Change {
            guards: vec![Guard::Present(key.clone())],
            docs: vec![DocOp::Delete(key.clone())],
            topics: vec![TopicOp::Delete { topic: partition.topic }],
        };
        while !self.world.is_over() {
            if let Some(handle) = self.world.pick(&mut self.random) {
                let limit = Duration::from_millis(self.random.random_range(500..15_000));
                let commit = handle.call(tokio::time::timeout(limit, handle.log.commit(change.clone()))).await;
                let is_newest = self.world.newest() == handle.number;
                let gone = match commit {
                    Some(Ok(Ok(()))) => true,
                    Some(Ok(Err(error))) if error.kind() == Kind::Conflict && is_newest => {
                        handle.log.get(&key).is_ok_and(|found| found.is_none())
                    }
                    Some(Ok(Err(_)) | Err(_)) | None => false,
                };
                if gone {
                    self.world.streams.kept.fetch_add(usize::from(held), Ordering::Relaxed);
                    self.world.trace.line(&format!("{} is deleted, with forks: {held}", self.known[at].place));
                    return must_be_gone(&self.world, partition);
                }
            }
            self.world.clone().rest(&mut self.random, 10..1500).await;
        }
    }

    /// Tries once to trim a stream.
    async fn trim(&mut self, at: usize) {
        let held = !self.needed_by(at).is_empty();
        let Some(handle) = self.world.pick(&mut self.random) else { return };
        let before = self.random.random_range(0..=self.known[at].tail);
        let (partition, place) = (self.known[at].partition, self.known[at].place.clone());
        self.may_move(at, Some(before));
        let limit = Duration::from_millis(self.random.random_range(500..15_000));
        let starts = [(partition, Offset(before))];
        let trimmed = handle.call(tokio::time::timeout(limit, handle.log.trim(&starts))).await;
        let trimmed = trimmed.and_then(Result::ok).map(|trimmed| trimmed.map(drop).map_err(|error| error.kind()));
        self.world
            .trace
            .line(&format!("n{} trims {place} to {before}, with forks: {held}: {trimmed:?}", handle.number));
        match trimmed {
            Some(Ok(())) => self.world.history.log(Event::Trimmed { place, start: before }),
            Some(Err(Kind::Conflict)) if !held && self.world.newest() == handle.number => {
                self.world.wrong(format!("{place} is not trimmed for its forks, and has none"));
            }
            Some(Err(_)) | None => {}
        }
    }

    /// Tries once to set what a stream keeps.
    async fn retain(&mut self, at: usize) {
        let Some(handle) = self.world.pick(&mut self.random) else { return };
        let topic = self.known[at].partition.topic;
        let limits = (self.random.random_range(500..15_000), self.random.random_range(200..3000));
        let by = self.random.random_range(0..3);
        let retention = Retention {
            age_ms: NonZeroU64::new(limits.0).filter(|_| by != 1),
            bytes: NonZeroU64::new(limits.1).filter(|_| by != 0),
        };
        self.may_move(at, None);
        let change = Change { topics: vec![TopicOp::SetRetention { topic, retention }], ..Change::default() };
        let set = handle.call(tokio::time::timeout(Duration::from_secs(10), handle.log.commit(change))).await;
        let set = matches!(set, Some(Ok(Ok(()))));
        self.world.trace.line(&format!("n{} keeps {retention:?} of {}: {set}", handle.number, self.known[at].place));
    }

    fn may_move(&mut self, at: usize, before: Option<u64>) {
        let stream = &mut self.known[at];
        stream.start.asked = before.unwrap_or(u64::MAX).max(stream.start.asked);
        self.world.history.log(Event::MayTrim { place: stream.place.clone(), before });
    }
}

/// What was deleted is not at the newest node.
fn must_be_gone(world: &World, partition: Partition) {
    let Some(handle) = world.the_newest() else { return };
    match handle.log.bounds(partition) {
        Err(error) if error.kind() == Kind::NotFound => {}
        other => world.wrong(format!("node {} still has {partition}, which was deleted: {other:?}", handle.number)),
    }
}

/// In good weather all streams can be deleted in any order, and then no row of the state is about any of them.
pub async fn must_leave_no_row(world: &World, handle: &Handle) {
    let mut streams = [world.streams.all(), world.weak.all()].concat();
    streams.shuffle(&mut world.random("deletions", 0));
    for (partition, place) in &streams {
        let (topics, docs) = (vec![TopicOp::Delete { topic: partition.topic }], vec![DocOp::Delete(document(place))]);
        if let Err(error) = handle.log.commit(Change { topics, docs, ..Change::default() }).await {
            return world.wrong(format!("node {} does not delete {place}: {error}", handle.number));
        }
    }
    let topics: Vec<_> = streams.iter().map(|(partition, _)| partition.topic.0.to_bytes()).collect();
    let rows = match handle.log.state_rows() {
        Ok(rows) => rows,
        Err(error) => return world.wrong(format!("node {} has a broken state: {error}", handle.number)),
    };
    let is_left = |key: &Bytes| key.get(1..17).is_some_and(|topic| topics.iter().any(|of| of == topic));
    if let Some((key, _)) = rows.iter().find(|(key, _)| is_left(key)) {
        world.wrong(format!("all streams are deleted, and node {} has a row {key:?}", handle.number));
    }
}

/// After a purge no object holds anything of those who wrote streams, which are all deleted.
pub async fn must_leave_no_record(world: &World) {
    let mark = |producer: u64| format!("\"run\":{},\"producer\":{producer},", world.seed);
    let writers = (0..crate::STREAM_WRITERS).flat_map(|number| [FIRST_WRITER + number, FIRST_GUEST + number]);
    let writers = writers.chain([crate::weak::FIRST_WRITER]);
    let marks: Vec<String> = writers.map(mark).collect();
    if let Some(object) = crate::tenants::holders(&world.bucket, &marks).await.first() {
        world.wrong(format!("all streams are deleted and purged, and {object} holds something of one"));
    }
}
