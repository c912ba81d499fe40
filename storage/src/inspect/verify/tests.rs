//! Buckets whose objects are whole by themselves and wrong together: what only a bug could have written.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use ulid::Ulid;

use super::*;
use crate::ids::{Epoch, ObjectHash, Offset, Partition, PartitionIndex, ShardId, Slot, Timestamp, TopicId};
use crate::record::{Batch, NewRecord, StoredBatch};
use crate::segment::build::SegmentBuilder;
use crate::segment::cleaned::{Cleaned, CleanedRun};
use crate::segment::link::{Link, SegmentRun};
use crate::shard::changes::Entry;
use crate::shard::clean::CleanRow;
use crate::shard::rows::{IndexRow, PartitionRow, Place, Row, Span, TopicRow};
use crate::shard::stream::{Closing, StreamRow};
use crate::slot::Object;
use crate::wal::blocks::BodyBuilder;
use crate::wal::format::{Header, ObjectKind};

const TOPIC: TopicId = TopicId(Ulid(9));
const ONE: SessionId = SessionId(Ulid(1));
const TWO: SessionId = SessionId(Ulid(2));

fn partition(index: u32) -> Partition {
    Partition { topic: TOPIC, index: PartitionIndex(index) }
}

fn stored(base: u64, time: u64) -> StoredBatch {
    let batch = Batch::of(&[NewRecord { payload: Bytes::from_static(b"x"), ..NewRecord::default() }]);
    StoredBatch { base: Offset(base), timestamp: Timestamp(time), batch: batch.expect("a batch") }
}

/// One record in partition `index` at an offset and a time.
struct Record(u32, u64, u64);

/// Writes a log slot by slot.
struct Forge {
    store: Arc<InMemory>,
    session: SessionId,
    shards: u16,
    next: Slot,
    hash: ObjectHash,
    /// Index rows of what was written, as a checkpoint would have them.
    index: Vec<(Bytes, IndexRow)>,
}

impl Forge {
    /// A cluster whose first session owns all shards and has a topic of two partitions.
    async fn begin(shards: u16) -> Self {
        let mut forge = Self {
            store: Arc::new(InMemory::new()),
            session: ONE,
            shards,
            next: Slot(0),
            hash: ObjectHash::default(),
            index: Vec::new(),
        };
        let mut cluster = BytesMut::new();
        cluster.put_slice(&Ulid(7).to_bytes());
        cluster.put_u16_le(shards);
        let header = Header::new(ObjectKind::Cluster, ONE, 0);
        forge.put(ObjectName::Cluster, header, vec![cluster.freeze()]).await;
        forge.session(ONE, None).await;
        let acquired = (0..shards).map(|shard| Entry::Acquire { shard: ShardId(shard), epoch: Epoch(1) });
        let entries: Vec<_> = acquired.chain([Entry::CreateTopic { topic: TOPIC, partitions: 2 }]).collect();
        forge.slot(&entries, &[]).await;
        forge
    }

    /// A session with its claims.
    async fn session(&mut self, session: SessionId, previous: Option<(SessionId, Slot)>) {
        self.session = session;
        let header = Header::new(ObjectKind::SessionMeta, session, 0);
        self.put(ObjectName::SessionMeta(session), header, vec![Bytes::from_static(b"\x01\0\0\0\0\0\0\0n")]).await;
        let epoch = if previous.is_some() { Epoch(2) } else { Epoch(1) };
        for shard in (0..self.shards).map(ShardId) {
            self.claim(shard, epoch, previous).await;
        }
    }

    async fn claim(&self, shard: ShardId, epoch: Epoch, previous: Option<(SessionId, Slot)>) {
        let mut body = BytesMut::new();
        body.put_u16_le(shard.0);
        body.put_u8(u8::from(previous.is_some()));
        let (before, end) = previous.unwrap_or((self.session, Slot(0)));
        body.put_slice(&before.0.to_bytes());
        body.put_u64_le(end.0);
        let header = Header::new(ObjectKind::Claim, self.session, epoch.0);
        self.put(ObjectName::Claim(shard, epoch), header, vec![body.freeze()]).await;
    }

