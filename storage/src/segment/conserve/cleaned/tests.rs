//! Both sides of a cleaning, right and wrong.

use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use ulid::Ulid;

use super::*;
use crate::ids::{PartitionIndex, SegmentId, SessionId, ShardId, TopicId};
use crate::layout;
use crate::record::{Batch, NewRecord};
use crate::segment::build::SegmentBuilder;
use crate::segment::cleaned::CleanedRun;
use crate::slot::Object;
use crate::wal::blocks::records_len;
use crate::wal::format::{Header, ObjectKind};

const PARTITION: Partition = Partition { topic: TopicId(Ulid(9)), index: PartitionIndex(0) };

/// `offset:key=payload`, without a key `offset:payload`; one batch each.
fn batch(text: &str, time: u64) -> StoredBatch {
    let (offset, record) = text.split_once(':').expect("an offset");
    let (key, payload) = record.split_once('=').map_or((None, record), |(key, payload)| (Some(key), payload));
    let key = key.map(|key| Bytes::from(key.to_owned()));
    let record = NewRecord { key, payload: Bytes::from(payload.to_owned()), ..NewRecord::default() };
    let batch = Batch::of(&[record]).expect("valid");
    StoredBatch { base: Offset(offset.parse().expect("a number")), timestamp: Timestamp(time), batch }
}

/// Puts a run into a segment of its own and gives its row.
async fn put(store: &InMemory, id: u128, (base, end): (u64, u64), batches: &[StoredBatch]) -> (Offset, IndexRow) {
    let segment = SegmentId(Ulid(id));
    let mut builder = SegmentBuilder::new().expect("a builder");
    batches.iter().for_each(|batch| builder.push(ShardId(0), PARTITION, batch).expect("pushed"));
    let built = builder.finish().expect("built");
    let header = Header::new(ObjectKind::Segment, SessionId(Ulid(1)), 0);
    let object = Object::new(layout::segment(segment), header, built.body);
    let run = CleanedRun {
        segment,
        object_len: object.header.object_len(),
        content_len: built.content_len,
        base: Offset(base),
        count: u32::try_from(end - base).expect("few"),
        position: 0,
        len: batches.iter().map(|batch| u32::try_from(records_len(batch)).expect("short")).sum(),
        kept: u32::try_from(batches.len()).expect("few"),
        first_timestamp: Timestamp(1),
        last_timestamp: Timestamp(1),
    };
    let payload: PutPayload = object.payload.clone();
    store.put(&object.path, payload).await.expect("put");
    (run.base, run.row(0))
}

async fn compare(old: &[&str], new: &[StoredBatch], settled: u64) -> Result<Removed> {
    let store = InMemory::new();
    let end = old.len() as u64;
    let old: Vec<StoredBatch> = old.iter().map(|text| batch(text, 1)).collect();
    // In two runs each: what goes on from one to the next counts too.
    let (early, late) = old.split_at(old.len() / 2);
    let half = early.len() as u64;
    let old = [put(&store, 1, (0, half), early).await, put(&store, 2, (half, end), late).await];
    let cut = new.iter().position(|batch| batch.base.0 >= half).unwrap_or(new.len());
    let mut sides = Vec::new();
    if cut > 0 && cut < new.len() {
        sides.push(put(&store, 3, (0, half), &new[..cut]).await);
        sides.push(put(&store, 4, (half, end), &new[cut..]).await);
    } else {
        sides.push(put(&store, 3, (0, end), new).await);
    }
    let stores = ObjectStores::of(Arc::new(store), true);
    let sides = Sides { partition: PARTITION, old: &old, new: &sides, settled: Offset(settled), seed: 7 };
    check(&stores, sides).await
}

// Fails when any of the rules is left out.
#[tokio::test]
async fn what_may_go_goes_and_nothing_else() {
    let old = ["0:a=1", "1:b=1", "2:a=2", "3:loose", "4:c=", "5:a=3"];
    for (left, settled, removed) in [
        (&["0:a=1", "1:b=1", "2:a=2", "3:loose", "4:c=", "5:a=3"][..], 0, Ok(0)),
        (&["1:b=1", "3:loose", "4:c=", "5:a=3"], 0, Ok(2)),
        (&["1:b=1", "2:a=2", "3:loose", "4:c=", "5:a=3"], 0, Ok(1)),
        (&["1:b=1", "3:loose", "5:a=3"], 5, Ok(3)),
        (&["1:b=1", "3:loose", "5:a=3"], 4, Err("lacks the last record of a key")),
        (&["0:a=1", "1:b=1", "3:loose", "4:c="], 0, Err("lacks the last record of a key")),
        (&["3:loose", "4:c=", "5:a=3"], 6, Err("lacks the last record of a key")),
        (&["1:b=1", "4:c=", "5:a=3"], 6, Err("lacks a record without a key")),
        (&["1:b=2", "3:loose", "4:c=", "5:a=3"], 0, Err("holds another record at offset 1")),
        (&["1:z=1", "3:loose", "4:c=", "5:a=3"], 0, Err("holds another record at offset 1")),
    ] {
        let new: Vec<StoredBatch> = left.iter().map(|text| batch(text, 1)).collect();
        let found = compare(&old, &new, settled).await.map(|removed| removed.records);
        match (found, removed) {
            (Ok(found), Ok(removed)) => assert_eq!(found, removed, "{left:?}"),
            (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{left:?}: {error}"),
            (found, _) => panic!("{left:?} up to {settled}: {found:?}"),
        }
    }
}

// A value that goes must have a successor that stays: one that goes as well is none.
#[tokio::test]
async fn a_value_does_not_go_together_with_what_deletes_it() {
    let old = ["0:a=1", "1:a=", "2:b=1", "3:b=2"];
    let left: Vec<StoredBatch> = ["3:b=2"].iter().map(|text| batch(text, 1)).collect();
    assert!(
        compare(&old, &left, 4).await.expect_err("too much").to_string().contains("lacks the last record of a key")
    );
    let left: Vec<StoredBatch> = ["1:a=", "3:b=2"].iter().map(|text| batch(text, 1)).collect();
    assert_eq!(compare(&old, &left, 4).await.expect("right").records, 2);
}

#[tokio::test]
async fn another_time_or_a_record_that_was_not_there_is_found() {
    let old = ["0:a=1", "1:a=2", "2:b=1", "3:c=1"];
    let mut left: Vec<StoredBatch> = ["1:a=2", "2:b=1", "3:c=1"].iter().map(|text| batch(text, 1)).collect();
    left[1].timestamp = Timestamp(2);
    assert!(
        compare(&old, &left, 0).await.expect_err("another time").to_string().contains("another record at offset 2")
    );
    let gone = ["0:a=1", "1:a=2"];
    let more: Vec<StoredBatch> = ["1:a=2", "2:b=1"].iter().map(|text| batch(text, 1)).collect();
    compare(&gone, &more, 0).await.expect_err("more than there was");
}
