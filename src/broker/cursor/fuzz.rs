//! Fuzz targets of cursors and of where reading begins.

use plinth_storage::ids::{Offset, Partition, PartitionIndex, TenantId, TopicId};
use ulid::Ulid;

use super::{CursorKey, Positions, parse};
use crate::broker::From;
use crate::fuzz::{ITERATIONS, text};

#[test]
fn a_cursor_reads_back_and_no_changed_or_foreign_one_does() {
    type Given = (Vec<(u128, u32, u64)>, usize, u8);
    bolero::check!().with_iterations(ITERATIONS).with_type::<Given>().for_each(|(places, at, change)| {
        let (key, tenant) = (CursorKey([7; 32]), TenantId(Ulid(1)));
        let place = |(topic, index, next): &(u128, u32, u64)| {
            (Partition { topic: TopicId(Ulid(*topic)), index: PartitionIndex(*index) }, Offset(*next))
        };
        let positions: Positions = places.iter().map(place).collect();
        let cursor = key.write(tenant, positions.clone());
        assert_eq!(key.read(tenant, &cursor).expect("what is written is read"), positions);
        assert!(key.read(TenantId(Ulid(2)), &cursor).is_err(), "of another tenant");
        assert!(CursorKey([8; 32]).read(tenant, &cursor).is_err(), "of another cluster");
        let mut changed = cursor.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = (changed[at] ^ (change | 1)) & 0x7f;
        let changed = String::from_utf8(changed).expect("ASCII");
        assert!(changed == cursor || key.read(tenant, &changed).is_err(), "{changed}");
    });
}

// Behind the MAC only the cluster's own bytes are read; that is no reason to trust them.
#[test]
fn the_body_of_a_cursor_has_no_more_positions_than_bytes() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|body| {
        let mut body = body.clone();
        if let Some(version) = body.first_mut() {
            *version = if *version < 200 { super::VERSION } else { *version };
        }
        if let Some(positions) = parse(&body) {
            assert!(positions.len() <= body.len());
        }
    });
}

#[test]
fn where_reading_begins_is_read_as_it_is_written() {
    const PIECES: &[&str] = &[
        "earliest",
        "latest",
        "offset:",
        "cursor:",
        "time:",
        "-",
        "0",
        "17",
        "9999999999999999999",
        "2026-01-02T03:04:05Z",
        "2026-01-02t03:04:05.123+01:00",
        "+",
        " ",
        "é",
        ":",
        "a_-",
    ];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, u64)>().for_each(|(picks, number)| {
        let given = text(PIECES, picks);
        match given.parse::<From>() {
            Ok(From::Earliest) => assert_eq!(given, "earliest"),
            Ok(From::Latest) => assert_eq!(given, "latest"),
            Ok(From::Offset(offset)) => {
                assert_eq!(
                    given.strip_prefix("offset:").and_then(|digits| digits.parse().ok()),
                    Some(offset),
                    "{given}"
                );
            }
            Ok(From::Last(count)) => {
                assert_eq!(given.strip_prefix('-').and_then(|digits| digits.parse().ok()), Some(count), "{given}");
            }
            Ok(From::Cursor(cursor)) => assert_eq!(given, format!("cursor:{cursor}")),
            Ok(From::Time(_)) => assert!(given.starts_with("time:2026-01-02"), "{given}"),
            Err(error) => assert!(error.to_string().len() <= 6 * given.len() + 200, "{given}"),
        }
        assert_eq!(format!("offset:{number}").parse::<From>().expect("an offset"), From::Offset(*number));
        assert_eq!(format!("-{number}").parse::<From>().expect("a count"), From::Last(*number));
    });
}
