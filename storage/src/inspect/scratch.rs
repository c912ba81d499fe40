//! Where the state of a bucket is rebuilt to be looked at: memory, or a directory that is left as it was found.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Kind, Result};
use crate::state::StateStore;
use crate::state::memory::MemoryState;
use crate::state::rocks::RocksState;

/// A place for states that are thrown away again.
#[derive(Clone, Debug)]
pub struct Scratch {
    dir: Option<PathBuf>,
    next: Arc<AtomicU64>,
}

/// A state in a scratch place. Dropped, its files are removed.
pub(crate) struct ScratchState {
    state: Option<Arc<dyn StateStore>>,
    dir: Option<PathBuf>,
}

impl Scratch {
    /// States in memory: for small buckets.
    #[must_use]
    pub fn memory() -> Self {
        Self { dir: None, next: Arc::default() }
    }

    /// States on disk, with about 64 MiB of memory each.
    #[must_use]
    pub fn directory(dir: PathBuf) -> Self {
        Self { dir: Some(dir), next: Arc::default() }
    }

    /// A new, empty state.
    ///
    /// # Errors
    /// `Invalid` when the directory cannot be used.
    pub(crate) fn state(&self) -> Result<ScratchState> {
        let Some(dir) = &self.dir else {
            return Ok(ScratchState { state: Some(Arc::new(MemoryState::new())), dir: None });
        };
        let dir = dir.join(format!("state-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let state = RocksState::open(&dir).map_err(|error| {
            let text = format!("scratch directory {} cannot be used", dir.display());
            Error::new(Kind::Invalid, text).with_source(error)
        })?;
        Ok(ScratchState { state: Some(Arc::new(state)), dir: Some(dir) })
    }
}

impl ScratchState {
    /// The state, for a task of its own.
    pub(crate) fn share(&self) -> &Arc<dyn StateStore> {
        self.state.as_ref().expect("it is there until it is dropped")
    }
}

impl Deref for ScratchState {
    type Target = dyn StateStore;

    fn deref(&self) -> &Self::Target {
        &**self.share()
    }
}

impl Drop for ScratchState {
    fn drop(&mut self) {
        drop(self.state.take());
        if let Some(dir) = &self.dir
            && let Err(error) = std::fs::remove_dir_all(dir)
        {
            tracing::warn!(dir = %dir.display(), %error, "a scratch directory is left behind");
        }
    }
}

impl fmt::Debug for ScratchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScratchState").field("dir", &self.dir).finish_non_exhaustive()
    }
}
