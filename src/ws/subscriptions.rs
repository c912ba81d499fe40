//! The subscriptions of one connection: who may be asked for records, and what is left of a batch that was cut.
//!
//! A subscription without credit is not asked, and the log keeps its records. A batch that the credit or the size of a
//! frame cuts in two is held here until the rest may go.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;

use crate::broker::{Error, Event, FollowedBatch, Follower};
use crate::telemetry::Open;

use super::RECORDS_FRAME_BYTES;

type Next = Pin<Box<dyn Future<Output = (Box<Follower>, Result<Event, Error>)> + Send>>;

/// All subscriptions of a connection, asked in turn.
#[derive(Default)]
pub(super) struct Subscriptions {
    list: Vec<Subscription>,
    turn: usize,
}

/// One subscription.
pub(super) struct Subscription {
    id: String,
    /// How many records may be sent; without it any number.
    credit: Option<u64>,
    /// The position after everything that was sent.
    cursor: String,
    /// Whether the newest event was the end of a topic.
    ended: bool,
    reading: Reading,
}

enum Reading {
    /// The broker is still looking for the place to begin.
    Opening,
    /// Nothing asked for.
    Idle(Box<Follower>, Open),
    /// Asked for the next event.
    Asked(Next, Open),
    /// A batch of which `sent` records are sent.
    Held { follower: Box<Follower>, open: Open, batch: FollowedBatch, sent: u32 },
    /// Over, or for the moment in which one of the others is made of another.
    Nothing,
}

/// What happened to a subscription.
pub(super) enum Turn {
    /// A frame of records, and how many they are.
    Records(Utf8Bytes, u32),
    /// Something else; the cursor is the one after it.
    Other(Happening, String),
    /// All its topics are deleted.
    Over,
    /// It cannot go on.
    Failed(Error),
}

/// An event that is not records.
pub(super) enum Happening {
    CaughtUp,
    Gap { topic: String, partition: u32, requested: u64, resumed_at: u64, reason: &'static str },
    Closed { topic: String },
    End { topic: String },
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&mut self, id: &str) -> Option<&mut Subscription> {
        self.list.iter_mut().find(|subscription| subscription.id == id)
    }

    /// Takes the name `id` for a subscription that is being opened.
    pub(super) fn reserve(&mut self, id: String, credit: Option<u64>) {
        // Most connections have one; a list that grows by itself begins with four.
        if self.list.is_empty() {
            self.list.reserve_exact(1);
        }
        self.list.push(Subscription { id, credit, cursor: String::new(), ended: false, reading: Reading::Opening });
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Subscription> {
        let place = self.list.iter().position(|subscription| subscription.id == id)?;
        Some(self.list.swap_remove(place))
    }

    /// The position of each subscription.
    pub(super) fn cursors(&self) -> BTreeMap<String, String> {
        let open = self.list.iter().filter(|subscription| !subscription.is_opening());
        open.map(|subscription| (subscription.id.clone(), subscription.cursor.clone())).collect()
    }

    /// The next thing that happens to any subscription that has credit, with its id. Cancel safe: nothing is lost.
    pub(super) async fn next(&mut self) -> (String, Turn) {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(String, Turn)> {
        let count = self.list.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            let subscription = &mut self.list[place];
            if let Poll::Ready(turn) = subscription.poll_turn(context) {
                self.turn = place + 1;
                return Poll::Ready((subscription.id.clone(), turn));
            }
        }
        Poll::Pending
    }
}

impl Subscription {
    pub(super) fn cursor(&self) -> &str {
        &self.cursor
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.reading, Reading::Opening)
    }

    /// Begins to read.
    pub(super) fn open(&mut self, follower: Box<Follower>, open: Open) {
        self.cursor = follower.cursor();
        self.reading = Reading::Idle(follower, open);
    }

