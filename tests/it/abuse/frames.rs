//! WebSocket frames that are none, and many more than a client sends.

use std::sync::Arc;
use std::time::Duration;

use plinth_api::limits::FRAME_BYTES_MAX;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{AT_ONCE, Witness, mutated, seeds, write_in_pieces};
use crate::client::within;

const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// A close without a code, which answers one of the client's.
const NO_CODE: u16 = 1005;
/// The last frame of a message.
const FIN: u8 = 0x80;

/// A connection that was upgraded by hand.
struct Raw {
    reading: Reading,
    writing: OwnedWriteHalf,
}

struct Reading(BufReader<OwnedReadHalf>);

/// What the server says.
#[derive(Debug, PartialEq)]
enum Said {
    Frame(Value),
    Ping,
    Pong(Vec<u8>),
    Close(u16),
    /// The connection is over.
    End,
}

impl Raw {
    async fn open(witness: &Witness) -> Self {
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            witness.0.key()
        );
        let (reading, mut writing) = witness.connect().await.into_split();
        writing.write_all(head.as_bytes()).await.expect("the connection is open");
        let mut reading = Reading(BufReader::new(reading));
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within("the upgrade", reading.0.read_u8()).await.expect("the connection is open"));
        }
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(
            !answer.contains("extensions"),
            "a message is as long as its frames say, without compression: {answer}"
        );
        assert!(matches!(reading.said().await, Said::Frame(frame) if frame["type"] == "welcome"));
        Self { reading, writing }
    }

    async fn said(&mut self) -> Said {
        self.reading.said().await
    }

    /// Sends what the server may refuse to take.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.writing.write_all(bytes).await;
    }

    async fn is_alive(&mut self) {
        self.send(&text(br#"{"type":"ping","id":"alive"}"#)).await;
        loop {
            match self.said().await {
                Said::Frame(frame) if frame["id"] == "alive" => return,
                Said::Frame(_) | Said::Ping | Said::Pong(_) => {}
                ended @ (Said::Close(_) | Said::End) => panic!("{ended:?}"),
            }
        }
    }
}

impl Reading {
    /// What the server says next, which must be a frame as RFC 6455 wants it from a server.
    async fn said(&mut self) -> Said {
        within("a frame or the end", self.read()).await.unwrap_or(Said::End)
    }

    async fn read(&mut self) -> std::io::Result<Said> {
        let [first, second] = self.0.read_u16().await?.to_be_bytes();
        assert_eq!((first & 0xf0, second & 0x80), (FIN, 0), "whole messages, without reserved bits, unmasked");
        let length = match second {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("it fits")];
        self.0.read_exact(&mut payload).await?;
        Ok(match first & 0x0f {
            TEXT => {
                let frame: Value = serde_json::from_slice(&payload).expect("the server sends JSON");
                assert!(frame["type"].is_string(), "{frame}");
                Said::Frame(frame)
            }
            PING => Said::Ping,
            PONG => Said::Pong(payload),
            CLOSE => Said::Close(payload.first_chunk().map_or(NO_CODE, |code| u16::from_be_bytes(*code))),
            other => panic!("the server sent a frame of kind {other}"),
        })
    }

    /// Everything up to a close frame or the end.
    async fn rest(&mut self) -> Vec<Said> {
        let mut all = Vec::new();
        loop {
            match self.said().await {
                Said::End => return all,
                said @ Said::Close(_) => {
                    all.push(said);
                    return all;
                }
                said @ (Said::Frame(_) | Said::Ping | Said::Pong(_)) => all.push(said),
            }
        }
    }
}

/// A frame as a client sends it, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | u8::try_from(short).expect("it is short")),
        middle @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(middle).expect("it is not long").to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(FIN | TEXT, payload)
}

/// The head of a frame that says to be so long, and nothing of it.
fn announced(length: u64) -> Vec<u8> {
    [&[FIN | TEXT, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4]].concat()
}

