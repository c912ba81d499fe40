//! Trusted issuers of a tenant: ensure, view, list, delete. A change is answered after it is durable.
//!
//! A pair of `iss` and `aud` belongs to one tenant of the cluster: so a token leads to one tenant at most, whoever else
//! trusts the same issuer. Audiences that do not begin with `plinth:<tenant>` are the operator's to give (ADR 25).

use bytes::Bytes;
use plinth_api::limits::{
    ISSUER_AUDIENCES_MAX, ISSUER_NAME_BYTES_MAX, ISSUER_SECRET_BYTES_MAX, ISSUER_TEXT_BYTES_MAX, ISSUERS_MAX,
    KEY_SCOPES_MAX, TOKEN_LEEWAY_MS_MAX, TOKEN_LIFETIME_MS_DEFAULT, TOKEN_LIFETIME_MS_MAX, TOKEN_LIFETIME_MS_MIN,
};
use plinth_storage::Kind;
use plinth_storage::ids::{TenantId, Timestamp};
use plinth_storage::log::{Change, DocOp, Guard};
use serde_json::Value;

use super::algorithm::{Algorithm, Family};
use super::key::{self, Jwk, VerifyingKey};
use super::mint;
use super::template::Template;
use crate::auth::caller::{Admin, Caller, Denied};
use crate::auth::{Auth, TenantRef};
use crate::broker::Error;
use crate::broker::documents::{self, IssuerClaimDoc, IssuerDoc, IssuerKeysDoc};

/// What an issuer is to be. What is left out has a default.
#[derive(Clone, Debug, Default)]
pub struct IssuerRequest {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The audiences of which a token must have one; by default `plinth:<tenant>`.
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may have.
    pub algorithms: Vec<String>,
    /// Its public keys, as a JSON Web Key Set.
    pub jwks: Option<Value>,
    /// Where it publishes them.
    pub jwks_url: Option<String>,
    /// Its secret, for HS256, HS384 and HS512.
    pub secret: Option<String>,
    /// The claim with the scopes; by default `scope`.
    pub scope_claim: Option<String>,
    /// The claim with the subject; by default `sub`.
    pub subject_claim: Option<String>,
    /// The scopes of a token that names none.
    pub default_scopes: Vec<String>,
    /// The longest life of its tokens; by default `1d`.
    pub max_lifetime: Option<String>,
    /// By how much its clock may be wrong; by default `30s`.
    pub leeway: Option<String>,
}

/// A trusted issuer. Its secret is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerView {
    /// Its name in the tenant.
    pub name: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The audiences of which a token must have one.
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may have.
    pub algorithms: Vec<String>,
    /// Its public keys, when they were given.
    pub jwks: Option<Vec<Value>>,
    /// Where it publishes them.
    pub jwks_url: Option<String>,
    /// Whether its secret was given.
    pub has_secret: bool,
    /// The claim with the scopes.
    pub scope_claim: String,
    /// The claim with the subject.
    pub subject_claim: String,
    /// The scopes of a token that names none.
    pub default_scopes: Vec<String>,
    /// The longest life of its tokens.
    pub lifetime_ms_max: u64,
    /// By how much its clock may be wrong.
    pub leeway_ms: u64,
    /// When it was first trusted.
    pub created_at: Timestamp,
}

impl Auth {
    /// Checks that the caller may trust an issuer for these audiences: an administrator for those that begin with
    /// `plinth:<tenant>`, the holder of the root key for any.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn may_trust(&self, caller: &Caller, audiences: &[String]) -> Result<Admin, Denied> {
        let admin = caller.admin()?;
        let own = default_audience(admin.tenant());
        let foreign = audiences.iter().find(|audience| {
            let rest = audience.strip_prefix(own.as_str());
            !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        match foreign {
            Some(foreign) if caller.operator().is_err() => Err(Denied::Forbidden(format!(
                "the audience {foreign:?} does not name this tenant: only the root key may trust an issuer for it; \
                 {own:?} and what begins with \"{own}/\" are free"
            ))),
            Some(_) | None => Ok(admin),
        }
    }

    /// Trusts an issuer, or changes what is trusted of it; true when it was not trusted before. From the answer on
    /// tokens are checked against it. Cancel safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for what it is to be; `Conflict` when the pair of issuer and audience is taken.
    pub async fn ensure_issuer(
        &self,
        admin: &Admin,
        name: &str,
        request: IssuerRequest,
    ) -> Result<(IssuerView, bool), Error> {
        check_name(name).map_err(Error::Unprocessable)?;
        let (auth, tenant, name) = (self.clone(), admin.tenant().clone(), name.to_owned());
        let doc = self.compose_issuer(&tenant, &name, request)?;
        self.0.changes.run(async move { auth.store_issuer(&tenant, &name, doc).await }).await
    }

    /// An issuer of the administrator's tenant.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get_issuer(&self, admin: &Admin, name: &str) -> Result<IssuerView, Error> {
        let doc = documents::load(&self.0.log, &documents::issuer(admin.tenant().id(), name))?;
        doc.map(|doc| view(name, doc)).ok_or_else(|| absent(name))
    }

