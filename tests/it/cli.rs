//! The command line as people use it: the real binary, its standard streams and its exit codes.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::client::{payload, texts, within};
use crate::harness::{Options, ROOT_KEY, Server, refused};

pub(crate) const TRANSPORTS: [&str; 4] = ["sse", "ndjson", "ws", "poll"];

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.stdout).lines().map(str::to_owned).collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?} {}", self.lines(), self.stderr))
    }
}

/// The binary with no settings but those given.
pub(crate) fn plinth(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PLINTH_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) async fn run(args: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Ended {
    let mut child = plinth(args, env).spawn().expect("the binary can be started");
    let mut input = child.stdin.take().expect("it is piped");
    let write = async {
        // A command that fails early does not read its input.
        let _ = input.write_all(stdin).await;
        drop(input);
    };
    let ended = async { tokio::join!(write, child.wait_with_output()).1 };
    let output = within("the end of a command", ended).await.expect("a child can be awaited");
    Ended {
        code: output.status.code().expect("it was not killed"),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command for the tenant `default` of `server`.
pub(crate) async fn client(server: &Server, args: &[&str], stdin: &[u8]) -> Ended {
    run(args, &[("PLINTH_URL", server.url()), ("PLINTH_KEY", server.key())], stdin).await
}

#[tokio::test]
async fn the_help_lists_every_environment_variable() {
    let help = run(&["--help"], &[], b"").await;
    assert_eq!(help.code, 0);
    let text = help.lines().join("\n");
    for name in ["LISTEN", "STORE", "CACHE_DIR", "ROOT_KEY", "CONFIG", "URL", "KEY", "TENANT", "LOG", "DRAIN_TIME"] {
        assert!(text.contains(&format!("PLINTH_{name} ")), "PLINTH_{name} is not in: {text}");
    }
    assert!(text.contains("Exit codes: 0"), "{text}");
    let serve = run(&["serve", "--help"], &[("PLINTH_ROOT_KEY", ROOT_KEY)], b"").await;
    assert!(!serve.lines().join("\n").contains(ROOT_KEY), "the help shows a secret of the environment");
}

#[tokio::test]
async fn unknown_settings_are_refused_and_named() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let env =
        |name: &str, value: &str| Options { env: vec![(name.to_owned(), value.to_owned())], ..Options::default() };
    let variable = refused(dir.path(), &env("PLINTH_CACHEDIR", "/tmp/x")).await;
    assert_eq!(variable.code, Some(2));
    assert!(variable.stderr.contains("PLINTH_CACHEDIR"), "{}", variable.stderr);

    let file = dir.path().join("plinth.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nflush_intervall = \"1s\"\n").expect("a file can be written");
    let config = refused(dir.path(), &env("PLINTH_CONFIG", &file.to_string_lossy())).await;
    assert_eq!(config.code, Some(2));
    assert!(config.stderr.contains("flush_intervall") && config.stderr.contains("line 2"), "{}", config.stderr);

    let flag = run(&["serve", "--no-such-flag"], &[], b"").await;
    assert_eq!(flag.code, 2);
    assert!(flag.stderr.contains("--no-such-flag"), "{}", flag.stderr);
}

#[tokio::test]
async fn a_weak_root_key_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let env = vec![("PLINTH_ROOT_KEY".to_owned(), "hunter2-CANARY".to_owned())];
    let start = refused(dir.path(), &Options { env, ..Options::default() }).await;
    assert_eq!(start.code, Some(2));
    assert!(start.stderr.contains("limit of 32") && !start.stderr.contains("CANARY"), "{}", start.stderr);
}

#[tokio::test]
async fn lines_that_are_published_come_back_on_every_transport() {
    let server = Server::start().await;
    let text: String = (0..2500).map(|i| format!("line {i} ä\n")).collect();
    let published = client(&server, &["publish", "orders"], text.as_bytes()).await;
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert_eq!((&published.json()["stored"], &published.json()["unknown"]), (&Value::from(2500), &Value::from(0)));
    for transport in TRANSPORTS {
        let args = ["subscribe", "orders", "--from", "earliest", "--transport", transport, "--until-caught-up"];
        let all = client(&server, &[&args[..], &["--format", "value"]].concat(), b"").await;
        assert_eq!(all.code, 0, "{transport}: {}", all.stderr);
        assert!(all.stdout == text.as_bytes(), "{transport} printed {} lines: {}", all.lines().len(), all.stderr);
        let args = ["subscribe", "orders", "--from", "offset:7", "--transport", transport, "--limit", "3"];
        let some = client(&server, &args, b"").await;
        let records = some.lines().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
        assert_eq!(records.map(|record| record["offset"].clone()).collect::<Vec<_>>(), [7, 8, 9], "{transport}");
    }
}

#[tokio::test]
async fn a_body_keeps_its_bytes_key_header_and_type() {
    let server = Server::start().await;
    let body: Vec<u8> = (0..=255).collect();
    let args =
        ["publish", "bytes", "--body", "--content-type", "image/png", "--record-key", "k", "--header", "Origin: cli"];
    let published = client(&server, &args, &body).await;
    assert_eq!((published.code, &published.json()["offset"]), (0, &Value::from(0)), "{}", published.stderr);
    let record = server.client().read_all("bytes", 0).await.remove(0);
    assert_eq!(payload(&record), body);
    assert_eq!((record.key.as_deref(), record.content_type.as_deref()), (Some("k"), Some("image/png")));
    assert_eq!(record.headers.get("origin").map(String::as_str), Some("cli"));
}

#[tokio::test]
async fn a_broken_line_of_ndjson_is_named_and_what_is_before_it_is_stored() {
    let server = Server::start().await;
    let input = b"{\"a\":1.50}\n\n[2]\n{broken\n4\n";
    let published = client(&server, &["publish", "json", "--format", "ndjson"], input).await;
    assert_eq!(published.code, 1);
    assert!(published.stderr.contains("line 4 is not a JSON value"), "{}", published.stderr);
    assert_eq!((&published.json()["stored"], &published.json()["stored_to_line"]), (&Value::from(2), &Value::from(3)));
    let values = server.client().read_all("json", 0).await;
    assert_eq!(values.iter().map(payload).collect::<Vec<_>>(), [b"{\"a\":1.50}".to_vec(), b"[2]".to_vec()]);
}

#[tokio::test]
async fn topics_keys_and_tenants_are_managed_from_the_command_line() {
    let server = Server::start().await;
    let made = client(&server, &["topics", "create", "a/b", "--partitions", "3"], b"").await;
    assert_eq!((made.code, &made.json()["partitions"]), (0, &Value::from(3)), "{}", made.stderr);
    let changed = client(&server, &["topics", "update", "a/b", "--max-record-bytes", "100"], b"").await;
    assert_eq!((changed.code, &changed.json()["max_record_bytes"]), (0, &Value::from(100)), "{}", changed.stderr);
    for (args, kept) in [
        (&["--retention-age", "7d"][..], json!({"age": "7d"})),
        (&["--retention-bytes", "1GiB"], json!({"age": "7d", "bytes": 1 << 30})),
        (&["--retention-age", "none", "--retention-bytes", "1MB"], json!({"bytes": 1_000_000})),
    ] {
        let changed = client(&server, &[&["topics", "update", "a/b"], args].concat(), b"").await;
        assert_eq!((changed.code, &changed.json()["retention"]), (0, &kept), "{}", changed.stderr);
    }
    assert_eq!(client(&server, &["topics", "update", "a/b"], b"").await.code, 2, "there is nothing to change");
    let seen = client(&server, &["topics", "get", "a/b"], b"").await;
    assert_eq!(seen.json()["partition_bounds"].as_array().map(Vec::len), Some(3));
    assert_eq!(client(&server, &["topics", "list", "--prefix", "a/"], b"").await.lines().len(), 1);
    assert_eq!(client(&server, &["topics", "delete", "a/b"], b"").await.code, 0);
    let gone = client(&server, &["topics", "get", "a/b"], b"").await;
    assert_eq!((gone.code, gone.stdout.len()), (1, 0));
    assert!(gone.stderr.starts_with("error: "), "{}", gone.stderr);

    let root = [("PLINTH_URL", server.url()), ("PLINTH_KEY", ROOT_KEY)];
    assert_eq!(run(&["tenants", "create", "acme"], &root, b"").await.json()["name"], "acme");
    let inside = [&root[..], &[("PLINTH_TENANT", "acme")]].concat();
    let key = run(&["keys", "create", "--name", "ci", "--scope", "publish:**"], &inside, b"").await;
    assert_eq!(key.code, 0, "{}", key.stderr);
    let id = key.json()["id"].as_str().expect("a key has an id").to_owned();
    assert!(run(&["keys", "list"], &inside, b"").await.lines().iter().any(|line| line.contains(&id)));
    let rotated = run(&["keys", "rotate", &id, "--overlap", "1h"], &inside, b"").await.json();
    assert!(rotated["id"] == id && rotated["key"].is_string() && rotated["previous_until"].is_u64(), "{rotated}");
    let set = ["keys", "update", &id, "--name", "shop", "--quota", "connections=3"];
    let updated = run(&set, &inside, b"").await.json();
    assert_eq!((&updated["name"], &updated["quotas"]), (&json!("shop"), &json!({"connections": 3})));
    assert_eq!(run(&["keys", "update", &id], &inside, b"").await.code, 2);
    assert_eq!(run(&["keys", "show", &id], &inside, b"").await.json()["name"], "shop");
    assert_eq!(run(&["keys", "delete", &id], &inside, b"").await.code, 0);
    assert!(!run(&["keys", "list"], &inside, b"").await.lines().iter().any(|line| line.contains(&id)));
    let set = ["tenants", "update", "acme", "--quota", "topics=7", "--origin", "https://app.example.com"];
    let updated = run(&set, &root, b"").await.json();
    assert_eq!(
        (&updated["quotas"], &updated["allowed_origins"][0]),
        (&json!({"topics": 7}), &json!("https://app.example.com"))
    );
    let updated =
        run(&["tenants", "update", "acme", "--quota", "topics=none", "--no-origins"], &root, b"").await.json();
    assert_eq!((&updated["quotas"], &updated["allowed_origins"]), (&json!({}), &json!([])));
    assert_eq!(run(&["tenants", "update", "acme", "--quota", "topic=7"], &root, b"").await.code, 2);
    assert_eq!(run(&["tenants", "update", "acme"], &root, b"").await.code, 2);
    assert!(run(&["tenants", "suspend", "acme"], &root, b"").await.json()["suspended_at"].is_u64());
    assert_eq!(run(&["tenants", "resume", "acme"], &root, b"").await.json().get("suspended_at"), None);
    assert_eq!(run(&["tenants", "delete", "acme"], &root, b"").await.code, 0);
    assert_eq!(run(&["tenants", "get", "acme"], &root, b"").await.code, 1);
}

#[tokio::test]
async fn tokens_issuers_and_revocations_are_managed_from_the_command_line() {
    let server = Server::start().await;
    let minted =
        client(&server, &["tokens", "create", "--scope", "subscribe:u/{sub}", "--subject", "ada", "--ttl", "5m"], b"");
    let token = minted.await.json()["token"].as_str().expect("a token is shown once").to_owned();
    let held = [("PLINTH_URL", server.url()), ("PLINTH_KEY", &*token)];
    for (action, allowed) in [("subscribe", true), ("publish", false)] {
        let told = run(&["auth", "explain", action, "u/ada"], &held, b"").await.json();
        assert_eq!((&told["subject"], &told["decision"]["allowed"]), (&json!("ada"), &json!(allowed)), "{told}");
    }
    assert_eq!(run(&["auth", "explain", "publish"], &held, b"").await.code, 2, "an action needs a topic");
    let revoked = client(&server, &["revocations", "create", "--subject", "ada"], b"").await.json();
    assert_eq!(revoked["subject"], "ada");
    assert_eq!(client(&server, &["revocations", "list"], b"").await.lines().len(), 1);
    let refused = run(&["auth", "explain"], &held, b"").await;
    assert!(refused.code == 1 && refused.stderr.contains("revoked"), "{}", refused.stderr);
    assert_eq!(client(&server, &["revocations", "create"], b"").await.code, 2, "of three things one");
    let of_no_subject = ["revocations", "create", "--token-id", "a", "--issued-before", "2026-11-27T08:00:00Z"];
    assert_eq!(client(&server, &of_no_subject, b"").await.code, 2);

    let secret = "a secret of an issuer, long enough for HS256";
    let described = json!({"issuer": "https://id.example.com", "algorithms": ["HS256"], "secret": secret}).to_string();
    let set = client(&server, &["issuers", "set", "login"], described.as_bytes()).await;
    assert_eq!((set.code, &set.json()["has_secret"]), (0, &json!(true)), "{}", set.stderr);
    assert!(!format!("{}{}", set.json(), set.stderr).contains(secret));
    let broken = described.replace("\"HS256\"]", "\"HS256\"");
    let refused = client(&server, &["issuers", "set", "other"], broken.as_bytes()).await;
    assert!(refused.code == 2 && refused.stderr.contains("line 1") && !refused.stderr.contains(secret));
    assert_eq!(client(&server, &["issuers", "show", "login"], b"").await.json()["name"], "login");
    assert_eq!(client(&server, &["issuers", "list"], b"").await.lines().len(), 1);
    assert_eq!(client(&server, &["issuers", "delete", "login"], b"").await.code, 0);
    assert_eq!(client(&server, &["issuers", "get", "login"], b"").await.code, 1);

    let quotas = client(&server, &["quotas"], b"").await.json();
    assert!(quotas["quotas"].as_array().is_some_and(|all| all.iter().any(|one| one["quota"] == "connections")));
    let usage = client(&server, &["usage", "--granularity", "hour"], b"").await.json();
    assert!(usage["now"].is_object() && usage["granularity"] == "hour", "{usage}");
}

#[tokio::test]
async fn old_records_are_deleted_from_the_command_line() {
    let server = Server::start().await;
    let args = ["topics", "create", "t", "--retention-age", "1h 30m", "--retention-bytes", "5GiB"];
    let made = client(&server, &args, b"").await;
    let kept = json!({"age": "90m", "bytes": 5_u64 << 30});
    assert_eq!((made.code, &made.json()["retention"]), (0, &kept), "{}", made.stderr);
    assert_eq!(client(&server, &["publish", "t"], b"a\nb\nc\n").await.code, 0);
    let trimmed = client(&server, &["topics", "trim", "t", "--before", "2"], b"").await;
    assert_eq!(trimmed.code, 0, "{}", trimmed.stderr);
    let bounds = &trimmed.json()["partition_bounds"][0];
    assert_eq!((&bounds["start"], &bounds["tail"]), (&Value::from(2), &Value::from(3)));
    let above = client(&server, &["topics", "trim", "t", "--before", "4", "--partition", "0"], b"").await;
    assert_eq!((above.code, above.stdout.len()), (1, 0));
    assert!(above.stderr.contains("above the tail, which is 3"), "{}", above.stderr);
    let followed =
        client(&server, &["subscribe", "t", "--from", "offset:0", "--limit", "1", "--format", "value"], b"").await;
    assert_eq!(followed.lines(), ["c"], "{}", followed.stderr);
    assert!(followed.stderr.contains("goes on at offset 2 instead of 0 (trimmed)"), "{}", followed.stderr);
}

#[tokio::test]
async fn failures_have_their_exit_codes() {
    let server = Server::start().await;
    let wrong = run(&["publish", "t"], &[("PLINTH_URL", server.url()), ("PLINTH_KEY", "plk_wrong")], b"x\n").await;
    assert_eq!(wrong.code, 1, "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("plk_wrong"), "{}", wrong.stderr);
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", nobody.local_addr().expect("it is bound"));
    drop(nobody);
    let env = [("PLINTH_URL", url.as_str()), ("PLINTH_KEY", server.key())];
    let away = run(&["publish", "t", "--retry-for", "1s"], &env, b"x\n").await;
    assert_eq!((away.code, &away.json()["stored"], &away.json()["unknown"]), (1, &Value::from(0), &Value::from(0)));
    let said = format!("cannot connect to {url}: ");
    assert!(away.stderr.contains(&said) && away.stderr.contains("trying again for 1s"), "{}", away.stderr);
    assert_eq!(run(&["healthcheck"], &[("PLINTH_LISTEN", url.trim_start_matches("http://"))], b"").await.code, 1);
    let listen = server.url().trim_start_matches("http://");
    assert_eq!(run(&["healthcheck"], &[("PLINTH_LISTEN", listen)], b"").await.code, 0);
    assert_eq!(run(&["subscribe", "a", "b", "--transport", "poll"], &[], b"").await.code, 2);
    for key in [&[][..], &[("PLINTH_KEY", "")]] {
        let keyless = run(&["topics", "list"], key, b"").await;
        assert!(keyless.code == 2 && keyless.stderr.contains("PLINTH_KEY"), "{}: {}", keyless.code, keyless.stderr);
    }
    let address = run(&["topics", "list", "--url", "127.0.0.1:8080"], &[], b"").await;
    assert!(address.code == 2 && address.stderr.contains("http://host:port"), "{}", address.stderr);
}

#[tokio::test]
async fn a_store_url_with_a_password_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let env = vec![("PLINTH_STORE".to_owned(), "s3://user:CANARY@bucket/x".to_owned())];
    let start = refused(dir.path(), &Options { env, ..Options::default() }).await;
    assert!(start.stderr.contains("environment") && !start.stderr.contains("CANARY"), "{}", start.stderr);
}

#[tokio::test]
async fn an_empty_body_is_not_called_a_record_of_unknown_outcome() {
    let server = Server::start().await;
    let empty = client(&server, &["publish", "t", "--body"], b"").await;
    assert_eq!(empty.code, 1);
    assert!(empty.stderr.contains("nothing was stored") && !empty.stderr.contains("unknown"), "{}", empty.stderr);
}

#[tokio::test]
async fn an_interrupted_publish_says_how_far_it_came() {
    // Fails when the interrupt ends the process by itself, as it does by default.
    let server = Server::start().await;
    server.client().make_topic("orders", 1).await;
    let env = [("PLINTH_URL", server.url()), ("PLINTH_KEY", server.key())];
    let mut child = plinth(&["publish", "orders"], &env).spawn().expect("the binary can be started");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(b"one\n").await.expect("the command reads");
    assert_eq!(server.client().page("orders", "from=earliest&wait=30s").await.records.len(), 1);
    let id = child.id().expect("the process runs").to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().await.expect("kill can be started").success());
    let output = within("the end of a command", child.wait_with_output()).await.expect("a child can be awaited");
    assert_eq!(output.status.code(), Some(130));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert_eq!((&summary["stored"], &summary["unknown"]), (&Value::from(1), &Value::from(0)), "{summary}");
    drop(input);
}

