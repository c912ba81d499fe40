//! What the client asks for: each frame is checked, authorized and handed to the broker; the answer carries its id.

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use plinth_api::error::{ErrorCode, Problem};
use plinth_api::frames::{
    AuthFrame, ClientFrame, CreditFrame, PublishFrame, RefreshFrame, ServerFrame, SlowPolicy, SubscribeFrame,
    UnsubscribeFrame,
};
use plinth_api::limits::{CONNECTION_SUBSCRIPTIONS_MAX, FRAME_ID_BYTES_MAX, STREAM_TOPICS_MAX};
use plinth_api::records::PublishResult;
use plinth_storage::error::Chain;
use tracing::{Instrument, Span};

use crate::auth::{Action, Caller, Credential, Denied};
use crate::broker::{self, Error, FollowRequest, Follower, ProducerTerm, Publish, Published, Terms};
use crate::http::RequestId;
use crate::http::audit::{Attempt, quota_reached};
use crate::http::cors::check_page;
use crate::http::traced::of_frame;
use crate::parse::{class, new_records};
use crate::problem::{of_publish, problem_of, problem_of_denied};
use crate::receipt::Answer;
use crate::telemetry::Transport;

use super::session::{Ending, Session};
use super::{RECORDS_FRAME_BYTES, SPREAD_MS, close};

/// A request that the broker has answered.
pub(super) enum Done {
    /// A publish.
    Published {
        id: String,
        topic: String,
        records: usize,
        payload_bytes: usize,
        frame_bytes: usize,
        result: Result<Published, Error>,
    },
    /// A credential was checked: the first one, or a newer one.
    Admitted { id: Option<String>, token: String, newer: bool, result: Result<Caller, Denied> },
    /// A subscription found its place to begin.
    Opened { sub: String, result: Result<Box<Follower>, Error> },
}

impl Session {
    /// Does what a text frame asks for. Some: the connection ends.
    pub(super) fn handle(&mut self, text: Utf8Bytes) -> Option<Ending> {
        let frame = match ClientFrame::parse(&text) {
            Ok(frame) => frame,
            Err(error) => {
                self.refuse(error.id.clone(), error.problem());
                return error.garbage.then_some(Ending::Close(close::POLICY, "not a JSON object"));
            }
        };
        let publishes = matches!(frame, ClientFrame::Publish(_));
        let (id, outcome) = match frame {
            ClientFrame::Auth(frame) => {
                self.authenticate(frame);
                return None;
            }
            ClientFrame::Refresh(frame) => {
                self.refresh(frame);
                return None;
            }
            ClientFrame::Ping(frame) => {
                self.outbox.push(&ServerFrame::Pong { id: frame.id });
                return None;
            }
            ClientFrame::Subscribe(frame) => (frame.id.clone(), self.subscribe(frame)),
            ClientFrame::Unsubscribe(frame) => (frame.sub.clone(), self.unsubscribe(&frame)),
            ClientFrame::Credit(frame) => (frame.sub.clone(), self.add_credit(&frame)),
            ClientFrame::Publish(frame) => {
                let body = Bytes::from(text.clone());
                (frame.id.clone(), self.publish(frame, &body))
            }
        };
        if let Err(refusal) = outcome {
            let problem = refusal.problem();
            self.refuse(Some(id), if publishes { of_publish(problem) } else { problem });
        }
        None
    }

    /// Answers a request whose work is done.
    /// Some: the connection ends.
    pub(super) fn answer(&mut self, done: Done) -> Option<Ending> {
        match done {
            Done::Admitted { id, token, newer, result } => {
                self.admitting = false;
                return if newer { self.refreshed(id, &token, result) } else { self.authenticated(id, &token, result) };
            }
            Done::Published { id, topic, records, payload_bytes, frame_bytes, result } => {
                self.request_bytes -= frame_bytes;
                let answer = match result {
                    Ok(published) => Answer::new(&topic, records, published),
                    Err(error) => Answer::Failed(error),
                };
                self.published(id, answer, payload_bytes);
            }
            Done::Opened { sub, result } => self.opened(sub, result),
        }
        None
    }