    async fn slot(&mut self, entries: &[Entry], records: &[Record]) {
        let shards = self.shards;
        self.slot_in(entries, records, |partition| partition.shard(shards)).await;
    }

    async fn slot_in(&mut self, entries: &[Entry], records: &[Record], shard: impl Fn(Partition) -> ShardId) {
        let mut body = BodyBuilder::default();
        let mut placed = Vec::new();
        for Record(index, base, time) in records {
            let stored = stored(*base, *time);
            let (position, len) = body.records(shard(partition(*index)), partition(*index), &stored);
            placed.push((partition(*index), stored, position, len));
        }
        if !entries.is_empty() {
            let mut changes = BytesMut::new();
            entries.iter().for_each(|entry| entry.encode(&mut changes));
            body.changes(ShardId(0), &changes.freeze(), Timestamp(1));
        }
        let header = Header::new(ObjectKind::Data, self.session, self.next.0).after(self.hash);
        let name = ObjectName::Slot(self.session, self.next);
        let header = self.put(name, header, body.finish()).await;
        for (partition, stored, position, len) in placed {
            let of_partition = layout::index_key(partition, Offset(0)).slice(..21);
            let before = self.index.iter().filter(|(key, _)| key.starts_with(&of_partition));
            let bytes_before = before.map(|(_, row)| u64::from(row.len)).sum();
            let row = IndexRow {
                place: Place::Wal { session: self.session, slot: self.next },
                object_len: header.object_len(),
                position,
                len,
                count: 1,
                first_timestamp: stored.timestamp,
                span: Some(Span { bytes_before, last_timestamp: stored.timestamp }),
                kept: None,
            };
            self.index.push((layout::index_key(partition, stored.base), row));
        }
        self.hash = header.hash();
        self.next = self.next.next();
    }

    async fn put(&self, name: ObjectName, header: Header, body: Vec<Bytes>) -> Header {
        let object = Object::new(name.path(), header, body);
        let bytes: Vec<u8> = object.payload.iter().flatten().copied().collect();
        self.store.put(&object.path, PutPayload::from(bytes)).await.expect("put");
        object.header
    }

    /// Ends the log as another session would.
    async fn end(&self) {
        let header = Header::new(ObjectKind::Fence, self.session, self.next.0).by(TWO);
        self.put(ObjectName::Slot(self.session, self.next), header, Vec::new()).await;
        let header = Header::new(ObjectKind::CheckpointFence, self.session, 0).by(TWO);
        self.put(ObjectName::Checkpoint(self.session, Slot(0)), header, Vec::new()).await;
    }

    /// A checkpoint of `rows` before the next slot.
    async fn checkpoint(&self, hash: ObjectHash, rows: &[(Bytes, Bytes)]) {
        let mut plain = BytesMut::new();
        for (key, value) in rows {
            plain.put_u32_le(u32::try_from(key.len()).expect("short"));
            plain.put_u32_le(u32::try_from(value.len()).expect("short"));
            plain.put_slice(key);
            plain.put_slice(value);
        }
        let mut body = BytesMut::new();
        body.put_u64_le(self.next.0);
        body.put_u128_le(hash.0);
        body.put_slice(&zstd::encode_all(&plain[..], 1).expect("compressed"));
        let header = Header::new(ObjectKind::FullCheckpoint, self.session, 0);
        self.put(ObjectName::Checkpoint(self.session, Slot(0)), header, vec![body.freeze()]).await;
    }

