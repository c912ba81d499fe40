//! Where bench keeps its data while it runs.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::output;

/// A directory that is removed at the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn make(within: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(within)?.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            output::say(&format!("{} is left behind: {error}", self.0.display()));
        }
    }
}
