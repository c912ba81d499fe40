//! What the answers of one HTTP/2 connection hold in memory until their client takes it.
//!
//! hyper asks a body for a piece before the client has a window for it, and h2 takes the whole of it for a window of one byte. A piece of a live
//! stream is a batch: with many streams one connection could make the node hold a hundred of them. So a piece counts from
//! when its body gives it until the last byte of it is written or nobody wants it any more, and while a connection holds
//! too much none of its bodies is asked for more. They wait; nothing is lost or refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::Bytes;
use plinth_api::limits::HTTP2_HELD_BYTES_MAX;

use super::watch::Watch;

/// Smaller pieces are not counted: as many as there are streams do not matter.
const COUNTED_BYTES_MIN: usize = 4 * 1024;

/// What is held of the answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    bytes: AtomicUsize,
    /// Bodies that wait until less is held, each once.
    waiting: Mutex<Vec<(u64, Waker)>>,
}

/// A piece that counts until it is dropped.
struct Piece {
    data: Bytes,
    watch: Arc<Watch>,
}

impl Pinned {
    /// Ready when the body of this name may be asked for more.
    pub(super) fn poll_room(&self, body: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        match waiting.iter_mut().find(|(name, _)| *name == body) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => waiting.push((body, cx.waker().clone())),
        }
        // What was given back before the body stood in the list has woken nobody.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The body of this name is over.
    pub(super) fn forget(&self, body: u64) {
        self.waiting().retain(|(name, _)| *name != body);
    }

    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) < HTTP2_HELD_BYTES_MAX
    }

    fn give_back(&self, bytes: usize) {
        let held = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if held >= HTTP2_HELD_BYTES_MAX && held - bytes < HTTP2_HELD_BYTES_MAX {
            let waiting = std::mem::take(&mut *self.waiting());
            waiting.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.watch.pinned.give_back(self.data.len());
    }
}

/// `data` that counts on its connection for as long as it, or a part of it, is held.
pub(super) fn counted(watch: &Arc<Watch>, data: Bytes) -> Bytes {
    if data.len() < COUNTED_BYTES_MIN {
        return data;
    }
    watch.pinned.bytes.fetch_add(data.len(), Ordering::SeqCst);
    Bytes::from_owner(Piece { data, watch: Arc::clone(watch) })
}
