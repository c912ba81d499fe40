//! Conservation of a cleaning: what the store holds after it is what it held before, but for what may go.
//!
//! Both sides are read from the store and walked through record by record. A record that is missing must have a later one of
//! its key that is left, or delete its key and stand below the offset up to which such may go. What is left must be the
//! same, byte for byte, at the same offset and time. Serves the cleaning, before it is committed, and `verify`.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::env::apart;
use crate::error::{Error, Kind, Result};
use crate::ids::{Offset, Partition, Timestamp};
use crate::record::{RecordView, StoredBatch};
use crate::segment::run;
use crate::shard::rows::IndexRow;
use crate::store::ObjectStores;

/// What a cleaning took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) records: u64,
    /// Of their stored form.
    pub(crate) bytes: u64,
}

/// Both sides of a cleaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sides<'a> {
    pub(crate) partition: Partition,
    pub(crate) old: &'a [(Offset, IndexRow)],
    pub(crate) new: &'a [(Offset, IndexRow)],
    /// What deletes its key below this may go.
    pub(crate) settled: Offset,
    pub(crate) seed: u64,
}

/// The walk.
#[derive(Debug)]
struct Walk {
    settled: Offset,
    seed: u64,
    /// What is left, as far as it was read and not met.
    left: VecDeque<StoredBatch>,
    /// Of the first of those.
    records: VecDeque<RecordView>,
    /// The last record of each key that went and of which no later one was met: whether it may go without one.
    gone: HashMap<u128, bool>,
    removed: Removed,
}

/// Reads both sides and compares them; gives what is missing.
///
/// # Errors
/// `Corrupt` when something is missing that may not, or is not what it was; `NotFound` and `Unavailable` when a side cannot be
/// read.
pub(crate) async fn check(stores: &ObjectStores, sides: Sides<'_>) -> Result<Removed> {
    let Sides { partition, old, new, settled, seed } = sides;
    let mut walk = Walk {
        settled,
        seed,
        left: VecDeque::new(),
        records: VecDeque::new(),
        gone: HashMap::new(),
        removed: Removed::default(),
    };
    let mut new = new.iter();
    let mut read_up_to = Offset(0);
    for (base, row) in old {
        let next = base.plus(row.count);
        while read_up_to < next
            && let Some((base, row)) = new.next()
        {
            walk.left.extend(run::read(stores, partition, (*base, row)).await?);
            read_up_to = base.plus(row.count);
        }
        let before = run::read(stores, partition, (*base, row)).await?;
        walk = apart("conservation", move || walk.through(&before)).await?;
    }
    if new.next().is_some() || !walk.is_at_end() {
        return Err(wrong("holds a record that was not there before"));
    }
    if walk.gone.values().any(|may_go| !may_go) {
        return Err(wrong("lacks the last record of a key"));
    }
    Ok(walk.removed)
}

impl Walk {
    fn through(mut self, before: &[StoredBatch]) -> Result<Self> {
        for batch in before {
            for record in batch.records() {
                self.meet(record, batch.timestamp)?;
            }
        }
        Ok(self)
    }

    fn meet(&mut self, record: RecordView, timestamp: Timestamp) -> Result<()> {
        let key = record.key.as_ref().map(|key| xxh3_128_with_seed(key, self.seed));
        match self.peek() {
            Some((left, _)) if left.offset < record.offset => Err(wrong("holds a record that was not there before")),
            Some((left, time)) if left.offset == record.offset => {
                if *left != record || time != timestamp {
                    return Err(wrong(&format!("holds another record at offset {}", record.offset)));
                }
                self.records.pop_front();
                if self.records.is_empty() {
                    self.left.pop_front();
                }
                if let Some(key) = key {
                    self.gone.remove(&key);
                }
                Ok(())
            }
            Some(_) | None => {
                let key = key.ok_or_else(|| wrong("lacks a record without a key"))?;
                let may_go = record.payload.is_empty() && record.offset < self.settled;
                // A record that another one of those that went supersedes may go only with that one's own successor.
                let both = self.gone.get(&key).is_none_or(|may_go| *may_go) && may_go;
                self.gone.insert(key, both);
                self.removed.records += 1;
                self.removed.bytes += record.stored_len() as u64;
                Ok(())
            }
        }
    }

    /// The next record that is left.
    fn peek(&mut self) -> Option<(&RecordView, Timestamp)> {
        let first = self.left.front()?;
        if self.records.is_empty() {
            self.records.extend(first.records());
        }
        Some((self.records.front()?, first.timestamp))
    }

    fn is_at_end(&self) -> bool {
        self.left.is_empty()
    }
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("what was cleaned {what}"))
}

#[cfg(test)]
mod tests;
