//! The terms of a publish: what it is recognized by when it is repeated, and what must hold for it.
//!
//! They are checked here for their form, and decided by the log where offsets are given. A publish that is recognized by
//! something goes to the same partitions whichever connection it comes on: records without a key go where its producer's
//! id or its idempotency key sends them.

use bytes::Bytes;
use plinth_api::limits::{IDEMPOTENCY_KEY_BYTES_MAX, NUMBER_MAX, PRODUCER_ID_BYTES_MAX};
use plinth_storage::ids::{FencingToken, Offset, ProducerEpoch, ProducerSeq};
use plinth_storage::record::NewRecord;
use plinth_storage::terms::{IdempotencyKey, Once, Producer, Terms as LogTerms};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use super::catalog::Topic;
use super::error::Error;
use super::publish::Publish;

/// Differs with each try of the same request, so it is not part of its content.
const TRACE: [&[u8]; 2] = [b"traceparent", b"tracestate"];

/// The terms of a publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Recognizes a repeated request by a key. Not together with `producer`.
    pub idempotency_key: Option<String>,
    /// Recognizes it by its number.
    pub producer: Option<ProducerTerm>,
    /// The offset that the first record must get.
    pub expected_tail: Option<u64>,
    /// Must not be below the highest one that the partition has seen.
    pub fencing_token: Option<u64>,
}

/// One publish of a producer, which counts them in each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerTerm {
    /// Names it within the partition.
    pub id: String,
    /// Its incarnation.
    pub epoch: u64,
    /// The number of the publish within the epoch, from 0.
    pub seq: u64,
}

impl Terms {
    /// Whether there is no term at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks their form.
    ///
    /// # Errors
    /// `Invalid` and `TooLarge`, naming the term.
    pub(super) fn check(&self) -> Result<(), Error> {
        if let Some(key) = &self.idempotency_key {
            check_name("idempotency key", key, IDEMPOTENCY_KEY_BYTES_MAX)?;
            if self.producer.is_some() {
                let why = "a publish is recognized by an idempotency key or by its producer's sequence, not by both";
                return Err(Error::Invalid(why.into()));
            }
        }
        if let Some(ProducerTerm { id, epoch, seq }) = &self.producer {
            check_name("producer id", id, PRODUCER_ID_BYTES_MAX)?;
            check_number("producer epoch", Some(*epoch))?;
            check_number("producer sequence", Some(*seq))?;
        }
        check_number("expected tail", self.expected_tail)?;
        check_number("fencing token", self.fencing_token)
    }

    /// What chooses the partition of records without a key, when the request is recognized by something.
    pub(super) fn sticky(&self) -> Option<u64> {
        let producer = self.producer.as_ref().map(|producer| &producer.id);
        self.idempotency_key.as_ref().or(producer).map(|name| xxh3_64(name.as_bytes()))
    }

    /// Checks that terms which are about one partition name it: of the topic, or by records that all go to one.
    ///
    /// # Errors
    /// `Unprocessable`.
    pub(super) fn check_partitions(&self, topic: &Topic, partition: Option<u32>, used: usize) -> Result<(), Error> {
        let (partitions, name) = (topic.partitions, &topic.name);
        if partition.is_some() || partitions == 1 {
            return Ok(());
        }
        let why = match self {
            Self { expected_tail: Some(_), .. } => "an expected tail is that of one partition",
            Self { fencing_token: Some(_), .. } => "a fencing token is that of one partition",
            Self { producer: Some(_), .. } if used > 1 => {
                "a producer counts in each partition, and the records go to several"
            }
            Self { .. } => return Ok(()),
        };
        Err(Error::Unprocessable(format!("{why}: name it, topic {name} has {partitions}")))
    }

    /// As the log wants them.
    pub(super) fn of_log(&self, topic: &Topic, publish: &Publish) -> LogTerms {
        let producer = self.producer.as_ref().map(|producer| {
            let id = Bytes::copy_from_slice(producer.id.as_bytes());
            Once::Producer(Producer { id, epoch: ProducerEpoch(producer.epoch), seq: ProducerSeq(producer.seq) })
        });
        let key = self.idempotency_key.as_ref().map(|key| {
            let home = xxh3_64(key.as_bytes()) % u64::from(topic.partitions);
            let home = topic.partition(u32::try_from(home).expect("less than a u32"));
            let content = content(publish.partition, &publish.records);
            Once::Key(IdempotencyKey { key: xxh3_128(key.as_bytes()), content, home })
        });
        LogTerms {
            once: producer.or(key),
            expected_tail: self.expected_tail.map(Offset),
            fencing_token: self.fencing_token.map(FencingToken),
        }
    }
}

fn check_name(what: &str, name: &str, limit: usize) -> Result<(), Error> {
    if name.len() > limit {
        return Err(Error::TooLarge(format!("{what} of {} bytes exceeds the limit of {limit}", name.len())));
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Invalid(format!("{what} {name:?} is not 1 to {limit} visible ASCII characters")));
    }
    Ok(())
}

