//! A token as it comes: three parts (RFC 7515 §7.1), a header that is only looked up in, claims of which none is twice.
//!
//! Nothing here is trusted yet. Keys and addresses of keys in the header (`jwk`, `jku`, `x5c`, `x5u`) are not read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::limits::{TOKEN_BYTES_MAX, TOKEN_KEY_ID_BYTES_MAX};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::algorithm::Algorithm;
use super::fault::{Fault, TokenFault};

/// Types of tokens that are for calling an API (RFC 9068 §2.1), or that do not say what they are for.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// A token that can be read.
pub(super) struct Envelope<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Claims,
    /// What the signature is of.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

/// The claims of a token, by name.
pub(super) struct Claims(BTreeMap<String, Value>);

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(default, borrow)]
    typ: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
    #[serde(default)]
    b64: Option<IgnoredAny>,
    #[serde(default)]
    zip: Option<IgnoredAny>,
}

impl<'a> Envelope<'a> {
    /// Reads a token without trusting it.
    pub(super) fn open(token: &'a str) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            let detail = format!("token of {} bytes exceeds the limit of {TOKEN_BYTES_MAX}", token.len());
            return Err(TokenFault::new(Fault::Malformed, detail));
        }
        let parts = token.rsplit_once('.').and_then(|(signed, last)| Some((signed.split_once('.')?, signed, last)));
        let ((header, claims), signed, signature) =
            parts.ok_or_else(|| malformed("the token does not have three parts with dots between them"))?;
        let head = part(header, "header")?;
        let head: Header<'_> = object(&head).ok_or_else(|| malformed("the header of the token cannot be read"))?;
        let algorithm = head.check()?;
        let body = part(claims, "claims")?;
        let claims: Claims =
            object(&body).ok_or_else(|| malformed("the claims of the token are no JSON object, or one is twice"))?;
        let (key_id, signature) = (head.kid.map(Cow::into_owned), part(signature, "signature")?);
        Ok(Self { algorithm, key_id, claims, signed: signed.as_bytes(), signature })
    }
}

impl Header<'_> {
    fn check(&self) -> Result<Algorithm, TokenFault> {
        if self.crit.is_some() || self.b64.is_some() || self.zip.is_some() {
            return Err(malformed("the header of the token has `crit`, `b64` or `zip`, of which none is offered"));
        }
        if let Some(kind) = &self.typ
            && !TYPES.iter().any(|known| known.eq_ignore_ascii_case(kind))
        {
            return Err(malformed("the token is for something else: its `typ` is neither JWT nor at+jwt"));
        }
        if let Some(id) = self.kid.as_deref().filter(|id| id.is_empty() || id.len() > TOKEN_KEY_ID_BYTES_MAX) {
            let detail = format!("kid of {} bytes is not within 1 to {TOKEN_KEY_ID_BYTES_MAX} bytes", id.len());
            return Err(TokenFault::new(Fault::Malformed, detail));
        }
        Algorithm::parse(&self.alg).ok_or_else(|| {
            TokenFault::new(Fault::Algorithm, "the algorithm of the token is none that is offered to any issuer")
        })
    }
}

impl Claims {
    /// A claim, unless it is missing or null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A claim that must be a text that is not empty.
    pub(super) fn text(&self, name: &str) -> Result<&str, TokenFault> {
        let text = self.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| claim(format!("the claim {name:?} is missing or no text")))
    }

    /// A claim that may be missing, in seconds.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<u64>, TokenFault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let seconds = value.as_u64().filter(|seconds| *seconds <= plinth_api::limits::NUMBER_MAX);
        seconds.map(Some).ok_or_else(|| claim(format!("the claim {name:?} is not a whole number of seconds")))
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Once)
    }
}

/// Reads an object in which no name is twice.
struct Once;

impl<'de> Visitor<'de> for Once {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Claims, M::Error> {
        let mut claims = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(M::Error::custom("a claim is twice"));
            }
        }
        Ok(Claims(claims))
    }
}

/// Base64url without padding, of which there is one spelling for each content.
fn part(text: &str, name: &str) -> Result<Vec<u8>, TokenFault> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| malformed(&format!("the {name} of the token is not base64url without padding, or empty")))
}

/// The derived code would also take an array, with the fields by their place.
fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

fn malformed(detail: &str) -> TokenFault {
    TokenFault::new(Fault::Malformed, detail)
}

pub(super) fn claim(detail: String) -> TokenFault {
    TokenFault::new(Fault::Claim, detail)
}
