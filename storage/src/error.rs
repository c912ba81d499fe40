//! Why a call of the log failed. A kind exists only if the caller acts differently on it.

use std::error::Error as StdError;
use std::fmt;

use crate::ids::{FencingToken, Offset, ProducerEpoch, ProducerSeq};

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The session was ended by another: nothing more can be stored here. What was asked was not stored.
    Fenced,
    /// The offset is not in the partition.
    OutOfRange,
    /// A bound is reached; nothing was stored, try again.
    Busy,
    /// The object store cannot be reached; nothing was stored.
    Unavailable,
    /// The time allowed has passed, or the session ended, with the outcome open: it may be stored.
    Unknown,
    /// Stored data does not have the form or checksum that it must have.
    Corrupt,
    /// The log is closed; nothing was stored.
    Closed,
    /// A condition of the change does not hold; nothing was stored.
    Conflict,
    /// The thing named is not there; nothing was stored.
    NotFound,
    /// The input breaks a limit or a rule; nothing was stored.
    Invalid,
    /// The terms of the append do not hold; nothing was stored by this call.
    Refused(Refusal),
}

/// Why the terms of an append do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The next offset is another one than was expected.
    Tail {
        /// The next offset to be given.
        tail: Offset,
    },
    /// The sequence is not the producer's next one. One below it was stored before, too long ago for its receipt.
    Sequence {
        /// The one that is due.
        expected: ProducerSeq,
        /// Whether the producer's epoch is a later one than was known, so that it has to begin anew.
        new_epoch: bool,
    },
    /// A later epoch of the producer has written.
    ProducerEpoch {
        /// That epoch.
        epoch: ProducerEpoch,
    },
    /// The partition has seen a higher fencing token.
    FencingToken {
        /// The highest one.
        token: FencingToken,
    },
    /// The stream is closed.
    Closed {
        /// Its end.
        tail: Offset,
    },
    /// The sequence is not above the last one of the stream.
    StreamSeq,
    /// The idempotency key was used for other content.
    OtherContent,
}

/// An error of the log: a kind, a sentence that names the thing and the limit, and the cause below it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    detail: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// An error with its causes, outermost first, on one line. Some crates say their cause in their own message as well: what
/// the line says already is not said again.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

/// The result of a call of the log.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`; `detail` is a lower-case sentence.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), source: None }
    }

    /// The same error with the cause below it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller does about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A second error with the same kind and sentence, without the cause: one failed slot answers many waiters.
    #[must_use]
    pub fn repeat(&self) -> Self {
        Self::new(self.kind, self.detail.clone())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = one_line(&self.0.to_string());
        let mut next = self.0.source();
        while let Some(cause) = next {
            let words = one_line(&cause.to_string());
            if !line.contains(&words) {
                line.push_str(": ");
                line.push_str(&words);
            }
            next = cause.source();
        }
        f.write_str(&line)
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_each_cause_once_and_on_one_line() {
        let innermost = Error::new(Kind::Unavailable, "connection refused");
        let repeats = Error::new(Kind::Unavailable, "PUT failed\nwith: connection refused").with_source(innermost);
        let outermost = Error::new(Kind::Unavailable, "store x cannot be reached").with_source(repeats);
        let line = Chain(&outermost).to_string();
        assert_eq!(line, "store x cannot be reached: PUT failed with: connection refused");
    }
}