    /// The rows that a right checkpoint has after one record in partition 0 at time 10.
    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let len = self.index.iter().map(|(_, row)| u64::from(row.len)).sum();
        let bounds = PartitionRow {
            start: Offset(0),
            tail: Offset(1),
            bytes: len,
            published: len,
            last_timestamp: Timestamp(10),
        };
        let topic = (layout::topic_key(TOPIC), TopicRow { partitions: 2 }.encode());
        let index = self.index.iter().map(|(key, row)| (key.clone(), row.encode()));
        [topic, (layout::partition_key(partition(0)), bounds.encode())].into_iter().chain(index).collect()
    }

    async fn faults(&self) -> Vec<String> {
        let stores = ObjectStores::of(self.store.clone(), true);
        let mut faults = Vec::new();
        let mut tell = |event| {
            if let Event::Found(Finding { severity: Severity::Fault, object, what }) = event {
                faults.push(format!("{object} {what}"));
            }
        };
        let options = VerifyOptions { scratch: Scratch::memory(), in_flight: 2 };
        verify(&stores, &options, &mut tell).await.expect("readable");
        faults
    }

    async fn assert_fault(&self, name: ObjectName, what: &str) {
        let faults = self.faults().await;
        let found = faults.iter().any(|fault| fault.starts_with(name.path().as_ref()) && fault.contains(what));
        assert!(found, "no fault {what:?} of {}: {faults:#?}", name.path());
    }
}

#[tokio::test]
async fn what_is_right_together_has_no_fault() {
    let mut forge = Forge::begin(2).await;
    forge.slot(&[], &[Record(0, 0, 10)]).await;
    forge.checkpoint(forge.hash, &forge.rows()).await;
    forge.slot(&[], &[Record(0, 1, 10), Record(0, 2, 12), Record(1, 0, 5)]).await;
    assert_eq!(forge.faults().await, [""; 0]);
}

// Fails when `Replay::faults` or `Verifier::check_blocks` leaves out a comparison.
#[tokio::test]
async fn records_that_do_not_continue_their_partition_are_named() {
    let cases: [(&[Record], &str); 8] = [
        (&[Record(0, 2, 10)], "puts offset 2 after 1 of partition"),
        (&[Record(0, 0, 10)], "puts offset 0 after 1 of partition"),
        (&[Record(1, 1, 10)], "puts offset 1 after 0 of partition"),
        (&[Record(0, 1, 9)], "goes back in time"),
        (&[Record(0, 1, 11), Record(0, 2, 10)], "goes back in time"),
        (&[Record(0, 1, 11), Record(0, 3, 11)], "puts offset 3 after 2"),
        (&[Record(2, 0, 10)], "which is not there"),
        (&[Record(0, 1, 10), Record(1, 0, 10), Record(0, 2, 10)], "has two runs"),
    ];
    for (records, what) in cases {
        let mut forge = Forge::begin(1).await;
        forge.slot(&[], &[Record(0, 0, 10)]).await;
        forge.slot(&[], records).await;
        forge.assert_fault(ObjectName::Slot(ONE, Slot(2)), what).await;
    }
    let mut forge = Forge::begin(1).await;
    let step = StreamRow { seq: None, closed: Some(Closing::Nobody) };
    forge.slot(&[Entry::StreamStep { partition: partition(0), step }], &[Record(0, 0, 10)]).await;
    forge.slot(&[], &[Record(0, 1, 10)]).await;
    forge.assert_fault(ObjectName::Slot(ONE, Slot(2)), "puts offset 1 behind the end").await;
    let mut forge = Forge::begin(1).await;
    forge.slot(&[Entry::DeleteTopic { topic: TOPIC }], &[]).await;
    forge.slot(&[], &[Record(0, 0, 10)]).await;
    forge.assert_fault(ObjectName::Slot(ONE, Slot(2)), "which is not there").await;
}

#[tokio::test]
async fn blocks_in_the_wrong_shard_are_named() {
    let mut forge = Forge::begin(2).await;
    let wrong = ShardId(1 - partition(0).shard(2).0);
    forge.slot_in(&[], &[Record(0, 0, 10)], |_| wrong).await;
    forge.assert_fault(ObjectName::Slot(ONE, Slot(1)), "has records of partition").await;
    let mut forge = Forge::begin(2).await;
    forge.slot_in(&[], &[Record(0, 0, 10)], |_| ShardId(5)).await;
    forge.assert_fault(ObjectName::Slot(ONE, Slot(1)), "did not own").await;
}

