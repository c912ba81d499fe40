//! Follow one stream: the loop below long-poll and SSE.
//!
//! It watches the partition before it looks at the end, so that nothing is missed in between, and takes the end and the
//! closing of one moment: who is told that the stream is closed has been given everything.

use std::sync::Arc;

use bytes::Bytes;
use plinth_storage::feed::Follow;
use plinth_storage::ids::Offset;

use super::read::{Reading, payloads, pieces};
use super::{StreamFrom, StreamView, Token, check_is_stream};
use crate::auth::{Account, Action, TopicRef};
use crate::broker::batch::FollowedBatch;
use crate::broker::catalog::{Open, Topic};
use crate::broker::error::Error;
use crate::broker::page::PageGap;
use crate::broker::quotas::{Opened, Pace};
use crate::broker::{Broker, proved};
use crate::render::{EventData, StreamForm, event};

/// Follows a stream.
pub struct StreamFollower {
    broker: Broker,
    account: Account,
    /// It counts as a follower as long as it lives.
    _open: Opened,
    pace: Pace,
    /// While it lives the stream is in use.
    _used: Option<Open>,
    wake: Follow,
    reading: Reading,
    view: StreamView,
    bytes_max: usize,
    told: Told,
}

/// What the reader knows of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    UpToDate,
    Closed,
}

/// What came of a stream.
pub struct StreamMoved {
    /// What was appended, in order; may be nothing.
    pub batches: Vec<FollowedBatch>,
    /// The offset of the first of it.
    pub from: Offset,
    /// The offset after it.
    pub to: Offset,
    /// The same for clients.
    pub next: Token,
    /// Whether that is the end of the stream.
    pub up_to_date: bool,
    /// Whether it is the end and nothing can come.
    pub closed: bool,
    /// Where records are missing.
    pub gaps: Vec<PageGap>,
    topic: Arc<Topic>,
}

impl Broker {
    /// Begins to follow a stream, about `bytes_max` bytes at a time. Cancel safe.
    ///
    /// # Errors
    /// As [`Broker::read_stream`]; `QuotaExceeded` for one follower too many.
    pub async fn follow_stream(
        &self,
        topic: &TopicRef,
        from: StreamFrom,
        bytes_max: usize,
    ) -> Result<StreamFollower, Error> {
        proved(topic.action(), Action::Subscribe)?;
        let account = topic.account().clone();
        let (open, pace) = (account.meters().follower()?, Pace::begin(account.meters()));
        let found = self.catalog().get_to_read(topic).await?;
        check_is_stream(&found)?;
        let used = self.catalog().open(&found);
        let mut wake = self.log().follow();
        wake.add(found.partition(0));
        let bounds = self.bounds_of(&found)?;
        let view = StreamView::of(&found, &bounds);
        let from = from.resolve(&found, &bounds)?;
        Ok(StreamFollower {
            broker: self.clone(),
            account,
            _open: open,
            pace,
            _used: used,
            wake,
            reading: Reading::new(self, found, from),
            view,
            bytes_max,
            told: Told::Nothing,
        })
    }
}

impl StreamFollower {
    /// The stream, as it was when it was begun to be followed.
    #[must_use]
    pub fn view(&self) -> &StreamView {
        &self.view
    }

    /// What comes next, with what holds after it; waits while there is nothing new. The first call answers at once. After
    /// one that says `closed` nothing comes. Cancel safe.
    ///
    /// # Errors
    /// `NotFound` when the stream was deleted; `Gone` when what is next is no longer kept; those of the log, after which it
    /// may be called again.
    pub async fn next(&mut self) -> Result<StreamMoved, Error> {
        loop {
            self.pace.wait().await;
            let bounds = self.broker.bounds_of(&self.reading.topic)?;
            let begins = self.reading.next;
            // Who has been at the end reads what others read at the same time.
            self.reading.live = self.told != Told::Nothing;
            let found = self.reading.look(&self.broker, bounds.tail, self.bytes_max).await?;
            let up_to_date = self.reading.next >= bounds.tail;
            let closed = up_to_date && bounds.closed;
            let told = match (up_to_date, closed) {
                (_, true) => Told::Closed,
                (true, false) => Told::UpToDate,
                (false, false) => Told::Nothing,
            };
            if self.reading.next > begins || self.told == Told::Nothing || (closed && self.told != told) {
                let (records, bytes) = found.sizes();
                self.pace.delivered(self.account.meters(), records, bytes);
                self.told = told;
                let topic = Arc::clone(&self.reading.topic);
                let (from, to) = (begins, self.reading.next);
                let next = topic.token(to);
                let (batches, gaps) = (found.batches, found.gaps);
                return Ok(StreamMoved { batches, from, to, next, up_to_date, closed, gaps, topic });
            }
            self.wake.changed().await;
        }
    }
}

impl StreamMoved {
    /// What was appended, to be sent one after the other: of a JSON stream one array, else the bytes as they were appended.
    #[must_use]
    pub fn pieces(&self) -> Vec<Bytes> {
        pieces(&self.topic, &self.batches)
    }

    /// One of the batches as an event. Made once for all who follow the stream.
    ///
    /// # Panics
    /// When there is no such batch.
    #[must_use]
    pub fn event(&self, batch: usize, data: EventData) -> Bytes {
        let batch = &self.batches[batch];
        batch.of_stream(StreamForm::Event(data), || {
            event(data, payloads(&self.topic, batch), batch.bytes() + batch.count() as usize)
        })
    }

    /// How many records were.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.batches.iter().map(|batch| u64::from(batch.count())).sum()
    }

    /// The position after one of the batches.
    ///
    /// # Panics
    /// When there is no such batch.
    #[must_use]
    pub fn token_after(&self, batch: usize) -> Token {
        let batch = &self.batches[batch];
        self.topic.token(batch.next_after(batch.count()))
    }
}
