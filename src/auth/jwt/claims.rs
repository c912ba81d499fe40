//! What an issuer's tokens may claim, and what a token makes of its bearer.
//!
//! Checked after the signature. Times are whole seconds (RFC 7519 §2), `exp`, `iat`, `iss`, `aud` and the subject are
//! required: without `iat` neither a lifetime nor a revocation by time could be told.

use plinth_api::limits::{KEY_SCOPES_MAX, TOKEN_AUDIENCES_MAX, TOKEN_SUBJECT_BYTES_MAX};
use plinth_storage::ids::Timestamp;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::envelope::{Claims, claim};
use super::fault::{Fault, TokenFault};
use super::template::Template;
use crate::auth::scope::Scope;

/// What a tenant trusts of an issuer, but for its keys.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) scope_claim: String,
    pub(super) subject_claim: String,
    pub(super) default_scopes: Vec<Template>,
    pub(super) lifetime_ms_max: u64,
    pub(super) leeway_ms: u64,
}

/// What a good token says.
#[derive(Debug)]
pub(super) struct Bearer {
    pub(super) subject: String,
    pub(super) token_id: Option<String>,
    pub(super) issued_at: Timestamp,
    /// With the leeway.
    pub(super) expires_at: Timestamp,
    pub(super) scopes: Vec<Scope>,
}

/// The times of a token that are within `lifetime_ms_max` and hold `now`: when it was issued, when it ends.
pub(super) fn times(
    claims: &Claims,
    lifetime_ms_max: u64,
    leeway_ms: u64,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), TokenFault> {
    let required = |name: &'static str| {
        claims
            .seconds(name)?
            .map(|seconds| seconds * 1000)
            .ok_or_else(|| claim(format!("the claim {name:?} is missing")))
    };
    let (issued, ends) = (required("iat")?, required("exp")?);
    let begins = claims.seconds("nbf")?.unwrap_or(0) * 1000;
    let late = now.0.saturating_add(leeway_ms);
    if issued > late || begins > late {
        let detail = format!("the token is valid from {} on, and it is {} now (ms)", issued.max(begins), now.0);
        return Err(TokenFault::new(Fault::NotYet, detail));
    }
    if ends.saturating_add(leeway_ms) <= now.0 {
        return Err(TokenFault::new(
            Fault::Expired,
            format!("the token ended at {ends}, and it is {} now (ms)", now.0),
        ));
    }
    let lifetime = ends.checked_sub(issued).ok_or_else(|| claim("the token ends before it was issued".to_owned()))?;
    if lifetime > lifetime_ms_max {
        let detail = format!("a life of {} s exceeds the limit of {} s", lifetime / 1000, lifetime_ms_max / 1000);
        return Err(TokenFault::new(Fault::Lifetime, detail));
    }
    Ok((Timestamp(issued), Timestamp(ends.saturating_add(leeway_ms))))
}

/// The audiences of a token.
pub(super) fn audiences(claims: &Claims) -> Result<Vec<&str>, TokenFault> {
    let wrong = || claim("the claim \"aud\" is missing, or neither a text nor a list of texts".to_owned());
    match claims.get("aud").ok_or_else(wrong)? {
        Value::String(one) if !one.is_empty() => Ok(vec![one]),
        Value::Array(list) if (1..=TOKEN_AUDIENCES_MAX).contains(&list.len()) => {
            list.iter().map(|one| one.as_str().filter(|one| !one.is_empty()).ok_or_else(wrong)).collect()
        }
        Value::Array(list) if list.len() > TOKEN_AUDIENCES_MAX => {
            let detail = format!("{} audiences exceed the limit of {TOKEN_AUDIENCES_MAX}", list.len());
            Err(claim(detail))
        }
        Value::String(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(wrong())
        }
    }
}

/// A name that can stand in logs: not too long, and without control characters.
pub(super) fn name<'c>(claims: &'c Claims, of: &str) -> Result<&'c str, TokenFault> {
    let text = claims.text(of)?;
    if text.len() > TOKEN_SUBJECT_BYTES_MAX || text.chars().any(char::is_control) {
        let detail = format!("the claim {of:?} has more than {TOKEN_SUBJECT_BYTES_MAX} bytes, or a control character");
        return Err(claim(detail));
    }
    Ok(text)
}

/// The id of a token, if it has one.
pub(super) fn token_id(claims: &Claims) -> Result<Option<String>, TokenFault> {
    claims.get("jti").map(|_| name(claims, "jti").map(str::to_owned)).transpose()
}

impl Terms {
    /// Checks the claims of a token whose signature is good.
    pub(super) fn check(&self, claims: &Claims, now: Timestamp) -> Result<Bearer, TokenFault> {
        let (issued_at, expires_at) = times(claims, self.lifetime_ms_max, self.leeway_ms, now)?;
        Ok(Bearer {
            subject: name(claims, &self.subject_claim)?.to_owned(),
            token_id: token_id(claims)?,
            issued_at,
            expires_at,
            scopes: self.scopes(claims)?,
        })
    }

    /// The scopes that the token names, or those that the issuer's tokens have when they name none.
    fn scopes(&self, claims: &Claims) -> Result<Vec<Scope>, TokenFault> {
        let Some(value) = claims.get(&self.scope_claim) else {
            let text = |name: &str| claims.get(name).and_then(Value::as_str);
            return self.default_scopes.iter().map(|template| template.expand(text)).collect();
        };
        named_scopes(&self.scope_claim, value)
    }
}

/// Scopes in a text with spaces (RFC 8693 §4.2) or in a list. One that is not ours allows nothing here.
pub(super) fn named_scopes(of: &str, value: &Value) -> Result<Vec<Scope>, TokenFault> {
    let wrong = || claim(format!("the claim {of:?} is neither a text nor a list of texts"));
    let words: Vec<&str> = match value {
        Value::String(text) => text.split_ascii_whitespace().collect(),
        Value::Array(list) => list.iter().map(|one| one.as_str().ok_or_else(wrong)).collect::<Result<_, _>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(wrong()),
    };
    let scopes: Vec<Scope> = words.into_iter().filter_map(|word| Scope::parse(word).ok()).collect();
    if scopes.len() > KEY_SCOPES_MAX {
        return Err(claim(format!("{} scopes exceed the limit of {KEY_SCOPES_MAX}", scopes.len())));
    }
    Ok(scopes)
}