#[tokio::test]
async fn a_slot_that_does_not_follow_the_one_before_it_is_named() {
    let mut forge = Forge::begin(1).await;
    forge.slot(&[], &[Record(0, 0, 10)]).await;
    forge.hash = ObjectHash(5);
    forge.slot(&[], &[Record(0, 1, 10)]).await;
    forge.assert_fault(ObjectName::Slot(ONE, Slot(2)), "does not continue the slot before it").await;
}

// Fails when a checkpoint is taken as it is where the log is there, or only its size or head is compared.
#[tokio::test]
async fn a_checkpoint_that_is_not_what_the_log_leads_to_is_named() {
    type Change = fn(&mut Vec<(Bytes, Bytes)>);
    let cases: [(Change, &str); 4] = [
        (|rows| drop(rows.remove(1)), "row of partition"),
        (|rows| drop(rows.pop()), "index row of partition"),
        (|rows| rows.insert(0, (layout::document_key(b"d"), Bytes::new())), "document \"d\" is only in it"),
        (|rows| rows[0].1 = TopicRow { partitions: 3 }.encode(), "has another value"),
    ];
    for (change, what) in cases {
        let mut forge = Forge::begin(1).await;
        forge.slot(&[], &[Record(0, 0, 10)]).await;
        let mut rows = forge.rows();
        change(&mut rows);
        forge.checkpoint(forge.hash, &rows).await;
        forge.assert_fault(ObjectName::Checkpoint(ONE, Slot(0)), what).await;
    }
    let mut forge = Forge::begin(1).await;
    forge.slot(&[], &[Record(0, 0, 10)]).await;
    forge.checkpoint(ObjectHash(5), &forge.rows()).await;
    forge.assert_fault(ObjectName::Checkpoint(ONE, Slot(0)), "names another hash").await;
}

// Fails when index rows that came with a checkpoint are not looked up in what was read.
// Fails when rows are compared by their bytes, or when older ones are not compared at all.
#[tokio::test]
async fn a_checkpoint_from_before_retention_is_compared_by_what_it_says() {
    let mut forge = Forge::begin(1).await;
    forge.slot(&[], &[Record(0, 0, 10)]).await;
    let older = |len_of: &dyn Fn(u32) -> u32| {
        let mut rows = forge.rows();
        let (key, row) = forge.index[0].clone();
        let (index, bounds) =
            (IndexRow { span: None, len: len_of(row.len), ..row }, layout::partition_key(partition(0)));
        for (at, value) in &mut rows {
            if *at == key {
                *value = index.encode();
            } else if *at == bounds {
                // Version 1 has all but the last number.
                *value = [&[1], &value[1..33]].concat().into();
            }
        }
        rows
    };
    forge.checkpoint(forge.hash, &older(&|len| len)).await;
    assert_eq!(forge.faults().await, [""; 0]);
    forge.checkpoint(forge.hash, &older(&|len| len + 1)).await;
    forge.assert_fault(ObjectName::Checkpoint(ONE, Slot(0)), "differs from its log in 1 rows").await;
}

