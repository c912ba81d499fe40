//! Durability classes as clients meet them: who may ask for what, what a receipt says, and how a loss is told.

use plinth_api::records::{Durability, Gap, Receipt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cli;
use crate::client::{Client, answer, from_cursor, offsets, texts, try_answer};
use crate::disks::Disk;
use crate::harness::{Options, Server};

const RECORDS: &str = "/v1/topics/t/records";
const POWER_CUTS: u64 = 4;
const BATCHES: &str = plinth_api::batch::MEDIA_TYPE;

async fn make(client: &Client, durability: &str) {
    let made = answer(client.put("/v1/topics/t").json(&json!({"durability": durability}))).await;
    assert_eq!((made.status, &made.json()["durability"]), (201, &Value::from(durability)), "{}", made.text());
}

async fn publish(client: &Client, text: &str) -> Receipt {
    client.publish("t", "text/plain", text.to_owned()).await
}

/// Publishes without an end; the task ends with the server.
fn busy(client: &Client) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let client = client.clone();
    tasks.spawn(async move {
        while try_answer(client.publishing("t", "text/plain", "busy")).await.is_ok_and(|answer| answer.status == 201) {}
    });
    tasks
}

/// A topic of class `memory` whose server was killed while it published: the cursor after the first record, and the gap.
async fn killed() -> (Server, String, Gap) {
    let mut server = Server::start().await;
    let client = server.client();
    make(&client, "memory").await;
    let first = publish(&client, "first").await;
    assert_eq!((first.offset, first.durability), (0, Durability::Object), "nothing is reserved before the first");
    let second = publish(&client, "second").await;
    assert_eq!((second.offset, second.durability), (1, Durability::Memory));
    let tasks = busy(&client);
    server.kill9().await;
    drop(tasks);
    server.restart(false).await;
    let page = server.client().page("t", "from=earliest&limit=10000").await;
    assert_eq!(page.gaps.len(), 1, "{page:?}");
    (server, first.cursor, page.gaps[0].clone())
}

// Fails when one of the transports passes a gap over, or tells it as another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_told_as_a_gap_on_every_transport() {
    let (server, cursor, gap) = killed().await;
    let client = server.client();
    assert_eq!((gap.topic.as_str(), gap.partition, gap.reason.as_str()), ("t", 0, "lost"));
    assert!(gap.requested >= 1 && gap.resumed_at > gap.requested);
    let view = client.topic("t").await;
    assert_eq!((view.partition_bounds[0].tail, view.records), (gap.resumed_at, gap.requested), "a gap is no record");
    let store = server.store_dir().to_string_lossy().into_owned();
    let looked = cli::run(&["inspect", "t", "--json", "--store", &store], &[], b"").await;
    assert!(
        looked.lines().iter().any(|line| line.contains(&format!("\"records\":{},", view.records))),
        "{:?}",
        looked.lines()
    );
    let next = publish(&client, "next").await;
    assert_eq!(next.offset, gap.resumed_at, "no offset is given twice");

    let page = client.page("t", "from=earliest&limit=10000").await;
    let expected: Vec<u64> = (0..gap.requested).chain([gap.resumed_at]).collect();
    assert_eq!((offsets(&page.records), &page.gaps[..], page.caught_up), (expected, std::slice::from_ref(&gap), true));
    let inside = client.page("t", &format!("from=offset:{}&wait=30s", gap.requested + 1)).await;
    assert_eq!((offsets(&inside.records), inside.gaps[0].requested), (vec![gap.resumed_at], gap.requested + 1));
    let last = client.page("t", "from=-2").await;
    assert_eq!(offsets(&last.records), [gap.requested - 1, gap.resumed_at], "the last two records");

    let told = |data: &str| -> Gap { serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")) };
    let mut sse = client.sse(RECORDS, Some(&cursor)).await;
    let event = sse.event("gap").await;
    assert_eq!(told(&event.data), gap);
    assert_eq!(texts(&sse.records(1).await), ["next"]);
    let mut again = client.sse(RECORDS, Some(&event.id)).await;
    assert_eq!(texts(&again.records(1).await), ["next"], "it is told once to who has seen it");
    let mut lines = client.ndjson(&format!("{RECORDS}?from={}", from_cursor(&cursor))).await;
    let mut control = lines.control().await;
    assert_eq!(control.as_object_mut().unwrap().remove("control"), Some("gap".into()));
    assert_eq!(told(&control.to_string()), gap);
    let mut ws = client.ws().await;
    ws.subscribe("t", &format!("cursor:{cursor}")).await;
    assert_eq!(told(&ws.frame("gap").await.text), gap);
    assert_eq!(texts(&ws.records(1).await), ["next"]);

    let batches = answer(client.get(&format!("{RECORDS}?from=earliest&limit=10000")).header("Accept", BATCHES)).await;
    let said = format!("partition=0; requested={}; resumed_at={}; reason=lost", gap.requested, gap.resumed_at);
    assert_eq!((batches.status, batches.header("plinth-gap")), (200, Some(said.as_str())));
    let whole = plinth_api::batch::decode_frames(&batches.body).expect("whole frames");
    assert_eq!(whole.last().expect("one").head.offset, gap.resumed_at);

    for transport in cli::TRANSPORTS {
        let args = ["subscribe", "t", "--from", "earliest", "--until-caught-up", "--transport", transport];
        let ended = cli::client(&server, &args, b"").await;
        let said = format!("goes on at offset {} instead of {} (lost)", gap.resumed_at, gap.requested);
        assert!(ended.stderr.contains(&said), "{transport}: {}", ended.stderr);
        assert_eq!(ended.lines().len() as u64, gap.requested + 1, "{transport}");
    }
    let metrics = answer(client.get("/metrics")).await.text();
    assert!(metrics.contains("plinth_gaps_total 1\n"), "{metrics}");
    assert!(metrics.contains(&format!("plinth_gap_offsets_total {}\n", gap.resumed_at - gap.requested)), "{metrics}");
    assert!(
        metrics.contains("plinth_upload_lag_seconds ") && metrics.contains("plinth_upload_lag_bytes "),
        "{metrics}"
    );
}

