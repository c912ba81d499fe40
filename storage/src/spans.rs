//! How a request that is traced shows in the log core: its append, the flush of the slot that carries it, the PUT.
//!
//! They are `tracing` spans with a target of their own. Who follows them, and where they go, is not known here; where nobody
//! does, they are disabled and cost a load each. They name things by internal ids and hold nothing that a client sent.

use tracing::field::Empty;
use tracing::{Level, Span};

use crate::ids::Partition;
use crate::record::Batch;
use crate::slot::{Created, Object};
use crate::wal::buffer::OpenBuffer;

/// The target of all spans that are there to be followed. No log line has it.
pub const TARGET: &str = "plinth::spans";

/// Most appends that a flush is linked with.
const LINKS_MAX: usize = 64;

/// Whether somebody follows what runs now. Asked before a span is made: one that no layer takes would be made all the same.
fn is_followed() -> bool {
    let target = |span: &Span| span.metadata().map(tracing::Metadata::target);
    tracing::span_enabled!(target: TARGET, Level::INFO) && target(&Span::current()) == Some(TARGET)
}

/// The span of an append, within that of the request that it is for.
pub(crate) fn append(partition: Partition, batch: &Batch) -> Span {
    if !is_followed() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        "append",
        plinth.partition = %partition,
        plinth.records = i64::from(batch.count()),
        plinth.bytes = number(batch.len()),
    )
}

/// Appends of one buffer that are traced.
#[derive(Debug, Default)]
pub(crate) struct Traced(Vec<Span>);

impl Traced {
    /// Lets the flush be linked with an append, if that is traced and the flush has not enough links.
    pub(crate) fn add(&mut self, append: &Span) {
        if !append.is_disabled() && self.0.len() < LINKS_MAX {
            self.0.push(append.clone());
        }
    }

    /// The span of the flush of `buffer`, linked with these; none when there is none of them. It begins a trace of its own:
    /// it is that of many requests.
    pub(crate) fn flush(self, buffer: &OpenBuffer, object: &Object) -> Span {
        if self.0.is_empty() {
            return Span::none();
        }
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "flush",
            plinth.slot = i64::try_from(object.header.number).unwrap_or(i64::MAX),
            plinth.waiting = number(buffer.waiting),
            plinth.object.bytes = number(object.payload.content_length()),
        );
        for append in &self.0 {
            span.follows_from(append.id());
        }
        span
    }
}

/// The span of one try to create an object, within that of a flush; other objects are not followed.
pub(crate) fn put(object: &Object, kind: &'static str) -> Span {
    if !is_followed() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        "put",
        plinth.object.kind = kind,
        plinth.object.bytes = number(object.payload.content_length()),
        plinth.answer = Empty,
    )
}

/// Notes the answer to a try in its span.
pub(crate) fn answered<E>(put: &Span, answer: &Result<Created, E>) {
    let answer = match answer {
        Ok(Created::Ours) => "created",
        Ok(Created::Taken(_)) => "taken",
        Err(_) => "none",
    };
    put.record("plinth.answer", answer);
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
