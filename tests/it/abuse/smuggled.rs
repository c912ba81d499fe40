//! Requests of whose length two readers may think differently, with another request behind: what a proxy in front takes
//! for a body must not be answered as a request (RFC 9112 §11.2).

use tokio::io::AsyncWriteExt;

use super::{Witness, read_to_end};

/// What would be smuggled. Its answer would say `method_not_allowed`.
const SECOND: &str = "DELETE /livez HTTP/1.1\r\nHost: x\r\n\r\n";

/// What is asked of a topic's records, the body, and the status.
type Shape = (&'static str, &'static str, &'static str, u16);

fn shapes() -> Vec<Shape> {
    const CHUNKS: &str = "1\r\nx\r\n0\r\n\r\n";
    const BOTH: &str = "Transfer-Encoding: chunked\r\n";
    vec![
        // Read by the chunks alone, and the connection is closed, as RFC 9112 §6.3 wants it.
        ("a length and chunks", "Content-Length: 100\r\nTransfer-Encoding: chunked\r\n", CHUNKS, 201),
        ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 100\r\n", CHUNKS, 201),
        ("two lengths", "Content-Length: 1\r\nContent-Length: 60\r\n", "x", 400),
        ("two lengths in a line", "Content-Length: 1, 60\r\n", "x", 400),
        ("the same length twice in a line", "Content-Length: 1, 1\r\n", "x", 400),
        ("a length in hexadecimal", "Content-Length: 0x1\r\n", "x", 400),
        ("a length with a sign", "Content-Length: +1\r\n", "x", 400),
        ("a length with a space in it", "Content-Length: 1 0\r\n", "x", 400),
        ("a space before the colon of a length", "Content-Length : 1\r\n", "x", 400),
        ("a folded length", "Content-Length:\r\n 1\r\n", "x", 400),
        ("a nul in a length", "Content-Length: 1\0\r\n", "x", 400),
        ("a bare CR behind a length", "Content-Length: 1\rTransfer-Encoding: chunked\r\n", "x", 400),
        ("a space before the colon of chunks", "Transfer-Encoding : chunked\r\n", CHUNKS, 400),
        ("folded chunks", "Transfer-Encoding:\r\n chunked\r\n", CHUNKS, 400),
        ("chunks behind a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", CHUNKS, 400),
        ("chunks by almost that name", "Transfer-Encoding: xchunked\r\n", CHUNKS, 400),
        ("chunks and then nothing done", "Transfer-Encoding: chunked, identity\r\n", CHUNKS, 400),
        ("two codings in two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKS, 400),
        ("a size with a bare LF", BOTH, "1\nx\r\n0\r\n\r\n", 400),
        ("an extension with a bare LF", BOTH, "1;a\nb\r\nx\r\n0\r\n\r\n", 400),
        ("a size with a prefix", BOTH, "0x1\r\nx\r\n0\r\n\r\n", 400),
        ("a size with a sign", BOTH, "+1\r\nx\r\n0\r\n\r\n", 400),
        ("a size that overflows", BOTH, "10000000000000001\r\nx\r\n0\r\n\r\n", 400),
        ("a chunk without its end", BOTH, "1\r\nxy0\r\n\r\n", 400),
        ("a chunk that ends with a bare LF", BOTH, "1\r\nx\n0\r\n\r\n", 400),
    ]
}

/// Fails when a header is trimmed, joined or ignored before it is judged, or the connection goes on after one that could
/// be read in two ways.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_a_request_of_doubtful_length_is_never_answered() {
    let witness = Witness::start().await;
    let mut wrong = Vec::new();
    for (what, headers, body, status) in shapes() {
        let (mut reading, mut writing) = witness.connect().await.into_split();
        let head =
            format!("POST /v1/topics/t/records HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", witness.0.key());
        let request = format!("{head}Content-Type: text/plain\r\n{headers}\r\n{body}{SECOND}");
        // It may close before it has read all of it; that it closes, with nothing more said by the client, is the point.
        let _ = writing.write_all(request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&read_to_end(&mut reading).await).into_owned();
        let answers = answer.matches("HTTP/1.1 ").count();
        if answers != 1 || !answer.starts_with(&format!("HTTP/1.1 {status} ")) {
            wrong.push(format!("{what}: {answers} answers: {answer}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    witness.is_unharmed("after all of them").await;
}

/// Lines may end with LF alone (RFC 9112 §2.2): they are read as any other, with the same length.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_end_with_a_bare_lf_are_read_as_lines() {
    let witness = Witness::start().await;
    let (mut reading, mut writing) = witness.connect().await.into_split();
    let key = witness.0.key();
    let head = format!("POST /v1/topics/t/records HTTP/1.1\nHost: x\nAuthorization: Bearer {key}\n");
    let request = format!(
        "{head}Content-Type: text/plain\nContent-Length: 3\n\n{}\n{}",
        "abc", "GET /livez HTTP/1.1\nHost: x\nConnection: close\n\n"
    );
    writing.write_all(request.as_bytes()).await.expect("it is open");
    let answer = String::from_utf8_lossy(&read_to_end(&mut reading).await).into_owned();
    let statuses: Vec<_> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["201", "200"], "{answer}");
    witness.is_unharmed("after bare line ends").await;
}
