//! Publish: check the limits, choose the partitions, append.
//!
//! The limits are those of `plinth_api::limits`; each error names the limit. A record with a key goes to partition
//! XXH3-64(key) mod the number of partitions, with seed 0: part of the contract, never to change. One without goes to
//! the connection's sticky partition, unless the publish has terms that choose one (`terms.rs`). Each partition's share is
//! one append, stored whole or not at all. A batch in its stored form is one share as it is: all keys in it must belong to
//! one partition, unless the request names one.

use std::collections::BTreeMap;

use futures::future::join_all;
use plinth_api::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX, RECORD_HEADERS_MAX,
    RECORD_KEY_BYTES_MAX,
};
use plinth_storage::record::{Batch, NewRecord};
use plinth_storage::terms::Terms as LogTerms;
use plinth_storage::{Cleanup, Durability, Kind};
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::{Catalog, Topic, gone};
use super::error::Error;
use super::streams::is_json;
use super::terms::Terms;
use super::{Broker, proved};
use crate::auth::{Action, TopicRef};

/// What is to be published.
#[derive(Debug)]
pub struct Publish {
    /// The partition of all records; without it keys choose.
    pub partition: Option<u32>,
    /// Chooses the partition of records without a key: the same for all of one connection.
    pub sticky: u64,
    /// At least one record.
    pub records: Vec<NewRecord>,
    /// The same records in their stored form, to be stored as they are in one partition.
    pub stored: Option<Batch>,
    /// The least durability class; without it that of the topic.
    pub durability: Option<Durability>,
    /// What it is recognized by when it is repeated, and what must hold for it.
    pub terms: Option<Box<Terms>>,
}

/// What became of a publish, by partition.
#[derive(Debug, Default)]
pub struct Published {
    /// Stored; at least one.
    pub parts: Vec<PublishedPart>,
    /// Not stored or unknown: which records, by their place in the request, and why.
    pub failed: Vec<(Vec<usize>, Error)>,
}

/// Records that were stored together in one partition.
#[derive(Clone, Debug)]
pub struct PublishedPart {
    /// The partition.
    pub partition: u32,
    /// The offset of the first.
    pub base: u64,
    /// How many.
    pub count: u32,
    /// Their time, ms since the Unix epoch.
    pub timestamp: u64,
    /// The position after them.
    pub cursor: String,
    /// Their places in the request: record `indices[i]` has the offset `base + i`.
    pub indices: Vec<usize>,
    /// Whether an earlier request had stored them.
    pub duplicate: bool,
    /// The durability class that was reached.
    pub durability: Durability,
    /// Its stored form, in bytes.
    pub stored_bytes: u64,
}

/// What the appends of a publish ask for.
#[derive(Clone, Copy)]
struct How<'a> {
    class: Durability,
    terms: Option<&'a LogTerms>,
}

/// The records of one partition, by their places in the request.
type Share = (u32, Vec<usize>);

impl Publish {
    /// What chooses the partition of records without a key.
    fn sticky(&self) -> u64 {
        self.terms.as_ref().and_then(|terms| terms.sticky()).unwrap_or(self.sticky)
    }
}

impl Published {
    /// How many of `records` were stored by this, and not by an earlier request, and their bytes.
    fn stored(&self, records: &[NewRecord]) -> (u64, u64) {
        let new = self.parts.iter().filter(|part| !part.duplicate).flat_map(|part| &part.indices);
        new.fold((0, 0), |(count, bytes), &index| (count + 1, bytes + record_bytes(&records[index])))
    }
}

impl Broker {
    /// Publishes records; the answer comes after they have reached their durability class. Cancel safe: a caller that stops waiting does not undo
    /// it.
    ///
    /// # Errors
    /// When nothing was stored. `Invalid`, `Unprocessable` and `TooLarge` before anything is tried; `NotFound` when the
    /// topic does not exist and the caller may not make it; `Refused` when its terms do not hold; `QuotaExceeded`; those of
    /// the log.
    pub async fn publish(&self, topic: &TopicRef, publish: Publish) -> Result<Published, Error> {
        proved(topic.action(), Action::Publish)?;
        let bytes = check_batch(&publish.records)? as u64;
        publish.terms.as_ref().map_or(Ok(()), |terms| terms.check())?;
        let meters = topic.account().meters();
        if !Catalog::has_room(topic.tenant()) {
            // In a box: few publishes have need for the room that it takes.
            Box::pin(self.catalog().check_storage(topic.tenant())).await?;
        }
        let charge = meters.take_publish(publish.records.len() as u64, bytes)?;
        let published = self.publish_by_name(topic, &publish).await;
        match &published {
            Ok(published) => {
                let new = published.parts.iter().filter(|part| !part.duplicate);
                meters.tenant.stored(new.map(|part| part.stored_bytes).sum());
                let (records, bytes) = published.stored(&publish.records);
                charge.settle(records, bytes);
            }
            // It may be stored: dropped, it counts whole.
            Err(Error::Unknown(_)) => drop(charge),
            Err(_) => charge.give_back(),
        }
        published
    }

