//! What the commands that look at a bucket share: which bucket, where its state is rebuilt, the progress bar, Ctrl-C.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use plinth_storage::inspect::Scratch;
use plinth_storage::store::{self, ObjectStores};
use tempfile::TempDir;

use super::interrupt::{Interrupted, Interrupts};
use super::opened;
use crate::config::{Given, Settings};

/// A bucket to read.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The object store [default: ./plinth-data/objects]
    ///
    /// A directory, or a URL: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///directory. It is only
    /// read; a node may run on it.
    #[arg(long, env = "PLINTH_STORE", value_name = "URL")]
    store: Option<String>,
    /// A settings file that names the store; the flag and the variable win over it
    #[arg(long, env = "PLINTH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the state of the bucket is rebuilt meanwhile [default: the directory for temporary files]
    ///
    /// About as large as a checkpoint, unpacked; removed at the end.
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// Most requests under way at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
}

/// A bucket that is open to be read.
pub(super) struct Opened {
    pub(super) stores: ObjectStores,
    pub(super) scratch: Scratch,
    pub(super) in_flight: usize,
    /// Removed when dropped.
    _dir: TempDir,
}

impl Source {
    /// Opens the bucket and makes the scratch directory.
    pub(super) fn open(&self) -> anyhow::Result<Opened> {
        let given = Given { store: self.store.clone(), ..Given::default() };
        let settings = Settings::load(given, self.config.as_deref())?;
        let stores = opened(store::open_to_read(&settings.store))?;
        let parent = self.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("plinth-").tempdir_in(&parent);
        let dir = dir.with_context(|| format!("no temporary directory can be made in {}", parent.display()))?;
        let scratch = Scratch::directory(dir.path().to_owned());
        Ok(Opened { stores, scratch, in_flight: usize::from(self.in_flight), _dir: dir })
    }
}

/// A bar of bytes on stderr, if that is a terminal.
pub(super) fn bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template).expect("the template is right");
    ProgressBar::new(0).with_style(style).with_message(what)
}

/// Runs something that may be dropped at any time, until it is done or interrupted.
pub(super) async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupts = Interrupts::open()?;
    tokio::select! {
        done = work => done,
        () = interrupts.next() => Err(Interrupted.into()),
    }
}

/// A time for people and for `--at`: UTC, to the millisecond.
pub(super) fn rfc3339(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(ms));
    time.filter(|_| ms < YEAR_9999_MS)
        .map_or_else(|| format!("{ms} ms"), |time| humantime::format_rfc3339_millis(time).to_string())
}

/// What the form of times can say.
const YEAR_9999_MS: u64 = 253_402_300_800_000;
