//! Why a call of the broker failed: structured, without status codes, which belong to the transports.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use plinth_storage::error::{Kind, Refusal};

use super::quotas::Exceeded;
use super::streams::Token;

/// Why a call of the broker failed. Each sentence is lower-case and names the thing and the limit.
#[derive(Debug)]
pub enum Error {
    /// There is no such thing in the caller's tenant.
    NotFound(String),
    /// The thing exists with other settings, or changed at the same moment.
    Conflict(String),
    /// A term of the publish does not hold; nothing was stored by it.
    Refused {
        /// Which one, and what holds instead.
        refusal: Refusal,
        /// The same in words.
        detail: String,
    },
    /// The request cannot be understood.
    Invalid(String),
    /// The request is understood but its content is refused.
    Unprocessable(String),
    /// The cursor is not one of ours, or belongs to another tenant or topic.
    InvalidCursor(String),
    /// A record, batch, key or header is larger than its limit.
    TooLarge(String),
    /// The offset is below the first one that is kept.
    Trimmed {
        /// The offset that was asked for.
        requested: u64,
        /// The first one that is kept.
        start: u64,
    },
    /// The offset is above the tail.
    AboveTail {
        /// The offset that was asked for.
        requested: u64,
        /// The tail.
        tail: u64,
    },
    /// The position is of a stream that was deleted, or of what is no longer kept.
    Gone(String),
    /// The stream is closed; nothing was stored by this.
    Closed {
        /// Its end.
        next: Token,
    },
    /// The stream has another media type.
    ContentType {
        /// That one.
        stream: Arc<str>,
    },
    /// A quota of the tenant or of the key is used up; nothing was stored.
    QuotaExceeded(Exceeded),
    /// A bound of this node is reached; nothing was stored.
    Busy(String),
    /// The object store cannot be reached; nothing was stored.
    Unavailable(String),
    /// This node is stopping or has lost its session; nothing was stored.
    ShuttingDown(String),
    /// The outcome was not known in time: it may be stored.
    Unknown(String),
    /// A defect, or stored data that does not have its form.
    Internal {
        /// What.
        detail: String,
        /// The cause below it.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl Error {
    /// A defect of this program.
    pub(crate) fn defect(detail: impl Into<String>) -> Self {
        Self::Internal { detail: detail.into(), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(detail)
            | Self::Conflict(detail)
            | Self::Invalid(detail)
            | Self::Unprocessable(detail)
            | Self::InvalidCursor(detail)
            | Self::TooLarge(detail)
            | Self::Gone(detail)
            | Self::Busy(detail)
            | Self::Unavailable(detail)
            | Self::ShuttingDown(detail)
            | Self::Unknown(detail)
            | Self::Refused { detail, .. }
            | Self::Internal { detail, .. } => f.write_str(detail),
            Self::Trimmed { requested, start } => {
                write!(f, "offset {requested} is no longer kept; the first kept offset is {start}")
            }
            Self::Closed { next } => write!(f, "the stream is closed: it ends at {next}"),
            Self::ContentType { stream } => {
                write!(f, "the body is of another media type than the stream, which is {stream}")
            }
            Self::QuotaExceeded(exceeded) => exceeded.fmt(f),
            Self::AboveTail { requested, tail } => write!(f, "offset {requested} is above the tail, which is {tail}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Internal { source, .. } => source.as_deref().map(|source| source as _),
            Self::NotFound(_)
            | Self::Conflict(_)
            | Self::Refused { .. }
            | Self::Invalid(_)
            | Self::Unprocessable(_)
            | Self::InvalidCursor(_)
            | Self::TooLarge(_)
            | Self::Trimmed { .. }
            | Self::AboveTail { .. }
            | Self::Gone(_)
            | Self::Closed { .. }
            | Self::ContentType { .. }
            | Self::QuotaExceeded(_)
            | Self::Busy(_)
            | Self::Unavailable(_)
            | Self::ShuttingDown(_)
            | Self::Unknown(_) => None,
        }
    }
}

impl From<Exceeded> for Error {
    fn from(exceeded: Exceeded) -> Self {
        Self::QuotaExceeded(exceeded)
    }
}

impl From<plinth_storage::error::Error> for Error {
    fn from(error: plinth_storage::error::Error) -> Self {
        let detail = error.to_string();
        match error.kind() {
            Kind::Fenced | Kind::Closed => Self::ShuttingDown(detail),
            Kind::Busy => Self::Busy(detail),
            Kind::Unavailable => Self::Unavailable(detail),
            Kind::Unknown => Self::Unknown(detail),
            Kind::Conflict => Self::Conflict(detail),
            Kind::NotFound => Self::NotFound(detail),
            Kind::Refused(refusal) => Self::Refused { refusal, detail },
            Kind::Invalid => Self::Invalid(detail),
            // Whoever reads says what an offset that is not there means for the client; none is left to be mapped.
            Kind::OutOfRange | Kind::Corrupt => Self::Internal { detail, source: Some(Box::new(error)) },
        }
    }
}