// Fails when the journal is not looked at after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_class_local_survives_a_kill_on_the_same_disk() {
    acknowledged_records_survive(Disk::Plain, 3).await;
}

// Fails when an acknowledgement of class `local` comes before the sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_class_local_survives_a_power_cut_on_the_same_disk() {
    if let Some(disk) = Disk::power_cuts(POWER_CUTS).await {
        acknowledged_records_survive(disk, POWER_CUTS).await;
    }
}

/// Kills a server with a topic of class `local` while eight publish to it; each life must have all of those before.
async fn acknowledged_records_survive(mut disk: Disk, lives: u64) {
    let mut server = Server::start_with(disk.options()).await;
    make(&server.client(), "local").await;
    publish(&server.client(), "first").await;
    let mut stored = vec![(0, "first".to_owned())];
    let mut early = 0;
    for life in 0..lives {
        let mut tasks = JoinSet::new();
        let (told, mut acknowledged) = tokio::sync::mpsc::channel(1024);
        for publisher in 0..8 {
            let (client, told) = (server.client(), told.clone());
            tasks.spawn(async move {
                for number in 0.. {
                    let text = format!("{life}.{publisher}.{number}");
                    let answer = try_answer(client.publishing("t", "text/plain", text.clone())).await;
                    let Some(answer) = answer.ok().filter(|answer| answer.status == 201) else { return };
                    if told.send((answer.parse::<Receipt>(), text)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        let mut note = |(receipt, text): (Receipt, String)| {
            early += u64::from(receipt.durability == Durability::Local);
            stored.push((receipt.offset, text));
        };
        for _ in 0..200 {
            note(acknowledged.recv().await.expect("the server acknowledges"));
        }
        disk.kill(&mut server).await;
        while let Some(more) = acknowledged.recv().await {
            note(more);
        }
        tasks.join_all().await;
        server.restart(false).await;
        let view = server.client().topic("t").await;
        let records = server.client().read_all("t", 0).await;
        assert_eq!(view.records, records.len() as u64);
        assert_eq!(view.partition_bounds[0].tail, view.records, "nothing is lost, so there is no gap");
        for (offset, text) in &stored {
            assert_eq!(&texts(&records[usize::try_from(*offset).unwrap()..][..1])[0], text, "at {offset}");
        }
    }
    assert!(early > 0, "some were acknowledged before they were stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_ask_for_a_stronger_class_than_the_topic_and_not_for_a_weaker_one() {
    let server = Server::start().await;
    let client = server.client();
    let asking = |class: &'static str| client.publishing("t", "text/plain", "x").header("Durability", class);
    make(&client, "local").await;
    publish(&client, "first").await;
    let receipt: Receipt = answer(asking("object")).await.parse();
    assert_eq!(receipt.durability, Durability::Object);
    assert_eq!(answer(asking("local")).await.status, 201);
    let refused = answer(asking("memory")).await;
    let problem = refused.problem();
    assert_eq!((problem.status, problem.code.as_str()), (422, "unprocessable"));
    assert_eq!(problem.detail, "durability memory is weaker than that of topic t, which is local");
    assert_eq!(problem.outcome, Some(plinth_api::error::PublishOutcome::NotStored));
    let unread = answer(asking("paper")).await.problem();
    assert_eq!((unread.status, unread.code.as_str()), (400, "invalid_request"), "as in a frame: {}", unread.detail);
    assert!(unread.detail.contains("paper") && unread.detail.contains("`durability`"), "{}", unread.detail);

    let mut ws = client.ws().await;
    let frame = |class: &str| json!({"type": "publish", "id": "p", "topic": "t", "records": [{"text": "w"}], "durability": class});
    ws.send(&frame("object")).await;
    assert!(ws.frame("published").await.text.contains(r#""durability":"object""#));
    ws.send(&frame("memory")).await;
    let text = ws.frame("error").await.text;
    assert!(text.contains(r#""status":422"#) && text.contains("weaker than that of topic t"), "{text}");
    ws.send(&frame("paper")).await;
    let text = ws.frame("error").await.text;
    assert!(text.contains(r#""status":400"#) && text.contains("paper"), "{text}");

    let patched = answer(client.patch("/v1/topics/t").json(&json!({"durability": "memory"}))).await;
    assert_eq!((patched.status, &patched.json()["durability"]), (200, &Value::from("memory")));
    assert_eq!(answer(asking("memory")).await.status, 201, "from now on");
    let other = answer(client.put("/v1/topics/t").json(&json!({"durability": "object"}))).await.problem();
    assert_eq!((other.status, other.detail.as_str()), (409, "topic t has durability memory"));
    assert_eq!(client.topic("t").await.durability, Durability::Memory);
}

// Fails when a class is promised that the node cannot keep.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_directory_a_topic_cannot_have_the_class_local() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let cache = Some(dir.path().join("file").join("cache"));
    let server = Server::start_with(Options { cache, ..Options::default() }).await;
    let client = server.client();
    let refused = answer(client.put("/v1/topics/t").json(&json!({"durability": "local"}))).await.problem();
    assert_eq!((refused.status, refused.code.as_str()), (422, "unprocessable"));
    assert!(refused.detail.contains("durability local is not offered now"), "{}", refused.detail);
    make(&client, "memory").await;
    publish(&client, "first").await;
    let asked = answer(client.publishing("t", "text/plain", "x").header("Durability", "local")).await;
    assert_eq!((asked.status, asked.parse::<Receipt>().durability), (201, Durability::Object), "stronger, not weaker");
}

// Fails when what a topic already has is refused because a new one could not have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_the_class_local_may_be_ensured_and_changed_where_a_new_one_may_not_be_made() {
    let mut server = Server::start().await;
    make(&server.client(), "local").await;
    assert!(server.terminate().await.success());
    std::fs::remove_dir_all(server.cache_dir()).unwrap();
    std::fs::write(server.cache_dir(), "not a directory").unwrap();
    server.restart(false).await;
    let client = server.client();
    let with = |request: reqwest::RequestBuilder| answer(request.json(&json!({"durability": "local"})));
    assert_eq!(with(client.put("/v1/topics/t")).await.status, 200);
    assert_eq!(with(client.patch("/v1/topics/t")).await.status, 200);
    client.make_topic("other", 1).await;
    for refused in [client.put("/v1/topics/new"), client.patch("/v1/topics/other")] {
        let problem = with(refused).await.problem();
        assert_eq!(problem.status, 422, "{}", problem.detail);
        assert!(problem.detail.contains("durability local is not offered now"), "{}", problem.detail);
    }
    assert_eq!(client.topic("other").await.durability, Durability::Object);
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_are_chosen_from_the_command_line() {
    let server = Server::start().await;
    let made = cli::client(&server, &["topics", "create", "t", "--durability", "memory"], b"").await;
    assert_eq!((made.code, &made.json()["durability"]), (0, &Value::from("memory")), "{}", made.stderr);
    for args in [&["publish", "t", "--body", "--durability", "object"][..], &["publish", "t", "--durability", "local"]]
    {
        let published = cli::client(&server, args, b"x\n").await;
        assert_eq!(published.code, 0, "{}", published.stderr);
    }
    let changed = cli::client(&server, &["topics", "update", "t", "--durability", "object"], b"").await;
    assert_eq!(&changed.json()["durability"], "object", "{}", changed.stderr);
    let weaker = cli::client(&server, &["publish", "t", "--durability", "memory"], b"y\n").await;
    assert!(weaker.code != 0 && weaker.stderr.contains("weaker than that of topic t"), "{}", weaker.stderr);
    assert_eq!(server.client().read_all("t", 0).await.len(), 2);
}
