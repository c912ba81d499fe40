//! The files of one session's slots, one after the other, and which of them takes the next record.
//!
//! A file that is long, or that failed, gets the mark of its end, if it does not end with a part of a record, and is synced before the next is begun. So when there
//! is a later one, nothing is added to a file that counts. One whose objects are all deleted is removed once there is a later one: the last always stays, numbers only
//! go up, and whoever has lost sight goes on to the first that is there, and from that one to the last.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{Appender, SlotFile, What};
use super::{Pack, Place, lock};
use crate::directory::make_durable;

/// What the files are called, with `#` and their number behind: a name that the crate's store never lists.
const NAME: &str = "slots#";
/// That of the files, and those above it up to that of the store, which may have been made for it.
const NEW_DIRECTORIES: usize = 4;

/// The files, as far as they are read.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Those before the last one that are not removed yet.
    pub(super) passed: Vec<Arc<SlotFile>>,
    pub(super) last: Option<Last>,
    /// The number of the newest that was seen.
    number: Option<u64>,
    /// Whether no later one was there when it was looked for.
    is_last: bool,
    /// Whether there were objects in files of their own before any were packed.
    pub(super) plain: bool,
    /// Whether nothing was packed when it was looked.
    is_unpacked: bool,
    /// Whether a record is damaged so that nobody knows whose it was: any slot that is not found may be it.
    pub(super) damaged: bool,
}

/// The file that takes the next record.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) file: Arc<SlotFile>,
    appender: Option<Appender>,
    /// Up to where its records are known.
    pub(super) end: u64,
    /// Up to where it is known to be on the disk.
    pub(super) synced: u64,
    /// It takes no more: its end is marked, or what stands at `end` is no record and never will be one.
    over: bool,
    /// The record of which the sync failed: neither it nor its mark as deleted is known to be on the disk.
    pub(super) unsynced: Option<Range<u64>>,
}

impl Pack {
    /// Reads what was appended since.
    pub(super) fn read_on(&self, chain: &mut Chain) -> io::Result<()> {
        if chain.is_unpacked && chain.plain {
            // Nor will anything be packed here: a look at all names for each slot would be for nothing.
            return Ok(());
        }
        loop {
            if let Some(last) = &mut chain.last {
                let len = last.file.metadata()?.len();
                self.read_records(last, &mut chain.damaged, len)?;
                // There is a later one only behind a mark of the end, or behind a part of a record.
                if chain.is_last && !last.over && last.end == len {
                    return Ok(());
                }
            } else if chain.number.is_none() {
                chain.plain = names(&self.directory)?.iter().any(|name| !name.contains('#'));
            }
            let Some(next) = self.next_file(chain.number)? else {
                chain.is_last = true;
                chain.is_unpacked = chain.number.is_none();
                return Ok(());
            };
            self.go_on(chain, next)?;
        }
    }

    /// Reads the last file to its end, which is its end for good, since there is a later one.
    pub(super) fn go_on(&self, chain: &mut Chain, next: SlotFile) -> io::Result<()> {
        if let Some(last) = &mut chain.last {
            self.read_records(last, &mut chain.damaged, last.file.metadata()?.len())?;
            if let Some(at) = &last.unsynced {
                last.file.mark_deleted(at.start)?;
                last.sync()?;
                last.unsynced = None;
            }
        }
        // What others have removed is only held open here.
        chain.passed.retain(|file| !file.is_empty() || file.is_named().unwrap_or(true));
        chain.number = Some(next.number);
        (chain.is_last, chain.is_unpacked) = (false, false);
        let last = Last { file: Arc::new(next), appender: None, end: 0, synced: 0, over: false, unsynced: None };
        chain.passed.extend(chain.last.replace(last).map(|last| last.file));
        Ok(())
    }

    /// Reads the records of a file below `until`, as far as they are whole, or were.
    fn read_records(&self, last: &mut Last, is_damaged: &mut bool, until: u64) -> io::Result<()> {
        while !last.over && last.end < until {
            let record = match last.file.record(last.end, until)? {
                Some(record) => record,
                None => {
                    let Some(damaged) = last.file.damaged(last.end, until)? else { break };
                    let (file, at) = (self.path(last.file.number), last.end);
                    tracing::error!(file = %file.display(), at, "a slot of the store directory is damaged");
                    damaged
                }
            };
            let place = Place { file: Arc::clone(&last.file), at: record.at.clone() };
            match record.what {
                What::Object(slot) => self.found(slot, place)?,
                What::Deleted if self.appends => lock(&self.deleted).push(place),
                What::Deleted | What::Erased => {}
                What::Damaged => {
                    *is_damaged = true;
                    // Nobody deletes it, so its file stays.
                    last.file.found();
                }
                What::End => last.over = true,
            }
            last.end = record.at.end;
        }
        Ok(())
    }

