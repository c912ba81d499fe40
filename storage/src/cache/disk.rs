//! The SSD layer of the page cache: a RocksDB that drops its oldest files when it is full.
//!
//! A value is `[CRC32C of all that follows: 4][path length: 4][path][page number: 8][page]`, integers little-endian: what
//! does not name the page asked for, or has another checksum, is not there. The first error of the disk, damage to a
//! single page apart, ends the use of it. Nothing here fails a read, and nothing waits for a slow disk to take a page.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, DB, DBCompactionStyle, DBCompressionType, ErrorKind, FifoCompactOptions, Options, ReadOptions,
    WriteOptions, properties,
};

use super::PageKey;

const WRITE_BUFFER_BYTES: usize = 16 << 20;
const WRITE_BUFFERS: i32 = 2;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const CHECKSUM_BYTES: usize = 4;

/// The pages on the SSD.
pub(super) struct DiskPages {
    db: DB,
    dir: PathBuf,
    off: AtomicBool,
    damaged: AtomicU64,
    skipped: AtomicU64,
    errors: AtomicU64,
}

/// What the SSD layer has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskMetrics {
    pub(super) bytes: u64,
    pub(super) damaged: u64,
    pub(super) skipped: u64,
    pub(super) errors: u64,
}

impl DiskPages {
    /// The pages in `dir`; none, and a line in the log, when it cannot be used. A damaged cache is begun anew; files that
    /// are not ours are left alone.
    pub(super) fn open(dir: PathBuf, disk_bytes: u64) -> Option<Self> {
        match open_db(&dir, disk_bytes) {
            Ok(db) => Some(Self {
                db,
                dir,
                off: AtomicBool::new(false),
                damaged: AtomicU64::new(0),
                skipped: AtomicU64::new(0),
                errors: AtomicU64::new(0),
            }),
            Err(why) => {
                tracing::warn!(dir = %dir.display(), why, "page cache directory cannot be used, caching in memory only");
                None
            }
        }
    }

    /// The page, if it is here whole.
    pub(super) async fn get(self: &Arc<Self>, key: &PageKey, page_bytes: usize) -> Option<Bytes> {
        let (disk, key) = (Arc::clone(self), key.clone());
        if disk.off.load(Ordering::Relaxed) {
            return None;
        }
        tokio::task::spawn_blocking(move || disk.get_blocking(&key, page_bytes)).await.ok()?
    }

    /// Stores the page, unless the disk is behind.
    pub(super) async fn put(self: &Arc<Self>, key: &PageKey, page: &Bytes) {
        let (disk, key, page) = (Arc::clone(self), key.clone(), page.clone());
        if disk.off.load(Ordering::Relaxed) {
            return;
        }
        // It fails only when the runtime ends, and then nobody misses the page.
        let _ended = tokio::task::spawn_blocking(move || disk.put_blocking(&key, &page)).await;
    }

    /// Drops the page.
    pub(super) async fn remove(self: &Arc<Self>, key: &PageKey) {
        let (disk, key) = (Arc::clone(self), key.clone());
        if disk.off.load(Ordering::Relaxed) {
            return;
        }
        // As in `put`.
        let _ended = tokio::task::spawn_blocking(move || {
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            if let Err(error) = disk.db.delete_opt(header(&key), &options) {
                disk.turn_off(&error);
            }
        })
        .await;
    }

    pub(super) fn metrics(&self) -> DiskMetrics {
        let size = |property| self.db.property_int_value(property).ok().flatten().unwrap_or_default();
        DiskMetrics {
            bytes: size(properties::TOTAL_SST_FILES_SIZE) + size(properties::CUR_SIZE_ALL_MEM_TABLES),
            damaged: self.damaged.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }

    fn get_blocking(&self, key: &PageKey, page_bytes: usize) -> Option<Bytes> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        let header = header(key);
        match self.db.get_opt(&header, &options) {
            Ok(None) => None,
            Ok(Some(value)) => {
                let page = unframe(Bytes::from(value), &header, page_bytes);
                if page.is_none() {
                    self.damaged.fetch_add(1, Ordering::Relaxed);
                }
                page
            }
            // The next fill writes the page anew, in front of the damaged one.
            Err(error) if error.kind() == ErrorKind::Corruption => {
                self.damaged.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(error) => {
                self.turn_off(&error);
                None
            }
        }
    }

    fn put_blocking(&self, key: &PageKey, page: &Bytes) {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        options.set_no_slowdown(true);
        let header = header(key);
        match self.db.put_opt(&header, frame(&header, page), &options) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Incomplete => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.turn_off(&error),
        }
    }