/// What is sent, and the code with which the server closes.
fn endings() -> Vec<(&'static str, Vec<u8>, u16)> {
    let deep = "[".repeat(100_000);
    let half = |bytes: &[u8]| frame(TEXT, bytes);
    let many = [frame(TEXT, &[b' '; 1024 * 1024]), frame(CONTINUE, &[b' '; 1024 * 1024]).repeat(8)].concat();
    vec![
        ("a frame without a mask", [&[FIN | TEXT, 2][..], b"{}"].concat(), 1002),
        ("a reserved bit", frame(FIN | 0x40 | TEXT, b"{}"), 1002),
        ("a reserved kind of data", frame(FIN | 3, b"{}"), 1002),
        ("a reserved kind of control", frame(FIN | 11, b""), 1002),
        ("a ping in fragments", frame(PING, b"x"), 1002),
        ("a ping of 126 bytes", frame(FIN | PING, &[b'x'; 126]), 1002),
        ("a close of 126 bytes", frame(FIN | CLOSE, &[b'x'; 126]), 1002),
        ("a close of one byte", frame(FIN | CLOSE, b"x"), 1002),
        ("a close with a code that is none", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUE, b"x"), 1002),
        ("a text within a text", [half(b"{"), text(b"{}")].concat(), 1002),
        ("a text that is not UTF-8", text(b"{\"type\":\"\xff\"}"), 1007),
        ("a text that ends within a character", [half(b"{\"a\":\"\xc3"), frame(FIN | CONTINUE, b"\"}")].concat(), 1007),
        ("a reason that is not UTF-8", frame(FIN | CLOSE, b"\x03\xe8\xff\xff"), 1007),
        ("a binary frame", frame(FIN | BINARY, b"{}"), 1003),
        ("a message over the limit", announced(FRAME_BYTES_MAX as u64 + 1), 1009),
        ("a message of half the address space", announced(1 << 62), 1009),
        ("fragments over the limit", [many, frame(FIN | CONTINUE, &[b' '; 512 * 1024])].concat(), 1009),
        ("no text", text(b""), 1008),
        ("no JSON", text(b"hello"), 1008),
        ("another JSON", text(b"[{}]"), 1008),
        ("half of JSON", text(b"{\"type\":\"ping\""), 1008),
        ("JSON of great depth", text(format!("{{\"x\":{deep}").as_bytes()), 1008),
        ("a nul", text(b"\0"), 1008),
    ]
}

