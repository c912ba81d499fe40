//! The state store on the SSD: one RocksDB with one column family and without a write-ahead log of its own, because the
//! log in the bucket is one. What a crash takes is replayed from there.
//!
//! Memory: a block cache of 32 MiB and two write buffers of 16 MiB. Any damage is `Corrupt`: the caller wipes the
//! directory and starts from the bucket.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, IngestExternalFileOptions, IteratorMode, Options,
    ReadOptions, SstFileWriter, WriteBatch, WriteOptions,
};

use super::{Snapshot, StateOp, StateRow, StateStore, ascending, closed};
use crate::directory::check_writable;
use crate::error::{Error, Kind, Result};

const BLOCK_CACHE_BYTES: usize = 32 << 20;
const WRITE_BUFFER_BYTES: usize = 16 << 20;
const WRITE_BUFFERS: i32 = 2;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Rows that are loaded go into files of about this size.
const LOAD_FILE_BYTES: u64 = 64 << 20;

/// Rows of a snapshot travel in chunks of about this many bytes, at most [`SNAPSHOT_CHUNKS`] ahead of the reader.
const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
const SNAPSHOT_CHUNKS: usize = 4;

/// An ordered map on the local disk.
pub struct RocksState {
    /// None when it is closed. Who is in RocksDB holds it, so that a close waits for him.
    db: RwLock<Option<Arc<DB>>>,
    /// Ends the snapshots, which have the database for themselves.
    closed: Arc<AtomicBool>,
    dir: PathBuf,
}

impl RocksState {
    /// Opens the store in `dir`, which is created when it is missing.
    ///
    /// # Errors
    /// `Corrupt` when what is there cannot be used: [`RocksState::wipe`] it and open again.
    /// `Invalid` when the directory cannot be written, or is in use: it must not be wiped then.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).and_then(|()| check_writable(dir)).map_err(|error| {
            Error::new(Kind::Invalid, format!("state directory {} cannot be written", dir.display())).with_source(error)
        })?;
        let db = DB::open(&options(), dir).map_err(|error| open_error(dir, error))?;
        Ok(Self { db: RwLock::new(Some(Arc::new(db))), closed: Arc::default(), dir: dir.to_path_buf() })
    }

    /// Removes the store in `dir`, whole or damaged, and nothing else that lies there.
    ///
    /// # Errors
    /// `Invalid` when the directory is in use or cannot be written.
    pub fn wipe(dir: &Path) -> Result<()> {
        DB::destroy(&Options::default(), dir).map_err(|error| {
            Error::new(Kind::Invalid, format!("state directory {} cannot be wiped", dir.display())).with_source(error)
        })
    }

    /// Calls with the database, unless it is closed.
    fn with<T>(&self, call: impl FnOnce(&Arc<DB>) -> Result<T>) -> Result<T> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        db.as_ref().ok_or_else(closed).and_then(call)
    }

    fn corrupt(&self, error: rocksdb::Error) -> Error {
        corrupt(&self.dir, error)
    }
}

impl StateStore for RocksState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.with(|db| {
            let value = db.get_pinned_opt(key, &read_options()).map_err(|error| self.corrupt(error))?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<StateRow>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let mut options = read_options();
        options.set_iterate_upper_bound(to);
        self.with(|db| {
            let mut iterator = db.raw_iterator_opt(options);
            iterator.seek(from);
            let mut rows = Vec::new();
            while rows.len() < limit {
                let Some(row) = current(&iterator) else { break };
                rows.push(row);
                iterator.next();
            }
            iterator.status().map_err(|error| self.corrupt(error))?;
            Ok(rows)
        })
    }

    fn last_at_or_before(&self, from: &[u8], upto: &[u8]) -> Result<Option<StateRow>> {
        if from > upto {
            return Ok(None);
        }
        let mut options = read_options();
        options.set_iterate_lower_bound(from);
        self.with(|db| {
            let mut iterator = db.raw_iterator_opt(options);
            iterator.seek_for_prev(upto);
            let row = current(&iterator);
            iterator.status().map_err(|error| self.corrupt(error))?;
            Ok(row)
        })
    }

    fn write(&self, ops: &[StateOp]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for op in ops {
            match op {
                StateOp::Put(key, value) => batch.put(key, value),
                StateOp::Delete(key) => batch.delete(key),
                StateOp::DeleteRange(from, to) if from < to => batch.delete_range(from, to),
                StateOp::DeleteRange(..) => {}
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.with(|db| db.write_opt(batch, &options).map_err(|error| self.corrupt(error)))
    }

    /// The rows become sorted files that RocksDB takes as they are.
    fn load(&self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
        let mut files = LoadFiles { dir: &self.dir, paths: Vec::new() };
        let mut rows = ascending(rows).peekable();
        while rows.peek().is_some() {
            files.write_one(&mut rows)?;
        }
        if files.paths.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let paths = files.paths.clone();
        self.with(|db| db.ingest_external_file_opts(&options, paths).map_err(|error| self.corrupt(error)))
    }

    /// The rows are read by a thread of its own, because an iterator of RocksDB cannot outlive a borrow of its database.
    /// The directory stays in use until the snapshot is dropped, or read to its end.
    fn snapshot(&self) -> Snapshot {
        let db = match self.with(|db| Ok(Arc::clone(db))) {
            Ok(db) => db,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        let (sender, chunks) = sync_channel(SNAPSHOT_CHUNKS);
        let (closed, dir) = (Arc::clone(&self.closed), self.dir.clone());
        let reader = thread::spawn(move || read_snapshot((&db, &closed), &dir, &sender));
        // The first, empty chunk says that the view is taken: what is written from now on is not in it.
        let rows = match chunks.recv() {
            Ok(opened) => opened.into_iter(),
            Err(_) => vec![Err(ended_early(&self.dir))].into_iter(),
        };
        Box::new(SnapshotRows { rows, chunks: Some(chunks), reader: Some(reader), dir: self.dir.clone() })
    }

    fn flush(&self) -> Result<()> {
        self.with(|db| db.flush().map_err(|error| self.corrupt(error)))
    }

    /// A snapshot under way ends with its next chunk, and lets go of the directory then.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(db);
    }
}

/// Files of sorted rows beside those of the database, gone when this is dropped: RocksDB has its own links then.
struct LoadFiles<'a> {
    dir: &'a Path,
    paths: Vec<PathBuf>,
}

impl LoadFiles<'_> {
    /// Writes rows into one more file until it is full or there are none left.
    fn write_one(&mut self, rows: &mut dyn Iterator<Item = Result<StateRow>>) -> Result<()> {
        let path = self.dir.join(format!("load-{}.sst", self.paths.len()));
        self.paths.push(path.clone());
        let options = options();
        let mut file = SstFileWriter::create(&options);
        file.open(&path).map_err(|error| corrupt(self.dir, error))?;
        while file.file_size() < LOAD_FILE_BYTES {
            let Some(row) = rows.next() else { break };
            let (key, value) = row?;
            file.put(key, value).map_err(|error| corrupt(self.dir, error))?;
        }
        file.finish().map_err(|error| corrupt(self.dir, error))
    }
}

