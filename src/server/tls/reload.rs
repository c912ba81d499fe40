//! A certificate that changes while the node runs: loaded again when its files change and on SIGHUP.
//!
//! The folders of the files are watched, not the files: tools that renew a certificate put another file, or another link,
//! in the place of the old one. Two files are never written at once, so what does not fit together is told and left, and
//! the change that follows brings the rest.

use std::path::Path;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use plinth_storage::error::Chain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

use super::{Tls, TlsFiles};

impl Tls {
    /// Keeps the certificate that is shown the one of the files, until `end`. Cancel safe.
    pub async fn keep_current(self, end: CancellationToken) {
        let (sender, mut changes) = channel(1);
        // It ends with this call.
        let _watcher = watch(&self.files, sender);
        let mut hangups = hangups();
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = next(&mut hangups, &mut changes) => self.load_again().await,
            }
        }
    }

    async fn load_again(&self) {
        match self.files.load(self.config.crypto_provider()).await {
            Ok(key) if key.cert == self.shown.0.load().cert => tracing::debug!("the TLS certificate has not changed"),
            Ok(key) => {
                self.shown.0.store(Arc::new(key));
                tracing::info!(file = %self.files.certificate.display(), "the TLS certificate is loaded again");
            }
            Err(error) => {
                let why = Chain(&error);
                tracing::warn!(%why, "the new TLS certificate cannot be used, the one before stays");
            }
        }
    }
}

/// Returns when there may be something new.
async fn next(hangups: &mut Option<Signal>, changes: &mut Receiver<()>) {
    let hangup = async {
        match hangups {
            Some(hangups) => hangups.recv().await,
            None => std::future::pending().await,
        }
    };
    let change = async {
        // Without a watcher there is no sender, and nothing will come.
        if changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = hangup => {}
        () = change => {}
    }
}

fn hangups() -> Option<Signal> {
    let opened = signal(SignalKind::hangup());
    opened.inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be received")).ok()
}

/// Watches the folders of both files; a change while another one waits to be seen is one with it.
fn watch(files: &TlsFiles, changed: Sender<()>) -> Option<RecommendedWatcher> {
    let seen = move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_change(event.kind)) {
            // Full: somebody looks soon in any case.
            let _ = changed.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(seen).and_then(|mut watcher| {
        for file in [&files.certificate, &files.key] {
            watcher.watch(folder(file), RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    let told = "changes of the TLS certificate are not noticed; SIGHUP loads it again";
    watcher.inspect_err(|error| tracing::warn!(%error, "{told}")).ok()
}

/// That a file is opened or read, as we do, is none.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}
