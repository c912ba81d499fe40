//! Forks: streams that begin with what another one holds, up to an offset or some way behind it (ADR 38).
//!
//! The log shares the records; here is where a fork leaves its source, what it takes over of it, and the offsets that hold on both.

use std::sync::Arc;

use plinth_api::limits::FORK_DEPTH_MAX;
use plinth_storage::Kind;
use plinth_storage::ids::Offset;
use plinth_storage::log::{ForkPoint, Sub};

use super::{Expiry, GivenToken, StreamConfig, check_is_stream};
use crate::auth::{Action, TopicRef};
use crate::broker::catalog::{Topic, blocked, gone, is_reserved};
use crate::broker::documents::{ExpiryDoc, ForkDoc};
use crate::broker::error::Error;
use crate::broker::{Broker, proved};

/// What a stream is to be a fork of.
#[derive(Clone, Debug)]
pub struct ForkFrom {
    /// The stream.
    pub source: TopicRef,
    /// The offset at which the fork leaves it, as it was given before; its end when it is not said.
    pub anchor: Option<String>,
    /// How many bytes behind that, or messages of JSON.
    pub sub: Option<u64>,
}

/// What a stream is a fork of.
#[derive(Debug)]
pub(in crate::broker) struct Forked {
    source: Box<str>,
    anchor: Box<str>,
    sub: u64,
    /// Whether it ends by itself as its source did, because nothing else was said.
    pub(super) ends_as_source: bool,
    depth: u32,
    pub(in crate::broker) tags: Vec<(u64, Offset)>,
}

/// What a fork takes over.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) content_type: Arc<str>,
    pub(super) expiry: Option<ExpiryDoc>,
    pub(super) doc: ForkDoc,
    pub(super) point: ForkPoint,
}

impl Forked {
    pub(in crate::broker) fn read(doc: &ForkDoc) -> Self {
        Self {
            source: doc.source.as_str().into(),
            anchor: doc.anchor.as_str().into(),
            sub: doc.sub,
            ends_as_source: doc.ends_as_source,
            depth: doc.depth,
            tags: doc.tags.iter().map(|&(tag, last)| (tag, Offset(last))).collect(),
        }
    }

    /// Whether it was made by the same request, or by one that says as much.
    pub(super) fn is_of(&self, from: &ForkFrom) -> bool {
        let is_same = |given: &str| {
            let parsed = (GivenToken::parse(given), GivenToken::parse(&self.anchor));
            *given == *self.anchor || (parsed.0.is_some() && parsed.0 == parsed.1)
        };
        *self.source == *from.source.name()
            && self.sub == from.sub.unwrap_or_default()
            && from.anchor.as_deref().is_none_or(is_same)
    }
}

impl ForkFrom {
    /// Checks what can be checked without the source.
    pub(super) fn check(&self) -> Result<(), Error> {
        proved(self.source.action(), Action::Subscribe)?;
        self.given()?;
        if self.anchor.is_none() && self.sub.is_some_and(|sub| sub > 0) {
            return Err(Error::Invalid("a fork leaves its source some way behind an offset, and none is given".into()));
        }
        Ok(())
    }

    fn given(&self) -> Result<Option<GivenToken>, Error> {
        let Some(text) = &self.anchor else { return Ok(None) };
        let refused = || Error::Invalid("the offset of a fork is not one that a stream has given".into());
        Ok(Some(GivenToken::parse(text).ok_or_else(refused)?))
    }
}

impl Broker {
    /// What a fork of `from` takes over, with the settings of it that are given.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an offset that the source never gave and for a place behind what was appended there at once;
    /// `Gone` for what is no longer kept; `Conflict` for a source that was deleted, is no stream, or has another media
    /// type; those of the log.
    pub(super) async fn inherited(&self, from: &ForkFrom, config: &StreamConfig) -> Result<Inherited, Error> {
        let source = self.catalog().get(&from.source).map_err(blocked)?;
        check_is_stream(&source)?;
        let (name, media) = (&source.name, source.media());
        if is_reserved(name) {
            return Err(Error::Invalid(format!("{name} is a topic of the system: it has no forks")));
        }
        if config.content_type.as_ref().is_some_and(|wanted| !media.matches(wanted.as_bytes())) {
            return Err(Error::Conflict(format!("stream {name} has the media type {}", media.text())));
        }
        let depth = source.forked().map_or(1, |fork| fork.depth + 1);
        if depth > FORK_DEPTH_MAX {
            return Err(Error::Invalid(format!("a fork {depth} forks deep exceeds the limit of {FORK_DEPTH_MAX}")));
        }
        let bounds = self.bounds_of(&source)?;
        let anchor = match from.given()? {
            Some(given) => given.resolve(source.readable(&bounds))?,
            None => bounds.tail,
        };
        let sub = from.sub.unwrap_or_default();
        let units = if media.is_json() { Sub::Records(sub) } else { Sub::Bytes(sub) };
        let point = self.log().fork_point(source.partition(0), anchor, units).await;
        let point = point.map_err(|error| {
            if error.kind() == Kind::OutOfRange { Error::Invalid(error.to_string()) } else { gone(name, error) }
        })?;
        let given = config.expiry.as_ref();
        let expiry = given.or(source.expiry().map(|expiry| &**expiry)).map(Expiry::doc);
        let doc = ForkDoc {
            source: name.to_string(),
            source_id: source.id.0,
            anchor: from.anchor.clone().unwrap_or_else(|| source.token(anchor).to_string()),
            sub,
            ends_as_source: given.is_none() && expiry.is_some(),
            depth,
            tags: tags(&source, point),
        };
        let content_type = config.content_type.as_deref().map_or_else(|| Arc::clone(media.text()), Into::into);
        Ok(Inherited { content_type, expiry, doc, point })
    }
}

/// The tags of a fork, each with the last offset that has it: behind a record that is cut it has another history than its
/// source, and gives offsets of its own.
fn tags(source: &Topic, point: ForkPoint) -> Vec<(u64, u64)> {
    let Some(last) = (if point.cut.is_some() { point.at.0.checked_sub(1) } else { Some(point.at.0) }) else {
        return Vec::new();
    };
    let shared = source.forked().map_or(&[][..], |fork| &fork.tags);
    let mut tags: Vec<_> = shared.iter().filter(|(_, end)| end.0 < last).map(|(tag, end)| (*tag, end.0)).collect();
    let next = shared.get(tags.len()).map_or(source.tag(), |(tag, _)| *tag);
    tags.push((next, last));
    tags
}
