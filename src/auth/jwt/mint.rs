//! Tokens of the cluster's own: minted for a browser or a device, with no more rights than who mints them.
//!
//! Signed with Ed25519 by a key that is derived, not stored (ADR 26), and whose public half anybody may read. A minted token
//! ends with the API key that minted it, and after a day at the latest.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::limits::{
    KEY_SCOPES_MAX, TOKEN_SCOPES_BYTES_MAX, TOKEN_SUBJECT_BYTES_MAX, TOKEN_TTL_MS_DEFAULT, TOKEN_TTL_MS_MAX,
};
use plinth_storage::ids::{ClusterId, TenantId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use ulid::Ulid;

use super::algorithm::Algorithm;
use super::claims::{self, Bearer};
use super::envelope::{Envelope, claim};
use super::fault::{Fault, TokenFault};
use super::issuer::default_audience;
use super::key::VerifyingKey;
use super::template::Template;
use crate::auth::caller::{Caller, Denied, KeyRef, Source, Token};
use crate::auth::scope::Scope;
use crate::auth::secret::SecretHash;
use crate::auth::{Account, Auth, Miss};
use crate::broker::Error;
use crate::broker::cursor::CursorKey;

/// What the `iss` of the cluster's own tokens begins with; no trusted issuer has such a name.
pub(super) const ISSUER_PREFIX: &str = "plinth:";
/// What stands for the issuer's name in the ids of their callers; no trusted issuer has it.
pub(in crate::auth) const CALLERS: &str = "plinth";
/// What the seed of the signing key is derived for; never change it.
const PURPOSE: &str = "plinth 2026-11-27 signing key of minted tokens";

/// The cluster's key for the tokens that it mints.
pub(super) struct Minter {
    pair: Ed25519KeyPair,
    issuer: String,
    key_id: String,
    public: VerifyingKey,
}

/// What a minted token is to be, checked but for who asks.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    scopes: Vec<Scope>,
    ttl: Duration,
    subject: Option<String>,
}

/// A token that was just minted.
#[derive(Clone, Debug)]
pub struct MintedToken {
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    iss: &'a str,
    aud: String,
    sub: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
    scope: String,
    tenant: Ulid,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// Which of the key's secrets it was: the token ends with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_secret: Option<u32>,
}

impl TokenRequest {
    /// Checks what is asked for. In `scopes`, `{sub}` stands for the subject.
    ///
    /// # Errors
    /// `Unprocessable`, naming what is wrong.
    pub fn parse(scopes: &[String], ttl: Option<&str>, subject: Option<String>) -> Result<Self, Error> {
        Self::checked(scopes, ttl, subject).map_err(Error::Unprocessable)
    }

    fn checked(scopes: &[String], ttl: Option<&str>, subject: Option<String>) -> Result<Self, String> {
        if scopes.is_empty() || scopes.len() > KEY_SCOPES_MAX {
            return Err(format!("{} scopes are outside the limit of 1 to {KEY_SCOPES_MAX}", scopes.len()));
        }
        let bad = |subject: &str| {
            subject.is_empty() || subject.len() > TOKEN_SUBJECT_BYTES_MAX || subject.chars().any(char::is_control)
        };
        if subject.as_deref().is_some_and(bad) {
            return Err(format!("subject is not 1 to {TOKEN_SUBJECT_BYTES_MAX} bytes without control characters"));
        }
        let named = |name: &str| subject.as_deref().filter(|_| name == "sub");
        let expand = |text: &String| {
            let scope = Template::parse(text)?.expand(named).map_err(|fault| fault.detail().to_owned())?;
            if scope == Scope::Admin {
                Err("the scope admin is for keys, not for tokens".to_owned())
            } else {
                Ok(scope)
            }
        };
        let scopes = scopes.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let bytes = words(&scopes).len();
        if bytes > TOKEN_SCOPES_BYTES_MAX {
            return Err(format!("scopes of {bytes} bytes exceed the limit of {TOKEN_SCOPES_BYTES_MAX}"));
        }
        let ttl = match ttl {
            None => Duration::from_millis(TOKEN_TTL_MS_DEFAULT),
            Some(text) => humantime::parse_duration(text)
                .map_err(|why| format!("ttl {text:?} is not a duration such as 15m or 1h: {why}"))?,
        };
        if ttl < Duration::from_secs(1) || ttl > Duration::from_millis(TOKEN_TTL_MS_MAX) {
            return Err("ttl is outside the limit of 1s to 1d".to_owned());
        }
        Ok(Self { scopes, ttl, subject })
    }
}

