//! Clients that take their time, ask for very much at once, or are more than the node has descriptors for. Others are
//! served meanwhile.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::Witness;
use crate::client::{answer, texts, within};
use crate::harness::{Options, Server};

/// Connections of an attack.
const ATTACKERS: u64 = 200;
/// So many are enough: on a busy machine the first may have been closed for their slowness when the last ones come.
const ATTACKERS_MIN: u64 = 100;
/// What another tenant does while they are there.
const ROUNDS: usize = 10;
/// More than the server grows by while answers of 900 kB wait for [`ATTACKERS`]: a tenant may hold 64 MiB of them.
const GROWTH_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// The same where nothing large is asked for.
const GROWTH_BYTES_SMALL: u64 = 64 * 1024 * 1024;

/// Debian's slowhttptest, until it is dropped, with a credential, which it can only be given behind a cookie.
fn slow_attack(witness: &Witness, path: &str, mode: &[&str]) -> Child {
    let (count, url) = (ATTACKERS.to_string(), format!("{}{path}", witness.0.url()));
    let credential = format!("a=b\r\nAuthorization: Bearer {}", witness.0.key());
    let mut command = Command::new("slowhttptest");
    command.args(["-c", &count, "-r", &count, "-l", "240", "-v", "1", "-j", &credential, "-u", &url]).args(mode);
    command.current_dir(witness.0.dir()).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("slowhttptest can be started, which `.ci/setup test` installs")
}

/// While the attack goes on another tenant publishes and reads, and memory stays bounded. Then the attackers are gone
/// without a word, and nothing of them is left.
async fn attacked_slowly(path: &str, mode: &[&str]) {
    let witness = Witness::start().await;
    witness.0.client().publish("large", "text/plain", "x".repeat(900_000)).await;
    let client = witness.0.tenant("other").await;
    client.publish("t", "text/plain", "before").await;
    let before = witness.metric("process_resident_memory_bytes").await;
    let mut attack = slow_attack(&witness, path, mode);
    within("the attackers", async { while witness.connections().await < ATTACKERS_MIN {} }).await;
    for round in 0..ROUNDS {
        let text = format!("meanwhile {round}");
        let offset = client.publish("t", "text/plain", text.clone()).await.offset;
        let page = client.page("t", &format!("from=offset:{offset}")).await;
        assert_eq!(texts(&page.records), [text]);
        let grown = witness.metric("process_resident_memory_bytes").await.saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{mode:?}: {grown} bytes");
    }
    drop(client);
    attack.kill().await.expect("an own child can be killed");
    witness.is_unharmed("after a slow attack").await;
}

/// Fails when connections are served in the task that accepts them: then nobody is, while a head is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_heads_that_come_slowly_hold_up_nobody() {
    attacked_slowly("/livez", &["-H", "-i", "1"]).await;
}

/// Fails in the same way, and when a body takes room for all that it announces from others' share.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_bodies_that_come_slowly_hold_up_nobody() {
    attacked_slowly("/v1/topics/slow/records", &["-B", "-i", "1", "-f", "text/plain"]).await;
}

/// Fails in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_answers_that_are_taken_slowly_hold_up_nobody() {
    attacked_slowly("/v1/topics/large/records?from=earliest", &["-X", "-k", "3"]).await;
}

/// Fails when the connection ends after an answer, as with `keep_alive(false)`: the rest is lost.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_at_once_on_one_connection_are_answered_in_order() {
    const COUNT: usize = 10_000;
    let witness = Witness::start().await;
    let before = witness.metric("process_resident_memory_bytes").await;
    let (reading, mut writing) = witness.connect().await.into_split();
    let requests: String =
        (0..COUNT).map(|n| format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: n-{n}\r\n\r\n")).collect();
    let answers = async {
        let mut reading = BufReader::new(reading);
        let mut ids = Vec::new();
        while ids.len() < COUNT {
            let mut length = 0;
            let mut line = String::new();
            while reading.read_line(&mut line).await.expect("the connection stays open") > 0 && line != "\r\n" {
                let lower = line.to_ascii_lowercase();
                if let Some(id) = lower.strip_prefix("x-request-id: n-") {
                    ids.push(id.trim().parse::<usize>().expect("the id of a request"));
                }
                if let Some(bytes) = lower.strip_prefix("content-length: ") {
                    length = bytes.trim().parse().expect("a length");
                }
                line.clear();
            }
            assert!(!line.is_empty(), "it ended after {} answers", ids.len());
            reading.read_exact(&mut vec![0; length]).await.expect("the body of an answer");
        }
        ids
    };
    let (sent, ids) =
        within("the answers", async { tokio::join!(writing.write_all(requests.as_bytes()), answers) }).await;
    sent.expect("the server takes all of it");
    assert!(ids.into_iter().eq(0..COUNT), "the answers are in the order of the requests");
    drop(writing);
    let grown = witness.metric("process_resident_memory_bytes").await.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_SMALL, "{grown} bytes");
    witness.is_unharmed("after many requests at once").await;
}

/// Fails when the accept loop ends, or accepts nothing any more, once no descriptor is left.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_descriptor_left_connections_wait_and_are_served_when_others_have_gone() {
    let server = Server::start_with(Options { open_files: Some(128), ..Options::default() }).await;
    server.client().make_topic("t", 1).await;
    let witness = Witness(server);
    let mut attackers = Vec::new();
    for _ in 0..ATTACKERS {
        attackers.push(witness.connect().await);
    }
    let mut waiting = JoinSet::new();
    let client = witness.0.client();
    waiting.spawn(async move { answer(client.get("/v1/topics/t")).await.status });
    let starved = async {
        while !witness.0.stderr().contains("no connection can be accepted") {
            tokio::task::yield_now().await
        }
    };
    within("the last descriptor", starved).await;
    drop(attackers);
    assert_eq!(within("the one who waited", waiting.join_next()).await.expect("it waits").expect("it ends"), 200);
    assert!(witness.metric("plinth_connections_refused_total{reason=\"descriptors\"}").await > 0);
    witness.is_unharmed("after it had no descriptors").await;
}
