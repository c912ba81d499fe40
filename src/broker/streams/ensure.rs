//! Create a stream, or check that it is what is asked for; and delete it.
//!
//! The topic, its document, what it begins with and its closing are one commit: a creation that is repeated, whose body is
//! then not looked at, finds either everything or nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::append::{check_body, records};
use super::{DEFAULT_MEDIA_TYPE, Expiry, Media, StreamConfig, StreamView, check_is_stream};
use crate::auth::TopicRef;
use crate::broker::catalog::{Catalog, StreamBegin, Topic};
use crate::broker::error::Error;
use crate::broker::publish::check_media_type;
use crate::broker::settings::record_bytes_max;
use crate::broker::{Broker, managed};

impl Broker {
    /// Makes the stream, with a body as its first content, or checks that it is what is asked for and leaves the body out;
    /// true when it was made. Cancel safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `Invalid` for a media type or body that cannot be one; `TooLarge`; `Conflict` when it is otherwise, or no stream;
    /// `QuotaExceeded`; those of the log.
    pub async fn ensure_stream(
        &self,
        topic: &TopicRef,
        config: StreamConfig,
        body: Bytes,
    ) -> Result<(StreamView, bool), Error> {
        managed(topic)?;
        let media = config.content_type.as_deref().unwrap_or(DEFAULT_MEDIA_TYPE);
        check_media_type(media.as_bytes())?;
        check_body(&body)?;
        if let Some(found) = self.catalog().find(topic)? {
            return Ok((self.compared(&found, &config)?, false));
        }
        let first = records(&Media::new(media), &body, record_bytes_max())?;
        let (batch, count) = first.map_or((None, 0), |(batch, count)| (Some(batch), count));
        let begin = StreamBegin {
            content_type: media.to_owned(),
            batch,
            close: config.closed,
            expiry: config.expiry.as_ref().map(Expiry::doc),
        };
        let (found, made) = self.make_stream(topic, begin, (count, body.len() as u64)).await?;
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

    /// Makes the stream and pays for its first content.
    async fn make_stream(
        &self,
        topic: &TopicRef,
        begin: StreamBegin,
        (records, bytes): (u64, u64),
    ) -> Result<(Arc<Topic>, bool), Error> {
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
        let wanted = config.content_type.as_deref().unwrap_or(DEFAULT_MEDIA_TYPE);
        if !media.matches(wanted.as_bytes()) {
            return Err(Error::Conflict(format!("stream {name} has the media type {}", media.text())));
        }
        let is_same = match (topic.expiry(), &config.expiry) {
            (Some(has), Some(wanted)) => has.is_same(wanted),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
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
