//! One file of slots: records that are only ever appended, whoever appends them.
//!
//! ```text
//! record: magic u32 | state u8 | kind u8 | 0 u16 | length u32 | CRC32C of the object u32 | slot u64 | synced u64
//!         | CRC32C of the head u32 | the object
//! ```
//! Little endian. `synced` is up to where the writer knew the file to be on the disk. The checksum of the head covers what stands before it, but for
//! the state, and the name of the file, so that what an older file left on the disk is no record of this one. The state is the one byte that
//! changes: of an object that is deleted it is another, and a third when only the head is left.
//!
//! A kernel that appends (`O_APPEND`) gives each write the place behind all that came before it, and so puts the writes of all
//! processes in one order, which is what decides here: the first record of a name that is not deleted is the object. A record behind one
//! that is not whole, or behind the mark of the end, does not count, for anybody. But what a later record says was on the disk was whole once: that is
//! damage, which ends nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut};

use crate::directory::write_all;

/// Length of what stands before the bytes of an object.
pub(super) const HEAD_BYTES: u64 = 36;
const MAGIC: u32 = u32::from_le_bytes(*b"PLSR");
/// Where in a record its state stands.
const STATE_AT: u64 = 4;
/// No flip of a few bits makes one state of another.
const LIVE: u8 = 0x0f;
const DELETED: u8 = 0xf0;
const ERASED: u8 = 0xcc;
const OBJECT: u8 = 0;
const END: u8 = 1;
/// How much is read at once to check a record, or overwritten.
const CHECK_BYTES: usize = 256 << 10;

/// A file of slots, open to read and to mark what is deleted.
#[derive(Debug)]
pub(super) struct SlotFile {
    /// Counts up in the order in which the files were begun.
    pub(super) number: u64,
    path: PathBuf,
    file: File,
    /// How many objects of it are known and not deleted.
    live: AtomicUsize,
    /// What the checksums begin with.
    seed: u32,
}

/// A record, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) what: What,
    pub(super) at: Range<u64>,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The object of a slot.
    Object(u64),
    /// One that is deleted and not erased.
    Deleted,
    /// One of which only the head is left.
    Erased,
    /// The mark of the end.
    End,
    /// Nobody knows, since its head is damaged.
    Damaged,
}

