//! One connection, one task: what comes from the socket, from the broker and from the clock, in one loop.
//!
//! Every wait of the loop is cancel safe. The loop reads the socket only while there is room for the answers, and asks
//! the subscriptions only while the socket has taken everything before: a slow client slows nobody else.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures::StreamExt;
use futures::stream::{FuturesUnordered, SplitStream};
use plinth_api::error::{ErrorCode, Problem};
use plinth_api::frames::{ConnectionLimits, ServerFrame};
use plinth_api::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX};
use plinth_api::records::Gap;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::auth::{Caller, Revocations};
use crate::http::{Front, Visit};
use crate::problem::{problem_of, problem_of_denied};
use crate::telemetry::Transport;

use super::outbox::Outbox;
use super::requests::Done;
use super::subscriptions::{Happening, Subscriptions, Turn};
use super::{
    ANSWERS_MAX, CREDENTIAL_WITHIN, EXPIRY_WARNING, LAST_FRAMES, LAST_PUBLISHES, PING_EVERY, REQUESTS_MAX, close,
};

/// What the handshake found out.
pub(super) struct Handshake {
    pub(super) front: Front,
    /// Who calls, when the credential came with the handshake.
    pub(super) caller: Option<Caller>,
    /// The `Plinth-Tenant` header, which goes with the credential.
    pub(super) tenant: Option<String>,
    /// The request that this began with.
    pub(super) visit: Arc<Visit>,
    /// The origin of the page that opened it, if that is not the server's own.
    pub(super) page: Option<String>,
    /// Why there is no room for the connection, if there is none.
    pub(super) refused: Option<Box<Problem>>,
}

/// The state of one connection.
pub(super) struct Session {
    pub(super) front: Front,
    pub(super) caller: Option<Caller>,
    /// Those of the caller's tenant.
    revoked: Revocations,
    pub(super) tenant: Option<String>,
    /// The request that this began with. Records without a key go to one partition per connection.
    pub(super) visit: Arc<Visit>,
    /// The origin of the page that opened it, if that is not the server's own.
    pub(super) page: Option<String>,
    pub(super) outbox: Outbox,
    pub(super) subscriptions: Subscriptions,
    pub(super) requests: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    /// Bytes of the frames whose requests are under way.
    pub(super) request_bytes: usize,
    id: String,
    silent_pings: u8,
    pub(super) expiry_told: bool,
    /// Whether a credential is being checked.
    pub(super) admitting: bool,
}

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is broken: nothing can be said any more.
    Broken,
    /// The client closes it.
    Closed,
    /// We close it, with this code and reason.
    Close(u16, &'static str),
    /// The server stops and sends the client away.
    SentAway,
}

impl Ending {
    /// The code that the connection is closed with (RFC 6455 §7.4.1); for one that broke, the one that is for that.
    fn code(&self) -> u16 {
        match self {
            Self::Broken => close::BROKEN,
            Self::Closed => close::NORMAL,
            Self::Close(code, _) => *code,
            Self::SentAway => close::RESTART,
        }
    }
}

/// Serves a connection until it ends.
pub(super) async fn run(handshake: Handshake, socket: WebSocket) {
    let (sink, mut frames) = socket.split();
    let Handshake { front, caller, tenant, visit, page, refused } = handshake;
    let mut session = Session {
        id: front.broker.log().new_ulid().to_string(),
        revoked: caller.as_ref().map(Revocations::of).unwrap_or_default(),
        front,
        caller,
        tenant,
        visit,
        page,
        outbox: Outbox::new(sink),
        subscriptions: Subscriptions::default(),
        requests: FuturesUnordered::new(),
        request_bytes: 0,
        silent_pings: 0,
        expiry_told: false,
        admitting: false,
    };
    if session.caller.is_some() {
        session.welcome();
    }
    let ending = match refused {
        Some(problem) => session.turn_away(None, *problem),
        None => session.serve(&mut frames).await,
    };
    let request_id = session.visit.request_id().as_str();
    tracing::debug!(request_id, session = %session.id, ?ending, "WebSocket connection ends");
    session.front.metrics.websocket_closed(ending.code());
    session.end(ending, &mut frames).await;
}

impl Session {
    pub(super) fn welcome(&mut self) {
        let frame = ServerFrame::Welcome { session: self.id.clone(), limits: ConnectionLimits::default() };
        self.outbox.push(&frame);
    }