    /// The first file after one.
    pub(super) fn next_file(&self, after: Option<u64>) -> io::Result<Option<SlotFile>> {
        loop {
            let numbers = names(&self.directory)?.into_iter().filter_map(|name| number_of(&name));
            let Some(next) = numbers.filter(|number| after.is_none_or(|after| *number > after)).min() else {
                return Ok(None);
            };
            match SlotFile::open(&self.path(next), next) {
                // Removed meanwhile; then there is a later one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened.map(Some),
            }
        }
    }

    /// The file that takes the next record, with its appender.
    pub(super) fn writable<'a>(&self, chain: &'a mut Chain) -> io::Result<&'a mut Last> {
        // A fence stays for good: it is not to keep a long file of its predecessor.
        let is_short =
            |last: &Last| last.end < if last.appender.is_some() { self.file_bytes } else { self.kept_bytes() };
        let takes = |last: &Last| !last.over && last.unsynced.is_none() && is_short(last);
        while !(chain.last.as_ref().is_some_and(takes) && self.open_appender(chain)?) {
            self.begin_next(chain)?;
        }
        Ok(chain.last.as_mut().expect("it takes records"))
    }

    /// Opens the last file to append to it; false when it has no name any more.
    fn open_appender(&self, chain: &mut Chain) -> io::Result<bool> {
        let last = chain.last.as_mut().expect("a file was begun");
        if !last.file.is_named()? {
            return Ok(false);
        }
        if last.appender.is_none() {
            // Whoever made it may not have come to this.
            for directory in self.directory.ancestors().take(NEW_DIRECTORIES) {
                File::open(directory)?.sync_all()?;
            }
            last.appender = last.file.appender()?;
        }
        Ok(last.appender.is_some())
    }

    /// Appends a record; returns its place, or `None` when the file was over before it.
    ///
    /// What stands before a record of one's own is final: the kernel lets one write after the other.
    pub(super) fn append(
        &self,
        chain: &mut Chain,
        write: impl FnOnce(&mut Appender, u64) -> io::Result<Range<u64>>,
    ) -> io::Result<Option<Range<u64>>> {
        let Chain { last: Some(last), damaged, .. } = chain else { return Ok(None) };
        let Some(appender) = &mut last.appender else { return Ok(None) };
        let at = write(appender, last.synced)?;
        self.read_records(last, damaged, at.start)?;
        if last.over || last.end < at.start {
            last.over = true;
            // A disk may be full.
            last.file.take_bytes(&at)?;
            return Ok(None);
        }
        last.end = at.end;
        Ok(Some(at))
    }

    /// Marks the end of the last file.
    pub(super) fn end(&self, chain: &mut Chain) -> io::Result<()> {
        self.append(chain, |appender, synced| appender.end(synced))?;
        if let Some(last) = &mut chain.last {
            last.over = true;
        }
        Ok(())
    }

    /// Ends the last file, if there is one, and goes on with the next, which another process may have begun.
    pub(super) fn begin_next(&self, chain: &mut Chain) -> io::Result<()> {
        if chain.last.is_some() {
            let is_named = self.open_appender(chain)?;
            let last = chain.last.as_mut().expect("it was there");
            if !is_named {
                self.forget_file(&last.file);
            } else if !last.over {
                if last.unsynced.is_none() && last.synced < last.end {
                    // The mark of the end is to tell that what stands before it was there.
                    last.sync()?;
                }
                self.end(chain)?;
            }
            let last = chain.last.as_mut().expect("it was there");
            last.over = true;
            if let Some(at) = &last.unsynced {
                last.file.mark_deleted(at.start)?;
            }
            // What comes after this may not outlive what came before it.
            last.sync()?;
            last.unsynced = None;
        }
        let next = match self.next_file(chain.number)? {
            Some(next) => next,
            None => self.make_file(chain.number.map_or(1, |number| number + 1))?,
        };
        self.go_on(chain, next)?;
        self.read_on(chain)
    }

    /// Makes the file of this number, or opens it where another process was faster.
    pub(super) fn make_file(&self, number: u64) -> io::Result<SlotFile> {
        make_durable(&self.directory)?;
        let path = self.path(number);
        let made = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        // Others may have made it, filled it, and removed it since we looked. Then there is a later one, and ours is none.
        if let Some(later) = self.next_file(Some(number))? {
            if made && let Err(error) = fs::remove_file(&path) {
                // Others that see it empty remove it, too.
                tracing::debug!(%error, "a file of slots is gone already");
            }
            return Ok(later);
        }
        SlotFile::open(&path, number)
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{NAME}{number}"))
    }
}

impl Last {
    /// What was written to the file, by whomever, is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match &self.appender {
            Some(appender) => appender.sync()?,
            None => self.file.sync()?,
        }
        self.synced = self.end;
        Ok(())
    }
}

/// The names in a directory that are text; none when there is no directory.
pub(in crate::directory) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(io::Result::transpose).collect()
}

/// The number of a file of slots.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(NAME)?.parse().ok()?;
    (name == format!("{NAME}{number}")).then_some(number)
}