impl Auth {
    /// Mints a token with less or equal rights than `caller` has, which ends when the caller does.
    ///
    /// # Errors
    /// `Forbidden` for a scope that is not proven to be within one of the caller's, for who holds a token himself, and for
    /// the root key outside a tenant.
    pub fn mint(&self, caller: &Caller, request: &TokenRequest) -> Result<MintedToken, Denied> {
        let tenant = caller.inside()?;
        if tenant.is_reserved() {
            return Err(Denied::Forbidden(format!("the tenant {} is only read", tenant.name())));
        }
        if caller.bearer().is_some() {
            return Err(Denied::Forbidden("a token mints no tokens; an API key does".into()));
        }
        if tenant.is_reserved() {
            return Err(Denied::Forbidden("no token is minted for a tenant of the system".into()));
        }
        if let Some(wider) = request.scopes.iter().find(|scope| !caller.covers(scope)) {
            let why = format!("the scope {wider} is not within one scope of the credential");
            return Err(Denied::Forbidden(why));
        }
        let now = self.0.log.now();
        let ttl_ms = u64::try_from(request.ttl.as_millis()).unwrap_or(TOKEN_TTL_MS_MAX);
        let ends = Timestamp(now.0.saturating_add(ttl_ms));
        let ends = caller.expires_at().map_or(ends, |end| end.min(ends));
        let (iat, exp) = (now.0 / 1000, ends.0 / 1000);
        if exp <= iat {
            return Err(Denied::Forbidden("the credential ends within a second, and no token outlives it".into()));
        }
        let minter = self.0.jwt.minter();
        let claims = MintedClaims {
            iss: &minter.issuer,
            aud: default_audience(tenant),
            sub: request.subject.as_deref().unwrap_or(caller.id()),
            jti: self.0.log.new_ulid().to_string().to_ascii_lowercase(),
            iat,
            exp,
            scope: words(&request.scopes),
            tenant: tenant.id().0,
            key: caller.key_id(),
            key_secret: caller.key_ref().map(|key| key.secret),
        };
        Ok(MintedToken { token: minter.sign(&claims), expires_at: Timestamp(exp * 1000) })
    }

