//! Real input: all package records of Debian, published with the command line, followed by SSE, WebSocket, NDJSON and
//! pages at once while the server is killed in the middle and its cache directory removed; every record is compared byte
//! for byte on every transport.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use plinth_api::records::Record;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Client, LineStream, NDJSON, SSE, SseStream, from_cursor, payload, try_answer, within};
use crate::harness::Server;
use serde_json::json;

const TOPIC: &str = "debian.packages";

#[tokio::test(flavor = "multi_thread")]
async fn the_packages_of_debian_arrive_byte_for_byte_on_every_transport_over_a_kill_and_a_wiped_cache() {
    let mut server = Server::start().await;
    let file = server.dir().join("packages.ndjson");
    let lines: Arc<Vec<Vec<u8>>> = Arc::new(packages(&file).await);
    assert!(lines.len() > 10_000, "only {} packages; `make setup` runs apt-get update", lines.len());
    server.client().make_topic(TOPIC, 1).await;
    let (address, address_of) = watch::channel(Some(server.url().to_owned()));
    let (seen, mut seen_of) = watch::channel(0);
    let mut followers = JoinSet::new();
    for transport in [Transport::Sse, Transport::Ws, Transport::Ndjson, Transport::Pages] {
        let progress = (transport == Transport::Sse).then(|| seen.clone());
        let check = Check { lines: lines.clone(), next: 0, transport, progress };
        followers.spawn(follow(check, server.key().to_owned(), address_of.clone()));
    }
    let middle = lines.len() / 2;
    let mut publishing = publish(&server, &file, 0).await;
    tokio::select! {
        _ = seen_of.wait_for(|seen| *seen >= middle) => {}
        ended = publishing.wait() => panic!("all was published before the middle was seen: {ended:?}"),
        failed = followers.join_next() => panic!("a follower ended early: {failed:?}"),
    }
    server.kill9().await;
    address.send_replace(None);
    assert!(!within("the publisher's end", publishing.wait()).await.unwrap().success(), "it does not claim to be done");
    server.restart(true).await;
    address.send_replace(Some(server.url().to_owned()));
    // One publisher, in order: what is stored is a beginning of the file, so it goes on at the tail.
    let stored = usize::try_from(server.client().count(TOPIC).await).unwrap();
    assert!((middle..lines.len()).contains(&stored), "{stored} of {}", lines.len());
    let mut publishing = publish(&server, &file, stored).await;
    assert!(within("the publisher's end", publishing.wait()).await.unwrap().success());
    assert_eq!(server.client().count(TOPIC).await, lines.len() as u64);
    while let Some(follower) = within("a follower's last record", followers.join_next()).await {
        follower.expect("a follower sees all");
    }
    println!("{} packages, killed at {stored}", lines.len());
}

/// The records as NDJSON lines, made by the example's own script from this machine's package lists.
async fn packages(to: &Path) -> Vec<Vec<u8>> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/debian-packages/packages_to_ndjson.py");
    let mut list = Command::new("apt-cache").arg("dumpavail").stdout(Stdio::piped()).spawn().expect("apt-cache runs");
    let from: Stdio = list.stdout.take().expect("it is piped").try_into().expect("a pipe can be handed on");
    let out = std::fs::File::create(to).expect("the test's own directory can be written");
    let made = Command::new("python3").arg(script).stdin(from).stdout(out).status().await.expect("python3 runs");
    assert!(made.success() && list.wait().await.expect("apt-cache ends").success());
    let bytes = std::fs::read(to).expect("the lines are there");
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// `plinth publish` of the lines from `skip` on.
async fn publish(server: &Server, file: &Path, skip: usize) -> tokio::process::Child {
    let rest = file.with_extension(format!("from-{skip}"));
    let out = std::fs::File::create(&rest).expect("the test's own directory can be written");
    let tail = Command::new("tail").arg("-n").arg(format!("+{}", skip + 1)).arg(file).stdout(out).status().await;
    assert!(tail.expect("tail runs").success());
    let input = std::fs::File::open(&rest).expect("it was written");
    Command::new(env!("CARGO_BIN_EXE_plinth"))
        .args(["publish", TOPIC, "--format", "ndjson", "--retry-for", "1s"])
        .env("PLINTH_URL", server.url())
        .env("PLINTH_KEY", server.key())
        .env_remove("PLINTH_KILLS")
        .stdin(input)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary can be started")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Sse,
    Ws,
    Ndjson,
    Pages,
}

