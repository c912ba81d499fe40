//! The store on a directory of this machine: slots are records in the files of their session, every other object is a file
//! that is whole on the disk before it has its name.
//!
//! Slots are most of what is written, and small: to append one costs a third of making a file (ADR 41). Of files, reads, lists and
//! deletes are those of the crate. Its create gives the file a second name and removes the first, and makes
//! a system call for each piece of an object; ours keeps the same promise by one rename that replaces nothing, for a fifth
//! less processor time (ADR 40). Where the file system has no such rename the crate's is used. It must not know what objects
//! mean.

mod pack;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use quick_cache::sync::Cache;

use self::pack::{Listed, Made, Pack, Read};
use crate::ids::{SessionId, Slot};
use crate::layout::{self, ObjectName, SlotsUnder};

const STORE: &str = "directory";
/// Made in the directory, with `#` and a number behind, to see what can be done there. Such names are never listed.
const TRIAL: &str = ".writable";

/// By the number that `statfs` gives: ext2 to ext4, XFS, Btrfs, F2FS, ZFS, tmpfs, overlayfs (of containers).
#[cfg(target_os = "linux")]
const LOCAL_FILE_SYSTEMS: [rustix::fs::FsWord; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630];
/// So many sessions' slots are known at a time; of the others they are read again.
const PACKS_KEPT: usize = 64;
/// How many objects are deleted at a time.
const DELETES_AT_ONCE: usize = 10;

/// A directory as an object store.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    files: Arc<LocalFileSystem>,
    can: Abilities,
    packs: Arc<Cache<SessionId, Arc<Pack>>>,
}

/// What the file system of a directory can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// A file can be renamed so that nothing is replaced.
    pub(crate) renames: bool,
    /// What several processes append to a file stands in it in one order, whole, for all of them.
    pub(crate) appends: bool,
}