    fn published(&mut self, id: String, answer: Answer, payload_bytes: usize) {
        let receipts = match answer {
            Answer::Stored(receipt) => vec![PublishResult::Stored(receipt)],
            Answer::Each(results) => results,
            Answer::Failed(error) => {
                note(&error, self.visit.request_id());
                return self.refuse(Some(id), of_publish(problem_of(&error)));
            }
        };
        let stored = receipts.iter().map(|result| match result {
            PublishResult::Stored(receipt) if !receipt.duplicate => u64::from(receipt.count),
            PublishResult::Stored(_) | PublishResult::Failed { .. } => 0,
        });
        self.front.metrics.published(Transport::Websocket, stored.sum(), payload_bytes as u64);
        self.outbox.push(&ServerFrame::Published { id, receipts });
    }

    fn opened(&mut self, sub: String, result: Result<Box<Follower>, Error>) {
        match result {
            Ok(follower) => {
                let Some(subscription) = self.subscriptions.get(&sub) else { return };
                subscription.open(follower, self.front.metrics.follower(Transport::Websocket));
                let cursor = subscription.cursor().to_owned();
                self.outbox.push(&ServerFrame::Subscribed { id: sub.clone(), sub, cursor });
            }
            Err(error) => {
                note(&error, self.visit.request_id());
                self.subscriptions.remove(&sub);
                self.refuse(Some(sub), problem_of(&error));
            }
        }
    }

    /// Says why there is no room for the connection, and ends it.
    pub(super) fn turn_away(&mut self, id: Option<String>, problem: Problem) -> Ending {
        self.refuse(id, problem);
        Ending::Close(close::QUOTA, "quota exceeded")
    }

    pub(super) fn refuse(&mut self, id: Option<String>, mut problem: Problem) {
        self.front.metrics.failed(Transport::Websocket, &problem);
        quota_reached(&self.front, self.caller.as_ref().and_then(Caller::account), &problem);
        // Not all at once.
        if let Some(wait) = &mut problem.retry_after_ms {
            *wait = wait.saturating_add(self.front.random(SPREAD_MS));
        }
        self.outbox.push_error(id.filter(|id| id.len() <= FRAME_ID_BYTES_MAX), problem);
    }

    fn caller(&self) -> Result<&Caller, Refusal> {
        self.caller.as_ref().ok_or_else(|| {
            Refusal::new(ErrorCode::Unauthenticated, "no credential yet: the first frame is `auth`, besides `ping`")
        })
    }

    /// The caller of a frame that asks for work: it counts like a request.
    fn asking(&self) -> Result<&Caller, Refusal> {
        let caller = self.caller()?;
        if let Some(account) = caller.account() {
            account.meters().request().map_err(Error::from)?;
        }
        Ok(caller)
    }

    fn authenticate(&mut self, frame: AuthFrame) {
        if self.caller.is_some() {
            let detail = "this connection has its credential already; `refresh` takes a newer one of the same holder";
            return self.refuse(frame.id, Problem::new(ErrorCode::Conflict, detail));
        }
        self.admit(frame.id, frame.token, false);
    }

    fn authenticated(&mut self, id: Option<String>, token: &str, result: Result<Caller, Denied>) -> Option<Ending> {
        let caller = result.and_then(|caller| check_page(self.page.as_deref(), &caller).map(|()| caller));
        match caller.and_then(|caller| caller.inside().map(|_| caller.clone())) {
            Ok(caller) => {
                if let Err(refused) = self.visit.enter(&caller) {
                    return Some(self.turn_away(id, refused.problem().clone()));
                }
                self.welcome();
                self.go_on_as(caller)
            }
            Err(denied) => {
                self.note_refused(token, &denied);
                self.refuse(id, problem_of_denied(&denied));
                Some(Ending::Close(close::CREDENTIAL_ENDED, "credential refused"))
            }
        }
    }

