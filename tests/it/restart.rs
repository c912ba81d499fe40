//! What survives the end of a process: everything that was acknowledged, from the store alone.

use plinth_api::records::Record;
use serde_json::json;

use crate::client::{BATCH, Client, NDJSON, answer, from_cursor, offsets, payload, texts};
use crate::harness::{Options, Server, refused};

const RECORDS: &str = "/v1/topics/t/records";

fn form(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| serde_json::to_string(record).unwrap()).collect()
}

/// Topics of one and of several partitions, batches, keys, an emptied and a changed topic.
async fn fill(client: &Client) {
    client.make_topic("t", 1).await;
    client.make_topic("wide", 3).await;
    for round in 0..10 {
        client.publish("t", "text/plain", format!("single {round}")).await;
        client.publish("t", NDJSON, format!("{{\"n\":{round}}}\n[{round}]")).await;
        let records: Vec<_> = (0..9).map(|n| json!({"key": format!("k{n}"), "text": format!("{round}.{n}")})).collect();
        answer(client.publishing("wide", BATCH, json!({"records": records}).to_string())).await;
    }
    client.publish("big", "application/octet-stream", vec![7; 1_000_000]).await;
    client.publish("gone", "text/plain", "x").await;
    assert_eq!(answer(client.delete("/v1/topics/gone")).await.status, 204);
    assert_eq!(answer(client.patch("/v1/topics/big").json(&json!({"max_record_bytes": 5}))).await.status, 200);
}

async fn everything(client: &Client) -> Vec<String> {
    let mut all = form(&client.read_all("t", 0).await);
    for partition in 0..3 {
        all.extend(form(&client.read_all("wide", partition).await));
    }
    all.extend(form(&client.read_all("big", 0).await));
    all.push(answer(client.get("/v1/topics?limit=100")).await.text());
    all
}