    async fn serve(&mut self, frames: &mut SplitStream<WebSocket>) -> Ending {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let front = self.front.clone();
        let mut told_to_go = pin!(front.told_to_go());
        let mut ended = pin!(front.ended.child_token().cancelled_owned());
        let mut no_credential = pin!(timeout(CREDENTIAL_WITHIN, std::future::pending::<()>()));
        if let Some(ending) = self.check_credential() {
            return ending;
        }
        loop {
            let ending = tokio::select! {
                () = &mut ended => Some(Ending::Broken),
                () = &mut told_to_go => Some(Ending::SentAway),
                _ = &mut no_credential, if self.caller.is_none() => {
                    Some(Ending::Close(close::NO_CREDENTIAL, "no credential in time"))
                }
                () = self.revoked.changed() => self.check_credential(),
                _ = pings.tick() => self.tick(),
                written = self.outbox.drive(), if !self.outbox.is_idle() => written.is_err().then_some(Ending::Broken),
                Some(done) = self.requests.next() => self.answer(done),
                frame = frames.next(), if self.has_room() => self.receive(frame),
                (sub, turn) = self.subscriptions.next(), if self.outbox.is_idle() => {
                    self.deliver(sub, turn);
                    None
                }
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    /// Whether one more request may be read.
    fn has_room(&self) -> bool {
        self.outbox.len() < ANSWERS_MAX && !self.is_full() && !self.admitting
    }

    /// Whether as many requests are under way as may be.
    fn is_full(&self) -> bool {
        self.requests.len() >= REQUESTS_MAX || self.request_bytes >= BATCH_BYTES_MAX
    }

    fn receive(&mut self, frame: Option<Result<Message, axum::Error>>) -> Option<Ending> {
        self.silent_pings = 0;
        match frame {
            Some(Ok(Message::Text(text))) => self.handle(text),
            Some(Ok(Message::Binary(_))) => {
                let problem = Problem::new(ErrorCode::InvalidRequest, "binary frames are not read here, only text");
                self.refuse(None, problem);
                Some(Ending::Close(close::UNSUPPORTED, "binary frame"))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
            Some(Ok(Message::Close(_))) => Some(Ending::Closed),
            Some(Err(error)) => Some(self.unreadable(&error)),
            None => Some(Ending::Broken),
        }
    }

    /// What a failure of the socket means. Its kinds are told apart by their text: axum does not export the type.
    fn unreadable(&mut self, error: &axum::Error) -> Ending {
        let text = error.to_string();
        if text.starts_with("Space limit exceeded") {
            let detail = format!("message exceeds the limit of {FRAME_BYTES_MAX} bytes");
            self.refuse(None, Problem::new(ErrorCode::TooLarge, detail));
            return Ending::Close(close::TOO_BIG, "message too big");
        }
        if text.starts_with("UTF-8") {
            self.refuse(None, Problem::new(ErrorCode::InvalidRequest, "text frame is not UTF-8"));
            return Ending::Close(close::NOT_UTF8, "text is not UTF-8");
        }
        // An end without a closing handshake is one of these, too; but there is nobody left to be told.
        match text.strip_prefix("WebSocket protocol error: ") {
            Some(broken) if !broken.contains("without closing handshake") => {
                let detail = format!("the frame breaks the rules of WebSocket: {broken}");
                self.refuse(None, Problem::new(ErrorCode::InvalidRequest, detail));
                Ending::Close(close::PROTOCOL, "protocol error")
            }
            Some(_) | None => Ending::Broken,
        }
    }

    fn deliver(&mut self, sub: String, turn: Turn) {
        match turn {
            Turn::Records(text, count) => {
                self.front.metrics.delivered(Transport::Websocket, u64::from(count));
                self.outbox.push_text(text);
            }
            Turn::Other(Happening::CaughtUp, cursor) => self.outbox.push(&ServerFrame::CaughtUp { sub, cursor }),
            Turn::Other(Happening::Closed { topic }, _) => self.outbox.push(&ServerFrame::Closed { sub, topic }),
            Turn::Other(Happening::End { topic }, _) => self.outbox.push(&ServerFrame::End { sub, topic }),
            Turn::Other(Happening::Gap { topic, partition, requested, resumed_at, reason }, cursor) => {
                let gap = Gap { topic, partition, requested, resumed_at, reason: reason.to_owned() };
                self.outbox.push(&ServerFrame::Gap { sub, gap, cursor });
            }
            Turn::Over => self.unsubscribed(&sub),
            Turn::Failed(error) => {
                super::requests::note(&error, self.visit.request_id());
                self.refuse(Some(sub.clone()), problem_of(&error));
                self.unsubscribed(&sub);
            }
        }
    }

    /// Forgets a subscription and says where it ended.
    pub(super) fn unsubscribed(&mut self, sub: &str) {
        if let Some(subscription) = self.subscriptions.remove(sub) {
            let cursor = subscription.cursor().to_owned();
            self.outbox.push(&ServerFrame::Unsubscribed { sub: sub.to_owned(), cursor });
        }
    }

    fn tick(&mut self) -> Option<Ending> {
        // A client that we do not read from cannot be heard.
        if self.is_full() {
            self.silent_pings = 0;
        }
        if self.silent_pings >= 2 {
            return Some(Ending::Broken);
        }
        self.silent_pings += 1;
        self.outbox.push_ping();
        self.check_credential()
    }

    /// Goes on as `caller`. Some: its credential has ended since it was checked, and nobody said so to this connection.
    pub(super) fn go_on_as(&mut self, caller: Caller) -> Option<Ending> {
        self.revoked = Revocations::of(&caller);
        self.caller = Some(caller);
        self.expiry_told = false;
        self.check_credential()
    }

    /// Ends the connection when its credential has ended; warns once before.
    fn check_credential(&mut self) -> Option<Ending> {
        let caller = self.caller.as_ref()?;
        if let Some(denied) = self.front.auth.ended(caller) {
            let problem = problem_of_denied(&denied);
            if problem.code != ErrorCode::TenantSuspended {
                return Some(Ending::Close(close::CREDENTIAL_ENDED, "credential ended"));
            }
            self.outbox.push_error(None, problem);
            return Some(Ending::Close(close::CREDENTIAL_ENDED, "tenant suspended"));
        }
        let now = self.front.broker.log().now();
        let left = caller.expires_at().map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
        if let Some(left) = left.filter(|left| *left <= EXPIRY_WARNING && !self.expiry_told) {
            self.expiry_told = true;
            self.outbox.push(&ServerFrame::TokenExpiring { in_ms: millis(left) });
        }
        None
    }

    async fn end(mut self, ending: Ending, frames: &mut SplitStream<WebSocket>) {
        match ending {
            Ending::Broken => return,
            Ending::Closed => {}
            Ending::Close(code, reason) => self.outbox.push_close(code, reason),
            Ending::SentAway => {
                if timeout(LAST_PUBLISHES, self.finish_requests()).await.is_err() {
                    let (request_id, requests) = (self.visit.request_id().as_str(), self.requests.len());
                    tracing::info!(request_id, session = %self.id, requests, "requests were left unanswered");
                }
                self.outbox.push(&ServerFrame::Goaway {
                    reconnect_in_ms: self.front.reconnect_in_ms(),
                    reason: "the server stops".to_owned(),
                    cursors: self.subscriptions.cursors(),
                });
                self.outbox.push_close(close::RESTART, "the server stops");
            }
        }
        let last_frames = async {
            if ending == Ending::Closed || self.outbox.drive().await.is_ok() {
                while let Some(Ok(_)) = frames.next().await {}
            }
        };
        if timeout(LAST_FRAMES, last_frames).await.is_err() {
            let request_id = self.visit.request_id().as_str();
            tracing::debug!(request_id, session = %self.id, "the client did not finish the closing handshake");
        }
    }

    /// Answers what is under way.
    async fn finish_requests(&mut self) {
        while !self.requests.is_empty() {
            tokio::select! {
                Some(done) = self.requests.next() => drop(self.answer(done)),
                written = self.outbox.drive(), if !self.outbox.is_idle() => {
                    if written.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_result<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    // The sizing in docs/benchmarks.md counts on it: every WebSocket has one.
    #[test]
    fn a_session_that_waits_is_small() {
        let bytes = size_of_result(|(handshake, socket)| run(handshake, socket));
        assert!(bytes <= 2048, "{bytes}");
    }
}
