//! Create a stream, or check that it is what is asked for; and delete it.
//!
//! The topic, its document, what it begins with and its closing are one commit: a creation that is repeated, whose body is
//! then not looked at, finds either everything or nothing.

use std::sync::Arc;

use bytes::Bytes;
use plinth_api::limits::STREAM_MEDIA_TYPE_BYTES_MAX;

use super::append::{check_body, records};
use super::fork::Inherited;
use super::{DEFAULT_MEDIA_TYPE, Expiry, ForkFrom, Media, StreamConfig, StreamView, check_is_stream};
use crate::auth::TopicRef;
use crate::broker::catalog::{Catalog, StreamBegin, Topic, blocked};
use crate::broker::error::Error;
use crate::broker::publish::check_media_type;
use crate::broker::settings::record_bytes_max;
use crate::broker::{Broker, managed};

/// A short append of many messages would be a large one if the media type that each of them has were long.
fn check_stream_media_type(given: &str) -> Result<(), Error> {
    let (bytes, limit) = (given.len(), STREAM_MEDIA_TYPE_BYTES_MAX);
    if bytes > limit {
        return Err(Error::Invalid(format!("media type of {bytes} bytes exceeds the limit of {limit} of a stream")));
    }
    check_media_type(given.as_bytes())
}

impl Broker {
    /// Makes the stream, with a body as its first content, or checks that it is what is asked for and leaves the body out;
    /// true when it was made. Cancel safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `Invalid` for a media type or body that cannot be one; `TooLarge`; `Conflict` when it is otherwise, no stream, or was
    /// deleted and has forks; `QuotaExceeded`; those of the log. Of a fork also `NotFound` without its source; `Invalid` and `Gone`
    /// for where it is to leave it.
    pub async fn ensure_stream(
        &self,
        topic: &TopicRef,
        config: StreamConfig,
        body: Bytes,
    ) -> Result<(StreamView, bool), Error> {
        managed(topic)?;
        if let Some(given) = &config.content_type {
            check_stream_media_type(given)?;
        }
        check_body(&body)?;
        config.fork.as_ref().map_or(Ok(()), ForkFrom::check)?;
        if let Some(found) = self.catalog().find(topic).map_err(blocked)? {
            return Ok((self.compared(&found, &config)?, false));
        }
        let (found, made) = match &config.fork {
            None => self.make_stream(topic, &config, (None, &body)).await?,
            Some(from) => match self.make_fork(topic, &config, (from, &body)).await {
                // Deleted, or deleted and made again, since it was looked up.
                Err(Error::NotFound(_)) => {
                    self.catalog().forget(&from.source);
                    self.make_fork(topic, &config, (from, &body)).await?
                }
                made => made?,
            },
        };
        Ok((self.compared(&found, &config)?, made))
    }

    /// Deletes the stream with all that is in it. Cancel safe as [`Broker::ensure_stream`].
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a topic that is no stream.
    pub async fn delete_stream(&self, topic: &TopicRef) -> Result<(), Error> {
        managed(topic)?;
        check_is_stream(&*self.catalog().get(topic)?)?;
        self.catalog().delete(topic).await
    }

    async fn make_fork(
        &self,
        topic: &TopicRef,
        config: &StreamConfig,
        (from, body): (&ForkFrom, &Bytes),
    ) -> Result<(Arc<Topic>, bool), Error> {
        let inherited = self.inherited(from, config).await?;
        self.make_stream(topic, config, (Some(inherited), body)).await
    }

    /// Makes the stream and pays for its first content.
    async fn make_stream(
        &self,
        topic: &TopicRef,
        config: &StreamConfig,
        (inherited, body): (Option<Inherited>, &Bytes),
    ) -> Result<(Arc<Topic>, bool), Error> {
        let (content_type, expiry, fork) = match inherited {
            Some(Inherited { content_type, expiry, doc, point }) => (content_type, expiry, Some((doc, point))),
            None => {
                let content_type = config.content_type.as_deref().unwrap_or(DEFAULT_MEDIA_TYPE);
                (content_type.into(), config.expiry.as_ref().map(Expiry::doc), None)
            }
        };
        let first = records(&Media::new(&content_type), body, record_bytes_max())?;
        let (batch, records) = first.map_or((None, 0), |(batch, count)| (Some(batch), count));
        let bytes = body.len() as u64;
        let begin = StreamBegin { content_type: content_type.to_string(), batch, close: config.closed, expiry, fork };
        if records > 0 && !Catalog::has_room(topic.tenant()) {
            Box::pin(self.catalog().check_storage(topic.tenant())).await?;
        }
        let meters = topic.account().meters();
        let stored_bytes = begin.batch.as_ref().map_or(0, |batch| batch.len() as u64);
        let charge = meters.take_publish(records, bytes)?;
        let made = self.catalog().make_stream(topic, begin).await;
        match &made {
            Ok((_, true)) => {
                meters.tenant.stored(stored_bytes);
                charge.settle(records, bytes);
            }
            // It may be stored: dropped, it counts whole.
            Err(Error::Unknown(_)) => drop(charge),
            Ok((_, false)) | Err(_) => charge.give_back(),
        }
        made
    }

    /// The stream, if it is what is asked for.
    fn compared(&self, topic: &Topic, config: &StreamConfig) -> Result<StreamView, Error> {
        check_is_stream(topic)?;
        let (media, name) = (topic.media(), &topic.name);
        let is_same_fork = match (topic.forked(), &config.fork) {
            (Some(forked), Some(from)) => forked.is_of(from),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same_fork {
            return Err(Error::Conflict(format!("stream {name} is not the same fork, or none")));
        }
        let wanted = config.content_type.as_deref().or(config.fork.is_none().then_some(DEFAULT_MEDIA_TYPE));
        if wanted.is_some_and(|wanted| !media.matches(wanted.as_bytes())) {
            return Err(Error::Conflict(format!("stream {name} has the media type {}", media.text())));
        }
        let is_same = match (topic.expiry(), &config.expiry) {
            (Some(has), Some(wanted)) => has.is_same(wanted),
            (None, None) => true,
            (Some(_), None) => topic.forked().is_some_and(|fork| fork.ends_as_source),
            (None, Some(_)) => false,
        };
        if !is_same {
            return Err(Error::Conflict(format!("stream {name} ends by itself at another time, or does not")));
        }
        let view = StreamView::of(topic, &self.bounds_of(topic)?);
        if view.closed != config.closed {
            let is = if view.closed { "closed" } else { "open" };
            return Err(Error::Conflict(format!("stream {name} is {is}")));
        }
        Ok(view)
    }
}