impl Directory {
    /// The store on `directory`, which is there.
    ///
    /// # Errors
    /// When the path cannot be resolved.
    pub(crate) fn open(directory: &FilePath, can: Abilities) -> Result<Self> {
        // The crate does not sync by default, and an acknowledged record must outlive a power cut.
        let files = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self { files: Arc::new(files), can, packs: Arc::new(Cache::new(PACKS_KEPT)) })
    }

    fn pack(&self, session: SessionId) -> Result<Arc<Pack>> {
        self.packs.get_or_insert_with(&session, || self.open_pack(session).map(Arc::new))
    }

    /// What is known of it is not kept.
    fn open_pack(&self, session: SessionId) -> Result<Pack> {
        Ok(Pack::new(self.files.path_to_filesystem(&layout::wal_prefix(session))?, self.can.appends))
    }

    async fn put_slot(
        &self,
        path: &Path,
        (session, slot): (SessionId, Slot),
        payload: PutPayload,
    ) -> Result<PutResult> {
        let (pack, at) = (self.pack(session)?, self.files.path_to_filesystem(path)?);
        let (to, pieces) = (at.clone(), payload.clone());
        let made = tokio::task::spawn_blocking(move || {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            pack.create(&to, slot.0, &pieces)
        });
        let failed = |error| failed(&at, error);
        match made.await?.map_err(failed)? {
            Made::Created => Ok(put_result()),
            Made::Taken => Err(failed(io::ErrorKind::AlreadyExists.into())),
            Made::Elsewhere => self.put_file(path, payload, PutMode::Create.into()).await,
        }
    }

    async fn put_file(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if !self.can.renames || !matches!(options.mode, PutMode::Create) || !options.attributes.is_empty() {
            return self.files.put_opts(path, payload, options).await;
        }
        let at = self.files.path_to_filesystem(path)?;
        tokio::task::spawn_blocking(move || create(&at, &payload)).await??;
        Ok(put_result())
    }

    /// A slot that is packed, or `None`.
    async fn get_slot(
        &self,
        path: &Path,
        (session, slot): (SessionId, Slot),
        options: &GetOptions,
    ) -> Result<Option<GetResult>> {
        let pack = self.pack(session)?;
        let (wanted, head) = (options.range.clone(), options.head);
        let read = tokio::task::spawn_blocking(move || {
            pack.read(slot.0, |len| match wanted {
                _ if head => Ok(0..0),
                None => Ok(0..len),
                Some(range) => range.as_range(len).map_err(|error| Unread::Range(error.into())),
            })
        });
        let read = read.await?.map_err(|error| match error {
            Unread::Range(source) => Error::Generic { store: STORE, source },
            Unread::Io(error) => unreadable(path, error),
        })?;
        let Some(Read { listed, range, bytes }) = read else { return Ok(None) };
        let meta = meta(session, listed);
        options.check_preconditions(&meta)?;
        let payload = GetResultPayload::Stream(stream::once(async { Ok(Bytes::from(bytes)) }).boxed());
        Ok(Some(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() }))
    }

    /// Deletes an object, and notes the pack in which it was.
    async fn delete_one(&self, path: Path, packs: &Mutex<HashMap<SessionId, Arc<Pack>>>) -> Result<Path> {
        if let Some((session, slot)) = slot_of(&path) {
            let pack = self.pack(session)?;
            pack::lock(packs).insert(session, Arc::clone(&pack));
            let deleted = tokio::task::spawn_blocking(move || pack.remove(slot.0)).await?;
            if deleted.map_err(|error| unreadable(&path, error))? {
                return Ok(path);
            }
        }
        self.files.delete(&path).await.map(|()| path)
    }

    /// The packed slots under a prefix.
    fn list_slots(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (directory, under) = (self.clone(), layout::slots_under(prefix));
        let listed = async move {
            if under == SlotsUnder::None {
                return Ok(Vec::new());
            }
            tokio::task::spawn_blocking(move || directory.slots_of(under)).await?
        };
        stream::once(listed).map_ok(|listed| stream::iter(listed.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn slots_of(&self, under: SlotsUnder) -> Result<Vec<ObjectMeta>> {
        let root = layout::sessions_prefix();
        let sessions = match under {
            SlotsUnder::None => Vec::new(),
            SlotsUnder::One(session) => vec![session],
            SlotsUnder::All => {
                let names = pack::names(&self.files.path_to_filesystem(&root)?);
                let names = names.map_err(|error| unreadable(&root, error))?;
                names.iter().filter_map(|name| Some(SessionId(name.parse().ok()?))).collect()
            }
        };
        let mut out = Vec::new();
        for session in sessions {
            // Those of a long past would drive out those that are in use.
            let pack = self.packs.get(&session).map_or_else(|| self.open_pack(session).map(Arc::new), Ok)?;
            let listed = pack.list().map_err(|error| unreadable(&layout::wal_prefix(session), error))?;
            out.extend(listed.into_iter().map(|listed| meta(session, listed)));
            // What a process that ended had deleted and not erased.
            warn_of(session, pack.erase_deleted());
        }
        Ok(out)
    }
}

/// Gives the space of deleted slots back.
fn erase_deleted(packs: &Mutex<HashMap<SessionId, Arc<Pack>>>) {
    let packs = std::mem::take(&mut *pack::lock(packs));
    packs.iter().for_each(|(session, pack)| warn_of(*session, pack.end_empty()));
}

/// They are deleted whether that could be done now or is done the next time.
fn warn_of(session: SessionId, erased: io::Result<()>) {
    if let Err(error) = erased {
        tracing::warn!(%session, %error, "deleted slots still take space");
    }
}

/// Why a slot is not read.
enum Unread {
    Range(Box<dyn std::error::Error + Send + Sync>),
    Io(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn slot_of(path: &Path) -> Option<(SessionId, Slot)> {
    let ObjectName::Slot(session, slot) = ObjectName::parse(path)? else { return None };
    Some((session, slot))
}

fn meta(session: SessionId, Listed { slot, len, modified }: Listed) -> ObjectMeta {
    let location = layout::wal(session, Slot(slot));
    ObjectMeta { location, last_modified: modified.into(), size: len, e_tag: None, version: None }
}

fn put_result() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

fn not_for_slots(path: &Path) -> Error {
    let source = format!("{path} is a slot: it is created, read and deleted, and nothing else");
    Error::NotSupported { source: source.into() }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let source = io::Error::new(error.kind(), format!("{path} cannot be read or deleted: {error}"));
    Error::Generic { store: STORE, source: source.into() }
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

/// What can be done in the directory, which can be written.
pub(crate) fn abilities(directory: &FilePath) -> Abilities {
    Abilities { renames: takes_renames(directory), appends: takes_appends(directory) }
}

/// Whether the directory is on a file system of this machine alone, of a kind that keeps what several processes append in one order. Over a network
/// none does.
#[cfg(target_os = "linux")]
fn takes_appends(directory: &FilePath) -> bool {
    rustix::fs::statfs(directory).is_ok_and(|found| LOCAL_FILE_SYSTEMS.contains(&found.f_type))
}

#[cfg(not(target_os = "linux"))]
fn takes_appends(_directory: &FilePath) -> bool {
    false
}

/// Whether a file of the directory can be renamed so that nothing is replaced.
fn takes_renames(directory: &FilePath) -> bool {
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
    let mut pieces: Vec<IoSlice<'_>> = payload.iter().map(|piece| IoSlice::new(piece)).collect();
    let written = write_all(&mut file, &mut pieces).and_then(|()| file.sync_all());
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
fn write_all(file: &mut impl Write, mut left: &mut [IoSlice<'_>]) -> io::Result<()> {
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
    Error::Generic { store: STORE, source: source.into() }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match slot_of(path) {
            Some(slot) if matches!(options.mode, PutMode::Create) => self.put_slot(path, slot, payload).await,
            // A file beside the record would be another object under the same name.
            Some(_) => Err(not_for_slots(path)),
            None => self.put_file(path, payload, options).await,
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if slot_of(path).is_some() {
            return Err(not_for_slots(path));
        }
        self.files.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(slot) = slot_of(path)
            && let Some(got) = self.get_slot(path, slot, &options).await?
        {
            return Ok(got);
        }
        self.files.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (directory, packs) = (self.clone(), Arc::new(Mutex::default()));
        let touched = Arc::clone(&packs);
        let delete = move |path: Result<Path>| {
            let (directory, packs) = (directory.clone(), Arc::clone(&packs));
            async move { directory.delete_one(path?, &packs).await }
        };
        let erased = async move { tokio::task::spawn_blocking(move || erase_deleted(&touched)).await };
        let erased =
            stream::once(erased).filter_map(|ended| std::future::ready(ended.err().map(|error| Err(error.into()))));
        paths.map(delete).buffered(DELETES_AT_ONCE).chain(erased).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix).chain(self.list_slots(prefix)).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let after = offset.clone();
        let slots = self.list_slots(prefix).try_filter(move |slot| std::future::ready(slot.location > after));
        self.files.list_with_offset(prefix, offset).chain(slots).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.files.list_with_delimiter(prefix).await?;
        if let SlotsUnder::One(session) = layout::slots_under(prefix)
            && prefix == Some(&layout::wal_prefix(session))
        {
            listed.objects.extend(self.list_slots(prefix).try_collect::<Vec<_>>().await?);
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        for path in [from, to] {
            if slot_of(path).is_some() {
                return Err(not_for_slots(path));
            }
        }
        self.files.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