/// Compares what one follower sees with the lines, record by record.
struct Check {
    lines: Arc<Vec<Vec<u8>>>,
    next: usize,
    transport: Transport,
    progress: Option<watch::Sender<usize>>,
}

impl Check {
    fn take(&mut self, records: &[Record]) {
        for record in records {
            assert_eq!(record.offset, self.next as u64, "{:?} goes on where it was", self.transport);
            assert!(payload(record) == self.lines[self.next], "{:?} differs at {}", self.transport, self.next);
            self.next += 1;
        }
        if let Some(progress) = &self.progress {
            progress.send_replace(self.next);
        }
    }

    fn done(&self) -> bool {
        self.next == self.lines.len()
    }
}

/// Follows over one connection after the other until all lines were seen.
async fn follow(mut check: Check, key: String, mut address: watch::Receiver<Option<String>>) {
    let (mut last, mut cursor) = (None, None);
    while !check.done() {
        let fresh = address.wait_for(|address| address.is_some() && *address != last);
        let at = within("a restart", fresh).await.expect("the test holds the sender").clone();
        let client = Client::new(at.as_deref().expect("it was checked"), Some(&key));
        match check.transport {
            Transport::Sse => sse(&mut check, &client, &mut cursor).await,
            Transport::Ws => ws(&mut check, &client, &mut cursor).await,
            Transport::Ndjson => ndjson(&mut check, &client).await,
            Transport::Pages => pages(&mut check, &client, &mut cursor).await,
        }
        last = at;
    }
}

fn records() -> String {
    format!("/v1/topics/{TOPIC}/records")
}

async fn sse(check: &mut Check, client: &Client, cursor: &mut Option<String>) {
    let mut request = client.get(&format!("{}?from=earliest", records())).header("Accept", SSE);
    if let Some(cursor) = cursor.as_ref() {
        request = request.header("Last-Event-ID", cursor);
    }
    let Ok(response) = request.send().await else { return };
    assert_eq!(response.status(), 200);
    let mut stream = SseStream::new(response);
    while !check.done() {
        let Some(event) = stream.next().await else { return };
        if event.event == "record" {
            check.take(&[serde_json::from_str(&event.data).expect("a record is JSON")]);
        }
        *cursor = Some(event.id);
    }
}

async fn ws(check: &mut Check, client: &Client, cursor: &mut Option<String>) {
    let Some(mut ws) = client.try_ws().await else { return };
    let from = cursor.as_ref().map_or("earliest".to_owned(), |cursor| format!("cursor:{cursor}"));
    ws.send(&json!({"type": "subscribe", "id": "s", "topics": [TOPIC], "from": from, "credit": 2000})).await;
    while !check.done() {
        let Some(frame) = ws.next().await else { return };
        if frame.kind == "records" {
            check.take(&frame.records);
            *cursor = frame.cursor;
            ws.send(&json!({"type": "credit", "sub": "s", "n": frame.records.len()})).await;
        }
    }
}

async fn ndjson(check: &mut Check, client: &Client) {
    let path = format!("{}?from=offset:{}", records(), check.next);
    let Ok(response) = client.get(&path).header("Accept", NDJSON).send().await else { return };
    assert_eq!(response.status(), 200);
    let mut lines = LineStream::new(response);
    while !check.done() {
        let Some(line) = lines.next().await else { return };
        // A line that was cut off by the kill is not a record; it comes again.
        match serde_json::from_str(&line) {
            Ok(record) => check.take(&[record]),
            Err(_) => assert!(line.starts_with("{\"control\"") || !line.ends_with('}'), "{line}"),
        }
    }
}

async fn pages(check: &mut Check, client: &Client, cursor: &mut Option<String>) {
    while !check.done() {
        let from = cursor.as_ref().map_or("earliest".to_owned(), |cursor| from_cursor(cursor));
        let request = client.get(&format!("{}?from={from}&wait=5s&limit=2000", records()));
        let Some(answer) = try_answer(request).await.ok().filter(|answer| answer.status < 500) else { return };
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: plinth_api::records::RecordPage = answer.parse();
        check.take(&page.records);
        *cursor = Some(page.next);
    }
}
