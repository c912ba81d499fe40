//! HTTP/1.1 and HTTP/2 that is none.

use plinth_api::batch::{BatchRecord, MEDIA_TYPE, encode_batch};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::{AT_ONCE, Witness, mutated, read_to_end, seeds, write_in_pieces};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request, and the statuses of which one must be its answer. 0 is an end without one, after the client has said that
/// nothing more comes: it waits for the answers of the others.
type Case = (&'static str, Vec<u8>, &'static [u16]);

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

/// A publish with these headers and this body, without a length.
fn post(key: &str, headers: &str, body: &str) -> Vec<u8> {
    let head = format!("POST /v1/topics/abused/records HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n");
    let head = format!("{head}Connection: close\r\n");
    format!("{head}Content-Type: text/plain\r\n{headers}\r\n{body}").into_bytes()
}

fn heads() -> Vec<Case> {
    let many = (0..200).map(|number| format!("h{number}: v\r\n")).collect::<String>();
    vec![
        ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400]),
        ("only line ends", b"\r\n\r\n\r\n".to_vec(), &[0, 400]),
        ("no version", b"GET /livez\r\n\r\n".to_vec(), &[400]),
        ("another version", b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n".to_vec(), &[400]),
        ("another protocol", b"GET /livez ICY/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400]),
        ("no host", b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), &[400]),
        ("two hosts", get("/livez", "Host: y\r\n"), &[400]),
        ("HTTP/1.0 without a host", b"GET /livez HTTP/1.0\r\n\r\n".to_vec(), &[200]),
        ("a method in small letters", b"get /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(), &[405]),
        ("a method that is none", b"G@T[] /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400]),
        ("a space in the path", b"GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400]),
        ("a control character in the path", b"GET /li\x01vez HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400]),
        ("no path", b"GET  HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400]),
        (
            "an authority as target",
            b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\nConnection: close\r\n\r\n".to_vec(),
            &[404, 405],
        ),
        ("a star as target", b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(), &[404, 405]),
        ("an absolute target", b"GET http://x/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(), &[200]),
        ("a path that climbs", get("/v1/topics/../../etc/passwd", ""), &[404]),
        ("a path with a nul", get("/console/%00", ""), &[404]),
        ("a path that is not UTF-8", get("/docs/%ff%fe", ""), &[400, 404]),
        ("a header without a colon", get("/livez", "nonsense\r\n"), &[400]),
        ("a header without a name", get("/livez", ": v\r\n"), &[400]),
        ("a space before the colon", get("/livez", "Name : v\r\n"), &[400]),
        ("a folded header", get("/livez", "Name: v\r\n more\r\n"), &[400]),
        ("a nul in a header", get("/livez", "Name: a\0b\r\n"), &[400]),
        ("a bare CR in a header", get("/livez", "Name: a\rb\r\n"), &[400]),
        (
            "a header in Latin-1",
            [get("/livez", "Name: ").strip_suffix(b"\r\n").unwrap(), b"\xe9\r\n\r\n"].concat(),
            &[200],
        ),
        ("too many headers", get("/livez", &many), &[431]),
        ("a head over the limit", get("/livez", &format!("Name: {}\r\n", "v".repeat(80 * 1024))), &[431]),
        ("a path over the limit", get(&"/x".repeat(40 * 1024), ""), &[414, 431]),
        ("a head that does not end", b"GET /livez HTTP/1.1\r\nHost: x\r\nName: v".to_vec(), &[0, 400]),
        ("an upgrade to what is not offered", get("/livez", "Connection: upgrade\r\nUpgrade: h2c\r\n"), &[200]),
    ]
}

fn bodies(key: &str) -> Vec<Case> {
    let chunked = |body: &str| post(key, "Transfer-Encoding: chunked\r\n", body);
    vec![
        ("two lengths", post(key, "Content-Length: 1\r\nContent-Length: 2\r\n", "xy"), &[400]),
        ("a length of no digits", post(key, "Content-Length: one\r\n", "x"), &[400]),
        ("a negative length", post(key, "Content-Length: -1\r\n", "x"), &[400]),
        ("a length with a sign", post(key, "Content-Length: +1\r\n", "x"), &[400]),
        ("a length beyond numbers", post(key, "Content-Length: 99999999999999999999999\r\n", "x"), &[400]),
        ("a length over the limit", post(key, "Content-Length: 999999999999\r\n", "x"), &[413]),
        ("a length and chunks", post(key, "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), &[400]),
        ("chunks by another name", post(key, "Transfer-Encoding: xchunked\r\n", "1\r\nx\r\n0\r\n\r\n"), &[400]),
        ("chunks and then something else", post(key, "Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), &[400]),
        ("chunks in HTTP/1.0", b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), &[400]),
        ("a chunk without a size", chunked("x\r\n0\r\n\r\n"), &[400]),
        ("a chunk beyond numbers", chunked("fffffffffffffffff\r\nx\r\n0\r\n\r\n"), &[400]),
        ("a chunk that is longer than it says", chunked("1\r\nxyz\r\n0\r\n\r\n"), &[400]),
        ("chunks that do not end", chunked("5\r\nhello\r\n"), &[0, 400]),
        ("endless trailers", chunked(&format!("1\r\nx\r\n0\r\n{}\r\n", "A: b\r\n".repeat(20_000))), &[400]),
        ("a body shorter than it says", post(key, "Content-Length: 100\r\n", "x"), &[0, 400]),
        ("a promise of a body", post(key, "Content-Length: 1\r\nExpect: 100-continue\r\n", ""), &[0, 100, 400]),
    ]
}

/// A publish of a batch in its stored form.
fn post_batch(key: &str) -> Vec<u8> {
    let record = BatchRecord { key: Some("k".into()), payload: "hello".into(), ..BatchRecord::default() };
    let frame = encode_batch(&vec![record; 3]).expect("it fits the form");
    let head = format!("Content-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\n", frame.len());
    let request = post(key, &head, "");
    // Of two types the first would count.
    let request = String::from_utf8(request).expect("text").replace("Content-Type: text/plain\r\n", "");
    [request.as_bytes(), &frame].concat()
}

/// Frames of HTTP/2 after the preface.
fn http2() -> Vec<Case> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let settings = frame(4, 0, 0, &[]);
    let hello = |rest: &[u8]| [PREFACE, &settings, rest].concat();
    // GET http://x/livez by the static table, and the stream's reset.
    let request = b"\x82\x86\x41\x01x\x04\x06/livez";
    let reset: Vec<u8> = (0..2_000_u32)
        .flat_map(|n| [frame(1, 5, 2 * n + 1, request), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat())
        .collect();
    let ended: &[u16] = &[0];
    vec![
        ("half a preface", PREFACE[..20].to_vec(), &[0, 400]),
        ("a preface that goes wrong", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), &[0, 400]),
        ("noise after the preface", [PREFACE, &[0xff; 300]].concat(), ended),
        ("a frame before the settings", [PREFACE, &frame(6, 0, 0, &[0; 8])].concat(), ended),
        ("a frame over the limit", hello(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]), ended),
        ("headers that are none", hello(&frame(1, 5, 1, &[0xff; 64])), ended),
        ("headers on stream 0", hello(&frame(1, 5, 0, request)), ended),
        ("a stream of an even number", hello(&frame(1, 5, 2, request)), ended),
        ("headers that never end", hello(&frame(1, 0, 1, request).repeat(2)), ended),
        (
            "continuations for ever",
            hello(&[frame(1, 1, 1, request), frame(9, 0, 1, &[0; 64]).repeat(2_000)].concat()),
            ended,
        ),
        ("a window that overflows", hello(&frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(3)), ended),
        ("a flood of settings", hello(&settings.repeat(20_000)), ended),
        ("a flood of pings", hello(&frame(6, 0, 0, &[0; 8]).repeat(20_000)), ended),
        ("a flood of resets", hello(&reset), ended),
        ("frames of unknown kinds", hello(&frame(0xee, 0xff, 7, &[1; 100])), ended),
    ]
}

/// The status of the first answer; 0 when there is none.
fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    text.strip_prefix("HTTP/1.").map_or(0, |rest| rest[2..].trim().parse().expect("a status"))
}

/// Sends `request` and, if `nothing_more`, that nothing more comes.
async fn exchange(witness: &Witness, request: &[u8], random: &mut StdRng, nothing_more: bool) -> Vec<u8> {
    let (mut reading, mut writing) = witness.connect().await.into_split();
    let sending = async {
        write_in_pieces(&mut writing, request, random).await;
        if nothing_more {
            let _ = writing.shutdown().await;
        }
    };
    tokio::join!(sending, read_to_end(&mut reading)).1
}

/// Fails when a malformed request is served, kept waiting for ever, or answered as a failure of the server.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_by_the_rules_of_http() {
    let witness = Witness::start().await;
    let mut random = StdRng::seed_from_u64(1);
    let mut wrong = Vec::new();
    for (what, request, expected) in [heads(), bodies(witness.0.key()), http2()].into_iter().flatten() {
        let answer = exchange(&witness, &request, &mut random, expected.contains(&0)).await;
        if !expected.contains(&status(&answer)) {
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
            wrong.push(format!("{what}: {} is none of {expected:?}: {shown:?}", status(&answer)));
        }
        witness.is_unharmed(what).await;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(witness.0.client().count("abused").await, 0, "nothing of it was stored");
}

/// Fails when something that no case above thought of brings the server to an error of its own.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_broken_at_random_do_no_harm() {
    let witness = std::sync::Arc::new(Witness::start().await);
    let key = witness.0.key();
    let (length, authorized) = ("Content-Length: 5\r\n", format!("Authorization: Bearer {key}\r\n"));
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: plinth.v1.json\r\n";
    let models = std::sync::Arc::new([
        [post(key, length, "hello"), get("/livez", "")].concat(),
        [post(key, "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), post(key, length, "again")].concat(),
        get("/v1/topics/t/records?from=earliest&limit=5", &authorized),
        [post_batch(key), get("/v1/topics/abused/records", &format!("{authorized}Accept: {MEDIA_TYPE}\r\n"))].concat(),
        get("/v1/stream?topic=t&from=earliest", &format!("{authorized}Accept: text/event-stream\r\n")),
        get("/v1/ws", &format!("{authorized}{upgrade}")),
        http2().pop().expect("there are some").1,
    ]);
    let mut running = JoinSet::new();
    for seed in seeds() {
        let (witness, models) = (std::sync::Arc::clone(&witness), std::sync::Arc::clone(&models));
        running.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            for _ in 0..16 {
                let noise: Vec<u8> = (0..random.random_range(1..2_000)).map(|_| random.random()).collect();
                let model = random.random_range(0..=models.len());
                let request = models.get(model).map_or(noise, |model| mutated(model, &mut random));
                let answer = exchange(&witness, &request, &mut random, true).await;
                let text = String::from_utf8_lossy(&answer);
                assert!(!text.contains("HTTP/1.1 5"), "seed {seed}: {:?}: {text}", String::from_utf8_lossy(&request));
            }
        });
        if running.len() as u64 >= AT_ONCE {
            running.join_next().await.expect("one is running").expect("no seed fails");
        }
    }
    running.join_all().await;
    witness.is_unharmed("after all seeds").await;
}
