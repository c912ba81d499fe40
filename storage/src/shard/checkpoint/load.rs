//! Reads checkpoints from the bucket, as streams: neither an object nor its rows are in memory as a whole.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use tokio::sync::mpsc::{self, error::TryRecvError};
use xxhash_rust::xxh3::Xxh3;

use super::format::{Head, Part, read_op, read_row};
use super::merge::{Layer, Ranges};
use crate::env::{apart, has_threads};
use crate::error::{Error, Kind, Result};
use crate::ids::{SessionId, Slot};
use crate::layout;
use crate::slot::unreadable;
use crate::state::{StateOp, StateStore};
use crate::store::ObjectStores;
use crate::wal::format::{HEADER_BYTES, Header, ObjectKind};

/// The first request for a checkpoint. Most are no larger.
const FIRST_BYTES: u64 = 64 * 1024;
/// The rest comes by requests of this size, so that none of them takes long,
const RANGE_BYTES: u64 = 4 * 1024 * 1024;
/// so many at a time.
const RANGES_AHEAD: usize = 4;
/// How many parts are opened at a time.
const OPENED_AT_ONCE: usize = 8;
const ROWS_BUFFER_BYTES: usize = 64 * 1024;

/// A checkpoint in the bucket of which the beginning was read.
#[derive(Debug)]
pub(crate) struct Stored {
    path: Path,
    header: Header,
    pub(crate) head: Head,
    /// Where in the object the rows begin.
    rows_at: usize,
    first: Bytes,
}

impl Stored {
    /// Reads the beginning of a checkpoint.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be read, `Corrupt` when it is missing or broken.
    pub(crate) async fn open(stores: &ObjectStores, session: SessionId, number: Slot) -> Result<Self> {
        let path = layout::checkpoint(session, number);
        let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("checkpoint {path} {what}"));
        let first = match stores.read.get_range(&path, 0..FIRST_BYTES).await {
            Ok(first) => first,
            Err(StoreError::NotFound { .. }) => return Err(corrupt("is missing")),
            Err(error) => return Err(unreadable(&path, error)),
        };
        let header = Header::parse(&first)?;
        if header.session != session || header.number != number.0 {
            return Err(corrupt("is not the one that its name says"));
        }
        let (head, rows_at) = Head::parse(header.kind, first.slice(HEADER_BYTES..))?;
        Ok(Self { path, header, head, rows_at: HEADER_BYTES + rows_at, first })
    }

    async fn open_part(stores: &ObjectStores, part: Part) -> Result<Self> {
        let stored = Self::open(stores, part.session, part.number).await?;
        if stored.part() != part {
            return Err(Error::new(
                Kind::Corrupt,
                format!("checkpoint {} is not the part it is named as", stored.path),
            ));
        }
        Ok(stored)
    }

    /// Opens the parts of a checkpoint.
    ///
    /// # Errors
    /// As [`Stored::open`].
    pub(crate) async fn open_all(stores: &ObjectStores, parts: &[Part]) -> Result<Vec<Self>> {
        let opened = stream::iter(parts.to_vec()).map(|part| Self::open_part(stores, part));
        opened.buffered(OPENED_AT_ONCE).try_collect().await
    }

    /// What another checkpoint names it as.
    pub(crate) fn part(&self) -> Part {
        Part::of(&self.header)
    }

    /// All that a checkpoint which builds on this one names.
    pub(crate) fn parts(&self) -> Vec<Part> {
        self.head.parts.iter().copied().chain([self.part()]).collect()
    }

    /// Sends the bytes from the rows on, until there are no more or nobody takes them.
    async fn feed(self, stores: &ObjectStores, bytes: mpsc::Sender<Result<Bytes>>) {
        let (len, path) = (self.header.object_len(), &self.path);
        let ranges = (self.first.len() as u64..len).step_by(usize::try_from(RANGE_BYTES).expect("it is small"));
        let rest = stream::iter(ranges).map(|from| async move {
            let read = stores.read.get_range(path, from..len.min(from + RANGE_BYTES)).await;
            read.map_err(|error| unreadable(path, error))
        });
        let first = stream::iter([Ok(self.first.slice(self.rows_at..))]);
        let mut pieces = std::pin::pin!(first.chain(rest.buffered(RANGES_AHEAD)));
        while let Some(piece) = pieces.next().await {
            let failed = piece.is_err();
            if bytes.send(piece).await.is_err() || failed {
                return;
            }
        }
    }

    /// The reader's side of [`Stored::feed`].
    fn incoming(&self, pieces: mpsc::Receiver<Result<Bytes>>) -> Incoming {
        let mut hash = Xxh3::new();
        hash.update(&self.first[HEADER_BYTES..self.rows_at]);
        let left = self.header.object_len().saturating_sub(self.rows_at as u64);
        Incoming { pieces, piece: Bytes::new(), left, hash, expected: self.header.body_hash() }
    }
}

