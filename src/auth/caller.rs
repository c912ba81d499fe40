//! Who is calling, and the proofs that only a check can make: [`TopicRef`], [`TopicPattern`], [`Admin`], [`Operator`].
//!
//! The broker takes these proofs and nothing else, so that a call without a check does not compile. Their fields are
//! private to this module.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use plinth_storage::ids::Timestamp;

use super::account::Account;
use super::jwt::{CALLERS, Fingerprint, TokenFault};
use super::name::check_topic_name;
use super::pattern::Pattern;
use super::registry::TenantRef;
use super::scope::{Action, Scope};
use super::system::SystemTopic;

/// Why a credential does not allow a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no credential, or it is not valid.
    Unauthenticated(String),
    /// It is a token that is not valid.
    Token(TokenFault),
    /// The credential is valid and does not allow this.
    Forbidden(String),
    /// The credential is valid and its tenant is suspended.
    Suspended(String),
    /// The name breaks the naming rule.
    InvalidTopicName(String),
    /// There is no such tenant, or nothing of the caller's own that is meant.
    NotFound(String),
    /// The credential cannot be checked at the moment.
    Unavailable(String),
}

/// A checked credential. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Credentials>, Whose);

/// Whose things a caller asks for: those of its own tenant, or of another one, of which it is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    Others,
}

/// A topic of the caller's tenant, and the proof that the caller may act on it.
#[derive(Clone, Debug)]
pub struct TopicRef {
    account: Account,
    name: Arc<str>,
    action: Action,
    may_create: bool,
}

/// A topic or all topics that match, as far as the caller may act on them.
#[derive(Clone, Debug)]
pub struct TopicPattern {
    caller: Caller,
    account: Account,
    text: Arc<str>,
    pattern: Pattern,
    action: Action,
}

/// The proof that the caller may manage the keys of a tenant.
#[derive(Clone, Debug)]
pub struct Admin {
    tenant: TenantRef,
}

/// The proof that the caller holds the root key.
#[derive(Clone, Debug)]
pub struct Operator(());

#[derive(Debug)]
struct Credentials {
    id: Box<str>,
    /// None for the root key alone.
    account: Option<Account>,
    grant: Grant,
    expires_at: Option<Timestamp>,
}

#[derive(Debug)]
enum Grant {
    Everything,
    Scopes { holder: Holder, scopes: Vec<Scope> },
}

/// What the scopes of a caller come from.
#[derive(Clone, Debug)]
enum Holder {
    Key(KeyRef),
    Token(Arc<Token>),
}

/// An API key, and by which of its secrets the caller came: how many it had had before.
#[derive(Clone, Debug)]
pub(super) struct KeyRef {
    pub(super) id: Box<str>,
    pub(super) secret: u32,
}

/// What is kept of a token.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) subject: String,
    pub(super) token_id: Option<String>,
    pub(super) issued_at: Timestamp,
    pub(super) source: Source,
    /// By how much the clock may be ahead that it was issued by.
    pub(super) leeway_ms: u64,
    /// The state of revocations under which it was last found not to be revoked.
    pub(super) checked: AtomicU64,
}

/// What a token was verified against.
#[derive(Debug)]
pub(super) enum Source {
    /// A trusted issuer of the tenant, by name, what was trusted of it, and the key.
    Issuer { name: Box<str>, terms: Fingerprint, key: Fingerprint },
    /// The cluster itself, for who came by this API key; without one, by the root key.
    Minted { key: Option<KeyRef> },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(fault) => fault.fmt(f),
            Self::Unauthenticated(why)
            | Self::Forbidden(why)
            | Self::Suspended(why)
            | Self::InvalidTopicName(why)
            | Self::NotFound(why)
            | Self::Unavailable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Denied {}

impl From<TokenFault> for Denied {
    fn from(fault: TokenFault) -> Self {
        Self::Token(fault)
    }
}

impl Caller {
    /// The holder of the root key, acting inside `tenant` if there is one.
    pub(super) fn root(tenant: Option<TenantRef>) -> Self {
        let account = tenant.map(Account::from);
        Self(
            Arc::new(Credentials { id: "root".into(), account, grant: Grant::Everything, expires_at: None }),
            Whose::Own,
        )
    }

