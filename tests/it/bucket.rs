//! The commands that look at a bucket (`inspect`, `verify`, `restore`), as people use them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use plinth_api::records::Record;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cli::{Ended, client, plinth, run};
use crate::client::{BATCH, Client, answer, from_cursor, texts};
use crate::harness::{Options, Server};

/// How often a bucket is verified while it is written to.
const LOOKS: usize = 8;

/// A command on the bucket of a server.
async fn on(server: &Server, args: &[&str]) -> Ended {
    let store = server.store_dir().to_string_lossy().into_owned();
    // What a killed command leaves behind goes with the test.
    let temporary = server.dir().to_string_lossy().into_owned();
    run(args, &[("PLINTH_STORE", &store), ("TMPDIR", &temporary)], b"").await
}

/// The lines of a command as JSON.
fn json_lines(ended: &Ended) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    ended.lines().iter().map(parse).collect()
}

fn of_kind(lines: &[Value], kind: &str) -> Vec<Value> {
    lines.iter().filter(|line| line["kind"] == kind).cloned().collect()
}

/// Every file below a directory, with its length and when it was written.
fn files(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        let meta = std::fs::metadata(&path).expect("there");
        found.insert(path.clone(), (if meta.is_dir() { 0 } else { meta.len() }, meta.modified().expect("a time")));
        if meta.is_dir() {
            found.extend(files(&path));
        }
    }
    found
}