    /// Up to `limit` issuers of the administrator's tenant, by name, after the name `after`.
    ///
    /// # Errors
    /// Those of the log.
    pub fn list_issuers(&self, admin: &Admin, after: Option<&str>, limit: usize) -> Result<Vec<IssuerView>, Error> {
        let tenant = admin.tenant().id();
        let (prefix, after) = (documents::issuers(tenant), after.map(|name| documents::issuer(tenant, name)));
        let rows = self.0.log.scan(&prefix, after.as_deref(), limit)?;
        let views = rows.iter().map(|(row, stored)| {
            Ok(view(&String::from_utf8_lossy(&row[prefix.len()..]), documents::decode(row, stored)?))
        });
        views.collect()
    }

    /// Trusts an issuer no more: from the answer on its tokens are good for nothing, and what they opened ends. Cancel
    /// safe: a caller that stops waiting does not undo it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_issuer(&self, admin: &Admin, name: &str) -> Result<(), Error> {
        let (auth, tenant, name) = (self.clone(), admin.tenant().id(), name.to_owned());
        let deletion = async move {
            let key = documents::issuer(tenant, &name);
            let Some(stored) = auth.0.log.get(&key)? else {
                // It may have been stored after an answer that did not know it.
                auth.forget_issuer(tenant, &name);
                return Err(absent(&name));
            };
            let doc: IssuerDoc = documents::decode(&key, &stored)?;
            let mut docs = claim_deletions(&doc);
            docs.push(DocOp::Delete(key.clone()));
            let change = Change { guards: vec![Guard::Equals(key, stored)], docs, topics: vec![] };
            let forgotten = name.clone();
            let committed = auth.commit_followed(change, move |auth| auth.forget_issuer(tenant, &forgotten)).await;
            committed.map_err(|error| if error.kind() == Kind::Conflict { absent(&name) } else { error.into() })
        };
        self.0.changes.run(deletion).await
    }

    fn forget_issuer(&self, tenant: TenantId, name: &str) {
        self.0.jwt.forget(tenant, name);
        self.announce_revocation(tenant);
    }

    async fn store_issuer(
        &self,
        tenant: &TenantRef,
        name: &str,
        mut doc: IssuerDoc,
    ) -> Result<(IssuerView, bool), Error> {
        let key = documents::issuer(tenant.id(), name);
        let stored = self.0.log.get(&key)?;
        let before: Option<IssuerDoc> = stored.as_ref().map(|stored| documents::decode(&key, stored)).transpose()?;
        match &before {
            Some(before) => doc.created_at = before.created_at,
            None => self.check_room(tenant.id())?,
        }
        let mut guards = vec![Guard::Present(documents::tenant(tenant.id()))];
        guards.push(match stored {
            Some(stored) => Guard::Equals(key.clone(), stored),
            None => Guard::Absent(key.clone()),
        });
        let mut docs = before.as_ref().map(claim_deletions).unwrap_or_default();
        for audience in &doc.audiences {
            let claim = documents::issuer_claim(&doc.issuer, audience);
            if let Some(kept) = docs.iter().position(|op| matches!(op, DocOp::Delete(key) if *key == claim)) {
                docs.swap_remove(kept);
                continue;
            }
            let owner = IssuerClaimDoc { v: documents::VERSION, tenant: tenant.id().0, name: name.to_owned() };
            guards.push(Guard::Absent(claim.clone()));
            docs.push(DocOp::Put(claim, documents::encode(&owner)));
        }
        docs.push(DocOp::Put(key, documents::encode(&doc)));
        let (id, forgotten) = (tenant.id(), name.to_owned());
        let changes = before.as_ref().is_some_and(|before| *before != doc);
        let follow = move |auth: &Self| {
            auth.0.jwt.forget(id, &forgotten);
            if changes {
                auth.announce_revocation(id);
            }
        };
        let committed = self.commit_followed(Change { guards, docs, topics: vec![] }, follow).await;
        committed.map_err(|error| if error.kind() == Kind::Conflict { taken(&doc) } else { error.into() })?;
        Ok((view(name, doc), before.is_none()))
    }

    fn check_room(&self, tenant: TenantId) -> Result<(), Error> {
        let count = self.0.log.scan(&documents::issuers(tenant), None, ISSUERS_MAX)?.len();
        if count < ISSUERS_MAX {
            return Ok(());
        }
        Err(Error::Unprocessable(format!("the tenant has its limit of {ISSUERS_MAX} issuers")))
    }

    /// The document of what is asked for, checked.
    fn compose_issuer(&self, tenant: &TenantRef, name: &str, request: IssuerRequest) -> Result<IssuerDoc, Error> {
        let place = documents::issuer(tenant.id(), name);
        let mut audiences = request.audiences.clone();
        if audiences.is_empty() {
            audiences.push(default_audience(tenant));
        }
        audiences.sort_unstable();
        audiences.dedup();
        let algorithms = algorithms(&request.algorithms).map_err(Error::Unprocessable)?;
        check(&request, &audiences).map_err(Error::Unprocessable)?;
        let keys = self.keys(&place, &request, &algorithms).map_err(Error::Unprocessable)?;
        let lifetime = span("max_lifetime", request.max_lifetime.as_deref(), TOKEN_LIFETIME_MS_DEFAULT);
        let leeway = span("leeway", request.leeway.as_deref(), TOKEN_LEEWAY_MS_MAX);
        let lifetime =
            lifetime.and_then(|ms| within("max_lifetime", ms, TOKEN_LIFETIME_MS_MIN..=TOKEN_LIFETIME_MS_MAX));
        let leeway = leeway.and_then(|ms| within("leeway", ms, 0..=TOKEN_LEEWAY_MS_MAX));
        Ok(IssuerDoc {
            v: documents::VERSION,
            issuer: request.issuer,
            audiences,
            algorithms: algorithms.iter().map(ToString::to_string).collect(),
            keys,
            scope_claim: request.scope_claim.unwrap_or_else(|| "scope".to_owned()),
            subject_claim: request.subject_claim.unwrap_or_else(|| "sub".to_owned()),
            default_scopes: request.default_scopes,
            lifetime_ms_max: lifetime.map_err(Error::Unprocessable)?,
            leeway_ms: leeway.map_err(Error::Unprocessable)?,
            created_at: self.0.log.now().0,
        })
    }

    fn keys(&self, place: &Bytes, request: &IssuerRequest, algorithms: &[Algorithm]) -> Result<IssuerKeysDoc, String> {
        let secret = algorithms[0].family() == Family::Hmac;
        if algorithms.iter().any(|algorithm| (algorithm.family() == Family::Hmac) != secret) {
            return Err("algorithms with a secret and algorithms with a public key are not of one issuer".to_owned());
        }
        match (&request.jwks, &request.jwks_url, &request.secret, secret) {
            (None, Some(url), None, false) => {
                self.0.jwt.egress.check(url).map_err(|why| format!("jwks_url {url:?}: {why}"))?;
                Ok(IssuerKeysDoc::Published(url.clone()))
            }
            (Some(jwks), None, None, false) => {
                let keys = key::given(jwks)?;
                usable(&keys, algorithms)?;
                Ok(IssuerKeysDoc::Given(keys))
            }
            (None, None, Some(text), true) => {
                check_secret(text, algorithms)?;
                self.0.jwt.seal(place, text).map(IssuerKeysDoc::Sealed)
            }
            (_, _, None, true) => Err("HS256, HS384 and HS512 need `secret`".to_owned()),
            (None, None, _, false) => Err("these algorithms need `jwks` or `jwks_url`".to_owned()),
            (_, _, _, _) => Err("one of `jwks`, `jwks_url` and `secret` is given".to_owned()),
        }
    }
}