    async fn publish_by_name(&self, topic: &TopicRef, publish: &Publish) -> Result<Published, Error> {
        let found = self.catalog().get_or_make(topic).await?;
        match self.publish_to(&found, publish).await {
            // Deleted, or deleted and made again, since it was looked up: once more with what there is now.
            Err(Error::NotFound(_)) => {
                self.catalog().forget(topic);
                let found = self.catalog().get_or_make(topic).await?;
                self.publish_to(&found, publish).await
            }
            outcome => outcome,
        }
    }

    async fn publish_to(&self, topic: &Topic, publish: &Publish) -> Result<Published, Error> {
        check_by_topic(topic, &publish.records)?;
        let class = class(topic, publish.durability)?;
        let mut shares = if publish.stored.is_some() { choose_one(topic, publish)? } else { choose(topic, publish)? };
        let terms = match &publish.terms {
            None => None,
            Some(terms) => {
                terms.check_partitions(topic, publish.partition, shares.len())?;
                Some(terms.of_log(topic, publish))
            }
        };
        let how = How { class, terms: terms.as_ref() };
        if shares.len() == 1 {
            let share = shares.remove(0);
            let part = self.append(topic, share, publish, how).await.map_err(|(_, error)| error)?;
            return Ok(Published { parts: vec![part], failed: vec![] });
        }
        let mut published = Published::default();
        for outcome in join_all(shares.into_iter().map(|share| self.append(topic, share, publish, how))).await {
            match outcome {
                Ok(part) => published.parts.push(part),
                Err(failed) => published.failed.push(failed),
            }
        }
        if published.parts.is_empty() {
            return Err(worst(published.failed));
        }
        Ok(published)
    }

    async fn append(
        &self,
        topic: &Topic,
        (index, places): Share,
        publish: &Publish,
        how: How<'_>,
    ) -> Result<PublishedPart, (Vec<usize>, Error)> {
        let partition = topic.partition(index);
        let made = || Batch::of(places.iter().map(|&place| &publish.records[place]));
        let batch = match publish.stored.clone().map_or_else(made, Ok) {
            Ok(batch) => batch,
            Err(error) => return Err((places, error.into())),
        };
        let stored_bytes = batch.len() as u64;
        let stored = match how.terms {
            None => self.log().append_as(partition, batch, how.class).await,
            Some(terms) => self.log().append_if(partition, batch, terms, how.class).await,
        };
        if topic.partitions == 1 {
            match &stored {
                Ok(_) => self.catalog().moved().note(topic.tenant, &topic.name),
                Err(error) if error.kind() == Kind::Unknown => {
                    self.catalog().moved().note_late(topic.tenant, &topic.name);
                }
                Err(_) => {}
            }
        }
        match stored {
            Ok(stored) => Ok(PublishedPart {
                partition: index,
                base: stored.base.0,
                count: stored.count,
                timestamp: stored.timestamp.0,
                cursor: self.cursors().write(topic.tenant, [(partition, stored.base.plus(stored.count))]),
                indices: places,
                duplicate: stored.duplicate,
                durability: stored.durability,
                stored_bytes,
            }),
            Err(error) if error.kind() == Kind::NotFound => Err((places, gone(&topic.name, error))),
            Err(error) => Err((places, error.into())),
        }
    }
}

/// Payload, key, headers and content type: what a batch is limited by, and a tenant.
fn record_bytes(record: &NewRecord) -> u64 {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let key = record.key.as_ref().map_or(0, |key| key.len());
    (record.payload.len() + key + headers + record.content_type.len()) as u64
}

