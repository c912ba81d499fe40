//! The processes under test: started from this binary on a free port, asked for their memory, ended with us.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::telemetry::processor_seconds;

/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an end may take before the process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A process of this binary that listens on the loopback address. Killed when dropped.
pub(super) struct Server {
    child: Child,
    /// Held open: a process whose stdout is closed could fail to write to it.
    _stdout: Option<Lines<BufReader<ChildStdout>>>,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Server {
    /// `plinth bench-baseline`.
    pub(super) async fn baseline() -> anyhow::Result<Self> {
        Self::start(command(&std::env::current_exe()?).arg("bench-baseline")).await
    }

    /// `plinth serve` on `store`, with its cache in `dir`. All connections come from one address here.
    pub(super) async fn node(
        dir: &Path,
        (store, root_key): (&str, &str),
        env: impl IntoIterator<Item = (&'static str, String)>,
    ) -> anyhow::Result<Self> {
        Self::node_at(dir, (store, root_key), ("127.0.0.1:0", Duration::from_secs(1)), env).await
    }

    /// The same at an address, with a drain time of whole seconds.
    pub(super) async fn node_at(
        dir: &Path,
        (store, root_key): (&str, &str),
        (address, drain): (&str, Duration),
        env: impl IntoIterator<Item = (&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let mut command = command(&std::env::current_exe()?);
        command.args(["serve", "--listen", address, "--log", "warn"]).envs(env);
        command.arg("--drain-time").arg(format!("{}s", drain.as_secs()));
        command.args(["--max-connections-per-address", "20000", "--store", store]);
        command.arg("--cache-dir").arg(dir.join("cache")).env("PLINTH_ROOT_KEY", root_key);
        Self::start(&mut command).await
    }

    /// The server of the crate `durable-streams`, with its data in `dir`; it syncs what it acknowledges.
    pub(super) async fn durable_streams(program: &Path, dir: &Path) -> anyhow::Result<Self> {
        let mut command = command(program);
        command.args(["--durability", "wal", "--port", &free_port()?.to_string(), "--data-dir"]).arg(dir);
        Self::start(&mut command).await
    }

    /// `s2 lite` at a place in a bucket, with what the file `streams` names.
    pub(super) async fn s2_lite(
        program: &Path,
        (bucket, path): (&str, &str),
        streams: &Path,
        env: impl IntoIterator<Item = (&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = command(program);
        command.args(["lite", "--no-dashboard", "--bucket", bucket, "--path", path, "--port", &port.to_string()]);
        command.arg("--init-file").arg(streams).env("RUST_LOG", "error").envs(env).stdout(Stdio::null());
        let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        tokio::select! {
            listens = tokio::time::timeout(START_TIMEOUT, accepts(address)) => listens.context("no start in time")?,
            ended = child.wait() => anyhow::bail!("it ended before it listened, with {}", ended?),
        }
        Ok(Self { child, _stdout: None, address })
    }

    async fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let address =
            tokio::time::timeout(START_TIMEOUT, listening(&mut stdout)).await.context("no start in time")??;
        Ok(Self { child, _stdout: Some(stdout), address })
    }

    /// The most memory that it has held, in bytes; `None` where the system does not say.
    pub(super) fn memory_peak_bytes(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// The memory that it holds now, in bytes; `None` where the system does not say.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// Processor time that it has used; `None` where the system does not say.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        processor_seconds(self.child.id()?)
    }

    fn memory(&self, label: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(label))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Asks it to end and waits for that.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status =
            tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.context("it did not end in time")??;
        // The baseline has no handler for the signal.
        anyhow::ensure!(status.success() || status.code().is_none(), "it ended with {status}");
        Ok(())
    }
}

/// A program without the settings of its caller.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PLINTH_")) {
        command.env_remove(name);
    }
    command
}

/// A port that nobody has at the moment.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Returns when somebody listens at `address`.
async fn accepts(address: SocketAddr) {
    let mut tries = tokio::time::interval(Duration::from_millis(50));
    loop {
        tries.tick().await;
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return;
        }
    }
}

async fn listening(stdout: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<SocketAddr> {
    while let Some(line) = stdout.next_line().await? {
        if let Some((_, rest)) = line.split_once("http://") {
            return rest.split_whitespace().next().unwrap_or_default().parse().with_context(|| format!("in {line:?}"));
        }
    }
    anyhow::bail!("the server ended before it listened; what it said is above")
}
