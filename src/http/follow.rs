//! A live stream as it runs: what the broker has, what the clock says, and when it must end.

use std::convert::Infallible;
use std::pin::pin;

use bytes::Bytes;
use futures::stream;
use plinth_api::error::ErrorCode;
use plinth_api::records::{Control, Gap};

use super::awake::{Awake, Woken};
use super::encode::Encoder;
use super::front::Front;
use super::visit::RequestId;
use crate::auth::Caller;
use crate::broker::{Error, Event, Follower};
use crate::problem::{problem_of, problem_of_denied};
use crate::telemetry::{Open, Transport};

/// Why a stream ends, when it is not a code of an error.
const CREDENTIAL_ENDED: &str = "credential_ended";

/// A live stream.
pub(super) struct Stream {
    front: Front,
    caller: Caller,
    request_id: RequestId,
    follower: Follower,
    encoder: Encoder,
    awake: Awake,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Over,
}

impl Stream {
    pub(super) fn new(
        front: Front,
        caller: Caller,
        (follower, encoder): (Follower, Encoder),
        request_id: RequestId,
    ) -> Self {
        let awake = Awake::new(&front, &caller);
        Self { front, caller, request_id, follower, encoder, awake, state: State::New }
    }

    /// The chunks of the body. `counted` is dropped with the stream.
    pub(super) fn chunks(
        self,
        transport: Transport,
        counted: Open,
    ) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold((self, counted), move |(mut stream, counted)| async move {
            let chunk = stream.next_chunk(transport).await?;
            Some((Ok(chunk), (stream, counted)))
        })
    }

    async fn next_chunk(&mut self, transport: Transport) -> Option<Bytes> {
        match self.state {
            State::Over => return None,
            State::New => {
                // What ended between the check of the credential and here was not told to this stream.
                if let Some(last) = self.ended() {
                    return Some(last);
                }
                self.state = State::Open;
                return Some(self.encoder.preamble(&self.follower.cursor()));
            }
            State::Open => {}
        }
        loop {
            match self.woken().await {
                Woken::ToldToGo => return Some(self.goaway(ErrorCode::ShuttingDown.as_str())),
                Woken::Revoked => {
                    if let Some(last) = self.ended() {
                        return Some(last);
                    }
                }
                Woken::Heartbeat => return Some(self.ended().unwrap_or_else(|| self.encoder.heartbeat())),
                Woken::Moved(Ok(event)) => return Some(self.event(event, transport)),
                Woken::Moved(Err(error)) => return self.failed(&error, transport),
            }
        }
    }

    async fn woken(&mut self) -> Woken<Result<Event, Error>> {
        let next = pin!(self.follower.next());
        self.awake.woken(next).await
    }

    fn event(&mut self, event: Event, transport: Transport) -> Bytes {
        let control = match event {
            Event::Records(batch) => {
                self.front.metrics.delivered(transport, u64::from(batch.count()));
                return self.encoder.records(&self.follower, &batch);
            }
            Event::CaughtUp => Control::CaughtUp { cursor: self.follower.cursor() },
            Event::Gap { topic, partition, requested, resumed_at, reason } => Control::Gap(Gap {
                topic: topic.to_string(),
                partition,
                requested,
                resumed_at,
                reason: reason.to_owned(),
            }),
            Event::Closed { topic } => Control::Closed { topic: topic.to_string() },
            Event::End { topic } => Control::End { topic: topic.to_string() },
        };
        self.encoder.control(&control, &self.follower.cursor())
    }

    /// The stream cannot go on. After the end of its last topic there is nothing more to say.
    fn failed(&mut self, error: &Error, transport: Transport) -> Option<Bytes> {
        let problem = problem_of(error);
        let code = problem.code;
        self.state = State::Over;
        if code == ErrorCode::NotFound {
            return None;
        }
        self.front.metrics.failed(transport, &problem);
        let (request_id, caller) = (self.request_id.as_str(), self.caller.id());
        tracing::warn!(request_id, code = code.as_str(), %error, caller, "a live stream ends");
        Some(self.goaway(code.as_str()))
    }

    /// The last chunk, when the credential has ended or its tenant is suspended.
    fn ended(&mut self) -> Option<Bytes> {
        let code = problem_of_denied(&self.front.auth.ended(&self.caller)?).code;
        let suspended = code == ErrorCode::TenantSuspended;
        Some(self.goaway(if suspended { code.as_str() } else { CREDENTIAL_ENDED }))
    }

    fn goaway(&mut self, reason: &str) -> Bytes {
        self.state = State::Over;
        let cursor = self.follower.cursor();
        let reconnect_in_ms = self.front.reconnect_in_ms();
        let goaway = Control::Goaway { reconnect_in_ms, reason: reason.to_owned(), cursor: cursor.clone() };
        self.encoder.control(&goaway, &cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_result<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    // The sizing in docs/benchmarks.md counts on it: every follower has one. Fails without the box in `Reader::read_kept`.
    #[test]
    fn a_stream_that_waits_is_small() {
        let bytes = size_of_result(|(stream, transport, counted)| Stream::chunks(stream, transport, counted));
        assert!(bytes <= 1536, "{bytes}");
    }
}