#[tokio::test]
async fn a_second_start_on_the_same_port_fails_and_leaves_the_first_alone() {
    // Fails when the log is opened before the port is bound: the second start would then end the first one's session.
    let server = Server::start().await;
    let listen = server.url().trim_start_matches("http://").to_owned();
    let env = vec![("PLINTH_LISTEN".to_owned(), listen.clone())];
    let second = refused(server.dir(), &Options { env, ..Options::default() }).await;
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(&listen), "{}", second.stderr);
    assert_eq!(client(&server, &["publish", "t"], b"still here\n").await.code, 0);
}

#[tokio::test]
async fn a_publisher_stores_every_line_once_while_its_node_is_killed() {
    // Fails when a batch that got no answer is given up, or is sent again as another one.
    let mut server = Server::start().await;
    let door = Door::open(server.url()).await;
    server.client().make_topic("wide", 3).await;
    let env = [("PLINTH_URL", door.url.as_str()), ("PLINTH_KEY", server.key())];
    let mut child: Child = plinth(&["publish", "wide"], &env).spawn().expect("the binary can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut lines = Vec::new();
    for round in 0..4 {
        for line in 0..2000 {
            lines.push(format!("{round}-{line}"));
            stdin.write_all(format!("{round}-{line}\n").as_bytes()).await.expect("the child reads");
        }
        server.kill9().await;
        server.restart(round == 1).await;
        door.lead_to(server.url());
    }
    drop(stdin);
    let output = within("the end of the publisher", child.wait_with_output()).await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = Vec::new();
    for partition in 0..3 {
        found.extend(texts(&server.client().read_all("wide", partition).await));
    }
    assert_eq!(found, lines, "all of them once, in one partition and in order");
}

#[tokio::test]
async fn a_body_with_the_same_key_is_stored_once() {
    let server = Server::start().await;
    let args = ["publish", "t", "--body", "--idempotency-key", "import-7"];
    for duplicate in [false, true] {
        let published = client(&server, &args, b"body").await;
        assert_eq!(
            (published.code, &published.json()["duplicate"]),
            (0, &Value::from(duplicate)),
            "{}",
            published.stderr
        );
    }
    let other = client(&server, &args, b"other").await;
    assert!(other.code == 1 && other.stderr.contains("other content"), "{}", other.stderr);
    assert_eq!(client(&server, &["publish", "t", "--idempotency-key", "k"], b"x\n").await.code, 2, "only with --body");
    assert_eq!(server.client().count("t").await, 1);
}

#[tokio::test]
async fn a_subscriber_goes_on_where_it_was_after_its_node_was_killed() {
    // Fails when a transport forgets its cursor, or when what comes again after it is not dropped.
    let mut server = Server::start().await;
    let door = Door::open(server.url()).await;
    server.client().make_topic("orders", 1).await;
    let mut readers = Vec::new();
    for transport in TRANSPORTS {
        let args = ["subscribe", "orders", "--from", "earliest", "--format", "value", "--transport", transport];
        let env = [("PLINTH_URL", door.url.as_str()), ("PLINTH_KEY", server.key())];
        let mut child: Child = plinth(&args, &env).spawn().expect("the binary can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        readers.push((transport, child, lines));
    }
    for round in 0..3 {
        let text: String = (0..50).map(|i| format!("{round}-{i}\n")).collect();
        assert_eq!(client(&server, &["publish", "orders"], text.as_bytes()).await.code, 0);
        for (transport, _, lines) in &mut readers {
            for expected in text.lines() {
                let line = within("a line of a subscriber", lines.next_line()).await.expect("stdout can be read");
                assert_eq!(line.as_deref(), Some(expected), "{transport}");
            }
        }
        server.kill9().await;
        server.restart(round == 1).await;
        door.lead_to(server.url());
    }
}

#[tokio::test]
async fn the_benchmark_runs_and_checks_what_it_measures() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let results = dir.path().join("results").to_string_lossy().into_owned();
    let bench = run(&["bench", "--quick", "--dir", &results], &[], b"").await;
    assert_eq!(bench.code, 0, "{}", bench.stderr);
    let report = bench.json();
    assert_eq!(report["targets"].as_array().map(Vec::len), Some(28), "{report}");
    assert_eq!(report["fan_out"]["deliveries"], 100);
    assert_eq!(report["streams"]["streams"], 20);
    for measured in [&report["streams"]["appends_to_many"], &report["streams"]["reads"], &report["far"][0]["compared"]]
    {
        assert!(measured["ours"]["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
    }
    let left = std::fs::read_dir(&results).expect("the directory is there").count();
    assert_eq!(left, 0, "the data of the run is left behind");
}

/// A fixed address that leads to a server whose own changes with each start.
struct Door {
    url: String,
    behind: Arc<Mutex<SocketAddr>>,
    _tasks: JoinSet<()>,
}

impl Door {
    async fn open(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let behind = Arc::new(Mutex::new(address_of(url)));
        let mut tasks = JoinSet::new();
        tasks.spawn(Self::admit(listener, Arc::clone(&behind)));
        Self { url: format!("http://{address}"), behind, _tasks: tasks }
    }

    fn lead_to(&self, url: &str) {
        *self.behind.lock().expect("nobody panics with it") = address_of(url);
    }

    async fn admit(listener: TcpListener, behind: Arc<Mutex<SocketAddr>>) {
        let mut connections = JoinSet::new();
        while let Ok((mut outside, _)) = listener.accept().await {
            let address = *behind.lock().expect("nobody panics with it");
            connections.spawn(async move {
                if let Ok(mut inside) = TcpStream::connect(address).await {
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    }
}

fn address_of(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("the harness gives an address")
}
