//! Floods of HTTP/2: frames that cost a server much more than who sends them. Each ends with the reason, while the client
//! sends on.

use std::time::Duration;

use plinth_api::limits::HTTP2_STREAMS_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;

use super::Witness;
use crate::client::within;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://x/livez` by the static table.
const GET: &[u8] = b"\x82\x86\x41\x01x\x04\x06/livez";
/// `POST http://x/livez`.
const POST: &[u8] = b"\x83\x86\x41\x01x\x04\x06/livez";

/// RFC 9113 §7.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// More than the server grows by in a flood.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The number of the client's stream `n`.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// A frame of the server: its kind, and what it says if it ends something.
async fn next(reading: &mut BufReader<OwnedReadHalf>) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    reading.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("it fits")];
    reading.read_exact(&mut payload).await?;
    Ok((head[3], payload))
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.first_chunk().expect("a code has four bytes"))
}

/// Sends `first`, then `more` of 0, 1, 2… for as long as the server takes it; the reason that it gives for its end.
async fn flooded(witness: &Witness, first: &[u8], more: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let (reading, mut writing) = witness.connect().await.into_split();
    let mut reading = BufReader::new(reading);
    let sending = async {
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), first].concat();
        let mut sent = writing.write_all(&hello).await;
        let mut n = 0;
        while sent.is_ok() {
            let many: Vec<u8> = (n..n + 100).flat_map(&more).collect();
            n += 100;
            sent = writing.write_all(&many).await;
        }
    };
    let ending = async {
        let mut reason = None;
        while let Ok((kind, payload)) = next(&mut reading).await {
            if kind == GOAWAY {
                reason = Some(code(&payload[4..]));
            }
        }
        reason
    };
    within("the end of the flood", async { tokio::join!(sending, ending).1 }).await
}

/// A header without a place in the table, by its length.
fn header(length: u8) -> Vec<u8> {
    [&[0, 1, b'a', length][..], &vec![b'b'; length.into()]].concat()
}

/// Fails, as a flood without an end, with `max_pending_accept_reset_streams` of millions or without
/// `max_local_error_reset_streams`. What bounds continuations and small frames of data is fixed in h2.
#[tokio::test(flavor = "multi_thread")]
async fn floods_are_ended_with_the_reason_and_leave_the_memory_flat() {
    let witness = Witness::start().await;
    let before = witness.metric("process_resident_memory_bytes").await;
    let rapid = |n| {
        [frame(HEADERS, END_STREAM | END_HEADERS, stream(n), GET), frame(RESET, 0, stream(n), &[0, 0, 0, 8])].concat()
    };
    // The server itself resets a stream whose window overflows.
    let provoked = |n| {
        [frame(HEADERS, END_HEADERS, stream(n), POST), frame(WINDOW, 0, stream(n), &[0x7f, 0xff, 0xff, 0xff])].concat()
    };
    let open = frame(HEADERS, 0, stream(0), GET);
    let posting = frame(HEADERS, END_HEADERS, stream(0), POST);
    let ends = [
        ("rapid resets", flooded(&witness, &[], rapid).await),
        ("provoked resets", flooded(&witness, &[], provoked).await),
        ("continuations", flooded(&witness, &open, |_| frame(CONTINUATION, 0, stream(0), &header(60))).await),
        ("empty continuations", flooded(&witness, &open, |_| frame(CONTINUATION, 0, stream(0), &[])).await),
        ("empty data", flooded(&witness, &posting, |_| frame(DATA, 0, stream(0), &[])).await),
    ];
    for (what, reason) in ends {
        assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{what}");
    }
    let grown = witness.metric("process_resident_memory_bytes").await.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    witness.is_unharmed("after floods").await;
}

/// A head of 16 kB that says to be 47 MB: a value that is put in the table, and named again and again.
///
/// Fails without `max_header_list_size`.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_unpacks_to_very_much_is_refused() {
    let witness = Witness::start().await;
    let before = witness.metric("process_resident_memory_bytes").await;
    // With indexing, a new name of one letter, 3,900 bytes: 127 and the rest in groups of seven bits.
    let large = [&[0x40, 1, b'a', 0x7f, 0xbd, 0x1d][..], &[b'b'; 127 + 61 + (29 << 7)]].concat();
    let head = [GET, &large, &vec![0x80 | 62; 12_000]].concat();
    let mut parts = head.chunks(16_000);
    let first = frame(HEADERS, END_STREAM, stream(0), parts.next().expect("it is long"));
    let rest: Vec<&[u8]> = parts.collect();
    let last = frame(CONTINUATION, END_HEADERS, stream(0), &rest.concat());
    let (reading, mut writing) = witness.connect().await.into_split();
    let mut reading = BufReader::new(reading);
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &first, &last].concat();
    let _ = writing.write_all(&hello).await;
    let refused = async {
        loop {
            match next(&mut reading).await {
                Ok((HEADERS, payload)) => return payload,
                Ok((GOAWAY | RESET, _)) | Err(_) => return Vec::new(),
                Ok(_) => {}
            }
        }
    };
    let answer = within("an answer", refused).await;
    // `:status` 200 is 0x88 alone.
    assert_ne!(answer.first(), Some(&0x88), "{answer:?}");
    drop((reading, writing));
    let grown = witness.metric("process_resident_memory_bytes").await.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    witness.is_unharmed("after a head that unpacks").await;
}

/// Fails without `max_concurrent_streams`.
#[tokio::test(flavor = "multi_thread")]
async fn streams_over_the_limit_are_refused_and_the_others_stay() {
    let witness = Witness::start().await;
    let (reading, mut writing) = witness.connect().await.into_split();
    let mut reading = BufReader::new(reading);
    // Publishes whose bodies do not come: `authorization` and `content-type` by the static table.
    let credential = format!("Bearer {}", witness.0.key());
    let length = u8::try_from(credential.len()).ok().filter(|length| *length < 127).expect("a key is short");
    let path = b"\x83\x86\x41\x01x\x04\x14/v1/topics/t/records\x0f\x10\x0atext/plain\x0f\x08";
    let head = [&path[..], &[length], credential.as_bytes()].concat();
    let opened: Vec<u8> = (0..=HTTP2_STREAMS_MAX).flat_map(|n| frame(HEADERS, END_HEADERS, stream(n), &head)).collect();
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &opened].concat();
    writing.write_all(&hello).await.expect("it takes them");
    let refused = async {
        loop {
            let (kind, payload) = next(&mut reading).await.expect("the connection stays open");
            if kind == RESET && code(&payload) == REFUSED_STREAM {
                return;
            }
        }
    };
    within("the refusal", refused).await;
    drop((reading, writing));
    witness.is_unharmed("after streams over the limit").await;
}

/// Fails when the answers to pings and settings are gathered for a client that does not take them, which h2 does not do: one
/// more is read when the one before is written.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_does_not_listen_is_not_read_any_more() {
    let witness = Witness::start().await;
    let before = witness.metric("process_resident_memory_bytes").await;
    for asked in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let (reading, mut writing) = witness.connect().await.into_split();
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        writing.write_all(&hello).await.expect("it is open");
        let flood = asked.repeat(10_000);
        // As much as it takes from somebody who does not read a byte.
        drop(timeout(Duration::from_secs(1), async { while writing.write_all(&flood).await.is_ok() {} }).await);
        drop((reading, writing));
    }
    let grown = witness.metric("process_resident_memory_bytes").await.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    witness.is_unharmed("after questions without listening").await;
}
