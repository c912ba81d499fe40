//! What clients choose of a topic, and its limits.

use plinth_api::limits::{PARTITIONS_MAX, RECORD_BYTES_MAX};
use plinth_storage::log::Retention;
use plinth_storage::{Cleanup, Durability};

use super::error::Error;
use super::retention::{self, RetentionChange};

/// What a topic is to be; what is not given is not compared, and has its default in a new topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// How many partitions, 1 to 1,024. Default 1.
    pub partitions: Option<u32>,
    /// The largest payload of a record, 1 byte to 1 MiB. Default 1 MiB.
    pub max_record_bytes: Option<u32>,
    /// The durability class. Default `object`.
    pub durability: Option<Durability>,
    /// How much is kept. Default everything.
    pub retention: Option<Retention>,
    /// What happens to records besides. Default nothing.
    pub cleanup: Option<Cleanup>,
}

/// How the settings of a topic change; what is left out stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// The largest payload of later records, 1 byte to 1 MiB.
    pub max_record_bytes: Option<u32>,
    /// The durability class of later records.
    pub durability: Option<Durability>,
    /// How much is kept from then on.
    pub retention: RetentionChange,
    /// What happens to records besides, from then on.
    pub cleanup: Option<Cleanup>,
}

impl TopicSettings {
    /// Checks the limits.
    ///
    /// # Errors
    /// `Unprocessable`, naming the setting and its bounds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(partitions) = self.partitions.filter(|wanted| !(1..=PARTITIONS_MAX).contains(wanted)) {
            return Err(Error::Unprocessable(format!("partitions {partitions} is not within 1 to {PARTITIONS_MAX}")));
        }
        let limit = record_bytes_max();
        if let Some(wanted) = self.max_record_bytes.filter(|wanted| !(1..=limit).contains(wanted)) {
            return Err(Error::Unprocessable(format!("max_record_bytes {wanted} is not within 1 to {limit}")));
        }
        self.retention.map_or(Ok(()), |wanted| retention::check(&wanted))
    }
}

/// The largest payload of a record of any topic.
pub(crate) fn record_bytes_max() -> u32 {
    u32::try_from(RECORD_BYTES_MAX).expect("the limit of a record fits 32 bits")
}
