//! Waiting: for the acknowledgement of an append, and for the outcome of its slot.

use crate::durability::Durability;
use crate::error::{Error, Kind, Refusal, Result};
use crate::ids::Partition;
use crate::wal::buffer::Outcome;
use crate::wal::buffer::early::Ack;
use crate::watch;

use super::Writer;

impl Writer {
    /// Waits until an append is acknowledged; gives the class that was reached.
    pub(crate) async fn acknowledged(&self, ack: Ack) -> Result<Durability> {
        match ack {
            Ack::Late(mut outcome) => settled(&mut outcome).await.map(|()| Durability::Object),
            Ack::Now(outcome) => match &*outcome.borrow() {
                Outcome::Pending => Ok(Durability::Memory),
                Outcome::Committed => Ok(Durability::Object),
                Outcome::Failed(kind, why) => Err(Error::new(*kind, why.to_string())),
            },
            Ack::Journal(number, mut outcome) => {
                let journal = self.parts.journal.as_ref().expect("only a journal gives numbers");
                let either = async {
                    tokio::select! {
                        biased;
                        settled = settled(&mut outcome) => settled.map(|()| Durability::Object),
                        () = journal.has(number) => Ok(Durability::Local),
                    }
                };
                let limit = self.options.append_timeout;
                tokio::time::timeout(limit, either).await.unwrap_or_else(|_| {
                    let text = format!("neither the journal nor the object store gave an answer within {limit:?}");
                    Err(Error::new(Kind::Unknown, text))
                })
            }
        }
    }

    /// The outcome of an append of someone else: one that he was told is not known may still be known in time.
    pub(super) async fn certain(&self, ack: Ack) -> Result<Durability> {
        let Ack::Late(mut outcome) = ack else { return self.acknowledged(ack).await };
        let open = |outcome: &Outcome| matches!(outcome, Outcome::Pending | Outcome::Failed(Kind::Unknown, _));
        let limit = self.options.append_timeout;
        if tokio::time::timeout(limit, outcome.wait_for(|outcome| !open(outcome))).await.is_err() {
            return Err(Error::new(Kind::Unknown, format!("the object store gave no answer within {limit:?}")));
        }
        // An error says that there will be no other outcome: the last one is it.
        settled(&mut outcome).await.map(|()| Durability::Object)
    }

    /// Why an append is refused. Of the end of a stream nobody is told before it is stored: an outage may undo a closing, and
    /// then the append was not stored either.
    pub(super) async fn refused(&self, partition: Partition, error: Error) -> Error {
        if !matches!(error.kind(), Kind::Refused(Refusal::Closed { .. })) {
            return error;
        }
        if planted!(EndToldBeforeCommit) {
            return error;
        }
        let closing = self.core().closing(partition);
        let stored = match closing {
            Some(closing) => self.certain(closing).await.map(drop),
            None => Ok(()),
        };
        match (self.seen(partition), stored) {
            (Ok((_, _, true)), _) => error,
            (Err(gone), _) => gone,
            (Ok((_, _, false)), Err(why)) if why.kind() != Kind::Unknown => why,
            (Ok((_, _, false)), Ok(()) | Err(_)) => {
                let text = "the stream was about to be closed, and it is not known whether it is";
                Error::new(Kind::Unavailable, text)
            }
        }
    }
}

/// Waits for the outcome of a slot.
pub(super) async fn settled(outcome: &mut watch::Receiver<Outcome>) -> Result<()> {
    match outcome.wait_for(|outcome| !matches!(outcome, Outcome::Pending)).await {
        Ok(Outcome::Committed) => Ok(()),
        Ok(Outcome::Failed(kind, why)) => Err(Error::new(kind, why.to_string())),
        Ok(Outcome::Pending) | Err(_) => Err(Error::new(Kind::Unknown, "the log ended before the outcome was known")),
    }
}