    /// The holder of an API key.
    pub(super) fn key(key: KeyRef, account: Account, scopes: Vec<Scope>, expires_at: Option<Timestamp>) -> Self {
        let id = format!("key:{}", key.id).into();
        let grant = Grant::Scopes { holder: Holder::Key(key), scopes };
        Self(Arc::new(Credentials { id, account: Some(account), grant, expires_at }), Whose::Own)
    }

    /// The bearer of a token.
    pub(super) fn token(token: Token, account: Account, scopes: Vec<Scope>, expires_at: Timestamp) -> Self {
        let id = match &token.source {
            Source::Issuer { name, .. } => format!("token:{name}:{}", token.subject).into(),
            Source::Minted { .. } => format!("token:{CALLERS}:{}", token.subject).into(),
        };
        let grant = Grant::Scopes { holder: Holder::Token(Arc::new(token)), scopes };
        Self(Arc::new(Credentials { id, account: Some(account), grant, expires_at: Some(expires_at) }), Whose::Own)
    }

    /// The same holder of an API key, with no right but to read what it may read. None for the root key and for tokens.
    pub(super) fn reading(&self) -> Option<Self> {
        let Credentials { id, account, grant, expires_at } = &*self.0;
        let Grant::Scopes { holder: Holder::Key(key), scopes } = grant else { return None };
        let scopes = scopes.iter().filter_map(Scope::reading).collect();
        let grant = Grant::Scopes { holder: Holder::Key(key.clone()), scopes };
        let held = Credentials { id: id.clone(), account: account.clone(), grant, expires_at: *expires_at };
        Some(Self(Arc::new(held), self.1))
    }

    /// The same caller, asking for things of the tenant with this name.
    #[must_use]
    pub fn asking(self, tenant: &str) -> Self {
        let own = self.tenant().is_some_and(|own| own.name() == tenant);
        Self(self.0, if own { Whose::Own } else { Whose::Others })
    }

    /// Whether it asks for things of another tenant than its own: then nothing is there, whatever it asks for.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.1 == Whose::Others
    }