/// The class to reach: that of the topic, or a stronger one.
fn class(topic: &Topic, asked: Option<Durability>) -> Result<Durability, Error> {
    match asked {
        Some(asked) if asked < topic.durability => Err(Error::Unprocessable(format!(
            "durability {asked} is weaker than that of topic {}, which is {}",
            topic.name, topic.durability
        ))),
        Some(asked) => Ok(asked),
        None => Ok(topic.durability),
    }
}

/// Checks the records by themselves; gives their bytes.
fn check_batch(records: &[NewRecord]) -> Result<usize, Error> {
    if records.is_empty() {
        return Err(Error::Invalid("batch has no record".into()));
    }
    if records.len() > BATCH_RECORDS_MAX {
        let count = records.len();
        return Err(Error::TooLarge(format!("batch of {count} records exceeds the limit of {BATCH_RECORDS_MAX}")));
    }
    let mut total = 0;
    for (place, record) in records.iter().enumerate() {
        let headers = check_headers(record).map_err(|error| at(records, place, error))?;
        let key = record.key.as_ref().map_or(0, |key| key.len());
        if key > RECORD_KEY_BYTES_MAX {
            let why = format!("key of {key} bytes exceeds the limit of {RECORD_KEY_BYTES_MAX}");
            return Err(at(records, place, Error::TooLarge(why)));
        }
        check_payload(record, RECORD_BYTES_MAX, format_args!("")).map_err(|error| at(records, place, error))?;
        total += record.payload.len() + headers + key;
    }
    if total > BATCH_BYTES_MAX {
        return Err(Error::TooLarge(format!("batch of {total} bytes exceeds the limit of {BATCH_BYTES_MAX}")));
    }
    Ok(total)
}

/// Checks the headers and the content type; gives their bytes.
fn check_headers(record: &NewRecord) -> Result<usize, Error> {
    let count = record.headers.len();
    if count > RECORD_HEADERS_MAX {
        return Err(Error::TooLarge(format!("{count} headers exceed the limit of {RECORD_HEADERS_MAX}")));
    }
    let bytes = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let bytes = bytes + record.content_type.len();
    if bytes > RECORD_HEADERS_BYTES_MAX {
        let limit = RECORD_HEADERS_BYTES_MAX;
        return Err(Error::TooLarge(format!("headers and content type of {bytes} bytes exceed the limit of {limit}")));
    }
    if !is_field_value(&record.content_type) {
        return Err(Error::Unprocessable("content type has a control character".into()));
    }
    for (place, (name, value)) in record.headers.iter().enumerate() {
        let shown = String::from_utf8_lossy(name);
        if !is_token(name) {
            return Err(Error::Unprocessable(format!("header name {shown:?} is not a token of RFC 9110")));
        }
        if !is_field_value(value) {
            return Err(Error::Unprocessable(format!("value of header {shown} has a control character")));
        }
        if record.headers[..place].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            return Err(Error::Unprocessable(format!("header {shown} is given twice")));
        }
    }
    Ok(bytes)
}

/// Checks a media type by itself.
pub(super) fn check_media_type(text: &[u8]) -> Result<(), Error> {
    if text.len() > RECORD_HEADERS_BYTES_MAX {
        let (bytes, limit) = (text.len(), RECORD_HEADERS_BYTES_MAX);
        return Err(Error::TooLarge(format!("media type of {bytes} bytes exceeds the limit of {limit}")));
    }
    if text.is_empty() || !is_field_value(text) {
        return Err(Error::Invalid("media type is empty, or has a control character".into()));
    }
    Ok(())
}

/// What a stream holds is all of one media type, and JSON if it says so.
fn check_by_stream(topic: &Topic, record: &NewRecord) -> Result<(), Error> {
    let Some(media) = topic.stream_media() else { return Ok(()) };
    let name = &topic.name;
    if !media.matches(&record.content_type) {
        let is = media.text();
        return Err(Error::Unprocessable(format!("{name} is a stream of the media type {is}: the record has another")));
    }
    if media.is_json() && !is_json(&record.payload) {
        return Err(Error::Unprocessable(format!("{name} is a stream of JSON: the payload is none")));
    }
    Ok(())
}