#[tokio::test]
async fn an_index_row_that_points_elsewhere_is_named() {
    type Change = fn(&mut IndexRow);
    let cases: [(Change, Slot); 6] = [
        (|row| row.position += 1, Slot(1)),
        (|row| row.len -= 1, Slot(1)),
        (|row| row.count += 1, Slot(1)),
        (|row| row.first_timestamp = Timestamp(11), Slot(1)),
        (|row| row.object_len += 1, Slot(1)),
        (|row| row.place = Place::Wal { session: ONE, slot: Slot(2) }, Slot(2)),
    ];
    for (change, named) in cases {
        let mut forge = Forge::begin(1).await;
        forge.slot(&[], &[Record(0, 0, 10)]).await;
        forge.slot(&[Entry::DeleteDocument { key: Bytes::from_static(b"d") }], &[]).await;
        let (_, row) = forge.index.first_mut().expect("one record");
        change(row);
        forge.checkpoint(forge.hash, &forge.rows()).await;
        // The slot that is lost is not the one with the record: only the row tells of the fault.
        forge.store.delete(&ObjectName::Slot(ONE, Slot(0)).path()).await.expect("deleted");
        forge.assert_fault(ObjectName::Slot(ONE, named), "index row of partition").await;
    }
}

#[tokio::test]
async fn a_claim_that_names_another_end_or_owner_is_named() {
    let mut forge = Forge::begin(2).await;
    forge.slot(&[], &[Record(0, 0, 10)]).await;
    forge.end().await;
    forge.session(TWO, Some((ONE, Slot(1)))).await;
    forge.assert_fault(ObjectName::Slot(ONE, Slot(1)), "is not the fence that ends its log").await;
    forge.session(TWO, Some((ONE, Slot(2)))).await;
    assert_eq!(forge.faults().await, [""; 0]);
    forge.claim(ShardId(1), Epoch(2), Some((ONE, Slot(1)))).await;
    forge.assert_fault(ObjectName::Claim(ShardId(1), Epoch(2)), "another claim says otherwise").await;
    forge.claim(ShardId(1), Epoch(2), Some((TWO, Slot(2)))).await;
    forge.assert_fault(ObjectName::Claim(ShardId(1), Epoch(2)), "as the owner before").await;
    forge.claim(ShardId(1), Epoch(2), None).await;
    forge.assert_fault(ObjectName::Claim(ShardId(1), Epoch(2)), "names no owner before").await;
}

#[tokio::test]
async fn a_shard_that_was_acquired_without_a_claim_is_named() {
    let mut forge = Forge::begin(1).await;
    forge.slot(&[Entry::Acquire { shard: ShardId(0), epoch: Epoch(4) }], &[]).await;
    forge.assert_fault(ObjectName::Claim(ShardId(0), Epoch(4)), "is missing: session").await;
}

/// A segment of records of partition 0, and the link that puts it in their place.
async fn linked(forge: &mut Forge, records: &[Record]) {
    let (segment, object_len, content_len, len) = put_segment(forge, SegmentId(Ulid(77)), records).await;
    let run = SegmentRun {
        partition: partition(0),
        base: Offset(0),
        count: 2,
        position: 0,
        len,
        first_timestamp: Timestamp(10),
    };
    forge.slot(&[Entry::Link(Link { segment, object_len, content_len, runs: vec![run] })], &[]).await;
}

/// A segment of records, with the lengths of its object, its content and its records.
async fn put_segment(forge: &mut Forge, segment: SegmentId, records: &[Record]) -> (SegmentId, u64, u32, u32) {
    let mut builder = SegmentBuilder::new().expect("a builder");
    let mut len = 0;
    for Record(index, base, time) in records {
        let partition = partition(*index);
        let stored = stored(*base, *time);
        builder.push(partition.shard(forge.shards), partition, &stored).expect("pushed");
        len += u32::try_from(crate::wal::blocks::records_len(&stored)).expect("short");
    }
    let built = builder.finish().expect("built");
    let name = ObjectName::Segment(segment);
    let header = forge.put(name, Header::new(ObjectKind::Segment, forge.session, 0), built.body).await;
    (segment, header.object_len(), built.content_len, len)
}

