//! The store on a directory of this machine: objects are files, and a create is one file that is whole on the disk before
//! it has its name.
//!
//! Reads, lists and deletes are those of the crate. Its create gives the file a second name and removes the first, and makes
//! a system call for each piece of an object; ours keeps the same promise by one rename that replaces nothing, for a fifth
//! less processor time (ADR 40). Where the file system has no such rename the crate's is used. It must not know what objects
//! mean.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::path::Path as FilePath;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Made in the directory, with `#` and a number behind, to see what can be done there. Such names are never listed.
const TRIAL: &str = ".writable";

/// A directory as an object store.
#[derive(Debug)]
pub(crate) struct Directory {
    files: LocalFileSystem,
    /// Whether a file can be renamed so that nothing is replaced.
    renames: bool,
}

impl Directory {
    /// The store on `directory`, which is there.
    ///
    /// # Errors
    /// When the path cannot be resolved.
    pub(crate) fn open(directory: &FilePath, renames: bool) -> Result<Self> {
        // The crate does not sync by default, and an acknowledged record must outlive a power cut.
        let files = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self { files, renames })
    }
}

/// Creates the directory and syncs each parent that got a new entry, so that the entry outlives a power cut.
pub(crate) fn make_durable(directory: &FilePath) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists());
    let missing: Vec<_> = missing.collect();
    fs::create_dir_all(directory)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(FilePath::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Fails when no file can be made in the directory.
pub(crate) fn check_writable(directory: &FilePath) -> io::Result<()> {
    let file = directory.join(format!("{TRIAL}#0"));
    File::create(&file)?;
    match fs::remove_file(&file) {
        // Another process that opens the same directory may have been faster.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a file of the directory can be renamed so that nothing is replaced.
pub(crate) fn takes_renames(directory: &FilePath) -> bool {
    match try_rename(directory) {
        Ok(()) => true,
        // What an ended process has renamed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
        Err(error) => {
            let directory = directory.display();
            tracing::debug!(%directory, %error, "the store directory has no rename that replaces nothing");
            false
        }
    }
}

fn try_rename(directory: &FilePath) -> io::Result<()> {
    let parent = File::open(directory)?;
    let (staged, _) = stage(&parent, TRIAL.as_ref())?;
    let mut renamed = staged.clone();
    renamed.push("0");
    let tried = rename(&parent, &staged, &renamed);
    let trial = if tried.is_ok() { renamed } else { staged };
    tried.and(remove(&parent, &trial))
}

/// Creates the file `at` with `payload`, durably, unless there is one. Blocks for as long as the disk takes.
///
/// The name comes last: whoever finds it, in this life of the machine or the next, finds all bytes. Until then the file has
/// one that is never listed, which stays behind when the process ends in between.
fn create(at: &FilePath, payload: &PutPayload) -> Result<()> {
    let failed = |error| failed(at, error);
    let (Some(directory), Some(name)) = (at.parent(), at.file_name()) else {
        return Err(failed(io::ErrorKind::InvalidFilename.into()));
    };
    let parent = open_or_make(directory).map_err(failed)?;
    let (staged, mut file) = stage(&parent, name).map_err(failed)?;
    let written = write_all(&mut file, payload).and_then(|()| file.sync_all());
    let named = written.and_then(|()| rename(&parent, &staged, name));
    if named.is_err() {
        // When that fails, too, the first error is what is to be known.
        drop(remove(&parent, &staged));
    }
    // Also when the name is taken: it may be by an earlier try of the same create, of which only this step failed.
    match &named {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {}
        Ok(()) | Err(_) => parent.sync_all().map_err(failed)?,
    }
    named.map_err(failed)
}

fn open_or_make(directory: &FilePath) -> io::Result<File> {
    match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_durable(directory)?;
            File::open(directory)
        }
        opened => opened,
    }
}

/// A new file beside `name`, by a name that only one create has.
fn stage(parent: &File, name: &OsStr) -> io::Result<(OsString, File)> {
    for number in 1_u64.. {
        let mut staged = name.to_os_string();
        staged.push(format!("#{number}"));
        match make(parent, &staged) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (staged, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(target_os = "linux")]
fn make(parent: &File, name: &OsStr) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    // What the mask of the process leaves of it, as with any file.
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, mode)?.into())
}

/// Renames a file of a directory; fails when the new name is taken.
#[cfg(target_os = "linux")]
fn rename(parent: &File, from: &OsStr, to: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(parent, from, parent, to, rustix::fs::RenameFlags::NOREPLACE)?)
}

#[cfg(target_os = "linux")]
fn remove(parent: &File, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(parent, name, rustix::fs::AtFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn make(_parent: &File, _name: &OsStr) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn rename(_parent: &File, _from: &OsStr, _to: &OsStr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn remove(_parent: &File, _name: &OsStr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes all pieces, by one system call when the kernel takes them so.
fn write_all(file: &mut impl Write, payload: &PutPayload) -> io::Result<()> {
    let mut pieces: Vec<IoSlice<'_>> = payload.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut pieces[..];
    // Takes away empty pieces at the front: a write of nothing would look like a full disk.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn failed(at: &FilePath, error: io::Error) -> Error {
    let path = at.display().to_string();
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Error::AlreadyExists { path, source: error.into() };
    }
    let source = io::Error::new(error.kind(), format!("file {path} cannot be created: {error}"));
    Error::Generic { store: "directory", source: source.into() }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if !self.renames || !matches!(options.mode, PutMode::Create) || !options.attributes.is_empty() {
            return self.files.put_opts(path, payload, options).await;
        }
        let at = self.files.path_to_filesystem(path)?;
        tokio::task::spawn_blocking(move || create(&at, &payload)).await??;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
