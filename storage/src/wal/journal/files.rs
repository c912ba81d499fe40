//! The files of the journal, version 1. Little endian.
//!
//! ```text
//! name     session . number, 20 digits .journal
//! head     magic "PLINTHJN" · version u16 · cluster 16 · session 16 · number u64 · crc32c of the bytes before u32
//! frame    length of the body u32 · crc32c of the body u32 · crc32c of the eight bytes before u32 · body, as that of a slot
//! end      0xffffffff · zero u32 · crc32c of the eight bytes before u32: the next file goes on
//! ```
//! A file is created, appended to, ended and removed when all of it is in the bucket; never changed. Calls block for as
//! long as the disk takes.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ulid::Ulid;

use crate::ids::{ClusterId, SessionId};
use crate::wal::format::get_ulid;

const MAGIC: &[u8; 8] = b"PLINTHJN";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 54;
const FRAME_HEAD_BYTES: usize = 12;
const END: u32 = u32::MAX;
const SUFFIX: &str = "journal";
/// A file that has grown to this is ended.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
const WRITE_BYTES: usize = 256 * 1024;

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) session: SessionId,
}

/// A batch as it is stored.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The buffer that it is stored in the bucket with.
    pub(crate) buffer: u64,
    pub(crate) body: Vec<Bytes>,
}

/// The files of this session, open for appending.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    owner: Owner,
    file: File,
    path: PathBuf,
    number: u64,
    len: u64,
    last_buffer: Option<u64>,
    /// Files that are ended, each with the last buffer in it.
    ended: VecDeque<(PathBuf, Option<u64>)>,
    /// No other process uses the directory before the last write of this one is over.
    _lock: Option<Arc<File>>,
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) owner: Owner,
    pub(crate) bodies: Vec<Bytes>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The file ends with its last frame, or in the middle of one that nobody was told of.
    Open,
    /// The next file goes on.
    Next,
    /// What comes then is damaged.
    Broken,
}

/// The files of one session, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct FoundSession {
    files: Vec<(u64, PathBuf)>,
}

impl Files {
    /// Begins the journal of a session with an empty file.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn create(dir: &Path, owner: Owner, lock: Option<Arc<File>>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let (file, path) = create_file(dir, owner, 0)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            owner,
            file,
            path,
            number: 0,
            len: HEAD_BYTES as u64,
            last_buffer: None,
            ended: VecDeque::new(),
            _lock: lock,
        })
    }

    /// Appends frames and syncs them.
    ///
    /// # Errors
    /// When the disk refuses; what was written may be there or not, and the files take nothing more.
    pub(crate) fn append(&mut self, frames: impl Iterator<Item = Frame>) -> io::Result<()> {
        let mut frames = frames.peekable();
        if frames.peek().is_none() {
            return Ok(());
        }
        while frames.peek().is_some() {
            if self.len >= FILE_BYTES {
                self.next_file()?;
            }
            let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut self.file);
            while let Some(frame) = frames.next_if(|_| self.len < FILE_BYTES) {
                self.len += write_frame(&mut out, &frame.body)?;
                self.last_buffer = self.last_buffer.max(Some(frame.buffer));
            }
            out.flush()?;
        }
        self.file.sync_data()
    }

    /// Whether there is a file besides the one that is written.
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Removes files all of whose batches are in buffers below `committed`.
    pub(crate) fn remove_committed(&mut self, committed: u64) {
        while let Some((path, last)) = self.ended.front() {
            if last.is_some_and(|last| last >= committed) {
                return;
            }
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a journal file that is not needed cannot be removed");
            }
            self.ended.pop_front();
        }
    }

    fn next_file(&mut self) -> io::Result<()> {
        self.file.write_all(&frame_head(END, 0))?;
        self.file.sync_data()?;
        self.number += 1;
        let (file, path) = create_file(&self.dir, self.owner, self.number)?;
        self.file = file;
        let ended = std::mem::replace(&mut self.path, path);
        self.ended.push_back((ended, self.last_buffer.take()));
        self.len = HEAD_BYTES as u64;
        Ok(())
    }
}

impl FoundSession {
    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The bodies in a file, as far as it can be read, and whether it ends as it should: then whatever was acknowledged by
    /// it and is not in it is in the bucket, and the same is true of all files together if it is of each.
    pub(crate) async fn read(&self, index: usize, owner: Owner) -> (Vec<Bytes>, bool) {
        let (number, path) = self.files[index].clone();
        let contents = tokio::task::spawn_blocking(move || read(&path)).await.ok().flatten();
        let Some(contents) = contents.filter(|contents| contents.owner == owner) else { return (Vec::new(), false) };
        let is_next = index == 0 || self.files[index - 1].0 + 1 == number;
        let ending = if index + 1 < self.files.len() { Ending::Next } else { Ending::Open };
        (contents.bodies, is_next && contents.ending == ending)
    }