/// Runs `work` over the layers of checkpoints on a thread that may block, while their bytes are fetched here.
///
/// # Errors
/// Those of `work`, whose rows end with `Unavailable` when the bucket cannot be read and with `Corrupt` when an object is
/// broken.
pub(crate) async fn with_layers<T: Send + 'static>(
    stores: &ObjectStores,
    objects: Vec<Stored>,
    work: impl FnOnce(Vec<Layer>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let beside = has_threads();
    let mut feeds = Vec::with_capacity(objects.len());
    let mut inputs = Vec::with_capacity(objects.len());
    for object in objects {
        // Without a thread beside this one all is fetched first.
        let ranges = usize::try_from(object.header.object_len() / RANGE_BYTES).expect("a checkpoint fits the memory");
        let (sender, pieces) = mpsc::channel(if beside { 1 } else { ranges + 3 });
        inputs.push((object.header.kind, object.incoming(pieces)));
        feeds.push(object.feed(stores, sender));
    }
    let work = move || {
        let layers = inputs.into_iter().map(|(kind, incoming)| open_layer(kind, incoming));
        work(layers.collect::<Result<_>>()?)
    };
    let work = apart("reading checkpoints", work);
    if beside {
        return futures::join!(work, join_all(feeds)).0;
    }
    join_all(feeds).await;
    work.await
}

/// Loads the rows of a checkpoint for which `wanted` holds into the state store. Gives all that a checkpoint which
/// builds on this one names.
///
/// # Errors
/// `Unavailable` when it cannot be read, `Corrupt` when it or a part of it is missing or broken.
pub(crate) async fn load(
    stores: &ObjectStores,
    session: SessionId,
    number: Slot,
    state: &Arc<dyn StateStore>,
    wanted: impl Fn(&[u8]) -> bool + Send + 'static,
) -> Result<Vec<Part>> {
    let newest = Stored::open(stores, session, number).await?;
    let parts = newest.parts();
    let mut objects = Stored::open_all(stores, &newest.head.parts).await?;
    objects.push(newest);
    let state = Arc::clone(state);
    with_layers(stores, objects, move |layers| {
        let rows = Layer::flattened(layers)?;
        state.load(&mut rows.filter(|row| row.as_ref().map_or(true, |(key, _)| wanted(key))))
    })
    .await?;
    Ok(parts)
}

/// The bytes of an object, as they come. At the end they must be those that its header names.
struct Incoming {
    pieces: mpsc::Receiver<Result<Bytes>>,
    piece: Bytes,
    left: u64,
    hash: Xxh3,
    expected: u128,
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        while self.piece.is_empty() {
            if self.left == 0 {
                let intact = self.hash.digest128() == self.expected;
                return if intact { Ok(0) } else { Err(invalid("the body is not the one that the header names")) };
            }
            let piece = match self.pieces.try_recv() {
                Err(TryRecvError::Empty) => self.pieces.blocking_recv(),
                Err(TryRecvError::Disconnected) => None,
                Ok(piece) => Some(piece),
            };
            match piece {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            self.left =
                self.left.checked_sub(self.piece.len() as u64).ok_or_else(|| invalid("the body is too long"))?;
            self.hash.update(&self.piece);
        }
        let len = out.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut out[..len]);
        Ok(len)
    }
}

fn open_layer(kind: ObjectKind, incoming: Incoming) -> Result<Layer> {
    let rows = zstd::Decoder::new(incoming).map_err(broken)?;
    let mut rows = BufReader::with_capacity(ROWS_BUFFER_BYTES, rows);
    if kind == ObjectKind::FullCheckpoint {
        return Ok(Layer { ranges: Ranges::default(), rows: Box::new(changes(None, move || read_row(&mut rows))) });
    }
    let mut ranges = Vec::new();
    let first = loop {
        match read_op(&mut rows).map_err(broken)? {
            Some(StateOp::DeleteRange(from, to)) => ranges.push((from, to)),
            other => break other,
        }
    };
    Ok(Layer { ranges: Ranges::of(ranges), rows: Box::new(changes(first, move || read_op(&mut rows))) })
}

fn changes(
    first: Option<StateOp>,
    mut next: impl FnMut() -> io::Result<Option<StateOp>>,
) -> impl Iterator<Item = Result<(Bytes, Option<Bytes>)>> {
    let rest = std::iter::from_fn(move || next().map_err(broken).transpose());
    first.into_iter().map(Ok).chain(rest).map(|op| match op? {
        StateOp::Put(key, value) => Ok((key, Some(value))),
        StateOp::Delete(key) => Ok((key, None)),
        StateOp::DeleteRange(..) => Err(Error::new(Kind::Corrupt, "a checkpoint has a range among its rows")),
    })
}

/// An error of reading: of the bucket, if that is what is below it, else of the bytes.
fn broken(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(Kind::Corrupt, "checkpoint cannot be read").with_source(error),
    }
}