impl SlotFile {
    /// The file under this name, which is there; also where nothing may be written.
    pub(super) fn open(path: &Path, number: u64) -> io::Result<Self> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                File::open(path)?
            }
            opened => opened?,
        };
        let name = path.components().rev().take(3).map(|part| part.as_os_str().as_encoded_bytes());
        let seed = name.fold(0, |seed, part| crc32c::crc32c_append(crc32c::crc32c_append(seed, part), b"/"));
        Ok(Self { number, path: path.to_path_buf(), file, live: AtomicUsize::new(0), seed })
    }

    /// A handle whose writes go to the end; `None` when another file has the name by now, or none.
    pub(super) fn appender(&self) -> io::Result<Option<Appender>> {
        let file = match OpenOptions::new().append(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let inode = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let is_same = inode(&file)? == inode(&self.file)?;
        Ok(is_same.then_some(Appender { file, seed: self.seed }))
    }

    pub(super) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// The record at `at`, of which nothing stands at or behind `until`; `None` when there is none that is whole.
    pub(super) fn record(&self, at: u64, until: u64) -> io::Result<Option<Record>> {
        if until.saturating_sub(at) < HEAD_BYTES {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES as usize];
        self.file.read_exact_at(&mut head, at)?;
        let Some(head) = Head::parse(self.seed, &head) else { return Ok(None) };
        let record = head.record(at);
        if record.at.end > until {
            return Ok(None);
        }
        if matches!(record.what, What::Deleted | What::Erased) {
            return Ok(Some(record));
        }
        match self.checksum(at + HEAD_BYTES..record.at.end) {
            Ok(sum) if sum == head.checksum => Ok(Some(record)),
            // It may have been deleted since its head was read.
            Ok(_) => Ok((!self.is_live(at)?).then_some(Record { what: What::Deleted, ..record })),
            // A place that cannot be read keeps nobody from the others.
            Err(error) if is_broken_place(&error) && self.was_synced(at, record.at.end, until)? => Ok(Some(record)),
            Err(error) => Err(error),
        }
    }

    /// What stands at `at`, where no record is whole, if one behind it tells that it was on the disk.
    pub(super) fn damaged(&self, at: u64, until: u64) -> io::Result<Option<Record>> {
        let Some((head, next)) = self.next_head(at, until)? else { return Ok(None) };
        let record = if next == at { head.record(at) } else { Record { what: What::Damaged, at: at..next } };
        // One that ends behind what there is was not finished, or is not yet.
        let is_damaged = record.at.end <= until && self.was_synced(at, record.at.end, until)?;
        Ok(is_damaged.then_some(record))
    }

    /// Whether a record at or behind `from` says that what stands at `at` was on the disk.
    fn was_synced(&self, at: u64, mut from: u64, until: u64) -> io::Result<bool> {
        while let Some((head, next)) = self.next_head(from, until)? {
            if head.synced > at && head.synced <= next {
                return Ok(true);
            }
            from = head.record(next).at.end;
        }
        Ok(false)
    }

    /// The first head at or behind `from`, and where it stands.
    fn next_head(&self, mut from: u64, until: u64) -> io::Result<Option<(Head, u64)>> {
        let mut window = Vec::new();
        // Most begin where they are expected.
        let mut len = HEAD_BYTES as usize;
        while until.saturating_sub(from) >= HEAD_BYTES {
            window.resize(usize::try_from(until - from).map_or(len, |left| left.min(len)), 0);
            self.file.read_exact_at(&mut window, from)?;
            let mut heads = window.windows(HEAD_BYTES as usize).zip(from..);
            let found = heads.find_map(|(bytes, at)| Some((Head::parse(self.seed, bytes)?, at)));
            if found.is_some() {
                return Ok(found);
            }
            from += window.len() as u64 - (HEAD_BYTES - 1);
            len = CHECK_BYTES;
        }
        Ok(None)
    }

    fn checksum(&self, mut range: Range<u64>) -> io::Result<u32> {
        let mut sum = 0;
        let mut buffer = Vec::new();
        while !range.is_empty() {
            let len = usize::try_from(range.end - range.start).map_or(CHECK_BYTES, |left| left.min(CHECK_BYTES));
            buffer.resize(len, 0);
            self.file.read_exact_at(&mut buffer, range.start)?;
            sum = crc32c::crc32c_append(sum, &buffer);
            range.start += len as u64;
        }
        Ok(sum)
    }

    /// Whether the object of the record at `at` is not deleted.
    pub(super) fn is_live(&self, at: u64) -> io::Result<bool> {
        let mut state = [DELETED];
        self.file.read_exact_at(&mut state, at + STATE_AT)?;
        Ok(state != [DELETED] && state != [ERASED])
    }

    /// Bytes of the object of the record at `at`.
    pub(super) fn read(&self, at: u64, range: Range<u64>) -> io::Result<Vec<u8>> {
        let len = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at + HEAD_BYTES + range.start)?;
        Ok(bytes)
    }

    /// Marks the object of the record at `at` as deleted.
    pub(super) fn mark_deleted(&self, at: u64) -> io::Result<()> {
        self.file.write_all_at(&[DELETED], at + STATE_AT)
    }

    /// Takes the bytes of an object away, and gives their space back to the disk. One that counts must be marked as deleted before, on the disk: without
    /// its bytes and its mark it looks like a write that was not finished.
    pub(super) fn erase(&self, at: &Range<u64>) -> io::Result<()> {
        self.take_bytes(at)?;
        self.file.write_all_at(&[ERASED], at.start + STATE_AT)
    }

    /// The same of a record that does not count: it stays one that is not whole.
    pub(super) fn take_bytes(&self, at: &Range<u64>) -> io::Result<()> {
        erase(&self.file, at.start + HEAD_BYTES..at.end)
    }

    /// What was written is on the disk, by whomever it was. An error of the disk is told to each handle once: what a create rests on is synced by the
    /// handle that it writes with.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether it has a name.
    pub(super) fn is_named(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }

    /// Removes the file; its handles go on.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    pub(super) fn found(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gone(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.load(Ordering::Relaxed) == 0
    }
}