async fn fill(client: &Client) {
    client.make_topic("orders/eu", 2).await;
    let records: Vec<_> = (0..20).map(|n| json!({"key": format!("k{n}"), "text": format!("{n}")})).collect();
    answer(client.publishing("orders/eu", BATCH, json!({"records": records}).to_string())).await;
    client.publish_texts("events", &["a", "b", "c"]).await;
    client.publish("gone", "text/plain", "x").await;
    assert_eq!(answer(client.delete("/v1/topics/gone")).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_shows_what_is_in_the_bucket_of_a_running_node() {
    let mut server = Server::start().await;
    fill(&server.client()).await;
    server.tenant("acme").await.publish_texts("events", &["other"]).await;
    server.kill9().await;
    server.restart(false).await;
    let lines = on(&server, &["inspect", "--json"]).await;
    assert_eq!(lines.code, 0, "{}", lines.stderr);
    let lines = json_lines(&lines);
    let topics: Vec<_> = of_kind(&lines, "topic")
        .iter()
        .filter(|topic| !topic["topic"].as_str().unwrap().starts_with('_'))
        .map(|topic| json!([topic["tenant"], topic["topic"], topic["partitions"], topic["records"]]))
        .collect();
    assert_eq!(
        topics,
        [json!(["acme", "events", 1, 1]), json!(["default", "events", 1, 3]), json!(["default", "orders/eu", 2, 20]),]
    );
    let sessions: Vec<_> = of_kind(&lines, "session").iter().map(|session| session["log"].clone()).collect();
    assert_eq!(sessions, ["ended", "open"]);
    let shards = of_kind(&lines, "shard");
    assert_eq!(
        (shards.len(), &shards[0]["epoch"], shards[0]["owners"].as_array().map(Vec::len)),
        (16, &json!(2), Some(2))
    );
    let objects: u64 = of_kind(&lines, "objects").iter().filter_map(|line| line["objects"].as_u64()).sum();
    assert_eq!(of_kind(&lines, "cost")[0]["writes"], objects);
    assert_eq!(of_kind(&lines, "cluster")[0]["shards"], 16);

    let text = on(&server, &["inspect"]).await;
    assert_eq!(text.code, 0, "{}", text.stderr);
    let text = text.lines().join("\n");
    for part in ["16 shards", "0-15", "orders/eu", "acme", "open", "ended at slot", "$ a month to keep"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let one = on(&server, &["inspect", "--of-tenant", "default", "orders/eu"]).await.lines().join("\n");
    assert!(one.contains("PARTITION") && !one.contains("acme") && !one.contains("events"), "{one}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_of_a_topic_that_is_not_there_fails_and_names_it() {
    let server = Server::start().await;
    fill(&server.client()).await;
    for args in [&["inspect", "events", "evnets"][..], &["inspect", "evnets", "--json"]] {
        let ended = on(&server, args).await;
        assert_eq!((ended.code, ended.lines()), (1, vec![]), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("there is no topic evnets in the bucket"), "{}", ended.stderr);
    }
    let ended = on(&server, &["inspect", "--of-tenant", "acme", "events"]).await;
    assert!(ended.code == 1 && ended.stderr.contains("no topic events of tenant acme"), "{}", ended.stderr);
}

// Fails when a command opens the store as a node does, which writes a probe and a file of its own.
#[tokio::test(flavor = "multi_thread")]
async fn looking_at_a_bucket_writes_nothing_to_it() {
    let mut server = Server::start().await;
    fill(&server.client()).await;
    assert!(server.terminate().await.success());
    let before = files(&server.store_dir());
    let copy = server.dir().join("copy").to_string_lossy().into_owned();
    for args in [&["inspect"][..], &["verify"], &["restore", "--to", &copy]] {
        let ended = on(&server, args).await;
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
        assert_eq!(files(&server.store_dir()), before, "{args:?}");
    }
    assert!(!before.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_a_fault_and_says_by_its_exit_code_how_it_went() {
    let mut server = Server::start().await;
    fill(&server.client()).await;
    let whole = on(&server, &["verify"]).await;
    assert_eq!(
        (whole.code, whole.lines().last().map(String::as_str)),
        (0, Some("0 faults, 0 notes")),
        "{}",
        whole.stderr
    );
    assert!(server.terminate().await.success());

    let name = break_slot(&server.store_dir(), 2);
    std::fs::write(server.store_dir().join("notes.txt"), "mine").expect("writable");

    let faulty = on(&server, &["verify"]).await;
    assert_eq!(faulty.code, 1, "{}", faulty.stderr);
    let text = faulty.lines().join("\n");
    assert!(text.contains(&format!("fault  {name} is broken")) && text.contains("note   notes.txt"), "{text}");
    let lines = json_lines(&on(&server, &["verify", "--json"]).await);
    assert_eq!(of_kind(&lines, "fault")[0]["object"], name);
    assert_eq!(of_kind(&lines, "note")[0]["object"], "notes.txt");
    let total = &of_kind(&lines, "total")[0];
    // The other note: without a checkpoint after the broken slot the state at the end is not known.
    assert_eq!((&total["faults"], &total["notes"]), (&json!(1), &json!(2)), "{total}");

    let empty = server.dir().join("empty");
    std::fs::create_dir(&empty).expect("made");
    for store in [&empty, &server.dir().join("absent")] {
        let ended = run(&["verify", "--store", &store.to_string_lossy()], &[], b"").await;
        assert_eq!(ended.code, 2, "{}", ended.stderr);
    }
    assert!(!server.dir().join("absent").exists(), "a bucket that is looked at is not made");
}

/// Flips a bit in the middle of a slot, and says its name. The slots of a session share a file; each begins with a header (docs/format.md).
fn break_slot(store: &Path, number: u64) -> String {
    let shared = files(store).into_keys().find(|path| path.to_string_lossy().ends_with("/wal/slots#1"));
    let shared = shared.expect("there are slots");
    let mut bytes = std::fs::read(&shared).expect("readable");
    let at = bytes.windows(36).position(|head| head.starts_with(b"PLINTHOB") && head[28..] == number.to_le_bytes());
    let at = at.expect("there is the slot");
    let len = u64::from_le_bytes(bytes[at + 52..at + 60].try_into().expect("eight bytes"));
    bytes[at + 128 + usize::try_from(len).expect("a small slot") / 2] ^= 1;
    std::fs::write(&shared, bytes).expect("writable");
    let log = shared.parent().and_then(|log| log.strip_prefix(store).ok()).expect("below the store");
    format!("{}/{number:020}", log.display())
}

// Fails when whatever keeps verify from looking has the code of a fault.
#[tokio::test(flavor = "multi_thread")]
async fn verify_that_could_not_look_says_so_by_its_exit_code() {
    let server = Server::start().await;
    let ended = on(&server, &["verify", "--temp-dir", "/nowhere/at/all"]).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("no temporary directory can be made"), "{}", ended.stderr);
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device on which nothing fits");
    let store = server.store_dir().to_string_lossy().into_owned();
    let verify = plinth(&["verify", "--store", &store], &[]).stdout(full).spawn().expect("it can be started");
    let verify = verify.wait_with_output().await.expect("a child can be awaited");
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert_eq!(verify.status.code(), Some(2), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_named_is_a_wrong_use_of_every_command() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let taken = dir.path().join("file");
    std::fs::write(&taken, "not a directory").expect("writable");
    let taken = taken.to_string_lossy().into_owned();
    for store in ["s4://bucket", "s3://user:secret@bucket", "file://host/dir", taken.as_str()] {
        for command in [&["inspect"][..], &["verify"], &["restore", "--to", "x"], &["serve", "--listen", "127.0.0.1:0"]]
        {
            let ended = run(&[command, &["--store", store]].concat(), &[], b"").await;
            assert_eq!(ended.code, 2, "{command:?} {store}: {}", ended.stderr);
            assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
        }
    }
    let server = Server::start().await;
    let ended = on(&server, &["restore", "--to", "s4://bucket"]).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
}

// Fails when what is put while verify reads is taken for a fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_written_to_is_whole_at_every_moment() {
    let server = Server::start().await;
    let (rounds, mut written) = watch::channel(0);
    let write = async {
        loop {
            let lines: String = (0..50).map(|n| format!("{} {n}\n", *rounds.borrow())).collect();
            let published = client(&server, &["publish", "live"], lines.as_bytes()).await;
            assert_eq!(published.code, 0, "{}", published.stderr);
            rounds.send_modify(|round| *round += 1);
        }
    };
    let look = async {
        for _ in 0..LOOKS {
            // Something new since the last one.
            written.changed().await.expect("it goes on");
            let ended = on(&server, &["verify"]).await;
            assert_eq!(ended.code, 0, "{}\n{}", ended.stderr, ended.lines().join("\n"));
        }
    };
    tokio::select! {
        () = write => {}
        () = look => {}
    }
}

// Fails when a copy lacks documents, settings or records, has other offsets, or another key of its cursors.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_copy_serves_the_same_records_to_the_same_keys_and_cursors() {
    let server = Server::start().await;
    let source = server.client();
    fill(&source).await;
    let page = source.page("events", "from=earliest&limit=1").await;
    let keyed = source.publishing("events", "text/plain", "once").header("Idempotency-Key", "k1");
    let first = answer(keyed).await;
    assert_eq!(first.status, 201);
    let to = server.dir().join("copy");
    let restored = on(&server, &["restore", "--to", &to.to_string_lossy()]).await;
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert_eq!(restored.json()["found"], 0);
    source.publish_texts("events", &["after the copy"]).await;

    let options = Options { store: Some(to.to_string_lossy().into_owned()), ..Options::default() };
    let copy = Server::start_with(options).await;
    let there = Client::new(copy.url(), Some(server.key()));
    for partition in 0..2 {
        let form = |records: Vec<Record>| serde_json::to_string(&records).expect("JSON");
        let (ours, theirs) =
            (source.read_all("orders/eu", partition).await, there.read_all("orders/eu", partition).await);
        assert_eq!(form(theirs), form(ours));
    }
    let rest = there.page("events", &format!("from={}", from_cursor(&page.next))).await;
    assert_eq!(texts(&rest.records), ["b", "c", "once"]);
    let again = answer(there.publishing("events", "text/plain", "once").header("Idempotency-Key", "k1")).await;
    assert_eq!((again.status, &again.json()["offset"]), (200, &first.json()["offset"]));
    assert_eq!(there.publish_texts("events", &["new"]).await.offset, 4);
    assert_eq!(answer(there.get("/v1/topics/gone")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_as_of_a_time_undoes_what_came_after_it() {
    let server = Server::start().await;
    let source = server.client();
    let kept = source.publish_texts("events", &["kept"]).await;
    // The clock of the server must have gone on twice: a slot is as old as the newest record in it, and what the server writes of
    // the topic that was made may be in the slot of the record that is kept.
    let mut time = kept.timestamp;
    while time <= kept.timestamp {
        time = source.publish_texts("clock", &["tick"]).await.timestamp;
    }
    while source.publish_texts("clock", &["tick"]).await.timestamp <= time {}
    source.publish_texts("events", &["unwanted"]).await;
    assert_eq!(answer(source.delete("/v1/topics/events")).await.status, 204);
    let (to, at) = (server.dir().join("copy"), time.to_string());
    let restored = on(&server, &["restore", "--at", &at, "--to", &to.to_string_lossy()]).await;
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert!(restored.json()["at_ms"].as_u64() <= Some(time), "{}", restored.json());
    let options = Options { store: Some(to.to_string_lossy().into_owned()), ..Options::default() };
    let copy = Server::start_with(options).await;
    let there = Client::new(copy.url(), Some(server.key()));
    assert_eq!(texts(&there.read_all("events", 0).await), ["kept"]);
    let verified = run(&["verify", "--store", &to.to_string_lossy()], &[], b"").await;
    assert_eq!(verified.code, 0, "{}", verified.lines().join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_refuses_what_it_cannot_do_and_says_why() {
    let server = Server::start().await;
    fill(&server.client()).await;
    let other = Server::start().await;
    let (source, taken) = (server.store_dir(), other.store_dir());
    let free = server.dir().join("copy");
    let cases: [(&[&str], &Path, i32, &str); 5] = [
        (&[], &taken, 1, "holds a cluster already"),
        (&[], &source, 1, "cannot be restored into itself"),
        (&["--at", "1000"], &free, 1, "nothing in the bucket is so old"),
        (&["--at", "yesterday"], &free, 2, "not a time such as"),
        (&["--store", "memory://"], &free, 2, "gone with the process"),
    ];
    for (args, to, code, why) in cases {
        let to = to.to_string_lossy().into_owned();
        let ended = on(&server, &[&["restore", "--to", &to], args].concat()).await;
        assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{args:?}: {}", ended.stderr);
    }
}
