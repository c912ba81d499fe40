//! How far a subscription has come: the last cursor, and the next offset of every partition that has been seen.
//!
//! The cursor says where to go on. The offsets make up for a cursor that is a little behind: what was printed after it
//! comes again after a reconnect and is dropped here.

use std::collections::HashMap;

use serde::Deserialize;

/// Which record it is.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
}

/// What to do with a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was printed before.
    Seen,
    /// It is the next one, or the first of its partition.
    Next,
    /// Records between `expected` and it are missing.
    Jump {
        /// The offset after the last one printed.
        expected: u64,
    },
}

/// How far a subscription has come.
#[derive(Debug)]
pub(super) struct Position {
    from: String,
    cursor: Option<String>,
    next: HashMap<String, HashMap<u32, u64>>,
}

impl Position {
    pub(super) fn new(from: &str) -> Self {
        Self { from: from.to_owned(), cursor: None, next: HashMap::new() }
    }

    /// The `from` of the next connection.
    pub(super) fn from(&self) -> String {
        match &self.cursor {
            Some(cursor) => format!("cursor:{cursor}"),
            None => self.from.clone(),
        }
    }

    /// The last cursor.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Everything up to `cursor` has been brought.
    pub(super) fn reached(&mut self, cursor: String) {
        self.cursor = Some(cursor);
    }

    /// Decides about a record and takes note of it.
    pub(super) fn accept(&mut self, place: &Place) -> Verdict {
        let Some(expected) = self.next.get(&place.topic).and_then(|next| next.get(&place.partition)).copied() else {
            self.set(place, place.offset + 1);
            return Verdict::Next;
        };
        if place.offset < expected {
            return Verdict::Seen;
        }
        self.set(place, place.offset + 1);
        if place.offset == expected { Verdict::Next } else { Verdict::Jump { expected } }
    }

    /// The node has said that the partition goes on at `place`.
    pub(super) fn skip_to(&mut self, place: Place) {
        let offset = place.offset;
        self.set(&place, offset);
    }

    /// The topic was deleted: one of the same name that is made later begins at 0.
    pub(super) fn forget(&mut self, topic: &str) {
        self.next.remove(topic);
    }

    fn set(&mut self, place: &Place, next: u64) {
        match self.next.get_mut(&place.topic) {
            Some(partitions) => partitions.insert(place.partition, next),
            None => self.next.entry(place.topic.clone()).or_default().insert(place.partition, next),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: u32, offset: u64) -> Place {
        Place { topic: "t".to_owned(), partition, offset }
    }

    #[test]
    fn a_record_is_accepted_once_and_a_jump_is_noticed() {
        let mut position = Position::new("latest");
        assert_eq!(position.accept(&place(0, 7)), Verdict::Next);
        assert_eq!(position.accept(&place(0, 8)), Verdict::Next);
        assert_eq!(position.accept(&place(0, 8)), Verdict::Seen);
        assert_eq!(position.accept(&place(1, 0)), Verdict::Next);
        assert_eq!(position.accept(&place(0, 11)), Verdict::Jump { expected: 9 });
        position.skip_to(place(0, 20));
        assert_eq!(position.accept(&place(0, 20)), Verdict::Next);
        position.forget("t");
        assert_eq!(position.accept(&place(0, 0)), Verdict::Next);
    }

    #[test]
    fn the_next_connection_begins_at_the_last_cursor() {
        let mut position = Position::new("-5");
        assert_eq!(position.from(), "-5");
        position.reached("abc".to_owned());
        assert_eq!(position.from(), "cursor:abc");
    }
}
