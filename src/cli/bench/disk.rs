//! The physical limits of the disk in the same run: one small durable file, and large synced blocks.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of the small file, about that of a write-ahead-log object under load.
const FILE_BYTES: usize = 64 << 10;
/// Size of a large block.
const BLOCK_BYTES: usize = 4 << 20;

/// The median time to make one file of 64 KiB durable: write, fsync, rename, fsync of the directory.
pub(super) fn durable_file(dir: &Path, times: usize) -> anyhow::Result<Duration> {
    let dir = dir.join("durable-files");
    fs::create_dir_all(&dir)?;
    let bytes = noise(FILE_BYTES);
    let mut all = Vec::with_capacity(times);
    for i in 0..times {
        let (temporary, last) = (dir.join("new"), dir.join(i.to_string()));
        let start = Instant::now();
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &last)?;
        File::open(&dir)?.sync_all()?;
        all.push(start.elapsed());
    }
    fs::remove_dir_all(&dir)?;
    all.sort_unstable();
    anyhow::ensure!(!all.is_empty(), "at least one file must be written");
    Ok(all[all.len() / 2])
}

/// Bytes per second of blocks of 4 MiB that are each synced, as `dd bs=4M oflag=dsync` writes them.
pub(super) fn synced_blocks(dir: &Path, blocks: u32) -> anyhow::Result<f64> {
    let path = dir.join("synced-blocks");
    let bytes = noise(BLOCK_BYTES);
    let mut file = File::create(&path)?;
    let start = Instant::now();
    for _ in 0..blocks {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    let time = start.elapsed();
    fs::remove_file(&path)?;
    Ok(f64::from(blocks) * BLOCK_BYTES as f64 / time.as_secs_f64())
}

/// Bytes that no layer below can shorten (xorshift; the same each time).
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
