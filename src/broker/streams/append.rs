//! Append to a stream, close it, or both: one entry of the log, stored whole or not at all.
//!
//! The log decides what is a duplicate, what is out of order and what comes after the end; here it is decided what a body
//! is as records: one per JSON message, and one per other body, in pieces where it is larger than a record may be.

use bytes::Bytes;
use plinth_api::limits::{
    BATCH_BYTES_MAX, NUMBER_MAX, PRODUCER_ID_BYTES_MAX, STREAM_MESSAGES_MAX, STREAM_SEQ_BYTES_MAX,
};
use plinth_storage::Kind;
use plinth_storage::error::Refusal;
use plinth_storage::ids::{ProducerEpoch, ProducerSeq};
use plinth_storage::log::Stepped;
use plinth_storage::record::{BATCH_RECORDS_MAX, Batch, BatchBuilder, NewRecord};
use plinth_storage::terms::{Producer, StreamTerms};

use super::{Media, StreamAppend, StreamAppended, check_is_stream, json};
use crate::auth::{Action, TopicRef};
use crate::broker::catalog::{Catalog, Topic, gone};
use crate::broker::error::Error;
use crate::broker::publish::check_media_type;
use crate::broker::{Broker, proved};

const _: () = assert!(STREAM_MESSAGES_MAX <= BATCH_RECORDS_MAX, "an append is one batch");

impl Broker {
    /// Appends to a stream that exists, or closes it; the answer comes when it is stored. Cancel safe: a caller that stops
    /// waiting does not undo it.
    ///
    /// # Errors
    /// `Invalid` for neither body nor closing, a body without a media type, one that is not JSON where it has to be, or
    /// without a message; `TooLarge`; `NotFound`; `Closed`; `ContentType`; `Refused` by the producer's or the stream's
    /// sequence; `Conflict` for a topic that is no stream; `QuotaExceeded`; those of the log.
    pub async fn append_to_stream(&self, topic: &TopicRef, append: &StreamAppend) -> Result<StreamAppended, Error> {
        proved(topic.action(), Action::Publish)?;
        check(append)?;
        let terms = terms_of(append);
        match self.append_to_found(topic, append, &terms).await {
            // Deleted, or deleted and made again, since it was looked up.
            Err(Error::NotFound(_)) => {
                self.catalog().forget(topic);
                self.append_to_found(topic, append, &terms).await
            }
            outcome => outcome,
        }
    }

    async fn append_to_found(
        &self,
        name: &TopicRef,
        append: &StreamAppend,
        terms: &StreamTerms,
    ) -> Result<StreamAppended, Error> {
        let topic = self.catalog().get(name)?;
        check_is_stream(&topic)?;
        let (batch, records) = match batch_of(&topic, append) {
            Ok(made) => made.map_or((None, 0), |(batch, records)| (Some(batch), records)),
            Err(error) => return self.refused(&topic, terms, error).await,
        };
        if records > 0 && !Catalog::has_room(name.tenant()) {
            // In a box: few appends have need for the room that it takes.
            Box::pin(self.catalog().check_storage(name.tenant())).await?;
        }
        let (meters, bytes) = (name.account().meters(), append.body.len() as u64);
        let stored_bytes = batch.as_ref().map_or(0, |batch| batch.len() as u64);
        let charge = meters.take_publish(records, bytes)?;
        let stepped = self.log().step(topic.partition(0), batch, terms, topic.durability).await;
        match &stepped {
            Ok(stepped) if stepped.duplicate => charge.give_back(),
            Ok(_) => {
                meters.tenant.stored(stored_bytes);
                charge.settle(records, bytes);
            }
            // It may be stored: dropped, it counts whole.
            Err(error) if error.kind() == Kind::Unknown => {
                self.catalog().moved().note_late(topic.tenant, &topic.name);
                drop(charge);
            }
            Err(_) => charge.give_back(),
        }
        let stepped = stepped.map_err(|error| failed(&topic, error))?;
        if stepped.count == 0 {
            // What stores no record is a use too.
            self.catalog().touch(&topic).await?;
        } else {
            self.catalog().moved().note(topic.tenant, &topic.name);
        }
        Ok(appended(&topic, terms, stepped))
    }

