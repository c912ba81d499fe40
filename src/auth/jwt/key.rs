//! Keys that verify: read from a JSON Web Key (RFC 7517, RFC 7518 §6, RFC 8037 §2) or made of a secret.
//!
//! What a key is used for is in the key, not in the token. A key id is a word to look up and nothing else. Signatures are
//! verified by `aws-lc-rs`; this file only chooses what is handed to it.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::limits::{ISSUER_KEYS_MAX, TOKEN_KEY_ID_BYTES_MAX};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::algorithm::{Algorithm, Family};
use super::fault::{Fault, TokenFault};

/// Bytes of the modulus of an RSA key: 2,048 to 8,192 bits, as `aws-lc-rs` verifies.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Longest public exponent of an RSA key, in bytes; a longer one only costs time.
const RSA_EXPONENT_BYTES_MAX: usize = 4;
/// Members that only a private or secret key has.
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// What tells one key from another.
pub(crate) type Fingerprint = [u8; 32];

/// What is kept of a JSON Web Key: the public members that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Jwk {
    pub(crate) kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) e: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) y: Option<String>,
}

/// A key that verifies.
pub(crate) struct VerifyingKey {
    id: Option<Box<str>>,
    /// The only algorithm, when the key names one.
    algorithm: Option<Algorithm>,
    family: Family,
    fingerprint: Fingerprint,
    material: Material,
}

enum Material {
    Secret(Box<[u8]>),
    Rsa { n: Box<[u8]>, e: Box<[u8]> },
    Point(Box<[u8]>),
}

/// The keys of one issuer at one time.
pub(crate) struct KeySet(Vec<Arc<VerifyingKey>>);

impl VerifyingKey {
    /// The key that is made of a secret; any key id is taken for it.
    pub(super) fn secret(secret: &[u8]) -> Self {
        Self {
            id: None,
            algorithm: None,
            family: Family::Hmac,
            fingerprint: fingerprint(b'S', &[secret]),
            material: Material::Secret(secret.into()),
        }
    }

    /// A key of Ed25519 by its 32 bytes.
    pub(super) fn ed25519(id: &str, point: &[u8]) -> Self {
        Self {
            id: Some(id.into()),
            algorithm: Some(Algorithm::EdDsa),
            family: Family::Ed25519,
            fingerprint: fingerprint(b'O', &[point]),
            material: Material::Point(point.into()),
        }
    }

    /// Reads a public key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_jwk(jwk: &Jwk) -> Result<Self, String> {
        let (family, material) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (Family::Rsa, rsa(jwk)?),
            ("EC", Some("P-256")) => (Family::P256, point(jwk, &ECDSA_P256_SHA256_FIXED, 32)?),
            ("EC", Some("P-384")) => (Family::P384, point(jwk, &ECDSA_P384_SHA384_FIXED, 48)?),
            ("OKP", Some("Ed25519")) => (Family::Ed25519, edwards(jwk)?),
            ("EC" | "OKP", curve) => return Err(format!("the curve {:?} is not offered", curve.unwrap_or_default())),
            ("oct", _) => return Err("a secret is given as `secret`, not as a key".to_owned()),
            (other, _) => return Err(format!("the key type {other:?} is not offered")),
        };
        let algorithm = match jwk.alg.as_deref() {
            None => None,
            Some(name) => Some(
                Algorithm::parse(name)
                    .filter(|algorithm| algorithm.family() == family)
                    .ok_or_else(|| format!("the algorithm {name:?} is not one of this kind of key"))?,
            ),
        };
        if let Some(id) = jwk.kid.as_deref().filter(|id| id.is_empty() || id.len() > TOKEN_KEY_ID_BYTES_MAX) {
            return Err(format!("key id of {} bytes is not within 1 to {TOKEN_KEY_ID_BYTES_MAX} bytes", id.len()));
        }
        let fingerprint = match &material {
            Material::Rsa { n, e } => fingerprint(b'R', &[n, e]),
            Material::Point(point) | Material::Secret(point) => fingerprint(b'O', &[point]),
        };
        Ok(Self { id: jwk.kid.as_deref().map(Into::into), algorithm, family, fingerprint, material })
    }

    /// What tells it from other keys.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether it may be used with `algorithm`.
    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.family == algorithm.family() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether `signature` is one of `signed` by this key with `algorithm`, which is of its family.
    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        if !self.takes(algorithm) {
            return false;
        }
        match (&self.material, scheme(algorithm)) {
            (Material::Secret(secret), Scheme::Hmac(hash)) => {
                hmac::verify(&hmac::Key::new(hash, secret), signed, signature).is_ok()
            }
            (Material::Rsa { n, e }, Scheme::Rsa(parameters)) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            (Material::Point(point), Scheme::Point(verifier)) => {
                UnparsedPublicKey::new(verifier, point).verify(signed, signature).is_ok()
            }
            (Material::Secret(_) | Material::Rsa { .. } | Material::Point(_), _) => false,
        }
    }
}