    /// Notes that a credential was refused, where its tenant is known.
    fn note_refused(&self, token: &str, denied: &Denied) {
        if let Some(claim) = self.front.auth.claim(Credential::Bearer(token)) {
            let problem = problem_of_denied(denied);
            Attempt::socket(&self.visit).refused(&self.front, &claim, (problem.status, problem.code));
        }
    }

    /// Checks a credential, for which keys may have to be fetched; nothing more is read of the socket until then.
    fn admit(&mut self, id: Option<String>, token: String, newer: bool) {
        let (auth, tenant) = (self.front.auth.clone(), self.tenant.clone());
        self.admitting = true;
        self.requests.push(Box::pin(async move {
            let result = auth.admit(Credential::Bearer(&token), tenant.as_deref()).await;
            Done::Admitted { id, token, newer, result }
        }));
    }

    /// Goes on with a newer credential of the same holder.
    fn refresh(&mut self, frame: RefreshFrame) {
        match self.asking().map(drop) {
            Ok(()) => self.admit(frame.id, frame.token, true),
            Err(refusal) => self.refuse(frame.id, refusal.problem()),
        }
    }

    fn refreshed(&mut self, id: Option<String>, token: &str, result: Result<Caller, Denied>) -> Option<Ending> {
        let result = result.inspect_err(|denied| self.note_refused(token, denied));
        match result.map_err(Refusal::from).and_then(|newer| self.successor(newer)) {
            Ok(caller) => {
                let expires_at = caller.expires_at().map(|end| end.0);
                self.outbox.push(&ServerFrame::Refreshed { id, expires_at });
                self.go_on_as(caller)
            }
            Err(refusal) => {
                self.refuse(id, refusal.problem());
                None
            }
        }
    }

    /// What is open goes on with the rights that it was opened with: so the newer credential must have them, too.
    fn successor(&self, newer: Caller) -> Result<Caller, Refusal> {
        if newer.succeeds(self.caller()?) {
            return Ok(newer);
        }
        let detail = "the newer credential is of another tenant or holder, or allows less; it needs another connection";
        Err(Refusal::new(ErrorCode::Forbidden, detail))
    }

    fn subscribe(&mut self, frame: SubscribeFrame) -> Result<(), Refusal> {
        let caller = self.asking()?;
        let SubscribeFrame { kind: _, id, topics, from, credit, policy } = frame;
        check_id(&id)?;
        if topics.is_empty() || topics.len() > STREAM_TOPICS_MAX {
            let detail =
                format!("subscription of {} topics is outside the limit of 1 to {STREAM_TOPICS_MAX}", topics.len());
            return Err(Refusal::new(ErrorCode::Unprocessable, detail));
        }
        let topics = topics.iter().map(|topic| caller.authorize_pattern(Action::Subscribe, topic));
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        let from = from.map_or(Ok(broker::From::Latest), |from| from.parse())?;
        if self.subscriptions.get(&id).is_some() {
            return Err(Refusal::new(ErrorCode::Conflict, format!("subscription `{id}` exists on this connection")));
        }
        if self.subscriptions.len() >= CONNECTION_SUBSCRIPTIONS_MAX {
            let detail = format!("connection has its limit of {CONNECTION_SUBSCRIPTIONS_MAX} subscriptions");
            return Err(Refusal::new(ErrorCode::Unprocessable, detail));
        }
        let policy = match policy {
            SlowPolicy::CatchUp => broker::SlowPolicy::CatchUp,
            SlowPolicy::Latest => broker::SlowPolicy::Latest,
            SlowPolicy::Disconnect => broker::SlowPolicy::Disconnect,
        };
        let request = FollowRequest { topics, partition: None, from, policy, batch_bytes_max: RECORDS_FRAME_BYTES };
        let broker = self.front.broker.clone();
        self.subscriptions.reserve(id.clone(), credit);
        self.requests.push(Box::pin(async move {
            let result = broker.follow(request).await.map(Box::new);
            Done::Opened { sub: id, result }
        }));
        Ok(())
    }