/// Fails when replay starts at the wrong slot, gives other offsets, or state lives only in the cache directory.
#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_and_a_wiped_cache_all_is_as_it_was() {
    let mut server = Server::start().await;
    fill(&server.client()).await;
    let before = everything(&server.client()).await;
    for wipe in [true, false, true] {
        server.kill9().await;
        server.restart(wipe).await;
        let client = server.client();
        assert_eq!(everything(&client).await, before, "cache wiped: {wipe}");
        assert_eq!(answer(client.get("/v1/topics/gone")).await.status, 404);
        assert_eq!(answer(client.publishing("big", "text/plain", "123456")).await.status, 413, "settings survive");
    }
    let client = server.client();
    let tail = client.count("t").await;
    assert_eq!(client.publish("t", "text/plain", "next").await.offset, tail, "offsets go on where they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_before_the_restart_goes_on_after_it_on_every_transport() {
    let mut server = Server::start().await;
    let client = server.client();
    client.publish_texts("t", &["0", "1", "2", "3"]).await;
    let cursor = client.page("t", "limit=2").await.next;
    server.kill9().await;
    server.restart(true).await;
    let client = server.client();
    let from = from_cursor(&cursor);
    assert_eq!(texts(&client.page("t", &format!("from={from}")).await.records), ["2", "3"]);
    assert_eq!(texts(&client.sse(RECORDS, Some(&cursor)).await.records(2).await), ["2", "3"]);
    assert_eq!(texts(&client.ndjson(&format!("{RECORDS}?from={from}")).await.records(2).await), ["2", "3"]);
    let mut ws = client.ws().await;
    ws.subscribe("t", &format!("cursor:{cursor}")).await;
    assert_eq!(texts(&ws.records(2).await), ["2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_keys_and_revocations_survive() {
    let mut server = Server::start().await;
    let other = server.tenant("other").await;
    other.publish("t", "text/plain", "other's").await;
    let made =
        answer(server.client().post("/v1/keys").json(&json!({"name": "k", "scopes": ["subscribe:**"]}))).await.json();
    let revoked = Client::new(server.url(), made["key"].as_str());
    assert_eq!(answer(server.client().delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await.status, 204);
    server.kill9().await;
    server.restart(true).await;
    assert_eq!(texts(&other.at(server.url()).read_all("t", 0).await), ["other's"]);
    assert_eq!(answer(revoked.at(server.url()).get("/v1/topics")).await.status, 401);
    assert_eq!(answer(server.client().get("/v1/topics/t")).await.status, 404, "the tenants are still apart");
}

/// Fails when a checkpoint is not written, does not hold what was trimmed, or the replay does not begin at it.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_shortens_the_replay_and_nothing_before_it_is_lost() {
    let mut server = Server::start().await;
    let client = server.client();
    for number in 0..30 {
        client.publish("t", "text/plain", format!("before {number}")).await;
    }
    // 64 MiB of log make a checkpoint due.
    let records: Vec<_> = (0..7).map(|_| json!({"text": "x".repeat(1024 * 1024)})).collect();
    let body = json!({"records": records}).to_string();
    for _ in 0..10 {
        client.publish("big", BATCH, body.clone()).await;
    }
    while metric(&client, "plinth_checkpoints_total").await == 0 {
        // A long-poll at the tail that gets nothing passes a second; the test's own time-out bounds this.
        client.page("t", "from=latest&wait=1s").await;
    }
    client.publish("t", "text/plain", "after").await;
    let slots = metric(&client, "plinth_wal_slots_total").await;
    server.kill9().await;
    server.restart(true).await;
    let client = server.client();
    let replayed = metric(&client, "plinth_replayed_slots").await;
    assert!(replayed >= 1 && replayed + 30 < slots, "{replayed} of {slots} slots were replayed");
    let texts = texts(&client.read_all("t", 0).await);
    assert_eq!((texts.len(), texts[0].as_str(), texts[30].as_str()), (31, "before 0", "after"));
    assert_eq!(client.count("big").await, 70);
    assert_eq!(client.read_all("big", 0).await.len(), 70);
}

async fn metric(client: &Client, name: &str) -> u64 {
    let text = answer(client.get("/metrics")).await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::parse);
    value.unwrap_or_else(|| panic!("{name} is not in {text}")).unwrap()
}

/// Fails when anything but a complete check of the cache decides whether it is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_directory_that_is_garbage_is_built_again() {
    let mut server = Server::start().await;
    fill(&server.client()).await;
    let before = everything(&server.client()).await;
    server.kill9().await;
    let files = overwrite(&server.cache_dir());
    assert!(files > 0, "the cache directory has files");
    server.restart(false).await;
    assert_eq!(everything(&server.client()).await, before);
    server.client().publish("t", "text/plain", "goes on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_directory_of_another_cluster_is_not_believed() {
    let mut first = Server::start().await;
    let mut second = Server::start().await;
    fill(&first.client()).await;
    second.client().publish("t", "text/plain", "second's own").await;
    let before = everything(&first.client()).await;
    first.kill9().await;
    second.kill9().await;
    std::fs::remove_dir_all(first.cache_dir()).unwrap();
    std::fs::rename(second.cache_dir(), first.cache_dir()).unwrap();
    first.restart(false).await;
    assert_eq!(everything(&first.client()).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_cache_directory_does_no_harm() {
    let mut server = Server::start().await;
    server.client().publish("t", "text/plain", "0").await;
    server.kill9().await;
    let copy = server.dir().join("copy");
    copy_dir(&server.cache_dir(), &copy);
    server.restart(false).await;
    server.client().publish("t", "text/plain", "1").await;
    server.kill9().await;
    std::fs::remove_dir_all(server.cache_dir()).unwrap();
    std::fs::rename(copy, server.cache_dir()).unwrap();
    server.restart(false).await;
    assert_eq!(texts(&server.client().read_all("t", 0).await), ["0", "1"]);
    assert_eq!(server.client().publish("t", "text/plain", "2").await.offset, 2);
}

/// Fails when a start does not fence its predecessor, or a fenced session goes on acknowledging.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_on_one_directory_the_older_stops_itself_and_nothing_is_lost() {
    let mut older = Server::start().await;
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        acknowledged.push((
            older.client().publish("t", "text/plain", format!("old {number}")).await.offset,
            format!("old {number}"),
        ));
    }
    let younger = older.second().await;
    let old_client = older.client();
    let new_client = younger.client(older.key());
    for number in 0..20 {
        let text = format!("late {number}");
        let late = crate::client::try_answer(old_client.publishing("t", "text/plain", text.clone())).await;
        if let Ok(answer) = late
            && answer.status == 201
        {
            acknowledged.push((answer.json()["offset"].as_u64().unwrap(), text));
        }
        let text = format!("new {number}");
        acknowledged.push((new_client.publish("t", "text/plain", text.clone()).await.offset, text));
    }
    let (status, stderr) = older.exited().await;
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("was ended by session"), "it says why: {stderr}");
    let records = new_client.read_all("t", 0).await;
    assert_eq!(offsets(&records), (0..records.len() as u64).collect::<Vec<_>>());
    for (offset, text) in acknowledged {
        assert_eq!(payload(&records[usize::try_from(offset).unwrap()]), text.as_bytes());
    }
    younger.kill9().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_says_goodbye_to_live_streams_and_exits_0() {
    let mut server = Server::start().await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    let mut sse = client.sse(&format!("{RECORDS}?from=earliest"), None).await;
    let mut lines = client.ndjson(&format!("{RECORDS}?from=earliest")).await;
    let mut ws = client.ws().await;
    ws.subscribe("t", "earliest").await;
    sse.records(1).await;
    lines.records(1).await;
    ws.records(1).await;
    let watch = tokio::spawn(async move {
        let goaway = sse.event("goaway").await;
        while lines.control().await["control"] != "goaway" {}
        ws.frame("goaway").await;
        goaway.id
    });
    assert_eq!(server.terminate().await.code(), Some(0));
    let cursor = watch.await.unwrap();
    server.restart(true).await;
    server.client().publish("t", "text/plain", "y").await;
    assert_eq!(texts(&server.client().sse(RECORDS, Some(&cursor)).await.records(1).await), ["y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_under_way_at_sigterm_is_answered_and_its_answer_is_true() {
    let mut server = Server::start().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let client = client.clone();
        tasks.spawn(async move {
            let text = format!("r{number}");
            let sent = crate::client::try_answer(client.publishing("t", "text/plain", text.clone())).await;
            sent.ok()
                .filter(|answer| answer.status == 201)
                .map(|answer| (answer.json()["offset"].as_u64().unwrap(), text))
        });
    }
    assert_eq!(server.terminate().await.code(), Some(0));
    let acknowledged: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    server.restart(true).await;
    let records = server.client().read_all("t", 0).await;
    for (offset, text) in acknowledged {
        assert_eq!(payload(&records[usize::try_from(offset).unwrap()]), text.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_store_serves_and_forgets() {
    let mut server = Server::start_with(Options { store: Some("memory://".to_owned()), ..Options::default() }).await;
    server.client().publish("t", "text/plain", "x").await;
    assert_eq!(texts(&server.client().read_all("t", 0).await), ["x"]);
    assert_eq!(server.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_known_and_a_setting_that_is_not_known_are_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let unknown =
        refused(dir.path(), &Options { store: Some("ftp://somewhere".to_owned()), ..Options::default() }).await;
    assert!(unknown.code.is_some_and(|code| code != 0) && unknown.stderr.contains("ftp"), "{}", unknown.stderr);
    let env = vec![("PLINTH_NO_SUCH_THING".to_owned(), "1".to_owned())];
    let unknown = refused(dir.path(), &Options { env, ..Options::default() }).await;
    assert!(unknown.code.is_some_and(|code| code != 0), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("PLINTH_NO_SUCH_THING"), "{}", unknown.stderr);
}

fn overwrite(dir: &std::path::Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += overwrite(&path);
        } else {
            std::fs::write(&path, b"this was a file of the cache").unwrap();
            files += 1;
        }
    }
    files
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
