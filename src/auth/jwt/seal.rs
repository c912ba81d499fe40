//! Secrets of issuers at rest: sealed with a key that is not in the bucket (ADR 25).
//!
//! AES-256-GCM by `aws-lc-rs`, with a random nonce per secret and the document's key as what else is under the tag, so that
//! a sealed secret is good in its place alone. Base64 of: version u8 · nonce 12 bytes · ciphertext and tag.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::auth::secret::SecretHash;
use crate::broker::cursor::CursorKey;

const VERSION: u8 = 1;
/// What the key is derived for; never change it.
const PURPOSE: &str = "plinth 2026-11-27 sealed secrets of issuers";

/// The cluster's key for secrets at rest.
pub(super) struct SealKey(RandomizedNonceKey);

impl SealKey {
    /// Made of two secrets, of which the bucket holds one when the operator has given the other.
    pub(super) fn new(cursors: &CursorKey, root: &SecretHash) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &cursors.derive(PURPOSE, root));
        Self(key.expect("a key of 32 bytes is one of AES-256"))
    }

    /// Seals `secret` for the document at `place`.
    pub(super) fn seal(&self, place: &[u8], secret: &str) -> String {
        let mut sealed = secret.as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(place), &mut sealed);
        let nonce = nonce.expect("a secret is far shorter than AES-GCM can seal");
        STANDARD_NO_PAD.encode([&[VERSION], nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// The secret that was sealed for `place` with this key.
    pub(super) fn open(&self, place: &[u8], sealed: &str) -> Option<Vec<u8>> {
        let bytes = STANDARD_NO_PAD.decode(sealed).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if version != VERSION {
            return None;
        }
        let mut sealed = sealed.to_vec();
        let opened = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place), &mut sealed).ok()?;
        Some(opened.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(root: u8) -> SealKey {
        SealKey::new(&CursorKey([7; 32]), &[root; 32])
    }

    #[test]
    fn a_secret_is_opened_in_its_place_by_its_key_alone() {
        let sealed = key(1).seal(b"issuer/a/x", "a secret of the test");
        assert_eq!(key(1).open(b"issuer/a/x", &sealed).as_deref(), Some(&b"a secret of the test"[..]));
        assert_eq!(key(1).open(b"issuer/b/x", &sealed), None, "another place");
        assert_eq!(key(2).open(b"issuer/a/x", &sealed), None, "another root key");
        assert_ne!(key(1).seal(b"issuer/a/x", "a secret of the test"), sealed, "a nonce of its own");
        for garbage in ["", "AA", "????", &sealed[..sealed.len() - 4]] {
            assert_eq!(key(1).open(b"issuer/a/x", garbage), None, "{garbage}");
        }
    }

    /// A secret as the first version sealed it. Buckets hold it over an update; never change it.
    #[test]
    fn a_secret_of_version_1_is_opened() {
        assert_eq!(key(1).open(b"issuer/a/x", GOLDEN).as_deref(), Some(&b"a secret of the test"[..]));
    }

    const GOLDEN: &str = "AZf6qK6PGOKyL74zWxUeB8YFRlDR9/yGZtjhAvcMDCnuiDGQErs2jf+WaOqp3XxlGQ";
}