    /// The id of the API key; none for the root key and for tokens.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_ref().map(|key| &*key.id)
    }

    /// The API key and the secret; none for the root key.
    pub(super) fn key_ref(&self) -> Option<&KeyRef> {
        match &self.0.grant {
            Grant::Scopes { holder: Holder::Key(key), .. } => Some(key),
            Grant::Scopes { holder: Holder::Token(_), .. } | Grant::Everything => None,
        }
    }

    /// The token; none for keys.
    pub(super) fn bearer(&self) -> Option<&Token> {
        match &self.0.grant {
            Grant::Scopes { holder: Holder::Token(token), .. } => Some(token),
            Grant::Scopes { holder: Holder::Key(_), .. } | Grant::Everything => None,
        }
    }

    /// Checks that the caller may do `action` on the topic `name`, percent-decoded already.
    ///
    /// # Errors
    /// `InvalidTopicName`; `Forbidden` when no scope allows it, whether or not there is one; `NotFound` for another tenant's.
    pub fn authorize(&self, action: Action, name: &str) -> Result<TopicRef, Denied> {
        if SystemTopic::named(name).is_none() {
            check_topic_name(name).map_err(Denied::InvalidTopicName)?;
        }
        let account = self.account_inside()?.clone();
        if !self.may(action, name) {
            return Err(self.denies(action, name));
        }
        self.check_own(name)?;
        // Who may read a system topic need not wait until there is something in it.
        let may_create = self.may(Action::Manage, name) || SystemTopic::named(name).is_some();
        Ok(TopicRef { account, name: name.into(), action, may_create })
    }

    /// Checks that the caller may do `action` on a topic, or on some topics by a pattern with `*` or `**`.
    ///
    /// A pattern only ever shows topics that the scopes allow.
    ///
    /// # Errors
    /// As [`Caller::authorize`].
    pub fn authorize_pattern(&self, action: Action, pattern: &str) -> Result<TopicPattern, Denied> {
        let compiled = match SystemTopic::named(pattern) {
            Some(_) => Pattern::Exactly(pattern.into()),
            None => Pattern::parse(pattern).map_err(Denied::InvalidTopicName)?,
        };
        let account = self.account_inside()?.clone();
        let allowed = if pattern.contains('*') { self.may_somewhere(action) } else { self.may(action, pattern) };
        if !allowed {
            return Err(self.denies(action, pattern));
        }
        self.check_own(pattern)?;
        Ok(TopicPattern { caller: self.clone(), account, text: pattern.into(), pattern: compiled, action })
    }

    /// Whether the scopes allow `action` on the topic `name`. System topics are read by administrators, and that is all.
    #[must_use]
    pub fn may(&self, action: Action, name: &str) -> bool {
        match &self.0.grant {
            Grant::Everything if SystemTopic::named(name).is_some() => SystemTopic::may_be_read(action, name),
            Grant::Everything => !self.tenant().is_some_and(TenantRef::is_reserved),
            Grant::Scopes { scopes, .. } => scopes.iter().any(|scope| scope.allows(action, name)),
        }
    }

    /// Whether it is proven that the caller may do whatever `scope` allows.
    pub(super) fn covers(&self, scope: &Scope) -> bool {
        match &self.0.grant {
            Grant::Everything => true,
            Grant::Scopes { scopes, .. } => scopes.iter().any(|own| scope.is_within(own)),
        }
    }

    /// Whether it is proven that the caller may do `action` on whatever `pattern` matches.
    pub(super) fn covers_pattern(&self, action: Action, pattern: &Pattern) -> bool {
        match &self.0.grant {
            Grant::Everything => !self.tenant().is_some_and(TenantRef::is_reserved),
            Grant::Scopes { scopes, .. } => scopes.iter().any(|scope| scope.allows_all(action, pattern)),
        }
    }

    /// Whether it is proven that the caller may do whatever `other` may, in the name of the same holder.
    #[must_use]
    pub fn succeeds(&self, other: &Self) -> bool {
        let same = self.id() == other.id() && self.tenant() == other.tenant();
        same && match (&self.0.grant, &other.0.grant) {
            (Grant::Everything, _) => true,
            (Grant::Scopes { .. }, Grant::Everything) => false,
            (Grant::Scopes { .. }, Grant::Scopes { scopes, .. }) => scopes.iter().all(|scope| self.covers(scope)),
        }
    }

    /// The scopes; none for the root key, which needs none.
    pub(super) fn scopes(&self) -> &[Scope] {
        match &self.0.grant {
            Grant::Everything => &[],
            Grant::Scopes { scopes, .. } => scopes,
        }
    }

    /// Checks that the caller may manage the keys of its tenant.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn admin(&self) -> Result<Admin, Denied> {
        let tenant = self.inside()?.clone();
        if tenant.is_reserved() {
            return Err(Denied::Forbidden(format!("the tenant {} is only read", tenant.name())));
        }
        let allowed = match &self.0.grant {
            Grant::Everything => true,
            Grant::Scopes { scopes, .. } => scopes.iter().any(|scope| matches!(scope, Scope::Admin)),
        };
        if allowed { Ok(Admin { tenant }) } else { Err(Denied::Forbidden("the credential has no scope admin".into())) }
    }

    /// Checks that the caller holds the root key.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn operator(&self) -> Result<Operator, Denied> {
        match self.0.grant {
            Grant::Everything => Ok(Operator(())),
            Grant::Scopes { .. } => Err(Denied::Forbidden("only the root key allows this".into())),
        }
    }

    /// On whose account the calls are; none for the root key alone.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.0.account.as_ref()
    }

    /// The tenant that the caller acts in; none for the root key alone.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantRef> {
        self.account().map(Account::tenant)
    }

    /// `key:<id>`, `token:<issuer>:<subject>` or `root`, for logs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// For whom the credential was made, where it says so.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.bearer().map(|token| token.subject.as_str())
    }

    /// When the credential ends, if it does.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.0.expires_at
    }

    /// The tenant, which every call but the operator's own needs.
    ///
    /// # Errors
    /// `Forbidden` for the root key alone; `NotFound` when another tenant's things are asked for.
    pub fn inside(&self) -> Result<&TenantRef, Denied> {
        let account = self.account_inside()?;
        if self.is_elsewhere() {
            return Err(Denied::NotFound("there is no such thing".into()));
        }
        Ok(account.tenant())
    }

    /// To who asks for a topic of another tenant there is none.
    fn check_own(&self, name: &str) -> Result<(), Denied> {
        if self.is_elsewhere() { Err(Denied::NotFound(format!("there is no topic {name}"))) } else { Ok(()) }
    }

    pub(super) fn account_inside(&self) -> Result<&Account, Denied> {
        self.account().ok_or_else(|| {
            Denied::Forbidden("the root key acts inside a tenant only when the header plinth-tenant names it (--tenant on the command line)".into())
        })
    }

    fn denies(&self, action: Action, name: &str) -> Denied {
        Denied::Forbidden(match (SystemTopic::named(name), action) {
            (Some(_), Action::Publish | Action::Manage) => {
                format!("topic {name} is written and kept by the server; the scope admin may read it")
            }
            (Some(_), Action::Subscribe | Action::View) => format!("only the scope admin allows to read topic {name}"),
            (None, _) => format!("the credential does not allow {action} on topic {name}"),
        })
    }

    pub(super) fn may_somewhere(&self, action: Action) -> bool {
        match &self.0.grant {
            Grant::Everything => true,
            Grant::Scopes { scopes, .. } => scopes.iter().any(|scope| scope.concerns(action)),
        }
    }
}