/// The audience of tokens that are for `tenant` alone.
pub(super) fn default_audience(tenant: &TenantRef) -> String {
    format!("plinth:{}", tenant.name())
}

/// What takes the pairs of an issuer away.
pub(crate) fn claim_deletions(doc: &IssuerDoc) -> Vec<DocOp> {
    let claims = doc.audiences.iter().map(|audience| documents::issuer_claim(&doc.issuer, audience));
    claims.map(DocOp::Delete).collect()
}

fn check(request: &IssuerRequest, audiences: &[String]) -> Result<(), String> {
    if request.issuer.starts_with(mint::ISSUER_PREFIX) {
        return Err(format!(
            "issuer {:?} begins with {:?}, which is for the cluster's own",
            request.issuer,
            mint::ISSUER_PREFIX
        ));
    }
    if audiences.len() > ISSUER_AUDIENCES_MAX {
        return Err(format!("{} audiences exceed the limit of {ISSUER_AUDIENCES_MAX}", audiences.len()));
    }
    if request.default_scopes.len() > KEY_SCOPES_MAX {
        return Err(format!("{} scopes exceed the limit of {KEY_SCOPES_MAX}", request.default_scopes.len()));
    }
    request.default_scopes.iter().try_for_each(|scope| Template::parse(scope).map(drop))?;
    let claims = [("scope_claim", &request.scope_claim), ("subject_claim", &request.subject_claim)];
    let claims = claims.into_iter().filter_map(|(field, text)| Some((field, text.as_deref()?)));
    let audiences = audiences.iter().map(|audience| ("audiences", audience.as_str()));
    for (field, text) in claims.chain(audiences).chain([("issuer", request.issuer.as_str())]) {
        if text.is_empty() || text.len() > ISSUER_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            let bytes = text.len();
            return Err(format!(
                "`{field}` of {bytes} bytes is not within 1 to {ISSUER_TEXT_BYTES_MAX} bytes without control characters"
            ));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    let well_formed = !name.is_empty()
        && name.len() <= ISSUER_NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name != mint::CALLERS;
    if well_formed {
        return Ok(());
    }
    Err(format!(
        "issuer name is not 1 to {ISSUER_NAME_BYTES_MAX} of a-z 0-9 -, starting and ending with a letter or digit, and not {:?}",
        mint::CALLERS
    ))
}

fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, String> {
    let parsed = names.iter().map(|name| {
        let all = Algorithm::ALL.map(Algorithm::as_str).join(", ");
        Algorithm::parse(name).ok_or_else(|| format!("the algorithm {name:?} is not offered; there are {all}"))
    });
    let mut algorithms = parsed.collect::<Result<Vec<_>, _>>()?;
    algorithms.sort_unstable_by_key(|algorithm| algorithm.as_str());
    algorithms.dedup();
    if algorithms.is_empty() {
        return Err("an issuer needs at least one algorithm".to_owned());
    }
    Ok(algorithms)
}

/// Each algorithm has a key, and each key an algorithm.
fn usable(keys: &[Jwk], algorithms: &[Algorithm]) -> Result<(), String> {
    let keys = keys.iter().map(VerifyingKey::from_jwk).collect::<Result<Vec<_>, _>>()?;
    if let Some(without) = algorithms.iter().find(|algorithm| !keys.iter().any(|key| key.takes(**algorithm))) {
        return Err(format!("jwks have no key for {without}"));
    }
    match keys.iter().position(|key| !algorithms.iter().any(|algorithm| key.takes(*algorithm))) {
        Some(place) => Err(format!("jwks, key {place}: none of the algorithms is for it")),
        None => Ok(()),
    }
}

fn check_secret(secret: &str, algorithms: &[Algorithm]) -> Result<(), String> {
    let least = algorithms.iter().map(|algorithm| algorithm.secret_bytes_min()).max().unwrap_or(0);
    if (least..=ISSUER_SECRET_BYTES_MAX).contains(&secret.len()) {
        return Ok(());
    }
    Err(format!("secret of {} bytes is outside the limit of {least} to {ISSUER_SECRET_BYTES_MAX}", secret.len()))
}

fn span(field: &str, text: Option<&str>, default: u64) -> Result<u64, String> {
    let Some(text) = text else { return Ok(default) };
    let span = humantime::parse_duration(text);
    let span = span.map_err(|why| format!("{field} {text:?} is not a duration such as 1d or 30s: {why}"))?;
    u64::try_from(span.as_millis()).map_err(|_| format!("{field} {text:?} is too long"))
}

fn within(field: &str, ms: u64, bounds: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    if bounds.contains(&ms) {
        return Ok(ms);
    }
    Err(format!("{field} of {ms} ms is outside the limit of {} to {} ms", bounds.start(), bounds.end()))
}

/// Does not say whose it is.
fn taken(doc: &IssuerDoc) -> Error {
    Error::Conflict(format!(
        "the issuer {:?} is trusted for one of these audiences already, or it was changed meanwhile",
        doc.issuer
    ))
}

fn absent(name: &str) -> Error {
    Error::NotFound(format!("there is no issuer {name:?}"))
}

fn view(name: &str, doc: IssuerDoc) -> IssuerView {
    let (jwks, jwks_url, has_secret) = match doc.keys {
        IssuerKeysDoc::Given(keys) => (Some(keys.iter().map(|key| serde_json::json!(key)).collect()), None, false),
        IssuerKeysDoc::Published(url) => (None, Some(url), false),
        IssuerKeysDoc::Sealed(_) => (None, None, true),
    };
    IssuerView {
        name: name.to_owned(),
        issuer: doc.issuer,
        audiences: doc.audiences,
        algorithms: doc.algorithms,
        jwks,
        jwks_url,
        has_secret,
        scope_claim: doc.scope_claim,
        subject_claim: doc.subject_claim,
        default_scopes: doc.default_scopes,
        lifetime_ms_max: doc.lifetime_ms_max,
        leeway_ms: doc.leeway_ms,
        created_at: Timestamp(doc.created_at),
    }
}
