//! The judge: one pass over the log, then one over what is left, both linear in its length.
//!
//! The promises are those of the product page; the letters A1 to A10 are the names of the checks in the notes on
//! reliability. A partition that has no [`Event::View`] is judged only by what reads and subscribers saw of it.

mod ends;
mod forks;
mod gone;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet};

use self::ends::Ends;
use self::forks::{Fork, Forks};
use self::gone::{Gone, Lives};
use crate::body::Writer;
use crate::history::{Class, Event, Outcome, Place, Seen};

/// Something that must not be.
#[expect(missing_docs, reason = "the fields are words of the vocabulary, and each line says what they are about")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A1: an acknowledged record is not at its offset in a view taken after the acknowledgement.
    Lost { place: Place, offset: u64, writer: Writer },
    /// A2: a record is shown whose publish was answered with `not_stored`.
    Phantom { place: Place, offset: u64, writer: Writer },
    /// A2: a record is shown that nobody published, or with other bytes than were published.
    Foreign { place: Place, offset: u64 },
    /// A3: one record of one producer has two offsets.
    Duplicate { writer: Writer, first: (Place, u64), second: (Place, u64) },
    /// A4: of two records of one producer's epoch the later has the lower offset.
    Disordered { place: Place, earlier: Writer, later: Writer },
    /// A5: the offsets of a view or page are not dense.
    Hole { place: Place, expected: u64, found: u64 },
    /// A5: an offset was shown, or acknowledged, with two different records.
    Changed { place: Place, offset: u64 },
    /// A6: a publish that began after an acknowledgement got a lower offset.
    WentBack { place: Place, offset: u64, floor: u64 },
    /// A6: a read that began after an acknowledgement or a delivery ended below it and claimed to be at the tail.
    Stale { place: Place, end: u64, floor: u64 },
    /// A7: a live connection skipped or repeated an offset without a gap event.
    Skipped { connection: u64, place: Place, expected: u64, found: u64 },
    /// A8: a record that was shown is missing in a later view.
    Vanished { place: Place, offset: u64 },
    /// The start of a partition moved further than anybody had asked for, or a gap event went on there.
    Overtrimmed { place: Place, start: u64, allowed: u64 },
    /// The start of a partition is below one that was shown, or acknowledged, before.
    StartWentBack { place: Place, start: u64, floor: u64 },
    /// A record is shown that was told to be lost, or was not kept any more.
    Revived { place: Place, offset: u64 },
    /// A10: a batch is stored in part, or not in one piece.
    Torn { place: Place, offset: u64, first: Writer, count: usize },
    /// A stream is closed, and nobody has asked for it.
    Closed { place: Place, end: u64 },
    /// A stream is open that was closed.
    Reopened { place: Place, end: u64 },
    /// A stream that is closed ends somewhere else.
    EndMoved { place: Place, end: u64, found: u64 },
    /// A record is shown, or acknowledged, at the end of a closed stream or behind it.
    BehindTheEnd { place: Place, offset: u64, end: u64 },
    /// A fork shows, or gives an append, an offset that it inherits with another record than its source has there.
    ForkDiffers { place: Place, offset: u64 },
    /// The log itself is wrong: an answer without a request, a number used twice.
    BadHistory(String),
}

/// Judges a log; an empty answer means that every promise held.
#[must_use]
pub fn check(events: &[Event]) -> Vec<Violation> {
    let mut judge = Judge::default();
    for event in events {
        judge.take(event);
    }
    judge.close();
    judge.found
}

