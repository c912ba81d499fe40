//! Why something about a subscription fails, in the words of the protocol.

use std::fmt;

use super::links::BadAck;
use super::token::BadToken;
use super::turn::{Fenced, NotClaimed};
use crate::auth::Denied;
use crate::broker::error::Error;

/// A failure in the words of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeCode {
    /// What is asked for cannot be.
    InvalidRequest,
    /// There is none, or none that the caller may know of.
    NotFound,
    /// There is one with another configuration.
    AlreadyExists,
    /// There would be too many.
    LimitExceeded,
    /// The address of the webhook is one that is not asked.
    UrlRejected,
    /// The token is none of ours, or for something else.
    TokenInvalid,
    /// The token is too old.
    TokenExpired,
    /// It is about another wake than the one under way.
    Fenced,
    /// A worker has it.
    AlreadyClaimed,
    /// All is done with.
    NoPendingWork,
    /// An offset cannot be acknowledged.
    InvalidOffset,
}

/// Why something about a subscription failed.
#[derive(Debug)]
pub enum WakeError {
    /// By the protocol.
    Refused {
        /// How it is called there.
        code: WakeCode,
        /// A lower-case sentence that names the thing and the limit.
        message: String,
        /// The worker that has the wake, and its generation.
        held: Option<(String, u64)>,
    },
    /// By the rights of the caller.
    Denied(Denied),
    /// Below.
    Broker(Error),
}

impl WakeError {
    pub(super) fn new(code: WakeCode, message: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into(), held: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(WakeCode::InvalidRequest, message)
    }

    pub(super) fn absent(id: &str) -> Self {
        Self::new(WakeCode::NotFound, format!("there is no subscription {id:?} that the credential may know of"))
    }
}

impl fmt::Display for WakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } => f.write_str(message),
            Self::Denied(denied) => denied.fmt(f),
            Self::Broker(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { .. } => None,
            Self::Denied(denied) => denied.source(),
            Self::Broker(error) => error.source(),
        }
    }
}

impl From<Error> for WakeError {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

impl From<plinth_storage::Error> for WakeError {
    fn from(error: plinth_storage::Error) -> Self {
        Self::Broker(error.into())
    }
}

impl From<Denied> for WakeError {
    fn from(denied: Denied) -> Self {
        match denied {
            // To the protocol it is one mistake among others in a body.
            Denied::InvalidTopicName(why) => Self::invalid(why),
            other @ (Denied::Unauthenticated(_)
            | Denied::Token(_)
            | Denied::Forbidden(_)
            | Denied::Suspended(_)
            | Denied::NotFound(_)
            | Denied::Unavailable(_)) => Self::Denied(other),
        }
    }
}

impl From<BadToken> for WakeError {
    fn from(bad: BadToken) -> Self {
        match bad {
            BadToken::Invalid => Self::new(WakeCode::TokenInvalid, "the token is not one that was given for this"),
            BadToken::Expired => Self::new(WakeCode::TokenExpired, "the token is too old"),
        }
    }
}

impl From<Fenced> for WakeError {
    fn from(_: Fenced) -> Self {
        Self::new(WakeCode::Fenced, "the wake is not the one under way: another one has begun, or this one is over")
    }
}

impl From<BadAck> for WakeError {
    fn from(BadAck(why): BadAck) -> Self {
        Self::new(WakeCode::InvalidOffset, why)
    }
}

impl From<NotClaimed> for WakeError {
    fn from(refused: NotClaimed) -> Self {
        match refused {
            NotClaimed::Held { holder, generation } => Self::Refused {
                code: WakeCode::AlreadyClaimed,
                message: format!("the worker {holder:?} has claimed the wake"),
                held: Some((holder, generation)),
            },
            NotClaimed::Nothing => Self::new(WakeCode::NoPendingWork, "all that is there is acknowledged"),
        }
    }
}