    /// What is wrong with a body is not what is wrong with the append where the stream is closed, for what closed it may be
    /// repeated with any body.
    async fn refused(&self, topic: &Topic, terms: &StreamTerms, error: Error) -> Result<StreamAppended, Error> {
        let bounds = self.log().bounds(topic.partition(0)).map_err(|error| gone(&topic.name, error))?;
        if !bounds.closed {
            return Err(error);
        }
        if terms.producer.is_none() {
            return Err(Error::Closed { next: topic.token(bounds.tail) });
        }
        let again = StreamTerms { close: true, ..terms.clone() };
        let stepped = self.log().step(topic.partition(0), None, &again, topic.durability).await;
        Ok(appended(topic, terms, stepped.map_err(|error| failed(topic, error))?))
    }
}

fn appended(topic: &Topic, terms: &StreamTerms, stepped: Stepped) -> StreamAppended {
    let Stepped { tail, count, closed, duplicate, highest, .. } = stepped;
    let epoch = terms.producer.as_ref().map(|producer| producer.epoch.0);
    let producer = epoch.zip(highest.map(|seq| seq.0));
    StreamAppended { next: topic.token(tail), closed, duplicate, records: count, producer }
}

fn failed(topic: &Topic, error: plinth_storage::Error) -> Error {
    match error.kind() {
        Kind::Refused(Refusal::Closed { tail }) => Error::Closed { next: topic.token(tail) },
        Kind::NotFound => gone(&topic.name, error),
        Kind::Refused(_)
        | Kind::Fenced
        | Kind::OutOfRange
        | Kind::Busy
        | Kind::Unavailable
        | Kind::Unknown
        | Kind::Corrupt
        | Kind::Closed
        | Kind::Conflict
        | Kind::Invalid => error.into(),
    }
}

/// Checks what can be checked without the stream.
fn check(append: &StreamAppend) -> Result<(), Error> {
    let StreamAppend { content_type, body, producer, seq, close } = append;
    if body.is_empty() && !close {
        return Err(Error::Invalid("append has no body and does not close the stream".into()));
    }
    if !body.is_empty() && content_type.is_none() {
        return Err(Error::Invalid("append has a body and no media type".into()));
    }
    check_body(body)?;
    if let Some(seq) = seq.as_ref().filter(|seq| !(1..=STREAM_SEQ_BYTES_MAX).contains(&seq.len())) {
        let (bytes, limit) = (seq.len(), STREAM_SEQ_BYTES_MAX);
        return Err(Error::Invalid(format!("stream sequence of {bytes} bytes is not within 1 to {limit}")));
    }
    let Some(producer) = producer else { return Ok(()) };
    if !(1..=PRODUCER_ID_BYTES_MAX).contains(&producer.id.len()) {
        let (bytes, limit) = (producer.id.len(), PRODUCER_ID_BYTES_MAX);
        return Err(Error::Invalid(format!("producer id of {bytes} bytes is not within 1 to {limit}")));
    }
    match [("epoch", producer.epoch), ("sequence", producer.seq)].into_iter().find(|(_, number)| *number > NUMBER_MAX) {
        Some((what, number)) => {
            Err(Error::Invalid(format!("producer {what} {number} exceeds the limit of {NUMBER_MAX}")))
        }
        None => Ok(()),
    }
}

pub(super) fn check_body(body: &Bytes) -> Result<(), Error> {
    if body.len() > BATCH_BYTES_MAX {
        let bytes = body.len();
        return Err(Error::TooLarge(format!("body of {bytes} bytes exceeds the limit of {BATCH_BYTES_MAX}")));
    }
    Ok(())
}

fn terms_of(append: &StreamAppend) -> StreamTerms {
    let producer = append.producer.as_ref().map(|producer| Producer {
        id: producer.id.clone(),
        epoch: ProducerEpoch(producer.epoch),
        seq: ProducerSeq(producer.seq),
    });
    StreamTerms { producer, seq: append.seq.clone(), close: append.close }
}

