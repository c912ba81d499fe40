//! Tests of rows: what each version wrote is read for ever.

use ulid::Ulid;

use super::*;

fn hex(row: &Bytes) -> String {
    row.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Bytes {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

const PARTITION_V1: &str =
    concat!("01", "0300000000000000", "0900000000000000", "5802000000000000", "0068e5cf8b010000");
const PARTITION_V2: &str =
    concat!("02", "0300000000000000", "0900000000000000", "5802000000000000", "0068e5cf8b010000", "2003000000000000");
const INDEX_V1: &str = concat!(
    "01",
    "00000000000000000000000000000007",
    "0500000000000000",
    "0004000000000000",
    "80000000",
    "64000000",
    "02000000",
    "0068e5cf8b010000"
);
const INDEX_V2: &str = concat!(
    "02",
    "00000000000000000000000000000007",
    "00080000",
    "0004000000000000",
    "80000000",
    "64000000",
    "02000000",
    "0068e5cf8b010000"
);
const INDEX_V3: &str = concat!(
    "03",
    "00000000000000000000000000000007",
    "0500000000000000",
    "0004000000000000",
    "80000000",
    "64000000",
    "02000000",
    "0068e5cf8b010000",
    "c800000000000000",
    "0168e5cf8b010000"
);
const INDEX_V4: &str = concat!(
    "04",
    "00000000000000000000000000000007",
    "00080000",
    "0004000000000000",
    "80000000",
    "64000000",
    "02000000",
    "0068e5cf8b010000",
    "c800000000000000",
    "0168e5cf8b010000"
);
const RETENTION_V1: &str = concat!("01", "00840c2400000000", "0000008002000000");

// A later build must read these: they are in checkpoints.
#[test]
fn the_rows_of_each_version_are_what_they_were() {
    let time = Timestamp(1_700_000_000_000);
    let (start, tail) = (Offset(3), Offset(9));
    let partition = PartitionRow { start, tail, bytes: 600, last_timestamp: time, published: 800 };
    assert_eq!(hex(&partition.encode()), PARTITION_V2);
    assert_eq!(PartitionRow::parse(bytes(PARTITION_V2)).expect("valid"), partition);
    // Nothing was trimmed then: all bytes that there ever were are kept.
    let of_v1 = PartitionRow { published: 600, ..partition };
    assert_eq!(PartitionRow::parse(bytes(PARTITION_V1)).expect("valid"), of_v1);

    let span = Span { bytes_before: 200, last_timestamp: Timestamp(time.0 + 1) };
    let place = Place::Wal { session: SessionId(Ulid(7)), slot: Slot(5) };
    let of_slot = IndexRow {
        place,
        object_len: 1024,
        position: 128,
        len: 100,
        count: 2,
        first_timestamp: time,
        span: Some(span),
        kept: None,
    };
    let of_segment = IndexRow { place: Place::Segment { segment: SegmentId(Ulid(7)), content_len: 2048 }, ..of_slot };
    for (golden, row) in [
        (INDEX_V1, IndexRow { span: None, ..of_slot }),
        (INDEX_V2, IndexRow { span: None, ..of_segment }),
        (INDEX_V3, of_slot),
        (INDEX_V4, of_segment),
    ] {
        assert_eq!(hex(&row.encode()), golden);
        assert_eq!(IndexRow::parse(bytes(golden)).expect("valid"), row);
    }

    let retention = RetentionRow { age_ms: 7 * 24 * 3_600_000, bytes: 10 << 30 };
    assert_eq!(hex(&retention.encode()), RETENTION_V1);
    assert_eq!(RetentionRow::parse(bytes(RETENTION_V1)).expect("valid"), retention);
}

#[test]
fn a_row_that_is_cut_short_too_long_or_of_an_unknown_version_is_broken() {
    for whole in [PARTITION_V1, PARTITION_V2] {
        let whole = bytes(whole);
        (0..whole.len()).for_each(|len| assert!(PartitionRow::parse(whole.slice(..len)).is_err(), "cut to {len}"));
        assert!(PartitionRow::parse([&whole[..], &[0]].concat().into()).is_err());
        assert!(PartitionRow::parse([&[3], &whole[1..]].concat().into()).is_err());
    }
    for whole in [INDEX_V1, INDEX_V2, INDEX_V3, INDEX_V4] {
        let whole = bytes(whole);
        (0..whole.len()).for_each(|len| assert!(IndexRow::parse(whole.slice(..len)).is_err(), "cut to {len}"));
        assert!(IndexRow::parse([&whole[..], &[0]].concat().into()).is_err());
    }
}
