//! Checkpoints: durable snapshots of all that a session owns, so that a start needs only the log after the last one.
//!
//! ```text
//! body     next slot u64 · hash of the object before it 16 · zstd of (key length u32 · value length u32 · key · value)*
//! ```
//! A checkpoint is a full snapshot. So that its cost stays a fraction of what is written anyway, the next one is due only
//! after a multiple of the size of the last one has gone into the log.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::env::until;
use crate::error::{Error, Kind, Result};
use crate::ids::{ObjectHash, SessionId, Slot};
use crate::layout;
use crate::metrics::{Health, StorageMetrics};
use crate::shard::rows::{Position, Row};
use crate::slot::{self, Created, Object, read_object};
use crate::state::{StateOp, StateRow, StateStore};
use crate::store::ObjectStores;
use crate::wal::fence::CHECKPOINT_HEAD_BYTES;
use crate::wal::format::{Header, ObjectKind};
use crate::wal::writer::{StopReason, Writer};

const COMPRESSION_LEVEL: i32 = 1;
/// So many times the size of the last checkpoint goes into the log before the next one.
const LOG_PER_CHECKPOINT: u64 = 4;
/// Rows of a checkpoint are written to the state store in batches of about this size.
const LOAD_BATCH_BYTES: usize = 1024 * 1024;

/// When checkpoints are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointOptions {
    pub(crate) interval: Duration,
    pub(crate) wal_bytes: u64,
}

/// Writes checkpoints of one session.
pub(crate) struct Checkpointer {
    pub(crate) session: SessionId,
    pub(crate) stores: ObjectStores,
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: StorageMetrics,
    pub(crate) options: CheckpointOptions,
    /// Asks for a checkpoint now.
    pub(crate) requested: Arc<Notify>,
}

/// The position at the start of a checkpoint's body: the first slot that is not in it, and the hash before it.
pub(crate) fn parse_head(mut body: &[u8]) -> Option<(Slot, ObjectHash)> {
    (body.len() >= CHECKPOINT_HEAD_BYTES).then(|| (Slot(body.get_u64_le()), ObjectHash(body.get_u128_le())))
}

impl Checkpointer {
    /// Writes checkpoints when they are due, until the log takes nothing more.
    pub(crate) async fn run(self, writer: Arc<Writer>) {
        let mut committed = writer.committed_bytes();
        let (mut number, mut last_size, mut at_bytes) = (Slot(0), 0, 0);
        let mut last_time = Instant::now();
        loop {
            let new_bytes = *committed.borrow_and_update() - at_bytes;
            let wait_until = last_time + self.options.interval;
            let asked = tokio::select! {
                _ = writer.stopped() => return,
                () = self.requested.notified() => true,
                changed = committed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
                () = until(Some(wait_until)), if new_bytes > 0 && wait_until > Instant::now() => false,
            };
            let new_bytes = *committed.borrow() - at_bytes;
            let enough = LOG_PER_CHECKPOINT * last_size;
            let by_bytes = new_bytes >= self.options.wal_bytes.max(enough);
            let by_time = last_time.elapsed() >= self.options.interval && new_bytes > 0 && 16 * new_bytes >= last_size;
            if !(asked || by_bytes || by_time) {
                continue;
            }
            at_bytes += new_bytes;
            last_time = Instant::now();
            match self.write(number).await {
                Ok(Written::Done(size)) => {
                    last_size = size;
                    number = number.next();
                }
                Ok(Written::Fenced(by)) => {
                    writer.stop(StopReason::Fenced(format!("session {} was ended by session {by}", self.session)));
                    return;
                }
                Err(error) => tracing::warn!(%error, "checkpoint failed, the next one is tried when it is due"),
            }
        }
    }

    async fn write(&self, number: Slot) -> Result<Written> {
        let state = Arc::clone(&self.state);
        let body = tokio::task::spawn_blocking(move || encode(&*state)).await;
        let body = body.map_err(|error| Error::new(Kind::Closed, "checkpoint was cut off").with_source(error))??;
        let size = body.len() as u64;
        let header = Header::new(ObjectKind::Checkpoint, self.session, number.0);
        let object = Object::new(layout::checkpoint(self.session, number), header, vec![body]);
        match slot::create(&self.stores, &object, &self.health, None).await? {
            Created::Ours => {
                self.metrics.checkpoints.inc();
                Ok(Written::Done(size))
            }
            Created::Taken(header) => Ok(Written::Fenced(header.author)),
        }
    }
}

