//! Frames on their way to the client.
//!
//! Bounded by its users: a session reads and follows only while there is room, so what waits here are the answers to a
//! bounded number of requests and one frame of records.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures::SinkExt;
use futures::stream::SplitSink;
use plinth_api::error::Problem;
use plinth_api::frames::ServerFrame;

/// The writing half of a connection.
pub(super) struct Outbox {
    sink: SplitSink<WebSocket, Message>,
    queue: VecDeque<Message>,
    flushed: bool,
}

impl Outbox {
    pub(super) fn new(sink: SplitSink<WebSocket, Message>) -> Self {
        Self { sink, queue: VecDeque::new(), flushed: true }
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, frame: &ServerFrame) {
        let text = serde_json::to_string(frame).expect("a frame is plain JSON");
        self.queue.push_back(Message::text(text));
    }

    /// Queues a frame that is text already.
    pub(super) fn push_text(&mut self, text: Utf8Bytes) {
        self.queue.push_back(Message::Text(text));
    }

    /// Queues an `error` frame.
    pub(super) fn push_error(&mut self, id: Option<String>, problem: Problem) {
        self.push(&ServerFrame::Error { id, problem });
    }

    /// Queues a ping.
    pub(super) fn push_ping(&mut self) {
        self.queue.push_back(Message::Ping(Bytes::new()));
    }

    /// Queues the last frame of the connection.
    pub(super) fn push_close(&mut self, code: u16, reason: &'static str) {
        self.queue.push_back(Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })));
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the socket has taken everything.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flushed
    }

    /// Writes until the socket has taken everything. Cancel safe.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) async fn drive(&mut self) -> Result<(), axum::Error> {
        std::future::poll_fn(|context| self.poll_drive(context)).await
    }

    fn poll_drive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        while !self.queue.is_empty() {
            ready!(self.sink.poll_ready_unpin(context))?;
            if let Some(message) = self.queue.pop_front() {
                self.flushed = false;
                self.sink.start_send_unpin(message)?;
            }
        }
        ready!(self.sink.poll_flush_unpin(context))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }
}
