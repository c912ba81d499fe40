//! A real server process on port 0 with its own temporary directories, and how to kill it.
//!
//! Nothing here sleeps or polls: the server says on its standard output where it listens once it serves, and an exit is
//! awaited. Each wait has a deadline, after which the test fails with what the server wrote to standard error.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::client::Client;

/// The operator's key of every test server.
pub(crate) const ROOT_KEY: &str = "root-CANARY7f3a-0123456789abcdef0123456789abcdef";
/// How long any one thing may take before the test fails. Not a measure of speed: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// `--store`; a directory within the test's own when not given.
    pub(crate) store: Option<String>,
    /// The cache directory; one within the test's own when not given.
    pub(crate) cache: Option<PathBuf>,
    /// Further environment.
    pub(crate) env: Vec<(String, String)>,
    /// How many files and sockets it may have open; as many as the tests when not given.
    pub(crate) open_files: Option<u32>,
}

/// A server that is owned by one test.
pub(crate) struct Server {
    dir: Arc<TempDir>,
    options: Options,
    process: Option<Process>,
    key: String,
}

/// One run of the binary.
pub(crate) struct Process {
    child: Child,
    url: String,
    stderr: Captured,
    readers: JoinSet<()>,
}

/// How a process that refused to start ended.
pub(crate) struct Refusal {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

type Captured = Arc<Mutex<String>>;

impl Server {
    /// A server with a directory store, and a key of the tenant `default` that may do everything there.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// The same with a store or environment of its own.
    pub(crate) async fn start_with(options: Options) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory can be made"));
        let mut server = Self { dir, options, process: None, key: String::new() };
        server.launch().await;
        server.key =
            server.root().acting_in("default").make_key(&["admin", "publish:**", "subscribe:**", "manage:**"]).await;
        server
    }

    /// Where it listens now; another port after each start.
    pub(crate) fn url(&self) -> &str {
        &self.process.as_ref().expect("the server runs").url
    }

    /// A client with the key of the tenant `default`.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.url(), Some(&self.key))
    }

    /// A client with the operator's key.
    pub(crate) fn root(&self) -> Client {
        Client::new(self.url(), Some(ROOT_KEY))
    }

    /// A client without a credential.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(self.url(), None)
    }

    /// The key of the tenant `default` that may do everything there.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// A client of another tenant, which is made here, that may do everything in it.
    pub(crate) async fn tenant(&self, name: &str) -> Client {
        let made = self.root().post("/v1/tenants").json(&json!({"name": name})).send().await;
        assert_eq!(made.expect("the server answers").status(), 201);
        let key = self.root().acting_in(name).make_key(&["admin", "publish:**", "subscribe:**", "manage:**"]).await;
        Client::new(self.url(), Some(&key))
    }

    /// A client of the tenant `default` with these scopes.
    pub(crate) async fn with_scopes(&self, scopes: &[&str]) -> Client {
        Client::new(self.url(), Some(&self.client().make_key(scopes).await))
    }

    /// The directory of this test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the store, when it is the test's own.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir().join("objects")
    }

    /// The cache directory.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.options.cache.clone().unwrap_or_else(|| self.dir().join("cache"))
    }

    /// Ends the process as a power cut would.
    pub(crate) async fn kill9(&mut self) {
        let process = self.process.as_mut().expect("the server runs");
        process.child.kill().await.expect("an own child can be killed");
        self.process = None;
    }

    /// Asks the process to end and waits for it.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.exited().await.0
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        self.process.as_ref().expect("the server runs").signal(name).await;
    }

    /// Waits until the process ends by itself; also what it wrote to standard error.
    pub(crate) async fn exited(&mut self) -> (ExitStatus, String) {
        self.process.take().expect("the server runs").exited().await
    }

    /// Starts the process again on the same store.
    pub(crate) async fn restart(&mut self, wipe_cache: bool) {
        assert!(self.process.is_none(), "the process is ended before it is started again");
        if wipe_cache {
            std::fs::remove_dir_all(self.cache_dir()).expect("the cache directory can be removed");
        }
        self.launch().await;
    }

    /// Starts the process again and kills it after `span`, most likely while it is still starting.
    pub(crate) async fn abortive_start(&self, span: Duration) {
        let mut child = command(self.dir(), &self.options).spawn().expect("the binary can be started");
        let ended = tokio::time::timeout(span, child.wait()).await;
        assert!(ended.is_err(), "the server ended by itself: {ended:?}");
        child.kill().await.expect("an own child can be killed");
    }

    /// A second process on the same store and cache.
    pub(crate) async fn second(&self) -> Process {
        Process::launch(self.dir(), &self.options).await
    }

    /// What the running process wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.process.as_ref().expect("the server runs").stderr()
    }

    async fn launch(&mut self) {
        self.process = Some(Process::launch(self.dir(), &self.options).await);
    }
}