#[derive(Default)]
struct Judge {
    found: Vec<Violation>,
    ops: HashMap<u64, Op>,
    /// Which request wrote a record, and the record's index in it.
    written: HashMap<Writer, (u64, usize)>,
    /// What every offset holds, from whatever source it became known first.
    known: HashMap<(Place, u64), u64>,
    changed: HashSet<(Place, u64)>,
    /// Where a writer's record was seen first.
    seen_at: HashMap<Writer, (Place, u64)>,
    /// Per partition: all below is acknowledged or was shown, so every later read must include it.
    floors: HashMap<String, BTreeMap<u32, u64>>,
    /// Offsets per partition that were acknowledged or shown: what a later view must hold.
    due: HashMap<Place, BTreeMap<u64, Due>>,
    reads: HashMap<u64, Read>,
    connections: HashMap<(u64, Place), Connection>,
    orders: BTreeMap<(Place, u64), Writer>,
    gone: Gone,
    ends: Ends,
    forks: Forks,
    /// One record at two offsets, if the first is not told to be lost in the end.
    doubles: Vec<(Writer, Spot, Spot)>,
}

/// An offset of a partition.
type Spot = (Place, u64);

struct Op {
    first: Writer,
    digests: Vec<u64>,
    floors: BTreeMap<u32, u64>,
    outcome: Option<Outcome>,
    topic: String,
    class: Class,
    lives: Lives,
}

/// What was known when a read was sent.
#[derive(Clone, Copy)]
struct Read {
    floor: u64,
    start: u64,
    lives: Lives,
}

#[derive(Clone, Copy)]
struct Connection {
    expected: Option<u64>,
    /// When it began: what comes late from a process that died is of its life.
    lives: Lives,
}

#[derive(Clone, Copy, Default)]
struct Due {
    digest: u64,
    acknowledged: Option<Writer>,
    class: Class,
    since: Lives,
}