/// Fails when the server hides what was wrong, closes with another code, or leaves the connection open.
#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_end_the_connection_with_the_code_that_says_why() {
    let witness = Witness::start().await;
    let mut wrong = Vec::new();
    for (what, bytes, code) in endings() {
        let mut raw = Raw::open(&witness).await;
        raw.send(&bytes).await;
        let rest = raw.reading.rest().await;
        drop(raw);
        if rest.last() != Some(&Said::Close(code)) {
            wrong.push(format!("{what}: {rest:?} does not end with {code}"));
        }
        witness.is_unharmed(what).await;
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Fails when a frame that can be read and is refused, or a proper use of fragments, ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn odd_frames_that_keep_the_rules_leave_the_connection_open() {
    let witness = Witness::start().await;
    let mut raw = Raw::open(&witness).await;
    let deep = format!(r#"{{"type":"subscribe","id":"d","topics":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!(r#"{{"type":"ping","id":"d","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for refused in [r#"{"type":"nonsense"}"#, r#"{"type":7}"#, "{}", "{\"type\":\"ping\",\"id\":{}}", &deep, &nested] {
        raw.send(&text(refused.as_bytes())).await;
        let said = raw.said().await;
        assert!(matches!(&said, Said::Frame(frame) if frame["type"] == "error"), "{}: {said:?}", &refused[..20]);
    }
    raw.send(&frame(FIN | PING, &[b'p'; 125])).await;
    assert_eq!(raw.said().await, Said::Pong(vec![b'p'; 125]));
    raw.send(&frame(FIN | PONG, b"unasked")).await;
    // A message byte by byte, with a ping between, which the rules allow.
    let message = r#"{"type":"ping","id":"ü"}"#.as_bytes();
    raw.send(&frame(TEXT, &message[..1])).await;
    for byte in &message[1..] {
        raw.send(&frame(CONTINUE, &[*byte])).await;
        raw.send(&frame(CONTINUE, b"")).await;
    }
    raw.send(&frame(FIN | PING, b"")).await;
    assert_eq!(raw.said().await, Said::Pong(vec![]));
    raw.send(&frame(FIN | CONTINUE, b"")).await;
    assert_eq!(raw.said().await, Said::Frame(json!({"type": "pong", "id": "ü"})));
    raw.send(&frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await;
    assert_eq!(raw.reading.rest().await, [Said::Close(1000)]);
    witness.is_unharmed("after odd frames").await;
}

/// Fails when what waits for a client that does not read keeps its connection when it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_tiny_frames_are_taken_in_turn_whether_or_not_the_client_reads() {
    const COUNT: usize = 20_000;
    let witness = Witness::start().await;
    let kinds = [text(b"{}"), text(br#"{"type":"ping"}"#), frame(FIN | PING, b""), frame(FIN | PONG, b"")];
    for flood in kinds.map(|tiny| tiny.repeat(COUNT)) {
        let Raw { mut reading, mut writing } = Raw::open(&witness).await;
        // The server does not read on while its answers are not taken.
        tokio::select! {
            taken = writing.write_all(&flood) => taken.expect("the server takes all of it"),
            ended = async { while !matches!(reading.said().await, Said::Close(_) | Said::End) {} } => panic!("{ended:?}"),
        }
        Raw { reading, writing }.is_alive().await;
        let mut deaf = Raw::open(&witness).await;
        // As much as it takes from somebody who does not read a byte, who is then gone without a word.
        drop(timeout(Duration::from_millis(200), deaf.writing.write_all(&flood)).await);
    }
    witness.is_unharmed("after the floods").await;
}

/// Fails when the pieces of a message are gathered without a bound (`max_message_size`).
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_ends_is_closed_at_the_limit() {
    let witness = Witness::start().await;
    let Raw { mut reading, mut writing } = Raw::open(&witness).await;
    let piece = frame(CONTINUE, &[b' '; 16 * 1024]);
    let sending = async {
        let _ = writing.write_all(&frame(TEXT, b" ")).await;
        while writing.write_all(&piece).await.is_ok() {}
    };
    let said = tokio::join!(sending, async {
        let rest = reading.rest().await;
        drop(reading);
        rest
    });
    assert_eq!(said.1.last(), Some(&Said::Close(1009)), "{:?}", said.1);
    drop(writing);
    witness.is_unharmed("after a message without an end").await;
}

/// A frame of a kind, length and truth that chance decides.
fn random_frame(random: &mut StdRng) -> Vec<u8> {
    let models: [&[u8]; 6] = [
        br#"{"type":"subscribe","id":"s","topics":["t","*"],"from":"earliest","credit":3}"#,
        br#"{"type":"publish","id":"p","topic":"abused","records":[{"key":"k","value":{"a":[1,2]}},{"text":"x"}]}"#,
        br#"{"type":"credit","sub":"s","n":5}"#,
        br#"{"type":"unsubscribe","sub":"s"}"#,
        br#"{"type":"auth","token":"x"}"#,
        br#"{"type":"ping","id":"1"}"#,
    ];
    let model = models[random.random_range(0..models.len())];
    match random.random_range(0..8) {
        0 => frame(random.random(), &mutated(model, random)),
        1 => mutated(&text(model), random),
        2 => (0..random.random_range(1..200)).map(|_| random.random()).collect(),
        3 => frame(FIN | PING, &vec![b'p'; random.random_range(0..126)]),
        4 => {
            let (first, rest) = model.split_at(random.random_range(0..model.len()));
            [frame(TEXT, first), frame(FIN | CONTINUE, rest)].concat()
        }
        5 => text(&mutated(model, random)),
        _ => text(model),
    }
}

async fn one_session(witness: &Witness, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let Raw { mut reading, mut writing } = Raw::open(witness).await;
    let frames: Vec<u8> = (0..random.random_range(1..40)).flat_map(|_| random_frame(&mut random)).collect();
    if random.random_bool(0.2) {
        // Gone without a word, with everything that the server said unread.
        return drop(writing.write_all(&frames).await);
    }
    let sending = async {
        write_in_pieces(&mut writing, &frames, &mut random).await;
        let _ = writing.shutdown().await;
    };
    for said in tokio::join!(sending, reading.rest()).1 {
        if let Said::Close(code) = said {
            // It may repeat the one of the client. These two are never on the wire.
            assert!((1000..5000).contains(&code) && ![1006, 1015].contains(&code), "seed {seed}: {code}");
        }
    }
}

/// Fails when something that no case above thought of brings a session to a panic, an end that it does not see, or a
/// frame that is none.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_broken_at_random_do_no_harm() {
    let witness = Arc::new(Witness::start().await);
    let mut running = JoinSet::new();
    for seed in seeds() {
        let witness = Arc::clone(&witness);
        running.spawn(async move {
            for round in 0..16 {
                one_session(&witness, seed << 8 | round).await;
            }
        });
        if running.len() as u64 >= AT_ONCE {
            running.join_next().await.expect("one is running").expect("no seed fails");
        }
    }
    running.join_all().await;
    witness.is_unharmed("after all seeds").await;
}