    fn unsubscribe(&mut self, frame: &UnsubscribeFrame) -> Result<(), Refusal> {
        self.caller()?;
        let subscription = self.subscriptions.get(&frame.sub).ok_or_else(|| unknown_subscription(&frame.sub))?;
        if subscription.is_opening() {
            return Err(not_open(&frame.sub));
        }
        self.unsubscribed(&frame.sub);
        Ok(())
    }

    fn add_credit(&mut self, frame: &CreditFrame) -> Result<(), Refusal> {
        self.caller()?;
        let subscription = self.subscriptions.get(&frame.sub).ok_or_else(|| unknown_subscription(&frame.sub))?;
        if subscription.add_credit(frame.n) {
            return Ok(());
        }
        let detail = format!("subscription `{}` was opened without `credit`, so it has no bound to raise", frame.sub);
        Err(Refusal::new(ErrorCode::Unprocessable, detail))
    }

    fn publish(&mut self, mut frame: PublishFrame<'_>, body: &Bytes) -> Result<(), Refusal> {
        let caller = self.asking()?;
        let terms = terms(&mut frame);
        let PublishFrame { id, topic, records, partition, durability, .. } = frame;
        let durability = durability.map(class);
        check_id(&id)?;
        let allowed = caller.authorize(Action::Publish, &topic)?;
        let room = self.front.broker.room(allowed.account(), body.len() as u64)?;
        let records = new_records(records, body)?;
        let (count, frame_bytes) = (records.len(), body.len());
        let payload_bytes = records.iter().map(|record| record.payload.len()).sum();
        let span = of_frame(&self.front, &records, self.visit.request_id());
        let broker = self.front.broker.clone();
        let publish =
            Publish { partition, sticky: self.visit.connection().id().0, records, stored: None, durability, terms };
        self.request_bytes += frame_bytes;
        let answer = async move {
            let result = broker.publish(&allowed, publish).await;
            drop(room);
            if let Err(error) = &result {
                Span::current().record("error.type", problem_of(error).code.as_str());
            }
            Done::Published { id, topic, records: count, payload_bytes, frame_bytes, result }
        };
        self.requests.push(Box::pin(answer.instrument(span)));
        Ok(())
    }
}

/// Why a request is not even tried, or failed.
enum Refusal {
    Rule(ErrorCode, String),
    Denied(Denied),
    Broker(Error),
}

impl Refusal {
    fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Rule(code, detail.into())
    }

    fn problem(&self) -> Problem {
        match self {
            Self::Rule(code, detail) => Problem::new(*code, detail),
            Self::Denied(denied) => problem_of_denied(denied),
            Self::Broker(error) => problem_of(error),
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

/// Writes a defect to the log; everything else is the client's to know.
pub(super) fn note(error: &Error, request_id: &RequestId) {
    if matches!(error, Error::Internal { .. }) {
        let request_id = request_id.as_str();
        tracing::error!(request_id, error = %Chain(error), "a WebSocket request failed");
    }
}

/// The terms of a publish, if it has any.
fn terms(frame: &mut PublishFrame<'_>) -> Option<Box<Terms>> {
    let producer = frame.producer.take().map(|producer| {
        let plinth_api::frames::Producer { id, epoch, seq } = producer;
        ProducerTerm { id, epoch, seq }
    });
    let terms = Terms {
        idempotency_key: frame.idempotency_key.take(),
        producer,
        expected_tail: frame.expected_tail,
        fencing_token: frame.fencing_token,
    };
    (!terms.is_empty()).then(|| Box::new(terms))
}

fn check_id(id: &str) -> Result<(), Refusal> {
    if !id.is_empty() && id.len() <= FRAME_ID_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("`id` of {} bytes is outside the limit of 1 to {FRAME_ID_BYTES_MAX}", id.len());
    Err(Refusal::new(ErrorCode::Unprocessable, detail))
}

fn unknown_subscription(sub: &str) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("there is no subscription `{sub}` on this connection"))
}

fn not_open(sub: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("subscription `{sub}` is not open yet; wait for `subscribed`"))
}
