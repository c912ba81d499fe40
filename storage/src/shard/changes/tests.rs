//! Tests of entries.

use std::num::NonZeroU64;

use super::*;
use crate::shard::stream::Closing;
use crate::terms::Producer;

fn partition(index: u32) -> Partition {
    Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(index) }
}

fn receipt(base: u64, count: u32, timestamp: u64) -> Receipt {
    Receipt { base: Offset(base), count, timestamp: Timestamp(timestamp) }
}

fn of_a_partition() -> Vec<Entry> {
    let partition = partition(3);
    vec![
        Entry::Produced {
            partition,
            id: Bytes::from_static(b"sensor-1"),
            epoch: ProducerEpoch(2),
            seq: ProducerSeq(41),
            receipt: receipt(1000, 5, 1_700_000_000_000),
        },
        Entry::Keyed { partition, key: 0xabc, content: 0xdef, receipt: receipt(1005, 1, 1_700_000_000_001) },
        Entry::Fenced { partition, token: FencingToken(34) },
    ]
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn the_entries_of_partitions_are_what_they_were_in_version_1() {
    let golden = Bytes::from_static(include_bytes!("golden_v1.bin"));
    let mut out = BytesMut::new();
    of_a_partition().iter().for_each(|entry| entry.encode(&mut out));
    assert_eq!(out.freeze(), golden);
    assert_eq!(Entry::parse_all(golden).expect("valid"), of_a_partition());
}

// The entries of retention came later and stand apart: the bytes of the others stay as they are.
#[test]
fn the_entries_of_retention_are_what_they_were_in_version_1() {
    let set = |age, bytes| Retention { age_ms: NonZeroU64::new(age), bytes: NonZeroU64::new(bytes) };
    let topic = "00000000000000000000000000000007";
    for (entry, golden) in [
        (
            Entry::SetRetention { topic: TopicId(Ulid(7)), retention: set(1000, 10 << 30) },
            ["14", "10000000", "10000000", topic, "e803000000000000", "0000008002000000"].concat(),
        ),
        (
            Entry::SetRetention { topic: TopicId(Ulid(7)), retention: set(0, 0) },
            ["14", "10000000", "10000000", topic, "0000000000000000", "0000000000000000"].concat(),
        ),
        (
            Entry::Trim { partition: partition(3), start: Offset(41) },
            ["15", "14000000", "08000000", topic, "03000000", "2900000000000000"].concat(),
        ),
    ] {
        let mut out = BytesMut::new();
        entry.encode(&mut out);
        assert_eq!(hex(&out), golden, "{entry:?}");
        assert_eq!(Entry::parse_all(out.freeze()).expect("valid"), [entry]);
    }
}

#[test]
fn an_entry_that_is_cut_short_or_of_an_unknown_kind_is_broken() {
    let trim = Entry::Trim { partition: partition(3), start: Offset(41) };
    for entry in of_a_partition().into_iter().chain([trim]) {
        let mut out = BytesMut::new();
        entry.encode(&mut out);
        let whole = out.freeze();
        for len in 1..whole.len() {
            assert!(Entry::parse_all(whole.slice(..len)).is_err(), "{entry:?} cut to {len}");
        }
        let mut unknown = BytesMut::from(&whole[..]);
        unknown[0] = 200;
        assert!(Entry::parse_all(unknown.freeze()).is_err());
        // The lengths say less than a partition.
        let mut short = BytesMut::new();
        put_entry(&mut short, whole[0], &[0; 19], &[0; 36]);
        assert!(Entry::parse_all(short.freeze()).is_err());
    }
}

// Fails when all entries go to one shard: a shard that another session owns would then lack its own.
#[test]
fn entries_of_partitions_are_committed_in_the_shards_of_their_partitions() {
    let fenced = |index| Entry::Fenced { partition: partition(index), token: FencingToken(u64::from(index)) };
    let entries: Vec<Entry> = (0..40).map(fenced).collect();
    let blocks = Entry::encode_by_shard(&entries, 16);
    assert!(blocks.len() > 1);
    let mut found = 0;
    for (shard, block) in blocks {
        for entry in Entry::parse_all(block).expect("valid") {
            assert_eq!(entry.partition().expect("of a partition").shard(16), shard);
            found += 1;
        }
    }
    assert_eq!(found, 40);
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn the_entries_of_gaps_and_reservations_are_what_they_were_in_version_1() {
    let gap = Gap { from: Offset(0x1122), to: Offset(0x3344), reason: GapReason::Lost };
    let entries = [
        Entry::Gap { partition: partition(3), gap },
        Entry::Reserve { partition: partition(3), to: Offset(9), memory: true },
    ];
    let at = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 3, 0, 0, 0];
    let golden = [
        &[23, 20, 0, 0, 0, 17, 0, 0, 0][..],
        &at,
        &[0x22, 0x11, 0, 0, 0, 0, 0, 0, 0x44, 0x33, 0, 0, 0, 0, 0, 0, 1],
        &[24, 20, 0, 0, 0, 9, 0, 0, 0],
        &at,
        &[9, 0, 0, 0, 0, 0, 0, 0, 1],
    ]
    .concat();
    let mut out = BytesMut::new();
    entries.iter().for_each(|entry| entry.encode(&mut out));
    assert_eq!(out[..], golden);
    assert_eq!(Entry::parse_all(Bytes::from(golden.clone())).expect("valid"), entries);
    for (at, wrong) in [(45, 2), (0, 25)] {
        let mut broken = golden.clone();
        broken[at] = wrong;
        assert!(Entry::parse_all(Bytes::from(broken)).is_err(), "a reason or kind that is not known, at {at}");
    }
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn the_entries_of_streams_are_what_they_were_in_version_1() {
    let topic = "00000000000000000000000000000007";
    let producer = Producer { id: Bytes::from_static(b"p"), epoch: ProducerEpoch(2), seq: ProducerSeq(3) };
    let (seq, closing) = (Some(Bytes::from_static(b"ab")), Closing::Producer(producer));
    for (step, golden) in [
        (StreamRow { seq: seq.clone(), closed: None }, ["1b", "14000000", "05000000", topic, "03000000", "0102006162"]),
        (
            StreamRow { seq: None, closed: Some(Closing::Nobody) },
            ["1b", "14000000", "01000000", topic, "03000000", "02"],
        ),
        (
            StreamRow { seq, closed: Some(closing) },
            ["1b", "14000000", "16000000", topic, "03000000", "07020061620200000000000000030000000000000070"],
        ),
    ] {
        let entry = Entry::StreamStep { partition: partition(3), step };
        let mut out = BytesMut::new();
        entry.encode(&mut out);
        assert_eq!(hex(&out), golden.concat(), "{entry:?}");
        assert_eq!(Entry::parse_all(out.freeze()).expect("valid"), [entry]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// The entry of forks came later and stands apart: the bytes of the others stay as they are.
#[test]
fn the_entry_of_forks_is_what_it_was_in_version_1() {
    let (topic, fork) = ("00000000000000000000000000000007", "00000000000000000000000000000008");
    for (cut, golden) in [(0, "00000000"), (4, "04000000")] {
        let point = ForkPoint { at: Offset(41), cut: std::num::NonZeroU32::new(cut) };
        let begin = Begin { source: partition(3), point, timestamp: Timestamp(1000) };
        let entry = Entry::ForkTopic { topic: TopicId(Ulid(8)), begin };
        let mut out = BytesMut::new();
        entry.encode(&mut out);
        let value = [topic, "03000000", "2900000000000000", golden, "e803000000000000"].concat();
        assert_eq!(hex(&out), ["1c", "10000000", "28000000", fork, &value].concat());
        let whole = out.freeze();
        assert_eq!(Entry::parse_all(whole.clone()).expect("valid"), [entry]);
        let mut short = BytesMut::from(&whole[..whole.len() - 1]);
        short[5] -= 1;
        assert!(Entry::parse_all(short.freeze()).is_err());
    }
}