/// The records of an append; none for a closing alone.
fn batch_of(topic: &Topic, append: &StreamAppend) -> Result<Option<(Batch, u64)>, Error> {
    if append.body.is_empty() {
        return Ok(None);
    }
    let media = topic.media();
    let given = append.content_type.as_deref().unwrap_or_default();
    check_media_type(given.as_bytes())?;
    if !media.matches(given.as_bytes()) {
        return Err(Error::ContentType { stream: media.text().clone() });
    }
    match records(media, &append.body, topic.max_record_bytes)? {
        Some(made) => Ok(Some(made)),
        None => Err(Error::Invalid("body is an array without a message".into())),
    }
}

/// The records of a body, and how many; none for an empty one, and for a JSON array without a message.
pub(super) fn records(media: &Media, body: &Bytes, record_bytes_max: u32) -> Result<Option<(Batch, u64)>, Error> {
    if body.is_empty() {
        return Ok(None);
    }
    let limit = record_bytes_max as usize;
    let pieces = if media.is_json() {
        let messages = json::split(body, STREAM_MESSAGES_MAX)?;
        if let Some(over) = messages.iter().find(|message| message.len() > limit) {
            let bytes = over.len();
            return Err(Error::TooLarge(format!(
                "message of {bytes} bytes exceeds the limit of {limit} of the stream"
            )));
        }
        messages
    } else {
        pieces(media, body, limit)
    };
    if pieces.is_empty() {
        return Ok(None);
    }
    if pieces.len() > BATCH_RECORDS_MAX {
        let (count, bytes) = (pieces.len(), body.len());
        return Err(Error::TooLarge(format!(
            "body of {bytes} bytes is {count} records of the stream's {limit} bytes: the limit is {BATCH_RECORDS_MAX}"
        )));
    }
    let mut batch = BatchBuilder::new();
    let mut record = NewRecord { content_type: media.bytes().clone(), ..NewRecord::default() };
    for payload in pieces {
        record.payload = payload;
        batch.push(&record)?;
    }
    let batch = batch.finish()?;
    let count = u64::from(batch.count());
    Ok(Some((batch, count)))
}

/// A body in pieces of at most `limit` bytes; of text, between characters where that is possible.
fn pieces(media: &Media, body: &Bytes, limit: usize) -> Vec<Bytes> {
    let (mut pieces, mut rest) = (Vec::with_capacity(body.len().div_ceil(limit)), body.clone());
    while rest.len() > limit {
        // A character has at most four bytes; what is no UTF-8 is cut where it comes.
        let between = |at: &usize| rest[*at] & 0xC0 != 0x80;
        let near = (limit.saturating_sub(3).max(1)..=limit).rev().find(between);
        pieces.push(rest.split_to(near.filter(|_| media.is_text()).unwrap_or(limit)));
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Fails when a character is cut in two, or a piece is longer than a record may be.
        #[test]
        fn pieces_of_text_are_whole_characters_and_together_the_body(text in "\\PC{1,40}", limit in 4..9usize) {
            let body = Bytes::from(text);
            let pieces = pieces(&Media::new("text/plain"), &body, limit);
            prop_assert_eq!(&pieces.concat()[..], &body[..]);
            for piece in pieces {
                prop_assert!((1..=limit).contains(&piece.len()));
                prop_assert!(std::str::from_utf8(&piece).is_ok());
            }
        }

        #[test]
        fn pieces_of_other_bodies_are_as_long_as_they_may_be(body: Vec<u8>, limit in 1..9usize) {
            prop_assume!(!body.is_empty());
            let body = Bytes::from(body);
            for media in ["image/png", "text/plain"].map(Media::new) {
                let pieces = pieces(&media, &body, limit);
                prop_assert_eq!(&pieces.concat()[..], &body[..]);
                prop_assert!(pieces.iter().all(|piece| (1..=limit).contains(&piece.len())));
                prop_assert!(media.is_text() || pieces.len() == body.len().div_ceil(limit));
            }
        }
    }
}
