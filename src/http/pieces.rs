//! A body in several pieces, none of them copied.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use crate::broker::Room;

/// Most bytes that are handed to a connection at once.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// A body of known length in several pieces, none of them copied.
pub(crate) struct Pieces {
    left: VecDeque<Bytes>,
    /// Given back when the last piece is taken, or nobody waits for it any more.
    _room: Room,
}

impl Pieces {
    /// A body of `pieces`, one after the other; `room` is given back when it is sent.
    pub(crate) fn body(pieces: impl Into<VecDeque<Bytes>>, room: Room) -> Body {
        Body::new(Self { left: pieces.into(), _room: room })
    }

    /// The next piece, of a size that a slow client can take within the time that a connection may stand still.
    fn next(&mut self) -> Option<Bytes> {
        let first = self.left.front_mut()?;
        if first.len() > PIECE_BYTES_MAX {
            return Some(first.split_to(PIECE_BYTES_MAX));
        }
        self.left.pop_front()
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.iter().map(|piece| piece.len() as u64).sum())
    }
}