enum Written {
    Done(u64),
    Fenced(SessionId),
}

fn encode(state: &dyn StateStore) -> Result<Bytes> {
    let broken =
        |error: std::io::Error| Error::new(Kind::Corrupt, "checkpoint cannot be compressed").with_source(error);
    let mut position = None;
    let mut out = zstd::Encoder::new(vec![0; CHECKPOINT_HEAD_BYTES], COMPRESSION_LEVEL).map_err(broken)?;
    for row in state.snapshot() {
        let (key, value) = row?;
        if !layout::is_checkpointed(&key) {
            position = Some(Position::parse(value)?);
            continue;
        }
        for part in [&key, &value] {
            let len = u32::try_from(part.len()).expect("a row is bounded far below 4 GiB");
            out.write_all(&len.to_le_bytes()).map_err(broken)?;
        }
        out.write_all(&key).map_err(broken)?;
        out.write_all(&value).map_err(broken)?;
    }
    let position = position.ok_or_else(|| Error::new(Kind::Corrupt, "state store has no position"))?;
    let mut body = out.finish().map_err(broken)?;
    body[..8].copy_from_slice(&position.next.0.to_le_bytes());
    body[8..CHECKPOINT_HEAD_BYTES].copy_from_slice(&position.hash.0.to_le_bytes());
    Ok(Bytes::from(body))
}

/// Loads the rows of a checkpoint for which `wanted` holds into the state store.
///
/// # Errors
/// `Unavailable` when it cannot be read, `Corrupt` when it is missing or broken.
pub(crate) async fn load(
    stores: &ObjectStores,
    session: SessionId,
    number: Slot,
    state: &Arc<dyn StateStore>,
    wanted: impl Fn(&[u8]) -> bool + Send + 'static,
) -> Result<()> {
    let path = layout::checkpoint(session, number);
    let missing = || Error::new(Kind::Corrupt, format!("checkpoint {path} is missing"));
    let object = read_object(stores, &path).await?.ok_or_else(missing)?;
    let (_, body) = Header::parse_object(&object)?;
    let state = Arc::clone(state);
    let loaded = tokio::task::spawn_blocking(move || load_rows(&body, &*state, &wanted)).await;
    loaded.map_err(|error| Error::new(Kind::Closed, "loading a checkpoint was cut off").with_source(error))?
}

fn load_rows(body: &Bytes, state: &dyn StateStore, wanted: &dyn Fn(&[u8]) -> bool) -> Result<()> {
    let broken = |error: std::io::Error| Error::new(Kind::Corrupt, "checkpoint cannot be read").with_source(error);
    let rows = body.get(CHECKPOINT_HEAD_BYTES..).unwrap_or_default();
    let mut rows = zstd::Decoder::new(rows).map_err(broken)?;
    let mut ops = Vec::new();
    let mut bytes = 0;
    while let Some((key, value)) = read_row(&mut rows).map_err(broken)? {
        if !wanted(&key) {
            continue;
        }
        bytes += key.len() + value.len();
        ops.push(StateOp::Put(key, value));
        if bytes >= LOAD_BATCH_BYTES {
            state.write(&ops)?;
            ops.clear();
            bytes = 0;
        }
    }
    state.write(&ops)
}

fn read_row(rows: &mut impl Read) -> std::io::Result<Option<StateRow>> {
    let mut lens = [0; 8];
    match rows.read_exact(&mut lens) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut lens = &lens[..];
    let mut key = vec![0; lens.get_u32_le() as usize];
    let mut value = vec![0; lens.get_u32_le() as usize];
    rows.read_exact(&mut key)?;
    rows.read_exact(&mut value)?;
    Ok(Some((Bytes::from(key), Bytes::from(value))))
}