    /// Removes the files: all that they hold is in the bucket, or lost. Those of another cluster stay, because its records
    /// may be nowhere else: the directory was used for another bucket since.
    pub(crate) fn remove(&self, owner: Owner) {
        let is_foreign = |path: &Path| read_owner(path).is_some_and(|found| found.cluster != owner.cluster);
        let (foreign, ours): (Vec<&PathBuf>, _) =
            self.files.iter().map(|(_, path)| path).partition(|path| is_foreign(path));
        for path in ours {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a journal file of an earlier session cannot be removed");
            }
        }
        if let Some(first) = foreign.first() {
            let (path, files) = (first.display(), foreign.len());
            tracing::warn!(session = %owner.session, %path, files, "the journal of another cluster is kept, for a start on its bucket");
        }
    }
}

/// The journals in a directory; none when it cannot be read.
pub(crate) fn find(dir: &Path) -> BTreeMap<SessionId, FoundSession> {
    let mut found = BTreeMap::<SessionId, FoundSession>::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((session, number)) = name.to_str().and_then(parse_name) else { continue };
        found.entry(session).or_default().files.push((number, entry.path()));
    }
    found.values_mut().for_each(|session| session.files.sort_unstable());
    found
}

fn name(session: SessionId, number: u64) -> String {
    format!("{session}.{number:020}.{SUFFIX}")
}

fn parse_name(name: &str) -> Option<(SessionId, u64)> {
    let (session, rest) = name.split_once('.')?;
    let number = rest.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    Some((SessionId(Ulid::from_string(session).ok()?), number.parse().ok()?))
}

fn create_file(dir: &Path, owner: Owner, number: u64) -> io::Result<(File, PathBuf)> {
    let path = dir.join(name(owner.session, number));
    let mut file = File::options().create_new(true).append(true).open(&path)?;
    file.write_all(&head(owner, number))?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok((file, path))
}

fn head(owner: Owner, number: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES);
    out.put_slice(MAGIC);
    out.put_u16_le(VERSION);
    out.put_slice(&owner.cluster.0.to_bytes());
    out.put_slice(&owner.session.0.to_bytes());
    out.put_u64_le(number);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out.freeze()
}

/// The length has a checksum of its own: else a damaged one would look like a file that ends too early.
fn frame_head(len: u32, body_crc: u32) -> [u8; FRAME_HEAD_BYTES] {
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..8].copy_from_slice(&body_crc.to_le_bytes());
    let crc = crc32c::crc32c(&head[..8]);
    head[8..].copy_from_slice(&crc.to_le_bytes());
    head
}

fn write_frame(out: &mut impl Write, body: &[Bytes]) -> io::Result<u64> {
    let len: usize = body.iter().map(Bytes::len).sum();
    let crc = body.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
    out.write_all(&frame_head(u32::try_from(len).expect("a batch is bounded far below 4 GiB"), crc))?;
    body.iter().try_for_each(|piece| out.write_all(piece))?;
    Ok((FRAME_HEAD_BYTES + len) as u64)
}

/// Whose a file is, or `None` when it cannot be read.
fn read_owner(path: &Path) -> Option<Owner> {
    let mut head = vec![0; HEAD_BYTES];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    parse_head(Bytes::from(head)).map(|(owner, _)| owner)
}

/// What a file holds, or `None` when it is none of ours.
fn read(path: &Path) -> Option<Contents> {
    let bytes = Bytes::from(fs::read(path).ok()?);
    let (owner, mut rest) = parse_head(bytes)?;
    let mut bodies = Vec::new();
    let ending = loop {
        if rest.len() < FRAME_HEAD_BYTES {
            break Ending::Open;
        }
        let head = rest.split_to(FRAME_HEAD_BYTES);
        let (len, crc) = ((&head[..4]).get_u32_le(), (&head[4..8]).get_u32_le());
        if head != frame_head(len, crc)[..] {
            break Ending::Broken;
        }
        if len == END {
            break if rest.is_empty() { Ending::Next } else { Ending::Broken };
        }
        if rest.len() < len as usize {
            break Ending::Open;
        }
        let body = rest.split_to(len as usize);
        if crc32c::crc32c(&body) != crc {
            break Ending::Broken;
        }
        bodies.push(body);
    };
    Some(Contents { owner, bodies, ending })
}

fn parse_head(mut bytes: Bytes) -> Option<(Owner, Bytes)> {
    if bytes.len() < HEAD_BYTES {
        return None;
    }
    let mut head = bytes.split_to(HEAD_BYTES);
    let crc = crc32c::crc32c(&head[..HEAD_BYTES - 4]);
    if !head.starts_with(MAGIC) || (&head[HEAD_BYTES - 4..]).get_u32_le() != crc {
        return None;
    }
    head.advance(MAGIC.len());
    if head.get_u16_le() != VERSION {
        return None;
    }
    let owner = Owner { cluster: ClusterId(get_ulid(&mut head)), session: SessionId(get_ulid(&mut head)) };
    Some((owner, bytes))
}

#[cfg(test)]
mod tests;
