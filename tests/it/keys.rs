//! API keys at run time, by the public surface: view, rename, rotate, last used. Who may do that is in `auth_matrix.rs`, what a
//! moved clock changes in `src/auth/tests/rotation.rs`.

use plinth_api::error::ErrorCode;
use serde_json::{Value, json};

use crate::client::{Client, answer};
use crate::harness::{Options, ROOT_KEY, Server, refused};
use crate::ws::Socket;

const MINUTE_MS: u64 = 60_000;

async fn make(client: &Client, scopes: &[&str]) -> Value {
    let made = answer(client.post("/v1/keys").json(&json!({"name": "shop", "scopes": scopes}))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()
}

fn path(key: &Value) -> String {
    format!("/v1/keys/{}", key["id"].as_str().unwrap())
}

async fn status(server: &Server, key: &Value) -> u16 {
    answer(Client::new(server.url(), key["key"].as_str()).get("/v1/topics")).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_ends_the_old_secret_with_its_connections_and_with_an_overlap_later() {
    let server = Server::start().await;
    let client = server.client();
    let old = make(&client, &["subscribe:**"]).await;
    let mut socket = Socket::with_key(&server, old["key"].as_str().unwrap()).await;
    let rotate = async |body: Option<Value>| {
        let request = client.post(&format!("{}/rotate", path(&old)));
        let rotated = answer(body.map_or(request.try_clone().unwrap(), |body| request.json(&body))).await;
        assert_eq!(rotated.status, 200, "{}", rotated.text());
        rotated.json()
    };
    let second = rotate(Some(json!({"overlap": "1h"}))).await;
    assert_eq!((&second["id"], &second["scopes"], &second["name"]), (&old["id"], &old["scopes"], &old["name"]));
    assert!(second["previous_until"].as_u64() > second["rotated_at"].as_u64());
    assert_eq!((status(&server, &old).await, status(&server, &second).await), (200, 200));
    socket.send(json!({"type": "ping"})).await;
    socket.frame("pong").await;
    let third = rotate(None).await;
    assert_eq!(socket.closed().await, Some(4401));
    assert_eq!((status(&server, &old).await, status(&server, &second).await), (401, 401));
    assert_eq!(status(&server, &third).await, 200);
    let shown = answer(client.get(&path(&old))).await.json();
    assert_eq!((shown.get("key"), shown.get("previous_until")), (None, None));
    assert_eq!(shown["last_four"], third["last_four"]);
    assert!(!server.stderr().contains(third["key"].as_str().unwrap()), "the log has no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_secret_alone_is_good_after_kill_9_and_a_wiped_cache() {
    let mut server = Server::start().await;
    let old = make(&server.client(), &["admin"]).await;
    let new = answer(server.client().post(&format!("{}/rotate", path(&old))).json(&json!({}))).await.json();
    server.kill9().await;
    server.restart(true).await;
    assert_eq!((status(&server, &old).await, status(&server, &new).await), (401, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlap_that_is_no_time_or_too_long_is_refused_and_nothing_changes() {
    let server = Server::start().await;
    let client = server.client();
    let key = make(&client, &["admin"]).await;
    for overlap in ["soon", "0s", "", "31d", "-1h"] {
        let refused = answer(client.post(&format!("{}/rotate", path(&key))).json(&json!({"overlap": overlap}))).await;
        assert_eq!((refused.status, refused.problem().code), (422, ErrorCode::Unprocessable), "{overlap}");
    }
    let unknown = answer(client.post(&format!("{}/rotate", path(&key))).json(&json!({"overlapp": "1h"}))).await;
    assert_eq!((unknown.status, unknown.problem().code), (400, ErrorCode::UnknownField));
    assert_eq!(status(&server, &key).await, 200);
    assert_eq!(answer(client.get(&path(&key))).await.json().get("rotated_at"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_shows_the_minute_of_its_last_use_also_after_a_restart() {
    let mut server = Server::start().await;
    let client = server.client();
    let (used, idle) = (make(&client, &["admin"]).await, make(&client, &["admin"]).await);
    assert_eq!(used.get("last_used_at"), None);
    assert_eq!(status(&server, &used).await, 200);
    let shown = answer(client.get(&path(&used))).await.json();
    let at = shown["last_used_at"].as_u64().expect("it was used");
    let made = shown["created_at"].as_u64().unwrap();
    assert!(at % MINUTE_MS == 0 && at + MINUTE_MS > made && at <= made + MINUTE_MS, "{shown}");
    assert_eq!(server.terminate().await.code(), Some(0));
    server.restart(true).await;
    let listed = answer(server.client().get("/v1/keys?limit=1000")).await.json();
    let last_use = |key: &Value| {
        let listed = listed["data"].as_array().unwrap().iter().find(|found| found["id"] == key["id"]);
        listed.expect("it is listed").get("last_used_at").cloned()
    };
    assert_eq!((last_use(&used), last_use(&idle)), (Some(json!(at)), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_renamed_and_a_deleted_one_is_gone() {
    let server = Server::start().await;
    let client = server.client();
    let key = make(&client, &["admin"]).await;
    let renamed = answer(client.patch(&path(&key)).json(&json!({"name": "web"}))).await;
    assert_eq!((renamed.status, &renamed.json()["name"]), (200, &json!("web")), "{}", renamed.text());
    assert_eq!(status(&server, &key).await, 200);
    let scopes = answer(client.patch(&path(&key)).json(&json!({"scopes": ["publish:**"]}))).await;
    assert_eq!((scopes.status, scopes.problem().code), (400, ErrorCode::UnknownField), "scopes do not change");
    assert_eq!(answer(client.delete(&path(&key))).await.status, 204);
    for gone in [
        client.get(&path(&key)),
        client.patch(&path(&key)).json(&json!({"name": "x"})),
        client.post(&format!("{}/rotate", path(&key))),
        client.delete(&path(&key)),
    ] {
        assert_eq!(answer(gone).await.status, 404);
    }
}

async fn quota_used_up(client: &Client) -> bool {
    let answered = answer(client.get("/v1/topics")).await;
    match answered.status {
        200 => false,
        429 => {
            let problem = answered.problem();
            assert_eq!(problem.code, ErrorCode::QuotaExceeded);
            assert!(problem.detail.contains("requests_per_second of the key"), "{}", problem.detail);
            true
        }
        _ => panic!("{}", answered.text()),
    }
}

// Fails when the key is read without its quotas, when a change of them waits for a restart, or when a rotation begins them anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_quotas_of_its_own_that_hold_no_other_key_and_change_at_once() {
    let mut server = Server::start().await;
    let admin = server.client();
    let wanted = json!({"name": "", "scopes": ["subscribe:**"], "quotas": {"requests_per_second": 1}});
    let made = answer(admin.post("/v1/keys").json(&wanted)).await.json();
    assert_eq!(made["quotas"], json!({"requests_per_second": 1}));
    let limited = Client::new(server.url(), made["key"].as_str());
    let mut refused = 0;
    for _ in 0..20 {
        refused += u32::from(quota_used_up(&limited).await);
        assert_eq!(answer(admin.get("/v1/topics")).await.status, 200);
    }
    assert!(refused > 0);
    let shown = answer(admin.get(&path(&made))).await.json();
    assert_eq!(shown["quotas"], json!({"requests_per_second": 1}));
    let patched = answer(admin.patch(&path(&made)).json(&json!({"quotas": {"connections": 9}}))).await;
    assert_eq!((patched.status, &patched.json()["quotas"]), (200, &json!({"connections": 9})), "{}", patched.text());
    for _ in 0..20 {
        assert!(!quota_used_up(&limited).await);
    }
    let report = answer(limited.get("/v1/quotas")).await.json();
    let connections =
        report["key_quotas"].as_array().unwrap().iter().find(|row| row["quota"] == "connections").unwrap();
    assert_eq!(connections["limit"], 9);
    for wrong in [json!({"topics": 1}), json!({"storage_bytes": 1}), json!({"connections": 0})] {
        let refused = answer(admin.patch(&path(&made)).json(&json!({"quotas": wrong}))).await;
        assert_eq!((refused.status, refused.problem().code), (422, ErrorCode::Unprocessable), "{wrong}");
    }
    server.kill9().await;
    server.restart(true).await;
    let kept = answer(server.client().get(&path(&made))).await.json();
    assert_eq!(kept["quotas"], json!({"connections": 9}));
}

const OLD_ROOT_KEY: &str = "root-CANARY9b2e-fedcba9876543210fedcba9876543210";

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_of_before_is_accepted_beside_the_new_one_while_it_is_given() {
    let env = vec![("PLINTH_ROOT_KEY_PREVIOUS".to_owned(), OLD_ROOT_KEY.to_owned())];
    let server = Server::start_with(Options { env, ..Options::default() }).await;
    for key in [ROOT_KEY, OLD_ROOT_KEY] {
        let root = Client::new(server.url(), Some(key));
        assert_eq!(answer(root.get("/v1/tenants")).await.status, 200);
        assert_eq!(answer(root.acting_in("default").get("/v1/topics")).await.status, 200);
    }
    assert!(!server.stderr().contains("CANARY"), "the log has no key");
    let without = Server::start().await;
    assert_eq!(answer(Client::new(without.url(), Some(OLD_ROOT_KEY)).get("/v1/tenants")).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_in_a_file_is_read_at_the_start_and_two_ways_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root-key");
    std::fs::write(&path, format!("{OLD_ROOT_KEY}\n")).unwrap();
    let file = ("PLINTH_ROOT_KEY_FILE".to_owned(), path.display().to_string());
    let both = refused(dir.path(), &Options { env: vec![file.clone()], ..Options::default() }).await;
    assert!(both.code == Some(2) && both.stderr.contains("root key is given twice"), "{}", both.stderr);
    assert!(!both.stderr.contains("CANARY"), "{}", both.stderr);
    let previous = ("PLINTH_ROOT_KEY_PREVIOUS".to_owned(), "changeme".to_owned());
    let weak = refused(dir.path(), &Options { env: vec![previous], ..Options::default() }).await;
    assert!(weak.code == Some(2) && weak.stderr.contains("shorter than the limit"), "{}", weak.stderr);
}