    /// The public halves of the keys that minted tokens are signed with, as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn published_keys(&self) -> Value {
        let published = self.0.jwt.minters().map(|minter| {
            let (x, alg) = (URL_SAFE_NO_PAD.encode(minter.pair.public_key()), Algorithm::EdDsa.as_str());
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": alg, "kid": minter.key_id, "x": x})
        });
        serde_json::json!({"keys": published.collect::<Vec<_>>()})
    }

    /// The caller of a token that says it was minted here.
    pub(super) fn minted(&self, envelope: &Envelope<'_>, now: Timestamp) -> Result<Caller, Denied> {
        let mut minters = self.0.jwt.minters();
        let named = minters.find(|minter| envelope.key_id.as_deref() == Some(minter.key_id.as_str()));
        let bearer = named.unwrap_or(self.0.jwt.minter()).check(envelope, now)?;
        let of_nobody = || claim("the tenant or the key that the token was minted for has ended".to_owned());
        let id = envelope.claims.text("tenant")?.parse().map(TenantId).map_err(|_| of_nobody())?;
        let tenant = self.0.tenants.get(id).map_err(|error| super::unavailable(&error))?.ok_or_else(of_nobody)?;
        if claims::audiences(&envelope.claims)? != [default_audience(&tenant)] {
            return Err(TokenFault::new(Fault::Audience, "the audience is not the tenant it was minted for").into());
        }
        let key = minting_key(envelope);
        // Its key's account is its own: it uses up the key's quotas.
        let account = match key.as_ref().map(|key| self.account_of(key)) {
            None => tenant.into(),
            Some(Ok(account)) if *account.tenant() == tenant => account,
            Some(Ok(_) | Err(Miss::Absent)) => return Err(of_nobody().into()),
            Some(Err(Miss::Failed(error))) => return Err(super::unavailable(&error)),
        };
        let token = Token {
            subject: bearer.subject,
            token_id: bearer.token_id,
            issued_at: bearer.issued_at,
            leeway_ms: 0,
            checked: AtomicU64::new(0),
            source: Source::Minted { key },
        };
        Ok(Caller::token(token, account, bearer.scopes, bearer.expires_at))
    }

    /// The account of an API key, while the secret by which it minted still opens it.
    pub(super) fn account_of(&self, key: &KeyRef) -> Result<Account, Miss> {
        let (known, now) = (self.known_key(&key.id)?, self.0.log.now());
        let holder = known.holder(key.secret).filter(|holder| holder.expires_at().is_none_or(|end| now < end));
        holder.and_then(Caller::account).cloned().ok_or(Miss::Absent)
    }
}

/// The API key that minted a token, and by which of its secrets.
fn minting_key(envelope: &Envelope<'_>) -> Option<KeyRef> {
    let id = envelope.claims.get("key").and_then(Value::as_str)?.into();
    let secret = envelope.claims.get("key_secret").and_then(Value::as_u64);
    let secret = secret.and_then(|secret| u32::try_from(secret).ok()).unwrap_or_default();
    Some(KeyRef { id, secret })
}

impl Minter {
    /// Made of two secrets, of which the bucket holds one when the operator has given the other.
    pub(super) fn new(cursors: &CursorKey, root: &SecretHash, cluster: ClusterId) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&cursors.derive(PURPOSE, root));
        let pair = pair.expect("any 32 bytes are a seed of Ed25519");
        let public = pair.public_key().as_ref();
        let key_id = blake3::hash(public).to_hex()[..16].to_owned();
        let public = VerifyingKey::ed25519(&key_id, public);
        Self { pair, issuer: format!("{ISSUER_PREFIX}{}", cluster.0), key_id, public }
    }

    fn sign(&self, claims: &MintedClaims<'_>) -> String {
        let header = serde_json::json!({"alg": Algorithm::EdDsa.as_str(), "kid": self.key_id, "typ": "at+jwt"});
        let claims = serde_json::to_vec(claims).expect("claims are plain strings and numbers");
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn check(&self, envelope: &Envelope<'_>, now: Timestamp) -> Result<Bearer, TokenFault> {
        if envelope.claims.text("iss")? != self.issuer {
            return Err(TokenFault::new(Fault::Audience, "the token was minted by another cluster"));
        }
        if envelope.algorithm != Algorithm::EdDsa {
            return Err(TokenFault::new(Fault::Algorithm, "minted tokens have the algorithm EdDSA"));
        }
        if envelope.key_id.as_deref() != Some(self.key_id.as_str()) {
            return Err(TokenFault::new(Fault::UnknownKey, "the token was minted with another key of the cluster"));
        }
        super::verify(envelope, &self.public)?;
        let (issued_at, expires_at) = claims::times(&envelope.claims, TOKEN_TTL_MS_MAX, 0, now)?;
        let scope = envelope.claims.get("scope").ok_or_else(|| claim("the claim \"scope\" is missing".to_owned()))?;
        Ok(Bearer {
            subject: claims::name(&envelope.claims, "sub")?.to_owned(),
            token_id: claims::token_id(&envelope.claims)?,
            issued_at,
            expires_at,
            scopes: claims::named_scopes("scope", scope)?,
        })
    }
}

/// Scopes as the claim `scope` has them.
fn words(scopes: &[Scope]) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