/// What `aws-lc-rs` needs to know.
enum Scheme {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    Point(&'static dyn VerificationAlgorithm),
}

fn scheme(algorithm: Algorithm) -> Scheme {
    match algorithm {
        Algorithm::Hs256 => Scheme::Hmac(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Scheme::Hmac(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Scheme::Hmac(hmac::HMAC_SHA512),
        Algorithm::Rs256 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 => Scheme::Point(&ECDSA_P256_SHA256_FIXED),
        Algorithm::Es384 => Scheme::Point(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDsa => Scheme::Point(&ED25519),
    }
}

impl KeySet {
    /// A set of no key: nothing is verified.
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// A set of one key.
    pub(super) fn of(key: VerifyingKey) -> Self {
        Self(vec![Arc::new(key)])
    }

    /// The set of stored keys, all of which were good when they were stored.
    pub(super) fn of_stored(keys: &[Jwk]) -> Self {
        Self(keys.iter().filter_map(|jwk| VerifyingKey::from_jwk(jwk).ok()).map(Arc::new).collect())
    }

    /// The set that an issuer publishes. Keys that are for something else, or that cannot be used, are left out.
    ///
    /// # Errors
    /// What is wrong with the set as a whole.
    pub(super) fn of_published(document: &[u8]) -> Result<Self, String> {
        let document: Value = serde_json::from_slice(document).map_err(|_| "it is not JSON".to_owned())?;
        let keys = members(&document)?.iter().take(ISSUER_KEYS_MAX);
        let keys = keys.filter_map(|key| read(key).ok()).filter_map(|jwk| VerifyingKey::from_jwk(&jwk).ok());
        Ok(Self(keys.map(Arc::new).collect()))
    }

    /// The key for a token that names `id` and `algorithm`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Arc<VerifyingKey>, TokenFault> {
        let mut fit = self.0.iter().filter(|key| key.takes(algorithm));
        if algorithm.family() == Family::Hmac {
            return fit.next().ok_or_else(|| unknown_key(algorithm));
        }
        match id {
            Some(id) => fit.find(|key| key.id.as_deref() == Some(id)).ok_or_else(|| unknown_key(algorithm)),
            None => match (fit.next(), fit.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(unknown_key(algorithm)),
                (Some(_), Some(_)) => {
                    let detail = format!("the token has no kid, and its issuer has several keys for {algorithm}");
                    Err(TokenFault::new(Fault::UnknownKey, detail))
                }
            },
        }
    }

    /// Whether the set has this key.
    pub(super) fn has(&self, fingerprint: &Fingerprint) -> bool {
        self.0.iter().any(|key| key.fingerprint == *fingerprint)
    }
}

fn unknown_key(algorithm: Algorithm) -> TokenFault {
    TokenFault::new(Fault::UnknownKey, format!("the issuer has no key with the token's kid for {algorithm}"))
}

/// Reads a key set that an administrator gives: each key must be good, public, and told apart by its id.
///
/// # Errors
/// What is wrong, naming the place of the key.
pub(crate) fn given(document: &Value) -> Result<Vec<Jwk>, String> {
    let keys = members(document)?;
    if keys.is_empty() || keys.len() > ISSUER_KEYS_MAX {
        return Err(format!("jwks of {} keys is outside the limit of 1 to {ISSUER_KEYS_MAX}", keys.len()));
    }
    let mut read_keys: Vec<Jwk> = Vec::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        let jwk = read(key).and_then(|jwk| VerifyingKey::from_jwk(&jwk).map(|_| jwk));
        let jwk = jwk.map_err(|why| format!("jwks, key {place}: {why}"))?;
        if read_keys.iter().any(|other| other.kid == jwk.kid) {
            return Err(format!("jwks, key {place}: its kid is not its own; each of several keys needs one"));
        }
        read_keys.push(jwk);
    }
    Ok(read_keys)
}

fn members(document: &Value) -> Result<&Vec<Value>, String> {
    let keys = document.as_object().and_then(|set| set.get("keys")).and_then(Value::as_array);
    keys.ok_or_else(|| "it is not an object with a list `keys`".to_owned())
}

/// A key that is public and for signatures.
fn read(key: &Value) -> Result<Jwk, String> {
    let members = key.as_object().ok_or("it is not an object")?;
    if let Some(member) = PRIVATE_MEMBERS.iter().find(|member| members.contains_key(**member)) {
        return Err(format!("it has the member `{member}`, which is secret; only public keys are given"));
    }
    if members.get("use").is_some_and(|of| of != "sig") {
        return Err("it is not for signatures: its `use` is not `sig`".to_owned());
    }
    if let Some(operations) = members.get("key_ops")
        && !operations.as_array().is_some_and(|operations| operations.iter().any(|one| one == "verify"))
    {
        return Err("it is not for signatures: its `key_ops` have no `verify`".to_owned());
    }
    Jwk::deserialize(key).map_err(|why| format!("it cannot be read: {why}"))
}

fn rsa(jwk: &Jwk) -> Result<Material, String> {
    let (n, e) = (number(jwk.n.as_deref(), "n")?, number(jwk.e.as_deref(), "e")?);
    if !RSA_BYTES.contains(&n.len()) {
        return Err(format!("RSA key of {} bits is outside the limit of 2048 to 8192", 8 * n.len()));
    }
    if e.is_empty() || e.len() > RSA_EXPONENT_BYTES_MAX {
        return Err(format!("RSA exponent of {} bytes is outside the limit of 1 to {RSA_EXPONENT_BYTES_MAX}", e.len()));
    }
    let whole = RsaPublicKeyComponents { n: &n, e: &e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
    whole.map_err(|_| "it is no RSA key".to_owned())?;
    Ok(Material::Rsa { n, e })
}

/// An unsigned number without leading zeros.
fn number(text: Option<&str>, member: &str) -> Result<Box<[u8]>, String> {
    let bytes = decode(text, member)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].into())
}

/// A point of a curve, as SEC 1 writes it uncompressed.
fn point(jwk: &Jwk, curve: &'static dyn VerificationAlgorithm, bytes: usize) -> Result<Material, String> {
    let (x, y) = (decode(jwk.x.as_deref(), "x")?, decode(jwk.y.as_deref(), "y")?);
    if x.len() != bytes || y.len() != bytes {
        return Err(format!("its coordinates do not have {bytes} bytes each"));
    }
    let point = [&[4], &x[..], &y[..]].concat();
    UnparsedPublicKey::new(curve, &point).parse().map_err(|_| "it is no point of its curve".to_owned())?;
    Ok(Material::Point(point.into()))
}

fn edwards(jwk: &Jwk) -> Result<Material, String> {
    let x = decode(jwk.x.as_deref(), "x")?;
    UnparsedPublicKey::new(&ED25519, &x).parse().map_err(|_| "it is no key of Ed25519".to_owned())?;
    Ok(Material::Point(x.into()))
}

fn decode(text: Option<&str>, member: &str) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("it has no member `{member}`"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its member `{member}` is not base64url without padding"))
}

fn fingerprint(kind: u8, parts: &[&[u8]]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}