// Fails when both sides of a cleaning are not compared, or what a row of it names is taken for one dense run.
#[tokio::test]
async fn a_cleaning_that_takes_what_may_not_go_is_named() {
    for (records, what) in [
        (&[Record(0, 0, 10), Record(0, 1, 11)][..], None),
        (&[Record(0, 1, 11)], Some("/0 wrongly: what was cleaned lacks a record without a key")),
        (&[Record(0, 0, 10), Record(0, 1, 12)], Some("holds another record at offset 1")),
    ] {
        let mut forge = Forge::begin(1).await;
        forge.slot(&[], &[Record(0, 0, 10)]).await;
        forge.slot(&[], &[Record(0, 1, 11)]).await;
        linked(&mut forge, &[Record(0, 0, 10), Record(0, 1, 11)]).await;
        let replaced = 2 * u64::try_from(crate::wal::blocks::records_len(&stored(0, 10))).expect("short");
        let (segment, object_len, content_len, len) = put_segment(&mut forge, SegmentId(Ulid(78)), records).await;
        let run = CleanedRun {
            segment,
            object_len,
            content_len,
            base: Offset(0),
            count: 2,
            position: 0,
            len,
            kept: u32::try_from(records.len()).expect("few"),
            first_timestamp: Timestamp(10),
            last_timestamp: Timestamp(11),
        };
        let clean = CleanRow { to: Offset(2), ..CleanRow::default() };
        let cleaned = Cleaned { partition: partition(0), clean, rows: 1, bytes: replaced, runs: vec![run] };
        forge.slot(&[Entry::Cleaned(cleaned)], &[]).await;
        match what {
            Some(what) => forge.assert_fault(ObjectName::Slot(ONE, Slot(4)), what).await,
            None => assert_eq!(forge.faults().await, [""; 0]),
        }
    }
}

// Fails when a segment is not compared with what it replaced: place, number, time, length and checksum of each batch.
#[tokio::test]
async fn a_segment_that_holds_other_records_than_it_replaced_is_named() {
    for (records, what) in [
        ([Record(0, 0, 10), Record(0, 1, 11)], None),
        ([Record(0, 0, 10), Record(0, 1, 12)], Some("which holds other batches of")),
    ] {
        let mut forge = Forge::begin(1).await;
        forge.slot(&[], &[Record(0, 0, 10)]).await;
        forge.slot(&[], &[Record(0, 1, 11)]).await;
        linked(&mut forge, &records).await;
        match what {
            Some(what) => forge.assert_fault(ObjectName::Slot(ONE, Slot(3)), what).await,
            None => assert_eq!(forge.faults().await, [""; 0]),
        }
    }
}

#[tokio::test]
async fn a_segment_that_is_not_sorted_is_named() {
    for records in [[Record(0, 1, 11), Record(0, 0, 10)], [Record(1, 0, 11), Record(0, 0, 10)]] {
        let mut forge = Forge::begin(1).await;
        linked(&mut forge, &records).await;
        forge.assert_fault(ObjectName::Segment(SegmentId(Ulid(77))), "is not sorted").await;
    }
}

// Fails when the first fence of a log or of its checkpoints counts: one may come late, where something was deleted.
#[tokio::test]
async fn a_fence_in_the_place_of_what_was_deleted_is_a_note() {
    let mut forge = Forge::begin(1).await;
    forge.slot(&[], &[Record(0, 0, 10)]).await;
    forge.checkpoint(forge.hash, &forge.rows()).await;
    forge.slot(&[], &[Record(0, 1, 10)]).await;
    let fence = Header::new(ObjectKind::Fence, ONE, 0).by(TWO);
    forge.put(ObjectName::Slot(ONE, Slot(0)), fence, Vec::new()).await;
    assert_eq!(forge.faults().await, [""; 0]);
    forge.slot(&[], &[Record(0, 2, 10)]).await;
    let fence = Header::new(ObjectKind::Fence, ONE, 2).by(TWO);
    forge.put(ObjectName::Slot(ONE, Slot(2)), fence, Vec::new()).await;
    forge.end().await;
    forge.session(TWO, Some((ONE, Slot(4)))).await;
    forge.assert_fault(ObjectName::Slot(ONE, Slot(2)), "is a fence, but its log ended").await;
}