impl Process {
    /// A client of this process.
    pub(crate) fn client(&self, key: &str) -> Client {
        Client::new(&self.url, Some(key))
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().expect("no reader panics").clone()
    }

    async fn launch(dir: &Path, options: &Options) -> Self {
        let mut child = command(dir, options).spawn().expect("the binary can be started");
        let stderr = Captured::default();
        let mut readers = JoinSet::new();
        readers.spawn(capture(BufReader::new(child.stderr.take().expect("it is piped")).lines(), stderr.clone()));
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let url = tokio::time::timeout(DEADLINE, address(&mut lines)).await.ok().flatten();
        let Some(url) = url else {
            let code = child.try_wait();
            panic!("the server did not start ({code:?}): {}", stderr.lock().expect("no reader panics"));
        };
        readers.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, url, stderr, readers }
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().expect("the process runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(sent.expect("kill can be started").success());
    }

    /// Waits until it ends by itself; also what it wrote to standard error.
    pub(crate) async fn exited(mut self) -> (ExitStatus, String) {
        let Ok(status) = tokio::time::timeout(DEADLINE, self.child.wait()).await else {
            panic!("the server did not end: {}", self.stderr());
        };
        self.readers.join_all().await;
        let stderr = self.stderr.lock().expect("no reader panics").clone();
        (status.expect("a child can be awaited"), stderr)
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill9(mut self) {
        self.child.kill().await.expect("an own child can be killed");
    }
}

/// Starts a server that is expected to refuse, and waits for its end.
pub(crate) async fn refused(dir: &Path, options: &Options) -> Refusal {
    let child = command(dir, options).spawn().expect("the binary can be started");
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("a refused start ends");
    let output = output.expect("a child can be awaited");
    Refusal { code: output.status.code(), stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

fn command(dir: &Path, options: &Options) -> Command {
    let store = options.store.clone().unwrap_or_else(|| format!("file://{}", dir.join("objects").display()));
    let cache = options.cache.clone().unwrap_or_else(|| dir.join("cache"));
    let limit = options.open_files.map_or(String::new(), |most| format!("ulimit -n {most} && "));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit}exec \"$0\" serve"), env!("CARGO_BIN_EXE_plinth")]);
    command.current_dir(dir).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What steers the tests is not for the server, which refuses variables that it does not know.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PLINTH_")) {
        command.env_remove(name);
    }
    command.env("PLINTH_LISTEN", "127.0.0.1:0").env("PLINTH_STORE", store).env("PLINTH_CACHE_DIR", cache);
    command.env("PLINTH_ROOT_KEY", ROOT_KEY).env("PLINTH_DRAIN_TIME", "1s").env("RUST_BACKTRACE", "1");
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    command
}

async fn capture<R: tokio::io::AsyncRead + Unpin>(mut lines: Lines<BufReader<R>>, into: Captured) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut text = into.lock().expect("no reader panics");
        text.push_str(&line);
        text.push('\n');
    }
}

/// The first address that the server names on its standard output.
async fn address(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    while let Ok(Some(line)) = lines.next_line().await {
        // What listens on all addresses says so first, and then how this machine reaches it.
        if let Some((before, rest)) = line.split_once("://127.0.0.1:") {
            let scheme = if before.ends_with("https") { "https" } else { "http" };
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return Some(format!("{scheme}://127.0.0.1:{port}"));
        }
    }
    None
}
