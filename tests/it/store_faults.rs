//! The object store is full, away, slow, refuses or lies: what was acknowledged stays, what is refused says so, and the
//! server goes on by itself when the store does.

use std::path::{Path, PathBuf};
use std::process::Command;

use plinth_api::error::PublishOutcome;
use plinth_api::records::Receipt;
use plinth_storage::testing::s3::S3Server;
use tokio::task::JoinSet;

use crate::client::{Client, answer, payload, texts, try_answer};
use crate::harness::{Options, Server, refused};
use crate::proxy::{Mode, Proxy};

/// A file system of its own, so that it can be full or read-only; unmounted when dropped. Needs root, as CI has.
struct Mount {
    at: PathBuf,
}

impl Mount {
    fn new(at: PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).status().unwrap();
        assert!(done.success(), "this test mounts a tmpfs, which takes root");
        Self { at }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.at).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A panic in a drop would hide why the test failed.
        drop(Command::new("umount").arg("-l").arg(&self.at).status());
    }
}

/// An S3 server, a proxy in front of it, and a server of ours behind that.
async fn on_s3() -> (S3Server, Proxy, Server) {
    let s3 = S3Server::start().await.unwrap();
    let proxy = Proxy::start(s3.endpoint()).await;
    let server = Server::start_with(s3_options(&s3, Some(&proxy))).await;
    (s3, proxy, server)
}

fn s3_options(s3: &S3Server, proxy: Option<&Proxy>) -> Options {
    let mut env: Vec<(String, String)> = s3.env().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if let Some(proxy) = proxy {
        env.retain(|(name, _)| name != "AWS_ENDPOINT");
        env.push(("AWS_ENDPOINT".to_owned(), proxy.endpoint().to_owned()));
    }
    Options { store: Some(s3.url("cluster")), env, ..Options::default() }
}

async fn publish(client: Client, text: String) -> (String, Result<Receipt, (u16, PublishOutcome)>) {
    let answer = answer(client.publishing("t", "text/plain", text.clone())).await;
    if answer.status == 201 {
        return (text, Ok(answer.parse()));
    }
    let problem = answer.problem();
    assert!(answer.status == 504 || answer.header("retry-after").is_some(), "{}", answer.text());
    (text, Err((problem.status, problem.outcome.expect("a failed publish says what is known"))))
}

/// Fails when a slot that the disk refused is acknowledged, given up for the next one, or not tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_publishes_and_loses_nothing_and_room_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path().join("small"), "size=6m");
    let store = Some(format!("file://{}", mount.at.join("objects").display()));
    let mut server = Server::start_with(Options { store, ..Options::default() }).await;
    let client = server.client();
    let body = "x".repeat(700_000);
    let mut acknowledged = Vec::new();
    let mut unknown = Vec::new();
    let refusals = loop {
        match publish(client.clone(), format!("{}{body}", acknowledged.len() + unknown.len())).await {
            (text, Ok(receipt)) => acknowledged.push((receipt.offset, text)),
            (text, Err((504, PublishOutcome::Unknown))) => unknown.push(text),
            (text, Err((503, PublishOutcome::NotStored))) => break vec![text],
            other => panic!("not an answer of a full disk: {other:?}"),
        }
        assert!(acknowledged.len() < 10, "the disk has 6 MiB");
    };
    assert!(acknowledged.len() > 3, "there was room for some");
    for (offset, text) in &acknowledged {
        let page = client.page("t", &format!("from=offset:{offset}&limit=1")).await;
        assert!(payload(&page.records[0]) == text.as_bytes(), "what was acknowledged is read with the disk full");
    }
    mount.remount("size=60m");
    let healed = retry_until_stored(&client, "healed").await;
    server.kill9().await;
    server.restart(true).await;
    let records = texts(&server.client().read_all("t", 0).await);
    assert_eq!(records[usize::try_from(healed).unwrap()], "healed");
    for (offset, text) in &acknowledged {
        assert!(records[usize::try_from(*offset).unwrap()] == *text, "{offset} is as it was acknowledged");
    }
    assert!(refusals.iter().all(|text| !records.contains(text)), "what was refused as not stored is not stored");
}

