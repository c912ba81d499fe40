//! Tests of the object header.

use super::*;

fn header() -> Header {
    let session = SessionId(Ulid::from_parts(1, 2));
    Header::new(ObjectKind::Data, session, 3)
        .after(ObjectHash(4))
        .sealed(&[Bytes::from_static(b"bo"), Bytes::from_static(b"dy")])
}

#[test]
fn a_header_reads_back_and_its_body_is_checked() {
    let object = [header().encode(), Bytes::from_static(b"body")].concat();
    let (read, body) = Header::parse_object(&Bytes::from(object.clone())).expect("valid");
    assert_eq!((read, &body[..]), (header(), &b"body"[..]));
    for at in 0..object.len() {
        let mut broken = object.clone();
        broken[at] ^= 1;
        let error = Header::parse_object(&Bytes::from(broken)).expect_err("every bit is covered");
        assert_eq!(error.kind(), Kind::Corrupt, "byte {at}");
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut bytes = BytesMut::from(&header().encode()[..]);
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    let error = Header::parse(&bytes).expect_err("unknown version");
    assert_eq!(error.to_string(), "object header has version 2, this build reads 1");
}

// A later build must read this: it is version 1 of the stored form.
#[test]
fn the_header_of_version_1_is_what_it_was() {
    let golden = include_bytes!("golden_v1.bin");
    assert_eq!(header().encode(), &golden[..]);
    assert_eq!(Header::parse(golden).expect("valid"), header());
}
