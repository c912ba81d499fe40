//! Why a token is refused: a word for programs, a short sentence for every 401, a longer one for who asks for it.
//!
//! None of them repeats the token, and none names a tenant. What is found before the signature is good is told to nobody:
//! with a token of his own making a stranger could find out whom a tenant trusts, and that there is one.

use std::fmt;

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not three parts of base64url with JSON inside.
    Malformed,
    /// Its algorithm is not known, or not one of its issuer's.
    Algorithm,
    /// No tenant trusts its issuer with its audience.
    Audience,
    /// Its issuer has no such key.
    UnknownKey,
    /// Its issuer's keys cannot be fetched.
    KeysUnavailable,
    /// The signature is not one of the issuer's key.
    Signature,
    /// A claim is missing or does not have its form.
    Claim,
    /// It has ended.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It lives longer than its issuer's tokens may.
    Lifetime,
    /// It was revoked.
    Revoked,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFault {
    /// The kind.
    pub fault: Fault,
    detail: String,
}

impl Fault {
    /// The word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm | Self::Audience | Self::UnknownKey | Self::KeysUnavailable | Self::Signature => {
                "untrusted"
            }
            Self::Claim => "claim",
            Self::Expired => "expired",
            Self::NotYet => "not_yet_valid",
            Self::Lifetime => "lifetime",
            Self::Revoked => "revoked",
        }
    }

    /// One sentence that can stand in a header (RFC 6750 §3).
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "the credential is neither a key nor a token that can be read",
            Self::Algorithm | Self::Audience | Self::UnknownKey | Self::KeysUnavailable | Self::Signature => {
                "the token is not trusted here"
            }
            Self::Claim => "a claim of the token is missing or not valid",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet",
            Self::Lifetime => "the token lives longer than is allowed",
            Self::Revoked => "the token was revoked",
        }
    }
}

impl TokenFault {
    pub(super) fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into() }
    }

    /// The keys of the issuer are not there yet.
    pub(in crate::auth) fn unfetched() -> Self {
        Self::new(Fault::KeysUnavailable, "the keys of its issuer could not be fetched; it is tried again within 30 s")
    }

    /// What is wrong in detail, for the bearer.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self.fault {
            Fault::Algorithm | Fault::Audience | Fault::UnknownKey | Fault::KeysUnavailable | Fault::Signature => {
                "the token is not trusted here: its issuer with its audience, its algorithm, its key (which may be out of reach) or its signature; the \
                 server's log says which one (debug)"
            }
            Fault::Malformed | Fault::Claim | Fault::Expired | Fault::NotYet | Fault::Lifetime | Fault::Revoked => {
                &self.detail
            }
        }
    }

    /// The whole, for the log.
    pub(super) fn inner(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.sentence())
    }
}
