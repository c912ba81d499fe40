//! What a publish answers, for every transport: one receipt, or one result per record.

use plinth_api::records::{Durability, PublishResult, Receipt};

use crate::broker::{Error, Published, PublishedPart};
use crate::problem::{of_publish, problem_of};

/// The answer to a publish.
#[derive(Debug)]
pub enum Answer {
    /// All records went to one partition and are stored there, at consecutive offsets.
    Stored(Receipt),
    /// The records went to several partitions: one result per record, in the order of the request.
    Each(Vec<PublishResult>),
    /// No record is known to be stored, all for the same reason.
    Failed(Error),
}

impl Answer {
    /// The answer to a publish of `count` records to `topic`.
    #[must_use]
    pub fn new(topic: &str, count: usize, published: Published) -> Self {
        let Published { mut parts, mut failed } = published;
        if failed.is_empty() && parts.len() == 1 {
            let part = parts.remove(0);
            return Self::Stored(receipt(topic, &part, part.base, part.count));
        }
        if parts.is_empty() && failed.len() == 1 {
            return Self::Failed(failed.remove(0).1);
        }
        let mut results: Vec<Option<PublishResult>> = (0..count).map(|_| None).collect();
        for part in &parts {
            for (&place, offset) in part.indices.iter().zip(part.base..) {
                results[place] = Some(PublishResult::Stored(receipt(topic, part, offset, 1)));
            }
        }
        for (places, error) in &failed {
            for &place in places {
                results[place] = Some(PublishResult::Failed { problem: of_publish(problem_of(error)) });
            }
        }
        Self::Each(results.into_iter().map(|result| result.expect("every record is in one part")).collect())
    }
}

/// A durability class in the words of the API.
#[must_use]
pub fn class(class: plinth_storage::Durability) -> Durability {
    match class {
        plinth_storage::Durability::Object => Durability::Object,
        plinth_storage::Durability::Local => Durability::Local,
        plinth_storage::Durability::Memory => Durability::Memory,
    }
}

fn receipt(topic: &str, part: &PublishedPart, offset: u64, count: u32) -> Receipt {
    Receipt {
        topic: topic.to_owned(),
        partition: part.partition,
        offset,
        count,
        cursor: part.cursor.clone(),
        timestamp: part.timestamp,
        durability: class(part.durability),
        duplicate: part.duplicate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(partition: u32, base: u64, indices: Vec<usize>) -> PublishedPart {
        let count = u32::try_from(indices.len()).unwrap();
        PublishedPart {
            stored_bytes: 0,
            partition,
            base,
            count,
            timestamp: 7,
            cursor: format!("c{partition}"),
            indices,
            duplicate: false,
            durability: plinth_storage::Durability::Object,
        }
    }

    #[test]
    fn one_partition_answers_one_receipt() {
        let Answer::Stored(receipt) =
            Answer::new("t", 2, Published { parts: vec![part(3, 10, vec![0, 1])], failed: vec![] })
        else {
            panic!("one receipt");
        };
        assert_eq!((receipt.partition, receipt.offset, receipt.count), (3, 10, 2));
    }

    #[test]
    fn several_partitions_answer_one_result_per_record_in_the_order_of_the_request() {
        let failed = vec![(vec![1], Error::Unavailable("the store is away".to_owned()))];
        let published = Published { parts: vec![part(0, 10, vec![0, 3]), part(1, 5, vec![2])], failed };
        let Answer::Each(results) = Answer::new("t", 4, published) else { panic!("one result per record") };
        let offsets: Vec<Option<(u32, u64)>> = results
            .iter()
            .map(|result| match result {
                PublishResult::Stored(receipt) => Some((receipt.partition, receipt.offset)),
                PublishResult::Failed { .. } => None,
            })
            .collect();
        assert_eq!(offsets, [Some((0, 10)), None, Some((1, 5)), Some((0, 11))]);
    }
}