    fn turn_off(&self, error: &rocksdb::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if !self.off.swap(true, Ordering::Relaxed) {
            let dir = self.dir.display();
            tracing::warn!(%dir, %error, "page cache directory failed, caching in memory only from now on");
        }
    }
}

fn open_db(dir: &Path, disk_bytes: u64) -> Result<DB, String> {
    fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let mut entries = fs::read_dir(dir).map_err(|error| error.to_string())?;
    if entries.next().is_some() && !dir.join("CURRENT").exists() {
        return Err("it holds files that are not a page cache".to_owned());
    }
    let options = options(disk_bytes);
    match DB::open(&options, dir) {
        Ok(db) => Ok(db),
        // RocksDB names the lock file in its message when another has the directory open: no reason to remove anything.
        Err(error) if error.as_ref().contains("LOCK: ") => Err("it is in use by another process".to_owned()),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "page cache directory is damaged, starting it anew");
            DB::destroy(&options, dir).map_err(rocksdb::Error::into_string)?;
            DB::open(&options, dir).map_err(rocksdb::Error::into_string)
        }
    }
}

fn options(disk_bytes: u64) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    // The layer above keeps what is hot; a second copy in memory would serve nobody.
    table.disable_cache();
    let mut fifo = FifoCompactOptions::default();
    fifo.set_max_table_files_size(disk_bytes);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compaction_style(DBCompactionStyle::Fifo);
    options.set_fifo_compaction_options(&fifo);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options
}

/// The name of a page on the SSD: the key of its row, and the echo in its value.
fn header(key: &PageKey) -> Vec<u8> {
    let path = key.path.as_ref().as_bytes();
    let path_bytes = u32::try_from(path.len()).expect("the name of an object is below 4 GiB");
    [&path_bytes.to_le_bytes()[..], path, &key.number.to_le_bytes()].concat()
}

fn frame(header: &[u8], page: &[u8]) -> Vec<u8> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(header), page);
    [&checksum.to_le_bytes()[..], header, page].concat()
}

/// The page in `value` when value, name and length are right.
fn unframe(value: Bytes, header: &[u8], page_bytes: usize) -> Option<Bytes> {
    let (checksum, framed) = value.split_first_chunk::<CHECKSUM_BYTES>()?;
    let whole = crc32c::crc32c(framed) == u32::from_le_bytes(*checksum)
        && framed.strip_prefix(header).is_some_and(|page| page.len() == page_bytes);
    whole.then(|| value.slice(CHECKSUM_BYTES + header.len()..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, number: u64) -> PageKey {
        PageKey { path: object_store::path::Path::from(path), number }
    }

    #[test]
    fn a_framed_page_reads_back_only_under_its_own_name_and_length() {
        let value = Bytes::from(frame(&header(&key("a/b", 1)), b"page"));
        assert_eq!(unframe(value.clone(), &header(&key("a/b", 1)), 4).as_deref(), Some(&b"page"[..]));
        assert_eq!(unframe(value.clone(), &header(&key("a/b", 2)), 4), None);
        assert_eq!(unframe(value.clone(), &header(&key("a/c", 1)), 4), None);
        assert_eq!(unframe(value, &header(&key("a/b", 1)), 3), None);
    }

    #[test]
    fn a_page_with_any_bit_flipped_or_its_end_cut_off_is_not_there() {
        let header = header(&key("a/b", 1));
        let value = frame(&header, b"page");
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unframe(Bytes::from(damaged), &header, 4), None, "bit {bit}");
        }
        for cut in 0..value.len() {
            assert_eq!(unframe(Bytes::copy_from_slice(&value[..cut]), &header, 4), None, "cut to {cut}");
        }
    }
}
