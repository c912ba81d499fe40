//! The form of credentials: how a secret is made, what is kept of it, and how a presented one is compared.
//!
//! An API key is `plk_<id>_<secret><checksum>`: a secret of 43 characters of 62 kinds (256 bits), and the CRC-32 of
//! everything before it in 6 characters, so that a mistyped key is refused without a look-up. Stored is the SHA-256 of
//! the whole key; a secret of 256 random bits needs no slow hash.

use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What is stored of a secret.
pub(super) type SecretHash = [u8; 32];

/// Shortest root key that an operator may choose, in characters.
pub(super) const ROOT_KEY_CHARS_MIN: usize = 16;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
const API_KEY_PREFIX: &str = "plk_";
const ROOT_KEY_PREFIX: &str = "plr_";
const TICKET_PREFIX: &str = "plt_";
/// What the token of a wake begins with.
pub(crate) const WAKE_PREFIX: &str = "plw_";
/// What `{"` is in base64: so begins each part of a JWT.
const TOKEN_PREFIX: &str = "eyJ";

/// A new API key with the id `id`, which has no `_`.
pub(super) fn new_api_key(id: &str) -> String {
    with_checksum(format!("{API_KEY_PREFIX}{id}_{}", random_text()))
}

/// A new root key.
pub(super) fn new_root_key() -> String {
    with_checksum(format!("{ROOT_KEY_PREFIX}{}", random_text()))
}

/// A new one-time ticket that shows `tag`, which has no `_`.
pub(super) fn new_ticket(tag: &str) -> String {
    format!("{TICKET_PREFIX}{tag}_{}", random_text())
}

/// The tag in what has the form of a ticket.
pub(super) fn ticket_tag(ticket: &str) -> Option<&str> {
    ticket.strip_prefix(TICKET_PREFIX)?.split_once('_').map(|(tag, _)| tag)
}

/// Whether a credential claims to be an API key.
pub(super) fn is_api_key(credential: &str) -> bool {
    credential.starts_with(API_KEY_PREFIX)
}

/// Whether the beginning of a secret is in the text, of ours or of a signed token.
pub(super) fn has_prefix(text: &str) -> bool {
    [API_KEY_PREFIX, ROOT_KEY_PREFIX, TICKET_PREFIX, WAKE_PREFIX, TOKEN_PREFIX]
        .iter()
        .any(|prefix| text.contains(prefix))
}

/// The id in an API key, if the key has the right form and checksum.
pub(super) fn api_key_id(key: &str) -> Option<&str> {
    if !key.is_ascii() {
        return None;
    }
    let (body, sum) = key.split_at_checked(key.len().checked_sub(CHECKSUM_CHARS)?)?;
    let (id, secret) = body.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
    let well_formed = !id.is_empty() && secret.len() == SECRET_CHARS && checksum(body) == sum;
    well_formed.then_some(id)
}

/// What is stored of `secret`.
pub(super) fn hash(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether `presented` is the secret of `stored`; takes the same time wherever they differ.
pub(super) fn verify(presented: &str, stored: &SecretHash) -> bool {
    is_same(&hash(presented), stored)
}

/// Whether two hashes are the same; takes the same time wherever they differ.
pub(super) fn is_same(one: &SecretHash, other: &SecretHash) -> bool {
    one.ct_eq(other).into()
}

/// The last four characters, by which people tell keys apart.
pub(super) fn last_four(key: &str) -> String {
    key.chars().skip(key.chars().count().saturating_sub(4)).collect()
}

/// Random bytes of the operating system.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

fn with_checksum(mut text: String) -> String {
    let sum = checksum(&text);
    text.push_str(&sum);
    text
}

fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes()) as usize;
    let mut digits = [0; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % ALPHABET.len()];
        rest /= ALPHABET.len();
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

/// 43 characters, each of 62 kinds with the same probability: bytes over the largest multiple of 62 are not used.
fn random_text() -> String {
    let mut text = String::with_capacity(SECRET_CHARS);
    while text.len() < SECRET_CHARS {
        let usable = random_bytes::<64>().into_iter().filter(|&byte| usize::from(byte) < 4 * ALPHABET.len());
        let wanted = SECRET_CHARS - text.len();
        text.extend(usable.take(wanted).map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_id_and_is_safe_in_a_header_and_a_url() {
        let key = new_api_key("01abc");
        assert_eq!(api_key_id(&key), Some("01abc"));
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert_eq!(key.len(), "plk_01abc_".len() + SECRET_CHARS + CHECKSUM_CHARS);
    }

    #[test]
    fn one_wrong_character_anywhere_is_refused_by_the_checksum() {
        let key = new_api_key("01abc");
        for place in 0..key.len() {
            let mut typed = key.clone().into_bytes();
            typed[place] = if typed[place] == b'x' { b'y' } else { b'x' };
            let typed = String::from_utf8(typed).expect("ascii");
            assert_eq!(api_key_id(&typed), None, "changed at {place}");
        }
        assert_eq!(api_key_id(&key[..key.len() - 1]), None);
        assert_eq!(api_key_id(&format!("{key}0")), None);
    }

    #[test]
    fn garbage_is_not_a_key() {
        for text in ["", "plk_", "plk__", "plk_a_b", "ключ", "plk_ä_ключ-ключ-ключ", "Bearer x", "plk_a_000000"]
        {
            assert_eq!(api_key_id(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_secret_itself_verifies() {
        let key = new_api_key("a");
        let stored = hash(&key);
        assert!(verify(&key, &stored));
        assert!(!verify(&new_api_key("a"), &stored));
        assert!(!verify("", &stored));
        assert_eq!(last_four(&key), key[key.len() - 4..]);
        assert_ne!(new_root_key(), new_root_key());
    }
}
