//! The slots of one session on a directory: records in a few files to which they are appended, in place of a file for each.
//!
//! A create appends its record, looks whether anybody else's came in between, and syncs: one wait for the disk, no
//! inode, no lock. That is all the agreement there is between processes (`pack/file.rs`), so a process that stands still keeps nobody waiting.
//! What is known of the files is a cache: it is read from them when it is missing, and brought up to date before a create,
//! before a list, and when a slot is not found. A deleted object is marked at once and erased a little later, when the mark is on the
//! disk. Why it is safe is in ADR 41. It must not know what the objects mean.

mod chain;
mod file;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub(super) use self::chain::names;
use self::chain::{Chain, Last};
use self::file::{HEAD_BYTES, SlotFile};

/// A file that is longer gets no more records.
const FILE_BYTES: u64 = 64 << 20;
/// The last file is ended when it is longer than this and all of it is deleted, or another process comes to write.
const KEPT_BYTES: u64 = 1 << 20;

/// The slots of one session.
#[derive(Debug)]
pub(super) struct Pack {
    directory: PathBuf,
    /// Whether the file system keeps what the files rely on.
    appends: bool,
    file_bytes: u64,
    /// Locked before the others.
    chain: Mutex<Chain>,
    places: Mutex<BTreeMap<u64, Place>>,
    /// What is marked as deleted and not erased.
    deleted: Mutex<Vec<Place>>,
}

/// What a create came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The object is there, on the disk, and it is the caller's.
    Created,
    /// Another one has the number, and is on the disk.
    Taken,
    /// Nothing: it belongs into a file of its own, as those of this session that are there, or on a file system that does not keep what
    /// this needs.
    Elsewhere,
}

/// An object as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) slot: u64,
    pub(super) len: u64,
    pub(super) modified: SystemTime,
}

/// Bytes of an object, and which of them.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) listed: Listed,
    pub(super) range: Range<u64>,
    pub(super) bytes: Vec<u8>,
}

/// Where an object is.
#[derive(Clone, Debug)]
struct Place {
    file: Arc<SlotFile>,
    /// The record.
    at: Range<u64>,
}

impl Pack {
    /// What is appended to the files of `directory`, which need not be there; nothing is, unless the file system `appends`.
    pub(super) fn new(directory: PathBuf, appends: bool) -> Self {
        Self {
            directory,
            appends,
            file_bytes: FILE_BYTES,
            chain: Mutex::default(),
            places: Mutex::default(),
            deleted: Mutex::default(),
        }
    }

    /// Creates the object that as a file would be `at`, durably, unless there is one. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// When the disk refuses. Nobody finds the object then, as far as it could be marked, but those who looked at that moment. `Unsupported` where slots are
    /// packed and the file system does not keep what another one needs; `InvalidData` where it could be one that is damaged.
    pub(super) fn create(&self, at: &Path, slot: u64, payload: &[&[u8]]) -> io::Result<Made> {
        let mut chain = self.chain();
        self.read_on(&mut chain)?;
        loop {
            if self.find_known(slot)?.is_some() {
                // It may be of another process, which has not synced it yet.
                chain.last.iter_mut().try_for_each(Last::sync)?;
                return Ok(Made::Taken);
            }
            self.check_writable(&chain)?;
            if !self.appends || chain.plain && (chain.last.is_none() || at.try_exists()?) {
                return Ok(Made::Elsewhere);
            }
            let last = self.writable(&mut chain)?;
            if last.synced < last.end {
                // Others wrote that: once in a takeover.
                last.sync()?;
            }
            let file = Arc::clone(&last.file);
            let Some(at) = self.append(&mut chain, |appender, synced| appender.object(slot, synced, payload))? else {
                continue;
            };
            let place = Place { file, at };
            if self.find_known(slot)?.is_some() {
                self.discard(place)?;
                continue;
            }
            if let Err(error) = self.check_writable(&chain) {
                self.discard(place)?;
                return Err(error);
            }
            if let Err(error) = chain.last.iter_mut().try_for_each(Last::sync) {
                self.sync_failed(&mut chain, place);
                return Err(error);
            }
            self.know(slot, place);
            return Ok(Made::Created);
        }
    }

    fn check_writable(&self, chain: &Chain) -> io::Result<()> {
        if !self.appends && chain.last.is_some() {
            let why = "slots of this session share files, which takes a local file system (ext4, XFS, Btrfs, F2FS, ZFS, tmpfs): \
                       copy the store with `plinth restore`";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        if chain.damaged {
            let why = "a slot of this session is damaged so that its number is not known: it could be the one that is to be created";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(())
    }

    /// Bytes of an object, those of the range that `range` says for its length; `None` when there is no such object.
    ///
    /// # Errors
    /// When the disk refuses, or `range` does.
    pub(super) fn read<E: From<io::Error>>(
        &self,
        slot: u64,
        range: impl FnOnce(u64) -> Result<Range<u64>, E>,
    ) -> Result<Option<Read>, E> {
        let Some(place) = self.find(slot)? else { return Ok(None) };
        let listed = place.listed(slot)?;
        let range = range(listed.len)?;
        let bytes = place.file.read(place.at.start, range.clone())?;
        // What is deleted is marked before it is erased.
        let is_whole = place.file.is_live(place.at.start)?;
        Ok(is_whole.then_some(Read { listed, range, bytes }))
    }

    /// Deletes an object; false when there is none. Its bytes are there until [`Pack::erase_deleted`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn remove(&self, slot: u64) -> io::Result<bool> {
        let Some(place) = self.find(slot)? else { return Ok(false) };
        self.discard(place.clone())?;
        self.forget(slot, &place);
        Ok(true)
    }

    /// All objects, in the order of their numbers.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn list(&self) -> io::Result<Vec<Listed>> {
        self.read_on(&mut self.chain())?;
        let places = self.places().clone();
        let mut out = Vec::with_capacity(places.len());
        for (slot, place) in places {
            if place.file.is_live(place.at.start)? {
                out.push(place.listed(slot)?);
            } else {
                self.forget(slot, &place);
            }
        }
        Ok(out)
    }