impl Drop for LoadFiles<'_> {
    fn drop(&mut self) {
        for path in &self.paths {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a file of the local state is left behind");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// Some rows of a snapshot; an error is the last one. The empty chunk at the end says that nothing is missing.
type Chunk = Vec<Result<StateRow>>;

/// The reader's side of a snapshot. Owns its thread: dropped, it waits until the thread has let go of the database.
struct SnapshotRows {
    rows: std::vec::IntoIter<Result<StateRow>>,
    chunks: Option<Receiver<Chunk>>,
    reader: Option<JoinHandle<()>>,
    dir: PathBuf,
}

impl Iterator for SnapshotRows {
    type Item = Result<StateRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.rows.next() {
            return Some(row);
        }
        let Ok(chunk) = self.chunks.as_ref()?.recv() else {
            self.chunks = None;
            return Some(Err(ended_early(&self.dir)));
        };
        if chunk.is_empty() {
            self.chunks = None;
        }
        self.rows = chunk.into_iter();
        self.rows.next()
    }
}

impl Drop for SnapshotRows {
    fn drop(&mut self) {
        self.chunks = None;
        if let Some(reader) = self.reader.take() {
            // A panic of the thread was already told as an error in place of the missing rows.
            let _panicked = reader.join();
        }
    }
}

/// Sends an empty chunk when the view is taken, all rows, and an empty chunk at the end. A receiver that is gone ends it, and
/// the close of the store does.
fn read_snapshot((db, is_closed): (&DB, &AtomicBool), dir: &Path, chunks: &SyncSender<Chunk>) {
    let mut options = read_options();
    options.fill_cache(false);
    let mut rows = db.iterator_opt(IteratorMode::Start, options);
    if chunks.send(Vec::new()).is_err() {
        return;
    }
    loop {
        if is_closed.load(Ordering::Acquire) {
            let _nobody_reads = chunks.send(vec![Err(closed())]);
            return;
        }
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while bytes < SNAPSHOT_CHUNK_BYTES {
            let Some(row) = rows.next() else { break };
            let row = row.map(|(key, value)| (Bytes::from(key), Bytes::from(value)));
            bytes += row.as_ref().map_or(SNAPSHOT_CHUNK_BYTES, |(key, value)| key.len() + value.len());
            chunk.push(row.map_err(|error| corrupt(dir, error)));
        }
        let done = chunk.is_empty();
        if chunks.send(chunk).is_err() || done {
            return;
        }
    }
}

fn current(iterator: &DBRawIterator<'_>) -> Option<StateRow> {
    let (key, value) = iterator.item()?;
    Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
}

fn read_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    quiet(&mut options);
    options
}

/// Keeps RocksDB's own log files few and small; they are of use only to someone who looks into the directory.
fn quiet(options: &mut Options) {
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
}

fn open_error(dir: &Path, error: rocksdb::Error) -> Error {
    // RocksDB names the lock file in both of its messages: held by this process, and held by another one.
    if error.as_ref().contains("LOCK: ") {
        let detail = format!("state directory {} is in use by another process or session", dir.display());
        return Error::new(Kind::Invalid, detail).with_source(error);
    }
    corrupt(dir, error)
}

fn corrupt(dir: &Path, error: rocksdb::Error) -> Error {
    Error::new(Kind::Corrupt, format!("local state in {} cannot be used", dir.display())).with_source(error)
}

fn ended_early(dir: &Path) -> Error {
    Error::new(Kind::Corrupt, format!("the snapshot of the local state in {} ended early", dir.display()))
}