    /// Allows `more` records; false when the subscription has no credit to count.
    pub(super) fn add_credit(&mut self, more: u64) -> bool {
        let Some(credit) = &mut self.credit else { return false };
        *credit = credit.saturating_add(more);
        true
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        if self.credit == Some(0) {
            return Poll::Pending;
        }
        let (mut next, open) = match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Opening => {
                self.reading = Reading::Opening;
                return Poll::Pending;
            }
            // What has expired while there was no credit is passed over like anywhere else.
            Reading::Held { mut follower, open, batch, sent } if !batch.is_live_after(sent) => {
                follower.take_back(&batch, sent);
                (ask(follower), open)
            }
            Reading::Held { follower, open, batch, sent } => {
                return Poll::Ready(self.send(follower, open, batch, sent));
            }
            Reading::Idle(follower, open) => (ask(follower), open),
            Reading::Asked(next, open) => (next, open),
            Reading::Nothing => return Poll::Pending,
        };
        match next.as_mut().poll(context) {
            Poll::Pending => {
                self.reading = Reading::Asked(next, open);
                Poll::Pending
            }
            Poll::Ready((follower, event)) => Poll::Ready(self.happen(follower, open, event)),
        }
    }

    fn happen(&mut self, follower: Box<Follower>, open: Open, event: Result<Event, Error>) -> Turn {
        let happening = match event {
            Ok(Event::Records(batch)) => return self.send(follower, open, batch, 0),
            Ok(Event::CaughtUp) => Happening::CaughtUp,
            Ok(Event::Gap { topic, partition, requested, resumed_at, reason }) => {
                Happening::Gap { topic: topic.as_ref().to_owned(), partition, requested, resumed_at, reason }
            }
            Ok(Event::Closed { topic }) => Happening::Closed { topic: topic.as_ref().to_owned() },
            Ok(Event::End { topic }) => Happening::End { topic: topic.as_ref().to_owned() },
            Err(Error::NotFound(_)) if self.ended => return Turn::Over,
            Err(error) => return Turn::Failed(error),
        };
        self.ended = matches!(happening, Happening::End { .. });
        self.cursor = follower.cursor();
        self.reading = Reading::Idle(follower, open);
        Turn::Other(happening, self.cursor.clone())
    }

    /// Makes a frame of as much of `batch`, from its record `sent` on, as the credit and the size of a frame allow.
    fn send(&mut self, follower: Box<Follower>, open: Open, batch: FollowedBatch, sent: u32) -> Turn {
        let (items, count) = self.part_of(&batch, sent);
        if let Some(credit) = &mut self.credit {
            *credit -= u64::from(count);
        }
        let sent = sent + count;
        if sent < batch.count() {
            self.cursor = follower.cursor_after(&batch, sent);
            self.reading = Reading::Held { follower, open, batch, sent };
        } else {
            self.cursor = follower.cursor();
            self.reading = Reading::Idle(follower, open);
        }
        Turn::Records(records_frame(&self.id, &items, &self.cursor), count)
    }

    fn part_of(&self, batch: &FollowedBatch, sent: u32) -> (Bytes, u32) {
        let mut rest = batch.clone();
        if sent > 0 {
            drop(rest.split_to(sent));
        }
        let allowed = self.credit.map_or(rest.count(), |credit| u32::try_from(credit).unwrap_or(u32::MAX));
        let mut count = rest.count().min(allowed);
        if rest.bytes() > RECORDS_FRAME_BYTES {
            count = count.min(records_within(&rest, RECORDS_FRAME_BYTES));
        }
        if count < rest.count() {
            rest = rest.split_to(count);
        }
        (rest.json_items(), count)
    }
}

fn ask(mut follower: Box<Follower>) -> Next {
    Box::pin(async move {
        let event = follower.next().await;
        (follower, event)
    })
}

/// How many records, at least one, it takes to fill `bytes`.
fn records_within(batch: &FollowedBatch, bytes: usize) -> u32 {
    let mut sum = 0;
    for index in 0..batch.count() {
        sum += batch.record_json(index).len();
        if sum >= bytes {
            return index + 1;
        }
    }
    batch.count()
}

fn records_frame(sub: &str, items: &Bytes, cursor: &str) -> Utf8Bytes {
    let sub = serde_json::to_string(sub).expect("a string is plain JSON");
    let cursor = serde_json::to_string(cursor).expect("a string is plain JSON");
    let mut text = Vec::with_capacity(64 + sub.len() + items.len() + cursor.len());
    text.extend_from_slice(br#"{"type":"records","sub":"#);
    text.extend_from_slice(sub.as_bytes());
    text.extend_from_slice(br#","records":["#);
    text.extend_from_slice(items);
    text.extend_from_slice(br#"],"cursor":"#);
    text.extend_from_slice(cursor.as_bytes());
    text.push(b'}');
    Utf8Bytes::try_from(text).expect("rendered records are UTF-8")
}

#[cfg(test)]
mod tests {
    use plinth_api::frames::ServerFrame;
    use plinth_api::records::Record;

    use super::*;

    #[test]
    fn a_frame_of_records_is_the_text_that_its_type_would_give() {
        let items = r#"{"topic":"t","partition":0,"offset":0,"timestamp":1,"value":{"b" : 1}}"#;
        let record: Record = serde_json::from_str(items).unwrap();
        let (sub, cursor) = ("a\"b".to_owned(), "c".to_owned());
        let text = records_frame(&sub, &Bytes::from_static(items.as_bytes()), &cursor);
        let frame = ServerFrame::Records { sub, records: vec![record], cursor };
        assert_eq!(text.as_str(), serde_json::to_string(&frame).unwrap());
    }
}