    /// Ends the last file when all of it is deleted, so that it can go, and gives the space of what is deleted back.
    ///
    /// # Errors
    /// As [`Pack::erase_deleted`].
    pub(super) fn end_empty(&self) -> io::Result<()> {
        let mut chain = self.chain();
        self.read_on(&mut chain)?;
        let kept = self.kept_bytes();
        if self.appends && chain.last.as_ref().is_some_and(|last| last.file.is_empty() && last.end >= kept) {
            self.begin_next(&mut chain)?;
        }
        drop(chain);
        self.erase_deleted()
    }

    /// Gives the space of what is deleted back to the disk: whole files, and parts of those in which there is something else. What
    /// cannot be done now is tried the next time.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn erase_deleted(&self) -> io::Result<()> {
        if !self.appends {
            return Ok(());
        }
        let removed = self.remove_empty();
        let mut deleted = std::mem::take(&mut *lock(&self.deleted));
        let erased = erase(&mut deleted);
        lock(&self.deleted).append(&mut deleted);
        removed.and(erased)
    }

    /// Removes the files before the last one of which everything is deleted.
    fn remove_empty(&self) -> io::Result<()> {
        let mut chain = self.chain();
        if !chain.passed.iter().any(|file| file.is_empty()) {
            return Ok(());
        }
        // None goes before the name of a later one is on the disk.
        File::open(&self.directory)?.sync_all()?;
        let mut removed = Ok(());
        chain.passed.retain(|file| {
            let goes = file.is_empty() && removed.is_ok();
            if goes {
                removed = file.remove();
            }
            !goes || removed.is_err()
        });
        removed
    }

    fn kept_bytes(&self) -> u64 {
        KEPT_BYTES.min(self.file_bytes)
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        lock(&self.chain)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<u64, Place>> {
        lock(&self.places)
    }

    /// Where an object is.
    fn find(&self, slot: u64) -> io::Result<Option<Place>> {
        if let Some(place) = self.find_known(slot)? {
            return Ok(Some(place));
        }
        self.read_on(&mut self.chain())?;
        self.find_known(slot)
    }

    fn find_known(&self, slot: u64) -> io::Result<Option<Place>> {
        let known = self.places().get(&slot).cloned();
        let Some(place) = known else { return Ok(None) };
        if place.file.is_live(place.at.start)? {
            return Ok(Some(place));
        }
        // Another process has deleted it.
        self.forget(slot, &place);
        Ok(None)
    }

    /// Notes the object of a record that was read. The first record of a number is its object.
    fn found(&self, slot: u64, place: Place) -> io::Result<()> {
        match self.find_known(slot)? {
            None => self.know(slot, place),
            // Its writer has lost, or stopped before it could see that.
            Some(first) if self.appends && (first.at != place.at || !Arc::ptr_eq(&first.file, &place.file)) => {
                if let Err(error) = self.discard(place) {
                    tracing::warn!(slot, %error, "a record that lost cannot be marked as deleted");
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn know(&self, slot: u64, place: Place) {
        if let Entry::Vacant(entry) = self.places().entry(slot) {
            place.file.found();
            entry.insert(place);
        }
    }

    fn forget(&self, slot: u64, place: &Place) {
        let mut places = self.places();
        if let Entry::Occupied(entry) = places.entry(slot)
            && Arc::ptr_eq(&entry.get().file, &place.file)
            && entry.get().at == place.at
        {
            entry.remove();
            place.file.gone();
        }
    }

    /// Forgets what was in a file that is gone.
    fn forget_file(&self, file: &Arc<SlotFile>) {
        tracing::warn!(file = %self.path(file.number).display(), "a file of the store directory is gone");
        self.places().retain(|_, place| {
            let stays = !Arc::ptr_eq(&place.file, file);
            if !stays {
                file.gone();
            }
            stays
        });
    }

    /// Marks an object as deleted.
    fn discard(&self, place: Place) -> io::Result<()> {
        place.file.mark_deleted(place.at.start)?;
        lock(&self.deleted).push(place);
        Ok(())
    }

    /// Nobody knows whether the record is on the disk. The file gets no other before its mark as deleted is.
    fn sync_failed(&self, chain: &mut Chain, place: Place) {
        chain.last.iter_mut().for_each(|last| last.unsynced = Some(place.at.clone()));
        if let Err(error) = self.discard(place).and_then(|()| self.end(chain)) {
            tracing::warn!(%error, "a record that could not be synced stays until it can be marked");
        }
    }
}

impl Place {
    fn listed(&self, slot: u64) -> io::Result<Listed> {
        let len = self.at.end - self.at.start - HEAD_BYTES;
        Ok(Listed { slot, len, modified: self.file.metadata()?.modified()? })
    }
}

/// Erases deleted objects, in files that are still there, and takes them off the list.
fn erase(deleted: &mut Vec<Place>) -> io::Result<()> {
    deleted.sort_by_key(|place| (place.file.number, place.at.start));
    while let Some(file) = deleted.last().map(|place| Arc::clone(&place.file)) {
        let is_there = file.is_named()?;
        if is_there {
            file.sync()?;
        }
        while let Some(place) = deleted.pop_if(|place| Arc::ptr_eq(&place.file, &file)) {
            if is_there && let Err(error) = file.erase(&place.at) {
                deleted.push(place);
                return Err(error);
            }
        }
    }
    Ok(())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