impl TopicRef {
    /// A system topic, for its one writer.
    pub(super) fn written_by_server(tenant: TenantRef, topic: SystemTopic) -> Self {
        Self { account: tenant.into(), name: topic.name().into(), action: Action::Publish, may_create: true }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &TenantRef {
        self.account.tenant()
    }

    /// On whose account it is used.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// The name, shared.
    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    /// What was checked.
    pub(crate) fn action(&self) -> Action {
        self.action
    }

    /// Whether the caller may make the topic if it is not there.
    pub(crate) fn may_create(&self) -> bool {
        self.may_create
    }
}

impl TopicPattern {
    /// The name or pattern as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tenant.
    pub(crate) fn tenant(&self) -> &TenantRef {
        self.account.tenant()
    }

    /// On whose account it is used.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// What was checked.
    pub(crate) fn action(&self) -> Action {
        self.action
    }

    /// The topic, where this is the name of one.
    pub(crate) fn topic(&self) -> Option<TopicRef> {
        let may_create = SystemTopic::named(&self.text).is_some();
        let topic = || TopicRef {
            account: self.account.clone(),
            name: Arc::clone(&self.text),
            action: self.action,
            may_create,
        };
        self.is_literal().then(topic)
    }

    /// Whether this is the name of one topic.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self.pattern, Pattern::Exactly(_))
    }

    /// Whether the topic `name` matches and the caller may act on it.
    pub(crate) fn shows(&self, name: &str) -> bool {
        self.pattern.matches(name) && self.caller.may(self.action, name)
    }

    /// The longest beginning that all names which match have.
    pub(crate) fn prefix(&self) -> &str {
        self.text.split('*').next().unwrap_or_default()
    }
}

impl Admin {
    /// The tenant whose keys may be managed.
    #[must_use]
    pub fn tenant(&self) -> &TenantRef {
        &self.tenant
    }
}
