//! Waiting: for the acknowledgement of an append, and for the outcome of its slot.

use crate::durability::Durability;
use crate::error::{Error, Kind, Result};
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
        if let Ack::Late(mut outcome) = ack {
            let open = |outcome: &Outcome| matches!(outcome, Outcome::Pending | Outcome::Failed(Kind::Unknown, _));
            // An error says that there will be no other outcome: the last one is it.
            drop(outcome.wait_for(|outcome| !open(outcome)).await);
            return settled(&mut outcome).await.map(|()| Durability::Object);
        }
        self.acknowledged(ack).await
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
