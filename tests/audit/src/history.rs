//! The log of a run: requests before they are sent, answers after they came, and all that observers were shown.
//!
//! The place of an event in the log is its time. That is enough: an answer that stands before a request in the log came
//! before that request was sent. In a file it is one JSON object per line.

use std::io::{BufRead, Write};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::body::{Body, Writer, digest};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

/// A record as an observer was shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its offset.
    pub offset: u64,
    /// The digest of its bytes.
    pub digest: u64,
    /// Who wrote it; `None` when the body is not one of a driver or its checksum is wrong.
    pub writer: Option<Writer>,
}

/// What a publish is acknowledged for: what it survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Everything.
    #[default]
    Object,
    /// The end of the process, but not the loss of its cache directory.
    Local,
    /// Nothing: it may go with the process.
    Memory,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Acknowledged, with the place of the first record.
    Ok {
        /// The partition.
        partition: u32,
        /// The offset of the first record.
        offset: u64,
        /// The class that was reached.
        #[serde(default)]
        class: Class,
    },
    /// Refused: the record is not stored and never will be.
    NotStored,
    /// Nothing is known.
    Unknown,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A publish is about to be sent: consecutive sequences of one producer, one batch.
    Invoke {
        /// Names the request.
        op: u64,
        /// The topic.
        topic: String,
        /// Who writes the first record; the others follow it in sequence.
        first: Writer,
        /// The digests of the records, in order.
        digests: Vec<u64>,
        /// The class that is asked for.
        #[serde(default)]
        class: Class,
    },
    /// The publish was answered, or given up.
    Complete {
        /// Of the request.
        op: u64,
        /// What became of it.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A read is about to be sent.
    ReadInvoke {
        /// Names the read.
        read: u64,
        /// What is read.
        place: Place,
    },
    /// A read was answered.
    Read {
        /// Of the request.
        read: u64,
        /// What was read.
        place: Place,
        /// The offset it began at.
        from: u64,
        /// The records.
        records: Vec<Seen>,
        /// Offsets between them that are told to be lost: from, to.
        #[serde(default)]
        lost: Vec<(u64, u64)>,
        /// True when it claims to have reached the tail.
        caught_up: bool,
    },
    /// A live connection begins at an offset; `None` when it is not known (from the tail).
    Attach {
        /// Names the connection: one per connection, not one per subscriber.
        connection: u64,
        /// What is followed.
        place: Place,
        /// The first offset that is due.
        from: Option<u64>,
    },
    /// A live connection was shown records.
    Delivered {
        /// The connection.
        connection: u64,
        /// Where they are.
        place: Place,
        /// The records.
        records: Vec<Seen>,
    },
    /// A live connection was told that records are missing.
    Gap {
        /// The connection.
        connection: u64,
        /// Where.
        place: Place,
        /// The offset at which it goes on.
        resumed_at: u64,
        /// Because they are lost; else because they are not kept any more.
        #[serde(default)]
        lost: bool,
    },
    /// All records of a partition as one node shows them from the start to the tail, with no publish under way.
    View {
        /// What was read.
        place: Place,
        /// The first offset that is kept.
        #[serde(default)]
        start: u64,
        /// All of its records.
        records: Vec<Seen>,
        /// Offsets between them that are told to be lost: from, to.
        #[serde(default)]
        lost: Vec<(u64, u64)>,
    },
    /// Records may go from here on: somebody is about to ask for it, or the topic keeps only so much.
    MayTrim {
        /// Of which partition.
        place: Place,
        /// Those below this offset; `None`: any.
        before: Option<u64>,
    },
    /// The start of a partition, as one shows it that knows all of the log.
    Start {
        /// The partition.
        place: Place,
        /// Its first offset that is kept.
        start: u64,
    },
    /// A trim was acknowledged: the start is here, or above.
    Trimmed {
        /// Of the partition.
        place: Place,
        /// The start.
        start: u64,
    },
    /// A stream may be closed from here on: somebody is about to ask for it.
    MayClose {
        /// Its partition.
        place: Place,
    },
    /// Where a stream ends by now, and whether it is closed, as one shows it that knows all of the log; or as anybody was
    /// told that it is closed.
    End {
        /// Its partition.
        place: Place,
        /// The end.
        tail: u64,
        /// Whether nothing comes after it.
        closed: bool,
    },
    /// A fork is about to be made: its place begins with what another one holds below an offset by now.
    Fork {
        /// Its place.
        place: Place,
        /// Of which place it is a fork.
        source: Place,
        /// The offset after the last record that it inherits.
        at: u64,
        /// The digest of what it inherits of that record, when that is a part only.
        #[serde(default)]
        cut: Option<u64>,
    },
    /// The process ended at once, and with it what it had only in its memory.
    Died {
        /// Its cache directory is gone, too.
        wiped: bool,
    },
}

/// A log that many tasks write to.
#[derive(Debug, Default)]
pub struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Event>,
    next: u64,
}

impl Seen {
    /// The record at `offset` with these bytes.
    #[must_use]
    pub fn new(offset: u64, bytes: &[u8]) -> Self {
        Self { offset, digest: digest(bytes), writer: Body::parse(bytes).map(|body| body.writer) }
    }
}

impl Place {
    /// A partition of a topic.
    pub fn new(topic: impl Into<String>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl History {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A number that no other request, read or connection of this log has.
    pub fn fresh_id(&self) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        inner.next
    }

    /// Adds an event: a request before it is sent, an answer after it came.
    pub fn log(&self, event: Event) {
        self.lock().events.push(event);
    }

    /// A copy of what was logged so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panics while it holds the log")
    }
}

/// Writes events, one JSON object per line.
///
/// # Errors
/// Those of the writer.
pub fn write_events(events: &[Event], mut to: impl Write) -> std::io::Result<()> {
    for event in events {
        serde_json::to_writer(&mut to, event)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// Reads events back.
///
/// # Errors
/// Those of the reader, and `InvalidData` with the number of a line that is not an event.
pub fn read_events(from: impl BufRead) -> std::io::Result<Vec<Event>> {
    let parse = |(index, line): (usize, std::io::Result<String>)| {
        serde_json::from_str(&line?).map_err(|error| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("line {}: {error}", index + 1))
        })
    };
    from.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_way_through_a_file_and_a_bad_line_is_named() {
        let writer = Writer { run: 1, producer: 2, epoch: 3, sequence: 4 };
        let events = vec![
            Event::Invoke { op: 1, topic: "t".into(), first: writer, digests: vec![9], class: Class::Local },
            Event::Complete { op: 1, outcome: Outcome::Ok { partition: 0, offset: 5, class: Class::Object } },
            Event::Complete { op: 2, outcome: Outcome::Unknown },
            Event::View { place: Place::new("t", 0), start: 0, records: vec![Seen::new(0, b"x")], lost: vec![(1, 2)] },
            Event::End { place: Place::new("t", 0), tail: 1, closed: true },
            Event::Fork { place: Place::new("f", 0), source: Place::new("t", 0), at: 1, cut: Some(4) },
        ];
        let mut file = Vec::new();
        write_events(&events, &mut file).unwrap();
        assert_eq!(read_events(file.as_slice()).unwrap(), events);
        file.extend_from_slice(b"{\"event\":\"dance\"}\n");
        let error = read_events(file.as_slice()).unwrap_err();
        assert!(error.to_string().starts_with("line 7:"), "{error}");
    }
}