impl Judge {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Invoke { op, topic, first, digests, class } => self.invoke((*op, *class), topic, *first, digests),
            Event::Complete { op, outcome } => self.complete(*op, *outcome),
            Event::ReadInvoke { read, place } => {
                let (floor, start, lives) = (self.floor(place), self.gone.start(place), self.gone.lives());
                self.reads.insert(*read, Read { floor, start, lives });
            }
            Event::Read { read, place, from, records, lost, caught_up } => {
                self.tell_lost(place, lost);
                let end = self.dense(place, *from, records, lost);
                self.read(*read, place, records, caught_up.then_some(end));
            }
            Event::Attach { connection, place, from } => {
                let made = Connection { expected: *from, lives: self.gone.lives() };
                self.connections.insert((*connection, place.clone()), made);
            }
            Event::Delivered { connection, place, records } => self.delivered(*connection, place, records),
            Event::Gap { connection, place, resumed_at, lost } => self.gap(*connection, place, *resumed_at, *lost),
            Event::View { place, start, records, lost } => self.view(place, *start, records, lost),
            Event::MayTrim { place, before } => self.gone.may_trim(place, *before),
            Event::Start { place, start } => self.start(place, *start),
            Event::Trimmed { place, start } => self.gone.moved(place, *start),
            Event::MayClose { place } => self.ends.may_close(place),
            Event::End { place, tail, closed } => self.found.extend(self.ends.shown(place, *tail, *closed)),
            Event::Fork { place, source, at, cut } => {
                self.forks.insert(place, Fork { source: source.clone(), at: *at, cut: *cut });
            }
            Event::Died { wiped } => self.gone.died(*wiped),
        }
    }

    fn invoke(&mut self, (op, class): (u64, Class), topic: &str, first: Writer, digests: &[u64]) {
        for index in 0..digests.len() {
            if self.written.insert(nth(first, index), (op, index)).is_some() {
                self.bad(format!("{:?} is published twice", nth(first, index)));
            }
        }
        let floors = self.floors.get(topic).cloned().unwrap_or_default();
        let (digests, topic, lives) = (digests.to_vec(), topic.to_owned(), self.gone.lives());
        let made = Op { first, digests, floors, outcome: None, topic, class, lives };
        if self.ops.insert(op, made).is_some() {
            self.bad(format!("request {op} is sent twice"));
        }
    }

    fn complete(&mut self, op: u64, outcome: Outcome) {
        let Some(entry) = self.ops.get_mut(&op) else {
            return self.bad(format!("request {op} is answered but was never sent"));
        };
        if entry.outcome.replace(outcome).is_some() {
            return self.bad(format!("request {op} is answered twice"));
        }
        let Outcome::Ok { partition, offset, class } = outcome else { return };
        let place = Place::new(entry.topic.clone(), partition);
        let (first, digests, since) = (entry.first, entry.digests.clone(), entry.lives);
        for (index, digest) in digests.iter().enumerate() {
            let (at, writer) = (offset + index as u64, nth(first, index));
            if self.forks.is_inherited(&place, at) {
                self.found.push(Violation::ForkDiffers { place: place.clone(), offset: at });
                continue;
            }
            self.fix(&place, at, *digest);
            self.placed(&place, at, writer);
            let due = Due { digest: *digest, acknowledged: Some(writer), class, since };
            self.due.entry(place.clone()).or_default().insert(at, due);
        }
        self.raise(&place, offset + digests.len() as u64);
    }

    /// `tail` is where the read ended, if it claims to have reached the tail.
    fn read(&mut self, read: u64, place: &Place, records: &[Seen], tail: Option<u64>) {
        let Some(Read { floor, start, lives }) = self.reads.remove(&read) else {
            return self.bad(format!("read {read} is answered but was never sent"));
        };
        if let Some(first) = records.first().filter(|first| tail.is_some() && first.offset < start) {
            self.found.push(Violation::Revived { place: place.clone(), offset: first.offset });
        }
        if let Some(end) = tail.filter(|end| *end < floor) {
            self.found.push(Violation::Stale { place: place.clone(), end, floor });
        }
        self.shown(place, records, lives);
    }

    fn delivered(&mut self, connection: u64, place: &Place, records: &[Seen]) {
        let key = (connection, place.clone());
        let Some(Connection { mut expected, lives }) = self.connections.get(&key).copied() else {
            return self.bad(format!("connection {connection} is shown {place:?} without an attach"));
        };
        for record in records {
            if let Some(expected) = expected.filter(|expected| *expected != record.offset) {
                let found = record.offset;
                self.found.push(Violation::Skipped { connection, place: place.clone(), expected, found });
            }
            expected = Some(record.offset + 1);
        }
        self.connections.insert(key, Connection { expected, lives });
        self.shown(place, records, lives);
    }

    fn gap(&mut self, connection: u64, place: &Place, resumed_at: u64, lost: bool) {
        let connection = self.connections.get_mut(&(connection, place.clone()));
        let before = connection.and_then(|connection| connection.expected.replace(resumed_at));
        let allowed = self.allowed(place);
        match before {
            Some(expected) if lost => self.gone.told_lost(place, expected, resumed_at),
            _ if !lost && resumed_at > allowed => {
                self.found.push(Violation::Overtrimmed { place: place.clone(), start: resumed_at, allowed });
            }
            Some(_) | None => {}
        }
    }

    /// One that knows all of the log shows this start.
    fn start(&mut self, place: &Place, start: u64) {
        let (allowed, floor) = (self.allowed(place), self.gone.start(place));
        if start > allowed {
            self.found.push(Violation::Overtrimmed { place: place.clone(), start, allowed });
        }
        if start < floor {
            self.found.push(Violation::StartWentBack { place: place.clone(), start, floor });
        }
        self.gone.moved(place, start);
    }

    fn tell_lost(&mut self, place: &Place, lost: &[(u64, u64)]) {
        for (from, to) in lost {
            self.gone.told_lost(place, *from, *to);
        }
    }

    fn view(&mut self, place: &Place, start: u64, records: &[Seen], lost: &[(u64, u64)]) {
        self.start(place, start);
        self.tell_lost(place, lost);
        self.dense(place, start, records, lost);
        self.shown(place, records, self.gone.lives());
        let there: HashMap<u64, u64> = records.iter().map(|record| (record.offset, record.digest)).collect();
        let is_lost = |offset: u64| lost.iter().any(|(from, to)| (*from..*to).contains(&offset));
        let mut missing = Vec::new();
        for (offset, due) in self.all_due(place, start) {
            let may_be_gone = is_lost(offset) && self.gone.may_lose(due.class, due.since);
            if may_be_gone || there.get(&offset) == Some(&due.digest) {
                continue;
            }
            missing.push(match due.acknowledged {
                Some(writer) => Violation::Lost { place: place.clone(), offset, writer },
                None => Violation::Vanished { place: place.clone(), offset },
            });
        }
        self.found.extend(missing);
        self.batches(place, start, records);
    }

    /// Every batch that begins or shows up in the view is there in one piece, but for what of it is below the start.
    fn batches(&mut self, place: &Place, start: u64, records: &[Seen]) {
        let (mut torn, (parts, _)) = (HashSet::new(), self.forks.parts(place));
        for (at, record) in records.iter().enumerate() {
            let Some((op, index)) = record.writer.and_then(|writer| self.written.get(&writer)).copied() else {
                continue;
            };
            let count = self.shown_of(&self.ops[&op], &parts, record.offset.saturating_sub(index as u64));
            let first = self.ops[&op].first;
            let below = (start + index as u64).saturating_sub(record.offset);
            let below = usize::try_from(below).map_or(index, |below| below.min(index));
            let whole = at + below >= index && {
                let begin = at + below - index;
                let span = records.get(begin..begin + count.saturating_sub(below)).unwrap_or_default();
                let is_next = |(i, seen): (usize, &Seen)| seen.writer == Some(nth(first, below + i));
                span.len() == count.saturating_sub(below) && span.iter().enumerate().all(is_next)
            };
            if !whole && torn.insert(op) {
                let offset = record.offset;
                self.found.push(Violation::Torn { place: place.clone(), offset, first, count });
            }
        }
    }

    /// Any observer was shown these records: they are real, they stay, and they are where they are.
    fn shown(&mut self, place: &Place, records: &[Seen], since: Lives) {
        for record in records {
            if self.inherited(place, record, since) {
                continue;
            }
            self.fix(place, record.offset, record.digest);
            if self.gone.is_lost(place, record.offset) && since == self.gone.lives() {
                self.found.push(Violation::Revived { place: place.clone(), offset: record.offset });
            }
            let written = record.writer.and_then(|writer| Some((writer, *self.written.get(&writer)?)));
            let class = written.map_or(Class::Object, |(_, (op, _))| self.ops[&op].class);
            let due = Due { digest: record.digest, acknowledged: None, class, since };
            self.due.entry(place.clone()).or_default().entry(record.offset).or_insert(due);
            let Some((writer, (op, index))) = written else {
                self.found.push(Violation::Foreign { place: place.clone(), offset: record.offset });
                continue;
            };
            let published = &self.ops[&op];
            if published.digests[index] != record.digest || published.topic != place.topic {
                self.found.push(Violation::Foreign { place: place.clone(), offset: record.offset });
            }
            self.placed(place, record.offset, writer);
        }
        if let Some(last) = records.last() {
            self.raise(place, last.offset + 1);
        }
    }

    /// An offset names one record for ever.
    fn fix(&mut self, place: &Place, offset: u64, digest: u64) {
        let key = (place.clone(), offset);
        let before = *self.known.entry(key.clone()).or_insert(digest);
        if before != digest && self.changed.insert(key) {
            self.found.push(Violation::Changed { place: place.clone(), offset });
        }
    }

    /// A record has one offset for ever, not below what was acknowledged before it was sent.
    fn placed(&mut self, place: &Place, offset: u64, writer: Writer) {
        let here = (place.clone(), offset);
        let Some(first) = self.seen_at.get(&writer) else {
            self.seen_at.insert(writer, here.clone());
            self.orders.insert(here, writer);
            let floors = self.written.get(&writer).map(|(op, _)| &self.ops[op].floors);
            let floor = floors.and_then(|floors| floors.get(&place.partition)).copied().unwrap_or(0);
            if offset < floor {
                self.found.push(Violation::WentBack { place: place.clone(), offset, floor });
            }
            return;
        };
        if *first != here {
            let first = first.clone();
            // What was lost may have been sent again.
            if self.written.get(&writer).is_some_and(|(op, _)| self.ops[op].class != Class::Object) {
                self.seen_at.insert(writer, here.clone());
                self.orders.insert(here.clone(), writer);
                return self.doubles.push((writer, first, here));
            }
            let again = Violation::Duplicate { writer, first, second: here };
            if !self.found.contains(&again) {
                self.found.push(again);
            }
        }
    }

    /// Where the records end that begin at `from` and have no hole but what is `lost`.
    fn dense(&mut self, place: &Place, from: u64, records: &[Seen], lost: &[(u64, u64)]) -> u64 {
        let behind = |next: u64| lost.iter().filter(|(from, _)| *from == next).map(|(_, to)| *to).next_back();
        let mut expected = from;
        for record in records {
            while let Some(next) = behind(expected).filter(|next| expected < *next && *next <= record.offset) {
                expected = next;
            }
            if record.offset != expected {
                let found = record.offset;
                self.found.push(Violation::Hole { place: place.clone(), expected, found });
            }
            expected = record.offset + 1;
        }
        while let Some(next) = behind(expected).filter(|next| expected < *next) {
            expected = next;
        }
        expected
    }

    /// What can be said only at the end: order per producer, and that no refused publish left a record.
    fn close(&mut self) {
        for (writer, first, second) in std::mem::take(&mut self.doubles) {
            if !self.gone.is_lost(&first.0, first.1) {
                self.found.push(Violation::Duplicate { writer, first, second });
            }
        }
        for (place, end) in self.ends.all() {
            let behind = self.due.get(place).and_then(|due| due.range(end..).next());
            self.found.extend(behind.map(|(at, _)| Violation::BehindTheEnd { place: place.clone(), offset: *at, end }));
        }
        let mut last: HashMap<(Place, u64, u64, u64), Writer> = HashMap::new();
        for ((place, offset), writer) in &self.orders {
            // What was shown, lost and sent again has its place behind the gap.
            if self.gone.is_lost(place, *offset) {
                continue;
            }
            let key = (place.clone(), writer.run, writer.producer, writer.epoch);
            if let Some(earlier) = last.get(&key).filter(|earlier| earlier.sequence > writer.sequence) {
                let (earlier, later) = (*writer, *earlier);
                self.found.push(Violation::Disordered { place: place.clone(), earlier, later });
            }
            last.insert(key, *writer);
            let op = self.written.get(writer).map(|(op, _)| &self.ops[op]);
            if op.is_some_and(|op| op.outcome == Some(Outcome::NotStored)) {
                self.found.push(Violation::Phantom { place: place.clone(), offset: *offset, writer: *writer });
            }
        }
    }

    fn allowed(&self, place: &Place) -> u64 {
        self.forks.inherited_start(place, |place| self.gone.allowed(place))
    }

    fn floor(&self, place: &Place) -> u64 {
        self.floors.get(&place.topic).and_then(|floors| floors.get(&place.partition)).copied().unwrap_or(0)
    }

    fn raise(&mut self, place: &Place, end: u64) {
        let floor = self.floors.entry(place.topic.clone()).or_default().entry(place.partition).or_default();
        *floor = end.max(*floor);
    }

    fn bad(&mut self, why: String) {
        self.found.push(Violation::BadHistory(why));
    }
}

fn nth(first: Writer, index: usize) -> Writer {
    Writer { sequence: first.sequence + index as u64, ..first }
}

#[cfg(test)]
mod tests;
