//! Why a credential may or may not do a thing, for its own bearer.

use plinth_storage::ids::Timestamp;

use super::caller::{Caller, Denied, Source};
use super::scope::Action;

/// What kind of credential a caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// The root key.
    Root,
    /// An API key.
    Key,
    /// A token.
    Token,
}

/// Who a caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kind of credential.
    pub kind: CredentialKind,
    /// The tenant's name.
    pub tenant: String,
    /// The id of the API key, or of the one that minted the token.
    pub key_id: Option<String>,
    /// The name of the trusted issuer, of a token of one.
    pub issuer: Option<String>,
    /// The subject of a token.
    pub subject: Option<String>,
    /// The id of a token, if it has one.
    pub token_id: Option<String>,
    /// When a token was issued.
    pub issued_at: Option<Timestamp>,
    /// When the credential ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// What it may do; nothing is listed for the root key, which may do everything.
    pub scopes: Vec<String>,
}

/// Whether something is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is.
    pub allowed: bool,
    /// Why, in a sentence.
    pub reason: String,
}

impl Caller {
    /// Who the caller is.
    ///
    /// # Errors
    /// `Forbidden` for the root key outside a tenant.
    pub fn identity(&self) -> Result<Identity, Denied> {
        let mut identity = Identity {
            kind: if self.key_id().is_some() { CredentialKind::Key } else { CredentialKind::Root },
            tenant: self.inside()?.name().to_owned(),
            key_id: self.key_id().map(str::to_owned),
            issuer: None,
            subject: None,
            token_id: None,
            issued_at: None,
            expires_at: self.expires_at(),
            scopes: self.scopes().iter().map(ToString::to_string).collect(),
        };
        if let Some(token) = self.bearer() {
            identity.kind = CredentialKind::Token;
            identity.subject = Some(token.subject.clone());
            identity.token_id.clone_from(&token.token_id);
            identity.issued_at = Some(token.issued_at);
            match &token.source {
                Source::Issuer { name, .. } => identity.issuer = Some(name.to_string()),
                Source::Minted { key } => identity.key_id = key.as_ref().map(|key| key.id.to_string()),
            }
        }
        Ok(identity)
    }

    /// Whether the caller may do `action` on a topic, or on some by a pattern, and why.
    #[must_use]
    pub fn verdict(&self, action: Action, topic: &str) -> Verdict {
        let denied = if topic.contains('*') {
            self.authorize_pattern(action, topic).map(drop)
        } else {
            self.authorize(action, topic).map(drop)
        };
        let reason = match &denied {
            Err(denied) => denied.to_string(),
            Ok(()) if topic.contains('*') => "it shows the topics that the scopes allow".to_owned(),
            Ok(()) => match self.scopes().iter().find(|scope| scope.allows(action, topic)) {
                Some(scope) => format!("the scope {scope} allows it"),
                None => "the root key may do everything".to_owned(),
            },
        };
        Verdict { allowed: denied.is_ok(), reason }
    }
}
