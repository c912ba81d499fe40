//! The token of a wake: who has it may act on that one wake, and on nothing else.
//!
//! `plw_` and base64url without padding of: kind u8 · tenant 16 bytes · generation u64 · end u64, little endian · id of the
//! subscription · the first 16 bytes of the keyed BLAKE3 of all that. Nothing of it is stored. A newer generation ends it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::limits::WAKE_TOKEN_TTL_MS;
use plinth_storage::ids::{TenantId, Timestamp};
use subtle::ConstantTimeEq;
use ulid::Ulid;

use crate::auth::WAKE_PREFIX;

const MAC_BYTES: usize = 16;
/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 512;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The answer of a webhook that takes longer.
    Callback,
    /// A worker that has claimed a wake.
    Claim,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WakeToken {
    pub(super) kind: TokenKind,
    pub(super) tenant: TenantId,
    pub(super) generation: u64,
    /// The subscription.
    pub(super) id: String,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadToken {
    Invalid,
    Expired,
}

/// The keys of the MAC, the first of which makes new ones.
pub(super) struct TokenKeys(pub(super) Vec<[u8; 32]>);

impl TokenKind {
    fn byte(self) -> u8 {
        match self {
            Self::Callback => 1,
            Self::Claim => 2,
        }
    }
}

impl TokenKeys {
    /// Writes a token.
    pub(super) fn write(&self, token: &WakeToken, now: Timestamp) -> String {
        let mut body = Vec::with_capacity(80);
        body.push(token.kind.byte());
        body.extend_from_slice(&token.tenant.0.to_bytes());
        body.extend_from_slice(&token.generation.to_le_bytes());
        body.extend_from_slice(&now.0.saturating_add(WAKE_TOKEN_TTL_MS).to_le_bytes());
        body.extend_from_slice(token.id.as_bytes());
        let mac = self.0.first().map(|key| mac(key, &body)).unwrap_or_default();
        body.extend_from_slice(&mac);
        format!("{WAKE_PREFIX}{}", URL_SAFE_NO_PAD.encode(body))
    }

    /// What a token says, if it was written here and is not over.
    ///
    /// # Errors
    /// When not.
    pub(super) fn read(&self, text: &str, now: Timestamp) -> Result<WakeToken, BadToken> {
        let text =
            text.strip_prefix(WAKE_PREFIX).filter(|text| text.len() <= TEXT_BYTES_MAX).ok_or(BadToken::Invalid)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadToken::Invalid)?;
        let (body, given) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(BadToken::Invalid)?;
        let is_genuine = self.0.iter().any(|key| bool::from(mac(key, body).ct_eq(given)));
        let (token, ends_at) = parse(body).filter(|_| is_genuine).ok_or(BadToken::Invalid)?;
        if now.0 < ends_at { Ok(token) } else { Err(BadToken::Expired) }
    }
}

fn parse(body: &[u8]) -> Option<(WakeToken, u64)> {
    let (&kind, rest) = body.split_first()?;
    let kind = [TokenKind::Callback, TokenKind::Claim].into_iter().find(|known| known.byte() == kind)?;
    let (tenant, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (ends_at, id) = rest.split_first_chunk()?;
    let id = std::str::from_utf8(id).ok()?.to_owned();
    let (tenant, generation) = (TenantId(Ulid::from_bytes(*tenant)), u64::from_le_bytes(*generation));
    Some((WakeToken { kind, tenant, generation, id }, u64::from_le_bytes(*ends_at)))
}

fn mac(key: &[u8; 32], body: &[u8]) -> [u8; MAC_BYTES] {
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&blake3::keyed_hash(key, body).as_bytes()[..MAC_BYTES]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn token() -> WakeToken {
        let tenant = TenantId(Ulid::from_parts(1, 2));
        WakeToken { kind: TokenKind::Claim, tenant, generation: 7, id: "sub-1".into() }
    }

    // Fails when the MAC leaves a part out, or is not compared.
    #[test]
    fn only_a_token_that_was_written_here_counts_and_only_for_its_time() {
        let keys = TokenKeys(vec![[7; 32]]);
        let text = keys.write(&token(), NOW);
        assert_eq!(keys.read(&text, NOW), Ok(token()));
        assert_eq!(keys.read(&text, Timestamp(NOW.0 + WAKE_TOKEN_TTL_MS - 1)), Ok(token()));
        assert_eq!(keys.read(&text, Timestamp(NOW.0 + WAKE_TOKEN_TTL_MS)), Err(BadToken::Expired));
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(WAKE_PREFIX).expect("its mark")).expect("base64");
        for place in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[place] ^= 1;
            let text = format!("{WAKE_PREFIX}{}", URL_SAFE_NO_PAD.encode(bent));
            assert_eq!(keys.read(&text, NOW), Err(BadToken::Invalid), "{place}");
        }
        let long = format!("{WAKE_PREFIX}{}", "A".repeat(10_000));
        for text in ["", "plw_", "plw_AAAA", "plk_x", &text[4..], &long] {
            assert_eq!(keys.read(text, NOW), Err(BadToken::Invalid), "{text}");
        }
    }

    #[test]
    fn a_token_of_the_root_key_from_before_counts_while_that_does() {
        let (before, after) = (TokenKeys(vec![[7; 32]]), TokenKeys(vec![[8; 32], [7; 32]]));
        assert_eq!(after.read(&before.write(&token(), NOW), NOW), Ok(token()));
        assert_eq!(before.read(&after.write(&token(), NOW), NOW), Err(BadToken::Invalid));
    }
}