/// A handle whose writes go to the end of a file.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    seed: u32,
}

impl Appender {
    /// Writes the record of an object; returns where it stands. It is not on the disk yet.
    ///
    /// # Errors
    /// When it cannot be written; a part of it may be.
    pub(super) fn object(&mut self, slot: u64, synced: u64, payload: &[&[u8]]) -> io::Result<Range<u64>> {
        self.append(OBJECT, (slot, synced), payload)
    }

    /// Writes the mark of the end; returns where it stands.
    pub(super) fn end(&mut self, synced: u64) -> io::Result<Range<u64>> {
        self.append(END, (0, synced), &[])
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn append(&mut self, kind: u8, (slot, synced): (u64, u64), payload: &[&[u8]]) -> io::Result<Range<u64>> {
        let len: usize = payload.iter().map(|piece| piece.len()).sum();
        let mut head = Vec::with_capacity(HEAD_BYTES as usize);
        head.put_u32_le(MAGIC);
        head.put_slice(&[LIVE, kind, 0, 0]);
        head.put_u32_le(u32::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
        head.put_u32_le(payload.iter().fold(0, |sum, piece| crc32c::crc32c_append(sum, piece)));
        head.put_u64_le(slot);
        head.put_u64_le(synced);
        head.put_u32_le(head_checksum(self.seed, &head));
        let mut pieces: Vec<_> = std::iter::once(&head[..]).chain(payload.iter().copied()).map(IoSlice::new).collect();
        write_all(&mut self.file, &mut pieces)?;
        let end = self.file.stream_position()?;
        Ok(end - HEAD_BYTES - len as u64..end)
    }
}

struct Head {
    what: What,
    len: u32,
    checksum: u32,
    synced: u64,
}

impl Head {
    fn parse(seed: u32, bytes: &[u8]) -> Option<Self> {
        let mut head = bytes;
        if head.get_u32_le() != MAGIC {
            return None;
        }
        let (state, kind, zero) = (head.get_u8(), head.get_u8(), head.get_u16_le());
        let (len, checksum, slot, synced) =
            (head.get_u32_le(), head.get_u32_le(), head.get_u64_le(), head.get_u64_le());
        let what = match (kind, state) {
            (OBJECT, LIVE) => What::Object(slot),
            (OBJECT, DELETED) => What::Deleted,
            (OBJECT, ERASED) => What::Erased,
            (END, LIVE) => What::End,
            _ => return None,
        };
        let is_ours = zero == 0 && head.get_u32_le() == head_checksum(seed, bytes);
        is_ours.then_some(Self { what, len, checksum, synced })
    }

    fn record(&self, at: u64) -> Record {
        Record { what: self.what, at: at..at + HEAD_BYTES + u64::from(self.len) }
    }
}

/// Whether the disk cannot give what stands at a place, as opposed to anything else that may be over in a moment.
fn is_broken_place(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The checksum of a head without its state and its own checksum.
fn head_checksum(seed: u32, head: &[u8]) -> u32 {
    let (before, behind) = (&head[..STATE_AT as usize], &head[STATE_AT as usize + 1..HEAD_BYTES as usize - 4]);
    crc32c::crc32c_append(crc32c::crc32c_append(seed, before), behind)
}

/// Nothing can be read of the range any more, and where the file system can do it the space is free.
#[cfg(target_os = "linux")]
fn erase(file: &File, range: Range<u64>) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    if range.is_empty() {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, range.start, range.end - range.start) {
        Err(rustix::io::Errno::OPNOTSUPP) => overwrite(file, range),
        punched => Ok(punched?),
    }
}

#[cfg(not(target_os = "linux"))]
fn erase(file: &File, range: Range<u64>) -> io::Result<()> {
    overwrite(file, range)
}

pub(super) fn overwrite(file: &File, mut range: Range<u64>) -> io::Result<()> {
    while !range.is_empty() {
        let len = usize::try_from(range.end - range.start).map_or(CHECK_BYTES, |left| left.min(CHECK_BYTES));
        file.write_all_at(&vec![0; len], range.start)?;
        range.start += len as u64;
    }
    Ok(())
}
