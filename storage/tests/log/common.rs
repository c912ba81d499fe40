//! What the tests of the log share: options that make it small, records, and reading a whole partition.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TopicId};
use plinth_storage::log::{Change, Log, LogOptions, TopicOp};
use plinth_storage::record::{Batch, NewRecord};
use plinth_storage::store::ObjectStores;
use ulid::Ulid;

/// Virtual time passes as soon as everything that was due before has been done. For tests whose clock is paused.
pub(crate) async fn pass(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "virtual time: nothing is waited for and nothing is guessed")]
    tokio::time::sleep(time).await;
}

/// A topic that every test may use.
pub(crate) fn topic() -> TopicId {
    TopicId(Ulid::from_parts(1, 1))
}

/// One of its partitions.
pub(crate) fn partition(index: u32) -> Partition {
    Partition { topic: topic(), index: PartitionIndex(index) }
}

/// Options with a tail so small that most reads go to the bucket.
pub(crate) fn options(stores: &ObjectStores, cache: Option<&Path>) -> LogOptions {
    let mut options = LogOptions::new(stores.clone());
    options.cache_dir = cache.map(Path::to_path_buf);
    options.tail_bytes_max = 2048;
    options.slot_bytes = 16 * 1024;
    options
}

/// Makes the topic with `partitions` partitions.
pub(crate) async fn make_topic(log: &Log, partitions: u32) {
    let topics = vec![TopicOp::Create { topic: topic(), partitions }];
    log.commit(Change { topics, ..Change::default() }).await.expect("the topic is made");
}

/// A batch of records with these payloads.
pub(crate) fn batch(payloads: &[Bytes]) -> Batch {
    let records: Vec<NewRecord> =
        payloads.iter().map(|payload| NewRecord { payload: payload.clone(), ..NewRecord::default() }).collect();
    Batch::of(&records).expect("a valid batch")
}

/// Appends one record.
pub(crate) async fn append(log: &Log, text: &str) -> plinth_storage::Result<u64> {
    log.append(partition(0), batch(&[Bytes::from(text.to_owned())])).await.map(|appended| appended.base.0)
}

/// Every payload of a partition, by offset, through the public read.
pub(crate) async fn read_all(log: &Log, partition: Partition) -> Vec<Bytes> {
    let bounds = log.bounds(partition).expect("the partition is there");
    let mut out = Vec::new();
    let mut next = bounds.start;
    while next < bounds.tail {
        for batch in log.read(partition, next, 4096).await.expect("the range is readable") {
            for record in batch.records().filter(|record| record.offset >= next) {
                assert_eq!(record.offset, Offset(bounds.start.0 + out.len() as u64), "offsets are dense");
                out.push(record.payload);
            }
            next = batch.next();
        }
    }
    out
}

/// Every payload of the first partition as text.
pub(crate) async fn texts(log: &Log) -> Vec<String> {
    let all = read_all(log, partition(0)).await;
    all.iter().map(|payload| String::from_utf8_lossy(payload).into_owned()).collect()
}

/// Copies the files of a directory.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