/// Publishes until it is stored: refusals carry `Retry-After`, and the server must get well by itself.
async fn retry_until_stored(client: &Client, text: &str) -> u64 {
    for _ in 0..100 {
        match publish(client.clone(), text.to_owned()).await.1 {
            Ok(receipt) => return receipt.offset,
            // A long-poll that gets nothing passes the time that `Retry-After` names, also with the store away.
            Err((503, PublishOutcome::NotStored)) => {
                drop(try_answer(client.get("/v1/topics/t/records?from=latest&wait=1s")).await)
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the server does not get well: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_is_refused_at_start_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    check_refused(dir.path(), &file.join("objects"), "file").await;
    let mount = Mount::new(dir.path().join("read-only"), "size=1m,ro");
    check_refused(dir.path(), &mount.at, "read-only").await;
}

async fn check_refused(dir: &Path, store: &Path, named: &str) {
    let store = Some(format!("file://{}", store.display()));
    let refusal = refused(dir, &Options { store, ..Options::default() }).await;
    assert!(refusal.code.is_some_and(|code| code != 0), "{}", refusal.stderr);
    assert!(refusal.stderr.contains(named), "it names the directory: {}", refusal.stderr);
    assert!(!refusal.stderr.contains("panicked"), "{}", refusal.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_directory_that_cannot_be_written_is_named_and_the_server_serves_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let mut server = Server::start_with(Options { cache: Some(file.join("cache")), ..Options::default() }).await;
    assert_eq!(server.client().publish("t", "text/plain", "x").await.offset, 0);
    assert!(server.stderr().contains("file/cache"), "{}", server.stderr());
    server.kill9().await;
    server.restart(false).await;
    assert_eq!(texts(&server.client().read_all("t", 0).await), ["x"]);
}

/// Fails when publishes queue up, hang or are acknowledged while the store is away.
#[tokio::test(flavor = "multi_thread")]
async fn with_s3_away_publishes_say_what_is_known_and_it_recovers_by_itself() {
    let (_s3, proxy, server) = on_s3().await;
    let client = server.client();
    let (_, first) = publish(client.clone(), "before".into()).await;
    assert_eq!(first.unwrap().offset, 0);
    proxy.set(Mode::Cut);
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        tasks.spawn(publish(client.clone(), format!("away {number}")));
    }
    let answers = tasks.join_all().await;
    let mut not_stored = Vec::new();
    let mut unknown = Vec::new();
    for (text, outcome) in answers {
        match outcome {
            Err((503, PublishOutcome::NotStored)) => not_stored.push(text),
            Err((504, PublishOutcome::Unknown)) => unknown.push(text),
            other => panic!("{text} with the store away: {other:?}"),
        }
    }
    let (_, refused) = publish(client.clone(), "at once".into()).await;
    assert_eq!(refused.unwrap_err(), (503, PublishOutcome::NotStored), "known to be away, it is refused at once");
    let page = client.page("t", "").await;
    assert_eq!(texts(&page.records), ["before"], "what is in memory can be read");
    assert_eq!(answer(client.get("/livez")).await.status, 200);
    proxy.set(Mode::Pass);
    retry_until_stored(&client, "after").await;
    let records = texts(&client.read_all("t", 0).await);
    assert_eq!((records.first().unwrap().as_str(), records.last().unwrap().as_str()), ("before", "after"));
    assert!(not_stored.iter().all(|text| !records.contains(text)), "{not_stored:?} in {records:?}");
    let strangers = records[1..records.len() - 1].iter().find(|text| !unknown.contains(text));
    assert_eq!(strangers, None, "only what was unknown may be there");
}

/// Fails when a PUT whose answer was lost is taken for a conflict, stored twice, or acknowledged with another offset.
#[tokio::test(flavor = "multi_thread")]
async fn an_s3_put_whose_answer_is_lost_is_settled_without_a_duplicate() {
    let (_s3, proxy, server) = on_s3().await;
    let client = server.client();
    assert_eq!(publish(client.clone(), "0".into()).await.1.unwrap().offset, 0);
    proxy.set(Mode::Swallow);
    let waiting = tokio::spawn(publish(client.clone(), "1".into()));
    // The first try is in the store, and the server does not know it: it gives up waiting and tries again.
    wait_for_failed_put(&client).await;
    proxy.set(Mode::Pass);
    match waiting.await.unwrap().1 {
        Ok(receipt) => assert_eq!(receipt.offset, 1),
        // On a busy machine the second try is on its way before the proxy lets answers pass again, and is lost as well.
        Err(outcome) => assert_eq!(outcome, (504, PublishOutcome::Unknown)),
    }
    assert_eq!(publish(client.clone(), "2".into()).await.1.unwrap().offset, 2);
    assert_eq!(texts(&client.read_all("t", 0).await), ["0", "1", "2"]);
}

/// Fails when a repeated publish is told `not_stored` while the first one is under way, or is stored a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_publish_settles_an_unknown_outcome_when_the_store_is_back() {
    let (_s3, proxy, server) = on_s3().await;
    let client = server.client();
    assert_eq!(publish(client.clone(), "before".into()).await.1.unwrap().offset, 0);
    let keyed = || client.publishing("t", "text/plain", "once").header("Idempotency-Key", "k");
    proxy.set(Mode::Cut);
    for _ in 0..2 {
        let problem = answer(keyed()).await.problem();
        assert_eq!((problem.status, problem.outcome), (504, Some(PublishOutcome::Unknown)), "{problem:?}");
    }
    let (_, refused) = publish(client.clone(), "another".into()).await;
    assert_eq!(refused.unwrap_err(), (503, PublishOutcome::NotStored));
    proxy.set(Mode::Pass);
    let settled = answer(keyed()).await;
    assert_eq!(settled.status, 200, "{}", settled.text());
    let receipt: Receipt = settled.parse();
    assert_eq!((receipt.offset, receipt.duplicate), (1, true));
    assert_eq!(texts(&client.read_all("t", 0).await), ["before", "once"]);
}

/// Waits until the server counted a failed try of a write.
async fn wait_for_failed_put(client: &Client) {
    for _ in 0..100 {
        let metrics = answer(client.get("/metrics")).await.text();
        let failed = metrics.lines().find_map(|line| line.strip_prefix("plinth_object_store_failed_puts_total "));
        if failed.expect("the metric is there") != "0" {
            return;
        }
        // A long-poll at the tail that gets nothing passes a second.
        client.page("t", "from=latest&wait=1s").await;
    }
    panic!("the server did not give up a try");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_that_ignores_create_if_absent_is_refused_at_start() {
    let s3 = S3Server::start().await.unwrap();
    let proxy = Proxy::start(s3.endpoint()).await;
    proxy.set(Mode::Lie);
    let dir = tempfile::tempdir().unwrap();
    let refusal = refused(dir.path(), &s3_options(&s3, Some(&proxy))).await;
    assert!(refusal.code.is_some_and(|code| code != 0), "{}", refusal.stderr);
    assert!(refusal.stderr.contains("create-if-absent"), "{}", refusal.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_s3_refuses_are_refused_at_start_without_being_shown() {
    let s3 = S3Server::start().await.unwrap();
    let mut options = s3_options(&s3, None);
    options.env.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    options.env.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong-CANARY7f3a".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    let refusal = refused(dir.path(), &options).await;
    assert!(refusal.code.is_some_and(|code| code != 0), "{}", refusal.stderr);
    assert!(refusal.stderr.contains("s3://"), "it names the store: {}", refusal.stderr);
    assert!(!refusal.stderr.contains("CANARY7f3a"), "{}", refusal.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_everything_survives_a_kill_and_a_wiped_cache() {
    let s3 = S3Server::start().await.unwrap();
    let mut server = Server::start_with(s3_options(&s3, None)).await;
    let client = server.client();
    let mut expected = Vec::new();
    client.make_topic("t", 1).await;
    let mut follower = client.sse("/v1/topics/t/records?from=earliest", None).await;
    for number in 0..20 {
        let text = format!("{number}-{}", "x".repeat(number * 1000));
        assert_eq!(client.publish("t", "text/plain", text.clone()).await.offset, number as u64);
        expected.push(text);
    }
    assert_eq!(texts(&follower.records(20).await), expected);
    for wipe in [true, false] {
        server.kill9().await;
        server.restart(wipe).await;
        assert_eq!(texts(&server.client().read_all("t", 0).await), expected);
    }
    let next = server.client().publish("t", "text/plain", "next").await;
    assert_eq!(next.offset, 20);
}