fn check_number(what: &str, number: Option<u64>) -> Result<(), Error> {
    match number {
        Some(number) if number > NUMBER_MAX => {
            Err(Error::Invalid(format!("{what} {number} exceeds the limit of {NUMBER_MAX}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// A hash of all that a request is to store and where, in whichever form it came. Every part goes in with its length.
fn content(partition: Option<u32>, records: &[NewRecord]) -> u128 {
    let mut hash = Xxh3::new();
    let part = |hash: &mut Xxh3, bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(&mut hash, partition.map(u32::to_le_bytes).as_ref().map_or(&[], |bytes| &bytes[..]));
    for record in records {
        hash.update(&[u8::from(record.key.is_some())]);
        part(&mut hash, record.key.as_deref().unwrap_or_default());
        part(&mut hash, &record.content_type);
        // What is between client and server may change the order of headers, and the case of their names.
        let headers = record.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), &value[..]));
        let mut headers: Vec<_> = headers.filter(|(name, _)| !TRACE.contains(&&name[..])).collect();
        let ttl = record.ttl_ms.map(|ttl| ttl.get().to_le_bytes());
        headers.extend(ttl.as_ref().map(|ttl| (Vec::new(), &ttl[..])));
        headers.sort_unstable();
        hash.update(&(headers.len() as u64).to_le_bytes());
        for (name, value) in headers {
            part(&mut hash, &name);
            part(&mut hash, value);
        }
        part(&mut hash, &record.payload);
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn record(key: &str, headers: &[(&str, &str)], payload: &str) -> NewRecord {
        let bytes = |text: &str| Bytes::from(text.to_owned());
        NewRecord {
            key: (!key.is_empty()).then(|| bytes(key)),
            content_type: bytes("text/plain"),
            headers: headers.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
            ttl_ms: None,
            payload: bytes(payload),
        }
    }

    #[test]
    fn the_content_is_all_that_is_stored_and_nothing_that_a_retry_changes() {
        let same = content(None, &[record("k", &[("a", "1"), ("b", "2"), ("traceparent", "00-1")], "x")]);
        assert_eq!(content(None, &[record("k", &[("B", "2"), ("a", "1"), ("traceparent", "00-2")], "x")]), same);
        let others = [
            content(Some(0), &[record("k", &[("a", "1"), ("b", "2")], "x")]),
            content(None, &[record("", &[("a", "1"), ("b", "2")], "x")]),
            content(None, &[record("k", &[("a", "1"), ("b", "3")], "x")]),
            content(None, &[record("k", &[("a", "1b"), ("", "2")], "x")]),
            content(None, &[record("k", &[("a", "1")], "x")]),
            content(None, &[record("k", &[("a", "1"), ("b", "2")], "y")]),
            content(
                None,
                &[NewRecord { ttl_ms: NonZeroU64::new(1_000), ..record("k", &[("a", "1"), ("b", "2")], "x") }],
            ),
            content(None, &[record("k", &[("a", "1"), ("b", "2")], "x"), record("", &[], "")]),
        ];
        assert!(others.iter().all(|other| *other != same));
        let split = |one: &str, two: &str| content(None, &[record("", &[], one), record("", &[], two)]);
        assert_ne!(split("ab", "c"), split("a", "bc"));
    }

    #[test]
    fn terms_that_break_a_rule_are_named() {
        let refusal = |terms: Terms| terms.check().expect_err("refused").to_string();
        let key = |key: &str| Terms { idempotency_key: Some(key.to_owned()), ..Terms::default() };
        let producer = |id: &str, epoch, seq| Terms {
            producer: Some(ProducerTerm { id: id.to_owned(), epoch, seq }),
            ..Terms::default()
        };
        for bad in ["", "a b", "é", "a\u{7f}"] {
            assert!(refusal(key(bad)).contains("visible ASCII"), "{bad:?}");
            assert!(refusal(producer(bad, 0, 0)).contains("visible ASCII"), "{bad:?}");
        }
        assert_eq!(refusal(key(&"k".repeat(256))), "idempotency key of 256 bytes exceeds the limit of 255");
        assert!(refusal(producer("p", 1 << 53, 0)).starts_with("producer epoch 9007199254740992 exceeds"));
        assert!(refusal(producer("p", 0, u64::MAX)).starts_with("producer sequence"));
        assert!(refusal(Terms { fencing_token: Some(1 << 53), ..Terms::default() }).starts_with("fencing token"));
        let both = Terms { idempotency_key: Some("k".into()), ..producer("p", 0, 0) };
        assert!(refusal(both).contains("not by both"));
        for good in [key(&"k".repeat(255)), producer("p", NUMBER_MAX, NUMBER_MAX), Terms::default()] {
            good.check().expect("fine");
        }
    }
}