/// The topic may allow less than a record may have anywhere, or want a key.
fn check_by_topic(topic: &Topic, records: &[NewRecord]) -> Result<(), Error> {
    let limit = topic.max_record_bytes as usize;
    let of = format_args!(" of topic {}", topic.name);
    for (place, record) in records.iter().enumerate() {
        check_payload(record, limit, of).map_err(|error| at(records, place, error))?;
        check_by_stream(topic, record).map_err(|error| at(records, place, error))?;
        if topic.cleanup == Cleanup::Compact && record.key.is_none() {
            let why = format!("a record of topic {} needs a key: its cleanup is compact", topic.name);
            return Err(at(records, place, Error::Unprocessable(why)));
        }
    }
    Ok(())
}

fn check_payload(record: &NewRecord, limit: usize, of: std::fmt::Arguments<'_>) -> Result<(), Error> {
    let bytes = record.payload.len();
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::TooLarge(format!("record of {bytes} bytes exceeds the limit of {limit}{of}")))
}

/// Names the record in an error about one of several.
fn at(records: &[NewRecord], place: usize, error: Error) -> Error {
    if records.len() == 1 {
        return error;
    }
    match error {
        Error::TooLarge(why) => Error::TooLarge(format!("record {}: {why}", place + 1)),
        Error::Unprocessable(why) => Error::Unprocessable(format!("record {}: {why}", place + 1)),
        Error::NotFound(_)
        | Error::Conflict(_)
        | Error::Refused { .. }
        | Error::Invalid(_)
        | Error::InvalidCursor(_)
        | Error::Trimmed { .. }
        | Error::AboveTail { .. }
        | Error::Gone(_)
        | Error::Closed { .. }
        | Error::ContentType { .. }
        | Error::QuotaExceeded(_)
        | Error::Busy(_)
        | Error::Unavailable(_)
        | Error::ShuttingDown(_)
        | Error::Unknown(_)
        | Error::Internal { .. } => error,
    }
}

/// Gives each record its partition.
fn choose(topic: &Topic, publish: &Publish) -> Result<Vec<Share>, Error> {
    let all = || (0..publish.records.len()).collect();
    if publish.partition.is_some() || topic.partitions == 1 {
        return Ok(vec![(topic.chosen(publish.partition)?.start, all())]);
    }
    let sticky = publish.sticky();
    let mut shares = BTreeMap::<u32, Vec<usize>>::new();
    for (index, record) in publish.records.iter().enumerate() {
        let hash = record.key.as_ref().map_or(sticky, |key| xxh3_64(key));
        shares.entry(by_hash(topic, hash)).or_default().push(index);
    }
    Ok(shares.into_iter().collect())
}

/// The one partition of a batch that is stored as it is: where its keys belong, so that readers find a key where they
/// look for it.
fn choose_one(topic: &Topic, publish: &Publish) -> Result<Vec<Share>, Error> {
    if publish.partition.is_some() || topic.partitions == 1 {
        return choose(topic, publish);
    }
    let keyed = publish.records.iter().enumerate().filter_map(|(index, record)| Some((index, record.key.as_ref()?)));
    let mut homes = keyed.map(|(index, key)| (index, by_hash(topic, xxh3_64(key))));
    let Some((first, home)) = homes.next() else {
        return Ok(vec![(by_hash(topic, publish.sticky()), (0..publish.records.len()).collect())]);
    };
    if let Some((other, elsewhere)) = homes.find(|(_, place)| *place != home) {
        let (first, other) = (first + 1, other + 1);
        return Err(Error::Unprocessable(format!(
            "the key of record {other} belongs to partition {elsewhere}, that of record {first} to partition {home}: a \
             batch in its stored form goes to one partition; name it, or send one batch per partition"
        )));
    }
    Ok(vec![(home, (0..publish.records.len()).collect())])
}

fn by_hash(topic: &Topic, hash: u64) -> u32 {
    u32::try_from(hash % u64::from(topic.partitions)).expect("less than a u32")
}

/// The error that says most when no share was stored: an open outcome before all others.
fn worst(failed: Vec<(Vec<usize>, Error)>) -> Error {
    let mut errors: Vec<Error> = failed.into_iter().map(|(_, error)| error).collect();
    let open = errors.iter().position(|error| matches!(error, Error::Unknown(_) | Error::Internal { .. }));
    errors.swap_remove(open.unwrap_or(0))
}

/// RFC 9110, section 5.6.2.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// RFC 9110, section 5.5, and UTF-8: no control character but the tab, so that a value cannot end a line anywhere.
fn is_field_value(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|value| !value.chars().any(|c| c.is_control() && c != '\t'))
}
